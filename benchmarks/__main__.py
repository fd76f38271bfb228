"""Measures the lake and its peers on the same files, interleaved, and writes the tables of the docs.

    python -m benchmarks [--quick] [--repeats N] [--customers N --readings N] [--only NAME ...]

Sample data -> each contender as whole processes, in turn, repeated -> medians -> stdout and docs.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks import (
    bucket,
    datasets,
    engines,
    erasure,
    increments,
    measure,
    objects,
    people,
    phases,
    shapes,
    spark,
    unlike,
)
from benchmarks.maintained import maintained
from benchmarks.measure import Cost

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/bench"
PEERS = ROOT / "benchmarks/peers"
STEDI = Path(sys.executable).parent / "stedi"
KEY = {"STEDI_PSEUDONYM_KEY": "5d" * 32, "XDG_STATE_HOME": str(WORK / "state")}
"""For synthetic people; keeps the key and what erasures remember out of the user's home folder."""

Contender = Callable[[Path, Path], Cost]
"""Runs the job on a landing folder and writes into an empty folder."""


@dataclass(frozen=True, slots=True)
class Data:
    """One generated landing folder.

    Attributes:
        name: Its name in the tables.
        path: The folder.
        readings: Accelerometer and step trainer records.
        bytes: Size of its JSON.
    """

    name: str
    path: Path
    readings: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Row:
    """What a contender cost in each round, and its training rows."""

    name: str
    costs: list[Cost]
    rows: str

    def median(self, of: Callable[[Cost], float]) -> float:
        """Returns the median of a measure."""
        return statistics.median(map(of, self.costs))

    def ratio(self, base: Row, of: Callable[[Cost], float]) -> float:
        """Returns the median, over the rounds, of a measure divided by that of another contender in the same round."""
        return statistics.median(of(cost) / of(other) for cost, other in zip(self.costs, base.costs, strict=True))


def made(name: str, customers: int, readings: int) -> Data:
    """Generates sample data, or uses the data of an earlier run."""
    from stedi.landing import sample

    path = WORK / f"data-{customers}-{readings}"
    if not (path / "_answer.json").exists():
        print(f"Making {readings:,} readings of {customers:,} customers in {path}", file=sys.stderr)
        shutil.rmtree(path, ignore_errors=True)
        sample.write(path, customers=customers, readings=readings, seed=7, dirty=False)
    return measured(name, path, readings)


def measured(name: str, path: Path, readings: int) -> Data:
    """Returns a landing folder with the size of its files."""
    size = sum(file.stat().st_size for file in path.rglob("*.json") if file.parent != path)
    return Data(name, path, readings, size)


def lake(landing: Path, out: Path, **environment: str) -> Cost:
    """This project: two commands, two processes."""
    stedi: list[str | Path] = [STEDI, "--lake", out / "lake"]
    env = {**KEY, **environment}
    return measure.run([*stedi, "land", *_folders(landing)], env).then(measure.run([*stedi, "build"], env))


def at_once(landing: Path, out: Path) -> Cost:
    """This project: one command, one process."""
    return measure.run([STEDI, "--lake", out / "lake", "land", "--build", *_folders(landing)], KEY)


def not_compiled(landing: Path, out: Path) -> Cost:
    """This project on a machine without a C compiler."""
    return lake(landing, out, STEDI_PURE="1")


def _folders(landing: Path) -> list[Path]:
    return [landing / feed for feed in ("customer", "accelerometer", "step_trainer")]


def land_only(landing: Path, out: Path) -> Cost:
    """Only the landing of this project, and only accelerometer files."""
    return measure.run([STEDI, "--lake", out / "lake", "land", landing / "accelerometer"], KEY)


def peer(script: str, python: str | Path = sys.executable) -> Contender:
    """Returns a contender that is a script of `peers`."""
    return lambda landing, out: measure.run([python, PEERS / f"{script}.py", landing, out])


