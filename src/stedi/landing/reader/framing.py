"""Finds records in a stream of bytes, with anything between them.

The stream passes through a window that is as long as the longest record. White space, commas, byte order marks and
brackets of arrays between records are skipped; a record is then parsed, or delimited by `recovery`. The division of the
stream into blocks does not affect the records.
"""

from __future__ import annotations

import re
from codecs import utf_8_decode
from collections.abc import Iterator
from typing import Any, BinaryIO

from stedi._regex import compile_possessive
from stedi.landing.reader.model import Limits, Members, ParsedRecord, Reject
from stedi.landing.reader.parsing import MARGIN, depth, has_lone_surrogate, scan, scan_or_fail
from stedi.landing.reader.pieces import WHOLE, Piece
from stedi.landing.reader.recovery import LOOKAHEAD, Ending, Extent, Skipper, begins_records, broken_value, garbage
from stedi.landing.reader.scanner import line_breaks
from stedi.schema.contracts import Reason

BETWEEN = compile_possessive(rb"(?:[ \t\r\n,]|\xef\xbb\xbf)*+")
"""What may be between records, besides brackets of arrays."""

_PIECE = 1 << 14
_NEAR = 4 * _PIECE
"""Bytes ahead that are enough for short records, so that these do not wait for `_reach`."""
_ALONE = b" \t\r\n,]"
"""Bytes whose meaning does not depend on what follows."""
_AFTER_SCALAR = re.compile(rb"(?=[ \t\r\n,\[\]{]|\xef\xbb\xbf|\Z)[ \t\r\n]{0,32}+(?!:)")


class Window:
    """The part of a stream that is in memory.

    Attributes:
        data: The bytes.
        at: The place in `data` that the reader has reached.
        ended: Whether the stream ends where `data` ends.
    """

    def __init__(self, stream: BinaryIO, block_bytes: int, begin: int = 0) -> None:
        self.data = b""
        self.at = 0
        self.ended = False
        self._stream = stream
        self._block_bytes = max(1, block_bytes)
        self._dropped = begin
        self._line = 1
        self._counted = 0

    def ensure(self, size: int) -> None:
        """Reads on until `size` bytes after `at` are there, or the stream has ended."""
        if self.ended or len(self.data) - self.at >= size:
            return
        self.line(self.at)
        parts = [self.data[self.at :]]
        missing = size - len(parts[0])
        while missing > 0 and not self.ended:
            block = self._stream.read(max(self._block_bytes, missing))
            self.ended = not block
            missing -= len(block)
            parts.append(block)
        self._dropped += self.at
        self._counted -= self.at
        self.data = b"".join(parts)
        self.at = 0

    def offset(self, at: int) -> int:
        """Returns the place in the stream of a place in the window."""
        return self._dropped + at

    def place(self, offset: int) -> int:
        """Returns the place in the window of a place in the stream, which may be before or after the window."""
        return offset - self._dropped

    def line(self, at: int) -> int:
        """Returns the line, from 1, of a place in the window; places must not go back."""
        if at > self._counted:
            self._line += line_breaks(self.data, self._counted, at)
            self._counted = at
        return self._line


Found = tuple[int, bytes, Members]
"""An object that parsed: its place in the window, its text and its members."""


