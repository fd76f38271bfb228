"""Contracts of records: kinds, fields, and the reasons for which a record is refused.

Only definitions and checks on single values: no clock, no disk, no network. `feeds` defines the three contracts,
`reader` applies them to bytes, `catalog` and `ddl` turn them into columns.
"""

from __future__ import annotations

import unicodedata
from enum import StrEnum

from stedi._frozen import dataclass
from stedi.errors import IGNORED

INSTANT_BEGIN = 946_684_800_000
"""The first valid instant, the start of the year 2000: seconds instead of milliseconds, and unset clocks, give earlier
values."""

INSTANT_END = 253_402_300_800_000
"""The first epoch millisecond after the year 9999, and the end of valid instants: microseconds instead of milliseconds
give later values."""

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1


class Kind(StrEnum):
    """The type of a field's value."""

    TEXT = "text"
    INSTANT = "instant"
    """An integer, epoch milliseconds, `INSTANT_BEGIN` <= t < `INSTANT_END`."""
    NUMBER = "number"
    """A JSON number that is finite as a 64-bit float."""
    INTEGER = "integer"
    """A JSON number without fraction or exponent that fits 64 bits."""


class Reason(StrEnum):
    """Why a record went to quarantine: a closed list of codes that scripts may rely on."""

    MALFORMED = "malformed"
    TRUNCATED = "truncated"
    DUPLICATE_KEY = "duplicate_key"
    NOT_AN_OBJECT = "not_an_object"
    MISSING_REQUIRED = "missing_required"
    WRONG_TYPE = "wrong_type"
    OUT_OF_RANGE = "out_of_range"
    TOO_DEEP = "too_deep"
    TOO_LARGE = "too_large"
    BAD_ENCODING = "bad_encoding"
    INVISIBLE_CHARACTER = "invisible_character"
    """In a customer's address: nobody could type the address to name the customer."""


class PrivacyClass(StrEnum):
    """What a value reveals about a person, the strictest class first."""

    DIRECT = "direct identifier"
    """Names a person, or is a way to contact one: rule 7 keeps it in landing and the two customers tables."""
    INDIRECT = "indirect identifier"
    """Tells people apart, and identifies a person to somebody who knows more: a device, an exact date, a pseudonym."""
    SENSOR = "sensor"
    """A reading: what was measured, and when. Its exact time can still identify a person."""
    OPERATIONAL = "operational"
    """Information about files and landings."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record.

    Attributes:
        name: The name under which it is delivered.
        kind: The type of its value.
        required: Whether a record without it is refused.
        privacy: What its value reveals about a person; the strictest class by default.
        names_customer: Whether its value is a customer's address (rule 1 of consent). People must be able to type it:
            a record whose address has an invisible character is refused.
    """

    name: str
    kind: Kind
    required: bool = True
    privacy: PrivacyClass = PrivacyClass.DIRECT
    names_customer: bool = False

    @property
    def expected(self) -> str:
        """The expected type of its value, in words."""
        return _EXPECTED[self.kind]


_EXPECTED = {
    Kind.TEXT: "text",
    Kind.INSTANT: "epoch ms",
    Kind.NUMBER: "number",
    Kind.INTEGER: "integer",
}


@dataclass(frozen=True, slots=True)
class Contract:
    """The contract that the records of one feed must meet.

    Attributes:
        feed: The feed's name, singular, as on the command line.
        table: The landing table that takes the feed's records.
        fields: The fields in the order in which the feed delivers them.
    """

    feed: str
    table: str
    fields: tuple[Field, ...]

    @property
    def required(self) -> tuple[Field, ...]:
        """The fields without which a record is refused."""
        return tuple(field for field in self.fields if field.required)

    def field(self, name: str) -> Field | None:
        """Returns the field with this name, ignoring case, or None."""
        folded = name.lower()
        return next((field for field in self.fields if field.name.lower() == folded), None)


def has_unseen(text: str) -> bool:
    """Returns whether a text has a character that nobody can see or type.

    These are control characters including NUL, all format characters (zero width, direction, soft hyphen, byte order
    mark), characters that fonts do not draw, lone surrogates, private and unassigned characters, and white space other
    than a plain space inside the text. White space around the text does not count: rule 1 of consent trims it.
    """
    text = text.strip()  # `isprintable` covers all of these except characters that fonts do not draw
    return not text.isprintable() or not (text.isascii() or IGNORED.isdisjoint(text))


def unseen(character: str) -> bool:
    """Returns whether nobody can see or type a character; of white space, only control characters count."""
    return unicodedata.category(character) in _UNSEEN or character in IGNORED


_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")
