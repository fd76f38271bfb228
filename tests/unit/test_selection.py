"""The rows of some people in Parquet files, read from encoded pages: as an engine reads them, or not at all."""

from __future__ import annotations

import os
from collections import Counter
from itertools import chain
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_pages import made_up, table_of, written

from stedi.engines import arrow_files, parquet, selection, thrift
from stedi.engines.selection import Selected, Selection, dictionary_texts, texts_of_rows
from stedi.schema.tables import ALL_COLUMNS

needs_library = pytest.mark.skipif(parquet.library() is None, reason="needs a C compiler")

SHAPES = {
    "accelerometer_landing": ("user", "_file", ("timestamp",)),
    "step_trainer_landing": ("serialNumber", "_file", ("sensorReadingTime", "distanceFromObject")),
    "accelerometer_trusted": ("customer_id", "", ("timestamp",)),
}


def unpacked(rows: selection.Rows) -> Counter[tuple[Any, ...]]:
    """Rows as tuples, each with how often it is there."""
    return Counter((*texts, *numbers) for texts, values in rows.items() for numbers in zip(*values, strict=True))


def expected(table: pa.Table, columns: tuple[str, ...], wanted: frozenset[str]) -> Counter[tuple[Any, ...]]:
    kept = [
        table[name].cast(pa.int64()) if pa.types.is_timestamp(table[name].type) else table[name] for name in columns
    ]
    return Counter(row for row in zip(*(column.to_pylist() for column in kept), strict=True) if row[0] in wanted)


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(25))
def test_the_rows_are_those_that_an_engine_reads_or_the_engine_is_asked(tmp_path: Path, seed: int, name: str) -> None:
    chance, path = Random(seed), tmp_path / "a.parquet"
    key, also, integers = SHAPES[name]
    table = made_up(chance, name, chance.choice([1, 40, 3_000]))
    written(chance, table, name, path)
    known = sorted(set(table[key].to_pylist()))
    wanted = frozenset([*chance.sample(known, min(len(known), chance.choice([0, 1, 3]))), "nobody"])
    whole = pq.read_table(path)
    asked = Selection(name, key, wanted, also, integers)
    rows = asked.rows(str(path))
    columns = (key, *((also,) if also else ()), *integers)
    theirs = expected(whole, columns, wanted)
    if rows is not None:
        assert unpacked(rows.read) == theirs, f"seed {seed}"
    found = texts_of_rows(str(path), name, key, wanted)
    assert found is None or found == {text for text, *_ in theirs}, f"seed {seed}"
    assert found is not None or not in_dictionaries(path, key), f"seed {seed}"
    texts = dictionary_texts(str(path), name, key)
    if texts is not None:
        assert set(chain(*texts)) >= {*known} - {None}, f"seed {seed}"
        assert "nobody" not in chain(*texts)
    assert texts is not None or not in_dictionaries(path, key), f"seed {seed}"


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("seed", range(25))
def test_rows_are_counted_but_those_of_some_texts_and_where_a_later_one_may_be(
    tmp_path: Path, seed: int, name: str
) -> None:
    chance, path = Random(seed), tmp_path / "a.parquet"
    key, also, integers = SHAPES[name]
    table = made_up(chance, name, chance.choice([1, 40, 3_000]))
    written(chance, table, name, path)
    known = sorted(set(table[key].to_pylist()))
    wanted = frozenset(chance.sample(known, min(len(known), chance.choice([1, 3, 5]))))
    read = chance.sample(sorted(wanted), chance.randrange(len(wanted) + 1))
    columns = (key, *((also,) if also else ()), *integers)
    theirs = expected(pq.read_table(path), columns, wanted)
    first = len(columns) - len(integers)
    after = chance.choice([0, 20_000, 1 << 60, max((row[first] or 0 for row in theirs), default=0)])
    rows = Selection(name, key, wanted, also, integers, read=read, after=after).rows(str(path))
    every = Selection(name, key, wanted, also, integers).rows(str(path))
    if every is None or rows is None:
        assert every is None, "less is read, so it is not refused for more"
        return
    assert not every.counted
    of_all, of_read = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for row, count in theirs.items():
        of_all[row[:first]] += count
    for row, count in unpacked(rows.read).items():
        of_read[row[:first]] += count
        assert theirs[row] == count, f"seed {seed}"
    assert of_read + Counter(rows.counted) == of_all, f"seed {seed}"
    assert not {told for told, *_ in rows.counted} & set(read)
    assert all(row in unpacked(rows.read) for row in theirs if row[0] in read or (row[first] or 0) > after)
    if after == 1 << 60 and parquet_has_bounds(path, integers[0]):
        assert {told for told, *_ in rows.read} <= set(read), "what decides nothing is not read"


def in_dictionaries(path: Path, name: str) -> bool:
    """Returns whether all pages of a column are encoded by a dictionary, and the lake's writers write such files."""
    found = pq.read_metadata(path)
    place = found.schema.names.index(name)
    chunks = [found.row_group(n).column(place) for n in range(found.num_row_groups)]
    return parquet.library() is not None and all(chunk.has_dictionary_page for chunk in chunks)


def parquet_has_bounds(path: Path, name: str) -> bool:
    found = pq.read_metadata(path)
    place = found.schema.names.index(name)
    return all(
        group.column(place).is_stats_set and group.column(place).statistics.has_min_max
        for group in map(found.row_group, range(found.num_row_groups))
    )


