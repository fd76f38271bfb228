"""The status of a lake: what ran last, what waits, what is late or wrong.

It is read from the catalog, the history of runs and the state files. An engine starts only if customers' records wait
for a build, or the lake has releases: otherwise the answer takes no longer than a list of the tables.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from stedi._frozen import dataclass
from stedi.catalog import TableState
from stedi.context import Context, milliseconds, runs
from stedi.context.runs import Run
from stedi.errors import CopiedLake, KeyRefused, LakeError, StediError
from stedi.privacy import consent, key_change, tombstones
from stedi.schema import tables
from stedi.schema.tables import ZONES
from stedi.storage import durable, s3
from stedi.transform import planning
from stedi.transform.planning import Step

COMMANDS = ("land", "build", "audit", "maintain")
"""The commands that are to run again and again."""
_CUSTOMERS = "customers_landing"
_DAY = 86_400_000
_ROOM = 100 << 20
"""Bytes that a lake needs besides its tables: for sorting, and to rewrite one table."""
_SKEW = timedelta(minutes=5)
"""How far the clocks of two machines may be apart."""


@dataclass(frozen=True, slots=True)
class Due:
    """What waits for a build.

    Attributes:
        tables: The tables that a build would change, by name, and why.
        since: When the oldest waiting record landed, UTC; None if that is unknown or nothing waits.
        withdrawn: Customers whose rows a build would remove, since they no longer consent.
        agreed: Customers whose rows a build would add.
    """

    tables: Mapping[str, str]
    since: datetime | None
    withdrawn: int
    agreed: int


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk space of a lake.

    Attributes:
        bytes: Size of the tables' current files.
        free: Free bytes on the lake's disk; None in a bucket.
    """

    bytes: int
    free: int | None


@dataclass(frozen=True, slots=True)
class Status:
    """The state of a lake in daily operation.

    Attributes:
        late: What is late or wrong, one sentence each.
        last: The last run of each of `land`, `build`, `audit` and `maintain`; None if there was none.
        due: What waits for a build.
        unfinished: Unfinished work of interrupted commands, and the command that finishes it.
        stale_releases: Releases with people who may no longer be used, `NAME@VERSION`.
        overdue: Snapshots that maintenance should have expired by now.
        disk: The disk space.
    """

    late: tuple[str, ...]
    last: Mapping[str, Run | None]
    due: Due
    unfinished: tuple[str, ...]
    stale_releases: tuple[str, ...]
    overdue: int
    disk: Disk

    @property
    def ok(self) -> bool:
        """Whether nothing is late or wrong."""
        return not self.late


def status(context: Context, max_age: timedelta, now: datetime | None = None) -> Status:
    """Returns the status of a lake; unreadable parts are reported as wrong, beside the rest.

    Args:
        context: The lake.
        max_age: How long ago the last landing and the last build may have ended, and how long something may wait.
        now: The instant; the clock's time by default.
    """
    now = now or datetime.now(UTC)
    late: list[str] = []
    states: Mapping[str, TableState] = {}
    try:
        states = context.catalog.tables()
    except StediError as error:
        late.append(str(error))
    late += _wrong(context)
    last = _last(context, states)
    late += _late_runs(last, states, max_age, now)
    due = Due({}, None, 0, 0)
    overdue, stale = 0, tuple[str, ...]()
    if states:
        try:
            due = _due(context, states, now)
            overdue = _overdue(context, states, now - max_age)
            stale = _stale(context, states, now)
        except (StediError, OSError) as error:
            if not isinstance(error, KeyRefused):  # which is reported already
                late.append(
                    str(error) if isinstance(error, StediError) else error.strerror or "the disk cannot be read"
                )
        with suppress(StediError, OSError):  # which is reported already
            if context.erased_claims() is None:
                late.append(
                    "claims of erased customers: expected the lake's key to compare them with those that the tables "
                    "were built with, did not find it: more may wait for a build"
                )
    if due.since is not None and now - due.since > max_age:
        whose = f", withdrawals among it: {due.withdrawn:,}" if due.withdrawn else ""
        late.append(f"what was landed {_ago(now - due.since)} waits for a build{whose}: run `stedi build`")
    if overdue:
        late.append(f"snapshots that should have expired: {overdue:,}: run `stedi maintain`")
    late += [
        f"release {name} holds somebody who may no longer be used: `stedi dataset refresh {name.partition('@')[0]}` "
        f"makes the next version, `stedi dataset recall {name}` the file for holders of copies, and `stedi dataset "
        f"delete {name}` ends this"
        for name in stale
    ]
    unfinished = tuple(_unfinished(context))
    late += unfinished
    disk = _disk(context.root, states)
    if disk.free is not None and disk.free < disk.bytes + _ROOM:
        late.append(
            f"disk: expected {size(disk.bytes + _ROOM)} free, what rewriting every table takes, found "
            f"{size(disk.free)}: free some, or run `stedi maintain`"
        )
    return Status(tuple(dict.fromkeys(late)), last, due, unfinished, stale, overdue, disk)


