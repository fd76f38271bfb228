"""An erasure that dies anywhere, or meets other commands, ends with everybody gone who was to go."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import quick
from deliveries import deliver, motion
from effort import NIGHTLY
from erasing import ANA, BO, Stage, dying, erase, looked_for
from lakes import LANDING, Row, conserved, contents, records, rows
from stedi import erasure
from stedi.catalog import Catalog
from stedi.erasure import deliveries, pending, remove
from stedi.errors import LakeError
from stedi.lake import Lake
from stedi.privacy import receipts, tombstones
from stedi.storage import durable


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(erasure, "_MANY_ROWS", 0)  # a second thread is at work whenever something dies
        yield Stage(folder)


WHEN = ["before the first", "before the last", *(["after the first", "after the last"] if NIGHTLY else [])]
STEPS: tuple[tuple[object, str], ...] = (
    (pending, "write"),
    (tombstones, "write"),
    (Catalog, "erase"),
    (Catalog, "expire"),
    (deliveries, "rewrite"),
    (deliveries, "replace"),
    (remove, "_unlink"),
    (Catalog, "vacuum"),
    (remove, "clear"),
    (erasure, "search_lake"),
    (remove, "remove"),
    (receipts, "keep"),
    (pending, "remove"),
)


OFTEN = STEPS[:4] + STEPS[6:7]
"""Those that an erasure takes more than once."""

State = tuple[dict[str, Counter[Row]], ...]


def state(lake: Lake) -> State:
    """Returns all rows, but those of the ledger, whose batches are other ones each time."""
    landed = {table: records(lake, table) for table in LANDING}
    refused = Counter((row[2], row[3], row[6]) for row in rows(lake, "quarantine"))
    return contents(lake), landed, {"quarantine": refused}


@pytest.fixture(scope="module")
def undisturbed(stage: Stage) -> tuple[State, dict[str, int]]:
    """What an erasure leaves that nothing disturbs, and how often each step is called in it."""
    lake, folder = stage.made()
    counts = {}
    with ExitStack() as stack:
        for owner, name in STEPS:
            counts[f"{owner} {name}"] = stack.enter_context(dying(owner, name, 0))
        erase(lake, ANA, delivered=[str(folder)])
    return state(lake), {step: count for step, [count] in counts.items()}


@pytest.mark.parametrize(
    ("owner", "name", "when"),
    [(owner, name, when) for owner, name in STEPS for when in (WHEN if (owner, name) in OFTEN else WHEN[:1])],
)
@pytest.mark.sample(full=8)
def test_an_erasure_that_dies_anywhere_is_finished_by_the_next_command(
    stage: Stage, undisturbed: tuple[State, dict[str, int]], owner: object, name: str, when: str
) -> None:
    expected, counts = undisturbed
    count = counts[f"{owner} {name}"]
    lake, folder = stage.made()
    search = looked_for(lake, ANA)
    with dying(owner, name, count if "last" in when else 1, after=when.startswith("after")):
        erase(lake, ANA, delivered=[str(folder)])
    quick.forget()
    lake = Lake.open(lake.root)
    if (lake.root / tombstones.PENDING).exists():
        assert ANA not in (lake.root / tombstones.PENDING).read_text().lower()
        with pytest.raises(LakeError, match="--resume"):
            tombstones.refuse_unfinished(lake.root)
        lake.land(folder) if when == "before the first" else lake.build()
    elif not lake.receipts():
        erase(lake, ANA, delivered=[str(folder)])
    quick.forget()
    assert state(lake) == expected
    assert search().found == []
    assert [receipts.holds(receipt.document, lake.key(), lake.config.lake_id) for receipt in lake.receipts()] == [True]
    assert not unread(folder)
    conserved(lake)


def unread(folder: Path) -> list[Path]:
    """Returns the delivered files that still name Ana, or are only half there."""
    texts = {path: path.read_text().lower().replace(f"jo{ANA}", "") for path in folder.rglob("*") if path.is_file()}
    return [path for path, text in texts.items() if path.suffix == ".erasing" or ANA in text]


def test_other_commands_wait_and_find_them_gone(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = stage.made()
    path = deliver(folder, "accelerometer", [motion(ANA, 100, 4.0), motion(BO, 100, 4.0)], "meanwhile.json")
    begun, go, landed = threading.Event(), threading.Event(), []
    real = remove.Removal.table

    def slow(self: remove.Removal, name: str, *rest: Any) -> dict[str, int]:
        begun.set()
        assert go.wait(20)
        return real(self, name, *rest)

    monkeypatch.setattr(remove.Removal, "table", slow)
    erasing = threading.Thread(target=lambda: erase(lake, ANA))
    landing = threading.Thread(target=lambda: landed.append(Lake.open(lake.root).land(path)))
    building = threading.Thread(target=lambda: Lake.open(lake.root).build())
    erasing.start()
    assert begun.wait(20)
    landing.start()
    building.start()
    landing.join(0.3)
    assert landing.is_alive()
    assert building.is_alive()
    go.set()
    for thread in (erasing, landing, building):
        thread.join(60)
    assert landed[0].erased == 1
    lake.build()
    assert lake.key().customer_id(ANA) not in {row[0] for row in rows(lake, "accelerometer_trusted")}


def test_a_landing_that_was_first_is_waited_for_and_erased(stage: Stage) -> None:
    lake, _ = stage.made()
    with durable.lock(lake.root / "land.lock", wait=True):
        erasing = threading.Thread(target=lambda: erase(lake, ANA))
        erasing.start()
        erasing.join(0.2)
        assert erasing.is_alive()
        assert not (lake.root / tombstones.PENDING).exists()
    erasing.join(60)
    assert lake.receipts()


@pytest.mark.parametrize("work", [Lake.maintain, lambda lake: lake.quarantine().replay()], ids=["maintain", "replay"])
def test_a_command_that_neither_lands_nor_builds_finishes_an_erasure_first(
    stage: Stage, work: Callable[[Lake], object]
) -> None:
    lake, _ = stage.made()
    with dying(Catalog, "vacuum"):
        erase(lake, ANA)
    work(lake)
    assert lake.receipts()


def test_after_an_interrupted_landing_they_are_gone_all_the_same(stage: Stage) -> None:
    lake, folder = stage.made()
    path = deliver(folder, "accelerometer", [motion(ANA, 103, 4.0), motion(BO, 103, 4.0)], "journalled.json")
    with dying(Catalog, "append"):
        lake.land(path)
    assert list((lake.root / "pending").glob("*.json"))
    search = looked_for(lake, ANA)
    erase(lake, ANA)
    assert search().found == []
    conserved(lake)
    assert motion(BO, 103, 4.0)["user"] in {row[0] for row in rows(lake, "accelerometer_landing")}
