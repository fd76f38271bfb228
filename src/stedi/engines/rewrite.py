"""Rewrites files of a table with many workers, each of which rewrites a part of them; the caller commits.

A worker runs what `erase` and `maintain` run on one machine: the same SELECT and the same engine. A part may be
rewritten more than once, so each attempt writes into its own folder, and only the files that it returns are used.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, field
from stedi.catalog import checksums
from stedi.engines import LEAVING
from stedi.engines.duckdb import DuckDB, task_session
from stedi.engines.workers import Share, Workers
from stedi.schema.tables import DataFile
from stedi.storage import durable

_PART_BYTES = 256 << 20
"""About how many bytes of files one task rewrites, if there are more than the slots divide: it is what a failure
repeats."""


@dataclass(frozen=True, slots=True)
class InlineRelation:
    """A few rows that a SELECT needs besides the files.

    Attributes:
        columns: Names and DuckDB types.
        rows: The rows; each has a value for each column.
    """

    columns: Mapping[str, str]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, engine: DuckDB, name: str) -> InlineRelation:
        """Returns the relation that a session has under a name; it must be small."""
        columns = {row[0]: row[1] for row in engine.rows(f"describe {name}")}
        return cls(columns, tuple(engine.rows(f"select * from {name}")))


@dataclass(frozen=True, slots=True)
class RewriteTask:
    """Files that one worker rewrites.

    Attributes:
        table: The table of the files.
        files: The files.
        sql: A SELECT over the relation `leaving`, which holds the files' rows, and over `relations`.
        folder: The parent of the new folder that each attempt writes into.
        of: About how many rows the whole table has.
        memory: The memory limit of the worker's engine.
        home: The table's folder, with the checksums of its files.
        relations: The other relations that the SELECT reads, by name.
        scratch: The folder where the worker's engine stores what does not fit in memory; None for the worker's own
            temporary folder, as on another machine.
    """

    table: str
    files: tuple[DataFile, ...]
    sql: str
    folder: Path
    of: int
    memory: str
    home: Path
    relations: Mapping[str, InlineRelation] = field(default_factory=dict)
    scratch: Path | None = None


def rewrite(
    workers: Workers, parts: Sequence[RewriteTask], done: Share = lambda share: None
) -> list[tuple[DataFile, ...]]:
    """Has workers rewrite parts and returns the new files of each part, synced to disk.

    Raises:
        DamagedFile: A file does not match its checksum.
    """
    for folder in {part.folder for part in parts}:
        durable.folder(folder)
    written = workers.map(write, parts, done)
    used = {Path(file.path).parent.name for files in written for file in files}
    for folder in {part.folder for part in parts}:
        for attempt in list(folder.iterdir()):
            if attempt.name not in used:
                durable.remove_tree(attempt)  # the attempt never returned, or wrote no row
        durable.sync(folder)
    return written


def write(part: RewriteTask) -> tuple[DataFile, ...]:
    """Rewrites a part and returns the new files. Runs on a worker."""
    # otherwise a damaged file would be rewritten and get a new, valid checksum
    checksums.check(part.home, [file.path for file in part.files])
    with task_session(part.memory, part.scratch) as engine:
        for name, relation in part.relations.items():
            engine.insert_rows(name, relation.columns, relation.rows)
        engine.bind_files(LEAVING, part.files, table=part.table)
        return engine.write(part.table, part.sql, part.folder / secrets.token_hex(8), of=part.of)


def divided(files: Iterable[DataFile], slots: int) -> list[tuple[DataFile, ...]]:
    """Divides files into parts of about equal size for the workers; the largest files are assigned first."""
    listed = sorted(files, key=lambda file: -file.bytes)
    count = max(min(slots, len(listed)), sum(file.bytes for file in listed) // _PART_BYTES)
    parts: list[list[DataFile]] = [[] for _ in range(count)]
    sizes = [0] * count
    for file in listed:
        # with the largest first, the small ones even out what is left
        least = sizes.index(min(sizes))
        parts[least].append(file)
        sizes[least] += file.bytes
    return [tuple(part) for part in parts if part]
