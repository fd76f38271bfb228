"""Delivered files straight to Parquet files of their landing tables, in one pass over their text.

Each thread takes the next file, or the next piece of a large one, scans it into columns and writes them, a row group at
a time; a Parquet file has rows of many. A file that cannot be read to its end is refused whole: where rows of it were
taken by then, the output is discarded and the other files are scanned again. If a piece turns out not to begin between
two records, the output is discarded, too, and all files are scanned again uncut.
"""

from __future__ import annotations

import io
import operator
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from functools import reduce
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Lock
from typing import Any, BinaryIO, cast

from stedi._frozen import dataclass
from stedi.context.progress import Progress, silent
from stedi.engines.arrow_files import described
from stedi.engines.table_files import file_rows, move_to_bucket
from stedi.errors import LandingError, UnreadableFile, many
from stedi.landing import reader
from stedi.landing.deliveries import local
from stedi.landing.inspect import Inspected
from stedi.landing.prepare import Prepared, Rejects
from stedi.landing.reader.scanner import ROWS, Columns
from stedi.landing.tombstone_filter import TombstoneFilter
from stedi.schema.contracts import Contract
from stedi.schema.tables import COLUMNS, DataFile
from stedi.storage import durable, s3

_SHARE = 4 << 20
"""Bytes that are worth a thread, and Parquet files, of their own."""

_PIECE = 24 << 20
"""Bytes of a piece, more or less, of a file that is scanned by several threads."""

_LIMITS = reader.Limits(block_bytes=1 << 18)
"""Blocks that stay in a core's cache while they are scanned."""

_RECORD = 80
"""Roughly the least bytes of a record: bounds the rows of a file of the table."""


@dataclass(frozen=True, slots=True)
class Scanned:
    """What became of some files.

    Attributes:
        prepared: Those that were read to their end, with their counts and rejects.
        appends: For each table the Parquet files that hold their accepted records.
        unreadable: The others, and why.
    """

    prepared: tuple[Prepared, ...]
    appends: dict[str, tuple[DataFile, ...]]
    unreadable: tuple[tuple[str, UnreadableFile], ...]


