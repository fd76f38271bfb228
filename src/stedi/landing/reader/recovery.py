"""Where a record that does not parse ends, so that the records around it are kept.

Brackets are counted outside of strings, from the bad record's first byte. The record ends where its brackets close,
where another record must have begun (it was cut), or with the text. A record beyond the limit is followed to its
end by `Skipper`, which keeps nothing of it. No place depends on how the text was cut into blocks.
"""

from __future__ import annotations

import re
from enum import Enum

from stedi._frozen import dataclass, field
from stedi._regex import compile_possessive

_SPACE = b" \t\r\n"
_AFTER_STRING = b" \t\r\n:,}]"
# possessive (`++`, `*+`): what a record of hostile text costs must not grow with its square
_TOKEN = compile_possessive(
    rb"""[ \t\r\n]*+("[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+(")?+|[{}\[\]:,]|[^ \t\r\n{}\[\]:,"]++)"""
)
_GARBAGE_END = re.compile(rb'\n|\{(?=[ \t\r\n]*+")')
_PLAIN_RUN = compile_possessive(rb'(?:[^{}\[\]"]++|"[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+")*+')
_STRING_REST = compile_possessive(rb'[^"\\\n]*+(?:\\[^\n][^"\\\n]*+)*+')

LOOKAHEAD = 64
"""How far behind a place the text must be there to judge the place."""

_STRAY = 0x78
"""A byte that is part of a value, or of nothing."""
_DEEPEST = 1 << 16
_MOST_BRACKETS = 1 << 20
"""The most brackets that are stored, and that are looked at behind the limit of a record: hostile text has no end."""


class Ending(Enum):
    """How a bad record ends."""

    CLOSED = "its brackets close"
    CUT = "another record begins, or the text ends"
    BEYOND = "not within the limit"


@dataclass(slots=True)
class Brackets:
    """The open brackets at a place of a record, and the byte before it.

    Attributes:
        open: The open brackets, outermost first.
        before: The last byte that is not white space; 0 at the start.
        in_string: Whether the place is inside a string.
        deepest: The greatest number of stored open brackets.
        uncounted: Open brackets inside the deepest stored one.
        objects: How many of the open brackets that are kept are braces.
        uncounted_objects: Whether any of the others may be.
    """

    open: bytearray = field(default_factory=bytearray)
    before: int = 0
    in_string: bool = False
    deepest: int = 0
    uncounted: int = 0
    objects: int = 0
    uncounted_objects: bool = False

    def is_foreign(self, first_column: bool) -> bool:
        """Returns whether an opening bracket here cannot belong to the record, since JSON allows no value here.

        A bracket in the first column after a colon belongs to another record, too: a line was cut there. So does one
        inside arrays only: these were never closed.
        """
        if not self.open:
            return False
        # the place of an element: a value may stand here, but a record within arrays alone is one of its own
        if self.before == 0x5B or (self.before == 0x2C and self.open[-1] == 0x5B):
            return not self.objects and not self.uncounted_objects
        return self.before != 0x3A or first_column

    def is_stray(self) -> bool:
        """Returns whether an array's opening bracket here opens nothing: it replaced another byte of an object.

        As an array, it would swallow the following records, since commas between them would belong to it.
        """
        return bool(self.open) and not self.uncounted and self.open[-1] == 0x7B and self.before != 0x3A

    def push(self, byte: int) -> None:
        """Opens a bracket."""
        if len(self.open) < _DEEPEST:
            self.open.append(byte)
            self.objects += byte == 0x7B
        else:
            self.uncounted += 1
            self.uncounted_objects = self.uncounted_objects or byte == 0x7B
        self.deepest = max(self.deepest, len(self.open))

    def close(self, byte: int) -> bool:
        """Closes the innermost open bracket of its kind and those inside it; returns whether none is open now."""
        if self.uncounted:
            self.uncounted -= 1
            self.uncounted_objects = self.uncounted_objects and self.uncounted > 0
            return False
        braces = byte == 0x7D
        # do not search for a missing one: each search would pass over all open brackets
        there = self.objects if braces else len(self.open) - self.objects
        place = self.open.rfind(b"{" if braces else b"[") if there else -1
        if place >= 0:
            self.objects -= self.open.count(b"{", place)
            del self.open[place:]
        elif byte == 0x7D and len(self.open) == 1:
            # An array that a brace closes was an object until its first byte was damaged.
            self.open.clear()
            self.objects = 0
        return not self.open


@dataclass(frozen=True, slots=True)
class Extent:
    """Where a bad record ends.

    Attributes:
        end: The place after its last byte that is not white space; for `BEYOND` where to go on skipping.
        ending: How it ends.
        brackets: The state there.
    """

    end: int
    ending: Ending
    brackets: Brackets


