"""The Spark engine: what it shares with DuckDB, what it must not show, and what becomes of a build that fails."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import groupby, pairwise
from pathlib import Path
from threading import Event
from typing import Any, cast
from unittest.mock import MagicMock

import pytest

import law
import law_machine
import quick
import sparks
from deliveries import customer, deliver, motion, step
from effort import at_night
from lakes import BELOW_LANDING, KEY, REPOSITORY, Slate, build, contents, heads
from stedi import cli
from stedi.catalog import checksums
from stedi.engines import column_sums, row_sums
from stedi.engines.duckdb import DuckDB
from stedi.engines.spark import SparkEngine, session
from stedi.engines.spark.dialect import in_parts, to_spark
from stedi.engines.spark.session import _ALWAYS, _LATER, JARS, _flags, catalog_settings
from stedi.errors import AuditFailed, LakeError, MissingExtra
from stedi.lake import Lake
from stedi.privacy.pseudonyms import Key
from stedi.schema import tables
from stedi.schema.tables import COLUMNS
from stedi.transform import Build, checks

FIGURES = {
    "customers_trusted": 482,
    "accelerometer_trusted": 40_981,
    "customers_curated": 482,
    "step_trainer_trusted": 14_460,
    "machine_learning_curated": 40_981,
}
"""Rows of each table on the public data of 2023."""
ALIKE = (
    "select b, case when regexp_matches(b, '^[0-9]{4}-[0-9]{2}-[0-9]{2}$') and b > '0001' then try_cast(b as date) "
    "end as d from (values ('2020-01-01'), ('2020-02-30'), ('0000-01-01'), ('2020-1-1'), (' 2020-01-01'), "
    "('2020-01-01 '), ('2020-01-01\n'), (null)) as t (b)",
    "select epoch_ms(instant(a::bigint)) as ms from (values ('1'), ('999'), ('1655564444103'), ('253402300799999')) "
    "as t (a)",
    "select a from (values (1), (2), (null)) as t (a) except select b from (values (2), (null)) as u (b)",
    "select a from (values (1), (2)) as t (a) where a not in (select b from (values (2), (null)) as u (b))",
    "select a from (values (1), (2)) as t (a) where (a, a + 1) in (select b, c from (values (1, 2)) as u (b, c))",
    "select count(distinct hash(a, b)) as n from (values (1, 'x'), (1, 'x'), (2, null), (2, null)) as t (a, b)",
    "select k, v from (values ('a', 1), ('b', null), ('a', 3)) as t (k, v) "
    "qualify row_number() over (partition by k order by v desc nulls last) = 1",
    "select row_number() over (order by v) as n, v from (values ('b'), ('B'), ('é'), ('a'), (null)) as t (v)",
    "select max(a) filter (where a < 3) as m, min(a) as l, count(*) as n from (values (1), (2), (3)) as t (a)",
    "select a + 0 as a from (values (-0.0::double), (1.5::double)) as t (a)",
    "select coalesce(a <= 5, false) as c from (values (1), (9), (null)) as t (a)",
    "select count(*) as n from (values (1)) as t (a) having count(*) <> 1",
    "select null::bigint as a, null::varchar as b where false",
    "select a, count(*) filter (where a is distinct from b or not a is distinct from null) as n from (values (1, 1), "
    "(1, 2), (null, 1), (null, null)) as t (a, b) group by all",
    "select epoch_us(instant(a)) is distinct from a * 1000 as d, abs(a - 1000) * -2 as e "
    "from (values (1), (null)) as t (a)",
    "select epoch_us(instant(253402300799999)) as a, epoch_us(null::timestamptz) as b",
    "select k, r.b as b, case when r.has_a then r.a end as a from (select k, max(struct_pack(has_a := a is not null, "
    "a := coalesce(a, ''), b := b)) as r from (values (1, 'x', 1), (1, 'X', 2), (2, null, 3), (3, 'é', 4), "
    "(3, 'f', 5), (4, 'a', 6), (4, 'ab', 7), (4, '', 8)) as t (k, a, b) group by k) as s",
    "select k, bool_or(v) as v, sum(n)::integer as s from (values (1, true, 1), (1, null, 2), (2, null, null), "
    "(3, false, 4)) as t (k, v, n) group by all having sum(n) <> 7",
    "select count(distinct n) as n, count(*) as m, count(n) as o from (select number(a) as n from (values ('b'), "
    "('a'), ('b'), ('B')) as t (a)) as u",
    "select a, a in (1, b) as i from (values (1, 2), (2, 2), (3, null), (null, 1)) as t (a, b)",
    "select a from (values ('x'), ('y'), ('z')) as t (a) where a = 'z' or a in (select b from (values ('x')) as u (b))",
    "select coalesce(t.a, u.b) as c, t.a is null as d from (values (1), (2), (null)) as t (a) full join "
    "(values (2), (3), (null)) as u (b) on t.a = u.b",
    "select (select count(*) from (values (1)) as t (a)) as n, (select sum(a) from (values (1)) as t (a)) as s",
    "select x, y, count(*) as n from (values (0.0::double, 1), (-0.0::double, 1), ('nan'::double, 1), "
    "('nan'::double, 1)) as t (x, y) group by all",
    "select sum(a) filter (where a > 9) as s, coalesce(sum(a) filter (where a > 9), 0) as c from (values (1)) as t (a)",
    "select a, l, p from (select 1 as a, 1 as l, null as p union all select 2, 0, 'b') as t",
    "select k, hash_sum(a)::varchar as s from (values (1, 9223372036854775807), (1, 9223372036854775807), "
    "(1, 9223372036854775806), (2, -9223372036854775807), (2, -9223372036854775806), (2, -1), (2, 5), (3, null), "
    "(4, 4294967296), (4, -4294967297)) as t (k, a) group by k",
)
"""Constructs whose translations have been wrong somewhere, or could be."""


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("spark"))


@pytest.fixture(scope="module")
def built(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake that Spark has built, with plans that adapt as users' do; for reading only."""
    lake = small(Slate(tmp_path_factory.mktemp("built")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(_ALWAYS, "spark.sql.adaptive.enabled", "true")
        build(lake, 1_000, engine="spark")
    return lake


class SampleBuiltBySpark:
    """The sample as Spark builds it, in many small files; each use begins with it as it was."""

    def __init__(self, slate: Slate, inbox: Path) -> None:
        self.collected: list[Any] = []
        self._slate, self._inbox = slate, inbox

    def lake(self) -> Lake:
        return self._slate.made(self._make)

    def _make(self, lake: Lake, inbox: Path) -> None:
        lake.land(self._inbox)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("stedi.engines.spark.engine._LEAST", 50)
            self.collected = sparks.collecting(patch)
            build(lake, engine="spark")


@pytest.fixture(scope="module")
def sample_built(spark: Any, slate: Slate, sample_inbox: Path) -> SampleBuiltBySpark:
    return SampleBuiltBySpark(slate, sample_inbox)


@pytest.fixture(scope="module")
def engine(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SparkEngine]:
    """One session for every test of statements: a new one plans its first statement for a quarter of a second."""
    with SparkEngine(tmp_path_factory.mktemp("session")) as made:
        yield made


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDB]:
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path_factory.mktemp("duckdb")) as made:
        yield made


