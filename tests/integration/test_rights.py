"""Rights and duties together: what one command leaves, the others hold to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from deliveries import customer, deliver, motion, step
from lakes import BELOW_LANDING, conserved, contents, rows
from stedi.lake import Lake

PEOPLE = ("ana", "bo", "cy", "di")
SHARED = "shared"


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Deliveries of four customers who agree; two of them share a device, and moved at one moment both."""
    inbox = tmp_path / "inbox"
    serials = dict(zip(PEOPLE, (SHARED, SHARED, "cy", "di"), strict=True))
    deliver(inbox, "customer", [customer(f"{who}@x.example", serialNumber=serials[who]) for who in PEOPLE])
    deliver(inbox, "accelerometer", [motion(f"{who}@x.example", 100 + n) for n, who in enumerate(PEOPLE)])
    deliver(inbox, "accelerometer", [motion("ana@x.example", 101)], "both.json")
    deliver(inbox, "step_trainer", [step(serial, at) for serial in {*serials.values()} for at in range(100, 104)])
    return inbox


@pytest.fixture
def lake(new_lake: Callable[..., Lake], inbox: Path) -> Lake:
    """A lake of them, built."""
    lake = new_lake()
    lake.land(inbox)
    lake.build()
    return lake


def sound(lake: Lake) -> None:
    """The published tables are proved, and a build has nothing to do."""
    assert all(table.action == "none" for table in lake.build().tables)
    proof = lake.prove()
    assert not [check for check in proof.checks if check.violations]
    conserved(lake)


def test_who_was_erased_stays_out_under_another_key(lake: Lake, inbox: Path, tmp_path: Path) -> None:
    key = tmp_path / "next.key"
    [receipt] = lake.erase("ana@x.example")
    sound(lake)
    before = {name: sum(found.values()) for name, found in contents(lake).items()}
    with pytest.MonkeyPatch.context() as patch:
        lake.rotate_key(key)
        patch.delenv("STEDI_PSEUDONYM_KEY", raising=False)
        patch.setenv("STEDI_KEY_FILE", str(key))
        lake = Lake.open(lake.root)
        sound(lake)
        assert {name: sum(found.values()) for name, found in contents(lake).items()} == before
        assert lake.verify_receipt(receipt.id).holds, "signed under the key before"
        for path in inbox.rglob("*.json"):
            path.write_text(path.read_text() + "\n")  # other bytes, the same records
        assert lake.land(inbox).erased > 0
        lake.build()
        sound(lake)
        assert {name: sum(found.values()) for name, found in contents(lake).items()} == before


def test_an_explanation_and_a_withdrawal_say_that_somebody_was_erased(lake: Lake) -> None:
    assert lake.explain("Ana@x.example").erased is None
    lake.erase("ana@x.example")
    assert lake.explain(" ANA@x.example ").erased is not None
    withdrawn = lake.withdraw("ana@x.example")
    assert (withdrawn.erased, withdrawn.landed) == (1, 0)
    sound(lake)


def test_an_erased_claim_stands_in_proofs_and_explanations(lake: Lake) -> None:
    lake.erase("ana@x.example")
    sound(lake)
    left = {(found.reason.value, found.shared_by) for found in lake.explain("bo@x.example").left_out}
    assert ("withheld", 2) in left, "nobody moved at those moments, and the device is still shared with whom was erased"


def test_who_withdrew_and_is_erased_leaves_no_withdrawal(lake: Lake) -> None:
    lake.withdraw(
        "di@x.example",
    )
    lake.withdraw("nobody@x.example")
    lake.build()
    lake.erase("di@x.example", "nobody@x.example")
    assert not any(
        "@" in str(row) and ("di@" in str(row) or "nobody@" in str(row)) for row in rows(lake, "customers_landing")
    )
    sound(lake)
    for name in BELOW_LANDING:
        assert lake.key().customer_id("di@x.example") not in {row[0] for row in rows(lake, name)}
