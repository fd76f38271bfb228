"""What people and scripts see: progress, messages, and answers that any locale and any path leave valid."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import unicodedata
from datetime import UTC, datetime
from pathlib import Path

import pytest

from stedi import Lake, cli
from stedi.cli import render, terminal
from stedi.errors import LakeError


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(scope="module")
def empty_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which nothing has landed."""
    return Lake.create(tmp_path_factory.mktemp("lakes") / "lake").root


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def shown(screen: io.StringIO) -> list[str]:
    return [text for text in screen.getvalue().split("\r\x1b[K") if text]


def test_a_long_step_is_cut_in_its_words_and_not_in_its_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    monkeypatch.setenv("COLUMNS", "60")
    progress = terminal.Progress(clock := Hand())
    for what in (
        "rebuild a_table_of_quite_a_long_name, 2 of 5: first time",
        "rebuild short, 3 of 5: a reason that is dropped",
    ):
        clock.now += 2
        progress(what, None)
    progress.close()
    assert shown(screen) == [
        "rebuild a_table_o…, 2 of 5  [##        ]  20%  0:02 elapsed",
        "rebuild short, 3 of 5  [####      ]  40%  0:04 elapsed",
    ]


def test_progress_wraps_on_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    monkeypatch.setenv("COLUMNS", "30")
    progress = terminal.Progress(clock := Hand())
    for number in (1, 2):
        clock.now += 2
        progress(f"rebuild a_table_of_quite_a_long_name, {number} of 5: first time", None)
    progress.close()
    assert shown(screen)[1].startswith("…, 2 of 5  [##")
    assert max(map(len, shown(screen))) < 30


def test_an_instant_has_one_form_for_people_and_one_for_machines() -> None:
    for given, exact in ((0, "000"), (913_000, "913"), (913_456, "913")):
        at = datetime(2026, 11, 30, 0, 19, 20, given, tzinfo=UTC)
        assert render.instant(at) == f"2026-11-30T00:19:20.{exact}Z"
        assert render.moment(at) == "2026-11-30 00:19:20Z"


def test_progress_tells_what_how_much_since_when_and_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    progress = terminal.Progress(clock := Hand())
    for seconds, done in ((0, 0), (5, 18), (10, 36), (20, 72)):
        clock.now = 100 + seconds
        progress(f"read and check, {done} of 72 files", done / 72)
    clock.now = 125
    progress("rebuild customers_trusted, 2 of 5: first time", None)
    clock.now = 3_800
    progress("commit", None)
    progress.close()
    assert shown(screen) == [
        "read and check, 18 of 72 files  [##        ]  25%  0:05 elapsed  0:15 left",
        "read and check, 36 of 72 files  [#####     ]  50%  0:10 elapsed  0:10 left",
        "read and check, 72 of 72 files  [##########] 100%  0:20 elapsed  0:00 left",
        "rebuild customers_trusted, 2 of 5: first time  [##        ]  20%  0:25 elapsed",
        "commit  1:01:40 elapsed",
    ]
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_what_is_done_within_a_second_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    progress = terminal.Progress(Hand())
    progress("read", 0.5)
    progress("commit", None)
    progress.close()
    assert screen.getvalue() == ""


def test_a_step_that_tells_nothing_is_shown_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    progress = terminal.Progress(clock := Hand())
    progress("query", None)
    clock.now += 65
    for _ in range(100):
        time.sleep(0.02)
        if screen.getvalue():
            break
    progress.close()
    assert shown(screen)[0] == "query  1:05 elapsed"


def test_a_message_takes_the_place_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    progress = terminal.Progress(clock := Hand())
    clock.now += 2
    progress("read", 0.5)
    progress.close()
    terminal.say("it failed")
    clock.now += 2
    progress.show()
    assert screen.getvalue().endswith("\r\x1b[Kit failed\n")


def test_where_a_command_fails_its_bar_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", screen := Screen())
    progress = terminal.Progress(clock := Hand())

    def fail() -> None:
        with progress:
            clock.now += 2
            progress("read", 0.5)
            raise LakeError("it failed")

    with pytest.raises(LakeError):
        fail()
    clock.now += 2
    progress.show()
    assert screen.getvalue().endswith("\r\x1b[K")


def test_progress_is_a_line_a_minute_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", log := io.StringIO())
    progress = terminal.Progress(clock := Hand())
    progress("read", 0.0)
    for _ in range(150):
        clock.now += 1
        progress("read", (clock.now - 100) / 200)
    progress.close()
    assert log.getvalue() == "read, 30%, 1:00 elapsed, 2:20 left\nread, 60%, 2:00 elapsed, 1:20 left\n"


