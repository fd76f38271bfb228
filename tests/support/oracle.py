"""Computes the five tables in plain Python, directly from the rules of consent (DESIGN section 2).

Delivered records -> lists of tuples. This shares no code with `stedi`: if the SQL and this module agree, two
independent readings of the rules agree. It is slow and simple on purpose, with one function per rule.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

Record = Mapping[str, object]
World = Mapping[str, Sequence[Record]]
"""Records by feed: `customer`, `accelerometer`, `step_trainer`."""
Row = tuple[object, ...]

INSTANT_BEGIN = 946_684_800_000
INSTANT_END = 253_402_300_800_000
TEXTS = ("customerName", "phone", "birthDay")
CONSENTS = ("shareWithResearchAsOfDate", "shareWithPublicAsOfDate", "shareWithFriendsAsOfDate")
TABLES = (
    "customers_trusted",
    "accelerometer_trusted",
    "customers_curated",
    "step_trainer_trusted",
    "machine_learning_curated",
)


@dataclass(frozen=True, slots=True)
class Tables:
    """The tables that the lake must hold: sorted lists, instants as epoch milliseconds, birthdays as ISO text or None.

    `withheld` are (sensorReadingTime, serialNumber, distanceFromObject).
    """

    customers_trusted: list[Row]
    accelerometer_trusted: list[Row]
    customers_curated: list[Row]
    step_trainer_trusted: list[Row]
    machine_learning_curated: list[Row]
    withheld: list[Row]

    def counts(self) -> dict[str, int]:
        return {name: len(getattr(self, name)) for name in TABLES}


def tables(
    world: World, now_ms: int, readings: str, pseudonym: Callable[[str], str], erased: Mapping[str, int] | None = None
) -> Tables:
    """Returns the five tables and the withheld readings.

    Args:
        world: All good records; optional fields of customers may hold anything.
        now_ms: The start of the build.
        readings: `all` or `since-consent`.
        pseudonym: The customer id of an email address as delivered.
        erased: How many erased customers have claimed each serial number.
    """
    if readings not in ("all", "since-consent"):
        raise ValueError(readings)
    delivered = [_as_landed(record) for record in world.get("customer", ())]
    by_person: dict[str, list[Record]] = defaultdict(list)
    for record in delivered:
        by_person[pseudonym(str(record["email"]))].append(record)
    current = {person: current_record(records, now_ms) for person, records in by_person.items()}
    trusted = {person: record for person, record in current.items() if consents(record, now_ms)}

    motions: dict[str, set[Row]] = defaultdict(set)  # rule 5, for all people
    for reading in world.get("accelerometer", ()):
        row = (_integer(reading["timestamp"]), *(_number(reading[axis]) for axis in "xyz"))
        motions[pseudonym(str(reading["user"]))].add(row)

    def counts_for(person: str, instant: object) -> bool:  # rule 4
        return readings == "all" or _integer(instant) >= _integer(trusted[person][CONSENTS[0]])

    trusted_motions = {
        person: {row for row in motions.get(person, ()) if counts_for(person, row[0])} for person in trusted
    }
    curated = {person for person, rows in trusted_motions.items() if rows}

    steps, withheld = owned_steps(world, by_person, motions, erased or {})
    trusted_steps = [row for row in steps if row[0] in curated and counts_for(str(row[0]), row[1])]
    learning = [
        (person, instant, distance, *motion[1:])
        for person, instant, _serial, distance in trusted_steps
        for motion in _at(trusted_motions[str(person)], instant)
    ]
    return Tables(
        customers_trusted=sorted((_customer(p, r) for p, r in trusted.items()), key=_order),
        accelerometer_trusted=sorted((p, *row) for p, rows in trusted_motions.items() for row in rows),
        customers_curated=sorted((_customer(p, trusted[p]) for p in curated), key=_order),
        step_trainer_trusted=sorted(trusted_steps),
        machine_learning_curated=sorted(learning),
        withheld=sorted(withheld),
    )


def consents(record: Record, now_ms: int) -> bool:
    """Rule 3, for a landed record: the consent is an instant; neither it nor the record is after the build's start."""
    research = record[CONSENTS[0]]
    if _integer(record["lastUpdateDate"]) > now_ms:
        return False
    return research is not None and _integer(research) <= now_ms


def current_record(records: Sequence[Record], now_ms: int) -> Record:
    """Rule 2: the last update; among equal updates, the one that the rule's list prefers."""

    def rank(record: Record) -> tuple[object, ...]:
        return (
            record["lastUpdateDate"],
            not consents(record, now_ms),
            *_absent_least(record[CONSENTS[0]]),
            *_absent_least(record["registrationDate"]),
            *_absent_least(record["serialNumber"]),
            *(part for name in TEXTS for part in _absent_least(record[name])),
            record["email"],
            *(part for name in CONSENTS[1:] for part in _absent_least(record[name])),
        )

    return max(records, key=rank)


