"""The tables as DDL for Athena or Spark: from the contracts and the lake's columns to `CREATE TABLE`.

There are three kinds. External JSON tables, one per feed, read the folders of an inbox; they come from the contracts
and have a database of their own. Iceberg tables, one per table of the lake, come from `tables`. Views show what a role
sees, by its grant. This module returns text and creates nothing. Every name and every text is quoted and escaped.
"""

from __future__ import annotations

from collections.abc import Iterable

from stedi._frozen import dataclass
from stedi.errors import UsageError, printable
from stedi.schema.contracts import Contract, Kind
from stedi.schema.descriptions import comments, describe_field
from stedi.schema.feeds import CONTRACTS
from stedi.schema.roles import GRANTS, Role
from stedi.schema.tables import COLUMNS, NAMESPACE, SPARK_TYPES, ZONES, Column, graph

INBOX = f"{NAMESPACE}_inbox"
"""The database of the delivered files."""

_DELIVERED = {Kind.TEXT: "string", Kind.INSTANT: "long", Kind.NUMBER: "double", Kind.INTEGER: "long"}

_NAMES: dict[str, dict[str, str]] = {
    # Athena's Iceberg DDL has no timestamp with a time zone; its timestamps are read as UTC.
    "athena": SPARK_TYPES,
    "spark": {kind: name.upper() for kind, name in SPARK_TYPES.items()},
}

_IN_QUERIES = {
    "athena": {
        "string": "varchar",
        "long": "bigint",
        "timestamptz": "timestamp(6) with time zone",
        "binary": "varbinary",
    },
    "spark": _NAMES["spark"],
}
"""Names of types in a query, where they differ from Iceberg's."""

_PREFACE = {
    "athena": """\
The tables of a STEDI lake, for Athena. Run one statement at a time.

Athena writes every name in lower case, here too: customerName is read as customername.
Its DDL for Iceberg has no timestamp with a time zone: these columns are declared as timestamp and hold UTC.
Tables that the lake makes itself are timestamps with a time zone, and Athena reads them as such.""",
    "spark": """\
The tables of a STEDI lake, for Spark with Iceberg's runtime and SQL extensions, in the catalog that is current.
JSON tables need a catalog that knows more than Iceberg, such as org.apache.iceberg.spark.SparkSessionCatalog.

TIMESTAMP here is timestamptz in Iceberg, and shown in the session's zone: set spark.sql.session.timeZone=UTC.""",
}

_INBOX = """\
The inbox: delivered files as they are, without the lake's checks and without its rules of consent.
One object a line is all that this reader understands: other shapes give one row a file, or wrong rows without an
error. Run `stedi ndjson SRC DST` first and name DST. A line that is not JSON fails the query: nothing is skipped."""

_ICEBERG = """\
The lake: empty Iceberg tables of the lake's columns, for another engine to fill.
Where `stedi` keeps the catalog it makes these tables itself: do not create them over a lake that is there."""

_VIEWS = """\
What a role sees of the lake: the tables of its grant, null where a column is masked for it.
Who may read a view must be let read its table as well, or the mask is a courtesy: on Athena a view has the rights of
who asks. Lake Formation can grant a view alone."""


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes statements in one dialect."""

    dialect: str

    def identifier(self, name: str) -> str:
        # Every name is quoted: `timestamp`, `user` and `date` are reserved words, and Athena requires it for `_extra`.
        return "`" + (name.lower() if self.dialect == "athena" else name).replace("`", "``") + "`"

    def quoted(self, name: str) -> str:
        """Quotes a name for a query; Athena parses queries differently from a table's DDL."""
        return '"' + name.lower().replace('"', '""') + '"' if self.dialect == "athena" else self.identifier(name)

    def shown(self, column: Column, masked: bool) -> str:
        name = self.quoted(column.name)
        if not masked:
            return name
        return f"CAST(NULL AS {_IN_QUERIES[self.dialect].get(column.type, column.type)}) AS {name}"

    def text(self, value: str) -> str:
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"

    def columns(self, columns: Iterable[Column], notes: Iterable[str]) -> str:
        kinds = _NAMES[self.dialect]
        lines = [
            f"  {self.identifier(column.name)} {kinds[column.type]} COMMENT {self.text(note)}"
            for column, note in zip(columns, notes, strict=True)
        ]
        return "(\n" + ",\n".join(lines) + "\n)"

    def table(self, name: str, database: str = NAMESPACE) -> str:
        return f"{self.identifier(database)}.{self.identifier(name)}"

    def database(self, name: str) -> str:
        kind = "DATABASE" if self.dialect == "athena" else "NAMESPACE"
        return f"CREATE {kind} IF NOT EXISTS {self.identifier(name)};"

    def properties(self, entries: dict[str, str]) -> str:
        return "(" + ", ".join(f"{self.text(k)} = {self.text(v)}" for k, v in entries.items()) + ")"

    def inbox(self, contract: Contract, inbox: str) -> str:
        columns = [Column(field.name, _DELIVERED[field.kind]) for field in contract.fields]
        notes = [describe_field(contract.feed, field.name).comment for field in contract.fields]
        name, body = self.table(contract.feed, INBOX), self.columns(columns, notes)
        where = f"LOCATION {self.text(f'{inbox}/{contract.feed}/')}"
        if self.dialect == "athena":
            # Matching keys case-insensitively replaces a mapping for each camel-case name.
            serde = self.properties({"case.insensitive": "TRUE", "ignore.malformed.json": "FALSE"})
            return (
                f"CREATE EXTERNAL TABLE IF NOT EXISTS {name} {body}\n"
                f"ROW FORMAT SERDE 'org.openx.data.jsonserde.JsonSerDe'\nWITH SERDEPROPERTIES {serde}\n{where}"
            )
        # by default Spark makes a row of nulls of a bad line
        options = self.properties({"mode": "FAILFAST", "encoding": "UTF-8"})
        return f"CREATE TABLE IF NOT EXISTS {name} {body}\nUSING json\nOPTIONS {options}\n{where}"

    def iceberg(self, name: str, location: str) -> str:
        columns = COLUMNS[name]
        head = f"CREATE TABLE IF NOT EXISTS {self.table(name)} {self.columns(columns, comments(name).values())}"
        where = f"LOCATION {self.text(f'{location}/{ZONES[name]}/{name}')}"
        if self.dialect == "athena":
            entries = {"table_type": "ICEBERG", "format": "parquet", "write_compression": "zstd"}
            return f"{head}\n{where}\nTBLPROPERTIES {self.properties(entries)}"
        entries = {"format-version": "2", "write.parquet.compression-codec": "zstd"}
        return f"{head}\nUSING iceberg\n{where}\nTBLPROPERTIES {self.properties(entries)}"


