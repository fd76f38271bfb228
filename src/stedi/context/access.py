"""The access log: one line for each time that rows of people were shown or handed out.

    begin  -> a note of the access alone, held for as long as its process lives, before anybody sees a row
    end    -> the line, with the rows and how it ended, on disk; then the note goes

A line tells who, as whom, what for, which tables as of which snapshots, and how many: never a value, an address or a
statement. It carries the seal of the line before it and its own, under a subkey of the lake's first key, so that a line
that is changed, removed or put in is noticed. Whoever can write into the folder can still cut the log short: the mark
outside the lake (`seen`) knows how far it was when the last command ended that writes. What was killed on the way has
left its note, and the next access makes a line of it. A folder has a file of lines a day, a bucket an object a line.
"""

from __future__ import annotations

import errno
import fcntl
import hmac
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from stedi._frozen import dataclass
from stedi.context import operator
from stedi.context.progress import instant
from stedi.errors import CopiedLake, LakeError, QueryRefused, StediError, UsageError, many
from stedi.privacy import state
from stedi.privacy.pseudonyms import Key
from stedi.schema.roles import GRANTS
from stedi.storage import copies, durable, s3

if TYPE_CHECKING:
    from stedi.context import Context

FOLDER = "access"
"""The folder of the log, in the lake's folder."""
TRIMMED = "trim"
"""What the log calls it when its oldest days go."""
_NOTES = "begun"
"""The folder, in it, of accesses that have not ended."""
_LABEL = "stedi/access/1"
_LONGEST = 1 << 16
"""More bytes than a line has."""
_WAIT = 10.0
"""Seconds for which a line waits for others that are being written; each takes as long as a disk does."""
_LOST = timedelta(days=1)
"""Age after which a note in a bucket counts as one of a killed process."""


@dataclass(frozen=True, slots=True)
class Access:
    """One line of the access log.

    Attributes:
        number: Its number in the log, from 1; 0 for an access without a line yet.
        time: When it began, UTC.
        user: The operating system's user who ran the process.
        verb: What was done: `query`, `query as published`, `explain`, `export`, `erase`, `quarantine`, `withheld`,
            `dataset`, `report`, `consent`; or `trim`, when the oldest days of the log were removed.
        role: The role of a query; empty for accesses without roles.
        tables: The tables that rows came from, and the snapshot of each.
        people: How many people were named in the request; None if none was named.
        rows: How many rows were given; None if that is not known.
        ended: `done`, `stopped` by its reader, `failed`, `refused`, `cut off` with its process, or `under way`.
    """

    number: int
    time: datetime
    user: str
    verb: str
    role: str
    tables: Mapping[str, int | None]
    people: int | None
    rows: int | None
    ended: str


