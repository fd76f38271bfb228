"""The layout of one file's clean records, as patterns for whole blocks.

The first record gives the spelling and the order of the fields. They give two patterns of the same records: one for
RE2, which matches a block of lines at once while other threads run, and one for `re`, which shows how far a block is
clean, with any separators. The careful path accepts everything that they match, with the same values.
"""

from __future__ import annotations

import re
import struct
from functools import cache

from stedi._frozen import dataclass
from stedi._regex import compile_possessive
from stedi.landing.reader.model import RECORD_BYTES
from stedi.schema.contracts import Contract, Field, Kind

_NUMBER = r"-?(?:0|[1-9][0-9]{0,15})(?:\.[0-9]{1,25})?"
# 18 digits always fit into 64 bits.
_INTEGER = r"(?:0|-?[1-9][0-9]{0,17})"
# 13 digits begin in 2001, 14 end in 5138; of 12 those from February 2000 on. The careful path takes the others.
_INSTANT = r"(?:[1-9][0-9]{12,13}|9[5-9][0-9]{10})"
# RE2 takes overlong sequences and surrogates in a class that ends at 10FFFF unless it starts above the surrogates.
_RE2_CHARACTER = r"[ !#-\[\]-\x{d7ff}\x{e000}-\x{10ffff}]"
_RE2_LEADING = r"[ \x{7f}-\x{d7ff}\x{e000}-\x{10ffff}]"
_VISIBLE = r"[!#-\[\]-~]"
# Of an address what is seen for certain: ASCII, and letters of European languages (U+00C0 to U+024F) with their marks
# (U+0300 to U+036F, but for 034F, which is not drawn). Others are looked at one by one.
_SEEN = r"[ !#-\[\]-~]"
_LETTER = r"(?:[\xc3-\xc8\xcc][\x80-\xbf]|\xc9[\x80-\x8f]|\xcd[\x80-\x8e\x90-\xaf])"
_ADDRESS = rf'" *+(?:{_LETTER} *+)*+{_VISIBLE}{_SEEN}*+(?:{_LETTER}{_SEEN}*+)*+"'
_RE2_LETTERS = r"\x{c0}-\x{24f}\x{300}-\x{34e}\x{350}-\x{36f}"
_RE2_ADDRESS = rf'"[ {_RE2_LETTERS}]*{_VISIBLE}[ !#-\[\]-~{_RE2_LETTERS}]*"'


@dataclass(frozen=True, slots=True)
class RecordPattern:
    """How clean records of a file look.

    Attributes:
        contract: What they must be.
        delivered: Each field of the contract as the file spells it, in the file's order.
    """

    contract: Contract
    delivered: tuple[tuple[str, str], ...]

    @property
    def spelling(self) -> dict[str, str]:
        """The delivered spelling of each field, by its name in the contract and in the contract's order."""
        spelled = dict(self.delivered)
        return {field.name: spelled[field.name] for field in self.contract.fields}

    @classmethod
    def of(cls, contract: Contract, names: tuple[str, ...]) -> RecordPattern | None:
        """Returns the layout of records with these names in this order.

        Missing fields are placed as in the contract. None if a required field is missing, or a name is unknown or
        repeated.
        """
        spelled: dict[str, str] = {}
        for name in names:
            field = contract.field(name) if name.isascii() else None
            if field is None or field.name in spelled:
                return None
            spelled[field.name] = name
        if any(field.name not in spelled for field in contract.required):
            return None
        order = list(spelled)
        for place, field in enumerate(contract.fields):
            if field.name not in spelled:
                before = contract.fields[place - 1].name if place else None
                order.insert(order.index(before) + 1 if before else 0, field.name)
        return cls(contract, tuple((name, spelled.get(name, name)) for name in order))


def detect_layout(head: bytes, contract: Contract) -> RecordPattern | None:
    """Returns the layout of a newline-delimited file.

    Args:
        head: The start of the file: at least one record.
        contract: The records' contract.

    Returns:
        The layout of the first record; None if the file does not start with a clean record on its own line.
    """
    from stedi.landing.reader.parsing import is_object, scan

    line = head.split(b"\n", 1)[0]
    found = scan(line.decode("latin-1"), 0)
    if found is None or not is_object(found[0]):
        return None
    layout = RecordPattern.of(contract, tuple(name for name, _ in found[0]))
    return layout if layout and verify(line + b"\n", layout) == 1 else None


