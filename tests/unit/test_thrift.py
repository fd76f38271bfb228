"""Structures and headers of pages are read in C as in Python, or left to it; damaged and crafted ones, too."""

from __future__ import annotations

import pickletools
import tracemalloc
from ctypes import byref, c_char
from pathlib import Path
from random import Random, randrange
from typing import Any

import pytest

from effort import tries
from fuzzing import assert_no_fault, fuzz, noticed
from stedi.engines import thrift
from stedi.engines.thrift import BINARY, I32, STRUCT, Struct

pytestmark = pytest.mark.skipif(thrift.library() is None, reason="needs a C compiler")

SOURCE = Path(thrift.__file__).with_suffix(".c")
BOUNDS = (1, 2, 5, 6)


def structure(chance: Random, depth: int = 3, most: int = I32) -> Struct:
    """Like a page's header: numbers in its first fields, structures in those of headers, and sometimes anything."""
    made: Struct = {}
    for number in range(1, 9):
        kind = STRUCT if depth > 1 and number in (5, 7) else most
        if chance.random() < 0.04:
            kind = chance.choice([thrift.I64, thrift.I16, BINARY, thrift.LIST, thrift.TRUE])
        often = 0.9 if number < 4 else 0.5 if kind in (STRUCT, BINARY) else 0.03
        if chance.random() < often:
            made[number] = kind, value_of(chance, kind, depth)
    return made


def value_of(chance: Random, kind: int, depth: int) -> Any:
    if kind == STRUCT:
        # what a data page holds in a structure are statistics
        return structure(chance, depth - 1, I32 if depth > 2 or chance.random() < 0.1 else BINARY)
    if kind == thrift.LIST:
        of = chance.choice([thrift.I64, BINARY, *([STRUCT] if depth else [])])
        return of, [value_of(chance, of, depth) for _ in range(chance.choice([0, 1, 14, 20]))]
    if kind == BINARY:
        return chance.randbytes(chance.randrange(200))
    return None if kind == thrift.TRUE else chance.choice([0, 1, -1, 300, -(1 << 31), (1 << 31) - 1])


def head_of(page: Struct) -> tuple[list[int], list[bytes | None]] | None:
    """The numbers of a header and the bounds of its statistics; None if it has fields that no header has."""
    data, dictionary = (page.get(place, (STRUCT, {})) for place in (5, 7))
    if not page.keys() <= {1, 2, 3, 5, 7} or {data[0], dictionary[0]} != {STRUCT}:
        return None
    statistics = data[1].get(5, (STRUCT, {}))
    if statistics[0] != STRUCT:
        return None
    told = [(page, (1, 2, 3)), (data[1], (1, 2, 3)), (dictionary[1], (1, 2))]
    found = [fields.get(number, (I32, -1)) for fields, numbers in told for number in numbers]
    if any(kind != I32 for kind, _ in found):
        return None
    if not (data[1].keys() <= set(range(1, 6)) and dictionary[1].keys() <= {1, 2, 3}):
        return None
    if not statistics[1].keys() <= set(range(1, 9)):
        return None
    bounds = [statistics[1].get(number, (BINARY, None)) for number in BOUNDS]
    if any(kind != BINARY for kind, _ in bounds):
        return None
    return [value for _, value in found], [value for _, value in bounds]


def read_head(data: bytes, at: int) -> tuple[int, list[int], list[bytes | None]]:
    """The end of a header that is read in C, its numbers, and the bounds of its statistics."""
    numbers = bytearray(16 * 8)
    end = thrift.library().stedi_head(data, len(data), at, byref(c_char.from_buffer(numbers)))
    told = list(memoryview(numbers).cast("q"))
    parts = [
        None if place < 0 else data[place : place + size] for place, size in zip(told[8::2], told[9::2], strict=True)
    ]
    return end, told[:8], parts


SAFE = {
    *("EMPTY_DICT", "EMPTY_LIST", "MARK", "SETITEMS", "APPENDS", "TUPLE2", "NONE", "STOP"),
    *("BININT", "BININT1", "LONG1", "SHORT_BINBYTES", "BINBYTES"),
}
"""The instructions of a pickle that makes dictionaries, lists, pairs, None, integers and bytes, and calls nothing."""


