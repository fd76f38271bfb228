"""Measurements of the readings of a sample of people: sampling rates, gaps, differences in time, days, and signals.

A sample avoids a scan of all readings. Pseudonyms are evenly distributed and files are sorted by them: the people whose
pseudonym is below a bound are a fair sample, and their rows are adjacent. In a lake of some hundred thousand readings
the part is everybody. Each measurement is one SELECT that `stedi query` runs as well; it stands beside it. All of them
count readings, never people.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime

from stedi._frozen import dataclass
from stedi.catalog import TableState
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.privacy import consent
from stedi.privacy.pseudonyms import normalise
from stedi.report.disclosure import Disclosure, Figure

_ROWS = 400_000
"""About how many readings of the larger table are looked at."""
_MOST_DAYS = 60
_PEOPLE = 3
"""Whose signals are drawn."""
_POINTS = 240
"""Readings of each that are drawn, at most."""
_FEWEST = 8
"""Moments that a signal must have to be drawn."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar of a histogram.

    Attributes:
        label: What is counted.
        count: How many readings.
    """

    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """A histogram of readings.

    Attributes:
        name: Its name.
        bars: Its bars, in order.
        sql: Its SELECT, with `label` and `n`.
    """

    name: str
    bars: tuple[Bar, ...]
    sql: str


@dataclass(frozen=True, slots=True)
class DayCount:
    """Readings that were taken on one day.

    Attributes:
        day: The day, UTC.
        accelerometer: Accelerometer readings.
        step_trainer: Step trainer readings.
    """

    day: date
    accelerometer: int
    step_trainer: int


@dataclass(frozen=True, slots=True)
class Signal:
    """A stretch of one person's readings, under a letter that means nothing elsewhere.

    Attributes:
        person: The letter.
        rate: Accelerometer readings a second, by the median interval.
        motion: Seconds since the start of the stretch, and the length of the acceleration vector then.
        step_trainer: Seconds since the start of the stretch, and the distance that the step trainer read then.
    """

    person: str
    rate: float
    motion: tuple[tuple[float, float], ...]
    step_trainer: tuple[tuple[float, int], ...]


@dataclass(frozen=True, slots=True)
class Measurements:
    """The measurements of a sample of readings.

    Attributes:
        share: The share of all people in the sample, by pseudonym, 1 for everybody.
        people: The number of these people in `accelerometer_trusted`.
        readings: How many accelerometer readings.
        days: Readings by day of measurement, the last ones.
        days_total: On how many days readings were taken.
        days_sql: The SELECT that gives them.
        histograms: Sampling rates, gaps, differences in time.
        signals: A few people's readings.
        signals_reason: Why there are none, if there are none.
    """

    share: float
    people: Figure
    readings: int
    days: tuple[DayCount, ...]
    days_total: int
    days_sql: str
    histograms: tuple[Histogram, ...]
    signals: tuple[Signal, ...]
    signals_reason: str


_RATES = (
    ("100 a second and more", 10),
    ("50 to 100 a second", 20),
    ("20 to 50 a second", 50),
    ("10 to 20 a second", 100),
    ("5 to 10 a second", 200),
    ("2 to 5 a second", 500),
    ("1 to 2 a second", 1000),
    ("every 1 to 2 s", 2000),
    ("every 2 to 5 s", 5000),
    ("slower", None),
)
"""Bins of the interval between two readings, as rates, and each one's end in milliseconds."""
_GAPS = (
    ("5 to 10 s", 10_000),
    ("10 to 30 s", 30_000),
    ("30 s to 1 min", 60_000),
    ("1 to 10 min", 600_000),
    ("10 min to 1 h", 3_600_000),
    ("1 h to 1 day", 86_400_000),
    ("longer than a day", None),
)
_LAGS = (
    ("same millisecond", 0),
    ("up to 1 ms", 1),
    ("2 to 5 ms", 5),
    ("6 to 10 ms", 10),
    ("11 to 20 ms", 20),
    ("21 to 50 ms", 50),
    ("51 to 100 ms", 100),
    ("101 ms to 1 s", 1000),
    ("longer, or none", None),
)


