"""Fits parsed records to a contract: each becomes one line of clean JSON, or a reason for its refusal.

A line has the contract's fields in its order, in a form that DuckDB's typed reader reads exactly, then `_extra`:
unknown members and unusable values of optional fields, as delivered. These are counted as drift.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any

from stedi._frozen import dataclass
from stedi.landing.reader.model import UNKNOWN, Fitted, Huge, Members, add_drift
from stedi.landing.reader.parsing import member_texts
from stedi.landing.reader.units import Unit, likely
from stedi.schema.contracts import (
    INSTANT_BEGIN,
    INSTANT_END,
    INTEGER_MAX,
    INTEGER_MIN,
    Contract,
    Field,
    Kind,
    Reason,
    has_unseen,
)

_TEXT, _INSTANT, _NUMBER = Kind.TEXT, Kind.INSTANT, Kind.NUMBER
_ABSENT, _TWICE = -1, -2
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""Unknown names that may be shown: any other text in the place of a name may be data, such as an address."""
_MOST_SHAPES = 1000
_MOST_NAMES = 200
"""Shapes that are remembered, and the most names of one: hostile files have no limit."""
_WORTHWHILE = 4
"""Records of a shape after which it is kept and its pattern compiled."""
_MOST_UNKNOWN = 20
_EXACT = 2**53
"""Up to here every integer is exact as a double."""
PRECEDENCE = (
    Reason.DUPLICATE_KEY,
    Reason.MISSING_REQUIRED,
    Reason.WRONG_TYPE,
    Reason.OUT_OF_RANGE,
    Reason.INVISIBLE_CHARACTER,
)
"""The reasons that a required field can give; of several, the first one is told."""


@dataclass(frozen=True, slots=True)
class Shape:
    """The meaning of a sequence of member names for a contract.

    Attributes:
        places: For each field of the contract the place of its member, or `_ABSENT`, or `_TWICE`.
        unknown: The places of members that are not in the contract.
        usable: Whether every required field is present once.
        spelled: Whether the names are those of the lines.
        present: What each member must be, whether it is required, and whether it names a customer, in the members'
            order; None if it is unknown.
        scalars: The text of such a record whose unknown members are no objects or arrays; the groups are their values.
            None if no member is unknown, or lines cannot hold them beside `_extra`, or no other record had this shape:
            a pattern costs more than many records.
    """

    places: tuple[int, ...]
    unknown: tuple[int, ...]
    usable: bool
    spelled: bool
    present: tuple[tuple[Kind | None, bool, bool], ...]
    scalars: re.Pattern[str] | None

    @property
    def clean(self) -> bool:
        """Whether it is usable and no member is unknown."""
        return self.usable and not self.unknown

    def unknown_texts(self, raw: bytes) -> tuple[str, ...]:
        """Returns the unknown members' values as a record's text has them; empty if its shape does not tell."""
        # an escape could be in a name
        if self.scalars is None or b"\\" in raw:
            return ()
        match = self.scalars.fullmatch(_on_one_line(raw).decode())
        return match.groups() if match else ()


