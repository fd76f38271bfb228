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
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

PARTS = ("peers", "spark", "increments", "maintained", "erasure", "datasets", "objects", "people", "shapes", "bucket")
"""What can be measured alone; `bucket` is measured only if it is asked for."""

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
    options = arguments()
    os.environ.update(KEY)  # this process reads lakes, too
    WORK.mkdir(parents=True, exist_ok=True)
    if options.phases:
        data = made(*(options.sizes[0] if options.quick or options.readings else options.sizes[1]))
        pythons = {**({"before": options.against} if options.against else {}), "now": Path(sys.executable)}
        with folder("phases") as out:
            print(phases.run(pythons, data.path, out, KEY, options.repeats))
        return
    for marker, text in sections(options):
        print(f"\n{marker}\n\n{text}")
        if not options.no_docs:
            for page in ("docs/benchmarks.md", "README.md"):
                replace(ROOT / page, marker, text)


def arguments() -> argparse.Namespace:
    """Returns the options, with the sizes to measure as `sizes`: name, customers, readings."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="1.3 million readings only")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each contender (5)")
    parser.add_argument("--readings", type=int, help="another size; the docs stay as they are")
    parser.add_argument("--customers", type=int, default=200, help="customers of that other size (200)")
    parser.add_argument("--part", choices=("all", *PARTS), default="all", help="measure one part (all)")
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
    options.sizes = [("1.3M", 2_000, 1_300_000), ("13M", 20_000, 13_000_000)][: 1 if options.quick else 2]
    if options.large:
        options.sizes.append(("130M", 200_000, 130_000_000))
    if options.readings:
        options.sizes = [(f"{options.readings:,}", options.customers, options.readings)]
    options.no_docs |= bool(options.readings or options.unlike or options.only)
    return options


def sections(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Measures, and yields the text of each section of the docs by its marker."""
    runners = contenders() if options.part in ("all", "peers") else {}
    if options.only:
        runners = {name: run for name, run in runners.items() if name in options.only}
    if runners:
        yield "bench machine", machine(runners)
    points: list[increments.Point] = []
    for name, customers, readings in options.sizes:
        data = made(name, customers, readings)
        if options.unlike:
            data = measured(name, unlike.made(data.path), readings)
        print(f"{name}: {data.bytes / 1e6:,.0f} MB of JSON", file=sys.stderr)
        if runners:
            yield f"bench {name}", table(data, race(data, runners, options.repeats))
        if not options.only:
            yield from of_size(data, options, points)
    if points:
        yield "bench growth", increments.growth(points)
    if not options.only:
        yield from of_lake(options)


def of_size(data: Data, options: argparse.Namespace, points: list[increments.Point]) -> Iterator[tuple[str, str]]:
    """Measures what is measured in lakes of each size, but for the race; adds a point of how builds grow."""
    part, repeats, name = options.part, options.repeats, data.name
    if part in ("all", "peers"):
        motion = sum(f.stat().st_size for f in (data.path / "accelerometer").iterdir())
        alone = {"STEDI lake": land_only, "DuckDB COPY": peer("bare_copy")}
        landed = Data(name, data.path, data.readings, motion)
        yield f"bench landing {name}", table(landed, race(data, alone, repeats))
        yield f"bench start {name}", start_up(data, 10)
    if part in ("all", "spark"):
        with folder("engines") as out:
            yield f"bench spark {name}", engines.run(STEDI, PEERS / "glue_spark.py", data.path, out, KEY, repeats)
    if part in ("all", "increments"):
        with folder("increments") as out:
            followed = increments.run(increments.Bench(STEDI, data.path, out, KEY), options.nights, repeats)
        full, _, one, night, *_ = (line.cost for line in increments.medians(followed[0]))
        points.append(increments.Point(data.readings, full, one, night))
        yield f"bench increments {name}", increments.table(*followed)
    if part in ("all", "erasure"):
        with folder("erasure") as out:
            bench = increments.Bench(STEDI, data.path, out, KEY)
            yield f"bench erasure {name}", erasure.run(bench, out, repeats)
    if part in ("all", "datasets"):
        with folder("datasets") as out:
            bench = increments.Bench(STEDI, data.path, out, KEY)
            yield f"bench datasets {name}", datasets.run(bench, PEERS / "bare_windows.py", out, repeats)


def of_lake(options: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Measures what is measured once, whatever the sizes."""
    part, repeats = options.part, options.repeats
    if part in ("all", "shapes"):
        with folder("shapes") as out:
            yield "bench shapes", shapes.run(STEDI, made(*options.sizes[0]).path, out, KEY, repeats)
    if part in ("all", "objects"):
        with folder("objects") as out:
            yield "bench objects", objects.run(STEDI, made(*options.sizes[0]).path, out, KEY, repeats)
    if part in ("all", "people"):
        customers = 200_000 if options.quick else 2_000_000
        data = made(f"{customers:,} customers", customers, 4 * customers)
        with folder("people") as out:
            yield "bench people", people.run(increments.Bench(STEDI, data.path, out, KEY), data.path, out)
    if part == "bucket":
        with folder("bucket") as out:
            yield "bench bucket", bucket.run(out, repeats)
    if part in ("all", "maintained"):
        yield "bench maintained", maintained(1_000, 1_000_000, 9)


@contextmanager
def folder(name: str) -> Iterator[Path]:
    """Gives an empty folder to work in, and removes it afterwards."""
    out = WORK / name
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    yield out
    shutil.rmtree(out, ignore_errors=True)


if __name__ == "__main__":
    main()
