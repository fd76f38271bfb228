"""One feed's files to one Parquet file by a bare DuckDB COPY of a typed read."""

from __future__ import annotations

import sys
from pathlib import Path

import bare_duckdb
import duckdb


def main(landing: Path, out: Path) -> None:
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    select = f"select * from {bare_duckdb.read_json(landing, 'accelerometer_landing')}"
    connection.execute(f"copy ({select}) to '{out}/accelerometer_landing.parquet' (format parquet)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
