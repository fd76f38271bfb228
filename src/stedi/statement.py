"""A statement is judged before it runs: one SELECT over the lake's tables, with functions that reach nothing else.

DuckDB's own parser reads it, so what is judged is what will run; the tree that it writes as JSON is walked against
lists of what is allowed. Nothing is bound, no file is opened. The engine is closed as well (`sandbox`): these walls
stand one behind the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from stedi.errors import QueryRefused
from stedi.layout import safe

SCHEMA = "stedi"
"""The one schema in which a query finds the tables."""

MAX_SQL = 1_000_000
"""The longest statement that is read, in characters."""

_ALLOWED = "A query is one SELECT over the lake's tables"

_TABLE_FUNCTIONS = frozenset(
    {"generate_series", "json_each", "json_tree", "pg_timezone_names", "range", "repeat", "repeat_row", "unnest"}
)

_FORBIDDEN_FUNCTION = re.compile(
    r"(__internal.*|arrow_scan.*|combine|current_setting|currval|duckdb_.*|finalize|format_type|get_block_size|getenv"
    r"|getvariable|glob|json_execute.*|json_serialize_plan|nextval|parquet_.*|pg_get_.*|pg_sleep|pragma_.*|query.*"
    r"|read_.*|setval|sleep_ms|sniff_.*|stats|vector_type|which_secret|write_log|.*_scan)"
)

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
"""What a query, and each part of a WITH, may be. From DuckDB 2.0 on a part can also insert or copy to a file."""

_FROM = frozenset(
    {"BASE_TABLE", "EMPTY", "EMPTY_FROM", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)


def referenced(sql: str) -> frozenset[str]:
    """Returns the lower-case names of the tables that a statement may read, those of its own CTEs included.

    Args:
        sql: One SELECT in DuckDB's dialect.

    Returns:
        Names; one that is no table of the lake may be among them.

    Raises:
        QueryRefused: The statement is not one that the sandbox runs.
    """
    return frozenset(name for _, name in _judge(_parse(sql)))


def judged(sql: str, tables: Iterable[str]) -> frozenset[str]:
    """Returns the names out of `tables` that a statement reads, lower-case.

    Raises:
        QueryRefused: The statement is not one that the sandbox runs, or reads something else.
    """
    known = frozenset(name.lower() for name in tables)
    return frozenset(name for _, name in _judge(_parse(sql), known)) & known


def condition(table: str, where: str, limit: int) -> str:
    """Returns the SELECT of at most so many of a table's rows that meet a condition, and nothing but that.

    Raises:
        QueryRefused: The condition is not one, or would make another statement of it.
    """
    sql = f"select * from {table} where (\n{where}\n) limit {limit}"
    tree = _parse(sql)
    _judge(tree)
    node = tree.get("node", {})
    source = node.get("from_table", {})
    plain = node.get("type") == "SELECT_NODE" and source.get("type") == "BASE_TABLE" and "where_clause" in node
    more = {"group_expressions", "group_sets", "having", "qualify", "sample", "cte_map"} & {
        name for name, found in node.items() if found not in ({}, {"map": []}, [], None)
    }
    if not plain or more or [m.get("type") for m in node.get("modifiers", ())] != ["LIMIT_MODIFIER"]:
        # what was asked is not repeated: a condition names people
        raise QueryRefused("A condition is what stands after WHERE; more than that was found. Nothing was run.")
    return sql


def shown(text: str) -> str:
    """Returns the caller's own words, short and safe to print."""
    text = safe(text[:1000])
    return f"'{text}'" if len(text) <= 60 else f"'{text[:59]}…'"


