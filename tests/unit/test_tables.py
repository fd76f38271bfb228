"""The graph that the SQL files draw: zones, columns, order, inputs and fingerprints."""

from __future__ import annotations

from graphlib import CycleError

import pytest
from sqlglot import exp

from stedi.schema import tables
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import COLUMNS, DUCKDB_TYPES, FREE_TEXTS, ZONES, Dag, Model

GRAPH = tables.graph()
BUILT = (
    "customers_trusted",
    "accelerometer_trusted",
    "customers_curated",
    "step_trainer_trusted",
    "machine_learning_curated",
)
LANDED = ("customers_landing", "accelerometer_landing", "step_trainer_landing", "quarantine", "landed_files")
IDENTIFIERS = {"email", "customerName", "phone", "birthDay", "user"}
ADDRESSES = {"email", "user"}


def graph(**selects: str) -> Dag:
    """A graph of SELECTs; a name that ends in `_v` is a view."""
    found = {n: Model(n, "views" if n.endswith("_v") else "trusted", s, tables._reads(s)) for n, s in selects.items()}
    return Dag(found)


def test_mentions_are_masked_in_every_text_that_identifies_somebody_but_in_no_address() -> None:
    texts = {n: tuple(c.name for c in columns if c.type == "string") for n, columns in COLUMNS.items()}
    free = {n: tuple(name for name in names if name in IDENTIFIERS - ADDRESSES) for n, names in texts.items()}
    assert {name: found for name, found in free.items() if found} == FREE_TEXTS


def test_the_lake_has_ten_tables_in_three_zones() -> None:
    assert tuple(ZONES) == (*LANDED, *BUILT)
    assert COLUMNS.keys() == ZONES.keys()
    assert {ZONES[name] for name in LANDED} == {"landing"}
    assert {name for name, zone in ZONES.items() if zone == "curated"} == {
        "customers_curated",
        "machine_learning_curated",
    }


def test_every_table_below_landing_is_one_sql_file_in_the_folder_of_its_zone() -> None:
    stored = {table.name: table.zone for table in GRAPH.tables()}
    assert stored == {name: ZONES[name] for name in BUILT}


def test_every_column_has_a_type_that_duckdb_knows_and_no_table_has_one_twice() -> None:
    for columns in COLUMNS.values():
        assert {column.type for column in columns} <= DUCKDB_TYPES.keys()
        assert len({column.name.lower() for column in columns}) == len(columns)


def test_a_landing_table_has_the_fields_of_its_contract_first() -> None:
    for contract in CONTRACTS.values():
        names = [column.name for column in COLUMNS[contract.table]]
        assert names == [*(field.name for field in contract.fields), "_extra", "_file"]


def test_direct_identifiers_stand_in_landing_and_the_customers_tables_only() -> None:
    for name in BUILT:
        found = {column.name for column in COLUMNS[name]} & IDENTIFIERS
        assert not found or name in ("customers_trusted", "customers_curated")
        assert COLUMNS[name][0].name == "customer_id"
    assert "serialNumber" not in {column.name for column in COLUMNS["machine_learning_curated"]}


def test_every_table_stands_after_all_that_it_reads() -> None:
    order = GRAPH.order()
    for name, select in GRAPH.selects.items():
        for read in select.reads & GRAPH.selects.keys():
            assert order.index(read) < order.index(name)
    built = [table.name for table in GRAPH.tables()]
    assert (built[0], built[-1]) == ("customers_trusted", "machine_learning_curated")


def test_all_that_is_read_is_a_table_or_a_view_of_the_lake() -> None:
    known = ZONES.keys() | GRAPH.selects.keys()
    for select in (*GRAPH.selects.values(), *tables.assertions()):
        assert select.reads
        assert select.reads <= known, select.name


def test_inputs_are_the_stored_tables_behind_views() -> None:
    assert GRAPH.inputs("customers_trusted") == ("customers_landing",)
    assert GRAPH.inputs("machine_learning_curated") == ("accelerometer_trusted", "step_trainer_trusted")
    assert GRAPH.inputs("step_trainer_trusted") == (
        "accelerometer_landing",
        "customers_curated",
        "customers_landing",
        "step_trainer_landing",
    )


