"""The embedded engine: DuckDB over Parquet files, with bounded memory and threads.

Files are registered with the catalog afterwards, so they carry Iceberg field ids and are on disk when `write` returns.
"""

from __future__ import annotations

import copy
import os
import re
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.engines import LEAVING, between, refuse_other_columns, rest_of, staying
from stedi.engines.arrow_files import GROUP
from stedi.engines.column_sums import ColumnSums
from stedi.engines.failures import failures
from stedi.engines.literals import literal, path_literal, quoted
from stedi.engines.pseudonyms import Pseudonyms
from stedi.engines.ranges import Ranges
from stedi.engines.table_files import copy_statement, data_file, file_rows, move_to_bucket, scan
from stedi.engines.values import insertion
from stedi.errors import LakeError
from stedi.schema.tables import ALL_COLUMNS, DUCKDB_TYPES, DataFile
from stedi.storage import config as settings
from stedi.storage import durable, s3
from stedi.storage.config import Config

if TYPE_CHECKING:
    import pyarrow as pa
    from duckdb import DuckDBPyConnection

    from stedi.engines.pages import Leaving

_PLAIN = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL|BOOLEAN|DATE|TIME|INTERVAL)(?![A-Z]*\[)")
"""Types whose values contain no text."""
_KEYS = 600.0
"""Seconds for which a session uses the same keys to S3; those of a role are good for a quarter of an hour at least."""
_MANY = 1_000_000
"""Rows that are worth another way of sorting them, and the import that it takes."""
_MOST_LEAVING = 1 << 17
"""Texts that tell rows which leave, and are held as Python's values."""
_FEW = 1_000
"""Texts that a statement names one by one."""
_MOST_LISTED = 100_000
"""Texts of a type, which stay in memory beside what `memory` limits: 100 bytes each."""
_BATCH = 1 << 14
"""Rows that are held as Python's values."""
_SETTINGS = (
    "set TimeZone = 'UTC'",
    # a table's files never change: their footers are read once a session, not once a statement
    "set parquet_metadata_cache = true",
)
_OBJECTS = f"['{s3.SCHEME}"


class DuckDB:
    """One DuckDB session of a landing or a build.

    Args:
        memory: DuckDB's memory limit, such as `600MB`.
        threads: Threads to use.
        temporary: Folder for stored and spilled data, created when needed.
    """

    at_once: int | None = 3_000_000
    """Rows of the largest table that are joined at once, with a third as many steps: well below what 600 MB can join
    without writing any of it to disk and reading it again, which takes three times as long."""

    def __init__(self, *, memory: str, threads: int, temporary: Path) -> None:
        import duckdb

        durable.private(temporary)
        self._temporary, self._threads, self._memory = temporary, threads, settings.size(memory) or 0
        self._keys_until: float | None = None
        # 56 bits: a literal of this size is a positive `bigint` in every dialect
        self._mark = int.from_bytes(os.urandom(7))
        self._bound: dict[str, tuple[DataFile, ...]] = {}
        self._pseudonyms = Pseudonyms(self, self._bound, temporary)
        self._ranges = Ranges(self.rows)
        self.connection = duckdb.connect(
            config={
                "memory_limit": memory,
                "threads": threads,
                "temp_directory": str(temporary),
                # rows are ordered by `order by` or not at all; to keep the order of files, DuckDB would hold rows back
                "preserve_insertion_order": False,
                # an extension is code from the network; the one for S3 is loaded by name
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._database = self._attach()
        self._execute(f"use {self._database}")
        # the file has lost its name: to write the rest of it at the end would be for nothing
        self._execute("pragma disable_checkpoint_on_shutdown")
        with suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets, where there is no bar to set
            self.connection.execute("set enable_progress_bar = false")
        for statement in _SETTINGS:
            self._execute(statement)
        # exact for every instant; casts and `at time zone` take ten times as long
        self._execute("create macro instant(ms) as make_timestamptz(ms * 1000)")
        # a number for each value of a relation: eight-byte keys halve the cost of joins and distinct rows
        self._execute("create macro number(x) as dense_rank() over (order by x)")
        self._execute("create macro hash_sum(x) as sum(x)")

    @classmethod
    def of(cls, config: Config, temporary: Path) -> DuckDB:
        """Returns a session of what the settings give to the engine."""
        return cls(memory=config.engine_memory, threads=config.threads, temporary=temporary)

    def close(self) -> None:
        """Ends the session and removes its spilled and stored data."""
        self.connection.close()

    def __enter__(self) -> DuckDB:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def beside(self) -> Iterator[DuckDB]:
        """Returns the same session for another thread; both see the same relations and share memory and cores."""
        other = copy.copy(self)
        with failures(), self.connection.cursor() as other.connection:
            # a cursor begins with the defaults
            for statement in (f"use {self._database}", *_SETTINGS):
                other.connection.execute(statement)
            other._pseudonyms, other._ranges = self._pseudonyms.beside(other), Ranges(other.rows)
            yield other

    def interrupt(self) -> None:
        """Ends the statement that another thread is running in this session, if there is one."""
        self.connection.interrupt()

    def _attach(self) -> str:
        """Creates the database of stored relations, and returns its name.

        It lies in a file, compressed, and is read into memory as needed; tables in memory take six times as much of it
        and do not make room for what is sorted beside them. Nobody recovers it: it has no log, and nothing is synced.
        Its name is gone before anything is in it, so that whatever ends the process removes it.
        """
        file = self._temporary / f"kept-{os.urandom(8).hex()}.duckdb"
        self._execute(f"attach {literal(str(file))} as kept (recovery_mode no_wal_writes)")
        # if it stays nevertheless, it is removed with the folder
        with suppress(OSError):
            file.unlink()
        return "kept"

    def bind_files(self, name: str, files: Iterable[DataFile], *, table: str = "") -> None:
        """Makes exactly these files of a table readable under a name from now on, by default the table's own."""
        bound = tuple(files)
        self.view(name, scan(bound, ALL_COLUMNS[table or name]))
        # after `view`, which forgets what had the name before
        self._bound[name] = bound

    def within(self, relation: str, column: str, low: int, high: int) -> str:
        """Returns the SELECT of a relation's rows with an instant in a range; it opens only files that can have some.

        Args:
            relation: A table, or a relation `TABLE__...` with its columns.
            column: Its column with the instant.
            low: Epoch milliseconds.
            high: Likewise.
        """
        columns = ALL_COLUMNS[relation.partition("__")[0]]
        [instant] = (found for found in columns if found.name == column)
        bound, source = self._bound.get(relation), quoted(relation)
        if bound is not None:
            source = f"({scan(self._ranges.holding(bound, instant, low, high), columns)})"
        return f"select * from {source} where {between(instant, low, high)}"

    def view(self, name: str, sql: str) -> None:
        """Gives a SELECT a name for this session; it is recomputed wherever it is read."""
        self._bound.pop(name, None)
        self._execute(f"create or replace view {quoted(name)} as {sql}")

    def enumerate(self, name: str, values: str) -> bool:
        """Makes the texts of a SELECT, each once, a type of this session; returns False if they are too many."""
        [(count,)] = self.rows(f"select count(*) from ({values})")
        if count > _MOST_LISTED:
            return False
        self._execute(f"create or replace type {quoted(name)} as enum ({values})")
        return True

    def materialize(self, view: str, sql: str) -> None:
        """Computes a view of several tables once for this session.

        Every thread has buffers of its own: what does not fit into memory with several is tried again with one.
        """
        self.run(f"create or replace table {quoted(view)} as {sql}")

    def _within_memory(self, run: Callable[[], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        """Runs a statement, and once more with one thread if it does not fit into memory with several."""
        import duckdb

        try:
            return run()
        except LakeError as error:
            if self._threads == 1 or not isinstance(error.__cause__, duckdb.OutOfMemoryException):
                raise
        self._execute("set threads = 1")
        try:
            return run()
        finally:
            self._execute(f"set threads = {self._threads}")

    def pseudonymise(self, view: str, sql: str, customer_id: Callable[[str], str]) -> None:
        """Computes a view of addresses once for this session, with the customer of each address."""
        self._pseudonyms.pseudonymise(view, sql, customer_id)

    def recognise(self, addresses: str, known: str) -> bool:
        """Has `pseudonymise` give only some customers their pseudonyms for the rest of this session."""
        return self._pseudonyms.recognise(addresses, known)

    def spellings(self, view: str, addresses: str, wanted: str) -> None:
        """Stores, as `address`, the addresses of a SELECT whose normal form equals that of one in another SELECT."""
        self._pseudonyms.spellings(view, addresses, wanted)

    def normal_forms(self, view: str, addresses: str) -> None:
        """Keeps the addresses of a SELECT, each once as `address`, with its normal form as `normal` (rule 1)."""
        self._pseudonyms.normal_forms(view, addresses)

    def insert_rows(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> None:
        """Makes a relation of rows of Python values; only some thousand are held at a time.

        Args:
            name: The relation's name.
            columns: Its columns and their types, DuckDB's.
            rows: A value for each column.
        """
        empty = ", ".join(f"null::{kind} as {quoted(column)}" for column, kind in columns.items())
        self.materialize(name, f"select {empty} where false")
        rest = iter(rows)
        while some := list(islice(rest, _BATCH)):
            self.insert(name, some)

    def map_rows(
        self, view: str, sql: str, columns: Mapping[str, str], function: Callable[..., tuple[Any, ...]]
    ) -> None:
        """Stores a function's result for each row of a SELECT; only a few thousand rows are in memory at a time.

        Args:
            view: The name of the result: the SELECT's columns, then those of the function.
            sql: The SELECT.
            columns: Name and DuckDB type of each value that the function returns.
            function: Called with the values of a row.
        """
        # an empty table of the right types first: rows come from Python in batches
        made = ", ".join(f"null::{kind} as {quoted(name)}" for name, kind in columns.items())
        self.materialize(view, f"select *, {made} from ({sql}) where false")
        for batch in self.batches_beside(sql):
            self.insert(view, [(*row, *function(*row)) for row in batch])

    def insert(self, name: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Inserts rows of Python values into a relation, without Arrow where it can: its import takes half a second."""
        statement = insertion(name, rows)
        if statement is not None:
            self._execute(statement)
            return
        import pyarrow as pa
        import pyarrow.dataset  # otherwise DuckDB does, and loses an interrupt during that time

        arrays = [_array(values) for values in zip(*rows, strict=True)]
        self.connection.register("arriving", pa.table(arrays, names=[str(n) for n in range(len(arrays))]))
        self._execute(f"insert into {quoted(name)} select * from arriving")
        self.connection.unregister("arriving")

    def run(self, statement: str) -> None:
        """Runs a statement for its effect on this session."""
        self._within_memory(lambda: self._execute(statement).fetchall())

    def copy(self, sql: str, file: Path) -> None:
        """Writes the rows of a SELECT, in its order, as one Parquet file: the same rows give the same bytes."""
        self._execute("set preserve_insertion_order = true")
        try:
            self._execute(
                f"copy ({sql}) to {literal(str(file))} (format parquet, compression zstd, compression_level 1, "
                f"row_group_size {GROUP})"
            )
        finally:
            self._execute("set preserve_insertion_order = false")

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""

        def run() -> list[tuple[Any, ...]]:
            with failures():
                rows: list[tuple[Any, ...]] = self._execute(sql).fetchall()
            return rows

        return self._within_memory(run)

    def listed(self, values: str) -> str:
        """Returns the texts of a SELECT as a condition names them: if few, one by one.

        Then the bounds of a row group tell whether it can have any of them, and those without are skipped.
        """
        few = self._few(values)
        return values if few is None else _among(few)

    def _few(self, values: str) -> frozenset[str] | None:
        """Returns the texts of a SELECT; None if they are many."""
        few = self.rows(f"select * from ({values}) limit {_FEW + 1}")
        return None if len(few) > _FEW else frozenset(text for (text,) in few if text is not None)

    def text_values(self, view: str, files: Iterable[DataFile], *, but: str) -> None:
        """Gives a name to the texts in files: `field`, `value`, and `n`, how often; columns are the files' own.

        Args:
            view: The name; it is computed when it is read.
            files: The files; each may have columns that others have not.
            but: A pattern; values that match it as a whole are left out.
        """
        paths = ", ".join(path_literal(file.path) for file in files)
        read = f"read_parquet([{paths}], hive_partitioning = false, union_by_name = true)"
        kinds = self.rows(f"describe select * from {read}") if paths else []
        parts = [
            f"select {literal(name)} as field, value, count(*) as n from (select {quoted(name)}::varchar as value "
            f"from {read}) where value is not null and not regexp_full_match(value, {literal(but)}) group by value"
            for name, kind, *_ in kinds
            if not _PLAIN.match(kind)
        ]
        none = "select null::varchar as field, null::varchar as value, null::bigint as n where false"
        self.view(view, " union all ".join(parts) or none)

    def files_containing(
        self, view: str, files: Iterable[DataFile], column: str, values: str, *, table: str, by_rows: bool = False
    ) -> tuple[DataFile, ...]:
        """Returns the files of a table with a row whose column is among the values of a SELECT, as `Engine` says.

        Of few values, dictionaries and their indices tell it of most files: the engine compares each row.
        """
        given, name, places = {file.path: file for file in files}, quoted(column), f"{view}__places"
        if not given:
            self.bind_files(view, (), table=table)
            return ()
        few, found = self._few(values), dict[str, frozenset[str] | None]()
        if few is not None and not by_rows:
            from stedi.engines import selection

            found = {path: selection.texts_of_rows(path, table, column, few) for path in given}
        pairs = [(path, text) for path, texts in found.items() for text in texts or ()]
        if rest := [path for path in given if found.get(path) is None]:
            paths, among = ", ".join(map(path_literal, rest)), values if few is None else _among(few)
            self.materialize(
                places,
                f"select distinct filename, {name} "
                # one pass: which files hold a value, and which values are in a file at all
                f"from read_parquet([{paths}], filename = true, hive_partitioning = false) where {name} in ({among})",
            )
            if pairs:
                self.insert(places, pairs)
        else:
            self.insert_rows(places, {"filename": "varchar", column: "varchar"}, pairs)
        self.view(view, f"select distinct {name} from {quoted(places)}")
        return tuple(given[path] for (path,) in sorted(self.rows(f"select distinct filename from {quoted(places)}")))

    def hashes(self, columns: Sequence[str]) -> tuple[str, str]:
        """Returns the SQL of two independent hashes of all these columns of a row, 64 bits each; sums of them have 128.

        A hash of several columns adds the last one only by exclusive or, which a sum could cancel: it is hashed again.
        A random number of the session is hashed first, so that nobody can look for other rows with the same sums.
        """
        one, other = ", ".join(columns), ", ".join(reversed(columns))
        return f"hash(hash({self._mark}, {one}))", f"hash(hash({self._mark}, {other}, 1))"

    def column_sums(self, table: str) -> ColumnSums | None:
        """Returns the sums, in C, of bound files; None if the table is small or no library is there."""
        sums = ColumnSums(self, self._bound, self._memory // 4)
        return sums if sums.worthwhile(table) else None

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """Yields the rows of a SELECT; only some thousand are held at a time."""
        for batch in self.batches(sql):
            yield from batch

    def batches(self, sql: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yields the rows of a SELECT, some thousand at a time."""
        return self._batches(self._execute(sql))

    def batches_beside(self, sql: str) -> Iterator[list[tuple[Any, ...]]]:
        """Yields the rows of a SELECT, some thousand at a time, between which other statements may run."""
        with failures():
            # of its own: the next statement of a connection ends the result that is being read
            result = self.connection.cursor().execute(f"use {self._database}").execute(sql)
        yield from self._batches(result)

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        """Yields the rows of a SELECT as Arrow's batches; only one is held at a time."""
        with failures():
            reader = self._execute(sql).to_arrow_reader(GROUP)
            yield from reader

    def over(self, name: str, table: pa.Table, sql: str) -> pa.Table:
        """Returns the rows of a SELECT over an Arrow table, which may come while another result is being read.

        Args:
            name: What the SELECT calls the table.
            table: The table.
            sql: The SELECT.
        """
        with failures(), self.connection.cursor() as beside:
            beside.execute(f"use {self._database}")
            beside.register(name, table)
            return beside.execute(sql).to_arrow_table()

    def write(self, table: str, sql: str, folder: Path, *, of: int = 0) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT as the table's Parquet files into a new folder.

        Args:
            table: The table whose columns the SELECT has, by name, in any order.
            sql: The SELECT, prepared.
            folder: A folder that does not exist yet.
            of: About how many rows the table has in all, which says how many a file may have.

        Returns:
            The files, synced; none if there are no rows.

        Raises:
            LakeError: The SELECT's columns are not the table's.
        """
        self._check(table, sql)
        durable.folder(folder.parent)
        # not straight into a bucket: DuckDB cannot undo an upload that fails
        here = self._temporary / f"new-{os.urandom(8).hex()}" if s3.is_remote(folder) else folder
        files = self._write_in_order(table, sql, here, of) if of >= _MANY else None
        if files is None:
            files = self._copy_select(table, sql, here, of)
        if here != folder:
            return move_to_bucket(files, here, folder)
        durable.sync(folder)
        durable.sync(folder.parent)
        return files

    def write_without(
        self, table: str, files: Iterable[DataFile], column: str, values: str, folder: Path, *, of: int
    ) -> tuple[DataFile, ...]:
        """Writes files of a table anew, without the rows whose text in a column is among the values of a SELECT."""
        from stedi.engines.pages import Leaving

        texts = [text for (text,) in self.rows(f"select * from ({values}) limit {_MOST_LEAVING + 1}")]
        leaving = Leaving(column, frozenset(texts) - {None}) if len(texts) <= _MOST_LEAVING else None
        sql, beside = staying(table, column, values), self._threads > 1
        return self.rewrite(table, tuple(files), leaving, sql, folder, of=of, beside=beside)

    def rewrite(
        self,
        table: str,
        files: Sequence[DataFile],
        leaving: Leaving | None,
        sql: str,
        folder: Path,
        *,
        of: int,
        beside: bool,
    ) -> tuple[DataFile, ...]:
        """Writes files of a table anew without some rows: page by page those that can be, the others by a SELECT.

        Args:
            table: The table.
            files: Its files, verified.
            leaving: What tells the rows that leave, if a few texts do.
            sql: A SELECT of the rows that stay, over `leaving`, the files.
            folder: A folder that does not exist yet; what the SELECT writes may be in another, named `FOLDER-rest`.
            of: About how many rows the table has in all, which says how many a file of the SELECT may have.
            beside: Whether a second thread may write pages.
        """
        from stedi.engines import pages

        made: tuple[DataFile, ...] = ()
        rest = tuple(files)
        if leaving is not None and not s3.is_remote(folder):
            with failures():
                made, rest = pages.rewrite(table, files, leaving, folder, beside=beside, memory=self._memory)
        if rest:
            self.bind_files(LEAVING, rest, table=table)
            # `write` asks for a folder that is not there
            made += self.write(table, sql, rest_of(folder) if made else folder, of=of)
        return made

    def _write_in_order(self, table: str, sql: str, folder: Path, of: int) -> tuple[DataFile, ...] | None:
        """Writes the rows of a SELECT of distinct readings in order; None if it, or its rows, are others."""
        from stedi.engines import distinct

        found = distinct.readings(table, sql) if distinct.library() else None
        if found is None:
            return None
        numbers = f"(select distinct person, customer_id from {found.people})"
        with failures():
            ids = self._execute(
                "select coalesce(p.customer_id, '') as id from "
                # numbers are indices into `ids`: each up to the greatest has a place, also one that nobody has
                f"generate_series(0, (select max(person) from {numbers})) as n(person) "
                f"left join {numbers} as p using (person) order by person"
            ).to_arrow_table()
            if not len(ids):
                return None
            names = ", ".join(map(quoted, ("person", *found.columns)))
            batches = self._execute(f"select {names} from ({found.rows})").to_arrow_reader(GROUP)
            files = distinct.write(
                table,
                batches,
                ids.column(0).combine_chunks(),
                folder,
                self._temporary,
                rows=of,
                file_rows=file_rows(of),
                threads=self._threads,
            )
        if files is not None:
            durable.settle([folder])
        return files

    def _copy_select(self, table: str, sql: str, folder: Path, of: int) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT by the engine itself."""
        written = self._execute(copy_statement(table, sql, folder, of)).fetchall()
        if folder.is_dir():
            durable.settle([folder])
        files = []
        for path, rows, size, _, statistics, *_ in written:
            # each thread opens a file, also one to which no row comes
            if rows == 0:
                os.unlink(path)
                continue
            durable.settle([Path(path)])
            durable.sync(Path(path))
            files.append(data_file(path, rows, size, statistics, ALL_COLUMNS[table]))
        return tuple(files)

    def _check(self, table: str, sql: str) -> None:
        found = {name: kind for name, kind, *_ in self._execute(f"describe {sql}").fetchall()}
        # readers of the file see a closed list of texts as text
        found = {name: "VARCHAR" if kind.startswith("ENUM(") else kind for name, kind in found.items()}
        refuse_other_columns(table, found, DUCKDB_TYPES)

    def _execute(self, sql: str) -> DuckDBPyConnection:
        # the start of a list of files; in a quoted text the quote would be doubled
        if _OBJECTS in sql if self._keys_until is None else time.monotonic() > self._keys_until:
            self._reach()
        with failures():
            return self.connection.execute(sql)

    def _reach(self) -> None:
        """Lets the session read objects of S3 with the current keys: those of a role expire while a build runs."""
        self._keys_until = time.monotonic() + _KEYS
        with failures():
            for statement in s3.engine_statements():
                self.connection.execute(statement)

    def _batches(self, result: DuckDBPyConnection) -> Iterator[list[tuple[Any, ...]]]:
        while True:
            with failures():
                batch = result.fetchmany(_BATCH)
            if not batch:
                return
            yield batch


def _among(texts: Collection[str]) -> str:
    """Returns texts as a condition names them, one by one."""
    return ", ".join(sorted(map(literal, texts))) or "null"


def _array(values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    try:
        return pa.array(values)
    except OverflowError:  # sums of hashes have more than 64 bits; Arrow's longest integers are decimals
        return pa.array(values, pa.decimal128(38))


@contextmanager
def task_session(memory: str = "600MB", within: Path | None = None) -> Iterator[DuckDB]:
    """Yields a session with one thread for a worker's task: other tasks use the other cores.

    Args:
        memory: Its memory limit.
        within: The parent of its folder; by default the system's temporary folder.
    """
    import tempfile

    with (
        tempfile.TemporaryDirectory(prefix="stedi-", dir=within) as scratch,
        DuckDB(memory=memory, threads=1, temporary=Path(scratch, "spill")) as engine,
    ):
        yield engine
