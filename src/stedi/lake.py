"""A lake, from Python: one folder, opened, and the verbs that the command line has.

Each verb is one call into the module that does the work; the lake only knows where things lie.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, get_args
from weakref import WeakSet

from stedi.catalog import Catalog, Snapshot, TableState, orphans, time_travel
from stedi.context import Context, access, found, milliseconds, places, runs
from stedi.context.progress import Progress
from stedi.engines import Name
from stedi.errors import CommitConflict, CopiedLake, LakeBusy, QueryRefused, StediError, UsageError
from stedi.privacy import key_change, receipts, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema import tables
from stedi.schema.roles import Readings, Role
from stedi.schema.tables import ALL_ZONES, DUCKDB_TYPES, ZONES
from stedi.storage import destinations, durable, s3
from stedi.storage.config import Config

if TYPE_CHECKING:
    from threading import Event

    from stedi.audit.consent_history import By, ConsentHistory
    from stedi.audit.explain import ExplainedRows, Explanation
    from stedi.audit.integrity import Check
    from stedi.audit.proof import Proof
    from stedi.audit.record import FullAudit
    from stedi.audit.risk import Risk
    from stedi.context.access import Access, Note
    from stedi.context.runs import Run
    from stedi.datasets.comparison import Diff
    from stedi.datasets.creation import Preview
    from stedi.datasets.dataset import Dataset
    from stedi.datasets.manifest import Release
    from stedi.datasets.options import Options
    from stedi.datasets.recalls import Recall
    from stedi.datasets.registry import Entry
    from stedi.engines.workers import Workers
    from stedi.erasure.replay import Replay
    from stedi.erasure.report import ErasurePreview, Receipt, ReceiptCheck
    from stedi.landing import Landing
    from stedi.landing.quarantine import Quarantine
    from stedi.landing.withdrawal import Withdrawal, WithdrawalPreview
    from stedi.maintenance import Maintenance
    from stedi.maintenance.adoption import Adoption
    from stedi.maintenance.key_rotation import Rotation
    from stedi.maintenance.repair import Repair
    from stedi.maintenance.tags import Tag
    from stedi.operations.migration import Migration
    from stedi.operations.status import Status
    from stedi.operations.watch import Round
    from stedi.query import Limits, Parameters, QueryTable, Result
    from stedi.report.content import Report
    from stedi.report.export import Export
    from stedi.transform import Build, Withheld
    from stedi.transform.previewing import Plan


Verb = TypeVar("Verb", bound=Callable[..., Any])

_REGISTRY = "releases"
"""The table that a lake has from its first release on."""


def _unread(landing: Landing) -> str:
    failed = sum(skipped.failed for skipped in landing.skipped)
    return f"delivered files that could not be read: {failed:,}" if failed else ""


def _exported(done: Export) -> int:
    return sum(each.records + each.accelerometer + each.step_trainer + each.quarantined for each in done.customers)


def _violated(audit: FullAudit) -> str:
    broken = sorted({check.name for check in audit.checks if check.violations})
    return f"checks that do not hold: {', '.join(broken)}" if broken else ""


def _recorded(
    command: str, rows: Callable[[Any], int | None] = lambda done: None, wrong: Callable[[Any], str] = lambda done: ""
) -> Callable[[Verb], Verb]:
    """Has a verb keep its runs in the lake's history, but those that only say what they would do.

    Args:
        command: What the history calls it.
        rows: How many rows its result counts.
        wrong: What is wrong with its result, in words; nothing if it is as it should be.
    """

    def kept(verb: Verb) -> Verb:
        @wraps(verb)
        def run(lake: Lake, *arguments: Any, **options: Any) -> Any:
            if options.get("dry_run"):
                return verb(lake, *arguments, **options)
            with runs.recorded(lake.context, command) as end:
                done = verb(lake, *arguments, **options)
                end(done, rows(done), wrong(done))
            return done

        return cast(Verb, run)

    return kept


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a lake, as it is now.

    Attributes:
        name: Its name.
        zone: Its zone.
        rows: Rows.
        bytes: Size of its current data files.
        snapshot: Id of the snapshot that readers see.
        updated: When that became current, UTC.
    """

    name: str
    zone: str
    rows: int
    bytes: int
    snapshot: int | None
    updated: datetime | None


