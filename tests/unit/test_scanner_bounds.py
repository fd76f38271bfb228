"""The scanner touches no byte that is not its own, whatever the text: fuzzed under AddressSanitizer and UBSan."""

from __future__ import annotations

from pathlib import Path

import pytest

import stedi
from effort import tries
from fuzzing import assert_no_fault, fuzz, noticed

TESTS = Path(__file__).parent.parent
SCANNER = Path(stedi.__file__).parent / "landing/reader/scanner.c"
CORPUS = sorted((TESTS / "data/scanner").iterdir())
TEXTS = tries(100_000, 100_000, 50_000_000)


def test_no_text_makes_the_scanner_leave_its_memory(tmp_path: Path) -> None:
    assert_no_fault(tmp_path, SCANNER, TEXTS, TEXTS / 4, *CORPUS)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("SLACK = 64", "SLACK = 24"),
        ("if (end - p < 12) return MORE;", "if (end - p < 1) return MORE;"),
        ("|| column->room - column->used < value->size", ""),
        ("if (row == table->room) return FULL;", ""),
        ("end - p >= LEAD + SLACK", "end - p >= LEAD"),
        (" || column->mask_of_slots >= column->most_slots", ""),
    ],
)
def test_a_scanner_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SCANNER, 100_000, *CORPUS, mutant=(bound, looser)))
