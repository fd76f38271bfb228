"""Counts and sums of distinct rows per group, with `row_sums.c`: batches of groups and hashes -> one row per group.

An engine would first group all rows by their hash. That takes three times as long, since nearly every row is then a
group of its own.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from ctypes import c_int64, c_uint64, c_void_p
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi import _native
from stedi.errors import LakeError

if TYPE_CHECKING:
    import pyarrow as pa

ROW = 24
"""Bytes per row, without the memory that the rows of one group need while they are summed."""
GROUP = 64
"""Bytes per group number, whether the group has rows or not."""


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    found = _native.library(Path(__file__).with_suffix(".c"))
    if found is None:
        return None
    found.stedi_keep.restype = found.stedi_sum.restype = c_int64
    found.stedi_keep.argtypes = [*[c_void_p] * 4, *[c_int64] * 4, *[c_void_p] * 4]
    found.stedi_sum.argtypes = [*[c_void_p] * 3, *[c_int64] * 2, c_uint64, c_void_p]
    return found


def distinct(batches: Iterable[pa.RecordBatch], *, rows: int, groups: int) -> Iterator[tuple[int | None, ...]]:
    """Yields for each group its number, rows, rows with hashes, distinct rows, and the two sums of hashes, if any.

    Args:
        batches: For each row a group number and two 64-bit hashes; both are null if the row is only counted.
        rows: The largest possible number of rows.
        groups: The upper limit of group numbers; every number is lower.
    """
    import pyarrow as pa

    buffers = [pa.allocate_buffer(size * rows) for size in (4, 8, 8)]
    columns = [buffer.address for buffer in buffers]
    landed, sums, at, seen = (c_int64 * groups)(), (c_uint64 * (6 * groups))(), 0, 0
    for batch in batches:
        seen += len(batch)
        if seen > rows:
            raise LakeError(f"the engine expected at most {rows:,} rows, found more; nothing was published")
        group, one, other = batch.columns
        bits = one.buffers()[0] if one.null_count else None
        at = library().stedi_keep(
            *(column.buffers()[1].address + 8 * column.offset for column in (group, one, other)),
            bits.address if bits else None, one.offset, len(batch), groups, at, *columns, landed,
        )  # fmt: skip
        if at < 0:
            raise LakeError(f"the engine expected numbers below {groups:,}, found another; nothing was published")
    odd = int.from_bytes(os.urandom(8)) | 1
    if library().stedi_sum(*columns, at, groups, odd, sums) < 0:
        raise LakeError("the engine needs more memory than there is; nothing was published")
    del buffers
    for number in range(groups):
        if landed[number]:
            kept, different, low, high, other_low, other_high = sums[6 * number : 6 * number + 6]
            one_sum, other_sum = (low + (high << 64), other_low + (other_high << 64)) if kept else (None, None)
            yield number, landed[number], kept, different, one_sum, other_sum
