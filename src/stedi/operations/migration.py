"""Migration of a lake's folder from an earlier format to this one, with a backup and a way back.

    1  as of November 2026: tombstones under the key, without the lake's id; the public key from the first signature on
    2  tombstones sealed for their lake; `keys/sign.pub` and its fingerprint in the settings; every setting written

Tables, their files and the catalog are the same in both, but that the schemas of older tables do not say what columns
mean: a migration adds that, and the way back leaves it, since every version reads it. The settings are written last
and decide: killed before, a lake is of the earlier format, which this version reads and writes as well, and a
migration goes on from its backup.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, replace
from stedi.context import Context
from stedi.context.progress import run_id
from stedi.errors import LakeError
from stedi.privacy import signatures, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.storage import config as settings
from stedi.storage import durable, s3
from stedi.storage.config import FORMAT

FOLDER = "backups"
"""The folder, in the lake's, of files that migrations have changed."""
_MANIFEST = "manifest.json"
_CHANGED = ("tombstones", "keys/sign.pub", "lake.toml")
"""What a migration writes, in the order in which it does."""


@dataclass(frozen=True, slots=True)
class Migration:
    """The result of a migration, or of its dry run.

    Attributes:
        was: The format that the lake had.
        now: The format that it has.
        steps: The changes; empty if there was nothing to do.
        backup: The folder with the original files; empty if nothing was changed, and of a dry run.
    """

    was: int
    now: int
    steps: tuple[str, ...]
    backup: str = ""


def plan(context: Context) -> Migration:
    """Returns what a migration would do; changes nothing."""
    was, undescribed = context.config.format, len(context.catalog.undescribed())
    described = [f"write into the schemas of {undescribed} tables what columns mean"] if undescribed else []
    if was == FORMAT:
        return Migration(was, was, tuple(described))
    steps = [*described, "write every setting into lake.toml"]
    if not context.config.signs_as:
        steps.insert(0, "publish keys/sign.pub and name it in lake.toml")
    if (context.root / tombstones.NAME).exists() and not tombstones.is_bound(context.root):
        steps.insert(0, "seal the tombstones for this lake")
    return Migration(was, FORMAT, tuple(steps))


def migrate(context: Context, key: Key) -> Migration:
    """Brings a lake to the format of this version; the caller holds the locks of all commands that write.

    Args:
        context: The lake.
        key: Its key.
    """
    planned = plan(context)
    if not planned.steps:
        return planned
    for table in context.catalog.undescribed():  # every version reads it, so nothing needs to be restored
        context.catalog.describe(table)
    if planned.was == FORMAT:
        return planned
    root, lake_id = context.root, context.config.lake_id
    # a second backup of an interrupted migration would hold what the first attempt has written
    backup = _kept(root) or _keep(root, planned.was)
    if (root / tombstones.NAME).exists():
        tombstones.reseal(root, key, lake_id, lake_id)
    signs_as = signatures.fingerprint(signatures.publish(root, key))
    # settings from the environment apply only to this process
    written = settings.read(root / "lake.toml", {})
    # before the settings: a lake of this format has a backup that knows its tombstones
    _note_after(root, backup)
    settings.write(replace(written, format=FORMAT, signs_as=signs_as), root / "lake.toml")
    return replace(planned, backup=str(backup))


def back(context: Context) -> Migration:
    """Restores what the last migration has changed; the caller holds the locks of all commands that write.

    Raises:
        LakeError: There was none, or there was an erasure since, which an earlier version would not know.
    """
    root, was = context.root, context.config.format
    found = [folder for folder in _backups(root) if _manifest(folder).get("format") == was - 1]
    if not found:
        raise LakeError(f"{root}: expected the backup of a migration in {FOLDER}, found none; nothing was changed")
    folder = found[-1]
    manifest = _manifest(folder)
    after = _sha256(root / tombstones.NAME)
    if after != manifest.get("after"):
        raise LakeError(
            f"{root}: expected the tombstones as the migration left them, found others: somebody was erased since, "
            "which would be undone; nothing was changed. Keep using this version"
        )
    files: Mapping[str, str | None] = manifest["files"]
    # all of it read and compared, before the first file is written
    content = {name: _content(folder / name, digest) for name, digest in files.items() if digest is not None}
    for name in _CHANGED:
        if name in content:
            durable.write(root / name, content[name], durable.readable((root / name).parent))
        else:
            durable.remove(root / name)
    return Migration(was, was - 1, tuple(f"put {name} back" for name in content), str(folder))


def _keep(root: Path, was: int) -> Path:
    """Copies what a migration changes; it counts once its manifest is there."""
    folder = root / FOLDER / f"format-{was}-{run_id()}"
    files = {name: _sha256(root / name) for name in _CHANGED}
    for name, digest in files.items():
        if digest is not None:
            durable.folder((folder / name).parent)
            durable.write(folder / name, _content(root / name, digest))
    durable.write(folder / _MANIFEST, json.dumps({"format": was, "files": files}).encode())
    return folder


def _kept(root: Path) -> Path | None:
    """Returns the backup of a migration that was interrupted: its settings are those of the lake."""
    now = _sha256(root / "lake.toml")
    return next((each for each in _backups(root) if _manifest(each)["files"]["lake.toml"] == now), None)


def _note_after(root: Path, folder: Path) -> None:
    """Records the new tombstones with a backup, so that going back can detect newer ones."""
    noted = {**_manifest(folder), "after": _sha256(root / tombstones.NAME)}
    durable.write(folder / _MANIFEST, json.dumps(noted).encode())


def _backups(root: Path) -> list[Path]:
    """Returns the folders of whole backups, oldest first."""
    home = root / FOLDER
    if s3.is_remote(root):
        found = {entry.path.parent for entry in durable.walk(home) if entry.path.name == _MANIFEST}
    else:
        found = {path.parent for path in home.glob(f"format-*/{_MANIFEST}")}
    return sorted(found, key=lambda path: path.name)


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads((folder / _MANIFEST).read_bytes())
        return found
    except ValueError:
        raise LakeError(f"{folder}: expected the manifest of a backup, found something else") from None


def _content(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != digest:
        raise LakeError(f"{path}: expected the content that was backed up, found another; nothing was changed")
    return content


def _sha256(path: Path) -> str | None:
    with suppress(FileNotFoundError):
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return None
