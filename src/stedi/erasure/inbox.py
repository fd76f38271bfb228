"""Delivered files without some customers' records, in their own shape and compression; all other bytes stay.

A file is read twice: once to find where the records stand that go, once to copy the rest. The new file is written
beside the old one and takes its place, in one step, when the lake's ledger knows it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from stedi import arrivals, delivery, durable, reader, s3
from stedi.delivery import Skipped
from stedi.errors import UnreadableFile
from stedi.privacy import tombstones
from stedi.privacy.traces import Traces, as_text
from stedi.reader import Limits, ParsedRecord, Reject

_PIECE = 1 << 20
_OVERLAP = 1 << 14
_BRACKETS = b"[]"


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A delivered file that was written anew.

    Attributes:
        path: The file.
        new: What takes its place.
        to: Where that goes: the file's own path, unless its name tells of a customer.
        known_as: What the ledger calls it.
        feed: Its feed.
        before: SHA-256 of the file.
        sha256: Of what takes its place.
        size: Size of that, in bytes.
        records: How many records went.
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


@dataclass(frozen=True, slots=True)
class _Cut:
    """A stretch of a text in which records go: from behind the one before to the one after.

    Attributes:
        start: Where it starts, in bytes.
        end: Where it ends; None if no record follows.
        records: Start and end of each record in it.
        separate: Whether something must stand between the two around it: `7` and `7` would be `77`.
    """

    start: int
    end: int | None
    records: tuple[tuple[int, int], ...]
    separate: bool = False


def rewrite(
    paths: Sequence[str], traces: Traces, moments: frozenset[tuple[str, int]], root: Path, temporary: Path
) -> tuple[list[Rewritten], list[Skipped]]:
    """Writes files anew beside those that hold records of the customers; `replace` puts them in their place.

    Args:
        paths: Files, folders and globs.
        traces: What identifies the customers.
        moments: Serial number and instant of readings that go though others claim the device.
        root: The lake's folder, from which nothing is taken.
        temporary: A folder of this machine for copies of objects of S3; what was written anew stays there.

    Returns:
        The files, and those that somebody has to look at: what could not be read to its end stays as it is, and so does
        a record of somebody else that mentions one of them.
    """
    judge = _Judge(traces, moments, frozenset(number for number, _ in moments))
    done: list[Rewritten] = []
    failed: list[Skipped] = []
    for file, place in _delivered(paths, root, temporary):
        if isinstance(file, Skipped):
            name = "a file named after one of them" if traces.names_file(file.name) else file.name
            failed += [Skipped(name, file.why, file.failed)] if file.failed else []
            continue
        try:
            found = _rewritten(file, place, judge)
            left = found is not None and _mentions(found, judge)
        except UnreadableFile as error:
            failed.append(Skipped(_said(file, place, judge), str(error).removeprefix(f"{file.name}: "), failed=True))
            continue
        finally:
            if place != file.path:
                file.path.unlink(missing_ok=True)
        if found is not None:
            done.append(found)
        if left:
            failed.append(
                Skipped(_said(file, place, judge), "a record of somebody else in it mentions one of them", failed=True)
            )
    return done, failed


def _delivered(
    paths: Sequence[str], root: Path, temporary: Path
) -> Iterator[tuple[delivery.Delivered | Skipped, Path]]:
    """Yields each delivered file with its place: of an object of S3 there is a copy, one at a time."""
    inside = s3.is_remote(root)
    here = [path for path in paths if not s3.is_remote(path)]
    for file in delivery.walk(here, avoid=None if inside else root):
        yield file, file.path if isinstance(file, delivery.Delivered) else root
    there = [s3.at(path) for path in paths if s3.is_remote(path)]
    for number, arrival in enumerate(arrivals.walk(there, avoid=root if inside else None)):
        if isinstance(arrival, Skipped):
            yield arrival, root
            continue
        [(_, file)] = arrivals.fetch([arrival], temporary / f"delivered-{number}")
        yield file, arrival.object.path


def replace(files: Iterable[Rewritten]) -> None:
    """Puts the new files in the place of the old ones; each is there as it was or as it should be."""
    for file in files:
        if s3.is_remote(file.path):
            s3.upload([(file.new, file.to)])
            if file.to != file.path:
                s3.remove([file.path])
            file.new.unlink(missing_ok=True)
            continue
        os.replace(file.new, file.path)
        if file.to != file.path:
            os.replace(file.path, file.to)
        durable.sync(file.path.parent)


def discard(files: Iterable[Rewritten]) -> None:
    """Removes new files that do not take anybody's place."""
    for file in files:
        file.new.unlink(missing_ok=True)


class _Judge:
    """Which records go."""

    def __init__(self, traces: Traces, moments: frozenset[tuple[str, int]], serials: frozenset[str]) -> None:
        self.traces, self._moments, self._serials = traces, moments, serials

    def suspects(self, text: str) -> bool:
        """Says whether a piece of a file may hold such a record."""
        return (
            self.traces.found(text)
            or any(number in text for number in self._serials)
            or ("\\" in text and bool(self._serials))
        )

    def goes(self, record: ParsedRecord | Reject, raw: bytes) -> bool:
        """Says whether a record is one of the customers'."""
        if isinstance(record, Reject):
            return self.traces.found(as_text(raw))
        members = {name.lower(): value for name, value in record.members}
        for name in ("email", "user"):
            if isinstance(value := members.get(name), str):
                # whose a record is, its address tells, whatever else is in it
                return self.traces.known(value)
        number, at = members.get("serialnumber"), members.get("sensorreadingtime")
        if isinstance(number, str) and isinstance(at, int):
            return number in self.traces.numbers or (number, at) in self._moments
        return self.traces.found(as_text(raw))


