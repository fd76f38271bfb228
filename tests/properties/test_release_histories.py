"""Laws of releases over random histories: who is in them, in which split, and who has gone stale.

A history is a list of landings, withdrawals, erasures, changes of key, creations and refreshes in one lake; what must
hold is worked out beside it, by person, from what was asked for alone.
"""

from __future__ import annotations

import os
import random
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deliveries import customer, deliver, motion, step
from effort import tries
from lakes import Slate
from stedi import Lake
from stedi.datasets import recall as recalling
from stedi.datasets import registry
from stedi.datasets.verify import verify
from stedi.privacy import tombstones

HISTORIES = tries(1, 2, 200)
STEPS = 12
MOMENTS = 3


@dataclass
class World:
    """What was asked for.

    Attributes:
        agree: People who consent now.
        known: People of whom there are records.
        erased: People who were erased.
        tied: People who share a device with others: their splits may follow these.
        split: The split of each person in the first release that they were in.
        holds: Of each release the people who were in it.
        copies: Of each release a copy that was handed out, and what was in it.
    """

    agree: set[str] = field(default_factory=set)
    known: list[str] = field(default_factory=list)
    erased: set[str] = field(default_factory=set)
    tied: set[str] = field(default_factory=set)
    split: dict[str, str] = field(default_factory=dict)
    holds: dict[str, set[str]] = field(default_factory=dict)
    copies: dict[str, Path] = field(default_factory=dict)


def land(lake: Lake, inbox: Path, world: World, rng: random.Random, turn: int) -> None:
    """Lands a few new people, some with the device of one who is there."""
    records, motions, steps = [], [], []
    for _ in range(rng.randint(1, 3)):
        number = len(world.known) + 1
        person, serial = f"p{number}@x.example", f"s{number}"
        tied = [other for other in world.known if other not in world.erased]
        if tied and rng.random() < 0.2:
            other = rng.choice(tied)
            serial = f"s{other[1 : other.index('@')]}"
            world.tied |= {person, other}
        world.known.append(person)
        agrees = rng.random() < 0.8
        if agrees:
            world.agree.add(person)
        records.append(customer(person, 50 if agrees else ..., 100, serialNumber=serial))
        for at in range(1, MOMENTS + 1):
            motions.append(motion(person, 1000 * number + at))
            steps.append(step(serial, 1000 * number + at))
    for feed, rows in (("customer", records), ("accelerometer", motions), ("step_trainer", steps)):
        deliver(inbox, feed, rows, f"{turn}.json")
    lake.land(inbox)


def law(lake: Lake, world: World) -> None:
    """Holds a lake's releases to what they must be."""
    key = lake.key()
    stale = {release.release: set(release.stale) for release in lake.datasets(stale=True)}
    for release, people in world.holds.items():
        entry = registry.find(lake.context, release)
        identifier = registry.identifier(key, entry.lake, release)
        ids = {person: identifier(tombstones.person(key, person)) for person in world.known}
        gone = {ids[person] for person in people - world.agree}
        assert stale.get(release, set()) == gone, release
        found = verify(entry.path)
        assert found.holds, found.problems
        rows = pq.read_table(entry.path / "subjects.parquet").to_pylist()
        assert {row["subject"] for row in rows} == {ids[person] for person in people - world.erased}
        raw = b"".join(path.read_bytes() for path in entry.path.rglob("*.parquet"))
        assert not [person for person in people & world.erased if ids[person].encode() in raw]
        who = {subject: person for person, subject in ids.items()}
        for row in rows:
            person = who[row["subject"]]
            if person not in world.tied:
                assert world.split.setdefault(person, row["split"]) == row["split"], (release, person)


def make(lake: Lake, world: World, folder: Path, *, fresh: bool) -> None:
    """Makes a release, of those who agree, and hands out a copy."""
    made = lake.create_dataset("steps", split="50/25/25") if not fresh else lake.refresh_dataset("steps")
    key = lake.key()
    identifier = registry.identifier(key, lake.config.lake_id, made.release)
    there = set(registry.subjects(lake.context, made.release))
    world.holds[made.release] = {p for p in world.known if identifier(tombstones.person(key, p)) in there}
    assert world.holds[made.release] == world.agree
    world.copies[made.release] = Path(shutil.copytree(made.path, folder / made.release))


@pytest.mark.parametrize("number", range(HISTORIES))
def test_releases_hold_whom_they_may_whatever_happened(
    slate: Slate, tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    rng, lake, inbox, world = random.Random(seed), slate.wiped(), slate.inbox(), World()
    land(lake, inbox, world, rng, 0)
    for turn in range(1, STEPS):
        what = rng.choice(["land", "withdraw", "withdraw", "erase", "key", "create", "refresh", "refresh"])
        print(turn, what)
        left = sorted(world.agree)
        if what == "land":
            land(lake, inbox, world, rng, turn)
        elif what == "withdraw" and len(left) > 1:
            person = rng.choice(left)
            lake.withdraw(person)
            world.agree.discard(person)
        elif what == "erase" and len(left) > 1:
            person = rng.choice(left)
            lake.erase(person)
            world.agree.discard(person)
            world.erased.add(person)
        elif what == "key":
            every = f"{rng.randbytes(32).hex()} {os.environ['STEDI_PSEUDONYM_KEY']}"
            monkeypatch.setenv("STEDI_NEXT_PSEUDONYM_KEY", every)
            lake.rotate_key()
            monkeypatch.setenv("STEDI_PSEUDONYM_KEY", every)
            lake = Lake.open(lake.root)
        elif what in ("create", "refresh") and world.agree:
            make(lake, world, tmp_path, fresh=what == "refresh" and bool(world.holds))
        law(lake, world)
    for release, copy in world.copies.items():
        file = tmp_path / f"{release}.json"
        file.write_bytes(lake.recall_dataset(release).raw)
        recalling.apply(copy, file)
        found = verify(copy)
        assert found.holds, found.problems
        key, entry = lake.key(), registry.find(lake.context, release)
        identifier = registry.identifier(key, entry.lake, release)
        stay = {identifier(tombstones.person(key, person)) for person in world.holds[release] & world.agree}
        assert {row["subject"] for row in pq.read_table(copy / "subjects.parquet").to_pylist()} == stay
