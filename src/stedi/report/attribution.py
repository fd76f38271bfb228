"""Attribution of texts for an export: mentions of other people, and quarantined records that may be exported.

An address counts where it stands alone (`privacy.tokens`), in any spelling, encoded or not. Records of other people are
left out, mentions of them are masked, and text that cannot be separated is withheld.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from typing import Any

from stedi._frozen import dataclass
from stedi.privacy import decoding, envelopes, tokens
from stedi.privacy.envelopes import Member
from stedi.privacy.pseudonyms import normalise

ANOTHER = "[another person]"
"""The replacement for mentions of other people."""
_WHOSE = ("email", "user")
"""Fields that name an object's owner."""
_NESTED = 4
"""How often JSON within a string is looked into."""


class Person:
    """Decides what belongs to one person in texts.

    Args:
        address: Their address in its normal form (rule 1).
        numbers: Serial numbers that only they have ever claimed.
        others: Addresses of others, as delivered, that differ from theirs only by invisible characters.
    """

    def __init__(self, address: str, numbers: Collection[str] = (), others: Collection[str] = ()) -> None:
        self.address = address
        self._numbers = frozenset(numbers)
        self._others = frozenset(map(normalise, others))

    def owns(self, address: str) -> bool:
        """Returns whether an address is theirs; invisible characters make no difference."""
        meant = normalise(address)
        # an address with an invisible character is another customer to the lake (rule 1); to this person it may be
        # their own, unless a customer has it
        return meant == self.address or (
            normalise(tokens.visible(address)) == self.address and meant not in self._others
        )

    def stands_in(self, text: str) -> bool:
        """Returns whether a text, plain or decoded, has their address or a serial number that only they claim."""
        return any(
            tokens.stands(tokens.folded(reading), self.address)
            or any(number in reading and tokens.stands(reading, number) for number in self._numbers)
            for reading in tokens.readings(text)
        )

    def others_in(self, text: str) -> set[str]:
        """Returns the case-folded addresses in a text that are not theirs."""
        return {address for reading in tokens.readings(text) for address in self._strangers(reading)}

    def _strangers(self, reading: str) -> set[str]:
        # the end of their own address, inside it, is not another address
        rest = tokens.masked(tokens.folded(reading), {self.address})
        return {address for address in tokens.addresses(rest) if not self.owns(address)}

    def shown(self, text: str) -> str:
        """Returns a text, which may be JSON, without other people's records and with their addresses masked."""
        if not self.others_in(text) and not any(f'"{name}"' in tokens.unescaped(text).lower() for name in _WHOSE):
            return text
        try:
            value = _parsed(text)
            # JSON stays JSON: whole records of others are replaced, not only the addresses in them
            kept = _masked(text, self.others_in) if value is None else _text(self._value(value, 0))
        except RecursionError:
            return json.dumps(ANOTHER)
        if value is not None and kept == _text(value):
            return text
        # read again: what is left may be an address in another reading
        return json.dumps(ANOTHER) if self.others_in(kept) else kept

    def shown_name(self, name: str) -> str:
        """Returns a file's name without the addresses of others in it."""
        return _masked(name, self._mentions_of_others)

    def _mentions_of_others(self, name: str) -> set[str]:
        # `a_b@x.example` may mean either address: count a name that ends in theirs as theirs
        readings = map(tokens.folded, tokens.readings(name))
        found = {address for reading in readings for address in tokens.addresses(reading, name=True)}
        return {address for address in found if not (self.owns(address) or address.endswith(self.address))}

    def part(self, raw: bytes) -> bytes | None:
        """Returns the part of a quarantined record that is theirs, without anything of other people.

        Returns:
            The record, or their records in an envelope, one a line, without mentions of others. Empty if none of it is
            theirs; None if theirs cannot be separated from others'.
        """
        texts = decoding.texts(raw)
        if not any(map(self.stands_in, texts)):
            return b""
        owner = tokens.owner(texts[0])
        # a record that names one owner belongs to that person, whoever else it mentions
        if owner is not None:
            return self.shown(texts[0]).encode() if self.owns(owner) else b""
        others = any(map(self.others_in, texts))
        # decoded bytes cannot be changed and packed again as they were delivered
        if len(texts) > 1:
            return None if others else raw
        try:
            value = _parsed(texts[0])
            if value is not None:
                return self._of_envelope(texts[0], value)
        except RecursionError:
            return None
        if not others:
            return raw
        cut = envelopes.cut(raw, self._verdict, lambda _: True, self.stands_in, lambda said: bool(self.others_in(said)))
        # what an erasure would cut out is what belongs to them
        pieces = [raw[start:end].strip(b", \t\r\n") for start, end in cut.spans] if cut else []
        if not pieces or not all(map(envelopes.is_json, pieces)):
            return None
        return b"\n".join(self.shown(piece.decode("utf-8", "replace")).encode() for piece in pieces)

    def _of_envelope(self, text: str, value: object) -> bytes | None:
        mine: list[_Object] = []
        alone = self._gather(value, mine, 0)
        if alone and not self.others_in(text):
            return self.shown(text).encode()
        return "\n".join(self.shown(_text(each)) for each in mine).encode() if mine else None

    def _gather(self, value: object, mine: list[_Object], level: int) -> bool:
        """Adds their records in a value; returns whether it has none of others."""
        if isinstance(value, _Object):
            whose = self._verdict(value.pairs)
            if whose is True:
                mine.append(value)
                return True
            # records of other people are not examined
            inside = [each for _, each in value.pairs] if whose is None else []
            return all([self._gather(each, mine, level) for each in inside]) and whose is None  # noqa: C419 each of them
        if isinstance(value, list):
            return all([self._gather(each, mine, level) for each in value])  # noqa: C419 each of them
        inner = _nested(value, level)
        return inner is None or self._gather(inner, mine, level + 1)

    def _value(self, value: object, level: int) -> object:
        """Returns their value without records and addresses of others."""
        if isinstance(value, _Object):
            return _Object([(_masked(name, self.others_in), self._inner(each, level)) for name, each in value.pairs])
        if isinstance(value, list):
            return [self._inner(each, level) for each in value]
        inner = _nested(value, level)
        if inner is not None:
            kept = _text(self._inner(inner, level + 1))
            return value if kept == _text(inner) else kept
        return _masked(value, self.others_in) if isinstance(value, str) else value

    def _inner(self, value: object, level: int) -> object:
        anothers = isinstance(value, _Object) and self._named(value.pairs) is False
        return ANOTHER if anothers else self._value(value, level)

    def _named(self, members: Sequence[Member]) -> bool | None:
        """Returns whether an object's named owner is this person; None if it names no owner."""
        named = [value for name, value in members if name.lower() in _WHOSE]
        theirs = [isinstance(value, str) and self.owns(value) for value in named]
        # an object that names two people, or somebody by no text, tells nobody's
        if not named or not all(isinstance(value, str) for value in named) or len(set(theirs)) > 1:
            return None
        return theirs[0]

    def _verdict(self, members: Sequence[Member]) -> bool | None:
        """Does the same, by the serial number of its device if it names nobody."""
        fields = {name.lower(): value for name, value in members}
        number = fields.get("serialnumber")
        if fields.keys().isdisjoint(_WHOSE) and isinstance(number, str):
            return number in self._numbers
        return self._named(members)


