"""Files rewritten page by page have the rows that an engine keeps, and nothing of those who left."""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from random import Random, randrange
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from effort import tries
from fuzzing import assert_no_fault, fuzz, noticed
from stedi.engines import arrow_files, pages, parquet, thrift
from stedi.engines.pages import Leaving
from stedi.schema.tables import ALL_COLUMNS, Column, DataFile

KEYS = {
    "accelerometer_landing": "user",
    "step_trainer_landing": "serialNumber",
    "accelerometer_trusted": "customer_id",
    "step_trainer_trusted": "customer_id",
    "machine_learning_curated": "customer_id",
    "customers_landing": "email",
    "customers_trusted": "customer_id",
}
ARROW = {
    "string": pa.string(),
    "long": pa.int64(),
    "double": pa.float64(),
    "timestamptz": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
}
WHOLE = {"timestamptz": pa.int64(), "date": pa.int32()}
MEMORY = 1 << 30
ZSTD = b"\x28\xb5\x2f\xfd"

pytestmark = pytest.mark.skipif(parquet.library() is None, reason="needs a C compiler")


def values(chance: Random, column: Column, rows: int, key: str) -> list[Any]:
    """Values of a column: few or many different ones, in runs or not, and missing ones where they may be."""
    kinds = chance.choice([1, 2, 3, 40, 5_000])
    missing = 0.0 if column.name == key else chance.choice([0, 0, 0.1, 1.0])

    def one() -> Any:
        place = chance.randrange(kinds)
        if column.type == "string":
            return f"{column.name}-{place:04}-é"[: chance.choice([99, 99, len(column.name) + 6])]
        if column.type == "double":
            return chance.choice([0.0, -0.0, place / 7, -place / 3])
        return place * (1 if column.type == "date" else 1_000) - 3

    made: list[Any] = []
    while len(made) < rows:
        value = None if chance.random() < missing else one()
        made += [value] * chance.choice([1, 1, 9, 200])
    return made[:rows]


def table_of(name: str, columns: Sequence[Sequence[Any]], optional: Sequence[bool]) -> pa.Table:
    """A table of a lake's table, of values by column; instants are given as microseconds, dates as days."""
    arrays, fields = [], []
    for place, (column, given, maybe) in enumerate(zip(ALL_COLUMNS[name], columns, optional, strict=True), start=1):
        kind = ARROW[column.type]
        arrays.append(pa.array(given, WHOLE.get(column.type, kind)).cast(kind))
        fields.append(pa.field(column.name, kind, maybe or None in given, {"PARQUET:field_id": str(place)}))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def made_up(chance: Random, name: str, rows: int) -> pa.Table:
    columns = [values(chance, column, rows, KEYS[name]) for column in ALL_COLUMNS[name]]
    return table_of(name, columns, [chance.random() < 0.5 for _ in columns])


def written_by_duckdb(table: pa.Table, name: str, path: Path, group: int) -> None:
    """Writes a file with row groups of some rows as the engine does."""
    ids = ", ".join(f'"{column.name}": {place}' for place, column in enumerate(ALL_COLUMNS[name], start=1))
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("given", table)
        connection.execute(
            f"copy given to '{path}' (format parquet, compression zstd, compression_level 1, "
            f"row_group_size {group}, field_ids {{{ids}}})"
        )


