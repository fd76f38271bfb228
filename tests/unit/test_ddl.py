"""DDL: what is printed parses in its dialect and says what the contracts and the tables say."""

from __future__ import annotations

import pytest
import sqlglot
from sqlglot import exp

from stedi.errors import UsageError
from stedi.schema.classification import ColumnLineage
from stedi.schema.contracts import PrivacyClass
from stedi.schema.ddl import ddl, views
from stedi.schema.feeds import CONTRACTS
from stedi.schema.roles import GRANTS, Role
from stedi.schema.tables import COLUMNS, ZONES, graph

DIALECTS = ("athena", "spark")
ODD = "s3://bucket/o'neil \\ é"


def creates(
    dialect: str, location: str = "s3://bucket/lake", inbox: str | None = "s3://bucket/inbox"
) -> dict[str, exp.Create]:
    statements = sqlglot.parse(ddl(dialect, location, inbox), dialect=dialect)
    assert all(isinstance(statement, exp.Create) for statement in statements)
    return {s.this.find(exp.Table).name: s for s in statements if isinstance(s, exp.Create) and s.kind == "TABLE"}


def place(statement: exp.Create) -> str:
    found = statement.find(exp.LocationProperty)
    assert found is not None
    return str(found.this.name)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_statement_parses_and_every_table_and_feed_has_one(dialect: str) -> None:
    assert list(creates(dialect)) == [*CONTRACTS, *ZONES]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_columns_are_the_tables_columns_in_order(dialect: str) -> None:
    found = creates(dialect)
    for table, columns in COLUMNS.items():
        names = [d.name for d in found[table].find_all(exp.ColumnDef)]
        wanted = [c.name.lower() if dialect == "athena" else c.name for c in columns]
        assert names == wanted


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_inbox_columns_are_the_contracts_fields(dialect: str) -> None:
    found = creates(dialect)
    for feed, contract in CONTRACTS.items():
        names = [d.name.lower() for d in found[feed].find_all(exp.ColumnDef)]
        assert names == [field.name.lower() for field in contract.fields]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_name_is_quoted_so_reserved_words_are_safe(dialect: str) -> None:
    for statement in creates(dialect).values():
        assert all(identifier.quoted for d in statement.find_all(exp.ColumnDef) for identifier in [d.this])


def test_instants_are_timestamps_that_the_dialect_can_declare() -> None:
    athena, spark = (
        {d.name: d.kind for d in creates(dialect)["accelerometer_trusted"].find_all(exp.ColumnDef) if d.kind}
        for dialect in ("athena", "spark")
    )
    assert athena["timestamp"].is_type("timestamp")
    assert spark["timestamp"].is_type("timestamptz"), "Spark's TIMESTAMP has a zone"
    assert "with time zone" not in "".join(
        line for line in ddl("athena", "s3://b/l").lower().splitlines() if not line.startswith("--")
    )


@pytest.mark.parametrize("dialect", DIALECTS)
def test_locations_are_the_lakes_folders(dialect: str) -> None:
    found = creates(dialect, "s3://bucket/lake/", "s3://bucket/inbox//")
    assert place(found["step_trainer_trusted"]) == "s3://bucket/lake/trusted/step_trainer_trusted"
    assert place(found["step_trainer"]) == "s3://bucket/inbox/step_trainer/"


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_location_with_quotes_and_backslashes_stays_one_text(dialect: str) -> None:
    found = creates(dialect, ODD, f"{ODD}/in'; drop table x; --")
    assert len(found) == len(ZONES) + len(CONTRACTS)
    assert place(found["quarantine"]) == f"{ODD}/landing/quarantine"


def test_athena_reads_the_inbox_without_skipping_what_is_malformed() -> None:
    text = ddl("athena", "s3://b/lake", "s3://b/inbox")
    assert text.count("ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'") == len(CONTRACTS)
    assert text.count("'ignore.malformed.json' = 'FALSE'") == len(CONTRACTS)
    assert text.count("'table_type' = 'ICEBERG'") == len(ZONES)
    assert "stedi ndjson" in text


def test_without_an_inbox_there_are_no_json_tables() -> None:
    assert list(creates("spark", "/data/lake", None)) == list(ZONES)


def test_chosen_tables_alone_are_printed_in_the_order_of_flow() -> None:
    text = ddl("spark", "/data/lake", tables=["machine_learning_curated", "customers_trusted"])
    names = [s.this.find(exp.Table).name for s in sqlglot.parse(text, dialect="spark")[1:]]  # type: ignore[union-attr]
    assert names == ["customers_trusted", "machine_learning_curated"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hive", "s3://b/l"), "athena or spark"),
        (("athena", "/data/lake"), "only S3"),
        (("athena", "s3://"), "only S3"),
        (("athena", "s3://b/l", "inbox"), "the inbox"),
        (("spark", " "), "the location"),
        (("spark", "/a\nb"), "printable"),
        (("spark", "/a", None, ["nosuch"]), "no table nosuch"),
    ],
)
def test_what_cannot_be_is_refused(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        ddl(*arguments)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_inbox_lies_in_a_database_of_its_own(dialect: str) -> None:
    found = creates(dialect)
    schemas = {name: statement.this.find(exp.Table).db for name, statement in found.items()}
    assert {name for name, schema in schemas.items() if schema == "stedi_inbox"} == CONTRACTS.keys()
    assert {name for name, schema in schemas.items() if schema == "stedi"} == ZONES.keys()


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("role", GRANTS)
def test_a_roles_views_are_its_grant(dialect: str, role: Role) -> None:
    first, *found = sqlglot.parse(views(dialect, role), dialect=dialect)
    assert isinstance(first, exp.Create)
    lineage = ColumnLineage(graph())
    made = {}
    for statement in found:
        assert isinstance(statement, exp.Create)
        assert statement.kind == "VIEW"
        select = statement.expression
        table = select.find(exp.Table).name
        classes = {name.lower(): kind for name, kind in lineage.classes(table).items()}
        columns = {projection.alias_or_name.lower(): projection for projection in select.selects}
        assert list(columns) == [column.name.lower() for column in COLUMNS[table]]
        made[table] = {name for name, projection in columns.items() if projection.find(exp.Null)}
        assert made[table] == {name for name, kind in classes.items() if kind in GRANTS[role].masked}
    assert made.keys() == GRANTS[role].tables & COLUMNS.keys()
    assert (role == "engineer") == any(made.values())
    assert PrivacyClass.DIRECT in GRANTS["engineer"].masked
