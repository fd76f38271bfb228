"""Reads tables directly from Iceberg's files: catalog row -> metadata JSON -> manifests -> data files.

A command that needs only a table's current files must answer at once; importing PyIceberg alone takes longer. This
module follows the Iceberg table specification, version 2, and refuses unsupported features (delete files, other
formats) rather than misread them. Nothing here changes what it reads.
"""

from __future__ import annotations

import io
import json
import os
import re
import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

from stedi._frozen import dataclass, replace
from stedi.catalog import checksums
from stedi.catalog.sqlite import guard
from stedi.errors import FORBIDDEN, DamagedCatalog, DamagedFile, LakeError
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, NAMESPACE, ZONES, Column, DataFile
from stedi.storage import copies, s3

T = TypeVar("T")

_VERSION = 2

RUN = re.compile(r"\d{13}-[0-9a-f]{8}")
"""The id of a build, a landing or a maintenance: the name of the branch that it stages to, and its folders begin so."""

AS_OF = "stedi.as-of"
"""The property of a snapshot replaced by an erasure: when the original was current, epoch milliseconds."""

_NUMBER = 8
"""Bytes of a bound of a column of type `long` (specification, appendix D)."""
DELETED = 2
"""The status of a removed file in a manifest (specification, section "Manifests")."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of a table.

    Attributes:
        id: Snapshot id.
        parent: The snapshot it was made from, if any.
        at_ms: When readers first saw it, epoch milliseconds; if they never did, when it was made. `at` is the same as a
            `datetime`.
        operation: `append`, `overwrite`, `replace` or `delete`.
        summary: Counts, and the lake's own properties under `stedi.`.
        manifest_list: Location of its manifest list.
    """

    id: int
    parent: int | None
    at_ms: int
    operation: str
    summary: Mapping[str, str]
    manifest_list: str

    @property
    def at(self) -> datetime:
        """When readers first saw it, UTC; if they never did, when it was made."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)

    @property
    def keeps_rows(self) -> bool:
        """Whether it has the rows of the snapshot that it was made from: compacted, or nothing was added."""
        return self.operation == "replace" or (
            self.operation == "append" and not int(self.summary.get("added-records", 0))
        )

    def total(self, what: str) -> int:
        """Returns a total of the summary: `records`, `data-files` or `files-size`."""
        return int(self.summary.get(f"total-{what}", 0))


@dataclass(frozen=True, slots=True)
class TableState:
    """The state of one table at one moment, from the catalog.

    Attributes:
        name: The table's name, without the namespace.
        location: The table's folder or prefix.
        columns: The current schema.
        current: The snapshot that readers see, or None.
        snapshots: Every live snapshot, oldest first.
        log: (epoch milliseconds, snapshot id) of each change of `current`, oldest first.
        branches: Head of each branch.
        tags: The snapshot that each tag pins.
        metadata: Locations of the metadata file that this was read from and of those that it names, oldest first.
    """

    name: str
    location: str
    columns: tuple[Column, ...]
    current: Snapshot | None
    snapshots: tuple[Snapshot, ...]
    log: tuple[tuple[int, int], ...]
    branches: Mapping[str, int]
    tags: Mapping[str, int]
    metadata: tuple[str, ...]

    def snapshot(self, snapshot_id: int | None) -> Snapshot | None:
        """Returns the live snapshot of that id, or None."""
        return next((s for s in self.snapshots if s.id == snapshot_id), None)

    @property
    def pins(self) -> dict[str, int]:
        """The snapshot of each tag and of each other program's branch."""
        theirs = {name: head for name, head in self.branches.items() if name != "main" and not RUN.fullmatch(name)}
        return {**theirs, **self.tags}

    def published(self) -> tuple[Snapshot, ...]:
        """Returns the live snapshots that are or were `current` or that a tag pins: not those on other branches."""
        ids = {*(snapshot_id for _, snapshot_id in self.log), *self.tags.values()}
        return tuple(s for s in self.snapshots if s.id in ids)

    def since(self, snapshot_id: int | None) -> tuple[Snapshot, ...] | None:
        """Returns `current` and its ancestors after one of them, oldest first; None if that is not an ancestor."""
        found: list[Snapshot] = []
        for snapshot in self.history():
            if snapshot.id == snapshot_id:
                return tuple(reversed(found))
            found.append(snapshot)
        return None

    def history(self) -> tuple[Snapshot, ...]:
        """Returns the ancestors of `current`, newest first, itself included."""
        known = {s.id: s for s in self.snapshots}
        found, at = [], self.current
        while at is not None:
            found.append(at)
            at = known.get(at.parent) if at.parent is not None else None
        return tuple(found)


