"""Delivered files without some customers' records, in their own shape and compression; all other bytes stay.

Every file of the inbox is examined, whatever its name or compression; only regular files are opened. A file that
mentions the customers is read twice more: once to locate the records to remove, once to copy the rest. The new file is
written beside the old one and replaces it in one step, once the lake's ledger has recorded it. Problems in an inbox
never stop an erasure: files that are left are named.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from dataclasses import replace as changed
from glob import glob
from pathlib import Path
from typing import IO, BinaryIO, cast

from stedi import reader
from stedi.engines.duckdb import DuckDB
from stedi.erasure.identifiers import Identifiers, as_text
from stedi.erasure.judge import Judge
from stedi.erasure.search import look
from stedi.errors import StediError, UnreadableFile, printable_name
from stedi.landing.deliveries import local, remote
from stedi.landing.deliveries.local import Delivered, Fingerprint, Skipped
from stedi.privacy import tombstones
from stedi.privacy.envelopes import Cut
from stedi.reader import Limits, ParsedRecord, Reject
from stedi.storage import durable, s3

_PIECE = 1 << 20
_OVERLAP = 1 << 14
_BRACKETS = b"[]"
_MOST = 64 << 20
"""The longest record that is examined, bytes; a longer one is left and named."""
_OURS = re.compile(r"\..{1,100}\.[0-9a-f]{16}\.erasing")
"""Names of new files that never replaced the old ones."""
_CLOSED = (
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\x04\x22\x4d\x18",
    b"\x1f\x9d",
    b"LZIP",
    b"%PDF-",
    b"\xd0\xcf\x11\xe0",
)
"""How files begin that are packed in a way that is not unpacked: 7z, rar, lz4, compress, lzip, PDF, older Office."""

MENTIONED = "it tells of one of them still: somebody else's record mentions them, or it cannot be told whose one is"
ELSEWHERE = "it tells of one of them, in a file that is no delivery"
PACKED = "it cannot be looked into: it is packed, or damaged"
NAMED = "its own name, or that of its folder, tells of one of them"
MOVED = "it was changed while it was rewritten"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A delivered file that was rewritten.

    Attributes:
        path: The file.
        new: The replacement.
        to: The path of the replacement: the file's own, unless its name mentions a customer.
        known_as: Its name in the ledger.
        feed: Its feed.
        before: SHA-256 of the file.
        sha256: SHA-256 of the replacement.
        size: Size of the replacement, bytes.
        records: How many records were removed.
        seen: Fingerprint that shows whether the file has changed since; None for an object of S3.
        tag: S3's ETag of the content that was read.
    """

    path: Path
    new: Path
    to: Path
    known_as: str
    feed: str
    before: str
    sha256: str
    size: int
    records: int
    seen: Fingerprint | None = None
    tag: str = ""


@dataclass(frozen=True, slots=True)
class Left:
    """A file of the inbox that somebody has to look at.

    Attributes:
        name: Its name, without mentions of customers.
        why: The problem, in one line.
    """

    name: str
    why: str


@dataclass(frozen=True, slots=True)
class _Cut:
    """A range of a text in which records are removed: from the end of the record before it to the start of the next.

    Attributes:
        start: Where it starts, in bytes.
        end: Where it ends; None if no record follows.
        records: Start and end of each record in it.
        separate: Whether its neighbours need a separator: `7` and `7` would become `77`.
    """

    start: int
    end: int | None
    records: tuple[tuple[int, int], ...]
    separate: bool = False


