"""Removal: rewrites files without the customers' rows, and expires the snapshots that use the old files.

Each step can be repeated: a table whose current snapshot has the erasure's id is done. The old files of the customers'
records are removed last, since a resumed erasure reads from them what to search for.
"""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from stedi._frozen import replace
from stedi.catalog import Catalog, Erasing, Snapshot, TableState, orphans
from stedi.catalog.manifests import mentions
from stedi.catalog.orphans import unused
from stedi.catalog.snapshots import AS_OF
from stedi.engines import Engine
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, quoted
from stedi.engines.pages import Leaving
from stedi.engines.rewrite import InlineRelation, RewriteTask, divided, rewrite
from stedi.engines.workers import Workers
from stedi.erasure.devices import OWN, read_files
from stedi.erasure.locate import RELATIONS, SUBJECT_PREDICATES, SubjectRows
from stedi.erasure.pending import Found, Pending
from stedi.errors import CommitConflict, DamagedFile, LakeError
from stedi.privacy.receipts import RECEIPTS
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, CONSENT_FROM, DataFile, graph
from stedi.storage import durable, s3
from stedi.transform.ahead import Ahead
from stedi.transform.planning import CLAIMS

if TYPE_CHECKING:
    from stedi.erasure.delivered_file import Rewritten

ERASURE = "stedi.erasure"
"""The property of a snapshot with the id of the erasure that wrote it."""


_TOLD_BY = {
    "customers_landing": ("email", "select address from erased_addresses"),
    "accelerometer_landing": ("user", "select address from erased_addresses"),
    "step_trainer_landing": ("serialNumber", "select serialNumber from erased_serials"),
    **dict.fromkeys((table.name for table in graph().tables()), ("customer_id", "select customer_id from erased_ids")),
}
"""For each table, the column that `SUBJECT_PREDICATES` compares, and the SELECT of the values to match."""
_OF_ALL = frozenset({"stedi.customers", "stedi.last-consent-at", "stedi.next-consent-at", "stedi.withheld"})
"""Snapshot properties about all customers that a build leaves for the next build."""


