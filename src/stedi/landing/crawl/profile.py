"""Profiles of fields: types, ranges and counts of their values, never a value.

Each field's values are added to its profile: types, gaps, lengths and masked shapes. Ranges are kept only for values
that identify nobody: a contract's numbers, and the years of instants.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Generic, TypeVar

from stedi._frozen import dataclass, field
from stedi.landing.crawl.report import Drift, FieldReport, is_identifier, listing, share
from stedi.landing.reader import Members, Unit, likely
from stedi.landing.reader.fitting import PRECEDENCE, checked
from stedi.schema.contracts import Contract, Field, Kind, Reason

OTHER = "(other fields)"
"""The name under which fields beyond `_MOST_FIELDS` are counted."""

_MOST_FIELDS = 500
_MOST_SHAPES = 500
_MOST_SPELLINGS = 10
"""The most fields of a feed, and shapes and spellings of a field, to count separately: hostile files have no limit."""

_LONGEST_SHAPE = 40
_LOOKED_AT = 1000
"""Characters of a shape that are shown, and of a text that are looked at."""

_INSTANTS = range(631_152_000_000, 4_102_444_800_000)
"""Integers that look like epoch milliseconds, of the years 1990 to 2099."""

_TYPES: dict[type, str] = {
    bool: "boolean",
    str: "text",
    float: "fraction",
    type(None): "null",
    list: "list",
    tuple: "object",
}
_A = {Kind.INSTANT: "an instant", Kind.INTEGER: "a 64-bit integer", Kind.NUMBER: "a number"}
_UUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_LONG_RUN = re.compile(r"([aA9])\1{4,}")

Figure = TypeVar("Figure", int, float)


@lru_cache(4096)
def mask(text: str) -> str:
    """Returns a text's shape: letters as `a` and `A`, digits as `9`, runs longer than four cut to four.

    Punctuation is kept, since it shows what kind of text it is; all else is `*`. At most 40 characters, then an
    ellipsis.
    """
    if _UUID.fullmatch(text):
        return "(uuid)"
    shape = _LONG_RUN.sub(r"\1\1\1\1", text[:_LOOKED_AT].translate(_MASK))
    whole = len(shape) <= _LONGEST_SHAPE and len(text) <= _LOOKED_AT
    return shape if whole else shape[:_LONGEST_SHAPE] + "…"


class _Mask(dict[int, str]):
    def __missing__(self, point: int) -> str:
        character = chr(point)
        if character.isdigit():
            masked = "9"
        elif character.isalpha():
            masked = "A" if character.isupper() else "a"
        else:
            masked = character if character.isascii() and character.isprintable() else "*"
        # hostile text may have any of a million characters
        if len(self) < 10_000:
            self[point] = masked
        return masked


_MASK = _Mask()


def type_of(value: object) -> str:
    """Returns the type of a value as the reader gives it: one of `FieldReport.types`."""
    if type(value) is int:
        return "instant" if value in _INSTANTS else "integer"
    return _TYPES.get(type(value), "integer")


class _Bounds(Generic[Figure]):
    """The least and the greatest of the added values."""

    __slots__ = ("greatest", "least")

    def __init__(self) -> None:
        self.least: Figure | None = None
        self.greatest: Figure | None = None

    def add(self, value: Figure) -> None:
        if self.least is None or value < self.least:
            self.least = value
        if self.greatest is None or value > self.greatest:
            self.greatest = value

    def pair(self) -> tuple[Figure, Figure] | None:
        return None if self.least is None or self.greatest is None else (self.least, self.greatest)


@dataclass(slots=True)
class _Profile:
    """What is known about one field so far, without its values."""

    name: str
    expected: Field | None = None
    present: int = 0
    twice: int = 0
    blank: int = 0
    odd: int = 0
    unseen: int = 0
    units: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    spellings: Counter[str] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)
    shapes: Counter[str] = field(default_factory=Counter)
    lengths: _Bounds[int] = field(default_factory=_Bounds)
    bounds: _Bounds[float] = field(default_factory=_Bounds)
    instants: _Bounds[int] = field(default_factory=_Bounds)

    def add(self, values: Sequence[object]) -> None:
        """Adds the field's values in one record: one value, or several if the key is repeated."""
        self.present += 1
        # other names go by their masks, which different names share
        self.twice += len(values) > 1 and is_identifier(self.name)
        for value in values:
            kind = type_of(value)
            self.types[kind] += 1
            if isinstance(value, str):
                self.lengths.add(len(value))
                self.blank += not value.strip()
                _count(self.shapes, mask(value), _MOST_SHAPES)
            elif isinstance(value, int) and kind != "boolean":
                self.lengths.add(len(str(abs(value))))
                if kind == "instant":
                    self.instants.add(value)

    def judge(self, values: Sequence[object]) -> Reason | None:
        """Checks the field's values in one record against the contract; returns a reason if the record is rejected."""
        expected = self.expected
        if expected is None:
            return None
        value = values[0] if values else None
        written: Reason | str = Reason.DUPLICATE_KEY
        if len(values) < 2:
            written = checked(value, expected)
        if isinstance(written, Reason) and expected.kind is Kind.INSTANT and (unit := likely(value)):
            self.units[unit] += 1
        if written is Reason.WRONG_TYPE:
            self.wrong[type_of(value)] += 1
        elif written is Reason.OUT_OF_RANGE:
            self.odd += 1
        elif written is Reason.INVISIBLE_CHARACTER:
            self.unseen += 1
        elif expected.kind in (Kind.NUMBER, Kind.INTEGER) and isinstance(value, (int, float)):
            self.bounds.add(value)
        return written if isinstance(written, Reason) and expected.required else None

    def report(self, records: int) -> FieldReport:
        """Returns the report on the field, for this number of records."""
        years = self.instants.pair()
        return FieldReport(
            name=self.name,
            spellings=dict(self.spellings.most_common()),
            present=self.present,
            missing=records - self.present,
            twice=self.twice,
            types=dict(self.types.most_common()),
            blank=self.blank,
            lengths=self.lengths.pair(),
            bounds=self.bounds.pair(),
            years=None if years is None else (_year(years[0]), _year(years[1])),
            shapes=tuple(shape for shape, _ in self.shapes.most_common(3)),
        )

    def drift(self, records: int) -> Iterator[Drift]:
        """Yields the ways in which the field differs from the contract."""
        name, expected = self.name, self.expected
        if expected is None:
            yield Drift("unknown_field", name, self.present, costs=False, found=listing(self.types))
            return
        costs = expected.required
        if not self.present:
            yield Drift("missing_field", name, records, costs, "in no record")
            return
        gaps = records - self.present + self.types["null"]
        if costs and gaps:
            yield Drift("missing_value", name, gaps, costs, f"absent or null in {share(gaps, records)} of the records")
        if self.wrong:
            found = f"expected {expected.kind}, found {listing(self.wrong)}{self._looks(odd=False)}"
            yield Drift("wrong_type", name, self.wrong.total(), costs, found)
        if self.odd:
            found = (
                "blank"
                if expected.kind is Kind.TEXT
                else f"too small or too great for {_A[expected.kind]}{self._looks(odd=True)}"
            )
            yield Drift("out_of_range", name, self.odd, costs, found)
        if self.unseen:
            yield Drift("invisible_character", name, self.unseen, costs, "a character that nobody can see or type")
        if self.twice:
            yield Drift("given_twice", name, self.twice, costs, "more than once in one record")
        others = {spelling: count for spelling, count in self.spellings.items() if spelling != name}
        if others:
            found = f"spelled {', '.join(others)}"
            yield Drift("spelling", name, sum(others.values()), costs=False, found=found)

    def _looks(self, *, odd: bool) -> str:
        """Returns the likely units of instants that are out of range (`odd`) or of a wrong type."""
        of_numbers = (Unit.SECONDS, Unit.MICROSECONDS, Unit.NANOSECONDS)
        units = {unit: count for unit, count in self.units.items() if (unit in of_numbers) == odd}
        return f"; they look as if given {', '.join(f'{u} ({n:,})' for u, n in units.items())}" if units else ""


