"""A lake in a bucket under Spark: a real S3 server, moto's Glue, and Iceberg's own readers and writers of S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import lakes
import servers
import sparks
from deliveries import customer, deliver, motion, step
from effort import NIGHTLY
from stedi.lake import Lake
from stedi.storage import s3

pytestmark = [
    pytest.mark.skipif(servers.VERSITYGW is None, reason=servers.NO_VERSITYGW),
    pytest.mark.skipif(
        sparks.JARS_OF_S3 is None, reason="there is no jar of Iceberg for AWS: make .venv/.spark fetches it"
    ),
    # PySpark leaves the sockets of its answers to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


def test_every_verb_of_spark_does_in_a_bucket_what_duckdb_does_in_a_folder(
    spark: Any, bucket: str, new_lake: Callable[..., Lake], sample_inbox: Path, tmp_path: Path
) -> None:
    second = tmp_path / "second"
    deliver(second, "customer", [customer("new@x.example", consent=50, serialNumber="s9")])
    deliver(second, "accelerometer", [motion("new@x.example"), motion("new@x.example", 101)])
    deliver(second, "step_trainer", [step("s9")])
    here = new_lake()
    here.land(sample_inbox)
    here.build()
    people = sorted(row[2] for row in lakes.contents(here)["customers_curated"])
    gone, erased = people[0], people[-1]
    here.land(second)
    here.withdraw(gone)
    here.build()
    here.erase(erased)
    here.build()
    place, inbox = f"s3://{bucket}/lake", s3.at(f"s3://{bucket}/inbox")
    for name, folder in (("first", sample_inbox), ("second", second)):
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        s3.upload((path, inbox / name / str(path.relative_to(folder))) for path in files)
    there = Lake.create(place)
    there.land(inbox / "first", engine="spark")
    there.build()
    there.land(inbox / "second")
    there.withdraw(gone)
    done = there.build(engine="spark")
    actions = {table.action for table in done.tables}
    assert "by-customer" in actions
    assert "rebuild" not in actions
    there.maintain(engine="spark")
    there.erase(erased, engine="spark")
    there.build()
    proof = there.prove()
    if NIGHTLY:  # it reads what a build and an audit read
        assert there.prove(engine="spark") == proof
    assert not any(check.violations for check in (*proof.checks, *there.audit(files=True, engine="spark")))
    assert lakes.contents(there) == lakes.contents(here)
    assert any(lakes.contents(there).values())
