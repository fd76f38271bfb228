"""A file whose name says one feed and whose records are another's: it lands as what it is, or can be landed again."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from erasing import dying
from lakes import Slate, conserved, heads, records, rows
from stedi.catalog import Catalog
from stedi.lake import Lake
from stedi.landing import reader
from stedi.landing.crawl import crawl
from stedi.landing.quarantine import Relanded
from stedi.schema.feeds import CONTRACTS

RECORDS: dict[str, list[dict[str, object]]] = {
    "customer": [customer(f"c{n}@x.example", serialNumber=f"s{n}") for n in range(3)],
    "accelerometer": [motion(f"c{n}@x.example", 100 + n) for n in range(3)],
    "step_trainer": [step(f"s{n}", 100 + n) for n in range(3)],
}
PLACES = (
    "accelerometer/customer-0042.json",
    "accelerometer/customer_id=7/part-0.json",
    "Customer Accelerometer Data/x.json",
    "step_trainer/customers/part-0.json",
    "customers/step-trainer.json",
    "customer.json",
)
RUBBISH = (b"header " * 100 + b"\n") * 200
SHAPES: dict[str, Callable[[list[dict[str, object]]], bytes]] = {
    "lines": lambda found: b"".join(json.dumps(one).encode() + b"\n" for one in found),
    "array": lambda found: json.dumps(found, indent=1).encode(),
    "gzip": lambda found: gzip.compress(json.dumps(found).encode()),
    "after rubbish": lambda found: (
        (b"header " * 100 + b"\n") * 200 + b"".join(json.dumps(one).encode() + b"\n" for one in found)
    ),
}


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


def put(inbox: Path, name: str, content: bytes) -> Path:
    path = inbox / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def believed(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Names are believed, as they were before fields could overrule them; `undo` ends that."""
    monkeypatch.setattr(reader, "infer_feed", lambda text, named=None: named)
    return monkeypatch


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("feed", RECORDS)
def test_fields_overrule_a_name_that_fits_no_record(lake: Lake, inbox: Path, feed: str, shape: str) -> None:
    made = [deliver(inbox / str(n), "", RECORDS[feed]) for n in range(len(PLACES))]
    for n, (place, old) in enumerate(zip(PLACES, made, strict=True)):
        content = SHAPES[shape]([{**one, f"n{n}": 0} for one in RECORDS[feed]])
        old.unlink()
        put(inbox / str(n), place, content)
    landed = lake.land(*(inbox / str(n) / Path(place).parts[0] for n, place in enumerate(PLACES)))
    assert {file.feed for file in landed.files} == {feed}
    assert (landed.accepted, len(landed.skipped)) == (3 * len(PLACES), 0)
    [found] = crawl([inbox]).feeds
    assert found.feed == feed


@pytest.mark.parametrize("shape", ["lines", "array", "gzip"])
@pytest.mark.parametrize("misfits", [1, 150, 3000])
def test_a_mixed_file_stays_what_its_name_says_and_its_misfits_go_to_quarantine(
    lake: Lake, inbox: Path, misfits: int, shape: str
) -> None:
    others = [motion("c0@x.example", 1 + n) for n in range(misfits)]
    put(inbox, "customers.json", SHAPES[shape]([*others, *RECORDS["customer"][:1]]))
    [file] = lake.land(inbox).files
    assert (file.feed, file.accepted, file.quarantined) == ("customer", 1, misfits)


def test_a_name_stands_if_one_record_speaks_for_it_under_any_spelling(lake: Lake, inbox: Path) -> None:
    record = json.dumps(RECORDS["customer"][0]).replace("email", "\\u0045mail").encode()
    put(inbox, "customers.json", SHAPES["lines"](RECORDS["accelerometer"] * 50) + record)
    [file] = lake.land(inbox).files
    assert (file.feed, file.accepted, file.quarantined) == ("customer", 1, 150)


def test_a_name_stands_where_fields_do_not_decide(lake: Lake, inbox: Path) -> None:
    put(inbox, "customers-1.json", SHAPES["lines"]([{"what": 1}, {"email": "a@x.example"}]))
    put(inbox, "customers-2.json", SHAPES["lines"](RECORDS["accelerometer"] + RECORDS["step_trainer"]))
    assert {(file.feed, file.accepted) for file in lake.land(inbox).files} == {("customer", 0)}


