"""The recipe of docs/readers.md for Spark finds the rows that a query finds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lakes
from deliveries import customer, deliver, motion, step
from stedi import Lake


def test_spark_finds_the_rows_with_the_settings_of_the_page(spark: Any, tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    deliver(tmp_path / "inbox", "customer", [customer()])
    deliver(tmp_path / "inbox", "accelerometer", [motion(at=at) for at in (100, 200, 300)])
    deliver(tmp_path / "inbox", "step_trainer", [step(at=at) for at in (100, 200, 300)])
    lake.land(tmp_path / "inbox")
    lake.build()
    page = (lakes.REPOSITORY / "docs" / "readers.md").read_text("utf-8")
    [command] = re.findall(r"^spark-sql .*?^```$", page, re.MULTILINE | re.DOTALL)
    command = command.replace("/data/lake", str(lake.root))
    settings = dict(re.findall(r"--conf (spark\.sql\.catalog\.\S+?)=(\S+)", command))
    assert len(settings) == 5
    own = spark.newSession()  # not spark-sql, which takes half a minute to start
    for name, value in settings.items():
        own.conf.set(name, value)
    [statement] = re.findall(r"-e '(.*)'", command)
    assert [row[0] for row in own.sql(statement).collect()] == [3]