def measure(
    engine: DuckDB,
    context: Context,
    states: Mapping[str, TableState],
    pool: Disclosure,
    as_of: datetime | None,
) -> Measurements:
    """Measures a sample of the readings.

    Args:
        engine: A session in which the lake's tables are bound.
        context: The lake.
        states: The tables.
        pool: The disclosure control of counts of people.
        as_of: The moment for which consent is evaluated.
    """
    current = states["accelerometer_trusted"].current
    rows = current.total("records") if current else 0
    # by the first four digits of pseudonyms, which are those of a hash; files are sorted by them, so few are read
    parts = min(0x10000, max(1, round(0x10000 * _ROWS / rows))) if rows > _ROWS else 0x10000
    within = "true" if parts == 0x10000 else f"customer_id < '{parts:04x}'"
    motion = f"(select * from accelerometer_trusted where {within})"
    steps = f"(select * from step_trainer_trusted where {within})"
    [(people, readings)] = engine.rows(f"select count(distinct customer_id), count(*) from {motion}")
    days_sql = (
        "select day, sum(a)::bigint as accelerometer, sum(s)::bigint as step_trainer from ("
        f'select "timestamp"::date as day, 1 as a, 0 as s from {motion} union all '
        f"select sensorReadingTime::date, 0, 1 from {steps}) group by day order by day"
    )
    days = [DayCount(day, int(a), int(s)) for day, a, s in engine.rows(days_sql)]
    histograms = (
        _histogram(
            engine, "intervals between accelerometer readings", _RATES, _intervals(motion), "true", closed=False
        ),
        _histogram(
            engine, "gaps between accelerometer readings", _GAPS, _intervals(motion), "ms >= 5000", closed=False
        ),
        _histogram(
            engine,
            "time from a step trainer reading to the nearest accelerometer reading",
            _LAGS,
            _lags(motion, steps),
            "true",
            closed=True,
        ),
    )
    signals, why = _signals(engine, within, pool, as_of)
    return Measurements(
        parts / 0x10000,
        pool.figure(int(people)),
        int(readings),
        tuple(days[-_MOST_DAYS:]),
        len(days),
        days_sql,
        histograms,
        signals,
        why,
    )


def _intervals(motion: str) -> str:
    """Returns the SELECT of the milliseconds between neighbouring moments of one person."""
    return (
        'select epoch_ms("timestamp") - lag(epoch_ms("timestamp")) over (partition by customer_id order by '
        f'"timestamp") as ms from (select distinct customer_id, "timestamp" from {motion})'
    )


def _lags(motion: str, steps: str) -> str:
    """Returns the SELECT of the milliseconds from each step trainer reading to that person's nearest reading."""
    moments = f'(select distinct customer_id, "timestamp" as moment from {motion})'
    return (
        # `least` ignores null: without a reading before, the one after counts
        f"select least(abs(epoch_ms(sensorReadingTime) - epoch_ms(b.moment)), abs(epoch_ms(sensorReadingTime) - "
        f"epoch_ms(f.moment))) as ms from {steps} as s "
        f"asof left join {moments} as b on s.customer_id = b.customer_id and s.sensorReadingTime >= b.moment "
        f"asof left join {moments} as f on s.customer_id = f.customer_id and s.sensorReadingTime <= f.moment"
    )


