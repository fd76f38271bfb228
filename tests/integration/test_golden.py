"""Golden cases: folders of a few records and the rows that the rules make of them, worked out by hand.

`tables/<table>/<case>/` holds the records of each feed, `case.toml` (what it claims, the start of the build, the
policy, how many readings are withheld, who withdraws by command and when) and `expected.csv`: the rows of the table in
the columns that it names, instants in epoch milliseconds, `{address}` for a pseudonym. Every case is built twice: the
second build must change nothing.
"""

from __future__ import annotations

import csv
import re
import shutil
import tomllib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import sparks
from deliveries import moment
from effort import NIGHTLY
from lakes import BELOW_LANDING, Slate, build, contents, heads
from stedi.lake import Lake
from stedi.schema.tables import COLUMNS

ROOT = Path(__file__).parent / "tables"
CASES = sorted(path.parent for path in ROOT.glob("*/*/case.toml"))
FEEDS = {"customers.json": "customer", "accelerometer.json": "accelerometer", "step_trainer.json": "step_trainer"}
IDENTIFIERS = {"email", "customername", "phone", "birthday"}


def _facts(case: Path) -> dict[str, Any]:
    return tomllib.loads((case / "case.toml").read_text("utf-8"))


def _built() -> list[Any]:
    """Each case on DuckDB; on Spark, which runs the same SQL, by day one of the table that needs all others.

    By day histories that both engines build in turn hold the rest against the oracle, and a lake of the other policy
    that Spark has built has the rows that DuckDB makes (`tests/spark/test_spark.py`).
    """
    on_spark = CASES if NIGHTLY else [ROOT / "machine_learning_curated" / "since-consent"]
    pairs: list[tuple[Any, ...]] = [("duckdb", case, ()) for case in CASES] + [
        ("spark", case, sparks.needs_spark) for case in on_spark
    ]
    return [
        pytest.param(*pair, marks=marks, id=f"{pair[0]}-{pair[1].parent.name}/{pair[1].name}") for *pair, marks in pairs
    ]


@pytest.mark.parametrize(("engine_name", "case"), _built(), indirect=["engine_name"])
@pytest.mark.sample(quick=12)
def test_the_rows_are_those_worked_out_by_hand_and_building_again_changes_nothing(
    case: Path, slate: Slate, engine_name: str
) -> None:
    facts = _facts(case)
    lake = slate.wiped(facts["readings"])
    landing = lake.land(_delivered(case, slate.inbox()))
    assert landing.quarantined == 0
    assert not landing.skipped
    for address, at in facts.get("withdraw", ()):
        lake.withdraw([address], now=datetime.fromtimestamp(at / 1000, UTC))

    first = build(lake, facts["now"], engine=engine_name)
    before, found = heads(lake), contents(lake)
    _holds(case, lake, facts, found, first.withheld)
    assert len(lake.withheld()) == first.withheld

    second = build(lake, facts["now"], engine=engine_name)
    assert second.run == ""
    assert heads(lake) == before
    assert contents(lake) == found
    assert second.withheld == first.withheld


@pytest.mark.parametrize("table", BELOW_LANDING)
def test_every_table_has_cases_of_both_policies(table: str) -> None:
    policies = {_facts(case)["readings"] for case in CASES if case.parent.name == table}
    assert policies == {"all", "since-consent"}


def test_identifiers_stand_in_landing_and_the_two_customers_tables_and_nowhere_else() -> None:
    names = {table: {column.name.lower() for column in COLUMNS[table]} for table in BELOW_LANDING}
    assert {table for table, columns in names.items() if columns & IDENTIFIERS} == {
        "customers_trusted",
        "customers_curated",
    }
    assert all("customer_id" in columns for columns in names.values())
    assert "serialnumber" not in names["machine_learning_curated"]
    assert "user" not in names["accelerometer_trusted"]


def _delivered(case: Path, inbox: Path) -> Path:
    for name, feed in FEEDS.items():
        if (case / name).exists():
            (inbox / feed).mkdir()
            shutil.copy(case / name, inbox / feed / name)
    return inbox


def _holds(
    case: Path, lake: Lake, facts: dict[str, Any], rows: Mapping[str, Counter[tuple[object, ...]]], withheld: int
) -> None:
    table = case.parent.name
    with (case / "expected.csv").open(encoding="utf-8", newline="") as stream:
        header, *lines = csv.reader(stream)
    places = [next(i for i, column in enumerate(COLUMNS[table]) if column.name == name) for name in header]
    types = [COLUMNS[table][place].type for place in places]
    expected = Counter(tuple(_value(*cell, lake) for cell in zip(line, types, strict=True)) for line in lines)
    found: Counter[tuple[object, ...]] = Counter()
    for row, count in rows[table].items():
        found[tuple(row[place] for place in places)] += count
    assert found == expected, facts["claim"]
    if "withheld" in facts:
        assert withheld == facts["withheld"]


def _value(text: str, kind: str, lake: Lake) -> object:
    if text == "":
        return None
    if kind in ("long", "timestamptz"):
        return moment(int(text))
    if kind == "double":
        return float(text)
    return re.sub(r"^\{(.*)\}$", lambda address: lake.key().customer_id(address[1]), text)
