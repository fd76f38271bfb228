"""What lies in the current folder, an inbox or a lake is data: none of it ever runs, and none of it is a setting."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

import stedi
from lakes import KEY
from stedi.cli import parser
from stedi.engines import isolation
from stedi.lake import Lake

pytestmark = pytest.mark.own_processes
STEDI = Path(sys.executable).parent / "stedi"
ANN = "ann@example.com"

THIRD = ("duckdb", "_duckdb", "pyarrow", "pyiceberg", "sqlglot", "zstandard", "fastavro", "numpy", "pandas", "boto3")
RUN_BY_PYTHON = ("conftest", "sitecustomize", "usercustomize")
OF_RUNPY = {
    *(
        "_collections_abc",
        "abc",
        "codecs",
        "collections",
        "contextlib",
        "encodings",
        "enum",
        "functools",
        "genericpath",
    ),
    *("importlib", "io", "keyword", "operator", "os", "pkgutil", "posixpath", "reprlib", "runpy", "site", "stat"),
    *("types", "typing", "warnings", "zipimport"),
}
"""What Python itself imports before `python -m` knows of any program: there it is Python's to look elsewhere (`-P`)."""


def plant(folder: Path, canary: Path, without: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    """Puts into a folder what would run, or would be a setting, if anything looked for it there."""
    sing = f"open({str(canary)!r}, 'a').write(__file__ + chr(10))\n"
    modules = {*sys.stdlib_module_names, *THIRD, *RUN_BY_PYTHON, "stedi"} - set(sys.builtin_module_names) - without
    for name in sorted(modules):
        (folder / f"{name}.py").write_text(sing)
    for package in {"stedi", "pyarrow"} - without:
        (folder / package).mkdir()
        (folder / package / "__init__.py").write_text(sing)
    # a number that is none: whoever reads it fails
    (folder / ".pyiceberg.yaml").write_text("max-workers: planted\nlegacy-current-snapshot-id: planted\n")
    (folder / ".duckdbrc").write_text(f".shell touch {canary}\n")
    (folder / ".aws").mkdir()
    (folder / ".aws" / "config").write_text(f"[default]\ncredential_process = touch {canary}\n")
    (folder / ".boto").write_text("[Boto]\nplugin_directory = .\n")
    (folder / "pyvenv.cfg").write_text("home = .\n")
    for name in ("stedi.toml", "lake.toml", "pyproject.toml"):
        if not (folder / name).exists():
            (folder / name).write_text('query.role = "planted"\n')
    (folder / "bin").mkdir()
    (folder / "bin" / "spark-submit").write_text(f"#!/bin/sh\ntouch {canary}\n")
    (folder / "bin" / "spark-submit").chmod(0o755)
    (folder / "jars").mkdir()


def deliver(folder: Path, megabytes: int = 0) -> None:
    """Delivers two customers, and readings in a shape that is rewritten, by workers where there is enough of it."""
    at = 1_700_000_000_000
    customers = [
        {
            "email": who,
            "serialNumber": f"s{number}",
            "registrationDate": at,
            "lastUpdateDate": at,
            "shareWithResearchAsOfDate": at,
        }
        for number, who in enumerate((ANN, "bob@example.com"))
    ]
    (folder / "customer.json").write_text(json.dumps(customers))
    reading = json.dumps({"user": ANN, "timestamp": at, "x": 1, "y": 0, "z": 0})
    for number in range(2):
        many = max(1, megabytes * 500_000 // len(reading))
        (folder / f"accelerometer-{number}.json").write_text(reading * many + f'{{"broken": {number}')


def run(words: Sequence[object], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STEDI_PSEUDONYM_KEY": KEY, "STEDI_ENGINE_THREADS": "2", **more}
    return subprocess.run(
        [str(word) for word in words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


def commands() -> list[str]:
    """Returns the name of every command."""
    groups = [action for action in parser()._actions if isinstance(action, argparse._SubParsersAction)]
    return sorted(groups[0].choices)


FILES = ("customer.json", "accelerometer-0.json", "accelerometer-1.json")
LINES: dict[str, list[list[str]]] = {
    "land": [["land", *FILES]],
    "build": [["build", "--full"], ["build", "--dry-run"]],
    "audit": [["audit", "--files"]],
    "crawl": [["crawl", "customer.json"]],
    "dataset": [
        ["dataset", "create", "steps", "--output", "release"],
        ["dataset", "list"],
        ["dataset", "verify", "release"],
        ["dataset", "recall", "steps@1"],
        ["dataset", "refresh", "steps"],
    ],
    "demo": [],  # it writes to the current folder, as documented
    "erase": [["erase", "--yes", "bob@example.com", "--inbox", "customer.json"], ["erase", "--list"]],
    "explain": [["explain", ANN]],
    "export": [["export", ANN, "--output", "../out"]],
    "history": [["history", "customers_landing"]],
    "init": [["init"]],
    "key": [["key", "show"]],
    "ndjson": [["ndjson", "customer.json", "rewritten.json"]],
    "tag": [["tag", "v1"]],
    "query": [["query", "select count(*) from customers_landing"]],
    "quarantine": [["quarantine", "--records"], ["quarantine", "--replay"]],
    "withdraw": [["withdraw", "--yes", ANN]],
}
"""How a command is called here; others are called by their name alone."""


@pytest.mark.parametrize("where", ["inbox", "lake"])
@pytest.mark.thorough
def test_no_command_runs_or_reads_what_was_planted_where_it_is_started(where: str, tmp_path: Path) -> None:
    canary, inbox, lake = tmp_path / "canary", tmp_path / "inbox", tmp_path / "lake"
    inbox.mkdir()
    deliver(inbox, 9)
    assert run([STEDI, "--lake", lake, "land", inbox / "customer.json"], tmp_path).returncode == 0
    folder = tmp_path / where
    plant(folder, canary)
    first = ["land", "build", "withdraw"]
    others = [name for name in commands() if name not in first] if where == "inbox" else ["query", "maintain"]
    for name in [*first, *others]:
        for line in LINES.get(name, [[name]]):
            words = [str(inbox / word) if (inbox / word).exists() and where == "lake" else word for word in line]
            done = run([STEDI, "--lake", lake, *words], folder)
            assert not canary.exists(), f"{line}: {canary.read_text()}"
            assert "planted" not in done.stderr, f"{line}: {done.stderr}"
            assert "unforeseen" not in done.stderr, f"{line}: {done.stderr}"
            if name in ("land", "build", "query", "erase", "tables", "audit"):
                assert done.returncode == 0, f"{line}: {done.stderr}"


@pytest.mark.parametrize("way", [["-P", "-m", "stedi"], ["-m", "stedi"]])
def test_python_m_forgets_the_folder_it_is_started_in(way: list[str], tmp_path: Path) -> None:
    canary, inbox = tmp_path / "canary", tmp_path / "inbox"
    inbox.mkdir()
    deliver(inbox, 9)
    plant(inbox, canary, set() if way[0] != "-m" else {*OF_RUNPY, "stedi"})
    for words in (["land", *FILES], ["query", "select count(*) from customers_landing", "--format", "csv"]):
        done = run([sys.executable, *way, "--lake", tmp_path / "lake", *words], inbox)
        assert not canary.exists(), canary.read_text()
        assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["count_star()", "2"]


def test_what_an_inbox_on_the_callers_path_holds_is_nothing_to_its_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary, inbox = tmp_path / "canary", tmp_path / "inbox"
    inbox.mkdir()
    deliver(inbox, 9)
    lake = Lake.create(tmp_path / "lake")
    lake.land(inbox / "customer.json")
    monkeypatch.chdir(inbox)
    monkeypatch.setattr(sys, "path", ["", ".", str(inbox), *sys.path])
    monkeypatch.setenv("STEDI_ENGINE_THREADS", "2")
    # what this process itself has loaded by now
    plant(inbox, canary, {*sys.stdlib_module_names, *THIRD, *RUN_BY_PYTHON} - {"base64", "json", "pickle"})
    landed = Lake.open(lake.root).land(*FILES)  # two processes rewrite
    assert (landed.quarantined, len(landed.skipped)) == (2, 0)
    assert lake.query("select count(*) n from accelerometer_landing").arrow()["n"].to_pylist() == [landed.accepted - 2]
    assert not canary.exists(), canary.read_text()


def test_a_query_of_a_package_in_an_archive_says_so_and_blames_no_memory(tmp_path: Path) -> None:
    source = Path(stedi.__file__).parent
    with zipfile.ZipFile(tmp_path / "stedi.zip", "w") as archive:
        for path in source.rglob("*"):
            if path.suffix in (".py", ".sql"):
                archive.write(path, path.relative_to(source.parent))
    Lake.create(tmp_path / "lake", key_file=tmp_path / "first.key")
    statements = (
        "import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in repr(f).lower()]; "
        f"sys.path[:0] = [{str(tmp_path / 'stedi.zip')!r}]; "
        "from stedi import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", statements, "--lake", str(tmp_path / "lake"), "query", "select 1"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 1
    assert "expected the package's files in a folder, found an archive" in done.stderr
    assert "memory" not in done.stderr


def test_a_child_sees_no_key_no_setting_and_no_path_of_the_callers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "STEDI_PSEUDONYM_KEY",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "AWS_SECRET_ACCESS_KEY",
        "DUCKDB_X",
        "PYTHONHOME",
    ):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("COVERAGE_PROCESS_START", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", ".", str(tmp_path), "relative", *sys.path])
    found = isolation.folders()
    assert not {"", ".", "relative", str(tmp_path)} & set(found)
    assert str(Path(isolation.__file__).parents[2]) in found
    process = isolation.start(
        [
            "-c",
            "import json, os, sys; print(json.dumps([dict(os.environ), sys.path, os.getcwd(), sys.flags.isolated]))",
        ],
        "/",
    )
    out, _ = process.communicate()
    environment, path, folder, isolated = json.loads(out)
    seen = {name for name in environment if not name.startswith("COVERAGE_")}  # who measures lines sets more of its own
    assert seen <= {"HOME", "TMPDIR", "LC_ALL", "LC_CTYPE", *isolation._PASSED}
    assert (folder, isolated) == ("/", 1)
    assert not {"", str(tmp_path)} & set(path)
