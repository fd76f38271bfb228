"""What a process of the lake's own does before anything else."""

from __future__ import annotations

import sys


def without_dataframes() -> None:
    """Has NumPy and pandas count as absent in this process, where they are installed and not imported yet.

    DuckDB and PyArrow import them at the first value that is bound or made of Python objects, in case it is one of
    theirs. That takes longer than most commands, and none of these processes has such a value.
    """
    for name in ("numpy", "pandas"):
        sys.modules.setdefault(name, None)  # type: ignore[arg-type] # None: an import of it fails
