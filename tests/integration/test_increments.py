"""Builds that follow their inputs: which step each change takes, what it costs, and what a preview says of it.

That any sequence of changes ends in the tables of a rebuild is the law's business; here each kind is looked at once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import BELOW_LANDING, Slate, build, contents, heads, publish_each, rows, tree
from stedi import transform as building
from stedi.catalog import Catalog, snapshots
from stedi.engines import row_order
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, DamagedFile
from stedi.lake import Lake
from stedi.storage.config import Config
from stedi.transform import checks
from stedi.transform.incremental import MOMENTS, IncrementalBuild

NOW = 1_000
PEOPLE = ("ana", "bo", "cy")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("increments")


@pytest.fixture(scope="module")
def _once(folder: Path) -> Path:
    slate = Slate(folder)
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [customer(f"{who}@x.example", serialNumber=who) for who in PEOPLE])
    deliver(inbox, "accelerometer", [motion(f"{who}@x.example", at) for who in PEOPLE for at in (100, 101)])
    deliver(inbox, "step_trainer", [step(who, at) for who in PEOPLE for at in (100, 101)])
    lake.land(inbox)
    build(lake, NOW)
    shutil.copytree(lake.root, folder / "built")
    return lake.root


@pytest.fixture
def lake(_once: Path, folder: Path) -> Lake:
    """A lake of three customers with two moments each, built."""
    shutil.rmtree(_once)
    shutil.copytree(folder / "built", _once)
    return Lake.open(_once)


@pytest.fixture
def land(lake: Lake, tmp_path: Path) -> Callable[..., None]:
    """Lands some records of one feed."""

    def records(feed: str, *of: dict[str, object]) -> None:
        records.count += 1  # type: ignore[attr-defined] # two deliveries of the same records are two files
        path = deliver(tmp_path, feed, of, f"{records.count}.json")  # type: ignore[attr-defined]
        path.write_text(path.read_text() + "\n" * records.count)  # type: ignore[attr-defined]
        lake.land(path)

    records.count = 0  # type: ignore[attr-defined]
    return records


def steps(made: building.Build) -> dict[str, tuple[str, int, int]]:
    """What was done to each table that was not left alone: action, rows added, rows removed."""
    return {t.name: (t.action, t.rows_added, t.rows_removed) for t in made.tables if t.action != "none"}


def right(lake: Lake, now: int = NOW) -> None:
    """Asserts that the tables are those of a rebuild, and that nothing is left to do."""
    before, found = heads(lake), contents(lake)
    assert build(lake, now).run == ""
    assert heads(lake) == before
    build(lake, now, full=True)
    assert contents(lake) == found


def test_new_readings_are_appended_and_customers_left_alone(lake: Lake, land: Callable[..., None]) -> None:
    land("accelerometer", motion("ana@x.example", 102), motion("bo@x.example", 99))
    land("step_trainer", step("ana", 102), step("bo", 99))
    assert steps(build(lake, NOW)) == {
        "accelerometer_trusted": ("append", 2, 0),
        "customers_curated": ("append", 0, 0),
        "step_trainer_trusted": ("append", 2, 0),
        "machine_learning_curated": ("append", 2, 0),
    }
    right(lake)


@pytest.mark.parametrize("late", [False, True])
def test_new_readings_are_compared_only_with_those_of_their_time(
    late: bool, lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: dict[str, list[str]] = {}

    def watched(kind: str) -> Callable[..., None]:
        real = getattr(DuckDB, kind)

        def makes(self: DuckDB, name: str, sql: str, *of: object) -> None:
            made.setdefault(name, []).append(sql)
            made.setdefault(kind, []).append(name)
            real(self, name, sql, *of)

        return makes

    for kind in ("view", "materialize", "pseudonymise"):
        monkeypatch.setattr(DuckDB, kind, watched(kind))
    at = 101 if late else 102
    land("accelerometer", motion("ana@x.example", at, 2.0), motion("bo@x.example", at))
    land("step_trainer", step("ana", at, 99), step("bo", at))
    done = steps(build(lake, NOW))
    count = 1 if late else 2  # of the late ones two are known
    assert {done[name] for name in ("accelerometer_trusted", "step_trainer_trusted")} == {("append", count, 0)}
    for name in ("accelerometer_trusted", "step_trainer_trusted"):
        assert (" except " in made[f"{name}__insert"][-1]) is late
    # of readings landed before, those at the moments of late motion
    assert ("sensorReadingTime in (select" in made["serials__affected"][0]) is late
    # no device is shared, so that no other reading can find another owner
    assert made["step_trainer_landing__scope"] == ["select * from step_trainer_landing__added"]
    assert made["pseudonymise"].count("wearers__added") == 1
    monkeypatch.undo()
    right(lake)


def test_tables_built_from_different_states_find_the_wearers_of_their_own_new_readings(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    land("customer", customer("bo@x.example", update=200, serialNumber="ana"))
    land("step_trainer", step("ana", 300))
    assert build(lake, NOW).withheld == 3  # at two moments both of its claimants moved
    land("accelerometer", motion("bo@x.example", 300))
    assert _interrupted(lake, monkeypatch, 1) == ["accelerometer_trusted"]
    land("accelerometer", motion("cy@x.example", 400))
    # the third reading is bo's, by a motion that only one table has yet to see
    assert build(lake, NOW).withheld == 2
    right(lake)


def test_an_append_keeps_every_file_and_writes_its_own_rows_alone(lake: Lake, land: Callable[..., None]) -> None:
    before = {file.path for file in lake.catalog.files(lake.catalog.table("accelerometer_trusted"))}
    land("accelerometer", motion("ana@x.example", 102))
    build(lake, NOW)
    state = lake.catalog.table("accelerometer_trusted")
    after = lake.catalog.files(state)
    assert before < {file.path for file in after}
    assert sum(file.rows for file in after if file.path not in before) == 1
    assert state.current is not None
    assert state.current.operation == "append"


def test_a_reading_delivered_again_adds_nothing_and_the_watermark_moves_on(
    lake: Lake, land: Callable[..., None]
) -> None:
    land("accelerometer", motion("ana@x.example", 100))
    land("step_trainer", step("ana", 100))
    assert set(steps(build(lake, NOW)).values()) == {("append", 0, 0)}
    right(lake)


def test_a_step_reading_pairs_with_motion_that_arrives_days_later_and_the_other_way_round(
    lake: Lake, land: Callable[..., None]
) -> None:
    land("step_trainer", step("ana", 500))
    assert steps(build(lake, NOW))["step_trainer_trusted"] == ("append", 1, 0)
    assert len(rows(lake, "machine_learning_curated")) == 6
    land("accelerometer", motion("ana@x.example", 500), motion("bo@x.example", 600))
    assert steps(build(lake, NOW))["machine_learning_curated"] == ("append", 1, 0)
    land("step_trainer", step("bo", 600))
    assert steps(build(lake, NOW))["machine_learning_curated"] == ("append", 1, 0)
    right(lake)


def test_who_withdraws_leaves_every_table_in_one_commit_each(lake: Lake, land: Callable[..., None]) -> None:
    before = {name: lake.catalog.table(name) for name in BELOW_LANDING}
    land("customer", customer("bo@x.example", consent=..., update=200, serialNumber="bo"))
    made = build(lake, NOW)
    assert {name: (action, removed) for name, (action, _, removed) in steps(made).items()} == {
        "customers_trusted": ("by-customer", 1),
        "accelerometer_trusted": ("by-customer", 2),
        "customers_curated": ("by-customer", 1),
        "step_trainer_trusted": ("by-customer", 2),
        "machine_learning_curated": ("by-customer", 2),
    }
    gone = lake.key().customer_id("bo@x.example")
    for name in BELOW_LANDING:
        assert gone not in {row[0] for row in rows(lake, name)}
        later = lake.catalog.table(name).since(before[name].current.id)  # type: ignore[union-attr] # built before
        assert later is not None
        assert [snapshot.operation for snapshot in later] == ["overwrite"]
    right(lake)


def test_rows_that_stay_are_not_written_anew_from_a_damaged_file(lake: Lake, land: Callable[..., None]) -> None:
    [file] = lake.catalog.files(lake.catalog.table("accelerometer_trusted"))
    path, before = Path(file.path), heads(lake)
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    land("customer", customer("ana@x.example", ..., 200, serialNumber="ana"))
    landed = heads(lake)
    with pytest.raises(DamagedFile, match=rf"accelerometer_trusted: data/.*/{path.name}: expected SHA-256"):
        build(lake, NOW + 1)
    assert heads(lake) == landed
    assert {name: landed[name] for name in BELOW_LANDING} == {name: before[name] for name in BELOW_LANDING}


def test_who_agrees_again_comes_back_with_readings_of_any_age_and_spelling(
    lake: Lake, land: Callable[..., None]
) -> None:
    land("customer", customer("bo@x.example", consent=..., update=200, serialNumber="bo"))
    land("accelerometer", motion(" BO@X.example", 103))
    build(lake, NOW)
    land("customer", customer("Bo@x.example", update=300, serialNumber="bo"))
    made = build(lake, NOW)
    assert steps(made)["accelerometer_trusted"] == ("append", 3, 0)
    assert steps(made)["step_trainer_trusted"] == ("append", 2, 0)
    right(lake)


def test_a_serial_number_that_becomes_shared_concerns_all_its_claimants(lake: Lake, land: Callable[..., None]) -> None:
    land("customer", customer("cy@x.example", update=200, serialNumber="ana"))
    made = build(lake, NOW)
    # both moved at both moments, so nobody knows whose steps they were
    assert steps(made)["step_trainer_trusted"] == ("by-customer", 2, 4)
    assert made.withheld == 2
    assert {row[2] for row in rows(lake, "step_trainer_trusted")} == {"bo", "cy"}
    right(lake)


def test_late_motion_decides_a_shared_reading_and_later_motion_undoes_that(
    lake: Lake, land: Callable[..., None]
) -> None:
    land("customer", customer("cy@x.example", update=200, serialNumber="ana"))
    land("step_trainer", step("ana", 300))
    assert build(lake, NOW).withheld == 3
    land("accelerometer", motion("ana@x.example", 300))
    made = build(lake, NOW)
    assert (made.withheld, steps(made)["step_trainer_trusted"]) == (2, ("append", 1, 0))
    land("accelerometer", motion("cy@x.example", 300))
    made = build(lake, NOW)
    assert made.withheld == 3
    assert steps(made)["step_trainer_trusted"][0] == "by-customer"
    assert 300 not in {row[1] for row in rows(lake, "step_trainer_trusted")}
    right(lake)


def test_a_clock_that_goes_back_behind_a_consent_takes_it_back(lake: Lake, land: Callable[..., None]) -> None:
    land("customer", customer("bo@x.example", consent=900, update=200, serialNumber="bo"))
    build(lake, NOW)
    made = build(lake, 800)
    assert {table.reason for table in made.tables[:1]} == {"the clock has gone back behind a consent date"}
    assert {table.action for table in made.tables} == {"by-customer"}
    assert len(rows(lake, "customers_trusted")) == 2
    right(lake, 800)
    assert len(rows(lake, "customers_trusted")) == 2
    build(lake, NOW)
    assert len(rows(lake, "customers_trusted")) == 3


def test_a_table_that_an_interrupted_build_left_behind_is_rebuilt_with_the_reason(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    land("customer", customer("bo@x.example", consent=..., update=200, serialNumber="bo"))
    assert _interrupted(lake, monkeypatch, publications=2) == ["customers_trusted", "accelerometer_trusted"]
    reasons = {t.name: t.reason for t in build(lake, NOW).tables if t.action == "rebuild"}
    assert reasons == {
        "customers_curated": "accelerometer_trusted has changed otherwise than by new rows (overwrite)",
        "step_trainer_trusted": "customers_curated is rebuilt",
        "machine_learning_curated": "accelerometer_trusted has changed otherwise than by new rows (overwrite)",
    }
    right(lake)


def test_a_build_that_died_between_publications_of_new_rows_is_followed(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    land("accelerometer", motion("ana@x.example", 102))
    land("step_trainer", step("ana", 102))
    assert _interrupted(lake, monkeypatch, publications=1) == ["accelerometer_trusted"]
    made = steps(build(lake, NOW))
    assert "accelerometer_trusted" not in made
    assert made["machine_learning_curated"] == ("append", 1, 0)
    right(lake)


def test_a_preview_names_who_would_come_go_and_change_and_writes_nothing(lake: Lake, land: Callable[..., None]) -> None:
    land("customer", customer("bo@x.example", consent=..., update=200, serialNumber="bo"))
    land("customer", customer("cy@x.example", update=200, serialNumber="cy", phone="1"), customer("dee@x.example"))
    land("accelerometer", motion("dee@x.example", 100))
    before, who = tree(lake.root), lake.key().customer_id
    plan = lake.plan()
    assert tree(lake.root) == before
    assert plan.entering == (who("dee@x.example"),)
    assert plan.leaving == (who("bo@x.example"),)
    assert plan.changing == (who("cy@x.example"),)
    found = {estimate.step.table: estimate for estimate in plan.steps}
    assert {estimate.step.action for estimate in plan.steps} == {"by-customer"}
    assert found["accelerometer_trusted"].rows_read >= 1
    assert all(estimate.bytes_written > 0 for estimate in plan.steps)
    again = lake.plan(full=True)
    assert (again.entering, again.leaving, again.changing) == (plan.entering, plan.leaving, plan.changing)
    assert {estimate.step.action for estimate in again.steps} == {"rebuild"}
    lake.build()
    assert lake.plan().entering == lake.plan().leaving == ()


def bo_withdraws(land: Callable[..., None]) -> None:
    land("customer", customer("bo@x.example", consent=..., update=200, serialNumber="bo"))


def bo_shares_a_reading(land: Callable[..., None]) -> None:
    """A claimant of Bo's device moved with him: the reading of that moment is nobody's, though Bo still consents."""
    land("customer", customer("dee@x.example", serialNumber="bo"))
    land("accelerometer", motion("dee@x.example", 100))


def forgotten_by_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    real = IncrementalBuild.work_out

    def loses_people(self: IncrementalBuild, table: str, started: int) -> bool:
        gains = real(self, table, started)
        if table == "machine_learning_curated":
            self._engine.materialize(f"{table}__affected", "select null::varchar as customer_id where false")
        return gains

    monkeypatch.setattr(IncrementalBuild, "work_out", loses_people)


def kept_by_a_rewritten_file(monkeypatch: pytest.MonkeyPatch) -> None:
    real = DuckDB.write_without

    def keeps(self: DuckDB, table: str, files: Any, column: str, values: str, folder: Path, *, of: int) -> Any:
        nobody = "select null::varchar as customer_id where false"
        return real(
            self, table, files, column, nobody if table == "machine_learning_curated" else values, folder, of=of
        )

    monkeypatch.setattr(DuckDB, "write_without", keeps)


@pytest.mark.parametrize("fault", [forgotten_by_the_change, kept_by_a_rewritten_file])
@pytest.mark.parametrize(
    ("check", "change"),
    [
        ("machine_learning_curated: consent proof", bo_withdraws),
        # of those who do not consent any more, the proof has found that nothing is left: the assertions look for others
        ("training_rows_are_conserved", bo_shares_a_reading),
    ],
)
def test_an_audit_finds_rows_of_a_customer_that_should_have_left(
    fault: Callable[[pytest.MonkeyPatch], None],
    check: str,
    change: Callable[[Callable[..., None]], None],
    lake: Lake,
    land: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    change(land)
    before = heads(lake)
    fault(monkeypatch)
    with pytest.raises(AuditFailed, match=check):
        build(lake, NOW)
    assert heads(lake) == before
    monkeypatch.undo()
    assert build(lake, NOW).run
    right(lake)


def test_a_withdrawal_writes_no_file_of_new_rows(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    written, real = list[str](), DuckDB.write

    def watched(self: DuckDB, table: str, sql: str, *given: Any, **named: Any) -> Any:
        written.append(sql)
        return real(self, table, sql, *given, **named)

    land("customer", customer("bo@x.example", consent=..., update=200, serialNumber="bo"))
    monkeypatch.setattr(DuckDB, "write", watched)
    build(lake, NOW)
    assert not [sql for sql in written if "__insert" in sql]


def test_a_withdrawal_asks_for_no_reading_of_any_time_and_computes_none(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, within, materialize = list[str](), DuckDB.within, DuckDB.materialize

    def watched_within(self: DuckDB, relation: str, column: str, low: int, high: int) -> str:
        asked.append(relation)
        return within(self, relation, column, low, high)

    def watched_materialize(self: DuckDB, view: str, sql: str) -> None:
        asked.append(view)
        return materialize(self, view, sql)

    bo_withdraws(land)
    monkeypatch.setattr(DuckDB, "within", watched_within)
    monkeypatch.setattr(DuckDB, "materialize", watched_materialize)
    assert {action for action, *_ in steps(build(lake, NOW)).values()} == {"by-customer"}
    # of customers rows are computed: theirs may have changed
    assert {name for name in asked if name.endswith("__fresh")} == {
        "customers_trusted__fresh",
        "customers_curated__fresh",
    }
    assert not [
        name for name in asked if name.partition("__")[0] in MOMENTS and not name.endswith(("__affected", "__places"))
    ]
    monkeypatch.undo()
    right(lake)


@pytest.mark.parametrize(("change", "some"), [(bo_withdraws, False), (bo_shares_a_reading, True)])
def test_assertions_run_where_a_change_could_have_broken_a_row(
    change: Callable[[Callable[..., None]], None],
    some: bool,
    lake: Lake,
    land: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, real = list[str](), DuckDB.rows

    def watched(self: DuckDB, sql: str) -> Any:
        asked.append(sql)
        return real(self, sql)

    change(land)
    monkeypatch.setattr(DuckDB, "rows", watched)
    build(lake, NOW)
    assert any("training_rows_are_conserved" in sql for sql in asked) == some


def test_a_build_that_follows_little_in_a_large_lake_uses_one_thread(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    used, real = list[int](), building.connect

    def watched(name: Any, config: Config, *given: Any) -> Any:
        used.append(config.engine_threads)
        return real(name, config, *given)

    lake.context.config = replace(lake.config, engine_threads=3)
    monkeypatch.setattr(building, "connect", watched)
    monkeypatch.setattr(building, "_FEW", 5)  # tables of readings have six rows
    land("customer", customer("ana@x.example", consent=..., update=200, serialNumber="ana"))
    build(lake, NOW)
    land("accelerometer", motion("bo@x.example", 102))
    build(lake, NOW)
    assert used == [1, 1]
    monkeypatch.setattr(building, "_FEW_PEOPLE", 0)
    land("customer", customer("di@x.example", consent=NOW + 1, update=300, serialNumber="di"))
    build(lake, NOW)  # too many customers change
    build(lake, NOW + 2)  # a date has come, of nobody knows how many
    monkeypatch.undo()
    monkeypatch.setattr(building, "connect", watched)
    monkeypatch.setattr(building, "_FEW", 5)
    land("customer", customer("ed@x.example", update=300, serialNumber="ed"))
    build(lake, NOW + 2)  # too many records to search
    land("accelerometer", *(motion("bo@x.example", at) for at in range(200, 206)))
    build(lake, NOW + 2)
    build(lake, NOW + 2, full=True)
    assert used == [1, 1, 3, 3, 3, 3, 3]


def test_a_build_reads_no_manifest_or_list_of_them_twice(
    lake: Lake, land: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, real = list[str](), snapshots.avro

    def watched(table: str, location: str, take: Callable[[Any], object]) -> list[object]:
        read.append(location)
        return real(table, location, take)

    land("accelerometer", motion("ana@x.example", 102))
    monkeypatch.setattr(snapshots, "avro", watched)
    build(lake, NOW)
    assert len(read) == len(set(read)) > 0


def test_history_says_what_each_build_did(lake: Lake, land: Callable[..., None]) -> None:
    land("accelerometer", motion("ana@x.example", 102))
    made = build(lake, NOW)
    newest, *_ = lake.history("accelerometer_trusted")
    assert (newest.summary["stedi.run"], newest.summary["stedi.action"]) == (made.run, "append")
    assert json.loads(newest.summary["stedi.inputs"]).keys() == {"accelerometer_landing", "customers_trusted"}


def test_a_large_table_is_distinct_by_its_order_or_by_a_statement_and_never_by_both(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, told, rows_of = list[str](), list[bool](), DuckDB.rows

    def watched(engine: DuckDB, sql: str) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return rows_of(engine, sql)

    def looked(files: Any) -> bool:
        told.append(distinct(files))
        return told[-1]

    distinct = row_order.distinct
    monkeypatch.setattr(DuckDB, "rows", watched)
    monkeypatch.setattr(row_order, "distinct", looked)
    for large, ordered in ((10**9, None), (1, True), (1, False)):
        monkeypatch.setattr(checks, "LARGE", large)
        if ordered is False:
            monkeypatch.setattr(row_order, "distinct", lambda files: False)
        asked.clear()
        build(lake, NOW, full=True)
        assert any("accelerometer_readings_are_distinct" in sql for sql in asked) is not (ordered is True)
    assert told == [True]


def _interrupted(lake: Lake, monkeypatch: pytest.MonkeyPatch, publications: int) -> list[str]:
    """Builds, is interrupted after some publications, and returns what was published."""
    real, published = Catalog.publish, list[str]()

    def dies(self: Catalog, table: str, **options: object) -> None:
        if len(published) == publications:
            raise KeyboardInterrupt
        published.append(table)
        real(self, table, **options)  # type: ignore[arg-type] # passed on as they came

    publish_each(monkeypatch)
    monkeypatch.setattr(Catalog, "publish", dies)
    with pytest.raises(KeyboardInterrupt):
        build(lake, NOW)
    monkeypatch.setattr(Catalog, "publish", real)
    return published
