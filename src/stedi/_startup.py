"""Start-up of the lake's own processes: what each process does first."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from importlib.abc import Loader

_UNWANTED = ("numpy", "pandas", "cloudpickle")
_DB_API = ("BINARY", "DATETIME", "NUMBER", "ROWID", "STRING", "DBAPITypeObject")
"""Names that DuckDB's package imports from its module of the DB-API."""


class _Absent:
    """An import finder that reports modules that are not needed here as missing, before other finders search for them.

    Setting their names to None in `sys.modules` would be enough for Python, but PyArrow's compiled import takes None
    for the module.
    """

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: object = None) -> ModuleSpec | None:
        if name in _UNWANTED:
            raise ModuleNotFoundError(f"{name} is not looked for in this process", name=name)
        if name in ("duckdb._version", "duckdb._dbapi_type_object"):
            return ModuleSpec(name, cast("Loader", _Light(path)))
        return None


class _Light:
    """Replaces two modules of DuckDB that take as long to import as the engine itself.

    To find its own version, DuckDB imports `importlib.metadata`, and with it parsers of e-mail and ZIP files. For the
    types of Python's DB-API, which are not used here, it opens a database.

    Args:
        path: The folders of the package.
    """

    def __init__(self, path: Sequence[str] | None) -> None:
        self._path = path

    def create_module(self, spec: ModuleSpec) -> None:
        """Returns None, so that Python creates the module."""

    def exec_module(self, module: ModuleType) -> None:
        """Sets the engine's version or the names; any other attribute is looked up in the real module."""
        if module.__name__ == "duckdb._version":
            from _duckdb import __version__ as version

            names: dict[str, object] = {"__version__": version, "__duckdb_version__": version}
            names["version"] = lambda: version
        else:
            names = dict.fromkeys(_DB_API)

        def own(name: str) -> object:
            # importing asks modules for such names, which must not load the real one
            if name.startswith("__"):
                raise AttributeError(name)
            from importlib.util import module_from_spec

            # asked directly: by way of `sys.meta_path` it would find this stand-in again
            found = PathFinder.find_spec(module.__name__, self._path)
            assert found is not None, "it stands in for a module that is there"
            assert found.loader is not None, "a module is a file"
            real = module_from_spec(found)
            found.loader.exec_module(real)
            return getattr(real, name)

        module.__dict__.update(names, __getattr__=own)


def without_dataframes() -> None:
    """Hides NumPy and pandas from this process if they are installed but not imported yet.

    DuckDB and PyArrow import them when the first value is bound or is made from Python objects, in case the value is
    a NumPy or pandas object. The import takes longer than most commands, and none of these processes has such a value.
    They do not pickle functions either, for which PyArrow imports cloudpickle.
    """
    sys.meta_path.insert(0, _Absent())


def bind_lazily() -> None:
    """Lets libraries look up each function of another one when it is first called.

    Python has them look up all functions when a library is loaded, which is a third of what it takes to load DuckDB.
    """
    sys.setdlopenflags(os.RTLD_LAZY)


def with_dataframes() -> None:
    """Makes them importable again: PySpark checks whether NumPy exists and does not handle the exception."""
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, _Absent)]
