"""A table's Parquet files, as SQL of DuckDB reads and writes them, and as the catalog registers them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from stedi._frozen import replace
from stedi.engines.arrow_files import GROUP
from stedi.engines.literals import literal, path_literal, quoted
from stedi.schema.tables import ALL_COLUMNS, DUCKDB_TYPES, Column, DataFile
from stedi.storage import s3

_GROUPS = 8
"""The most row groups of a file: a million rows."""
_FILES = 64
"""The number of files of a table, until its files have the most row groups."""
_BOUNDED = {"long", "double"}
"""Types whose bounds go into manifests; a text's bounds could be an address."""


def scan(files: Iterable[DataFile], columns: Iterable[Column]) -> str:
    """Returns a SELECT of exactly these columns from exactly these Parquet files, which may be none."""
    paths = ", ".join(path_literal(file.path) for file in files)
    if not paths:
        empty = ", ".join(f"null::{DUCKDB_TYPES[column.type]} as {quoted(column.name)}" for column in columns)
        return f"select {empty} where false"
    names = ", ".join(quoted(column.name) for column in columns)
    return f"select {names} from read_parquet([{paths}], hive_partitioning = false)"


def copy_statement(table: str, sql: str, folder: Path, of: int) -> str:
    """Returns the statement that writes the rows of a SELECT as files of a table, and returns their statistics.

    Args:
        table: The table whose columns the SELECT has, in any order.
        sql: The SELECT.
        folder: The folder for the files.
        of: About how many rows the table has in all.
    """
    columns = [quoted(column.name) for column in ALL_COLUMNS[table]]
    # Iceberg's readers find a column by its id, and read nulls where there is none
    ids = ", ".join(f"{name}: {place}" for place, name in enumerate(columns, start=1))
    return (
        f"copy (select {', '.join(columns)} from ({sql})) to {literal(str(folder))} (format parquet, compression zstd, "
        f"compression_level 1, per_thread_output true, row_groups_per_file {file_rows(of) // GROUP}, "
        f"field_ids {{{ids}}}, return_stats true)"
    )


def file_rows(of: int) -> int:
    """Returns the most rows of a file, for a table with so many rows.

    Few enough that taking out some customers rewrites the files that hold them, not the table; not so few that a large
    table has more files than are opened quickly.
    """
    return GROUP * min(_GROUPS, max(1, of // (_FILES * GROUP)))


def data_file(
    path: str, rows: int, size: int, statistics: Mapping[str, Mapping[str, str]], columns: Iterable[Column]
) -> DataFile:
    """Describes a written file for the catalog, from the statistics that the statement returned."""
    types = {column.name: column.type for column in columns}
    nulls, bounds = {}, {}
    for name, found in statistics.items():
        bare = name.strip('"')
        if "null_count" in found:
            nulls[bare] = int(found["null_count"])
        if types.get(bare) in _BOUNDED and "min" in found and found.get("has_nan") != "true":
            bounds[bare] = (found["min"], found["max"])
    return DataFile(path, rows, size, nulls, bounds)


def move_to_bucket(files: Sequence[DataFile], here: Path, folder: Path) -> tuple[DataFile, ...]:
    """Moves files that were written on this machine into a folder of a bucket."""
    targets = [folder / Path(file.path).name for file in files]
    s3.prove()  # rows of somebody erased while this process was suspended must not return
    s3.upload((Path(file.path), target) for file, target in zip(files, targets, strict=True))
    shutil.rmtree(here, ignore_errors=True)
    return tuple(replace(file, path=str(target)) for file, target in zip(files, targets, strict=True))
