"""The receipts of a lake: one for each erasure, whatever dies on the way; a chain; and a letter in plain words."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import lakes
import quick
from deliveries import customer, deliver
from erasing import ANA, BO, CY, Stage, dying, erase
from stedi import erasure
from stedi.cli import letter, main
from stedi.context import operator
from stedi.erasure import evidence
from stedi.errors import UsageError
from stedi.lake import Lake
from stedi.privacy import journal, receipts, signatures
from stedi.privacy.pseudonyms import Key
from stedi.report import attestation
from stedi.schema.tables import ZONES
from stedi.storage import config


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


@pytest.fixture(scope="module")
def erased() -> Iterator[Lake]:
    """A lake in which three were erased, one after the other; every test leaves it as it was."""
    with quick.folder() as folder, quick.quickened():
        lake, _ = Stage(folder).made()
        for who in (ANA, BO, CY):
            erase(lake, who)
        yield lake


def run(lake: Lake, *words: str) -> int:
    return main(["--lake", str(lake.root), *words])


def test_the_screen_lists_tables_in_the_order_of_the_zones(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    lake, _ = stage.made()
    lake.build()
    capsys.readouterr()
    for words in (("--dry-run",), ("--yes",)):
        assert run(lake, "erase", *words, ANA) == 0
        shown = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
        assert [name for name in shown if name in ZONES] == list(ZONES)


def files(lake: Lake) -> list[Path]:
    return sorted((lake.root / "receipts").iterdir())


def named(lake: Lake) -> list[tuple[str, str]]:
    """What the audit finds wrong with what is kept of erasures: the file, and what was found."""
    found = evidence.check(lake.context)
    assert found is not None
    return [(each.file, each.found) for each in found.found]


def test_a_new_lake_publishes_the_key_under_which_it_signs(stage: Stage) -> None:
    lake, _ = stage.empty()
    pem = (lake.root / "keys" / "sign.pub").read_text()
    assert pem == signatures.public_key(lake.key())
    assert config.read(lake.root / "lake.toml").signs_as == signatures.fingerprint(pem)


def test_a_lake_whose_making_was_cut_off_publishes_its_own_key_when_it_is_made_again(tmp_path: Path) -> None:
    left = tmp_path / "lake" / "keys" / "sign.pub"
    left.parent.mkdir(parents=True)
    left.write_text(signatures.public_key(Key(bytes(32))))
    lake = Lake.create(tmp_path / "lake")
    assert left.read_text() == signatures.public_key(lake.key())


def test_an_erasure_that_dies_after_its_receipt_has_that_one_and_the_chain_goes_on(stage: Stage) -> None:
    lake, _ = stage.made()
    with dying(journal, "append"):
        erase(lake, ANA)
    [path] = files(lake)
    signed = path.read_bytes()
    quick.forget()
    lake = Lake.open(lake.root)
    lake.build()
    assert path.read_bytes() == signed
    second = erase(lake, BO)
    assert second["previous"] == hashlib.sha256(signed).hexdigest()
    assert named(lake) == []
    entries = journal.entries(lake.root / journal.FOLDER, lake.key())
    assert [receipts.rendered(entry.content["receipt"]) for entry in entries] == [f.read_bytes() for f in files(lake)]


def test_of_two_machines_that_end_one_erasure_the_first_writes_its_receipt(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where one was stopped for longer than its lease, right before it wrote the receipt."""
    lake, _ = stage.made()
    real = receipts.keep

    def overtaken(root: Path, receipt: receipts.Receipt, *, new: bool = False) -> Path:
        if new:
            plain = {part: value for part, value in receipt.items() if part not in receipts.SEAL}
            real(root, receipts.signed(lake.key(), lake.config.lake_id, {**plain, "operator": "the other"}))
        return real(root, receipt, new=new)

    monkeypatch.setattr(receipts, "keep", overtaken)
    receipt = erase(lake, ANA)
    assert receipt["operator"] == "the other"
    assert json.loads(files(lake)[0].read_text()) == receipt
    assert named(lake) == []


def test_a_receipt_that_is_gone_exchanged_or_older_is_named(erased: Lake) -> None:
    kept = {path: path.read_bytes() for path in files(erased)}
    one, two, three = kept
    assert named(erased) == []
    try:
        two.unlink()
        assert named(erased) == [(f"receipts/{three.name}", "none"), (f"receipts/{two.name}", "no file")]
        two.write_bytes(kept[one])
        assert {file for file, _ in named(erased)} == {f"receipts/{two.name}", f"receipts/{three.name}"}
        two.write_bytes(kept[three])
        three.write_bytes(kept[two])
        assert {file for file, _ in named(erased)} == {f"receipts/{two.name}", f"receipts/{three.name}"}
    finally:
        for path, raw in kept.items():
            path.write_bytes(raw)
    assert named(erased) == []


