"""The scanner and the careful parser are one reader: the same records, values to the bit, rejects and counts."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_reader_properties import contracts, records

from effort import tries
from reader_files import SHAPES, Reading
from stedi.landing import reader
from stedi.landing.reader import Astray, Counts, Limits, Piece, Reject, scanner
from stedi.schema.contracts import Contract
from stedi.schema.feeds import ACCELEROMETER, CONTRACTS, CUSTOMER, STEP_TRAINER

pytestmark = pytest.mark.skipif(
    scanner.library() is None, reason="the scanner is not compiled (`make`, with a C compiler)"
)

FILES = tries(300, 1_000, 100_000)


@cache
def columns(contract: Contract) -> scanner.Columns:
    return scanner.Columns(contract)


class Scan:
    """What the scanner, and the careful parser for what it leaves, make of one file."""

    def __init__(
        self, text: bytes, contract: Contract, limits: Limits, pieces: Sequence[Piece] = (reader.WHOLE,)
    ) -> None:
        self.rejects: list[Reject] = []
        self.rows: Counter[tuple[object, ...]] = Counter()
        self._into = columns(contract)
        self._into.clear()
        self._into.begin("a")
        self.counts = Counts(0, 0, 0)
        for piece in pieces:
            stream, found = io.BytesIO(text[piece.begin :]), list[Reject]()
            self.counts += reader.scan(stream, self._into, self._full, found.append, limits, piece)
            lines = text.count(b"\n", 0, piece.begin)
            self.rejects += [replace(reject, line=reject.line + lines) for reject in found]
        self.texts = set[str]()
        self._full()

    def _full(self) -> None:
        if len(self._into):
            arrays = self._into.arrays()
            self.texts = {text for array in arrays.values() for text in dictionary(array)}
            del arrays["_file"]
            self.rows.update(map(bits, zip(*(array.to_pylist() for array in arrays.values()), strict=True)))
        self._into.clear()


def dictionary(array: Any) -> list[str]:
    """The texts that a column's pages would hold, whether a row has them or not."""
    return array.dictionary.to_pylist() if hasattr(array, "dictionary") else []


