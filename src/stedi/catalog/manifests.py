"""Manifest entries of data files: to write, and as found in live snapshots."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.catalog import checksums
from stedi.catalog.snapshots import (
    DELETED,
    Snapshot,
    TableState,
    avro,
    local_path,
    manifest_list,
    once,
    own,
    uri,
    with_delete_files,
)
from stedi.errors import FORBIDDEN, DamagedFile
from stedi.schema.tables import ALL_COLUMNS, DataFile
from stedi.storage import s3

PACKED = {"long": (int, "<q"), "double": (float, "<d")}
"""Types whose bounds manifests have, and how Iceberg writes them; a text's bounds could be an address."""
_EARLIER = {f"{kind}_data_files_count": f"{kind}_files_count" for kind in ("added", "existing", "deleted")}
"""What Iceberg's first writers of version 2 called fields of a manifest list."""
_FEW = 4
"""Below so many objects of a bucket, asking for each is cheaper than a listing."""


def line(table: str, folder: Path, file: DataFile) -> tuple[str, str]:
    """Returns a data file's line of its table's checksums; of an object of a bucket that has its own it is empty.

    Raises:
        DamagedFile: It is gone, or has another size than was written.
    """
    sha256, found = file.sha256, size(file.path)
    if found is not None and not s3.is_remote(file.path):
        # from the file itself, not from what its writer says: the size below tells one that was cut
        sha256, found = checksums.digest(file.path)
    if found != file.bytes:
        raise _unlike(table, file, found)
    return checksums.name_in(folder, file.path), sha256


def there(table: str, files: tuple[DataFile, ...]) -> tuple[DataFile, ...]:
    """Returns files that are about to be read.

    Raises:
        DamagedFile: One is gone or has another size than was written.
    """
    found = sizes(file.path for file in files)
    for file in files:
        # the size only: to hash a file that a query reads would cost more than the query; audits do
        if found[file.path] != file.bytes:
            raise _unlike(table, file, found[file.path])
    return files


def sizes(paths: Iterable[str]) -> dict[str, int | None]:
    """Returns the size of each file, as `size` does; of many objects of a bucket by listing them."""
    listed = dict.fromkeys(paths)
    remote = [path for path in listed if s3.is_remote(path)]
    if len(remote) < _FEW:
        return {path: size(path) for path in listed}
    # a table's files lie in its folder, beside few others
    folder = s3.at(s3.SCHEME + os.path.commonpath([path.removeprefix(s3.SCHEME) for path in remote]))
    known = {str(found.path): found.size for found in s3.listing(folder)}
    return {path: known.get(path) if s3.is_remote(path) else size(path) for path in listed}


def size(path: str) -> int | None:
    """Returns a file's size in bytes, or None if there is none to be read."""
    try:
        # without a path object, which takes ten times as long: a build asks for hundreds of files
        found = s3.at(path).lstat() if s3.is_remote(path) else os.lstat(path)
        return found.st_size if stat.S_ISREG(found.st_mode) else None
    except OSError as error:
        if s3.is_outage(error, path):
            raise
        return None


def _unlike(table: str, file: DataFile, found: int | None) -> DamagedFile:
    name = "/".join(Path(file.path).parts[-3:])
    return DamagedFile(table, name, f"{file.bytes} bytes", missing(file.path) if found is None else f"{found} bytes")


def missing(path: str) -> str:
    """Returns what is found where a file cannot be read: none, or one that this user may not read."""
    if s3.is_remote(path):
        return "no file"
    try:
        os.stat(path)
    except PermissionError:
        return FORBIDDEN
    except OSError:
        return "no file"
    return "no file" if os.access(path, os.R_OK) else FORBIDDEN


def holding(table: str, snapshot: Snapshot) -> list[dict[str, Any]]:
    """Returns what a snapshot's manifest list says of each of its manifests in which a file is left, as it says it.

    Raises:
        LakeError: It cannot be read.
    """

    def named(manifest: Mapping[str, Any]) -> dict[str, Any]:
        return {_EARLIER.get(name, name): value for name, value in manifest.items()}

    listed = avro(table, snapshot.manifest_list, named)
    # a writer that does not count may mean any number
    return [m for m in listed if m.get("added_files_count") != 0 or m.get("existing_files_count") != 0]


