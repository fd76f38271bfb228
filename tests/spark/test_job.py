"""The job that Glue runs: what it takes, what it does, what it says; and the wheel that it is installed from."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from effort import NIGHTLY
from lakes import REPOSITORY, conserved, contents
from sparks import JARS, SMALL, needs_spark
from stedi.aws import job
from stedi.lake import Lake

GLUE = ["--JOB_NAME", "lake", "--JOB_ID", "j_1", "--JOB_RUN_ID", "jr_1", "--TempDir", "s3://b/t", "--enable-metrics"]


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any], str]:
    code = job.main([str(word) for word in words])
    captured = capsys.readouterr()
    return code, json.loads(captured.out.splitlines()[-1]), captured.err


def test_one_run_lands_and_builds_and_its_last_line_says_how_much(
    tmp_path: Path, sample_inbox: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_JOURNAL", "")  # the job sets it
    words = ("--lake", tmp_path / "lake", "--inbox", sample_inbox, "--engine", "duckdb", "--journal", tmp_path / "kept")
    code, said, log = run(capsys, *GLUE, *words)
    assert code == said["exit"] == 0
    land, tables = said["land"], said["build"]["tables"]
    assert land["seen"] == land["accepted"] + land["quarantined"] + land["erased"] > 0
    assert tables["machine_learning_curated"]["rows"] > 0
    assert "--JOB_NAME" in log
    assert "jr_1" not in log
    lake = Lake.open(tmp_path / "lake")
    conserved(lake)
    assert [path.relative_to(tmp_path) for path in (tmp_path / "kept").rglob("*.json")] == [
        Path("kept", f"{lake.config.lake_id}.journal", "seen.json")
    ]
    code, said, _ = run(capsys, *words, "--do", "land,build,audit,maintain")
    assert (code, said["land"]["new"], said["build"]["run"], said["audit"]["violations"]) == (0, 0, "", 0)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "--lake"),
        (["--lake", "x"], "--inbox"),
        (["--lake", "x", "--inbox", "y", "--do", "land,dance"], "dance"),
        (["--lake", "x", "--inbox", "y", "--readings", "some"], "--readings"),
    ],
)
def test_bad_usage_is_told_and_touches_nothing(
    words: list[str], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, log = run(capsys, *words)
    assert code == said["exit"] == 2
    assert why in log
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_landed_fails_the_run_after_the_rest_is_built(
    tmp_path: Path, sample_inbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    inbox = f"{sample_inbox},{tmp_path / 'ann@x.example.json'}"
    code, said, log = run(capsys, "--lake", tmp_path / "lake", "--inbox", inbox, "--engine", "duckdb")
    assert (code, said["land"]["failed"]) == (1, 1)
    assert said["build"]["run"]
    assert "ann@x" not in log + json.dumps(said)


@needs_spark
def test_the_script_of_glue_runs_under_spark_submit(tmp_path: Path, sample_inbox: Path) -> None:
    """As on Glue, executors are processes of their own: one of two tasks, at night two as in `test_spark_verbs.py`."""
    submit = Path(sys.executable).with_name("spark-submit")
    assert JARS is not None
    alone = Lake.create(tmp_path / "alone")
    alone.land(sample_inbox)
    alone.build()
    script = Path(job.__file__).with_name("glue.py")
    command: list[str | Path] = [
        submit,
        "--master",
        f"local-cluster[{'2,1' if NIGHTLY else '1,2'},1024]",
        "--conf",
        "spark.ui.enabled=false",
        "--jars",
        ",".join(map(str, JARS)),
    ]
    here = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
    own = {**here, **SMALL, "spark.sql.shuffle.partitions": "2"}
    for name, value in own.items():
        command += ["--conf", f"{name}={value}"]
    arguments: list[str | Path] = ["--lake", tmp_path / "lake", "--inbox", sample_inbox, *GLUE, "--do", "land,build"]
    done = subprocess.run(
        [*command, script, *arguments],
        capture_output=True, text=True, timeout=300, env={**os.environ, "PYSPARK_PYTHON": sys.executable},
    )  # fmt: skip
    said = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, said["exit"]) == (0, 0), done.stderr[-2000:]
    assert "@" not in done.stdout.replace(str(tmp_path), "")
    spread = Lake.open(tmp_path / "lake")
    conserved(spread)
    assert contents(spread) == contents(alone)
    assert not list(spread.root.rglob("*.crc"))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "wheel", "--quiet", "--no-index"]
    made = subprocess.run(
        [*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", folder, REPOSITORY], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    [path] = folder.iterdir()
    return path


@pytest.mark.parametrize("version", ["3.11", "3.13"])
@pytest.mark.sample(full=1)
@pytest.mark.thorough
def test_the_wheel_installs_and_answers(version: str, wheel: Path, tmp_path: Path) -> None:
    python = shutil.which(f"python{version}")
    chosen = os.environ | {"PYENV_VERSION": version}  # where pyenv stands before several, it asks which
    ask = [str(python), "-c", "import venv, ensurepip"]
    if python is None or subprocess.run(ask, capture_output=True, env=chosen, check=False).returncode:
        pytest.skip(f"there is no Python {version} that makes environments")
    subprocess.run([python, "-m", "venv", tmp_path / "venv"], check=True, env=chosen)
    bin_ = tmp_path / "venv" / "bin"
    pip = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index", "--no-deps"]
    subprocess.run([bin_ / "python", *pip, wheel], check=True)
    shown = subprocess.run([bin_ / "stedi", "--help"], capture_output=True, text=True, check=True).stdout
    assert "COMMAND" in shown
    told = subprocess.run([bin_ / "python", "-m", "stedi.aws.job", "--help"], capture_output=True, text=True)
    assert told.returncode == 0
    assert "--key-secret" in told.stdout
