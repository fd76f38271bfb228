"""The catalog's SQLite file: for each table the location of its current metadata file.

Written as PyIceberg's SqlCatalog writes it, which reads it too. That class stands on SQLAlchemy, whose import takes
as long as the rest of a small build.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from stedi.schema.tables import NAMESPACE

NAME = "stedi"
"""The catalog's own name, by which its rows are told from those of others in one file."""

_TABLES = """
create table if not exists iceberg_tables (
    catalog_name varchar(255) not null,
    table_namespace varchar(255) not null,
    table_name varchar(255) not null,
    metadata_location varchar(1000),
    previous_metadata_location varchar(1000),
    iceberg_type varchar(5),
    primary key (catalog_name, table_namespace, table_name)
);
create table if not exists iceberg_namespace_properties (
    catalog_name varchar(255) not null,
    namespace varchar(255) not null,
    property_key varchar(255) not null,
    property_value varchar(1000) not null,
    primary key (catalog_name, namespace, property_key)
);
"""
"""The tables that PyIceberg's SqlCatalog keeps, in its version 1."""

_LONGEST = 1 << 20
"""Bytes of the longest value; a location has a thousand at most."""
_STEPS = 1_000_000
"""Steps of SQLite between two looks at the clock; they take some hundredths of a second."""
_SECONDS = 60.0
"""How long one connection may work; a commit takes milliseconds."""

_THIS = "catalog_name = ? and table_namespace = ? and table_name = ?"


class Pointers:
    """One such file.

    Args:
        path: The file; it need not be there for `create`.
        patience: Seconds to wait for another writer of it.
    """

    def __init__(self, path: Path, patience: float) -> None:
        self._path, self._patience = path, patience

    def create(self) -> None:
        """Makes the file and the tables in it, where they are not there yet."""
        with self._connected() as connection:
            connection.executescript(_TABLES)
            connection.execute(
                "insert or ignore into iceberg_namespace_properties values (?, ?, 'exists', 'true')", (NAME, NAMESPACE)
            )

    def location(self, table: str) -> str | None:
        """Returns the location of a table's current metadata file, or None if there is no such table."""
        with self._connected() as connection:
            found = connection.execute(
                f"select metadata_location from iceberg_tables where {_THIS}", (NAME, NAMESPACE, table)
            ).fetchone()
        return None if found is None else str(found[0])

    def enter(self, locations: Mapping[str, str]) -> None:
        """Enters tables that are not there, by the locations of their metadata files, all or none."""
        rows = [(NAME, NAMESPACE, table, location) for table, location in locations.items()]
        with self._connected() as connection:
            connection.executemany("insert into iceberg_tables values (?, ?, ?, ?, null, 'TABLE')", rows)

    def drop(self, table: str) -> None:
        """Removes a table's entry, not its files."""
        with self._connected() as connection:
            connection.execute(f"delete from iceberg_tables where {_THIS}", (NAME, NAMESPACE, table))

    def move(self, moves: Iterable[tuple[str, str, str]]) -> bool:
        """Has tables point from one metadata file to another, all or none; returns whether all did point to the first.

        Args:
            moves: Name, location of the file that a table points to, and of that which it shall point to.
        """
        with self._connected() as connection:
            for table, before, after in moves:
                changed = connection.execute(
                    "update iceberg_tables set metadata_location = ?, previous_metadata_location = ? "
                    # compare and swap: of two programs that loaded the same state, one finds no such row
                    f"where {_THIS} and metadata_location = ?",
                    (after, before, NAME, NAMESPACE, table, before),
                )
                if changed.rowcount != 1:
                    # the block ends without an error, so SQLite would commit the moves before this one
                    connection.rollback()
                    return False
        return True

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Gives the file; what the block does is one transaction."""
        # the connection's own block commits, and leaves it open
        with closing(sqlite3.connect(self._path, timeout=self._patience)) as connection, connection:
            guard(connection)
            yield connection


def guard(connection: sqlite3.Connection) -> None:
    """Has a catalog's file be what this program, or PyIceberg, makes of it: tables, and nothing that runs by itself.

    Whoever hands a lake over has written it. A view in the place of a table can count for ever, a trigger changes more
    than is asked for, a value can fill the memory.

    Raises:
        sqlite3.DatabaseError: It has a view, a trigger or a virtual table, or cannot be read.
    """
    started = time.monotonic()
    # nothing in a schema, such as a generated column, may call a function with effects
    connection.execute("pragma trusted_schema = off")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST)
    # waiting for a lock does not count: no step is made meanwhile
    connection.set_progress_handler(lambda: time.monotonic() - started > _SECONDS, _STEPS)
    # what is no table of rows has no page
    [(odd,)] = connection.execute("select count(*) from sqlite_schema where coalesce(rootpage, 0) = 0")
    if odd:
        raise sqlite3.DatabaseError("it has views, triggers or virtual tables")
