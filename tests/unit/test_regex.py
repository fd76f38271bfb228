"""Patterns that repeat a group possessively mean the same on every Python."""

from __future__ import annotations

import re

import pytest

from stedi import _regex


@pytest.mark.parametrize(
    ("pattern", "text", "end"),
    [
        (r"(?:ab?c)*+", "acab", 2),
        (r"(?:ab?c)++", "acab", 2),
        (r"(?:ab?c){1,3}+", "acab", 2),
        (r'(?:\{"d":(?:0|[1-9][0-9]{0,3})\}\n)*+', '{"d":5}\n{"d":92233}\n', 8),
        (r'"[^"\\]*+(?:\\.[^"\\]*+)*+', '"a\\', 2),
        (r"(?:[)(]a(?:b|c)*+\))*+", "(ab)(ac", 4),
    ],
)
def test_a_repetition_that_fails_takes_nothing(pattern: str, text: str, end: int) -> None:
    for given in (pattern, _regex.atomic(pattern)):
        found = _regex.compile_possessive(given).match(text)
        assert found is not None
        assert found.end() == end
        of_bytes = _regex.compile_possessive(given.encode()).match(text.encode())
        assert of_bytes is not None
        assert of_bytes.end() == end


def test_what_is_repeated_otherwise_and_groups_that_capture_stay() -> None:
    assert _regex.atomic(r"a*+[(]\(b+(c)?(?:d)*") == r"a*+[(]\(b+(c)?(?:d)*"
    assert _regex.atomic(r'(a(")?+)*+') == r'(?>(a(?>(")?))*)'
    assert re.compile(_regex.atomic(r"(a)(b)*+(c)")).groups == 3
