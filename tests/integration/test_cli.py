"""The command line: each command's text and JSON, its exit codes, and errors that say enough and never too much."""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import talkative
from lakes import contents, heads, rows, tree
from stedi import __version__, cli
from stedi.cli import terminal
from stedi.cli.commands import named
from stedi.lake import Lake
from stedi.landing import sample
from stedi.privacy import key_change, tombstones
from stedi.schema.contracts import Reason
from stedi.schema.tables import ZONES

ACTIONS = {"none", "append", "by-customer", "rebuild"}
LANDED = {"name", "feed", "sha256", "seen", "accepted", "quarantined", "erased", "already_landed"}
BUILT = {"name", "action", "reason", "rows_added", "rows_removed", "rows", "seconds"}


@dataclass(frozen=True, slots=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON document on stdout."""
        assert self.out.endswith("\n")
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    """Undoes what a process's one command may change."""
    mask = os.umask(0o022)
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)
    os.umask(mask)


@pytest.fixture(scope="module")
def private(sample_inbox: Path) -> set[str]:
    """Every address, name, telephone and serial number of the sample."""
    fields = ("email", "customerName", "phone", "serialNumber")
    found: set[str] = set()
    for path in (sample_inbox / "customer").glob("customers-0*.json"):
        for line in path.read_text("utf-8").splitlines():
            record = json.loads(line)
            found |= {str(record[name]).strip() for name in fields if record.get(name)}
    assert len(found) > 40
    return found


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], private: set[str]) -> Run:
    """Runs a command in this process; what it says beside its answer must hold nobody's data."""

    def command(*words: object) -> Said:
        capsys.readouterr()
        code = cli.main([str(word) for word in words])
        captured = capsys.readouterr()
        told = captured.err if code == 0 else captured.err + captured.out
        assert not [secret for secret in private if secret in told]
        assert "Traceback" not in told
        return Said(code, captured.out, captured.err)

    return command


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, sample_inbox: Path) -> Path:
    """A lake with the sample, built; for reading only."""
    root = tmp_path_factory.mktemp("built") / "lake"
    lake = Lake.create(root)
    lake.land(sample_inbox)
    lake.build()
    return root


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """A little delivery."""
    folder = tmp_path / "inbox"
    (folder / "accelerometer").mkdir(parents=True)
    good = '{"user":"a@x.example","timestamp":1000000000005,"x":1,"y":1,"z":1}\n'
    (folder / "accelerometer" / "one.json").write_text(good + '{"user":"a@x.example"}\n')
    return folder


def failed(said: Said, code: int, *words: str) -> None:
    """Asserts that a command failed with one line that says these words, and nothing on stdout."""
    assert said.code == code
    assert said.out == ""
    assert said.err.startswith("stedi: ")
    assert said.err.count("\n") == 1
    for word in words:
        assert word in said.err


