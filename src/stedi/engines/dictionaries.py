"""Reads the texts that Parquet files store: in dictionaries, plain pages and bounds, also those that no row has.

An engine returns only the values of rows, and decodes every row for them. A dictionary, or the bounds in a footer, can
hold other values. Code that removes rows without decoding them must also remove these values, as `engines.pages` does.
Where all data pages of a column have only indices into a dictionary, the dictionary holds the values of all rows.

Most texts of a table are in the dictionaries of many of its files: what was read before is not returned again.
`dictionaries.c` takes texts apart and remembers them, if it is compiled. This module shares only the Thrift protocol
with `engines.parquet` and `engines.pages`.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from ctypes import byref, c_char_p, c_int64, c_ubyte, c_void_p
from functools import cache
from pathlib import Path
from typing import Any

from stedi import _native
from stedi._frozen import dataclass, field, replace
from stedi.engines import thrift
from stedi.engines.thrift import Struct

_KINDS = {0: "BOOLEAN", 1: "INTEGER", 2: "BIGINT", 4: "FLOAT", 5: "DOUBLE"}
"""Physical types of values without text, and what DuckDB calls them."""
_TEXT = 6
_UNPACKED, _ZSTD = 0, 6
_PLAIN, _INDICES, _RLE = 0, (2, 8), 3
"""Encodings: of values as they are or as indices into a dictionary, and of definition levels."""
_NO_PAGE, _DATA, _DICTIONARY = -1, 0, 2
"""Types of pages."""
_HIGHEST, _LOWEST = 5, 6
_BOUNDS = (1, 2, _HIGHEST, _LOWEST)
"""Fields of statistics with values."""
_TAIL = 1 << 13
"""The bytes at the end of a file that are read first: most footers are shorter."""
_MOST = 1 << 28
_MOST_PLAIN = 1 << 20
"""The most bytes of plain pages of a column in a row group that are read here: an engine reads many values faster."""
_MOST_KNOWN = 1 << 20
"""The most texts that are remembered, so that each is searched once."""
_MOST_KNOWN_BYTES = 1 << 27
"""The most bytes of them that the library remembers, with four more for each."""
_BETWEEN = "\x1f"
_LENGTH, _PUT_LENGTH = struct.Struct("<I").unpack_from, struct.Struct("<I").pack
"""The length before a text."""
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


class Known:
    """The texts that were read from some columns."""

    def __init__(self) -> None:
        self._texts: set[str] = set()
        self._library = library()
        # null if there is no memory: then nothing is known, and each text is read whenever it is met
        self._native = self._library and self._library.stedi_known(_MOST_KNOWN, _MOST_KNOWN_BYTES)
        if self._native:
            weakref.finalize(self, self._library.stedi_forget, self._native)

    def new(self, page: bytes) -> tuple[Collection[str], bool]:
        """Returns the texts in a dictionary or in plain values that were not there before; from now on they are known.

        Args:
            page: The bytes, whatever count of texts the header of the page states.

        Returns:
            These texts, and whether the bytes are texts to their end: if not, those before the damage.
        """
        if self._native and page:
            joined = bytearray(len(page))
            to = byref(c_ubyte.from_buffer(joined))
            size = self._library.stedi_new(self._native, page, len(page), ord(_BETWEEN), to)
            if size >= 0:
                return _text(joined[: size - 1]).split(_BETWEEN) if size else (), True
        texts, at, end = set[str](), 0, len(page)
        while at + 4 <= end:
            until = at + 4 + _LENGTH(page, at)[0]
            texts.add(_text(page[at + 4 : until]))
            at = until
        return self._unmet(texts), at == end

    def among(self, texts: Collection[str]) -> Collection[str]:
        """Returns those of some texts, which an engine has read, that were not there before; now they are known."""
        if not self._native:
            return self._unmet(set(texts))
        raws = [text.encode("utf-8", "surrogatepass") for text in texts]
        found, _ = self.new(b"".join(part for raw in raws for part in (_PUT_LENGTH(len(raw)), raw)))
        return found

    def _unmet(self, texts: set[str]) -> set[str]:
        new = texts - self._texts
        if len(self._texts) < _MOST_KNOWN:
            self._texts.update(new)
        return new


@dataclass(slots=True)
class Stored:
    """The texts that some files store.

    Attributes:
        texts: All texts by column that were not known; a nested column has the name of its root.
        partial: The columns of which a row may have a text that is neither among them nor known.
    """

    texts: dict[str, set[str]] = field(default_factory=dict)
    partial: set[str] = field(default_factory=set)


def footer(path: Path) -> Footer | None:
    """Returns the footer of a file on this machine; None if it cannot be read."""
    try:
        with _opened(path) as file:
            end = os.fstat(file).st_size
            start = max(end - _TAIL, 0)
            tail = os.pread(file, end - start, start)
            size = int.from_bytes(tail[-8:-4], "little")
            if size > end - 8:
                return None
            content = tail[-8 - size : -8] if size <= len(tail) - 8 else os.pread(file, size, end - 8 - size)
        fields, _ = thrift.read(content)
        root, *elements = fields[2][1][1]
        names = frozenset(element[4][1].decode("utf-8", "replace") for element in (root, *elements))
        pairs = fields[5][1][1] if 5 in fields else ()
        told = frozenset(value for pair in pairs for _, value in pair.values() if isinstance(value, bytes))
        groups: list[Struct] = fields[4][1][1]
    except (OSError, *_DAMAGED):
        return None
    return Footer(path, names, told, _flat(root, elements), _required(elements), groups)


def stored(
    footers: Iterable[Footer], known: Mapping[str, Known] | None = None, without: Collection[str] = ()
) -> Stored:
    """Returns the texts that some files store; the columns of a damaged file are partial.

    Args:
        footers: The files.
        known: For some columns the texts that were read before, of which these become part.
        without: Columns that are not read.
    """
    reading = _Reading(dict(known or {}), frozenset(without))
    for each in footers:
        try:
            with _opened(each.path) as file:
                for group in each.groups:
                    reading.add_group(file, group, each)
        except (OSError, *_DAMAGED):
            # the engine reports it, and it is searched as bytes
            reading.partial.update(reading.texts, (name for name, _ in each.columns or ()))
    return Stored(reading.texts, reading.partial)


def none_has(paths: Iterable[Path], column: str, texts: Collection[str]) -> bool:
    """Returns whether no row of some files has one of some texts in a column; False if that is not known."""
    sought, footers, others = [text.encode() for text in texts], list[Footer](), set[str]()
    for path in paths:
        found = footer(path)
        if found is None or (column, "VARCHAR") not in (found.columns or ()):
            return False
        try:
            groups = [group for group in found.groups if _may_have(group, column, sought)]
        except _DAMAGED:
            return False
        if groups:
            footers.append(replace(found, groups=groups))
            others.update(name for name, _ in found.columns or () if name != column)
    if not footers:
        return True
    read = stored(footers, without=others)
    return column not in read.partial and read.texts[column].isdisjoint(texts)


def _may_have(group: Struct, column: str, texts: Iterable[bytes]) -> bool:
    """Returns whether the bounds of a column in a row group leave room for one of some texts."""
    [meta] = (chunk[3][1] for chunk in group[1][1][1] if chunk[3][1][3][1][1] == [column.encode()])
    bounds = meta[12][1] if 12 in meta else {}
    if _LOWEST not in bounds or _HIGHEST not in bounds:
        return True
    low, high = bounds[_LOWEST][1], bounds[_HIGHEST][1]
    return any(low <= text <= high for text in texts)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Opens a file, of which parts are read by their places."""
    file = os.open(path, os.O_RDONLY | os.O_NOCTTY)
    try:
        yield file
    finally:
        os.close(file)


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


