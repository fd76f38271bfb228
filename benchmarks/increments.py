"""Measures the cost of incremental builds, as shares of a full build of the same lake in the same run.

A lake of synthetic readings -> a night's new readings, withdrawals, or no change -> builds as whole processes.
The new readings copy one tick in a hundred to later times: every customer wears the device each night.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.measure import Cost
from stedi.privacy.pseudonyms import Key

_ONE = "one new reading of each feed"
_NIGHT = "+1% new readings"
TICK = 3_000
DAY = 86_400_000


@dataclass(frozen=True, slots=True)
class Line:
    """One row of the table: what was built, and its cost."""

    name: str
    cost: Cost


Round = list[Line]
"""What was measured in one lake, in order; the first line is a full build."""


@dataclass(frozen=True, slots=True)
class Point:
    """The costs of the builds of a lake of one size.

    Attributes:
        readings: Readings landed.
        full: A full build.
        one: A build of one new reading: the least cost of a build that commits.
        night: A build of 1% new readings.
    """

    readings: int
    full: Cost
    one: Cost
    night: Cost


class Bench:
    """One landed and built lake, to which new inputs are delivered.

    Args:
        stedi: The command.
        landing: A generated landing folder.
        out: An empty folder for the lake and for deliveries.
        environment: The environment of every command.
    """

    def __init__(self, stedi: Path, landing: Path, out: Path, environment: Mapping[str, str]) -> None:
        self._stedi, self._landing, self._out, self._environment = stedi, landing, out, environment
        self.lake = out / "lake"

    @property
    def key(self) -> Key:
        """The key of its lake."""
        return Key(bytes.fromhex(self._environment["STEDI_PSEUDONYM_KEY"]))

    def stedi(self, *words: str | Path) -> Cost:
        """Runs one command on the lake."""
        return measure.run([self._stedi, "--lake", self.lake, *words], self._environment)

    def land_all(self) -> None:
        """Lands the whole landing folder."""
        self.stedi("land", *(self._landing / feed for feed in ("customer", "accelerometer", "step_trainer")))

    def land_night(self, night: int) -> None:
        """Lands one percent of the readings again, shifted later by `night` times their whole time span."""
        import duckdb

        folder = self._out / f"night-{night}"
        if folder.exists():  # of an earlier round
            self.stedi("land", folder / "accelerometer", folder / "step_trainer")
            return
        columns = {
            "accelerometer": (
                "timestamp",
                "{user: 'VARCHAR', timestamp: 'BIGINT', x: 'DOUBLE', y: 'DOUBLE', z: 'DOUBLE'}",
            ),
            "step_trainer": (
                "sensorReadingTime",
                "{sensorReadingTime: 'BIGINT', serialNumber: 'VARCHAR', distanceFromObject: 'BIGINT'}",
            ),
        }
        for feed, (moment, types) in columns.items():
            (folder / feed).mkdir(parents=True)
            read = f"read_json('{self._landing}/{feed}/*.json', format = 'newline_delimited', columns = {types})"
            duckdb.sql(
                f'copy (select * replace ("{moment}" + {night} * {400 * DAY} as "{moment}") from {read} '
                f'where ("{moment}" // {TICK}) % 100 = {night}) '
                f"to '{folder}/{feed}/{feed}-{night}.json' (format json)"
            )
        self.stedi("land", folder / "accelerometer", folder / "step_trainer")

    def land_one(self, number: int) -> None:
        """Lands one reading of each feed, of people who have other readings, dated long before all of them."""
        at = 946_684_800_000 + number  # the first instants that landing accepts
        for feed, moment in (("accelerometer", "timestamp"), ("step_trainer", "sensorReadingTime")):
            with min((self._landing / feed).glob("*.json")).open(encoding="utf-8") as lines:
                record = json.loads(next(lines))
            path = self._out / f"one-{number}" / feed / f"{feed}-{number}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({**record, moment: at}) + "\n", "utf-8")
            self.stedi("land", path)

    def withdraw(self, share: float) -> int:
        """Lands a newer record without consent for some trusted customers, and returns for how many."""
        from stedi.lake import Lake

        found = Lake.open(self.lake).query(
            "select email, serialNumber, epoch_ms(registrationDate) as registrationDate from customers_trusted "
            "order by customer_id",
            role="officer",
        )
        customers = found.arrow().to_pylist()
        every = customers[:: max(1, round(1 / share))]
        now = int(time.time() * 1000)
        path = self._out / "customer" / f"withdrawn-{now}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text("".join(json.dumps({**record, "lastUpdateDate": now}) + "\n" for record in every), "utf-8")
        self.stedi("land", path)
        return len(every)


def run(bench: Bench, nights: int, repeats: int) -> tuple[list[Round], list[Cost]]:
    """Measures builds that follow a lake, in a new lake each round; only the last round follows it for all nights.

    Returns:
        The lines of each round, and what each night of the last one cost.
    """
    rounds = []
    for number in range(1, repeats + 1):
        lines, costs = _once(bench, nights if number == repeats else 1)
        rounds.append(lines)
    return rounds, costs


def _once(bench: Bench, nights: int) -> tuple[Round, list[Cost]]:
    bench.land_all()
    bench.stedi("build")
    lines = [Line("everything (`build --full`)", bench.stedi("build", "--full"))]
    lines.append(Line("nothing to do", bench.stedi("build")))
    bench.land_one(1)
    lines.append(Line(_ONE, bench.stedi("build")))
    count = bench.withdraw(0.001)
    withdrawn = Line(f"{count} customers (0.1%) withdraw", bench.stedi("build"))
    costs = []
    for night in range(1, nights + 1):
        bench.land_night(night)
        costs.append(bench.stedi("build"))
        print(f"  night {night}/{nights}: {costs[-1].wall:.2f} s", file=sys.stderr)
    lines += [Line(_NIGHT, costs[0]), withdrawn]
    if nights > 1:
        count = bench.withdraw(0.001)
        lines.append(Line(f"{count} customers withdraw, {nights} nights later", bench.stedi("build")))
        lines.append(Line(f"everything again, {nights} nights later", bench.stedi("build", "--full")))
    shutil.rmtree(bench.lake)
    return lines, costs


def medians(rounds: list[Round]) -> Round:
    """Returns the medians of wall and CPU time of each line, and its highest peak, over the rounds that have it."""
    return [
        Line(
            line.name,
            Cost(_median(costs, measure.wall), _median(costs, measure.cpu), max(cost.peak for cost in costs)),
        )
        for line in rounds[-1]
        if (costs := [other.cost for lines in rounds for other in lines if other.name == line.name])
    ]


def _median(costs: Iterable[Cost], of: Callable[[Cost], float]) -> float:
    return statistics.median(map(of, costs))


def table(rounds: list[Round], nights: list[Cost]) -> str:
    """Returns a Markdown table of medians; each share is of the full build of the same round, its first line."""
    rows = [
        "| | wall s | CPU s | peak MB | wall, full build = 1 | CPU, full build = 1 |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for line in medians(rounds):
        shares = [_share(rounds, line.name, of) for of in (measure.wall, measure.cpu)]
        took = f"{line.cost.wall:.2f} | {line.cost.cpu:.2f} | {line.cost.peak / 1e6:,.0f}"
        rows.append(f"| {line.name} | {took} | {shares[0]:.2f} | {shares[1]:.3f} |")
    if nights:
        walls = [cost.wall for cost in nights]
        worst = max(walls[1:], default=walls[0])
        wall, cpu = (_share(rounds, _NIGHT, of, beyond=_ONE) for of in (measure.wall, measure.cpu))
        rows += [
            "",
            f"Beyond a build of one reading of each feed, 1% more readings take {cpu:.1%} of the CPU time of a full "
            f"build and {wall:.1%} of its wall time.",
            "",
            f"{len(nights)} nights of +1% each: the first {walls[0]:.2f} s, "
            f"the median {statistics.median(walls):.2f} s, the slowest after it {worst:.2f} s, "
            f"{worst / walls[0]:.2f} times the first; "
            f"peak memory {min(c.peak for c in nights) / 1e6:,.0f} to {max(c.peak for c in nights) / 1e6:,.0f} MB.",
        ]
    return "\n".join(rows)


def _share(rounds: list[Round], name: str, of: Callable[[Cost], float], beyond: str = "") -> float:
    """Returns the median, over the rounds that have a line, of its share of the full build of the same round."""
    shares = []
    for lines in rounds:
        costs = {line.name: of(line.cost) for line in lines}
        if name in costs:
            shares.append((costs[name] - costs.get(beyond, 0.0)) / of(lines[0].cost))
    return statistics.median(shares)


def growth(points: list[Point]) -> str:
    """Returns a Markdown table of build costs by size of lake, and the fitted exponents of time and memory."""
    rows = [
        "| readings | full build, CPU s | peak MB | +1%, CPU s beyond one reading | peak MB |",
        "| --: | --: | --: | --: | --: |",
    ]
    for point in points:
        night = point.night.cpu - point.one.cpu
        rows.append(
            f"| {point.readings:,} | {point.full.cpu:.2f} | {point.full.peak / 1e6:,.0f} "
            f"| {night:.2f} | {point.night.peak / 1e6:,.0f} |"
        )
    if len(points) > 1:
        beyond = [(p.readings, p.full.cpu - p.one.cpu) for p in points]
        time_exponent = exponent(beyond)
        memory = exponent([(p.readings, p.full.peak) for p in points])
        rows += [
            "",
            f"Time of a full build beyond start-up grows as readings to the {time_exponent:.2f}, "
            f"its peak memory to the {memory:.2f}.",
        ]
    return "\n".join(rows)


def exponent(points: list[tuple[int, float]]) -> float:
    """Returns the slope of a least-squares line through the logarithms."""
    xs, ys = [math.log(x) for x, _ in points], [math.log(y) for _, y in points]
    return statistics.linear_regression(xs, ys).slope
