"""Measurements of a release's readings, by person and overall: `quality.json`, and a plain verdict.

Measured over the moments, before they are cut into windows: rate, intervals, gaps, span, how many found a partner and
how far apart the two clocks' readings are, channels that never change. Words that actipy's `info` or the headers of
aeon's files have are theirs: `NumTicks`, `SampleRate` (Hz), `NumInterrupts`, `WearTime(days)`, `ResampleRate` (Hz);
`missing`, `equallength`, `univariate`. An interrupt is an interval longer than the option `max_gap`; the time of wear
is the sum of all others.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median
from typing import Any

from stedi._frozen import dataclass
from stedi.datasets.options import SPLITS, Options
from stedi.engines.duckdb import DuckDB

NAME = "quality.json"
TOO_SLOW = 5.0
"""Samples a second below which steps cannot be detected: people take up to 2.5 a second (138 a minute walking,
doi:10.2165/11599170-000000000-00000, more when running), and a signal of that rate needs more than two samples each
(the sampling theorem)."""
_STEP = "a step takes half a second"
_WINDOW = 2_000
"""The window that is spoken of where a release has none, milliseconds."""
_AT_ONCE = 4_000_000
"""Moments that are sorted at once."""
_BINS = 20
"""Bins of the histogram, from the tolerance before to the tolerance after."""
_DAY = 86_400_000
WITHIN = "moments_in_windows"
"""What `by_subject` has besides, if samples were interpolated."""
_CHANNELS = ("distance", "x", "y", "z")


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality of a release's readings.

    Attributes:
        verdict: One sentence: what the sampling rate allows.
        overall: Over everybody; computed from `by_subject` only, so that it can be rewritten when somebody leaves.
        by_subject: By person, in the order of their ids.
    """

    verdict: str
    overall: Mapping[str, Any]
    by_subject: Sequence[Mapping[str, Any]]

    def text(self) -> bytes:
        """Returns `quality.json`: a line a person."""
        head = json.dumps({"format": 1, "verdict": self.verdict, "overall": self.overall}, indent=2)
        people = ",\n    ".join(json.dumps(person) for person in self.by_subject)
        return f'{head[:-2]},\n  "by_subject": [\n    {people}\n  ]\n}}\n'.encode()


def measure(engine: DuckDB, options: Options) -> Quality:
    """Returns what the moments of a session are like.

    Args:
        engine: A session with `moments` (person, ms, distance, x, y, z, vectors, dt_ms), `present` (person, moments),
            `members` (person, customer_id, subject, split, since) and `step_trainer_trusted`.
        options: The release's.
    """
    low, high = ("list_min({})", "list_max({})") if options.vectors == "list" else ("{}", "{}")
    forms = {axis: ("{}", "{}") if axis == "distance" else (low, high) for axis in _CHANNELS}
    constant = ", ".join(
        f"case when min({least.format(axis)}) = max({most.format(axis)}) then '{axis}' end"
        for axis, (least, most) in forms.items()
    )
    width = _width(options.tolerance)
    # apart: a window over all columns takes twice as long as both
    engine.materialize(
        "measured",
        "select person, count(*) as ticks, max(ms) - min(ms) as span, "
        f"list_filter([{constant}], lambda c: c is not null) as constant, "
        f"histogram((floor(dt_ms / {width}) * {width})::integer) as lags, sum(vectors)::bigint as vectors "
        "from moments group by person",
    )
    intervals = (
        # `quantile_disc` gives a measured interval, never the mean of two; equal instants of two devices are no
        # interval
        "select person, quantile_disc(step, [0.05, 0.5, 0.95]) as steps, max(step) as longest, "
        f"count_if(step > {options.max_gap}) as interrupts, count_if(step <= {options.max_gap}) as kept, "
        f"coalesce(sum(case when step <= {options.max_gap} then step end), 0)::bigint as worn from (select person, "
        "ms - lag(ms) over (partition by person order by ms) as step from moments where {}) where step > 0 "
        "group by person"
    )
    # first without rows, for the types of its columns; then some people at a time, since sorting takes memory
    engine.materialize("intervals", intervals.format("false"))
    for first, last in _ranges(engine.rows("select person, moments from present order by person")):
        engine.run(f"insert into intervals {intervals.format(f'person between {first} and {last}')}")
    rows = engine.rows(
        "select b.subject, b.split, q.ticks, q.span, i.steps, i.longest, coalesce(i.interrupts, 0), "
        "coalesce(i.worn, 0), coalesce(i.kept, 0), q.constant, q.lags, q.vectors, s.readings from measured as q "
        "left join intervals as i using (person) join members as b using (person) join ("
        "select m.person, count(*) as readings from step_trainer_trusted as r join members as m "
        "on r.customer_id = m.customer_id where epoch_ms(r.sensorReadingTime) >= m.since group by m.person"
        ") as s using (person) order by b.subject"
    )
    return of_people([_person(*row) for row in rows], options)


