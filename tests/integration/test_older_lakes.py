"""A lake of an earlier version with interrupted work opens, is finished, and passes its audit."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kills
from effort import at_night, tries
from lakes import KEY, REPOSITORY, unseen
from stedi import cli
from stedi.errors import ConfigError, KeyRefused, LakeError
from stedi.lake import Lake
from stedi.operations import migration
from stedi.privacy.pseudonyms import parsed
from stedi.privacy.state import StateRefused
from stedi.schema import descriptions

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
            safely = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # Python 3.11.4 has it first
            archive.extractall(PLACE.parent, **safely)  # type: ignore[arg-type]
        if request.param == "key":
            monkeypatch.setenv("STEDI_PSEUDONYM_KEY", f"{NEXT_KEY} {KEY}")
        yield PLACE / "lake"
    finally:
        shutil.rmtree(PLACE)


def people() -> dict[str, str]:
    """The addresses of who has withdrawn, who is erased, and whose erasure was interrupted."""
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


def kept(root: Path) -> dict[str, str]:
    """What a migration may change, and what an earlier version reads."""
    files = [path for path in root.rglob("*") if path.is_file()]
    apart = ("runs", "access", "journal", "backups", "tmp", "keys")
    inside = [path for path in files if path.relative_to(root).parts[0] not in apart and path.suffix != ".lock"]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in inside}


@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_a_lake_of_the_first_format_is_migrated_and_back_as_it_was(
    older: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.open(older)
    lake.build()  # finishes what was interrupted
    before = kept(older)
    assert (lake.config.format, lake.migrate(dry_run=True).now) == (1, 2)
    assert kept(older) == before
    done = lake.migrate()
    assert (done.was, done.now, len(done.steps)) == (1, 2, 4)
    assert lake.config.format == 2
    assert lake.migrate().steps == ()
    assert times_landed(lake, people()["erased"]) == 0
    lake.land(PLACE / "inbox")
    assert_audited(lake)
    assert lake.config.signs_as
    assert cli.main(["--lake", str(older), "migrate", "--back"]) == 0
    assert "format 2 is now format 1" in capsys.readouterr().out
    assert Lake.open(older).config.format == 1
    changed = {name for name, digest in kept(older).items() if before.get(name) != digest}
    assert not {"lake.toml", "tombstones"} & changed
    assert not (older / "keys" / "sign.pub").exists()
    assert_audited(Lake.open(older))


@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_a_migration_has_older_tables_say_what_columns_mean(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pyiceberg.catalog import load_catalog

    lake = Lake.open(older)
    lake.build()
    before = {name: lake.catalog.table(name).snapshots for name in descriptions.TABLES if name in lake.catalog.listed()}
    rows = {table.name: table.rows for table in lake.tables()}
    assert set(lake.catalog.undescribed()) == set(before), "made before columns were described"
    with monkeypatch.context() as patch:  # the clock was set back: Iceberg's readers refuse times that run backwards
        patch.setattr(time, "time", lambda: 1_700_000_000.0)
        lake.migrate()
    assert lake.catalog.undescribed() == lake.migrate().steps == ()
    catalog = load_catalog("stedi", type="sql", uri=f"sqlite:///{older}/catalog.db")
    for name, snapshots in before.items():
        table = catalog.load_table(f"stedi.{name}")
        told = {field.name: field.doc for field in table.schema().fields}
        comments = descriptions.comments(name)
        assert told == {column: comments[column] for column in told}
        assert lake.catalog.table(name).snapshots == snapshots, "no snapshot is made or changed"
        assert sum(task.file.record_count for task in table.scan().plan_files()) == rows[name]
        (first, *_), field = snapshots, table.schema().fields[0]
        assert table.scan(snapshot_id=first.id).projection().find_field(field.field_id).name == field.name
    lake.land(PLACE / "inbox")
    assert_audited(lake)


@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_there_is_no_way_back_past_an_erasure_nor_without_a_backup(older: Path) -> None:
    lake = Lake.open(older)
    lake.build()
    with pytest.raises(LakeError, match="backup of a migration"):
        lake.migrate(back=True)
    lake.migrate()
    lake.erase(people()["withdrawn"])
    after = kept(older)
    with pytest.raises(LakeError, match="somebody was erased since"):
        lake.migrate(back=True)
    assert kept(older) == after


@pytest.mark.parametrize("older", ["key", pytest.param("erasure", marks=at_night)], indirect=True)
def test_a_migration_first_finishes_what_was_cut_off(older: Path) -> None:
    lake = Lake.open(older)
    if (older / "erasing.json").exists():
        with pytest.raises(StateRefused, match="erase --resume"):
            lake.migrate()
        lake.erase()
    Lake.open(older).migrate()
    lake = Lake.open(older)
    assert lake.config.format == 2
    lake.build()
    assert_audited(lake)


@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_a_migration_that_is_killed_or_finds_the_disk_full_goes_on_from_its_backup(
    older: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Lake.open(older).build()
    start, before = PLACE / "start", kept(older)
    shutil.copytree(older, start, symlinks=True)

    def put_back() -> Lake:
        shutil.rmtree(older)
        shutil.copytree(start, older, symlinks=True)
        return unseen(older)

    def settled() -> None:
        lake = Lake.open(older)
        assert lake.migrate().now == lake.config.format == 2
        assert len(list((older / "backups").glob(f"*/{migration._MANIFEST}"))) == 1
        assert lake.build().run == ""
        lake.migrate(back=True)
        assert {name: kept(older)[name] for name in ("lake.toml", "tombstones")} == {
            name: before[name] for name in ("lake.toml", "tombstones")
        }

    put_back()
    chance = random.Random(18)
    places = sorted(chance.sample(range(1, 45), tries(1, 2, 44)))
    print(f"killed at {list(places)}")
    for place in places:
        put_back()
        if kills.at(place, lambda: Lake.open(older).migrate()):
            settled()
    put_back()
    real = os.replace

    def full(source: str, target: str) -> None:
        if str(target).endswith("lake.toml"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            Lake.open(older).migrate()
    assert Lake.open(older).config.format == 1
    settled()


@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_a_newer_lake_and_a_lake_without_its_key_are_refused(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Lake.open(older).build()
    with monkeypatch.context() as patch:
        patch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
        before = kept(older)
        with pytest.raises(KeyRefused):
            Lake.open(older).migrate()
        assert kept(older) == before
    file = older / "lake.toml"
    file.write_text(file.read_text().replace("format = 1", "format = 3"))
    with pytest.raises(ConfigError, match="a newer stedi made this lake") as caught:
        Lake.open(older)
    assert "\n" not in str(caught.value)


@at_night
@pytest.mark.own_processes
@pytest.mark.parametrize("older", ["landing"], indirect=True)
def test_two_migrations_at_once_are_one(older: Path) -> None:
    Lake.open(older).build()
    command = [sys.executable, "-m", "stedi", "--lake", str(older), "migrate"]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = sorted(process.communicate(timeout=60)[0].splitlines()[0] for process in started)
    assert [process.returncode for process in started] == [0, 0]
    assert said[0].startswith("format 1 is now format 2")
    assert said[1].startswith("nothing to do")
    assert len(list((older / "backups").iterdir())) == 1