def written(chance: Random, table: pa.Table, name: str, path: Path) -> str:
    """Writes a file as one of the lake's writers does, and returns which."""
    group = chance.choice([50, 700, 10_000])
    writer = chance.choice(["arrow", "arrow", "duckdb"])
    if writer == "duckdb":
        written_by_duckdb(table, name, path, max(2048, group))
        return writer
    options: dict[str, Any] = {"data_page_size": chance.choice([64, 1 << 20])}
    if chance.random() < 0.3:
        options["dictionary_pagesize_limit"] = 200  # values after so many bytes are written as they are
    texts = [column.name for column in ALL_COLUMNS[name] if column.type == "string"]
    rest = [column.name for column in ALL_COLUMNS[name] if column.type != "string"]
    some = [column for column in rest if chance.random() < 0.5]
    if chance.random() < 0.2:
        texts = []
    if chance.random() < 0.3:
        for place, field in enumerate(table.schema):
            if field.name in texts:  # each row group gets the whole dictionary
                column = table.column(place).combine_chunks().dictionary_encode()
                table = table.set_column(place, field.with_type(column.type), column)
    pq.write_table(
        table, path, compression="zstd", compression_level=1, store_schema=False, row_group_size=group,
        use_dictionary=[*texts, *some], write_batch_size=chance.choice([10, 10_000]),
        write_statistics=chance.choice([True, rest]),
        **options,
    )  # fmt: skip
    return writer


def data_file(path: Path) -> DataFile:
    return DataFile(str(path), pq.read_metadata(path).num_rows, path.stat().st_size)


def contents(path: Path) -> bytes:
    """All that is in a file: its bytes, and what each frame in it holds, whatever refers to it."""
    content = path.read_bytes()
    parts = [content]
    at = content.find(ZSTD)
    while at >= 0:
        with suppress(zstandard.ZstdError):  # bytes that only look like the start of a frame
            parts.append(zstandard.ZstdDecompressor().decompressobj().decompress(content[at:]))
        at = content.find(ZSTD, at + 1)
    return b"\0\0".join(parts)


def rewritten(name: str, path: Path, leaving: Leaving, folder: Path) -> tuple[list[DataFile], bool]:
    """Rewrites a file and returns what was made, and whether it was taken."""
    made, rest = pages.rewrite(name, [data_file(path)], leaving, folder, beside=True, memory=MEMORY)
    return list(made), not rest


@pytest.mark.parametrize("name", KEYS)
def test_what_stays_is_what_an_engine_keeps_and_nothing_else_is_in_the_file(tmp_path: Path, name: str) -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    taken = 0
    count = tries(4, 12, 3_000)
    for number in range(count):
        chance = Random(f"{seed} {number}")
        key = KEYS[name]
        table = made_up(chance, name, chance.choice([1, 5, 300, 3_000]))
        path, folder = tmp_path / f"{number}.parquet", tmp_path / f"{number}"
        written(chance, table, name, path)
        people = sorted(set(table[key].to_pylist()))
        texts = frozenset(chance.sample(people, min(len(people), chance.choice([0, 1, 2, 30, 5_000]))))
        leaving, moments = Leaving(key, texts), dict[str, set[int]]()
        if name == "step_trainer_landing":
            asked = chance.sample(people, min(len(people), 2))
            rows = table.select([key, "sensorReadingTime"]).to_pylist()
            moments = {a: {r["sensorReadingTime"] for r in rows if chance.random() < 0.3} - {None} for a in asked}
            leaving = Leaving(key, texts, "sensorReadingTime", moments)
        expected = [
            row
            for row in pq.read_table(path).to_pylist()
            if row[key] not in texts and row.get("sensorReadingTime") not in moments.get(row[key], ())
        ]
        made, was = rewritten(name, path, leaving, folder)
        taken += was
        if not was:
            continue
        assert (not made) == (not expected), f"case {number}"
        if not made:
            assert not folder.exists()
            continue
        new = pq.read_table(made[0].path)
        assert repr(new.to_pylist()) == repr(expected), f"case {number}"
        check_engine(new, made[0])
        check_metadata(pq.ParquetFile(made[0].path), pq.ParquetFile(path), made[0], ALL_COLUMNS[name])
        check_traces(table, expected, Path(made[0].path), key, texts)
    assert taken > count / 4, "too many files were left to the engine"


