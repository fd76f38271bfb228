"""What each column tells about a person, followed through the SQL, and SQL that carries too much of it is refused."""

from __future__ import annotations

import pytest

from deliveries import customer, deliver, motion, step
from lakes import BELOW_LANDING, LANDING, Slate, build, heads
from stedi.errors import AuditFailed
from stedi.lake import Lake
from stedi.schema import classification, tables
from stedi.schema.classification import LANDED, ColumnLineage
from stedi.schema.contracts import Field, Kind, PrivacyClass
from stedi.schema.tables import COLUMNS, ZONES, Dag, Model

NOW = 1_000
DIRECT = {"customerName", "email", "phone", "birthDay"}


@pytest.fixture(autouse=True)
def _unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test leans on what another has found right."""
    monkeypatch.setattr(classification, "_passed", set())


def changed(name: str, old: str, new: str) -> Dag:
    """The package's graph with one piece of one SELECT replaced."""
    selects = dict(tables.graph().selects)
    sql = selects[name].sql
    assert sql.count(old), f"{old!r} is not in {name}"
    sql = sql.replace(old, new, 1)
    selects[name] = Model(name, selects[name].zone, sql, tables._reads(sql))
    return Dag(selects)


def test_every_column_of_the_landing_zone_has_a_class() -> None:
    landing = {name for name, zone in ZONES.items() if zone == "landing"}
    assert {name: list(found) for name, found in LANDED.items()} == {
        name: [column.name for column in COLUMNS[name]] for name in COLUMNS if name in landing
    }


def test_a_field_of_which_nobody_has_said_what_it_tells_is_taken_for_the_worst() -> None:
    assert Field("note", Kind.TEXT).privacy is PrivacyClass.DIRECT
    assert all(LANDED[name]["_extra"] is PrivacyClass.DIRECT for name in LANDING)


def test_what_names_somebody_in_landing_is_what_rule_7_lists_and_what_may_hold_it() -> None:
    direct = {
        (name, column)
        for name, found in LANDED.items()
        for column, kind in found.items()
        if kind is PrivacyClass.DIRECT
    }
    assert direct == {
        *(("customers_landing", name) for name in DIRECT),
        ("accelerometer_landing", "user"),
        *((name, "_extra") for name in LANDING),
        ("quarantine", "raw"),
    }


@pytest.mark.parametrize("table", BELOW_LANDING)
def test_below_landing_direct_identifiers_stand_in_the_customers_tables_alone(table: str) -> None:
    found = ColumnLineage(tables.graph()).classes(table)
    assert list(found) == [column.name for column in COLUMNS[table]]
    assert {name for name, kind in found.items() if kind is PrivacyClass.DIRECT} == (
        DIRECT if table.startswith("customers") else set()
    )
    assert found["customer_id"] is PrivacyClass.INDIRECT
    assert classification.classes(tables.graph(), table) == found  # which queries know without following anything


def test_of_what_identifies_the_training_table_has_the_pseudonym_alone() -> None:
    found = ColumnLineage(tables.graph()).classes("machine_learning_curated")
    assert {name for name, kind in found.items() if kind is not PrivacyClass.SENSOR} == {"customer_id"}
    assert ColumnLineage(tables.graph()).classes("step_trainer_trusted")["serialNumber"] is PrivacyClass.INDIRECT


def test_the_packages_own_sql_carries_no_identifier_where_none_may_stand() -> None:
    classification.check(tables.graph())
    followed = classification.fingerprint(tables.graph())
    assert followed == classification.CHECKED, f"this SQL has passed: let builds know, CHECKED = {followed!r}"


