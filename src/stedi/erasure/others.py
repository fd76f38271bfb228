"""Other people's values, to tell which texts of some customers are theirs, too.

All values of a column are one text, a value a line: it takes a tenth of the memory of a list. So all texts are looked
up together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from stedi.privacy import phones, tokens
from stedi.privacy.sought import Sought
from stedi.privacy.tokens import folded


class Others:
    """What other people have.

    Args:
        free: Their names, phone numbers and similar texts.
        devices: Their serial numbers.
        addresses: Their addresses.
    """

    def __init__(self, free: Iterable[str], devices: str, addresses: str) -> None:
        self._devices, self._written = devices, folded(addresses)
        self._heard = tokens.smoothed("\n".join((*map(folded, free), self._written)))

    def have(self, texts: Collection[str]) -> set[str]:
        """Returns those of some case-folded names, phone numbers, or addresses without `@` that somebody else has."""
        spelled = {text: tokens.spellings(tokens.smoothed(text)) for text in texts}
        found = _standing(self._heard, {spelling for every in spelled.values() for spelling in every})
        theirs = {text for text, every in spelled.items() if not found.isdisjoint(every)}
        theirs |= _lines(folded(self._devices), spelled.keys() - theirs)
        numbers = {text: phones.digits(text) for text in spelled.keys() - theirs if phones.is_phone(text)}
        dialled = self.dial({number for number in numbers.values() if number})
        return theirs | {text for text, number in numbers.items() if number in dialled}

    def dial(self, numbers: Collection[str]) -> set[str]:
        """Returns those of some phone numbers, given by their digits, that somebody else has."""
        return set(phones.called(self._heard, numbers))

    def claim(self, numbers: Collection[str]) -> set[str]:
        """Returns those of some serial numbers that stand alone in a value of somebody else, or are one as a name."""
        folds = {number: folded(number).strip() for number in numbers}
        named = _lines(self._heard, folds.values())
        return (
            {number for number, fold in folds.items() if fold in named}
            | _standing(self._devices, numbers)
            | _standing(self._written, numbers)
        )


def _standing(text: str, parts: Collection[str]) -> set[str]:
    """Returns those of some texts, none of them empty, that stand alone in a text."""
    return {part for part in Sought(parts).among(text) if tokens.stands(text, part)}


def _lines(text: str, parts: Iterable[str]) -> set[str]:
    """Returns those of some texts that are whole lines of a text, or several lines; an empty one is none."""
    whole = f"\n{text}\n"
    return {part for part in Sought({part for part in parts if part}).among(text) if f"\n{part}\n" in whole}
