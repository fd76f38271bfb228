"""Texts for people: counts with their nouns."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import stedi
from stedi.errors import many


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (many(0, "row"), "0 rows"),
        (many(1, "row"), "1 row"),
        (many(2_000, "row"), "2,000 rows"),
        (many(1, "person", "people"), "1 person"),
        (many(2, "person", "people"), "2 people"),
    ],
)
def test_a_count_has_its_noun_in_the_singular_or_in_the_plural(said: str, expected: str) -> None:
    assert said == expected


def test_no_message_writes_the_plural_behind_the_length_of_a_list() -> None:
    """`found 1 problems`: a length with a noun goes through `many`."""
    source = Path(stedi.__file__).parent
    fault = re.compile(r"(?<! of )\{len\([^{}]*\)(?::,)?\} (?:[a-z]+ )?(?!is\b|has\b|was\b|of\b)[a-z]+s\b")
    found = [
        f"{path.relative_to(source)}:{number}"
        for path in sorted(source.rglob("*.py"))
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if fault.search(line)
    ]
    assert found == []
