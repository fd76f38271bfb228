"""What a training set costs beside a bare DuckDB script that writes the same windows of the same lake.

A built lake -> windows by `dataset create`, and by the script, in turn -> `dataset verify` of what was written.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.increments import Bench
from benchmarks.measure import Cost


def run(bench: Bench, script: Path, out: Path, repeats: int) -> str:
    """Measures both and returns a Markdown table; the script reads the lake's trusted tables."""
    bench.land_all()
    bench.stedi("build")
    costs: dict[str, list[Cost]] = {"DuckDB script": [], "`dataset create --window 10s`": [], "`dataset verify`": []}
    windows = set()
    for repeat in range(1, repeats + 1):
        made = bench.lake / "releases" / "windows" / str(repeat)
        costs["DuckDB script"].append(measure.run([sys.executable, script, bench.lake, out]))
        costs["`dataset create --window 10s`"].append(bench.stedi("dataset", "create", "windows", "--window", "10s"))
        costs["`dataset verify`"].append(bench.stedi("dataset", "verify", str(made)))
        windows |= {_rows(out / "windows.parquet"), _rows(made / "data" / "*.parquet")}
    if len(windows) != 1:
        raise measure.Failed(f"expected as many windows of both, found {sorted(windows)}")
    medians = {name: statistics.median(cost.wall for cost in found) for name, found in costs.items()}
    base = medians["DuckDB script"]
    size = sum(file.stat().st_size for file in made.rglob("*") if file.is_file())
    lines = ["| | wall s | CPU s | peak MB | wall, script = 1 |", "| --- | --: | --: | --: | --: |"]
    for name, found in costs.items():
        cpu, peak = statistics.median(cost.cpu for cost in found), max(cost.peak for cost in found)
        cells = (name, f"{medians[name]:.2f}", f"{cpu:.2f}", f"{peak / 1e6:,.0f}", f"{medians[name] / base:.2f}")
        lines.append(f"| {' | '.join(cells)} |")
    speed = size / 1e6 / medians["`dataset verify`"]
    return "\n".join([*lines, "", f"{windows.pop():,} windows, {size / 1e6:,.0f} MB; verified at {speed:,.0f} MB/s."])


def _rows(files: Path) -> int:
    import duckdb

    [(count,)] = duckdb.sql(f"select count(*) from '{files}'").fetchall()
    return int(count)
