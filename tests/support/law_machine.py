"""Draws runs for the law of builds: small worlds that change in every way that a build has to handle.

Few people share few serial numbers and few moments, so that most runs have a shared serial number whose owner a late
reading decides. As a program it plays runs and prints what they met: `python tests/support/law_machine.py --runs 200`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import draws
import law
import quick
import worlds
from draws import Draw, chance, each, either, few_of, number, one_of, some
from lakes import Slate
from law import Law, RealLake, Step, Subject, write_case
from law_mutants import Wrong
from stedi.engines import column_sums, duckdb
from stedi.privacy import pseudonyms
from stedi.privacy.pseudonyms import Key
from stedi.transform import incremental
from worlds import BASE, FUTURE

EVENTS = (5, 7)
"""The least and most events of a run; with their landings and builds a run has about 22 steps, six of them builds."""
NOW = BASE + 4

people = one_of(worlds.PEOPLE[:3])
serials = one_of(worlds.SERIALS[:3])
addresses = either(*[one_of(spellings) for spellings in worlds.PEOPLE[:3]], one_of(worlds.STRANGERS))
moments = number(1, 4, BASE)
agreed = number(1, 4, BASE)
dates = either(agreed, number(1, 8, BASE))
distances = number(201, 202)
kills = one_of([0, 0, 3, 9, 20, 33])
refusals = one_of([..., ..., None, 0, "yes", FUTURE])
policies = one_of(["since-consent", "all", "since-consent"])
then = one_of([*["wait"] * 22, "land first", "land last", "build", *["land all and build"] * 2])
often_build = one_of(["build", "wait", "build", "land all and build"])
STORIES = (
    ([0, 1, 2, 3], 3),
    ([0, 1, 2, 3, 4], 4),
    ([0, 2, 1, 4], 2),
    ([0, 2, 1, 4], 2),
    ([0, 2, 3, 1], 3),
    ([0, 1, 3, 2], 3),
)
"""For a device: decided late, undecided late, changes owner, becomes shared, gets a late step. See the event."""
Record = dict[str, object]
Files = Sequence[Record]
Person = tuple[str, ...]


_events: dict[str, dict[str, Draw]] = {}
_often: list[str] = []
Method = TypeVar("Method", bound=Callable[..., None])


def event(weight: int, **arguments: Draw) -> Callable[[Method], Method]:
    """Registers a method as an event, with its frequency and the draws of its arguments."""

    def registered(method: Method) -> Method:
        _events[method.__name__] = arguments
        _often.extend([method.__name__] * weight)
        return method

    return registered


class Machine:
    """Plays random events on customers, devices, files and the clock; a build may follow each.

    Args:
        subject: The empty subject of the events.
        key: The key of its pseudonyms.
        random: The random generator.
    """

    def __init__(self, subject: Subject, key: Key, random: Random) -> None:
        self.law = Law(subject, key, NOW)
        self._random = random
        self._records: dict[Person, list[Record]] = {}
        self._readings: list[Record] = []
        self._restore: tuple[int, Step] | None = None
        """After how many more events a backup will be restored, and how."""

    def run(self) -> None:
        """Plays one run; at its end a build processes all that is left."""
        self._happens(
            "it_begins", {"readings": policies, "walkers": _WALKERS, "motionless": _MOTIONLESS, "then": often_build}
        )
        for _ in range(self._random.randint(*EVENTS)):
            between = self._restore is not None and self._random.random() < 0.7
            what = self._random.choice(_UNDONE if between else _often)
            self._happens(what, _events[what])
            self._count_down(1)
        self._count_down(EVENTS[1])
        self._play({"land": "all"})
        self._play({"build": False})
        self.law.end()

    def _count_down(self, events: int) -> None:
        if self._restore is not None:
            left, step = self._restore
            self._restore = left - events, step
            if left <= events:
                self._restore = None
                self._play(step)

    def _happens(self, what: str, arguments: dict[str, Draw]) -> None:
        getattr(self, what)(**{name: draw(self._random) for name, draw in arguments.items()})

    def it_begins(self, readings: str, walkers: list[Any], motionless: list[Any], then: str) -> None:
        self._play({"readings": readings})
        customers, motions, steps = [], [], [self._step(*reading) for reading in motionless]
        for who, consent, at, distance in walkers:
            person, serial = worlds.PEOPLE[who], worlds.SERIALS[who]
            customers.append(self._record(person, serialNumber=serial, shareWithResearchAsOfDate=consent))
            motions.append(self._motion(person[0], at))
            steps.append(self._step(serial, at, distance))
        self._deliver("land all and build" if then == "build" else then, customers, motions, steps)

    @event(4, person=people, spelling=number(0, 3), consent=dates, then=then)
    def agrees(self, person: Person, spelling: int, consent: int, then: str) -> None:
        record = self._record(person, shareWithResearchAsOfDate=consent, email=person[spelling % len(person)])
        self._deliver(then, customers=[record])

    @event(4, person=people, refusal=refusals, then=then)
    def withdraws(self, person: Person, refusal: object, then: str) -> None:
        self._deliver(then, customers=[self._record(person, shareWithResearchAsOfDate=refusal)])

    @event(
        3,
        person=one_of(worlds.PEOPLE),
        spelling=number(0, 3),
        later=one_of([0, 0, 100_000]),
        twice=chance,
        then=then,
    )
    def withdraws_by_command(self, person: Person, spelling: int, later: int, twice: bool, then: str) -> None:
        """Before or after the newest record's update, by a known or unknown customer; later records are newer."""
        at = self.law.now + later
        addresses = [person[spelling % len(person)]]
        self._play({"withdraw": addresses, "at": at})
        if twice:
            self._then(then)
            self._play({"withdraw": addresses, "at": at + later})
        if person in self._records:
            newest = max(int(str(record["lastUpdateDate"])) for record in self._records[person])
            withdrawn = {**self._records[person][-1], "lastUpdateDate": max(newest, at + later * twice)}
            withdrawn.pop("shareWithResearchAsOfDate", None)
            self._records[person].append(withdrawn)
        self._then(then)

    @event(3, person=people, serial=serials, at=some(moments, 0, 2), then=then)
    def has_another_device(self, person: Person, serial: str, at: list[int], then: str) -> None:
        motions = [self._motion(person[0], moment) for moment in at]
        self._deliver(then, customers=[self._record(person, serialNumber=serial)], motions=motions)

    @event(
        4,
        person=people,
        update=one_of([0, 0, -1, -2]),
        serial=either(one_of([None]), one_of([None]), serials),
        consent=either(dates, refusals),
        name=one_of(["Ana", "Bo"]),
        then=then,
    )
    def is_corrected_or_superseded(
        self, person: Person, update: int, serial: str | None, consent: object, name: str, then: str
    ) -> None:
        changes = {"shareWithResearchAsOfDate": consent, "customerName": name}
        if serial is not None:
            changes["serialNumber"] = serial
        self._deliver(then, customers=[self._record(person, update, **changes)])

    @event(2, record=draws.customer, then=then)
    def any_customer(self, record: Record, then: str) -> None:
        self._deliver(then, customers=[record])

    @event(3, person=people, at=some(moments, 1, 2), then=then)
    def moves(self, person: Person, at: list[int], then: str) -> None:
        self._deliver(then, motions=[self._motion(person[-1], moment) for moment in at])

    @event(
        8,
        pair=few_of(worlds.PEOPLE[:3], 2, 2),
        device=one_of(["device-1", "device-2", "device-3", worlds.SERIALS[0]]),
        at=number(1, 9, BASE),
        story=either(one_of(STORIES), each(few_of(range(5), 5, 5), number(1, 4))),
        then=then,
    )
    def two_people_have_one_device(
        self, pair: list[Person], device: str, at: int, story: tuple[list[int], int], then: str
    ) -> None:
        """The records that decide who owns a step arrive in two parts, with a build in between."""
        one, other = pair[:2]
        agreed: dict[str, Any] = {"serialNumber": device, "shareWithResearchAsOfDate": BASE + 1}
        order, cut = story
        for what in order:
            if what == order[cut]:
                self._then("land all and build")
            match what:
                case 0:
                    self._deliver("wait", [self._record(one, **agreed)], [self._motion(one[0], BASE + 2)])
                case 1:
                    self._deliver("wait", [self._record(other, **agreed)])
                case 2:
                    self._deliver("wait", steps=[self._step(device, at, 201)])
                case 3:
                    self._deliver("wait", motions=[self._motion(one[0], at)])
                case _:
                    self._deliver("wait", motions=[self._motion(other[0], at)])
        self._then("land all and build" if then == "wait" else then)

    @event(3, serial=serials, at=some(moments, 1, 2), distance=distances, then=then)
    def steps(self, serial: str, at: list[int], distance: int, then: str) -> None:
        self._deliver(then, steps=[self._step(serial, moment, distance) for moment in at])

    @event(6, person=people, at=moments, distance=distances, then=then)
    def walks(self, person: Person, at: int, distance: int, then: str) -> None:
        serial = self._records[person][-1]["serialNumber"] if person in self._records else worlds.SERIALS[0]
        self._deliver(then, motions=[self._motion(person[0], at)], steps=[self._step(str(serial), at, distance)])

    @event(2, motions=some(draws.motion, 0, 3), steps=some(draws.step, 0, 3), then=then)
    def any_readings(self, motions: list[Record], steps: list[Record], then: str) -> None:
        self._deliver(then, motions=motions, steps=steps)

    @event(2, which=some(number(0, 99), 1, 3), twice=chance, then=then)
    def readings_come_again(self, which: list[int], twice: bool, then: str) -> None:
        if self._readings:
            chosen = [self._readings[n % len(self._readings)] for n in which] * (1 + twice)
            motions, steps = ([record for record in chosen if name in record] for name in ("user", "serialNumber"))
            self._deliver(then, motions=motions, steps=steps)

    @event(1, which=number(0, 99), then=then)
    def a_file_comes_again(self, which: int, then: str) -> None:
        self._play({"again": which})
        self._then(then)

    @event(2, now=one_of([BASE + n for n in (*range(4), *range(10), FUTURE - BASE)]), then=often_build)
    def the_clock_moves(self, now: int, then: str) -> None:
        self._play({"now": now})
        self._then(then)

    @event(2, person=people, ahead=number(1, 3), back=chance)
    def a_date_comes(self, person: Person, ahead: int, back: bool) -> None:
        """A date passes with nothing landed between two builds; the clock may then be corrected."""
        before, date = self.law.now, self.law.now + ahead
        self._deliver("land all and build", [self._record(person, shareWithResearchAsOfDate=date)])
        for now in (date, before)[: 1 + back]:
            self._play({"now": now})
            self._play({"build": False})

    @event(2, person=people, ahead=number(1, 3), agrees=chance, back=chance, then=then)
    def a_record_comes_from_the_future(self, person: Person, ahead: int, agrees: bool, back: bool, then: str) -> None:
        """It removes consent at once, and gives consent once its time has come; the clock may then be corrected."""
        before, date = self.law.now, self.law.now + ahead
        share = BASE + 1 if agrees else ...
        self._deliver(
            "land all and build", [self._record(person, lastUpdateDate=date, shareWithResearchAsOfDate=share)]
        )
        for now in (date, before)[: 1 + back]:
            self._play({"now": now})
            self._play({"build": False})
        self._then(then)

    @event(
        2,
        who=some(addresses, 1, 2),
        first=one_of(["land all and build", "land all", "wait"]),
        then=then,
    )
    def are_erased(self, who: list[str], first: str, then: str) -> None:
        self._then(first)
        self._play({"erase": who})
        self._then(then)

    @event(
        2,
        person=people,
        later=number(5, 9),
        serial=serials,
        first=one_of(["land all and build", "build", "wait"]),
        again=chance,
        then=then,
    )
    def is_erased_and_registers_anew(
        self, person: Person, later: int, serial: str, first: str, again: bool, then: str
    ) -> None:
        """Registers after all earlier instants, so as a new customer; and may be erased again."""
        self._then(first)
        self._play({"erase": [person[0]]})
        at = max(self.law.now, BASE + 10) + later
        self._play({"now": at})  # a record from the future would give no consent
        record = self._record(
            person, registrationDate=at, serialNumber=serial, shareWithResearchAsOfDate=BASE + 1, lastUpdateDate=at
        )
        self._deliver(then, [record], [self._motion(person[0], at)], [self._step(serial, at, 201)])
        if again:
            self._then("land all and build")
            self._play({"erase": [person[-1]]})

    @event(2, who=few_of(range(4), 2, 3), killed=kills, then=then)
    def of_people_whose_addresses_contain_one_another_one_is_erased(
        self, who: list[int], killed: int, then: str
    ) -> None:
        for one in who:
            person = worlds.NEIGHBOURS[one]
            record = self._record(person, shareWithResearchAsOfDate=BASE + 1)
            self._deliver("wait", [record], [self._motion(person[-1], BASE + 2)])
        self._then("land all and build")
        self._play({"erase": [worlds.NEIGHBOURS[who[0]][-1]], **({"killed": killed} if killed else {})})
        self._then(then)

    @event(1, who=addresses, killed=number(1, 60), then=then)
    def an_erasure_is_killed(self, who: str, killed: int, then: str) -> None:
        self._then("land all and build")
        self._play({"erase": [who], "killed": killed})
        self._then(then)

    @event(
        4,
        later=number(1, 3),
        how=one_of(["replay", "accept", "replay"]),
        again=chance,
        first=one_of(["land all and build", "land all", "wait"]),
    )
    def a_backup_is_restored(self, later: int, how: str, again: bool, first: str) -> None:
        """Restores it after some more events, mostly withdrawals and erasures."""
        self._then(first)
        self._play({"backup": True})
        self._restore = later + 1, {"restore": how, "again": again}

    @event(2, goes_on=one_of(["copy", "original"]), then=often_build)
    def the_lake_is_copied(self, goes_on: str, then: str) -> None:
        self._then("land all")
        self._play({"copy": goes_on})
        self._then(then)

    @event(1, which=number(0, 9), then=then)
    def another_program_tags_a_table(self, which: int, then: str) -> None:
        self._play({"tag": which})
        self._then(then)

    @event(2, then=often_build)
    def the_policy_changes(self, then: str) -> None:
        self._play({"readings": "all" if self.law.readings == "since-consent" else "since-consent"})
        self._then(then)

    @event(2, then=then)
    def all_is_rebuilt(self, then: str) -> None:
        self._then(then)
        self._play({"build": True})

    @event(1, then=then)
    def it_is_maintained(self, then: str) -> None:
        self._play({"maintain": True})
        self._then(then)

    def _record(self, person: Person, update: int = 1, **changes: object) -> Record:
        """Returns a person's newest record with changes: its update is later, equal or earlier."""
        known = self._records.get(person, [])
        newest = max(known, key=lambda record: int(str(record["lastUpdateDate"])), default=None)
        first = {"email": person[0], "serialNumber": worlds.SERIALS[0], "registrationDate": BASE + 1}
        at = int(str(newest["lastUpdateDate"])) + update if newest else BASE - 20
        record = {**(newest or first), "lastUpdateDate": at, **changes}
        record = {name: value for name, value in record.items() if value is not ...}
        self._records.setdefault(person, []).append(record)
        return record

    @staticmethod
    def _motion(user: str, at: int) -> Record:
        return {"user": user, "timestamp": at, "x": 1.0, "y": 0.0, "z": -1.0}

    @staticmethod
    def _step(serial: str, at: int, distance: int) -> Record:
        return {"sensorReadingTime": at, "serialNumber": serial, "distanceFromObject": distance}

    def _deliver(self, then: str, customers: Files = (), motions: Files = (), steps: Files = ()) -> None:
        self._readings += [*motions, *steps]
        files = zip(worlds.FEEDS, (customers, motions, steps), strict=True)
        self._play({"deliver": {feed: list(records) for feed, records in files if records}})
        self._then(then)

    def _then(self, then: str) -> None:
        if then.startswith("land"):
            self._play({"land": then.split()[1]})
        if then.endswith("build"):
            self._play({"build": False})

    def _play(self, step: Step) -> None:
        self.law.play(step)