class Note:
    """An access from its beginning to its end.

    Args:
        context: The lake.
        verb: The operation, as in `Access`.
        role: Its role.
        people: How many people are requested.
        must: Whether nothing may be shown without a note; otherwise a missing note is only reported.
    """

    def __init__(
        self, context: Context, verb: str, *, role: str = "", people: int | None = None, must: bool = True
    ) -> None:
        self.tables: dict[str, int | None] = {}
        self.rows: int | None = None
        self._context, self._must = context, must
        eyes = role if role in GRANTS else ""  # else it may be any text of the caller's
        self._plain = {"time": instant(datetime.now(UTC)), "user": operator.name(), "verb": verb, "role": eyes}
        self._people = people
        self._key: Key | None = None
        self._path: Path | None = None
        self._held: int | None = None
        self._over = False
        self._unnoted = ""

    def begin(self) -> None:
        """Notes, before a row is shown, that there is this access.

        Raises:
            LakeError: That cannot be noted, and must be.
        """
        root = self._context.root
        try:
            copies.refuse(root)
            self._key = self._context.key()
            folder = root / FOLDER / _NOTES
            durable.folder(folder)
            path = folder / f"{os.urandom(8).hex()}.json"
            raw = json.dumps(self._entry("under way")).encode()
            if s3.is_remote(path):
                s3.create(path, raw)
            else:
                # not on disk at once: it is for a process that is killed, and the system outlives that
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
                self._held, self._path = descriptor, path
                fcntl.flock(descriptor, fcntl.LOCK_EX)  # somebody testing whether it is held takes only a moment
                os.write(descriptor, raw)
            self._path = path
        except (OSError, StediError) as error:
            self._give_up()
            self._cannot(error)

    def end(self, ended: str = "done", rows: int | None = None) -> None:
        """Writes the line, once; a failure is reported, since rows were shown, and the note stays."""
        if self._over:
            return
        self._over = True
        if self._unnoted and ended in ("done", "stopped"):
            self._context.say(f"this is not in the access log: {self._unnoted}")
        self.rows = self.rows if rows is None else rows
        if self._path is None and self._key is None and ended == "refused":
            with suppress(OSError, StediError):  # nothing was shown
                copies.refuse(self._context.root)
                self._key = self._context.key()
        if self._key is None:
            return
        try:
            append(self._context, self._key, [self._entry(ended)])
        except (OSError, StediError) as error:
            self._context.say(f"how this ended is not in the access log: {_why(error)}")
            if self._held is not None:
                os.close(self._held)
        else:
            self._give_up()

    def _entry(self, ended: str) -> dict[str, Any]:
        return {**self._plain, "tables": self.tables, "people": self._people, "rows": self.rows, "ended": ended}

    def _give_up(self) -> None:
        with suppress(OSError):
            if self._path is not None:
                self._path.unlink(missing_ok=True)
        if self._held is not None:
            os.close(self._held)
        self._held = self._path = None

    def _cannot(self, error: Exception) -> None:
        self._key = None
        # copies and read-only volumes are read without a log: their reader could read the files anyway
        readable = isinstance(error, CopiedLake) or (isinstance(error, OSError) and error.errno == errno.EROFS)
        if self._must and not readable:
            other = ", or ask as another role than officer" if self._plain["role"] else ""
            raise LakeError(
                f"{self._context.root}: expected an access log that can be written, found none ({_why(error)}); "
                f"nothing was shown: give this user the lake's key and the right to write into the folder{other}"
            ) from None
        self._unnoted = _why(error)


@contextmanager
def noted(
    context: Context, verb: str, *, role: str = "", people: int | None = None, must: bool = True
) -> Iterator[Note]:
    """Notes that a block shows or hands out rows of people, and how it ended; arguments as of `Note`.

    The block may fill in `tables` and `rows` of the note that it is given.

    Raises:
        LakeError: That cannot be noted, and must be; the block did not run.
    """
    note = Note(context, verb, role=role, people=people, must=must)
    note.begin()
    try:
        yield note
    except (QueryRefused, UsageError):
        note.end("refused")
        raise
    except Exception:
        note.end("failed")
        raise
    except BaseException:
        note.end("stopped")
        raise
    note.end()


def append(context: Context, key: Key, plain: list[dict[str, Any]]) -> None:
    """Appends lines to a lake's log, after those of accesses that were killed; they are on disk when this returns.

    Args:
        context: The lake.
        key: Its key.
        plain: The lines, without numbers and seals.

    Raises:
        OSError: They cannot be written; some complete lines may be there.
        LakeBusy: Another process holds the log and does not go on.
    """
    root, lake_id = context.root, context.config.lake_id
    if s3.is_remote(root):
        left = _left(root)
        for entry in [*left.values(), *plain]:
            _append_object(root, key, lake_id, entry)
        s3.remove(left)
        return
    with durable.lock(root / f"{FOLDER}.lock", wait=_WAIT):
        folder = root / FOLDER
        durable.folder(folder)
        days = _days(root)
        # a clock that was set back must not put a line before the one that it follows
        today = max([datetime.now(UTC).date().isoformat(), *(day.stem for day in days[-1:])])
        path = folder / f"{today}.jsonl"
        is_new = not path.exists()
        with open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, durable.readable(folder)), "r+b") as stream:
            # the chain goes on from day to day, and a new day's file is empty
            before = _last(stream) or next(filter(None, map(_last_of, reversed(days))), b"")
            lines, left = [], _left(root)
            for entry in [*left.values(), *plain]:
                before = _sealed(key, lake_id, before, entry)
                lines.append(before + b"\n")
            stream.write(b"".join(lines))
            stream.flush()
            os.fsync(stream.fileno())
        if is_new:
            durable.settle([path])
            durable.sync(folder)
        for path in left:
            path.unlink(missing_ok=True)


