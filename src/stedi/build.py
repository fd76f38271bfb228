"""Plan, stage, audit, publish: the tables below landing from the landed records.

`plan` compares what each table says it was built from with what there is now. `build` stages every planned
table on a branch, audits all of them, and only then publishes; a failure before that changes no table. What a
table was built from stands in its published snapshot's properties and nowhere else.
"""

from __future__ import annotations

import json
import secrets
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from stedi import __version__, tables
from stedi.catalog import Catalog, TableState
from stedi.config import Config
from stedi.engines.duckdb import DuckDB, quoted
from stedi.errors import AuditFailed
from stedi.privacy import consent
from stedi.privacy.pseudonyms import Key
from stedi.tables import COLUMNS, DataFile, Graph, SqlTable

Action = Literal["none", "append", "by-customer", "rebuild"]
Progress = Callable[[str], None]

_MAY_BE_NULL = {"customerName", "phone", "birthDay", "shareWithPublicAsOfDate", "shareWithFriendsAsOfDate"}
_READING_TIME = {
    "accelerometer_trusted": "timestamp",
    "step_trainer_trusted": "sensorReadingTime",
    "machine_learning_curated": "sensorReadingTime",
}


@dataclass(frozen=True, slots=True)
class Step:
    """What a build does, or would do, to one table, and why."""

    table: str
    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did to one table.

    Attributes:
        name: The table.
        action: What was done.
        reason: Why.
        rows_added: Rows written.
        rows_removed: Rows of the state before that are no longer there as files.
        rows: Rows now.
        seconds: Time taken to stage it.
    """

    name: str
    action: Action
    reason: str
    rows_added: int
    rows_removed: int
    rows: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Build:
    """One run of `build`.

    Attributes:
        run: The run's id, empty if there was nothing to do.
        tables: What was done to each table, in the order of the build.
        withheld: Readings of shared serial numbers that belong to nobody for certain (rule 6), now.
        customers: Customers with landed records, now.
        consenting: Those of them who agree to research, now.
    """

    run: str
    tables: tuple[Built, ...]
    withheld: int
    customers: int
    consenting: int


@dataclass(slots=True)
class _Staged:
    """A table's new state between stage and publish."""

    step: Step
    before: TableState
    files: tuple[DataFile, ...]
    seconds: float
    properties: dict[str, str] = field(default_factory=dict)
    snapshot: int = 0

    @property
    def base(self) -> int:
        """The snapshot that it was staged from; `init` gives every table a first one."""
        assert self.before.current is not None, "init gives every table a snapshot"
        return self.before.current.id


def policy(config: Config) -> str:
    """Returns what, besides SQL and inputs, decides the rows of every table: consent policy and key."""
    return f"readings={config.readings} key={config.key_fingerprint}"


def plan(
    states: Mapping[str, TableState],
    config: Config,
    now: int,
    *,
    full: bool = False,
    graph: Graph | None = None,
) -> tuple[Step, ...]:
    """Returns what a build would do to each table, in build order.

    Args:
        states: The catalog's tables now.
        config: The lake's settings.
        now: The start of the build, epoch milliseconds.
        full: Rebuild whatever the watermarks say.
        graph: The SQL tables, by default the package's own.
    """
    graph = graph or tables.graph()
    steps: dict[str, Step] = {}
    for table in graph.tables():
        reason = "asked for" if full else _why(table.name, states, steps, config, now, graph)
        steps[table.name] = Step(table.name, "rebuild" if reason else "none", reason or "nothing has changed")
    return tuple(steps.values())


def _why(
    name: str,
    states: Mapping[str, TableState],
    steps: Mapping[str, Step],
    config: Config,
    now: int,
    graph: Graph,
) -> str:
    current = states[name].current
    built = current.summary if current else {}
    if "stedi.run" not in built:
        return "first time"
    if built["stedi.sql"] != graph.fingerprint(name):
        return "its SQL has changed"
    if built["stedi.policy"] != policy(config):
        return "the consent policy or the key has changed"
    if int(built.get("stedi.next-consent-at", now + 1)) <= now:
        return "a consent date has come"
    inputs = json.loads(built["stedi.inputs"])
    for read in graph.inputs(name):
        if read in steps and steps[read].action != "none":
            return f"{read} is rebuilt"
        head = states[read].current
        if inputs.get(read) != (head.id if head else None):
            return f"{read} has changed"
    return ""


