"""Data contracts of the lake's tables, in the Open Data Contract Standard 3.2.

https://bitol-io.github.io/open-data-contract-standard/. A contract holds what the schema defines: descriptions, units
and privacy classes of columns, keys, the checks that every build passes, and how long old snapshots are kept. It is
made of plain values; `cli` writes them as YAML or JSON.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from stedi.schema.contracts import INSTANT_BEGIN, INSTANT_END, Kind, Reason
from stedi.schema.descriptions import DescribedColumn, DescribedTable, describe_table
from stedi.schema.feeds import CONTRACTS
from stedi.schema.roles import GRANTS
from stedi.schema.tables import ALL_ZONES, NAMESPACE, Model, assertions

VERSION = "v3.2.0"

_LOGICAL: dict[str, dict[str, Any]] = {
    "string": {"logicalType": "string"},
    "long": {"logicalType": "integer", "logicalTypeOptions": {"format": "i64"}},
    "double": {"logicalType": "number", "logicalTypeOptions": {"format": "f64"}},
    "timestamptz": {"logicalType": "timestamp", "logicalTypeOptions": {"timezone": True}},
    "date": {"logicalType": "date"},
    "binary": {},  # the standard has no logical type for binary data
}
_COUNTED = Model(
    "every_record_is_counted",
    "assertions",
    "-- Records seen are accepted, quarantined, or of erased customers.\n"
    "select sha256 from landed_files where seen <> accepted + quarantined + erased",
    frozenset({"landed_files"}),
)
"""A check that landing passes for every file, and that `stedi audit` proves."""
_SEES = {
    "scientist": "Reads the training table and the list of releases.",
    "engineer": "Reads every table; direct identifiers are null.",
    "officer": "Reads everything; answers to customers and regulators.",
}


def contract(
    tables: Iterable[str], *, lake_id: str, server: Mapping[str, Any], keep_days: float, history_days: float
) -> dict[str, Any]:
    """Returns the contract of some tables as a document of the standard.

    Args:
        tables: The tables, in the order in which the contract lists them.
        lake_id: The lake's id, which is part of the contract's id.
        server: Where the tables are, as an entry of the standard's `servers`.
        keep_days: How long maintenance keeps a snapshot that is no longer current, days.
        history_days: How long a snapshot with rows of people who have withdrawn is kept, days.
    """
    names = tuple(tables)
    one = names[0] if len(names) == 1 else ""
    return {
        "apiVersion": VERSION,
        "kind": "DataContract",
        "id": f"stedi-{lake_id}" + (f"-{one}" if one else ""),
        "name": one or "STEDI lake",
        "version": "1.0.0",
        "status": "active",
        "description": {
            "purpose": "Train step detection on the motion of customers who consent to research.",
            "usage": "Use the trusted and curated tables. Hand out data as a signed release, not as a table.",
            "limitations": "Not anonymous: exact times tell people apart. Units are those that app and device deliver.",
        },
        "servers": [dict(server)],
        "schema": [_table(describe_table(name), frozenset(names)) for name in names],
        "roles": [{"role": role, "access": "read", "description": _SEES[role]} for role in GRANTS],
        "slaProperties": [
            {
                "property": "retention",
                "value": history_days,
                "unit": "d",
                "driver": "regulatory",
                "description": "Longest time that snapshots keep rows of people after the build that removed them.",
            },
            {
                "property": "timeTravel",
                "value": keep_days,
                "unit": "d",
                "driver": "analytics",
                "description": "Time that maintenance keeps other snapshots that are no longer current.",
            },
        ],
    }


def _table(table: DescribedTable, told: frozenset[str]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": table.name,
        "logicalType": "object",
        "physicalName": table.name,
        "physicalType": "table",
        "description": _sentence(table.text),
        "tags": [table.zone],
        "properties": [_column(table, column) for column in table.columns],
    }
    if table.inputs:
        document["customProperties"] = [{"property": "builtFrom", "value": list(table.inputs)}]
    # a check that reads a table outside of the contract could not be run by who has the contract
    checks = [check for check in (_COUNTED, *assertions()) if _subject(check) == table.name and check.reads <= told]
    if checks:
        document["quality"] = [
            {
                "type": "sql",
                "name": check.name,
                "description": _sentence(check.sql.splitlines()[0].removeprefix("--").strip()),
                "severity": "error",
                "query": f"select count(*) from ({_body(check.sql)}) as found",
                "mustBe": 0,
            }
            for check in checks
        ]
    return document


def _column(table: DescribedTable, column: DescribedColumn) -> dict[str, Any]:
    document: dict[str, Any] = {
        "name": column.name,
        "physicalType": column.type,
        "description": _sentence(column.text),
        "classification": column.privacy.value,
        "required": column.required,
        **_LOGICAL[column.type],
    }
    if column.unit:
        document["customProperties"] = [{"property": "unit", "value": column.unit}]
    if table.key == (column.name,):
        document |= {"primaryKey": True, "primaryKeyPosition": 1, "unique": True}
    elif column.name in table.key:
        document |= {"primaryKey": True, "primaryKeyPosition": table.key.index(column.name) + 1}
    landed = next((found for found in CONTRACTS.values() if found.table == table.name), None)
    field = landed.field(column.name) if landed else None
    if field is not None and field.kind is Kind.INSTANT:
        bounds = {"minimum": INSTANT_BEGIN, "exclusiveMaximum": INSTANT_END}
        document["logicalTypeOptions"] = {**document["logicalTypeOptions"], **bounds}
    if (table.name, column.name) == ("quarantine", "reason"):
        document["enum"] = [{"value": reason.value} for reason in Reason]
    if column.name == "feed":
        document["enum"] = [{"value": feed} for feed in CONTRACTS]
    return document


def _subject(check: Model) -> str:
    """Returns the table that an assertion is about: the last table in build order among those that it reads."""
    return max(check.reads, key=list(ALL_ZONES).index)


def _body(sql: str) -> str:
    """Returns a SELECT on one line, without its comments."""
    return " ".join(" ".join(line for line in sql.splitlines() if not line.lstrip().startswith("--")).split())


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:].rstrip('.')}."


def server(location: str, catalog: str | None) -> dict[str, Any]:
    """Returns where a lake's tables are, as an entry of the standard's `servers`.

    Args:
        location: The lake's folder or prefix.
        catalog: The path of its SQLite catalog; None if the lake has another kind of catalog.
    """
    if catalog is None:
        about = f"Iceberg tables in the catalog database {NAMESPACE}, by default of AWS Glue."
        return {
            "server": "lake",
            "type": "custom",
            "description": about,
            "customProperties": [{"property": "location", "value": location}],
        }
    return {
        "server": "lake",
        "type": "iceberg",
        "description": "Iceberg tables in a SQLite catalog; PyIceberg's catalog type is sql.",
        "catalog": NAMESPACE,
        "catalogUrl": f"sqlite:///{catalog}",
        "namespace": NAMESPACE,
        "warehouse": location,
    }