def local_path(location: str) -> str:
    """Returns the path of a `file:` location, and any other location as it is."""
    return location.removeprefix("file://") if location.startswith("file://") else location.removeprefix("file:")


def uri(path: str | Path) -> str:
    """Returns the location of a path, as in Iceberg's files."""
    return str(path) if s3.is_remote(path) else f"file://{path}"


def read_catalog(catalog: Path, names: Collection[str] = tuple(ALL_ZONES)) -> dict[str, TableState]:
    """Returns the state of tables in a SQLite catalog, by default of all.

    Args:
        catalog: The catalog's SQLite file, in the lake's folder.
        names: Which tables.

    Raises:
        LakeError: The catalog or a metadata file cannot be read, or the catalog is older than its tables or lacks one.
    """
    # read before the catalog, which must know everything that was published by then
    wanted = {name: zone for name, zone in ALL_ZONES.items() if name in names}
    published = {name: checksums.published(catalog.parent / zone / name) for name, zone in wanted.items()}
    rows = here(catalog.parent, {name: at for name, at in listed(catalog).items() if name in wanted})
    lost = next((name for name in wanted if name in ZONES and name not in rows), None)
    if lost is not None:  # as of a repair that was killed
        raise DamagedFile(lost, "catalog.db", "an entry of this table", "none")
    for name, location in rows.items():
        newest = published.get(name)
        if behind(location, newest):
            raise DamagedFile(name, "catalog.db", f"{newest} or later", f"{Path(location).name}, which is older")
    return {name: read_table(name, location) for name, location in rows.items()}


def behind(location: str, published: str | None) -> bool:
    """Returns whether a table's metadata are older than the last published ones."""
    version = re.compile(r"(?:^|/)(\d+)-[^/]*$")
    current, newest = version.search(location), version.search(published or "")
    return bool(current and newest and int(current[1]) < int(newest[1]))


def here(root: Path, rows: Mapping[str, str]) -> dict[str, str]:
    """Returns the places at which to read the metadata files that a lake's catalog names."""
    return {name: copies.within(root, location) for name, location in rows.items()}


def listed(catalog: Path) -> dict[str, str]:
    """Returns the location of each of the lake's tables' current metadata file, by the table's name.

    Raises:
        DamagedCatalog: The catalog is missing, or is no SQLite catalog.
    """
    if not catalog.is_file():
        raise DamagedCatalog(
            f"{catalog}: expected a lake's catalog, found none; run `stedi repair`, which makes one of the tables"
        )
    try:
        try:
            return _tables(catalog, "ro")
        except sqlite3.OperationalError as error:
            if not (error.sqlite_errorname or "").startswith("SQLITE_READONLY"):
                raise
            # a writer was killed in the middle of a commit: only one who may write can roll it back; not through a
            # copy's hard link, since the journal beside it is not that of the file which its original goes on writing
            if catalog.stat().st_nlink > 1:
                rows = _tables(catalog, "ro&immutable=1")
                if not any(f"{catalog.parent}/" in location for location in rows.values()):
                    raise
            return _tables(catalog, "rw")
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise DamagedCatalog(
            f"{catalog}: expected a SQLite catalog, found something else ({error}); run `stedi repair`, "
            "which makes one of the tables"
        ) from error


