"""Every command under what a machine may do to it: the work is done, or refused in one sentence."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import stedi
from effort import NIGHTLY
from lakes import REPOSITORY
from stedi import Lake, cli

ROOT = os.getuid() == 0
NOBODY = 54321
SWITCHABLE = ROOT and all(
    above.stat().st_mode & 0o005 == 0o005
    for place in (sys.prefix, sys.base_prefix, *map(os.path.realpath, (sys.executable, stedi.__file__)))
    for above in (Path(place), *Path(place).parents)
)
KEY = "7b" * 32
RECORDS = [
    {"email": "ann@x.example", "serialNumber": "s-1", "registrationDate": 1655564400000,
     "lastUpdateDate": 1655564400000, "shareWithResearchAsOfDate": 1655564400000},
    {"user": "ann@x.example", "timestamp": 1655564444000, "x": 1.0, "y": 0.5, "z": 0.0},
    {"sensorReadingTime": 1655564444000, "serialNumber": "s-1", "distanceFromObject": 250},
]  # fmt: skip

WORDS: dict[str, list[list[str]]] = {
    "demo": [["demo", "--customers", "2", "--readings", "4"]],
    "init": [["init"]],
    "land": [["land", "IN"], ["land", "-"], ["land", "/dev/null/a"], ["land", "s3://bucket/inbox"], ["land", ""]],
    "build": [["build"], ["build", "--full"], ["build", "--dry-run"]],
    "audit": [["audit"], ["audit", "--files"], ["audit", "--risk"]],
    "key": [["key", "show"], ["key", "rotate"], ["key", "rotate", "--yes"],
            ["key", "rotate", "--yes", "--to", "/dev/null/a/key"]],
    "repair": [["repair"]],
    "adopt": [["adopt"]],
    "tables": [["tables"], ["--json", "tables"]],
    "tag": [["tag"], ["tag", "v1"], ["--json", "tag", "v1"], ["tag", "a b"], ["tag", "--delete", "nothing"]],
    "log": [["log"], ["--json", "log", "--since", "2026-01-01"]],
    "roles": [["roles"]],
    "verify": [
        ["verify", "LAKE/receipts"], ["verify", "nothing"], ["verify", "/dev/null"], ["verify", "IN"],
        ["--json", "verify", "nothing", "--public-key", "/dev/null/a"],
    ],
    "history": [["history", "customers_landing"], ["history", "nothing"]],
    "query": [
        ["query", "select count(*) from customers_landing"], ["query", "-"], ["query", "select oops"],
        ["query", "select 1", "--output", "/dev/null/a/a.csv"], ["query", "select 1", "--output", "/dev/full"],
        ["query", "select 1", "--output", "a.xlsx"], ["query", "select 1", "--output", "a.csv"],
        ["query", "select 1", "--output", "/dev/full", "--format", "csv"],
        ["query", "select 1", "--output", "/dev/stdout", "--format", "json"],
        ["query", "select 1", "--at", "yesterday"], ["query", "select 1", "--format", "parquet"],
        ["query", "select $a", "--parameter", "a=1"],
    ],
    "quarantine": [
        ["quarantine"], ["quarantine", "--records"], ["quarantine", "--withheld"], ["quarantine", "--replay"],
        ["quarantine", "--show", "nothing:0"],
    ],
    "withdraw": [
        ["withdraw", "ann@x.example"], ["withdraw", "--yes", "ann@x.example"], ["withdraw", "-", "--yes"],
        ["withdraw", "--file", "/dev/null/a", "--yes"], ["withdraw", "--dry-run", "ann@x.example"],
    ],
    "consent": [["consent"], ["consent", "--by", "day", "--format", "csv"], ["--json", "consent"]],
    "export": [
        ["export", "ann@x.example", "--output", "out"], ["export", "-", "--output", "out", "--zip"],
        ["export", "ann@x.example", "--output", "/dev/null/a"], ["export", "ann@x.example", "--output", "LAKE/out"],
        ["export", "--file", "/dev/null/a", "--output", "out"],
    ],
    "explain": [["explain", "ann@x.example"], ["explain", "-"], ["explain", "--table", "customers_landing",
                "--where", "true"]],
    "maintain": [["maintain"], ["maintain", "--dry-run"]],
    "migrate": [["migrate"], ["migrate", "--dry-run"], ["--json", "migrate", "--back"]],
    "erase": [
        ["erase", "ann@x.example"], ["erase", "--yes", "ann@x.example", "--inbox", "IN"], ["erase", "--resume"],
        ["erase", "--dry-run", "ann@x.example"], ["erase", "--list"], ["erase", "--verify", "nothing"],
        ["erase", "--yes", "ann@x.example", "--inbox", "/dev/null/a"],
    ],
    "dataset": [
        ["dataset", "create", "steps"], ["dataset", "create", "steps", "--window", "10s"],
        ["dataset", "create", "No Name"], ["dataset", "create", "steps", "--output", "/dev/null/a"],
        ["dataset", "create", "steps", "--split", "1/2/3"], ["dataset", "list"], ["dataset", "list", "--stale"],
        ["dataset", "show", "steps"], ["dataset", "note", "steps@1", "--model", "a"], ["dataset", "delete", "steps@1"],
        ["dataset", "refresh", "steps"], ["dataset", "recall", "steps@1"], ["dataset", "diff", "steps@1", "steps@2"],
        ["dataset", "verify", "IN"], ["dataset", "apply-recall", "IN", "/dev/null/a"],
    ],
    "crawl": [["crawl", "IN"], ["crawl", "/dev/null/a"], ["crawl", "/dev/null"]],
    "completion": [["completion", "bash"], ["completion", "csh"]],
    "status": [["status"], ["--json", "status"]],
    "runs": [["runs"]],
    "doctor": [["doctor"]],
    "watch": [["watch"], ["watch", "--every", "0s", "IN"]],
    "describe": [["describe", "customers_trusted"], ["--json", "describe", "quarantine"], ["describe", "nothing"]],
    "contract": [["contract"], ["--json", "contract", "customers_trusted"], ["contract", "nothing"]],
    "ddl": [["ddl"]],
    "report": [["report"], ["report", "--output", "/dev/null/a.html"], ["report", "--since", "/dev/null"]],
    "ndjson": [
        ["ndjson", "IN", "out"], ["ndjson", "/dev/null/a", "out"], ["ndjson", "IN", "/dev/null/a/out"],
        ["ndjson", "IN/customer/a.json", "/dev/full"], ["ndjson", "IN/customer/a.json", "/dev/stdout"],
        ["ndjson", "IN/customer/a.json", "o.json", "--rejects", "/dev/full"],
        ["ndjson", "IN/customer/a.json", "o.parquet"],
    ],
    "aws": [["aws", "status"], ["aws", "deploy"], ["aws", "run"], ["aws", "destroy"], ["aws", "cost"]],
}  # fmt: skip
"""What each command is called with; IN is a folder of deliveries."""

CONDITIONS: dict[str, dict[str, Any]] = {
    "nothing odd": {},
    "stdin closed": {"streams": {"stdin": "closed"}},
    "stdout closed": {"streams": {"stdout": "closed"}},
    "stderr closed": {"streams": {"stderr": "closed"}},
    "all closed": {"streams": dict.fromkeys(("stdin", "stdout", "stderr"), "closed")},
    "a full disk behind stderr": {"streams": {"stderr": "full"}},
    "a full disk behind stdout": {"streams": {"stdout": "full"}},
    "a reader of stdout that has gone": {"streams": {"stdout": "gone"}},
    "a reader of stderr that has gone": {"streams": {"stderr": "gone"}},
    "no home": {"unset": ["HOME", "XDG_CONFIG_HOME"], "unlisted": True},
    "no home and no key": {"unset": ["HOME", "XDG_CONFIG_HOME", "STEDI_PSEUDONYM_KEY"], "unlisted": True},
    "a home that is not there": {"set": {"HOME": "/dev/null/a"}, "unset": ["XDG_CONFIG_HOME", "STEDI_PSEUDONYM_KEY"]},
    "an empty home": {"set": {"HOME": ""}, "unset": ["STEDI_PSEUDONYM_KEY"]},
    "a home that is relative": {"set": {"HOME": "home"}},
    "an ASCII locale": {"encoding": "ascii", "set": {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}},
    "a Latin-1 locale": {"encoding": "latin-1", "set": {"LC_ALL": "POSIX"}},
    "no environment": {"unset": ["TERM", "PATH", "TMPDIR", "LANG", "HOME", "XDG_CONFIG_HOME"]},
    "no lake": {"before": ["rm -rf LAKE"]},
    "an empty folder for a lake": {"before": ["rm -rf LAKE; mkdir LAKE"]},
    "another folder for a lake": {"before": ["rm -rf LAKE; mkdir LAKE; echo > LAKE/notes.txt"]},
    "a file for a lake": {"before": ["rm -rf LAKE; echo > LAKE"]},
    "a fresh lake": {"before": ["rm -rf LAKE; cp -r FRESH LAKE"]},
    "settings that are no TOML": {"before": ["echo '[[[' > LAKE/lake.toml"]},
    "settings that are empty": {"before": [": > LAKE/lake.toml"]},
    "settings that are a folder": {"before": ["rm LAKE/lake.toml; mkdir LAKE/lake.toml"]},
    "settings of bytes": {"before": ["head -c 200 /dev/urandom > LAKE/lake.toml"]},
    "no catalog": {"before": ["rm LAKE/catalog.db"]},
    "a catalog of bytes": {"before": ["head -c 9000 /dev/urandom > LAKE/catalog.db"]},
    "an empty catalog": {"before": [": > LAKE/catalog.db"]},
    "no metadata": {"before": ["rm -rf LAKE/landing/*/metadata"]},
    "no data files": {"before": ["rm -rf LAKE/*/*/data"]},
    "no key": {"unset": ["STEDI_PSEUDONYM_KEY"]},
    "a key that is none": {"set": {"STEDI_PSEUDONYM_KEY": "abc"}},
    "another key": {"set": {"STEDI_PSEUDONYM_KEY": "00" * 32}},
    "a lake that may only be read": {"before": ["chmod -R a+rX,a-w LAKE ; chmod a+rx ."], "user": NOBODY,
                                     "after": ["chmod -R u+w LAKE"]},
    "a lake that may not be read": {"before": ["chmod 700 LAKE"], "user": NOBODY},
    "a lake in a bucket, and no boto3": {"lake": "s3://bucket/lake"},
    "a tilde": {"lake": "~/lake", "set": {"HOME": "/dev/null/a"}},
    "a tilde, and an empty home": {"lake": "~/lake", "set": {"HOME": ""}},
    "a tilde, and no home": {"lake": "~/lake", "unset": ["HOME"], "unlisted": True},
    "no folder for temporary files": {"set": {"TMPDIR": "/dev/null/a"}},
}  # fmt: skip

OWN_CODE = [
    *("stdin closed", "stdout closed", "stderr closed", "all closed", "a full disk behind stderr"),
    *("a reader of stdout that has gone", "a reader of stderr that has gone", "an ASCII locale", "a Latin-1 locale"),
    "a full disk behind stdout",
]
"""Conditions that concern what a command says, and not what it does."""
LOST = {"a reader of stdout that has gone": 141, "a full disk behind stdout": 1}
"""The exit codes of what would succeed, if its results are lost."""

SEED = 20260201
DEALT = 4
"""How many calls a condition gets by day."""

Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs words under a condition on a lake that has a little of everything."""
    folder = tmp_path_factory.mktemp("conditions")
    for above in (folder, *folder.parents):
        if ROOT and above.stat().st_uid == 0 and len(above.parts) > 2:
            above.chmod(0o755)
    inbox, lake = folder / "in", folder / "lake"
    for feed, record in zip(("customer", "accelerometer", "step_trainer"), RECORDS, strict=True):
        (inbox / feed).mkdir(parents=True)
        (inbox / feed / "a.json").write_text(json.dumps(record) + '\n{"user": oops}\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        made = Lake.create(lake)
        made.root.rename(folder / "fresh")
        made = Lake.create(lake)
        made.land(inbox)
        made.build()
    lake.rename(folder / "template")
    driver = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "tests" / "support" / "conditions.py"), str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def go(words: list[str], condition: dict[str, Any]) -> dict[str, Any]:
        work = folder / "work"
        work.mkdir(exist_ok=True)
        work.chmod(0o777)
        shutil.rmtree(work / "out", ignore_errors=True)  # an export is written where nothing is
        home = folder / "home"
        shutil.rmtree(home, ignore_errors=True)  # what the lake has come to is remembered there, too
        home.mkdir()
        environment = {
            "PATH": os.environ["PATH"], "HOME": str(home), "STEDI_PSEUDONYM_KEY": KEY, "LANG": "C.UTF-8",
            "TERM": "xterm",
        } | condition.get("set", {})  # fmt: skip
        for name in condition.get("unset", ()):
            environment.pop(name, None)

        def filled(text: str) -> str:
            return text.replace("LAKE", str(lake)).replace("FRESH", str(folder / "fresh")).replace("IN", str(inbox))

        place = [] if words[0] == "demo" else ["--lake", condition.get("lake", str(lake))]
        job = {
            "lake": str(lake),
            "template": str(folder / "template"),
            "folder": str(work),
            "before": [filled(command) for command in condition.get("before", ())],
            "after": [filled(command) for command in condition.get("after", ())],
            "environment": environment,
            "user": condition.get("user", 0),
            "unlisted": condition.get("unlisted", False),
            "streams": condition.get("streams", {}),
            "encoding": condition.get("encoding", "utf-8"),
            "missing": ["boto3", "botocore", "s3transfer", "pyspark"],
            "words": [*place, *(filled(word) for word in words)],
        }
        assert driver.stdin is not None
        assert driver.stdout is not None
        driver.stdin.write(json.dumps(job) + "\n")
        driver.stdin.flush()
        found: dict[str, Any] = json.loads(driver.stdout.readline())
        return found

    yield go
    driver.communicate()


