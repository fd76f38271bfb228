"""Start-up of the lake's own child processes: what each does before anything else."""

from __future__ import annotations

import sys


class _Absent:
    """Finds nothing, and says so of NumPy and pandas before anybody looks for them.

    None in their place in `sys.modules` would do for Python, but PyArrow's compiled import takes it for the module.
    """

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name in ("numpy", "pandas"):
            raise ModuleNotFoundError(f"{name} is not looked for in this process", name=name)


def without_dataframes() -> None:
    """Has NumPy and pandas count as absent in this process, where they are installed and not imported yet.

    DuckDB and PyArrow import them at the first value that is bound or made of Python objects, in case it is one of
    theirs. That takes longer than most commands, and none of these processes has such a value.
    """
    sys.meta_path.insert(0, _Absent())


def with_dataframes() -> None:
    """Has them looked for again: PySpark asks whether NumPy is there, and takes no exception for an answer."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Absent)]
