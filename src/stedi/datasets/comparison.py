"""Compares two releases: people, splits, rows, options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stedi._frozen import dataclass
from stedi.context import Context
from stedi.datasets import registry, subjects
from stedi.datasets.registry import Entry
from stedi.engines.duckdb import DuckDB
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key, normalise


@dataclass(frozen=True, slots=True)
class Diff:
    """The differences of two releases, in counts: only the lake knows who is the same person.

    Attributes:
        one: `NAME@VERSION`.
        other: `NAME@VERSION`.
        subjects: People in each.
        both: People in both.
        only_one: People only in the first.
        only_other: People only in the second.
        moved: People in both whose split differs.
        rows: Rows of each.
        splits: Of each split the rows in each.
        options: The options that differ, with the value in each.
    """

    one: str
    other: str
    subjects: tuple[int, int]
    both: int
    only_one: int
    only_other: int
    moved: int
    rows: tuple[int, int]
    splits: Mapping[str, tuple[int, int]]
    options: Mapping[str, tuple[Any, Any]]


def diff(context: Context, key: Key, one: Entry, other: Entry) -> Diff:
    """Returns how two releases differ."""
    # no table says who a subject is: everybody's id in both releases is computed, and looked for there
    marks = known(context, key)
    first, second = (_people(context, key, entry, marks) for entry in (one, other))
    both = first.keys() & second.keys()
    # not the people found by mark: the counts are those of the releases, whoever the lake still knows
    sizes = [len(registry.subjects(context, entry.release)) for entry in (one, other)]
    rows = [{split: found["rows"] for split, found in entry.manifest["splits"].items()} for entry in (one, other)]
    options = [entry.manifest["options"] for entry in (one, other)]
    return Diff(
        one.release,
        other.release,
        (sizes[0], sizes[1]),
        len(both),
        sizes[0] - len(both),
        sizes[1] - len(both),
        sum(first[mark] != second[mark] for mark in both),
        (one.rows, other.rows),
        {split: (rows[0].get(split, 0), rows[1].get(split, 0)) for split in rows[0] | rows[1]},
        {
            name: (options[0].get(name), options[1].get(name))
            for name in sorted(options[0].keys() | options[1].keys())
            if options[0].get(name) != options[1].get(name)
        },
    )


def known(context: Context, key: Key) -> list[str]:
    """Returns the marks of everybody known to the lake or erased from it."""
    config, catalog = context.config, context.catalog
    with (
        context.temporary() as temporary,
        DuckDB.of(config, temporary) as engine,
    ):
        engine.bind_files("customers_landing", catalog.files(catalog.table("customers_landing")))
        addresses = {normalise(email) for (email,) in engine.stream("select distinct email from customers_landing")}
    return sorted({*tombstones.persons(key, addresses), *tombstones.read(context.root, key).people})


def _people(context: Context, key: Key, entry: Entry, marks: list[str]) -> dict[str, str]:
    """Returns the split of each person in a release, by mark."""
    identifier = subjects.identifier(key, entry.lake, entry.release)
    of = registry.subjects(context, entry.release)
    ids = ((mark, identifier(mark)) for mark in marks)
    return {mark: of[subject][0] for mark, subject in ids if subject in of}
