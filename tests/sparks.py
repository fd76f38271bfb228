"""Spark for tests: where its jars are, told before a test has a home of its own."""

from __future__ import annotations

import os

from stedi.engines.spark.session import ICEBERG, SQLITE, jars

_FOUND = jars(ICEBERG, SQLITE)


def spark_jars() -> str | None:
    """What `STEDI_SPARK_JARS` is to hold, or None if there are no jars."""
    return os.pathsep.join(map(str, _FOUND)) if _FOUND else None
