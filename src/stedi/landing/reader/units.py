"""The probable unit of a number that is not an instant in milliseconds, such as seconds.

It is reported, never corrected: only the sender knows what a number means.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from enum import StrEnum

from stedi.schema.contracts import INSTANT_BEGIN

_PLAUSIBLE_END = int(datetime(2100, 1, 1, tzinfo=UTC).timestamp() * 1000)
"""The epoch millisecond from which on a time is implausible."""

_ISO = re.compile(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[Tt ][0-9]{2}.*)?", re.DOTALL)
_NUMBER = re.compile(r"\s*[0-9]{9,20}(?:\.[0-9]{1,9})?\s*")


class Unit(StrEnum):
    """How an instant was given, in the words that `land` uses after "have it"."""

    SECONDS = "in seconds"
    MICROSECONDS = "in microseconds"
    NANOSECONDS = "in nanoseconds"
    FRACTIONAL_SECONDS = "in seconds with a fraction"
    FRACTIONAL = "in milliseconds with a fraction or an exponent"
    ISO = "as ISO 8601 text"
    QUOTED = "as a number in quotes"


def likely(value: object) -> Unit | None:
    """Returns how a value was probably given that is no instant by its contract, or None if it does not look like one.

    Args:
        value: A parsed value.
    """
    if type(value) is int:
        # no number is plausible in two of these units
        scales = ((Unit.SECONDS, 1000, 1), (Unit.MICROSECONDS, 1, 1000), (Unit.NANOSECONDS, 1, 1_000_000))
        return next((unit for unit, times, by in scales if _plausible(value * times // by)), None)
    if type(value) is float:
        if _plausible(value * 1000):
            return Unit.FRACTIONAL_SECONDS
        return Unit.FRACTIONAL if _plausible(value) else None
    if type(value) is str:
        if _ISO.fullmatch(value):
            return Unit.ISO
        return Unit.QUOTED if _NUMBER.fullmatch(value) else None
    return None


def _plausible(milliseconds: float) -> bool:
    return INSTANT_BEGIN <= milliseconds < _PLAUSIBLE_END
