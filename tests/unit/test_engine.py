"""The embedded engine: what it writes, what it says of it, and what it refuses."""

from __future__ import annotations

import math
import os
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest

import effort
from stedi.engines import pseudonyms, selection
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, nameable, path_literal, quoted
from stedi.engines.pseudonyms import NORMAL
from stedi.engines.table_files import scan
from stedi.errors import LakeError
from stedi.privacy.pseudonyms import normalise
from stedi.schema.tables import ALL_COLUMNS, COLUMNS, DUCKDB_TYPES, DataFile, graph, rebind

TABLE = "accelerometer_trusted"
ROWS = (
    'select {who} as customer_id, instant({at}) as "timestamp", {x}::double as x, 0.0::double as y, '
    "null::double as z from range({n}) as t (i)"
)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    with DuckDB(memory="100MB", threads=2, temporary=tmp_path / "spill") as session:
        yield session


def rows(n: int, *, who: str = "'a'", at: str = "i + 1", x: str = "i") -> str:
    return ROWS.format(n=n, who=who, at=at, x=x)


def test_written_rows_are_read_back_from_the_files_that_were_named(engine: DuckDB, tmp_path: Path) -> None:
    files = engine.write(TABLE, rows(1000), tmp_path / "t" / "run")
    assert sum(file.rows for file in files) == 1000
    for file in files:
        assert Path(file.path).parent == tmp_path / "t" / "run"
        assert os.path.getsize(file.path) == file.bytes
    engine.bind_files(TABLE, files)
    assert engine.rows(f"select count(*), sum(x) from {TABLE}") == [(1000, 499_500.0)]


def test_files_carry_the_field_ids_of_the_table_and_zstd(engine: DuckDB, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    # columns in another order on purpose: they are matched by name
    sql = f'select z, y, x, "timestamp", customer_id from ({rows(3)})'
    [file, *_] = engine.write(TABLE, sql, tmp_path / "run")
    schema = pq.read_schema(file.path)
    ids = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in schema}
    assert ids == {column.name: place for place, column in enumerate(COLUMNS[TABLE], start=1)}
    assert str(schema.field("timestamp").type) == "timestamp[us, tz=UTC]"
    assert pq.ParquetFile(file.path).metadata.row_group(0).column(0).compression == "ZSTD"


@pytest.mark.parametrize("count", [1, 99, 100, 300])
def test_inserted_texts_are_those_that_were_given(engine: DuckDB, count: int) -> None:
    """Whatever is in them: as literals, split again, or by Arrow."""
    for odd in ("it's", "\0", "$1", "\n", "\x1f", "\x1e\x1f", "", "é\U0010ffff"):
        given = [(f"{odd}{place}", -place) for place in range(count)]
        engine.insert_rows("given", {"text": "varchar", "number": "bigint"}, given)
        assert sorted(engine.rows("select * from given")) == sorted(given)
    blobs = [(None, b"\0\xff' "), ("", b"")] * count
    engine.insert_rows("given", {"text": "varchar", "raw": "blob"}, blobs)
    assert sorted(engine.rows("select * from given"), key=repr) == sorted(blobs, key=repr)


@pytest.mark.own_engine
def test_what_needs_too_much_memory_with_several_threads_is_tried_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    execute, tried = DuckDB._execute, list[int]()

    def limited(engine: DuckDB, sql: str) -> Any:
        if sql.startswith(("create or replace table", "select n + 1", "insert into persons")):
            [(threads,)] = execute(engine, "select current_setting('threads')").fetchall()
            tried.append(threads)
            if tried[-1] > 1:
                raise LakeError("full") from duckdb.OutOfMemoryException()
        return execute(engine, sql)

    monkeypatch.setattr(DuckDB, "_execute", limited)
    with DuckDB(memory="100MB", threads=2, temporary=tmp_path / "spill") as engine:
        engine.materialize("given", "select 1 as n")
        assert engine.rows("select n + 1 as n from given") == [(2,)]
        assert engine.rows("select n, current_setting('threads') from given") == [(1, 2)]
        engine.pseudonymise("people", "select 'A' as address", str.lower)
        assert engine.rows("select address, customer_id from people") == [("A", "a")]
    assert tried == [2, 1] * 5


