"""Adoption: makes a copied or moved folder a lake at its new place.

    files   -> every metadata file, manifest list and manifest is rewritten beside the old, with this folder's paths
    records -> tombstones and receipts are sealed for the lake's new id, the key's place is written down
    catalog -> a new one takes the old one's place, in one step: until then the folder is a copy, from then on a lake
    old     -> what named another folder is removed

Nothing outside of the folder is written, and nothing in it changes that the other folder could share by hard links.
What was interrupted starts again by the next adoption; data files and snapshots stay as they are, with their ids.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, replace
from stedi.catalog import Catalog, checksums, hint, snapshots
from stedi.catalog.checksums import Output
from stedi.catalog.sqlite import Pointers
from stedi.context import Context, access, runs
from stedi.context.places import home_of
from stedi.context.progress import Progress, silent
from stedi.errors import ConfigError, LakeError
from stedi.privacy import journal, key_change, pseudonyms, receipts, state, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import ALL_ZONES, ZONES
from stedi.storage import config as settings
from stedi.storage import copies, durable, s3
from stedi.storage.config import Config
from stedi.storage.copies import NOTE, shown

_METADATA = re.compile(r"(\d+)-[0-9a-f-]{36}\.metadata\.json")
_LISTED = re.compile(r"[0-9A-Za-z._-]+\.avro")


@dataclass(frozen=True, slots=True)
class Adoption:
    """The result of adopting a copy or a moved lake.

    Attributes:
        root: The folder.
        home: The folder that its tables named before; the same if there was nothing to do.
        lake_id: The lake's id now.
        was: Its id before; it differs if the original keeps that id.
        key: The place of its key: a variable, a file or a secret.
    """

    root: Path
    home: Path
    lake_id: str
    was: str
    key: str


def adopt(context: Context, key: Key, *, new_id: bool = False, progress: Progress = silent) -> Adoption:
    """Makes a copied or moved folder a separate lake.

    If the original lake still exists, this one gets a new id; otherwise it keeps its id.

    Args:
        context: The folder.
        key: Its key.
        new_id: Give it an id of its own in any case: the lake that it comes from lives on another machine.
        progress: Told what is being done and the share of it that is done.

    Raises:
        LakeError: It is in a bucket, a command was interrupted in it, or some of its files are missing or lie
            elsewhere; nothing that others read was changed.
    """
    root = context.root
    if s3.is_remote(root):
        raise LakeError(
            f"{root}: expected a lake in a folder, found one in a bucket, whose tables belong to the original's "
            "catalog; nothing was changed. Make a new lake with its own catalog, land the deliveries into it, and "
            "replay the journal there (`stedi erase --replay`)"
        )
    copies.unregister(root)
    if _home(root, snapshots.listed(root / "catalog.db")) == root and not (root / NOTE).exists():
        return _done(root, root, context.config.lake_id)
    for name in durable.ALL:  # a lock file shared with the other folder would block that one, too
        lock = root / f"{name}.lock"
        if lock.exists() and lock.stat().st_nlink > 1:
            lock.unlink()
    with context.locked(*durable.ALL, progress=progress):
        # looked at only now: another adoption may have ended while this one waited
        config, rows = settings.read(root / "lake.toml"), snapshots.listed(root / "catalog.db")
        home = _home(root, rows)
        if home == root:
            _clear(root, rows)
            return _done(root, root, config.lake_id)
        _refuse_unfinished(root)
        own_id = _of_its_own(root, config.lake_id) if new_id or _lives(home, config.lake_id) else config.lake_id
        # from here on the folder is half adopted, and a repetition finds the note and what remains to be done
        durable.write(root / NOTE, json.dumps({"home": str(home)}).encode())
        made = {}
        for number, (table, location) in enumerate(rows.items()):
            progress(f"adopt {table}", number / len(rows))
            made[table] = _Table(root, home, table, location).adopt()
        _part(root, as_new=own_id != config.lake_id)
        if own_id != config.lake_id:
            _seal(root, key, config.lake_id, own_id)
            _settle(root, config.lake_id, own_id)
        # last of what decides: the catalog names the new metadata of all tables, or those of none
        _replace(root, made)
        # after the catalog: published metadata that no catalog names would look like a catalog that was rolled back
        for table, path in made.items():
            checksums.publish(root / ALL_ZONES[table] / table, f"metadata/{path.name}")
            hint.write(path)
        _clear(root, {table: snapshots.uri(path) for table, path in made.items()})
    return _done(root, home, config.lake_id)


def _home(root: Path, rows: Mapping[str, str]) -> Path:
    """Returns the folder that the tables of a catalog name.

    Raises:
        LakeError: They name several, or some are missing.
    """
    # tables that name two folders are no copy of one lake: to adopt them would mix two lakes
    homes = {home_of(root, table, location) for table, location in rows.items() if table in ALL_ZONES}
    if len(homes) != 1 or not set(ZONES) <= set(rows):
        raise LakeError(
            f"{root}: expected a catalog of {len(ZONES)} tables of one lake, found {len(rows)} of {len(homes)}; "
            "nothing was changed: copy it again, or run `stedi repair` in the original"
        )
    return Path(homes.pop())


def _done(root: Path, home: Path, was: str) -> Adoption:
    """Returns what a folder is now."""
    now = settings.read(root / "lake.toml")
    return Adoption(root, home, now.lake_id, was, _place(now))


def _refuse_unfinished(root: Path) -> None:
    """Refuses a folder with an interrupted command, whose state names files of the other folder."""
    notes = ((tombstones.PENDING, "an erasure"), (key_change.NAME, "a key rotation"), ("pending/*.json", "a landing"))
    for name, what in notes:
        if any(root.glob(name)):
            raise LakeError(
                f"{root}: expected a lake in which no command was under way, found {what} that was: finish it where "
                "the lake comes from (`stedi build` does), then copy or move it again; nothing was changed"
            )


def _lives(home: Path, lake_id: str) -> bool:
    """Returns whether the lake of an id is still in a copy's original folder, as far as is known."""
    if not os.path.lexists(home / "lake.toml"):
        return False
    # a lake that cannot be read may live: a new id too many is harmless, two lakes of one id are not
    try:
        return settings.read(home / "lake.toml", {}).lake_id == lake_id
    except (ConfigError, OSError):
        return True


