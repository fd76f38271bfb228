"""Where PyIceberg's configuration is read from: `$PYICEBERG_HOME`, the home folder and the environment, nowhere else.

PyIceberg also reads `.pyiceberg.yaml` from the folder that a command is started in, and such a file can name a class
to load. That folder may be an inbox or a lake, so this program keeps PyIceberg from looking there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_MODULE = "pyiceberg.utils.config"
FILE = ".pyiceberg.yaml"


def folders() -> list[Path]:
    """Returns the folders in which a configuration counts, in order; none that depends on the current folder."""
    named = (os.environ.get("PYICEBERG_HOME", ""), os.path.expanduser("~"))
    # a relative name, or a `~` that nothing expands, would mean the current folder
    return [Path(name) for name in named if os.path.isabs(name)]


def keep_out() -> None:
    """Has PyIceberg read its configuration from `folders` alone, from now on or from when it is imported."""
    loaded = sys.modules.get(_MODULE)
    if loaded is not None:
        _amend(loaded)
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        # not by importing it here: most commands never need PyIceberg, which takes 0.4 s
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Patches one module when anything imports it."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Returns the module's normal spec, to be patched after loading."""
        if fullname != _MODULE:
            return None
        found = PathFinder.find_spec(fullname, path, target)
        if found is not None and found.loader is not None:
            found.loader.exec_module = partial(_executed, found.loader.exec_module)  # type: ignore[method-assign] # of this loader alone
        return found


def _executed(execute: Any, module: ModuleType) -> None:
    execute(module)
    _amend(module)


def _amend(module: Any) -> None:
    def read() -> Any:
        for folder in folders():
            path = folder / FILE
            if path.is_file():
                found = module.strictyaml.load(path.read_text("utf-8")).data
                if found:
                    return module._lowercase_dictionary_keys(found)
        return None

    module.Config._from_configuration_files = staticmethod(read)
