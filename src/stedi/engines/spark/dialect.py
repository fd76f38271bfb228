"""Translates the lake's SQL from DuckDB's dialect to Spark's with SQLGlot. Only listed constructs are allowed.

A construct that is not on the list is refused before Spark sees it. It is added to the list when a test has shown that
both engines return the same rows for it. Where SQLGlot's own translation is wrong, this module corrects it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from stedi.errors import LakeError

if TYPE_CHECKING:
    from sqlglot import exp

CONSTRUCTS = frozenset(
    {
        *("Select", "From", "Join", "Where", "Group", "Having", "Qualify", "Order", "Ordered", "Limit", "Distinct"),
        *("With", "CTE", "Subquery", "Table", "TableAlias", "Alias", "Column", "Identifier", "Star", "Paren", "Tuple"),
        *("Union", "Except", "Values"),
        *("And", "Or", "Not", "EQ", "NEQ", "GT", "GTE", "LT", "LTE", "Between", "In", "Is"),
        *("NullSafeEQ", "NullSafeNEQ"),
        *("Add", "Sub", "Mul", "Neg", "Abs", "Struct", "PropertyEQ"),
        *("Literal", "Boolean", "Null", "DataType", "Cast", "TryCast", "Case", "If", "Coalesce"),
        *("Count", "Min", "Max", "Sum", "LogicalOr", "Filter", "Window", "RowNumber"),
        *("RegexpLike", "UnixToTime", "Anonymous"),
    }
)
"""The allowed constructs, as names of SQLGlot's classes."""
FUNCTIONS = {
    "instant": "timestamp_millis",
    "epoch_us": "unix_micros",
    "hash": "named_struct",
    "number": "",
    "row_hash": "xxhash64",
    "hash_sum": "sum",
}
"""Functions that SQLGlot does not know, and the Spark functions that replace them.

`instant` makes a timestamp from epoch milliseconds. `hash` is used only to compare for equality. Here the values
themselves are compared, which is exact: 64 bits are not enough for many more rows than one machine holds. `number`
gives each value of a relation without nulls a number, so that equal values have equal numbers. Numbering moves all
values to one machine: the values of a large relation are used themselves. `hash_sum` sums hashes of 64 bits, such as
`row_hash`, to as many digits as the sum needs. It sums the two halves of each hash: generated code adds integers, but
makes an object for each decimal of so many digits.
"""
_HASH_SUM = (
    "(cast(sum(shiftright(cast({0} as bigint), 32)) as decimal(20, 0)) * cast(4294967296 as decimal(10, 0)) "
    "+ sum({0} & 4294967295))"
)
_SAME: Mapping[str, str] = {}
_TYPES = frozenset({"BIGINT", "VARCHAR", "TEXT", "DOUBLE", "DATE", "TIMESTAMPTZ", "BOOLEAN", "INT"})


def to_spark(sql: str, names: Mapping[str, str] = _SAME, *, numbered: bool = False) -> str:
    """Translates a SELECT from the lake's dialect to Spark's.

    Args:
        sql: The SELECT.
        names: Other names of what it reads.
        numbered: Whether `number` gives numbers; all rows are in one place then.

    Raises:
        LakeError: It has a construct that is not known to mean the same in both dialects.
    """
    tree = _parsed(sql).transform(_ranked) if numbered else _parsed(sql)
    return _text(tree.transform(_replaced), names)


def in_parts(sql: str, parts: int, names: Mapping[str, str] = _SAME) -> str | None:
    """Returns a SELECT in Spark's dialect that repartitions its rows; None if it does not say which belong together.

    It does so if it has DISTINCT and ORDER BY: rows with the same value in the first column of the order go to the same
    partition. DISTINCT is then applied there, so that rows move only once. It also does so if it joins two tables on
    the first column of its result.

    Args:
        sql: The SELECT.
        parts: The number of partitions.
        names: Other names of what it reads.

    Raises:
        LakeError: It has a construct that is not known to mean the same in both dialects.
    """
    from sqlglot import exp

    tree = _parsed(sql).transform(_replaced)
    if _joined(tree, parts):
        return _text(tree, names)
    for select in tree.find_all(exp.Select):
        if select.args.get("distinct") and select.args.get("order") and not select.args.get("limit"):
            some = select.copy()
            for clause in ("distinct", "order"):
                some.set(clause, None)
            some.set("hint", _parted(parts, select.args["order"].expressions[0].this.name))
            select.replace(exp.select("*").distinct().from_(some.subquery("some")))
            return _text(tree, names)
    return None


