"""Sums of hashed rows in C: equal for equal rows in any order, different for any other rows, within bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from effort import NIGHTLY, tries
from fuzzing import assert_no_fault, fuzz, noticed
from stedi.engines import row_sums
from stedi.engines.column_sums import ColumnSums
from stedi.engines.duckdb import DuckDB
from stedi.engines.row_sums import Group, Otherwise
from stedi.schema.tables import DataFile

pytestmark = pytest.mark.skipif(row_sums.library() is None, reason="no compiler")

SOURCE = Path(row_sums.__file__).with_suffix(".c")
BUDGET = 1_000_000
ALWAYS = -(1 << 63)
MOMENT = pa.timestamp("us", "UTC")
Row = tuple[str, int, float, int]
"""Whose, epoch milliseconds, and two values."""


def some_rows(random: Random, count: int, people: int = 5) -> list[Row]:
    moments, values = range(1_000, 1_000 + count // 10), (0.0, -0.0, 1.0, 1.5)
    return [
        (f"p{random.randrange(people)}", random.choice(moments), random.choice(values), random.randrange(3))
        for _ in range(count)
    ]


def file(path: Path, rows: list[Row], *, landing: bool = False, group: int = 300) -> list[DataFile]:
    """Writes rows as a landing table has them, with milliseconds, or as a published table."""
    who, moments, x, n = zip(*rows, strict=True) if rows else ((), (), (), ())
    at = pa.array(moments, pa.int64()) if landing else pa.array([m * 1000 for m in moments], pa.int64()).cast(MOMENT)
    columns = {
        "who": pa.array(who, pa.string()),
        "at": at,
        "x": pa.array(x, pa.float64()),
        "n": pa.array(n, pa.int64()),
    }
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return [DataFile(str(path), len(rows), path.stat().st_size)]


def read(files: list[DataFile], by: tuple[str, ...] = ("who",)) -> Callable[[], Any]:
    return lambda: row_sums.read(files, by, ("at", "x", "n"))


def plain(row: Row) -> Row:
    return (row[0], row[1], row[2] + 0.0, row[3])


@pytest.mark.parametrize("seed", range(200 if NIGHTLY else 8))
def test_distinct_landed_rows_have_the_sums_of_the_same_rows_published_once(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    landed = some_rows(random, random.randrange(1, 2_000))
    distinct = list({plain(row): row for row in landed}.values())
    random.shuffle(distinct)
    number = {f"p{n}": n for n in range(4)}
    since = {0: 1_010, 1: ALWAYS, 2: None, 3: 1_050}
    counts = Counter(who for who, *_ in landed)
    groups = {who: Group(n, since[n], counts[who]) for who, n in number.items()}
    expected = dict(
        row_sums.by_key(read(file(tmp_path / "published", [r for r in distinct if in_time(r, groups)]))(), BUDGET)
    )
    rows = file(tmp_path / "landed", landed, landing=True)
    found = dict(row_sums.of_distinct(read(rows), groups, BUDGET))
    for who, n in number.items():
        if counts[who]:
            timely = sum(in_time(row, groups) for row in landed if row[0] == who)
            assert found[n][:2] == (counts[who], timely)
            assert found[n][2:] == expected.get(who, (0, 0, 0, None, None))[2:]
    # with little memory the rows are read several times, some groups at a time
    little = (len(groups) + 1) * row_sums.TEXT + len(landed) * row_sums.ROW // 3
    assert dict(row_sums.of_distinct(read(rows), groups, little)) == found


def in_time(row: Row, groups: dict[str, Group]) -> bool:
    group = groups.get(row[0])
    return group is not None and group.since is not None and row[1] >= group.since


@pytest.mark.parametrize("seed", range(200 if NIGHTLY else 8))
def test_no_exchange_of_values_keeps_the_sums(tmp_path: Path, seed: int) -> None:
    """Neither between rows, which keeps the sums of columns, nor between columns, nor between groups."""
    random = Random(seed)
    rows = list({plain(row): row for row in some_rows(random, 500)}.values())
    of = dict(row_sums.by_key(read(file(tmp_path / "of", rows))(), BUDGET))
    one, other = random.sample(range(len(rows)), 2)
    for place in range(1, 4):
        columns: list[list[Any]] = [list(column) for column in zip(*rows, strict=True)]
        values = columns[place]
        values[one], values[other] = values[other], values[one]
        made: list[Any] = list(zip(*columns, strict=True))
        sums = dict(row_sums.by_key(read(file(tmp_path / "made", made))(), BUDGET))
        assert (sums == of) == (Counter(map(plain, made)) == Counter(map(plain, rows)))
    late = [(who, at + (place == one), x, n) for place, (who, at, x, n) in enumerate(rows)]
    assert dict(row_sums.by_key(read(file(tmp_path / "late", late))(), BUDGET)) != of


@pytest.mark.parametrize("seed", range(100 if NIGHTLY else 6))
def test_a_join_has_the_sums_of_the_rows_that_an_engine_joins(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    steps, motions = some_rows(random, 400), some_rows(random, 700)
    kept, moved = file(tmp_path / "steps", steps), file(tmp_path / "motions", motions)
    counts = Counter(who for who, *_ in steps)
    groups = {who: Group(int(who[1:]), None, count) for who, count in counts.items() if who != "p4"}
    pairs = [
        (who, at, x, n) for who, at, _, n in steps for whose, moment, x, _ in motions if (who, at) == (whose, moment)
    ]
    joined = {(who, at) for who, at, *_ in pairs}

    def of_steps() -> Any:
        return row_sums.read(kept, ("who",), ("at", "n"))

    def of_motions() -> Any:
        return row_sums.read(moved, ("who",), ("at", "x"))

    names = ("who", "at", "n", "x")
    columns = dict(zip(("who", "at", "x", "n"), zip(*pairs, strict=True), strict=True))
    columns["at"] = pa.array([at * 1000 for at in columns["at"]], pa.int64()).cast(MOMENT)
    pq.write_table(pa.table({name: columns[name] for name in names}), tmp_path / "pairs")
    of_pairs = row_sums.read([DataFile(str(tmp_path / "pairs"), len(pairs), 0)], ("who",), ("at", "n", "x"))
    expected = {who: found[2:] for who, found in row_sums.by_key(of_pairs, BUDGET)}
    found = dict(row_sums.of_join(of_steps, of_motions, (groups, groups), BUDGET))
    assert found.keys() == {group.number for group in groups.values()}
    for who, group in groups.items():
        timely = sum((other, at) in joined for other, at, *_ in steps if other == who)
        assert found[group.number][:2] == (counts[who], timely)
        assert found[group.number][2:] == expected.get(who, (0, None, None))
    little = 3 * len(groups) * row_sums.TEXT + 6_000
    assert dict(row_sums.of_join(of_steps, of_motions, (groups, groups), little)) == found


@pytest.mark.parametrize("seed", range(100 if NIGHTLY else 6))
def test_a_join_has_as_many_rows_as_its_keys_and_moments_make(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    steps, motions = some_rows(random, 400), some_rows(random, 700, people=7)
    bound = {
        "steps": tuple(file(tmp_path / "steps", steps)),
        "motions": tuple(file(tmp_path / "motions", motions)),
    }
    moved = Counter(row[:2] for row in motions)

    def found(budget: int, columns: tuple[str, ...] = ("at", "n")) -> int | None:
        sums = ColumnSums(cast(Any, None), bound, budget)
        return sums.joined_rows("who", ("steps", columns), ("motions", "at"))

    for budget in (BUDGET, 3 * 5 * row_sums.TEXT + 6_000):
        assert found(budget) == sum(moved[row[:2]] for row in steps)
    assert found(row_sums.TEXT) is None, "no memory for the texts"
    assert found(BUDGET, ("at", "none")) is None, "no such column"


def test_pairs_of_texts_are_keys_of_their_own(tmp_path: Path) -> None:
    at = pa.array([1, 2, 3, 4], pa.int64()).cast(MOMENT)
    table = pa.table({"a": ["x", "x", "y", "x"], "b": ["u", "v", "v", "u"], "at": at})
    pq.write_table(table, tmp_path / "pairs")
    files = [DataFile(str(tmp_path / "pairs"), 4, 0)]
    found = {key: sums[0] for key, sums in row_sums.by_key(row_sums.read(files, ("a", "b"), ("at",)), BUDGET)}
    assert found == {("x", "u"): 2, ("x", "v"): 1, ("y", "v"): 1}


def test_rows_of_a_select_are_read_like_those_of_files(tmp_path: Path) -> None:
    rows = some_rows(Random(1), 100)
    expected = dict(row_sums.by_key(read(file(tmp_path / "rows", rows))(), BUDGET))
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as engine:
        batches = engine.arrow(
            f"select substr(who, 2)::bigint as who, \"at\", x, n from read_parquet('{tmp_path / 'rows'}')"
        )
        found = dict(row_sums.by_key(row_sums.from_batches(batches), BUDGET))
    assert {f"p{who}": sums for who, sums in found.items()} == expected


def test_what_cannot_be_summed_in_c_is_left_to_the_engine(tmp_path: Path) -> None:
    rows = some_rows(Random(2), 50)
    files = file(tmp_path / "rows", rows)
    groups = {"p0": Group(0, None, 1)}
    nulls = pa.table({"who": ["p0", None], "at": pa.array([1, 2], pa.int64()).cast(MOMENT)})
    others = pa.table({"who": ["p0"], "at": pa.array([1], pa.int32())})
    pq.write_table(nulls, tmp_path / "nulls")
    pq.write_table(others, tmp_path / "others")
    landed = file(tmp_path / "landed", [("p0", 1, 0.0, 1)], landing=True)
    too_late = file(tmp_path / "late", [("p0", (1 << 61) + 1, 0.0, 1)], landing=True)
    published = file(tmp_path / "published", [("p0", 1, 0.0, 1)])
    one = {"p0": Group(0, ALWAYS, 1)}
    cases: dict[str, Callable[[], object]] = {
        "too many texts": lambda: list(row_sums.by_key(read(files)(), 4 * row_sums.TEXT)),
        "too many groups": lambda: list(row_sums.of_distinct(read(files), groups, row_sums.TEXT)),
        "more rows than were counted": lambda: list(
            row_sums.of_distinct(read(file(tmp_path / "l", rows, landing=True)), {"p0": Group(0, ALWAYS, 1)}, BUDGET)
        ),
        "a null": lambda: list(row_sums.read([DataFile(str(tmp_path / "nulls"), 2, 0)], ("who",), ("at",))),
        "another type": lambda: list(
            row_sums.by_key(row_sums.read([DataFile(str(tmp_path / "others"), 1, 0)], ("who",), ("at",)), BUDGET)
        ),
        "no such column": lambda: list(row_sums.read(files, ("who",), ("none",))),
        "no such file": lambda: list(row_sums.read([DataFile(str(tmp_path / "none"), 1, 0)], ("who",), ("at",))),
        "fewer rows than were counted": lambda: list(
            row_sums.of_distinct(read(landed), {"p0": Group(0, ALWAYS, 2)}, BUDGET)
        ),
        "a moment of which the microseconds overflow": lambda: list(row_sums.of_distinct(read(too_late), one, BUDGET)),
        "milliseconds in a published table": lambda: list(row_sums.by_key(read(landed)(), BUDGET)),
        "microseconds in landing": lambda: list(row_sums.of_distinct(read(published), one, BUDGET)),
        "a bucket": lambda: list(row_sums.read([DataFile("s3://bucket/file", 1, 0)], ("who",), ("at",))),
    }
    for case in cases.values():
        with pytest.raises(Otherwise):
            case()


def test_values_of_another_width_are_not_read_as_64_bits(tmp_path: Path) -> None:
    at = pa.array([1, 2], pa.int64()).cast(MOMENT)
    narrow = pa.array([1, 2], pa.int32())
    groups = {"p0": Group(0, None, 2)}
    tables = {
        "right": {"who": ["p0", "p0"], "at": at, "n": at.cast(pa.int64())},
        "a narrow value": {"who": ["p0", "p0"], "at": at, "n": narrow},
        "a narrow moment": {"who": ["p0", "p0"], "at": narrow, "n": at.cast(pa.int64())},
    }
    sides: dict[str, Callable[[], Any]] = {}
    for name, columns in tables.items():
        pq.write_table(pa.table(columns), tmp_path / name)
        of = [DataFile(str(tmp_path / name), 2, 0)]
        sides[name] = partial(row_sums.read, of, ("who",), ("at", "n"))
    right = sides.pop("right")
    assert [found[:3] for _, found in row_sums.of_join(right, right, (groups, groups), BUDGET)] == [(2, 2, 2)]
    for other in sides.values():
        for steps, motions in ((other, right), (right, other)):
            with pytest.raises(Otherwise):
                list(row_sums.of_join(steps, motions, (groups, groups), BUDGET))


def test_an_index_that_a_dictionary_has_not_is_left_to_the_engine(tmp_path: Path) -> None:
    """Arrow reads such an index as it is, and C would add the row to the sums of whatever lies there."""
    path, count = tmp_path / "rows", 120
    table = pa.table(
        {"at": pa.array(range(count), pa.int64()).cast(MOMENT), "who": ["aaaa", "bbbb", "cccc"] * (count // 3)}
    )
    pq.write_table(table, path, compression="none", use_dictionary=["who"])
    column = pq.read_metadata(path).row_group(0).column(1)
    data = bytearray(path.read_bytes())
    end = column.dictionary_page_offset + column.total_compressed_size
    data[end - 25 : end] = b"\xff" * 25  # indices of two bits: each is three now
    path.write_bytes(data)
    with pytest.raises(Otherwise):
        list(row_sums.by_key(row_sums.read([DataFile(str(path), count, 0)], ("who",), ("at",)), BUDGET))


@pytest.mark.parametrize("name", [b"p1", b"at"], ids=["text", "column"])
def test_a_name_that_is_not_utf_8_is_left_to_the_engine(tmp_path: Path, name: bytes) -> None:
    table = pa.table({"who": ["p0", "p1", "p2"], "at": pa.array(range(3), pa.int64()).cast(MOMENT)})
    pq.write_table(table, tmp_path / "rows", compression="none", write_statistics=False)
    files, whole = [DataFile(str(tmp_path / "rows"), 3, 0)], (tmp_path / "rows").read_bytes()
    assert len(list(row_sums.by_key(row_sums.read(files, ("who",), ("at",)), BUDGET))) == 3
    (tmp_path / "rows").write_bytes(whole.replace(name, name[:1] + b"\xff"))
    with pytest.raises(Otherwise):
        list(row_sums.by_key(row_sums.read(files, ("who",), ("at",)), BUDGET))


def test_bytes_are_not_taken_for_texts(tmp_path: Path) -> None:
    at = pa.array([1], pa.int64())
    pq.write_table(pa.table({"who": pa.array([b"p0"], pa.binary()), "at": at}), tmp_path / "bytes")
    with pytest.raises(Otherwise):
        list(row_sums.read([DataFile(str(tmp_path / "bytes"), 1, 0)], ("who",), ("at",)))


@pytest.mark.parametrize("separator", ["\x1e", "\x1f", "\0", "'"])
def test_sums_of_any_text_are_stored(tmp_path: Path, separator: str) -> None:
    rows = [(f"{separator}{n}", 1000, 0.0, n) for n in range(200)]
    files = file(tmp_path / "rows", rows)
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as engine:
        sums = ColumnSums(engine, {"rows": tuple(files)}, BUDGET)
        assert sums.of_texts("summed", "rows", ["who"], ("at", "x", "n"))
        found = {who: tuple(some) for who, *some in engine.rows("select * from summed")}
    assert found == dict(row_sums.by_key(read(files)(), BUDGET))


def test_groups_that_an_engine_has_not_numbered_are_left_to_it(tmp_path: Path) -> None:
    files = file(tmp_path / "rows", [("a", 1000, 0.0, 1)], landing=True)
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as engine:
        sums = ColumnSums(engine, {"rows": tuple(files)}, BUDGET)
        for number, done in (("7", True), ("'seven'", False)):
            groups = f"select 'a' as who, {number} as number, 0 as since, 1 as n"
            assert sums.of_distinct("summed", "rows", "who", ("at", "x", "n"), groups) == done
        assert [row[:4] for row in engine.rows("select * from summed")] == [(7, 1, 1, 1)]


def test_the_first_moment_that_counts_is_in_microseconds(tmp_path: Path) -> None:
    rows = [("a", 1000, 0.0, 1), ("a", 1001, 0.0, 1)]
    files = file(tmp_path / "rows", rows, landing=True)
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as engine:
        sums = ColumnSums(engine, {"rows": tuple(files)}, BUDGET)
        for since, timely in ((1_000_000, 2), (1_001_000, 1), (1_002_000, 0)):
            assert sums.of_distinct("summed", "rows", "who", ("at", "x", "n"), f"select 'a', 0, {since}, 2")
            assert engine.rows("select landed, timely from summed") == [(2, timely)]


def test_each_session_hashes_in_its_own_way(tmp_path: Path) -> None:
    """So nobody can look for wrong rows that have the sums of the right ones."""
    found = list[int]()
    for name in ("one", "other"):
        with DuckDB(memory="100MB", threads=1, temporary=tmp_path / name) as engine:
            statement = f"select {', '.join(engine.hashes(('a', 'b')))} from (select 1 as a, 2 as b)"
            [row] = engine.rows(statement)
            assert engine.rows(statement) == [row]
            found += row
    assert len(set(found)) == 4


def test_a_join_has_no_more_columns_than_the_library_has_room_for() -> None:
    groups = {1: Group(0, None, 1)}

    def rows(columns: int) -> Any:
        names = [f"c{place}" for place in range(1 + columns)]
        return row_sums.from_batches([pa.record_batch([pa.array([1], pa.int64())] * len(names), names=names)])

    assert list(row_sums.of_join(lambda: rows(2), lambda: rows(7), (groups, groups), BUDGET))
    with pytest.raises(Otherwise):
        list(row_sums.of_join(lambda: rows(2), lambda: rows(8), (groups, groups), BUDGET))


def test_no_rows_make_the_library_leave_its_memory_or_sum_others(tmp_path: Path) -> None:
    count = tries(2_000, 6_000, 3_000_000)
    assert_no_fault(tmp_path, SOURCE, count, count / 10)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("return slot + 1 == slots[group + 1] ? slots[group] : slot + 1;", "return slot + 1 + 0 * slots[group];"),
        ("side->rows >= side->room || ", ""),
        ("|| side->slots[group + 1] == side->slots[group]", ""),
        ("one[row] + !one[row]", "one[row]"),
        ("sum[1] += sum[0] < hash;", ""),
        ("[row] + 0.0", "[row]"),
    ],
)
def test_sums_without_one_of_their_bounds_are_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SOURCE, 6_000, mutant=(bound, looser)))