def small(slate: Slate, *, consents: bool = True) -> Lake:
    """A lake of two customers, the second of whom never agreed."""
    lake, inbox = slate.wiped(), slate.inbox()
    people = [customer(consent=50 if consents else None), customer("b@x.example", ..., serialNumber="s2")]
    deliver(inbox, "customer", people)
    deliver(inbox, "accelerometer", [motion(), motion("b@x.example"), motion(at=101)])
    deliver(inbox, "step_trainer", [step(), step("s2")])
    lake.land(inbox)
    return lake


# without Spark


def test_without_java_pyspark_or_jars_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyspark", None)
        with pytest.raises(
            MissingExtra, match=r"Spark needs PySpark, which is not installed: pip install 'stedi\[spark\]'"
        ):
            session()
    monkeypatch.setenv(JARS, str(tmp_path / "absent.jar"))
    with pytest.raises(MissingExtra, match=r"STEDI_SPARK_JARS: expected paths of jars, found no file at .*absent"):
        sparks.jars(sparks.ICEBERG)


@pytest.mark.parametrize(
    ("given", "brief", "flags"),
    [
        ("", False, ["-XX:+UseParallelGC", *_LATER]),
        ("", True, ["-XX:+UseParallelGC", "-XX:TieredStopAtLevel=1"]),
        ("-XX:+UseSerialGC -Da=b", True, ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Da=b"]),
        ("-XX:-TieredCompilation", True, ["-XX:+UseParallelGC", "-XX:-TieredCompilation"]),
        ("-XX:Tier4LoadFeedback=9", False, ["-XX:+UseParallelGC", "-XX:Tier4LoadFeedback=9"]),
    ],
)
def test_java_has_the_flags_that_it_is_given_and_those_that_suit_the_work(
    monkeypatch: pytest.MonkeyPatch, given: str, brief: bool, flags: list[str]
) -> None:
    for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"):
        monkeypatch.delenv(name, raising=False)
    assert _flags(given, brief) == flags
    monkeypatch.setenv("JAVA_TOOL_OPTIONS", "-XX:+UseSerialGC -XX:TieredStopAtLevel=3")
    assert _flags("", brief) == []


@sparks.needs_spark
@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"JAVA_HOME": "/nowhere"}, "Spark needs Java 17, which was not found"),
        ({JARS: ""}, "Spark needs Iceberg's jar, which was not found"),
    ],
)
def test_a_build_without_what_spark_needs_changes_nothing(slate: Slate, variables: dict[str, str], said: str) -> None:
    lake = small(slate)
    before = heads(lake)
    command = [sys.executable, "-m", "stedi.cli", "--lake", str(lake.root), "build", "--engine", "spark"]
    environment = os.environ | {"JDK_JAVA_OPTIONS": sparks.QUICK_JVM} | variables
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert said in ran.stderr
    assert "Traceback" not in ran.stderr
    assert heads(lake) == before