def build(
    catalog: Catalog,
    config: Config,
    key: Key,
    root: Path,
    *,
    now: int | None = None,
    full: bool = False,
    progress: Progress = lambda line: None,
    graph: Graph | None = None,
) -> Build:
    """Brings every table below landing up to date; afterwards a second build has nothing to do.

    Args:
        catalog: The lake's tables.
        config: The lake's settings.
        key: The lake's pseudonym key.
        root: The lake's folder.
        now: The start of the build, epoch milliseconds; the clock's by default.
        full: Rebuild every table.
        progress: Called with a line for each stage of the work.
        graph: The SQL tables, by default the package's own.

    Raises:
        AuditFailed: A staged table breaks a rule; no table has changed.
        CommitConflict: Somebody else moved a table meanwhile.
    """
    graph = graph or tables.graph()
    now = int(time.time() * 1000) if now is None else now
    before = catalog.tables()
    steps = plan(before, config, now, full=full, graph=graph)
    if all(step.action == "none" for step in steps):
        return _result("", steps, {}, before)
    run = f"{now:013d}-{secrets.token_hex(4)}"
    work = _Run(catalog, config, key, graph, before, run, now)
    temporary = root / "tmp" / run
    try:
        # PyIceberg takes a second to import; DuckDB leaves the interpreter free meanwhile
        with ThreadPoolExecutor(1) as beside:
            warm = beside.submit(catalog.warm)
            work.stage([step for step in steps if step.action != "none"], temporary, progress)
            warm.result()
        work.commit()
        for name, change in work.staged.items():
            progress(f"publish {name}")
            catalog.publish(name, branch=run, staged=change.snapshot, base=change.base)
    except BaseException:
        work.discard()
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return _result(run, steps, work.staged, catalog.tables())


class _Run:
    """One build under way: what it pinned, and what it has staged so far."""

    def __init__(
        self,
        catalog: Catalog,
        config: Config,
        key: Key,
        graph: Graph,
        before: Mapping[str, TableState],
        run: str,
        now: int,
    ) -> None:
        self.staged: dict[str, _Staged] = {}
        self._catalog, self._config, self._key, self._graph = catalog, config, key, graph
        self._before, self._run, self._now = before, run, now

    def stage(self, steps: Sequence[Step], temporary: Path, progress: Progress) -> None:
        """Writes each table's new files and audits them all; nothing is committed yet."""
        config, graph = self._config, self._graph
        parameters = {"build_started": self._now, "readings": config.readings}
        with DuckDB(
            memory=config.engine_memory,
            threads=config.threads,
            temporary=temporary,
        ) as engine:
            for name, state in self._before.items():
                engine.bind(name, self._catalog.files(state))
            needed = frozenset[str]().union(*(graph.closure(step.table) for step in steps))
            for name in graph.order():
                step = next((step for step in steps if step.table == name), None)
                select = graph.selects[name]
                if step is not None:
                    progress(f"{step.action} {name}: {step.reason}")
                    started = time.monotonic()
                    folder = self._catalog.folder(name) / "data" / self._run
                    files = engine.write(name, engine.prepare(select.sql, parameters), folder)
                    self.staged[name] = _Staged(step, self._before[name], files, time.monotonic() - started)
                    engine.bind(name, files)
                elif select.zone == "views" and name in needed:
                    _keep(engine, select, parameters, self._key)
            progress("audit")
            self._remember(engine)
            self._audit(engine)

    def commit(self) -> None:
        """Commits what was staged and audited to each table's branch."""
        for name, change in self.staged.items():
            leaving = [file.path for file in self._catalog.files(change.before)]
            change.snapshot = self._catalog.stage(
                name, change.files, leaving, self._lineage(name), branch=self._run, base=change.base
            )

    def discard(self) -> None:
        """Removes what a failed run has staged; what it has published stays."""
        for table in self._graph.tables():
            # a failed clean-up must not hide why the run failed; what it leaves is an orphan
            with suppress(Exception):
                # the catalog knows what is published; this process may have died of the answer
                history = self._catalog.table(table.name).history()
                if not any(snapshot.summary.get("stedi.run") == self._run for snapshot in history):
                    self._catalog.discard(table.name, self._run)
                    shutil.rmtree(self._catalog.folder(table.name) / "data" / self._run, ignore_errors=True)

    def _lineage(self, name: str) -> dict[str, str]:
        inputs = {}
        for read in self._graph.inputs(name):
            current = self._before[read].current
            inputs[read] = self.staged[read].snapshot if read in self.staged else current and current.id
        return {
            "stedi.run": self._run,
            "stedi.started": str(self._now),
            "stedi.version": __version__,
            "stedi.sql": self._graph.fingerprint(name),
            "stedi.policy": policy(self._config),
            "stedi.inputs": json.dumps(inputs, sort_keys=True),
            **self.staged[name].properties,
        }

    def _remember(self, engine: DuckDB) -> None:
        """Keeps what later plans and listings need with the table that it concerns."""
        if "customers_trusted" in self.staged:
            [(customers, upcoming)] = engine.rows(
                "select count(*), min(shareWithResearchAsOfDate) filter "
                f"(where shareWithResearchAsOfDate > {self._now}) from current_customers"
            )
            properties = self.staged["customers_trusted"].properties
            properties["stedi.customers"] = str(customers)
            if upcoming is not None:
                properties["stedi.next-consent-at"] = str(upcoming)
        if "step_trainer_trusted" in self.staged:
            [(withheld,)] = engine.rows("select count(*) from shared_readings where matches <> 1")
            self.staged["step_trainer_trusted"].properties["stedi.withheld"] = str(withheld)

    def _audit(self, engine: DuckDB) -> None:
        records = engine.stream("select email, lastUpdateDate, shareWithResearchAsOfDate from customers_landing")
        consents = consent.consenting(records, self._key, self._now)
        since_consent = self._config.readings == "since-consent"
        for name in self.staged:
            moment = _READING_TIME.get(name)
            earliest = f"epoch_ms(min({quoted(moment)}))" if moment else "null"
            people = engine.stream(f"select customer_id, {earliest} from {name} group by customer_id")
            found = consent.violations(people, consents, since_consent=since_consent)
            if found:
                raise AuditFailed(
                    f"{name}: consent proof: expected no row of a customer who does not consent, "
                    f"found rows of {found} such customers; nothing was published"
                )

        for name, change in self.staged.items():
            for column in COLUMNS[name]:
                nulls = sum(file.nulls.get(column.name, 0) for file in change.files)
                if nulls and column.name not in _MAY_BE_NULL:
                    raise AuditFailed(f"{name}: {column.name}: expected no nulls, found {nulls}; nothing was published")
        for check in tables.assertions():
            if check.reads & self.staged.keys():
                [(found,)] = engine.rows(f"select count(*) from ({check.sql.rstrip()}\n)")
                if found:
                    raise AuditFailed(f"{check.name}: expected no violation, found {found}; nothing was published")


