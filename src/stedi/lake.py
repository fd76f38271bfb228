"""`Lake`, the Python API: an opened lake with one method for each command.

Each method that writes does so in a block of `Context.writing`; each calls the one module that does the work.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, cast, get_args
from weakref import WeakSet

from stedi._frozen import dataclass, replace
from stedi.catalog import Catalog, Snapshot, TableState, orphans, time_travel
from stedi.context import Context, access, found, milliseconds, places, runs
from stedi.context.progress import Progress, silent
from stedi.engines import Name
from stedi.errors import CopiedLake, StediError, UsageError
from stedi.operations import recovery
from stedi.privacy import key_change, receipts, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema import tables
from stedi.schema.roles import Readings, Role
from stedi.schema.tables import ALL_ZONES, ZONES
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
    from stedi.landing.batch import Landing
    from stedi.landing.quarantine import Quarantine
    from stedi.landing.withdrawal import Withdrawal, WithdrawalPreview
    from stedi.operations.maintenance import Maintenance
    from stedi.operations.maintenance.adoption import Adoption
    from stedi.operations.maintenance.key_rotation import Rotation
    from stedi.operations.maintenance.repair import Repair
    from stedi.operations.maintenance.tags import Tag
    from stedi.operations.migration import Migration
    from stedi.operations.status import Status
    from stedi.operations.watch import Round
    from stedi.query import Limits, Parameters, Result
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
    """Decorates a method so that its runs are kept in the lake's history, except dry runs.

    Args:
        command: Its name in the history.
        rows: Returns the number of rows that its result counts.
        wrong: Returns what is wrong with its result, in words; an empty text if nothing is.
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
        snapshot: Id of the published snapshot.
        updated: When that snapshot became current, UTC.
    """

    name: str
    zone: str
    rows: int
    bytes: int
    snapshot: int | None
    updated: datetime | None


class Lake:
    """An opened lake; `Lake.open` and `Lake.create` return one.

    A lake holds nothing open between two calls. As a context manager it stops running queries at the end of the block.

    Example:
        >>> lake = stedi.Lake.open("lake")
        >>> lake.land("inbox")
        >>> lake.build()
        >>> lake.query("select count(*) from machine_learning_curated").arrow()
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        """Its folder, settings, catalog and key, and the guard of every method that writes."""
        context.recoveries = recovery
        # weakly: a result that nobody holds any more has ended its process
        self._results: WeakSet[Result] = WeakSet()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for result in list(self._results):
            result.close()

    def __repr__(self) -> str:
        return f"<stedi.Lake {str(self.root)!r}: id {self.config.lake_id}, readings {self.config.readings}>"

    def _repr_html_(self) -> str:
        """Returns the lake's tables as HTML for a notebook, or the error if they cannot be read."""
        from stedi.query import notebook

        try:
            found = [(t.zone, t.name, f"{t.rows:,}", t.updated) for t in self.tables()]
        except StediError as error:
            return notebook.paragraph(repr(self)) + notebook.paragraph(str(error))
        return notebook.table(("zone", "table", "rows", "updated"), found, repr(self))

    @property
    def root(self) -> Path:
        """The lake's folder, or prefix in S3."""
        return self.context.root

    @property
    def config(self) -> Config:
        """The lake's settings."""
        return self.context.config

    @property
    def catalog(self) -> Catalog:
        """The lake's catalog of tables."""
        return self.context.catalog

    def key(self) -> Key:
        """Returns the lake's pseudonym key.

        Raises:
            KeyRefused: It is missing, or is not the key that this lake was made with.
        """
        from stedi.privacy import key_change

        key = self.context.key()
        key_change.refuse_changed(self.root, key)
        return key

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a lake. One that was copied or moved, and not adopted, is read-only: methods that write refuse it.

        Args:
            path: The lake's folder.

        Raises:
            LakeError: There is no lake, or part of it leads to another folder.
            ConfigError: A setting is unknown or has a bad value.
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
        """Creates a lake: settings, catalog and, unless the environment has one, a pseudonym key outside the lake.

        Args:
            path: A new or empty folder.
            readings: Which readings of a consenting customer are used (rule 4 of consent).
            key_file: The key's file, created if needed; by default in the user's configuration folder.

        Raises:
            UsageError: The folder is not empty or holds a lake, or its path cannot be a table's location.
            KeyRefused: The key cannot be created or read.
        """
        from stedi.context import creation

        began = datetime.now(UTC)
        creation.make(path, readings, key_file)
        lake = cls.open(path)
        # only now: until here there was no lake to keep a history in
        with runs.recorded(lake.context, "init", began=began):
            return lake

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str], *, made: Callable[[Self], None] = lambda lake: None) -> Self:
        """Opens a lake, or creates one with the defaults if there is none.

        Args:
            path: The lake's folder.
            made: Called with the lake if it was created.
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
    def adopt(cls, path: str | os.PathLike[str], *, new_id: bool = False, progress: Progress = silent) -> Adoption:
        """Makes a lake of its own of a folder that is a copy of a lake, or was moved; no other folder is written to.

        Args:
            path: The folder.
            new_id: Give it an id of its own, although the folder that it comes from is gone here: the lake lives on
                elsewhere.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            What the folder is now.

        Raises:
            LakeError: It cannot be one; nothing was changed that anybody reads.
            KeyRefused: The lake's key is missing.
        """
        from stedi.operations.maintenance import adoption

        began = datetime.now(UTC)
        copy = Context(*found(path))
        done = adoption.adopt(copy, copy.key(), new_id=new_id, progress=progress)
        if done.home != done.root:  # until then it could keep no history: it was another lake's copy
            with runs.recorded(Context.open(copy.root), "adopt", began=began):
                pass
        return done

    @_recorded("land", lambda done: sum(f.accepted for f in done.files if not f.already_landed), _unread)
    def land(
        self,
        *paths: str | os.PathLike[str],
        feed: str | None = None,
        engine: Name = "duckdb",
        progress: Progress = silent,
    ) -> Landing:
        """Lands the new files among these paths; landing a file again adds nothing.

        Args:
            paths: Files, folders or globs.
            feed: The feed of all of them: `customer`, `accelerometer` or `step_trainer`; by default from the
                names, then from the fields.
            engine: With `spark` executors read the files and write the rows; they must reach both by the same paths.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            The outcome of each file.
        """
        from stedi.landing import batch

        places, workers = [s3.at(path) for path in paths], self._workers(engine)
        with self.context.writing("land", progress=progress):
            return batch.land(self.context, self.key(), places, feed=feed, progress=progress, workers=workers)

    @_recorded("land", lambda done: sum(f.accepted for f in done.files if not f.already_landed), _unread)
    def _land_among(self, inbox: Path, among: Callable[[Path], bool]) -> Landing:
        """Lands those files of a folder that are ready."""
        from stedi.landing import batch

        with self.context.writing("land"):
            return batch.land(self.context, self.key(), [inbox], among=among)

    @_recorded("build", lambda done: sum(table.rows_added for table in done.tables))
    def build(
        self,
        *,
        full: bool = False,
        wait: bool = False,
        engine: Name = "duckdb",
        progress: Progress = silent,
    ) -> Build:
        """Updates every table below landing; all checks must pass before any table is published.

        Args:
            full: Rebuild everything.
            wait: Wait for a running build instead of raising `LakeBusy`. It always waits for maintenance, which
                holds a table only for moments.
            engine: What computes the tables: DuckDB on this machine, or Spark; it may change from build to build.
            progress: Called with the current step and its completed share, 0 to 1.

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
            return replace(done, stale=self._stale_after_build(key, before)) if before and done.run else done

    @contextmanager
    def _building(self, *, wait: bool, progress: Progress) -> Iterator[Key]:
        """Finishes interrupted work, then keeps other builds waiting while a block runs; yields the key."""
        advice = "wait for it with wait=True, or run this again when it has ended"
        with self.context.writing("build", wait=wait, advice=advice, progress=progress):
            # landings first: they may bring the customers whom a withdrawal waits for, and this build has their rows
            recovery.finish_dead_landings(self.context)
            recovery.land_waiting_withdrawals(self.context)
            grace = self.config.grace_hours * 3600
            # under the lock of builds: whatever is staged belongs to none that runs
            orphans.remove_abandoned(self.catalog, [table.name for table in tables.graph().tables()], grace)
            yield self.key()

    @_recorded("dataset create", lambda made: made.rows)
    def create_dataset(
        self,
        name: str,
        options: Options | None = None,
        *,
        output: str | os.PathLike[str] | None = None,
        progress: Progress = silent,
        **words: Any,
    ) -> Release:
        """Builds what is due, then writes the next version of a training set.

        Args:
            name: The training set, a folder's name.
            options: How it is made.
            output: A new folder; by default `releases/NAME/VERSION` in the lake.
            progress: Called with the current step and its completed share, 0 to 1.
            words: The options by name instead of `options`, such as `window="10s"`.

        Returns:
            The release, as written.

        Raises:
            UsageError: An option is wrong, or the output folder exists; nothing was done.
            AuditFailed: The release breaks a rule, such as a person in two splits; nothing was written.
        """
        from stedi import transform
        from stedi.datasets import creation
        from stedi.datasets.options import Options, refuse_name

        chosen = Options.parse(**words) if options is None else options
        refuse_name(name)
        with self._building(wait=True, progress=progress) as key:
            transform.build(self.context, key, progress=progress)
            with access.noted(self.context, "dataset", must=False) as note:  # which the lake knows anyway
                made = creation.create(self.context, name, chosen, output=output, progress=progress)
                note.rows = made.rows
        return made

    def preview_dataset(self, name: str, options: Options | None = None, **words: Any) -> Preview:
        """Returns what `create_dataset` would give with the current tables, and what it is good for; read-only.

        Args:
            name: The training set.
            options: How it would be made.
            words: The options by name instead of `options`, such as `window="10s"`.

        Raises:
            UsageError: An option is wrong.
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
        progress: Progress = silent,
    ) -> Release:
        """Writes the next version of a training set with the options of the last one, without those who have left.

        Everybody else stays in their split.

        Args:
            name: The training set.
            labels: The file of labels, if it has moved.
            output: As for `create_dataset`.
            progress: Called with the current step and its completed share, 0 to 1.

        Raises:
            UsageError: There is no release of that name, or its file of labels is missing.
        """
        from stedi.datasets import creation

        options = creation.next_options(self.context, self._release(name, deleted=True), labels)
        return self.create_dataset(name, options, output=output, progress=progress)

    def datasets(self, *, stale: bool = False) -> tuple[Release, ...]:
        """Returns the lake's releases, each with the subjects who may no longer be used.

        Args:
            stale: Only releases that have such subjects.
        """
        from stedi.datasets import registry, staleness

        every = [entry for entry in registry.releases(self.context) if not entry.deleted]
        if not every:
            return ()
        found = staleness.stale(self.context, self.key(), milliseconds(datetime.now(UTC)), every)
        shown = (registry.shown(entry, found.get(entry.release, ())) for entry in every)
        return tuple(release for release in shown if release.stale or not stale)

    def release(self, named: str) -> Release:
        """Returns a release by `NAME@VERSION`, or the newest of a name, with the subjects who may no longer be used.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import registry, staleness

        entry = self._release(named)
        found = staleness.stale(self.context, self.key(), milliseconds(datetime.now(UTC)), [entry])
        return registry.shown(entry, found.get(entry.release, ()))

    def dataset(self, named: str) -> Dataset:
        """Opens a release for reading, by `NAME@VERSION` or the newest of a name.

        Raises:
            UsageError: There is no such release, or its folder has moved.
        """
        from stedi.datasets.dataset import Dataset

        return Dataset.open(self._release(named).path)

    @_recorded("dataset note")
    def note_dataset(self, named: str, *, model: str, progress: Progress = silent) -> None:
        """Records that a model was trained on a release, in one line of text.

        Args:
            named: `NAME@VERSION`, or the newest of a name.
            model: The text.
            progress: Called with the current step and its completed share, 0 to 1.

        Raises:
            UsageError: There is no such release, or the text is empty or too long.
        """
        from stedi.datasets import registry

        with self.context.writing("build", progress=progress):
            registry.note(self.context, self._release(named), model)

    @_recorded("dataset delete")
    def delete_dataset(self, named: str, *, progress: Progress = silent) -> Release:
        """Removes a release's folder from the lake; its subjects stay registered, so that it can still be recalled.

        Args:
            named: `NAME@VERSION`.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            The release as it was. A folder outside the lake is not removed.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import registry

        # not the newest by default, as elsewhere: what is removed has to be named
        if "@" not in named:
            raise UsageError("the release: expected NAME@VERSION, found no version")
        with self.context.writing("build", progress=progress):
            entry = self._release(named, deleted=True)
            registry.delete(self.context, entry)
        return registry.shown(entry)

    @_recorded("dataset recall")
    def recall_dataset(self, named: str, *, progress: Progress = silent) -> Recall:
        """Returns the signed recall of a release: the subjects that holders of a copy must drop.

        Args:
            named: `NAME@VERSION`; also of a deleted release.
            progress: Called with the current step and its completed share, 0 to 1.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import recall

        with self.context.writing("build", progress=progress):
            entry = self._release(named, deleted=True)
            return recall.write(self.context, self.key(), entry, milliseconds(datetime.now(UTC)))

    def diff_datasets(self, one: str, other: str) -> Diff:
        """Compares two releases: people, splits, rows, options.

        Raises:
            UsageError: There is no such release.
        """
        from stedi.datasets import comparison

        first, second = (self._release(named, deleted=True) for named in (one, other))
        return comparison.diff(self.context, self.key(), first, second)

    def _release(self, named: str, *, deleted: bool = False) -> Entry:
        """Returns a release's entry in the registry."""
        from stedi.datasets import registry

        return registry.find(self.context, named, deleted=deleted)

    def _has_releases(self) -> bool:
        """Returns whether the lake has ever created a release."""
        return _REGISTRY in self.catalog.listed()

    def _stale_after_build(self, key: Key, before: TableState) -> tuple[str, ...]:
        """Returns the releases with a subject who is no longer in `customers_trusted`."""
        from stedi.datasets import staleness

        return staleness.left_by(self.context, key, before, self.catalog.table(before.name))

    def _releases_with(self, key: Key, addresses: Iterable[str]) -> tuple[str, ...]:
        """Returns the releases that contain one of these customers."""
        if not self._has_releases():
            return ()
        from stedi.datasets import staleness

        return staleness.naming(self.context, key, dict.fromkeys(tombstones.persons(key, addresses), 0))

    def plan(self, *, full: bool = False) -> Plan:
        """Returns what `build` would do to each table, why, and which customers would enter and leave; read-only.

        Args:
            full: As for `build`.
        """
        from stedi import transform

        now, key = int(datetime.now(UTC).timestamp() * 1000), self.key()
        # pseudonyms may be of either key until the change is complete, and what only reads cannot complete it
        key_change.refuse_unfinished(self.root)
        return transform.preview(self.context, key, now, full=full)

    @_recorded("maintain")
    def maintain(
        self,
        *,
        dry_run: bool = False,
        engine: Name = "duckdb",
        progress: Progress = silent,
    ) -> Maintenance:
        """Compacts small files, expires old snapshots and removes unused files; no row changes.

        Args:
            dry_run: Only return what would be done.
            engine: With `spark` executors rewrite the small files.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            What was done, or would be, to each table.
        """
        from stedi.operations import maintenance

        if dry_run:
            self.context.refuse_copied()
            self.context.refuse_older()
            return maintenance.preview(self.context)
        workers = self._workers(engine)
        with self.context.writing("maintain", keyless=True, progress=progress):
            return maintenance.maintain(self.context, progress=progress, workers=workers)

    def snapshots(
        self, sql: str, at: int | str | datetime, *, role: Role | None = None, as_published: bool = False
    ) -> dict[str, int]:
        """Returns, for each table that a SELECT names, the snapshot that it must read as of a time.

        For engines that read the tables themselves and cannot leave out people's rows, such as Athena.

        Args:
            sql: The SELECT, in DuckDB's dialect.
            at: A tag, a snapshot's id, or a time (ISO 8601; UTC unless it says otherwise).
            role: The role of the query; by default the setting `query.role`.
            as_published: With the role officer: also tables below landing.

        Raises:
            UsageError: A table has no live snapshot of that time, or rows of people who do not consent now would be
                shown.
        """
        from stedi import query
        from stedi.query import visible, withdrawn

        if as_published:
            visible.refuse_as_published(role or self.config.query_role, at)
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
        """Runs one read-only SELECT over the lake's tables, in a process that can reach nothing else.

        Args:
            sql: The SELECT, in DuckDB's dialect.
            parameters: Values of its parameters, a list for `?` or a mapping for `$name`: None, bool, numbers, texts,
                instants and dates. They are bound as values and never executed as SQL.
            at: A tag, a snapshot's id, or a time (ISO 8601; UTC unless it says otherwise): the tables as they were
                then, those below landing without the rows of people who do not consent now.
            as_published: With `at` and the role officer: also their rows.
            role: The role of the query: other tables do not exist for it, and columns that it may not see are null;
                by default the setting `query.role`.

        Returns:
            A result: all rows with `.arrow()`, `.df()` (pandas), `.pl()` (Polars) or `.fetchall()`, or batches with
            `.reader()` or in a loop; `.masked` and `.left_out` say what is missing from it.

        Raises:
            KeyRefused: The lake's key is needed to know who consents now.
            QueryRefused: It is not one SELECT over the lake's tables.
            QueryFailed: It ran out of time or memory, or an expression failed.
        """
        eyes = role or self.config.query_role
        if as_published:
            from stedi.query import visible

            visible.refuse_as_published(eyes, at)
        verb = "query as published" if as_published else "query"
        # an officer sees direct identifiers: without a line in the log, nothing is shown
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
        from stedi.query import visible

        key_change.refuse_unfinished(self.root)
        seen = partial(
            visible.tables, self.context, role, at=at, as_published=as_published, places=condition, note=note
        )
        folder, ended = durable.scratch(self.root), note.end if note else lambda how, rows: None
        result = query.run(sql, seen, self._limits(), folder, condition=condition, parameters=parameters, ended=ended)
        self._results.add(result)
        return result

    def _limits(self) -> Limits:
        from stedi import query

        return query.Limits(
            memory=self.config.query_memory, seconds=self.config.query_seconds, threads=self.config.threads
        )

    def explain_rows(self, table: str, where: str, *, role: Role | None = None) -> ExplainedRows:
        """Explains the first rows of a table that meet a condition: their customers, the reason, and the source files.

        Args:
            table: The table.
            where: The condition, as after WHERE; it runs in the same closed process as a query.
            role: The role in which the condition is evaluated: columns that it may not see are null there; by default
                the setting `query.role`.

        Raises:
            UsageError: There is no such table.
            QueryRefused: It is not a single condition, or it reads a table that the role may not query.
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
            found = explain.explain_rows(self.context, self.key(), table, rows, milliseconds(datetime.now(UTC)))
        return explain.ExplainedRows(table, found, more)

    def tables(self) -> tuple[Table, ...]:
        """Returns every table with its zone, rows, size and freshness, in the order of the data flow."""
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
    def tag(self, name: str, *, progress: Progress = silent) -> Tag:
        """Tags the current state of the tables below landing; `at` reads it until the tag is deleted.

        Args:
            name: The tag: a letter, then up to 63 letters, digits, dots, underscores and hyphens.
            progress: Called with what it waits for.

        Raises:
            UsageError: The name is invalid or in use; nothing was tagged.
            LakeError: The tables are not of one state, since a build is due or was interrupted; nothing was tagged.
        """
        from stedi.operations.maintenance import tags

        tags.refuse_name(name)
        with self.context.writing("build", keyless=True, progress=progress):
            return tags.tag(self.context, name)

    def tags(self) -> tuple[Tag, ...]:
        """Returns every tag of the lake's tables, oldest first, including those of other programs."""
        from stedi.operations.maintenance import tags

        return tags.tags(self.catalog)

    @_recorded("tag --delete")
    def untag(self, name: str, *, progress: Progress = silent) -> Tag:
        """Deletes a tag; the next maintenance removes what only this tag kept.

        Args:
            name: The tag.
            progress: Called with what it waits for.

        Returns:
            The deleted tag.

        Raises:
            UsageError: There is no such tag.
        """
        from stedi.operations.maintenance import tags

        with self.context.writing("build", keyless=True, progress=progress):
            return tags.untag(self.context, name)

    def status(self, *, max_age: timedelta = timedelta(hours=26), now: datetime | None = None) -> Status:
        """Returns what ran last, what waits for a build, and what is late or wrong; read-only.

        Args:
            max_age: Greatest age of the last landing and build, and longest time that records may wait for a build.
            now: The instant for which to answer; by default the clock's time.
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
        """Lands the files of a folder once they stop growing, and builds, until it is stopped.

        Args:
            inbox: The folder, or a prefix in S3.
            every: The polling interval.
            stop: Ends it after the current round; without it, it runs until the process ends.

        Yields:
            Each round that landed or built something, or failed and will be retried.

        Raises:
            UsageError: `every` is not above 0.
        """
        from threading import Event

        from stedi import transform
        from stedi.operations import watch

        def reopened() -> Lake:
            # whoever changed settings or key meanwhile is followed
            lake = Lake.open(self.root)
            # but what listens to this lake goes on listening
            lake.context.say, lake.context.observers = self.context.say, self.context.observers
            return lake

        def due() -> bool:
            lake = reopened()
            now, claims = milliseconds(datetime.now(UTC)), lake.context.erased_claims()
            steps = transform.plan(lake.catalog.tables(), lake.config, now, claims=claims)
            return any(step.action != "none" for step in steps)

        if every <= timedelta():
            raise UsageError(f"expected more than 0 s, found {every.total_seconds():g} s", argument="every")
        folder = destinations.expanded(s3.at(inbox))
        if s3.is_remote(folder):
            s3.client()  # a missing extra is no outage that is waited for
        watch.warm(self.context)
        return watch.watch(
            watch.Inbox(folder, self.root),
            land=lambda among: reopened()._land_among(folder, among),
            build=lambda: reopened().build(wait=True),
            due=due,
            every=every,
            stop=stop or Event(),
        )

    def runs(self) -> Iterator[Run]:
        """Yields the history of runs, newest first: command, time, duration, rows, outcome and error."""
        return runs.history(self.root)

    def log(self, since: datetime | None = None) -> tuple[Access, ...]:
        """Returns the access log, oldest first: each time that rows of people were shown or handed out.

        Args:
            since: Only accesses that began at this instant or later; UTC unless it has another time zone.
        """
        at = since if since is None or since.tzinfo else since.replace(tzinfo=UTC)
        return access.log(self.root, at)

    def quarantine(self) -> Quarantine:
        """Returns the quarantine: refused records, to list, to read and to land again."""
        from stedi.landing.quarantine import Quarantine

        return Quarantine(self.context)

    def audit(
        self,
        *,
        files: bool = False,
        engine: Name = "duckdb",
        progress: Progress = silent,
    ) -> tuple[Check, ...]:
        """Checks that every file of the tables, and the records of erasures, are present and as written; read-only.

        Args:
            files: Read every file and compare its SHA-256, instead of only sizes and metadata.
            engine: With `spark` executors read the files.
            progress: Called with the current check and its completed share, 0 to 1.

        Returns:
            Each check with its violations.
        """
        from stedi.audit.integrity import check_files, logged, newest
        from stedi.erasure import evidence

        workers = self._workers(engine) if files else None
        kept = evidence.check(self.context)
        checks = check_files(self.catalog, files=files, threads=self.config.threads, progress=progress, workers=workers)
        checks = (*checks, kept) if kept else checks
        if not any(check.found for check in checks):  # of what is damaged it cannot be told
            checks = (*checks, newest(self.context.older()))
        mark = self.context.seen_access()
        if mark[0] or (self.root / access.FOLDER).exists():
            checks = (*checks, logged(self.context, mark))
        return checks

    @_recorded("repair")
    def repair(self, *, accept_rollback: bool = False, progress: Progress = silent) -> Repair:
        """Repairs the damage that an audit of all files finds, and builds the tables that were reset.

        Args:
            accept_rollback: Accept a lake that was rolled back: withdrawals and erasures since then are lost.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            What was repaired, and the build that followed.

        Raises:
            LakeError: A landing table is damaged, or the lake was rolled back; no table was changed.
            LakeBusy: A landing or a build is running; nothing was done.
        """
        from stedi.operations.maintenance.repair import repair

        with self.context.mending("build", "land", wait=False, progress=progress):
            restored = (lambda: None) if accept_rollback else self.context.refuse_older
            repaired = repair(self.context, progress=progress, restored=restored)
        self.context.accept()  # tables that were made anew begin to count anew
        # after the locks are released: a build takes its own
        return replace(repaired, build=self.build(wait=True, progress=progress))

    @_recorded("withdraw", lambda done: done.landed)
    def withdraw(
        self,
        *addresses: str | Iterable[str],
        exact: bool = False,
        now: datetime | None = None,
        progress: Progress = silent,
    ) -> Withdrawal:
        """Lands a withdrawal from research for each of these customers; the next build removes them below landing.

        A newer record of the website with consent brings a customer back. An older one does not, whenever it arrives
        and whether the lake knew the customer or not.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists.
            exact: Take each address exactly as it was delivered, plain or not.
            now: The time of the withdrawal; by default the clock's time.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            How many withdrawals were landed, and how many existed already.

        Raises:
            UsageError: An address is invalid; nothing was landed.
        """
        from stedi.landing import withdrawal

        at = None if now is None else milliseconds(now)
        asked = self._asked(addresses, exact=exact)
        with self.context.writing("land", progress=progress):
            key = self.key()
            done = withdrawal.withdraw(self.context, key, asked, now=at, progress=progress)
        # outside the lock: it only tells what a withdrawal does not reach by itself
        stale, named = self._releases_with(key, asked), tuple(tag.name for tag in self.tags())
        return replace(done, stale=stale, history_days=self.config.history_days, tags=named)

    def preview_withdrawal(self, *addresses: str | Iterable[str], exact: bool = False) -> WithdrawalPreview:
        """Returns how many customers a withdrawal would affect, and which addresses the lake does not know.

        Args:
            addresses: As for `withdraw`.
            exact: As for `withdraw`.

        Raises:
            UsageError: An address is invalid.
        """
        from stedi.landing import withdrawal

        asked, now = self._asked(addresses, exact=exact), milliseconds(datetime.now(UTC))
        return withdrawal.preview(self.context, asked, now)

    def known(self, *addresses: str | Iterable[str], exact: bool = False) -> int:
        """Returns how many of these customers have a landed record.

        Args:
            addresses: As for `withdraw`.
            exact: As for `withdraw`.

        Raises:
            UsageError: An address is invalid.
        """
        from stedi.landing import withdrawal

        return withdrawal.known(self.context, self._asked(addresses, exact=exact))

    def consent(self, by: By = "month", *, now: datetime | None = None) -> ConsentHistory:
        """Returns how many customers were known and consented over time, by rules 1 to 3 on the landed records.

        Args:
            by: `day`, `week` (from Monday) or `month`, in UTC.
            now: The end of the last period; by default the clock's time. Its counts equal a build's at that instant.

        Raises:
            UsageError: `by` is none of these.
        """
        from stedi.audit import consent_history

        with access.noted(self.context, "consent", must=False):  # counts of people, none of whom it shows
            return consent_history.history(self.context, by, milliseconds(now or datetime.now(UTC)))

    def explain(self, address: str, *, exact: bool = False, now: datetime | None = None) -> Explanation:
        """Explains one customer: consent and its history, rows by table, and which rows are left out and why.

        Args:
            address: The customer's address, in any spelling; an unknown one gets an answer of the same shape.
            exact: Take it exactly as it was delivered, plain or not.
            now: The instant for which consent is evaluated; by default the clock's time.

        Raises:
            UsageError: The address is invalid.
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
        progress: Progress = silent,
    ) -> Export:
        """Writes all data of some customers, and nothing of anybody else, into a folder.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists.
            output: A new or empty folder outside every lake and inbox. With several customers each gets a folder in it,
                numbered in the order of `addresses`.
            archive: Write one zip file instead.
            exact: Take each address exactly as it was delivered, plain or not.
            now: The instant for which consent is evaluated; by default the clock's time.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            The counts of each customer; for an unknown one the files say that there is nothing.

        Raises:
            UsageError: An address is invalid, or the folder is not allowed; nothing was written.
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
        """Returns the withheld readings: those of shared serial numbers without a certain owner (rule 6)."""
        from stedi import transform

        key = self.key()
        key_change.refuse_unfinished(self.root)
        with access.noted(self.context, "withheld") as note:
            found = transform.withheld(self.context, key)
            note.rows = len(found)
        return found

    def prove(self, *, engine: Name = "duckdb", progress: Progress = silent) -> Proof:
        """Proves the rules of consent over the published tables, independently of how they were built.

        Each table is judged by the landed records, the clock and the policy that it was built from, so landings that
        wait for a build are no violation. Read-only.

        Args:
            engine: With `spark` executors do the work; only counts come to this machine.
            progress: Called with the current check and its completed share, 0 to 1.

        Returns:
            The violations of each rule in each table, and the account of every record.
        """
        from stedi.audit import proof
        from stedi.engines import connect
        from stedi.transform import policy

        key = self.key()
        # before the key is asked for again below: a change of key in between has replaced these tables
        states, pending = self.context.pinned_with_landings()
        key_change.refuse_other(self.root, self.config.key_fingerprint)
        rows = sum(state.current.total("records") for state in states.values() if state.current)
        with self.context.temporary() as folder, connect(engine, self.config, self.root, folder, rows=rows) as session:
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
        """Measures how many customers the training table singles out, by what an attacker may know of them."""
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
        progress: Progress = silent,
    ) -> FullAudit:
        """Runs `audit` and `prove`, and stores the outcome in the lake as its last audit.

        Args:
            files: Read every file, as in `audit`.
            risk: Also measure the risk of re-identification.
            engine: As in `audit` and `prove`.
            progress: Called with the current check and its completed share, 0 to 1.

        Returns:
            The checks, including those of the proof, and the proof. If files are damaged, there is no proof.
        """
        from stedi.audit import record

        self.key()  # refused before anything is read
        at = datetime.now(UTC)
        try:
            states = self.catalog.tables()
        except StediError:  # the checks say what is wrong
            states = {}
        checks = self.audit(files=files, engine=engine, progress=progress)
        # a rolled-back lake, or a gap in its access log, does not keep the tables from being proved
        broken = any(check.violations for check in checks if check.name not in ("newest", "access log"))
        proof = None if broken else self.prove(engine=engine, progress=progress)
        measured = self.risk() if proof and risk else None
        checks += proof.checks if proof else ()
        kept = record.made(at, self.config.lake_id, states, checks, proof, measured, files=files)
        with suppress(CopiedLake):  # it is the other one's
            self.context.refuse_copied()
            record.keep(self.context, kept)
        return record.FullAudit(checks, proof, kept)

    def report(self, *, since: str | os.PathLike[str] | None = None) -> Report:
        """Returns the content of the report on the lake; writes nothing but a line of the access log.

        The same state of the lake gives the same report: its times come from the lake, not from the clock.

        Args:
            since: The file of an earlier report, page or JSON, to compare with.

        Raises:
            UsageError: That file is not a report.
        """
        from stedi.report import earlier, gathering

        key_change.refuse_unfinished(self.root)
        before = earlier.read(destinations.expanded(since)) if since is not None else None
        with access.noted(self.context, "report", must=False):  # which draws the readings of a few people
            return gathering.gather(self.context, self.key(), before)

    @_recorded("key rotate")
    def rotate_key(self, to: str | os.PathLike[str] | None = None, *, progress: Progress = silent) -> Rotation:
        """Changes the lake's pseudonym key: builds what is due, then replaces every `customer_id`.

        Older snapshots are removed, so that nothing in the lake links old and new pseudonyms. If it is interrupted, the
        lake uses either the old or the new key; once the change is decided, the next command that writes finishes it.

        Args:
            to: The file of the new key, outside the lake; created if needed. By default the key of
                `STEDI_NEXT_PSEUDONYM_KEY`, or of a new file beside the old one.
            progress: Called with the current step and its completed share, 0 to 1.

        Raises:
            KeyRefused: The lake's key is missing, or the new one cannot be read or created.
            AuditFailed: A table would break a rule under the new key; nothing was changed.
        """
        from stedi import transform
        from stedi.operations.maintenance import key_rotation

        with self.context.writing(*durable.ALL, progress=progress):
            key, finish = self.key(), partial(recovery.finish_landings, self.context)
            orphans.remove_abandoned(self.catalog, tuple(ZONES), self.config.grace_hours * 3600, finish=finish)
            # the tables must be up to date: what they were built from is then what they would be built from
            transform.build(self.context, key, progress=progress)
            place = None if to is None else destinations.expanded(to)
            done = key_rotation.rotate(self.context, key, place, progress=progress)
            # from now on the settings name the new key
            self.context.config = Context.open(self.root).config
        return done

    @_recorded("migrate")
    def migrate(self, *, dry_run: bool = False, back: bool = False, progress: Progress = silent) -> Migration:
        """Brings a lake of an earlier version to this version's format; changed files are backed up first.

        Args:
            dry_run: Only return what would be done.
            back: Restore the files that the last migration changed instead, for an earlier version.
            progress: Called with what it waits for.

        Raises:
            KeyRefused: The lake's key is missing.
            LakeError: It cannot go back: nothing was migrated, or somebody was erased since.
        """
        from stedi.operations import migration

        if dry_run:
            return migration.plan(self.context)
        with self.context.writing(*durable.ALL, progress=progress):
            # another command may have migrated meanwhile
            self.context.config = Context.open(self.root).config
            done = migration.back(self.context) if back else migration.migrate(self.context, self.key())
            self.context.config = Context.open(self.root).config
        return done

    def ended_by_rotation(self) -> tuple[str, ...]:
        """Returns the names of the tags, and of other programs' branches, that `rotate_key` would remove."""
        from stedi.operations.maintenance import tags

        return tags.ended_by_rotation(self.catalog)

    @_recorded("erase")
    def erase(
        self,
        *addresses: str | Iterable[str],
        exact: bool = False,
        inbox: Sequence[str | os.PathLike[str]] = (),
        reference: str = "",
        engine: Name = "duckdb",
        progress: Progress = silent,
    ) -> tuple[Receipt, ...]:
        """Erases customers: removes all their data from the lake and the named inbox, and keeps older data out.

        Args:
            addresses: Their addresses, in any spelling of rule 1, one by one or in lists; none only finishes an erasure
                that was interrupted.
            exact: Take each address exactly as it was delivered, plain or not.
            inbox: Delivered files and folders to rewrite without them.
            reference: Your name for the request, for the receipt: one line without address, name or phone number.
            engine: With `spark` executors read and rewrite the tables' files, and search every file.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            The receipts: of an erasure that was interrupted and is finished now, if there was one, and of this one.

        Raises:
            UsageError: An address is invalid, or an inbox is not there; nothing was erased.
            AuditFailed: The search found data of one of them in the lake; the message names the files.
        """
        from stedi import erasure
        from stedi.erasure.report import Receipt
        from stedi.privacy.addresses import reference as named

        wanted = self._asked(addresses, exact=exact)
        if reference:
            from stedi.audit.explain import subjects

            reference = named(reference, wanted, subjects.called(self.context, wanted))
        delivered = [str(destinations.expanded(path)) for path in inbox]
        if delivered:
            from stedi.erasure import deliveries

            # before anything is erased: a wrong path would leave somebody's data in the inbox
            deliveries.refuse_missing(delivered)
        workers = self._workers(engine)
        with (
            self.context.writing(*durable.ALL, erasing=True, progress=progress),
            access.noted(self.context, "erase", people=len(wanted), must=False),  # which has its receipt
        ):
            done = erasure.erase(
                self.context,
                self.key(),
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
    def replay(self, journal: str | os.PathLike[str], *, progress: Progress = silent) -> Replay:
        """Applies a journal to a restored or re-created lake, so that nobody who withdrew or was erased comes back.

        Missing tombstones and receipts of the lake are restored.

        Args:
            journal: The folder, or prefix in S3, of a journal's copy made by a lake with this key, or of receipts.
            progress: Called with the current step and its completed share, 0 to 1.

        Returns:
            Which entries were new, and what was done.

        Raises:
            UsageError: There is no journal.
            LakeError: An entry was not written by a lake with this key; nothing was changed.
        """
        from stedi.erasure import replay

        self.context.refuse_copied()
        # before the locks: copies can be far away, and wrong ones change nothing
        place = destinations.expanded(s3.at(journal)).absolute()
        done = replay.replay(self.context, self.key(), place, progress=progress)
        if done.complete:
            self.context.accept()
        return done

    def preview_erasure(self, *addresses: str | Iterable[str], exact: bool = False) -> ErasurePreview:
        """Returns what an erasure would remove; read-only."""
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
            UsageError: There is no such receipt.
        """
        from stedi.erasure.report import Receipt, ReceiptCheck

        found, key = receipts.find(self.root, named), self.key()
        return ReceiptCheck(Receipt.of(found), tombstones.vouches(self.root, key, self.config.lake_id, found))

    def _asked(self, addresses: Sequence[str | Iterable[str]], *, exact: bool) -> tuple[str, ...]:
        """Returns the given addresses in normal form; a text without @ only if a landed record has it as its address.

        Raises:
            UsageError: One is invalid.
        """
        from stedi.privacy.addresses import complaint, of_values, taken  # its patterns take time to compile

        found = taken(of_values(*addresses), exact=exact)
        bare = [address for address in found if "@" not in address]
        if bare:
            from stedi.audit.explain import subjects

            key, met = self.key(), subjects.delivered(self.context, bare)
            # by its place: messages show no address
            for place, address in enumerate(found, start=1):
                if address in bare and address not in met and not tombstones.erased_at(self.root, key, address):
                    raise UsageError(
                        f"address {place}: expected the address of a customer as it was delivered, "
                        f"{complaint(address)}; no record has it as its address; nothing was done"
                    )
        return found

    def _workers(self, engine: Name) -> Workers | None:
        """Returns the workers of an engine on other machines, or None if this process does the work."""
        if engine not in get_args(Name):
            raise UsageError(f"expected one of {', '.join(get_args(Name))}, found {engine!r}", argument="engine")
        if engine == "duckdb":
            return None
        from stedi.engines.spark import session
        from stedi.engines.workers import Executors

        # on this machine, too, a task may fail a few times, as it may on a cluster
        return Executors(session(master="local[*,4]", with_s3=s3.is_remote(self.root)))


def _table(state: TableState) -> Table:
    current = state.current
    if current is None:
        return Table(state.name, ALL_ZONES[state.name], 0, 0, None, None)
    rows, size = current.total("records"), current.total("files-size")
    return Table(state.name, ALL_ZONES[state.name], rows, size, current.id, current.at)
