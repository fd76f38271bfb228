"""No count of people below the least one can be got from what the report publishes, whoever knows how it is chosen."""

from __future__ import annotations

from collections import defaultdict
from itertools import combinations_with_replacement, pairwise, product

import pytest

from stedi.report.disclosure import Disclosure, Figure, difference, merged


def published(counts: tuple[int, ...], least: int) -> tuple[Figure, ...]:
    """What a page says of a chain of counts: each of them, and the difference of neighbours."""
    pool = Disclosure(least)
    figures = [pool.figure(count) for count in counts]
    return (*figures, *(difference(one, other) for one, other in pairwise(figures)))


@pytest.mark.parametrize(("least", "most", "length"), [(5, 22, 4), (3, 12, 5)])
def test_whoever_knows_the_rule_cannot_tell_a_small_count(least: int, most: int, length: int) -> None:
    """Every world is tried: those that look alike on the page never agree in a count that is small."""
    alike: dict[tuple[Figure, ...], list[tuple[int, ...]]] = defaultdict(list)
    for counts in combinations_with_replacement(range(most, -1, -1), length):
        alike[published(counts, least)].append(counts)
    for page, worlds in alike.items():
        for places in [*((place,) for place in range(length)), *((at, at + 1) for at in range(length - 1))]:
            told = {abs(world[places[0]] - (world[places[1]] if len(places) > 1 else 0)) for world in worlds}
            if max(told) < most - 2 * least:  # at the edge of what is tried, worlds are missing
                assert len(told) > 1 or not 0 < min(told) < least, f"{worlds} all look like {page}"


def test_no_two_published_counts_differ_by_a_small_one() -> None:
    for counts in product(range(0, 16, 3), range(12), range(0, 30, 4)):
        pool = Disclosure(5)
        shown = [found for found in map(pool.figure, counts) if isinstance(found, int)]
        assert not [1 for one in shown for other in shown if 0 < abs(one - other) < 5]
        assert not [1 for one in shown if 0 < one < 5]


def test_a_least_count_of_one_shows_everything() -> None:
    assert [Disclosure(1).figure(count) for count in range(9)] == list(range(9))


def test_small_counts_are_called_fewer_than_the_least() -> None:
    pool = Disclosure(5)
    assert [pool.figure(count) for count in (255, 133, 131, 4, 0)] == [255, 133, "not shown", "fewer than 5", 0]


def test_periods_are_merged_until_no_flow_and_no_level_tells() -> None:
    flows = [(6, 0), (2, 0), (4, 1), (0, 5), (9, 0), (1, 0)]
    levels = [(6,), (8,), (11,), (6,), (15,), (16,)]
    assert merged(flows, levels, 5) == [(0, 0), (1, 3), (4, 4)]
    assert merged(flows, levels, 5, [16]) == [(0, 0), (1, 3), (4, 5)]
    assert merged(flows, levels, 5, [None]) == [(0, 0), (1, 3), (4, 4)]
    assert merged([], [], 5) == []