class _Reading:
    """The texts of some files while they are read.

    Args:
        known: For some columns the texts that were read before.
        without: Columns that are not read.
    """

    def __init__(self, known: dict[str, Known], without: frozenset[str]) -> None:
        import zstandard

        self.texts: dict[str, set[str]] = {}
        self.partial: set[str] = set()
        self._known, self._without = known, without
        self._unpacker = zstandard.ZstdDecompressor()

    def add_group(self, file: int, group: Struct, of: Footer) -> None:
        """Adds the texts of a row group."""
        left = {name for name, kind in of.columns or () if kind == "VARCHAR"}
        for chunk in group[1][1][1]:
            meta: Struct = chunk[3][1]
            if meta[1][1] != _TEXT:
                continue
            name, *nested = (part.decode() for part in meta[3][1][1])
            if name in self._without:
                continue
            values = self.texts.setdefault(name, set())
            if 12 in meta:
                values.update(map(_text, _bounds(meta[12][1])))
            complete = False
            try:
                complete = self._add_pages(file, meta, group[3][1], name, name in of.required)
            finally:
                if nested or not complete or name not in left or 1 in chunk:  # 1: another file has the pages
                    self.partial.add(name)
                left.discard(name)
        self.partial.update(left - self._without)

    def _add_pages(self, file: int, meta: Struct, rows: int, name: str, required: bool) -> bool:
        """Adds the texts of a chunk's pages, and returns whether they are all texts that its rows can have."""
        codec, count, data, size = (meta[number][1] for number in (4, 5, 9, 7))
        start = meta[11][1] if 11 in meta and 0 < meta[11][1] < data else data
        if codec not in (_UNPACKED, _ZSTD) or not (start > 0 and 0 <= size <= _MOST):
            return False
        source = os.pread(file, size, start)
        if len(source) < size:
            return False
        seen = plain = 0
        complete, numbered = True, False
        for kind, body, unpacked, found, encoding, levels, bounds in _pages(source):
            if not 0 <= unpacked <= _MOST:
                return False
            if kind == _DICTIONARY:
                complete = self._add_texts(self._unpacked(body, unpacked, codec), name) and complete
                numbered = True
            elif kind == _DATA:
                seen += found
                self.texts[name].update(map(_text, bounds))
                if encoding in _INDICES and numbered:
                    continue
                plain += unpacked
                if encoding != _PLAIN or plain > _MOST_PLAIN or not (required or levels == _RLE):
                    complete = False
                    continue
                content = self._unpacked(body, unpacked, codec)
                begin = 0 if required else 4 + int.from_bytes(content[:4], "little")
                complete = begin <= len(content) and self._add_texts(content[begin:], name) and complete
            else:
                complete = False
        return complete and seen == count == rows

    def _add_texts(self, page: bytes, name: str) -> bool:
        """Adds the texts of a page that were not known; returns whether the page has nothing else."""
        known = self._known.get(name)
        if known is None:
            known = self._known[name] = Known()
        found, whole = known.new(page)
        self.texts[name].update(found)
        return whole

    def _unpacked(self, page: memoryview, size: int, codec: int) -> bytes:
        """Returns the content of a page."""
        import zstandard

        if codec == _UNPACKED:
            return bytes(page)
        try:
            # a damaged frame can name a size that does not fit into memory
            if zstandard.get_frame_parameters(page).content_size not in (size, zstandard.CONTENTSIZE_UNKNOWN):
                raise ValueError
            content = self._unpacker.decompress(page, max_output_size=size)
        except zstandard.ZstdError as error:
            raise ValueError from error
        if len(content) != size:  # a second frame may follow
            raise ValueError
        return content


