"""Infers the feed of a file from the fields of its records, if its name gives none or a wrong one.

A record fits a feed if it has all of the feed's required fields, with any values. The feed of the name is right if at
least one record of the file fits it; otherwise the first records decide.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

from stedi.landing.reader.fitting import feeds_of
from stedi.landing.reader.framing import records
from stedi.landing.reader.model import Limits, ParsedRecord
from stedi.schema.contracts import Contract
from stedi.schema.feeds import CONTRACTS

_HEAD, _MORE = 1 << 16, 16 << 20
"""Bytes of a file whose records decide its feed, and bytes to read if those decide nothing."""

_ENOUGH = 100
"""Records that are looked at, of the first bytes."""

_BLOCK = 1 << 20


def infer_feed(text: Callable[[], BinaryIO], named: str | None = None) -> str | None:
    """Returns the feed that a file's records fit.

    Args:
        text: Returns the file's decompressed text from its start. If the first records fit the named feed, only those
            are read; only a wrongly named file is read to its end.
        named: The feed from the file's name, if there is one.

    Returns:
        `named`, if a record of the file speaks for it or if it is not certain for which else they speak; otherwise the
        feed for which alone the first records speak, or None if there is none.
    """
    found = _spoken_for(io.BytesIO(text().read(_HEAD)), named, _ENOUGH)
    if not found:
        # what comes first may be unlike the rest: a header, or one record too large
        found = _spoken_for(io.BytesIO(text().read(_MORE)), named, None)
    if named in found or len(found) != 1:
        return named
    [other] = found
    return named if named is not None and _anywhere(text, CONTRACTS[named]) else other


def _spoken_for(head: BinaryIO, named: str | None, enough: int | None) -> set[str]:
    """Returns the feeds that the first records speak for; `named` alone as soon as one speaks for it."""
    feeds: set[str] = set()
    objects = 0
    for record in records(head, Limits(raw_bytes=0)):
        if isinstance(record, ParsedRecord):
            feeds |= feeds_of(record.members, CONTRACTS)
            objects += 1
            if named in feeds or objects == enough:
                break
    return {named} if named is not None and named in feeds else feeds


def _anywhere(text: Callable[[], BinaryIO], contract: Contract) -> bool:
    """Returns whether any record of a file speaks for a contract's feed."""
    missing = {field.name.lower().encode() for field in contract.required}
    longest = max(map(len, missing))
    escaped, before = False, b""
    stream = text()
    # names that do not occur in the text are in no record, and that is quickly checked
    while missing and not escaped and (block := stream.read(_BLOCK)):
        block = before + block
        # a name may lie across two blocks
        lower, before = block.lower(), block[-longest:]
        missing = {name for name in missing if name not in lower}
        # a name with escapes is not found by its letters: only parsing can tell
        escaped = b"\\u" in block
    if missing and not escaped:
        return False
    only = {contract.feed: contract}
    return any(
        isinstance(record, ParsedRecord) and feeds_of(record.members, only)
        for record in records(text(), Limits(raw_bytes=0))
    )
