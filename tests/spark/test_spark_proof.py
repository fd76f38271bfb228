"""The proof of consent on Spark: the very same findings as in DuckDB, and nothing but counts comes back."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import proof_mutants
import worlds
from deliveries import instant
from effort import NIGHTLY, at_night
from lakes import Slate, build
from proof_mutants import HIDING, MUTANTS, NOW
from stedi import cli
from stedi.audit.proof import Proof, prove
from stedi.audit.proof.as_of import FEEDS
from stedi.engines import Engine, column_sums, row_sums
from stedi.engines.duckdb import DuckDB
from stedi.engines.spark import SparkEngine
from stedi.engines.spark.dialect import to_spark
from stedi.lake import Lake
from stedi.privacy import tombstones
from stedi.privacy.tombstones import Tombstones
from stedi.schema.roles import Readings
from stedi.schema.tables import DataFile
from stedi.transform import policy

TOGETHER = {
    "rows that must not be": [n for n, m in MUTANTS.items() if not {"conservation", "watermarks"} & {*m.expected}],
    "rows that are missing": [n for n, m in MUTANTS.items() if "conservation" in m.expected],
    "lineage that is not": [n for n, m in MUTANTS.items() if "watermarks" in m.expected],
}
"""All mutants, in groups within which none hides what another breaks."""
COMMANDED = "rows that are missing"
"""What the command is to find; the rest is proved from Python."""
LINEAGE = "lineage that is not"
"""What snapshots say of themselves decides it, not an engine: by day `test_proof.py` breaks it, for DuckDB."""
PROVED = {what: names for what, names in TOGETHER.items() if what not in (COMMANDED, LINEAGE)}
if NIGHTLY:
    PROVED |= {LINEAGE: TOGETHER[LINEAGE]} | {name: [name] for name in MUTANTS}  # each alone, too
READINGS = ("accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated")
HANDED_OVER = {
    *FEEDS,
    "quarantine",
    *("landed", "withheld", "owner", "curated", "before consent", "distinct"),
    *("no customer record", "of an erased customer", "no consent", "owner not curated", "delivered again"),
}
"""The texts that may come back: names of tables, and of what readings were found to be."""

pytestmark = [
    # PySpark leaves the sockets of its answers to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("slate"))


def proved(lake: Lake, engine: Engine, now: int = NOW, **options: Any) -> Proof:
    return prove(lake.catalog, lake.key(), engine, now=instant(now), policy=policy(lake.config), **options)


def by_duckdb(lake: Lake, now: int = NOW, **options: Any) -> Proof:
    with DuckDB(memory="200MB", threads=1, temporary=lake.root / "tmp" / "proof") as engine:
        return proved(lake, engine, now, **options)


def by_spark(lake: Lake, now: int = NOW, **options: Any) -> Proof:
    with SparkEngine(lake.root / "tmp" / "proof", lake=lake.root) as engine:
        return proved(lake, engine, now, **options)


def test_spark_proves_what_duckdb_proves_and_gets_nothing_but_counts(
    spark: Any, spark_events: Path, people: Lake, collected: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    [log] = [path for path in spark_events.iterdir() if path.is_file() and not path.name.endswith(".crc")]
    before = log.stat().st_size
    erased = Tombstones(claims={tombstones.serial(people.key(), "stray"): ("somebody",)})
    further = partial(erased.claimants, people.key())
    found = by_spark(people, further_claimants=further)
    assert found == by_duckdb(people, further_claimants=further)
    assert proof_mutants.findings(found) == set()
    assert len(collected) > 50
    assert {value for value in collected if not isinstance(value, int)} <= HANDED_OVER
    shown = log.read_text("utf-8")[before:] + "".join(capfd.readouterr())
    assert "MapInArrow" in shown
    for word in (
        "x.example",
        "of the lake",
        "+49 151",
        "dev-1",
        people.key().secret.hex(),
        *proof_mutants.IDS.values(),
    ):
        assert word not in shown


@pytest.mark.parametrize("many", [column_sums.MANY, 0], ids=["summed by Spark", "summed in C"])
@pytest.mark.parametrize("names", PROVED.values(), ids=list(PROVED))
def test_spark_finds_all_broken_rules_that_duckdb_finds(
    spark: Any, people: Lake, monkeypatch: pytest.MonkeyPatch, names: list[str], many: int
) -> None:
    monkeypatch.setattr(column_sums, "MANY", many)
    for name in names:
        proof_mutants.commit(people, MUTANTS[name])
    found = by_spark(people)
    assert found == by_duckdb(people)
    assert proof_mutants.findings(found) == {finding for name in names for finding in MUTANTS[name].findings}


@pytest.fixture
def inserted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the rows that sessions of Spark are given, which are what C has summed."""
    names, insert = list[str](), SparkEngine.insert_rows

    def noted(self: SparkEngine, name: str, columns: Any, rows: Any) -> None:
        some = list(rows)
        insert(self, name, columns, some)
        names.extend([name] if some else [])

    monkeypatch.setattr(SparkEngine, "insert_rows", noted)
    return names


