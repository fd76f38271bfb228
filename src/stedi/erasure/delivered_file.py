"""One delivered file without some customers' records, in its own shape and compression; all other bytes stay.

The file is read twice: once to locate the records to remove, and parts of records, once to copy the rest. The new file
is written beside it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, cast

from stedi._frozen import dataclass
from stedi.erasure.identifiers import Identifiers, as_text
from stedi.erasure.judge import Judge
from stedi.errors import UnreadableFile
from stedi.landing import reader
from stedi.landing.deliveries import local
from stedi.landing.deliveries.local import Delivered, Fingerprint
from stedi.landing.reader import Limits, ParsedRecord, Reject
from stedi.privacy import tombstones
from stedi.privacy.envelopes import Cut
from stedi.storage import s3

_PIECE = 1 << 20
_OVERLAP = 1 << 14
_BRACKETS = b"[]"
_MOST = 64 << 20
"""The longest record that is examined, bytes; a longer one is left and named."""
_OURS = re.compile(r"\..{0,100}\.[0-9a-f]{16}\.erasing")
"""Names of new files that never replaced the old ones."""
_ENDINGS = tuple(form + packed for form in (".json", ".ndjson", ".jsonl", ".txt", "") for packed in ("", ".gz", ".zst"))
"""Endings that a substitute keeps, of a name that mentions a customer."""


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


def rewrite_beside(file: Delivered, place: Path, judge: Judge, tag: str) -> Rewritten | None:
    """Rewrites a file if it has to be, beside it; `place` is where it was delivered to."""
    name = name_without(place, judge.traces)
    with local.open_regular(file.path, file.name) as raw:
        # taken before anything is read: a change at any later moment shows
        seen = local.fingerprint(raw.fileno())
    before = _digest(file.path)
    cuts: list[_Cut | _Edit] = []
    # most files mention nobody, and are not parsed
    if any(judge.suspects(text) for text in _text_pieces(file)):
        cuts = list(_removed_ranges(file, judge))
    if not cuts and name == place.name:
        return None
    new = file.path.with_name(f"{_head(file.path)}{before[:16]}.erasing")
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


def name_without(path: Path, traces: Identifiers) -> str:
    """Returns a file's name, or a substitute if it mentions one of the customers."""
    if not traces.names_file(path.name):
        return path.name
    endings = "".join(path.suffixes[-2:]) if path.suffix in (".gz", ".zst") else path.suffix
    feed = local.feed_of(path.name) or "delivery"
    return f"{feed}-{tombstones.mark(traces.key, 'file', path.name)[:12]}{endings if endings in _ENDINGS else ''}"


def stale(path: Path) -> list[Path]:
    """Returns leftover new files beside a file that never replaced it."""
    with suppress(OSError):
        head = _head(path)
        return [
            entry
            for entry in path.parent.iterdir()
            if entry.name.startswith(head) and _OURS.fullmatch(entry.name) and not entry.is_dir()
        ]
    return []


def _head(path: Path) -> str:
    """Returns how the names of new files beside a file begin: with at most 100 bytes of its own, of 255 in all."""
    return f".{os.fsencode(path.name)[:100].decode('utf-8', 'ignore')}."


def _write(file: Delivered, new: Path, cuts: Sequence[_Cut | _Edit]) -> None:
    """Writes what stays of a file to another, of the same owner and mode, on disk when it returns."""
    with local.open_regular(file.path, file.name) as raw:
        form = reader.form(raw, file.name)
        raw.seek(0)
        was = os.fstat(raw.fileno())
        mode = stat.S_IMODE(was.st_mode)
        # an attempt that was killed has left a file of the same name, which is overwritten
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode), "wb") as out:
            if cuts:
                _copy(reader.decompressed(raw, file.name), cuts, form, out)
            else:
                # only the name changes: the bytes stay as they were compressed
                shutil.copyfileobj(raw, out, _PIECE)
            out.flush()
            with suppress(OSError):  # only root gives files away
                os.fchown(out.fileno(), was.st_uid, was.st_gid)
            os.fchmod(out.fileno(), mode)
            os.fsync(out.fileno())


def _text_pieces(file: Delivered) -> Iterator[str]:
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
                # between `}` and `{` no reader needs a separator
                yield _Cut(before, start, tuple(going), separate=not objects)
                going = []
            if isinstance(found, Cut):
                yield _Edit(tuple((start + one, start + other) for one, other in found.spans), found.objects)
            # of a long refused record only the start is kept
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
        # it stays; whoever looks at the new file finds the mention, and names the file
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
            # at the start of a file there is no neighbour
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