@needs_library
def test_what_the_lakes_own_writer_writes_is_read_without_an_engine(tmp_path: Path) -> None:
    name, path, rows = "accelerometer_landing", tmp_path / "a.parquet", arrow_files.GROUP + 10
    people = ["ann", *["bo"] * (rows - 3), "cy", "ann"]
    table = table_of(name, [people, list(range(rows)), *[[1.0] * rows] * 3, [""] * rows, ["f"] * rows], [False] * 7)
    columns = [
        column.combine_chunks().dictionary_encode() if column.type == pa.string() else column for column in table
    ]
    columns = [column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column for column in columns]
    with arrow_files.Writer(path, ALL_COLUMNS[name], [column.type for column in columns]) as file:
        file.write(columns)
    assert pq.read_metadata(path).num_row_groups == 2
    asked = Selection(name, "user", {"ann", "cy"}, "_file", ("timestamp",))
    assert asked.rows(str(path)) == Selected({("ann", "f"): ([0, rows - 1],), ("cy", "f"): ([rows - 2],)})
    assert set(chain(*dictionary_texts(str(path), name, "user") or ())) == {"ann", "bo", "cy"}


@needs_library
def test_texts_with_any_character_are_told_apart(tmp_path: Path) -> None:
    name, path = "accelerometer_trusted", tmp_path / "a.parquet"
    people = ["ann", "an\x1fn", "", "ännä\n", "\x1f"]
    table = table_of(name, [people, list(range(5)), *[[1.0] * 5] * 3], [True] * 5)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    for place, one in enumerate(people):
        assert Selection(name, "customer_id", {one}, "", ("timestamp",)).rows(str(path)) == Selected(
            {(one,): ([place],)}
        )
    assert dictionary_texts(str(path), name, "customer_id") == [people]


@needs_library
def test_values_that_are_missing_are_left_to_the_engine(tmp_path: Path) -> None:
    name, path = "accelerometer_trusted", tmp_path / "a.parquet"
    table = table_of(name, [["ann", None, "bo"], [1, 2, None], *[[1.0] * 3] * 3], [True] * 5)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert Selection(name, "customer_id", {"ann"}, "", ("timestamp",)).rows(str(path)) == Selected({("ann",): ([1],)})
    assert Selection(name, "customer_id", {"bo"}, "", ("timestamp",)).rows(str(path)) is None
    assert dictionary_texts(str(path), name, "customer_id") == [["ann", "bo"]]


def test_very_many_people_or_rows_are_left_to_the_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, path = "accelerometer_trusted", tmp_path / "a.parquet"
    pq.write_table(
        table_of(name, [["ann"] * 3, [1, 2, 3], *[[1.0] * 3] * 3], [True] * 5),
        path,
        compression="zstd",
        store_schema=False,
    )
    many = set(map(str, range(selection.MOST_TEXTS + 1)))
    assert Selection(name, "customer_id", many, "", ("timestamp",)).rows(str(path)) is None, "an engine has to look"
    monkeypatch.setattr(selection, "_MOST_FOUND", 2)
    assert Selection(name, "customer_id", {"ann"}, "", ("timestamp",)).rows(str(path)) is None


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_raises(tmp_path: Path, seed: int) -> None:
    chance, path, name = Random(seed), tmp_path / "a.parquet", "step_trainer_landing"
    key, also, integers = SHAPES[name]
    table = made_up(chance, name, 300)
    written(chance, table, name, path)
    content = path.read_bytes()
    asked = Selection(name, key, set(table[key].to_pylist()[:3]), also, integers)
    for _ in range(100):
        damaged = bytearray(content)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        asked.rows(str(path))
        dictionary_texts(str(path), name, key)
        texts_of_rows(str(path), name, key, {"nobody"})


@needs_library
def test_a_file_that_is_truncated_meanwhile_is_left_to_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, path, rows = "accelerometer_trusted", tmp_path / "a.parquet", 50_000
    people = [f"{n:08}" for n in range(rows)]
    table = table_of(name, [people, list(range(rows)), *[[1.0] * rows] * 3], [True] * 5)
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=10_000)
    assert len(dictionary_texts(str(path), name, "customer_id") or ()) == 5
    read = selection.read_footer

    def truncating(source: parquet.StoredBytes) -> thrift.Struct:
        footer = read(source)
        os.truncate(path, len(source) // 2)
        return footer

    monkeypatch.setattr(selection, "read_footer", truncating)
    # of a mapped file, the process would end here
    assert dictionary_texts(str(path), name, "customer_id") is None


@needs_library
def test_a_text_of_the_dictionary_that_no_row_has_is_not_a_text_of_rows(tmp_path: Path) -> None:
    name, path = "accelerometer_trusted", tmp_path / "a.parquet"
    people = pa.DictionaryArray.from_arrays(pa.array([0, 2, 2]), pa.array(["ana", "bo", "cy"]))
    plain = table_of(name, [["ana", "cy", "cy"], [1, 2, 3], *[[1.0] * 3] * 3], [True] * 5)
    table = plain.set_column(0, plain.schema.field(0).with_type(people.type), people)
    pq.write_table(table, path, compression="zstd", store_schema=False)
    assert "bo" in chain(*(dictionary_texts(str(path), name, "customer_id") or ()))
    assert texts_of_rows(str(path), name, "customer_id", {"bo", "cy", "dee"}) == frozenset({"cy"})
