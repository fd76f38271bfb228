"""Queries on Athena: what is sent there, what is refused here, and what comes back. Athena itself is moto's."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlglot
from sqlglot.optimizer.scope import traverse_scope

import servers
from athena_sql import OTHER, SAME
from stedi import cli
from stedi.aws import account, athena
from stedi.errors import CloudFailed, QueryFailed, QueryRefused
from stedi.lake import Lake
from stedi.query import statement
from stedi.schema.roles import Role
from stedi.schema.tables import COLUMNS
from stedi.storage import config as settings
from stedi.storage import s3

ALL = frozenset(COLUMNS)


@pytest.fixture
def workgroup(moto_server: servers.Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., None]]:
    """An Athena with the officer's workgroup; called, it decides what the next query answers."""
    servers.reset(moto_server)
    for name, value in servers.environment(s3=moto_server, aws=moto_server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(athena, "POLL", 0.01)
    account.client.cache_clear()
    s3.client.cache_clear()
    account.client("athena").create_work_group(
        Name="stedi-officer", Configuration={"ResultConfiguration": {"OutputLocation": "s3://results/officer/"}}
    )

    def answers(columns: list[tuple[str, str]], rows: list[list[str | None]]) -> None:
        names = {"Data": [{"VarCharValue": name} for name, _ in columns]}
        data = [{"Data": [{} if cell is None else {"VarCharValue": cell} for cell in row]} for row in rows]
        result = {"rows": [names, *data], "column_info": [{"Name": name, "Type": kind} for name, kind in columns]}
        body = json.dumps({"results": [result], "region": servers.REGION}).encode()
        where = f"{moto_server.url}/moto-api/static/athena/query-results"
        asked = urllib.request.Request(where, body, {"Content-Type": "application/json"})
        urllib.request.urlopen(asked).close()

    yield answers
    account.client.cache_clear()
    s3.client.cache_clear()


def test_a_query_is_translated_run_and_typed(workgroup: Callable[..., None]) -> None:
    workgroup(
        [("a", "bigint"), ("b", "varchar"), ("c", "timestamp(6) with time zone"), ("d", "double"), ("e", "boolean")],
        [["1", "x,y", "2023-11-01 10:00:00.123000 UTC", "0.5", "true"], [None, None, None, None, None]],
    )
    result = athena.run("select 1 as a from machine_learning_curated", role="officer", workgroup="stedi-officer")
    found = result.reader().read_all().to_pylist()
    at = dt.datetime(2023, 11, 1, 10, 0, 0, 123_000, tzinfo=dt.UTC)
    assert found == [
        {"a": 1, "b": "x,y", "c": at, "d": 0.5, "e": True},
        dict.fromkeys("abcde"),
    ]
    sent = account.client("athena").get_query_execution(QueryExecutionId=result.bill.query)["QueryExecution"]
    assert sent["Query"] == "SELECT 1 AS a FROM machine_learning_curated"
    assert (sent["WorkGroup"], sent["QueryExecutionContext"]) == ("stedi-officer", {"Database": "stedi"})


def test_the_command_shows_rows_bytes_and_price(
    workgroup: Callable[..., None], capfd: pytest.CaptureFixture[str]
) -> None:
    workgroup([("n", "bigint")], [["41"], ["42"]])
    words = ["query", "--engine", "athena", "select count(*) as n from customers_trusted"]
    assert cli.main(["--json", *words]) == 0
    out, said = capfd.readouterr()
    document = json.loads(out)
    assert document["rows"] == [{"n": 41}, {"n": 42}]
    assert {"query", "bytes_scanned", "dollars", "rows"} == document.keys()
    assert "bytes, $" in said
    workgroup([("n", "bigint")], [])
    assert cli.main([*words, "--format", "csv"]) == 0
    assert capfd.readouterr().out == "n\r\n"


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        (
            "select date_trunc('day', sensorReadingTime) as d, count(*) from stedi.step_trainer_trusted group by 1",
            None,
        ),
        (
            "select customer_id, count(*) filter (where x > 0) as n from machine_learning_curated group by 1",
            "SELECT customer_id, COUNT(*) FILTER(WHERE x > 0) AS n FROM machine_learning_curated GROUP BY 1",
        ),
        (
            'select "timestamp" from accelerometer_trusted order by 1 limit 5',
            'SELECT "timestamp" FROM accelerometer_trusted ORDER BY 1 LIMIT 5',
        ),
        (
            "with a as (select customer_id from customers_trusted) select * from a",
            "WITH a AS (SELECT customer_id FROM customers_trusted) SELECT * FROM a",
        ),
    ],
)
def test_duckdbs_sql_becomes_athenas(sql: str, expected: str | None) -> None:
    found = athena.translated(sql, ALL)
    assert expected is None or found == expected


