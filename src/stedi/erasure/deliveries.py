"""The delivered files of an inbox without some customers' records; a file that has none of them stays as it is.

Every file of the inbox is examined, whatever its name or compression; only regular files are opened. A file that
mentions the customers is rewritten beside the old one (`delivered_file`), which it replaces in one step, once the
lake's ledger has recorded it. Problems in an inbox never stop an erasure: files that are left are named. An inbox that
is not there is refused before one begins.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from glob import glob, has_magic
from pathlib import Path

from stedi._frozen import dataclass
from stedi._frozen import replace as changed
from stedi.engines.duckdb import DuckDB
from stedi.erasure.delivered_file import Rewritten, name_without, rewrite_beside, stale
from stedi.erasure.identifiers import Identifiers
from stedi.erasure.judge import Judge
from stedi.erasure.search import look
from stedi.errors import StediError, UnreadableFile, UsageError, printable_name
from stedi.landing.deliveries import local, remote
from stedi.landing.deliveries.local import Delivered, Skipped
from stedi.privacy import tombstones
from stedi.storage import durable, s3

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
class LeftFile:
    """A file of the inbox that somebody has to look at.

    Attributes:
        name: Its name, without mentions of customers.
        why: The problem, in one line.
    """

    name: str
    why: str


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
) -> tuple[list[Rewritten], list[LeftFile]]:
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


def refuse_missing(paths: Iterable[str]) -> None:
    """Refuses what leads nowhere: what somebody expects to be erased would stay where it is.

    Raises:
        UsageError: There is no such file or folder. A pattern may match nothing today, and a bucket is asked later.
    """
    for path in paths:
        if not (s3.is_remote(path) or has_magic(path) or os.path.lexists(path)):
            raise UsageError(
                f"{path}: expected delivered files or their folder, found nothing there; nothing was erased",
                argument="inbox",
            )


class _Inbox:
    """The files of one inbox, one after another."""

    def __init__(self, traces: Identifiers, moments: frozenset[tuple[str, int]], engine: DuckDB | None) -> None:
        self.done: list[Rewritten] = []
        self.left: list[LeftFile] = []
        self._judge, self._traces, self._engine = Judge(traces, moments), traces, engine
        # a reading of a shared device identifies nobody by itself: examine each
        self._wide = changed(traces, numbers=traces.numbers | {number for number, _ in moments}, _known={})

    def name(self, path: str) -> str:
        """Returns a file's name for messages, without parts that mention a customer."""
        parts = path.split("/")
        folders = [tombstones.masked_name(self._traces.key, p) if self._identifying(p) else p for p in parts[:-1]]
        return "/".join([*folders, name_without(Path(parts[-1]), self._traces)])

    def leave(self, name: str, why: str) -> None:
        """Records a file that somebody has to look at."""
        self.left.append(LeftFile(self.name(name), why))

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
                written = rewrite_beside(file.delivered, file.place, self._judge, file.tag)
        except (OSError, StediError, EOFError) as error:
            self.leave(file.name, _why(error, file))
            return
        if written is not None:
            self.done.append(written)
            # what was written is not believed: somebody else's record may still mention them
            found = self._look(written.new, self._traces)
        elif found == ELSEWHERE:
            # found by a shared device's number alone, which is no trace of anybody
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
            # what a killed attempt has left mentions them as well
            for leftover in stale(file.path):
                leftover.unlink(missing_ok=True)
            yield _File(file.path, file.path, file, file.name)
        elif file.failed and file.why not in (local.ARCHIVED, *local.NOTHING):
            work.leave(file.name, file.why)
    # the new files lie in the same folders
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
            top, meant = remote.searched(place)
            listed = [found.path for found in s3.listing(top) if meant(found.path.key)]
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
            # somebody has taken it away meanwhile
            except FileNotFoundError:
                continue
            except OSError as error:
                work.leave(name, f"cannot be read: {(error.strerror or 'input/output error').lower()}")


def _is_closed(path: Path) -> bool:
    """Returns whether a file is compressed in an unsupported way."""
    if s3.is_remote(path):
        head = s3.start(path, 8)
    else:
        with local.open_regular(path) as stream:
            head = stream.read(8)
    # Brotli has no mark at its start
    return head.startswith(_CLOSED) or path.name.lower().endswith((".br", ".7z", ".rar", ".lz4"))


def _why(error: Exception, file: _File) -> str:
    if isinstance(error, UnreadableFile):
        return str(error).removeprefix(f"{file.delivered.name if file.delivered else file.path}: ")
    reason = (error.strerror or "input/output error").lower() if isinstance(error, OSError) else type(error).__name__
    return f"cannot be rewritten: {reason}"


def replace(files: Iterable[Rewritten]) -> tuple[list[Rewritten], list[LeftFile]]:
    """Replaces the old files by the new ones; each file is complete, old or new, at any time.

    Returns:
        The files that were replaced, and those that could not be.
    """
    done: list[Rewritten] = []
    left: list[LeftFile] = []
    for file in files:
        try:
            if not _replaced(file):
                left.append(LeftFile(file.known_as, MOVED))
                continue
        except OSError as error:
            left.append(LeftFile(file.known_as, f"cannot be rewritten: {(error.strerror or 'refused').lower()}"))
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
    # first in the old one's place: killed before the next line, only the name is left for another attempt
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
