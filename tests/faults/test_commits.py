"""Landings and builds that end at any commit: nothing is lost, nothing is doubled, readers see whole tables.

A fault is one call that fails before it has done its work, or after it: then the work is done and the answer lost.
Killed processes are real ones.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from lakes import BELOW_LANDING, LANDING, Row, conserved, contents, customer, deliver, motion, records, rows, step
from stedi import durable
from stedi.catalog import Catalog
from stedi.errors import AuditFailed
from stedi.lake import Lake
from stedi.landing import journal
from stedi.privacy import consent

LANDING_CALLS = ((durable, "write"), (Catalog, "append"), (durable, "remove"))
REPLAY_CALLS = (*LANDING_CALLS, (Catalog, "stage"), (Catalog, "publish"))
BUILD_CALLS = ((Catalog, "stage"), (Catalog, "publish"))
DISK_CALLS = ((os, "fsync"), (os, "replace"))
Calls = Sequence[tuple[object, str]]

KILL = """
import os, signal, sys
from stedi import durable
from stedi.catalog import Catalog
from stedi.lake import Lake
verb, root, inbox, fatal = sys.argv[1:4] + [int(sys.argv[4])]
made = 0
def lethal(owner, name):
    real = getattr(owner, name)
    def call(*args, **kwargs):
        global made
        made += 1
        if made == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*args, **kwargs)
    setattr(owner, name, call)
lake = Lake.open(root)
if verb == "land":
    lethal(durable, "write"), lethal(Catalog, "append"), lethal(durable, "remove")
    lake.land(inbox)
else:
    lethal(Catalog, "stage"), lethal(Catalog, "publish")
    lake.build()
"""


class Fault(Exception):
    """What a test has fail."""


class Origin:
    """A lake and a state to which it returns; its paths stay, since Iceberg's metadata hold them."""

    def __init__(self, lake: Lake, inbox: Path) -> None:
        self.root, self.inbox, self._kept = lake.root, inbox, lake.root.with_name("kept")
        shutil.copytree(self.root, self._kept)

    def restored(self) -> Lake:
        shutil.rmtree(self.root)
        shutil.copytree(self._kept, self.root)
        return Lake.open(self.root)


