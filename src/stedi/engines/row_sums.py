"""Sums of hashes of rows by group, with `row_sums.c`: columns of Parquet files -> one row of sums per group.

An engine would join every row with its group, hash it, and group the rows by their hash to find distinct ones. Here a
row group's columns are read by Arrow, groups are found once for each text of its dictionary, and only sums are stored.
What does not fit into memory is read several times, some groups at a time.

Whatever cannot be read here is left to the engine (`Otherwise`): files in a bucket, columns with nulls or of other
types, damaged pages, rows that the engine counts otherwise, and more texts than memory has room for.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from ctypes import Array, Structure, addressof, c_int32, c_int64, c_uint8, c_uint32, c_uint64, c_void_p
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stedi import _native
from stedi.schema.tables import DataFile
from stedi.storage import s3

if TYPE_CHECKING:
    import pyarrow as pa

TEXT = 400
"""Bytes per text that names a group, with the sums of the group."""
ROW = 11
"""Bytes per distinct row."""
STEP = 34
"""Bytes per row of the smaller side of a join."""
_NONE = (1 << 32) - 1
"""The group of rows that are skipped."""
_COLUMNS = 8
_TEXTS = "dictionary<values=string, indices=int32, ordered=0>"
_LANDED, _PUBLISHED = "int64", "timestamp[us, tz=UTC]"
"""The types of moments in landing, epoch milliseconds, and below."""
_NEVER, _ALWAYS = (1 << 63) - 1, -(1 << 63)

Sum = tuple[int, int, int, int | None, int | None]
"""The rows of a group, those that are in time, those that are counted, and the two sums of their hashes, if any."""


class Otherwise(Exception):
    """The rows cannot be summed here; the engine has to do it."""


class Group(NamedTuple):
    """A group of rows.

    Attributes:
        number: Its number, at least 0.
        since: Epoch milliseconds; only rows from then on are counted. None if no row is.
        rows: The number of its rows, as the engine counts them.
    """

    number: int
    since: int | None
    rows: int


class Rows(NamedTuple):
    """Some rows: the number of each one's key, the keys, and columns of 64-bit values, the moment first."""

    codes: Any
    keys: list[Any]
    columns: list[Any]


class _Sums(Structure):
    _fields_ = (
        ("rows", c_uint64),
        ("timely", c_uint64),
        ("counted", c_uint64),
        ("one", c_uint64 * 2),
        ("other", c_uint64 * 2),
    )


class _Side(Structure):
    _fields_ = (
        *((name, c_int64) for name in ("room", "rows")),
        ("key", c_uint64),
        *((name, c_void_p) for name in ("slots", "next", "first", "moment", "value", "joined")),
    )


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    pointer, number, sums = c_void_p, c_int64, [c_void_p] * 3
    return _native.library(
        Path(__file__).with_suffix(".c"),
        {
            "stedi_hash": [None, pointer, pointer, c_int32, number, *sums],
            "stedi_pair": [None, pointer, pointer, number, number, pointer],
            "stedi_add": [None, pointer, pointer, number, *sums],
            "stedi_add_distinct": [number, pointer, pointer, number, *[pointer] * 7],
            "stedi_put": [number, pointer, pointer, pointer, number, *sums],
            "stedi_join": [None, pointer, pointer, pointer, number, *sums, c_int32, pointer, pointer],
        },
    )


@cache
def _keys() -> bytes:
    """Returns the random numbers of this process's hashes; sums are comparable only within a process."""
    return os.urandom(8 * 4 * (_COLUMNS + 1))


