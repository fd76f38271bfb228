"""Why rows of a table are there: whose each is, which rule let it in, and the landed files that it comes from.

The rows come from the same closed process as any query's; what they were made from is looked for in the landing
zone, by customer, with `landed.Person`. A row that nothing landed accounts for is said to be one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from stedi.audit.explain.person import Person, listed
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.errors import UsageError
from stedi.privacy.erased import claimants
from stedi.privacy.pseudonyms import Key, normalise
from stedi.query import statement
from stedi.query.scans import FILE, ROW
from stedi.schema import tables
from stedi.schema.classification import ColumnLineage
from stedi.schema.contracts import PrivacyClass
from stedi.schema.tables import ZONES

LIMIT = 20
"""Rows that one explanation looks at."""

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """Landed records that a row comes from.

    Attributes:
        table: Their landing table.
        file: The file that they came in.
        records: How many.
    """

    table: str
    file: str
    records: int


@dataclass(frozen=True, slots=True)
class ExplainedRow:
    """One row, and why it is there.

    Attributes:
        row: Its values but for direct identifiers.
        customers: Whose it is, by pseudonym; several where several claim a device, none where nobody is known.
        why: The rules that let it in.
        sources: What it comes from; none if nothing landed accounts for it.
    """

    row: Row
    customers: tuple[str, ...]
    why: str
    sources: tuple[Source, ...]


Run = Callable[[str], list[dict[str, Any]]]
"""Runs one SELECT of `statement.condition` as queries are run, and returns its rows."""


def chosen(table: str, where: str, seen: Run, whole: Run) -> tuple[Sequence[Row], bool]:
    """Returns the first rows of a table that meet a condition, with all columns, and whether there are more.

    The condition chooses places, files and numbers of rows in them, with the eyes of the one who asks; so it can find
    out nothing of a column that they may not see. Only what stands in these places is read whole.

    Args:
        table: The table.
        where: What stands after WHERE.
        seen: Runs a SELECT with the eyes of the one who asks.
        whole: Runs one with eyes that see every column.

    Raises:
        UsageError: There is no such table.
        QueryRefused: The condition is not one.
    """
    if table not in ZONES:
        raise UsageError(f"--table: expected one of {', '.join(ZONES)}, found another; see `stedi tables`")
    places = seen(statement.condition(table, where, f"{FILE}, {ROW}", LIMIT + 1))
    if not places:
        return [], False
    there = " or ".join(f"({FILE} = {literal(place[FILE])} and {ROW} = {place[ROW]})" for place in places[:LIMIT])
    rows = whole(statement.condition(table, there, "*", LIMIT))
    found = [{name: value for name, value in row.items() if name not in (FILE, ROW)} for row in rows]
    return found, len(places) > LIMIT


def explain(
    engine: DuckDB,
    root: Path,
    key: Key,
    table: str,
    rows: Sequence[Row],
    now: int,
    *,
    since_consent: bool,
) -> tuple[ExplainedRow, ...]:
    """Explains rows of one table.

    Args:
        engine: A session in which every table is readable.
        root: The lake's folder.
        key: The lake's pseudonym key.
        table: The table.
        rows: The rows, with all columns.
        now: The instant at which consent is asked for, epoch milliseconds.
        since_consent: Whether readings before consent are left out.
    """
    classes = ColumnLineage(tables.graph()).classes(table)
    if ZONES[table] == "landing":
        found = [_landed(engine, key, table, row) for row in rows]
    else:
        found = list(_below(engine, root, key, table, rows, now, since_consent=since_consent))
    return tuple(
        ExplainedRow(
            {n: v for n, v in row.items() if classes[n] is not PrivacyClass.DIRECT}, customers, why, tuple(sources)
        )
        for row, (customers, why, sources) in zip(rows, found, strict=True)
    )


Why = tuple[tuple[str, ...], str, Sequence[Source]]
_NOTHING = "nothing landed accounts for it: a build is due, or it is not the lake's own; see `stedi build --dry-run`"


def _landed(engine: DuckDB, key: Key, table: str, row: Row) -> Why:
    """Explains a row of the landing zone: it came in a file."""
    if table == "landed_files":
        return (), "one row a landed file; a replay of quarantined records adds one", ()
    if table == "quarantine":
        return (), f"its contract refused it: {row['reason']}", [Source(table, str(row["file"]), 1)]
    files = engine.rows(f"select arg_min(name, landed_at) from landed_files where sha256 = {literal(row['_file'])}")
    sources = [Source(table, name, 1) for (name,) in files if name is not None]
    whose = row.get("email", row.get("user"))
    if whose is not None:
        return (key.customer_id(str(whose)),), "every good record lands, of whomever it is", sources
    claims = engine.stream(
        f"select distinct email from customers_landing where serialNumber = {literal(row['serialNumber'])}"
    )
    customers = tuple(sorted({key.customer_id(email) for (email,) in claims}))
    claimed = f"{len(customers)} customer{' claims' if len(customers) == 1 else 's claim'} its serial number (rule 6)"
    return customers, f"every good record lands; {claimed}", sources


def _below(
    engine: DuckDB, root: Path, key: Key, table: str, rows: Sequence[Row], now: int, *, since_consent: bool
) -> Iterator[Why]:
    wanted = {str(row["customer_id"]) for row in rows}
    names: dict[str, str] = {}
    for (email,) in engine.stream("select distinct email from customers_landing"):
        customer_id = key.customer_id(email)
        if customer_id in wanted:
            names[customer_id] = normalise(email)
    found: dict[int, Why] = {}
    for customer_id in wanted:
        theirs = {place: row for place, row in enumerate(rows) if row["customer_id"] == customer_id}
        person = (
            Person(engine, names[customer_id], now, partial(claimants, root, key)) if customer_id in names else None
        )
        for place, row in theirs.items():
            taken = row.get("timestamp", row.get("sensorReadingTime"))
            early = since_consent and person is not None and taken is not None and _ms(taken) < (person.since or 0)
            if person is None or person.since is None or early:
                found[place] = ((customer_id,), _NOTHING, ())
            else:
                why, sources = _TRACES[table](engine, person, row)
                since = f"the customer's current record agrees since {_shown(person.since)} (rules 2 and 3)"
                policy = ", and readings from then on count (rule 4)" if since_consent else ""
                found[place] = ((customer_id,), f"{since}{policy}; {why}" if sources else _NOTHING, sources)
    yield from (found[place] for place in range(len(rows)))


Trace = Callable[[DuckDB, Person, Row], tuple[str, list[Source]]]


def _customer(engine: DuckDB, person: Person, row: Row) -> tuple[str, list[Source]]:
    current, count = person.records[0], len(person.records)
    same = (current.updated, current.share) == (_ms(row["lastUpdateDate"]), _ms(row["shareWithResearchAsOfDate"]))
    sources = [Source("customers_landing", current.file, 1)] if same else []
    return f"it is the current one of {count} landed record{'s' * (count != 1)}", sources


def _curated(engine: DuckDB, person: Person, row: Row) -> tuple[str, list[Source]]:
    why, sources = _customer(engine, person, row)
    return f"{why}; there are trusted accelerometer readings", sources


def _motion(engine: DuckDB, person: Person, row: Row) -> tuple[str, list[Source]]:
    return "its user is the customer (rule 5)", _motions(engine, row["timestamp"], row)


def _step(engine: DuckDB, person: Person, row: Row) -> tuple[str, list[Source]]:
    found = engine.rows(
        "select claimants, whose from steps where "
        f"moment = {_ms(row['sensorReadingTime'])} and serialNumber = {literal(row['serialNumber'])} "
        f"and distanceFromObject = {row['distanceFromObject']}"
    )
    if not found or found[0][1] != "theirs":
        return "", []
    return _owned(found[0][0]), _steps(engine, row, [row["serialNumber"]])


def _training(engine: DuckDB, person: Person, row: Row) -> tuple[str, list[Source]]:
    found = engine.rows(
        f"select serialNumber, claimants from steps where moment = {_ms(row['sensorReadingTime'])} "
        f"and distanceFromObject = {row['distanceFromObject']} and whose = 'theirs'"
    )
    motions = _motions(engine, row["sensorReadingTime"], row)
    if not found or not motions:
        return "", []
    why = f"both readings are theirs, of the same timestamp; the step: {_owned(max(n for _, n in found))}"
    return why, _steps(engine, row, [serial for serial, _ in found]) + motions


def _owned(claimants: int) -> str:
    if claimants == 1:
        return "nobody else claims its serial number (rule 6)"
    return f"of {claimants} claimants of its serial number they alone moved at that moment (rule 6)"


def _motions(engine: DuckDB, at: datetime, row: Row) -> list[Source]:
    vector = " and ".join(f"a.{axis} = {float(row[axis])!r}::double" for axis in "xyz")
    return _sources(
        engine,
        "accelerometer_landing",
        f'"user" in (select address from movers where who = 0) and a."timestamp" = {_ms(at)} and {vector}',
    )


def _steps(engine: DuckDB, row: Row, serials: Sequence[str]) -> list[Source]:
    return _sources(
        engine,
        "step_trainer_landing",
        f"serialNumber in ({listed(serials)}) and sensorReadingTime = {_ms(row['sensorReadingTime'])} "
        f"and distanceFromObject = {row['distanceFromObject']}",
    )


def _sources(engine: DuckDB, table: str, where: str) -> list[Source]:
    return [
        Source(table, name, count)
        for name, count in engine.rows(
            "select coalesce(f.name, 'a file that the ledger does not know') as name, sum(a.records)::bigint from "
            f"(select _file, count(*) as records from {table} as a where {where} group by _file) as a "
            "left join (select sha256, arg_min(name, landed_at) as name from landed_files group by sha256) as f "
            "on a._file = f.sha256 group by name order by name"
        )
    ]


_TRACES: Mapping[str, Trace] = {
    "customers_trusted": _customer,
    "accelerometer_trusted": _motion,
    "customers_curated": _curated,
    "step_trainer_trusted": _step,
    "machine_learning_curated": _training,
}


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _shown(instant: int) -> str:
    return datetime.fromtimestamp(instant / 1000, UTC).isoformat().replace("+00:00", "Z")