A, S, M, C = "accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated", "customers_trusted"
WHOSE, DISTANCE = "select distinct person, customer_id", "s.distanceFromObject"
SMUGGLERS = {
    "the address for the pseudonym": (A, WHOSE, "select distinct person, address as customer_id", A),
    "a plain hash of it": (A, WHOSE, "select distinct person, md5(address) as customer_id", A),
    "an address in an expression": (A, "a.x + 0 as x", "case when p.address like 'a%' then a.x else 0 end as x", A),
    "the user of the reading": (A, "a.y + 0 as y", 'length(a."user") as y', A),
    "a column of another table": (A, "a.z + 0 as z", "length(c.phone) as z", A),
    "a subquery": (A, "a.z + 0 as z", "(select max(length(t.email)) from customers_trusted as t) as z", A),
    "a subquery that names the query around it": (
        *(A, "a.z + 0 as z", "(select max(t.customer_id || p.address) from customers_trusted as t) as z", A),
    ),
    "a window": (A, "a.z + 0 as z", "count(*) over (partition by c.birthDay) as z", A),
    "what nobody knows the meaning of": (S, DISTANCE, "length(s._extra) as distanceFromObject", S),
    "one half of a union": (S, " r.distanceFromObject\n", " length(t.email) as distanceFromObject\n", S),
    "a view": (
        *(
            "shared_steps",
            "    distanceFromObject\nfrom",
            "    length(_extra) as distanceFromObject\nfrom",
        ),
        S,
    ),
    "a device number in training": (M, DISTANCE, "length(s.serialNumber) as distanceFromObject", M),
    "a device number in training by way of another table": (A, "a.x + 0 as x", "length(c.serialNumber) as x", M),
    "a date of the customer in training": (A, "a.x + 0 as x", "epoch_ms(c.registrationDate) as x", M),
    "a customer's name in another column's name": (C, "    serialNumber,", "    email as serialNumber,", None),
    "one that only filters": (A, "where $readings", "where c.email like 'a%' and $readings", None),
}
"""What changes in which SELECT, and the table that is refused for it; None where nothing reaches one."""


@pytest.mark.parametrize("name", [name for name, (*_, table) in SMUGGLERS.items() if table])
def test_sql_that_carries_an_identifier_is_refused_naming_table_and_column(name: str) -> None:
    select, old, new, table = SMUGGLERS[name]
    with pytest.raises(AuditFailed, match=rf"^{table}\.\w+: expected .*, found .*; nothing was published$"):
        classification.check(changed(select, old, new))


@pytest.mark.parametrize("name", [name for name, (*_, table) in SMUGGLERS.items() if not table])
def test_sql_that_carries_it_to_where_it_may_stand_is_not(name: str) -> None:
    select, old, new, _ = SMUGGLERS[name]
    classification.check(changed(select, old, new))


def test_by_way_of_a_customers_table_under_another_name_it_is_refused_all_the_same() -> None:
    graph = changed(C, "    serialNumber,", "    email as serialNumber,")
    selects = dict(graph.selects)
    sql = selects[A].sql.replace("a.x + 0 as x", "length(c.serialNumber) as x")
    graph = Dag({**selects, A: Model(A, "trusted", sql, tables._reads(sql))})
    with pytest.raises(AuditFailed, match=r"^accelerometer_trusted\.x: .*customers_landing\.email"):
        classification.check(graph)


@pytest.mark.parametrize(
    "new", ["a.nothing as x", "(select u.v from unnest([1]) as u (v)) as x", "columns('.*')", "nobody.x as x"]
)
def test_what_cannot_be_followed_is_refused(new: str) -> None:
    with pytest.raises(AuditFailed, match=r"^accelerometer_trusted: expected SQL in which every column"):
        classification.check(changed(A, "a.x + 0 as x", new))


@pytest.fixture
def landed(slate: Slate) -> Lake:
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [customer()])
    deliver(inbox, "accelerometer", [motion()])
    deliver(inbox, "step_trainer", [step()])
    lake.land(inbox)
    return lake


@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_build_by_such_sql_changes_no_table(landed: Lake, first: bool) -> None:
    if not first:
        build(landed, NOW)
    before = heads(landed)
    graph = changed(A, "a.y + 0 as y", 'length(a."user")::double as y')
    with pytest.raises(AuditFailed, match=r"^accelerometer_trusted\.y: ") as refused:
        build(landed, NOW, graph=graph)
    assert refused.value.exit_code == 3
    assert heads(landed) == before
    if not first:
        assert build(landed, NOW).run == ""


def test_the_packages_own_sql_is_not_followed_by_a_build_and_no_sql_twice(
    landed: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[Dag] = []
    monkeypatch.setattr(classification, "_passed", {classification.CHECKED})
    monkeypatch.setattr(
        classification, "ColumnLineage", lambda graph: (followed.append(graph), ColumnLineage(graph))[1]
    )
    build(landed, NOW)
    assert not followed
    graph = changed(A, "a.x + 0 as x", "a.x + 0.0 as x")
    for _ in range(2):
        build(landed, NOW, graph=graph, full=True)
        assert followed == [graph]
