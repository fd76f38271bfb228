"""Iceberg: load, scan, append, stage, publish. Nothing commits to a table but this package.

Reading goes through `snapshots`, quickly; every commit goes through `committer` and PyIceberg, which is imported when
the first one is made. A table moves in two ways only: rows are appended to `main` (landing), or a snapshot staged on
a branch becomes `main` if `main` is still the snapshot that it was staged from (builds).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stedi.catalog import checksums, configuration, manifests, new_table, snapshots
from stedi.catalog.committer import Change, Committer
from stedi.catalog.remote import Remote
from stedi.catalog.snapshots import Snapshot, TableState, data_files, read_catalog, uri
from stedi.catalog.sqlite import Pointers
from stedi.errors import CommitConflict, LakeError
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, COLUMNS, NAMESPACE, DataFile
from stedi.storage import durable, s3

if TYPE_CHECKING:
    from pyiceberg.table.metadata import TableMetadata
    from pyiceberg.table.snapshots import Snapshot as IcebergSnapshot

__all__ = ["Catalog", "Erasing", "Snapshot", "TableState"]

_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    "write.delete.isolation-level": "serializable",
    "write.metadata.previous-versions-max": "10",
    "write.metadata.metrics.default": "counts",
}

_PATIENCE = 30
"""Seconds to wait for another writer of the catalog's file; each holds it for milliseconds."""


@dataclass(frozen=True, slots=True)
class Erasing:
    """What an erasure makes of one snapshot of a table.

    Attributes:
        snapshot: The snapshot's id.
        added: Parquet files that lie in the table's folder, synced; snapshots may share them.
        removed: Paths of data files of the snapshot that leave.
        properties: Recorded in the new snapshot's summary.
        refs: Tags and branches that name the snapshot, and are to name the new one.
    """

    snapshot: int
    added: tuple[DataFile, ...]
    removed: tuple[str, ...]
    properties: Mapping[str, str]
    refs: tuple[str, ...] = ()


