"""Distinct readings are sorted in buckets by the package's own C: the rows that an engine finds, once and in order."""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from random import Random
from threading import Event
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effort import tries
from fuzzing import assert_no_fault, fuzz, noticed
from stedi.engines import distinct, duckdb
from stedi.engines.duckdb import DuckDB
from stedi.errors import LakeError
from stedi.schema.tables import COLUMNS, graph, rebind

Row = tuple[int, int, str, int]
SOURCE = Path(distinct.__file__).with_suffix(".c")
TABLE = "step_trainer_trusted"
NAMES = ("customer_id", "sensorReadingTime", "serialNumber", "distanceFromObject")

pytestmark = pytest.mark.skipif(distinct.library() is None, reason="needs a C compiler")


def batches(rows: Sequence[Row], size: int) -> Iterator[pa.RecordBatch]:
    """Yields rows as Arrow has them."""
    for start in range(0, len(rows), size):
        columns = zip(*rows[start : start + size], strict=True)
        kinds = (pa.int64(), pa.int64(), pa.string(), pa.int64())
        yield pa.record_batch([pa.array(c, k) for c, k in zip(columns, kinds, strict=True)], names=[*"pqrs"])


def written(rows: Sequence[Row], folder: Path, ids: Sequence[str], size: int = 50, **options: Any) -> Any:
    """Writes rows, and returns the files."""
    given = {"rows": len(rows), "file_rows": 100, "threads": 2, **options}
    folder.mkdir(exist_ok=True)
    return distinct.write(TABLE, batches(rows, size), pa.array(ids), folder / "new", folder, **given)


def readings(chance: Random) -> list[Row]:
    """Readings of people of very different diligence, most of them delivered twice, in no order."""
    people = [chance.randrange(1, 40) for _ in range(12)]
    rows = [
        (chance.choice(people), chance.randrange(60), f"s{chance.randrange(4)}", chance.randrange(-3, 3))
        for _ in range(chance.choice([1, 30, 600]))
    ]
    return chance.sample(rows + chance.choices(rows, k=len(rows)), 2 * len(rows))