def read(files: Iterable[DataFile], by: Sequence[str], columns: Sequence[str]) -> Iterator[Rows]:
    """Yields the rows of files, one row group at a time; the next one is being read meanwhile.

    Args:
        files: Parquet files.
        by: One or two text columns, whose values are the rows' keys: texts, or pairs of them.
        columns: Columns of integers, doubles or timestamps in microseconds.

    Raises:
        Otherwise: A file is in a bucket, cannot be read, or has a null, another type or a wrong index in these columns.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [file.path for file in files]
    if any(map(s3.is_remote, paths)):
        raise Otherwise

    def tables() -> Iterator[pa.Table]:
        for path in paths:
            with pq.ParquetFile(path, memory_map=True, read_dictionary=list(by)) as file:
                for number in range(file.num_row_groups):
                    table = file.read_row_group(number, columns=[*by, *columns], use_threads=False)
                    # Arrow has not checked that a page's indices are in the dictionary, and uses them to unify some
                    table.validate(full=True)
                    yield table

    try:
        from concurrent.futures import ThreadPoolExecutor  # with `logging`, it takes longer to import than a question

        with ThreadPoolExecutor(1) as pool:
            rest = tables()
            coming = pool.submit(next, rest, None)
            while (table := coming.result()) is not None:
                coming = pool.submit(next, rest, None)
                if len(table):
                    yield _rows(table.unify_dictionaries(), by, columns)
    except (OSError, pa.ArrowException, KeyError, UnicodeDecodeError) as error:
        raise Otherwise from error


def from_batches(batches: Iterable[pa.RecordBatch]) -> Iterator[Rows]:
    """Yields rows whose keys are numbers: the first column of the batches. The others are as `read` has them."""
    import pyarrow as pa

    for batch in batches:
        key, *columns = (pa.concat_arrays([column]) for column in batch.columns)
        if any(column.null_count for column in (key, *columns)):
            raise Otherwise
        coded = key.dictionary_encode()
        yield Rows(coded.indices, coded.dictionary.to_pylist(), columns)


def sizes(rows: Iterable[Rows]) -> dict[Any, int]:
    """Returns the number of rows of each key."""
    found = Counter[Any]()
    for some in rows:
        for counted in some.codes.value_counts().to_pylist():
            found[some.keys[counted["values"]]] += counted["counts"]
    return dict(found)


def by_key(rows: Iterable[Rows], budget: int) -> Iterator[tuple[Any, Sum]]:
    """Yields the sums of all rows of each key.

    Args:
        rows: Rows of a table below landing.
        budget: How many bytes may be used.
    """
    known: dict[Any, int] = {}
    most = budget // TEXT
    sums = (_Sums * most)()
    for some in rows:
        groups = [known.setdefault(key, len(known)) for key in some.keys]
        if len(known) > most:
            raise Otherwise
        codes = _pointers(some.codes, size=4)
        library().stedi_add(*codes, _array(c_uint32, groups), len(some.codes), *_hashed(some, _PUBLISHED), sums)
    yield from ((key, _sum(sums[group])) for key, group in known.items() if sums[group].rows)


def of_distinct(
    read_rows: Callable[[], Iterable[Rows]], groups: Mapping[Any, Group], budget: int
) -> Iterator[tuple[int, Sum]]:
    """Yields the sums of the distinct rows of each group.

    Args:
        read_rows: Returns rows of a landing table; it is called again if not all groups fit into memory at once.
        groups: The group of each key; rows with other keys are skipped.
        budget: How many bytes may be used.
    """
    parts, rows = _parts(groups.values(), budget, ROW)
    sums = (_Sums * len(rows))()
    for part in range(parts):
        slots = _slots(rows, part, parts)
        seen = (c_uint64 * slots[-1])()
        for some in read_rows():
            found = [groups.get(key) for key in some.keys]
            since = [_NEVER if group is None or group.since is None else group.since for group in found]
            full = library().stedi_add_distinct(
                *_pointers(some.codes, size=4), _numbers(found, part, parts), len(some.codes), *_hashed(some, _LANDED),
                *_pointers(some.columns[0]), _array(c_int64, since), seen, slots, sums,
            )  # fmt: skip
            if full:
                raise Otherwise
        # or the next part's table would be made while this one is still there
        del seen
    yield from _complete(sums, rows)


def of_join(
    steps: Callable[[], Iterable[Rows]],
    motions: Callable[[], Iterable[Rows]],
    groups: tuple[Mapping[Any, Group], Mapping[Any, Group]],
    budget: int,
) -> Iterator[tuple[int, Sum]]:
    """Yields for each group the sums of its steps joined with its motions of the same moment.

    A joined row has the moment and the value of a step, then the values of a motion. Each group's rows are its steps;
    those that are in time have a motion; those that are counted are the joined rows.

    Args:
        steps: Returns rows of a moment in microseconds and a value.
        motions: Returns rows of a moment in microseconds and other values.
        groups: The group of each key of the steps, and of each key of the motions; other rows are skipped.
        budget: How many bytes may be used.
    """
    of_steps, of_motions = groups
    parts, rows = _parts(of_steps.values(), budget - len(of_motions) * TEXT, STEP)
    # a motion's group can have a number beyond all groups of steps; C indexes the sums with it
    rows += [0] * (1 + max((group.number for group in of_motions.values()), default=0) - len(rows))
    sums = (_Sums * len(rows))()
    for part in range(parts):
        slots, room = _slots(rows, part, parts), sum(rows[part::parts])
        kept: dict[str, Any] = {
            "slots": slots,
            "first": (c_uint32 * slots[-1])(),
            "next": (c_uint32 * room)(),
            **{name: (c_int64 * room)() for name in ("moment", "value")},
            "joined": (c_uint8 * room)(),
        }
        addresses = {name: addressof(array) for name, array in kept.items()}
        side = _Side(room=room, key=int.from_bytes(os.urandom(8)), **addresses)
        for some in steps():
            numbers = _numbers(map(of_steps.get, some.keys), part, parts)
            full = library().stedi_put(
                addressof(side), *_pointers(some.codes, size=4), numbers, len(some.codes), *_pointers(*some.columns),
                sums,
            )  # fmt: skip
            if full:
                raise Otherwise
        for some in motions():
            moment, *columns = some.columns
            library().stedi_join(
                addressof(side), *_pointers(some.codes, size=4), _numbers(map(of_motions.get, some.keys), part, parts),
                len(some.codes), *_pointers(moment), _array(c_void_p, _pointers(*columns)),
                _array(c_int64, _scales(columns, _COLUMNS - 2)), len(columns), _keys(), sums,
            )  # fmt: skip
    yield from _complete(sums, rows)


def _complete(sums: Array[_Sums], rows: Sequence[int]) -> Iterator[tuple[int, Sum]]:
    """Yields the sums of groups, if Arrow has found as many rows of each as the engine has."""
    # two readers of the same files: a row that only one of them sees is damage that neither reports
    if any(found.rows != count for found, count in zip(sums, rows, strict=True)):
        raise Otherwise
    yield from ((number, _sum(found)) for number, found in enumerate(sums) if found.rows)


def _parts(groups: Collection[Group], budget: int, row: int) -> tuple[int, list[int]]:
    """Returns into how many parts groups must be divided by their numbers, and the number of rows of each group."""
    room = budget - len(groups) * TEXT
    # so many texts that the sums alone fill the memory: dividing the rows would not help
    if room <= budget // 4:
        raise Otherwise
    rows = [0] * (1 + max((group.number for group in groups), default=0))
    for group in groups:
        rows[group.number] += group.rows
    parts = 1 + sum(rows) * row // room
    # groups are divided by their numbers, so one large group can spoil the division
    if max(sum(rows[part::parts]) for part in range(parts)) * row > 2 * room:
        raise Otherwise
    return parts, rows


def _slots(rows: Sequence[int], part: int, parts: int) -> Any:
    """Returns the first slot of each group in a hash table for the groups of one part; the last number is its size."""
    # at most three quarters full, and never quite: a search ends at a free slot
    sizes = (2 + count * 4 // 3 if count and number % parts == part else 0 for number, count in enumerate(rows))
    return _array(c_uint64, [0, *accumulate(sizes)])


def _numbers(groups: Iterable[Group | None], part: int, parts: int) -> Any:
    """Returns the number of each group; groups of other parts are skipped."""
    return _array(
        c_uint32, [_NONE if group is None or group.number % parts != part else group.number for group in groups]
    )


def _rows(table: pa.Table, by: Sequence[str], columns: Sequence[str]) -> Rows:
    import pyarrow as pa

    arrays = [table.column(name).combine_chunks() for name in (*by, *columns)]
    keys, values = arrays[: len(by)], arrays[len(by) :]
    if any(array.null_count for array in arrays) or not all(str(key.type) == _TEXTS for key in keys):
        raise Otherwise
    first = keys[0]
    if len(keys) == 1:
        return Rows(first.indices, first.dictionary.to_pylist(), values)
    second = keys[1]
    width, pairs = len(second.dictionary), pa.allocate_buffer(8 * len(table))
    library().stedi_pair(*_pointers(first.indices, second.indices, size=4), len(table), width, pairs.address)
    coded = pa.Array.from_buffers(pa.int64(), len(table), [None, pairs]).dictionary_encode()
    one, other = first.dictionary.to_pylist(), second.dictionary.to_pylist()
    return Rows(coded.indices, [(one[p // width], other[p % width]) for p in coded.dictionary.to_pylist()], values)


def _hashed(some: Rows, moment: str) -> tuple[Array[c_uint64], Array[c_uint64]]:
    """Returns two hashes of each row, whose moment has this type; one in milliseconds counts as microseconds."""
    count, scales = len(some.codes), _scales(some.columns)
    if str(some.columns[0].type) != moment:
        raise Otherwise
    # a reading has the same hash in landing and below, or the sums could not be compared
    scales[0] = 1000 if moment == _LANDED else 1
    one, other = (c_uint64 * count)(), (c_uint64 * count)()
    columns = _array(c_void_p, _pointers(*some.columns))
    library().stedi_hash(columns, _array(c_int64, scales), len(scales), count, _keys(), one, other)
    return one, other


def _scales(columns: Sequence[Any], most: int = _COLUMNS) -> list[int]:
    """Returns 0 for each column of doubles, and 1 for columns of integers; there may be `most` of them."""
    kinds = [str(column.type) for column in columns]
    if len(kinds) > most or not all(kind in _SCALES for kind in kinds):
        raise Otherwise
    return [_SCALES[kind] for kind in kinds]


_SCALES = {_LANDED: 1, _PUBLISHED: 1, "double": 0}


def _pointers(*columns: Any, size: int = 8) -> list[int]:
    """Returns the address of each column's first value, all of so many bytes."""
    import pyarrow as pa

    if not all(pa.types.is_primitive(column.type) and column.type.bit_width == 8 * size for column in columns):
        raise Otherwise
    return [column.buffers()[1].address + size * column.offset for column in columns]


def _array(kind: Any, values: Sequence[int]) -> Any:
    return (kind * len(values))(*values)


def _sum(found: _Sums) -> Sum:
    one, other = (low + (high << 64) if found.counted else None for low, high in (found.one, found.other))
    return found.rows, found.timely, found.counted, one, other
