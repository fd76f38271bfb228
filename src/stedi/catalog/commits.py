"""What a commit of PyIceberg needs of a catalog: times that never go back, and a note of what was published.

Iceberg's readers refuse metadata whose times run backwards by more than a minute, and time travel by a log that does
would be a guess. So a commit is never older than the one before it, whatever the clock says.

Apart from `sqlite`, over which it stands: that is asked by every command, and PyIceberg is imported with this module.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata
from pyiceberg.table.update import TableRequirement, TableUpdate, update_table_metadata

from stedi.catalog import checksums
from stedi.catalog.fileio import LakeFileIO
from stedi.catalog.snapshots import local_path
from stedi.catalog.sqlite import Pointers
from stedi.schema.tables import NAMESPACE

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO

_VERSION = re.compile(r"(\d+)-[^/]*\.metadata\.json$")


class LakeCatalog:
    """The tables of a lake, to be changed one commit after the other.

    Args:
        pointers: Where each table's current metadata file is.
    """

    def __init__(self, pointers: Pointers) -> None:
        self._pointers = pointers
        self._published: str | None = None

    def load_table(self, identifier: str | tuple[str, ...]) -> Table:
        """Returns a table to change, of the lake's namespace.

        Raises:
            CommitFailedException: There is none.
        """
        table = identifier if isinstance(identifier, str) else identifier[-1]
        location = self._pointers.location(table)
        if location is None:
            raise CommitFailedException(f"no table {table}")
        io = LakeFileIO()
        metadata = FromInputFile.table_metadata(io.new_input(location))
        return Table((NAMESPACE, table), metadata, location, io, cast("Catalog", self))

    def commit_table(
        self, table: Table, requirements: tuple[TableRequirement, ...], updates: tuple[TableUpdate, ...]
    ) -> CommitTableResponse:
        """Commits updates; `note` says beside the table's files what was published.

        Raises:
            CommitFailedException: A requirement is not met, or another program came first.
        """
        name = table.name()[-1]
        current = self.load_table(name)
        for requirement in requirements:
            requirement.validate(current.metadata)
        before = current.metadata_location
        metadata = update_table_metadata(current.metadata, updates, metadata_location=before)
        if metadata == current.metadata:
            return CommitTableResponse.model_construct(metadata=metadata, metadata_location=before)
        metadata = _later(metadata, current.metadata)
        numbered = _VERSION.search(before)
        provider = load_location_provider(metadata.location, metadata.properties)
        location = provider.new_table_metadata_file_location(int(numbered[1]) + 1 if numbered else 0)
        ToOutputFile.table_metadata(metadata, LakeFileIO().new_output(location))
        if not self._pointers.move(name, before, location):
            raise CommitFailedException(f"table {name} was changed by another process")
        self._published = location
        return CommitTableResponse.model_construct(metadata=metadata, metadata_location=location)

    def note(self) -> None:
        """Notes the last commit, which no power cut can undo any more: a note must never be ahead of the catalog."""
        location, self._published = self._published, None
        if location is not None:
            metadata = Path(local_path(location))
            with suppress(OSError):  # the commit is made; the note only helps to see later that a catalog is old
                checksums.publish(metadata.parent.parent, f"{metadata.parent.name}/{metadata.name}")

    @staticmethod
    def _delete_old_metadata(io: FileIO, base: TableMetadata, metadata: TableMetadata) -> None:
        """Leaves old metadata to `maintain`, whatever a table's properties say; PyIceberg asks after each commit."""


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
