"""Read-only SQL over the lake's tables, in a closed sandbox.

A separate process (`sandbox`), with a closed engine and system limits of memory and time, validates the statement
(`statement`) and runs it. `visible` decides which files and columns its role sees, `execution` starts the process and
passes them to it, and its rows are a `result`. It imports this package, too: names are resolved at their first
use, so that it does not import `execution`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stedi.query.execution import (
        Ended,
        Limits,
        Parameters,
        QueryTable,
        Resolve,
        Value,
        bounded,
        plain,
        referenced_tables,
        run,
        size,
    )
    from stedi.query.result import LeftOut, Result

__all__ = [
    "Ended",
    "LeftOut",
    "Limits",
    "Parameters",
    "QueryTable",
    "Resolve",
    "Result",
    "Value",
    "bounded",
    "plain",
    "referenced_tables",
    "run",
    "size",
]

_OF_RESULT = ("LeftOut", "Result")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'stedi.query' has no attribute {name!r}")
    home = importlib.import_module("stedi.query.result" if name in _OF_RESULT else "stedi.query.execution")
    return getattr(home, name)
