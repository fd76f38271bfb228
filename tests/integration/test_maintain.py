"""Maintenance: fewer files and snapshots, the same rows, nothing removed that is in use, whatever dies on the way."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deliveries import customer, deliver, motion, step
from effort import NIGHTLY
from lakes import BELOW_LANDING, Row, Slate, build, conserved, contents, heads, rows, tree, unseen
from stedi.catalog import Catalog, checksums, hint
from stedi.cli import render
from stedi.engines.duckdb import DuckDB
from stedi.engines.table_files import file_rows
from stedi.errors import CommitConflict, DamagedFile, LakeError, UsageError
from stedi.lake import Lake
from stedi.operations import maintenance
from stedi.operations.maintenance import Maintained, Maintenance, Removed, compaction
from stedi.schema.tables import NAMESPACE, ZONES, DataFile
from stedi.storage import durable
from worlds import NOW, worlds, write_world

ACCELEROMETER, LEDGER = "accelerometer_landing", "landed_files"
AT_ONCE = {"keep_days": 0.0, "keep_snapshots": 1, "grace_hours": 0.0}
"""Settings under which everything that can go goes at once."""


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("maintain"))


@pytest.fixture(scope="module")
def _grown_once(slate: Slate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = slate.wiped()
    for n in range(3):
        land(lake, slate, n)
        build(lake, NOW)
    kept = tmp_path_factory.mktemp("grown") / "lake"
    shutil.copytree(lake.root, kept)
    return kept


@pytest.fixture
def grown(_grown_once: Path, slate: Slate) -> Lake:
    """A lake of three landings and as many builds."""
    root = slate.wiped().root
    shutil.rmtree(root)
    shutil.copytree(_grown_once, root)
    return unseen(root)


def land(lake: Lake, slate: Slate, number: int) -> None:
    """Lands a file of each feed, one bad record among them."""
    inbox, name = slate.inbox(), f"{number}.json"
    email, serial = f"p{number}@x.example", f"s{number}"
    deliver(inbox, "customer", [customer(email, serialNumber=serial)], name)
    deliver(inbox, "accelerometer", [*(motion(email, at) for at in range(1, 9)), {"user": number}], name)
    deliver(inbox, "step_trainer", [step(serial, at) for at in range(1, 9)], name)
    lake.land(inbox)


def configured(lake: Lake, **changes: Any) -> Lake:
    """The same lake under other settings."""
    other = Lake.open(lake.root)
    other.context.config = dataclasses.replace(lake.config, **changes)
    return other


def every(lake: Lake) -> dict[str, Counter[Row]]:
    """The rows of every table."""
    return {name: rows(lake, name) for name in ZONES}


def done(outcome: Maintenance) -> dict[str, Maintained]:
    return {table.name: table for table in outcome.tables}


def idle(outcome: Maintenance, names: Iterable[str] = ZONES) -> bool:
    """Whether there was nothing to do."""
    nothing = [Maintained(name, 0, 0, 0, 0, (), {}) for name in names]
    return list(outcome.tables) == nothing and outcome.temporary == Removed(0, 0)


def walked(lake: Lake) -> dict[str, set[Path]]:
    """Every file that a live snapshot of each table uses, found by nothing but SQLite, JSON and Avro."""
    with closing(sqlite3.connect(lake.root / "catalog.db")) as connection:
        found = connection.execute("select table_name, metadata_location from iceberg_tables").fetchall()

    def avro(location: str) -> list[Any]:
        with open(location.removeprefix("file://"), "rb") as stream:
            return list(fastavro.reader(stream))

    used = {}
    for name, location in found:
        metadata = json.loads(Path(location.removeprefix("file://")).read_bytes())
        places = {location}
        for snapshot in metadata["snapshots"]:
            places.add(snapshot["manifest-list"])
            for manifest in avro(snapshot["manifest-list"]):
                places.add(manifest["manifest_path"])
                entries = [entry for entry in avro(manifest["manifest_path"]) if entry["status"] != 2]
                places |= {entry["data_file"]["file_path"] for entry in entries}
        used[name] = {Path(place.removeprefix("file://")) for place in places}
    return used


def sound(lake: Lake) -> None:
    """Every file that a live snapshot uses is there."""
    for name, used in walked(lake).items():
        assert not {path for path in used if not path.is_file()}, name


def lean(lake: Lake, names: Collection[str] = ZONES) -> None:
    """No file is there but those in use, and the metadata files before the current ones."""
    for name, used in walked(lake).items():
        if name not in names:
            continue
        folder = lake.catalog.folder(name)
        files = {path for path in folder.rglob("*") if path.is_file() and path.name not in (checksums.NAME, hint.NAME)}
        assert files >= {folder / known for known in checksums.recorded(folder)}, name
        assert all(path.name.endswith(".metadata.json") for path in files - used), name
        folders = [path for path in folder.rglob("*") if path.is_dir()]
        assert all(any(path.iterdir()) for path in folders), name


def aged(lake: Lake, hours: float) -> None:
    """Makes every file of a lake older."""
    for path in [lake.root / "tmp", *lake.root.rglob("*")]:
        if path.exists():
            times = path.stat()
            os.utime(path, (times.st_atime - hours * 3600, times.st_mtime - hours * 3600))


def theirs(lake: Lake, table: str) -> Any:
    """The table as PyIceberg alone opens it."""
    from pyiceberg.catalog.sql import SqlCatalog

    return SqlCatalog("stedi", uri=f"sqlite:///{lake.catalog.path}").load_table((NAMESPACE, table))


class TestCompaction:
    def test_small_files_become_one_and_no_row_changes(self, grown: Lake) -> None:
        before, files = every(grown), grown.catalog.files(grown.catalog.table(ACCELEROMETER))
        assert len(files) == 3
        outcome = done(grown.maintain())[ACCELEROMETER]
        assert (outcome.files, outcome.bytes, outcome.into) == (3, sum(file.bytes for file in files), 1)
        assert len(grown.catalog.files(grown.catalog.table(ACCELEROMETER))) == 1
        assert every(grown) == before
        assert idle(grown.maintain())
        sound(grown)

    def test_the_commit_is_a_replacement_under_the_lineage_of_what_it_replaces(self, grown: Lake) -> None:
        configured(grown, target_size="1TB").maintain()
        replaced = 0
        for name, state in grown.catalog.tables().items():
            current, *older = state.history()
            if current.operation == "replace":
                replaced += 1
                lineage = {key: value for key, value in current.summary.items() if key.startswith("stedi.")}
                del lineage["stedi.maintained"]
                assert lineage == {k: v for k, v in older[0].summary.items() if k.startswith("stedi.")}, name
                assert current.parent == older[0].id
                for total in ("records",):
                    assert current.total(total) == older[0].total(total)
                assert current.total("data-files") == len(grown.catalog.files(state))
                assert current.total("files-size") == sum(file.bytes for file in grown.catalog.files(state))
        assert replaced >= 5

    def test_plain_pyiceberg_reads_what_was_compacted_and_appends_to_it(self, grown: Lake, slate: Slate) -> None:
        grown.maintain()
        table = theirs(grown, ACCELEROMETER)
        assert table.scan().to_arrow().num_rows == 24
        assert [snapshot.summary.operation.value for snapshot in table.snapshots()][-1] == "replace"
        land(grown, slate, 7)
        assert theirs(grown, ACCELEROMETER).scan().to_arrow().num_rows == 32

    def test_a_customer_s_rows_lie_together_as_a_build_has_written_them(self, lake: Lake) -> None:
        table = "accelerometer_trusted"
        with DuckDB(memory="100MB", threads=1, temporary=lake.root / "tmp" / "t") as engine:
            for n in range(3):
                people = 'select hash(i % 1000 + 1)::varchar as customer_id, instant(1000 - i % 7 + 1) as "timestamp", '
                sql = f"{people} {n}::double as x, 0.0::double as y, 0.0::double as z from range(40_000) as t (i)"
                files = engine.write(table, sql, lake.catalog.folder(table) / "data" / str(n))
                lake.catalog.append(table, files, {})
            lake.maintain()
            files = lake.catalog.files(lake.catalog.table(table))
            assert len(files) == 1
            read = f"select customer_id, epoch_ms(\"timestamp\") from read_parquet('{files[0].path}')"
            found = engine.rows(read)
        assert len(found) == 120_000
        assert found == sorted(found)

    def test_a_thousand_manifests_become_one_for_their_own_sake(self, lake: Lake) -> None:
        for n in range(compaction.MANIFESTS):
            lake.catalog.append(ACCELEROMETER, [fake(lake, n)], {"stedi.batch": str(n)})
        outcome = done(configured(lake, target_size="1KB").maintain())
        assert outcome[ACCELEROMETER].manifests == 0, "as many as may be"
        lake.catalog.append(ACCELEROMETER, [fake(lake, 99)], {})
        files = lake.catalog.files(lake.catalog.table(ACCELEROMETER))
        outcome = done(configured(lake, target_size="1KB").maintain())
        assert (outcome[ACCELEROMETER].manifests, outcome[ACCELEROMETER].files) == (compaction.MANIFESTS + 1, 0)
        state = lake.catalog.table(ACCELEROMETER)
        assert lake.catalog.files(state) == files
        assert len(theirs(lake, ACCELEROMETER).current_snapshot().manifests(theirs(lake, ACCELEROMETER).io)) == 1
        assert state.current.operation == "replace"  # type: ignore[union-attr]

    def test_what_stays_keeps_its_sequence_and_snapshot(self, lake: Lake) -> None:
        for n in range(11):
            lake.catalog.append(ACCELEROMETER, [fake(lake, n)], {})

        def entries() -> dict[str, tuple[int, int]]:
            table = theirs(lake, ACCELEROMETER)
            listed = [m.fetch_manifest_entry(table.io) for m in table.current_snapshot().manifests(table.io)]
            return {e.data_file.file_path: (e.snapshot_id, e.sequence_number) for found in listed for e in found}

        before = entries()
        configured(lake, target_size="1KB").maintain()
        assert entries() == before

    def test_rows_that_do_not_come_out_again_stop_it(self, grown: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        before, left, write = heads(grown), tree(grown.root / "landing"), DuckDB.write

        def fewer(self: DuckDB, table: str, sql: str, folder: Path, *, of: int) -> tuple[DataFile, ...]:
            return write(self, table, f"{sql} limit 1", folder, of=of)

        monkeypatch.setattr(DuckDB, "write", fewer)
        with pytest.raises(LakeError, match=r"customers_landing: expected 3 rows .*, found 1"):
            grown.maintain()
        assert heads(grown) == before
        assert tree(grown.root / "landing").keys() == left.keys()

    def test_a_damaged_file_is_named_and_not_written_anew_as_if_it_were_whole(self, grown: Lake) -> None:
        before = heads(grown)
        path = Path(grown.catalog.files(grown.catalog.table("customers_landing"))[1].path)
        content = bytearray(path.read_bytes())
        content[len(content) // 3] ^= 1
        path.write_bytes(content)
        with pytest.raises(DamagedFile, match=rf"customers_landing: data/.*/{path.name}: expected SHA-256"):
            grown.maintain()
        assert heads(grown) == before

    def test_a_table_that_moved_meanwhile_is_left_as_it_is(self, grown: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
        replace = Catalog.replace

        def interfere(self: Catalog, table: str, *rest: Any, **more: Any) -> int:
            self.append(table, (), {})
            return replace(self, table, *rest, **more)

        monkeypatch.setattr(Catalog, "replace", interfere)
        before = every(grown)
        with pytest.raises(CommitConflict, match="Run `stedi maintain` again"):
            grown.maintain()
        assert every(grown) == before
        sound(grown)
        monkeypatch.undo()
        configured(grown, **AT_ONCE).maintain()
        lean(grown)

    def test_a_writer_that_comes_first_wins_and_loses_nothing(
        self, grown: Lake, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from stedi.catalog.local import Local

        commit = Local.commit

        def race(self: Local, table: Any, *rest: Any) -> Any:
            monkeypatch.setattr(Local, "commit", commit)
            other = theirs(grown, "customers_landing")  # which asks for no lock of ours
            other.append(other.scan(limit=1).to_arrow())
            return commit(self, table, *rest)

        monkeypatch.setattr(Local, "commit", race)
        with pytest.raises(CommitConflict, match="other writers came first"):
            grown.maintain()
        state = grown.catalog.table("customers_landing")
        assert state.current is not None
        assert (state.current.operation, state.current.total("records")) == ("append", 4)
        assert len(list((grown.catalog.folder("customers_landing") / "data").glob("*/"))) == 3
        sound(grown)


def fake(lake: Lake, number: int) -> DataFile:
    """A file of 2,000 bytes that nobody opens."""
    path = lake.catalog.folder(ACCELEROMETER) / "data" / "fake" / f"{number}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(2_000))
    return DataFile(str(path), 0, 2_000)


def sizes(*numbers: int) -> list[DataFile]:
    return [DataFile(f"/{place:04d}", 1, size) for place, size in enumerate(numbers)]


def grouped(*numbers: int, target: int = 100) -> list[list[int]]:
    return [[file.bytes for file in group] for group in compaction.grouped(sizes(*numbers), target)]


class TestGroups:
    def test_files_go_together_up_to_the_target(self) -> None:
        assert grouped(*[30] * 7) == [[30, 30, 30], [30, 30, 30]]
        assert grouped(10, 10) == [[10, 10]]

    def test_no_file_holds_more_rows_than_a_build_writes(self) -> None:
        for total in (0, 10_000_000, 100_000_000, 10_000_000_000):
            most = file_rows(total)
            full = [DataFile(f"/full-{n}", most, 100) for n in range(total // most)]
            third = [DataFile(f"/{n}", most // 3, 1) for n in range(5)]
            assert [len(group) for group in compaction.grouped([*full, *third], 100)] == [3, 2]
            half = [DataFile(f"/{n}", most // 2, 1) for n in range(5)]
            assert compaction.grouped([*full, *half], 100) == ()

    def test_large_files_and_single_ones_stay(self) -> None:
        assert grouped(50, 50, 51, 200) == []
        assert grouped(10) == []
        assert grouped(10, 60) == []

    def test_a_file_is_not_rewritten_for_the_sake_of_much_smaller_ones(self) -> None:
        assert grouped(40, 1, 1, 1) == [[1, 1, 1]]
        assert grouped(40, 4, 3, 3) == [[40, 4, 3, 3]]

    @given(st.lists(st.integers(1, 200), max_size=60), st.integers(50, 150))
    def test_it_ends_with_few_small_files_and_rewrites_what_is_small_only(
        self, numbers: list[int], target: int
    ) -> None:
        left = sizes(*numbers)
        for _ in range(20):
            groups = compaction.grouped(left, target)
            if not groups:
                break
            gone = [file for group in groups for file in group]
            assert all(file.bytes < target / 2 for file in gone)
            assert all(sum(file.bytes for file in group) <= target for group in groups)
            made = [sum(file.bytes for file in group) for group in groups]
            left = sizes(*(file.bytes for file in left if file not in gone), *made)
        assert not groups
        small = sorted(file.bytes for file in left if file.bytes < target / 2)
        assert len(small) < 10


class TestExpiry:
    def test_with_the_defaults_nothing_young_expires(self, grown: Lake) -> None:
        before = {name: {s.id for s in state.snapshots} for name, state in grown.catalog.tables().items()}
        assert not any(table.expired for table in grown.maintain().tables)
        after = {name: {s.id for s in state.snapshots} for name, state in grown.catalog.tables().items()}
        assert all(before[name] <= after[name] for name in ZONES)

    @pytest.mark.parametrize(("count", "left"), [(1, 1), (2, 2), (3, 3), (9, 5)])
    def test_old_snapshots_go_beyond_the_count(self, grown: Lake, count: int, left: int) -> None:
        lake = configured(grown, keep_days=0.0, keep_snapshots=count, target_size="1KB")
        lake.maintain()
        assert len(lake.catalog.table("customers_trusted").snapshots) == min(left, 4)

    def test_snapshots_beyond_the_count_stay_while_they_were_current_of_late(self, grown: Lake) -> None:
        state = grown.catalog.table("customers_trusted")
        first, second, third, current = state.snapshots
        now = time.time() * 1000
        # the days are such that the second ceased to be current before them, and the third after
        days = (now - (second.at_ms + third.at_ms) / 2) / 86_400_000
        assert second.at_ms < now - days * 86_400_000 < third.at_ms
        lake = configured(grown, keep_days=days, keep_snapshots=1, target_size="1KB")
        lake.maintain()
        left = {snapshot.id for snapshot in lake.catalog.table("customers_trusted").snapshots}
        assert left == {second.id, third.id, current.id}, "the second was what readers saw within the days"
        assert first.id not in left

    def test_time_travel_sees_what_was_kept_and_says_what_has_expired(self, grown: Lake) -> None:
        first, second, third, current = grown.catalog.table("customers_trusted").snapshots
        configured(grown, keep_days=0.0, keep_snapshots=3, target_size="1KB", grace_hours=0.0).maintain()
        sql = "select count(*) as n from customers_trusted"

        def counted(at: object) -> int:
            return int(grown.query(sql, at=at).arrow()["n"][0].as_py())  # type: ignore[arg-type] # any will do

        moment = second.at
        assert [counted(snapshot.id) for snapshot in (second, third, current)] == [1, 2, 3]
        assert counted(moment) == 1
        with pytest.raises(UsageError, match="expected a live snapshot of customers_trusted, found none"):
            counted(first.id)
        with pytest.raises(UsageError, match="its snapshots of then have expired"):
            counted(moment - timedelta(milliseconds=1))

    def test_what_a_tag_or_a_branch_names_stays_and_the_time_after_it_is_no_other_s(self, grown: Lake) -> None:
        first, second, third, current = grown.catalog.table("customers_trusted").snapshots
        with theirs(grown, "customers_trusted").manage_snapshots() as manage:
            manage.create_tag(second.id, "training-set").create_branch(first.id, "experiment")
        lake = configured(grown, **AT_ONCE, target_size="1KB")
        lake.maintain()
        state = lake.catalog.table("customers_trusted")
        assert {snapshot.id for snapshot in state.snapshots} == {first.id, second.id, current.id}
        assert (state.tags, state.branches) == (
            {"training-set": second.id},
            {"main": current.id, "experiment": first.id},
        )
        assert theirs(lake, "customers_trusted").scan(snapshot_id=second.id).to_arrow().num_rows == 1
        sql = "select count(*) from customers_trusted"
        assert lake.query(sql, at=second.id).arrow()[0][0].as_py() == 1
        with pytest.raises(UsageError, match="has expired"):
            lake.query(sql, at=third.at)
        sound(lake)
        with theirs(grown, "customers_trusted").manage_snapshots() as manage:
            manage.remove_tag("training-set").remove_branch("experiment")
        lake.maintain()
        assert [snapshot.id for snapshot in lake.catalog.table("customers_trusted").snapshots] == [current.id]
        lean(lake)

    def test_what_the_next_build_needs_stays(self, grown: Lake, slate: Slate) -> None:
        """Each landing since the last build can be told from the snapshots and files that are there."""
        built = {
            read: id_
            for name in BELOW_LANDING
            for read, id_ in json.loads(grown.catalog.table(name).current.summary["stedi.inputs"]).items()  # type: ignore[union-attr]
        }
        lake = configured(grown, **AT_ONCE)
        for n in range(3, 6):
            land(lake, slate, n)
            lake.maintain()
        for name, watermark in built.items():
            if ZONES[name] != "landing":
                continue
            window = []
            for snapshot in lake.catalog.table(name).history():
                if snapshot.id == watermark:
                    break
                window.append(snapshot)
            else:
                pytest.fail(f"{name}: the watermark has expired")
            appends = [snapshot for snapshot in window if snapshot.operation == "append"]
            assert {snapshot.operation for snapshot in window} == {"append", "replace"}
            assert len(appends) == 3
            for snapshot in appends:
                added = [file for file in _added(lake, name, snapshot.id) if not file.is_file()]
                assert not added, f"{name}: files of a landing that is still to be built are gone"
        sound(lake)
        build(lake, NOW)
        assert contents(lake) == _rebuilt(lake)
        lake.maintain()
        assert all(len(lake.catalog.table(name).snapshots) <= 2 for name in built), "the window has moved on"


def _added(lake: Lake, table: str, snapshot_id: int) -> list[Path]:
    state = lake.catalog.table(table)
    snapshot, parent = state.snapshot(snapshot_id), None
    assert snapshot is not None
    parent = state.snapshot(snapshot.parent)
    assert parent is not None
    before = {file.path for file in lake.catalog.files(state, parent)}
    return [Path(file.path) for file in lake.catalog.files(state, snapshot) if file.path not in before]


def _rebuilt(lake: Lake) -> dict[str, Counter[Row]]:
    build(lake, NOW, full=True)
    return contents(lake)


class TestRemoval:
    def test_at_once_only_what_is_in_use_is_left(self, grown: Lake) -> None:
        before = every(grown)
        lake = configured(grown, **AT_ONCE)
        outcome = lake.maintain()
        assert outcome.freed == sum(table.freed for table in outcome.tables) > 0
        sound(lake)
        lean(lake)
        assert every(lake) == before
        assert not [check.name for check in lake.audit(files=True) if check.violations]
        assert idle(lake.maintain())

    def test_a_dry_run_changes_nothing_and_foretells_what_is_done(self, grown: Lake) -> None:
        lake = configured(grown, **AT_ONCE)
        before = tree(lake.root)
        foreseen = lake.maintain(dry_run=True)
        assert tree(lake.root) == before
        assert foreseen.run == ""
        outcome = lake.maintain()
        assert outcome.run

        def plain(found: Maintenance) -> list[Maintained]:
            # the commits of the maintenance itself push older metadata files out
            return [
                dataclasses.replace(table, removed={k: v for k, v in table.removed.items() if k != "metadata"})
                for table in found.tables
            ]

        assert plain(foreseen) == plain(outcome)

    def test_young_files_stay_and_old_ones_go(self, grown: Lake) -> None:
        lake = grown
        folder = lake.catalog.folder(ACCELEROMETER)
        strays = [
            folder / "data" / "0000000000001-00000000" / "data_0.parquet",
            folder / "data" / "stray.parquet",
            folder / "metadata" / "stray-m0.avro",
            folder / "metadata" / "00001-stray.metadata.json",
            folder / "metadata" / ".snap.avro.partial",
            lake.root / "tmp" / "0000000000001-00000000" / "spill.tmp",
            lake.root / "tmp" / "duckdb_temp_storage.tmp",
            lake.root / ".lake.toml.00.partial",
        ]
        [first] = folder.glob("metadata/00000-*.metadata.json")
        for path in strays:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(first.read_bytes() if path.suffix == ".json" else b"12345")
        lake.maintain()
        assert all(path.exists() for path in strays)
        aged(lake, 2)
        outcome = lake.maintain()
        assert not [path for path in strays if path.exists()]
        assert not strays[0].parent.exists()
        assert outcome.temporary == Removed(3, 15)
        assert done(outcome)[ACCELEROMETER].removed["data"] == Removed(2, 10)
        assert {kind: found.files for kind, found in done(outcome)[ACCELEROMETER].removed.items()} == {
            "data": 2,
            "manifests": 1,
            "metadata": 1,
            "partial": 1,
        }
        sound(lake)

    def test_what_is_not_iceberg_s_stays(self, grown: Lake) -> None:
        lake = configured(grown, **AT_ONCE)
        own = [lake.root / "notes.txt", lake.root / "landing" / "notes.txt", lake.root / "pending" / "notes.txt"]
        own += [
            lake.catalog.folder(LEDGER) / "notes.txt",
            lake.catalog.folder(LEDGER) / "metadata" / "20-statistics.stats",
        ]
        for path in own:
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
        lake.maintain()
        assert all(path.read_text() == "mine" for path in own)

    def test_what_expires_stays_on_disk_until_the_time_of_grace_is_over(self, grown: Lake) -> None:
        aged(grown, 5)
        lake = configured(grown, keep_days=0.0, keep_snapshots=1)
        used = {file.path for file in lake.catalog.files(lake.catalog.table("customers_trusted"))}
        expiring = {
            Path(file.path)
            for state in lake.catalog.tables().values()
            for snapshot in state.snapshots
            for file in lake.catalog.files(state, snapshot)
        }
        outcome = lake.maintain()
        assert any(table.expired for table in outcome.tables)
        assert all(path.exists() for path in expiring), "whoever reads them began less than an hour ago"
        lake.maintain()
        assert all(path.exists() for path in expiring)
        lake.build()
        assert all(path.exists() for path in expiring), "a build removes what killed builds left, not this"
        aged(lake, 2)
        removed = lake.maintain()
        assert sum(table.removed["data"].files for table in removed.tables if "data" in table.removed) > 0
        assert {path for path in expiring if path.exists()} <= set.union(*walked(lake).values())
        assert all(Path(path).exists() for path in used)
        sound(lake)

    def test_a_lake_behind_a_link_is_maintained(self, grown: Lake, tmp_path: Path, slate: Slate) -> None:
        (tmp_path / "link").symlink_to(grown.root)
        linked = configured(Lake.open(tmp_path / "link"), **AT_ONCE)
        land(linked, slate, 8)
        build(linked, NOW)
        before = every(grown)
        linked.maintain()
        assert every(grown) == before
        sound(grown)
        configured(grown, **AT_ONCE).maintain()
        assert every(linked) == before
        sound(linked)

    def test_a_damaged_manifest_stops_the_removal_and_is_named(self, grown: Lake) -> None:
        lake = configured(grown, **AT_ONCE, target_size="1KB")
        current = lake.catalog.table("customers_trusted").current
        assert current is not None
        path = Path(current.manifest_list.removeprefix("file://"))
        path.write_bytes(b"no Avro")
        kept = set(lake.catalog.folder("customers_trusted").rglob("*.parquet"))
        with pytest.raises(LakeError, match=f"customers_trusted: metadata/{path.name}"):
            lake.maintain()
        assert all(path.exists() for path in kept)

    def test_the_folder_of_a_query_that_runs_stays(self, grown: Lake) -> None:
        lake = configured(grown, **AT_ONCE)
        with lake.query("select * from range(3)") as result:
            [folder] = (lake.root / "tmp").glob("query-*")
            assert durable.is_held(folder)
            lake.maintain()
            assert folder.exists()
            assert result.reader().read_all().num_rows == 3
        assert not folder.exists()


class TestKilled:
    @pytest.mark.thorough
    def test_orphans_of_killed_commands_go(self, grown: Lake, slate: Slate) -> None:
        before = every(grown)
        inbox = slate.inbox()
        deliver(inbox, "accelerometer", [motion("late@x.example", 5)], "late.json")
        script = "import os, signal, sys\nfrom stedi.lake import Lake\nfrom stedi.catalog import Catalog\n"
        kill = "lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)"
        landing = f"{script}from stedi.landing import journal\njournal.write = {kill}\n"
        killed(f"{landing}Lake.open(sys.argv[1]).land(sys.argv[2])", grown.root, inbox)
        # as in a bucket, whose catalog commits to one table at a time
        each = "Catalog.publish_all = lambda self, changes, branch: self._publish_each(changes, branch)\n"
        killed(f"{script}{each}Catalog.publish = {kill}\nLake.open(sys.argv[1]).build(full=True)", grown.root)
        killed(f"{script}Catalog.replace = {kill}\nLake.open(sys.argv[1]).maintain()", grown.root)
        assert any(len(state.branches) > 1 for state in grown.catalog.tables().values())
        configured(grown, keep_days=9.0).maintain()
        assert all(set(state.branches) == {"main"} for state in grown.catalog.tables().values())
        lake = configured(grown, **AT_ONCE)
        lake.maintain()
        sound(lake)
        lean(lake)
        assert list((lake.root / "tmp").iterdir()) == []
        assert every(lake) == before

    def test_a_journal_that_a_killed_landing_left_is_finished_first(self, grown: Lake, slate: Slate) -> None:
        before = sum(rows(grown, ACCELEROMETER).values())
        inbox = slate.inbox()
        deliver(inbox, "accelerometer", [motion("late@x.example", 5)], "late.json")
        killed(
            "import os, signal, sys\nfrom stedi.lake import Lake\nfrom stedi.landing import journal\n"
            "journal.apply = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
            "Lake.open(sys.argv[1]).land(sys.argv[2])",
            *(grown.root, inbox),
        )
        assert list((grown.root / "pending").glob("*.json"))
        lake = configured(grown, **AT_ONCE)
        foreseen = lake.maintain(dry_run=True)
        assert "data" not in done(foreseen)[ACCELEROMETER].removed, "the journal names its files"
        assert list((grown.root / "pending").glob("*.json"))
        lake.maintain()
        assert not list((grown.root / "pending").glob("*.json"))
        assert sum(rows(lake, ACCELEROMETER).values()) == before + 1
        sound(lake)
        conserved(lake)

    @pytest.mark.parametrize("when", ["before", "after"])
    @pytest.mark.thorough
    def test_a_failure_at_any_step_leaves_whole_tables_and_the_next_run_finishes(
        self, grown: Lake, slate: Slate, when: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Steps are the writing of files, each commit to the catalog, and each removal of a file or folder."""
        few = ("customers_landing", "customers_trusted")
        monkeypatch.setattr(maintenance, "ALL_ZONES", {name: ZONES[name] for name in few})
        before = every(grown)
        kept = grown.root.parent / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(grown.root, kept)
        steps = Steps(monkeypatch)
        configured(grown, **AT_ONCE).maintain()
        wanted = steps.names
        assert {"write", "commit", "unlink"} == set(wanted)
        chosen = [n for n, name in enumerate(wanted) if name != "unlink" or NIGHTLY or n % 25 == 0]
        for number in chosen:
            shutil.rmtree(grown.root)
            shutil.copytree(kept, grown.root)
            lake = configured(unseen(grown.root), **AT_ONCE)
            steps.fail(number, when)
            with pytest.raises(Died):
                lake.maintain()
            steps.fail(None, when)
            sound(lake)
            assert every(lake) == before, (number, wanted[number])
            lake.maintain()
            sound(lake)
            lean(lake, few)
            assert idle(lake.maintain(dry_run=True), few)
        assert every(lake) == before
        shutil.rmtree(kept)
        print(f"{len(chosen)} of {len(wanted)} steps")


