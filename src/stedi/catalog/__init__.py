"""Iceberg: load, scan, append, stage, publish. Nothing commits to a table but this package.

Reading goes through `snapshots`, quickly; every commit goes through PyIceberg, which is imported when the first
one is made. A table moves in two ways only: rows are appended to `main` (landing), or a snapshot staged on a
branch becomes `main` if `main` is still the snapshot that it was staged from (builds).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from stedi import durable
from stedi.catalog.snapshots import Snapshot, TableState, data_files, local_path, read_catalog, read_table
from stedi.errors import CommitConflict, LakeError
from stedi.tables import COLUMNS, NAMESPACE, ZONES, DataFile

if TYPE_CHECKING:
    from pyiceberg.catalog.sql import SqlCatalog
    from pyiceberg.manifest import DataFile as IcebergFile
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableRequirement, TableUpdate
    from pyiceberg.table.update.snapshot import _SnapshotProducer

    from stedi.catalog.transaction import Transaction

__all__ = ["Catalog", "Snapshot", "TableState"]

_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.delete.isolation-level": "serializable",
    "write.metadata.metrics.default": "counts",
}

_PATIENCE = 30
"""Seconds to wait for another writer of the catalog's file; each holds it for milliseconds."""


class Catalog:
    """The tables of one lake folder.

    Args:
        root: The lake's folder; the catalog is `catalog.db` in it, each table's files lie in `<zone>/<table>`.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._sql: SqlCatalog | None = None

    @property
    def path(self) -> Path:
        """The catalog's SQLite file."""
        return self._root / "catalog.db"

    def create(self) -> None:
        """Makes the catalog and every table that it lacks."""
        with self._committing("a new lake"):
            self._create()
        self.path.chmod(0o600)

    def _create(self) -> None:
        catalog = self._iceberg()
        catalog.create_namespace_if_not_exists(NAMESPACE)
        from pyiceberg import types
        from pyiceberg.schema import Schema

        iceberg_types = {
            "string": types.StringType(),
            "long": types.LongType(),
            "double": types.DoubleType(),
            "timestamptz": types.TimestamptzType(),
            "date": types.DateType(),
            "binary": types.BinaryType(),
        }
        for name, columns in COLUMNS.items():
            fields = [
                types.NestedField(place, column.name, iceberg_types[column.type], required=False)
                for place, column in enumerate(columns, start=1)
            ]
            table = catalog.create_table_if_not_exists(
                (NAMESPACE, name),
                Schema(*fields),
                location=f"file://{self.folder(name)}",
                properties=_PROPERTIES,
            )
            # PyIceberg stages on a branch only where main has a snapshot: an empty one
            if table.current_snapshot() is None:
                self.append(name, (), {})

    def folder(self, table: str) -> Path:
        """Returns the folder of a table's files."""
        return self._root / ZONES[table] / table

    def tables(self) -> dict[str, TableState]:
        """Returns the state of every table now, in the order in which data flow.

        Raises:
            LakeError: The catalog or a table's metadata cannot be read.
        """
        found = read_catalog(self.path)
        return {name: found[name] for name in ZONES if name in found}

    def table(self, name: str) -> TableState:
        """Returns the state of one table now.

        Raises:
            LakeError: There is no such table, or it cannot be read.
        """
        found = read_catalog(self.path)
        if name not in found:
            raise LakeError(f"no table {name}: expected one of {', '.join(found)}")
        return found[name]

    def files(self, state: TableState, snapshot: Snapshot | None = None) -> tuple[DataFile, ...]:
        """Returns the data files of a table's snapshot, by default of its current one."""
        return data_files(state.name, snapshot or state.current)

    def added(self, state: TableState, snapshots: Iterable[Snapshot]) -> tuple[DataFile, ...]:
        """Returns the data files that some snapshots of a table, appends all of them, have added to it."""
        return tuple(file for snapshot in snapshots for file in data_files(state.name, snapshot, added=True))

    def append(self, table: str, files: Iterable[DataFile], properties: Mapping[str, str]) -> int:
        """Appends files to a table's `main`; safe beside other writers.

        Args:
            table: The table's name.
            files: Parquet files that lie in the table's folder, synced.
            properties: Recorded in the snapshot's summary.

        Returns:
            The new snapshot's id.

        Raises:
            CommitConflict: Other writers came first, more often than is retried.
        """
        from stedi.catalog.transaction import Transaction

        iceberg = self._load(table)
        transaction = Transaction(iceberg)
        producer = transaction.update_snapshot(snapshot_properties=dict(properties)).fast_append()
        return self._commit(table, transaction, producer, iceberg, files, set())

    def stage(
        self,
        table: str,
        added: Iterable[DataFile],
        removed: Iterable[str],
        properties: Mapping[str, str],
        *,
        branch: str,
        base: int,
    ) -> int:
        """Writes a change to a branch that starts at `base`; readers of `main` see nothing.

        Args:
            table: The table's name.
            added: Parquet files that lie in the table's folder, synced.
            removed: Paths of data files of `base` that leave.
            properties: Recorded in the snapshot's summary.
            branch: The branch's name, new.
            base: The snapshot that the change was computed from.

        Returns:
            The staged snapshot's id.

        Raises:
            CommitConflict: `main` is no longer `base`.
        """
        iceberg = self._load(table)
        current = iceberg.metadata.current_snapshot_id
        if current != base:
            raise CommitConflict(
                f"Cannot stage {table}: main has moved: expected snapshot {base}, found {current}. "
                "Run `stedi build` again."
            )
        from pyiceberg.table.update.snapshot import ManageSnapshots

        from stedi.catalog.transaction import Overwrite, Transaction

        transaction = Transaction(iceberg)
        leaving = set(removed)
        ManageSnapshots(transaction).create_branch(base, branch).commit()
        update = transaction.update_snapshot(snapshot_properties=dict(properties), branch=branch)
        producer = Overwrite(transaction, properties, branch) if leaving else update.fast_append()
        return self._commit(table, transaction, producer, iceberg, added, leaving)

    def publish(self, table: str, *, branch: str, staged: int, base: int) -> None:
        """Makes a staged snapshot `main` and drops its branch, in one step, if `main` is still `base`.

        Raises:
            CommitConflict: `main` has moved; nothing was changed.
        """
        from pyiceberg.exceptions import CommitFailedException
        from pyiceberg.table.refs import SnapshotRefType
        from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate, SetSnapshotRefUpdate

        iceberg = self._load(table)
        try:
            self._commit_table(
                iceberg,
                (
                    AssertRefSnapshotId.model_validate({"ref": "main", "snapshot-id": base}),
                    AssertRefSnapshotId.model_validate({"ref": branch, "snapshot-id": staged}),
                ),
                (
                    SetSnapshotRefUpdate.model_validate(
                        {"ref-name": "main", "type": SnapshotRefType.BRANCH, "snapshot-id": staged}
                    ),
                    RemoveSnapshotRefUpdate.model_validate({"ref-name": branch}),
                ),
            )
        except CommitFailedException as error:
            found = self.table(table).current
            raise CommitConflict(
                f"Cannot publish {table}: main has moved: expected snapshot {base}, found "
                f"{found.id if found else None}. "
                "Run `stedi build` again."
            ) from error

    def discard(self, table: str, branch: str) -> None:
        """Drops a branch that will not be published, with its snapshot, if it is there."""
        head = self.table(table).branches.get(branch)
        if head is None:
            return
        from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotsUpdate

        self._commit_table(
            self._load(table),
            (AssertRefSnapshotId.model_validate({"ref": branch, "snapshot-id": head}),),
            # the branch goes with its snapshot; a snapshot without its files would be a trap for time travel
            (RemoveSnapshotsUpdate.model_validate({"snapshot-ids": [head]}),),
        )

    def warm(self) -> None:
        """Imports what a commit needs, so that it can happen beside other work."""
        self._iceberg()

    def _iceberg(self) -> SqlCatalog:
        if self._sql is None:
            from pyiceberg.catalog.sql import SqlCatalog
            from sqlalchemy import URL

            uri = URL.create("sqlite", database=str(self.path), query={"timeout": str(_PATIENCE)}).render_as_string()
            self._sql = SqlCatalog("stedi", uri=uri, **{"py-io-impl": "stedi.catalog.files.LocalFileIO"})
        return self._sql

    def _commit_table(
        self, iceberg: Table, expected: tuple[TableRequirement, ...], changes: tuple[TableUpdate, ...]
    ) -> None:
        with self._committing(iceberg.name()[-1]):
            self._iceberg().commit_table(iceberg, expected, changes)

    @contextmanager
    def _committing(self, table: str) -> Iterator[None]:
        """Has the disk know of a commit before the block ends; turns SQLite's refusals into one clear line."""
        from sqlalchemy.exc import OperationalError

        try:
            yield
        except OperationalError as error:
            raise LakeError(
                f"Cannot commit to {table}: catalog.db cannot be written ({error.orig}); the table is as it was "
                "or as it should be. Run the command again when no other program holds the file and the disk has space."
            ) from error
        # SQLite commits by removing its journal; until the folder is synced that may come back, and undo the commit
        durable.sync(self._root)

    def _load(self, table: str) -> Table:
        return self._iceberg().load_table((NAMESPACE, table))

    def _commit(
        self,
        table: str,
        transaction: Transaction,
        producer: _SnapshotProducer,  # type: ignore[type-arg]
        iceberg: Table,
        added: Iterable[DataFile],
        leaving: set[str],
    ) -> int:
        from pyiceberg.exceptions import CommitFailedException, ValidationException

        for file in added:
            producer.append_data_file(_iceberg_file(table, file))
        if leaving:
            for entry in _entries(table, iceberg):
                if local_path(entry.file_path) in leaving:
                    producer.delete_data_file(entry)
                    leaving.discard(local_path(entry.file_path))
            if leaving:
                raise LakeError(f"table {table}: {len(leaving)} files to remove are not in its current snapshot")
        snapshot_id = producer.snapshot_id
        try:
            producer.commit()
            with self._committing(table):
                transaction.commit_transaction()
        except (CommitFailedException, ValidationException) as error:
            raise CommitConflict(
                f"Cannot commit to {table}: other writers came first. Run the command again."
            ) from error
        return snapshot_id