@dataclass(frozen=True, slots=True)
class _Edit:
    """A record of several people, without some of them.

    Attributes:
        spans: Start and end of each range to remove, in bytes of the text.
        objects: How many of their records these are.
    """

    spans: tuple[tuple[int, int], ...]
    objects: int


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the inbox.

    Attributes:
        path: Its path on this machine.
        place: Where it was delivered; for an object of S3 `path` is a copy.
        delivered: The file as a landing would see it; None if no landing would take it.
        name: Its path from the parent of the argument that led to it.
        tag: S3's ETag of its content.
    """

    path: Path
    place: Path
    delivered: Delivered | None
    name: str
    tag: str = ""


def rewrite(
    paths: Sequence[str],
    traces: Identifiers,
    moments: frozenset[tuple[str, int]],
    root: Path,
    temporary: Path,
    engine: DuckDB | None = None,
) -> tuple[list[Rewritten], list[Left]]:
    """Writes replacements beside files with records of the customers; `replace` puts them in place.

    Args:
        paths: Files, folders and globs.
        traces: What identifies the customers.
        moments: Serial number and instant of readings to remove although others claim the device.
        root: The lake's folder, from which nothing is taken.
        temporary: A folder on this machine for copies of objects of S3; rewritten files stay there.
        engine: A session, for Parquet; without it a Parquet file is named.

    Returns:
        The files, and those that somebody has to look at: that cannot be read to their end, or written, or that tell of
        one of the customers in a way that cannot be taken out.
    """
    work = _Inbox(traces, moments, engine)
    for file in _files(paths, root, temporary, work):
        try:
            work.take(file)
        finally:
            if file.place != file.path:
                with suppress(OSError):
                    file.path.unlink(missing_ok=True)
    return work.done, work.left


class _Inbox:
    """The files of one inbox, one after another."""

    def __init__(self, traces: Identifiers, moments: frozenset[tuple[str, int]], engine: DuckDB | None) -> None:
        self.done: list[Rewritten] = []
        self.left: list[Left] = []
        self._judge, self._traces, self._engine = Judge(traces, moments), traces, engine
        # a reading of a shared device identifies nobody by itself: examine each
        self._wide = changed(traces, numbers=traces.numbers | {number for number, _ in moments}, _known={})

    def name(self, path: str) -> str:
        """Returns a file's name for messages, without parts that mention a customer."""
        parts = path.split("/")
        folders = [tombstones.masked_name(self._traces.key, p) if self._identifying(p) else p for p in parts[:-1]]
        return "/".join([*folders, _unnamed(Path(parts[-1]), self._traces)])

    def leave(self, name: str, why: str) -> None:
        """Records a file that somebody has to look at."""
        self.left.append(Left(self.name(name), why))

    def passed(self, name: str) -> None:
        """Examines the name of something that is not opened."""
        if any(map(self._identifying, name.split("/"))):
            self.leave(name, NAMED)

    def take(self, file: _File) -> None:
        """Rewrites a file if necessary, and records it if it still mentions the customers."""
        try:
            found = self._look(file.path, self._wide)
            if found is None and _is_closed(file.path):
                found = PACKED
            written = None
            if file.delivered is not None and (found == ELSEWHERE or self._identifying(file.place.name)):
                written = _rewritten(file.delivered, file.place, self._judge, file.tag)
        except (OSError, StediError, EOFError) as error:
            self.leave(file.name, _why(error, file))
            return
        if written is not None:
            self.done.append(written)
            found = self._look(written.new, self._traces)
        elif found == ELSEWHERE:
            found = self._look(file.path, self._traces)
        if found is not None:
            self.leave(file.name, MENTIONED if found == ELSEWHERE and file.delivered is not None else found)
        elif any(map(self._identifying, file.name.split("/")[: -1 if written is not None else None])):
            self.leave(file.name, NAMED)

    def _look(self, path: Path, traces: Identifiers) -> str | None:
        """Returns the problem with a file, if there is one."""
        looked = look(path, traces, self._engine)
        if looked.unopened:
            return "it cannot be read"
        if looked.found:
            return ELSEWHERE
        return PACKED if looked.undecoded else None

    def _identifying(self, name: str) -> bool:
        return self._traces.names_file(name)


def _files(paths: Sequence[str], root: Path, temporary: Path, work: _Inbox) -> Iterator[_File]:
    """Yields each regular file of the inbox once, those first that a landing would take; names what cannot be had."""
    inside = s3.is_remote(root)
    here = [path for path in paths if not s3.is_remote(path)]
    taken: set[str] = set()
    for file in local.walk(here, avoid=None if inside else root):
        if isinstance(file, Delivered):
            taken.add(os.fspath(file.path))
            for stale in _stale(file.path):
                stale.unlink(missing_ok=True)
            yield _File(file.path, file.path, file, file.name)
        elif file.failed and file.why != local.ARCHIVED and not file.why.startswith(("a folder without", "matches")):
            work.leave(file.name, file.why)
    taken.update(os.fspath(file.new) for file in work.done)
    avoid = None if inside else os.path.realpath(root)
    for argument in here:
        for path, name in _everything(argument, avoid, work):
            if path not in taken:
                taken.add(path)
                yield _File(Path(path), Path(path), None, name)
    there = [s3.at(path) for path in paths if s3.is_remote(path)]
    yield from _objects(there, root if inside else None, temporary, work)


