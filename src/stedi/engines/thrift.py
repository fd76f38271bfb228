"""Thrift's compact protocol, the encoding of the headers and the footer of a Parquet file.

Structures are read and written without a schema: fields by number, with their types, whatever they mean. `thrift.c`
reads them faster, if it is compiled, and the headers of many pages at once; what it refuses is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ctypes import byref, c_char, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from stedi import _native

TRUE, FALSE, BYTE, I16, I32, I64, FLOAT, BINARY, LIST, SET, MAP, STRUCT = range(1, 13)
"""The types of fields."""
_NUMBERS = (I16, I32, I64)
_DEEPEST = 24
"""Structures and lists within each other: crafted bytes must not exhaust the interpreter's stack."""

_PAGE = struct.Struct("<19q")
"""What `thrift.c` writes about a page: see `page_headers`."""
_PAGES, _MOST_PAGES = 16, 1 << 16
"""How many pages of a chunk are expected, and the most whose headers are held at once: a crafted page has 13 bytes."""
_ROOM, _TOO_LITTLE = 1 << 14, -2
"""How many bytes of a pickle are expected, and what `thrift.c` returns if there are more: at most 18 for each byte."""

_Header = c_char * 40
"""Memory for the header of a page."""

Struct = dict[int, tuple[int, Any]]
"""The fields of a structure: type and value by number."""


class Unreadable(Exception):
    """These bytes are not a structure that this module can read, or these numbers not those of a page."""


def read(data: bytes | memoryview, at: int = 0) -> tuple[Struct, int]:
    """Returns the structure that begins at an offset, and the offset of its end.

    Raises:
        Unreadable: There is no structure, or it has an unsupported type.
    """
    native, load = _reader()
    if native and (isinstance(data, bytes) or not data.readonly):
        room, end = _ROOM, _TOO_LITTLE
        while end == _TOO_LITTLE:
            to = bytearray(room)
            end = native(_content(data), len(data), at, room, byref(c_char.from_buffer(to)))
            room *= 8
        if end >= 0:
            return load(to), end
    try:
        return _struct(data, at, _DEEPEST)
    except IndexError:
        raise Unreadable from None


def page_headers(chunk: bytes | bytearray | memoryview) -> Iterable[tuple[int, ...]] | None:
    """Reads the headers of all pages of a column in a row group.

    Args:
        chunk: The bytes of the column in the row group; a view must be writable.

    Returns:
        For each page the offsets of its begin, its body and its end; then what the header says, -1 for what it does not
        say: type, uncompressed and compressed size, number of rows, encoding of values, encoding of levels, entries of
        a dictionary and their encoding. Last, of each of the fields 1, 2, 5 and 6 of its statistics, which hold bounds,
        the offset and the size.

        None if that is left to `read`: there is no library, something is not as expected, there are too many pages, or
        pages other than data pages of version 1, and a dictionary before them.
    """
    native = library()
    if native is None:
        return None
    content, most, count = _content(chunk), 0, _PAGES
    while most < count <= _MOST_PAGES:  # there are more pages than there was room for
        most = count
        to = bytearray(_PAGE.size * most)
        count = native.stedi_heads(content, len(chunk), most, byref(c_char.from_buffer(to)))
    return None if not 0 <= count <= _MOST_PAGES else _PAGE.iter_unpack(memoryview(to)[: _PAGE.size * count])


def page_header(size: int, packed: int, count: int, encoding: int, *, dictionary: bool = False) -> bytes:
    """Returns the header of a data page of version 1, whose levels are encoded as runs, or of a dictionary page.

    Args:
        size: The size of its body, uncompressed.
        packed: The size of its body.
        count: The number of its rows or entries.
        encoding: The encoding of its values.
        dictionary: Whether it is a dictionary page.

    Raises:
        Unreadable: A number is negative or has more than 32 bits.
    """
    to = _Header()
    end = library().stedi_header(dictionary, size, packed, count, encoding, to)
    if end < 0:
        raise Unreadable
    return to.raw[:end]


def _content(data: bytes | bytearray | memoryview) -> Any:
    """Returns bytes as an argument for C."""
    # ctypes points to the memory of `bytes`, or to memory that can be written
    return byref(c_char.from_buffer(data)) if data and not isinstance(data, bytes) else bytes(data)


