"""docs/from-glue.md is true: its commands and SQL give what it says, where the public data set is at hand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from test_docs import anchors

from lakes import REPOSITORY
from stedi import cli

PAGE = (REPOSITORY / "docs" / "from-glue.md").read_text("utf-8")
SQL = re.findall(r"^```sql\n(.*?) -- (\d+)\n```$", PAGE, re.MULTILINE | re.DOTALL)
CONSOLE = [block.splitlines() for block in re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)]


@pytest.mark.parametrize(("sql", "count"), SQL, ids=[count for _, count in SQL])
def test_a_wrong_query_gives_the_figure_that_people_find(sql: str, count: str, public_data: Path) -> None:
    con = duckdb.connect()
    for feed in ("customer", "accelerometer", "step_trainer"):
        files = f"{public_data}/{feed}/landing/*.json"
        con.sql(f"create view {feed} as select * from read_json('{files}', format = 'newline_delimited')")
    assert con.sql(sql).fetchall() == [(int(count),)]


def test_its_commands_print_what_it_shows(
    public_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "inbox").symlink_to(public_data)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    for lines in CONSOLE:
        for shown in re.split(r"^\$ ", "\n".join(lines), flags=re.MULTILINE)[1:]:
            command, *wanted = shown.splitlines()
            if command.startswith("stedi ") and not re.search(r" [|>] ", command):
                code = cli.main(shlex.split(command)[1:])
            else:
                code = subprocess.run(command, shell=True, check=False).returncode
            printed = capfd.readouterr()
            assert code == 0, (command, printed.err[-1000:])
            assert not wanted or printed.out.splitlines() == wanted, command


def test_every_symptom_has_its_section() -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors(PAGE)
    assert {int(count) for _, count in SQL} == {956, 482, 40981, 13823760, 1229430, 43681}
