"""A lake in a bucket keeps its history of runs, tells how it is, and the doctor looks at the account."""

from __future__ import annotations

import errno
import json
import time
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from threading import Event, Timer

import pytest

from deliveries import customer, deliver
from stedi import cli
from stedi.aws import account
from stedi.context import runs
from stedi.lake import Lake
from stedi.operations import doctor
from stedi.schema import descriptions
from stedi.storage import s3
from stedi.storage.s3 import leases


def test_a_bucket_keeps_runs_and_one_that_was_killed_shows_when_its_heart_no_longer_beats(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_LEASE", 1.5)
    monkeypatch.setattr(leases, "_BEAT", 0.2)
    place = f"s3://{bucket}/lake"
    lake = Lake.create(place)
    deliver(tmp_path, "customer", [customer()])
    lake.land(tmp_path)
    run = runs.Run(runs.run_id(), "build", datetime.now(UTC))
    note = s3.Heartbeat(lake.root / runs.FOLDER / "begun" / f"{run.id}.json", runs._line(run))
    with runs.recorded(lake.context, "maintain"):
        assert [found.outcome for found in lake.runs()] == ["running", "running", "done", "done"]
        note.end()  # as its process does that is killed
        latest = time.monotonic() + 60  # a last beat may be under way, and S3 tells whole seconds
        while [found.outcome for found in lake.runs()] != ["running", "killed", "done", "done"]:
            assert time.monotonic() < latest
            time.sleep(0.2)
    assert [(found.command, found.outcome, found.rows) for found in lake.runs()] == [
        ("maintain", "done", None),
        ("build", "killed", None),
        ("land", "done", 1),
        ("init", "done", None),
    ]
    assert cli.main(["--lake", place, "--json", "status"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["due"]["agreed"] == 1
    assert told["disk"]["free"] is None
    assert any("was killed" in line for line in told["late"])
    assert lake.catalog.undescribed() == ()
    with monkeypatch.context() as patch:
        patch.setattr(descriptions, "comments", lambda table: {"reason": "why not"})
        lake.catalog.describe("quarantine")
        assert lake.catalog.undescribed() == ()
    assert lake.catalog.undescribed() == ("quarantine",)
    lake.catalog.describe("quarantine")
    assert lake.catalog.undescribed() == ()
    account.client.cache_clear()
    findings = {found.name: found for found in [*doctor.examine(place), *_cloud(place)]}
    assert findings["catalog"].state == findings[f"bucket {bucket}"].state == "ok"
    assert findings["Glue database stedi"].state == findings["credentials"].state == "ok"
    assert findings["workgroup stedi-officer"].state == "ok", "moto has every workgroup"
    account.client.cache_clear()


def test_a_watch_of_a_bucket_lands_each_object_once_when_it_comes(bucket: str, tmp_path: Path) -> None:
    lake = Lake.create(f"s3://{bucket}/inbox/lake")  # whose own objects are no deliveries
    stop = Event()
    watched = lake.watch(f"s3://{bucket}/inbox", every=timedelta(seconds=0.1), stop=stop)
    for number in (1, 2):
        folder = deliver(tmp_path, "customer", [customer(f"p{number}@x.example")])
        [file] = [path for path in tmp_path.rglob("*.json") if f"p{number}@" in path.read_text()]
        s3.write(s3.at(f"s3://{bucket}/inbox/customer/{number}.json"), file.read_bytes())
        done = next(watched)
        assert done.landing is not None, folder
        assert [new.accepted for new in done.landing.files if not new.already_landed] == [1]
        assert done.build is not None
        assert not done.error
    Timer(1.0, stop.set).start()
    assert list(watched) == [], "nothing came, and nothing was done"
    assert [run.command for run in lake.runs()] == ["build", "land", "build", "land", "init"]


def test_a_watch_of_a_bucket_tries_an_object_again_that_did_not_come_in_time(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, real, left = Lake.create(f"s3://{bucket}/lake"), s3.download, [1, 2, 3]

    def download(path: Path, to: Path, **options: str) -> None:
        if left and path.name == "late.json":
            left.pop()
            raise TimeoutError(errno.ETIMEDOUT, "Connection timed out")
        real(path, to, **options)

    monkeypatch.setattr(s3, "download", download)
    for name in ("late", "soon"):
        text = json.dumps(customer(f"{name}@x.example")).encode()
        s3.write(s3.at(f"s3://{bucket}/inbox/customer/{name}.json"), text)
    first, second = islice(lake.watch(f"s3://{bucket}/inbox", every=timedelta(seconds=0.05)), 2)
    assert first.landing is not None
    assert [(item.name, item.passing) for item in first.landing.skipped] == [("inbox/customer/late.json", True)]
    assert second.landing is not None
    assert (left, second.landing.skipped) == ([], ())
    assert {file.name: file.already_landed for file in second.landing.files} == {
        "inbox/customer/late.json": False,
        "inbox/customer/soon.json": True,
    }


def _cloud(place: str) -> list[doctor.Finding]:
    from stedi.aws import doctor as cloud

    return list(cloud.examine(place))
