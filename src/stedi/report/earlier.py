"""Reads an earlier report, page or JSON, to compare a new one with; the file may have been changed by anybody.

So it is read strictly, and only counts and fixed words are used. A report of the same state passes on its own
comparison, so that writing it again gives the same bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.errors import UsageError, printable_name
from stedi.privacy import state
from stedi.report.disclosure import NOT_SHOWN, Figure
from stedi.storage import durable

META = "stedi-report"
"""The name of the element in which a page carries what a later report needs of it."""
_META = re.compile(rf'<meta name="{META}" content="([^"<>]*)">')
"""That element; its content is escaped, so no quotation mark and no bracket stands in it."""
_LARGEST = 1 << 24
"""The largest report that is read, bytes."""
_WORDS = re.compile(r"fewer than [1-9][0-9]{0,8}")
"""The words of `disclosure.few`."""
_STATE = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Change:
    """The change of a figure since an earlier report.

    Attributes:
        what: What is counted.
        now: The figure now.
        change: The difference, or words that replace it.
    """

    what: str
    now: Figure
    change: Figure


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed since an earlier report.

    Attributes:
        since: The moment that one is of, UTC.
        lines: The figures.
    """

    since: datetime
    lines: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Earlier:
    """The content of a report that a later one needs.

    Attributes:
        lake: The lake's id.
        state: The state of the lake.
        as_of: The time of that state, UTC; None for an empty lake.
        figures: Its figures.
        changes: Its own changes.
    """

    lake: str
    state: str
    as_of: datetime | None
    figures: Mapping[str, Figure]
    changes: Changes | None


def read(path: Path) -> Earlier:
    """Returns the content of an earlier report, page or JSON.

    Raises:
        FileNotFoundError: There is none.
        UsageError: The file is not a report.
    """
    raw = durable.content(path, _LARGEST)
    try:
        if raw.lstrip().startswith(b"<"):
            match = _META.search(raw.decode("utf-8"))
            raw = unescape(match[1]).encode() if match else b""
        return _earlier(state.parsed(raw))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UsageError(
            f"{printable_name(str(path))}: expected a page or JSON written by `stedi report`, found something else; "
            "nothing was written",
            argument="since",
        ) from None


def _earlier(found: Mapping[str, Any]) -> Earlier:
    if found["format"] != 1 or not isinstance(found["lake"], str) or not _STATE.fullmatch(found["state"]):
        raise ValueError
    changes = found["changes"]
    return Earlier(
        found["lake"],
        found["state"],
        None if found["as_of"] is None else _time(found["as_of"]),
        {str(what): _figure(figure) for what, figure in found["figures"].items()},
        changes
        and Changes(
            _time(changes["since"]),
            tuple(Change(str(c["what"]), _figure(c["now"]), _figure(c["change"])) for c in changes["lines"]),
        ),
    )


def _figure(found: object) -> Figure:
    if type(found) is int or (isinstance(found, str) and (found == NOT_SHOWN or _WORDS.fullmatch(found))):
        return found
    raise ValueError


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