@pytest.mark.skipif(row_sums.library() is None, reason="no compiler")
def test_a_spark_on_this_machine_leaves_the_sums_of_large_tables_to_c(
    spark: Any, people: Lake, monkeypatch: pytest.MonkeyPatch, inserted: list[str]
) -> None:
    by_spark(people)
    assert not inserted
    monkeypatch.setattr(column_sums, "MANY", 0)
    found = by_spark(people)
    assert proof_mutants.findings(found) == set()
    assert found == by_duckdb(people)
    landed, published = {"motions_landed", "steps_landed"}, {"motions_summed", "steps_summed", "training_summed"}
    assert set(inserted) == {*landed, *published, "training_joined"}


def test_a_cluster_sums_large_tables_itself(
    spark: Any, people: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(column_sums, "MANY", 0)
    monkeypatch.setattr(row_sums, "library", lambda: True)
    here, bucket = DataFile(str(tmp_path / "a.parquet"), 1, 1), DataFile("s3://bucket/a.parquet", 1, 1)
    with SparkEngine(tmp_path / "session", spark) as engine:
        for file in (here, bucket):
            engine.bind_files("accelerometer_landing", [file])
            assert (engine.column_sums("accelerometer_landing") is None) == (file == bucket)
        engine.bind_files("accelerometer_landing", [here])
        monkeypatch.setattr(spark.sparkContext, "master", "yarn")
        assert engine.column_sums("accelerometer_landing") is None


def test_rules_broken_in_tables_that_are_not_small_are_found(
    spark: Any, people: Lake, monkeypatch: pytest.MonkeyPatch, inserted: list[str]
) -> None:
    monkeypatch.setattr("stedi.engines.spark.engine._SMALL", 0)
    monkeypatch.setattr(column_sums, "MANY", 0)
    names = TOGETHER["rows that must not be"]
    for name in names:
        proof_mutants.commit(people, MUTANTS[name])
    assert proof_mutants.findings(by_spark(people)) == {found for name in names for found in MUTANTS[name].findings}
    assert not set(inserted) & {"motions_landed", "steps_landed", "training_joined"}, "too many groups for one process"


@at_night  # by day `test_proof.py` on DuckDB, with the same SQL, and the next test for the sums of Spark
def test_what_hides_from_sums_does_not_hide_from_those_of_spark(spark: Any, people: Lake) -> None:
    names = [next(name for name, mutant in HIDING.items() if mutant.table == table) for table in READINGS]
    for name in names:
        proof_mutants.commit(people, HIDING[name])
    found = by_spark(people)
    assert found == by_duckdb(people)
    assert proof_mutants.findings(found) == {finding for name in names for finding in HIDING[name].findings}


@pytest.mark.parametrize("number", [0, 1], ids=["one hash", "the other"])
def test_values_that_change_places_change_the_sums_of_hashes(spark: Any, tmp_path: Path, number: int) -> None:
    """What the proof compares: rows with the same count and the same sums of each column, and of another order."""
    with SparkEngine(tmp_path / "session") as engine:
        hashed = engine.hashes(("who", "x", "y"))[number]

        def total(rows: str) -> Any:
            [(found,)] = engine.rows(f"select hash_sum({hashed}) from (values {rows}) as t (who, x, y)")
            return found

        right = total("('a', 1, 2), ('b', 3, 4), ('b', 3, 4)")
        assert right == total("('b', 3, 4), ('a', 1, 2), ('b', 3, 4)")
        for wrong in (
            "('a', 2, 1), ('b', 3, 4), ('b', 3, 4)",  # two axes of a row
            "('a', 3, 2), ('b', 1, 4), ('b', 3, 4)",  # two people's values
            "('b', 1, 2), ('a', 3, 4), ('b', 3, 4)",  # two people's rows
            "('a', 1, 2), ('a', 1, 2), ('b', 5, 6)",  # a row in another's place
        ):
            assert total(wrong) != right


def test_each_session_of_spark_hashes_in_its_own_way(spark: Any, tmp_path: Path) -> None:
    found = [*SparkEngine(tmp_path, spark).hashes(("a", "b")), *SparkEngine(tmp_path, spark).hashes(("a", "b"))]
    assert len(set(found)) == 4


def test_every_mutant_is_in_a_group() -> None:
    assert sorted(name for names in TOGETHER.values() for name in names) == sorted(MUTANTS)


def test_every_statement_of_the_proof_has_constructs_that_both_engines_know(
    people: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB runs what Spark would, each statement translated on its way; over a lake in which rules are broken."""
    seen: set[str] = set()
    within: list[bool] = []

    def watched(name: str, place: int | None) -> None:
        method: Callable[..., Any] = getattr(DuckDB, name)

        def translating(self: DuckDB, *given: Any, **named: Any) -> Any:
            if within:  # what DuckDB asks of itself is its own affair
                return method(self, *given, **named)
            if place is not None:
                seen.add(to_spark(given[place]))
            within.append(True)
            try:
                return method(self, *given, **named)
            finally:
                within.pop()

        monkeypatch.setattr(DuckDB, name, translating)

    for name in ("materialize", "view", "map_rows"):
        watched(name, 1)
    watched("rows", 0)
    for name in ("bind_files", "text_values"):
        watched(name, None)
    for mutant in TOGETHER["rows that must not be"]:
        proof_mutants.commit(people, MUTANTS[mutant])
    seen.clear()
    by_duckdb(people)
    assert len(seen) > 50


def test_executors_read_every_text_that_duckdb_reads(spark: Any, tmp_path: Path) -> None:
    """Columns beyond the schema, and of other files' types; pseudonyms stay where they are."""
    files = []
    for number, columns in enumerate(
        (
            "'write to Bob@x.example' as note, 7 as n, date '1990-02-03' as born, 'a@x.example'::blob as raw",
            "['dot@x.example', 'x'] as many, {'who': 'eve@x.example'} as one, null::varchar as note, 1.5 as n",
            "unnest(['0123456789abcdef0123456789abcdef', 'x', 'x', 'X\n']) as note, timestamp '2020-01-01' as at",
        )
    ):
        path = tmp_path / f"{number}.parquet"
        duckdb.sql(f"copy (select {columns}) to '{path}' (format parquet)")
        files.append(DataFile(str(path), 1, path.stat().st_size))
    found = []
    for engine in (
        DuckDB(memory="200MB", threads=1, temporary=tmp_path / "duckdb"),
        SparkEngine(tmp_path / "spark"),
    ):
        with engine as session:
            session.text_values("texts", files, but="[0-9a-f]{32}")
            found.append(sorted(session.rows("select field, value, sum(n) as n from texts group by field, value")))
            session.text_values("texts", [], but="x")
            assert session.rows("select count(*) from texts") == [(0,)]
    assert found[0] == found[1]
    assert ("note", "x", 2) in found[0]
    assert {field for field, _, _ in found[0]} >= {"note", "raw", "many", "one"}
    assert not {field for field, _, _ in found[0]} & {"n", "born"}
    assert not [value for _, value, _ in found[0] if value.startswith("0123456789abcdef")]


@at_night
@settings(max_examples=30, suppress_health_check=list(HealthCheck))
@given(
    world=worlds.worlds(),
    later=worlds.worlds(people=3, readings=4),
    readings=st.sampled_from(["all", "since-consent"]),
    rng=st.randoms(use_true_random=False),
)
def test_random_worlds_are_proved_alike(
    spark: Any, slate: Slate, world: Any, later: Any, readings: Readings, rng: Random
) -> None:
    lake = slate.wiped(readings)
    lake.land(*worlds.write_world(world, slate.inbox() / "first", rng))
    build(lake, worlds.NOW)
    lake.land(*worlds.write_world(later, slate.inbox() / "second", rng))
    found = by_spark(lake, worlds.NOW)
    assert found == by_duckdb(lake, worlds.NOW)
    assert proof_mutants.findings(found) == set()


@at_night
def test_the_public_data_hold_on_spark(spark: Any, tmp_path: Path, public_data: Path) -> None:
    lake = Lake.create(tmp_path / "lake", readings="since-consent")
    lake.land(public_data)
    lake.build()
    found = lake.prove(engine="spark")
    assert found == lake.prove()
    assert proof_mutants.findings(found) == set()
    [account] = [account for account in found.accounts if account.table == "machine_learning_curated"]
    assert dict(account.lines)["training rows"] == 32_025
    assert not list((lake.root / "tmp").glob("work-*"))


def test_the_command_says_the_same_with_either_engine(
    spark: Any, people: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in TOGETHER[COMMANDED]:
        proof_mutants.commit(people, MUTANTS[name])
    words = ["--lake", str(people.root), "audit", "--json"]
    said = []
    for more in ([], ["--engine", "spark"]):
        assert cli.main([*words, *more]) == 3
        said.append(json.loads(capsys.readouterr().out))
    assert said[0] == said[1]
    broken = {(check["name"], check["table"]) for check in said[1]["checks"] if check["violations"]}
    assert broken == {finding for name in TOGETHER[COMMANDED] for finding in MUTANTS[name].findings}