@cache
def _reader() -> tuple[Any, Any]:
    """Returns the function that writes a structure as a pickle, and the one that loads it; None if not compiled."""
    from _pickle import loads  # what `pickle` imports besides takes longer than reading some footers

    native = library()
    return native and native.stedi_pickle, loads


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    return _native.library(
        Path(__file__).with_suffix(".c"),
        {
            "stedi_head": [c_int64, c_void_p, c_int64, c_int64, c_void_p],
            "stedi_pickle": [c_int64, c_void_p, c_int64, c_int64, c_int64, c_void_p],
            "stedi_header": [c_int64, c_int64, c_int64, c_int64, c_int64, c_int64, c_void_p],
            "stedi_heads": [c_int64, c_void_p, c_int64, c_int64, c_void_p],
        },
        brief=True,
    )


def write(fields: Struct) -> bytes:
    """Returns the bytes of a structure."""
    to = bytearray()
    _put_struct(to, fields)
    return bytes(to)


def _varint(data: bytes | memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise Unreadable


def _struct(data: bytes | memoryview, at: int, depth: int) -> tuple[Struct, int]:
    if not depth:
        raise Unreadable
    fields: Struct = {}
    number = 0
    while True:
        head = data[at]
        at += 1
        if not head:
            return fields, at
        kind = head & 15
        if head >> 4:
            number += head >> 4
        else:
            value, at = _varint(data, at)
            number = (value >> 1) ^ -(value & 1)
        if kind in (TRUE, FALSE):
            fields[number] = kind, None
        elif kind in _NUMBERS and (value := data[at]) < 128:  # most are one byte: a call would take most of the time
            at += 1
            fields[number] = kind, (value >> 1) ^ -(value & 1)
        else:
            found, at = _value(data, at, kind, depth)
            fields[number] = kind, found


def _value(data: bytes | memoryview, at: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in _NUMBERS:
        value, at = _varint(data, at)
        return (value >> 1) ^ -(value & 1), at
    if kind == BINARY:
        size = data[at]
        at += 1
        if size > 127:
            size, at = _varint(data, at - 1)
        # a slice would be silently shorter
        if size > len(data) - at:
            raise Unreadable
        return bytes(data[at : at + size]), at + size
    if kind == STRUCT:
        return _struct(data, at, depth - 1)
    if kind == LIST:
        head = data[at]
        at += 1
        count, of = head >> 4, head & 15
        if count == 15:
            count, at = _varint(data, at)
        # an element has a byte at least; neither a footer nor a page's header has a list of booleans
        if count > len(data) - at or of in (TRUE, FALSE) or depth < 2:
            raise Unreadable
        values = []
        for _ in range(count):
            value, at = _value(data, at, of, depth - 1)
            values.append(value)
        return (of, values), at
    raise Unreadable


def _put_varint(to: bytearray, value: int) -> None:
    while value > 127:
        to.append(value & 127 | 128)
        value >>= 7
    to.append(value)


def _put_number(to: bytearray, value: int) -> None:
    _put_varint(to, value << 1 if value >= 0 else (-value << 1) - 1)


def _put_struct(to: bytearray, fields: Struct) -> None:
    last = 0
    for number, (kind, value) in sorted(fields.items()):
        if 0 < number - last < 16:
            to.append((number - last) << 4 | kind)
        else:
            to.append(kind)
            _put_number(to, number)
        last = number
        if kind in _NUMBERS:  # most fields are: a call would take most of the time
            value = value << 1 if value >= 0 else (-value << 1) - 1
            while value > 127:
                to.append(value & 127 | 128)
                value >>= 7
            to.append(value)
        elif value is not None:
            _put(to, kind, value)
    to.append(0)


def _put(to: bytearray, kind: int, value: Any) -> None:
    if kind == STRUCT:
        _put_struct(to, value)
    elif kind == BINARY:
        _put_varint(to, len(value))
        to += value
    elif kind == LIST:
        of, values = value
        to.append(min(len(values), 15) << 4 | of)
        if len(values) >= 15:
            _put_varint(to, len(values))
        for each in values:
            _put(to, of, each)
    else:
        _put_number(to, value)
