"""Rows that lie in order are seen to be distinct without being sorted; of all others nothing is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi.engines import row_order
from stedi.schema.tables import DataFile

Row = tuple[str | None, int, float, float]
COLUMNS = ("customer_id", "timestamp", "x", "y")


def files(folder: Path, *parts: Sequence[Row]) -> list[DataFile]:
    """Writes each part as a file of row groups of 20 rows, dictionaries in the order in which the texts come."""
    made = []
    for number, rows in enumerate(parts):
        path = folder / f"{number}.parquet"
        kinds = (pa.string(), pa.int64(), pa.float64(), pa.float64())
        columns = [pa.array(values, kind) for values, kind in zip(zip(*rows, strict=True), kinds, strict=True)]
        pq.write_table(pa.table(dict(zip(COLUMNS, columns, strict=True))), path, row_group_size=20)
        made.append(DataFile(str(path), len(rows), path.stat().st_size))
    return made


def readings(chance: Random, count: int = 300) -> list[Row]:
    """Distinct readings of some customers, up to three a moment, in order of customer and moment alone."""
    found = {(f"c{chance.randrange(9)}", chance.randrange(40), 0.5, float(chance.randrange(3))) for _ in range(count)}
    return sorted(found, key=lambda row: row[:2])


@pytest.mark.parametrize("seed", range(20))
def test_distinct_rows_in_order_are_seen_to_be_so_wherever_files_end(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    rows = readings(chance)
    rows = rows[: len(rows) // 20 * 20]  # of a row group that is one moment alone nothing is said
    ends = sorted(chance.sample(range(20, len(rows) - 20, 20), 3))
    parts = [rows[low:high] for low, high in zip([0, *ends], [*ends, len(rows)], strict=True)]
    chance.shuffle(parts)
    assert row_order.distinct(files(tmp_path, *parts))
    assert row_order.distinct(())


@pytest.mark.parametrize("seed", range(40))
def test_a_row_that_stands_twice_is_never_passed_over(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    rows = readings(chance)
    place = chance.randrange(len(rows))
    again = chance.randrange(len(rows)) if seed % 2 else place + chance.randrange(1, 3)
    rows.insert(again, rows[place])
    end = chance.choice([place, place + 1, again, again + 1, len(rows) // 2])
    parts = [part for part in (rows[:end], rows[end:]) if part]
    assert not row_order.distinct(files(tmp_path, *parts))


def test_of_rows_that_lie_otherwise_nothing_is_said(tmp_path: Path) -> None:
    one, two, three = ("a", 1, 0.0, 0.0), ("a", 2, 0.0, 0.0), ("b", 1, 0.0, 0.0)
    assert row_order.distinct(files(tmp_path, [one, two], [three]))
    for parts in ([two, one],), ([three, one],), ([one, three], [two]), ([(None, 1, 0.0, 0.0)],):
        assert not row_order.distinct(files(tmp_path, *parts)), parts
    crowd: list[Row] = [("a", 1, 0.0, float(n)) for n in range(40)]
    assert not row_order.distinct(files(tmp_path, crowd))
    assert not row_order.distinct(files(tmp_path, [("a", 1, 0.0, 0.0)], [("a", 1, -0.0, 0.0)]))


@pytest.mark.parametrize("seed", range(20))
def test_files_whose_ranges_overlap_are_told_by_their_customers(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    rows = readings(chance)
    file_of = {f"c{number}": number % 3 for number in range(9)}
    parts = [[row for row in rows if row[0] and file_of[row[0]] == number] for number in range(3)]
    parts = [part[: len(part) // 20 * 20] for part in parts]  # as above
    assert row_order.distinct(files(tmp_path, *parts))
    elsewhere, doubled = chance.sample(range(3), 2)
    row = chance.choice(parts[doubled])
    parts[elsewhere] = sorted([*parts[elsewhere], row], key=lambda row: row[:2])
    assert not row_order.distinct(files(tmp_path, *parts)), "a customer is in two files"
    parts[elsewhere].remove(row)
    parts[doubled].insert(parts[doubled].index(row), row)
    assert not row_order.distinct(files(tmp_path, *parts)), "a row is in a file twice"


def test_of_too_many_customers_in_overlapping_files_nothing_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = (("a", 1, 0.0, 0.0), ("b", 1, 0.0, 0.0), ("c", 1, 0.0, 0.0))
    overlapping = files(tmp_path, [a, c], [b])
    assert row_order.distinct(overlapping)
    monkeypatch.setattr(row_order, "_CUSTOMERS", 2)
    assert not row_order.distinct(overlapping)