def verify(block: bytes | memoryview, layout: RecordPattern, longest: int = RECORD_BYTES) -> int | None:
    """Counts the records of a block if all of it is clean lines of the layout.

    Other threads run at the same time. Blocks of about a MiB are best.

    Args:
        block: Whole lines; the last may lack its line break.
        layout: Their layout.
        longest: The longest line without its line break, in bytes.

    Returns:
        The number of records; None if anything in the block is not a clean record.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    data = bytes(block)
    # the offsets of an Arrow text have 32 bits
    if len(data) >= 1 << 31 or not within(data, longest):
        return None
    offsets = pa.py_buffer(struct.pack("<ii", 0, len(data)))
    text = pa.Array.from_buffers(pa.utf8(), 1, [None, offsets, pa.py_buffer(data)])
    if not pc.match_substring_regex(text, _lines_pattern(layout))[0].as_py():
        return None
    # twice as fast as `count`, which restarts after every line break
    lines = len(data) - len(data.replace(b"\n", b""))
    return lines + (not data.endswith(b"\n") and bool(data))


@cache
def run_pattern(layout: RecordPattern) -> re.Pattern[bytes]:
    """Returns a pattern that takes as many clean records as there are, with white space and commas between them.

    Strings may hold any bytes beyond ASCII: whether they are UTF-8 is still to be checked.
    """
    return compile_possessive(rb"(?:" + _record_pattern(layout) + rb"[ \t\r\n,]*+)*+")


@cache
def lines_run_pattern(layout: RecordPattern) -> re.Pattern[bytes]:
    """Returns a pattern that takes as many lines as are clean records; strings as in `run_pattern`."""
    return compile_possessive(rb"(?:" + _compact_pattern(layout) + rb"\r?\n)*+")


@cache
def record_pattern(layout: RecordPattern) -> re.Pattern[bytes]:
    """Returns the pattern of one record as `run_pattern` takes it."""
    return compile_possessive(_record_pattern(layout))


@cache
def _lines_pattern(layout: RecordPattern) -> str:
    text = {True: f'"{_RE2_LEADING}*{_VISIBLE}{_RE2_CHARACTER}*"', False: f'"{_RE2_CHARACTER}*"'}
    record = _pattern(layout, text, _RE2_ADDRESS, " ?", "")
    return rf"\A(?:{record}\r?\n)*(?:{record})?\z"


def _record_pattern(layout: RecordPattern) -> bytes:
    text = {True: rf'"[ \x7f-\xff]*+{_VISIBLE}[ !#-\[\]-\xff]*+"', False: r'"[ !#-\[\]-\xff]*+"'}
    space = r"[ \t\r\n]*+"
    return _pattern(layout, text, _ADDRESS, space, space).encode()


def _compact_pattern(layout: RecordPattern) -> bytes:
    text = {True: rf'"[ \x7f-\xff]*+{_VISIBLE}[ !#-\[\]-\xff]*+"', False: r'"[ !#-\[\]-\xff]*+"'}
    return _pattern(layout, text, _ADDRESS, " ?", "").encode()


def _pattern(layout: RecordPattern, text: dict[bool, str], address: str, after: str, around: str) -> str:
    """Writes the pattern of one record.

    Args:
        layout: The fields.
        text: The patterns of a required and of an optional text.
        address: The pattern of a text that names a customer.
        after: What may follow colons and commas.
        around: What may follow braces and precede colons and commas.

    Returns:
        A pattern without groups to capture.
    """
    fields = [(layout.contract.field(name), spelled) for name, spelled in layout.delivered]
    # optional fields before the first required one have their comma behind them, all later fields before them
    anchor = next(i for i, (field, _) in enumerate(fields) if field and field.required)
    parts = []
    for place, (field, spelled) in enumerate(fields):
        if field is None:
            continue
        member = f'"{spelled}"{around}:{after}{_value(field, text, address)}'
        comma = f"{around},{after}"
        if place < anchor:
            parts.append(f"(?:{member}{comma})?")
        elif place == anchor:
            parts.append(member)
        else:
            parts.append(f"{comma}{member}" if field.required else f"(?:{comma}{member})?")
    return rf"\{{{around}{''.join(parts)}{around}\}}"


def _value(field: Field, text: dict[bool, str], address: str) -> str:
    if field.names_customer:
        return address
    if field.kind is Kind.TEXT:
        return text[field.required]
    return {Kind.INSTANT: _INSTANT, Kind.NUMBER: _NUMBER, Kind.INTEGER: _INTEGER}[field.kind]


def within(data: bytes, longest: int) -> bool:
    """Returns whether no line is longer than `longest`; searches once in every `longest` bytes."""
    at = 0
    while len(data) - at > longest:
        newline = data.rfind(b"\n", at, at + longest + 1)
        if newline < 0:
            return False
        at = newline + 1
    return True