class Lake:
    """A lake folder that exists; `Lake.open` and `Lake.create` give one.

    A lake holds nothing open between two verbs. As a context manager it ends, with the block, queries that still run.

    Example:
        >>> lake = stedi.Lake.open("lake")
        >>> lake.land("inbox")
        >>> lake.build()
        >>> lake.query("select count(*) from machine_learning_curated").arrow()
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        """Where it lies, its settings, catalog and key, and what every verb that writes does first."""
        self._results: WeakSet[Result] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for result in list(self._results):
            result.close()

    def __repr__(self) -> str:
        return f"<stedi.Lake {str(self.root)!r}: id {self.config.lake_id}, readings {self.config.readings}>"

    def _repr_html_(self) -> str:
        """Returns the lake's tables as HTML, for a notebook; what is wrong with it, if they cannot be read."""
        from stedi.query import notebook

        try:
            found = [(t.zone, t.name, f"{t.rows:,}", t.updated) for t in self.tables()]
        except StediError as error:
            return notebook.paragraph(repr(self)) + notebook.paragraph(str(error))
        return notebook.table(("zone", "table", "rows", "updated"), found, repr(self))

    @property
    def root(self) -> Path:
        """The folder, or prefix in S3."""
        return self.context.root

    @property
    def config(self) -> Config:
        """Its settings."""
        return self.context.config

    @property
    def catalog(self) -> Catalog:
        """Its tables."""
        return self.context.catalog

    def key(self) -> Key:
        """Returns the lake's pseudonym key.

        Raises:
            KeyRefused: It is missing, or is not the key that this lake was made with.
        """
        return self.context.key()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a lake; one that was copied or moved, and not adopted, only for reading: verbs that write refuse it.

        Args:
            path: The lake's folder.

        Raises:
            LakeError: There is no lake, or something of it leads elsewhere.
            ConfigError: Its settings are not what is known.
        """
        return cls(Context.open(path))

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        readings: Readings = "all",
        key_file: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Makes a lake: settings, catalog and, unless the environment has one, a pseudonym key outside of it.

        Args:
            path: A folder that is empty or not there yet.
            readings: Which readings of a consenting customer are used (rule 4 of consent).
            key_file: Where the key is, or is to be made; by default in the user's configuration folder.

        Raises:
            UsageError: The folder holds something else, or a lake, or its path cannot be a table's location.
            KeyRefused: No key can be made or read.
        """
        from stedi.context import creation

        began = datetime.now(UTC)
        creation.make(path, readings, key_file)
        lake = cls.open(path)
        with runs.recorded(lake.context, "init", began=began):
            return lake

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], *, made: Callable[[Self], None] = lambda lake: None) -> Self:
        """Opens a lake, or makes one with the defaults where there is none yet.

        Args:
            path: The lake's folder.
            made: Called with the lake if it is new.
        """
        settings_file = places.named(path) / "lake.toml"
        if not settings_file.is_file():
            try:
                lake = cls.create(path)
            except UsageError:
                if not settings_file.is_file():  # or another command made it meanwhile
                    raise
            else:
                made(lake)
                return lake
        return cls.open(path)

    @classmethod
    def adopt(
        cls, path: str | os.PathLike[str], *, new_id: bool = False, progress: Progress = lambda what, share: None
    ) -> Adoption:
        """Makes a lake of its own of a folder that is a copy of a lake, or was moved; no other folder is written to.

        Args:
            path: The folder.
            new_id: Give it an id of its own, although the folder that it comes from is gone here: the lake lives on
                elsewhere.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What the folder is now.

        Raises:
            LakeError: It cannot be one; nothing was changed that anybody reads.
            KeyRefused: The lake's key is missing.
        """
        from stedi.maintenance import adoption

        began = datetime.now(UTC)
        root, config = found(path)
        done = adoption.adopt(root, config, Context(root, config).key(), new_id=new_id, progress=progress)
        if done.home != done.root:  # until then it could keep no history: it was another lake's copy
            with runs.recorded(Context.open(root), "adopt", began=began):
                pass
        return done

    @_recorded("land", lambda done: sum(f.accepted for f in done.files if not f.already_landed), _unread)
    def land(
        self,
        *paths: str | os.PathLike[str],
        feed: str | None = None,
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> Landing:
        """Lands what is new among the files of these paths; landing them again adds nothing.

        Args:
            paths: Files, folders or globs.
            feed: The feed of all of them: `customer`, `accelerometer` or `step_trainer`; told by names, then by
                fields, if it is not given.
            engine: With `spark` its executors read the files and write what lands; they must reach both by their paths.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What became of each file.
        """
        from stedi import landing

        with self.context.writing(*_CUT_OFF, progress=progress):
            key, places, workers = self.key(), [s3.at(path) for path in paths], self._workers(engine)
            return landing.land(self.context, key, places, feed=feed, progress=progress, workers=workers)

    @_recorded("land", lambda done: sum(f.accepted for f in done.files if not f.already_landed), _unread)
    def _land_among(self, inbox: Path, among: Callable[[Path], bool]) -> Landing:
        """Lands those files of a folder of which something says that they are ready."""
        from stedi import landing

        with self.context.writing(*_CUT_OFF):
            return landing.land(self.context, self.key(), [inbox], among=among)

    @_recorded("build", lambda done: sum(table.rows_added for table in done.tables))
    def build(
        self,
        *,
        full: bool = False,
        wait: bool = False,
        engine: Name = "duckdb",
        progress: Callable[[str], None] = lambda line: None,
    ) -> Build:
        """Brings every table below landing up to date.

        Args:
            full: Rebuild everything, whatever has changed.
            wait: Wait for another build that is running, rather than leave; for maintenance, which holds a table
                for moments, it waits in any case.
            engine: What computes the tables: DuckDB on this machine, or Spark; builds by both may follow each other.
            progress: Told each stage of the work.

        Returns:
            What was done to each table.

        Raises:
            AuditFailed: A table would break a rule; nothing was published.
            LakeBusy: Another build is running, and `wait` is False; nothing was done.
        """
        from stedi import transform

        with self._building(wait=wait, progress=progress) as key:
            before = self.catalog.table("customers_trusted") if self._has_releases() else None
            done = transform.build(self.context, key, full=full, progress=progress, engine=engine)
            return replace(done, stale=self._left_by(key, before)) if before and done.run else done

    @contextmanager
    def _building(self, *, wait: bool, progress: Callable[[str], None]) -> Iterator[Key]:
        """Finishes interrupted work, then keeps other builds waiting while a block runs; yields the key."""
        with self.context.writing(*_CUT_OFF, progress=lambda what, share: progress(what)):
            key = self.key()  # before a lock's file is made
            with durable.lock(
                self.root / "build.lock",
                wait=wait or durable.is_held(self.root / "maintain.lock"),
                waiting=lambda: progress("waiting for another build"),
                advice="wait for it with wait=True, or run this again when it has ended",
            ):
                key_change.refuse_other(self.root, self.config.key_fingerprint)
                tombstones.refuse_unfinished(self.root)
                _finish_landings(self.context)
                _land_what_waits(self.context, key)
                grace = self.config.grace_hours * 3600
                orphans.remove_abandoned(self.catalog, [table.name for table in tables.graph().tables()], grace)
                yield key

    @_recorded("dataset create", lambda made: made.rows)
    def create_dataset(
        self,
        name: str,
        options: Options | None = None,
        *,
        output: str | os.PathLike[str] | None = None,
        progress: Progress = lambda what, share: None,
        **words: Any,
    ) -> Release:
        """Builds what is due, then writes the next version of a training set.

        Args:
            name: The training set, a folder's name.
            options: How it is made.
            output: A folder that is not there yet; by default `releases/NAME/VERSION` in the lake.
            progress: Told what is being done and the share of it that is done.
            words: In place of `options`, each of them by name, as `window="10s"`.

        Returns:
            The release, as it lies in its folder.

        Raises:
            UsageError: An option is off, or something stands where the release is to lie; nothing was done.
            AuditFailed: Somebody would be in it who may not be, or in two splits; nothing was written.
        """
        from stedi import transform
        from stedi.datasets import creation
        from stedi.datasets.options import Options, refuse_name

        chosen = Options.parse(**words) if options is None else options
        refuse_name(name)
        with self._building(wait=True, progress=lambda line: progress(line, None)) as key:
            transform.build(self.context, key, progress=lambda line: progress(line, None))
            with access.noted(self.context, "dataset", must=False) as note:  # which the lake knows anyway
                made = creation.create(self.context, name, chosen, output=output, progress=progress)
                note.rows = made.rows
        return made

    def preview_dataset(self, name: str, options: Options | None = None, **words: Any) -> Preview:
        """Returns what `create_dataset` would make of the tables as they are, and its use; changes nothing.

        Args:
            name: The training set.
            options: How it would be made.
            words: In place of `options`, each of them by name, as `window="10s"`.

        Raises:
            UsageError: An option is off.
        """
        from stedi.datasets import creation
        from stedi.datasets.options import Options

        chosen = Options.parse(**words) if options is None else options
        return creation.preview(self.context, name, chosen)

    @_recorded("dataset refresh", lambda made: made.rows)
    def refresh_dataset(
        self,
        name: str,
        *,
        labels: str | os.PathLike[str] | None = None,
        output: str | os.PathLike[str] | None = None,
        progress: Progress = lambda what, share: None,
    ) -> Release:
        """Writes the next version of a training set under the options of the last one, without those who have left.

        Everybody else stays in their split.

        Args:
            name: The training set.
            labels: The file of labels, if it is not where it was.
            output: As for `create_dataset`.
            progress: Told what is being done and the share of it that is done.

        Raises:
            UsageError: There is no release of that name, or its file of labels is not there any more.
        """
        from stedi.datasets import creation

        options = creation.again(self.context, self._release(name, deleted=True), labels)
        return self.create_dataset(name, options, output=output, progress=progress)

    def datasets(self, *, stale: bool = False) -> tuple[Release, ...]:
        """Returns the releases of the lake, with the subjects of each who may no longer be used.

        Args:
            stale: Only those that have some.
        """
        from stedi.datasets import registry, staleness

        every = [entry for entry in registry.releases(self.context) if not entry.deleted]
        if not every:
            return ()
        found = staleness.stale(self.context, self.key(), milliseconds(datetime.now(UTC)), every)
        shown = (registry.shown(entry, found.get(entry.release, ())) for entry in every)
        return tuple(release for release in shown if release.stale or not stale)

    def release(self, named: str) -> Release:
        """Returns a release by `NAME@VERSION`, or the newest of a name, with its subjects who may no longer be used.

        Raises:
            UsageError: There is none.
        """
        from stedi.datasets import registry, staleness

        entry = self._release(named)
        found = staleness.stale(self.context, self.key(), milliseconds(datetime.now(UTC)), [entry])
        return registry.shown(entry, found.get(entry.release, ()))

    def dataset(self, named: str) -> Dataset:
        """Opens a release by `NAME@VERSION`, or the newest of a name, to be read.

        Raises:
            UsageError: There is none, or its folder is not where it was written.
        """
        from stedi.datasets.dataset import Dataset

        return Dataset.open(self._release(named).path)

    @_recorded("dataset note")
    def note_dataset(self, named: str, *, model: str) -> None:
        """Notes that a model was trained on a release, in one line of text.

        Raises:
            UsageError: There is no such release, or the text is none.
        """
        from stedi.datasets import registry

        with self._registering():
            registry.note(self.context, self._release(named), model)

    @_recorded("dataset delete")
    def delete_dataset(self, named: str) -> Release:
        """Removes a release's folder from the lake; who was in it stays known, so that it can still be recalled.

        Args:
            named: `NAME@VERSION`.

        Returns:
            The release as it was; where it lay outside of the lake, its folder is still there.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import registry

        if "@" not in named:
            raise UsageError("the release: expected NAME@VERSION, found no version")
        with self._registering():
            entry = self._release(named, deleted=True)
            registry.delete(self.context, entry)
        return registry.shown(entry)

    @_recorded("dataset recall")
    def recall_dataset(self, named: str) -> Recall:
        """Returns the signed recall of a release: whom whoever holds a copy of it has to drop, and nothing else.

        Args:
            named: `NAME@VERSION`; of a deleted one, too.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import recall

        with self._registering() as key:
            entry = self._release(named, deleted=True)
            return recall.write(self.context, key, entry, milliseconds(datetime.now(UTC)))

    def diff_datasets(self, one: str, other: str) -> Diff:
        """Returns how two releases differ: people, splits, rows, options.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import comparison

        first, second = (self._release(named, deleted=True) for named in (one, other))
        return comparison.diff(self.context, self.key(), first, second)

    def _release(self, named: str, *, deleted: bool = False) -> Entry:
        """Returns what the lake knows of a release."""
        from stedi.datasets import registry

        return registry.find(self.context, named, deleted=deleted)

    def _has_releases(self) -> bool:
        """Says whether the lake has ever made a release."""
        return _REGISTRY in self.catalog.listed()

    def _left_by(self, key: Key, before: TableState) -> tuple[str, ...]:
        """Returns the releases that hold somebody who is no longer in `customers_trusted`."""
        from stedi.datasets import staleness

        return staleness.left_by(self.context, key, before, self.catalog.table(before.name))

    def _holding(self, key: Key, addresses: Iterable[str]) -> tuple[str, ...]:
        """Returns the releases that hold one of some customers."""
        if not self._has_releases():
            return ()
        from stedi.datasets import staleness

        return staleness.naming(self.context, key, dict.fromkeys(tombstones.persons(key, addresses), 0))

    @contextmanager
    def _registering(self) -> Iterator[Key]:
        """Holds off builds for a block that writes what the lake knows of its releases; gives the key."""
        with self.context.writing(*_CUT_OFF):
            key = self.key()
            with durable.commands(self.root, ["build"], lambda what: None):
                key_change.refuse_other(self.root, self.config.key_fingerprint)
                tombstones.refuse_unfinished(self.root)
                yield key

    def plan(self, *, full: bool = False) -> Plan:
        """Returns what `build` would do to each table, why, and which customers would come and go; changes nothing.

        Args:
            full: As for `build`.
        """
        from stedi import transform

        now, key = int(datetime.now(UTC).timestamp() * 1000), self.key()
        key_change.refuse_unfinished(self.root)
        return transform.preview(self.context, key, now, full=full)

    @_recorded("maintain")
    def maintain(
        self,
        *,
        dry_run: bool = False,
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> Maintenance:
        """Compacts small files, expires old snapshots and removes what nothing uses; no row changes.

        Args:
            dry_run: Only say what would be done.
            engine: With `spark` its executors rewrite the small files.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What was done, or would be, to each table.
        """
        from stedi import maintenance

        with self.context.writing(*(() if dry_run else _CUT_OFF), progress=progress):
            workers = None if dry_run else self._workers(engine)
            return maintenance.maintain(self.context, dry_run=dry_run, progress=progress, workers=workers)

    def snapshots(
        self, sql: str, at: int | str | datetime, *, role: Role | None = None, as_published: bool = False
    ) -> dict[str, int]:
        """Returns the snapshot that a SELECT is to read of each table that it names, by the table, as of a time.

        It is for engines that read the tables by themselves, and leave nobody's rows out.

        Args:
            sql: The SELECT, in DuckDB's dialect.
            at: A tag, a snapshot's id, or a time (ISO 8601; UTC unless it says otherwise).
            role: Whose eyes it has; by default the settings' `query.role`.
            as_published: With the role officer: tables below landing, too.

        Raises:
            UsageError: A table has no live snapshot of that time, or rows of who does not consent now would be shown.
        """
        from stedi import query
        from stedi.query import withdrawn

        if as_published:
            _refuse_as_published(role or self.config.query_role, at)
        wanted = query.referenced_tables(sql, self._limits(), durable.scratch(self.root))
        states = [state for state in self.catalog.tables().values() if state.name in wanted]
        below = [state.name for state in states if withdrawn.concerns(state.name)]
        if below and not as_published:
            raise UsageError(
                f"expected tables of the landing zone, found {', '.join(below)}: Athena would show rows of people "
                "who no longer consent; use --engine duckdb, or as officer --as-published",
                argument="at",
            )
        found = zip(states, time_travel.pinned(states, at), strict=True)
        return {state.name: snapshot.id for state, snapshot in found if snapshot}

    def query(
        self,
        sql: str,
        *,
        parameters: Parameters | None = None,
        at: int | str | datetime | None = None,
        as_published: bool = False,
        role: Role | None = None,
    ) -> Result:
        """Runs one SELECT over the lake's tables, read-only and out of reach of anything else.

        Args:
            sql: The SELECT, in DuckDB's dialect.
            parameters: Values of its parameters, a list for `?` or a mapping for `$name`: None, bool, numbers, texts,
                instants and dates. They are bound as values, and are never a part of the statement.
            at: A tag, a snapshot's id, or a time (ISO 8601; UTC unless it says otherwise): the tables as they were
                then, those below landing without the rows of who does not consent now.
            as_published: With `at` and the role officer: their rows, too.
            role: Whose eyes it has: other tables are not there for it, and columns that it must not see are null;
                by default the settings' `query.role`.

        Returns:
            A result that gives all rows by `.arrow()`, `.df()` (pandas), `.pl()` (Polars) or `.fetchall()`, or batch by
            batch by `.reader()` or in a loop; `.masked` and `.left_out` say what the answer lacks.

        Raises:
            KeyRefused: Who consents now cannot be told without the lake's key.
            QueryRefused: It is not one SELECT over the lake's tables.
            QueryFailed: It ran out of time or memory, or a value in it failed.
        """
        eyes = role or self.config.query_role
        if as_published:
            _refuse_as_published(eyes, at)
        verb = "query as published" if as_published else "query"
        note = access.Note(self.context, verb, role=eyes, must=eyes == "officer")
        return self._query(sql, note, at=at, role=eyes, parameters=parameters, as_published=as_published)

    def _query(
        self,
        sql: str,
        note: Note | None,
        *,
        at: int | str | datetime | None = None,
        role: Role,
        condition: bool = False,
        parameters: Parameters | None = None,
        as_published: bool = False,
    ) -> Result:
        from stedi import query

        key_change.refuse_unfinished(self.root)
        seen = partial(self._seen_by, role, at, places=condition, note=note, as_published=as_published)
        folder, ended = durable.scratch(self.root), note.end if note else lambda how, rows: None
        result = query.run(sql, seen, self._limits(), folder, condition=condition, parameters=parameters, ended=ended)
        self._results.add(result)
        return result

    def _limits(self) -> Limits:
        from stedi import query

        return query.Limits(
            memory=self.config.query_memory, seconds=self.config.query_seconds, threads=self.config.threads
        )

    def _seen_by(
        self,
        role: Role,
        at: int | str | datetime | None,
        names: frozenset[str],
        *,
        places: bool,
        note: Note | None = None,
        as_published: bool = False,
    ) -> list[QueryTable]:
        """Returns the tables of these names as a role sees them, and notes that they are looked at.

        As they were, they are without the rows of who does not consent now, but `as_published`.

        Raises:
            KeyRefused: Who consents now cannot be told without the lake's key.
            UsageError: There is no such role, or a table has no live snapshot of that time.
            QueryRefused: The role does not see a table.
            LakeError: It cannot be noted, and must be.
        """
        from stedi import query
        from stedi.schema import classification, roles

        if role not in roles.GRANTS:
            raise UsageError(f"expected one of {', '.join(roles.GRANTS)}, found {role!r}", argument="role")
        grant = roles.GRANTS[role]
        states = [state for state in self.catalog.tables().values() if state.name in names]
        hidden = [state.name for state in states if state.name not in grant.tables]
        if hidden:
            raise QueryRefused(
                f"The role {role} may query {', '.join(sorted(grant.tables))}, found {', '.join(hidden)}. Nothing "
                "was run."
            )
        relations = []
        pinned = list(zip(states, time_travel.pinned(states, at), strict=True))
        without: Mapping[str, Mapping[str, int]] = {}
        if at is not None and not as_published:
            from stedi.query import withdrawn

            now = milliseconds(datetime.now(UTC))
            without = withdrawn.left_out(self.context, pinned, now)
        if note is not None:
            note.tables = {state.name: snapshot.id if snapshot else None for state, snapshot in pinned}
            note.begin()
        for state, snapshot in pinned:
            columns = tuple((column.name, DUCKDB_TYPES[column.type]) for column in state.columns)
            files = tuple(file.path for file in self.catalog.files(state, snapshot)) if snapshot else ()
            kinds = classification.classes(tables.graph(), state.name) if grant.masked else {}
            masked = frozenset(name for name, kind in kinds.items() if kind in grant.masked)
            people = without.get(state.name, {})
            relations.append(query.QueryTable(state.name, files, columns, masked, places, people))
        return relations

    def explain_rows(self, table: str, where: str, *, role: Role | None = None) -> ExplainedRows:
        """Explains the first rows of a table that meet a condition: whose they are, why they are there, and from where.

        Args:
            table: The table.
            where: What stands after WHERE; it runs in the same closed process as a query.
            role: Whose eyes the condition has: columns that it must not see are null there; by default the settings'
                `query.role`.

        Raises:
            UsageError: There is no such table.
            QueryRefused: The condition is not one, or reads a table that the role does not see.
            QueryFailed: It failed.
        """
        from stedi.audit import explain

        def run(role: Role, sql: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._query(sql, None, role=role, condition=True).arrow().to_pylist()
            return found

        eyes = role or self.config.query_role
        with access.noted(self.context, "explain", role=eyes) as note:
            rows, more = explain.chosen(table, where, partial(run, eyes), partial(run, "officer"))
            note.tables, note.rows = {self.catalog.table(table).name: None}, len(rows)
            since_consent = self.config.readings == "since-consent"
            with explain.session(self.context, self.catalog.tables()) as engine:
                now, key = milliseconds(datetime.now(UTC)), self.key()
                found = explain.explain_rows(engine, self.root, key, table, rows, now, since_consent=since_consent)
        return explain.ExplainedRows(table, found, more)

    def tables(self) -> tuple[Table, ...]:
        """Returns every table with its zone, rows, size and freshness, in the order in which data flow."""
        return tuple(_table(state) for state in self.catalog.tables().values())

    def contract(self, table: str | None = None) -> dict[str, Any]:
        """Returns the data contract of a table, or of all, as a document of the Open Data Contract Standard 3.2.

        Raises:
            UsageError: There is no such table.
        """
        from stedi.schema import descriptions, odcs

        known = self.catalog.listed()
        names = [name for name in ALL_ZONES if name in known] if table is None else [descriptions.named(table)]
        catalog = None if self.catalog.remote else str(self.catalog.path)
        return odcs.contract(
            names,
            lake_id=self.config.lake_id,
            server=odcs.server(str(self.root), catalog),
            keep_days=self.config.keep_days,
            history_days=self.config.history_days,
        )

    def history(self, table: str) -> tuple[Snapshot, ...]:
        """Returns a table's snapshots, newest first, with what each was built from.

        Raises:
            UsageError: There is no such table.
        """
        from stedi.schema import descriptions

        return self.catalog.table(descriptions.named(table)).history()

    @_recorded("tag")
    def tag(self, name: str, *, progress: Progress = lambda what, share: None) -> Tag:
        """Names the tables below landing as they are now, so that `at` reads them for as long as the tag is there.

        Args:
            name: The name: a letter, then up to 63 letters, digits, dots, underscores and hyphens.
            progress: Told what is waited for.

        Raises:
            UsageError: It is no name, or something else has it; nothing was tagged.
            LakeError: The tables are not of one state, since a build is due or was interrupted; nothing was tagged.
        """
        from stedi.maintenance import tags

        with self.context.writing(*_CUT_OFF, progress=progress):
            return tags.tag(self.catalog, self.root, name, progress)

    def tags(self) -> tuple[Tag, ...]:
        """Returns every tag of the lake's tables, oldest first, those that other programs have made too."""
        from stedi.maintenance import tags

        return tags.tags(self.catalog)

    @_recorded("tag --delete")
    def untag(self, name: str, *, progress: Progress = lambda what, share: None) -> Tag:
        """Takes a tag away; what it alone pinned goes with the next maintenance.

        Args:
            name: Its name.
            progress: Told what is waited for.

        Returns:
            What it named.

        Raises:
            UsageError: There is none of that name.
        """
        from stedi.maintenance import tags

        with self.context.writing(*_CUT_OFF, progress=progress):
            return tags.untag(self.catalog, self.root, name, progress)

    def status(self, *, max_age: timedelta = timedelta(hours=26), now: datetime | None = None) -> Status:
        """Returns what ran last, what waits for a build, and what is late or wrong; changes nothing.

        Args:
            max_age: How long ago the last landing and the last build may have ended, and how long something may wait.
            now: The instant; the clock's time by default.
        """
        from stedi.operations import status

        return status.status(self.context, max_age, now)

    def watch(
        self,
        inbox: str | os.PathLike[str],
        *,
        every: timedelta = timedelta(seconds=2),
        stop: Event | None = None,
    ) -> Iterator[Round]:
        """Lands the files of a folder as they stop growing, and builds, until it is stopped.

        Args:
            inbox: The folder, or a prefix in S3.
            every: The time between two looks at it.
            stop: Ends it when the round that is under way is done; without one, nothing does.

        Yields:
            Each round that did something, or failed and will be tried again.
        """
        from threading import Event

        from stedi import transform
        from stedi.operations import watch

        def anew() -> Lake:
            # whoever changed settings or key meanwhile is followed
            lake = Lake.open(self.root)
            lake.context.say, lake.context.observers = self.context.say, self.context.observers
            return lake

        def due() -> bool:
            lake = anew()
            steps = transform.plan(lake.catalog.tables(), lake.config, milliseconds(datetime.now(UTC)))
            return any(step.action != "none" for step in steps)

        folder = destinations.expanded(s3.at(inbox))
        if s3.is_remote(folder):
            s3.client()  # a missing extra is no outage that is waited for
        self._warm()
        return watch.watch(
            watch.Inbox(folder, self.root),
            land=lambda among: anew()._land_among(folder, among),
            build=lambda: anew().build(wait=True),
            due=due,
            every=every,
            stop=stop or Event(),
        )

    def _warm(self) -> None:
        """Does what the first landing and build of a process would have to, so that they are as quick as the next."""
        from stedi.engines.duckdb import DuckDB
        from stedi.transform import stage  # noqa: F401 - that is the work

        with suppress(StediError, OSError), self.context.temporary() as spill, DuckDB.of(self.config, spill) as engine:
            self.catalog.warm()
            for state in self.catalog.tables().values():
                if files := self.catalog.files(state):
                    engine.bind_files(state.name, files)
                    engine.rows(f"select count(*) from {state.name}")

    def runs(self) -> Iterator[Run]:
        """Yields the history of runs, newest first: what, when, how long, rows, outcome and error."""
        return runs.history(self.root)

    def log(self, since: datetime | None = None) -> tuple[Access, ...]:
        """Returns the access log: each time that rows of people were shown or handed out, oldest first.

        Args:
            since: Those that began at this instant or later; UTC unless it says otherwise.
        """
        at = since if since is None or since.tzinfo else since.replace(tzinfo=UTC)
        return access.log(self.root, at)

    def quarantine(self) -> Quarantine:
        """Returns the records that could not be taken: to list, to look at, to land again."""
        from stedi.landing.quarantine import Quarantine

        return Quarantine(self.context)

    def audit(
        self,
        *,
        files: bool = False,
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> tuple[Check, ...]:
        """Checks that every file of the tables, and what is kept of erasures, is there and as written; changes nothing.

        Args:
            files: Read every file and compare its SHA-256, rather than look at sizes and metadata alone.
            engine: With `spark` its executors read the files.
            progress: Told what is looked at and the share of it that is done.

        Returns:
            What each check found of each table.
        """
        from stedi.audit.integrity import check_files, logged, newest
        from stedi.erasure import evidence

        workers = self._workers(engine) if files else None
        kept = evidence.check(self.root, self.key(), self.config.lake_id)
        checks = check_files(self.catalog, files=files, threads=self.config.threads, progress=progress, workers=workers)
        checks = (*checks, kept) if kept else checks
        if not any(check.found for check in checks):  # of what is damaged it cannot be told
            checks = (*checks, newest(self.context.older()))
        mark = self.context.seen_access()
        if mark[0] or (self.root / access.FOLDER).exists():
            checks = (*checks, logged(self.root, self.key(), self.config.lake_id, mark))
        return checks

    @_recorded("repair")
    def repair(self, *, accept_rollback: bool = False, progress: Progress = lambda what, share: None) -> Repair:
        """Sets right what an audit of all files finds damaged, and builds what was made anew.

        Args:
            accept_rollback: Take a lake that was rolled back for the newest there is: withdrawals and erasures that are
                undone in it stay undone.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What was set right, and the build that followed.

        Raises:
            LakeError: A landing table is damaged, or the lake was rolled back; no table was changed.
            LakeBusy: A landing or a build is running; nothing was done.
        """
        from stedi.maintenance.repair import repair

        self.context.refuse_copied()
        self.key()
        _finish_rotation(self.context, progress)
        with (
            durable.lock(self.root / "build.lock", wait=False),
            durable.lock(self.root / "land.lock", wait=False),
        ):
            restored = (lambda: None) if accept_rollback else self.context.refuse_older
            repaired = repair(self.catalog, threads=self.config.threads, progress=progress, restored=restored)
        self.context.accept()  # tables that were made anew begin to count anew
        return replace(repaired, build=self.build(wait=True, progress=lambda line: progress(line, None)))

    @_recorded("withdraw", lambda done: done.landed)
    def withdraw(
        self,
        *addresses: str | Iterable[str],
        exact: bool = False,
        now: datetime | None = None,
        progress: Progress = lambda what, share: None,
    ) -> Withdrawal:
        """Lands a withdrawal from research of each of these customers; the next build takes them out.

        A record from the website that is newer and agrees again brings a customer back; an older one does not, whenever
        it arrives, and whether the lake knew the customer or not.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists.
            exact: Take each as it was delivered, be it a plain address or not.
            now: When they withdraw; the clock's time by default.
            progress: Told what is being done and the share of it that is done.

        Returns:
            How many withdrawals were landed, and how many were there already.

        Raises:
            UsageError: An address is none; nothing was landed.
        """
        from stedi.landing import withdrawal

        at = None if now is None else milliseconds(now)
        asked = self._asked(addresses, exact=exact)
        with self.context.writing(*_CUT_OFF, progress=progress):
            key = self.key()
            done = withdrawal.withdraw(self.context, key, asked, now=at, progress=progress)
            named = tuple(tag.name for tag in self.tags())
            return replace(done, stale=self._holding(key, asked), history_days=self.config.history_days, tags=named)

    def preview_withdrawal(self, *addresses: str | Iterable[str], exact: bool = False) -> WithdrawalPreview:
        """Returns whom a withdrawal would concern, and which of the addresses the lake does not know.

        Args:
            addresses: As for `withdraw`.
            exact: As for `withdraw`.

        Raises:
            UsageError: An address is none.
        """
        from stedi.landing import withdrawal

        asked, now = self._asked(addresses, exact=exact), milliseconds(datetime.now(UTC))
        return withdrawal.preview(self.context, asked, now)

    def known(self, *addresses: str | Iterable[str], exact: bool = False) -> int:
        """Returns of how many of these customers the lake has a landed record.

        Args:
            addresses: As for `withdraw`.
            exact: As for `withdraw`.

        Raises:
            UsageError: An address is none.
        """
        from stedi.landing import withdrawal

        return withdrawal.known(self.context, self._asked(addresses, exact=exact))

    def consent(self, by: By = "month", *, now: datetime | None = None) -> ConsentHistory:
        """Returns how many customers were known and agreed over time, by rules 1 to 3 from the landed records.

        Args:
            by: `day`, `week` (from Monday) or `month`, in UTC.
            now: Up to when; the clock's time by default. The last period says what a build at that instant would.

        Raises:
            UsageError: There are no such periods.
        """
        from stedi.audit import consent_history

        with access.noted(self.context, "consent", must=False):  # counts of people, none of whom it shows
            return consent_history.history(self.context, by, milliseconds(now or datetime.now(UTC)))

    def explain(self, address: str, *, exact: bool = False, now: datetime | None = None) -> Explanation:
        """Explains one customer: consent and its history, rows by table, and what is left out and why.

        Args:
            address: Whose, in any spelling; one that the lake does not know gets an answer of the same shape.
            exact: Take it as it was delivered, be it a plain address or not.
            now: The instant at which consent is asked for; the clock's time by default.

        Raises:
            UsageError: It is no address.
        """
        from stedi.audit import explain

        [normal] = self._asked([address], exact=exact)
        at, key = milliseconds(now or datetime.now(UTC)), self.key()
        key_change.refuse_unfinished(self.root)
        with access.noted(self.context, "explain", people=1) as note:
            found = explain.explain(self.context, key, normal, at)
            note.rows = sum(found.rows.values())
        return found

    @_recorded("export", _exported)
    def export(
        self,
        *addresses: str | Iterable[str],
        output: str | os.PathLike[str],
        archive: bool = False,
        exact: bool = False,
        now: datetime | None = None,
        progress: Progress = lambda what, share: None,
    ) -> Export:
        """Writes everything that the lake has of some customers into a folder, and nothing of anybody else.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists.
            output: A folder that is not there yet, or empty, outside of every lake and inbox. Of several customers each
                has a folder in it, by number, in the order in which they are named.
            archive: Write one zip file instead.
            exact: Take each address as it was delivered, be it a plain address or not.
            now: The instant at which consent is asked for; the clock's time by default.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What was written of each; one that the lake does not know gets files that say so.

        Raises:
            UsageError: An address is none, or the files cannot lie there; nothing was written.
        """
        from stedi.report import export

        asked, key = self._asked(addresses, exact=exact), self.key()
        key_change.refuse_unfinished(self.root)
        at = milliseconds(now or datetime.now(UTC))
        with access.noted(self.context, "export", people=len(asked)) as note:
            done = export.export(self.context, key, asked, output, now=at, archive=archive, progress=progress)
            note.rows = _exported(done)
        return done

    def withheld(self) -> tuple[Withheld, ...]:
        """Returns the readings of shared serial numbers that belong to nobody for certain (rule 6 of consent)."""
        from stedi import transform

        key = self.key()
        key_change.refuse_unfinished(self.root)
        with access.noted(self.context, "withheld") as note:
            found = transform.withheld(self.context, key)
            note.rows = len(found)
        return found

    def prove(self, *, engine: Name = "duckdb", progress: Progress = lambda what, share: None) -> Proof:
        """Proves the rules of consent over the published tables, independently of how they were built.

        Each table is judged by the landed records, the clock and the policy that it was built from: landings that wait
        for a build break nothing. Changes nothing.

        Args:
            engine: With `spark` its executors do the work; only counts come to this machine.
            progress: Told what is looked at and the share of it that is done.

        Returns:
            How often each rule is broken, in each table, and where every record went.
        """
        from stedi.audit import proof
        from stedi.engines import connect
        from stedi.transform import policy

        key = self.key()
        states, pending = self.context.pinned_with_landings()
        key_change.refuse_other(self.root, self.config.key_fingerprint)
        with self.context.temporary() as folder, connect(engine, self.config, self.root, folder) as session:
            return proof.prove(
                self.catalog,
                key,
                session,
                now=milliseconds(datetime.now(UTC)),
                policy=policy(self.config),
                states=states,
                pending=pending,
                further_claimants=self.context.further_claimants(key),
                progress=progress,
            )

    def risk(self) -> Risk:
        """Measures how many customers the training table would single out, by what somebody may know of them."""
        from stedi.audit import risk
        from stedi.engines.duckdb import DuckDB

        with self.context.temporary() as folder, DuckDB.of(self.config, folder) as engine:
            return risk.measure(engine, self.catalog)

    @_recorded("audit", wrong=_violated)
    def full_audit(
        self,
        *,
        files: bool = False,
        risk: bool = False,
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> FullAudit:
        """Does what `audit` and `prove` do, and keeps the outcome in the lake as its last audit.

        Args:
            files: Read every file, as in `audit`.
            risk: Measure as well what the training table gives away.
            engine: As in `audit` and `prove`.
            progress: Told what is looked at and the share of it that is done.

        Returns:
            The checks, with those of the proof; the proof, unless files are damaged, of which nothing can be proved.
        """
        from stedi.audit import record

        at, key = datetime.now(UTC), self.key()  # refused before anything is read
        try:
            states = self.catalog.tables()
        except StediError:  # the checks say what is wrong
            states = {}
        checks = self.audit(files=files, engine=engine, progress=progress)
        broken = any(check.violations for check in checks if check.name not in ("newest", "access log"))
        proof = None if broken else self.prove(engine=engine, progress=progress)
        measured = self.risk() if proof and risk else None
        checks += proof.checks if proof else ()
        kept = record.made(at, self.config.lake_id, states, checks, proof, measured, files=files)
        with suppress(CopiedLake):  # it is the other one's
            self.context.refuse_copied()
            record.keep(self.root, key, kept)
        return record.FullAudit(checks, proof, kept)

    def report(self, *, since: str | os.PathLike[str] | None = None) -> Report:
        """Returns the report on the lake: what its page says; changes nothing but the access log.

        The same state of the lake gives the same report: its instants are the lake's.

        Args:
            since: The file of an earlier report, page or JSON, to say what has changed.

        Raises:
            UsageError: That file is no report.
        """
        from stedi.report import earlier, gathering

        key_change.refuse_unfinished(self.root)
        before = earlier.read(destinations.expanded(since)) if since is not None else None
        with access.noted(self.context, "report", must=False):  # which draws the readings of a few people
            return gathering.gather(self.context, self.key(), before)

    @_recorded("key rotate")
    def rotate_key(
        self, to: str | os.PathLike[str] | None = None, *, progress: Progress = lambda what, share: None
    ) -> Rotation:
        """Gives the lake another pseudonym key: what is due is built, then every `customer_id` becomes another.

        Older snapshots are gone afterwards, so that nothing in the lake links old and new pseudonyms. Cut off
        anywhere, the lake is the old key's or the new one's: the next command that writes finishes what was decided.

        Args:
            to: The file of the new key, outside the lake; made if it is not there. By default the key of
                `STEDI_NEXT_PSEUDONYM_KEY`, or of a new file beside the usual place.
            progress: Told what is being done and the share of it that is done.

        Raises:
            KeyRefused: The lake's key is not at hand, or the new one cannot be had.
            AuditFailed: A table would break a rule under the new key; nothing was changed.
        """
        from stedi import transform
        from stedi.landing import journal
        from stedi.maintenance import key_rotation

        with self.context.writing(*_CUT_OFF, progress=progress):
            key = self.key()  # before a lock's file is made
            with durable.commands(self.root, durable.ALL, lambda what: progress(what, None)):
                key_change.refuse_other(self.root, self.config.key_fingerprint)
                tombstones.refuse_unfinished(self.root)
                journal.finish(self.catalog, self.root / "pending", lambda: key)
                finish = partial(journal.finish, self.catalog, self.root / "pending", lambda: key)
                orphans.remove_abandoned(self.catalog, tuple(ZONES), self.config.grace_hours * 3600, finish=finish)
                # the tables must be up to date: what they were built from is then what they would be built from
                transform.build(self.context, key, progress=lambda line: progress(line, None))
                place = None if to is None else destinations.expanded(to)
                done = key_rotation.rotate(self.context, key, place, progress=progress)
                self.context.config = Context.open(self.root).config
        return done

    @_recorded("migrate")
    def migrate(
        self, *, dry_run: bool = False, back: bool = False, progress: Progress = lambda what, share: None
    ) -> Migration:
        """Brings a lake that an earlier version made to the format of this one; what is changed is backed up first.

        Args:
            dry_run: Only say what would be done.
            back: Put back what the last migration has changed instead, for an earlier version.
            progress: Told what is waited for.

        Raises:
            KeyRefused: The lake's key is missing.
            LakeError: There is no way back: nothing was migrated, or an erasure came since.
        """
        from stedi.landing import journal
        from stedi.operations import migration

        if dry_run:
            return migration.plan(self.context)
        with self.context.writing(*_CUT_OFF, progress=progress):
            key = self.key()
            with durable.commands(self.root, durable.ALL, lambda what: progress(what, None)):
                key_change.refuse_other(self.root, self.config.key_fingerprint)
                tombstones.refuse_unfinished(self.root)
                journal.finish(self.catalog, self.root / "pending", lambda: key)
                # another command may have migrated meanwhile
                self.context.config = Context.open(self.root).config
                done = migration.back(self.context) if back else migration.migrate(self.context, key)
                self.context.config = Context.open(self.root).config
        return done

    def ended_by_rotation(self) -> tuple[str, ...]:
        """Returns the names of the tags, and of branches of others, that `rotate_key` would end."""
        from stedi.maintenance import tags

        return tags.ended_by_rotation(self.catalog)

    @_recorded("erase")
    def erase(
        self,
        *addresses: str | Iterable[str],
        exact: bool = False,
        inbox: Sequence[str | os.PathLike[str]] = (),
        reference: str = "",
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> tuple[Receipt, ...]:
        """Erases customers: everything of them leaves the lake and, if it is named, the inbox, and stays out.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists; none only finishes an erasure
                that was interrupted.
            exact: Take each as it was delivered, be it a plain address or not.
            inbox: Delivered files and folders to rewrite without them.
            reference: What you call the request, for the receipt: a line that tells nobody's address, name or phone.
            engine: With `spark` its executors look through the tables' files, write them anew, and search every file.
            progress: Told what is being done and the share of it that is done.

        Returns:
            The receipts: of an erasure that was interrupted and is finished now, if there was one, and of this one.

        Raises:
            UsageError: An address is none; nothing was erased.
            AuditFailed: Something in the lake still holds one of them; the message names the files.
        """
        from stedi import erasure
        from stedi.erasure.report import Receipt
        from stedi.privacy.addresses import reference as named

        wanted = self._asked(addresses, exact=exact)
        if reference:
            from stedi.audit.explain import subjects

            reference = named(reference, wanted, subjects.called(self.context, wanted))
        delivered = [str(destinations.expanded(path)) for path in inbox]
        with (
            self.context.writing(_finish_rotation, _finish_release, progress=progress),
            access.noted(self.context, "erase", people=len(wanted), must=False),  # which has its receipt
        ):
            key, workers = self.key(), self._workers(engine)
            done = erasure.erase(
                self.context,
                key,
                wanted,
                delivered=delivered,
                reference=reference,
                recover=True,
                progress=progress,
                workers=workers,
                engine=engine,
            )
            return tuple(map(Receipt.of, done))

    @_recorded("erase --replay")
    def replay(self, journal: str | os.PathLike[str], *, progress: Progress = lambda what, share: None) -> Replay:
        """Applies a journal to a lake that was restored or made anew: nobody who withdrew or was erased comes back.

        Tombstones and receipts of the lake's own that are gone are put back.

        Args:
            journal: A folder, or prefix in S3, to which a lake with this key copied its journal, or one of receipts.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What of it was new, and what was done.

        Raises:
            UsageError: There is no journal.
            LakeError: An entry is not what a lake with this key has written; nothing was changed.
        """
        from stedi.erasure import replay

        self.context.refuse_copied()
        place = destinations.expanded(s3.at(journal)).absolute()
        _finish_rotation(self.context, progress)
        done = replay.replay(self.context, self.key(), place, progress=progress)
        if done.complete:
            self.context.accept()
        return done

    def preview_erasure(self, *addresses: str | Iterable[str], exact: bool = False) -> ErasurePreview:
        """Returns what an erasure would remove; changes nothing."""
        from stedi import erasure

        self.context.refuse_copied()
        wanted = self._asked(addresses, exact=exact)
        return erasure.preview(self.context, self.key(), wanted)

    def receipts(self) -> tuple[Receipt, ...]:
        """Returns the receipts of all erasures, oldest first."""
        from stedi.erasure.report import Receipt

        return tuple(map(Receipt.of, receipts.listed(self.root)))

    def verify_receipt(self, named: str) -> ReceiptCheck:
        """Returns a receipt, by its id or the path of its file, and whether this lake has signed it.

        Raises:
            UsageError: There is none.
        """
        from stedi.erasure.report import Receipt, ReceiptCheck

        found, key = receipts.find(self.root, named), self.key()
        return ReceiptCheck(Receipt.of(found), tombstones.vouches(self.root, key, self.config.lake_id, found))

    def _asked(self, addresses: Sequence[str | Iterable[str]], *, exact: bool) -> tuple[str, ...]:
        """Returns the addresses that were given, in their normal form; what has no @ only if the lake has it as one.

        Raises:
            UsageError: One is none: that the lake does not know a name or a number says nothing of a person.
        """
        from stedi.privacy.addresses import complaint, of_values, taken  # its patterns take time to compile

        found = taken(of_values(*addresses), exact=exact)
        bare = [address for address in found if "@" not in address]
        if bare:
            from stedi.audit.explain import subjects

            key, met = self.key(), subjects.delivered(self.context, bare)
            for place, address in enumerate(found, start=1):
                if address in bare and address not in met and not tombstones.erased_at(self.root, key, address):
                    raise UsageError(
                        f"address {place}: expected the address of a customer as it was delivered, "
                        f"{complaint(address)}; no record has it as its address; nothing was done"
                    )
        return found

    def _workers(self, engine: Name) -> Workers | None:
        """Returns who works for an engine on other machines, or None where this process does."""
        if engine not in get_args(Name):
            raise UsageError(f"expected one of {', '.join(get_args(Name))}, found {engine!r}", argument="engine")
        if engine == "duckdb":
            return None
        from stedi.engines.spark import session
        from stedi.engines.workers import Executors

        # on this machine, too, a task may fail a few times, as it may on a cluster
        return Executors(session(master="local[*,4]", with_s3=s3.is_remote(self.root)))


def _refuse_as_published(role: Role, at: int | str | datetime | None) -> None:
    """Refuses to show what was published whole to who may not see it, or where nothing else is shown anyway."""
    if role != "officer":
        raise UsageError(f"expected the role officer, found {role}; nothing was run", argument="as_published")
    if at is None:
        raise UsageError("expected --at with a tag, snapshot or time, found none", argument="as_published")


def _table(state: TableState) -> Table:
    current = state.current
    if current is None:
        return Table(state.name, ALL_ZONES[state.name], 0, 0, None, None)
    rows, size = current.total("records"), current.total("files-size")
    return Table(state.name, ALL_ZONES[state.name], rows, size, current.id, current.at)


def _finish_rotation(context: Context, progress: Progress) -> None:
    """Finishes a key rotation that was interrupted; one that is alive is waited for."""
    if key_change.left(context.root):
        from stedi.maintenance import key_rotation

        context.key()  # confirms it
        with durable.commands(context.root, durable.ALL, lambda what: progress(what, None)):
            if not key_rotation.finish(context.catalog, context.root, progress):
                raise CommitConflict(
                    f"{context.root}: a key rotation came too late and was given up; nothing was changed: run this "
                    "command again, then `stedi key rotate`"
                )


def _finish_erasure(context: Context, progress: Progress) -> None:
    """Finishes an erasure that was interrupted; one that is alive is waited for."""
    if (context.root / tombstones.PENDING).exists():
        from stedi import erasure

        erasure.erase(context, context.key(), progress=progress)


def _finish_release(context: Context, progress: Progress) -> None:
    """Finishes a release that was interrupted once it was decided, and removes one that was not; none that is alive."""
    if (context.root / "releasing.json").exists():
        from stedi.datasets import registry

        registry.recover(context, progress)
    elif not s3.is_remote(context.root) and any((context.root / "releases").glob("*/.*.partial")):
        from stedi.datasets import registry

        registry.sweep(context.root)


_CUT_OFF = (_finish_rotation, _finish_release, _finish_erasure)
"""What must not stay cut off, in the order in which it is finished."""


def _finish_landings(context: Context) -> None:
    """Finishes what a landing that died has left; one that is alive finishes its own."""
    if any((context.root / "pending").glob("*.json")):
        from stedi.landing import journal

        try:
            with durable.lock(context.root / "land.lock", wait=False):
                journal.finish(context.catalog, context.root / "pending", context.key)
        except LakeBusy:
            return


def _land_what_waits(context: Context, key: Key) -> None:
    """Lands replayed withdrawals whose customers the lake has come to know by another way than a landing."""
    from stedi.privacy.journal import WAITING

    if (context.root / WAITING).exists():
        from stedi.landing import withdrawal

        with durable.lock(context.root / "land.lock", wait=True):
            withdrawal.again(context, key)
