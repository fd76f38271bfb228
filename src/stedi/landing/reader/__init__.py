"""Delivered bytes in; verified newline-delimited JSON and rejected records out.

A stream is decompressed and decoded (`compression`, `forms`), framed into records (`framing`, `recovery`), parsed
strictly (`parsing`) and fitted to its contract (`fitting`); clean blocks take a fast path through patterns (`layout`,
`reading`); a long text is read in `pieces`. Memory is bounded for any file. This package knows no engine and no table.
"""

from __future__ import annotations

from stedi.landing.reader.compression import decompressed, form, writer
from stedi.landing.reader.forms import Legibility, is_legible, refused
from stedi.landing.reader.framing import records as iter_values
from stedi.landing.reader.guessing import infer_feed
from stedi.landing.reader.layout import RecordPattern, detect_layout, verify
from stedi.landing.reader.model import Counts, Huge, Limits, Members, ParsedRecord, Reject
from stedi.landing.reader.parsing import Parsed, parse_value
from stedi.landing.reader.pieces import WHOLE, Astray, Piece, cut
from stedi.landing.reader.reading import read, scan
from stedi.landing.reader.units import Unit, likely

__all__ = [
    "WHOLE",
    "Astray",
    "Counts",
    "Huge",
    "Legibility",
    "Limits",
    "Members",
    "Parsed",
    "ParsedRecord",
    "Piece",
    "RecordPattern",
    "Reject",
    "Unit",
    "cut",
    "decompressed",
    "detect_layout",
    "form",
    "infer_feed",
    "is_legible",
    "iter_values",
    "likely",
    "parse_value",
    "read",
    "refused",
    "scan",
    "verify",
    "writer",
]