def test_a_clock_that_ran_back_is_noticed(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, _ = stage.made()
    erase(lake, ANA)
    real = erasure._now
    with monkeypatch.context() as patch:
        patch.setattr(erasure, "_now", lambda given: real(given) - 3_600_000)
        back = erase(lake, BO)
    [(file, found)] = named(lake)
    assert (file, "the clock ran back" in found) == (f"receipts/{back['id']}.json", True)
    assert run(lake, "audit") == 3
    with monkeypatch.context() as patch:
        patch.setattr(erasure, "_now", lambda given: real(given) + 3_600_000)
        ahead = erase(lake, CY)
    # the clock of the second ran back, and a receipt after it has a time after both: the chain has the order
    assert [file for file, _ in named(lake)] == [f"receipts/{ahead['id']}.json"]


def test_a_receipt_says_what_was_asked_who_ran_it_and_what_was_out_of_reach(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, _ = stage.made()
    file = tmp_path / "letter.html"
    words = ["--yes", "--json", "--reference", "<b>DSAR</b> 17", "--letter", str(file)]
    assert run(lake, "erase", ANA, *words) == 0
    receipt = json.loads(capsys.readouterr().out)
    assert (receipt["reference"], receipt["operator"]) == ("<b>DSAR</b> 17", operator.name())
    assert (receipt["lake"], receipt["previous"], receipt["recalls"]) == (lake.config.lake_id, "", [])
    assert receipt["not_reached"] == ["backups", "handed_out"]
    page = file.read_text("utf-8")
    assert file.stat().st_mode & 0o077 == 0
    assert "default-src 'none'" in page
    assert "&lt;b&gt;DSAR&lt;/b&gt; 17" in page
    assert not re.search(r"<b>|<script|https?:|src=|href=", page)
    assert ANA not in page.lower()
    assert receipt["id"] in page
    rows = receipt["removed"]["tables"]
    counts = [int(text.replace(",", "")) for text in re.findall(r"<td>([0-9,]+)</td>", page)]
    assert counts[:3] == [rows[f"{name}_landing"]["rows"] for name in ("customers", "accelerometer", "step_trainer")]
    again = tmp_path / "again.html"
    assert run(lake, "erase", "--verify", receipt["id"], "--letter", str(again)) == 0
    assert again.read_text("utf-8") == page
    capsys.readouterr()
    assert run(lake, "erase", "--verify", receipt["id"], "--letter", "/dev/letter.txt") == 1
    assert "cannot be written" in capsys.readouterr().err
    text = tmp_path / "letter.txt"
    assert run(lake, "erase", "nobody@test.example", "--yes", "--letter", str(text)) == 1
    assert "found none" in text.read_text("utf-8")
    assert [found.reference for found in attestation.verify(lake.root / "receipts")] == ["<b>DSAR</b> 17", ""]


def test_a_letter_has_words_for_all_that_is_out_of_reach() -> None:
    assert letter._STAY.keys() == receipts.OUT_OF_REACH.keys()


REFERENCES = (
    "for ana@test.example",
    "ana%40test.example",
    "ana＠test",
    "two\nlines",
    "x" * 201,
    "\u202eright",
    "&#64;",
)


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_reference_that_tells_an_address_is_refused_before_anything(
    erased: Lake, capsys: pytest.CaptureFixture[str], reference: str
) -> None:
    kept = files(erased)
    assert run(erased, "erase", ANA, "--yes", "--reference", reference) == 2
    said = capsys.readouterr().err
    assert "--reference: expected" in said
    assert reference not in said
    assert files(erased) == kept


def test_a_reference_that_tells_a_name_or_a_phone_number_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", lakes.KEY)
    lake = Lake.create(tmp_path / "lake")
    who = customer(ANA, customerName="Ana Berg", phone="+46701234567")
    deliver(tmp_path, "customer", [who])
    lake.land(tmp_path / "customer")
    for reference in ("about Ana Berg", "call 070-123 45 67", "Ana%20Berg"):
        with pytest.raises(UsageError, match="found a name or a phone number"):
            lake.erase(ANA, reference=reference)
    [receipt] = lake.erase(ANA, reference="request 46 of 2026, Banana Bergen")
    assert receipt.clean


def test_a_receipt_that_is_gone_is_said_by_whatever_writes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", lakes.KEY)
    lake = Lake.create(tmp_path / "lake")
    deliver(tmp_path, "customer", [customer(who) for who in (ANA, BO)])
    lake.land(tmp_path / "customer")
    [receipt] = lake.erase(ANA)
    file = lake.root / "receipts" / f"{receipt.id}.json"
    raw = file.read_bytes()
    file.unlink()
    for _ in range(2):
        assert run(lake, "maintain") == 0
        assert "receipts: expected 1 of erasures, found 0" in capsys.readouterr().err
    file.write_bytes(raw)
    assert run(lake, "maintain") == 0
    assert "receipts:" not in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("letter.pdf",), ("none/letter.txt",), ("letter.txt", BO)], ids=["ending", "folder", "two people"]
)
def test_a_letter_that_could_not_be_written_is_refused_before_anything(
    erased: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    name, *others = words
    kept = files(erased)
    assert run(erased, "erase", ANA, *others, "--yes", "--letter", str(tmp_path / name)) == 2
    assert run(erased, "erase", ANA, "--yes", "--letter", str(erased.root / "letter.txt")) == 2
    assert "--letter: expected" in capsys.readouterr().err
    assert files(erased) == kept


def test_receipts_hold_elsewhere_for_who_has_the_public_key(erased: Lake, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(erased.root / "receipts", tmp_path / "receipts"))
    found: tuple[attestation.Attestation, ...] = attestation.verify(folder, erased.root / "keys" / "sign.pub")
    assert [(each.what, each.lake, each.holds) for each in found] == [
        ("erasure receipt", erased.config.lake_id, True)
    ] * 3
    other: Any = tmp_path / "other.pub"
    other.write_text(signatures.public_key(Key(bytes(32))))
    assert not any(each.holds for each in attestation.verify(folder, other))