@pytest.mark.parametrize("seed", range(12))
def test_every_reading_is_there_once_and_in_order(tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = Random(seed)
    rows = readings(chance)
    monkeypatch.setattr(distinct, "_CHUNK", chance.choice([32, 320, 1 << 16]))  # one row, ten, or all of them
    ids = [f"c{person:03}" for person in range(chance.choice([40, 41, 64, 500]))]
    files = written(rows, tmp_path, ids, size=chance.choice([1, 7, 5_000]), file_rows=chance.choice([40, 150, 10_000]))
    found = [tuple(row[name] for name in NAMES) for file in files for row in pq.read_table(file.path).to_pylist()]
    expected = {(ids[person], at, serial, distance) for person, at, serial, distance in rows}
    assert sorted((a, round(b.timestamp() * 1000), c, d) for a, b, c, d in found) == sorted(expected)
    assert all(before[:2] <= after[:2] for before, after in pairwise(found))
    assert [file.rows for file in files] == [pq.read_metadata(file.path).num_rows for file in files]
    assert [path.name for path in tmp_path.iterdir()] == ["new"], "what lay beside has no name"


def test_rows_are_divided_while_the_next_ones_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, overlapped, add = Event(), list[bool](), distinct._Buckets.add

    def waiting(buckets: Any, batch: pa.RecordBatch) -> bool:
        overlapped.append(asked.wait(20))
        return add(buckets, batch)

    def told() -> Iterator[pa.RecordBatch]:
        for number, batch in enumerate(batches([(1, at, "s", at % 3) for at in range(6)], 2)):
            if number == 1:
                asked.set()
            yield batch

    monkeypatch.setattr(distinct._Buckets, "add", waiting)
    (tmp_path / "one").mkdir()
    found = distinct.write(
        TABLE, told(), pa.array(["", "c1"]), tmp_path / "new", tmp_path / "one", rows=6, file_rows=100, threads=2
    )
    assert overlapped == [True] * 3
    assert found is not None
    assert sum(file.rows for file in found) == 6


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_failure_to_keep_rows_reaches_the_caller(tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[int]()

    def add(*_: object) -> bool:
        calls.append(len(calls))
        if calls[-1] == at:
            raise OSError(28, "No space left on device")
        return True

    monkeypatch.setattr(distinct._Buckets, "add", add)
    with pytest.raises(OSError, match="No space"):
        written([(1, n, "s", 1) for n in range(3)], tmp_path, ["", "c1"], size=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("persons", [1, 40, 41, 64, 4_099, 2_000_000])
@pytest.mark.parametrize("count", [1, 3, 7, 488])
def test_no_bucket_has_more_persons_than_its_share(tmp_path: Path, persons: int, count: int) -> None:
    with distinct._Buckets(COLUMNS[TABLE], persons, count, tmp_path) as buckets:
        assert buckets.persons <= max(1, persons // count)
        assert buckets.count <= 2 * count + 1


def test_a_file_holds_texts_of_its_own_rows_and_no_others(tmp_path: Path) -> None:
    rows = [(person, 1, f"s{person}", 0) for person in range(1, 200)]
    for file in written(rows, tmp_path, [f"c{person:03}" for person in range(400)], file_rows=20):
        content = pq.ParquetFile(file.path, read_dictionary=["customer_id", "serialNumber"]).read()
        for name in ("customer_id", "serialNumber"):
            column = content[name].combine_chunks()
            assert sorted(column.dictionary.to_pylist()) == sorted(set(column.to_pylist()))


@pytest.mark.parametrize("rows", [[(99, 1, "s", 1)], [(-1, 1, "s", 1)], [(1, None, "s", 1)], [(1, 1, None, 1)]])
def test_what_is_not_for_this_way_is_left_to_the_engine(tmp_path: Path, rows: list[Row]) -> None:
    assert written(rows, tmp_path, ["", "c1"]) is None
    assert not list(tmp_path.iterdir())


def test_one_person_with_more_rows_than_memory_holds_is_left_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distinct, "_MOST", 10)
    assert written([(1, at, "s", 1) for at in range(11)], tmp_path, ["", "c1"]) is None
    assert written([(1, at, "s", 1) for at in range(10)], tmp_path, ["", "c1"]) is not None


def test_both_tables_of_many_readings_are_of_the_form() -> None:
    for name, columns in (("accelerometer_trusted", 4), (TABLE, 3)):
        found = distinct.readings(name, graph().selects[name].sql)
        assert found is not None
        assert len(found.columns) == columns


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("select distinct", "select"),
        ("order by p.person, moment", "order by p.person"),
        ("order by p.person, moment", "order by p.person, moment limit 1"),
        ("order by p.person, moment", "union all select 1, 1, 1, 1, 1 order by person, moment"),
        ("on r.person = w.person", "on r.person = w.person where r.x > 0"),
        ("on r.person = w.person", "on r.person > w.person"),
        ("r.x,", "r.y as x,"),
        ("w.customer_id,", "upper(w.customer_id) as customer_id,"),
        ("select distinct person, customer_id from wearers", "select person, customer_id from wearers"),
    ],
)
def test_a_select_of_another_form_is_the_engine_s(old: str, new: str) -> None:
    sql = rebind(graph().selects["accelerometer_trusted"].sql, {}, {"readings": "all"})
    assert distinct.readings("accelerometer_trusted", sql)
    changed = sql.replace(old, new)
    assert changed != sql
    assert distinct.readings("accelerometer_trusted", changed) is None
    assert distinct.readings("accelerometer_trusted", f"{sql} union all ({sql})") is None


FORM = (
    "select w.customer_id, instant(r.sensorReadingTime) as sensorReadingTime, r.serialNumber, r.distanceFromObject "
    "from (select distinct 1::bigint as person, i as sensorReadingTime, {} as serialNumber, "
    "0::bigint as distanceFromObject from range({}) as t(i) order by person, sensorReadingTime) as r "
    "inner join (select distinct person, customer_id from people) as w on r.person = w.person"
)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DuckDB]:
    """A session that sorts all readings by the package's own C."""
    monkeypatch.setattr(duckdb, "_MANY", 0)
    with DuckDB(memory="100MB", threads=2, temporary=tmp_path / "spill") as session:
        session.materialize("people", "select 1::bigint as person, 'c' as customer_id")
        assert distinct.readings(TABLE, FORM.format("'s'", 1))
        yield session


def test_a_failure_on_the_way_is_one_line_that_holds_no_value(engine: DuckDB, tmp_path: Path) -> None:
    sql = FORM.format("case when i = 2999999 then error('ana@x.example') else 's' end", 3_000_000)
    with pytest.raises(LakeError, match="nothing was published") as failed:
        engine.write(TABLE, sql, tmp_path / "t")
    assert "ana" not in str(failed.value)


@pytest.mark.parametrize(("rows", "room"), [(100, 100), (50_000, 1_000)])
def test_a_file_that_has_no_room_is_one_line(engine: DuckDB, tmp_path: Path, rows: int, room: int) -> None:
    """The Parquet file, or the one of what is on the way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, before[1]))
    try:
        with pytest.raises(LakeError, match=r"cannot read or write a file: .*; nothing was published"):
            engine.write(TABLE, FORM.format("'s'", rows), tmp_path / "t")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_no_rows_make_the_library_leave_its_memory_or_find_others(tmp_path: Path) -> None:
    count = tries(2_000, 6_000, 3_000_000)
    assert_no_fault(tmp_path, SOURCE, count, count / 10)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("bucket >= (u64)buckets", "bucket > (u64)buckets"),
        ("counts[bucket] >= room", "counts[bucket] > room"),
        ("person >= (u64)persons", "person > (u64)persons"),
        ("(size_t)(3 * least + 1)", "(size_t)(2 * least + 1)"),
        ("if (from != places) memcpy", "if (from == places) memcpy"),
    ],
)
def test_a_sort_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SOURCE, 6_000, mutant=(bound, looser)))
