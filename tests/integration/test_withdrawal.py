"""Withdrawal by command: who is taken out, what brings them back, and what is never made up for it."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

import quick
from deliveries import customer, deliver, instant, motion, step
from lakes import BELOW_LANDING, Slate, build, conserved, contents, heads, records, rows
from stedi import cli
from stedi.catalog import Catalog
from stedi.cli import terminal
from stedi.errors import UsageError
from stedi.lake import Lake
from stedi.landing import journal, withdrawal
from stedi.landing.withdrawal import SAME, Withdrawal

NOW = 1_000
ANA, BO = "ana@x.example", "bo@x.example"


Said = Callable[..., tuple[int, str, str]]


@pytest.fixture
def built(slate: Slate) -> Lake:
    return slate.made(sharing)


def sharing(lake: Lake, inbox: Path) -> None:
    """Two customers who agree and share a device, each with readings of their own, built at `NOW`."""
    ana = customer(ANA, serialNumber="s1", customerName="Ana", phone="+1555010", shareWithPublicAsOfDate=20)
    deliver(inbox, "customer", [ana, customer(BO, serialNumber="s1"), customer(BO, update=99, serialNumber="s2")])
    deliver(inbox, "accelerometer", [motion(ANA, 100), motion(ANA, 120), motion(BO, 110)])
    deliver(inbox, "step_trainer", [step("s1", 100), step("s1", 110), step("s1", 120), step("s2", 110)])
    assert lake.land(inbox).quarantined == 0
    build(lake, NOW)
    assert people(lake) == {BO, ANA}


def people(lake: Lake) -> set[str]:
    """Who has rows in every table below landing, and in none of them if not in all."""
    names = {lake.key().customer_id(name): name for name in (ANA, BO, "new@x.example")}
    found = [{names[str(row[0])] for row in rows(lake, table)} for table in BELOW_LANDING]
    assert all(others == found[0] for others in found), found
    return found[0]


def withdraw(lake: Lake, *addresses: str, at: int = NOW) -> Withdrawal:
    return lake.withdraw(addresses, now=datetime.fromtimestamp(instant(at) / 1000, UTC))


def land(lake: Lake, inbox: Path, *found: dict[str, object]) -> None:
    lake.land(deliver(inbox, "customer", found, f"{len(list(inbox.rglob('*.json')))}-more.json"))


def test_who_withdraws_is_in_no_table_below_landing_and_nobody_else_leaves(built: Lake) -> None:
    before = contents(built)
    ana = built.key().customer_id(ANA)
    assert withdraw(built, " ANA@x.example", ANA) == Withdrawal(customers=1, landed=1, unknown=0, already=0, erased=0)
    assert built.plan().leaving == (ana,)
    build(built, NOW)
    for table in BELOW_LANDING:
        assert contents(built)[table] == {row: n for row, n in before[table].items() if row[0] != ana}, table
    conserved(built)
    after = contents(built)
    build(built, NOW, full=True)
    assert contents(built) == after


def test_a_withdrawal_right_after_the_first_build_rewrites_the_files_of_whom_it_concerns_alone(built: Lake) -> None:
    """Nothing is rebuilt: who stays keeps the files that hold nobody who goes, and gets no new row."""
    before = {table: built.catalog.files(built.catalog.table(table)) for table in BELOW_LANDING}
    gone = built.key().customer_id(ANA)
    holding = {t: {f.path for f in files if gone in held(f.path)} for t, files in before.items()}
    withdraw(built, ANA)
    made = {table.name: table for table in build(built, NOW).tables}
    assert {table: (made[table].action, made[table].rows_added) for table in BELOW_LANDING} == dict.fromkeys(
        BELOW_LANDING, ("by-customer", 0)
    )
    for table, files in before.items():
        assert made[table].rows_removed > 0
        left = {file.path for file in built.catalog.files(built.catalog.table(table))}
        assert {file.path for file in files} - left == holding[table], table


def held(path: str) -> set[str]:
    """Returns the customers of whom a file holds rows."""
    import pyarrow.parquet as pq

    return set(pq.read_table(path, columns=["customer_id"]).column(0).to_pylist())


def test_the_record_is_landed_again_without_consent_and_with_all_else(built: Lake) -> None:
    before = records(built, "customers_landing")
    withdraw(built, ANA)
    [landed] = (records(built, "customers_landing") - before).elements()
    assert landed == ("Ana", ANA, "+1555010", None, "s1", 10, NOW, None, 20, None, None)


def test_a_device_stays_claimed_by_who_withdrew(built: Lake) -> None:
    withdraw(built, ANA)
    build(built, NOW)
    bo = built.key().customer_id(BO)
    assert rows(built, "step_trainer_trusted") == {(bo, 110, "s1", 246): 1, (bo, 110, "s2", 246): 1}


def test_only_a_newer_record_brings_back(built: Lake, slate: Slate) -> None:
    inbox = slate.inbox()
    withdraw(built, ANA)
    for update, back in ((NOW - 1, False), (NOW, False), (NOW + 1, True)):
        land(built, inbox, customer(ANA, update=update))
        build(built, NOW + 1)
        assert (ANA in people(built)) == back, update


def test_a_record_from_the_future_does_not_outlive_a_withdrawal(built: Lake, slate: Slate) -> None:
    inbox = slate.inbox()
    land(built, inbox, customer(ANA, update=9_000))
    withdraw(built, ANA)
    land(built, inbox, customer(ANA, consent=60, update=9_000), customer(ANA, consent=60, update=8_999))
    build(built, 10_000)
    assert ANA not in people(built)
    land(built, inbox, customer(ANA, update=9_001))
    build(built, 10_000)
    assert ANA in people(built)


def test_a_consent_to_come_is_withdrawn_too(built: Lake, slate: Slate) -> None:
    land(built, slate.inbox(), customer(ANA, consent=5_000, update=500))
    withdraw(built, ANA)
    build(built, 6_000)
    assert ANA not in people(built)


def test_a_withdrawal_of_somebody_unknown_holds_against_older_records_that_come_later(
    built: Lake, slate: Slate
) -> None:
    inbox, new = slate.inbox(), "new@x.example"
    assert withdraw(built, "New@X.example") == Withdrawal(customers=1, landed=1, unknown=1, already=0, erased=0)
    before = contents(built)
    withheld = build(built, NOW).withheld
    assert contents(built) == before
    motions = deliver(inbox, "accelerometer", [motion(new, 100)])
    steps = deliver(inbox, "step_trainer", [step("s9", 100)])
    built.land(motions, steps)
    for update, there in ((NOW - 1, False), (NOW, False), (NOW + 1, True)):
        land(built, inbox, customer(new, update=update, serialNumber="s9"))
        assert build(built, NOW + 1).withheld == withheld
        assert (new in people(built)) == there, update
    conserved(built)
    after = contents(built)
    build(built, NOW + 1, full=True)
    assert contents(built) == after


@pytest.mark.parametrize("later", [0, 1, 500, 10_000_000])
def test_a_withdrawal_holds_against_a_record_from_the_future_even_when_its_time_has_come(
    built: Lake, slate: Slate, later: int
) -> None:
    land(built, slate.inbox(), customer(ANA, update=NOW + later))
    withdraw(built, ANA)
    for now in (NOW, NOW + later, NOW + later + 1):
        build(built, now)
        assert ANA not in people(built), now


def test_nothing_is_made_up_of_somebody_unknown(built: Lake) -> None:
    before = records(built, "customers_landing")
    withdraw(built, "new@x.example", "other@x.example")
    landed = records(built, "customers_landing") - before
    assert landed == {(None, who, *[None] * 4, NOW, *[None] * 4): 1 for who in ("new@x.example", "other@x.example")}
    # no serial number is claimed: two such withdrawals do not share a device, and a reading of none is nobody's
    build(built, NOW)
    assert built.withheld() == ()


def test_withdrawing_twice_adds_nothing(built: Lake) -> None:
    withdraw(built, ANA, "new@x.example")
    build(built, NOW)
    before = heads(built)
    again = withdraw(built, "new@X.example", f" {ANA} ", at=NOW + SAME)
    assert again == Withdrawal(customers=2, landed=0, unknown=0, already=2, erased=0)
    assert heads(built) == before


def test_a_later_word_holds_against_a_consent_that_was_given_before_it_and_delivered_after(
    built: Lake, slate: Slate
) -> None:
    withdraw(built, ANA)
    assert withdraw(built, ANA, at=NOW + SAME + 1).landed == 1
    land(built, slate.inbox(), customer(ANA, update=NOW + 500))
    build(built, NOW + SAME)
    assert ANA not in people(built)


@pytest.mark.parametrize("address", ["", "  ", "a\0@x.example", "\udcff@x.example"])
def test_what_is_no_address_is_named_by_its_place_and_nothing_is_landed(built: Lake, address: str) -> None:
    before = heads(built)
    with pytest.raises(UsageError, match=r"^address 2: expected one plain email address, found .*; nothing was done$"):
        built.withdraw([ANA, address])
    assert heads(built) == before


def test_one_address_is_not_taken_for_its_letters(built: Lake) -> None:
    assert built.withdraw(ANA).customers == 1


def test_no_address_withdraws_nobody(built: Lake) -> None:
    assert built.withdraw([]) == Withdrawal(0, 0, 0, 0, 0)


def test_of_who_was_erased_nothing_is_taken_in_again_unless_they_came_back(
    built: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(withdrawal.tombstones, "erased_at", lambda root, key, address: datetime.now(UTC))
    found = withdraw(built, "New@x.example", ANA)
    assert found == Withdrawal(customers=2, landed=1, unknown=0, already=0, erased=1)
    assert not [row for row in records(built, "customers_landing") if row[1] == "new@x.example"]


def test_quotes_and_odd_letters_are_letters(built: Lake) -> None:
    odd = ["o'brien@x.example", 'a"; drop table x; --@x.example', "zoe\u0308@x.example", "ZOË@x.example"]
    assert built.withdraw(odd, exact=True).landed == 3
    assert built.withdraw(["zoë@x.example"]).already == 1


@pytest.mark.parametrize("table", ["customers_landing", "landed_files"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_one_that_dies_in_a_commit_is_finished_by_the_next_and_stands_once(
    built: Lake, monkeypatch: pytest.MonkeyPatch, table: str, moment: str
) -> None:
    real = Catalog.append

    def dies(catalog: Catalog, name: str, *arguments: Any, **options: Any) -> Any:
        if name == table and moment == "before":
            raise KeyboardInterrupt
        result = real(catalog, name, *arguments, **options)
        if name == table:
            raise KeyboardInterrupt
        return result

    before = records(built, "customers_landing")
    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "append", dies)
        with pytest.raises(KeyboardInterrupt):
            withdraw(built, ANA, "new@x.example")
    assert withdraw(built, ANA, "new@x.example").already == 2
    assert (records(built, "customers_landing") - before).total() == 2
    conserved(built)


def test_one_that_fails_before_its_journal_leaves_nothing(built: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    before, files = heads(built), {path for path in built.root.rglob("*") if path.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(journal, "write", full)
        with pytest.raises(OSError, match="No space left"):
            withdraw(built, ANA)
    assert heads(built) == before
    assert {path for path in built.root.rglob("*") if path.is_file()} - files <= {
        built.root / "land.lock",
        built.root / "journal" / "00000001.json",  # what was asked for; nothing says that it was done
    }
    assert withdraw(built, ANA).landed == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems do not let a process change its title")
def test_an_address_does_not_stay_in_the_list_of_processes(built: Lake) -> None:
    command = [sys.executable, "-m", "stedi.cli", "--lake", str(built.root), "withdraw", "--yes", ANA, "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        title, ends = b"", time.monotonic() + 20
        while b"\0*************\0" not in title and time.monotonic() < ends:
            time.sleep(0.02)
            title = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        out, _ = process.communicate(b"new@x.example\n")
    assert ANA.encode() not in title
    assert b"withdraw\0--yes\0*************\0" in title
    assert process.returncode == 0
    assert b"2 withdrawals landed" in out


def test_the_audit_holds_before_the_build_and_after_it_with_withdrawals_of_known_and_unknown(built: Lake) -> None:
    withdraw(built, ANA, "new@x.example")
    for _ in range(2):
        assert not [check for check in built.prove().checks if check.violations]
        build(built, NOW)


def test_a_withdrawal_survives_maintenance(built: Lake) -> None:
    withdraw(built, ANA, "new@x.example")
    build(built, NOW)
    before = contents(built), records(built, "customers_landing")
    built.maintain()
    quick.forget()
    build(built, NOW, full=True)
    assert (contents(built), records(built, "customers_landing")) == before


@pytest.fixture
def said(built: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], _signals: None) -> Said:
    """Runs `stedi withdraw` on the lake."""

    def run(*words: str, stdin: str = "") -> tuple[int, str, str]:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        code = cli.main(["--lake", str(built.root), "withdraw", *words])
        found = capsys.readouterr()
        for name in ("ana@", "bo@", "new@"):
            assert name not in found.out.lower() + found.err.lower()
        return code, found.out, found.err

    return run


@pytest.fixture
def _signals() -> Iterator[None]:
    mask, handlers = os.umask(0o022), {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)}
    yield
    os.umask(mask)
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_the_command_takes_arguments_a_file_and_stdin_and_builds_at_once(
    said: Said, built: Lake, tmp_path: Path
) -> None:
    (tmp_path / "list").write_bytes(b"\xef\xbb\xbf\nBO@x.example \r\n\n")
    code, out, _ = said(
        ANA, "-", "--file", str(tmp_path / "list"), "--yes", "--build", "--json", stdin="new@x.example\n"
    )
    found = json.loads(out)
    build_found = found.pop("build")
    assert (found.pop("history_days"), found.pop("tags")) == (7.0, [])
    counts = {"customers": 3, "landed": 3, "unknown": 1, "already": 0, "erased": 0}
    assert (code, found) == (0, {**counts, "stale": []})
    assert [table["rows"] for table in build_found["tables"]] == [0] * 5
    assert people(built) == set()
    assert said(ANA, "--yes", "--json")[1].strip().endswith('"already": 1, "erased": 0, "stale": [], "build": null}')


def test_the_command_does_nothing_that_nobody_has_said_yes_to(said: Said, built: Lake) -> None:
    before = heads(built)
    assert said(ANA)[0] == 2
    assert said()[0] == 2
    assert said("--yes")[0] == 2
    assert said("--yes", "--file", "/nowhere/at/all")[0] == 2
    assert said("--yes", ANA, " ")[0] == 2
    assert heads(built) == before


def test_the_command_says_what_it_did(said: Said) -> None:
    code, out, err = said(ANA, "new@x.example", "--yes")
    assert code == 0
    assert "not known to the lake: argument 2; check the spelling" in err
    assert "2 customers: 2 withdrawals landed; 1 of them for customers unknown to the lake" in out
    assert "stedi build" in out
    assert "built: " in said(ANA, "--yes", "--build")[1]
    assert err


def test_of_who_was_erased_the_command_says_that_nothing_was_landed_and_promises_nothing(
    said: Said, built: Lake
) -> None:
    built.erase(ANA)
    assert said(ANA, "--yes") == (0, "1 customer: 0 withdrawals landed; 1 erased, for whom nothing was landed\n", "")


def test_a_dry_run_says_who_is_known_and_agrees_and_where_the_others_stand(
    said: Said, built: Lake, tmp_path: Path
) -> None:
    withdraw(built, BO)
    before = heads(built)
    (tmp_path / "list").write_text(f"{BO}\n\nanna@x.example\n{ANA.upper()}\n")
    words = ("--dry-run", ANA, "--file", str(tmp_path / "list"))
    code, out, _ = said(*words)
    assert code == 0
    assert "customers: 2 of 3 known, 1 of them consent now" in out
    assert "not known to the lake: --file, line 3" in out
    assert json.loads(said(*words, "--json")[1]) == {
        "customers": 3, "known": 2, "agreeing": 1, "unknown": ["--file, line 3"]
    }  # fmt: skip
    assert heads(built) == before


@pytest.mark.usefixtures("_signals")
def test_the_question_names_the_place_of_a_mistyped_address(built: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(terminal, "confirmed", lambda question, **_: asked.append(question()))
    assert cli.main(["--lake", str(built.root), "withdraw", ANA, "annna@x.example"]) == 2
    assert asked == ["withdraw 2 customers from research (1 of 2 known; not known: argument 2)? [y/N]"]
