"""The search for somebody's traces: what it finds, in every kind of file, and what it passes over."""

from __future__ import annotations

import base64
import bz2
import gzip
import json
import lzma
import os
import shutil
import signal
import socket
import sqlite3
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

import quick
from deliveries import customer, deliver
from erasing import ANA, CY, NOW, Stage, erase
from lakes import build
from stedi.engines.duckdb import DuckDB
from stedi.erasure.identifiers import Identifiers
from stedi.errors import AuditFailed
from stedi.privacy import tombstones


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


def _in_dictionary(path: Path) -> None:
    texts = pa.DictionaryArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array(["x", ANA]))
    pq.write_table(pa.table({"a": [1, 2], "b": texts}), path, compression="zstd", store_schema=False)
    assert ANA not in str(pq.read_table(path).to_pylist()), "no row has it"


def _as_parquet(path: Path) -> None:
    with DuckDB(memory="100MB", threads=1, temporary=path.parent) as engine:
        engine.connection.execute(f"copy (select 1 as a, 'x {ANA}' as b) to '{path}' (format parquet)")


def _sql(path: Path, select: str, options: str = "") -> None:
    with DuckDB(memory="100MB", threads=1, temporary=path.parent) as engine:
        engine.connection.execute(f"copy ({select}) to '{path}' (format parquet{options})")


def _as_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/b.txt", gzip.compress(f"to {ANA}".encode("utf-16")))


def _as_broken_parquet(path: Path) -> None:
    path.write_bytes(b"PAR1" + b"\0\x15" * 50 + ANA.encode() + b"\xff" * 9 + b"PAR1")


def _as_attribute(path: Path) -> None:
    path.write_text("")
    try:
        os.setxattr(path, "user.note", f"of {ANA}".encode())
    except OSError:
        pytest.skip("no extended attributes here")


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
    "a dictionary of Parquet": _in_dictionary,
    "utf-16 that begins late, and at an odd place": lambda path: path.write_bytes(
        b"x" * ((5 << 20) + 1) + ANA.encode("utf-16-le")
    ),
    "utf-16, other order": lambda path: path.write_bytes(b"x" * 3 + ANA.encode("utf-16-be")),
    "utf-32": lambda path: path.write_bytes(b"xyz" + ANA.encode("utf-32")),
    "bzip2": lambda path: path.write_bytes(bz2.compress(ANA.encode())),
    "xz": lambda path: path.write_bytes(lzma.compress(ANA.encode())),
    "lzma": lambda path: path.write_bytes(lzma.compress(ANA.encode(), format=lzma.FORMAT_ALONE)),
    "zlib": lambda path: path.write_bytes(zlib.compress(ANA.encode())),
    "packed thrice": lambda path: path.write_bytes(bz2.compress(gzip.compress(lzma.compress(ANA.encode())))),
    "gzip with more behind it": lambda path: path.write_bytes(gzip.compress(ANA.encode()) + b"\nmore"),
    "zip": _as_zip,
    "percent-encoded": lambda path: path.write_text(f"?to={ANA.replace('@', '%40')}&x=1"),
    "JSON in JSON": lambda path: path.write_text(json.dumps({"a": json.dumps({"b": json.dumps(f"\n{ANA}")})})),
    "base64": lambda path: path.write_bytes(base64.b64encode(f"sent to {ANA}".encode())),
    "gzip in base64": lambda path: path.write_bytes(
        b'{"awslogs": {"data": "%s"}}' % base64.b64encode(gzip.compress(f"sent to {ANA}".encode()))
    ),
    "nested columns": lambda path: _sql(path, f"select [{{'a': map {{'k': 'x {ANA}'}}}}] as b"),
    "a nested name": lambda path: _sql(path, f"select {{'{ANA}': 1}} as b"),
    "the name of a column": lambda path: _sql(path, f'select 1 as "{ANA}"'),
    "metadata of Parquet": lambda path: _sql(path, "select 1 as a", f", kv_metadata {{note: 'of {ANA}'}}"),
    "a column called reason": lambda path: _sql(path, f"select 'x {ANA}' as reason"),
    "a column called batch": lambda path: _sql(path, f"select 'x {ANA}' as batch"),
    "a blob": lambda path: _sql(path, f"select encode('{ANA}') as a"),
    "broken Parquet": _as_broken_parquet,
    "extended attribute": _as_attribute,
    "folder": lambda path: path.mkdir() or (path / "deep").write_text(ANA),
    "link to a folder": lambda path: path.symlink_to(f"/tmp/{ANA}", target_is_directory=True),
    "binary": lambda path: path.write_bytes(b"\0\xff" * 100 + ANA.encode() + b"\0"),
}


