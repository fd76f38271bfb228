"""Why one customer's rows are where they are: consent and its history, rows by table, and what is left out and why.

What should be below landing is worked out from the landed records alone, and compared with what is published. Of each
table of readings, the landed rows are the published ones and those left out, every one of them with one reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Literal

from stedi import transform as building
from stedi.audit.explain.person import Person
from stedi.catalog import Catalog, TableState
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.privacy.erased import claimants, erased_at
from stedi.privacy.pseudonyms import Key, normalise
from stedi.schema.tables import ZONES
from stedi.storage.config import Config

Consent = Literal["agrees", "agrees later", "does not agree", "unknown"]


class Reason(StrEnum):
    """Why something landed is not in a table below landing: a closed list that scripts may rely on."""

    NO_CONSENT = "no consent"
    BEFORE_CONSENT = "before consent"
    SUPERSEDED = "superseded"
    """A record that is not the current one."""
    DELIVERED_AGAIN = "delivered again"
    """The same reading once more."""
    WITHHELD = "withheld"
    """Of a serial number that several claim, and it is not certain whose it is."""
    ANOTHERS = "another's"
    """Of a serial number that several claim, and another of them moved at that moment."""
    NO_READINGS = "no accelerometer readings"
    NOT_MOVED = "no accelerometer reading at that moment"
    QUARANTINED = "quarantined"
    ERASED = "erased"


@dataclass(frozen=True, slots=True)
class Landed:
    """One landed record, as far as consent goes.

    Attributes:
        updated: When the customer or the website changed it.
        consent: Since when it agrees to research, or None.
        file: The file that it came in; `withdrawal` of one by command.
        landed_at: When.
    """

    updated: datetime
    consent: datetime | None
    file: str
    landed_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Landed rows that are not in a table, for one reason.

    Attributes:
        table: The table that they are not in.
        reason: Why.
        rows: How many; of `erased`, 0: nothing is known of them any more.
        shared_by: Of readings of a shared serial number, how many customers claim it; else 0.
    """

    table: str
    reason: Reason
    rows: int
    shared_by: int = 0


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A record in quarantine that holds the customer's address.

    Attributes:
        record: What `quarantine --show` takes.
        feed: Its feed.
        reason: Why it is there.
    """

    record: str
    feed: str
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that the lake has and does with one customer; of the same shape for an address that it does not know.

    Attributes:
        customer_id: The pseudonym.
        consent: Of the current record.
        since: Of a consent its date; of a record without one when it was updated; None for an unknown address.
        erased: When the customer was erased, if so.
        history: Their landed records in the order of rule 2, the current one first.
        rows: Rows of theirs in each table, now; of `step_trainer_landing` those of devices that they claim, of
            `landed_files` those of files that hold any.
        expected: Rows in each table below landing as the landed records have it.
        left_out: Why the others are not there.
        quarantined: Records in quarantine that hold the address.
        build_due: Whether the next build has anything to do.
        differs: Tables that are not what the landed records say: until a build that is due, or a fault if none is.
    """

    customer_id: str
    consent: Consent
    since: datetime | None
    erased: datetime | None
    history: tuple[Landed, ...]
    rows: Mapping[str, int]
    expected: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    quarantined: tuple[Quarantined, ...]
    build_due: bool
    differs: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether the lake holds anything of the address, or has erased it."""
        return bool(self.history or any(self.rows.values()) or self.quarantined or self.erased)


def explain(
    catalog: Catalog, config: Config, key: Key, root: Path, address: str, now: int, temporary: Path
) -> Explanation:
    """Explains one customer; changes nothing.

    Args:
        catalog: The lake's tables.
        config: The lake's settings.
        key: The lake's pseudonym key.
        root: The lake's folder.
        address: Whose, in any spelling.
        now: The instant at which consent is asked for, epoch milliseconds.
        temporary: A folder for what does not fit into memory.
    """
    states = catalog.tables()
    customer_id, normal = key.customer_id(address), normalise(address)
    with session(catalog, config, states, temporary) as engine:
        person = Person(engine, normal, now, partial(claimants, root, key))
        quarantined = tuple(_quarantined(engine, normal))
        since_consent = config.readings == "since-consent"
        left_out = list(_left_out(engine, person, since_consent=since_consent))
        expected = _expected(engine, person)
        rows = {**_landed_rows(engine, person, len(quarantined)), **_published(engine, customer_id)}
        stale = _stale(engine, person, customer_id)
    erased = erased_at(root, key, address)
    left_out += [LeftOut("quarantine", Reason.QUARANTINED, len(quarantined))] * bool(quarantined)
    left_out += [LeftOut("customers_landing", Reason.ERASED, 0)] * (erased is not None)
    consent, since = _state(person)
    return Explanation(
        customer_id=customer_id,
        consent=consent,
        since=since,
        erased=erased,
        history=tuple(Landed(_at(r.updated), _maybe(r.share), r.file, _maybe(r.landed_at)) for r in person.records),
        rows={table: rows[table] for table in ZONES},
        expected=expected,
        left_out=tuple(left_out),
        quarantined=quarantined,
        build_due=any(step.action != "none" for step in building.plan(states, config, now)),
        differs=tuple(name for name, count in expected.items() if rows[name] != count or name in stale),
    )


def session(catalog: Catalog, config: Config, states: Mapping[str, TableState], temporary: Path) -> DuckDB:
    """Returns an engine in which every table is readable, pinned to how it is now."""
    engine = DuckDB(memory=config.engine_memory, threads=config.threads, temporary=temporary)
    for name, state in states.items():
        engine.bind(name, catalog.files(state))
    return engine


def _state(person: Person) -> tuple[Consent, datetime | None]:
    if not person.records:
        return "unknown", None
    current = person.records[0]
    if person.since is not None:
        return "agrees", _at(person.since)
    return ("agrees later", _at(current.begins)) if current.begins else ("does not agree", _at(current.updated))


def _left_out(engine: DuckDB, person: Person, *, since_consent: bool) -> Iterator[LeftOut]:
    """Yields every landed row that is in no table below, by table and reason; makes `kept_motions`, `kept_steps`."""
    agrees = person.since is not None
    floor = person.since if agrees and since_consent else 0
    kept = "true" if agrees else "false"
    early, why_not = (f"moment < {floor}", Reason.BEFORE_CONSENT) if agrees else ("true", Reason.NO_CONSENT)
    records = len(person.records)
    if records:
        yield from _some("customers_trusted", Reason.SUPERSEDED, records - 1)
        yield from _some("customers_trusted", Reason.NO_CONSENT, int(not agrees))
    engine.keep("kept_motions", f"select moment, x, y, z from motions where {kept} and moment >= {floor}")
    [(left, again, moved)] = engine.rows(
        f"select coalesce(sum(copies) filter (where {early}), 0)::bigint, "
        f"coalesce(sum(copies - 1) filter (where not ({early})), 0)::bigint, "
        "(select count(*) from kept_motions) from motions"
    )
    yield from _some("accelerometer_trusted", why_not, left)
    yield from _some("accelerometer_trusted", Reason.DELIVERED_AGAIN, again)
    yield from _some("customers_curated", Reason.NO_READINGS, int(agrees and not moved))
    # whose a reading is comes first: of another's readings this customer's consent says nothing
    engine.keep(
        "kept_steps", f"select * from steps where whose = 'theirs' and {kept} and moment >= {floor} and {moved} > 0"
    )
    for whose, shared_by, theirs_left, rest, repeats in engine.rows(
        f"select whose, case when whose = 'theirs' then 0 else claimants end as n, "
        f"coalesce(sum(copies) filter (where {early}), 0)::bigint, "
        f"coalesce(sum(copies) filter (where not ({early})), 0)::bigint, "
        f"coalesce(sum(copies - 1) filter (where not ({early})), 0)::bigint from steps group by all order by all"
    ):
        if whose == "theirs":
            yield from _some("step_trainer_trusted", why_not, theirs_left)
            again, lost = (repeats, 0) if moved else (0, rest)
            yield from _some("step_trainer_trusted", Reason.DELIVERED_AGAIN, again)
            yield from _some("step_trainer_trusted", Reason.NO_READINGS, lost)
        else:
            reason = Reason.ANOTHERS if whose == "another's" else Reason.WITHHELD
            yield LeftOut("step_trainer_trusted", reason, theirs_left + rest, shared_by)
    [(still,)] = engine.rows("select count(*) from kept_steps where moment not in (select moment from kept_motions)")
    yield from _some("machine_learning_curated", Reason.NOT_MOVED, still)


def _some(table: str, reason: Reason, rows: int) -> Iterator[LeftOut]:
    if rows:
        yield LeftOut(table, reason, rows)


def _expected(engine: DuckDB, person: Person) -> dict[str, int]:
    [(moved, stepped, trained)] = engine.rows(
        "select (select count(*) from kept_motions), (select count(*) from kept_steps), "
        "(select count(*) from kept_steps as s join kept_motions as m on s.moment = m.moment)"
    )
    agrees = int(person.since is not None)
    return {
        "customers_trusted": agrees,
        "accelerometer_trusted": moved,
        "customers_curated": int(moved > 0),
        "step_trainer_trusted": stepped,
        "machine_learning_curated": trained,
    }


def _landed_rows(engine: DuckDB, person: Person, quarantined: int) -> dict[str, int]:
    emails = ", ".join(map(literal, person.spellings)) or "null"
    theirs = {
        "customers_landing": f"email in ({emails})",
        "accelerometer_landing": '"user" in (select address from movers where who = 0)',
        "step_trainer_landing": "serialNumber in (select serialNumber from named)",
    }
    counts = {
        table: engine.rows(f"select count(*) from {table} where {where}")[0][0] for table, where in theirs.items()
    }
    files = " union ".join(f"select _file from {table} where {where}" for table, where in theirs.items())
    [(ledger,)] = engine.rows(f"select count(*) from landed_files where sha256 in ({files})")
    return {**counts, "quarantine": quarantined, "landed_files": ledger}


def _published(engine: DuckDB, customer_id: str) -> dict[str, int]:
    below = [name for name, zone in ZONES.items() if zone != "landing"]
    whose = f"customer_id = {literal(customer_id)}"
    return {table: engine.rows(f"select count(*) from {table} where {whose}")[0][0] for table in below}


def _stale(engine: DuckDB, person: Person, customer_id: str) -> set[str]:
    """Returns the customers tables that show another record than the current one."""
    wanted = (person.records[0].updated, person.records[0].share) if person.records else None
    found = set()
    for table in ("customers_trusted", "customers_curated"):
        for row in engine.rows(
            f"select epoch_ms(lastUpdateDate), epoch_ms(shareWithResearchAsOfDate) from {table} "
            f"where customer_id = {literal(customer_id)}"
        ):
            if row != wanted:
                found.add(table)
    return found


def _quarantined(engine: DuckDB, normal: str) -> Iterator[Quarantined]:
    """Yields the records in quarantine whose bytes hold an address, written plainly or with JSON's escapes."""
    whole = re.compile(rf"(?<![\w.+-]){re.escape(normal)}(?![\w-])(?!\.\w)")
    for sha256, offset, feed, reason, raw in engine.stream(
        'select sha256, "offset", feed, reason, raw from quarantine order by file, sha256, "offset"'
    ):
        text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda code: chr(int(code[1], 16)), raw.decode("utf-8", "replace"))
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # escaped pairs are one letter
        if whole.search(normalise(text)):
            yield Quarantined(f"{sha256[:12]}:{offset}", feed, reason)


def _at(instant: int) -> datetime:
    return datetime.fromtimestamp(instant / 1000, UTC)


def _maybe(instant: int | None) -> datetime | None:
    return None if instant is None else _at(instant)
