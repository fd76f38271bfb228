"""The doctor asks each question by itself: what is wrong hides nothing else, and each such line says what to do."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakes import Slate
from stedi import Lake, cli
from stedi.context import runs
from stedi.operations import doctor
from stedi.operations.doctor import Finding, examine
from stedi.storage import durable


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("doctor"))


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


def found(root: Path) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(root)}


def wrong(root: Path) -> list[str]:
    return [name for name, finding in found(root).items() if finding.state == "wrong"]


def test_a_machine_that_is_well_exits_0_and_names_what_it_runs_on(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--lake", str(lake.root), "--json", "doctor"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is True
    names = [finding["name"] for finding in answer["findings"]]
    assert {"python", "packages", "lake", "key", "catalog", "locks", "disk", "file system", "clock", "java"} <= {*names}


def test_what_is_wrong_hides_nothing_else(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "00" * 32)
    (lake.root / "catalog.db").write_bytes(b"none")
    monkeypatch.setattr(doctor, "_LEAST", 1 << 60)
    later = runs.Run("1", "land", datetime.now(UTC) + timedelta(days=1))
    monkeypatch.setattr(runs, "history", lambda root: iter([later]))
    monkeypatch.setattr(doctor, "_version", lambda package: None if package == "boto3" else "1")
    assert set(wrong(lake.root)) == {"key", "catalog", "disk", "clock"}
    assert all(finding.advice for finding in found(lake.root).values() if finding.state == "wrong")
    assert found(lake.root)["clock"].found.endswith(f"Z, before the last run, {later.started:%Y-%m-%d %H:%M:%S}Z")
    assert found(lake.root)["extra aws"].advice == "pip install 'stedi[aws]'"


def test_a_folder_without_a_lake_and_a_damaged_one_are_told_apart(lake: Lake, tmp_path: Path) -> None:
    assert found(tmp_path / "nowhere")["lake"].state == "absent"
    assert not (tmp_path / "nowhere").exists()
    (lake.root / "lake.toml").write_text("no settings")
    assert wrong(lake.root) == ["lake"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells who holds a lock")
def test_a_lock_is_said_with_its_holder(lake: Lake) -> None:
    with durable.lock(lake.root / "build.lock", wait=False):
        assert f"build by process {os.getpid()} (" in found(lake.root)["locks"].found
    assert found(lake.root)["locks"].found == "none is held"


def test_the_doctor_changes_nothing(lake: Lake) -> None:
    before = sorted(path.stat().st_mtime_ns for path in lake.root.rglob("*"))
    assert wrong(lake.root) == []
    assert sorted(path.stat().st_mtime_ns for path in lake.root.rglob("*")) == before


def test_a_missing_extra_is_one_line(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from stedi.aws import account
    from stedi.aws import doctor as cloud

    account.client.cache_clear()
    monkeypatch.setitem(sys.modules, "boto3", None)
    monkeypatch.setitem(sys.modules, "botocore", None)
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    assert list(cloud.examine(str(lake.root))) == [
        Finding("aws", "wrong", "boto3 is not installed", "pip install 'stedi[aws]'")
    ]


def test_without_credentials_the_account_is_one_line(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    from stedi.aws import account
    from stedi.aws import doctor as cloud

    account.client.cache_clear()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    pytest.importorskip("boto3")
    [finding] = cloud.examine("s3://somewhere/lake")
    assert (finding.name, finding.state) == ("credentials", "wrong")
    assert finding.found.startswith("expected an answer from AWS, found: "), "its name stands before it"
    account.client.cache_clear()
