"""The samples by day of the sweeps notice what the whole sweeps are there to notice: a product that is wrong there."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import sweep_mutants
from effort import at_night
from lakes import REPOSITORY
from sweep_mutants import SWEEPS


@at_night
@pytest.mark.parametrize(
    ("tests", "mutant"),
    [
        pytest.param(tests, mutant.__name__.strip("_"), id=f"{sweep}-{mutant.__name__.strip('_')}")
        for sweep, (tests, mutants) in SWEEPS.items()
        for mutant in mutants
    ],
)
def test_by_day_a_sample_notices(tests: tuple[str, ...], mutant: str) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("STEDI_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests],
        cwd=REPOSITORY,
        env=environment | {sweep_mutants.VARIABLE: mutant},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout[-3000:]
    assert "1 failed" in done.stdout