def bits(row: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(struct.pack("<d", value) if isinstance(value, float) else value for value in row)


def agree(text: bytes, contract: Contract, limits: Limits, pieces: Sequence[Piece] = (reader.WHOLE,)) -> Scan:
    """Asserts that both paths find the same in a text."""
    careful = Reading(text, contract, Limits(record_bytes=limits.record_bytes), careful=True)
    scan = Scan(text, contract, limits, pieces)
    names = [*(field.name for field in contract.fields), "_extra"]
    assert scan.rejects == careful.rejects, text
    assert scan.counts == careful.counts, text
    assert scan.rows == Counter(bits(tuple(map(value.get, names))) for value in careful.values), text
    return scan


@settings(max_examples=80)
@given(st.data())
def test_both_paths_find_the_same_in_every_shape(data: st.DataObject) -> None:
    contract = data.draw(contracts)
    found = data.draw(st.lists(records(contract, clean=True) | records(contract), min_size=2, max_size=12))
    text = data.draw(st.sampled_from(SHAPES))(found) + data.draw(st.sampled_from([b"", b'{"user":"cut', b"garbage"]))
    block = data.draw(st.sampled_from([1, 90, 300, 1 << 20]))
    agree(text, contract, Limits(record_bytes=data.draw(st.sampled_from([400, 1 << 20])), block_bytes=block))


NUMBERS = (
    "0",
    "-0",
    "-0.0",
    "0.0",
    "1e5",
    "1E-7",
    "-1.5e+3",
    "0.1",
    "1e22",
    "1e23",
    "9007199254740993",
    "1e-400",
    "1e400",
)
PIECES = (
    *(b'"', b"\\", b"\\u0041", b"\\ud800", b"{", b"}", b"[", b"]", b",", b":", b"\n", b"\r\n", b" ", b"\x00", b"\x7f"),
    *(b"\xc3\xa9", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xef\xbb\xbf", b"\xff", b"\xe2\x80\x8b"),
    *(b"null", b"true", b"NaN", b"00", b"-", b"e9", b'"user":"x",', b'"extra":[1,{"a":2}],'),
    *(b"}{", b"},{", b"946684799999"),
)  # fmt: skip


def number(dice: random.Random) -> str:
    kind = dice.random()
    if kind < 0.2:
        return dice.choice(NUMBERS)
    if kind < 0.5:
        return repr(struct.unpack("<d", dice.randbytes(8))[0] if kind < 0.35 else dice.gauss(0, 10))
    text = f"{dice.choice(('', '-'))}{dice.randrange(10 ** dice.choice((1, 2, 8, 16, 19, 26)))}"
    text += f".{''.join(dice.choices('0123456789', k=dice.choice((1, 3, 17, 25, 28))))}" if dice.random() < 0.7 else ""
    return text + (f"e{dice.randrange(-330, 310)}" if dice.random() < 0.2 else "")


def any_letter(dice: random.Random) -> str:
    """An address with a code point of two bytes, which may be one that nobody sees; often one of the same two."""
    return f"a{chr(dice.randrange(0x80, 0x800) if dice.random() < 0.5 else dice.choice((0xE9, 0xAD)))}@x.org"


def record(dice: random.Random, contract: Contract) -> bytes:
    members = []
    for field in contract.fields:
        if not field.required and dice.random() < 0.3:
            continue
        text = dice.choice(
            (
                "ann@x.org",
                "Bö@x.org",
                "用户@x.org",
                "a b",
                "",
                " ",
                "x" * dice.randrange(60),
                "}{",
                "ß\x7f",
                any_letter(dice),
            )
        )
        value = {
            "text": f'"{text}"',
            "instant": str(dice.choice((946684800000, 253402300799999, dice.randrange(10**12, 2 * 10**12)))),
            "number": number(dice),
            "integer": str(dice.randrange(-(10 ** dice.choice((1, 3, 18, 19))), 10 ** dice.choice((1, 3, 18, 19)))),
        }[field.kind]
        name = field.name.swapcase() if dice.random() < 0.05 else field.name
        members.append(f'"{name}"{dice.choice(("", "", " "))}:{dice.choice(("", " ", "  "))}{value}')
    if dice.random() < 0.1:
        dice.shuffle(members)
    return ("{" + dice.choice((",", ", ", ",\n  ")).join(members) + "}").encode()


def mutated(dice: random.Random, text: bytes) -> bytes:
    damaged = bytearray(text)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(damaged) + 1)
        size = dice.choice((0, 0, 1, 1, 3, 20))
        damaged[at : at + size] = dice.choice((dice.choice(PIECES), dice.randbytes(1), b""))
    return bytes(damaged)


def test_both_paths_find_the_same_in_files_that_are_damaged_anywhere() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    taken = seen = 0
    for _ in range(FILES):
        contract = dice.choice(list(CONTRACTS.values()))
        found = [record(dice, contract) for _ in range(dice.randrange(2, 9))]
        text = dice.choice(SHAPES)(found)
        text = mutated(dice, text) if dice.random() < 0.7 else text
        scan = agree(
            text, contract, Limits(record_bytes=dice.choice((300, 1 << 20)), block_bytes=dice.choice((64, 1 << 18)))
        )
        taken, seen = taken + scan.counts.accepted, seen + scan.counts.seen
    assert 0.2 < taken / seen < 0.95, "files neither good nor bad enough to tell anything"


@pytest.mark.parametrize(
    "line",
    [
        b'{"user":"a@x.org","timestamp":1655564444103,"x":1.0,"y":-0.25,"z":10.5}\n',
        b'{"sensorReadingTime": 1655564444103, "distanceFromObject": 201, "serialNumber": "s"}\n',
    ],
)
def test_a_record_that_differs_anywhere_from_those_before_it_is_read_as_if_it_stood_alone(line: bytes) -> None:
    contract = ACCELEROMETER if b"user" in line else STEP_TRAINER
    others = b"", b"}", b",", b'"', b" ", b"9", b"e", b',"x":1.0'
    for at in range(len(line)):
        # enough follows each: the scanner judges it, unless it is not sure
        odd = (2 * line + line[:at] + other + line[at + 1 :] for other in others)
        agree(b"".join(odd) + 4 * line, contract, Limits())


def test_decimals_of_few_digits_are_the_nearest_doubles() -> None:
    dice = random.Random(4)
    digits = [
        f"{sign}{''.join(dice.choices('0123456789', k=whole))}.{''.join(dice.choices('0123456789', k=part))}{end}"
        for sign in ("", "-")
        for whole in range(6)
        for part in range(7)
        for end in ("", "", "", " ", "e1", "E-2", ".", "x")
    ]
    line = '{{"user":"a@x.org","timestamp":1655564444103,"x":{0},"y":{0},"z":{0}}}\n'
    scan = agree("".join(map(line.format, digits)).encode(), ACCELEROMETER, Limits())
    assert scan.counts.accepted > 200


def test_pieces_of_a_file_hold_what_the_file_holds_unless_they_go_astray() -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    dice = random.Random(seed)
    right = Counter[str]()
    for _ in range(FILES):
        contract = dice.choice(list(CONTRACTS.values()))
        shape = dice.choice(SHAPES)
        text = shape([record(dice, contract) for _ in range(dice.randrange(4, 15))])
        text = mutated(dice, text) if dice.random() < 0.5 else text
        how = dice.choice(("cut", "cut", "anywhere", "brace"))
        if how == "cut":
            pieces = reader.cut(io.BytesIO(text), len(text), dice.randrange(2, 5))
        else:  # wherever: what does not go astray is right all the same
            places = [at for at in range(1, len(text)) if how == "anywhere" or text[at - 1] == 0x7D]
            ends = sorted(dice.sample(places, min(len(places), 2)))
            in_array = dice.random() < 0.5
            pieces = [Piece(*part, in_array) for part in zip([0, *ends], [*ends, None], strict=True)]
        block = dice.choice((64, 500, 1 << 18))
        try:
            agree(text, contract, Limits(record_bytes=dice.choice((300, 1 << 20)), block_bytes=block), pieces)
        except Astray:
            right[f"{how} astray"] += 1
        else:
            right[how if len(pieces) > 1 else "whole"] += 1
    print(right)
    assert right["cut"] > 2 * right["cut astray"]
    assert right["brace"] > FILES / 20


@pytest.mark.parametrize("end", [b'"user":"' + b"a" * 64 + b'@x.org"}', b'"user":"a@x.org"' + b" " * 70 + b"}"])
def test_pieces_whose_last_records_are_clean_to_their_ends_are_not_astray(end: bytes) -> None:
    text = b"\n".join([b'{"timestamp":1655564444103,"x":1.0,"y":0.0,"z":1.0,' + end] * 500)
    pieces = reader.cut(io.BytesIO(text), len(text), 3)
    assert len(pieces) == 3
    assert agree(text, ACCELEROMETER, Limits(), pieces).counts.accepted == 500


def test_counts_of_pieces_name_no_more_unknown_fields_than_those_of_a_file() -> None:
    pieces = [Counts(200, 200, 0, {f"unknown field f{n}": 1 for n in range(200 * i, 200 * i + 200)}) for i in range(3)]
    total = pieces[0] + pieces[1] + pieces[2]
    assert len(total.drift) == 201
    assert total.drift["unknown field"] == 400


@pytest.mark.parametrize("more", ['"b": 1.10,"a":"x y"', '"b" :1e400,"a":[{}]', '"b":"\\u0041","a":null'])
def test_unknown_fields_are_set_aside_as_they_were_delivered_in_every_record_of_a_file(more: str) -> None:
    step = f'{{"sensorReadingTime":1700000000000,{more},"serialNumber":"s","distanceFromObject":1}}\n'
    expected = "{" + more.replace('"b": ', '"b":').replace('"b" :', '"b":') + "}"
    found = agree(step.encode() * 20, STEP_TRAINER, Limits())
    assert [(row[-1], count) for row, count in found.rows.items()] == [(expected, 20)]


def test_of_a_record_that_is_refused_nothing_stays_in_a_column() -> None:
    good = b'{"user":"a@x.org","timestamp":1655564444103,"x":1.0,"y":0.0,"z":1.0}\n'
    bad = good.replace(b"a@x", b"secret@x").replace(b'"z":1.0', b'"z":"1.0"')
    scan = Scan(good + bad + good, ACCELEROMETER, Limits())
    assert (scan.counts.accepted, scan.counts.quarantined) == (2, 1)
    assert scan.texts == {"a@x.org", "a"}


def test_an_address_that_was_looked_at_once_is_scanned_from_then_on(monkeypatch: pytest.MonkeyPatch) -> None:
    text = '{"user":"用户@x.org","timestamp":1655564444103,"x":1.0,"y":0.0,"z":1.0}\n'.encode() * 1000
    latin = text.replace("用户".encode(), "Bö".encode())
    added = []
    into = columns(ACCELEROMETER)
    add = into.add
    monkeypatch.setattr(into, "add", lambda record: (added.append(record), add(record)))
    assert Scan(text, ACCELEROMETER, Limits()).counts.accepted == 1000
    assert len(added) == 2  # the first, and the last, behind which nothing follows
    assert Scan(latin, ACCELEROMETER, Limits()).counts.accepted == 1000
    assert len(added) == 3  # only the last


def test_columns_are_emptied_when_they_are_full_and_no_record_is_lost() -> None:
    size = scanner.ROWS + 17
    one = '{{"email":"{}@x.org","serialNumber":"s","registrationDate":1655564444103,"lastUpdateDate":1655564444103}}\n'
    scan = Scan(b"".join(one.format(n).encode() for n in range(size)), CUSTOMER, Limits())
    assert scan.counts.accepted == scan.rows.total() == len(scan.rows) == size


def test_a_file_in_several_pieces_is_in_the_dictionary_of_files_once() -> None:
    record = b'{"user":"a@x.org","timestamp":1655564444103,"x":1.0,"y":0.0,"z":1.0}\n'
    into, rejects = scanner.Columns(ACCELEROMETER), list[Any]()
    for file in ("a", "b", "a"):
        into.begin(file)
        reader.scan(io.BytesIO(record), into, into.clear, rejects.append, Limits(), reader.WHOLE)
    files = into.arrays()["_file"]
    assert files.to_pylist() == ["a", "b", "a"]
    assert files.dictionary.to_pylist() == ["a", "b"]
    into.clear()
    reader.scan(io.BytesIO(record), into, into.clear, rejects.append, Limits(), reader.WHOLE)
    assert into.arrays()["_file"].to_pylist() == ["a"]
