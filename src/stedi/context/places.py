"""Checks where a lake is, and that everything it names is there, too.

Tables name their files by absolute paths. A folder that was copied names the files of its original, and a link in it
leads out: neither may be followed, since a command writes and removes where it is led. Paths are compared as they
really are, by what the disk says and not by how they are written.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path

from stedi.catalog.snapshots import local_path
from stedi.errors import LakeError, UsageError
from stedi.schema.tables import ALL_ZONES
from stedi.storage import copies, destinations, s3
from stedi.storage.copies import shown

_FOLDERS = {
    *ALL_ZONES.values(),
    *("tmp", "pending", "receipts", "journal", "releases", "keys", "queries", "access", "runs", "backups"),
}
"""The folders that a lake makes in its own."""
_FILES = re.compile(r"\.?(lake\.toml|catalog\.db|tombstones|[a-z_-]+\.(lock|json|jsonl|log)|damaged-catalog\.db).*")
"""Names of files that a lake creates in its folder, including unfinished ones."""


def named(path: str | os.PathLike[str]) -> Path:
    """Returns the folder of a path, with links and `~` resolved; a path in a bucket unchanged.

    Raises:
        UsageError: It begins with a `~` without a known home folder, or is not a path.
    """
    if s3.is_remote(path):
        return s3.at(path).absolute()
    text = os.path.expanduser(s3.at(path))
    if str(text).startswith("~") or (os.fspath(path).split("/")[0] == "~" and destinations.home_fault()):
        raise UsageError(
            f"{path}: expected a folder, found a ~ without a known home folder; write the full path, or ./~"
        )
    try:
        real = os.path.realpath(text)
    except ValueError as error:
        raise UsageError(f"{str(path)!r}: expected a path, found something else ({error})") from None
    return Path("/" + real.lstrip("/"))  # two slashes in front stay for POSIX, and mean nothing here


def refuse_links(root: Path) -> None:
    """Refuses a lake in which something of the lake's own leads out, or is neither folder nor file.

    Raises:
        LakeError: There is such a thing; nothing was read or written.
    """
    if s3.is_remote(root):
        return
    with os.scandir(root) as entries:
        for entry in entries:
            if entry.name in _FOLDERS:
                _expect(entry.is_dir(follow_symlinks=False), Path(entry.path), "a folder")
            elif _FILES.fullmatch(entry.name):
                _expect(entry.is_file(follow_symlinks=False), Path(entry.path), "a file")
    for table, zone in ALL_ZONES.items():
        for part in ("", "data", "metadata"):
            path = root / zone / table / part
            try:
                mode = path.lstat().st_mode
            except OSError:
                continue
            _expect(stat.S_ISDIR(mode), path, "a folder")


def _expect(there: bool, path: Path, what: str) -> None:
    if not there:
        raise LakeError(
            f"{path}: expected {what} made by the lake, found a link or something else; nothing was read or "
            "written: restore the original"
        )


def spelled(root: Path, locations: Mapping[str, str]) -> Path:
    """Returns a lake's folder as its tables name it; registers a copy with its original folder.

    Args:
        root: The folder.
        locations: The place of each table's metadata file, from the catalog.

    Raises:
        CopiedLake: The tables lie in other folders, which no copying brings about.
        LakeError: A table lies where no lake puts it.
    """
    homes = {home_of(root, table, location) for table, location in locations.items() if table in ALL_ZONES}
    others = homes - {str(root)}
    if not others:
        copies.unregister(root)
        return root
    [home, *more] = sorted(others)
    # one folder by two paths, as with a bind mount; metadata name files by the tables' spelling, so that one is used
    if not more and _same(home, root):
        copies.unregister(root)
        return Path(home) if len(homes) == 1 else root
    if len(homes) > 1:
        raise copies.refused(root, home)
    copies.note(root, home)
    return root


def home_of(root: Path, table: str, location: str) -> str:
    """Returns the lake's folder for a table's metadata file.

    Raises:
        LakeError: It is not where a lake puts it.
    """
    path = local_path(location)
    home, found, name = path.rpartition(f"/{ALL_ZONES[table]}/{table}/metadata/")
    if not found or "/" in name or not os.path.isabs(path) or ".." in Path(path).parts:
        raise LakeError(
            f"{root}: expected the metadata of {table} in {ALL_ZONES[table]}/{table}/metadata, "
            f"found {shown(location)}; nothing was read or written. See docs/operations.md on recovery"
        )
    return home


def refuse_into_lake(path: str | os.PathLike[str] | None) -> None:
    """Refuses to write a caller's file into the folder of a lake, by any path.

    Args:
        path: The file or folder to write, or None.

    Raises:
        UsageError: It is in a lake's folder; nothing was written.
    """
    if path is None or s3.is_remote(path):
        return
    real = Path(os.path.realpath(os.path.expanduser(path)))
    for part in (real, *real.parents):
        if (part / "lake.toml").is_file() and (part / "catalog.db").is_file():
            raise UsageError(
                f"{path}: expected a path outside of any lake, found one in the lake {part}; nothing was written: "
                "name another"
            )


def _same(one: str, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:
        return False


def inside(root: Path, path: str | os.PathLike[str]) -> bool:
    """Returns whether a path leads into a lake's folder, by any links or spelling; it need not exist."""
    if s3.is_remote(root) or s3.is_remote(path):
        return s3.is_remote(root) and s3.is_remote(path) and s3.at(path).is_relative_to(root)
    real = Path(os.path.realpath(path))
    return any(_same(str(part), root) for part in (real, *real.parents))
