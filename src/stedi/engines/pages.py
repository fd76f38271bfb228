"""Rewrites Parquet files without the rows of some people, page by page, with `pages.c`.

Footer and pages, as `engines.parquet` reads them -> the removed rows of each row group, found by the dictionary of one
column -> pages with the kept rows, dictionaries with only their values, new statistics -> a new footer. Nothing is
decoded to rows, which would take most of the time when an engine reads and writes a file. A row group without removed
rows is copied unchanged, unless its dictionary names a removed person: PyArrow writes the dictionary of a whole file
into each row group. Only one thread at a time can run Python, so a second one compresses and writes, in few calls.

Files that `engines.parquet` does not support are left to the engine. A new file has no trace of the removed rows:
dictionaries lose the values that no kept row has, bounds are those of the kept rows, and Bloom filters are left out.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from ctypes import byref, c_int64
from functools import partial
from itertools import compress
from pathlib import Path
from typing import Any, TypeVar

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
_WRITTEN = 1 << 20
"""Bytes that are written at once."""
_FORMS = {1: "<q", 2: "<d", 3: "<i"}
_DATA, _DICTIONARY = 0, 2
"""Types of pages."""
_ASKED = bytes([0, 0, 1]).ljust(256, b"\0")
"""A table that translates the marks of rows: 2 to 1, and every other mark to 0."""
_LEFT_OUT = {META[name] for name in ("bloom", "bloom_size", "size")}
"""Metadata that a new file does not have: Bloom filters would still contain the values of removed rows."""
_GREATEST = {1: True, 2: False, 5: True, 6: False}
"""The fields of statistics that hold a highest (True) or a lowest value (False)."""


T = TypeVar("T")


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
    table: str, files: Sequence[DataFile], leaving: Leaving, folder: Path, *, beside: bool, memory: int
) -> tuple[tuple[DataFile, ...], tuple[DataFile, ...]]:
    """Rewrites files of a table without the removed rows.

    Args:
        table: The table.
        files: Its files, already verified.
        leaving: Selects the rows to remove.
        folder: The folder for the new files; created if needed.
        beside: Whether a second thread writes a file while the next one is read, if there is memory for both.
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
    columns, done = ALL_COLUMNS[table], list[DataFile | bool]()
    try:
        # with memory for two, a file is compressed and written, mostly without Python, while the next one is read
        with _Tools(beside=beside and most >= 2 * largest) as tools:
            writing: Callable[[], DataFile | bool] | None = None
            for number, file in enumerate(files):
                kept = _read(file, columns, leaving, tools) if file.bytes <= most else True
                if writing is not None:
                    done.append(writing())
                    writing = None
                if isinstance(kept, bool):
                    done.append(kept)
                else:
                    writing = tools.begin(partial(_written, kept, folder / f"kept-{number:05}.parquet"))
            if writing is not None:
                done.append(writing())
    except BaseException:
        durable.remove_tree(folder)
        raise
    made = tuple(file for file in done if isinstance(file, DataFile))
    if made:
        durable.settle([folder])
        durable.sync(folder)
        durable.sync(folder.parent)
    else:
        folder.rmdir()
    return made, tuple(file for file, new in zip(files, done, strict=True) if new is True)


