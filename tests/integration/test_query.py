"""The query sandbox: what it answers, and everything that it must not do."""

from __future__ import annotations

import contextlib
import datetime as dt
import gc
import io
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stedi import query
from stedi.cli import formats
from stedi.errors import QueryFailed, QueryRefused
from stedi.query import Limits, QueryTable, result, sandbox, scans, statement

SECRET = "grace@example.com"
COLUMNS = (("id", "BIGINT"), ("email", "VARCHAR"), ("seen_at", "TIMESTAMP WITH TIME ZONE"))


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """A folder with the files of two tables: one that a query is given and one that it is not."""
    zone = tmp_path / "a lake's" / "k=1"
    zone.mkdir(parents=True)
    at = pa.array([1655574444102000, 1, None], pa.timestamp("us", "UTC"))
    table = pa.table({"id": [1, 2, 3], "email": [SECRET, None, "42"], "seen_at": at})
    pq.write_table(table, zone / "given.parquet")
    pq.write_table(pa.table({"hidden": ["withheld-reading"]}), zone / "other.parquet")
    (tmp_path / "note.txt").write_text("machine-secret")
    (tmp_path / "tmp").mkdir()
    return zone


@pytest.fixture
def people(lake: Path) -> QueryTable:
    return QueryTable("people", (str(lake / "given.parquet"),), COLUMNS)


def rows(
    sql: str, *relations: QueryTable, limits: Limits | None = None, temporary: Path | None = None
) -> list[tuple[object, ...]]:
    with query.run(sql, relations, limits or Limits(seconds=60), temporary) as result:
        return [tuple(row.values()) for row in result.arrow().to_pylist()]


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from people",
        "SELECT count(*) FROM People;",
        "from people select count(*)",
        "(select count(*) from people)",
        "with p as (from people) select count(*) from p",
        "with people as (select * from people) select count(*) from people",
        "select count(*) from stedi.people",
        "/* ; drop */ select count(*) -- ; x\n from people /* ; */ ;",
        "values (3)",
        "select 1 union all select 2 union all select 3 order by 1 desc limit 1",
        "with recursive r(i) as (select 1 union all select i + 1 from r where i < 3) select max(i) from r",
        "select max(i) from range(4) t(i)",
        "select sum(x) from (select unnest([1, 2]) as x)",
        "select p.n from people q, lateral (select 3 as n) p limit 1",
        "select count(*) from (describe people)",
        "select any_value(n) from (select count(*) over () as n from people)",
        "select a3 from (pivot (select 1 as k, 3 as v) on k in (1 as a3) using sum(v))",
    ],
)
def test_a_select_in_any_dress_is_answered(people: QueryTable, sql: str) -> None:
    assert rows(sql, people) == [(3,)]


COUNTS = (
    "select count(*) from people",
    "select count(*) as n, count(*) as n, min(id), max(id::int) as top from people",
    "select count(email) as n, bool_or(id > 2) as b, min(id) as none from people where id > 7",
    "select max(id::utinyint) as u, min(id::smallint), any_value(id::ubigint) from people where id = 3",
    "select count(*) from people having count(*) > 3",
    "select min(9223372036854775807) as big, min(-9223372036854775808) as least",
)
"""Statements whose answers come without Arrow."""


@pytest.mark.parametrize("sql", COUNTS)
def test_counts_that_come_without_arrow_are_what_arrow_has(people: QueryTable, sql: str) -> None:
    limits = Limits(seconds=60)
    with query.run(sql, [people], limits) as found, query.run(f"from ({sql})", [people], limits) as other:
        counted = result.few(found)
        assert counted is not None
        assert result.few(other) is None
        table = other.arrow()
        for form in (formats.Format.TABLE, formats.Format.JSON, formats.Format.JSONL):
            out, expected = io.BytesIO(), io.BytesIO()
            formats.write_few(counted.columns, counted._rows, form, out)
            formats.write(table.rename_columns(found.columns).to_reader(), form, expected)
            assert out.getvalue() == expected.getvalue()
        assert result.few(found) is None, "Arrow was asked for"
        assert found.arrow() == table.rename_columns(found.columns)
        assert found.fetchall() == other.fetchall()


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from people group by id",
        "select count(*) from people group by rollup (id)",
        "select count(*) over () from people",
        "select count(*), id from people group by all",
        "select count(*) from people union all select 1",
        "select 1",
        "from people",
    ],
)
def test_a_statement_is_known_to_have_one_row_only_where_it_has_aggregates_of_all_rows(sql: str) -> None:
    assert not statement.judge(sql).one_row
    assert statement.judge("select count(*) from people").one_row


def test_aggregates_of_other_types_come_as_arrow(people: QueryTable) -> None:
    for sql in ("select max(email) from people", "select sum(id), avg(id) from people", "select list(id) from people"):
        with query.run(sql, [people], Limits(seconds=60)) as found:
            assert result.few(found) is None
            assert found.arrow().num_rows == 1


