"""Spark as an engine: it reads pinned files and writes new files, both with Iceberg's own readers and writers.

Bound files are a pin (`catalog.pins`): an Iceberg table that only this session knows, with exactly the pinned files.
New files are written to such a table, too, in the folder where the lake's table needs them; the catalog commits them.
Rows stay on the executors: only counts, spans and file names come to the driver.

Relations are made in threads, so that cores are not idle while Spark plans: a call returns at once, and whatever reads
a relation waits for it. A SELECT that reads only small ones runs as one task, without shuffles and broadcasts.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from stedi._frozen import dataclass, replace
from stedi.catalog import checksums, hadoop
from stedi.catalog.snapshots import local_path
from stedi.engines import LEAVING, between, refuse_other_columns, staying
from stedi.engines.column_sums import ColumnSums
from stedi.engines.duckdb import task_session
from stedi.engines.row_sums import Otherwise
from stedi.engines.spark.arrow import Rows, mapped
from stedi.engines.spark.dialect import in_parts, reads, to_spark
from stedi.engines.spark.session import file_settings, session
from stedi.engines.workers import Executors
from stedi.errors import LakeError
from stedi.privacy.pseudonyms import normalise
from stedi.schema.tables import ALL_COLUMNS, COLUMNS, SPARK_TYPES, DataFile
from stedi.storage import config as settings
from stedi.storage import durable, s3

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import DataFrame, SparkSession

_PINS = "pins"
"""The session's own catalog of pinned and written files."""
_NAMES = {"varchar": "string", "bigint": "bigint", "boolean": "boolean", "date": "date"}
"""Spark's names for the types of the lake's dialect."""
_ROWS = 1_000_000
"""About how many rows a file of a large table has."""
_FILES = 64
"""The most files that a table has until each has `_ROWS` rows."""
_SMALL = 100_000
"""The most rows of a small relation; it is broadcast if it is joined with a larger one."""
_LIGHT = 32 << 20
"""The most bytes of files that are read once and kept, if they have few rows."""
_TASKS = 8
"""The most tasks per slot when executors read files themselves; more than one, because files differ in size."""
_TASK = 16 << 20
"""About how many bytes of files such a task reads; starting its session takes as long as reading some of them."""
_AT_ONCE = 4
"""The most relations that are made at the same time."""
_BRIEF = 40_000_000
"""Rows for which Java compiles for longer, to faster code, than the session runs."""
_LEAST = 122_880
"""The fewest rows per file, if a table has more than one file."""


class _View(NamedTuple):
    """A relation in Spark.

    Attributes:
        name: Its view.
        beside: Its view for a SELECT that also reads relations that are not small; the same unless it is broadcast.
        small: Whether all its rows are in one partition.
    """

    name: str
    beside: str
    small: bool


class _Bound(NamedTuple):
    """Files that nothing has read yet: a build does not read most of what it binds."""

    table: str
    files: tuple[DataFile, ...]


_Views = Mapping[str, Future[_View]]
"""What the names in a SELECT mean when it is given to the engine."""


