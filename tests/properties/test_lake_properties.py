"""Whole lakes over small random worlds: real files, a real catalog, and the oracle beside them."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import worlds
from effort import tries
from lakes import LANDING, Slate, build, conserved, contents, heads, records, rows
from reader_files import SHAPES
from stedi.lake import Lake
from stedi.landing import reader
from stedi.landing.reader import reading

World = dict[str, list[dict[str, object]]]
seeds = st.integers(0, 2**32 - 1)


def few(examples: int) -> Callable[..., Any]:
    """Settings for tests in which each example lands and builds a lake: by day half, at night 50 times as many."""
    number = tries((examples + 1) // 2, (examples + 1) // 2, 50 * examples)
    return settings(max_examples=number, suppress_health_check=[HealthCheck.too_slow])


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("properties"))


def holds(lake: Lake, world: World, now: int, readings: str) -> None:
    """Asserts that the lake is what the oracle says."""
    expected = oracle.tables(world, now, readings, lake.key().customer_id)
    for table, found in contents(lake).items():
        assert found == Counter(getattr(expected, table)), table


@few(7)
@given(world=worlds.worlds(), seed=seeds)
def test_a_build_equals_the_oracle_under_both_policies(world: World, seed: int, slate: Slate) -> None:
    lake = slate.wiped()
    landing = lake.land(*worlds.write_world(world, slate.inbox(), Random(seed)))
    assert landing.seen == landing.accepted == sum(map(len, world.values()))
    conserved(lake)
    for readings in ("all", "since-consent"):
        lake.context.config = replace(lake.config, readings=readings)
        built = build(lake, worlds.NOW)
        holds(lake, world, worlds.NOW, readings)
        expected = oracle.tables(world, worlds.NOW, readings, lake.key().customer_id)
        assert built.withheld == len(expected.withheld)
        assert {table.name: table.rows for table in built.tables} == expected.counts()


@few(4)
@given(world=worlds.worlds(), one=seeds, other=seeds)
def test_neither_the_order_of_landing_nor_the_split_into_files_matters(
    world: World, one: int, other: int, slate: Slate
) -> None:
    lake = slate.wiped()
    for path in worlds.write_world(world, slate.inbox(), Random(one)):
        lake.land(path)
    build(lake, worlds.NOW)
    first = {table: records(lake, table) for table in LANDING}, contents(lake)

    lake = slate.wiped()
    lake.land(*worlds.write_world(world, slate.inbox(), Random(other)))
    build(lake, worlds.NOW)
    assert ({table: records(lake, table) for table in LANDING}, contents(lake)) == first


@few(5)
@given(world=worlds.worlds(), seed=seeds)
def test_landing_again_under_any_name_adds_nothing(world: World, seed: int, slate: Slate) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    first = lake.land(*worlds.write_world(world, inbox, Random(seed)))
    before = heads(lake)
    for path in list(inbox.rglob("*.json")):
        shutil.copy(path, path.with_name(f"again-{path.name}"))
    again = lake.land(inbox)
    assert heads(lake) == before
    assert all(file.already_landed for file in again.files)
    assert {file.sha256: file.seen for file in again.files} == {file.sha256: file.seen for file in first.files}
    assert again.seen == 2 * first.seen
    conserved(lake)


@few(5)
@given(
    world=worlds.worlds(),
    shape=st.sampled_from(SHAPES),
    ways=st.permutations(["as it lies", "quick", "careful"]),
    respelled=st.booleans(),
)
def test_every_way_of_landing_gives_equal_tables(
    world: World, shape: Any, ways: list[str], respelled: bool, slate: Slate
) -> None:
    """Clean files are read as they lie; others are rewritten, quickly or record by record."""
    found = []
    for way in ways:
        lake, inbox = slate.wiped(), slate.inbox()
        for feed, delivered in world.items():
            lines = [_spelled(record, respelled) for record in delivered]
            text = b"".join(line + b"\n" for line in lines) if way == "as it lies" else shape(lines)
            (inbox / f"{feed}.json").write_bytes(text)
        with pytest.MonkeyPatch.context() as patch:
            if way == "careful":
                patch.setattr(reader, "detect_layout", lambda head, contract: None)
                patch.setattr(reader, "read", _carefully)
            landing = lake.land(inbox)
        assert landing.quarantined == 0
        found.append({table: records(lake, table) for table in LANDING})
        conserved(lake)
    assert found[0] == found[1] == found[2]


@few(3)
@given(world=worlds.worlds(), seed=seeds, passing=st.integers(1, 4))
def test_a_consent_that_comes_with_time_is_picked_up_without_a_landing(
    world: World, seed: int, passing: int, slate: Slate
) -> None:
    lake = slate.wiped()
    lake.land(*worlds.write_world(world, slate.inbox(), Random(seed)))
    for now in (worlds.BASE + 4, worlds.BASE + 4 + passing, worlds.FUTURE - 1, worlds.FUTURE):
        build(lake, now)
        holds(lake, world, now, "all")
        assert build(lake, now).run == ""


@few(12)
@given(
    pieces=st.lists(
        st.one_of(
            worlds.motions().map(lambda record: json.dumps(record).encode()),
            worlds.motions().map(lambda record: json.dumps({**record, "x": "1"}).encode()),
            st.sampled_from([b"\n", b",", b"[", b"]", b'{"user":', b"null", b"\xff", b'{"a":{}}', b"}", b'"']),
            st.binary(max_size=20),
        ),
        max_size=20,
    )
)
def test_no_record_is_lost_or_made_up_whatever_the_bytes(pieces: list[bytes], slate: Slate) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    content = b"".join(pieces)
    path = inbox / "accelerometer.json"
    path.write_bytes(content)
    landing = lake.land(path)
    conserved(lake)
    if not landing.files:  # what begins as gzip or zstd and is none is refused whole
        assert [skipped.failed for skipped in landing.skipped] == [True]
        return
    [file] = landing.files
    assert file.seen == file.accepted + file.quarantined
    for row in rows(lake, "quarantine"):
        offset, raw, size = row[3], bytes(row[6]), row[7]
        assert content[offset : offset + size] == raw
    assert sum(records(lake, "accelerometer_landing").values()) == file.accepted


def _spelled(record: dict[str, object], respelled: bool) -> bytes:
    members = {name.upper() if respelled and name in ("timestamp", "email") else name: v for name, v in record.items()}
    return json.dumps(members, ensure_ascii=not respelled).encode()


def _carefully(*arguments: Any) -> Any:
    return reading.read(*arguments, careful=True)
