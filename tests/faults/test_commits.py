"""Every commit of a landing, a replay and a build fails once; the next command sets it right.

What the calls below do to the disk is struck in `test_every_call`; here a commit fails as one, in this process, which
goes on to clean up. A fault strikes before a call or after it has taken effect (a lost answer). It is no `Exception`,
so nothing can mistake it for one that it knows how to go on from.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lakes import VOLATILE, unseen
from stedi.catalog import Catalog, local
from stedi.catalog.sqlite import Pointers
from stedi.engines.duckdb import DuckDB
from stedi.errors import StediError
from stedi.lake import Lake
from stedi.landing import prepare
from stedi.landing import scan as scanning
from stedi.landing.quarantine import Relanded
from stedi.landing.reader import scanner
from stedi.schema.tables import COLUMNS, ZONES
from stedi.storage import durable

BELOW = [name for name, zone in ZONES.items() if zone != "landing"]
LANDING = [name for name, zone in ZONES.items() if zone == "landing"]

Rows = dict[str, list[tuple[Any, ...]]]


class Fault(BaseException):
    """What a test made fail."""


class Faults:
    """Counts the calls that change a lake, and lets one of them fail."""

    def __init__(self, patch: pytest.MonkeyPatch, *targets: tuple[Any, str]) -> None:
        self.calls: list[str] = []
        self.strikes: tuple[int, str] | None = None
        self.watch: Callable[[], None] = lambda: None
        for owner, name in targets:
            patch.setattr(owner, name, self._counted(name, getattr(owner, name)))

    def _counted(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.watch()
            self.calls.append(name)
            now = self.strikes is not None and self.strikes[0] == len(self.calls)
            if now and self.strikes is not None and self.strikes[1] == "before":
                raise Fault(name)
            result = real(*arguments, **options)
            self.watch()
            if now:
                raise Fault(name)
            return result

        return call


class World:
    """A lake on disk that can be put back to where a test began."""

    def __init__(self, lake: Lake, delivery: Path, kept: Path) -> None:
        self.lake, self.delivery, self._kept = lake, delivery, kept
        shutil.copytree(lake.root, kept)

    def restore(self) -> Lake:
        shutil.rmtree(self.lake.root)
        shutil.copytree(self._kept, self.lake.root)
        return unseen(self.lake.root)


def rows(lake: Lake, tables: list[str], folder: Path) -> Rows:
    """The rows of some tables as readers of `main` see them, without what differs from run to run."""
    found = {}
    with DuckDB(memory="200MB", threads=1, temporary=folder) as engine:
        for table in tables:
            engine.bind_files(table, lake.catalog.files(lake.catalog.table(table)))
            columns = [column for column in COLUMNS[table] if column.name not in VOLATILE]
            shown = ", ".join(
                f'epoch_ms("{c.name}")' if c.type == "timestamptz" else f'"{c.name}"::varchar' for c in columns
            )
            found[table] = sorted(engine.rows(f"select {shown} from {table}"), key=repr)
    return found


def orphans(lake: Lake) -> list[str]:
    """Data files that no live snapshot of a table's `main` holds, and branches besides it."""
    found = []
    for name, state in lake.catalog.tables().items():
        known = {file.path for snapshot in state.history() for file in lake.catalog.files(state, snapshot)}
        data = lake.catalog.folder(name) / "data"
        found += [str(path) for path in data.rglob("*") if path.is_file() and str(path) not in known]
        found += [f"{name}@{branch}" for branch in state.branches if branch != "main"]
    return found


def left(lake: Lake) -> list[str]:
    """Journals and work files that a command has left."""
    places = [lake.root / "pending", lake.root / "tmp"]
    return [str(path) for place in places if place.is_dir() for path in place.rglob("*") if path.is_file()]


def ledger(lake: Lake, folder: Path) -> dict[str, tuple[int, int, int]]:
    """Seen, accepted and quarantined of each file, and that each was counted once."""
    with DuckDB(memory="200MB", threads=1, temporary=folder) as engine:
        engine.bind_files("landed_files", lake.catalog.files(lake.catalog.table("landed_files")))
        found = engine.rows("select sha256, seen, accepted, quarantined from landed_files")
    assert len({row[0] for row in found}) == len(found), "a file stands twice in the ledger"
    return {sha256: (seen, accepted, quarantined) for sha256, seen, accepted, quarantined in found}


