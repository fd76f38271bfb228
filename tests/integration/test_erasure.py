"""Erasure: nothing of a customer stays or comes back, nobody else loses anything, whatever dies on the way."""

from __future__ import annotations

import gzip
import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet
from pyiceberg.catalog.sql import SqlCatalog

import quick
from deliveries import customer, deliver, instant, motion, step
from erasing import ANA, BO, CY, DEVICE, NOW, SHARED, Stage, delivered, erase, looked_for
from lakes import KEY, LANDING, REPOSITORY, build, conserved, contents, heads, records, rows, tree
from stedi import erasure
from stedi.catalog import manifests
from stedi.catalog.manifests import mentions
from stedi.cli import main
from stedi.engines.duckdb import DuckDB
from stedi.engines.pages import Leaving
from stedi.engines.parquet import Chunk, library
from stedi.erasure import locate, remove
from stedi.erasure.locate import SubjectRows
from stedi.erasure.pending import Pending
from stedi.errors import AuditFailed, DamagedFile, LakeError, UsageError
from stedi.lake import Lake
from stedi.landing import tombstone_filter
from stedi.landing.reader import scanner
from stedi.privacy import receipts, tombstones
from stedi.schema.tables import NAMESPACE
from stedi.transform import checks, session
from stedi.transform.ahead import Ahead

