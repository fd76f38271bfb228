"""A clock that goes back, jumps or stands still moves no watermark and leaves metadata that every reader takes."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import Slate, conserved, contents, rows
from stedi.catalog import checksums, snapshots
from stedi.catalog.time_travel import pinned
from stedi.lake import Lake

DAY, YEAR = 86_400, 365 * 86_400
MINUTE = 60_000


class Clock:
    """The clock of this process, set by hand; it stands still until it is set again."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.now = time.time()
        clock = self

        class Frozen(dt.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return cls.fromtimestamp(clock.now, tz)

        patch.setattr(time, "time", lambda: self.now)
        patch.setattr("stedi.lake.datetime", Frozen)


@pytest.fixture
def clock() -> Iterator[Clock]:
    with pytest.MonkeyPatch.context() as patch:
        yield Clock(patch)


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("clock"))


def day(lake: Lake, inbox: Path, number: int) -> None:
    """Delivers and lands what one more customer did."""
    email, at = f"{number}@x.example", 100 + number
    folder = inbox / str(number)
    deliver(folder, "customer", [customer(email, serialNumber=email, update=at)])
    deliver(folder, "accelerometer", [motion(email, at)])
    deliver(folder, "step_trainer", [step(email, at)])
    lake.land(folder)


def sane(lake: Lake) -> None:
    """Holds every table's metadata to what Iceberg's reference implementation demands of times."""
    for location in snapshots.listed(lake.catalog.path).values():
        metadata = json.loads(checksums.read(Path(snapshots.local_path(location))))
        logged = [entry["timestamp-ms"] for entry in metadata["snapshot-log"]]
        written = [entry["timestamp-ms"] for entry in metadata["metadata-log"]]
        for times in (
            logged,
            written,
            [logged[-1], metadata["last-updated-ms"]],
            [*written[-1:], metadata["last-updated-ms"]],
        ):
            assert all(later >= earlier for earlier, later in itertools.pairwise(times)), location
        assert len(set(logged)) == len(logged), "a time tells one state"
        made = [s["timestamp-ms"] for s in sorted(metadata["snapshots"], key=lambda s: s["sequence-number"])]
        assert made == sorted(set(made)), location


@pytest.mark.parametrize(
    "jumps",
    [[0, 0, -DAY], [0, YEAR, 0]],
    ids=["stands still and goes back", "jumps ahead and comes back"],
)
def test_whatever_the_clock_does_each_build_follows_its_inputs(slate: Slate, clock: Clock, jumps: list[float]) -> None:
    lake, inbox, start = slate.wiped(), slate.inbox(), clock.now
    for number, jump in enumerate(jumps, start=1):
        clock.now = start + jump
        day(lake, inbox, number)
        assert rows(lake, "customers_trusted").total() == number - 1
        assert lake.build().run
        assert rows(lake, "machine_learning_curated").total() == number
        assert not lake.build().run, "a second build has nothing to do, whatever the time"
        sane(lake)
    found = contents(lake)
    clock.now = start
    lake.build(full=True)
    assert contents(lake) == found
    conserved(lake)
    assert not any(check.found for check in lake.audit(files=True))


def test_every_state_can_be_read_again_by_snapshot_and_by_the_time_that_history_shows(
    slate: Slate, clock: Clock
) -> None:
    lake, inbox, start = slate.wiped(), slate.inbox(), clock.now
    jumps = [0, 0, -DAY]
    for number, jump in enumerate(jumps, start=1):
        clock.now = start + jump
        day(lake, inbox, number)
        lake.build()
    states = lake.history("machine_learning_curated")[: len(jumps)]
    for number, state in zip(range(len(jumps), 0, -1), states, strict=True):
        assert at(lake, state.id) == number
        assert at(lake, moment(state.at_ms)) == number
        assert at(lake, moment(state.at_ms - 1)) == number - 1
    times = [state.at_ms for state in states]
    assert times == sorted(times, reverse=True), "history shows newest first, by time too"


def test_a_time_after_the_last_commit_is_now_once_the_clock_is_right_again(slate: Slate, clock: Clock) -> None:
    lake, inbox, start = slate.wiped(), slate.inbox(), clock.now
    clock.now = start - DAY
    day(lake, inbox, 1)
    lake.build()
    clock.now = start
    assert at(lake, moment(int(start * 1000))) == 1
    result = lake.query("select count(*) as n from machine_learning_curated", at=moment(int(start * 1000)))
    assert result.arrow()["n"].to_pylist() == [1]


def at(lake: Lake, when: int | str) -> int:
    """Returns the rows of the last table as a query of that snapshot or time finds it."""
    [snapshot] = pinned([lake.catalog.table("machine_learning_curated")], when)
    assert snapshot is not None
    return sum(file.rows for file in snapshots.data_files("machine_learning_curated", snapshot))


def moment(when: int) -> str:
    return dt.datetime.fromtimestamp(when / 1000, dt.UTC).isoformat()
