"""The catalog's SQLite file, written as PyIceberg's SqlCatalog writes it, which reads it too; commits are PyIceberg's.

That class stands on SQLAlchemy, whose import takes as long as the rest of a small build. The lake adds times that
never go back: Iceberg's readers refuse metadata whose times run backwards by more than a minute, and time travel by
a log that does would be a guess. So a commit is never older than the one before it, whatever the clock says.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pyiceberg.exceptions import CommitFailedException
from pyiceberg.serializers import FromInputFile, ToOutputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.locations import load_location_provider
from pyiceberg.table.metadata import TableMetadata, new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import TableRequirement, TableUpdate, update_table_metadata

from stedi.catalog import checksums
from stedi.catalog.files import LocalFileIO
from stedi.catalog.snapshots import local_path
from stedi.tables import NAMESPACE

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.io import FileIO
    from pyiceberg.schema import Schema

_NAME = "stedi"
"""The catalog's own name, by which its rows are told from those of others in one file."""

_TABLES = """
create table if not exists iceberg_tables (
    catalog_name varchar(255) not null,
    table_namespace varchar(255) not null,
    table_name varchar(255) not null,
    metadata_location varchar(1000),
    previous_metadata_location varchar(1000),
    iceberg_type varchar(5),
    primary key (catalog_name, table_namespace, table_name)
);
create table if not exists iceberg_namespace_properties (
    catalog_name varchar(255) not null,
    namespace varchar(255) not null,
    property_key varchar(255) not null,
    property_value varchar(1000) not null,
    primary key (catalog_name, namespace, property_key)
);
"""
"""The tables that PyIceberg's SqlCatalog keeps, in its version 1."""

_THIS = "catalog_name = ? and table_namespace = ? and table_name = ?"
_VERSION = re.compile(r"(\d+)-[^/]*\.metadata\.json$")


class LakeCatalog:
    """What a commit of PyIceberg needs of a catalog, one commit after the other.

    Args:
        path: The SQLite file; it need not be there for `create`.
        patience: Seconds to wait for another writer of the file.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path, self._patience = path, patience
        self._published: str | None = None

    def create(self) -> None:
        """Makes the file and its tables, where they are not there yet."""
        with self._connected() as connection:
            connection.executescript(_TABLES)
            connection.execute(
                "insert or ignore into iceberg_namespace_properties values (?, ?, 'exists', 'true')", (_NAME, NAMESPACE)
            )

    def create_table(self, table: str, schema: Schema, location: str, properties: dict[str, str]) -> Table:
        """Makes an empty table, or returns the one that is there."""
        if self._location(table) is None:
            from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC

            metadata = new_table_metadata(
                schema, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, location, properties
            )
            self.register(table, self._write(metadata, 0))
        return self.load_table(table)

    def register(self, table: str, metadata_location: str) -> None:
        """Enters a table whose metadata file is there already.

        Raises:
            LakeError: The file cannot be read; the table is entered all the same.
        """
        with self._connected() as connection:
            connection.execute(
                "insert into iceberg_tables values (?, ?, ?, ?, null, 'TABLE')",
                (_NAME, NAMESPACE, table, metadata_location),
            )

    def drop(self, table: str) -> None:
        """Removes a table's entry, not its files."""
        with self._connected() as connection:
            connection.execute(f"delete from iceberg_tables where {_THIS}", (_NAME, NAMESPACE, table))

    def load_table(self, identifier: str | tuple[str, ...]) -> Table:
        """Returns a table to change, of the lake's namespace.

        Raises:
            CommitFailedException: There is none.
        """
        table = identifier if isinstance(identifier, str) else identifier[-1]
        location = self._location(table)
        if location is None:
            raise CommitFailedException(f"no table {table}")
        io = LocalFileIO()
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
        location = self._write(metadata, int(numbered[1]) + 1 if numbered else 0)
        with self._connected() as connection:
            changed = connection.execute(
                "update iceberg_tables set metadata_location = ?, previous_metadata_location = ? "
                f"where {_THIS} and metadata_location = ?",
                (location, before, _NAME, NAMESPACE, name, before),
            )
            if changed.rowcount != 1:
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

    def _location(self, table: str) -> str | None:
        with self._connected() as connection:
            found = connection.execute(
                f"select metadata_location from iceberg_tables where {_THIS}", (_NAME, NAMESPACE, table)
            ).fetchone()
        return None if found is None else str(found[0])

    @staticmethod
    def _write(metadata: TableMetadata, version: int) -> str:
        """Writes a metadata file and returns its location."""
        provider = load_location_provider(metadata.location, metadata.properties)
        location = provider.new_table_metadata_file_location(version)
        ToOutputFile.table_metadata(metadata, LocalFileIO().new_output(location))
        return location

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Gives the file; what the block does is one transaction."""
        with closing(sqlite3.connect(self._path, timeout=self._patience)) as connection, connection:
            yield connection


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