def _wrong(context: Context) -> Iterator[str]:
    """Yields what keeps commands from writing at all."""
    try:
        context.refuse_copied()
    except CopiedLake as error:
        yield str(error)
    try:
        context.key()
    except (StediError, OSError) as error:
        yield str(error) if isinstance(error, StediError) else f"key: {error.strerror}"
    else:
        with suppress(OSError):
            try:
                context.refuse_older()
            except LakeError as error:
                yield str(error)


def _last(context: Context, states: Mapping[str, TableState]) -> dict[str, Run | None]:
    """Returns the last run of each command: by the history, or by what the tables say where it began later."""
    found: dict[str, Run | None] = {}
    # newest first; the history may be long, so it is read no further than needed
    for run in runs.history(context.root):
        if run.command in COMMANDS and run.outcome not in ("running", "busy") and run.command not in found:
            found[run.command] = run
        if len(found) == len(COMMANDS):
            break
    for command in COMMANDS:
        if command not in found:
            found[command] = _by_traces(context, command, states)
    return {command: found[command] for command in COMMANDS}


def _by_traces(context: Context, command: str, states: Mapping[str, TableState]) -> Run | None:
    """Returns the last run of a command by its traces in the lake, for runs from before the history."""
    if command == "audit":
        from stedi.audit import record

        with suppress(StediError, OSError):
            kept = record.last(context)
            if kept is not None:
                return Run("", command, kept.at, outcome="done" if kept.holds else "failed")
        return None
    marks = {"land": "stedi.batch", "build": "stedi.run", "maintain": "stedi.maintained"}
    at = [
        snapshot.at
        for name, state in states.items()
        for snapshot in state.snapshots
        # compaction repeats the lineage of the snapshot before it: that is not another landing or build
        if marks[command] in snapshot.summary and (command == "maintain" or "stedi.maintained" not in snapshot.summary)
    ]
    return Run("", command, max(at), outcome="done") if at else None


def _late_runs(
    last: Mapping[str, Run | None], states: Mapping[str, TableState], max_age: timedelta, now: datetime
) -> Iterator[str]:
    for command, run in last.items():
        if run is None:
            if command in ("land", "build") and states:
                yield f"{command}: there was none yet: run `stedi {command}`"
            continue
        if run.started - now > _SKEW:
            yield (
                f"clock: the last {command} began at {run.started:%Y-%m-%d %H:%M:%SZ}, which is in the future: "
                "set this machine's clock"
            )
        if run.outcome != "done":
            why = f": {run.error}" if run.error else ""
            yield f"{command}: the last one, {_ago(now - run.started)}, {_ENDED[run.outcome]}{why}"
        elif command in ("land", "build") and now - (run.ended or run.started) > max_age:
            yield f"{command}: the last one was {_ago(now - run.started)}, expected one within {_span(max_age)}"


_ENDED = {"failed": "failed", "killed": "was killed", "interrupted": "was interrupted"}


def _due(context: Context, states: Mapping[str, TableState], now: datetime) -> Due:
    """Returns what waits for a build."""
    at = milliseconds(now)
    claims = context.erased_claims()
    steps = planning.plan(states, context.config, at, full=False, graph=tables.graph(), claims=claims)
    waiting = [step for step in steps if step.action != "none"]
    if not waiting:
        return Due({}, None, 0, 0)
    began = [
        snapshot.at
        for step in waiting
        for name, increment in step.increments.items()
        if ZONES.get(name) == "landing"
        for snapshot in increment.appended
    ]
    if not began:  # a new or rebuilt table
        began = [
            state.snapshots[0].at for name, state in states.items() if ZONES.get(name) == "landing" and state.snapshots
        ]
        trusted = states["customers_trusted"].current
        if trusted is not None:
            # without a date that has passed, only SQL or a setting has changed: nobody's records wait
            passed = int(trusted.summary.get("stedi.next-consent-at", at))
            began = [datetime.fromtimestamp(passed / 1000, UTC)] if passed < at else []
    [step] = [step for step in steps if step.table == "customers_trusted"]
    withdrawn, agreed = _changes(context, states, step, at) if step.action != "none" else (0, 0)
    return Due({step.table: step.reason for step in waiting}, min(began, default=None), withdrawn, agreed)