class Conformer:
    """Fits the records of one file to a contract.

    Attributes:
        contract: The contract.
        drift: What accepted records had that the contract does not.
        units: How often an instant looks as if it were given otherwise than in epoch milliseconds, as in `Counts`.
        spelling: How `line` spells each field, by its name in the contract.
    """

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.drift: Counter[str] = Counter()
        self.units: Counter[tuple[str, Unit, bool]] = Counter()
        self.spelling: dict[str, str] = {}
        self._shapes: dict[tuple[str, ...], Shape] = {}
        self._asked: dict[tuple[str, ...], int] = {}
        self._prefixes: list[str] = []
        self.spell(())

    def spell(self, members: Members) -> None:
        """Makes `line` spell fields as these members do, others as the contract does; counts start again."""
        self.drift.clear()
        # The caller fits the first accepted record once more, so it counts again; refused ones before it do not.
        self.units = Counter({what: count for what, count in self.units.items() if what[2]})
        fields = self.contract.fields
        self.spelling = {f.name: next((n for n, _ in members if _means(n, f)), f.name) for f in fields}
        self._prefixes = [f'"{self.spelling[field.name]}":' for field in fields]
        self._shapes.clear()
        self._asked.clear()

    def shape(self, members: Members) -> Shape:
        """Returns what the members' names mean."""
        names = tuple([name for name, _ in members])
        shape = self._shapes.get(names)
        if shape is None:
            asked = self._asked.get(names, 0)
            shape = _shape(self.contract, names, self.spelling, again=asked == _WORTHWHILE)
            if asked == _WORTHWHILE:
                self._shapes[names] = shape
            elif asked or (len(self._asked) < _MOST_SHAPES and len(names) <= _MOST_NAMES):
                self._asked[names] = asked + 1
        return shape

    def line(self, members: Members, raw: bytes) -> bytes | Reason:
        """Fits one record.

        Args:
            members: The record's members.
            raw: The record's text as delivered.

        Returns:
            A line of JSON without its line break, or the first reason of `duplicate_key`, `missing_required`,
            `wrong_type`, `out_of_range`, `invisible_character` that a required field gives.
        """
        shape = self.shape(members)
        if not shape.usable:
            return self._written(members, raw, shape)
        # `type(...) is` instead of `isinstance`: to Python, a boolean is an integer
        for (_, value), (kind, required, names) in zip(members, shape.present):  # noqa: B905  of one length, and in a hurry
            # Unknown members are set aside, whatever they hold.
            if kind is None:
                continue
            if type(value) is float:
                # Not a number minus itself: the difference of infinities.
                if kind is not _NUMBER or value - value != 0.0:
                    break
            elif type(value) is int:
                if kind is _INSTANT:
                    if not INSTANT_BEGIN <= value < INSTANT_END:
                        break
                elif kind is _TEXT or not INTEGER_MIN <= value <= INTEGER_MAX:
                    break
            elif (
                type(value) is not str
                or kind is not _TEXT
                or (required and not value.strip())
                or (names and has_unseen(value))
            ):
                break
        else:
            # The text as delivered is clean; an escape in it could be in a name.
            if shape.spelled and b"\\" not in raw:
                line = _on_one_line(raw)
                if not shape.unknown:
                    return line
                if values := shape.unknown_texts(raw):
                    self._count(members, dict.fromkeys(shape.unknown, ""))
                    extra = encode_basestring(_object(members, shape.unknown, values))
                    return b'%s,"_extra":%s}' % (line[:-1], extra.encode())
        return self._written(members, raw, shape)

    def fit(self, members: Members, raw: bytes) -> Fitted | Reason:
        """Fits one record as `line` does, to values instead of a line."""
        shape = self.shape(members)
        found = self._usable(members, raw, shape)
        if isinstance(found, Reason):
            return found
        texts, extra = found
        given: list[Any] = [value for _, value in members]
        values = [
            None if text is None else float(given[place]) if field.kind is _NUMBER else given[place]
            for field, place, text in zip(self.contract.fields, shape.places, texts, strict=True)
        ]
        return Fitted(tuple(values), extra)

    def faults(self, members: Members) -> dict[str, tuple[Reason, str]]:
        """Returns which required fields refuse a record, by the contract's names: why, and the kind of the value."""
        found = {}
        for field, place in zip(self.contract.fields, self.shape(members).places, strict=True):
            if field.required:
                if place < 0:
                    twice = place == _TWICE
                    why = Reason.DUPLICATE_KEY if twice else Reason.MISSING_REQUIRED
                    found[field.name] = (why, "given twice" if twice else "nothing")
                elif isinstance(written := checked(members[place][1], field), Reason):
                    found[field.name] = (written, _look(members[place][1], field))
        return found

    def _written(self, members: Members, raw: bytes, shape: Shape) -> bytes | Reason:
        """Fits a record that may stray from the contract."""
        found = self._usable(members, raw, shape)
        if isinstance(found, Reason):
            return found
        texts, extra = found
        parts = [prefix + text for prefix, text in zip(self._prefixes, texts, strict=True) if text is not None]
        if extra is not None:
            parts.append('"_extra":' + encode_basestring(extra))
        return ("{" + ",".join(parts) + "}").encode()

    def _usable(self, members: Members, raw: bytes, shape: Shape) -> tuple[list[str | None], str | None] | Reason:
        """Returns each field's value as `write` does, or None if unusable, and what is set aside."""
        reasons = set()
        texts: list[str | None] = []
        units: dict[str, Unit] = {}
        aside = dict.fromkeys(shape.unknown, "")
        for field, place in zip(self.contract.fields, shape.places, strict=True):
            texts.append(None)
            required = field.required
            if place == _ABSENT:
                reasons |= {Reason.MISSING_REQUIRED} if required else set()
            elif place == _TWICE:
                reasons |= {Reason.DUPLICATE_KEY} if required else set()
                aside |= {i: f"{field.name}: given_twice" for i, (name, _) in enumerate(members) if _means(name, field)}
            elif isinstance(written := checked(members[place][1], field), Reason):
                reasons |= {written} if required else set()
                what = "null" if members[place][1] is None else str(written)
                if field.kind is _INSTANT and (unit := likely(members[place][1])):
                    units[field.name] = unit
                aside[place] = f"{field.name}: {what}"
            else:
                texts[-1] = written
        for reason in PRECEDENCE:
            if reason in reasons:
                self.units.update((name, unit, True) for name, unit in units.items())
                return reason
        if not aside:
            return texts, None
        self.units.update((name, unit, False) for name, unit in units.items())
        self._count(members, aside)
        # Cut from the text: a parsed number may have lost digits.
        if len(aside) == len(shape.unknown) and (values := shape.unknown_texts(raw)):
            return texts, _object(members, shape.unknown, values)
        found = member_texts(raw.decode())
        return texts, "{" + ",".join(f"{found[i][0]}:{found[i][1]}" for i in sorted(aside)) + "}"

    def _count(self, members: Members, aside: Mapping[int, str]) -> None:
        for what in {what or _unknown(members[place][0]) for place, what in aside.items()}:
            add_drift(self.drift, what, 1)


