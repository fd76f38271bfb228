"""Imports everything once and runs each command in a fork, since starting Python takes longer than the work.

Requests and answers are JSON, one per line. `run` runs the command line in a child; the preloaded shim counts its calls
and injects faults. `look` lets a child without faults read a lake as any reader would.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import importlib
import json
import os
import pkgutil
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import duckdb
import fastavro  # noqa: F401 - imported here, once, for the commands
import pyarrow.dataset  # noqa: F401
import pyiceberg.catalog.sql  # noqa: F401
import sqlglot  # noqa: F401

import sweep_mutants
from stedi import cli
from stedi.catalog import Catalog, hint
from stedi.catalog.snapshots import manifests
from stedi.engines.literals import quoted
from stedi.engines.table_files import scan
from stedi.schema.tables import COLUMNS

_USED = (
    *("catalog", "cli", "context", "engines", "erasure", "landing", "operations", "operations.maintenance", "privacy"),
    *("query", "transform"),
)
VOLATILE = {"batch", "landed_at", "file", "name"}
"""Columns that differ from one landing of the same files to the next."""


_random = os.urandom


def _key_or_random(size: int) -> bytes:
    """Returns the same key each time a key is generated, so that the same people have the same pseudonyms."""
    return b"k" * 32 if size == 32 else _random(size)


os.urandom = _key_or_random


def run(request: dict[str, Any]) -> int:
    """Runs one command of the command line with a fault; returns its exit code."""
    fault = request["fault"]
    if fault is not None:
        shim = ctypes.CDLL(os.environ["LD_PRELOAD"])
        folder, log = request["folder"].encode(), request["log"].encode()
        shim.shim_arm(folder, fault["action"], ctypes.c_long(fault["place"]), fault["errno"], fault["lasting"], log)
    try:
        return cli.main(request["words"])
    except SystemExit as stop:
        return int(stop.code or 0)


def look(request: dict[str, Any]) -> int:
    """Prints what a reader sees: each table's rows as count and digest; and the files that nobody reads.

    Later commands remove `strays`; other `unused` files are for `maintain` to remove.
    """
    root = Path(request["lake"])
    tables, strays, unused = {}, [], []
    catalog = Catalog(root)
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("set TimeZone = 'UTC'")
    for name, state in (catalog.tables() if (root / "lake.toml").is_file() else {}).items():
        columns = COLUMNS[name]
        shown = ", ".join(
            f"epoch_ms({quoted(c.name)})" if c.type == "timestamptz" else f"{quoted(c.name)}::varchar"
            for c in columns
            if c.name not in VOLATILE
        )
        found = connection.execute(f"select {shown} from ({scan(catalog.files(state), columns)})").fetchall()
        digest = hashlib.sha256("\n".join(sorted(map(repr, found))).encode()).hexdigest()
        tables[name] = [len(found), digest]
        used = {file.path for snapshot in state.snapshots for file in catalog.files(state, snapshot)}
        strays += [f"missing {path}" for path in used if not os.path.exists(path)]
        data = catalog.folder(name) / "data"
        strays += [str(path) for path in data.rglob("*") if path.is_file() and str(path) not in used]
        metadata = {os.path.basename(path) for path in state.metadata} | {hint.NAME}
        for snapshot in state.snapshots:
            metadata |= {os.path.basename(path) for path in (snapshot.manifest_list, *manifests(name, snapshot))}
        unused += [str(path) for path in (catalog.folder(name) / "metadata").iterdir() if path.name not in metadata]
        strays += [f"{name}@{branch}" for branch in state.branches if branch != "main"]
    strays += [str(path) for path in root.glob("*.partial")]
    for place in ("pending", "tmp"):
        strays += [str(path) for path in (root / place).rglob("*") if path.is_file()]
    print(json.dumps({"tables": tables, "strays": strays, "unused": unused, "error": ""}))
    return 0


def main() -> None:
    """Answers requests until stdin ends."""
    for name in _USED:
        for module in pkgutil.iter_modules(importlib.import_module(f"stedi.{name}").__path__):
            if not module.name.startswith("lib"):  # compiled C modules, which are loaded on demand
                importlib.import_module(f"stedi.{name}.{module.name}")
    sweep_mutants.apply()
    gc.freeze()  # otherwise each child copies memory that it only reads
    gc.set_threshold(50_000)  # as a command sets it
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                signal.signal(signal.SIGINT, signal.default_int_handler)
                for stream, name in ((sys.stdout, "stdout"), (sys.stderr, "stderr")):
                    os.dup2(os.open(request[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream.fileno())
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                code = {"run": run, "look": look}[request["verb"]](request)
                sys.stdout.flush()
            except Exception:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - started}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
