"""What a notebook meets: names, results that do not vanish in silence, frames, parameters, instants, errors."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import subprocess
import sys
import typing
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import quick
import stedi
from deliveries import customer, deliver, motion
from lakes import Slate, build
from stedi.cli import main
from stedi.errors import MissingExtra, QueryRefused, UsageError
from stedi.lake import Lake
from stedi.query import result as results
from stedi.query.result import Result

PEOPLE = ("ana@x.example", "<b>bo</b>@x.example", "o'cy@x.example")


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    with quick.folder() as folder, quick.quickened():
        lake = Slate(folder).wiped()
        inbox = folder / "in"
        lake.land(
            deliver(inbox, "customer", [customer(who, serialNumber=who) for who in PEOPLE]),
            deliver(inbox, "accelerometer", [motion(who, at) for who in PEOPLE for at in range(100, 110)]),
        )
        build(lake, 1_000)
        yield lake


def test_a_notebook_completes_the_public_names_and_nothing_else() -> None:
    assert sorted(dir(stedi)) == sorted(stedi.__all__)
    assert [name for name in dir(stedi) if not name[0].isupper()] == ["attestation", "sample"], "these are modules"


def test_importing_the_package_imports_none_of_its_modules() -> None:
    script = "import sys, stedi; print(*[n for n in sys.modules if n.startswith(('stedi.', 'duckdb', 'pyarrow'))])"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["stedi._version"]


def _known(module: ModuleType) -> dict[str, Any]:
    """Returns what a module's annotations may name, imports for types alone included."""
    found = dict(vars(module))
    for node in ast.walk(ast.parse(inspect.getsource(module))):
        if isinstance(node, ast.ImportFrom) and node.module:
            there = importlib.import_module(node.module)
            found.update({alias.asname or alias.name: getattr(there, alias.name, None) for alias in node.names})
    return found


def _parts(hint: Any) -> Iterator[Any]:
    """Yields the types that an annotation is made of, containers left out."""
    inner = [part for part in typing.get_args(hint) if part is not ...]
    if not inner:
        yield hint
    for part in inner:
        yield from _parts(part)


def _verbs() -> list[str]:
    return [name for name, found in inspect.getmembers(Lake) if not name.startswith("_") and inspect.isroutine(found)]


def _own(hints: Mapping[str, Any]) -> Iterator[type]:
    for hint in hints.values():
        yield from (part for part in _parts(hint) if isinstance(part, type) and part.__module__.startswith("stedi"))


_PLAIN = (None, type(None), typing.Self, int, tuple[str, ...], dict[str, int])
"""What a verb may return that is no type of the package: a count, names, ids by name."""
_DOCUMENTS = ("contract",)
"""Verbs that return a document of a public standard, as plain values; a published schema describes it."""


@pytest.mark.parametrize("verb", _verbs())
def test_what_a_verb_returns_is_exported_and_tells_of_its_fields_down_to_the_last(verb: str) -> None:
    function = getattr(Lake, verb)
    assert inspect.getdoc(function)
    returned = typing.get_type_hints(function, _known(sys.modules[Lake.__module__]))["return"]
    if verb in _DOCUMENTS:
        assert returned == dict[str, Any]
        return
    assert returned in _PLAIN or set(_own({"": returned})) == set(_parts(returned)), f"{verb} returns {returned}"
    if typing.get_origin(returned) is tuple:
        assert typing.get_args(returned)[-1] is ..., f"{verb} returns several things in one tuple"
    met, waiting = set(), list(_own({"": returned}))
    while waiting:
        found = waiting.pop()
        if found in met:
            continue
        met.add(found)
        part_of_a_report = found.__module__.startswith("stedi.report.") and found.__name__ not in stedi.__all__
        assert part_of_a_report or getattr(stedi, found.__name__, None) is found, (
            f"{verb} gives {found.__name__}, which is not exported"
        )
        documented = inspect.getdoc(found) or ""
        assert documented, f"{found.__name__} is not documented"
        if not is_dataclass(found):
            continue
        assert found.__dataclass_params__.frozen, f"{found.__name__} is not frozen"  # type: ignore[attr-defined]
        for field in fields(found):
            assert field.name.startswith("_") or re.search(rf"(^|\W){field.name}\b", documented), (
                f"{found.__name__}.{field.name} is not documented"
            )
        waiting += _own(typing.get_type_hints(found, _known(sys.modules[found.__module__])))


def test_a_lake_says_what_it_is_and_shows_its_tables(lake: Lake, tmp_path: Path) -> None:
    assert repr(lake).startswith(f"<stedi.Lake '{lake.root}': id {lake.config.lake_id}")
    shown = lake._repr_html_()
    assert shown.count("<tr>") == 1 + len(lake.tables())
    assert "<td>customers_trusted</td><td>3</td>" in shown
    broken = stedi.Lake.create(tmp_path / "<i>")
    (broken.root / "catalog.db").unlink()
    assert "expected a lake&#x27;s catalog" in stedi.Lake.open(broken.root)._repr_html_()
    assert "<i>" not in broken._repr_html_()


