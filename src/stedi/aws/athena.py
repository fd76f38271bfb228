"""Runs a query on Athena: the same SQL as elsewhere, validated, translated, and limited by the role's workgroup.

DuckDB's parser validates the statement as it does for the sandbox. SQLGlot translates it to Athena's dialect, and the
translation is parsed and validated again: it must be one query over tables that the role may read completely. Both
steps run in a separate process with limits of time and memory. IAM has the final decision.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stedi import query
from stedi._frozen import dataclass
from stedi.aws.account import answering, client
from stedi.aws.cost import PRICES, TERABYTE
from stedi.errors import QueryFailed, QueryRefused, printable
from stedi.query.statement import folded, judge, shown
from stedi.schema.roles import GRANTS, Role
from stedi.schema.tables import COLUMNS, NAMESPACE, graph

if TYPE_CHECKING:
    import pyarrow as pa
    from sqlglot import exp

POLL = 0.5
"""Seconds between two checks of a running query."""
_LEAST = 10 << 20
"""The fewest bytes that a query is billed for."""
_PLAIN = frozenset(
    {
        *("AMBIGUOUS_NAME", "CATALOG_NOT_FOUND", "COLUMN_NOT_FOUND", "COLUMN_TYPE_UNKNOWN", "EXPRESSION_NOT_AGGREGATE"),
        *("FUNCTION_NOT_FOUND", "MISMATCHED_COLUMN_ALIASES", "NOT_SUPPORTED", "SCHEMA_NOT_FOUND", "SYNTAX_ERROR"),
        *("TABLE_NOT_FOUND", "TYPE_MISMATCH", "TYPE_NOT_FOUND", "EXCEEDED_TIME_LIMIT"),
    }
)
"""Codes of errors that occur before a row is read, so that their messages contain no value of a row."""

MAX_SQL = 262_144
"""Characters of the longest statement that Athena accepts."""

_HIGHLIGHT = re.compile(r"\x1b\[[0-9;]*m")
"""The terminal codes with which SQLGlot underlines what it could not parse."""

_ANOTHER = "A query is one SELECT over the lake's tables; Athena's dialect makes another of it."

_SAME = frozenset(
    {
        *("Alias", "CTE", "Column", "Except", "From", "Group", "Having", "Identifier", "Intersect", "Join", "Limit"),
        *("Literal", "Null", "Offset", "Order", "Ordered", "Paren", "Select", "Star", "Subquery", "Table"),
        *("TableAlias", "Union", "Var", "Where", "With"),
        *("Add", "And", "Between", "Case", "Cast", "Coalesce", "DPipe", "DataType", "Div", "EQ", "Exists", "GT", "GTE"),
        *("ILike", "If", "In", "IntDiv", "Interval", "Is", "LT", "LTE", "Like", "Mod", "Mul", "NEQ", "Neg", "Not"),
        *("Nullif", "Or", "RegexpLike", "Sub", "TryCast"),
        *("ApproxDistinct", "ArrayAgg", "Avg", "Corr", "Count", "CountIf", "Distinct", "Filter", "Lag", "Max", "Min"),
        *("RowNumber", "Stddev", "Sum", "VariancePop", "Window", "WindowSpec"),
        *("Abs", "DateDiff", "Extract", "Left", "Length", "Lower", "Round", "Substring", "TimestampTrunc", "Trim"),
        *("Upper",),
    }
)
"""Constructs, by SQLGlot's names, that gave the same results on a Trino server. Trino reads some others differently
without an error: it reads an anti join as a join, and ignores an order."""


@dataclass(frozen=True, slots=True)
class Bill:
    """What a query read and cost.

    Attributes:
        query: Athena's id of the query.
        bytes_scanned: Bytes that it read.
        dollars: Its cost at list price, including the minimum charge.
    """

    query: str
    bytes_scanned: int
    dollars: float


def visible(role: Role) -> frozenset[str]:
    """Returns the tables that a role may read on Athena: those without a column that it may not see.

    Columns in a file cannot be masked. So tables with columns that `query --role` masks are not available here, and
    neither are the tables about releases.
    """
    from stedi.schema.classification import ColumnLineage

    grant, lineage = GRANTS[role], ColumnLineage(graph())
    return frozenset(t for t in grant.tables & COLUMNS.keys() if not grant.masked & set(lineage.classes(t).values()))


def translated(sql: str, tables: Iterable[str], snapshots: Mapping[str, int] | None = None) -> str:
    """Translates a statement to Athena's dialect.

    Args:
        sql: One SELECT in DuckDB's dialect.
        tables: The tables that it may read.
        snapshots: The snapshot to read of each table; for tables that are not listed, the current one.

    Raises:
        QueryRefused: It is not one SELECT, reads something else, or cannot be expressed in Athena's dialect.
    """
    import sqlglot
    from sqlglot import exp
    from sqlglot.errors import ErrorLevel, SqlglotError

    if len(sql) > MAX_SQL:
        raise QueryRefused(f"The statement is too long for Athena: expected at most {MAX_SQL:,} characters.")
    known = {name.lower() for name in tables}
    reads = judge(sql).tables
    for name in sorted(reads - known):
        raise QueryRefused(
            f"A query is one SELECT over the lake's tables; {shown(name)} is not a table that this role may query."
        )
    try:
        other = next(iter(_other(sqlglot.parse_one(sql, read="duckdb"))), None)
        if other:
            raise QueryRefused(
                f"{printable(other)}: it may mean something else in Athena, so nothing was sent. Use plain joins, "
                "groups and functions, or run it with --engine duckdb."
            )
        written = sqlglot.transpile(sql, read="duckdb", write="athena", unsupported_level=ErrorLevel.RAISE)
        trees = sqlglot.parse(written[0], read="athena") if len(written) == 1 else []
    except RecursionError:
        raise QueryRefused("The statement is nested too deeply for Athena. Split it with WITH.") from None
    except SqlglotError as error:
        said = printable(_HIGHLIGHT.sub("", str(error).splitlines()[0]))[:200]
        raise QueryRefused(
            f"The statement cannot be translated to Athena's dialect: {said} Nothing was run."
        ) from error
    tree = trees[0] if len(trees) == 1 else None
    if not isinstance(tree, exp.Query):
        raise QueryRefused(_ANOTHER)
    found = list(_tables(tree))
    if any(table.catalog or table.db.lower() not in ("", NAMESPACE) for table in found):
        raise QueryRefused(_ANOTHER)
    # two parsers must read the same tables: what only one of them sees has passed no check
    if {folded(table.name) for table in found} != reads:
        raise QueryRefused(_ANOTHER)
    return _at(tree, found, snapshots) if snapshots else written[0]


def _tables(tree: exp.Query) -> Iterator[exp.Table]:
    """Yields each reference to a table in a statement, but not the references to parts of a WITH."""
    from sqlglot import exp

    for table in tree.find_all(exp.Table):
        if table.db or table.catalog or folded(table.name) not in _defined_for(table):
            yield table


def _defined_for(table: exp.Table) -> Iterator[str]:
    """Yields the names defined by WITH that are visible at a reference: those of earlier and of enclosing parts."""
    from sqlglot import exp

    child: exp.Expr = table
    part: exp.CTE | None = None  # the part of a WITH that contains the reference
    union: exp.Expr | None = None  # the union in it whose right side contains the reference
    while (node := child.parent) is not None:
        if isinstance(node, exp.Union) and child is node.expression:
            union = node
        if isinstance(node, exp.CTE):
            part, recursive = node, union is not None and union is node.this
        with_ = node.find(exp.With, bfs=True) if isinstance(node, exp.Query) and node.ctes else None
        if with_ is not None and with_.parent is node:
            inside = part is not None and part.parent is with_
            for cte in with_.expressions:
                itself = inside and cte is part
                if not itself or (with_.args.get("recursive") and recursive):
                    yield folded(cte.alias)
                if itself:
                    break
        child = node


def _at(tree: exp.Query, found: Sequence[exp.Table], snapshots: Mapping[str, int]) -> str:
    """Returns a statement in Athena's dialect that reads the tables' given snapshots."""
    from sqlglot import exp

    # a name that is both a table and a part of WITH would get a version in the wrong place
    both = {folded(cte.alias) for cte in tree.find_all(exp.CTE)} & snapshots.keys()
    if both:
        raise QueryRefused(f"--at: expected WITH to give names of its own, found {', '.join(sorted(both))}, a table's.")
    for table in found:
        snapshot = snapshots.get(folded(table.name))
        if snapshot is not None:
            number = exp.Literal.number(snapshot)
            table.set("version", exp.Version(this="VERSION", kind="AS OF", expression=number))
    return tree.sql("athena")


def _other(tree: exp.Expr) -> Iterator[str]:
    """Yields the constructs of a statement that are not known to mean the same on Athena."""
    from sqlglot import exp

    for node in tree.walk():
        if type(node).__name__ not in _SAME:
            yield node.name.upper() if isinstance(node, exp.Anonymous) else type(node).__name__.upper()
        # these have a name above and mean something else by one of their arguments
        match node:
            case exp.Join() if node.method or node.kind not in ("", "INNER", "OUTER", "CROSS"):
                yield f"{node.method or node.kind} JOIN"
            case exp.Group() if node.args.get("all"):
                yield "GROUP BY ALL"
            case exp.Order() if any(ordered.this.sql().upper() == "ALL" for ordered in node.expressions):
                yield "ORDER BY ALL"
            case exp.Distinct() if node.args.get("on"):
                yield "DISTINCT ON"
            case exp.Star() if any(node.args.get(name) for name in ("except_", "replace", "rename", "ilike")):
                yield "* with EXCLUDE, REPLACE or RENAME"


def run(sql: str, *, role: Role, workgroup: str, snapshots: Mapping[str, int] | None = None) -> Result:
    """Runs a query and returns its rows, which are read page by page.

    Args:
        sql: One SELECT in DuckDB's dialect.
        role: The role that runs it; tables that the role may not read completely are refused.
        workgroup: The workgroup, which limits the bytes that a query may scan and stores its results.
        snapshots: The snapshot to read of each table; by default the current ones.

    Raises:
        QueryRefused: The statement is not allowed; nothing was done.
        QueryFailed: Athena could not complete the query.
        CloudFailed: AWS refused a request.
    """
    # in a process of its own: a hostile statement can make a parser take any time and memory
    text = query.bounded("stedi.aws.athena:translated", sql, sorted(visible(role)), dict(snapshots or {}))
    with answering(f"workgroup {workgroup}"):
        name = client("athena").start_query_execution(
            QueryString=text, QueryExecutionContext={"Database": NAMESPACE}, WorkGroup=workgroup
        )["QueryExecutionId"]
        try:
            about = _ended(name)
        except BaseException:
            # an interrupted query would go on reading, and cost
            client("athena").stop_query_execution(QueryExecutionId=name)
            raise
    state = about["Status"]["State"]
    if state != "SUCCEEDED":
        raise QueryFailed(
            f"The query ended as {state.lower()}: {_reason(about['Status'].get('StateChangeReason', ''))}"
        )
    scanned = int(about.get("Statistics", {}).get("DataScannedInBytes", 0))
    return Result(Bill(name, scanned, max(scanned, _LEAST) / TERABYTE * PRICES.athena_terabyte))


def _ended(name: str) -> Mapping[str, Any]:
    while True:
        found: dict[str, Any] = client("athena").get_query_execution(QueryExecutionId=name)["QueryExecution"]
        if found["Status"]["State"] not in ("QUEUED", "RUNNING"):
            return found
        time.sleep(POLL)


def _reason(said: str) -> str:
    """Returns Athena's reason for a failure, without text that may contain a row's value."""
    code = said.partition(":")[0]
    if code in _PLAIN:
        return said[:300]
    if "limit" in said.lower() and "bytes" in said.lower():
        return "it would read more bytes than its workgroup allows; name fewer columns or a shorter time"
    return f"{code if code.isupper() else 'an error'}; Athena's console says more"


class Result:
    """The rows of a completed query, which can be read once, page by page."""

    def __init__(self, bill: Bill) -> None:
        self.bill = bill
        pages = iter(client("athena").get_paginator("get_query_results").paginate(QueryExecutionId=bill.query))
        with answering(f"query {bill.query}"):
            self._first = next(pages)
        self._pages = pages
        columns = self._first["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
        self._columns = [(column["Name"], column["Type"]) for column in columns]

    def reader(self) -> pa.RecordBatchReader:
        """Returns the rows batch by batch."""
        import pyarrow as pa

        schema = pa.schema([pa.field(name, _type(kind)) for name, kind in self._columns])
        return pa.RecordBatchReader.from_batches(schema, self._batches(schema))

    def _batches(self, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        page, rows = self._first, self._first["ResultSet"]["Rows"][1:]  # the first row names the columns
        while True:
            texts = [[cell.get("VarCharValue") for cell in row["Data"]] for row in rows]
            columns = list(zip(*texts, strict=True)) if texts else [()] * len(schema)
            arrays = [_column(column, field.type) for column, field in zip(columns, schema, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)
            with answering(f"query {self.bill.query}"):
                page = next(self._pages, None)
            if page is None:
                return
            rows = page["ResultSet"]["Rows"]


def _type(kind: str) -> pa.DataType:
    """Returns the Arrow type for an Athena type; text if there is none."""
    import pyarrow as pa

    plain = {
        "boolean": pa.bool_(),
        "tinyint": pa.int8(),
        "smallint": pa.int16(),
        "integer": pa.int32(),
        "bigint": pa.int64(),
        "float": pa.float32(),
        "real": pa.float32(),
        "double": pa.float64(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us"),
        "timestamp with time zone": pa.timestamp("us", "UTC"),
        "varbinary": pa.binary(),
    }
    zoned = kind.endswith("with time zone")  # includes timestamp(3) with time zone
    return plain.get("timestamp with time zone" if zoned else kind.partition("(")[0], pa.string())


def _column(texts: Sequence[str | None], kind: pa.DataType) -> pa.Array:
    """Converts a column of texts to its own type; Athena returns every value as text."""
    import pyarrow as pa

    if pa.types.is_binary(kind):
        return pa.array([None if text is None else bytes.fromhex(text) for text in texts], kind)
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        # the tables' instants are in UTC, which Athena names behind the value and Arrow does not read
        found = pa.array([None if text is None else text.removesuffix(" UTC") for text in texts], pa.string())
        return found.cast(pa.timestamp("us")).cast(pa.int64()).cast(kind)
    found = pa.array(texts, pa.string())
    return found if pa.types.is_string(kind) else found.cast(kind)
