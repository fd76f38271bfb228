"""A lake that is restored, or lost and landed anew, and its journal replayed, is as if nothing had happened."""

from __future__ import annotations

import json
import random
import re
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import kills
import quick
from deliveries import customer, deliver, motion, step
from effort import tries
from erasing import dying
from lakes import BELOW_LANDING, Slate, build, conserved, contents, heads, records, rows
from stedi import cli, erasure
from stedi.context.progress import Progress
from stedi.errors import LakeError, UsageError
from stedi.lake import Lake
from stedi.privacy import journal
from stedi.privacy.state import StateRefused
from stedi.privacy.tombstones import Tombstones
from stedi.report import attestation
from stedi.storage.durable import Command

DAY = 86_400_000
NOW = 1_700_000_000_000
LATER = 2_000_000_000_000
PEOPLE = [f"{name}@x.example" for name in ("ana", "bo", "cy", "di", "ed")]


def record(who: str, update: int, consent: object = NOW - DAY, **more: object) -> dict[str, object]:
    return customer(who, consent, update, **{"serialNumber": who, "registrationDate": NOW - 9 * DAY, **more})


def readings(inbox: Path, people: list[str], at: int = NOW, name: str = "0.json") -> None:
    deliver(inbox, "accelerometer", [motion(who, at) for who in people], name)
    deliver(inbox, "step_trainer", [step(who, at) for who in people], name)


def instant(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def saved(lake: Lake, folder: Path) -> Path:
    """Returns a copy of the lake's folder, as a backup makes one."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(lake.root, folder))


def restored(lake: Lake, backup: Path) -> Lake:
    shutil.rmtree(lake.root)
    shutil.copytree(backup, lake.root)
    quick.forget()
    return Lake.open(lake.root)


def overlaid(lake: Lake, backup: Path) -> Lake:
    """A backup that was copied over the lake: what is newer stays beside it."""
    shutil.copytree(backup, lake.root, dirs_exist_ok=True)
    quick.forget()
    return Lake.open(lake.root)


def anew(lake: Lake) -> Lake:
    """Returns a new lake in the place of a lost one, under the same key."""
    shutil.rmtree(lake.root)
    quick.forget()
    return Lake.create(lake.root)


class History:
    """Random deliveries, withdrawals, erasures and builds, and a backup somewhere among them."""

    def __init__(self, seed: int, slate: Slate, folder: Path) -> None:
        self.random, self.lake, self.inbox = random.Random(seed), slate.wiped(), slate.inbox()
        self.backup, self.clock, self.files = folder / "backup", NOW, 0
        self.deliver(PEOPLE)
        self.lake.land(self.inbox)

    def deliver(self, people: list[str]) -> None:
        self.files += 1
        choices = [self.clock - DAY, ...]
        found = [record(who, self.clock, self.random.choice(choices)) for who in people]
        deliver(self.inbox, "customer", found, f"{self.files}.json")
        readings(self.inbox, people, self.clock, f"{self.files}.json")

    def go_on(self, steps: int) -> None:
        for _ in range(steps):
            self.clock += DAY
            some = self.random.sample(PEOPLE, self.random.randint(1, 2))
            match self.random.randrange(6):
                case 0 | 1:
                    self.deliver(some)
                    self.lake.land(self.inbox)
                case 2 | 3:
                    self.lake.withdraw([*some, f"{self.clock}@unknown.example"], now=instant(self.clock))
                case 4:
                    self.lake.erase(*some)
                case _:
                    build(self.lake, LATER)

    def expected(self) -> dict[str, object]:
        self.lake.land(self.inbox)
        build(self.lake, LATER)
        return dict(contents(self.lake))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.sample(full=4)
@pytest.mark.thorough
def test_who_replays_the_journal_has_the_tables_of_a_lake_that_was_never_lost(
    seed: int, slate: Slate, tmp_path: Path
) -> None:
    print("seed", seed)
    history = History(seed, slate, tmp_path)
    history.go_on(history.random.randrange(8))
    backup = saved(history.lake, history.backup)
    history.go_on(8)
    expected = history.expected()
    memory = history.lake.context.outside()
    back = overlaid if seed % 3 == 0 else restored
    losses: list[Callable[[], Lake]] = [lambda: back(history.lake, backup), lambda: anew(history.lake)]
    for lost in losses:
        lake = lost()
        lake.replay(memory.parent if seed % 2 else memory)
        lake.land(history.inbox)
        build(lake, LATER)
        assert contents(lake) == expected
        conserved(lake)
        again = lake.replay(memory)
        assert (again.new, again.withdrawals, again.receipts) == (0, 0, ()), "doing it twice changes nothing"
        build(lake, LATER)
        assert contents(lake) == expected


@pytest.fixture
def lost(slate: Slate) -> tuple[Lake, Path]:
    """A new lake in the place of a lost one, from which ana withdrew and bo was erased, and the lost one's journal."""
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [record(who, NOW) for who in PEOPLE])
    readings(inbox, PEOPLE)
    lake.land(inbox)
    lake.withdraw(PEOPLE[0], now=instant(NOW + DAY))
    lake.erase(PEOPLE[1])
    memory = lake.context.outside()
    return anew(lake), memory