@pytest.mark.parametrize(
    "kinds",
    [["text"], ["extended attribute"], [kind for kind in PLANTED if kind != "extended attribute"]],
    ids=["one alone", "one that some machines have not", "all others"],
)
def test_a_trace_in_any_kind_of_file_is_found_and_named_and_the_erasure_ends_all_the_same(
    stage: Stage, kinds: list[str]
) -> None:
    lake, folder = stage.made()
    planted = {f"planted-{number}": kind for number, kind in enumerate(kinds)}
    for name, kind in planted.items():
        PLANTED[kind](lake.root / name)
    with pytest.raises(AuditFailed, match="planted") as failed:
        erase(lake, ANA)
    assert ANA not in str(failed.value).lower()
    assert not (lake.root / tombstones.PENDING).exists()
    lake.land(deliver(folder, "customer", [customer(CY, update=800)], "later.json"))
    for name in planted:
        path = lake.root / name
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    erase(lake, ANA)
    first, second = lake.receipts()
    assert (first.clean, second.clean, second.scanned["found"]) == (False, True, [])
    found = {found.split()[0].split("/")[0] for found in first.scanned["found"]}
    assert [planted[name] for name in planted if name not in found] == []
    assert found == {*planted}
    assert ANA not in json.dumps(first.document).lower()


def test_what_is_no_file_is_named_and_never_opened_and_keeps_nothing_from_working(stage: Stage) -> None:
    lake, folder = stage.made()
    os.mkfifo(lake.root / "pipe")
    os.mkfifo(lake.root / "landing" / "customers_landing" / "data" / "pipe.parquet")
    os.mkfifo(lake.root / "landing" / "customers_landing" / "metadata" / "pipe.metadata.json")
    os.mkfifo(lake.root / "tmp" / "pipe")
    (lake.root / "broken.parquet").write_bytes(b"PAR1 and no more")
    (lake.root / "broken.gz").write_bytes(gzip.compress(b"x" * 1000)[:-9])
    with socket.socket(socket.AF_UNIX) as listening, _within(seconds=120):
        listening.bind(str(lake.root / "socket"))
        lake.land(deliver(folder, "customer", [customer(CY, update=800)], "later.json"))
        build(lake, NOW)
        receipt = erase(lake, ANA)
        assert receipt["clean"]
        assert {"pipe", "socket"} <= set(receipt["scanned"]["not_opened"])
        assert receipt["scanned"]["not_decoded"] == ["broken.gz", "broken.parquet"]
        assert {"UTF-16", "zip", "base64"} <= set(receipt["scanned"]["read_as"])
        lake.land(deliver(folder, "customer", [customer(CY, update=801)], "latest.json"))
        build(lake, NOW)
        lake.maintain()
        assert not [check for check in lake.audit(files=True) if check.found]


@contextmanager
def _within(seconds: int) -> Iterator[None]:
    """Fails whoever waits for something that never comes."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def test_a_file_named_after_them_is_found(stage: Stage) -> None:
    lake, _ = stage.made()
    (lake.root / f"notes on {ANA}").write_text("")
    with pytest.raises(AuditFailed, match="a file named after them") as failed:
        erase(lake, ANA)
    assert ANA not in str(failed.value)


class TestTraces:
    """What counts as naming somebody."""

    key = tombstones.Key(bytes(32))
    known = Identifiers(
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
        assert Identifiers(self.key, {tombstones.person(self.key, ANA)}).found(f"x {ANA.title()} y")
