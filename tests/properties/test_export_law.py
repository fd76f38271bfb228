"""An export, against the oracle: all that is a person's by rules 5 and 6, and no row of anybody else."""

from __future__ import annotations

import base64
import csv
import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import worlds
from effort import tries
from lakes import Slate
from stedi.report.attribution import Person

World = dict[str, list[dict[str, object]]]


def read(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


@settings(max_examples=tries(3, 5, 200), suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds.worlds(people=6), seed=st.integers(0, 2**32 - 1))
def test_an_export_holds_all_of_a_person_and_nothing_of_anybody_else(world: World, seed: int, slate: Slate) -> None:
    lake = slate.wiped()
    lake.land(*worlds.write_world(world, slate.inbox(), Random(seed)))
    pseudonym = lake.key().customer_id
    said: dict[str, list[oracle.Record]] = defaultdict(list)
    for record in world["customer"]:
        said[pseudonym(str(record["email"]))].append(record)
    motions: dict[str, list[tuple[object, ...]]] = defaultdict(list)
    for reading in world["accelerometer"]:
        axes = (float(str(reading[axis])) for axis in "xyz")
        motions[pseudonym(str(reading["user"]))].append((reading["timestamp"], *axes))
    moved = {who: set(rows) for who, rows in motions.items()}
    owned, withheld = oracle.owned_steps(world, said, moved, {})
    landed = [(r["sensorReadingTime"], r["serialNumber"], r["distanceFromObject"]) for r in world["step_trainer"]]

    asked = [*(spellings[0] for spellings in worlds.PEOPLE), *worlds.STRANGERS]
    target = slate.copies() / "export"
    done = lake.export(asked, output=target)
    for number, (address, found) in enumerate(zip(asked, done.customers, strict=True), start=1):
        folder, who = target / str(number), pseudonym(address)
        told = json.loads((folder / "customer.json").read_text("utf-8"))
        names = ("email", "serialNumber", "registrationDate", "lastUpdateDate")
        assert Counter(tuple(r[name] for name in names) for r in told["records"]) == Counter(
            tuple(r[name] for name in names) for r in said.get(who, ())
        ), (seed, address)
        theirs = [(r["timestamp"], r["x"], r["y"], r["z"]) for r in read(folder / "accelerometer.jsonl")]
        assert Counter(theirs) == Counter(motions.get(who, ())), (seed, address)
        fields = ("sensorReadingTime", "serialNumber", "distanceFromObject")
        steps = [tuple(r[name] for name in fields) for r in read(folder / "step_trainer.jsonl")]
        assert Counter(steps) == Counter(row for row in landed if (who, *row) in owned), (seed, address)
        claimed = {r["serialNumber"] for r in said.get(who, ())}
        assert found.withheld_shared == sum(row in withheld and row[1] in claimed for row in landed), (seed, address)
        assert found.known == bool(said.get(who) or motions.get(who))
        assert (found.records, found.accelerometer, found.step_trainer) == (
            len(told["records"]),
            len(theirs),
            len(steps),
        )
        for feed, rows in (("accelerometer", theirs), ("step_trainer", steps)):
            with (folder / f"{feed}.csv").open(newline="", encoding="utf-8") as stream:
                assert len(list(csv.DictReader(stream))) == len(rows)
        others = [spelling for them in worlds.PEOPLE if address not in them for spelling in them]
        for file in folder.iterdir():
            text = file.read_text("utf-8").casefold()
            assert not [other for other in others if other.strip().casefold() in text], (seed, file.name)
    shutil.rmtree(target)


@st.composite
def envelopes(draw: st.DrawFn) -> tuple[object, list[tuple[int, str]]]:
    """A JSON value around records of neighbours, some of it in strings, and whose record has which mark."""
    marks: list[tuple[int, str]] = []

    def record() -> object:
        who = draw(st.integers(0, len(worlds.NEIGHBOURS) - 1))
        marks.append((who, f"mark-{len(marks)}-"))
        beside = draw(st.sampled_from(["", *(address for them in worlds.NEIGHBOURS for address in them)]))
        return {
            draw(st.sampled_from(["user", "email", "Email"])): draw(st.sampled_from(worlds.NEIGHBOURS[who])),
            "mark": marks[-1][1],
            "note": f"by <{beside}>, {draw(st.sampled_from(['', base64.b64encode(beside.encode()).decode()]))}",
        }

    def value(level: int) -> object:
        kind = draw(st.sampled_from(["record", "record", "list", "object", "text"] if level else ["list", "object"]))
        if kind == "record" or level > 3:
            return record()
        inner = [value(level + 1) for _ in range(draw(st.integers(1, 3)))]
        if kind == "text":
            return json.dumps(inner, ensure_ascii=draw(st.booleans()))
        return inner if kind == "list" else {f"part{n}": each for n, each in enumerate(inner)}

    return value(0), marks


@settings(max_examples=80)
@given(drawn=envelopes(), who=st.integers(0, len(worlds.NEIGHBOURS) - 1), cut=st.sampled_from([0, 0, 0, 1, 7]))
def test_of_an_envelope_somebody_gets_their_records_and_nobody_elses(
    drawn: tuple[object, list[tuple[int, str]]], who: int, cut: int
) -> None:
    value, marks = drawn
    raw = json.dumps(value).encode()
    person = Person(worlds.NEIGHBOURS[who][0].casefold())
    found = person.part(raw[: len(raw) - cut])
    text = (found or b"").decode()
    assert not [mark for owner, mark in marks if owner != who and mark in text]
    assert not person.others_in(text)
    if not cut and {owner for owner, _ in marks} > {who}:
        assert found is not None, "others' records can be told apart"
    if not cut and found is not None:
        assert all(mark in text for owner, mark in marks if owner == who)
