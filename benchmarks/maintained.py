"""Measures what small commits cost a reader, before and after `stedi maintain`, beside a table written at once.

    python -m benchmarks.maintained [--commits N] [--readings N] [--repeats N]

The same readings -> two lakes, one written in small commits, one at once -> whole `stedi query` processes, in turn.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import measure

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/bench"
STEDI = Path(sys.executable).parent / "stedi"
KEY = {"STEDI_PSEUDONYM_KEY": "5d" * 32}
SQL = 'select "user", count(*), avg(x), max("timestamp") from accelerometer_landing group by 1 order by 1'

COMMIT = """
import sys
from pathlib import Path
from stedi.engines.duckdb import DuckDB
from stedi.lake import Lake

lake, commits, readings = Lake.open_or_create(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
table = "accelerometer_landing"
with DuckDB(memory="600MB", threads=1, temporary=lake.root / "tmp" / "commits") as engine:
    for n in range(commits):
        first, last = (readings * m // commits for m in (n, n + 1))
        rows = (
            "select 'p' || i % 100 || '@made.example' as \\"user\\", i + 1 as \\"timestamp\\", 0.5::double as x, "
            "(i % 3)::double as y, -1.0::double as z, null::varchar as _extra, 'made' as _file "
            f"from range({first}, {last}) as t (i)"
        )
        files = engine.write(table, rows, lake.catalog.folder(table) / "data" / f"{n:05d}")
        lake.catalog.append(table, files, {})
"""
"""Writes a table in a number of commits, without landing, since only reading is measured."""


def maintained(commits: int, readings: int, repeats: int) -> str:
    """Returns a Markdown table: seconds to read a table of many small commits, and the ratio to one written at once.

    Args:
        commits: The number of small commits.
        readings: Accelerometer readings in all.
        repeats: Reads of each table; the median is reported.
    """
    work = WORK / "maintained"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    many, once = work / "many", work / "once"
    for lake, count in ((many, commits), (once, 1)):
        measure.run([sys.executable, "-c", COMMIT, lake, str(count), str(readings)], KEY)
    small, one, after = f"{commits:,} small commits", "written at once", "the small ones after `stedi maintain`"
    walls = _read({one: once, small: many}, repeats)
    cost = measure.run([STEDI, "--lake", many, "maintain"], KEY)
    if _rows(many) != _rows(once):
        raise measure.Failed("maintenance changed rows")
    again = _read({one: once, after: many}, repeats)
    lines = [
        "| | wall s | written at once = 1 |",
        "| --- | --: | --: |",
        f"| {one} | {again[one]:.3f} | 1.00 |",
        f"| {small} | {walls[small]:.3f} | {walls[small] / walls[one]:.2f} |",
        f"| {after} | {again[after]:.3f} | {again[after] / again[one]:.2f} |",
        f"| `stedi maintain` itself, peak {cost.peak / 1e6:,.0f} MB | {cost.wall:.2f} | |",
    ]
    shutil.rmtree(work)
    return "\n".join(lines)


def _read(lakes: dict[str, Path], repeats: int) -> dict[str, float]:
    walls: dict[str, list[float]] = {name: [] for name in lakes}
    for _ in range(repeats):
        for name, lake in lakes.items():
            walls[name].append(measure.run([STEDI, "--lake", lake, "query", SQL], KEY).wall)
    return {name: statistics.median(found) for name, found in walls.items()}


def _rows(lake: Path) -> bytes:
    command = [STEDI, "--lake", lake, "query", "--format", "csv", SQL]
    return subprocess.run(command, env={**os.environ, **KEY}, capture_output=True, check=True).stdout


def main() -> None:
    """Parses the arguments and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maintained", description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=1_000, help="small commits (1,000)")
    parser.add_argument("--readings", type=int, default=1_000_000, help="readings in all (1,000,000)")
    parser.add_argument("--repeats", type=int, default=9, help="reads of each (9)")
    options = parser.parse_args()
    print(maintained(options.commits, options.readings, options.repeats))


if __name__ == "__main__":
    main()
