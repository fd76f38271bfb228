"""A report, against a reader who adds and subtracts whatever is on it: nobody learns a count of a few people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

import quick
from deliveries import DAWN, customer, deliver, motion, step
from effort import NIGHTLY
from inference import Reader
from lakes import KEY
from stedi.cli.render import plain
from stedi.lake import Lake
from stedi.report import disclosure

MONTH = 2_700_000_000
SEEDS = range(24 if NIGHTLY else 2)
Pages = list[dict[str, object]]


def world(root: Path, rng: Random) -> tuple[Lake, Pages]:
    """Returns a lake whose few people join, withdraw, are released and erased, and its pages, each beside the last."""
    file = Lake.create(root / "lake").root / "lake.toml"
    file.write_text(file.read_text().replace("min_count = 5", f"min_count = {rng.choice((3, 5))}"))
    lake = Lake.open(root / "lake")
    inbox, people = root / "inbox", rng.randint(18, 36)
    pages: Pages = []
    moves = rng.random()
    for turn in range(2):
        who = range(turn * people // 2, (turn + 1) * people // 2)
        arrived = [
            customer(
                f"p{n}@x.example",
                DAWN + MONTH * rng.randint(1, 5) if rng.random() < 0.85 else ...,
                DAWN + MONTH * rng.randint(1, 5),
                serialNumber=f"s{n}",
            )
            for n in who
        ]
        deliver(inbox, "customer", arrived, f"{turn}.json")
        moving = [n for n in who if rng.random() < 0.5 + moves / 2]
        moments = [(n, 1000 * n + 20 * at) for n in moving for at in range(1, 4)]
        deliver(inbox, "accelerometer", [motion(f"p{n}@x.example", at) for n, at in moments], f"{turn}.json")
        deliver(inbox, "step_trainer", [step(f"s{n}", at) for n, at in moments if n % 5], f"{turn}.json")
        lake.land(inbox)
        lake.build()
        lake.create_dataset("gait")
        gone = rng.sample(who, rng.randint(0, 3))
        for n in gone[1:]:
            lake.withdraw(f"p{n}@x.example")
        if gone:
            lake.erase(f"p{gone[0]}@x.example")
        lake.full_audit(risk=True)
        earlier = root / "earlier.json"
        page = plain(lake.report(since=earlier if turn else None))
        earlier.write_text(json.dumps(page))
        pages.append(json.loads(earlier.read_text()))
    return lake, pages


@pytest.fixture(scope="module")
def worlds() -> Iterator[list[tuple[Lake, Pages]]]:
    with pytest.MonkeyPatch.context() as patch, quick.folder() as folder, quick.quickened():
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        made = []
        for seed in SEEDS:
            (folder / str(seed)).mkdir()
            made.append(world(folder / str(seed), Random(seed)))
        yield made


def test_no_count_of_a_few_people_can_be_worked_out_from_a_report(worlds: list[tuple[Lake, Pages]]) -> None:
    for seed, (_, pages) in zip(SEEDS, worlds, strict=True):
        for page in pages:
            assert Reader(page).told() == {}, f"seed {seed}"


def test_without_the_rule_of_differences_a_reader_learns(
    worlds: list[tuple[Lake, Pages]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reader is no straw man: of pages that hold back only what is small itself it works out the rest."""

    def shown(pool: disclosure.Disclosure, count: int) -> disclosure.Figure:
        return disclosure.few(pool.least) if pool.small(count) else count

    monkeypatch.setattr(disclosure.Disclosure, "figure", shown)
    assert [lake for lake, _ in worlds if Reader(json.loads(json.dumps(plain(lake.report())))).told()]
