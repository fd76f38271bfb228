"""The words of the reader: limits, parsed records, rejects and counts.

`framing` turns bytes into parsed records and rejects, `fitting` turns parsed records into lines or reasons, `reading`
counts. Everything here is a plain value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from stedi._frozen import dataclass, field
from stedi.landing.reader.units import Unit
from stedi.schema.contracts import Reason

Members = tuple[tuple[str, object], ...]
"""An object's members as delivered, duplicates and order kept; an object inside is such a tuple, an array a list."""

RECORD_BYTES = 1 << 20
"""The longest record unless a limit says otherwise."""


class Huge:
    """An integer of more than 400 digits: beyond 64 bits and beyond a double, whatever its digits."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Huge()"


UNKNOWN = "unknown field"
"""What drift by a field that no contract knows is called; its name follows where it looks like an identifier."""
_MOST_DRIFTS = 200
"""Kinds of drift up to which unknown fields are counted by name."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the reader takes before it calls a record or a file too much.

    Attributes:
        record_bytes: The longest record, in bytes of decompressed text.
        depth: The deepest nesting of a record, its own braces included; at most 500.
        raw_bytes: How much of a rejected record's text is kept.
        block_bytes: How much is read, and looked at in one go; results do not depend on it.
        ratio: Decompressed size over compressed size from which on a file is a bomb, if it is also
        bomb_bytes: longer than this when decompressed.
    """

    record_bytes: int = RECORD_BYTES
    depth: int = 64
    raw_bytes: int = 64 << 10
    block_bytes: int = 1 << 20
    ratio: int = 200
    bomb_bytes: int = 1 << 30


@dataclass(frozen=True, slots=True)
class Reject:
    """A record that could not be taken.

    Attributes:
        offset: Where it starts in the decompressed text, in bytes from 0.
        line: The line on which it starts, from 1.
        reason: Why.
        raw: Its first bytes, as many as `Limits.raw_bytes`.
        raw_size: Its whole size in bytes.
    """

    offset: int
    line: int
    reason: Reason
    raw: bytes
    raw_size: int


@dataclass(frozen=True, slots=True)
class ParsedRecord:
    """One JSON object that obeys RFC 8259 and the limits.

    Attributes:
        offset: Where it starts in the decompressed text, in bytes from 0.
        line: The line on which it starts, from 1.
        raw: Its text as delivered, UTF-8.
        members: Its members, see `Members`.
    """

    offset: int
    line: int
    raw: bytes
    members: Members


@dataclass(frozen=True, slots=True)
class Fitted:
    """One record in the form of its contract.

    Attributes:
        values: For each field of the contract, in its order: text, integer, float, or None.
        extra: JSON of what was set aside, as delivered; None if nothing was.
    """

    values: tuple[str | int | float | None, ...]
    extra: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """The outcome of a file's records: seen = accepted + quarantined + erased, always.

    Attributes:
        seen: Records found.
        accepted: Records that meet the contract.
        quarantined: Records that do not.
        drift: How often accepted records strayed from the contract, by what they did: `phone: wrong_type`,
            `unknown field speed`; a name that does not look like an identifier is just `unknown field`.
        erased: Records of erased customers, dropped; the reader knows of none.
        units: How many records had an instant that looks as if it were given otherwise than in epoch milliseconds, by
            field, how it looks, and whether that cost the record.
    """

    seen: int
    accepted: int
    quarantined: int
    drift: Mapping[str, int] = field(default_factory=dict)
    erased: int = 0
    units: Mapping[tuple[str, Unit, bool], int] = field(default_factory=dict)

    def __add__(self, other: Counts) -> Counts:
        """Returns the counts of two pieces of one file."""
        drift = Counter(self.drift)
        for what, count in other.drift.items():
            add_drift(drift, what, count)
        return Counts(
            self.seen + other.seen, self.accepted + other.accepted, self.quarantined + other.quarantined,
            dict(drift), self.erased + other.erased, dict(Counter(self.units) + Counter(other.units)),
        )  # fmt: skip


def add_drift(drift: Counter[str], what: str, count: int) -> None:
    """Counts a kind of drift; of unknown fields only some are counted by name, since a delivery may have any number."""
    known = what in drift or len(drift) < _MOST_DRIFTS or not what.startswith(UNKNOWN)
    drift[what if known else UNKNOWN] += count
