"""Rewrites Parquet files without the rows of some people, page by page, with `pages.c`.

Footer and pages, as `engines.parquet` reads them -> the removed rows of each row group, found by the dictionary of one
column -> pages with the kept rows, dictionaries with only their values, new statistics -> a new footer. Nothing is
decoded to rows, which would take most of the time when an engine reads and writes a file. A row group without removed
rows is copied unchanged, unless its dictionary names a removed person: PyArrow writes the dictionary of a whole file
into each row group.

Files that `engines.parquet` does not support are left to the engine. A new file has no trace of the removed rows:
dictionaries lose the values that no kept row has, bounds are those of the kept rows, and Bloom filters are left out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import byref, c_int64
from itertools import compress
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, field
from stedi.engines import thrift
from stedi.engines.parquet import (
    CHUNK,
    DAMAGED,
    FOOTER,
    GROUP,
    MAGIC,
    META,
    MOST_BYTES,
    PLAIN,
    Buffers,
    Chunk,
    DataPage,
    NativeBounds,
    RowGroup,
    RowRanges,
    Unsupported,
    address,
    library,
    read_footer,
    row_groups,
    selected_indices,
    selected_integers,
    selected_plain,
    selected_texts,
    selected_values,
)
from stedi.engines.thrift import I32, I64, LIST, STRUCT, TRUE, Struct
from stedi.schema.tables import ALL_COLUMNS, Column, DataFile
from stedi.storage import durable, s3

_TIMES = 3
"""Memory for a file, as a multiple of its size: the file, the new file, and an uncompressed row group."""
_FORMS = {1: "<q", 2: "<d", 3: "<i"}
_DATA, _DICTIONARY = 0, 2
"""Types of pages."""
_ASKED = bytes([0, 0, 1]).ljust(256, b"\0")
"""A table that translates the marks of rows: 2 to 1, and every other mark to 0."""
_LEFT_OUT = {META[name] for name in ("bloom", "bloom_size", "size")}
"""Metadata that a new file does not have: Bloom filters would still contain the values of removed rows."""
_GREATEST = {1: True, 2: False, 5: True, 6: False}
"""The fields of statistics that hold a highest (True) or a lowest value (False)."""


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
    most = min(MOST_BYTES, memory // _TIMES)
    largest = max((file.bytes for file in files if file.bytes <= most), default=0)
    if not largest:
        return (), tuple(files)
    durable.folder(folder)
    columns, free = ALL_COLUMNS[table], list[_Tools]()

    def one(numbered: tuple[int, DataFile]) -> DataFile | bool:
        number, file = numbered
        target = folder / f"kept-{number:05}.parquet"
        if file.bytes > most:
            return True
        tools = free.pop() if free else _Tools()
        try:
            return _file(file, columns, leaving, target, tools)
        except DAMAGED:
            target.unlink(missing_ok=True)
            return True
        finally:
            free.append(tools)

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


class _Tools:
    """What a thread uses for one file after the other: its memory would have to be cleared anew for each.

    Attributes:
        buffers: The buffers for decoded pages.
        packer: The compressor.
    """

    def __init__(self) -> None:
        import zstandard

        self.buffers, self.packer = Buffers(), zstandard.ZstdCompressor(1)
        self._content = bytearray()

    def content(self, path: str) -> memoryview:
        """Returns the bytes of a file; those of an earlier file are overwritten."""
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if len(self._content) < size:
                self._content = bytearray(size)
            content, at = memoryview(self._content), 0
            while at < size and (count := file.readinto(content[at:size])):
                at += count
        return content[:at]


def _file(file: DataFile, columns: Sequence[Column], leaving: Leaving, target: Path, tools: _Tools) -> DataFile | bool:
    """Rewrites a file and returns the new one; False if no row is kept."""
    source = tools.content(file.path)
    footer = read_footer(source)
    groups: list[Struct] = []
    made, buffers = _New(tools.packer), tools.buffers
    for group in row_groups(source, footer, columns):
        written = _row_group(group, columns, leaving, made, buffers)
        if written is not None:
            groups.append({**written, GROUP["ordinal"]: (thrift.I16, len(groups))} if 7 in written else written)
    if not groups:
        return False
    rows = sum(int(group[GROUP["rows"]][1]) for group in groups)
    footer[FOOTER["rows"]] = I64, rows
    footer[FOOTER["groups"]] = LIST, (STRUCT, groups)
    end = thrift.write(footer)
    with open(target, "xb") as stream:
        stream.writelines((*made.parts, end, struct.pack("<I", len(end)), MAGIC))
    durable.settle([target])
    durable.sync(target)
    size = made.at + len(end) + 8
    return DataFile(str(target), rows, size, *made.described(columns))


class _New:
    """A new file that is being built in memory.

    Args:
        packer: The compressor.

    Attributes:
        parts: Its bytes so far.
        at: The number of bytes so far.
    """

    def __init__(self, packer: Any) -> None:
        self._packer = packer
        self.parts: list[bytes | memoryview] = [MAGIC]
        self.at = len(MAGIC)
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
        content: bytes = self._packer.compress(body)
        return content

    def note(self, chunk: Chunk, statistics: Struct, rows: int) -> None:
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


def _row_group(
    group: RowGroup, columns: Sequence[Column], leaving: Leaving, made: _New, buffers: Buffers
) -> Struct | None:
    """Adds the kept rows of a row group to a file and returns the new metadata; None if no row is kept."""
    rows, key = group.rows, group.chunk(leaving.column)
    marks, named, used = _marks(group, key, leaving, buffers)
    split, written = _Split(marks), list[Struct]()
    gone = split.leave.rows
    if gone == rows:
        return None
    for column in columns:
        chunk, known = (key, used) if column.name == leaving.column else (group.chunk(column.name), None)
        if gone or (named and META["dictionary"] in chunk.meta):
            written.append(_Shortened(chunk, buffers, split, known).write(made))
        else:
            written.append(_copied(chunk, made))
    new = dict(group.fields)
    metas = [chunk[CHUNK["meta"]][1] for chunk in written]
    new[GROUP["columns"]] = LIST, (STRUCT, written)
    new[GROUP["rows"]] = I64, rows - gone
    new[GROUP["bytes"]] = I64, sum(meta[META["unpacked"]][1] for meta in metas)
    if GROUP["packed"] in new:
        new[GROUP["packed"]] = I64, sum(meta[META["packed"]][1] for meta in metas)
    if GROUP["offset"] in new:
        first = metas[0]
        new[GROUP["offset"]] = first.get(META["dictionary"], first[META["data"]])
    return new


class _Split:
    """The kept and the removed rows of a row group.

    Args:
        marks: One byte per row: 0 if it is kept, 1 if it is removed.

    Attributes:
        stay: The kept rows.
        leave: The removed rows.
    """

    def __init__(self, marks: bytearray) -> None:
        self.stay, self.leave = RowRanges(marks), RowRanges(marks, 1)
        self._touched: dict[tuple[int, int], bool] = {}

    def touches(self, page: DataPage) -> bool:
        """Returns whether a page has removed rows; pages of most columns begin and end at the same rows."""
        rows = page.first, page.count
        if rows not in self._touched:
            self._touched[rows] = self.leave.touch(page)
        return self._touched[rows]


def _marks(group: RowGroup, key: Chunk, leaving: Leaving, buffers: Buffers) -> tuple[bytearray, bool, bytearray | None]:
    """Returns one byte per row of a row group: 0 if the row is kept, 1 if it is removed.

    It also returns whether dictionaries may have texts of those who left. They can although no row has any: PyArrow
    writes a given dictionary into each row group of a file, with texts that only rows of other row groups have. Last,
    it returns one byte per entry of the key's dictionary, 1 if a kept row has it, unless that remains to be found.
    """
    if all(page.encoding == PLAIN for page in key.pages) and not leaving.moments:
        return *_plain_marks(key, leaving.texts, buffers), None
    texts = key.texts()
    flags, used = bytearray(map(leaving.texts.__contains__, texts)), bytearray(key.entries)
    if leaving.moments:
        flags = bytearray(flag or 2 * (text in leaving.moments) for flag, text in zip(flags, texts, strict=True))
    if not any(flags):
        return bytearray(key.count), False, None
    marks = key.marks(flags, buffers, used)
    if 2 not in flags:
        # all rows with a removed text leave, and no others
        return marks, True, bytearray((_bits(used) & ~_bits(flags)).to_bytes(key.entries, "little"))
    if 2 in marks:
        asked = RowRanges(marks.translate(_ASKED), 1)
        named = selected_values(key, texts, buffers, asked)
        moments = selected_integers(group.chunk(leaving.moment), buffers, asked)
        at = -1
        if not len(named) == len(moments) == marks.count(2):
            raise Unsupported
        for text, moment in zip(named, moments, strict=True):
            at = marks.index(2, at + 1)
            marks[at] = moment in leaving.moments[text]
    return marks, True, None


def _plain_marks(key: Chunk, texts: Collection[str], buffers: Buffers) -> tuple[bytearray, bool]:
    """Returns what `_marks` does, of a column whose texts are not in a dictionary."""
    found = selected_texts(key, buffers, RowRanges(bytearray(key.count)))
    if len(found) != key.count:
        raise Unsupported  # some texts are missing
    # no dictionary in use tells whether this file's dictionaries have texts of other row groups
    return bytearray(text in texts for text in found), True


class _Shortened:
    """A chunk without the removed rows.

    Pages without removed rows are copied unchanged, unless they have one of the dictionary's last entries: these take
    the places of those that it loses. With `read_dictionary`, PyArrow reads wrong texts if an entry is there twice.

    Args:
        chunk: The chunk.
        buffers: Where its pages are decoded.
        split: The kept and the removed rows.
        used: One byte per entry of its dictionary, 1 if a kept row has it, if that is known.
    """

    def __init__(self, chunk: Chunk, buffers: Buffers, split: _Split, used: bytearray | None) -> None:
        self._chunk, self._buffers, self._split, self._known = chunk, buffers, split, used
        self._touches = [split.touches(page) for page in chunk.pages]
        self._numbered = sum(page.encoding != PLAIN for page in chunk.pages)
        # of values in the dictionary and of doubles of kept rows; and of plain values of removed rows
        self._bounds, self._gone = NativeBounds(), NativeBounds()
        self._sizes = [0, 0]
        self._kinds: dict[tuple[int, int], int] = {}

    def write(self, made: _New) -> Struct:
        """Adds the chunk to a file and returns its metadata."""
        chunk, buffers = self._chunk, self._buffers
        meta = {number: value for number, value in chunk.meta.items() if number not in _LEFT_OUT}
        at, missing, texts = made.at, 0, list[str]()
        renumbered: bytearray | None = None
        width, entries = 0, 0
        if not self._numbered:
            meta.pop(META["dictionary"], None)  # PyArrow writes one also where no page has indices into it
        elif chunk.dictionary_encoding is not None:
            used = self._used()
            if used is None:
                entries = chunk.entries
                if chunk.kind:
                    self._dictionary(bytearray(b"\1") * entries)
                place = self._added(
                    made, _DICTIONARY, chunk.dictionary_encoding, (chunk.dictionary_page,), chunk.dictionary_size
                )
            else:
                renumbered, dictionary, entries = self._dictionary(used)
                place = self._page(made, _DICTIONARY, entries, chunk.dictionary_encoding, dictionary)
            width = max(1, (entries - 1).bit_length())
            meta[META["dictionary"]] = I64, place
            if not chunk.kind and 5 in chunk.statistics and self._numbered == len(chunk.pages):
                texts = chunk.texts() if used is None else list(compress(chunk.texts(), used))
        elif META["dictionary"] in meta:
            raise Unsupported
        kept = 0
        meta.pop(META["data"])
        for data, touches in zip(chunk.pages, self._touches, strict=True):
            if not touches and (data.encoding == PLAIN or renumbered is None or data.highest < entries):
                place = self._added(
                    made, _DATA, data.encoding, (data.whole,), data.size + len(data.whole) - len(data.body)
                )
                kept += data.count
            else:
                page = buffers.page(chunk, data, self._split.stay)
                if data.encoding == PLAIN:
                    # bounds do not tell whether there is NaN
                    body = selected_plain(chunk, page, buffers, self._bounds if chunk.kind == 2 else None, self._gone)
                else:
                    body = selected_indices(chunk, page, buffers, renumbered, width)
                missing += (data.count - page.values) - (page.rows - page.present)
                if not page.rows:
                    continue
                kept += page.rows
                place = self._page(made, _DATA, page.rows, data.encoding, body)
            meta.setdefault(META["data"], (I64, place))
        meta[META["values"]] = I64, kept
        meta[META["unpacked"]], meta[META["packed"]] = ((I64, size) for size in self._sizes)
        if META["encoding_stats"] in meta:
            counts = [{1: (I32, kind), 2: (I32, how), 3: (I32, n)} for (kind, how), n in self._kinds.items()]
            meta[META["encoding_stats"]] = LIST, (STRUCT, counts)
        if META["statistics"] in meta:
            distinct = entries if self._numbered == len(chunk.pages) else None
            meta[META["statistics"]] = STRUCT, self._statistics(missing, texts, distinct)
        made.note(chunk, meta[META["statistics"]][1] if META["statistics"] in meta else {}, kept)
        return _chunk(chunk, meta, at)

    def _used(self) -> bytearray | None:
        """Returns one byte per entry of the dictionary, 1 if a kept row has it; None if the dictionary loses none."""
        chunk, kept = self._chunk, self._known
        if kept is None:
            kept, removed = bytearray(chunk.entries), bytearray(chunk.entries)
            for touched in (True, False):
                for data, touches in zip(chunk.pages, self._touches, strict=True):
                    if touches is not touched or data.encoding == PLAIN:
                        continue
                    if 0 not in kept:
                        return None
                    # of texts it may hold only those that a kept row is known to have
                    if not touched and chunk.kind and not _bits(removed) & ~_bits(kept):
                        return None
                    page = self._buffers.page(chunk, data, self._split.stay)
                    if library().stedi_used(byref(page), chunk.entries, address(kept), address(removed)) < 0:
                        raise Unsupported
                    data.highest = page.highest
        return kept if 0 in kept else None

    def _dictionary(self, used: bytearray) -> tuple[bytearray, bytes, int]:
        """Returns the new index of each entry, the dictionary of the used entries, and their number."""
        chunk = self._chunk
        renumbered, left, to = bytearray(4 * chunk.entries), c_int64(), self._buffers.out(len(chunk.dictionary))
        size = library().stedi_dictionary(
            *(chunk.dictionary, len(chunk.dictionary), chunk.entries, chunk.kind, address(used)),
            *(address(renumbered), byref(self._bounds), byref(left), address(to)),
        )
        if size < 0:
            raise Unsupported
        return renumbered, bytes(memoryview(to)[:size]), left.value

    def _page(self, made: _New, kind: int, count: int, encoding: int, body: bytes | memoryview) -> int:
        packed = made.packed(body)
        head = thrift.page_header(len(body), len(packed), count, encoding, dictionary=kind == _DICTIONARY)
        return self._added(made, kind, encoding, (head, packed), len(head) + len(body))

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
            # code points are in the order of their bytes in UTF-8
            return (min(texts).encode(), max(texts).encode()) if texts else (None, None)
        form, told = _FORMS[chunk.kind], [chunk.statistics.get(number, (0, b""))[1] for number in (6, 5)]
        if self._numbered < len(chunk.pages):
            ends: list[float] = []
            if not self._numbered and all(len(value) == struct.calcsize(form) for value in told):
                ends = [struct.unpack(form, value)[0] for value in told]
                first, last = (_number(form, value) for value in (self._gone.low, self._gone.high))
                if not self._gone.some or (ends[0] < first and last < ends[1]):
                    return told[0], told[1]
            # pages with removed rows come first: they are unpacked, and their kept rows often have both ends
            for _, data in sorted(zip(self._touches, chunk.pages, strict=True), key=lambda pair: not pair[0]):
                if data.encoding == PLAIN:
                    selected_plain(chunk, self._buffers.page(chunk, data, self._split.stay), self._buffers, bounds)
                if ends and bounds.some and [_number(form, value) for value in (bounds.low, bounds.high)] == ends:
                    return told[0], told[1]
        if bounds.nan:
            raise Unsupported
        if not bounds.some:
            return None, None
        low, high = (_number(form, value) for value in (bounds.low, bounds.high))
        # statistics do not distinguish the signs of zero: the format requires the wider bound, -0.0 or +0.0
        wider = (low or -0.0, high or 0.0) if chunk.kind == 2 else (low, high)
        return struct.pack(form, wider[0]), struct.pack(form, wider[1])


def _bits(marks: bytearray) -> int:
    """Returns the marks of dictionary entries, each 0 or 1, as one number."""
    return int.from_bytes(marks, "little")


def _number(form: str, bits: int) -> float:
    """Returns the number that 64 bits encode."""
    number: float = struct.unpack_from(form, struct.pack("<q", bits))[0]
    return number


def _copied(chunk: Chunk, made: _New) -> Struct:
    """Adds an unchanged chunk to a file and returns its metadata."""
    at = made.add(chunk.raw)
    meta = {number: value for number, value in chunk.meta.items() if number not in _LEFT_OUT}
    for name in ("data", "dictionary"):
        if META[name] in meta:
            meta[META[name]] = I64, meta[META[name]][1] + at - chunk.start
    made.note(chunk, chunk.statistics, chunk.count)
    return _chunk(chunk, meta, at)


def _chunk(chunk: Chunk, meta: Struct, at: int) -> Struct:
    return {
        number: (STRUCT, meta) if number == CHUNK["meta"] else (I64, at if value[1] else 0)
        for number, value in chunk.chunk.items()
    }