def broken_value(data: bytes, start: int, stop: int) -> Extent:
    """Finds the end of a broken object or array.

    If JSON does not allow what follows a string's closing quote, the string is out of phase: its opening quote was a
    closing one, or another record begins in it. Its content is then read again as structure.

    Args:
        data: The text.
        start: Where the object or array starts.
        stop: Where to stop looking.

    Returns:
        The extent; `BEYOND` if the record does not end before `stop`, also if the text ends there.
    """
    state = Brackets()
    at = end = start
    while match := _TOKEN.match(data, at, stop):
        token = match.start(1)
        at = match.end()
        byte = data[token]
        if byte == 0x22:
            if match.group(2) is None:
                if at == stop or (data[at] == 0x5C and at + 1 == stop):
                    state.in_string = True
                    return Extent(at, Ending.BEYOND, state)
            elif at < stop and data[at] not in _AFTER_STRING:
                # Escaped quotes stay behind, so that no text is looked at more than twice.
                at = max(token, data.rfind(b'\\"', token, at - 1) + 1) + 1
        elif byte in b"{[":
            # both must say so: what looks like a record can be a value, and what cannot be a value can be damage
            if state.is_foreign(data[token - 1 : token] == b"\n") and begins_records(data, token):
                return Extent(end, Ending.CUT, state)
            if byte == 0x5B and state.is_stray():
                byte = _STRAY
            else:
                state.push(byte)
        elif byte in b"}]" and state.close(byte):
            return Extent(at, Ending.CLOSED, state)
        state.before = byte if byte in b'"{}[]:,' else _STRAY
        end = at
    return Extent(end, Ending.BEYOND, state)


def begins_records(data: bytes, at: int) -> bool:
    """Returns whether the bracket at `at` looks like the start of a record, or of an array of records.

    Looks `LOOKAHEAD` bytes ahead.
    """
    following = data[at + 1 : at + LOOKAHEAD].lstrip(_SPACE)
    if data[at] == 0x5B and following[:1] == b"{":
        following = following[1:].lstrip(_SPACE)
    elif data[at] == 0x5B:
        return False
    # an object begins with a name, or is empty
    return following[:1] in (b'"', b"}")


def garbage(data: bytes, start: int, stop: int) -> Extent:
    """Finds the end of text that starts no object or array: the line's end, or where a record plausibly begins.

    Args:
        data: The text.
        start: Where the garbage starts.
        stop: Where to stop looking.

    Returns:
        The extent; `BEYOND` if it does not end before `stop`, also if the text ends there.
    """
    at = start + 1
    while match := _GARBAGE_END.search(data, at, stop):
        at = match.start()
        text = data[max(start, at - LOOKAHEAD) : at].rstrip(_SPACE)
        # What follows a colon or an opening bracket is a part of a fragment, never a record.
        if data[at] == 0x0A or not text.endswith((b":", b"[")):
            return Extent(start + len(data[start:at].rstrip(_SPACE)), Ending.CLOSED, Brackets())
        at += 1
    return Extent(start + len(data[start:stop].rstrip(_SPACE)), Ending.BEYOND, Brackets())


@dataclass(slots=True)
class Skipper:
    """Follows a record beyond the limit to its end, block by block, and keeps nothing of it.

    After `_MOST_BRACKETS` brackets, and for garbage from the start, it only looks for the line's end.

    Attributes:
        brackets: The state where the limit was passed; None for garbage.
        seen: How many brackets it has looked at.
        last: The byte before the block.
    """

    brackets: Brackets | None
    seen: int = 0
    last: int = 0

    def skip(self, data: bytes, at: int) -> tuple[int, int, bool]:
        """Continues through a block.

        Args:
            data: The block.
            at: Where to continue.

        Returns:
            Where it stopped; the place after the record's last byte that is not white space, or -1 if there is none in
            the block; and whether the record has ended.
        """
        began = at
        while self.brackets is not None and at < len(data):
            if self.brackets.in_string:
                at, ended = self._string(data, at)
                if not ended:
                    return at, self._significant(data, began, at), False
                continue
            at, stopped = self._structure(data, at)
            if stopped:
                self.last = data[at - 1] if at else self.last
                return at, self._significant(data, began, at), True
        if self.brackets is not None:
            self.last = data[-1] if data else self.last
            return at, self._significant(data, began, at), False
        newline = data.find(b"\n", at)
        at = len(data) if newline < 0 else newline
        return at, self._significant(data, began, at), newline >= 0

    def _string(self, data: bytes, at: int) -> tuple[int, bool]:
        """Continues to the end of the string or of the block; returns whether the string has ended."""
        match = _STRING_REST.match(data, at)
        end = match.end() if match else at
        if self.brackets is None or end == len(data) or (data[end] == 0x5C and end + 1 == len(data)):
            return end, False
        self.brackets.in_string = False
        self.brackets.before = 0x22
        return end + 1, True

    def _structure(self, data: bytes, at: int) -> tuple[int, bool]:
        """Continues after the next bracket or into the next unfinished string; returns whether the record has ended."""
        brackets = self.brackets
        match = _PLAIN_RUN.match(data, at)
        if brackets is None or match is None:
            return at, False
        run = data[at : match.end()].rstrip(_SPACE)
        if run:
            brackets.before = run[-1]
        at = match.end()
        if at == len(data):
            return at, False
        byte = data[at]
        self.seen += 1
        if byte == 0x22:
            brackets.in_string = True
        elif self.seen > _MOST_BRACKETS:
            self.brackets = None
        elif byte in b"{[":
            first_column = (data[at - 1] if at else self.last) == 0x0A
            if byte == 0x7B and brackets.is_foreign(first_column):
                return at, True
            if byte == 0x5B and brackets.is_stray():
                byte = _STRAY
            else:
                brackets.push(byte)
        elif brackets.close(byte):
            return at + 1, True
        brackets.before = byte
        return at + 1, False

    @staticmethod
    def _significant(data: bytes, began: int, at: int) -> int:
        text = data[began:at].rstrip(_SPACE)
        return began + len(text) if text else -1
