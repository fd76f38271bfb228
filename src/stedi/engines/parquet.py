"""Reads Parquet files of the lake's own writers down to their encoded pages, with `pages.c`.

A file's bytes -> its footer, with the schema checked -> the chunk of each column in a row group -> its dictionary and
data pages -> the values in some rows of a page. `engines.pages` rewrites files from what is read here.

Only PyArrow's and DuckDB's files with flat columns of texts, 64-bit integers, doubles and dates, and zstd are
supported. In any other file a field, an encoding or a size is not as expected, and the functions raise.
"""

from __future__ import annotations

import ctypes
import os
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_uint8, c_void_p
from functools import cache, cached_property
from pathlib import Path
from typing import Any, BinaryIO

from stedi import _native
from stedi._frozen import dataclass
from stedi.engines import thrift
from stedi.engines.thrift import BINARY, I32, I64, LIST, STRUCT, Struct
from stedi.schema.tables import Column

MAGIC = b"PAR1"
"""The first and the last bytes of a file."""
MOST_BYTES = 1 << 28
"""The largest file, in bytes, that is read here: it is held in memory."""
_MOST_ROWS = 1 << 24
"""The largest number of rows in a row group."""
_MOST_PAGE = 1 << 26
"""The largest page in bytes, uncompressed."""
_ZSTD = 6
"""The format's number of the only compression that is read: what the lake's writers use."""
PLAIN, _PLAIN_DICTIONARY, RLE, _RLE_DICTIONARY = 0, 2, 3, 8
"""Encodings of values and of definition levels."""
_BETWEEN, _AMONG_THEM = "\x1f", -2
"""A separator of texts, and what `pages.c` returns if a text contains it."""
_NUMBERED = (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
_KINDS = {"string": (6, 0), "long": (2, 1), "timestamptz": (2, 1), "double": (5, 2), "date": (1, 3)}
"""The physical type of each column type, and its number in `pages.c`."""

# Parquet's field numbers, https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
FOOTER = {"version": 1, "schema": 2, "rows": 3, "groups": 4, "created_by": 6, "orders": 7}
GROUP = {"columns": 1, "bytes": 2, "rows": 3, "offset": 5, "packed": 6, "ordinal": 7}
CHUNK = {"offset": 2, "meta": 3}
META = {
    "type": 1, "encodings": 2, "path": 3, "codec": 4, "values": 5, "unpacked": 6, "packed": 7, "data": 9,
    "dictionary": 11, "statistics": 12, "encoding_stats": 13, "bloom": 14, "bloom_size": 15, "size": 16,
}  # fmt: skip
_HIGHEST, _LOWEST = 5, 6
"""The fields of statistics with the greatest and the least value."""


class Unsupported(Exception):
    """The file is not of a kind that this module can read."""


DAMAGED = (
    Unsupported,
    thrift.Unreadable,
    ArithmeticError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)
"""The errors that an unexpected file may cause: its footer can hold any value of any type."""


class NativePage(Structure):
    """A page and what is selected of it, as `pages.c` takes them."""

    _fields_ = (
        ("bytes", c_char_p), ("size", c_int64), ("count", c_int64), ("first", c_int64), ("optional", c_int32),
        ("ranges", c_void_p), ("ranges_count", c_int64), ("codes", c_void_p), ("levels", c_void_p), ("rows", c_int64),
        ("present", c_int64), ("values", c_int64), ("decoded", c_int32), ("highest", c_int64),
    )  # fmt: skip


class NativeBounds(Structure):
    """The lowest and the highest value, as 64 bits, whether there are any values, and whether one is NaN."""

    _fields_ = (("low", c_int64), ("high", c_int64), ("some", c_int32), ("nan", c_int32))


class StoredBytes:
    """The bytes of a file, of which each part is read when it is needed.

    A mapped file would end the process if somebody truncated it, or its disk failed, in the meantime.

    Args:
        file: The file; it must stay open.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._size = file.fileno(), os.fstat(file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, end, _ = part.indices(self._size)
        return os.pread(self._file, end - start, start)


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    number, pointer, page, bounds = c_int64, c_void_p, POINTER(NativePage), POINTER(NativeBounds)
    return _native.library(
        Path(__file__).with_name("pages.c"),
        {
            "stedi_mark": [number, page, number, pointer, pointer, pointer],
            "stedi_used": [number, page, number, pointer, pointer],
            "stedi_ranges": [number, pointer, number, c_uint8, pointer],
            "stedi_codes": [number, page, number],
            "stedi_indices": [number, page, number, pointer, c_int32, pointer],
            "stedi_plain": [number, page, c_int32, bounds, bounds, pointer],
            "stedi_texts": [number, pointer, number, number, c_uint8, pointer],
            "stedi_dictionary": [
                *(number, pointer, number, number, c_int32, pointer, pointer, bounds, POINTER(number), pointer)
            ],
        },
    )


def read_footer(source: memoryview | StoredBytes) -> Struct:
    """Returns the footer of a file.

    Raises:
        Unsupported: The bytes are not a Parquet file, or the footer has unknown fields.
        Unreadable: The footer is damaged.
    """
    if len(source) < 12 or source[:4] != MAGIC or source[-4:] != MAGIC:
        raise Unsupported
    [size] = struct.unpack("<I", source[-8:-4])
    if size > len(source) - 12:
        raise Unsupported
    # the last eight bytes are the footer's size and the magic
    footer, _ = thrift.read(source[len(source) - 8 - size : -8])
    refuse_unknown(footer, FOOTER)
    return footer


def refuse_unknown(fields: Struct, known: Mapping[str, int]) -> None:
    """Refuses unknown fields, because they could reveal something about removed rows."""
    if not set(known.values()).issuperset(fields):
        raise Unsupported


def field_value(fields: Struct, number: int, kind: int) -> Any:
    """Returns the value of a field; raises `Unsupported` if the field is missing or has another type."""
    found = fields.get(number)
    if found is None or found[0] != kind:
        raise Unsupported
    return found[1]


def elements(fields: Struct, number: int, of: int = STRUCT) -> list[Any]:
    """Returns the elements of a list; raises `Unsupported` if the field is no list of this type."""
    kind, values = field_value(fields, number, LIST)
    if kind != of:
        raise Unsupported
    found: list[Any] = values
    return found


def _may_be_null(footer: Struct, columns: Sequence[Column]) -> list[bool]:
    """Returns for each column whether it may have nulls."""
    root, *fields = elements(footer, FOOTER["schema"])
    if root.get(5) != (I32, len(columns)) or len(fields) != len(columns):
        raise Unsupported
    for place, (found, column) in enumerate(zip(fields, columns, strict=True), start=1):
        kind, _ = _KINDS.get(column.type, (-1, 0))
        if found.get(1) != (I32, kind) or found.get(4) != (BINARY, column.name.encode()) or 5 in found:
            raise Unsupported
        # field 9 is Iceberg's id, the position; field 3 says required or optional, a repeated column has more levels
        if found.get(9) != (I32, place) or field_value(found, 3, I32) not in (0, 1):
            raise Unsupported
    return [bool(found[3][1]) for found in fields]


@dataclass(slots=True)
class DataPage:
    """A data page, as it is in a file.

    Attributes:
        first: The number of its first row in the row group.
        count: The number of its rows.
        encoding: The encoding of its values.
        whole: Its bytes, with the header.
        body: Its bytes after the header.
        size: The uncompressed size of the body, in bytes.
        unpacker: The decompressor, used by this thread only.
        highest: The highest dictionary index, -1 if there is none; above all of them until they were read.
    """

    first: int
    count: int
    encoding: int
    whole: memoryview
    body: memoryview
    size: int
    unpacker: Any
    highest: int = 1 << 32
    _held: bytes | None = None

    @property
    def unpacked(self) -> bytes:
        """The uncompressed content."""
        if self._held is None:
            self._held = _unpacked(self.body, self.size, self.unpacker)
        return self._held


def _unpacked(body: memoryview, size: int, unpacker: Any) -> bytes:
    import zstandard

    try:
        # the frame itself tells its size: no page unpacks to more than its header says, whatever the header says
        if not 0 <= size <= _MOST_PAGE or zstandard.get_frame_parameters(body).content_size != size:
            raise Unsupported
        content: bytes = unpacker.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError:
        raise Unsupported from None
    return content


class Chunk:
    """A column of a row group, as it is in a file.

    Attributes:
        column: The column.
        meta: Its metadata.
        raw: Its bytes.
    """

    def __init__(
        self, source: memoryview | StoredBytes, chunk: Struct, column: Column, optional: bool, unpacker: Any
    ) -> None:
        refuse_unknown(chunk, CHUNK)
        self._unpacker = unpacker
        self.chunk, self.column, self.optional = chunk, column, optional
        self.meta: Struct = field_value(chunk, CHUNK["meta"], STRUCT)
        refuse_unknown(self.meta, META)
        self.kind = _KINDS[column.type][1]
        if field_value(self.meta, META["codec"], I32) != _ZSTD or elements(self.meta, META["path"], BINARY) != [
            column.name.encode()
        ]:
            raise Unsupported
        self.count: int = field_value(self.meta, META["values"], I64)
        self.data: int = field_value(self.meta, META["data"], I64)
        self.start = self.data
        if META["dictionary"] in self.meta:
            self.start = field_value(self.meta, META["dictionary"], I64)
        self.size: int = field_value(self.meta, META["packed"], I64)
        if not (4 <= self.start <= self.data and 0 <= self.size <= len(source) - self.start):
            raise Unsupported
        self._bytes = source[self.start : self.start + self.size]
        self.raw = memoryview(self._bytes)
        if len(self.raw) < self.size:
            raise Unsupported  # the file was truncated
        self.statistics: Struct = self.meta[META["statistics"]][1] if META["statistics"] in self.meta else {}
        self.entries, self.dictionary = 0, b""
        self.dictionary_encoding: int | None = None
        self.dictionary_page = self.raw[:0]
        self.dictionary_size = 0

    @cached_property
    def pages(self) -> list[DataPage]:
        """Its data pages; reading them also sets `entries` and `dictionary`."""
        pages = list(self._read())
        # with fewer values than rows, marks would be set for the wrong rows
        if sum(page.count for page in pages) != self.count:
            raise Unsupported
        return pages

    def texts(self) -> list[str]:
        """Returns the texts of the dictionary; raises `Unsupported` if a page has values outside it."""
        if any(page.encoding == PLAIN for page in self.pages):
            raise Unsupported
        return self._texts

    @cached_property
    def _texts(self) -> list[str]:
        return texts_of(self.dictionary, self.entries)

    def marks(self, flags: bytearray, buffers: Buffers, used: bytearray) -> bytearray:
        """Returns one byte per row: the flag of its value's dictionary entry, or 0 if it has no value.

        Args:
            flags: One byte per entry.
            buffers: Where pages are decoded.
            used: One byte per entry, which becomes 1 if a row has it.
        """
        marks = bytearray(self.count)
        mark, flagged, having = library().stedi_mark, address(flags), address(used)
        for data in self.pages:
            to = address(memoryview(marks)[data.first :])
            page = buffers.page(self, data)
            if mark(byref(page), self.entries, flagged, to, having) < 0:
                raise Unsupported
            data.highest = page.highest
        return marks

    def _read(self) -> Iterator[DataPage]:
        first, headers = 0, thrift.page_headers(self._bytes)
        if headers is None:
            raise Unsupported
        for begin, start, end, kind, size, _, count, encoding, levels, entries, numbers, *_ in headers:
            body = self.raw[start:end]
            # a dictionary is the first page or none; kind 0 is a data page of version 1, the only one that the writers
            # use
            if kind == 2 and not begin:
                self.entries, self.dictionary_encoding = entries, numbers
                self.dictionary, self.dictionary_page = _unpacked(body, size, self._unpacker), self.raw[:end]
                self.dictionary_size = start + size
                if self.dictionary_encoding not in (PLAIN, _PLAIN_DICTIONARY):
                    raise Unsupported
                if not 0 <= self.entries <= len(self.dictionary):
                    raise Unsupported
            elif kind == 0:
                if not 0 <= count <= self.count - first or (self.optional and levels != RLE):
                    raise Unsupported
                if encoding != PLAIN and (encoding not in _NUMBERED or self.dictionary_encoding is None):
                    raise Unsupported
                yield DataPage(first, count, encoding, self.raw[begin:end], body, size, self._unpacker)
                first += count
            else:
                raise Unsupported


class RowGroup:
    """A row group, as it is in a file.

    Attributes:
        fields: Its metadata.
        rows: The number of its rows.
    """

    def __init__(
        self,
        source: memoryview | StoredBytes,
        fields: Struct,
        columns: Sequence[Column],
        optional: Sequence[bool],
        unpacker: Any,
    ) -> None:
        refuse_unknown(fields, GROUP)
        self.fields = fields
        self.rows: int = field_value(fields, GROUP["rows"], I64)
        chunks = elements(fields, GROUP["columns"])
        if len(chunks) != len(columns) or not 0 < self.rows <= _MOST_ROWS:
            raise Unsupported
        self._chunks = {
            column.name: (chunk, column, maybe) for chunk, column, maybe in zip(chunks, columns, optional, strict=True)
        }
        self._source, self._unpacker = source, unpacker

    def chunk(self, name: str) -> Chunk:
        """Reads a column."""
        chunk, column, maybe = self._chunks[name]
        found = Chunk(self._source, chunk, column, maybe, self._unpacker)
        if found.count != self.rows:
            raise Unsupported
        return found

    def highest(self, name: str) -> int | None:
        """Returns a bound of a column of integers, which none of its values exceeds; None if none is known."""
        bound, (_, column, _) = self._bound(name, _HIGHEST), self._chunks[name]
        if _KINDS[column.type][1] != 1 or bound is None or len(bound) != 8:
            return None
        return int.from_bytes(bound, "little", signed=True)

    def may_have(self, name: str, texts: Iterable[bytes]) -> bool:
        """Returns whether the bounds of a column of texts leave room for one of some texts."""
        low, high = self._bound(name, _LOWEST), self._bound(name, _HIGHEST)
        return low is None or high is None or any(low <= text <= high for text in texts)

    def _bound(self, name: str, number: int) -> bytes | None:
        """Returns a field of a column's statistics, as it is encoded; None if there is none."""
        fields: Struct = self._chunks[name][0]
        for place in (CHUNK["meta"], META["statistics"]):
            kind, fields = fields.get(place, (STRUCT, {}))
            if kind != STRUCT:
                return None
        kind, bound = fields.get(number, (0, None))
        return bound if kind == BINARY else None


def row_groups(source: memoryview | StoredBytes, footer: Struct, columns: Sequence[Column]) -> Iterator[RowGroup]:
    """Yields the row groups of a file with these columns."""
    import zstandard

    unpacker = zstandard.ZstdDecompressor()
    optional = _may_be_null(footer, columns)
    for fields in elements(footer, FOOTER["groups"]):
        yield RowGroup(source, fields, columns, optional, unpacker)


class RowRanges:
    """Rows of a row group, as ordered ranges.

    Attributes:
        count: The number of ranges.
        ranges: The start and the end of each range.
        at: Their address.
        rows: The number of rows in them.
    """

    def __init__(self, marks: bytearray, mark: int = 0) -> None:
        """Selects the rows with a mark, which are 0 and 1."""
        found = library().stedi_ranges
        self.count: int = found(address(marks), len(marks), mark, None)
        self.ranges = (c_int64 * (2 * self.count))()
        self.at = ctypes.addressof(self.ranges)
        found(address(marks), len(marks), mark, self.ranges)
        self._ends = self.ranges[:]
        self.rows: int = sum(self._ends[1::2]) - sum(self._ends[::2])

    def touch(self, page: DataPage) -> bool:
        """Returns whether a page has one of the rows."""
        at = bisect_right(self._ends, page.first)
        # an odd position is inside a range, an even one is between two ranges
        return bool(at % 2) or (at < len(self._ends) and self._ends[at] < page.first + page.count)


class Buffers:
    """The buffers into which pages are decoded, one page at a time."""

    def __init__(self) -> None:
        self._codes, self._levels = (ctypes.c_char * 0)(), (ctypes.c_char * 0)()
        self._out = bytearray()
        self._page = NativePage()
        self._latest: DataPage | None = None

    def out(self, size: int) -> bytearray:
        """Returns a buffer for so many bytes; its earlier content is overwritten."""
        if len(self._out) < size:
            self._out = bytearray(size)
        return self._out

    def page(self, chunk: Chunk, data: DataPage, rows: RowRanges | None = None) -> NativePage:
        """Returns a page as `pages.c` takes it, restricted to some rows; pages returned earlier are no longer valid."""
        page, unpacked = self._page, data.unpacked
        if len(self._codes) < 4 * data.count or not self._latest:
            size = max(4 * data.count, len(self._codes), 4)
            self._codes, self._levels = (ctypes.c_char * size)(), (ctypes.c_char * size)()
            page.codes, page.levels = ctypes.addressof(self._codes), ctypes.addressof(self._levels)
        page.bytes, page.size, page.optional = unpacked, len(unpacked), chunk.optional
        page.count, page.first = data.count, data.first
        page.ranges, page.ranges_count = (rows.at, rows.count) if rows else (None, 0)
        # the structure has addresses only: what they point to must live as long as it
        page.held = rows
        if self._latest is not data:  # otherwise its numbers are still in the buffers
            self._latest, page.decoded = data, 0
        return page


def address(data: bytearray | memoryview | None) -> Any:
    """Returns the address of bytes, as an argument for C."""
    return byref(ctypes.c_char.from_buffer(data)) if data else None


def texts_of(dictionary: bytes, entries: int) -> list[str]:
    """Returns the texts of a dictionary."""
    to = bytearray(len(dictionary))
    size = library().stedi_texts(dictionary, len(dictionary), entries, ord(_BETWEEN), address(to))
    try:
        if size >= 0:
            texts = to[:size].decode().split(_BETWEEN)
            del texts[-1]  # an empty text follows the last separator
            return texts
        if size == _AMONG_THEM:
            return [text.decode() for text in _divided(dictionary, entries)]
    except UnicodeDecodeError:
        pass
    raise Unsupported


def _divided(dictionary: bytes, entries: int) -> Iterator[bytes]:
    """Yields the texts of a dictionary, which are known to fit."""
    at = 0
    for _ in range(entries):
        end = at + 4 + int.from_bytes(dictionary[at : at + 4], "little")
        yield dictionary[at + 4 : end]
        at = end


def selected_values(chunk: Chunk, values: Sequence[Any], buffers: Buffers, rows: RowRanges) -> list[Any]:
    """Returns the values in some rows of a chunk with a dictionary, without nulls."""
    found: list[Any] = []
    for data in filter(rows.touch, chunk.pages):
        page = buffers.page(chunk, data, rows)
        count = library().stedi_codes(byref(page), chunk.entries)
        if count < 0:
            raise Unsupported
        found += map(values.__getitem__, (ctypes.c_uint32 * count).from_address(page.codes)[:])
    return found


def selected_texts(chunk: Chunk, buffers: Buffers, rows: RowRanges) -> list[str]:
    """Returns the values in some rows of a chunk of texts, without nulls."""
    pages = chunk.pages
    if chunk.kind or len({page.encoding == PLAIN for page in pages}) > 1:
        raise Unsupported
    if pages[0].encoding != PLAIN:
        return selected_values(chunk, texts_of(chunk.dictionary, chunk.entries), buffers, rows)
    found: list[str] = []
    for data in filter(rows.touch, pages):
        page = buffers.page(chunk, data, rows)
        body = selected_plain(chunk, page, buffers)
        # definition levels come first, after their length in four bytes
        values = body[4 + int.from_bytes(body[:4], "little") if chunk.optional else 0 :]
        found += texts_of(bytes(values), page.present)
    return found


def selected_integers(chunk: Chunk, buffers: Buffers, rows: RowRanges) -> list[int]:
    """Returns the values in some rows of a chunk of integers, without nulls."""
    pages = chunk.pages
    if chunk.kind != 1 or len({page.encoding == PLAIN for page in pages}) > 1:
        raise Unsupported
    if pages[0].encoding != PLAIN:
        if len(chunk.dictionary) != 8 * chunk.entries:
            raise Unsupported
        return selected_values(chunk, struct.unpack(f"<{chunk.entries}q", chunk.dictionary), buffers, rows)
    found: list[int] = []
    for data in filter(rows.touch, pages):
        body = selected_plain(chunk, buffers.page(chunk, data, rows), buffers)
        values = body[4 + int.from_bytes(body[:4], "little") if chunk.optional else 0 :]
        found += struct.unpack(f"<{len(values) // 8}q", values)
    return found


def selected_plain(
    chunk: Chunk,
    page: NativePage,
    buffers: Buffers,
    kept: NativeBounds | None = None,
    removed: NativeBounds | None = None,
) -> memoryview:
    """Returns the content of a page with plain encoding, reduced to its selected rows.

    Args:
        chunk: Its chunk.
        page: The page.
        buffers: Where the content is written.
        kept: The bounds of the selected rows, which are widened.
        removed: The bounds of the other rows.
    """
    to = buffers.out(page.size + 2 * _most_level_bytes(page.count))
    size = library().stedi_plain(byref(page), chunk.kind, kept, removed, address(to))
    if size < 0 or (kept and kept.nan) or (removed and removed.nan):
        raise Unsupported
    return memoryview(to)[:size]


def selected_indices(
    chunk: Chunk, page: NativePage, buffers: Buffers, renumbered: bytearray | None, width: int
) -> memoryview:
    """Returns the content of a page of dictionary indices, reduced to its selected rows.

    Args:
        chunk: Its chunk.
        page: The page.
        buffers: Where the content is written.
        renumbered: The new index of each entry, if they have new ones, as 32-bit numbers.
        width: The number of bits of an index.
    """
    to = buffers.out(_most_level_bytes(page.count) + 1 + (page.count // 8 + 1) * (width + 10))
    size = library().stedi_indices(byref(page), chunk.entries, address(renumbered), width, address(to))
    if size < 0:
        raise Unsupported
    return memoryview(to)[:size]


def _most_level_bytes(rows: int) -> int:
    """Returns the largest size of the definition levels of so many rows, in bytes."""
    # as `pages.c` packs numbers of one bit, after their length in four bytes
    return 4 + (rows // 8 + 1) * 11
