"""One customer as landed: their records, their readings, and whose each reading of their devices is.

Worked out from the landing zone by Python and SQL of its own, not by the build's: what is explained by the code that
is asked about would only say that it did what it did. Instants are epoch milliseconds. Only one person's rows, and
the names of who shares their devices, are held.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, quoted
from stedi.privacy.pseudonyms import normalise
from stedi.schema.contracts import INSTANT_BEGIN

_FILES = (
    "(select sha256, arg_min(name, landed_at) as name, epoch_ms(min(landed_at)) as landed_at from landed_files "
    "group by sha256)"
)
"""Each landed file once, by its first name."""


@dataclass(frozen=True, slots=True)
class Record:
    """A landed customer record.

    Attributes:
        updated: `lastUpdateDate`.
        share: `shareWithResearchAsOfDate`, or None.
        rest: What breaks further ties, in the order of rule 2: registration, serial number, name, phone, birthday, and
            then the address.
        file: The name of the file that it came in; `withdrawal` of one by command.
        landed_at: When that was landed.
    """

    updated: int
    share: int | None
    rest: tuple[int | str | None, ...]
    file: str
    landed_at: int | None

    @property
    def serial(self) -> str | None:
        """`serialNumber`; None in the withdrawal of somebody of whom nothing else is known."""
        serial = self.rest[1]
        return None if serial is None else str(serial)

    def agrees(self, now: int) -> bool:
        """Says whether it is a consent at an instant (rule 3)."""
        return self.begins is not None and self.begins <= now

    @property
    def begins(self) -> int | None:
        """When it begins to be a consent: at its consent date, and not before its own; None if it never does."""
        return None if self.share is None or self.share < INSTANT_BEGIN else max(self.share, self.updated)

    def rank(self, now: int) -> tuple[object, ...]:
        """Returns what is greatest for the current record (rule 2)."""
        values = (self.share, *self.rest)
        return (
            self.updated,
            not self.agrees(now),
            *((value is not None, value if value is not None else 0) for value in values),
        )


class Person:
    """One customer in a session in which the landing tables are bound; makes the relations `motions` and `steps`.

    `motions` has a row for each distinct accelerometer reading of theirs: `moment, x, y, z, copies`. `steps` has one
    for each distinct reading of a device that they claim: `moment, serialNumber, distanceFromObject, copies, claimants`
    and `whose`: `theirs`, `another's`, or `withheld` (rule 6).

    Args:
        engine: The session.
        normal: The normal form of their address.
        now: The instant at which consent is asked for.
        erased: How many erased customers claimed a serial number.

    Attributes:
        records: Their records, the current one first.
        spellings: The addresses under which these were delivered.
        since: Since when they agree, or None.
    """

    def __init__(self, engine: DuckDB, normal: str, now: int, erased: Callable[[str], int]) -> None:
        self.normal = normal
        self.spellings = sorted(spelled(engine, "customers_landing", "email", {normal}))
        self.records = _records(engine, self.spellings, now)
        current = self.records[0] if self.records else None
        self.since = current.share if current is not None and current.agrees(now) else None
        claims = _claims(engine, {record.serial for record in self.records if record.serial is not None})
        others = {claimant for claimants in claims.values() for claimant in claimants} - {normal}
        numbers = {normal: 0, **{other: place for place, other in enumerate(sorted(others), start=1)}}
        wearers = spelled(engine, "accelerometer_landing", "user", set(numbers))
        movers = [(literal(address), str(numbers[whose])) for address, whose in sorted(wearers.items())]
        engine.keep("movers", values(("address varchar", "who bigint"), movers))
        pairs = [
            (literal(serial), str(numbers[who])) for serial, found in sorted(claims.items()) for who in sorted(found)
        ]
        engine.keep("named", values(("serialNumber varchar", "who bigint"), pairs))
        further = [(literal(serial), str(erased(serial))) for serial in sorted(claims)]
        engine.keep("further", values(("serialNumber varchar", "claimants bigint"), further))
        engine.keep("motions", _MOTIONS)
        engine.keep("steps", _STEPS)


_MOTIONS = (
    'select a."timestamp" as moment, a.x + 0 as x, a.y + 0 as y, a.z + 0 as z, count(*) as copies '
    'from accelerometer_landing as a join movers as m on a."user" = m.address where m.who = 0 group by all'
)

_STEPS = """
with readings as (
    select sensorReadingTime as moment, serialNumber, distanceFromObject, count(*) as copies
    from step_trainer_landing where serialNumber in (select serialNumber from named) group by all
),
shares as (
    select n.serialNumber, count(*) + b.claimants as claimants
    from named as n join further as b on n.serialNumber = b.serialNumber group by n.serialNumber, b.claimants
),
moved as (
    select distinct m.who, a."timestamp" as moment
    from accelerometer_landing as a join movers as m on a."user" = m.address
),
matched as (
    select r.moment, r.serialNumber, count(*) as matches, bool_or(v.who = 0) as theirs
    from (select distinct moment, serialNumber from readings) as r
    join named as n on r.serialNumber = n.serialNumber
    join moved as v on n.who = v.who and r.moment = v.moment
    group by all
)
select r.*, s.claimants,
    case
        when s.claimants = 1 or (m.matches = 1 and m.theirs) then 'theirs'
        when m.matches = 1 then 'another''s'
        else 'withheld'
    end as whose
