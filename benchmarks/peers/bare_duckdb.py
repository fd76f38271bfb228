"""A bare DuckDB script: typed reads, one COPY a table, default settings."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

CUSTOMER = """{customerName: 'VARCHAR', email: 'VARCHAR', phone: 'VARCHAR', birthDay: 'VARCHAR',
    serialNumber: 'VARCHAR', registrationDate: 'BIGINT', lastUpdateDate: 'BIGINT',
    shareWithResearchAsOfDate: 'BIGINT', shareWithPublicAsOfDate: 'BIGINT',
    shareWithFriendsAsOfDate: 'BIGINT'}"""
ACCELEROMETER = "{user: 'VARCHAR', timestamp: 'BIGINT', x: 'DOUBLE', y: 'DOUBLE', z: 'DOUBLE'}"
STEP_TRAINER = "{sensorReadingTime: 'BIGINT', serialNumber: 'VARCHAR', distanceFromObject: 'BIGINT'}"

FEEDS = {
    "customers_landing": ("customer", CUSTOMER),
    "accelerometer_landing": ("accelerometer", ACCELEROMETER),
    "step_trainer_landing": ("step_trainer", STEP_TRAINER),
}

TABLES = {
    "customers_trusted": """
        select * from customers_landing
        qualify row_number() over (partition by email order by lastUpdateDate desc) = 1
            and shareWithResearchAsOfDate > 0""",
    "accelerometer_trusted": """
        select distinct a.user, a.timestamp, a.x, a.y, a.z
        from accelerometer_landing a join customers_trusted c on a.user = c.email""",
    "customers_curated": """
        select * from customers_trusted where email in (select user from accelerometer_trusted)""",
    "step_trainer_trusted": """
        select distinct c.email, s.sensorReadingTime, s.serialNumber, s.distanceFromObject
        from step_trainer_landing s join customers_curated c using (serialNumber)""",
    "machine_learning_curated": """
        select s.email, s.sensorReadingTime, s.distanceFromObject, a.x, a.y, a.z
        from step_trainer_trusted s join accelerometer_trusted a
            on s.email = a.user and s.sensorReadingTime = a.timestamp""",
}


def read_json(landing: Path, feed: str) -> str:
    """Returns the typed read of one feed's newline-delimited files."""
    folder, columns = FEEDS[feed]
    return f"read_json('{landing}/{folder}/*.json', format = 'newline_delimited', columns = {columns})"


def main(landing: Path, out: Path) -> None:
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    for table in (*FEEDS, *TABLES):
        select = TABLES.get(table) or f"select * from {read_json(landing, table)}"
        connection.execute(f"copy ({select}) to '{out}/{table}.parquet' (format parquet)")
        connection.execute(f"create view {table} as from '{out}/{table}.parquet'")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