def check_engine(new: pa.Table, made: DataFile) -> None:
    """Another reader finds the same."""
    with duckdb.connect(config={"threads": 1}) as connection:
        connection.execute("set timezone = 'UTC'")
        assert (
            connection.execute(f"select * from read_parquet('{made.path}')").to_arrow_table().to_pylist()
            == new.to_pylist()
        )


def check_metadata(new: pq.ParquetFile, old: pq.ParquetFile, made: DataFile, columns: Sequence[Column]) -> None:
    """Sizes, counts and bounds are those of the rows that are there."""
    assert (made.rows, made.bytes) == (new.metadata.num_rows, Path(made.path).stat().st_size)
    bounds: dict[str, tuple[list[Any], list[Any]]] = {}
    for number in range(new.metadata.num_row_groups):
        group, rows = new.metadata.row_group(number), new.read_row_group(number)
        assert group.num_rows == len(rows)
        for place, column in enumerate(columns):
            chunk, found = group.column(place), rows.column(place).drop_null().to_pylist()
            assert chunk.num_values == len(rows)
            told = chunk.statistics
            had = old.metadata.row_group(0).column(place).statistics
            assert (told is None) == (had is None)
            if told is None:
                continue
            assert not told.has_null_count or told.null_count == rows.column(place).null_count
            if told.has_min_max:
                assert (told.min, told.max) == (min(found), max(found)), column.name
                if column.type in ("long", "double"):
                    for some, value in zip(bounds.setdefault(column.name, ([], [])), (told.min, told.max), strict=True):
                        some.append(value)
            else:
                assert not found or column.type == "string" or not had.has_min_max
    assert made.bounds == {name: (str(min(lows)), str(max(highs))) for name, (lows, highs) in bounds.items()}
    nulls = {column.name: new.read([column.name]).column(0).null_count for column in columns}
    assert made.nulls.items() <= nulls.items()


def check_traces(table: pa.Table, rows: list[dict[str, Any]], path: Path, key: str, texts: frozenset[str]) -> None:
    """No text that only rows had which left is anywhere in the file, nor any of those who left."""
    content = contents(path)
    for column in table.column_names:
        if pa.types.is_string(table.schema.field(column).type):
            stay = {row[column] for row in rows}
            for text in {*table[column].to_pylist()} - stay - {None}:
                if not any(text in other for other in stay if other):
                    assert text.encode() not in content, f"{text} in {column}"
    assert not any(text.encode() in content for text in texts if not any(text in row[key] for row in rows))


def test_numbers_of_those_who_left_are_in_no_dictionary_and_no_bound(tmp_path: Path) -> None:
    name, path = "accelerometer_trusted", tmp_path / "a.parquet"
    people = ["stays"] * 50 + ["leaves"] * 3 + ["stays"] * 50
    x = [1.5] * 50 + [1234.5678, -77.125, 1.5] + [2.5] * 50
    table = table_of(name, [people, [7] * 103, x, x[::-1], x], [False] * 5)
    with arrow_files.Writer(path, ALL_COLUMNS[name], [column.type for column in table.columns]) as file:
        file.write([column.chunk(0) for column in table.columns])
    made, taken = rewritten(name, path, Leaving("customer_id", frozenset({"leaves"})), tmp_path / "new")
    assert taken
    content = contents(Path(made[0].path))
    assert b"leaves" not in content
    for gone in (1234.5678, -77.125):
        assert struct.pack("<d", gone) in contents(path)
        assert struct.pack("<d", gone) not in content
    assert made[0].bounds == {"x": ("1.5", "2.5"), "y": ("1.5", "2.5"), "z": ("1.5", "2.5")}