class Removal:
    """The second phase of one erasure.

    Args:
        engine: The session in which `subject_rows` created its relations.
        catalog: The lake's tables.
        subject_rows: Where the customers' rows are.
        pending: The erasure, after its first phase.
        found: The result of that phase.
        workers: The workers that rewrite files; by default this process.
        memory: The memory of a worker's engine.
        claims: The digest of the claims of all erased customers, including these.
        ahead: What is done in a second thread.
    """

    def __init__(
        self,
        engine: DuckDB,
        catalog: Catalog,
        subject_rows: SubjectRows,
        pending: Pending,
        found: Found,
        workers: Workers | None,
        memory: str,
        claims: str,
        ahead: Ahead,
    ) -> None:
        self._engine, self._catalog, self._subject_rows = engine, catalog, subject_rows
        self._run, self._started, self._found = pending.run, pending.started, found
        self._workers, self._memory, self._claims, self._ahead = workers, memory, claims, ahead

    def table(self, name: str, rewritten: Sequence[Rewritten] = ()) -> dict[str, int]:
        """Removes the customers from one table, and expires the snapshots that used the files they were in.

        Args:
            name: The table; its input tables must be done already.
            rewritten: Delivered files that were rewritten, to be recorded in the ledger.

        Returns:
            Counts of the removed `rows`, `files` and `snapshots`; and, if there were any, `remade`: how many snapshots
            with other programs' tags and branches were rewritten without the customers.
        """
        taints, remade = self._found.taints(name), 0
        while True:
            base = self._current(name)
            try:
                remade += self._commit(name, rewritten)
            except DamagedFile as error:
                if self._current(name) == base:
                    raise
                # another command took over and finished this erasure: the files were removed on purpose
                raise CommitConflict(
                    f"Cannot erase from {name}: another program has changed it. Run `stedi erase --resume`."
                ) from error
            state = self._catalog.table(name)
            known = mentions(state)
            if set(state.pins.values()).isdisjoint(known.of(taints)):
                break  # otherwise another program has just pinned a snapshot, and would lose it
        current = _current(state)
        expired = [snapshot for snapshot in known.of(taints) if snapshot != current.id]
        # what a dead build has staged may have their rows, too
        branches = orphans.abandoned_branches(state)
        staged = [state.branches[branch] for branch in branches]
        if expired or branches:
            self._catalog.expire(name, {*expired, *staged}, branches, base=current.id)
        held = taints if self._found.held is None else taints & self._found.held.keys()  # the others were missing
        gone = {"rows": self._found.rows[name], "files": len(held), "snapshots": len(expired)}
        return {**gone, "remade": remade} if remade else gone

    def _commit(self, name: str, rewritten: Sequence[Rewritten]) -> int:
        """Writes the remaining rows of the current and the pinned snapshots, and commits them together.

        Returns:
            How many pinned snapshots were replaced.
        """
        state = self._catalog.table(name)
        current = _current(state)
        taints = self._found.taints(name)
        tainted = set(mentions(state).of(taints))
        pinned = {head for head in state.pins.values() if head in tainted}
        done = current.summary.get(ERASURE) == self._run
        heads = [snapshot for snapshot in state.snapshots if snapshot.id in pinned and snapshot != current]
        leaving = {head.id: self._tainted(state, head) for head in heads}
        lineage = {} if ALL_ZONES[name] in ("landing", "released") else self._lineage(name, current)
        main = [] if done else self._tainted(state, current)
        if not done and name == "landed_files" and (self._found.counts or rewritten):
            # the counts of any row may change, and the ledger is small
            main = list(self._catalog.files(state))
        if not done and (main or rewritten or lineage not in ({}, _properties(current)) or current.id in tainted):
            leaving[current.id] = main
            heads.append(current)
        if not heads:
            return 0
        # each attempt has its own folder: an attempt that lost its locks must not remove files that another committed
        folder = self._catalog.folder(name) / "data" / f"{self._run}-{secrets.token_hex(4)}"
        added = dict[int, tuple[DataFile, ...]]()
        for number, (snapshots, files) in enumerate(
            # the current ledger gets further rows: tags must not share them
            _shared(leaving, apart=current.id if name == "landed_files" else 0)
        ):
            news = rewritten if current.id in snapshots else ()
            if not files and not news:
                continue
            place = folder if len(leaving) == 1 else folder / str(number)
            # of the old files, while the new ones are written
            theirs = self._ahead.begin(self._counting(name, files)) if self._is_counted(name, files) else None
            written = self._rewritten(name, files, self._remaining(name, news), place, current.total("records"))
            more = len(self._missing(news)) if name == "landed_files" else 0
            self._check(name, files, written, more, theirs)
            for snapshot in snapshots:
                added[snapshot] = (*added.get(snapshot, ()), *written)
        refs = {head.id: tuple(pin for pin, of in state.pins.items() if of == head.id) for head in heads}
        # a tag of a snapshot without them stays where it is
        refs = {head: pins if head in pinned else () for head, pins in refs.items()}
        changes = []
        for head in heads:
            properties = {**(lineage if head.id == current.id else _pinned_summary(head)), ERASURE: self._run}
            if head.id in pinned:
                # the first time, not that of an erasure in between: `--at` asks for when the rows were current
                properties[AS_OF] = head.summary.get(AS_OF, str(head.at_ms))
            removed = tuple(file.path for file in leaving[head.id])
            changes.append(Erasing(head.id, added.get(head.id, ()), removed, properties, refs[head.id]))
        self._catalog.erase(name, changes, base=current.id)
        return len(pinned)

    def _tainted(self, state: TableState, snapshot: Snapshot) -> list[DataFile]:
        taints = self._found.taints(state.name)
        return [file for file in self._catalog.files(state, snapshot) if file.path in taints]

    def _rewritten(
        self, name: str, leaving: Sequence[DataFile], sql: str, folder: Path, of: int
    ) -> tuple[DataFile, ...]:
        """Writes the remaining rows of replaced files, here or on the workers; the small ledger is written here."""
        if self._workers is None or name == "landed_files":
            beside = self._ahead.is_active
            return self._engine.rewrite(name, leaving, self._leaving(name), sql, folder, of=of, beside=beside)
        relations = {read: InlineRelation.of(self._engine, read) for read in RELATIONS if read in sql}
        home = self._catalog.folder(name)
        parts = [
            RewriteTask(name, files, sql, folder, of, self._memory, home, relations)
            for files in divided(leaving, self._workers.slots)
        ]
        return tuple(file for files in rewrite(self._workers, parts) for file in files)

    def _leaving(self, name: str) -> Leaving | None:
        """Returns the values that identify the rows to remove; None if there are none or other rows change too."""
        if any(self._subject_rows.masked(name, column.name) for column in ALL_COLUMNS[name]):
            return None
        match _TOLD_BY.get(name):
            case None:
                return None
            case column, values:
                texts = frozenset(text for (text,) in self._engine.rows(values))
        if name != "step_trainer_landing":
            return Leaving(column, texts)
        moments: dict[str, set[int]] = {}
        for number, moment in self._engine.rows("select serialNumber, moment from erased_moments"):
            moments.setdefault(number, set()).add(moment)
        return Leaving(column, texts, "sensorReadingTime", moments)

    def _check(
        self,
        name: str,
        leaving: Sequence[DataFile],
        added: Sequence[DataFile],
        more: int,
        theirs: Callable[[], int] | None,
    ) -> None:
        """Raises LakeError unless as many rows remain as must: by the rows that were found, and by the engine's count.

        Args:
            name: The table.
            leaving: The replaced files.
            added: The new files.
            more: How many rows are added.
            theirs: Returns how many rows of the customers the engine has counted in the replaced files.
        """
        rows, before = sum(file.rows for file in added), sum(file.rows for file in leaving)
        held, expected = self._found.held, list[int]()
        if held is not None:  # an earlier version did not store the counts per file
            expected.append(before - sum(held.get(file.path, 0) for file in leaving) + more)
        if theirs is not None:
            expected.append(before - theirs())
        for count in expected:
            if rows != count:
                raise LakeError(
                    f"{name}: expected {count} remaining rows of other customers, found {rows}; the table is as it "
                    "was. Run `stedi audit --files`, then `stedi erase --resume`"
                )

    def _is_counted(self, name: str, leaving: Sequence[DataFile]) -> bool:
        """Returns whether the engine counts the customers' rows in files that are replaced.

        The same C finds and removes rows, so a mistake in it would be in both counts. The rows of other tables were
        found by the engine.
        """
        if self._found.held is not None and name not in OWN:
            return False
        return self._workers is None and name in _TOLD_BY and bool(leaving) and not s3.is_remote(leaving[0].path)

    def _counting(self, name: str, leaving: Sequence[DataFile]) -> Callable[[Engine], int]:
        """Returns what counts the rows of the customers that an engine finds in some files."""
        column, alone = _TOLD_BY[name]
        paths, listed = [file.path for file in leaving], self._engine.listed
        if name != "step_trainer_landing":
            sql = f"select count(*) from {read_files(paths)} where {quoted(column)} in ({listed(alone)})"
            return lambda engine: int(engine.rows(sql)[0][0])
        shared = f"select distinct serialNumber from erased_moments where serialNumber not in ({alone})"
        devices, several = listed(f"{alone} union {shared}"), listed(shared)

        def count(engine: Engine) -> int:
            found = engine.rows(
                f"select filename, serialNumber in ({alone}) as alone, count(*) from {read_files(paths)} "
                f"where serialNumber in ({devices}) group by all"
            )
            theirs = sum(n for _, theirs, n in found if theirs)
            # instants are read only where somebody else may have readings of the same device
            if files := [path for path, theirs, _ in found if not theirs]:
                [(moments,)] = engine.rows(
                    f"select count(*) from {read_files(files)} where serialNumber in ({several}) "
                    "and (serialNumber, sensorReadingTime) in (select serialNumber, moment from erased_moments)"
                )
                theirs += moments
            return int(theirs)

        return count

    def _remaining(self, name: str, rewritten: Sequence[Rewritten]) -> str:
        """Returns the SELECT of the remaining rows of the replaced files."""
        if name == "landed_files":
            return self._ledger(rewritten)
        columns = [
            self._subject_rows.masked(name, column.name) or f"leaving.{quoted(column.name)}"
            for column in ALL_COLUMNS[name]
        ]
        return f"select {', '.join(columns)} from leaving where not ({SUBJECT_PREDICATES[name]})"

    def _ledger(self, rewritten: Sequence[Rewritten]) -> str:
        """Returns the SELECT of the ledger, with the removed records counted as erased."""
        counts = ", ".join(f"({literal(s)}, {a}, {q})" for s, (a, q) in self._found.counts.items()) or "('', 0, 0)"
        sql = (
            "select l.sha256, coalesce(m.masked, l.name) as name, l.feed, l.size, l.seen, "
            "(l.accepted - coalesce(g.a, 0))::bigint as accepted, "
            "(l.quarantined - coalesce(g.q, 0))::bigint as quarantined, "
            "(l.erased + coalesce(g.a, 0) + coalesce(g.q, 0))::bigint as erased, l.batch, l.landed_at "
            "from (select *, row_number() over (partition by sha256 order by seen desc, batch) as place from leaving) "
            "as l "
            # replays add further rows of a file: only the first one counts the erased
            f"left join (values {counts}) as g (sha256, a, q) on l.sha256 = g.sha256 and l.place = 1 "
            "left join masks as m on l.name = m.name"
        )
        for file in self._missing(rewritten):
            # so that landing it adds nothing; its records are counted under the original file
            texts = ", ".join(map(literal, (file.sha256, file.known_as, file.feed)))
            sql += (
                f" union all select {texts}, {file.size}::bigint, "
                f"0::bigint, 0::bigint, 0::bigint, 0::bigint, {literal(self._run)}, instant({self._started})"
            )
        return sql

    def _missing(self, rewritten: Sequence[Rewritten]) -> list[Rewritten]:
        """Returns rewritten files whose old content has landed and whose new content has not, each content once."""
        wanted = {file.sha256: file for file in rewritten}
        known = {sha256 for (sha256,) in self._engine.rows("select sha256 from landed_files")}
        return [file for file in wanted.values() if file.before in known and file.sha256 not in known]

    def _lineage(self, name: str, current: Snapshot) -> dict[str, str]:
        """Returns the lineage of the table's next snapshot: that of the current one, without the customers."""
        properties = _properties(current)
        inputs = json.loads(properties.get("stedi.inputs", "{}"))
        for read in self._found.follows.get(name, ()):
            inputs[read] = self._current(read).id
        if inputs:
            properties["stedi.inputs"] = json.dumps(inputs, sort_keys=True)
        if name in self._found.claims:
            # the rows count these people as claimants already: nothing has to be built again for it
            properties.pop(CLAIMS, None)
            properties |= {CLAIMS: self._claims} if self._claims else {}
        if "stedi.customers" in properties:
            properties |= self._customers(properties)
        if "stedi.withheld" in properties:
            properties["stedi.withheld"] = str(max(0, int(properties["stedi.withheld"]) - self._found.withheld))
        return properties

    def _customers(self, properties: dict[str, str]) -> dict[str, str]:
        """Returns a build's properties about all customers, without these: their consent dates are personal data."""
        started = properties["stedi.started"]
        [(last, upcoming)] = self._engine.rows(
            f"select max(since) filter (where since <= {started}), min(since) filter (where since > {started}) "
            f"from (select {CONSENT_FROM} as since from customers_landing "
            f"where not ({SUBJECT_PREDICATES['customers_landing']}))"
        )
        for name, found in (("stedi.last-consent-at", last), ("stedi.next-consent-at", upcoming)):
            properties.pop(name, None)
            if found is not None:
                properties[name] = str(found)
        properties["stedi.customers"] = str(int(properties["stedi.customers"]) - self._found.customers)
        return properties

    def _current(self, name: str) -> Snapshot:
        return _current(self._catalog.table(name))


