"""Explains rows of a table: the customer, the rule by which a row is there, and the landed files that it comes from.

The rows are read in the same sandboxed process as any query. Their sources are searched for in the landing zone, with
the relations of the proof. A row that no landed record explains is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from stedi._frozen import dataclass
from stedi.audit.explain import subjects
from stedi.audit.proof.as_of import AsOf
from stedi.audit.proof.expected import normal
from stedi.context import Context
from stedi.context.progress import instant
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.errors import UsageError
from stedi.privacy.pseudonyms import Key
from stedi.query import statement
from stedi.query.scans import FILE, ROW
from stedi.schema import tables
from stedi.schema.classification import ColumnLineage
from stedi.schema.contracts import PrivacyClass
from stedi.schema.tables import REQUIRED, ZONES

LIMIT = 20
"""The largest number of rows in one explanation."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Landed records from which a row was built.

    Attributes:
        table: Their landing table.
        file: The file that they came in.
        records: The number of records.
    """

    table: str
    file: str
    records: int


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One row, and why it is in the table.

    Attributes:
        row: Its values without direct identifiers.
        customers: Pseudonyms of its customers; several if several claim the device, none if no customer is known.
        why: The rules by which it is in the table.
        sources: The landed records that it comes from, if there are any.
    """

    row: Row
    customers: tuple[str, ...]
    why: str
    sources: tuple[Source, ...]


@dataclass(frozen=True, slots=True)
class ExplainedRows:
    """The first rows of a table that meet a condition.

    Attributes:
        table: The table.
        rows: The rows, each with its explanation.
        more: Whether more rows meet the condition.
    """

    table: str
    rows: tuple[ExplainedRow, ...]
    more: bool


Run = Callable[[str], list[dict[str, Any]]]
"""Runs one SELECT of `statement.condition` as a query, and returns its rows."""


def chosen(table: str, where: str, seen: Run, whole: Run) -> tuple[Sequence[Row], bool]:
    """Returns the first rows of a table that meet a condition, with all columns, and whether there are more.

    The condition is evaluated with the caller's role and chooses only places: files and row numbers in them. So it
    cannot reveal anything about a column that is masked for the caller. Only the rows at these places are read with all
    columns.

    Args:
        table: The table.
        where: The condition, without WHERE.
        seen: Runs a SELECT with the caller's role.
        whole: Runs a SELECT that sees every column.

    Raises:
        UsageError: There is no such table.
        QueryRefused: `where` is not a valid condition.
    """
    if table not in ZONES:
        raise UsageError(f"expected one of {', '.join(ZONES)}, found another; see `stedi tables`", argument="table")
    # one more than is explained tells that there are more
    places = seen(statement.condition(table, where, f"{FILE}, {ROW}", LIMIT + 1))
    if not places:
        return [], False
    # by place, not by value: the second query names nothing that the condition could have guessed
    there = " or ".join(f"({FILE} = {literal(place[FILE])} and {ROW} = {place[ROW]})" for place in places[:LIMIT])
    rows = whole(statement.condition(table, there, "*", LIMIT))
    found = [{name: value for name, value in row.items() if name not in (FILE, ROW)} for row in rows]
    return found, len(places) > LIMIT


def explain(context: Context, key: Key, table: str, rows: Sequence[Row], now: int) -> tuple[ExplainedRow, ...]:
    """Explains rows of one table.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        table: The table.
        rows: The rows, with all columns.
        now: The instant for which consent is evaluated, epoch milliseconds.
    """
    classes = ColumnLineage(tables.graph()).classes(table)
    with subjects.session(context, context.catalog.tables()) as engine:
        if ZONES[table] == "landing":
            found = [_landed(engine, key, table, row) for row in rows]
        else:
            found = list(_below(context, engine, key, table, rows, now))
    return tuple(
        ExplainedRow(
            {n: v for n, v in row.items() if classes[n] is not PrivacyClass.DIRECT}, customers, why, tuple(sources)
        )
        for row, (customers, why, sources) in zip(rows, found, strict=True)
    )


Why = tuple[tuple[str, ...], str, Sequence[Source]]
_NOTHING = "no landed record explains it: a build is due, or another program wrote it; see `stedi build --dry-run`"


def _landed(engine: DuckDB, key: Key, table: str, row: Row) -> Why:
    """Explains a row of the landing zone by the file that it came in."""
    if table == "landed_files":
        return (), "one row for each landed file; a replay of quarantined records adds one", ()
    if table == "quarantine":
        return (), f"it does not meet its contract: {row['reason']}", [Source(table, str(row["file"]), 1)]
    files = engine.rows(f"select arg_min(name, landed_at) from landed_files where sha256 = {literal(row['_file'])}")
    sources = [Source(table, name, 1) for (name,) in files if name is not None]
    whose = row.get("email", row.get("user"))
    if whose is not None:
        return (key.customer_id(str(whose)),), "every good record lands, whoever it belongs to", sources
    claims = engine.stream(
        f"select distinct email from every_customers_landing where serialNumber = {literal(row['serialNumber'])}"
    )
    customers = tuple(sorted({key.customer_id(email) for (email,) in claims}))
    claimed = f"{len(customers)} customer{' claims' if len(customers) == 1 else 's claim'} its serial number (rule 6)"
    return customers, f"every good record lands; {claimed}", sources


