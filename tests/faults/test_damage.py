"""Faults from outside: a catalog that is held, a damaged journal, a landing during a build."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from deliveries import customer, deliver, motion, step
from lakes import conserved, heads, rows
from stedi import catalog as catalogs
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, DamagedFile, LakeError
from stedi.lake import Lake
from stedi.landing import journal
from stedi.schema.tables import DataFile
from stedi.transform import consent_check


def delivery(folder: Path, email: str = "a@x.example", at: int = 100) -> Path:
    deliver(folder, "customer", [customer(email, serialNumber=email, update=at), {"email": email}])
    deliver(folder, "accelerometer", [motion(email, at), motion(email, at, 2.0)])
    deliver(folder, "step_trainer", [step(email, at)])
    return folder


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
        journal.finish(lake.context)
    assert heads(lake) == before
    assert (pending / "b.json").exists()


def test_any_flipped_bit_in_a_journal_is_found(lake: Lake, tmp_path: Path) -> None:
    pending, before = lake.root / "pending", heads(lake)
    data = lake.catalog.folder("landed_files") / "data"
    file = DataFile(str(data / "0.parquet"), 7, 100, {"feed": 0}, {"size": ("1", "9")})
    path = journal.write(pending, "b", {"landed_files": [file]}, key=lake.key())
    whole = path.read_bytes()
    for bit in range(0, len(whole) * 8, 11):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        path.write_bytes(flipped)
        with pytest.raises(LakeError, match=r"pending/b\.json: expected a landing's journal"):
            journal.finish(lake.context)
    path.write_bytes(whole)
    with pytest.raises(DamagedFile, match=r"0\.parquet: expected 100 bytes, found no file"):
        journal.finish(lake.context)
    assert heads(lake) == before


def test_a_journal_brings_no_file_from_elsewhere(lake: Lake, tmp_path: Path) -> None:
    pending, before = lake.root / "pending", heads(lake)
    data = lake.catalog.folder("landed_files") / "data"
    data.mkdir(parents=True, exist_ok=True)
    (data / "link").symlink_to(tmp_path)
    for table, path in (
        ("landed_files", tmp_path / "0.parquet"),
        ("landed_files", data / "link" / "0.parquet"),
        ("landed_files", data / ".." / "0.parquet"),
        ("landed_files", lake.catalog.folder("quarantine") / "data" / "0.parquet"),
        ("customers_trusted", lake.catalog.folder("customers_trusted") / "data" / "0.parquet"),
    ):
        journal.write(pending, "b", {table: [DataFile(str(path), 7, 100)]}, key=lake.key())
        with pytest.raises(
            LakeError, match=r"pending/b\.json: .*found one that names a file outside its table's folder"
        ):
            journal.finish(lake.context)
    (data / "link").unlink()
    assert heads(lake) == before


def test_a_stream_that_fails_on_its_way_tells_no_values(tmp_path: Path) -> None:
    sql = "select case when i = 200000 then error('ana@a.example') else 'x' end from range(300000) as n (i)"
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path / "spill") as engine:
        with pytest.raises(LakeError, match="refused a statement") as failed:
            list(engine.stream(sql))
        assert "ana@" not in str(failed.value)
        with pytest.raises(LakeError, match="refused a statement") as failed:
            engine.pseudonymise("people", f"select a as address from ({sql}) as f (a)", str.lower)
        assert "ana@" not in str(failed.value)


def test_a_build_that_breaks_a_rule_changes_no_file(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(delivery(tmp_path / "inbox"))
    monkeypatch.setattr(consent_check, "violations", lambda _, people, **__: [1] * len(people))
    files = {path for path in lake.root.rglob("*") if path.is_file()} | {lake.root / "build.lock"}
    with pytest.raises(AuditFailed, match="consent proof"):
        lake.build()
    assert {path for path in lake.root.rglob("*") if path.is_file()} == files


def test_a_landing_during_a_build_is_neither_lost_nor_half_built(lake: Lake, tmp_path: Path) -> None:
    lake.land(delivery(tmp_path / "inbox"))
    late = delivery(tmp_path / "late", "c@x.example", 400)

    def land_late(what: str, share: float | None) -> None:
        if what == "audit":
            lake.land(late)

    lake.build(progress=land_late)
    assert rows(lake, "customers_landing").total() == 2
    assert rows(lake, "customers_trusted").total() == 1, "built over what it was planned over"
    lake.build()
    assert rows(lake, "customers_trusted").total() == 2
