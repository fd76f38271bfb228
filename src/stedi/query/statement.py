"""Validates a statement before it runs: one SELECT over the lake's tables, with functions that reach nothing else.

DuckDB's own parser reads it, so the validated statement is the one that will run. Its JSON tree is checked with
allow-lists; names that WITH defines are resolved by the scoping rules of SQL. Nothing is bound and no file is opened.
The process that will run the statement judges it, under its own bounds of time and memory (`sandbox`), and the engine
there is closed as well: these walls stand one behind the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from stedi._frozen import dataclass
from stedi.errors import QueryRefused, printable
from stedi.query.vocabulary import AGGREGATES, FUNCTIONS, TABLE_FUNCTIONS

SCHEMA = "stedi"
"""The one schema in which a query finds the tables."""

MAX_SQL = 1_000_000
"""The longest statement that is read, in characters."""
_DEEPEST = 1_000
"""The deepest tree of a statement, about what Python 3.11 parses; later versions parse deeper ones."""
_TOO_DEEP = "The statement is nested too deeply. Split it with WITH."

_ALLOWED = "A query is one SELECT over the lake's tables"

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE"})
"""What a query, and each part of a WITH, may be. From DuckDB 2.0 on a part can also insert or copy to a file."""

_FROM = frozenset(
    {"BASE_TABLE", "EMPTY", "EMPTY_FROM", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)
_MODIFIERS = frozenset({"DISTINCT_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "ORDER_MODIFIER"})
_ORDERS = frozenset({"ASCENDING", "DESCENDING", "ORDER_DEFAULT"})
_EXPRESSIONS = frozenset(
    {
        *("BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION"),
        *("LAMBDA", "OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"),
    }
)
_TYPE_INFO = re.compile(r"[A-Z_]+_TYPE_INFO")

_PLAIN_NAME = re.compile(r"[^\W\d][\w $-]{0,127}", re.ASCII)
"""What WITH may name: nothing that could be the name of a file, and no letter that folds into another."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a statement reads.

    Attributes:
        tables: Names of tables, lower-case, except those that the statement defines itself.
        columns: Names of all columns that it reads, lower-case; None if unknown.
        one_row: Whether it has one row at most, since it only counts and sums.
    """

    tables: frozenset[str]
    columns: frozenset[str] | None
    one_row: bool = False


def judge(sql: str, *, parameters: bool = False) -> Judgement:
    """Returns what a statement reads, if the sandbox may run it.

    Args:
        sql: One SELECT in DuckDB's dialect.
        parameters: Whether it may have parameters, such as `?` and `$name`, which stand for values only.

    Raises:
        QueryRefused: It is not one, or could reach more than tables.
    """
    return _judged(*_parse(sql), parameters=parameters)


def judge_condition(sql: str) -> Judgement:
    """Returns what the SELECT of `condition` reads, once it is known to be that and nothing more.

    Raises:
        QueryRefused: The condition is not one, or would make another statement of it.
    """
    tree, system = _parse(sql)
    node = tree.get("node", {})
    source = node.get("from_table", {})
    plain = node.get("type") == "SELECT_NODE" and source.get("type") == "BASE_TABLE" and "where_clause" in node
    more = {"group_expressions", "group_sets", "having", "qualify", "sample", "cte_map"} & {
        name for name, found in node.items() if found not in ({}, {"map": []}, [], None)
    }
    # a condition that closes the parenthesis early would make another statement
    if not plain or more or [m.get("type") for m in node.get("modifiers", ())] != ["LIMIT_MODIFIER"]:
        # the condition is not repeated, since it may name people
        raise QueryRefused("Expected a single condition, as after WHERE, found more than that. Nothing was run.")
    return _judged(tree, system)


def condition(table: str, where: str, columns: str, limit: int) -> str:
    """Returns the SELECT of columns of at most so many of a table's rows that meet a condition."""
    # on lines of its own: a comment at the end of the condition must not swallow the parenthesis
    return f"select {columns} from {table} where (\n{where}\n) limit {limit}"


def shown(text: str) -> str:
    """Returns the caller's own words, short and safe to print."""
    text = printable(text[:1000])
    return f"'{text}'" if len(text) <= 60 else f"'{text[:59]}…'"


def folded(name: str) -> str:
    """Returns a name as the engine compares it: with ASCII letters in lower case."""
    return "".join(c.lower() if c.isascii() else c for c in name)