def scan(
    files: Sequence[Inspected],
    scratch: Path,
    folder: Callable[[str], Path],
    *,
    threads: int,
    tombstone_filter: TombstoneFilter | None = None,
    progress: Progress = silent,
) -> Scanned:
    """Scans files and writes their accepted records.

    Args:
        files: The files.
        scratch: A folder for temporary files.
        folder: Returns a new folder in a table's data.
        threads: How many files may be scanned at once.
        tombstone_filter: Drops records of erased customers; None if nobody was erased.
        progress: Called with the current step and its completed share.

    Raises:
        LandingError: A file changed while it was read, or rows cannot be written.
    """
    unreadable: list[tuple[str, UnreadableFile]] = []
    folders = {table: folder(table) for table in sorted({file.contract.table for file in files})}
    threads = max(1, min(threads, sum(file.size for file in files) // _SHARE))
    cut = threads > 1
    # it ends: a repeated pass is uncut, or lacks a file that the one before found unreadable
    for number in count():
        run = _Run(files, folders, scratch / f"scan-{number}", tombstone_filter, progress, cut=cut)
        run.work(threads)
        if run.astray:
            run.discard()
            cut = False
            continue
        unreadable += [(files[place].delivered.name, error) for place, error in sorted(run.unreadable.items())]
        if not run.spoilt:
            break
        run.discard()
        files = [file for place, file in enumerate(files) if place not in run.unreadable]
    prepared = tuple(found for _, found in sorted(run.prepared.items()))
    if tombstone_filter:
        prepared = tuple(tombstone_filter.without(found, run.dropped[found.file.sha256]) for found in prepared)
    return Scanned(prepared, run.written(), tuple(unreadable))


class _Output:
    """The Parquet files of one table that one thread writes.

    Args:
        contract: The records' contract.
        folder: The folder of the files.
        name: The prefix of their names.
        groups: Row groups of a file.
        tombstone_filter: Drops records of erased customers; None if nobody was erased.

    Attributes:
        columns: The buffers of the records.
        files: The complete files.
        flushed: How often the columns were emptied.
        dropped: How many records of erased customers there were, by the SHA-256 of their file.
    """

    def __init__(
        self, contract: Contract, folder: Path, name: str, groups: int, tombstone_filter: TombstoneFilter | None
    ) -> None:
        self.columns = Columns(contract)
        self.files: list[DataFile] = []
        self.flushed = 0
        self.dropped: Counter[str] = Counter()
        self._tombstone_filter = tombstone_filter
        self._table, self._folder, self._name, self._groups = contract.table, folder, name, groups
        self._names = [column.name for column in COLUMNS[contract.table]]
        self._optional = {"_extra", *(field.name for field in contract.fields if not field.required)}
        self._writer: Any = None
        self._path = folder
        self._metadata: list[Any] = []
        self._nulls: Counter[str] = Counter()

    def flush(self) -> None:
        """Writes what the columns hold as a row group, and clears them."""
        if not len(self.columns):
            return
        import pyarrow as pa

        arrays = self.columns.arrays()
        schema = pa.schema(
            pa.field(name, arrays[name].type, name in self._optional, {"PARQUET:field_id": str(place)})
            for place, name in enumerate(self._names, start=1)
        )
        table = pa.Table.from_arrays([arrays[name] for name in self._names], schema=schema)
        if self._tombstone_filter:
            # before the row group is written: no file holds them at any time
            table, dropped = self._tombstone_filter.rows(self._table, table)
            self.dropped += dropped
        if table.num_rows:
            with _writing():
                writer = self._writer or self._begin(schema)
                # counted here, since texts of every record have no statistics, and only now: a new file counts anew
                self._nulls.update({name: table.column(name).null_count for name in self._optional})
                writer.write_table(table, row_group_size=ROWS)
        self.columns.clear()
        self.flushed += 1
        # only between row groups: a file is as large as a build would make it
        if self.flushed % self._groups == 0:
            self.finish()

    def _begin(self, schema: Any) -> Any:
        import pyarrow.parquet as pq

        self._path = self._folder / f"{self._name}-{len(self.files)}.parquet"
        # never over another file, whatever the folder holds
        self._path.touch(exist_ok=False)
        self._metadata, self._nulls = [], Counter(dict.fromkeys(self._names, 0))
        # a text of every record is searched by file, not by row group: bounds for each would cost too much
        texts = {column.name for column in COLUMNS[self._table] if column.type == "string"}
        self._writer = pq.ParquetWriter(
            self._path,
            schema,
            compression="zstd",
            compression_level=1,
            # `engines.parquet` refuses a footer with Arrow's own schema
            store_schema=False,
            write_batch_size=ROWS,  # the default of about a thousand takes a fifth longer
            use_dictionary=[column.name for column in COLUMNS[self._table] if column.type != "long"],
            write_statistics=[name for name in self._names if name in self._optional or name not in texts],
            metadata_collector=self._metadata,
        )
        return self._writer

    def finish(self) -> None:
        """Ends the file that is being written, if there is one."""
        if self._writer is None:
            return
        with _writing():
            self._writer.close()
            durable.settle([self._path])
            durable.sync(self._path)
        self._writer = None
        self.files.append(described(self._path, self._metadata[0], COLUMNS[self._table], self._nulls))

    def abandon(self) -> None:
        """Closes and drops the current file."""
        if self._writer is not None:
            with suppress(OSError, RuntimeError):  # PyArrow asks a file that did not end for its metadata
                self._writer.close()


@dataclass(frozen=True, slots=True)
class _Part:
    """A unit of work of a thread.

    Attributes:
        place: The position of the file among the files.
        number: The number of the piece in the file, or 0.
        piece: The piece; only uncompressed UTF-8 files have more than one.
    """

    place: int
    number: int
    piece: reader.Piece


class _Run:
    """One pass over some files.

    Args:
        files: The files.
        folders: For each table, the new folder in its data.
        scratch: A new folder for temporary files.
        tombstone_filter: Drops records of erased customers; None if nobody was erased.
        progress: Called with the current step and its completed share.
        cut: Whether large files are cut.

    Attributes:
        prepared: Files that were read to their end, by position.
        unreadable: The other files, with the reason.
        dropped: How many records of erased customers there were, by the SHA-256 of their file.
        spoilt: Whether rows of such a file were taken.
        astray: Whether a file was cut where it may not be.
    """

    def __init__(
        self,
        files: Sequence[Inspected],
        folders: Mapping[str, Path],
        scratch: Path,
        tombstone_filter: TombstoneFilter | None,
        progress: Progress,
        *,
        cut: bool,
    ) -> None:
        self.prepared: dict[int, Prepared] = {}
        self.unreadable: dict[int, UnreadableFile] = {}
        self.dropped: Counter[str] = Counter()
        self.spoilt = self.astray = False
        self._files, self._folders, self._scratch = files, folders, scratch
        self._tombstone_filter, self._progress = tombstone_filter, progress
        # files for a bucket are written on this machine first
        self._here = {table: scratch / table if s3.is_remote(place) else place for table, place in folders.items()}
        self._written: dict[str, list[DataFile]] = {table: [] for table in folders}
        self._stop, self._lock = Event(), Lock()
        self._waiting: SimpleQueue[_Part] = SimpleQueue()
        self._parts: dict[int, list[reader.Piece]] = {}
        self._counts: dict[int, dict[int, reader.Counts]] = {}
        # one feed after the other, so that a thread writes few files of each; the largest first
        for place in sorted(range(len(files)), key=lambda n: (files[n].contract.feed, -files[n].size)):
            self._parts[place] = pieces = _pieces(files[place]) if cut else [reader.WHOLE]
            self._counts[place] = {}
            for number, piece in enumerate(pieces):
                self._waiting.put(_Part(place, number, piece))
        durable.private(scratch)
        for made in self._here.values():
            durable.folder(made)

    def work(self, threads: int) -> None:
        """Scans all files."""
        import pyarrow.parquet  # noqa: F401 # here, where an interrupt reaches it

        with ThreadPoolExecutor(threads) as pool:
            try:
                # whichever fails first: in the order of the threads, its error would wait for those before it
                for done in as_completed([pool.submit(self._thread, str(number)) for number in range(threads)]):
                    done.result()
            except BaseException:
                self._stop.set()  # the threads are waited for
                raise
        if not self.astray:
            for place in self._parts.keys() - self.unreadable.keys():
                self._join(place)

    def written(self) -> dict[str, tuple[DataFile, ...]]:
        """Moves every file to its place and syncs it; returns the files of each table."""
        for table, folder in self._folders.items():
            here, files = self._here[table], self._written[table]
            if here != folder:
                self._written[table] = list(move_to_bucket(files, here, folder))
            elif files:
                durable.settle([folder])
                durable.sync(folder)
                durable.sync(folder.parent)
            else:
                durable.remove_tree(folder)
        return {table: tuple(files) for table, files in self._written.items() if files}

    def discard(self) -> None:
        """Removes the written files."""
        for folder in self._here.values():
            durable.remove_tree(folder)

    def _thread(self, name: str) -> None:
        output, of = None, None
        try:
            while not self._stop.is_set():
                try:
                    part = self._waiting.get_nowait()
                except Empty:
                    break
                contract = self._files[part.place].contract
                if output is None or contract != of:
                    self._end(output, of)
                    here, groups = self._here[contract.table], self._groups(contract)
                    output, of = _Output(contract, here, name, groups, self._tombstone_filter), contract
                self._one(part, output)
                self._told()
            self._end(output, of)
        except BaseException:
            self._stop.set()
            if output is not None:
                output.abandon()
            raise

    def _told(self) -> None:
        with self._lock:
            found = [len(self._counts[place]) for place in self._parts]
            done = sum(count == len(pieces) for count, pieces in zip(found, self._parts.values(), strict=True))
        done, files = done + len(self.unreadable), len(self._files)
        share = sum(found) / sum(map(len, self._parts.values()))
        self._progress(f"read and write, {done:,} of {many(files, 'file')}", share)

    def _groups(self, contract: Contract) -> int:
        size = sum(file.size for file in self._files if file.contract == contract)
        return file_rows(size // _RECORD) // ROWS

    def _end(self, output: _Output | None, contract: Contract | None) -> None:
        if output is not None and contract is not None:
            output.flush()
            output.finish()
            self._written[contract.table] += output.files
            with self._lock:
                self.dropped += output.dropped

    def _one(self, part: _Part, output: _Output) -> None:
        """Scans one file, or one piece of one."""
        place, piece = part.place, part.piece
        file, name = self._files[place], self._files[place].delivered.name
        # rows that are taken cannot be given back: a file that turns out unreadable then spoils the pass
        before = output.flushed, len(output.columns)
        output.columns.begin(file.sha256)
        alone = len(self._parts[place]) == 1
        rejects = Rejects(name, self._rejects(place, part.number), part=not alone)
        try:
            with local.open_regular(file.delivered.path, name) as raw, rejects:
                if not local.fingerprint(raw.fileno()).like(file.fingerprint):
                    raise UnreadableFile(f"{name}: it changed while it was read; land it again when it is complete")
                # a change before this line costs the file, one behind it the batch: rows of the file may be in a row
                # group
                raw.seek(piece.begin)
                text = cast(BinaryIO, _Source(raw, name, self._stop))
                # only plain UTF-8 is cut: what begins later needs no decoding
                text = text if piece.begin else reader.decompressed(text, name)
                counts = reader.scan(text, output.columns, output.flush, rejects.add, _LIMITS, piece)
                _refuse_changed(file, raw)
        except UnreadableFile as error:
            self.unreadable[place] = error
            if not alone or (output.flushed, len(output.columns)) != before:
                self.spoilt = True  # not by `|=`: another thread's True could be lost
        except reader.Astray:
            self.astray = True
            self._stop.set()
        else:
            with self._lock:
                self._counts[place][part.number] = counts

    def _rejects(self, place: int, number: int | str) -> Path:
        return self._scratch / f"{place}-{number}.rejects"

    def _join(self, place: int) -> None:
        """Makes one of what became of a file's pieces."""
        file, pieces, counts = self._files[place], self._parts[place], self._counts[place]
        total = reduce(operator.add, (counts[number] for number in range(len(pieces))))
        path = self._rejects(place, 0)
        if total.quarantined and len(pieces) > 1:
            path, name = self._rejects(place, "all"), file.delivered.name
            try:
                with local.open_regular(file.delivered.path, name) as raw, Rejects(name, path) as rejects:
                    lines = 0
                    for number, piece in enumerate(pieces):
                        if counts[number].quarantined:
                            rejects.join(self._rejects(place, number), lines)
                        # rejects of a piece count lines from where the piece begins
                        lines += _line_breaks(raw, (piece.end or file.size) - piece.begin)
                    _refuse_changed(file, raw)
            except UnreadableFile as error:
                self.unreadable[place], self.spoilt = error, True
                return
        self.prepared[place] = Prepared(file, None, {}, path if total.quarantined else None, total)


def _pieces(file: Inspected) -> list[reader.Piece]:
    """Returns the pieces of a large file, or all of it if it is not large or cannot be read from any place."""
    most = file.size // _PIECE
    if most < 2:
        return [reader.WHOLE]
    name = file.delivered.name
    try:
        with local.open_regular(file.delivered.path, name) as raw:
            plain = reader.form(raw, name) == ("", "utf-8")
            return reader.cut(raw, file.size, most) if plain else [reader.WHOLE]
    except (OSError, UnreadableFile):
        return [reader.WHOLE]  # the scan will show


def _refuse_changed(file: Inspected, raw: BinaryIO) -> None:
    if not local.fingerprint(raw.fileno()).like(file.fingerprint):
        raise LandingError(
            f"{file.delivered.name}: it changed while it was landed; nothing of its batch was landed: "
            "land again when it is complete"
        )


def _line_breaks(raw: BinaryIO, size: int) -> int:
    """Returns how many line breaks the next bytes of a file have."""
    lines = 0
    while size > 0 and (block := raw.read(min(size, 1 << 20))):
        lines += block.count(b"\n")
        size -= len(block)
    return lines


class _Source(io.RawIOBase):
    """A delivered file as a stream for `decompressed`.

    Args:
        raw: The file.
        name: Its name.
        stop: Set to stop the work.
    """

    def __init__(self, raw: BinaryIO, name: str, stop: Event) -> None:
        super().__init__()
        self._raw: Any = raw
        self._name, self._stop = name, stop

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads the next bytes.

        Raises:
            UnreadableFile: They cannot be read, or the work was stopped.
        """
        try:
            if self._stop.is_set():
                raise UnreadableFile(f"{self._name}: it was not read to its end")
            return int(self._raw.readinto(buffer))
        except OSError as error:
            raise UnreadableFile(
                f"{self._name}: cannot be read ({error.strerror}); land it again when it can", passing=True
            ) from error


@contextmanager
def _writing() -> Iterator[None]:
    """Turns the failures of writing into one line."""
    import pyarrow as pa

    try:
        yield
    except (OSError, pa.ArrowException) as error:
        cause = error.strerror if isinstance(error, OSError) and error.strerror else type(error).__name__
        raise LandingError(
            f"the landing's rows cannot be written ({cause}); nothing of its batch was landed: land again when there "
            "is room"
        ) from error
