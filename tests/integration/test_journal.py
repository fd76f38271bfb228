"""The journal of a batch: written first, applied once, finished by whoever comes next."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stedi.catalog import Catalog
from stedi.engines.duckdb import DuckDB
from stedi.errors import CommitConflict, KeyRefused, LakeError
from stedi.lake import Lake
from stedi.landing import journal
from stedi.landing.journal import Appends
from stedi.privacy import state
from stedi.schema.tables import DataFile
from stedi.storage import config as settings
from stedi.storage import durable

LANDING, QUARANTINE, LEDGER = "step_trainer_landing", "quarantine", "landed_files"


class Batch:
    """A lake, and files for its tables that no table has yet."""

    def __init__(self, lake: Lake) -> None:
        self.lake, self.catalog, self.pending = lake, lake.catalog, lake.root / "pending"

    def files(self, table: str, name: str, rows: int) -> tuple[DataFile, ...]:
        with self._engine() as engine:
            sql = {
                LANDING: f"select i as sensorReadingTime, '{name}' as serialNumber, 1::bigint as distanceFromObject, "
                f"null::varchar as _extra, '{name}' as _file from range({rows}) as t (i)",
                QUARANTINE: f"select 'customer' as feed, '{name}' as file, 'ff' as sha256, i as \"offset\", i as line, "
                "'malformed' as reason, 'x'::blob as raw, 1::bigint as raw_size, 'b' as batch, instant(1) as landed_at "
                f"from range({rows}) as t (i)",
                LEDGER: f"select '{name}' as sha256, '{name}' as name, 'customer' as feed, 1::bigint as size, "
                "i as seen, i as accepted, 0::bigint as quarantined, 0::bigint as erased, 'b' as batch, "
                f"instant(1) as landed_at from range({rows}) as t (i)",
            }[table]
            return engine.write(table, sql, self.catalog.folder(table) / "data" / name)

    def appends(self, name: str = "one") -> Appends:
        return {table: self.files(table, name, rows) for table, rows in ((LANDING, 3), (QUARANTINE, 2), (LEDGER, 1))}

    def rows(self) -> dict[str, int]:
        with self._engine() as engine:
            found = {}
            for table in (LANDING, QUARANTINE, LEDGER):
                engine.bind_files(table, self.catalog.files(self.catalog.table(table)))
                [(found[table],)] = engine.rows(f"select count(*) from {table}")
        return found

    def write(self, name: str, appends: Appends, replaces: Appends | None = None) -> Path:
        return journal.write(self.pending, name, appends, replaces, key=self.lake.key())

    def apply(self, path: Path) -> None:
        journal.apply(self.catalog, path, self.lake.key())

    def finish(self) -> int:
        return journal.finish(self.lake.context)

    def left(self) -> list[str]:
        return sorted(path.name for path in self.pending.iterdir()) if self.pending.is_dir() else []

    def _engine(self) -> DuckDB:
        return DuckDB(memory="100MB", threads=1, temporary=self.lake.root / "tmp" / "test")


@pytest.fixture
def batch(lake: Lake) -> Batch:
    return Batch(lake)


ONCE = {LANDING: 3, QUARANTINE: 2, LEDGER: 1}
NEVER = dict.fromkeys(ONCE, 0)


def test_a_batch_is_in_all_its_tables_and_leaves_no_journal(batch: Batch) -> None:
    path = batch.write("one", batch.appends())
    assert batch.left() == ["one.json"]
    assert batch.rows() == NEVER
    batch.apply(path)
    assert batch.rows() == ONCE
    assert batch.left() == []
    assert batch.finish() == 0


def test_applying_a_journal_twice_changes_nothing(batch: Batch) -> None:
    path = batch.write("one", batch.appends())
    content = path.read_bytes()
    batch.apply(path)
    durable.write(path, content)  # as if its removal had not reached the disk
    heads = {name: state.current for name, state in batch.catalog.tables().items()}
    assert batch.finish() == 1
    assert batch.rows() == ONCE
    assert {name: state.current for name, state in batch.catalog.tables().items()} == heads


def test_commits_are_made_in_the_order_of_the_journal(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []
    append = Catalog.append

    def recorded(self: Catalog, table: str, *rest: Any, **named: Any) -> int | None:
        made.append(table)
        return append(self, table, *rest, **named)

    monkeypatch.setattr(Catalog, "append", recorded)
    batch.apply(batch.write("one", batch.appends()))
    assert made == [LANDING, QUARANTINE, LEDGER]


def test_journals_are_finished_oldest_first(batch: Batch) -> None:
    for name in ("2-b", "1-a"):
        batch.write(name, batch.appends(name))
    assert batch.finish() == 2
    summaries = [s.summary.get("stedi.batch") for s in batch.catalog.table(LEDGER).history()]
    assert summaries[:2] == ["2-b", "1-a"]
    assert batch.rows() == {table: 2 * rows for table, rows in ONCE.items()}


def test_a_table_without_files_gets_no_commit(batch: Batch) -> None:
    before = batch.catalog.table(QUARANTINE)
    batch.apply(batch.write("one", {QUARANTINE: (), LEDGER: batch.files(LEDGER, "x", 1)}))
    assert batch.catalog.table(QUARANTINE) == before
    assert batch.rows()[LEDGER] == 1


@pytest.mark.parametrize("left", [0, 1])
def test_what_is_replaced_is_replaced_once_and_whole(batch: Batch, left: int) -> None:
    batch.apply(batch.write("one", batch.appends()))
    kept = batch.files(QUARANTINE, "kept", left)
    path = batch.write("two", {LANDING: batch.files(LANDING, "two", 1)}, {QUARANTINE: kept})
    content = path.read_bytes()
    batch.apply(path)
    durable.write(path, content)
    batch.finish()
    assert batch.rows() == {LANDING: 4, QUARANTINE: left, LEDGER: 1}
    assert batch.catalog.table(QUARANTINE).branches.keys() == {"main"}


def test_replacements_can_follow_each_other(batch: Batch) -> None:
    for name, rows in (("a", 5), ("b", 0), ("c", 2), ("d", 1)):
        kept = batch.files(QUARANTINE, name, rows)
        batch.apply(batch.write(name, {}, {QUARANTINE: kept}))
        assert batch.rows()[QUARANTINE] == rows


def test_a_replacement_that_died_between_stage_and_publish_is_finished(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch.apply(batch.write("one", batch.appends()))
    path = batch.write("two", {}, {QUARANTINE: batch.files(QUARANTINE, "kept", 1)})

    def die(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "publish", die)
        with pytest.raises(KeyboardInterrupt):
            batch.apply(path)
    assert batch.rows() == ONCE
    assert batch.catalog.table(QUARANTINE).branches.keys() == {"main", "two"}
    batch.finish()
    assert batch.rows() == {**ONCE, QUARANTINE: 1}
    assert batch.catalog.table(QUARANTINE).branches.keys() == {"main"}
    assert batch.left() == []


def test_a_conflict_leaves_the_journal_for_the_next(batch: Batch, monkeypatch: pytest.MonkeyPatch) -> None:
    def conflict(*_: object, **__: object) -> int:
        raise CommitConflict("other writers came first")

    path = batch.write("one", batch.appends())
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append", conflict)
        with pytest.raises(CommitConflict):
            batch.apply(path)
    assert batch.left() == ["one.json"]
    batch.finish()
    assert batch.rows() == ONCE


@pytest.mark.parametrize("call", ["replace", "fsync"])
@pytest.mark.parametrize("time", ["before", "after"])
def test_a_journal_that_could_not_be_written_for_certain_is_none(
    batch: Batch, monkeypatch: pytest.MonkeyPatch, call: str, time: str
) -> None:
    appends = batch.appends()
    real = getattr(os, call)

    def fail(*arguments: object) -> None:
        if time == "after":
            real(*arguments)
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space left"):
            batch.write("one", appends)
    assert batch.left() == []
    assert batch.finish() == 0
    assert batch.rows() == NEVER


def test_a_torn_journal_was_never_one(batch: Batch) -> None:
    batch.pending.mkdir()
    (batch.pending / ".one.json.partial").write_text('{"batch": "one", "app')
    assert batch.finish() == 0


def test_no_journals_at_all_are_none_to_finish(batch: Batch) -> None:
    assert not batch.pending.exists()
    assert batch.finish() == 0


def test_a_journal_holds_paths_and_counts_and_its_owners_eyes_alone(batch: Batch) -> None:
    path = batch.write("one", batch.appends())
    assert path == journal.place(batch.pending, "one")
    assert path.stat().st_mode & 0o077 == 0
    content = json.loads(path.read_bytes().partition(b"\n")[2])
    assert content.keys() == {"batch", "appends", "replaces", "base"}
    for table, files in content["appends"].items():
        for file in files:
            assert set(file) == {"path", "rows", "bytes", "nulls", "bounds", "sha256"}
            assert Path(file["path"]).is_relative_to(batch.catalog.folder(table))
            assert all(isinstance(float(bound), float) for bounds in file["bounds"].values() for bound in bounds)


def plain(path: Path) -> bytes:
    """Returns a journal as lakes wrote it before they sealed any."""
    content = path.read_bytes().partition(b"\n")[2]
    return hashlib.sha256(content).hexdigest().encode() + b"\n" + content


def test_only_what_this_lake_has_sealed_as_this_landing_is_finished(
    batch: Batch, new_lake: Callable[..., Lake]
) -> None:
    path = batch.write("one", batch.appends())
    sealed, forged, key = path.read_bytes(), plain(path), batch.lake.key()
    content = json.loads(sealed.partition(b"\n")[2])
    other = new_lake("other").config.lake_id
    assert other != batch.lake.config.lake_id
    for raw in (
        forged,
        state.sealed("landing", other, key, content),
        state.sealed("erasure", batch.lake.config.lake_id, key, content),
        state.sealed("landing", batch.lake.config.lake_id, key, {**content, "batch": "two"}),
        sealed + b" ",
    ):
        durable.write(path, raw)
        with pytest.raises(LakeError, match=r"pending/one\.json: expected a landing's journal"):
            batch.finish()
        assert batch.rows() == NEVER
    durable.write(path, sealed)
    assert batch.finish() == 1
    assert batch.rows() == ONCE


def test_a_lake_of_before_finishes_what_it_had_begun(batch: Batch) -> None:
    path = batch.write("one", batch.appends())
    durable.write(path, plain(path))
    root, config = batch.lake.root, batch.lake.config
    was = batch.lake.key().of_version(1).fingerprint
    settings.write(dataclasses.replace(config, key_version=1, key_fingerprint=was), root / "lake.toml")
    old = Lake.open(root)
    assert journal.finish(old.context) == 1
    assert batch.rows() == ONCE


def test_maintenance_asks_for_the_key_where_a_landing_was_cut_off_and_nowhere_else(
    batch: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = batch.lake
    with monkeypatch.context() as patch:
        patch.delenv("STEDI_PSEUDONYM_KEY")
        lake.maintain()
    batch.write("one", batch.appends())
    with monkeypatch.context() as patch:
        patch.delenv("STEDI_PSEUDONYM_KEY")
        with pytest.raises(KeyRefused):
            lake.maintain()
        assert lake.maintain(dry_run=True)
    assert batch.rows() == NEVER
    lake.maintain()
    assert batch.rows() == ONCE
