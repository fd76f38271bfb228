"""A lake that was rolled back is noticed by who has seen it further on, and by nobody else."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import quick
from deliveries import customer, deliver, motion
from lakes import Slate, contents
from stedi import cli
from stedi.context import Context, seen
from stedi.errors import LakeError
from stedi.lake import Lake
from stedi.privacy import journal
from stedi.schema.feeds import CONTRACTS
from stedi.storage import durable

NOW = 1_700_000_000_000
ANA, BO = "ana@x.example", "bo@x.example"
Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(agreed)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Said:
    def run(lake: Lake, *arguments: str) -> tuple[int, str, str]:
        code = cli.main(["--lake", str(lake.root), *arguments])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def agreed(lake: Lake, inbox: Path) -> None:
    """Two customers who agree, built."""
    both = [customer(who, NOW, NOW, serialNumber=who, registrationDate=NOW) for who in (ANA, BO)]
    deliver(inbox, "customer", both)
    deliver(inbox, "accelerometer", [motion(who, NOW) for who in (ANA, BO)])
    lake.land(inbox)
    lake.build()


def put_back(lake: Lake, kept: Path, *names: str) -> Lake:
    """Puts files of the lake's folder back to what they were, by name or glob; by default all of them."""
    quick.forget()
    if not names:
        shutil.rmtree(lake.root)
        shutil.copytree(kept, lake.root)
    for name in names:
        for path in [*lake.root.glob(name)]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for path in kept.glob(name):
            target = lake.root / path.relative_to(kept)
            shutil.copytree(path, target) if path.is_dir() else shutil.copyfile(path, target)
    return Lake.open(lake.root)


def later(lake: Lake, what: str) -> None:
    if what == "a withdrawal":
        lake.withdraw(ANA)
        lake.build()
    elif what == "an erasure":
        lake.erase(ANA)
    elif what == "a landing":
        lake.land(deliver(lake.root.parent / "more", "customer", [customer("cy@x.example", NOW, NOW)]))
    else:
        lake.build(full=True)


@pytest.mark.parametrize("what", ["a withdrawal", "an erasure", "a landing", "a build"])
@pytest.mark.parametrize(
    "names",
    [(), ("catalog.db", "*/*/checksums"), ("catalog.db", "*/*/checksums", "journal")],
    ids=["the folder", "catalog and checksums", "and the journal"],
)
@pytest.mark.sample(full=6)
def test_a_lake_that_was_set_back_is_refused_and_named(
    lake: Lake, tmp_path: Path, said: Said, what: str, names: tuple[str, ...]
) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(lake.root, kept)
    later(lake, what)
    if what == "an erasure" and names:
        pytest.skip("the files that the older catalog names are gone: every command says so")
    lake = put_back(lake, kept, *names)
    asked = (["withdraw", BO, "--yes"], ["erase", BO, "--yes"])
    for command in (["land", str(kept)], ["build"], *asked, ["maintain"], ["quarantine", "--replay"]):
        code, _, err = said(lake, *command)
        assert (code, err.count("was rolled back")) == (1, 1), (command, err)
    code, out, err = said(lake, "repair")
    assert (code, "was rolled back" in err) == (1, True)
    code, out, _ = said(lake, "audit", "--files")
    assert (code, "newest: lake: " in out) == (3, True)
    assert said(lake, "repair", "--accept-rollback")[0] == 0
    assert said(lake, "audit", "--files")[0] == 0
    assert said(lake, "build")[0] == 0
    assert said(lake, "audit")[0] == 0


