"""Proposes a contract for files that have none: fields as found -> Python text, ready for `schema.feeds`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePath

from stedi.landing.crawl.report import FieldReport, is_identifier, listing
from stedi.schema.contracts import Kind

_PLACES = {"data", "in", "inbox", "incoming", "landing", "raw"}
"""Folder names that describe a place, not the content of the files."""

_TAKES = (
    (Kind.INSTANT, {"instant"}),
    (Kind.TEXT, {"text"}),
    (Kind.INTEGER, {"instant", "integer"}),
    (Kind.NUMBER, {"fraction", "instant", "integer"}),
)
"""The types that each kind accepts, the narrowest kind first."""


def propose(place: str, fields: Sequence[FieldReport], records: int) -> str:
    """Returns a contract that all the records meet; fields that no kind accepts are listed as comments.

    Args:
        place: Where the files are; its last part that is not a generic name becomes the feed's name.
        fields: The fields as found.
        records: The number of records.
    """
    words = [re.sub(r"[^a-z0-9]+", "_", part.lower()).strip("_") for part in reversed(PurePath(place).parts)]
    feed = next((word for word in words if word and word not in _PLACES), "feed")
    lines = ["Contract(", f'    feed="{feed}",', f'    table="{feed}_landing",', "    fields=("]
    comments = []
    for found in fields:
        kind = kind_of(found)
        if kind is None or not is_identifier(found.name):
            comments.append(f"# {found.name}: {listing(found.types)}; no kind takes it, it would be kept in `_extra`")
            continue
        blank = kind is Kind.TEXT and found.blank
        required = found.present == records and not (blank or found.twice or found.types.get("null"))
        lines.append(f'        Field("{found.name}", Kind.{kind.name}{"" if required else ", required=False"}),')
    return "\n".join([*lines, "    ),", ")", *comments])


def kind_of(found: FieldReport) -> Kind | None:
    """Returns the narrowest kind that accepts all values of a field except nulls; None if none does."""
    types = {kind for kind, count in found.types.items() if count and kind != "null"}
    return next((kind for kind, takes in _TAKES if types and types <= takes), None)
