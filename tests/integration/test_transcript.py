"""What people see at a terminal: what every command writes on a small lake has room at 80 and at 120 columns."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
from argparse import _SubParsersAction
from collections.abc import Iterator
from pathlib import Path

import pytest

from stedi import cli
from stedi.cli import tables, terminal

LOOKS = (
    *("tables", "history machine_learning_curated", "history customers_trusted --verbose", "roles", "log", "key show"),
    *("crawl inbox", "consent", "ddl", "aws cost", "build --dry-run --full", "maintain --dry-run", "erase --list"),
    *("quarantine", "quarantine --fields", "quarantine --records", "quarantine --withheld", "audit --risk"),
    *("explain {ana}", "explain --table step_trainer_trusted --where true --role officer", "withdraw --dry-run {ana}"),
    *("query select~*~from~machine_learning_curated", "query select~*~from~customers_landing --time-zone Asia/Tokyo"),
    *("query select~*~from~quarantine --format vertical --role officer", "erase --dry-run {ana}", "dataset list"),
    *("dataset create gait --dry-run", "dataset show gait", "dataset list --stale", "dataset diff gait@1 gait@2"),
    *("dataset verify {root}/lake/releases/gait/1", "verify {root}/lake/releases/gait/1", "tag", "land nowhere"),
    *("describe machine_learning_curated", "contract machine_learning_curated", "status", "runs", "doctor"),
    "migrate --dry-run",
    *("query select", "query drop~table~quarantine", "history none", "dataset show none", "explain nobody@x.example"),
)
"""Commands that change nothing, at the end of the others; `~` stands for a blank within a word."""
WORKS = (
    *("demo --customers 20 --readings 600", "init --lake other", "land inbox", "land inbox", "build", "tag v1"),
    *("withdraw --yes --build {bo}", "dataset create gait --match nearest --window 10s", "dataset refresh gait"),
    *("dataset note gait@1 --model cnn", "report --output report.html", "audit --files --report audit.html"),
    *("export {ana} --output out", "ndjson inbox plain --rejects rejects.json", "dataset delete gait@2"),
    *("dataset recall gait@1 --output recall.json", "dataset apply-recall copy recall.json", "maintain", "repair"),
    *(
        "erase --yes {bo}",
        "adopt",
        "tag v2",
        "tag --delete v2",
        "build --full",
        "land --build inbox",
        "completion fish",
    ),
)
LAST = ("key rotate --yes --to new.key",)
UNSEEN = {"aws": ("deploy", "status", "run", "destroy"), "watch": ()}
"""Actions that need what a test has not, and a command that does not end."""


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory, sample_inbox: Path) -> Iterator[dict[tuple[str, int], str]]:
    """What each command wrote on a screen of so many columns, stderr included."""
    folder = tmp_path_factory.mktemp("s")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        shutil.copytree(sample_inbox, "inbox")
        lines = (folder / "inbox/customer/customers-0001.json").read_text().splitlines()
        ana, bo, *_ = dict.fromkeys(json.loads(line)["email"].strip() for line in lines)
        patch.setenv("STEDI_LAKE", "lake")
        shown = {}
        for width, commands in ((80, WORKS), (80, LOOKS), (120, LOOKS), (80, LAST)):
            patch.setenv("COLUMNS", str(width))
            patch.setattr(terminal, "width", lambda stream=None, width=width: width)
            for command in commands:
                if "apply-recall" in command:
                    shutil.copytree("lake/releases/gait/1", "copy")
                words = [w.format(ana=ana, bo=bo, root=".").replace("~", " ") for w in command.split()]
                raw, err = io.BytesIO(), io.StringIO()
                with contextlib.redirect_stdout(io.TextIOWrapper(raw, "utf-8")), contextlib.redirect_stderr(err):
                    cli.main(words)
                    sys.stdout.detach()  # type: ignore[union-attr]
                shown[command, width] = f"{raw.getvalue().decode()}\n{err.getvalue()}"
        yield shown


FOR_PROGRAMS = ("ddl", "contract", "completion")
"""Commands whose text other programs read, in its own lines."""


def test_no_line_is_longer_than_the_terminal(screen: dict[tuple[str, int], str]) -> None:
    longer = [
        (command, width, line)
        for (command, width), text in screen.items()
        for line in text.splitlines()
        if tables.width_of(line) > width
        and not command.startswith(("ddl", "contract", "completion"))  # texts for programs
    ]
    assert longer == []


def test_no_row_of_a_table_is_wrapped(screen: dict[tuple[str, int], str]) -> None:
    found = 0
    for text in screen.values():
        lines = text.splitlines()
        for number, rule in enumerate(lines):
            if re.fullmatch(r"-+(  -+)+", rule):
                starts = [found.start() for found in re.finditer(r"-+", rule)][1:]
                rows = [lines[number - 1]]
                for row in lines[number + 1 :]:
                    if not row or row.startswith("(") or ": " in row or "  " not in row:
                        break
                    rows.append(row)
                found += len(rows)
                for row in filter(str.isascii, rows):
                    assert all(row[at - 2 : at].strip() == "" for at in starts), (row, rule)
    assert found > 300


def test_what_has_no_room_is_said(screen: dict[tuple[str, int], str]) -> None:
    for (command, width), text in screen.items():
        if "…" in text and not command.startswith(("crawl", "ndjson")):
            assert "long values are cut" in text or "columns, " in text, (command, width)
    assert "12 columns, 5 shown" in screen["query select~*~from~customers_landing --time-zone Asia/Tokyo", 80]


def test_no_answer_is_a_failure_that_nobody_foresaw(screen: dict[tuple[str, int], str]) -> None:
    assert [(command, text) for command, text in screen.items() if "unforeseen" in text or "Traceback" in text] == []
    assert [command for command in (*WORKS, *LAST) if "stedi: " in screen[command, 80]] == []


def test_every_command_is_looked_at() -> None:
    looked = {tuple(command.split()[:2]) for command in (*WORKS, *LOOKS, *LAST)}
    for name, parser in _choices(cli.parser()).items():
        actions = [action for action in _choices(parser) if action not in UNSEEN.get(name, ())]
        assert name in UNSEEN or (name,) in {words[:1] for words in looked}
        assert {second for first, *rest in looked for second in rest if first == name} >= set(actions)


def _choices(parser: object) -> dict[str, object]:
    found = [action for action in parser._actions if isinstance(action, _SubParsersAction)]  # type: ignore[attr-defined]
    return dict(found[0].choices) if found else {}
