"""Builds of the tables below landing: plan, stage, audit, publish.

`plan` compares what each table was built from with the current state. `build` computes the changes (`incremental`), or
the whole table if necessary, stages every planned table beside the published one, runs `checks` on all of them, and
only then publishes them in one step; a failure before that changes no table. Only the properties of a table's published
snapshot record what it was built from.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

from stedi._frozen import dataclass, replace
from stedi.catalog import TableState
from stedi.context import Context
from stedi.context.progress import Progress, run_id, silent
from stedi.engines import Name, connect
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema import tables
from stedi.schema.tables import Dag
from stedi.storage.config import Config
from stedi.transform import planning
from stedi.transform.planning import Action, Step, policy, recalled, rows

if TYPE_CHECKING:
    from stedi.transform.previewing import Plan
    from stedi.transform.stage import Staged

__all__ = [
    "Action",
    "Build",
    "Built",
    "Step",
    "Withheld",
    "build",
    "plan",
    "policy",
    "preview",
    "withheld",
]

_FEW = 250_000
"""So many rows one thread computes about as soon as several, of which one looks for work without pause while others
have it: that takes up to twice the CPU."""
_PEOPLE = "customers_landing"
_FEW_PEOPLE = 50
"""So many customers who come, leave or change are a few: the files that hold them are rewritten nearly as soon."""


@dataclass(frozen=True, slots=True)
class Withheld:
    """A withheld reading: its serial number is shared, and its owner is uncertain (rule 6 of consent).

    Attributes:
        time: When it was taken, UTC.
        serial_number: The step trainer's.
        distance: As delivered.
        moved: How many claimants have an accelerometer reading at that moment; never one.
    """

    time: datetime
    serial_number: str
    distance: int
    moved: int


@dataclass(frozen=True, slots=True)
class Built:
    """What a build did to one table.

    Attributes:
        name: The table.
        action: What was done.
        reason: Why.
        rows_added: Added rows.
        rows_removed: Removed rows; a customer's rows that are rewritten count as both.
        rows: Rows afterwards.
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
        withheld: Readings of shared serial numbers without a certain owner (rule 6), now.
        customers: Customers with landed records, now.
        consenting: Those of them who consent to research, now.
        stale: Releases with people whom this build removed, `NAME@VERSION`.
    """

    run: str
    tables: tuple[Built, ...]
    withheld: int
    customers: int
    consenting: int
    stale: tuple[str, ...] = ()


def preview(context: Context, key: Key, now: int, *, full: bool = False) -> Plan:
    """Returns what a build would do to each table and for which customers; nothing in the lake is written.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        now: The start of the build, epoch milliseconds.
        full: Rebuild whatever the watermarks say.
    """
    from stedi.transform import previewing

    states, graph = context.catalog.tables(), tables.graph()
    steps = plan(states, context.config, now, full=full, graph=graph, claims=context.erased_claims())
    return previewing.preview(context, key, graph, states, steps, now)


def plan(
    states: Mapping[str, TableState],
    config: Config,
    now: int,
    *,
    full: bool = False,
    graph: Dag | None = None,
    claims: str | None = None,
) -> tuple[Step, ...]:
    """Returns what a build would do to each table, in build order.

    Args:
        states: The catalog's tables now.
        config: The lake's settings.
        now: The start of the build, epoch milliseconds.
        full: Rebuild whatever the watermarks say.
        graph: The SQL tables, by default the package's own.
        claims: The lake's `Context.erased_claims`; None compares no table's with them.
    """
    return planning.plan(states, config, now, full=full, graph=graph or tables.graph(), claims=claims)


def build(
    context: Context,
    key: Key,
    *,
    now: int | None = None,
    full: bool = False,
    progress: Progress = silent,
    graph: Dag | None = None,
    engine: Name = "duckdb",
) -> Build:
    """Brings every table below landing up to date; afterwards a second build has nothing to do.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        now: The start of the build, epoch milliseconds; the clock's by default.
        full: Rebuild every table.
        progress: Called with the current step and its completed share, 0 to 1.
        graph: The SQL tables, by default the package's own.
        engine: What computes the tables; they are the same.

    Raises:
        AuditFailed: A staged table breaks a rule; no table has changed.
        CommitConflict: Another program changed a table during the build.
    """
    graph = graph or tables.graph()
    now = int(time.time() * 1000) if now is None else now
    catalog, config = context.catalog, context.config
    # pinned here: what lands while a build runs is the next build's
    before = catalog.tables()
    claims = tombstones.read(context.root, key).claims_digest(key)
    steps = plan(before, config, now, full=full, graph=graph, claims=claims)
    if all(step.action == "none" for step in steps):
        return _result("", steps, {}, before)
    from concurrent.futures import ThreadPoolExecutor

    from stedi.transform.stage import StagedBuild

    _check_sql(graph, before)
    run = run_id(now)
    threads = 1 if _is_small(steps, before) else config.engine_threads
    # what a killed build has spilled, or told its engine about customers, goes with the next command
    with context.temporary() as temporary:
        opened = partial(connect, engine, replace(config, engine_threads=threads), context.root, temporary)
        work = StagedBuild(context, key, graph, before, run, now, claims, opened)
        try:
            # a bucket needs PyIceberg, which is imported while DuckDB or Spark starts
            with ThreadPoolExecutor(1) as beside:
                warm = beside.submit(catalog.warm)
                work.stage(steps, progress)
                warm.result()
            progress("publish", None)
            work.publish()
        # interrupts, too
        except BaseException:
            work.discard()
            raise
    done = tuple(work.staged[step.table].step if step.table in work.staged else _untouched(step) for step in steps)
    return _result(run, done, work.staged, catalog.tables())


def _check_sql(graph: Dag, before: Mapping[str, TableState]) -> None:
    """Raises AuditFailed if SQL that has built no table yet carries identifiers where they are forbidden (rule 7).

    SQL that built a published table has passed this check already.
    """
    for table in graph.tables():
        current = before[table.name].current
        if current is None or current.summary.get("stedi.sql") != graph.fingerprint(table.name):
            from stedi.schema import classification

            classification.check(graph)
            return


def _is_small(steps: Sequence[Step], before: Mapping[str, TableState]) -> bool:
    """Says whether a build only follows a few readings and customers, or no table has more than a few rows."""
    if all(rows(state) <= _FEW for state in before.values()):
        return True
    if any(step.action == "rebuild" or any(found.rows > _FEW for found in step.increments.values()) for step in steps):
        return False
    if all(step.action != "by-customer" for step in steps):
        return True
    # a consent date that has come, without a new record, may concern any number of customers
    records = max(step.increments[_PEOPLE].rows for step in steps if _PEOPLE in step.increments)
    return 0 < records <= _FEW_PEOPLE and rows(before[_PEOPLE]) <= _FEW


def _untouched(step: Step) -> Step:
    return step if step.action == "none" else replace(step, action="none", reason="nothing has changed")


def withheld(context: Context, key: Key) -> tuple[Withheld, ...]:
    """Returns the landed readings of shared serial numbers without a certain owner (rule 6)."""
    from stedi.engines.duckdb import DuckDB
    from stedi.transform.session import BuildSession

    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        states = context.catalog.tables()
        # the clock does not matter: who claims a device and who moved do not depend on consent
        BuildSession(engine, context, key, tables.graph(), states, 0).view("shared_readings")
        rows = engine.rows(
            "select sensorReadingTime, serialNumber, distanceFromObject, matches from shared_readings "
            "where matches <> 1 order by serialNumber, sensorReadingTime, distanceFromObject"
        )
    return tuple(Withheld(datetime.fromtimestamp(at / 1000, UTC), *rest) for at, *rest in rows)


def _result(run: str, steps: Sequence[Step], staged: Mapping[str, Staged], after: Mapping[str, TableState]) -> Build:
    built = []
    for step in steps:
        change, now = staged.get(step.table), rows(after[step.table])
        built.append(
            Built(step.table, step.action, step.reason, 0, 0, now, 0.0)
            if change is None
            else Built(step.table, step.action, step.reason, change.added, change.removed, now, change.seconds)
        )
    trusted, steps_trusted = after["customers_trusted"], after["step_trainer_trusted"]
    return Build(
        run,
        tuple(built),
        withheld=recalled(steps_trusted, "stedi.withheld"),
        customers=recalled(trusted, "stedi.customers"),
        consenting=rows(trusted),
    )
