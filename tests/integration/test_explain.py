"""Explanations: what is where of one customer and why, and why a row is there, held to the oracle and to damage."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

import oracle
import quick
import worlds
from deliveries import customer, deliver, instant, motion, step
from lakes import KEY, Slate, build, tree
from stedi import cli
from stedi.audit import explain
from stedi.audit.explain import Explanation, Reason
from stedi.audit.explain.customer import _quarantined
from stedi.cli import render
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.errors import QueryFailed, QueryRefused, StediError, UsageError
from stedi.lake import Lake
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.schema.tables import ZONES

NOW = 1_000
WITHDRAWN = 100_000
ANA, BO, CY, DEE, EVE = (f"{name}@x.example" for name in ("ana", "bo", "cy", "dee", "eve"))
KEY_OF_TESTS = Key(bytes.fromhex(KEY))
BELOW = [table for table, zone in ZONES.items() if zone != "landing"]


def at(moment: int) -> datetime:
    return datetime.fromtimestamp(instant(moment) / 1000, UTC)


def asked(lake: Lake, address: str, now: int = NOW) -> Explanation:
    return lake.explain(address, now=at(now))


def reasons(found: Explanation, table: str) -> dict[str, int]:
    counts = Counter[str]()
    for left in found.left_out:
        if left.table == table:
            counts[f"{left.reason}{f' by {left.shared_by}' if left.shared_by else ''}"] += left.rows
    return dict(counts)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with quick.folder() as made:
        yield made


@pytest.fixture(scope="module")
def lake(folder: Path) -> Lake:
    """Five customers: ana agrees, bo withdrew, cy and dee share a device, eve agrees and never moved."""
    with quick.quickened():
        slate = Slate(folder)
        made, inbox = slate.wiped(), slate.inbox()
        people = [
            customer(ANA, serialNumber="s1", customerName="Ana Bo", update=90, consent=...),
            customer("ANA@x.example ", serialNumber="s1", customerName="Ana Bo"),
            customer(BO, serialNumber="s2"),
            customer(CY, serialNumber="shared"),
            customer(DEE, serialNumber="shared"),
            customer(EVE, serialNumber="s5"),
            {"email": ANA, "serialNumber": 7},
        ]
        deliver(inbox, "customer", people, "people.json")
        deliver(inbox, "customer", [customer(BO, consent=..., update=200, serialNumber="s2")], "later.json")
        deliver(inbox, "accelerometer", [motion(ANA, 45), motion(ANA, 100), motion(ANA, 100), motion(BO, 100)])
        deliver(
            inbox, "accelerometer", [motion(CY, 110), motion(DEE, 120), motion(CY, 130), motion(DEE, 130)], "two.json"
        )
        steps = [step("s1", 100), step("s1", 100), step("s1", 101), step("s2", 100), step("s5", 100)]
        deliver(inbox, "step_trainer", [*steps, *(step("shared", moment) for moment in (110, 120, 130, 140))])
        made.land(inbox)
        made.withdraw([BO], now=at(WITHDRAWN))
        build(made, NOW)
        return made


def test_of_who_agrees_it_says_since_when_what_is_where_and_what_is_left_out(lake: Lake) -> None:
    found = asked(lake, "Ana@X.example")
    assert (found.consent, found.since) == ("agrees", at(50))
    assert found.rows == {
        "customers_landing": 2,
        "accelerometer_landing": 3,
        "step_trainer_landing": 3,
        "quarantine": 1,
        "landed_files": 3,
        "customers_trusted": 1,
        "accelerometer_trusted": 2,
        "customers_curated": 1,
        "step_trainer_trusted": 2,
        "machine_learning_curated": 1,
    }
    assert reasons(found, "customers_trusted") == {"superseded by a later record": 1}
    assert reasons(found, "accelerometer_trusted") == {"delivered again": 1}
    assert reasons(found, "step_trainer_trusted") == {"delivered again": 1}
    assert reasons(found, "machine_learning_curated") == {"no accelerometer reading at that moment": 1}
    assert reasons(found, "quarantine") == {"in quarantine": 1}
    assert (found.build_due, found.differs, found.erased) == (False, (), None)


def test_the_history_is_in_the_order_of_rule_2_with_files_and_withdrawals_by_command(lake: Lake) -> None:
    found = asked(lake, BO)
    assert (found.consent, found.since) == ("does not agree", at(WITHDRAWN))
    names = [(row.updated, row.consent, Path(row.file).name) for row in found.history]
    assert names == [
        (at(WITHDRAWN), None, "withdrawal"),
        (at(200), None, "later.json"),
        (at(100), at(50), "people.json"),
    ]
    assert all(row.landed_at is not None and row.landed_at > at(NOW) for row in found.history)
    assert reasons(found, "accelerometer_trusted") == reasons(found, "step_trainer_trusted") == {"no consent": 1}
    assert not any(found.rows[table] for table in BELOW)


def test_what_is_withheld_and_what_is_anothers_is_told_with_how_many_share_it(lake: Lake) -> None:
    found = asked(lake, CY)
    assert reasons(found, "step_trainer_trusted") == {"withheld by 2": 2, "another's by 2": 1}
    assert found.rows["step_trainer_landing"] == 4
    assert found.rows["step_trainer_trusted"] == 1


def test_an_erased_claimant_shares_a_device_still_and_an_erased_customer_is_told(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tombstones, "claimants", lambda known, key, serial: int(serial == "s1"))
    monkeypatch.setattr(explain.customer, "erased_at", lambda root, key, address: at(7))
    found = asked(lake, ANA)
    assert reasons(found, "step_trainer_trusted") == {"withheld by 2": 1, "delivered again": 1}
    assert found.erased == at(7)
    assert reasons(found, "customers_landing") == {"erased": 0}


def test_who_never_moved_is_not_curated_and_that_is_why(lake: Lake) -> None:
    found = asked(lake, EVE)
    assert reasons(found, "customers_curated") == {"no accelerometer reading that counts": 1}
    assert reasons(found, "step_trainer_trusted") == {"owner not curated": 1}


def test_an_unknown_address_gets_an_answer_of_the_same_shape(lake: Lake) -> None:
    known, unknown = asked(lake, ANA), asked(lake, "nobody@x.example")
    assert (unknown.consent, unknown.since, unknown.history, unknown.left_out) == ("unknown", None, (), ())
    assert set(unknown.rows) == set(known.rows)
    assert not any(unknown.rows.values())
    assert render.explanation_json(unknown).keys() == render.explanation_json(known).keys()


def test_a_consent_to_come_is_told_apart_from_none(lake: Lake) -> None:
    assert asked(lake, ANA, now=49).consent == "agrees later"
    assert asked(lake, ANA, now=49).since == at(100), "and her record is of then"
    assert asked(lake, ANA, now=49).expected == dict.fromkeys(BELOW, 0)


@pytest.mark.parametrize(
    ("raw", "there"),
    [
        (b'{"email":"ana@x.example"', True),
        (b'{"user": "  ANA@X.example "}', True),
        (b'{"email":"\\u0061na@x.example"}', True),
        (b"ana@x.example", True),
        (b'{"email":"ana@x.example.org"}', False),
        (b'{"email":"mariana@x.example"}', False),
        (b'{"email":"bo@x.example"}', False),
        (b"\xff\xfeana@x.example\xff", True),
    ],
)
def test_quarantined_records_that_hold_the_address_are_found_and_no_others(
    raw: bytes, there: bool, tmp_path: Path
) -> None:
    with DuckDB(memory="200MB", threads=1, temporary=tmp_path) as engine:
        blob = "".join(f"\\x{byte:02x}" for byte in raw)
        engine.view(
            "quarantine",
            f"select 'file' as file, 'sha' as sha256, 0 as \"offset\", 'customer' as feed, 'malformed' as reason, "
            f"'{blob}'::blob as raw",
        )
        assert bool(list(_quarantined(engine, "ana@x.example"))) == there


def test_letters_outside_ascii_are_found_composed_decomposed_and_escaped(tmp_path: Path) -> None:
    with DuckDB(memory="200MB", threads=1, temporary=tmp_path) as engine:
        texts = ["zoë@x.example", "ZOE\u0308@x.example", "zo\\u00eb@x.example", "zoe@x.example"]
        rows = " union all ".join(
            f"select 'f' as file, 's' as sha256, {n} as \"offset\", 'customer' as feed, 'malformed' as reason, "
            f"encode('{text}') as raw"
            for n, text in enumerate(texts)
        )
        engine.view("quarantine", rows)
        assert [found.record for found in _quarantined(engine, "zoë@x.example")] == ["s:0", "s:1", "s:2"]


@settings(max_examples=12, suppress_health_check=list(HealthCheck), derandomize=True, phases=[Phase.generate])
@given(worlds.worlds(), st.sampled_from(["all", "since-consent"]), st.randoms(use_true_random=False))
def check_worlds(slate: Slate, world: dict[str, list[dict[str, object]]], readings: Any, random: Random) -> None:
    lake = slate.wiped(readings)
    lake.land(*worlds.write_world(world, slate.inbox(), random))
    right = oracle.tables(world, worlds.NOW, readings, KEY_OF_TESTS.customer_id)
    before = {person[0]: asked(lake, person[0], worlds.NOW) for person in worlds.PEOPLE}
    build(lake, worlds.NOW)
    for person in worlds.PEOPLE:
        found, who = asked(lake, person[-1], worlds.NOW), KEY_OF_TESTS.customer_id(person[0])
        wanted = {table: sum(row[0] == who for row in getattr(right, table)) for table in BELOW}
        assert found.expected == before[person[0]].expected == wanted
        assert {table: found.rows[table] for table in BELOW} == wanted
        assert (found.differs, found.build_due) == ((), False)
        assert set(before[person[0]].differs) == {table for table, rows in wanted.items() if rows}
        for landed, table in (
            ("customers_landing", "customers_trusted"),
            ("accelerometer_landing", "accelerometer_trusted"),
            ("step_trainer_landing", "step_trainer_trusted"),
        ):
            assert found.rows[landed] == wanted[table] + sum(reasons(found, table).values()), table
        claimed = {r["serialNumber"] for r in world["customer"] if KEY_OF_TESTS.customer_id(str(r["email"])) == who}
        withheld = {row for row in right.withheld if row[1] in claimed}
        landed_so = [
            (r["sensorReadingTime"], r["serialNumber"], r["distanceFromObject"]) for r in world["step_trainer"]
        ]
        found_withheld = sum(left.rows for left in found.left_out if left.reason is Reason.WITHHELD)
        assert found_withheld == sum(row in withheld for row in landed_so)


@pytest.mark.thorough
def test_of_every_landed_row_it_says_where_it_is_or_why_not_as_the_oracle_does() -> None:
    with quick.folder() as folder, quick.quickened():
        slate = Slate(folder)
        check_worlds(slate)


def test_it_says_that_a_build_is_due_and_of_whom(folder: Path) -> None:
    with quick.quickened():
        slate = Slate(folder / "due")
        lake, inbox = slate.wiped(), slate.inbox()
        deliver(inbox, "customer", [customer(ANA), customer(BO, serialNumber="s2")])
        lake.land(inbox)
        build(lake, NOW)
        deliver(inbox, "customer", [customer(ANA, update=300, phone="+1555")], "later.json")
        lake.land(inbox)
        assert (asked(lake, ANA).build_due, asked(lake, ANA).differs) == (True, ("customers_trusted",))
        assert (asked(lake, BO).build_due, asked(lake, BO).differs) == (True, ())
        build(lake, NOW)
        assert asked(lake, ANA).differs == ()


def rows(lake: Lake, table: str, where: str = "true") -> tuple[explain.ExplainedRow, ...]:
    found = lake.explain_rows(table, where)
    assert not found.more
    return found.rows


@pytest.mark.parametrize("table", BELOW)
def test_every_row_below_landing_is_traced_to_whose_it_is_and_to_its_files(lake: Lake, table: str) -> None:
    found = rows(lake, table)
    assert found
    for row in found:
        assert row.customers == (row.row["customer_id"],)
        assert row.sources
        assert "consents since" in row.why
        assert all(source.file.endswith(".json") and source.records > 0 for source in row.sources)


def test_a_row_says_from_which_records_and_by_which_rule(lake: Lake) -> None:
    [row] = rows(lake, "machine_learning_curated", "sensorReadingTime = make_timestamptz(1000000000100000)")
    assert [(source.table, source.records) for source in row.sources] == [
        ("step_trainer_landing", 2),
        ("accelerometer_landing", 2),
    ]
    assert "nobody else claims" in row.why
    [row] = rows(lake, "step_trainer_trusted", "epoch_ms(sensorReadingTime) = 1000000000110")
    assert row.customers == (KEY_OF_TESTS.customer_id(CY),)
    assert "of 2 claimants of its serial number only this customer moved at that moment (rule 6)" in row.why


def test_rows_of_the_landing_zone_are_traced_to_their_file(lake: Lake) -> None:
    [row] = rows(lake, "accelerometer_landing", f"\"user\" = '{CY}' and timestamp = {instant(110)}")
    assert row.customers == (KEY_OF_TESTS.customer_id(CY),)
    assert [Path(source.file).name for source in row.sources] == ["two.json"]
    [row] = rows(lake, "step_trainer_landing", f"sensorReadingTime = {instant(140)}")
    assert row.customers == tuple(sorted(KEY_OF_TESTS.customer_id(name) for name in (CY, DEE)))
    [row] = rows(lake, "quarantine")
    assert row.why.endswith("missing_required") or row.why.endswith("wrong_type")
    assert rows(lake, "landed_files")


def test_a_condition_may_read_other_tables_and_rows_show_no_direct_identifier(lake: Lake) -> None:
    found = rows(
        lake,
        "customers_trusted",
        f"customer_id in (select customer_id from customers_curated) and email ilike '{ANA}%'",
    )
    assert [row.customers for row in found] == [(KEY_OF_TESTS.customer_id(ANA),)]
    for table in ("customers_landing", "accelerometer_landing", "quarantine", "customers_curated"):
        shown = json.dumps(render.plain(lake.explain_rows(table, "true")))
        assert "x.example" not in shown
        assert "Ana Bo" not in shown


def test_a_row_that_nothing_landed_accounts_for_is_said_to_be_one(lake: Lake, tmp_path: Path) -> None:
    rows_made: list[dict[str, Any]] = [
        {"customer_id": KEY_OF_TESTS.customer_id(BO), "timestamp": at(100), "x": 1.0, "y": 0.0, "z": -1.0},
        {"customer_id": KEY_OF_TESTS.customer_id(ANA), "timestamp": at(999), "x": 1.0, "y": 0.0, "z": -1.0},
        {"customer_id": "0" * 32, "timestamp": at(100), "x": 1.0, "y": 0.0, "z": -1.0},
        {"customer_id": KEY_OF_TESTS.customer_id(ANA), "timestamp": at(45), "x": 1.0, "y": 0.0, "z": -1.0},
        {"customer_id": KEY_OF_TESTS.customer_id(ANA), "timestamp": at(100), "x": float("inf"), "y": 0.0, "z": -1.0},
        {"customer_id": KEY_OF_TESTS.customer_id(ANA), "timestamp": None, "x": 1.0, "y": 0.0, "z": -1.0},
        {"customer_id": None, "timestamp": at(100), "x": 1.0, "y": 0.0, "z": -1.0},
    ]
    context = Context(lake.root, replace(lake.config, readings="since-consent"))
    found = explain.explain_rows(context, KEY_OF_TESTS, "accelerometer_trusted", rows_made, instant(NOW))
    assert [row.sources for row in found] == [()] * len(rows_made)
    assert found[-1].customers == ()
    assert all("no landed record explains it" in row.why for row in found)


def test_no_more_than_twenty_rows_are_looked_at(folder: Path) -> None:
    with quick.quickened():
        slate = Slate(folder / "many")
        lake, inbox = slate.wiped(), slate.inbox()
        deliver(inbox, "step_trainer", [step("s1", moment) for moment in range(1, 23)])
        lake.land(inbox)
    found = lake.explain_rows("step_trainer_landing", "true")
    assert (len(found.rows), found.more) == (20, True)
    found = lake.explain_rows("step_trainer_landing", f"sensorReadingTime <= {instant(20)}")
    assert (len(found.rows), found.more) == (20, False)


@pytest.mark.parametrize(
    ("table", "where", "error"),
    [
        ("nowhere", "true", UsageError),
        ("customers_trusted; drop table x", "true", UsageError),
        ("customers_trusted", "true) union all select * from customers_curated where (true", QueryRefused),
        ("customers_trusted", "true) group by (email", QueryRefused),
        ("customers_trusted", "true; select 1", QueryRefused),
        ("customers_trusted", "", QueryRefused),
        ("customers_trusted", "email = (select content from read_text('/etc/passwd'))", QueryRefused),
        ("customers_trusted", "email in (select x from elsewhere)", QueryRefused),
        ("customers_trusted", "getenv('HOME') = email", QueryRefused),
        ("customers_trusted", "nothing = 'ana@x.example'", QueryFailed),
        ("customers_trusted", "email::int = 3", QueryFailed),
    ],
)
def test_a_condition_is_judged_like_a_query_and_repeats_nobody(
    lake: Lake, table: str, where: str, error: type[StediError]
) -> None:
    with pytest.raises(error) as found:
        lake.explain_rows(table, where)
    assert "ana@" not in str(found.value).lower()


def run(lake: Lake, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = cli.main(["--lake", str(lake.root), "explain", *words])
    found = capsys.readouterr()
    return code, found.out, found.err


def test_the_command_prints_text_and_json(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = run(lake, capsys, CY)
    assert code == 0
    for words in ("given since 2001", "withheld: its serial number is shared by 2", "people.json"):
        assert words in out
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ANA.upper()}\n\n"))
    code, out, _ = run(lake, capsys, "-", "--json")
    assert (code, json.loads(out)["consent"]) == (0, "agrees")
    code, out, _ = run(lake, capsys, "nobody@x.example")
    assert code == 0
    assert "does not know this address" in out
    code, out, _ = run(lake, capsys, "--table", "machine_learning_curated", "--where", "true", "--json")
    assert (code, json.loads(out)["more"]) == (0, False)
    assert "why " in run(lake, capsys, "--table", "customers_curated", "--where", "true")[1]


@pytest.mark.parametrize(
    "words",
    [
        (),
        (ANA, "--table", "quarantine"),
        ("--table", "quarantine"),
        ("--where", "true"),
        (ANA, "--where", "true"),
        (" ",),
    ],
)
def test_the_command_wants_an_address_or_a_table_with_a_condition(
    lake: Lake, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    code, out, err = run(lake, capsys, *words)
    assert (code, out) == (2, "")
    assert "ana@" not in err


def test_explaining_changes_nothing(lake: Lake) -> None:
    before = tree(lake.root)
    asked(lake, ANA)
    assert tree(lake.root) == before


def test_no_value_of_a_row_steers_the_terminal_or_begins_a_line() -> None:
    odd = "\x1b[31m\x9b2J\u202e\u200b\n  why    forged"
    row = explain.ExplainedRow({"serialNumber": odd}, ("c",), "it is so", (explain.Source("t", odd, 1),))
    found = explain.ExplainedRows("t", (row,), more=False)
    text = render.explained_rows(found)
    assert text.count("\n") == 4
    assert not set(text) & set("\x1b\x9b\u202e\u200b")
    assert json.loads(json.dumps(render.plain(found)))["rows"][0]["row"]["serialNumber"] == odd
