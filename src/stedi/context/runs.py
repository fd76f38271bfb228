"""The history of runs: one line for each command that writes, however it ended.

    begin  -> a note of the run, held for as long as its process lives; in a bucket it is rewritten so long
    end    -> the line: what, when, how long, rows, outcome, error; then the note goes

A note that nobody holds is of a run that was killed: it is shown as such, and the next run makes a line of it. A folder
has a file of lines a month, a bucket two objects a run. The history tells an operator what happened and decides
nothing: where it cannot be written, the work goes on. An error is kept without values: a message that may quote what
was delivered or typed is left out.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from stedi._frozen import dataclass, replace
from stedi.context.progress import run_id
from stedi.errors import LakeBusy, LandingError, StediError, UsageError, unnamed
from stedi.storage import copies, durable, s3

if TYPE_CHECKING:
    from stedi.context import Context

FOLDER = "runs"
"""The folder of the history, in the lake's folder."""
_NOTES = "begun"
"""The folder, in it, of runs that have not ended."""
_MONTHS = 13
"""Files of lines that are kept."""
_RECENT = 50
"""Lines to search for a run whose note still exists."""

Outcome = Literal["done", "failed", "busy", "interrupted", "killed", "running"]
"""How a run ended: `busy` if another held the lake; `running` if it has not."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a command that writes.

    Attributes:
        id: The run's id, which sorts by the time of its start.
        command: The command, as `land` or `key rotate`.
        started: When it began, UTC.
        seconds: Its duration; None while it runs, and if it was killed.
        outcome: How it ended.
        rows: Rows that it wrote, or records that it landed; None if it counts none.
        error: The error, without values; empty if there was none.
        kind: The type of the error.
    """

    id: str
    command: str
    started: datetime
    seconds: float | None = None
    outcome: Outcome = "running"
    rows: int | None = None
    error: str = ""
    kind: str = ""

    @property
    def ended(self) -> datetime | None:
        """When it ended, UTC; None where that is not known."""
        return None if self.seconds is None else self.started + timedelta(seconds=self.seconds)


class Observer(Protocol):
    """An observer of the runs on a lake."""

    def began(self, context: Context, run: Run) -> None:
        """A run has begun."""

    def ended(self, context: Context, run: Run, result: object) -> None:
        """A run has ended; `result` is what its verb returned, None if it failed."""


@contextmanager
def recorded(
    context: Context, command: str, *, began: datetime | None = None
) -> Iterator[Callable[[object, int | None, str], None]]:
    """Records a run in the lake's history; a nested run is part of the outer one.

    Args:
        context: The lake.
        command: The command.
        began: When it began, where that was before there was a lake that could keep it; now by default.

    Yields:
        What the block calls at its end with its result, its rows, and what is wrong with the result, if anything is.
    """
    if context.run is not None:
        yield lambda result, rows, wrong: None
        return
    now = datetime.now(UTC)
    run = Run(run_id(), command, began or now)
    clock, note, result = time.monotonic() - (now - run.started).total_seconds(), _Note(context.root, run), None
    context.run = run

    def told(done: object, rows: int | None, wrong: str) -> None:
        nonlocal run, result
        result = done
        run = replace(run, rows=rows, error=wrong, kind="AuditFailed" if wrong and command == "audit" else "")

    for observer in context.observers:
        observer.began(context, run)
    try:
        yield told
    except BaseException as error:
        outcome, text = described(error)
        run = replace(run, outcome=outcome, error=text, kind=type(error).__name__, rows=None)
        raise
    else:
        run = replace(run, outcome="failed" if run.error else "done")
    finally:
        context.run = None
        run = replace(run, seconds=round(time.monotonic() - clock, 3))
        note.end(run)
        for observer in context.observers:
            observer.ended(context, run, result)


def history(root: Path) -> Iterator[Run]:
    """Yields the runs on a lake, newest first: those under way, those that were killed, then line by line.

    Args:
        root: The lake's folder; a line that was interrupted with its process or its disk is skipped.
    """
    if s3.is_remote(root):
        yield from _objects(root)
        return
    lines = _lines(root)
    newest = list(islice(lines, _RECENT))
    # a run writes its line before its note goes: one that has both has ended
    known = {run.id for run in newest}
    # a run without a line is newer than every line
    notes = sorted((run for _, run in _left(root)), key=lambda run: run.id, reverse=True)
    yield from (run for run in notes if run.id not in known)
    yield from newest
    yield from lines


def trim(root: Path) -> None:
    """Removes lines that are older than a year."""
    if s3.is_remote(root):
        oldest = run_id(int((time.time() - _MONTHS * 31 * 86_400) * 1000))
        durable.remove_all([e.path for e in durable.walk(root / FOLDER) if e.path.name < oldest])
        return
    for month in _files(root)[_MONTHS:]:
        with suppress(OSError):
            month.unlink()


