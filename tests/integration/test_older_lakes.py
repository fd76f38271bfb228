"""A lake that an earlier version made, and in which something was cut off, opens, is finished, and holds its audit."""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakes import KEY, REPOSITORY
from stedi.lake import Lake
from stedi.privacy.pseudonyms import parsed
from stedi.privacy.state import StateRefused

ARCHIVES = REPOSITORY / "tests" / "data" / "lakes"
PLACE = Path("/tmp/stedi-kept-lake")
"""Where the lakes were made: their tables name their files by absolute paths."""
NEXT_KEY = "3c" * 32


@pytest.fixture
def older(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of one of the lakes, unpacked."""
    try:
        PLACE.mkdir()
    except FileExistsError:
        pytest.skip(f"{PLACE} is there: another run of these tests uses it, or one was killed; then remove it")
    try:
        with tarfile.open(ARCHIVES / f"{request.param}.tar.xz") as archive:
            archive.extractall(PLACE.parent, filter="data")
        if request.param == "key":
            monkeypatch.setenv("STEDI_PSEUDONYM_KEY", f"{NEXT_KEY} {KEY}")
        yield PLACE / "lake"
    finally:
        shutil.rmtree(PLACE)


def people() -> dict[str, str]:
    """The addresses of who has withdrawn, who is erased, and whose erasure was cut off."""
    named: dict[str, str] = json.loads((PLACE / "people.json").read_text("utf-8"))
    return named


def times_landed(lake: Lake, address: str) -> int:
    """How many customer records of an address are landed."""
    sql = f"select count(*) from customers_landing where lower(trim(email)) = '{address}'"
    return int(lake.query(sql).arrow().column(0)[0].as_py())


def assert_audited(lake: Lake) -> None:
    """Every check of the files and of consent holds, and nobody who was erased stands in a landed record."""
    assert lake.build().run == "", "a second build had something to do"
    assert [check for check in (*lake.audit(files=True), *lake.prove().checks) if check.violations] == []
    assert times_landed(lake, people()["withdrawn"]) > 0
    assert times_landed(lake, people()["erased"]) == 0


@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_a_landing_that_was_cut_off_is_finished(older: Path) -> None:
    lake = Lake.open(older)
    lake.build()
    assert times_landed(lake, "late@x.example") == 1
    [again] = lake.land(PLACE / "late").files
    assert again.already_landed
    assert_audited(lake)


@pytest.mark.parametrize("older", ["erasure"], indirect=True)
def test_an_erasure_that_was_cut_off_is_finished(older: Path) -> None:
    lake, erased = Lake.open(older), people()["erasing"]
    with pytest.raises(StateRefused, match="erase --resume"):
        lake.build()
    lake.erase()
    lake.build()
    assert times_landed(lake, erased) == 0
    assert len(lake.receipts()) == 2
    lake.land(PLACE / "inbox")
    lake.build()
    assert times_landed(lake, erased) == 0
    assert_audited(lake)


@pytest.mark.parametrize("older", ["key"], indirect=True)
def test_a_change_of_key_that_was_cut_off_is_finished(older: Path) -> None:
    lake = Lake.open(older)
    lake.build()
    lake = Lake.open(older)
    assert lake.config.key_fingerprint == parsed(f"{NEXT_KEY} {KEY}", "the test").of_version(1).fingerprint
    assert_audited(lake)
