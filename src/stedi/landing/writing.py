"""Writes inspected files to Parquet files of the landing tables, here and on every worker alike.

Files become clean lines and rejects, erased customers are removed, and each table's rows are written and compared with
the counts. The caller commits.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from stedi._frozen import dataclass
from stedi.context.progress import Progress, silent
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import nameable, path_literal
from stedi.errors import LandingError, UnreadableFile, many
from stedi.landing import rows
from stedi.landing.held import Held
from stedi.landing.inspect import Inspected
from stedi.landing.prepare import Prepared, as_it_lies, prepare_all
from stedi.landing.reader import scanner
from stedi.landing.scan import scan
from stedi.landing.tombstone_filter import TombstoneFilter
from stedi.schema.tables import COLUMNS, DataFile


@dataclass(frozen=True, slots=True)
class Written:
    """What became of some files.

    Attributes:
        prepared: Those that were read, with their counts.
        appends: For each table the Parquet files that hold their records.
        unreadable: The files that could not be read after all, and why.
    """

    prepared: tuple[Prepared, ...]
    appends: Mapping[str, tuple[DataFile, ...]]
    unreadable: tuple[tuple[str, UnreadableFile], ...]


@dataclass(frozen=True, slots=True)
class Batch:
    """The values common to all files of a batch.

    Attributes:
        id: The batch's id.
        at: When it lands, epoch milliseconds.
        tombstone_filter: Drops records of erased customers; None if nobody was erased.
    """

    id: str
    at: int
    tombstone_filter: TombstoneFilter | None


def write(
    engine: DuckDB,
    files: Sequence[Inspected],
    batch: Batch,
    scratch: Path,
    folder: Callable[[str], Path],
    *,
    threads: int = 1,
    progress: Progress = silent,
) -> Written:
    """Lands files without committing them.

    Args:
        engine: A session.
        files: The files, which can be read here.
        batch: The batch that they are of.
        scratch: A folder for temporary files; the caller removes it.
        folder: Gives a new folder among a table's data.
        threads: How many files may be read at once.
        progress: Called with the current step and its completed share.

    Raises:
        LandingError: A file has changed since its inspection, or the output cannot be written.
    """
    if scanner.library() is not None:
        done = scan(files, scratch, folder, threads=threads, tombstone_filter=batch.tombstone_filter, progress=progress)
        appends = done.appends
        for table, written in appends.items():
            # the scanner counts what it reads, Parquet what is written: both must agree
            counted = sum(ready.counts.accepted for ready in done.prepared if ready.file.contract.table == table)
            _check(table, written, counted)
        appends |= _quarantined(engine, done.prepared, batch, folder)
        return Written(done.prepared, appends, done.unreadable)
    with Held(scratch) as held:
        prepared, unreadable = _prepared(files, held, scratch, threads, progress)
        appends, dropped = _write(engine, prepared, batch.tombstone_filter, scratch, folder, progress)
        if batch.tombstone_filter:
            prepared = [batch.tombstone_filter.without(ready, dropped[ready.file.sha256]) for ready in prepared]
        appends |= _quarantined(engine, prepared, batch, folder)
        # last: what DuckDB has read by name until here must be what was hashed
        held.unchanged()
    return Written(tuple(prepared), appends, tuple(unreadable))


def _prepared(
    files: Iterable[Inspected], held: Held, scratch: Path, threads: int, progress: Progress
) -> tuple[list[Prepared], list[tuple[str, UnreadableFile]]]:
    """Returns every file as clean lines and rejects, original or rewritten; and the unreadable files."""
    prepared: list[Prepared] = []
    unreadable: list[tuple[str, UnreadableFile]] = []
    rest: list[tuple[Inspected, Path]] = []
    for file in files:
        # what DuckDB cannot open by exactly this name is rewritten under a plain one
        if file.records is None or not nameable(str(file.delivered.path)):
            rest.append((file, scratch / str(len(rest))))
            continue
        try:
            prepared.append(as_it_lies(file, file.records, held))
        except UnreadableFile as error:
            unreadable.append((file.delivered.name, error))
    for done, (file, outcome) in enumerate(prepare_all(rest, threads) if rest else (), start=1):
        if isinstance(outcome, UnreadableFile):
            unreadable.append((file.delivered.name, outcome))
        else:
            prepared.append(outcome)
        progress(f"rewrite what is not clean, {done:,} of {many(len(rest), 'file')}", done / len(rest))
    return prepared, unreadable


def _write(
    engine: DuckDB,
    prepared: Sequence[Prepared],
    tombstone_filter: TombstoneFilter | None,
    scratch: Path,
    folder: Callable[[str], Path],
    progress: Progress,
) -> tuple[dict[str, tuple[DataFile, ...]], Counter[str]]:
    """Writes the accepted records of files.

    Returns:
        The Parquet files of each table, and how many records of erased customers were dropped, by their file's SHA-256.
    """
    appends: dict[str, tuple[DataFile, ...]] = {}
    dropped: Counter[str] = Counter()
    for table in sorted({ready.file.contract.table for ready in prepared if ready.counts.accepted}):
        group = [ready for ready in prepared if ready.file.contract.table == table and ready.counts.accepted]
        progress(f"write {table}", None)
        # counted before: the typed reader reads the files once more
        expected, gone = sum(ready.counts.accepted for ready in group), Counter[str]()
        sql = rows.accepted(table, group)
        if tombstone_filter:
            sql, gone = _filtered(engine, table, sql, tombstone_filter, scratch / f"{table}.parquet")
        if files := engine.write(table, sql, folder(table), of=expected):
            appends[table] = files
        _check(table, files, expected - gone.total())
        dropped += gone
    return appends, dropped


def _filtered(
    engine: DuckDB, table: str, sql: str, tombstone_filter: TombstoneFilter, path: Path
) -> tuple[str, Counter[str]]:
    """Writes accepted records without those of erased customers to a file, which the SELECT returned reads.

    Returns:
        The SELECT, and how many records were dropped, by their file's SHA-256.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    dropped: Counter[str] = Counter()
    texts = {column.name for column in COLUMNS[table] if column.type == "string"}
    with ExitStack() as stack:
        writer = None
        # through a file: the filter is Python's, and the engine writes tables from SQL alone
        for found in engine.arrow(sql):
            # the filter looks each text up once, and so takes dictionaries
            columns = {
                name: found.column(name).cast(pa.string()).dictionary_encode() if name in texts else found.column(name)
                for name in found.schema.names
            }
            kept, gone = tombstone_filter.rows(table, pa.table(columns))
            dropped += gone
            writer = writer or stack.enter_context(pq.ParquetWriter(path, kept.schema))
            writer.write_table(kept)
    # a folder named like `user=bob` above the lake would replace the column, and every reading would be his
    return f"select * from read_parquet({path_literal(str(path))}, hive_partitioning = false)", dropped


def _quarantined(
    engine: DuckDB, prepared: Sequence[Prepared], batch: Batch, folder: Callable[[str], Path]
) -> dict[str, tuple[DataFile, ...]]:
    """Writes the rejected records of files, and returns the Parquet files that hold them, if there are any."""
    rejects = [ready for ready in prepared if ready.counts.quarantined]
    if rejects:
        files = engine.write("quarantine", rows.quarantined(rejects, batch.id, batch.at), folder("quarantine"))
        _check("quarantine", files, sum(ready.counts.quarantined for ready in rejects))
        return {"quarantine": files}
    return {}


def _check(table: str, files: Iterable[DataFile], expected: int) -> None:
    """Raises LandingError unless the typed reader saw exactly the records that were accepted, all complete."""
    found = sum(file.rows for file in files)
    if found != expected:
        raise LandingError(
            f"{table}: expected {many(expected, 'row')}, found {found}: a file changed while it was landed; "
            "nothing of its batch was landed: land again"
        )
