"""State that somebody else has put into a lake's folder is believed in nothing, and is said to be there.

Whoever can write into the folder must not be able to have a file unlinked, a receipt signed, or an erased customer let
in; and what they do must not lock the lake.
"""

from __future__ import annotations

import hmac
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import quick
from deliveries import customer, deliver
from erasing import ANA, BO, CY, NOW, Stage, dying, erase, looked_for
from lakes import conserved, heads, rows
from stedi.catalog import Catalog
from stedi.cli import main
from stedi.erasure import evidence, pending, remove
from stedi.erasure.pending import Found, Pending
from stedi.errors import LakeError
from stedi.lake import Lake
from stedi.privacy import pseudonyms, receipts, state, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.state import StateRefused
from stedi.privacy.tombstones import PENDING, Tombstones

OTHER_LAKE, OTHER_KEY = "fedcba9876543210", Key(bytes(32))


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


@pytest.fixture(scope="module")
def guarded() -> Iterator[Lake]:
    """A lake in which Ana was erased; every test leaves it as it was."""
    with quick.folder() as folder, quick.quickened():
        lake, _ = Stage(folder).made()
        erase(lake, ANA)
        yield lake


@pytest.fixture(scope="module")
def old() -> Iterator[Stage]:
    """The same, as a lake whose key is used as it was used before there were subkeys."""
    real = pseudonyms.from_environment

    def found(*arguments: Any, **options: Any) -> Key | None:
        key = real(*arguments, **options)
        return key and key.of_version(1)

    with quick.folder() as folder, quick.quickened():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pseudonyms, "from_environment", found)
            made = Stage(folder)
        yield made


def run(lake: Lake, *words: str) -> int:
    return main(["--lake", str(lake.root), *words])


def wanted(lake: Lake, victim: Path) -> Pending:
    """An erasure that has found a file to remove which is none of the lake's, and is at its end."""
    nothing = dict.fromkeys(lake.catalog.tables(), 0)
    found = Found(nothing, {"customers_landing": (str(victim),)}, {}, {}, 0, 1, 0, Tombstones())
    scanned = {"files": {}, "bytes": 0, "queries": 0}
    return Pending("1700000000000-00000000", NOW, ("0" * 32,), (), found, {"tables": {}, "mentions": 0}, scanned)


def sealed(lake: Lake, victim: Path, lake_id: str = "", key: Key | None = None, kind: str = "erasure") -> bytes:
    """What such a file would be if it was written for a lake, under a key."""
    pending.write(lake.root, lake.key(), wanted(lake, victim))
    raw = (lake.root / PENDING).read_bytes()
    (lake.root / PENDING).unlink()
    plain = json.loads(raw.partition(b"\n")[2])
    return state.sealed(kind, lake_id or lake.config.lake_id, key or lake.key(), plain)


def body(raw: bytes) -> bytes:
    return raw.partition(b"\n")[2]


ERASING: dict[str, Callable[[Lake, Path], bytes]] = {
    "without a seal": lambda lake, victim: body(sealed(lake, victim)),
    "as it was written before": lambda lake, victim: json.dumps(json.loads(body(sealed(lake, victim)))).encode(),
    "under another key": lambda lake, victim: sealed(lake, victim, key=OTHER_KEY),
    "for another lake": lambda lake, victim: sealed(lake, victim, OTHER_LAKE),
    "as another kind": lambda lake, victim: sealed(lake, victim, kind="tombstones"),
    "with another path": lambda lake, victim: sealed(lake, victim).replace(
        victim.name.encode(), b"x" + victim.name.encode()
    ),
    "with other people": lambda lake, victim: sealed(lake, victim).replace(b"0" * 32, b"1" * 32),
    "with a byte behind it": lambda lake, victim: sealed(lake, victim) + b" ",
    "with a document behind it": lambda lake, victim: sealed(lake, victim) + body(sealed(lake, victim)),
    "without its last byte": lambda lake, victim: sealed(lake, victim)[:-1],
    "with a name twice": lambda lake, victim: sealed(lake, victim).replace(b'{"run"', b'{"run": "x", "run"'),
    "with a seal of zeros": lambda lake, victim: b"stedi-state 1 " + b"0" * 64 + b"\n" + body(sealed(lake, victim)),
    "with a seal that is not ASCII": lambda lake, victim: (
        b"stedi-state 1 " + b"\xc3\xa9" * 32 + b"\n" + body(sealed(lake, victim))
    ),
    "with a SHA-256 for a seal": lambda lake, victim: b"0" * 64 + b"\n" + body(sealed(lake, victim)),
    "the tombstones in its place": lambda lake, _: (lake.root / tombstones.NAME).read_bytes(),
    "nested without end": lambda *_: b'{"found":' * 100_000,
    "nested without end, sealed so": lambda *_: b"stedi-state 1 " + b"0" * 64 + b"\n" + b"[" * 100_000,
    "empty": lambda *_: b"",
    "zeros": lambda *_: bytes(4096),
    "no JSON": lambda *_: b"erase everything",
    "a list": lambda *_: b"[]",
    "a number": lambda *_: b"1e999",
    "another encoding": lambda *_: '{"run": "1"}'.encode("utf-16"),
}