def _objects(places: Sequence[Path], avoid: Path | None, temporary: Path, work: _Inbox) -> Iterator[_File]:
    """Yields the objects of S3 of an inbox: of those that a landing would take a copy, one at a time."""
    taken: set[Path] = set()
    for number, arrival in enumerate(remote.walk(places, avoid=avoid)):
        if isinstance(arrival, Skipped):
            if arrival.failed and arrival.why != local.ARCHIVED:
                work.leave(arrival.name, arrival.why)
            continue
        taken.add(arrival.object.path)
        try:
            [file] = remote.fetch([arrival], temporary / f"delivered-{number}")
        except (OSError, StediError) as error:
            work.leave(arrival.name, f"cannot be fetched: {type(error).__name__}")
            continue
        if isinstance(file, Skipped):
            work.leave(file.name, file.why)
        else:
            yield _File(file.path, arrival.object.path, file, file.name, arrival.object.tag)
    for place in places:
        try:
            listed = [found.path for found in s3.listing(remote.plain_part(place))]
        except (OSError, StediError):
            continue  # recorded above
        for path in listed:
            if path not in taken and not (avoid is not None and path.is_relative_to(avoid)):
                taken.add(path)
                yield _File(path, path, None, str(path))


def _everything(argument: str, avoid: str | None, work: _Inbox) -> Iterator[tuple[str, str]]:
    """Yields path and name of each regular file at or below what an argument names; follows no link in it."""
    tops = [argument] if os.path.lexists(argument) else sorted(glob(argument, recursive=True, include_hidden=True))
    for top in tops:
        start = os.path.realpath(top)
        parent = os.path.dirname(os.path.abspath(top))
        pending = [start]
        while pending:
            path = pending.pop()
            if avoid is not None and (path == avoid or path.startswith(avoid + os.sep)):
                continue
            shown = os.path.join(os.path.basename(os.path.abspath(top)), os.path.relpath(path, start))
            name = printable_name(os.path.normpath(shown if top == argument else os.path.relpath(path, parent)))
            try:
                mode = os.lstat(path).st_mode
                if stat.S_ISDIR(mode):
                    pending += sorted((os.path.join(path, entry) for entry in os.listdir(path)), reverse=True)
                elif stat.S_ISREG(mode):
                    yield path, name
                else:
                    work.passed(name)
            except FileNotFoundError:
                continue
            except OSError as error:
                work.leave(name, f"cannot be read: {(error.strerror or 'input/output error').lower()}")


def _stale(path: Path) -> list[Path]:
    """Returns leftover new files beside a file that never replaced it."""
    with suppress(OSError):
        head = f".{path.name[:100]}."
        return [
            entry
            for entry in path.parent.iterdir()
            if entry.name.startswith(head) and _OURS.fullmatch(entry.name) and not entry.is_dir()
        ]
    return []


def _is_closed(path: Path) -> bool:
    """Returns whether a file is compressed in an unsupported way."""
    if s3.is_remote(path):
        head = s3.start(path, 8)
    else:
        with local.open_regular(path) as stream:
            head = stream.read(8)
    return head.startswith(_CLOSED) or path.name.lower().endswith((".br", ".7z", ".rar", ".lz4"))


def _why(error: Exception, file: _File) -> str:
    if isinstance(error, UnreadableFile):
        return str(error).removeprefix(f"{file.delivered.name if file.delivered else file.path}: ")
    reason = (error.strerror or "input/output error").lower() if isinstance(error, OSError) else type(error).__name__
    return f"cannot be rewritten: {reason}"


def replace(files: Iterable[Rewritten]) -> tuple[list[Rewritten], list[Left]]:
    """Replaces the old files by the new ones; each file is complete, old or new, at any time.

    Returns:
        The files that were replaced, and those that could not be.
    """
    done: list[Rewritten] = []
    left: list[Left] = []
    for file in files:
        try:
            if not _replaced(file):
                left.append(Left(file.known_as, MOVED))
                continue
        except OSError as error:
            left.append(Left(file.known_as, f"cannot be rewritten: {(error.strerror or 'refused').lower()}"))
            with suppress(OSError):
                discard([file])
            continue
        done.append(file)
    return done, left


