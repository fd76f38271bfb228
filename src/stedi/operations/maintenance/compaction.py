"""Compaction plan: which small files of a table to rewrite, and into which larger ones."""

from __future__ import annotations

from collections.abc import Iterable

from stedi._frozen import dataclass
from stedi.engines.table_files import file_rows
from stedi.schema.tables import DataFile

_SMALL = 0.5
"""A file is small below this share of the target size, and of the rows that a file has at most."""
_WORTH = 4
"""A small file is rewritten together with smaller ones that amount to at least the fourth part of it: otherwise each
night would rewrite the table, and keep what it replaces, for the sake of a few rows."""
MANIFESTS = 10
"""Manifests that a table may have before they are merged for their own sake."""


@dataclass(frozen=True, slots=True)
class Compaction:
    """The work that makes a table fast to read again.

    Attributes:
        groups: Groups of small files, each to be merged into one file.
        manifests: Manifests to merge into one; 0 if there is nothing to do.
    """

    groups: tuple[tuple[DataFile, ...], ...]
    manifests: int

    @property
    def leaving(self) -> list[DataFile]:
        """The files that will be gone."""
        return [file for group in self.groups for file in group]


def due(files: Iterable[DataFile], manifests: int, target: int) -> Compaction:
    """Returns the work for a table of these files.

    Args:
        files: Its data files.
        manifests: Its manifests.
        target: The wanted size of files, in bytes.
    """
    groups = grouped(files, target)
    return Compaction(groups, manifests if groups or manifests > MANIFESTS else 0)


def grouped(files: Iterable[DataFile], target: int) -> tuple[tuple[DataFile, ...], ...]:
    """Returns the small files that are worth rewriting, in groups that make about one file of the target size each."""
    files = tuple(files)
    most = file_rows(sum(file.rows for file in files))
    small = [file for file in files if file.bytes < _SMALL * target and file.rows < _SMALL * most]
    small.sort(key=lambda file: file.bytes)
    total, worth = 0, 0
    # from the smallest on: the last file that is no larger than `_WORTH` times all before it ends what is rewritten
    for number, file in enumerate(small, start=1):
        if file.bytes <= _WORTH * total:
            worth = number
        total += file.bytes
    groups: list[list[DataFile]] = []
    size = rows = 0
    for file in sorted(small[:worth], key=lambda file: file.path):  # which is the order in which they were written
        if not groups or size + file.bytes > target or rows + file.rows > most:
            groups.append([])
            size = rows = 0
        groups[-1].append(file)
        size, rows = size + file.bytes, rows + file.rows
    return tuple(tuple(group) for group in groups if len(group) > 1)
