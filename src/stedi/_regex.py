"""Compiles regular expressions whose groups are repeated possessively, as `(?:ab?c)*+`, on every Python.

Python before 3.11.5 counts into the match what the last, failed repetition had read: `(?:ab?c)*+` takes three
characters of `acab`. There such a group is written as an atomic one, `(?>(?:ab?c)*)`, which means the same. It is not
written so everywhere, because an atomic group keeps a state for each repetition until its end: a long text of short
repetitions would take hundreds of megabytes.
"""

from __future__ import annotations

import re
from typing import AnyStr

_IS_WRONG = re.sub(r"(?:ab?c)*+", "", "acab", count=1) != "ab"
_PART = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?(?:[:=!>]|<[=!]|P<\w+>))?|\)(?:([*+?]|\{[\d,]*\})\+)?", re.S)
"""What a rewriting has to know of: escapes and classes, which may hold parentheses, and where groups begin and end."""


def compile_possessive(pattern: AnyStr, flags: int = 0) -> re.Pattern[AnyStr]:
    """Compiles a pattern as `re.compile` does; what it repeats possessively means the same on every Python."""
    if not _IS_WRONG:
        return re.compile(pattern, flags)
    if isinstance(pattern, bytes):
        return re.compile(atomic(pattern.decode("latin-1")).encode("latin-1"), flags)
    return re.compile(atomic(pattern), flags)


def atomic(pattern: str) -> str:
    """Returns a pattern with an atomic group in the place of each group that is repeated possessively."""
    out: list[str] = []
    begins: list[int] = []
    end = 0
    for part in _PART.finditer(pattern):
        out.append(pattern[end : part.start()])
        end, text = part.end(), part[0]
        if text.startswith("("):
            begins.append(len(out))
        elif text.startswith(")"):
            begin = begins.pop()
            if part[1]:
                out[begin] = f"(?>{out[begin]}"
                text = f"){part[1]})"
        out.append(text)
    return "".join((*out, pattern[end:]))
