"""Measures one of the buckets into which a build divides the accelerometer readings of 1.3 billion readings.

Generated readings of as many customers as such a bucket has -> sorted, made distinct and written as in a build, in a
process of its own -> its CPU time and peak memory, beyond those of the same process with a thousand readings.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks import measure

READINGS, CUSTOMERS = 960_000_000, 2_000_000
"""Accelerometer readings and customers, as in the sample, of 1.3 billion readings; all customers consent."""

SCRIPT = """
import sys
from pathlib import Path
import duckdb, pyarrow as pa
from stedi.engines import arrow_files, distinct, table_files
from stedi.schema.tables import COLUMNS

readings, customers, most, out = *map(int, sys.argv[1:4]), Path(sys.argv[4])
table, file_rows = "accelerometer_trusted", table_files.file_rows(readings)
count = min(distinct._BUCKETS, readings // (2 * file_rows))
with distinct._Buckets(COLUMNS[table], customers, count, out) as buckets:
    people = buckets.persons
rows = min(most, readings * people // customers)
# in the order of time; each fiftieth reading is delivered twice
made = (
    f"select (j * 7919 % {people})::bigint as person, 1655564400000 + j as moment, (hash(j) % 3)::double - 1 as x, "
    "(hash(j, 1) % 3)::double - 1 as y, (hash(j, 2) % 3)::double - 1 as z "
    f"from (select i - (i % 50 = 49)::bigint as j from range({rows}) as r(i))"
)
session = duckdb.connect(config={"threads": 1, "memory_limit": "100MB"})
ids = pa.array([f"{person:032x}" for person in range(people)])
files = distinct.write(
    table, session.execute(made).to_arrow_reader(arrow_files.GROUP), ids, out / f"files-{most}", out,
    rows=1, file_rows=file_rows, threads=1,
)
(out / "counts").write_text(f"{rows} {people} {sum(file.rows for file in files)} {len(files)}")
"""


def run(out: Path, repeats: int) -> str:
    """Returns a Markdown table.

    Args:
        out: An empty folder.
        repeats: Runs of each, in turn.
    """
    costs: dict[int, list[measure.Cost]] = {1_000: [], READINGS: []}
    for repeat in range(repeats):
        for most, found in costs.items():
            folder = out / f"{repeat}-{most}"
            folder.mkdir()
            found.append(measure.run([sys.executable, "-c", SCRIPT, str(READINGS), str(CUSTOMERS), str(most), folder]))
    rows, people, distinct, files = map(int, (folder / "counts").read_text().split())
    few, bucket = (
        (statistics.median(cost.cpu for cost in found), max(cost.peak for cost in found)) for found in costs.values()
    )
    return "\n".join(
        (
            "| readings | customers | distinct | files | CPU s | MB |",
            "| --: | --: | --: | --: | --: | --: |",
            f"| {rows:,} | {people:,} | {distinct:,} | {files} | {bucket[0] - few[0]:.2f} "
            f"| {(bucket[1] - few[1]) / 1e6:,.0f} |",
        )
    )
