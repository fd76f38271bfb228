"""A landing over many workers is one landing: the same rows, each once, whoever dies."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deliveries import customer, deliver, motion, step
from lakes import LANDING, conserved, rows
from pools import Pool
from stedi import landing
from stedi.lake import Lake
from stedi.landing import Landing, reader
from stedi.schema.tables import ZONES
from stedi.storage import config as settings


def land(lake: Lake, inbox: Path, pool: Pool) -> Landing:
    with lake.context.writing("land"):
        return landing.land(lake.context, lake.key(), [inbox], workers=pool)


def files_beside(lake: Lake) -> set[str]:
    """Data files of landing tables that no snapshot has."""
    used = {file.path for state in lake.catalog.tables().values() for file in lake.catalog.files(state)}
    zone = lake.root / "landing"
    return {str(path) for path in zone.rglob("*.parquet")} - used


def test_workers_land_what_one_machine_lands(new_lake: Callable[..., Lake], sample_inbox: Path) -> None:
    alone, spread = new_lake("alone"), new_lake("spread")
    one = alone.land(sample_inbox)
    many = land(spread, sample_inbox, Pool())
    assert {**many.drift} == {**one.drift}
    assert sorted(many.files, key=lambda file: file.name) == sorted(one.files, key=lambda file: file.name)
    assert set(many.skipped) == set(one.skipped)
    for table in LANDING:
        assert rows(spread, table) == rows(alone, table)
    refused = [{row[:8] for row in rows(lake, "quarantine")} for lake in (alone, spread)]
    assert refused[0] == refused[1] != set()
    conserved(spread)


def test_each_table_gets_one_snapshot_a_batch(lake: Lake, sample_inbox: Path) -> None:
    land(lake, sample_inbox, Pool(slots=16))
    states = lake.catalog.tables()
    assert {len(states[name].history()) for name, zone in ZONES.items() if zone == "landing"} == {2}
    assert len(lake.catalog.files(states["accelerometer_landing"])) > 1


def test_a_task_that_is_done_again_adds_nothing_and_leaves_nothing(lake: Lake, sample_inbox: Path) -> None:
    first = land(lake, sample_inbox, Pool(lost=2))
    before = {table: rows(lake, table) for table in LANDING}
    assert not files_beside(lake)
    conserved(lake)
    again = land(lake, sample_inbox, Pool())
    assert all(file.already_landed for file in again.files)
    assert (again.seen, again.accepted) == (first.seen, first.accepted)
    assert {table: rows(lake, table) for table in LANDING} == before


def test_files_of_a_dead_attempt_go_with_maintenance(lake: Lake, sample_inbox: Path) -> None:
    land(lake, sample_inbox, Pool())
    [file, *_] = lake.catalog.files(lake.catalog.table("customers_landing"))
    late = Path(file.path).parent.with_name("0-0badc0de")
    shutil.copytree(Path(file.path).parent, late)
    lake.context.config = settings.changed(lake.config, grace_hours=0.0)
    lake.maintain()
    assert not late.exists()
    conserved(lake)


def test_workers_keep_the_erased_out(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    deliver(inbox, "customer", [customer("ann@x.example"), customer("bob@x.example", serialNumber="s2")])
    land(lake, inbox, Pool())
    lake.erase("ann@x.example")
    deliver(inbox, "customer", [customer("ann@x.example"), customer("cy@x.example", serialNumber="s3")], "again.json")
    deliver(inbox, "accelerometer", [motion("ann@x.example"), motion("bob@x.example")])
    done = land(lake, inbox, Pool())
    assert sum(file.erased for file in done.files if not file.already_landed) == 2
    assert {row[0] for row in rows(lake, "accelerometer_landing")} == {"bob@x.example"}
    conserved(lake)


def test_a_file_that_changes_meanwhile_is_refused_and_the_others_land(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    path = deliver(inbox, "customer", [customer()])
    deliver(inbox, "accelerometer", [motion()])

    class Late(Pool):
        def map(self, work, tasks, done=print):  # type: ignore[no-untyped-def] # as above
            if self.tasks:
                path.write_text(path.read_text().replace("a@x", "b@x"))
            return super().map(work, tasks, done)

    [skipped] = land(lake, inbox, Late()).skipped
    assert skipped.failed
    assert "changed while it was read" in skipped.why
    assert {table for table in LANDING if rows(lake, table)} == {"accelerometer_landing"}
    assert not files_beside(lake)
    conserved(lake)


def test_workers_land_a_file_again_that_was_landed_as_the_wrong_feed(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = tmp_path / "inbox"
    deliver(inbox, "accelerometer", [motion(), motion(at=101)], "customer-1.json")
    with monkeypatch.context() as patch:
        patch.setattr(reader, "infer_feed", lambda text, named=None: named)
        assert land(lake, inbox, Pool()).quarantined == 2
    deliver(inbox, "step_trainer", [{"serialNumber": "odd"}, step()])
    for _ in range(2):
        landed = land(lake, inbox, Pool())
        assert (landed.accepted, landed.quarantined) == (3, 1)
        assert rows(lake, "accelerometer_landing").total() == 2
        assert rows(lake, "quarantine").total() == 1
        conserved(lake)


def test_shares_are_of_one_feed_and_alike_in_size(lake: Lake, tmp_path: Path) -> None:
    inbox = tmp_path / "inbox"
    for number in range(12):
        deliver(inbox, "accelerometer", [motion(at=number * 100 + n + 1) for n in range(50)], f"{number}.json")
    deliver(inbox, "customer", [customer()])
    pool = Pool(slots=3)
    land(lake, inbox, pool)
    assert len(lake.catalog.files(lake.catalog.table("accelerometer_landing"))) in (3, 4)
    assert len(lake.catalog.files(lake.catalog.table("customers_landing"))) == 1
