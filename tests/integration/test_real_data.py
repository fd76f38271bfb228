"""The public data set of 2023: the figures that the rules of consent give on it, in every shape of file."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
import zstandard

import reader_files as shapes
from lakes import LANDING, Row, Slate, conserved, contents, records
from stedi.schema.roles import Readings

pytestmark = pytest.mark.own_engine

ROWS = {
    "customers_trusted": 482,
    "accelerometer_trusted": 40_981,
    "customers_curated": 482,
    "step_trainer_trusted": 14_460,
    "machine_learning_curated": 40_981,
}
FEEDS = ("customer", "accelerometer", "step_trainer")
Tables = dict[str, Counter[Row]]


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("slate"))


@pytest.fixture(scope="module")
def delivered(public_data: Path) -> dict[str, list[bytes]]:
    """The records of each feed, one text each."""
    files = {feed: sorted((public_data / feed).rglob("*.json")) for feed in FEEDS}
    return {feed: [line for file in files[feed] for line in file.read_bytes().splitlines()] for feed in FEEDS}


def tables_of(slate: Slate, inbox: Path, readings: Readings = "all") -> Tables:
    """Lands and builds, and returns the rows of every table with records."""
    lake = slate.wiped(readings)
    landed = lake.land(inbox)
    assert (landed.quarantined, landed.skipped) == (0, ())
    assert not any(landed.drift.values())
    lake.build()
    conserved(lake)
    return {name: records(lake, name) for name in LANDING} | contents(lake)


@pytest.fixture(scope="module")
def expected(slate: Slate, public_data: Path) -> Tables:
    return tables_of(slate, public_data)


def test_the_rules_give_the_known_counts(expected: Tables) -> None:
    assert [expected[name].total() for name in LANDING] == [956, 81_273, 28_680]
    assert {name: expected[name].total() for name in ROWS} == ROWS


def test_since_consent_leaves_out_what_came_before_it(slate: Slate, public_data: Path) -> None:
    tables = tables_of(slate, public_data, "since-consent")
    assert tables["machine_learning_curated"].total() == 32_025
    assert len({row[0] for row in tables["machine_learning_curated"]}) == 464
    assert tables["customers_trusted"].total() == 482
    assert tables["customers_curated"].total() == 464


def mixed(texts: list[bytes]) -> bytes:
    random = Random(1)
    parts = []
    while texts:
        size = random.randint(1, 2000)
        parts.append(random.choice(shapes.SHAPES)(texts[:size]))
        texts = texts[size:]
    return b"\n".join(parts)


def gzipped(texts: list[bytes]) -> bytes:
    return gzip.compress(shapes.lines(texts), 1)


def zstandarded(texts: list[bytes]) -> bytes:
    return zstandard.compress(shapes.back_to_back(texts), 1)


PLAIN = (shapes.crlf, shapes.back_to_back, shapes.commas, shapes.array, shapes.pretty, shapes.bom)


@pytest.mark.parametrize("encode", [*PLAIN, gzipped, zstandarded, mixed], ids=lambda encode: encode.__name__)
@pytest.mark.sample(full=4)
def test_every_shape_gives_the_same_tables(
    slate: Slate, delivered: dict[str, list[bytes]], expected: Tables, encode: Callable[[list[bytes]], bytes]
) -> None:
    inbox = slate.inbox()
    for feed, texts in delivered.items():
        (inbox / feed).mkdir()
        (inbox / feed / "delivered").write_bytes(encode(texts))
    assert tables_of(slate, inbox) == expected


def test_two_people_who_name_one_device_are_each_given_what_is_theirs(
    slate: Slate, public_data: Path, delivered: dict[str, list[bytes]], tmp_path: Path
) -> None:
    world = {feed: [json.loads(text) for text in texts] for feed, texts in delivered.items()}
    ana, bo = sorted(world["customer"], key=lambda record: str(record["email"]))[:2]
    earlier = ana | {"serialNumber": bo["serialNumber"], "lastUpdateDate": ana["lastUpdateDate"] - 1}
    inbox = slate.inbox()
    (inbox / "customer.json").write_text(json.dumps(earlier))
    lake = slate.wiped()
    lake.land(public_data, inbox)
    done = lake.export(ana["email"], bo["email"], output=tmp_path / "out")

    motions = [(r["user"], r["timestamp"]) for r in world["accelerometer"]]
    moved = {who["email"]: {at for user, at in motions if user == who["email"]} for who in (ana, bo)}
    of_bo = [r for r in world["step_trainer"] if r["serialNumber"] == bo["serialNumber"]]
    movers = [[who for who, moments in moved.items() if r["sensorReadingTime"] in moments] for r in of_bo]
    for number, (who, other) in enumerate(((ana, bo), (bo, ana)), start=1):
        own = [r for r in world["step_trainer"] if r["serialNumber"] == ana["serialNumber"]] if who is ana else []
        own += [r for r, by in zip(of_bo, movers, strict=True) if by == [who["email"]]]
        folder = tmp_path / "out" / str(number)
        found = [json.loads(line) for line in (folder / "step_trainer.jsonl").read_text().splitlines()]
        assert sorted((r["serialNumber"], r["sensorReadingTime"], r["distanceFromObject"]) for r in found) == sorted(
            (r["serialNumber"], r["sensorReadingTime"], r["distanceFromObject"]) for r in own
        )
        assert done.customers[number - 1].withheld_shared == sum(len(by) != 1 for by in movers)
        assert done.customers[number - 1].accelerometer == sum(user == who["email"] for user, _ in motions)
        assert not [path for path in folder.iterdir() if other["email"] in path.read_text()]
