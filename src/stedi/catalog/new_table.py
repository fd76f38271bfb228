"""A new table: its first metadata file, with an empty snapshot from which builds can branch.

Follows the Iceberg table specification, version 2 (section "Table Metadata").
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stedi.catalog.checksums import Output
from stedi.catalog.manifest_writer import write_list
from stedi.catalog.snapshots import uri
from stedi.schema.tables import ALL_COLUMNS, Column


def empty(folder: Path, table: str, properties: Mapping[str, str]) -> Path:
    """Writes the files of an empty table, and returns its metadata file, which no catalog names yet.

    Args:
        folder: The table's folder, created if needed.
        table: The table; its columns and their descriptions become the schema.
        properties: The table's properties.
    """
    import uuid

    from stedi.schema.descriptions import comments  # only needed to create a table

    # 63 bits, as in `changes`
    snapshot, now = int.from_bytes(os.urandom(8)) >> 1, int(time.time() * 1000)
    listed = folder / "metadata" / f"snap-{snapshot}-0-{uuid.uuid4()}.avro"
    write_list(listed, (), snapshot=snapshot, parent=None, sequence=1)
    path = folder / "metadata" / f"00000-{uuid.uuid4()}.metadata.json"
    described = document(
        folder,
        ALL_COLUMNS[table],
        properties,
        snapshot=snapshot,
        manifest_list=listed,
        now=now,
        comments=comments(table),
    )
    with Output(path) as stream:
        stream.write(json.dumps(described).encode())
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
    comments: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Returns the metadata of a table that has one snapshot.

    Args:
        folder: The table's folder.
        columns: Its columns; a column's field id is its position, from 1.
        properties: The table's properties.
        snapshot: The snapshot's id.
        manifest_list: The snapshot's manifest list.
        now: The time of its creation, epoch milliseconds.
        totals: What the snapshot has of `records`, `data-files` and `files-size`, by default nothing.
        comments: What columns mean, by name.
    """
    import uuid

    fields = [
        {"id": place, "name": column.name, "type": column.type, "required": False}
        | ({"doc": comments[column.name]} if comments else {})
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
        # partition fields count from 1000; there is none
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