def test_inputs_go_through_views_of_views_and_stop_at_tables() -> None:
    drawn = graph(
        a_v="select 1 from landed",
        b_v="select 1 from a_v join other on true",
        t="select 1 from b_v",
        u="select 1 from t",
    )
    assert drawn.inputs("t") == ("landed", "other")
    assert drawn.inputs("u") == ("t",)
    assert drawn.upstream("t") == {"a_v", "b_v", "landed", "other"}


def test_a_name_inside_a_with_is_no_table() -> None:
    drawn = graph(t="with found as (select * from landed) select * from found join lateral_v using (x)")
    assert drawn.selects["t"].reads == {"landed", "lateral_v"}


@pytest.mark.parametrize("select", [*GRAPH.selects.values(), *tables.assertions()], ids=lambda select: select.name)
def test_sqlglot_finds_the_same_tables_in_every_sql_file(select: Model) -> None:
    tree = select.tree()
    local = {cte.alias for cte in tree.find_all(exp.CTE)}
    assert select.reads == {table.name for table in tree.find_all(exp.Table)} - local


@pytest.mark.parametrize("select", [*GRAPH.selects.values(), *tables.assertions()], ids=lambda select: select.name)
def test_reading_another_relation_changes_nothing_else(select: Model) -> None:
    for name in select.reads:
        expected = select.tree()
        for table in expected.find_all(exp.Table):
            if table.name == name:
                alias = table.alias or name
                table.replace(exp.to_table("elsewhere", alias=alias))
        found = tables.parse(tables.rebind(select.sql, {name: "elsewhere"}))
        assert found.sql("duckdb", comments=False) == expected.sql("duckdb", comments=False)


def test_a_parameter_becomes_a_literal_and_quotes_in_it_do_no_harm() -> None:
    sql = "select '$readings' as a -- $readings\nfrom t where $readings = 'all' and b <= $build_started"
    assert tables.rebind(sql, {}, {"readings": "it's", "build_started": 7}) == (
        "select '$readings' as a from t where 'it''s' = 'all' and b <= 7"
    )


def test_a_table_that_reads_itself_in_a_circle_is_refused() -> None:
    with pytest.raises(CycleError):
        graph(a="select 1 from b", b="select 1 from a").order()


def test_comments_and_white_space_do_not_change_a_fingerprint() -> None:
    plain = graph(a_v="select x from landed", t="select x from a_v")
    dressed = graph(a_v="-- why\nselect  x\nfrom landed /* and how */", t="select x -- so\nfrom a_v\n")
    assert plain.fingerprint("t") == dressed.fingerprint("t")
    assert len(plain.fingerprint("t")) == 16


@pytest.mark.parametrize(
    "other",
    [
        {"a_v": "select x from landed", "t": "select x from a_v where x > 1"},
        {"a_v": "select x from landed where x > 1", "t": "select x from a_v"},
        {"a_v": "select X from landed", "t": "select x from a_v"},
        {"a_v": "select x from elsewhere", "t": "select x from a_v"},
    ],
)
def test_another_meaning_is_another_fingerprint_also_in_a_view(other: dict[str, str]) -> None:
    plain = graph(a_v="select x from landed", t="select x from a_v")
    assert graph(**other).fingerprint("t") != plain.fingerprint("t")


def test_a_table_above_does_not_change_the_fingerprint_of_one_below() -> None:
    one = graph(a="select x from landed", t="select x from a")
    other = graph(a="select x + 1 as x from landed", t="select x from a")
    assert one.fingerprint("t") == other.fingerprint("t")
    assert one.fingerprint("a") != other.fingerprint("a")


def test_every_table_below_landing_is_under_an_assertion() -> None:
    read = frozenset().union(*(check.reads for check in tables.assertions()))
    assert set(BUILT) <= read
    assert all(check.zone == "assertions" for check in tables.assertions())


def test_every_sql_file_opens_with_a_comment_that_says_what_it_is_for() -> None:
    for select in (*GRAPH.selects.values(), *tables.assertions()):
        assert select.sql.startswith("-- "), select.name