def _entries(table: str, iceberg: Table) -> list[IcebergFile]:
    """Returns the manifest entries of a table's current files."""
    # PyIceberg's own reader of manifests takes several times as long
    current = read_table(table, iceberg.metadata_location).current
    return [_iceberg_file(table, file) for file in data_files(table, current)]


def _iceberg_file(table: str, file: DataFile) -> IcebergFile:
    """Returns the manifest entry of a file; bounds of text are left out, since they would carry identifiers."""
    from pyiceberg.conversions import to_bytes
    from pyiceberg.manifest import DataFile as IcebergFile
    from pyiceberg.manifest import DataFileContent, FileFormat
    from pyiceberg.typedef import Record
    from pyiceberg.types import DoubleType, LongType

    places = {column.name: (place, column.type) for place, column in enumerate(COLUMNS[table], start=1)}
    lower, upper = {}, {}
    for name, (least, greatest) in file.bounds.items():
        place, kind = places[name]
        if kind == "long":
            lower[place], upper[place] = (to_bytes(LongType(), int(bound)) for bound in (least, greatest))
        elif kind == "double":
            lower[place], upper[place] = (to_bytes(DoubleType(), float(bound)) for bound in (least, greatest))
    entry = IcebergFile.from_args(
        content=DataFileContent.DATA,
        file_path=f"file://{file.path}",
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
    entry.spec_id = 0  # of no partitions; a manifest says it once for all of its files
    return entry
