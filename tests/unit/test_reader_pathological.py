"""Text made to be slow: the work grows as the text does, and good records beside it are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from reader_files import SHAPES, Reading, array_lines, lines
from stedi.landing.reader import Limits
from stedi.schema.contracts import Contract, Reason
from stedi.schema.feeds import ACCELEROMETER, CUSTOMER, STEP_TRAINER


def motion(i: int, **more: object) -> bytes:
    return json.dumps(
        {"user": f"u{i}@x.org", "timestamp": 1655564444000 + i, "x": 1.0, "y": -0.5, "z": 0.0} | more
    ).encode()


GOOD = [motion(i) for i in range(5)]


@pytest.mark.parametrize("depth", [1, 2, 3, 63, 64, 65, 128, 129, 500, 70_000])
@pytest.mark.parametrize("opening", [b"[", b"[[", b"[ ", b"[1,", b'["a",', b"[[],", b"[\r\n["])
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.sample(full=30)
def test_arrays_that_are_never_closed_spare_the_records_on_the_lines_after_them(
    opening: bytes, depth: int, line_end: bytes
) -> None:
    for text in (opening * depth, b'{"a":' + opening * depth, motion(9) + line_end + opening * depth):
        if text.startswith(b'{"a":') and not text.endswith(b"["):
            continue
        read = Reading(text + line_end + line_end.join(GOOD) + line_end, ACCELEROMETER)
        read.check()
        users = [value["user"] for value in read.values]
        wanted = [f"u{i}@x.org" for i in range(5)]
        # in an object's own array the first could be its member; nothing else is lost
        assert users[-4:] == wanted[1:], text[:20]
        if not text.startswith(b'{"a":'):
            assert users[-5:] == wanted, text[:20]


def test_an_array_within_an_array_that_is_whole_is_still_no_record() -> None:
    for text in (b"[[\n" + b",\n".join(GOOD) + b"\n]]\n", b"[[" + b",".join(GOOD) + b"]]"):
        read = Reading(text, ACCELEROMETER)
        assert read.reasons == [Reason.NOT_AN_OBJECT]
        assert read.counts.accepted == 0


def indented_array(records: list[bytes]) -> bytes:
    return json.dumps([json.loads(record) for record in records], indent=2).encode()


def arrays(records: list[bytes]) -> bytes:
    return b"[" + b",".join(records[:2]) + b"]\n[" + b",".join(records[2:]) + b"]\n"


def envelope(records: list[bytes]) -> bytes:
    return b'{"records":[\n' + b",\n".join(records) + b"\n]}\n"


@pytest.mark.parametrize("shape", [*SHAPES, indented_array, arrays, envelope], ids=lambda shape: shape.__name__)
def test_one_damaged_byte_beside_a_bracket_spares_all_but_the_neighbour(shape: Callable[[list[bytes]], bytes]) -> None:
    whole = shape(GOOD)
    good = Reading(lines(GOOD), ACCELEROMETER).values
    before = Reading(whole, ACCELEROMETER).values
    beside = {at + by for at, byte in enumerate(whole) if byte in b"{}[]" for by in (-1, 0, 1, 2)}
    for at in sorted(beside & set(range(len(whole)))):
        damaged = [whole[:at] + whole[at + 1 :]]
        for byte in (b"[", b"]", b"{", b"}", b","):
            damaged += [whole[:at] + byte + whole[at:], whole[:at] + byte + whole[at + 1 :]]
        for n, text in enumerate(damaged):
            read = Reading(text, ACCELEROMETER, Limits(record_bytes=400, block_bytes=1) if (at + n) % 2 else None)
            read.check()
            where = text[max(0, at - 20) : at + 20]
            assert len([value for value in before if value in read.values]) >= len(before) - 2, where
            assert len([value for value in read.values if value not in good]) <= 1, where


def test_a_stray_bracket_before_more_than_a_record_may_have_spares_them_all() -> None:
    many = [motion(i) for i in range(20)]
    whole = b"[" + b",".join(many) + b"]"
    for text in (b"[" + whole, whole[:1] + b"[" + whole[1:-1], array_lines(many).replace(b"},\n", b"}[,\n", 1)):
        read = Reading(text, ACCELEROMETER, Limits(record_bytes=400))
        read.check()
        assert read.counts.accepted >= 19


def distinct_names(size: int) -> bytes:
    return b"\n".join(motion(i, **{f"a{i}": 1, f"b{i}": "x", f"c{i}": [1]}) for i in range(size // 120))


def many_names(size: int) -> bytes:
    return motion(1)[:-1] + b"," + b",".join(b'"f%x":1' % i for i in range(size // 10)) + b"}"


PATHOLOGICAL: dict[str, Callable[[int], bytes]] = {
    **{
        text.decode(): lambda size, text=text: (text * (size // len(text) + 1))[:size]  # type: ignore[misc]
        for text in (
            *(b"[{", b"{[", b"[", b"{", b"[{\n", b"{\n", b"[\n", b"[{]", b"[[{}", b"[1,", b"[[],", b"{}", b"x\n"),
            *(
                b'{"a":[',
                b'{"":{',
                b'{"a":',
                b'{"a"x',
                b'[{"',
                b'[["',
                b'"',
                b"\\",
                b'"\\',
                b'\\"',
                b'{"\\',
                b"}",
                b"]",
            ),
            *(b"]}", b",", b":", b'{"a":[{', b'[[\n{"', b'{"a":1,', b"1 ", b"-", b"\xef\xbb\xbf", b"\0"),
            *(b"[{},", b"[1,\n{},", b"[[1],{}],["),
        )
    },
    "brackets, then braces": lambda size: b"[" * (size // 2) + b"}" * (size // 2),
    "braces, then brackets": lambda size: b"{" * (size // 2) + b"]" * (size // 2),
    "one object and quotes": lambda size: b"{" + b'"' * size,
    "one text and quotes": lambda size: b'{"' + b'\\"' * (size // 2),
    "a hundred thousand names in a record": many_names,
    "other names in every record": distinct_names,
    "one name again and again": lambda size: motion(1)[:-1] + b',"user":1' * (size // 9) + b"}",
}


def seconds(text: bytes, contract: Contract) -> float:
    began = time.process_time()
    Reading(text, contract)
    return time.process_time() - began


@pytest.mark.parametrize("what", PATHOLOGICAL)
@pytest.mark.sample(full=24)
def test_twice_as_much_of_it_takes_about_twice_as_long(what: str) -> None:
    contract = CUSTOMER if "name" in what else ACCELEROMETER
    # of brackets, as many as fill a block, so that both texts go over its end
    size = 20_000 if what in ("{}", "x\n", "1 ") else 150_000 if what == "]" else 60_000
    make = PATHOLOGICAL[what]
    ratio = 0.0
    for _ in range(4):
        once, twice = seconds(make(size), contract), seconds(make(2 * size), contract)
        ratio = twice / max(once, 0.004)
        if ratio < 3:
            return
    pytest.fail(f"twice as much takes {ratio:.1f} times as long")


def test_a_pattern_is_made_for_a_shape_that_comes_again_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from stedi.landing.reader import fitting

    made: list[tuple[str, ...]] = []
    before = fitting._scalars

    def counted(names: tuple[str, ...], unknown: tuple[int, ...]) -> object:
        made.append(names)
        return before(names, unknown)

    monkeypatch.setattr(fitting, "_scalars", counted)
    read = Reading(distinct_names(60_000), ACCELEROMETER)
    assert read.counts.accepted == 500
    assert len(made) < 5
    again = Reading(b"\n".join(motion(i, speed=i) for i in range(500)), ACCELEROMETER)
    assert again.counts.accepted == 500
    assert len(made) < 10
    assert again.values[400]["_extra"] == '{"speed":400}'


def test_brackets_and_braces_by_the_thousand_are_one_record() -> None:
    """Half a million records of two bytes would be as much work as half a million records."""
    for text in (b"[{" * 5000, b"{[" * 5000, b"[{\n" * 5000, b"[" * 5000 + b"{" * 5000):
        read = Reading(text + b"\n" + b"\n".join(GOOD), ACCELEROMETER)
        assert read.counts.quarantined == 1, text[:6]
        assert read.counts.accepted >= 4, text[:6]


def test_a_reading_of_a_device_is_kept_beside_them_too() -> None:
    reading = b'{"sensorReadingTime":1655564444000,"serialNumber":"s","distanceFromObject":1}'
    read = Reading(b"[" * 129 + b"\n" + b"\n".join([reading] * 3), STEP_TRAINER)
    assert read.counts.accepted == 3