_WALKERS = some(each(number(0, 2), agreed, moments, distances), 2, 4)
_MOTIONLESS = some(each(serials, moments, distances), 0, 2)
_UNDONE = ["withdraws_by_command", "withdraws_by_command", "are_erased", "is_erased_and_registers_anew"]
"""The events to choose from between a backup and its restore, instead of all events."""


def play(subject: Callable[[], Subject], key: Key, *, runs: int, random: int, shrink: bool) -> Counter[str]:
    """Plays runs and returns what they met.

    Args:
        subject: Makes a new, empty subject.
        key: The key of its pseudonyms.
        runs: The number of runs.
        random: The seed: the same number gives the same runs.
        shrink: Whether a failing run is shrunk before it is raised.

    Raises:
        Failed: A run broke the law.
    """
    met = Counter[str]()
    for turn in range(runs):
        machine = Machine(subject(), key, Random(f"{random}-{turn}"))
        try:
            machine.run()
        except Exception as error:
            steps = machine.law.steps
            if shrink:
                steps, error = law.smallest(steps, error, subject, key, NOW)
            raise Failed(steps, error) from error
        met.update(machine.law.met, runs=1)
    return met


def meeting(runs: int, least: Mapping[str, int], *, builds: int) -> int:
    """Returns the first seed whose runs meet enough events in few builds.

    The events of a run do not depend on the lake, so this needs no lake.

    Args:
        runs: The number of runs.
        least: The events that they must meet, and how often at least.
        builds: The most builds that they may take.
    """
    key = Key(bytes(32))
    for random in range(10_000):
        met = play(
            lambda: Wrong(lambda before, after: after.tables(), key), key, runs=runs, random=random, shrink=False
        )
        if met["built"] + met["rebuilt in full"] <= builds and all(met[what] >= count for what, count in least.items()):
            return random
    raise LookupError(least)