def test_a_row_group_whose_dictionary_names_somebody_who_left_loses_the_name_too(tmp_path: Path) -> None:
    name, path, rows = "step_trainer_trusted", tmp_path / "a.parquet", arrow_files.GROUP + 10
    people = pa.array(["stays", *["leaves"] * 3, *["stays"] * (rows - 4)]).dictionary_encode()
    devices = pa.array(["here", *["gone"] * 3, *["here"] * (rows - 4)]).dictionary_encode()
    numbers = pa.array(range(rows), pa.int64())
    columns = [people, numbers.cast(pa.timestamp("us", "UTC")), devices, numbers]
    with arrow_files.Writer(path, ALL_COLUMNS[name], [column.type for column in columns]) as file:
        file.write(columns)
    assert pq.read_metadata(path).num_row_groups == 2
    made, taken = rewritten(name, path, Leaving("customer_id", frozenset({"leaves"})), tmp_path / "new")
    assert taken
    content = contents(Path(made[0].path))
    assert b"leaves" not in content
    assert b"gone" not in content
    assert pq.read_table(made[0].path)["distanceFromObject"].to_pylist() == [0, *range(4, rows)]


def test_a_row_group_whose_dictionary_names_a_device_of_which_only_moments_left_loses_the_name_too(
    tmp_path: Path,
) -> None:
    name, path, rows = "step_trainer_landing", tmp_path / "a.parquet", arrow_files.GROUP + 10
    devices = pa.array(["here", *["shared"] * 3, *["here"] * (rows - 4)]).dictionary_encode()
    numbers, texts = pa.array(range(rows), pa.int64()), pa.array(["x"] * rows).dictionary_encode()
    columns = [numbers, devices, numbers, texts, texts]
    with arrow_files.Writer(path, ALL_COLUMNS[name], [column.type for column in columns]) as file:
        file.write(columns)
    leaving = Leaving("serialNumber", frozenset(), "sensorReadingTime", {"shared": {1, 2, 3}})
    made, taken = rewritten(name, path, leaving, tmp_path / "new")
    assert taken
    assert b"shared" not in contents(Path(made[0].path))
    assert pq.read_table(made[0].path)["distanceFromObject"].to_pylist() == [0, *range(4, rows)]


@pytest.mark.parametrize("name", KEYS)
def test_a_file_loses_one_after_the_other_as_it_would_lose_all_at_once(tmp_path: Path, name: str) -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    taken = 0
    count = tries(3, 8, 1_000)
    for number in range(count):
        chance = Random(f"{seed} {number}")
        key = KEYS[name]
        table = made_up(chance, name, chance.choice([300, 3_000]))
        path = tmp_path / f"{number}.parquet"
        written(chance, table, name, path)
        expected, left = pq.read_table(path).to_pylist(), set[str]()
        for turn in range(4):
            people = sorted({row[key] for row in expected})
            texts = frozenset(chance.sample(people, min(len(people), chance.choice([1, 1, 9]))))
            left |= texts
            before, expected = path, [row for row in expected if row[key] not in texts]
            made, was = rewritten(name, path, Leaving(key, texts), tmp_path / f"{number} {turn}")
            taken += was
            if not made:
                assert not (was and expected)
                break
            path = Path(made[0].path)
            new = pq.read_table(path)
            assert repr(new.to_pylist()) == repr(expected), f"case {number}"
            # a text twice in a dictionary would be read as another one
            texts_too = [column.name for column in ALL_COLUMNS[name] if column.type == "string"]
            assert repr(pq.read_table(path, read_dictionary=texts_too).to_pylist()) == repr(expected), f"case {number}"
            check_engine(new, made[0])
            check_metadata(pq.ParquetFile(path), pq.ParquetFile(before), made[0], ALL_COLUMNS[name])
            check_traces(table, expected, path, key, frozenset(left))
    assert taken > count / 4, "too many files were left to the engine"