def _pages(chunk: bytes) -> Iterator[tuple[int, memoryview, int, int, int, int, Sequence[bytes]]]:
    """Yields each page: type, bytes, uncompressed size, number of rows, encodings of values and of levels, bounds.

    The last one has no type if the bytes are not pages to their end.
    """
    view, size = memoryview(chunk), len(chunk)
    headers = thrift.page_headers(chunk)
    if headers is not None:
        for _, body, end, kind, unpacked, _, rows, encoding, levels, _, _, *parts in headers:
            # where nothing is, the offset and the size are -1
            bounds = [chunk[at : at + long] for at, long in zip(parts[::2], parts[1::2], strict=True) if at >= 0]
            yield kind, view[body:end], unpacked, rows, encoding, levels, bounds
        return
    at = 0
    while at < size:
        head, at = thrift.read(view, at)
        kind, unpacked, packed = (head[number][1] for number in (1, 2, 3))
        if not 0 <= packed <= size - at:
            yield _NO_PAGE, view[at:], 0, 0, 0, 0, ()
            return
        body, at = at, at + packed
        if kind == _DATA:
            page: Struct = head[5][1]
            rows, encoding = (page[number][1] for number in (1, 2))
            levels = page[3][1] if 3 in page else -1
            yield kind, view[body:at], unpacked, rows, encoding, levels, _bounds(page[5][1] if 5 in page else {})
        else:
            yield kind, view[body:at], unpacked, 0, 0, 0, ()


def _bounds(statistics: Struct) -> list[bytes]:
    return [statistics[number][1] for number in _BOUNDS if number in statistics]


def _text(raw: bytes | bytearray) -> str:
    return raw.decode("utf-8", "replace")


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    return _native.library(
        Path(__file__).with_suffix(".c"),
        {
            "stedi_known": [c_void_p, c_int64, c_int64],
            "stedi_forget": [None, c_void_p],
            "stedi_new": [c_int64, c_void_p, c_char_p, c_int64, c_ubyte, c_void_p],
        },
    )