removed_by_page = pytest.mark.skipif(
    library() is None, reason="rows are removed by page in C, and there is no compiler"
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


@pytest.fixture(params=[False, True], ids=["one thread", "two threads"])
def threads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a small lake's erasure use a second thread, as a large one's does."""
    if request.param:
        monkeypatch.setattr(erasure, "_MANY_ROWS", 0)


@pytest.mark.parametrize(("memory", "begun"), [("100MB", True), ("99MB", False)])
def test_an_erasure_begins_a_second_thread_where_there_is_memory_for_it(
    stage: Stage, memory: str, begun: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, _ = stage.made()
    lake.context.config = replace(lake.config, engine_memory=memory, engine_threads=2)
    found, enter = set[bool](), Ahead.__enter__

    def watched(ahead: Ahead) -> Ahead:
        entered = enter(ahead)
        found.add(ahead.is_active)
        return entered

    monkeypatch.setattr(erasure, "_MANY_ROWS", 0)
    monkeypatch.setattr(Ahead, "__enter__", watched)
    erase(lake, ANA)
    assert (True in found) == begun


def test_nulls_are_counted_as_the_files_have_them(stage: Stage) -> None:
    lake, folder = stage.made()
    named = [{**motion(BO, 200 + at), **({"seen": "here"} if at % 2 else {})} for at in range(4)]
    lake.land(deliver(folder.with_name("more"), "accelerometer", named, "named.json"))
    build(lake, NOW)
    counted = 0
    for change in (lambda: None, lambda: erase(lake, ANA), lake.maintain):
        change()
        for name, state in lake.catalog.tables().items():
            for path, file in mentions(state).live.items():
                columns = parquet.read_table(path, partitioning=None)
                found = {column: columns[column].null_count for column in file.nulls}
                assert found == dict(file.nulls), (name, path)
                counted += len(found)
    assert counted


@pytest.mark.parametrize("by", ["dictionaries", "rows"])
def test_customers_are_located_alike_by_address_and_by_mark(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """After an interruption only marks are known; of some files only the engine knows who is in them."""
    lake, folder = stage.empty()
    if by == "rows":
        monkeypatch.setattr(locate, "dictionary_texts", lambda *_: None)
    theirs = [
        "Jos\u00e9@x.example",
        "JOSE\u0301@x.example",
        " jos\u00e9@X.example",
        "\u0141ucja@x.example",
        "o\u00df@x.example",
    ]
    others = ["jose@x.example", "\u0142ucja@y.example", "OS@x.example", "os@x.example"]
    lake.land(deliver(folder, "customer", [customer(who) for who in (theirs[0], theirs[3], *others)]))
    lake.land(deliver(folder, "accelerometer", [motion(who, at) for who in (*theirs, *others) for at in (1, 2)]))
    wanted = [theirs[1], "\u0142UCJA@x.example", "OSS@x.example", "nobody@x.example"]
    people = tuple(tombstones.person(lake.key(), who) for who in wanted)
    located = []
    for addresses in (wanted, wanted[1:], ()):
        with DuckDB(memory="200MB", threads=1, temporary=lake.root.parent / "spill") as engine:
            wanted_, alone = Pending("run", NOW, people), Ahead(engine, worthwhile=False)
            found = SubjectRows(engine, lake.catalog, lake.key(), wanted_, alone, addresses=addresses)
            rows_ = {name: set(engine.rows(f"select * from {name}")) for name in ("erased_addresses", "erased_ids")}
            together = engine.rows("select list(address order by address) from who group by person")
        located.append((rows_, {tuple(each) for (each,) in together}, found.tombstones, found.traces.names))
    assert located[0] == located[1] == located[2]
    erased, groups = located[0][:2]
    assert sorted(who for who, _ in erased["erased_addresses"]) == sorted(theirs)
    assert groups == {
        tuple(sorted(same)) for same in (theirs[:3], theirs[3:4], theirs[4:], others[:1], others[1:2], others[2:])
    }


@pytest.mark.parametrize("counted", [True, False], ids=["counted", "not counted"])
def test_mentions_in_unknown_fields_go_whoever_has_written_the_files(
    stage: Stage, counted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, folder = stage.empty()
    if not counted:  # Iceberg leaves it to the writer
        entry = manifests.entry
        monkeypatch.setattr(manifests, "entry", lambda *args: {**entry(*args), "null_value_counts": None})
    lake.land(deliver(folder, "customer", [customer(ANA), customer(BO, friend=ANA), customer(CY, friend="nobody")]))
    lake.land(deliver(folder, "accelerometer", [motion(BO, 1), {**motion(BO, 2), "beside": ANA}]))
    lake.land(deliver(folder, "step_trainer", [step(DEVICE, 1)]))
    nulls = {name: [f.nulls for f in mentions(state).live.values()] for name, state in lake.catalog.tables().items()}
    assert all(found.get("_extra") == (1 if counted else None) for found in nulls["step_trainer_landing"])
    receipt = erase(lake, ANA)
    assert receipt["scanned"]["found"] == []
    assert receipt["removed"]["mentions"] == 2
    extras = {row[-2] for name in LANDING for row in rows(lake, name)}
    assert extras == {None, '{"friend":"nobody"}'}


@pytest.mark.parametrize("gone", [(ANA, BO), (ANA, BO, CY), (BO, CY), ()], ids=lambda gone: str(len(gone)))
def test_withheld_readings_go_with_the_last_who_claimed_their_device(stage: Stage, gone: tuple[str, ...]) -> None:
    """Together or one after the other: what is counted is what a full build counts."""
    lake, _ = stage.made()
    for together in ([gone], [[who] for who in (ANA, BO, CY)])[not gone]:
        erase(lake, *together)
        idle = build(lake, NOW)
        assert not idle.run
        assert build(lake, NOW, full=True).withheld == idle.withheld
    if len(gone) != 2:
        assert idle.withheld == 0


def test_nothing_of_the_customer_stays_and_the_search_would_have_seen_it(stage: Stage) -> None:
    lake, _ = stage.made()
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


def test_nobody_else_loses_a_row(stage: Stage) -> None:
    lake, _ = stage.made()
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


def test_the_build_after_it_has_nothing_to_do_and_a_full_one_changes_nothing(stage: Stage) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    after, known = contents(lake), heads(lake)
    again = build(lake, NOW)
    assert (again.run, heads(lake)) == ("", known)
    full = build(lake, NOW, full=True)
    assert contents(lake) == after
    assert (full.withheld, full.customers, full.consenting) == (again.withheld, again.customers, again.consenting)
    assert full.withheld == len([107, 109])


def test_the_lake_is_whole_afterwards(stage: Stage) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    assert not [check for check in lake.audit(files=True) if check.found]
    after = contents(lake)
    lake.maintain()
    assert contents(lake) == after
    assert {table: len(lake.history(table)) for table in ("customers_landing", "customers_trusted")}


def found_by_audits(lake: Lake) -> dict[str, int]:
    """Returns how many violations the audits find, by check and table."""
    checks = (*lake.prove().checks, *lake.audit(files=True))
    return {f"{check.name} {check.table}": check.violations for check in checks if check.violations}


DUE: dict[str, Callable[[Lake, Path], object]] = {
    "readings of theirs and of others": lambda lake, folder: lake.land(
        deliver(folder, "accelerometer", [motion(BO, 200), motion(ANA, 108)], "late.json")
    ),
    "a claim of theirs on the device of somebody else": lambda lake, folder: lake.land(
        deliver(folder, "customer", [customer(ANA, 60, 70, serialNumber="device-of-bo")], "late.json"),
        deliver(folder, "accelerometer", [motion(ANA, 105)], "late.json"),
    ),
    "a withdrawal of theirs": lambda lake, folder: lake.withdraw([ANA]),
    "a withdrawal of somebody else": lambda lake, folder: lake.withdraw([BO]),
    "a consent date that has come": lambda lake, folder: (
        lake.land(deliver(folder, "customer", [customer(CY, NOW - 1, 300, serialNumber="device-of-cy")], "late.json")),
        build(lake, NOW - 2),
    ),
}


@pytest.mark.parametrize("due", DUE)
def test_whatever_was_due_is_built_before_an_erasure_and_an_audit_finds_nothing(stage: Stage, due: str) -> None:
    lake, folder = stage.made()
    DUE[due](lake, folder)
    erase(lake, ANA)
    assert not found_by_audits(lake)
    assert not build(lake, NOW).run
    after = contents(lake)
    build(lake, NOW, full=True)
    assert contents(lake) == after


def test_no_manifest_tells_of_files_that_are_gone(stage: Stage) -> None:
    """A manifest that lists a file as deleted keeps its bounds, which are somebody's moments."""
    lake, folder = stage.made()
    lake.context.config = replace(lake.config, keep_days=0, keep_snapshots=1, grace_hours=0)
    for at in (300, 301, 302):
        lake.land(deliver(folder, "accelerometer", [motion(BO, at)], f"{at}.json"))
    build(lake, NOW)
    lake.maintain()
    lake.withdraw([BO])
    build(lake, NOW)
    lake.maintain()
    assert {name for name, state in lake.catalog.tables().items() if mentions(state).gone()} >= {
        "accelerometer_landing", "accelerometer_trusted",
    }  # fmt: skip
    lake.land(deliver(folder, "customer", [customer("dee@test.example", ...)], "dee.json"))
    receipt = erase(lake, "dee@test.example")
    assert receipt["removed"]["tables"]["accelerometer_landing"]["files"] == 0  # they were gone before
    assert not [name for name, state in lake.catalog.tables().items() if mentions(state).gone()]
    assert not found_by_audits(lake)
    assert not build(lake, NOW).run
    lake.land(deliver(folder, "accelerometer", [motion(BO, 400)], "new.json"))
    again = {table.name: table.action for table in build(lake, NOW).tables}
    assert again["accelerometer_trusted"] == "append"


def test_where_no_table_was_built_an_erasure_builds_none(stage: Stage) -> None:
    lake, folder = stage.empty()
    lake.land(delivered(folder))
    erase(lake, ANA)
    assert not any(contents(lake).values())
    assert not found_by_audits(lake)


def test_a_build_that_fails_is_said_and_keeps_no_erasure_from_its_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, folder = stage.made()
    lake.land(deliver(folder, "accelerometer", [motion(BO, 200), motion(ANA, 108)], "late.json"))
    said: list[str] = []
    lake.context.say = said.append
    refusal = AuditFailed("customers_trusted: expected no null, found 1; nothing was published")

    def refused(*_: object) -> None:
        raise refusal

    with monkeypatch.context() as patch:
        patch.setattr(checks, "check_nulls", refused)
        assert erase(lake, ANA)["clean"]
    assert len(said) == 1
    assert str(refusal) in said[0]
    assert "stedi build" in said[0]
    assert not any(ANA in map(str, row) for table in LANDING for row in records(lake, table))
    assert {table.action for table in build(lake, NOW).tables} & {"rebuild"}
    assert not found_by_audits(lake)


def test_quarantine_loses_what_names_them_and_nothing_else(stage: Stage) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    raws = {bytes(row[6]) for row in rows(lake, "quarantine")}
    assert raws == {
        b'{"user": "joana.bo@test.example"}',
        b'{"customerName": "Bo Lund"}',
        b'{"serialNumber": "dev',
    }


def test_a_delivered_file_is_not_called_by_an_erased_address(stage: Stage) -> None:
    lake, _ = stage.made()
    assert any("ANA" in row[1] for row in rows(lake, "landed_files"))
    erase(lake, ANA)
    assert not any("ana.bo" in row[1].lower() for row in rows(lake, "landed_files"))


def test_what_others_say_of_them_goes_and_the_rest_of_the_record_stays(stage: Stage) -> None:
    lake, folder = stage.empty()
    friend = customer(BO, serialNumber="s-2", friend=ANA.upper(), club="runners")
    lake.land(deliver(folder, "customer", [customer(ANA), friend, customer(CY, club="runners")]))
    receipt = erase(lake, ANA)
    extras = {row[1]: row[-2] for row in rows(lake, "customers_landing")}
    assert extras == {BO: None, CY: '{"club":"runners"}'} or extras[BO] is None
    assert receipt["removed"]["mentions"] == 1


def test_several_are_erased_in_one_pass(stage: Stage) -> None:
    lake, _ = stage.made()
    receipt = erase(lake, ANA, BO)
    assert len(receipt["people"]) == 2
    assert {row[1] for row in rows(lake, "customers_landing")} == {CY}
    # whoever of two erased it was: nobody else may have it
    assert {at for at, serial, *_ in rows(lake, "step_trainer_landing") if serial == SHARED} == {109}
    build(lake, NOW, full=True)
    conserved(lake)


@pytest.mark.parametrize("twice", [False, True])
def test_old_files_stay_out_however_they_are_written(stage: Stage, twice: bool) -> None:
    lake, folder = stage.made()
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


def test_clean_files_stay_out_on_the_quick_way(stage: Stage) -> None:
    lake, folder = stage.made()
    erase(lake, ANA)
    path = deliver(folder, "accelerometer", [motion(ANA, 101, 5.0), motion(BO, 101, 5.0)], "clean.json")
    [file] = lake.land(path).files
    assert (file.seen, file.accepted, file.erased) == (2, 1, 1)


def test_who_registers_anew_is_a_new_customer(stage: Stage) -> None:
    lake, folder = stage.made()
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


def test_a_date_ahead_of_the_clock_does_not_bring_them_back(stage: Stage) -> None:
    lake, folder = stage.empty()
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


def test_a_reading_that_was_theirs_never_becomes_another_claimants(stage: Stage) -> None:
    lake, folder = stage.made()
    erase(lake, ANA)
    # Bo's motions and the device's readings of the moments at which Ana moved come late, some for the first time
    deliver(folder, "accelerometer", [motion(BO, at, 3.0) for at in (104, 106)], "late.json")
    deliver(folder, "step_trainer", [step(SHARED, at, 999) for at in (104, 106, 108)], "late.json")
    assert lake.land(folder / "accelerometer" / "late.json", folder / "step_trainer" / "late.json").erased == 2
    build(lake, NOW)
    shared = {row[1] for row in rows(lake, "step_trainer_trusted") if row[2] == SHARED}
    assert shared == {108}


def test_their_claim_stands(stage: Stage) -> None:
    lake, folder = stage.made()
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


def test_an_unknown_address_has_a_tombstone_and_a_receipt_of_the_same_shape(stage: Stage) -> None:
    lake, folder = stage.made()
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


def test_tombstones_and_receipts_know_nobody_by_what_the_tables_call_them(stage: Stage) -> None:
    lake, _ = stage.made()
    receipt = erase(lake, ANA)
    known = tombstones.read(lake.root, lake.key())
    assert set(receipt["people"]) == set(known.people)
    assert lake.key().customer_id(ANA) not in json.dumps([receipt, tombstones.to_json(known)])
    marks = {tombstones.person(lake.key(), ANA), tombstones.serial(lake.key(), ANA), lake.key().customer_id(ANA)}
    assert len(marks) == 3


@pytest.mark.parametrize("damage", ["changed", "gone", "of another key"])
def test_damaged_tombstones_let_nobody_in(stage: Stage, damage: str) -> None:
    lake, folder = stage.made()
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


def test_a_receipt_verifies_and_a_changed_one_does_not(stage: Stage, tmp_path: Path) -> None:
    lake, _ = stage.made()
    receipt = erase(lake, ANA)
    found = lake.verify_receipt(receipt["id"])
    assert (found.receipt.document, found.holds) == (receipt, True)
    assert [found.id for found in lake.receipts()] == [receipt["id"]]
    changed = {**receipt, "people": []}
    for number, content in enumerate([changed, {**receipt, "signature": "0" * 64}, {"id": 1}]):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(content))
        assert lake.verify_receipt(str(path)).holds is False
    (tmp_path / "none.json").write_text("{")
    assert lake.verify_receipt(str(tmp_path / "none.json")).holds is False
    assert not receipts.holds(receipt, tombstones.Key(bytes(32)), lake.config.lake_id)
    with pytest.raises(UsageError):
        lake.verify_receipt("none")