def test_a_count_that_fails_or_is_not_read_is_told_as_such(people: QueryTable) -> None:
    ended: list[tuple[str, int]] = []

    def run(sql: str) -> query.Result:
        return query.run(sql, [people], Limits(seconds=60), ended=lambda how, rows: ended.append((how, rows)))

    with pytest.raises(QueryFailed, match="could not be converted"):
        run("select count(email::int) from people")
    run("select count(*) from people").close()
    run("select count(*) from people").arrow()
    assert ended == [("failed", 0), ("stopped", 0), ("done", 1)]


def test_columns_keep_their_names_order_and_types(people: QueryTable) -> None:
    with query.run("from people", [people]) as result:
        assert result.schema.names == ["id", "email", "seen_at"]
        assert result.schema.types == [pa.int64(), pa.string(), pa.timestamp("us", "UTC")]
        assert [batch.num_rows for batch in result] == [3]


def test_instants_are_in_utc_whatever_the_machine_says(people: QueryTable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    assert rows("select seen_at::varchar, hour(seen_at) from people where id = 1", people) == [
        ("2022-06-18 17:47:24.102+00", 17)
    ]


def test_two_columns_of_one_name_stay_two() -> None:
    with query.run('select 1 as a, 2 as a, 3 as "A"', []) as result:
        assert result.reader().schema.names == ["a", "a", "A"]


def test_a_table_without_files_is_empty_with_its_columns() -> None:
    empty = QueryTable("people", (), COLUMNS)
    with query.run("from people", [empty]) as result:
        assert result.schema.names == ["id", "email", "seen_at"]
        assert result.arrow().num_rows == 0
    assert rows("select count(*) from people", empty) == [(0,)]


def test_a_pinned_table_shows_no_later_file(lake: Path, people: QueryTable) -> None:
    pq.write_table(pq.read_table(lake / "given.parquet"), lake / "later.parquet")
    assert rows("select count(*) from people", people) == [(3,)]
    both = QueryTable("people", (*people.files, str(lake / "later.parquet")), COLUMNS)
    assert rows("select count(*) from people", both) == [(6,)]


def test_a_file_whose_name_is_a_pattern_is_read_as_itself(lake: Path) -> None:
    pq.write_table(pa.table({"id": [7]}), lake / "f*.parquet")
    pq.write_table(pa.table({"id": [8]}), lake / "f1.parquet")
    assert rows("from t", QueryTable("t", (str(lake / "f*.parquet"),), (("id", "BIGINT"),))) == [(7,)]


@pytest.mark.parametrize("masked", [frozenset[str](), frozenset({"email"})])
def test_a_file_whose_path_is_a_pattern_of_another_files_is_read_as_itself(tmp_path: Path, masked: set[str]) -> None:
    for folder, numbers in (("lake[1]", [1]), ("lake1", [2, 3])):
        (tmp_path / folder).mkdir()
        table = pa.table({"id": numbers, "email": [SECRET] * len(numbers)})
        pq.write_table(table, tmp_path / folder / "given.parquet")
    given = QueryTable("people", (str(tmp_path / "lake[1]" / "given.parquet"),), COLUMNS[:2], frozenset(masked))
    assert rows("select id from people", given) == [(1,)]
    (tmp_path / "lake[1]" / "given.parquet").unlink()
    with pytest.raises(QueryFailed, match=r"Cannot read people, file .*lake\[1\]/given\.parquet"):
        rows("select id from people", given)


def test_rows_come_as_a_stream_and_memory_stays_small(tmp_path: Path) -> None:
    with query.run("select i, i::varchar as s from range(50_000_000) t(i)", [], Limits(memory="64MB")) as result:
        reader = result.reader()
        first = reader.read_next_batch()
        assert first.num_rows <= sandbox.ROWS_A_BATCH
        assert first.column(0)[0].as_py() == 0


@pytest.mark.own_processes
def test_a_sort_larger_than_memory_goes_to_the_temporary_folder_and_leaves_nothing(tmp_path: Path) -> None:
    sql = "select count(*) from (select i from range(6_000_000) t(i) order by hash(i) limit 5_999_999)"
    assert rows(sql, limits=Limits(memory="60MB", threads=2), temporary=tmp_path / "new" / "tmp") == [(5_999_999,)]
    assert os.listdir(tmp_path / "new" / "tmp") == []


def test_where_the_temporary_folder_cannot_be_made_the_systems_is_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert rows("select 1", temporary=tmp_path / "file" / "tmp") == [(1,)]


@pytest.mark.parametrize(
    ("sql", "names"),
    [
        ("select 1", set()),
        ("from A join b using (x), stedi.c", {"a", "b", "c"}),
        (
            "with x as (select * from a) select (select max(i) from b) from x where exists (from c)",
            {"a", "b", "c"},
        ),
        ("describe t", {"t"}),
        ("summarize select * from t", {"t"}),
        ("from (pivot t on a in (1) using sum(b))", {"t"}),
        ("select [(select max(x) from u)], list_filter([1], lambda v: v in (select y from w))", {"u", "w"}),
        ('from "odd name"', {"odd name"}),
    ],
)
def test_referenced_names_every_table_that_is_read(sql: str, names: set[str]) -> None:
    assert query.referenced_tables(sql) == names


REFUSED = [
    "",
    ";",
    "-- select 1",
    "/* select 1 */",
    "nonsense",
    "select 1 group",
    "select 1; select 2",
    "select 1; drop table people",
    "/* select */ drop view people",
    "create table t as select 1",
    "create temp table t (i int)",
    "create view v as select 1",
    "create macro f(x) as x",
    "create secret s (type s3)",
    "create type mood as enum ('a')",
    "insert into people values (1)",
    "with x as (insert into people values (1) returning *) select * from x",
    "with x as (copy people to '{out}') select 1",
    "with x as (delete from people returning *) from x",
    "with recursive x as (update people set id = 1 returning *) from x",
    "from (with x as (copy (select 1) to '{out}') select 1)",
    "update people set id = 1",
    "delete from people",
    "merge into people using people p on true when matched then delete",
    "truncate people",
    "alter table people add column x int",
    "comment on table people is 'x'",
    "copy people to '{out}'",
    "copy (select 1) to '{out}' (format parquet)",
    "copy (from people) to '{given}'",
    "export database '{out}'",
    "import database '{out}'",
    "attach '{out}'",
    "attach '{out}' as x; select 1",
    "detach memory",
    "use memory",
    "install httpfs",
    "load httpfs",
    "load '{out}'",
    "update extensions",
    "set threads = 1",
    "set global memory_limit = '100GB'",
    "set variable x = 1",
    "reset threads",
    "pragma version",
    "pragma database_list",
    "pragma enable_profiling",
    "pragma import_database('{out}')",
    "call duckdb_settings()",
    "call enable_logging()",
    "checkpoint",
    "vacuum",
    "analyze",
    "begin",
    "commit",
    "prepare p as select 1",
    "execute p",
    "deallocate p",
    "explain select 1",
    "explain analyze select 1",
    "pivot people on email using count(*)",
    "show tables",
    "show all tables",
    "show databases",
    "show variables",
    "select * from (show tables)",
    "select ?",
    "select $1",
    "select $name",
    # files
    "from '{note}'",
    'from "{note}"',
    "from '{other}'",
    "from '{given}'",
    "from '*.parquet'",
    "describe '{other}'",
    "summarize '{other}'",
    "from read_parquet('{given}')",
    "from parquet_scan(['{given}'])",
    "from read_csv('{note}')",
    "from read_csv_auto('{note}')",
    "from read_json('{note}')",
    "from read_ndjson_objects('{note}')",
    "from read_text('{note}')",
    "from read_blob('{note}')",
    "from glob('*')",
    "from sniff_csv('{note}')",
    "from parquet_metadata('{given}')",
    "from parquet_schema('{given}')",
    "from parquet_kv_metadata('{given}')",
    "from parquet_file_metadata('{given}')",
    "from main.read_text('{note}')",
    "from \"READ_TEXT\"('{note}')",
    "select (select content from read_text('{note}'))",
    "select * from people where id in (select size from read_blob('{note}'))",
    "with f as materialized (from read_text('{note}')) select 1",
    "select 1 order by (select content from read_text('{note}'))",
    "select list_transform([1], lambda x: (select any_value(content) from read_text('{note}')))",
    "with people as (from people) select * from people, '{note}'",
    "from 'https://example.com/x.parquet'",
    "from read_csv('https://example.com/x.csv')",
    "from 's3://bucket/x.parquet'",
    # the machine, the engine, Python
    "select getenv('HOME')",
    "select current_setting('temp_directory')",
    "select 'temp_directory'.current_setting()",
    "select \"current_setting\"('temp_directory')",
    "select main.CURRENT_SETTING('temp_directory')",
    "select list_transform(['temp_directory'], lambda x: current_setting(x))",
    "select getvariable('x')",
    "from duckdb_settings()",
    "from duckdb_settings",
    "from duckdb_secrets()",
    "from duckdb_views()",
    "from duckdb_temporary_files()",
    "from which_secret('x', 's3')",
    "from pragma_database_size()",
    "from pragma_table_info('people')",
    "from information_schema.tables",
    "from pg_catalog.pg_class",
    "from memory.stedi.people",
    "from main.people",
    "from sqlite_master",
    "from query('select 1')",
    "from query_table('people')",
    "from histogram('people', id)",
    "from json_execute_serialized_sql('x')",
    "select json_serialize_plan('select 1')",
    "select pg_get_viewdef(1)",
    "select nextval('x')",
    "select write_log('x')",
    "select pg_sleep(1)",
    "from arrow_scan(1, 2, 3)",
    "from pandas_scan(1)",
    "from python_map_function(1)",
    "from seq_scan('people')",
    "from checkpoint()",
    "from enable_logging()",
    "from test_all_types()",
    "select stats(id) from people",
    "from secret_frame",
    "from people at (version => 1)",
    "select __internal_decompress_string('x')",
    # other shapes
    "select 1\0; select 2",
    "select '\ud800'",
    "select " + "(" * 100_000 + "1" + ")" * 100_000,
    "select " + " + ".join(["1"] * 900),
    "select '" + "x" * 1_000_000 + "'",
]


def test_a_tree_is_refused_that_is_deeper_than_a_statement_may_be_on_any_python() -> None:
    within, beyond = ({"node": {"where_clause": _nested(depth)}} for depth in (900, 1_100))
    assert statement._judged(within, frozenset()).tables == frozenset()
    with pytest.raises(QueryRefused, match="nested too deeply"):
        statement._judged(beyond, frozenset())


def _nested(depth: int) -> object:
    tree: object = {}
    for _ in range(depth):
        tree = [tree]
    return tree


@pytest.mark.parametrize("sql", REFUSED, ids=lambda sql: ascii(sql[:60]))
@pytest.mark.sample(quick=30)
def test_anything_but_one_select_over_given_tables_is_refused_and_does_nothing(
    lake: Path, people: QueryTable, tmp_path: Path, sql: str
) -> None:
    secret_frame = pa.table({"a": [1]})
    before = sorted(p for p in tmp_path.rglob("*"))
    content = Path(people.files[0]).read_bytes()
    names = {"out": tmp_path / "out", "note": tmp_path / "note.txt"}
    names |= {"given": people.files[0], "other": lake / "other.parquet"}  # type: ignore[dict-item]
    for name, path in names.items():
        sql = sql.replace("{" + name + "}", str(path).replace("'", "''"))
    with pytest.raises(QueryRefused) as caught:
        query.run(sql, [people], temporary=tmp_path / "tmp")
    assert "\n" not in str(caught.value)
    assert "machine-secret" not in str(caught.value)
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert Path(people.files[0]).read_bytes() == content
    assert secret_frame.num_rows == 1


def test_a_refusal_says_what_is_allowed_and_escapes_the_callers_words(people: QueryTable) -> None:
    with pytest.raises(QueryRefused, match=r"one SELECT over the lake's tables.*'.x1b\[31m' is not one of them"):
        query.run('from "\x1b[31m"', [people])
    with pytest.raises(QueryRefused, match="1,000,000 characters"):
        query.referenced_tables("x" * 1_000_001)


def test_a_table_of_the_lake_that_was_not_given_is_not_there(people: QueryTable) -> None:
    with pytest.raises(QueryRefused, match="'quarantine' is not one of them"):
        query.run("from quarantine", [people])


@contextlib.contextmanager
def engine(people: QueryTable, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    con = sandbox.connect(job("select 1", folder, people))
    try:
        yield con
    finally:
        con.close()


def job(sql: str, folder: Path, *relations: QueryTable) -> dict[str, object]:
    return {
        "sql": sql,
        "relations": [
            {"name": r.name, "files": list(r.files), "columns": [list(c) for c in r.columns], "masked": []}
            for r in relations
        ],
        "memory": 200_000_000,
        "reach": [],
        "spill": 100_000_000,
        "seconds": 30.0,
        "threads": 1,
        "temporary": str(folder / "tmp"),
        "path": sys.path,
    }


@pytest.mark.parametrize(
    "sql",
    [
        "from read_text('{note}')",
        "from '{note}'",
        "from read_parquet('{other}')",
        "from glob('*')",
        "from parquet_metadata('{other}')",
        "from read_csv('/etc/passwd')",
        "from read_text('{tmp}/../note.txt')",
        "from read_csv('https://example.com/x.csv')",
        "copy people to '{out}'",
        "copy people to '{given}'",
        "export database '{out}'",
        "attach '{out}'",
        "install httpfs",
        "load httpfs",
        "set threads = 2",
        "set enable_external_access = true",
        "set allowed_directories = ['/']",
        "set lock_configuration = false",
        "create persistent secret s (type s3)",
        "from secret_frame",
        "pragma import_database('{out}')",
    ],
)
def test_the_engine_is_closed_as_well(lake: Path, people: QueryTable, tmp_path: Path, sql: str) -> None:
    secret_frame = pa.table({"a": [1]})
    before = sorted(p for p in tmp_path.rglob("*"))
    names = {"out": tmp_path / "out", "note": tmp_path / "note.txt", "tmp": tmp_path / "tmp"}
    names |= {"given": people.files[0], "other": lake / "other.parquet"}  # type: ignore[dict-item]
    for name, path in names.items():
        sql = sql.replace("{" + name + "}", str(path).replace("'", "''"))
    with engine(people, tmp_path) as con, pytest.raises(duckdb.Error):
        con.execute(sql).fetchall()
    assert sorted(p for p in tmp_path.rglob("*")) == before
    assert secret_frame.num_rows == 1


@pytest.mark.parametrize(
    "expression",
    [
        "email::int",
        "email::int[]",
        "email::struct(x int)",
        "email::date",
        "email::timestamptz",
        "email::uuid",
        "email::json",
        "email::interval",
        "email::enum('x')",
        "error(email)",
        "strptime(email, '%Y')",
        "date_trunc(email, now())",
        "now() at time zone email",
        "regexp_matches('a', '(' || email)",
        "url_decode('%ff' || email)",
        "[1][email]",
    ],
)
def test_a_value_that_fails_is_never_shown(people: QueryTable, expression: str) -> None:
    with pytest.raises(QueryFailed) as caught:
        rows(f"select {expression} from people where id = 1", people)
    message = str(caught.value)
    assert "grace" not in message
    assert "example" not in message
    assert "\n" not in message
    assert caught.value.__cause__ is None


def test_a_failure_late_in_the_stream_is_no_short_answer(people: QueryTable) -> None:
    sql = "select case when i = 400_000 then error('x') else i end from range(400_001) t(i)"
    with query.run(sql, []) as result:
        seen = 0
        with pytest.raises(QueryFailed, match="The query failed"):  # noqa: PT012
            for batch in result:
                seen += batch.num_rows
        assert seen <= 400_000


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select emali from people", "no column emali in people: did you mean email?"),
        ("select p.emali from people as p", "no column emali in people: did you mean email?"),
        ("select nosuch from people", "no column nosuch in people; `stedi describe"),
        ("select sum(email) from people", "No function matches"),
        ("select abs('a', 1)", "No function matches"),
        ("select email::int from people", "a value could not be converted. Use try_cast"),
        ("select 9223372036854775807 + i from range(2) t(i)", "left the range of its type"),
        ("from range(1e20::bigint)", "out of range for the destination type INT64"),
    ],
)
def test_a_failure_says_in_one_line_what_is_wrong(people: QueryTable, sql: str, words: str) -> None:
    with pytest.raises(QueryFailed, match=words) as caught:
        rows(sql, people)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_a_missing_or_broken_file_is_named(lake: Path, people: QueryTable) -> None:
    gone = QueryTable("people", (str(lake / "gone.parquet"),), COLUMNS)
    with pytest.raises(QueryFailed, match=r"Cannot read people, file .*gone\.parquet"):
        rows("from people", gone)
    broken = lake / "broken.parquet"
    broken.write_bytes(b"PAR1 grace@example.com not parquet at all")
    with pytest.raises(QueryFailed, match=r"Cannot read people, file .*broken") as caught:
        rows("from people", QueryTable("people", (str(broken),), COLUMNS))
    assert "grace" not in str(caught.value)
    with pytest.raises(QueryFailed, match="Cannot read other"):
        rows("from other", QueryTable("other", (str(lake / "other.parquet"),), COLUMNS))


