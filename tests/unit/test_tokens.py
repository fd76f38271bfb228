"""Where texts stand in others, and what is found there."""

from __future__ import annotations

from random import Random, randrange

from effort import tries
from stedi.privacy import tokens


def test_texts_are_found_by_the_places_of_a_word_that_all_have() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, found = Random(seed), 0

    def some(most: int) -> str:
        return "".join(chance.choice("ab, ") for _ in range(chance.randrange(most)))

    for _ in range(tries(2_000, 5_000, 100_000)):
        word, text = some(4) or "b", some(40)
        parts = [f"{some(4)}{word}{some(4)}" for _ in range(chance.randrange(5))]
        expected = {part for part in parts if part in text}
        assert tokens.having(text, word, parts) == expected
        found += len(expected)
    assert found
