"""Plan, stage, audit, publish: each reason to build, nothing to do, and what stops a build before anything is seen."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deliveries import customer, deliver, instant, moment, motion, step
from lakes import BELOW_LANDING, Slate, build, contents, heads, records, rows, tree
from stedi import transform as building
from stedi.engines import distinct, duckdb
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, CommitConflict, LakeError
from stedi.lake import Lake
from stedi.schema import tables
from stedi.schema.roles import Readings
from stedi.schema.tables import Dag, DataFile, Model
from stedi.transform import checks, consent_check, stage

NOW = 1_000
"""The start of the builds here; the customers' instants lie before it."""
CUSTOMERS = [
    customer("ana@x.example", consent=50, serialNumber="s1"),
    customer("bo@x.example", consent=..., serialNumber="s2"),
    customer("cy@x.example", consent=60, update=100, serialNumber="s3"),
    customer("cy@x.example", consent=..., update=100, serialNumber="s3"),
    customer("dee@x.example", consent=40, update=100, serialNumber="s4"),
    customer("dee@x.example", consent=..., update=200, serialNumber="s4"),
    customer("eve@x.example", consent=NOW + 500, serialNumber="s5"),
    customer("fay@x.example", consent=40, update=NOW + 900, serialNumber="s6"),
]
"""One who agrees; who never did, who did and did not in the same update, who took it back, who will agree; whose
record is from the future."""
MOTIONS = [motion(f"{name}@x.example", at) for name in ("ana", "bo", "cy", "dee", "eve", "fay") for at in (45, 100)]
STEPS = [step(f"s{number}", at) for number in range(1, 7) for at in (45, 100)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("build")


@pytest.fixture(scope="module")
def slate(folder: Path) -> Slate:
    return Slate(folder)


@pytest.fixture(scope="module")
def _landed_once(slate: Slate, folder: Path) -> None:
    root = _landed(slate).root
    shutil.copytree(root, folder / "landed")
    build(Lake.open(root), NOW)
    shutil.copytree(root, folder / "built")


@pytest.fixture
def landed(_landed_once: None, folder: Path) -> Lake:
    """A lake of six customers, one of whom agrees; not built yet."""
    return _restored(folder, "landed")


@pytest.fixture
def built(_landed_once: None, folder: Path) -> Lake:
    """The same lake, built at `NOW`."""
    return _restored(folder, "built")


def _restored(folder: Path, name: str) -> Lake:
    shutil.rmtree(folder / "lake")
    shutil.copytree(folder / name, folder / "lake")
    return Lake.open(folder / "lake")


def _landed(slate: Slate, readings: Readings = "all") -> Lake:
    lake, inbox = slate.wiped(readings), slate.inbox()
    deliver(inbox, "customer", CUSTOMERS)
    deliver(inbox, "accelerometer", MOTIONS)
    deliver(inbox, "step_trainer", STEPS)
    assert lake.land(inbox).quarantined == 0
    return lake


def changed(name: str, change: Callable[[str], str]) -> Dag:
    """The package's graph with one SELECT changed."""
    selects = dict(tables.graph().selects)
    sql = change(selects[name].sql)
    assert sql != selects[name].sql, "the change must change something"
    selects[name] = Model(name, selects[name].zone, sql, tables._reads(sql))
    return Dag(selects)


def plan(lake: Lake, now: int = NOW, *, graph: Dag | None = None, full: bool = False) -> dict[str, str]:
    """Each table that a build would change, and why."""
    steps = building.plan(lake.catalog.tables(), lake.config, instant(now), full=full, graph=graph)
    assert [found.table for found in steps] == [table.name for table in tables.graph().tables()]
    return {found.table: found.reason for found in steps if found.action != "none"}


def test_only_who_agrees_is_built_and_the_build_says_so(landed: Lake) -> None:
    made = build(landed, NOW)
    ana = landed.key().customer_id("ana@x.example")
    for name in BELOW_LANDING:
        assert {row[0] for row in rows(landed, name)} == {ana}, name
    assert (made.customers, made.consenting, made.withheld) == (6, 1, 0)
    assert {table.name: (table.action, table.rows_added, table.rows) for table in made.tables} == {
        "customers_trusted": ("rebuild", 1, 1),
        "accelerometer_trusted": ("rebuild", 2, 2),
        "customers_curated": ("rebuild", 1, 1),
        "step_trainer_trusted": ("rebuild", 2, 2),
        "machine_learning_curated": ("rebuild", 2, 2),
    }


def test_a_plan_changes_nothing(landed: Lake) -> None:
    before = tree(landed.root)
    assert set(plan(landed)) == set(BELOW_LANDING)
    landed.plan()
    landed.plan(full=True)
    assert tree(landed.root) == before


def test_nothing_to_do_writes_nothing(landed: Lake) -> None:
    landed.build()
    before = tree(landed.root)
    made = landed.build()
    assert tree(landed.root) == before
    assert made.run == ""
    assert {table.action for table in made.tables} == {"none"}
    assert (made.customers, made.consenting) == (6, 3), "the future of NOW is past by the clock"


def test_each_reason_to_build_is_given_in_turn(landed: Lake, slate: Slate) -> None:
    assert set(plan(landed).values()) == {"first time"}
    build(landed, NOW)
    assert plan(landed) == {}

    assert plan(landed, full=True) == dict.fromkeys(BELOW_LANDING, "asked for")

    graph = changed("step_trainer_trusted", lambda sql: sql + "\n  and 1 = 1")
    assert plan(landed, graph=graph) == {
        "step_trainer_trusted": "its SQL has changed",
        "machine_learning_curated": "step_trainer_trusted is rebuilt",
    }
    under = changed("claims", lambda sql: sql.replace("p.address\n", "p.address where true\n"))
    assert plan(landed, graph=under)["step_trainer_trusted"] == "its SQL has changed"
    comment = changed("customers_trusted", lambda sql: f"-- another word\n{sql}\n\n")
    assert plan(landed, graph=comment) == {}

    policy = dataclasses.replace(landed.config, readings="since-consent")
    steps = building.plan(landed.catalog.tables(), policy, instant(NOW))
    assert {found.reason for found in steps} == {"the consent policy or the key has changed"}

    assert plan(landed, NOW + 499) == {}
    assert plan(landed, NOW + 500)["customers_trusted"] == "a consent date has come"

    landed.land(deliver(slate.inbox(), "step_trainer", [step("s1", 70)]))
    assert plan(landed) == {
        "step_trainer_trusted": "step_trainer_landing has 1 new row",
        "machine_learning_curated": "step_trainer_trusted changes",
    }


def test_a_consent_date_that_comes_brings_its_customer_without_a_landing(built: Lake) -> None:
    made = build(built, NOW + 500)
    ids = {built.key().customer_id(f"{name}@x.example") for name in ("ana", "eve")}
    assert made.consenting == 2
    for name in BELOW_LANDING:
        assert {row[0] for row in rows(built, name)} == ids, name


def test_a_record_from_the_future_gives_consent_when_its_time_has_come_without_a_landing(built: Lake) -> None:
    assert build(built, NOW + 899).consenting == 2
    assert plan(built, NOW + 900)["customers_trusted"] == "a consent date has come"
    assert build(built, NOW + 900).consenting == 3
    assert plan(built, NOW + 5_000_000) == {}
    assert plan(built, NOW + 899)["customers_trusted"] == "the clock has gone back behind a consent date"
    assert build(built, NOW + 899).consenting == 2


def test_a_full_build_makes_the_same_rows_in_new_snapshots(built: Lake) -> None:
    before, found = heads(built), contents(built)
    made = build(built, NOW, full=True)
    assert contents(built) == found
    after = heads(built)
    assert {name for name in before if before[name] != after[name]} == set(BELOW_LANDING)
    assert [(table.rows_added, table.rows_removed) for table in made.tables] == [
        (table.rows, table.rows) for table in made.tables
    ]


def _many(slate: Slate) -> Lake:
    """Returns a built lake of forty customers with two training rows each."""
    lake, inbox = slate.wiped(), slate.inbox()
    people = range(40)
    deliver(inbox, "customer", [customer(f"{n}@x.example", serialNumber=f"s{n}") for n in people])
    deliver(inbox, "accelerometer", [motion(f"{n}@x.example", at, n) for n in people for at in (100, 200)])
    deliver(inbox, "step_trainer", [step(f"s{n}", at) for n in people for at in (100, 200)])
    lake.land(inbox)
    build(lake, NOW)
    return lake


def test_a_large_training_table_is_written_in_parts_that_have_every_row_once(
    slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = _many(slate)
    found = contents(lake)
    assert sum(found["machine_learning_curated"].values()) == 80
    monkeypatch.setattr(DuckDB, "at_once", 10)
    made = build(lake, NOW, full=True)
    assert contents(lake) == found
    written = lake.catalog.folder("machine_learning_curated") / "data" / made.run
    assert sum(any(part.iterdir()) for part in written.iterdir()) > 5, "of nine parts, each with some five customers"


@pytest.mark.parametrize("most", [39, 40])
def test_customers_of_a_large_training_table_are_joined_as_numbers_and_written_as_texts(
    slate: Slate, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    lake = _many(slate)
    found, told = contents(lake), set[str]()
    [file, *_] = lake.catalog.files(lake.catalog.table("machine_learning_curated"))
    schema = pq.read_schema(file.path)
    write = DuckDB.write

    def noted(self: DuckDB, table: str, sql: str, folder: Path, *, of: int = 0) -> tuple[DataFile, ...]:
        told.update(kind for (kind,) in self.rows(f"select distinct typeof(customer_id) from ({sql})"))
        if table == "machine_learning_curated":
            views = self.rows("select sql from duckdb_views() where view_name like '%__numbered'")
            assert bool(views) == (most == 40), "one customer too many is one too many"
            assert all("trusted_customer" in view for (view,) in views)
        return write(self, table, sql, folder, of=of)

    monkeypatch.setattr(DuckDB, "at_once", 10)
    monkeypatch.setattr(duckdb, "_MOST_LISTED", most)
    monkeypatch.setattr(DuckDB, "write", noted)
    build(lake, NOW, full=True)
    assert contents(lake) == found
    assert told == {"VARCHAR"}
    for file in lake.catalog.files(lake.catalog.table("machine_learning_curated")):
        assert pq.read_schema(file.path) == schema


def test_training_rows_of_a_large_table_are_counted_by_ranges_of_customers(
    slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = _many(slate)
    monkeypatch.setattr(DuckDB, "at_once", 10)

    def exchanged(sql: str) -> str:
        return f"{sql} where s.serialNumber <> 's1' union all {sql} where s.serialNumber = 's2'"

    # as many rows as expected in all: one customer has none, another one has each twice
    graph = changed("machine_learning_curated", exchanged)
    _stopped(lake, graph, AuditFailed, "training_rows_are_conserved")


def test_readings_of_many_shared_serial_numbers_are_joined_in_parts_and_are_the_same(
    slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, inbox, people = slate.wiped(), slate.inbox(), range(12)
    deliver(inbox, "customer", [customer(f"{n}{who}@x.example", serialNumber=f"s{n}") for n in people for who in "ab"])
    moving = [motion(f"{n}{who}@x.example", at) for n in people for who, at in (("a", 100), ("b", 200), ("b", 300))]
    deliver(inbox, "accelerometer", [*moving, motion("0a@x.example", 200)])
    steps = [step(f"s{n}", at) for n in people for at in (100, 200, 300, 400)]
    deliver(inbox, "step_trainer", [*steps, *steps[:5]])
    lake.land(inbox)
    build(lake, NOW)
    found, withheld = contents(lake), lake.withheld()
    assert sum(found["step_trainer_trusted"].values()) == 12 * 3 - 1, "who moved at that moment owns the step"
    monkeypatch.setattr(DuckDB, "at_once", 5)
    parts, materialize = set[str](), DuckDB.materialize

    def noted(self: DuckDB, view: str, sql: str) -> None:
        parts.update([view] if "__part_" in view and "shared_" in view else [])
        materialize(self, view, sql)

    monkeypatch.setattr(DuckDB, "materialize", noted)
    build(lake, NOW, full=True)
    assert contents(lake) == found
    assert lake.withheld() == withheld
    assert len(parts) == 2 * 4, "53 readings, 15 a part, for two views"


@pytest.mark.parametrize("readings", ["all", "since-consent"])
def test_readings_that_are_sorted_in_buckets_are_those_that_the_engine_sorts(
    slate: Slate, readings: Readings, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = _landed(slate, readings)
    deliver(
        slate.inbox(),
        "accelerometer",
        [*MOTIONS, *MOTIONS[:3], motion("ANA@x.example ", 100), motion("zoe@x.example", 1)],
    )
    deliver(slate.inbox(), "step_trainer", [*STEPS[::-1], step("s1", 100, 7)])
    lake.land(slate.inbox())
    build(lake, NOW)
    found, taken = contents(lake), list[str]()
    write = distinct.write

    def watched(table: str, *arguments: Any, **options: Any) -> Any:
        taken.append(table)
        return write(table, *arguments, **options)

    monkeypatch.setattr(duckdb, "_MANY", 0)
    monkeypatch.setattr(distinct, "write", watched)
    build(lake, NOW, full=True)
    assert contents(lake) == found
    assert taken == ([] if distinct.library() is None else ["accelerometer_trusted", "step_trainer_trusted"])
    assert not [path for path in (lake.root / "tmp").rglob("*") if path.is_file()]


@pytest.mark.skipif(distinct.library() is None, reason="needs a C compiler")
@pytest.mark.parametrize("large", [1, 10**9])
def test_a_sort_that_keeps_equal_rows_publishes_nothing(
    landed: Lake, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distinct._Buckets.sorted
    monkeypatch.setattr(duckdb, "_MANY", 0)
    monkeypatch.setattr(checks, "LARGE", large)  # by the order of rows, and by a statement
    monkeypatch.setattr(checks, "prove_consent", lambda *_, **__: None)

    def doubled(buckets: Any, *arguments: Any) -> Any:
        table = whole(buckets, *arguments)
        return table.take([*range(len(table)), len(table) - 1]).combine_chunks()

    monkeypatch.setattr(distinct._Buckets, "sorted", doubled)
    _stopped(landed, tables.graph(), AuditFailed, "accelerometer_readings_are_distinct")


def _of_shared_devices(slate: Slate) -> Lake:
    """A lake in which two customers claim a device; each moved when it measured once, and both did once."""
    lake, inbox = slate.wiped(), slate.inbox()
    names = ("ana", "bo")
    deliver(inbox, "customer", [customer(f"{name}@x.example", consent=50, serialNumber="shared") for name in names])
    moved = {"ana": (45, 100, 120), "bo": (60, 100)}
    deliver(inbox, "accelerometer", [motion(f"{name}@x.example", at) for name in names for at in moved[name]])
    deliver(inbox, "step_trainer", [step("shared", at) for at in (45, 60, 100, 120)])
    lake.land(inbox)
    build(lake, NOW)
    return lake


@pytest.mark.parametrize(
    "failing", [(), ("wearers__read",), ("proof__consents",), ("claims",), ("shared_motions",), ("shared_readings",)]
)
def test_what_a_second_thread_does_ahead_changes_no_row(
    slate: Slate, failing: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = _of_shared_devices(slate)
    found, ahead, materialize = contents(lake), set[str](), DuckDB.materialize

    def watched(engine: DuckDB, view: str, sql: str) -> None:
        if threading.current_thread() is not threading.main_thread():
            ahead.add(view)
            if view in failing:
                raise LakeError("the engine needs more memory")
        materialize(engine, view, sql)

    monkeypatch.setattr(checks, "LARGE", 0)
    monkeypatch.setattr(DuckDB, "materialize", watched)
    made = build(lake, NOW, full=True)
    assert contents(lake) == found
    assert len(rows(lake, "step_trainer_trusted")) == 3
    assert made.withheld == 1
    assert ahead >= {"wearers__read", "proof__consents", "claims", *failing}
    assert ("shared_readings" in ahead) != (failing in [("claims",), ("shared_motions",)])


def _begins(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Builds anew, and returns whether a second session was opened."""
    begun, beside = list[DuckDB](), DuckDB.beside

    def watched(engine: DuckDB) -> AbstractContextManager[DuckDB]:
        begun.append(engine)
        return beside(engine)

    monkeypatch.setattr(DuckDB, "beside", watched)
    assert build(lake, NOW, full=True).run
    return bool(begun)


def test_a_build_of_few_rows_begins_no_second_thread(built: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _begins(built, monkeypatch)


@pytest.mark.parametrize(("table", "name"), [("accelerometer_landing", "_A_ROW"), ("customers_landing", "_A_RECORD")])
@pytest.mark.parametrize("beyond", [0, 1])
def test_a_build_begins_a_second_thread_where_there_is_memory_for_it(
    built: Lake, table: str, name: str, beyond: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "LARGE", 0)
    monkeypatch.setattr(stage, name, 600_000_000 // len(records(built, table)))
    built.context.config = dataclasses.replace(built.config, engine_memory=f"{600_000_000 - beyond}B")
    assert _begins(built, monkeypatch) == (not beyond)


def test_an_account_of_consent_that_fails_ahead_publishes_nothing(
    landed: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise LakeError("the engine cannot read a file")

    monkeypatch.setattr(checks, "LARGE", 0)
    monkeypatch.setattr(consent_check, "agree", fail)
    _stopped(landed, tables.graph(), LakeError, "cannot read a file")


@pytest.mark.parametrize("large", [0, 10**9])
def test_the_engine_is_closed_whether_a_build_is_published_or_not(
    landed: Lake, large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed, close = list[bool](), DuckDB.close

    def watched(engine: DuckDB) -> None:
        close(engine)
        closed.append(True)

    monkeypatch.setattr(checks, "LARGE", large)
    monkeypatch.setattr(DuckDB, "close", watched)
    _stopped(landed, changed("customers_trusted", lambda sql: sql.replace("where consents", "")), AuditFailed, "proof")
    assert closed == [True]
    assert build(landed, NOW).run
    assert closed == [True] * 2


def test_every_snapshot_says_what_it_was_built_from(landed: Lake) -> None:
    made = build(landed, NOW)
    now = heads(landed)
    for table in tables.graph().tables():
        current = landed.catalog.table(table.name).current
        assert current is not None
        summary = current.summary
        assert summary["stedi.run"] == made.run
        assert summary["stedi.started"] == str(instant(NOW))
        assert summary["stedi.policy"] == building.policy(landed.config)
        assert summary["stedi.sql"] == tables.graph().fingerprint(table.name)
        assert json.loads(summary["stedi.inputs"]) == {name: now[name] for name in tables.graph().inputs(table.name)}
        assert not landed.catalog.table(table.name).branches.keys() - {"main"}


def test_withheld_readings_are_counted_and_listed(slate: Slate) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    people = ("ana@x.example", "bo@x.example")
    deliver(inbox, "customer", [customer(email, serialNumber="shared") for email in people])
    deliver(inbox, "accelerometer", [motion("ana@x.example", 1), *(motion(email, 2) for email in people)])
    deliver(inbox, "step_trainer", [step("shared", 1), step("shared", 2), step("shared", 3), step("shared", 3)])
    lake.land(inbox)
    assert build(lake, NOW).withheld == 2
    assert build(lake, NOW).withheld == 2, "remembered, not counted again"
    listed = lake.withheld()
    assert [(moment(round(r.time.timestamp() * 1000)), r.serial_number, r.distance, r.moved) for r in listed] == [
        (2, "shared", 246, 2),
        (3, "shared", 246, 0),
    ]
    assert sum(rows(lake, "step_trainer_trusted").values()) == 1


def _stopped(lake: Lake, graph: Dag, error: type[Exception], match: str) -> None:
    """A build of this graph fails, readers see what they saw, and nothing is left behind."""
    before, found, files = heads(lake), contents(lake), _left(lake)
    with pytest.raises(error, match=match) as caught:
        build(lake, NOW, graph=graph)
    assert "example" not in str(caught.value)
    assert "s1" not in str(caught.value)
    assert heads(lake) == before
    assert contents(lake) == found
    assert _left(lake) == files
    for state in lake.catalog.tables().values():
        assert not state.branches.keys() - {"main"}


def _left(lake: Lake) -> set[Path]:
    """Data files, and whatever lies in the folder for temporary files."""
    return {*lake.root.rglob("*.parquet"), *(lake.root / "tmp").rglob("*")}


CONSENT_MUTANTS = {
    "everybody agrees": ("customers_trusted", lambda sql: sql.replace("where consents", "")),
    "nobody's consent counts": ("customers_trusted", lambda sql: sql.replace("where consents", "where not consents")),
    "any past consent will do": (
        "current_customers",
        lambda sql: sql.replace("c.lastUpdateDate desc,\n        coalesce", "coalesce").replace("asc,", "desc,"),
    ),
    "the oldest record is current": (
        "current_customers",
        lambda sql: sql.replace("c.lastUpdateDate desc", "c.lastUpdateDate asc"),
    ),
    "of equal updates consent wins": (
        "current_customers",
        lambda sql: sql.replace("false\n        ) asc", "false\n        ) desc"),
    ),
    "a date in the future counts": (
        "current_customers",
        lambda sql: sql.replace("and c.shareWithResearchAsOfDate <= $build_started", ""),
    ),
    "a record from the future counts": (
        "current_customers",
        lambda sql: sql.replace("and c.lastUpdateDate <= $build_started", ""),
    ),
    "absent is agreed": (
        "current_customers",
        lambda sql: sql.replace("$build_started,\n        false", "$build_started,\n        true"),
    ),
    "readings of everybody": (
        "accelerometer_trusted",
        lambda sql: sql.replace("inner join customers_trusted as c", "left join customers_trusted as c"),
    ),
    "readings of claimants who do not agree": (
        "step_trainer_trusted",
        lambda sql: sql.replace("inner join customers_curated as c on n", "left join customers_curated as c on n"),
    ),
    "training rows of the customers of landing": (
        "machine_learning_curated",
        lambda sql: (
            'select p.customer_id, instant(a."timestamp") as sensorReadingTime, 1::bigint as distanceFromObject, '
            'a.x, a.y, a.z from accelerometer_landing as a inner join wearers as p on a."user" = p.address'
        ),
    ),
}


@pytest.mark.parametrize("mutant", CONSENT_MUTANTS)
def test_the_consent_proof_alone_stops_sql_that_gets_consent_wrong(
    mutant: str, built: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "assertions", tuple)
    monkeypatch.setattr(checks, "REQUIRED", dict.fromkeys(BELOW_LANDING, frozenset()))
    name, change = CONSENT_MUTANTS[mutant]
    _stopped(built, changed(name, change), AuditFailed, "consent proof")


def test_the_consent_proof_stops_a_large_table_with_rows_of_those_who_are_not_trusted(
    built: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a training table that joins customers as numbers has none for them
    monkeypatch.setattr(DuckDB, "at_once", 1)
    name, change = CONSENT_MUTANTS["readings of everybody"]
    _stopped(built, changed(name, change), AuditFailed, f"{name}: consent proof")


def test_a_first_build_that_fails_publishes_nothing(landed: Lake) -> None:
    _stopped(landed, changed(*CONSENT_MUTANTS["everybody agrees"]), AuditFailed, "nothing was published")
    assert not any(contents(landed).values())
    assert set(plan(landed).values()) == {"first time"}


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("accelerometer_trusted", lambda sql: sql.replace("where $readings = 'all' or", "where true or")),
        ("accelerometer_trusted", lambda sql: sql.replace(">= c.share", "< c.share")),
        ("step_trainer_trusted", lambda sql: sql.replace("$readings = 'all' or", "true or")),
        ("step_trainer_trusted", lambda sql: sql.replace("c.shareWithResearchAsOfDate -- rule 4", "instant(1)")),
    ],
)
def test_sql_that_takes_readings_from_before_consent_publishes_nothing(
    name: str, change: Callable[[str], str], slate: Slate
) -> None:
    lake = _landed(slate, "since-consent")
    _stopped(lake, changed(name, change), AuditFailed, f"{name}: consent proof")
    build(lake, NOW)
    assert {row[1] for row in rows(lake, name)} == {100}


@pytest.mark.parametrize(
    ("check", "name", "change"),
    [
        ("customers_trusted_is_unique", "customers_trusted", lambda sql: f"{sql} union all ({sql})"),
        ("customers_curated_is_unique", "customers_curated", lambda sql: f"{sql} union all ({sql})"),
        ("accelerometer_readings_are_distinct", "accelerometer_trusted", lambda sql: f"{sql} union all ({sql})"),
        (
            "curated_customers_are_trusted",
            "customers_curated",
            lambda sql: sql.replace("c.customer_id,", "upper(c.customer_id) as customer_id,", 1),
        ),
        (
            "step_readings_have_curated_owners",
            "step_trainer_trusted",
            lambda sql: sql.replace("w.customer_id,", "upper(w.customer_id) as customer_id,", 1),
        ),
        ("training_rows_are_conserved", "machine_learning_curated", lambda sql: f"{sql} union all ({sql})"),
        (
            "training_rows_are_conserved",
            "machine_learning_curated",
            lambda sql: f"{sql} where s.distanceFromObject < 0",
        ),
        (
            "machine_learning_curated: x: expected no nulls, found 2",
            "machine_learning_curated",
            lambda sql: sql.replace("a.x", "null::double as x"),
        ),
    ],
)
def test_a_broken_assertion_publishes_nothing(
    check: str, name: str, change: Callable[[str], str], built: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = tuple(found for found in tables.assertions() if found.name == check)
    monkeypatch.setattr(tables, "assertions", lambda: alone)
    monkeypatch.setattr(checks, "prove_consent", lambda *_, **__: None)  # it comes first and would see some of them
    _stopped(built, changed(name, change), AuditFailed, check)


def test_a_failed_audit_exits_with_3() -> None:
    assert AuditFailed.exit_code == 3


def test_sql_with_other_columns_than_the_table_publishes_nothing(built: Lake) -> None:
    graph = changed("machine_learning_curated", lambda sql: sql.replace("a.x", "a.x::varchar as x"))
    _stopped(built, graph, LakeError, "machine_learning_curated: the columns of its SQL differ from the table's: x")


def test_sql_that_cannot_run_publishes_nothing_and_repeats_no_value(built: Lake) -> None:
    graph = changed("customers_trusted", lambda sql: sql.replace("    phone,", "    email::bigint::varchar as phone,"))
    _stopped(built, graph, LakeError, r"the engine refused a statement \(\w+\)")


def test_a_table_that_moves_meanwhile_is_a_conflict_and_stays_as_it_is(built: Lake) -> None:
    moved: dict[str, int | None] = {}

    def interfere(what: str, share: float | None) -> None:
        if what == "audit" and not moved:
            built.catalog.append("machine_learning_curated", (), {})
            moved.update(heads(built))

    with pytest.raises(CommitConflict, match="Run `stedi build` again"):
        build(built, NOW, full=True, progress=interfere)
    assert heads(built) == moved
    assert build(built, NOW, full=True).run
    assert plan(built) == {}