@pytest.mark.parametrize("forged", ERASING)
def test_a_forged_erasure_removes_nothing_and_is_put_away(
    guarded: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str], forged: str
) -> None:
    lake = Lake.open(guarded.root)
    victim = tmp_path / "victim.parquet"
    victim.write_text("somebody's")
    (lake.root / PENDING).write_bytes(ERASING[forged](lake, victim))
    before, signed = heads(lake), receipts.names(lake.root)
    path = deliver(tmp_path, "customer", [customer("new@test.example", update=700)])
    for words in (["land", str(path)], ["withdraw", BO, "--yes"], ["maintain"]):
        assert run(lake, *words) == 1
        said = capsys.readouterr().err
        assert "erasing.json: expected the content that this lake has written" in said
        assert "stedi erase --resume" in said
    kept = evidence.check(lake.context)
    assert kept
    assert [found.file for found in kept.found] == [PENDING]
    assert run(lake, "erase", "--resume") == 1
    assert "the file was moved aside" in capsys.readouterr().err
    assert victim.read_text() == "somebody's"
    assert receipts.names(lake.root) == signed
    assert heads(lake) == before
    assert not (lake.root / PENDING).exists()


def test_a_receipt_that_is_gone_is_told_and_nobody_is_erased_again(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, folder = stage.made()
    first = lake.erase(ANA)[-1]
    again = customer(ANA, registrationDate=int(time.time() * 1000) + 1000, update=900)
    lake.land(deliver(folder, "customer", [again], "again.json"))
    landed = rows(lake, "customers_landing")
    assert [row for row in landed if ANA in row]
    (lake.root / "receipts" / f"{first.id}.json").unlink()
    capsys.readouterr()
    assert run(lake, "erase", "--resume") == 0
    assert "nothing to finish" in capsys.readouterr().out
    (lake.root / PENDING).write_text("{}")
    assert run(lake, "erase", "--resume") == 1
    assert rows(lake, "customers_landing") == landed
    assert receipts.names(lake.root) == set()
    kept = evidence.check(lake.context)
    assert kept
    assert [(found.file, found.found) for found in kept.found] == [(f"receipts/{first.id}.json", "no file")]


def test_a_forged_erasure_stops_an_audit_and_nothing_else_once_it_is_put_away(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, folder = stage.made()
    (lake.root / PENDING).write_text("{}")
    assert run(lake, "audit", "--json") == 3
    assert {"file": PENDING, "expected": "an erasure that this lake has begun", "found": "another content"} in [
        found for check in json.loads(capsys.readouterr().out)["checks"] for found in check.get("found", ())
    ]
    receipt = lake.erase(BO)[-1]
    assert receipt.people == (tombstones.person(lake.key(), BO),)
    assert run(lake, "land", str(deliver(folder, "customer", [customer("new@test.example")], "new.json"))) == 0
    assert run(lake, "audit") == 0


@pytest.mark.parametrize("made", ["a FIFO", "a folder", "a link to nothing", "a link to a device"])
def test_what_is_no_file_is_not_waited_for(guarded: Lake, made: str) -> None:
    path = guarded.root / PENDING
    makes: dict[str, Callable[[], None]] = {
        "a FIFO": lambda: os.mkfifo(path),
        "a folder": path.mkdir,
        "a link to nothing": lambda: path.symlink_to("nowhere"),
        "a link to a device": lambda: path.symlink_to("/dev/zero"),
    }
    makes[made]()
    try:
        if made == "a link to nothing":
            assert pending.read(guarded.root, guarded.key()) is None
        else:
            with pytest.raises(StateRefused):
                pending.read(guarded.root, guarded.key())
    finally:
        path.rmdir() if made == "a folder" else path.unlink()


RECEIPTS: dict[str, Callable[[dict[str, Any], str], bytes]] = {
    "of other people": lambda one, _: json.dumps({**one, "people": ["0" * 32]}).encode(),
    "with other counts": lambda one, _: json.dumps({**one, "removed": {}}).encode(),
    "with a field more": lambda one, _: json.dumps({**one, "more": 1}).encode(),
    "with a field less": lambda one, _: json.dumps({n: v for n, v in one.items() if n != "scanned"}).encode(),
    "of another lake": lambda one, _: json.dumps({**one, "lake": OTHER_LAKE}).encode(),
    "of no lake": lambda one, _: json.dumps({n: v for n, v in one.items() if n != "lake"}).encode(),
    "without a signature": lambda one, _: json.dumps({n: v for n, v in one.items() if n != "signature"}).encode(),
    "with a signature of zeros": lambda one, _: json.dumps({**one, "signature": "0" * 64}).encode(),
    "with a signature that is not ASCII": lambda one, _: json.dumps({**one, "signature": "é" * 64}).encode(),
    "with half a surrogate for a signature": lambda one, _: json.dumps({**one, "signature": "\ud800"}).encode(),
    "with a number for a signature": lambda one, _: json.dumps({**one, "signature": 1}).encode(),
    "with no signature in it": lambda one, _: json.dumps({**one, "signature": None}).encode(),
    "with a list of signatures": lambda one, _: json.dumps({**one, "signature": [one["signature"]]}).encode(),
    "with a name twice": lambda one, text: text.replace("{", '{"clean": false,', 1).encode(),
    "with a name twice, once by escape": lambda one, text: text.replace("{", '{"cl\\u0065an": false,', 1).encode(),
    "with a document behind it": lambda one, text: (text + text).encode(),
    "with a byte behind it": lambda one, text: text.encode() + b"\0",
    "with a mark before it": lambda one, text: b"\xef\xbb\xbf" + text.encode(),
    "in UTF-16": lambda one, text: text.encode("utf-16"),
    "cut": lambda one, text: text[:-20].encode(),
    "empty": lambda *_: b"",
    "nested without end": lambda *_: b'{"a":' * 100_000,
    "nested deeply": lambda one, text: text.replace("{", '{"a": ' + "[" * 500 + "]" * 500 + ",", 1).encode(),
    "not a number": lambda one, text: text.replace("{", '{"a": NaN,', 1).encode(),
    "a list": lambda *_: b"[]",
    "with a number for its id": lambda one, _: json.dumps({**one, "id": 7}).encode(),
    "with a text for its people": lambda one, _: json.dumps({**one, "people": "everybody"}).encode(),
    "with numbers for its people": lambda one, _: json.dumps({**one, "people": [1]}).encode(),
    "with control characters": lambda one, _: json.dumps({**one, "id": "\x1b[31m\u202e"}).encode(),
}


@pytest.mark.parametrize("forged", RECEIPTS)
def test_a_forged_receipt_does_not_hold(
    guarded: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str], forged: str
) -> None:
    lake = Lake.open(guarded.root)
    [name] = receipts.names(lake.root)
    kept = lake.root / "receipts" / f"{name}.json"
    text = kept.read_text()
    raw = RECEIPTS[forged](json.loads(text), text)
    (tmp_path / "copy.json").write_bytes(raw)
    assert run(lake, "erase", "--verify", str(tmp_path / "copy.json")) == 3
    assert "does not hold" in capsys.readouterr().out
    kept.write_bytes(raw)
    try:
        assert run(lake, "erase", "--list") == 0
        found = evidence.check(lake.context)
        assert found
        assert [each.file for each in found.found] == [f"receipts/{name}.json"]
    finally:
        kept.write_text(text)
    found = evidence.check(lake.context)
    assert found
    assert not found.found


def test_a_receipt_of_another_lake_under_the_same_key_does_not_hold(stage: Stage, tmp_path: Path) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    other = Lake.create(tmp_path / "other")
    other.land(deliver(tmp_path, "customer", [customer(ANA)]))
    receipt = erase(other, ANA)
    assert other.key() == lake.key()
    path = other.root / "receipts" / f"{receipt['id']}.json"
    assert other.verify_receipt(str(path)).holds
    assert not lake.verify_receipt(str(path)).holds
    shutil.copy(path, lake.root / "receipts")
    assert not lake.verify_receipt(receipt["id"]).holds
    assert tombstones.read(lake.root, lake.key()), "a stranger's receipt does not stop the lake"
    assert run(lake, "audit") == 3


def test_older_tombstones_are_noticed_by_every_command(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    lake, folder = stage.made()
    erase(lake, ANA)
    path = lake.root / tombstones.NAME
    older = path.read_bytes()
    second = erase(lake, BO)
    path.write_bytes(older)
    before = heads(lake)
    again = deliver(folder, "customer", [customer(BO, update=700)], "again.json")
    for words in (["land", str(again)], ["build", "--full"], ["withdraw", CY, "--yes"], ["erase", CY, "--yes"]):
        assert run(lake, *words) == 1
        said = capsys.readouterr().err
        assert "tombstones: expected the newest" in said
        assert second["id"] in said
    assert run(lake, "audit", "--json") == 3
    said = json.loads(capsys.readouterr().out)
    assert [c["found"][0]["found"] for c in said["checks"] if c["name"] == "erasures"] == ["older ones"]
    assert heads(lake) == before


@pytest.mark.parametrize("whose", ["another lake", "another kind", "nobody", "before"])
def test_tombstones_that_are_not_this_lakes_let_nobody_in(stage: Stage, whose: str) -> None:
    lake, folder = stage.made()
    erase(lake, ANA)
    key, lake_id, path = lake.key(), lake.config.lake_id, lake.root / tombstones.NAME
    plain = tombstones.to_json(tombstones.read(lake.root, key))
    path.write_bytes(
        {
            "another lake": state.sealed("tombstones", OTHER_LAKE, key, plain),
            "another kind": state.sealed("erasure", lake_id, key, plain),
            "nobody": json.dumps(plain).encode(),
            "before": of_before(key, plain),
        }[whose]
    )
    with pytest.raises(LakeError, match="tombstones"):
        lake.land(deliver(folder, "customer", [customer(ANA, update=700)], "again.json"))


def test_an_erasure_removes_only_data_files_of_the_customers_records(stage: Stage, tmp_path: Path) -> None:
    """Even a file that the lake itself has sealed: what it names must lie where the lake writes."""
    lake, _ = stage.made()
    victim, data = tmp_path / "victim.parquet", lake.catalog.folder("customers_landing") / "data"
    victim.write_text("somebody's")
    (data / "link").symlink_to(tmp_path)
    (data / "note.txt").write_text("a note")
    for path in (
        victim,
        data / "link" / "victim.parquet",
        data / ".." / ".." / ".." / "catalog.db",
        data / "note.txt",
        lake.root / "lake.toml",
        lake.catalog.folder("quarantine") / "data" / "x.parquet",
        data,
    ):
        with pytest.raises(LakeError, match="found a file elsewhere; nothing was removed"):
            remove.remove(lake.catalog, [str(path)])
    assert victim.exists()
    (data / "link").unlink()


LOST = {
    "gone": lambda path: path.unlink(),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "another": lambda path: path.write_bytes(b"{}"),
}


@pytest.mark.parametrize("lost", LOST)
@pytest.mark.parametrize(
    ("owner", "name", "place"),
    [
        (Catalog, "erase", 1),
        (Catalog, "erase", 3),
        (remove, "remove", 1),
    ],
)
@pytest.mark.sample(full=5)
def test_an_erasure_whose_file_is_lost_is_worked_out_again(
    stage: Stage, lost: str, owner: object, name: str, place: int
) -> None:
    lake, folder = stage.made()
    search = looked_for(lake, ANA)
    with dying(owner, name, place):
        erase(lake, ANA)
    LOST[lost](lake.root / PENDING)
    quick.forget()
    lake = Lake.open(lake.root)
    if lost != "gone":
        with pytest.raises(StateRefused):
            lake.land(folder)
    [receipt] = lake.erase()
    assert receipt.people == (tombstones.person(lake.key(), ANA),)
    assert search().found == []
    assert len(rows(lake, "step_trainer_landing")) == 16
    assert not (lake.root / PENDING).exists()
    assert lake.erase() == ()
    lake.build()
    assert not any(check.violations for check in lake.prove().checks)
    conserved(lake)


def of_before(key: Key, plain: dict[str, object]) -> bytes:
    """Tombstones as they were written before they were bound to a lake."""
    content = json.dumps({name: value for name, value in plain.items() if name != "erasures"}, indent=0).encode()
    return hmac.digest(key.secret, b"stedi: tombstones\0" + content, "sha256").hex().encode() + b"\n" + content


def aged(lake: Lake) -> None:
    """Gives a lake's state the form that it had before."""
    key = lake.key()
    for name in receipts.names(lake.root):
        receipt = {n: v for n, v in receipts.listed_as(lake.root, name).items() if n not in ("lake", "signature")}
        plain = json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode()
        signature = hmac.digest(key.secret, b"stedi: receipt\0" + plain, "sha256").hex()
        receipts.keep(lake.root, {**receipt, "signature": signature})
    path = lake.root / tombstones.NAME
    if path.exists():
        plain = json.loads(body(path.read_bytes()))
        path.write_bytes(of_before(key, plain))
    path = lake.root / PENDING
    if path.exists():
        plain = json.loads(body(path.read_bytes()))
        plain["found"]["tombstones"].pop("erasures")
        path.write_text(json.dumps({n: v for n, v in plain.items() if n not in ("recovered", "evidence")}))


def test_a_lake_of_before_keeps_who_was_erased_out_and_its_receipts(old: Stage) -> None:
    lake, folder = old.made()
    first = erase(lake, ANA)
    aged(lake)
    assert lake.verify_receipt(first["id"]).holds
    assert run(lake, "audit") == 0
    assert lake.land(deliver(folder, "customer", [customer(ANA, update=700)], "again.json")).erased == 1
    second = erase(lake, BO)
    assert all(lake.verify_receipt(each["id"]).holds for each in (first, second))
    assert run(lake, "audit") == 0
    assert len(tombstones.read(lake.root, lake.key()).people) == 2


def test_older_tombstones_of_before_are_noticed(old: Stage) -> None:
    lake, _ = old.made()
    erase(lake, ANA)
    aged(lake)
    older = (lake.root / tombstones.NAME).read_bytes()
    erase(lake, BO)
    aged(lake)
    (lake.root / tombstones.NAME).write_bytes(older)
    with pytest.raises(LakeError, match="tombstones: expected the newest"):
        tombstones.read(lake.root, lake.key())


@pytest.mark.parametrize(
    ("owner", "name", "place"), [(Catalog, "erase", 1), (Catalog, "erase", 3), (receipts, "keep", 1)]
)
def test_an_erasure_of_before_is_finished_and_its_paths_are_not_trusted(
    old: Stage, tmp_path: Path, owner: object, name: str, place: int
) -> None:
    lake, folder = old.made()
    search = looked_for(lake, ANA)
    with dying(owner, name, place):
        erase(lake, ANA)
    aged(lake)
    victim = tmp_path / "victim.parquet"
    victim.write_text(f"somebody's {ANA}")
    plain = json.loads((lake.root / PENDING).read_bytes())
    plain["found"]["tainted"]["customers_landing"].append(str(victim))
    plain["inbox"] = [str(tmp_path)]
    (lake.root / PENDING).write_text(json.dumps(plain))
    quick.forget()
    lake = Lake.open(lake.root)
    with pytest.raises(StateRefused):
        lake.land(folder)
    [receipt] = lake.erase()
    assert receipt.people == (tombstones.person(lake.key(), ANA),)
    assert search().found == []
    assert victim.exists()
    conserved(lake)


def test_an_unsigned_erasure_of_strangers_is_no_erasure(stage: Stage) -> None:
    lake, _ = stage.made()
    before = heads(lake)
    (lake.root / PENDING).write_text(
        json.dumps({"run": "1", "started": 1, "people": [tombstones.person(lake.key(), ANA)], "found": None})
    )
    with pytest.raises(LakeError, match="the file was moved aside"):
        lake.erase()
    assert heads(lake) == before
