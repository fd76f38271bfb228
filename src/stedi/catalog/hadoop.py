"""Iceberg tables outside the catalog that list exactly some files, for engines that read and write Iceberg.

A pin lists files in their places and contains none. So an engine reads a snapshot, additions of snapshots, or staged
files in one way, and cannot commit to any table by mistake. What an engine has written to such a table is told from its
manifests, and becomes a table's by a commit of this package alone.

A pin has the layout that Iceberg calls a Hadoop table: its metadata files are numbered, and a hint names the last.
"""

from __future__ import annotations

import json
import secrets
import struct
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stedi.catalog.manifest_writer import ADDED, write_list, write_manifest
from stedi.catalog.manifests import PACKED, entry
from stedi.catalog.new_table import document
from stedi.catalog.snapshots import DELETED, avro, local_path, manifests, read_table, totals, uri
from stedi.schema.tables import COLUMNS, Column, DataFile

_RESERVED = frozenset({"_file", "_pos", "_deleted", "_spec_id", "_partition"})
"""Names that Iceberg keeps for itself: an engine refuses a table that has a column of such a name."""


def columns(table: str) -> tuple[Column, ...]:
    """Returns a table's columns by the names that they have in a pin: their own where Iceberg allows it."""
    return tuple(Column(f"stedi{c.name}" if c.name in _RESERVED else c.name, c.type) for c in COLUMNS[table])


def properties(table: str, folder: Path) -> dict[str, str]:
    """Returns the properties for a writer of an Iceberg table whose files will become another table's.

    Args:
        table: The table.
        folder: The folder for the files.
    """
    return {
        "format-version": "2",
        "write.data.path": uri(folder),
        # the rows arrive in the order and the parts that the files shall have: Iceberg must not shuffle them again
        "write.distribution-mode": "none",
        "write.parquet.compression-codec": "zstd",
        "write.parquet.compression-level": "1",
        "write.metadata.metrics.default": "counts",
        **{f"write.metadata.metrics.column.{c.name}": "full" for c in COLUMNS[table] if c.type in PACKED},
    }


def hadoop_table(folder: Path, table: str, files: Iterable[DataFile]) -> None:
    """Writes a pin of some files of a table.

    Args:
        folder: The pin's folder on this machine, which does not exist yet.
        table: The table of the files.
        files: The files.
    """
    listed = tuple(files)
    number = secrets.randbits(62)
    metadata = folder / "metadata"
    metadata.mkdir(parents=True)
    snapshot, manifest = metadata / f"snap-{number}.avro", metadata / "files.avro"
    described = document(
        folder,
        columns(table),
        {},
        snapshot=number,
        manifest_list=snapshot,
        now=int(time.time() * 1000),
        totals=totals(listed),
    )
    entries = [{"status": ADDED, "snapshot_id": number, "data_file": entry(table, file)} for file in listed]
    schema = described["schemas"][0]
    found = [write_manifest(manifest, schema, entries, snapshot=number, sequence=1)] if entries else []
    write_list(snapshot, found, snapshot=number, parent=None, sequence=1)
    (metadata / "v1.metadata.json").write_text(json.dumps(described), "utf-8")
    (metadata / "version-hint.text").write_text("1", "utf-8")


def written(folder: Path, table: str) -> tuple[DataFile, ...]:
    """Returns the files that an engine has written to a table like a pin, with their statistics.

    Args:
        folder: That table's folder.
        table: The table with the same columns.
    """
    hint = (folder / "metadata" / "version-hint.text").read_text("utf-8").strip()
    state = read_table(table, uri(folder / "metadata" / f"v{hint}.metadata.json"))
    if state.current is None:
        return ()
    names = dict(enumerate(COLUMNS[table], start=1))

    def described(record: Any) -> DataFile | None:
        return None if record["status"] == DELETED else _described(record["data_file"], names)

    files = [file for path in manifests(table, state.current) for file in avro(table, path, described) if file]
    return tuple(sorted(files, key=lambda file: file.path))


def _described(file: Any, names: Mapping[int, Column]) -> DataFile:
    def by_place(what: str) -> dict[int, Any]:
        return {pair["key"]: pair["value"] for pair in file.get(what) or ()}

    nulls, lower, upper = (by_place(what) for what in ("null_value_counts", "lower_bounds", "upper_bounds"))
    # Iceberg's bounds leave out NaN, so of a column that has one they bound only the other values
    odd = {place for place, count in by_place("nan_value_counts").items() if count}
    bounds = {}
    for place in lower.keys() & upper.keys() - odd:
        kind = names[place].type
        if kind in PACKED:
            low, high = (struct.unpack(PACKED[kind][1], found[place])[0] for found in (lower, upper))
            # `repr` of a double reads back as the same double
            bounds[names[place].name] = (repr(low), repr(high))
    return DataFile(
        local_path(file["file_path"]),
        int(file["record_count"]),
        int(file["file_size_in_bytes"]),
        {names[place].name: int(count) for place, count in nulls.items()},
        bounds,
    )
