"""A lake from Python: made, opened, landed into, built, asked; and refused with one clear line."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

import stedi
from deliveries import DAWN, customer, deliver, motion, step
from lakes import BELOW_LANDING, Slate, conserved, contents, heads, rows, tree
from stedi.errors import ConfigError, KeyRefused, LakeError, UsageError
from stedi.lake import Lake
from stedi.schema.roles import Readings
from stedi.schema.tables import COLUMNS, ZONES
from stedi.transform import Withheld


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("lake"))


@pytest.fixture
def wiped(slate: Slate) -> Lake:
    return slate.wiped()


def landed(lake: Lake, slate: Slate) -> Lake:
    """Gives a lake one customer who agrees and moves."""
    inbox = slate.inbox()
    deliver(inbox, "customer", [customer()])
    deliver(inbox, "accelerometer", [motion()])
    deliver(inbox, "step_trainer", [step()])
    lake.land(inbox)
    return lake


class TestPackage:
    def test_what_is_public_is_there_and_documented(self) -> None:
        for name in stedi.__all__:
            assert getattr(stedi, name) is not None
            assert name.startswith("__") or getattr(stedi, name).__doc__
        with pytest.raises(AttributeError, match="nothing_like_it"):
            _ = stedi.nothing_like_it

    def test_a_lake_is_made_filled_built_and_asked_in_four_lines(self, tmp_path: Path, slate: Slate) -> None:
        inbox = slate.inbox()
        deliver(inbox, "customer", [customer()])
        deliver(inbox, "accelerometer", [motion()])
        deliver(inbox, "step_trainer", [step()])
        lake = stedi.Lake.create(tmp_path / "lake")
        assert lake.land(inbox).accepted == 3
        assert lake.build().consenting == 1
        found = lake.query("select distanceFromObject, x from machine_learning_curated").arrow()
        assert isinstance(found, pa.Table)
        assert found.to_pylist() == [{"distanceFromObject": 246, "x": 1.0}]


class TestSample:
    @pytest.mark.parametrize("readings", ["all", "since-consent"])
    def test_the_sample_gives_its_known_answer(self, readings: Readings, slate: Slate, sample_inbox: Path) -> None:
        answer = json.loads((sample_inbox / "_answer.json").read_text())
        lake = slate.wiped(readings)
        landing = lake.land(sample_inbox)
        built = lake.build()
        expected = answer["since_consent"] if readings == "since-consent" else answer
        assert {table.name: table.rows for table in built.tables} == {name: expected[name] for name in BELOW_LANDING}
        assert {table.name: table.rows for table in lake.tables() if table.zone != "landing"} == {
            name: expected[name] for name in BELOW_LANDING
        }
        assert built.withheld == len(lake.withheld()) == answer["withheld"]
        assert built.consenting == answer["agreed"]
        assert built.customers == answer["agreed"] + answer["never_agreed"] + answer["withdrew"]
        assert landing.accepted == sum(answer["accepted"].values())
        assert landing.quarantined == lake.quarantine().total()
        conserved(lake)


class TestCreate:
    def test_every_table_is_there_and_empty(self, wiped: Lake) -> None:
        assert {table.name: (table.zone, table.rows) for table in wiped.tables()} == {
            name: (zone, 0) for name, zone in ZONES.items()
        }
        for name, columns in COLUMNS.items():
            assert wiped.catalog.table(name).columns == columns

    def test_all_of_it_is_its_owners_alone(self, slate: Slate) -> None:
        mask = os.umask(0o077)
        try:
            lake = landed(slate.wiped(), slate)
            lake.build()
        finally:
            os.umask(mask)
        assert stat.S_IMODE(lake.root.stat().st_mode) == 0o700
        written = list(lake.root.rglob("*.parquet"))
        assert written
        assert not [p for p in written if stat.S_IMODE(p.stat().st_mode) & 0o077]

    @pytest.mark.parametrize(
        "name", ["with space", "ümlaut", "per%20cent", "quo'te", 'dou"ble', "a[1]", "st*r", "$var"]
    )
    def test_its_folder_may_have_any_name_that_stands_in_a_uri(self, name: str, tmp_path: Path, slate: Slate) -> None:
        lake = landed(Lake.create(tmp_path / name), slate)
        assert lake.build().consenting == 1
        assert lake.query("select count(*) as n from machine_learning_curated").arrow().to_pylist() == [{"n": 1}]

    @pytest.mark.parametrize("name", ["a?b", "a#b", "a\\b", "a\nb"])
    def test_a_folder_whose_name_cannot_stand_in_a_uri_is_refused(self, name: str, tmp_path: Path) -> None:
        with pytest.raises(UsageError):
            Lake.create(tmp_path / name)
        assert not (tmp_path / name).exists()

    def test_a_policy_that_is_none_is_refused_and_leaves_no_lake(
        self, tmp_path: Path, new_lake: Callable[..., Lake]
    ) -> None:
        with pytest.raises(ConfigError, match=r"consent\.readings"):
            new_lake(readings="since")
        assert not (tmp_path / "lake" / "lake.toml").exists()

    def test_the_key_may_come_from_a_file_that_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
        key = tmp_path / "keys" / "lake.key"
        monkeypatch.setenv("STEDI_KEY_FILE", str(key))
        first, second = Lake.create(tmp_path / "first"), Lake.create(tmp_path / "second")
        assert first.config.key_fingerprint == second.config.key_fingerprint
        monkeypatch.delenv("STEDI_KEY_FILE")
        assert Lake.open(tmp_path / "first").key().fingerprint == first.config.key_fingerprint
        key.chmod(0o644)
        with pytest.raises(KeyRefused, match="expected mode 0600"):
            first.key()
        key.unlink()
        with pytest.raises(KeyRefused, match="expected a readable file"):
            first.key()

    def test_a_lake_in_the_place_of_a_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "lake").write_text("text")
        with pytest.raises(UsageError, match="expected an empty folder, found something else"):
            Lake.create(tmp_path / "lake")
        assert (tmp_path / "lake").read_text() == "text"


class TestOpen:
    def test_a_lake_that_is_there_is_opened_and_another_is_made(self, wiped: Lake, tmp_path: Path) -> None:
        assert Lake.open_or_create(wiped.root).config == wiped.config
        assert Lake.open_or_create(tmp_path / "new").config.lake_id != wiped.config.lake_id

    def test_what_is_no_lake_is_refused(self, tmp_path: Path) -> None:
        for path in (tmp_path, tmp_path / "missing"):
            with pytest.raises(LakeError, match="expected a lake, found none"):
                Lake.open(path)

    def test_a_catalog_that_is_gone_is_said(self, wiped: Lake) -> None:
        (wiped.root / "catalog.db").unlink()
        with pytest.raises(LakeError, match="expected a lake's catalog, found none"):
            wiped.tables()

    def test_looking_writes_nothing(self, wiped: Lake, slate: Slate) -> None:
        lake = landed(wiped, slate)
        lake.build()
        before = lasting(lake)
        lake.tables()
        lake.history("customers_trusted")
        lake.plan()
        lake.withheld()
        lake.query("select 1 as one from customers_trusted").arrow()
        list(lake.quarantine().records())
        assert lasting(lake) == before
        assert not [path for path in (lake.root / "tmp").rglob("*") if path.is_file()]


class TestQuery:
    def test_a_moment_is_a_snapshot_an_iso_time_or_a_datetime(self, wiped: Lake, slate: Slate) -> None:
        lake = landed(wiped, slate)
        lake.build()
        newest, first = lake.history("customers_trusted")
        moment = newest.at
        sql = "select count(*) as n from customers_trusted"

        def counted(at: int | str | datetime | None) -> int:
            return int(lake.query(sql, at=at).arrow().column(0)[0].as_py())

        assert [counted(at) for at in (None, newest.id, str(newest.id), moment, moment.isoformat())] == [1] * 5
        before = moment - timedelta(milliseconds=1)
        assert [counted(at) for at in (first.id, before, before.isoformat(), before.replace(tzinfo=None))] == [0] * 4
        assert counted(moment.replace(tzinfo=None)) == 1, "a time without a zone is UTC"

    def test_a_snapshot_of_one_table_fixes_the_build_that_all_are_read_of(self, wiped: Lake, slate: Slate) -> None:
        lake = landed(wiped, slate)
        lake.build()
        lake.land(deliver(slate.inbox(), "customer", [customer(consent=..., update=101)]))
        lake.build()
        sql = (
            "select (select count(*) from customers_trusted) as c, (select count(*) from machine_learning_curated) as m"
        )
        for table in ("customers_trusted", "machine_learning_curated"):
            withdrawn, agreed, _ = lake.history(table)
            assert lake.query(sql, at=agreed.id, as_published=True).arrow().to_pylist() == [{"c": 1, "m": 1}]
            assert lake.query(sql, at=withdrawn.id).arrow().to_pylist() == [{"c": 0, "m": 0}]
        landing = lake.history("customers_landing")
        sql = "select (select count(*) from customers_landing) as l, (select count(*) from customers_trusted) as c"
        assert lake.query(sql, at=landing[1].id).arrow().to_pylist() == [{"l": 1, "c": 0}]

    def test_statements_may_name_tables_in_any_case_and_none_at_all(self, wiped: Lake) -> None:
        assert lake_rows(wiped, "select count(*) as n from CUSTOMERS_Trusted") == [{"n": 0}]
        assert lake_rows(wiped, "select 1 as n") == [{"n": 1}]


class TestWithheld:
    def test_each_withheld_reading_is_listed_with_how_many_moved(self, wiped: Lake, slate: Slate) -> None:
        inbox = slate.inbox()
        deliver(inbox, "customer", [customer(), customer("b@x.example")])
        deliver(inbox, "accelerometer", [motion(at=100), motion("b@x.example", at=100), motion(at=101)])
        deliver(inbox, "step_trainer", [step(at=100), step(at=101), step(at=102), step(at=102)])
        wiped.land(inbox)
        assert wiped.withheld() == (
            Withheld(datetime.fromtimestamp((DAWN + 100) / 1000, UTC), "s1", 246, 2),
            Withheld(datetime.fromtimestamp((DAWN + 102) / 1000, UTC), "s1", 246, 0),
        )
        assert wiped.build().withheld == 2
        assert rows(wiped, "step_trainer_trusted").total() == 1


class TestBuild:
    def test_a_build_and_a_later_full_build_give_the_same_rows(self, wiped: Lake, slate: Slate) -> None:
        lake = landed(wiped, slate)
        first = lake.build()
        before, found = heads(lake), contents(lake)
        again = lake.build(full=True)
        assert {table.reason for table in again.tables} == {"asked for"}
        assert again.run != first.run
        assert contents(lake) == found
        assert not set(before.values()) & {heads(lake)[name] for name in BELOW_LANDING}
        assert not [path for path in (lake.root / "tmp").rglob("*") if path.is_file()]

    def test_progress_is_told(self, wiped: Lake, slate: Slate) -> None:
        told: list[str] = []
        landed(wiped, slate).build(progress=lambda what, share: told.append(what))
        assert told[0] == "rebuild customers_trusted, 1 of 5: first time"
        assert told[-1] == "publish"


def lasting(lake: Lake) -> dict[str, tuple[str, int, int]]:
    """Returns all of a lake's folder but what is only needed on the way, and the log of who has looked."""
    passed = ("tmp", "access", "access.lock")
    return {name: found for name, found in tree(lake.root).items() if Path(name).parts[0] not in passed}


def lake_rows(lake: Lake, sql: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = lake.query(sql).arrow().to_pylist()
    return found
