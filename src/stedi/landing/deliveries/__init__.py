"""Deliveries: the files that a call names, in folders (`local`) and in buckets (`remote`), without leaving these."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

_MOST = 4096
"""Files that one commit holds."""


def batches(files: Iterable[T], size: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """Yields files in groups that bound what a failure can cost and what a commit must hold.

    Args:
        files: The files.
        size: Gives a file's size in bytes.
        most: Bytes with which a group ends.
    """
    batch: list[T] = []
    total = 0
    for file in files:
        batch.append(file)
        total += size(file)
        if total >= most or len(batch) >= _MOST:
            yield batch
            batch, total = [], 0
    if batch:
        yield batch
