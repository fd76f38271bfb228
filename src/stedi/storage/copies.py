"""Copies of a lake that were not adopted: read in place, never written.

    named  -> what metadata name by the path of the folder that the copy was made of
    here   -> is read where it lies in the copy, and nowhere else
    writes -> are refused, and what is needed on the way lies outside

Which folders are copies is known to the process that has opened them, by their paths. A metadata file says by its own
path which folder it lies in: so a copy and its original can be open in one process, and each reads its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from stedi.errors import CopiedLake, LakeError

NOTE = "adopting.json"
"""The file, in the lake's folder, that an adoption keeps until nothing in the folder names another folder."""
_HOMES: dict[str, str] = {}
"""Of each copy the folder that its metadata name."""

_SHOWN = 200
"""The most characters shown of a path from somebody else."""


def refuse_unfinished(root: Path) -> None:
    """Refuses a lake whose adoption was interrupted near its end.

    Raises:
        LakeError: It was.
    """
    if (root / NOTE).exists():
        raise LakeError(f"{root}: its adoption was interrupted; run `stedi --lake {root} adopt` again to finish it")


def note(root: Path, home: str) -> None:
    """Registers a folder as a copy whose metadata name another folder."""
    _HOMES[str(root)] = home


def unregister(root: Path) -> None:
    """Removes a folder from the registered copies, if it is one."""
    _HOMES.pop(str(root), None)


def known(root: Path) -> bool:
    """Returns whether a folder is a copy that was not adopted."""
    return str(root) in _HOMES


def home(root: Path) -> str | None:
    """Returns the folder that the metadata of a copy name, or None if it is no copy."""
    return _HOMES.get(str(root))


def refuse(root: Path) -> None:
    """Refuses to write into a folder that is a copy.

    Raises:
        CopiedLake: It is; nothing was written.
    """
    home = _HOMES.get(str(root))
    if home is not None:
        raise refused(root, home)


def refused(root: Path, home: str) -> CopiedLake:
    """Returns the error that a folder is a copy, or was moved.

    Args:
        root: The folder.
        home: The folder that its metadata name.
    """
    return CopiedLake(str(root), shown(home), gone=not os.path.lexists(home))


def here(described: str, named: Iterable[str]) -> tuple[str, ...]:
    """Returns where what a metadata file names is to be read: in a copy what the other folder had there; else as named.

    Args:
        described: The path of the metadata file, `ROOT/ZONE/TABLE/metadata/FILE`, by which it is read.
        named: The locations that it names.
    """
    # nearly always: then no path is taken apart
    if not _HOMES:
        return tuple(named)
    root = described.rsplit("/", 4)[0]
    return tuple(within(root, location) for location in named)


def within(root: str | Path, location: str) -> str:
    """Returns the place at which to read a location from a folder's metadata or catalog: see `here`."""
    home = _HOMES.get(str(root))
    # PyIceberg writes `file:///path`, Hadoop `file:/path`
    path = location.removeprefix("file://") if location.startswith("file://") else location.removeprefix("file:")
    if home is None or path.startswith(f"{root}/") or not path.startswith(f"{home}/"):
        return location
    return f"file://{root}{path[len(home) :]}"


def shown(text: str) -> str:
    """Returns a text from somebody else in a form that any terminal can show, cut if it is long."""
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= _SHOWN else f"{plain[:_SHOWN]}..."
