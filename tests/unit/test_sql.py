"""The SQL files themselves: one SELECT each, in the dialect that DuckDB and Spark share, and right by the oracle.

Here the SELECTs run in bare DuckDB, without a lake around them, so that many more small worlds can be tried.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlglot import exp

import oracle
import worlds
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, quoted
from stedi.privacy.pseudonyms import Key
from stedi.schema import tables
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import COLUMNS, DUCKDB_TYPES, Model
from stedi.transform import checks

KEY = Key(bytes(range(32)))
STORED = [select for select in tables.graph().selects.values() if select.zone != "views"]
EVERY = [*tables.graph().selects.values(), *tables.assertions()]
SPARK_LACKS = {"asof", "time_bucket", "quantile_cont", "make_timestamp_ms", "list", "array_agg", "string_agg"}
"""What fails in Spark, or silently loses its order there."""
UNSTEADY = {"any_value", "first", "last", "arbitrary", "random", "uuid", "now", "current_timestamp", "mode"}
"""What may give another answer the next time, and with it a table that depends on more than its inputs."""
OURS = {"instant"}
"""Functions that each engine defines for the lake."""


def named(select: Model) -> str:
    return f"{select.zone}/{select.name}"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDB]:
    with DuckDB(memory="600MB", threads=2, temporary=tmp_path_factory.mktemp("engine")) as made:
        yield made


@pytest.mark.parametrize("select", EVERY, ids=named)
def test_each_file_is_one_select_that_says_what_a_row_is(select: Model) -> None:
    assert len(sqlglot.parse(select.sql, dialect="duckdb")) == 1
    assert isinstance(select.tree(), exp.Query)
    first = select.sql.splitlines()[0]
    assert first.startswith("-- ")
    if select.zone != "assertions":
        assert first.startswith("-- Grain: ")
        assert "Key: " in select.sql
    assert "*" not in {projection.sql() for projection in select.tree().find_all(exp.Star) if not _counted(projection)}


@pytest.mark.parametrize("select", EVERY, ids=named)
def test_each_file_uses_only_what_spark_has_and_what_always_gives_the_same_answer(select: Model) -> None:
    spark = sqlglot.transpile(
        select.sql, read="duckdb", write="spark", unsupported_level=sqlglot.ErrorLevel.RAISE, identify=False
    )
    assert len(spark) == 1
    sqlglot.parse_one(spark[0], dialect="spark")
    called = {name.lower() for name in re.findall(r"([A-Za-z_]+)\s*\(", select.tree().sql("duckdb", comments=False))}
    assert not called & (SPARK_LACKS | UNSTEADY)
    assert not list(select.tree().find_all(exp.Limit, exp.TableSample))
    anonymous = {call.name.lower() for call in select.tree().find_all(exp.Anonymous)}
    assert anonymous <= OURS | {"hash"} if select.zone == "assertions" else anonymous <= OURS


@pytest.mark.parametrize("select", STORED, ids=named)
def test_each_table_selects_its_columns_in_their_order(select: Model) -> None:
    tree = select.tree()
    first = tree.left if isinstance(tree, exp.SetOperation) else tree
    assert first.named_selects == [column.name for column in COLUMNS[select.name]]  # type: ignore[attr-defined]


def test_what_is_read_is_a_table_or_a_view() -> None:
    known = {*COLUMNS, *tables.graph().selects}
    for select in EVERY:
        assert select.reads <= known, select.name


@settings(max_examples=80)
@given(
    world=worlds.worlds(),
    readings=st.sampled_from(["all", "since-consent"]),
    later=st.integers(-3, 3),
    erased=st.dictionaries(worlds.serials, st.integers(1, 2), max_size=2),
)
def test_the_sql_makes_of_a_small_world_what_the_oracle_makes(
    world: dict[str, list[dict[str, object]]], readings: str, later: int, erased: dict[str, int], engine: DuckDB
) -> None:
    now = worlds.NOW + later
    expected = oracle.tables(world, now, readings, KEY.customer_id, erased)
    _bind(engine, world)
    parameters: dict[str, str | int] = {"build_started": now, "readings": readings}
    graph = tables.graph()
    for name in graph.order():
        sql = tables.rebind(graph.selects[name].sql, {}, parameters)
        if name == "erased_claims":
            listed = ", ".join(f"({literal(number)}, {count})" for number, count in erased.items()) or "('', 0)"
            sql = f"select number as serialNumber, claimants from (values {listed}) as found (number, claimants)"
        if name in ("people", "wearers"):
            engine.pseudonymise(name, sql, KEY.customer_id)
        else:
            engine.materialize(name, sql)
        if graph.selects[name].zone != "views":
            assert _rows(engine, name) == Counter(getattr(expected, name)), name
    withheld = engine.rows(
        "select sensorReadingTime, serialNumber, distanceFromObject from shared_readings where matches <> 1"
    )
    assert Counter(withheld) == Counter(expected.withheld)
    for check in tables.assertions():
        assert engine.rows(check.sql) == [], check.name


@pytest.mark.parametrize("check", tables.assertions(), ids=named)
def test_no_assertion_is_broken_by_no_rows(check: Model, tmp_path: Path) -> None:
    # a build whose changes could have broken no row runs none of those that read only what it could
    assert check.reads <= checks._SCOPED
    with DuckDB(memory="100MB", threads=1, temporary=tmp_path) as session:
        for name in check.reads:
            session.bind_files(name, ())
        assert session.rows(check.sql) == []


def _counted(star: exp.Star) -> bool:
    return isinstance(star.parent, exp.Count)


def _bind(engine: DuckDB, world: dict[str, list[dict[str, object]]]) -> None:
    """Makes the landing tables as landing would have."""
    for feed, contract in CONTRACTS.items():
        columns = COLUMNS[contract.table]
        made = ", ".join(f"{quoted(column.name)} {DUCKDB_TYPES[column.type]}" for column in columns)
        engine._execute(f"create or replace table {quoted(contract.table)} ({made})")
        found = [oracle._as_landed(r) if feed == "customer" else dict(r) for r in world[feed]]
        if found:
            lines = literal(json.dumps(found))
            structure = json.dumps(
                [{f.name: DUCKDB_TYPES[c.type] for f, c in zip(contract.fields, columns, strict=False)}]
            )
            engine._execute(
                f"insert into {quoted(contract.table)} by name "
                f"select unnest(from_json({lines}, {literal(structure)}), recursive := true)"
            )


def _rows(engine: DuckDB, table: str) -> Counter[oracle.Row]:
    plain = {"timestamptz": "epoch_ms({0})", "date": "cast({0} as varchar)"}
    shown = ", ".join(plain.get(column.type, "{0}").format(quoted(column.name)) for column in COLUMNS[table])
    return Counter(engine.rows(f"select {shown} from {quoted(table)}"))
