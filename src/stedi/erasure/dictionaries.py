"""Reads the texts that Parquet files store: in dictionaries, plain pages and bounds, also those that no row has.

An engine returns only the values of rows, and decodes every row for them. A dictionary, or the bounds in a footer, can
hold other values. Code that removes rows without decoding them must also remove these values, as `engines.pages` does.
Where all data pages of a column have only indices into a dictionary, the dictionary holds the values of all rows.

`dictionaries.c` takes texts apart, if it is compiled. This module shares only the Thrift protocol with
`engines.parquet` and `engines.pages`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from ctypes import byref, c_char_p, c_int64, c_ubyte, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from stedi import _native
from stedi._frozen import dataclass, field
from stedi.engines import thrift
from stedi.engines.thrift import Struct

_KINDS = {0: "BOOLEAN", 1: "INTEGER", 2: "BIGINT", 4: "FLOAT", 5: "DOUBLE"}
"""Physical types of values without text, and what DuckDB calls them."""
_TEXT = 6
_UNPACKED, _ZSTD = 0, 6
_PLAIN, _INDICES, _RLE = 0, (2, 8), 3
"""Encodings: of values as they are or as indices into a dictionary, and of definition levels."""
_DATA, _DICTIONARY = 0, 2
"""Types of pages."""
_MOST = 1 << 28
_MOST_PLAIN = 1 << 20
"""The most bytes of plain pages of a column in a row group that are read here: an engine reads many values faster."""
_BETWEEN = "\x1f"
_LENGTH = struct.Struct("<I").unpack_from
"""Reads the length before a text."""
_DAMAGED = (thrift.Unreadable, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, struct.error)
"""The exceptions that parsing a damaged or hostile file can raise."""


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of a Parquet file says.

    Attributes:
        path: The file.
        names: All names of its schema.
        told: The keys and values of its metadata.
        columns: Name and DuckDB type of each column; None if not all are flat texts and plain numbers.
        required: The names of flat columns that have no nulls.
        groups: Its row groups.
    """

    path: Path
    names: frozenset[str]
    told: frozenset[bytes]
    columns: tuple[tuple[str, str], ...] | None
    required: frozenset[str]
    groups: list[Struct]


@dataclass(slots=True)
class Stored:
    """The texts that some files store.

    Attributes:
        texts: All texts by column; a nested column has the name of its root.
        partial: The columns of which a row may have a text that is not among them.
    """

    texts: dict[str, set[str]] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)


def footer(path: Path) -> Footer | None:
    """Returns the footer of a file on this machine; None if it cannot be read."""
    try:
        with path.open("rb") as stream:
            end = stream.seek(0, os.SEEK_END)
            stream.seek(end - 8)
            size = int.from_bytes(stream.read(4), "little")
            stream.seek(end - 8 - size)
            fields, _ = thrift.read(stream.read(size))
        root, *elements = fields[2][1][1]
        names = frozenset(element[4][1].decode("utf-8", "replace") for element in (root, *elements))
        pairs = fields[5][1][1] if 5 in fields else ()
        told = frozenset(value for pair in pairs for _, value in pair.values() if isinstance(value, bytes))
        groups: list[Struct] = fields[4][1][1]
    except (OSError, *_DAMAGED):
        return None
    return Footer(path, names, told, _flat(root, elements), _required(elements), groups)


def stored(footers: Iterable[Footer]) -> Stored:
    """Returns the texts that some files store; the columns of a damaged file are partial."""
    found: dict[str, set[str]] = {}
    partial: set[str] = set()
    for each in footers:
        try:
            with each.path.open("rb") as stream:
                for group in each.groups:
                    _add_group(stream, group, each, found, partial)
        except (OSError, *_DAMAGED):
            # the engine reports it, and it is searched as bytes
            partial.update(found, (name for name, _ in each.columns or ()))
    return Stored(found, partial)


def _flat(root: Struct, elements: list[Struct]) -> tuple[tuple[str, str], ...] | None:
    """Returns the columns of a schema; None if one is nested or of an unknown type."""
    try:
        columns = tuple((element[4][1].decode(), _kind(element)) for element in elements)
        if root[5][1] != len(elements) or len({name.lower() for name, _ in columns}) < len(columns):
            return None
    except _DAMAGED:
        return None
    return columns


def _kind(element: Struct) -> str:
    """Returns what DuckDB calls the type of a flat column; raises ValueError if it has another type."""
    if 5 in element or element[3][1] not in (0, 1):
        raise ValueError
    if element[1][1] != _TEXT:
        return _KINDS[element[1][1]]
    # a text has the converted type UTF8, or the logical type String
    if not (6 in element and element[6][1] == 0) and not (10 in element and 1 in element[10][1]):
        raise ValueError
    return "VARCHAR"


