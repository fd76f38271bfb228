"""Where texts stand in others, and what is found there."""

from __future__ import annotations

import sys
import unicodedata
from base64 import b64encode
from random import Random, randrange

import pytest

from effort import tries
from stedi.privacy import decoding, phones, tokens
from stedi.schema.contracts import unseen


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


def test_an_address_is_made_of_what_is_seen() -> None:
    signs = "_.+%'&!#$*^~`|=/?{}-"
    for character in map(chr, range(sys.maxunicode + 1)):
        kind = unicodedata.category(character)
        part = [*tokens._ADDRESS.findall(f"{character}@x")] == [(character, "x")]
        if character.isascii():
            assert part == (character.isalnum() or character in signs), ascii(character)
        elif character.isspace() or kind in ("Cc", "Zs", "Zl", "Zp"):
            assert not part, ascii(character)
        elif kind[0] in "LMNPS" and not unseen(character) and not "\ufff0" <= character <= "\uffff":
            assert part, ascii(character)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
@pytest.mark.parametrize("text", ["ann@x.example", "ann%40x.example", "device-1", "YW5uQHguZXhhbXBsZQ=="])
def test_a_text_in_wide_letters_is_read_apart_from_what_stands_before_it(text: str, encoding: str) -> None:
    for before in (b"", b"\x01\xff", b"\x10\xbbh\x823\0", b"J\tp\0\0"):
        raw = before + text.encode(encoding) + b"\0\xe6"
        apart = [any(tokens.stands(read, text) for read in decoding.texts(raw, latin=latin)) for latin in (False, True)]
        assert apart[0] == apart[1], before
        assert apart[0] or before, encoding


def test_texts_in_latin_1_are_read_by_tables_as_other_texts_are() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    every = [chr(number) for number in range(256)]
    other = "\n\u2603"  # a text with this is read character by character; nothing changes it
    pairs = [first + second for first in every for second in every]
    often = [*"abAB01", *"abAB01", *" -_.'@%\t\n`/(", "\xdf", "\xb5", "\xe9", "\xad", "\xa0", "\xb4", "\xb2"]
    mixed = ["".join(chance.choices(often, k=chance.randrange(20))) for _ in range(tries(2_000, 5_000, 100_000))]
    for text in (*pairs, *mixed):
        assert tokens.folded(text + other) == tokens.folded(text) + other, text
        assert tokens.smoothed(text + other) == tokens.smoothed(text) + other, text
        for but in ("", "\t\n\r"):
            for controls in (True, False):
                seen = tokens.visible(text, but=but, controls=controls)
                break_stays = "\n" in but or not controls
                apart = tokens.visible(text + "\u2603", but=but, controls=controls)
                assert apart == seen + "\u2603", (text, but, controls)
                assert ("\n" in seen) == ("\n" in text and break_stays)
                assert (seen is text) == (seen == text)


def test_text_is_read_from_base64_beside_checksums() -> None:
    sums = [f"{number:040x}" for number in range(50)]
    packed = b64encode(b"brien@x.example, gone").decode()
    for lines in ([*sums, packed], [packed, *sums], [f"x {packed} y", *sums]):
        assert any("brien@x.example" in reading for reading in tokens.readings(", ".join(lines)))
    assert [*tokens.readings(", ".join(sums))] == [", ".join(sums)]


def test_phone_numbers_are_called_together_as_each_is() -> None:
    numbers = [f"55501{number:02}" for number in range(40)]
    text = "call 555 0107 or +1 (555) 01.12, not 15550113 nor 5550114x nor 555011\n5, \xe9"
    for read in (text, text + "\u2603"):
        found = set(phones.called(read, numbers))
        assert found == {number for number in numbers if phones.calls(read, [number])} == {"5550107", "5550112"}


@pytest.mark.parametrize(
    ("text", "alone"),
    [
        ("s-1", [0]),
        (" \t s-1 \t", [3]),
        ('"s-1", x s-1', [1]),
        ("x  s-1", []),
        ("s-1\t\tx", []),
        ("s-1\n \ts-1", [0, 6]),
    ],
)
def test_a_short_text_stands_alone_between_blanks_and_signs(text: str, alone: list[int]) -> None:
    assert list(tokens.places(text, "s-1")) == alone


def test_the_places_of_a_short_text_are_found_in_one_pass() -> None:
    # to copy what is before and after each place would take hours
    assert sum(1 for _ in tokens.places("x s-1 y\n" * 400_000, "s-1")) == 0
    assert sum(1 for _ in tokens.places("s-1\n" * 400_000, "s-1")) == 400_000
