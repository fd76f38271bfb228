"""Lakes for tests: reset in milliseconds, filled by one-line calls, read back as plain rows.

Rows are tuples as in `oracle`: instants as epoch milliseconds, dates as ISO text, other values unchanged. Instants
near the `DAWN` of `deliveries` are the same small numbers as there.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pytest

from deliveries import instant, moment
from stedi import transform as building
from stedi.catalog import Catalog, TableState
from stedi.engines.literals import quoted
from stedi.engines.table_files import scan
from stedi.lake import Lake
from stedi.privacy import pseudonyms
from stedi.schema.contracts import Kind
from stedi.schema.feeds import CONTRACTS
from stedi.schema.roles import Readings
from stedi.schema.tables import COLUMNS, ZONES
from stedi.storage import config as settings
from stedi.storage import s3
from stedi.transform import Build

REPOSITORY = Path(__file__).parents[2]
KEY = "5a" * 32
"""The pseudonym key of every lake that a test makes, hex."""
BELOW_LANDING = tuple(name for name, zone in ZONES.items() if zone != "landing")
_INSTANTS = {field.name for contract in CONTRACTS.values() for field in contract.fields if field.kind is Kind.INSTANT}
LANDING = tuple(contract.table for contract in CONTRACTS.values())
Row = tuple[Any, ...]

VOLATILE = {"batch", "landed_at", "file", "name"}
"""Columns that differ from one landing of the same files to the next."""


class Slate:
    """One lake folder that is reset for each use; creating a new lake would take ten times as long."""

    def __init__(self, folder: Path) -> None:
        self._root, self._template = folder / "lake", folder / "template"
        self._inbox, self._copies, self._made = folder / "inbox", folder / "copies", folder / "made"
        Lake.create(self._root)
        shutil.copytree(self._root, self._template)

    def wiped(self, readings: Readings = "all") -> Lake:
        """Returns the lake in its initial state, with a policy."""
        shutil.rmtree(self._root, ignore_errors=True)
        shutil.copytree(self._template, self._root)
        file = self._root / "lake.toml"
        settings.write(settings.changed(settings.read(file), readings=readings), file)
        return unseen(self._root)

    def made(self, make: Callable[[Lake, Path], object], readings: Readings = "all") -> Lake:
        """Returns the lake that a function makes of an empty one and an inbox; it runs once, then it is restored."""
        kept = self._made / f"{make.__module__}.{make.__qualname__}-{readings}"
        if not kept.exists():
            make(self.wiped(readings), self.inbox())
            shutil.copytree(self._root, kept / "lake", symlinks=True)
            shutil.copytree(self._inbox, kept / "inbox", symlinks=True)
        for folder in (self._root, self._inbox):
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(kept / folder.name, folder, symlinks=True)
        return unseen(self._root)

    def copies(self) -> Path:
        """Returns an empty folder for copies of the lake."""
        shutil.rmtree(self._copies, ignore_errors=True)
        self._copies.mkdir()
        return self._copies

    def inbox(self) -> Path:
        """Returns an empty folder beside the lake."""
        shutil.rmtree(self._inbox, ignore_errors=True)
        self._inbox.mkdir()
        return self._inbox


def unseen(root: Path) -> Lake:
    """Returns a lake that a test has restored; forgets that a later state of it was seen."""
    lake = Lake.open(root)
    for folder in (
        lake.context.outside(),
        pseudonyms.default_file(lake.config.lake_id).parent / lake.context.outside().name,
    ):
        shutil.rmtree(folder, ignore_errors=True)
    return lake


def publish_each(patch: pytest.MonkeyPatch) -> None:
    """Makes builds publish one table after the other, as they do in a bucket."""
    patch.setattr(Catalog, "publish_all", lambda self, changes, branch: self._publish_each(changes, branch))


def build(lake: Lake, now: int | None = None, **options: Any) -> Build:
    """Builds a lake as if it were `now`."""
    now = None if now is None else instant(now)
    return building.build(lake.context, lake.key(), now=now, **options)


def rows(lake: Lake, table: str, state: TableState | None = None) -> Counter[Row]:
    """Returns a table's current rows as a multiset; `state` is its state in the catalog, if already read."""
    columns = COLUMNS[table]
    plain = {"timestamptz": "epoch_ms({0})", "date": "cast({0} as varchar)"}
    shown = ", ".join(plain.get(column.type, "{0}").format(quoted(column.name)) for column in columns)
    files = lake.catalog.files(state or lake.catalog.table(table))
    if not files:
        return Counter()
    connection = _reaching(*s3.engine_statements()) if s3.is_remote(lake.root) else _connection()
    found = connection.execute(f"select {shown} from ({scan(files, columns)})").fetchall()
    timed = [column.type == "timestamptz" or column.name in _INSTANTS for column in columns]
    return Counter(
        tuple(moment(value) if of_time else value for value, of_time in zip(row, timed, strict=True)) for row in found
    )


@cache
def _connection() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(config={"threads": 1})
    connection.execute("set TimeZone = 'UTC'")
    return connection


@cache
def _reaching(*statements: str) -> duckdb.DuckDBPyConnection:
    """A connection that can read objects of the S3 server that the statements configure."""
    connection = duckdb.connect(config={"threads": 1})
    for statement in ("set TimeZone = 'UTC'", *statements):
        connection.execute(statement)
    return connection


def records(lake: Lake, table: str) -> Counter[Row]:
    """Returns a landing table's rows as a multiset, without the file that each came from."""
    assert COLUMNS[table][-1].name == "_file"
    found: Counter[Row] = Counter()
    for row, count in rows(lake, table).items():
        found[row[:-1]] += count
    return found


def contents(lake: Lake) -> dict[str, Counter[Row]]:
    """Returns the rows of every table below landing."""
    states = lake.catalog.tables()
    return {name: rows(lake, name, states[name]) for name in BELOW_LANDING}


def heads(lake: Lake) -> dict[str, int | None]:
    """Returns the snapshot that readers of each table see."""
    return {name: state.current.id if state.current else None for name, state in lake.catalog.tables().items()}


def tree(folder: Path) -> dict[str, tuple[str, int, int]]:
    """Returns content, size and time of every file below a folder, and the times of the folders.

    Excepted are the time of a lake's `tmp`, where read-only commands also work and leave nothing, the log of queries,
    and the history of runs.
    """
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.relative_to(folder).parts[0] in ("access", "access.lock", "runs"):
            continue
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        at = 0 if path == folder / "tmp" else path.stat().st_mtime_ns
        found[str(path.relative_to(folder))] = (digest, path.stat().st_size, at)
    return found


def conserved(lake: Lake) -> None:
    """Asserts that in the ledger seen = accepted + quarantined + erased, and that the tables have these records."""
    accepted, refused = Counter[str](), Counter[str]()
    for table in LANDING:
        for row, count in rows(lake, table).items():
            accepted[row[-1]] += count
    for row, count in rows(lake, "quarantine").items():
        refused[row[2]] += count
    ledger: dict[str, list[int]] = {}
    for (sha256, _, _, _, *counts, _, _), times in rows(lake, "landed_files").items():
        sums = ledger.setdefault(sha256, [0, 0, 0, 0])
        ledger[sha256] = [total + times * count for total, count in zip(sums, counts, strict=True)]
    for sha256, (seen, taken, rejected, erased) in ledger.items():
        assert seen == taken + rejected + erased
        assert (taken, rejected) == (accepted[sha256], refused[sha256])
    assert accepted.keys() | refused.keys() <= ledger.keys()
