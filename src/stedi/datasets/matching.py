"""Moments: each step trainer reading with the accelerometer reading of the same person that is paired with it.

SELECTs over `steps` (person, ms, serial, distance) and `vectors` (person, ms, x, y, z), instants in epoch milliseconds,
giving person, ms, distance, x, y, z, vectors, dt_ms. Every result is the same whatever the order of the rows read.
"""

from __future__ import annotations

from stedi.datasets.options import Options
from stedi.engines.duckdb import DuckDB

_AXES = ("x", "y", "z")
_COARSE = 1.5 * 2.0**32
"""Added to a double and taken away again, it leaves the nearest multiple of 2^-20: half of a double's 53 bits."""
_FINE = 1.5 * 2.0**-20
"""The same for smaller values, in multiples of 2^-72."""
_LEAST, _LARGEST = 2.0**-29, 2.0**30
"""What `_sum` takes apart loses less than a part in 10^13 from the one on, and has room up to the other."""


def exact(engine: DuckDB) -> bool:
    """Returns whether `_sum` is exact for all of `accelerometer_trusted`: no value is too small or too large.

    Footers show the largest value, but not the smallest.
    """
    fit = " and ".join(f"({axis} = 0 or abs({axis}) between {_LEAST!r} and {_LARGEST!r})" for axis in _AXES)
    [(found,)] = engine.rows(f"select coalesce(bool_and({fit}), true) from accelerometer_trusted")
    return bool(found)


def vectors(options: Options, *, exact: bool = True) -> str:
    """Returns the SELECT of one row a person and moment of `vectors`.

    Args:
        options: Whether several vectors become their mean or a list, which is in order of its values.
        exact: What the function `exact` gave.
    """
    if options.vectors == "list":
        # in order of the values, since vectors of one instant have no other order
        listed = "list(struct_pack(x := x, y := y, z := z) order by x, y, z)"
        shown = ", ".join(f"list_transform(v, lambda e: e.{axis}) as {axis}" for axis in _AXES)
        return (
            f"select person, ms, {shown}, n from "
            f"(select person, ms, {listed} as v, count(*)::integer as n from vectors group by person, ms)"
        )
    one = _sum if exact else _sorted_sum
    means = ", ".join(f"{one(axis)} / count(*) as {axis}" for axis in _AXES)
    return f"select person, ms, {means}, count(*)::integer as n from vectors group by person, ms"


def _sum(value: str) -> str:
    """Returns a sum that does not depend on the order of its terms, at the cost of two plain sums.

    Each double is split into two with exact sums: multiples of 2^-20, and of 2^-72 below them. `exact` must hold for
    the values.
    """
    # floating-point addition rounds, so a plain sum depends on the order of its terms, and that on the threads
    coarse = f"(({value} + {_COARSE!r}::double) - {_COARSE!r}::double)"
    fine = f"((({value} - {coarse}) + {_FINE!r}::double) - {_FINE!r}::double)"
    return f"(sum({coarse}) + sum({fine}))"


def _sorted_sum(value: str) -> str:
    return f"list_sum(list_sort(list({value})))"


def moments(options: Options, *, exact: bool = True) -> str:
    """Returns the SELECT of the moments: step readings that have found a partner, in no order.

    Of two accelerometer readings that are equally near, the earlier one is taken. `dt_ms` is the step trainer's clock
    less the accelerometer's: how old the vector is.
    """
    means = vectors(options, exact=exact)
    if options.match == "exact":
        return (
            "select s.person, s.ms, s.distance, v.x, v.y, v.z, v.n as vectors, 0::integer as dt_ms "
            f"from steps as s join ({means}) as v on s.person = v.person and s.ms = v.ms"
        )
    joined = "select s.person, s.ms, s.distance, v.x, v.y, v.z, v.n as vectors, (s.ms - v.ms)::integer as dt_ms from "
    within = f"abs(s.ms - v.ms) <= {options.tolerance}"
    back = f"steps as s asof join ({means}) as v on s.person = v.person and s.ms >= v.ms"
    if options.match == "backward":
        return f"{joined} {back} where {within}"
    ends = (
        # two joins, since `asof` has no nearest; `materialized`, since the vectors are needed three times
        f"with v as materialized (select *, row_number() over () as place from ({means})), "
        "b as (select s.person, s.ms, s.serial, s.distance, max(v.ms) as before from steps as s asof left join v on "
        "s.person = v.person and s.ms >= v.ms group by all), "
        "n as (select b.*, v.ms as after from b asof left join v on b.person = v.person and b.ms <= v.ms) "
    )
    nearest = "case when n.after is null or n.ms - n.before <= n.after - n.ms then n.before else n.after end"
    return (
        f"{ends} select s.person, s.ms, s.distance, v.x, v.y, v.z, v.n as vectors, (s.ms - v.ms)::integer as dt_ms "
        f"from (select n.*, {nearest} as best from n) as s join v on s.person = v.person and s.best = v.ms "
        f"where {within}"
    )
