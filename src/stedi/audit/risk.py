"""Re-identification risk: how many people can be singled out by one known row, or by all rows of a person.

Pseudonyms hide identities from anybody who has only the table. Somebody who knows more, such as when a person walked,
can compare that with the table. Each exposure assumes such prior knowledge, at one resolution, and counts.
"""

from __future__ import annotations

from stedi._frozen import dataclass
from stedi.catalog import Catalog
from stedi.engines.duckdb import DuckDB

TABLE = "machine_learning_curated"

_MOMENT = "epoch_ms(sensorReadingTime)"
# `+ 0` makes 0 of -0, which hashes differently
_VALUES = "distanceFromObject // 10, round(x) + 0, round(y) + 0, round(z) + 0"
_LEVELS: tuple[tuple[str, str, str], ...] = (
    ("times", "exact", _MOMENT),
    ("times", "second", f"{_MOMENT} // 1000"),
    ("times", "minute", f"{_MOMENT} // 60000"),
    ("times", "hour", f"{_MOMENT} // 3600000"),
    ("times", "day", f"{_MOMENT} // 86400000"),
    ("distances", "exact", "distanceFromObject"),
    ("distances", "to 10", "distanceFromObject // 10"),
    ("motions", "exact", "hash(x, y, z)"),
    ("motions", "to 1", "hash(round(x) + 0, round(y) + 0, round(z) + 0)"),
    ("distances, motions", "exact", "hash(distanceFromObject, x, y, z)"),
    ("distances, motions", "to 10, to 1", f"hash({_VALUES})"),
    ("times, distances, motions", "hour, to 10, to 1", f"hash({_MOMENT} // 3600000, {_VALUES})"),
    ("times, distances, motions", "day, to 10, to 1", f"hash({_MOMENT} // 86400000, {_VALUES})"),
)
"""The columns that may be known of a person's rows, the precision, and the SQL of a row's value, as a number."""


@dataclass(frozen=True, slots=True)
class Exposure:
    """The risk of re-identification for one kind of prior knowledge.

    Attributes:
        known: The columns that are known.
        resolution: The precision with which they are known.
        by_one: Customers with a row whose values no other customer has, so that one known row identifies them.
        by_all: Customers whose set of values no other customer has.
        smallest: Customers in the smallest group with the same set of values; 1 if somebody is unique.
    """

    known: str
    resolution: str
    by_one: int
    by_all: int
    smallest: int


@dataclass(frozen=True, slots=True)
class Risk:
    """How many customers the training table singles out.

    Attributes:
        customers: The number of customers in it.
        rows: The number of rows in it.
        exposures: One for each kind of prior knowledge, in the order of `_LEVELS`; the number of rows comes last.
    """

    customers: int
    rows: int
    exposures: tuple[Exposure, ...]


def measure(engine: DuckDB, catalog: Catalog) -> Risk:
    """Measures the published training table; rows are streamed and spilled to disk.

    Args:
        engine: A session that has no tables yet.
        catalog: The lake's tables.
    """
    engine.bind_files(TABLE, catalog.files(catalog.table(TABLE)))
    engine.materialize(
        "people", f"select customer_id, row_number() over () as person from (select distinct customer_id from {TABLE})"
    )
    [(customers, rows)] = engine.rows(f"select (select count(*) from people), count(*) from {TABLE}")
    found = [_exposure(engine, known, resolution, value) for known, resolution, value in _LEVELS]
    return Risk(customers, rows, (*found, _counts(engine)))


def _exposure(engine: DuckDB, known: str, resolution: str, value: str) -> Exposure:
    engine.materialize(
        "shown", f"select distinct person, {value} as value from {TABLE} join people using (customer_id)"
    )
    [(by_one,)] = engine.rows(
        # a value in one row of `shown` is one person's: its rows are distinct by person and value
        "select count(distinct person) from (select min(person) as person from shown group by value "
        "having count(*) = 1)"
    )
    # equal sets have equal sums; two sums of 64-bit hashes and a count keep different sets apart
    sets = (
        "select person, bit_xor(hash(value)) as a, sum(hash(value, 1)) as b, count(*) as n from shown group by person"
    )
    return Exposure(known, resolution, by_one, *_groups(engine, sets))


def _counts(engine: DuckDB) -> Exposure:
    """The risk if only the number of a person's rows is known."""
    every = f"select customer_id as person, 0 as a, 0 as b, count(*) as n from {TABLE} group by customer_id"
    by_all, smallest = _groups(engine, every)
    return Exposure("number of rows", "exact", by_all, by_all, smallest)


def _groups(engine: DuckDB, people: str) -> tuple[int, int]:
    """Returns how many people are alone in their group, and the size of the smallest group."""
    [(alone, smallest)] = engine.rows(
        "select count(*) filter (where size = 1), coalesce(min(size), 0) "
        f"from (select count(*) as size from ({people}) group by a, b, n)"
    )
    return alone, smallest