class SparkEngine:
    """One session of Spark for a build or a proof.

    Args:
        temporary: A folder on this machine for the session's files; it is made when needed.
        spark: The session to use; by default a session of the running Spark, or of one that is started.
        lake: The lake's folder, or its prefix in S3; it decides how Spark reads its files.
        memory: The memory of a task that reads files itself.
        rows: About how many rows the session reads, if that is known.
    """

    at_once: int | None = None

    def __init__(
        self,
        temporary: Path,
        spark: SparkSession | None = None,
        lake: Path | None = None,
        *,
        memory: str = "600MB",
        rows: int | None = None,
    ) -> None:
        remote, brief = lake is not None and s3.is_remote(lake), rows is not None and rows < _BRIEF
        self.spark = spark or session(master="local[*]", with_s3=remote, brief=brief and not remote)
        self._pins, self._memory = temporary / _PINS, memory
        self._numbers = count(1)
        self._mark = int.from_bytes(os.urandom(7))
        self._relations: dict[str, _Bound | Future[_View]] = {}
        self._read_files: dict[str, tuple[_Bound, Future[_View]]] = {}
        self._files: dict[str, tuple[DataFile, ...]] = {}
        self._making: set[Future[_View]] = set()
        self._tag = f"stedi-{secrets.token_hex(8)}"
        self._makers = ThreadPoolExecutor(
            _AT_ONCE, initializer=self.spark.sparkContext.addJobTag, initargs=(self._tag,)
        )
        catalog = {
            "": "org.apache.iceberg.spark.SparkCatalog",
            "type": "hadoop",
            "warehouse": f"file://{self._pins}",
            "io-impl": "org.apache.iceberg.io.ResolvingFileIO",
            "cache-enabled": "false",
            **file_settings(),
        }
        for name, value in catalog.items():
            self.spark.conf.set(f"spark.sql.catalog.{_PINS}{name and '.' + name}", value)

    def close(self) -> None:
        """Ends the session. Spark frees what the session kept when nothing refers to it any more."""
        self._makers.shutdown(wait=False, cancel_futures=True)
        with suppress(Exception):  # Spark itself may be what has failed
            while self._making:  # nobody reads what a failed command has begun; of what is planned a job may yet start
                self.spark.sparkContext.cancelJobsWithTag(self._tag)
                wait(self._making.copy(), timeout=0.5)
        self._makers.shutdown()
        shutil.rmtree(self._pins, ignore_errors=True)

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bind_files(self, name: str, files: Iterable[DataFile], *, table: str = "") -> None:
        """Makes exactly these files readable as `name`; `table` is their table, by default `name`."""
        bound = _Bound(table or name, tuple(files))
        before, read = self._read_files.get(name, (None, bound))
        self._relations[name] = read if before == bound else bound
        self._files[name] = bound.files

    def within(self, relation: str, column: str, low: int, high: int) -> str:
        """Returns the SELECT of the rows of a relation with an instant in a range; Iceberg skips files without them."""
        [instant] = (found for found in ALL_COLUMNS[relation.partition("__")[0]] if found.name == column)
        return f"select * from {relation} where {between(instant, low, high)}"

    def view(self, name: str, sql: str) -> None:
        """Gives a SELECT a name for this session; the names in it keep their current meaning."""

        def made(views: _Views) -> _View:
            frame = self._frame(sql, views)
            return self._named(name, frame, small=all(view.result().small for view in views.values()))

        self._later(name, sql, made)

    def materialize(self, view: str, sql: str) -> None:
        """Computes a SELECT once and gives the result a name for this session."""
        self._later(view, sql, lambda views: self._kept(view, self._frame(sql, views)))

    def pseudonymise(self, view: str, sql: str, customer_id: Callable[[str], str]) -> None:
        """Computes a view of addresses once for this session, with the pseudonym of each address.

        Adds `customer_id`, the pseudonym, and `person`, which identifies the same person within this session. Here
        `person` is the pseudonym itself, because numbers that agree in every view would have to be assigned in one
        place.

        Args:
            view: The view's name.
            sql: A SELECT of one column, `address`, with each address once.
            customer_id: Returns the pseudonym of an address; called on the executors.
        """

        def made(views: _Views) -> _View:
            frame = mapped(self._frame(sql, views), _Beside(_Each(customer_id)), "address string, customer_id string")
            return self._kept(view, frame.selectExpr("address", "customer_id", "customer_id as person"))

        self._later(view, sql, made)

    def spellings(self, view: str, addresses: str, wanted: str) -> None:
        """Keeps, as `address`, the addresses of a SELECT whose normal form equals that of an address in another."""
        for name, sql in ((f"{view}__wanted", wanted), (f"{view}__met", addresses)):
            self.map_rows(name, f"select distinct address from ({sql})", {"normal": "varchar"}, _normal)
        self.materialize(view, f"select address from {view}__met where normal in (select normal from {view}__wanted)")

    def map_rows(
        self, view: str, sql: str, columns: Mapping[str, str], function: Callable[..., tuple[Any, ...]]
    ) -> None:
        """Keeps a SELECT's rows and appends the values that a function returns for each row.

        The function, with everything that it holds, is pickled and sent to the executors.
        """

        def made(views: _Views) -> _View:
            frame = self._frame(sql, views)
            given = [f"{field.name} {field.dataType.simpleString()}" for field in frame.schema.fields]
            schema = ", ".join([*given, *(f"{name} {_NAMES[kind]}" for name, kind in columns.items())])
            return self._kept(view, mapped(frame, _Beside(function), schema))

        self._later(view, sql, made)

    def map_groups(self, view: str, sql: str, by: str, columns: Mapping[str, str], function: Rows) -> None:
        """Keeps the rows that a function makes from grouped rows; the function is called on the executors.

        Args:
            view: The name of the result.
            sql: A SELECT.
            by: A column of it. All rows with the same value go to the same call, which may also get other values.
            columns: Name and type, in the lake's dialect, of each value that the function yields.
            function: Called with rows; it must be picklable, and so must everything that it holds.
        """
        schema = ", ".join(f"{name} {_NAMES[kind]}" for name, kind in columns.items())
        self._later(
            view,
            sql,
            lambda views: self._kept(view, mapped(self._frame(sql, views).repartition(by), function, schema)),
        )

    def text_values(self, view: str, files: Iterable[DataFile], *, but: str) -> None:
        """Makes a view of the texts in files: `field`, `value`, and `n`, how often the value is in a file.

        Executors read the files with DuckDB, whatever columns each file has; no row comes to the driver.

        Args:
            view: The view's name; it is computed when it is read.
            files: The files.
            but: A pattern; values that match it completely are left out.
        """
        listed = tuple(files)
        paths = tuple(file.path for file in listed)

        def made(_: _Views) -> _View:
            # starting a session for each file would take longer than reading most files
            most = min(len(paths), _TASKS * Executors(self.spark).slots, 1 + sum(f.bytes for f in listed) // _TASK)
            # numbers of files, which Spark makes itself: rows of Python's would be sent through workers of their own
            frame = self.spark.range(0, len(paths), 1, max(1, most))
            frame = mapped(frame, _Texts(paths, self._memory, but), "field string, value string, n bigint")
            return self._named(view, frame, small=False)

        self._later(view, "", made)

    def files_containing(
        self, view: str, files: Iterable[DataFile], column: str, values: str, *, table: str, by_rows: bool = True
    ) -> tuple[DataFile, ...]:
        """Returns the given files that have a row whose value in a column is among the values of a SELECT.

        Args:
            view: The name of the result: those of the values that are in a file, each once, as the column.
            files: The files.
            column: A column of the table.
            values: A SELECT of one column.
            table: The table.
            by_rows: Rows are read in any case.
        """
        given = {file.path: file for file in files}
        if not given:
            self.bind_files(view, (), table=table)
            return ()
        places = f"{view}__places"

        def made(views: _Views) -> _View:
            pinned, wanted = self._pin(table, given.values()), to_spark(values, self._names(views, beside=True))
            sql = f"select distinct _file, `{column}` from {pinned} where `{column}` in ({wanted})"
            return self._kept(places, self.spark.sql(sql).withColumnRenamed("_file", "place"))

        self._later(places, values, made)
        self.view(view, f"select distinct {column} from {places}")
        found = self.rows(f"select distinct place from {places}")
        return tuple(given[path] for path in sorted(local_path(place) for (place,) in found))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""
        with _failures():
            return [tuple(row) for row in self._frame(sql, self._read(sql)).collect()]

    def arrow(self, sql: str) -> pa.Table:
        """Returns the rows of a SELECT that fit into this process."""
        with _failures():
            return self._frame(sql, self._read(sql)).toArrow()

    def insert_rows(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> None:
        """Stores rows of Python values.

        Args:
            name: The name of the result.
            columns: Name and type, in the lake's dialect, of each value.
            rows: The rows, few enough for this process.
        """
        import pyarrow as pa

        values = list(zip(*rows, strict=True)) or [()] * len(columns)
        kinds = {"varchar": pa.string(), "bigint": pa.int64(), "hugeint": pa.decimal128(38, 0)}
        arrays = [pa.array(some, kinds[kind]) for some, kind in zip(values, columns.values(), strict=True)]
        given = pa.table(arrays, list(columns))
        self._later(name, "", lambda _: self._kept(name, self.spark.createDataFrame(given)))

    def hashes(self, columns: Sequence[str]) -> tuple[str, str]:
        """Returns the SQL of two independent hashes of a row's values in these columns, 64 bits each.

        A random number of the session is hashed first, so that nobody can look for other rows with the same sums.
        """
        one, other = ", ".join(columns), ", ".join(reversed(columns))
        return f"row_hash({self._mark}, {one})", f"row_hash({self._mark}, 1, {other})"

    def column_sums(self, table: str) -> ColumnSums | None:
        """Returns the sums, in C, of bound files; None if the table is small, or Spark or the files are elsewhere.

        If Spark runs on this machine only, this process can read the files that are here, as a task would.
        """
        remote = any(s3.is_remote(file.path) for file in self._files.get(table, ()))
        if remote or not str(self.spark.sparkContext.master).startswith("local"):
            return None
        sums = ColumnSums(_Here(self), self._files, (settings.size(self._memory) or 0) // 4)
        return sums if sums.worthwhile(table) else None

    def write_without(
        self, table: str, files: Iterable[DataFile], column: str, values: str, folder: Path, *, of: int
    ) -> tuple[DataFile, ...]:
        """Rewrites files of a table without the rows whose text in a column is among the values of a SELECT."""
        self.bind_files(LEAVING, files, table=table)
        return self.write(table, staying(table, column, values), folder, of=of)

    def write(self, table: str, sql: str, folder: Path, *, of: int = 0) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT as the table's Parquet files into a new folder, with Iceberg's own writer.

        A customer's rows are in one file, ordered by time.

        Args:
            table: The table. The SELECT has the table's columns, matched by name, in any order.
            sql: The SELECT, prepared.
            folder: A folder that does not exist yet.
            of: About how many rows the whole table has; this decides the number of files.

        Returns:
            The files, synced to disk; empty if there are no rows.

        Raises:
            LakeError: The SELECT's columns differ from the table's.
        """
        names = [column.name for column in COLUMNS[table]]
        near = names[:2] if names[0] == "customer_id" else names[:1]
        # a customer's rows are in one file, so that few files are rewritten when the customer withdraws consent
        parts = min(_FILES, of // _LEAST) if of < _FILES * _ROWS else of // _ROWS
        with _failures():
            views = self._read(sql)
            parted = in_parts(sql, parts, self._names(views, beside=True)) if parts > 1 else None
            frame = self.spark.sql(parted) if parted else self._frame(sql, views)
            found = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
        refuse_other_columns(table, found, SPARK_TYPES)
        if parted is None:
            frame = frame.repartition(parts, near[0]) if parts > 1 else frame.repartition(near[0])
        target = f"new_{next(self._numbers)}"
        durable.folder(folder)  # made by this process, with its own umask
        with _failures():
            columns = ", ".join(f"`{column.name}` {SPARK_TYPES[column.type]}" for column in COLUMNS[table])
            settings = ", ".join(f"'{key}' = '{value}'" for key, value in hadoop.properties(table, folder).items())
            self.spark.sql(f"create table {_PINS}.made.{target} ({columns}) using iceberg tblproperties ({settings})")
            frame.select(*names).sortWithinPartitions(*near).writeTo(f"{_PINS}.made.{target}").append()
        files = _synced(hadoop.written(self._pins / "made" / target, table), folder)
        durable.settle(Path(file.path) for file in files if not s3.is_remote(file.path))
        return self._told(files) if s3.is_remote(folder) else files

    def _told(self, files: tuple[DataFile, ...]) -> tuple[DataFile, ...]:
        """Returns files with their SHA-256. Spark does not compute it, so the executors read each file again."""
        found = Executors(self.spark).map(checksums.digest, [file.path for file in files])
        return tuple(replace(file, sha256=sha256) for file, (sha256, _) in zip(files, found, strict=True))

    def _later(self, name: str, sql: str, make: Callable[[_Views], _View]) -> Future[_View]:
        """Has a relation made by a thread, with the current meaning of the names in a SELECT."""
        views = self._read(sql) if sql else {}
        missing: Iterator[int] = count(len(views) - 1, -1)
        later: Future[_View] = Future()

        def made() -> None:
            try:
                with _failures():
                    later.set_result(make(views))
            except BaseException as error:
                later.set_exception(error)

        def started(_: object) -> None:
            if views and next(missing) > 0:
                return
            try:
                self._makers.submit(made).add_done_callback(lambda run: run.cancelled() and later.cancel())
            except RuntimeError:  # the session has ended
                later.cancel()

        self._relations[name] = later
        self._making.add(later)
        later.add_done_callback(self._making.discard)
        # it takes a thread only when what it reads is made, so that threads never wait for each other
        for view in views.values():
            view.add_done_callback(started)
        if not views:
            started(None)
        return later

    def _read(self, sql: str) -> _Views:
        """Returns what a SELECT reads; bound files that it is the first to read become relations."""
        found: dict[str, Future[_View]] = {}
        for name in sorted(reads(sql) & self._relations.keys()):
            relation = self._relations[name]
            if isinstance(relation, _Bound):
                bound, relation = relation, self._later(name, "", partial(self._opened, name, relation))
                self._read_files[name] = bound, relation
            found[name] = relation
        return found

    def _opened(self, name: str, bound: _Bound, _: _Views) -> _View:
        """Makes a view of bound files; few rows are read now, once."""
        table, files = bound
        if not files:  # Spark skips the planning of a relation that it knows to be empty
            columns_of = (f"cast(null as {SPARK_TYPES[c.type]}) as `{c.name}`" for c in COLUMNS[table])
            return self._named(name, self.spark.sql(f"select {', '.join(columns_of)} where false"), small=True)
        columns = zip(hadoop.columns(table), COLUMNS[table], strict=True)
        frame = self.spark.table(self._pin(table, files))
        frame = frame.selectExpr(*(f"`{pin.name}` as `{column.name}`" for pin, column in columns))
        if sum(file.rows for file in files) <= _SMALL and sum(file.bytes for file in files) <= _LIGHT:
            return self._kept(name, frame)
        return self._named(name, frame, small=False)

    def _frame(self, sql: str, views: _Views) -> DataFrame:
        small = all(view.result().small for view in views.values())
        return self.spark.sql(to_spark(sql, self._names(views, beside=not small), numbered=small))

    def _names(self, views: _Views, *, beside: bool) -> dict[str, str]:
        return {name: view.result().beside if beside else view.result().name for name, view in views.items()}

    def _kept(self, name: str, frame: DataFrame) -> _View:
        # a checkpoint, not a cache: a plan over cached plans contains all of them, and a build nests dozens
        kept = frame.localCheckpoint(eager=False)
        rows: Any = kept._jdf.queryExecution().toRdd()
        found = rows.count()
        if not found:  # Spark skips a relation that it knows to be empty, and after a small change most are empty
            return self._named(name, kept.where("false"), small=True)
        if found > _SMALL:
            return self._named(name, kept, small=False)
        view = self._named(name, kept.coalesce(1), small=True)
        # without its plan, Spark assumes that it is large, and a join would move all rows of the other side
        return view._replace(beside=self._named(name, kept.hint("broadcast"), small=False).name)

    def _named(self, name: str, frame: DataFrame, *, small: bool) -> _View:
        view = f"{name}__{next(self._numbers)}"
        frame.createOrReplaceTempView(view)
        return _View(view, view, small)

    def _pin(self, table: str, files: Iterable[DataFile]) -> str:
        pin = f"pin_{next(self._numbers)}"
        hadoop.hadoop_table(self._pins / "bound" / pin, table, files)
        return f"{_PINS}.bound.{pin}"


class _Here:
    """Rows in this process, of a Spark on this machine: what `ColumnSums` asks of a session."""

    def __init__(self, engine: SparkEngine) -> None:
        self._engine = engine

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        found = self._engine.rows(f"select * from ({sql}) limit {_SMALL + 1}")
        if len(found) > _SMALL:
            raise Otherwise
        return found

    def arrow(self, sql: str) -> Iterator[pa.RecordBatch]:
        found = self._engine.arrow(f"select * from ({sql}) limit {_ROWS + 1}")
        if len(found) > _ROWS:
            raise Otherwise
        yield from found.to_batches()

    def insert_rows(self, name: str, columns: Mapping[str, str], rows: Iterable[tuple[object, ...]]) -> None:
        self._engine.insert_rows(name, columns, rows)


class _Each:
    """Returns a pseudonym as a row of one value; it is sent to the executors with its key, and never shows the key."""

    def __init__(self, customer_id: Callable[[str], str]) -> None:
        self._customer_id = customer_id

    def __call__(self, address: str) -> tuple[str]:
        return (self._customer_id(address),)


def _normal(address: str) -> tuple[str]:
    return (normalise(address),)


class _Beside:
    """Turns a function of one row's values into a function of rows that appends its result to each row."""

    def __init__(self, function: Callable[..., tuple[Any, ...]]) -> None:
        self._function = function

    def __call__(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        return ((*row, *self._function(*row)) for row in rows)


@dataclass(frozen=True, slots=True)
class _Texts:
    """Yields the texts in files, given by their numbers; see `SparkEngine.text_values`."""

    paths: tuple[str, ...]
    memory: str
    but: str

    def __call__(self, numbers: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        try:
            with task_session(self.memory) as engine:
                for (number,) in numbers:
                    engine.text_values("texts", [DataFile(self.paths[number], 0, 0)], but=self.but)
                    yield from engine.stream("select field, value, n from texts")
        except LakeError as error:
            # its cause can contain a value, and executors log the error that ends a task
            raise LakeError(str(error)) from None


def _synced(files: tuple[DataFile, ...], folder: Path) -> tuple[DataFile, ...]:
    """Syncs files that Spark has written to disk, removes the files of abandoned attempts, and returns the files."""
    if s3.is_remote(folder):
        return files
    ours = {Path(file.path) for file in files}
    for path in folder.iterdir():
        if path in ours:
            durable.sync(path)
        else:
            path.unlink()
    durable.sync(folder)
    durable.sync(folder.parent)
    return files


@contextmanager
def _failures() -> Iterator[None]:
    """Turns Spark's errors into one clear line, because their own texts can contain a customer's values."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        what = type(error).__name__
        if isinstance(error, PySparkException) and error.getCondition():
            what = f"{what}, {error.getCondition()}"
        raise LakeError(f"Spark refused or failed a statement ({what}); nothing was published") from error
