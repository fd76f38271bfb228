"""A lake, from Python: one folder, opened, and the verbs that the command line has.

Each verb is one call into the module that does the work; the lake only knows where things lie.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from stedi import build as building
from stedi import config as settings
from stedi import durable, leftovers, making, moments, s3, tables
from stedi.build import Build, Plan
from stedi.catalog import Catalog, Snapshot, TableState
from stedi.config import Config, Readings, Role
from stedi.engines import Name
from stedi.errors import KeyRefused, LakeError, QueryRefused, UsageError
from stedi.privacy import handover, pseudonyms, receipts, secret, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.tables import DUCKDB_TYPES, ZONES

if TYPE_CHECKING:
    from stedi.audit import Check
    from stedi.explain import ExplainedRow, Explanation
    from stedi.landing import Landing, Progress
    from stedi.landing.quarantine import Quarantine
    from stedi.landing.withdrawal import Withdrawal
    from stedi.maintain import Maintenance
    from stedi.privacy.audit import Proof
    from stedi.privacy.receipts import Receipt
    from stedi.privacy.risk import Risk
    from stedi.query import Result
    from stedi.repair import Repair
    from stedi.rotation import Rotation
    from stedi.workers import Workers


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

    Example:
        >>> lake = stedi.Lake.open("lake")
        >>> lake.land("inbox")
        >>> lake.build()
        >>> lake.query("select count(*) from machine_learning_curated").arrow()
    """

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root
        self.config = config
        self.catalog = Catalog(root)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Lake:
        """Opens a lake.

        Args:
            path: The lake's folder.

        Raises:
            LakeError: There is no lake.
            ConfigError: Its settings are not what is known.
        """
        root = s3.at(path).absolute()
        if not (root / "lake.toml").is_file():
            raise LakeError(
                f"{path}: expected a lake, found none; make one with `stedi --lake {path} init`, or land into it"
            )
        config = settings.read(root / "lake.toml")
        if config.shared:
            root.chmod(0o750)
            os.umask(0o027)  # what is written from here on, its owner's group may read
        decided = handover.pending(root)
        if decided is not None:  # the lake is the new key's, whatever its settings still say
            file = os.environ.get("STEDI_KEY_FILE") or decided.key_file
            config = replace(config, key_fingerprint=decided.fingerprint, key_file=file)
        return cls(root, config)

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        *,
        readings: Readings = "all",
        key_file: str | os.PathLike[str] | None = None,
    ) -> Lake:
        """Makes a lake: settings, catalog and, unless the environment has one, a pseudonym key outside of it.

        Args:
            path: A folder that is empty or not there yet.
            readings: Which readings of a consenting customer are used (rule 4 of consent).
            key_file: Where the key is, or is to be made; by default in the user's configuration folder.

        Raises:
            UsageError: The folder holds something else, or a lake, or its path cannot be a table's location.
            KeyRefused: No key can be made or read.
        """
        making.make(path, readings, key_file)
        return cls.open(path)

    @classmethod
    def open_or_create(cls, path: str | os.PathLike[str]) -> Lake:
        """Opens a lake, or makes one with the defaults where there is none yet."""
        made = s3.at(path) / "lake.toml"
        if not made.is_file():
            try:
                return cls.create(path)
            except UsageError:
                if not made.is_file():  # or another command made it meanwhile
                    raise
        return cls.open(path)

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

    def withdraw(
        self,
        addresses: str | Iterable[str],
        *,
        now: datetime | None = None,
        progress: Progress = lambda what, share: None,
    ) -> Withdrawal:
        """Lands a withdrawal from research of each of these customers; the next build takes them out.

        A record from the website that is newer and agrees again brings a customer back; an older one does not, whenever
        it arrives, and whether the lake knew the customer or not.

        Args:
            addresses: The customers, in any spelling of their addresses; or one of them.
            now: When they withdraw; the clock's time by default.
            progress: Told what is being done and the share of it that is done.

        Returns:
            How many withdrawals were landed, and how many were there already.

        Raises:
            UsageError: An address is none; nothing was landed.
        """
        from stedi.landing import withdrawal

        at = None if now is None else _ms(now)
        asked = [addresses] if isinstance(addresses, str) else addresses
        key = self.key()
        self._finish(progress)
        return withdrawal.withdraw(self.catalog, self.config, key, self.root, asked, now=at, progress=progress)

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
            handover.refuse_other(self.root, self.config.key_fingerprint)
            tombstones.refuse_unfinished(self.root)
            self._finish_landings()
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
        handover.refuse_unfinished(self.root)
        return building.preview(self.catalog, self.config, key, now, full=full)

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
        from stedi import maintain

        if not dry_run:
            self._finish(progress)
        workers = None if dry_run else self._workers(engine)
        return maintain.maintain(
            self.catalog, self.config, self.root, dry_run=dry_run, progress=progress, workers=workers
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

        wanted = query.referenced(sql)
        states = [state for state in self.catalog.tables().values() if state.name.lower() in wanted]
        found = zip(states, moments.pinned(states, at), strict=True)
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
        from stedi import query
        from stedi.privacy import classes, roles

        wanted = query.referenced(sql)
        states = [state for state in self.catalog.tables().values() if state.name.lower() in wanted]
        role = role or self.config.query_role
        if role not in roles.GRANTS:
            raise UsageError(f"role: expected one of {', '.join(roles.GRANTS)}, found {role!r}")
        grant = roles.GRANTS[role]
        # a name that the statement itself defines stands before any table's
        hidden = [state.name for state in states if state.name not in grant.tables]
        states = [state for state in states if state.name in grant.tables]
        lineage = classes.Lineage(tables.graph()) if grant.masked else None
        relations = []
        for state, snapshot in zip(states, moments.pinned(states, at), strict=True):
            columns = tuple((column.name, DUCKDB_TYPES[column.type]) for column in state.columns)
            files = tuple(file.path for file in self.catalog.files(state, snapshot)) if snapshot else ()
            kinds = lineage.classes(state.name) if lineage else {}
            masked = frozenset(name for name, kind in kinds.items() if kind in grant.masked)
            relations.append(query.Relation(state.name, files, columns, masked))
        handover.refuse_unfinished(self.root)
        limits = query.Limits(
            memory=self.config.query_memory, seconds=self.config.query_seconds, threads=self.config.threads
        )
        try:
            return query.run(sql, relations, limits, temporary=durable.scratch(self.root))
        except QueryRefused as error:
            if not hidden:
                raise
            raise QueryRefused(
                f"The role {role} sees {', '.join(sorted(grant.tables))} and no other table, "
                f"found {', '.join(hidden)}. Nothing was run."
            ) from error

    def explain(self, address: str, *, now: datetime | None = None) -> Explanation:
        """Explains one customer: consent and its history, rows by table, and what is left out and why.

        Args:
            address: Whose, in any spelling; one that the lake does not know gets an answer of the same shape.
            now: The instant at which consent is asked for; the clock's time by default.

        Raises:
            UsageError: It is no address.
        """
        from stedi import explain
        from stedi.landing import withdrawal

        [normal] = withdrawal.addresses([address])
        at, key = _ms(now or datetime.now(UTC)), self.key()
        handover.refuse_unfinished(self.root)
        with self._temporary() as folder:
            return explain.explain(self.catalog, self.config, key, self.root, normal, at, folder)

    def explain_rows(self, table: str, where: str) -> tuple[tuple[ExplainedRow, ...], bool]:
        """Explains the first rows of a table that meet a condition: whose they are, why they are there, and from where.

        Args:
            table: The table.
            where: What stands after WHERE; it runs in the same closed process as a query.

        Returns:
            The rows, and whether there are more.

        Raises:
            UsageError: There is no such table.
            QueryRefused: The condition is not one.
            QueryFailed: It failed.
        """
        from stedi import explain

        rows, more = explain.chosen(table, where, lambda sql: self.query(sql, role="officer").arrow().to_pylist())
        since_consent = self.config.readings == "since-consent"
        with (
            self._temporary() as folder,
            explain.session(self.catalog, self.config, self.catalog.tables(), folder) as engine,
        ):
            now = _ms(datetime.now(UTC))
            found = explain.explain_rows(engine, self.root, self.key(), table, rows, now, since_consent=since_consent)
        return found, more

    def tables(self) -> tuple[Table, ...]:
        """Returns every table with its zone, rows, size and freshness, in the order in which data flow."""
        return tuple(_table(state) for state in self.catalog.tables().values())

    def history(self, table: str) -> tuple[Snapshot, ...]:
        """Returns a table's snapshots, newest first, with what each was built from."""
        return self.catalog.table(table).history()

    def quarantine(self) -> Quarantine:
        """Returns the records that could not be taken: to list, to look at, to land again."""
        from stedi.landing.quarantine import Quarantine

        return Quarantine(self.catalog, self.config, self.root)

    def withheld(self) -> list[tuple[datetime, str, int, int]]:
        """Returns the readings of shared serial numbers that belong to nobody for certain (rule 6 of consent).

        Returns:
            Of each: time of the reading, serial number, distance, and how many claimants moved at that moment.
        """
        key = self.key()
        handover.refuse_unfinished(self.root)
        return building.withheld(self.catalog, self.config, key, durable.scratch(self.root))

    def audit(
        self,
        *,
        files: bool = False,
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> tuple[Check, ...]:
        """Checks that every file of the tables is there and is what was written; changes nothing.

        Args:
            files: Read every file and compare its SHA-256, rather than look at sizes and metadata alone.
            engine: With `spark` its executors read the files.
            progress: Told what is looked at and the share of it that is done.

        Returns:
            What each check found of each table.
        """
        from stedi.audit import audit

        workers = self._workers(engine) if files else None
        return audit(self.catalog, files=files, threads=self.config.threads, progress=progress, workers=workers)

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
        from stedi.engines import opened
        from stedi.privacy import audit

        key = self.key()
        states, pending = self._pinned_with_landings()
        handover.refuse_other(self.root, self.config.key_fingerprint)
        temporary = durable.scratch(self.root) / f"audit-{secrets.token_hex(8)}"
        try:
            with opened(engine, self.config, self.root, temporary) as session:
                return audit.prove(
                    self.catalog,
                    key,
                    session,
                    now=int(datetime.now(UTC).timestamp() * 1000),
                    policy=building.policy(self.config),
                    states=states,
                    pending=pending,
                    besides=self._further_claimants(key),
                    progress=progress,
                )
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def risk(self) -> Risk:
        """Measures how many customers the training table would single out, by what somebody may know of them."""
        from stedi.engines.duckdb import DuckDB
        from stedi.privacy import risk

        config, temporary = self.config, durable.scratch(self.root) / f"risk-{secrets.token_hex(8)}"
        try:
            with DuckDB(memory=config.engine_memory, threads=config.threads, temporary=temporary) as engine:
                return risk.measure(engine, self.catalog)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def repair(self, *, progress: Progress = lambda what, share: None) -> tuple[Repair, Build]:
        """Sets right what an audit of all files finds damaged, and builds what was made anew.

        Returns:
            What was set right, and the build that followed.

        Raises:
            LakeError: A landing table is damaged; no table was changed.
            LakeBusy: A landing or a build is running; nothing was done.
        """
        from stedi.repair import repair

        self.key()
        self._finish_rotation(progress)
        with (
            durable.lock(self.root / "build.lock", wait=False),
            durable.lock(self.root / "land.lock", wait=False),
        ):
            repaired = repair(self.catalog, threads=self.config.threads, progress=progress)
        return repaired, self.build(wait=True, progress=lambda line: progress(line, None))

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
        from stedi import rotation
        from stedi.landing import journal

        key = self.key()
        self._finish(progress)
        with durable.commands(self.root, durable.ALL, lambda what: progress(what, None)):
            handover.refuse_other(self.root, self.config.key_fingerprint)
            tombstones.refuse_unfinished(self.root)
            journal.finish(self.catalog, self.root / "pending")
            leftovers.sweep(self.catalog, tuple(ZONES), self.config.grace_hours * 3600)
            # the tables must be up to date: what they were built from is then what they would be built from
            building.build(self.catalog, self.config, key, self.root, progress=lambda line: progress(line, None))
            done = rotation.rotate(
                self.catalog,
                self.config,
                self.root,
                key,
                None if to is None else Path(to),
                besides=self._further_claimants(key),
                progress=progress,
            )
        self.config = Lake.open(self.root).config
        return done

    def erase(
        self,
        *addresses: str,
        inbox: Sequence[str | os.PathLike[str]] = (),
        engine: Name = "duckdb",
        progress: Progress = lambda what, share: None,
    ) -> list[dict[str, Any]]:
        """Erases customers: everything of them leaves the lake and, if it is named, the inbox, and stays out.

        Args:
            addresses: Their addresses, in any spelling; none only finishes an erasure that was cut off.
            inbox: Delivered files and folders to rewrite without them.
            engine: With `spark` its executors look through the tables' files, write them anew, and search every file.
            progress: Told what is being done and the share of it that is done.

        Returns:
            The receipts: of an erasure that was cut off and is finished now, if there was one, and of this one.

        Raises:
            AuditFailed: Something in the lake still holds one of them; the message names the files.
        """
        from stedi import erasure

        places = [os.fspath(path) for path in inbox]
        self._finish_rotation(progress)
        return erasure.erase(
            self.catalog,
            self.config,
            self.root,
            self.key(),
            addresses,
            delivered=places,
            progress=progress,
            workers=self._workers(engine),
        )

    def preview_erasure(self, *addresses: str) -> dict[str, Any]:
        """Returns what an erasure would remove: `customers` known, `rows` and `files` by table; changes nothing."""
        from stedi import erasure

        return erasure.preview(self.catalog, self.config, self.root, self.key(), addresses)

    def receipts(self) -> list[Receipt]:
        """Returns the receipts of all erasures, oldest first."""
        return receipts.listed(self.root)

    def verify_receipt(self, named: str) -> tuple[Receipt, bool]:
        """Returns a receipt, by its id or the path of its file, and whether this lake's key has signed it.

        Raises:
            UsageError: There is none.
        """
        receipt = receipts.find(self.root, named)
        return receipt, receipts.holds(self.key(), receipt)

    def key(self) -> Key:
        """Returns the lake's pseudonym key.

        Raises:
            KeyRefused: It is missing, or is not the key that this lake was made with.
        """
        key = pseudonyms.from_environment()
        if key is None:
            place = self.config.key_file or str(pseudonyms.default_file(self.config.lake_id))
            key = secret.read(place) if secret.names(place) else pseudonyms.from_file(Path(place))
        if key.fingerprint != self.config.key_fingerprint:
            raise KeyRefused(
                f"{self.root}: expected the pseudonym key with fingerprint "
                f"{self.config.key_fingerprint}, found one with "
                f"{key.fingerprint}; set STEDI_PSEUDONYM_KEY or STEDI_KEY_FILE to this lake's key; "
                "nothing was read or written"
            )
        return key

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Gives a folder for what does not fit into memory: the lake may be read-only, so it is the system's."""
        with tempfile.TemporaryDirectory(prefix="stedi-") as folder:
            yield Path(folder)

    def key_place(self) -> str:
        """Returns where the lake's key is looked for: the name of a variable, or a file."""
        if pseudonyms.VARIABLE in os.environ:
            return pseudonyms.VARIABLE
        return self.config.key_file or str(pseudonyms.default_file(self.config.lake_id))

    def _workers(self, engine: Name) -> Workers | None:
        """Returns who works for an engine on other machines, or None where this process does."""
        if engine not in get_args(Name):
            raise UsageError(f"engine: expected one of {', '.join(get_args(Name))}, found {engine!r}")
        if engine == "duckdb":
            return None
        from stedi.engines.spark import session
        from stedi.workers import Executors

        # on this machine, too, a task may fail a few times, as it may on a cluster
        return Executors(session(master="local[*,4]", with_s3=s3.is_remote(self.root)))

    def _finish_rotation(self, progress: Progress) -> None:
        """Finishes a change of key that was cut off; one that is alive is waited for."""
        if handover.left(self.root):
            from stedi import rotation

            with durable.commands(self.root, durable.ALL, lambda what: progress(what, None)):
                rotation.finish(self.catalog, self.root, progress)

    def _further_claimants(self, key: Key) -> Callable[[str], int]:
        """Returns what tells how many claim a serial number besides the customers of landing, and never move."""
        return partial(tombstones.read(self.root, key).claimants, key)

    def _pinned_with_landings(self) -> tuple[dict[str, TableState], set[str]]:
        """Returns the tables at one moment, and the landings that had committed to some of their tables alone."""
        while True:
            states = self.catalog.tables()
            pending = {path.stem for path in (self.root / "pending").glob("*.json")}
            after = self.catalog.tables()
            # a landing that is half committed before and after has had its journal all the while
            if all(after[name].current == state.current for name, state in states.items()):
                return states, pending

    def _finish(self, progress: Progress) -> None:
        """Finishes what was cut off and must not be: a change of key, an erasure; one that is alive is waited for."""
        self._finish_rotation(progress)
        if (self.root / tombstones.PENDING).exists():
            self.erase(progress=progress)

    def _finish_landings(self) -> None:
        """Finishes what a landing that died has left; one that is alive finishes its own."""
        if any((self.root / "pending").glob("*.json")):
            from stedi.errors import LakeBusy
            from stedi.landing import journal

            try:
                with durable.lock(self.root / "land.lock", wait=False):
                    journal.finish(self.catalog, self.root / "pending")
            except LakeBusy:
                return


def _table(state: TableState) -> Table:
    current = state.current
    if current is None:
        return Table(state.name, ZONES[state.name], 0, 0, None, None)
    updated = datetime.fromtimestamp(current.at / 1000, UTC)
    rows, size = current.total("records"), current.total("files-size")
    return Table(state.name, ZONES[state.name], rows, size, current.id, updated)


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