def whole(catalog: Path) -> bool:
    """Returns whether a catalog can be read and SQLite finds no damage in it."""
    try:
        listed(catalog)
        with closing(sqlite3.connect(catalog, timeout=30)) as connection:
            return connection.execute("pragma integrity_check").fetchall() == [("ok",)]
    except (LakeError, sqlite3.Error):
        return False


def vacuum(catalog: Path) -> None:
    """Lets SQLite overwrite deleted data of a catalog, and rewrite the file.

    Raises:
        LakeError: Another program holds it, or it cannot be written.
    """
    try:
        with closing(sqlite3.connect(catalog, timeout=30, isolation_level=None)) as connection:
            connection.execute("pragma secure_delete = on")
            connection.execute("vacuum")
    except sqlite3.Error as error:
        raise LakeError(f"{catalog}: cannot be rewritten ({error}); run the command again") from error


def _tables(catalog: Path, mode: str) -> dict[str, str]:
    with closing(sqlite3.connect(f"file:{_quoted(catalog)}?mode={mode}", uri=True, timeout=30)) as connection:
        guard(connection)
        return dict(
            connection.execute(
                "select table_name, metadata_location from iceberg_tables where table_namespace = ? and "
                f"table_name in ({', '.join('?' * len(ALL_ZONES))}) and typeof(metadata_location) = 'text' order by 1",
                (NAMESPACE, *ALL_ZONES),
            )
        )


def read_table(name: str, metadata_location: str) -> TableState:
    """Returns the state that one metadata file describes.

    Raises:
        LakeError: The file is missing, damaged, or no Iceberg metadata of version 2.
        OSError: S3 does not answer.
    """
    try:
        metadata = read_metadata(metadata_location)
        # version 3 has deletion vectors and row lineage, which this reader would not see
        if metadata["format-version"] != _VERSION:
            raise ValueError("another format version")
        schema = next(s for s in metadata["schemas"] if s["schema-id"] == metadata["current-schema-id"])
        log = tuple((e["timestamp-ms"], e["snapshot-id"]) for e in metadata.get("snapshot-log", []))
        # reversed: of a snapshot that was `main` twice, the first time counts
        seen = {snapshot_id: when for when, snapshot_id in reversed(log)}
        # by sequence number, not by time: clocks differ from machine to machine
        described = sorted(metadata.get("snapshots", []), key=lambda s: s["sequence-number"])
        named = (metadata["location"], *(s["manifest-list"] for s in described))
        folder, *lists = own(name, metadata_location, named)
        snapshots = tuple(
            Snapshot(
                id=s["snapshot-id"],
                parent=s.get("parent-snapshot-id"),
                at_ms=seen.get(s["snapshot-id"], s["timestamp-ms"]),
                operation=s["summary"]["operation"],
                summary=s["summary"],
                manifest_list=manifest_list,
            )
            for s, manifest_list in zip(described, lists, strict=True)
        )
        current_id = metadata.get("current-snapshot-id")
        refs = metadata.get("refs", {}).items()
        return TableState(
            name=name,
            location=folder,
            columns=tuple(Column(f["name"], f["type"]) for f in schema["fields"]),
            current=next((s for s in snapshots if s.id == current_id), None),
            snapshots=snapshots,
            log=log,
            branches={name: ref["snapshot-id"] for name, ref in refs if ref["type"] == "branch"},
            tags={name: ref["snapshot-id"] for name, ref in refs if ref["type"] == "tag"},
            metadata=(*(e["metadata-file"] for e in metadata.get("metadata-log", [])), metadata_location),
        )
    except (OSError, ValueError, KeyError, StopIteration, TypeError, AttributeError, RecursionError) as error:
        if s3.is_outage(error, metadata_location):
            raise
        file = f"metadata/{Path(metadata_location).name}"
        expected = f"Iceberg metadata of version {_VERSION}"
        raise DamagedFile(name, file, expected, _what(error)) from error


