"""Who sees what: which tables and columns a query shows to each role, and that nothing masked can be found out."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any, get_args

import pytest

import quick
from deliveries import customer, deliver, motion, step
from effort import NIGHTLY, tries
from lakes import Slate, build
from stedi import cli
from stedi.errors import ConfigError, QueryFailed, QueryRefused, UsageError
from stedi.lake import Lake
from stedi.query import statement, visible
from stedi.schema.classification import TRAINING
from stedi.schema.contracts import PrivacyClass
from stedi.schema.roles import GRANTS, Role
from stedi.schema.tables import ALL_COLUMNS, COLUMNS
from stedi.storage import config as settings

PRIVATE = {"ana@x.example", "Ana Bo", "+1555010", "1990-02-28", "secret-field", "broken@x.example"}
MASKED = {
    "customers_landing": {"customerName", "email", "phone", "birthDay", "_extra"},
    "accelerometer_landing": {"user", "_extra"},
    "step_trainer_landing": {"_extra"},
    "quarantine": {"raw"},
    "customers_trusted": {"customerName", "email", "phone", "birthDay"},
    "customers_curated": {"customerName", "email", "phone", "birthDay"},
}


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    """One customer with every identifier, an unknown field and a broken record."""
    with quick.folder() as folder:
        with quick.quickened():
            slate = Slate(folder)
            made, inbox = slate.wiped(), slate.inbox()
            named: dict[str, Any] = {
                "customerName": "Ana Bo",
                "phone": "+1555010",
                "birthDay": "1990-02-28",
                "nickname": "secret-field",
            }
            deliver(inbox, "customer", [customer("ana@x.example", **named), {"email": "broken@x.example"}])
            deliver(inbox, "accelerometer", [motion("ana@x.example")])
            deliver(inbox, "step_trainer", [step()])
            assert made.land(inbox).quarantined == 1
            build(made, 1_000)
        yield made


def shown(lake: Lake, role: Role, table: str) -> list[dict[str, Any]]:
    return list(lake.query(f"select * from {table}", role=role).arrow().to_pylist())


def test_every_role_has_its_grant_and_the_officer_sees_all() -> None:
    assert set(GRANTS) == set(get_args(Role))
    assert GRANTS["officer"].tables == frozenset(ALL_COLUMNS)
    assert not GRANTS["officer"].masked
    assert GRANTS["engineer"].masked == {PrivacyClass.DIRECT}
    assert GRANTS["scientist"].tables == TRAINING | {"releases"}


@pytest.mark.parametrize("table", COLUMNS)
def test_an_engineer_sees_every_row_in_its_types_and_nobody_by_name(lake: Lake, table: str) -> None:
    whole = lake.query(f"select * from {table}").arrow()
    part = lake.query(f"select * from {table}", role="engineer").arrow()
    assert part.schema == whole.schema
    everything, seen = whole.to_pylist(), part.to_pylist()
    masked = MASKED.get(table, set())
    assert seen == [{name: None if name in masked else value for name, value in row.items()} for row in everything]
    assert everything
    assert not [word for word in PRIVATE if word in repr(seen)]


def test_what_is_masked_from_an_engineer_is_there_for_an_officer(lake: Lake) -> None:
    found = repr([shown(lake, "officer", table) for table in COLUMNS])
    assert not [word for word in PRIVATE if word not in found and word != "1990-02-28"]
    assert "datetime.date(1990, 2, 28)" in found


@pytest.mark.parametrize(
    "sql",
    [
        "select count(*) from customers_landing where email = 'ana@x.example'",
        "select count(email) from customers_trusted",
        """select count(*) from customers_landing c join accelerometer_landing a on c.email = a."user" """,
        "select count(*) from customers_landing c where lower(c.EMAIL) like '%a%'",
        "select count(*) from stedi.customers_landing c where c::varchar like '%ana@%'",
        "select count(*) from quarantine where octet_length(raw) > 0",
    ],
)
def test_no_filter_and_no_join_finds_out_what_is_masked(lake: Lake, sql: str) -> None:
    assert lake.query(sql, role="engineer").arrow().to_pylist()[0].popitem()[1] == 0


def test_a_scientist_sees_the_training_table_whole(lake: Lake) -> None:
    assert (
        shown(lake, "scientist", "machine_learning_curated") == shown(lake, "officer", "machine_learning_curated") != []
    )


@pytest.mark.parametrize("table", [name for name in COLUMNS if name != "machine_learning_curated"])
def test_a_scientist_sees_no_other_table(lake: Lake, table: str) -> None:
    for sql in (f"select 1 from {table}", f"select 1 from machine_learning_curated, stedi.{table.upper()}"):
        expected = rf"^The role scientist may query machine_learning_curated.* found {table}\."
        with pytest.raises(QueryRefused, match=expected):
            lake.query(sql, role="scientist")


SEED = 20261128
BODIES = (
    "select * from {n}",
    "from {n}",
    "select x.* from {n} as x, lateral (select 1) as y",
    "select * from (select * from {n}) as q",
    "select (select to_json(max(x)) from {n} as x) as v",
    "select list(x)::varchar from {n} as x",
    "select * from {n} where true order by 1 limit 50",
    "select 1 as one union all by name select * from {n}",
    "summarize {n}",
    "describe {n}",
    "select columns(c -> true) from {n}",
    "select max(columns(*)) from {n}",
    "select filename, file_row_number, rowid from {n}",
    "unpivot (select columns(*)::varchar from {n}) on columns(*)",
    "pivot {n} on email",
    "select * from {n} at (version => 1)",
    "select * from {n} positional join landed_files",
    "select error(x::varchar) from {n} as x",
    "select getenv('HOME') from {n}",
)
SCOPES = (
    "{body}",
    "with {n} as ({body}) {outer}",
    "with {n} as materialized ({body}) {outer}",
    "with recursive {n} as ({body}) {outer}",
    "with recursive {n} as ({body} union all {body}) {outer}",
    "with a as ({body}), {n} as (select 1 as i) select * from a",
    "with {n} as (select 1 as i), a as (select * from (with {n} as ({body}) {outer})) select * from a",
    "select * from (with {n} as (select 1 as i) from {n}) as p, ({body}) as q",
    "(with {n} as (select 1 as i) from {n}) union all ({body})",
    "select * from ({body}) as q where exists (with {n} as (select 1 as i) from {n})",
    "with a as (with {n} as (select 1 as i) from {n}) select * from a, ({body}) as q",
    "select list_transform([1], lambda v: (with {n} as ({body}) select count(*) from {n}))",
)
"""What a statement may do with a name that it defines itself, somewhere, and means something else by, elsewhere."""

CALLS = (
    *("duckdb_settings()", "duckdb_secrets()", "duckdb_views()", "duckdb_functions()", "duckdb_logs()", "glob('**')"),
    *("pragma_database_list()", "pragma_table_info('{t}')", "query('from {t}')", "query_table('{t}')", "'{f}'"),
    *("read_parquet('{f}')", "parquet_scan('{f}')", "read_blob('{f}')", "read_text('{s}')", "parquet_metadata('{f}')"),
    *("parquet_schema('{f}')", "sniff_csv('{s}')", "json_execute_serialized_sql(json_serialize_sql('from {t}'))"),
)


def attacks(lake: Lake) -> Iterator[str]:
    """Yields statements that would show somebody's address, a setting or a file if one wall had a gap."""
    files = sorted(str(path) for path in lake.root.rglob("*.parquet") if "customers_landing" in str(path))
    told = {"t": "customers_landing", "f": files[0].replace("'", "''"), "s": str(lake.root / "lake.toml")}
    quoted = [f'"{name}"' for name in (*files[:1], told["s"], "*.parquet", str(lake.root / "catalog.db"))]
    system = ["duckdb_settings", "duckdb_views", "duckdb_tables", "sqlite_master", "pg_settings", "pg_views"]
    schemas = ["information_schema.tables", "pg_catalog.pg_class", "system.main.duckdb_views", "main.duckdb_columns"]
    tables = ["customers_landing", "customers_trusted", "accelerometer_landing", "quarantine", '"masked quarantine"']
    for name in (*tables, *quoted, *system, *schemas, 'temp.main."masked customers_landing"'):
        plain = name if "." not in name or name.startswith('"') else name.rpartition(".")[2]
        for scope in SCOPES:
            for body in BODIES:
                outer = f"select * from {plain}"
                yield scope.replace("{body}", body.replace("{n}", name)).replace("{outer}", outer).replace("{n}", plain)
    for called in CALLS:
        for text, value in told.items():
            called = called.replace("{" + text + "}", value)
        for scope in SCOPES:
            yield scope.replace("{body}", f"select * from {called}").replace("{outer}", "from a").replace("{n}", "a")
    for setting in ("temp_directory", "allowed_paths", "secret_directory"):
        for function in ("current_setting", "getvariable", "getenv", "main.current_setting", '"CURRENT_SETTING"'):
            yield f"select {function}('{setting}')"
            yield f"select list_transform(['{setting}'], lambda v: {function}(v))"
            yield f"select '{setting}'.{function.rpartition('.')[2]}()"