# --- landing ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory, sample_inbox: Path) -> World:
    """A lake without rows and a delivery that touches every landing table."""
    folder = tmp_path_factory.mktemp("landing")
    return World(Lake.create(folder / "lake"), sample_inbox, folder / "kept")


@pytest.fixture(scope="module")
def landed(empty: World, tmp_path_factory: pytest.TempPathFactory) -> tuple[Rows, dict[str, tuple[int, int, int]]]:
    """What an undisturbed landing gives."""
    lake, folder = empty.restore(), tmp_path_factory.mktemp("spill")
    lake.land(empty.delivery)
    found = rows(lake, LANDING, folder)
    assert all(found.values()), "the delivery must touch every landing table"
    return found, ledger(lake, folder)


LAND_CALLS = ["write", *["append"] * 5, "remove"]


def landing_faults(patch: pytest.MonkeyPatch) -> Faults:
    return Faults(patch, (durable, "write"), (durable, "remove"), (Catalog, "append"))


def test_the_calls_of_a_landing_are_those_that_are_made_to_fail(
    empty: World, monkeypatch: pytest.MonkeyPatch, landed: object
) -> None:
    faults = landing_faults(monkeypatch)
    empty.restore().land(empty.delivery)
    assert faults.calls == LAND_CALLS


