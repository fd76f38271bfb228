"""Scans: how a query's process reads a table's files, and its messages when that fails.

A relation is a dictionary, as it came through a pipe: `name`, `files`, `columns` (name and type of each), `masked`
(names of columns that the query must not see), `wanted` (lower-case names of columns beside which it reads none, or
null), `places` (whether each row has its file and its number there, too), and `without` (people whose rows the query
must not see, by `customer_id`).

SQL is quoted here, too, and engines are made in `sandbox` and `masking` themselves: importing `stedi.engines` would
cost each query's process 0.04 s of CPU more, as much as all of its own modules.
"""

from __future__ import annotations

import re
from typing import Any

SCHEMA = "stedi"
FILE, ROW = "_stedi_file", "file_row_number"
"""Columns of a relation with places: the file of a row, and its number there from 0."""

WHOLE = ("TINYINT", "SMALLINT", "INTEGER", "BIGINT", "UTINYINT", "USMALLINT", "UINTEGER", "UBIGINT", "BOOLEAN")
"""Types whose values are the same in JSON, and in every format for people."""


_WILDCARDS = re.compile(r"[*?[]")


class Failure(Exception):
    """A query that fails, in one line that holds no value of any row."""


def literal(text: str) -> str:
    """Returns `text` as a SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Returns `name` as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def hides(relation: dict[str, Any]) -> bool:
    """Returns whether a relation's files hold what the query must not see."""
    return bool((relation["masked"] or relation.get("without")) and relation["files"])


def apart(relation: dict[str, Any]) -> bool:
    """Returns whether the process of `masking` reads a relation's files: those that hide something, or are patterns.

    Only an engine that may list folders can tell such a file from others that match its path.
    """
    return hides(relation) or any(map(_WILDCARDS.search, relation["files"]))


def settings(job: dict[str, Any]) -> dict[str, str | bool | int | float | list[str]]:
    """Returns the settings of an engine that loads nothing and stays within the job's memory."""
    config: dict[str, str | bool | int | float | list[str]] = {
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
        # those are read from the user's home folder
        "allow_persistent_secrets": False,
        # a name in the statement must not mean a variable of this process
        "python_enable_replacements": False,
        "memory_limit": f"{job['memory']}B",
        "temp_directory": job["temporary"],
        "max_temp_directory_size": f"{job['spill']}B",
    }
    if job["threads"] is not None:
        config["threads"] = job["threads"]
    return config


def read(relation: dict[str, Any]) -> str:
    """Returns the table function that reads a relation's files unchanged."""
    places = f", filename = {identifier(FILE)}, file_row_number = true" if relation.get("places") else ""
    # a path is a pattern to the engine: in that of a lake in `a[1]` it would read files of `a1`
    files = [literal(_pattern(path)) for path in relation["files"]]
    # a folder of the path that is named `k=1` must not become a column
    return f"read_parquet([{', '.join(files)}], hive_partitioning = false{places})"


def _pattern(path: str) -> str:
    """Returns the pattern that only this path matches."""
    return _WILDCARDS.sub(r"[\g<0>]", path)


def _named(relation: dict[str, Any], text: str) -> str | None:
    """Returns the first of a relation's files that an engine's message names, as a path or as a pattern."""
    return next((path for path in relation["files"] if path in text or _pattern(path) in text), None)


def allowed(relation: dict[str, Any]) -> str:
    """Returns the table function of `read` with what keeps rows from being seen."""
    people = ", ".join(map(literal, relation.get("without", ())))
    return read(relation) + (f" where customer_id not in ({people})" if people else "")


def visible(relation: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns name and type of the columns that the files of a relation are read for."""
    wanted = relation.get("wanted")
    kept = [(name, kind) for name, kind in relation["columns"] if wanted is None or name.lower() in wanted]
    return [(name, kind) for name, kind in kept if name not in relation["masked"]]


def select(relation: dict[str, Any], source: str) -> str:
    """Returns the SELECT of a relation's view: masked columns are null in their type, unused ones are absent."""
    shown = {name for name, _ in visible(relation)}
    wanted = relation.get("wanted")
    columns = [
        f"{identifier(name) if name in shown and relation['files'] else 'null'}::{kind} as {identifier(name)}"
        for name, kind in relation["columns"]
        if name in shown or wanted is None or name.lower() in wanted
    ]
    if relation.get("places"):
        places = (FILE, ROW) if relation["files"] else (f"null::varchar as {FILE}", f"null::bigint as {ROW}")
        columns += places
    listed = ", ".join(columns or ["null as nothing"])
    return f"select {listed} from {source}" if relation["files"] else f"select {listed} where false"


def unreadable(error: Exception, relation: dict[str, Any]) -> str:
    """Returns one line for a relation with unreadable files."""
    named = _named(relation, str(error))
    where = f"{relation['name']}, file {named}" if named else f"{relation['name']}"
    return (
        f"Cannot read {where}: expected a Parquet file with the table's columns, "
        f"found {kind_of(error)}. Run `stedi audit`."
    )


def kind_of(error: Exception) -> str:
    """Returns the kind of an error, without any of DuckDB's message."""
    words = re.sub(r"(?<!^)(?=[A-Z])", " ", type(error).__name__.removesuffix("Exception")).lower()
    return f"an error of kind {words}" if words != "error" else "an error"


_NO_MEMORY = ("Allocation failure", "Out of Memory Error", "malloc of size", "realloc of size", "std::bad_alloc")
_HINTS = {
    "OutOfMemoryException": "it needs more memory than it may have ({memory}). Read fewer rows, or raise the limit.",
    "ConversionException": "a value could not be converted. Use try_cast, or leave such rows out with a where.",
    "OutOfRangeException": "a number left the range of its type. Cast to a wider type first.",
    "InterruptException": "it was interrupted.",
    "PermissionException": "a query has no reach beyond the lake's tables.",
}


def run_time_failure(error: Exception, job: dict[str, Any]) -> str:
    """Returns one line for an error while rows were read.

    DuckDB's message shows the failing value, in quotes that the value itself may close. So only the job's file names
    are searched in it.
    """
    text = str(error)
    hint = _HINTS.get(type(error).__name__)
    if isinstance(error, MemoryError) or (hint is None and text.startswith(_NO_MEMORY)):
        hint = _HINTS["OutOfMemoryException"]
    if hint is not None:
        return "The query failed: " + hint.format(memory=f"{job['memory'] // 1_000_000:,} MB")
    for relation in job.get("relations", ()):
        if path := _named(relation, text):
            return f"The query failed: {relation['name']}: cannot read {path}. Run `stedi audit`."
    return f"The query failed while it ran, with {kind_of(error)}; its words may hold data and are left out."