def _replaced(file: Rewritten) -> bool:
    """Replaces one file, unless it has changed."""
    if s3.is_remote(file.path):
        s3.prove()  # the command that has the locks by now rewrites it, too
        try:
            s3.exchange(file.new, file.path, file.tag, file.to)
        except (FileExistsError, FileNotFoundError):
            return False
        finally:
            file.new.unlink(missing_ok=True)
        return True
    with local.open_regular(file.path, file.known_as) as stream:
        same = local.fingerprint(stream.fileno()) == file.seen
    if not same:
        discard([file])
        return False
    os.replace(file.new, file.path)
    if file.to != file.path:
        os.replace(file.path, file.to)
    with suppress(OSError):
        durable.sync(file.path.parent)
    return True


def discard(files: Iterable[Rewritten]) -> None:
    """Removes new files that replace no file."""
    for file in files:
        file.new.unlink(missing_ok=True)


def _rewritten(file: Delivered, place: Path, judge: Judge, tag: str) -> Rewritten | None:
    """Rewrites a file if it has to be, beside it; `place` is where it was delivered to."""
    name = _unnamed(place, judge.traces)
    with local.open_regular(file.path, file.name) as raw:
        seen = local.fingerprint(raw.fileno())
    before = _digest(file.path)
    cuts: list[_Cut | _Edit] = []
    if any(judge.suspects(text) for text in _texts(file)):
        cuts = list(_removed_ranges(file, judge))
    if not cuts and name == place.name:
        return None
    new = file.path.with_name(f".{file.path.name[:100]}.{before[:16]}.erasing")
    try:
        _write(file, new, cuts)
    except BaseException:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        raise
    feed = _guess(file) or ""
    known_as = name if judge.traces.names_file(file.name) else file.name
    records = sum(cut.objects if isinstance(cut, _Edit) else len(cut.records) for cut in cuts)
    size, digest = new.stat().st_size, _digest(new)
    here = None if s3.is_remote(place) else seen
    return Rewritten(place, new, place.with_name(name), known_as, feed, before, digest, size, records, here, tag)


def _write(file: Delivered, new: Path, cuts: Sequence[_Cut | _Edit]) -> None:
    """Writes what stays of a file to another, of the same owner and mode, on disk when it returns."""
    with local.open_regular(file.path, file.name) as raw:
        form = reader.form(raw, file.name)
        raw.seek(0)
        was = os.fstat(raw.fileno())
        mode = stat.S_IMODE(was.st_mode)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as out:
            if cuts:
                _copy(reader.decompressed(raw, file.name), cuts, form, out)
            else:
                shutil.copyfileobj(raw, out, _PIECE)
            out.flush()
            with suppress(OSError):  # only root gives files away
                os.fchown(out.fileno(), was.st_uid, was.st_gid)
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())


def _unnamed(path: Path, traces: Identifiers) -> str:
    """Returns a file's name, or a substitute if it mentions one of the customers."""
    if not traces.names_file(path.name):
        return path.name
    endings = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".zst") else path.suffix
    feed = local.feed_of(path.name) or "delivery"
    return f"{feed}-{tombstones.mark(traces.key, 'file', path.name)[:12]}{endings if endings in _ENDINGS else ''}"


_ENDINGS = tuple(form + packed for form in (".json", ".ndjson", ".jsonl", ".txt", "") for packed in ("", ".gz", ".zst"))


def _texts(file: Delivered) -> Iterator[str]:
    """Yields a file's text in pieces that overlap by more than anything that is looked for is long."""
    with local.open_regular(file.path, file.name) as raw:
        stream, kept = reader.decompressed(raw, file.name), b""
        while piece := stream.read(_PIECE):
            yield as_text(kept + piece)
            kept = piece[-_OVERLAP:]


