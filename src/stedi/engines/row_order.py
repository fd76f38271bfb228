"""Checks from the order of rows whether readings are distinct: in sorted rows, equal rows are neighbours.

A build writes each customer's readings together, in the order of time. The ranges of files do not overlap, or (Spark
divides customers by a hash) each customer is in one file. So only the rows of one customer and moment are compared with
each other, also across the boundaries of row groups and files. No row is sorted or hashed. If the rows are in another
order, the result is False, and another check is needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any, NamedTuple

from stedi import _native
from stedi.schema.tables import DataFile
from stedi.storage import s3

_MOST = 16
"""The largest number of rows of one customer and moment; if there are more, another check is needed."""
_CUSTOMERS = 2_000_000
"""The most customers that are compared across files whose ranges overlap."""


class _Ends(NamedTuple):
    """The first and the last customer and moment of a row group, and their rows."""

    first: tuple[str, int]
    last: tuple[str, int]
    opening: frozenset[tuple[Any, ...]]
    closing: frozenset[tuple[Any, ...]]
    whole: bool
    """Whether the row group has only one customer and moment."""


def distinct(files: Iterable[DataFile]) -> bool:
    """Returns whether the order of rows shows that all are distinct; False means that it is unknown.

    Args:
        files: The files of a table of readings. The first column holds customers, the second one moments.
    """
    paths = [file.path for file in files]
    if any(map(s3.is_remote, paths)):
        return False
    # if rows were sorted only in parts, the first file already shows that they are not in order
    first = _ends(paths[0]) if paths else None
    if first is None:
        return not paths
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = [first, *pool.map(_ends, paths[1:])]
    _native.release_memory()
    if None in found:
        return False
    ends = [of_file for of_file in found if of_file]
    return _apart([end for of_file in ends for end in of_file]) or (all(map(_apart, ends)) and _disjoint(paths))


def _apart(ends: Iterable[_Ends]) -> bool:
    """Returns whether row groups, put in order, do not overlap and no row is in two of them."""
    for before, after in pairwise(sorted(ends)):
        if before.last > after.first:
            return False
        # a run that fills a row group may go on in the one after the next, whose rows are not compared with it
        if before.last == after.first and (before.whole or after.whole or before.closing & after.opening):
            return False
    return True


def _disjoint(paths: Sequence[str]) -> bool:
    """Returns whether no customer is in two files; false if there are too many customers to tell."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    customers: list[pa.Array] = []
    for path in paths:
        with pq.ParquetFile(path, memory_map=True) as file:
            name = file.schema_arrow.names[0]
        with pq.ParquetFile(path, memory_map=True, read_dictionary=[name]) as file:
            # a dictionary can also have texts that no row has: then two files seem to share a customer
            texts = [chunk.dictionary for chunk in file.read([name], use_threads=False).column(0).chunks]
        customers.append(pc.unique(pa.chunked_array(texts)))
        if sum(map(len, customers)) > _CUSTOMERS:
            return False
    return bool(pc.count_distinct(pa.chunked_array(customers)).as_py() == sum(map(len, customers)))


def _ends(path: str) -> list[_Ends] | None:
    """Returns the ends of a file's row groups; None if the rows of one are not in order, or two are equal."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pq.ParquetFile(path, memory_map=True) as file:
        texts = [field.name for field in file.schema_arrow if pa.types.is_string(field.type)]
    found = []
    # texts are compared by their dictionary indices; a large table's file has too many rows to read at once
    with pq.ParquetFile(path, memory_map=True, read_dictionary=texts) as file:
        for group in range(file.num_row_groups):
            ends = _ends_of(file.read_row_group(group, use_threads=False).unify_dictionaries())
            if ends is None:
                return None
            found.append(ends)
    return found or None


def _ends_of(table: Any) -> _Ends | None:
    """Returns the ends of a row group; None if its rows are not in order, or two are equal."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not len(table) or any(column.null_count for column in table.columns):
        return None
    read = [column.combine_chunks() for column in table.columns]
    columns = [column.indices if pa.types.is_dictionary(column.type) else column for column in read]
    customers, moments, *rest = columns
    # the dictionary may be in any order, so customers are compared by the rank of their texts
    customers = pc.rank(read[0].dictionary, tiebreaker="dense").cast(pa.int32()).take(customers)

    def apart(column: Any, by: int) -> tuple[Any, Any]:
        return column.slice(0, len(column) - by), column.slice(by)

    same = pc.equal(*apart(customers, 1))
    rising = pc.or_(pc.less(*apart(customers, 1)), pc.and_(same, pc.less_equal(*apart(moments, 1))))
    # for a single row there are no pairs: `min_count=0` makes this true, and not null
    if not pc.all(rising, min_count=0).as_py():
        return None
    for by in range(1, _MOST + 1):
        equal = pc.and_(pc.equal(*apart(customers, by)), pc.equal(*apart(moments, by)))
        if not pc.any(equal, min_count=0).as_py():
            break
        for column in rest:
            equal = pc.and_(equal, pc.equal(*apart(column, by)))
        if pc.any(equal).as_py():
            return None
    else:
        return None
    opening, closing = (_run(read, range(len(table))[::step]) for step in (1, -1))
    first, last = (tuple(next(iter(rows))[:2]) for rows in (opening, closing))
    return _Ends(first, last, frozenset(opening), frozenset(closing), len(opening) == len(table))


def _run(columns: list[Any], places: range) -> list[tuple[Any, ...]]:
    """Returns the rows at the start of `places` that have the same customer and moment."""
    rows: list[tuple[Any, ...]] = []
    for place in places:
        row = tuple(column[place].as_py() for column in columns)
        if rows and row[:2] != rows[0][:2]:
            break
        rows.append(row)
    return rows
