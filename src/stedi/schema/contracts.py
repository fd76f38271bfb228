"""Contracts of records: kinds, fields, and the reasons for which a record is refused.

Pure facts and checks on single values; no clock, no disk, no network. `feeds` states the three
contracts, `reader` applies them to bytes, `catalog` and `ddl` turn them into columns.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from enum import StrEnum

from stedi.errors import IGNORED

INSTANT_BEGIN = 946_684_800_000
"""The first instant, the start of the year 2000: seconds in place of milliseconds, and unset clocks, are before it."""

INSTANT_END = 253_402_300_800_000
"""The first epoch millisecond after the year 9999, and after the last instant: microseconds of today are beyond it."""

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
    """In a customer's address: nobody could name whose it is."""


class PrivacyClass(StrEnum):
    """What a value tells about a person, the most telling first."""

    DIRECT = "direct identifier"
    """Names, or reaches, somebody: rule 7 keeps it in landing and the two customers tables."""
    INDIRECT = "indirect identifier"
    """Tells people apart, and who somebody is to those who know more: a device, an exact date, a pseudonym."""
    SENSOR = "sensor"
    """A reading: what was measured, and when. Its exact time can still give somebody away."""
    OPERATIONAL = "operational"
    """About files and landings."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record, by the name under which it is delivered.

    Attributes:
        name: The name.
        kind: The type of its value.
        required: Whether a record without it is refused.
        privacy: What its value tells about a person; the worst until somebody has said otherwise.
        names_customer: Whether its value is a customer's address (rule 1 of consent), which somebody must be able to
            name: a record whose address has a character that nobody can see is refused.
    """

    name: str
    kind: Kind
    required: bool = True
    privacy: PrivacyClass = PrivacyClass.DIRECT
    names_customer: bool = False

    @property
    def expected(self) -> str:
        """What its value must be, in words."""
        return _EXPECTED[self.kind]


_EXPECTED = {
    Kind.TEXT: "text",
    Kind.INSTANT: "epoch ms",
    Kind.NUMBER: "number",
    Kind.INTEGER: "integer",
}


@dataclass(frozen=True, slots=True)
class Contract:
    """What the records of one feed must be.

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
        """Returns the field that `name` means, without regard to case, or None."""
        folded = name.lower()
        return next((field for field in self.fields if field.name.lower() == folded), None)


def has_unseen(text: str) -> bool:
    """Returns whether a text has a character that nobody can see, or type, and so nobody can name.

    These are control characters, NUL among them, all of format (zero width, direction, soft hyphen, byte order
    mark), those that fonts do not draw, lone surrogates, private and unassigned ones, and white space other than a
    plain space within the text. White space around it does not count: rule 1 of consent trims it.
    """
    text = text.strip()  # what Python calls printable is all of that but for what fonts do not draw
    return not text.isprintable() or not (text.isascii() or IGNORED.isdisjoint(text))


def unseen(character: str) -> bool:
    """Returns whether a character is one that nobody can see, or type; of white space control characters alone."""
    return unicodedata.category(character) in _UNSEEN or character in IGNORED


_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Cn")