def _joined(tree: exp.Expr, parts: int) -> bool:
    """Repartitions both sides of a join of two tables by the join column, if that is the result's first column.

    Returns whether it did.
    """
    from sqlglot import exp

    joins = tree.args.get("joins") or []
    if len(joins) != 1 or not isinstance(tree, exp.Select):
        return False
    equal, sides = joins[0].find(exp.EQ), (tree.args["from_"].this, joins[0].this)
    if equal is None or not all(isinstance(side, exp.Table) for side in sides):
        return False
    name = tree.selects[0].name
    if not all(isinstance(side, exp.Column) and side.name == name for side in (equal.this, equal.expression)):
        return False
    for side in sides:
        some = exp.select("*").from_(exp.table_(side.name))
        some.set("hint", _parted(parts, name))
        side.replace(some.subquery(side.alias))
    return True


def _parted(parts: int, by: str) -> exp.Hint:
    from sqlglot import exp

    arguments = [exp.Literal.number(parts), exp.column(by)]
    return exp.Hint(expressions=[exp.Anonymous(this="repartition", expressions=arguments)])


def reads(sql: str) -> frozenset[str]:
    """Returns the names that a SELECT in the lake's dialect reads from, including those that it defines itself."""
    from sqlglot import exp

    return frozenset(table.name for table in _parsed(sql).find_all(exp.Table))


def _text(tree: exp.Expr, names: Mapping[str, str]) -> str:
    from sqlglot import exp

    own = {defined.alias for defined in tree.find_all(exp.CTE)}
    for table in list(tree.find_all(exp.Table)):
        if table.name in names and table.name not in own:
            alias = table.alias_or_name
            table.set("this", exp.to_identifier(names[table.name]))
            table.set("alias", exp.TableAlias(this=exp.to_identifier(alias)))
    return tree.sql(dialect="spark", identify=True, comments=False)


@lru_cache(maxsize=512)
def _parsed(sql: str) -> exp.Expr:
    import sqlglot

    try:
        tree = sqlglot.parse_one(sql, dialect="duckdb")
    except sqlglot.ParseError as error:
        raise LakeError("Spark engine: expected one SELECT of the lake's SQL, found something else") from error
    for node in tree.walk():
        _check(node)
    return tree


def _check(node: exp.Expr) -> None:
    from sqlglot import exp

    found = type(node).__name__
    if found not in CONSTRUCTS:
        raise LakeError(
            f"Spark engine: {found}: expected only constructs with the same meaning in DuckDB and Spark; rewrite "
            "it, or test that both give the same rows and add it to stedi.engines.spark.dialect.CONSTRUCTS"
        )
    if isinstance(node, exp.Anonymous) and str(node.this).lower() not in FUNCTIONS:
        raise LakeError(f"Spark engine: function {node.this}: expected one of {', '.join(sorted(FUNCTIONS))}")
    if isinstance(node, exp.Join) and (node.method or node.args.get("using")):
        raise LakeError(f"Spark engine: {node.method} join: expected an inner or outer join with its condition")
    if isinstance(node, exp.DataType) and node.sql(dialect="duckdb") not in _TYPES:
        raise LakeError(f"Spark engine: type {node.sql(dialect='duckdb')}: expected one of {', '.join(sorted(_TYPES))}")


def _ranked(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous) and str(node.this).lower() == "number":
        order = exp.Order(expressions=[exp.Ordered(this=argument) for argument in node.expressions])
        return exp.Window(this=exp.DenseRank(), order=order)
    return node


def _replaced(node: exp.Expr) -> exp.Expr:
    from sqlglot import exp

    if isinstance(node, exp.Anonymous):
        name, arguments = FUNCTIONS[str(node.this).lower()], [_within(argument) for argument in node.expressions]
        if not name:
            return arguments[0]
        if name == "sum":
            return exp.maybe_parse(_HASH_SUM.format(arguments[0].sql("spark", identify=True)), dialect="spark")
        if name == "named_struct":  # by position: the compared columns may have different names
            places = (exp.Literal.string(f"_{place}") for place in range(len(arguments)))
            arguments = [part for pair in zip(places, arguments, strict=True) for part in pair]
        return exp.Anonymous(this=name, expressions=arguments)
    if isinstance(node, exp.In) and isinstance(node.args.get("query"), exp.Subquery):
        # with DISTINCT, few values move instead of one for each row; Spark does not add it by itself
        query = node.args["query"].this
        if isinstance(query, exp.Select) and not query.args.get("limit"):
            query.set("distinct", exp.Distinct())
    if isinstance(node, exp.UnixToTime):
        # `epoch_ms` takes a timestamp here; SQLGlot reads it as the DuckDB function that makes one
        return exp.Anonymous(this="unix_millis", expressions=[_within(node.this)])
    if isinstance(node, exp.RegexpLike) and isinstance(node.expression, exp.Literal):
        pattern = str(node.expression.this)
        if pattern.endswith("$"):
            # Java's `$` also matches before a final line break
            pattern = pattern[:-1] + r"\z"
        return exp.RegexpLike(this=_within(node.this), expression=exp.Literal.string(pattern))
    return node


def _within(node: exp.Expr) -> exp.Expr:
    """Translates a child of a replaced node: `transform` does not visit the children of a replacement."""
    return node.transform(_replaced)