def test_the_catalog_of_a_lake_in_s3_is_glue_s_and_of_a_folder_its_own_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:2")
    remote, local = catalog_settings("s3://b/p/"), catalog_settings("/lake")
    assert remote["catalog-impl"].endswith("GlueCatalog")
    assert (remote["warehouse"], remote["s3.endpoint"], remote["glue.endpoint"]) == (
        "s3://b/p",
        "http://127.0.0.1:2",
        "http://127.0.0.1:1",
    )
    assert local["uri"].startswith("jdbc:sqlite:/lake/catalog.db")
    assert "s3.endpoint" not in local


def test_the_command_line_knows_both_engines_and_no_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["build", "--engine", "flink"])
    assert left.value.code == 2
    assert "duckdb" in capsys.readouterr().err


# the list of constructs


@pytest.mark.parametrize(
    "select", [*tables.graph().selects.values(), *tables.assertions()], ids=lambda select: select.name
)
def test_every_select_of_the_package_has_known_constructs_only(select: tables.Model) -> None:
    sql = tables.rebind(select.sql, {}, {"readings": "all", "build_started": 1})
    assert "instant(" not in to_spark(sql).lower()


@pytest.mark.parametrize(
    ("sql", "named"),
    [
        ("select list(x order by y) from t", "List|ArrayAgg"),
        ("select * from a asof join b on a.t >= b.t", "ASOF join"),
        ("select quantile_cont(x, 0.5) from t", "PercentileCont|Quantile"),
        ("select time_bucket(interval '1 day', t) from t", "time_bucket|Interval|DateBin"),
        ("select x::hugeint from t", "type"),
        ("select soundex(x) from t", "function soundex|Soundex"),
        ("select * from t using sample 5", "TableSample"),
        ("delete from t", "Delete"),
    ],
)
def test_a_construct_outside_the_list_is_refused_by_name(sql: str, named: str) -> None:
    with pytest.raises(LakeError, match=named):
        to_spark(sql)


