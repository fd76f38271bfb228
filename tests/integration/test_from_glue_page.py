"""docs/from-glue.md is true: its commands and SQL give what it says, where the public data set is at hand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from test_docs import anchors

from lakes import REPOSITORY

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


def test_its_commands_print_what_it_shows(public_data: Path, tmp_path: Path) -> None:
    (tmp_path / "inbox").symlink_to(public_data)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "HOME": str(tmp_path)}
    for lines in CONSOLE:
        while lines:
            command = lines.pop(0)
            assert command.startswith("$ ")
            wanted = []
            while lines and not lines[0].startswith("$ "):
                wanted.append(lines.pop(0))
            done = subprocess.run(
                command[2:], shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, (command, done.stderr[-1000:])
            if wanted:
                assert done.stdout.splitlines() == wanted, command


def test_every_symptom_has_its_section() -> None:
    assert set(re.findall(r"\]\(#([\w-]+)\)", PAGE)) <= anchors(PAGE)
    assert {int(count) for _, count in SQL} == {956, 482, 40981, 13823760, 1229430, 43681}
