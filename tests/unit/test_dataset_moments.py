"""Matching and windows: the SQL gives what plain Python gives, over small random worlds."""

from __future__ import annotations

import math
from collections import defaultdict
from itertools import pairwise
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedi.datasets import matching, windows
from stedi.datasets.options import Options
from stedi.datasets.windows import Assembly

TIMES = st.integers(0, 60)
STEPS = st.lists(st.tuples(st.integers(0, 2), TIMES, st.sampled_from("ab"), st.integers(200, 203)), unique=True)
VECTORS = st.lists(st.tuples(st.integers(0, 2), TIMES, *[st.floats(-20, 20, width=32) for _ in "xyz"]), unique=True)
QUICK = settings(max_examples=30)


@pytest.fixture(scope="module")
def session() -> duckdb.DuckDBPyConnection:
    found = duckdb.connect(config={"threads": 2})
    found.execute("create table steps (person integer, ms bigint, serial varchar, distance bigint)")
    found.execute("create table vectors (person integer, ms bigint, x double, y double, z double)")
    found.execute(
        "create table moments (person integer, ms bigint, distance bigint, x double, y double, z double, "
        "vectors integer, dt_ms integer)"
    )
    return found


def filled(session: duckdb.DuckDBPyConnection, table: str, rows: list[Any]) -> None:
    session.execute(f"delete from {table}")
    if rows:
        session.executemany(f"insert into {table} values ({', '.join('?' * len(rows[0]))})", rows)


def partner(options: Options, at: int, moments: list[int]) -> int | None:
    """The instant of the accelerometer that a step reading is paired with."""
    if options.match == "exact":
        return at if at in moments else None
    near = [m for m in moments if abs(m - at) <= options.tolerance and (options.match == "nearest" or m <= at)]
    return min(near, key=lambda m: (abs(m - at), m), default=None)


@pytest.mark.parametrize("match", ["exact", "nearest", "backward"])
@given(steps=STEPS, vectors=VECTORS, tolerance=st.integers(0, 30))
@QUICK
def test_readings_are_paired_as_plain_python_pairs_them(
    session: duckdb.DuckDBPyConnection, match: Any, steps: Any, vectors: Any, tolerance: int
) -> None:
    options = Options.parse(match=match, tolerance=None if match == "exact" else tolerance)
    filled(session, "steps", steps)
    filled(session, "vectors", vectors)
    moved: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for person, at, *vector in vectors:
        moved[person, at].append(vector)
    expected = []
    for person, at, _, distance in steps:
        best = partner(options, at, [m for p, m in moved if p == person])
        if best is not None:
            several = moved[person, best]
            mean = [math.fsum(axis) / len(several) for axis in zip(*several, strict=True)]
            expected.append((person, at, distance, *map(pytest.approx, mean), len(several), at - best))
    found = session.execute(
        f"select person, ms, distance, x, y, z, vectors, dt_ms from ({matching.moments(options)}) order by all"
    ).fetchall()
    assert len(found) == len(expected)
    remaining = list(expected)
    for row in found:
        remaining.remove(row)


@given(
    st.lists(st.floats(-1e8, 1e8), min_size=1, max_size=6).flatmap(lambda v: st.tuples(st.just(v), st.permutations(v)))
)
@QUICK
def test_a_mean_does_not_depend_on_the_order_of_its_vectors(session: duckdb.DuckDBPyConnection, orders: Any) -> None:
    for exact in (False, True):
        means = []
        for order in orders:
            filled(session, "vectors", [(1, 1, value, 0.0, 0.0) for value in order])
            means.append(session.execute(f"select x from ({matching.vectors(Options(), exact=exact)})").fetchone())
        assert means[0] == means[1]
        assert means[0] is not None
        assert means[0][0] == pytest.approx(math.fsum(orders[0]) / len(orders[0]), rel=1e-12, abs=1e-12)


def test_a_list_of_vectors_is_in_order_of_its_values(session: duckdb.DuckDBPyConnection) -> None:
    filled(session, "vectors", [(1, 1, 2.0, 5.0, 0.0), (1, 1, 1.0, 7.0, 0.0), (1, 1, 1.0, 6.0, 0.0)])
    options = Options.parse(vectors="list")
    assert session.execute(f"select x, y from ({matching.vectors(options)})").fetchall() == [
        ([1.0, 1.0, 2.0], [6.0, 7.0, 5.0])
    ]


MOMENTS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 120), st.integers(200, 203), st.integers(-3, 3)),
    unique=True,
    max_size=60,
).map(lambda rows: [(p, at, d, float(x), -float(x), 0.5, 1, 0) for p, at, d, x in rows])