def test_every_select_that_builds_make_has_known_constructs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """DuckDB runs what Spark would: the statements of many a history, each translated on its way."""
    seen: set[str] = set()
    building: list[bool] = []

    class Watched(law.RealLake):
        def _build(self, now: int, **options: Any) -> Build:
            building.append(True)
            try:
                return super()._build(now, **options)
            finally:
                building.pop()

    def watched(name: str, *places: int) -> None:
        method: Callable[..., Any] = getattr(DuckDB, name)

        def translating(self: DuckDB, *given: Any, **named: Any) -> Any:
            if not building:
                return method(self, *given, **named)
            seen.update(to_spark(given[place]) for place in places)
            was = building.pop()  # what DuckDB asks of itself is its own affair
            try:
                return method(self, *given, **named)
            finally:
                building.append(was)

        monkeypatch.setattr(DuckDB, name, translating)

    for name in ("materialize", "view", "write", "pseudonymise", "map_rows"):
        watched(name, 1)
    watched("rows", 0)
    watched("files_containing", 3)
    watched("spellings", 1, 2)
    watched("bind_files")
    # DuckDB names the files of a span, Spark the relation
    monkeypatch.setattr(DuckDB, "within", SparkEngine.within)
    with quick.folder() as folder, quick.quickened():
        slate = Slate(folder)
        law_machine.play(lambda: Watched(slate), Key(bytes.fromhex(KEY)), runs=4, random=5, shrink=False)
    assert len(seen) > 100


@pytest.mark.parametrize("sql", ALIKE)
def test_both_engines_give_the_same_rows(engine: SparkEngine, other: DuckDB, sql: str) -> None:
    assert sorted(map(repr, engine.rows(sql))) == sorted(map(repr, other.rows(sql)))


@pytest.mark.parametrize("kind", ["bigint", "varchar", "date", "boolean"])
def test_a_function_is_given_rows_of_any_type_and_may_make_nulls_of_them(engine: SparkEngine, kind: str) -> None:
    rows = "select a, b, null::varchar as c, b > 1 as d from (values ('x', 1), ('y', 2)) as t (a, b)"
    engine.map_rows("made", rows, {"e": kind}, lambda *given: (None,))
    assert sorted(engine.rows("select * from made")) == [("x", 1, None, False, None), ("y", 2, None, True, None)]


# relations


def test_a_name_keeps_its_meaning_in_what_is_made_later(engine: SparkEngine) -> None:
    engine.materialize("some", "select a from (values (1), (2)) as t (a)")
    engine.view("seen", "select a + 10 as a from some")
    engine.materialize("some", "select a + 100 as a from some")
    engine.materialize("both", "with mine as (select a from seen) select a from some union all select a from mine")
    engine.materialize("some", "select a from some where a > 999")
    assert sorted(engine.rows("select a from both")) == [(11,), (12,), (101,), (102,)]
    assert engine.rows("select some.a from some") == []


def test_what_cannot_be_made_fails_where_it_is_read(engine: SparkEngine) -> None:
    engine.materialize("some", "select a::bigint as a from (values ('x')) as t (a)")
    engine.view("seen", "select a from some")
    engine.materialize("other", "select a from (values (1)) as t (a)")
    with pytest.raises(LakeError, match="CAST_INVALID_INPUT"):
        engine.rows("select count(*) from seen")
    assert engine.rows("select a from other") == [(1,)]


def test_the_end_of_a_session_ends_what_it_is_making(spark: Any, tmp_path: Path) -> None:
    begun = tmp_path / "begun"

    def slow(a: int) -> tuple[int]:
        begun.touch()
        time.sleep(600)
        return (a,)

    with SparkEngine(tmp_path / "session", spark) as engine:
        engine.map_rows("some", "select a from (values (1)) as t (a)", {"b": "bigint"}, slow)
        engine.materialize("more", "select a from some")
        while not begun.exists():
            time.sleep(0.01)
    made = engine._relations["some"]
    assert isinstance(made, Future)
    assert isinstance(made.exception(), LakeError)


