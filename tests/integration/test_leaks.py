"""What names a person, and the key, never reach a message, a listing, a process's title or a file that tells of tables.

One person, and one key, of marked values; every way in which a command line can fail over them; then a search of
everything that was written. What shows data on request, `query` and `quarantine --show`, is not among it.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fastavro
import pytest

import proof_mutants
from deliveries import deliver
from lakes import unseen
from stedi import cli
from stedi import transform as building
from stedi.catalog import Catalog
from stedi.lake import Lake

MAIL, NAME, PHONE, SERIAL, BORN = (
    *("canary.mail@leak.example", "Canary Quillfeather", "+49-0815-CANARY"),
    *("canary-serial-77", "1971-13-09"),
)
pytestmark = pytest.mark.own_processes
SECRET = "c0ffee11" * 8
OTHER = "deadbeef" * 8
CANARIES = ("canary", "quillfeather", "1971-13-09", SECRET, OTHER)
Run = Callable[..., str]


def person(**more: object) -> dict[str, object]:
    record = {
        "customerName": NAME, "email": MAIL, "phone": PHONE, "birthDay": BORN, "serialNumber": SERIAL,
        "registrationDate": 1000000000010, "lastUpdateDate": 1000000000100, "shareWithResearchAsOfDate": 1000000000050,
    }  # fmt: skip
    return {**record, **more}


BAD_CUSTOMERS = (
    json.dumps(person())[:-20],
    json.dumps(person(email=[MAIL])),
    json.dumps(person(serialNumber=None)),
    json.dumps(person(registrationDate=NAME)),
    json.dumps(person(lastUpdateDate=-1)),
    json.dumps(person())[:-1] + f', "EMAIL": "{MAIL}"}}',
    json.dumps(person(shareWithResearchAsOfDate=NAME, **{MAIL: 1, NAME: PHONE})),
    f'"{MAIL}"',
    f"{{'email': '{MAIL}'}}",
    "[" * 100 + json.dumps(person()) + "]" * 100,
    f'{{"email": "{MAIL}", "x": "\\ud800"}}',
)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a built lake that knows the person, the key beside it, and deliveries that are wrong."""
    folder = tmp_path_factory.mktemp("leaks")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STEDI_PSEUDONYM_KEY")
        key = folder / "first.key"
        key.write_text(SECRET)
        key.chmod(0o600)
        lake = Lake.create(folder / "lake", key_file=key)
        good = folder / "good"
        deliver(good, "customer", [person(), person(email="other@x.example", serialNumber="s-2")])
        users = (MAIL, "other@x.example")
        deliver(good, "accelerometer", [{"user": u, "timestamp": 1000000000100, "x": 1, "y": 0, "z": 0} for u in users])
        serials = (SERIAL, "s-2")
        steps = [{"sensorReadingTime": 1000000000100, "serialNumber": s, "distanceFromObject": 210} for s in serials]
        deliver(good, "step_trainer", steps)
        lake.land(good)
        lake.build()
    bad = folder / "bad" / "customer"
    bad.mkdir(parents=True)
    (bad / "bad.json").write_text("\n".join(BAD_CUSTOMERS))
    (bad / "cut.json.gz").write_bytes(gzip.compress(json.dumps(person()).encode())[:-9])
    motions = folder / "bad" / "accelerometer"
    motions.mkdir()
    (motions / "bad.json").write_text(f'{{"user": "{MAIL}", "timestamp": "{NAME}", "x": 1, "y": 2, "z": 3}}\n')
    (folder / "unknown").mkdir()
    (folder / "unknown" / "what.json").write_text(json.dumps({"who": MAIL, "name": NAME}))
    (folder / "other.key").write_text(OTHER)
    (folder / "other.key").chmod(0o600)
    (folder / "malformed.key").write_text(SECRET[:-2] + NAME)
    (folder / "malformed.key").chmod(0o600)
    shutil.copytree(folder / "lake", folder / "kept")
    return folder


