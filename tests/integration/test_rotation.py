"""Another key: every pseudonym becomes another and no row else, in one step, whatever ends it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import proof_mutants
from deliveries import customer, deliver, motion, step
from effort import NIGHTLY
from lakes import BELOW_LANDING, Row, contents, heads, tree, unseen
from stedi import cli
from stedi.catalog import Catalog
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, CommitConflict, KeyRefused, LakeBusy
from stedi.lake import Lake
from stedi.operations.maintenance import key_rotation
from stedi.privacy import key_change, pseudonyms, signatures, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.storage import config as settings

SECRET, OTHER, THIRD = (bytes([n]) * 32 for n in (1, 2, 3))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A built lake, its key `first.key` beside it, and a copy of both."""
    folder = tmp_path_factory.mktemp("rotation")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STEDI_PSEUDONYM_KEY")
        (folder / "keys").mkdir()
        lake = Lake.create(folder / "lake", key_file=folder / "keys" / "first.key")
        proof_mutants.deliver_people(folder / "inbox")
        lake.land(folder / "inbox")
        lake.build()
        deliver(folder / "more", "accelerometer", [motion("bob@x.example", 105)])
        lake.land(folder / "more")
        lake.build()
        for part in ("lake", "keys"):
            shutil.copytree(folder / part, folder / "kept" / part)
    return folder