def test_a_dictionary_that_no_page_uses_goes(tmp_path: Path) -> None:
    name, path = "step_trainer_trusted", tmp_path / "a.parquet"
    # for a dictionary with a text twice, PyArrow writes an unused dictionary and plain values
    devices = pa.DictionaryArray.from_arrays(pa.array([0, 1] * 40, pa.int32()), pa.array(["one", "one"]))
    table = table_of(name, [["leaves"] + ["stays"] * 79, list(range(80)), ["x"] * 80, list(range(80))], [False] * 4)
    table = table.set_column(2, table.schema.field(2).with_type(devices.type), devices)
    pq.write_table(table, path, compression="zstd", store_schema=False, use_dictionary=True)
    chunk = pq.read_metadata(path).row_group(0).column(2)
    assert (chunk.has_dictionary_page, "RLE_DICTIONARY" in chunk.encodings) == (True, False)
    made, taken = rewritten(name, path, Leaving("customer_id", frozenset({"leaves"})), tmp_path / "new")
    assert taken
    assert pq.read_table(made[0].path)["serialNumber"].to_pylist() == ["one"] * 79
    assert not pq.read_metadata(made[0].path).row_group(0).column(2).has_dictionary_page


@pytest.mark.parametrize("given", ["customer_id", "customerName"])
def test_dictionaries_of_a_row_group_that_loses_no_row_lose_the_names_too_where_the_key_is_plain(
    tmp_path: Path, given: str
) -> None:
    name, path = "customers_trusted", tmp_path / "a.parquet"
    texts = {"customer_id": ["leaves", *(f"stays{row}" for row in range(19))]}
    texts["customerName"] = [f"name of {person}" for person in texts["customer_id"]]
    columns = [
        texts.get(column.name, ["x"] * 20 if column.type == "string" else range(20)) for column in ALL_COLUMNS[name]
    ]
    table = table_of(name, columns, [False] * len(columns))
    # PyArrow writes a given dictionary into each row group; for one with a text twice it writes plain values beside it
    twice = texts[given] + texts[given][1:2] * (given == "customer_id")
    values = pa.DictionaryArray.from_arrays(pa.array(range(20), pa.int32()), pa.array(twice))
    place = table.schema.get_field_index(given)
    table = table.set_column(place, table.schema.field(place).with_type(values.type), values)
    pq.write_table(table, path, compression="zstd", store_schema=False, row_group_size=10, use_dictionary=[given])
    assert "RLE_DICTIONARY" not in pq.read_metadata(path).row_group(1).column(0).encodings
    made, taken = rewritten(name, path, Leaving("customer_id", frozenset({"leaves"})), tmp_path / "new")
    assert taken
    assert pq.read_table(made[0].path)["customerName"].to_pylist() == texts["customerName"][1:]
    assert b"leaves" not in contents(Path(made[0].path))


def test_a_row_group_without_bounds_leaves_its_file_without_them(tmp_path: Path) -> None:
    name, path, rows = "accelerometer_trusted", tmp_path / "a.parquet", 2048 * 3
    some = [1.0] * 2048 * 2 + [float("nan"), 9.0] * 1024  # DuckDB tells no bounds of a row group with this
    people = ["leaves"] + ["stays"] * (rows - 1)
    table = table_of(name, [people, list(range(rows)), some, [1.0] * rows, [1.0] * rows], [True] * 5)
    written_by_duckdb(table, name, path, 2048)
    assert [pq.read_metadata(path).row_group(n).column(2).statistics.has_min_max for n in range(3)] == [1, 1, 0]
    made, taken = rewritten(name, path, Leaving("customer_id", frozenset({"leaves"})), tmp_path / "new")
    assert taken
    assert made[0].bounds.keys() == {"y", "z"}


def test_files_for_which_there_is_no_memory_are_left_to_the_engine(tmp_path: Path) -> None:
    name, texts = "accelerometer_trusted", frozenset({"leaves"})
    files = []
    for place, rows in enumerate([10, 5_000]):
        numbers = [Random(row).random() for row in range(rows)]
        people = ["leaves", *["stays"] * (rows - 1)]
        pq.write_table(
            table_of(name, [people, list(range(rows)), numbers, numbers, numbers], [False] * 5),
            tmp_path / f"{place}.parquet",
            compression="zstd",
            store_schema=False,
        )
        files.append(data_file(tmp_path / f"{place}.parquet"))
    small, large = files
    made, rest = pages.rewrite(
        name, files, Leaving("customer_id", texts), tmp_path / "new", beside=True, memory=3 * large.bytes - 1
    )
    assert [file.rows for file in made] == [small.rows - 1]
    assert rest == (large,)
    assert pages.rewrite(name, [large], Leaving("customer_id", texts), tmp_path / "no", beside=True, memory=1) == (
        (),
        (large,),
    )
    assert not (tmp_path / "no").exists()