@pytest.mark.parametrize("time", ["before", "after"])
@pytest.mark.parametrize("place", range(1, len(LAND_CALLS) + 1))
@pytest.mark.sample(full=7)
def test_a_landing_that_fails_anywhere_is_whole_after_the_next(
    empty: World,
    landed: tuple[Rows, dict[str, tuple[int, int, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: int,
    time: str,
) -> None:
    lake = empty.restore()
    with monkeypatch.context() as patch:
        faults = landing_faults(patch)
        faults.strikes = (place, time)
        with pytest.raises(Fault):
            lake.land(empty.delivery)
    if not list((lake.root / "pending").glob("*")):
        assert not orphans(lake), "without a journal nobody would ever know these files"
    again = Lake.open(lake.root).land(empty.delivery)
    assert {file.already_landed for file in again.files} >= ({True} if place > 1 else {False})
    assert rows(lake, LANDING, tmp_path) == landed[0]
    assert ledger(lake, tmp_path) == landed[1]
    assert again.seen >= again.accepted + again.quarantined
    assert not orphans(lake)
    assert not left(lake)


@pytest.mark.parametrize("place", range(2, len(LAND_CALLS) + 1))
def test_a_build_finishes_what_a_landing_left(
    empty: World,
    landed: tuple[Rows, dict[str, tuple[int, int, int]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: int,
) -> None:
    lake = empty.restore()
    with monkeypatch.context() as patch:
        faults = landing_faults(patch)
        faults.strikes = (place, "before")
        with pytest.raises(Fault):
            lake.land(empty.delivery)
    lake.build()
    assert rows(lake, LANDING, tmp_path) == landed[0]
    assert not left(lake)


@pytest.mark.parametrize("scanned", [False, True], ids=["typed reader", "scanner"])
def test_a_landing_that_fails_while_it_writes_leaves_nothing(
    empty: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scanned: bool
) -> None:
    if not scanned:
        monkeypatch.setattr(scanner, "library", lambda: None)
    for place in (1, 3, 5):
        for time in ("before", "after"):
            lake = empty.restore()
            with monkeypatch.context() as patch:
                faults = Faults(patch, (DuckDB, "write"), (scanning._Output, "finish"))
                faults.strikes = (place, time)
                with pytest.raises(Fault):
                    lake.land(empty.delivery)
            assert not orphans(lake)
            assert not left(lake)


# --- quarantine --replay ---------------------------------------------------------------------------------------------

REPLAY_CALLS = ["write", "append", "append", "discard", "stage", "publish", "remove"]


@pytest.fixture(scope="module")
def quarantined(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A lake with two records in quarantine, one of which a newer contract will take."""
    folder = tmp_path_factory.mktemp("replay")
    inbox = folder / "step_trainer"
    inbox.mkdir()
    good = {"serialNumber": "s", "sensorReadingTime": 1000000000005, "distanceFromObject": 1}
    late = {"serialNumber": "late", "sensorReadingTime": 1000000000006, "distanceFromObject": 2}
    (inbox / "a.json").write_text(f"{json.dumps(good)}\n{{'bad'}}\n{json.dumps(late)}\n")
    lake = Lake.create(folder / "lake")
    with pytest.MonkeyPatch.context() as patch:
        # an older contract that refused this serial number
        real = prepare.prepare

        def older(file: Any, into: Path, stop: Any) -> Any:
            ready: Any = real(file, into, stop)
            kept = [line for line in ready.lines.read_bytes().splitlines(keepends=True) if b'"late"' not in line]
            ready.lines.write_bytes(b"".join(kept))
            raw = json.dumps(late).encode()
            with ready.rejects.open("ab") as stream:
                record = {"offset": 60, "line": 3, "reason": "wrong_type", "raw": _base64(raw), "raw_size": len(raw)}
                stream.write(json.dumps(record).encode() + b"\n")
            counts = type(ready.counts)(3, 1, 2, {})
            return replace(ready, counts=counts)

        patch.setattr(prepare, "prepare", older)
        patch.setattr(scanner, "library", lambda: None)  # so that it is asked
        landing = lake.land(inbox)
    assert (landing.seen, landing.accepted, landing.quarantined) == (3, 1, 2)
    return World(lake, inbox, folder / "kept")


def _base64(raw: bytes) -> str:
    import base64

    return base64.b64encode(raw).decode()


def replay_faults(patch: pytest.MonkeyPatch) -> Faults:
    commits = [(Catalog, name) for name in ("append", "discard", "stage", "publish")]
    return Faults(patch, (durable, "write"), (durable, "remove"), *commits)


def test_the_calls_of_a_replay_are_those_that_are_made_to_fail(
    quarantined: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    faults = replay_faults(monkeypatch)
    assert quarantined.restore().quarantine().replay() == Relanded(1, 1)
    assert faults.calls == REPLAY_CALLS


@pytest.mark.parametrize("time", ["before", "after"])
@pytest.mark.parametrize("place", range(1, len(REPLAY_CALLS) + 1))
@pytest.mark.sample(full=7)
def test_a_replay_that_fails_anywhere_moves_each_record_once(
    quarantined: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, time: str
) -> None:
    lake = quarantined.restore()
    with monkeypatch.context() as patch:
        faults = replay_faults(patch)
        faults.strikes = (place, time)
        with pytest.raises(Fault):
            lake.quarantine().replay()
    if not list((lake.root / "pending").glob("*")):
        assert not orphans(lake)
    lake.quarantine().replay()
    found = rows(lake, LANDING, tmp_path)
    assert sorted(row[1] for row in found["step_trainer_landing"]) == ["late", "s"]
    assert len(found["quarantine"]) == 1
    [again] = lake.land(quarantined.delivery).files
    assert (again.seen, again.accepted, again.quarantined, again.already_landed) == (3, 2, 1, True)
    assert not orphans(lake)
    assert not left(lake)


# --- build -----------------------------------------------------------------------------------------------------------

BUILD_CALLS = ["_written"] * 5 + ["move"]


class Change(World):
    """A lake that was built once, and has landed since what changes every table."""

    def __init__(self, lake: Lake, delivery: Path, kept: Path, folder: Path) -> None:
        self.old = rows(lake, BELOW, folder)
        found = lake.query("select c.* from customers_curated c join machine_learning_curated m using (customer_id)")
        customer = found.arrow().to_pylist()[0]
        withdrawal = {
            "email": customer["email"],
            "serialNumber": customer["serialNumber"],
            "registrationDate": 1000000000001,
            "lastUpdateDate": 2_000_000_000_000,
        }
        later = kept.with_name("customer-later.json")
        later.write_text(json.dumps(withdrawal) + "\n")
        lake.land(later)
        super().__init__(lake, delivery, kept)
        lake.build()
        self.new = rows(lake, BELOW, folder)
        assert all(self.old[name] != self.new[name] for name in BELOW), "the change must change every table"


@pytest.fixture(scope="module")
def change(tmp_path_factory: pytest.TempPathFactory, sample_inbox: Path) -> Change:
    folder = tmp_path_factory.mktemp("building")
    lake = Lake.create(folder / "lake")
    lake.land(sample_inbox)
    lake.build()
    return Change(lake, sample_inbox, folder / "kept", folder / "spill")


def build_faults(patch: pytest.MonkeyPatch) -> Faults:
    return Faults(patch, (local, "_written"), (Pointers, "move"))


def published(lake: Lake, change: Change, folder: Path) -> bool:
    """Says whether the tables are as they should be; fails if they are neither that nor as they were, all of them."""
    found = rows(lake, BELOW, folder)
    assert found in (change.old, change.new), "tables are neither all old nor all new"
    return found == change.new


def test_readers_see_all_tables_before_a_build_or_all_after_it(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = change.restore()
    seen: list[bool] = []
    faults = build_faults(monkeypatch)
    faults.watch = lambda: seen.append(published(Lake.open(lake.root), change, tmp_path))
    lake.build()
    assert faults.calls == BUILD_CALLS
    assert seen == [False] * 11 + [True]


@pytest.mark.parametrize("time", ["before", "after"])
@pytest.mark.parametrize("place", range(1, len(BUILD_CALLS) + 1))
def test_a_build_that_fails_anywhere_has_published_all_tables_or_none_and_the_next_finishes(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, time: str
) -> None:
    lake = change.restore()
    before = orphans(lake)
    with monkeypatch.context() as patch:
        faults = build_faults(patch)
        faults.strikes = (place, time)
        with pytest.raises(Fault):
            lake.build()
    lake = Lake.open(lake.root)
    done = published(lake, change, tmp_path)
    assert done == (place == len(BUILD_CALLS) and time == "after")
    assert orphans(lake) == before
    assert not left(lake)
    assert bool(lake.build().run) is not done
    assert rows(lake, BELOW, tmp_path) == change.new
    assert orphans(lake) == before
    assert not lake.build().run, "a third build must have nothing to do"


@pytest.mark.parametrize("time", ["before", "after"])
@pytest.mark.parametrize("place", [1, 2, 4, 5])
def test_a_build_that_fails_while_it_writes_leaves_everything_as_it_was(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, time: str
) -> None:
    lake = change.restore()
    before = orphans(lake)
    with monkeypatch.context() as patch:
        faults = Faults(patch, (DuckDB, "write"), (DuckDB, "write_without"))
        faults.strikes = (place, time)
        with pytest.raises(Fault):
            lake.build()
    assert rows(lake, BELOW, tmp_path) == change.old
    assert orphans(lake) == before
    assert not left(lake)


@pytest.mark.parametrize("time", ["before", "after"])
@pytest.mark.parametrize("place", [1, 5, 6])
def test_a_killed_build_has_published_all_tables_or_none(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: int, time: str
) -> None:
    lake = change.restore()
    child = os.fork()
    if not child:
        faults = build_faults(monkeypatch)
        faults.strikes = (place, time)
        monkeypatch.setattr(Fault, "__init__", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        with suppress(BaseException):
            lake.build()
        os._exit(0)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    lake = unseen(lake.root)
    assert published(lake, change, tmp_path) == (place == len(BUILD_CALLS) and time == "after")
    assert all(state.branches.keys() == {"main"} for state in lake.catalog.tables().values())
    lake.build()
    assert published(lake, change, tmp_path)


def test_what_main_became_meanwhile_is_not_lost(
    change: Change, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = change.restore()
    publish = Catalog.publish_all

    def raced(self: Catalog, changes: Any, **options: Any) -> None:
        Lake.open(lake.root).catalog.append("customers_trusted", (), {"by": "another engine"})
        publish(self, changes, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "publish_all", raced)
        with pytest.raises(StediError, match="main has moved"):
            lake.build()
    current = lake.catalog.table("customers_trusted").current
    assert current is not None
    assert current.summary["by"] == "another engine"
    assert rows(lake, BELOW, tmp_path) == change.old
    lake.build()
    assert rows(lake, BELOW, tmp_path) == change.new
