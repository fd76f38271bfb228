"""Walkers walk: their signals have plausible sizes, their labels tell the truth, the answer stays right."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random
from statistics import fmean, median, pstdev
from typing import Any

import pytest

from stedi.errors import UsageError
from stedi.landing import sample
from stedi.landing.sample import walkers
from stedi.schema.feeds import CONTRACTS

START = 1_656_000_000_000
SEEDS = range(6)


@cache
def session(seed: int) -> walkers.Recording:
    return walkers.recording(START, Random(seed))


@pytest.fixture(params=SEEDS, ids=[f"seed {seed}" for seed in SEEDS])
def recorded(request: pytest.FixtureRequest) -> walkers.Recording:
    return session(request.param)


@pytest.fixture(scope="module")
def walked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sample.Answer]:
    folder = tmp_path_factory.mktemp("walkers") / "sample"
    return folder, sample.write(folder, customers=15, readings=400, seed=5, walkers=7, dirty=False)


def spans(recorded: walkers.Recording, activity: str) -> list[tuple[int, int]]:
    return [(one.start, one.end) for one in recorded.labels if one.end is not None and one.label == activity]


def steps(recorded: walkers.Recording) -> list[int]:
    return [one.start for one in recorded.labels if one.end is None]


def during(recorded: walkers.Recording, activity: str, of: str) -> list[list[float]]:
    """The samples of a sensor in each span of an activity, without their times and without the span's ends."""
    samples = recorded.motions if of == "phone" else recorded.steps
    return [
        [value for sample in samples if start + 500 <= sample[0] < end - 500 for value in sample[1:]]
        for start, end in spans(recorded, activity)
        if end - start > 3_000
    ]


def test_sensors_sample_at_their_rates_with_jitter_and_holes(recorded: walkers.Recording) -> None:
    for samples, every in ((recorded.motions, walkers.PHONE_MS), (recorded.steps, walkers.DEVICE_MS)):
        times = [sample[0] for sample in samples]
        between = [after - before for before, after in itertools.pairwise(times)]
        assert min(between) > 0
        assert median(between) == pytest.approx(every, abs=1)
        assert 1 < pstdev(one for one in between if one < 1.6 * every) < 9
        assert 0.9 < len(times) * every / (times[-1] - times[0]) < 0.999


def test_gravity_is_one_g_and_walking_shakes_the_phone_more_than_standing(recorded: walkers.Recording) -> None:
    everything = [sum(axis * axis for axis in motion[1:]) ** 0.5 for motion in recorded.motions]
    assert fmean(everything) == pytest.approx(1, abs=0.08)
    walking = [pstdev(values[2::3]) for values in during(recorded, "walking", "phone")]
    assert 0.05 < fmean(walking) < 0.4
    for still in during(recorded, "standing", "phone"):
        assert pstdev(still[2::3]) < 0.03


def test_activities_cover_the_session_once_and_steps_are_taken_only_while_walking(recorded: walkers.Recording) -> None:
    whole = [(one.start, one.end) for one in recorded.labels if one.end is not None]
    assert whole[0][0] == START
    assert whole[-1][1] == START + walkers.SECONDS * 1000
    assert all(before[1] == after[0] for before, after in itertools.pairwise(whole))
    walking = spans(recorded, "walking")
    assert all(any(start <= step <= end for start, end in walking) for step in steps(recorded))
    for start, end in walking:
        within = [step for step in steps(recorded) if start < step <= end]
        if len(within) > 10:
            cadence = 60_000 / fmean(after - before for before, after in itertools.pairwise(within))
            assert 80 < cadence < 152


def test_a_foot_comes_near_before_each_step_and_none_does_while_standing(recorded: walkers.Recording) -> None:
    for still in during(recorded, "standing", "device"):
        assert max(still) - min(still) < 25
    for moving in during(recorded, "walking", "device"):
        assert max(moving) - min(moving) > 14
        assert all(150 < distance < 320 for distance in moving)


