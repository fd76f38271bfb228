"""The search for somebody's traces: what it finds, in every kind of file, and what it passes over."""

from __future__ import annotations

import gzip
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import fastavro
import pytest
import zstandard

import quick
from erasing import ANA, CY, Stage, erase
from lakes import (
    customer,
    deliver,
)
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed
from stedi.privacy import tombstones
from stedi.privacy.traces import Traces


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


def _as_avro(path: Path) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": {"type": "map", "values": "string"}}]}
    with path.open("wb") as stream:
        fastavro.writer(stream, schema, [{"a": {"x": f"y {ANA}"}}], codec="deflate")


def _as_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (a blob)")
        connection.execute("insert into t values (?)", (ANA,))
        connection.commit()


def _as_parquet(path: Path) -> None:
    with DuckDB(memory="100MB", threads=1, temporary=path.parent) as engine:
        engine.connection.execute(f"copy (select 1 as a, 'x {ANA}' as b) to '{path}' (format parquet)")


PLANTED: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text(f"see {ANA.upper()}, please"),
    "escaped": lambda path: path.write_text(ANA.replace("a", r"\u0061")),
    "utf-16": lambda path: path.write_bytes(ANA.encode("utf-16")),
    "gzip": lambda path: path.write_bytes(gzip.compress(ANA.encode())),
    "zstd": lambda path: path.write_bytes(zstandard.compress(ANA.encode())),
    "link": lambda path: path.symlink_to(f"/nowhere/{ANA}"),
    "avro": _as_avro,
    "sqlite": _as_sqlite,
    "parquet": _as_parquet,
    "binary": lambda path: path.write_bytes(b"\0\xff" * 100 + ANA.encode() + b"\0"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_trace_in_any_kind_of_file_is_found_and_named_and_the_erasure_ends_all_the_same(
    stage: Stage, kind: str
) -> None:
    lake, folder = stage.made()
    PLANTED[kind](lake.root / "planted")
    with pytest.raises(AuditFailed, match="planted") as failed:
        erase(lake, ANA)
    assert ANA not in str(failed.value).lower()
    assert not (lake.root / tombstones.PENDING).exists()
    lake.land(deliver(folder, "customer", [customer(CY, update=800)], "later.json"))
    (lake.root / "planted").unlink()
    erase(lake, ANA)
    assert [(receipt["clean"], receipt["scanned"]["found"]) for receipt in lake.receipts()] == [
        (False, ["planted (b)" if kind == "parquet" else "planted"]),
        (True, []),
    ]


def test_a_file_named_after_them_is_found(stage: Stage) -> None:
    lake, _ = stage.made()
    (lake.root / f"notes on {ANA}").write_text("")
    with pytest.raises(AuditFailed, match="a file named after them") as failed:
        erase(lake, ANA)
    assert ANA not in str(failed.value)


class TestTraces:
    """What counts as naming somebody."""

    key = tombstones.Key(bytes(32))
    known = Traces(
        key, {tombstones.person(key, ANA)}, frozenset({ANA, "ana bo lund", "al"}), frozenset({"device-1", "s1"})
    )

    @pytest.mark.parametrize(
        "text",
        [
            ANA.upper(), f"<{ANA}>", f"to:{ANA}.", f'"{ANA}"', f"{ANA}.json", "Ana Bo LUND", '{"name": "Al"}', "al",
            '"s1"', "x\ns1\ny", "device-1", r"ana.bo\u0040test.example", r"an\u0061 bo lund",
        ],
    )  # fmt: skip
    def test_is_found(self, text: str) -> None:
        assert self.known.found(text)

    @pytest.mark.parametrize(
        "text",
        [
            f"jo{ANA}", f"x.{ANA}", f"{ANA}.au", "ana bo lundgren", "Alma", "s1x", "Device-1", "device-11", "s1 s2", "",
        ],
    )  # fmt: skip
    def test_is_not_found(self, text: str) -> None:
        assert not self.known.found(text)

    def test_an_address_is_known_by_its_mark_alone(self) -> None:
        assert Traces(self.key, {tombstones.person(self.key, ANA)}).found(f"x {ANA.title()} y")
