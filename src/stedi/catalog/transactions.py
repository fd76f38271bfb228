"""PyIceberg's transaction, and what makes snapshots in it, without what makes tables slower with each build.

PyIceberg copies a table's whole metadata each time that a transaction looks at them, some twenty times a commit, and
keeps the manifest of every file that ever left. Imported with PyIceberg, when the first commit is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property

from pyiceberg.manifest import ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table import Table
from pyiceberg.table import Transaction as IcebergTransaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.refs import MAIN_BRANCH
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update import (
    AssertRefSnapshotId,
    SetSnapshotRefUpdate,
    TableUpdate,
    _apply_table_update,
    _TableMetadataUpdateContext,
)
from pyiceberg.table.update.snapshot import _OverwriteFiles, _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT


class Transaction(IcebergTransaction):
    """A transaction that works its metadata out once a change; nobody may write to what it shows."""

    def __init__(self, table: Table, still: Callable[[TableMetadata], None] = lambda metadata: None) -> None:
        """Begins a transaction.

        Args:
            table: The table, which is the last that the catalog had.
            still: Raises if the change may not be made to a table as it is, now or when others have come first.
        """
        super().__init__(table)
        self._still = still
        still(table.metadata)
        self._shown: tuple[TableMetadata, tuple[TableUpdate, ...], TableMetadata] | None = None

    @property
    def table_metadata(self) -> TableMetadata:
        """The table's metadata with the changes of this transaction."""
        base, updates = self._table.metadata, self._updates
        if not updates:
            return base
        if self._shown is None or self._shown[0] is not base or self._shown[1] is not updates:
            context, changed = _TableMetadataUpdateContext(), base
            for update in updates:
                changed = _apply_table_update(update, changed, context)
            self._shown = base, updates, changed
        return self._shown[2]

    def move(self, refs: Mapping[str, int]) -> None:
        """Has tags and branches name other snapshots, if each still names the one that it did when this began."""
        if not refs:
            return
        known = self._table.metadata.refs
        changes = []
        for name, snapshot_id in refs.items():
            ref = known[name]
            change = {"ref-name": name, "type": ref.snapshot_ref_type, "snapshot-id": snapshot_id}
            kept = ("max_ref_age_ms", "max_snapshot_age_ms", "min_snapshots_to_keep")
            change |= {age.replace("_", "-"): getattr(ref, age) for age in kept}
            changes.append(SetSnapshotRefUpdate.model_validate(change))
        self._stage(tuple(changes))
        # PyIceberg stages one requirement of a kind alone
        self._requirements += tuple(
            AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": known[name].snapshot_id}) for name in refs
        )

    def _rebuild_snapshot_updates(self) -> None:
        """Begins anew from the table as others have left it, if that may still be done."""
        self._still(self._table.metadata)
        super()._rebuild_snapshot_updates()


class Overwrite(_OverwriteFiles):
    """An overwrite that does not hand on manifests in which no file is left."""

    def __init__(self, transaction: Transaction, properties: Mapping[str, str], branch: str) -> None:
        super().__init__(
            Operation.OVERWRITE,
            transaction,
            transaction._table.io,
            snapshot_properties=dict(properties),
            branch=branch,
        )

    def _existing_manifests(self) -> list[ManifestFile]:
        return [m for m in super()._existing_manifests() if m.has_added_files() or m.has_existing_files()]


class ReplaceFiles(_SnapshotProducer["ReplaceFiles"]):
    """A commit that changes files and no row: Iceberg's operation `replace`, which PyIceberg reads but does not write.

    Files that stay are listed in one new manifest, so that a reader no longer opens one for each commit of the past.

    Args:
        transaction: The transaction that it is part of.
        properties: Recorded in the snapshot's summary.
        of: The snapshot whose files are changed, on no branch; by default the head of `main`, which moves.
    """

    def __init__(self, transaction: Transaction, properties: Mapping[str, str], of: int | None = None) -> None:
        io = transaction._table.io
        # PyIceberg counts the totals of an overwrite alike, and refuses to count those of a replace
        super().__init__(
            Operation.OVERWRITE,
            transaction,
            io,
            snapshot_properties=dict(properties),
            branch=MAIN_BRANCH if of is None else None,
        )
        if of is not None:
            self._parent_snapshot_id = of

    @cached_property
    def _live(self) -> list[ManifestEntry]:
        parent = self._parent_snapshot_id
        snapshot = self._transaction.table_metadata.snapshot_by_id(parent) if parent is not None else None
        manifests = snapshot.manifests(self._io) if snapshot else []
        return [entry for manifest in manifests for entry in manifest.fetch_manifest_entry(self._io)]

    def _deleted_entries(self) -> list[ManifestEntry]:
        gone = [entry for entry in self._live if entry.data_file in self._deleted_data_files]
        return [_changed(entry, ManifestEntryStatus.DELETED, self._snapshot_id) for entry in gone]

    def _existing_manifests(self) -> list[ManifestFile]:
        stay = [entry for entry in self._live if entry.data_file not in self._deleted_data_files]
        if not stay:
            return []
        with self.new_manifest_writer(self.spec(0)) as writer:
            for entry in stay:
                writer.add_entry(_changed(entry, ManifestEntryStatus.EXISTING, entry.snapshot_id))
        return [writer.to_manifest_file()]

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        return Summary(Operation.REPLACE, **super()._summary(snapshot_properties).additional_properties)

    def _refresh_for_retry(self) -> None:
        super()._refresh_for_retry()
        self.__dict__.pop("_live", None)


def _changed(entry: ManifestEntry, status: ManifestEntryStatus, snapshot_id: int | None) -> ManifestEntry:
    return ManifestEntry.from_args(
        status=status,
        snapshot_id=snapshot_id,
        sequence_number=entry.sequence_number,
        file_sequence_number=entry.file_sequence_number,
        data_file=entry.data_file,
    )


class EraseFiles(ReplaceFiles):
    """Rows that leave for good: an overwrite whose manifests tell nothing of the files that held them.

    A manifest that lists a file as deleted keeps its bounds, which can be somebody's own moments.
    """

    def _deleted_entries(self) -> list[ManifestEntry]:
        return []

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        if not self._deleted_data_files:  # its properties are all that changes
            return super()._summary(snapshot_properties)
        return _SnapshotProducer._summary(self, snapshot_properties)


class NoFiles(EraseFiles):
    """A table's beginning once more: a snapshot of nothing, made from none."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__(transaction, EMPTY_DICT)
        self._parent_snapshot_id = None

    def _summary(self, snapshot_properties: dict[str, str] = EMPTY_DICT) -> Summary:
        return _SnapshotProducer._summary(self, snapshot_properties)
