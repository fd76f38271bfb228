"""Finds which of many texts another text contains, such as names and serial numbers in the values of a column.

`sought.c` finds them in one pass over the text. Without it, large sets are looked up among the words of the text.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection
from ctypes import POINTER, Structure, byref, c_char_p, c_int32, c_int64, c_ubyte, c_void_p
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

from stedi import _native
from stedi.privacy.tokens import FEW, having, words

_SLOTS = 32
"""Slots of the table for each text: at most places of another text, a slot is empty."""


class Sought:
    """A set of texts to find in many texts.

    Args:
        texts: The texts. They must not change.
    """

    def __init__(self, texts: Collection[str]) -> None:
        self._texts = tuple(texts)
        self._table: _Table | None = None
        self._by_word: dict[str, list[str]] = {}
        if len(self._texts) <= FEW:
            return
        if all(self._texts) and library():
            self._table = _Table(self._texts)
            return
        for text in self._texts:
            # the longest word is in few other texts
            word = max(text.replace(",", " ").split(), key=lambda part: (len(part), part), default=text)
            self._by_word.setdefault(word, []).append(text)
        self._words = frozenset(word for word in self._by_word if words(word) == [word])
        self._others = tuple(word for word in self._by_word if word not in self._words)

    def __reduce__(self) -> tuple[type[Sought], tuple[tuple[str, ...]]]:
        return Sought, (self._texts,)  # a table has addresses of this process's memory

    def __len__(self) -> int:
        return len(self._texts)

    def among(self, text: str) -> Collection[str]:
        """Returns those that may stand alone in a text, without those that certainly do not.

        Without the library, they are looked up among the words of the text. Words consist of letters, digits and `_`; a
        hyphen joins two. So the words of a text that stands alone are among them.
        """
        if self._table is not None:
            return [self._texts[place] for place in self._table.contained(text)]
        if len(self._texts) <= FEW:
            return self._texts
        found: set[str] = set()
        for word in (*self._words.intersection(words(text)), *self._others):
            found |= having(text, word, self._by_word[word])
        return found

    def may_stand(self, text: str) -> bool:
        """Returns whether one of them may stand alone in a text; without the library a set that is not small may."""
        if len(self._texts) <= FEW:
            return any(sought in text for sought in self._texts)
        return self._table is None or bool(self._table.contained(text))


class _Native(Structure):
    """`Sought` of the source, member by member."""

    _fields_ = [
        ("bytes", c_char_p),
        ("ends", c_void_p),
        ("count", c_int64),
        ("bits", c_int32),
        ("widths", c_int32),
        *((name, c_void_p) for name in ("first", "next", "offsets")),
    ]


class _Table:
    """Texts, none of them empty, in a table of the library."""

    def __init__(self, texts: Collection[str]) -> None:
        listed = [_encoded(text) for text in texts]
        bits = (_SLOTS * len(listed)).bit_length()
        self._bytes = b"".join(listed)
        self._ends = array("q", accumulate(map(len, listed)))
        self._first, self._next = (array("I", bytes(4 * size)) for size in (1 << bits, len(listed)))
        self._offsets = array("q", bytes(8 * len(listed)))
        arrays = (self._first, self._next, self._offsets)
        self._native = _Native(
            self._bytes, self._ends.buffer_info()[0], len(listed), bits, 0, *(made.buffer_info()[0] for made in arrays)
        )
        library().stedi_prepare(byref(self._native))

    def contained(self, text: str) -> list[int]:
        """Returns the positions of the texts that a text contains."""
        found = (c_ubyte * len(self._ends))()
        content = _encoded(text)
        many = library().stedi_contained(byref(self._native), content, len(content), found)
        # of thousands, a text has few
        marks, places, place = bytes(found) if many else b"", [], -1
        while (place := marks.find(1, place + 1)) >= 0:
            places.append(place)
        return places


def _encoded(text: str) -> bytes:
    # half of an escaped pair is no character, and has bytes of its own all the same
    return text.encode("utf-8", "surrogatepass")


@cache
def library() -> Any:
    """Returns the compiled library, or None."""
    table = POINTER(_Native)
    return _native.library(
        Path(__file__).with_suffix(".c"),
        {"stedi_prepare": [None, table], "stedi_contained": [c_int64, table, c_char_p, c_int64, c_void_p]},
    )
