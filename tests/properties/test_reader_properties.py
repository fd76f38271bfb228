"""Random files through the reader: every path accepts the same records, nothing is lost, nothing is made up."""

from __future__ import annotations

import io
import json
import math
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from effort import tries
from reader_files import SHAPES, Reading, array, back_to_back, duckdb_rows, lines
from stedi.landing import reader
from stedi.landing.reader import Limits, layout, reading
from stedi.schema.contracts import INSTANT_BEGIN, INSTANT_END, Contract, Field, Kind, Reason
from stedi.schema.feeds import ACCELEROMETER, CONTRACTS, CUSTOMER, STEP_TRAINER

contracts = st.sampled_from([CUSTOMER, ACCELEROMETER, STEP_TRAINER])
limits = st.builds(
    Limits,
    record_bytes=st.sampled_from([400, 1 << 20]),
    block_bytes=st.sampled_from([1, 7, 16, 90, 200, 1000, 1 << 20]),
)
INSTANTS = [INSTANT_BEGIN, 949_999_999_999, 950_000_000_000, 1655564444103, 10**14 - 1, 10**14, INSTANT_END - 1]
texts = st.text(st.characters(codec="utf-8", max_codepoint=0x10FFFF), max_size=12) | st.sampled_from(
    ["}{", "},{", "\u2028", "a\x7fb", "é", "😀", 'q"q', "back\\", "a\x00b", '{"user":', "[", "\ufeff", "x" * 40]
)
emails = st.sampled_from(["a@x.org", "Bö@x.org", "c}{@x.org", " d@x.org", "e\\@x.org", "用户@x.org", "ő@ñ.org"]) | (
    st.sampled_from("\u200b\x00\xad\xa0\ufeff\x7f\u202e\ue000\u3164").map(lambda unseen: f"f{unseen}@x.org")
)


trees = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=15,
)


def json_text(value: Any, draw: Any) -> str:
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@st.composite
def good_values(draw: Any, field: Field) -> str:
    """JSON of a value that the field takes."""
    if field.kind is Kind.TEXT:
        value: Any = draw(emails if field.required else texts)
        return json_text(value, draw)
    if field.kind is Kind.INSTANT:
        return str(draw(st.sampled_from(INSTANTS) | st.integers(INSTANT_BEGIN, 2**41)))
    if field.kind is Kind.INTEGER:
        return str(draw(st.integers(-(2**63), 2**63 - 1) | st.sampled_from([9007199254740993, 0, 10**17, 10**18])))
    return draw(  # type: ignore[no-any-return]
        st.sampled_from(["-1.0", "0.0", "1", "-0", "-0.0", "1e3", "1E-7", "0.1", "1e-400", "12345678901234567890"])
        | st.floats(allow_nan=False, allow_infinity=False).map(repr)
        | st.integers(-(10**17), 10**17).map(str)
        | st.from_regex(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,27})?", fullmatch=True)
    )


anything = st.sampled_from(
    ["null", "true", "0", "-5", "1.5", "1e400", "18446744073709551616", '""', '" "', '"1.5"', "[]", "{}", "9" * 5000,
     '[{"user":"a"}]', '{"a":{"a":1,"a":2}}', '"\\ud800"', "253402300800000", '"\\u0041"',
     "946684799999", "1655564444", "1655564444103000", "NaN", "01", "-"]
)  # fmt: skip


@st.composite
def records(draw: Any, contract: Contract, clean: bool = False) -> bytes:
    """One record's text: mostly good, else odd in one of many ways."""
    spaces = draw(
        st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :  ")] if not clean else [(",", ":"), (", ", ": ")])
    )
    members = []
    for field in contract.fields:
        if not field.required and draw(st.booleans()):
            continue
        members.append([field.name, draw(good_values(field))])
    if not clean and draw(st.integers(0, 3)) == 0:
        oddity = draw(st.integers(0, 5))
        at = draw(st.integers(0, len(members) - 1))
        if oddity == 0:
            members[at][1] = draw(anything)
        elif oddity == 1:
            members.insert(
                at, [draw(st.sampled_from(["speed", "_extra", "a b", "é", "USER", "timeStamp"])), draw(anything)]
            )
        elif oddity == 2:
            members.insert(at, [members[0][0].upper(), draw(anything)])
        elif oddity == 3:
            del members[at]
        elif oddity == 4:
            members.reverse()
        else:
            members[at][0] = members[at][0].swapcase()
    text = "{" + spaces[0].join(json.dumps(n) + spaces[1] + v for n, v in members) + "}"
    return bytes(text.encode())