def contenders() -> dict[str, Contender]:
    """Returns the contenders that can run here; prints which cannot, and why."""
    found = {
        "STEDI lake": lake,
        "`land --build`": at_once,
        "not compiled": not_compiled,
        "DuckDB script": peer("bare_duckdb"),
        "Polars": peer("lazy_polars"),
    }
    python, why = spark.python(WORK / "spark-venv")
    if python:
        return {**found, "PySpark": peer("glue_spark", python)}
    print(f"PySpark is left out: {why}", file=sys.stderr)
    return found


def race(data: Data, runners: dict[str, Contender], repeats: int) -> list[Row]:
    """Runs all contenders in turn, `repeats` times, and returns a row for each."""
    for file in data.path.rglob("*.json"):  # into the page cache, so that all contenders start alike
        file.read_bytes()
    costs: dict[str, list[Cost]] = {name: [] for name in runners}
    rows: dict[str, str] = {}
    for repeat in range(repeats):
        for name in list(costs):
            out = WORK / "out"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir(parents=True)
            try:
                cost = runners[name](data.path, out)
            except measure.Failed as failure:
                print(f"{name} is left out: {failure}", file=sys.stderr)
                del costs[name]
                continue
            rows[name] = training_rows(out)
            costs[name].append(cost)
            print(f"  {name} {repeat + 1}/{repeats}: {cost.wall:.2f} s", file=sys.stderr)
    shutil.rmtree(WORK / "out", ignore_errors=True)
    return [Row(name, found, rows[name]) for name, found in costs.items()]


def training_rows(out: Path) -> str:
    """Returns how many training rows a contender wrote, counted by DuckDB."""
    import duckdb

    if (out / "lake/catalog.db").exists():
        from stedi.catalog.snapshots import read_catalog

        state = read_catalog(out / "lake/catalog.db").get("machine_learning_curated")
        found = state.current.total("records") if state and state.current else 0
        return f"{found:,}" if found else ""
    written = out / "machine_learning_curated"
    files = f"{written}/*.parquet" if written.is_dir() else f"{written}.parquet"
    if not written.is_dir() and not Path(files).exists():
        return ""
    [(count,)] = duckdb.sql(f"select count(*) from '{files}'").fetchall()
    return f"{count:,}"


def table(data: Data, rows: list[Row]) -> str:
    """Returns a Markdown table of medians; ratios are to bare DuckDB in the same round."""
    if not rows:
        return "Nobody finished."
    base = next((row for row in rows if row.name.startswith("DuckDB")), rows[0])
    heads = ["", "wall s", "±", "CPU s", "peak MB", "MB/s", *(f"{what}, {base.name} = 1" for what in ("wall", "CPU"))]
    counted = any(row.rows for row in rows)
    heads += ["training rows"] * counted
    lines = [f"| {' | '.join(heads)} |", f"| --- |{' --: |' * (len(heads) - 1)}"]
    for row in rows:
        walls = [cost.wall for cost in row.costs]
        wall = row.median(measure.wall)
        cells = [
            *(row.name, f"{wall:.2f}", f"{(max(walls) - min(walls)) / 2:.2f}", f"{row.median(measure.cpu):.2f}"),
            *(f"{max(cost.peak for cost in row.costs) / 1e6:,.0f}", f"{data.bytes / 1e6 / wall:,.1f}"),
            *(f"{row.ratio(base, of):.2f}" for of in (measure.wall, measure.cpu)),
            *[row.rows] * counted,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def start_up(data: Data, repeats: int) -> str:
    """Returns a Markdown table of how long small commands take, process start included."""
    out = WORK / "start"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    stedi: list[str | Path] = [STEDI, "--lake", out / "lake"]
    lake(data.path, out)
    commands: dict[str, list[str | Path]] = {
        "stedi --help": [STEDI, "--help"],
        "stedi tables": [*stedi, "tables"],
        "stedi status": [*stedi, "status"],
        "stedi query 'select count(*) from machine_learning_curated'": [
            *stedi,
            "query",
            "select count(*) from machine_learning_curated",
        ],
        "stedi build, nothing to do": [*stedi, "build"],
        "a bare Python": [sys.executable, "-c", ""],
        "Python, duckdb: select 1": [sys.executable, "-c", "import duckdb; duckdb.sql('select 1').fetchall()"],
        "git status": ["git", "-C", ROOT, "status"],
    }
    taken: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(repeats):  # in turn, so that other load affects each alike
        for name, command in commands.items():
            taken[name].append(measure.run(command, KEY))
    lines = ["| | wall s | slowest | CPU s |", "| --- | --: | --: | --: |"]
    for name, costs in taken.items():
        walls, cpu = [cost.wall for cost in costs], statistics.median(cost.cpu for cost in costs)
        lines.append(f"| `{name}` | {statistics.median(walls):.3f} | {max(walls):.3f} | {cpu:.3f} |")
    shutil.rmtree(out)
    return "\n".join(lines)


def machine(names: Iterable[str]) -> str:
    """Returns one line about the machine and the versions of the measured contenders."""
    versions = ", ".join(f"{name} {version(name)}" for name in ("stedi", "duckdb", "polars", "pyarrow", "pyiceberg"))
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {platform.system()} {platform.machine()}, "
        f"Python {platform.python_version()}; {versions}"
        f"{f', PySpark {spark.VERSION}' if 'PySpark' in names else ''}."
    )


