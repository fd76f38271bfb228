"""How many cases the tests run, in three levels that `STEDI_TESTS` sets.

`quick` is `make test`: one case of each test, or as many as its mark `sample(quick=...)` says, and no test marked
`thorough`. `full` is `make check` (as in CI) and plain pytest: every case, or as many as `sample(full=...)` says.
`nightly` is `make nightly`: every case. Sweeps and random tests scale their number of tries with the level.
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Sequence

import pytest

LEVELS = ("quick", "full", "nightly")
LEVEL = os.environ.get("STEDI_TESTS", "full")
"""Read when the tests are collected, since no test sees variables of this kind."""
if LEVEL not in LEVELS:
    raise pytest.UsageError(f"STEDI_TESTS: expected {', '.join(LEVELS)}, found {LEVEL}")
QUICK, NIGHTLY = LEVEL == "quick", LEVEL == "nightly"
at_night = pytest.mark.skipif(not NIGHTLY, reason="make nightly runs it")
"""For a test whose claim a quicker test also checks by day."""


def tries(quick: int, full: int, nightly: int) -> int:
    """Returns the number of tries for the current level."""
    return {"quick": quick, "full": full, "nightly": nightly}[LEVEL]


def left_out(items: Sequence[pytest.Item]) -> set[pytest.Item]:
    """Returns the tests to leave out: cases beyond the sample of a test, and at level `quick` the thorough tests.

    The choice of cases is always the same, since processes that share the tests have to agree.
    """
    cases = defaultdict[str, list[pytest.Item]](list)
    for item in items:
        cases[item.nodeid.partition("[")[0]].append(item)
    waiting = {item for item in items if QUICK and item.get_closest_marker("thorough")}
    for those in cases.values():
        marked = those[0].get_closest_marker("sample")
        few = (marked.kwargs if marked else {}).get(LEVEL, 1 if QUICK else len(those))
        waiting.update(sorted(those, key=lambda item: hashlib.sha256(item.nodeid.encode()).digest())[few:])
    return waiting
