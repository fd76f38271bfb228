"""The place of a release: `releases/NAME/VERSION` in the lake, or a folder that the caller names; complete or absent.

A release is written under a hidden name beside its place, synced, and renamed when complete. The next command that
writes there removes leftovers of killed ones.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stedi.context import places
from stedi.errors import UsageError
from stedi.storage import destinations, durable, s3

RELEASES = "releases"
"""The folder of releases, in the lake's."""
_STAGED = re.compile(r"\.[a-z0-9._-]+\.[0-9a-f]{16}\.partial")


def home(root: Path, name: str, version: int) -> Path:
    """Returns where a release lies in the lake."""
    return root / RELEASES / name / str(version)


def chosen(root: Path, name: str, version: int, output: str | os.PathLike[str] | None) -> Path:
    """Returns the folder that a release is to have.

    Raises:
        UsageError: Something is there, or it lies in a lake elsewhere than among the releases, or in a bucket.
    """
    path = home(root, name, version) if output is None else destinations.expanded(output).absolute()
    if s3.is_remote(path):
        raise UsageError(
            f"{path}: expected a folder on this machine, found a bucket; give --output DIR, then copy it there"
        )
    if output is not None:
        # by its real path: a link may lead into a lake
        real = Path(os.path.realpath(path))
        own = None if s3.is_remote(root) else Path(os.path.realpath(root / RELEASES))
        # in the lake, a release may lie only beside those of its name, where commands remove what killed ones have left
        if own is None or real.parent != own / name:
            places.refuse_into_lake(path)
        if not real.parent.is_dir() and (own is None or not real.is_relative_to(own)):
            raise UsageError(f"{path}: expected an existing parent folder, found none; create {path.parent}")
    if os.path.lexists(path):
        raise UsageError(f"{path}: expected a new folder, found an existing one; name another, or remove it")
    return path


@contextmanager
def staged(path: Path, publish: Callable[[Path], None]) -> Iterator[Path]:
    """Gives a folder to fill that takes a release's place, if the block succeeds, when it is whole and on disk.

    Args:
        path: The release's place.
        publish: Called with the whole folder: gives it its name there.
    """
    durable.folder(path.parent)
    remove_abandoned(path.parent, path.name)
    beside = path.with_name(f".{path.name[:100]}.{secrets.token_hex(8)}.partial")
    beside.mkdir(0o700)
    held = durable.hold(beside)
    try:
        yield beside
        settled = sorted(beside.rglob("*"))
        # readable by the group where the folder around it is
        beside.chmod(0o700 | path.parent.stat().st_mode & 0o050)
        durable.settle(settled)
        # on disk before it has its name: a release that is named is whole, whatever happens to the machine
        for entry in (*settled, beside):
            durable.sync(entry)
        if os.path.lexists(path):  # rename would take the place of an empty folder
            raise UsageError(f"{path}: expected a new folder, found an existing one; nothing was written")
        publish(beside)
    except BaseException:
        durable.remove_tree(beside, never_named=True)
        raise
    finally:
        os.close(held)


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Removes leftovers of killed commands in a folder, of one release or of all, but no running command's files."""
    for entry in folder.glob(f".{name}*.partial") if folder.is_dir() else ():
        if _STAGED.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink() and not durable.is_held(entry):
            durable.remove_tree(entry, never_named=True)
