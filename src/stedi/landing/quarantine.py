"""The quarantine: refused records, to list, to read and to land again.

A newer contract may accept what an older one refused. `replay` reads every quarantined record again; accepted ones move
to their landing table, and the ledger's counts of their file change accordingly. If no record of a file was accepted,
it may have landed as the wrong feed: the fields then give the right one.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from stedi._frozen import dataclass
from stedi.context import Context, access, runs
from stedi.context.progress import Progress, silent
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, path_literal
from stedi.errors import UsageError
from stedi.landing import journal, reader, rows
from stedi.landing.reader.fitting import Conformer, feeds_of
from stedi.landing.rows import LandedFile
from stedi.privacy import key_change, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema.contracts import Reason
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import COLUMNS, DUCKDB_TYPES, DataFile
from stedi.storage import durable


@dataclass(frozen=True, slots=True)
class Quarantined:
    """One quarantined record, without its bytes.

    Attributes:
        feed: Its feed.
        file: The delivered file's name.
        sha256: SHA-256 of the delivered file, hex.
        offset: First byte in the file, decompressed.
        line: Line in the file, from 1.
        reason: A code of `contracts.Reason`.
        size: Bytes.
    """

    feed: str
    file: str
    sha256: str
    offset: int
    line: int
    reason: str
    size: int

    @property
    def handle(self) -> str:
        """What `quarantine --show` takes: the file's content and the offset."""
        return f"{self.sha256[:12]}:{self.offset}"


@dataclass(frozen=True, slots=True)
class Fault:
    """A count of quarantined records with the same fault.

    Attributes:
        reason: A code of `contracts.Reason`.
        feed: Their feed.
        field: The wrong field, by the contract's name; empty if the text is not a record or is too long.
        records: How many.
        expected: The required type, in words; empty without a field.
        found: The kinds of the found values, the most frequent first, in words; never a value.
    """

    reason: str
    feed: str
    field: str
    records: int
    expected: str = ""
    found: str = ""


@dataclass(frozen=True, slots=True)
class RawRecord:
    """The bytes of one record in quarantine.

    Attributes:
        content: Its bytes, at most the first 64 KiB.
        size: How many bytes it has in all.
    """

    content: bytes
    size: int


@dataclass(frozen=True, slots=True)
class Relanded:
    """The result of replaying the quarantine.

    Attributes:
        landed: Records that were landed.
        staying: Records that stay in quarantine.
    """

    landed: int
    staying: int


LOOKED_AT = 1000
"""The most records of which `Quarantine.faults` finds the fault."""


