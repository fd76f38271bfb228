"""The law of builds: whatever happens to a lake, its tables are those of a rebuild and of the oracle.

Cases that once broke it come first. `STEDI_NIGHTLY=1` plays 5,000 runs of a seed that it prints, and `STEDI_LAW_SEED`
plays one again; other runs are the same 200 each time. A run that breaks the law is made small and kept as a case.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import law
import law_machine
import quick
from conftest import KEY, REPOSITORY
from lakes import Slate
from law import RealLake
from law_mutants import MUTANTS, Wrong
from stedi.privacy.pseudonyms import Key

CASES = sorted((Path(__file__).parent / "cases").glob("*.jsonl"))
KEY_OF_TESTS = Key(bytes.fromhex(KEY))
NIGHTLY = os.environ.get("STEDI_NIGHTLY") == "1"
RUNS = 5_000 if NIGHTLY else 200
SEED = int(os.environ.get("STEDI_LAW_SEED", secrets.randbelow(1 << 32) if NIGHTLY else 1))
"""Read when the tests are collected: no test sees variables of this kind."""

FREQUENT = {
    "built": 600,
    "rebuilt in full": 50,
    "agreed again or later": 50,
    "withdrew": 50,
    "a current record changed and consents": 50,
    "a serial number became shared": 50,
    "a withheld reading was decided": 30,
    "an owned reading became undecided": 30,
    "a reading changed hands": 5,
    "a step found its motion later": 20,
    "a motion found its step later": 20,
    "a reading delivered again": 50,
    "a record twice in one file": 50,
    "a file landed again": 50,
    "a superseded record came late": 50,
    "a record of the same update came": 50,
    "readings came before their customer": 20,
    "the clock alone changed rows, forwards": 5,
    "the clock alone changed rows, backwards": 5,
    "the policy changed rows": 20,
}
"""How often 200 runs must at least meet what an incremental build could get wrong."""


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.stem)
def test_a_run_that_once_broke_the_law_keeps_it(case: Path) -> None:
    with quick.folder() as folder, quick.quickened():
        law.replay(law.read_case(case), RealLake(Slate(folder)), KEY_OF_TESTS, law_machine.NOW)


def test_every_build_equals_a_rebuild_and_the_oracle_and_a_second_one_does_nothing() -> None:
    shards = 2 if not NIGHTLY else max(2, os.cpu_count() or 2)
    print(f"\nSTEDI_LAW_SEED={SEED}")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "tests")])}
    command = [sys.executable, "-W", "error", str(REPOSITORY / "tests" / "law_machine.py")]
    running = [
        subprocess.Popen(
            [*command, "--runs", str(RUNS // shards), "--seed", str(SEED * shards + shard)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for shard in range(shards)
    ]  # fmt: skip
    met = Counter[str]()
    failures = []
    for process in running:
        out, errors = process.communicate()
        if process.returncode == 0:
            met.update(json.loads(out))
        else:
            failures.append(errors)
    assert not failures, f"STEDI_LAW_SEED={SEED}\n" + "\n".join(failures)
    print("\n".join(f"{count:7,} {what}" for what, count in met.most_common()))
    rare = {what: met[what] for what, least in FREQUENT.items() if met[what] < least * RUNS / 200}
    assert not rare


@pytest.mark.parametrize("name", MUTANTS)
def test_the_law_notices_a_build_of_which_it_is_true_that(name: str) -> None:
    with pytest.raises(law_machine.Failed, match="Broken"):
        law_machine.play(lambda: Wrong(MUTANTS[name], KEY_OF_TESTS), KEY_OF_TESTS, runs=200, random=SEED, shrink=False)


def test_a_right_build_keeps_the_law_without_a_lake() -> None:
    met = law_machine.play(
        lambda: Wrong(lambda before, after: after.tables(), KEY_OF_TESTS),
        KEY_OF_TESTS,
        runs=20,
        random=SEED,
        shrink=False,
    )
    assert met["built"] > 20
