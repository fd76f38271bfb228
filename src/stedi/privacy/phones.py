"""Phone numbers: which texts are one, how one is dialled from elsewhere, and whether a text contains one.

A number is its digits; what people write between them, and before them for another country, does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from stedi.privacy import latin
from stedi.privacy.tokens import FEW, smoothed

_NUMBER = re.compile(r"\+?[\d\s().\-/_]+")
_SEPARATORS = " ().-/_"
_SEPARATOR = r"[ ().\-/_]{0,4}"
_MANY_DIGITS = re.compile(r"[0-9]{7,}")
_DIGITS = 7
"""The least number of digits of a phone number that is found with any characters between them."""
_NORTH_AMERICAN = 10
"""Digits of a number that is dialled with a 1 before it, or without."""


def is_phone(text: str) -> bool:
    """Returns whether a text is written as phone numbers are."""
    return _NUMBER.fullmatch(smoothed(text)) is not None


def digits(phone: str) -> str:
    """Returns the digits of a phone number, or nothing if they are too few to tell one number from others."""
    found = "".join(character for character in smoothed(phone) if character.isdecimal())
    return found if len(found) >= _DIGITS else ""


def numbers(phone: str) -> frozenset[str]:
    """Returns the digits of a phone number as it is dialled at home and from abroad; none if they are too few.

    The country code is not known: one, two and three digits are tried.
    """
    typed = smoothed(phone).strip()
    found = {digits(typed), digits(typed.replace("(0)", ""))}
    bare = digits(typed.replace("(0)", ""))
    if typed.startswith(("+", "00")):
        bare = bare.removeprefix("00")
        for size in (1, 2, 3):  # `+46 70 1234567`, `070 1234567`, `+46 (0)70 1234567`
            found |= {bare, digits(f"0{bare[size:]}"), digits(f"{bare[:size]}0{bare[size:]}")}
    elif bare.startswith("0"):
        found.add(digits(bare[1:]))
    elif len(bare) == _NORTH_AMERICAN:
        found.add(f"1{bare}")
    return frozenset(found - {""})


def calls(text: str, numbers: Iterable[str]) -> bool:
    """Returns whether a text contains one of some phone numbers, with any characters between its digits.

    Args:
        text: The text, smoothed.
        numbers: Their digits.
    """
    return next(called(text, numbers), None) is not None


def called(text: str, numbers: Iterable[str]) -> Iterator[str]:
    """Yields those of some phone numbers that a text contains; arguments as for `calls`."""
    wanted = list(numbers)
    if not wanted:
        return
    close = _closed(text)
    # short runs of digits are most of a table's text, and no number of a person has so few
    if len(wanted) > FEW:
        close = "\n".join(_MANY_DIGITS.findall(close))
    for number in wanted:
        # a search for digits alone is faster
        if number in close and _dialled(number).search(text):
            yield number


def _closed(text: str) -> str:
    """Returns a smoothed text without the characters that may separate the digits of a phone number."""
    if (raw := latin.encoded(text)) is not None:
        return raw.translate(None, _SEPARATORS.encode()).decode("latin-1")
    for separator in _SEPARATORS:  # faster than `str.translate`
        text = text.replace(separator, "")
    return text


def _dialled(number: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w.])(?:(?:\+|00)\d{{1,3}}{_SEPARATOR}|00?|\+)?\(?{_SEPARATOR.join(number)}(?![\w])", re.ASCII
    )
