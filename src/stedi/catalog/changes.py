"""The snapshot that a commit adds: files added, files removed, and its manifests.

Manifests that lose no file are reused on request, except manifests without files, so that a table does not collect one
for every removed file. The operations:

| | operation | files that stay | files that leave |
| --- | --- | --- | --- |
| `append` | append | in their manifests | none may |
| `overwrite` | overwrite | in their manifests, or those less what leaves | listed as deleted |
| `replace` | replace | in one manifest | listed as deleted |
| `erase` | overwrite; replace if none leaves | in one manifest | in no manifest |

`replace` changes files and no row: a reader no longer opens a manifest for each commit of the past. `erase` is for rows
that leave for good: a manifest that lists a file as deleted keeps its bounds, which can be somebody's own moments.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from stedi._frozen import dataclass, field
from stedi.catalog import manifests
from stedi.catalog.manifest_writer import ADDED, EXISTING, write_list, write_manifest
from stedi.catalog.metadata import Requirements, Updates
from stedi.catalog.snapshots import DELETED, Snapshot, TableState, local_path, totals, uri
from stedi.errors import CommitConflict, LakeError, many
from stedi.schema.tables import DataFile
from stedi.storage import s3

_COUNTS = (
    ("records", "added-records", "deleted-records"),
    ("data-files", "added-data-files", "deleted-data-files"),
    ("files-size", "added-files-size", "removed-files-size"),
)
"""Counts of files, and their names in a summary for added and removed files."""
_DELETE_FILES = ("total-delete-files", "total-position-deletes", "total-equality-deletes")
"""Totals of a summary that this program passes on: it writes no delete files, but readers look for the totals."""


def _new_id() -> int:
    # 63 bits: ids are signed in Iceberg, and -1 means none
    return int.from_bytes(os.urandom(8)) >> 1


@dataclass(frozen=True, slots=True)
class Change:
    """One snapshot.

    Attributes:
        how: Which manifests it has, as the table above says.
        parent: The snapshot that it is made from, None for none.
        added: Files that come, in the table's folder.
        leaving: Paths of files of `parent` that leave.
        properties: Recorded in its summary.
        id: Its id.
    """

    how: Literal["append", "overwrite", "replace", "erase"]
    parent: int | None
    added: tuple[DataFile, ...] = ()
    leaving: frozenset[str] = frozenset()
    properties: Mapping[str, str] = field(default_factory=dict)
    id: int = field(default_factory=_new_id)


@dataclass(frozen=True, slots=True)
class TableChange:
    """The changes of one commit to one table, in the terms of Iceberg's protocol.

    Attributes:
        state: The table as it was loaded.
        required: The requirements.
        updates: The updates; may be empty.
        at: The time of the commit, epoch milliseconds.
    """

    state: TableState
    required: Requirements
    updates: Updates
    at: int


class SnapshotFiles:
    """The manifests and the manifest list of one snapshot.

    Args:
        state: The table.
        schema: Its schema, from its metadata.
        change: The snapshot.
        sequence: Its sequence number.

    Raises:
        CommitConflict: The snapshot on which it is based has expired.
    """

    def __init__(self, state: TableState, schema: Mapping[str, Any], change: Change, sequence: int) -> None:
        import uuid

        self.written: list[Path] = []
        self._state, self._schema, self._change, self._sequence = state, schema, change, sequence
        self._folder, self._name = s3.at(state.location) / "metadata", str(uuid.uuid4())
        self._parent = state.snapshot(change.parent)
        if change.parent is not None and self._parent is None:
            raise CommitConflict(f"table {state.name}: snapshot {change.parent} is gone; run the command again")

    def write(self, at: int) -> dict[str, Any]:
        """Writes them, and returns the snapshot as metadata have it.

        Args:
            at: When it is made, epoch milliseconds.

        Raises:
            LakeError: A file to remove is not in the snapshot that it is made from.
        """
        change, table = self._change, self._state.name
        held = manifests.holding(table, self._parent) if self._parent else []
        # an append opens no manifest: its cost must not grow with the table
        # a manifest in which nothing leaves is opened, too: only its entries tell that
        read = [(m, manifests.live(table, self._parent, m)) for m in held if self._parent and change.how != "append"]
        gone = [entry for _, entries in read for entry in entries if self._leaves(entry)]
        # a path that is not found would leave its rows in the table without a word
        if len(gone) != len(change.leaving):
            missing = len(change.leaving) - len(gone)
            raise LakeError(f"table {table}: its current snapshot lacks {many(missing, 'file')} to remove")
        listed = self._manifest(
            [
                {"status": ADDED, "snapshot_id": change.id, "data_file": manifests.entry(table, file)}
                for file in change.added
            ]
        )
        if change.how != "erase":
            # readers that follow a table's changes take what left from these entries
            listed += self._manifest([{**entry, "status": DELETED, "snapshot_id": change.id} for entry in gone])
        match change.how:
            case "append":
                listed += held
            case "overwrite":
                for manifest, entries in read:
                    loses = any(map(self._leaves, entries))
                    listed += self._manifest(self._staying(entries)) if loses else [manifest]
            case _:
                listed += self._manifest(self._staying(entry for _, entries in read for entry in entries))
        path = self._folder / f"snap-{change.id}-0-{self._name}.avro"
        # noted before it is written: whoever loses the race removes what is there of it
        self.written.append(path)
        write_list(path, listed, snapshot=change.id, parent=change.parent, sequence=self._sequence)
        return {
            "snapshot-id": change.id,
            **({} if change.parent is None else {"parent-snapshot-id": change.parent}),
            "sequence-number": self._sequence,
            "timestamp-ms": at,
            "manifest-list": uri(path),
            "summary": _summary(change, [entry["data_file"] for entry in gone], self._parent),
            "schema-id": self._schema["schema-id"],
        }

    def _leaves(self, entry: Mapping[str, Any]) -> bool:
        return local_path(entry["data_file"]["file_path"]) in self._change.leaving

    def _staying(self, entries: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        return [{**entry, "status": EXISTING} for entry in entries if not self._leaves(entry)]

    def _manifest(self, entries: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        if not entries:
            return []
        path = self._folder / f"{self._name}-m{len(self.written)}.avro"
        self.written.append(path)
        return [write_manifest(path, self._schema, entries, snapshot=self._change.id, sequence=self._sequence)]


def _summary(change: Change, gone: Iterable[Mapping[str, Any]], parent: Snapshot | None) -> dict[str, str]:
    left = [DataFile(file["file_path"], file["record_count"], file["file_size_in_bytes"]) for file in gone]
    come, leave = totals(change.added), totals(left)
    counts, sums = dict[str, int](), dict[str, str]()
    nothing = {f"total-{what}": "0" for what, _, _ in _COUNTS} | dict.fromkeys(_DELETE_FILES, "0")
    before = parent.summary if parent else nothing
    for what, added, removed in _COUNTS:
        counts |= {added: come[what], removed: leave[what]}
        total = int(before.get(f"total-{what}", -1))
        if total >= 0:  # another program's summary may not say
            sums[f"total-{what}"] = str(total + come[what] - leave[what])
    sums |= {what: before[what] for what in _DELETE_FILES if what in before}
    operation = "replace" if change.how == "erase" and not change.leaving else change.how.replace("erase", "overwrite")
    told = {name: str(count) for name, count in counts.items() if count}
    return {"operation": operation, **told, **change.properties, **sums}
