"""One delivered text in, clean lines and rejects out.

Clean blocks are copied, with missing line breaks inserted between records. From other blocks the clean runs are copied;
the rest passes record by record through `framing` and `fitting`. All of these accept the same records.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import BinaryIO

from stedi.landing.reader.fitting import Conformer
from stedi.landing.reader.framing import BETWEEN, Framer, Window
from stedi.landing.reader.layout import RecordPattern, lines_run_pattern, record_pattern, run_pattern, verify, within
from stedi.landing.reader.model import Counts, Limits, Members, Reject
from stedi.landing.reader.pieces import WHOLE, Astray, Piece
from stedi.landing.reader.scanner import Columns, Ended
from stedi.schema.contracts import Contract, Reason

SMALL = 1 << 15
"""Blocks under this many bytes are not worth the start of the vectorised check."""

_BETWEEN_RECORDS = re.compile(rb"[ \t\r\n,]*+(?=\{)")
_PENDING = 1000
_WORTHWHILE = 8
_MOST_PATIENCE = 4096
"""A run of fewer records than `_WORTHWHILE` doubles the records until the next try, up to so many."""


def read(
    stream: BinaryIO,
    contract: Contract,
    out: BinaryIO,
    reject: Callable[[Reject], None],
    limits: Limits | None = None,
    *,
    careful: bool = False,
) -> tuple[Counts, dict[str, str]]:
    """Reads a delivered file in any shape.

    Args:
        stream: The decompressed text.
        contract: What its records must be.
        out: Takes the accepted records in their order, one clean line of JSON each.
        reject: Called with each other record, in their order.
        limits: What is too much.
        careful: Take no short cut; the result is the same.

    Returns:
        What became of the records, and how `out` spells each field, by its name in the contract.
    """
    limits = limits or Limits()
    framer = Framer(stream, limits)
    fitting = Conformer(contract)
    lines: list[bytes] = []
    accepted = quarantined = wait = patience = 0
    copier: Copier | None = None
    for found in framer:
        if isinstance(found, Reject):
            quarantined += 1
            reject(found)
            continue
        start, raw, members = found
        fitted = fitting.line(members, raw)
        if isinstance(fitted, Reason):
            quarantined += 1
            reject(framer.reject(start, start + len(raw), fitted))
            continue
        if not accepted:
            # lines are spelled as this record is: those that follow are mostly spelled so, and can be copied
            fitting.spell(members)
            again = fitting.line(members, raw)
            fitted = fitted if isinstance(again, Reason) else again
        accepted += 1
        lines.append(fitted)
        if len(lines) == _PENDING:
            _write(lines, out)
        if careful:
            continue
        if copier is None and fitting.shape(members).clean:
            copier = Copier.of(members, fitting, limits)
        wait -= 1
        if copier and wait <= 0:
            _write(lines, out)
            # after the pending lines: records stay in the file's order
            copied = copier.copy(framer.window, out)
            accepted += copied
            patience = 0 if copied >= _WORTHWHILE else min(2 * patience + 1, _MOST_PATIENCE)
            wait = patience
    _write(lines, out)
    counts = Counts(accepted + quarantined, accepted, quarantined, dict(fitting.drift), units=dict(fitting.units))
    return counts, fitting.spelling


def scan(
    stream: BinaryIO,
    columns: Columns,
    full: Callable[[], None],
    reject: Callable[[Reject], None],
    limits: Limits | None = None,
    piece: Piece = WHOLE,
) -> Counts:
    """Reads a delivered file in any shape to columns: what the scanner leaves goes record by record, as in `read`.

    Args:
        stream: The decompressed text.
        columns: Take the accepted records; they know of which file.
        full: Called when the columns hold as many records as they may; must clear them.
        reject: Called with each other record, in their order; lines count from where the piece begins.
        limits: What is too much.
        piece: What of the text is read; the stream begins with it and goes on behind it.

    Raises:
        Astray: The piece does not end right behind a record.
    """
    limits = limits or Limits()
    framer = Framer(stream, limits, piece)
    window = framer.window
    fitting = Conformer(columns.contract)
    accepted = quarantined = 0

    def clean() -> int:
        """Scans from a place between two records, and moves the window behind the last accepted one."""
        total = 0
        while True:
            window.ensure(limits.block_bytes + 1)
            before = len(columns)
            end = (
                len(window.data)
                if piece.end is None
                else min(len(window.data), max(window.at, window.place(piece.end)))
            )
            at, ended = columns.scan(window.data, window.at, end, limits.record_bytes)
            moved, window.at = at > window.at, at
            total += len(columns) - before
            if ended is Ended.FULL and len(columns):
                full()
            elif ended is not Ended.MORE or not moved:
                return total

    accepted += clean()
    # where the last record is clean to its end, the framer would read one beyond the piece
    done = piece.end is not None and window.at >= window.place(piece.end)
    for found in () if done else framer:
        if isinstance(found, Reject):
            quarantined += 1
            reject(found)
        else:
            start, raw, members = found
            fitted = fitting.fit(members, raw)
            if isinstance(fitted, Reason):
                quarantined += 1
                reject(framer.reject(start, start + len(raw), fitted))
            else:
                accepted += 1
                # emptied columns have room for any record
                if not columns.add(fitted):
                    full()
                    columns.add(fitted)
        accepted += clean()
        if piece.end is not None and window.at >= window.place(piece.end):
            break
    if piece.end is not None and not framer.is_behind(piece):
        raise Astray
    return Counts(accepted + quarantined, accepted, quarantined, dict(fitting.drift), units=dict(fitting.units))


class Copier:
    """Copies clean records.

    Attributes:
        layout: Their layout.
    """

    def __init__(self, layout: RecordPattern, limits: Limits) -> None:
        self.layout = layout
        self._limits = limits
        self._record = record_pattern(layout)
        self._run = run_pattern(layout)
        self._lines_run = lines_run_pattern(layout)
        self._dirty_until = 0
        self._joined = False

    @classmethod
    def of(cls, members: Members, fitting: Conformer, limits: Limits) -> Copier | None:
        """Returns the copier of records like this one, if they can be copied as `fitting` spells its lines."""
        layout = RecordPattern.of(fitting.contract, tuple(name for name, _ in members))
        return cls(layout, limits) if layout and layout.spelling == fitting.spelling else None

    def copy(self, window: Window, out: BinaryIO) -> int:
        """Copies clean records at the window's place and moves the window over them.

        Args:
            window: Stands right behind a record.
            out: Takes the records, one a line.

        Returns:
            How many were copied.
        """
        total = 0
        size = self._limits.block_bytes
        while True:
            # one byte more than the block, so that `ended` is known if the text ends with it
            window.ensure(size + 1)
            between = BETWEEN.match(window.data, window.at)
            at = between.end() if between else window.at
            if window.data[at : at + 1] != b"{":
                return total
            end = min(len(window.data), at + size)
            copied = self._copy_block(window, at, end, out) or self._copy_run(window, at, end, out)
            if not copied:
                return total
            total += copied

    def _copy_block(self, window: Window, at: int, end: int, out: BinaryIO) -> int:
        """Copies all records up to near `end`, if all are clean and all separators are equal."""
        if end - at < SMALL or window.offset(at) < self._dirty_until:
            return 0
        # the separator of the block before first: files seldom change it
        for joined in (self._joined, not self._joined):
            cut, block = (self._joined_block if joined else self._lines_block)(window, at, end)
            count = verify(block, self.layout, self._limits.record_bytes) if block else None
            if count:
                out.write(block)
                if not block.endswith(b"\n"):
                    out.write(b"\n")
                window.at = cut
                self._joined = joined
                return count
        # a try matches the whole block: not again for every record of it
        self._dirty_until = window.offset(end)
        return 0

    def _lines_block(self, window: Window, at: int, end: int) -> tuple[int, bytes]:
        """Returns whole lines."""
        data = window.data
        if window.ended and end == len(data):
            block = data[at:end].rstrip()
            return at + len(block), block
        cut = data.rfind(b"\n", at, end) + 1
        return cut, data[at:cut]

    def _joined_block(self, window: Window, at: int, end: int) -> tuple[int, bytes]:
        """Returns records with line breaks as separators.

        If the separator also occurs in a string, the line break there makes the block unclean.
        """
        data = window.data
        first = self._record.match(data, at, end)
        # a record over several lines would be torn
        if first is None or b"\n" in first.group():
            return at, b""
        between = _BETWEEN_RECORDS.match(data, first.end(), end)
        if between is None or between.group() in (b"\n", b"\r\n"):
            return at, b""
        token = b"}" + between.group() + b"{"
        cut = data.rfind(token, at, end) + 1
        return cut, data[at:cut].replace(token, b"}\n{")

    def _copy_run(self, window: Window, at: int, end: int, out: BinaryIO) -> int:
        """Copies the clean records up to the first that is not."""
        data = window.data
        longest = self._limits.record_bytes
        if (run := _run(self._lines_run, data, at, end)) and within(run, longest):
            out.write(run)
            window.at = at + len(run)
            return run.count(b"\n")
        run = _run(self._run, data, at, end)
        records = self._record.findall(run)
        if not records or max(map(len, records)) > longest:
            return 0
        # A clean record has line breaks between its tokens only, and zeros nowhere.
        out.write(b"\0".join(records).translate(None, b"\r\n").replace(b"\0", b"\n"))
        out.write(b"\n")
        window.at = at + len(run.rstrip(b" \t\r\n,"))
        return len(records)


def _run(pattern: re.Pattern[bytes], data: bytes, at: int, end: int) -> bytes:
    """Returns the match of a run pattern, up to the first byte that is not UTF-8."""
    run = data[at : _end(pattern, data, at, end)]
    if not run.isascii():
        try:
            run.decode()
        except UnicodeDecodeError as error:
            run = data[at : _end(pattern, data, at, at + error.start)]
    return run


def _end(pattern: re.Pattern[bytes], data: bytes, at: int, end: int) -> int:
    match = pattern.match(data, at, end)
    return match.end() if match else at


def _write(lines: list[bytes], out: BinaryIO) -> None:
    if lines:
        out.write(b"\n".join(lines))
        out.write(b"\n")
        lines.clear()
