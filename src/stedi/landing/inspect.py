"""Inspects a delivered file: its hash, its feed, and whether it is clean.

The whole file is hashed, and an uncompressed one matched with its contract's pattern, block by block and on every core,
since hashing and matching release the interpreter's lock. A file that passes goes to the typed reader unchanged.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from threading import Event
from typing import BinaryIO, cast

from stedi._frozen import dataclass
from stedi.errors import UnreadableFile
from stedi.landing import reader
from stedi.landing.deliveries import local
from stedi.landing.deliveries.local import Delivered, Fingerprint
from stedi.landing.reader import scanner
from stedi.schema.contracts import Contract
from stedi.schema.feeds import CONTRACTS

_BLOCK = 1 << 20
_HEAD = 1 << 16


@dataclass(frozen=True, slots=True)
class Inspected:
    """The findings of an inspection.

    Attributes:
        delivered: The file.
        contract: Its feed's contract.
        sha256: Of the bytes as delivered, hex.
        size: Bytes as delivered.
        fingerprint: Shows whether the file changes afterwards.
        records: The number of records if the whole file is clean newline-delimited JSON, otherwise None.
        layout: The layout of its clean records.
    """

    delivered: Delivered
    contract: Contract
    sha256: str
    size: int
    fingerprint: Fingerprint
    records: int | None
    layout: reader.RecordPattern | None


def inspect(delivered: Delivered, verifiers: Executor, stop: Event) -> Inspected:
    """Reads a file once, from its first byte to its last.

    Args:
        delivered: The file, with its feed if the call or its name gives one; if no record fits the name, the fields
            decide.
        verifiers: Threads that match blocks.
        stop: Set to stop the work.

    Raises:
        UnreadableFile: It is not a regular file, cannot be read, has no known feed, changed, or the work was stopped;
            or the call named another feed than that of its records.
    """
    try:
        with local.open_regular(delivered.path, delivered.name) as stream:
            before = local.settled(stream.fileno(), delivered.name)

            def text() -> BinaryIO:
                stream.seek(0)
                return reader.decompressed(stream, delivered.name)

            head = text().read(_HEAD)
            contract = _contract(delivered, text)
            stream.seek(0)
            # the typed reader reads files directly, so only uncompressed lines
            plain = head.startswith(stream.read(16)) and bool(head)
            # a scanner checks records while it reads them, so nothing is gained by matching them before
            scanned = scanner.library() is not None
            layout = reader.detect_layout(head, contract) if plain and not scanned else None
            stream.seek(0)
            digest = hashlib.sha256()
            records = _read(stream, layout, digest, verifiers, stop)
            size = stream.tell()
            # a read that was stopped ends early, and is refused here as well
            if local.fingerprint(stream.fileno()) != before or size != before.size:
                raise UnreadableFile(
                    f"{delivered.name}: it changed while it was read; land it again when it is complete"
                )
    except OSError as error:
        raise UnreadableFile(
            f"{delivered.name}: cannot be read ({error.strerror}); land it again when it is readable", passing=True
        ) from error
    return Inspected(delivered, contract, digest.hexdigest(), size, before, records, layout)


def _contract(delivered: Delivered, text: Callable[[], BinaryIO]) -> Contract:
    feed = reader.infer_feed(text, delivered.feed)
    if delivered.said and feed not in (None, delivered.feed):
        raise UnreadableFile(
            f"{delivered.name}: feed={delivered.feed}: expected the fields of that feed, found only records with "
            f"those of {feed}; nothing of it was landed: land it with feed={feed}"
        )
    if feed is None:
        raise UnreadableFile(
            f"{delivered.name}: expected {', '.join(CONTRACTS)} in the name of its folder or file, or the fields of "
            "one of them, found neither; set feed=FEED"
        )
    return CONTRACTS[feed]


def _read(
    stream: BinaryIO, layout: reader.RecordPattern | None, digest: hashlib._Hash, verifiers: Executor, stop: Event
) -> int | None:
    if layout is None:
        # one buffer for the whole file: no block is copied on its way to the hash
        held = memoryview(bytearray(_BLOCK // 4))
        while not stop.is_set() and (size := cast(io.BufferedReader, stream).readinto(held)):
            digest.update(held[:size])
        return None
    records, clean = 0, True
    pending: deque[Future[int | None]] = deque()
    while not stop.is_set() and (block := stream.read(_BLOCK)):
        digest.update(block)
        if clean:
            # up to the end of the line in which the block ends: blocks of whole lines need no copying about
            # bounded: a file may have no line break at all, and a line of a block's length is too long for a record
            tail = stream.readline(_BLOCK)
            digest.update(tail)
            pending.append(verifiers.submit(_verify, block, tail, layout))
        # a file is read faster than it is matched: this bounds the blocks in memory
        while clean and len(pending) > 4:
            found = pending.popleft().result()
            clean, records = found is not None, records + (found or 0)
    for future in pending:
        found = future.result()
        clean, records = clean and found is not None, records + (found or 0)
    return records if clean else None


def _verify(block: bytes, tail: bytes, layout: reader.RecordPattern) -> int | None:
    return reader.verify(block + tail, layout)
