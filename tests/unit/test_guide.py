"""What a newcomer reads: the list of commands, each command's help, and what a call that is off is told."""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
from collections.abc import Iterator

import pytest

from stedi import cli
from stedi.cli import completion, guide


def parsers(parser: argparse.ArgumentParser | None = None) -> Iterator[argparse.ArgumentParser]:
    """Yields the parser of every command and action."""
    parser = parser or cli.parser()
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                yield sub
                yield from parsers(sub)


NAMES = [parser.prog.partition(" ")[2] for parser in parsers()]


def said(words: str, capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    with pytest.raises(SystemExit):
        cli.main(shlex.split(words))
    return capsys.readouterr()


@pytest.mark.parametrize("name", NAMES)
def test_every_help_says_why_and_has_two_examples_that_can_be_typed(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    entry = guide.entry(name)
    assert entry is not None, f"cli/guide.py has no entry of {name}"
    out, _ = said(f"{name} --help", capsys)
    assert " ".join(entry.why.split()) in " ".join(out.split())
    assert max(map(len, out.splitlines())) <= 80
    for example in entry.examples:
        assert f"\n  stedi {example}\n" in out
        assert cli.parser().parse_args(shlex.split(example)).parser.prog.startswith(f"stedi {name}")
    assert len(set(entry.examples)) == 2


def test_the_list_of_commands_has_all_of_them_in_groups_and_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out, _ = said("--help", capsys)
    _, alone = said("", capsys)
    assert out.strip() in alone
    assert max(map(len, out.splitlines())) <= 80
    listed = re.findall(r"^    ([a-z]+)", out, re.MULTILINE)
    assert sorted(listed) == sorted(name for name in NAMES if " " not in name)
    titles = re.findall(r"^(\S.*):$", out, re.MULTILINE)
    assert titles == [*guide.GROUPS, "options"]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        ("biuld", "did you mean `build`?"),
        ("--lake x quarantin", "did you mean `quarantine`?"),
        ("dataset lst", "did you mean `list`?"),
        ("build --ful", "did you mean `--full`?"),
        ("query x --format parket", "did you mean `parquet`?"),
        ("log --since yesterday", "expected an ISO 8601 time such as 2026-11-30T12:00Z, found 'yesterday'"),
        ("watch x --once", "no option --once\n"),  # two dashes make it no more like --json
        ("frobnicate", "`stedi --help` lists them"),
        ("--full build", "expected --full after the command, found it before: `stedi build --full ...`"),
        ("--metrics-file x build", "found --metrics-file before it: `stedi COMMAND --metrics-file ...`"),
        ("tables more", "expected no further argument"),
    ],
)
def test_a_word_that_is_off_is_told_what_was_meant(words: str, meant: str, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = said(words, capsys)
    assert out == ""
    assert meant in err


def test_an_address_in_a_call_that_is_off_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ("ana@x.example", "tables ana@x.example", "build --ana@x.example", "query x --format ana@x.example"):
        assert "ana" not in said(words, capsys)[1]


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_names_commands_actions_and_options(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in ("quarantine", "apply-recall", "safe-for-spreadsheets"))
    if shell == "bash":
        asked = "COMP_WORDS=(stedi build --d); COMP_CWORD=2; _shtab_stedi; echo ${COMPREPLY[@]}"
        done = subprocess.run(["bash", "-c", f"{script}\n{asked}"], capture_output=True, text=True, check=True)
        assert done.stdout == "--dry-run\n"
