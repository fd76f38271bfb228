"""The proof of a release: compares its files with the current landed records.

Its people, their moments and their labels are computed a second time (`due`), and every written value is compared with
them (`_Values`). This code shares nothing with the code that chose the people or computed the rows. Records that no
build has seen count, so that a withdrawal which was landed a moment ago stops the release. The gate keeps train,
validation and test apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stedi.datasets import due
from stedi.datasets.due import Allowed
from stedi.datasets.labels import LabelFile
from stedi.datasets.manifest import File
from stedi.datasets.options import SPLITS, Options
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, path_literal
from stedi.errors import AuditFailed

_ENOUGH = 5
"""Samples from which on two windows, or successive moments of one instant each, are hardly equal by chance."""
_AT_ONCE = 2_000_000
"""Rows, or samples of windows, to compare at once."""
_EXACT = 1e-12
"""By how much a mean may differ, as a share of its largest term: sums in another order differ by less."""
_LINEAR = 1e-9
"""The same for interpolated samples."""

_MEANINGS = {
    "consent": "subjects who consent now, found others: {}; records were landed meanwhile: run this again",
    "public": "subjects who share with the public, found others: {}",
    "early": "only readings from after consent, found subjects with earlier ones: {}",
    "owner": "each subject's own step trainer readings and the readings paired with them, found other samples: {}",
    "label": "each subject's own labels, found rows with others: {}",
    "filled": "no samples where a window was padded, found {}",
    "person": "each subject in one split, found {} in several",
    "device": "customers who share a serial number in one split, found serial numbers in several: {}",
    "window": "no window in two splits, found {} with equal values: the same recording seems to have been delivered "
    "for several customers",
    "moments": f"no recording in two splits, found runs of {_ENOUGH} equal moments: {{}}; the same recording seems to "
    "have been delivered for several customers",
    "subjects": "subjects.parquet to say who is in which split with how many rows, found differences: {}",
}


def prove(
    engine: DuckDB,
    allowed: Allowed,
    folder: Path,
    files: Sequence[File],
    options: Options,
    spoken: LabelFile | None,
    *,
    release: str,
) -> None:
    """Proves that a release may be handed out.

    Args:
        engine: The session that has written it: `members` and `present` say when each subject's first moment was,
            `step_trainer_trusted` and `accelerometer_trusted` are bound.
        allowed: Who may be in it.
        folder: The release's folder.
        files: Its data files.
        options: Its options.
        spoken: Its labels, if it has some.
        release: `NAME@VERSION`, for the message.

    Raises:
        AuditFailed: It may not.
    """
    # after all files are written: who withdrew while they were is seen, too
    allowed.renew(engine)
    since = "coalesce(a.shared, 0)" if allowed.since_consent and options.purpose == "public" else "0"
    engine.materialize(
        "begun",
        f"select a.person, a.subject, a.customer_id, {since} as since, p.first from allowed as a join members as b "
        "on a.subject = b.subject join present as p on b.person = p.person",
    )
    # from the files as they lie, not from the relations that they were written from
    _written(engine, folder, files, options)
    counts = {
        "consent": "select count(*) from written where subject not in (select subject from allowed where consents)",
        "person": "select count(*) from (select subject from written group by all having count(distinct split) > 1)",
        "device": "select count(*) from (select c.serialNumber from customers_landing as c join persons as p on "
        "c.email = p.address join allowed as a on p.person = a.person join written as w on a.subject = w.subject "
        "group by c.serialNumber having count(distinct w.split) > 1)",
        "subjects": "select count(*) from (select subject, split, rows from written) as w full join "
        f"{_read(folder, ['subjects.parquet'])} as s on w.subject = s.subject and "
        "w.split = s.split and w.rows = s.rows where w.subject is null or s.subject is null",
        "window" if options.window is not None else "moments": _equal(options),
    }
    if options.purpose == "public":
        counts["public"] = (
            "select count(*) from written where subject not in (select subject from allowed where public)"
        )
    if allowed.since_consent:
        also = "or w.earliest < a.shared" if options.purpose == "public" else ""
        counts["early"] = (
            "select count(*) from written as w join allowed as a on w.subject = a.subject "
            f"where w.earliest < a.since {also}"
        )
    order = [name for name in _MEANINGS if name in counts]
    [counted] = engine.rows("select " + ", ".join(f"({counts[name]}) as {name}" for name in order))
    found = dict(zip(order, counted, strict=True))
    # counted by hash first, which is cheap; only what that finds is looked at again
    if found.get("window"):
        found["window"] = engine.rows(_equal_by_more_than_chance(folder, files, options))[0][0]
    # values are compared last: that takes longest, and a release that may not be is refused sooner
    if not any(found.values()):
        values = _Values(engine, allowed, folder, files, options, spoken)
        found |= {"owner": values.off(), "filled": values.filled(), "label": values.mislabelled()}
    for name, meaning in _MEANINGS.items():
        if found.get(name):
            raise AuditFailed(f"{release}: expected {meaning.format(f'{found[name]:,}')}; nothing was written")


def _read(folder: Path, paths: Iterable[str]) -> str:
    """Returns the relation of data files."""
    listed = ", ".join(path_literal(str(folder / path)) for path in paths)
    return f"read_parquet([{listed}], hive_partitioning = false)"


def _data(files: Iterable[File]) -> list[File]:
    return [file for file in files if file.path.startswith("data/")]


_WINDOW = "hash(w.t_ms, w.distance, w.x, w.y, w.z)"
"""The columns in which equal windows agree."""
_TWICE = "select value from values_written group by value having min(split) <> max(split)"
"""What stands in two splits."""


def _instant(options: Options) -> str:
    """Returns the instant of a row `w`, epoch milliseconds, beside `begun` as `p`."""
    time = "w.moment" if options.window is None else "w.start"
    return f"epoch_ms({time})" if options.time == "absolute" else f"p.first + {time}"


def _written(engine: DuckDB, folder: Path, files: Iterable[File], options: Options) -> None:
    """Makes `values_written`, a row each: split, subject, ms, value: a hash; and `written` by subject and split.

    Equal windows have equal hashes, wherever they begin. Equal moments have equal hashes if they are of one instant.
    """
    value, level = _WINDOW, "0"
    if options.window is None:
        level = "hash(w.distance, w.x, w.y, w.z)"
        value = f"hash({_instant(options)}, w.distance, w.x, w.y, w.z)"
    parts = [
        f"select '{split}' as split, w.subject, {_instant(options)} as ms, {value} as value, {level} as level "
        f"from {read} as w left join begun as p on w.subject = p.subject"
        for split, read in _by_split(folder, files)
    ]
    engine.materialize("values_written", " union all ".join(parts))
    engine.materialize(
        "written",
        "select subject, split, count(*) as rows, min(ms) as earliest from values_written group by subject, split",
    )


def _by_split(folder: Path, files: Iterable[File]) -> Iterator[tuple[str, str]]:
    """Yields each split with files, and their relation."""
    listed = [file.path for file in _data(files)]
    for split in SPLITS:
        if paths := [path for path in listed if path.startswith(f"data/{split}-")]:
            yield split, _read(folder, paths)


def _equal_by_more_than_chance(folder: Path, files: Iterable[File], options: Options) -> str:
    """Returns the SELECT of how many of the equal windows that `_equal` counts are equal by more than chance.

    Those of few samples, or of such as never change, count only if they begin at the same instant.
    """
    varies = " or ".join(f"list_min(w.{name}) <> list_max(w.{name})" for name in ("distance", "x", "y", "z"))
    telling = f"len(w.t_ms) >= {_ENOUGH} and ({varies})"
    parts = [
        f"select '{split}' as split, {_WINDOW} as value, "
        f"case when {telling} then 0 else {_instant(options)} end as began from {read} as w "
        f"left join begun as p on w.subject = p.subject where {_WINDOW} in ({_TWICE})"
        for split, read in _by_split(folder, files)
    ]
    twice = f"select 1 from ({' union all '.join(parts)}) group by value, began having min(split) <> max(split)"
    return f"select count(*) from ({twice})"


def _equal(options: Options) -> str:
    """Returns the SELECT that counts windows, or runs of moments, in two splits."""
    if options.window is not None:
        return f"select count(*) from ({_TWICE})"
    # single moments are equal by chance; who has too few of them can have no run, and needs no window function
    often = (
        f"select subject from values_written where value in ({_TWICE}) group by subject having count(*) >= {_ENOUGH}"
    )
    before = ", ".join(f"lag(value, {rows}) over w" for rows in range(1, _ENOUGH - 1))
    runs = (
        f"select split, hash(value, {before}) as run, lag(value, {_ENOUGH - 1}) over w as first, "
        # values that never change are equal for any two people at rest
        "min(level) over w <> max(level) over w as varies from values_written "
        f"where subject in ({often}) window w as (partition by subject order by ms, value "
        f"rows between {_ENOUGH - 1} preceding and current row)"
    )
    return (
        f"select count(*) from (select hash(run, first) as whole from ({runs}) where first is not null and varies "
        "group by whole having min(split) <> max(split))"
    )


class _Values:
    """Compares every written value with the trusted readings of the same customer, some people at a time.

    Args:
        engine: The session, as of `prove`.
        allowed: Who may be in it.
        folder: The release's folder.
        files: Its data files; one holds whole people.
        options: Its options.
        spoken: Its labels, if it has some.
    """

    def __init__(
        self,
        engine: DuckDB,
        allowed: Allowed,
        folder: Path,
        files: Iterable[File],
        options: Options,
        spoken: LabelFile | None,
    ) -> None:
        self._engine, self._allowed, self._folder, self._options = engine, allowed, folder, options
        self._spoken = spoken
        self._files = _data(files)

    def off(self) -> int:
        """Returns how many rows, or samples of windows, are not what the trusted readings say."""
        return sum(self._off(paths) for paths in self._parts())

    def filled(self) -> int:
        """Returns how many places that hold no sample hold something nevertheless."""
        if not self._options.pad:
            return 0
        names = ["distance", "x", "y", "z", "dt_ms", "t_ms"]
        shown = ", ".join(f"unnest({name}) as {name}" for name in (*names, "mask"))
        empty = " and ".join(
            f"len({name}) = 0" if self._options.vectors == "list" and name in "xyz" else f"{name} = 0" for name in names
        )
        read = _read(self._folder, (file.path for file in self._files))
        [(found,)] = self._engine.rows(
            f"select count(*) from (select {shown} from {read}) where not mask and not ({empty})"
        )
        return int(found)

    def _parts(self) -> Iterator[list[str]]:
        """Yields the files that are compared at once."""
        part: list[str] = []
        total = 0
        for file in self._files:
            samples = self._samples_of(file)
            if part and total + samples > _AT_ONCE:
                yield part
                part, total = [], 0
            part.append(file.path)
            total += samples
        yield part

    def _samples_of(self, file: File) -> int:
        if self._options.window is None:
            return file.rows
        [(found,)] = self._engine.rows(
            f"select coalesce(sum(num_values), 0) from parquet_metadata({literal(str(self._folder / file.path))}) "
            "where path_in_schema like 't_ms%'"
        )
        return int(found)

    def mislabelled(self) -> int:
        """Returns how many rows have another label, or other events, than the file of labels gives them."""
        spoken, options = self._spoken, self._options
        if spoken is None:
            return 0
        due.labels(self._engine, spoken, self._allowed.key.customer_id)
        events = "w.events" if any(row.end is None for row in spoken.labels) else "null"
        if options.window is None:
            must = due.labels_of_moments("labels_written", spoken)
        else:
            must = due.labels_of_windows("labels_written", options.window, spoken)
        return sum(self._mislabelled(file, events, must) for file in self._files)

    def _mislabelled(self, file: File, events: str, must: str) -> int:
        self._engine.materialize(
            "labels_written",
            f"select p.person, {_instant(self._options)} as ms, w.label, {events} as events from "
            f"{_read(self._folder, [file.path])} as w left join begun as p on w.subject = p.subject",
        )
        other = "" if events == "null" else "or w.events is distinct from d.events"
        [(found,)] = self._engine.rows(
            f"select count(*) from labels_written as w left join ({must}) as d on w.person = d.person and "
            f"w.ms = d.ms where d.ms is null or w.label is distinct from d.label {other}"
        )
        return int(found)

    def _off(self, paths: Sequence[str]) -> int:
        engine, read = self._engine, _read(self._folder, paths)
        engine.materialize("compared", f"select * from begun where subject in (select subject from {read})")
        engine.view("moments_due", due.moments(self._options))
        if self._options.resample is None:
            engine.view("samples_written", self._samples(read))
            [(found,)] = engine.rows(self._measured())
        else:  # of a view it is not known how many there are, and few would be joined one by one
            engine.materialize("samples_written", self._samples(read))
            [(found,)] = engine.rows(self._between())
        return int(found)

    def _samples(self, read: str) -> str:
        """Returns the SELECT of the written samples: person, ms, distance, x, y, z, dt_ms and other columns."""
        options = self._options
        whose = f"{read} as w left join compared as p on w.subject = p.subject"
        if options.window is None:
            shown = "w.distance, w.x, w.y, w.z, w.dt_ms, w.vectors"
            return f"select p.person, {_instant(options)} as ms, {shown} from {whose}"
        lists = ["distance", "x", "y", "z", "dt_ms"]
        lists += ["made_up"] if options.resample is not None else []
        lists += ["mask"] if options.pad else []
        shown = ", ".join(f"unnest(w.{name}) as {name}" for name in lists)
        every = f"select p.person, {_instant(options)} + unnest(w.t_ms) as ms, {shown} from {whose}"
        return f"select * from ({every}) where mask" if options.pad else every

    def _measured(self) -> str:
        """Returns the SELECT of how many samples are no moment, or have another value than the moment."""
        equal = "w.x = e.x and w.y = e.y and w.z = e.z"
        if self._options.vectors == "mean":
            equal = " and ".join(f"abs(w.{axis} - e.{axis}) <= {_EXACT} * e.largest" for axis in "xyz")
        if self._options.window is None:
            equal += " and w.vectors = e.n"
        return (
            "select count(*) from samples_written as w left join moments_due as e on w.person = e.person and "
            f"w.ms = e.ms and w.distance = e.distance where not coalesce(w.dt_ms = e.dt and {equal}, false)"
        )

    def _between(self) -> str:
        """Returns the SELECT of how many samples are neither a moment nor between two as a straight line has it."""
        names = ("distance", "x", "y", "z", "dt")
        # of two devices at one instant, the one with the lesser distance is interpolated: as in a struct's order of
        # values
        once = (
            "select person, ms, min(distance)::double as distance, any_value(x) as x, any_value(y) as y, "
            "any_value(z) as z, any_value(dt) as dt, any_value(largest) as largest from moments_due group by person, ms"
        )
        ahead = ", ".join(f"lead({name}) over w as after_{name}" for name in ("ms", *names, "largest"))
        known = f"select *, {ahead} from ({once}) window w as (partition by person order by ms)"
        share = "((w.ms - k.ms) / (k.after_ms - k.ms))"
        line = {
            n: f"case when w.ms = k.ms then k.{n} else k.{n} * (1 - {share}) + k.after_{n} * {share} end" for n in names
        }
        most = f"{_LINEAR} * greatest(k.largest, case when w.made_up then k.after_largest end)"
        far = f"{_LINEAR} * greatest(abs(k.distance), case when w.made_up then abs(k.after_distance) end)"
        tests = [f"abs(w.{axis} - {line[axis]}) <= {most}" for axis in "xyz"]
        tests += [
            f"abs(w.distance - {line['distance']}) <= {far}",
            # `dt_ms` is written as a whole number
            f"abs(w.dt_ms - {line['dt']}) <= 0.5 + {_LINEAR}",
            "w.made_up = (w.ms <> k.ms)",
            f"(not w.made_up or k.after_ms - k.ms <= {self._options.max_gap})",
        ]
        return (
            f"select count(*) from samples_written as w asof left join ({known}) as k on w.person = k.person and "
            f"w.ms >= k.ms where not coalesce({' and '.join(tests)}, false)"
        )
