"""Rewrites an inspected file as clean lines and rejects where there is no scanner; keeps rejects."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any, BinaryIO, cast

from stedi._frozen import dataclass
from stedi.errors import LandingError, UnreadableFile
from stedi.landing import reader
from stedi.landing.deliveries import local
from stedi.landing.held import Held
from stedi.landing.inspect import Inspected
from stedi.schema.contracts import Reason


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file whose records were read, or that the typed reader can read.

    Attributes:
        file: What the first look found.
        lines: Clean newline-delimited JSON: the delivered content itself, or a rewritten one; None of a file that was
            scanned, whose rows are written.
        spelling: The name of each field of the contract in `lines`.
        rejects: Newline-delimited JSON of the rejected records, raw bytes in base64; None if there are none.
        counts: Records seen, accepted, quarantined, and drift.
        rewritten: Whether `lines` is the record reader's own.
    """

    file: Inspected
    lines: Path | None
    spelling: Mapping[str, str]
    rejects: Path | None
    counts: reader.Counts
    rewritten: bool = False


class Rejects:
    """The rejected records of one file, a line of JSON each, for `rows.quarantined`; a context that closes them.

    Args:
        name: The delivered file's name.
        path: Their file; it does not exist if there are none.
        part: Whether they are only some of the file's; `join` then decides how much of all of them is text.
    """

    def __init__(self, name: str, path: Path, *, part: bool = False) -> None:
        self.path = path
        self._name, self._part = name, part
        self._out: BinaryIO | None = None
        self._legible = reader.Legibility()

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._out is not None:
                self._out.close()
        except OSError as error:
            raise _unwritten(self._name, error) from error

    def add(self, record: reader.Reject) -> None:
        """Keeps a record.

        Raises:
            UnreadableFile: It is not text: no customer could be found in it, neither to show nor to erase.
            LandingError: It cannot be written.
        """
        self._legible.add(record.raw)
        # alone and together: of each record a few bytes may be odd, of many small ones they add up
        if not (reader.is_legible(record.raw) and (self._part or self._legible.holds)):
            raise reader.refused(self._name, f"bytes that are not text (at byte {record.offset:,} of the text)")
        # a rejected record may be any bytes, and JSON holds only text
        row = {
            "offset": record.offset,
            "line": record.line,
            "reason": record.reason,
            "raw": base64.b64encode(record.raw).decode("ascii"),
            "raw_size": record.raw_size,
        }
        try:
            if self._out is None:
                self._out = open(self.path, "wb")  # noqa: SIM115  closed by this context
            self._out.write(json.dumps(row).encode() + b"\n")
        except OSError as error:
            raise _unwritten(self._name, error) from error

    def join(self, path: Path, lines: int) -> None:
        """Adds the records of a part of the file, before which there are so many line breaks.

        Raises:
            UnreadableFile: As `add`.
        """
        with open(path, "rb") as part:
            # added once more: how much of all the parts together is text is known only here
            for row in map(json.loads, part):
                raw = base64.b64decode(row["raw"])
                self.add(reader.Reject(row["offset"], row["line"] + lines, Reason(row["reason"]), raw, row["raw_size"]))


def as_it_lies(file: Inspected, records: int, held: Held) -> Prepared:
    """Returns a clean file for the typed reader, untouched, and held until that has read it.

    Raises:
        UnreadableFile: It cannot be read, or is not what the first look saw.
    """
    spelling = file.layout.spelling if file.layout else {}
    # a clean file has neither rejects nor drift
    counts = reader.Counts(records, records, 0, {})
    return Prepared(file, held.take(file), spelling, None, counts, rewritten=False)


def prepare(file: Inspected, folder: Path, stop: Event) -> Prepared:
    """Rewrites a file that is not clean.

    Args:
        file: What the first look found.
        folder: A folder that does not exist yet, for the lines and the rejects.
        stop: Set to stop the work.

    Raises:
        UnreadableFile: It cannot be read, does not decode to its end, or has changed since its inspection.
        LandingError: The lines cannot be written.
    """
    lines, rejects = folder / "lines.json", folder / "rejects.json"
    name = file.delivered.name
    try:
        folder.mkdir(mode=0o700)
        with (
            local.open_regular(file.delivered.path, file.delivered.name) as raw,
            open(lines, "wb") as out,
            Rejects(name, rejects) as rejected,
        ):
            hashing = _Hashing(raw, name, stop)
            stream = reader.decompressed(cast(BinaryIO, io.BufferedReader(hashing, 1 << 18)), name)
            counts, spelling = reader.read(stream, file.contract, out, rejected.add)
            hashing.finish()
    except OSError as error:
        # not the file's fault: reading it raises otherwise
        raise _unwritten(name, error) from error
    if hashing.hexdigest() != file.sha256:
        raise UnreadableFile(f"{name}: it changed while it was read; land it again when it is complete")
    return Prepared(file, lines, spelling, rejects if counts.quarantined else None, counts, rewritten=True)


def _unwritten(name: str, error: OSError) -> LandingError:
    return LandingError(
        f"{name}: its records cannot be written to the lake's tmp/ ({error.strerror}); nothing of its batch was "
        "landed: free some space and land it again"
    )


def prepare_all(
    jobs: Sequence[tuple[Inspected, Path]], threads: int
) -> Iterator[tuple[Inspected, Prepared | UnreadableFile]]:
    """Prepares several files and yields each with its outcome, in their order.

    Args:
        jobs: Files, each with its own folder, which does not exist yet.
        threads: How many may work at once; matching releases the interpreter's lock.

    Raises:
        LandingError: The lines cannot be written.
    """
    stop = Event()
    with ThreadPoolExecutor(threads) as pool:
        futures = [(file, pool.submit(prepare, file, folder, stop)) for file, folder in jobs]
        try:
            for file, future in futures:
                try:
                    yield file, future.result()
                except UnreadableFile as error:
                    yield file, error
        except BaseException:
            stop.set()  # the threads are waited for
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class _Hashing(io.RawIOBase):
    """A stream that hashes everything read through it, so that the rewritten bytes are the hashed ones."""

    def __init__(self, raw: BinaryIO, name: str, stop: Event) -> None:
        super().__init__()
        self._raw, self._name, self._stop = raw, name, stop
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._next(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def finish(self) -> None:
        """Reads the rest that the record reader left, so that the hash covers the whole file."""
        while self._next(1 << 18):
            pass

    def _next(self, size: int) -> bytes:
        if self._stop.is_set():
            raise UnreadableFile(f"{self._name}: it was not read to its end")
        try:
            block = self._raw.read(size)
        except OSError as error:
            raise UnreadableFile(
                f"{self._name}: cannot be read ({error.strerror}); land it again when it is readable", passing=True
            ) from error
        self._digest.update(block)
        return block

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
