"""Identifiers of customers in every spelling (addresses, names, phones, serial numbers), and where a text has one.

Every spelling is found (`privacy.tokens`), but only where it stands alone: `joann@x.example` does not contain
`ann@x.example`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache

from stedi._frozen import dataclass, field
from stedi.privacy import decoding, phones, tokens, tombstones
from stedi.privacy.pseudonyms import Key, normalise
from stedi.privacy.sought import Sought
from stedi.privacy.tokens import SHORT, addresses, folded, stands

_PARTS = 8
"""The number of parts into which texts are divided to find those with a mention."""
IDENTITIES = ("email", "user", "serialNumber")
"""Columns of the lake's own tables whose whole values identify somebody."""
PLAIN = r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}@[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63}){1,3}"
"""A pattern for plain addresses: it matches nothing else, but not every plain address."""
_is_plain = re.compile(PLAIN).fullmatch
_FORMATS = """
autoindex avro.codec codec categories data_0 data_1 license_name pretty_name
total-data-files total-files-size total-records total-delete-files test-files train-files validation-files
"""
"""Words of the lake's own files that its source does not contain whole: those of formats, engines and joined texts."""
_MOST = 1 << 22
"""Bytes that a packed value is unpacked to, at most."""
_MOST_KNOWN = 1 << 20
"""Addresses of others that are remembered as such, at most."""


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What identifies some customers.

    Attributes:
        key: The lake's key.
        people: Their marks: an address is also found by its mark, when its text is no longer known.
        names: Addresses in their normal form, and names and phone numbers that nobody else has; spelling is ignored.
        numbers: Serial numbers that nobody else claims, and pseudonyms; unchanged.
        phones: The digits of those phone numbers.
        left: Marks of other people's values that mention one of them but stay, since they identify somebody else.
        foreign: Texts that other clients have written into the lake's catalog; they stay.
    """

    key: Key
    people: Collection[str]
    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    phones: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    _known: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)
    # of its own in each: `replace` with other numbers looks for others
    _sought: dict[bool, tuple[Sought, Sought]] = field(default_factory=dict, init=False, repr=False, compare=False)
    _named: list[frozenset[str] | None] = field(default_factory=list, repr=False, compare=False)
    _sought_addresses: list[Sought] = field(default_factory=list, repr=False, compare=False)

    def found(self, text: str, *, data: bool = True) -> bool:
        """Returns whether a text, plain or decoded, contains one of them.

        Args:
            text: The text; of several values, one a line.
            data: Whether it is customers' data; the lake's own words may contain short or common texts.
        """
        return any(self.says(reading, data=data) for reading in tokens.readings(text, controls=data))

    def says(self, text: str, *, data: bool = True) -> bool:
        """Returns whether a text contains one of them without decoding; arguments as for `found`."""
        names, numbers = self._texts(data=data)
        for number in numbers.among(text):
            if number in text and (data or _tells(number)) and stands(text, number):
                return True
        # no other character becomes an `@` when it is folded, and without one there is no address
        if not data and "@" not in text:
            return False
        plain = folded(text)
        typed = tokens.smoothed(plain) if data and (names or self.phones) else plain
        for among in {plain, typed}:
            if any((among is plain or "@" not in name) and stands(among, name) for name in names.among(among)):
                return True
        if data and phones.calls(typed, self.phones):
            return True
        return bool(self._standing(plain))

    def _standing(self, plain: str, *, name: bool = False) -> Collection[str]:
        """Returns their addresses that stand in a case-folded text, also as part of a file name."""
        named = self._addresses()
        if named is None:
            return [address for address in addresses(plain, name=name) if self.known(address)]
        # parts of a case-folded text are in normal form, so no other spelling of an address can occur
        if not self._sought_addresses[0].may_stand(plain):
            return ()
        found = named & addresses(plain, name=name)
        self._known.update(dict.fromkeys(found, True))
        return found

    def _texts(self, *, data: bool) -> tuple[Sought, Sought]:
        """Returns the names that are looked for as texts, and the numbers; plain addresses are found by their marks."""
        if data not in self._sought:
            found: set[str] = set()
            for name in self.names:
                sign = "@" in name
                if (data or sign) and not (sign and tokens.is_plain(name) and name in addresses(name)):
                    found |= {name, name if sign else tokens.smoothed(name)}
            self._sought[data] = Sought(found), Sought(self.numbers)
        return self._sought[data]

    @property
    def latin(self) -> bool:
        """Whether all that is looked for among the lake's own words is Latin, addresses aside."""
        return "".join(self.numbers).isascii()

    def names_file(self, name: str, *, data: bool = True) -> bool:
        """Returns whether a file name contains one of them, also beside an underscore; `data` as in `found`."""
        return (
            any(number in name and _tells(number) and stands(name, number, name=True) for number in self.numbers)
            or any(self._standing(folded(reading), name=True) for reading in tokens.readings(name))
            or self.found(name, data=data)
        )

    def known(self, address: str) -> bool:
        """Returns whether an address, in any spelling, belongs to one of them."""
        if address in self._known:
            return self._known[address]
        named = self._addresses()
        if named is not None and normalise(address) not in named:
            return False
        found = named is not None or tombstones.person(self.key, address) in self.people
        # hits are always kept, few as they are: `met` tells of them
        if found or len(self._known) < _MOST_KNOWN:
            self._known[address] = found
        return found

    def knows_any(self, plain: Collection[str]) -> bool:
        """Returns whether one of some addresses of the form `PLAIN` belongs to one of them."""
        named = self._addresses()
        if named is not None and named.isdisjoint("\n".join(plain).lower().split("\n")):
            return False
        return any(map(self.known, plain))

    def owns(self, address: str) -> bool:
        """Returns whether a record with this customer address belongs to one of them.

        Invisible characters do not change an address, unless the address with them has landed: then it is somebody
        else's.
        """
        if self.known(address):
            return True
        seen = tokens.visible(address)
        return seen is not address and self.known(seen) and not self.stays(address)

    def _addresses(self) -> frozenset[str] | None:
        """Returns all addresses if they are among the names: a lookup is faster than computing a mark."""
        if not self._named:
            marks = {name: tombstones.person(self.key, name) for name in self.names}
            named = frozenset(name for name, mark in marks.items() if mark in self.people)
            # first, as another thread may look in the meantime
            self._sought_addresses.append(Sought(named))
            self._named.append(named if {marks[name] for name in named}.issuperset(self.people) else None)
        return self._named[0]

    def names_any(self, text: str) -> bool:
        """Returns whether one of their addresses stands in a text without decoding."""
        return bool(self._standing(folded(text)))

    def who(self, text: str) -> frozenset[str]:
        """Returns the marks of those whose address stands in a text, plain or decoded."""
        named = {address for reading in tokens.readings(text) for address in self._standing(folded(reading))}
        return frozenset(tombstones.person(self.key, address) for address in named)

    def met(self) -> frozenset[str]:
        """Returns the marks of those whose address was in any text examined by this process."""
        return frozenset(tombstones.person(self.key, address) for address, hit in self._known.items() if hit)

    def masked(self, text: str) -> str | None:
        """Returns a text of somebody else without mentions of them; None if they cannot be separated."""
        plain = folded(text)
        parts = {part for part in self.names if part in plain and len(part) >= SHORT}
        parts |= {folded(number) for number in self.numbers if number in text and len(number) >= SHORT}
        parts |= set(self._standing(plain))
        kept = tokens.masked(text, parts)
        return None if self.found(kept) else kept

    def without_foreign(self, text: str) -> str:
        """Returns a text of the lake's catalog without texts of other clients."""
        # the longest first, since one can be part of another; as text, and as JSON writes it
        for part in sorted(self.foreign, key=len, reverse=True):
            for written in (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
                text = text.replace(written, "")
        return text

    def stays(self, value: str) -> bool:
        """Returns whether a value of somebody else was kept although it mentions one of them."""
        return bool(self.left) and left(self.key, value) in self.left


def left(key: Key, value: str) -> str:
    """Returns the mark of a value of somebody else that stays although it mentions an erased customer."""
    return tombstones.mark(key, "value of others", normalise(value))


def _tells(number: str) -> bool:
    """Returns whether a serial number among the lake's own words shows that it was left there.

    It does not if the software writes the same word: a device may be called `shared` or `snapshot`.
    """
    return len(number) >= SHORT and not stands(_own_words(), number, name=True)


@cache
def _own_words() -> str:
    """Returns the package's source as one text; whatever the lake's own files say in words, it says."""
    from importlib import resources

    texts = [_FORMATS]
    folders = [resources.files("stedi")]
    for folder in folders:  # it grows
        for entry in folder.iterdir():
            if entry.is_dir():
                folders.append(entry)
            elif entry.name.endswith((".py", ".sql")):
                texts.append(entry.read_text("utf-8"))
    return "\n".join(texts)


def of(records: Iterable[tuple[str | None, ...]], shared: Collection[str]) -> frozenset[str]:
    """Returns the texts that identify customers, from their records, in their normal form.

    Args:
        records: Address, name, phone of each record.
        shared: The case-folded names, phone numbers, and addresses without `@` that anybody else has.
    """
    found = set()
    for address, *rest in records:
        # without `@` an address may be any word, which others may have as a name
        if address and ("@" in address or normalise(address) not in shared):
            found.add(normalise(address))
        found |= {text for text in (folded(part).strip() for part in rest if part) if text and text not in shared}
    return frozenset(found)


def is_trace(value: str, column: str | None, traces: Identifiers) -> bool:
    """Returns whether a value belongs to the customers, or mentions them and should have been removed.

    Args:
        value: The value.
        column: Its column, if it identifies people or is a quarantined record's `raw`.
        traces: What identifies the customers.
    """
    if column == "serialNumber":
        return value in traces.numbers or (mentions(value, traces) and not traces.stays(value))
    if column == "raw" and (owner := tokens.owner(value)) is not None and not traces.owns(owner):
        return traces.found(tokens.beside(value, owner)) or (names_another(owner, traces) and not traces.stays(owner))
    if column in IDENTITIES and tokens.is_plain(value):
        return traces.known(value)
    return traces.found(value) and not traces.stays(value)


def divided(addresses: Iterable[str]) -> tuple[list[str], list[str]]:
    """Returns those of some addresses that have the form `PLAIN`, and the others."""
    plain: list[str] = []
    others: list[str] = []
    for address in addresses:
        (plain if _is_plain(address) else others).append(address)
    return plain, others


def names_another(address: str, traces: Identifiers) -> bool:
    """Returns whether somebody else's address is not plain and mentions one of the customers."""
    return not tokens.is_plain(tokens.visible(address)) and mentions(address, traces)


def mentions(value: str, traces: Identifiers) -> bool:
    """Returns whether a text mentions one of the customers' addresses."""
    return any(traces.names_any(reading) for reading in tokens.readings(value) if "@" in reading)


def telling(texts: Sequence[str], tells: Callable[[str], bool]) -> Iterator[int]:
    """Yields the positions of texts with a mention; many are tested together, then divided.

    Args:
        texts: The texts.
        tells: Returns whether a text has a mention, or one of several texts with empty lines between them.
    """
    parts = [(0, len(texts))] if texts else []
    while parts:
        start, end = parts.pop()
        # an empty line between, so that encoded text does not continue in the next
        if not tells("\n\n".join(texts[start:end])):
            continue
        if end - start == 1:
            yield start
        else:
            size = -(-(end - start) // _PARTS)
            parts += [(at, min(at + size, end)) for at in range(start, end, size)]


def mentioning(values: Sequence[str], traces: Identifiers) -> list[str]:
    """Returns those of some texts that mention one of the customers' addresses."""
    return [values[place] for place in telling(values, lambda text: mentions(text, traces))]


def as_text(value: str | bytes, *, latin: bool = False) -> str:
    """Returns a value as text; a blob in all encodings that it may be in, and unpacked; `latin` as in `decoding`."""
    return value if isinstance(value, str) else "\n".join(decoding.texts(bytes(value), most=_MOST, latin=latin))