def live(table: str, snapshot: Snapshot, manifest: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the live entries of a manifest, each with its own snapshot and sequence numbers.

    Args:
        table: The table.
        snapshot: The snapshot whose manifest list names it.
        manifest: Its entry in that list.

    Raises:
        LakeError: It cannot be read, contains delete files, or is in another folder.
    """
    if manifest["content"] != 0:
        raise with_delete_files(table)
    [location] = own(table, snapshot.manifest_list, [manifest["manifest_path"]])
    inherited = {
        "snapshot_id": manifest["added_snapshot_id"],
        "sequence_number": manifest["sequence_number"],
        "file_sequence_number": manifest["sequence_number"],
    }

    def whole(entry: Any) -> dict[str, Any] | None:
        if entry["status"] == DELETED:
            return None
        return {**entry, **{name: value for name, value in inherited.items() if entry.get(name) is None}}

    return list(filter(None, avro(table, location, whole)))


def entry(table: str, file: DataFile) -> dict[str, Any]:
    """Returns how a manifest describes a file; bounds of text are left out, since they would carry identifiers."""
    places = _places(table)

    def pairs(values: Mapping[int, Any]) -> list[dict[str, Any]]:
        return [{"key": place, "value": value} for place, value in values.items()]

    bounds: tuple[dict[int, bytes], ...] = ({}, {})
    for name, found in file.bounds.items():
        place, kind = places[name]
        if kind in PACKED:
            number, form = PACKED[kind]
            for side, bound in zip(bounds, found, strict=True):
                side[place] = struct.pack(form, number(bound))
    return {
        "content": 0,
        "file_path": uri(file.path),
        "file_format": "PARQUET",
        "partition": {},
        "record_count": file.rows,
        "file_size_in_bytes": file.bytes,
        "value_counts": pairs({place: file.rows for place, _ in places.values()}),
        "null_value_counts": pairs({places[name][0]: nulls for name, nulls in file.nulls.items()}),
        "lower_bounds": pairs(bounds[0]),
        "upper_bounds": pairs(bounds[1]),
    }


@cache
def _places(table: str) -> dict[str, tuple[int, str]]:
    """Returns the number and the type of each column of a table."""
    return {column.name: (place, column.type) for place, column in enumerate(ALL_COLUMNS[table], start=1)}


@dataclass(frozen=True, slots=True)
class Mentions:
    """The data files of a table's live snapshots.

    Attributes:
        live: Every file of a live snapshot, by path.
        by_snapshot: For each live snapshot the paths of all files that its manifests mention.
        held: For each live snapshot the paths of its files.
    """

    live: Mapping[str, DataFile]
    by_snapshot: Mapping[int, frozenset[str]]
    held: Mapping[int, frozenset[str]]

    def gone(self, paths: Iterable[str] = (), staying: AbstractSet[int] = frozenset()) -> frozenset[str]:
        """Returns files that manifests list as deleted and no live snapshot has: only their bounds are left.

        Args:
            paths: Files to remove, with every snapshot that mentions one.
            staying: Snapshots that stay, rewritten without them.

        Returns:
            These files, and those that are or will be removed.
        """
        found, before = frozenset(paths), None
        # repeated: each snapshot that goes can leave further files in no snapshot
        while found != before:
            before = found
            left = [s for s, mentioned in self.by_snapshot.items() if s in staying or mentioned.isdisjoint(found)]
            there = frozenset[str]().union(*(self.held[snapshot] for snapshot in left))
            found |= frozenset[str]().union(*(self.by_snapshot[snapshot] for snapshot in left)) - there
        return found

    def of(self, paths: frozenset[str]) -> list[int]:
        """Returns the snapshots that mention one of some files."""
        return [snapshot for snapshot, mentioned in self.by_snapshot.items() if mentioned & paths]


def mentions(state: TableState) -> Mentions:
    """Reads every manifest of a table's live snapshots once.

    Raises:
        LakeError: One cannot be read.
    """
    live: dict[str, DataFile] = {}
    known: dict[str, tuple[frozenset[str], frozenset[str]]] = {}
    by_snapshot: dict[int, frozenset[str]] = {}
    held: dict[int, frozenset[str]] = {}
    for snapshot in state.snapshots:
        found, has = set[str](), set[str]()
        for location, *_ in once(manifest_list, state.name, snapshot.manifest_list):
            # neighbouring snapshots share most of their manifests
            if location not in known:
                entries = once(_mentioned, state.name, location)
                live.update((file.path, file) for file, there in entries if there)
                known[location] = (
                    frozenset(file.path for file, _ in entries),
                    frozenset(file.path for file, there in entries if there),
                )
            found |= known[location][0]
            has |= known[location][1]
        by_snapshot[snapshot.id], held[snapshot.id] = frozenset(found), frozenset(has)
    return Mentions(live, by_snapshot, held)


def _mentioned(table: str, location: str) -> list[tuple[DataFile, bool]]:
    """Returns the data files of a manifest with their counts of nulls, and for each whether it is there."""
    names = {place: column.name for place, column in enumerate(ALL_COLUMNS[table], start=1)}

    def described(entry: Any) -> tuple[DataFile, bool]:
        file = entry["data_file"]
        # a writer need not count nulls
        nulls = {names[n["key"]]: n["value"] for n in file.get("null_value_counts") or () if n["key"] in names}
        size = int(file["file_size_in_bytes"])
        found = DataFile(local_path(file["file_path"]), int(file["record_count"]), size, nulls)
        return found, entry["status"] != DELETED

    return avro(table, location, described)
