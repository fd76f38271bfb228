"""Output: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TextIO, cast

from stedi.errors import UsageError, json_text, printable

_CLEAR = "\r\x1b[K"
"""To the start of the line, and nothing to the right of it."""
_FAILED = re.compile(r"stedi( [a-z-]+)*:")
"""How a message about a failure begins, which is shown in red."""
UNREAD = 141
"""The exit code of a process that SIGPIPE has ended, as a shell has it."""
_COMMAND = re.compile(r"`[^`]{1,60}`")
"""A command in a message."""
_PYTHON = re.compile(r"\b(exact|feed|wait)=(\w+)")
"""What messages of the verbs call by its name in Python."""


_colour = "auto"
"""What `--color` says."""


def colour(when: str) -> None:
    """Has colours be used `always`, `never`, or by `auto` on a terminal alone, unless $NO_COLOR is set."""
    global _colour
    _colour = when


def coloured(stream: TextIO) -> bool:
    """Returns whether colours are used on a stream."""
    if _colour != "auto":
        return _colour == "always"
    return bool(stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb")


def open_streams() -> None:
    """Replaces closed standard streams by the null device.

    Otherwise the next opened file would get its number, and messages would be written to it.
    """
    # the system gives the lowest free number: 0, 1 and 2 where they are closed
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115


def patient_stderr() -> None:
    """Has messages that cannot be written, on a full disk or to a reader that has gone, cost the work nothing."""
    sys.stderr = cast(TextIO, _Patient(sys.stderr))


class _Patient:
    """A stream that silently drops what it cannot write."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Writes a text, or not."""
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):
            redirect_to_null(self._stream)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes texts, or not."""
        for text in lines:
            self.write(text)

    def flush(self) -> None:
        """Does nothing: writes are not buffered."""


def redirect_to_null(stream: Any) -> None:
    """Redirects a broken stream to the null device, so that Python does not fail at its end."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


_lost: Exception | None = None
"""Why stdout has not taken a result."""


def _lose(error: Exception) -> None:
    """Remembers that stdout has not taken a result: the work goes on, and `finished` says it."""
    global _lost
    _lost = _lost or error
    redirect_to_null(sys.stdout)


def finished(code: int) -> int:
    """Writes what stdout still holds, and returns the exit code.

    It is the command's own, unless that is 0 and results were lost: then 141 if the reader of stdout has gone, as of
    `cat` in a shell, or 1, with a message.
    """
    global _lost
    try:
        sys.stdout.flush()
    except (OSError, ValueError) as error:
        _lose(error)
    lost, _lost = _lost, None
    if lost is None:
        return code
    if isinstance(lost, BrokenPipeError):
        return code or UNREAD
    why = getattr(lost, "strerror", None) or "it is closed"
    say(f"stedi: stdout: cannot be written: {why}; what the command has done stays")
    return code or 1


def stdin_text() -> str:
    """Returns the text on stdin, in UTF-8 whatever the locale.

    Raises:
        UsageError: It is closed, or not UTF-8.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise UsageError("stdin: expected UTF-8 text, found it closed; nothing was done")
    if not hasattr(sys.stdin, "buffer"):
        return sys.stdin.read()
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UsageError("stdin: expected UTF-8 text, found other bytes; nothing was done") from None


def confirmed(question: Callable[[], str], *, alone: str, agreeing: Container[str] = ("y", "yes")) -> bool:
    """Asks a question on the terminal, and returns whether the answer agrees; a closed terminal does not.

    Args:
        question: Returns the question; called if somebody can be asked.
        alone: The text of the error if nobody can be asked: stdin is closed, or not a terminal.
        agreeing: The answers that agree, in small letters.

    Raises:
        UsageError: Nobody can be asked.
    """
    # a question that nobody sees would wait for ever
    if sys.stdin is None or sys.stdin.closed or not sys.stdin.isatty():
        raise UsageError(alone)
    sys.stderr.write(printable(question()) + " ")
    sys.stderr.flush()
    try:
        return sys.stdin.readline().strip().lower() in agreeing
    except (OSError, ValueError):
        return False


def binary() -> BinaryIO:
    """Returns stdout for bytes, after flushing text."""
    out = _Stdout(sys.stdout.buffer)
    with _losing():
        sys.stdout.flush()
    return cast(BinaryIO, out)


class _Stdout:
    """The bytes of stdout, whose errors tell them from those of any file."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, content: bytes) -> int:
        """Writes bytes."""
        with _losing():
            return self._stream.write(content)

    def flush(self) -> None:
        """Writes what is buffered."""
        with _losing():
            self._stream.flush()


