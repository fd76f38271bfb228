"""Texts in Latin-1, as most are: a table changes all their characters at once, where a text of others takes a loop.

The tables are made by the rules for single characters, so that both give the same.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

_EVERY = bytes(range(256)).decode("latin-1")


def encoded(text: str) -> bytes | None:
    """Returns a text's bytes in Latin-1, one a character; None if it has other characters."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return None


@cache
def table(change: Callable[[str], str]) -> bytes:
    """Returns the table, for `bytes.translate`, of what a function makes of each character; it stays if not Latin-1."""
    changed = ((character, change(character)) for character in _EVERY)
    return "".join(new if len(new) == 1 and new <= "\xff" else old for old, new in changed).encode("latin-1")


@cache
def having(test: Callable[[str], bool]) -> bytes:
    """Returns the characters for which a function returns true."""
    return "".join(filter(test, _EVERY)).encode("latin-1")


def folded(raw: bytes) -> str:
    """Returns a text case-folded; it is then in NFC, because no characters of Latin-1 compose."""
    # these two do not fold to one character of Latin-1
    text = raw.translate(table(str.casefold)).replace(b"\xdf", b"ss").decode("latin-1")
    return text.replace("\xb5", "\u03bc")