def _parse(sql: str) -> tuple[dict[str, Any], frozenset[str]]:
    """Returns the tree of the one SELECT that `sql` is, and the names that the engine itself gives to relations.

    The parser runs alone: nothing is bound or looked up, and the connection could reach no file if it were.
    """
    if len(sql) > MAX_SQL:
        raise QueryRefused(f"The statement is too long: expected at most {MAX_SQL:,} characters, found {len(sql):,}.")
    if "\0" in sql or not _is_unicode(sql):
        raise QueryRefused("The statement holds characters that are not text: expected UTF-8 without NUL.")
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "lock_configuration": True,
        "python_enable_replacements": False,
        "threads": 1,
    }
    with duckdb.connect(":memory:", config=config) as con:
        row = con.execute(
            "select json_serialize_sql(?::varchar, skip_null := true, skip_empty := true, skip_default := true)", [sql]
        ).fetchone()
        views = con.execute(
            # a WITH of such a name, misread, would find the engine's own view
            "select view_name from duckdb_views() where internal and schema_name <> 'information_schema'"
        ).fetchall()
    assert row is not None
    try:
        tree = json.loads(row[0])
    except RecursionError:
        raise QueryRefused(_TOO_DEEP) from None
    if tree["error"]:
        if tree.get("error_type") == "not implemented":
            raise QueryRefused(f"{_ALLOWED}, found another kind of statement (or PIVOT without IN). Nothing was run.")
        where = ""
        if str(tree.get("position", "")).isdigit():
            *above, line = sql[: int(tree["position"])].split("\n")
            where = f" (line {len(above) + 1:,}, column {len(line) + 1:,})"
        raise QueryRefused(f"The statement is not valid SQL: {_one_line(str(tree.get('error_message', '')))}{where}")
    statements = tree["statements"]
    if len(statements) != 1:
        found = "several statements" if statements else "no statement"
        raise QueryRefused(f"{_ALLOWED}, found {found}. Nothing was run.")
    return statements[0], frozenset(folded(name) for (name,) in views)


def _judged(tree: dict[str, Any], system: frozenset[str], *, parameters: bool = False) -> Judgement:
    walk = _Walk(system, parameters=parameters)
    # a list of what is allowed: what a later DuckDB adds is refused until somebody has judged it
    walk.over(tree)
    return Judgement(frozenset(walk.tables), walk.needed(), _has_one_row(tree.get("node", {})))


def _has_one_row(node: dict[str, Any]) -> bool:
    """Returns whether a SELECT consists of aggregates of all rows."""
    grouped = any(node.get(name) for name in ("group_expressions", "group_sets"))
    return (
        node.get("type") == "SELECT_NODE"
        and not grouped
        and all(
            item.get("class") == "FUNCTION" and str(item.get("function_name", "")).lower() in AGGREGATES
            for item in node.get("select_list", ())
        )
    )


def _one_line(words: str) -> str:
    return printable(re.sub(r"\s+", " ", words))[:300]


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


