"""Rewrites any JSON shape as newline-delimited JSON, for readers such as Spark's and Athena's.

The lake's own reader reads a delivered file and writes each record as one line, with its text unchanged except for line
breaks: unknown fields stay, and so does every digit of a number. Text that is not a record is counted by file and
reason, and kept only on request.
"""

from __future__ import annotations

import base64
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from stedi._frozen import dataclass, field
from stedi.context.progress import Progress, silent
from stedi.errors import StediError, UnreadableFile, UsageError, printable_name
from stedi.landing.deliveries.local import Delivered, Skipped, fingerprint, is_foreign, open_regular, walk
from stedi.landing.reader import Limits, Members, Reject, decompressed
from stedi.landing.reader.fitting import Conformer, feeds_of
from stedi.landing.reader.framing import Framer
from stedi.landing.reader.reading import Copier
from stedi.schema.contracts import Reason
from stedi.schema.feeds import CONTRACTS
from stedi.storage import destinations, s3

_MOST_PATIENCE = 4096
"""The most records between two tries of the fast path: each try in vain doubles the wait."""


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The outcome of one file.

    Attributes:
        name: The source file, as its folder's parent knows it.
        path: The file that was written.
        seen: Records and rejects.
        written: Lines written.
        rejects: How many texts were not records, by reason.
    """

    name: str
    path: Path
    seen: int
    written: int
    rejects: Mapping[Reason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of all files."""

    files: tuple[Rewritten, ...]
    skipped: tuple[Skipped, ...]

    @property
    def written(self) -> int:
        """Lines written to all files."""
        return sum(file.written for file in self.files)

    @property
    def rejected(self) -> int:
        """The number of rejects in all files."""
        return sum(file.seen - file.written for file in self.files)

    @property
    def failed(self) -> bool:
        """Whether a file that was meant could not be had."""
        return any(item.failed for item in self.skipped)


def rewrite(
    src: Path,
    dst: Path,
    progress: Progress = silent,
    rejects: Path | None = None,
) -> Summary:
    """Writes the records of a file or folder as newline-delimited JSON; the source is never changed.

    A folder is mirrored: each file keeps its place and name. A file whose name ends in `.gz` or `.zst` is
    written so; the source's own compression is told by its content. Every file written takes its name when it
    is whole, and is readable by its owner alone; one of an earlier run is replaced.

    Args:
        src: A file, or a folder as `deliveries.local.walk` takes it.
        dst: The file to write, or a folder for it if there is one; for a folder, the folder to mirror it in.
        progress: Called with the current step.
        rejects: Where to write what is no record, one JSON object a line: `file`, `offset`, `line`, `reason`,
            `raw_size`, and its first bytes as `raw`, or `raw_base64` if they are not text.

    Raises:
        UsageError: `src` is in S3; `dst` or `rejects` is the source, lies inside it or holds it, or is no file that
            could be replaced.
        UnreadableFile: There is no `src`, or it is one file and cannot be read.
    """
    src, dst = destinations.expanded(src), destinations.expanded(dst)
    if s3.is_remote(src):
        raise UsageError(f"{src}: expected files on this machine, found a place in S3; copy them here")
    rejects = None if rejects is None else destinations.expanded(rejects)
    folder = src.is_dir()
    if not folder and is_foreign(dst.name):
        raise UsageError(
            f"{printable_name(str(dst))}: expected a name for JSON lines (.json, .jsonl, .ndjson, also followed by "
            ".gz or .zst), found another ending"
        )
    if not folder and dst.is_dir():
        dst = dst / src.name
    _keep_apart(src, dst)
    items = list(walk([src]))
    # the first part of a name is the source folder itself
    targets = {item.name: dst / Path(*Path(item.name).parts[1:]) if folder else dst for item in items}
    if rejects is not None:
        _keep_apart(src, rejects)
        # in place of a target they would be there at the end, and its records nowhere
        if os.path.realpath(rejects) in map(os.path.realpath, (dst, *targets.values())) or rejects.is_dir():
            raise UsageError(f"{printable_name(str(rejects))}: expected another file for the rejects, found the target")
    done: dict[Path, Rewritten] = {}
    skipped: list[Skipped] = []
    with ExitStack() as stack:
        refuse = _Rejects(stack.enter_context(_whole(rejects)) if rejects is not None else None)
        for number, item in enumerate(items, start=1):
            progress(f"rewrite files, {number:,} of {len(items):,}", None)
            outcome = item if isinstance(item, Skipped) else _mirror(item, src, targets[item.name], refuse, done)
            if isinstance(outcome, Skipped):
                if not folder:
                    raise UnreadableFile(f"{outcome.name}: {outcome.why}")
                skipped.append(outcome)
    return Summary(tuple(done.values()), tuple(skipped))


