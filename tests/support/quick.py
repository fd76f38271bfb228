"""Makes the lakes of one process fast, for tests that land and build thousands of times.

It skips what those tests do not check: whether bytes reach the disk, how often an immutable file is read, and where an
engine stores its results. It caches only values that cannot change.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import pytest

from stedi import catalog
from stedi.catalog import committer, local, snapshots
from stedi.engines.duckdb import DuckDB
from stedi.schema import tables
from stedi.storage import durable
from stedi.transform import session


@contextmanager
def folder() -> Iterator[Path]:
    """Yields a folder for lakes, in memory if the machine has such a place, and removes it afterwards."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as made:
        yield Path(made)


@contextmanager
def quickened() -> Iterator[None]:
    """Makes lakes fast within a block."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(durable, "sync", lambda path: None)
        patch.setattr(os, "fsync", lambda descriptor: None)
        for name in ("read_metadata", "read_table", "data_files"):
            kept_results = _kept(getattr(snapshots, name))
            for module in (snapshots, catalog, committer, local):
                if hasattr(module, name):
                    patch.setattr(module, name, kept_results)
        patch.setattr(session, "rebind", _over)
        with one_engine():
            yield
    forget()


@contextmanager
def one_engine() -> Iterator[None]:
    """Gives every session of this process its own database in one shared engine, within a block.

    Starting an engine takes longer than a small build, and an engine that reads objects first checks its extension,
    which takes 0.15 s. Tests whose claim is about an engine use the production way of starting it
    (`pytest.mark.own_engine`).
    """
    if isinstance(duckdb.connect, partial):  # within another such block
        yield
        return
    attach = DuckDB._attach
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DuckDB, "_attach", lambda self: getattr(self.connection, "name", "") or attach(self))
        patch.setattr(duckdb, "connect", partial(_session, duckdb.connect))
        yield


OWN = False
"""Whether the current test starts engines as in production, because its claim is about them."""


def forget() -> None:
    """Drops the cached values of files that may be removed now."""
    for kept in _KEPT:
        kept.clear()


_KEPT: list[dict[Any, Any]] = []


def _kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a function with cached results until `forget`; equal arguments must always give equal results."""
    known: dict[Any, Any] = {}
    _KEPT.append(known)

    def remembered(*arguments: Any, **options: Any) -> Any:
        what = tuple(getattr(argument, "manifest_list", argument) for argument in arguments)
        key = (what, *options.items())
        if key not in known:
            known[key] = function(*arguments, **options)
        return known[key]

    return remembered


_statements: dict[tuple[object, ...], str] = {}


def _over(sql: str, *settings: Mapping[str, Any]) -> str:
    key = (sql, *(tuple(sorted(setting.items())) for setting in settings))
    if key not in _statements:
        _statements[key] = tables.rebind(sql, *settings)
    return _statements[key]


class _Session:
    """A separate database in an engine that this process keeps."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, name: str) -> None:
        self._connection, self.name = connection, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        found = self._connection.cursor()
        found.execute("set TimeZone = 'UTC'")
        return found

    def close(self) -> None:
        self._connection.execute("use memory")
        self._connection.execute(f"detach {self.name}")
        self._connection.close()


_names = itertools.count()
_engines: dict[int, duckdb.DuckDBPyConnection] = {}
"""The engines by their number of threads."""


def _session(
    connect: Callable[..., duckdb.DuckDBPyConnection], *place: str, config: dict[str, Any] | None = None
) -> Any:
    if OWN or place or config is None or "temp_directory" not in config:
        return connect(*place, config=config or {})
    if config["memory_limit"].endswith("KB"):  # the test needs it to run out of memory
        return connect(config=config)
    threads = config["threads"]
    if threads not in _engines:
        kept = {key: value for key, value in config.items() if key != "temp_directory"}
        _engines[threads] = connect(config=kept | {"memory_limit": "1GB"})  # the first caller starts it
    connection, name = _engines[threads].cursor(), f"session_{next(_names)}"
    connection.execute(f"attach ':memory:' as {name}")
    connection.execute(f"use {name}")
    return _Session(connection, name)