def test_nulls_dates_and_booleans_are_those_that_were_given(engine: DuckDB) -> None:
    kinds = {"text": "varchar", "born": "date", "seen": "boolean"}
    for odd in ("plain", "", "\x1e"):
        given = [(None, None, True), (odd, date(1, 2, 3), False), ("é", date(9999, 12, 31), None)] * 50
        engine.insert_rows("given", kinds, given)
        assert sorted(engine.rows("select * from given"), key=repr) == sorted(given, key=repr)


def test_a_text_of_nuls_is_a_literal_that_any_number_of_them_costs_little(engine: DuckDB) -> None:
    for text in ("\0", "\0" * 5_000, "a\0" * 5_000 + "b", "\0'\0"):
        assert engine.rows(f"select {literal(text)}") == [(text,)]


def test_no_rows_of_texts_and_numbers_have_pandas_or_arrow_imported(tmp_path: Path) -> None:
    """DuckDB imports both to bind one parameter, which takes longer than most commands."""
    code = """
import sys, pathlib
from stedi.engines.duckdb import DuckDB
with DuckDB(memory="100MB", threads=1, temporary=pathlib.Path(sys.argv[1])) as engine:
    for count in (1, 1000):
        engine.insert_rows("given", {"a": "varchar", "n": "bigint"}, [("ann@x.example", n) for n in range(count)])
        engine.pseudonymise("people", f"select i::varchar as address from range({count}) as t(i)", str)
print(sorted({"pandas", "pyarrow"} & sys.modules.keys()))
"""
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "spill"], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


def test_no_rows_are_no_files(engine: DuckDB, tmp_path: Path) -> None:
    assert engine.write(TABLE, rows(0), tmp_path / "run") == ()
    assert not list((tmp_path / "run").iterdir())
    engine.bind_files(TABLE, ())
    assert engine.rows(f"select count(*) from {TABLE}") == [(0,)]
    assert engine.rows(f"describe select * from {TABLE}")[1][1] == "TIMESTAMP WITH TIME ZONE"


@pytest.mark.parametrize(
    ("sql", "wrong"),
    [
        ("select 'a' as customer_id", "timestamp, x, y, z"),
        (f"select *, 1 as more from ({rows(1)})", "more"),
        (f"select * exclude (z) from ({rows(1)})", "z"),
        (f"select * replace (1::integer as x) from ({rows(1)})", "x"),
        (f"select * replace (1::float as x) from ({rows(1)})", "x"),
        (f"select * replace (timestamp '2022-01-01' as \"timestamp\") from ({rows(1)})", "timestamp"),
        (f"select customer_id as Customer_Id, * exclude (customer_id) from ({rows(1)})", "Customer_Id, customer_id"),
    ],
)
def test_other_columns_than_the_table_s_are_refused_before_anything_is_written(
    engine: DuckDB, tmp_path: Path, sql: str, wrong: str
) -> None:
    with pytest.raises(LakeError, match=f"{TABLE}: the columns of its SQL differ from the table's: {wrong}: expected"):
        engine.write(TABLE, sql, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_nulls_and_bounds_are_those_of_the_rows(engine: DuckDB, tmp_path: Path) -> None:
    sql = rows(10, who="case when i % 2 = 0 then 'a' end", x="i / 8.0 - 1e300 * (i = 3)::int")
    files = engine.write(TABLE, sql, tmp_path / "run")
    nulls = {name: sum(f.nulls[name] for f in files) for name in files[0].nulls}
    assert nulls == {"customer_id": 5, "timestamp": 0, "x": 0, "y": 0, "z": 10}
    least = min(float(f.bounds["x"][0]) for f in files)
    greatest = max(float(f.bounds["x"][1]) for f in files)
    assert (least, greatest) == (3 / 8 - 1e300, 9 / 8)
    for file in files:
        assert file.bounds.keys() == {"x", "y"}, "text has no bounds, nor has a column without values"


def test_bounds_of_whole_numbers_are_exact(engine: DuckDB, tmp_path: Path) -> None:
    least, greatest = -(2**63), 2**63 - 1
    sql = (
        "select 'a' as customer_id, instant(1) as sensorReadingTime, 's' as serialNumber, "
        f"unnest([{least}, 9007199254740993, {greatest}])::bigint as distanceFromObject"
    )
    files = engine.write("step_trainer_trusted", sql, tmp_path / "run")
    assert min(int(f.bounds["distanceFromObject"][0]) for f in files) == least
    assert max(int(f.bounds["distanceFromObject"][1]) for f in files) == greatest


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -0.0, 123456789.12345679])
def test_bounds_of_fractions_are_exact(engine: DuckDB, tmp_path: Path, value: float) -> None:
    [file] = engine.write(TABLE, rows(1, x=repr(value)), tmp_path / "run")
    for bound in file.bounds["x"]:
        assert struct.pack("d", float(bound)) == struct.pack("d", value)


