"""Text for people: cells become aligned columns in which nothing steers the terminal.

`table` lays out the listings of the commands, `lay_out` the rows of a query that are text already.
Widths are those of a terminal: wide characters take two columns, combining marks none.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from stedi.errors import printable

MAX_CELL = 100
"""The widest cell of a table, in columns of the terminal; what is longer ends in an ellipsis."""


def table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    """Returns rows as aligned lines, without a newline after the last: numbers to the right, with thousands separators.

    Args:
        rows: The cells: None is left blank, a boolean is yes or no, a float has two decimals. What a terminal would
            obey rather than show is escaped.
        headers: The columns' names.
    """
    listed = [list(row) for row in rows]
    numeric = [
        any(_is_number(row[i]) for row in listed) and all(row[i] is None or _is_number(row[i]) for row in listed)
        for i in range(len(headers))
    ]
    return lay_out(headers, [[printable(_listed(cell)) for cell in row] for row in listed], numeric)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _listed(value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.2f}"
    return str(value)


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cut(text: str) -> str:
    if _width(text) <= MAX_CELL:
        return text
    kept, width = [], 0
    for c in text:
        width += _width(c)
        if width > MAX_CELL - 1:
            break
        kept.append(c)
    return "".join(kept) + "…"


def lay_out(headers: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> str:
    """Returns cells that are safe text already as aligned lines.

    Args:
        headers: The columns' names.
        rows: The cells; one wider than `MAX_CELL` is cut.
        numeric: For each column, whether its cells stand to the right.
    """
    cells = [[_cut(printable(header)) for header in headers], *([_cut(cell) for cell in row] for row in rows)]
    widths = [max(_width(row[i]) for row in cells) for i in range(len(headers))]
    cells.insert(1, ["-" * width for width in widths])
    lines = []
    for row in cells:
        padded = [
            " " * (width - _width(cell)) + cell if right else cell + " " * (width - _width(cell))
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)
