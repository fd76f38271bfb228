"""Maintenance, table by table: compacts small files, expires snapshots, removes unused files; no row changes.

Each table is worked on under the locks of the commands that write it. Its small files are rewritten into larger ones
and committed as one snapshot; then old snapshots expire; then files that no snapshot uses are unlinked. Commits
come first and unlinking last, so what dies on the way leaves whole tables, and the next maintenance does the rest.

Beside it lie the other works on a whole lake: `key_rotation` gives it another key, `adoption` makes a copy a lake of
its own, `repair` puts a damaged catalog in order.
"""

from __future__ import annotations

import json
import shutil
import stat
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path

from stedi.catalog import Catalog, Snapshot, TableState, checksums, orphans
from stedi.catalog.orphans import Unused, unused
from stedi.catalog.snapshots import manifests
from stedi.context import Context, access, runs
from stedi.context.progress import Progress, run_id, silent
from stedi.engines import LEAVING
from stedi.engines.rewrite import RewriteTask, rewrite
from stedi.engines.workers import Threads, Workers
from stedi.errors import LakeError, many
from stedi.landing import journal
from stedi.operations.maintenance.compaction import Compaction, due
from stedi.operations.maintenance.report import Maintained, Maintenance, Removed
from stedi.query import withdrawn
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, ZONES, DataFile
from stedi.storage import durable, s3
from stedi.storage.durable import Command

__all__ = ["Maintained", "Maintenance", "Progress", "Removed", "maintain", "overdue"]


def preview(context: Context) -> Maintenance:
    """Returns what `maintain` would do; takes no lock, so a command at work can change it."""
    work = _Run(context, None)
    tables = tuple(work.foreseen(name) for name in _tables(context.catalog))
    return Maintenance("", tables, _total(work.temporary()), access.trim(context, dry_run=True))


def maintain(
    context: Context,
    *,
    progress: Progress = silent,
    workers: Workers | None = None,
) -> Maintenance:
    """Compacts small files, expires old snapshots and removes what nothing uses; every table keeps its rows.

    The caller keeps other maintenance waiting. Landings and builds wait for one table at a time.

    Args:
        context: The lake; its key is needed if a landing was interrupted, to finish it.
        progress: Called with the current step and its completed share.
        workers: The workers that rewrite files; by default this process.

    Raises:
        CommitConflict: Somebody outside this program moved a table meanwhile.
        KeyRefused: A landing was interrupted, and the lake's key is not at hand; nothing was changed.
        LakeError: A table's files lie outside the lake's folder or cannot be read; nothing of it was removed.
    """
    work, done = _Run(context, workers), []
    names = _tables(context.catalog)
    for number, name in enumerate(names):
        progress(f"maintain {name}, {number + 1} of {len(names)}", number / len(names))
        # a build reads landing tables: it must not lose a file that it has pinned
        writers: tuple[Command, ...] = ("build", "land") if ALL_ZONES[name] == "landing" else ("build",)
        with context.locked(*writers, progress=progress):
            done.append(work.table(name))
    with context.locked("build", "land", progress=progress):
        temporary = work.temporary()
        for path in temporary:
            _remove(path)
    trimmed = access.trim(context)
    runs.trim(context.root)
    return Maintenance(work.run, tuple(done), _total(temporary), trimmed)


def overdue(context: Context, states: Mapping[str, TableState], name: str, at: int) -> frozenset[int]:
    """Returns the snapshots of a table that maintenance at an instant would have expired, and that are still there.

    Args:
        context: The lake.
        states: All tables.
        name: The table.
        at: The instant, epoch milliseconds.
    """
    return _Run(context, None).expired(states, name, at)


def _tables(catalog: Catalog) -> list[str]:
    known = catalog.listed()
    return [name for name in ALL_ZONES if name in known]