_LOOKS = {type(None): "null", bool: "boolean", int: "integer", float: "fraction", Huge: "huge integer"}


def _look(value: object, field: Field) -> str:
    """Returns the kind of a refused value, without the value."""
    unit = likely(value) if field.kind is _INSTANT else None
    if unit not in (None, Unit.FRACTIONAL):
        return str(unit)
    if type(value) is str:
        unseen = field.names_customer and has_unseen(value)
        return "blank text" if not value.strip() else "invisible character" if unseen else "text"
    if field.kind is Kind.INTEGER and (type(value) is Huge or (type(value) is int and not _fits(value))):
        return "integer beyond 64 bits"
    if field.kind is Kind.NUMBER and type(value) in (int, float, Huge):
        return "number too large"
    return _LOOKS.get(type(value), "list or object")


def _fits(value: int) -> bool:
    return INTEGER_MIN <= value <= INTEGER_MAX


def checked(value: object, field: Field) -> str | Reason:
    """Writes a field's value as `write` does; an address that cannot be typed is refused."""
    written = write(value, field.kind, field.required)
    if field.names_customer and type(value) is str and has_unseen(value) and type(written) is str:
        return Reason.INVISIBLE_CHARACTER
    return written


def write(value: object, kind: Kind, required: bool) -> str | Reason:
    """Writes a value as JSON that DuckDB's typed reader reads exactly.

    Args:
        value: A parsed value.
        kind: The required kind.
        required: Whether the field is required; a required text must not be blank.

    Returns:
        JSON, or `missing_required` for null, `wrong_type` or `out_of_range`.
    """
    if value is None:
        return Reason.MISSING_REQUIRED
    if kind is Kind.TEXT:
        if type(value) is not str:
            return Reason.WRONG_TYPE
        return encode_basestring(value) if value.strip() or not required else Reason.OUT_OF_RANGE
    if type(value) is Huge:
        return Reason.OUT_OF_RANGE
    if kind is Kind.NUMBER:
        return _number(value)
    if type(value) is not int:
        return Reason.WRONG_TYPE
    if kind is Kind.INSTANT:
        return str(value) if INSTANT_BEGIN <= value < INSTANT_END else Reason.OUT_OF_RANGE
    return str(value) if _fits(value) else Reason.OUT_OF_RANGE