def log(root: Path, since: datetime | None = None) -> tuple[Access, ...]:
    """Returns the lines of a lake's log, oldest first, then the accesses without a line yet.

    Args:
        root: The lake's folder.
        since: Those that began at this instant or later.

    Raises:
        LakeError: A line cannot be read.
    """
    found = []
    for day in _days(root):
        for number, line in enumerate(_lines(day), 1):
            try:
                found.append(_access(state.parsed(line)))
            except (ValueError, KeyError, TypeError, AttributeError):
                raise LakeError(
                    f"{FOLDER}/{day.name}: line {number:,}: expected a line of the access log, found something else; "
                    "`stedi audit` checks all of it"
                ) from None
    with suppress(ValueError, KeyError, TypeError, AttributeError):
        found += [_access({**entry, "number": 0}) for _, entry, _ in _notes(root)]
    return tuple(access for access in found if since is None or access.time >= since)


def head(root: Path) -> tuple[int, str]:
    """Returns number and seal of the last line of a lake's log; 0 and an empty text if there is none."""
    for day in reversed(_days(root)):
        with suppress(ValueError, KeyError, TypeError):
            if line := _last_of(day):
                found = state.parsed(line)
                return int(found["number"]), str(found["seal"])
    return 0, ""


def goes_on_from(root: Path, mark: tuple[int, str]) -> bool:
    """Returns whether a lake's log still has its recorded line, or has removed it by age."""
    number, seal = mark
    if not number:
        return True
    start = f'{{"number": {number}, '.encode()
    for day in reversed(_days(root)):
        for line in reversed(list(_lines(day))):
            if line.startswith(start):
                with suppress(ValueError, KeyError, TypeError):
                    return bool(state.parsed(line)["seal"] == seal)
                return False
    with suppress(ValueError, KeyError, TypeError, StopIteration):
        first = next(line for day in _days(root) for line in _lines(day))
        return int(state.parsed(first)["number"]) > number
    return False


def wrong(root: Path, key: Key, lake_id: str, mark: tuple[int, str] = (0, "")) -> Iterator[tuple[str, str, str]]:
    """Yields differences of a lake's log from what was written: place, expected and found value.

    Args:
        root: The lake's folder.
        key: Its key.
        lake_id: Its id.
        mark: The recorded state of the log: number and seal of a line.
    """
    # `begins` is what the newest note of a trimming says; until then it is line 1
    number, seal, first, begins = 0, "", 0, 1
    seals = {}
    for day in _days(root):
        for place, line in enumerate(_lines(day), 1):
            where = f"{FOLDER}/{day.name}, line {place:,}"
            try:
                found = state.parsed(line)
                whole = hmac.compare_digest(_seal(key, found), str(found["seal"])) and found["lake"] == lake_id
            except (ValueError, KeyError, TypeError, AttributeError):
                whole = False
            if not whole:
                yield where, "a line that this lake has written", "another content"
                number, seal = number + 1, ""  # of the next line the place is still known
                continue
            first = first or found["number"]
            if (number or seal) and (found["number"] != number + 1 or (seal and found["previous"] != seal)):
                yield where, f"line {number + 1:,} of the log", f"line {found['number']:,}"
            number, seal = found["number"], found["seal"]
            seals[number] = seal
            if found["verb"] == TRIMMED:
                begins = int(found["first"])
    if first > begins:
        yield FOLDER, f"a log that begins with line {begins:,}", f"line {first:,}"
    there, expected = mark
    if there > number or (there in seals and seals[there] != expected):
        other = f"{many(number, 'line')}" if there > number else "another of that number"
        yield FOLDER, f"line {there:,} as it was seen", other


def trim(context: Context, *, today: date | None = None, dry_run: bool = False) -> int:
    """Removes the days of a lake's log that are older than `access.keep_days`, and notes where it begins now.

    Args:
        context: The lake.
        today: The day; by the clock if it is not given, UTC.
        dry_run: Only count.

    Returns:
        How many lines went, or would.
    """
    root = context.root
    # whole days go, so that no kept file is ever written again
    oldest = (today or datetime.now(UTC).date()) - timedelta(days=context.config.access_days)
    days = _days(root)
    old = [day for day in days if day.stem < oldest.isoformat()]
    kept = days[len(old) :]
    if not old or dry_run:
        return sum(1 for day in old for _ in _lines(day))
    lines = sum(1 for day in old for _ in _lines(day))
    # noted before the days go: a log that begins later without a note was shortened by somebody else
    begins = next((state.parsed(line)["number"] for day in kept for line in _lines(day)), head(root)[0] + 1)
    entry = {"time": instant(datetime.now(UTC)), "user": operator.name(), "verb": TRIMMED, "role": "", "tables": {}}
    append(context, context.key(), [{**entry, "people": None, "rows": lines, "ended": "done", "first": begins}])
    for day in old:
        if s3.is_remote(day):
            s3.remove(day.iterdir())
        else:
            day.unlink(missing_ok=True)
    return lines