@pytest.fixture
def lake(kept: Path, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    for part in ("lake", "keys"):
        shutil.rmtree(kept / part)
        shutil.copytree(kept / "kept" / part, kept / part)
    return unseen(kept / "lake")


def renamed(rows: dict[str, Counter[Row]], old: Key, new: Key) -> dict[str, Counter[Row]]:
    """The rows under another key."""
    names = (*proof_mutants.NAMES, "stranger")
    ids = {old.customer_id(f"{name}@x.example"): new.customer_id(f"{name}@x.example") for name in names}
    return {table: Counter({(ids[r[0]], *r[1:]): n for r, n in found.items()}) for table, found in rows.items()}


def pseudonyms_in(root: Path) -> set[str]:
    """Every `customer_id` of every data file below a folder, used or not, and what other files say in plain."""
    files = [str(path) for path in root.rglob("*.parquet")]
    found: set[str] = set()
    for file in files:
        relation = duckdb.read_parquet(file)
        if "customer_id" in relation.columns:
            found |= {row[0] for row in relation.project("customer_id").distinct().fetchall()}
    return found


def holds(lake: Lake) -> None:
    assert not [(check.name, check.table) for check in lake.prove().checks if check.violations]
    assert not [(check.name, check.table) for check in lake.audit(files=True) if check.violations]


def test_every_pseudonym_becomes_another_and_no_row_else(lake: Lake) -> None:
    old, before = lake.key(), contents(lake)
    history = {table: len(lake.history(table)) for table in BELOW_LANDING}
    assert min(history.values()) > 1
    lake.rotate_key()
    again = Lake.open(lake.root)
    assert again.config == lake.config
    new = again.key()
    assert new.secret != old.secret
    assert new.earlier == (old,)
    assert contents(again) == renamed(before, old, new)
    holds(again)
    assert again.prove().due == ()
    assert again.build().run == ""


def test_nothing_in_the_lake_links_old_and_new_pseudonyms(lake: Lake) -> None:
    before = pseudonyms_in(lake.root)
    old = lake.key()
    lake.rotate_key()
    after = pseudonyms_in(lake.root)
    assert before
    assert after
    assert not before & after
    assert {table: len(lake.history(table)) for table in BELOW_LANDING} == dict.fromkeys(BELOW_LANDING, 1)
    everything = b"".join(path.read_bytes() for path in lake.root.rglob("*") if path.is_file())
    assert not [found for found in (*before, old.secret.hex(), lake.key().secret.hex()) if found.encode() in everything]


def test_tables_say_which_claims_of_the_erased_they_know_under_the_new_key(lake: Lake) -> None:
    def recorded(lake: Lake) -> str | None:
        current = lake.catalog.table("step_trainer_trusted").current
        assert current is not None
        return current.summary.get("stedi.claims")

    lake.erase("bob@x.example")
    before = recorded(lake)
    lake.rotate_key()
    again = Lake.open(lake.root)
    assert before
    assert recorded(again) == again.context.erased_claims() != before
    assert again.build().run == ""


def test_a_table_built_with_claims_that_a_rollback_took_back_is_rebuilt_after_a_change_of_key(lake: Lake) -> None:
    lake.erase("bob@x.example")
    for name in (tombstones.NAME, "receipts"):  # an accepted rollback of both: the lake knows of no erasure
        path = lake.root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    lake = unseen(lake.root)
    assert lake.context.erased_claims() == ""
    key_rotation.rotate(lake.context, lake.key(), None)
    again = unseen(lake.root)
    actions = {table.name: table.action for table in again.build().tables}
    assert actions["step_trainer_trusted"] == "rebuild"


def test_builds_follow_a_lake_with_another_key(lake: Lake, tmp_path: Path) -> None:
    lake.rotate_key()
    deliver(tmp_path, "customer", [customer("gus@x.example", 60, serialNumber="dev-6", update=300)])
    deliver(tmp_path, "step_trainer", [step("dev-2", 103)])
    lake.land(tmp_path)
    built = lake.build()
    assert {table.action for table in built.tables} <= {"append", "by-customer"}
    holds(lake)
    found = contents(lake)
    lake.build(full=True)
    assert contents(lake) == found


def test_landings_that_wait_are_built_first(lake: Lake, tmp_path: Path) -> None:
    deliver(tmp_path, "customer", [customer("ada@x.example", ..., serialNumber="dev-1", update=300)])
    lake.land(tmp_path)
    lake.rotate_key()
    assert lake.prove().due == ()
    holds(lake)
    ada = lake.key().customer_id("ada@x.example")
    assert ada not in {row[0] for rows in contents(lake).values() for row in rows}


def test_keys_follow_each_other(lake: Lake) -> None:
    first = lake.key()
    lake.rotate_key()
    second = lake.key()
    lake.rotate_key()
    assert [key.secret for key in lake.key().earlier] == [second.secret, first.secret]
    holds(lake)


def test_a_lake_that_was_never_built_gets_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    lake = Lake.create(tmp_path / "lake", key_file=tmp_path / "a.key")
    assert lake.rotate_key(tmp_path / "b.key").after == Lake.open(lake.root).key().fingerprint


def written(path: Path, *secrets: bytes) -> Path:
    path.write_text("".join(f"{secret.hex()}\n" for secret in secrets))
    path.chmod(0o600)
    return path


def test_a_key_of_ones_own_is_taken_if_it_remembers_the_lakes(lake: Lake, tmp_path: Path) -> None:
    old = lake.key()
    for secrets in ([OTHER], [old.secret], [old.secret, OTHER], [OTHER, THIRD]):
        before = tree(lake.root)
        with pytest.raises(KeyRefused, match="expected a new key, followed") as refused:
            lake.rotate_key(written(tmp_path / "own.key", *secrets))
        assert not [secret for secret in secrets if secret.hex() in str(refused.value)]
        assert {name: what[0] for name, what in tree(lake.root).items() if "lock" not in name and what[0]} == {
            name: what[0] for name, what in before.items() if "lock" not in name and what[0]
        }
    done = lake.rotate_key(written(tmp_path / "own.key", OTHER, old.secret))
    assert done.after == Key(OTHER).fingerprint
    assert lake.key() == Key(OTHER, (old,))
    assert settings.read(lake.root / "lake.toml").key_file == str(tmp_path / "own.key")
    holds(lake)


def test_a_key_from_the_environment_is_taken(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    old = lake.key()
    monkeypatch.setenv("STEDI_NEXT_PSEUDONYM_KEY", f"{OTHER.hex()} {old.secret.hex()}")
    lake.rotate_key()
    with pytest.raises(KeyRefused):
        lake.key()
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", os.environ["STEDI_NEXT_PSEUDONYM_KEY"])
    holds(lake)


def test_a_key_inside_the_lake_is_refused(lake: Lake) -> None:
    with pytest.raises(KeyRefused, match="outside the lake"):
        lake.rotate_key(lake.root / "b.key")
    assert not (lake.root / "b.key").exists()


def test_what_breaks_a_rule_is_not_given_another_key(lake: Lake, kept: Path) -> None:
    mutant = proof_mutants.MUTANTS["a motion that nobody delivered"]
    secret = lake.key()
    sql = mutant.sql.replace("{ada}", secret.customer_id("ada@x.example"))
    proof_mutants.commit(lake, proof_mutants.Mutant(mutant.table, sql, ()))
    before = heads(lake)
    with pytest.raises(AuditFailed, match="landed of accelerometer_trusted"):
        lake.rotate_key()
    built = {table for table, head in heads(lake).items() if head != before[table]}
    assert built <= set(BELOW_LANDING)
    assert lake.key() == secret
    assert [path.name for path in (kept / "keys").glob("*.key")] == ["first.key"]
    assert not (lake.root / key_change.NAME).exists()


POINTS: dict[str, tuple[Any, str, int]] = {
    "the first table is written": (DuckDB, "write", 1),
    "the third table is staged": (Catalog, "stage", 3),
    "it is decided": (key_change, "write", 1),
    "the first table is published": (Catalog, "publish", 1),
    "the fourth table is published": (Catalog, "publish", 4),
    "the settings are written": (settings, "write", 1),
    "old snapshots expire": (Catalog, "expire", 2),
    "checksums are pruned": (Catalog, "prune", 3),
    "it ends": (key_change, "end", 1),
}


class Killed(BaseException):
    """Ends a process: nothing after it runs."""


@pytest.mark.parametrize(
    ("point", "after"),
    [
        (point, after)
        for n, point in enumerate(POINTS)
        for after in (False, True)
        if NIGHTLY or after == n % 2 or n == 2
    ],
)
@pytest.mark.sample(full=5)
def test_cut_off_anywhere_the_lake_is_the_old_keys_or_the_new_ones(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, point: str, after: bool
) -> None:
    old, before = lake.key(), contents(lake)
    home, name, wanted = POINTS[point]
    real: Callable[..., Any] = getattr(home, name)
    calls = []

    def dies(*args: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == wanted and not after:
            raise Killed
        result = real(*args, **options)
        if len(calls) == wanted:
            raise Killed
        return result

    with monkeypatch.context() as patch:
        patch.setattr(home, name, dies)
        patch.setattr(key_rotation._Run, "discard", lambda self: None)
        with pytest.raises(Killed):
            lake.rotate_key()
    found = Lake.open(lake.root)
    if (lake.root / key_change.NAME).exists():
        refused: tuple[Callable[[], object], ...] = (
            found.prove, found.plan, found.withheld, lambda: found.query("select 1 from customers_trusted"),
        )  # fmt: skip
        for work in refused:
            with pytest.raises(LakeBusy, match="the key is being changed"):
                work()
        assert found.key() != old
        assert found.build().run == ""
    new = found.key()
    assert (new == old) == (list(POINTS).index(point) < 2 + (not after))
    assert not (lake.root / key_change.NAME).exists()
    assert contents(found) == (before if new == old else renamed(before, old, new))
    assert Lake.open(lake.root).build().run == ""
    holds(found)
    if new != old:
        ids = {old.customer_id(f"{name}@x.example") for name in proof_mutants.NAMES}
        assert not pseudonyms_in(lake.root) & ids
    else:
        assert {branch for table in found.catalog.tables().values() for branch in table.branches} == {"main"}


def test_a_damaged_note_is_refused(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    (lake.root / key_change.NAME).write_text("{}")
    assert cli.main(["--lake", str(lake.root), "tables"]) == 1
    assert "rotation.json: expected the note of a key rotation" in capsys.readouterr().err


def test_an_open_lake_does_not_build_under_a_key_that_was_changed(lake: Lake) -> None:
    other = Lake.open(lake.root)
    old = other.key()
    lake.rotate_key()
    assert other.context.key() == old  # its file is still there
    for work in (other.key, other.build, other.prove, other.rotate_key):
        with pytest.raises(KeyRefused, match="the key was changed meanwhile"):
            work()
    holds(lake)


def test_a_lake_opened_before_a_change_of_key_writes_and_tells_nothing_with_the_old_one(
    lake: Lake, tmp_path: Path
) -> None:
    """It landed and withdrew with marks of the old key, and explained a customer by an id that no table had."""
    who, other = "ada@x.example", Lake.open(lake.root)
    other.key()
    code = "import sys, stedi; stedi.Lake.open(sys.argv[1]).rotate_key()"
    subprocess.run([sys.executable, "-c", code, str(lake.root)], check=True)
    deliver(tmp_path / "more", "customer", [customer("new@x.example")])

    def files() -> dict[str, bytes]:
        whole = (path for path in lake.root.rglob("*") if path.is_file() and "runs" not in path.parts)
        return {str(path): path.read_bytes() for path in whole if path.suffix != ".lock"}

    before = files()
    for work in (
        lambda: other.land(tmp_path / "more"),
        lambda: other.withdraw(who),
        lambda: other.explain(who),
        lambda: other.export(who, output=tmp_path / "out"),
        lambda: other.erase(who),
        lambda: other.create_dataset("steps"),
        lambda: other.quarantine()._key(),  # as `replay` does, once there is something to land
    ):
        with pytest.raises(KeyRefused, match=r"the key was changed meanwhile; nothing was written: run this again"):
            work()
        assert files() == before
    # neither needs the key, nor any pseudonym of before
    assert other.query("select customer_id from customers_trusted").fetchall()
    other.maintain()
    again = Lake.open(lake.root)
    assert again.land(tmp_path / "more").accepted == 1
    again.build()
    holds(again)


NEED_THE_KEY = {
    "land": ["land", "inbox"],
    "build": ["build"],
    "dry run": ["build", "--dry-run"],
    "audit": ["audit"],
    "repair": ["repair"],
    "withheld": ["quarantine", "--withheld"],
    "withdraw": ["withdraw", "ada@x.example", "--yes"],
    "explain": ["explain", "ada@x.example"],
    "key show": ["key", "show"],
    "key rotate": ["key", "rotate"],
}
WRONG = {
    "lost": ("", "restore it from its backup"),
    "another": (OTHER.hex(), "expected the pseudonym key with fingerprint"),
    "malformed": ("5a" * 31, "expected 64 hex digits"),
}


@pytest.mark.parametrize("words", NEED_THE_KEY.values(), ids=list(NEED_THE_KEY))
@pytest.mark.parametrize("wrong", WRONG)
def test_a_lost_or_wrong_key_is_refused_before_anything_is_read_or_written(
    lake: Lake,
    kept: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    wrong: str,
) -> None:
    text, why = WRONG[wrong]
    file = kept / "keys" / "first.key"
    if text:
        file.write_text(text)
    else:
        file.unlink()

    def reads(*_: Any) -> Any:
        raise AssertionError("a table was read")

    before = tree(lake.root)
    monkeypatch.setattr(Catalog, "tables", reads)
    monkeypatch.setattr(Catalog, "table", reads)
    monkeypatch.chdir(kept)
    assert cli.main(["--lake", str(lake.root), *words]) == 1
    out, err = capsys.readouterr()
    [line] = err.splitlines()
    assert line.startswith("stedi: ")
    assert why in line
    assert out == ""
    assert OTHER.hex() not in line
    assert tree(lake.root) == before


def test_the_command_shows_and_changes_the_key_and_never_prints_it(
    lake: Lake, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    old = lake.key()
    words = ["--lake", str(lake.root), "--json", "key"]
    assert cli.main([*words, "show"]) == 0
    shown = json.loads(capsys.readouterr().out)
    signs_as = signatures.fingerprint(signatures.public_key(old))
    assert shown == {
        "fingerprint": old.fingerprint,
        "key": lake.config.key_file,
        "earlier": 0,
        "signs_as": signs_as,
    }
    assert cli.main([*words, "rotate", "--yes", "--to", str(tmp_path / "b.key")]) == 0
    out, err = capsys.readouterr()
    new = pseudonyms.from_file(tmp_path / "b.key")
    document = json.loads(out)
    assert (document["before"], document["fingerprint"]) == (old.fingerprint, new.fingerprint)
    assert {table["name"] for table in document["tables"]} == set(BELOW_LANDING)
    assert cli.main(["--lake", str(lake.root), "key", "show"]) == 0
    out += err + capsys.readouterr().out
    assert f"fingerprint  {new.fingerprint}" in out
    assert not [key for key in (old, new) if key.secret.hex() in out]
    assert (tmp_path / "b.key").stat().st_mode & 0o777 == 0o600


def test_a_lake_from_before_subkeys_keeps_its_marks_through_erasures_and_a_change_of_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its settings say nothing of `key.version`; a new lake's say 2, and a line less is another key."""
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY", raising=False)
    lake = Lake.create(tmp_path / "lake", key_file=tmp_path / "a.key")
    assert settings.read(lake.root / "lake.toml").key_version == 2
    settings.write(dataclasses.replace(lake.config, key_version=1), lake.root / "lake.toml")
    changed = Lake.open(lake.root)
    with pytest.raises(KeyRefused):
        changed.key()
    text = (lake.root / "lake.toml").read_text().replace("version = 1\n", "", 1)
    before = lake.key().of_version(1)
    (lake.root / "lake.toml").write_text(text.replace(lake.config.key_fingerprint, before.fingerprint))
    lake = Lake.open(lake.root)
    assert lake.key() == before
    people = [customer(f"{who}@x.example", serialNumber=who) for who in ("ana", "bo")]
    deliver(tmp_path / "in", "customer", people)
    lake.land(tmp_path / "in")
    lake.build()
    [first] = lake.erase("ana@x.example")
    assert first.people == (tombstones.person(before, "ana@x.example"),)
    lake.rotate_key(tmp_path / "b.key")
    lake = Lake.open(lake.root)
    assert lake.key().version == settings.read(lake.root / "lake.toml").key_version == 1
    assert tombstones.person(lake.key(), "ana@x.example") == first.people[0]
    [second] = lake.erase("bo@x.example")
    assert all(lake.verify_receipt(receipt.id).holds for receipt in (first, second))
    deliver(tmp_path / "in", "customer", people, "again.json").write_text(
        "\n" + "".join(json.dumps(record) + "\n" for record in people)
    )
    landing = lake.land(tmp_path / "in")
    assert (landing.accepted, landing.erased) == (0, 4)


@pytest.mark.parametrize("dies", [False, True], ids=["goes on", "dies"])
def test_a_change_of_key_that_is_decided_too_late_is_given_up(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """As in a bucket, where a process is stopped right before it decides, and others have taken the locks over."""
    old, before, real = lake.key(), contents(lake), key_change.write

    def late(root: Any, key: Any, decided: key_change.PendingRotation) -> None:
        for name in decided.staged:  # as the next build does
            lake.catalog.discard(name, decided.run)
        real(root, key, decided)
        if dies:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(key_change, "write", late)
        with pytest.raises(Killed if dies else CommitConflict):
            lake.rotate_key()
    if dies:
        with pytest.raises(CommitConflict, match="a key rotation came too late and was given up"):
            Lake.open(lake.root).build()
    assert not (lake.root / key_change.NAME).exists()
    found = Lake.open(lake.root)
    assert (found.key(), contents(found), found.build().run) == (old, before, "")
    assert found.rotate_key().before == old.fingerprint


def publish_another(lake: Lake, file: Path) -> None:
    """Leaves the lake as a key rotation does that another process has nearly ended."""
    new = pseudonyms.make(file, (lake.key(),))
    key_change.write(lake.root, new, key_change.PendingRotation("r", new.fingerprint, str(file), {}, {}))
    toml = lake.root / "lake.toml"
    settings.write(settings.changed(settings.read(toml), key_fingerprint=new.fingerprint), toml)


def test_a_lake_that_was_open_is_told_of_a_change_that_has_not_ended(lake: Lake, tmp_path: Path) -> None:
    publish_another(lake, tmp_path / "own.key")
    for work in (lake.key, lambda: lake.land(tmp_path), lake.maintain, lambda: lake.tag("v1")):
        with pytest.raises(KeyRefused, match="the key was changed meanwhile; nothing was written: run this again"):
            work()


def test_a_withdrawal_that_has_landed_is_not_refused_for_a_change_of_key_after_it(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Context, "note_seen", lambda context: publish_another(lake, tmp_path / "own.key"))
    assert lake.withdraw("ada@x.example").landed == 1


def test_a_forged_note_hands_the_lake_to_nobody(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STEDI_KEY_FILE", raising=False)
    own, before = lake.key(), {name: state.current for name, state in lake.catalog.tables().items()}
    stranger = pseudonyms.make(tmp_path / "stranger.key")
    followed = pseudonyms.make(tmp_path / "followed.key", (own,))
    note = lake.root / key_change.NAME
    for key, file, sealing in (
        (stranger, "stranger.key", stranger),
        (followed, "followed.key", stranger),
        (followed, "followed.key", None),
    ):
        decided = key_change.PendingRotation("r", key.fingerprint, str(tmp_path / file), {}, {})
        if sealing is None:
            plain = json.dumps(dataclasses.asdict(decided)).encode()
            note.write_bytes(hashlib.sha256(plain).hexdigest().encode() + b"\n" + plain)
        else:
            key_change.write(lake.root, sealing, decided)
        for words in (["build"], ["withdraw", "a@x.example", "--yes"], ["maintain"], ["land", str(tmp_path)]):
            assert cli.main(["--lake", str(lake.root), *words]) == 1
            assert "rotation.json: expected the content that this lake has written" in capsys.readouterr().err
        note.unlink()
    assert {name: state.current for name, state in lake.catalog.tables().items()} == before
    assert Lake.open(lake.root).key() == own
