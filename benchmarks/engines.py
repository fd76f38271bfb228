"""Measures the Spark engine beside a bare PySpark script, and compares its tables with the DuckDB engine's."""

from __future__ import annotations

import importlib.util
import shutil
import statistics
import sys
from collections.abc import Mapping
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Cost

FEEDS = ("customer", "accelerometer", "step_trainer")


def run(stedi: Path, script: Path, landing: Path, out: Path, key: Mapping[str, str], repeats: int) -> str:
    """Returns a Markdown table of both, or the reason why there is none.

    Args:
        stedi: The command.
        script: The bare PySpark script.
        landing: The delivered files.
        out: A folder to work in.
        key: The environment that holds the lake's key.
        repeats: Runs of each; they take turns.
    """
    if importlib.util.find_spec("pyspark") is None:
        return "Left out: PySpark is not installed here (`make .venv/.spark`)."
    costs: dict[str, list[Cost]] = {"Spark engine": [], "PySpark script": []}
    for repeat in range(repeats):
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        costs["Spark engine"].append(lake(stedi, landing, out / "spark", key, "spark"))
        costs["PySpark script"].append(measure.run([sys.executable, script, landing, out / "script"], {}))
        for name, found in costs.items():
            print(f"  {name} {repeat + 1}/{repeats}: {found[-1].wall:.2f} s", file=sys.stderr)
    lake(stedi, landing, out / "duckdb", key, "duckdb")
    rows = compared(out / "spark", out / "duckdb")
    walls = {name: statistics.median(cost.wall for cost in found) for name, found in costs.items()}
    lines = ["| | wall s | CPU s | peak MB | wall, script = 1 |", "| --- | --: | --: | --: | --: |"]
    for name, found in costs.items():
        cpu, peak = statistics.median(cost.cpu for cost in found), max(cost.peak for cost in found)
        ratio = walls[name] / walls["PySpark script"]
        lines.append(f"| {name} | {walls[name]:.1f} | {cpu:.1f} | {peak / 1e6:,.0f} | {ratio:.2f} |")
    return "\n".join([*lines, "", f"Both engines' tables are equal, row for row: {rows:,} rows below landing."])


def lake(stedi: Path, landing: Path, root: Path, key: Mapping[str, str], engine: str) -> Cost:
    """Lands and builds a new lake, two processes."""
    command: list[str | Path] = [stedi, "--lake", root]
    landed = measure.run([*command, "land", *(landing / feed for feed in FEEDS)], key)
    return landed.then(measure.run([*command, "build", "--engine", engine], key))


def compared(one: Path, other: Path) -> int:
    """Compares the tables downstream of landing of two lakes, and returns their number of rows.

    Raises:
        AssertionError: A table differs.
    """
    import duckdb

    from stedi.catalog import Catalog
    from stedi.engines.duckdb import scan
    from stedi.schema.tables import COLUMNS, ZONES

    total = 0
    catalogs = Catalog(one), Catalog(other)
    for table in (name for name, zone in ZONES.items() if zone != "landing"):
        ours, theirs = (scan(c.files(c.table(table)), COLUMNS[table]) for c in catalogs)
        odd = "select count(*) from (({}) except all ({}))"
        for first, second in ((ours, theirs), (theirs, ours)):
            [(found,)] = duckdb.sql(odd.format(first, second)).fetchall()
            assert found == 0, f"{table}: {found} rows differ"
        total += duckdb.sql(f"select count(*) from ({ours})").fetchall()[0][0]
    return total