def _current(state: TableState) -> Snapshot:
    assert state.current is not None, "init gives every table a snapshot"
    return state.current


def remove_orphans(catalog: Catalog, keeping: frozenset[str]) -> int:
    """Removes all files in the tables' folders that no live snapshot uses, of any age, except `keeping`.

    Returns:
        How many files were removed.
    """
    count = 0
    stay = {durable.realpath(path) for path in keeping}
    for name, state in catalog.tables().items():
        folder = catalog.folder(name)
        catalog.vouch(state)
        # older metadata files name snapshots that are removed
        state = replace(state, metadata=state.metadata[-1:])
        gone = [
            file.path
            for file in unused(state, folder, before=float("inf"), seen=float("inf"))
            if str(file.path) not in stay
        ]
        _unlink(gone)
        count += len(gone)
        if gone:
            catalog.prune(name)
    return count


def remove(catalog: Catalog, paths: Iterable[str]) -> None:
    """Removes the files of the customers' records, as the last step.

    Raises:
        LakeError: One of them is not a data file of that table; nothing was removed.
    """
    listed = [s3.at(path) for path in paths]
    home = durable.realpath(catalog.folder("customers_landing") / "data")
    for path in listed:
        # resolve links, since removal deletes the target
        if path.suffix != ".parquet" or not durable.realpath(path).startswith(f"{home}/"):
            raise LakeError(
                "customers_landing: expected data files of its own to remove, found a file elsewhere; nothing was "
                "removed. Run `stedi audit --files`, then `stedi erase --resume`"
            )
    _unlink(listed)
    if listed:
        catalog.prune("customers_landing")


