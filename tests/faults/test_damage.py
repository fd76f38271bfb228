"""Faults from outside: a disk that refuses, a catalog that is held, a damaged journal, a landing during a build."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from lakes import LANDING, conserved, customer, deliver, heads, motion, rows, step
from stedi import catalog as catalogs
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, DamagedFile, LakeError
from stedi.lake import Lake
from stedi.landing import journal
from stedi.privacy import consent
from stedi.tables import DataFile


class Fault(Exception):
    """What a test has fail."""


def delivery(folder: Path, email: str = "a@x.example", at: int = 100) -> Path:
    deliver(folder, "customer", [customer(email, serialNumber=email, update=at), {"email": email}])
    deliver(folder, "accelerometer", [motion(email, at), motion(email, at, 2.0)])
    deliver(folder, "step_trainer", [step(email, at)])
    return folder


def count_down(patch: pytest.MonkeyPatch, name: str, fatal: int) -> list[str]:
    """Has the call of `os.<name>` of this number fail, from 1; gives all that were made."""
    made: list[str] = []
    real: Callable[..., object] = getattr(os, name)

    def call(*args: object, **kwargs: object) -> object:
        made.append(name)
        if len(made) == fatal:
            raise Fault(name)
        return real(*args, **kwargs)

    patch.setattr(os, name, call)
    return made


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_a_landing_that_cannot_write_is_whole_after_the_next(lake: Lake, tmp_path: Path, name: str) -> None:
    inbox, kept = delivery(tmp_path / "inbox"), tmp_path / "kept"
    shutil.copytree(lake.root, kept)
    with pytest.MonkeyPatch.context() as patch:
        calls = count_down(patch, name, 0)
        lake.land(inbox)
    expected = {table: rows(lake, table) for table in LANDING}
    assert len(calls) > 10
    for fatal in range(1, len(calls) + 1, len(calls) // 7):
        shutil.rmtree(lake.root)
        shutil.copytree(kept, lake.root)
        again = Lake.open(lake.root)
        with pytest.MonkeyPatch.context() as patch:
            count_down(patch, name, fatal)
            with pytest.raises(Fault):
                again.land(inbox)
        again.land(inbox)
        assert {table: rows(again, table) for table in LANDING} == expected, fatal
        assert not list(lake.root.rglob(".*.partial")), fatal
        assert not list((lake.root / "pending").iterdir()), fatal
        conserved(again)


def test_a_catalog_that_another_program_holds_is_one_line_and_costs_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogs, "_PATIENCE", 0.1)
    with closing(sqlite3.connect(lake.root / "catalog.db", isolation_level=None)) as other:
        other.execute("begin immediate")
        with pytest.raises(LakeError, match=r"catalog\.db cannot be written \(database is locked\)") as failed:
            Lake.open(lake.root).land(delivery(tmp_path / "inbox"))
        assert "\n" not in str(failed.value)
        with pytest.raises(LakeError, match="cannot be written"):
            Lake.open(lake.root).build(full=True)
        other.execute("rollback")
    assert Lake.open(lake.root).build(full=True).consenting == 1, "the journal kept the landing"
    conserved(lake)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"batch": "b", "appends": {"quarantine": [{}]}, "replaces": {}}']
)
def test_a_damaged_journal_is_named_and_changes_nothing(lake: Lake, content: str) -> None:
    pending, before = lake.root / "pending", heads(lake)
    pending.mkdir(exist_ok=True)
    (pending / "b.json").write_text(content)
    with pytest.raises(LakeError, match=r"pending/b\.json: expected a landing's journal"):
        journal.finish(lake.catalog, pending)
    assert heads(lake) == before
    assert (pending / "b.json").exists()


def test_any_flipped_bit_in_a_journal_is_found(lake: Lake, tmp_path: Path) -> None:
    pending, before = lake.root / "pending", heads(lake)
    file = DataFile(str(tmp_path / "0.parquet"), 7, 100, {"feed": 0}, {"size": ("1", "9")})
    path = journal.write(pending, "b", {"landed_files": [file]})
    whole = path.read_bytes()
    for bit in range(0, len(whole) * 8, 11):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(LakeError, match=r"pending/b\.json: expected a landing's journal"):
            journal.finish(lake.catalog, pending)
    path.write_bytes(whole)
    with pytest.raises(DamagedFile, match=r"0\.parquet: expected 100 bytes, found no file"):
        journal.finish(lake.catalog, pending)
    assert heads(lake) == before


def test_a_stream_that_fails_on_its_way_tells_no_values(tmp_path: Path) -> None:
    sql = "select case when i = 200000 then error('ana@a.example') else 'x' end from range(300000) as n (i)"
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as engine:
        with pytest.raises(LakeError, match="in the middle of a result") as failed:
            list(engine.stream(sql))
        assert "ana@" not in str(failed.value)
        with pytest.raises(LakeError, match="in the middle of a result"):
            engine.pseudonymise("people", f"select a as address from ({sql}) as f (a)", str.lower)


def test_a_build_that_breaks_a_rule_changes_no_file(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(delivery(tmp_path / "inbox"))
    monkeypatch.setattr(consent, "violations", lambda *_, **__: 1)
    files = {path for path in lake.root.rglob("*") if path.is_file()} | {lake.root / "build.lock"}
    with pytest.raises(AuditFailed, match="consent proof"):
        lake.build()
    assert {path for path in lake.root.rglob("*") if path.is_file()} == files


def test_a_landing_during_a_build_is_neither_lost_nor_half_built(lake: Lake, tmp_path: Path) -> None:
    lake.land(delivery(tmp_path / "inbox"))
    late = delivery(tmp_path / "late", "c@x.example", 400)

    def land_late(line: str) -> None:
        if line == "audit":
            lake.land(late)

    lake.build(progress=land_late)
    assert rows(lake, "customers_landing").total() == 2
    assert rows(lake, "customers_trusted").total() == 1, "built over what it was planned over"
    lake.build()
    assert rows(lake, "customers_trusted").total() == 2