def _of_its_own(root: Path, lake_id: str) -> str:
    """Returns the id of a copy, which is the same if an interrupted adoption is repeated.

    Another copy of the same lake in the same place gets another id, since the recorded state of the first is not its
    own.
    """
    copied, _ = checksums.digest(root / "catalog.db")
    made = (root / "landing").stat()  # no adoption changes this folder itself, and no copy keeps this time
    words = f"{lake_id}\0{root}\0{copied}\0{made.st_ino}\0{made.st_ctime_ns}"
    return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _part(root: Path, *, as_new: bool) -> None:
    """Separates log and history from those of the original lake: this one starts new ones."""
    for folder in (root / access.FOLDER, root / runs.FOLDER):
        if as_new:
            durable.remove_tree(folder)
        elif folder.is_dir():
            for path in [path for path in folder.iterdir() if path.is_file() and path.stat().st_nlink > 1]:
                durable.write(path, path.read_bytes(), durable.readable(folder))  # lines are added in place
    lock = root / f"{access.FOLDER}.lock"
    if lock.exists() and lock.stat().st_nlink > 1:
        lock.unlink()


def _seal(root: Path, key: Key, was: str, lake_id: str) -> None:
    """Seals tombstones, receipts and waiting withdrawals for another id; those that have it already stay."""
    waiting = root / journal.WAITING
    if waiting.exists():
        try:
            kept = state.read(waiting, journal.WAITING, was, key, advice="")
        except state.StateRefused:
            kept = state.read(waiting, journal.WAITING, lake_id, key, advice="nothing was changed that anybody reads")
        state.write(waiting, journal.WAITING, lake_id, key, kept)
    if (root / tombstones.NAME).exists():
        tombstones.reseal(root, key, was, lake_id)
    for name in sorted(receipts.names(root)):
        receipt = receipts.listed_as(root, name)
        if receipts.holds(receipt, key, was):
            content = {part: value for part, value in receipt.items() if part not in receipts.SEAL}
            before = {"adopted_from": was, "adopted_sha256": list(receipts.digests(receipt))}
            receipts.keep(root, receipts.signed(key, lake_id, {**content, **before}))


def _settle(root: Path, was: str, lake_id: str) -> None:
    """Writes a lake's new id, and its key's place if that depended on the old one."""
    found = settings.read(root / "lake.toml", {})
    file = found.key_file
    if not file and pseudonyms.default_file(was).exists():
        file = str(pseudonyms.default_file(was))
    settings.write(replace(found, lake_id=lake_id, key_file=file), root / "lake.toml")


def _place(config: Config) -> str:
    if pseudonyms.VARIABLE in os.environ:
        return pseudonyms.VARIABLE
    return config.key_file or str(pseudonyms.default_file(config.lake_id))


def _replace(root: Path, made: Mapping[str, Path]) -> None:
    """Replaces the catalog by one of some metadata files, atomically."""
    beside = root / f".catalog.db.{secrets.token_hex(8)}.partial"
    try:
        os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        pointers = Pointers(beside, 30)
        pointers.create()
        pointers.enter({table: snapshots.uri(path) for table, path in made.items()})
        beside.chmod(durable.readable(root))
        durable.sync(beside)
        os.replace(beside, root / "catalog.db")
    finally:
        beside.unlink(missing_ok=True)
    # SQLite would apply them to the new file
    for ending in ("-journal", "-wal", "-shm"):  # of the old one
        (root / f"catalog.db{ending}").unlink(missing_ok=True)
    durable.sync(root)


