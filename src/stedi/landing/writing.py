"""From clean lines and rejects to Parquet files of the landing tables, each checked against what was counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from stedi.engines.duckdb import DuckDB
from stedi.errors import LandingError
from stedi.landing import rows
from stedi.landing.prepare import Prepared
from stedi.landing.tombstone_filter import TombstoneFilter
from stedi.schema.tables import DataFile


def write(
    engine: DuckDB,
    prepared: Sequence[Prepared],
    sieve: TombstoneFilter | None,
    batch: str,
    at: int,
    folder: Callable[[str], Path],
    told: Callable[[str], None] = lambda table: None,
) -> dict[str, tuple[DataFile, ...]]:
    """Writes what some files bring, but for the ledger, and returns the Parquet files of each table.

    Args:
        engine: The session in which the sieve has sifted them.
        prepared: The files, sifted.
        sieve: What keeps erased customers out, if there are any.
        batch: The batch's id.
        at: When they land, epoch milliseconds.
        folder: Gives a new folder among a table's data.
        told: Called with each table before it is written.

    Raises:
        LandingError: A file is no longer what was verified.
    """
    appends = {}
    for table in sorted({ready.file.contract.table for ready in prepared}):
        group = [ready for ready in prepared if ready.file.contract.table == table and ready.counts.accepted]
        if not group:
            continue
        told(table)
        expected = sum(ready.counts.accepted for ready in group)
        sql = rows.accepted(table, group)
        sql = sieve.kept(table, sql) if sieve else sql
        files = engine.write(table, sql, folder(table), of=expected)
        _check(table, files, expected)
        appends[table] = files
    rejects = [ready for ready in prepared if ready.counts.quarantined]
    if rejects:
        sql = rows.quarantined(rejects, batch, at)
        appends["quarantine"] = engine.write("quarantine", sql, folder("quarantine"))
        _check("quarantine", appends["quarantine"], sum(ready.counts.quarantined for ready in rejects))
    return appends


def _check(table: str, files: Iterable[DataFile], expected: int) -> None:
    """Raises LandingError unless the typed reader saw exactly the records that were accepted, all complete."""
    found = sum(file.rows for file in files)
    if found != expected:
        raise LandingError(
            f"{table}: expected {expected} rows, found {found}: a file changed while it was landed; "
            "nothing of its batch was landed: land again"
        )
