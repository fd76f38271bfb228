"""A new table: its first metadata file, with an empty snapshot from which builds can branch.

Written without PyIceberg, so that a lake is made at once and the first landing imports it beside its reading. Follows
the Iceberg table specification, version 2 (sections "Table Metadata" and "Manifest Lists").
"""

from __future__ import annotations

import io
import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stedi.catalog.checksums import Output
from stedi.catalog.snapshots import uri
from stedi.schema.tables import Column


def empty(folder: Path, columns: Iterable[Column], properties: Mapping[str, str]) -> Path:
    """Writes what makes an empty table, and returns its metadata file, which no catalog names yet.

    Args:
        folder: The table's folder, made if it is not there.
        columns: Its columns; a column's field id is its place, from 1.
        properties: The table's properties.
    """
    import uuid

    snapshot, now = int.from_bytes(os.urandom(8)) >> 1, int(time.time() * 1000)
    listed = folder / "metadata" / f"snap-{snapshot}-0-{uuid.uuid4()}.avro"
    _write(listed, _manifest_list(snapshot))
    path = folder / "metadata" / f"00000-{uuid.uuid4()}.metadata.json"
    described = document(folder, columns, properties, snapshot=snapshot, manifest_list=listed, now=now)
    _write(path, json.dumps(described).encode())
    return path


def document(
    folder: Path,
    columns: Iterable[Column],
    properties: Mapping[str, str],
    *,
    snapshot: int,
    manifest_list: Path,
    now: int,
    totals: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Returns the metadata of a table that has one snapshot.

    Args:
        folder: The table's folder.
        columns: Its columns; a column's field id is its place, from 1.
        properties: The table's properties.
        snapshot: The snapshot's id.
        manifest_list: The snapshot's manifest list.
        now: When it is made, epoch milliseconds.
        totals: What the snapshot has of `records`, `data-files` and `files-size`, by default nothing.
    """
    import uuid

    fields = [
        {"id": place, "name": column.name, "type": column.type, "required": False}
        for place, column in enumerate(columns, start=1)
    ]
    kinds = ("data-files", "delete-files", "records", "files-size", "position-deletes", "equality-deletes")
    found = totals or {}
    return {
        "format-version": 2,
        "table-uuid": str(uuid.uuid4()),
        "location": uri(folder),
        "last-sequence-number": 1,
        "last-updated-ms": now,
        "last-column-id": len(fields),
        "schemas": [{"type": "struct", "schema-id": 0, "identifier-field-ids": [], "fields": fields}],
        "current-schema-id": 0,
        "partition-specs": [{"spec-id": 0, "fields": []}],
        "default-spec-id": 0,
        "last-partition-id": 999,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "default-sort-order-id": 0,
        "properties": dict(properties),
        "current-snapshot-id": snapshot,
        "refs": {"main": {"snapshot-id": snapshot, "type": "branch"}},
        "snapshots": [
            {
                "snapshot-id": snapshot,
                "sequence-number": 1,
                "timestamp-ms": now,
                "schema-id": 0,
                "manifest-list": uri(manifest_list),
                "summary": {"operation": "append", **{f"total-{kind}": str(found.get(kind, 0)) for kind in kinds}},
            }
        ],
        "snapshot-log": [{"snapshot-id": snapshot, "timestamp-ms": now}],
        "metadata-log": [],
    }


def _write(path: Path, content: bytes) -> None:
    with Output(path) as stream:
        stream.write(content)


def _manifest_list(snapshot: int) -> bytes:
    """Returns a manifest list that lists nothing."""
    import fastavro

    optional: dict[str, Any] = {"default": None}
    summary = [
        {"name": "contains_null", "type": "boolean", "field-id": 509},
        {"name": "contains_nan", "type": ["null", "boolean"], "field-id": 518, **optional},
        {"name": "lower_bound", "type": ["null", "bytes"], "field-id": 510, **optional},
        {"name": "upper_bound", "type": ["null", "bytes"], "field-id": 511, **optional},
    ]
    partitions = {
        "type": "array",
        "element-id": 508,
        "items": {"type": "record", "name": "r508", "fields": summary},
    }
    numbers = {
        "manifest_length": ("long", 501),
        "partition_spec_id": ("int", 502),
        "content": ("int", 517),
        "sequence_number": ("long", 515),
        "min_sequence_number": ("long", 516),
        "added_snapshot_id": ("long", 503),
        "added_files_count": ("int", 504),
        "existing_files_count": ("int", 505),
        "deleted_files_count": ("int", 506),
        "added_rows_count": ("long", 512),
        "existing_rows_count": ("long", 513),
        "deleted_rows_count": ("long", 514),
    }
    schema = {
        "type": "record",
        "name": "manifest_file",
        "fields": [
            {"name": "manifest_path", "type": "string", "field-id": 500},
            *({"name": name, "type": kind, "field-id": number} for name, (kind, number) in numbers.items()),
            {"name": "partitions", "type": ["null", partitions], "field-id": 507, **optional},
            {"name": "key_metadata", "type": ["null", "bytes"], "field-id": 519, **optional},
        ],
    }
    out = io.BytesIO()
    about = {"snapshot-id": str(snapshot), "parent-snapshot-id": "null", "sequence-number": "1", "format-version": "2"}
    fastavro.writer(out, schema, [], codec="deflate", metadata=about)
    return out.getvalue()
