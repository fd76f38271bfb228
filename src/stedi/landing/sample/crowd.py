"""The crowd: generates groups of people, sends their lines to the feeds and adds up the expected counts.

Each person is counted separately, according to their story: the rows of the five tables under both policies, withheld
readings, and whether the person consents. No record is read back.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random

from stedi._frozen import dataclass, field
from stedi.landing.sample import walkers
from stedi.landing.sample.people import AGREEING, DAY, EPOCH, WITHDREW, Person, Plan, name, person, plans, serial
from stedi.landing.sample.readings import RECORDS_PER_TICK, TICK, Feed, Tally, walk, walk_together
from stedi.schema.tables import ZONES

TABLES = tuple(name for name, zone in ZONES.items() if zone != "landing")
_STEP = "make sample data"
"""What progress calls it."""
_COHORT = 100
"""The number of groups that start within the same hour, so that some of their readings have the same time."""
_WALKERS = (("agreed",) * 5, ("never", "late", "agreed", "agreed", "withdrew"), ("agreed",) * 5)
_WALKERS_STORIES = tuple(story for stories in _WALKERS for story in stories)
"""The stories of people who walk, assigned in turn; most of them consent, so that a model can be trained on them."""


def _no_rows() -> dict[str, int]:
    return dict.fromkeys(TABLES, 0)


@dataclass(slots=True)
class Crowd:
    """Generates people and counts what the lake must produce from them.

    Attributes:
        feeds: The feeds to which lines are written, by name.
        seed: Decides names.
        rng: Decides everything else.
        all: Rows by table if all readings count.
        since_consent: Rows by table if only readings from the consent on count.
        withheld: Distinct step trainer readings without exactly one owner.
        agreed: Customers who consent.
        never_agreed: Customers who never consented.
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

    def add(self, customers: int, readings: int, progress: Callable[[str, float | None], None] | None = None) -> None:
        """Generates the given number of customers, with the given total of readings, and writes their lines."""
        dealt = told = 0
        for plan, quota in _shares(customers, readings):
            for record in self._group(plan, quota):
                self.feeds["customer"].pool.append(json.dumps(record, ensure_ascii=False) + "\n")
            dealt += quota
            if progress is not None and dealt - told > readings / 100:
                told = dealt
                progress(_STEP, dealt / readings)
        for feed in self.feeds.values():
            feed.flush(last=True)
        if progress is not None:
            progress(_STEP, 1.0)

    def add_one(self, story: str, quota: int) -> tuple[dict[str, object], ...]:
        """Generates one customer with a story and writes the readings; the caller delivers the returned records."""
        return self._group(Plan("solo", (story,), (0,)), quota)

    def add_walkers(self, count: int) -> Iterator[tuple[str, walkers.Label]]:
        """Generates people who walk, each with their own step trainer, and writes their lines.

        They use a separate random generator, so that they do not change the people generated before or after them.

        Yields:
            An address, and a label of what that person did and when.
        """
        rng = Random(f"walkers of {self.seed}")
        for number in range(count):
            story = _WALKERS_STORIES[number % len(_WALKERS_STORIES)]
            start = EPOCH + 7 * DAY + number // 8 * 3_600_000 + rng.getrandbits(12) % 3600 * 1000
            agreed_from = walkers.SECONDS * 1000 // TICK // 3 if story == "late" else 0
            one = person(story, self._name(), (serial(rng),), start, agreed_from, rng)
            recorded = walkers.recording(start, rng)
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
        """Generates a group and returns its customer records."""
        rng, motions, steps = self.rng, self.feeds["accelerometer"], self.feeds["step_trainer"]
        start = EPOCH + self._groups // _COHORT * 3_600_000 + rng.getrandbits(12) % 3600 * 1000
        self._groups += 1
        shared = serial(rng)
        if plan.kind == "stranger":
            # readings of somebody without a record must reach no table below landing
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
            # `none` has no weight, so no quota: nothing is written
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
        """Counts a person, and adds the rows of the person's readings if the person consents."""
        if one.story not in AGREEING:
            self.withdrew += one.story in WITHDREW
            self.never_agreed += one.story not in WITHDREW
            return
        self.agreed += 1
        everything = Tally(before.motions + since.motions, before.steps + since.steps, before.pairs + since.pairs)
        for rows, tally in ((self.all, everything), (self.since_consent, since)):
            rows["customers_trusted"] += 1
            rows["accelerometer_trusted"] += tally.motions
            # steps belong to curated customers only (rule 6)
            if tally.motions:
                rows["customers_curated"] += 1
                rows["step_trainer_trusted"] += tally.steps
                rows["machine_learning_curated"] += tally.pairs


def _shares(customers: int, readings: int) -> Iterator[tuple[Plan, int]]:
    """Divides exactly the given number of readings among the groups by their weight."""
    total = sum(plan.weight for plan in plans(customers))
    weight = 0
    for plan in plans(customers):
        # each share is the difference of two rounded sums: together they are exact
        dealt = readings * weight // total
        weight += plan.weight
        yield plan, readings * weight // total - dealt


def _agreed_from(quota: int, before: int, motion: str) -> int:
    """Returns the tick before which about `before` percent of the readings are."""
    if before == 100:
        # more ticks than the quota can have
        return quota + 1
    return int(quota / RECORDS_PER_TICK.get(motion, 1) * before / 100)
