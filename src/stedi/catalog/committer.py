"""This program's commits, one after the other: each loads its table, changes it and is on disk before the next begins.

How a commit is made is here; which commits there are, `Catalog` says. PyIceberg is imported when the first is made.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stedi.catalog import checksums, manifests
from stedi.catalog.remote import Remote
from stedi.catalog.sqlite import Pointers
from stedi.errors import CommitConflict, LakeError
from stedi.schema.tables import DataFile
from stedi.storage import durable, s3

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.update import TableRequirement, TableUpdate
    from pyiceberg.table.update.snapshot import _SnapshotProducer

    from stedi.catalog.commits import LakeCatalog
    from stedi.catalog.transactions import Transaction

_PATIENCE = 120.0
"""Seconds to wait for this program's other commits; each takes a hundredth of one."""


@dataclass(frozen=True, slots=True)
class Change:
    """A snapshot that is to be committed.

    Attributes:
        producer: What makes it, part of the transaction.
        added: Files that come.
        leaving: Paths of files that leave.
        of: The snapshot that they leave, by default the current one.
    """

    producer: _SnapshotProducer[Any]
    added: tuple[DataFile, ...]
    leaving: tuple[str, ...] = ()
    of: int | None = None


class Committer:
    """The commits to one lake's tables.

    Args:
        root: The lake's folder.
        pointers: Where each table's current metadata file is, of a lake on this machine.
        remote: The catalog of a lake in a bucket.
    """

    def __init__(self, root: Path, pointers: Pointers, remote: Remote | None) -> None:
        self._root, self._pointers, self._remote = root, pointers, remote
        self._local: LakeCatalog | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Has this program's other commits wait until the block ends."""
        with durable.lock(self._root / "catalog.lock", wait=_PATIENCE):
            yield

    @contextmanager
    def table(self, name: str) -> Iterator[Table]:
        """Gives a table to change. This program's commits queue: conflicts are with other programs alone."""
        with self.alone():
            with self.answering(name):
                yield self._load(name)
            self._iceberg().note()

    @contextmanager
    def answering(self, what: str) -> Iterator[None]:
        """Has the disk know of a commit before the block ends; turns SQLite's refusals into one clear line."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LakeError(
                f"Cannot commit to {what}: catalog.db cannot be written ({error}); the table is as it was "
                "or as it should be. Run the command again when no other program holds the file and the disk has space."
            ) from error
        # SQLite commits by removing its journal; until the folder is synced that may come back, and undo the commit
        durable.sync(self._root)

    def change(self, table: str, expected: tuple[TableRequirement, ...], changes: tuple[TableUpdate, ...]) -> None:
        """Commits changes that add no file to a table.

        Raises:
            CommitFailedException: PyIceberg's; what is expected is not so.
        """
        with self.table(table) as iceberg:
            self._iceberg().commit_table(iceberg, expected, changes)

    def commit(
        self,
        table: str,
        folder: Path,
        transaction: Transaction,
        producer: _SnapshotProducer[Any],
        added: Iterable[DataFile],
        leaving: Iterable[str] = (),
    ) -> int:
        """Commits files, with their checksums, to a table that `table` gave.

        Args:
            table: The table's name.
            folder: Its folder.
            transaction: The transaction that changes it.
            producer: What makes the snapshot, part of that transaction.
            added: Files that come.
            leaving: Paths of files that leave.

        Returns:
            The snapshot's id.

        Raises:
            CommitConflict: Other writers came first, more often than is retried.
            DamagedFile: A file that comes is gone or has another size than was written.
            LakeError: A file that leaves is not in the table's current snapshot.
        """
        return self.commit_together(table, folder, transaction, [Change(producer, tuple(added), tuple(leaving))])[0]

    def commit_together(
        self,
        table: str,
        folder: Path,
        transaction: Transaction,
        changes: Sequence[Change],
        moved: Mapping[str, int] = MappingProxyType({}),
    ) -> list[int]:
        """Commits several snapshots of a table at once, which may share files.

        Args:
            table: The table's name.
            folder: Its folder.
            transaction: The transaction that changes it.
            changes: The snapshots.
            moved: Tags and branches that are to name one of these snapshots: which of them, counted from 0.

        Returns:
            The snapshots' ids.

        Raises:
            CommitConflict: As for `commit`.
            DamagedFile: As for `commit`.
            LakeError: As for `commit`.
        """
        from concurrent.futures import ThreadPoolExecutor

        from pyiceberg.exceptions import CommitFailedException, ValidationException

        iceberg, ids = transaction._table, list[int]()
        files = {file.path: file for change in changes for file in change.added}
        # hashing leaves the interpreter free, and what was just written is still in memory
        with ThreadPoolExecutor(os.cpu_count()) as beside:
            lines = beside.map(partial(manifests.line, table, s3.at(iceberg.location())), files.values())
            for change in changes:
                for file in change.added:
                    change.producer.append_data_file(manifests.entry(table, file))
                gone = set(change.leaving)
                for entry in manifests.leaving(table, iceberg, gone, change.of) if gone else ():
                    change.producer.delete_data_file(entry)
                ids.append(change.producer.snapshot_id)
            try:
                for change in changes:
                    change.producer.commit()
                checksums.record(folder, lines)
                transaction.move({name: ids[place] for name, place in moved.items()})
                transaction.commit_transaction()
            except (CommitFailedException, ValidationException) as error:
                raise CommitConflict(
                    f"Cannot commit to {table}: other writers came first. Run the command again."
                ) from error
        return ids

    def warm(self) -> None:
        """Imports what a commit needs."""
        if self._remote:
            self._remote.warm()
        self._iceberg()

    def _iceberg(self) -> LakeCatalog | Remote:
        if self._remote:
            return self._remote
        if self._local is None:
            from stedi.catalog.commits import LakeCatalog

            self._local = LakeCatalog(self._pointers)
        return self._local

    def _load(self, table: str) -> Table:
        return self._iceberg().load_table(table)
