"""Spark for tests: one session for all of them, small and watched; or the reason why there is none."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
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

QUICK_JVM = (
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC "
    "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote"
)
"""Flags of a JVM that lives for minutes: its best compiler and a check of known jars would cost more than they give.

Without that compiler the room for compiled code is a fifth of the usual, and Spark needs more: it would be compiled,
thrown away and compiled again.
"""
SMALL = {
    # a table of ten rows needs no second task, and compiling its plan takes longer than running it
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "1",
    "spark.sql.adaptive.enabled": "false",  # nothing is left to choose; rows are the same whichever plan is taken
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": QUICK_JVM,
    "spark.executor.extraJavaOptions": QUICK_JVM,
}
_STARTS = """
import json, sys
from stedi.engines.spark import session
spark = session(master=sys.argv[1], options=json.loads(sys.argv[2]))
del sys.argv[1:3]
"""


@contextmanager
def started(events: Path, environment: Mapping[str, str]) -> Iterator[Any]:
    """Starts Spark for this process; it logs its events, plans among them, into a folder.

    Args:
        events: The folder.
        environment: What its processes find in their environment beside what this one's has.
    """
    within = JARS_OF_S3 or JARS
    assert within is not None
    watched = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": f"file://{events}",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, os.pathsep.join(map(str, within)))
        with pytest.MonkeyPatch.context() as once:
            for name, value in environment.items():
                once.setenv(name, value)
            running = session(master="local[2,4]", options=SMALL | watched)
        yield running
        running.sparkContext.stop()


def collecting(patch: pytest.MonkeyPatch) -> list[Any]:
    """Returns every value that comes from executors to this process from now on, by whichever way PySpark has."""
    from pyspark import RDD
    from pyspark.sql.classic.dataframe import DataFrame

    values: list[Any] = []

    def watched(owner: type, name: str) -> None:
        method: Callable[..., Any] = getattr(owner, name)

        def watching(self: Any, *given: Any, **named: Any) -> Any:
            rows = method(self, *given, **named)
            values.extend(value for row in rows for value in row)
            return rows

        patch.setattr(owner, name, watching)

    for owner, names in {DataFrame: ("collect", "toLocalIterator"), RDD: ("collect", "toLocalIterator")}.items():
        for name in names:
            watched(owner, name)
    for name in ("toArrow", "toPandas", "_collect_as_arrow"):
        patch.setattr(DataFrame, name, None)
    return values


class InTurn(RealLake):
    """A lake that both engines build, in turn."""

    builds = 0

    def _build(self, now: int, **options: Any) -> Build:
        self.builds += 1
        return super()._build(now, **options, engine=("spark", "duckdb")[self.builds % 2])


def program(
    source: str, *words: object, master: str = "local[2]", partitions: int = 1, jars: tuple[Path, ...] | None = JARS
) -> list[str]:
    """Runs a program in a process of its own, in which `spark` runs already; returns the lines that it has printed."""
    assert jars is not None
    options = SMALL | {"spark.sql.shuffle.partitions": str(partitions)}
    command = [sys.executable, "-c", _STARTS + source, master, json.dumps(options), *map(str, words)]
    environment = os.environ | {VARIABLE: os.pathsep.join(map(str, jars))}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.splitlines()


def spark_jars() -> str | None:
    """What `STEDI_SPARK_JARS` is to hold, or None if there are no jars."""
    return os.pathsep.join(map(str, JARS)) if JARS else None
