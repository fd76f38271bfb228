"""Text tables for a terminal: aligned columns that fit, with control characters escaped.

`table` lays out the listings of the commands, `lay_out` the rows of a query that are text already. Where a width is
given, no line is wider: long texts are cut first, then whole columns are left out, and a last line says how many.
Widths are those of a terminal: wide characters take two columns, combining marks none.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

from stedi._frozen import dataclass
from stedi.errors import printable

_LEAST = 12
"""To what width a column of texts may be cut before a column is left out."""
_LEAST_OF = {**dict.fromkeys(("file", "path", "tables"), 24), "why": 20}
"""The same for columns whose texts say nothing at that width."""
_WHOLE = frozenset(("field", "if known", "reason", "receipt", "record", "release", "snapshot", "table", "tag"))
"""Columns of names, which people type again."""
_BETWEEN = 2
"""Spaces between two columns."""
_ENDS = frozenset(("file", "path"))
"""Columns that are cut at the start, since their end matters most."""
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d")
"""How an instant begins; half of one says nothing, so it is not cut."""


@dataclass(frozen=True, slots=True)
class Laid:
    """Cells as aligned lines.

    Attributes:
        text: The lines, without a newline after the last.
        columns: How many columns there are.
        shown: How many of them are shown.
        cut: Whether a cell is cut; such a cell has an ellipsis.
        widths: How wide each column is, in columns of the terminal.
    """

    text: str
    columns: int
    shown: int
    cut: bool
    widths: tuple[int, ...]

    def missing(self, remedy: str) -> str:
        """Returns the remark about omitted columns and cut cells; empty if everything is shown."""
        left = f"{self.columns} columns, {self.shown} shown" if self.shown < self.columns else ""
        cut = "long values are cut" if self.cut else ""
        return f"{left or cut}: {remedy}" if left or cut else ""


def table(
    rows: Iterable[Sequence[object]],
    headers: Sequence[str],
    *,
    width: int | None = None,
    spare: Sequence[str] = (),
) -> str:
    """Returns rows as aligned lines, without a newline after the last: numbers to the right, with thousands separators.

    Args:
        rows: The cells: None is left blank, a boolean is yes or no, a float has two decimals. What a terminal would
            obey rather than show is escaped.
        headers: The columns' names.
        width: The widest that a line may be; None for any.
        spare: The columns that are left out first where there is no room, in this order; then the last ones.
    """
    listed = [list(row) for row in rows]
    numeric = [
        any(_is_number(row[i]) for row in listed) and all(row[i] is None or _is_number(row[i]) for row in listed)
        for i in range(len(headers))
    ]
    cells = [[printable(_listed(cell)) for cell in row] for row in listed]
    laid = lay_out(headers, cells, numeric, width=width, spare=spare)
    left = laid.missing("a wider terminal or --json shows all")
    return f"{laid.text}\n({left})" if left else laid.text


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


def width_of(text: str) -> int:
    """Returns how many columns of a terminal a text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.category(c) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _cut(text: str, width: int, *, end: bool = False) -> str:
    """Returns a text of at most `width` columns: its beginning and an ellipsis, or an ellipsis and its end."""
    if width_of(text) <= width:
        return text
    kept, used = [], 0
    for c in reversed(text) if end else text:
        used += width_of(c)
        if used > width - 1:
            break
        kept.append(c)
    return "…" + "".join(reversed(kept)) if end else "".join(kept) + "…"


