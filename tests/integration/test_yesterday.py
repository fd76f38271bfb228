"""Yesterday with today's consent: who has withdrawn is in no look back, and soon in no old snapshot."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deliveries import DAWN, customer, deliver, motion, step
from lakes import BELOW_LANDING, Slate
from stedi import Lake, cli
from stedi.errors import KeyRefused, UsageError

ANN, BEN, CAT = "ann@x.example", "ben@x.example", "cat@x.example"
DAY = 86_400.0
COUNT = "select count(*) as n from {}"
KEPT = {"keep_days": 365.0, "keep_snapshots": 100, "grace_hours": 0.0}
"""Settings under which nothing but a withdrawal makes a snapshot go."""


def three(lake: Lake, inbox: Path) -> None:
    """Three people who agree; the third has a device and no motion."""
    people = {ANN: "s1", BEN: "s2", CAT: "s3"}
    deliver(inbox, "customer", [customer(p, serialNumber=s) for p, s in people.items()])
    deliver(inbox, "accelerometer", [motion(p, at) for p in (ANN, BEN) for at in (100, 200)])
    deliver(inbox, "step_trainer", [step("s1", 100), step("s2", 100), step("s2", 200)])
    lake.land(inbox)
    lake.build()
    lake.tag("then")


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(three)


def counts(lake: Lake, at: Any = "then", **more: Any) -> list[int]:
    """Rows of every table below landing, as they were."""
    sql = " union all ".join(f"select {n} as k, count(*) as n from {table}" for n, table in enumerate(BELOW_LANDING))
    return [n for _, n in sorted(lake.query(sql, at=at, **more).fetchall())]


def kept(lake: Lake, **more: Any) -> Lake:
    other = Lake.open(lake.root)
    other.context.config = replace(lake.config, **{**KEPT, **more})
    return other


def test_a_withdrawal_counts_in_every_look_back_before_any_build(lake: Lake) -> None:
    before = counts(lake)
    assert before == [3, 4, 2, 3, 3]
    lake.withdraw(BEN)
    newest = lake.history("machine_learning_curated")[0]
    for at in ("then", lake.history("accelerometer_trusted")[0].id, newest.at, newest.at.isoformat()):
        assert counts(lake, at) == [2, 2, 1, 1, 1]
        assert counts(lake, at, as_published=True) == before
    assert lake.query(COUNT.format("customers_landing"), at=lake.history("customers_landing")[1].id).fetchall() == [
        (3,)
    ]
    assert counts(lake, None) == before  # until the next build
    lake.build()
    assert counts(lake, None) == counts(lake) == [2, 2, 1, 1, 1]


def test_who_agrees_again_is_there_again(lake: Lake, slate: Slate) -> None:
    inbox = slate.inbox()
    deliver(inbox, "customer", [customer(BEN, ..., 300, serialNumber="s2")], "no.json")
    lake.land(inbox)
    assert counts(lake) == [2, 2, 1, 1, 1]
    deliver(inbox, "customer", [customer(BEN.upper(), 400, 400, serialNumber="s2")], "yes.json")
    lake.land(inbox)
    assert counts(lake) == [3, 4, 2, 3, 3]


def test_since_consent_who_agrees_again_later_is_left_out_of_what_has_their_readings_from_before(slate: Slate) -> None:
    """All their rows were shown again, with readings that they had withdrawn and have not given back (rule 4)."""
    lake, inbox = slate.made(three, "since-consent"), slate.inbox()
    before = counts(lake)
    assert before == [3, 4, 2, 3, 3]
    deliver(inbox, "customer", [customer(ANN, 60, 300, serialNumber="s1")], "same.json")
    deliver(inbox, "customer", [customer(BEN.upper(), 150, 300, serialNumber="s2")], "later.json")
    lake.land(inbox)
    # before a build and after it; of the customers tables no row is of readings
    assert counts(lake) == [3, 2, 2, 1, 1]
    ben = lake.key().customer_id(BEN)
    with lake.query(f"select count(*) from accelerometer_trusted where customer_id = '{ben}'", at="then") as result:
        assert (result.fetchall(), result.left_out.rows, result.left_out.people) == ([(0,)], 2, 1)
    lake.build()
    assert counts(lake) == [3, 2, 2, 1, 1]
    assert counts(lake, None) == counts(lake, lake.history("machine_learning_curated")[0].id) == [3, 3, 2, 2, 2]
    assert counts(lake, as_published=True) == before


@pytest.mark.parametrize("role", ["scientist", "engineer", "officer"])
def test_no_role_sees_them_but_an_officer_who_asks_for_it(lake: Lake, role: Any) -> None:
    lake.withdraw(BEN)
    ben = lake.key().customer_id(BEN)
    table = "machine_learning_curated"
    for sql in (
        f"select customer_id from {table}",
        f"select max(customer_id) from {table} where customer_id = '{ben}' having count(*) > 0",
        f"select t.customer_id from {table} as t, {table} as u where t.customer_id = u.customer_id",
        f"from {table}",
    ):
        with lake.query(sql, at="then", role=role) as result:
            assert not [row for row in result.fetchall() if ben in row]
            assert (result.left_out.rows, result.left_out.people) == (2, 1)
    sql = f"select customer_id from {table}"
    if role == "officer":
        assert (ben,) in lake.query(sql, at="then", role=role, as_published=True).fetchall()
        assert lake.log()[-1].verb == "query as published"
    else:
        with pytest.raises(UsageError, match="as_published: expected the role officer"):
            lake.query(sql, at="then", role=role, as_published=True)


def test_what_was_left_out_is_said_on_stderr_and_nothing_if_nothing_was(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--lake", str(lake.root), "query", "--role", "officer", "--format", "csv", "--at", "then"]
    sql = "select customerName, email from customers_curated where email is not null order by email"
    assert cli.main([*words, sql]) == 0
    told = capsys.readouterr()
    assert (told.out.splitlines()[1:], told.err) == ([f",{ANN}", f",{BEN}"], "")
    lake.withdraw(BEN)
    assert cli.main([*words, sql]) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1:] == [f",{ANN}"]
    assert told.err == "left out: 1 row of 1 person who does not agree to this use now\n"
    assert cli.main([*words, "--as-published", sql]) == 0
    told = capsys.readouterr()
    assert (len(told.out.splitlines()), told.err) == (3, "")
    assert cli.main([*words[:-2], "--as-published", sql]) == 2


def test_without_the_key_nobody_can_tell_whose_a_row_is_and_nothing_is_shown(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    lake.context.say = lambda line: None
    with pytest.raises(KeyRefused):
        lake.query(COUNT.format("customers_trusted"), at="then", role="engineer")
    landing = lake.history("customers_landing")[0].id
    assert lake.query(COUNT.format("customers_landing"), at=landing, role="engineer").fetchall() == [(3,)]


def test_another_engine_which_leaves_nobody_out_is_not_asked(lake: Lake) -> None:
    sql = COUNT.format("machine_learning_curated")
    with pytest.raises(UsageError, match="machine_learning_curated: Athena would show"):
        lake.snapshots(sql, "then", role="scientist")
    with pytest.raises(UsageError, match="expected the role officer"):
        lake.snapshots(sql, "then", role="scientist", as_published=True)
    assert lake.snapshots(sql, "then", role="officer", as_published=True)
    at = lake.history("customers_landing")[0].id
    assert lake.snapshots(COUNT.format("customers_landing"), at, role="officer") == {"customers_landing": at}


def test_old_snapshots_of_who_has_withdrawn_go_when_their_days_are_over(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = kept(lake)
    lake.untag("then")
    before = {table: lake.history(table)[0].id for table in BELOW_LANDING}
    lake.withdraw(BEN)
    lake.build()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6.9 * DAY)
    assert not [table for table in lake.maintain().tables if table.expired and table.name in BELOW_LANDING]
    monkeypatch.setattr(time, "time", lambda: now + 7.1 * DAY)
    foreseen = {table.name: table.expired for table in lake.maintain(dry_run=True).tables}
    gone = {table.name: table.expired for table in lake.maintain().tables}
    assert gone == foreseen
    assert {table: gone[table] for table in BELOW_LANDING} == {table: (id_,) for table, id_ in before.items()}
    ben = lake.key().customer_id(BEN).encode()
    assert not [path for path in lake.root.rglob("*.parquet") if ben in path.read_bytes()]
    assert all(not check.violations for check in lake.audit(files=True))


def test_since_consent_old_snapshots_with_readings_from_before_go_when_their_days_are_over(
    slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, inbox = kept(slate.made(three, "since-consent")), slate.inbox()
    lake.untag("then")
    before = {table: lake.history(table)[0].id for table in BELOW_LANDING}
    deliver(inbox, "customer", [customer(BEN, 150, 300, serialNumber="s2")], "later.json")
    lake.land(inbox)
    lake.build()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 6.9 * DAY)
    assert not [table for table in lake.maintain().tables if table.expired and table.name in BELOW_LANDING]
    monkeypatch.setattr(time, "time", lambda: now + 7.1 * DAY)
    gone = {table.name: table.expired for table in lake.maintain().tables if table.expired}
    readings = [table for table in BELOW_LANDING if not table.startswith("customers")]
    assert {table: gone[table] for table in BELOW_LANDING if table in gone} == {
        table: (before[table],) for table in readings
    }


def test_one_who_is_in_some_tables_alone_goes_from_these(
    lake: Lake, slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, eve, inbox = kept(lake, history_days=0.0), "eve@x.example", slate.inbox()
    deliver(inbox, "customer", [customer(eve, serialNumber="s5")], "eve.json")
    deliver(inbox, "accelerometer", [motion(eve, 300)], "eve.json")
    lake.land(inbox)
    lake.build()
    lake.untag("then")
    lake.withdraw(CAT, eve)  # a device without a motion, a motion without a step
    lake.build()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)
    lake.maintain()
    gone = [lake.key().customer_id(person).encode() for person in (CAT, eve)]
    files = [path for path in lake.root.rglob("*.parquet") if any(person in path.read_bytes() for person in gone)]
    assert not files


def test_snapshots_without_them_and_those_that_a_tag_holds_stay(
    lake: Lake, slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = kept(lake, history_days=1.0)
    inbox = slate.inbox()
    deliver(inbox, "customer", [customer("dan@x.example", serialNumber="s4")], "dan.json")
    lake.land(inbox)
    lake.build()
    with_dan = lake.history("customers_trusted")[0].id
    lake.withdraw("dan@x.example")
    lake.build()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * DAY)
    lake.maintain()
    left = [snapshot.id for snapshot in lake.catalog.table("customers_trusted").snapshots]
    assert with_dan not in left
    assert len(left) == 3  # the one that it was made with, the tag's, which never had him, and the current one
    assert counts(lake) == [3, 4, 2, 3, 3]


def test_a_tag_keeps_them_hidden(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = kept(lake, history_days=0.0)
    lake.withdraw(BEN)
    lake.build()
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 2 * DAY)
    lake.maintain()
    assert counts(lake) == [2, 2, 1, 1, 1]
    assert counts(lake, as_published=True) == [3, 4, 2, 3, 3]
    lake.untag("then")
    lake.maintain()
    ben = lake.key().customer_id(BEN).encode()
    assert not [path for path in lake.root.rglob("*.parquet") if ben in path.read_bytes()]


def test_withdraw_says_what_can_still_be_read_and_until_when(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lake", str(lake.root)]
    assert cli.main([*words, "withdraw", "--yes", BEN]) == 0
    said = capsys.readouterr().out
    assert "removes these snapshots 7 days after that build" in said
    assert "except those with the tags then" in said
    assert cli.main([*words, "--json", "withdraw", "--yes", "--build", ANN]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["history_days"], found["tags"]) == (7.0, ["then"])
    assert DAWN