def test_no_statement_shows_an_address_a_setting_or_a_file_to_who_may_not_see_it(lake: Lake) -> None:
    """A share of them, all at night; what is let through runs in a process of its own, so of that a few."""
    chosen = random.Random(SEED)
    every = list(attacks(lake))
    assert len(every) > 2_000
    judged = refused = run = 0
    canaries = [*(word for word in PRIVATE if word != "1990-02-28"), str(lake.root), "temp_directory", "/query-"]
    for sql in every if NIGHTLY else chosen.sample(every, tries(120, 250, 0)):
        judged += 1
        try:
            reads = statement.judge(sql).tables
        except QueryRefused:
            refused += 1
            continue
        if not reads <= frozenset(COLUMNS):
            refused += 1  # by name, as it is none of the lake's tables
            continue
        if NIGHTLY or run < 12:
            for role in ("engineer", "scientist"):
                run += 1
                try:
                    found = repr(lake.query(sql, role=role).arrow().to_pylist())
                except (QueryRefused, QueryFailed) as error:
                    found = str(error).replace(sql, "")
                assert not [word for word in canaries if word in found], f"seed {SEED}, {role}: {sql}"
    assert min(judged - refused, refused, run) > 10


def test_the_engine_itself_has_nothing_masked_even_for_a_statement_that_nobody_judged(lake: Lake) -> None:
    """As if the judge let everything through: in one process after another, straight to the engine."""
    relations = visible.tables(lake.context, "engineer", frozenset({"customers_landing", "landed_files"}))
    hidden = [file for relation in relations if relation.masked for file in relation.files]
    assert hidden
    given = [{**asdict(r), "masked": sorted(r.masked), "wanted": None} for r in relations]
    with tempfile.TemporaryDirectory() as folder:
        told = {"relations": given, "reach": [], "memory": 200_000_000, "spill": 1_000_000, "threads": 1}
        told |= {"temporary": folder, "seconds": 30.0}
        for sql in (
            *(f"from read_parquet('{file}')" for file in hidden),
            *(f"from '{file}'" for file in hidden),
            *(f"from read_blob('{file}')" for file in hidden),
            "select sql from duckdb_views()",
            'from "masked customers_landing"',
            "from customers_landing",
            "select * from duckdb_settings()",
        ):
            script = "import io, json, sys; from stedi.query import sandbox, scans; out = io.BytesIO()\n"
            script += (
                "try: sandbox.execute(json.load(sys.stdin), out)\nexcept scans.Failure as e: sys.exit('refused')\n"
            )
            script += "sys.stdout.buffer.write(out.getvalue())"
            done = subprocess.run(
                [sys.executable, "-c", script], input=json.dumps(told | {"sql": sql}).encode(), capture_output=True
            )
            shown_ = done.stdout + done.stderr
            assert not [word for word in PRIVATE if word.encode() in shown_], sql
            assert not [file for file in hidden if file.encode() in shown_], sql


