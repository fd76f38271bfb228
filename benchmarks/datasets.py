"""Measures the cost of a training set, beside a bare DuckDB script that writes the same windows of the same lake.

A built lake -> windows by `dataset create` and by the script, in turn -> `dataset verify` of the result. Then a large
release of random values is verified, beside `sha256sum` of the same files, which shows the cost of hashing alone.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from benchmarks import measure
from benchmarks.increments import Bench
from benchmarks.measure import Cost
from stedi.datasets import manifest, seal
from stedi.datasets.options import Options
from stedi.privacy.pseudonyms import Key


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
    noise = out / "large"
    large(made, noise, bench.key)
    return "\n".join(
        [*lines, "", f"{windows.pop():,} windows, {size / 1e6:,.0f} MB.", "", *_verified(bench, noise, repeats)]
    )


def _verified(bench: Bench, folder: Path, repeats: int) -> list[str]:
    """Returns the table of the cost of verifying a release, beside only hashing its files."""
    files = [file for file in folder.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files) / 1e6
    costs: dict[str, list[Cost]] = {"`sha256sum`": [], "`dataset verify`": []}
    for _ in range(repeats):
        costs["`sha256sum`"].append(measure.run(["sha256sum", *files]))
        costs["`dataset verify`"].append(bench.stedi("dataset", "verify", str(folder)))
    lines = [f"| {size:,.0f} MB | wall s | MB/s | CPU s | MB a CPU s |", "| --- | --: | --: | --: | --: |"]
    for name, found in costs.items():
        wall, cpu = (statistics.median(getattr(cost, what) for cost in found) for what in ("wall", "cpu"))
        lines.append(f"| {name} | {wall:.2f} | {size / wall:,.0f} | {cpu:.2f} | {size / cpu:,.0f} |")
    return lines


def large(made: Path, folder: Path, key: Key, *, rows: int = 1_000_000, files: int = 12) -> None:
    """Makes a signed release of about 30 MB per file, modelled on another one.

    Args:
        made: A release, whose manifest is reused except for the entries about the files.
        folder: The new one.
        key: The lake's key.
        rows: Rows per file.
        files: Files of the split `train`; the others are empty.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    plain = json.loads((made / manifest.NAME).read_bytes())
    columns = manifest.columns(Options())
    rng, people, listed = np.random.default_rng(1), [], []
    (folder / "data").mkdir(parents=True)

    def write(path: str, table: pa.Table) -> None:
        pq.write_table(table, folder / path, compression="zstd", compression_level=1, store_schema=False)
        file = folder / path
        listed.append({"path": path, "size": file.stat().st_size, "rows": table.num_rows, "sha256": seal.digest(file)})

    def values(subjects: list[str], count: int) -> pa.Table:
        made_of = {
            "subject": pa.array(np.repeat(np.array(subjects, dtype=object), count), pa.string()),
            "moment": pa.array(np.tile(np.arange(count), len(subjects)), pa.int64()),
            "distance": pa.array(rng.integers(200, 300, count * len(subjects)), pa.int64()),
            **{axis: pa.array(rng.random(count * len(subjects))) for axis in "xyz"},
            "vectors": pa.array(np.ones(count * len(subjects)), pa.int32()),
            "dt_ms": pa.array(np.zeros(count * len(subjects)), pa.int32()),
        }
        return pa.table([made_of[column["name"]] for column in columns], names=[column["name"] for column in columns])

    for number in range(files):
        subjects = [f"{number * 100 + at:016x}" for at in range(100)]
        people += subjects
        write(f"data/train-{number:05d}-of-{files:05d}.parquet", values(subjects, rows // 100))
    for split in ("validation", "test"):
        write(f"data/{split}-00000-of-00001.parquet", values([], 0))
    each = pa.array([rows // 100] * len(people), pa.int64())
    write("subjects.parquet", pa.table({"subject": people, "split": ["train"] * len(people), "rows": each}))
    total, nobody = rows * files, {"subjects": 0, "rows": 0}
    plain |= {
        "columns": columns,
        "files": listed,
        "subjects": len(people),
        "rows": total,
        "splits": {"train": {"subjects": len(people), "rows": total}, "validation": nobody, "test": nobody},
        "account": [{"what": "readings of step_trainer_trusted", "rows": total}, {"what": "moments", "rows": total}],
    }
    (folder / manifest.NAME).write_bytes(manifest.text(plain))
    seal.sign(folder, key, {"lake": plain["lake"], "at": plain["created"], "release": plain["release"]})


def _rows(files: Path) -> int:
    import duckdb

    [(count,)] = duckdb.sql(f"select count(*) from '{files}'").fetchall()
    return int(count)
