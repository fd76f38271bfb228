"""Splits: who is in which is decided by a keyed hash, for those who share a device together, and stays so."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedi.datasets import splits
from stedi.datasets.options import Options, duration, rate, shares
from stedi.datasets.subjects import identifier
from stedi.errors import UsageError
from stedi.privacy.pseudonyms import Key

NUMBER = splits.hasher(Key(bytes(range(32))))
SHARES = (80.0, 10.0, 10.0)
MARKS = st.integers(0, 30).map(lambda n: f"{n:032x}")
DEVICES = st.lists(st.sets(MARKS, min_size=1, max_size=3), max_size=12)
QUICK = settings(max_examples=60)


def test_shares_are_cumulated_and_a_split_without_a_share_gets_nobody() -> None:
    top = 2**64
    assert [splits.place(at, SHARES) for at in (0, top * 4 // 5, top * 4 // 5 + 1, top * 9 // 10 + 1, top - 1)] == [
        0, 0, 1, 2, 2,
    ]  # fmt: skip
    assert splits.place(top - 1, (50.0, 50.0, 0.0)) == 1
    assert splits.place(0, (0.0, 50.0, 50.0)) == 1


def test_people_are_divided_by_their_shares() -> None:
    places = [splits.place(NUMBER(f"{n:032x}"), SHARES) for n in range(4000)]
    assert [round(places.count(split) / 40) for split in range(3)] == pytest.approx([80, 10, 10], abs=2)


@given(devices=DEVICES)
@QUICK
def test_a_group_is_everybody_whom_devices_tie(devices: list[set[str]]) -> None:
    tied = splits.groups(map(sorted, devices))
    assert tied.keys() == set().union(*devices)
    reached = {mark: {mark} for mark in tied}
    for _ in range(len(tied)):
        for device in devices:
            everybody = set().union(*(reached[mark] for mark in device))
            for mark in device:
                reached[mark] |= everybody
    for one, other in combinations(tied, 2):
        assert (tied[one] == tied[other]) == (other in reached[one])


@given(devices=DEVICES, marks=st.sets(MARKS, min_size=1), others=st.sets(MARKS))
@QUICK
def test_nobody_moves_when_others_come_or_go(devices: list[set[str]], marks: set[str], others: set[str]) -> None:
    tied = splits.groups(map(sorted, devices))
    alone, _ = splits.decided(marks, tied, NUMBER, SHARES)
    together, _ = splits.decided(marks | others, tied, NUMBER, SHARES)
    assert {mark: together[mark] for mark in marks} == alone
    for one, other in combinations(marks, 2):
        if one in tied and tied[one] == tied.get(other):
            assert alone[one] == alone[other]


@given(devices=DEVICES, more=DEVICES, marks=st.sets(MARKS, min_size=1))
@QUICK
def test_a_group_of_new_ties_keeps_the_split_of_who_was_there_first(
    devices: list[set[str]], more: list[set[str]], marks: set[str]
) -> None:
    first, _ = splits.decided(marks, splits.groups(map(sorted, devices)), NUMBER, SHARES)
    tied = splits.groups(map(sorted, [*devices, *more]))
    now, moved = splits.decided(marks, tied, NUMBER, SHARES, lambda mark: (1, first[mark]) if mark in first else None)
    assert {mark for mark in marks if now[mark] != first[mark]} == moved
    for mark in marks:
        group = {other for other in marks if tied.get(other, other) == tied.get(mark, mark)}
        assert now[mark] in {first[other] for other in group}


AMOUNTS = st.dictionaries(MARKS, st.dictionaries(st.sampled_from("abc"), st.floats(0, 100), max_size=3), min_size=1)


@given(amounts=AMOUNTS, newer=AMOUNTS, devices=DEVICES)
@QUICK
def test_stratified_splits_keep_groups_whole_and_move_nobody(
    amounts: dict[str, Any], newer: dict[str, Any], devices: list[set[str]]
) -> None:
    tied = splits.groups(map(sorted, devices))
    first, _ = splits.decided(amounts, tied, NUMBER, SHARES, amounts=amounts)
    again, _ = splits.decided(list(reversed(list(amounts))), tied, NUMBER, SHARES, amounts=amounts)
    assert again == first
    everybody = {**newer, **amounts}
    known = {mark: (1, split) for mark, split in first.items()}
    now, moved = splits.decided(everybody, tied, NUMBER, SHARES, known.get, everybody)
    assert not moved
    assert {mark: now[mark] for mark in first} == first
    for one, other in combinations(everybody, 2):
        if one in tied and tied[one] == tied.get(other):
            assert now[one] == now[other]


def test_stratified_splits_have_about_their_share_of_each_label() -> None:
    amounts = {f"{n:032x}": {"rare" if n % 10 == 0 else "common": 1.0 + n % 3} for n in range(200)}
    found, _ = splits.decided(amounts, {}, NUMBER, SHARES, amounts=amounts)
    for label in ("rare", "common"):
        total = sum(of.get(label, 0) for of in amounts.values())
        for split, share in enumerate(SHARES):
            held = sum(of.get(label, 0) for mark, of in amounts.items() if found[mark] == split)
            assert held / total * 100 == pytest.approx(share, abs=6), (label, split)


def test_subject_ids_differ_by_release_and_lake_and_do_not_follow_the_key() -> None:
    old = Key(bytes(range(32)))
    new = Key(bytes(range(1, 33)), (old,))
    mark = f"{7:032x}"
    found = {identifier(old, lake, release)(mark) for lake in ("a", "b") for release in ("s@1", "s@2", "t@1")}
    assert len(found) == 6
    assert identifier(new, "a", "s@1")(mark) == identifier(old, "a", "s@1")(mark)
    assert splits.hasher(new)(mark) == splits.hasher(old)(mark)


@pytest.mark.parametrize(
    ("text", "expected"), [("20ms", 20), ("10s", 10_000), ("1.5s", 1500), ("2m", 120_000), ("1h", 3_600_000), (7, 7)]
)
def test_durations_are_whole_milliseconds(text: object, expected: int) -> None:
    assert duration("window", text) == expected


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "0.0001s", "25h", "1e3s", "10 s", True, 1.5, "١s"])
def test_what_is_no_duration_is_refused_by_name(text: object) -> None:
    with pytest.raises(UsageError, match=r"^window: expected a duration"):
        duration("window", text)


def test_rates_and_shares_are_read() -> None:
    assert (rate("resample", "50Hz"), rate("resample", "12.5 hz"), rate("resample", 20)) == (50.0, 12.5, 20.0)
    assert shares("80/10/10") == shares([80, 10, 10]) == (80.0, 10.0, 10.0)
    for wrong in ("50", "0Hz", "2kHz", None, "nan Hz"):
        with pytest.raises(UsageError, match="resample: expected"):
            rate("resample", wrong)
    for others in ("80/20", "90/10/10", "a/b/c", "nan/50/50", "-10/100/10", 5):
        with pytest.raises(UsageError, match="split: expected"):
            shares(others)


@pytest.mark.parametrize(
    "words",
    [
        {"match": "closest"}, {"tolerance": "5ms"}, {"stride": "5s"}, {"min_samples": 3}, {"resample": "50Hz"},
        {"pad": True}, {"window": "0s"}, {"window": "10s", "min_samples": 0}, {"stratify": True}, {"sort": "up"},
        {"window": "10s", "vectors": "list", "resample": "50Hz"}, {"recipient": "a\nb"},
        {"window": "10s", "min_samples": "3"},
    ],
)  # fmt: skip
def test_options_that_do_not_go_together_are_refused_in_one_line(words: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as refused:
        Options.parse(**words)
    assert "expected" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("words", [{}, {"match": "nearest"}, {"window": "10s", "pad": True, "recipient": "a lab"}])
def test_options_are_the_same_once_they_were_json(words: dict[str, Any]) -> None:
    options = Options.parse(**words)
    assert Options.from_json(options.to_json()) == options