def test_a_feed_that_is_said_and_fits_no_record_refuses_the_file_whole_and_it_lands_later(
    lake: Lake, inbox: Path
) -> None:
    path = deliver(inbox, "accelerometer", RECORDS["accelerometer"], "customer-0042.json")
    for wrong in ("customer", "step_trainer"):
        refused = lake.land(path, feed=wrong)
        assert refused.files == ()
        [why] = refused.skipped
        assert why.failed
        assert "feed=accelerometer" in why.why
        assert f"feed={wrong}" in why.why
    assert rows(lake, "landed_files") == rows(lake, "quarantine") == Counter()
    assert lake.land(path, feed="accelerometer").accepted == 3


WAYS = ("--feed", "renamed", "the same name", "--replay")


def again(lake: Lake, path: Path, way: str) -> int:
    """Lands a file again in one of the ways, and returns how many of its records have landed."""
    if way == "--replay":
        lake.quarantine().replay()
    elif way == "--feed":
        lake.land(path, feed="accelerometer")
    elif way == "renamed":
        lake.land(path.rename(path.with_name("accelerometer-0042.json")))
    else:
        lake.land(path)
    return records(lake, "accelerometer_landing").total()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clean", [True, False])
def test_a_file_of_which_nothing_landed_is_landed_again_and_its_quarantine_leaves(
    lake: Lake, inbox: Path, believed: pytest.MonkeyPatch, way: str, clean: bool
) -> None:
    found = RECORDS["accelerometer"] + ([] if clean else [{"user": "odd"}])
    path = deliver(inbox, "accelerometer", found, "customer-0042.json")
    deliver(inbox, "customer", [*RECORDS["customer"], {"email": "odd@x.example"}])
    assert lake.land(inbox).accepted == 3
    assert records(lake, "accelerometer_landing").total() == 0
    believed.undo()
    assert again(lake, path, way) == 3
    conserved(lake)
    left = Counter((row[0], row[1]) for row in rows(lake, "quarantine").elements())
    assert sum(left.values()) == (1 if clean else 2)
    assert not [check for check in lake.prove().checks if check.violations]
    before = heads(lake)
    for once_more in WAYS:
        path = next(inbox.rglob("*0042.json"))
        assert again(lake, path, once_more) == 3
        assert heads(lake) == before, once_more


def test_one_landing_takes_fruitless_files_back_and_quarantines_others(
    lake: Lake, inbox: Path, believed: pytest.MonkeyPatch
) -> None:
    deliver(inbox, "accelerometer", RECORDS["accelerometer"], "customer-0042.json")
    lake.land(inbox)
    believed.undo()
    deliver(inbox, "step_trainer", [*RECORDS["step_trainer"], {"serialNumber": "odd"}])
    landed = lake.land(inbox)
    assert (landed.seen, landed.accepted, landed.quarantined) == (7, 6, 1)
    conserved(lake)
    assert rows(lake, "quarantine").total() == 1


@pytest.mark.parametrize(("call", "place"), [("append", 1), ("append", 2), ("stage", 1), ("publish", 1)])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("way", ["the same name", "--replay"])
def test_a_landing_again_that_dies_in_a_commit_is_finished_by_the_next_and_stands_once(
    lake: Lake, inbox: Path, believed: pytest.MonkeyPatch, call: str, place: int, after: bool, way: str
) -> None:
    path = deliver(inbox, "accelerometer", RECORDS["accelerometer"], "customer-0042.json")
    lake.land(inbox)
    believed.undo()
    with dying(Catalog, call, place, after=after):
        again(lake, path, way)
    assert again(lake, path, "the same name") == 3
    conserved(lake)
    assert rows(lake, "quarantine").total() == 0


def test_a_file_of_which_anything_landed_is_not_landed_as_another_feed(lake: Lake, inbox: Path) -> None:
    path = put(inbox, "customers.json", SHAPES["lines"]([*RECORDS["customer"][:1], *RECORDS["accelerometer"]]))
    lake.land(path)
    before = heads(lake)
    assert lake.land(path, feed="accelerometer").files[0].already_landed
    assert lake.quarantine().replay() == Relanded(0, 3)
    assert heads(lake) == before


def test_a_clean_file_is_read_no_further_than_its_first_record_to_know_its_feed(inbox: Path) -> None:
    reads: list[int] = []

    class Text:
        def read(self, size: int) -> bytes:
            reads.append(size)
            return SHAPES["lines"](RECORDS["accelerometer"])

    text: Any = Text
    assert reader.infer_feed(text, "accelerometer") == "accelerometer"
    assert len(reads) == 1
    assert set(CONTRACTS) == set(RECORDS)
