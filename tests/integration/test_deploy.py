"""What `deploy/` holds calls commands that there are, as a user without rights, and holds where it can be tried."""

from __future__ import annotations

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from deliveries import customer, deliver
from lakes import REPOSITORY
from stedi import cli

DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def recipes() -> list[str]:
    """The Python blocks of the page's part on schedulers: Airflow's and Dagster's."""
    page = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
    part = page.partition("### Schedulers")[2].partition("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)


def calls() -> Iterator[str]:
    """Every call of the command in `deploy/`, and in the recipes of the page."""
    for unit in UNITS:
        yield from re.findall(r"^ExecStart=-?/opt/stedi/bin/stedi (.*)$", unit.read_text(), re.MULTILINE)
    cron = (DEPLOY / "stedi.cron").read_text().rpartition(" stedi stedi ")[2]
    yield from (part.strip().removeprefix("stedi ") for part in re.split(r";|&&", cron))
    page = "\n".join(recipes())
    yield from re.findall(r'bash_command="stedi (.*)"', page)
    yield from (" ".join(re.findall(r'"([^"]+)"', words)) for words in re.findall(r'\["stedi", (.*?)\]', page))


@pytest.mark.parametrize("words", sorted(set(calls())))
def test_every_call_is_one_that_the_command_line_takes(words: str) -> None:
    cli.parser().parse_args(shlex.split(words))


def test_there_are_calls_of_every_kind() -> None:
    assert {words.split()[0] for words in calls()} >= {"land", "build", "maintain", "audit", "status", "watch"}


def test_the_recipe_for_dagster_lands_builds_and_checks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dagster itself is not installed: a stand-in calls the functions as it does."""
    stand_in = ModuleType("dagster")
    vars(stand_in).update(
        asset=lambda function: function,
        asset_check=lambda asset: lambda function: function,
        MaterializeResult=SimpleNamespace,
        AssetCheckResult=SimpleNamespace,
    )
    monkeypatch.setitem(sys.modules, "dagster", stand_in)
    monkeypatch.setenv("STEDI_LAKE", str(tmp_path / "lake"))
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    deliver(tmp_path / "inbox", "customer", [customer()])
    names: dict[str, Any] = {}
    [source] = [block for block in recipes() if "import dagster" in block]
    exec(compile(source.replace("/srv/stedi/inbox", str(tmp_path / "inbox")), "docs/operations.md", "exec"), names)
    made = names["machine_learning_curated"]().metadata["build"]["tables"]
    assert {table["name"]: table["rows"] for table in made}["customers_trusted"] == 1
    found = names["healthy"]()
    assert found.passed
    assert found.metadata["late"] == []


def test_the_recipe_for_airflow_is_python_with_a_task_for_each_command() -> None:
    [source] = [block for block in recipes() if "airflow" in block]
    tree = ast.parse(source)
    tasks = [node.targets[0].id for node in ast.walk(tree) if isinstance(node, ast.Assign)]  # type: ignore[attr-defined]
    assert tasks == ["land", "build", "maintain", "check"]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_without_rights_and_keeps_the_key_out_of_the_lake(unit: Path) -> None:
    text = unit.read_text()
    lines = set(text.splitlines())
    assert {"User=stedi", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "UMask=0077"} <= lines
    assert "LoadCredential=stedi.key:/etc/stedi/stedi.key" in lines
    assert "Environment=STEDI_JOURNAL=/var/lib/stedi/journal" in lines


def test_the_image_has_a_user_of_its_own_and_no_build_tools() -> None:
    """What is built without them is looked at by `deploy/try image`."""
    text = (DEPLOY / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    assert re.findall(r"apt-get install .*--no-install-recommends (.*) \\", last) == ["ca-certificates python3"]
    assert "pip" not in last


def test_what_the_image_installs_is_locked_by_hashes() -> None:
    installed = re.findall(r"/pip install (.*?) ?\\?$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    assert len(installed) == 2
    assert all({"--require-hashes", "--no-index"} & set(words.split()) for words in installed), installed


def test_cron_runs_the_night_that_systemd_runs() -> None:
    cron = (DEPLOY / "stedi.cron").read_text().rpartition(" stedi stedi ")[2]
    unit = (DEPLOY / "systemd" / "stedi-nightly.service").read_text()
    night = re.findall(r"^ExecStart=-?/opt/stedi/bin/stedi (\w+)", unit, re.MULTILINE)
    assert [part.removeprefix("stedi ").split()[0] for part in re.split(r"; | && ", cron)] == night


@pytest.mark.parametrize(
    ("part", "lacks"), [("image", "neither Docker nor Podman"), ("systemd", "must be root|no mmdeb")]
)
def test_a_part_that_this_machine_cannot_try_says_what_it_lacks(tmp_path: Path, part: str, lacks: str) -> None:
    for tool in ("bash", "dirname", "id", "mktemp", "realpath", "rm"):
        (tmp_path / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run(
        [tmp_path / "bash", DEPLOY / "try", part],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(lacks, done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="systemd and mounts are Linux's")
def test_what_can_be_tried_on_this_machine_holds() -> None:
    done = subprocess.run([DEPLOY / "try"], capture_output=True, text=True, check=False, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("Unknown|Failed|not executable", done.stderr), done.stderr
