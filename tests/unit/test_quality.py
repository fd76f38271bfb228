"""What a sampling rate allows is said in plain words, and what is said of all follows from what is said of each."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from random import Random
from statistics import median
from typing import Any

import pytest

from stedi.datasets import quality
from stedi.datasets.options import Options
from stedi.engines.duckdb import DuckDB

_MOMENT = {
    **dict.fromkeys(("person", "ms", "distance"), "bigint"),
    **dict.fromkeys("xyz", "double"),
    **dict.fromkeys(("vectors", "dt_ms"), "integer"),
}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDB]:
    with DuckDB(memory="200MB", threads=2, temporary=tmp_path_factory.mktemp("engine")) as opened:
        yield opened


def measured(engine: DuckDB, people: dict[int, list[tuple[Any, ...]]], options: Options) -> quality.Quality:
    """Measures moments by person, `(ms, distance, x, y, z, vectors, dt_ms)`; every other reading found no partner."""
    engine.insert_rows(
        "moments", _MOMENT, ((person, *moment) for person, moments in people.items() for moment in moments)
    )
    engine.materialize("present", "select person, min(ms) as first, count(*) as moments from moments group by person")
    columns = {
        "person": "integer",
        "customer_id": "varchar",
        "subject": "varchar",
        "split": "utinyint",
        "since": "bigint",
    }
    engine.insert_rows("members", columns, ((person, f"c{person}", f"s{person}", person % 3, 0) for person in people))
    engine.materialize(
        "step_trainer_trusted",
        "select 'c' || person as customer_id, make_timestamptz(ms * 1000) as sensorReadingTime from moments, range(2)",
    )
    return quality.measure(engine, options)


@pytest.mark.parametrize(
    ("rates", "window", "said"),
    [
        (
            [0.3268],
            None,
            "0.3 samples a second: a 2 s window holds 1 sample; a step takes half a second: "
            "no step detector can be trained on this",
        ),
        (
            [0.3, 0.3, 20.0],
            10_000,
            "2 of 3 people have 0.3 samples a second: a 10 s window holds 3 samples; a step takes half a second: "
            "no step detector can be trained on these",
        ),
        (
            [20.0, 19.0],
            10_000,
            "19.5 samples a second: a 10 s window holds 195 samples; a step takes half a second: "
            "fast enough to tell steps",
        ),
        (
            [0.002],
            None,
            "0.002 samples a second: a 2 s window holds 1 sample; a step takes half a second: no step detector",
        ),
        ([], None, "no person has two samples: nothing can be trained on this"),
    ],
)
def test_the_verdict_says_what_a_window_holds_and_what_cannot_be_trained(
    rates: list[float], window: int | None, said: str
) -> None:
    assert quality.verdict(rates, window).startswith(said)


@pytest.mark.parametrize("seed", range(3))
def test_each_person_is_measured_as_plain_python_measures(engine: DuckDB, seed: int) -> None:
    rng = Random(seed)
    people = {
        person: [
            (ms, rng.randrange(3), rng.random(), 0.0, float(person), rng.randrange(1, 4), rng.randrange(-20, 21))
            for ms in sorted(rng.sample(range(0, 60_000, 50), 80))
        ]
        for person in range(4)
    }
    options = Options.parse(match="nearest", tolerance=20, window=10_000, max_gap=2_000)
    found = measured(engine, people, options)
    for person, moments in people.items():
        told = found.by_subject[person]
        steps = [after[0] - before[0] for before, after in pairwise(moments)]
        kept = [step for step in steps if step <= 2_000]
        assert told["subject"] == f"s{person}"
        assert told["NumTicks"] == len(moments)
        assert told["interval_ms"]["median"] == sorted(steps)[(len(steps) - 1) // 2]
        assert told["SampleRate"] == pytest.approx(1000 / told["interval_ms"]["median"], abs=1e-4)
        assert told["NumInterrupts"] == sum(step > 2_000 for step in steps)
        assert told["longest_gap_s"] == max(steps) / 1000
        assert told["WearTime(days)"] == pytest.approx(sum(kept) / 86_400_000, abs=1e-9)
        assert told["matched_share"] == 0.5
        assert told["constant_channels"] == ["y", "z"]
        lags = [moment[-1] for moment in moments]
        bins = {str(low): sum(low <= lag < low + 2 for lag in lags) for low in range(-20, 21, 2)}
        assert told["dt_ms_histogram"] == {low: count for low, count in bins.items() if count}
    rates = [told["SampleRate"] for told in found.by_subject]
    assert found.overall["SampleRate"]["median"] == pytest.approx(median(rates), abs=1e-4)
    assert found.overall["NumTicks"] == 320
    assert sum(found.overall["dt_ms_histogram"].values()) == 320
    assert found.overall["constant_channels"] == {"y": 4, "z": 4}


def test_what_is_said_of_all_follows_from_what_is_said_of_each(engine: DuckDB) -> None:
    """So a copy from which somebody was taken out is described anew without a lake."""
    options = Options.parse()
    people = {person: [(ms * (person + 1), ms, 0.5, 1.0, ms / 7, 1, 0) for ms in range(50)] for person in range(3)}
    everybody = measured(engine, people, options)
    fewer = measured(engine, {person: people[person] for person in (0, 2)}, options)
    left = [told for told in json.loads(everybody.text())["by_subject"] if told["subject"] != "s1"]
    assert quality.of_people(left, options).text() == fewer.text()


def test_lists_of_vectors_and_single_moments_are_measured_too(engine: DuckDB) -> None:
    engine.materialize(
        "moments",
        "select 0 as person, 7::bigint as ms, 1::bigint as distance, [0.5, 0.5] as x, [0.5, 1.0] as y, "
        "[1.0, 1.0] as z, 2 as vectors, 0 as dt_ms",
    )
    engine.materialize("present", "select 0 as person, 1 as moments")
    engine.insert_rows(
        "members",
        {"person": "integer", "customer_id": "varchar", "subject": "varchar", "split": "utinyint", "since": "bigint"},
        [(0, "c0", "s0", 0, 0)],
    )
    engine.materialize(
        "step_trainer_trusted", "select 'c0' as customer_id, make_timestamptz(7000::bigint) as sensorReadingTime"
    )
    [told] = quality.measure(engine, Options.parse(vectors="list")).by_subject
    assert told["constant_channels"] == ["distance", "x", "z"]
    assert told["SampleRate"] is None
    assert told["vectors_per_moment"] == 2
