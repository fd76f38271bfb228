"""Lands a batch with many workers: each inspects files, and turns shares of them into Parquet files.

Workers run the same code as one machine does. A share may run more than once, so each attempt writes into its own
folders, and only returned files are committed; `maintain` removes the leftovers.
"""

from __future__ import annotations

import hashlib
import io
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import cast

from stedi._frozen import dataclass, replace
from stedi.engines.duckdb import DuckDB
from stedi.engines.workers import Share as Progress
from stedi.engines.workers import Workers
from stedi.errors import UnreadableFile
from stedi.landing import writing
from stedi.landing.deliveries.local import Delivered, fingerprint, open_regular
from stedi.landing.deliveries.remote import copied
from stedi.landing.inspect import Inspected, inspect
from stedi.landing.writing import Batch, Written

_SHARE_BYTES = 256 << 20
"""Bytes of a share, so that losing one costs little; a larger file is a share by itself."""
_LOOKS = 8
"""Inspection tasks for each worker: files differ in size, and a free worker takes the next task."""


@dataclass(frozen=True, slots=True)
class LandingTask:
    """Files for one worker to land, and what it needs for that.

    Attributes:
        number: The number of the share in the batch.
        files: The files.
        batch: The batch.
        folders: For each landing table, the folder of the batch.
        memory: The memory of the worker's engine.
    """

    number: int
    files: tuple[Inspected, ...]
    batch: Batch
    folders: Mapping[str, Path]
    memory: str


def inspect_all(workers: Workers, files: Sequence[Delivered], done: Progress) -> list[Inspected | UnreadableFile]:
    """Inspects files and returns the findings in their order."""
    count = min(len(files), _LOOKS * workers.slots)
    found: list[Inspected | UnreadableFile] = [UnreadableFile("")] * len(files)
    parts = [tuple(files[number::count]) for number in range(count)]
    for number, part in enumerate(workers.map(_inspect, parts, done)):
        found[number::count] = part
    return found


def shares(
    workers: Workers, files: Sequence[Inspected], batch: Batch, folders: Mapping[str, Path], memory: str
) -> list[LandingTask]:
    """Divides files: about as many bytes to each share, and one feed, so that tables get few and large files."""
    # of few bytes every worker gets a part, instead of one worker all of them
    least = sum(file.size for file in files) / workers.slots
    parts: list[list[Inspected]] = []
    size = 0.0
    for file in sorted(files, key=lambda file: (file.contract.feed, -file.size)):
        new = not parts or parts[-1][0].contract.feed != file.contract.feed or size + file.size > _SHARE_BYTES
        if new or size >= least:
            parts.append([])
            size = 0
        parts[-1].append(file)
        size += file.size
    # the largest first: a free worker takes the next
    parts.sort(key=lambda part: -sum(file.size for file in part))
    return [LandingTask(n, tuple(part), batch, folders, memory) for n, part in enumerate(parts)]


def write(share: LandingTask) -> Written:
    """Lands a share without committing it. Runs on a worker.

    Raises:
        LandingError: A file changed, or the output cannot be written.
    """
    attempt = f"{share.number}-{secrets.token_hex(4)}"
    files, unreadable = [], []
    with tempfile.TemporaryDirectory(prefix="stedi-") as made:
        scratch = Path(made)
        for place, delivered in enumerate(share.files):
            try:
                files.append(_here(delivered, scratch / f"{place}.copy"))
            except UnreadableFile as error:
                unreadable.append((delivered.delivered.name, error))
        # the cores of this machine are other tasks'
        with DuckDB(memory=share.memory, threads=1, temporary=scratch / "spill") as engine:
            written = writing.write(engine, files, share.batch, scratch, lambda table: share.folders[table] / attempt)
    return replace(written, unreadable=(*unreadable, *written.unreadable))


def _inspect(files: Sequence[Delivered]) -> list[Inspected | UnreadableFile]:
    """Looks at some files. Runs on a worker."""
    found: list[Inspected | UnreadableFile] = []
    with ThreadPoolExecutor(1) as verifier, tempfile.TemporaryDirectory(prefix="stedi-") as scratch:
        for file in files:
            copy = Path(scratch, "copy")
            try:
                found.append(replace(inspect(copied(file, copy), verifier, Event()), delivered=file))
            except UnreadableFile as error:
                found.append(error)
            copy.unlink(missing_ok=True)
    return found


def _here(file: Inspected, path: Path) -> Inspected:
    """Returns a file that can be read here: of an object of S3, which has the content that was looked at, a copy."""
    delivered = copied(file.delivered, path)
    if delivered is file.delivered:
        return file
    with open_regular(delivered.path) as stream:
        # a mark of content is of fewer bits, or of the parts that it was uploaded in
        if hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest() != file.sha256:
            raise UnreadableFile(
                f"{file.delivered.name}: it changed while it was read; land it again when it is complete"
            )
        return replace(file, delivered=delivered, fingerprint=fingerprint(stream.fileno()))
