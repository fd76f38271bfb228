"""What texts say of people, many looked for at once, is what a plain search for each of them says."""

from __future__ import annotations

import base64
import json
import unicodedata
from collections.abc import Callable
from random import Random, randrange

import pytest

from effort import tries
from stedi.erasure import contents
from stedi.erasure.identifiers import Identifiers, _tells
from stedi.privacy import decoding, phones, sought, tokens, tombstones
from stedi.privacy.pseudonyms import Key

KEY = Key(bytes(32))


def plainly(traces: Identifiers, text: str, *, data: bool) -> bool:
    """Whether a text contains one of them: each is looked for in each reading."""
    for reading in tokens.readings(text, controls=data):
        plain = tokens.folded(reading)
        typed = tokens.smoothed(plain)
        for name in traces.names:
            if "@" in name:
                if name in tokens.addresses(plain) or (not tokens.is_plain(name) and tokens.stands(plain, name)):
                    return True
            elif data and any(
                tokens.stands(among, written) for among in (plain, typed) for written in (name, tokens.smoothed(name))
            ):
                return True
        if any(tokens.stands(reading, number) and (data or _tells(number)) for number in traces.numbers):
            return True
        if data and any(phones._dialled(number).search(typed) for number in traces.phones):
            return True
    return False


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("others", [0, 30])
def test_a_text_names_whom_a_plain_search_finds(native: bool, others: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if not native:
        monkeypatch.setattr(sought, "library", lambda: None)
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, hits = Random(seed), 0
    addresses = ["ann@x.example", "zo\u00eb.o'brien@x.example", "ann lee@x.example", "a<b@x.example>"]
    names = ["ann lee", "o'brien, zo\u00eb", "li", "\u6797 \u9234", "a\u00a0 b c", "anna-marie"]
    numbers = ["device-1", "s1", "0cc96ea7-39bf", "snapshot", "caf\u00e9 12"]
    several = [*(f"{n}ann@x.example" for n in range(others)), *(f"ann lee{n}" for n in range(others))]
    more = [f"device-1{n}" for n in range(others)]
    traces = Identifiers(
        KEY,
        frozenset(tombstones.person(KEY, address) for address in [*addresses, *several[:others]]),
        frozenset(map(tokens.folded, [*addresses, *names, *several])),
        frozenset([*numbers, *more]),
        frozenset(["18015550178"]),
    )
    pieces = [*addresses, *names, *numbers, *several, *more, "+1 801 555-0178", "nobody@x.example", "lee", "ann", "12"]
    ways: list[Callable[[str], str]] = [
        str, str.upper, json.dumps, lambda text: text.replace("@", "%40"),
        lambda text: base64.b64encode(text.encode()).decode(), lambda text: unicodedata.normalize("NFD", text),
    ]  # fmt: skip
    for _ in range(tries(300, 1_000, 50_000)):
        parts = (chance.choice(ways)(chance.choice(pieces)) for _ in range(chance.randrange(4)))
        text = "".join(chance.choice(["", " ", "\n\n", "-", "x", ".", '"', "\u00e9"]) + part for part in parts)
        if chance.random() < 0.5:
            text = text[: chance.randrange(len(text) + 1)]
        for data in (True, False):
            expected = plainly(traces, text, data=data)
            assert traces.found(text, data=data) == expected, f"seed {seed}: {text!r}"
            hits += expected
    assert hits


def test_no_other_character_becomes_an_at_sign_when_it_is_folded() -> None:
    """Texts without one are not folded to look for an address."""
    every = "\n".join(chr(code) for code in range(0x110000) if chr(code) != "@")
    assert "@" not in tokens.folded(every)


def test_ids_have_no_other_reading() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    for _ in range(tries(200, 1_000, 20_000)):
        text = "".join(chance.choices("0123456789abcdefABCDEF \n-", k=chance.randrange(200)))
        assert list(tokens.readings(text)) == [text]
        # neither with what is not an id beside it
        assert list(tokens.readings(f"{text} \u00e9 z")) == [f"{text} \u00e9 z"], f"seed {seed}"
        assert [*tokens.readings(f"{text}&#64;")][-1] == f"{text}@"


@pytest.mark.parametrize("controls", [True, False])
@pytest.mark.parametrize("but", ["", "\t\n\r"])
def test_invisible_characters_are_removed_one_by_one(but: str, controls: bool) -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    wide = "\x7f\x85\u00a0\u00ad\u200b\u202e\u2028\u3000\ufeff\ufffd\u00e9\u6797\ud83d\ude00\ud800\U000e0041"
    some = f"ab \t\n\r\0\x1f{wide}"

    def stays(character: str) -> bool:
        control = unicodedata.category(character) == "Cc"
        return character in but or not tokens._hides(character) or (control and not controls)

    for _ in range(tries(500, 2_000, 50_000)):
        text = "".join(chance.choices(some, k=chance.randrange(12)))
        expected = "".join(character for character in text if stays(character))
        if text.isascii() and not controls:
            expected = text
        assert tokens.visible(text, but=but, controls=controls) == expected, f"seed {seed}: {text!r}"


def test_a_record_is_read_with_all_its_values_in_their_order() -> None:
    record = {"a": [1, ("b", {"c": b"d\0e", "f": None})], "g": {}, "h": [[], [2.5, True]], "i": "j"}
    flat = ["a", "1", "b", "c", contents.as_text(b"d\0e"), "f", "None", "g", "h", "2.5", "True", "i", "j"]
    assert contents._values(record) == flat
    assert contents.values(record) == "\n".join(flat)
    assert contents._values("a") == ["a"]


def test_bytes_are_read_in_every_way_whatever_they_begin_with() -> None:
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    for first in range(256):
        for latin in (True, False):
            raw = bytes([first, *chance.choices([0, 0, 64, 97, 98, 255], k=chance.randrange(20))])
            expected = [text for part in decoding.layers(raw) for text in decoding.plain(part, latin=latin)]
            assert decoding.texts(raw, latin=latin) == expected, f"seed {seed}: {raw!r}"
