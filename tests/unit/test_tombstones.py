"""Tombstones and receipts by themselves: marks never change, and putting tombstones together loses none."""

from __future__ import annotations

import base64
import json
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stedi.landing.deliveries.local import Delivered, Fingerprint
from stedi.landing.inspect import Inspected
from stedi.landing.prepare import Prepared
from stedi.landing.reader import Counts
from stedi.landing.tombstone_filter import TombstoneFilter
from stedi.privacy import receipts, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.schema.feeds import CUSTOMER
from stedi.storage import config
from stedi.storage.config import Config

KEY = Key(bytes(range(32)))
ANA = "Ana.Bo@Test.Example"
marks = st.sampled_from(["m1", "m2", "m3"])
found = st.builds(
    Tombstones,
    st.dictionaries(marks, st.integers(1, 9), max_size=3),
    st.dictionaries(marks, st.lists(marks, min_size=1, unique=True).map(lambda who: tuple(sorted(who))), max_size=3),
    st.dictionaries(marks, st.integers(1, 9), max_size=3),
    st.frozensets(marks),
    st.frozensets(marks),
    st.dictionaries(st.just("run"), st.just(("m1",))) | st.dictionaries(st.just("other"), st.just(("m2",))),
)


@given(one=found, other=found, third=found)
def test_putting_them_together_is_the_same_in_any_order_and_twice(
    one: Tombstones, other: Tombstones, third: Tombstones
) -> None:
    assert one | other == other | one
    assert (one | other) | third == one | (other | third)
    assert one | other | one == one | other
    assert one | Tombstones() == one


@given(one=found)
def test_they_are_read_as_they_were_written(one: Tombstones) -> None:
    assert tombstones.from_json(json.loads(json.dumps(tombstones.to_json(one)))) == one


@pytest.mark.parametrize(
    ("version", "marks"),
    [
        (
            1,
            {
                "person": "399aa400c6ef10ba192355bb46bc30d5",
                "serial": "7f847bf7e0105cbd4b85dbdc06267809",
                "moment": "31628b1198e46ae797bf2dacf2619872",
                "record": "fdcfede391d08b8e82a0ebb22c1fcced",
            },
        ),
        (
            2,
            {
                "person": "57de5252900e3450d07603c6b937d10f",
                "serial": "301b67cd396b3238d8e206f3be202147",
                "moment": "f2d33ddc36e58e036c65b5e64dda9273",
                "record": "292d6a8e340bab8bd3598075b96d6aaf",
            },
        ),
    ],
)
def test_marks_are_what_they_have_always_been(version: int, marks: dict[str, str]) -> None:
    """A mark that changes lets everybody back in who was erased before."""
    key = KEY.of_version(version)
    assert {
        "person": tombstones.person(key, ANA),
        "serial": tombstones.serial(key, "device-1"),
        "moment": tombstones.moment(key, "device-1", 1_655_564_444_103),
        "record": tombstones.record(key, b'{"user": "ana"'),
    } == marks


def test_a_receipt_from_before_receipts_were_bound_to_a_lake_is_still_known() -> None:
    signature = "baa9f2b749fc751f6d97c2b7a9b6075ea4a8c3866fc7d031513cefe6b9243178"
    receipt = {"id": "1", "people": ["m1"], "signature": signature}
    assert receipts.held_before(receipt, KEY.of_version(1))
    assert not receipts.holds(receipt, KEY, "0123456789abcdef")
    for changed in ({"people": ["m2"]}, {"lake": "0123456789abcdef"}, {"signature": "é"}, {"people": "m1"}):
        assert not receipts.held_before({**receipt, **changed}, KEY.of_version(1))


def test_spellings_of_one_address_have_one_mark_and_other_kinds_of_things_others() -> None:
    assert tombstones.person(KEY, ANA) == tombstones.person(KEY, f" {ANA.lower()} ")
    same = ANA.lower()
    kinds = {tombstones.person(KEY, same), tombstones.serial(KEY, same), tombstones.record(KEY, same.encode())}
    assert len({*kinds, KEY.customer_id(same)}) == 4
    assert tombstones.person(Key(bytes(32)), ANA) != tombstones.person(KEY, ANA)


BARRED = Tombstones(
    {tombstones.person(KEY, ANA): 100}, {}, {tombstones.serial(KEY, "device-1"): 100}, frozenset(),
    frozenset({tombstones.record(KEY, b"{garbage")}),
)  # fmt: skip


@pytest.mark.parametrize(
    "raw",
    [
        '{"user": "ana.bo@test.example", "timestamp": "x"}', '{"user": "ANA.BO@TEST.EXAMPLE"',
        "mail ana.bo@test.example",
        r'{"user": "\u0061na.bo@test.example"}', '{"serialNumber": "device-1"}', '{"serialNumber": "device-1',
        '{"user": "ana.bo@test.example", "timestamp": 100, "x": null}', "{garbage",
    ],
)  # fmt: skip
def test_a_refused_record_of_theirs_is_told(raw: str) -> None:
    assert BARRED.bars(KEY, raw.encode())


@pytest.mark.parametrize(
    "raw",
    [
        '{"user": "joana.bo@test.example"}', '{"serialNumber": "device-11"}', '{"user": "bo"}', "", "{garbage}",
        '{"user": "ana.bo@test.example", "timestamp": 101, "x": null}', "\ufffd\x00",
    ],
)  # fmt: skip
def test_a_refused_record_of_somebody_else_is_not(raw: str) -> None:
    assert not BARRED.bars(KEY, raw.encode())


def test_where_nobody_was_erased_there_is_nothing(tmp_path: Path) -> None:
    config.write(Config("0123456789abcdef", KEY.fingerprint), tmp_path / "lake.toml")
    assert not tombstones.read(tmp_path, KEY)
    tombstones.write(tmp_path, KEY, BARRED)
    assert tombstones.read(tmp_path, KEY) == BARRED
    assert (tmp_path / tombstones.NAME).stat().st_mode & 0o077 == 0


def test_rejects_of_the_erased_are_dropped_in_memory_that_does_not_grow_with_the_rejects(tmp_path: Path) -> None:
    path, count = tmp_path / "rejects.json", 4_000
    with path.open("wb") as out:
        for number in range(count):
            raw = json.dumps(
                {"email": ANA if number % 4 == 0 else f"bo{number}@test.example", "pad": "x" * 300}
            ).encode()
            row = {"offset": number, "raw": base64.b64encode(raw).decode(), "raw_size": len(raw)}
            out.write(json.dumps(row).encode() + b"\n")
    size, before = path.stat().st_size, path.read_bytes().splitlines()
    file = Inspected(Delivered(path, "1.json", None), CUSTOMER, "0" * 64, size, Fingerprint(0, 0, 0, 0, 0), None, None)
    known = Tombstones({tombstones.person(KEY, ANA): 2**62})
    tracemalloc.start()
    left = TombstoneFilter(KEY, known).without(Prepared(file, None, {}, path, Counts(count, 0, count)), 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size / 4
    assert (left.counts.seen, left.counts.quarantined, left.counts.erased) == (count, count * 3 // 4, count // 4)
    assert path.read_bytes().splitlines() == [line for number, line in enumerate(before) if number % 4]
    nobody = TombstoneFilter(KEY, known | Tombstones({tombstones.person(KEY, "bo1@test.example"): 2**62}))
    path.write_bytes(before[0] + b"\n" + before[1] + b"\n")
    assert nobody.without(Prepared(file, None, {}, path, Counts(2, 0, 2)), 0).rejects is None