@contextlib.contextmanager
def _losing() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        _lose(error)
        raise StdoutLost from error


class StdoutLost(Exception):
    """Stdout cannot take results; `finished` says why."""


def shown_rows() -> int | None:
    """Returns how many rows of a table stdout gets: all, unless it is a terminal."""
    from stedi.cli import formats

    return formats.SHOWN_ROWS if sys.stdout.isatty() else None


def width(stream: TextIO | None = None) -> int | None:
    """Returns the width of the terminal of stdout, or of another stream; None if it is not a terminal."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if (stream or sys.stdout).isatty():
            return int(os.environ.get("COLUMNS") or os.get_terminal_size((stream or sys.stdout).fileno()).columns) or 80
    return None


def _folded(text: str, stream: TextIO, column: int | None = None) -> str:
    """Returns a text whose lines fit the terminal: longer ones continue below, indented to a column or by two more."""
    wide = width(stream)
    if wide is None or all(len(part) <= wide for part in text.split("\n")):
        return text
    import textwrap

    lines = []
    for part in text.split("\n"):
        options: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}
        if len(part) <= wide:
            lines.append(part)
            continue
        kept = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), part)  # a command stays on one line
        room = wide - max(map(len, kept.split()), default=0)
        inset = " " * (len(part) - len(part.lstrip()) + 2 if column is None else max(2, min(column, room)))
        lines += [piece.replace("\0", " ") for piece in textwrap.wrap(kept, wide, subsequent_indent=inset, **options)]
    return "\n".join(lines)


def line(text: str, column: int | None = None) -> None:
    """Writes a result, even if its reader has gone; lines that do not fit the terminal continue at a column."""
    raw(_folded(printable(text, keep="\n\t"), sys.stdout, column))


def raw(text: str) -> None:
    """Writes a result without folding its lines."""
    try:
        text = printable(text, keep="\n\t")
        if coloured(sys.stdout):
            from stedi.cli import tables

            text = tables.styled(text)
        sys.stdout.write(text + "\n")
    except OSError as error:
        _lose(error)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], spare: Sequence[str] = ()) -> None:
    """Writes rows as an aligned table that has room on the terminal; the spare columns are left out first."""
    raw(tabled(headers, rows, spare))


def tabled(headers: Sequence[str], rows: Iterable[Sequence[Any]], spare: Sequence[str] = ()) -> str:
    """Returns rows as an aligned table that has room on the terminal."""
    from stedi.cli import tables

    return tables.table(rows, headers, width=width(), spare=spare)


def document(content: object) -> None:
    """Writes one JSON document, in an encoding that stdout supports, with control characters escaped."""
    text = json_text(json.dumps(content, ensure_ascii=False))
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(content)  # a path that is not UTF-8, or a locale of old
    raw(text)


def say(text: str) -> None:
    """Writes a message beside the results, in the place of a bar that is still there."""
    text = _folded(printable(text, keep="\n\t"), sys.stderr)
    if coloured(sys.stderr) and (failed := _FAILED.match(text)):
        text = f"\x1b[1;31m{failed[0]}\x1b[0m{text[failed.end() :]}"
    sys.stderr.write((_CLEAR if sys.stderr.isatty() else "") + text + "\n")


def worded(text: str) -> str:
    """Returns a message in the command line's words: what Python calls `exact=True` is `--exact` here."""
    return _PYTHON.sub(lambda said: f"--{said[1]}" + ("" if said[2] == "True" else f" {said[2]}"), text)


def escaped(raw: bytes) -> str:
    """Returns bytes as text that no terminal acts upon."""
    text = raw.decode("utf-8", "backslashreplace")
    return printable(text)


