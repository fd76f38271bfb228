"""From an inspected file to clean lines and rejects, on every core where there is enough to do.

`prepare` is a pure function of a file and a folder, so that any process, on any machine, can run it. Workers are
plain processes that run this module: Python's own pools would import the caller's script again.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import Any, BinaryIO, cast

from stedi import reader
from stedi._startup import without_dataframes
from stedi.engines import isolation
from stedi.errors import LandingError, UnreadableFile
from stedi.landing.deliveries import local
from stedi.landing.held import Held
from stedi.landing.inspect import Inspected
from stedi.schema.contracts import Reason

_Result = tuple[Inspected, "Prepared | LandingError"] | None
"""What a worker sends: a file with what became of it, or None when it has done its share."""

# not `-m`: what it sends back must be this module's classes, not those of `__main__`
_WORKER = f"import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); from {__name__} import main; main()"

_SPAWN_BYTES = 8 << 20  # below it, starting processes costs more than they save


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file whose records were read, or that the typed reader can take.

    Attributes:
        file: What the first look found.
        lines: Clean newline-delimited JSON: the delivered content itself, or a rewritten one; None of a file that was
            scanned, whose rows are written.
        spelling: Under which name each field of the contract stands in `lines`.
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
        path: Where they go; there is no such file if there are none.
        part: Whether they are some of the file's: how much of all of them is text, `join` will tell.
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
            UnreadableFile: It is no text: nobody could find a customer in it, neither to show nor to erase.
            LandingError: It cannot be written.
        """
        self._legible.add(record.raw)
        if not (reader.is_legible(record.raw) and (self._part or self._legible.holds)):
            raise reader.refused(self._name, f"bytes that are no text (at byte {record.offset:,} of the text)")
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
            for row in map(json.loads, part):
                raw = base64.b64decode(row["raw"])
                self.add(reader.Reject(row["offset"], row["line"] + lines, Reason(row["reason"]), raw, row["raw_size"]))


def as_it_lies(file: Inspected, records: int, held: Held) -> Prepared:
    """Returns a clean file for the typed reader, untouched, and held until that has read it.

    Raises:
        UnreadableFile: It cannot be read, or is not what the first look saw.
    """
    spelling = file.layout.spelling if file.layout else {}
    counts = reader.Counts(records, records, 0, {})
    return Prepared(file, held.take(file), spelling, None, counts, rewritten=False)


def prepare(file: Inspected, folder: Path) -> Prepared:
    """Rewrites a file that is not clean as it stands.

    Args:
        file: What the first look found.
        folder: A folder that does not exist yet, for the lines and the rejects.

    Raises:
        UnreadableFile: It cannot be read, does not decode to its end, or is not what the first look saw.
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
            hashing = _Hashing(raw, name)
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
        "landed: land again when there is room"
    )


def prepare_all(
    jobs: Sequence[tuple[Inspected, Path]], workers: int
) -> Iterator[tuple[Inspected, Prepared | UnreadableFile]]:
    """Prepares several files and yields each with its outcome, in no order that means anything.

    Args:
        jobs: Files, each with a folder of its own that does not exist yet.
        workers: How many processes may work at once; a little work is done in this one.

    Raises:
        LandingError: A worker died, or cannot write.
    """
    if workers == 1 or len(jobs) == 1 or sum(file.size for file, _ in jobs) < _SPAWN_BYTES:
        for file, folder in jobs:
            outcome = _outcome(file, folder)
            if isinstance(outcome, UnreadableFile | Prepared):
                yield file, outcome
            else:
                raise outcome
        return
    shares: list[list[tuple[Inspected, Path]]] = [[] for _ in range(min(workers, len(jobs)))]
    for job in sorted(jobs, key=lambda job: -job[0].size):
        min(shares, key=lambda share: sum(file.size for file, _ in share)).append(job)
    results: Queue[_Result] = Queue()
    with ExitStack() as stack:
        threads = stack.enter_context(ThreadPoolExecutor(len(shares)))
        for share in shares:
            process = isolation.start(["-c", _WORKER], share[0][1].parent)
            # one that has ended already is not harmed; one that has not is wanted by nobody any more
            stack.callback(process.kill)
            threads.submit(_work, process, share, results)
        ended = 0
        while ended < len(shares):
            match results.get():
                case file, (Prepared() | UnreadableFile()) as outcome:
                    yield file, outcome
                case _, LandingError() as error:
                    raise error
                case None:
                    ended += 1


def _work(
    process: subprocess.Popen[bytes],
    share: Sequence[tuple[Inspected, Path]],
    results: Queue[_Result],
) -> None:
    """Has a process prepare some files and passes their outcomes on as they come."""
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(isolation.folders(), process.stdin)
            pickle.dump(list(share), process.stdin)
            process.stdin.close()
            for file, _ in share:
                results.put((file, pickle.load(process.stdout)))
            results.put(None)
        except Exception:  # whatever it was: who waits for the results must hear of it
            died = LandingError("a process that rewrote files died, perhaps for want of memory; land again")
            results.put((share[0][0], died))


def _outcome(file: Inspected, folder: Path) -> Prepared | LandingError:
    try:
        return prepare(file, folder)
    except LandingError as error:
        return error


def main() -> None:
    """Prepares the files that stand in stdin and writes their outcomes to stdout; both are pickles of our own."""
    without_dataframes()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the landing itself answers; without its pipe this process ends
    for file, folder in pickle.load(sys.stdin.buffer):
        pickle.dump(_outcome(file, folder), sys.stdout.buffer)
        sys.stdout.buffer.flush()


class _Hashing(io.RawIOBase):
    """A stream that hashes what is read through it: what was rewritten is what was hashed."""

    def __init__(self, raw: BinaryIO, name: str) -> None:
        super().__init__()
        self._raw, self._name = raw, name
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._next(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def finish(self) -> None:
        """Reads whatever the record reader left, so that the hash covers the file."""
        while self._next(1 << 18):
            pass

    def _next(self, size: int) -> bytes:
        try:
            block = self._raw.read(size)
        except OSError as error:
            raise UnreadableFile(
                f"{self._name}: cannot be read ({error.strerror}); land it again when it can"
            ) from error
        self._digest.update(block)
        return block

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
