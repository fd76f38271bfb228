"""A build in progress: each table's change is written beside the published state, audited, and published."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from functools import partial
from pathlib import Path

from stedi._frozen import dataclass, field, replace
from stedi._version import __version__
from stedi.catalog import Change, TableState, checksums
from stedi.context import Context
from stedi.context.progress import Progress
from stedi.engines import Engine, rest_of
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import COLUMNS, Dag, DataFile
from stedi.storage import config as settings
from stedi.storage import durable
from stedi.transform import checks, consent_check
from stedi.transform.ahead import Ahead
from stedi.transform.incremental import IncrementalBuild
from stedi.transform.planning import CLAIMS, Step, knows_claims, policy, recalled, rows
from stedi.transform.session import BuildSession

_PROVEN = "customers_trusted"
"""The table with the customers whose consent a build has proved."""
_STEPS = "step_trainer_trusted"
_A_ROW, _A_RECORD = 20, 1_200
"""Bytes that the engine may take for each row of the largest table, and for each landed record of a customer, where two
statements have memory at once."""


@dataclass(slots=True)
class Staged:
    """A table's new state between stage and publish.

    Attributes:
        step: What was done.
        before: The table as it was.
        files: All files of the new state.
        new: Those of them that this build wrote.
        gained: Those of the new files with added rows only, without rewritten ones.
        leaving: Files of `before` that are not in the new state.
        added: Added rows.
        removed: Removed rows.
        seconds: Time taken to stage it.
        properties: Further properties of its snapshot, besides lineage.
        snapshot: The id of the snapshot that it becomes.
    """

    step: Step
    before: TableState
    files: tuple[DataFile, ...]
    new: tuple[DataFile, ...]
    gained: tuple[DataFile, ...]
    leaving: tuple[DataFile, ...]
    added: int
    removed: int
    seconds: float
    properties: dict[str, str] = field(default_factory=dict)
    snapshot: int = 0

    @property
    def base(self) -> int:
        """The snapshot that it was staged from; `init` gives every table a first one."""
        assert self.before.current is not None, "init gives every table a snapshot"
        return self.before.current.id


class StagedBuild:
    """A running build: what it pinned, and what it has staged so far."""

    def __init__(
        self,
        context: Context,
        key: Key,
        graph: Dag,
        before: Mapping[str, TableState],
        run: str,
        now: int,
        claims: str,
        engine: Callable[[], AbstractContextManager[Engine]],
    ) -> None:
        self.staged: dict[str, Staged] = {}
        self._named = False
        """Whether this run has set about to publish: the catalog may name its files."""
        self._context, self._key, self._graph = context, key, graph
        self._catalog, self._config = context.catalog, context.config
        self._before, self._run, self._now, self._opened = before, run, now, engine
        self._claims = claims
        self._memory = settings.size(context.config.engine_memory) or 0
        self._session = ExitStack()
        """Closes the engine, once everything is staged."""
        self._agreed: Callable[[], object] | None = None
        """Waits for the consent proof's own account of who consents, once that is begun."""
        self._ordered: Callable[[], bool] | None = None
        """Waits for what the order of the accelerometer readings shows, once that is begun."""

    def stage(self, steps: Sequence[Step], progress: Progress) -> None:
        """Writes each table's new files and audits them all; nothing is committed yet."""
        planned = [step for step in steps if step.action != "none"]
        whole = {step.table for step in planned if step.action == "rebuild"}
        most, people = max(map(rows, self._before.values())), rows(self._before["customers_landing"])
        worthwhile = most >= checks.LARGE and max(_A_ROW * most, _A_RECORD * people) <= self._memory
        with ExitStack() as opened:
            engine = opened.enter_context(self._opened())
            ahead = opened.enter_context(Ahead(engine, worthwhile=worthwhile))
            session = BuildSession(engine, self._context, self._key, self._graph, self._before, self._now)
            changes = IncrementalBuild(session)
            self._begin(session, whole, ahead)
            for number, step in enumerate(planned, start=1):
                if not self._is_affected(step):  # only now is it known what has become of those above
                    continue
                progress(f"{step.action} {step.table}, {number} of {len(planned)}: {step.reason}", None)
                started = time.monotonic()
                if step.table == checks.MOTIONS and _STEPS in whole and ahead.is_active:
                    session.view_ahead(_STEPS, ahead)
                change = (
                    self._rebuild(session, step) if step.action == "rebuild" else self._change(session, step, changes)
                )
                change.seconds = time.monotonic() - started
                self.staged[step.table] = change
                engine.bind_files(step.table, change.files)
                engine.bind_files(f"{step.table}__added", change.gained, table=step.table)
                if step.table == checks.MOTIONS and step.action == "rebuild":
                    self._ordered = ahead.begin(partial(_in_order, change.files))
            progress("audit", None)
            self._remember(session, changes)
            self._audit(session)
            self._session = opened.pop_all()

    def _begin(self, session: BuildSession, whole: Iterable[str], ahead: Ahead) -> None:
        """Begins with what needs landed records alone."""
        for name in whole:
            session.read_ahead(name, ahead)
        if _PROVEN in whole:
            # it reads the pinned records and nothing that is staged, so it is as well done before as after
            self._agreed = ahead.begin(lambda engine: consent_check.agree(engine, self._key, self._now))

    def publish(self) -> None:
        """Publishes what was staged and audited, all tables in one step where the catalog can."""
        changes = dict[str, Change]()
        for name, change in self.staged.items():
            leaving = frozenset(file.path for file in change.leaving)
            changes[name] = made = Change(
                "overwrite" if leaving else "append", change.base, change.new, leaving, self._lineage(name)
            )
            # ids are drawn before the commit, so that the tables of one commit can name each other as inputs
            change.snapshot = made.id
        # before the call: a commit can be made and its answer lost
        self._named = True
        with ThreadPoolExecutor(1) as beside:
            # it gives much memory back, which takes half as long as to publish
            closed = beside.submit(self._session.close)
            self._catalog.publish_all(changes, branch=self._run)
        closed.result()

    def discard(self) -> None:
        """Removes what a failed run has staged; what it has published stays."""
        self._session.close()
        for table in self._graph.tables():
            # a failed clean-up must not hide why the run failed; its leftovers are orphans
            with suppress(Exception):
                # the catalog knows what is published, even if its answer was lost
                history = self._catalog.table(table.name).history()
                if not any(snapshot.summary.get("stedi.run") == self._run for snapshot in history):
                    self._catalog.discard(table.name, self._run)
                    kept = self._folder(table.name, kept=True)
                    for folder in (self._folder(table.name), kept, rest_of(kept)):
                        durable.remove_tree(folder, never_named=not self._named)

    def _folder(self, table: str, *, kept: bool = False) -> Path:
        return self._catalog.folder(table) / "data" / (f"{self._run}-kept" if kept else self._run)

    def _is_affected(self, step: Step) -> bool:
        """Returns whether anything has happened to an input, or to the clock, now that those above are worked out."""
        if step.action == "rebuild" or any(increment.rows for increment in step.increments.values()):
            return True
        above = [self.staged[read] for read in step.increments if read in self.staged]
        return any(change.added or change.removed for change in above) or step.increments.keys().isdisjoint(
            self._graph_tables
        )

    @property
    def _graph_tables(self) -> tuple[str, ...]:
        return tuple(table.name for table in self._graph.tables())

    def _kept(self, name: str) -> tuple[DataFile, ...]:
        """Returns the files that a table keeps from its published state."""
        if name not in self.staged:
            return self._catalog.files(self._before[name])
        change = self.staged[name]
        new = {file.path for file in change.new}
        return tuple(file for file in change.files if file.path not in new)

    def _rebuild(self, session: BuildSession, step: Step) -> Staged:
        name = step.table
        before = self._before[name]
        # the rows of its inputs bound its own: good enough to choose the parts
        of = max(
            count(self.staged[read].files) if read in self.staged else rows(self._before[read])
            for read in self._graph.inputs(name)
        )
        folder, parts = self._folder(name), session.parts(name, of)
        folders = [folder / f"{part}" for part in range(len(parts))] if len(parts) > 1 else [folder]
        written = (session.engine.write(name, sql, part, of=of) for sql, part in zip(parts, folders, strict=True))
        files = tuple(file for some in written for file in some)
        leaving = self._catalog.files(before)
        return Staged(step, before, files, files, files, leaving, count(files), count(leaving), 0.0)

    def _change(self, session: BuildSession, step: Step, changes: IncrementalBuild) -> Staged:
        engine, name, before = session.engine, step.table, self._before[step.table]
        for read, increment in step.increments.items():
            change = self.staged.get(read)
            session.look_back(read, increment, change.gained if change else (), staged=change is not None)
        gains = changes.work_out(name, session.started(name))

        files = self._catalog.files(before)
        affected = f"select customer_id from {name}__affected"
        anybody = bool(engine.rows(f"select 1 from {name}__affected limit 1"))
        # asked about no files, too: it makes `__gone`, which the tables below read
        leaving = engine.files_containing(
            f"{name}__gone", files if anybody else (), "customer_id", affected, table=name
        )
        names = ", ".join(f'"{column.name}"' for column in COLUMNS[name])
        # before the table is bound again: the computation reads its old state
        added = engine.write(name, f"select {names} from {name}__insert", self._folder(name)) if gains else ()
        kept: tuple[DataFile, ...] = ()
        if leaving:
            # a flipped bit must not be rewritten under a valid checksum
            checksums.check(self._catalog.folder(name), [file.path for file in leaving])
            # apart from the new rows: of those that stayed nothing is news for the tables below
            kept = engine.write_without(
                name, leaving, "customer_id", affected, self._folder(name, kept=True), of=rows(before)
            )
        stay = tuple(file for file in files if file not in leaving)
        removed = count(leaving) - count(kept)
        return Staged(
            replace(step, action="by-customer" if leaving else "append"),
            before,
            files=(*stay, *kept, *added),
            new=(*kept, *added),
            gained=added,
            leaving=leaving,
            added=count(added),
            removed=removed,
            seconds=0.0,
        )

    def _lineage(self, name: str) -> dict[str, str]:
        inputs = {}
        for read in self._graph.inputs(name):
            current = self._before[read].current
            # a table that turned out to be unaffected stays as it was, so its published snapshot is the input
            inputs[read] = self.staged[read].snapshot if read in self.staged else current and current.id
        return {
            "stedi.run": self._run,
            "stedi.started": str(self._now),
            "stedi.version": __version__,
            "stedi.action": self.staged[name].step.action,
            "stedi.sql": self._graph.fingerprint(name),
            "stedi.policy": policy(self._config),
            "stedi.inputs": json.dumps(inputs, sort_keys=True),
            **({CLAIMS: self._claims} if self._claims and knows_claims(name, self._graph) else {}),
            **self.staged[name].properties,
        }

    def _remember(self, session: BuildSession, changes: IncrementalBuild) -> None:
        """Keeps what later plans and listings need with the table that it concerns."""
        engine = session.engine
        if "customers_trusted" in self.staged:
            change = self.staged["customers_trusted"]
            known = "select count(distinct customer_id) from people"
            _keep_count(change, "stedi.customers", engine, known, changes.customers)
            last, upcoming = session.consent_dates()
            dates = {"stedi.last-consent-at": last, "stedi.next-consent-at": upcoming}
            change.properties.update({name: str(date) for name, date in dates.items() if date is not None})
        if "step_trainer_trusted" in self.staged:
            change = self.staged["step_trainer_trusted"]
            withheld = "select count(*) from shared_readings where matches <> 1"
            _keep_count(change, "stedi.withheld", engine, withheld, changes.withheld)

    def _audit(self, session: BuildSession) -> None:
        engine = session.engine
        rebuilt = {name for name, change in self.staged.items() if change.step.action == "rebuild"}
        increments = [
            change.step.increments["customers_landing"]
            for change in self.staged.values()
            if "customers_landing" in change.step.increments
        ]
        # tables can be built from different snapshots: what landed since the oldest of them is news
        appended = {snapshot.id: snapshot for increment in increments for snapshot in increment.appended}
        engine.bind_files(
            "customers_landing__news",
            self._catalog.added(self._before["customers_landing"], appended.values()),
            table="customers_landing",
        )
        starts = [
            int(change.before.current.summary["stedi.started"])
            for change in self.staged.values()
            if change.step.action != "rebuild" and change.before.current
        ]
        # for the same reason the earliest start of them; the latest may be after now if the clock has gone back
        low, high = min([*starts, self._now]), max([*starts, self._now])
        absent = checks.prove_consent(
            engine,
            self._key,
            self._now,
            since_consent=self._config.readings == "since-consent",
            # tables that are not staged must not keep anybody who has withdrawn, either
            new={name: self.staged[name].new if name in self.staged else () for name in self._graph_tables},
            kept={name: self._kept(name) for name in self._graph_tables},
            proven=None if _PROVEN in rebuilt else self._catalog.files(self._before[_PROVEN]),
            news=consent_check.news(engine, "customers_landing__news", low, high),
            told=self._agreed,
        )
        checks.check_nulls({name: change.new for name, change in self.staged.items()})
        checks.check_assertions(
            engine,
            rebuilt,
            self.staged.keys() - rebuilt,
            {
                name: self.staged[name].files if name in self.staged else self._catalog.files(self._before[name])
                for name in self._graph_tables
            },
            absent=absent,
            ordered=self._ordered,
        )


def _in_order(files: Sequence[DataFile], engine: Engine) -> bool:
    return checks.in_order(files)


def count(files: Sequence[DataFile]) -> int:
    """Returns how many rows some files have."""
    return sum(file.rows for file in files)


def _keep_count(change: Staged, name: str, engine: Engine, select: str, gained: int) -> None:
    """Keeps a count with a table: after a rebuild that of a SELECT, else the last build's and what this one added."""
    if change.step.action == "rebuild":
        [(total,)] = engine.rows(select)
    else:
        total = recalled(change.before, name) + gained
    change.properties[name] = str(total)
