"""Erasures for tests: a lake with customers, and helpers that erase, search for traces, or die on the way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import quick
from deliveries import customer, deliver, instant, motion, step
from lakes import Slate, build, unseen
from stedi import erasure
from stedi.engines.duckdb import DuckDB
from stedi.erasure import search
from stedi.erasure.locate import SubjectRows
from stedi.erasure.pending import Pending
from stedi.erasure.search import Search
from stedi.lake import Lake
from stedi.privacy import tombstones
from stedi.storage import durable
from stedi.transform.ahead import Ahead

ANA, BO, CY = "ana.bo@test.example", "bo@test.example", "cy@test.example"
NAME, PHONE, DEVICE, SHARED = "Ana Bo Lund", "+15550100", "device-of-ana", "device-of-many"
NOW = 1_000
"""When these tests build and erase: after all but a few of the delivered instants."""


def delivered(folder: Path) -> Path:
    """Three customers, each with a device, and one device that all claim; dirty files; a file named after one."""
    people = [
        customer(ANA, 60, serialNumber=DEVICE, customerName=NAME, phone=PHONE, birthDay="1990-02-03"),
        customer(BO, 50, serialNumber="device-of-bo", customerName="Bo Lund", phone="+15550200"),
        customer(CY, ..., serialNumber="device-of-cy", customerName="Bo Lund", phone="+15550300"),
    ]
    earlier = [{**record, "serialNumber": SHARED, "lastUpdateDate": 1000000000090} for record in people]
    deliver(folder, "customer", [*people[1:], *earlier[1:]])
    deliver(folder, "customer", [people[0], earlier[0]], "ANA.BO@test.example.json")
    deliver(folder, "accelerometer", [motion(who, at) for who in (ANA, BO, CY) for at in range(100, 105)])
    alone = [motion(ANA, 106), motion(BO, 107), motion(CY, 107), motion(BO, 108)]
    deliver(
        folder, "accelerometer", [{**reading, "user": str(reading["user"]).upper()} for reading in alone], "more.json"
    )
    devices = [DEVICE, "device-of-bo", "device-of-cy"]
    deliver(folder, "step_trainer", [step(serial, at) for serial in devices for at in range(100, 106)])
    # at 104 all have moved, at 106 Ana alone, at 107 two others, at 108 Bo alone, at 109 nobody
    deliver(folder, "step_trainer", [step(SHARED, at) for at in (104, 106, 107, 108, 109)], "shared.json")
    broken = [
        '{"user": "Ana.Bo@Test.Example", "timestamp": "late"}',
        r'{"user": "\u0061na.bo@test\u002eexample"}',
        f'{{"customerName": "{NAME.upper()}"}}',
        f'{{"phone": "{PHONE}"}}',
        f'{{"serialNumber": "{DEVICE}"}}',
        '{"user": "joana.bo@test.example"}',
        '{"customerName": "Bo Lund"}',
    ]
    (folder / "accelerometer" / "dirty.json").write_text("\n".join([*broken, json.dumps(motion(BO, 103, 9.0))]))
    (folder / "step_trainer" / "cut.json").write_text(
        json.dumps(step("device-of-bo", 101, 7)) + '{"serialNumber": "dev'
    )
    return folder


class Stage:
    """A lake of these deliveries, built once and restored for each use, with the inbox beside it."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._slate = folder, Slate(folder)
        self._kept = folder / "kept"
        lake = self._slate.wiped()
        lake.land(delivered(self._slate.inbox()))
        build(lake, NOW)
        self.root = lake.root
        shutil.copytree(lake.root, self._kept)

    def made(self) -> tuple[Lake, Path]:
        """Returns the lake and its inbox."""
        shutil.rmtree(self.root, ignore_errors=True)
        shutil.copytree(self._kept, self.root)
        quick.forget()
        return unseen(self.root), delivered(self._slate.inbox())

    def empty(self) -> tuple[Lake, Path]:
        """Returns an empty lake at the same place, and an empty inbox."""
        quick.forget()
        return self._slate.wiped(), self._slate.inbox()


def erase(lake: Lake, *addresses: str, now: int = NOW, **options: Any) -> dict[str, Any]:
    """Erases as if it were `now` and returns the receipt."""
    with lake.context.writing(*durable.ALL, erasing=True):
        return erasure.erase(lake.context, lake.key(), addresses, now=instant(now), **options)[-1]


def looked_for(lake: Lake, address: str) -> Callable[[], Search]:
    """Returns a search for a customer who is still in the lake, to be used now and later."""
    wanted = Pending("search", instant(NOW), (tombstones.person(lake.key(), address),))
    with DuckDB(memory="200MB", threads=1, temporary=lake.root.parent / "spill") as engine:
        found = SubjectRows(engine, lake.catalog, lake.key(), wanted, Ahead(engine, worthwhile=False)).traces

    def again() -> Search:
        with DuckDB(memory="200MB", threads=1, temporary=lake.root.parent / "spill") as engine:
            return search.search_lake(lake.root, found, engine)

    return again


class Died(BaseException):
    """Simulates the death of the process; no handler may catch it."""


@contextmanager
def dying(owner: object, name: str, place: int = 1, *, after: bool = False) -> Iterator[list[int]]:
    """Makes the `place`-th call of a step die, before or after its work, and ends the block.

    Yields:
        The calls so far; with a place of 0 none dies.
    """
    real, calls = getattr(owner, name), [0]

    def step(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == place and not after:
            raise Died
        found = real(*arguments, **options)
        if calls[0] == place:
            raise Died
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, step)
        if place:
            with pytest.raises(Died):
                yield calls
        else:
            yield calls