class Failed(AssertionError):
    """A run that broke the law.

    Attributes:
        steps: Its steps.
        cause: The failure.
    """

    def __init__(self, steps: list[Step], cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.steps, self.cause = steps, cause


def main() -> int:
    """Plays runs on real lakes; prints what they met, or saves the steps of a failed run."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=Path, default=Path(__file__).parents[1] / "properties" / "cases")
    options = parser.parse_args()
    key = pseudonyms.from_environment()
    assert key is not None, "set STEDI_PSEUDONYM_KEY to 64 hex digits"
    if options.seed % 2:
        duckdb._MANY = column_sums.MANY = 0  # sort and sum readings as in large tables
        incremental.MANY = -1  # and name customers as if most had new readings
    with quick.folder() as folder, quick.quickened():
        slate = Slate(folder)
        try:
            met = play(lambda: RealLake(slate), key, runs=options.runs, random=options.seed, shrink=True)
        except Failed as failure:
            case = options.cases / f"seed-{options.seed}-{os.getpid()}.jsonl"
            write_case(case, failure.steps)
            print(f"{failure}\nSeed {options.seed}; its steps, to be kept as a case: {case}", file=sys.stderr)
            print(*map(json.dumps, failure.steps), sep="\n", file=sys.stderr)
            return 1
    print(json.dumps(met))
    return 0


if __name__ == "__main__":
    sys.exit(main())