def _what(error: BaseException) -> str:
    """Returns what was found instead of a file, in words."""
    words: dict[type[BaseException], str] = {
        FileNotFoundError: "no file",
        PermissionError: FORBIDDEN,
    }
    return words.get(type(error), "something else")


def read_metadata(location: str) -> Any:
    """Returns the content of a metadata file, cached: a command reads a table's state before and during its work."""
    path = s3.at(location)
    if s3.is_remote(path):
        return json.loads(checksums.read(path))
    found = os.stat(path)
    # the recorded checksum is part of the key: once one is recorded, the file is compared again
    return _parse_once(path, checksums.vouched(path), found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=32)
def _parse_once(path: Path, sha256: str | None, inode: int, size: int, mtime_ns: int) -> Any:
    return json.loads(checksums.read(path))


def data_files(table: str, snapshot: Snapshot | None, *, added: bool = False) -> tuple[DataFile, ...]:
    """Returns the live data files of a snapshot.

    Args:
        table: The table's name, for messages.
        snapshot: The snapshot; None is a table without rows.
        added: Only those that this very snapshot, an append, has added.

    Raises:
        LakeError: A manifest cannot be read, the manifests are not what the snapshot counts, or the table holds
            delete files, which another program wrote.
    """
    if snapshot is None:
        return ()
    listed = once(manifest_list, table, snapshot.manifest_list)
    mine = [entry for entry in listed if entry[2] == snapshot.id or not added]
    files = tuple(file for path in _locations(table, snapshot, mine) for file in once(manifest, table, path))
    prefix = "added" if added else "total"
    for what, found in totals(files).items():
        counted = snapshot.summary.get(f"{prefix}-{what}", str(found))
        # a list or a manifest that lost an entry still decodes, and its rows would be missing without a word
        if counted != str(found):
            file = f"metadata/{Path(snapshot.manifest_list).name}"
            raise DamagedFile(table, file, f"{what} of {counted} in all", str(found))
    return tuple(sorted(files, key=lambda f: f.path))


def totals(files: Sequence[DataFile]) -> dict[str, int]:
    """Returns the totals of a snapshot's files from its summary, under the names of `Snapshot.total`."""
    return {
        "records": sum(file.rows for file in files),
        "data-files": len(files),
        "files-size": sum(file.bytes for file in files),
    }


def manifests(table: str, snapshot: Snapshot) -> list[str]:
    """Returns the locations of a snapshot's manifests, from the list as it is now: audits must see what has changed.

    Raises:
        LakeError: The manifest list cannot be read, or the table holds delete files.
    """
    return _locations(table, snapshot, manifest_list(table, snapshot.manifest_list))


def _locations(table: str, snapshot: Snapshot, listed: Sequence[tuple[str, int, int]]) -> list[str]:
    paths = own(table, snapshot.manifest_list, [path for path, *_ in listed])
    if any(content != 0 for _, content, _ in listed):
        raise with_delete_files(table)
    return list(paths)


def with_delete_files(table: str) -> LakeError:
    """Returns what refuses a table that holds delete files: a list of data files does not apply them."""
    return LakeError(
        f"table {table}: expected data files only, found delete files written by another engine; "
        "compact the table there first (Athena: OPTIMIZE), then run this again"
    )


def manifest_list(table: str, location: str) -> list[tuple[str, int, int]]:
    """Returns each manifest of a manifest list: its location, its content, and the snapshot that added it."""
    return avro(table, location, lambda m: (str(m["manifest_path"]), m["content"], m["added_snapshot_id"]))


def once(read: Callable[[str, str], T], table: str, location: str) -> T:
    """Returns what a function reads of a file, cached: a build reads a table's state, its old state, and additions."""
    if s3.is_remote(location):
        remote: T = _read_once(read, table, location, 0, 0, 0)
        return remote
    try:
        found = os.stat(local_path(location))
    except OSError:
        # raises the error that names the file
        return read(table, location)
    known: T = _read_once(read, table, location, found.st_ino, found.st_size, found.st_mtime_ns)
    return known