def cut(options: Options, moments: list[Any]) -> list[tuple[int, int, list[Any]]]:
    """The windows, by plain Python: person, start, and the moments in it."""
    assert options.window
    assert options.stride
    found = []
    for person in sorted({m[0] for m in moments}):
        of_person = sorted(m for m in moments if m[0] == person)
        segments = [[of_person[0]]]
        for before, moment in pairwise(of_person):
            if moment[1] - before[1] > options.max_gap:
                segments.append([])
            segments[-1].append(moment)
        for segment in segments:
            start, end = segment[0][1], segment[-1][1]
            while start <= end:
                inside = [m for m in segment if start <= m[1] < start + options.window]
                if len(inside) >= options.min_samples:
                    found.append((person, start, inside))
                if options.stride <= options.window and start + options.window > end:
                    break
                start += options.stride
    return found


OPTIONS = st.builds(
    lambda window, stride, gap, least: Options.parse(window=window, stride=stride, max_gap=gap, min_samples=least),
    st.integers(1, 40),
    st.integers(1, 50),
    st.integers(1, 30),
    st.integers(1, 4),
)


def assembled(session: duckdb.DuckDBPyConnection, options: Options, batch: int = 1000, pad: int = 0) -> list[Any]:
    session.execute(f"create or replace table segments as {windows.segments(options)}")
    reader = session.execute(windows.samples(options, 0, 2)).to_arrow_reader(batch)
    return [row for table in Assembly(options, pad).rows(iter(reader)) for row in table.to_pylist()]


@given(moments=MOMENTS, options=OPTIONS)
@QUICK
def test_windows_are_cut_as_plain_python_cuts_them(
    session: duckdb.DuckDBPyConnection, moments: Any, options: Options
) -> None:
    filled(session, "moments", moments)
    found = assembled(session, options)
    expected = cut(options, moments)
    assert [(row["person"], row["start"]) for row in found] == [(person, start) for person, start, _ in expected]
    for row, (_, start, inside) in zip(found, expected, strict=True):
        assert sorted(zip(row["t_ms"], row["distance"], row["x"], strict=True)) == sorted(
            (m[1] - start, m[2], m[3]) for m in inside
        )
        assert row["t_ms"] == sorted(row["t_ms"])
    for person in range(3):
        assert [r["window"] for r in found if r["person"] == person] == list(
            range(sum(r["person"] == person for r in found))
        )


@given(moments=MOMENTS, options=OPTIONS, batch=st.integers(1, 7))
@QUICK
def test_windows_do_not_depend_on_how_samples_are_batched(
    session: duckdb.DuckDBPyConnection, moments: Any, options: Options, batch: int
) -> None:
    filled(session, "moments", moments)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "_GROUP", 5)
        assert assembled(session, options, batch) == assembled(session, options)


@given(moments=MOMENTS, options=OPTIONS, rate=st.sampled_from([50.0, 100.0, 333.0, 1000.0]))
@QUICK
def test_resampling_interpolates_between_neighbours_and_marks_what_it_made_up(
    session: duckdb.DuckDBPyConnection, moments: Any, options: Options, rate: float
) -> None:
    from dataclasses import replace

    filled(session, "moments", moments)
    found = assembled(session, replace(options, resample=rate))
    expected = cut(options, moments)
    assert [(row["person"], row["start"]) for row in found] == [(person, start) for person, start, _ in expected]
    for row in found:
        of_person = sorted(m for m in moments if m[0] == row["person"])
        once = {m[1]: m for m in reversed(of_person)}
        instants = sorted(once)
        begun = max(
            at for before, at in pairwise([-(10**9), *instants]) if at - before > options.max_gap and at <= row["start"]
        )
        ended = begun
        for at in instants:
            if begun < at <= ended + options.max_gap:
                ended = at
        grid = [round(i * 1000 / rate) for i in range(200)]
        assert row["t_ms"] == [t for t in grid if t < (options.window or 0) and row["start"] + t <= ended]
        for t, x, made_up in zip(row["t_ms"], row["x"], row["made_up"], strict=True):
            at = row["start"] + t
            assert made_up == (at not in once)
            before = max(i for i in instants if i <= at)
            after = min(i for i in instants if i >= at)
            share = (at - before) / (after - before) if after > before else 0.0
            assert x == pytest.approx(once[before][3] + (once[after][3] - once[before][3]) * share)
            assert after - before <= options.max_gap


@given(moments=MOMENTS, options=OPTIONS)
@QUICK
def test_padded_windows_are_the_ragged_ones_with_a_mask(
    session: duckdb.DuckDBPyConnection, moments: Any, options: Options
) -> None:
    filled(session, "moments", moments)
    ragged = assembled(session, options)
    longest = session.execute(windows.longest(options, 0, 2)).fetchone()
    assert longest is not None
    assert (longest[0] or 0) == max((len(row["t_ms"]) for row in ragged), default=0)
    padded = assembled(session, options, pad=longest[0] or 0)
    for row, plain in zip(padded, ragged, strict=True):
        mask = row.pop("mask")
        assert len(mask) == longest[0]
        assert mask == [True] * len(plain["t_ms"]) + [False] * (longest[0] - len(plain["t_ms"]))
        for name in ("t_ms", "distance", "x", "y", "z", "dt_ms"):
            assert [v for v, kept in zip(row[name], mask, strict=True) if kept] == plain[name]
            assert not any(v for v, kept in zip(row[name], mask, strict=True) if not kept)
