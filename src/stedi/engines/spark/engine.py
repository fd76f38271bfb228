"""Spark behind the protocol of engines: pinned files in, new files out, Iceberg's own readers and writers for both.

What is bound is a pin (`catalog.pins`): an Iceberg table, known to this session alone, of exactly the files that were
pinned. What is written goes to such a table, too, whose files lie where the lake's table wants them; the catalog
commits them. Rows stay on the executors: what comes here is counts, spans and names of files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.catalog import checksums, hadoop
from stedi.catalog.snapshots import local_path
from stedi.engines import LEAVING, refuse_other_columns, staying
from stedi.engines.duckdb import task_session
from stedi.engines.spark.arrow import Rows, mapped
from stedi.engines.spark.dialect import in_parts, reads, to_spark
from stedi.engines.spark.session import file_settings, session
from stedi.engines.workers import Executors
from stedi.errors import LakeError
from stedi.privacy.pseudonyms import normalise
from stedi.schema.tables import COLUMNS, SPARK_TYPES, DataFile
from stedi.storage import durable, s3

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_PINS = "pins"
"""The catalog, of one session, of what is pinned and of what is written."""
_NAMES = {"varchar": "string", "bigint": "bigint", "boolean": "boolean", "date": "date"}
"""Spark's names for types of the lake's dialect."""
_ROWS = 1_000_000
"""Rows of a file of a large table, about."""
_FILES = 64
"""Files of a table, until each has that many rows."""
_SMALL = 100_000
"""Rows of what is kept that are sent to where the rows are that it is joined with."""
_TASKS = 8
"""Tasks a slot of executors that read files by themselves: files differ in size."""
_LEAST = 122_880
"""Rows of a file at least, if a table has more than one."""


class SparkEngine:
    """One session of Spark for a build or a proof.

    Args:
        temporary: Folder for what lasts as long as the session; made when needed, and on this machine.
        spark: The session to use, by default one of the running Spark or of one that is started.
        lake: The lake's folder, or its prefix in S3, which says how Spark reaches its files.
        memory: What a task may take that reads files by itself.
    """

    at_once: int | None = None

    def __init__(
        self,
        temporary: Path,
        spark: SparkSession | None = None,
        lake: Path | None = None,
        *,
        memory: str = "600MB",
    ) -> None:
        self.spark = spark or session(master="local[*]", with_s3=lake is not None and s3.is_remote(lake))
        self._pins, self._memory = temporary / _PINS, memory
        self._made = 0
        self._bound: dict[str, tuple[str, tuple[DataFile, ...]]] = {}
        settings = {
            "": "org.apache.iceberg.spark.SparkCatalog",
            "type": "hadoop",
            "warehouse": f"file://{self._pins}",
            "io-impl": "org.apache.iceberg.io.ResolvingFileIO",
            "cache-enabled": "false",
            **file_settings(),
        }
        for name, value in settings.items():
            self.spark.conf.set(f"spark.sql.catalog.{_PINS}{name and '.' + name}", value)

    def close(self) -> None:
        """Ends the session; what it kept goes when Spark finds that nobody reads it any more."""
        shutil.rmtree(self._pins, ignore_errors=True)

    def __enter__(self) -> SparkEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def bind_files(self, name: str, files: Iterable[DataFile], *, table: str = "") -> None:
        """Makes exactly these files of a table readable under a name from now on, by default the table's own."""
        # pinned when it is read: most of what a build binds it does not look at
        self._bound[name] = (table or name, tuple(files))

    def view(self, name: str, sql: str) -> None:
        """Gives a SELECT a name for this session, over what the names in it stand for now."""
        with _failures():
            self._frame(sql).createOrReplaceTempView(name)
        self._bound.pop(name, None)

    def materialize(self, view: str, sql: str) -> None:
        """Computes a SELECT once, when it is first read, and gives the result a name for this session."""
        self._keep(view, self._frame(sql))

    def pseudonymise(self, view: str, sql: str, customer_id: Callable[[str], str]) -> None:
        """Computes a view of addresses once for this session, with whom each address means beside it.

        Adds `customer_id`, the pseudonym, and `person`, which stands for it in this session: here it is the pseudonym
        itself, since numbers that are the same in every view would have to be given out in one place.

        Args:
            view: The view's name.
            sql: A SELECT of one column, `address`, each once.
            customer_id: The pseudonym of an address; called on the executors.
        """
        with _failures():
            made = mapped(self._frame(sql), _Beside(_Each(customer_id)), "address string, customer_id string")
            self._keep(view, made.selectExpr("address", "customer_id", "customer_id as person"))

    def spellings(self, view: str, addresses: str, wanted: str) -> None:
        """Keeps, as `address`, the addresses of a SELECT whose normal form equals that of an address in another."""
        for name, sql in ((f"{view}__wanted", wanted), (f"{view}__met", addresses)):
            self.map_rows(name, f"select distinct address from ({sql})", {"normal": "varchar"}, _normal)
        self.materialize(view, f"select address from {view}__met where normal in (select normal from {view}__wanted)")

    def map_rows(
        self, view: str, sql: str, columns: Mapping[str, str], function: Callable[..., tuple[Any, ...]]
    ) -> None:
        """Keeps a SELECT's rows with what a function makes of each: pickled, with what it holds, for the executors."""
        with _failures():
            frame = self._frame(sql)
            given = [f"{field.name} {field.dataType.simpleString()}" for field in frame.schema.fields]
            schema = ", ".join([*given, *(f"{name} {_NAMES[kind]}" for name, kind in columns.items())])
            made = mapped(frame, _Beside(function), schema)
        self._keep(view, made)

    def map_groups(self, view: str, sql: str, by: str, columns: Mapping[str, str], function: Rows) -> None:
        """Keeps what a function makes of rows that are brought together; it is called on the executors.

        Args:
            view: The name of the result.
            sql: A SELECT.
            by: A column of it: all rows of one value come to the same call, with those of others.
            columns: Name and type, of the lake's dialect, of each value that the function yields.
            function: Called with rows; it, and what it holds, can be pickled.
        """
        schema = ", ".join(f"{name} {_NAMES[kind]}" for name, kind in columns.items())
        with _failures():
            made = mapped(self._frame(sql).repartition(by), function, schema)
        self._keep(view, made)

    def text_values(self, view: str, files: Iterable[DataFile], *, but: str) -> None:
        """Gives a name to the texts in files: `field`, `value`, and `n`, how often in a file; columns are its own.

        Executors read the files as DuckDB does, whatever columns they have; nothing of them comes here.

        Args:
            view: The name; it is computed when it is read.
            files: The files.
            but: A pattern; values that match it as a whole are left out.
        """
        paths = [(file.path,) for file in files]
        with _failures():
            # a session for each file would take longer than most files do
            count = min(len(paths), _TASKS * Executors(self.spark).slots)
            tasks = self.spark.sparkContext.parallelize(paths, max(1, count))
            frame = self.spark.createDataFrame(tasks, "path string")
            made = mapped(frame, _Texts(self._memory, but), "field string, value string, n bigint")
            made.createOrReplaceTempView(view)
        self._bound.pop(view, None)

    def files_containing(
        self, files: Iterable[DataFile], column: str, values: str, *, table: str
    ) -> tuple[DataFile, ...]:
        """Returns those of some files of a table that have a row whose column is among the values of a SELECT."""
        given = {file.path: file for file in files}
        if not given:
            return ()
        pinned = self._pin(table, given.values())
        self._look_up(values)
        sql = f"select distinct _file from {pinned} where `{column}` in ({to_spark(values)})"
        with _failures():
            found = sorted(local_path(row[0]) for row in self.spark.sql(sql).collect())
        return tuple(given[path] for path in found)

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""
        with _failures():
            return [tuple(row) for row in self._frame(sql).collect()]

    def write_without(
        self, table: str, files: Iterable[DataFile], column: str, values: str, folder: Path, *, of: int
    ) -> tuple[DataFile, ...]:
        """Writes files of a table anew, without the rows whose text in a column is among the values of a SELECT."""
        self.bind_files(LEAVING, files, table=table)
        return self.write(table, staying(table, column, values), folder, of=of)

    def write(self, table: str, sql: str, folder: Path, *, of: int = 0) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT as the table's Parquet files into a new folder, by Iceberg's own writer.

        A customer's rows lie in one file, in the order of time.

        Args:
            table: The table whose columns the SELECT has, by name, in any order.
            sql: The SELECT, prepared.
            folder: A folder that does not exist yet.
            of: About how many rows the table has in all, which says how many files it has.

        Returns:
            The files, synced; none if there are no rows.

        Raises:
            LakeError: The SELECT's columns are not the table's.
        """
        names = [column.name for column in COLUMNS[table]]
        near = names[:2] if names[0] == "customer_id" else names[:1]
        # what a customer has lies together, so that few files have to be rewritten when they change their mind
        count = min(_FILES, of // _LEAST) if of < _FILES * _ROWS else of // _ROWS
        parted = in_parts(sql, count) if count > 1 else None
        frame = self._checked(table, sql, parted or to_spark(sql))
        if parted is None:
            frame = frame.repartition(count, near[0]) if count > 1 else frame.repartition(near[0])
        self._made += 1
        target = f"new_{self._made}"
        durable.folder(folder)  # by this program, under its own mask
        with _failures():
            columns = ", ".join(f"`{column.name}` {SPARK_TYPES[column.type]}" for column in COLUMNS[table])
            settings = ", ".join(f"'{key}' = '{value}'" for key, value in hadoop.properties(table, folder).items())
            self.spark.sql(f"create table {_PINS}.made.{target} ({columns}) using iceberg tblproperties ({settings})")
            frame.select(*names).sortWithinPartitions(*near).writeTo(f"{_PINS}.made.{target}").append()
        files = _synced(hadoop.written(self._pins / "made" / target, table), folder)
        durable.settle(Path(file.path) for file in files if not s3.is_remote(file.path))
        return self._told(files) if s3.is_remote(folder) else files

    def _told(self, files: tuple[DataFile, ...]) -> tuple[DataFile, ...]:
        """Returns objects with their SHA-256, which Spark does not write beside them: its executors read them again."""
        found = Executors(self.spark).map(checksums.digest, [file.path for file in files])
        return tuple(replace(file, sha256=sha256) for file, (sha256, _) in zip(files, found, strict=True))

    def _checked(self, table: str, sql: str, translated: str) -> DataFrame:
        frame = self._frame(sql, translated)
        with _failures():
            found = {field.name: field.dataType.simpleString() for field in frame.schema.fields}
        refuse_other_columns(table, found, SPARK_TYPES)
        return frame

    def _frame(self, sql: str, translated: str = "") -> DataFrame:
        translated = translated or to_spark(sql)
        self._look_up(sql)
        with _failures():
            return self.spark.sql(translated)

    def _look_up(self, sql: str) -> None:
        """Makes what a SELECT reads readable, where that was bound and not read yet."""
        for name in sorted(reads(sql) & self._bound.keys()):
            table, files = self._bound.pop(name)
            with _failures():
                if files:
                    columns = zip(hadoop.columns(table), COLUMNS[table], strict=True)
                    frame = self.spark.table(self._pin(table, files))
                    frame = frame.selectExpr(*(f"`{pin.name}` as `{column.name}`" for pin, column in columns))
                else:  # Spark does not even plan what it knows to be empty
                    columns_of = (f"cast(null as {SPARK_TYPES[c.type]}) as `{c.name}`" for c in COLUMNS[table])
                    frame = self.spark.sql(f"select {', '.join(columns_of)} where false")
                frame.createOrReplaceTempView(name)

    def _keep(self, view: str, frame: DataFrame) -> None:
        with _failures():
            # not merely cached: a plan over cached plans holds all of them, and a build has dozens, one on the other
            kept = frame.localCheckpoint(eager=False)
            # what is cut from its plan is taken for large, and joining it would move all rows that it is joined with
            rows: Any = kept._jdf.queryExecution().toRdd()
            count = rows.count()
            # nor does it plan what it knows to be empty: of a small change most relations are
            kept = kept.hint("broadcast") if 0 < count <= _SMALL else kept if count else kept.where("false")
            kept.createOrReplaceTempView(view)
        self._bound.pop(view, None)

    def _pin(self, table: str, files: Iterable[DataFile]) -> str:
        self._made += 1
        hadoop.hadoop_table(self._pins / "bound" / f"pin_{self._made}", table, files)
        return f"{_PINS}.bound.pin_{self._made}"


class _Each:
    """A pseudonym as the one value of a row; with its key it is sent to the executors, and shows nothing of it."""

    def __init__(self, customer_id: Callable[[str], str]) -> None:
        self._customer_id = customer_id

    def __call__(self, address: str) -> tuple[str]:
        return (self._customer_id(address),)


def _normal(address: str) -> tuple[str]:
    return (normalise(address),)


class _Beside:
    """A function of a row's values, as one of rows: what it returns stands beside them."""

    def __init__(self, function: Callable[..., tuple[Any, ...]]) -> None:
        self._function = function

    def __call__(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        return ((*row, *self._function(*row)) for row in rows)


@dataclass(frozen=True, slots=True)
class _Texts:
    """The texts in some files."""

    memory: str
    but: str

    def __call__(self, paths: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        try:
            with task_session(self.memory) as engine:
                for (path,) in paths:
                    engine.text_values("texts", [DataFile(path, 0, 0)], but=self.but)
                    yield from engine.stream("select field, value, n from texts")
        except LakeError as error:
            # its cause can hold a value, and executors log what ends a task
            raise LakeError(str(error)) from None


def _synced(files: tuple[DataFile, ...], folder: Path) -> tuple[DataFile, ...]:
    """Returns files that Spark has written, on disk; what attempts that were given up have left is removed."""
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
    """Turns Spark's errors into one clear line; their own texts can hold values of a customer."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        what = type(error).__name__
        if isinstance(error, PySparkException) and error.getCondition():
            what = f"{what}, {error.getCondition()}"
        raise LakeError(f"Spark refused or failed a statement ({what}); nothing was published") from error