def _histogram(
    engine: DuckDB,
    name: str,
    bins: tuple[tuple[str, int | None], ...],
    values: str,
    condition: str,
    *,
    closed: bool,
) -> Histogram:
    """Returns a histogram of milliseconds; `closed` bins include their end. None counts in the last bin."""
    sign = "<=" if closed else "<"
    cases = " ".join(f"when ms {sign} {end} then {place}" for place, (_, end) in enumerate(bins) if end is not None)
    unknown = "true" if closed else "ms is not null"
    sql = (
        f"select case {cases} else {len(bins) - 1} end as bin, count(*) as n from ({values}) "
        f"where {condition} and {unknown} group by bin order by bin"
    )
    found = {int(place): int(count) for place, count in engine.rows(sql)}
    return Histogram(name, tuple(Bar(label, found.get(place, 0)) for place, (label, _) in enumerate(bins)), sql)


def _signals(
    engine: DuckDB,
    within: str,
    pool: Disclosure,
    as_of: datetime | None,
) -> tuple[tuple[Signal, ...], str]:
    """Returns excerpts from the readings of the people with the most readings in the sample."""
    moments = f'select distinct customer_id, epoch_ms("timestamp") as moment from accelerometer_trusted where {within}'
    engine.view(
        "paced",
        "select customer_id, moment, moment - lag(moment) over (partition by customer_id order by moment) as ms "
        f"from ({moments})",
    )
    found = engine.rows(
        "select customer_id, rate, greatest(since, begun) from (select customer_id, count(*) as n, "
        "min(moment) as since, 1000.0 / quantile_disc(ms, 0.5) as rate from paced where ms > 0 group by customer_id) "
        "inner join (select customer_id, min(epoch_ms(sensorReadingTime)) as begun from step_trainer_trusted "
        f"where {within} group by customer_id) using (customer_id) where n >= {_FEWEST} "
        "order by rate desc, customer_id limit 200"
    )
    # a drawn signal must not be one of a handful of people's
    if pool.small(len(found)) or not found:
        return (), f"there are fewer than {pool.least} people with enough readings of both kinds"
    # by the landed records: who has withdrawn since the last build is not drawn
    now = _consenting(engine, [row[0] for row in found], as_of)
    chosen = [row for row in found if row[0] in now][:_PEOPLE]
    if not chosen:
        return (), "nobody of the part that was looked at consents now"
    return tuple(_signal(engine, "ABC"[place], *row) for place, row in enumerate(chosen)), ""


def _signal(engine: DuckDB, letter: str, who: str, rate: float, start: int) -> Signal:
    motion = engine.rows(
        'select epoch_ms("timestamp"), avg(sqrt(x * x + y * y + z * z)) from accelerometer_trusted where '
        f"customer_id = '{who}' and \"timestamp\" >= instant({start}) group by 1 order by 1 limit {_POINTS}"
    )
    begin, end = (motion[0][0], motion[-1][0]) if motion else (start, start)
    steps = engine.rows(
        "select epoch_ms(sensorReadingTime), min(distanceFromObject) from step_trainer_trusted where "
        f"customer_id = '{who}' and sensorReadingTime >= instant({begin}) and sensorReadingTime <= instant({end}) "
        f"group by 1 order by 1 limit {_POINTS}"
    )
    return Signal(
        letter,
        round(rate, 2),
        tuple(((at - begin) / 1000, round(length, 3)) for at, length in motion),
        tuple(((at - begin) / 1000, int(distance)) for at, distance in steps),
    )


def _consenting(engine: DuckDB, people: list[str], as_of: datetime | None) -> set[str]:
    """Returns the consenting ones of some people, by all landed records."""
    listed = ", ".join(f"'{who}'" for who in people)
    named = engine.rows(f"select customer_id, email from customers_trusted where customer_id in ({listed})")
    now = round(as_of.timestamp() * 1000) if as_of else 0
    engine.insert_rows("measured", {"address": "varchar"}, ((email,) for _, email in named))
    engine.spellings("spelled", "select email as address from customers_landing", "select address from measured")
    records = "select email, lastUpdateDate, shareWithResearchAsOfDate from customers_landing"
    agree = consent.agreeing(engine.stream(f"{records} where email in (select address from spelled)"), now)
    return {who for who, email in named if normalise(email) in agree}
