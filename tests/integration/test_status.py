"""The history of runs says what ran and how it ended; status says what is late or wrong, and exits 3 if anything is."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import REPOSITORY, Slate
from stedi import Lake, cli
from stedi.context import runs
from stedi.errors import LakeError, StediError
from stedi.operations import status
from stedi.storage import config as settings
from stedi.storage import durable

DAY = timedelta(days=1)
ANA = "ana.of.the.hills@x.example"


def world(lake: Lake, inbox: Path) -> None:
    people = [ANA, "bo@x.example", "cy@x.example"]
    deliver(inbox, "customer", [customer(p, serialNumber=f"s{n}") for n, p in enumerate(people)])
    deliver(inbox, "accelerometer", [motion(p, 100) for p in people])
    deliver(inbox, "step_trainer", [step(f"s{n}", 100) for n in range(3)])
    lake.land(inbox)
    lake.build()


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("status"))


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(world)


def document(capsys: pytest.CaptureFixture[str], lake: Lake, *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert cli.main(["--lake", str(lake.root), "--json", *words]) == code
    return json.loads(capsys.readouterr().out)


def told(lake: Lake, count: int = 1) -> list[tuple[str, str, int | None]]:
    return [(run.command, run.outcome, run.rows) for run in islice(lake.runs(), count)]


def test_each_run_is_kept_with_its_rows_newest_first(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    assert told(lake, 2) == [("build", "done", 15), ("land", "done", 9)]
    lake.maintain(dry_run=True)  # changes nothing, and is no run
    lake.maintain()
    lake.withdraw("bo@x.example")
    assert told(lake, 3) == [("withdraw", "done", 1), ("maintain", "done", None), ("build", "done", 15)]
    found = document(capsys, lake, "runs", "--limit", "1")["runs"]
    assert [(run["command"], run["outcome"], run["error"]) for run in found] == [("withdraw", "done", None)]
    assert found[0]["seconds"] > 0


def test_what_makes_a_lake_and_what_hands_rows_out_are_runs_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = Lake.create(tmp_path / "lake")
    world(made, tmp_path / "inbox")
    made.export(ANA, output=tmp_path / "out")
    assert told(made, 5) == [
        *(("export", "done", 3), ("build", "done", 15)),
        *(("land", "done", 9), ("init", "done", None)),
    ]
    shutil.copytree(made.root, tmp_path / "copy")
    Lake.adopt(tmp_path / "copy")
    copy = Lake.open(tmp_path / "copy")
    assert told(copy) == [("adopt", "done", None)]
    assert (next(copy.runs()).seconds or 0) < 60


def test_no_id_in_json_is_a_number(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader of JSON may round whole numbers beyond 2^53; those that are no ids are counts, and smaller."""
    lake.query("select count(*) from customers_trusted").fetchall()
    lake.tag("now")
    for words in (["tables"], ["history", "customers_trusted"], ["log"], ["tag"], ["runs"], ["status"]):
        raw = json.dumps(document(capsys, lake, *words)).replace("\\", "")
        assert not re.search(r"[: ]\d{16,}\b", raw), words
        assert words[0] in ("runs", "status") or re.search(r'"\d{16,}"', raw), words


