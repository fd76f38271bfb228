"""An open lake: its folder, settings, catalog and key, and the checks that every command makes.

`Context.open` compares the lake's place with those that its tables name. A command writes in a block of
`Context.writing`: it refuses a copy and a lake that was rolled back, finishes what was interrupted, takes the command's
locks, refuses once more what could have begun until then, and records afterwards the state that the lake has reached.
`Context.mending` is its counterpart for the commands that put a lake right, `Context.locked` the locks alone.
`creation` makes a lake, `places` checks where one may be, `seen` is the record of its last known state outside the
lake, `runs` the history of commands, `access` the access log.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

from stedi._frozen import replace
from stedi.catalog import Catalog, TableState, snapshots
from stedi.context import places
from stedi.context.progress import Progress, run_id, silent
from stedi.errors import DamagedCatalog, KeyRefused, LakeError
from stedi.privacy import key_change, pseudonyms, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.storage import config as settings
from stedi.storage import copies, destinations, durable, s3
from stedi.storage.config import Config
from stedi.storage.durable import Command

if TYPE_CHECKING:
    from stedi.context.runs import Observer, Run


class Recoveries(Protocol):
    """What finishes the work of interrupted commands, if there is any (`operations.recovery`)."""

    def finish_rotation(self, context: Context, progress: Progress) -> None:
        """Finishes a key rotation, under locks of its own."""

    def finish_release(self, context: Context, progress: Progress) -> None:
        """Finishes a release, under locks of its own."""

    def finish_erasure(self, context: Context, progress: Progress) -> None:
        """Finishes an erasure, under locks of its own."""

    def finish_landings(self, context: Context) -> None:
        """Finishes landings; the caller holds their lock."""


class Context:
    """An existing lake, with what every verb needs of it.

    Attributes:
        root: The folder, or prefix in S3.
        config: Its settings.
        catalog: Its tables.
        say: Called with messages that do not stop a command.
        run: The run under way, while a verb writes (`runs`).
        observers: Told of the runs as they begin and end.
        recoveries: What `writing` finishes; `Lake` sets it, since the modules that do it stand above this one.
    """

    recoveries: Recoveries

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root
        self.config = config
        self.catalog = Catalog(root)
        self.say: Callable[[str], None] = lambda line: None
        self.run: Run | None = None
        self.observers: list[Observer] = []
        self._told = False
        self._copied = copies.home(root)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a lake, as `Lake.open` does; one that was copied or moved, and not adopted, only for reading."""
        root, config = found(path)
        if not s3.is_remote(root):
            try:
                root = places.spelled(root, snapshots.listed(root / "catalog.db"))
            except DamagedCatalog:  # its reader reports it, and `repair` fixes it
                copies.unregister(root)
        if not copies.known(root):  # otherwise a copy's old registration would remain
            copies.refuse_unfinished(root)
        if config.shared and not copies.known(root) and not s3.is_remote(root):
            durable.share(root)
        decided = key_change.pending(root)
        if decided is not None:  # the lake uses the new key, even if its settings name the old one
            # the environment outweighs settings, and so what will be written into them
            file = os.environ.get("STEDI_KEY_FILE") or decided.key_file
            config = replace(config, key_fingerprint=decided.fingerprint, key_file=file)
        return cls(root, config)

    def key(self) -> Key:
        """Returns the lake's pseudonym key.

        Raises:
            KeyRefused: It is missing, or is not the key that this lake was made with.
        """
        from stedi.privacy import secrets_manager

        key = pseudonyms.from_environment()
        if key is None:
            place = self.config.key_file or str(pseudonyms.default_file(self.config.lake_id))
            key = (
                secrets_manager.read(place)
                if secrets_manager.names(place)
                else pseudonyms.from_file(destinations.expanded(place))
            )
        key = key.of_version(self.config.key_version)
        if key.fingerprint != self.config.key_fingerprint:
            raise KeyRefused(
                f"{self.root}: expected the pseudonym key with fingerprint "
                f"{self.config.key_fingerprint}, found one with "
                f"{key.fingerprint}; set STEDI_PSEUDONYM_KEY or STEDI_KEY_FILE to this lake's key; "
                "nothing was read or written"
            )
        key_change.confirm(self.root, key)
        return key

    def key_place(self) -> str:
        """Returns where the lake's key is looked for: the name of a variable, or a file."""
        if pseudonyms.VARIABLE in os.environ:
            return pseudonyms.VARIABLE
        return self.config.key_file or str(pseudonyms.default_file(self.config.lake_id))

    def outside(self) -> Path:
        """Returns the folder outside the lake with the record of its last state and copies of its journal."""
        from stedi.context import seen
        from stedi.privacy import secrets_manager

        named = self.key_place()
        # a key that is no file has no folder
        file = None if named == pseudonyms.VARIABLE or secrets_manager.names(named) else named
        return seen.place(self.config.lake_id, self.config.journal_path, file)

    def last_seen(self) -> str:
        """Returns the SHA-256 of the last entry of the journal that was seen of the lake; empty if none was."""
        from stedi.context import seen

        try:
            mark = seen.read(self.outside(), self.config.lake_id, self.key())
        except OSError:
            return ""
        return mark.digest if mark is not None else ""

    def older(self) -> tuple[str, str, str] | None:
        """Returns what in the lake is older than its recorded state: the thing, the recorded and the found value."""
        from stedi.context import seen

        try:
            key = self.key()
        except KeyRefused:  # without it nothing can be compared; commands that need it report it
            return None
        try:
            mark = seen.read(self.outside(), self.config.lake_id, key)  # before the lake, which may move on
        except OSError:
            return None
        if mark is None:
            return None
        found = seen.older(mark, seen.now(self.catalog, self.root, key), self.root, key)
        if found is not None:
            self.catalog.tables()  # raises if only the catalog is older than its tables, which `repair` fixes
        return found

    def seen_access(self) -> tuple[int, str]:
        """Returns how far the access log was when it was last seen: number and seal of a line."""
        from stedi.context import seen

        try:
            mark = seen.read(self.outside(), self.config.lake_id, self.key())
        except (KeyRefused, OSError):
            return 0, ""
        return mark.access if mark else (0, "")

    def refuse_copied(self) -> None:
        """Refuses to write into a folder that was copied or moved, and not adopted since it was opened.

        Raises:
            CopiedLake: It was.
        """
        if self._copied is not None:
            raise copies.refused(self.root, self._copied)

    def refuse_older(self) -> None:
        """Refuses a lake that is older than its recorded state: a withdrawal or an erasure may be undone in it.

        Raises:
            LakeError: It is.
        """
        found = self.older()
        if found is not None:
            what, expected, there = found
            raise LakeError(
                f"{self.root}: expected {what} as new as the last one seen ({expected}), found {there}: the lake "
                "was rolled back, and withdrawals or erasures may be undone; run `stedi erase --replay "
                f"{self.outside()}`, or `stedi repair --accept-rollback`; nothing was changed"
            )

    @contextmanager
    def writing(
        self,
        *commands: Command,
        wait: bool = True,
        advice: str = durable.LATER,
        keyless: bool = False,
        erasing: bool = False,
        progress: Progress = silent,
    ) -> Iterator[None]:
        """Lets a command write during a block, after which the lake's state is recorded.

        Before the block it refuses what must not be written to, finishes what was interrupted, and takes the locks.

        Args:
            commands: Whose locks are held. With `land` there is no unfinished landing.
            wait: Whether to wait for other runs of them; maintenance, which holds a table for moments, is waited for.
            advice: What to do where another is running and `wait` is False, for the message.
            keyless: Whether the command does without the lake's key. Others are refused before a lock's file is made.
            erasing: Whether the command itself finishes an interrupted erasure.
            progress: Called with what is waited for or being finished, and its completed share.

        Raises:
            CopiedLake: The folder was copied or moved, and not adopted since it was opened.
            LakeError: The lake is older than what was seen of it, or an erasure was interrupted while this waited.
            KeyRefused: The lake's key is missing, or was changed while this waited.
            LakeBusy: Another command is running and `wait` is False, or a key rotation was interrupted meanwhile.
        """
        self.refuse_copied()
        self.refuse_older()
        self.recoveries.finish_rotation(self, progress)
        self.recoveries.finish_release(self, progress)
        if not erasing:
            self.recoveries.finish_erasure(self, progress)
        if not keyless:
            self.key()
        wait = wait or durable.is_held(self.root / "maintain.lock")
        with self.locked(*commands, wait=wait, advice=advice, progress=progress):
            # the key makes pseudonyms below landing, and seals journals; what does without it has none of either
            if "build" in commands or not keyless:
                key_change.refuse_other(self.root, self.config.key_fingerprint)
            else:
                key_change.refuse_unfinished(self.root)  # its staged files must stay until they are published
            if not erasing:
                tombstones.refuse_unfinished(self.root)
            if "land" in commands:  # before it reads the ledger: what a killed landing had decided counts as landed
                self.recoveries.finish_landings(self)
            yield
        # not after an error: a record that lags does no harm, and the next command that writes brings it up
        self.note_seen()

    @contextmanager
    def mending(self, *commands: Command, wait: bool = True, progress: Progress = silent) -> Iterator[None]:
        """Lets a command write that puts a damaged or rolled-back lake right, which `writing` refuses.

        Nothing but a key rotation is finished first: the rest may need what is damaged, or undo what is put right.
        Afterwards the command calls `accept`, if it has succeeded. Args and Raises: as for `writing`.
        """
        self.refuse_copied()
        self.key()
        self.recoveries.finish_rotation(self, progress)
        with self.locked(*commands, wait=wait, progress=progress):
            yield

    def locked(
        self,
        *commands: Command,
        wait: bool = True,
        advice: str = durable.LATER,
        progress: Progress = silent,
    ) -> AbstractContextManager[None]:
        """Holds the locks of commands during a block, and does nothing else that `writing` does.

        For a command that works part by part, for what `writing` finishes, and for a folder that is no lake yet.
        """
        return durable.commands(self.root, commands, lambda what: progress(what, None), wait=wait, advice=advice)

    def note_seen(self, *, set_back: bool = False, without: Collection[str] = ()) -> None:
        """Records the lake's state outside the lake, and copies new entries of its journal.

        Args:
            set_back: Whether the lake was rolled back on purpose: then the record follows it.
            without: Tables whose state is not recorded.
        """
        from stedi.context import access, seen
        from stedi.privacy import journal

        folder, key = self.outside(), None
        try:
            key = self.key()
            before = None if set_back else seen.read(folder, self.config.lake_id, key)
            found = seen.now(self.catalog, self.root, key, without)
            if before is not None and not access.goes_on_from(self.root, before.access):
                found = replace(found, access=before.access)  # an incomplete state stays detectable
            if before is not None and found.receipts < before.receipts:
                self.say(
                    f"receipts: expected {before.receipts:,} of erasures, found {found.receipts:,}: restore the "
                    "missing ones from a copy; `stedi audit` names the receipts that follow them"
                )
                found = replace(found, receipts=before.receipts)
            # another command may have recorded a later state
            if before != found and not (before and seen.older(before, found, self.root, key)):
                journal.copy(self.root, folder, before.number if before and before.tables else 0)
                seen.write(folder, self.config.lake_id, key, found)
        except KeyRefused:
            return
        except OSError as error:
            told, self._told = self._told, True
            if told:
                return
            self.say(
                f"{folder}: the lake's state cannot be recorded there ({error.strerror}), so a later rollback would "
                "not be detected; what the command has done stays. Set journal.path to a writable folder"
            )

    def accept(self) -> None:
        """Accepts a lake that is older than its recorded state: the rollback was deliberate."""
        if self.older() is not None:
            self._accept_rollback()
        self.note_seen()

    def forget(self, tables: Collection[str]) -> None:
        """Takes tables that are about to be made anew out of the record; the caller holds the lock of landings.

        Killed before `accept`, the lake would otherwise be refused as rolled back, by the next repair, too.
        """
        self._record_reset(tables)
        self.note_seen(set_back=True, without=tables)

    def _accept_rollback(self) -> None:
        with self.locked("land"):
            self._record_reset()
        self.note_seen(set_back=True)

    def _record_reset(self, without: Collection[str] = ()) -> None:
        """Records in the journal that the lake is older on purpose, for machines with a later record."""
        from stedi.context import seen
        from stedi.privacy import journal

        key = self.key()
        before = seen.read(self.outside(), self.config.lake_id, key)
        content = seen.to_json(seen.now(self.catalog, self.root, key, without))
        beyond = before.number if before else 0
        journal.append(self.root, key, self.config.lake_id, "reset", run_id(), content, beyond=beyond)

    @contextmanager
    def temporary(self) -> Iterator[Path]:
        """Gives a folder for what does not fit into memory, this user's alone."""
        with durable.workspace(self.root) as folder:
            yield folder

    def further_claimants(self, key: Key) -> Callable[[str], int]:
        """Returns what tells how many claim a serial number besides the customers of landing, and never move."""
        return partial(tombstones.read(self.root, key).claimants, key)

    def erased_claims(self) -> str | None:
        """Returns by what tables tell which claims of erased customers they know; None if that needs the missing key.

        Without tombstones it needs none.

        Raises:
            LakeError: The tombstones are not what this lake has written.
        """
        try:
            return tombstones.read(self.root, self.key()).claims_digest(self.key())
        except KeyRefused:
            return None if tombstones.any_of(self.root) else ""

    def pinned_with_landings(self) -> tuple[dict[str, TableState], set[str]]:
        """Returns the tables at one moment, and the landings that had committed to only some of their tables."""
        while True:
            # a landing commits table by table: only between two equal looks is it known which had not ended
            states = self.catalog.tables()
            pending = {path.stem for path in (self.root / "pending").glob("*.json")}
            after = self.catalog.tables()
            # a landing that is half committed before and after has had its journal all the while
            if all(after[name].current == state.current for name, state in states.items()):
                return states, pending


def found(path: str | os.PathLike[str]) -> tuple[Path, Config]:
    """Returns the folder of a lake and its settings.

    Raises:
        LakeError: There is no lake, or part of it leads elsewhere.
        ConfigError: Its settings are unknown or invalid.
    """
    root = places.named(path)
    if not s3.is_remote(root) and root.is_dir():
        places.refuse_links(root)
    if not (root / "lake.toml").is_file():
        if not s3.is_remote(root) and (root / "catalog.db").is_file() and (root / "landing").is_dir():
            raise LakeError(
                f"{path}: expected a lake's settings in lake.toml, found a catalog without them: restore lake.toml "
                "from a backup; or, if `stedi init` was interrupted, run `stedi init` again"
            )
        raise LakeError(
            f"{path}: expected a lake, found none; create one with `stedi --lake {path} init`, or land into it"
        )
    return root, settings.read(root / "lake.toml")


def milliseconds(moment: datetime) -> int:
    """Returns an instant as milliseconds of the epoch."""
    return round(moment.timestamp() * 1000)