def test_a_file_damaged_inside_is_named_when_it_is_read(lake: Path, people: QueryTable) -> None:
    path = lake / "damaged.parquet"
    table = pa.table(
        {"id": list(range(100_000)), "email": ["x"] * 100_000, "seen_at": pa.nulls(100_000, pa.timestamp("us", "UTC"))}
    )
    pq.write_table(table, path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[40 : len(data) // 2] = b"\xff" * (len(data) // 2 - 40)
    path.write_bytes(data)
    with pytest.raises(QueryFailed, match=r"people: cannot read .*damaged\.parquet"):
        rows("select sum(id) from people", QueryTable("people", (str(path),), COLUMNS))


BOMBS = {
    "one long text": "select length(repeat('x', 4_000_000_000))",
    "one long list": "select len(range(1_000_000_000))",
    "a list of lists": "select list_transform(range(50_000_000), lambda x: repeat('a', 100))",
    "an aggregate": "select list(i) from range(1_000_000_000) t(i)",
    "a text that doubles": "with recursive r(s) as (select 'x' union all select s || s from r) from r select len(s)",
    "wide rows to sort": "select i, repeat('x', 100_000) as s from range(1_000_000) t(i) order by s, i",
    "a text replaced": "select length(replace(repeat('a', 60_000), 'a', repeat('b', 60_000)))",
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts a process's private memory")
@pytest.mark.parametrize("sql", BOMBS.values(), ids=BOMBS.keys())
@pytest.mark.own_processes
def test_a_memory_bomb_ends_within_bounds(sql: str, tmp_path: Path) -> None:
    script = (
        "import resource, sys; from stedi import query; from stedi.errors import QueryFailed\n"
        "try: query.run(sys.argv[1], [], query.Limits(memory='128MB', seconds=8, threads=2, spill='50MB')).arrow()\n"
        "except QueryFailed as error: print(error)\n"
        "else: sys.exit('it was answered')\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script, sql], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    message, peak = done.stdout.splitlines()
    assert message.startswith(("The query failed: it needs more memory", "The query was stopped"))
    assert int(peak) < 700


@pytest.mark.parametrize(
    "sql",
    [
        "with recursive r(i) as (select 1 union all select i + 1 from r) select count(*) from r",
        "select count(*) from range(1_000_000_000_000) a, range(1_000_000_000_000) b",
        "select length(lpad('x', 300_000_000, 'y'))",
    ],
)
@pytest.mark.own_processes
def test_a_query_without_end_is_stopped_by_time_and_leaves_nothing(sql: str, tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(QueryFailed, match=r"exceeded its time limit \(1\.5 s\)"):
        rows(sql, limits=Limits(seconds=1.5), temporary=tmp_path)
    assert time.monotonic() - start < 4
    assert os.listdir(tmp_path) == []


@pytest.mark.own_processes
def test_an_endless_answer_is_stopped_by_time_too() -> None:
    sql = "with recursive r(i) as (select 1 union all select i + 1 from r) select * from r"
    start = time.monotonic()
    with pytest.raises(QueryFailed), query.run(sql, [], Limits(seconds=1.5, memory="64MB")) as result:
        for _ in result:
            pass
    assert time.monotonic() - start < 10


@pytest.mark.thorough
def test_a_reader_that_takes_its_time_does_not_spend_the_querys(tmp_path: Path) -> None:
    with query.run("select i from range(3_000_000) t(i)", [], Limits(seconds=2.0)) as result:
        reader = result.reader()
        total = reader.read_next_batch().num_rows
        time.sleep(2.5)
        total += sum(batch.num_rows for batch in reader)
    assert total == 3_000_000


@pytest.mark.own_processes
def test_a_result_that_is_closed_or_dropped_ends_its_process(tmp_path: Path) -> None:
    result = query.run("select i from range(1_000_000_000) t(i)", [], temporary=tmp_path)
    process = result._worker._process  # type: ignore[attr-defined]
    reader = result.reader()
    reader.read_next_batch()
    result.close()
    result.close()
    assert process.poll() is not None
    assert os.listdir(tmp_path) == []
    with pytest.raises(QueryFailed):
        reader.read_all()

    dropped = query.run("select i from range(1_000_000_000) t(i)", [], temporary=tmp_path)
    process = dropped._worker._process  # type: ignore[attr-defined]
    del dropped
    gc.collect()
    assert process.poll() is not None
    assert os.listdir(tmp_path) == []


@pytest.mark.own_processes
def test_a_worker_that_is_killed_is_a_failure_and_no_short_answer(tmp_path: Path) -> None:
    result = query.run("select i from range(1_000_000_000) t(i)", [], temporary=tmp_path)
    result.reader().read_next_batch()
    result._worker._process.kill()  # type: ignore[attr-defined]
    with pytest.raises(QueryFailed, match="SIGKILL"):
        result.reader().read_all()
    assert os.listdir(tmp_path) == []


@pytest.mark.own_processes
def test_the_query_sees_nothing_of_the_callers_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
    result = query.run("select i from range(1_000_000_000) t(i)", [], temporary=tmp_path)
    with result:
        environment = Path(f"/proc/{result._worker._process.pid}/environ")  # type: ignore[attr-defined]
        if not environment.exists():
            pytest.skip("no /proc here")
        assert b"STEDI" not in environment.read_bytes()


@pytest.mark.parametrize(
    ("text", "size"), [("512MB", 512_000_000), ("1 GiB", 2**30), ("1.5kb", 1500), ("7", 7), ("20MiB", 20 << 20)]
)
def test_sizes_are_read(text: str, size: int) -> None:
    assert query.size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-1MB", "1XB", "1e9", "1MB; drop"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(QueryRefused, match="a number with a unit"):
        query.size(text)


@pytest.mark.parametrize(
    "limits",
    [{"seconds": 0}, {"seconds": float("nan")}, {"threads": 0}, {"memory": "1MB"}, {"spill": "x"}],
)
def test_limits_that_bound_nothing_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(QueryRefused):
        Limits(**limits)  # type: ignore[arg-type]


def test_a_job_writes_arrow_to_its_stream(people: QueryTable, tmp_path: Path) -> None:
    out = io.BytesIO()
    sandbox.execute(job("select id, seen_at from people order by id", tmp_path, people), out)
    table = pa.ipc.open_stream(out.getvalue().removeprefix(b"null\n")).read_all()
    assert table.column("id").to_pylist() == [1, 2, 3]
    assert table.column("seen_at")[0].as_py() == dt.datetime(2022, 6, 18, 17, 47, 24, 102000, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select nosuch from people", "cannot run"),
        ("select email::int from people", "could not be converted"),
        ("select error(email) from people", "its words may hold data"),
        ("select case when i = 30_000 then 'x'::int else i end from range(40_000) t(i)", "could not be converted"),
    ],
)
def test_a_job_that_fails_says_so_without_values(people: QueryTable, tmp_path: Path, sql: str, words: str) -> None:
    with pytest.raises(scans.Failure, match=words) as caught:
        sandbox.execute(job(sql, tmp_path, people), io.BytesIO())
    assert "grace" not in str(caught.value)


def test_a_reader_that_has_gone_is_no_failure(people: QueryTable, tmp_path: Path) -> None:
    class Gone(io.BytesIO):
        def write(self, data: object, /) -> int:
            raise BrokenPipeError

    sandbox.execute(job("from people", tmp_path, people), Gone())


def test_errors_of_memory_and_files_have_their_own_words(people: QueryTable, tmp_path: Path) -> None:
    told = job("from people", tmp_path, people)
    assert "more memory than it may have (200 MB)" in scans.run_time_failure(MemoryError(), told)
    assert people.files[0] in scans.run_time_failure(RuntimeError(f"bad {people.files[0]}"), told)
    wrapped = sandbox._cause(OSError("Conversion Error: Could not convert string 'grace' to INT64 when"))
    assert isinstance(wrapped, duckdb.ConversionException)
    assert scans.run_time_failure(wrapped, told).startswith("The query failed: a value could not be converted.")


@pytest.mark.parametrize("start", ["", "Binder Error: ", "Invalid Input Error: "])
@pytest.mark.parametrize(
    "value", ["INTERLAKENSTRASSE7", "' to INT64 when", "' type DATE", "Out of Memory Error: x", "Conversion Error: "]
)
def test_nothing_is_looked_for_in_the_words_of_an_error(
    people: QueryTable, tmp_path: Path, start: str, value: str
) -> None:
    told = job("from people", tmp_path, people)
    for kind in (duckdb.InvalidInputException, duckdb.ConversionException, OSError, RuntimeError):
        said = scans.run_time_failure(sandbox._cause(kind(f"{start}Could not convert string '{value}' to X")), told)
        other = scans.run_time_failure(sandbox._cause(kind(f"{start}Could not convert string 'other' to X")), told)
        assert said == other


def test_a_table_that_cannot_be_read_is_named_by_the_worker(lake: Path, tmp_path: Path) -> None:
    gone = QueryTable("gone", (str(lake / "gone.parquet"),), COLUMNS)
    with pytest.raises(scans.Failure, match=r"Cannot read gone, file .*gone\.parquet"):
        sandbox.execute(job("from gone", tmp_path, gone), io.BytesIO())
    empty = QueryTable("empty", (), COLUMNS)
    sandbox.execute(job("from empty", tmp_path, empty), io.BytesIO())


def test_the_worker_bounds_itself_before_it_runs(
    people: QueryTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bounds: dict[int, int] = {}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", lambda which, pair: bounds.update({which: pair[0]}))
    out = io.BytesIO()
    assert sandbox.main(io.BytesIO(told_in_two_lines(job("from people", tmp_path, people))), out) == 0
    assert rows_after_the_verdict(out.getvalue()).num_rows == 3
    assert 200_000_000 < bounds[resource.RLIMIT_DATA] < 700_000_000
    assert bounds[resource.RLIMIT_CPU] == 90
    assert bounds[resource.RLIMIT_CORE] == 0

    bad = job("select nosuch from people", tmp_path, people)
    assert sandbox.main(io.BytesIO(told_in_two_lines(bad)), io.BytesIO()) == 1
    assert "no column nosuch" in json.loads(capsys.readouterr().err)["failure"]
    odd = job("select 1", tmp_path) | {"memory": "much"}
    assert sandbox.main(io.BytesIO(told_in_two_lines(odd)), io.BytesIO()) == 1
    assert "The query failed" in json.loads(capsys.readouterr().err)["failure"]


def told_in_two_lines(told: dict[str, object]) -> bytes:
    """Returns a job as the caller tells it: the statement, and then what it reads."""
    more = {name: told[name] for name in ("relations", "reach")}
    return b"".join(json.dumps(part).encode() + b"\n" for part in (told, more))


def rows_after_the_verdict(written: bytes) -> pa.Table:
    verdict, few, stream = written.split(b"\n", 2)
    assert json.loads(verdict).keys() == {"tables", "columns"}
    assert few == b"null"
    return pa.ipc.open_stream(stream).read_all()


def run_main(told: dict[str, object]) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-I", sandbox.__file__],
        input=told_in_two_lines(told),
        capture_output=True,
        timeout=60,
        check=False,
    )


def test_the_worker_as_a_process_ends_with_its_verdict(people: QueryTable, tmp_path: Path) -> None:
    good = run_main(job("from people", tmp_path, people))
    assert good.returncode == 0
    assert rows_after_the_verdict(good.stdout).num_rows == 3
    bad = run_main(job("select error(email) from people", tmp_path, people))
    assert bad.returncode == 1
    assert "its words may hold data" in json.loads(bad.stderr)["failure"]
    odd = run_main(job("select 1", tmp_path) | {"memory": "much"})
    assert odd.returncode == 1
    assert "failure" in json.loads(odd.stderr)


@pytest.mark.own_processes
def test_an_answer_comes_quickly(people: QueryTable) -> None:
    script = (
        "from stedi import query; import sys\n"
        "r = query.QueryTable('t', (sys.argv[1],), (('id', 'BIGINT'),))\n"
        "print(query.run('select count(*) from t', [r]).arrow().column(0)[0])\n"
        "assert not {'pandas', 'pyiceberg', 'sqlglot'} & sys.modules.keys()"
    )
    took = []
    for _ in range(3):
        start = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, people.files[0]], capture_output=True, text=True, check=True
        )
        took.append(time.monotonic() - start)
        assert done.stdout == "3\n"
    assert min(took) < 2.0, took


def test_a_part_of_a_with_that_writes_is_refused_on_its_tree() -> None:
    writing = {
        "type": "SELECT_NODE",
        "cte_map": {"map": [{"key": "x", "value": {"query_node": {"type": "COPY_QUERY_NODE"}}}]},
    }
    with pytest.raises(QueryRefused, match="it contains a part that writes"):
        statement._judged({"node": writing}, frozenset())


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("with a as (select 1), b as (from a) from b", set()),
        ("with b as (from a), a as (select 1) from b", {"a"}),
        ("with a as (from a) from a", {"a"}),
        ("select * from (with a as (select 1) from a), a", {"a"}),
        ("with a as (select 1) from (with a as (from a) from a)", set()),
        ("with a as (select 1) select (select max(x) from a) from t order by (select min(x) from a)", {"t"}),
        ("with a as (select 1) select 1 from t, lateral (select t.x from a)", {"t"}),
        ("(with a as (select 1) from a) union all from a", {"a"}),
        ("with a as (select 1) from a union all from a", set()),
        ("with recursive r(i) as (select 1 union all select i from r, t) from r", {"t"}),
        ("with recursive r as (from r union all select 1) from r", {"r"}),
        ("with recursive r as (from r) from r", {"r"}),
        ("with recursive a as (from b), b as (select 1) from a", {"b"}),
        ("with A as (select 1) from a, stedi.A", {"a"}),
        (
            "with recursive r(k, v) using key (k) as (select 1, 1 union select k, v from recurring.r where v < 0) "
            "from r",
            set(),
        ),
    ],
)
def test_a_name_that_with_defines_is_known_where_sql_has_it_known(sql: str, tables: set[str]) -> None:
    assert statement.judge(sql).tables == tables


