"""Who sees what: which tables and columns a query shows to each role, and that nothing masked can be found out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest

import quick
from lakes import Slate, build, customer, deliver, motion, step
from stedi import cli
from stedi import config as settings
from stedi.config import Role
from stedi.contracts import Class
from stedi.errors import ConfigError, QueryRefused, UsageError
from stedi.lake import Lake
from stedi.privacy.classes import TRAINING
from stedi.privacy.roles import GRANTS
from stedi.tables import COLUMNS

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
            named = {
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
    return lake.query(f"select * from {table}", role=role).arrow().to_pylist()


def test_every_role_has_its_grant_and_the_officer_sees_all() -> None:
    assert set(GRANTS) == set(get_args(Role))
    assert GRANTS["officer"].tables == frozenset(COLUMNS)
    assert not GRANTS["officer"].masked
    assert GRANTS["engineer"].masked == {Class.DIRECT}
    assert GRANTS["scientist"].tables == TRAINING


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
        with pytest.raises(
            QueryRefused, match=rf"^The role scientist sees machine_learning_curated .* found {table}\."
        ):
            lake.query(sql, role="scientist")


def test_another_role_is_none(lake: Lake) -> None:
    with pytest.raises(UsageError, match="expected one of scientist, engineer, officer, found 'king'"):
        lake.query("select 1", role="king")  # type: ignore[arg-type] # a script's own mistake


def test_a_name_that_the_statement_defines_itself_is_no_table(lake: Lake) -> None:
    sql = "with customers_trusted as (select 7 as n) select n from customers_trusted"
    assert lake.query(sql, role="scientist").arrow().to_pylist() == [{"n": 7}]


def test_the_settings_say_whose_eyes_a_query_has_and_the_call_may_say_otherwise(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    file = lake.root / "lake.toml"
    before = settings.read(file)
    settings.write(settings.changed(before, query_role="engineer"), file)
    try:
        sql = "select email from customers_trusted"
        said = []
        for words in ([], ["--role", "officer"]):
            assert cli.main(["--lake", str(lake.root), "query", "--format", "json", *words, sql]) == 0
            said.append(json.loads(capsys.readouterr().out))
        assert said == [[{"email": None}], [{"email": "ana@x.example"}]]
    finally:
        settings.write(before, file)
    with pytest.raises(ConfigError, match=r"query\.role: expected scientist or engineer or officer"):
        settings.changed(before, query_role="king")
