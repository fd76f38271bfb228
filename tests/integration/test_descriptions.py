"""What columns mean stands in one place, and reaches everybody who looks for it unchanged."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import sqlglot
import yaml
from pyiceberg.catalog import load_catalog
from sqlglot import exp

import lakes
from deliveries import customer, deliver, motion, step
from stedi import Lake, cli
from stedi.schema import classification, contracts, ddl, descriptions, feeds, tables

SCHEMA = Path(__file__).parents[1] / "data" / "odcs" / "odcs-3.2.0.schema.json"
DATACONTRACT = lakes.REPOSITORY / "build" / "contracts" / "bin" / "datacontract"
EVERY = [(table, column.name) for table, columns in tables.ALL_COLUMNS.items() for column in columns]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake with one customer, landed and built."""
    folder = tmp_path_factory.mktemp("described")
    made = Lake.create(folder / "lake")
    deliver(folder / "inbox", "customer", [customer()])
    deliver(folder / "inbox", "accelerometer", [motion()])
    deliver(folder / "inbox", "step_trainer", [step()])
    made.land(folder / "inbox")
    made.build()
    return made


@pytest.fixture(scope="module")
def contract(lake: Lake) -> dict[str, Any]:
    return lake.contract()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(words) == 0
    return capsys.readouterr().out


def test_every_table_and_column_is_described_in_words_that_any_catalog_takes() -> None:
    told = {f"{table}.{column}": descriptions.describe(table, column) for table, column in EVERY}
    texts = {name: found.comment for name, found in told.items()} | descriptions.TABLES
    assert descriptions.TABLES.keys() == tables.ALL_COLUMNS.keys()
    assert {
        name for name, text in texts.items() if not re.fullmatch(r"[A-Za-z][\w ,;:()/@.-]*", text, re.ASCII)
    } == set()
    assert max(map(len, texts.values())) <= 120


def test_an_instant_has_a_unit_and_an_identifier_has_none() -> None:
    for table, column in EVERY:
        [kind] = [known.type for known in tables.ALL_COLUMNS[table] if known.name == column]
        unit = descriptions.describe(table, column).unit
        assert (unit == "UTC") == (kind == "timestamptz"), (table, column)
        assert not (unit and kind == "string"), (table, column)


def test_the_keys_are_those_that_the_sql_files_tell() -> None:
    for model in tables.graph().tables():
        found = re.search(r"Key: ([^.:]+)[.:]", model.sql.replace("\n-- ", " "))
        assert found, model.name
        key = descriptions.describe_table(model.name).key
        wanted = {"all columns": tuple(c.name for c in tables.COLUMNS[model.name]), "none": ()}
        assert key == wanted.get(found[1], tuple(found[1].split(", "))), model.name


def test_iceberg_readers_see_what_each_column_means(lake: Lake) -> None:
    catalog = load_catalog("stedi", type="sql", uri=f"sqlite:///{lake.root}/catalog.db")
    for name in tables.COLUMNS:
        fields = catalog.load_table(f"stedi.{name}").schema().fields
        assert {field.name: field.doc for field in fields} == descriptions.comments(name)


@pytest.mark.parametrize("dialect", ["athena", "spark"])
def test_ddl_comments_say_what_each_column_means(dialect: str) -> None:
    wanted = {
        **{name: descriptions.comments(name) for name in tables.COLUMNS},
        **{
            feed: {field.name: descriptions.describe_field(feed, field.name).comment for field in known.fields}
            for feed, known in feeds.CONTRACTS.items()
        },
    }
    found = {}
    for statement in sqlglot.parse(ddl.ddl(dialect, "s3://bucket/lake", "s3://bucket/inbox"), dialect=dialect):
        if isinstance(statement, exp.Create) and statement.kind == "TABLE":
            defined = statement.find_all(exp.ColumnDef)
            found[statement.this.find(exp.Table).name] = [
                comment.this.name for d in defined for comment in [d.find(exp.CommentColumnConstraint)] if comment
            ]
    assert found == {table: list(told.values()) for table, told in wanted.items()}


def test_the_report_tells_the_same(lake: Lake) -> None:
    report = lake.report()
    for table in report.tables:
        for column in table.columns:
            found = descriptions.describe(table.name, column.name)
            assert (column.text, column.unit) == (found.text, found.unit)


