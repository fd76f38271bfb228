"""A watch lands what has stopped growing, builds, survives whatever fails, and stops when it is asked to."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from itertools import islice, pairwise
from pathlib import Path
from threading import Event, Timer
from typing import BinaryIO

import pytest

from deliveries import customer, deliver, motion, step
from effort import at_night
from lakes import Slate, conserved, records, rows
from stedi import Lake, Landing, Round
from stedi.errors import UnreadableFile, UsageError
from stedi.landing import journal
from stedi.landing.deliveries import local
from stedi.operations import watch

QUICK = timedelta(milliseconds=50)


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("watch"))


def built(lake: Lake, inbox: Path) -> None:
    """Nothing, but built: else the first round builds empty tables."""
    lake.build()


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(built)


@pytest.fixture
def inbox(slate: Slate, lake: Lake) -> Path:
    return slate.inbox()


@pytest.fixture(autouse=True)
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "SETTLED", 0.1)
    monkeypatch.setattr(watch, "_LONGEST", 0.2)


def everything(inbox: Path, number: int = 0) -> None:
    email, serial, at = f"p{number}@x.example", f"s{number}", 100 + number
    deliver(inbox, "customer", [customer(email, serialNumber=serial)], f"{number}.json")
    deliver(inbox, "accelerometer", [motion(email, at)], f"{number}.json")
    deliver(inbox, "step_trainer", [step(serial, at)], f"{number}.json")


def rounds(lake: Lake, inbox: Path, count: int) -> Iterator[Round]:
    stop = Event()
    yield from islice(lake.watch(inbox, every=QUICK, stop=stop), count)


def trained(lake: Lake) -> int:
    return sum(rows(lake, "machine_learning_curated").values())


def test_what_comes_is_landed_and_built_and_what_was_there_is_not_looked_at_again(lake: Lake, inbox: Path) -> None:
    watching = lake.watch(inbox, every=QUICK)
    for number in range(2):
        everything(inbox, number)
        done = next(watching)
        assert done.landing is not None
        assert {file.name for file in done.landing.files} == {
            f"inbox/{feed}/{number}.json" for feed in ("customer", "accelerometer", "step_trainer")
        }
        assert trained(lake) == number + 1
    conserved(lake)


def test_a_file_that_grows_waits_until_it_is_whole(inbox: Path, tmp_path: Path) -> None:
    looked = watch.Inbox(inbox, tmp_path)
    path = deliver(inbox, "customer", [customer()])
    assert looked.ready() == ({}, True)
    for _ in range(3):
        with open(path, "a") as stream:
            stream.write(json.dumps(customer("next@x.example")) + "\n")
        time.sleep(0.06)
        assert looked.ready() == ({}, True), "it has just been written to"
    time.sleep(0.12)
    ready, growing = looked.ready()
    assert (list(ready), growing) == ([path.resolve()], False)
    looked.landed(ready)
    assert looked.ready() == ({}, False)
    os.utime(path)
    assert looked.ready()[1], "another content, for all that is known"


def test_a_file_dated_in_the_future_is_taken_once_nothing_writes_to_it(inbox: Path, tmp_path: Path) -> None:
    looked = watch.Inbox(inbox, tmp_path)
    path = deliver(inbox, "customer", [customer()])
    os.utime(path, (time.time() + 3600, time.time() + 3600))
    assert looked.ready() == ({}, True)
    time.sleep(0.12)
    assert list(looked.ready()[0]) == [path.resolve()]


def test_a_withdrawal_is_built_though_no_file_comes(lake: Lake, inbox: Path) -> None:
    everything(inbox)
    watching = lake.watch(inbox, every=QUICK)
    next(watching)
    lake.withdraw("p0@x.example")
    done = next(watching)
    assert (done.landing, done.error, trained(lake)) == (None, "", 0)


def test_whatever_fails_is_told_without_a_value_and_tried_again(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything(inbox)
    real, failing = journal.Commit.commit, [OSError(errno.ENOSPC, "full"), ValueError("p0@x.example"), MemoryError()]

    def commit(*arguments: object) -> object:
        if failing:
            raise failing.pop(0)
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(journal.Commit, "commit", commit)
    done = list(rounds(lake, inbox, 4))
    assert [bool(each.error) for each in done] == [True, True, True, False]
    assert done[0].error == os.strerror(errno.ENOSPC)
    assert "@" not in done[1].error
    assert trained(lake) == 1
    assert [run.outcome for run in islice(lake.runs(), 5)] == ["done", "done", *["failed"] * 3]


def test_no_number_of_failures_ends_a_watch(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a minute an attempt, a disk that is full over a weekend makes thousands."""
    monkeypatch.setattr(watch, "_LONGEST", 0.0)
    failing = lake.watch(inbox / "none", every=QUICK)
    assert all(done.error for done in islice(failing, 1500))


