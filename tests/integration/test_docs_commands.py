"""What the docs tell people to type is what the programs take: every command parses, the README's and Python's run."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

import stedi
from lakes import REPOSITORY
from stedi import cli
from stedi.cli import commands
from stedi.landing import sample

PAGES = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/*.md"), *REPOSITORY.glob("examples/*.md")])
SHELL = re.compile(r"^```(?:sh|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
ENDS = {"|", "||", "&&", ";", ">", ">>", "2>", "#"}


def typed(page: Path) -> Iterator[list[str]]:
    """Yields the words of each call of `stedi` in a page's shell blocks, without what the shell does with it."""
    for block in SHELL.findall(page.read_text("utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            while "stedi" in words:
                words = words[words.index("stedi") + 1 :]
                end = next((at for at, word in enumerate(words) if word in ENDS), len(words))
                if end:  # else it is the name of a user
                    yield words[:end]


@pytest.mark.parametrize("page", [page for page in PAGES if list(typed(page))], ids=lambda page: page.name)
def test_every_command_of_a_page_is_one_that_the_parser_takes(page: Path) -> None:
    refused = [shlex.join(words) for words in typed(page) if not words[0].isupper() and not taken(words)]
    assert refused == []


def taken(words: list[str]) -> bool:
    """Says whether the parser takes these words; `...` stands for more of them."""
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            commands.parser().parse_args([word for word in words if word != "..."])
        except SystemExit as stop:
            return not stop.code
    return True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an inbox and nothing else."""
    made = tmp_path_factory.mktemp("typed")
    sample.write(made / "inbox", customers=20, readings=1_000, walkers=1, seed=3)
    return made


@pytest.fixture
def somebody(folder: Path) -> str:
    """The address of somebody who is in every table."""
    with stedi.Lake.open_or_create(folder / "lake") as lake:
        lake.land(folder / "inbox")
        lake.build()
        sql = "select min(email) from customers_curated semi join step_trainer_trusted using (customer_id)"
        [(email,)] = lake.query(sql, role="officer").fetchall()
    return str(email)


def test_the_commands_of_the_readme_run(
    folder: Path, somebody: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    section = (REPOSITORY / "README.md").read_text("utf-8").split("## Every day")[1]
    lines = SHELL.search(section)
    assert lines
    calls = [shlex.split(line, comments=True) for line in lines[1].splitlines()]
    assert len(calls) >= 12
    for _, *words in calls:
        given = [{"EMAIL": somebody, "DIR": "handed-over"}.get(word, word) for word in words]
        if given[0] in ("withdraw", "erase"):
            given.append("--yes")  # there is nobody to ask
        code = cli.main(given)
        assert code == 0, (given, capsys.readouterr().err[-500:])


def test_the_examples_of_the_python_page_run(folder: Path, somebody: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    page = (REPOSITORY / "docs" / "python.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {"stedi": stedi, "datetime": datetime, "UTC": UTC}
    for block in blocks:
        exec(
            compile(block.replace("someone@example.org", somebody), "docs/python.md", "exec"), names
        )  # the page's text
    assert {"landing", "build", "done", "masked", "named"} <= names.keys()
