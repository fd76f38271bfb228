"""Runs a SELECT of distinct readings, ordered by person and time, with `distinct.c`.

A SELECT of this form -> the rows of its inner SELECT, divided by person into buckets in an unlinked file -> each
bucket sorted, duplicates removed, person numbers replaced by pseudonyms -> Parquet files. An engine would hash all rows
and then sort all rows, which takes twice as long and is slow if the rows do not fit in memory. The engine itself runs
every other SELECT, including those with columns that are neither 64-bit values nor texts.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from ctypes import c_int32, c_int64, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi import _native
from stedi._frozen import dataclass
from stedi.engines import arrow_files
from stedi.errors import LakeError
from stedi.schema.tables import ALL_COLUMNS, Column, DataFile, tokens

if TYPE_CHECKING:
    import pyarrow as pa

# the tokens of the two tables' SQL; a test fails if a change of that SQL no longer matches
_FORM = re.compile(
    r"select w \. customer_id , instant \( (?P<r>\w+) \. (?P<moment>\w+) \) as \"?(?P<name>\w+)\"? , "
    r"(?P<others>[^()]+) from \( select distinct (?P<rows>.+) order by (?P<order>[^()]+) \) as (?P=r) "
    r"inner join \( select distinct person , customer_id from (?P<people>\w+) \) as w on (?P=r) \. person = w \. person"
)
_OTHERWISE = {"union", "except", "intersect", "order", "limit", "offset"}
"""Keywords that show that the text after `distinct` is more than one plain SELECT."""
_CHUNK = 1 << 16
"""Bytes of a bucket that are kept in memory until they are written."""
_BUCKETS = 1 << 9
"""The most buckets that are asked for; up to twice as many are made, whose chunks take 64 MB together."""
_MOST = 4_000_000
"""The most rows of a bucket, since a bucket is sorted in memory; if one has more, the engine runs the SELECT."""


@dataclass(frozen=True, slots=True)
class Readings:
    """The parts of a SELECT of distinct, ordered readings.

    Attributes:
        rows: A SELECT of a person, a time in epoch milliseconds and other columns; its rows may contain duplicates.
        columns: The names of the time column and of the other columns.
        people: A relation of `person` and `customer_id`.
    """

    rows: str
    columns: tuple[str, ...]
    people: str


def readings(table: str, sql: str) -> Readings | None:
    """Returns the parts of a SELECT of a table, or None if it does not have the supported form."""
    found = _FORM.fullmatch(" ".join(token.group() for token in tokens(sql)))
    if found is None:
        return None
    depth = 0
    for word in found["rows"].split(" "):
        depth += (word == "(") - (word == ")")
        # `distinct` is of the first SELECT of a union alone, and `limit` cuts what is distinct: these are other rows
        if depth < 0 or (depth == 0 and word.lower() in _OTHERWISE):
            return None
    alias, *others = zip(*(text.split(" . ") for text in found["others"].split(" , ")), strict=True)
    columns = (found["moment"], *(name for names in others for name in names))
    order = [text.split(" ")[-1] for text in found["order"].split(" , ")]
    given = [column.name for column in ALL_COLUMNS[table]]
    if depth or {*alias} != {found["r"]} or order != ["person", columns[0]]:
        return None
    if ["customer_id", found["name"], *columns[1:]] != given:
        return None
    return Readings(f"select {found['rows']}", columns, found["people"])


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    pointer, number = c_void_p, c_int64
    return _native.library(
        Path(__file__).with_suffix(".c"),
        {
            "stedi_divide": [
                *(number, pointer, c_int32, number, number, c_int32, number, number, pointer, pointer, pointer)
            ],
            "stedi_distinct": [number, pointer, number, c_int32, number, number],
        },
    )


def write(
    table: str,
    batches: Iterator[pa.RecordBatch],
    ids: pa.Array,
    folder: Path,
    scratch: Path,
    *,
    rows: int,
    file_rows: int,
    threads: int,
) -> tuple[DataFile, ...] | None:
    """Writes distinct readings in order as the table's Parquet files; returns None if it cannot process the rows.

    Args:
        table: The table.
        batches: Person numbers, times in epoch milliseconds and the table's other columns.
        ids: The pseudonym at the index of each person number; an empty text for unused numbers.
        folder: A new folder for the files.
        scratch: A folder for temporary files.
        rows: About how many rows there are.
        file_rows: The most rows of a file.
        threads: How many buckets are sorted at once.
    """
    import pyarrow.parquet  # noqa: F401 # imported in this thread, where an interrupt reaches it

    columns = ALL_COLUMNS[table]
    with _Buckets(columns, len(ids), max(1, min(_BUCKETS, rows // (2 * file_rows))), scratch) as buckets:
        if not _divided(batches, buckets) or buckets.largest > _MOST:
            return None
        # only now: the engine, which writes the rows otherwise, makes the folder itself
        folder.mkdir(mode=0o700)
        pool = ThreadPoolExecutor(threads)
        try:
            made = pool.map(
                lambda bucket: _write(columns, buckets.sorted(bucket, ids), folder / f"{bucket:04}", file_rows),
                buckets.filled(),
            )
            return tuple(file for files in made for file in files)
        finally:
            # after a failure the other buckets are not begun
            pool.shutdown(cancel_futures=True)
            _native.release_memory()


def _divided(batches: Iterable[pa.RecordBatch], buckets: _Buckets) -> bool:
    """Adds rows, each batch while the next one is being read; returns False if one cannot be processed here."""
    # a single thread: a bucket's rows are added by one at a time
    with ThreadPoolExecutor(1) as pool:
        added: Future[bool] | None = None
        for batch in batches:
            if added and not added.result():
                return False
            added = pool.submit(buckets.add, batch)
        return added is None or added.result()


def _write(columns: Sequence[Column], table: pa.Table, name: Path, file_rows: int) -> list[DataFile]:
    files = []
    count = -(-table.num_rows // file_rows)
    for part in range(count):
        # files of about equal size: a last one of a few rows would be rewritten and opened like any other
        start, end = (table.num_rows * place // count for place in (part, part + 1))
        some = table.slice(start, end - start)
        # else each file would name all people of the bucket, and an erasure would find traces of somebody without a row
        # there
        arrays = [_compact_dictionary(column.chunk(0)) for column in some.columns]
        path = name.with_name(f"{name.name}-{part}.parquet")
        with arrow_files.Writer(path, columns, [array.type for array in arrays]) as file:
            file.write(arrays)
        files.append(file.data_file())
    return files


def _compact_dictionary(array: Any) -> Any:
    """Returns an array whose dictionary, if it has one, contains only values that the array uses."""
    if not hasattr(array, "dictionary"):
        return array
    own = array.indices.dictionary_encode()
    return type(array).from_arrays(own.indices, array.dictionary.take(own.dictionary))


class _Buckets:
    """Rows divided into buckets by person, in an unlinked file.

    Args:
        columns: The table's columns.
        persons: A number greater than every person number.
        count: How many buckets to make, or up to twice as many.
        scratch: The folder for the file.

    Attributes:
        count: How many buckets there are.
        persons: How many persons a bucket may have.
        largest: The number of rows of the largest bucket.
    """

    def __init__(self, columns: Sequence[Column], persons: int, count: int, scratch: Path) -> None:
        import pyarrow as pa

        self._pa, self._columns = pa, columns
        self._width = len(columns)
        # rounded down: a bucket has no more persons than its share, so no more rows than its memory is meant for
        self._shift = max(0, (persons // count).bit_length() - 1)
        self.persons = 1 << self._shift
        self.count = (max(1, persons) - 1 >> self._shift) + 1
        self._room = _CHUNK // (8 * self._width)
        self._cells = pa.allocate_buffer(8 * self.count * self._room * self._width)
        self._counts = (c_int64 * self.count)()
        self._chunks: list[list[int]] = [[] for _ in range(self.count)]
        self._written = 0
        self._texts: dict[int, dict[str, int]] = {
            place: {} for place, column in enumerate(columns) if place and column.type == "string"
        }
        self._path = scratch / f"sort-{os.urandom(8).hex()}"

    def __enter__(self) -> _Buckets:
        self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        self._path.unlink()  # unlinked, so it disappears when the process ends
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def largest(self) -> int:
        return max(map(self._rows, range(self.count)))

    def filled(self) -> list[int]:
        """Returns the buckets that have rows, in the order of their person numbers."""
        return [bucket for bucket in range(self.count) if self._rows(bucket)]

    def add(self, batch: pa.RecordBatch) -> bool:
        """Adds rows; returns False if a column has values that cannot be processed here."""
        values = [self._values(place, column) for place, column in enumerate(batch.columns)]
        if any(column is None for column in values):
            return False
        pointers = (c_void_p * self._width)(*(c.buffers()[1].address + 8 * c.offset for c in values))
        full, at = c_int64(), 0
        while True:
            at = library().stedi_divide(
                pointers, self._width, at, len(batch), self._shift, self.count, self._room,
                self._cells.address, self._counts, ctypes.addressof(full),
            )  # fmt: skip
            if at == len(batch):
                return True
            if full.value < 0:
                return False
            self._flush(full.value)

    def sorted(self, bucket: int, ids: pa.Array) -> pa.Table:
        """Returns the distinct rows of a bucket in order, with a pseudonym for each person."""
        pa, rows = self._pa, self._rows(bucket)
        cells = pa.allocate_buffer(8 * rows * self._width)
        view, at = memoryview(cells).cast("B"), 0
        for chunk in self._chunks[bucket]:
            at += os.preadv(self._file, [view[at : at + self._chunk_bytes]], chunk * self._chunk_bytes)
        kept = self._kept(bucket)
        view[at : at + len(kept)] = kept
        # a read can be short without an error
        if at + len(kept) != len(view):
            raise LakeError("the engine cannot read what it wrote beside the lake; nothing was published")
        first = bucket << self._shift
        found = library().stedi_distinct(cells.address, rows, self._width, first, self.persons)
        if found < 0:
            raise LakeError("the engine needs more memory than there is; nothing was published")
        persons = pa.Array.from_buffers(pa.int32(), found, [None, cells])
        arrays = [pa.DictionaryArray.from_arrays(persons, ids.slice(first, self.persons))]
        for place, column in enumerate(self._columns[1:], start=1):
            made = pa.Array.from_buffers(_ARROW[column.type](pa), found, [None, cells], offset=place * rows)
            if column.type == "timestamptz":
                made = made.cast(pa.timestamp("us", "UTC"))
            elif column.type == "string":
                made = pa.DictionaryArray.from_arrays(made.cast(pa.int32()), pa.array(self._texts[place], pa.string()))
            arrays.append(made)
        return pa.Table.from_arrays(arrays, names=[column.name for column in self._columns])

    @property
    def _chunk_bytes(self) -> int:
        return 8 * self._room * self._width

    def _rows(self, bucket: int) -> int:
        return len(self._chunks[bucket]) * self._room + self._counts[bucket]

    def _kept(self, bucket: int) -> memoryview:
        """Returns the rows of a bucket that are still in memory."""
        start = bucket * self._chunk_bytes
        return memoryview(self._cells).cast("B")[start : start + 8 * self._width * self._counts[bucket]]

    def _flush(self, bucket: int) -> None:
        self._chunks[bucket].append(self._written)
        if os.pwrite(self._file, self._kept(bucket), self._written * self._chunk_bytes) != self._chunk_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._written += 1
        self._counts[bucket] = 0

    def _values(self, place: int, column: Any) -> Any:
        """Returns 64-bit values that represent a column's values; None if there are nulls or the type is wrong."""
        pa = self._pa
        if column.null_count:
            return None
        if place in self._texts:
            known, own = self._texts[place], column.dictionary_encode()
            # the order of texts does not matter: rows need a total order only to bring equal ones together
            codes = [known.setdefault(text, len(known)) for text in own.dictionary.to_pylist()]
            return pa.array(codes, pa.int64()).take(own.indices)
        right = pa.float64() if self._columns[place].type == "double" else pa.int64()
        return column if column.type == right else None


_ARROW: dict[str, Callable[[Any], Any]] = {
    "long": lambda pa: pa.int64(),
    "double": lambda pa: pa.float64(),
    "timestamptz": lambda pa: pa.timestamp("ms", "UTC"),
    "string": lambda pa: pa.int64(),
}
"""The Arrow type of a column's values while they are sorted, by the column's type."""