def _clear(root: Path, rows: Mapping[str, str]) -> None:
    """Removes metadata files that name another folder, and then the note that there are some."""
    if not (root / NOTE).exists():
        return
    for table, location in rows.items():
        folder, current = root / ALL_ZONES[table] / table / "metadata", Path(snapshots.local_path(location))
        known = _named(current)
        for path in [entry.path for entry in durable.walk(folder) if entry.path.parent == folder]:
            ours = _METADATA.fullmatch(path.name) or _LISTED.fullmatch(path.name)
            if ours and path.name not in known:
                path.unlink()
        durable.sync(folder)
        there = {checksums.name_in(folder.parent, entry.path) for entry in durable.walk(folder.parent)}
        checksums.prune(folder.parent, there.__contains__)
    durable.remove(root / NOTE)


def _named(metadata: Path) -> set[str]:
    """Returns the names of the metadata files that a table uses."""
    found = snapshots.read_table(metadata.parent.parent.name, str(metadata))
    names = {metadata.name}
    for snapshot in found.snapshots:
        names.add(Path(snapshot.manifest_list).name)
        names.update(
            Path(path).name
            for path in snapshots.avro(found.name, snapshot.manifest_list, lambda entry: str(entry["manifest_path"]))
        )
    return names


class _Table:
    """One table of the copy."""

    def __init__(self, root: Path, home: Path, table: str, location: str) -> None:
        self._root, self._home, self._table = root, home, table
        self._folder = root / ALL_ZONES[table] / table
        self._metadata = self._here(location)
        self._manifests: dict[str, tuple[str, int]] = {}

    def adopt(self) -> Path:
        """Rewrites the table's metadata, for this folder, and returns the file; no catalog names it yet."""
        known = checksums.recorded(self._folder)
        described = json.loads(checksums.read(self._metadata))
        # never added to in place: a hard link would be the other lake's file
        lines = "".join(f"{sha256}  {name}\n" for name, sha256 in known.items())
        durable.write(self._folder / checksums.NAME, lines.encode(), durable.readable(self._folder))
        described["location"] = snapshots.uri(self._folder)
        for snapshot in described.get("snapshots", ()):
            snapshot["manifest-list"] = self._list(snapshot["manifest-list"])
        # they name files of the other folder
        described["metadata-log"] = []
        for name in ("statistics", "partition-statistics"):
            described.pop(name, None)
        # such as `write.data.path`, by which other programs would write into the other folder
        for name in [name for name in described.get("properties", {}) if name.endswith(".path")]:
            del described["properties"][name]
        numbered = _METADATA.fullmatch(self._metadata.name)
        version = int(numbered[1]) + 1 if numbered else 0
        path = self._folder / "metadata" / f"{version:05d}-{uuid.uuid4()}.metadata.json"
        hint.withdraw(path.parent)
        with Output(path) as out:
            out.write(json.dumps(described).encode())
        state_now = snapshots.read_table(self._table, snapshots.uri(path))
        # of each readable snapshot: a copy without some files cannot become a lake
        for snapshot in state_now.snapshots:
            Catalog(self._root).files(state_now, snapshot)
        return path

    def _here(self, location: str) -> Path:
        """Returns where a file of the other folder is in this one."""
        path = snapshots.local_path(location)
        within = path.removeprefix(f"{self._home}/{ALL_ZONES[self._table]}/{self._table}/")
        if within == path or ".." in Path(within).parts:
            raise LakeError(
                f"table {self._table}: expected its files below {shown(str(self._home))}, found {shown(path)}; "
                "nothing was changed: copy the lake again, or restore it at its original path"
            )
        return self._folder / within

    def _list(self, location: str) -> str:
        def listed(entry: dict[str, Any]) -> dict[str, Any]:
            path, length = self._manifest(entry["manifest_path"])
            return {**entry, "manifest_path": path, "manifest_length": length}

        name = f"snap-{uuid.uuid4()}.avro"
        return snapshots.uri(self._write(name, self._changed(location, listed)))

    def _manifest(self, location: str) -> tuple[str, int]:
        """Rewrites a manifest, once, and returns its new location and its size."""

        def named(entry: dict[str, Any]) -> dict[str, Any]:
            file = entry["data_file"]
            return {**entry, "data_file": {**file, "file_path": snapshots.uri(self._here(file["file_path"]))}}

        # snapshots share their manifests
        if location not in self._manifests:
            content = self._changed(location, named)
            path = self._write(f"{uuid.uuid4()}-m0.avro", content)
            self._manifests[location] = snapshots.uri(path), len(content)
        return self._manifests[location]

    def _write(self, name: str, content: bytes) -> Path:
        path = self._folder / "metadata" / name
        with Output(path) as out:
            out.write(content)
        return path

    def _changed(self, location: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> bytes:
        """Returns an Avro file of the same schema and properties, with every record changed."""
        import fastavro

        here = self._here(location)
        records = snapshots.avro(self._table, str(here), lambda entry: change(entry))
        about = fastavro.reader(io.BytesIO(checksums.read(here))).metadata
        out = io.BytesIO()
        fastavro.writer(
            out,
            json.loads(about["avro.schema"]),
            records,
            codec="deflate",
            metadata={name: value for name, value in about.items() if not name.startswith("avro.")},
        )
        return out.getvalue()