@pytest.fixture
def folder(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.chdir(kept)
    shutil.rmtree(kept / "lake")
    shutil.copytree(kept / "kept", kept / "lake")
    unseen(kept / "lake")
    return kept


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The words and variables of every process that was started."""
    found: list[str] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, words: Any, **options: Any) -> None:
            found.append(repr((words, options.get("env"))))
            super().__init__(words, **options)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    return found


@pytest.fixture
def run(folder: Path, started: list[str]) -> Run:
    """Runs a command, expects an exit code, and returns all that it said, plain and as JSON; nothing of it leaks."""

    def command(*words: str, code: int) -> str:
        said = ""
        for form in ([], ["--json"]):
            out, err = io.StringIO(), io.StringIO()
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    found = cli.main(["--lake", "lake", *form, *words])
                except SystemExit as stop:
                    found = int(str(stop.code))
            assert found == code, err.getvalue()
            said += out.getvalue() + err.getvalue()
        assert "Traceback" not in said
        clean(said)
        clean(*started)
        clean(*told(folder / "lake"))
        return said

    return command


def clean(*texts: str) -> None:
    leaks = [(canary, text[:2000]) for text in texts for canary in CANARIES if canary in text.lower()]
    assert leaks == []


def told(root: Path) -> Iterator[str]:
    """Everything below a lake that is not a table's rows, decoded; of rows, nothing may hold the key."""
    for path in root.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield path.name
        if path.suffix == ".parquet":
            assert not [key for key in (SECRET, OTHER) if key.encode() in content or bytes.fromhex(key) in content]
            continue
        yield content.decode("latin-1")
        assert not [key for key in (SECRET, OTHER) if bytes.fromhex(key) in content]
        if path.suffix == ".avro":
            with contextlib.suppress(Exception), path.open("rb") as stream:  # a damaged one is searched as it is
                yield from (repr(record) for record in fastavro.reader(stream))


def test_the_search_finds_what_it_is_to_find(folder: Path) -> None:
    with pytest.raises(AssertionError):
        clean(f"x {MAIL.upper()} y")
    (folder / "lake" / "tmp" / "left.json").parent.mkdir(exist_ok=True)
    (folder / "lake" / "tmp" / "left.json").write_text(json.dumps(person()))
    with pytest.raises(AssertionError):
        clean(*told(folder / "lake"))


def test_records_that_cannot_be_taken(run: Run) -> None:
    run("land", "bad/customer/bad.json", "bad/accelerometer", code=0)
    run("land", "bad", "unknown", "missing.json", code=1)
    for words in ([], ["--records"], ["--replay"], ["--withheld"]):
        run("quarantine", *words, code=0)
    run("quarantine", "--show", f"{MAIL}:7", code=2)
    run("build", code=0)
    run("audit", "--files", code=0)
    run("crawl", "bad", "unknown", code=1)
    run("ndjson", "bad", "rewritten", code=1)


def test_statements_that_are_refused_or_fail(run: Run) -> None:
    for sql in (
        f"select * from customers_landing where email = '{MAIL}' and",
        f"select '{NAME}' from nothing",
        f"select * from read_csv('{MAIL}')",
        f"copy customers_landing to '{NAME}'",
        f"delete from customers_landing where email = '{MAIL}'",
        f"set x = '{PHONE}'",
        f"select 1; select '{SERIAL}'",
    ):
        run("query", sql, code=2)
    for sql in (
        "select email::integer from customers_landing",
        "select cast(customerName as timestamp) from customers_landing",
        "select error(phone) from customers_landing",
        "select json_extract(serialNumber, '$.a') from customers_landing",
        "select strptime(customerName, '%Y') from customers_landing",
        "select decode(email::blob)::date from customers_landing",
        f"select 1 from customers_landing where email = '{MAIL}' and 1 / length(email)::varchar::date > 1",
    ):
        run("query", sql, code=1)
    run("query", "select 1 from customers_landing", "--at", MAIL, code=2)


def test_rights_that_are_exercised_wrongly(run: Run) -> None:
    run("withdraw", MAIL, " ", "--yes", code=2)
    run("withdraw", "--file", "missing.txt", "--yes", code=2)
    run("explain", "--table", MAIL, "--where", "true", code=2)
    run("explain", "--table", "customers_landing", "--where", f"email = '{MAIL}' and", code=2)
    run("explain", "--table", "customers_landing", "--where", "email::integer = 1", code=1)
    run("query", f"select '{MAIL}' from customers_landing", "--role", "scientist", code=2)
    run("withdraw", MAIL, "--yes", "--build", code=0)


@pytest.mark.parametrize("key", ["other.key", "malformed.key", "missing.key"])
def test_keys_that_are_refused(run: Run, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("STEDI_KEY_FILE", key)
    for words in (["build"], ["land", "good"], ["audit"], ["key", "show"], ["key", "rotate", "--yes"], ["repair"]):
        run(*words, code=1)
    monkeypatch.delenv("STEDI_KEY_FILE")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", OTHER)
    run("build", code=1)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    if key != "missing.key":
        run("key", "rotate", "--yes", "--to", key, code=1)


def test_a_key_that_changes(run: Run, folder: Path) -> None:
    run("key", "show", code=0)
    run("key", "rotate", "--yes", code=0)
    new = Lake.open(folder / "lake").key()
    assert not [text for text in told(folder / "lake") if new.secret.hex() in text]
    for words in (["build"], ["audit"], ["tables"], ["history", "customers_trusted"], ["maintain"], ["ddl"]):
        run(*words, code=0)


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ("customers_landing", "*.parquet"),
        ("customers_trusted", "*.parquet"),
        ("customers_trusted", "*.avro"),
        ("customers_landing", "*.metadata.json"),
    ],
)
def test_files_that_are_damaged(run: Run, folder: Path, table: str, kind: str) -> None:
    [place] = list((folder / "lake").glob(f"*/{table}"))
    for path in place.rglob(kind):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] + content[len(content) // 2 :].swapcase())
    run("audit", "--files", code=3)
    for words in (["tables"], ["build"], ["query", f"select * from {table}", "--output", "x.csv"], ["maintain"]):
        run_any(words, folder)
    for words in (["repair"], ["build", "--full"]):
        run_any(words, folder)


def run_any(words: list[str], folder: Path) -> None:
    """Runs a command that may end in any way and must not tell."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        cli.main(["--lake", str(folder / "lake"), *words])
    clean(out.getvalue(), err.getvalue())
    clean(*told(folder / "lake"))


def test_work_that_fails_on_the_way(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unforeseen(*_: Any, **__: Any) -> Any:
        raise ValueError(f"{MAIL} {NAME} {SECRET}")

    deliver(folder / "more", "accelerometer", [{"user": MAIL, "timestamp": 1000000000200, "x": 1, "y": 0, "z": 0}])
    with monkeypatch.context() as patch:
        patch.setattr(building, "build", unforeseen)
        run("build", code=1)
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append", unforeseen)
        assert "pending" not in run("land", "more", code=1)
        assert list((folder / "lake" / "pending").glob("*.json"))  # and the journal has been searched
    monkeypatch.setenv("STEDI_ENGINE_MEMORY", "1KB")
    run("build", "--full", code=1)
    monkeypatch.delenv("STEDI_ENGINE_MEMORY")
    run("build", code=0)


def test_a_table_that_breaks_a_rule(run: Run, folder: Path) -> None:
    lake = Lake.open(folder / "lake")
    table = "machine_learning_curated"
    row = (
        f"select '{MAIL}' as customer_id, instant(100) as sensorReadingTime, 210::bigint as distanceFromObject, "
        "1.0 as x, 0.0 as y, 0.0 as z"
    )
    proof_mutants.commit(lake, proof_mutants.Mutant(table, proof_mutants.also(table, row), ()))
    assert "identifiers: machine_learning_curated: expected no violations, found 1" in run("audit", code=3)


def test_words_that_are_off(run: Run) -> None:
    run("build", MAIL, code=2)
    run("history", "--to", MAIL, code=2)
    run("land", "good", "--feed", MAIL, code=2)
    run("history", MAIL, code=2)


def test_a_full_disk(folder: Path) -> None:
    deliver(folder / "much", "customer", [person(email=f"{n}{MAIL}", lastUpdateDate=n + 1) for n in range(3000)])
    script = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
        "from stedi import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    for words in (["land", "much"], ["build", "--full"], ["key", "rotate", "--yes", "--to", "new.key"]):
        done = subprocess.run(
            [sys.executable, "-c", script, "--lake", "lake", *words],
            cwd=folder, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 1, done.stderr
        clean(done.stdout, done.stderr)
        clean(*told(folder / "lake"))
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 8192
