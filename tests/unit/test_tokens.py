"""Where texts stand in others, and what is found there."""

from __future__ import annotations

from random import Random, randrange

import pytest

from effort import tries
from stedi.privacy import decoding, tokens


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


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["ann@x.example", "ann%40x.example", "device-1", "YW5uQHguZXhhbXBsZQ=="])
def test_a_text_in_wide_letters_is_read_apart_from_what_stands_before_it(text: str, encoding: str) -> None:
    for before in (b"", b"\x01\xff", b"\x10\xbbh\x823\0", b"J\tp\0\0"):
        raw = before + text.encode(encoding) + b"\0\xe6"
        apart = [any(tokens.stands(read, text) for read in decoding.texts(raw, latin=latin)) for latin in (False, True)]
        assert apart[0] == apart[1], before
        assert apart[0] or before, encoding
