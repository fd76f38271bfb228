"""Engines run SELECTs over pinned inputs behind one small protocol, so that builds work with any of them.

An engine writes Parquet files and answers questions; it never commits. `duckdb` is the embedded one; `spark` is for
data that are too large for one machine. SELECTs are in the lake's dialect, DuckDB's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from stedi.engines.literals import quoted
from stedi.errors import LakeError
from stedi.schema.tables import ALL_COLUMNS, Column, DataFile
from stedi.storage.config import Config

if TYPE_CHECKING:
    from stedi.engines.column_sums import ColumnSums

Name = Literal["duckdb", "spark"]
"""The engines by name."""
LEAVING = "leaving"
"""What a SELECT over files that are rewritten calls them."""


class Engine(Protocol):
    """What a build and the proof of consent ask of an engine."""

    @property
    def at_once(self) -> int | None:
        """Rows of the largest table that it joins at once, where more would not fit; None if it divides work itself."""

    def bind_files(self, name: str, files: Iterable[DataFile], *, table: str = "") -> None:
        """Makes exactly these files of a table readable under a name from now on, by default the table's own."""

    def within(self, relation: str, column: str, low: int, high: int) -> str:
        """Returns the SELECT of the rows of a table, or of `TABLE__...`, with an instant from `low` to `high`.

        Both are epoch milliseconds. Files without such rows are not read.
        """

    def view(self, name: str, sql: str) -> None:
        """Gives a SELECT a name for this session; it is recomputed wherever it is read."""

    def materialize(self, view: str, sql: str) -> None:
        """Computes a SELECT once and gives the result a name for this session."""

    def pseudonymise(self, view: str, sql: str, customer_id: Callable[[str], str]) -> None:
        """Stores a SELECT of addresses with the pseudonym of each, and `person`, its number in this session."""

    def spellings(self, view: str, addresses: str, wanted: str) -> None:
        """Stores, as `address`, the addresses of a SELECT whose normal form equals that of one in another SELECT."""

    def map_rows(
        self, view: str, sql: str, columns: Mapping[str, str], function: Callable[..., tuple[Any, ...]]
    ) -> None:
        """Stores a SELECT's rows, each with the result of a function."""

    def text_values(self, view: str, files: Iterable[DataFile], *, but: str) -> None:
        """Gives a name to the texts in files: `field`, `value`, and `n`, how often; columns are the files' own.

        A column that no table knows is read, too. Values that match the pattern `but` as a whole are left out.
        """

    def files_containing(
        self, view: str, files: Iterable[DataFile], column: str, values: str, *, table: str, by_rows: bool = False
    ) -> tuple[DataFile, ...]:
        """Returns the files of a table with a row whose column is among the values of a SELECT.

        The view `view` has those of the values that are in a file, each once, as the column. With `by_rows` the engine
        itself reads the rows: a check must not share what it reads with the code that removes rows.
        """

    def write(self, table: str, sql: str, folder: Path, *, of: int = 0) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT as the table's Parquet files into a new folder and returns them, on disk."""

    def write_without(
        self, table: str, files: Iterable[DataFile], column: str, values: str, folder: Path, *, of: int
    ) -> tuple[DataFile, ...]:
        """Writes files of a table anew, without the rows whose text in a column is among the values of a SELECT."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""

    def hashes(self, columns: Sequence[str]) -> tuple[str, str]:
        """Returns the SQL of two independent hashes of a row's values, 64 bits each; `hash_sum` adds them."""


@runtime_checkable
class Streaming(Protocol):
    """Further operations of an engine whose rows are on this machine."""

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Yields the rows of a SELECT; only some thousand are held at a time."""

    def insert_rows(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> None:
        """Makes a relation of rows of Python values."""

    def recognise(self, addresses: str, known: str) -> bool:
        """Has `pseudonymise` give only the customers of a SELECT their pseudonyms, which are told with their addresses.

        In place of other customers' pseudonyms it gives something else, the same for every spelling of an address.
        If it returns true, two views have the columns of `pseudonymise`: `recognised__all` of at least all these
        addresses, and `recognised__known` of those of them that are a told customer's.
        """


@runtime_checkable
class Concurrent(Protocol):
    """Further operations of an engine that runs several statements at once."""

    def beside(self) -> AbstractContextManager[Engine]:
        """Returns the same session for another thread; both see the same relations and share memory and cores."""

    def interrupt(self) -> None:
        """Ends the statement that another thread is running in this session, if there is one."""


@runtime_checkable
class Enumerating(Protocol):
    """A further operation of an engine that joins the texts of a closed list as numbers."""

    def enumerate(self, name: str, values: str) -> bool:
        """Makes the texts of a SELECT, each once, a type of this session; returns False if it cannot hold so many."""


@runtime_checkable
class Columnar(Protocol):
    """A further operation of an engine whose files this process can read: sums of rows without a SELECT."""

    def column_sums(self, table: str) -> ColumnSums | None:
        """Returns the sums of bound files; None if the table is small, files are elsewhere, or no library is there."""


@runtime_checkable
class Gathering(Protocol):
    """Further operations of an engine whose rows are on other machines and stay there."""

    def map_groups(
        self,
        view: str,
        sql: str,
        by: str,
        columns: Mapping[str, str],
        function: Callable[[Iterator[tuple[Any, ...]]], Iterable[tuple[Any, ...]]],
    ) -> None:
        """Stores a function's results over rows, on their machines; rows equal in a column come to one call."""


def connect(
    name: Name, config: Config, root: Path, temporary: Path, *, rows: int | None = None
) -> AbstractContextManager[Engine]:
    """Returns a session of an engine, to be used once.

    Args:
        name: The engine.
        config: The lake's settings.
        root: The lake's folder.
        temporary: Folder for what lasts as long as the session; made when needed, and on this machine.
        rows: About how many rows the session reads, if that is known: it starts accordingly.
    """
    if name == "spark":
        from stedi.engines.spark import SparkEngine

        return SparkEngine(temporary, lake=root, memory=config.engine_memory, rows=rows)
    from stedi.engines.duckdb import DuckDB

    return DuckDB.of(config, temporary)


def rest_of(folder: Path) -> Path:
    """Returns the folder of files that a SELECT wrote, of those that were rewritten into a folder."""
    return folder.with_name(f"{folder.name}-rest")


def staying(table: str, column: str, values: str) -> str:
    """Returns the SELECT of the rows of `leaving`, files of a table, that stay: without values of another SELECT."""
    names = ", ".join(quoted(found.name) for found in ALL_COLUMNS[table])
    return f"select {names} from {LEAVING} where {quoted(column)} not in ({values})"


def between(column: Column, low: int, high: int) -> str:
    """Returns the condition that an instant, in a column of numbers or timestamps, is from `low` to `high`.

    Both are epoch milliseconds, as are such numbers.
    """
    first, last = (f"instant({bound})" if column.type == "timestamptz" else str(bound) for bound in (low, high))
    return f"{quoted(column.name)} between {first} and {last}"


def refuse_other_columns(table: str, found: Mapping[str, str], types: Mapping[str, str]) -> None:
    """Raises LakeError unless a SELECT has a table's columns, in any order.

    Args:
        table: The table.
        found: The SELECT's columns and their types, the engine's names.
        types: Those names, by Iceberg's.
    """
    expected = {column.name: types[column.type] for column in ALL_COLUMNS[table]}
    if found != expected:
        wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
        raise LakeError(
            f"{table}: the columns of its SQL differ from the table's: {', '.join(wrong)}: "
            f"expected {[expected.get(name) for name in wrong]}, found {[found.get(name) for name in wrong]}"
        )
