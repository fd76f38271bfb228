"""The feed of a file that neither its name nor its folder tells, from the fields of its first records."""

from __future__ import annotations

import io

from stedi.reader.fitting import feeds_of
from stedi.reader.framing import records
from stedi.reader.model import Limits, ParsedRecord
from stedi.records import CONTRACTS

_ENOUGH = 100


def guess_feed(head: bytes) -> str | None:
    """Returns the feed whose required fields the first records have, without regard to case.

    Args:
        head: The start of the file, decompressed; its last record may be cut.

    Returns:
        The feed's name; None if no record has all required fields of a feed, or records speak for different feeds.
    """
    feeds: set[str] = set()
    objects = 0
    for record in records(io.BytesIO(head), Limits(raw_bytes=0)):
        if isinstance(record, ParsedRecord):
            feeds |= feeds_of(record.members, CONTRACTS)
            objects += 1
            if objects == _ENOUGH:
                break
    return feeds.pop() if len(feeds) == 1 else None