@dataclass(slots=True)
class _Rejects:
    out: BinaryIO | None

    def write(self, name: str, reject: Reject) -> None:
        if self.out is None:
            return
        try:
            raw = {"raw": reject.raw.decode("utf-8")}
        except UnicodeDecodeError:
            raw = {"raw_base64": base64.b64encode(reject.raw).decode("ascii")}
        line = {
            "file": name,
            "offset": reject.offset,
            "line": reject.line,
            "reason": reject.reason,
            "raw_size": reject.raw_size,
            **raw,
        }
        self.out.write(json.dumps(line).encode("ascii") + b"\n")


def _mirror(
    item: Delivered, src: Path, target: Path, refuse: _Rejects, done: dict[Path, Rewritten]
) -> Rewritten | Skipped:
    """Rewrites one file of a delivery, or says why not."""
    try:
        if target in done:
            raise UnreadableFile(f"{item.name}: another file's name looks the same when printed; rename one")
        # A folder of an earlier run may hold a link back into the source.
        _keep_apart(src, target)
        done[target] = _rewrite(item, target, refuse)
    except UnreadableFile as error:
        return Skipped(item.name, str(error).removeprefix(f"{item.name}: "), failed=True)
    return done[target]


def _rewrite(item: Delivered, target: Path, refuse: _Rejects) -> Rewritten:
    counts: Counter[Reason] = Counter()

    def rejected(reject: Reject) -> None:
        counts[reject.reason] += 1
        refuse.write(item.name, reject)

    with open_regular(item.path, item.name) as source:
        before = fingerprint(source.fileno())
        stream = decompressed(source, item.name)
        with _whole(target) as out:
            written = lines(stream, out, rejected)
            # inside the block: a file that is refused here leaves no target
            if fingerprint(source.fileno()) != before:
                raise UnreadableFile(f"{item.name}: changed while it was read; run again when it is complete")
    return Rewritten(item.name, target, written + counts.total(), written, dict(counts))


def lines(
    stream: BinaryIO,
    out: BinaryIO,
    reject: Callable[[Reject], None],
    limits: Limits | None = None,
    *,
    careful: bool = False,
) -> int:
    """Writes a stream's records, one a line, with their text as delivered except for line breaks.

    Args:
        stream: The decompressed text.
        out: Takes the lines.
        reject: Called with each text that is not a record.
        limits: The limits of size and depth.
        careful: Do not use the fast path; the result is the same.

    Returns:
        How many lines were written.
    """
    limits = limits or Limits()
    framer = Framer(stream, limits)
    unbroken = _LineFeeds(out)
    copier: Copier | None = None
    written = wait = patience = 0
    for found in framer:
        if isinstance(found, Reject):
            reject(found)
            continue
        _, raw, members = found
        # JSON has line breaks between tokens only, so nothing of a text is lost
        out.write(raw.translate(None, b"\r\n") + b"\n")
        written += 1
        wait -= 1
        if careful or wait > 0:
            continue
        # Runs of records that look like a feed's are copied whole, at many times the speed.
        copier = copier or _copier(members, limits)
        copied = copier.copy(framer.window, cast(BinaryIO, unbroken)) if copier else 0
        written += copied
        patience = 0 if copied else min(2 * patience + 1, _MOST_PATIENCE)
        wait = patience
    return written


@dataclass(frozen=True, slots=True)
class _LineFeeds:
    """Takes whole lines and ends each with a line feed alone."""

    out: BinaryIO

    def write(self, block: bytes) -> int:
        return self.out.write(block.replace(b"\r\n", b"\n"))


def _copier(members: Members, limits: Limits) -> Copier | None:
    # the contract only serves to find records that look alike: their text is copied as it is
    for feed in feeds_of(members, CONTRACTS):
        fitting = Conformer(CONTRACTS[feed])
        fitting.spell(members)
        if copier := Copier.of(members, fitting, limits):
            return copier
    return None


def _keep_apart(src: Path, target: Path) -> None:
    source, other = os.path.realpath(src), os.path.realpath(target)
    where = None
    # also the same file by another path, such as a hard link
    if source == other or (target.exists() and src.exists() and os.path.samefile(src, target)):
        where = "the source itself"
    elif other.startswith(source + os.sep):
        where = "a place inside the source"
    elif source.startswith(other + os.sep):
        where = "a folder that holds the source"
    elif target.is_dir() and not src.is_dir():
        where = "a folder"
    if where is not None:
        raise UsageError(f"{printable_name(str(target))}: expected a path apart from the source, found {where}")


@contextmanager
def _whole(path: Path) -> Iterator[BinaryIO]:
    """Opens a file to write that takes its name, if the block succeeds, when it is whole and on disk."""
    try:
        for folder in reversed(path.parents):
            if not folder.is_dir():
                # one by one: `parents=True` gives the folders above the default mode
                folder.mkdir(mode=0o700)
    except OSError as error:
        raise StediError(f"{printable_name(str(path))}: cannot be created: {error.strerror}") from error
    with destinations.writing(path) as out:
        yield out