def _masked(text: str, others_in: Callable[[str], set[str]]) -> str:
    """Returns a text without the addresses that a function finds in it, or none of it if some cannot be removed."""
    found = others_in(text)
    if not found:
        return text
    kept = tokens.masked(text, found, by=ANOTHER)
    return ANOTHER if others_in(kept) else kept


@dataclass(frozen=True, slots=True)
class _Object:
    """A JSON object with its members as written: names may be repeated."""

    pairs: list[tuple[str, Any]]


def _parsed(text: str) -> object:
    """Returns the value of a JSON text; None for another text, and for null."""
    try:
        value: object = json.loads(text, object_pairs_hook=_Object)
    except ValueError:
        return None
    return value


def _nested(value: object, level: int) -> object:
    """Returns the object or array that a string holds as JSON; None for anything else."""
    if not isinstance(value, str) or level >= _NESTED or value.lstrip()[:1] not in ("{", "["):
        return None
    return _parsed(value)


def _text(value: object) -> str:
    """Returns a value as JSON."""
    if isinstance(value, _Object):
        members = (f"{json.dumps(name, ensure_ascii=False)}: {_text(each)}" for name, each in value.pairs)
        return f"{{{', '.join(members)}}}"
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    return json.dumps(value, ensure_ascii=False)
