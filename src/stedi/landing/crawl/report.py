"""The result of a crawl, as values, as a JSON document, and as text for people."""

from __future__ import annotations

import re
from collections.abc import Mapping

from stedi._frozen import dataclass
from stedi.landing.deliveries.local import Skipped
from stedi.schema.contracts import Reason

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class FieldReport:
    """One field as found in a feed.

    Attributes:
        name: The name in the contract, or else the most frequent spelling; masked if it is not an identifier.
        spellings: How often each spelling of the name was found.
        present: Records that have the field, null or not.
        missing: Records that do not.
        twice: Records that have it more than once, in any spelling.
        types: How many values were of each type: text, integer, instant (an integer that looks like epoch
            milliseconds), fraction (or exponent), boolean, null, object, list.
        blank: Texts that are empty or only white space.
        lengths: Least and greatest number of characters of texts, or of digits of integers.
        bounds: Least and greatest value, only for numbers of a contract.
        years: First and last year of the instants.
        shapes: The most frequent shapes of its texts.
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
        kind: `missing_field`, `missing_value`, `wrong_type`, `out_of_range`, `invisible_character`, `given_twice`,
            `spelling` or `unknown_field`.
        field: The field's name.
        records: How many records show it.
        costs: Whether those records would be quarantined for it.
        found: What was found, as text without values.
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
        feed: The feed or, if it is unknown, where its files are.
        known: Whether there is a contract for it.
        files: How many files it was found in.
        sampled: Whether some of them were not read to their end.
        seen: Records, and values in their place that are not records.
        records: Records that could be parsed.
        rejects: How many of `seen` would be quarantined, by reason.
        fields: Its fields: the contract's first, then the others in the order found.
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
    """The result of a crawl: the feeds, and the skipped files."""

    feeds: tuple[FeedReport, ...]
    skipped: tuple[Skipped, ...]

    @property
    def failed(self) -> bool:
        """Whether a file that should have been read could not be read."""
        return any(item.failed for item in self.skipped)


def is_identifier(name: str) -> bool:
    """Returns whether a field's name is an identifier; other names may be personal data and are not shown."""
    return _IDENTIFIER.fullmatch(name) is not None


def listing(types: Mapping[str, int]) -> str:
    """Returns types and their counts as text."""
    return ", ".join(f"{kind} {count:,}" for kind, count in types.items() if count)


def share(part: int, whole: int) -> str:
    """Returns a share in percent; only zero is shown as 0.0%."""
    share = 100 * part / whole if whole else 0.0
    return f"{share:.1f}%" if not part or share >= 0.05 else "<0.1%"
