"""Traces in Parquet files are found, however the file names, stores and describes its columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi.engines import dictionaries, thrift
from stedi.engines.duckdb import DuckDB, task_session
from stedi.erasure import search
from stedi.erasure.identifiers import Identifiers
from stedi.errors import LakeError
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key

KEY = Key(b"k" * 32)
ANN = "Ann Lindqvist"
ADDRESS = "ann@x.example"
TRACES = Identifiers(KEY, {tombstones.person(KEY, ADDRESS)}, frozenset({ADDRESS, ANN.lower()}))


@pytest.fixture
def engine() -> Iterator[DuckDB]:
    with task_session() as session:
        yield session


def change_footer(path: Path, change: Callable[[Any], object]) -> None:
    """Writes the footer of a file anew after a change of its fields."""
    content = path.read_bytes()
    size = int.from_bytes(content[-8:-4], "little")
    fields, _ = thrift.read(content[-8 - size : -8])
    change(fields)
    footer = thrift.write(fields)
    path.write_bytes(content[: -8 - size] + footer + len(footer).to_bytes(4, "little") + b"PAR1")


def texts_of_fixed_length(path: Path) -> None:
    pq.write_table(pa.table({"a": pa.array([ANN.encode()], pa.binary(len(ANN)))}), path)

    def describe(fields: Any) -> None:
        _, column = fields[2][1][1]
        column[6] = thrift.I32, 0  # UTF8

    change_footer(path, describe)


def statistics_of_another_type(path: Path) -> None:
    table = pa.table({"n": [[1]], "a": ["x"], "b": [ANN]})
    pq.write_table(table, path, compression="snappy", write_statistics=False)

    def damage(fields: Any) -> None:
        chunks = fields[4][1][1][0][1][1][1]
        chunks[1][3][1][12] = thrift.I32, 0

    change_footer(path, damage)


def names_that_differ_in_case(path: Path) -> None:
    pq.write_table(pa.table({"a": ["x"], "A": [ANN]}), path, compression="snappy", write_statistics=False)


def a_dictionary_under_such_a_name(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["x", ANN]))
    pq.write_table(pa.table({"a": ["x"], "A": texts}), path, compression="zstd", write_statistics=False)


@pytest.mark.parametrize(
    "written",
    [
        texts_of_fixed_length,
        statistics_of_another_type,
        names_that_differ_in_case,
        a_dictionary_under_such_a_name,
    ],
)
def test_a_text_is_found_in_files_of_any_other_writer(
    tmp_path: Path, engine: DuckDB, written: Callable[[Path], None]
) -> None:
    path = tmp_path / "a.parquet"
    written(path)
    looked = search.look(path, TRACES, engine)
    assert looked.found
    assert not looked.undecoded


def test_what_is_no_trace_as_a_serial_number_may_be_one_as_a_name(tmp_path: Path, engine: DuckDB) -> None:
    for name, column in (("step_trainer_landing", "serialNumber"), ("customers_landing", "customerName")):
        path = tmp_path / "landing" / name / "data" / "a.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({column: [ANN]}), path, compression="zstd")
    found = search.search_lake(tmp_path, TRACES, engine).found
    assert found == ["landing/customers_landing/data/a.parquet (customerName)"]


def test_what_was_read_before_a_failure_is_searched_in_the_next_table(
    tmp_path: Path, engine: DuckDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["landing/customers_landing/data/a.parquet", "trusted/customers_trusted/data/a.parquet"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"customerName": [ANN]}), path, compression="zstd", write_statistics=False)
    judge, failed = search._among, list[str]()

    def failing(*arguments: Any) -> bool:
        if not failed:
            failed.append("the first")
            raise LakeError("out of memory")
        return judge(*arguments)

    monkeypatch.setattr(search, "_among", failing)
    assert sorted(search.search_lake(tmp_path, TRACES, engine).found) == [f"{name} (customerName)" for name in names]


@pytest.mark.parametrize("coding", ["quoted-printable", "base64"])
def test_an_encoded_value_is_read_apart_from_those_beside_it(tmp_path: Path, engine: DuckDB, coding: str) -> None:
    others, mine = {
        "quoted-printable": ([f"{n}=" for n in range(50)], "=61nn@x.example"),
        "base64": ([f"{n:016}" for n in range(50)], "T3R0byA8YW5uQHgu\nZXhhbXBsZT4gYW5k\nb3RoZXJz"),
    }[coding]
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": [mine]}), path)
    assert search.look(path, TRACES, engine).found
    pq.write_table(pa.table({"a": [*others, mine, *others]}), path)
    assert search.look(path, TRACES, engine).found


def without_the_library(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(dictionaries, "library", lambda: None)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_text_of_many_places_is_found_in_each_of_them(
    tmp_path: Path, engine: DuckDB, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    """What was searched once is not searched again: then a trace must not count as searched."""
    without_the_library(monkeypatch, compiled)
    chance = Random(compiled)
    common = [f"{n}@y.example" for n in range(50)]
    columns = {
        "landing/customers_landing": ["email", "customerName", "phone", "_extra"],
        "landing/accelerometer_landing": ["user", "_extra"],
        "landing/quarantine": ["raw", "file"],
        "trusted/customers_trusted": ["email", "customerName"],
        "others/theirs": ["name", "note"],
    }
    expected = []
    for number in range(6):
        for table, names in columns.items():
            name = f"{table}/data/{number}.parquet"
            texts = {column: chance.sample(common, 20) for column in names}
            # the same texts before and after, in this column and in its neighbours
            for column in chance.sample(names, chance.randrange(len(names) + 1)) if number % 3 else ():
                texts[column][chance.randrange(20)] = ADDRESS
                expected.append(f"{name} ({column})")
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            plain = {"use_dictionary": False} if number == 4 else {}
            # some are read by the engine
            packed = "snappy" if number == 5 else "zstd"
            pq.write_table(pa.table(texts), path, compression=packed, write_statistics=bool(number % 2), **plain)
    assert expected
    assert sorted(search.search_lake(tmp_path, TRACES, engine).found) == sorted(expected)


@pytest.mark.parametrize("compiled", [True, False])
def test_a_text_of_a_column_that_is_not_searched_is_found_where_it_counts(
    tmp_path: Path, engine: DuckDB, monkeypatch: pytest.MonkeyPatch, compiled: bool
) -> None:
    without_the_library(monkeypatch, compiled)
    # in the order of the search
    tables = {
        "landing/quarantine": {"batch": [ANN], "raw": ["x"]},
        "landing/customers_landing": {"customerName": [ANN]},
    }
    for name, columns in tables.items():
        path = tmp_path / name / "data" / "a.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path, compression="zstd", write_statistics=False, store_schema=False)
    assert search.search_lake(tmp_path, TRACES, engine).found == [
        "landing/customers_landing/data/a.parquet (customerName)"
    ]


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.parametrize("engines", [True, False])
def test_texts_that_only_a_dictionary_or_bounds_have_are_found(
    tmp_path: Path, engine: DuckDB, monkeypatch: pytest.MonkeyPatch, compiled: bool, engines: bool
) -> None:
    without_the_library(monkeypatch, compiled)
    if engines:  # the rows are read by the engine, which sees neither
        monkeypatch.setattr(dictionaries, "_flat", lambda root, elements: None)
    marks = {"x": "Xnn Lindqvist", "m": "Ynn Lindqvist"}
    home = tmp_path / "landing" / "customers_landing" / "data"
    home.mkdir(parents=True)
    pq.write_table(pa.table({"customerName": ["a", "b"]}), home / "0.parquet", compression=None)
    for number, (column, mark) in enumerate(marks.items(), start=1):
        path = home / f"{number}.parquet"
        data = pa.DictionaryArray.from_arrays(pa.array([0]), pa.array(["a", mark])) if column == "x" else [mark]
        pq.write_table(pa.table({"customerName": data}), path, compression=None, store_schema=False)
        content = path.read_bytes()
        if column == "x":
            assert content.count(mark.encode()) == 1, "no row has it"
            content = content.replace(mark.encode(), ANN.encode())
        else:
            at = content.rindex(mark.encode())  # the last of the bounds in the footer
            content = content[:at] + ANN.encode() + content[at + len(ANN) :]
        path.write_bytes(content)
    found = search.search_lake(tmp_path, TRACES, engine).found
    assert sorted(found) == [f"landing/customers_landing/data/{n}.parquet (customerName)" for n in (1, 2)]
