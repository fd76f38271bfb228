"""Only files that can have rows of some time are opened, and no such row is missed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi._frozen import replace
from stedi.engines.duckdb import DuckDB
from stedi.engines.ranges import Ranges
from stedi.schema.tables import COLUMNS, DataFile

TABLE, LANDED = "accelerometer_trusted", "accelerometer_landing"
COUNT = 12
"""Files of a table: more than are opened without a look at their footers."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as session:
        yield session


def written(engine: DuckDB, folder: Path, moments: list[int], table: str = TABLE) -> DataFile:
    listed = ", ".join(f"({moment}::bigint)" for moment in moments)
    who, at = ("customer_id", "instant(moment)") if table == TABLE else ('"user"', "moment")
    rest = "" if table == TABLE else ", null::varchar as _extra, 'f' as _file"
    values = f"'a' as {who}, {at} as \"timestamp\", 0.0::double as x, 0.0::double as y, 0.0::double as z{rest}"
    [file] = engine.write(table, f"select {values} from (values {listed}) as t (moment)", folder)
    return file


def without_statistics(file: DataFile) -> DataFile:
    """Rewrites a file as other programs may: its footer does not tell its range."""
    table = pq.read_table(file.path)
    pq.write_table(table, file.path, write_statistics=False, row_group_size=2)
    return replace(file, bytes=os.path.getsize(file.path))


@pytest.mark.parametrize("table", [TABLE, LANDED])
def test_rows_within_a_range_are_those_of_a_whole_scan(engine: DuckDB, tmp_path: Path, table: str) -> None:
    seed = Random().randrange(1 << 32)
    random = Random(seed)
    base = 1_600_000_000_000
    moments = [[base + random.randrange(1000) + 100 * n for _ in range(5)] for n in range(COUNT)]
    files = [written(engine, tmp_path / f"{n}", some, table) for n, some in enumerate(moments)]
    files[3] = without_statistics(files[3])
    engine.bind_files(table, files)
    every = [moment for some in moments for moment in some]
    for _ in range(40):
        low, high = sorted((random.choice(every), random.choice(every) + random.randrange(-1, 2)))
        found = engine.rows(f"select count(*) from ({engine.within(table, 'timestamp', low, high)})")
        assert found == [(sum(low <= moment <= high for moment in every),)], (seed, low, high)


def test_a_moment_between_two_milliseconds_is_in_the_range_around_it(engine: DuckDB, tmp_path: Path) -> None:
    column = next(column for column in COLUMNS[TABLE] if column.name == "timestamp")
    files = [written(engine, tmp_path / f"{n}", [1_600_000_000_000]) for n in range(COUNT)]
    table = pq.read_table(files[0].path)
    micros = table["timestamp"].cast("int64").to_pylist()[0] + 999
    field = table.schema.field("timestamp")
    moved = table.set_column(1, field, pa.array([micros], pa.int64()).cast(field.type))
    pq.write_table(moved, files[0].path)
    ranges = Ranges(engine.rows)
    assert ranges.holding(files, column, 1_600_000_000_000, 1_600_000_000_000) == tuple(files[1:])
    assert ranges.holding(files, column, 1_600_000_000_000, 1_600_000_000_001) == tuple(files)
    assert ranges.holding(files, column, 1_600_000_000_001, 1_600_000_000_001) == ()


@pytest.mark.parametrize("table", [TABLE, LANDED])
def test_files_of_another_time_are_not_opened(engine: DuckDB, tmp_path: Path, table: str) -> None:
    files = [written(engine, tmp_path / f"{n}", [n, n + 1], table) for n in range(COUNT)]
    if table == LANDED:
        assert {tuple(file.bounds) for file in files} == {("timestamp", "x", "y", "z")}
    engine.bind_files(table, files)
    assert engine.rows(f"select count(*) from ({engine.within(table, 'timestamp', 6, 7)})") == [(4,)]
    for file in (*files[:5], *files[8:]):
        os.unlink(file.path)
    found = engine.rows(f"select count(*) from ({engine.within(table, 'timestamp', 6, 7)})")
    assert found == [(4,)]  # 6 of two files, 7 of two
    later = engine.within(table, "timestamp", COUNT + 5, COUNT + 9)
    assert engine.rows(f"select count(*) from ({later})") == [(0,)]


def test_landed_files_whose_bounds_nobody_told_are_read(engine: DuckDB, tmp_path: Path) -> None:
    files = [replace(written(engine, tmp_path / f"{n}", [n], LANDED), bounds={}) for n in range(COUNT)]
    engine.bind_files(LANDED, files)
    assert engine.rows(f"select count(*) from ({engine.within(LANDED, 'timestamp', 3, 5)})") == [(3,)]