def is_json(record: bytes) -> bool:
    return isinstance(reader.parse_value(record), reader.Parsed)


@pytest.fixture(autouse=True)
def _every_block_is_worth_the_vectorised_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SMALL", 80)


@settings(max_examples=tries(50, 50, 5_000))
@given(st.data())
@pytest.mark.thorough
def test_every_path_and_every_block_size_gives_the_same_records(data: st.DataObject) -> None:
    contract = data.draw(contracts)
    found = data.draw(st.lists(records(contract), max_size=12))
    shape = data.draw(st.sampled_from(SHAPES))
    limit = data.draw(limits)
    text = shape(found) + data.draw(st.sampled_from([b"", b"\n", b" \n\n", b'{"user":"cut', b"garbage"]))
    careful = Reading(text, contract, Limits(record_bytes=limit.record_bytes), careful=True)
    quick = Reading(text, contract, limit)
    careful.check()
    quick.check()
    assert quick.values == careful.values
    assert quick.rejects == careful.rejects
    assert quick.counts == careful.counts
    assert quick.spelling == careful.spelling


@settings(max_examples=tries(20, 40, 4_000))
@given(st.data())
def test_valid_records_come_out_one_by_one_in_order_whatever_the_shape(data: st.DataObject) -> None:
    contract = data.draw(contracts)
    found = data.draw(st.lists(records(contract).filter(is_json), max_size=10))
    parts = [data.draw(st.sampled_from(SHAPES))([record]) for record in found] if data.draw(st.booleans()) else [
        data.draw(st.sampled_from(SHAPES))(found)
    ]  # fmt: skip
    whole = Reading(b"".join(parts), contract, data.draw(limits))
    whole.check()
    alone = [Reading(record, contract) for record in found if len(record) <= 400 or whole.counts.seen == len(found)]
    assert whole.counts.seen == len(found)
    if all(len(record) <= 380 for record in found):
        assert whole.values == [value for one in alone for value in one.values]
        assert whole.reasons == [reason for one in alone for reason in one.reasons]


