"""Which texts of some people others have, too."""

from __future__ import annotations

from random import Random, randrange

import pytest

from effort import tries
from stedi.erasure.others import Others
from stedi.privacy import phones, sought, tokens

PARTS = (
    *("ann", "lund", "ann lund", "jo", "abcdef", "a-b", "s1", "-x", "x--y", "brien@x.example"),
    *("\xe9t\xe9", "\u0142ucja", "0701234567", "+46 70 123 45 67", "12345678", "5550107"),
)


@pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "pure"])
def test_texts_are_looked_up_together_as_each_is(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not compiled:
        monkeypatch.setattr(sought, "library", lambda: None)
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance, hits, misses = Random(seed), 0, 0

    def value() -> str:
        return chance.choice([" ", "", "-", ", ", " \u2019", "  "]).join(
            chance.choices(PARTS, k=chance.randrange(1, 4))
        )

    def column() -> str:
        return "\n\n".join(value() for _ in range(chance.randrange(20)))

    for _ in range(tries(200, 500, 5_000)):
        free, devices, addresses = [column(), column()], column(), column()
        others = Others(free, devices, addresses)
        heard = tokens.smoothed(tokens.folded("\n".join([*free, addresses])))
        texts = {tokens.folded(value()).strip() for _ in range(chance.choice([1, 5, 60]))} - {""}

        def has(text: str, heard: str = heard, devices: str = devices) -> bool:
            spellings = tokens.spellings(tokens.smoothed(text))
            number = phones.digits(text) if phones.is_phone(text) else ""
            return (
                any(tokens.stands(heard, spelling) for spelling in spellings)
                or (number != "" and phones.calls(heard, [number]))
                or text in tokens.folded(devices).split("\n")
            )

        theirs = others.have(texts)
        assert theirs == {text for text in texts if has(text)}
        serials = {value().strip() for _ in range(chance.choice([1, 5, 60]))} - {""}
        assert others.claim(serials) == {
            serial
            for serial in serials
            if tokens.folded(serial).strip() in heard.split("\n")
            or tokens.stands(devices, serial)
            or tokens.stands(tokens.folded(addresses), serial)
        }
        numbers = {number for text in texts for number in phones.numbers(text)}
        assert others.dial(numbers) == {number for number in numbers if phones.calls(heard, [number])}
        hits, misses = hits + len(theirs), misses + len(texts) - len(theirs)
    assert hits
    assert misses


def test_a_value_of_several_lines_is_another_persons_whole() -> None:
    many = [f"nobody {number}" for number in range(50)]
    others = Others(["ann\nlund\n\nbo"], "s\n1", "")
    assert others.have([*many, "ann\nlund", "s\n1"]) == {"ann\nlund", "s\n1"}