def test_a_terminal_shows_the_errors_of_runs_whole(
    lake: Lake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lake.land(*(lake.root / name for name in ("none", "nowhere"))).skipped
    error = "delivered files that could not be read: 2"
    for width, line in ((None, 2), (80, 3)):
        monkeypatch.setattr("stedi.cli.terminal.width", lambda *_, width=width: width)
        assert cli.main(["--lake", str(lake.root), "runs", "--limit", "1"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[line].endswith(error)
        assert max(map(len, lines)) <= (width or 200)


def test_a_run_that_fails_is_kept_without_a_value(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StediError):
        lake.withdraw(ANA, "no address")
    with pytest.raises(StediError):
        lake.create_dataset("gait", window=ANA)
    with monkeypatch.context() as patch:
        patch.setattr("stedi.transform.build", lambda *_, **__: (_ for _ in ()).throw(LakeError(f"{ANA}: expected")))
        with pytest.raises(LakeError):
            lake.build()
    assert [outcome for _, outcome, _ in told(lake, 3)] == ["failed"] * 3
    kept = b"".join(path.read_bytes() for path in (lake.root / runs.FOLDER).rglob("*") if path.is_file())
    assert b"hills" not in kept
    assert b"no address" not in kept
    assert next(lake.runs()).error == "<address>: expected"


def test_a_run_that_is_under_way_is_shown_and_one_that_finds_the_lake_busy_is_no_failure(lake: Lake) -> None:
    with runs.recorded(lake.context, "build"):
        assert told(lake) == [("build", "running", None)]
    with durable.lock(lake.root / "build.lock", wait=False), pytest.raises(StediError):
        lake.build()
    assert told(lake) == [("build", "busy", None)]
    assert lake.status().last["build"] == next(run for run in lake.runs() if run.outcome == "done")


def test_a_killed_run_is_shown_as_killed_and_the_next_run_makes_a_line_of_it(lake: Lake) -> None:
    child = os.fork()
    if not child:
        with runs.recorded(lake.context, "maintain"):
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert told(lake, 2) == [("maintain", "killed", None), ("build", "done", 15)]
    assert any("was killed" in line for line in lake.status().late)
    lake.maintain()
    assert told(lake, 3) == [("maintain", "done", None), ("maintain", "killed", None), ("build", "done", 15)]
    assert not list((lake.root / "runs" / "begun").iterdir())
    assert lake.status().ok


def test_a_line_that_a_full_disk_has_cut_costs_that_line_alone(lake: Lake) -> None:
    [file] = (lake.root / "runs").glob("*.jsonl")
    file.write_bytes(file.read_bytes()[:-20])
    assert told(lake) == [("land", "done", 9)]
    lake.build()
    assert told(lake, 2) == [("build", "done", 0), ("land", "done", 9)]


def test_a_disk_that_is_full_when_a_run_begins_leaves_no_run_that_looks_killed(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(runs.os, "write", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with runs.recorded(lake.context, "tag"):
            assert told(lake) == [("", "running", None)]
    assert told(lake, 2) == [("tag", "done", None), ("build", "done", 15)]


def test_a_run_that_begins_just_now_is_not_taken_for_killed(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before, hold = told(lake), runs.fcntl.flock
    seen: list[Any] = []

    def late(descriptor: int, how: int) -> None:
        if not seen:
            seen.append(())
            seen[0] = told(lake)  # as another run does that ends before this one holds its note
        hold(descriptor, how)

    monkeypatch.setattr(runs.fcntl, "flock", late)
    with runs.recorded(lake.context, "tag"):
        assert seen == [before]


def test_a_stray_file_among_the_notes_of_runs_hides_no_run(lake: Lake) -> None:
    before = [run.id for run in lake.runs()]
    notes = lake.root / "runs" / "begun"
    notes.mkdir(exist_ok=True)
    (notes / ("\u00b2" * 13 + "-0.json")).touch()
    assert [run.id for run in lake.runs() if run.command] == before


def test_a_history_that_cannot_be_written_keeps_nobody_from_working(lake: Lake) -> None:
    folder = lake.root / "runs"
    for path in folder.iterdir():
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    folder.write_bytes(b"")
    assert lake.build().run == ""
    assert list(lake.runs()) == []
    assert lake.status().last["build"] is not None, "the tables tell of a build, too"


@pytest.mark.parametrize(
    ("count", "told"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (2_950_000, "2.95 MB"),
        (999_600, "1 MB"),
        (270_600_000_000, "271 GB"),
        (7e12, "7 TB"),
    ],
)
def test_a_size_has_the_unit_that_fits(count: float, told: str) -> None:
    assert status.size(count) == told


def test_a_lake_that_is_up_to_date_is_well(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, lake, "status")
    assert found["ok"] is True
    assert found["late"] == found["unfinished"] == found["stale_releases"] == found["due"]["tables"] == []
    assert {name: run and run["outcome"] for name, run in found["last"].items()} == {
        "land": "done",
        "build": "done",
        "audit": None,
        "maintain": None,
    }
    assert 0 < found["disk"]["bytes"] < found["disk"]["free"]


def test_what_has_not_run_for_too_long_is_late(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    found = document(capsys, lake, "status", "--max-age", "0s", code=3)
    assert document(capsys, lake, "status", "--max-age", "36500d")["late"] == []
    assert [line.split(":")[0] for line in found["late"]] == ["land", "build"]
    assert lake.status(now=datetime.now(UTC) + timedelta(hours=25)).ok
    assert len(lake.status(now=datetime.now(UTC) + timedelta(hours=27)).late) == 2


def test_a_consent_change_that_is_not_built_is_counted_and_nobody_is_named(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.withdraw(ANA.upper())
    deliver(lake.root.parent / "more", "customer", [customer("new@x.example"), customer("Bo@x.example", update=150)])
    lake.land(lake.root.parent / "more")
    found = document(capsys, lake, "status")
    assert (found["due"]["withdrawn"], found["due"]["agreed"]) == (1, 1)
    assert "customers_trusted" in [table["name"] for table in found["due"]["tables"]]
    assert "@" not in json.dumps(found)
    late = lake.status(now=datetime.now(UTC) + timedelta(hours=27)).late
    assert any("withdrawals among it: 1" in line for line in late)
    lake.build()
    assert lake.status().due == status.Due({}, None, 0, 0)


def test_the_counts_of_due_consent_are_those_of_the_plan(lake: Lake) -> None:
    """Also where a consent date has come, and before the first build."""
    at = int(time.time() * 1000) + 3_600_000
    soon = datetime.fromtimestamp(at / 1000, UTC)
    record = customer("later@x.example") | {"shareWithResearchAsOfDate": at, "lastUpdateDate": at - 7_200_000}
    deliver(lake.root.parent / "later", "customer", [record])
    lake.land(lake.root.parent / "later")
    lake.build()
    due = lake.status(now=soon + timedelta(hours=1)).due
    assert (due.withdrawn, due.agreed, due.since) == (0, 1, soon)
    settings.write(settings.changed(lake.config, readings="since-consent"), lake.root / "lake.toml")
    changed = Lake.open(lake.root).status().due
    assert (changed.withdrawn, changed.agreed) == (0, 0)
    assert set(changed.tables) >= {"customers_trusted", "machine_learning_curated"}


def test_unfinished_work_is_said_with_what_finishes_it(lake: Lake) -> None:
    (lake.root / "pending" / "1795932946915-00000000.json").write_text("{}")
    (lake.root / "erasing.json").write_text("{}")
    found = lake.status()
    assert [re.findall("`(.*)`", line) for line in found.unfinished] == [["stedi build"], ["stedi erase --resume"]]
    assert set(found.unfinished) <= set(found.late)
    with durable.lock(lake.root / "land.lock", wait=False):
        assert lake.status().unfinished == (), "it is at work"


def test_expiry_is_late_once_it_has_been_due_for_too_long(lake: Lake) -> None:
    lake.withdraw("bo@x.example")
    lake.build()
    now = datetime.now(UTC)
    assert lake.status(now=now + 7 * DAY).overdue == 0
    found = lake.status(now=now + 9 * DAY)
    assert found.overdue >= 4
    assert any("stedi maintain" in line for line in found.late)


def test_a_missing_key_a_copy_and_a_damaged_catalog_are_wrong_and_the_rest_is_told(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
        [line] = lake.status().late
        assert "expected the pseudonym key" in line
    (lake.root / "catalog.db").write_bytes(b"no catalog")
    found = Lake.open(lake.root).status()
    assert any("catalog.db" in line for line in found.late)
    assert found.last["build"]


def test_without_the_key_status_says_that_claims_of_erased_customers_are_not_compared(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told() -> list[str]:
        with monkeypatch.context() as patch:
            patch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
            return [
                line for line in Lake.open(lake.root).status().late if line.startswith("claims of erased customers")
            ]

    assert not told(), "nobody was erased"
    lake.erase(ANA)
    [line] = told()
    assert "expected the lake's key" in line, "there is a key, of another lake"
    assert "more may wait for a build" in line


def test_a_clock_that_was_set_back_is_said(lake: Lake) -> None:
    found = lake.status(now=datetime.now(UTC) - 40 * DAY)
    assert [line for line in found.late if line.startswith("clock:")]


def test_a_disk_that_is_nearly_full_is_said(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    size = lake.status().disk.bytes
    full = shutil._ntuple_diskusage(10 * size, 9 * size, size)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    [line] = lake.status().late
    assert line.startswith("disk: expected")
    assert "stedi maintain" in line


def test_status_of_a_small_lake_takes_a_quarter_of_a_second(lake: Lake) -> None:
    words = [sys.executable, "-m", "stedi", "--lake", str(lake.root), "status"]
    spent = []
    for _ in range(3):
        before = os.times()
        assert subprocess.run(words, capture_output=True, check=False).returncode == 0
        after = os.times()
        spent.append(after.children_user + after.children_system - before.children_user - before.children_system)
    # bytecode may have to be compiled the first time, and always where it is not written
    limit = 0.25 if not sys.dont_write_bytecode else 0.75
    assert min(spent) <= limit, spent


@pytest.mark.own_processes
def test_two_at_once_keep_both_runs(lake: Lake) -> None:
    command = [sys.executable, "-m", "stedi", "--lake", str(lake.root), "tag"]
    started = [subprocess.Popen([*command, name], stderr=subprocess.DEVNULL) for name in ("one", "two")]
    assert [process.wait(60) for process in started] == [0, 0]
    assert told(lake, 2) == [("tag", "done", None)] * 2
    assert len({run.id for run in lake.runs()}) == 5


def test_the_recipe_of_a_backup_brings_back_a_lake_without_who_was_erased_since(lake: Lake) -> None:
    page = (REPOSITORY / "docs" / "operations.md").read_text("utf-8")
    copy, restore = re.findall(
        r"```sh\n(.*?)```", page.partition("## Backup\n")[2].partition("## Formats")[0], re.DOTALL
    )
    root, backup = lake.root, lake.root.parent / "backup"
    words = copy.partition("\nrsync -a ~")[0].replace("/data/lake", str(root)).replace("/backup/lake", str(backup))
    if shutil.which("rsync") is None:
        words = re.sub(r"rsync .* (\S+)/ (\S+)/", r"cp -a \1 \2", words)
    subprocess.run(["sh", "-c", words], check=True)
    lake.erase(ANA)
    shutil.rmtree(root)
    shutil.copytree(backup, root, symlinks=True)
    assert any("rolled back" in line for line in Lake.open(root).status().late)
    journal = str(Lake.open(root).context.outside())
    for line in restore.strip().splitlines():
        named = line.split()[1:]
        named = [journal if word.endswith("LAKE_ID.journal") else word for word in named]
        assert cli.main(["--lake", str(root), *named]) == 0
    assert Lake.open(root).known(ANA) == 0
