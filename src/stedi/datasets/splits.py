"""Which split a person is in: decided by a keyed hash, alone for people and together for those who share a device.

Groups are everybody whom shared serial numbers tie, consenting or not, erased ones included: their claims stand. The
least hash of a group, as a fraction of 2^64, falls into a split by the cumulated shares, so that nobody moves when
others come or go, nor when the lake's key is changed.
"""

from __future__ import annotations

import hmac
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate

from stedi.privacy.pseudonyms import Key

_LABEL = "stedi/split/1"


def hasher(key: Key) -> Callable[[str], int]:
    """Returns what gives the number, from 0 to 2^64, by which a person's mark is put into a split."""
    secret = key.derive(_LABEL)
    return lambda mark: int.from_bytes(hmac.digest(secret, mark.encode("ascii"), "sha256")[:8], "big")


def place(number: int, shares: Sequence[float]) -> int:
    """Returns the place of the split into whose share a number from 0 to 2^64 falls.

    Args:
        number: What `hasher` gives.
        shares: Of each split its share, percent.
    """
    bounds = list(accumulate(shares))
    last = max(at for at, share in enumerate(shares) if share > 0)
    return next((at for at, bound in enumerate(bounds[:last]) if number * 100 < bound * 2**64), last)


def groups(devices: Iterable[Iterable[str]]) -> dict[str, str]:
    """Returns who is tied to whom: from each mark that shares a device to the mark that stands for its group.

    Args:
        devices: Of each serial number the marks of all who have claimed it.
    """
    above: dict[str, str] = {}

    def top(mark: str) -> str:
        while above.setdefault(mark, mark) != mark:
            above[mark] = above[above[mark]]
            mark = above[mark]
        return mark

    for claimants in devices:
        first: str | None = None
        for mark in claimants:
            if first is None:
                first = top(mark)
            else:
                one, other = sorted((top(first), top(mark)))
                above[other] = one
    return {mark: top(mark) for mark in list(above)}


def decided(
    marks: Iterable[str],
    tied: Mapping[str, str],
    number: Callable[[str], int],
    shares: Sequence[float],
    before: Callable[[str], tuple[int, int] | None] = lambda mark: None,
) -> tuple[dict[str, int], frozenset[str]]:
    """Returns the split of each person, and who is in another one than in an earlier release.

    Args:
        marks: The people of the release.
        tied: What `groups` gives.
        number: What `hasher` gives.
        shares: Of each split its share, percent.
        before: Of a mark the first release in which that person was and the split, if there is one. A group that new
            ties have made of several keeps the split of its oldest member: of the one who was in a release first.
    """
    members = defaultdict(set)
    for mark, group in tied.items():
        members[group].add(mark)
    of_group: dict[str, int] = {}
    found: dict[str, int] = {}
    moved = set()
    for mark in marks:
        group = tied.get(mark, mark)
        if group not in of_group:
            everybody = members.get(group, {mark})
            split = place(min(map(number, everybody)), shares)
            known = [(*was, number(each)) for each in everybody if (was := before(each))] if len(everybody) > 1 else []
            if known:
                oldest = min(known, key=lambda was: (was[0], was[2]))
                split = oldest[1]
                moved |= {each for each in everybody if (was := before(each)) and was[1] != split}
            of_group[group] = split
        found[mark] = of_group[group]
    return found, frozenset(moved & found.keys())
