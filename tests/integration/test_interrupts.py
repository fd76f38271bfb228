"""Ctrl-C at moments that nobody chose: it is answered as an interrupt, and the work can be done again."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

import talkative
from deliveries import customer, deliver, motion, step
from effort import NIGHTLY
from lakes import Slate, conserved, rows
from stedi.engines.duckdb import DuckDB
from stedi.lake import Lake
from stedi.landing import batch
from stedi.landing.deliveries import local
from stedi.landing.deliveries.local import Delivered
from stedi.landing.inspect import Inspected
from stedi.landing.reader import scanner
from stedi.schema.feeds import CONTRACTS

pytestmark = pytest.mark.own_engine


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("slate"))


@pytest.mark.parametrize(
    "work",
    [lambda engine, sql: engine.rows(sql), lambda engine, sql: list(engine.stream(sql))],
    ids=["rows", "stream"],
)
def test_an_interrupt_while_the_engine_works_is_an_interrupt(
    tmp_path: Path, work: Callable[[DuckDB, str], object]
) -> None:
    sql = "select count(*) from range(4000000) a, range(1000000) b where a.range * b.range % 7 = 3"
    with DuckDB(memory="256MB", threads=1, temporary=tmp_path) as engine:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            work(engine, sql)
        assert time.monotonic() - started < 10
        timer.join()


IMPORTING = """
import os, signal, sys, threading, time
from stedi import cli
def run(options):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    import slow
    time.sleep(20)
cli.pipeline.tables = run
code = cli.main(["tables"])
print(code, sys.modules["slow"].whole)
"""


def test_an_interrupt_waits_for_the_end_of_an_import(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.5)\nwhole = True\n")
    words = [sys.executable, "-c", IMPORTING]
    ended = subprocess.run(words, check=True, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.stdout == "130 True\n"
    assert "interrupted" in ended.stderr


@pytest.mark.parametrize("at", ["inspect", "prepare", "scan"])
def test_an_interrupt_does_not_wait_for_files_that_are_being_read(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    # sparse: minutes to read, and no space
    for name in ("accelerometer-1.json", "accelerometer-2.json", "accelerometer-3.json"):
        with open(tmp_path / name, "wb") as stream:
            stream.truncate(1 << 36)
    if at != "inspect":
        monkeypatch.setattr(batch, "inspect", _unread)
    if at == "prepare":
        monkeypatch.setattr(scanner, "library", lambda: None)
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        lake.land(tmp_path / "accelerometer-1.json", tmp_path / "accelerometer-2.json", tmp_path)
    assert time.monotonic() - started < 0.7 + limit()
    timer.join()
    assert not list((lake.root / "tmp" / "landing").iterdir())


def _unread(file: Delivered, *_: object) -> Inspected:
    """What a first look might say of a file that is not clean."""
    contract = CONTRACTS["accelerometer"]
    with local.open_regular(file.path) as stream:
        return Inspected(file, contract, file.name, 1 << 36, local.fingerprint(stream.fileno()), None, None)


@cache
def limit() -> float:
    """Seconds in which an interrupted command must have ended: two, or as many as starting takes twice."""
    started = time.monotonic()
    subprocess.run([sys.executable, "-c", "import pyiceberg.catalog.sql, pyarrow.dataset"], check=True)
    return max(2.0, 2 * (time.monotonic() - started))


@pytest.mark.parametrize("turn", range(25 if NIGHTLY else 2))
@pytest.mark.parametrize("command", ["land", "build"])
def test_an_interrupt_at_any_moment_is_answered_soon_and_leaves_work_that_can_be_done_again(
    slate: Slate, command: str, turn: int
) -> None:
    delay = random.Random(f"{command} {turn}").uniform(0, 0.5)
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [customer()])
    deliver(inbox, "accelerometer", [motion(at=n) for n in range(1, 3000)])
    deliver(inbox, "step_trainer", [step(at=n) for n in range(1, 3000)])
    (inbox / "customer" / "bad.json").write_bytes(b"{]")
    if command == "build":
        lake.land(inbox)
    words = [*talkative.STEDI, "--lake", str(lake.root), command]
    words += [str(inbox)] if command == "land" else []
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # at work now
        time.sleep(delay)
        started = time.monotonic()
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        code, seconds = process.wait(60), time.monotonic() - started
    kept = [line for line in said.splitlines() if "interrupted: what was committed stays" in line]
    print(f"{command}, interrupted {delay:.3f} s after its first line: exit {code} after {seconds:.2f} s")
    assert (code, len(kept)) in ((130, 1), (0, 0)), said
    assert seconds < limit()
    assert "Traceback" not in said
    lake.land(inbox)
    lake.build()
    assert rows(lake, "machine_learning_curated").total() == 2999
    assert not list((lake.root / "pending").glob("*"))
    conserved(lake)