@lru_cache(maxsize=4096)
def _read_once(read: Any, table: str, location: str, inode: int, size: int, mtime_ns: int) -> Any:
    return read(table, location)


def manifest(table: str, location: str) -> tuple[DataFile, ...]:
    """Returns the data files that a manifest lists as live.

    Raises:
        LakeError: The manifest cannot be read, or lists files in another format.
    """
    # the columns whose bounds engines ask for: numbers, of which every writer stores the same eight bytes
    numbers = {place: found.name for place, found in enumerate(ALL_COLUMNS.get(table, ()), 1) if found.type == "long"}
    files = []
    for file, kind in filter(None, avro(table, location, lambda entry: _live(entry, numbers))):
        if kind != "PARQUET":
            raise LakeError(
                f"table {table}: expected Parquet files, found {kind} written by another engine; "
                "rewrite the table there as Parquet, then run this again"
            )
        files.append(file)
    paths = map(local_path, own(table, location, [file.path for file in files]))
    pairs = zip(files, paths, strict=True)
    return tuple(file if file.path == path else replace(file, path=path) for file, path in pairs)


def own(table: str, described: str, named: Iterable[str]) -> tuple[str, ...]:
    """Returns the places at which to read what a metadata file names; refuses names outside the folder.

    Args:
        table: The table.
        described: The metadata file, in the folder `metadata` of its table.
        named: The names in it: files, or the table's folder.

    Raises:
        DamagedFile: One of them is in another folder. Nothing of it was read.
    """
    file = _plain(described)
    home = os.path.dirname(os.path.dirname(file))
    within, found = f"{home}/", copies.here(file, named)
    for location in found:
        path = _plain(location)
        # by the text first: resolving links costs system calls, and a table has hundreds of files
        if (path.startswith(within) or path == home) and "/.." not in path:
            continue
        if s3.is_remote(path) or not _below(os.path.realpath(path), os.path.realpath(home)):
            raise DamagedFile(
                table, f"metadata/{os.path.basename(file)}", "files of this table", "one that lies in another folder"
            )
    return found


def _below(path: str, home: str) -> bool:
    return path == home or path.startswith(f"{home}/")


def _plain(location: str) -> str:
    return str(s3.at(location)) if s3.is_remote(location) else local_path(location).rstrip("/")


def _live(entry: Any, numbers: Mapping[int, str]) -> tuple[DataFile, str] | None:
    """Returns a manifest entry's file, with the bounds of some columns, and format, or None if the file has left."""
    if entry["status"] == DELETED:
        return None
    file = entry["data_file"]
    lower, upper = (
        {numbers[pair["key"]]: pair["value"] for pair in file.get(side) or () if pair["key"] in numbers}
        for side in ("lower_bounds", "upper_bounds")
    )
    bounds = {
        name: (str(int.from_bytes(low, "little", signed=True)), str(int.from_bytes(upper[name], "little", signed=True)))
        for name, low in lower.items()
        if len(low) == len(upper.get(name, b"")) == _NUMBER
    }
    path, rows, size = local_path(file["file_path"]), int(file["record_count"]), int(file["file_size_in_bytes"])
    return DataFile(path, rows, size, bounds=bounds), file["file_format"].upper()


def avro(table: str, location: str, take: Callable[[Any], T]) -> list[T]:
    """Returns the result of `take` for every record of a manifest or manifest list.

    Raises:
        LakeError: It cannot be read.
    """
    import fastavro

    try:
        content = checksums.read(s3.at(location))
        return [take(record) for record in fastavro.reader(io.BytesIO(content))]
    except LakeError:
        raise
    except Exception as error:  # a damaged file can make a decoder raise anything
        if s3.is_outage(error, location):
            raise
        file = f"metadata/{Path(location).name}"
        raise DamagedFile(table, file, "an Avro file", _what(error)) from error


def _quoted(path: Path) -> str:
    from urllib.parse import quote

    return quote(str(path))
