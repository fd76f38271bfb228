"""What `deploy/` holds calls commands that there are, as a user without rights, and holds where it can be tried."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakes import REPOSITORY
from stedi import cli

DEPLOY = REPOSITORY / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def calls() -> Iterator[str]:
    """Every call of the command in `deploy/`, and in the recipes of the page."""
    for unit in UNITS:
        yield from re.findall(r"^ExecStart=-?/opt/stedi/bin/stedi (.*)$", unit.read_text(), re.MULTILINE)
    cron = (DEPLOY / "stedi.cron").read_text().rpartition(" stedi stedi ")[2]
    yield from (part.strip().removeprefix("stedi ") for part in re.split(r";|&&", cron))
    page = (
        (REPOSITORY / "docs" / "operations.md").read_text("utf-8").partition("### Schedulers")[2].partition("\n## ")[0]
    )
    yield from re.findall(r'bash_command="stedi (.*)"', page)
    yield from (" ".join(re.findall(r'"([^"]+)"', words)) for words in re.findall(r'\["stedi", (.*?)\]', page))


@pytest.mark.parametrize("words", sorted(set(calls())))
def test_every_call_is_one_that_the_command_line_takes(words: str) -> None:
    cli.parser().parse_args(shlex.split(words))


def test_there_are_calls_of_every_kind() -> None:
    assert {words.split()[0] for words in calls()} >= {"land", "build", "maintain", "audit", "status", "watch"}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.stem)
def test_a_unit_runs_without_rights_and_keeps_the_key_out_of_the_lake(unit: Path) -> None:
    text = unit.read_text()
    lines = set(text.splitlines())
    assert {"User=stedi", "NoNewPrivileges=yes", "ProtectSystem=strict", "ProtectHome=yes", "UMask=0077"} <= lines
    assert "LoadCredential=stedi.key:/etc/stedi/stedi.key" in lines
    assert "Environment=STEDI_JOURNAL=/var/lib/stedi/journal" in lines


def test_the_image_has_a_user_of_its_own_and_no_build_tools() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    last = text.rpartition("\nFROM ")[2]
    assert "\nUSER 10001:10001\n" in last
    assert "apt-get" not in last
    assert "pip uninstall --yes pip" in last
    assert "--require-hashes" in text


@pytest.mark.skipif(sys.platform != "linux", reason="systemd and mounts are Linux's")
def test_what_can_be_tried_on_this_machine_holds() -> None:
    done = subprocess.run([DEPLOY / "try"], capture_output=True, text=True, check=False, timeout=300)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not re.search("Unknown|Failed|not executable", done.stderr), done.stderr
