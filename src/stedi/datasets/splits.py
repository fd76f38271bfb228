"""Splits of people by a keyed hash; people who share a device are in the same split.

A group is everybody connected by shared serial numbers, consenting or not, including erased people, whose claims
remain. The least hash of a group, as a fraction of 2^64, falls into a split by the cumulated shares, so that nobody
moves when others come or go, nor when the lake's key is changed.
"""

from __future__ import annotations

import hmac
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from stedi.privacy.pseudonyms import Key

_LABEL = "stedi/split/1"
_PEOPLE = "\0people"
"""Counts people as if it were a label; no label has the sign."""


def hasher(key: Key) -> Callable[[str], int]:
    """Returns what gives the number, from 0 to 2^64, by which a person's mark is put into a split."""
    secret = key.derive(_LABEL)
    return lambda mark: int.from_bytes(hmac.digest(secret, mark.encode("ascii"), "sha256")[:8], "big")


def place(number: int, shares: Sequence[float]) -> int:
    """Returns the position of the split for a number from 0 to 2^64.

    Args:
        number: What `hasher` gives.
        shares: Of each split its share, percent.
    """
    bounds = list(accumulate(shares))
    # the last split with a share takes all the rest: shares such as 33.3 need not add up to 100 exactly in binary
    last = max(at for at, share in enumerate(shares) if share > 0)
    # multiplied, not divided: Python compares an integer with a double exactly, and a quotient would be rounded first
    return next((at for at, bound in enumerate(bounds[:last]) if number * 100 < bound * 2**64), last)


def groups(devices: Iterable[Iterable[str]]) -> dict[str, str]:
    """Returns the groups: for each mark that shares a device, the mark that represents its group.

    Args:
        devices: For each serial number, the marks of everybody who has claimed it.
    """
    above: dict[str, str] = {}

    def top(mark: str) -> str:
        while above.setdefault(mark, mark) != mark:
            # half of the way is left out each time (union-find), so that long chains stay cheap
            above[mark] = above[above[mark]]
            mark = above[mark]
        return mark

    for claimants in devices:
        first: str | None = None
        for mark in claimants:
            if first is None:
                first = top(mark)
            else:
                # the smaller mark represents, so that the order of the devices does not matter
                one, other = sorted((top(first), top(mark)))
                above[other] = one
    return {mark: top(mark) for mark in list(above)}


def decided(
    marks: Iterable[str],
    tied: Mapping[str, str],
    number: Callable[[str], int],
    shares: Sequence[float],
    before: Callable[[str], tuple[int, int] | None] = lambda mark: None,
    amounts: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[dict[str, int], frozenset[str]]:
    """Returns the split of each person, and the people whose split differs from an earlier release.

    Args:
        marks: The people of the release.
        tied: As returned by `groups`.
        number: What `hasher` gives.
        shares: Of each split its share, percent.
        before: Of a mark the first release in which that person was and the split, if there is one. A group that new
            ties have made of several keeps the split of its oldest member: of the one who was in a release first.
        amounts: How much of each label a person has; None to split by the hash alone. With it people who were in an
            earlier release stay where they were, and others go where labels are missing.
    """
    members = defaultdict(set)
    for mark, group in tied.items():
        members[group].add(mark)
    of_mark = {mark: tied.get(mark, mark) for mark in marks}
    everybody = {group: members.get(group, {group}) for group in of_mark.values()}
    of_group: dict[str, int] = {}
    moved = set()
    for group, people in everybody.items():
        # for a person without a group the hash is as before
        asked = people if len(people) > 1 or amounts is not None else ()
        known = {mark: was for mark in asked if (was := before(mark))}
        if known:
            # whoever was handed out first: their earlier releases cannot be taken back
            oldest = min(known, key=lambda mark: (known[mark][0], number(mark)))
            of_group[group] = known[oldest][1]
            moved |= {mark for mark, was in known.items() if was[1] != of_group[group]}
        elif amounts is None:
            of_group[group] = place(min(map(number, people)), shares)
    if amounts is not None:
        of_groups: dict[str, Counter[str]] = defaultdict(Counter)
        for mark, group in of_mark.items():
            of_groups[group].update(amounts.get(mark, {}))
            of_groups[group][_PEOPLE] += 1
        of_group = _stratified(
            of_groups, of_group, {g: min(map(number, people)) for g, people in everybody.items()}, shares
        )
    return {mark: of_group[group] for mark, group in of_mark.items()}, frozenset(moved & of_mark.keys())


def _stratified(
    amounts: Mapping[str, Mapping[str, float]],
    kept: Mapping[str, int],
    numbers: Mapping[str, int],
    shares: Sequence[float],
) -> dict[str, int]:
    """Returns the split of each group: the large ones first, each where it brings the labels nearest to the shares."""
    totals: Counter[str] = Counter()
    for of_group in amounts.values():
        totals.update(of_group)
    have: list[Counter[str]] = [Counter() for _ in shares]
    found = dict(kept)
    given: Counter[str] = Counter()
    for group, split in kept.items():
        have[split].update(amounts[group])
        given.update(amounts[group])
    sizes = {group: sum(n / totals[label] for label, n in of.items() if n) for group, of in amounts.items()}
    # the large ones first, while the small ones can still make up for them
    for group in sorted(amounts.keys() - kept.keys(), key=lambda group: (-sizes[group], numbers[group])):

        def farther(split: int, of: Mapping[str, float] = amounts[group]) -> float:
            """How much farther a split is with the group than without it from its share of what has been given out."""
            # of a label the split has h, the group adds n, and s is the split's share of what has then been given out:
            # (h + n - s)^2 - (h - s)^2 = n (2 (h - s) + n), in shares of all there is of the label
            return sum(
                n
                / (all_ := totals[label])
                * (2 * (have[split][label] - shares[split] / 100 * (given[label] + n)) / all_ + n / all_)
                for label, n in of.items()
                if n
            )

        # an equal distance goes to the first split, so that the same people give the same splits
        split = min((at for at, share in enumerate(shares) if share > 0), key=farther)
        have[split].update(amounts[group])
        given.update(amounts[group])
        found[group] = split
    return found