def withheld(catalog: Catalog, config: Config, key: Key, temporary: Path) -> list[tuple[datetime, str, int, int]]:
    """Returns the readings of shared serial numbers that belong to nobody for certain (rule 6), as landed now.

    Returns:
        Of each: time of the reading, serial number, distance, and how many claimants moved at that moment.
    """
    graph = tables.graph()
    with DuckDB(memory=config.engine_memory, threads=config.threads, temporary=temporary) as engine:
        for name, state in catalog.tables().items():
            engine.bind(name, catalog.files(state))
        for name in graph.order():
            if name in graph.closure("shared_readings") | {"shared_readings"} and graph.selects[name].zone == "views":
                _keep(engine, graph.selects[name], {}, key)
        rows = engine.rows(
            "select sensorReadingTime, serialNumber, distanceFromObject, matches from shared_readings "
            "where matches <> 1 order by serialNumber, sensorReadingTime, distanceFromObject"
        )
    return [
        (datetime.fromtimestamp(at / 1000, UTC), serial, distance, matches) for at, serial, distance, matches in rows
    ]


def _keep(engine: DuckDB, view: SqlTable, parameters: Mapping[str, str | int], key: Key) -> None:
    sql = engine.prepare(view.sql, parameters)
    if view.name == "people":
        engine.pseudonymise(view.name, sql, key.customer_id)
    else:
        engine.keep(view.name, sql)


def _result(run: str, steps: Sequence[Step], staged: Mapping[str, _Staged], after: Mapping[str, TableState]) -> Build:
    built = []
    for step in steps:
        change, rows = staged.get(step.table), _rows(after[step.table])
        built.append(
            Built(step.table, step.action, step.reason, 0, 0, rows, 0.0)
            if change is None
            else Built(step.table, step.action, step.reason, rows, _rows(change.before), rows, change.seconds)
        )
    trusted, steps_trusted = after["customers_trusted"], after["step_trainer_trusted"]
    return Build(
        run,
        tuple(built),
        withheld=_recalled(steps_trusted, "stedi.withheld"),
        customers=_recalled(trusted, "stedi.customers"),
        consenting=_rows(trusted),
    )


def _recalled(state: TableState, count: str) -> int:
    return int(state.current.summary.get(count, 0)) if state.current else 0


def _rows(state: TableState) -> int:
    return state.current.total("records") if state.current else 0
