"""STEDI lake: a consent-aware data lake of step detection data.

    >>> import stedi
    >>> lake = stedi.Lake.open("lake")
    >>> lake.query("select count(*) from machine_learning_curated").arrow()

`Lake` is the way in; the rest are what its verbs return, and `StediError`, above everything raised on purpose.
"""

import sys

_CALLED = ("stedi", "stedi.cli", "-mstedi", "-mstedi.cli")
if sys.argv[:1] == ["-m"] and not sys.flags.safe_path and not set(_CALLED).isdisjoint(sys.orig_argv):
    # `python -m stedi` looks for modules in the folder that it is started in first, which may be an inbox: that one is
    # forgotten before anything else is imported, `__future__` included
    del sys.path[0]

import importlib  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from stedi._version import __version__ as __version__  # noqa: E402

if TYPE_CHECKING:
    from stedi.audit.explain import Explanation
    from stedi.catalog.snapshots import Snapshot
    from stedi.datasets.dataset import Dataset
    from stedi.datasets.manifest import Release
    from stedi.errors import StediError
    from stedi.lake import Lake, Table
    from stedi.landing import LandedFile, Landing
    from stedi.landing.withdrawal import Withdrawal
    from stedi.query import Result
    from stedi.transform import Build, Built, Plan

__all__ = [
    "Build",
    "Built",
    "Dataset",
    "Explanation",
    "Lake",
    "LandedFile",
    "Landing",
    "Plan",
    "Release",
    "Result",
    "Snapshot",
    "StediError",
    "Table",
    "Withdrawal",
]

_HOMES = {
    "Build": "stedi.transform",
    "Built": "stedi.transform",
    "Dataset": "stedi.datasets.dataset",
    "Explanation": "stedi.audit.explain",
    "LandedFile": "stedi.landing",
    "Lake": "stedi.lake",
    "Landing": "stedi.landing",
    "Release": "stedi.datasets.manifest",
    "Result": "stedi.query",
    "Snapshot": "stedi.catalog.snapshots",
    "StediError": "stedi.errors",
    "Plan": "stedi.transform",
    "Table": "stedi.lake",
    "Withdrawal": "stedi.landing.withdrawal",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used, so that the command line answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'stedi' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
