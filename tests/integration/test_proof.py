"""The proof finds whatever breaks a rule, names it, and accuses no lake that is right."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import proof_mutants
import worlds
from deliveries import customer, deliver, instant, motion
from effort import NIGHTLY
from lakes import BELOW_LANDING, Slate, build, publish_each
from proof_mutants import HIDING, MUTANTS, NOW, Mutant, findings
from stedi import cli
from stedi.audit.proof import Proof, expected, prove, violations
from stedi.audit.proof.as_of import AsOf
from stedi.catalog import Catalog
from stedi.context import Context
from stedi.engines import column_sums, row_sums
from stedi.engines.column_sums import ColumnSums
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed
from stedi.lake import Lake
from stedi.schema.roles import Readings
from stedi.schema.tables import COLUMNS, DataFile
from stedi.transform import policy

EXAMPLES = 300 if NIGHTLY else 6
_OF_READINGS = (
    *("accelerometer_landing", "accelerometer_trusted", "step_trainer_landing", "step_trainer_trusted"),
    "machine_learning_curated",
)


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("slate"))


def proof(lake: Lake, now: int = NOW, **options: Any) -> Proof:
    with DuckDB(memory="200MB", threads=1, temporary=lake.root / "tmp" / "proof") as engine:
        return prove(lake.catalog, lake.key(), engine, now=instant(now), policy=policy(lake.config), **options)


def holds(lake: Lake, now: int = NOW) -> Proof:
    found = proof(lake, now)
    assert findings(found) == set()
    assert [account for account in found.accounts if account.open] == []
    return found


def test_a_lake_in_which_every_rule_decides_something_holds(people: Lake) -> None:
    found = holds(people)
    assert found.due == ()
    lines = {account.table: dict(account.lines) for account in found.accounts}
    assert lines == {
        "landed_files": {
            "records in the delivered files": 56,
            "in quarantine": -2,
            "of erased customers": 0,
            "records landed": 54,
        },
        "customers_trusted": {
            "records landed": 10,
            "superseded by a later record": -2,
            "no consent": -3,
            "customers": 5,
        },
        "accelerometer_trusted": {
            "readings landed": 25,
            "no customer record": -1,
            "no consent": -9,
            "before consent": -1,
            "delivered again": -3,
            "readings": 11,
        },
        "customers_curated": {
            "customers_trusted": 5,
            "no accelerometer reading that counts": -1,
            "customers": 4,
        },
        "step_trainer_trusted": {
            "readings landed": 19,
            "no customer record": -1,
            "withheld": -1,
            "of an erased customer": 0,
            "no consent": -6,
            "owner not curated": -1,
            "before consent": -1,
            "delivered again": -2,
            "readings": 7,
        },
        "machine_learning_curated": {
            "step_trainer_trusted": 7,
            "no accelerometer reading at that moment": -1,
            "further accelerometer readings at that moment": 2,
            "training rows": 8,
        },
    }


@pytest.mark.parametrize("mutant", (MUTANTS | HIDING).values(), ids=list(MUTANTS | HIDING))
@pytest.mark.sample(quick=8)
def test_a_broken_rule_is_found_and_no_other_is_accused(people: Lake, mutant: Mutant) -> None:
    proof_mutants.commit(people, mutant)
    assert findings(proof(people)) == mutant.findings


SUMMED = {name: mutant for name, mutant in (MUTANTS | HIDING).items() if NIGHTLY or mutant.table in _OF_READINGS}
"""Mutants of tables that C sums; the others are found in the same way, however large a table is."""


@pytest.mark.parametrize("mutant", SUMMED.values(), ids=list(SUMMED))
@pytest.mark.sample(quick=8)
def test_what_is_wrong_is_found_by_the_sums_of_large_tables(
    people: Lake, mutant: Mutant, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_sums, "MANY", 0)
    proof_mutants.commit(people, mutant)
    assert findings(proof(people)) == mutant.findings


@pytest.mark.skipif(row_sums.library() is None, reason="no compiler")
def test_all_large_tables_are_summed_in_c(people: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(column_sums, "MANY", 0)
    done = dict[str, bool]()

    def noted(name: str) -> Callable[..., bool]:
        summed = getattr(ColumnSums, name)

        def of(self: ColumnSums, view: str, *given: Any) -> bool:
            done[view] = summed(self, view, *given)
            return done[view]

        return of

    for name in ("of_distinct", "of_texts", "of_join"):
        monkeypatch.setattr(ColumnSums, name, noted(name))
    assert findings(proof(people)) == set()
    views = ("motions_landed", "motions_summed", "steps_landed", "steps_summed", "training_joined", "training_summed")
    assert done == dict.fromkeys(views, True)


def test_sums_of_hashes_lose_nothing_that_is_carried_and_tell_places_apart(tmp_path: Path) -> None:
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path) as engine:
        [(wide,)] = engine.rows("select sum(18446744073709551615::ubigint) from range(3)")
        assert wide == 3 * (2**64 - 1)
        rows = (("a", "b"), ("c", "d"), ("a", "d"), ("c", "b"))
        for one, other, crossed, back in zip(*map(engine.hashes, rows), strict=True):
            same = f"{one}::hugeint + {other} = {crossed}::hugeint + {back}"
            every = "from range(30) as a (a), range(30) as b (b), range(30) as c (c), range(30) as d (d)"
            assert engine.rows(f"select count(*) {every} where a <> c and b <> d and {same}") == [(0,)]


def test_every_check_is_broken_by_a_mutant(people: Lake) -> None:
    assert {check.name for check in proof(people).checks} == {name for m in MUTANTS.values() for name in m.expected}
    assert {mutant.table for mutant in MUTANTS.values()} >= set(BELOW_LANDING)


def test_text_in_a_column_that_the_schema_does_not_know_is_searched(people: Lake) -> None:
    table = "machine_learning_curated"
    current = people.catalog.table(table).current
    assert current is not None
    path = people.catalog.folder(table) / "data" / "more.parquet"
    ids = ", ".join(f'"{c.name}": {n}' for n, c in enumerate([*COLUMNS[table]], start=1))
    [old, *_] = people.catalog.files(people.catalog.table(table))
    duckdb.sql(
        f"copy (select *, 'write to bob@x.example' as note from '{old.path}' limit 0) "
        f"to '{path}' (format parquet, field_ids {{{ids}, note: 99}})"
    )
    assert findings(proof(people)) == set()
    lineage = {name: value for name, value in current.summary.items() if name.startswith("stedi.")}
    people.catalog.append(table, [DataFile(str(path), 0, path.stat().st_size)], lineage)
    assert findings(proof(people)) == set()
    duckdb.sql(
        f"copy (select *, 'write to bob@x.example' as note from '{old.path}' limit 1) "
        f"to '{path.with_name('again.parquet')}' (format parquet, field_ids {{{ids}, note: 99}})"
    )
    again = path.with_name("again.parquet")
    people.catalog.append(table, [DataFile(str(again), 1, again.stat().st_size)], lineage)
    assert findings(proof(people)) == {("identifiers", table), ("distinct", table)}


@pytest.mark.parametrize("zone", ["Pacific/Auckland", "America/Anchorage"])
def test_the_machines_time_zone_changes_nothing(people: Lake, monkeypatch: pytest.MonkeyPatch, zone: str) -> None:
    before = proof(people)
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        assert proof(people) == before
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("column", "value", "rows"),
    [
        ("note", "'write to Bob@x.example now'", 1),
        ("note", "'  ADA of the\u00a0Lake'", 0),
        ("note", "'  ADA of the Lake '", 1),
        ("tel", "'+49 151 bob'", 1),
        ("born", "'1990-02-03'", 1),
        ("born", "date '1990-02-03'", 0),
        ("device", "'DEV-3'", 1),
        ("raw", "'cyd@x.example'::blob", 1),
        ("many", "['dot@x.example', 'x']", 1),
        ("many", "{'who': 'dot@x.example'}", 1),
        ("more", "'nothing of note'", 0),
        ("more", "7", 0),
    ],
)
def test_values_are_searched_whatever_their_column_is(
    people: Lake, tmp_path: Path, column: str, value: str, rows: int
) -> None:
    """In the only file of a table: columns beyond the schema are seen, and values that are no text are not."""
    with DuckDB(memory="200MB", threads=1, temporary=tmp_path / "spill") as engine:
        for name, state in people.catalog.tables().items():
            if name.endswith("landing"):
                engine.bind_files(name, people.catalog.files(state))
        path = tmp_path / "one.parquet"
        engine.rows(f"copy (select {value} as {column}) to '{path}' (format parquet)")
        files = [DataFile(str(path), 1, path.stat().st_size)]
        expected.customers(engine, people.key(), AsOf({}, instant(NOW), False))
        violations.identifying(engine)
        violations.search(engine, "machine_learning_curated", files)
        assert violations.identifiers(engine, "machine_learning_curated") == rows


def test_landings_that_wait_for_a_build_break_nothing(people: Lake, tmp_path: Path) -> None:
    deliver(tmp_path, "customer", [customer("ada@x.example", ..., update=200), customer("new@x.example")])
    deliver(tmp_path, "accelerometer", [motion("fay@x.example", 100)])
    people.land(tmp_path)
    found = holds(people)
    assert set(found.due) == set(BELOW_LANDING)
    build(people, NOW)
    assert holds(people).due == ()


def test_withdrawals_by_command_are_landed_records_like_others(people: Lake) -> None:
    people.withdraw(["Bob@X.example", "nobody@x.example"])
    assert "customers_trusted" in holds(people).due
    build(people, NOW)
    found = holds(people)
    assert found.due == ()
    [account] = [account for account in found.accounts if account.table == "customers_trusted"]
    assert dict(account.lines) == {
        "records landed": 12,
        "superseded by a later record": -3,
        "no consent": -5,
        "customers": 4,
    }


def test_a_consent_date_that_has_come_makes_a_build_due(people: Lake) -> None:
    assert "customers_trusted" in proof(people, NOW + 1).due
    build(people, NOW + 1)
    assert (
        dict(next(a for a in holds(people, NOW + 1).accounts if a.table == "customers_trusted").lines)["customers"] == 6
    )


@pytest.mark.parametrize("published", range(1, 5) if NIGHTLY else (1, 3))
def test_a_build_that_died_while_it_published_leaves_tables_that_hold(
    people: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, published: int
) -> None:
    deliver(tmp_path, "customer", [customer("ada@x.example", ..., serialNumber="dev-2", update=200)])
    deliver(tmp_path, "accelerometer", [motion("fay@x.example", 100)])
    people.land(tmp_path)
    publish, done = Catalog.publish, list[str]()

    def dies(catalog: Catalog, table: str, **options: Any) -> None:
        if len(done) == published:
            raise KeyboardInterrupt
        publish(catalog, table, **options)
        done.append(table)

    with monkeypatch.context() as patch:
        publish_each(patch)
        patch.setattr(Catalog, "publish", dies)
        with pytest.raises(KeyboardInterrupt):
            build(people, NOW)
    assert holds(people).due
    build(people, NOW)
    assert holds(people).due == ()


@pytest.mark.parametrize("committed", range(4) if NIGHTLY else (1, 3))
def test_a_landing_that_is_half_committed_is_left_out_of_account(
    people: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, committed: int
) -> None:
    deliver(tmp_path, "customer", [customer("new@x.example"), {"email": "new@x.example"}])
    deliver(tmp_path, "accelerometer", [motion("new@x.example", 100)])
    append, done = Catalog.append, list[str]()

    def dies(catalog: Catalog, table: str, *rest: Any, **named: Any) -> int | None:
        if len(done) == committed:
            raise KeyboardInterrupt
        done.append(table)
        return append(catalog, table, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            people.land(tmp_path)
    assert findings(people.prove()) == set()
    people.land(tmp_path)
    assert findings(people.prove()) == set()


def test_a_lake_that_was_never_built_holds(lake: Lake, tmp_path: Path) -> None:
    found = holds(lake)
    assert set(found.due) == set(BELOW_LANDING)
    deliver(tmp_path / "in", "customer", [customer()])
    lake.land(tmp_path / "in")
    assert [account.table for account in holds(lake).accounts] == ["landed_files"]


def test_further_claimants_make_a_device_shared(people: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever else claims dev-1 never moves: Ada keeps the steps at moments of her own, and no others."""
    found = proof(people, further_claimants=lambda serial: int(serial == "dev-1"))
    assert findings(found) == {("withheld", "step_trainer_trusted")}
    assert [check.rows for check in found.checks if check.violations] == [1]
    with monkeypatch.context() as patch:
        patch.setattr(Context, "further_claimants", lambda lake, key: lambda serial: int(serial == "dev-1"))
        assert findings(people.prove()) == findings(found)
        with pytest.raises(AuditFailed, match="withheld of step_trainer_trusted"):
            people.rotate_key(tmp_path / "new.key")
    assert not (tmp_path / "new.key").exists()
    # a device that was only theirs has no owner any more
    found = proof(people, further_claimants=lambda serial: int(serial == "stray"))
    assert findings(found) == set()
    [account] = [account for account in found.accounts if account.table == "step_trainer_trusted"]
    assert dict(account.lines)["of an erased customer"] == -1


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(
    world=worlds.worlds(),
    later=worlds.worlds(people=3, readings=4),
    readings=st.sampled_from(["all", "since-consent"]),
    rng=st.randoms(use_true_random=False),
)
def test_random_worlds_hold_whatever_was_built_when(
    slate: Slate, world: Any, later: Any, readings: Readings, rng: Random
) -> None:
    lake = slate.wiped(readings)
    lake.context.config = replace(lake.config, engine_threads=1)
    lake.land(*worlds.write_world(world, slate.inbox() / "first", rng))
    build(lake, worlds.NOW)
    lake.land(*worlds.write_world(later, slate.inbox() / "second", rng))
    holds(lake, worlds.NOW)  # by what they were built from
    build(lake, worlds.NOW + 1)
    assert holds(lake, worlds.NOW + 1).due == ()


