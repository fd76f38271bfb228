"""Commits of this program, one at a time: each loads its table, changes it and is on disk before the next begins.

How a commit is made is here; which commits there are, `Catalog` says, in one form for a lake anywhere (`Commit`). The
files of its snapshots are written here; what then becomes of the table's metadata, `Local` or `Remote` does.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

from stedi._frozen import dataclass, field
from stedi.catalog import checksums, manifests, metadata
from stedi.catalog.changes import Change, SnapshotFiles, TableChange
from stedi.catalog.local import Local
from stedi.catalog.metadata import Outrun
from stedi.catalog.remote import Remote
from stedi.catalog.snapshots import TableState, read_metadata
from stedi.errors import CommitConflict, LakeError
from stedi.storage import durable, s3

T = TypeVar("T")
R = TypeVar("R")

_PATIENCE = 120.0
"""Seconds to wait for this program's other commits; each takes a hundredth of one."""
_PAUSES = (0.1, 0.2, 0.4, 0.8)
"""Seconds to wait before a commit that other programs have outrun is tried again."""


@dataclass(frozen=True, slots=True)
class Commit:
    """An atomic change to a table.

    Attributes:
        expected: The snapshot that each of these tags and branches must name; None for no such tag or branch.
        changes: New snapshots.
        refs: The snapshot that each of these tags and branches will point to; None to drop one.
        kind: The kind of new ones.
        dropped: Live snapshots to drop, with their tags and branches.
        comments: What the schema is to say that columns mean, by name.
    """

    expected: Mapping[str, int | None]
    changes: tuple[Change, ...] = ()
    refs: Mapping[str, int | None] = field(default_factory=dict)
    kind: Literal["branch", "tag"] = "branch"
    dropped: tuple[int, ...] = ()
    comments: Mapping[str, str] = field(default_factory=dict)


