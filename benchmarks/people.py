"""Measures the cost of one record in a lake with many customers: its landing and build, as whole processes.

A lake of customers with few readings each, landed and built -> one reading, one withdrawal and one new customer, each
landed and built by itself, three times.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from benchmarks.increments import Bench
from benchmarks.measure import Cost

TIMES = 3
AT = 946_684_800_000
"""The first instant that landing accepts, epoch milliseconds: before all other readings."""
LATER = 1_740_000_000_000
"""After all generated records."""
Record = Mapping[str, object]


def run(bench: Bench, landing: Path, out: Path) -> str:
    """Returns a Markdown table of the costs of each change and of the first build.

    Args:
        bench: An empty lake.
        landing: The generated landing folder.
        out: A folder for deliveries.
    """
    bench.land_all()
    rows = [
        "| | landing, CPU s | build, wall s | CPU s | peak MB |",
        "| --- | --: | --: | --: | --: |",
        _row("everything, first build", [], [bench.stedi("build")]),
    ]
    for name, (feed, records) in _changes(_agreeing(landing)).items():
        landings, builds = [], []
        for number, record in enumerate(records):
            path = out / f"{feed}-{name.replace(' ', '-')}-{number}" / feed / f"{feed}.json"
            path.parent.mkdir(parents=True)
            path.write_text(json.dumps(record) + "\n", "utf-8")
            landings.append(bench.stedi("land", path))
            builds.append(bench.stedi("build"))
        rows.append(_row(name, landings, builds))
    shutil.rmtree(bench.lake)
    return "\n".join(rows)


def _changes(people: list[Record]) -> dict[str, tuple[str, Iterable[Record]]]:
    """Returns by name the feed and records of each kind of change; each record is of a different customer."""
    some = [people[start::4] for start in range(4)]
    return {
        "one accelerometer reading": (
            "accelerometer",
            [
                {"user": who["email"], "timestamp": AT + n, "x": 0.0, "y": 0.0, "z": 0.0}
                for n, who in enumerate(some[0])
            ],
        ),
        "one step trainer reading": (
            "step_trainer",
            [
                {"sensorReadingTime": AT + n, "serialNumber": who["serialNumber"], "distanceFromObject": 1}
                for n, who in enumerate(some[1])
            ],
        ),
        "one customer withdraws": (
            "customer",
            [{**who, "lastUpdateDate": LATER, "shareWithResearchAsOfDate": None} for who in some[2]],
        ),
        "one customer is new": (
            "customer",
            [{**who, "email": f"new-{n}@test.example", "serialNumber": f"new-{n}"} for n, who in enumerate(some[3])],
        ),
    }


def _agreeing(landing: Path) -> list[Record]:
    """Returns the records of some customers who agree to research and have no later record nearby."""

    def every() -> Iterator[Record]:
        with min((landing / "customer").iterdir()).open(encoding="utf-8") as lines:
            records = [json.loads(line) for line in islice(lines, 1000)]
        for record in records:
            if record.get("shareWithResearchAsOfDate") and [r["email"] for r in records].count(record["email"]) == 1:
                yield record

    return list(islice(every(), 4 * TIMES))


def _row(name: str, landings: list[Cost], builds: list[Cost]) -> str:
    landing = f"{statistics.median(cost.cpu for cost in landings):.2f}" if landings else ""
    wall, cpu = (statistics.median(getattr(cost, what) for cost in builds) for what in ("wall", "cpu"))
    return f"| {name} | {landing} | {wall:.2f} | {cpu:.2f} | {max(cost.peak for cost in builds) / 1e6:,.0f} |"