@settings(max_examples=tries(15, 30, 3_000))
@given(data=st.data())
def test_duckdb_reads_accepted_lines_exactly(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    contract = data.draw(contracts)
    found = data.draw(st.lists(records(contract), min_size=1, max_size=10))
    read = Reading(data.draw(st.sampled_from(SHAPES))(found), contract, data.draw(limits))
    rows = duckdb_rows(read.text, contract, read.spelling, tmp_path_factory.mktemp("lines"))
    expected = [tuple(value.get(name) for name in [*read.spelling, "_extra"]) for value in read.values]
    assert len(rows) == len(expected)
    for row, want in zip(rows, expected, strict=True):
        for field, got, value in zip([*contract.fields, None], row, want, strict=True):
            if field is not None and field.kind is Kind.NUMBER:
                assert value is not None
                assert got == float(value)
                assert not math.isinf(got)
            else:
                assert got == value
                assert type(got) is type(value)


@settings(max_examples=tries(20, 40, 4_000))
@given(data=st.data())
def test_what_the_patterns_take_duckdb_and_the_careful_path_read_alike(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    contract = data.draw(contracts)
    found = data.draw(st.lists(records(contract, clean=True) | records(contract), min_size=1, max_size=5))
    text = lines(found)
    form = reader.detect_layout(text, contract)
    if form is None or reader.verify(text, form) is None:
        return
    careful = Reading(text, contract, careful=True)
    assert reader.verify(text, form) == careful.counts.accepted == len(found)
    folder = tmp_path_factory.mktemp("lines")
    assert duckdb_rows(text, contract, form.spelling, folder) == duckdb_rows(
        careful.text, contract, careful.spelling, folder
    )
    assert layout.run_pattern(form).fullmatch(text)
    assert layout.lines_run_pattern(form).fullmatch(text)


@settings(max_examples=200)
@given(st.data())
def test_one_changed_byte_makes_no_record_up_and_spares_the_neighbours(data: st.DataObject) -> None:
    found = [
        json.dumps({"user": f"u{i}@x.org", "timestamp": 1655564444000 + i, "x": 1.0, "y": 0.5, "z": -1.0}).encode()
        for i in range(7)
    ]
    shape = data.draw(st.sampled_from(SHAPES))
    text = bytearray(shape(found))
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] = data.draw(st.integers(0, 255) | st.sampled_from(list(b'"\\{}[],:\n ')))
    before = Reading(shape(found), ACCELEROMETER).values
    after = Reading(bytes(text), ACCELEROMETER, data.draw(limits))
    after.check()
    # Besides the records before only the changed one may stand, and it must differ in one value.
    fresh = [value for value in after.values if value not in before]
    assert len(fresh) <= 1
    assert len([value for value in before if value in after.values]) >= len(found) - 2


@settings(max_examples=100)
@given(st.data())
def test_a_cut_costs_that_record_alone(data: st.DataObject) -> None:
    found = [
        json.dumps({"user": f"u{i}@x.org", "timestamp": 1655564444000 + i, "x": 1.0, "y": 0.5, "z": -1.0}).encode()
        for i in range(6)
    ]
    size = data.draw(st.integers(1, len(found[2]) - 1))
    first = [*found[:2], found[2][:size]]
    shape = data.draw(st.sampled_from([lines, back_to_back]))
    read = Reading(shape(first) + shape(found[3:]), ACCELEROMETER, data.draw(limits))
    read.check()
    users = [value["user"] for value in read.values]
    if found[2][:size].rstrip().endswith(b":") and shape is back_to_back:
        # What follows a colon is the cut record's value, as far as anybody can tell.
        assert users == ["u0@x.org", "u1@x.org", "u4@x.org", "u5@x.org"]
    else:
        assert users == ["u0@x.org", "u1@x.org", "u3@x.org", "u4@x.org", "u5@x.org"]
    assert read.reasons == [Reason.TRUNCATED]


@settings(max_examples=100)
@given(
    st.binary(max_size=300) | st.text(st.sampled_from('{}[]":,\\ \nuser1é\ufeff'), max_size=200).map(str.encode), limits
)
def test_any_bytes_give_the_same_records_and_rejects_in_every_block_size(text: bytes, limit: Limits) -> None:
    small = Limits(record_bytes=50, block_bytes=limit.block_bytes, raw_bytes=20, depth=5)
    one = Reading(text, ACCELEROMETER, small)
    other = Reading(text, ACCELEROMETER, Limits(record_bytes=50, raw_bytes=20, depth=5), careful=True)
    one.check()
    assert one.rejects == other.rejects
    values = list(reader.iter_values(io.BytesIO(text), small))
    assert len(values) == one.counts.seen


@settings(max_examples=100)
@given(trees, st.booleans())
def test_a_value_comes_back_as_it_was_written(value: Any, ascii_only: bool) -> None:
    parsed = reader.parse_value(json.dumps(value, ensure_ascii=ascii_only).encode())
    assert isinstance(parsed, reader.Parsed)
    assert _plain(parsed.value) == value


def _plain(value: Any) -> Any:
    if type(value) is tuple:
        return {name: _plain(inner) for name, inner in value}
    return [_plain(inner) for inner in value] if type(value) is list else value


def test_every_contract_has_its_own_required_fields() -> None:
    for feed, contract in CONTRACTS.items():
        record = json.dumps({field.name.swapcase(): 1 for field in contract.required}).encode()
        for text in (record, array([record] * 3) + b'{"cut'):
            assert reader.infer_feed(partial(io.BytesIO, text)) == feed
