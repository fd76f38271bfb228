"""The lake's tables read without this project, by PyIceberg's client and by DuckDB: `python other_readers.py LAKE`."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
from pyiceberg.catalog import load_catalog

lake = Path(sys.argv[1]).absolute()

catalog = load_catalog("stedi", type="sql", uri=f"sqlite:///{lake}/catalog.db")
table = catalog.load_table("stedi.machine_learning_curated")
snapshot = table.current_snapshot()
assert snapshot is not None
assert snapshot.summary is not None
print("built by", snapshot.summary["stedi.run"], "from", snapshot.summary["stedi.inputs"])

# the files of that one snapshot, whatever is published meanwhile
files = [task.file.file_path for task in table.scan().plan_files()]
print(duckdb.read_parquet(files).aggregate("count(*) as rows, count(distinct customer_id) as customers"))
