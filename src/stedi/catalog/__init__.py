"""Iceberg: load, scan, append, stage, publish. Nothing commits to a table but this package.

Reading goes through `snapshots`, every commit through `committer`; PyIceberg is imported only for a lake in a bucket. A
table moves in two ways only: rows are appended to `main` (landing), or a snapshot worked out from `main` takes its
place if nothing else has meanwhile (builds). In a folder the tables of a build change in one step; for one in a bucket
each is staged on a branch and then published.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from stedi._frozen import dataclass
from stedi.catalog import checksums, configuration, hint, manifests, metadata, new_table, snapshots
from stedi.catalog.changes import Change
from stedi.catalog.committer import Commit, Committer
from stedi.catalog.local import Local
from stedi.catalog.remote import Remote
from stedi.catalog.snapshots import Snapshot, TableState, data_files, read_catalog, read_metadata, uri
from stedi.catalog.sqlite import Pointers
from stedi.errors import CommitConflict, LakeError
from stedi.schema.tables import ALL_ZONES, COLUMNS, NAMESPACE, DataFile
from stedi.storage import durable, s3

__all__ = ["Catalog", "Change", "Erasing", "Snapshot", "TableState"]

_PROPERTIES = {
    "format-version": "2",
    "write.parquet.compression-codec": "zstd",
    # for engines that delete here: with `snapshot`, rows appended meanwhile survive a delete that should have met them
    "write.delete.isolation-level": "serializable",
    "write.metadata.previous-versions-max": "10",
    # no bounds: those of a text, such as an address, are values of people
    "write.metadata.metrics.default": "counts",
}

_PATIENCE = 30
"""Seconds to wait for another writer of the catalog's file; each holds it for milliseconds."""


