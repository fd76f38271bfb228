"""A long text in pieces, so that several threads scan it.

The start of a piece is a guess: a place between what looks like the end of one record and the start of the next. The
scan of the piece before checks the guess; if it was wrong (`Astray`), the text is scanned in one piece.
"""

from __future__ import annotations

import re
from typing import BinaryIO

from stedi._frozen import dataclass
from stedi._regex import compile_possessive

_LOOK = 1 << 16
"""How many bytes to search for the start of a piece; a text of longer records has fewer pieces."""

_ARRAY = compile_possessive(rb"(?:[ \t\r\n,]|\xef\xbb\xbf)*+\[")
_BEHIND = (re.compile(rb'\}(?=\r?\n\{[ \t]*+")'), re.compile(rb'\}(?=[ \t\r\n,]*+\{[ \t\r\n]*+")'))
"""The end of a record that another follows: the first pattern is certain for lines, the second likely for others."""


class Astray(Exception):
    """A piece does not end between two records: discard what was read from the text."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a text that begins and ends between records.

    Attributes:
        begin: Where it begins, in bytes.
        end: Where it ends; None if with the text.
        in_array: Whether the text is an array, so that one is open at each cut.
    """

    begin: int = 0
    end: int | None = None
    in_array: bool = False


WHOLE = Piece()


def cut(stream: BinaryIO, size: int, count: int) -> list[Piece]:
    """Cuts a text in UTF-8.

    Args:
        stream: The text; it can be read from any place.
        size: Its size in bytes.
        count: How many pieces it may have.
    """
    stream.seek(0)
    in_array = _ARRAY.match(stream.read(_LOOK)) is not None
    places = [0]
    for number in range(1, count):
        at = number * size // count
        stream.seek(at)
        text = stream.read(_LOOK)
        found = next((found for pattern in _BEHIND if (found := pattern.search(text))), None)
        # in a text of long records two searches may find the same place
        if found and at + found.end() > places[-1]:
            places.append(at + found.end())
    ends = [*places[1:], None]
    return [Piece(begin, end, in_array) for begin, end in zip(places, ends, strict=True)]