class _Tools:
    """What is used for one file after the other: its memory would have to be cleared anew for each.

    Args:
        beside: Whether a second thread compresses and writes.

    Attributes:
        buffers: The buffers for decoded pages.
    """

    def __init__(self, *, beside: bool) -> None:
        import zstandard

        self.buffers, self._packer = Buffers(), zstandard.ZstdCompressor(1)
        self._content, self._before = bytearray(), bytearray()
        self._pool = ThreadPoolExecutor(1) if beside else None
        self._packing: Future[Any] | None = None

    def __enter__(self) -> _Tools:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def content(self, path: str) -> memoryview:
        """Returns the bytes of a file; those of the last but one are overwritten."""
        self._content, self._before = self._before, self._content
        with open(path, "rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if len(self._content) < size:
                self._content = bytearray(size)
            content, at = memoryview(self._content), 0
            while at < size and (count := file.readinto(content[at:size])):
                at += count
        return content[:at]

    def begin(self, work: Callable[[], T]) -> Callable[[], T]:
        """Begins a task in the second thread and returns what waits for its result; without one, it is done at once."""
        if self._pool is None:
            result = work()
            return lambda: result
        return self._pool.submit(work).result

    def pack(self, bodies: Sequence[bytes]) -> Callable[[], Iterable[Any]]:
        """Begins to compress the pages of a row group, and returns what waits for the result."""
        if not bodies:
            return tuple
        # in one call: between two pages the second thread would wait for the first, which runs Python
        pack: Callable[[], Any] = partial(self._packer.multi_compress_to_buffer, [*bodies])
        if self._pool is None:
            return self.begin(pack)
        if self._packing is not None:
            wait([self._packing])  # of a large file, only two row groups are held uncompressed
        self._packing = self._pool.submit(pack)
        return self._packing.result


@dataclass(frozen=True, slots=True)
class _Page:
    """A page of a new file.

    Attributes:
        kind: Its type.
        encoding: The encoding of its values.
        size: Its uncompressed size, without its header unless it is whole.
        count: The number of its rows or entries.
        whole: All its bytes, if they are those of the old file; otherwise it is compressed anew.
    """

    kind: int
    encoding: int
    size: int
    count: int
    whole: memoryview | None = None


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of a row group of a new file.

    Attributes:
        fields: Its old fields.
        meta: Its new metadata, except for what depends on sizes and places.
        pages: Its pages.
    """

    fields: Struct
    meta: Struct
    pages: Sequence[_Page]

    def write(self, new: _New, packed: Iterator[Any]) -> Struct:
        """Adds the column to a file and returns its fields; `packed` are the compressed pages of its row group."""
        meta, at, unpacked, kinds = dict(self.meta), new.at, 0, dict[tuple[int, int], int]()
        for page in self.pages:
            place = META["dictionary" if page.kind == _DICTIONARY else "data"]
            meta.setdefault(place, (I64, new.at))
            unpacked += new.add_page(page, packed)
            kinds[page.kind, page.encoding] = kinds.get((page.kind, page.encoding), 0) + 1
        meta[META["unpacked"]], meta[META["packed"]] = (I64, unpacked), (I64, new.at - at)
        if META["encoding_stats"] in meta:
            counts = [{1: (I32, kind), 2: (I32, how), 3: (I32, n)} for (kind, how), n in kinds.items()]
            meta[META["encoding_stats"]] = LIST, (STRUCT, counts)
        return _chunk(self.fields, meta, at)


@dataclass(frozen=True, slots=True)
class _Unchanged:
    """A column of a row group that is in the new file as it was in the old one.

    Attributes:
        fields: Its old fields.
        meta: Its old metadata, without what a new file does not have.
        raw: Its bytes.
        start: Their place in the old file.
    """

    fields: Struct
    meta: Struct
    raw: memoryview
    start: int

    def write(self, new: _New, _: Iterator[Any]) -> Struct:
        """Adds the column to a file and returns its fields."""
        meta, at = dict(self.meta), new.add(self.raw)
        for name in ("data", "dictionary"):
            if META[name] in meta:
                meta[META[name]] = I64, meta[META[name]][1] + at - self.start
        return _chunk(self.fields, meta, at)


@dataclass(frozen=True, slots=True)
class _Group:
    """A row group of a new file.

    Attributes:
        fields: Its old fields.
        rows: The number of its rows.
        columns: Its columns.
        packed: Waits for its compressed pages.
    """

    fields: Struct
    rows: int
    columns: Sequence[_Column | _Unchanged]
    packed: Callable[[], Iterable[Any]]

    def write(self, new: _New) -> Struct:
        """Adds the row group to a file and returns its fields."""
        packed = iter(self.packed())
        fields, columns = dict(self.fields), [column.write(new, packed) for column in self.columns]
        metas = [column[CHUNK["meta"]][1] for column in columns]
        fields[GROUP["columns"]] = LIST, (STRUCT, columns)
        fields[GROUP["rows"]] = I64, self.rows
        fields[GROUP["bytes"]] = I64, sum(meta[META["unpacked"]][1] for meta in metas)
        if GROUP["packed"] in fields:
            fields[GROUP["packed"]] = I64, sum(meta[META["packed"]][1] for meta in metas)
        if GROUP["offset"] in fields:
            first = metas[0]
            fields[GROUP["offset"]] = first.get(META["dictionary"], first[META["data"]])
        return fields


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a new file has of an old one, whose bytes must stay in memory until it is written.

    Attributes:
        footer: The old footer.
        groups: The row groups.
        nulls: The number of nulls by column, as the catalog stores it.
        bounds: The bounds by column, as the catalog stores them.
    """

    footer: Struct
    groups: Sequence[_Group]
    nulls: dict[str, int]
    bounds: dict[str, tuple[str, str]]


def _read(file: DataFile, columns: Sequence[Column], leaving: Leaving, tools: _Tools) -> _Kept | bool:
    """Reads what is kept of a file; returns False if no row is, and True if the file is left to the engine."""
    try:
        source = tools.content(file.path)
        footer, told = read_footer(source), _Told()
        groups = [_row_group(group, columns, leaving, told, tools) for group in row_groups(source, footer, columns)]
        kept = [group for group in groups if group is not None]
        return _Kept(footer, kept, *told.described()) if kept else False
    except DAMAGED:
        return True


def _written(kept: _Kept, target: Path) -> DataFile | bool:
    """Writes a file and returns it, on disk; True if the old file is left to the engine."""
    try:
        new = _New()
        groups = [group.write(new) for group in kept.groups]
        groups = [
            {**group, GROUP["ordinal"]: (thrift.I16, place)} if GROUP["ordinal"] in group else group
            for place, group in enumerate(groups)
        ]
        rows = sum(group.rows for group in kept.groups)
        end = thrift.write({**kept.footer, FOOTER["rows"]: (I64, rows), FOOTER["groups"]: (LIST, (STRUCT, groups))})
        with open(target, "xb", buffering=_WRITTEN) as stream:
            stream.writelines((*new.parts, end, struct.pack("<I", len(end)), MAGIC))
    except DAMAGED:
        target.unlink(missing_ok=True)
        return True
    durable.settle([target])
    durable.sync(target)
    return DataFile(str(target), rows, new.at + len(end) + 8, kept.nulls, kept.bounds)


class _New:
    """A new file that is being built in memory.

    Attributes:
        parts: Its bytes so far.
        at: The number of bytes so far.
    """

    def __init__(self) -> None:
        self.parts: list[Any] = [MAGIC]
        self.at = len(MAGIC)

    def add(self, part: Any) -> int:
        """Adds bytes and returns their offset."""
        at = self.at
        self.parts.append(part)
        self.at += len(part)
        return at

    def add_page(self, page: _Page, packed: Iterator[Any]) -> int:
        """Adds a page, if it is not a whole one the next of the compressed, and returns its uncompressed size."""
        if page.whole is not None:
            self.add(page.whole)
            return page.size
        body, named = next(packed), page.kind == _DICTIONARY
        head = thrift.page_header(page.size, len(body), page.count, page.encoding, dictionary=named)
        self.add(head)
        self.add(body)
        return len(head) + page.size


class _Told:
    """The statistics of a new file, for the catalog."""

    def __init__(self) -> None:
        self._nulls: dict[str, int] = {}
        self._unknown: set[str] = set()
        self._bounds: dict[str, tuple[list[float], list[float]]] = {}
        self._unbounded: set[str] = set()

    def note(self, chunk: Chunk, statistics: Struct, rows: int) -> None:
        """Adds the statistics of a chunk with so many rows."""
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

    def described(self) -> tuple[dict[str, int], dict[str, tuple[str, str]]]:
        """Returns the nulls and the bounds by column, as the catalog stores them."""
        bounds = {
            name: (str(min(lows)), str(max(highs)))
            for name, (lows, highs) in self._bounds.items()
            if name not in self._unbounded
        }
        return {name: nulls for name, nulls in self._nulls.items() if name not in self._unknown}, bounds


def _row_group(
    group: RowGroup, columns: Sequence[Column], leaving: Leaving, told: _Told, tools: _Tools
) -> _Group | None:
    """Returns what is kept of a row group, and adds its statistics to those of the file; None if no row is."""
    rows, key = group.rows, group.chunk(leaving.column)
    marks, named, used = _marks(group, key, leaving, tools.buffers)
    split, kept, bodies = _Split(marks), list[_Column | _Unchanged](), list[bytes]()
    gone = split.leave.rows
    if gone == rows:
        return None
    for column in columns:
        chunk, known = (key, used) if column.name == leaving.column else (group.chunk(column.name), None)
        if gone or (named and META["dictionary"] in chunk.meta):
            kept.append(_Shortened(chunk, tools.buffers, split, known).column(told, bodies))
        else:
            told.note(chunk, chunk.statistics, chunk.count)
            kept.append(_Unchanged(chunk.chunk, _meta(chunk), chunk.raw, chunk.start))
    return _Group(group.fields, rows - gone, kept, tools.pack(bodies))


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

    def column(self, told: _Told, bodies: list[bytes]) -> _Column:
        """Returns what is kept of the chunk.

        Args:
            told: The statistics of the file, to which its own are added.
            bodies: The bodies of pages that are compressed anew, to which its own are added.
        """
        chunk, buffers = self._chunk, self._buffers
        meta, pages, missing, texts = _meta(chunk), list[_Page](), 0, list[str]()
        renumbered: bytearray | None = None
        width, entries = 0, 0
        named = meta.pop(META["dictionary"], None)
        # PyArrow writes a dictionary also where no page has indices into it
        if self._numbered and chunk.dictionary_encoding is not None:
            used = self._used()
            if used is None:
                entries = chunk.entries
                if chunk.kind:
                    self._dictionary(bytearray(b"\1") * entries)
                whole = chunk.dictionary_page
                pages.append(_Page(_DICTIONARY, chunk.dictionary_encoding, chunk.dictionary_size, entries, whole))
            else:
                renumbered, dictionary, entries = self._dictionary(used)
                pages.append(_Page(_DICTIONARY, chunk.dictionary_encoding, len(dictionary), entries))
                bodies.append(dictionary)
            width = max(1, (entries - 1).bit_length())
            if not chunk.kind and 5 in chunk.statistics and self._numbered == len(chunk.pages):
                texts = chunk.texts() if used is None else list(compress(chunk.texts(), used))
        elif self._numbered and named is not None:
            raise Unsupported
        kept = 0
        meta.pop(META["data"])
        for data, touches in zip(chunk.pages, self._touches, strict=True):
            if not touches and (data.encoding == PLAIN or renumbered is None or data.highest < entries):
                size = data.size + len(data.whole) - len(data.body)
                pages.append(_Page(_DATA, data.encoding, size, data.count, data.whole))
                kept += data.count
                continue
            page = buffers.page(chunk, data, self._split.stay)
            if data.encoding == PLAIN:
                # bounds do not tell whether there is NaN
                body = selected_plain(chunk, page, buffers, self._bounds if chunk.kind == 2 else None, self._gone)
            else:
                body = selected_indices(chunk, page, buffers, renumbered, width)
            missing += (data.count - page.values) - (page.rows - page.present)
            if page.rows:
                kept += page.rows
                pages.append(_Page(_DATA, data.encoding, len(body), page.rows))
                bodies.append(bytes(body))
        meta[META["values"]] = I64, kept
        if META["statistics"] in meta:
            distinct = entries if self._numbered == len(chunk.pages) else None
            meta[META["statistics"]] = STRUCT, self._statistics(missing, texts, distinct)
        told.note(chunk, meta[META["statistics"]][1] if META["statistics"] in meta else {}, kept)
        return _Column(chunk.chunk, meta, pages)

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


def _meta(chunk: Chunk) -> Struct:
    """Returns the metadata of a chunk without what a new file does not have."""
    return {number: value for number, value in chunk.meta.items() if number not in _LEFT_OUT}


def _chunk(fields: Struct, meta: Struct, at: int) -> Struct:
    return {
        number: (STRUCT, meta) if number == CHUNK["meta"] else (I64, at if value[1] else 0)
        for number, value in fields.items()
    }