class _Walk:
    """One walk over a statement's tree.

    Args:
        system: Names in the engine's own catalog: WITH may not define them, so that a misread scope finds nothing.
        parameters: Whether the statement may have parameters.
    """

    def __init__(self, system: frozenset[str], *, parameters: bool = False) -> None:
        self._parameters = parameters
        self.tables: set[str] = set()
        self._system = system
        self._columns: set[str] = set()
        self._ends: set[str] = set()
        self._relations: set[str] = set()
        self._open = False

    def needed(self) -> frozenset[str] | None:
        """Returns the columns that are named, or None where a part of the statement takes all that there are."""
        whole_rows = self._ends & self._relations  # `select t from t` is a struct of all columns
        return None if self._open or whole_rows else frozenset(self._columns)

    def over(self, tree: dict[str, Any]) -> None:
        """Notes what a tree reads.

        Raises:
            QueryRefused: It reaches beyond tables.
        """
        # a list, not recursion: a statement may be nested deeper than the stack of this process
        todo: list[tuple[Any, frozenset[str], int]] = [(tree, frozenset(), 0)]
        while todo:
            node, scope, depth = todo.pop()
            if depth > _DEEPEST:
                raise QueryRefused(_TOO_DEEP)
            if isinstance(node, list):
                todo.extend((child, scope, depth + 1) for child in node)
            elif isinstance(node, dict):
                self._judge(node, scope)
                todo.extend((child, within, depth + 1) for child, within in self._children(node, scope))

    def _children(self, node: dict[str, Any], scope: frozenset[str]) -> Iterator[tuple[Any, frozenset[str]]]:
        """Yields the parts of a node, each with the names that WITH has defined for it."""
        ctes = node.get("cte_map")
        for entry in ctes.get("map", ()) if isinstance(ctes, dict) else ():
            # a part of a WITH sees those before it, not itself and none after it
            yield entry.get("value"), scope
            scope |= {self._defined(str(entry.get("key", "")))}
        recursive = node.get("type") == "RECURSIVE_CTE_NODE"
        for name, child in node.items():
            if recursive and name == "right":
                yield child, scope | {self._defined(str(node.get("cte_name", "")))}
            elif name != "cte_map":
                yield child, scope

    def _defined(self, name: str) -> str:
        name = folded(name)
        if _PLAIN_NAME.fullmatch(name) is None or name in self._system:
            raise QueryRefused(
                f"{_ALLOWED}; WITH may not use the name {shown(name)}: expected a plain ASCII name that the engine "
                "does not use itself. Nothing was run."
            )
        self._relations.add(name)
        return name

    def _judge(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        kind, expression = node.get("type"), node.get("class")
        if expression is not None:
            self._judge_expression(node, str(expression))
        elif isinstance(kind, str):
            self._judge_part(node, kind, scope)
        if "using_columns" in node:
            self._columns.update(folded(str(name)) for name in node["using_columns"])
        source = node.get("from_table")
        if isinstance(source, dict) and source.get("type") not in _FROM:
            raise QueryRefused(f"{_ALLOWED}; its FROM contains something else.")

    def _judge_part(self, node: dict[str, Any], kind: str, scope: frozenset[str]) -> None:
        if alias := node.get("alias"):
            self._relations.add(folded(str(alias)))
        self._open |= "column_name_alias" in node or node.get("ref_type") in ("NATURAL", "POSITIONAL")
        match kind:
            case "BASE_TABLE":
                self._table(node, scope)
            case "TABLE_FUNCTION":
                name = str(node.get("function", {}).get("function_name", "")).lower()
                if name not in TABLE_FUNCTIONS:
                    raise QueryRefused(
                        f"{_ALLOWED}; the table function {shown(name)} is not allowed: no files, no network, no "
                        "settings."
                    )
            case "SHOW_REF" if "query" not in node:
                raise QueryRefused(f"{_ALLOWED}; SHOW is not allowed. `stedi tables` lists the tables.")
            case "SHOW_REF" | "PIVOT":
                self._open = True
            case _ if kind.endswith("_NODE") and kind not in _QUERIES:
                raise QueryRefused(f"{_ALLOWED}; it contains a part that writes. Nothing was run.")
            case _ if not (kind in _QUERIES | _FROM | _MODIFIERS | _ORDERS or _TYPE_INFO.fullmatch(kind)):
                raise QueryRefused(f"{_ALLOWED}; {kind.replace('_', ' ').lower()} is not supported. Nothing was run.")

    def _judge_expression(self, node: dict[str, Any], kind: str) -> None:
        match kind:
            case "FUNCTION" | "WINDOW":
                name = str(node.get("function_name", "")).lower()
                # one unknown function can read files or settings
                if name not in FUNCTIONS | TABLE_FUNCTIONS:
                    raise QueryRefused(
                        f"{_ALLOWED}; the function {shown(name)} is not allowed: no files, no network, no settings, "
                        "no engine internals."
                    )
            case "COLUMN_REF":
                names = [folded(str(name)) for name in node.get("column_names", ())]
                self._columns.update(names)
                self._ends.update(names[-1:])
            case "STAR" | "POSITIONAL_REFERENCE":
                self._open = True
            case "PARAMETER" if not self._parameters:
                raise QueryRefused(
                    f"{_ALLOWED}; found a parameter without a value: use $NAME with --parameter NAME=VALUE, or with "
                    "parameters= in Python"
                )
            case "PARAMETER":
                pass  # a value takes its place when the statement is bound, never text
            case _ if kind not in _EXPRESSIONS:
                raise QueryRefused(f"{_ALLOWED}; {kind.replace('_', ' ').lower()} is not supported. Nothing was run.")

    def _table(self, node: dict[str, Any], scope: frozenset[str]) -> None:
        catalog, schema, name = (folded(str(node.get(k, ""))) for k in ("catalog_name", "schema_name", "table_name"))
        if "at_clause" in node:
            raise QueryRefused(f"{_ALLOWED}; AT is not allowed. Use `stedi query --at`.")
        # `recurring` is DuckDB's name for all rows that a recursive WITH has so far
        if catalog or schema not in ("", SCHEMA, "recurring"):
            raise QueryRefused(f"{_ALLOWED}; the only schema is {shown(SCHEMA)}.")
        self._relations.add(name)
        if schema == "recurring" and name not in scope:
            raise QueryRefused(f"{_ALLOWED}; recurring is only allowed in WITH RECURSIVE.")
        # a name that WITH defines hides a table only without its schema
        if schema == SCHEMA or name not in scope:
            self.tables.add(name)