def names(lake: Lake) -> list[str]:
    build(lake, LATER)
    return sorted(str(row[2]).partition("@")[0] for row in rows(lake, "customers_trusted"))


def test_a_replay_after_the_landing_takes_them_out_as_well(slate: Slate, lost: tuple[Lake, Path]) -> None:
    lake, memory = lost
    lake.land(slate._inbox)
    assert names(lake) == ["ana", "bo", "cy", "di", "ed"]
    done = lake.replay(memory)
    assert (done.entries, done.new, done.withdrawals, done.waiting, done.people) == (2, 2, 1, 0, 1)
    assert names(lake) == ["cy", "di", "ed"]
    conserved(lake)


def test_a_withdrawal_waits_for_its_customer_whatever_brings_the_record(slate: Slate, lost: tuple[Lake, Path]) -> None:
    lake, memory = lost
    assert lake.replay(memory).waiting == 1
    lake.land(deliver(slate._inbox, "customer", [record(PEOPLE[2], NOW)], "other.json"))
    assert (lake.root / "withdrawn").exists()
    lake.land(slate._inbox)
    assert not (lake.root / "withdrawn").exists()
    assert names(lake) == ["cy", "di", "ed"]


def test_a_newer_consent_of_the_website_wins_over_a_replayed_withdrawal(slate: Slate, lost: tuple[Lake, Path]) -> None:
    lake, memory = lost
    lake.replay(memory)
    deliver(slate._inbox, "customer", [record(PEOPLE[0], NOW + 2 * DAY)], "again.json")
    lake.land(slate._inbox)
    assert names(lake) == ["ana", "cy", "di", "ed"]


def test_who_registers_again_after_the_erasure_is_a_new_customer_of_the_restored_lake(
    slate: Slate, lost: tuple[Lake, Path]
) -> None:
    lake, memory = lost
    lake.replay(memory)
    after = int(time.time() * 1000) + DAY
    new = record(PEOPLE[1], after, after, registrationDate=after)
    deliver(slate._inbox, "customer", [new], "again.json")
    lake.land(slate._inbox)
    assert names(lake) == ["bo", "cy", "di", "ed"]


def test_readings_of_the_erased_go_from_a_backup_that_did_not_know_whose_they_were(
    slate: Slate, tmp_path: Path
) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    ana, bo = PEOPLE[:2]
    deliver(inbox, "customer", [record(bo, NOW, serialNumber="shared")])
    deliver(inbox, "accelerometer", [motion(bo, NOW + 1)])
    deliver(inbox, "step_trainer", [step("alone", NOW), step("shared", NOW), step("shared", NOW + 1)])
    lake.land(inbox)
    backup = saved(lake, tmp_path / "backup")
    hers = [record(ana, NOW, serialNumber=serial) for serial in ("alone", "shared")]
    lake.land(deliver(inbox / "more", "customer", hers), deliver(inbox / "more", "accelerometer", [motion(ana, NOW)]))
    lake.erase(ana)
    left = records(lake, "step_trainer_landing")
    assert left == {(NOW + 1, "shared", 246, None): 1}
    build(lake, LATER)
    expected, memory = contents(lake), lake.context.outside()
    lake = restored(lake, backup)
    lake.replay(memory)
    assert records(lake, "step_trainer_landing") == left
    conserved(lake)
    build(lake, LATER)
    assert contents(lake) == expected


