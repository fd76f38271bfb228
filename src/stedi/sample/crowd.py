"""The crowd: groups of people come in, their lines go to the feeds, what the lake must make of it adds up.

Each person is settled alone, by the story that was written for them: the five tables' rows under both
policies, withheld readings, and who agrees. No record is read back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from stedi.sample import walkers
from stedi.sample.people import AGREEING, DAY, EPOCH, WITHDREW, Person, Plan, name, person, plans, serial
from stedi.sample.readings import RECORDS_PER_TICK, TICK, Feed, Tally, walk, walk_together

TABLES = (
    "customers_trusted",
    "accelerometer_trusted",
    "customers_curated",
    "step_trainer_trusted",
    "machine_learning_curated",
)
_COHORT = 100
"""So many groups start within the same hour: their moments meet."""
_WALKERS = (("agreed",) * 5, ("never", "late", "agreed", "agreed", "withdrew"), ("agreed",) * 5)
_WALKERS_STORIES = tuple(story for stories in _WALKERS for story in stories)
"""The stories of people who walk, dealt in turn: most of them agree, since a model is to learn from them."""


def _no_rows() -> dict[str, int]:
    return dict.fromkeys(TABLES, 0)


@dataclass(slots=True)
class Crowd:
    """People made so far, and what they add up to.

    Attributes:
        feeds: Where lines go, by feed.
        seed: Decides names.
        rng: Decides everything else.
        all: Rows by table when all readings count.
        since_consent: Rows by table when readings count from the consent on.
        withheld: Distinct step trainer readings without one owner.
        agreed: Customers who agree.
        never_agreed: Customers who never did.
        withdrew: The other customers.
    """

    feeds: dict[str, Feed]
    seed: int
    rng: Random
    all: dict[str, int] = field(default_factory=_no_rows)
    since_consent: dict[str, int] = field(default_factory=_no_rows)
    withheld: int = 0
    agreed: int = 0
    never_agreed: int = 0
    withdrew: int = 0
    _names: int = 0
    _groups: int = 0

    def add(self, customers: int, readings: int, progress: Callable[[int, int], None] | None = None) -> None:
        """Makes so many customers with so many readings together, and hands on their lines."""
        for number, (plan, quota) in enumerate(_shares(customers, readings)):
            for record in self._group(plan, quota):
                self.feeds["customer"].pool.append(json.dumps(record, ensure_ascii=False) + "\n")
            if progress is not None and number % 100 == 0:
                progress(self.feeds["accelerometer"].seen + self.feeds["step_trainer"].seen, readings)
        for feed in self.feeds.values():
            feed.flush(last=True)
        if progress is not None:
            progress(readings, readings)

    def add_one(self, story: str, quota: int) -> tuple[dict[str, object], ...]:
        """Makes one customer of a story and hands on the readings; delivering the records is left."""
        return self._group(Plan("solo", (story,), (0,)), quota)

    def add_walkers(self, count: int) -> Iterator[tuple[str, walkers.Label]]:
        """Makes people who walk, each with a step trainer of their own, and hands on their lines.

        Their bits are drawn from a source of their own: whoever is made before or after stays the same.

        Yields:
            An address and what its person did at which time.
        """
        rng = Random(f"walkers of {self.seed}")
        for number in range(count):
            story = _WALKERS_STORIES[number % len(_WALKERS_STORIES)]
            start = EPOCH + 7 * DAY + number // 8 * 3_600_000 + rng.getrandbits(12) % 3600 * 1000
            agreed_from = walkers.SECONDS * 1000 // TICK // 3 if story == "late" else 0
            one = person(story, self._name(), (serial(rng),), start, agreed_from, rng)
            recorded = walkers.session(start, rng)
            [address], [device], consent = one.addresses, one.serials, start + TICK * agreed_from
            self.feeds["customer"].pool += (json.dumps(record, ensure_ascii=False) + "\n" for record in one.records)
            self.feeds["accelerometer"].pool += (
                f'{{"user":"{address}","timestamp":{time},"x":{x},"y":{y},"z":{z}}}\n'
                for time, x, y, z in recorded.motions
            )
            self.feeds["step_trainer"].pool += (
                f'{{"sensorReadingTime":{time},"serialNumber":"{device}","distanceFromObject":{distance}}}\n'
                for time, distance in recorded.steps
            )
            for feed in self.feeds.values():
                feed.flush(last=True)
            tallies = (Tally(), Tally())
            moved = {motion[0] for motion in recorded.motions}
            for time in moved:
                tallies[time >= consent].motions += 1
            for time, _ in recorded.steps:
                tallies[time >= consent].steps += 1
                tallies[time >= consent].pairs += time in moved
            self._settle(one, *tallies)
            yield from ((address, label) for label in recorded.labels)

    def _group(self, plan: Plan, quota: int) -> tuple[dict[str, object], ...]:
        """Makes a group; returns the customer records."""
        rng, motions, steps = self.rng, self.feeds["accelerometer"], self.feeds["step_trainer"]
        start = EPOCH + self._groups // _COHORT * 3_600_000 + rng.getrandbits(12) % 3600 * 1000
        self._groups += 1
        shared = serial(rng)
        if plan.kind == "stranger":
            address = "{}.{}@stranger.example".format(*self._name())
            walk(motions, steps, (address,), (shared,), start, quota, 0, "both", rng)
            return ()
        people = []
        for place, (story, before) in enumerate(zip(plan.stories, plan.before, strict=True)):
            changed = story == "new serial" or (plan.kind == "resold" and place == 0)
            serials = (shared, serial(rng)) if changed else (shared,)
            agreed_from = _agreed_from(quota, before, plan.motion)
            people.append(person(story, self._name(), serials, start, agreed_from, rng))
        if plan.kind == "solo":
            (one,) = people
            kind = "both" if plan.motion == "none" else plan.motion
            tallies = [walk(motions, steps, one.addresses, one.serials, start, quota, one.agreed_from or 0, kind, rng)]
        else:
            tallies, withheld = walk_together(motions, steps, people, shared, start, quota, rng)
            self.withheld += withheld
        for one, (before_consent, since) in zip(people, tallies, strict=True):
            self._settle(one, before_consent, since)
        return tuple(record for one in people for record in one.records)

    def _name(self) -> tuple[str, str]:
        self._names += 1
        return name(self._names, self.seed)

    def _settle(self, one: Person, before: Tally, since: Tally) -> None:
        """Adds what a person's readings come to if the person agrees, and nothing otherwise."""
        if one.story not in AGREEING:
            self.withdrew += one.story in WITHDREW
            self.never_agreed += one.story not in WITHDREW
            return
        self.agreed += 1
        everything = Tally(before.motions + since.motions, before.steps + since.steps, before.pairs + since.pairs)
        for rows, tally in ((self.all, everything), (self.since_consent, since)):
            rows["customers_trusted"] += 1
            rows["accelerometer_trusted"] += tally.motions
            if tally.motions:
                rows["customers_curated"] += 1
                rows["step_trainer_trusted"] += tally.steps
                rows["machine_learning_curated"] += tally.pairs


def _shares(customers: int, readings: int) -> Iterator[tuple[Plan, int]]:
    """Deals exactly so many readings to the groups by their weight."""
    total = sum(plan.weight for plan in plans(customers))
    weight = 0
    for plan in plans(customers):
        dealt = readings * weight // total
        weight += plan.weight
        yield plan, readings * weight // total - dealt


def _agreed_from(quota: int, before: int, motion: str) -> int:
    """The tick before which about that percentage of the readings lie."""
    if before == 100:
        return quota + 1
    return int(quota / RECORDS_PER_TICK.get(motion, 1) * before / 100)