class Profiles:
    """The profiles of one feed's fields, and how many of its records the contract would reject.

    Attributes:
        contract: The feed's contract, if there is one.
        records: Records that could be parsed.
        others: Values that are not records.
        rejects: How many of both would be quarantined, by reason.
    """

    def __init__(self, contract: Contract | None) -> None:
        self.contract = contract
        self.records = 0
        self.others = 0
        self.rejects: Counter[Reason] = Counter()
        fields = contract.fields if contract is not None else ()
        self._profiles = {expected.name.lower(): _Profile(expected.name, expected) for expected in fields}
        # of the contract alone: fields that are found later join `_profiles`
        self._expected = list(self._profiles.items())

    def reject(self, reason: Reason) -> None:
        """Counts a value that is not a record."""
        self.others += 1
        self.rejects[reason] += 1

    def add(self, members: Members) -> None:
        """Adds a record."""
        self.records += 1
        values: dict[str, list[object]] = {}
        for name, value in members:
            key = self._key(name)
            values.setdefault(key, []).append(value)
            shown = name if is_identifier(name) and key != OTHER else key
            _count(self._profiles[key].spellings, shown, _MOST_SPELLINGS)
        for key, given in values.items():
            self._profiles[key].add(given)
        reasons = {profile.judge(values.get(key, ())) for key, profile in self._expected}
        reason = next((reason for reason in PRECEDENCE if reason in reasons), None)
        if reason is not None:
            self.rejects[reason] += 1

    def _key(self, name: str) -> str:
        known = is_identifier(name)
        key = name.lower() if known else f'"{mask(name)}"'
        if key not in self._profiles:
            if len(self._profiles) >= _MOST_FIELDS:
                key = OTHER
            self._profiles.setdefault(key, _Profile(name if known and key != OTHER else key))
        return key

    def fields(self) -> tuple[FieldReport, ...]:
        """Returns the field reports: the contract's fields first, then the others in the order found."""
        return tuple(profile.report(self.records) for profile in self._profiles.values())

    def drift(self) -> tuple[Drift, ...]:
        """Returns how the records differ from the contract; nothing if there is no contract or no record."""
        if self.contract is None or not self.records:
            return ()
        return tuple(drift for profile in self._profiles.values() for drift in profile.drift(self.records))


def _count(counter: Counter[str], key: str, most: int) -> None:
    if key in counter or len(counter) < most:
        counter[key] += 1


def _year(instant: int) -> int:
    return time.gmtime(instant / 1000).tm_year