def conceal(words: Iterable[str]) -> None:
    """Overwrites words of this process's command line in the system's list of processes, which every user may read.

    Only Linux allows this; elsewhere, and before this call, they are visible.
    """
    import ctypes

    hidden = {os.fsencode(word) for word in words}
    if not hidden or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, ValueError, IndexError):
        # after the name in brackets follow fields 3 and up; 48 and 49 are the addresses of the arguments
        fields = Path("/proc/self/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        start, end = int(fields[45]), int(fields[46])
        if 0 < start < end:
            shown = ctypes.string_at(start, end - start).split(b"\0")
            masked = b"\0".join(b"*" * len(word) if word in hidden else word for word in shown)
            ctypes.memmove(start, masked, end - start)


class Progress:
    """Progress on stderr: one line that is redrawn on a terminal, a line a minute elsewhere.

    Work of less than a second shows nothing; waiting for another command is shown at once. The line shows the step, n
    of m if known, the share, the elapsed time and, from the share, the remaining time of the step.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._terminal = clock, sys.stderr.isatty()
        self._began = self._step_began = self._told = clock()
        self._what = self._said = ""
        self._share: float | None = None
        self._drawn = self._closed = False
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._ticker: threading.Thread | None = None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __call__(self, what: str, share: float | None) -> None:
        """Records the current step and, if known, its completed share, 0 to 1."""
        if share is None and (counted := _OF.search(what)):
            share = (int(counted[1].replace(",", "")) - 1) / int(counted[2].replace(",", ""))
        with self._lock:
            if _OF.sub("", what) != _OF.sub("", self._what):
                self._step_began = self._clock()
            self._what, self._share = what, share
        # a step may take minutes without telling anything: a thread of its own keeps the time running
        if self._ticker is None:
            self._ticker = threading.Thread(target=self._tick, daemon=True)
            self._ticker.start()
        self.show()

    def show(self) -> None:
        """Shows it, if it is time to."""
        with self._lock:
            now = self._clock()
            pause = (_EVERY if self._drawn else _AFTER) if self._terminal else _A_MINUTE
            # what a command waits for is said at once: for a minute it would look as if it hung
            waits = not self._terminal and self._what.startswith("waiting ") and self._what != self._said
            if self._closed or (now - self._told < pause and not waits):
                return
            if self._terminal:
                sys.stderr.write(f"{_CLEAR}{self._text(now, (width(sys.stderr) or 80) - 1)}")
                sys.stderr.flush()
                self._drawn = True
            else:
                sys.stderr.write(f"{printable(self._what) if waits else self._text(now)}\n")
            self._told, self._said = now, self._what

    def _text(self, now: float, wide: int = 1_000) -> str:
        parts = []
        if self._share is not None:
            filled = "#" * int(10 * self._share)
            parts.append(f"[{filled:10}] {self._share:4.0%}" if self._terminal else f"{self._share:.0%}")
        parts.append(f"{_clock_text(now - self._began)} elapsed")
        spent = now - self._step_began
        if self._share and spent > _AFTER:
            parts.append(f"{_clock_text(spent * (1 - self._share) / self._share)} left")
        between = "  " if self._terminal else ", "
        figures = between.join(parts)
        what, room = printable(self._what), wide - len(figures) - 2
        if len(what) > room:  # drop the reason first, and n of m never
            counted = _OF.search(what)
            tail = counted[0] if counted else ""
            head, room = what.replace(tail, "", 1).partition(": ")[0], room - len(tail)
            what = (head if len(head) <= room else f"{head[: max(0, room - 1)]}…") + tail
        return f"{what}{between}{figures}"[:wide]  # a line that wraps cannot be drawn again

    def _tick(self) -> None:
        while not self._ended.wait(0.5):
            self.show()

    def close(self) -> None:
        """Clears the line."""
        with self._lock:
            self._closed = True
            if self._drawn:
                sys.stderr.write(_CLEAR)
        self._ended.set()


@contextlib.contextmanager
def step(what: str) -> Iterator[Progress]:
    """Shows one step as long as it lasts."""
    with Progress() as progress:
        progress(what, None)
        yield progress


_AFTER, _EVERY, _A_MINUTE = 1.0, 0.1, 60.0
_OF = re.compile(r", ([\d,]+) of ([\d,]+)( files)?")


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