def test_clocks_feet_and_paces_differ_from_person_to_person() -> None:
    def lag(recorded: walkers.Recording) -> float:
        """How much earlier than the label the foot turns back by the step trainer's clock, at the median."""
        found = []
        for step in steps(recorded):
            near = [(distance, time) for time, distance in recorded.steps if step - 700 < time <= step]
            if near:
                found.append(step - min(near)[1])
        return median(found)

    sessions = [session(seed) for seed in SEEDS]
    assert max(map(lag, sessions)) - min(map(lag, sessions)) > 15
    counts = Counter(len(steps(recorded)) for recorded in sessions)
    assert len(counts) > 3
    assert {one.label for recorded in sessions for one in recorded.labels} == {
        *("walking", "standing", "squatting", "handling", "sitting", "step")
    }


def test_the_answer_counts_the_walkers_as_a_plain_join_does(walked: tuple[Path, sample.Answer]) -> None:
    """Walkers' records have none of the others' troubles: the newest decides, and each device is one person's."""
    folder, answer = walked
    read = {
        feed: [json.loads(line) for path in (folder / feed).iterdir() for line in path.read_text("utf-8").splitlines()]
        for feed in CONTRACTS
    }
    assert {feed: len(records) for feed, records in read.items()} == answer.accepted
    others = sample.write(folder.parent / "others", customers=15, readings=400, seed=5, dirty=False)
    newest: dict[str, dict[str, Any]] = {}
    for line in (folder / "customer" / "customers-walkers-0001.json").read_text("utf-8").splitlines():
        record = json.loads(line)
        newest[record["email"]] = max(
            record, newest.get(record["email"], record), key=lambda one: one["lastUpdateDate"]
        )
    consents = {email: one.get("shareWithResearchAsOfDate") for email, one in newest.items()}
    for policy in ("all", "since-consent"):
        found = Counter(dict.fromkeys(answer.rows(), 0))
        for email, consent in consents.items():
            if consent is None:
                continue
            since = 0 if policy == "all" else consent
            moved = {one["timestamp"] for one in read["accelerometer"] if one["user"] == email}
            device = newest[email]["serialNumber"]
            stepped = {one["sensorReadingTime"] for one in read["step_trainer"] if one["serialNumber"] == device}
            moved, stepped = ({time for time in times if time >= since} for times in (moved, stepped))
            found["customers_trusted"] += 1
            found["customers_curated"] += 1
            found["accelerometer_trusted"] += len(moved)
            found["step_trainer_trusted"] += len(stepped)
            found["machine_learning_curated"] += len(moved & stepped)
        assert {table: rows - others.rows(policy)[table] for table, rows in answer.rows(policy).items()} == found
    assert answer.rows() != answer.rows("since-consent")


def test_the_labels_name_every_walker_by_address_and_landing_passes_over_them(
    walked: tuple[Path, sample.Answer],
) -> None:
    folder, answer = walked
    with (folder / sample.LABELS).open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len({row["email"] for row in rows}) == 7
    assert all(bool(row["instant"]) != bool(row["start"] and row["end"]) for row in rows)
    assert sample.LABELS.startswith("_")
    assert answer.files == sum(path.is_file() for path in folder.rglob("*")) - 2


def test_a_seed_gives_the_same_walkers_for_ever_and_changes_nobody_else(
    walked: tuple[Path, sample.Answer], tmp_path: Path
) -> None:
    folder, _ = walked
    sample.write(tmp_path / "without", customers=15, readings=400, seed=5, dirty=False)
    for path in sorted((tmp_path / "without").rglob("*-0001.json")):
        assert path.read_bytes() == (folder / path.relative_to(tmp_path / "without")).read_bytes()
    walking = sorted(path for path in folder.rglob("*") if "walkers" in path.name or path.name == sample.LABELS)
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in walking))
    assert (len(walking), digest.hexdigest()) == (4, "16b34dc8417c324df52de2d414e05f22e2aad20c981d3506edea83ea05fd4f4b")


def test_walkers_cannot_be_fewer_than_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="walkers >= 0, found 1, 0 and -1"):
        sample.write(tmp_path / "s", customers=1, readings=0, walkers=-1)
