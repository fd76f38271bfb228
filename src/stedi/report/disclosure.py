"""Disclosure control: no small count of people is shown, and none can be computed by subtraction.

Counts come in order of importance. One is published if it is 0 or at least the least count, and if it differs from
every published count by 0 or at least that much; so no difference of two published counts is small. One that is held
back reads "fewer than 5" where it is that small, and "not shown" where it is too near another one. Where a published
count is below twice the least one, even that would tell: then all read "not shown". Zero is no count of people, and is
published.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

NOT_SHOWN = "not shown"
Figure = int | str
"""A count, or the words that replace it."""


class Disclosure:
    """What has been published of counts that may be subtracted from one another.

    Args:
        least: The least count that is shown, 1 for all.
        seen: Counts that are published elsewhere on the page.
    """

    def __init__(self, least: int, seen: Iterable[Figure] = ()) -> None:
        self.least = least
        self._seen = {figure for figure in seen if isinstance(figure, int)}

    def figure(self, count: int) -> Figure:
        """Publishes a count and returns it, or its replacement."""
        # of any two published counts, the difference may be a count of people: those of one stage and not of the other
        if not self.small(count) and not any(self.small(abs(count - other)) for other in self._seen):
            self._seen.add(count)
            return count
        # with a published count that low, "fewer than" beside it would leave few values for the difference
        tells = any(0 < other < 2 * self.least for other in self._seen)
        return few(self.least) if self.small(count) and not tells else NOT_SHOWN

    def small(self, count: int) -> bool:
        """Returns whether a count is of people, and of too few."""
        return 0 < count < self.least


def few(least: int) -> str:
    """Returns the words for a count that is not 0 and too small to be shown."""
    return f"fewer than {least}"


def difference(one: Figure, other: Figure) -> Figure:
    """Returns what a reader may know about the difference of two published counts, by the same rules."""
    return one - other if isinstance(one, int) and isinstance(other, int) else NOT_SHOWN


def merged(
    rows: Sequence[Sequence[int]], held: Sequence[Sequence[int]], least: int, now: Sequence[int | None] = ()
) -> list[tuple[int, int]]:
    """Returns which neighbouring periods to publish as one, as first and last of each, so that none has a small count.

    A period is published once each of its flows, summed since the last published one, is 0 or large enough, and so
    is each level at its end, each difference of two levels, and each level's difference from the published ones.

    Args:
        rows: Of each period its flows: counts of people who did something in it.
        held: Of each period its levels at its end: counts of people.
        least: The least count that is shown.
        now: The levels that are published elsewhere for the present; None for one that is not.
    """

    def small(count: int) -> bool:
        return 0 < abs(count) < least

    found: list[tuple[int, int]] = []  # the remainder is not published: the present levels include it
    ends: list[Sequence[int | None]] = [now] if now else []
    start, sums = 0, [0] * (len(rows[0]) if rows else 0)
    for place, (flows, levels) in enumerate(zip(rows, held, strict=True)):
        sums = [total + flow for total, flow in zip(sums, flows, strict=True)]
        # known less consenting is a count of people, too
        gaps = [one - other for at, one in enumerate(levels) for other in levels[:at]]
        steps = [at - then for end in ends for at, then in zip(levels, end, strict=True) if then is not None]
        if not any(map(small, [*sums, *levels, *gaps, *steps])):
            found.append((start, place))
            ends.append(levels)
            start, sums = place + 1, [0] * len(sums)
    return found