def _below(context: Context, engine: DuckDB, key: Key, table: str, rows: Sequence[Row], now: int) -> Iterator[Why]:
    since_consent = context.config.readings == "since-consent"
    wanted = {str(row["customer_id"]) for row in rows}
    # a pseudonym cannot be undone: each landed address is tried
    # one address at a time: those of all customers need not fit into memory
    emails = engine.stream("select distinct email from every_customers_landing")
    customers = {normal(email): id_ for (email,) in emails if (id_ := key.customer_id(email)) in wanted}
    subjects.work_out(context, engine, key, customers, AsOf({}, now, since_consent))
    for row in rows:
        if any(row[name] is None for name in REQUIRED[table]):
            yield (() if row["customer_id"] is None else (row["customer_id"],)), _NOTHING, ()
            continue
        who = subjects.person(engine, row["customer_id"])
        since = engine.rows(f"select since // 1000 from known where person = {who} and consents")
        why, sources = _TRACES[table](engine, who, row) if since else ("", [])
        if sources:
            policy = ", and readings from then on count (rule 4)" if since_consent else ""
            agrees = f"the customer's current record consents since {instant(since[0][0])} (rules 2 and 3)"
            yield (row["customer_id"],), f"{agrees}{policy}; {why}", sources
        else:
            yield (row["customer_id"],), _NOTHING, ()


Trace = Callable[[DuckDB, str, Row], tuple[str, list[Source]]]
"""Returns why a row of a consenting customer is there, and its sources; none if no landed record explains it."""


def _customer(engine: DuckDB, who: str, row: Row) -> tuple[str, list[Source]]:
    [(count, updated, share, file)] = engine.rows(
        f"select count(*) over (), updated, share, file from history where person = {who} order by place limit 1"
    )
    same = (updated, share) == (_ms(row["lastUpdateDate"]), _ms(row["shareWithResearchAsOfDate"]))
    sources = [Source("customers_landing", file, 1)] if same else []
    return f"it is the current one of {count} landed record{'s' * (count != 1)}", sources


def _curated(engine: DuckDB, who: str, row: Row) -> tuple[str, list[Source]]:
    why, sources = _customer(engine, who, row)
    return f"{why}; there are trusted accelerometer readings", sources


def _motion(engine: DuckDB, who: str, row: Row) -> tuple[str, list[Source]]:
    return "its user is the customer (rule 5)", _motions(engine, who, row["timestamp"], row)


def _step(engine: DuckDB, who: str, row: Row) -> tuple[str, list[Source]]:
    why, serials = _owned(engine, who, row, f"serialNumber = {literal(row['serialNumber'])}")
    return why, _steps(engine, row, serials)


def _training(engine: DuckDB, who: str, row: Row) -> tuple[str, list[Source]]:
    why, serials = _owned(engine, who, row, "true")
    motions = _motions(engine, who, row["sensorReadingTime"], row)
    if not serials or not motions:
        return "", []
    why = f"both readings belong to the customer and have the same timestamp; the step trainer reading: {why}"
    return why, _steps(engine, row, serials) + motions


def _owned(engine: DuckDB, who: str, row: Row, which: str) -> tuple[str, list[str]]:
    """Returns why a step reading belongs to a customer, and the landed serial numbers; none if it does not."""
    found = engine.rows(
        "select serialNumber, claimants from steps as s join devices as d on s.serial = d.serial "
        # the relations of the proof have microseconds
        f"where due and owner = {who} and {which} and moment = {_ms(row['sensorReadingTime'])} * 1000 "
        f"and distance = {row['distanceFromObject']}"
    )
    claimants = max((claimants for _, claimants in found), default=0)
    if claimants == 1:
        why = "nobody else claims its serial number (rule 6)"
    else:
        why = f"of {claimants} claimants of its serial number only this customer moved at that moment (rule 6)"
    return why, [serial for serial, _ in found]


def _motions(engine: DuckDB, who: str, at: datetime, row: Row) -> list[Source]:
    # `repr` of a double reads back as the same double; without quotes `inf` would be a column
    vector = " and ".join(f"{axis} = '{float(row[axis])!r}'::double" for axis in "xyz")
    counts = f"select 1 from motions where person = {who} and in_time and moment = {_ms(at)} * 1000 and {vector}"
    return _sources(
        engine,
        "accelerometer_landing",
        f'exists ({counts}) and "user" in (select address from persons where person = {who}) '
        f'and "timestamp" = {_ms(at)} and {vector}',
    )


def _steps(engine: DuckDB, row: Row, serials: Sequence[str]) -> list[Source]:
    return _sources(
        engine,
        "step_trainer_landing",
        f"serialNumber in ({subjects.listed(serials)}) and sensorReadingTime = {_ms(row['sensorReadingTime'])} "
        f"and distanceFromObject = {row['distanceFromObject']}",
    )


def _sources(engine: DuckDB, table: str, where: str) -> list[Source]:
    found = engine.rows(
        f"select {subjects.FILE_NAME}, count(*) from {table} as a left join {subjects.FILES} as f "
        f"on a._file = f.sha256 where {where} group by 1 order by 1"
    )
    return [Source(table, name, count) for name, count in found]


_TRACES: Mapping[str, Trace] = {
    "customers_trusted": _customer,
    "accelerometer_trusted": _motion,
    "customers_curated": _curated,
    "step_trainer_trusted": _step,
    "machine_learning_curated": _training,
}


def _ms(moment: datetime) -> int:
    # `timestamp()` is a float, just below or above the millisecond
    return round(moment.timestamp() * 1000)
