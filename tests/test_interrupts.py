"""Ctrl-C at moments that nobody chose: it is answered as an interrupt, and the work can be done again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakes import Slate, conserved, customer, deliver, motion, rows, step
from stedi.engines.duckdb import DuckDB


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


@pytest.mark.parametrize(("command", "delay"), [("land", 0.05), ("land", 0.25), ("build", 0.0), ("build", 0.2)])
def test_an_interrupt_at_any_moment_leaves_work_that_can_be_done_again(
    slate: Slate, command: str, delay: float
) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [customer()])
    deliver(inbox, "accelerometer", [motion(at=n) for n in range(1, 3000)])
    deliver(inbox, "step_trainer", [step(at=n) for n in range(1, 3000)])
    (inbox / "customer" / "bad.json").write_bytes(b"{]")
    if command == "build":
        lake.land(inbox)
    words = [sys.executable, "-m", "stedi.cli", "--lake", str(lake.root), command]
    words += [str(inbox)] if command == "land" else []
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        process.stderr.readline()  # at work now
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) in (0, 130), said
    assert "Traceback" not in said
    lake.land(inbox)
    lake.build()
    assert rows(lake, "machine_learning_curated").total() == 2999
    assert not list((lake.root / "pending").glob("*"))
    conserved(lake)