def of_people(people: Sequence[Mapping[str, Any]], options: Options) -> Quality:
    """Returns the quality of a release of these people.

    Args:
        people: As in `by_subject`.
        options: The release's.
    """
    # only from what stands by person: after a recall the copy's holder has nothing else to compute it from
    rates = [person["SampleRate"] for person in people if person["SampleRate"] is not None]
    lags: Counter[int] = Counter()
    constant: Counter[str] = Counter()
    for person in people:
        lags.update({int(at): count for at, count in person["dt_ms_histogram"].items()})
        constant.update(person["constant_channels"])
    ticks, readings = sum(one["NumTicks"] for one in people), sum(one["readings"] for one in people)
    window = options.window or _WINDOW
    overall: dict[str, Any] = {
        "subjects": len(people),
        "NumTicks": ticks,
        "SampleRate": _spread(rates),
        "ResampleRate": options.resample,
        "NumInterrupts": sum(one["NumInterrupts"] for one in people),
        "WearTime(days)": round(sum(one["WearTime(days)"] for one in people), 6),
        "span_s": _spread([one["span_s"] for one in people]),
        "longest_gap_s": _spread([one["longest_gap_s"] for one in people if one["longest_gap_s"] is not None]),
        "missed_share": _spread([one["missed_share"] for one in people if one["missed_share"] is not None]),
        "readings": readings,
        "matched_share": round(ticks / readings, 4) if readings else None,
        "dt_ms_bin": _width(options.tolerance),
        "dt_ms_histogram": {str(at): lags[at] for at in sorted(lags)},
        "constant_channels": {axis: constant[axis] for axis in _CHANNELS if constant[axis]},
        "samples_in_window": max(1, round(median(rates) * window / 1000)) if rates else None,
        "univariate": False,
        "missing": any(one["NumInterrupts"] for one in people),
        "equallength": options.window is not None and (options.pad or options.resample is not None),
    }
    return Quality(verdict(rates, options.window), overall, tuple(people))


def of_release(measured: Quality, present: Collection[str], within: Mapping[str, int], options: Options) -> Quality:
    """Returns the quality for the people with rows in a release, and nobody else.

    Args:
        measured: Over everybody with moments.
        present: The subjects of the release.
        within: Of a resampled release how many moments of each are in its windows, so that an account can be made
            anew when somebody leaves.
        options: The release's.
    """
    people = [person for person in measured.by_subject if person["subject"] in present]
    return of_people([{**p, WITHIN: within[p["subject"]]} if within else p for p in people], options)


def read(file: Path) -> list[dict[str, Any]]:
    """Returns what a release's `quality.json` says by person.

    Raises:
        OSError: It cannot be read.
        ValueError: It is no such file.
    """
    try:
        people = json.loads(file.read_bytes())["by_subject"]
        return [person for person in people if person["subject"]]
    except (KeyError, TypeError) as error:
        raise ValueError("no quality of people") from error


