"""Gathers the content of the report from a lake.

Everything comes from the catalog's metadata, from verbs, or from aggregates of few columns; what would need a scan of
all readings is measured over a sample of people (`measurements`). Instants come from the lake, never from the clock, so
the same state of a lake gives the same report. Text that people or files brought is shown as text, cut, and without
addresses. Counts of people pass `disclosure`.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime

from stedi._frozen import asdict, replace
from stedi._version import __version__
from stedi.audit import consent_history
from stedi.audit import record as audits
from stedi.audit.consent_history import Period
from stedi.audit.record import AuditRecord
from stedi.catalog import TableState
from stedi.context import Context
from stedi.datasets import registry, staleness
from stedi.engines.duckdb import DuckDB
from stedi.errors import LakeError, many, printable
from stedi.landing.quarantine import faults
from stedi.privacy import receipts
from stedi.privacy.pseudonyms import Key
from stedi.report import disclosure, measurements
from stedi.report.content import (
    FORMAT,
    ColumnLine,
    LandedDay,
    QuarantinedFile,
    QuarantineEntry,
    ReceiptEntry,
    ReleaseEntry,
    Report,
    RiskEntry,
    RiskLine,
    RoleLine,
    SnapshotLine,
    Stage,
    State,
    TableEntry,
    Verdict,
)
from stedi.report.disclosure import NOT_SHOWN, Disclosure, Figure, difference, few
from stedi.report.earlier import Change, Changes, Earlier
from stedi.schema import classification, roles, tables
from stedi.schema.descriptions import describe
from stedi.schema.tables import ALL_ZONES, ZONES, graph

_LONGEST = 120
"""The most characters shown of a text from somebody else."""
_MOST_SNAPSHOTS, _MOST_FILES, _MOST_DAYS, _MOST_RELEASES, _MOST_RECEIPTS = 8, 20, 60, 25, 40
_MOST_PERIODS, _MOST_MODELS = 60, 5
_ADDRESS = re.compile(r"[^\s/\\]*(?:@|%40|\uff20)[^\s/\\]*", re.IGNORECASE)
"""What may be an address, also encoded or in full width; too much is masked rather than too little."""
_PSEUDONYM = re.compile(r"[0-9a-f]{32}", re.IGNORECASE)
"""A `customer_id`, which stands in no text for people."""
_OF_PEOPLE = ("customers_trusted", "customers_curated")
"""Tables of which each row is a person."""
_OF_SUBJECTS = ("release_subjects", "release_events")
"""Tables whose row counts would reveal how many people are in a release, or were erased from one."""
_BY_PERSON = (*_OF_PEOPLE, *_OF_SUBJECTS, "customers_landing")
"""Tables of which a landing or a build may add the rows of one person: how many it added is not shown."""


def gather(context: Context, key: Key, earlier: Earlier | None = None) -> Report:
    """Returns the report on a lake; changes nothing.

    Args:
        context: The lake.
        key: Its key, with which releases identify people.
        earlier: An earlier report, to say what has changed since; one of this very state hands on what that one was
            compared with, so that the same report is made again.
    """
    states = context.catalog.tables()
    last, verdict = _verdict(context, states)
    pool = Disclosure(context.config.report_min_count)
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        for name, state in states.items():
            engine.bind_files(name, context.catalog.files(state))
        # the lake's time, not the clock's: two reports of one state are equal
        as_of = max((state.current.at for state in states.values() if state.current), default=None)
        funnel, superseded = _funnel(engine, context, key, states, pool)
        periods = _consent(context, funnel, pool.least, as_of)
        days, days_total = _days(engine)
        releases, releases_total = _releases(context, key, pool, as_of)
        told, told_total = _receipts(context)
        found = Report(
            FORMAT,
            context.config.lake_id,
            __version__,
            as_of,
            "",
            pool.least,
            verdict,
            None,
            _rows(states, "customers_landing"),
            superseded,
            funnel,
            periods[-_MOST_PERIODS:],
            len(periods),
            periods[-1].last if periods else None,
            _summary(states, "step_trainer_trusted", "stedi.withheld"),
            tuple(a for a in last.accounts if a.table not in _OF_PEOPLE) if last else (),
            _tables(states, funnel),
            _quarantine(engine),
            days,
            days_total,
            measurements.measure(engine, context, states, pool, as_of),
            releases,
            releases_total,
            told,
            told_total,
            _roles(),
            _risk(last, pool),
            {},
        )
    found = replace(found, figures=_figures(found))
    # before the changes: they depend on the earlier report, the state does not
    found = replace(found, state=_digest(found))
    return replace(found, changes=_changes(found, earlier) if earlier else None)


def text(found: str) -> str:
    """Returns a text from somebody else in a form that may be shown: visible, short, without addresses."""
    plain = printable(_PSEUDONYM.sub("\u2026", _ADDRESS.sub("(address)", found)))
    return plain if len(plain) <= _LONGEST else f"{plain[:_LONGEST]}\u2026 ({many(len(found), 'character')})"


def _verdict(context: Context, states: Mapping[str, TableState]) -> tuple[AuditRecord | None, Verdict]:
    try:
        last = audits.last(context)
    except LakeError:
        return None, Verdict("refused")
    if last is None:
        return None, Verdict("none")
    moved = last.moved(states)
    state: State = "violated" if not last.holds else "outdated" if moved else "holds"
    return last, Verdict(state, last.at, len(last.checks), last.held, last.violations, last.files, moved, last.due)


def _rows(states: Mapping[str, TableState], name: str) -> int:
    current = states[name].current if name in states else None
    return current.total("records") if current else 0


def _summary(states: Mapping[str, TableState], name: str, what: str) -> int:
    current = states[name].current
    return int(current.summary.get(what, 0)) if current else 0


def _funnel(
    engine: DuckDB, context: Context, key: Key, states: Mapping[str, TableState], pool: Disclosure
) -> tuple[tuple[Stage, ...], Figure]:
    """Returns the stages from known to released, and how many customer records later ones have superseded."""
    [(trained,)] = engine.rows("select count(*) from (select distinct customer_id from machine_learning_curated)")
    counts = (
        ("known", _summary(states, "customers_trusted", "stedi.customers"), ""),
        ("consent to research", _rows(states, "customers_trusted"), "no consent"),
        ("with readings", _rows(states, "customers_curated"), "no accelerometer reading that counts"),
        ("in training data", int(trained), "no step trainer reading together with an accelerometer reading"),
        ("in releases", _released(engine, context, key), "in no release"),
    )
    stages: list[Stage] = []
    for name, count, reason in counts:
        # in order of importance: a count that is too near an earlier one is held back
        people = pool.figure(count)
        out = difference(stages[-1].people, people) if stages else None
        stages.append(Stage(name, people, out, reason))
    known = stages[0].people
    return tuple(stages), _rows(states, "customers_landing") - known if isinstance(known, int) else NOT_SHOWN


def _consent(context: Context, funnel: Iterable[Stage], least: int, as_of: datetime | None) -> tuple[Period, ...]:
    """Returns consent over time at a moment, with months merged until no count of people is small."""
    if as_of is None:
        return ()
    months = consent_history.history(context, "month", round(as_of.timestamp() * 1000)).periods
    before = 0
    flows = []
    for month in months:
        arrived, before = month.known - before, month.known
        first = month.joined - month.rejoined
        flows.append((month.joined, month.rejoined, first, month.withdrew, month.erased, arrived))
    present = [stage.people if isinstance(stage.people, int) else None for stage in funnel][:2]
    parts = disclosure.merged(flows, [(month.known, month.consenting) for month in months], least, present)
    found: list[Period] = []
    for first_, last in parts:
        part = months[first_ : last + 1]
        counts = (sum(getattr(month, name) for month in part) for name in ("joined", "rejoined", "withdrew", "erased"))
        end = part[-1]
        period = Period(part[0].start, end.start, end.known, end.consenting, *counts)
        if found and period.quiet and found[-1].quiet:
            period = replace(period, start=found.pop().start)
        found.append(period)
    return tuple(found)


def _released(engine: DuckDB, context: Context, key: Key) -> int:
    """Returns how many people of the training table are in a release that was not deleted."""
    entries = [entry for entry in registry.releases(context) if not entry.deleted]
    if not entries:
        return 0
    trained = "select customer_id from machine_learning_curated"
    emails = engine.rows(f"select email from customers_trusted where customer_id in ({trained})")
    return staleness.members(context, key, (email for (email,) in emails), entries)


def _tables(states: Mapping[str, TableState], funnel: Iterable[Stage]) -> tuple[TableEntry, ...]:
    lineage = classification.ColumnLineage(graph())
    people = {"customers_trusted": "consent to research", "customers_curated": "with readings"}
    shown = {stage.name: stage.people for stage in funnel}
    found = []
    for name, state in states.items():
        rows = shown[people[name]] if name in people else _rows(states, name)
        if name in _OF_SUBJECTS:
            rows = NOT_SHOWN
        found.append(_table(state, rows, {c: str(k) for c, k in lineage.classes(name).items()}))
    return tuple(found)


def _table(state: TableState, rows: Figure, classes: Mapping[str, str]) -> TableEntry:
    name, current = state.name, state.current
    select = graph().selects.get(name)
    columns = tuple(
        ColumnLine(column.name, column.type, classes[column.name], *_described(name, column.name))
        for column in state.columns
    )
    history = state.history()
    countable = name not in _BY_PERSON
    lines = tuple(
        SnapshotLine(
            str(snapshot.id),
            snapshot.at,
            snapshot.operation,
            snapshot.total("records") if countable else None,
            {read: str(id_) for read, id_ in json.loads(snapshot.summary.get("stedi.inputs", "{}")).items()},
        )
        for snapshot in history[:_MOST_SNAPSHOTS]
    )
    return TableEntry(
        name,
        ALL_ZONES[name],
        rows,
        # the size of a table follows the number of its rows
        current.total("files-size") if current and isinstance(rows, int) else None,
        current.at if current else None,
        tables.graph().inputs(name) if select else (),
        dict(Counter(column.privacy for column in columns)),
        columns,
        select.sql if select else "",
        lines,
        len(history),
    )


def _described(table: str, column: str) -> tuple[str, str]:
    found = describe(table, column)
    return found.text, found.unit


def _quarantine(engine: DuckDB) -> QuarantineEntry:
    counts = engine.rows(
        "select reason, feed, file, count(*) as n from quarantine group by all order by n desc, reason, feed, file"
    )
    by_reason = Counter[str]()
    for reason, _, _, count in counts:
        by_reason[reason] += count
    lines = tuple(QuarantinedFile(text(file), feed, reason, n) for reason, feed, file, n in counts[:_MOST_FILES])
    wrong, looked_at = faults(engine)
    return QuarantineEntry(
        sum(by_reason.values()),
        dict(sorted(by_reason.items(), key=lambda item: (-item[1], item[0]))),
        lines,
        len(counts),
        wrong[:_MOST_FILES],
        len(wrong),
        looked_at,
    )


def _days(engine: DuckDB) -> tuple[tuple[LandedDay, ...], int]:
    """Returns the landings of the last days with any, and the number of such days."""
    found = engine.rows(
        "select landed_at::date as day, count(*) filter (where seen > 0), "
        "sum(accepted) filter (where feed = 'accelerometer'), "
        "sum(accepted) filter (where feed = 'step_trainer'), sum(quarantined), sum(erased) "
        "from landed_files group by day order by day"
    )
    days = tuple(
        LandedDay(
            day,
            int(files),
            {"accelerometer": int(a or 0), "step_trainer": int(s or 0)},
            int(quarantined or 0),
            int(erased or 0),
        )
        for day, files, a, s, quarantined, erased in found
    )
    return days[-_MOST_DAYS:], len(days)


def _releases(
    context: Context, key: Key, pool: Disclosure, as_of: datetime | None
) -> tuple[tuple[ReleaseEntry, ...], int]:
    entries = sorted(registry.releases(context), key=lambda entry: (entry.released_at, entry.name), reverse=True)
    if not entries or as_of is None:
        return (), 0
    gone = staleness.stale(context, key, round(as_of.timestamp() * 1000), [e for e in entries if not e.deleted])
    lines = tuple(
        ReleaseEntry(
            entry.release,
            entry.released_at,
            entry.purpose,
            text(entry.recipient),
            pool.figure(entry.subjects),
            entry.rows,
            pool.figure(len(gone.get(entry.release, ()))),
            tuple(map(text, entry.models[-_MOST_MODELS:])),
            len(entry.models),
            entry.recalls[-_MOST_MODELS:],
            len(entry.recalls),
            entry.deleted,
        )
        for entry in entries[:_MOST_RELEASES]
    )
    return lines, len(entries)


def _receipts(context: Context) -> tuple[tuple[ReceiptEntry, ...], int]:
    found = receipts.listed(context.root)
    known = {digest: str(each["id"]) for each in found for digest in receipts.digests(each)}
    lines = tuple(
        ReceiptEntry(
            text(str(each["id"])),
            text(str(each.get("ended", ""))),
            _follows(each, known),
            each["clean"] if isinstance(each.get("clean"), bool) else None,
            tuple(receipts.OUT_OF_REACH.get(word, text(str(word))) for word in each.get("not_reached", ())),
        )
        for each in reversed(found[-_MOST_RECEIPTS:])
    )
    return lines, len(found)


def _follows(receipt: receipts.Receipt, known: Mapping[str, str]) -> str:
    """Returns the previous receipts of one, in words."""
    links = receipts.links(receipt)
    return ", ".join(text(known.get(link, f"one that is gone, of SHA-256 {link[:16]}")) for link in links) or "none"


def _roles() -> tuple[RoleLine, ...]:
    return tuple(
        RoleLine(
            role,
            ("all",) if len(shown) == len(ALL_ZONES) else tuple(table.name for table in shown),
            tuple(sorted({column for table in shown for column in table.masked})),
        )
        for role, shown in roles.visible().items()
    )


def _risk(last: AuditRecord | None, pool: Disclosure) -> RiskEntry | None:
    if last is None or last.risk is None:
        return None
    people = pool.figure(last.risk.customers)
    lines = []
    for each in last.risk.exposures:
        own = Disclosure(pool.least, [people])  # kinds of knowledge are independent of each other
        # whom all rows single out is shown first: it is the graver of the two
        by_all, by_one = own.figure(each.by_all), own.figure(each.by_one)
        lines.append(RiskLine(each.known, each.resolution, by_one, by_all))
    return RiskEntry(last.at, people, tuple(lines))


def _figures(found: Report) -> dict[str, Figure]:
    """Returns the figures with which a later report is compared."""
    people: dict[str, Figure] = {f"people: {stage.name}": stage.people for stage in found.funnel}
    rows: dict[str, Figure] = {
        f"rows: {table.name}": table.rows
        for table in found.tables
        if table.name in ZONES and table.name not in _OF_PEOPLE
    }
    return {
        **people,
        **rows,
        "readings withheld": found.withheld,
        "releases": found.releases_total,
        "recalls of these releases": sum(release.recalls_total for release in found.releases),
        "receipts of erasures": found.receipts_total,
        "violations in the last audit": found.verdict.violations,
    }


def _changes(found: Report, earlier: Earlier) -> Changes | None:
    """Returns how the figures differ from those of an earlier state, or None if no earlier one is known."""
    if earlier.lake != found.lake:
        raise LakeError(
            f"the earlier report: expected one of the lake {found.lake}, found one of another lake; nothing was written"
        )
    if earlier.state == found.state or earlier.as_of is None:
        return earlier.changes
    lines = []
    for what, now in found.figures.items():
        then = earlier.figures.get(what)
        if then is None:
            continue
        change = difference(now, then)
        by_person = what.startswith("people: ") or what == "rows: customers_landing"
        if by_person and isinstance(change, int) and 0 < abs(change) < found.min_count:
            # two reports of a day apart tell of one person as well as two counts of one page
            change = few(found.min_count)
        lines.append(Change(what, now, change))
    return Changes(earlier.as_of, tuple(lines))


def _digest(found: Report) -> str:
    """Returns the digest of a report's state."""
    plain = json.dumps(asdict(found), default=str, sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()