def ddl(dialect: str, location: str, inbox: str | None = None, tables: Iterable[str] | None = None) -> str:
    """Returns statements that create the lake's tables in another engine.

    Each ends with a semicolon; a blank line follows each but the last.

    Args:
        dialect: `athena` or `spark`.
        location: The URI under which the lake's zones are; for Athena, it begins with `s3://`.
        inbox: The URI that has a folder of newline-delimited JSON for each feed; None for no inbox tables.
        tables: The lake's tables to create; None for all, in the order in which data flow.

    Raises:
        UsageError: The dialect, the location, the inbox or a table is not valid.
    """
    if dialect not in ("athena", "spark"):
        raise UsageError(f"DDL: expected the dialect athena or spark, found {printable(dialect[:40])}.")
    wanted = None if tables is None else frozenset(tables)
    unknown = sorted((wanted or frozenset()) - COLUMNS.keys())
    if unknown:
        raise UsageError(f"DDL: no table {printable(unknown[0][:80])}. `stedi tables` lists them.")
    writer = _Writer(dialect)
    parts = [_comment(_PREFACE[dialect])]
    parts.append(writer.database(NAMESPACE))
    if inbox is not None:
        inbox = _place(inbox, dialect, "inbox")
        parts.append(_comment(_INBOX))
        parts.append(writer.database(INBOX))
        parts += [writer.inbox(contract, inbox) + ";" for contract in CONTRACTS.values()]
    location = _place(location, dialect, "location")
    parts.append(_comment(_ICEBERG))
    parts += [writer.iceberg(name, location) + ";" for name in ZONES if wanted is None or name in wanted]
    return "\n\n".join(parts)


def views(dialect: str, role: Role) -> str:
    """Returns statements that create a view of each table that a role sees; columns masked for the role are null.

    Args:
        dialect: `athena` or `spark`.
        role: The role; its views are in a database named after it.

    Raises:
        UsageError: The dialect is not valid.
    """
    from stedi.schema.classification import ColumnLineage

    if dialect not in ("athena", "spark"):
        raise UsageError(f"DDL: expected the dialect athena or spark, found {printable(dialect[:40])}.")
    writer, grant, lineage = _Writer(dialect), GRANTS[role], ColumnLineage(graph())
    database = f"{NAMESPACE}_{role}"
    parts = [_comment(_VIEWS), writer.database(database)]
    for table in (name for name in ZONES if name in grant.tables):
        masked = {name.lower() for name, kind in lineage.classes(table).items() if kind in grant.masked}
        shown = ",\n".join("  " + writer.shown(column, column.name.lower() in masked) for column in COLUMNS[table])
        head = f"CREATE OR REPLACE VIEW {writer.quoted(database)}.{writer.quoted(table)} AS"
        parts.append(f"{head}\nSELECT\n{shown}\nFROM {writer.quoted(NAMESPACE)}.{writer.quoted(table)};")
    return "\n\n".join(parts)


def _comment(text: str) -> str:
    return "\n".join(f"-- {line}".rstrip() for line in text.splitlines())


def _place(uri: str, dialect: str, what: str) -> str:
    """Returns a URI without trailing slashes, or refuses one that is not valid."""
    if not uri.strip() or not uri.isprintable():
        raise UsageError(f"DDL: the {what}: expected a URI in printable characters.")
    if dialect == "athena" and not (uri.startswith("s3://") and len(uri) > len("s3://")):
        raise UsageError(
            f"DDL: the {what}: Athena reads only S3: expected s3://BUCKET/PREFIX, found {printable(uri[:80])}."
        )
    return uri.rstrip("/")