def _changes(context: Context, states: Mapping[str, TableState], step: Step, now: int) -> tuple[int, int]:
    """Returns how many customers a build would remove and add because their consent has changed."""
    from stedi.engines.duckdb import DuckDB

    landed, built = states[_CUSTOMERS], states["customers_trusted"].current
    increment = step.increments.get(_CUSTOMERS)
    started = int(built.summary.get("stedi.started", 0)) if built else 0
    watermark = json.loads(built.summary.get("stedi.inputs", "{}")).get(_CUSTOMERS) if built else None
    since = landed.snapshot(watermark)
    catalog, plain = context.catalog, "lower(trim(email))"
    columns = "email, lastUpdateDate, shareWithResearchAsOfDate"
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        engine.bind_files(_CUSTOMERS, catalog.files(landed))
        # only people with new records can have changed, unless a consent date has passed: then all are judged
        which = ""
        if increment is not None and not _passed(built.summary if built else {}, now):
            added = [file for snapshot in increment.appended for file in catalog.added(landed, [snapshot])]
            engine.bind_files("gained", added, table=_CUSTOMERS)
            # spellings of rule 1 that differ otherwise have a letter outside ASCII
            which = f"where {plain} in (select {plain} from gained) or not regexp_full_match(email, '[ -~]*')"
        agree = consent.agreeing(engine.stream(f"select {columns} from {_CUSTOMERS} {which}"), now).keys()
        before: set[str] = set()
        if since is not None:
            engine.bind_files(_CUSTOMERS, catalog.files(landed, since))
            sql = f"select {columns} from {_CUSTOMERS} {which}"
            before = set(consent.agreeing(engine.stream(sql), started))
    return len(before - agree), len(agree - before)


def _passed(built: Mapping[str, str], now: int) -> bool:
    """Returns whether a consent date has passed since a build, or the clock has gone back over one."""
    return int(built.get("stedi.next-consent-at", now + 1)) <= now or int(built.get("stedi.last-consent-at", now)) > now


def _overdue(context: Context, states: Mapping[str, TableState], before: datetime) -> int:
    """Returns how many snapshots maintenance would have expired at an instant, and has not."""
    config = context.config
    # a cheap test first: most lakes have no old snapshot, and then no file is listed and no engine started
    oldest = milliseconds(before) - min(config.keep_days, config.history_days) * _DAY
    if not any(len(s.snapshots) > 1 and s.snapshots[0].at_ms < oldest for s in states.values()):
        return 0
    from stedi.operations import maintenance

    return sum(len(maintenance.overdue(context, states, name, milliseconds(before))) for name in states)


def _stale(context: Context, states: Mapping[str, TableState], now: datetime) -> tuple[str, ...]:
    if "releases" not in states:
        return ()
    from stedi.datasets import staleness

    return tuple(staleness.stale(context, context.key(), milliseconds(now)))


def _unfinished(context: Context) -> Iterator[str]:
    """Yields unfinished work of interrupted commands; running ones do not count."""
    root = context.root
    # what looks unfinished may be what that command is doing
    writing = any(durable.is_held(root / f"{name}.lock") for name in durable.ALL)
    if writing:
        return
    pending = sum(1 for _ in (root / "pending").glob("*.json"))
    if pending:
        yield f"a landing was interrupted: {pending:,} of its batches wait: run `stedi build`"
    if (root / tombstones.PENDING).exists():
        yield "an erasure was interrupted: run `stedi erase --resume`"
    if key_change.left(root):
        yield "a key rotation was interrupted: run `stedi build`"
    if (root / "releasing.json").exists():
        yield "a release was interrupted: run `stedi build`"


def _disk(root: Path, states: Mapping[str, TableState]) -> Disk:
    size = sum(state.current.total("files-size") for state in states.values() if state.current)
    return Disk(size, None if s3.is_remote(root) else shutil.disk_usage(root).free)


def _ago(age: timedelta) -> str:
    return f"{_span(age)} ago" if age >= timedelta(seconds=1) else "just now"


def _span(span: timedelta) -> str:
    """Returns a length of time in its largest two units."""
    seconds = int(span.total_seconds())
    parts = [(seconds // 86_400, "d"), (seconds // 3600 % 24, "h"), (seconds // 60 % 60, "min"), (seconds % 60, "s")]
    told = [f"{count} {unit}" for count, unit in parts if count]
    return " ".join(told[:2]) or "0 s"


def size(count: float) -> str:
    """Returns a number of bytes for people, in three digits and the unit that fits."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"