def lay_out(
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    numeric: Sequence[bool],
    *,
    width: int | None = None,
    spare: Sequence[str] = (),
) -> Laid:
    """Returns cells that are safe text already as aligned lines.

    Args:
        headers: The columns' names.
        rows: The cells.
        numeric: For each column, whether its cells stand to the right.
        width: The widest that a line may be; None for any.
        spare: The columns that are left out first where there is no room, in this order; then the last ones.
    """
    names = [printable(header) for header in headers]
    widths = [max([width_of(name), *(width_of(row[i]) for row in rows)]) for i, name in enumerate(names)]
    chosen = list(range(len(names)))
    if width is not None:
        first = rows[:1]
        least = [
            wide
            if numeric[i] or name in _WHOLE or any(_TIME.match(row[i]) for row in first)
            else min(wide, max(_LEAST_OF.get(name, _LEAST), width_of(name)))
            for i, (name, wide) in enumerate(zip(names, widths, strict=True))
        ]
        chosen = _chosen(names, least, width, spare)
        widths = _shared(widths, least, chosen, width)
    lines = [
        _line([cells[i] if width is None else _cut(cells[i], widths[i], end=names[i] in _ENDS) for i in chosen],
              [widths[i] for i in chosen], [numeric[i] for i in chosen])
        for cells in (names, ["-" * wide for wide in widths], *rows)
    ]  # fmt: skip
    cut = width is not None and any(width_of(row[i]) > widths[i] for row in rows for i in chosen)
    return Laid("\n".join(lines), len(names), len(chosen), cut, tuple(widths))


def styled(text: str) -> str:
    """Returns text with the styles of tables: headers, rules, NULL, remarks."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if _RULE.fullmatch(line) and number:
            lines[number - 1] = f"{_BOLD}{lines[number - 1]}{_PLAIN}"
            lines[number] = f"{_DIM}{line}{_PLAIN}"
        elif line.startswith("(") and line.endswith(")"):
            lines[number] = f"{_DIM}{line}{_PLAIN}"
    return _NULL.sub(f"{_DIM}NULL{_PLAIN}", "\n".join(lines))


_BOLD, _DIM, _PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"
_RULE = re.compile(r"-+(?:  -+)*")
"""The line below a table's headers."""
_NULL = re.compile(r"(?<![\w'])NULL(?![\w'])")
"""A missing value, not a text of these letters, which is quoted."""


def further(rows: Sequence[Sequence[str]], numeric: Sequence[bool], widths: Sequence[int]) -> str:
    """Returns more rows of a table, uncut: a cell that is wider than its column moves those after it."""
    return "\n".join(_line(row, widths, numeric) for row in rows)


def _line(cells: Sequence[str], widths: Sequence[int], numeric: Sequence[bool]) -> str:
    padded = []
    for cell, wide, right in zip(cells, widths, numeric, strict=True):
        blank = " " * (wide - width_of(cell))
        padded.append(blank + cell if right else cell + blank)
    return (" " * _BETWEEN).join(padded).rstrip()


def pieces(text: str, width: int) -> list[str]:
    """Returns a text in pieces of at most so many columns."""
    found, used = [""], 0
    for c in text:
        used += width_of(c)
        if used > width and found[-1]:
            found.append("")
            used = width_of(c)
        found[-1] += c
    return found


def _chosen(names: Sequence[str], least: Sequence[int], width: int, spare: Sequence[str]) -> list[int]:
    """Returns the columns that have room, each at its least width."""
    chosen = list(range(len(names)))
    going = [names.index(name) for name in spare if name in names]
    while len(chosen) > 1 and sum(least[i] + _BETWEEN for i in chosen) - _BETWEEN > width:
        chosen.remove(going.pop(0) if going else chosen[-1])
    return chosen


def _shared(widths: Sequence[int], least: Sequence[int], chosen: Sequence[int], width: int) -> list[int]:
    """Returns widths at which the chosen columns have room: the widest give first."""
    found = list(widths)
    if len(chosen) == 1:
        found[chosen[0]] = min(found[chosen[0]], width)
    over = sum(found[i] + _BETWEEN for i in chosen) - _BETWEEN - width
    while over > 0 and (elastic := [i for i in chosen if found[i] > least[i]]):
        widest = max(elastic, key=lambda i: found[i])
        second = max((found[i] for i in elastic if i != widest), default=0)
        # down to the second widest at a time: so all that give end alike
        less = min(over, max(1, found[widest] - max(second, least[widest])))
        found[widest] -= less
        over -= less
    return found
