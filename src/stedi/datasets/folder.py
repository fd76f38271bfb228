"""The place of a release: `releases/NAME/VERSION` in the lake, or a folder that the caller names; complete or absent.

A release is written under a hidden name beside its place, synced, and renamed when complete. The next command that
writes there removes leftovers of killed ones.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from stedi.context import places
from stedi.datasets import contents, seal
from stedi.errors import AuditFailed, LakeError, UsageError
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


def real(path: Path, release: str, manifest_sha256: str, *, deleted: bool) -> Path:
    """Returns the folder with the data of a release that lies in the lake: where it is a link, what the link leads to.

    Args:
        path: The release's place.
        release: `NAME@VERSION`.
        manifest_sha256: SHA-256 of its manifest as it was made.
        deleted: Whether a command has begun to delete it: then there may be nothing left.

    Raises:
        LakeError: A link leads to something else, or to nothing.
    """
    from stedi.datasets import drop

    found = Path(os.path.realpath(path))
    drop.restore(found)
    if not path.is_symlink() or (deleted and found.parent.is_dir() and not os.path.lexists(found)):
        return found
    with suppress(OSError, AuditFailed):
        if contents.open_manifest(found / seal.MANIFEST).origin == manifest_sha256:
            return found
    what = "which holds something else" if os.path.lexists(found) else "where nothing is"
    raise LakeError(
        f"{path}: expected the folder of {release}, found a link to {found}, {what}; nothing was removed: let the link "
        "lead to the release, or remove the link if the data are gone"
    )


def remove(path: Path, found: Path, release: str) -> None:
    """Removes the folder of a release, its name in one step, and then the link to it, if there is one.

    Args:
        path: The release's place.
        found: Where its data are.
        release: `NAME@VERSION`.

    Raises:
        LakeError: Data cannot be removed; the message says where they are.
    """
    from stedi.datasets import drop

    gone = found.with_name(f".{found.name[:100]}.{secrets.token_hex(8)}.partial")
    why = "permission denied"
    try:
        if found.is_dir():
            found.rename(gone)  # an incomplete folder must not have a release's name
            durable.sync(gone.parent)
    except OSError as error:
        gone, why = found, error.strerror or why
    for entry in drop.abandoned(found):  # and what killed commands have left there
        durable.remove_tree(entry, never_named=True)
    for left in (gone, *drop.abandoned(found)):
        if os.path.lexists(left):
            raise LakeError(
                f"{left}: expected to remove the data of {release}, found that they cannot be removed "
                f"({why.lower()}); they are still there: make the folder writable and run `stedi dataset delete "
                f"{release}` again"
            )
    # last: as long as there are data, the link says where
    if path.is_symlink():
        path.unlink()
        durable.sync(path.parent)


def remove_abandoned(folder: Path, name: str = "") -> None:
    """Removes leftovers of killed commands in a folder, of one release or of all, but no running command's files."""
    for entry in folder.glob(f".{name}*.partial") if folder.is_dir() else ():
        if _STAGED.fullmatch(entry.name) and entry.is_dir() and not entry.is_symlink() and not durable.is_held(entry):
            durable.remove_tree(entry, never_named=True)
