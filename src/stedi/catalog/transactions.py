"""PyIceberg's transaction and overwrite, without what makes small commits dear and tables slower with each build.

PyIceberg copies a table's whole metadata each time that a transaction looks at them, some twenty times a commit, and
keeps the manifest of every file that ever left. Imported with PyIceberg, when the first commit is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyiceberg.manifest import ManifestFile
from pyiceberg.table import Table
from pyiceberg.table import Transaction as IcebergTransaction
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.snapshots import Operation
from pyiceberg.table.update import TableUpdate, _apply_table_update, _TableMetadataUpdateContext
from pyiceberg.table.update.snapshot import _OverwriteFiles


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