def test_a_structure_is_read_in_c_as_in_python_and_its_pickle_calls_nothing() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, taken, count = Random(seed), 0, tries(1_000, 3_000, 100_000)
    big = [-(1 << 63), (1 << 63) - 1, 1 << 31, -(1 << 31) - 1, 255, 256]
    for number in range(count):
        fields = structure(chance, depth=chance.randrange(1, 6))
        if chance.random() < 0.3:
            fields[chance.randrange(40)] = thrift.I64, chance.choice(big)
            fields[-3] = BINARY, chance.randbytes(chance.choice([255, 256, 300]))
            fields[70_000 if number % 2 else 300] = thrift.TRUE, None
        data = bytearray(b"ab" + thrift.write(fields) + b"c")
        for _ in range(chance.choice([0, 0, 1, 3])):
            data[chance.randrange(len(data))] = chance.randrange(256)
        del data[len(data) - chance.choice([0, 0, 9]) :]
        for form in (bytes(data), memoryview(data), memoryview(bytes(data))):
            try:
                expected: Any = thrift._struct(form, 2, thrift._DEEPEST)
            except (thrift.Unreadable, IndexError):
                with pytest.raises(thrift.Unreadable):
                    thrift.read(form, 2)
                continue
            assert thrift.read(form, 2) == expected
        to = bytearray(18 * len(data) + 64)
        end = thrift.library().stedi_pickle(bytes(data), len(data), 2, len(to), byref(c_char.from_buffer(to)))
        assert end != -2, "there is room for 18 bytes for each byte"
        if end >= 0:
            assert {code.name for code, _, _ in pickletools.genops(to)} <= SAFE
            taken += 1
    assert taken > count / 4


def test_a_long_structure_is_read_as_a_short_one() -> None:
    fields = {4: (thrift.LIST, (STRUCT, [{1: (BINARY, bytes([n % 256]) * 9), 5: (I32, -n)} for n in range(9_000)]))}
    data = thrift.write(fields)
    assert thrift.library().stedi_pickle(data, len(data), 0, 100, byref(c_char.from_buffer(bytearray(100)))) == -2
    assert thrift.read(data) == (fields, len(data))


def test_what_is_nested_too_deeply_is_not_read() -> None:
    for nested in (b"\x1c" * 100_000, b"\x19" * 100_000):
        with pytest.raises(thrift.Unreadable):
            thrift.read(nested)
        room = byref(c_char.from_buffer(bytearray(1_000)))
        assert thrift.library().stedi_pickle(nested, len(nested), 0, 1_000, room) == -1


@pytest.mark.parametrize(
    ("size", "packed", "count", "encoding"), [(0, 0, 0, 0), (1 << 26, 63, 64, 8), (127, 8191, 1, 2)]
)
def test_a_header_is_written_as_it_is_read(size: int, packed: int, count: int, encoding: int) -> None:
    data = {1: (I32, count), 2: (I32, encoding), 3: (I32, 3), 4: (I32, 3)}
    page = {1: (I32, 0), 2: (I32, size), 3: (I32, packed), 5: (STRUCT, data)}
    assert thrift.page_header(size, packed, count, encoding) == thrift.write(page)
    dictionary = {1: (I32, 2), 2: (I32, size), 3: (I32, packed), 7: (STRUCT, {1: (I32, count), 2: (I32, encoding)})}
    assert thrift.page_header(size, packed, count, encoding, dictionary=True) == thrift.write(dictionary)
    for wrong in (-1, 1 << 31):
        with pytest.raises(thrift.Unreadable):
            thrift.page_header(wrong, packed, count, encoding)


def test_a_page_header_is_read_as_thrift_reads_it() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, taken, bounded, count = Random(seed), 0, 0, tries(2_000, 5_000, 100_000)
    for _ in range(count):
        page = structure(chance)
        data = chance.randbytes(3) + thrift.write(page) + chance.randbytes(5)
        end, *head = read_head(data, 3)
        expected = head_of(page)
        assert (end if expected is None else end - len(data)) == (-1 if expected is None else -5)
        if expected is not None:
            assert tuple(head) == expected
            taken += 1
            bounded += any(expected[1])
    assert count > taken > bounded > 0


def test_of_a_damaged_page_header_nothing_is_taken_that_thrift_does_not_read() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, taken = Random(seed), 0
    # a field with a number and the type 0, which ends a structure for other readers
    cases = [bytes.fromhex("1502100046ca"), bytes.fromhex("3000253a01d0fa42a7")]
    for _ in range(tries(2_000, 5_000, 100_000)):
        data = bytearray(thrift.write(structure(chance)))
        data[chance.randrange(len(data))] = chance.randrange(256)
        cases.append(bytes(data))
    for case in cases:
        end, *head = read_head(case, 0)
        if end < 0:
            continue
        page, at = thrift.read(case)  # raises for what it does not read
        assert (at, head_of(page)) == (end, tuple(head)), case.hex()
        taken += 1
    assert len(cases) > taken > 0