def test_the_sample_holds_and_maintenance_changes_nothing(lake: Lake, sample_inbox: Path) -> None:
    lake.land(sample_inbox)
    lake.build()
    before = lake.prove()
    assert findings(before) == set()
    lake.context.config = replace(lake.config, keep_days=0.0, keep_snapshots=1, grace_hours=0.0)
    lake.maintain()
    after = lake.prove()
    assert (findings(after), after.accounts, after.due) == (set(), before.accounts, ())


@pytest.mark.parametrize("readings", ["all", "since-consent"])
def test_the_public_data_hold(slate: Slate, public_data: Path, readings: Readings) -> None:
    lake = slate.wiped(readings)
    lake.land(public_data)
    lake.build()
    found = lake.prove()
    assert findings(found) == set()
    lines = {account.table: dict(account.lines) for account in found.accounts}
    assert lines["machine_learning_curated"]["training rows"] == (40_981 if readings == "all" else 32_025)
    assert not any(account.open for account in found.accounts)


def test_the_command_shows_accounts_and_names_what_is_broken(people: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--lake", str(people.root), "audit"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "further accelerometer readings at that moment" in out
    proof_mutants.commit(people, MUTANTS["one person's step with another's motion"])
    assert cli.main(words) == 3
    out, err = capsys.readouterr()
    assert "one person: machine_learning_curated: expected no violations, found 1" in out
    assert cli.main([*words, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["holds"], document["proved"]) == (False, True)
    broken = [check for check in document["checks"] if check["violations"]]
    assert broken == [{"name": "one person", "table": "machine_learning_curated", "violations": 1}]
    assert {account["table"] for account in document["accounts"]} == {"landed_files", *BELOW_LANDING}
    assert all(set(line) == {"what", "rows"} for account in document["accounts"] for line in account["lines"])
    shown = out + err + json.dumps(document)
    assert not [word for word in ("@x.example", "dev-1", *proof_mutants.IDS.values()) if word in shown]


def test_the_proof_leaves_nothing_behind(people: Lake, new_files: Callable[[Path], set[Path]]) -> None:
    people.prove()
    assert new_files(people.root) == set()


@pytest.fixture
def new_files(people: Lake) -> Callable[[Path], set[Path]]:
    before = {path for path in people.root.rglob("*") if path.is_file()}
    return lambda root: {path for path in root.rglob("*") if path.is_file()} - before