class Died(BaseException):
    """What stands for the end of a process."""


class Steps:
    """Counts the steps of a maintenance and has one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.names: list[str] = []
        self._at: int | None = None
        self._when = "before"
        from stedi.catalog.local import Local

        for owner, name, called in (
            (DuckDB, "write", "write"),
            (Local, "commit", "commit"),
            (Path, "unlink", "unlink"),
        ):
            patch.setattr(owner, name, self._counted(getattr(owner, name), called))

    def fail(self, at: int | None, when: str) -> None:
        self.names, self._at, self._when = [], at, when

    def _counted(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        def counted(*arguments: Any, **more: Any) -> Any:
            number = len(self.names)
            self.names.append(name)
            if number == self._at and self._when == "before":
                raise Died
            result = function(*arguments, **more)
            if number == self._at:
                raise Died
            return result

        return counted


def killed(script: str, *arguments: str | Path) -> None:
    """Runs Python code that ends itself by SIGKILL."""
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False, timeout=120)
    assert done.returncode == -9


@settings(max_examples=200 if NIGHTLY else 5, suppress_health_check=list(HealthCheck), print_blob=True)
@given(data=st.data(), seed=st.integers(0, 2**32))
@pytest.mark.thorough
def test_any_lake_keeps_its_rows_and_builds_as_if_nothing_had_been_done(
    slate: Slate, data: st.DataObject, seed: int
) -> None:
    rng = Random(seed)
    lake, inbox = slate.wiped(), slate.inbox()
    paths = write_world(data.draw(worlds(people=5, readings=9)), inbox, rng)
    for path in paths:
        lake.land(path)
        deed = rng.choice(["build", "maintain", "both", "nothing", "nothing", "nothing"])
        if deed in ("build", "both"):
            build(lake, NOW)
        if deed in ("maintain", "both"):
            other = configured(
                lake,
                keep_days=rng.choice([0.0, 7.0]),
                keep_snapshots=rng.randint(1, 4),
                grace_hours=rng.choice([0.0, 1.0]),
                target_size=rng.choice(["2KB", "10KB", "128MB"]),
            )
            before = every(lake)
            other.maintain()
            sound(lake)
            assert every(lake) == before
            if deed == "both":
                assert build(lake, NOW).run == "", "no row has changed"
    build(lake, NOW)
    conserved(lake)
    assert contents(lake) == _rebuilt(lake)


@pytest.mark.thorough
def test_beside_landings_builds_and_queries_of_other_processes_nothing_is_lost(grown: Lake, slate: Slate) -> None:
    inbox = slate.inbox()
    for n in range(20, 23):
        deliver(inbox, "customer", [customer(f"p{n}@x.example", serialNumber=f"s{n}")], f"{n}.json")
        deliver(inbox, "accelerometer", [motion(f"p{n}@x.example", at) for at in range(1, 5)], f"{n}.json")
        deliver(inbox, "step_trainer", [step(f"s{n}", at) for at in range(1, 5)], f"{n}.json")
    start = "import sys\nfrom pathlib import Path\nfrom stedi.lake import Lake\nlake = Lake.open(sys.argv[1])\n"
    landing = f"{start}for path in sorted(Path(sys.argv[2]).rglob('*.json')): lake.land(path)"
    building = f"{start}for _ in range(3): lake.build()"  # it waits for maintenance without being told to
    asking = (
        f"{start}for _ in range(3):\n"
        "    n = lake.query('select count(*) as n from customers_landing').arrow()['n'][0].as_py()\n"
        "    assert n >= 3, n"
    )
    commands = [[sys.executable, "-c", script, str(grown.root), str(inbox)] for script in (landing, building, asking)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for command in commands]
    lake = configured(grown, keep_days=0.0, keep_snapshots=2, grace_hours=0.002)
    rounds = 0
    while any(process.poll() is None for process in running):
        lake.maintain()
        rounds += 1
        time.sleep(0.1)
    for process in running:
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
    assert rounds
    sound(lake)
    conserved(lake)
    lake.build()
    found = contents(lake)
    assert sum(found["customers_trusted"].values()) == 6
    lake.build(full=True)
    assert contents(lake) == found
    configured(lake, **AT_ONCE).maintain()
    lean(lake)


def test_a_query_that_began_before_reads_on_to_its_end(grown: Lake) -> None:
    aged(grown, 5)
    lake = configured(grown, keep_days=0.0, keep_snapshots=1, query_memory="64MB")
    sql = f"select a.* from {ACCELEROMETER} as a, range(50_000)"
    with lake.query(sql) as result:
        batches: Iterator[Any] = iter(result)
        read = next(batches).num_rows
        lake.maintain()
        lake.maintain()
        read += sum(batch.num_rows for batch in batches)
    assert read == 24 * 50_000


def test_a_second_maintenance_waits_for_the_first(grown: Lake) -> None:
    said: list[str] = []
    script = (
        "import sys, time\nfrom pathlib import Path\nfrom stedi.storage import durable\n"
        "with durable.lock(Path(sys.argv[1]), wait=False):\n    print('held', flush=True)\n    time.sleep(0.5)"
    )
    command = [sys.executable, "-c", script, str(grown.root / "maintain.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        grown.maintain(progress=lambda what, share: said.append(what))
    assert said[0] == "waiting for another maintain"
    assert said[1:] == [f"maintain {name}, {n} of {len(ZONES)}" for n, name in enumerate(ZONES, start=1)]


class TestCommand:
    def run(self, lake: Lake, *words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "stedi.cli", "--lake", str(lake.root), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)

    def test_it_prints_a_line_a_table_and_what_was_freed(self, grown: Lake) -> None:
        shown = self.run(grown, "maintain", "--dry-run")
        assert re.search(rf"^{ACCELEROMETER} +3 +[\d,]+ +1 +3 +0 ", shown.stdout, re.MULTILINE)
        assert shown.stdout.rstrip().splitlines()[-1].startswith("to free: ")
        made = self.run(grown, "maintain")
        assert re.search(rf"^{ACCELEROMETER} +3 +[\d,]+ +1 +3 +0 ", made.stdout, re.MULTILINE)
        assert made.stdout.rstrip().splitlines()[-1].startswith("freed: ")

    def test_json_is_one_document_of_the_same(self, grown: Lake) -> None:
        shown = render.maintenance_json(grown.maintain(dry_run=True))
        made = json.loads(self.run(grown, "--json", "maintain").stdout)
        assert re.fullmatch(r"\d{13}-[0-9a-f]{8}", made["run"])
        assert [table["name"] for table in made["tables"]] == list(ZONES)
        [table] = [table for table in made["tables"] if table["name"] == ACCELEROMETER]
        assert (table["compacted"]["files"], table["compacted"]["into"], table["manifests"]) == (3, 1, 3)
        assert (table["expired"], table["removed"], table["freed"]) == ([], {}, 0)
        assert made["temporary"] == {"files": 0, "bytes": 0}
        assert made["freed"] == 0
        assert shown["tables"] == made["tables"]
