"""Wrong builds with one fault each, to check that the law detects them.

A wrong build is a function of the state at the previous build and the state now, so it needs no lake. `Wrong` answers
like a lake whose incremental builds have that one fault; its first build and its full builds are right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import oracle
from law import Published
from stedi.privacy.pseudonyms import Key
from stedi.schema.roles import Readings
from truth import Records, Truth
from worlds import FEEDS

ML, STEPS, MOTIONS = "machine_learning_curated", "step_trainer_trusted", "accelerometer_trusted"
TRUSTED, CURATED = "customers_trusted", "customers_curated"
World = dict[str, list[Mapping[str, object]]]
Tables = dict[str, Counter[oracle.Row]]


@dataclass(frozen=True, slots=True)
class Moment:
    """The state at a build.

    Attributes:
        world: All records landed by then.
        new: Records that landed since the previous build.
        now: The clock.
        readings: The policy.
        key: The key of the pseudonyms.
        erased: How many erased customers claimed each serial number.
    """

    world: World
    new: World
    now: int
    readings: Readings
    key: Key
    erased: Mapping[str, int] = field(default_factory=dict)

    def right(self) -> oracle.Tables:
        """The correct tables."""
        return oracle.tables(self.world, self.now, self.readings, self.key.customer_id, self.erased)

    def tables(self) -> Tables:
        """The same, as multisets."""
        right = self.right()
        return {table: Counter(getattr(right, table)) for table in oracle.TABLES}

    def without(self, feed: str) -> Moment:
        """This moment as if the new records of a feed had not landed."""
        return replace(self, world={**self.world, feed: self.world[feed][: -len(self.new[feed]) or None]})

    def person(self, record: Mapping[str, object]) -> str:
        """The person of a customer record or accelerometer reading."""
        return self.key.customer_id(str(record.get("email", record.get("user"))))


Mutant = Callable[[Moment, Moment], "Tables"]


class Wrong:
    """A subject whose incremental builds have one fault."""

    def __init__(self, mutant: Mutant, key: Key) -> None:
        self._mutant, self._key = mutant, key
        self._truth = Truth(key.customer_id)
        self._new: World = {feed: [] for feed in FEEDS}
        self._before: Moment | None = None

    def land(self, files: Iterable[Records]) -> int:
        taken, barred = self._truth.land(files)
        self._came(taken)
        return barred

    def back_up(self) -> None:
        self._truth.back_up()

    def restore(self, how: str) -> None:
        """Is right; the next build is a full one."""
        self._truth.restore(how)
        self._begins_anew()

    def landed(self) -> Mapping[str, int]:
        return {feed: len(records) for feed, records in self._truth.landed.items()}

    def copy(self, goes_on: str) -> None:
        """Does nothing: a copy would hold the same world."""
        if goes_on == "copy":
            self._truth.moves()

    def untouched(self) -> None:
        """Does nothing: there is no second lake."""

    def tag(self, number: int) -> None:
        """Changes no row."""

    def erase(self, addresses: list[str], now: int, killed: int = 0) -> bool:
        """Is right; the next build is a full one."""
        self._truth.erase({self._key.customer_id(address) for address in addresses}, now)
        self._begins_anew()
        return 0 < killed < 40

    def withdraw(self, addresses: list[str], at: int) -> None:
        self._came([{"customer": self._truth.withdraw(addresses, at)}])

    def again(self, number: int) -> None:
        """A file that was landed before adds nothing."""

    def build(self, now: int, readings: Readings, *, full: bool) -> Published:
        world: World = {feed: [*records] for feed, records in self._truth.landed.items()}
        moment = Moment(world, self._new, now, readings, self._key, self._truth.stones.claimants())
        before, self._before = self._before, moment
        tables = moment.tables() if before is None or full else self._mutant(before, moment)
        self._new = {feed: [] for feed in FEEDS}
        return Published(tables, len(moment.right().withheld))

    def idle(self, now: int) -> None:
        """A second build has nothing to do."""

    def maintain(self) -> None:
        """Changes no row."""

    def _came(self, files: Iterable[Records]) -> None:
        for file in files:
            for feed, records in file.items():
                self._new[feed] += records

    def _begins_anew(self) -> None:
        self._new = {feed: [] for feed in FEEDS}
        self._before = None


MUTANTS: dict[str, Mutant] = {}


def _wrong(mutant: Mutant) -> Mutant:
    MUTANTS[mutant.__name__] = mutant
    return mutant


def _people(tables: Tables, table: str = TRUSTED) -> set[object]:
    return {row[0] for row in tables[table]}


def _only(rows: Counter[oracle.Row], wanted: Callable[[oracle.Row], bool]) -> Counter[oracle.Row]:
    return Counter({row: count for row, count in rows.items() if wanted(row)})


@_wrong
def the_training_table_keeps_rows_of_who_withdrew(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    return {**now, ML: now[ML] + _only(was[ML], lambda row: row[0] not in _people(now))}


@_wrong
def steps_keep_rows_of_who_is_no_longer_curated(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    stay = _people(now) - _people(now, CURATED)
    return {**now, STEPS: now[STEPS] + _only(was[STEPS], lambda row: row[0] in stay)}


@_wrong
def curated_customers_are_not_corrected(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    old = {row[0]: row for row in was[CURATED]}
    return {**now, CURATED: Counter(old.get(row[0], row) for row in now[CURATED])}


@_wrong
def readings_that_come_again_stand_twice(before: Moment, after: Moment) -> Tables:
    now = after.tables()
    again = [record for record in after.new["accelerometer"] if record in before.world["accelerometer"]]
    rows = {(after.person(r), r["timestamp"], *(float(str(r[axis])) for axis in "xyz")) for r in again}
    return {**now, MOTIONS: now[MOTIONS] + _only(now[MOTIONS], lambda row: row in rows)}


@_wrong
def steps_that_come_again_stand_twice(before: Moment, after: Moment) -> Tables:
    now = after.tables()
    again = [record for record in after.new["step_trainer"] if record in before.world["step_trainer"]]
    rows = {(r["sensorReadingTime"], r["serialNumber"], r["distanceFromObject"]) for r in again}
    return {**now, STEPS: now[STEPS] + _only(now[STEPS], lambda row: row[1:] in rows)}


@_wrong
def pairs_of_which_both_are_new_stand_twice(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    steps = {(row[0], row[1], row[3]) for row in now[STEPS] - was[STEPS]}
    motions = set(now[MOTIONS] - was[MOTIONS])
    both = _only(now[ML], lambda row: row[:3] in steps and (row[0], row[1], *row[3:]) in motions)
    return {**now, ML: now[ML] + both}


@_wrong
def a_motion_that_comes_after_its_step_finds_none(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    old = {(row[0], row[1], row[3]) for row in was[STEPS]}
    motions = set(now[MOTIONS] - was[MOTIONS])
    lost = _only(now[ML], lambda row: row[:3] in old and (row[0], row[1], *row[3:]) in motions)
    return {**now, ML: now[ML] - lost}


@_wrong
def a_step_that_comes_after_its_motion_finds_none(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    old = set(was[MOTIONS])
    steps = {(row[0], row[1], row[3]) for row in now[STEPS] - was[STEPS]}
    lost = _only(now[ML], lambda row: row[:3] in steps and (row[0], row[1], *row[3:]) in old)
    return {**now, ML: now[ML] - lost}


@_wrong
def a_new_customer_finds_no_readings_from_before(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    fresh = _people(now) - _people(was)
    old = {(before.person(r), r["timestamp"]) for r in before.world["accelerometer"]}
    return {**now, MOTIONS: _only(now[MOTIONS], lambda row: row[0] not in fresh or row[:2] not in old)}


@_wrong
def a_serial_number_that_becomes_shared_keeps_its_owner(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    owned = {row[1:] for row in now[STEPS]}
    kept = _only(was[STEPS], lambda row: row[1:] not in owned and row[0] in _people(now, CURATED))
    return {**now, STEPS: now[STEPS] + kept}


@_wrong
def a_late_motion_decides_nothing(before: Moment, after: Moment) -> Tables:
    withheld = set(before.right().withheld)
    now = after.tables()
    return {**now, STEPS: _only(now[STEPS], lambda row: row[1:] not in withheld)}


@_wrong
def a_late_motion_of_another_claimant_undecides_nothing(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    withheld = set(after.right().withheld)
    stays = after.without("accelerometer").tables()[STEPS]
    kept = _only(was[STEPS], lambda row: row[1:] in withheld and row in stays and row[0] in _people(now, CURATED))
    return {**now, STEPS: now[STEPS] + kept}


@_wrong
def the_record_that_landed_last_is_the_current_one(before: Moment, after: Moment) -> Tables:
    now = after.tables()
    late = {after.person(record): record for record in after.new["customer"]}
    world = {**after.world, "customer": [r for r in after.world["customer"] if after.person(r) not in late]}
    world["customer"] += late.values()
    wrong = replace(after, world=world).tables()
    return {**now, TRUSTED: wrong[TRUSTED]}


@_wrong
def nobody_who_withdrew_can_agree_again(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    known = {before.person(record) for record in before.world["customer"]}
    returned = {person for person in _people(now) - _people(was) if person in known}
    return {table: _only(rows, lambda row: row[0] not in returned) for table, rows in now.items()}


@_wrong
def a_consent_date_that_comes_is_noticed_at_the_next_landing(before: Moment, after: Moment) -> Tables:
    landed = any(after.new.values()) or before.readings != after.readings
    return after.tables() if landed or after.now < before.now else before.tables()


@_wrong
def a_clock_that_went_back_is_not_noticed(before: Moment, after: Moment) -> Tables:
    landed = any(after.new.values()) or before.readings != after.readings
    return after.tables() if landed or after.now > before.now else before.tables()


@_wrong
def a_policy_holds_for_new_customers_only(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    if before.readings == after.readings:
        return now
    old = _people(was) & _people(now)
    kept = replace(after, readings=before.readings).tables()
    return {
        table: _only(rows, lambda row: row[0] not in old) + _only(kept[table], lambda row: row[0] in old)
        for table, rows in now.items()
    }


@_wrong
def another_consent_date_moves_no_readings(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    if "since-consent" not in (before.readings, after.readings) or before.readings != after.readings:
        return now
    stayed = _people(was) & _people(now)
    old = {row[0]: row[8] for row in was[TRUSTED]}
    moved = {row[0] for row in now[TRUSTED] if row[0] in stayed and old[row[0]] != row[8]}
    everything = replace(after, readings="all").tables()
    new = _only(everything[MOTIONS] - was[MOTIONS], lambda row: row in now[MOTIONS] and row[0] in moved)
    fresh = {(after.person(r), r["timestamp"]) for r in after.new["accelerometer"]}
    kept = _only(was[MOTIONS], lambda row: row[0] in moved) + _only(new, lambda row: row[:2] in fresh)
    return {**now, MOTIONS: _only(now[MOTIONS], lambda row: row[0] not in moved) + kept}


@_wrong
def a_training_table_does_not_follow_steps_that_changed_hands(before: Moment, after: Moment) -> Tables:
    was, now = before.tables(), after.tables()
    owner = {row[1:]: row[0] for row in was[STEPS]}
    moved = {row[0] for row in now[STEPS] if owner.get(row[1:], row[0]) != row[0]}
    return {**now, ML: _only(now[ML], lambda row: row[0] not in moved) + _only(was[ML], lambda row: row[0] in moved)}
