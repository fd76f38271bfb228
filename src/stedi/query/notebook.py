"""HTML tables for a notebook, with every value escaped."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from stedi.errors import printable

_WIDE = 200
"""So many characters are shown of a value."""


def text(value: object) -> str:
    """Returns a value as text that is no markup, cut where it is long; nothing for None."""
    shown = "" if value is None else printable(str(value))
    return escape(shown if len(shown) <= _WIDE else f"{shown[: _WIDE - 1]}…")


def table(head: Iterable[object], rows: Iterable[Sequence[object]], note: str) -> str:
    """Returns a table, and a line below it."""
    names = "".join(f"<th>{text(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{text(value)}</td>' for value in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>{paragraph(note)}"


def paragraph(words: str) -> str:
    """Returns one line of text."""
    return f"<p>{escape(printable(words))}</p>"
