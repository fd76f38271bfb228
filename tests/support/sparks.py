"""Spark for tests: one session for all of them, small and watched; or the reason why there is none."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from law import RealLake
from stedi.engines.spark.session import AWS, ICEBERG, SQLITE, jars, session
from stedi.engines.spark.session import JARS as VARIABLE
from stedi.transform import Build

JARS, JARS_OF_S3 = jars(ICEBERG, SQLITE), jars(ICEBERG, SQLITE, AWS)
"""Found before tests have a home of their own."""


def _missing() -> str:
    java = shutil.which("java")
    if importlib.util.find_spec("pyspark") is None:
        return "PySpark is not installed: make .venv/.spark"
    if java is None or subprocess.run([java, "-version"], capture_output=True, check=False).returncode:
        return "there is no Java 17 that runs"
    return "" if JARS else f"there is no jar of Iceberg: make .venv/.spark fetches {ICEBERG}"


NO_SPARK = _missing()
needs_spark = pytest.mark.skipif(bool(NO_SPARK), reason=NO_SPARK)
ENGINES = ("duckdb", pytest.param("spark", marks=needs_spark))
"""Both engines, for a test that holds each to the same."""

SMALL = {
    # a table of ten rows needs no second task, and compiling its plan takes longer than running it
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
}


@contextmanager
def started(events: Path) -> Iterator[Any]:
    """Starts Spark for this process; it logs its events, plans among them, into a folder."""
    assert JARS is not None
    watched = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": f"file://{events}",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, os.pathsep.join(map(str, JARS)))
        running = session(master="local[2,4]", options=SMALL | watched)
        yield running
        running.sparkContext.stop()


class InTurn(RealLake):
    """A lake that both engines build, in turn."""

    builds = 0

    def _build(self, now: int, *, full: bool) -> Build:
        self.builds += 1
        return super()._build(now, full=full, engine=("spark", "duckdb")[self.builds % 2])


def spark_jars() -> str | None:
    """What `STEDI_SPARK_JARS` is to hold, or None if there are no jars."""
    return os.pathsep.join(map(str, JARS)) if JARS else None