def test_a_missing_inbox_and_a_missing_key_are_waited_for(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching = lake.watch(inbox / "later", every=QUICK)
    assert next(watching).error == f"{inbox / 'later'}: the inbox cannot be read: No such file or directory"
    everything(inbox / "later")
    with monkeypatch.context() as patch:
        patch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
        assert "pseudonym key" in next(watching).error
    assert next(done for done in watching if not done.error).build is not None


def test_an_interval_of_nothing_is_refused_before_it_polls(lake: Lake, inbox: Path) -> None:
    with pytest.raises(UsageError, match=r"^every: expected more than 0 s, found 0 s$"):
        lake.watch(inbox, every=timedelta())


def test_a_file_that_cannot_be_read_costs_that_file_alone(lake: Lake, inbox: Path) -> None:
    everything(inbox)
    (inbox / "customer" / "cut.json.gz").write_bytes(b"\x1f\x8b no gzip")
    [done] = rounds(lake, inbox, 1)
    assert done.landing is not None
    assert [skipped.failed for skipped in done.landing.skipped] == [True]
    assert trained(lake) == 1


def test_a_file_that_nobody_could_read_lands_once_it_is_readable(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`chmod` changes neither size nor time of the last write: the file waited for the next watch."""
    path, real = deliver(inbox, "customer", [customer()]), local.open_regular
    stop = Event()
    watching = lake.watch(inbox, every=QUICK, stop=stop)

    def refused(of: Path, name: str | None = None) -> BinaryIO:
        if not of.stat().st_mode & 0o200:  # a user who may read all, such as root, runs these tests, too
            raise UnreadableFile(f"{name}: cannot be opened: permission denied")
        return real(of, name)

    monkeypatch.setattr(local, "open_regular", refused)
    path.chmod(0o400)
    done = next(watching)
    assert done.landing is not None
    assert [skipped.failed for skipped in done.landing.skipped] == [True]
    path.chmod(0o600)
    late = Timer(20, stop.set)
    late.start()
    found = next(watching, None)
    late.cancel()
    assert found is not None
    assert found.landing is not None
    assert [file.accepted for file in found.landing.files] == [1]


@pytest.mark.parametrize("reason", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_file_that_could_not_be_read_for_a_passing_reason_is_told_once_and_lands_unchanged(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    """It waited until it changed: for a disk that failed once, for ever."""
    path, real, tries = deliver(inbox, "customer", [customer()]), os.open, list[Path]()

    def refused(of: str | Path, *arguments: int, **options: int) -> int:
        if str(of) == str(path.resolve()):
            tries.append(path)
            if len(tries) <= 3:
                raise OSError(reason, os.strerror(reason))
        return real(of, *arguments, **options)

    monkeypatch.setattr(os, "open", refused)
    told, landed = rounds(lake, inbox, 2)
    assert told.landing is not None
    assert [(skipped.failed, skipped.passing) for skipped in told.landing.skipped] == [(True, True)]
    assert landed.landing is not None
    assert landed.landing.skipped == ()
    assert [file.accepted for file in landed.landing.files] == [1]
    assert sum(records(lake, "customers_landing").values()) == 1


def test_a_file_is_tried_again_at_growing_intervals_and_one_refused_for_what_it_holds_is_not(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (inbox / "customer").mkdir(parents=True)
    (inbox / "customer" / "cut.json.gz").write_bytes(b"\x1f\x8b no gzip")
    path, now, tried = deliver(inbox, "customer", [customer()]), [time.monotonic()], list[tuple[str, float]]()
    os.utime(path, (1, 1))
    monkeypatch.setattr(watch, "_LONGEST", 60.0)
    monkeypatch.setattr(watch.time, "monotonic", lambda: now[0])
    found = watch.Inbox(inbox, lake.root)
    found.ready()
    for _ in range(300):
        now[0] += 1
        if ready := found.ready()[0]:
            tried += [(of.name, now[0]) for of in ready]
            why = watch.local.Skipped("inbox/customer/cut.json.gz", "not gzip", True)
            done = Landing((), (why, watch.local.Skipped(f"inbox/customer/{path.name}", "i/o", True, True)), {})
            assert found.undecided(ready, done) == {path.resolve()}
            assert (found.news(ready, done) is None) == (len(tried) > 2), "it is told once"
            found.landed(ready, found.undecided(ready, done), 2.0)
    times = [at for name, at in tried if name == path.name]
    assert [later - before for before, later in pairwise(times)] == [4, 8, 16, 32, 60, 60, 60]
    assert len(tried) == len(times) + 1


def test_a_file_that_a_landing_did_not_find_is_ready_again(lake: Lake, inbox: Path) -> None:
    """A folder that could not be listed at that moment hides its files."""
    path = deliver(inbox, "customer", [customer()])
    found = watch.Inbox(inbox, lake.root)
    os.utime(path, (1, 1))
    ready = found.ready()[0]
    nothing = Landing((), (watch.local.Skipped("inbox", "cannot be read: stale", True, True),), {})
    assert found.undecided(ready, nothing) == {path.resolve()}


@at_night
def test_two_watches_of_one_inbox_land_each_record_once(lake: Lake, inbox: Path) -> None:
    everything(inbox)
    for _ in range(2):
        [_] = rounds(lake, inbox, 1)
    assert sum(records(lake, "customers_landing").values()) == 1
    conserved(lake)


@pytest.mark.own_processes
def test_a_watch_that_is_killed_is_taken_up_by_the_next_and_one_that_is_asked_stops_with_0(
    lake: Lake, inbox: Path
) -> None:
    everything(inbox)
    command = [
        sys.executable,
        "-m",
        "stedi",
        "--lake",
        str(lake.root),
        "--json",
        "watch",
        str(inbox),
        "--every",
        "0.05s",
    ]
    killed = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert killed.stderr is not None
    assert "watching" in killed.stderr.readline()
    killed.kill()
    killed.communicate()
    second = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 60
    while trained(lake) < 1 and time.monotonic() < end:
        time.sleep(0.05)
    second.send_signal(signal.SIGTERM)
    said, _ = second.communicate(timeout=60)
    assert second.returncode == 0
    assert json.loads(said)["failures"] == 0
    assert trained(lake) == 1
    conserved(lake)