def test_tables_are_read_as_they_were_where_a_time_is_given() -> None:
    then = {"customers_trusted": 12, "machine_learning_curated": 34}
    sql = "with c as (select customer_id from Customers_Trusted) select m.x from c join machine_learning_curated as m"
    sql += " on c.customer_id = m.customer_id"
    found = athena.translated(sql, ALL, then)
    assert "FROM Customers_Trusted FOR VERSION AS OF 12" in found
    assert "machine_learning_curated FOR VERSION AS OF 34 AS m" in found
    assert "c FOR VERSION" not in found
    with pytest.raises(QueryRefused, match="--at: expected WITH to give names of its own, found customers_trusted"):
        athena.translated("with customers_trusted as (select 1 as a) select a from customers_trusted", ALL, then)


def test_the_command_asks_for_the_snapshots_of_a_time(
    workgroup: Callable[..., None], capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lake = Lake.create(tmp_path / "lake")
    landed = lake.catalog.table("customers_landing").current
    assert landed is not None
    workgroup([("n", "bigint")], [["0"]])
    words = ["query", "--engine", "athena", "select count(*) as n from customers_landing"]
    assert cli.main(["--lake", str(lake.root), "--json", *words, "--at", str(landed.id)]) == 0
    bill = json.loads(capfd.readouterr().out)["query"]
    sent = account.client("athena").get_query_execution(QueryExecutionId=bill)["QueryExecution"]["Query"]
    assert sent == f"SELECT COUNT(*) AS n FROM customers_landing FOR VERSION AS OF {landed.id}"
    assert cli.main(["--lake", str(lake.root), *words, "--at", "1999-01-01"]) == 2
    assert "customers_landing has no snapshot of that time" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("options", "variable", "setting", "expected"),
    [
        ([], None, None, "engineer"),
        ([], None, "engineer", "engineer"),
        ([], "scientist", "engineer", "scientist"),
        (["--role", "officer"], "scientist", "engineer", "officer"),
        ([], "engineer", None, "engineer"),
    ],
)
def test_the_role_is_said_as_for_every_query(
    workgroup: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    options: list[str],
    variable: str | None,
    setting: Role | None,
    expected: Role,
) -> None:
    """By the option, the environment, the lake's settings, in that order; Athena is asked without a lake, too."""
    if setting:
        lake = Lake.create(tmp_path / "lake")
        settings.write(settings.changed(lake.config, query_role=setting), lake.root / "lake.toml")
    monkeypatch.delenv("STEDI_QUERY_ROLE")
    if variable:
        monkeypatch.setenv("STEDI_QUERY_ROLE", variable)
    asked: list[object] = []

    def run(sql: str, **how: object) -> None:
        asked.append((how["role"], how["workgroup"]))
        raise QueryRefused("it is known by now")

    monkeypatch.setattr(athena, "run", run)
    words = ["--lake", str(tmp_path / "lake"), "query", "--engine", "athena", *options, "select 1 from landed_files"]
    assert cli.main(words) == 2
    assert asked == [(expected, f"stedi-{expected}")]


