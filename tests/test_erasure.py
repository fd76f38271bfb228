"""Erasure: nothing of a customer stays or comes back, nobody else loses anything, whatever dies on the way."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import fastavro
import pytest
import zstandard

import quick
from lakes import (
    LANDING,
    Slate,
    build,
    conserved,
    contents,
    customer,
    deliver,
    heads,
    motion,
    records,
    rows,
    step,
    tree,
)
from stedi import durable, erasure
from stedi.build import session
from stedi.catalog import Catalog
from stedi.cli import main
from stedi.engines.duckdb import DuckDB
from stedi.erasure import forgetting, inbox, pending
from stedi.erasure.finding import Whereabouts
from stedi.erasure.pending import Pending
from stedi.errors import AuditFailed, LakeBusy, LakeError, UsageError
from stedi.lake import Lake
from stedi.landing import sieve
from stedi.privacy import receipts, tombstones, traces
from stedi.privacy.traces import Search, Traces

ANA, BO, CY = "ana.bo@test.example", "bo@test.example", "cy@test.example"
NAME, PHONE, DEVICE, SHARED = "Ana Bo Lund", "+15550100", "device-of-ana", "device-of-many"
NOW = 1_000
"""When these tests build and erase: after every instant that they deliver but a few."""


@pytest.fixture(scope="module")
def slate() -> Iterator[Slate]:
    with quick.folder() as folder:
        yield Slate(folder)


def delivered(folder: Path) -> Path:
    """Three customers, one device of each and one that all claim; dirty files; a file named after one of them."""
    people = [
        customer(ANA, 60, serialNumber=DEVICE, customerName=NAME, phone=PHONE, birthDay="1990-02-03"),
        customer(BO, 50, serialNumber="device-of-bo", customerName="Bo Lund", phone="+15550200"),
        customer(CY, ..., serialNumber="device-of-cy", customerName="Bo Lund", phone="+15550300"),
    ]
    earlier = [{**record, "serialNumber": SHARED, "lastUpdateDate": 90} for record in people]
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


def made(slate: Slate) -> tuple[Lake, Path]:
    """A lake of these deliveries, built, and the inbox."""
    lake, folder = slate.wiped(), delivered(slate.inbox())
    lake.land(folder)
    build(lake, NOW)
    return lake, folder


def erase(lake: Lake, *addresses: str, now: int = NOW, **options: Any) -> dict[str, Any]:
    """Erases as if it were `now` and returns the receipt."""
    return erasure.erase(lake.catalog, lake.config, lake.root, lake.key(), addresses, now=now, **options)[-1]


def looked_for(lake: Lake, address: str) -> Callable[[], Search]:
    """Returns what searches a lake for one who is still in it, then and later."""
    wanted = Pending("search", NOW, (tombstones.person(lake.key(), address),))
    with DuckDB(memory="200MB", threads=1, temporary=lake.root.parent / "spill") as engine:
        found = Whereabouts(engine, lake.catalog, lake.key(), wanted).traces

    def again() -> Search:
        with DuckDB(memory="200MB", threads=1, temporary=lake.root.parent / "spill") as engine:
            return traces.search(lake.root, found, engine)

    return again


def test_nothing_of_the_customer_stays_and_the_search_would_have_seen_it(slate: Slate) -> None:
    lake, _ = made(slate)
    search = looked_for(lake, ANA)
    before = {path.split("/")[1] for path in search().found if "/" in path}
    assert before >= {*LANDING, "quarantine", "landed_files", "customers_trusted", "accelerometer_trusted"}
    assert before >= {"customers_curated", "step_trainer_trusted", "machine_learning_curated"}
    receipt = erase(lake, f" {ANA.upper()} ")
    assert search().found == []
    assert receipt["scanned"]["files"]["parquet"] > 5
    assert not (lake.root / tombstones.PENDING).exists()
    text = b"".join(path.read_bytes() for path in lake.root.rglob("*") if path.is_file() and path.suffix != ".parquet")
    assert ANA.encode() not in text.lower()
    assert lake.key().customer_id(ANA).encode() not in text


def test_nobody_else_loses_a_row(slate: Slate) -> None:
    lake, _ = made(slate)
    landed, below, id_ = {t: records(lake, t) for t in LANDING}, contents(lake), lake.key().customer_id(ANA)
    erase(lake, ANA)
    for table, held in below.items():
        assert contents(lake)[table] == {row: count for row, count in held.items() if row[0] != id_}, table
    left = {table: landed[table] - records(lake, table) for table in LANDING}
    assert {str(row[1]).lower() for row in left["customers_landing"]} == {ANA}
    assert {str(row[0]).lower() for row in left["accelerometer_landing"]} == {ANA}
    gone = {(row[1], row[0]) for row in left["step_trainer_landing"]}
    assert gone == {*((DEVICE, at) for at in range(100, 106)), (SHARED, 104), (SHARED, 106)}
    assert all(not records(lake, table) - landed[table] for table in LANDING)
    conserved(lake)


def test_the_build_after_it_has_nothing_to_do_and_a_full_one_changes_nothing(slate: Slate) -> None:
    lake, _ = made(slate)
    erase(lake, ANA)
    after, known = contents(lake), heads(lake)
    again = build(lake, NOW)
    assert (again.run, heads(lake)) == ("", known)
    full = build(lake, NOW, full=True)
    assert contents(lake) == after
    assert (full.withheld, full.customers, full.consenting) == (again.withheld, again.customers, again.consenting)
    assert full.withheld == len([107, 109])


def test_a_lake_that_was_not_built_is_rebuilt_by_the_next_build(slate: Slate) -> None:
    lake, _ = made(slate)
    lake.land(deliver(slate.inbox(), "accelerometer", [motion(BO, 200), motion(ANA, 108)], "late.json"))
    erase(lake, ANA)
    built = build(lake, NOW)
    assert {table.action for table in built.tables} & {"rebuild"}
    after = contents(lake)
    build(lake, NOW, full=True)
    assert contents(lake) == after


def test_quarantine_loses_what_names_them_and_nothing_else(slate: Slate) -> None:
    lake, _ = made(slate)
    erase(lake, ANA)
    raws = {bytes(row[6]) for row in rows(lake, "quarantine")}
    assert raws == {
        b'{"user": "joana.bo@test.example"}',
        b'{"customerName": "Bo Lund"}',
        b'{"serialNumber": "dev',
    }


def test_a_delivered_file_is_not_called_by_an_erased_address(slate: Slate) -> None:
    lake, _ = made(slate)
    assert any("ANA" in row[1] for row in rows(lake, "landed_files"))
    erase(lake, ANA)
    assert not any("ana.bo" in row[1].lower() for row in rows(lake, "landed_files"))


def test_what_others_say_of_them_goes_and_the_rest_of_the_record_stays(slate: Slate) -> None:
    lake = slate.wiped()
    friend = customer(BO, serialNumber="s-2", friend=ANA.upper(), club="runners")
    lake.land(deliver(slate.inbox(), "customer", [customer(ANA), friend, customer(CY, club="runners")]))
    receipt = erase(lake, ANA)
    extras = {row[1]: row[-2] for row in rows(lake, "customers_landing")}
    assert extras == {BO: None, CY: '{"club":"runners"}'} or extras[BO] is None
    assert receipt["removed"]["mentions"] == 1


def test_several_are_erased_in_one_pass(slate: Slate) -> None:
    lake, _ = made(slate)
    receipt = erase(lake, ANA, BO)
    assert len(receipt["people"]) == 2
    assert {row[1] for row in rows(lake, "customers_landing")} == {CY}
    # whoever of two erased it was: nobody else may have it
    assert {at for at, serial, *_ in rows(lake, "step_trainer_landing") if serial == SHARED} == {109}
    build(lake, NOW, full=True)
    conserved(lake)


@pytest.mark.parametrize("twice", [False, True])
def test_old_files_stay_out_however_they_are_written(slate: Slate, twice: bool) -> None:
    lake, folder = made(slate)
    search = looked_for(lake, ANA)
    erase(lake, ANA)
    if twice:
        erase(lake, ANA)
    before = {table: records(lake, table) for table in LANDING}
    assert all(file.already_landed for file in lake.land(folder).files)
    other = folder.with_name("inbox-again")
    shutil.rmtree(other, ignore_errors=True)
    for path in sorted(folder.rglob("*.json")):
        copy = other / path.parent.name / f"{path.stem[:4]}-{path.stat().st_size}.json.gz"
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(gzip.compress(path.read_bytes() + b"\n"))
    landing = lake.land(other)
    assert landing.erased == 2 + 6 + 6 + 2 + 5
    assert landing.seen == landing.accepted + landing.quarantined + landing.erased
    conserved(lake)
    for table, held in before.items():
        assert records(lake, table).keys() == held.keys(), table
    assert [name for name in search().found if not name.startswith("tmp")] == []


def test_clean_files_stay_out_on_the_quick_way(slate: Slate) -> None:
    lake, folder = made(slate)
    erase(lake, ANA)
    path = deliver(folder, "accelerometer", [motion(ANA, 101, 5.0), motion(BO, 101, 5.0)], "clean.json")
    [file] = lake.land(path).files
    assert (file.seen, file.accepted, file.erased) == (2, 1, 1)


def test_who_registers_anew_is_a_new_customer(slate: Slate) -> None:
    lake, folder = made(slate)
    erase(lake, ANA)
    later = NOW + 100
    record = customer(ANA, NOW, later, registrationDate=later, serialNumber="device-of-new")
    deliver(folder, "customer", [record], "new.json")
    deliver(folder, "accelerometer", [motion(ANA, at) for at in (NOW, later)], "new.json")
    deliver(folder, "step_trainer", [step(serial, later) for serial in ("device-of-new", DEVICE)], "new.json")
    landing = lake.land(*(folder / feed / "new.json" for feed in ("customer", "accelerometer", "step_trainer")))
    assert landing.erased == 1
    build(lake, later)
    mine = {row[1:3] for row in rows(lake, "step_trainer_trusted") if row[0] == lake.key().customer_id(ANA)}
    assert mine == {(later, "device-of-new")}


def test_a_date_ahead_of_the_clock_does_not_bring_them_back(slate: Slate) -> None:
    lake, folder = slate.wiped(), slate.inbox()
    lake.land(
        deliver(folder, "customer", [customer(ANA, registrationDate=NOW + 50)]),
        deliver(folder, "accelerometer", [motion(ANA, NOW + 70)]),
        deliver(folder, "step_trainer", [step("s1", NOW + 90)]),
    )
    erase(lake, ANA)
    deliver(folder, "customer", [customer(ANA, registrationDate=NOW + 50), customer(BO)], "again.json")
    deliver(folder, "accelerometer", [motion(ANA, NOW + 70), motion(BO)], "again.json")
    deliver(folder, "step_trainer", [step("s1", NOW + 90), step("s2")], "again.json")
    assert (
        lake.land(*(folder / feed / "again.json" for feed in ("customer", "accelerometer", "step_trainer"))).erased == 3
    )


def test_a_reading_that_was_theirs_never_becomes_another_claimants(slate: Slate) -> None:
    lake, folder = made(slate)
    erase(lake, ANA)
    # Bo's motions and the device's readings of the moments at which Ana moved come late, some for the first time
    deliver(folder, "accelerometer", [motion(BO, at, 3.0) for at in (104, 106)], "late.json")
    deliver(folder, "step_trainer", [step(SHARED, at, 999) for at in (104, 106, 108)], "late.json")
    assert lake.land(folder / "accelerometer" / "late.json", folder / "step_trainer" / "late.json").erased == 2
    build(lake, NOW)
    shared = {row[1] for row in rows(lake, "step_trainer_trusted") if row[2] == SHARED}
    assert shared == {108}


def test_their_claim_stands(slate: Slate) -> None:
    lake, folder = made(slate)
    erase(lake, ANA)
    later = NOW + 10
    deliver(folder, "customer", [customer(BO, 50, 500, serialNumber=DEVICE)], "takes over.json")
    deliver(folder, "accelerometer", [motion(BO, later)], "takes over.json")
    deliver(folder, "step_trainer", [step(DEVICE, at) for at in (100, later, later + 1)], "takes over.json")
    names = [folder / feed / "takes over.json" for feed in ("customer", "accelerometer", "step_trainer")]
    assert lake.land(*names).erased == 1
    for full in (False, True):
        built = build(lake, later + 5, full=full)
        # one claimant would have had both: of two, the one who moved has one, and the other is withheld
        assert {row[1] for row in rows(lake, "step_trainer_trusted") if row[2] == DEVICE} == {later}
        assert built.withheld == len([107, 109, later + 1])


def test_an_unknown_address_has_a_tombstone_and_a_receipt_of_the_same_shape(slate: Slate) -> None:
    lake, folder = made(slate)
    before = heads(lake)
    unknown, known = erase(lake, "nobody@test.example"), erase(lake, ANA)
    assert heads(lake) != before
    assert _shape(unknown) == _shape(known)
    path = deliver(folder, "customer", [customer("Nobody@test.example"), customer("new@test.example")], "n.json")
    assert lake.land(path).erased == 1


def _shape(value: object) -> object:
    return (
        {key: _shape(part) for key, part in value.items() if key != "files"} if isinstance(value, dict) else type(value)
    )


def test_tombstones_and_receipts_know_nobody_by_what_the_tables_call_them(slate: Slate) -> None:
    lake, _ = made(slate)
    receipt = erase(lake, ANA)
    known = tombstones.read(lake.root, lake.key())
    assert set(receipt["people"]) == set(known.people)
    assert lake.key().customer_id(ANA) not in json.dumps([receipt, tombstones.to_json(known)])
    marks = {tombstones.person(lake.key(), ANA), tombstones.serial(lake.key(), ANA), lake.key().customer_id(ANA)}
    assert len(marks) == 3


@pytest.mark.parametrize("damage", ["changed", "gone", "of another key"])
def test_damaged_tombstones_let_nobody_in(slate: Slate, damage: str) -> None:
    lake, folder = made(slate)
    erase(lake, ANA)
    path = lake.root / tombstones.NAME
    if damage == "gone":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(path.read_bytes().replace(b'"people"', b'"nobody"'))
    else:
        other = tombstones.Key(bytes(32))
        tombstones.write(lake.root, other, tombstones.read(lake.root, lake.key()))
    before = heads(lake)
    with pytest.raises(LakeError, match="tombstones"):
        lake.land(deliver(folder, "customer", [customer(ANA, update=700)], "again.json"))
    with pytest.raises(LakeError, match="tombstones"):
        build(lake, NOW, full=True)
    assert heads(lake) == before


def test_a_receipt_verifies_and_a_changed_one_does_not(slate: Slate, tmp_path: Path) -> None:
    lake, _ = made(slate)
    receipt = erase(lake, ANA)
    assert lake.verify_receipt(receipt["id"]) == (receipt, True)
    assert [found["id"] for found in lake.receipts()] == [receipt["id"]]
    changed = {**receipt, "people": []}
    for number, content in enumerate([changed, {**receipt, "signature": "0" * 64}, {"id": 1}]):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        assert lake.verify_receipt(str(path))[1] is False
    (tmp_path / "none.json").write_text("{")
    assert lake.verify_receipt(str(tmp_path / "none.json"))[1] is False
    assert not receipts.holds(tombstones.Key(bytes(32)), receipt)
    with pytest.raises(UsageError):
        lake.verify_receipt("none")


def test_the_catalog_has_no_page_left_of_what_it_was(slate: Slate) -> None:
    lake, _ = made(slate)
    old = lake.catalog.path.read_bytes()
    with closing(sqlite3.connect(lake.catalog.path)) as connection:
        connection.execute("create table canary (address text)")
        connection.execute("insert into canary values (?)", (ANA,))
        connection.commit()
        connection.execute("pragma secure_delete = off")
        connection.execute("drop table canary")
        connection.commit()
    assert ANA.encode() in lake.catalog.path.read_bytes() != old
    erase(lake, ANA)
    assert ANA.encode() not in lake.catalog.path.read_bytes()
    with closing(sqlite3.connect(lake.catalog.path)) as connection:
        assert connection.execute("pragma freelist_count").fetchone() == (0,)


def _as_avro(path: Path) -> None:
    schema = {"type": "record", "name": "r", "fields": [{"name": "a", "type": {"type": "map", "values": "string"}}]}
    with path.open("wb") as stream:
        fastavro.writer(stream, schema, [{"a": {"x": f"y {ANA}"}}], codec="deflate")


def _as_sqlite(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("create table t (a blob)")
        connection.execute("insert into t values (?)", (ANA,))
        connection.commit()


def _as_parquet(path: Path) -> None:
    with DuckDB(memory="100MB", threads=1, temporary=path.parent) as engine:
        engine.connection.execute(f"copy (select 1 as a, 'x {ANA}' as b) to '{path}' (format parquet)")


PLANTED: dict[str, Callable[[Path], object]] = {
    "text": lambda path: path.write_text(f"see {ANA.upper()}, please"),
    "escaped": lambda path: path.write_text(ANA.replace("a", r"\u0061")),
    "utf-16": lambda path: path.write_bytes(ANA.encode("utf-16")),
    "gzip": lambda path: path.write_bytes(gzip.compress(ANA.encode())),
    "zstd": lambda path: path.write_bytes(zstandard.compress(ANA.encode())),
    "link": lambda path: path.symlink_to(f"/nowhere/{ANA}"),
    "avro": _as_avro,
    "sqlite": _as_sqlite,
    "parquet": _as_parquet,
    "binary": lambda path: path.write_bytes(b"\0\xff" * 100 + ANA.encode() + b"\0"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_trace_in_any_kind_of_file_is_found_named_and_keeps_the_erasure_open(slate: Slate, kind: str) -> None:
    lake, folder = made(slate)
    PLANTED[kind](lake.root / "planted")
    with pytest.raises(AuditFailed, match="planted") as failed:
        erase(lake, ANA)
    assert ANA not in str(failed.value).lower()
    assert not lake.receipts()
    (lake.root / "planted").unlink()
    lake.land(deliver(folder, "customer", [customer(CY, update=800)], "later.json"))
    assert [receipt["clean"] for receipt in lake.receipts()] == [True]


def test_a_file_named_after_them_is_found(slate: Slate) -> None:
    lake, _ = made(slate)
    (lake.root / f"notes on {ANA}").write_text("")
    with pytest.raises(AuditFailed):
        erase(lake, ANA)


STEPS: tuple[tuple[object, str], ...] = (
    (pending, "write"),
    (tombstones, "write"),
    (Catalog, "erase"),
    (Catalog, "expire"),
    (inbox, "rewrite"),
    (inbox, "replace"),
    (forgetting, "_unlink"),
    (Catalog, "vacuum"),
    (forgetting, "clear"),
    (erasure, "search"),
    (forgetting, "remove"),
    (receipts, "keep"),
    (pending, "remove"),
)


class Died(BaseException):
    """A process that ends here: nothing may be caught of it."""


def dying(patch: pytest.MonkeyPatch, owner: object, name: str, place: int, *, after: bool) -> list[int]:
    """Has the `place`-th call of a step die, before it does anything or when it is done; counts the calls."""
    real, calls = getattr(owner, name), [0]

    def step(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == place and not after:
            raise Died
        found = real(*arguments, **options)
        if calls[0] == place:
            raise Died
        return found

    patch.setattr(owner, name, step)
    return calls


@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name.strip("_") for _, name in STEPS])
def test_an_erasure_that_dies_anywhere_is_finished_by_the_next_command(slate: Slate, owner: object, name: str) -> None:
    with quick.quickened():
        lake, folder = made(slate)
        search, whole = looked_for(lake, ANA), slate.inbox().with_name("whole")
        shutil.rmtree(whole, ignore_errors=True)
        shutil.copytree(lake.root, whole / "lake")
        with pytest.MonkeyPatch.context() as patch:
            calls = dying(patch, owner, name, 0, after=False)
            delivered(folder)
            erase(lake, ANA, delivered=[str(folder)])
        expected = contents(lake), {table: records(lake, table) for table in LANDING}, rows(lake, "quarantine").keys()
        for place in sorted({1, 2, calls[0]} & set(range(1, calls[0] + 1))):
            for after in (False, True):
                shutil.rmtree(lake.root)
                shutil.copytree(whole / "lake", lake.root)
                shutil.rmtree(folder)
                delivered(folder)
                quick.forget()
                lake = Lake.open(lake.root)
                with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
                    dying(patch, owner, name, place, after=after)
                    erase(lake, ANA, delivered=[str(folder)])
                quick.forget()
                lake = Lake.open(lake.root)
                began = (lake.root / tombstones.PENDING).exists()
                if began:
                    assert ANA not in (lake.root / tombstones.PENDING).read_text().lower()
                    with pytest.raises(LakeBusy, match="--resume"):
                        tombstones.refuse_unfinished(lake.root)
                if not began and not lake.receipts():
                    erase(lake, ANA, delivered=[str(folder)])
                elif place == 1:
                    lake.land(folder)
                else:
                    lake.build()
                quick.forget()
                found = (
                    contents(lake), {table: records(lake, table) for table in LANDING}, rows(lake, "quarantine").keys()
                )  # fmt: skip
                assert found == expected
                assert search().found == []
                assert [receipts.holds(lake.key(), receipt) for receipt in lake.receipts()] == [True]
                assert not unread(folder)
                conserved(lake)


def unread(folder: Path) -> list[Path]:
    """Returns the delivered files that still name Ana, or are only half there."""
    texts = {path: path.read_text().lower().replace(f"jo{ANA}", "") for path in folder.rglob("*") if path.is_file()}
    return [path for path, text in texts.items() if path.suffix == ".erasing" or ANA in text]


def test_other_commands_wait_and_find_them_gone(slate: Slate, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = made(slate)
    path = deliver(folder, "accelerometer", [motion(ANA, 100, 4.0), motion(BO, 100, 4.0)], "meanwhile.json")
    begun, go, landed = threading.Event(), threading.Event(), []
    real = forgetting.Forgetting.table

    def slow(self: forgetting.Forgetting, name: str, *rest: Any) -> dict[str, int]:
        begun.set()
        assert go.wait(20)
        return real(self, name, *rest)

    monkeypatch.setattr(forgetting.Forgetting, "table", slow)
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


def test_a_landing_that_was_first_is_waited_for_and_erased(slate: Slate) -> None:
    lake, _ = made(slate)
    with durable.lock(lake.root / "land.lock", wait=True):
        erasing = threading.Thread(target=lambda: erase(lake, ANA))
        erasing.start()
        erasing.join(0.2)
        assert erasing.is_alive()
        assert not (lake.root / tombstones.PENDING).exists()
    erasing.join(60)
    assert lake.receipts()


def test_where_nobody_was_erased_nothing_is_looked_up(slate: Slate, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = slate.wiped(), delivered(slate.inbox())
    asked: list[str] = []
    monkeypatch.setattr(sieve.Sieve, "sift", lambda *_: asked.append("landing"))
    monkeypatch.setattr(session.tombstones, "serial", lambda *_: asked.append("build"))
    lake.land(folder)
    build(lake, NOW)
    assert not asked


def test_a_dry_run_counts_and_changes_nothing(slate: Slate) -> None:
    lake, _ = made(slate)
    (lake.root / "tmp").mkdir(exist_ok=True)
    before = tree(lake.root)
    found = lake.preview_erasure(ANA, "nobody@test.example")
    assert found["customers"] == 1
    assert found["rows"]["accelerometer_landing"] == 6
    assert found["rows"]["step_trainer_landing"] == 8
    assert {name: state[0] for name, state in tree(lake.root).items()} == {n: s[0] for n, s in before.items()}


def test_maintenance_finishes_an_erasure_first(slate: Slate) -> None:
    lake, _ = made(slate)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Died):
        dying(patch, Catalog, "vacuum", 1, after=False)
        erase(lake, ANA)
    lake.maintain()
    assert lake.receipts()


def test_a_copied_lake_is_not_erased_in(slate: Slate, tmp_path: Path) -> None:
    lake, _ = made(slate)
    shutil.copytree(lake.root, tmp_path / "copy")
    before = tree(tmp_path / "copy")
    with pytest.raises(LakeError, match="copied or moved"):
        Lake.open(tmp_path / "copy").erase(ANA)
    kept = {name: state[0] for name, state in tree(tmp_path / "copy").items() if name.startswith(("l", "t", "c"))}
    assert all(before[name][0] == digest for name, digest in kept.items() if name in before)


def test_after_an_interrupted_landing_they_are_gone_all_the_same(slate: Slate, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = made(slate)
    path = deliver(folder, "accelerometer", [motion(ANA, 103, 4.0), motion(BO, 103, 4.0)], "journalled.json")
    with monkeypatch.context() as patch, pytest.raises(Died):
        dying(patch, Catalog, "append", 1, after=False)
        lake.land(path)
    assert list((lake.root / "pending").glob("*.json"))
    search = looked_for(lake, ANA)
    erase(lake, ANA)
    assert search().found == []
    conserved(lake)
    assert motion(BO, 103, 4.0)["user"] in {row[0] for row in rows(lake, "accelerometer_landing")}


class TestTraces:
    """What counts as naming somebody."""

    key = tombstones.Key(bytes(32))
    known = Traces(
        key, {tombstones.person(key, ANA)}, frozenset({ANA, "ana bo lund", "al"}), frozenset({"device-1", "s1"})
    )

    @pytest.mark.parametrize(
        "text",
        [
            ANA.upper(), f"<{ANA}>", f"to:{ANA}.", f'"{ANA}"', f"{ANA}.json", "Ana Bo LUND", '{"name": "Al"}', "al",
            '"s1"', "x\ns1\ny", "device-1", r"ana.bo\u0040test.example", r"an\u0061 bo lund",
        ],
    )  # fmt: skip
    def test_is_found(self, text: str) -> None:
        assert self.known.found(text)

    @pytest.mark.parametrize(
        "text",
        [
            f"jo{ANA}", f"x.{ANA}", f"{ANA}.au", "ana bo lundgren", "Alma", "s1x", "Device-1", "device-11", "s1 s2", "",
        ],
    )  # fmt: skip
    def test_is_not_found(self, text: str) -> None:
        assert not self.known.found(text)

    def test_an_address_is_known_by_its_mark_alone(self) -> None:
        assert Traces(self.key, {tombstones.person(self.key, ANA)}).found(f"x {ANA.title()} y")


def run(lake: Lake, *words: str) -> int:
    return main(["--lake", str(lake.root), *words])


def test_the_command_erases_lists_and_verifies(
    slate: Slate, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lake, _ = made(slate)
    assert run(lake, "erase", ANA, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["customers"] == 1
    (tmp_path / "who.txt").write_text(f"{ANA}\n\n")
    assert run(lake, "erase", "--file", str(tmp_path / "who.txt"), "--yes", "--json") == 0
    said = capsys.readouterr()
    receipt = json.loads(said.out)
    assert receipt["clean"]
    assert ANA not in said.out + said.err
    assert run(lake, "erase", "--list") == 0
    assert receipt["id"] in capsys.readouterr().out
    assert run(lake, "erase", "--verify", receipt["id"], "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"id": receipt["id"], "holds": True}
    path = lake.root / "receipts" / f"{receipt['id']}.json"
    path.write_text(path.read_text().replace('"clean": true', '"clean": false'))
    assert run(lake, "erase", "--verify", str(path)) == 3
    assert run(lake, "erase", "--resume") == 0
    assert "nothing to finish" in capsys.readouterr().out


def test_the_command_asks_and_names_its_addresses(
    slate: Slate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    lake, _ = made(slate)
    before = heads(lake)
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ANA}\n"))
    assert run(lake, "erase", ANA) == 2
    assert run(lake, "erase") == 2
    assert "--yes" in capsys.readouterr().err
    assert heads(lake) == before
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{ANA}\n{BO}\n"))
    assert run(lake, "erase", "-", "--yes") == 0
    assert {row[1] for row in rows(lake, "customers_landing")} == {CY}
    (lake.root / "planted").write_text(CY)
    assert run(lake, "erase", CY, "--yes") == 3
    assert "planted" in capsys.readouterr().err