class _Note:
    """That a run is under way."""

    def __init__(self, root: Path, run: Run) -> None:
        self._root = root
        self._path: Path | None = None
        self._held: int | None = None
        self._beats: s3.Heartbeat | None = None
        with suppress(OSError, StediError):
            copies.refuse(root)
            path = root / FOLDER / _NOTES / f"{run.id}.json"
            if s3.is_remote(root):
                self._beats = s3.Heartbeat(path, _line(run))
            else:
                durable.folder(path.parent)
                # not synced: it reports a killed process, which the system survives;
                # locked before it has its name, so that a run that is just ending does not take this one for killed
                fresh = path.with_suffix(".new")
                self._held = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                fcntl.flock(self._held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                fresh.rename(path)
                self._path = path  # a file left empty by a full disk is removed at the end, too
                os.write(self._held, _line(run))
            self._path = path

    def end(self, run: Run) -> None:
        """Writes the line of the run, and those of runs that were killed."""
        if self._beats is not None:
            self._beats.end()
        try:
            if self._path is None:
                copies.refuse(self._root)
            if s3.is_remote(self._root):
                s3.create(self._root / FOLDER / f"{run.id}.json", _line(run))
            else:
                killed = [(path, found) for path, found in _left(self._root) if found.outcome == "killed"]
                # another run may have written the line of a killed one, and died before it removed its note
                ended = {found.id for found in islice(_lines(self._root), _RECENT)} if killed else set()
                _append(self._root, [*(found for _, found in killed if found.id not in ended), run])
                for path, _ in killed:
                    path.unlink(missing_ok=True)
        except (OSError, StediError):
            pass
        finally:
            with suppress(OSError):
                if self._held is not None:
                    if self._path is not None:
                        self._path.unlink(missing_ok=True)
                    os.close(self._held)


def described(error: BaseException) -> tuple[Outcome, str]:
    """Returns how a run ended that raised an error, and the error's text without values."""
    match error:
        case KeyboardInterrupt() | GeneratorExit() | SystemExit():
            return "interrupted", "interrupted; what was committed stays"
        case LakeBusy():
            return "busy", unnamed(str(error))
        case UsageError():  # its text may quote the call
            return "failed", "wrong usage; the message was on stderr"
        case LandingError():  # its text names delivered files
            return "failed", "a delivered file could not be landed; the message was on stderr"
        case StediError():
            return "failed", unnamed(str(error))
        case OSError():
            return "failed", os.strerror(error.errno) if error.errno else "the operating system refused"
    return "failed", "unforeseen; set STEDI_DEBUG=1 and run the command again"


def _append(root: Path, runs: Iterable[Run]) -> None:
    """Appends complete lines to the history; a line cut by a full disk is ended first."""
    files = _files(root)
    # a clock that was set back makes no file before the last one
    month = max([datetime.now(UTC).strftime("%Y-%m"), *(path.stem for path in files[:1])])
    folder = root / FOLDER
    path = folder / f"{month}.jsonl"
    durable.folder(folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
    with open(os.open(path, flags, durable.readable(folder)), "r+b", buffering=0) as stream:
        size = stream.seek(0, os.SEEK_END)
        lines = b"".join(map(_line, runs))
        if size and os.pread(stream.fileno(), 1, size - 1) != b"\n":
            lines = b"\n" + lines
        stream.write(lines)
    if not size:
        durable.settle([path])


def _files(root: Path) -> list[Path]:
    """Returns the files of lines, newest first."""
    return sorted((root / FOLDER).glob("[0-9]*-[0-9]*.jsonl"), reverse=True)


def _lines(root: Path) -> Iterator[Run]:
    for path in _files(root):
        try:
            content = durable.content(path, 1 << 30)
        except OSError:
            continue
        for line in reversed(content.splitlines()):
            run = _run(line)
            if run is not None:
                yield run


def _left(root: Path) -> list[tuple[Path, Run]]:
    """Returns the notes with the run of each: running, or killed if nobody holds the note."""
    found = []
    for path in sorted((root / FOLDER / _NOTES).glob("*.json")):
        with suppress(OSError):
            held = durable.is_held(path)
            run = _run(durable.content(path, 1 << 16)) or _nameless(path)
            found.append((path, run if held else replace(run, outcome="killed")))
    return found


def _objects(root: Path) -> Iterator[Run]:
    """Yields the runs on a lake in a bucket, newest first."""
    named: dict[str, Path] = {}
    for entry in durable.walk(root / FOLDER):
        name = entry.path.name
        if name not in named or entry.path.parent.name != _NOTES:
            named[name] = entry.path
    for _, path in sorted(named.items(), reverse=True):
        run = _run(path.read_bytes()) or _nameless(path)
        if run.outcome == "running" and not s3.is_held(path):
            run = replace(run, outcome="killed")
        yield run


def _nameless(path: Path) -> Run:
    """Returns the run of a note that was interrupted before it was written."""
    at = int(path.name[:13]) if path.name[:13].isdecimal() else 0
    return Run(path.stem, "", datetime.fromtimestamp(at / 1000, UTC))


def _line(run: Run) -> bytes:
    plain: dict[str, Any] = {
        "id": run.id,
        "command": run.command,
        "started": run.started.isoformat(),
        "seconds": run.seconds,
        "outcome": run.outcome,
        "rows": run.rows,
        "error": run.error,
        "kind": run.kind,
    }
    return json.dumps(plain).encode() + b"\n"


def _run(line: bytes) -> Run | None:
    """Returns the run of a line, or None if it is invalid."""
    try:
        plain: Mapping[str, Any] = json.loads(line)
        started = datetime.fromisoformat(plain["started"])
        values = {name: plain[name] for name in ("seconds", "outcome", "rows", "error", "kind")}
        return Run(str(plain["id"]), str(plain["command"]), started, **values)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
