"""The access log: who was shown rows of people leaves one line, which tells nobody's, and which nobody edits."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import Slate
from stedi import Lake, cli
from stedi.context import access
from stedi.errors import LakeError, QueryFailed, QueryRefused, UsageError
from stedi.storage import config as settings

ANN, BEN = "ann@x.example", "ben@x.example"
LINES = 6


def two(lake: Lake, inbox: Path) -> None:
    """Two people, one of whom has a broken record, and a device that both claim."""
    deliver(inbox, "customer", [customer(ANN, customerName="Ann Lee"), customer(BEN), {"email": "broken@x.example"}])
    deliver(inbox, "accelerometer", [motion(ANN, 100), motion(BEN, 100), motion(BEN, 200)])
    deliver(inbox, "step_trainer", [step("s1", 100), step("s1", 200)])
    lake.land(inbox)
    lake.build()


def watched(lake: Lake, inbox: Path) -> None:
    """The same, looked at six times."""
    two(lake, inbox)
    for n in range(LINES):
        lake.query(f"select {n} from customers_trusted").arrow()


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(two)


@pytest.fixture
def logged(slate: Slate) -> Lake:
    return slate.made(watched)


def noticed(lake: Lake) -> list[str]:
    """What an audit finds of the log."""
    [check] = [check for check in lake.audit() if check.name == "access log"]
    return [found.found for found in check.found]


def file_of(lake: Lake) -> Path:
    [path] = (lake.root / access.FOLDER).glob("*.jsonl")
    return path


def content(lake: Lake) -> bytes:
    return b"".join(path.read_bytes() for path in (lake.root / access.FOLDER).rglob("*") if path.is_file())


def test_whatever_shows_or_hands_out_rows_of_people_leaves_one_line(lake: Lake) -> None:
    [record] = lake.quarantine().records()
    did: list[tuple[Callable[[], Any], tuple[Any, ...]]] = [
        (lambda: lake.query("select * from customers_trusted").arrow(), ("query", "officer", None, 2, "done")),
        (lambda: lake.query("select 1", role="scientist").arrow(), ("query", "scientist", None, 1, "done")),
        (lambda: lake.explain(ANN), ("explain", "", 1, ..., "done")),
        (lambda: lake.explain_rows("customers_landing", "true"), ("explain", "officer", None, 2, "done")),
        (lambda: lake.quarantine().raw(record.handle), ("quarantine", "", None, 1, "done")),
        (lambda: lake.withheld(), ("withheld", "", None, 1, "done")),
        (lambda: lake.create_dataset("gait", split="100/0/0"), ("dataset", "", None, 1, "done")),
        (lambda: lake.report(), ("report", "", None, None, "done")),
        (lambda: lake.consent(), ("consent", "", None, None, "done")),
        (lambda: lake.erase(ANN, "nobody@x.example"), ("erase", "", 2, None, "done")),
    ]
    snapshot = lake.history("customers_trusted")[0].id
    for number, (do, (verb, role, people, rows, ended)) in enumerate(did, 1):
        before = datetime.now(UTC) - timedelta(milliseconds=1)
        do()
        log = lake.log()
        assert len(log) == number, verb
        line = log[-1]
        assert (line.number, line.verb, line.role, line.people, line.ended) == (number, verb, role, people, ended)
        assert rows is ... or line.rows == rows, verb
        assert before <= line.time <= datetime.now(UTC)
    assert lake.log()[0].tables == {"customers_trusted": snapshot}
    assert not noticed(lake)


def test_no_value_address_or_statement_is_in_it(lake: Lake) -> None:
    lake.query(f"select customerName from customers_trusted where email = '{ANN}'").arrow()
    lake.query("select * from customers_trusted where email = $who", parameters={"who": BEN}).arrow()
    with pytest.raises(QueryRefused):
        lake.query(f"select '{ANN}' from from").arrow()
    with pytest.raises(UsageError):
        lake.query("select 1", role=ANN).arrow()  # type: ignore[arg-type] # a script's own mistake
    with pytest.raises(QueryRefused):
        lake.query(f'select * from "{ANN}"').arrow()
    lake.explain(ANN)
    lake.explain_rows("customers_landing", f"email = '{ANN}'")
    told = content(lake).lower()
    assert [line.verb for line in lake.log()] == [*["query"] * 5, *["explain"] * 2]
    assert not [word for word in (ANN, BEN, "ann lee", "x.example", "select") if word.encode() in told]


def test_how_an_access_ended_and_after_how_many_rows_is_in_it(lake: Lake) -> None:
    lake.query("select * from accelerometer_landing").arrow()
    with lake.query("select * from range(100_000), accelerometer_landing") as result:
        given = result.reader().read_next_batch().num_rows
    with pytest.raises(QueryFailed):
        lake.query("select cast(email as bigint) from customers_landing").arrow()
    with pytest.raises(QueryRefused):
        lake.query("select 1 from customers_landing", role="scientist").arrow()
    dropped = lake.query("select * from customers_landing")
    del dropped
    assert [(line.ended, line.rows) for line in lake.log()] == [
        ("done", 3), ("stopped", given), ("failed", 0), ("refused", 0), ("stopped", 0)
    ]  # fmt: skip


def test_one_whose_process_is_killed_is_in_it_all_the_same(lake: Lake) -> None:
    script = (
        "import os, sys, stedi\nlake = stedi.Lake.open(sys.argv[1])\n"
        "print(lake.query('select email from customers_trusted').fetchall() and lake.log()[-1].ended)\n"
        "held = lake.query('select email from customers_trusted')\nprint(lake.log()[-1].ended, flush=True)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(lake.root)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-9, "done\nunder way\n"), done.stderr
    assert [line.ended for line in lake.log()] == ["done", "cut off"]
    lake.query("select 1").arrow()
    log = lake.log()
    assert [(line.number, line.ended) for line in log] == [(1, "done"), (2, "cut off"), (3, "done")]
    assert list(log[1].tables) == ["customers_trusted"]
    assert not noticed(lake)


MUTANTS: dict[str, Callable[[list[bytes]], list[bytes]]] = {
    "a count is another": lambda lines: [*lines[:2], lines[2].replace(b'"rows": 2', b'"rows": 1'), *lines[3:]],
    "a user is another": lambda lines: [lines[0].replace(b'"user": "', b'"user": "x'), *lines[1:]],
    "the first is gone": lambda lines: lines[1:],
    "one in the middle is gone": lambda lines: [*lines[:3], *lines[4:]],
    "two have changed places": lambda lines: [lines[1], lines[0], *lines[2:]],
    "one is there twice": lambda lines: [*lines[:2], lines[1], *lines[2:]],
    "one is no line": lambda lines: [*lines[:2], b"{}", *lines[3:]],
    "one has a name twice": lambda lines: [lines[0][:-1] + b', "rows": 2}', *lines[1:]],
    "the last is gone": lambda lines: lines[:-1],
    "all are gone": lambda lines: [],
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_an_audit_notices_that(mutant: str, logged: Lake) -> None:
    logged.tag("now")  # a command that writes notes how far the log is
    path = file_of(logged)
    lines = path.read_bytes().splitlines()
    assert len(lines) == LINES
    assert not noticed(logged)
    path.write_bytes(b"".join(line + b"\n" for line in MUTANTS[mutant](lines)))
    assert noticed(logged)
    assert cli.main(["--lake", str(logged.root), "audit"]) == 3


def test_a_log_that_was_cut_short_is_noticed_whatever_is_written_afterwards(logged: Lake) -> None:
    logged.tag("now")
    path = file_of(logged)
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    for n in range(LINES):
        logged.query("select 1").arrow()
        logged.tag(f"later-{n}")
        assert noticed(logged) == ([f"{3 + n} lines"] if 3 + n < LINES else ["another of that number"])


def test_lines_of_many_at_once_are_all_there_in_one_chain(lake: Lake) -> None:
    def look(n: int) -> None:
        for _ in range(5):
            with access.noted(Lake.open(lake.root).context, "query", people=n):
                pass

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look, range(8)))
    assert [line.number for line in lake.log()] == list(range(1, 41))
    assert sorted(line.people for line in lake.log() if line.people is not None) == sorted([*range(8)] * 5)
    assert not noticed(lake)


def test_half_a_line_of_a_power_cut_is_nobodys_and_the_log_goes_on(logged: Lake) -> None:
    path = file_of(logged)
    with open(path, "ab") as stream:
        stream.write(path.read_bytes().splitlines()[-1][:50])
    logged.query("select 1").arrow()
    assert len(logged.log()) == LINES + 1
    assert not noticed(logged)


def test_maintenance_keeps_what_its_days_say_and_the_rest_stays_proven(logged: Lake) -> None:
    path = file_of(logged)
    older = path.with_name("2020-01-01.jsonl")
    path.rename(older)  # as if they had been of that day
    logged.query("select 1").arrow()
    assert len(logged.log()) == LINES + 1
    assert not noticed(logged)
    kept = older.read_bytes()
    assert logged.maintain(dry_run=True).accesses == LINES
    assert logged.maintain().accesses == LINES
    assert not older.exists()
    assert [(line.number, line.verb) for line in logged.log()] == [(LINES + 1, "query"), (LINES + 2, "trim")]
    assert logged.log()[-1].rows == LINES
    assert logged.maintain().accesses == 0
    assert not noticed(logged)
    older.write_bytes(kept)  # as after a crash between the two
    assert not noticed(logged)
    older.unlink()
    lines = file_of(logged).read_bytes().splitlines(keepends=True)
    file_of(logged).write_bytes(lines[1])
    assert noticed(logged) == [f"line {LINES + 2}"]


def test_what_an_officer_would_see_is_not_shown_where_it_cannot_be_noted(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.context.say = lambda line: print(line, file=sys.stderr)
    sql = "select email from customers_trusted"
    (lake.root / access.FOLDER / "begun").parent.mkdir()
    (lake.root / access.FOLDER / "begun").write_text("")
    for _ in range(2):  # for want of a place, then of a key
        with pytest.raises(LakeError, match="access log") as refused:
            lake.query(sql).arrow()
        assert "nothing was shown" in str(refused.value)
        with pytest.raises(LakeError):
            lake.explain(ANN)
        assert lake.query(sql, role="engineer").fetchall() == [(None,), (None,)]
        assert "not in the access log" in capsys.readouterr().err
        monkeypatch.delenv("STEDI_PSEUDONYM_KEY", raising=False)
    assert lake.log() == ()


def test_on_a_volume_that_is_mounted_read_only_an_auditor_sees_everything_and_is_told_that_nothing_is_noted(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def mounted_read_only(path: object, *_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    lake.context.say = lambda line: print(line, file=sys.stderr)
    monkeypatch.setattr(access.durable, "folder", mounted_read_only)
    assert len(lake.query("select email from customers_trusted").fetchall()) == 2
    assert lake.explain(ANN).history
    assert capsys.readouterr().err.count("not in the access log") == 2


def test_a_line_of_another_lake_under_the_same_key_is_none_of_this_ones(slate: Slate, tmp_path: Path) -> None:
    other = Lake.create(tmp_path / "other")
    other.query("select 1").arrow()
    lake = slate.made(watched)
    path = file_of(lake)
    path.write_bytes(file_of(other).read_bytes())
    assert noticed(lake) == ["another content"]


def test_stedi_log_lists_it_for_people_and_for_scripts(logged: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--lake", str(logged.root), "log"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 2 + LINES
    assert max(map(len, printed)) <= 100
    assert "customers_trusted" in printed[-1]
    last = logged.log()[-1]
    assert cli.main(["--lake", str(logged.root), "--json", "log", "--since", last.time.isoformat()]) == 0
    found = json.loads(capsys.readouterr().out)["accesses"]
    assert found[-1]["number"] == LINES
    assert found[-1]["rows"] == 2
    with pytest.raises(SystemExit):
        cli.main(["--lake", str(logged.root), "log", "--since", "yesterday"])


def test_the_log_is_kept_as_long_as_the_settings_say(logged: Lake) -> None:
    file = logged.root / "lake.toml"
    settings.write(settings.changed(settings.read(file), access_days=0.0), file)
    assert Lake.open(logged.root).maintain().accesses == 0  # of today nothing goes
    assert len(logged.log()) == LINES
