"""Instants that are none: seconds where milliseconds belong, dates as text, records from the future. Land says so."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import Slate, build, conserved, records, rows
from stedi import cli
from stedi.cli import render
from stedi.lake import Lake
from stedi.landing import unread
from stedi.landing.crawl import crawl
from stedi.landing.reader import Unit, likely
from stedi.schema.contracts import INSTANT_BEGIN, INSTANT_END

ANA = "ana@x.example"
T = 1_655_564_400_000
GIVEN: dict[Unit, object] = {
    Unit.SECONDS: T // 1000,
    Unit.MICROSECONDS: T * 1000,
    Unit.NANOSECONDS: T * 1_000_000,
    Unit.FRACTIONAL_SECONDS: T / 1000 + 0.25,
    Unit.FRACTIONAL: T + 0.5,
    Unit.ISO: "2022-06-18T15:00:00Z",
    Unit.QUOTED: str(T),
}
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


@pytest.fixture
def land(lake: Lake, inbox: Path, capsys: pytest.CaptureFixture[str]) -> Said:
    def run(*options: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.main(["--lake", str(lake.root), *options, "land", str(inbox)])
        return code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    ("instant", "taken"),
    [
        (INSTANT_BEGIN - 1, False),
        (INSTANT_BEGIN, True),
        (949_999_999_999, True),
        (950_000_000_000, True),
        (999_999_999_999, True),
        (10**12, True),
        (10**14 - 1, True),
        (10**14, True),
        (INSTANT_END - 1, True),
        (INSTANT_END, False),
        (1, False),
        (0, False),
        (-T, False),
    ],
)
@pytest.mark.parametrize("end", ["\n", " "], ids=["vectorised", "careful"])
def test_an_instant_begins_with_2000_and_ends_with_9999_on_both_paths(
    lake: Lake, inbox: Path, instant: int, taken: bool, end: str
) -> None:
    good = json.dumps(step("s", T)) + end
    text = good + json.dumps({**step("s", T), "sensorReadingTime": instant}) + end + good
    (inbox / "step_trainer.json").write_text(text)
    landed = lake.land(inbox)
    assert (landed.accepted, landed.quarantined) == (2 + taken, 1 - taken)
    assert [record.reason for record in lake.quarantine().records()] == ["out_of_range"] * (1 - taken)


@pytest.mark.parametrize("unit", GIVEN)
def test_how_an_instant_was_given_is_told_by_its_look(unit: Unit) -> None:
    assert likely(GIVEN[unit]) is unit


@pytest.mark.parametrize("value", [0, -1, 5, T, 10**6, 2**63, 10**400, True, None, "yes", "", [T], float("inf"), 1.5])
def test_of_what_looks_like_no_instant_nothing_is_guessed(value: object) -> None:
    assert likely(value) is None


def test_many_files_with_one_fault_give_one_line(land: Said, inbox: Path) -> None:
    for number in range(4):
        wrong = {**motion(ANA, T), "timestamp": GIVEN[Unit.SECONDS], "z": number}
        deliver(inbox, "accelerometer", [wrong], f"{number}.json")
    code, out, err = land("--json")
    assert code == 0
    assert len(json.loads(out)["odd_instants"]) == 4
    assert err.count("probably") == 1
    assert "0.json and 3 other files: timestamp: expected epoch milliseconds; 4 records probably have it in sec" in err


@pytest.mark.parametrize("unit", GIVEN)
def test_land_says_which_file_how_many_records_and_the_likely_unit(land: Said, inbox: Path, unit: Unit) -> None:
    odd = [{**motion(ANA, T), "timestamp": GIVEN[unit]} for _ in range(3)]
    deliver(inbox, "accelerometer", [motion(ANA, T), *odd])
    shared = {**customer(ANA, consent=GIVEN[unit], update=T), "shareWithPublicAsOfDate": GIVEN[unit]}
    deliver(inbox, "customer", [shared])
    code, out, err = land("--json")
    assert code == 0
    assert json.loads(out)["odd_instants"] == [
        {
            "name": f"inbox/{feed}/delivered.json",
            "field": field,
            "given": unit.name.lower(),
            "records": count,
            "quarantined": feed == "accelerometer",
        }
        for feed, field, count in (
            ("accelerometer", "timestamp", 3),
            ("customer", "shareWithPublicAsOfDate", 1),
            ("customer", "shareWithResearchAsOfDate", 1),
        )
    ]
    assert (
        f"inbox/accelerometer/delivered.json: timestamp: expected epoch milliseconds; 3 records probably have it {unit}"
        in err
    )
    assert str(GIVEN[unit]) not in out + err
    differs = render.crawl(crawl([inbox])).partition("differs")[2]
    assert f"they look as if given {unit} (3)" in differs


def test_the_first_accepted_record_counts_once(land: Said, inbox: Path) -> None:
    deliver(inbox, "customer", [customer(ANA, consent=T // 1000, update=T)])
    [odd] = json.loads(land("--json")[1])["odd_instants"]
    assert odd["records"] == 1


def test_an_optional_instant_from_before_2000_is_absent_and_its_value_kept(lake: Lake, inbox: Path) -> None:
    deliver(inbox, "customer", [customer(ANA, consent=T // 1000, update=T)])
    lake.land(inbox)
    [row] = records(lake, "customers_landing")
    assert row[7] is None
    assert json.loads(row[-1]) == {"shareWithResearchAsOfDate": T // 1000}
    build(lake, T + 1)
    assert not rows(lake, "customers_trusted")


LOST: dict[str, bytes] = {
    **{unit.name: json.dumps({**customer(ANA, ..., T), "lastUpdateDate": GIVEN[unit]}).encode() for unit in GIVEN},
    "another spelling": json.dumps({**customer(" ANA@X.example ", ..., T), "lastUpdateDate": 1}).encode(),
    "no update": json.dumps({"email": ANA}).encode(),
    "cut": json.dumps(customer(ANA, ..., T)).encode()[:60],
    "not JSON": f"withdraw {ANA}, please".encode(),
    "escaped": b'{"email": "\\u0061na@x.example"}',
    "not UTF-8": b'{"email": "ana@x.example", "customerName": "\xff"}',
    "its field under another name": b'{"mail": "ana@x.example", "serialNumber": "s1"}',
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.sample(full=10)
def test_a_quarantined_record_of_who_agrees_may_be_a_withdrawal_and_land_says_so(
    land: Said, lake: Lake, inbox: Path, lost: str, together: bool
) -> None:
    deliver(inbox, "customer", [customer(ANA, T, T), customer("bo@x.example", ..., T)])
    if not together:
        land()
    (inbox / "customer" / "more.json").write_bytes(LOST[lost] + b"\n")
    code, out, err = land("--json")
    [found] = json.loads(out)["perhaps_withdrawals"]
    assert (code, found["name"], found["records"]) == (0, "inbox/customer/more.json", 1)
    assert [found["first"]] == [record.handle for record in lake.quarantine().records()]
    assert "may be a withdrawal" in err
    assert f"stedi quarantine --show {found['first']}" in err
    assert "ana" not in (out + err).lower()
    conserved(lake)
    assert json.loads(land("--json")[1])["perhaps_withdrawals"] == [], "said once"


@pytest.mark.parametrize(
    "refused",
    [
        {**customer("bo@x.example", ..., T), "lastUpdateDate": 1},
        {**customer("ana@x.example.org", ..., T), "lastUpdateDate": 1},
        {**customer("mariana@x.example", ..., T), "lastUpdateDate": 1},
        {**customer("nobody@x.example", ..., T), "lastUpdateDate": 1},
        {"user": ANA, "timestamp": 1, "x": 1, "y": 1, "z": 1},
    ],
)
def test_of_others_and_of_readings_nothing_is_said(land: Said, inbox: Path, refused: dict[str, object]) -> None:
    feed = "accelerometer" if "user" in refused else "customer"
    good: list[Any] = [motion(ANA, T)] if "user" in refused else []
    deliver(inbox, "customer", [customer(ANA, T, T), customer("bo@x.example", ..., T)])
    deliver(inbox, feed, [*good, refused], "more.json")
    _, out, err = land("--json")
    assert json.loads(out)["quarantined"] == 1
    assert json.loads(out)["perhaps_withdrawals"] == []
    assert "withdrawal" not in err


def test_a_record_from_the_future_is_drift(land: Said, inbox: Path) -> None:
    later = 4_102_444_800_000
    deliver(inbox, "customer", [customer(ANA, T, T), customer(ANA, T, later), customer("bo@x.example", ..., later)])
    _, out, err = land("--json")
    assert json.loads(out)["drift"]["customer"] == {"lastUpdateDate: in_the_future": 2}
    assert "drift: customer: lastUpdateDate: in_the_future: 2 records" in err


def test_a_record_that_cannot_be_read_is_searched_for_customers_in_linear_time() -> None:
    """Long runs without a sign, and of signs alone, are what patterns try again from every place."""
    for piece in (b"x", b"@", b"a@", b'"email":"', b'"email"  ', b"\\u0061", b"[{"):
        spent = []
        for size in (1 << 15, 1 << 17):
            before = time.process_time()
            assert all(len(found) <= 1 << 18 for found in unread._customers(piece * (size // len(piece))))
            spent.append(time.process_time() - before)
        assert spent[1] < 8 * spent[0] + 0.2, piece
