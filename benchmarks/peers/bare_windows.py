"""Windows of a lake's trusted tables by a bare DuckDB script: no splits, no proofs, no checksums, default settings."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb

WINDOWS = """
with vectors as (
    select customer_id, "timestamp" as at, avg(x) as x, avg(y) as y, avg(z) as z
    from read_parquet('{lake}/trusted/accelerometer_trusted/data/**/*.parquet') group by customer_id, "timestamp"
),
moments as (
    select s.customer_id, epoch_ms(s.sensorReadingTime) as ms, s.distanceFromObject as distance, v.x, v.y, v.z
    from read_parquet('{lake}/trusted/step_trainer_trusted/data/**/*.parquet') as s
    join vectors as v on s.customer_id = v.customer_id and s.sensorReadingTime = v.at
),
gaps as (select *, ms - lag(ms) over (partition by customer_id order by ms) as gap from moments),
segments as (
    select *, max(case when gap is null or gap > 5000 then ms end) over (partition by customer_id order by ms) as begun
    from gaps
),
cut as (select *, begun + (ms - begun) // 10000 * 10000 as start from segments),
rows as (
    select customer_id, start,
        list(struct_pack(t := ms - start, d := distance, x := x, y := y, z := z) order by ms) as r
    from cut group by customer_id, start having count(*) >= 2
)
select customer_id, start, list_transform(r, lambda e: e.t) as t_ms, list_transform(r, lambda e: e.d) as distance,
    list_transform(r, lambda e: e.x) as x, list_transform(r, lambda e: e.y) as y, list_transform(r, lambda e: e.z) as z
from rows order by customer_id, start
"""


def main(lake: Path, out: Path) -> None:
    connection = duckdb.connect()
    connection.execute("set enable_progress_bar = false")
    connection.execute(f"copy ({WINDOWS.format(lake=lake)}) to '{out}/windows.parquet' (format parquet)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