DATA = {1: (I32, 0), 2: (I32, 0), 3: (I32, 0), 5: (STRUCT, {1: (I32, 1), 2: (I32, 0), 3: (I32, 3)})}
DICTIONARY = {1: (I32, 2), 2: (I32, 0), 3: (I32, 0), 7: (STRUCT, {1: (I32, 1), 2: (I32, 0)})}


@pytest.mark.parametrize(
    ("chunk", "count"),
    [
        ([DATA, DATA], 2),
        ([DICTIONARY, DATA, DATA], 3),
        ([DATA, DICTIONARY], -1),
        ([{3: (I32, 0)}], -1),
        ([{**DATA, 1: (I32, 1)}], -1),
        ([{**DATA, 5: (STRUCT, {1: (I32, 1)})}], -1),
        ([{**DATA, 5: (STRUCT, {2: (I32, 0)})}], -1),
    ],
    ids=["data", "a dictionary first", "a dictionary later", "no kind", "an index", "no encoding", "no count"],
)
def test_no_room_is_made_for_headers_of_other_pages(chunk: list[Struct], count: int) -> None:
    content = b"".join(map(thrift.write, chunk))
    assert thrift.library().stedi_heads(content, len(content), 0, None) == count
    headers = thrift.page_headers(content)
    assert (-1 if headers is None else len(list(headers))) == count


@pytest.mark.parametrize("pages", [0, 1, 16, 17, 40])
@pytest.mark.parametrize("kind", [bytes, bytearray, lambda content: memoryview(bytearray(content))])
def test_all_headers_of_a_chunk_are_read_however_many_there_are(pages: int, kind: Any) -> None:
    content, expected = b"", []
    for number in range(pages):
        begin, bounds = len(content), {2: (BINARY, b""), 5: (BINARY, b"bound %d" % number)}
        page = {**DATA, 2: (I32, 700), 3: (I32, number)}
        page[5] = STRUCT, {1: (I32, number), 2: (I32, 8), 3: (I32, 3), 5: (STRUCT, bounds)}
        content += thrift.write(page)
        places = [content.index(b"bound %d" % number, begin), len(b"bound %d" % number)]
        expected.append((begin, len(content), len(content) + number, 0, 700, number, number, 8, 3, -1, -1, *places))
        content += bytes(number)
    found = thrift.page_headers(kind(content))
    assert found is not None
    for (*told, first, no_first, empty, size, at, length, last, no_last), one in zip(found, expected, strict=True):
        assert (*told, at, length) == one
        assert (first, no_first, last, no_last, size) == (-1, -1, -1, -1, 0)
        assert empty >= 0


def test_headers_of_crafted_pages_do_not_fill_the_memory() -> None:
    content = thrift.write(DATA) * (1 << 16)
    headers = thrift.page_headers(content)
    assert headers is not None
    assert len(list(headers)) == 1 << 16
    tracemalloc.start()
    try:
        assert thrift.page_headers(content + thrift.write(DATA)) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content)
    finally:
        tracemalloc.stop()


def test_no_header_makes_the_library_leave_its_memory(tmp_path: Path) -> None:
    count = tries(20_000, 60_000, 50_000_000)
    assert_no_fault(tmp_path, SOURCE, count, count / 10)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("for (i32 shift = 0; at < size; shift += 7) {", "for (i32 shift = 0; at <= size; shift += 7) {"),
        ("if (field < 0 || field >= FIELDS) return -1;", ""),
        ("while (at >= 0 && at < size) {", "while (at >= 0) {"),
        ("found.head.packed < 0 || found.head.packed > size - at", "found.head.packed < 0"),
        ("if (count < most) to[count]", "if (count <= most) to[count]"),
        ("if ((out->full = size > out->room - out->size)) return 0;", ""),
        ("at < 0 || found > (u64)(size - at) || found > INT32_MAX", "at < 0 || found > INT32_MAX"),
        ("if (size < 0 || packed < 0 || count < 0 || encoding < 0) return -1;", ""),
        ("if (statistics->kinds[field] != BINARY) return 0;", ""),
    ],
)
def test_a_library_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SOURCE, 60_000, mutant=(bound, looser)))
