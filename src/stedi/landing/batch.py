"""Lands deliveries, a batch at a time: one batch is one commit.

Every file is hashed (`inspect`). A file that has landed before is skipped; any other is scanned into rows and rejects
(`scan`). Without a scanner, DuckDB's typed reader reads clean files directly, and the record reader first rewrites the
others. A batch of files is committed through a journal, the ledger last. With workers on other machines, `distribute`
lets them do everything but the commit.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Event

from stedi._frozen import dataclass, replace
from stedi.catalog import orphans
from stedi.context import Context
from stedi.context.progress import Progress, silent
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.engines.workers import Workers
from stedi.errors import UnreadableFile, many
from stedi.landing import distribute, journal, rows, unread, withdrawal, writing
from stedi.landing.deliveries import batches, local, remote
from stedi.landing.deliveries.local import Skipped
from stedi.landing.deliveries.remote import Arrival, Objects
from stedi.landing.inspect import Inspected, inspect
from stedi.landing.reader import Unit
from stedi.landing.rows import LandedFile
from stedi.landing.tombstone_filter import TombstoneFilter
from stedi.landing.unread import Unread
from stedi.landing.writing import Written
from stedi.privacy.pseudonyms import Key
from stedi.schema.feeds import CONTRACTS, CUSTOMER
from stedi.schema.tables import ZONES, DataFile
from stedi.storage import durable, s3

_BATCH_BYTES = 8 << 30
"""Bytes of files that one commit holds: a failure costs no more work than that."""


@dataclass(frozen=True, slots=True)
class OddInstants:
    """Instants of one field of one file that do not look like epoch milliseconds.

    Attributes:
        name: The file's name.
        field: The field's name.
        unit: The likely unit.
        records: How many records have one.
        quarantined: Whether those records were quarantined, or the field taken as absent.
    """

    name: str
    field: str
    unit: Unit
    records: int
    quarantined: bool


@dataclass(frozen=True, slots=True)
class Landing:
    """What one `land` did.

    Attributes:
        files: Every file that was read to its end.
        skipped: Every path that was not, and why.
        drift: By feed, how often records differed from the contract in a way that did not cost the record.
        odd: Instants that do not look like epoch milliseconds, by file and field.
        unread: Newly quarantined records of customers who consent: each may be a withdrawal.
    """

    files: tuple[LandedFile, ...]
    skipped: tuple[Skipped, ...]
    drift: Mapping[str, Mapping[str, int]]
    odd: tuple[OddInstants, ...] = ()
    unread: tuple[Unread, ...] = ()

    @property
    def seen(self) -> int:
        """Records in all files."""
        return sum(file.seen for file in self.files)

    @property
    def accepted(self) -> int:
        """Records that landed, now or before."""
        return sum(file.accepted for file in self.files)

    @property
    def quarantined(self) -> int:
        """Records in quarantine, now or before."""
        return sum(file.quarantined for file in self.files)

    @property
    def erased(self) -> int:
        """Records of erased customers, dropped."""
        return sum(file.erased for file in self.files)


def land(
    context: Context,
    key: Key,
    paths: Sequence[str | Path],
    *,
    feed: str | None = None,
    progress: Progress = silent,
    workers: Workers | None = None,
    among: Callable[[Path], bool] = lambda path: True,
) -> Landing:
    """Lands the new files among these paths; landing them again adds nothing. The caller holds the landing lock.

    Args:
        context: The lake.
        key: The lake's key, which identifies data of erased customers and seals journals.
        paths: Files, folders or globs.
        feed: The feed of all of them; by default from the names, then from the fields.
        progress: Called with the current step and its completed share.
        workers: Workers that read and write instead of this process; they must reach files and lake by the same paths.
        among: Decides whether a file in a folder is landed now; others are skipped silently.

    Raises:
        CommitConflict: Another program keeps changing the landing tables.
        LandingError: A file changed during the landing; nothing of its batch was landed.
    """
    catalog, config, root = context.catalog, context.config, context.root
    tombstone_filter = TombstoneFilter.of(root, key)
    tables = [name for name, zone in ZONES.items() if zone == "landing"]
    finish = partial(journal.finish, context)
    orphans.remove_abandoned(catalog, tables, config.grace_hours * 3600, finish=finish)
    # of landings that were killed: with the lock held nobody else is at work there
    shutil.rmtree(durable.scratch(root) / "landing", ignore_errors=True)
    landed: list[LandedFile] = []
    skipped: list[Skipped] = []
    drift: dict[str, dict[str, int]] = {}
    odd: list[OddInstants] = []
    refused: list[str] = []
    there = [path for path in paths if s3.is_remote(path)]
    here = [path for path in paths if not s3.is_remote(path)]
    # the lake may lie among the deliveries, and its own files are none
    inside = s3.is_remote(root)
    walked = list(local.walk(here, feed, avoid=None if inside else root))
    found = [item for item in walked if isinstance(item, local.Delivered) and among(item.path)]
    objects = Objects(root, [s3.at(path) for path in there], feed, avoid=root if inside else None)
    skipped += [*objects.skipped, *(item for item in walked if isinstance(item, Skipped))]
    landed += objects.known(catalog, partial(DuckDB.of, config, durable.scratch(root) / "landing" / "known"))
    for batch, fetched in (
        *((b, ()) for b in batches(found, _size, _BATCH_BYTES)),
        *(((), b) for b in objects.batches()),
    ):
        with journal.Commit(catalog) as commit:
            if commit.planned is not None:
                tombstone_filter = TombstoneFilter.of(root, key)  # read again: another process may have erased somebody
            run = _Batch(context, key, commit, progress, tombstone_filter, workers)
            done = run.land([*batch, *run.fetch(fetched)])
            # after the commit: what is noted is not fetched again
            objects.note(fetched, done)
            landed += done
        skipped += run.skipped
        odd += run.odd
        refused += [commit.id] if run.refused else []
        for name, counts in run.drift.items():
            sums = drift.setdefault(name, {})
            for what, count in counts.items():
                sums[what] = sums.get(what, 0) + count
    # a record that has landed may make the customer of a replayed withdrawal known
    if withdrawal.waits(root) and any(file.feed == CUSTOMER.feed for file in landed):
        withdrawal.repeat(context, key)
    lost: tuple[Unread, ...] = ()
    if refused:
        with context.temporary() as folder, DuckDB.of(config, folder) as engine:
            # after the last batch: who consents is decided by all that has landed
            lost = unread.unread(engine, catalog, refused, int(time.time() * 1000))
    return Landing(tuple(landed), tuple(skipped), drift, tuple(odd), lost)


class _Batch:
    """The files of one commit, from the first look to the ledger."""

    def __init__(
        self,
        context: Context,
        key: Key,
        commit: journal.Commit,
        progress: Progress,
        tombstone_filter: TombstoneFilter | None,
        workers: Workers | None,
    ) -> None:
        self.skipped: list[Skipped] = []
        self.drift: dict[str, dict[str, int]] = {}
        self.odd: list[OddInstants] = []
        self.refused = False
        """Whether records that may be a customer's word were quarantined."""
        self._catalog, self._config, self._commit = context.catalog, context.config, commit
        self._tombstone_filter, self._workers, self._key, self._progress = tombstone_filter, workers, key, progress

    def fetch(self, batch: Sequence[Arrival]) -> list[local.Delivered]:
        """Copies objects of S3 beside what this batch needs on its way; workers copy what they read themselves."""
        if not batch:
            return []
        if self._workers:
            return [arrival.delivered for arrival in batch]
        found = list(remote.fetch(batch, self._commit.scratch / "fetched", partial(self._progress, "fetch")))
        self.skipped += [item for item in found if isinstance(item, Skipped)]
        return [item for item in found if isinstance(item, local.Delivered)]

    def land(self, files: Sequence[local.Delivered]) -> list[LandedFile]:
        """Lands the files and returns what became of each."""
        with ExitStack() as stack:
            beside = stack.enter_context(ThreadPoolExecutor(1))
            # a bucket needs PyIceberg, which is imported while files are read and matched
            warm = beside.submit(self._catalog.warm)
            inspected = self._inspect(files)
            engine = stack.enter_context(DuckDB.of(self._config, self._commit.scratch / "spill"))
            # by content, under whatever name: a delivery that is repeated under another name adds nothing
            results, new, fruitless = self._told_apart(engine, inspected)
            if not new:
                return [results[file.sha256, file.delivered.name] for file in inspected]
            at = int(time.time() * 1000)
            written = self._write(engine, new, at)
            prepared, appends = written.prepared, dict(written.appends)
            for name, error in written.unreadable:
                self._skip(name, error)
            fresh = {
                ready.file.sha256: LandedFile(
                    ready.file.delivered.name, ready.file.contract.feed, ready.file.sha256, ready.file.size,
                    ready.counts.seen, ready.counts.accepted, ready.counts.quarantined, ready.counts.erased,
                    already_landed=False,
                )
                for ready in prepared
            }  # fmt: skip
            ahead = self._ahead(engine, appends.get(CUSTOMER.table, ()), at)
            # counts and quarantined records of a file that had landed as the wrong feed leave in the same commit
            undone = [
                replace(fruitless[sha256], name=file.name) for sha256, file in fresh.items() if sha256 in fruitless
            ]
            replaces = self._without(engine, undone, appends)
            if fresh:  # last, so that it vouches for the rest
                ledger = rows.ledger([*fresh.values(), *map(_undone, undone)], self._commit.id, at)
                appends["landed_files"] = engine.write("landed_files", ledger, self._commit.folder("landed_files"))
            warm.result()
            self._progress("commit", None)
            self._commit.commit(self._key, appends, replaces)
            if self._workers:
                self._commit.remove_strays([*appends.values(), *replaces.values()])
        for ready in prepared:
            counts = self.drift.setdefault(ready.file.contract.feed, {})
            for what, count in ready.counts.drift.items():
                counts[what] = counts.get(what, 0) + count
            name = ready.file.delivered.name
            self.odd += [
                OddInstants(name, *what[:2], count, what[2]) for what, count in sorted(ready.counts.units.items())
            ]
            self.refused |= ready.counts.quarantined > 0
        if ahead:
            self.drift.setdefault(CUSTOMER.feed, {})["lastUpdateDate: in_the_future"] = ahead
        landed, told = [], set[str]()
        for file in inspected:
            key = (file.sha256, file.delivered.name)
            if key in results:
                landed.append(results[key])
            elif file.sha256 in fresh:
                # the second of two equal files in one landing is as one that had landed before
                again = file.sha256 in told
                landed.append(replace(fresh[file.sha256], name=file.delivered.name, already_landed=again))
                told.add(file.sha256)
        return landed

    def _inspect(self, files: Sequence[local.Delivered]) -> list[Inspected]:
        if self._workers is None:
            return self._look(files)
        inspected = []
        looked = distribute.inspect_all(self._workers, files, partial(self._progress, "read and check"))
        for file, found in zip(files, looked, strict=True):
            if isinstance(found, UnreadableFile):
                self._skip(file.name, found)
            else:
                inspected.append(found)
        return inspected

    def _look(self, files: Sequence[local.Delivered]) -> list[Inspected]:
        threads, stop = self._config.threads, Event()
        inspected = []
        # two pools: readers wait for verifiers, and in one pool all threads might be readers that wait
        with ThreadPoolExecutor(threads) as verifiers, ThreadPoolExecutor(threads) as readers:
            try:
                futures = [readers.submit(inspect, file, verifiers, stop) for file in files]
                for done, future in enumerate(futures, start=1):
                    try:
                        inspected.append(future.result())
                    except UnreadableFile as error:
                        self._skip(files[done - 1].name, error)
                    self._progress(f"read and check, {done:,} of {many(len(files), 'file')}", done / len(files))
            except BaseException:
                # the threads are waited for; an interrupted user should not have to wait
                stop.set()
                readers.shutdown(wait=False, cancel_futures=True)
                raise
        return inspected

    def _skip(self, name: str, error: UnreadableFile) -> None:
        self.skipped.append(Skipped(name, str(error).removeprefix(f"{name}: "), True, error.passing))

    def _told_apart(
        self, engine: DuckDB, inspected: Sequence[Inspected]
    ) -> tuple[dict[tuple[str, str], LandedFile], list[Inspected], dict[str, LandedFile]]:
        """Returns what was landed before, and the rest, each content once.

        Those of the rest that landed as another feed without any accepted record are returned as they were landed then,
        by SHA-256.
        """
        engine.bind_files("landed_files", self._catalog.files(self._catalog.table("landed_files")))
        known = rows.landed(engine, [file.sha256 for file in inspected])
        results: dict[tuple[str, str], LandedFile] = {}
        new: dict[str, Inspected] = {}
        fruitless: dict[str, LandedFile] = {}
        for file in inspected:
            before = known.get(file.sha256)
            if before is not None and before.fruitless and before.feed != file.contract.feed:
                fruitless[file.sha256] = before
                new.setdefault(file.sha256, file)
            elif before is not None:
                results[file.sha256, file.delivered.name] = replace(before, name=file.delivered.name)
            else:
                new.setdefault(file.sha256, file)
        return results, list(new.values()), fruitless

    def _without(
        self, engine: DuckDB, undone: Sequence[LandedFile], appends: dict[str, tuple[DataFile, ...]]
    ) -> dict[str, tuple[DataFile, ...]]:
        """Returns the quarantine's files without the records of some earlier landings, if there are any.

        They include the batch's own rejects, which are then not appended separately: a table changes once.
        """
        if not undone:
            return {}
        engine.bind_files("quarantine", self._catalog.files(self._catalog.table("quarantine")))
        gone = ", ".join(literal(file.sha256) for file in undone)
        folder = self._commit.folder("quarantine", f"{self._commit.id}-stay")
        stay = engine.write("quarantine", f"select * from quarantine where sha256 not in ({gone})", folder)
        return {"quarantine": (*stay, *appends.pop("quarantine", ()))}

    def _ahead(self, engine: DuckDB, files: Sequence[DataFile], at: int) -> int:
        """Returns how many of the customer records that the batch adds are from the future (rule 3)."""
        # the bounds of a file's column tell without reading it, which most never need
        later = [file for file in files if int(file.bounds.get("lastUpdateDate", ("", "0"))[1]) > at]
        if not later:
            return 0
        engine.bind_files(f"{CUSTOMER.table}__later", later, table=CUSTOMER.table)
        [(count,)] = engine.rows(f"select count(*) from {CUSTOMER.table}__later where lastUpdateDate > {at}")
        return int(count)

    def _write(self, engine: DuckDB, new: Sequence[Inspected], at: int) -> Written:
        """Writes what files bring, here or on the workers, each with a share of the files."""
        batch, commit, config = writing.Batch(self._commit.id, at, self._tombstone_filter), self._commit, self._config
        if self._workers is None:
            return writing.write(
                engine, new, batch, commit.scratch, commit.folder, threads=config.threads, progress=self._progress
            )
        folders = {table: commit.folder(table) for table in (*map(_table, CONTRACTS), "quarantine")}
        # workers only ever add folders of their attempts inside of these
        for folder in folders.values():
            durable.folder(folder)
        shares = distribute.shares(self._workers, new, batch, folders, config.engine_memory)
        written = self._workers.map(distribute.write, shares, partial(self._progress, "write"))
        tables = sorted({table for part in written for table in part.appends})
        return Written(
            tuple(ready for part in written for ready in part.prepared),
            {table: tuple(file for part in written for file in part.appends.get(table, ())) for table in tables},
            tuple(lost for part in written for lost in part.unreadable),
        )


def _size(file: local.Delivered) -> int:
    return file.path.stat().st_size if file.path.exists() else 0


def _undone(file: LandedFile) -> LandedFile:
    """Returns the ledger's entry that takes an earlier landing's counts back."""
    return replace(file, size=0, seen=-file.seen, quarantined=-file.quarantined, erased=-file.erased)


def _table(feed: str) -> str:
    return CONTRACTS[feed].table
