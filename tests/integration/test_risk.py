"""How many people the training table singles out is what counting them one by one gives."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable
from pathlib import Path
from random import Random

import pytest

import proof_mutants
from deliveries import customer, deliver, motion, step
from lakes import Row, rows
from stedi import cli
from stedi.audit.risk import Exposure, Risk
from stedi.lake import Lake

HOUR, DAY = 3_600_000, 86_400_000


def nearest(number: float) -> int:
    """The whole number beside it; halves away from zero."""
    return int(math.copysign(math.floor(abs(number) + 0.5), number))


def coarse(row: Row) -> tuple[int, ...]:
    return (row[2] // 10, *map(nearest, row[3:]))


VALUES: dict[tuple[str, str], Callable[[Row], Hashable]] = {
    ("times", "exact"): lambda row: row[1],
    ("times", "second"): lambda row: row[1] // 1000,
    ("times", "minute"): lambda row: row[1] // 60_000,
    ("times", "hour"): lambda row: row[1] // HOUR,
    ("times", "day"): lambda row: row[1] // DAY,
    ("distances", "exact"): lambda row: row[2],
    ("distances", "to 10"): lambda row: row[2] // 10,
    ("motions", "exact"): lambda row: row[3:],
    ("motions", "to 1"): lambda row: coarse(row)[1:],
    ("distances, motions", "exact"): lambda row: row[2:],
    ("distances, motions", "to 10, to 1"): coarse,
    ("times, distances, motions", "hour, to 10, to 1"): lambda row: (row[1] // HOUR, coarse(row)),
    ("times, distances, motions", "day, to 10, to 1"): lambda row: (row[1] // DAY, coarse(row)),
}


def counted(lake: Lake) -> Risk:
    """The same figures, person by person."""
    found = list(rows(lake, "machine_learning_curated").elements())
    people = {row[0] for row in found}
    exposures = []
    for (known, resolution), value in VALUES.items():
        of_person, of_value = defaultdict(set), defaultdict(set)
        for row in found:
            of_person[row[0]].add(value(row))
            of_value[value(row)].add(row[0])
        alone = {next(iter(who)) for who in of_value.values() if len(who) == 1}
        exposures.append(Exposure(known, resolution, len(alone), *groups(map(frozenset, of_person.values()))))
    counts = [sum(row[0] == person for row in found) for person in people]
    by_all, smallest = groups(counts)
    return Risk(len(people), len(found), (*exposures, Exposure("number of rows", "exact", by_all, by_all, smallest)))


def groups(keys: object) -> tuple[int, int]:
    sizes: dict[Hashable, int] = defaultdict(int)
    for key in keys:  # type: ignore[attr-defined]
        sizes[key] += 1
    return sum(size == 1 for size in sizes.values()), min(sizes.values(), default=0)


def walked(folder: Path, seed: int) -> Path:
    """Twelve people who walk at a few moments of three days, and measure few values."""
    random = Random(seed)
    people = [f"{n}@x.example" for n in range(12)]
    moments = [
        15_000 * DAY + day * DAY + hour * HOUR + ms for day in range(3) for hour in (1, 2) for ms in (0, 7, 1500)
    ]
    deliver(folder, "customer", [customer(who, serialNumber=f"dev-{n}") for n, who in enumerate(people)])
    motions, steps = [], []
    for n, who in enumerate(people):
        for at in random.sample(moments, random.randint(1, 3)):
            motions.append({**motion(who, at, random.choice([-1.0, 0.4, 1.0])), "y": random.choice([0.0, 0.2])})
            steps.append(step(f"dev-{n}", at, random.choice([201, 204, 215])))
    deliver(folder, "accelerometer", motions)
    deliver(folder, "step_trainer", steps)
    return folder


@pytest.mark.parametrize("seed", [1, 2])
def test_the_figures_are_those_of_counting_one_by_one(lake: Lake, tmp_path: Path, seed: int) -> None:
    lake.land(walked(tmp_path / "in", seed))
    lake.build()
    found = lake.risk()
    assert found == counted(lake)
    assert found.customers == 12
    # the figures tell the levels apart
    assert len({(e.by_one, e.by_all, e.smallest) for e in found.exposures}) > 5


def test_an_empty_table_singles_nobody_out(lake: Lake) -> None:
    found = lake.risk()
    assert (found.customers, found.rows) == (0, 0)
    assert {(e.by_one, e.by_all, e.smallest) for e in found.exposures} == {(0, 0, 0)}


def test_exact_times_single_out_everybody_of_the_public_data(lake: Lake, public_data: Path) -> None:
    lake.land(public_data)
    lake.build()
    found = {(e.known, e.resolution): e for e in lake.risk().exposures}
    assert found["times", "exact"].by_one == 482
    assert found["times", "exact"].smallest == 1


def test_the_command_reports_beside_the_audit(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    proof_mutants.make(lake, tmp_path)
    words = ["--lake", str(lake.root), "audit", "--risk"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "pseudonymous, not anonymous" in out
    assert "checks hold; 0 violations" in out
    assert cli.main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["holds"] is True
    risk = document["risk"]
    assert (risk["table"], risk["rows"]) == ("machine_learning_curated", 9)
    assert {"known", "resolution", "singled_out_by_one_row", "singled_out_by_all_rows", "smallest_group"} == set(
        risk["exposures"][0]
    )
    assert list((lake.root / "tmp").glob("work-*")) == []