def test_every_command_is_called() -> None:
    actions = [a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    assert set(actions[0].choices) == set(WORDS)


@pytest.fixture(scope="module")
def ordinary(run: Run) -> Callable[[list[str]], tuple[int, bool]]:
    """Tells the exit code of a call where nothing is odd, and whether it has written to stdout."""
    known: dict[str, tuple[int, bool]] = {}

    def ended(words: list[str]) -> tuple[int, bool]:
        what = json.dumps(words)
        if what not in known:
            found = run(words, {})
            known[what] = found["code"], bool(found["out"])
        return known[what]

    return ended


@cache
def _calls() -> dict[str, list[list[str]]]:
    actions = [a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return {name: calls for name, calls in WORDS.items() if name in actions[0].choices}


def _dealt(what: str) -> list[list[str]]:
    """Returns the calls for a condition: all at night; else a few, dealt so that all conditions together make each.

    The deck is the same in every run: no run fails by chance.
    """
    every = [words for calls in _calls().values() for words in calls if words[0] != "demo"]
    demo = WORDS["demo"] if what == "nothing odd" else []
    if NIGHTLY:
        return every + demo
    print("seed", SEED)
    generator = random.Random(SEED)
    place = list(CONDITIONS).index(what) * DEALT
    deck: list[list[str]] = []
    while len(deck) < place + DEALT:
        deck += generator.sample(every, len(every))
    return deck[place : place + DEALT] + demo


@pytest.mark.skipif(NIGHTLY, reason="the night makes every call")
def test_by_day_every_call_is_made_under_some_conditions() -> None:
    made = [json.dumps(words) for what in CONDITIONS for words in _dealt(what)]
    assert {json.dumps(words) for calls in _calls().values() for words in calls} - set(made) <= {
        json.dumps(words) for words in WORDS["demo"]
    }


@pytest.mark.parametrize("what", CONDITIONS)
def test_every_command_does_its_work_or_refuses_it_in_a_sentence(
    what: str, run: Run, ordinary: Callable[[list[str]], tuple[int, bool]]
) -> None:
    if CONDITIONS[what].get("user") and not SWITCHABLE:
        pytest.skip("needs root, and a Python that every user may read")
    odd = []
    for words in _dealt(what):
        found = run(words, CONDITIONS[what])
        said = found["out"] + found["err"]
        codes: tuple[int, ...] = (*range(4), 75)
        if what in OWN_CODE:
            own, writes = ordinary(words)
            codes = (own or (LOST.get(what, 0) if writes else 0),)
        if (
            any(word in said for word in ("unforeseen", "Traceback", "Exception ignored"))
            or found["code"] not in codes
            or (found["code"] and not said.strip() and not CONDITIONS[what].get("streams"))
        ):
            odd.append((words, found["code"], said[-300:]))
    assert not odd, "\n".join(map(str, odd))