def test_settings_that_do_not_say_a_role_are_never_passed_over(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("STEDI_QUERY_ROLE")
    words = ["--lake", str(tmp_path), "query", "--engine", "athena", "select 1 from landed_files"]
    (tmp_path / "lake.toml").write_text('format = 1\n[query]\nrole = "king"\n')
    assert cli.main(words) == 2
    assert "lake.toml" in capsys.readouterr().err
    monkeypatch.setenv("STEDI_QUERY_ROLE", "king")
    assert cli.main(words) == 2
    assert "STEDI_QUERY_ROLE: query.role: expected scientist" in capsys.readouterr().err
    monkeypatch.delenv("STEDI_QUERY_ROLE")
    monkeypatch.setattr(settings, "read", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    assert cli.main(words) == 2
    assert "set it with --role or STEDI_QUERY_ROLE" in capsys.readouterr().err


SCOPES = (
    "with {n} as (select * from {n}) select * from {n}",
    "with {n} as (with {n} as (select * from {n}) select * from {n}) select * from {n}",
    "with a as (select * from {n}), {n} as (select 1 as i) select * from a",
    "with a as (select * from b), b as (select * from {n}) select * from a",
    "with {n} as (select 1 as i) select * from {n}",
    "with {n} as (select 1 as i), a as (select * from {n}) select * from a",
    "with a as (with {n} as (select 1 as i) select * from {n}) select * from a, {n}",
    "with a as (with {n} as (select 1 as i) select * from {n}) select * from a",
    "select * from (with {n} as (select 1 as i) select * from {n}) as p, {n} as q",
    "select * from {n} as q where exists (with {n} as (select 1 as i) select i from {n})",
    "with {n} as (select 1 as i) select * from (with {n} as (select * from {n}) select * from {n}) as p",
    "with {n} as (select 1 as i) select * from stedi.{n}",
    "with {n} as (select 1 as i union all select i from {n}) select * from {n}",
    "select 1 as i from landed_files union all (with {n} as (select 1 as i) select i from {n})",
    "(with {n} as (select 1 as i) select i from {n}) union all select 1 as i from {n}",
    "with a as (select 1 as i), A as (select * from {n}) select * from a",
    'with "{N}" as (select * from {n}) select * from {N}',
    "with a as (select * from a) select * from a",
)
"""Names that a statement defines itself, and reads where they are not, or not yet, or no longer, defined."""


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("table", ["customers_landing", "quarantine", "landed_files", "elsewhere"])
@pytest.mark.sample(full=16)
def test_a_name_that_with_defines_is_a_table_everywhere_else(scope: str, table: str) -> None:
    """Held against SQLGlot's own scopes, which the judge does not use: what is sent reads what the role may see."""
    sql = scope.replace("{n}", table).replace("{N}", table.upper())
    seen = athena.visible("engineer")
    try:
        sent = athena.translated(sql, seen)
    except QueryRefused:
        sent = None
    read = {
        source.name.lower()
        for found in traverse_scope(sqlglot.parse_one(sent or sql, read="athena"))
        for source in found.sources.values()
        if isinstance(source, sqlglot.exp.Table)
    }
    if sent is not None:
        assert read <= seen
        assert read == statement.judge(sql).tables
    elif read <= seen:  # refused for the sake of what might be misread; the plain cases are not
        assert scope.startswith(("with a as (select 1 as i), A", "with {n} as (select 1 as i union")), sql


def test_most_scopes_are_sent_over_a_table_that_may_be_seen() -> None:
    seen, sent = athena.visible("engineer"), 0
    for scope in SCOPES:
        with contextlib.suppress(QueryRefused):
            athena.translated(scope.replace("{n}", "landed_files").replace("{N}", "LANDED_FILES"), seen)
            sent += 1
    assert sent > len(SCOPES) // 2


@pytest.mark.parametrize(
    "sql",
    [
        "drop table customers_trusted",
        "select 1; select 2",
        "select * from read_json('s3://elsewhere/x.json')",
        "select * from information_schema.tables",
        "select * from stedi_inbox.customer",
        "insert into customers_trusted values (1)",
        "copy (select 1) to 's3://elsewhere/x'",
        "select * from customers_landing at (version => 1)",
    ],
)
def test_what_is_no_select_over_the_lakes_tables_is_not_sent(sql: str) -> None:
    with pytest.raises(QueryRefused):
        athena.translated(sql, ALL)


@pytest.mark.parametrize("sql", SAME)
def test_what_means_the_same_there_is_sent(sql: str) -> None:
    assert athena.translated(sql, ALL)


def test_every_construct_that_is_sent_stands_in_sql_that_a_server_has_run() -> None:
    found = {type(node).__name__ for sql in SAME for node in sqlglot.parse_one(sql, read="duckdb").walk()}
    assert found == athena._SAME


@pytest.mark.parametrize(("sql", "there"), OTHER)
def test_what_may_mean_something_else_there_is_refused(sql: str, there: str) -> None:
    with pytest.raises(QueryRefused, match="something else in Athena"):
        athena.translated(sql, ALL)


def test_a_role_is_refused_the_tables_that_it_may_not_see_whole() -> None:
    assert athena.visible("scientist") == {"machine_learning_curated"}
    assert athena.visible("officer") == ALL
    assert athena.visible("engineer") == {
        *("landed_files", "accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated")
    }
    with pytest.raises(QueryRefused):
        athena.translated("select * from customers_trusted", athena.visible("engineer"))


def test_a_workgroup_that_is_not_there_is_one_line(workgroup: Callable[..., None]) -> None:
    with pytest.raises(CloudFailed, match="workgroup stedi-nobody: AWS answered"):
        athena.run("select 1 from landed_files", role="officer", workgroup="stedi-nobody")


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("COLUMN_NOT_FOUND: line 1:8: Column 'nme' cannot be resolved", "Column 'nme'"),
        ("INVALID_CAST_ARGUMENT: Cannot cast 'ann@example.com' to BIGINT", "INVALID_CAST_ARGUMENT"),
        ("Query cancelled! : Bytes scanned limit was exceeded", "more bytes than its workgroup allows"),
    ],
)
def test_a_query_that_fails_says_why_and_shows_no_value(
    workgroup: Callable[..., None], monkeypatch: pytest.MonkeyPatch, said: str, shown: str
) -> None:
    client = account.client("athena")
    answer: Callable[..., Any] = client.get_query_execution

    def failed(**asked: str) -> Any:
        found = answer(**asked)
        found["QueryExecution"]["Status"] |= {"State": "FAILED", "StateChangeReason": said}
        return found

    monkeypatch.setattr(client, "get_query_execution", failed)
    with pytest.raises(QueryFailed) as error:
        athena.run("select 1 from landed_files", role="officer", workgroup="stedi-officer")
    assert shown in str(error.value)
    assert "example.com" not in str(error.value)


def test_pages_follow_one_another(workgroup: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Athena gives a thousand rows a page, the first of which names the columns; moto gives all in one."""
    workgroup([("n", "integer")], [["1"], ["2"], ["3"], ["4"]])
    client = account.client("athena")
    result = athena.run("select 1 as n from landed_files", role="officer", workgroup="stedi-officer")
    whole = client.get_query_results(QueryExecutionId=result.bill.query)["ResultSet"]
    first, second = ({**whole, "Rows": whole["Rows"][part]} for part in (slice(0, 3), slice(3, 5)))

    class Pages:
        def paginate(self, **_: str) -> list[dict[str, Any]]:
            return [{"ResultSet": first}, {"ResultSet": second}]

    monkeypatch.setattr(client, "get_paginator", lambda _: Pages())
    batches = list(athena.Result(result.bill).reader())
    assert [batch.to_pydict()["n"] for batch in batches] == [[1, 2], [3, 4]]