def test_a_lake_ends_its_queries_with_its_block(lake: Lake) -> None:
    with Lake.open(lake.root) as opened:
        running = opened.query("select * from range(100_000_000)")
        running.reader().read_next_batch()
    with pytest.raises(stedi.StediError, match="closed before its last row"):
        running.reader().read_all()


def test_a_result_is_read_again_while_it_is_kept_and_never_empty_in_silence(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    sql = "select * from accelerometer_trusted"
    result = lake.query(sql)
    assert "not read yet" in repr(result)
    table = result.arrow()
    assert table.num_rows == 30
    assert result.arrow() is table
    assert len(result.df()) == len(result.pl()) == len(result.fetchall()) == sum(b.num_rows for b in result) == 30
    assert repr(result).startswith("<stedi.Result: 30 rows of customer_id string, timestamp timestamp")
    monkeypatch.setattr(results, "KEPT", 10)
    result = lake.query(sql)
    table = result.arrow()
    assert result.arrow() is table, "it is there for as long as somebody holds it"
    del table
    for again in (result.arrow, result.df, result.pl, result.fetchall, result.reader, lambda: list(result)):
        with pytest.raises(UsageError, match="read whole before; run the query again"):
            again()
    assert "read, and not kept" in repr(result)
    result = lake.query(sql)
    assert sum(batch.num_rows for batch in result) == 30
    for once in (result.arrow, result.fetchall, lambda: list(result)):
        with pytest.raises(UsageError, match="read batch by batch before"):
            once()


@pytest.mark.parametrize("sql", ["select * from accelerometer_trusted", "select count(*) from accelerometer_trusted"])
def test_a_result_that_was_read_by_batches_is_not_read_again_as_empty(lake: Lake, sql: str) -> None:
    with lake.query(sql) as result:
        assert result.reader().read_all().num_rows > 0
        for read in (result.reader, result.arrow, lambda: next(iter(result))):
            with pytest.raises(UsageError, match="read batch by batch before"):
                read()


def test_results_become_what_readers_work_with(lake: Lake) -> None:
    sql = "select customer_id, timestamp, x from accelerometer_trusted order by all limit 2"
    result = lake.query(sql)
    assert isinstance(result.df(), pd.DataFrame)
    assert isinstance(result.pl(), pl.DataFrame)
    assert isinstance(result.arrow(), pa.Table)
    rows = result.fetchall()
    assert rows == list(result.df().itertuples(index=False, name=None)) == result.pl().rows()
    assert rows[0][1].utcoffset() == timedelta(0)
    assert lake.query("select 1 as a, 2 as a").fetchall() == [(1, 2)]
    assert lake.query("select 1 where false").fetchall() == []


@pytest.mark.parametrize(("method", "module"), [("df", "pandas"), ("pl", "polars")])
def test_a_reader_that_is_not_installed_is_named_with_its_extra(
    lake: Lake, method: str, module: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    result = lake.query("select 1")
    with pytest.raises(MissingExtra, match=rf"{module}, which is not installed: pip install 'stedi\[readers\]'"):
        getattr(result, method)()
    assert result.fetchall() == [(1,)], "nothing was lost"


def test_a_notebook_shows_the_first_rows_escaped_and_loses_none(lake: Lake) -> None:
    result = lake.query("select email, '\x1b[31m' as \"<script>\" from customers_landing, range(1000) order by 1")
    shown = result._repr_html_()
    assert shown.count("<tr>") == 1 + results.SHOWN
    assert "the first 20 rows" in shown
    assert "&lt;b&gt;bo&lt;/b&gt;@x.example" in shown
    assert not {"<b>", "<script>", "\x1b"} & set(re.findall(r"<b>|<script>|\x1b", shown))
    assert len(shown) < 10_000
    assert result._repr_html_() == shown
    assert result.arrow().num_rows == 3_000
    assert result._repr_html_() == shown
    assert "<p>1 row</p>" in lake.query("select repeat('x', 1000000) as long")._repr_html_()
    read = lake.query("select 1")
    list(read)
    assert "read, and not kept" in read._repr_html_()


VALUES = [
    None, True, 7, -(2**62), 1.5, "", "it's", "'; drop table x; --", "$x ? %s", datetime(2026, 1, 2, 3, 4, 5, 6, UTC),
    date(2026, 1, 2),
]  # fmt: skip


@pytest.mark.parametrize("value", VALUES, ids=str)
def test_a_parameter_is_the_value_and_nothing_more(lake: Lake, value: Any) -> None:
    assert lake.query("select ? as v", parameters=[value]).fetchall() == [(value,)]
    assert lake.query("select $v as v, '$v' as t", parameters={"v": value}).fetchall() == [(value, "$v")]


def test_parameters_choose_rows(lake: Lake) -> None:
    sql = "select count(*) from customers_landing where email = $who and registrationDate < $until"
    for who in PEOPLE:
        assert lake.query(sql, parameters={"who": who, "until": 2**50}).fetchall() == [(1,)]
    assert lake.query(sql, parameters={"who": "' or true or '", "until": 2**50}).fetchall() == [(0,)]
    moments = "select count(*) from accelerometer_trusted where timestamp >= ? limit ?"
    newest = lake.query("select max(timestamp) from accelerometer_trusted").fetchall()[0][0]
    assert lake.query(moments, parameters=[newest, 5]).fetchall() == [(3,)]
    assert lake.query(moments, parameters=[newest.replace(tzinfo=None), 5]).fetchall() == [(3,)]
    masked = lake.query("select email from customers_trusted where ? is not null", parameters=[1], role="engineer")
    assert masked.fetchall() == [(None,)] * 3


@pytest.mark.parametrize(
    ("sql", "parameters", "message"),
    [
        ("select ?", None, "found a parameter without a value"),
        ("select ?", [], "(?i)parameter"),
        ("select 1", [1], "(?i)parameter"),
        ("select $a", {"b": 1}, "(?i)parameter"),
        ("select * from ?", ["customers_landing"], r"not valid SQL: .* \(line 1, column \d+\)"),
        ("select * from read_csv(?)", ["/etc/passwd"], "is not allowed"),
        ("copy (select ?) to 'x'", [1], "found another kind of statement"),
        ("select ?; select ?", [1, 2], "found several statements"),
        ("explain select ?", [1], "found another kind of statement"),
        ("select ?", "x", "^parameters: expected a list of values or a mapping"),
        ("select ?", [[1]], "^parameters: expected None, a bool, .* found list"),
        ("select ?", [b"x"], "found bytes"),
    ],
)
def test_no_parameter_opens_what_a_statement_may_not_do(lake: Lake, sql: str, parameters: Any, message: str) -> None:
    with pytest.raises(stedi.StediError, match=message):
        lake.query(sql, parameters=parameters).arrow()


def test_rows_of_a_statement_with_parameters_come_in_little_memory(lake: Lake) -> None:
    sql = "select range as n, repeat('x', 100) as long from range(1_000_000) where range >= ?"
    result = lake.query(sql, parameters=[1])
    with result:
        first = next(iter(result))
    assert first.num_rows < 10_000
    assert first["n"][0].as_py() == 1


def test_the_command_takes_parameters(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lake", str(lake.root), "query", "--format", "csv"]
    sql = "select count(*) as n from customers_landing where email = $who and 2 > $one"
    given = ["--parameter", "who=ana@x.example", "--parameter", "one=1"]
    assert main([*words, sql, *given]) == 0
    assert capsys.readouterr().out.split() == ["n", "1"]
    assert main([*words, "select typeof($a), typeof($b), $c is null", "--parameter", "a=\"7\"", "--parameter", "b=7",
                 "--parameter", "c=null"]) == 0  # fmt: skip
    assert capsys.readouterr().out.splitlines()[1] == "VARCHAR,INTEGER,true"
    assert main([*words, sql, "--parameter", "who"]) == 2
    assert "--parameter: expected NAME=VALUE" in capsys.readouterr().err
    assert main([*words, sql, *given, "--engine", "athena"]) == 2
    assert "--parameter: expected --engine duckdb" in capsys.readouterr().err


def test_errors_are_in_the_words_of_whoever_called(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[tuple[Any, list[str], str, str]] = [
        (lambda: lake.query("select 1", at="then"), ["query", "select 1", "--at", "then"], "at", "--at"),
        (lambda: lake.query("select 1", role="chief"), [], "role", ""),  # type: ignore[arg-type] # on purpose
        (lambda: lake.explain_rows("t", "true"), ["explain", "--table", "t", "--where", "true"], "table", "--table"),
        (lambda: lake.tag("-"), ["tag", "a b"], "name", "NAME"),
        (lambda: lake.verify_receipt("x"), ["erase", "--verify", "x"], "named", "--verify"),
        (lambda: lake.quarantine().raw("x"), ["quarantine", "--show", "x"], "handle", "--show"),
        (lambda: lake.erase("a@x.example", engine="flink"), [], "engine", ""),  # type: ignore[arg-type]
    ]
    for call, words, argument, option in calls:
        with pytest.raises(UsageError, match=rf"^{argument}: expected ") as refused:
            call()
        assert "--" not in str(refused.value).split(";")[0]
        if words:
            assert main(["--lake", str(lake.root), *words]) == 2
            assert f"stedi: {option}: expected " in capsys.readouterr().err


def test_instants_are_datetimes_in_utc(lake: Lake) -> None:
    assert {snapshot.at.utcoffset() for snapshot in lake.history("customers_trusted")} == {timedelta(0)}
    newest = lake.history("customers_trusted")[0]
    assert newest.at == next(table for table in lake.tables() if table.name == "customers_trusted").updated
    assert lake.query("select count(*) from customers_trusted", at=newest.at).fetchall() == [(3,)]


def test_a_result_of_rows_that_fail_says_so_wherever_it_is_read(lake: Lake) -> None:
    sql = "select cast(email as integer) from customers_landing"
    for read in (Result.arrow, Result.fetchall, Result._repr_html_, list):
        with pytest.raises(stedi.StediError, match="could not be converted"):
            read(lake.query(sql))
    with pytest.raises(QueryRefused):
        lake.query("drop table customers_landing")