def _removed_ranges(file: Delivered, judge: Judge) -> Iterator[_Cut | _Edit]:
    """Yields where records go, and parts of records, from front to back."""
    with local.open_regular(file.path, file.name) as raw:
        before, closing, going = 0, b"}", list[tuple[int, int]]()
        for record in reader.iter_values(reader.decompressed(raw, file.name), Limits()):
            size = record.raw_size if isinstance(record, Reject) else len(record.raw)
            start, end = record.offset, record.offset + size
            found = _removal(file, record, judge)
            if found is True:
                going.append((start, end))
                continue
            if going:
                objects = closing == b"}" and record.raw[:1] == b"{"
                yield _Cut(before, start, tuple(going), separate=not objects)
                going = []
            if isinstance(found, Cut):
                yield _Edit(tuple((start + one, start + other) for one, other in found.spans), found.objects)
            before, closing = end, record.raw[-1:] if size == len(record.raw) else b""
        if going:
            yield _Cut(before, None, tuple(going))


def _removal(file: Delivered, record: ParsedRecord | Reject, judge: Judge) -> bool | Cut:
    """Returns whether a record belongs to the customers, or which parts of it to remove."""
    if isinstance(record, ParsedRecord):
        whose = judge.whose(record.members)
        if whose is not None:
            return whose
    raw = record.raw
    if isinstance(record, Reject) and record.raw_size > len(raw):
        if record.raw_size > _MOST:
            return False
        with local.open_regular(file.path, file.name) as stream:
            text = reader.decompressed(stream, file.name)
            _pass_on(text, record.offset, lambda piece: None)
            raw = _take(text, record.raw_size)
    if not judge.suspects(as_text(raw)):
        return False
    cut = judge.cut(raw)
    if cut is not None:
        return cut if cut.spans else False
    # a record that also names others and cannot be told apart stays whole
    return judge.tells(as_text(raw)) and not (isinstance(record, Reject) and judge.strangers(as_text(raw)))


def _copy(stream: BinaryIO, cuts: Iterable[_Cut | _Edit], form: tuple[str, str], out: BinaryIO) -> None:
    """Copies a text without the records in some cuts, with its compression and encoding."""
    with reader.writer(out, *form) as target:
        at = 0
        for cut in cuts:
            if isinstance(cut, _Edit):
                for start, end in cut.spans:
                    _pass_on(stream, start - at, target.write)
                    _pass_on(stream, end - start, lambda piece: None)
                    at = end
                continue
            _pass_on(stream, cut.start - at, target.write)
            gaps, at = [], cut.start
            for start, end in cut.records:
                gaps.append(_take(stream, start - at))
                _pass_on(stream, end - start, lambda piece: None)
                at = end
            if cut.end is None:
                gaps.append(_rest(stream))
            else:
                gaps.append(_take(stream, cut.end - at))
                at = cut.end
            left = joined(gaps, first=cut.start == 0, last=cut.end is None)
            target.write(left or (b"\n" if cut.separate and cut.start else b""))
        shutil.copyfileobj(stream, cast(IO[bytes], target), _PIECE)


def joined(gaps: Sequence[bytes], *, first: bool, last: bool) -> bytes:
    """Returns the text between two records after the records between them are removed.

    Of the two separators around a record, one is removed with it; brackets of arrays stay.

    Args:
        gaps: The text before, between and after the removed records.
        first: Whether the file begins with the first gap.
        last: Whether it ends with the last one.
    """
    kept, *others = gaps
    for place, gap in enumerate(others, start=1):
        ends = last and place == len(gaps) - 1
        bracketed = any(byte in gap for byte in _BRACKETS)
        if bracketed and any(byte in kept for byte in _BRACKETS):
            kept += gap
        elif bracketed or (ends and not any(byte in kept for byte in _BRACKETS)):
            kept = (kept if first else b"") + gap
        elif ends:
            kept += gap
    return kept


def _pass_on(stream: BinaryIO, size: int, to: Callable[[bytes], object]) -> None:
    while size:
        piece = stream.read(min(size, _PIECE))
        if not piece:
            raise UnreadableFile("a delivered file became shorter while it was rewritten; nothing of it was changed")
        to(piece)
        size -= len(piece)


def _take(stream: BinaryIO, size: int) -> bytes:
    taken: list[bytes] = []
    _pass_on(stream, size, taken.append)
    return b"".join(taken)


def _rest(stream: BinaryIO) -> bytes:
    return b"".join(iter(lambda: stream.read(_PIECE), b""))


def _guess(file: Delivered) -> str | None:
    with local.open_regular(file.path, file.name) as raw:

        def text() -> BinaryIO:
            raw.seek(0)
            return reader.decompressed(raw, file.name)

        return reader.infer_feed(text, file.feed)


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
