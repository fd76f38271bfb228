"""Windows: the moments of a person cut into pieces of equal length without gaps.

A person's moments form *segments*, in which neighbours are at most `max_gap` apart. Windows begin with a segment, then
every `stride`; a window that would only repeat samples of the previous one is dropped, so the last of a segment may be
shorter. SELECTs over `moments` give one row a sample, in order; `Assembly` makes rows of lists of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stedi.datasets.options import Options

if TYPE_CHECKING:
    import pyarrow as pa

_OF_WINDOW = ("person", "start", "measured", "ended")
_MEASURED = ("distance", "x", "y", "z", "dt_ms")
_GROUP = 250_000
"""Samples of a row group, and of one window more at most."""


def segments(options: Options) -> str:
    """Returns the SELECT of the segments of `moments`: person, begun, ended, in epoch milliseconds."""
    return (
        # a segment ends with the moment before the next one begins, the last with the person's last moment
        "select person, ms as begun, coalesce(lead(before) over (partition by person order by ms), latest) as ended "
        "from (select person, ms, lag(ms) over (partition by person order by ms) as before, "
        "max(ms) over (partition by person) as latest from moments) "
        f"where before is null or ms - before > {options.max_gap}"
    )


def samples(options: Options, first: int, last: int) -> str:
    """Returns the SELECT of the samples of all windows of the people from one number to another.

    Gives person, start (of the window, epoch milliseconds), t_ms, distance, x, y, z, dt_ms, with `resample` made_up and
    measured (how many moments the window has) and ended (its segment's end), in the order of the release.
    """
    order = "order by person, start, t_ms, distance, dt_ms, x, y, z"
    if options.resample is not None:
        return f"{_resampled(options, first, last)} {order}"
    shown = ", ".join(_MEASURED)
    return f"select person, start, (ms - start)::integer as t_ms, {shown} from ({_cut(options, first, last)}) {order}"


def _cut(options: Options, first: int, last: int) -> str:
    """Returns the SELECT of each moment with the start of each window that contains it."""
    assert options.window is not None
    assert options.stride is not None
    found = (
        "select m.*, g.begun, m.ms - g.begun as since, g.ended - g.begun as lasts from moments as m "
        f"asof join segments as g on m.person = g.person and m.ms >= g.begun where m.person between {first} and {last}"
    )
    # each moment is in one window at most: no list of windows to unnest
    if options.stride >= options.window:
        between = f"where since % {options.stride} < {options.window}"
        return f"select *, begun + since // {options.stride} * {options.stride} as start from ({found}) {between}"
    numbers = f"unnest(range({_lowest(options)}, {_highest(options)} + 1))"
    return f"select *, begun + {numbers} * {options.stride} as start from ({found})"


def _lowest(options: Options) -> str:
    """Returns the number, in its segment, of the first window that contains a moment."""
    assert options.window is not None
    late = f"(since - {options.window}) // {options.stride} + 1"
    return f"case when since < {options.window} then 0 else {late} end"


def _highest(options: Options) -> str:
    """Returns the number of the last window that contains a moment and is not dropped."""
    most = f"case when lasts < {options.window} then 0 else (lasts - {options.window}) // {options.stride} + 1 end"
    return f"least(since // {options.stride}, {most})"


def _resampled(options: Options, first: int, last: int) -> str:
    """Returns the SELECT of interpolated samples: on a grid from each window's start to the end of its segment."""
    assert options.window is not None
    assert options.resample is not None
    # rounding can need one point more than the quotient, and the start is one; those beyond the window are filtered
    points = int(options.window * options.resample / 1000) + 2
    within = f"person between {first} and {last}"
    # two devices may share a moment: the first by its values represents it
    once = (
        f"select person, ms, {', '.join(f'r.{name} as {name}' for name in _MEASURED)} from (select person, ms, "
        f"min(struct_pack({', '.join(f'{name} := {name}' for name in _MEASURED)})) as r "
        f"from moments where {within} group by person, ms)"
    )
    ahead = ", ".join(f"lead({name}) over w as next_{name}" for name in ("ms", *_MEASURED))
    between = ", ".join(
        f"case when s.ms = g.t then s.{name} else s.{name} + (s.next_{name} - s.{name}) * "
        f"((g.t - s.ms)::double / (s.next_ms - s.ms)) end as {name}"
        for name in _MEASURED
        if name != "dt_ms"
    )
    lag = (
        "case when s.ms = g.t then s.dt_ms else round(s.dt_ms + (s.next_dt_ms - s.dt_ms) * "
        "((g.t - s.ms)::double / (s.next_ms - s.ms))) end::integer as dt_ms"
    )
    return (
        f"with known as (select *, {ahead} from ({once}) window w as (partition by person order by ms)), "
        f"made as (select person, start, count(*)::integer as measured, any_value(begun + lasts) as ended from "
        f"({_cut(options, first, last)}) group by person, start), "
        f"grid as (select * from (select person, start, measured, ended, unnest(list_transform(range({points}), "
        f"lambda i: round(i * 1000 / {options.resample!r}::double)::integer)) as t_ms, start + t_ms as t from made) "
        f"where t_ms < {options.window} and t <= ended) "
        f"select g.person, g.start, g.t_ms, {between}, {lag}, s.ms <> g.t as made_up, g.measured, g.ended "
        "from grid as g asof join known as s on g.person = s.person and g.t >= s.ms"
    )


def longest(options: Options, first: int, last: int) -> str:
    """Returns the SELECT of the greatest number of samples in a window with enough of them."""
    count = "any_value(measured)" if options.resample is not None else "count(*)"
    return (
        f"select max(n) from (select count(*) as n from ({samples(options, first, last)}) "
        f"group by person, start having {count} >= {options.min_samples})"
    )


class Assembly:
    """Makes windows, rows of lists, of samples in order; the rows do not depend on how the samples are batched.

    Args:
        options: The release's.
        pad: The length up to which lists are filled, or 0.

    Attributes:
        kept: person, start and until (nothing after this instant is in it) of each window that was made.
        samples: How many samples these have.
    """

    def __init__(self, options: Options, pad: int = 0) -> None:
        self._options, self._pad = options, pad
        self.kept: list[pa.Table] = []
        self.samples = 0
        self._person, self._next = -1, 0

    def rows(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.Table]:
        """Yields the windows: person, window, start, then the lists; each table is a row group."""
        import pyarrow as pa

        waiting: pa.Table | None = None
        for batch in batches:
            arrived = pa.Table.from_batches([batch])
            waiting = arrived if waiting is None else pa.concat_tables([waiting, arrived])
            # not after each batch: a row group begins after `_GROUP` samples, however the engine has batched them
            while waiting.num_rows > 2 * _GROUP:
                starts = _starts(waiting)
                # whole windows only: the last may go on in the next batch
                cut = next((at for at in starts if at >= _GROUP), 0)
                if not cut:
                    break
                yield from self._windows(waiting.slice(0, cut))
                waiting = waiting.slice(cut)
        if waiting is not None and waiting.num_rows:
            yield from self._windows(waiting)

    def _windows(self, table: pa.Table) -> Iterator[pa.Table]:
        import pyarrow as pa
        import pyarrow.compute as pc

        table = table.combine_chunks()
        begins = _starts(table)
        offsets = pa.array([*begins, table.num_rows], pa.int32())
        heads = pa.array(begins, pa.int64())
        lengths = pc.subtract(offsets.slice(1), offsets.slice(0, len(begins)))
        measured = table["measured"].take(heads) if "measured" in table.column_names else lengths
        enough = pc.greater_equal(measured, self._options.min_samples)
        # samples of a window are neighbours: lists over them need offsets, no grouping and no copy
        lists = {
            name: pa.ListArray.from_arrays(offsets, table[name].combine_chunks())
            for name in table.column_names
            if name not in _OF_WINDOW
        }
        person, start = table["person"].take(heads), table["start"].take(heads)
        last = pc.subtract(offsets.slice(1), 1)
        resampled = "ended" in table.column_names
        until = table["ended"].take(heads) if resampled else pc.add(start, table["t_ms"].take(last).cast(pa.int64()))
        found = pa.table({"person": person, "start": start, "until": until, **lists}).filter(enough).combine_chunks()
        if not found.num_rows:
            return
        self.kept.append(found.select(["person", "start", "until"]))
        self.samples += pc.sum(pc.list_value_length(found["t_ms"])).as_py()
        numbers = pa.array(self._numbers(found["person"].to_pylist()), pa.int32())
        columns = {name: found[name].combine_chunks() for name in lists}
        if self._pad:
            columns = self._padded(columns)
        yield pa.table({"person": found["person"], "window": numbers, "start": found["start"], **columns})

    def _numbers(self, people: list[int]) -> Iterator[int]:
        """Yields the number of each window, counted from 0 by person."""
        for person in people:
            if person != self._person:
                self._person, self._next = person, 0
            yield self._next
            self._next += 1

    def _padded(self, columns: dict[str, pa.Array]) -> dict[str, pa.Array]:
        """Returns lists of one length, zero (or empty) where there was no sample, and a mask of where there was."""
        import pyarrow as pa
        import pyarrow.compute as pc

        found, mask = {}, None
        for name, lists in columns.items():
            flat = pc.list_slice(lists, 0, self._pad, return_fixed_size_list=True).flatten()
            # no measured value is null: what is null now was filled up
            mask = flat.is_valid() if mask is None else mask
            empty = pa.scalar(False if name == "made_up" else [] if pa.types.is_list(flat.type) else 0, flat.type)
            found[name] = pc.if_else(mask, flat, empty)
        assert mask is not None
        offsets = pa.array(range(0, len(mask) + 1, self._pad), pa.int32())
        return {name: pa.ListArray.from_arrays(offsets, flat) for name, flat in {**found, "mask": mask}.items()}


def _starts(table: pa.Table) -> list[int]:
    """Returns the places at which windows begin in a table of samples in order."""
    import pyarrow.compute as pc

    rows = table.num_rows
    changed = [
        pc.not_equal(table[name].slice(1), table[name].slice(0, rows - 1)).combine_chunks()
        for name in ("person", "start")
    ]
    return [0, *(at + 1 for at in pc.indices_nonzero(pc.or_(*changed)).to_pylist())]