@sparks.needs_spark
def test_the_end_of_a_session_also_ends_what_spark_begins_meanwhile(tmp_path: Path) -> None:
    spark, planned, ended = MagicMock(), Event(), Event()

    def cancels(tag: str) -> None:
        # the job of the relation starts after the first time, and is there to be cancelled the second
        (ended if planned.is_set() else planned).set()

    def computes(_: object) -> Any:
        assert planned.wait(10)
        assert ended.wait(10)

    spark.sparkContext.cancelJobsWithTag.side_effect = cancels
    with SparkEngine(tmp_path, spark) as engine:
        made = engine._later("some", "", computes)
        engine._relations["some"] = engine._later("some", "", computes)  # the name has another meaning by now
    assert made.result(0) is None


@sparks.needs_spark
def test_a_session_ends_where_spark_has_failed(tmp_path: Path) -> None:
    spark, gone = MagicMock(), Event()

    def fails(tag: str) -> None:
        gone.set()
        raise ConnectionRefusedError

    def computes(_: object) -> Any:
        assert gone.wait(10)
        raise LakeError("Spark failed")

    spark.sparkContext.cancelJobsWithTag.side_effect = fails
    with SparkEngine(tmp_path, spark) as engine:
        made = engine._later("some", "", computes)
    assert isinstance(made.exception(0), LakeError)


@sparks.needs_spark
def test_a_relation_that_waits_for_another_takes_no_thread_and_ends_with_the_session(tmp_path: Path) -> None:
    go = Event()

    def computes(_: object) -> Any:
        assert go.wait(10)

    with SparkEngine(tmp_path, MagicMock()) as engine:
        engine._later("first", "", computes)
        waiting = [engine._later("first", "select a from first", computes) for _ in range(20)]
        assert engine._later("other", "", MagicMock()).result(10)
        assert not any(made.done() for made in waiting)
        go.set()
    assert all(made.done() for made in waiting)