@pytest.mark.parametrize("table", tables.ALL_COLUMNS)
def test_describe_tells_each_column_within_80_columns(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    shown = printed(capsys, "describe", table.upper())
    assert max(map(len, shown.splitlines())) <= 80
    document = json.loads(printed(capsys, "--json", "describe", table))
    assert [column["name"] for column in document["columns"]] == [c.name for c in tables.ALL_COLUMNS[table]]
    for column in document["columns"]:
        found = descriptions.describe(table, column["name"])
        words = " ".join(shown.split())
        assert f"{column['name']} {column['type']} {found.comment}; {column['privacy']}" in words


def test_describe_of_a_table_that_is_not_there_names_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["describe", "customer_trusted"]) == 2
    assert "did you mean customers_trusted?" in capsys.readouterr().err


def test_a_contract_is_valid_and_tells_of_every_column(contract: dict[str, Any]) -> None:
    jsonschema.Draft201909Validator(json.loads(SCHEMA.read_text("utf-8"))).validate(contract)
    assert [table["name"] for table in contract["schema"]] == list(tables.COLUMNS)
    for table in contract["schema"]:
        name, classes = table["name"], classification.classes(tables.graph(), table["name"])
        assert [column["name"] for column in table["properties"]] == [c.name for c in tables.COLUMNS[name]]
        for column in table["properties"]:
            found = descriptions.describe(name, column["name"])
            assert column["description"].lower() == f"{found.text.lower()}."
            assert column["classification"] == classes[column["name"]]
            assert column["required"] == (column["name"] in tables.REQUIRED.get(name, ()))
            units = [more["value"] for more in column.get("customProperties", ()) if more["property"] == "unit"]
            assert units == ([found.unit] if found.unit else [])


def test_a_contract_has_every_assertion_of_the_build_once(contract: dict[str, Any]) -> None:
    told = [check["name"] for table in contract["schema"] for check in table.get("quality", ())]
    assert sorted(told) == sorted([*(check.name for check in tables.assertions()), "every_record_is_counted"])


def test_a_contract_of_one_table_asks_only_of_that_table(lake: Lake) -> None:
    for name in tables.COLUMNS:
        [table] = lake.contract(name)["schema"]
        for check in table.get("quality", ()):
            assert set(re.findall(r"(?:from|join) (\w+)", check["query"])) == {name}


def test_the_contract_tells_reasons_feeds_and_how_long_history_stays(contract: dict[str, Any]) -> None:
    [quarantine] = [table for table in contract["schema"] if table["name"] == "quarantine"]
    values = {c["name"]: [entry["value"] for entry in c.get("enum", ())] for c in quarantine["properties"]}
    assert values["reason"] == list(contracts.Reason)
    assert values["feed"] == list(feeds.CONTRACTS)
    assert {(sla["property"], sla["value"]) for sla in contract["slaProperties"]} == {
        ("retention", 7.0),
        ("timeTravel", 7.0),
    }


def test_the_yaml_of_a_contract_is_its_json(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--lake", str(lake.root))
    for words in ((), ("customers_trusted",)):
        text = printed(capsys, *place, "contract", *words)
        assert yaml.safe_load(text) == json.loads(printed(capsys, *place, "--json", "contract", *words))


VERDICTS = """
import sys
from datacontract.cli import app
for contract in sys.argv[1:]:
    try:
        app(["test", contract])
    except SystemExit as done:
        print("exit", done.code or 0)
"""


def test_datacontract_cli_finds_that_the_lake_keeps_its_contract(
    lake: Lake, contract: dict[str, Any], tmp_path: Path
) -> None:
    if not DATACONTRACT.exists():
        pytest.skip("datacontract-cli is not installed: make build/contracts/.made")
    broken = lake.contract("customers_trusted")
    broken["schema"][0]["properties"][1]["logicalType"] = "integer"
    files = [tmp_path / "kept.json", tmp_path / "broken.json"]
    for file, document in zip(files, (contract, broken), strict=True):
        file.write_text(json.dumps(document), "utf-8")
    environment = {**os.environ, "DATACONTRACT_ICEBERG_CATALOG_TYPE": "sql", "HOME": str(tmp_path)}
    done = subprocess.run(
        [DATACONTRACT.with_name("python"), "-c", VERDICTS, *files],  # one start for both: it takes three seconds
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert re.findall(r"^exit (\d)", done.stdout, re.MULTILINE) == ["0", "1"], done.stdout[-3000:] + done.stderr[-500:]
    found = re.search(r"Ran (\d+) checks", done.stdout)
    assert found
    assert int(found[1]) > 2 * len([c for table in contract["schema"] for c in table["properties"]])
