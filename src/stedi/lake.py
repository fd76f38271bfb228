"""A lake, from Python: one folder, opened, and the verbs that the command line has.

Each verb is one call into the module that does the work; the lake only knows where things lie.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from stedi import transform as building
from stedi.catalog import Snapshot, TableState, leftovers, time_travel
from stedi.context import Progress, milliseconds, writes
from stedi.engines import Name
from stedi.errors import QueryRefused, UsageError
from stedi.persons import Persons
from stedi.privacy import key_change, tombstones
from stedi.schema import tables
from stedi.schema.roles import Role
from stedi.schema.tables import DUCKDB_TYPES, ZONES
from stedi.storage import durable, s3
from stedi.transform import Build, Plan

if TYPE_CHECKING:
    from stedi.audit.explain import ExplainedRow
    from stedi.audit.integrity import Check
    from stedi.landing import Landing
    from stedi.landing.quarantine import Quarantine
    from stedi.maintenance import Maintenance
    from stedi.maintenance.repair import Repair
    from stedi.query import Limits, Relation, Result


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


class Lake(Persons):
    """A lake folder that exists; `Lake.open` and `Lake.create` give one.

    Example:
        >>> lake = stedi.Lake.open("lake")
        >>> lake.land("inbox")
        >>> lake.build()
        >>> lake.query("select count(*) from machine_learning_curated").arrow()
    """

    @writes
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

        key = self.key()
        self._finish(progress)
        return landing.land(
            self.catalog,
            self.config,
            self.root,
            [s3.at(p) for p in paths],
            feed=feed,
            progress=progress,
            key=key,
            workers=self._workers(engine),
        )

    @writes
    def build(
        self,
        *,
        full: bool = False,
        wait: bool = False,
        engine: Name = "duckdb",
        progress: building.Progress = lambda line: None,
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
        key = self.key()
        self._finish(lambda what, share: progress(what))
        with durable.lock(
            self.root / "build.lock",
            wait=wait or durable.is_held(self.root / "maintain.lock"),
            waiting=lambda: progress("waiting for another build"),
            advice="wait for it with --wait, or run this again when it has ended",
        ):
            key_change.refuse_other(self.root, self.config.key_fingerprint)
            tombstones.refuse_unfinished(self.root)
            self._finish_landings()
            self._land_what_waits(key)
            grace = self.config.grace_hours * 3600
            leftovers.sweep(self.catalog, [table.name for table in tables.graph().tables()], grace)
            return building.build(
                self.catalog, self.config, key, self.root, full=full, progress=progress, engine=engine
            )

    def plan(self, *, full: bool = False) -> Plan:
        """Returns what `build` would do to each table, why, and which customers would come and go; changes nothing.

        Args:
            full: As for `build`.
        """
        now, key = int(datetime.now(UTC).timestamp() * 1000), self.key()
        key_change.refuse_unfinished(self.root)
        return building.preview(self.catalog, self.config, key, now, full=full)

    @writes
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

        if not dry_run:
            self._finish(progress)
        workers = None if dry_run else self._workers(engine)
        return maintenance.maintain(
            self.catalog,
            self.config,
            self.root,
            key=self.key,
            dry_run=dry_run,
            progress=progress,
            workers=workers,
        )

    def snapshots(self, sql: str, at: int | str | datetime) -> dict[str, int]:
        """Returns the snapshot that a SELECT is to read of each table that it names, by the table, as of a time.

        Args:
            sql: The SELECT, in DuckDB's dialect.
            at: A snapshot's id, or a time (ISO 8601; UTC unless it says otherwise).

        Raises:
            UsageError: A table has no live snapshot of that time.
        """
        from stedi import query

        wanted = query.referenced(sql, self._limits(), durable.scratch(self.root))
        states = [state for state in self.catalog.tables().values() if state.name in wanted]
        found = zip(states, time_travel.pinned(states, at), strict=True)
        return {state.name: snapshot.id for state, snapshot in found if snapshot}

    def query(self, sql: str, *, at: int | str | datetime | None = None, role: Role | None = None) -> Result:
        """Runs one SELECT over the lake's tables, read-only and out of reach of anything else.

        Args:
            sql: The SELECT, in DuckDB's dialect.
            at: A snapshot's id, or a time (ISO 8601; UTC unless it says otherwise): the tables as they were then.
            role: Whose eyes it has: other tables are not there for it, and columns that it must not see are null;
                by default the settings' `query.role`.

        Returns:
            A result that gives Arrow: `.arrow()`, or `.reader()` batch by batch.

        Raises:
            QueryRefused: It is not one SELECT over the lake's tables.
            QueryFailed: It ran out of time or memory, or a value in it failed.
        """
        return self._query(sql, at=at, role=role)

    def _query(
        self, sql: str, *, at: int | str | datetime | None = None, role: Role | None = None, condition: bool = False
    ) -> Result:
        from stedi import query

        key_change.refuse_unfinished(self.root)
        seen = partial(self._seen_by, role or self.config.query_role, at, places=condition)
        return query.run(sql, seen, self._limits(), durable.scratch(self.root), condition=condition)

    def _limits(self) -> Limits:
        from stedi import query

        return query.Limits(
            memory=self.config.query_memory, seconds=self.config.query_seconds, threads=self.config.threads
        )

    def _seen_by(
        self, role: Role, at: int | str | datetime | None, names: frozenset[str], *, places: bool
    ) -> list[Relation]:
        """Returns the tables of these names as a role sees them.

        Raises:
            UsageError: There is no such role, or a table has no live snapshot of that time.
            QueryRefused: The role does not see a table.
        """
        from stedi import query
        from stedi.schema import classification, roles

        if role not in roles.GRANTS:
            raise UsageError(f"role: expected one of {', '.join(roles.GRANTS)}, found {role!r}")
        grant = roles.GRANTS[role]
        states = [state for state in self.catalog.tables().values() if state.name in names]
        hidden = [state.name for state in states if state.name not in grant.tables]
        if hidden:
            raise QueryRefused(
                f"The role {role} sees {', '.join(sorted(grant.tables))} and no other table, "
                f"found {', '.join(hidden)}. Nothing was run."
            )
        lineage = classification.Lineage(tables.graph()) if grant.masked else None
        relations = []
        for state, snapshot in zip(states, time_travel.pinned(states, at), strict=True):
            columns = tuple((column.name, DUCKDB_TYPES[column.type]) for column in state.columns)
            files = tuple(file.path for file in self.catalog.files(state, snapshot)) if snapshot else ()
            kinds = lineage.classes(state.name) if lineage else {}
            masked = frozenset(name for name, kind in kinds.items() if kind in grant.masked)
            relations.append(query.Relation(state.name, files, columns, masked, places))
        return relations

    def explain_rows(
        self, table: str, where: str, *, role: Role | None = None
    ) -> tuple[tuple[ExplainedRow, ...], bool]:
        """Explains the first rows of a table that meet a condition: whose they are, why they are there, and from where.

        Args:
            table: The table.
            where: What stands after WHERE; it runs in the same closed process as a query.
            role: Whose eyes the condition has: columns that it must not see are null there; by default the settings'
                `query.role`.

        Returns:
            The rows, and whether there are more.

        Raises:
            UsageError: There is no such table.
            QueryRefused: The condition is not one, or reads a table that the role does not see.
            QueryFailed: It failed.
        """
        from stedi.audit import explain

        def run(role: Role | None, sql: str) -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = self._query(sql, role=role, condition=True).arrow().to_pylist()
            return found

        rows, more = explain.chosen(table, where, partial(run, role), partial(run, "officer"))
        since_consent = self.config.readings == "since-consent"
        with (
            self._temporary() as folder,
            explain.session(self.catalog, self.config, self.catalog.tables(), folder) as engine,
        ):
            now = milliseconds(datetime.now(UTC))
            explained = explain.explain_rows(
                engine, self.root, self.key(), table, rows, now, since_consent=since_consent
            )
        return explained, more

    def tables(self) -> tuple[Table, ...]:
        """Returns every table with its zone, rows, size and freshness, in the order in which data flow."""
        return tuple(_table(state) for state in self.catalog.tables().values())

    def history(self, table: str) -> tuple[Snapshot, ...]:
        """Returns a table's snapshots, newest first, with what each was built from."""
        return self.catalog.table(table).history()

    def quarantine(self) -> Quarantine:
        """Returns the records that could not be taken: to list, to look at, to land again."""
        from stedi.landing.quarantine import Quarantine

        return Quarantine(self.catalog, self.config, self.root, self.key, self.writing)

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
        from stedi.audit.integrity import audit, newest
        from stedi.erasure import evidence

        workers = self._workers(engine) if files else None
        kept = evidence.check(self.root, self.key(), self.config.lake_id)
        checks = audit(self.catalog, files=files, threads=self.config.threads, progress=progress, workers=workers)
        checks = (*checks, kept) if kept else checks
        # of what is damaged it cannot be told
        return checks if any(check.found for check in checks) else (*checks, newest(self.older()))

    def repair(
        self, *, accept_rollback: bool = False, progress: Progress = lambda what, share: None
    ) -> tuple[Repair, Build]:
        """Sets right what an audit of all files finds damaged, and builds what was made anew.

        Args:
            accept_rollback: Take a lake that was set back for the newest there is: withdrawals and erasures that are
                undone in it stay undone.
            progress: Told what is being done and the share of it that is done.

        Returns:
            What was set right, and the build that followed.

        Raises:
            LakeError: A landing table is damaged, or the lake was set back; no table was changed.
            LakeBusy: A landing or a build is running; nothing was done.
        """
        from stedi.maintenance.repair import repair

        self.refuse_copied()
        self.key()
        self._finish_rotation(progress)
        with (
            durable.lock(self.root / "build.lock", wait=False),
            durable.lock(self.root / "land.lock", wait=False),
        ):
            restored = (lambda: None) if accept_rollback else self.refuse_older
            repaired = repair(self.catalog, threads=self.config.threads, progress=progress, restored=restored)
        self._set_back()  # tables that were made anew begin to count anew
        return repaired, self.build(wait=True, progress=lambda line: progress(line, None))


def _table(state: TableState) -> Table:
    current = state.current
    if current is None:
        return Table(state.name, ZONES[state.name], 0, 0, None, None)
    updated = datetime.fromtimestamp(current.at / 1000, UTC)
    rows, size = current.total("records"), current.total("files-size")
    return Table(state.name, ZONES[state.name], rows, size, current.id, updated)