class Quarantine:
    """The quarantine of one lake.

    Args:
        context: The lake; its key is needed when something is landed, to recognise data of erased customers.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._catalog, self._config, self._root = context.catalog, context.config, context.root

    def total(self) -> int:
        """Returns how many records are in quarantine."""
        current = self._catalog.table("quarantine").current
        return current.total("records") if current else 0

    def records(self) -> Iterator[Quarantined]:
        """Yields every record, by file and offset; a few thousand are in memory at a time."""
        with self._engine() as engine:
            columns = 'feed, file, sha256, "offset", line, reason, raw_size'
            sql = f'select {columns} from quarantine order by file, sha256, "offset"'
            for row in engine.stream(sql):
                yield Quarantined(*row)

    def counts(self) -> list[tuple[str, str, str, int]]:
        """Returns how many records there are by reason, feed and file, most first."""
        with self._engine() as engine:
            sql = "select reason, feed, file, count(*) as n from quarantine group by all order by n desc, reason, file"
            return [(reason, feed, file, count) for reason, feed, file, count in engine.rows(sql)]

    def faults(self) -> tuple[tuple[Fault, ...], int]:
        """Returns the wrong fields of the first records, by file and offset, and the number of these records."""
        with self._engine() as engine:
            return faults(engine)

    def raw(self, handle: str) -> RawRecord:
        """Returns one record's bytes.

        Args:
            handle: `FILE:OFFSET`, with the file's name or the first digits of its SHA-256.

        Raises:
            UsageError: No record, or more than one, has that handle.
        """
        file, _, offset = handle.rpartition(":")
        # `isdigit` alone takes digits that SQL does not; up to 18 of them fit into the column's 64 bits
        if not file or not (offset.isascii() and offset.isdigit() and len(offset) < 19):
            raise UsageError(
                f"expected FILE:OFFSET, found {handle}; `stedi quarantine --records` lists them", argument="handle"
            )
        with access.noted(self._context, "quarantine") as note, self._engine() as engine:
            note.tables = {"quarantine": None}
            found = engine.rows(
                f'select raw, raw_size from quarantine where "offset" = {offset} '
                # two are enough to know that the handle is ambiguous
                f"and (file = {literal(file)} or starts_with(sha256, {literal(file)})) limit 2"
            )
            if len(found) != 1:
                many = "several: give more digits of the SHA-256" if found else "none"
                raise UsageError(f"expected one record of {handle}, found {many}", argument="handle")
            note.rows = 1
        return RawRecord(bytes(found[0][0]), int(found[0][1]))

    def replay(self, *, progress: Progress = silent) -> Relanded:
        """Lands the records that the contracts accept now; records of erased customers are only removed.

        Args:
            progress: Called with what is waited for or being finished first, and its completed share, 0 to 1.

        Raises:
            CommitConflict: Another program keeps changing the tables.
            LakeError: The lake was rolled back; nothing was changed.
        """
        with runs.recorded(self._context, "quarantine --replay") as end:
            writing = self._context.writing("land", keyless=True, progress=progress)
            with writing, journal.Commit(self._catalog) as batch:
                progress("replay the quarantine", None)
                done = self._replay(batch)
            end(done, done.landed, "")
        return done

    def _key(self) -> Key:
        key = self._context.key()
        key_change.refuse_changed(self._root, key)
        return key

    def _replay(self, batch: journal.Commit) -> Relanded:
        lines = {feed: batch.scratch / f"{feed}.json" for feed in CONTRACTS}
        # offsets by file, name, feed and the feed of the fields
        landed: dict[tuple[str, str, str, str], list[int]] = {}
        barred: dict[tuple[str, str, str], list[int]] = {}
        without_erased = self._without_erased()
        with self._engine() as engine:
            engine.bind_files("landed_files", self._catalog.files(self._catalog.table("landed_files")))
            fruitless = rows.fruitless(engine)
            fittings = {feed: Conformer(contract) for feed, contract in CONTRACTS.items()}
            streams = {feed: open(path, "wb") for feed, path in lines.items()}  # noqa: SIM115 - closed below
            try:
                # records that were cut when they were kept cannot be read again
                sql = 'select feed, file, sha256, "offset", raw from quarantine where octet_length(raw) = raw_size'
                for feed, file, sha256, offset, raw in engine.stream(sql):
                    kept_raw = without_erased(bytes(raw))
                    if kept_raw is None:
                        barred.setdefault((sha256, file, feed), []).append(offset)
                        continue
                    record = _record(kept_raw)
                    text = _accepted(fittings[feed], record)
                    meant = feed
                    # a file of which nothing was accepted may have landed as the wrong feed: then its fields decide
                    if text is None and record is not None and sha256 in fruitless:
                        spoken_for = feeds_of(record.members, CONTRACTS)
                        meant = spoken_for.pop() if len(spoken_for) == 1 else feed
                        text = _accepted(fittings[meant], record)
                    if text is not None:
                        # the file's content first: rows of many files share one spool
                        streams[meant].write(b'{"_file":"' + sha256.encode() + b'",' + text[1:])
                        landed.setdefault((sha256, file, feed, meant), []).append(offset)
            finally:
                for stream in streams.values():
                    stream.close()
            total = self.total()
            moved = sum(len(offsets) for offsets in landed.values())
            gone_too = sum(len(offsets) for offsets in barred.values())
            # without a change no table gets a commit
            if not moved and not gone_too:
                return Relanded(0, total)
            appends = {
                CONTRACTS[feed].table: _write(engine, CONTRACTS[feed].table, _lines(feed, path), batch)
                for feed, path in lines.items()
                if path.stat().st_size
            }
            gone = ((s, o) for (s, *_), offsets in [*landed.items(), *barred.items()] for o in offsets)
            # a relation: as values in the statement, 200,000 of them take nine times the CPU
            engine.insert_rows("gone", {"sha256": "varchar", "offset": "bigint"}, gone)
            stay = 'select * from quarantine where (sha256, "offset") not in (select sha256, "offset" from gone)'
            # as a whole, in the same batch: a record is in one of the two tables at any moment
            kept = _write(engine, "quarantine", stay, batch)
            # the counts of each file's first landing stay; moved records are added to them
            moves = [
                LandedFile(file, feed, sha256, 0, 0, 0, -len(offsets), len(offsets), already_landed=True)
                for (sha256, file, feed), offsets in barred.items()
            ]
            for (sha256, file, feed, meant), offsets in landed.items():
                count = len(offsets)
                other = 0 if meant == feed else count
                moves.append(LandedFile(file, meant, sha256, 0, other, count, other - count, 0, already_landed=True))
                if other:  # a feed's sums come out, too
                    moves.append(LandedFile(file, feed, sha256, 0, -count, 0, -count, 0, already_landed=True))
            ledger = rows.ledger(moves, batch.id, int(time.time() * 1000))
            appends["landed_files"] = _write(engine, "landed_files", ledger, batch)
        batch.commit(self._key(), appends, {"quarantine": kept})
        return Relanded(moved, total - moved - gone_too)

    def _without_erased(self) -> Callable[[bytes], bytes | None]:
        """Returns a function that returns a record as it may land, or None if it belongs to an erased customer."""
        if not tombstones.any_of(self._root):
            return lambda raw: raw
        key = self._key()
        known = tombstones.read(self._root, key)
        return lambda raw: known.without_erased(key, raw)

    def _engine(self) -> DuckDB:
        engine = DuckDB.of(self._config, durable.scratch(self._root) / "quarantine")
        engine.bind_files("quarantine", self._catalog.files(self._catalog.table("quarantine")))
        return engine


def faults(engine: DuckDB) -> tuple[tuple[Fault, ...], int]:
    """Returns what `Quarantine.faults` does.

    Args:
        engine: A session in which the quarantine is bound.
    """
    fittings = {feed: Conformer(contract) for feed, contract in CONTRACTS.items()}
    found: Counter[tuple[str, str, str]] = Counter()
    looks: dict[tuple[str, str, str], Counter[str]] = {}
    looked_at = 0
    sql = "select feed, reason, case when octet_length(raw) = raw_size then raw end from quarantine"
    for feed, reason, raw in engine.rows(f'{sql} order by file, sha256, "offset" limit {LOOKED_AT}'):
        looked_at += 1
        record = _record(bytes(raw)) if raw is not None and feed in fittings else None
        wrong = fittings[feed].faults(record.members) if record else {}
        names = [name for name, (why, _) in wrong.items() if why == reason] or [""]
        found.update((reason, feed, name) for name in names)
        for name in filter(None, names):
            looks.setdefault((reason, feed, name), Counter())[wrong[name][1]] += 1
    ordered = sorted(found.items(), key=lambda item: (-item[1], item[0]))
    told = []
    for what, count in ordered:
        field = CONTRACTS[what[1]].field(what[2]) if what[2] else None
        kinds = ", ".join(look for look, _ in looks.get(what, Counter[str]()).most_common())
        told.append(Fault(*what, count, field.expected if field else "", kinds))
    return tuple(told), looked_at


def _write(engine: DuckDB, table: str, sql: str, batch: journal.Commit) -> tuple[DataFile, ...]:
    return engine.write(table, sql, batch.folder(table))


def _record(raw: bytes) -> reader.ParsedRecord | None:
    """Returns the one record that a quarantined record's bytes are, if they are one."""
    if not raw.startswith(b"{"):
        return None  # brackets were part of the record, not of a file around it
    found = list(reader.iter_values(io.BytesIO(raw), reader.Limits()))
    return found[0] if len(found) == 1 and isinstance(found[0], reader.ParsedRecord) else None


def _accepted(fitting: Conformer, record: reader.ParsedRecord | None) -> bytes | None:
    """Returns a record's clean line, in the contract's own spelling, if the contract accepts it now, else None."""
    if record is None:
        return None
    line = fitting.line(record.members, record.raw)
    return None if isinstance(line, Reason) else line + b"\n"


def _lines(feed: str, path: Path) -> str:
    columns = [column for column in COLUMNS[CONTRACTS[feed].table] if column.name != "_file"]
    types = ", ".join(f"{literal(column.name)}: {literal(DUCKDB_TYPES[column.type])}" for column in columns)
    return (
        f"select * from read_json({path_literal(str(path))}, format = 'newline_delimited', "
        f"hive_partitioning = false, columns = {{_file: 'VARCHAR', {types}}}, maximum_object_size = {rows.LINE})"
    )