@dataclass(frozen=True, slots=True)
class Erasing:
    """The change that an erasure makes to one snapshot of a table.

    Attributes:
        snapshot: The snapshot's id.
        added: Parquet files that lie in the table's folder, synced; snapshots may share them.
        removed: Paths of data files that leave the snapshot.
        properties: Recorded in the new snapshot's summary.
        refs: Tags and branches that move from the snapshot to the new one.
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
        self._committer = Committer(root, self.remote or Local(self._pointers))

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
        """Creates the catalog and missing tables, by default those of every lake."""
        if self.remote:
            known = self.remote.listed()
            new = [name for name in tables if name not in known]
            paths = s3.each(lambda name: new_table.empty(self.folder(name), name, _PROPERTIES), new)
            self.remote.enter({name: str(path) for name, path in paths})
            return
        # files first, entries last: a creation that dies leaves files without an entry, and the next one makes others
        with self._committer.answering("a new lake"):
            self._pointers.create()
            missing = [name for name in tables if self._pointers.location(name) is None]
            made = {name: new_table.empty(self.folder(name), name, _PROPERTIES) for name in missing}
            self._pointers.enter({name: uri(path) for name, path in made.items()})
        for name, path in made.items():
            checksums.publish(self.folder(name), f"{path.parent.name}/{path.name}")
            hint.write(path)
        # SQLite creates the file under the umask
        self.path.chmod(durable.readable(self.root))

    def folder(self, table: str) -> Path:
        """Returns the folder of a table's files."""
        return self.root / ALL_ZONES[table] / table

    def tables(self) -> dict[str, TableState]:
        """Returns the current state of every table, in the order of the data flow.

        Raises:
            LakeError: The catalog or a table's metadata cannot be read.
        """
        found = self._states()
        if self.remote and not found:
            raise LakeError(
                f"{self.root}: expected the lake's tables in the catalog's database {NAMESPACE}, found none: this "
                "is a copy, which cannot be used, or another catalog is configured than the lake was made with; "
                "use the original lake, or configure the catalog with its tables"
            )
        return {name: found[name] for name in ALL_ZONES if name in found}

    def table(self, name: str) -> TableState:
        """Returns the state of one table now.

        Raises:
            LakeError: There is no such table, or it cannot be read.
        """
        # one entry is asked for, not the list: in a bucket that is a request for each table
        if self.remote is not None:
            location = self.remote.location(name)
            found = {} if location is None else {name: snapshots.read_table(name, location)}
        else:
            found = read_catalog(self.path, [name])
        if name not in found:
            raise LakeError(f"no table {name}: expected one of {', '.join(self.listed())}")
        return found[name]

    def _states(self) -> dict[str, TableState]:
        if self.remote is None:
            return read_catalog(self.path)
        found = self.remote.listed()
        return dict(s3.each(lambda name: snapshots.read_table(name, found[name]), found))

    def files(self, state: TableState, snapshot: Snapshot | None = None) -> tuple[DataFile, ...]:
        """Returns the data files of a table's snapshot, by default of its current one, to be read.

        Raises:
            LakeError: A manifest cannot be read.
            DamagedFile: A file is gone or has another size than was written.
        """
        return manifests.there(state.name, data_files(state.name, snapshot or state.current))

    def added(self, state: TableState, snapshots: Iterable[Snapshot]) -> tuple[DataFile, ...]:
        """Returns the data files that some append snapshots of a table have added."""
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
            once: The property that identifies this commit, so that it is never made twice.
            base: The snapshot since which the table's rows must be unchanged, 0 for a table without any.

        Returns:
            The new snapshot's id; None if the commit was made before.

        Raises:
            CommitConflict: Other writers came first, more often than is retried, or have changed what `base` is.
            DamagedFile: A file to add is gone or has another size than was written.
        """
        conflict = f"Cannot commit to {table}: another landing or an erasure came first. Run the command again."

        def planned(state: TableState) -> Commit:
            # a commit whose answer was lost, or whose process died after it, is there: repeating it would double the
            # rows
            if once is not None and any(s.summary.get(once) == properties[once] for s in state.snapshots):
                raise _Made
            # compactions in between change no row, so what was planned is still right
            if base is not None and all(head != base for head in _same_rows(state)):
                raise CommitConflict(conflict)
            head = state.current.id if state.current else None
            change = Change("append", head, tuple(files), properties=properties)
            return Commit({"main": head}, (change,), {"main": change.id})

        files = tuple(files)
        try:
            [made] = self._committer.commit(table, planned, lambda state: conflict)
            return made
        except _Made:  # by the process that took over from this one
            return None

    def fence(self, run: str) -> None:
        """Makes every landing that was planned earlier fail and start again, in a lake whose locks can be lost.

        Commands call this before they remove unused files: a suspended landing may have written these, and would commit
        them when it continues. Builds need no fence: they stage first, and their branches are dropped with their files.

        Args:
            run: Id of the calling run.
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
        leaving = frozenset(removed)
        change = Change("overwrite" if leaving else "append", base, tuple(added), leaving, properties)
        self._stage(table, change, branch)
        return change.id

    def _stage(self, table: str, change: Change, branch: str) -> None:
        commit = Commit({"main": change.parent, branch: None}, (change,), {branch: change.id})
        self._committer.commit(table, partial(_as_is, commit), partial(_moved, "stage", table, change.parent))

    def publish(self, table: str, *, branch: str, staged: int, base: int) -> None:
        """Makes a staged snapshot `main` and drops its branch, in one step, if `main` is still `base`.

        Raises:
            CommitConflict: `main` has moved; nothing was changed.
        """
        # Iceberg itself lets `main` move to any snapshot, also to one that lacks what was committed meanwhile
        commit = Commit({"main": base, branch: staged}, refs={"main": staged, branch: None})
        self._committer.commit(table, lambda state: commit, partial(_moved, "publish", table, base))

    def publish_all(self, changes: Mapping[str, Change], *, branch: str) -> None:
        """Makes changes to several tables their `main`, if that is still what each was worked out from.

        In a folder all tables change in one step or none does. A catalog elsewhere commits to one table at a time:
        there every change is staged to a branch before the first is published.

        Args:
            changes: What becomes of each table; `parent` is the snapshot that it was worked out from.
            branch: The name of such branches, new.

        Raises:
            CommitConflict: `main` of a table has moved.
            DamagedFile: A file to add is gone or has another size than was written.
        """
        if self.remote:
            self._publish_each(changes, branch)
            return
        commits = {name: Commit({"main": made.parent}, (made,), {"main": made.id}) for name, made in changes.items()}
        self._committer.commit_all(
            {name: partial(_as_is, commit) for name, commit in commits.items()},
            lambda state: _moved("publish", state.name, changes[state.name].parent, state),
        )

    def _publish_each(self, changes: Mapping[str, Change], branch: str) -> None:
        for name, made in changes.items():
            self._stage(name, made, branch)
        for name, made in changes.items():
            assert made.parent is not None, "a change is of a snapshot"
            self.publish(name, branch=branch, staged=made.id, base=made.parent)

    def discard(self, table: str, branch: str) -> None:
        """Drops a branch that will not be published, with its snapshot, if it is there."""
        # without the lock: most discards find nothing, and a commit would wait for others
        if branch not in self.table(table).branches:
            return

        def planned(state: TableState) -> Commit:
            head = state.branches.get(branch)
            # the branch is dropped with its snapshot; time travel to a snapshot without files would fail
            return Commit({branch: head}, dropped=() if head is None else (head,))

        self._committer.commit(table, planned, lambda state: f"Cannot discard {branch} of {table}: it has moved.")

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
        change = Change("replace", base, tuple(added), frozenset(removed), properties)
        commit = Commit({"main": base}, (change,), {"main": change.id})
        conflict = f"Cannot compact {table}: main has moved. Run `stedi maintain` again."
        self._committer.commit(table, lambda state: commit, lambda state: conflict)
        return change.id

    def erase(self, table: str, changes: Sequence[Erasing], *, base: int) -> None:
        """Replaces files whose rows leave for good, in part; no manifest mentions the old files afterwards.

        Snapshots with the old files still exist afterwards: `expire` drops them.

        Args:
            table: The table's name.
            changes: The changes to its snapshots, in one commit: to `base`, and to those of tags and foreign branches.
            base: The snapshot that is `main`.

        Raises:
            CommitConflict: `main` is no longer `base`, or a tag or branch has moved meanwhile.
        """
        expected: dict[str, int | None] = {"main": base}
        refs: dict[str, int | None] = {}
        made = []
        for erasing in changes:
            change = Change("erase", erasing.snapshot, erasing.added, frozenset(erasing.removed), erasing.properties)
            made.append(change)
            # a tag that moved meanwhile would keep the old files, and with them the rows
            expected |= dict.fromkeys(erasing.refs, erasing.snapshot)
            refs |= dict.fromkeys((*erasing.refs, *(["main"] if erasing.snapshot == base else ())), change.id)
        commit = Commit(expected, tuple(made), refs)
        conflict = f"Cannot erase from {table}: it has moved. Run `stedi erase --resume`."
        self._committer.commit(table, lambda state: commit, lambda state: conflict)

    def tag(self, table: str, name: str, snapshot: int) -> None:
        """Creates a tag for a snapshot of a table.

        Raises:
            CommitConflict: A tag or branch of that name exists, or the snapshot has expired.
        """
        conflict = f"Cannot tag {table}: another program came first. Run the command again."

        def planned(state: TableState) -> Commit:
            if state.snapshot(snapshot) is None:
                raise CommitConflict(conflict)
            return Commit({name: None}, refs={name: snapshot}, kind="tag")

        self._committer.commit(table, planned, lambda state: conflict)

    def untag(self, table: str, name: str, snapshot: int) -> None:
        """Drops a tag, if it still pins a snapshot; `expire` drops that when nothing else names it.

        Raises:
            CommitConflict: It pins another.
        """
        commit = Commit({name: snapshot}, refs={name: None})
        conflict = f"Cannot untag {table}: another program came first. Run the command again."
        self._committer.commit(table, lambda state: commit, lambda state: conflict)

    def undescribed(self) -> tuple[str, ...]:
        """Returns the tables whose schema has no or outdated descriptions of columns."""
        from stedi.schema.descriptions import comments

        states = self._states().values()
        return tuple(s.name for s in states if metadata.describing(read_metadata(s.metadata[-1]), comments(s.name)))

    def describe(self, table: str) -> None:
        """Writes this version's descriptions of columns to a table's schema; rows and snapshots do not change."""
        from stedi.schema.descriptions import comments

        self._committer.commit(table, lambda state: Commit({}, comments=comments(table)), lambda state: "")

    def vouch(self, state: TableState) -> None:
        """Records the checksum of metadata in which another program has changed only its own tags and branches.

        The earlier metadata for comparison may be removed then.
        """
        from stedi.catalog.pins import is_ours_but_for_pins

        folder, path = self.folder(state.name), snapshots.local_path(state.metadata[-1])
        # without a checksum here, the next comparison would need the file that these metadata were compared with
        if checksums.expected(folder, [path]) or not is_ours_but_for_pins(folder, path):
            return
        with self._committer.alone():
            checksums.record(folder, [(checksums.name_in(folder, path), checksums.digest(path)[0])])
            checksums.publish(folder, checksums.name_in(folder, path))

    def vacuum(self) -> None:
        """Rewrites the catalog's file so that no page contains deleted data; commits wait for it."""
        if self.remote:
            return
        with self._committer.alone():
            snapshots.vacuum(self.path)
            durable.sync(self.root)

    def expire(
        self, table: str, snapshots: Iterable[int], branches: Iterable[str] = (), *, base: int | None = None
    ) -> None:
        """Drops snapshots and branches; their files stay on disk.

        Args:
            table: The table's name.
            snapshots: Ids of live snapshots; branches and tags whose head is one of them are dropped, too.
            branches: Names of further branches.
            base: The snapshot that `main` must still be, if it matters.

        Raises:
            CommitConflict: `main` is no longer `base`; nothing was changed.
        """
        gone, unnamed = set(snapshots), dict.fromkeys(branches)
        expected = {} if base is None else {"main": base}

        def planned(state: TableState) -> Commit:
            return Commit(expected, refs=unnamed, dropped=tuple(s.id for s in state.snapshots if s.id in gone))

        conflict = f"Cannot expire in {table}: main has moved. Run `stedi maintain` again."
        self._committer.commit(table, planned, lambda state: conflict)

    def prune(self, table: str) -> None:
        """Removes the checksums of removed files; this program's commits wait for it."""
        folder = self.folder(table)
        with self._committer.alone():
            # listed under the lock: a commit's lines come before its files are named, and must not be taken for
            # leftovers
            there = {checksums.name_in(folder, entry.path) for entry in durable.walk(folder)}
            checksums.prune(folder, there.__contains__)

    def restore(self) -> tuple[str, ...]:
        """Points the catalog to the last published state if it is damaged, missing or older than its tables.

        Returns:
            The tables whose entries were set; others of a damaged catalog are missing afterwards.
        """
        if self.remote:
            return ()
        with self._committer.alone():
            found = dict[str, str]()
            if snapshots.whole(self.path):
                found = snapshots.listed(self.path)
            else:
                # with its journals, or SQLite would apply them to the new file
                for path in self.root.glob(f"{self.path.name}*"):
                    # put aside, not removed: other programs' tables can be in the same file
                    path.rename(path.with_name(f"damaged-{path.name}"))
            self._pointers.create()
            self.path.chmod(durable.readable(self.root))
            behind = []
            for name in ALL_ZONES:
                newest = checksums.published(self.folder(name))
                if newest and (name not in found or snapshots.behind(found[name], newest)):
                    # killed between the two, the entry is missing, and the next repair sets it
                    if name in found:
                        self._pointers.drop(name)
                    self._pointers.enter({name: uri(self.folder(name) / newest)})
                    hint.write(self.folder(name) / newest)
                    behind.append(name)
        return tuple(behind)

    def clear(self, table: str, *, keeping: Iterable[int]) -> None:
        """Recreates a table, empty except for some snapshots of tags and foreign branches.

        Args:
            table: The table's name.
            keeping: Ids of the snapshots that stay; all others are dropped with their tags and branches.
        """

        def planned(state: TableState) -> Commit:
            change = Change("overwrite", None)
            return Commit({"main": state.current.id if state.current else None}, (change,), {"main": change.id})

        # first the empty state, then the old ones go: readers find either, whatever dies in between
        self._committer.commit(table, planned, lambda state: f"Cannot clear {table}: main has moved.")
        state = self.table(table)
        # the new empty snapshot has to stay: a table has a `main`
        stay = {*keeping, state.current.id if state.current else 0}
        self.expire(table, [snapshot.id for snapshot in state.snapshots if snapshot.id not in stay])

    def renew(self, tables: Iterable[str]) -> None:
        """Recreates tables, empty; their files and snapshots are gone."""
        found = self.listed()
        for table in tables:
            # the entry goes first: an entry without files would be damage, files without an entry are made anew
            if table in found:
                (self.remote or self._pointers).drop(table)
            durable.remove_tree(self.folder(table))
        self.create()

    def warm(self) -> None:
        """Imports what a commit needs, so that it can happen beside other work."""
        self._committer.warm()


class _Made(Exception):
    """A commit was made before."""


def _same_rows(state: TableState) -> Iterator[int]:
    """Yields the ids of snapshots with the rows of `main`, newest first: only compactions lie between them."""
    head = state.current.id if state.current else 0
    while True:
        yield head
        snapshot = state.snapshot(head)
        if snapshot is None or snapshot.operation != "replace":
            return
        head = snapshot.parent or 0


def _as_is(commit: Commit, state: TableState) -> Commit:
    """Returns a commit that does not depend on the table's state."""
    return commit


def _moved(what: str, table: str, base: int | None, state: TableState) -> str:
    """Returns the error for a build's change to a table that has changed since."""
    found = state.current.id if state.current else None
    return f"Cannot {what} {table}: main has moved: expected snapshot {base}, found {found}. Run `stedi build` again."