def test_a_condition_of_explain_has_the_eyes_of_its_role(lake: Lake) -> None:
    for where in (
        "email = 'ana@x.example'",
        "email is not null",
        "phone like '+%'",
        "customers_landing::varchar like '%ana%'",
    ):
        assert len(lake.explain_rows("customers_landing", where, role="officer").rows) == 1
        assert not lake.explain_rows("customers_landing", where, role="engineer").rows
    assert len(lake.explain_rows("customers_landing", "serialNumber is not null", role="engineer").rows) == 1
    with pytest.raises(QueryRefused, match="The role scientist may query machine_learning_curated"):
        lake.explain_rows("customers_landing", "true", role="scientist")
    with pytest.raises(QueryRefused, match="The role scientist may query machine_learning_curated"):
        lake.explain_rows("machine_learning_curated", "x in (select 1 from customers_landing)", role="scientist")


def test_another_role_is_none(lake: Lake) -> None:
    with pytest.raises(UsageError, match="expected one of scientist, engineer, officer, found 'king'"):
        lake.query("select 1", role="king")  # type: ignore[arg-type] # a script's own mistake


def test_a_name_that_the_statement_defines_itself_is_no_table(lake: Lake) -> None:
    sql = "with customers_trusted as (select 7 as n) select n from customers_trusted"
    assert lake.query(sql, role="scientist").arrow().to_pylist() == [{"n": 7}]


def test_the_settings_say_whose_eyes_a_query_has_and_the_call_may_say_otherwise(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEDI_QUERY_ROLE")
    assert settings.Config("", "").query_role == "engineer"
    file = lake.root / "lake.toml"
    before = settings.read(file)
    settings.write(settings.changed(before, query_role="engineer"), file)
    try:
        sql = "select email from customers_trusted"
        said = []
        for words in ([], ["--role", "officer"]):
            assert cli.main(["--lake", str(lake.root), "query", "--format", "json", *words, sql]) == 0
            told = capsys.readouterr()
            said.append((json.loads(told.out), told.err))
        assert said == [
            ([{"email": None}], "null for the role engineer: email of customers_trusted\n"),
            ([{"email": "ana@x.example"}], ""),
        ]
        assert lake.query("select count(*) from customers_trusted", role="engineer").masked == ()
        assert len(lake.query("from customers_trusted", role="engineer").masked) == 4
    finally:
        settings.write(before, file)
    with pytest.raises(ConfigError, match=r"query\.role: expected scientist or engineer or officer"):
        settings.changed(before, query_role="king")


def test_stedi_roles_prints_what_a_query_shows(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["roles"]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80
    assert cli.main(["--json", "roles"]) == 0
    printed = {found["role"]: found["tables"] for found in json.loads(capsys.readouterr().out)["roles"]}
    assert printed.keys() == set(get_args(Role))
    for role, tables in printed.items():
        assert {table["name"] for table in tables} == GRANTS[role].tables
        for table in tables:
            columns = [column.name for column in ALL_COLUMNS[table["name"]]]
            assert sorted(table["columns"] + table["masked"]) == sorted(columns)
            assert set(table["masked"]) == (MASKED.get(table["name"], set()) if role == "engineer" else set())