def _parse(sql: str) -> dict[str, Any]:
    """Returns the tree of the one SELECT that `sql` is, as DuckDB's parser writes it in JSON.

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
    assert row is not None
    try:
        tree = json.loads(row[0])
    except RecursionError:
        raise QueryRefused("The statement is nested too deeply. Split it with WITH.") from None
    if tree["error"]:
        if tree.get("error_type") == "not implemented":
            raise QueryRefused(f"{_ALLOWED}, found another kind of statement (or PIVOT without IN). Nothing was run.")
        words = re.sub(r"\s+", " ", str(tree.get("error_message", "")))
        raise QueryRefused(f"The statement is not SQL that can be read: {words[:300]}")
    statements = tree["statements"]
    if len(statements) != 1:
        found = "several statements" if statements else "no statement"
        raise QueryRefused(f"{_ALLOWED}, found {found}. Nothing was run.")
    first: dict[str, Any] = statements[0]
    return first


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _judge(tree: dict[str, Any], tables: frozenset[str] | None = None) -> frozenset[tuple[str, str]]:
    """Returns the (schema, table) pairs that a tree reads, lower-case.

    Args:
        tree: A SELECT as `_parse` gives it.
        tables: The tables that it may read; None to read any.

    Raises:
        QueryRefused: The tree reaches beyond the lake's tables.
    """
    reads: set[tuple[str, str]] = set()
    todo: list[tuple[Any, frozenset[str]]] = [(tree, frozenset())]
    while todo:
        node, scope = todo.pop()
        if isinstance(node, list):
            todo.extend((child, scope) for child in node)
        if not isinstance(node, dict):
            continue
        scope |= _defined(node)
        match node.get("type"):
            case "BASE_TABLE":
                reads.add(_table(node, scope, tables))
            case "TABLE_FUNCTION":
                name = str(node.get("function", {}).get("function_name", "")).lower()
                if name not in _TABLE_FUNCTIONS:
                    raise QueryRefused(
                        f"{_ALLOWED}; the table function {shown(name)} is not run: no files, no network, no settings."
                    )
            case str(kind) if kind.endswith("_NODE") and kind not in _QUERIES:
                raise QueryRefused(f"{_ALLOWED}; a part of it writes. Nothing was run.")
            case "SHOW_REF" if "query" not in node:
                raise QueryRefused(f"{_ALLOWED}; SHOW is not run. `stedi tables` lists the tables.")
        if node.get("class") in ("FUNCTION", "WINDOW"):
            name = str(node.get("function_name", "")).lower()
            if _FORBIDDEN_FUNCTION.fullmatch(name):
                raise QueryRefused(
                    f"{_ALLOWED}; the function {shown(name)} is not run: no files, no network, no settings."
                )
        if node.get("class") == "PARAMETER":
            raise QueryRefused(f"{_ALLOWED}; parameters such as ? or $1 have no value here.")
        source = node.get("from_table")
        if isinstance(source, dict) and source.get("type") not in _FROM:
            raise QueryRefused(f"{_ALLOWED}; its FROM holds something else.")
        todo.extend((child, scope) for child in node.values())
    return frozenset(reads)


def _defined(node: dict[str, Any]) -> frozenset[str]:
    """Returns the names that a node gives to its own WITH parts."""
    ctes = node.get("cte_map")
    names = [entry.get("key") for entry in ctes.get("map", ())] if isinstance(ctes, dict) else []
    if str(node.get("type", "")).endswith("CTE_NODE"):
        names += [node.get("cte_name"), node.get("ctename")]
    return frozenset(str(name).lower() for name in names if name)


def _table(node: dict[str, Any], scope: frozenset[str], tables: frozenset[str] | None) -> tuple[str, str]:
    catalog, schema, name = (str(node.get(key, "")).lower() for key in ("catalog_name", "schema_name", "table_name"))
    if "at_clause" in node:
        raise QueryRefused(f"{_ALLOWED}; AT is not run. `stedi query --at` reads the lake as it was.")
    if catalog or schema not in ("", SCHEMA, "recurring"):
        raise QueryRefused(f"{_ALLOWED}; there is no schema beside {shown(SCHEMA)}.")
    known = schema != SCHEMA and name in scope
    if not known and tables is not None and (name not in tables or schema == "recurring"):
        raise QueryRefused(
            f"{_ALLOWED}; {shown(name)} is none of them, and files are not read. `stedi tables` lists them."
        )
    return schema, name