def test_a_replay_of_the_quarantine_that_was_set_back_is_noticed(
    lake: Lake, tmp_path: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = customer("cy@x.example", NOW, NOW)
    del bare["registrationDate"]
    lake.land(deliver(tmp_path / "more", "customer", [bare]))
    kept = tmp_path / "kept"
    shutil.copytree(lake.root, kept)
    contract = CONTRACTS["customer"]
    fields = tuple(replace(f, required=f.required and f.name != "registrationDate") for f in contract.fields)
    monkeypatch.setitem(CONTRACTS, "customer", replace(contract, fields=fields))
    assert said(lake, "quarantine", "--replay")[:2] == (0, "landed 1 record; 0 stay in quarantine\n")
    code, _, err = said(put_back(lake, kept), "build")
    assert (code, "was rolled back" in err) == (1, True)


def test_older_tombstones_of_the_lakes_own_are_refused(lake: Lake, tmp_path: Path, said: Said) -> None:
    lake.erase(ANA)
    kept = tmp_path / "kept"
    shutil.copytree(lake.root, kept)
    lake.erase(BO)
    lake = put_back(lake, kept, "tombstones", "receipts")
    code, _, err = said(lake, "build")
    assert (code, "expected tombstones as new as" in err) == (1, True)
    assert said(lake, "audit")[0] == 3


def test_a_journal_that_is_cut_short_is_refused(lake: Lake, said: Said) -> None:
    lake.withdraw(ANA)
    for path in (lake.root / journal.FOLDER).iterdir():
        path.unlink()
    code, _, err = said(lake, "build")
    assert (code, "expected journal as new as" in err) == (1, True)


def test_a_lake_that_another_machine_has_written_further_is_accepted(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, there = os.environ["XDG_STATE_HOME"], str(tmp_path / "there")
    for turn, home in enumerate((there, here, there, there, here)):
        monkeypatch.setenv("XDG_STATE_HOME", home)
        lake.withdraw(f"{turn}@x.example")
        lake.build()
        entries = {path.name for path in lake.context.outside().glob("0*.json")}
        assert len(entries) == turn + 1, "each machine has the whole journal"


def test_a_machine_accepts_what_was_accepted_on_another(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    here, there = os.environ["XDG_STATE_HOME"], str(tmp_path / "there")
    kept = tmp_path / "kept"
    shutil.copytree(lake.root, kept)
    later(lake, "a withdrawal")
    monkeypatch.setenv("XDG_STATE_HOME", there)
    lake.maintain()
    lake = put_back(lake, kept)
    with pytest.raises(LakeError, match="was rolled back"):
        lake.build()
    lake.repair(accept_rollback=True)
    monkeypatch.setenv("XDG_STATE_HOME", here)
    lake.build()
    lake.withdraw(BO)
    lake = put_back(lake, kept)
    with pytest.raises(LakeError, match="was rolled back"):
        lake.build()


def test_a_mark_that_is_a_commit_behind_follows(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Context, "note_seen", lambda self: None)  # as if it had been killed right before
        lake.withdraw(ANA)
        lake.build()
    lake.build()
    assert journal.last(lake.context.outside()) == 1


def test_where_the_mark_is_gone_the_copies_of_the_journal_tell(lake: Lake, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    shutil.copytree(lake.root, kept)
    later(lake, "a withdrawal")
    (lake.context.outside() / seen.NAME).unlink()
    lake = put_back(lake, kept)
    with pytest.raises(LakeError, match="was rolled back"):
        lake.build()


def test_a_repair_that_makes_a_table_anew_is_no_rollback(lake: Lake, said: Said) -> None:
    [file] = lake.catalog.files(lake.catalog.table("customers_trusted"))
    Path(file.path).unlink()
    quick.forget()
    assert said(lake, "repair")[0] == 0
    assert said(lake, "audit", "--files")[0] == 0
    assert len(contents(lake)["customers_trusted"]) == 2


def test_where_nothing_can_be_noted_the_work_goes_on_and_one_line_says_so(
    lake: Lake, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file, where a folder is needed")
    monkeypatch.setenv("XDG_STATE_HOME", str(blocked))
    code, _, err = said(lake, "withdraw", ANA, "--yes", "--build")
    assert (code, err.count("cannot be recorded")) == (0, 1)
    assert len(contents(lake)["customers_trusted"]) == 1
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "free"))
    assert said(lake, "build")[0] == 0
    assert journal.last(lake.context.outside()) == 1, "what could not be copied then is copied now"


def test_the_journal_goes_where_the_setting_says(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_JOURNAL", str(tmp_path / "elsewhere"))
    lake = Lake.open(lake.root)
    lake.withdraw(ANA)
    [folder] = (tmp_path / "elsewhere").iterdir()
    assert {path.name[:8] for path in folder.iterdir()} == {"00000001", "seen.jso"}


def test_a_withdrawal_that_is_killed_before_it_is_decided_leaves_an_entry_at_most(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, content: bytes) -> None:
        real(path, content)
        raise KeyboardInterrupt

    real = durable.create
    with monkeypatch.context() as patch:
        patch.setattr(durable, "create", killed)
        with pytest.raises(KeyboardInterrupt):
            lake.withdraw(ANA)
    assert lake.withdraw(ANA).landed == 1
    lake.build()
    assert len(contents(lake)["customers_trusted"]) == 1


def test_looking_and_noting_cost_two_milliseconds_at_most(lake: Lake) -> None:
    taken = []
    for _ in range(20):
        began = time.perf_counter()
        lake.context.refuse_older()
        lake.context.note_seen()
        taken.append(time.perf_counter() - began)
    assert sorted(taken)[5] < 0.004, taken
    print(f"{sorted(taken)[10] * 1000:.2f} ms")