class Catalog:
    """The tables of one lake.

    Args:
        root: The lake's folder, in which each table's files lie in `<zone>/<table>`. The catalog of one on this machine
            is `catalog.db` in it; that of one in a bucket is Glue, or what PyIceberg's configuration names.
    """

    def __init__(self, root: Path) -> None:
        configuration.keep_out()
        self.root = root
        self.remote = Remote(root) if s3.is_remote(root) else None
        self._pointers = Pointers(self.path, _PATIENCE)
        self._queue = Committer(root, self._pointers, self.remote)

    @property
    def path(self) -> Path:
        """The catalog's SQLite file, of a lake on this machine."""
        return self.root / "catalog.db"

    def listed(self) -> dict[str, str]:
        """Returns the location of each table's current metadata file, by the table's name.

        Raises:
            LakeError: The catalog cannot be read.
        """
        return self.remote.listed() if self.remote else snapshots.here(self.root, snapshots.listed(self.path))

    def create(self, tables: Iterable[str] = tuple(COLUMNS)) -> None:
        """Makes the catalog and those of some tables that it lacks, by default of those that every lake has."""
        if self.remote:
            known = self.remote.listed()
            new = [name for name in tables if name not in known]
            paths = s3.each(lambda name: new_table.empty(self.folder(name), ALL_COLUMNS[name], _PROPERTIES), new)
            self.remote.enter({name: str(path) for name, path in paths})
            return
        with self._queue.answering("a new lake"):
            self._pointers.create()
            missing = [name for name in tables if self._pointers.location(name) is None]
            made = {name: new_table.empty(self.folder(name), ALL_COLUMNS[name], _PROPERTIES) for name in missing}
            self._pointers.enter({name: uri(path) for name, path in made.items()})
        for name, path in made.items():
            checksums.publish(self.folder(name), f"{path.parent.name}/{path.name}")
        self.path.chmod(durable.readable(self.root))

    def folder(self, table: str) -> Path:
        """Returns the folder of a table's files."""
        return self.root / ALL_ZONES[table] / table

    def tables(self) -> dict[str, TableState]:
        """Returns the state of every table now, in the order in which data flow.

        Raises:
            LakeError: The catalog or a table's metadata cannot be read.
        """
        found = self._states()
        if self.remote and not found:
            raise LakeError(
                f"{self.root}: expected the lake's tables in the catalog's database {NAMESPACE}, found none: this is a "
                "copy, which cannot be used, or the catalog is another than the lake was made with; use the lake that "
                "it was copied from, or configure the catalog that has its tables"
            )
        return {name: found[name] for name in ALL_ZONES if name in found}

    def table(self, name: str) -> TableState:
        """Returns the state of one table now.

        Raises:
            LakeError: There is no such table, or it cannot be read.
        """
        found = self._states([name])
        if name not in found:
            raise LakeError(f"no table {name}: expected one of {', '.join(self.listed())}")
        return found[name]

    def _states(self, names: Collection[str] = tuple(ALL_ZONES)) -> dict[str, TableState]:
        if self.remote is None:
            return read_catalog(self.path, names)
        found = self.remote.listed()
        wanted = [name for name in names if name in found]
        return dict(s3.each(lambda name: snapshots.read_table(name, found[name]), wanted))

    def files(self, state: TableState, snapshot: Snapshot | None = None) -> tuple[DataFile, ...]:
        """Returns the data files of a table's snapshot, by default of its current one, to be read.

        Raises:
            LakeError: A manifest cannot be read.
            DamagedFile: A file is gone or has another size than was written.
        """
        return manifests.there(state.name, data_files(state.name, snapshot or state.current))

    def added(self, state: TableState, snapshots: Iterable[Snapshot]) -> tuple[DataFile, ...]:
        """Returns the data files that some snapshots of a table, appends all of them, have added to it."""
        files = tuple(file for snapshot in snapshots for file in data_files(state.name, snapshot, added=True))
        return manifests.there(state.name, files)

    def append(
        self,
        table: str,
        files: Iterable[DataFile],
        properties: Mapping[str, str],
        *,
        once: str | None = None,
        base: int | None = None,
    ) -> int | None:
        """Appends files to a table's `main`; safe beside other writers.

        Args:
            table: The table's name.
            files: Parquet files that lie in the table's folder, synced.
            properties: Recorded in the snapshot's summary.
            once: The property by which this commit is known: one that was made is not made again.
            base: The snapshot since which nobody may have changed the table's rows, 0 for a table without any.

        Returns:
            The new snapshot's id; None if the commit was made before.

        Raises:
            CommitConflict: Other writers came first, more often than is retried, or have changed what `base` is.
            DamagedFile: A file to add is gone or has another size than was written.
        """
        from stedi.catalog.transactions import Transaction

        def still(metadata: TableMetadata) -> None:
            snapshots = {snapshot.snapshot_id: snapshot for snapshot in metadata.snapshots}
            if once is not None:
                told = (s.summary.additional_properties for s in metadata.snapshots if s.summary)
                if any(summary.get(once) == properties[once] for summary in told):
                    raise _Made
            if base is None:
                return
            head = metadata.current_snapshot_id or 0
            while head != base and head in snapshots and _keeps_rows(snapshots[head]):
                head = snapshots[head].parent_snapshot_id or 0
            if head != base:
                raise CommitConflict(
                    f"Cannot commit to {table}: another landing or an erasure came first. Run the command again."
                )

        try:
            with self._queue.table(table) as iceberg:
                transaction = Transaction(iceberg, still)
                producer = transaction.update_snapshot(snapshot_properties=dict(properties)).fast_append()
                return self._queue.commit(table, self.folder(table), transaction, producer, files)
        except _Made:  # by whoever took over from this process
            return None

    def fence(self, run: str) -> None:
        """Has every landing that was planned before now fail, and be planned anew, in a lake whose locks can be lost.

        Whoever removes files that no snapshot uses does so first: a landing that was stopped may have written them, and
        commit them when it goes on. A build needs no fence: it commits twice, and its branches are dropped with its
        files.

        Args:
            run: Tells what does so.
        """
        if self.remote:
            self.append("landed_files", (), {"stedi.fence": run}, once="stedi.fence")

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
            DamagedFile: A file to add is gone or has another size than was written.
        """
        with self._queue.table(table) as iceberg:
            current = iceberg.metadata.current_snapshot_id
            if current != base:
                raise CommitConflict(
                    f"Cannot stage {table}: main has moved: expected snapshot {base}, found {current}. "
                    "Run `stedi build` again."
                )
            from pyiceberg.table.update.snapshot import ManageSnapshots

            from stedi.catalog.transactions import Overwrite, Transaction

            transaction = Transaction(iceberg)
            leaving = set(removed)
            ManageSnapshots(transaction).create_branch(base, branch).commit()
            update = transaction.update_snapshot(snapshot_properties=dict(properties), branch=branch)
            producer = Overwrite(transaction, properties, branch) if leaving else update.fast_append()
            return self._queue.commit(table, self.folder(table), transaction, producer, added, leaving)

    def publish(self, table: str, *, branch: str, staged: int, base: int) -> None:
        """Makes a staged snapshot `main` and drops its branch, in one step, if `main` is still `base`.

        Raises:
            CommitConflict: `main` has moved; nothing was changed.
        """
        from pyiceberg.exceptions import CommitFailedException
        from pyiceberg.table.refs import SnapshotRefType
        from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate, SetSnapshotRefUpdate

        try:
            self._queue.change(
                table,
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

        self._queue.change(
            table,
            (AssertRefSnapshotId.model_validate({"ref": branch, "snapshot-id": head}),),
            # the branch goes with its snapshot; a snapshot without its files would be a trap for time travel
            (RemoveSnapshotsUpdate.model_validate({"snapshot-ids": [head]}),),
        )

    def replace(
        self,
        table: str,
        added: Iterable[DataFile],
        removed: Iterable[str],
        properties: Mapping[str, str],
        *,
        base: int,
    ) -> int:
        """Puts files in the place of others that have the same rows, and one manifest in the place of all.

        Args:
            table: The table's name.
            added: Parquet files that lie in the table's folder, synced.
            removed: Paths of data files of `base` that leave; their rows are those of `added`.
            properties: Recorded in the snapshot's summary.
            base: The snapshot that the files were read from.

        Returns:
            The new snapshot's id.

        Raises:
            CommitConflict: `main` is no longer `base`.
        """
        with self._queue.table(table) as iceberg:
            if iceberg.metadata.current_snapshot_id != base:
                raise CommitConflict(f"Cannot compact {table}: main has moved. Run `stedi maintain` again.")
            from stedi.catalog.transactions import ReplaceFiles, Transaction

            transaction = Transaction(iceberg)
            producer = ReplaceFiles(transaction, properties)
            return self._queue.commit(table, self.folder(table), transaction, producer, added, removed)

    def erase(self, table: str, changes: Sequence[Erasing], *, base: int) -> None:
        """Puts files in the place of others, some of whose rows leave for good; no manifest tells of those any more.

        Snapshots that know the files which left are still there afterwards: `expire` drops them.

        Args:
            table: The table's name.
            changes: What becomes of its snapshots, in one commit: of `base`, and of those that tags and branches of
                others name.
            base: The snapshot that is `main`.

        Raises:
            CommitConflict: `main` is no longer `base`, or a tag or branch has moved meanwhile.
        """
        moved = CommitConflict(f"Cannot erase from {table}: it has moved. Run `stedi erase --resume`.")
        with self._queue.table(table) as iceberg:
            if iceberg.metadata.current_snapshot_id != base:
                raise moved
            from stedi.catalog.transactions import EraseFiles, Transaction

            def still(metadata: TableMetadata) -> None:
                if metadata is not iceberg.metadata and any(change.refs for change in changes):
                    raise moved

            transaction = Transaction(iceberg, still)
            known = {name: ref.snapshot_id for name, ref in iceberg.metadata.refs.items()}
            made, refs = list[Change](), dict[str, int]()
            for place, change in enumerate(changes):
                if any(known.get(name) != change.snapshot for name in change.refs):
                    raise moved
                of = None if change.snapshot == base else change.snapshot
                made.append(Change(EraseFiles(transaction, change.properties, of), change.added, change.removed, of))
                refs.update(dict.fromkeys(change.refs, place))
            self._queue.commit_together(table, self.folder(table), transaction, made, refs)

    def tag(self, table: str, name: str, snapshot: int) -> None:
        """Has a new tag pin a snapshot of a table.

        Raises:
            CommitConflict: Somebody else has made a tag or branch of that name, or the snapshot is gone.
        """
        from pyiceberg.exceptions import CommitFailedException
        from pyiceberg.table.refs import SnapshotRefType
        from pyiceberg.table.update import AssertRefSnapshotId, SetSnapshotRefUpdate

        try:
            self._queue.change(
                table,
                (AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": None}),),
                (
                    SetSnapshotRefUpdate.model_validate(
                        {"ref-name": name, "type": SnapshotRefType.TAG, "snapshot-id": snapshot}
                    ),
                ),
            )
        except (CommitFailedException, ValueError) as error:
            raise CommitConflict(f"Cannot tag {table}: another program came first. Run the command again.") from error

    def untag(self, table: str, name: str, snapshot: int) -> None:
        """Drops a tag, if it still pins a snapshot; `expire` drops that when nothing else names it.

        Raises:
            CommitConflict: It pins another.
        """
        from pyiceberg.exceptions import CommitFailedException
        from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate

        try:
            self._queue.change(
                table,
                (AssertRefSnapshotId.model_validate({"ref": name, "snapshot-id": snapshot}),),
                (RemoveSnapshotRefUpdate.model_validate({"ref-name": name}),),
            )
        except CommitFailedException as error:
            raise CommitConflict(f"Cannot untag {table}: another program came first. Run the command again.") from error

    def vouch(self, state: TableState) -> None:
        """Notes the checksum of metadata in which another program has changed tags and branches of its own alone.

        The earlier metadata that they can be compared with may go then.
        """
        from stedi.catalog.pins import is_ours_but_for_pins

        folder, path = self.folder(state.name), snapshots.local_path(state.metadata[-1])
        if checksums.expected(folder, [path]) or not is_ours_but_for_pins(folder, path):
            return
        with self._queue.alone():
            checksums.record(folder, [(checksums.name_in(folder, path), checksums.digest(path)[0])])
            checksums.publish(folder, checksums.name_in(folder, path))

    def vacuum(self) -> None:
        """Writes the catalog's file anew, so that no page of it holds what was deleted; commits wait meanwhile."""
        if self.remote:
            return
        with self._queue.alone():
            snapshots.vacuum(self.path)
            durable.sync(self.root)

    def expire(
        self, table: str, snapshots: Iterable[int], branches: Iterable[str] = (), *, base: int | None = None
    ) -> None:
        """Drops snapshots and branches; their files stay on disk.

        Args:
            table: The table's name.
            snapshots: Ids of live snapshots; a branch or tag that one of them is the head of goes with it.
            branches: Names of further branches.
            base: The snapshot that is `main`, if that may not move meanwhile.

        Raises:
            CommitConflict: `main` is no longer `base`; nothing was changed.
        """
        from pyiceberg.exceptions import CommitFailedException
        from pyiceberg.table.update import AssertRefSnapshotId, RemoveSnapshotRefUpdate, RemoveSnapshotsUpdate

        main = {"ref": "main", "snapshot-id": base}
        try:
            self._queue.change(
                table,
                (AssertRefSnapshotId.model_validate(main),) if base is not None else (),
                (
                    *(RemoveSnapshotRefUpdate.model_validate({"ref-name": name}) for name in branches),
                    RemoveSnapshotsUpdate.model_validate({"snapshot-ids": list(snapshots)}),
                ),
            )
        except CommitFailedException as error:
            raise CommitConflict(f"Cannot expire in {table}: main has moved. Run `stedi maintain` again.") from error

    def prune(self, table: str) -> None:
        """Removes the checksums of files that are gone; this program's commits wait meanwhile."""
        folder = self.folder(table)
        with self._queue.alone():
            there = {checksums.name_in(folder, entry.path) for entry in durable.entries(folder)}
            checksums.prune(folder, there.__contains__)

    def restore(self) -> tuple[str, ...]:
        """Points the catalog at what was published last, where it is damaged, gone or older than its tables.

        Returns:
            The tables whose entries were set; others of a damaged catalog are missing afterwards.
        """
        if self.remote:
            return ()
        with self._queue.alone():
            found = dict[str, str]()
            if snapshots.whole(self.path):
                found = snapshots.listed(self.path)
            else:
                for path in self.root.glob(f"{self.path.name}*"):
                    path.rename(path.with_name(f"damaged-{path.name}"))
            self._pointers.create()
            self.path.chmod(durable.readable(self.root))
            behind = []
            for name in ALL_ZONES:
                newest = checksums.published(self.folder(name))
                if newest and (name not in found or snapshots.behind(found[name], newest)):
                    if name in found:
                        self._pointers.drop(name)
                    self._pointers.enter({name: uri(self.folder(name) / newest)})
                    behind.append(name)
        return tuple(behind)

    def clear(self, table: str, *, keeping: Iterable[int]) -> None:
        """Makes a table anew, empty, but for some snapshots that tags and branches of others name.

        Args:
            table: The table's name.
            keeping: Ids of the snapshots that stay; every other is dropped, and what names it.
        """
        with self._queue.table(table) as iceberg:
            from stedi.catalog.transactions import NoFiles, Transaction

            transaction = Transaction(iceberg)
            self._queue.commit(table, self.folder(table), transaction, NoFiles(transaction), ())
        state = self.table(table)
        stay = {*keeping, state.current.id if state.current else 0}
        self.expire(table, [snapshot.id for snapshot in state.snapshots if snapshot.id not in stay])

    def renew(self, tables: Iterable[str]) -> None:
        """Makes tables anew, empty; their files and snapshots are gone."""
        found = self.listed()
        for table in tables:
            if table in found:
                (self.remote or self._pointers).drop(table)
            durable.remove_tree(self.folder(table))
        self.create()

    def warm(self) -> None:
        """Imports what a commit needs, so that it can happen beside other work."""
        self._queue.warm()


class _Made(Exception):
    """A commit was made before."""


def _keeps_rows(snapshot: IcebergSnapshot) -> bool:
    """Says whether a snapshot, a compaction's, has the rows of the one before it."""
    return snapshot.summary is not None and snapshot.summary.operation.value == "replace"
