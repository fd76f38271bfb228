"""Writes manifests and manifest lists: the Avro files that list a snapshot's data files.

It follows the Iceberg table specification, version 2 (sections "Manifests" and "Manifest Lists"): readers identify
fields by id, and take a manifest's schema and partition spec from the header of the file. It does not use PyIceberg,
whose import takes longer than the commit.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stedi.catalog.checksums import Output
from stedi.catalog.snapshots import DELETED, uri

EXISTING, ADDED = 0, 1
"""The status of an existing and of an added file; `DELETED` is the third."""

_KINDS = {ADDED: "added", EXISTING: "existing", DELETED: "deleted"}


def _field(name: str, kind: Any, number: int) -> dict[str, Any]:
    return {"name": name, "type": kind, "field-id": number}


def _optional(name: str, kind: Any, number: int) -> dict[str, Any]:
    # Avro takes a default for the first type of a union: `null` must stand there
    return {**_field(name, ["null", kind], number), "default": None}


def _record(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": list(fields)}


def _pairs(value: str, first: int) -> dict[str, Any]:
    """Returns the type of a map with column numbers as keys, which Avro stores as an array of pairs."""
    key, of = _field("key", "int", first), _field("value", value, first + 1)
    return {"type": "array", "logicalType": "map", "items": _record(f"k{first}_v{first + 1}", key, of)}


def _list(value: Any, number: int) -> dict[str, Any]:
    return {"type": "array", "element-id": number, "items": value}


_BOUNDS_OF_PARTITION = _record(
    "r508",
    _field("contains_null", "boolean", 509),
    _optional("contains_nan", "boolean", 518),
    _optional("lower_bound", "bytes", 510),
    _optional("upper_bound", "bytes", 511),
)
_LISTED = _record(
    "manifest_file",
    _field("manifest_path", "string", 500),
    _field("manifest_length", "long", 501),
    _field("partition_spec_id", "int", 502),
    _field("content", "int", 517),
    _field("sequence_number", "long", 515),
    _field("min_sequence_number", "long", 516),
    _field("added_snapshot_id", "long", 503),
    _field("added_files_count", "int", 504),
    _field("existing_files_count", "int", 505),
    _field("deleted_files_count", "int", 506),
    _field("added_rows_count", "long", 512),
    _field("existing_rows_count", "long", 513),
    _field("deleted_rows_count", "long", 514),
    _optional("partitions", _list(_BOUNDS_OF_PARTITION, 508), 507),
    _optional("key_metadata", "bytes", 519),
)
_DATA_FILE = _record(
    "r2",
    _field("content", "int", 134),
    _field("file_path", "string", 100),
    _field("file_format", "string", 101),
    _field("partition", _record("r102"), 102),
    _field("record_count", "long", 103),
    _field("file_size_in_bytes", "long", 104),
    _optional("column_sizes", _pairs("long", 117), 108),
    _optional("value_counts", _pairs("long", 119), 109),
    _optional("null_value_counts", _pairs("long", 121), 110),
    _optional("nan_value_counts", _pairs("long", 138), 137),
    _optional("lower_bounds", _pairs("bytes", 126), 125),
    _optional("upper_bounds", _pairs("bytes", 129), 128),
    _optional("key_metadata", "bytes", 131),
    _optional("split_offsets", _list("long", 133), 132),
    # `int` as the specification has it; PyIceberg writes `long`, and no file has any
    _optional("equality_ids", _list("int", 136), 135),
    _optional("sort_order_id", "int", 140),
)
_ENTRY = _record(
    "manifest_entry",
    _field("status", "int", 0),
    _optional("snapshot_id", "long", 1),
    _optional("sequence_number", "long", 3),
    _optional("file_sequence_number", "long", 4),
    _field("data_file", _DATA_FILE, 2),
)


def write_manifest(
    path: Path, schema: Mapping[str, Any], entries: Sequence[Mapping[str, Any]], *, snapshot: int, sequence: int
) -> dict[str, Any]:
    """Writes a manifest, and returns its entry of a manifest list.

    Args:
        path: The file.
        schema: The table's schema, as its metadata have it.
        entries: Its entries, at least one; only `ADDED` ones may lack a sequence number.
        snapshot: Its snapshot.
        sequence: That snapshot's sequence number.
    """
    about = {
        "schema": json.dumps(schema),
        "partition-spec": "[]",
        "partition-spec-id": "0",
        "format-version": "2",
        "content": "data",
    }
    length = _write(path, _ENTRY, entries, about)
    counts: dict[str, int] = {}
    for status, kind in _KINDS.items():
        rows = [int(entry["data_file"]["record_count"]) for entry in entries if entry["status"] == status]
        counts |= {f"{kind}_files_count": len(rows), f"{kind}_rows_count": sum(rows)}
    # an added file has none yet: it inherits that of its snapshot
    live = [entry.get("sequence_number") for entry in entries if entry["status"] != DELETED]
    return {
        "manifest_path": uri(path),
        "manifest_length": length,
        "partition_spec_id": 0,
        "content": 0,
        "sequence_number": sequence,
        "min_sequence_number": min((number for number in live if number is not None), default=sequence),
        "added_snapshot_id": snapshot,
        "partitions": [],
        **counts,
    }


def write_list(
    path: Path, manifests: Iterable[Mapping[str, Any]], *, snapshot: int, parent: int | None, sequence: int
) -> None:
    """Writes a snapshot's manifest list.

    Args:
        path: The file.
        manifests: Entries from `write_manifest` or another list.
        snapshot: The snapshot.
        parent: Its parent.
        sequence: Its sequence number.
    """
    about = {
        "snapshot-id": str(snapshot),
        "parent-snapshot-id": "null" if parent is None else str(parent),
        "sequence-number": str(sequence),
        "format-version": "2",
    }
    _write(path, _LISTED, manifests, about)


def _write(path: Path, schema: dict[str, Any], records: Iterable[Any], about: dict[str, str]) -> int:
    """Writes an Avro file, on disk when this returns, and returns its size in bytes."""
    import fastavro

    content = io.BytesIO()
    # the one compression that every reader of Avro must have
    fastavro.writer(content, schema, records, codec="deflate", metadata=about)
    with Output(path) as stream:
        stream.write(content.getvalue())
    return len(content.getvalue())