def some_files(folder: Path, count: int) -> list[DataFile]:
    """Files of one size with rows of one who leaves."""
    folder.mkdir()
    files, name = [], "accelerometer_trusted"
    for place in range(count):
        numbers = [Random(f"{place} {row}").random() for row in range(500)]
        people = [("leaves", "stays")[row % 9 > 2] for row in range(500)]
        table = table_of(name, [people, list(range(500)), numbers, numbers, numbers], [False] * 5)
        pq.write_table(table, folder / f"{place}.parquet", compression="zstd", store_schema=False)
        files.append(data_file(folder / f"{place}.parquet"))
    return files


SOME = Leaving("customer_id", frozenset({"leaves"}))


@pytest.mark.parametrize("room", [6, 5], ids=["for two files", "for one"])
def test_a_file_is_written_beside_the_next_if_there_is_memory_for_both_and_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    files, writers, write = some_files(tmp_path / "old", 4), set[int](), pages._written

    def written(*arguments: Any) -> DataFile | bool:
        writers.add(threading.get_ident())
        return write(*arguments)

    monkeypatch.setattr(pages, "_written", written)
    largest = max(file.bytes for file in files)
    made = {}
    for beside in (False, True):
        folder = tmp_path / f"new {beside}"
        news, rest = pages.rewrite("accelerometer_trusted", files, SOME, folder, beside=beside, memory=room * largest)
        assert not rest
        made[beside] = [(Path(new.path).name, Path(new.path).read_bytes(), new.rows, new.bounds) for new in news]
        assert (writers == {threading.get_ident()}) == (not beside or room < 6)
        writers.clear()
    assert made[False] == made[True]


