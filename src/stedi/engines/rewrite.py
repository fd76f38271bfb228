"""Rewrites files of a table with many workers, each with a part of them; the caller commits.

What runs on a worker is what `erase` and `maintain` run on one machine: the same SELECT, the same engine. A part may
be done more than once, so each attempt writes into a folder of its own, and only what it returns counts.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stedi.catalog import checksums
from stedi.engines import LEAVING
from stedi.engines.duckdb import DuckDB, task_session
from stedi.engines.workers import Share, Workers
from stedi.schema.tables import DataFile
from stedi.storage import durable

_PART_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class InlineRelation:
    """A few rows that a SELECT needs besides the files.

    Attributes:
        columns: Names and types, DuckDB's.
        rows: A value for each column.
    """

    columns: Mapping[str, str]
    rows: tuple[tuple[Any, ...], ...]

    @classmethod
    def of(cls, engine: DuckDB, name: str) -> InlineRelation:
        """Returns what a session calls by a name; it is known to be small."""
        columns = {row[0]: row[1] for row in engine.rows(f"describe {name}")}
        return cls(columns, tuple(engine.rows(f"select * from {name}")))


@dataclass(frozen=True, slots=True)
class RewriteTask:
    """Files that one worker rewrites.

    Attributes:
        table: Their table.
        files: The files.
        sql: A SELECT over `leaving`, the files, and the relations.
        folder: Where the new ones go, into a folder of their own.
        of: About how many rows the table has in all.
        memory: What the worker's engine may take.
        home: The table's folder, with the checksums of its files.
        relations: What else the SELECT reads.
        scratch: Where the worker's engine keeps what does not fit; on another machine its own temporary folder.
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
    """Has workers rewrite parts and returns the new files of each, on disk.

    Raises:
        DamagedFile: A file is not what was written.
    """
    for folder in {part.folder for part in parts}:
        durable.folder(folder)
    written = workers.map(write, parts, done)
    used = {Path(file.path).parent.name for files in written for file in files}
    for folder in {part.folder for part in parts}:
        for attempt in list(folder.iterdir()):
            if attempt.name not in used:
                durable.remove_tree(attempt)  # of an attempt whose answer never came, or of no row
        durable.sync(folder)
    return written


def write(part: RewriteTask) -> tuple[DataFile, ...]:
    """Rewrites a part and returns the new files. Runs on a worker."""
    # a flipped bit must not be rewritten, under a checksum that says that all is well
    checksums.check(part.home, [file.path for file in part.files])
    with task_session(part.memory, part.scratch) as engine:
        for name, relation in part.relations.items():
            engine.insert_rows(name, relation.columns, relation.rows)
        engine.bind_files(LEAVING, part.files, table=part.table)
        return engine.write(part.table, part.sql, part.folder / secrets.token_hex(8), of=part.of)


def divided(files: Iterable[DataFile], slots: int) -> list[tuple[DataFile, ...]]:
    """Divides files among workers, about as many bytes to each part, the largest part first."""
    listed = sorted(files, key=lambda file: -file.bytes)
    count = max(min(slots, len(listed)), sum(file.bytes for file in listed) // _PART_BYTES)
    parts: list[list[DataFile]] = [[] for _ in range(count)]
    sizes = [0] * count
    for file in listed:
        least = sizes.index(min(sizes))
        parts[least].append(file)
        sizes[least] += file.bytes
    return [tuple(part) for part in parts if part]
