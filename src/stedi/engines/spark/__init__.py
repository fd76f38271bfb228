"""The engine for data that is too large for one machine: Spark, with Iceberg's own readers and writers."""

from __future__ import annotations

from stedi.engines.spark.arrow import mapped
from stedi.engines.spark.engine import SparkEngine
from stedi.engines.spark.session import CATALOG, attach, jars, session

__all__ = ["CATALOG", "SparkEngine", "attach", "jars", "mapped", "session"]
