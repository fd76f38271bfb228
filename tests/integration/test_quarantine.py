"""Quarantine: what was refused can be listed, looked at and, under a newer contract, landed."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import Slate, conserved, heads, records
from stedi.catalog import Catalog
from stedi.cli import main
from stedi.errors import UsageError
from stedi.lake import Lake
from stedi.landing.quarantine import RawRecord, Relanded
from stedi.schema.feeds import CONTRACTS


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


def changed(patch: pytest.MonkeyPatch, feed: str, *names: str, required: bool = False) -> None:
    """Puts a newer contract in place, in which these fields may, or must not, be left out."""
    old = CONTRACTS[feed]
    fields = tuple(replace(f, required=required if f.name in names else f.required) for f in old.fields)
    patch.setitem(CONTRACTS, feed, replace(old, fields=fields))


def without(record: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in names}


def put(inbox: Path, name: str, content: bytes) -> Path:
    path = inbox / name
    path.write_bytes(content)
    return path


def test_an_empty_quarantine_lists_nothing(lake: Lake) -> None:
    quarantine = lake.quarantine()
    assert (list(quarantine.records()), quarantine.counts(), quarantine.total()) == ([], [], 0)
    assert quarantine.replay() == Relanded(0, 0)


def test_records_are_listed_by_file_and_offset_and_counted_by_reason(lake: Lake, inbox: Path) -> None:
    put(inbox, "step_trainer-b.json", b'{"a":1}\n[1]\n{"a":2}\n')
    put(inbox, "step_trainer-a.json", b"\n\n7\n{")
    lake.land(inbox)
    listed = [(record.file, record.offset, record.line, record.reason) for record in lake.quarantine().records()]
    assert listed[:2] == [
        ("inbox/step_trainer-a.json", 2, 3, "not_an_object"),
        ("inbox/step_trainer-a.json", 4, 4, "truncated"),
    ]
    assert lake.quarantine().counts()[0] == ("missing_required", "step_trainer", "inbox/step_trainer-b.json", 2)
    assert sum(count for *_, count in lake.quarantine().counts()) == lake.quarantine().total() == len(listed)


def test_one_record_is_shown_by_name_or_by_content(lake: Lake, inbox: Path) -> None:
    put(inbox, "customers:1.json", b'  {"email": 7}  ')
    lake.land(inbox)
    quarantine = lake.quarantine()
    (record,) = quarantine.records()
    for handle in (record.handle, "inbox/customers:1.json:2", f"{record.sha256}:2"):
        assert quarantine.raw(handle) == RawRecord(b'{"email": 7}', 12)


@pytest.mark.parametrize(
    "handle", ["", "1", ":1", "inbox/a.json", "inbox/a.json:", "a:-1", "a:x", "a:²", "' or 1=1 --:0"]
)
def test_a_handle_that_names_no_record_is_bad_usage(lake: Lake, inbox: Path, handle: str) -> None:
    put(inbox, "customers.json", b"{}")
    lake.land(inbox)
    with pytest.raises(UsageError, match="expected"):
        lake.quarantine().raw(handle)


def test_a_handle_that_names_two_records_is_bad_usage(lake: Lake, inbox: Path) -> None:
    put(inbox, "customers.json", b"{}")
    lake.land(inbox)
    put(inbox, "customers.json", b"{ }")
    lake.land(inbox)
    with pytest.raises(UsageError, match="found several"):
        lake.quarantine().raw("inbox/customers.json:0")


def test_raw_bytes_keep_the_first_64_kib_and_the_whole_size(lake: Lake, inbox: Path) -> None:
    put(inbox, "customers.json", b'{"email":"' + b"e" * 100_000 + b'"}')
    lake.land(inbox)
    (record,) = lake.quarantine().records()
    raw = lake.quarantine().raw(record.handle)
    assert (len(raw.content), raw.size, record.size) == (1 << 16, 100_012, 100_012)


def test_show_escapes_what_a_terminal_would_act_upon(
    lake: Lake, inbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\x00\x9b31m\u202e\u2028é\n".encode() + b"\xff\xfe"
    put(inbox, "customers.json", b'{"email": "' + evil + b'"}')
    lake.land(inbox)
    for record in lake.quarantine().records():
        for flags in ([], ["--json"]):
            assert main(["--lake", str(lake.root), *flags, "quarantine", "--show", record.handle]) == 0
            out = capsys.readouterr().out
            text = json.loads(out)["raw"] if flags else out.removesuffix("\n")
            assert text.isprintable()


def test_replay_lands_what_a_newer_contract_accepts(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = without(customer("b@x.example", note="kept"), "registrationDate")
    deliver(inbox, "customer", [customer(), bare, without(bare, "email")])
    put(inbox, "accelerometer.json", b'{"user":"u","timestamp":1000000000007,"x":1,"y":1}{bad}')
    lake.land(inbox)
    ledger = {file.name: (file.seen, file.accepted, file.quarantined) for file in lake.land(inbox).files}
    assert lake.quarantine().replay() == Relanded(0, 4)
    changed(monkeypatch, "customer", "registrationDate")
    changed(monkeypatch, "accelerometer", "z")
    assert lake.quarantine().replay() == Relanded(2, 2)
    conserved(lake)
    assert Counter(record.reason for record in lake.quarantine().records()) == {"missing_required": 1, "malformed": 1}
    landed = {row[1]: row for row in records(lake, "customers_landing")}
    assert landed.keys() == {"a@x.example", "b@x.example"}
    assert landed["b@x.example"][5] is None
    assert json.loads(landed["b@x.example"][-1]) == {"note": "kept"}
    assert records(lake, "accelerometer_landing") == Counter({("u", 7, 1.0, 1.0, None, None): 1})
    after = {file.name: (file.seen, file.accepted, file.quarantined) for file in lake.land(inbox).files}
    assert ledger["inbox/customer/delivered.json"] == (3, 1, 2)
    assert after["inbox/customer/delivered.json"] == (3, 2, 1)
    assert after["inbox/accelerometer.json"] == (2, 1, 1)


def test_replaying_twice_adds_nothing(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(inbox, "step_trainer", [without(step(at=n), "distanceFromObject") for n in (1, 2)])
    lake.land(inbox)
    changed(monkeypatch, "step_trainer", "distanceFromObject")
    assert lake.quarantine().replay() == Relanded(2, 0)
    before = heads(lake)
    assert lake.quarantine().replay() == Relanded(0, 0)
    assert heads(lake) == before
    assert records(lake, "step_trainer_landing").total() == 2


def test_what_was_kept_only_in_part_is_never_replayed(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(inbox, "customers.json", json.dumps(without(customer(), "email") | {"note": "n" * 70_000}).encode())
    lake.land(inbox)
    changed(monkeypatch, "customer", "email")
    assert lake.quarantine().replay() == Relanded(0, 1)


def test_brackets_that_were_part_of_a_record_do_not_make_records_of_what_is_in_them(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(inbox, "step_trainer.json", b'7 "x" [1] ' + json.dumps(step()).encode())
    lake.land(inbox)
    changed(monkeypatch, "step_trainer", "serialNumber")
    refused = lake.quarantine().total()
    assert lake.quarantine().replay() == Relanded(0, refused)


def test_a_replayed_customer_reaches_the_tables_below(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deliver(inbox, "customer", [customer()])
    deliver(inbox, "accelerometer", [motion()])
    with monkeypatch.context() as stricter:
        changed(stricter, "customer", "phone", required=True)
        lake.land(inbox)
    assert not any(table.rows for table in lake.build().tables)
    assert lake.quarantine().replay() == Relanded(1, 0)
    assert {table.name: table.rows for table in lake.build().tables}["accelerometer_trusted"] == 1


@pytest.mark.parametrize("call", ["append", "stage", "publish"])
def test_a_replay_that_dies_is_finished_by_the_next_landing(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    records_ = [without(step(at=1), "distanceFromObject"), {"odd": 1}]
    deliver(inbox, "step_trainer", records_)
    lake.land(inbox)
    changed(monkeypatch, "step_trainer", "distanceFromObject")

    def dying(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, call, dying)
        with pytest.raises(KeyboardInterrupt):
            lake.quarantine().replay()
    lake.land(inbox)
    assert lake.quarantine().total() == 1
    assert records(lake, "step_trainer_landing").total() == 1
    conserved(lake)


def test_a_replay_that_fails_before_its_journal_leaves_nothing(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(inbox, "step_trainer", [without(step(at=1), "distanceFromObject")])
    lake.land(inbox)
    before, files = heads(lake), sorted(lake.root.rglob("*.parquet"))
    changed(monkeypatch, "step_trainer", "distanceFromObject")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("stedi.landing.journal.durable.write", full)
        with pytest.raises(OSError, match="No space"):
            lake.quarantine().replay()
    assert (heads(lake), sorted(lake.root.rglob("*.parquet"))) == (before, files)
    assert not list((lake.root / "tmp").rglob("*.json"))
    assert lake.quarantine().replay() == Relanded(1, 0)
    conserved(lake)


def test_a_record_is_replayed_whatever_the_spelling_of_its_names(
    lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(
        inbox,
        "accelerometer.json",
        b'{"user":"a","timestamp":1000000000006,"x":1,"y":1}{"user":"b","timeStamp":1000000000007,"x":1,"y":1}{"Y":-1e-5,"USER":"c\\n","x":0.5,"TIMESTAMP":1000000000008}',
    )
    lake.land(inbox)
    changed(monkeypatch, "accelerometer", "z")
    assert lake.quarantine().replay() == Relanded(3, 0)
    assert records(lake, "accelerometer_landing") == Counter(
        {("a", 6, 1.0, 1.0, None, None): 1, ("b", 7, 1.0, 1.0, None, None): 1, ("c\n", 8, 0.5, -1e-5, None, None): 1}
    )


def test_the_field_that_was_wrong_is_told(lake: Lake, inbox: Path) -> None:
    good = {"serialNumber": "s1", "sensorReadingTime": 1_700_000_000_000, "distanceFromObject": 1}
    wrong = [
        {**good, "distanceFromObject": 1.5},
        {**good, "distanceFromObject": "x", "sensorReadingTime": 5},
        {**good, "sensorReadingTime": 5},
        {"serialNumber": "s1"},
    ]
    lines = [json.dumps(record) for record in wrong]
    (inbox / "step_trainer").mkdir()
    (inbox / "step_trainer" / "a.json").write_text("\n".join([*lines, '{"broken']))
    lake.land(inbox)
    faults, looked_at = lake.quarantine().faults()
    assert looked_at == 5
    assert {(f.reason, f.field): f.records for f in faults} == {
        ("wrong_type", "distanceFromObject"): 2,
        ("out_of_range", "sensorReadingTime"): 1,
        ("missing_required", "sensorReadingTime"): 1,
        ("missing_required", "distanceFromObject"): 1,
        ("truncated", ""): 1,
    }


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**500])
def test_a_number_beyond_64_bits_is_told_from_an_integer(lake: Lake, inbox: Path, number: int) -> None:
    record = {"serialNumber": "s1", "sensorReadingTime": 1_700_000_000_000, "distanceFromObject": number}
    lake.land(deliver(inbox, "step_trainer", [record]))
    [fault], _ = lake.quarantine().faults()
    assert (fault.reason, fault.expected, fault.found) == ("out_of_range", "integer", "integer beyond 64 bits")


@pytest.mark.parametrize("number", ["1e400", "-1e999", "1" + "0" * 500])
def test_a_number_too_large_is_told_from_another_kind(lake: Lake, inbox: Path, number: str) -> None:
    path = inbox / "accelerometer" / "a.json"
    path.parent.mkdir(parents=True)
    path.write_text(f'{{"user": "a@b.org", "timestamp": 1700000000000, "x": {number}, "y": 0, "z": 0}}')
    lake.land(inbox)
    [fault], _ = lake.quarantine().faults()
    assert (fault.reason, fault.expected, fault.found) == ("out_of_range", "number", "number too large")
