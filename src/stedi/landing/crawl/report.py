"""The result of a crawl, as values, as a JSON document, and as text for people."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stedi.landing.deliveries.local import Skipped
from stedi.schema.contracts import Reason

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One field of a feed as found.

    Attributes:
        name: The contract's name of it, else the spelling found most; masked if it is no identifier.
        spellings: How often each spelling of the name was found.
        present: Records that have it, null or not.
        missing: Records that do not.
        twice: Records that give it more than once, in whatever spelling.
        types: How many values were of each type: text, integer, instant (an integer that looks like epoch
            milliseconds), fraction (or exponent), boolean, null, object, list.
        blank: Texts of nothing but white space.
        lengths: Least and greatest number of characters of texts, or of digits of integers.
        bounds: Least and greatest value, of a contract's numbers only.
        years: First and last year of the instants.
        shapes: The commonest masked examples of texts.
    """

    name: str
    spellings: Mapping[str, int]
    present: int
    missing: int
    twice: int
    types: Mapping[str, int]
    blank: int
    lengths: tuple[int, int] | None
    bounds: tuple[float, float] | None
    years: tuple[int, int] | None
    shapes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drift:
    """One way in which a feed differs from its contract.

    Attributes:
        kind: `missing_field`, `missing_value`, `wrong_type`, `out_of_range`, `given_twice`, `spelling` or
            `unknown_field`.
        field: The field's name.
        records: How many records show it.
        costs: Whether those records would be quarantined for it.
        found: In words, without values.
    """

    kind: str
    field: str
    records: int
    costs: bool
    found: str


@dataclass(frozen=True, slots=True)
class FeedReport:
    """One feed as found.

    Attributes:
        feed: The feed, or, if it is unknown, where its files lie.
        known: Whether there is a contract for it.
        files: How many files it was found in.
        sampled: Whether some of them were not read to their end.
        seen: Records and what stood in their places.
        records: Records that could be parsed.
        rejects: How many of those seen would be quarantined, by reason.
        fields: Its fields: those of the contract first, then as met.
        drift: How it differs from its contract; empty if it does not, or there is none.
        proposal: A contract for an unknown feed, as Python text.
    """

    feed: str
    known: bool
    files: int
    sampled: bool
    seen: int
    records: int
    rejects: Mapping[Reason, int]
    fields: tuple[FieldReport, ...]
    drift: tuple[Drift, ...]
    proposal: str | None


@dataclass(frozen=True, slots=True)
class Report:
    """What a crawl found: the feeds, and what was skipped."""

    feeds: tuple[FeedReport, ...]
    skipped: tuple[Skipped, ...]

    @property
    def failed(self) -> bool:
        """Whether a file that was meant could not be read."""
        return any(item.failed for item in self.skipped)


def is_identifier(name: str) -> bool:
    """Returns whether a field's name looks like one; another may itself be somebody's data, and is not shown."""
    return _IDENTIFIER.fullmatch(name) is not None


def listing(types: Mapping[str, int]) -> str:
    """Returns types and how often each was found."""
    return ", ".join(f"{kind} {count:,}" for kind, count in types.items() if count)


def share(part: int, whole: int) -> str:
    """Returns a share in percent that says 0.0% for none only."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f}%" if not part or share >= 0.05 else "<0.1%"