class Committer:
    """The commits to one lake's tables.

    Args:
        root: The lake's folder.
        tables: The tables, in a folder or in a bucket.
    """

    def __init__(self, root: Path, tables: Local | Remote) -> None:
        self._root, self._tables = root, tables

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Has this program's other commits wait until the block ends."""
        with durable.lock(self._root / "catalog.lock", wait=_PATIENCE):
            yield

    @contextmanager
    def answering(self, what: str) -> Iterator[None]:
        """Syncs a commit before the block ends; turns errors of SQLite into one clear line."""
        try:
            yield
        except sqlite3.OperationalError as error:
            raise LakeError(
                f"Cannot commit to {what}: catalog.db cannot be written ({error}); the table is as before or as "
                "after the commit. Close other programs that use the file, check the disk's space, and run the "
                "command again."
            ) from error
        # SQLite commits by removing its journal; until the folder is synced that may come back, and undo the commit
        durable.sync(self._root)

    def commit(
        self, table: str, planned: Callable[[TableState], Commit], refusal: Callable[[TableState], str]
    ) -> tuple[int, ...]:
        """Commits to a table. This program's commits queue, so only other programs cause conflicts.

        Args:
            table: The table's name.
            planned: Returns the commit for the table's current state; called again after another program's commit.
            refusal: Returns the error if the table is not as expected.

        Returns:
            The ids of the snapshots that were made.

        Raises:
            CommitConflict: The table is not as expected, or others came first more often than is retried.
            DamagedFile: A file that comes is gone or has another size than was written.
            LakeError: A file that leaves is not in the snapshot that it is to leave.
        """
        asked = self.commit_all({table: planned}, refusal)
        return tuple(change.id for change in asked[table].changes)

    def commit_all(
        self, planned: Mapping[str, Callable[[TableState], Commit]], refusal: Callable[[TableState], str]
    ) -> dict[str, Commit]:
        """Commits to several tables, to all or to none; of a catalog elsewhere, which has no such commit, to one.

        Args:
            planned: For each table what says what becomes of it as it is.
            refusal: Says why not, where a table is not as expected.

        Returns:
            What became of each.

        Raises:
            CommitConflict: A table is not as expected, or others came first more often than is retried.
            DamagedFile: A file that comes is gone or has another size than was written.
            LakeError: A file that leaves is not in the snapshot that it is to leave.
        """
        names = ", ".join(planned)
        outrun = CommitConflict(f"Cannot commit to {names}: other writers came first. Run the command again.")
        with self.alone():
            # the note below comes after the sync at the end of this block: it must not be ahead of the catalog
            with self.answering(names):
                for attempt, pause in enumerate((*_PAUSES, None)):
                    # anew for each attempt: another program has changed what the last one was planned for
                    states = {table: self._load(table) for table in planned}
                    asked = {table: plan(states[table]) for table, plan in planned.items()}
                    for table, state in states.items():
                        heads = {**state.branches, **state.tags}
                        if any(heads.get(name) != head for name, head in asked[table].expected.items()):
                            # after a lost race another program has moved it, whatever else the refusal says
                            raise outrun if attempt else CommitConflict(refusal(state))
                    try:
                        self._make([(states[table], asked[table]) for table in planned])
                        break
                    except Outrun:
                        if pause is None:
                            raise outrun from None
                        time.sleep(pause)
            self._tables.note()
        return asked

    def _make(self, commits: Iterable[tuple[TableState, Commit]]) -> None:
        """Writes the files of commits' snapshots, with the checksums of what they add, and makes them.

        Raises:
            Outrun: Another program came first; the files are gone again.
        """
        prepared = [self._prepare(state, asked) for state, asked in commits]
        if changes := [change for change, _ in prepared if change.updates]:
            try:
                self._tables.commit(changes)
            except Outrun:
                # no metadata names them yet
                for path in (path for _, written in prepared for path in written):
                    path.unlink(missing_ok=True)
                raise

    def _prepare(self, state: TableState, asked: Commit) -> tuple[TableChange, list[Path]]:
        """Writes the files of a commit's snapshots; returns it in Iceberg's words, and the files."""
        base = read_metadata(state.metadata[-1])
        # Iceberg's readers refuse times that run backwards
        at = max(int(time.time() * 1000), metadata.after(base))
        schema = metadata.current_schema(base)
        updates = list[Mapping[str, Any]](metadata.describing(base, asked.comments))
        written = list[Path]()
        added = {file.path: file for change in asked.changes for file in change.added}
        with _in_background(len(added)) as each:
            # hashing releases the interpreter's lock, and the new files are still in memory
            lines = each(partial(manifests.line, state.name, s3.at(state.location)), list(added.values()))
            for number, change in enumerate(asked.changes, start=base["last-sequence-number"] + 1):
                files = SnapshotFiles(state, schema, change, number)
                updates.append(metadata.adding(files.write(at)))
                written += files.written
            if added:
                checksums.record(s3.at(state.location), lines)
        for name, head in asked.refs.items():
            updates.append(metadata.unnaming(name) if head is None else metadata.naming(base, name, head, asked.kind))
        if asked.dropped:
            updates.append(metadata.dropping(asked.dropped))
        return TableChange(state, metadata.expecting(base, asked.expected), updates, at), written

    def warm(self) -> None:
        """Imports what a commit needs."""
        self._tables.warm()

    def _load(self, table: str) -> TableState:
        return self._tables.load(table)


@contextmanager
def _in_background(count: int) -> Iterator[Callable[[Callable[[T], R], Sequence[T]], Iterable[R]]]:
    """Gives what maps a function over some things, beside what the block does; the order of the results is not kept."""
    # one file is hashed sooner than a pool of threads starts
    if count < 2:
        yield map
        return
    from concurrent.futures import ThreadPoolExecutor

    size = min(count, os.cpu_count() or 1)
    with ThreadPoolExecutor(size) as threads:

        def each(function: Callable[[T], R], things: Sequence[T]) -> Iterable[R]:
            # a task for each thread, not for each file: to hand it over costs more than to hash a small file
            tasks = [threads.submit(list, map(function, things[n::size])) for n in range(size)]
            return (result for task in tasks for result in task.result())

        yield each