from readings as r
join shares as s on r.serialNumber = s.serialNumber
left join matched as m on r.moment = m.moment and r.serialNumber = m.serialNumber
"""


def spelled(engine: DuckDB, table: str, column: str, wanted: set[str]) -> dict[str, str]:
    """Returns the spellings in a column of addresses that mean one of some normal forms, with the normal form."""
    names = engine.stream(f"select distinct {quoted(column)} from {table}")
    return {name: normal for (name,) in names if (normal := normalise(name)) in wanted}


def values(columns: Iterable[str], rows: Iterable[tuple[str, ...]]) -> str:
    """Returns a SELECT of rows of SQL literals, which may be none.

    Args:
        columns: Of each its name and type.
        rows: Literals, prepared.
    """
    typed = [column.split() for column in columns]
    names = ", ".join(name for name, _ in typed)
    listed = ", ".join(f"({', '.join(row)})" for row in rows)
    if not listed:
        return f"select {', '.join(f'null::{kind} as {name}' for name, kind in typed)} where false"
    return f"select {', '.join(f'{n}::{kind} as {n}' for n, kind in typed)} from (values {listed}) as given ({names})"


def listed(texts: Iterable[str]) -> str:
    """Returns texts as the inside of an IN, which may be none."""
    return ", ".join(map(literal, texts)) or "null"


def _records(engine: DuckDB, spellings: Iterable[str], now: int) -> tuple[Record, ...]:
    found = engine.rows(
        "select c.lastUpdateDate, c.shareWithResearchAsOfDate, c.registrationDate, c.serialNumber, c.customerName, "
        f"c.phone, c.birthDay, c.email, f.name, f.landed_at from customers_landing as c left join {_FILES} as f "
        f"on c._file = f.sha256 where c.email in ({listed(spellings)})"
    )
    records = [
        Record(updated, share, tuple(rest), file or "a file that the ledger does not know", at)
        for updated, share, *rest, file, at in found
    ]
    return tuple(sorted(records, key=lambda record: record.rank(now), reverse=True))


def _claims(engine: DuckDB, serials: set[str]) -> dict[str, set[str]]:
    """Returns, of each serial number, the normal forms of all who ever named it."""
    claims: dict[str, set[str]] = defaultdict(set)
    for serial, email in engine.stream(
        f"select distinct serialNumber, email from customers_landing where serialNumber in ({listed(sorted(serials))})"
    ):
        claims[serial].add(normalise(email))
    return claims