@pytest.mark.parametrize("name", ["duckdb_tables", "DuckDB_Views", "pg_class", "a.parquet", "/etc/passwd", "du\u212ac"])
def test_with_may_not_take_a_name_that_the_engine_could_find_elsewhere(name: str) -> None:
    with pytest.raises(QueryRefused, match="WITH may not use the name"):
        statement.judge(f'with "{name}" as (select 1) from "{name}"')


@pytest.mark.parametrize(
    ("sql", "columns"),
    [
        ("select a.x, max(Y) from a join b using (k) where z > 1 group by 1", {"a", "x", "y", "k", "z"}),
        ("select count(*) from a", set()),
        ("from a", None),
        ("select a from a", None),
        ("select t from a as t", None),
        ("select x from a t(x)", None),
        ("select x from a natural join b", None),
        ("select #1 from a", None),
        ("summarize a", None),
    ],
)
def test_a_statement_is_known_to_need_some_columns_only_where_it_names_them(sql: str, columns: set[str] | None) -> None:
    assert statement.judge(sql).columns == columns


HUGE = {
    "and": "select 1 where true" + " and true" * 80_000,
    "in": "select 1 in (" + ",".join(["1"] * 300_000) + ")",
    "with": "with " + ", ".join(f"a{i} as (select 1)" for i in range(40_000)) + " select 1",
    "union": " union all ".join(["select 1"] * 50_000),
    "parentheses": "select " + "(" * 400_000 + "1" + ")" * 400_000,
    "subqueries": "select 1 from " + "(select 1 from " * 30_000 + "people" + ")" * 30_000,
    "case": "select " + "case when true then " * 20_000 + "1" + " end" * 20_000,
}


@pytest.mark.parametrize("sql", HUGE.values(), ids=HUGE)
@pytest.mark.own_processes
def test_judging_is_inside_the_bounds_of_time_and_memory(people: QueryTable, tmp_path: Path, sql: str) -> None:
    began, before = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with contextlib.suppress(QueryFailed, QueryRefused):
        rows(sql, people, limits=Limits(seconds=2, memory="64MB"), temporary=tmp_path / "tmp")
    assert time.monotonic() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB: the tree is the worker's
    assert os.listdir(tmp_path / "tmp") == []