@pytest.mark.parametrize(
    ("when", "is_terminal", "variable", "expected"),
    [
        ("auto", True, {}, True),
        ("auto", False, {}, False),
        ("auto", True, {"NO_COLOR": "1"}, False),
        ("auto", True, {"NO_COLOR": ""}, True),
        ("auto", True, {"TERM": "dumb"}, False),
        ("always", False, {"NO_COLOR": "1"}, True),
        ("never", True, {}, False),
    ],
)
def test_colours_are_for_terminals_unless_somebody_says_otherwise(
    when: str, is_terminal: bool, variable: dict[str, str], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", out := Screen() if is_terminal else io.StringIO())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    terminal.colour(when)
    try:
        terminal.table(("name", "rows"), [("a", 1)])
    finally:
        terminal.colour("auto")
    plain = "name  rows\n----  ----\na        1\n"
    assert (out.getvalue() != plain) == expected
    assert re.sub(r"\x1b\[\d*m", "", out.getvalue()) == plain


class Hung(Screen):
    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override] # as TextIOBase has it
        raise OSError(5, "Input/output error")


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stdin", [None, closed(), io.StringIO(), Screen(), Screen("no\n"), Hung()])
@pytest.mark.parametrize("words", [["withdraw", "a@x.example"], ["erase", "a@x.example"], ["query", "-"],
                                   ["withdraw", "-"], ["erase", "--yes", "-"], ["erase", "--yes", "--file", "-"],
                                   ["explain", "-"]])  # fmt: skip
def test_a_command_that_nobody_answers_is_refused_in_a_sentence(
    words: list[str],
    stdin: io.StringIO | None,
    empty_lake: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stdin", stdin)
    assert cli.main(["--lake", str(empty_lake), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "unforeseen" not in said


def test_what_a_terminal_would_act_upon_is_escaped() -> None:
    evil = "\x1b]0;owned\x07\x1b[2J\r\n\t\x00\x9b31m\u202e\u2028 é".encode() + b"\xff"
    assert terminal.escaped(evil).isprintable()
    assert terminal.escaped(evil).endswith("\\u202e\\u2028 é\\xff")


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_a_document_is_valid_whatever_stdout_can_encode(encoding: str, tmp_path: Path) -> None:
    command: list[str | bytes] = [sys.executable, "-m", "stedi.cli", "--json", "--lake", b"\xff \xce\xa9", "tables"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert b"Traceback" not in done.stderr
    message = json.loads(done.stdout.decode(encoding))["error"]["message"]
    assert message.startswith("\udcff Ω: expected a lake")


def test_a_letter_that_the_locale_lacks_is_no_failure(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "stedi.cli", "--lake", "Ω", "init"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, cwd=tmp_path, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"made ")
    assert b"\\u03a9\n" in done.stdout


EVERY = [
    chr(code) for code in (*range(0x3000), *range(0xD800, 0xD810), *range(0xE000, 0xE010), *range(0xFE00, 0x10000))
]


@pytest.mark.parametrize("way", ["line", "say", "table", "document", "escaped"])
def test_no_character_that_steers_a_terminal_or_hides_leaves_by_any_way(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdout", out := io.StringIO())
    monkeypatch.setattr("sys.stderr", err := io.StringIO())
    text = "".join(EVERY)
    match way:
        case "line":
            terminal.line(text)
        case "say":
            terminal.say(text)
        case "table":
            for start in range(0, len(text), 50):
                terminal.table((text[start : start + 9],), [(text[start : start + 50],)])
        case "document":
            terminal.document({text: [text]})
            assert json.loads(out.getvalue()) == {text: [text]}
        case "escaped":
            out.write(terminal.escaped(text.encode("utf-8", "surrogatepass")))
    shown = out.getvalue() + err.getvalue()
    steering = {c for c in shown if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")}
    assert steering <= {"\n", "\t"}
    assert not set(shown) & set("\u034f\u115f\u1160\u2800\ufe0f\uffa0")
    assert "é" in shown


def test_messages_of_verbs_are_said_in_the_words_of_the_command_line() -> None:
    said = "found another; exact=True takes it as delivered, feed=customer lands it"
    assert terminal.worded(said) == "found another; --exact takes it as delivered, --feed customer lands it"


@pytest.mark.parametrize(
    ("said", "column"),
    [("word " * 20, None), ("a" * 30 + " and more " * 3, 20), (" " * 60, 4), ("first\n" + " " * 60, None)],
    ids=["words", "a long word at a column", "blanks", "blanks below"],
)
def test_a_line_too_long_for_the_terminal_continues_below(
    said: str, column: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Screen()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr("sys.stdout", screen)
    terminal.line(said, column)
    shown = screen.getvalue()
    assert shown.split() == said.split()
    assert max(map(len, shown.splitlines())) <= 40