class _Run:
    """One maintenance, from table to table."""

    def __init__(self, context: Context, workers: Workers | None) -> None:
        self.run = run_id()
        self._catalog, self._config, self._root = context.catalog, context.config, context.root
        self._context, self._workers = context, workers
        self._grace = self._config.grace_hours * 3600

    def table(self, name: str) -> Maintained:
        """Maintains one table; the caller holds the locks of the commands that write it."""
        catalog = self._catalog
        if ALL_ZONES[name] == "landing":
            journal.finish(self._context)  # its files are in no snapshot yet
        compaction = self._compaction(catalog.table(name))
        if compaction.manifests:
            self._compact(name, compaction)
        states = catalog.tables()
        state = states[name]
        expired, branches = self.expired(states, name, time.time() * 1000), orphans.abandoned_branches(state)
        # before files are looked for: those of what expires are unused from now on
        if (expired or branches) and state.current:
            catalog.expire(name, expired, branches, base=state.current.id)
            state = catalog.table(name)
        catalog.vouch(state)
        before = time.time() - self._grace
        removed = unused(state, catalog.folder(name), before=before, seen=before)
        # a suspended landing may still want to commit files that look unused: the fence makes it fail
        if catalog.remote and ALL_ZONES[name] == "landing" and any(file.kind == "data" for file in removed):
            catalog.fence(f"{self.run}-{name}")
            journal.finish(self._context)  # one of the last moment, if there is any
            removed = unused(catalog.table(name), catalog.folder(name), before=before, seen=before)
        durable.remove_all(file.path for file in removed)
        folder = catalog.folder(name)
        there = {checksums.name_in(folder, entry.path) for entry in durable.walk(folder)}
        if not there.issuperset(checksums.recorded(folder)):
            catalog.prune(name)
        _prune(folder / "data")
        return _outcome(name, compaction, expired, removed)

    def foreseen(self, name: str) -> Maintained:
        """Returns what `table` would do now."""
        states = self._catalog.tables()
        state, now = states[name], time.time()
        compaction = self._compaction(state)
        expired = self.expired(states, name, now * 1000, compacted=bool(compaction.manifests))
        # files of snapshots that expire now are removed after the grace time
        without = frozenset() if self._grace else expired
        before = now - self._grace
        removed = unused(state, self._catalog.folder(name), before=before, seen=before, without=without)
        stay = {file.path for file in self._catalog.files(state)} - {file.path for file in compaction.leaving}
        stay |= journal.named(self._root / "pending")
        stay = {durable.realpath(path) for path in stay}
        return _outcome(name, compaction, expired, [file for file in removed if str(file.path) not in stay])

    def temporary(self) -> dict[Path, Removed]:
        """Returns leftovers of commands outside of the tables that no running command holds."""
        before = time.time() - self._grace
        found = {}
        partial = (entry for entry in _entries(self._root) if entry.suffix == ".partial")
        for entry in [*_entries(durable.scratch(self._root)), *partial]:
            with suppress(FileNotFoundError):  # its command has just ended, and removed it
                folder = entry.is_dir() and not entry.is_symlink()
                states = {path: path.lstat() for path in ([entry, *entry.rglob("*")] if folder else [entry])}
                old = all(status.st_mtime <= before for status in states.values())
                if old and not (folder and durable.is_held(entry)):
                    sizes = [status.st_size for status in states.values() if not stat.S_ISDIR(status.st_mode)]
                    found[entry] = Removed(len(sizes), sum(sizes))
        return found

    def _compaction(self, state: TableState) -> Compaction:
        listed = len(manifests(state.name, state.current)) if state.current else 0
        return due(self._catalog.files(state), listed, self._config.target_bytes)

    def _compact(self, name: str, compaction: Compaction) -> None:
        """Writes a file for each group and commits all of them in one snapshot."""
        catalog, current = self._catalog, self._catalog.table(name).current
        assert current is not None, "a table with files has a snapshot"
        folder = catalog.folder(name) / "data" / self.run
        try:
            rewritten = self._rewritten(name, compaction.groups, folder, current.total("records"))
            for group, files in zip(compaction.groups, rewritten, strict=True):
                expected, found = (sum(file.rows for file in side) for side in (group, files))
                if found != expected:
                    raise LakeError(
                        f"{name}: expected {many(expected, 'row')} in its small files, found {found}: one is damaged; "
                        "nothing was changed. See docs/operations.md on recovery"
                    )
            durable.sync(folder.parent)
            # the lineage is still valid: the rows are the same
            lineage = {key: value for key, value in current.summary.items() if key.startswith("stedi.")}
            properties = {**lineage, "stedi.maintained": self.run}
            added = [file for files in rewritten for file in files]
            leaving = [file.path for file in compaction.leaving]
            catalog.replace(name, added, leaving, properties, base=current.id)
        except BaseException:
            # a failed clean-up must not hide the first error; its leftovers are removed later
            with suppress(Exception):
                if not any(s.summary.get("stedi.maintained") == self.run for s in catalog.table(name).snapshots):
                    durable.remove_tree(folder)
            raise

    def _rewritten(
        self, name: str, groups: Sequence[tuple[DataFile, ...]], folder: Path, of: int
    ) -> list[tuple[DataFile, ...]]:
        """Writes a file for each group: one thread makes one file."""
        home = self._catalog.folder(name)
        # a customer's rows stay together, as written by a build
        order = " order by 1, 2" if ALL_COLUMNS[name][0].name == "customer_id" else ""
        workers, scratch = (self._workers, None) if self._workers else (Threads(1), durable.scratch(self._root))
        task = partial(RewriteTask, name, sql=f"select * from {LEAVING}{order}", folder=folder, of=of, home=home)
        parts = [task(files=group, memory=self._config.engine_memory, scratch=scratch) for group in groups]
        return rewrite(workers, parts)

    def expired(
        self, states: Mapping[str, TableState], name: str, now: float, *, compacted: bool = False
    ) -> frozenset[int]:
        """Returns the snapshots that are no longer needed, and those that a killed command has staged.

        Args:
            states: All tables.
            name: The table.
            now: The time, epoch milliseconds.
            compacted: Count as if the current snapshot were replaced by another now.
        """
        state = states[name]
        oldest = now - self._config.keep_days * 86_400_000
        history = state.history()
        watermarks = _watermarks(states, name)
        # a build compares its inputs with what they were: it needs the watermark and all that followed
        needed = max((n for n, snapshot in enumerate(history) if snapshot.id in watermarks), default=-1)
        ours = orphans.abandoned_branches(state)
        keep = set(state.pins.values())
        over = self._over(states, name, history, now)
        ends = now if compacted else float("inf")  # when it stopped being what readers see
        for n, snapshot in enumerate(history):
            wanted = n + compacted < self._config.keep_snapshots or ends > oldest
            # a watermark outweighs the retention: without it the next build would have to rebuild the table
            if n <= needed or (wanted and snapshot.id not in over):
                keep.add(snapshot.id)
            ends = snapshot.at_ms
        judged = {*(snapshot.id for snapshot in history), *(state.branches[branch] for branch in ours)}
        keep |= {snapshot.id for snapshot in state.snapshots if snapshot.id not in judged and snapshot.at_ms > oldest}
        return frozenset(snapshot.id for snapshot in state.snapshots if snapshot.id not in keep)

    def _over(
        self, states: Mapping[str, TableState], name: str, history: Sequence[Snapshot], now: float
    ) -> frozenset[int]:
        """Returns the snapshots with people whom a build removed before the retention time of published rows.

        Args:
            states: All tables.
            name: The table.
            history: Its snapshots, newest first.
            now: The time, epoch milliseconds.
        """
        agreeing = states["customers_trusted"].current
        if ZONES.get(name, "landing") == "landing" or len(history) < 2 or agreeing is None:
            return frozenset()
        latest = now - self._config.history_days * 86_400_000
        # the time counts from when the rows were taken out, not from when they came in
        if all(snapshot.at_ms >= latest for snapshot in history[:-1]):
            return frozenset()  # nobody was removed before
        files = {snapshot.id: self._catalog.files(states[name], snapshot) for snapshot in history}
        current = {file.path for file in files[history[0].id]}
        older = {file.path: file for each in files.values() for file in each if file.path not in current}
        people = withdrawn.taken_out(
            self._config,
            durable.scratch(self._root),
            name,
            older.values(),
            self._catalog.files(states["customers_trusted"], agreeing),
        )
        held = {s.id: frozenset().union(*(people.get(f.path, ()) for f in files[s.id])) for s in history}
        found: set[int] = set()
        gone: dict[str, int] = {}  # when the build was published that took them out for the last time
        for newer, snapshot in pairwise(history):
            for person in held[snapshot.id]:
                gone.setdefault(person, newer.at_ms)
            if any(gone[person] < latest for person in held[snapshot.id]):
                found.add(snapshot.id)
        return frozenset(found)


def _watermarks(states: Mapping[str, TableState], name: str) -> set[int]:
    """Returns the snapshots of a table that the others were last built from."""
    built = [json.loads(state.current.summary.get("stedi.inputs", "{}")) for state in states.values() if state.current]
    return {inputs[name] for inputs in built if name in inputs}


def _outcome(name: str, compaction: Compaction, expired: Iterable[int], removed: Iterable[Unused]) -> Maintained:
    leaving = compaction.leaving
    kinds: dict[str, Removed] = {}
    for file in removed:
        before = kinds.get(file.kind, Removed(0, 0))
        kinds[file.kind] = Removed(before.files + 1, before.bytes + file.bytes)
    return Maintained(
        name,
        len(leaving),
        sum(file.bytes for file in leaving),
        len(compaction.groups),
        compaction.manifests,
        tuple(sorted(expired)),
        kinds,
    )


def _total(temporary: Mapping[Path, Removed]) -> Removed:
    found = temporary.values()
    return Removed(sum(removed.files for removed in found), sum(removed.bytes for removed in found))


def _entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _prune(folder: Path) -> None:
    """Removes the folders below a folder that hold nothing."""
    if s3.is_remote(folder):
        return
    for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # it holds something
            path.rmdir()