def replace(path: Path, marker: str, text: str) -> None:
    """Puts text between a file's `<!-- marker -->` and `<!-- /marker -->`, if it has them."""
    before, opening, rest = path.read_text("utf-8").partition(f"<!-- {marker} -->\n")
    _, closing, after = rest.partition(f"<!-- /{marker} -->")
    if opening and closing:
        path.write_text(f"{before}{opening}{text}\n{closing}{after}", "utf-8")


def main() -> None:
    """Parses the arguments, measures, prints, and writes the docs."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1.3 million readings only")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--readings", type=int, help="another size; the docs stay as they are")
    parser.add_argument("--customers", type=int, default=200, help="customers of that other size (200)")
    parser.add_argument(
        "--part",
        choices=(
            "all",
            "peers",
            "spark",
            "increments",
            "maintained",
            "erasure",
            "datasets",
            "objects",
            "people",
            "shapes",
            "bucket",
        ),
        default="all",
        help="measure one part (all)",
    )
    parser.add_argument("--nights", type=int, default=20, help="nightly increments to follow (20)")
    parser.add_argument(
        "--large", action="store_true", help="130 million readings, too: 12 GB of JSON, on an empty disk"
    )
    parser.add_argument(
        "--unlike", action="store_true", help="the same records as data unlike the sample; the docs stay as they are"
    )
    parser.add_argument("--only", action="append", help="one contender, by its name in the table; may be repeated")
    parser.add_argument("--no-docs", action="store_true", help="print only")
    parser.add_argument("--phases", action="store_true", help="print what each phase of land, build and audit takes")
    parser.add_argument(
        "--against", metavar="PYTHON", type=Path, help="phases: the Python of another version's environment, beside it"
    )
    options = parser.parse_args()
    sizes = [("1.3M", 2_000, 1_300_000), ("13M", 20_000, 13_000_000)][: 1 if options.quick else 2]
    if options.large:
        sizes.append(("130M", 200_000, 130_000_000))
    if options.readings:
        sizes, options.no_docs = [(f"{options.readings:,}", options.customers, options.readings)], True
    options.no_docs |= options.unlike
    os.environ.update(KEY)  # this process reads lakes, too
    WORK.mkdir(parents=True, exist_ok=True)
    if options.phases:
        data, out = made(*(sizes[0] if options.quick or options.readings else sizes[1])), WORK / "phases"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        pythons = {**({"before": options.against} if options.against else {}), "now": Path(sys.executable)}
        print(phases.run(pythons, data.path, out, KEY, options.repeats))
        shutil.rmtree(out)
        return
    runners = contenders() if options.part in ("all", "peers") else {}
    if options.only:
        runners = {name: run for name, run in runners.items() if name in options.only}
        options.no_docs = True
    sections = {"bench machine": machine(runners)} if runners else {}
    points: list[increments.Point] = []
    for name, customers, readings in sizes:
        data = made(name, customers, readings)
        if options.unlike:
            data = measured(name, unlike.made(data.path), readings)
        print(f"{name}: {data.bytes / 1e6:,.0f} MB of JSON", file=sys.stderr)
        if options.part in ("all", "peers"):
            sections[f"bench {name}"] = table(data, race(data, runners, options.repeats))
        if options.part in ("all", "peers") and not options.only:
            motion = sum(f.stat().st_size for f in (data.path / "accelerometer").iterdir())
            alone = {"STEDI lake": land_only, "DuckDB COPY": peer("bare_copy")}
            landed = Data(name, data.path, data.readings, motion)
            sections[f"bench landing {name}"] = table(landed, race(data, alone, options.repeats))
            sections[f"bench start {name}"] = start_up(data, 10)
        if options.part in ("all", "spark") and not options.only:
            script, out = PEERS / "glue_spark.py", WORK / "engines"
            sections[f"bench spark {name}"] = engines.run(STEDI, script, data.path, out, KEY, options.repeats)
            shutil.rmtree(out, ignore_errors=True)
        if options.part in ("all", "increments") and not options.only:
            out = WORK / "increments"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            followed = increments.run(increments.Bench(STEDI, data.path, out, KEY), options.nights, options.repeats)
            sections[f"bench increments {name}"] = increments.table(*followed)
            full, _, one, night, *_ = (line.cost for line in increments.medians(followed[0]))
            points.append(increments.Point(data.readings, full, one, night))
            shutil.rmtree(out)
        if options.part in ("all", "erasure") and not options.only:
            out = WORK / "erasure"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            bench = increments.Bench(STEDI, data.path, out, KEY)
            sections[f"bench erasure {name}"] = erasure.run(bench, out, options.repeats)
            shutil.rmtree(out)
        if options.part in ("all", "datasets") and not options.only:
            out = WORK / "datasets"
            shutil.rmtree(out, ignore_errors=True)
            out.mkdir()
            bench = increments.Bench(STEDI, data.path, out, KEY)
            sections[f"bench datasets {name}"] = datasets.run(bench, PEERS / "bare_windows.py", out, options.repeats)
            shutil.rmtree(out)
    if options.part in ("all", "shapes") and not options.only:
        out = WORK / "shapes"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        sections["bench shapes"] = shapes.run(STEDI, made(*sizes[0]).path, out, KEY, options.repeats)
        shutil.rmtree(out)
    if options.part in ("all", "objects") and not options.only:
        out = WORK / "objects"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        sections["bench objects"] = objects.run(STEDI, made(*sizes[0]).path, out, KEY, options.repeats)
        shutil.rmtree(out)
    if options.part in ("all", "people") and not options.only:
        customers, out = 200_000 if options.quick else 2_000_000, WORK / "people"
        data = made(f"{customers:,} customers", customers, 4 * customers)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        sections["bench people"] = people.run(increments.Bench(STEDI, data.path, out, KEY), data.path, out)
        shutil.rmtree(out)
    if options.part == "bucket":
        out = WORK / "bucket"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        sections["bench bucket"] = bucket.run(out, options.repeats)
        shutil.rmtree(out)
    if points:
        sections["bench growth"] = increments.growth(points)
    if options.part in ("all", "maintained") and not options.only:
        sections["bench maintained"] = maintained(1_000, 1_000_000, 9)
    for marker, text in sections.items():
        print(f"\n{marker}\n\n{text}")
        if not options.no_docs:
            for page in ("docs/benchmarks.md", "README.md"):
                replace(ROOT / page, marker, text)


if __name__ == "__main__":
    main()
