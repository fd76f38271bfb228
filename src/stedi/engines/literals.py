"""Quotes names, texts and paths for SQL."""

from __future__ import annotations

import re

from stedi.errors import LakeError

_WILDCARDS = re.compile(r"[*?[]")


def quoted(name: str) -> str:
    """Returns a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Returns a text as a SQL literal; NUL, at which DuckDB's parser ends, as a call."""
    if "\0" in text:
        # `||` between so many parts takes the cube of their number
        return f"concat_ws(chr(0), {', '.join(map(literal, text.split(chr(0))))})"
    return "'" + text.replace("'", "''") + "'"


def nameable(path: str) -> bool:
    """Returns whether DuckDB can read exactly this file.

    It cannot if a wildcard meets a backslash, or if the path is not UTF-8, as all of its SQL must be.
    """
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return "\\" not in path or not _WILDCARDS.search(path)


def path_literal(path: str) -> str:
    """Returns a path as a SQL literal that DuckDB's readers take for exactly this file, whatever its name.

    They take `a[1].json` for a pattern, and would read `a1.json` instead.

    Raises:
        LakeError: DuckDB cannot name it.
    """
    if not nameable(path):
        raise LakeError(
            f"{path!a}: expected no wildcard beside a backslash in a path, and UTF-8, found otherwise; rename it"
        )
    return literal(_WILDCARDS.sub(r"[\g<0>]", path))