@pytest.mark.parametrize("most", [0, 4])
def test_relations_are_joined_and_numbered_whatever_is_small(
    engine: SparkEngine, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """Of no rows, of a few, which are in one place, and of more, which may not be."""
    monkeypatch.setattr("stedi.engines.spark.engine._SMALL", most)
    engine.materialize("few", "select a from (values ('x'), ('y'), ('x'), ('Z')) as t (a)")
    engine.materialize("none", "select a from few where a = 'w'")
    engine.materialize("many", "select a, n from (values ('x', 1), ('y', 2), ('y', 3), ('z', 4), ('x', 5)) as t (a, n)")
    engine.materialize("numbered", "select a, number(a) as p from few")
    engine.view("joined", "select m.n, f.p from many as m join numbered as f on m.a = f.a")
    found = engine.rows("select p, count(*), hash_sum(n)::varchar from joined group by p")
    first, second = (2, 3) if most else ("x", "y")
    assert sorted(found) == [(first, 4, "12"), (second, 2, "5")]
    assert engine.rows("select count(*) from many as m join none as e on m.a = e.a") == [(0,)]
    sides = engine.rows(
        "select m.n, f.a from few as f full join many as m on m.a = f.a where m.n is null or f.a is null"
    )
    assert sorted(sides, key=repr) == [(4, None), (None, "Z")]


def test_bound_files_are_read_once_while_they_are_few_and_the_same(built: Lake, tmp_path: Path) -> None:
    files = built.catalog.files(built.catalog.tables()["accelerometer_landing"])
    with SparkEngine(tmp_path / "session") as engine:

        def counted() -> int:
            engine.bind_files("accelerometer_landing", files)
            engine.materialize("of_each", 'select "user", count(*) as n from accelerometer_landing group by "user"')
            [(rows,)] = engine.rows("select sum(n)::bigint from of_each")
            return int(rows)

        assert counted() == counted() == sum(file.rows for file in files)
        assert len(list((tmp_path / "session" / "pins" / "bound").iterdir())) == 1
        files = ()
        assert engine.rows("select count(*) from accelerometer_landing") != [(0,)]
        engine.bind_files("accelerometer_landing", files)
        assert engine.rows("select count(*) from accelerometer_landing") == [(0,)]


# what it writes


def test_files_are_as_the_lake_wants_them(built: Lake) -> None:
    import fastavro
    import pyarrow.parquet as pq

    lake = built
    for table in BELOW_LANDING:
        folder, state = lake.catalog.folder(table), lake.catalog.table(table)
        assert not list(folder.rglob("*.crc"))
        lines = checksums.recorded(folder)
        files = lake.catalog.files(state)
        assert files
        for path in (*folder.rglob("data"), *(folder / "data").rglob("*")):
            assert not path.stat().st_mode & _umask(), path
        for file in files:
            schema = pq.read_schema(file.path)
            ids = {field.name: int(field.metadata[b"PARQUET:field_id"]) for field in schema}
            assert ids == {column.name: place for place, column in enumerate(COLUMNS[table], start=1)}
            assert pq.ParquetFile(file.path).metadata.row_group(0).column(0).compression == "ZSTD"
            assert lines[checksums.name_in(folder, file.path)] == checksums.digest(file.path)[0]
        bounded = {column.name for column in COLUMNS[table] if column.type in ("long", "double")}
        places = {place for place, c in enumerate(COLUMNS[table], start=1) if c.name in bounded}
        for manifest in (folder / "metadata").glob("*-m*.avro"):
            with manifest.open("rb") as stream:
                for entry in cast(list[dict[str, Any]], list(fastavro.reader(stream))):
                    assert {pair["key"] for pair in entry["data_file"]["lower_bounds"] or ()} <= places
            assert b"a@x.example" not in manifest.read_bytes()
    assert not list((lake.root / "tmp").rglob("pins"))


def test_rows_of_a_customer_lie_in_one_file_of_many_and_in_the_order_of_time(
    sample_built: SampleBuiltBySpark,
) -> None:
    import duckdb

    lake = sample_built.lake()
    found = contents(lake)
    for table, moment in checks.MOMENTS.items():
        files = lake.catalog.files(lake.catalog.table(table))
        assert len(files) > 5
        sql = (
            f'select customer_id, epoch_us("{moment}") from read_parquet($paths, filename = true) '
            "order by filename, file_row_number"
        )
        rows = duckdb.sql(sql, params={"paths": [file.path for file in files]}).fetchall()
        customers = [customer for customer, _ in groupby(who for who, _ in rows)]
        assert len(customers) == len(set(customers)), table
        assert all(was[1] <= now[1] for was, now in pairwise(rows) if was[0] == now[0]), table
    lake.build(full=True)
    assert contents(lake) == found


@pytest.mark.parametrize(
    ("sql", "parted"),
    [
        ("select p, max(m) as m from (select distinct a.p, a.m from a order by a.p, m) as d group by p", "p"),
        ("select s.c, s.t, a.x from s inner join a on s.c = a.c and s.t = a.u", "c"),
        ("select s.t, s.c, a.x from s inner join a on s.c = a.c and s.t = a.u", None),
        ("select distinct p, m from a", None),
        ("select p, m from a order by p limit 1", None),
    ],
)
def test_what_a_select_says_of_order_decides_what_comes_together(sql: str, parted: str | None) -> None:
    found = in_parts(sql, 7)
    assert found is None if parted is None else found and f"REPARTITION(7, `{parted}`)" in found


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_lineage_says_the_same_as_a_build_by_duckdb(built: Lake, slate: Slate) -> None:
    found = []
    by_duckdb = small(slate)
    build(by_duckdb, 1_000)
    for lake in (by_duckdb, built):
        states = lake.catalog.tables()
        found.append(
            {
                name: {k: v for k, v in states[name].current.summary.items() if k.startswith("stedi.")}  # type: ignore[union-attr]
                for name in BELOW_LANDING
            }
        )
        for properties in found[-1].values():
            assert json.loads(properties.pop("stedi.inputs"))
            assert properties.pop("stedi.run")
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("sql", "wrong"),
    [
        ("select 'a' as customer_id", "timestamp, x, y, z"),
        ("select 'a' as customer_id, instant(1) as \"timestamp\", 1 as x, 0.0::double as y, 0.0::double as z", "x"),
    ],
)
def test_other_columns_than_the_table_s_are_refused(engine: SparkEngine, tmp_path: Path, sql: str, wrong: str) -> None:
    with pytest.raises(
        LakeError, match=f"accelerometer_trusted: the columns of its SQL differ from the table's: {wrong}: "
    ):
        engine.write("accelerometer_trusted", sql, tmp_path / "t" / "run")
    assert not (tmp_path / "t").exists()


