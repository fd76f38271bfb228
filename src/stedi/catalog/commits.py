"""What the lake adds to PyIceberg's SQLite catalog: times that never go back, and a note of what was published.

Iceberg's readers refuse metadata whose times run backwards by more than a minute, and time travel by a log that does
would be a guess. So a commit is never older than the one before it, whatever the clock says.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table import CommitTableResponse, StagedTable, Table
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableRequirement, TableUpdate
from pyiceberg.typedef import Identifier

from stedi.catalog import checksums
from stedi.catalog.snapshots import local_path


class LakeCatalog(SqlCatalog):
    """PyIceberg's catalog, one commit after the other."""

    _published: str | None = None

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commits updates; `note` says beside the table's files what was published."""
        response = super().commit_table(table, requirements, updates)
        self._published = response.metadata_location
        return response

    def note(self) -> None:
        """Notes the last commit, which no power cut can undo any more: a note must never be ahead of the catalog."""
        location, self._published = self._published, None
        if location is not None:
            metadata = Path(local_path(location))
            with suppress(OSError):  # the commit is made; the note only helps to see later that a catalog is old
                checksums.publish(metadata.parent.parent, f"{metadata.parent.name}/{metadata.name}")

    def _update_and_stage_table(
        self,
        current_table: Table | None,
        table_identifier: Identifier,
        requirements: tuple[TableRequirement, ...],
        updates: tuple[TableUpdate, ...],
    ) -> StagedTable:
        staged = super()._update_and_stage_table(current_table, table_identifier, requirements, updates)
        if current_table is not None:
            staged.metadata = _later(staged.metadata, current_table.metadata)
        return staged


def _later(changed: TableMetadata, base: TableMetadata) -> TableMetadata:
    """Returns changed metadata whose new times come after all times of the metadata that it was made from."""
    least = max([base.last_updated_ms, *(entry.timestamp_ms for entry in base.snapshot_log)]) + 1
    known = {snapshot.snapshot_id for snapshot in base.snapshots}
    logged = {(entry.snapshot_id, entry.timestamp_ms) for entry in base.snapshot_log}

    def at(item: Any) -> Any:
        return item.model_copy(update={"timestamp_ms": max(item.timestamp_ms, least)})

    return changed.model_copy(
        update={
            "last_updated_ms": max(changed.last_updated_ms, least),
            "snapshots": [s if s.snapshot_id in known else at(s) for s in changed.snapshots],
            "snapshot_log": [e if (e.snapshot_id, e.timestamp_ms) in logged else at(e) for e in changed.snapshot_log],
        }
    )
