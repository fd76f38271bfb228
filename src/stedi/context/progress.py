"""Progress callbacks, ids of runs, and instants as machines read them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime

Progress = Callable[[str, float | None], None]
"""Called with the current step and its completed share, 0 to 1, or None if unknown."""


def silent(what: str, share: float | None) -> None:
    """Reports no progress."""


def run_id(milliseconds: int | None = None) -> str:
    """Returns an id for a run, a batch or an erasure, which sorts by the time of its start.

    Args:
        milliseconds: The start, in milliseconds of the epoch; the clock's time by default.
    """
    at = int(time.time() * 1000) if milliseconds is None else milliseconds
    return f"{at:013d}-{os.urandom(4).hex()}"


def instant(at: datetime | int) -> str:
    """Returns an instant, or milliseconds of the epoch, as ISO 8601 in UTC, with milliseconds."""
    moment = datetime.fromtimestamp(at / 1000, UTC) if isinstance(at, int) else at.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
