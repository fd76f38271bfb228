"""Delivered bytes in; verified newline-delimited JSON and rejected records out.

A stream is decompressed (`compression`), framed into records (`framing`, `recovery`), parsed strictly (`parsing`) and
fitted to its contract (`fitting`); clean blocks take the short cut through patterns (`layout`, `reading`). Memory is
bounded whatever the file. No engine and no table is known here.
"""

from __future__ import annotations

from stedi.reader.compression import decompressed
from stedi.reader.framing import records as iter_values
from stedi.reader.guessing import guess_feed
from stedi.reader.layout import Layout, detect_layout, read_clean, verify
from stedi.reader.model import Counts, Huge, Limits, Members, ParsedRecord, Reject
from stedi.reader.parsing import Parsed, parse_value
from stedi.reader.reading import read

__all__ = [
    "Counts",
    "Huge",
    "Layout",
    "Limits",
    "Members",
    "Parsed",
    "ParsedRecord",
    "Reject",
    "decompressed",
    "detect_layout",
    "guess_feed",
    "iter_values",
    "parse_value",
    "read",
    "read_clean",
    "verify",
]
