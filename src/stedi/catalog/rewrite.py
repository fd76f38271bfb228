"""A commit that changes files and no row: Iceberg's operation `replace`, which PyIceberg reads but does not write.

The files that stay are listed in one new manifest, so that a reader no longer opens one for each commit of the past.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property

from pyiceberg.manifest import ManifestEntry, ManifestEntryStatus, ManifestFile
from pyiceberg.table.snapshots import Operation, Summary
from pyiceberg.table.update.snapshot import _SnapshotProducer
from pyiceberg.typedef import EMPTY_DICT

from stedi.catalog.snapshots import local_path
from stedi.catalog.transactions import Transaction
from stedi.errors import LakeError


class ReplaceFiles(_SnapshotProducer["ReplaceFiles"]):
    """Produces the snapshot.

    Args:
        transaction: The transaction that it is part of.
        properties: Recorded in the snapshot's summary.
    """

    def __init__(self, transaction: Transaction, properties: Mapping[str, str]) -> None:
        io = transaction._table.io
        # PyIceberg counts the totals of an overwrite alike, and refuses to count those of a replace
        super().__init__(Operation.OVERWRITE, transaction, io, snapshot_properties=dict(properties))

    def leave(self, table: str, paths: Iterable[str]) -> None:
        """Has files of the current snapshot leave.

        Raises:
            LakeError: One of them is not in it.
        """
        leaving = set(paths)
        for entry in self._live:
            path = local_path(entry.data_file.file_path)
            if path in leaving:
                leaving.remove(path)
                self.delete_data_file(entry.data_file)
        if leaving:
            raise LakeError(f"table {table}: {len(leaving)} files to remove are not in its current snapshot")

    @cached_property
    def _live(self) -> list[ManifestEntry]:
        snapshot = self._transaction.table_metadata.current_snapshot()
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