class Framer:
    """Finds the records of a stream, one after another.

    Between two records the caller may move `window.at` over further records that it has handled itself, to the end of
    one of them or of white space after it.
    """

    def __init__(self, stream: BinaryIO, limits: Limits, piece: Piece = WHOLE) -> None:
        self.limits = limits
        self.window = Window(stream, limits.block_bytes, piece.begin)
        self._reach = max(limits.record_bytes + 1, limits.raw_bytes) + LOOKAHEAD
        # the first piece still has the array's bracket before it
        self._in_array = piece.in_array and piece.begin > 0
        self._value_due = False
        self._torn_until = 0
        self._data = b""
        self._text = ""
        self._text_at = 0

    def __iter__(self) -> Iterator[Found | Reject]:
        """Yields each record; a `Found` is good until the next step."""
        window, reach, record_bytes = self.window, self._reach, self.limits.record_bytes
        while True:
            found = None
            if not window.ended and len(window.data) - window.at < reach:
                # separators and short objects, which most are, need less
                window.ensure(min(reach, _NEAR))
                found = self._near(window.at)
                if found is None and window.data[window.at : window.at + 1] not in _ALONE:
                    window.ensure(reach)
            data, at = window.data, window.at
            byte = data[at] if at < len(data) else 0
            if byte == 0x7B:
                self._value_due = False
                found = found or self._scan(at)
                if found and found[1] - at <= record_bytes:
                    yield self._parsed(at, found[1], found[0])
                else:
                    yield self._broken(byte)
                continue
            between = BETWEEN.match(data, at)
            if between is not None and between.end() > at:
                self._value_due = self._value_due or b"," in between.group()
                window.at = between.end()
            elif at == len(data):
                return
            # where a value of an array is due, a bracket may begin an inner array; elsewhere it opens an array of
            # records
            elif byte == 0x5B and not (self._in_array and self._value_due):
                self._in_array = self._value_due = True
                window.at += 1
            elif byte == 0x5D:
                self._in_array = self._value_due = False
                window.at += 1
            else:
                found = self._whole_array(at) if byte == 0x5B else self._scan(at)
                if byte == 0x5B and found is None and begins_records(data, at):
                    window.at += 1
                else:
                    self._value_due = False
                    yield self._other(byte, found)

    def is_behind(self, piece: Piece) -> bool:
        """Returns whether it has reached the end of a piece as guessed by the next one; it is right behind a record."""
        at = self.window.offset(self.window.at)
        return at == piece.end and self._in_array is piece.in_array and self._torn_until <= at

    def reject(self, start: int, end: int, reason: Reason) -> Reject:
        """Returns the record between two places of the window as a reject."""
        raw = self.window.data[start : min(end, start + self.limits.raw_bytes)]
        return Reject(self.window.offset(start), self.window.line(start), reason, raw, end - start)

    def _near(self, at: int) -> tuple[Any, int] | None:
        """Reads the object at a place of the window, if there is one and it ends well before the window does."""
        data = self.window.data
        return self._scan(at) if len(data) - at > 2 * _PIECE and data[at] == 0x7B else None

    def _scan(self, at: int) -> tuple[Any, int] | None:
        """Reads the value at a place of the window; returns it and where it ends, or None.

        The scanner sees a short piece of text, one character a byte: the longer the text before it, the more its
        errors cost. Only if the piece's end may have mattered, it sees the rest.
        """
        data = self.window.data
        start = at - self._text_at
        if data is not self._data or not 0 <= start < _PIECE // 2:
            self._data, self._text_at, start = data, at, 0
            self._text = data[at : at + _PIECE].decode("latin-1")
        found = scan_or_fail(self._text, start)
        size = len(self._text)
        whole = self._text_at + size == len(data)
        if type(found) is int:
            if whole or found + MARGIN < size:
                return None
        # a number that ends with the piece may go on behind it, a closed object cannot
        elif type(found) is tuple and (whole or found[1] < size or self._text[-1] == "}"):
            return found[0], found[1] + self._text_at
        again = scan(data[at : at + self._reach].decode("latin-1"), 0)
        return (again[0], again[1] + at) if again else None

    def _parsed(self, start: int, end: int, members: Members) -> Found | Reject:
        """Takes an object that the scanner has taken, if its text keeps what the scanner does not look at."""
        window, limits = self.window, self.limits
        window.at = end
        raw = window.data[start:end]
        # read as Latin-1 until here: only ASCII texts are right
        if not raw.isascii():
            try:
                again = scan(raw.decode(), 0)
            except UnicodeDecodeError:
                return self.reject(start, end, Reason.BAD_ENCODING)
            members = again[0] if again else members
        # each level takes two brackets: a shorter text cannot be too deep
        if end - start > 2 * limits.depth and depth(raw, limits.depth) > limits.depth:
            return self.reject(start, end, Reason.TOO_DEEP)
        # UTF-8 has no surrogates: only an escape can bring one in
        if b"\\u" in raw and has_lone_surrogate(raw.decode(), members):
            return self.reject(start, end, Reason.BAD_ENCODING)
        return start, raw, members

    def _whole_array(self, at: int) -> tuple[Any, int] | None:
        """Reads an array within an array; None if its bracket may be stray.

        An inner array that is a value is within the limit, and the outer array continues. The content of one that is
        not a value is not searched for arrays again, so no text is read more than twice.
        """
        window = self.window
        if window.offset(at) < self._torn_until:
            return None
        found = self._scan(at)
        if found is None:
            text = window.data[at : at + self._reach].decode("latin-1")
            place = scan_or_fail(text, 0)
            # an array nested too deeply for the scanner has no such place
            size = place if type(place) is int and place else len(text)
        elif found[1] - at <= self.limits.record_bytes and self._goes_on(found[1]):
            return found
        else:
            size = found[1] - at
        self._torn_until = window.offset(at) + size
        return None

    def _goes_on(self, end: int) -> bool:
        """Returns whether an array continues after one of its values; after too much white space it does."""
        following = self.window.data[end : end + LOOKAHEAD]
        rest = following.lstrip(b" \t\r\n")
        return rest[:1] in (b",", b"]") if rest else len(following) == LOOKAHEAD

    def _other(self, byte: int, found: tuple[Any, int] | None) -> Reject:
        """Handles something that is not an object; `found` is its value and end, if it has been read."""
        window = self.window
        start = window.at
        if found is None or found[1] - start > self.limits.record_bytes:
            return self._broken(byte)
        if byte != 0x5B and not _AFTER_SCALAR.match(window.data, found[1]):
            return self._broken(byte)
        taken = self._parsed(start, found[1], (("", found[0]),))
        return taken if isinstance(taken, Reject) else self.reject(start, found[1], Reason.NOT_AN_OBJECT)

    def _broken(self, byte: int) -> Reject:
        window, limits = self.window, self.limits
        start = window.at
        stop = min(len(window.data), start + limits.record_bytes + 1)
        bracketed = byte in b"{["
        extent = (broken_value if bracketed else garbage)(window.data, start, stop)
        cut = bracketed and extent.ending is not Ending.CLOSED
        if extent.ending is Ending.BEYOND and not (window.ended and stop == len(window.data)):
            # kept here, since `_skip` moves the window past it
            head = window.data[start:stop]
            offset, line = window.offset(start), window.line(start)
            size = self._skip(extent, bracketed) - offset
            reason = _reason(head[:size], size, extent, cut, limits)
            return Reject(offset, line, reason, head[: min(size, limits.raw_bytes)], size)
        window.at = extent.end
        raw = window.data[start : extent.end]
        reason = _reason(raw, len(raw), extent, cut, limits)
        if byte == 0x5B and reason is Reason.MALFORMED and (again := scan(raw.decode("latin-1"), 0)):
            # an array of values, inside or after a broken one
            reason = Reason.NOT_AN_OBJECT if again[1] == len(raw) else reason
        return self.reject(start, extent.end, reason)

    def _skip(self, extent: Extent, bracketed: bool) -> int:
        """Moves the window behind a record beyond the limit; returns the offset at which the record ends."""
        window = self.window
        window.at = extent.end
        end = window.offset(extent.end)
        skipper = Skipper(extent.brackets if bracketed else None, last=window.data[extent.end - 1])
        while True:
            window.at, significant, done = skipper.skip(window.data, window.at)
            if significant >= 0:
                end = window.offset(significant)
            if done:
                return end
            rest = len(window.data) - window.at
            window.ensure(rest + 1)
            if window.ended and len(window.data) - window.at == rest:
                window.at += rest
                return end + rest


def _reason(head: bytes, size: int, extent: Extent, cut: bool, limits: Limits) -> Reason:
    """Returns why a record that does not parse is refused; `head` is the whole of it if it is within the limit."""
    if size > limits.record_bytes:
        return Reason.TOO_LARGE
    try:
        # A cut may go through a character.
        utf_8_decode(head, "strict", not cut)
    except UnicodeDecodeError:
        return Reason.BAD_ENCODING
    if extent.brackets.deepest > limits.depth:
        return Reason.TOO_DEEP
    return Reason.TRUNCATED if cut else Reason.MALFORMED


def records(stream: BinaryIO, limits: Limits) -> Iterator[ParsedRecord | Reject]:
    """Yields every record of a stream in any shape, whatever its fields.

    Args:
        stream: Decompressed text.
        limits: The limits of size and depth.

    Yields:
        Objects that conform to RFC 8259 and the limits, and rejects.
    """
    framer = Framer(stream, limits)
    window = framer.window
    for found in framer:
        if isinstance(found, Reject):
            yield found
        else:
            start, raw, members = found
            yield ParsedRecord(window.offset(start), window.line(start), raw, members)