def withdrawal(
    customers: Sequence[Record], address: str, now_ms: int, pseudonym: Callable[[str], str]
) -> dict[str, object] | None:
    """The record that a withdrawal by command lands: the current record without consent; None for a recent repeat.

    Args:
        customers: All customer records landed so far.
        address: Whose withdrawal, in any spelling.
        now_ms: When.
        pseudonym: The customer id of an address.
    """
    theirs = [_as_landed(record) for record in customers if pseudonym(str(record["email"])) == pseudonym(address)]
    if not theirs:
        return {"email": address, "lastUpdateDate": now_ms}
    last = max(_integer(record["lastUpdateDate"]) for record in theirs)
    refused = any(r["lastUpdateDate"] == last and r["shareWithResearchAsOfDate"] is None for r in theirs)
    if refused and last >= now_ms - 60_000:
        return None
    current = current_record(theirs, now_ms)
    return {**current, "lastUpdateDate": max(last, now_ms), "shareWithResearchAsOfDate": None}


def withdrawal_again(theirs: Sequence[Record], at: int, now_ms: int) -> dict[str, object] | None:
    """The record that the replay of a known customer's withdrawal lands; None if the lake already has it.

    Args:
        theirs: The customer's records.
        at: When they withdrew.
        now_ms: The clock.
    """
    landed = [_as_landed(record) for record in theirs]
    if any(record["lastUpdateDate"] == at and record["shareWithResearchAsOfDate"] is None for record in landed):
        return None
    before = [record for record in landed if _integer(record["lastUpdateDate"]) <= at]
    current = current_record(before, now_ms) if before else {"email": min(str(r["email"]) for r in landed)}
    return {**current, "lastUpdateDate": at, "shareWithResearchAsOfDate": None}


def owned_steps(
    world: World,
    by_person: Mapping[str, Sequence[Record]],
    motions: Mapping[str, set[Row]],
    erased: Mapping[str, int],
) -> tuple[set[Row], set[Row]]:
    """Rule 6: the readings with an owner, the owner first, and the withheld readings.

    An erased customer still counts as a claimant, and never moves.
    """
    claimants: dict[str, set[str]] = defaultdict(set)
    for person, records in by_person.items():
        for record in records:
            if record["serialNumber"] is not None:  # the withdrawal of an unknown customer names no device
                claimants[str(record["serialNumber"])].add(person)
    moved_at = {person: {row[0] for row in rows} for person, rows in motions.items()}
    owned: set[Row] = set()
    withheld: set[Row] = set()
    for reading in world.get("step_trainer", ()):
        serial, instant = str(reading["serialNumber"]), _integer(reading["sensorReadingTime"])
        row = (instant, serial, _integer(reading["distanceFromObject"]))
        owners = claimants.get(serial, set())
        if owners and len(owners) + erased.get(serial, 0) > 1:
            owners = {person for person in owners if instant in moved_at.get(person, ())}
            if len(owners) != 1:
                withheld.add(row)
        if len(owners) == 1:
            owned.add((next(iter(owners)), *row))
    return owned, withheld


def read_clean(path: Path) -> dict[str, list[dict[str, object]]]:
    """Returns the records of the folders `customer`, `accelerometer` and `step_trainer`, one record per line."""
    return {feed: list(_lines(path / feed)) for feed in ("customer", "accelerometer", "step_trainer")}


def _lines(folder: Path) -> Iterator[dict[str, object]]:
    for file in sorted(folder.rglob("*.json")):
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                if line.strip():
                    yield json.loads(line)


def _as_landed(record: Record) -> dict[str, object]:
    """A customer record whose optional fields are valid by the contract, or None."""
    landed = {name: record.get(name) for name in ("email", "serialNumber", "registrationDate", "lastUpdateDate")}
    for name in TEXTS:
        value = record.get(name)
        landed[name] = value if isinstance(value, str) else None
    for name in CONSENTS:
        value = record.get(name)
        landed[name] = value if type(value) is int and INSTANT_BEGIN <= value < INSTANT_END else None
    return landed


def _customer(person: str, record: Record) -> Row:
    instants = (record[name] for name in ("registrationDate", "lastUpdateDate", *CONSENTS))
    texts = (record["customerName"], record["email"], record["phone"])
    return (person, *texts, _birthday(record["birthDay"]), record["serialNumber"], *instants)


def _birthday(text: object) -> str | None:
    if not isinstance(text, str) or not re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        return date.fromisoformat(text).isoformat()
    except ValueError:
        return None


def _at(motions: set[Row], instant: object) -> list[Row]:
    return [motion for motion in motions if motion[0] == instant]


def _absent_least(value: object) -> tuple[bool, object]:
    return (value is not None, "" if value is None else value)


def _order(row: Row) -> str:
    return str(row[0])


def _integer(value: object) -> int:
    assert type(value) is int, type(value)
    return value


def _number(value: object) -> float:
    assert type(value) in (int, float), type(value)
    assert isinstance(value, int | float)
    return float(value)