@pytest.fixture(scope="module")
def kept(slate: Slate, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of a lake whose shared device somebody had claimed who was erased, of its journal, and of a backup.

    The backup was made before the claim.
    """
    folder = tmp_path_factory.mktemp("claims")
    lake, inbox = slate.wiped(), slate.inbox()
    ana, bo = PEOPLE[:2]
    deliver(inbox, "customer", [record(bo, NOW, serialNumber="shared")])
    deliver(inbox, "accelerometer", [motion(bo, NOW + 1)])
    deliver(inbox, "step_trainer", [step("shared", NOW + 1), step("shared", NOW + 2)])
    lake.land(inbox)
    lake.build()
    saved(lake, folder / "backup")
    lake.land(deliver(inbox / "more", "customer", [record(ana, NOW, serialNumber="shared")]))
    lake.erase(ana)
    shutil.copytree(lake.context.outside(), folder / "memory")
    saved(lake, folder / "lake")
    return folder


@pytest.fixture
def claimed(slate: Slate, kept: Path) -> Lake:
    """That lake."""
    return again(slate, kept, "lake")


def again(slate: Slate, kept: Path, which: str) -> Lake:
    """Puts the lake or its backup in its place, and the journal as it was then."""
    lake = restored(slate.wiped(), kept / which)
    shutil.rmtree(lake.context.outside(), ignore_errors=True)
    shutil.copytree(kept / "memory", lake.context.outside())
    return lake


def reasons(lake: Lake) -> dict[str, str]:
    """What the plan says of the tables that a build would do anything to."""
    return {found.step.table: found.step.reason for found in lake.plan().steps if found.step.action != "none"}


def claims_of(lake: Lake) -> str | None:
    """What the table that depends on claims says about those that it was built with."""
    current = lake.catalog.table("step_trainer_trusted").current
    assert current is not None
    return current.summary.get("stedi.claims")


def test_tables_of_a_backup_follow_a_claim_that_was_erased_after_it(slate: Slate, claimed: Lake, kept: Path) -> None:
    expected, known = contents(claimed), claims_of(claimed)
    assert known
    assert known == claimed.context.erased_claims()
    assert reasons(claimed) == {}, "the erasure left nothing to build"
    lake = again(slate, kept, "backup")
    assert claims_of(lake) is None
    assert contents(lake) != expected, "the device was bo's alone"
    lake.replay(lake.context.outside())
    assert contents(lake) == expected
    assert claims_of(lake) == known
    assert reasons(lake) == {}


def test_a_table_that_does_not_say_which_claims_it_knew_is_rebuilt_once(
    claimed: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as earlier:
        earlier.setattr(Tombstones, "claims_digest", lambda self, key: "")
        claimed.build(full=True)
        assert claims_of(claimed) is None
    assert reasons(claimed).keys() == {"step_trainer_trusted", "machine_learning_curated"}
    claimed.build()
    assert claims_of(claimed) == claimed.context.erased_claims()
    assert reasons(claimed) == {}


@pytest.mark.parametrize("ends", ["a second replay", "a build"])
def test_what_a_replay_has_not_rebuilt_when_it_dies_the_next_command_does(
    slate: Slate, claimed: Lake, kept: Path, ends: str
) -> None:
    expected, lake = contents(claimed), again(slate, kept, "backup")
    with dying(erasure, "build_due", 1):
        lake.replay(lake.context.outside())
    quick.forget()
    lake = Lake.open(lake.root)
    assert lake.status().due.tables.keys() == {"step_trainer_trusted", "machine_learning_curated"}
    if ends == "a build":
        lake.context.accept()
        lake.build()
    else:
        lake.replay(lake.context.outside())
    assert contents(lake) == expected
    before = heads(lake)
    lake.replay(lake.context.outside())
    assert heads(lake) == before


def test_a_replay_that_is_killed_anywhere_is_ended_by_the_next_command(slate: Slate, claimed: Lake, kept: Path) -> None:
    """By day at some files that it makes, moves or removes; where the lake is older still, a second replay ends it."""
    expected = contents(claimed)
    ended, number = Counter[str](), 0
    while True:
        number += tries(150, 70, 1)
        lake = again(slate, kept, "backup")
        lake.context.config = replace(lake.config, engine_threads=1)  # else a fork lacks threads of its engine
        if not kills.at(number, lambda lake=lake: lake.replay(lake.context.outside())):  # type: ignore[misc]
            break
        quick.forget()
        lake = Lake.open(lake.root)
        if lake.context.older() is None:
            lake.build()
            ended["build"] += 1
        else:
            lake.replay(lake.context.outside())
            ended["replay"] += 1
        assert contents(lake) == expected, number
        assert reasons(lake) == {}, number
    print(number, ended)
    assert ended.total()


def test_a_restored_lake_has_the_receipts_of_then_beside_the_new_one(slate: Slate, tmp_path: Path) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    lake.land(deliver(inbox, "customer", [record(who, NOW) for who in PEOPLE]))
    backup = saved(lake, tmp_path / "backup")
    then = [lake.erase(who)[-1] for who in PEOPLE[:2]]
    lake = restored(lake, backup)
    [now] = lake.replay(lake.context.outside()).receipts
    assert [receipt.id for receipt in lake.receipts()] == [*(receipt.id for receipt in then), now.id]
    assert all(lake.verify_receipt(receipt.id).holds for receipt in lake.receipts())
    assert not [found for check in lake.audit() for found in check.found]

    for found in attestation.verify(lake.root / "receipts", lake.root / "keys" / "sign.pub"):
        assert found.holds, found.problems
    assert set(now.document["replays"]) == {receipt.id for receipt in then}


def test_receipts_that_were_kept_elsewhere_do_where_no_journal_is_left(
    slate: Slate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    lake.land(deliver(inbox, "customer", [record(who, NOW) for who in PEOPLE]))
    backup = saved(lake, tmp_path / "backup")
    for who in PEOPLE[:2]:
        lake.erase(who)
    elsewhere = Path(shutil.copytree(lake.root / "receipts", tmp_path / "elsewhere"))
    lake = restored(lake, backup)
    done = lake.replay(elsewhere)
    assert (done.new, done.people, len(done.receipts), done.complete) == (2, 2, 1, False)
    assert not any(who in str(rows(lake, "customers_landing")) for who in PEOPLE[:2])
    with pytest.raises(LakeError, match="was rolled back"):
        lake.build()
    assert cli.main(["--lake", str(lake.root), "erase", "--replay", str(elsewhere)]) == 1
    assert "this was incomplete" in capsys.readouterr().err
    shutil.rmtree(lake.context.outside())  # as on a machine that knows nothing of the lake
    assert lake.replay(elsewhere).complete
    assert names(lake) == ["cy", "di", "ed"]
    assert [check for check in lake.audit() if check.violations] == []
    assert all(found.holds for found in attestation.verify(lake.root / "receipts"))
    [forged, *_] = elsewhere.iterdir()
    forged.write_bytes(forged.read_bytes().replace(b'"asked": 1', b'"asked": 2'))
    with pytest.raises(LakeError, match="expected a receipt"):
        lake.replay(elsewhere)


def test_a_replay_is_complete_whatever_is_withdrawn_right_after_it(
    slate: Slate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = slate.wiped()
    lake.land(deliver(slate.inbox(), "customer", [record(who, NOW) for who in PEOPLE]))
    lake.withdraw(PEOPLE[0])
    copies = Path(shutil.copytree(lake.context.outside(), tmp_path / "copies"))
    mending, beside = lake.context.mending, Lake.open(lake.root)

    @contextmanager
    def mended(*commands: Command, progress: Progress) -> Iterator[None]:
        with mending(*commands, progress=progress):
            yield
        beside.withdraw(PEOPLE[1])

    monkeypatch.setattr(lake.context, "mending", mended)
    assert lake.replay(copies).complete


@pytest.mark.parametrize("gone", [["tombstones"], ["receipts"], ["tombstones", "receipts"], ["older tombstones"]])
def test_tombstones_and_receipts_that_are_gone_are_put_back(slate: Slate, tmp_path: Path, gone: list[str]) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [record(who, NOW) for who in PEOPLE])
    lake.land(inbox)
    lake.erase(PEOPLE[0])
    older = (lake.root / "tombstones").read_bytes()
    lake.erase(PEOPLE[1])
    signed = {path.name: path.read_bytes() for path in (lake.root / "receipts").iterdir()}
    for name in gone:
        path = lake.root / name
        if name == "older tombstones":
            (lake.root / "tombstones").write_bytes(older)
        else:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    quick.forget()
    lake = Lake.open(lake.root)
    assert [check for check in lake.audit() if check.violations]
    if gone != ["receipts"]:
        with pytest.raises(LakeError, match="erase --replay"):
            lake.build()
    done = lake.replay(lake.context.outside())
    assert (done.new, done.receipts) == (0, ())
    assert {path.name: path.read_bytes() for path in (lake.root / "receipts").iterdir()} == signed
    assert [check for check in lake.audit() if check.violations] == []
    lake.land(deliver(inbox, "customer", [record(who, NOW + 1) for who in PEOPLE[:2]], "again.json"))
    assert names(lake) == ["cy", "di", "ed"]


def test_a_new_lake_keeps_the_receipts_of_the_lost_one_in_its_journal(lost: tuple[Lake, Path]) -> None:
    lake, memory = lost
    [now] = lake.replay(memory).receipts
    assert [receipt.id for receipt in lake.receipts()] == [now.id]
    entries = journal.entries(lake.root / journal.FOLDER, lake.key())
    erased = [entry.content["receipt"] for entry in entries if entry.what == "erasure"]
    assert {receipt["lake"] == lake.config.lake_id for receipt in erased} == {True, False}
    assert not [found for check in lake.audit() for found in check.found]


def test_no_entry_tells_whom_it_is_about(lost: tuple[Lake, Path]) -> None:
    _, memory = lost
    for path in memory.iterdir():
        content = re.sub(rb"[\w+/=]{40,}", b"", path.read_bytes())  # hashes and signatures have any two letters
        assert not any(who.encode() in content or who.partition("@")[0].encode() in content for who in PEOPLE[:2])
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("how", ["forged", "cut", "exchanged", "missing", "another key's"])
def test_a_journal_that_is_not_whole_changes_nothing(
    lost: tuple[Lake, Path], how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, memory = lost
    first, second, *_ = sorted(path for path in memory.glob("0*.json"))
    if how == "forged":
        first.write_bytes(first.read_bytes().replace(str(NOW + DAY).encode(), str(NOW + 2 * DAY).encode()))
    elif how == "cut":
        second.write_bytes(second.read_bytes()[:-9])
    elif how == "exchanged":
        second.write_bytes(first.read_bytes())
    elif how == "missing":
        first.unlink()
    else:
        monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "77" * 32)
        shutil.rmtree(lake.root)
        lake = Lake.create(lake.root)
    before = {name: state.current for name, state in lake.catalog.tables().items()}
    with pytest.raises((StateRefused, LakeError)):
        lake.replay(memory)
    assert {name: state.current for name, state in lake.catalog.tables().items()} == before
    assert not list((lake.root / journal.FOLDER).glob("*"))


def test_a_folder_without_a_journal_is_refused(lost: tuple[Lake, Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected a copy of a journal"):
        lost[0].replay(tmp_path)


def test_the_recipe_serves_a_lake_in_whose_journal_nothing_stands(slate: Slate, tmp_path: Path) -> None:
    """Nobody has ever withdrawn or been erased: there is nothing to replay, and the lake is no longer refused."""
    lake, inbox = slate.wiped(), slate.inbox()
    deliver(inbox, "customer", [record(PEOPLE[0], NOW)])
    backup = saved(lake, tmp_path / "backup")
    lake.land(inbox)
    lake = restored(lake, backup)
    with pytest.raises(LakeError, match="the lake was rolled back"):
        lake.land(inbox)
    assert lake.replay(lake.context.outside()).entries == 0
    assert lake.land(inbox).accepted == 1
    assert not any(check.found for check in lake.audit())


def test_the_command_says_what_was_replayed(lost: tuple[Lake, Path], capsys: pytest.CaptureFixture[str]) -> None:
    lake, memory = lost
    assert cli.main(["--lake", str(lake.root), "erase", "--replay", str(memory), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in ("entries", "new", "withdrawals", "waiting", "people")} == {
        "entries": 2, "new": 2, "withdrawals": 0, "waiting": 1, "people": 1,
    }  # fmt: skip
    assert cli.main(["--lake", str(lake.root), "erase", "--replay", str(memory)]) == 0
    assert "2 entries, 0 of them new to this lake" in capsys.readouterr().out


def test_every_table_below_landing_is_compared() -> None:
    assert len(BELOW_LANDING) == 5