# what it must not show


def hides_the_key(shown: str) -> None:
    for form in (KEY, KEY.upper(), "Z" * 32, "WlpaWlpaWlpa"):
        assert form not in shown


def test_the_key_stands_in_no_plan_event_or_message(
    engine: SparkEngine, spark_events: Path, built: Lake, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = Key(bytes.fromhex(KEY))
    engine.materialize("addresses", "select 'a@x.example' as address")
    engine.pseudonymise("people", "select address from addresses", secret.customer_id)
    assert engine.rows("select customer_id from people") == [(secret.customer_id("a@x.example"),)]
    people = engine._relations["people"]
    assert isinstance(people, Future)
    shown = engine.spark.table(people.result().name)._jdf.queryExecution().toString()
    [log] = [path for path in spark_events.iterdir() if path.is_file() and not path.name.endswith(".crc")]
    shown += log.read_text("utf-8") + "".join(capfd.readouterr())
    assert "MapInArrow" in shown
    assert "AdaptiveSparkPlan" in shown
    hides_the_key(shown)


def test_a_failure_on_an_executor_shows_no_value_and_publishes_nothing(
    spark: Any, slate: Slate, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = small(slate)
    before = heads(lake)
    monkeypatch.setattr(Key, "customer_id", _fails)
    with pytest.raises(LakeError, match="Spark refused or failed a statement") as error:
        build(lake, engine="spark")
    assert "x.example" not in str(error.value) + "".join(capfd.readouterr())
    assert heads(lake) == before
    assert not list((lake.root / "tmp").rglob("pins"))
    assert not [path for table in BELOW_LANDING for path in lake.catalog.folder(table).rglob("*.parquet")]


def _fails(self: Key, address: str) -> str:
    raise ValueError(address)


def test_a_build_of_what_has_changed_gets_nothing_but_counts_spans_and_paths(
    sample_built: SampleBuiltBySpark, slate: Slate, collected: list[Any], capfd: pytest.CaptureFixture[str]
) -> None:
    lake = sample_built.lake()
    assert sample_built.collected
    more = slate.inbox()
    deliver(more, "customer", [customer("new@x.example", consent=50, serialNumber="s9")])
    deliver(more, "accelerometer", [motion("new@x.example")])
    lake.land(more)
    lake.withdraw(sorted(row[2] for row in contents(lake)["customers_trusted"])[:2])
    done = build(lake, engine="spark")
    assert {table.action for table in done.tables} >= {"by-customer"}
    hides_the_key("".join(capfd.readouterr()))
    assert len(collected) > 30
    told = {value for value in (*sample_built.collected, *collected) if not isinstance(value, int | None)}
    assert [value for value in told if not str(value).endswith(".parquet")] == []


# consent


MOMENT = 'and s.sensorReadingTime = a."timestamp"'
WRONG = {
    "anybody": ("customers_trusted", "where consents", "", "customers_trusted: consent proof: .* rows of 1 such"),
    "motions of anybody": (
        "accelerometer_trusted",
        "inner join customers_trusted as c on p.customer_id = c.customer_id",
        "left join customers_trusted as c on p.customer_id = c.customer_id",
        "accelerometer_trusted: consent proof: .* rows of 1 such",
    ),
    "motions twice": ("accelerometer_trusted", "select distinct\n        p.person", "select p.person", "are_distinct"),
    "training lost": ("machine_learning_curated", MOMENT, f"{MOMENT} and a.x > 1", "training_rows_are_conserved"),
    "training too much": ("machine_learning_curated", MOMENT, "", "training_rows_are_conserved"),
}
"""A table, what of its SQL is replaced with what, and what the audit of a build says of it."""


@pytest.fixture(params=[10**9, 0], ids=["audited by Spark", "audited in C"])
def audited(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(column_sums, "MANY", request.param)
    monkeypatch.setattr(checks, "LARGE", request.param)
    return int(request.param)


@pytest.mark.parametrize("wrong", WRONG.values(), ids=list(WRONG))
def test_the_audit_finds_what_wrong_sql_makes(
    spark: Any, slate: Slate, audited: int, wrong: tuple[str, str, str, str]
) -> None:
    table, found, instead, said = wrong
    lake = small(slate)
    more = slate.inbox()
    deliver(more, "accelerometer", [motion(), motion(x=2.0)])
    lake.land(more)
    graph = tables.graph()
    right = graph.selects[table]
    assert found in right.sql
    selects = {**graph.selects, table: replace(right, sql=right.sql.replace(found, instead))}
    before = heads(lake)
    with pytest.raises(AuditFailed, match=said):
        build(lake, engine="spark", graph=tables.Dag(selects))
    assert heads(lake) == before
    assert not [state.branches for state in lake.catalog.tables().values() if set(state.branches) - {"main"}]


@pytest.mark.skipif(row_sums.library() is None, reason="no compiler")
def test_spark_is_asked_about_the_rows_of_large_tables_only_where_c_cannot_tell(
    spark: Any, slate: Slate, audited: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, rows = list[str](), SparkEngine.rows

    def noted(self: SparkEngine, sql: str) -> list[tuple[Any, ...]]:
        asked.append(sql)
        return rows(self, sql)

    lake = small(slate)
    monkeypatch.setattr(SparkEngine, "rows", noted)
    build(lake, engine="spark")
    for name in ("accelerometer_readings_are_distinct", "training_rows_are_conserved"):
        assert any(name in sql for sql in asked) is bool(audited)
    assert any("from accelerometer_trusted__people" in sql for sql in asked) is not bool(audited)


def test_an_assertion_that_fails_stops_the_build(spark: Any, slate: Slate, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = small(slate)
    before = heads(lake)
    reads = frozenset({"customers_trusted"})
    wrong = tables.Model("no_customers", "assertions", "select 1 from customers_trusted", reads)
    monkeypatch.setattr(checks.tables, "assertions", lambda: (wrong,))
    with pytest.raises(AuditFailed, match="no_customers: expected no violations, found 1"):
        build(lake, engine="spark")
    assert heads(lake) == before


def test_histories_built_by_both_engines_in_turn_keep_the_law(spark: Any) -> None:
    """Of all histories one that meets what a build gets wrong in few builds: builds cost the time."""
    wrong = ("withdrew", "a current record changed and consents", "an owned reading became undecided")
    chosen = law_machine.meeting(1, dict.fromkeys(wrong, 1), builds=5)
    with quick.folder() as folder, quick.quickened():
        slate = Slate(folder)
        for case in sorted((REPOSITORY / "tests" / "properties" / "cases").glob("*.jsonl"))[:1]:
            law.replay(law.read_case(case), sparks.InTurn(slate), Key(bytes.fromhex(KEY)), law_machine.NOW)
        met = law_machine.play(
            lambda: sparks.InTurn(slate), Key(bytes.fromhex(KEY)), runs=1, random=chosen, shrink=False
        )
    assert all(met[what] for what in wrong)


@at_night
def test_real_data_give_the_known_rows_whichever_engine_continues(spark: Any, slate: Slate, public_data: Path) -> None:
    lake = slate.wiped()
    lake.land(public_data / "customer", public_data / "step_trainer")
    files = sorted((public_data / "accelerometer").rglob("*.json"))
    lake.land(*files[: len(files) // 2])
    lake.build()
    lake.land(*files[len(files) // 2 :])
    second = lake.build(engine="spark")
    assert {table.action for table in second.tables} <= {"append", "by-customer", "none"}
    found = contents(lake)
    assert {name: rows.total() for name, rows in found.items()} == FIGURES
    people = [row[2] for row in found["customers_trusted"]]
    lake.withdraw(sorted(people)[:5])
    third = lake.build(engine="spark")
    assert {table.name: table.action for table in third.tables}["accelerometer_trusted"] == "by-customer"
    after = contents(lake)
    assert after["customers_trusted"].total() == FIGURES["customers_trusted"] - 5
    lake.build(full=True)
    assert contents(lake) == after
