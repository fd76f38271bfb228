"""Reads the rows of some people from Parquet files, with `pages.c`, without decoding the other rows.

The dictionary of one column tells which row groups can have rows of them, and its indices which rows; only the pages
with these rows are decoded. Files that `engines.parquet` does not support are left to the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from itertools import groupby
from typing import TypeVar

from stedi._frozen import dataclass, field
from stedi.engines.parquet import (
    DAMAGED,
    MOST_BYTES,
    Buffers,
    RowGroup,
    RowRanges,
    StoredBytes,
    Unsupported,
    library,
    read_footer,
    row_groups,
    selected_integers,
    selected_texts,
    selected_values,
)
from stedi.schema.tables import ALL_COLUMNS, Column
from stedi.storage import s3

MOST_TEXTS = 1_000
"""The largest number of texts to look for: an engine finds the rows of more people faster."""
_MOST_FOUND = 1 << 17
"""The largest number of rows of a row group that are held as Python's values."""
_COUNTED, _READ = 1, 2
"""The marks of rows that are only counted, and of those whose integers are read."""
_ALONE = {mark: bytes(mark) + b"\1" + bytes(255 - mark) for mark in (_COUNTED, _READ)}
"""For each mark a table that translates it to 1, and the other to 0."""

Rows = dict[tuple[str, ...], tuple[list[int], ...]]
"""Rows of a file: for each combination of texts, the values of each column of integers."""
_Found = TypeVar("_Found")


@dataclass(slots=True)
class Selected:
    """The rows of a file that have one of the texts.

    Attributes:
        read: Those whose integers are read.
        counted: For each combination of texts, how many others there are.
    """

    read: Rows = field(default_factory=dict)
    counted: dict[tuple[str, ...], int] = field(default_factory=dict)

    def add(self, other: Selected) -> None:
        """Adds further rows."""
        for texts, count in other.counted.items():
            self.counted[texts] = self.counted.get(texts, 0) + count
        for texts, values in other.read.items():
            for to, more in zip(self.read.setdefault(texts, tuple([] for _ in values)), values, strict=True):
                to += more


class Selection:
    """Selects the rows of a table that have one of some texts in a column.

    Args:
        table: The table.
        column: A column of texts.
        texts: The texts; more than `MOST_TEXTS` are left to the engine.
        also: Another column of texts.
        integers: Columns of integers or instants; `rows` needs one.
        read: The texts whose rows' integers are read; by default all of them. Other rows are counted.
        after: In a row group that may have a greater value in the first column of integers, all rows are read.
    """

    def __init__(
        self,
        table: str,
        column: str,
        texts: Collection[str],
        also: str = "",
        integers: Sequence[str] = (),
        *,
        read: Collection[str] | None = None,
        after: int = 0,
    ) -> None:
        self._columns = ALL_COLUMNS[table]
        self._key, self._also, self._integers = column, also, integers
        self._texts = frozenset(texts)
        self._read, self._after = self._texts if read is None else frozenset(read), after

    def rows(self, path: str) -> Selected | None:
        """Returns the rows of a file that have one of the texts; None if an engine must read them."""
        found = _groups(path, self._columns, self._rows) if len(self._texts) <= MOST_TEXTS else None
        if found is None:
            return None
        merged = Selected()
        for rows in found:
            merged.add(rows)
        return merged

    def _rows(self, group: RowGroup) -> Selected:
        """Returns the rows of a row group."""
        key, found = group.chunk(self._key), Selected()
        # a row whose text is not in the dictionary could be theirs: this raises
        texts = key.texts()
        flags = bytearray(map(self._texts.__contains__, texts))
        if not any(flags):
            return found
        highest = group.highest(self._integers[0])
        read = self._texts if highest is None or highest > self._after else self._read
        flags = bytearray(_READ if flag and text in read else flag for flag, text in zip(flags, texts, strict=True))
        buffers = Buffers()
        marks = key.marks(flags, buffers, bytearray(key.entries))
        kinds = sorted({_COUNTED, _READ}.intersection(flags))
        alone = (marks if kinds == [_COUNTED] else marks.translate(_ALONE[mark]) for mark in kinds)
        ranges = [RowRanges(each, 1) for each in alone]
        if sum(asked.rows for asked in ranges) > _MOST_FOUND:
            raise Unsupported
        for mark, asked in zip(kinds, ranges, strict=True):
            if not asked.count:
                continue
            told = [selected_values(key, texts, buffers, asked)]
            if self._also:
                told.append(selected_texts(group.chunk(self._also), buffers, asked))
            names = self._integers if mark == _READ else ()
            values = [selected_integers(group.chunk(name), buffers, asked) for name in names]
            if any(len(column) != asked.rows for column in (*told, *values)):
                raise Unsupported  # some values are missing
            at = 0
            # somebody's rows mostly stand together, so lists grow by runs
            for one, run in groupby(zip(*told, strict=True)):
                size = sum(1 for _ in run)
                if mark == _READ:
                    found.add(Selected(read={one: tuple(column[at : at + size] for column in values)}))
                else:
                    found.add(Selected(counted={one: size}))
                at += size
        return found


def texts_of_rows(path: str, table: str, column: str, texts: Collection[str]) -> frozenset[str] | None:
    """Returns those of some texts that rows of a file have in a column; None if an engine must find them."""
    if len(texts) > MOST_TEXTS:
        return None
    encoded = [text.encode() for text in texts]

    def read(group: RowGroup) -> set[str]:
        if not group.may_have(column, encoded):
            return set()
        key = group.chunk(column)
        stored = key.texts()
        flags = bytearray(map(texts.__contains__, stored))
        if not any(flags):
            return set()
        # an entry of a dictionary need not be in a row
        used = bytearray(key.entries)
        key.marks(flags, Buffers(), used)
        return {text for text, flag, had in zip(stored, flags, used, strict=True) if flag and had}

    found = _groups(path, ALL_COLUMNS[table], read)
    return None if found is None else frozenset().union(*found)


def dictionary_texts(path: str, table: str, column: str) -> list[list[str]] | None:
    """Returns all texts that rows of a file can have in a column, by row group; None if an engine must read them."""
    return _groups(path, ALL_COLUMNS[table], lambda group: group.chunk(column).texts())


def _groups(path: str, columns: Sequence[Column], read: Callable[[RowGroup], _Found]) -> list[_Found] | None:
    """Returns what a function finds in each row group of a file; None if an engine must read it."""
    if library() is None or s3.is_remote(path):
        return None
    try:
        with open(path, "rb") as file:
            source = StoredBytes(file)  # of most files only the footer and a few chunks are read
            if len(source) > MOST_BYTES:
                return None
            return list(map(read, row_groups(source, read_footer(source), columns)))
    except (OSError, *DAMAGED):
        return None