def _rewritten(file: delivery.Delivered, place: Path, judge: _Judge) -> Rewritten | None:
    """Writes a file anew if it has to be, beside it; `place` is where it was delivered to."""
    for stale in file.path.parent.glob(f".{_escaped(file.path.name[:100])}.*.erasing"):
        stale.unlink()
    name = _unnamed(place, judge)
    cuts: list[_Cut] = []
    if any(judge.suspects(text) for text in _texts(file)):
        cuts = list(_cuts(file, judge))
    if not cuts and name == place.name:
        return None
    before = (
        hashlib.sha256(file.path.read_bytes()).hexdigest() if file.path.stat().st_size < _PIECE else _digest(file.path)
    )
    new = file.path.with_name(f".{file.path.name[:100]}.{before[:16]}.erasing")
    with delivery.open_regular(file.path, file.name) as raw:
        form = reader.form(raw, file.name)
        raw.seek(0)
        mode = stat.S_IMODE(os.fstat(raw.fileno()).st_mode)
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as out:
            if cuts:
                _copy(reader.decompressed(raw, file.name), cuts, form, out)
            else:
                shutil.copyfileobj(raw, out, _PIECE)
            out.flush()
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())
    feed = _guess(file) or ""
    known_as = name if judge.traces.names_file(file.name) else file.name
    size = new.stat().st_size
    records = sum(len(cut.records) for cut in cuts)
    return Rewritten(place, new, place.with_name(name), known_as, feed, before, _digest(new), size, records)


def _mentions(file: Rewritten, judge: _Judge) -> bool:
    """Says whether a file that was written anew still tells of one of the customers."""
    return any(map(judge.traces.found, _texts(delivery.Delivered(file.new, file.known_as, None))))


def _said(file: delivery.Delivered, place: Path, judge: _Judge) -> str:
    """Returns what a file is called where it is told of, which may not be by its name."""
    return _unnamed(place, judge) if judge.traces.names_file(file.name) else file.name


def _unnamed(path: Path, judge: _Judge) -> str:
    """Returns a file's name, or another if it tells of one of the customers."""
    traces = judge.traces
    if not traces.names_file(path.name):
        return path.name
    endings = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".zst") else path.suffix
    feed = delivery.feed_of(path.name) or "delivery"
    return f"{feed}-{tombstones.mark(traces.key, 'file', path.name)[:12]}{endings if endings in _ENDINGS else ''}"


_ENDINGS = tuple(form + packed for form in (".json", ".ndjson", ".jsonl", ".txt", "") for packed in ("", ".gz", ".zst"))


def _texts(file: delivery.Delivered) -> Iterator[str]:
    """Yields a file's text in pieces that overlap by more than anything that is looked for is long."""
    with delivery.open_regular(file.path, file.name) as raw:
        stream, kept = reader.decompressed(raw, file.name), b""
        while piece := stream.read(_PIECE):
            yield as_text(kept + piece)
            kept = piece[-_OVERLAP:]


def _cuts(file: delivery.Delivered, judge: _Judge) -> Iterator[_Cut]:
    """Yields where records go, from front to back."""
    with delivery.open_regular(file.path, file.name) as raw:
        before, closing, going = 0, b"}", list[tuple[int, int]]()
        for record in reader.iter_values(reader.decompressed(raw, file.name), Limits()):
            size = record.raw_size if isinstance(record, Reject) else len(record.raw)
            start, end = record.offset, record.offset + size
            if judge.goes(record, record.raw):
                going.append((start, end))
                continue
            if going:
                objects = closing == b"}" and record.raw[:1] == b"{"
                yield _Cut(before, start, tuple(going), separate=not objects)
                going = []
            before, closing = end, record.raw[-1:] if size == len(record.raw) else b""
        if going:
            yield _Cut(before, None, tuple(going))


def _copy(stream: BinaryIO, cuts: Iterable[_Cut], form: tuple[str, str], out: BinaryIO) -> None:
    """Copies a text without the records of some cuts, compressed and encoded as it was."""
    with reader.writer(out, *form) as target:
        at = 0
        for cut in cuts:
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
    """Returns what stands between two records once those between them are gone.

    Of the separators on both sides of a record one goes with it; brackets of arrays stay.

    Args:
        gaps: What stood before, between and after the records that go.
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


def _guess(file: delivery.Delivered) -> str | None:
    with delivery.open_regular(file.path, file.name) as raw:

        def text() -> BinaryIO:
            raw.seek(0)
            return reader.decompressed(raw, file.name)

        return reader.guess_feed(text, file.feed)


def _digest(path: Path) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _escaped(name: str) -> str:
    import glob

    return glob.escape(name)
