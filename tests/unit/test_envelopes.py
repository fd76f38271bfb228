"""Envelopes: one person's objects are cut out of what holds several people's, and every other byte stays."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deliveries import customer, instant, motion, step
from stedi.erasure.identifiers import Identifiers
from stedi.erasure.judge import Judge
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key

KEY = Key(bytes(32))
ANA, BO, CY = "ana.bo@test.example", "bo@test.example", "cy@test.example"
TRACES = Identifiers(KEY, {tombstones.person(KEY, ANA)}, frozenset({ANA, "ana bo lund"}), frozenset({"device-of-ana"}))
JUDGE = Judge(TRACES, frozenset({("device-of-many", instant(104))}))
THEIRS: list[dict[str, object]] = [
    motion(ANA), customer(ANA.upper(), phone=None), step("device-of-ana"), step("device-of-many", instant(104)),
    {"customerName": "Ana Bo Lund", "x": {"y": [1, {"z": 2}]}}, {"mail": ANA, "nested": {"deep": [ANA]}},
    {"email": {"S": ANA}, "n": {"N": "1"}}, {"email": ANA, "devices": [{"id": 1}, {"id": 2}]},
]  # fmt: skip
OTHERS: list[dict[str, object]] = [
    motion(BO), customer(CY, customerName='a } " { b, [c] \\'), step("device-of-bo"), step("device-of-many", 105),
    {"customerName": "Bo Lund é\u2028😀", "x": {"y": [1, {"z": 2}]}}, {"email": {"S": BO}, "n": None}, {},
]  # fmt: skip

Wrap = Callable[[Sequence[Any]], Any]
WRAPS: dict[str, Wrap] = {
    "records": lambda found: {"records": list(found)},
    "data with a page": lambda found: {"page": {"next": None, "n": 2}, "data": list(found)},
    "Items": lambda found: {"Items": list(found), "Count": len(found)},
    "an array": list,
    "arrays": lambda found: [[one] for one in found],
    "hits": lambda found: {"hits": {"total": 9, "hits": [{"_id": n, "_source": one} for n, one in enumerate(found)]}},
    "by number": lambda found: {str(n): one for n, one in enumerate(found)} | {"about": {"mail": "help@test.example"}},
    "texts": lambda found: [json.dumps(one) for one in found],
    "a text": lambda found: {"body": json.dumps(list(found), ensure_ascii=False)},
    "a text in a text": lambda found: {"body": json.dumps({"message": json.dumps(list(found), indent=1)})},
    "messages": lambda found: {"Records": [{"Sns": {"Message": json.dumps(one)}} for one in found]},
    "two lists": lambda found: {"a": list(found[::2]), "b": list(found[1::2])},
}


def leaves(value: Any) -> list[str]:
    """Returns every record in a value, as its JSON."""
    known = [json.dumps(one, sort_keys=True) for one in (*THEIRS, *OTHERS)]
    if isinstance(value, str):
        return leaves(json.loads(value)) if value[:1] in "[{" and value else []
    if isinstance(value, dict) and json.dumps(value, sort_keys=True) in known:
        return [json.dumps(value, sort_keys=True)]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return [leaf for each in inner for leaf in leaves(each)]


def is_less(shorter: bytes, longer: bytes) -> bool:
    """Says whether a text is another with bytes left out."""
    rest = iter(longer)
    return all(byte in rest for byte in shorter)


@given(
    mine=st.lists(st.sampled_from(THEIRS), min_size=1, max_size=3),
    others=st.lists(st.sampled_from(OTHERS), min_size=1, max_size=3),
    wrap=st.sampled_from(sorted(WRAPS)),
    indent=st.sampled_from([None, 2]),
    escaped=st.booleans(),
    data=st.data(),
)
def test_only_the_person_goes_and_the_rest_stays(
    mine: list[dict[str, object]],
    others: list[dict[str, object]],
    wrap: str,
    indent: int | None,
    escaped: bool,
    data: st.DataObject,
) -> None:
    found = data.draw(st.permutations([*mine, *others]))
    raw = json.dumps(WRAPS[wrap](found), indent=indent, ensure_ascii=escaped).encode()
    cut = JUDGE.cut(raw)
    assert cut is not None
    kept = cut.of(raw)
    wanted = [json.dumps(one, sort_keys=True) for one in found if one in others]
    assert sorted(leaves(json.loads(kept))) == sorted(one for one in wanted)
    assert is_less(kept, raw)
    assert cut.clean
    assert cut.objects == len(mine)
    again = JUDGE.cut(kept)
    assert again
    assert (again.spans, again.clean) == ((), True), "once is enough"


@given(
    found=st.permutations([*THEIRS[:3], *OTHERS[:4]]),
    wrap=st.sampled_from(["records", "an array", "Items", "hits", "texts", "messages"]),
    data=st.data(),
)
def test_of_one_whose_end_is_missing_the_others_stay_too(
    found: list[dict[str, object]], wrap: str, data: st.DataObject
) -> None:
    raw = json.dumps(WRAPS[wrap](found)).encode()
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    cut = JUDGE.cut(raw)
    kept = cut.of(raw) if cut else raw
    if cut and cut.clean:
        assert ANA not in kept.decode().lower()
    whole = [json.dumps(json.dumps(one))[1:-1] if wrap in ("texts", "messages") else json.dumps(one) for one in OTHERS]
    for text in whole:
        assert kept.count(text.encode()) == raw.count(text.encode())


@pytest.mark.parametrize(
    "alone",
    [
        {"email": ANA}, {"user": [ANA], "timestamp": 1}, {"data": {"email": ANA}}, {"customerName": "Ana Bo Lund"},
        {"customerName": "Ana Bo Lund", "contacts": [{"mail": ANA}]},
    ],
)  # fmt: skip
def test_what_is_theirs_alone_goes_as_a_whole(alone: object) -> None:
    assert JUDGE.cut(json.dumps(alone).encode()) is None


@pytest.mark.parametrize(
    "other",
    [
        {"email": BO, "friends": [{"email": ANA}]}, {"from": BO, "subject": f"about {ANA}"},
        {"by": ANA, "records": [{"email": BO}]}, {"email": [ANA + " or " + BO]},
    ],
)  # fmt: skip
def test_what_is_somebody_elses_stays_whole_and_is_told(other: object) -> None:
    cut = JUDGE.cut(json.dumps(other).encode())
    assert cut
    assert (cut.spans, cut.clean) == ((), False)


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"nothing", b'"' + ANA.encode(), b"{} {}", b'{"records": [{"email": "%s"},]}' % ANA.encode(),
        b'{"a" "b"}', b"[" * 1000, b'{"a":' * 1000, b"\xff\xfe", b'{"records"; []}', b"[1 2]", b"]", b'{"a": 1]',
    ],
)  # fmt: skip
def test_what_is_no_json_is_no_envelope(raw: bytes) -> None:
    assert JUDGE.cut(raw) is None


def test_an_envelopes_own_word_stays_and_is_told() -> None:
    raw = json.dumps({"requested_by": ANA, "records": [motion(ANA), motion(BO)]}).encode()
    cut = JUDGE.cut(raw)
    assert cut
    assert not cut.clean
    assert json.loads(cut.of(raw)) == {"requested_by": ANA, "records": [motion(BO)]}


def test_two_addresses_in_one_record_are_both_theirs_or_it_stays() -> None:
    assert JUDGE.whose([("email", ANA), ("Email", ANA.upper())]) is True
    assert JUDGE.whose([("email", ANA), ("user", BO)]) is False
    assert JUDGE.whose([("email", BO), ("email", CY)]) is None
