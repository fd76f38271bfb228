"""Start-up of the lake's own processes: what each does before anything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_UNWANTED = ("numpy", "pandas", "cloudpickle")
_DB_API = ("BINARY", "DATETIME", "NUMBER", "ROWID", "STRING", "DBAPITypeObject")


class _Absent:
    """Finds nothing, and says so of what nobody here needs before anybody looks for it.

    None in their place in `sys.modules` would do for Python, but PyArrow's compiled import takes it for the module.
    """

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name in _UNWANTED:
            raise ModuleNotFoundError(f"{name} is not looked for in this process", name=name)
        if name in ("duckdb._version", "duckdb._dbapi_type_object"):
            return ModuleSpec(name, cast("Loader", _Light(path)))
        return None


class _Light:
    """Stands in for two modules of DuckDB that take as long to import as the engine itself.

    For its own version, DuckDB imports `importlib.metadata`, and with it parsers of mail and ZIP; for the types of
    Python's DB-API, which nobody here asks for, it opens a database.

    Args:
        path: The folders of the package.
    """

    def __init__(self, path: Sequence[str] | None) -> None:
        self._path = path

    def create_module(self, spec: ModuleSpec) -> None:
        """Leaves the module to Python."""

    def exec_module(self, module: ModuleType) -> None:
        """Gives it the engine's version, or names; what else a later DuckDB looks for is the module's own."""
        if module.__name__ == "duckdb._version":
            from _duckdb import __version__ as version

            names: dict[str, object] = {"__version__": version, "__duckdb_version__": version}
            names["version"] = lambda: version
        else:
            names = dict.fromkeys(_DB_API)

        def own(name: str) -> object:
            if name.startswith("__"):
                raise AttributeError(name)
            from importlib.util import module_from_spec

            found = PathFinder.find_spec(module.__name__, self._path)
            assert found is not None, "it stands in for a module that is there"
            assert found.loader is not None, "a module is a file"
            real = module_from_spec(found)
            found.loader.exec_module(real)
            return getattr(real, name)

        module.__dict__.update(names, __getattr__=own)


def without_dataframes() -> None:
    """Has NumPy and pandas count as absent in this process, where they are installed and not imported yet.

    DuckDB and PyArrow import them at the first value that is bound or made of Python objects, in case it is one of
    theirs. That takes longer than most commands, and none of these processes has such a value. Nor does any pickle
    functions, for which PyArrow imports cloudpickle.
    """
    sys.meta_path.insert(0, _Absent())


def with_dataframes() -> None:
    """Has them looked for again: PySpark asks whether NumPy is there, and takes no exception for an answer."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Absent)]
