"""Forks Spark's Python workers as `pyspark.daemon` does, but has imported what their tasks need.

Otherwise each worker imports it, which takes seconds of a core, and Spark ends workers that have had nothing to do for
a minute.
"""

from __future__ import annotations

import gc
import importlib
from typing import Any

import wire

_NEEDED = (
    *("duckdb", "pyarrow.dataset", "pyarrow.parquet", "sqlglot", "boto3", "s3transfer.manager"),
    *("stedi.engines.spark.arrow", "stedi.engines.duckdb", "stedi.landing.distribute", "stedi.erasure"),
    *("stedi.operations.maintenance", "stedi.audit.integrity", "stedi.storage.s3"),
)

if __name__ == "__main__":
    for name in _NEEDED:
        importlib.import_module(name)
    wire.warm()
    daemon: Any = importlib.import_module("pyspark.daemon")  # it has no types
    gc.freeze()  # otherwise each fork copies memory that it only reads
    daemon.manager()
