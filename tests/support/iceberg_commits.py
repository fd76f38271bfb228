"""The lake's commits as PyIceberg makes them: its producers write the manifests, its updates change the metadata.

Tests compare the output of `stedi.catalog` with this. PyIceberg has no operation `replace`, and its overwrite keeps
manifests without remaining files. So the producers here extend those of PyIceberg by what the lake needs.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import cached_property
from typing import Any, cast

from pyiceberg.catalog import Catalog as IcebergCatalog
from pyiceberg.manifest import DataFile as IcebergFile
from pyiceberg.manifest import DataFileContent, FileFormat, ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table import CommitTableRequest, Table, Transaction
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import update_table_metadata
from pyiceberg.table.update.snapshot import ManageSnapshots, _FastAppendFiles, _OverwriteFiles, _SnapshotProducer
from pyiceberg.typedef import Record

from stedi.catalog import Catalog, metadata
from stedi.catalog.changes import Change
from stedi.catalog.committer import Commit
from stedi.catalog.fileio import LakeFileIO
from stedi.catalog.snapshots import TableState, local_path, read_metadata, uri
from stedi.errors import CommitConflict
from stedi.schema.tables import ALL_COLUMNS, NAMESPACE, DataFile


class IcebergCommitter:
    """Replaces a catalog's own committer."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog

    def commit(
        self, table: str, planned: Callable[[TableState], Commit], refusal: Callable[[TableState], str]
    ) -> tuple[int, ...]:
        state = self._catalog.table(table)
        asked = planned(state)
        heads = {**state.branches, **state.tags}
        if any(heads.get(name) != head for name, head in asked.expected.items()):
            raise CommitConflict(refusal(state))
        before, io = state.metadata[-1], LakeFileIO()
        base = FromInputFile.table_metadata(io.new_input(before))
        iceberg = Table((NAMESPACE, table), base, before, io, cast(IcebergCatalog, None))
        transaction = Transaction(iceberg)
        transaction._autocommit = False
        named = {head: name for name, head in reversed([*asked.refs.items()])}
        for change in asked.changes:
            branch = named.get(change.id)
            if branch is not None and branch not in heads:
                assert change.parent is not None
                ManageSnapshots(transaction).create_branch(change.parent, branch).commit()
            _produce(transaction, iceberg, table, change, branch if branch in (*state.branches, branch) else None)
        plain = read_metadata(before)
        others = [
            metadata.unnaming(name) if head is None else metadata.naming(plain, name, head, asked.kind)
            for name, head in asked.refs.items()
        ]
        if asked.dropped:
            others.append(metadata.dropping(asked.dropped))
        updates = (*transaction._updates, *parsed(others))
        made = update_table_metadata(base, updates, metadata_location=before)
        if made != base:
            provider = iceberg.location_provider()
            number = int(before.rpartition("/")[2].partition("-")[0]) + 1
            location = provider.new_table_metadata_file_location(number)
            ToOutputFile.table_metadata(made, io.new_output(location))
            assert self._catalog._pointers.move([(table, before, location)])
        return tuple(change.id for change in asked.changes)


def parsed(updates: list[Any]) -> tuple[Any, ...]:
    """Returns updates as PyIceberg objects."""
    asked = {"identifier": {"namespace": [NAMESPACE], "name": "any"}, "requirements": [], "updates": updates}
    return CommitTableRequest.model_validate(asked).updates


def _produce(transaction: Transaction, iceberg: Table, table: str, change: Change, branch: str | None) -> None:
    io = iceberg.io
    producer: _SnapshotProducer[Any]
    if change.parent is None:
        producer = _Erasure(Operation.OVERWRITE, transaction, io, branch=branch)
    elif change.how in ("append", "overwrite"):
        kind: Any
        kind, operation = {
            "append": (_FastAppendFiles, Operation.APPEND),
            "overwrite": (_Overwrite, Operation.OVERWRITE),
        }[change.how]
        producer = kind(operation, transaction, io, snapshot_properties=dict(change.properties), branch=branch)
    else:
        rewrite = _Replacement if change.how == "replace" else _Erasure
        on = branch if branch == "main" else None
        producer = rewrite(Operation.OVERWRITE, transaction, io, snapshot_properties=dict(change.properties), branch=on)
    producer._snapshot_id, producer._parent_snapshot_id = change.id, change.parent
    for file in change.added:
        producer.append_data_file(_file(table, file))
    if change.leaving:
        assert change.parent is not None
        snapshot = transaction.table_metadata.snapshot_by_id(change.parent)
        assert snapshot is not None
        for manifest in snapshot.manifests(io):
            for entry in manifest.fetch_manifest_entry(io):
                if local_path(entry.data_file.file_path) in change.leaving:
                    producer.delete_data_file(entry.data_file)
    producer.commit()


def _file(table: str, file: DataFile) -> IcebergFile:
    places = {column.name: (place, column.type) for place, column in enumerate(ALL_COLUMNS[table], start=1)}
    lower, upper = {}, {}
    for name, found in file.bounds.items():
        place, kind = places[name]
        if kind in ("long", "double"):
            form, number = ("<q", int) if kind == "long" else ("<d", float)
            lower[place], upper[place] = (struct.pack(form, number(bound)) for bound in found)
    made = IcebergFile.from_args(
        content=DataFileContent.DATA,
        file_path=uri(file.path),
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=file.rows,
        file_size_in_bytes=file.bytes,
        value_counts={place: file.rows for place, _ in places.values()},
        null_value_counts={places[name][0]: nulls for name, nulls in file.nulls.items()},
        lower_bounds=lower,
        upper_bounds=upper,
        sort_order_id=None,
        equality_ids=None,
        key_metadata=None,
    )
    made.spec_id = 0
    return made


class _Overwrite(_OverwriteFiles):
    def _existing_manifests(self) -> list[ManifestFile]:
        return [m for m in super()._existing_manifests() if m.has_added_files() or m.has_existing_files()]


class _Replacement(_SnapshotProducer["_Replacement"]):
    @cached_property
    def _live(self) -> list[ManifestEntry]:
        parent = self._parent_snapshot_id
        snapshot = self._transaction.table_metadata.snapshot_by_id(parent) if parent is not None else None
        manifests = snapshot.manifests(self._io) if snapshot else []
        return [entry for manifest in manifests for entry in manifest.fetch_manifest_entry(self._io)]

    def _deleted_entries(self) -> list[ManifestEntry]:
        gone = [entry for entry in self._live if entry.data_file in self._deleted_data_files]
        return [_with(entry, ManifestEntryStatus.DELETED, self._snapshot_id) for entry in gone]

    def _existing_manifests(self) -> list[ManifestFile]:
        stay = [entry for entry in self._live if entry.data_file not in self._deleted_data_files]
        if not stay:
            return []
        with self.new_manifest_writer(self.spec(0)) as writer:
            for entry in stay:
                writer.add_entry(_with(entry, ManifestEntryStatus.EXISTING, entry.snapshot_id))
        return [writer.to_manifest_file()]

    def _replaces(self) -> bool:
        return True

    def _summary(self, snapshot_properties: Any = None) -> Summary:
        counted = super()._summary(snapshot_properties or {})
        return Summary(Operation.REPLACE, **counted.additional_properties) if self._replaces() else counted


class _Erasure(_Replacement):
    def _deleted_entries(self) -> list[ManifestEntry]:
        return []

    def _replaces(self) -> bool:
        return not self._deleted_data_files and self._parent_snapshot_id is not None


def _with(entry: ManifestEntry, status: ManifestEntryStatus, snapshot_id: int | None) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )
