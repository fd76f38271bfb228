"""The lake's tables: zones, columns, and the graph of the SQL files.

A table below landing is one SQL file whose path gives its zone and name; its inputs are parsed from the SQL.
`sql/views` holds SELECTs that several tables share and that are not stored. Only the package's own files are read.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import TopologicalSorter
from itertools import pairwise
from typing import TYPE_CHECKING

from stedi._frozen import dataclass, field
from stedi.errors import LakeError
from stedi.schema import statements
from stedi.schema.contracts import Kind, PrivacyClass
from stedi.schema.feeds import CONTRACTS

if TYPE_CHECKING:
    from sqlglot import exp

NAMESPACE = "stedi"


@dataclass(frozen=True, slots=True)
class Column:
    """A column with its Iceberg type: string, long, double, timestamptz, date or binary."""

    name: str
    type: str


@dataclass(frozen=True, slots=True)
class DataFile:
    """One immutable Parquet file of a table.

    Attributes:
        path: Absolute path or URI.
        rows: Rows in it.
        bytes: Size in bytes.
        nulls: The number of nulls, by column.
        bounds: Lowest and highest value as text, by column; text columns never have bounds.
        sha256: The SHA-256 of its bytes, hex, if its writer had to return it; else it is stored with the file, or found
            by reading the file.
    """

    path: str
    rows: int
    bytes: int
    nulls: Mapping[str, int] = field(default_factory=dict)
    bounds: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    sha256: str = ""


CONSENT_FROM = (
    "case when shareWithResearchAsOfDate > lastUpdateDate then shareWithResearchAsOfDate "
    "when shareWithResearchAsOfDate is not null then lastUpdateDate end"
)
"""The SQL of the instant from which a landed record can give consent, epoch milliseconds (rule 3). A build before it
and a build after it may treat the record differently. Null if the record can never give consent."""

_KIND_TYPES = {Kind.TEXT: "string", Kind.INSTANT: "long", Kind.NUMBER: "double", Kind.INTEGER: "long"}

_CUSTOMER = (
    Column("customer_id", "string"),
    Column("customerName", "string"),
    Column("email", "string"),
    Column("phone", "string"),
    Column("birthDay", "date"),
    Column("serialNumber", "string"),
    Column("registrationDate", "timestamptz"),
    Column("lastUpdateDate", "timestamptz"),
    Column("shareWithResearchAsOfDate", "timestamptz"),
    Column("shareWithPublicAsOfDate", "timestamptz"),
    Column("shareWithFriendsAsOfDate", "timestamptz"),
)

COLUMNS: dict[str, tuple[Column, ...]] = {
    **{
        contract.table: (
            *(Column(field.name, _KIND_TYPES[field.kind]) for field in contract.fields),
            Column("_extra", "string"),
            Column("_file", "string"),
        )
        for contract in CONTRACTS.values()
    },
    "quarantine": (
        Column("feed", "string"),
        Column("file", "string"),
        Column("sha256", "string"),
        Column("offset", "long"),
        Column("line", "long"),
        Column("reason", "string"),
        Column("raw", "binary"),
        Column("raw_size", "long"),
        Column("batch", "string"),
        Column("landed_at", "timestamptz"),
    ),
    "landed_files": (
        Column("sha256", "string"),
        Column("name", "string"),
        Column("feed", "string"),
        Column("size", "long"),
        Column("seen", "long"),
        Column("accepted", "long"),
        Column("quarantined", "long"),
        Column("erased", "long"),
        Column("batch", "string"),
        Column("landed_at", "timestamptz"),
    ),
    "customers_trusted": _CUSTOMER,
    "accelerometer_trusted": (
        Column("customer_id", "string"),
        Column("timestamp", "timestamptz"),
        Column("x", "double"),
        Column("y", "double"),
        Column("z", "double"),
    ),
    "customers_curated": _CUSTOMER,
    "step_trainer_trusted": (
        Column("customer_id", "string"),
        Column("sensorReadingTime", "timestamptz"),
        Column("serialNumber", "string"),
        Column("distanceFromObject", "long"),
    ),
    "machine_learning_curated": (
        Column("customer_id", "string"),
        Column("sensorReadingTime", "timestamptz"),
        Column("distanceFromObject", "long"),
        Column("x", "double"),
        Column("y", "double"),
        Column("z", "double"),
    ),
}
"""Every table's columns; a column's Iceberg field id is its position, starting at 1."""

_FREE = {
    field.name
    for contract in CONTRACTS.values()
    for field in contract.fields
    if field.kind is Kind.TEXT and field.privacy is PrivacyClass.DIRECT and not field.names_customer
}
FREE_TEXTS: dict[str, tuple[str, ...]] = {
    table: free
    for table, columns in COLUMNS.items()
    if (free := tuple(column.name for column in columns if column.type == "string" and column.name in _FREE))
}
"""For each table with such columns, those in which others can be mentioned: texts about a customer, not the address."""

ZONES: dict[str, str] = {
    **dict.fromkeys((*(contract.table for contract in CONTRACTS.values()), "quarantine", "landed_files"), "landing"),
    "customers_trusted": "trusted",
    "accelerometer_trusted": "trusted",
    "customers_curated": "curated",
    "step_trainer_trusted": "trusted",
    "machine_learning_curated": "curated",
}
"""The zone of each table, in the order in which data flow."""

REGISTRY: dict[str, tuple[Column, ...]] = {
    "releases": (
        Column("release", "string"),
        Column("name", "string"),
        Column("version", "long"),
        Column("path", "string"),
        Column("purpose", "string"),
        Column("recipient", "string"),
        Column("subjects", "long"),
        Column("rows", "long"),
        Column("manifest", "string"),
        Column("manifest_sha256", "string"),
        Column("released_at", "timestamptz"),
    ),
    "release_subjects": (
        Column("release", "string"),
        Column("subject", "string"),
        Column("split", "string"),
        Column("rows", "long"),
    ),
    "release_events": (
        Column("release", "string"),
        Column("what", "string"),
        Column("subject", "string"),
        Column("text", "string"),
        Column("noted_at", "timestamptz"),
    ),
}
"""The columns of the release tables; the first release of a lake creates them, in the zone `released`."""

ALL_COLUMNS: dict[str, tuple[Column, ...]] = {**COLUMNS, **REGISTRY}
"""The columns of every table that a lake may have."""
_OPTIONAL = {"customerName", "phone", "birthDay", "shareWithPublicAsOfDate", "shareWithFriendsAsOfDate"}
REQUIRED: dict[str, frozenset[str]] = {
    **{
        contract.table: frozenset({*(field.name for field in contract.required), "_file"})
        for contract in CONTRACTS.values()
    },
    **{
        table: frozenset(column.name for column in columns) - _OPTIONAL
        for table, columns in COLUMNS.items()
        if ZONES[table] != "landing"
    },
}
"""The columns that are never null: landing quarantines a record without them; a build that makes such a row fails."""
ALL_ZONES: dict[str, str] = {**ZONES, **dict.fromkeys(REGISTRY, "released")}
"""The zone of every table that a lake may have, in the order in which data flow."""

DUCKDB_TYPES = {
    "string": "VARCHAR",
    "long": "BIGINT",
    "double": "DOUBLE",
    "timestamptz": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "binary": "BLOB",
}
"""DuckDB's name of each Iceberg type used here."""
SPARK_TYPES = {
    "string": "string",
    "long": "bigint",
    "double": "double",
    "timestamptz": "timestamp",
    "date": "date",
    "binary": "binary",
}
"""Spark's name of each Iceberg type used here; Hive's is the same."""


@dataclass(frozen=True, slots=True)
class Model:
    """One SELECT of the package, and the tables and views that it reads.

    Attributes:
        name: The table's or view's name.
        zone: `trusted`, `curated`, or `views` if the result is not stored.
        sql: The file's text.
        reads: The names of the tables and views that it reads.
    """

    name: str
    zone: str
    sql: str
    reads: frozenset[str]

    def tree(self) -> exp.Expr:
        """Returns the SELECT as a new SQLGlot tree."""
        return parse(self.sql)


@dataclass(frozen=True, slots=True)
class Dag:
    """All SELECTs of the lake and the order in which they can run."""

    selects: Mapping[str, Model]

    def order(self) -> tuple[str, ...]:
        """Returns tables and views, each after everything that it reads."""
        # sorted, since sets have another order in each process
        edges = {name: sorted(select.reads & self.selects.keys()) for name, select in sorted(self.selects.items())}
        return tuple(TopologicalSorter(edges).static_order())

    def tables(self) -> tuple[Model, ...]:
        """Returns the stored tables in build order."""
        return tuple(self.selects[name] for name in self.order() if self.selects[name].zone != "views")

    def upstream(self, name: str) -> frozenset[str]:
        """Returns the views under `name` and the stored tables that it reads directly or through views."""
        found: set[str] = set()
        todo = list(self.selects[name].reads)
        while todo:
            read = todo.pop()
            if read not in found:
                found.add(read)
                if read in self.selects and self.selects[read].zone == "views":
                    todo.extend(self.selects[read].reads)
        return frozenset(found)

    def inputs(self, name: str) -> tuple[str, ...]:
        """Returns the stored tables that `name` reads, directly or through views, sorted."""
        views = {select.name for select in self.selects.values() if select.zone == "views"}
        return tuple(sorted(self.upstream(name) - views))

    def fingerprint(self, name: str) -> str:
        """Returns 16 hex digits that change when the SQL of `name`, or of a view under it, changes in meaning.

        Comments and white space do not count.
        """
        views = {read for read in self.upstream(name) if read in self.selects and self.selects[read].zone == "views"}
        canonical = "\n".join(f"{n}: {_canonical(self.selects[n].sql)}" for n in sorted({name, *views}))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]


@cache  # a build asks for each several times
def _canonical(sql: str) -> str:
    return " ".join(token.group() for token in tokens(sql))


def parse(sql: str) -> exp.Expr:
    """Returns one statement in the lake's dialect as a SQLGlot tree."""
    import sqlglot

    return sqlglot.parse_one(sql, dialect="duckdb")


def rebind(sql: str, relations: Mapping[str, str], parameters: Mapping[str, str | int] | None = None) -> str:
    """Returns a SELECT in which other relations replace some tables, and which is otherwise the same.

    Args:
        sql: A SELECT in the lake's dialect.
        relations: For each table to be replaced, the name of the relation to read instead.
        parameters: The value of each `$name`; None leaves parameters unchanged.

    Raises:
        LakeError: The SELECT has a parameter without a value.
    """
    pieces: list[str] = []
    end, named = 0, False
    for token in tokens(sql):
        text = token.group()
        # drop comments between tokens, and reduce white space to one blank
        gap = " " if token.start() > end else ""
        end = token.end()
        if pieces and pieces[-1].strip().lower() in _READING and text in relations:
            text, named = relations[text], True
            # columns may be qualified by the table's name, so the replacement gets that name as its alias
            alias = f" as {token.group()}"
        elif named:
            if text.lower() != "as":
                pieces.append(alias)
            named = False
        if text.startswith("$") and parameters is not None:
            if text[1:] not in parameters:
                raise LakeError(f"SQL parameter {text}: expected one of {', '.join(sorted(parameters))}")
            value = parameters[text[1:]]
            text = str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
        pieces.append(gap + text)
    return "".join([*pieces, alias if named else ""]).strip()


_TOKEN = re.compile(
    r"""(?P<blank> \s+ | --[^\n]* | /\*.*?\*/ ) | '(?:[^']|'')*' | "(?:[^"]|"")*" | \$?\w+ | <=|>=|<>|!=|\|\||:: | .""",
    re.VERBOSE | re.DOTALL,
)
_READING = ("from", "join")
"""The keywords before a table's name in the lake's SQL, which never lists tables with commas."""


def tokens(sql: str) -> Iterator[re.Match[str]]:
    """Yields the tokens of a SELECT in the lake's dialect, without blanks and comments.

    SQLGlot parses the same files in the tests, but its import takes longer than a small build may take in total.
    """
    return (token for token in _TOKEN.finditer(sql) if token.lastgroup != "blank")


def _reads(sql: str) -> frozenset[str]:
    words = [token.group() for token in tokens(sql)]
    named = {word for before, word in pairwise(words) if before.lower() in _READING and word != "("}
    # `name as (` defines a name within the SELECT
    local = {word for word, *rest in zip(words, words[1:], words[2:], strict=False) if rest == ["as", "("]}
    return frozenset(named - local)


@cache
def graph() -> Dag:
    """Returns the graph of the package's own SQL files."""
    selects = {}
    for zone in ("views", "trusted", "curated"):
        for name, sql in statements.texts(zone).items():
            selects[name] = Model(name, zone, sql, _reads(sql))
    return Dag(selects)


@cache
def assertions() -> tuple[Model, ...]:
    """Returns the package's assertions: SELECTs whose every returned row is a violation."""
    found = sorted(statements.texts("assertions").items())
    return tuple(Model(name, "assertions", sql, _reads(sql)) for name, sql in found)