@pytest.mark.parametrize("beside", [False, True], ids=["one thread", "two threads"])
@pytest.mark.parametrize("step", ["_read", "_written"])
def test_if_a_file_fails_the_others_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside: bool, step: str
) -> None:
    files, does, calls = some_files(tmp_path / "old", 4), getattr(pages, step), list[int]()

    def failing(*arguments: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 3:
            raise OSError(28, "No space left on device")
        return does(*arguments)

    monkeypatch.setattr(pages, step, failing)
    with pytest.raises(OSError, match="No space left"):
        pages.rewrite("accelerometer_trusted", files, SOME, tmp_path / "new", beside=beside, memory=MEMORY)
    assert not (tmp_path / "new").exists()


def test_a_row_group_that_holds_none_of_them_passes_on_as_it_is(tmp_path: Path) -> None:
    name, path, rows = "accelerometer_trusted", tmp_path / "a.parquet", range(600)
    numbers = [float(row % 17) for row in rows]
    table = table_of(name, [[f"p{row // 100}" for row in rows], list(rows), numbers, numbers, numbers], [True] * 5)
    pq.write_table(
        table, path, row_group_size=100, compression="zstd", store_schema=False, use_dictionary=["customer_id", "x"]
    )
    made, taken = rewritten(name, path, Leaving("customer_id", frozenset({"p0", "p3"})), tmp_path / "new")
    assert taken
    new, old = pq.ParquetFile(made[0].path), pq.ParquetFile(path)
    assert [new.read_row_group(n)["customer_id"][0].as_py() for n in range(4)] == ["p1", "p2", "p4", "p5"]
    start, end = (old.metadata.row_group(n).column(0).dictionary_page_offset for n in (1, 3))
    assert path.read_bytes()[start:end] in Path(made[0].path).read_bytes()


def page_bytes(path: Path, column: int) -> list[bytes]:
    """The data pages of a column in the first row group, with their headers."""
    content = path.read_bytes()
    chunk = pq.ParquetFile(path).metadata.row_group(0).column(column)
    at = chunk.dictionary_page_offset or chunk.data_page_offset
    raw = content[at : at + chunk.total_compressed_size]
    headers = thrift.page_headers(raw)
    assert headers is not None
    return [raw[begin:end] for begin, _, end, kind, *_ in headers if not kind]


def write_in_pages(table: pa.Table, path: Path, rows: int) -> None:
    """Writes a table in pages of so many rows, with a dictionary of serial numbers alone."""
    pq.write_table(
        table, path, compression="zstd", store_schema=False, use_dictionary=["serialNumber"], data_page_size=1,
        write_batch_size=rows,
    )  # fmt: skip


def test_pages_without_the_last_entries_of_a_dictionary_stay_as_they_are(tmp_path: Path) -> None:
    name, path = "step_trainer_landing", tmp_path / "a.parquet"
    people = [f"p{row // 10}" for row in range(80)]  # in pages of 20 rows
    times = list(range(80))
    columns: list[Sequence[Any]] = [times, people, times, [None] * 80, ["file"] * 80]
    table = table_of(name, columns, [False, False, False, True, False])
    write_in_pages(table, path, 20)
    made, taken = rewritten(name, path, Leaving("serialNumber", frozenset({"p1"})), tmp_path / "new")
    assert taken
    new = Path(made[0].path)
    kept = [person for person in people if person != "p1"]
    assert pq.read_table(new)["serialNumber"].to_pylist() == kept
    assert pq.read_table(new, read_dictionary=["serialNumber"])["serialNumber"].to_pylist() == kept
    assert duckdb.sql(f"select serialNumber from '{new}'").fetchall() == [(person,) for person in kept]
    before, after = page_bytes(path, 1), page_bytes(new, 1)
    assert len(before) == len(after) == 4
    # the first page lost rows, and p7, on the last one, has the index of p1 now
    assert [one == other for one, other in zip(before, after, strict=True)] == [False, True, True, False]


@pytest.mark.parametrize(
    ("others", "bounds"),
    [({}, ("3", "90")), ({0: 1, 2: 99}, ("1", "99")), ({1: 1, 2: 99}, ("1", "99")), ({1: 1, 61: 99}, ("1", "99"))],
    ids=["nobody else", "both beside it", "one beside it", "on another page"],
)
def test_a_bound_of_those_who_left_stays_where_somebody_else_has_it(
    tmp_path: Path, others: dict[int, int], bounds: tuple[str, str]
) -> None:
    name, path = "step_trainer_landing", tmp_path / "a.parquet"
    numbers = [3 + row % 88 for row in range(100)]
    people = ["stays"] * 100
    for row, number in others.items():
        numbers[row] = number
    for row, number in ((30, 1), (31, 99)):
        numbers[row], people[row] = number, "leaves"
    columns: list[Sequence[Any]] = [list(range(100)), people, numbers, [None] * 100, ["file"] * 100]
    table = table_of(name, columns, [False, False, False, True, False])
    write_in_pages(table, path, 50)
    made, taken = rewritten(name, path, Leaving("serialNumber", frozenset({"leaves"})), tmp_path / "new")
    assert taken
    assert len(page_bytes(path, 2)) == 2
    assert made[0].bounds["distanceFromObject"] == bounds
    told = pq.ParquetFile(made[0].path).metadata.row_group(0).column(2).statistics
    assert (str(told.min), str(told.max)) == bounds


@pytest.mark.parametrize(
    "change", ["snappy", "field ids", "delta", "nan", "version 2", "checksums", "more columns", "some plain texts"]
)
def test_a_file_of_another_kind_is_left_to_the_engine(tmp_path: Path, change: str) -> None:
    table = made_up(Random(1), "machine_learning_curated", 300)
    path, options = tmp_path / "a.parquet", dict[str, Any](compression="zstd", store_schema=False)
    if change == "snappy":
        options["compression"] = "snappy"
    elif change == "field ids":
        table = table.replace_schema_metadata({}).cast(pa.schema([field.remove_metadata() for field in table.schema]))
    elif change == "delta":
        options |= {"use_dictionary": ["customer_id"], "column_encoding": {"distanceFromObject": "DELTA_BINARY_PACKED"}}
    elif change == "nan":
        table = table.set_column(3, table.schema.field(3), pa.array([float("nan")] * 300))
        options["use_dictionary"] = ["customer_id"]
    elif change == "version 2":
        options["data_page_version"] = "2.0"
    elif change == "checksums":
        options["write_page_checksum"] = True
    elif change == "more columns":
        table = table.append_column("more", pa.array([1] * 300))
    else:
        options |= {"dictionary_pagesize_limit": 1, "write_batch_size": 10, "data_page_size": 64}
    pq.write_table(table, path, **options)
    texts = frozenset(table["customer_id"].to_pylist()[:1])
    made, rest = pages.rewrite(
        "machine_learning_curated",
        [data_file(path)],
        Leaving("customer_id", texts),
        tmp_path / "new",
        beside=True,
        memory=MEMORY,
    )
    assert not made
    assert [file.path for file in rest] == [str(path)]
    assert not (tmp_path / "new").exists()


def test_a_damaged_file_is_left_to_the_engine_or_read_as_it_is(tmp_path: Path) -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    left = 0
    count = tries(100, 400, 200_000)
    for number in range(count):
        if number % 100 == 0:
            name = chance.choice(list(KEYS))
            table = made_up(chance, name, 300)
            written(chance, table, name, tmp_path / "whole.parquet")
            whole = (tmp_path / "whole.parquet").read_bytes()
            people = sorted(set(table[KEYS[name]].to_pylist()))
        damaged = bytearray(whole)
        for _ in range(chance.choice([1, 1, 3])):
            # most of a file is packed; what is not is mostly at its end
            at = chance.choice([chance.randrange(len(whole)), len(whole) - 1 - chance.randrange(min(len(whole), 900))])
            damaged[at] = chance.choice([0, 1, 127, 128, 255, damaged[at] ^ 1 << chance.randrange(8)])
        if chance.random() < 0.05:
            del damaged[chance.randrange(len(damaged)) :]
        path = tmp_path / "damaged.parquet"
        path.write_bytes(damaged)
        folder = tmp_path / "new"
        file = DataFile(str(path), 300, len(damaged))
        leaving = Leaving(KEYS[name], frozenset(people[::2]))
        _, rest = pages.rewrite(name, [file], leaving, folder, beside=True, memory=MEMORY)
        left += bool(rest)
        shutil.rmtree(folder, ignore_errors=True)
    assert count > left > count / 4


SOURCE = Path(pages.__file__).with_suffix(".c")


def test_no_page_makes_the_library_leave_its_memory(tmp_path: Path) -> None:
    count = tries(20_000, 60_000, 50_000_000)
    assert_no_fault(tmp_path, SOURCE, count, count / 10)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("at < size && shift <= 28", "at <= size && shift <= 28"),
        ("if ((size - at) / (width ? width : 1) < (width ? groups : 0)) return -1;", ""),
        ("page->highest >= entries", "page->highest > entries"),
        ("end - start - n / 8 * width >= 8; n += 8", "1; n += 8"),
        ("if (kind != TEXT && values > (page->size - at) / width) return -1;", ""),
        ("return length > left - 4 ? -1 : 4 + (i64)length;", "return 4 + (i64)length;"),
    ],
)
def test_a_library_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SOURCE, 60_000, mutant=(bound, looser)))
