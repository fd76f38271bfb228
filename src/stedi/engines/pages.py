"""Rewrites Parquet files without the rows of some people, page by page, with `pages.c`.

A file's footer -> the removed rows of each row group, found by the dictionary of one column -> pages with the kept
rows, dictionaries with only their values, new statistics -> a new footer. Nothing is decoded to rows, which would take
most of the time when an engine reads and writes a file. A row group without removed rows is copied unchanged, unless
its dictionary names a removed person: PyArrow writes the dictionary of a whole file into each row group.

Only files of the lake's own writers are supported: PyArrow's and DuckDB's, with flat columns of texts, 64-bit integers
and doubles, and zstd. Any other file is left to the engine. A new file has no trace of the removed rows: dictionaries
lose the values that no kept row has, bounds are those of the kept rows, and Bloom filters are left out.
"""

from __future__ import annotations

import ctypes
import struct
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, Structure, byref, c_int32, c_int64, c_void_p
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from stedi import _native
from stedi.engines import thrift
from stedi.engines.thrift import BINARY, I32, I64, LIST, STRUCT, TRUE, Struct
from stedi.schema.tables import ALL_COLUMNS, Column, DataFile
from stedi.storage import durable, s3

_MAGIC = b"PAR1"
_MOST = 1 << 28
"""The largest file, in bytes, that is rewritten here: it is held in memory."""
_TIMES = 3
"""Memory for a file, as a multiple of its size: the file, the new file, and an uncompressed row group."""
_MOST_PAGE = 1 << 26
"""The largest page in bytes, uncompressed."""
_MOST_ROWS = 1 << 24
"""The largest number of rows in a row group."""
_ZSTD = 6
_PLAIN, _PLAIN_DICTIONARY, _RLE, _RLE_DICTIONARY = 0, 2, 3, 8
_KINDS = {"string": (6, 0), "long": (2, 1), "timestamptz": (2, 1), "double": (5, 2)}
"""The physical type of each column type, and its number in `pages.c`."""
_FORMS = {1: "<q", 2: "<d"}
_NUMBERED = (_PLAIN_DICTIONARY, _RLE_DICTIONARY)
_TURNED = bytes([1, 0]).ljust(256, b"\0")
_ASKED = bytes([1, 1, 0]).ljust(256, b"\1")
"""Tables that translate the marks of rows: `_TURNED` swaps 0 and 1; `_ASKED` turns 2 into 0 and every other mark
into 1."""

# Parquet's field numbers, https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_FOOTER = {"version": 1, "schema": 2, "rows": 3, "groups": 4, "created_by": 6, "orders": 7}
_GROUP = {"columns": 1, "bytes": 2, "rows": 3, "offset": 5, "packed": 6, "ordinal": 7}
_CHUNK = {"offset": 2, "meta": 3}
_META = {
    "type": 1, "encodings": 2, "path": 3, "codec": 4, "values": 5, "unpacked": 6, "packed": 7, "data": 9,
    "dictionary": 11, "statistics": 12, "encoding_stats": 13, "bloom": 14, "bloom_size": 15, "size": 16,
}  # fmt: skip
_HEADER = {"type": 1, "unpacked": 2, "packed": 3, "data": 5, "dictionary": 7}
_LEFT_OUT = {_META[name] for name in ("bloom", "bloom_size", "size")}
"""Metadata that a new file does not have: Bloom filters would still contain the values of removed rows."""
_GREATEST = {1: True, 2: False, 5: True, 6: False}
"""The fields of statistics that hold a highest (True) or a lowest value (False)."""


class _Unfamiliar(Exception):
    """The file is not of a kind that this module can rewrite."""


