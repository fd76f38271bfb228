"""Spark for tests: one small session for all of them, with its events logged; or the reason why there is none."""

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
"""Found before tests get their own home folder."""


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
"""Both engines, for a test that expects the same from each."""

QUICK_JVM = (
    "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m -XX:+UseSerialGC "
    "-XX:+UnlockDiagnosticVMOptions -XX:-BytecodeVerificationRemote -XX:MetaspaceSize=256m"
)
"""Flags for a JVM that runs for minutes: its best compiler and a check of known jars would cost more than they save.

Without that compiler the JVM reserves a fifth of the usual space for compiled code. Spark needs more, or its code would
be compiled, discarded and compiled again. Its classes fill 160 MB: from less, each step on the way there is a full
garbage collection.
"""
_OF_SPARK = f"{QUICK_JVM} -Xms1g"  # as much as it may have: it grows by full collections
_NO_CODE = {"spark.sql.codegen.factoryMode": "NO_CODEGEN"}
SMALL = {
    # a table of ten rows needs only one task, and compiling its plan takes longer than running it
    "spark.sql.shuffle.partitions": "1",
    "spark.default.parallelism": "1",
    "spark.sql.adaptive.enabled": "false",  # there is nothing to optimize; every plan gives the same rows
    "spark.sql.codegen.wholeStage": "false",
    **_NO_CODE,
    "spark.driver.memory": "1g",
    "spark.driver.extraJavaOptions": _OF_SPARK,
    "spark.executor.extraJavaOptions": _OF_SPARK,
}
_STARTS = """
import json, sys
from stedi.engines.spark import session
spark = session(master=sys.argv[1], options=json.loads(sys.argv[2]))
del sys.argv[1:3]
"""


@contextmanager
def started(events: Path, environment: Mapping[str, str]) -> Iterator[Any]:
    """Starts Spark for this process; it logs its events, including plans, into a folder.

    Args:
        events: The folder.
        environment: Variables that its processes have in addition to this process's environment.
    """
    within = JARS_OF_S3 or JARS
    assert within is not None
    watched = {
        "spark.eventLog.enabled": "true",
        "spark.eventLog.rolling.enabled": "false",
        "spark.eventLog.compress": "false",
        "spark.eventLog.dir": f"file://{events}",
        "spark.python.daemon.module": "spark_daemon",
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, os.pathsep.join(map(str, within)))
        with pytest.MonkeyPatch.context() as once:
            once.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
            for name, value in environment.items():
                once.setenv(name, value)
            running = session(master="local[2,4]", options=SMALL | watched)
        # where `SparkEngine._keep` counts rows, tasks see no settings of the session, only such properties;
        # with a name for the place that calls, Spark does not search the stack for it
        for name, value in (_NO_CODE | {"callSite.short": "tests", "callSite.long": "tests"}).items():
            running.sparkContext.setLocalProperty(name, value)
        yield running
        running.sparkContext.stop()


def collecting(patch: pytest.MonkeyPatch) -> list[Any]:
    """Returns every value that executors send to this process from now on, through any of PySpark's ways."""
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
    """Runs a program in its own process, with `spark` already started; returns the lines that it printed."""
    assert jars is not None
    options = SMALL | {"spark.sql.shuffle.partitions": str(partitions)}
    command = [sys.executable, "-c", _STARTS + source, master, json.dumps(options), *map(str, words)]
    environment = os.environ | {VARIABLE: os.pathsep.join(map(str, jars))}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran.stdout.splitlines()


def spark_jars() -> str | None:
    """Returns the value for `STEDI_SPARK_JARS`, or None if there are no jars."""
    return os.pathsep.join(map(str, JARS)) if JARS else None