def clear(root: Path, *, keeping: str) -> frozenset[Path]:
    """Removes files that commands left beside the tables; the caller holds the locks of all writing commands.

    Args:
        root: The lake's folder.
        keeping: The name of the caller's scratch folder.

    Returns:
        The folders of running queries; each query removes its own when it ends.
    """
    held = set()
    for entry in [*durable.scratch(root).glob("*"), *root.glob(".*.partial"), *(root / RECEIPTS).glob(".*.partial")]:
        if entry.name == keeping:
            continue
        if entry.is_dir() and not entry.is_symlink():
            if durable.is_held(entry):
                held.add(entry)
            else:
                shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)
    return frozenset(held)


def _unlink(paths: Iterable[Path]) -> None:
    listed = list(paths)
    durable.remove_all(listed)
    folders = {path.parent for path in listed if not s3.is_remote(path)}
    for folder in folders:
        if folder.is_dir():
            # on disk before the receipt says that they are gone
            durable.sync(folder)
    for folder in folders:
        while folder.parent.name == "data" or folder.parent.parent.name == "data":
            with suppress(OSError):  # it is not empty
                folder.rmdir()
            folder = folder.parent


def _shared(leaving: Mapping[int, Sequence[DataFile]], *, apart: int) -> list[tuple[frozenset[int], list[DataFile]]]:
    """Groups files by the snapshots that they leave; the snapshots of a group share the rewritten files.

    Args:
        leaving: For each snapshot, the files that leave it.
        apart: A snapshot that does not share files.
    """
    of: dict[str, set[int]] = {}
    known: dict[str, DataFile] = {}
    for snapshot, files in leaving.items():
        for file in files if snapshot != apart else ():
            of.setdefault(file.path, set()).add(snapshot)
            known[file.path] = file
    shared: dict[frozenset[int], list[DataFile]] = {}
    for path, snapshots in of.items():
        shared.setdefault(frozenset(snapshots), []).append(known[path])
    if apart in leaving:
        shared[frozenset({apart})] = list(leaving[apart])
    return list(shared.items())


def _pinned_summary(snapshot: Snapshot) -> dict[str, str]:
    """Returns the summary of a replaced pinned snapshot, without counts or dates of all customers."""
    return {name: value for name, value in _properties(snapshot).items() if name not in _OF_ALL}


def _properties(snapshot: Snapshot) -> dict[str, str]:
    return {key: value for key, value in snapshot.summary.items() if key.startswith("stedi.")}