class TestHelp:
    @pytest.mark.parametrize(
        "words",
        [
            *("", "--help", "-h build", "--lak x build", "--lake", "--lake x -- build", "--json no", "bogus"),
            *("build --bogus", "build --help", "--lake build land", "--lake=x tables more"),
            *("dataset", "dataset create", "aws run --workers 0"),
            *("--version", "--lake --help", "--json --help", "--color never", "--bogus build", "biuld", "biuld --full"),
        ],
    )
    def test_a_call_is_answered_as_if_every_command_had_been_described(
        self, words: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = []
        for parser in (cli.parser(), cli.parser(named(words.split()))):
            with pytest.raises(SystemExit) as stopped:
                parser.parse_args(words.split())
            said.append((stopped.value.code, capsys.readouterr()))
        assert said[0] == said[1]

    @pytest.mark.parametrize("words", ["", "--help", "--lake x --version", "build", "biuld"])
    def test_only_the_options_of_the_called_command_are_described(self, words: str) -> None:
        [every] = [action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)]
        [listed] = [a.choices for a in cli.parser(named(words.split()))._actions if isinstance(a.choices, dict)]
        assert list(listed) == list(every)
        described = [name for name, sub in listed.items() if isinstance(sub, argparse.ArgumentParser)]
        assert described == ["build"] * (words == "build")

    def test_every_command_has_help_that_names_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(["--help"])
        assert stopped.value.code == 0
        listed = capsys.readouterr().out
        [commands] = [action.choices for action in cli.parser()._actions if isinstance(action.choices, dict)]
        assert {"demo", "init", "land", "build", "tables", "history", "query"} <= set(commands)
        for name in commands:
            assert re.search(rf"^    {name}\s", listed, re.MULTILINE)
            with pytest.raises(SystemExit):
                cli.main([name, "--help"])
            assert capsys.readouterr().out.startswith(f"usage: stedi {name}")

    @pytest.mark.parametrize(
        ("words", "same"),
        [("help", "--help"), ("help help", "--help"), ("help build", "build --help"),
         ("--lake x help dataset create", "dataset create --help")],
    )  # fmt: skip
    def test_help_with_a_command_is_the_help_of_that_command(
        self, words: str, same: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        said = []
        for call in (words, same):
            with pytest.raises(SystemExit) as stopped:
                cli.main(call.split())
            said.append((stopped.value.code, capsys.readouterr()))
        assert said[0] == said[1]
        assert said[0][0] == 0

    @pytest.mark.parametrize(
        ("words", "meant"),
        [("biuld", "build"), ("hlep", "help"), ("--versoin", "--version"), ("build --dryrun", "--dry-run"),
         ("help biuld", "build"), ("dataset crate", "create"), ("dataset --hlep", "--help")],
    )  # fmt: skip
    def test_a_typo_is_answered_with_what_was_meant(
        self, words: str, meant: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            cli.main(words.split())
        said = capsys.readouterr().err
        assert said.endswith(f"did you mean `{meant}`?\n")
        assert said.count("\n") == 2

    def test_the_version_is_the_packages(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            cli.main(["--version"])
        assert capsys.readouterr().out == f"stedi {__version__}\n"

    @pytest.mark.parametrize(
        "words",
        [
            [],
            ["lnd"],
            ["land"],
            ["land", "--feed", "steps", "x"],
            ["build", "--ful"],
            ["query"],
            ["query", "select 1", "--format", "xml"],
            ["demo", "--customers", "0"],
            ["crawl", "x", "--sample", "-1"],
            ["quarantine", "--records", "--replay"],
            ["init", "--readings", "none"],
            ["status", "--max-age", "36501d"],
            ["watch", "x", "--every", "999999d"],
            ["aws", "cost", "--customers", "9" * 400],
            ["demo", "--customers", "\N{SUPERSCRIPT TWO}"],
        ],
    )
    def test_words_that_are_off_are_bad_usage(self, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as stopped:
            cli.main(words)
        assert stopped.value.code == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("usage: stedi")


class TestInit:
    def test_makes_a_lake_and_tells_where_its_key_is(self, run: Run, tmp_path: Path) -> None:
        said = run("--lake", tmp_path / "lake", "init")
        assert said.code == 0
        assert "STEDI_PSEUDONYM_KEY" in said.out
        assert Lake.open(tmp_path / "lake").config.readings == "all"

    def test_makes_a_key_file_that_only_its_owner_can_read(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
        said = run("--json", "--lake", tmp_path / "lake", "init", "--readings", "since-consent")
        document = said.json
        assert document.keys() == {"lake", "readings", "key", "fingerprint"}
        assert document["readings"] == "since-consent"
        key = Path(document["key"])
        assert key.stat().st_mode & 0o777 == 0o600
        assert not key.is_relative_to(tmp_path / "lake")
        assert key.read_text().strip() not in said.out
        for path in (tmp_path / "lake").rglob("*"):
            assert path.stat().st_mode & 0o077 == 0, path

    def test_remembers_no_place_that_is_there_only_while_its_service_runs(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        key = tmp_path / "credentials" / "stedi.key"
        key.parent.mkdir()
        key.write_text("7" * 64)
        key.chmod(0o400)
        monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(key.parent))
        monkeypatch.setenv("STEDI_KEY_FILE", str(key))
        lake = tmp_path / "lake"
        assert run("--json", "--lake", lake, "init").json["key"] == str(key)
        assert str(key.parent) not in (lake / "lake.toml").read_text()
        monkeypatch.delenv("STEDI_KEY_FILE")
        failed(run("--lake", lake, "key", "show"), 1, "expected a readable file, found none", "STEDI_KEY_FILE")

    def test_a_folder_that_holds_something_is_left_alone(self, run: Run, built: Path, inbox: Path) -> None:
        before = tree(inbox)
        failed(run("--lake", inbox, "init"), 2, "expected an empty folder, found something else")
        failed(run("--lake", built, "init"), 2, "expected an empty folder, found a lake")
        assert tree(inbox) == before


class TestLand:
    def test_tells_each_file_in_the_documented_keys(self, run: Run, tmp_path: Path, inbox: Path) -> None:
        for again in (False, True):
            said = run("--json", "--lake", tmp_path / "lake", "land", inbox)
            assert said.code == 0
            document = said.json
            assert {"files", "seen", "accepted", "quarantined", "erased"} <= document.keys()
            [file] = document["files"]
            assert file.keys() == LANDED
            assert (file["feed"], file["seen"], file["accepted"], file["quarantined"]) == ("accelerometer", 2, 1, 1)
            assert file["already_landed"] is again
            assert [document[key] for key in ("seen", "accepted", "quarantined", "erased")] == [2, 1, 1, 0]

    def test_says_so_in_a_line(self, run: Run, tmp_path: Path, inbox: Path) -> None:
        said = run("land", inbox, "--lake", tmp_path / "lake")
        assert said.out.splitlines()[0] == "1 new file: 1 accepted of 2 records, 1 quarantined"
        assert "stedi quarantine --fields" in said.out
        assert "read and check" not in said.err, "a pipe hears of progress once a minute"

    def test_builds_at_once_where_asked_as_a_build_of_its_own_does(self, run: Run, tmp_path: Path, inbox: Path) -> None:
        built = run("--json", "--lake", tmp_path / "once", "land", "--build", inbox).json
        landed = run("--json", "--lake", tmp_path / "twice", "land", inbox).json
        then = run("--json", "--lake", tmp_path / "twice", "build").json
        assert {**built, "build": 0} == {**landed, "build": 0}
        shown = ("name", "action", "reason", "rows_added", "rows_removed", "rows")
        one, other = ([[table[key] for key in shown] for table in b["tables"]] for b in (built["build"], then))
        assert one == other
        assert run("--json", "--lake", tmp_path / "once", "build").json["run"] == ""

    def test_what_cannot_be_read_is_named_the_rest_lands_and_the_exit_is_1(
        self, run: Run, tmp_path: Path, inbox: Path
    ) -> None:
        (inbox / "accelerometer" / "two.json.gz").write_bytes(b"not gzip")
        (inbox / "unknown.json").write_text('{"what": 1}')
        said = run("--json", "--lake", tmp_path / "lake", "land", inbox, tmp_path / "nowhere")
        assert said.code == 1
        assert said.json["accepted"] == 1
        names = [skipped["name"] for skipped in said.json["skipped"] if skipped["failed"]]
        assert len(names) == 3
        for name in names:
            assert f"{name}: " in said.err

    def test_what_is_new_is_told_before_what_was_there(self, run: Run, tmp_path: Path, inbox: Path) -> None:
        lake = ("--lake", tmp_path / "lake")
        run(*lake, "land", inbox)
        assert run(*lake, "land", inbox).out == "nothing new: 1 file landed before\n"
        (inbox / "accelerometer" / "two.json").write_text(
            '{"user":"a@x.example","timestamp":1000000000006,"x":1,"y":1,"z":1}\n'
        )
        assert run(*lake, "land", inbox).out == "1 new file: 1 accepted of 1 record\n1 file landed before\n"

    def test_an_inbox_that_is_not_there_stops_an_erasure_before_it_begins(
        self, run: Run, tmp_path: Path, inbox: Path
    ) -> None:
        lake = Lake.create(tmp_path / "lake")
        lake.land(inbox)
        words = ("--lake", lake.root, "erase", "--yes", "a@x.example", "--inbox", inbox)
        failed(run(*words, "--inbox", tmp_path / "inbxo"), 2, "--inbox: ", "inbxo: expected delivered files", "erased")
        assert not lake.receipts()
        assert "a@x.example" in (inbox / "accelerometer" / "one.json").read_text()
        assert run(*words, "--inbox", tmp_path / "no*.json").code == 0
        assert "a@x.example" not in (inbox / "accelerometer" / "one.json").read_text()

    def test_a_path_that_leads_nowhere_makes_no_lake(self, run: Run, tmp_path: Path, inbox: Path) -> None:
        lake = tmp_path / "lake"
        failed(run("--lake", lake, "land", tmp_path / "nowhere", inbox / "*.csv"), 1, "nowhere", "no lake was made")
        assert not lake.exists()
        assert run("--lake", lake, "land", tmp_path / "nowhere", inbox / "*" / "*.json").code == 1
        assert lake.exists()

    def test_a_lake_that_nobody_asked_for_is_told_with_the_place_of_its_key(
        self, run: Run, tmp_path: Path, inbox: Path
    ) -> None:
        said = run("--lake", tmp_path / "lake", "land", inbox)
        assert f"made a new lake, {tmp_path / 'lake'}; its key is in STEDI_PSEUDONYM_KEY: back up the key" in said.err

    @pytest.mark.parametrize(("scale", "unit"), [(1, "in seconds"), (1_000_000, "in microseconds")])
    def test_an_instant_of_another_unit_is_told_with_the_likely_one(
        self, scale: int, unit: str, run: Run, tmp_path: Path
    ) -> None:
        (tmp_path / "accelerometer.json").write_text(
            f'{{"user":"a@x.example","timestamp":{1_655_564_875 * scale},"x":1,"y":1,"z":1}}\n'
        )
        said = run("--lake", tmp_path / "lake", "land", tmp_path / "accelerometer.json")
        assert f"timestamp: expected epoch milliseconds; 1 record probably has it {unit}" in said.err
        told = run("--lake", tmp_path / "lake", "--json", "quarantine", "--fields").json["fields"]
        assert [(f["field"], f["expected"], f["found"]) for f in told] == [("timestamp", "epoch ms", unit)]

    def test_drift_is_told_by_field_and_never_by_value(self, run: Run, tmp_path: Path) -> None:
        path = tmp_path / "customers.json"
        record = {
            "email": "a@x.example",
            "serialNumber": "s",
            "registrationDate": 1000000000001,
            "lastUpdateDate": 1000000000001,
        }
        path.write_text(json.dumps({**record, "shareWithResearchAsOfDate": "private", "shoe": "private"}))
        said = run("--lake", tmp_path / "lake", "land", path)
        assert said.code == 0
        assert "shareWithResearchAsOfDate: wrong_type: 1 record\n" in said.err
        assert "unknown field shoe: 1 record\n" in said.err
        assert "private" not in said.out + said.err


class TestBuild:
    def test_shows_the_plan_builds_and_then_has_nothing_to_do(self, run: Run, tmp_path: Path, inbox: Path) -> None:
        lake = ("--lake", tmp_path / "lake")
        run(*lake, "land", inbox)
        before = heads(Lake.open(tmp_path / "lake"))
        plan = run(*lake, "--json", "build", "--dry-run").json
        assert {step["action"] for step in plan["tables"]} == {"rebuild"}
        assert "first time" in run(*lake, "build", "--dry-run").out
        assert heads(Lake.open(tmp_path / "lake")) == before

        document = run(*lake, "--json", "build").json
        assert {"run", "tables", "withheld"} <= document.keys()
        assert document["run"]
        for table in document["tables"]:
            assert table.keys() == BUILT
            assert table["action"] in ACTIONS
        assert {table["name"] for table in document["tables"]} == {n for n, z in ZONES.items() if z != "landing"}

        assert run(*lake, "build").out == "nothing to do: every table is up to date\n"
        again = run(*lake, "--json", "build").json
        assert again["run"] == ""
        assert {table["action"] for table in again["tables"]} == {"none"}
        assert "asked for" in run(*lake, "build", "--full").out

    def test_a_dry_run_makes_no_lake(self, run: Run, tmp_path: Path) -> None:
        failed(run("--lake", tmp_path / "none", "build", "--dry-run"), 1, "expected a lake, found none")
        assert not list(tmp_path.iterdir())

    def test_a_build_makes_a_lake_that_is_not_there(self, run: Run, tmp_path: Path) -> None:
        assert run("--lake", tmp_path / "lake", "build").code == 0
        assert Lake.open(tmp_path / "lake").tables()

    def test_withheld_readings_are_told_of(self, run: Run, built: Path, tmp_path: Path) -> None:
        shutil.copytree(built, tmp_path / "copy")
        withheld = run("--lake", built, "--json", "quarantine", "--withheld").json
        assert withheld["total"] == len(withheld["records"]) > 0
        assert withheld["records"][0].keys() == {"sensorReadingTime", "serialNumber", "distanceFromObject", "matches"}
        table = run("--lake", built, "quarantine", "--withheld").out
        assert "serial number" in table
        assert run("--lake", built, "--json", "build").json["withheld"] == withheld["total"]


class TestTables:
    def test_lists_every_table_with_the_documented_keys(self, run: Run, built: Path, sample_inbox: Path) -> None:
        answer = json.loads((sample_inbox / "_answer.json").read_text())
        listed = run("--lake", built, "--json", "tables").json["tables"]
        assert {table["name"]: table["zone"] for table in listed} == ZONES
        for table in listed:
            assert list(table) == ["name", "zone", "rows", "bytes", "snapshot", "updated"]
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", table["updated"])
            if table["name"] in answer:
                assert table["rows"] == answer[table["name"]]
        text = run("--lake", built, "tables").out
        assert all(name in text for name in ZONES)

    def test_history_tells_what_a_table_was_built_from(self, run: Run, built: Path) -> None:
        document = run("--lake", built, "--json", "history", "machine_learning_curated").json
        assert document["table"] == "machine_learning_curated"
        newest, first = document["snapshots"]
        assert newest["parent"] == first["id"]
        inputs = newest["inputs"]
        now = {table["name"]: table["snapshot"] for table in run("--lake", built, "--json", "tables").json["tables"]}
        assert inputs == {name: now[name] for name in ("accelerometer_trusted", "step_trainer_trusted")}
        told = run("--lake", built, "history", "machine_learning_curated").out
        assert re.search(r"accelerometer_trusted of \d\d:\d\d$", told, re.MULTILINE)
        assert newest["id"] not in told
        verbose = run("--lake", built, "history", "machine_learning_curated", "--verbose").out
        assert all(
            id_ in verbose for id_ in (newest["id"], first["id"], *inputs.values(), newest["summary"]["stedi.sql"])
        )

    def test_a_table_that_is_not_there_is_named_with_those_that_are(self, run: Run, built: Path) -> None:
        failed(run("--lake", built, "history", "machine_learning"), 2, "no table machine_learning: did you mean")


class TestQuery:
    SQL = "select count(*) as n, min(x) as x from accelerometer_trusted"

    def test_gives_each_format(self, run: Run, built: Path, sample_inbox: Path) -> None:
        count = json.loads((sample_inbox / "_answer.json").read_text())["accelerometer_trusted"]
        lake = ("--lake", built)
        assert str(count) in run(*lake, "query", self.SQL).out.replace(",", "")
        [header, row] = csv.reader(io.StringIO(run(*lake, "query", self.SQL, "--format", "csv").out))
        assert (header, row[0]) == (["n", "x"], str(count))
        assert json.loads(run(*lake, "query", self.SQL, "--format", "json").out)[0]["n"] == count
        assert run(*lake, "--json", "query", self.SQL).json == json.loads(
            run(*lake, "query", self.SQL, "--format", "json").out
        )

    @pytest.mark.parametrize(("name", "option"), [("r.csv", ()), ("r.json", ()), ("r.parquet", ()), ("r", ("csv",))])
    def test_writes_a_file_that_is_whole_and_its_owners_alone(
        self, name: str, option: tuple[str, ...], run: Run, built: Path, tmp_path: Path
    ) -> None:
        path = tmp_path / name
        words = ("--format", *option) if option else ()
        said = run("--lake", built, "query", self.SQL, "--output", path, *words)
        assert (said.code, said.out) == (0, "")
        assert path.stat().st_mode & 0o777 == 0o600
        if name.endswith("parquet"):
            assert pq.read_table(path).column_names == ["n", "x"]
        elif name.endswith("json"):
            assert json.loads(path.read_text())[0].keys() == {"n", "x"}
        else:
            assert path.read_text().splitlines()[0] == "n,x"
        assert list(tmp_path.iterdir()) == [path]

    def test_reads_the_statement_from_stdin(self, run: Run, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.StringIO("select 42 as answer"))
        assert run("--lake", built, "--json", "query", "-").json == [{"answer": 42}]

    def test_reads_the_tables_as_they_were(self, run: Run, built: Path) -> None:
        newest, first = run("--lake", built, "--json", "history", "customers_trusted").json["snapshots"]
        sql = "select count(*) as n from customers_trusted"

        def counted(at: object) -> int:
            return int(run("--lake", built, "--json", "query", sql, "--at", at).json[0]["n"])

        now = run("--lake", built, "--json", "query", sql).json[0]["n"]
        assert now > 0
        assert counted(newest["id"]) == counted(newest["at"]) == counted("2999-01-01") == now
        assert counted(first["id"]) == counted(first["at"]) == 0

    @pytest.mark.parametrize(
        ("at", "words"),
        [
            ("1", "expected a live snapshot of customers_trusted, found none"),
            ("1999-01-01", "has no snapshot of that time"),
            ("yesterday", "expected a tag, a snapshot id or an ISO 8601 time"),
            ("9" * 19, "expected a live snapshot"),
            ("9" * 30, "expected a tag, a snapshot id or an ISO 8601 time"),
        ],
    )
    def test_a_moment_that_is_none_is_bad_usage(self, at: str, words: str, run: Run, built: Path) -> None:
        failed(run("--lake", built, "query", "select 1 from customers_trusted", "--at", at), 2, words)

    @pytest.mark.parametrize(
        "sql",
        [
            "drop table customers_trusted",
            "select 1; select 2",
            "select * from read_csv('/etc/passwd')",
            "selec 1",
            "",
            "select * from nothing",
            "copy (select 1) to 'x.csv'",
        ],
    )
    def test_a_statement_that_is_not_one_select_over_the_tables_is_refused_in_a_line(
        self, sql: str, run: Run, built: Path
    ) -> None:
        failed(run("--lake", built, "query", sql), 2)

    def test_a_query_that_fails_says_why_without_the_value(self, run: Run, built: Path) -> None:
        failed(run("--lake", built, "query", "select cast(email as integer) from customers_trusted"), 1)

    def test_whoever_stops_reading_hears_no_complaint(self, built: Path) -> None:
        sql = "select a.x, b.y from accelerometer_landing as a cross join accelerometer_landing as b"
        command = [sys.executable, "-m", "stedi.cli", "--lake", str(built), "query", sql, "--format", "csv"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == b"x,y\r\n"
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 141  # as `cat` ends in a shell


@pytest.mark.parametrize(
    ("words", "step"),
    [
        ("crawl IN", r"read files, 2 of \d+  \[ +\]   \d%"),
        ("ndjson IN OUT", r"rewrite files, 2 of \d+  \[ +\]   \d%"),
        ("report --output OUT.html", "gather the report"),
        ("quarantine --withheld", "look for withheld readings"),
        ("explain ana@example.com", "look for the customer"),
        ("verify LAKE", "check signatures"),
    ],
)
def test_what_reads_much_shows_its_progress(
    words: str, step: str, built: Path, sample_inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(terminal, "_AFTER", 0.0)
    monkeypatch.setattr(terminal, "_EVERY", 0.0)
    monkeypatch.setattr(sys, "stderr", screen := Screen())
    for name, path in (("LAKE", built), ("OUT", tmp_path / "out"), ("IN", sample_inbox)):
        words = words.replace(name, str(path))
    cli.main(["--lake", str(built), *words.split()])
    assert re.search(f"{step}  0:00 elapsed", screen.getvalue())


@pytest.mark.parametrize(
    ("words", "step"),
    [
        (("query", "select $a"), "use $NAME with --parameter NAME=VALUE"),
        (("quarantine", "--show", "xyz"), "`stedi quarantine --records` lists them"),
        (("watch", __file__), "expected a folder to watch, found something else; `stedi land` lands a single file"),
    ],
)
def test_a_refusal_says_what_would_be_taken(words: tuple[str, ...], step: str, run: Run, built: Path) -> None:
    failed(run("--lake", built, *words), 2, step)


def test_a_lake_without_a_name_is_not_the_default_one(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--lake", "", "tables"])
    assert "--lake: expected a folder or s3://BUCKET/PREFIX, found nothing: is a variable" in capsys.readouterr().err


def test_a_value_for_a_parameter_that_the_statement_lacks_is_named(run: Run, built: Path) -> None:
    told = "found a value for $b, but the statement has no such parameter"
    failed(run("--lake", built, "query", "select $a", "--parameter", "a=1", "--parameter", "b=2"), 1, told)


def test_a_parameter_without_a_value_among_others_is_named(run: Run, built: Path) -> None:
    told = "The query cannot run: found no value for $b: give it with --parameter NAME=VALUE"
    failed(run("--lake", built, "query", "select $a, $b", "--parameter", "a=1"), 1, told)


def test_a_watch_without_a_pause_is_refused_and_makes_no_lake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main(["--lake", str(tmp_path / "lake"), "watch", str(tmp_path), "--every", "0s"])
    assert "argument --every: expected more than 0s, such as 2s, found '0s'" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()


class TestResultsThatAreLost:
    """A command whose words nobody gets has done its work, and its exit code says that they are lost."""

    @pytest.mark.parametrize(
        "words", [("query", "from machine_learning_curated", "--format", "csv"), ("tables", "--json")]
    )
    @pytest.mark.parametrize("how", ["full", "gone"])
    def test_by_stdout(self, how: str, words: tuple[str, ...], built: Path) -> None:
        if how == "full":
            out = os.open("/dev/full", os.O_WRONLY)
        else:
            reader, out = os.pipe()
            os.close(reader)
        try:
            done = subprocess.run(
                [sys.executable, "-m", "stedi", "--lake", str(built), *words],
                stdout=out,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},  # each write fails at once, as in a long answer
                check=False,
            )
        finally:
            os.close(out)
        if how == "gone":
            assert (done.returncode, done.stderr) == (141, "")
        else:
            said = "stedi: stdout: cannot be written: No space left on device; what the command has done stays\n"
            assert (done.returncode, done.stderr) == (1, said)


class TestQuarantine:
    def test_lists_by_reason_record_by_record_and_as_json(self, run: Run, built: Path, sample_inbox: Path) -> None:
        answer = json.loads((sample_inbox / "_answer.json").read_text())
        expected = sum(count for reasons in answer["quarantined"].values() for count in reasons.values())
        document = run("--lake", built, "--json", "quarantine").json
        assert document.keys() == {"records", "total"}
        assert document["total"] == len(document["records"]) == expected
        for record in document["records"]:
            assert list(record) == ["feed", "file", "offset", "line", "reason"]
            assert record["reason"] in set(Reason)
        assert run("--lake", built, "quarantine").out.split()[:4] == ["reason", "feed", "file", "records"]
        listed = run("--lake", built, "quarantine", "--records").out
        handle = re.search(r"\b[0-9a-f]{12}:\d+\b", listed)
        assert handle is not None
        shown = run("--lake", built, "quarantine", "--show", handle[0])
        assert shown.code == 0
        assert shown.out.strip()

    def test_what_is_not_there_cannot_be_shown(self, run: Run, built: Path) -> None:
        failed(
            run("--lake", built, "quarantine", "--show", "nothing.json:0"),
            2,
            "expected one record of nothing.json:0, found none",
        )


class TestTools:
    def test_crawl_shows_types_and_drift_and_no_value(self, run: Run, sample_inbox: Path, private: set[str]) -> None:
        for words in ((), ("--json",)):
            said = run(*words, "crawl", sample_inbox / "customer", "--sample", 50)
            assert "shareWithResearchAsOfDate" in said.out
            assert not [secret for secret in private if secret in said.out]
        assert run("crawl", sample_inbox / "nowhere").code == 1

    def test_ddl_gives_both_dialects(self, run: Run) -> None:
        assert "create external table" in run("ddl").out.lower()
        document = run("--json", "ddl", "--dialect", "spark", "--location", "s3://b/lake", "--inbox", "s3://b/in").json
        assert document.keys() == {"dialect", "ddl"}
        assert "s3://b/lake" in document["ddl"]

    def test_ndjson_rewrites_and_counts(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "in.json").write_text('[{"a":1},{"a":2}]')
        said = run("ndjson", tmp_path / "in.json", tmp_path / "out.json")
        assert said.code == 0
        assert (tmp_path / "out.json").read_text() == '{"a":1}\n{"a":2}\n'
        assert run("--json", "ndjson", tmp_path / "in.json", tmp_path / "out2.json").json
        assert run("ndjson", tmp_path / "missing.json", tmp_path / "out3.json").code != 0

    def test_the_demo_shows_every_zone_and_can_be_run_again(
        self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        said = run("demo", "--customers", 12, "--readings", 100)
        assert said.code == 0
        for word in (*ZONES, "in quarantine", "are left out", "withheld", "samples a second"):
            assert word in said.out
        document = run("--json", "demo", "--customers", 12, "--readings", 100).json
        assert document.keys() == {"lake", "land", "build", "tables", "sampling"}
        assert "no step detector can be trained on these" in document["sampling"]
        assert {path.name for path in tmp_path.iterdir()} == {"build"}

    def test_the_demo_refuses_to_make_its_lake_elsewhere(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.chdir(tmp_path)
        assert cli.main(["--lake", "mine", "demo"]) == cli.main(["demo", "--lake", "mine"]) == 2
        assert capsys.readouterr().err.count("\n") == 2
        assert not list(tmp_path.iterdir())


class TestErrors:
    COMMANDS = (["tables"], ["history", "landed_files"], ["query", "select 1"], ["quarantine"])

    @pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
    def test_a_lake_that_is_not_there_is_said_in_a_line_and_not_made(
        self, command: list[str], run: Run, tmp_path: Path
    ) -> None:
        failed(run("--lake", tmp_path / "lake", *command), 1, "expected a lake, found none", "init")
        said = run("--json", "--lake", tmp_path / "lake", *command)
        assert said.json.keys() == {"error"}
        assert said.json["error"].keys() == {"type", "message", "exit"}
        assert (said.json["error"]["type"], said.json["error"]["exit"], said.code) == ("LakeError", 1, 1)
        assert said.json["error"]["message"] in said.err
        assert not (tmp_path / "lake").exists()

    def test_the_lake_is_the_one_named_then_the_environments_then_the_folders(
        self, run: Run, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(built.parent)
        assert run("tables").code == 0
        monkeypatch.setenv("STEDI_LAKE", str(tmp_path / "other"))
        failed(run("tables"), 1, "other")
        assert run("--lake", built, "tables").code == 0

    @pytest.mark.parametrize("command", ["land", "build"])
    @pytest.mark.parametrize("key", ["another", "none", "too short", "lost"])
    def test_without_its_key_nothing_is_read_or_written(
        self, command: str, key: str, run: Run, built: Path, inbox: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if key == "lost":
            monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
        else:
            secret = {"another": "00" * 32, "none": "", "too short": "5a" * 31}[key]
            monkeypatch.setenv("STEDI_PSEUDONYM_KEY", secret)
        before = tree(built)
        said = run("--lake", built, command, *([inbox] if command == "land" else []))
        failed(said, 1, "expected")
        assert "5a5a" not in said.err
        assert tree(built) == before
        assert run("--json", "--lake", built, command, *([inbox] if command == "land" else [])).json["error"][
            "type"
        ] == ("KeyRefused")

    def test_a_setting_that_is_unknown_is_bad_usage(self, run: Run, built: Path, tmp_path: Path) -> None:
        shutil.copytree(built, tmp_path / "lake")
        with (tmp_path / "lake" / "lake.toml").open("a") as settings:
            settings.write("\n[consents]\nreading = 'all'\n")
        failed(run("--lake", tmp_path / "lake", "tables"), 2, "unknown key", "consent.readings")

    def test_what_was_not_foreseen_is_said_without_its_text(
        self, run: Run, built: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(self: Lake) -> None:
            raise ValueError("Ana.Bo@private.example")

        monkeypatch.setattr(Lake, "tables", broken)
        said = run("--lake", built, "tables")
        failed(said, 1, "unforeseen ValueError at test_cli.py", "STEDI_DEBUG=1")
        assert "private" not in said.err
        monkeypatch.setenv("STEDI_DEBUG", "1")
        with pytest.raises(ValueError, match="private"):
            cli.main(["--lake", str(built), "tables"])

    def test_a_full_disk_is_said_in_a_line(self, run: Run, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(self: Lake) -> None:
            raise OSError(28, "No space left on device", "/somewhere")

        monkeypatch.setattr(Lake, "tables", full)
        failed(run("--lake", built, "tables"), 1, "/somewhere: No space left on device")

    def test_a_build_that_breaks_a_rule_exits_3(
        self, run: Run, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("stedi.transform.consent_check.violations", lambda _, people, **__: [1] * len(people))
        before = heads(Lake.open(built))
        said = run("--lake", built, "build", "--full")
        assert (said.code, said.out) == (3, "")
        assert "consent proof" in said.err.splitlines()[-1]
        assert said.err.splitlines()[-1].startswith("stedi: customers_trusted: ")
        assert heads(Lake.open(built)) == before

    def test_ctrl_c_in_this_process_is_an_interruption(
        self, run: Run, built: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(self: Lake) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

        monkeypatch.setattr(Lake, "tables", interrupted)
        failed(run("--lake", built, "tables"), 130, "interrupted: nothing in the lake was changed")

    @pytest.mark.parametrize(
        ("left", "words"),
        [
            (None, "what was committed stays"),
            (tombstones.PENDING, "`stedi erase --resume` finishes it"),
            (key_change.NAME, "`stedi build` finishes it"),
        ],
    )
    def test_what_is_true_after_an_interruption_is_said(
        self, left: str | None, words: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        root = Lake.create(tmp_path / "lake").root

        def interrupted(self: Lake, **_: object) -> None:
            if left:
                (root / left).write_text("{}")
            raise KeyboardInterrupt

        monkeypatch.setattr(Lake, "maintain", interrupted)
        failed(run("--lake", root, "maintain"), 130, "interrupted: ", words)

    @pytest.mark.parametrize(
        "words",
        [
            "aws status",
            "--lake s3://bucket/lake tables",
            "land s3://bucket/inbox/",
            "--lake s3://b/l status",
            "erase --yes a@b.org --inbox s3://b/i",
        ],
    )
    def test_a_missing_extra_is_one_line_that_names_it(
        self, words: str, run: Run, built: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STEDI_LAKE", str(built))
        for name in [name for name in sys.modules if name.partition(".")[0] in ("boto3", "botocore", "s3transfer")]:
            monkeypatch.delitem(sys.modules, name)
        for name in ("boto3", "botocore", "s3transfer"):
            monkeypatch.setitem(sys.modules, name, None)
        failed(run(*words.split()), 1, "boto3, which is not installed: pip install 'stedi[aws]'")
        assert not (built / "erasing.json").exists(), "an erasure that cannot reach its inbox begins nothing"

    @pytest.mark.parametrize(
        "words",
        [
            "--lake gs://b/l init",
            "--lake gs://b/l status",
            "land https://a/b.json",
            "erase --yes a@b.org --inbox gs://b/i",
        ],
    )
    def test_a_uri_that_is_neither_s3_nor_a_file_is_no_folder(
        self, words: str, run: Run, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("STEDI_LAKE", str(built))
        monkeypatch.chdir(tmp_path)
        failed(run(*words.split()), 2, "expected a path on this machine or s3://BUCKET/PREFIX, found another URI")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "words",
        ["query select(1) --output s3://b/o.csv", "land in --metrics-file s3://b/m", "audit --report s3://b/r.html"],
    )
    def test_results_are_files_on_this_machine(self, words: str, run: Run, built: Path) -> None:
        failed(run("--lake", built, *words.split()), 2, ": expected a file on this machine, found s3://b/")

    @pytest.mark.parametrize("words", ["verify PLACE", "dataset verify PLACE", "ndjson PLACE out", "crawl PLACE"])
    def test_what_reads_files_of_this_machine_says_so(self, words: str, run: Run) -> None:
        place = "s3://b/x"
        failed(run(*words.replace("PLACE", place).split()), 2, f"{place}: expected ", " on this machine")

    @pytest.mark.parametrize(
        "words",
        [
            *("query select(1) --output", "build --metrics-file", "dataset create a --output"),
            *("dataset verify", "verify", "erase a@b.org --file"),
        ],
    )
    def test_a_uri_is_no_path(self, words: str, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            cli.main([*words.split(), "gs://b/x"])
        assert ended.value.code == 2
        assert "expected a path on this machine, found the URI 'gs://b/x'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("moment", "kind"),
    [
        ("rebuild accelerometer_trusted", signal.SIGINT),
        ("audit", signal.SIGTERM),
    ],
)
def test_an_interrupted_build_leaves_tables_whole_and_the_next_finishes(
    moment: str, kind: signal.Signals, tmp_path: Path, sample_inbox: Path, built: Path
) -> None:
    root = tmp_path / "lake"
    lake = Lake.create(root)
    lake.land(sample_inbox)
    expected = contents(Lake.open(built))
    command = [*talkative.STEDI, "--lake", str(root), "build"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(moment):
                process.send_signal(kind)
                break
        rest = process.stderr.read()
        assert process.wait(60) == 130, rest
    assert "interrupted" in rest
    assert "Traceback" not in rest
    for table, found in contents(lake).items():
        assert found in (expected[table], type(found)()), "a table is as it was or as it should be"
    assert lake.build().run
    assert contents(lake) == expected


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_landing_lands_all_or_nothing_and_the_next_the_rest(
    kind: signal.Signals, tmp_path: Path
) -> None:
    sample.write(tmp_path / "inbox", customers=50, readings=60_000, seed=3)
    root = tmp_path / "lake"
    Lake.create(root)
    command = [*talkative.STEDI, "--lake", str(root), "land", str(tmp_path / "inbox")]
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("write"):
                process.send_signal(signal.SIGINT)
                break
        assert "Traceback" not in process.stderr.read()
        assert process.wait(60) in (0, 130)
    lake = Lake.open(root)
    landing = lake.land(tmp_path / "inbox")
    answer = json.loads((tmp_path / "inbox" / "_answer.json").read_text())
    assert landing.accepted == sum(answer["accepted"].values())
    assert rows(lake, "accelerometer_landing").total() == answer["accepted"]["accelerometer"]
    assert not any((root / "tmp").glob("landing/*"))


def test_bad_words_give_a_document_too(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        cli.main(["--json", "land"])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["exit"] == 2
    assert "PATH" in shown.err
