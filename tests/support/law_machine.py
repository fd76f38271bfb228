"""Draws runs for the law of builds: small worlds that change in every way that a build has to follow.

Few people share few serial numbers and few moments, so that most runs meet a shared serial number that a late
reading decides. As a program it plays runs and prints what they met: `python tests/support/law_machine.py --runs 200`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import quick
import worlds
from hypothesis import HealthCheck, Phase, Verbosity, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from lakes import Slate
from law import Law, RealLake, Step, Subject, write_case
from worlds import BASE, FUTURE

from stedi.lake import Lake
from stedi.privacy import pseudonyms
from stedi.privacy.pseudonyms import Key

EVENTS = 9
"""Of one run: with the landings and builds that follow them some 25 steps, and rarely more than 30; five are builds."""
NOW = BASE + 4

people = st.sampled_from(worlds.PEOPLE[:3])
serials = st.sampled_from(worlds.SERIALS[:3])
addresses = st.one_of(people.flatmap(st.sampled_from), st.sampled_from(worlds.STRANGERS))
moments = st.integers(1, 4).map(lambda n: BASE + n)
agreed = st.integers(1, 4).map(lambda n: BASE + n)
dates = st.one_of(agreed, st.integers(1, 8).map(lambda n: BASE + n))
distances = st.integers(201, 202)
kills = st.sampled_from([0, 0, 3, 9, 20, 33])
refusals = st.sampled_from([..., ..., None, 0, "yes", FUTURE])
policies = st.sampled_from(["since-consent", "all", "since-consent"])
then = st.sampled_from([*["wait"] * 22, "land first", "land last", "build", *["land all and build"] * 2])
often_build = st.sampled_from(["build", "wait", "build", "land all and build"])
STORIES = (
    ([0, 1, 2, 3], 3),
    ([0, 1, 2, 3, 4], 4),
    ([0, 2, 1, 4], 2),
    ([0, 2, 3, 1], 3),
    ([0, 1, 3, 2], 3),
)
"""Of a device: decided late, undecided late, changing hands, becoming shared, seeing a step late. See the event."""
Record = dict[str, object]
Files = Sequence[Record]
Person = tuple[str, ...]


_events: dict[str, st.SearchStrategy[dict[str, Any]]] = {}
_often: list[str] = []
Method = TypeVar("Method", bound=Callable[..., None])


def event(weight: int, **arguments: st.SearchStrategy[Any]) -> Callable[[Method], Method]:
    """Makes a method something that can happen. A rule a method would leave half of them out of each run, to look for
    faults in few things; what builds get wrong takes many."""

    def registered(method: Method) -> Method:
        _events[method.__name__] = st.fixed_dictionaries(arguments)
        _often.extend([method.__name__] * weight)
        return method

    return registered


class Machine(RuleBasedStateMachine):
    """Things happen to customers, devices, files and the clock; after each, perhaps a build."""

    subject: ClassVar[Callable[[], Subject]]
    key: ClassVar[Key]
    met: ClassVar[Counter[str]] = Counter()
    last: ClassVar[list[Step]]
    """The steps of the run that was played last: of a failure, after shrinking, the smallest."""

    def __init__(self) -> None:
        super().__init__()
        self.law = Law(type(self).subject(), self.key, NOW)
        type(self).last = self.law.steps
        self._records: dict[Person, list[Record]] = {}
        self._readings: list[Record] = []
        self._broken = False

    @initialize(
        readings=policies,
        walkers=st.lists(st.tuples(st.integers(0, 2), agreed, moments, distances), min_size=2, max_size=4),
        motionless=st.lists(st.tuples(serials, moments, distances), max_size=2),
        then=often_build,
    )
    def it_begins(self, readings: str, walkers: list[Any], motionless: list[Any], then: str) -> None:
        self._play({"readings": readings})
        customers, motions, steps = [], [], [self._step(*reading) for reading in motionless]
        for who, consent, at, distance in walkers:
            person, serial = worlds.PEOPLE[who], worlds.SERIALS[who]
            customers.append(self._record(person, serialNumber=serial, shareWithResearchAsOfDate=consent))
            motions.append(self._motion(person[0], at))
            steps.append(self._step(serial, at, distance))
        self._deliver("land all and build" if then == "build" else then, customers, motions, steps)

    @event(4, person=people, spelling=st.integers(0, 3), consent=dates, then=then)
    def agrees(self, person: Person, spelling: int, consent: int, then: str) -> None:
        record = self._record(person, shareWithResearchAsOfDate=consent, email=person[spelling % len(person)])
        self._deliver(then, customers=[record])

    @event(4, person=people, refusal=refusals, then=then)
    def withdraws(self, person: Person, refusal: object, then: str) -> None:
        self._deliver(then, customers=[self._record(person, shareWithResearchAsOfDate=refusal)])

    @event(
        3,
        person=st.sampled_from(worlds.PEOPLE),
        spelling=st.integers(0, 3),
        later=st.sampled_from([0, 0, 100_000]),
        twice=st.booleans(),
        then=then,
    )
    def withdraws_by_command(self, person: Person, spelling: int, later: int, twice: bool, then: str) -> None:
        """Before the newest record's update or after it, known or not; what comes later is newer."""
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

    @event(3, person=people, serial=serials, at=st.lists(moments, max_size=2), then=then)
    def has_another_device(self, person: Person, serial: str, at: list[int], then: str) -> None:
        motions = [self._motion(person[0], moment) for moment in at]
        self._deliver(then, customers=[self._record(person, serialNumber=serial)], motions=motions)

    @event(
        4,
        person=people,
        update=st.sampled_from([0, 0, -1, -2]),
        serial=st.one_of(st.none(), st.none(), serials),
        consent=st.one_of(dates, refusals),
        name=st.sampled_from(["Ana", "Bo"]),
        then=then,
    )
    def is_corrected_or_superseded(
        self, person: Person, update: int, serial: str | None, consent: object, name: str, then: str
    ) -> None:
        changes = {"shareWithResearchAsOfDate": consent, "customerName": name}
        if serial is not None:
            changes["serialNumber"] = serial
        self._deliver(then, customers=[self._record(person, update, **changes)])

    @event(2, record=worlds.customers(), then=then)
    def any_customer(self, record: Record, then: str) -> None:
        self._deliver(then, customers=[record])

    @event(3, person=people, at=st.lists(moments, min_size=1, max_size=2), then=then)
    def moves(self, person: Person, at: list[int], then: str) -> None:
        self._deliver(then, motions=[self._motion(person[-1], moment) for moment in at])

    @event(
        8,
        pair=st.permutations(worlds.PEOPLE[:3]),
        device=st.sampled_from(["device-1", "device-2", "device-3", worlds.SERIALS[0]]),
        at=st.integers(1, 9).map(lambda n: BASE + n),
        story=st.one_of(st.sampled_from(STORIES), st.tuples(st.permutations(range(5)), st.integers(1, 4))),
        then=then,
    )
    def two_people_have_one_device(
        self, pair: list[Person], device: str, at: int, story: tuple[list[int], int], then: str
    ) -> None:
        """What decides whose a step was comes in two parts, with a build in between."""
        one, other = pair[:2]
        agreed = {"serialNumber": device, "shareWithResearchAsOfDate": BASE + 1}
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

    @event(3, serial=serials, at=st.lists(moments, min_size=1, max_size=2), distance=distances, then=then)
    def steps(self, serial: str, at: list[int], distance: int, then: str) -> None:
        self._deliver(then, steps=[self._step(serial, moment, distance) for moment in at])

    @event(6, person=people, at=moments, distance=distances, then=then)
    def walks(self, person: Person, at: int, distance: int, then: str) -> None:
        serial = self._records[person][-1]["serialNumber"] if person in self._records else worlds.SERIALS[0]
        self._deliver(then, motions=[self._motion(person[0], at)], steps=[self._step(str(serial), at, distance)])

    @event(2, motions=st.lists(worlds.motions(), max_size=3), steps=st.lists(worlds.steps(), max_size=3), then=then)
    def any_readings(self, motions: list[Record], steps: list[Record], then: str) -> None:
        self._deliver(then, motions=motions, steps=steps)

    @event(2, which=st.lists(st.integers(0, 99), min_size=1, max_size=3), twice=st.booleans(), then=then)
    def readings_come_again(self, which: list[int], twice: bool, then: str) -> None:
        if self._readings:
            chosen = [self._readings[n % len(self._readings)] for n in which] * (1 + twice)
            motions, steps = ([record for record in chosen if name in record] for name in ("user", "serialNumber"))
            self._deliver(then, motions=motions, steps=steps)

    @event(1, number=st.integers(0, 99), then=then)
    def a_file_comes_again(self, number: int, then: str) -> None:
        self._play({"again": number})
        self._then(then)

    @event(2, now=st.sampled_from([*range(4), *range(10), FUTURE - BASE]).map(lambda n: BASE + n), then=often_build)
    def the_clock_moves(self, now: int, then: str) -> None:
        self._play({"now": now})
        self._then(then)

    @event(2, person=people, ahead=st.integers(1, 3), back=st.booleans())
    def a_date_comes(self, person: Person, ahead: int, back: bool) -> None:
        """With nothing landed between two builds, and perhaps a clock that is put right again."""
        before, date = self.law.now, self.law.now + ahead
        self._deliver("land all and build", [self._record(person, shareWithResearchAsOfDate=date)])
        for now in (date, before)[: 1 + back]:
            self._play({"now": now})
            self._play({"build": False})

    @event(2, person=people, ahead=st.integers(1, 3), agrees=st.booleans(), back=st.booleans(), then=then)
    def a_record_comes_from_the_future(self, person: Person, ahead: int, agrees: bool, back: bool, then: str) -> None:
        """It takes consent away at once, and gives it when its time has come; the clock may be put right again."""
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
        who=st.lists(addresses, min_size=1, max_size=2),
        first=st.sampled_from(["land all and build", "land all", "wait"]),
        then=then,
    )
    def are_erased(self, who: list[str], first: str, then: str) -> None:
        self._then(first)
        self._play({"erase": who})
        self._then(then)

    @event(
        2,
        person=people,
        later=st.integers(5, 9),
        serial=serials,
        first=st.sampled_from(["land all and build", "build", "wait"]),
        again=st.booleans(),
        then=then,
    )
    def is_erased_and_registers_anew(
        self, person: Person, later: int, serial: str, first: str, again: bool, then: str
    ) -> None:
        """After every instant of before, so as a new customer; and is perhaps erased once more."""
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

    @event(2, who=st.lists(st.integers(0, 3), min_size=2, max_size=3, unique=True), killed=kills, then=then)
    def of_people_whose_addresses_contain_one_another_one_is_erased(
        self, who: list[int], killed: int, then: str
    ) -> None:
        for number in who:
            person = worlds.NEIGHBOURS[number]
            record = self._record(person, shareWithResearchAsOfDate=BASE + 1)
            self._deliver("wait", [record], [self._motion(person[-1], BASE + 2)])
        self._then("land all and build")
        self._play({"erase": [worlds.NEIGHBOURS[who[0]][-1]], **({"killed": killed} if killed else {})})
        self._then(then)

    @event(1, who=addresses, killed=st.integers(1, 60), then=then)
    def an_erasure_is_killed(self, who: str, killed: int, then: str) -> None:
        self._then("land all and build")
        self._play({"erase": [who], "killed": killed})
        self._then(then)

    @event(1, who=addresses, then=often_build)
    def a_backup_from_before_an_erasure_is_restored(self, who: str, then: str) -> None:
        self._then("land all and build")
        self._play({"erase": [who], "restored": True})
        self._then(then)

    @event(2, goes_on=st.sampled_from(["copy", "original"]), then=often_build)
    def the_lake_is_copied(self, goes_on: str, then: str) -> None:
        self._then("land all")
        self._play({"copy": goes_on})
        self._then(then)

    @event(1, number=st.integers(0, 9), then=then)
    def another_program_tags_a_table(self, number: int, then: str) -> None:
        self._play({"tag": number})
        self._then(then)

    @event(2, then=often_build)
    def the_policy_changes(self, then: str) -> None:
        self._play({"readings": "all" if self.law.readings == "since-consent" else "since-consent"})
        self._then(then)

    @event(2, then=then)
    def all_is_rebuilt(self, then: str) -> None:
        self._then(then)
        self._play({"build": True})

    if hasattr(Lake, "maintain"):

        @event(1, then=then)
        def it_is_maintained(self, then: str) -> None:
            self._play({"maintain": True})
            self._then(then)

    @rule(data=st.data())
    def something_happens(self, data: st.DataObject) -> None:
        what = data.draw(st.sampled_from(_often))
        getattr(self, what)(**data.draw(_events[what]))

    def teardown(self) -> None:
        """Whatever was not built yet is built."""
        if not self._broken:
            self._play({"land": "all"})
            self._play({"build": False})
            self.law.end()
            type(self).met.update(self.law.met, runs=1)

    def _record(self, person: Person, update: int = 1, **changes: object) -> Record:
        """Returns the newest record of a person with changes: a later update, or an equal or earlier one."""
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
        try:
            self.law.play(step)
        except BaseException:
            self._broken = True
            raise


