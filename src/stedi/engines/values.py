"""Rows of Python values as SQL that inserts them, so that DuckDB need not import Arrow: that takes half a second."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

from stedi.engines.literals import literal, quoted

_FEW = 100
"""Rows that are written out one by one."""
_WRITTEN = (str, int, bytes, type(None))
"""Types of values that are written out; `float` and others are not: they would have to be written without loss."""
_SPLIT = {int, str, bool, date, type(None)}
"""Types of values that are written as one text, which is split again."""
_BETWEEN = "\x1f"
"""The unit separator of ASCII, which separates values and is in hardly any."""
_ABSENT = "\x1e"
"""The record separator of ASCII, which stands for a null."""


def insertion(name: str, rows: Sequence[tuple[Any, ...]]) -> str | None:
    """Returns the statement that inserts rows into a relation; None if their values cannot be written in SQL."""
    if len(rows) < _FEW and all(isinstance(value, _WRITTEN) for row in rows for value in row):
        values = ", ".join(f"({', '.join(map(_written, row))})" for row in rows)
        return f"insert into {quoted(name)} values {values}"
    columns = tuple(zip(*rows, strict=True))
    if not {type(value) for values in columns for value in values} <= _SPLIT:
        return None
    texts = [_BETWEEN.join(_ABSENT if v is None else str(v) for v in values) for values in columns]
    if any(
        text.count(_BETWEEN) != len(rows) - 1 or text.count(_ABSENT) != values.count(None)
        for text, values in zip(texts, columns, strict=True)
    ):
        return None
    names = [f"c{place}" for place in range(len(texts))]
    parts = [f"unnest(string_split({column}, {literal(_BETWEEN)}))" for column in names]
    parts = [
        f"nullif({part}, {literal(_ABSENT)})" if None in values else part
        for part, values in zip(parts, columns, strict=True)
    ]
    return (
        f"insert into {quoted(name)} select {', '.join(parts)} "
        f"from (values ({', '.join(map(literal, texts))})) as t({', '.join(names)})"
    )


def _written(value: object) -> str:
    """Returns one of the `_WRITTEN` values as SQL."""
    if isinstance(value, bytes):
        return f"unhex('{value.hex()}')"
    return "null" if value is None else literal(value) if isinstance(value, str) else str(value)