_OTHER = (
    _Unfamiliar,
    thrift.Unreadable,
    ArithmeticError,
    LookupError,
    MemoryError,
    TypeError,
    ValueError,
    struct.error,
)
"""The errors that an unexpected file may cause: its footer can hold any value of any type."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """Selects the rows of a table that are removed.

    Attributes:
        column: A column of texts.
        texts: Rows that have one of these texts in `column` are removed.
        moment: A column of instants or integers.
        moments: For each of some further texts, the values of `moment` at which its rows are removed.
    """

    column: str
    texts: frozenset[str]
    moment: str = ""
    moments: Mapping[str, Collection[int]] = field(default_factory=dict)


class _Page(Structure):
    _fields_ = (
        ("bytes", c_void_p), ("size", c_int64), ("count", c_int64), ("first", c_int64), ("optional", c_int32),
        ("ranges", c_void_p), ("ranges_count", c_int64), ("codes", c_void_p), ("levels", c_void_p), ("rows", c_int64),
        ("present", c_int64), ("values", c_int64),
    )  # fmt: skip


class _Bounds(Structure):
    _fields_ = (("low", c_int64), ("high", c_int64), ("some", c_int32), ("nan", c_int32))


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    found = _native.library(Path(__file__).with_suffix(".c"))
    if found is None:
        return None
    page, bounds = POINTER(_Page), POINTER(_Bounds)
    for name, arguments in {
        "stedi_mark": [page, c_int64, c_void_p, c_void_p],
        "stedi_ranges": [c_void_p, c_int64, c_void_p],
        "stedi_codes": [page, c_int64, c_void_p],
        "stedi_pack": [page, c_int64, c_void_p, c_int32, c_void_p],
        "stedi_plain": [page, c_int32, bounds, c_void_p],
        "stedi_dictionary": [
            *(c_void_p, c_int64, c_int64, c_int32, c_void_p, c_void_p, bounds, POINTER(c_int64), c_void_p)
        ],
    }.items():
        function = getattr(found, name)
        function.restype, function.argtypes = c_int64, arguments
    return found


def rewrite(
    table: str, files: Sequence[DataFile], leaving: Leaving, folder: Path, *, threads: int, memory: int
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    """Rewrites files of a table without the removed rows.

    Args:
        table: The table.
        files: Its files, already verified.
        leaving: Selects the rows to remove.
        folder: The folder for the new files; created if needed.
        threads: The number of files to rewrite at once; fewer if memory is short.
        memory: The memory limit in bytes.

    Returns:
        The new files, on disk, in the order of the old ones, without files that would be empty; and the files that
        this module cannot rewrite, for which nothing was written.
    """
    if library() is None or any(s3.is_remote(file.path) for file in files):
        return (), tuple(files)
    most = min(_MOST, memory // _TIMES)
    largest = max((file.bytes for file in files if file.bytes <= most), default=0)
    if not largest:
        return (), tuple(files)
    durable.folder(folder)
    columns = ALL_COLUMNS[table]

    def one(numbered: tuple[int, DataFile]) -> DataFile | bool:
        number, file = numbered
        target = folder / f"kept-{number:05}.parquet"
        if file.bytes > most:
            return True
        try:
            return _file(file, columns, leaving, target)
        except _OTHER:
            target.unlink(missing_ok=True)
            return True

    with ThreadPoolExecutor(min(threads, most // largest)) as pool:
        done = list(pool.map(one, enumerate(files)))
    made = tuple(file for file in done if isinstance(file, DataFile))
    if made:
        durable.settle([folder])
        durable.sync(folder)
        durable.sync(folder.parent)
    else:
        folder.rmdir()
    return made, tuple(file for file, new in zip(files, done, strict=True) if new is True)


def _file(file: DataFile, columns: Sequence[Column], leaving: Leaving, target: Path) -> DataFile | bool:
    """Rewrites a file and returns the new one; False if no row is kept."""
    import zstandard

    source = Path(file.path).read_bytes()
    footer = _footer(source)
    optional = _schema(footer, columns)
    groups: list[Struct] = []
    unpacker = zstandard.ZstdDecompressor()
    made = _New()
    for group in _list(footer, _FOOTER["groups"]):
        _only(group, _GROUP)
        chunks = _list(group, _GROUP["columns"])
        if len(chunks) != len(columns):
            raise _Unfamiliar
        read = [
            _Chunk(source, chunk, column, maybe, unpacker)
            for chunk, column, maybe in zip(chunks, columns, optional, strict=True)
        ]
        written = _row_group(group, read, leaving, made)
        if written is not None:
            groups.append({**written, _GROUP["ordinal"]: (thrift.I16, len(groups))} if 7 in written else written)
    if not groups:
        return False
    rows = sum(int(group[_GROUP["rows"]][1]) for group in groups)
    footer[_FOOTER["rows"]] = I64, rows
    footer[_FOOTER["groups"]] = LIST, (STRUCT, groups)
    end = thrift.write(footer)
    with open(target, "xb") as stream:
        stream.writelines((*made.parts, end, struct.pack("<I", len(end)), _MAGIC))
    durable.settle([target])
    durable.sync(target)
    size = made.at + len(end) + 8
    return DataFile(str(target), rows, size, *made.described(columns))


class _New:
    """A new file that is being built in memory.

    Attributes:
        parts: Its bytes so far.
        at: The number of bytes so far.
    """

    def __init__(self) -> None:
        import zstandard

        self._packer = zstandard.ZstdCompressor(level=1)
        self.parts: list[bytes | memoryview] = [_MAGIC]
        self.at = len(_MAGIC)
        self._nulls: dict[str, int] = {}
        self._unknown: set[str] = set()
        self._bounds: dict[str, tuple[list[float], list[float]]] = {}
        self._unbounded: set[str] = set()

    def add(self, part: bytes | memoryview) -> int:
        """Adds bytes and returns their offset."""
        at = self.at
        self.parts.append(part)
        self.at += len(part)
        return at

    def packed(self, body: bytes | memoryview) -> bytes:
        """Returns the compressed content of a page."""
        return self._packer.compress(body)

    def note(self, chunk: _Chunk, statistics: Struct, rows: int) -> None:
        """Collects the statistics of a chunk with so many rows, for the catalog."""
        column = chunk.column
        if 3 in statistics or not chunk.optional:
            self._nulls[column.name] = self._nulls.get(column.name, 0) + (statistics[3][1] if 3 in statistics else 0)
        else:
            self._unknown.add(column.name)
        if column.type in ("long", "double") and 5 in statistics and 6 in statistics:
            low, high = (struct.unpack(_FORMS[chunk.kind], statistics[place][1])[0] for place in (6, 5))
            lows, highs = self._bounds.setdefault(column.name, ([], []))
            lows.append(low)
            highs.append(high)
        elif 3 not in statistics or statistics[3][1] < rows:
            # this chunk has values but no bounds, so the bounds of the other row groups do not hold for the file
            self._unbounded.add(column.name)

    def described(self, columns: Sequence[Column]) -> tuple[dict[str, int], dict[str, tuple[str, str]]]:
        """Returns the nulls and the bounds by column, as the catalog stores them."""
        bounds = {
            name: (str(min(lows)), str(max(highs)))
            for name, (lows, highs) in self._bounds.items()
            if name not in self._unbounded
        }
        return {name: nulls for name, nulls in self._nulls.items() if name not in self._unknown}, bounds


def _footer(source: bytes) -> Struct:
    if len(source) < 12 or source[:4] != _MAGIC or source[-4:] != _MAGIC:
        raise _Unfamiliar
    [size] = struct.unpack("<I", source[-8:-4])
    if size > len(source) - 12:
        raise _Unfamiliar
    footer, _ = thrift.read(source, len(source) - 8 - size)
    _only(footer, _FOOTER)
    return footer


def _only(fields: Struct, known: Mapping[str, int]) -> None:
    """Refuses unknown fields, because they could reveal something about removed rows."""
    if not fields.keys() <= set(known.values()):
        raise _Unfamiliar


def _of(fields: Struct, number: int, kind: int) -> Any:
    found = fields.get(number)
    if found is None or found[0] != kind:
        raise _Unfamiliar
    return found[1]


def _list(fields: Struct, number: int, of: int = STRUCT) -> list[Any]:
    kind, values = _of(fields, number, LIST)
    if kind != of:
        raise _Unfamiliar
    found: list[Any] = values
    return found


def _schema(footer: Struct, columns: Sequence[Column]) -> list[bool]:
    """Returns for each column whether it may have nulls."""
    root, *fields = _list(footer, _FOOTER["schema"])
    if root.get(5) != (I32, len(columns)) or len(fields) != len(columns):
        raise _Unfamiliar
    for place, (found, column) in enumerate(zip(fields, columns, strict=True), start=1):
        kind, _ = _KINDS.get(column.type, (-1, 0))
        if found.get(1) != (I32, kind) or found.get(4) != (BINARY, column.name.encode()) or 5 in found:
            raise _Unfamiliar
        if found.get(9) != (I32, place) or _of(found, 3, I32) not in (0, 1):
            raise _Unfamiliar
    return [bool(found[3][1]) for found in fields]


@dataclass(slots=True)
class _Data:
    """A data page, as it is in a file.

    Attributes:
        first: The number of its first row in the row group.
        count: The number of its rows.
        encoding: The encoding of its values.
        whole: Its bytes, with the header.
        body: Its bytes after the header.
        size: The uncompressed size of the body, in bytes.
        unpacker: The decompressor, used by this thread only.
    """

    first: int
    count: int
    encoding: int
    whole: memoryview
    body: memoryview
    size: int
    unpacker: Any
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
        if not 0 <= size <= _MOST_PAGE or zstandard.get_frame_parameters(body).content_size != size:
            raise _Unfamiliar
        content: bytes = unpacker.decompress(body, allow_extra_data=False)
    except zstandard.ZstdError:
        raise _Unfamiliar from None
    return content


class _Chunk:
    """A column of a row group, as it is in a file.

    Attributes:
        column: The column.
        meta: Its metadata.
        raw: Its bytes.
    """

    def __init__(self, source: bytes, chunk: Struct, column: Column, optional: bool, unpacker: Any) -> None:
        _only(chunk, _CHUNK)
        self._unpacker = unpacker
        self.chunk, self.column, self.optional = chunk, column, optional
        self.meta: Struct = _of(chunk, _CHUNK["meta"], STRUCT)
        _only(self.meta, _META)
        self.kind = _KINDS[column.type][1]
        if _of(self.meta, _META["codec"], I32) != _ZSTD or _list(self.meta, _META["path"], BINARY) != [
            column.name.encode()
        ]:
            raise _Unfamiliar
        self.count: int = _of(self.meta, _META["values"], I64)
        self.data: int = _of(self.meta, _META["data"], I64)
        self.start = self.data
        if _META["dictionary"] in self.meta:
            self.start = _of(self.meta, _META["dictionary"], I64)
        self.size: int = _of(self.meta, _META["packed"], I64)
        if not (4 <= self.start <= self.data and 0 <= self.size <= len(source) - self.start):
            raise _Unfamiliar
        self.raw = memoryview(source)[self.start : self.start + self.size]
        self.statistics: Struct = self.meta[_META["statistics"]][1] if _META["statistics"] in self.meta else {}
        self.entries, self.dictionary = 0, b""
        self.dictionary_encoding: int | None = None
        self.dictionary_page = self.raw[:0]
        self.dictionary_size = 0

    @cached_property
    def pages(self) -> list[_Data]:
        """Its data pages; reading them also sets `entries` and `dictionary`."""
        pages = list(self._read())
        if sum(page.count for page in pages) != self.count:
            raise _Unfamiliar
        return pages

    def _read(self) -> Iterator[_Data]:
        at = first = 0
        while at < self.size:
            begin = at
            head, at = thrift.read(self.raw, at)
            _only(head, _HEADER)
            size, packed = _of(head, 2, I32), _of(head, 3, I32)
            if not 0 <= packed <= self.size - at:
                raise _Unfamiliar
            body = self.raw[at : at + packed]
            at += packed
            kind = _of(head, 1, I32)
            if kind == 2 and not begin:
                told = _of(head, 7, STRUCT)
                self.entries, self.dictionary_encoding = _of(told, 1, I32), _of(told, 2, I32)
                self.dictionary, self.dictionary_page = _unpacked(body, size, self._unpacker), self.raw[:at]
                self.dictionary_size = at - packed + size
                if self.dictionary_encoding not in (_PLAIN, _PLAIN_DICTIONARY):
                    raise _Unfamiliar
                if not 0 <= self.entries <= len(self.dictionary):
                    raise _Unfamiliar
            elif kind == 0:
                told = _of(head, 5, STRUCT)
                count, encoding = _of(told, 1, I32), _of(told, 2, I32)
                if not 0 <= count <= self.count - first or (self.optional and _of(told, 3, I32) != _RLE):
                    raise _Unfamiliar
                if encoding != _PLAIN and (encoding not in _NUMBERED or self.dictionary_encoding is None):
                    raise _Unfamiliar
                yield _Data(first, count, encoding, self.raw[begin:at], body, size, self._unpacker)
                first += count
            else:
                raise _Unfamiliar


def _row_group(group: Struct, chunks: Sequence[_Chunk], leaving: Leaving, made: _New) -> Struct | None:
    """Adds the kept rows of a row group to a file and returns the new metadata; None if no row is kept."""
    rows: int = _of(group, _GROUP["rows"], I64)
    if any(chunk.count != rows for chunk in chunks) or not 0 < rows <= _MOST_ROWS:
        raise _Unfamiliar
    room = _Room(rows)
    marks, named = _marks({chunk.column.name: chunk for chunk in chunks}, leaving, rows, room)
    gone = rows - marks.count(0)
    if gone == rows:
        return None
    if not (gone or named):
        written = [_copied(chunk, made) for chunk in chunks]
    else:
        split = _Split(marks)
        written = [_Shortened(chunk, room, split).write(made) for chunk in chunks]
    new = dict(group)
    metas = [chunk[_CHUNK["meta"]][1] for chunk in written]
    new[_GROUP["columns"]] = LIST, (STRUCT, written)
    new[_GROUP["rows"]] = I64, rows - gone
    new[_GROUP["bytes"]] = I64, sum(meta[_META["unpacked"]][1] for meta in metas)
    if _GROUP["packed"] in group:
        new[_GROUP["packed"]] = I64, sum(meta[_META["packed"]][1] for meta in metas)
    if _GROUP["offset"] in group:
        first = metas[0]
        new[_GROUP["offset"]] = first.get(_META["dictionary"], first[_META["data"]])
    return new


class _Rows:
    """Rows of a row group, as ordered ranges.

    Attributes:
        count: The number of ranges.
        ranges: The start and the end of each range.
    """

    def __init__(self, marks: bytearray) -> None:
        """Selects the rows whose mark is 0."""
        self.ranges = (c_int64 * (len(marks) + 2))()
        self.count: int = library().stedi_ranges(_at(marks), len(marks), self.ranges)


class _Split:
    """The kept and the removed rows of a row group.

    Attributes:
        stay: The kept rows.
        leave: The removed rows.
    """

    def __init__(self, marks: bytearray) -> None:
        self.stay, self.leave = _Rows(marks), _Rows(marks.translate(_TURNED))

    def touches(self, page: _Data) -> bool:
        """Returns whether a page has removed rows."""
        leave = self.leave
        at = bisect_right(leave.ranges, page.first, 0, 2 * leave.count)
        # an odd position is inside a range, an even one is between two ranges
        return bool(at % 2) or (at < 2 * leave.count and leave.ranges[at] < page.first + page.count)


class _Room:
    """The buffers into which the pages of a row group are decoded.

    Args:
        rows: The number of rows in the row group.
    """

    def __init__(self, rows: int) -> None:
        self._codes, self._levels = (ctypes.create_string_buffer(4 * max(1, rows)) for _ in range(2))
        self._out = bytearray()

    def out(self, size: int) -> bytearray:
        """Returns a buffer for so many bytes; its earlier content is overwritten."""
        if len(self._out) < size:
            self._out = bytearray(size)
        return self._out

    def page(self, chunk: _Chunk, data: _Data, rows: _Rows | None = None) -> _Page:
        """Returns a page as `pages.c` takes it, restricted to some rows."""
        unpacked = data.unpacked
        return _Page(
            ctypes.cast(ctypes.c_char_p(unpacked), c_void_p).value,
            *(len(unpacked), data.count, data.first, chunk.optional),
            rows and ctypes.addressof(rows.ranges),
            rows.count if rows else 0,
            ctypes.addressof(self._codes),
            ctypes.addressof(self._levels),
        )


def _at(data: bytearray | memoryview | None) -> Any:
    """Returns the address of bytes, as an argument for C."""
    return byref(ctypes.c_char.from_buffer(data)) if data else None


def _marks(chunks: Mapping[str, _Chunk], leaving: Leaving, rows: int, room: _Room) -> tuple[bytearray, bool]:
    """Returns one byte per row of a row group: 0 if the row is kept, 1 if it is removed.

    It also returns whether the dictionary has a text of `leaving.texts`. It can have one although no row does: PyArrow
    writes a given dictionary into each row group of a file, with texts that only rows of other row groups have.
    """
    key, marks = chunks[leaving.column], bytearray(rows)
    pages = key.pages
    if any(page.encoding == _PLAIN for page in pages):
        raise _Unfamiliar
    texts = _texts(key.dictionary, key.entries)
    flags = bytearray(1 if text in leaving.texts else 2 if text in leaving.moments else 0 for text in texts)
    if not any(flags):
        return marks, False
    for data in pages:
        page = room.page(key, data)
        if library().stedi_mark(byref(page), key.entries, _at(flags), _at(memoryview(marks)[data.first :])) < 0:
            raise _Unfamiliar
    if 2 in marks:
        asked = _Rows(marks.translate(_ASKED))
        named = _chosen(key, texts, room, asked)
        moments = _numbers(chunks[leaving.moment], room, asked)
        at = -1
        if not len(named) == len(moments) == marks.count(2):
            raise _Unfamiliar
        for text, moment in zip(named, moments, strict=True):
            at = marks.index(2, at + 1)
            marks[at] = moment in leaving.moments[text]
    return marks, 1 in flags


def _texts(dictionary: bytes, entries: int) -> list[str]:
    """Returns the texts of a dictionary."""
    texts, at = [], 0
    try:
        for _ in range(entries):
            end = at + 4 + int.from_bytes(dictionary[at : at + 4], "little")
            if end > len(dictionary):
                raise _Unfamiliar
            texts.append(dictionary[at + 4 : end].decode())
            at = end
    except UnicodeDecodeError:
        raise _Unfamiliar from None
    return texts


def _chosen(chunk: _Chunk, values: Sequence[Any], room: _Room, rows: _Rows) -> list[Any]:
    """Returns the values in some rows of a chunk with a dictionary, without nulls."""
    found: list[Any] = []
    for data in chunk.pages:
        page = room.page(chunk, data, rows)
        count = _codes(chunk, page, bytearray(chunk.entries))
        found += (values[code] for code in (ctypes.c_uint32 * count).from_address(page.codes))
    return found


def _numbers(chunk: _Chunk, room: _Room, rows: _Rows) -> list[int]:
    """Returns the values in some rows of a chunk of integers, without nulls."""
    pages = chunk.pages
    if chunk.kind != 1 or len({page.encoding == _PLAIN for page in pages}) > 1:
        raise _Unfamiliar
    if pages[0].encoding != _PLAIN:
        if len(chunk.dictionary) != 8 * chunk.entries:
            raise _Unfamiliar
        return _chosen(chunk, struct.unpack(f"<{chunk.entries}q", chunk.dictionary), room, rows)
    found: list[int] = []
    for data in pages:
        body = _plain(chunk, room.page(chunk, data, rows), room, _Bounds())
        values = body[4 + int.from_bytes(body[:4], "little") if chunk.optional else 0 :]
        found += struct.unpack(f"<{len(values) // 8}q", values)
    return found


def _codes(chunk: _Chunk, page: _Page, used: bytearray) -> int:
    """Decodes the dictionary indices of a page's selected rows into the page's buffer and returns their number."""
    count: int = library().stedi_codes(byref(page), chunk.entries, _at(used))
    if count < 0:
        raise _Unfamiliar
    return count


def _plain(chunk: _Chunk, page: _Page, room: _Room, bounds: _Bounds) -> memoryview:
    """Returns the content of a page with plain encoding, reduced to its selected rows."""
    to = room.out(page.size + 2 * _levels(page.count))
    size = library().stedi_plain(byref(page), chunk.kind, byref(bounds), _at(to))
    if size < 0 or bounds.nan:
        raise _Unfamiliar
    return memoryview(to)[:size]


def _levels(rows: int) -> int:
    """Returns the largest size of the definition levels of so many rows, in bytes."""
    return 4 + (rows // 8 + 1) * 11


class _Shortened:
    """A chunk without the removed rows.

    Pages without removed rows are copied unchanged, unless the dictionary loses an entry: that changes the indices.
    """

    def __init__(self, chunk: _Chunk, room: _Room, split: _Split) -> None:
        self._chunk, self._room, self._split = chunk, room, split
        self._touched = [page for page in chunk.pages if split.touches(page)]
        self._others = [page for page in chunk.pages if not split.touches(page)]
        self._numbered = sum(page.encoding != _PLAIN for page in chunk.pages)
        self._bounds = _Bounds()
        self._sizes = [0, 0]
        self._kinds: dict[tuple[int, int], int] = {}
        self._used = bytearray(chunk.entries)

    def write(self, made: _New) -> Struct:
        """Adds the chunk to a file and returns its metadata."""
        chunk, room = self._chunk, self._room
        meta = {number: value for number, value in chunk.meta.items() if number not in _LEFT_OUT}
        at, missing, texts = made.at, 0, list[str]()
        renumbered: bytearray | None = None
        width, entries, loses = 0, 0, False
        if chunk.dictionary_encoding is not None:
            loses = self._loses()
            renumbered, dictionary, entries = self._dictionary(None if loses else bytearray(b"\1") * chunk.entries)
            width = max(1, (entries - 1).bit_length())
            told = {1: (I32, entries), 2: (I32, chunk.dictionary_encoding)}
            if loses:
                place = self._page(made, 2, 7, told, dictionary)
            else:
                place = self._added(made, 2, told[2][1], (chunk.dictionary_page,), chunk.dictionary_size)
            meta[_META["dictionary"]] = I64, place
            if not chunk.kind and 5 in chunk.statistics and self._numbered == len(chunk.pages):
                texts = _texts(dictionary, entries)
        elif _META["dictionary"] in meta:
            raise _Unfamiliar
        kept = 0
        meta.pop(_META["data"])
        for data in chunk.pages:
            if not self._split.touches(data) and (data.encoding == _PLAIN or not loses):
                place = self._added(made, 0, data.encoding, (data.whole,), data.size + len(data.whole) - len(data.body))
                kept += data.count
            else:
                page = room.page(chunk, data, self._split.stay)
                if data.encoding == _PLAIN:
                    body = _plain(chunk, page, room, self._bounds)
                else:
                    count = _codes(chunk, page, self._used)
                    to = room.out(_levels(data.count) + 1 + (count // 8 + 1) * (width + 10))
                    body = memoryview(to)[: library().stedi_pack(byref(page), count, _at(renumbered), width, _at(to))]
                missing += (data.count - page.values) - (page.rows - page.present)
                if not page.rows:
                    continue
                kept += page.rows
                told = {1: (I32, page.rows), 2: (I32, data.encoding), 3: (I32, _RLE), 4: (I32, _RLE)}
                place = self._page(made, 0, 5, told, body)
            meta.setdefault(_META["data"], (I64, place))
        meta[_META["values"]] = I64, kept
        meta[_META["unpacked"]], meta[_META["packed"]] = ((I64, size) for size in self._sizes)
        if _META["encoding_stats"] in meta:
            counts = [{1: (I32, kind), 2: (I32, how), 3: (I32, n)} for (kind, how), n in self._kinds.items()]
            meta[_META["encoding_stats"]] = LIST, (STRUCT, counts)
        if _META["statistics"] in meta:
            distinct = entries if self._numbered == len(chunk.pages) else None
            meta[_META["statistics"]] = STRUCT, self._statistics(missing, texts, distinct)
        made.note(chunk, meta[_META["statistics"]][1] if _META["statistics"] in meta else {}, kept)
        return _chunk(chunk, meta, at)

    def _loses(self) -> bool:
        """Returns whether the dictionary loses an entry; if so, `_used` marks the entries that it keeps."""
        chunk, room, used = self._chunk, self._room, self._used
        lost = bytearray(chunk.entries)
        for data in self._touched:
            if data.encoding != _PLAIN:
                _codes(chunk, room.page(chunk, data, self._split.stay), used)
                _codes(chunk, room.page(chunk, data, self._split.leave), lost)
        wanted = int.from_bytes(lost, "little")
        for data in self._others:
            if data.encoding != _PLAIN:
                # texts have no early exit: a dictionary may hold only texts that a kept row is known to have
                if chunk.kind and not wanted & ~int.from_bytes(used, "little"):
                    break
                _codes(chunk, room.page(chunk, data, self._split.stay), used)
        else:
            return 0 in used
        return False

    def _dictionary(self, used: bytearray | None) -> tuple[bytearray, bytes, int]:
        """Returns the new index of each entry, the dictionary of the used entries, and their number."""
        chunk = self._chunk
        renumbered, left, to = bytearray(4 * chunk.entries), c_int64(), self._room.out(len(chunk.dictionary))
        size = library().stedi_dictionary(
            *(chunk.dictionary, len(chunk.dictionary), chunk.entries, chunk.kind, _at(used or self._used)),
            *(_at(renumbered), byref(self._bounds), byref(left), _at(to)),
        )
        if size < 0:
            raise _Unfamiliar
        return renumbered, bytes(memoryview(to)[:size]), left.value

    def _page(self, made: _New, kind: int, place: int, told: Struct, body: bytes | memoryview) -> int:
        packed = made.packed(body)
        head = thrift.write({1: (I32, kind), 2: (I32, len(body)), 3: (I32, len(packed)), place: (STRUCT, told)})
        return self._added(made, kind, told[2][1], (head, packed), len(head) + len(body))

    def _added(self, made: _New, kind: int, encoding: int, parts: Sequence[bytes | memoryview], size: int) -> int:
        at = made.at
        for part in parts:
            made.add(part)
        self._sizes[0] += size
        self._sizes[1] += made.at - at
        self._kinds[kind, encoding] = self._kinds.get((kind, encoding), 0) + 1
        return at

    def _statistics(self, missing: int, texts: Sequence[str], distinct: int | None) -> Struct:
        """Returns the statistics of the kept values, with at most the fields that the old statistics had."""
        chunk, (low, high) = self._chunk, self._ends(texts)
        new: Struct = {}
        for number, (kind, value) in chunk.statistics.items():
            if number == 3:
                new[3] = kind, value - missing
            elif number == 4 and distinct is not None:
                new[4] = kind, distinct
            elif number in _GREATEST and low is not None:
                new[number] = kind, high if _GREATEST[number] else low
            elif number in (7, 8) and low is not None:
                new[number] = TRUE, None
        return new

    def _ends(self, texts: Sequence[str]) -> tuple[bytes | None, bytes | None]:
        """Returns the lowest and the highest kept value, encoded as in statistics; None if they are not known."""
        chunk, bounds = self._chunk, self._bounds
        if not chunk.kind:
            known = [text.encode() for text in texts]
            return (min(known), max(known)) if known else (None, None)
        form = _FORMS[chunk.kind]
        if self._numbered < len(chunk.pages) and (self._others or self._numbered):
            gone, told = _Bounds(), [chunk.statistics.get(number, (0, b""))[1] for number in (6, 5)]
            for data in self._touched:
                if data.encoding == _PLAIN:
                    _plain(chunk, self._room.page(chunk, data, self._split.leave), self._room, gone)
            if not self._numbered and all(len(value) == 8 for value in told):
                [low], [high] = (struct.unpack(form, value) for value in told)
                first, last = (_number(form, value) for value in (gone.low, gone.high))
                if not gone.some or (low < first and last < high):
                    return told[0], told[1]
            for data in self._others:
                if data.encoding == _PLAIN:
                    _plain(chunk, self._room.page(chunk, data, self._split.stay), self._room, bounds)
        if bounds.nan:
            raise _Unfamiliar
        if not bounds.some:
            return None, None
        low, high = (_number(form, value) for value in (bounds.low, bounds.high))
        # statistics do not distinguish the signs of zero: the format requires the wider bound, -0.0 or +0.0
        wider = (low or -0.0, high or 0.0) if chunk.kind == 2 else (low, high)
        return struct.pack(form, wider[0]), struct.pack(form, wider[1])


def _number(form: str, bits: int) -> float:
    """Returns the number that 64 bits encode."""
    number: float = struct.unpack(form, struct.pack("<q", bits))[0]
    return number


def _copied(chunk: _Chunk, made: _New) -> Struct:
    """Adds an unchanged chunk to a file and returns its metadata."""
    at = made.add(chunk.raw)
    meta = {number: value for number, value in chunk.meta.items() if number not in _LEFT_OUT}
    for name in ("data", "dictionary"):
        if _META[name] in meta:
            meta[_META[name]] = I64, meta[_META[name]][1] + at - chunk.start
    made.note(chunk, chunk.statistics, chunk.count)
    return _chunk(chunk, meta, at)


def _chunk(chunk: _Chunk, meta: Struct, at: int) -> Struct:
    return {
        number: (STRUCT, meta) if number == _CHUNK["meta"] else (I64, at if value[1] else 0)
        for number, value in chunk.chunk.items()
    }
