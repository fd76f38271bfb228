"""Every example runs, as its first lines say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from lakes import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("examples")


@pytest.fixture(scope="module")
def environment(folder: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "STEDI_KEY_FILE": str(folder / "example.key")}


@pytest.fixture(scope="module")
def quickstart(folder: Path, environment: dict[str, str]) -> str:
    return run([sys.executable, EXAMPLES / "quickstart.py", folder], environment)


def run(command: list[str | Path], environment: dict[str, str]) -> str:
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_quickstart_ends_with_a_data_frame(quickstart: str) -> None:
    assert "built 5 tables" in quickstart
    assert "customer_id" in quickstart


def test_nightly_exports_the_training_table(
    quickstart: str, folder: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    run([EXAMPLES / "nightly.sh", folder / "inbox", folder / "lake", tmp_path], environment)
    [exported] = tmp_path.iterdir()
    assert exported.suffix == ".parquet"


def test_other_readers_find_the_same_table(quickstart: str, folder: Path, environment: dict[str, str]) -> None:
    output = run([sys.executable, EXAMPLES / "other_readers.py", folder / "lake"], environment)
    assert "built by" in output
    assert "customers" in output


@pytest.mark.thorough
def test_the_step_detector_beats_both_baselines_on_people_it_has_never_seen(
    environment: dict[str, str], tmp_path: Path
) -> None:
    alone = {**environment, "OMP_NUM_THREADS": "1", "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    (tmp_path / "example").mkdir()
    output = run([sys.executable, EXAMPLES / "train_step_detector.py", tmp_path / "example", "15"], alone)
    rows = {
        line.split()[0]: [float(number) for number in re.findall(r"([\d.]+) \[", line)]
        for line in output.splitlines()
        if line.startswith(("majority", "threshold", "model"))
    }
    (scored, off), majority, threshold = rows["model"], rows["majority"], rows["threshold"]
    assert scored > 0.9
    for other_score, other_off in (majority, threshold):
        assert scored > other_score
        assert off < other_off
    table = output[: output.index("drawn:")]
    assert max(map(len, table.splitlines())) <= 80
    assert (tmp_path / "example" / "step_detector.png").read_bytes().startswith(b"\x89PNG")


def test_every_example_is_listed_and_tested() -> None:
    listed, tested = (EXAMPLES / "README.md").read_text("utf-8"), Path(__file__).read_text("utf-8")
    for path in EXAMPLES.iterdir():
        assert path.name == "README.md" or (path.name in listed and path.name in tested), path.name