def _access(plain: Mapping[str, Any]) -> Access:
    return Access(
        int(plain["number"]),
        datetime.fromisoformat(plain["time"]),
        str(plain["user"]),
        str(plain["verb"]),
        str(plain["role"]),
        dict(plain["tables"]),
        plain["people"],
        plain["rows"],
        str(plain["ended"]),
    )


def _sealed(key: Key, lake_id: str, before: bytes, entry: Mapping[str, Any]) -> bytes:
    """Returns the line that follows another one."""
    last: dict[str, Any] = state.parsed(before) if before else {"number": 0, "seal": ""}
    plain = {"number": last["number"] + 1, "lake": lake_id, **entry, "previous": last["seal"]}
    return json.dumps({**plain, "seal": _seal(key, plain)}).encode()


def _seal(key: Key, plain: Mapping[str, Any]) -> str:
    content = json.dumps({name: value for name, value in plain.items() if name != "seal"}, sort_keys=True)
    return hmac.digest(key.derive(_LABEL), content.encode(), "sha256").hex()


def _days(root: Path) -> list[Path]:
    """Returns the files of the days, or in a bucket the prefixes, oldest first."""
    folder = root / FOLDER
    if not s3.is_remote(root) and not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.name[:1].isdigit())


def _lines(day: Path) -> Iterator[bytes]:
    if s3.is_remote(day):
        for path in sorted(day.iterdir()):
            yield path.read_bytes()
    else:
        yield from day.read_bytes().splitlines()


def _last_of(day: Path) -> bytes:
    """Returns the last line of a day."""
    if s3.is_remote(day):
        objects = sorted(day.iterdir())
        return objects[-1].read_bytes() if objects else b""
    with open(day, "rb") as stream:
        stream.seek(max(0, os.fstat(stream.fileno()).st_size - _LONGEST))
        return (stream.read().splitlines() or [b""])[-1]


def _last(stream: BinaryIO) -> bytes:
    """Returns the last line of a file and leaves it open at its end; half a line after a power cut is ignored."""
    size = stream.seek(0, os.SEEK_END)
    start = stream.seek(max(0, size - _LONGEST))
    tail = stream.read()
    whole = tail.rfind(b"\n") + 1
    if whole < len(tail):
        stream.truncate(start + whole)
    stream.seek(0, os.SEEK_END)
    return (tail[:whole].splitlines() or [b""])[-1]


def _append_object(root: Path, key: Key, lake_id: str, entry: Mapping[str, Any]) -> None:
    """Writes a line as a new object; on a conflict it takes the next number."""
    while True:
        days = _days(root)
        before = _last_of(days[-1]) if days else b""
        today = max([datetime.now(UTC).date().isoformat(), *(day.name for day in days[-1:])])
        line = _sealed(key, lake_id, before, entry)
        number = state.parsed(line)["number"]
        with suppress(FileExistsError):
            return s3.create(root / FOLDER / today / f"{number:012d}.json", line)


def _notes(root: Path) -> Iterator[tuple[Path, dict[str, Any], bool]]:
    """Yields the notes of accesses that have not ended: where, what they say, and whether their process lives."""
    folder = root / FOLDER / _NOTES
    for path in sorted(folder.iterdir()) if s3.is_remote(root) or folder.is_dir() else ():
        with suppress(OSError, ValueError):  # it is just ending, belongs to another user, or was killed early
            alive = durable.is_held(path)
            plain = state.parsed(path.read_bytes())
            if s3.is_remote(path):
                alive = datetime.now(UTC) - datetime.fromisoformat(plain["time"]) < _LOST
            yield path, plain if alive else {**plain, "ended": "cut off"}, alive


def _left(root: Path) -> dict[Path, dict[str, Any]]:
    """Returns the notes of killed processes, with the line for each."""
    return {path: plain for path, plain, alive in _notes(root) if not alive}


def _why(error: Exception) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    return str(error).partition(";")[0]
