"""The docs name every command, option, setting, error and reason, no other, and link to what is there."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

import stedi
from lakes import REPOSITORY
from stedi import errors
from stedi.cli import parser
from stedi.schema.contracts import Reason
from stedi.schema.tables import COLUMNS
from stedi.storage import config

ROOT = REPOSITORY
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")])


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


def commands() -> dict[str, argparse.ArgumentParser]:
    [actions] = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return dict(actions.choices)


def helps() -> dict[str, str | None]:
    [actions] = [a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {action.dest: action.help for action in actions._choices_actions}


def options() -> Iterator[tuple[str, argparse.Action]]:
    for name, command in commands().items():
        yield from ((name, action) for action in command._actions if not isinstance(action, argparse._HelpAction))


def error_classes() -> list[type[errors.StediError]]:
    found = [errors.StediError]
    for known in found:
        found += known.__subclasses__()
    return [known for known in found if known.__module__ == "stedi.errors"]


def rows(page: str) -> dict[str, list[str]]:
    """Returns the cells of every table row whose first cell is one word of code, by that word."""
    lines = (line.strip("|").split("|") for line in page.splitlines() if line.startswith("| `"))
    return {cells[0].strip().strip("`"): [cell.strip() for cell in cells[1:]] for cells in lines}


def anchors(page: str) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_and_its_row_in_operations(name: str) -> None:
    assert helps()[name]
    assert commands()[name].description
    assert re.search(rf"^\| `stedi {name}[ `]", text("docs/operations.md"), re.MULTILINE)


def test_every_option_is_named_in_operations() -> None:
    page = text("docs/operations.md")
    for name, action in options():
        if action.dest in ("lake", "json", "color"):
            continue
        if action.dest in ("metrics_file", "log_json", "ping", "openlineage", "otlp"):
            assert action.option_strings[-1] in page.partition("### Monitoring")[2]
            continue
        [line] = [line for line in page.splitlines() if line.startswith(f"| `stedi {name}")]
        word = action.option_strings[-1] if action.option_strings else str(action.metavar)
        assert word in line, f"stedi {name}: {word} is not in its row of docs/operations.md"
        assert action.help or not action.option_strings, f"stedi {name} {word} has no help"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_names_a_command_that_is_not_there(page: Path) -> None:
    code = re.findall(r"```(?:sh|text)?\n.*?```|`[^`\n]+`", page.read_text("utf-8"), re.DOTALL)
    named = {
        word for span in code for word in re.findall(r"(?:^|[`(] *|\n)stedi (?:--lake \S+ |--json )*([a-z]+)\b", span)
    }
    assert named <= {*commands(), "help"}


@pytest.mark.parametrize("error", error_classes(), ids=lambda error: error.__name__)
def test_every_error_is_in_operations_with_its_exit_code(error: type[errors.StediError]) -> None:
    assert rows(text("docs/operations.md"))[error.__name__][0] == str(error.exit_code)
    assert error.__doc__
    assert error.__name__ in str(errors.__doc__)


@pytest.mark.parametrize(("key", "attribute"), config._KEYS.items(), ids=lambda value: value)
def test_every_setting_is_in_operations_with_its_default_and_variable(key: str, attribute: str) -> None:
    default, _, variable = rows(text("docs/operations.md"))[key]
    [field] = [field for field in fields(config.Config) if field.name == attribute]
    if field.name not in ("lake_id", "key_fingerprint"):
        assert default.strip("`") == config._toml(field.default)
    assert variable.strip("`") == {k: v for v, k in config._ENVIRONMENT.items()}.get(key, "")


def test_every_environment_variable_is_in_operations() -> None:
    source = Path(stedi.__file__).parent
    read = {name for path in source.rglob("*.py") for name in re.findall(r"STEDI_[A-Z_]+", path.read_text("utf-8"))}
    assert not {name for name in read if name not in text("docs/operations.md")}


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_in_operations(reason: Reason) -> None:
    assert reason.value in rows(text("docs/operations.md"))


@pytest.mark.parametrize("table", COLUMNS)
def test_every_table_is_in_the_readme(table: str) -> None:
    assert f"`{table}`" in text("README.md")


def test_every_public_name_is_in_the_python_page() -> None:
    assert [name for name in stedi.__all__ if f"stedi.{name}" not in text("docs/python.md")] == []


def test_every_method_of_a_lake_is_in_the_python_page() -> None:
    # what is in the catalog is for the modules of this package
    names = {name for name in vars(stedi.Lake) if not name.startswith("_")} - {"catalog"}
    said = set(re.findall(r"\b[Ll]ake\.(\w+)", text("docs/python.md")))
    assert names - said == set()


def test_every_module_is_in_the_architecture() -> None:
    source = Path(stedi.__file__).parent
    names = {path.stem for path in source.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    named = set(re.findall(r"`(\w+)", text("docs/architecture.md")))
    assert names - {"__init__", "__main__", "_version"} <= named


def test_every_file_that_the_architecture_sends_a_reader_to_exists() -> None:
    table = text("docs/architecture.md").partition("### Where to look")[2].partition("Four paths")[0]
    named = re.findall(r"`([\w/]+\.(?:py|sql))`", table)
    assert len(named) > 30
    for path in named:
        folder = ROOT if path.startswith("tests/") else Path(stedi.__file__).parent
        assert (folder / path).is_file() or any(folder.rglob(f"views/{path}")), f"docs/architecture.md names {path}"


def test_every_test_that_the_security_page_names_exists() -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", text("docs/security.md"))
    assert len(named) > 30
    for file, function in named:
        [found] = (ROOT / "tests").rglob(Path(file).name)
        source = found.read_text("utf-8")
        assert re.search(rf"^ *def {function}\(", source, re.MULTILINE), f"docs/security.md names {file}::{function}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(found.read_text("utf-8")), f"{page.name} links to {target}"


def test_every_page_can_be_reached_from_the_readme() -> None:
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in reached:
            reached.add(page)
            links = re.findall(r"\]\(([^)#\s]+\.md)", page.read_text("utf-8"))
            todo += [(page.parent / link).resolve() for link in links if not link.startswith("http")]
    assert set(PAGES) <= reached


def test_the_readme_is_one_page() -> None:
    assert len(text("README.md").splitlines()) < 120
    assert (ROOT / "docs" / "report.png").stat().st_size < 200_000


def test_the_forge_runs_what_runs_without_it() -> None:
    targets = set(re.findall(r"^([\w./$()]+):", text("Makefile").replace("$(VENV)", ".venv"), re.MULTILINE))
    for path in (ROOT / ".github" / "workflows").iterdir():
        jobs = yaml.safe_load(path.read_text("utf-8"))["jobs"]
        for command in (step["run"] for job in jobs.values() for step in job["steps"] if "run" in step):
            if command.startswith("make "):
                assert command.removeprefix("make ") in targets, command
            else:
                assert (ROOT / command).is_file() or command.startswith(("git config", "apt-get")), command


def test_the_readme_shows_what_the_demo_prints(tmp_path: Path) -> None:
    """`UPDATE_DOCS=1 make test ARGS=tests/integration/test_docs.py` puts what it prints into the README."""
    environment = {**os.environ, "HOME": str(tmp_path), "COLUMNS": "120"}
    command = [sys.executable, "-m", "stedi.cli", "demo"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    before, shown, after = re.split(r"(?<=<!-- demo -->\n)(.*?)(?=<!-- /demo -->)", text("README.md"), flags=re.DOTALL)
    printed = f"```text\n{done.stdout.rstrip()}\n```\n"
    if os.environ.get("UPDATE_DOCS"):
        (ROOT / "README.md").write_text(f"{before}{printed}{after}", "utf-8")
        shown = printed
    assert steady(shown) == steady(printed)


def steady(output: str) -> list[list[str]]:
    """Returns the words of an output but for sizes and times, which change from run to run."""
    lines = [re.sub(r"\S+ +\d{4}-\d\d-\d\d .*$", "", line).split() for line in output.splitlines()]
    return [[word for word in words if not set(word) <= set("-─━ |")] for words in lines]