def play(subject: Callable[[], Subject], key: Key, *, runs: int, random: int, shrink: bool) -> Counter[str]:
    """Plays runs of up to `EVENTS` events and returns what they met.

    Args:
        subject: Makes a new, empty one.
        key: Whose pseudonyms it uses.
        runs: How many.
        random: The seed: the same runs for the same number.
        shrink: Whether a failing run is made small before it is raised.

    Raises:
        Failed: A run broke the law.
    """

    @seed(random)
    class Seeded(Machine):
        met: ClassVar[Counter[str]] = Counter()

    Seeded.subject, Seeded.key = staticmethod(subject), key
    phases = [Phase.generate, *([Phase.shrink] if shrink else [])]
    try:
        run_state_machine_as_test(
            Seeded,
            settings=settings(
                max_examples=runs,
                stateful_step_count=EVENTS,
                phases=phases,
                database=None,
                deadline=None,
                derandomize=False,
                report_multiple_bugs=False,
                suppress_health_check=list(HealthCheck),
                verbosity=Verbosity.quiet,
            ),
        )
    except Exception as error:
        raise Failed(Seeded.last, error) from error
    return Seeded.met


class Failed(AssertionError):
    """A run that broke the law.

    Attributes:
        steps: Its steps.
        cause: What broke.
    """

    def __init__(self, steps: list[Step], cause: Exception) -> None:
        super().__init__(f"{type(cause).__name__}: {cause}")
        self.steps, self.cause = steps, cause


def main() -> int:
    """Plays runs on real lakes; prints what they met, or keeps the steps of one that failed."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=Path, default=Path(__file__).parents[1] / "properties" / "cases")
    options = parser.parse_args()
    key = pseudonyms.from_environment()
    assert key is not None, "set STEDI_PSEUDONYM_KEY to 64 hex digits"
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