@pytest.fixture(scope="module")
def to_land(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """A lake with something in every landing table, and deliveries that add to each."""
    folder = tmp_path_factory.mktemp("to_land")
    lake = Lake.create(folder / "lake")
    lake.land(delivery(folder / "old", "a@x.example", 100))
    return Origin(lake, delivery(folder / "new", "b@x.example", 200))


@pytest.fixture(scope="module")
def to_build(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    """A built lake, and landed since: one customer withdrew, another agreed."""
    folder = tmp_path_factory.mktemp("to_build")
    lake = Lake.create(folder / "lake")
    lake.land(delivery(folder / "old", "a@x.example", 100))
    lake.build()
    deliver(folder / "new", "customer", [customer("a@x.example", ..., 300)], "withdrawal.json")
    lake.land(delivery(folder / "new", "b@x.example", 200))
    return Origin(lake, folder / "new")


def delivery(folder: Path, email: str, at: int) -> Path:
    deliver(folder, "customer", [customer(email, serialNumber=email, update=at), {"email": email}])
    deliver(folder, "accelerometer", [motion(email, at), motion(email, at, 2.0), {"user": email}])
    deliver(folder, "step_trainer", [step(email, at), {"serialNumber": email}])
    return folder


@contextmanager
def failing(calls: Calls, fatal: int, *, done: bool = False) -> Iterator[list[str]]:
    """Has the call of this number fail, from 1, once; gives the names of all that were made."""
    made: list[str] = []

    def counted(name: str, real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            made.append(name)
            this_one = len(made) == fatal
            if this_one and not done:
                raise Fault(name)
            result = real(*args, **kwargs)
            if this_one:
                raise Fault(name)
            return result

        return call

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in calls:
            patch.setattr(owner, name, counted(name, getattr(owner, name)))
        yield made


def calls_of(work: Callable[[], object], calls: Calls) -> list[str]:
    """Returns the names of the calls that undisturbed work makes."""
    with failing(calls, 0) as made:
        work()
    return made


def landed(lake: Lake) -> dict[str, Counter[Row]]:
    """Returns what is in the landing zone, without what differs from run to run."""
    timeless = {name: Counter({row[:-2]: n for row, n in rows(lake, name).items()}) for name in ("landed_files",)}
    rejects = Counter({row[:-2]: n for row, n in rows(lake, "quarantine").items()})
    return {**{name: rows(lake, name) for name in LANDING}, **timeless, "quarantine": rejects}


def left_behind(lake: Lake) -> set[str]:
    """Returns the Parquet files that no live snapshot has: nobody would ever read them."""
    states = lake.catalog.tables().values()
    live = {file.path for state in states for s in state.snapshots for file in lake.catalog.files(state, s)}
    return {str(path) for path in lake.root.rglob("*.parquet")} - live


def stray(lake: Lake) -> set[str]:
    """Returns whatever a finished or failed command must not leave behind."""
    branches = {b for state in lake.catalog.tables().values() for b in state.branches if b != "main"}
    pending = {str(path) for path in (lake.root / "pending").glob("*")}
    partial = {str(path) for path in lake.root.rglob(".*.partial")}
    return branches | pending | partial


def killed(origin: Origin, verb: str, fatal: int) -> bool:
    """Runs a command in a process that kills itself at the call of this number; says whether it came so far."""
    command = [sys.executable, "-c", KILL, verb, str(origin.root), str(origin.inbox), str(fatal)]
    ended = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert ended.returncode in (0, -signal.SIGKILL), ended.stderr.decode()
    return ended.returncode != 0


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_landing_that_fails_at_any_commit_is_whole_after_the_next(to_land: Origin, done: bool) -> None:
    lake = to_land.restored()
    names = calls_of(lambda: lake.land(to_land.inbox), LANDING_CALLS)
    expected = landed(lake)
    assert names == ["write", *["append"] * 5, "remove"]
    for fatal, name in enumerate(names, start=1):
        lake = to_land.restored()
        with failing(LANDING_CALLS, fatal, done=done), pytest.raises(Fault):
            lake.land(to_land.inbox)
        where = f"{name} number {fatal}"
        again = Lake.open(lake.root).land(to_land.inbox)
        assert (again.seen, again.accepted, again.quarantined) == (7, 4, 3), where
        assert landed(lake) == expected, where
        assert not stray(lake), where
        assert not left_behind(lake), where
        conserved(lake)


def test_a_landing_that_failed_is_finished_by_a_build(to_land: Origin) -> None:
    lake = to_land.restored()
    lake.land(to_land.inbox)
    expected = landed(lake)
    lake = to_land.restored()
    with failing(LANDING_CALLS, 4), pytest.raises(Fault):
        lake.land(to_land.inbox)
    assert landed(lake) != expected
    lake.build()
    assert landed(lake) == expected
    assert not stray(lake)
    assert lake.build().run == "", "a finished landing leaves a build nothing to do"


def test_a_landing_that_fails_at_any_write_to_disk_is_whole_after_the_next(to_land: Origin) -> None:
    lake = to_land.restored()
    made = len(calls_of(lambda: lake.land(to_land.inbox), DISK_CALLS))
    expected = landed(lake)
    assert made > 30
    for fatal in range(1, made + 1, 7):
        lake = to_land.restored()
        with failing(DISK_CALLS, fatal), pytest.raises(Fault):
            lake.land(to_land.inbox)
        lake.land(to_land.inbox)
        assert landed(lake) == expected, fatal
        assert not stray(lake), fatal
        assert not left_behind(lake), fatal


def test_a_landing_that_is_killed_between_its_commits_is_whole_after_the_next(to_land: Origin) -> None:
    lake = to_land.restored()
    made = len(calls_of(lambda: lake.land(to_land.inbox), LANDING_CALLS))
    expected = landed(lake)
    for fatal in range(1, made + 1, 2):
        lake = to_land.restored()
        assert killed(to_land, "land", fatal)
        again = lake.land(to_land.inbox)
        assert (again.seen, again.accepted, again.quarantined) == (7, 4, 3), fatal
        assert landed(lake) == expected, fatal
        assert not stray(lake), fatal
        conserved(lake)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_replay_that_fails_at_any_commit_is_whole_after_the_next(
    to_land: Origin, done: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stedi.landing import quarantine

    good = b'{"user":"c@x.example","timestamp":7,"x":1.0,"y":0.0,"z":0.0,"_extra":null}\n'
    monkeypatch.setattr(quarantine, "_accepted", lambda feed, raw: good if feed == "accelerometer" else None)
    lake = to_land.restored()
    names = calls_of(lake.quarantine().replay, REPLAY_CALLS)
    expected = landed(lake)
    assert names == ["write", "append", "append", "stage", "publish", "remove"]
    assert records(lake, "accelerometer_landing")["c@x.example", 7, 1.0, 0.0, 0.0, None] == 1
    for fatal, name in enumerate(names, start=1):
        lake = to_land.restored()
        with failing(REPLAY_CALLS, fatal, done=done), pytest.raises(Fault):
            lake.quarantine().replay()
        where = f"{name} number {fatal}"
        lake.quarantine().replay()
        assert landed(lake) == expected, where
        assert not stray(lake), where
        conserved(lake)


@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_build_that_fails_at_any_commit_leaves_whole_tables_and_no_trace(to_build: Origin, done: bool) -> None:
    lake = to_build.restored()
    old = contents(lake)
    names = calls_of(lake.build, BUILD_CALLS)
    new = contents(lake)
    assert names == ["stage"] * 5 + ["publish"] * 5
    assert all(old[name] != new[name] for name in BELOW_LANDING)
    for fatal in (1, 5, 6, 8, 10):  # first and last of each kind, and one in the middle
        lake = to_build.restored()
        with failing(BUILD_CALLS, fatal, done=done), pytest.raises(Fault):
            lake.build()
        where = f"{names[fatal - 1]} number {fatal}"
        published = max(0, fatal - 6 + done)
        for place, table in enumerate(built_order(lake)):
            assert rows(lake, table) == (new if place < published else old)[table], (where, table)
        assert not stray(lake), where
        assert not left_behind(lake), where
        lake.build()
        assert contents(lake) == new, where
        assert not stray(lake), where
        assert lake.build().run == "", where


def built_order(lake: Lake) -> list[str]:
    return [step.table for step in lake.plan(full=True)]


def test_readers_see_whole_tables_at_every_step_of_a_build(to_build: Origin) -> None:
    lake = to_build.restored()
    old = contents(lake)
    seen: list[dict[str, Counter[Row]]] = []
    lake.build(progress=lambda line: seen.append(contents(lake)))
    new = contents(lake)
    assert len(seen) == 5 + 1 + 5
    for state in seen[:7]:
        assert state == old
    for state in seen:
        assert all(state[name] in (old[name], new[name]) for name in BELOW_LANDING)


@pytest.mark.parametrize("fatal", [3, 6, 8, 10])
def test_a_build_that_is_killed_is_finished_by_the_next(to_build: Origin, fatal: int) -> None:
    lake = to_build.restored()
    old = contents(lake)
    lake.build()
    new = contents(lake)
    lake = to_build.restored()
    assert killed(to_build, "build", fatal)
    for place, table in enumerate(built_order(lake)):
        assert rows(lake, table) == (new if place < fatal - 6 else old)[table], table
    lake.build()
    assert contents(lake) == new
    assert lake.build().run == ""


def test_a_build_that_breaks_a_rule_changes_nothing_and_leaves_no_trace(
    to_build: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = to_build.restored()
    before = {name: state.current for name, state in lake.catalog.tables().items()}
    files = {path for path in lake.root.rglob("*") if path.is_file()}
    monkeypatch.setattr(consent, "violations", lambda *_, **__: 1)
    with pytest.raises(AuditFailed, match="consent proof"):
        lake.build()
    assert {name: state.current for name, state in lake.catalog.tables().items()} == before
    assert {path for path in lake.root.rglob("*") if path.is_file()} == files


def test_a_landing_during_a_build_is_neither_lost_nor_half_built(to_build: Origin) -> None:
    lake = to_build.restored()
    late = delivery(to_build.root.parent / "late", "c@x.example", 400)

    def land_late(line: str) -> None:
        if line == "audit":
            lake.land(late)

    lake.build(progress=land_late)
    assert len(records(lake, "customers_landing")) == 4
    assert sum(rows(lake, "customers_trusted").values()) == 1, "built over what it was planned over"
    lake.build()
    assert sum(rows(lake, "customers_trusted").values()) == 2


def test_a_journal_is_applied_once_however_often_it_is_found(to_land: Origin) -> None:
    lake = to_land.restored()
    pending = lake.root / "pending"
    kept: list[tuple[Path, bytes]] = []

    def keep(path: Path) -> None:
        kept.append((path, path.read_bytes()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "remove", keep)
        lake.land(to_land.inbox)
    expected = landed(lake)
    for _ in range(2):
        kept[0][0].write_bytes(kept[0][1])
        assert journal.finish(lake.catalog, pending) == 1
        assert landed(lake) == expected
    assert not stray(lake)