def _number(value: object) -> str | Reason:
    if type(value) is float:
        # `1e400` is JSON and parses as infinity.
        return repr(value) if math.isfinite(value) else Reason.OUT_OF_RANGE
    if type(value) is not int:
        return Reason.WRONG_TYPE
    if -_EXACT <= value <= _EXACT:
        return str(value)
    try:
        return repr(float(value))
    except OverflowError:
        return Reason.OUT_OF_RANGE


def _on_one_line(raw: bytes) -> bytes:
    return raw if b"\n" not in raw and b"\r" not in raw else raw.translate(None, b"\r\n")


def _object(members: Members, places: tuple[int, ...], values: tuple[str, ...]) -> str:
    """Returns some members, whose names have no escapes, as an object with these values."""
    return "{" + ",".join([f'"{members[i][0]}":{value}' for i, value in zip(places, values, strict=True)]) + "}"


def _means(name: str, field: Field) -> bool:
    # Names are ASCII: letters that other alphabets fold to ASCII ones are other names.
    return name.isascii() and name.lower() == field.name.lower()


def _shape(contract: Contract, names: tuple[str, ...], spelling: Mapping[str, str], *, again: bool) -> Shape:
    found: dict[str, list[int]] = {field.name.lower(): [] for field in contract.fields}
    for i, name in enumerate(names):
        if name.isascii() and (same := found.get(name.lower())) is not None:
            same.append(i)
    meant: list[Field | None] = [None] * len(names)
    spelled, missing, places = True, False, []
    for field in contract.fields:
        same = found[field.name.lower()]
        for i in same:
            meant[i] = field
            spelled = spelled and names[i] == spelling[field.name]
        places.append(same[0] if len(same) == 1 else _TWICE if same else _ABSENT)
        missing = missing or (field.required and not same)
    unknown = tuple(i for i, field in enumerate(meant) if field is None)
    usable = not missing and _TWICE not in places
    present = tuple(
        (field.kind, field.required, field.names_customer) if field else (None, False, False) for field in meant
    )
    scalars = _scalars(names, unknown) if usable and again else None
    return Shape(tuple(places), unknown, usable, spelled, present, scalars)


def _scalars(names: tuple[str, ...], unknown: tuple[int, ...]) -> re.Pattern[str] | None:
    """Returns the pattern of an object with these members, known to be valid and free of escapes and line breaks."""
    # A delivered `_extra` would be in the line twice.
    if not unknown or len(unknown) > _MOST_UNKNOWN or len(set(names)) < len(names) or "_extra" in names:
        return None
    # The text is valid JSON: only the end of a scalar is looked for.
    value = r'"[^"]*+"|[^"\[{,} \t]++'
    members = [
        rf'"{re.escape(name)}"[ \t]*+:[ \t]*+{f"({value})" if i in unknown else f"(?:{value})"}[ \t]*+'
        for i, name in enumerate(names)
    ]
    return re.compile(r"\{[ \t]*+" + r",[ \t]*+".join(members) + r"\}")


def _unknown(name: str) -> str:
    return f"{UNKNOWN} {name}" if _IDENTIFIER.fullmatch(name) else UNKNOWN


def feeds_of(members: Members, contracts: Mapping[str, Contract]) -> set[str]:
    """Returns the feeds whose required fields are all in a record."""
    names = {name.lower() for name, _ in members if name.isascii()}
    return {feed for feed, c in contracts.items() if all(f.name.lower() in names for f in c.required)}