def test_the_catalog_has_no_page_left_of_what_it_was(stage: Stage) -> None:
    lake, _ = stage.made()
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


def test_where_nobody_was_erased_nothing_is_looked_up(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = stage.empty()
    asked: list[str] = []
    monkeypatch.setattr(tombstone_filter.TombstoneFilter, "rows", lambda *_: asked.append("landing"))
    monkeypatch.setattr(session.tombstones, "serial", lambda *_: asked.append("build"))
    lake.land(delivered(folder))
    build(lake, NOW)
    assert not asked


def test_a_dry_run_counts_and_changes_nothing(stage: Stage) -> None:
    lake, _ = stage.made()
    (lake.root / "tmp").mkdir(exist_ok=True)
    before = tree(lake.root)
    found = lake.preview_erasure(ANA, "nobody@test.example")
    assert found.customers == 1
    assert found.rows["accelerometer_landing"] == 6
    assert found.rows["step_trainer_landing"] == 8
    assert {name: state[0] for name, state in tree(lake.root).items()} == {n: s[0] for n, s in before.items()}


@pytest.mark.usefixtures("threads")
def test_a_damaged_file_is_not_written_anew(stage: Stage) -> None:
    lake, _ = stage.made()
    [path, *_] = sorted((lake.root / "trusted" / "accelerometer_trusted" / "data").rglob("*.parquet"))
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(bytes(raw))
    before = heads(lake)
    with pytest.raises(DamagedFile):
        erase(lake, ANA)
    assert heads(lake) == before
    assert not (lake.root / tombstones.PENDING).exists()
    lake.repair()
    erase(lake, ANA)
    assert looked_for(lake, CY)().found
    conserved(lake)


@removed_by_page
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("pinned", [False, True], ids=["all files now", "files of an older snapshot, too"])
def test_the_engine_counts_who_must_remain_whatever_finds_and_removes_rows(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, pinned: bool
) -> None:
    lake, folder = stage.made()
    if pinned:
        client = SqlCatalog("stedi", uri=f"sqlite:///{lake.catalog.path}")
        with client.load_table((NAMESPACE, "accelerometer_landing")).manage_snapshots() as manage:
            manage.create_tag(lake.catalog.table("accelerometer_landing").current.id, "theirs")  # type: ignore[union-attr]
        lake.land(deliver(folder, "accelerometer", [motion(ANA, 200), motion(BO, 200)], "late.json"))
    before = heads(lake)
    with (
        removing_more(monkeypatch, "accelerometer_landing", lambda asked: replace(asked, texts=asked.texts | {BO})),
        pytest.raises(LakeError, match=r"accelerometer_landing: expected \d+ remaining rows of other customers"),
    ):
        erase(lake, ANA)
    assert heads(lake)["accelerometer_landing"] == before["accelerometer_landing"]


@removed_by_page
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("what", ["a device of another", "another moment of a shared device"])
def test_the_engine_counts_whose_steps_must_remain(stage: Stage, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    lake, _ = stage.made()
    before = heads(lake)

    def too_many(asked: Leaving) -> Leaving:
        assert set(asked.moments) == {SHARED}
        if what == "a device of another":
            return replace(asked, texts=asked.texts | {"device-of-bo"})
        return replace(asked, moments={SHARED: {*asked.moments[SHARED], instant(108)}})

    with (
        removing_more(monkeypatch, "step_trainer_landing", too_many),
        pytest.raises(LakeError, match=r"step_trainer_landing: expected \d+ remaining rows of other customers"),
    ):
        erase(lake, ANA)
    assert heads(lake)["step_trainer_landing"] == before["step_trainer_landing"]


@contextmanager
def removing_more(monkeypatch: pytest.MonkeyPatch, table: str, more: Callable[[Leaving], Leaving]) -> Iterator[None]:
    """Has an erasure remove other rows of a table than were found, and not know how many were found."""
    told, found = remove.Removal._leaving, locate.SubjectRows.found

    def leaving(removal: remove.Removal, name: str) -> Leaving | None:
        asked = told(removal, name)
        return asked if name != table or asked is None else more(asked)

    with monkeypatch.context() as patch:
        patch.setattr(remove.Removal, "_leaving", leaving)
        patch.setattr(locate.SubjectRows, "found", lambda rows: replace(found(rows), held=None))
        yield


@removed_by_page
@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("column", ["user", "serialNumber", "customer_id"])
def test_a_mistake_in_what_finds_and_removes_rows_by_page_is_noticed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, column: str
) -> None:
    lake, _ = stage.made()
    before, marks, mistaken = heads(lake), Chunk.marks, list[str]()

    def one_more(chunk: Chunk, flags: bytearray, *rest: Any) -> bytearray:
        if chunk.column.name == column and any(flags) and 0 in flags:
            flags = bytearray(flags)
            flags[flags.index(0)] = 1
            mistaken.append(column)
        return marks(chunk, flags, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Chunk, "marks", one_more)
        with pytest.raises(LakeError, match=r"(\w+): expected \d+ remaining rows of other customers") as raised:
            erase(lake, ANA)
    assert mistaken
    name = str(raised.value).partition(":")[0]
    assert heads(lake)[name] == before[name]


def run(lake: Lake, *words: str) -> int:
    return main(["--lake", str(lake.root), *words])


def test_the_command_erases_lists_and_verifies(
    stage: Stage, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    lake, _ = stage.made()
    assert run(lake, "erase", ANA, "--dry-run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["customers"] == 1
    (tmp_path / "who.txt").write_text(f"{ANA}\n\n")
    assert run(lake, "erase", "--file", str(tmp_path / "who.txt"), "--yes", "--json") == 0
    said = capsys.readouterr()
    receipt = json.loads(said.out)
    assert receipt["clean"]
    assert receipt["not_reached"] == ["backups", "handed_out"]
    assert receipt["not_reached_days"] == {}
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


def test_what_an_erasure_does_not_reach_is_named_on_screen_and_explained_in_the_docs(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, _ = stage.made()
    assert run(lake, "erase", ANA, "--yes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "not reached: backups, results, exports and releases that have left the lake" in lines
    assert "delivered files were not searched: name their folders with --inbox" in lines
    page = (REPOSITORY / "docs" / "privacy.md").read_text("utf-8")
    for kinds in ({"lake": False, "inbox": False}, {"lake": False, "inbox": True}, {"lake": True, "inbox": True}):
        assert all(f"| `{word}` | " in page for word in receipts.not_reached(**kinds))
    assert set(receipts.not_reached(lake=True, inbox=False)) == receipts.OUT_OF_REACH.keys()
    # the days are those of the stack, on every page
    stack = (REPOSITORY / "src" / "stedi" / "aws" / "data.yaml").read_text("utf-8")
    expiring = {"access_logs": ("a-quarter",) * 2, "athena_results": ("query-results", "older-versions-of-athena")}
    for word, rules in expiring.items():
        told = [
            re.search(rf"Id: {rule}\n(?:(?!- Id:).)*?{setting}: (\d+)", stack, re.DOTALL)
            for rule, setting in zip(rules, (r"\bExpirationInDays", "NoncurrentDays"), strict=True)
        ]
        first, older = (int(found[1]) for found in told if found)
        assert receipts.STACK_DAYS[word] == first + older
        assert re.search(rf"\| `{word}` \|.*\| {first} days in our stack, and {older} more as older versions \|", page)
    assert f"| {receipts.STACK_DAYS['query_history']} days, set by AWS |" in page


def test_the_command_asks_and_names_its_addresses(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    lake, _ = stage.made()
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


def test_the_proof_holds_before_and_after(stage: Stage) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    build(lake, NOW)
    proof = lake.prove()
    assert not [(check.name, check.table) for check in proof.checks if check.violations]


def test_who_was_erased_is_not_taken_in_by_a_withdrawal_and_explained_as_erased(stage: Stage) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    before = heads(lake)
    done = lake.withdraw([ANA.upper(), BO])
    assert (done.erased, done.landed) == (1, 1)
    assert heads(lake) != before
    found = lake.explain(ANA)
    assert found.erased is not None
    assert not any(found.rows.values())
    assert lake.explain(BO).erased is None


def test_a_withdrawal_of_somebody_unknown_is_erased_too(stage: Stage) -> None:
    lake, folder = stage.empty()
    lake.land(deliver(folder, "customer", [customer(BO)]))
    lake.withdraw(ANA)
    search = looked_for(lake, ANA)
    assert search().found
    erase(lake, ANA)
    assert search().found == []
    assert {row[1] for row in rows(lake, "customers_landing")} == {BO}
    conserved(lake)


def test_under_another_key_they_stay_out_and_receipts_hold(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = stage.made()
    receipt = erase(lake, ANA)
    marked = tombstones.read(lake.root, lake.key())
    monkeypatch.setenv("STEDI_NEXT_PSEUDONYM_KEY", f"{'6b' * 32} {KEY}")
    lake.rotate_key()
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", f"{'6b' * 32} {KEY}")
    lake = Lake.open(lake.root)
    assert tombstones.read(lake.root, lake.key()) == marked
    assert lake.verify_receipt(receipt["id"]).holds
    deliver(folder, "accelerometer", [motion(ANA, 101, 5.0), motion(BO, 101, 5.0)], "again.json")
    deliver(folder, "step_trainer", [step(DEVICE, 101, 5), step(SHARED, 106, 5), step(SHARED, 108, 5)], "again.json")
    landing = lake.land(folder / "accelerometer" / "again.json", folder / "step_trainer" / "again.json")
    assert landing.erased == 3
    erase(lake, BO)
    assert len(tombstones.read(lake.root, lake.key()).people) == 2
    assert all(lake.verify_receipt(found.id).holds for found in lake.receipts())


@pytest.mark.parametrize(
    "compiled",
    [pytest.param(True, marks=pytest.mark.skipif(scanner.library() is None, reason="it is not compiled")), False],
)
def test_a_folder_named_like_a_column_gives_no_reading_another_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, compiled: bool
) -> None:
    """Readers of Parquet take `user=bob` in a path for a column's value: every reading would be his."""
    if not compiled:
        monkeypatch.setattr(scanner, "library", lambda: None)
    home = tmp_path / "user=bob" / "serialNumber=s9" / "customer_id=zzz" / "email=e"
    home.mkdir(parents=True)
    lake, inbox = Lake.create(home / "lake"), tmp_path / "inbox"
    deliver(inbox, "customer", [customer(ANA, serialNumber="s1"), customer(BO, serialNumber="s2")])
    lake.land(inbox)
    lake.build()
    lake.erase(BO)
    deliver(inbox, "accelerometer", [motion(ANA, 100), motion(ANA, 110)])
    deliver(inbox, "step_trainer", [step("s1", 100)])
    lake.land(inbox)
    assert {row[0] for row in records(lake, "accelerometer_landing")} == {ANA}
    assert {"s1" in row for row in records(lake, "step_trainer_landing")} == {True}
    conserved(lake)
    lake.build()
    assert contents(lake)["machine_learning_curated"].total() == 1
    lake.withdraw(ANA)
    lake.maintain()
    lake.build()
    assert not any(check.violations for check in (*lake.audit(files=True), *lake.prove().checks))