def digest(people: Sequence[Mapping[str, Any]]) -> str:
    """Returns the SHA-256, hex, of the values by person."""
    return hashlib.sha256(json.dumps(people, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def verdict(rates: Sequence[float], window: int | None = None) -> str:
    """Returns what people's sampling rates allow, in one sentence.

    Args:
        rates: Samples a second of each person.
        window: The length of a window, milliseconds; without windows the sentence is about two seconds.
    """
    if not rates:
        return "no person has two samples: nothing can be trained on this"
    slow = sorted(rate for rate in rates if rate < TOO_SLOW)
    of = slow or sorted(rates)
    seconds, middle = (window or _WINDOW) / 1000, median(of)
    count = max(1, round(middle * seconds))
    rate = f"{middle:.1f}" if middle >= 0.05 else f"{middle:.1g}"
    holds = f"{rate} samples a second: a {seconds:g} s window holds {count:,} sample{'s' if count > 1 else ''}"
    if not slow:
        return f"{holds}; {_STEP}: fast enough to tell steps"
    if len(slow) == len(rates):
        return f"{holds}; {_STEP}: no step detector can be trained on this"
    return f"{len(slow):,} of {len(rates):,} people have {holds}; {_STEP}: no step detector can be trained on these"


def verdict_of(folder: Path) -> str:
    """Returns the verdict from a release's folder."""
    told: str = json.loads((folder / NAME).read_bytes())["verdict"]
    return told


def rates_sql(source: str, person: str, instant: str) -> str:
    """Returns the SELECT of each person's samples a second: of the median interval between distinct instants.

    Args:
        source: A relation of readings.
        person: Its column that identifies people.
        instant: Its column of timestamps.
    """
    return (
        f"select 1000.0 / quantile_disc(step, 0.5) as rate from (select {person} as person, "
        f"epoch_ms({instant}) - lag(epoch_ms({instant})) over (partition by {person} order by {instant}) as step "
        f"from {source}) where step > 0 group by person order by rate"
    )


def _person(
    subject: str,
    split: int,
    ticks: int,
    span: int,
    steps: Sequence[int] | None,
    longest: int | None,
    interrupts: int,
    worn: int,
    kept: int,
    constant: Sequence[str],
    lags: Mapping[int, int],
    vectors: int,
    readings: int,
) -> dict[str, Any]:
    low, middle, high = steps or (None, None, None)
    return {
        "subject": subject,
        "split": SPLITS[split],
        "NumTicks": ticks,
        "SampleRate": round(1000 / middle, 4) if middle else None,
        "interval_ms": {"p05": low, "median": middle, "p95": high},
        "NumInterrupts": interrupts,
        "longest_gap_s": None if longest is None else longest / 1000,
        # of the samples that a regular clock would have given, those that are not there
        "missed_share": round(max(0.0, 1 - kept * middle / worn), 4) if middle and worn else None,
        "WearTime(days)": round(worn / _DAY, 9),
        "span_s": span / 1000,
        "readings": readings,
        "matched_share": round(ticks / readings, 4),
        "vectors_per_moment": round(vectors / ticks, 4),
        "dt_ms_histogram": {str(at): lags[at] for at in sorted(lags)},
        "constant_channels": list(constant),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    """Returns how a number differs from person to person."""
    if not values:
        return None
    return {"min": round(min(values), 4), "median": round(median(values), 4), "max": round(max(values), 4)}


def _width(tolerance: int) -> int:
    """Returns the width of the histogram's bins, milliseconds."""
    return max(1, -(-2 * tolerance // _BINS))


def _ranges(counts: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Yields first and last person of parts that have about `_AT_ONCE` moments each."""
    total = 0
    placed = []
    for person, moments in counts:
        placed.append((total // _AT_ONCE, person))
        total += moments
    for _, part in groupby(placed, key=lambda place: place[0]):
        people = [person for _, person in part]
        yield people[0], people[-1]