def _required(elements: list[Struct]) -> frozenset[str]:
    required = (element for element in elements if 3 in element and element[3][1] == 0)
    return frozenset(element[4][1].decode("utf-8", "replace") for element in required)


def _add_group(stream: Any, group: Struct, of: Footer, found: dict[str, set[str]], partial: set[str]) -> None:
    """Adds the texts of a row group."""
    left = {name for name, kind in of.columns or () if kind == "VARCHAR"}
    for chunk in group[1][1][1]:
        meta: Struct = chunk[3][1]
        if meta[1][1] != _TEXT:
            continue
        name, *nested = (part.decode() for part in meta[3][1][1])
        values = found.setdefault(name, set())
        if 12 in meta:
            _add_bounds(meta[12][1], values)
        complete = False
        try:
            complete = _add_pages(stream, meta, group[3][1], name in of.required, values)
        finally:
            if nested or not complete or name not in left or 1 in chunk:  # 1: another file has the pages
                partial.add(name)
            left.discard(name)
    partial.update(left)


def _add_bounds(statistics: Struct, values: set[str]) -> None:
    values.update(_text(statistics[number][1]) for number in (1, 2, 5, 6) if number in statistics)


def _add_pages(stream: Any, meta: Struct, rows: int, required: bool, values: set[str]) -> bool:
    """Adds the texts of a chunk's pages, and returns whether they are all texts that its rows can have."""
    codec, count, data, size = (meta[number][1] for number in (4, 5, 9, 7))
    start = meta[11][1] if 11 in meta and 0 < meta[11][1] < data else data
    if codec not in (_UNPACKED, _ZSTD) or not (start > 0 and 0 <= size <= _MOST):
        return False
    stream.seek(start)
    source = memoryview(stream.read(size))
    if len(source) < size:
        return False
    at = seen = plain = 0
    complete, numbered = True, False
    while at < size:
        head, at = thrift.read(source, at)
        kind, unpacked, packed = (head[number][1] for number in (1, 2, 3))
        if not (0 <= packed <= size - at and 0 <= unpacked <= _MOST):
            return False
        body, at = source[at : at + packed], at + packed
        if kind == _DICTIONARY:
            complete = _add_entries(_unpacked(body, unpacked, codec), values) and complete
            numbered = True
        elif kind == _DATA:
            page: Struct = head[5][1]
            seen += page[1][1]
            if 5 in page:
                _add_bounds(page[5][1], values)
            if page[2][1] in _INDICES and numbered:
                continue
            plain += unpacked
            if page[2][1] != _PLAIN or plain > _MOST_PLAIN or not (required or page[3][1] == _RLE):
                complete = False
                continue
            content = _unpacked(body, unpacked, codec)
            levels = 0 if required else 4 + int.from_bytes(content[:4], "little")
            complete = levels <= len(content) and _add_entries(content[levels:], values) and complete
        else:
            complete = False
    return complete and seen == count == rows


def _unpacked(page: memoryview, size: int, codec: int) -> bytes:
    """Returns the content of a page."""
    import zstandard

    if codec == _UNPACKED:
        return bytes(page)
    try:
        # a damaged frame can name a size that does not fit into memory
        if zstandard.get_frame_parameters(page).content_size not in (size, zstandard.CONTENTSIZE_UNKNOWN):
            raise ValueError
        content = zstandard.ZstdDecompressor().decompress(page, max_output_size=size)
    except zstandard.ZstdError as error:
        raise ValueError from error
    if len(content) != size:  # a second frame may follow
        raise ValueError
    return content


def _add_entries(page: bytes, values: set[str]) -> bool:
    """Adds all texts in the bytes of a dictionary or of plain values, whatever count the header of the page states.

    Returns:
        Whether the bytes are texts to their end.
    """
    if not page:
        return True
    if native := library():
        joined = bytearray(len(page))
        size = native.stedi_split(page, len(page), ord(_BETWEEN), byref(c_ubyte.from_buffer(joined)))
        if size > 0:
            values.update(_text(joined[: size - 1]).split(_BETWEEN))
            return True
    at, end = 0, len(page)
    while at + 4 <= end:
        until = at + 4 + _LENGTH(page, at)[0]
        values.add(_text(page[at + 4 : until]))
        at = until
    return at == end


def _text(raw: bytes | bytearray) -> str:
    return raw.decode("utf-8", "replace")


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    return _native.library(
        Path(__file__).with_suffix(".c"), {"stedi_split": [c_int64, c_char_p, c_int64, c_ubyte, c_void_p]}
    )
