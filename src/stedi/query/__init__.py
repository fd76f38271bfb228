"""Read-only SQL over the lake's tables, in a closed sandbox.

A process of its own (`sandbox`), in which the engine is closed and the system bounds memory and time, judges what is
asked (`statement`) and runs it; `execution` starts it and hands over what it reads, and its rows are a `result`. A
process of the sandbox imports this package, too: names are resolved when they are first used, so that it does not
import what starts it.
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