def test_a_column_with_nan_has_no_bounds(engine: DuckDB, tmp_path: Path) -> None:
    files = engine.write(TABLE, rows(3, x="case when i = 1 then 'nan'::double else i end"), tmp_path / "run")
    assert all("x" not in file.bounds or not math.isnan(float(file.bounds["x"][1])) for file in files)
    holder = [f for f in files if engine.rows(f"select x from ({scan([f], COLUMNS[TABLE])}) where isnan(x)")]
    assert len(holder) == 1
    assert "x" not in holder[0].bounds


def test_a_bound_table_does_not_see_later_files(engine: DuckDB, tmp_path: Path) -> None:
    first = engine.write(TABLE, rows(2), tmp_path / "data" / "1")
    engine.bind_files(TABLE, first)
    engine.write(TABLE, rows(3), tmp_path / "data" / "2")
    assert engine.rows(f"select count(*) from {TABLE}") == [(2,)]


@pytest.mark.parametrize("by", ["dictionaries", "both", "rows"])
def test_files_that_contain_some_values_are_found_with_those_values(
    by: str, engine: DuckDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by == "both":  # as where a file has a form that only the engine reads
        told = selection.texts_of_rows
        monkeypatch.setattr(selection, "texts_of_rows", lambda path, *of: None if "/1/" in path else told(path, *of))
    one, other, third = (
        engine.write(TABLE, rows(4, who=who), tmp_path / str(place))
        for place, who in enumerate(("'a' || i % 2", "'a' || i", "'b'"))
    )
    wanted = "select unnest(['a0', 'a3', 'a9', null]) as customer_id"
    asked = partial(engine.files_containing, "found", table=TABLE, by_rows=by == "rows")
    found = asked((*one, *other, *third), "customer_id", wanted)
    assert {file.path for file in found} == {file.path for file in (*one, *other)}
    assert sorted(engine.rows("select * from found")) == [("a0",), ("a3",)]
    for files, values in (((), wanted), (third, wanted), (one, f"{wanted} limit 0")):
        assert asked(files, "customer_id", values) == ()
        assert engine.rows("select customer_id from found") == []


def test_few_texts_are_named_one_by_one_and_many_are_selected(engine: DuckDB, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedi.engines.duckdb._FEW", 3)
    few = "select unnest(['it''s', 'a', null])"
    assert engine.listed(few) == "'a', 'it''s'"
    assert engine.listed(f"{few} limit 0") == "null"
    many = "select unnest(['a', 'b', 'c', 'd'])"
    assert engine.listed(many) == many
    for values in (few, many, f"{few} limit 0"):
        found = engine.rows(
            f"select x from (values ('a'), ('it''s'), ('e')) as t(x) where x in ({engine.listed(values)})"
        )
        assert found == engine.rows(f"select x from (values ('a'), ('it''s'), ('e')) as t(x) where x in ({values})")


@pytest.mark.parametrize("name", ["[1]", "a*b", "a?b", "**", "it's", "x=5", "customer_id=other", "a,b", "é ", "b\\c"])
def test_files_are_read_by_their_names_and_not_by_patterns(engine: DuckDB, tmp_path: Path, name: str) -> None:
    for other in ("1", "aab", "ab", "aXb", "c"):
        engine.write(TABLE, rows(7, who="'wrong'"), tmp_path / other)
    files = engine.write(TABLE, rows(1, x="42"), tmp_path / name)
    engine.bind_files(TABLE, files)
    assert engine.rows(f"select customer_id, x from {TABLE}") == [("a", 42.0)]


def test_a_file_that_cannot_be_named_is_refused() -> None:
    assert nameable("/a\\b") and nameable("/a*b") and not nameable("/a\\*b")  # noqa: PT018
    with pytest.raises(LakeError, match="expected no wildcard beside a backslash"):
        path_literal("/a\\[b")


def test_parameters_are_filled_in_as_values_and_never_as_sql(engine: DuckDB) -> None:
    sql = rebind("select $readings as r, $n + 1 as n, '$n' as kept -- $n", {}, {"readings": "a' or '1", "n": 5})
    assert engine.rows(sql) == [("a' or '1", 6, "$n")]


def test_an_unknown_parameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(LakeError, match=r"SQL parameter \$reading: expected one of build_started, readings"):
        rebind("select $reading", {}, {"readings": "all", "build_started": 1})


@pytest.mark.parametrize("name", sorted(graph().selects))
def test_every_select_of_the_lake_has_its_parameters_filled_in(name: str) -> None:
    sql = rebind(graph().selects[name].sql, {}, {"readings": "all", "build_started": 1})
    assert "$readings" not in sql
    assert "$build_started" not in sql
    assert "--" not in sql


@pytest.mark.parametrize("ms", [1, 999, 1_655_564_444_103, 253_402_300_799_999])
def test_an_instant_is_exact_in_every_zone_of_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ms: int
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path) as engine:
        assert engine.rows(f"select epoch_ms(instant({ms})), strftime(instant({ms}), '%H')") == [
            (ms, f"{datetime.fromtimestamp(ms // 1000, UTC):%H}")
        ]


def test_addresses_get_the_pseudonym_of_the_key_and_a_number_a_person(engine: DuckDB) -> None:
    engine.pseudonymise("people", "select unnest(['A@a', 'a@a', 'b@a', 'o''b']) as address", str.lower)
    found = engine.rows("select address, customer_id, person from people order by customer_id, address")
    assert [row[:2] for row in found] == [("A@a", "a@a"), ("a@a", "a@a"), ("b@a", "b@a"), ("o'b", "o'b")]
    assert found[0][2] == found[1][2]
    assert len({row[2] for row in found}) == 3


def test_a_person_has_one_number_in_all_views_of_many_addresses(tmp_path: Path) -> None:
    folder = tmp_path / "spill [1]"  # DuckDB must not take the name of its own file for a pattern
    with DuckDB(memory="200MB", threads=1, temporary=folder) as engine:
        for view, first in (("people", 0), ("wearers", 15_000)):
            spelled = "case when i % 2 = 0 then 'A' else 'a' end || i // 2 as address"
            engine.pseudonymise(view, f"select {spelled} from range({first}, {first + 40_000}) as t(i)", str.lower)
        [(wrong,)] = engine.rows(
            "select count(*) from people full outer join wearers using (address) where coalesce("
            "people.customer_id <> lower(address) or wearers.customer_id <> lower(address), false) "
            "or people.person <> wearers.person"
        )
        [(named, persons, customers)] = engine.rows(
            "select count(*), count(distinct person), count(distinct customer_id) "
            "from (select * from people union select * from wearers)"
        )
        assert (wrong, named, persons, customers) == (0, 55_000, 27_500, 27_500)
        assert [file for file in folder.iterdir() if file.suffix == ".csv"] == []


def test_of_recognised_customers_only_those_known_have_a_pseudonym_and_all_are_told_apart(engine: DuckDB) -> None:
    engine.recognise(
        "select unnest(['A@a', 'a@a ', 'b@a', 'B@a', '\u03a9@a']) as address",
        "select 'a@a' as address, 'id of a' as customer_id",
    )
    spelled = "select unnest(['A@a', 'a@A', 'b@a', ' B@a', '\u03c9@a', 'c@a']) as address"
    engine.pseudonymise("people", spelled, lambda address: f"pseudonym of {address}")
    found = {address: (customer, person) for address, customer, person in engine.rows("select * from people")}
    assert [found[name][0] for name in ("A@a", "a@A")] == ["id of a"] * 2
    assert not any("pseudonym" in customer for customer, _ in found.values())
    persons = {
        name: {found[spelling] for spelling in found if normalise(spelling) == name} for name in map(normalise, found)
    }
    assert [len(each) for each in persons.values()] == [1] * 4
    assert len({person for _, person in found.values()}) == 4


def test_recognised_addresses_are_named_without_being_asked_for(engine: DuckDB) -> None:
    spelled = ["A@a", "a@a ", "b@a", "B@a", "\u03a9@a", "?@a"]
    addresses = f"select unnest({spelled}) as address"
    assert engine.recognise(addresses, "select 'a@A' as address, 'c0' as customer_id")
    known = engine.rows("select address, customer_id from recognised__known")
    assert sorted(known) == [("A@a", "c0"), ("a@A", "c0"), ("a@a ", "c0")]
    every = engine.rows("select address from recognised__all")
    assert sorted(address for (address,) in every) == sorted([*spelled, "a@A"])
    engine.pseudonymise("people", addresses, str.upper)
    told = "select address, customer_id, person from recognised__all"
    assert engine.rows(f"select address, customer_id, person from people except {told}") == []


def test_pseudonyms_that_were_given_before_are_still_given(engine: DuckDB) -> None:
    engine.pseudonymise("people", "select 'a@a' as address", str.upper)
    assert not engine.recognise("select 'b@a' as address", "select 'a@a' as address, 'A@A' as customer_id")
    engine.pseudonymise("wearers", "select unnest(['a@a', 'b@a']) as address", str.upper)
    assert sorted(engine.rows("select address, customer_id from wearers")) == [("a@a", "A@A"), ("b@a", "B@A")]


def test_another_thread_names_people_without_the_first_ones_connection(engine: DuckDB) -> None:
    engine.recognise("select 'a@a' as address", "select 'A@A' as address, 'id of a' as customer_id")
    rows = engine.stream("select i from range(100_000) as t(i)")
    assert next(rows) == (0,)
    with engine.beside() as second:
        # only Python knows what the Kelvin sign folds to
        second.pseudonymise("people", "select unnest(['a@a', '\u212a@a', 'k@a']) as address", str.upper)
        second.spellings("found", "select address from people", "select 'K@a' as address")
    # a statement on the same connection would have ended it
    assert sum(1 for _ in rows) == 99_999
    found = dict(engine.rows("select address, customer_id from people"))
    assert found == {"a@a": "id of a", "\u212a@a": "?k@a", "k@a": "?k@a"}
    assert sorted(engine.rows("select address from found")) == [("k@a",), ("\u212a@a",)]


@pytest.mark.parametrize("few", [0, 1 << 20], ids=["by-sql", "by-python"])
def test_the_spellings_of_a_customer_are_found_as_rule_1_has_them(
    few: int, engine: DuckDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pseudonyms, "_FEW", few)
    most = 0x110000 if effort.NIGHTLY else 0x3000  # beyond it few letters fold, and none to what stands before it
    characters = [chr(n) for n in range(1, most) if not 0xD800 <= n <= 0xDFFF]
    spelled = sorted({form for c in characters for form in (f"{c}a@x.example", f"A{c}", f"e{c}{chr(0x301)} ")})
    engine.insert_rows("spelled", {"address": "varchar"}, [(text,) for text in spelled])
    wanted = spelled[:: 7 if effort.NIGHTLY else 3]
    engine.insert_rows("wanted", {"address": "varchar"}, [(text,) for text in wanted])
    engine.spellings("found", "select address from spelled", "select address from wanted")
    normal = {normalise(text) for text in wanted}
    assert {text for (text,) in engine.rows("select address from found")} == {
        text for text in spelled if normalise(text) in normal
    }


@pytest.mark.parametrize("seed", [1, 2])
def test_sql_normalises_latin_addresses_as_python_does(seed: int, engine: DuckDB) -> None:
    letters = [chr(n) for n in (*range(0x21, 0x7F), *range(0xC0, 0x149), *range(0x14A, 0x17F))]
    marks = [chr(n) for n in range(0x300, 0x370) if n != 0x345]
    chosen = Random(seed)
    mixed = ["".join(chosen.choice(letters + 3 * marks) for _ in range(5)) for _ in range(20_000)]
    addresses = sorted({*mixed, *(letter + mark for letter in letters for mark in ("", *marks))})
    engine.insert_rows("addresses", {"address": "varchar"}, [(text,) for text in addresses])
    found = engine.rows(f"select address, {NORMAL} from addresses")
    assert [address for address, normal in found if normal != normalise(address)] == []


def landed(engine: DuckDB, folder: Path, *emails: str) -> tuple[DataFile, ...]:
    """Returns a file with a landed record of each address."""
    columns = ALL_COLUMNS["customers_landing"]
    values = (
        f"{'email' if c.name == 'email' else 'null'}::{DUCKDB_TYPES[c.type]} as {quoted(c.name)}" for c in columns
    )
    listed = ", ".join(map(literal, emails))
    return engine.write(
        "customers_landing", f"select {', '.join(values)} from (select unnest([{listed}]) as email)", folder
    )


def test_spellings_that_were_found_are_found_again_without_reading(engine: DuckDB, tmp_path: Path) -> None:
    def found(wanted: str) -> set[str]:
        engine.spellings("found", "select email as address from customers_landing", f"select {wanted} as address")
        return {text for (text,) in engine.rows("select address from found")}

    # the Kelvin sign folds to a k, which only Python knows
    files = landed(engine, tmp_path / "one", "Ana@x.example", "ana@x.example ", "bo@x.example", "\u212aim@x.example")
    engine.bind_files("customers_landing", files)
    assert found("unnest(['ANA@x.example', 'kim@x.example'])") == {
        "Ana@x.example",
        "ana@x.example ",
        "\u212aim@x.example",
    }
    renamed = Path(files[0].path).rename(tmp_path / "away")
    assert found("'kim@X.example'") == {"\u212aim@x.example"}
    renamed.rename(files[0].path)
    # of others nothing is known, nor of other files
    assert found("unnest(['ana@x.example', 'bo@x.example'])") == {"Ana@x.example", "ana@x.example ", "bo@x.example"}
    engine.bind_files("customers_landing", landed(engine, tmp_path / "two", "BO@x.example", "ana@x.example"))
    assert found("'bo@x.example'") == {"BO@x.example"}


def test_spellings_in_a_relation_that_is_no_file_are_always_read(engine: DuckDB) -> None:
    for text in ("ana@x.example", "ANA@x.example"):
        engine.view("seen", f"select {literal(text)} as email")
        engine.spellings("found", "select email as address from seen", "select 'ana@x.example' as address")
        assert engine.rows("select address from found") == [(text,)]


def test_few_and_many_are_looked_for_under_one_name(engine: DuckDB, monkeypatch: pytest.MonkeyPatch) -> None:
    for few in (1_000, 0, 1_000):
        monkeypatch.setattr(pseudonyms, "_FEW", few)
        engine.spellings("found", "select 'Ana@x.example' as address", "select ' ana@x.example' as address")
        assert engine.rows("select address from found") == [("Ana@x.example",)]


def test_nobody_has_no_spellings(engine: DuckDB) -> None:
    engine.spellings("found", "select 'ana@x.example' as address", "select null::varchar as address where false")
    assert engine.rows("select address from found") == []


def test_no_addresses_are_an_empty_view(engine: DuckDB) -> None:
    engine.pseudonymise("people", "select ''::varchar as address where false", str.lower)
    assert engine.rows("select * from people") == []


def test_a_view_is_computed_once_and_streamed_in_pieces(engine: DuckDB) -> None:
    engine.materialize("numbers", "select i, 't' || i as t from range(50000) as n (i)")
    stream = engine.stream("select i, t from numbers order by i")
    assert next(stream) == (0, "t0")
    assert sum(1 for _ in stream) == 49_999
    assert list(engine.stream("select 1 where false")) == []


def test_what_is_kept_needs_no_memory_and_no_name_on_disk(tmp_path: Path) -> None:
    spilled = tmp_path / "spill"
    with DuckDB(memory="40MB", threads=2, temporary=spilled) as engine:
        engine.materialize("big", "select hash(i)::varchar || hash(i + 1) as t from range(3000000) as n (i)")
        [(large,)] = engine.rows("select sum(length(t)) from big")
        assert large > 80 * 2**20, "it fits into memory: the test tests nothing"
        assert engine.rows("select count(distinct t) from big where t < '3'")[0][0] > 0
        (used,) = engine.rows("select sum(memory_usage_bytes)::bigint from duckdb_memory()")[0]
        assert used < 50 * 2**20
        assert not list(spilled.glob("kept-*")), "a process that is killed would leave it behind"
    assert not list(spilled.iterdir())


@pytest.mark.parametrize("how", ["rows", "stream", "materialize", "write"])
def test_a_failure_is_one_line_without_the_values_that_made_it(engine: DuckDB, tmp_path: Path, how: str) -> None:
    engine.materialize("secrets", "select 'ana@a.example' as email from range(5000)")
    cast = f"select * replace (email::double as x) from ({rows(5000)}), secrets"
    asked: dict[str, Callable[[], object]] = {
        "rows": lambda: engine.rows("select sum(email::double) from secrets"),
        "stream": lambda: list(engine.stream("select email::double from secrets")),
        "materialize": lambda: engine.materialize("numbers", "select email::double from secrets"),
        "write": lambda: engine.write(TABLE, f"select * exclude (email) from ({cast})", tmp_path / "run"),
    }
    with pytest.raises(LakeError) as failed:
        asked[how]()
    assert "ana@" not in str(failed.value)
    assert "\n" not in str(failed.value)


def test_too_little_memory_says_which_setting_to_raise(tmp_path: Path) -> None:
    with DuckDB(memory="20MB", threads=1, temporary=tmp_path / "s") as engine:
        engine._execute("set max_temp_directory_size = '1MB'")
        with pytest.raises(LakeError, match=r"raise engine\.memory"):
            engine.rows("select len(list(hash(i)::varchar)) from range(5000000) as n (i)")


def test_a_missing_file_is_one_line(engine: DuckDB, tmp_path: Path) -> None:
    with pytest.raises(LakeError, match="cannot read or write a file"):
        engine.bind_files(TABLE, [DataFile(str(tmp_path / "gone.parquet"), 1, 1)])


def test_names_and_texts_are_quoted(engine: DuckDB) -> None:
    assert engine.rows(f"select {literal(chr(39) * 2 + ';--')} as {quoted('a' + chr(34) + 'b')}") == [("'';--",)]
