"""A lake that is open: its folder, settings, catalog and key, and what every verb does first.

What was cut off and must not stay so is finished before anything else is written.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, Self, TypeVar, get_args

from stedi import config as settings
from stedi import copies, destinations, durable, making, places, s3
from stedi.catalog import Catalog, TableState, snapshots
from stedi.config import Config, Readings
from stedi.engines import Name
from stedi.errors import CommitConflict, DamagedCatalog, KeyRefused, LakeError, UsageError
from stedi.privacy import handover, journal, pseudonyms, secret, seen, tombstones
from stedi.privacy.pseudonyms import Key

if TYPE_CHECKING:
    from stedi.adoption import Adoption
    from stedi.workers import Workers


Progress = Callable[[str, float | None], None]
"""Called with what is being done and the share of it that is done, 0 to 1, if that is known."""


P = ParamSpec("P")
R = TypeVar("R")
L = TypeVar("L", bound="Opened")


def writes(verb: Callable[Concatenate[L, P], R]) -> Callable[Concatenate[L, P], R]:
    """Keeps a verb that writes from a copy or a lake that was set back, and notes afterwards how far the lake is."""

    @wraps(verb)
    def forward(lake: L, /, *arguments: P.args, **options: P.kwargs) -> R:
        with lake.writing():
            return verb(lake, *arguments, **options)

    return forward


class Opened:
    """A lake folder that exists.

    Args:
        root: The folder, or prefix in S3.
        config: Its settings.
    """

    def __init__(self, root: Path, config: Config) -> None:
        self.root = root
        self.config = config
        self.catalog = Catalog(root)
        self.say: Callable[[str], None] = lambda line: None
        """Told what does not keep a command from its work and should be known."""
        self._told = False
        self._copied = copies.home(root)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Opens a lake; one that was copied or moved, and not adopted, only for reading: verbs that write refuse it.

        Args:
            path: The lake's folder.

        Raises:
            LakeError: There is no lake, or something of it leads elsewhere.
            ConfigError: Its settings are not what is known.
        """
        root, config = _found(path)
        if not s3.is_remote(root):
            try:
                root = places.spelled(root, snapshots.listed(root / "catalog.db"))
            except DamagedCatalog:  # whoever reads it says so, and `repair` sets it right
                copies.forget(root)
        if not copies.known(root):  # else what it is read by still stands as it was copied
            copies.refuse_unfinished(root)
        if config.shared and not copies.known(root) and not s3.is_remote(root):
            durable.share(root)
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
        making.make(path, readings, key_file)
        return cls.open(path)

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
        root, config = _found(path)
        from stedi import adoption

        return adoption.adopt(root, config, cls(root, config).key(), new_id=new_id, progress=progress)

    def key(self) -> Key:
        """Returns the lake's pseudonym key.

        Raises:
            KeyRefused: It is missing, or is not the key that this lake was made with.
        """
        key = pseudonyms.from_environment()
        if key is None:
            place = self.config.key_file or str(pseudonyms.default_file(self.config.lake_id))
            key = secret.read(place) if secret.names(place) else pseudonyms.from_file(destinations.expanded(place))
        key = key.of_version(self.config.key_version)
        if key.fingerprint != self.config.key_fingerprint:
            raise KeyRefused(
                f"{self.root}: expected the pseudonym key with fingerprint "
                f"{self.config.key_fingerprint}, found one with "
                f"{key.fingerprint}; set STEDI_PSEUDONYM_KEY or STEDI_KEY_FILE to this lake's key; "
                "nothing was read or written"
            )
        handover.confirm(self.root, key)
        return key

    def key_place(self) -> str:
        """Returns where the lake's key is looked for: the name of a variable, or a file."""
        if pseudonyms.VARIABLE in os.environ:
            return pseudonyms.VARIABLE
        return self.config.key_file or str(pseudonyms.default_file(self.config.lake_id))

    def outside(self) -> Path:
        """Returns the folder outside the lake that keeps what was seen of it and copies of its journal."""
        named = self.key_place()
        # a key that is no file has no folder
        file = None if named == pseudonyms.VARIABLE or secret.names(named) else named
        return seen.place(self.config.lake_id, self.config.journal_path, file)

    def older(self) -> tuple[str, str, str] | None:
        """Returns what of the lake is older than what was seen of it: what it is, what was seen, what is found."""
        try:
            key = self.key()
        except KeyRefused:  # without it nothing can be compared; what needs it says so
            return None
        try:
            mark = seen.read(self.outside(), self.config.lake_id, key)  # before the lake, which may move on
        except OSError:
            return None
        if mark is None:
            return None
        found = seen.older(mark, seen.now(self.catalog, self.root, key), self.root, key)
        if found is not None:
            self.catalog.tables()  # says so if only the catalog is older than its tables, which `repair` sets right
        return found

    def refuse_copied(self) -> None:
        """Refuses to write into a folder that was copied or moved, and not adopted since it was opened.

        Raises:
            CopiedLake: It was.
        """
        if self._copied is not None:
            raise copies.refused(self.root, self._copied)

    def refuse_older(self) -> None:
        """Refuses a lake that is older than what was seen of it: a withdrawal or an erasure may be undone in it.

        Raises:
            LakeError: It is.
        """
        found = self.older()
        if found is not None:
            what, expected, there = found
            raise LakeError(
                f"{self.root}: expected {what} as new as what was seen before ({expected}), found {there}: the lake "
                "was set back, and withdrawals or erasures may be undone; run `stedi erase --replay "
                f"{self.outside()}`, or `stedi repair --accept-rollback`; nothing was changed"
            )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keeps a block that writes from a copy or a lake set back, and notes at its end how far the lake is."""
        self.refuse_copied()
        self.refuse_older()
        yield
        self.note_seen()

    def note_seen(self, *, set_back: bool = False) -> None:
        """Notes outside the lake how far it is, and copies what is new in its journal.

        Args:
            set_back: Whether the lake was set back on purpose: then the note follows it.
        """
        folder, key = self.outside(), None
        try:
            key = self.key()
            before = None if set_back else seen.read(folder, self.config.lake_id, key)
            found = seen.now(self.catalog, self.root, key)
            # another command may have gone further meanwhile, and have noted it
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
                f"{folder}: what was seen of the lake cannot be noted there ({error.strerror}), so a lake that is set "
                "back would not be noticed; the work is done. Set journal.path to a folder that can be written"
            )

    def _set_back(self) -> None:
        """Takes the lake as it is for the newest, if it is older than what was seen of it: this was meant."""
        if self.older() is not None:
            self._begin_anew()
        self.note_seen()

    def _begin_anew(self) -> None:
        """Says in the journal that the lake is meant to be as it is, for all who have seen it further on."""
        key, folder = self.key(), self.outside()
        with durable.lock(self.root / "land.lock", wait=True):
            seen_before = seen.read(folder, self.config.lake_id, key)
            beyond = seen_before.number if seen_before else 0
            found = seen.now(self.catalog, self.root, key)
            id_ = f"{int(time.time() * 1000):013d}-{secrets.token_hex(4)}"
            content = seen.to_json(found)
            journal.append(self.root, key, self.config.lake_id, "reset", id_, content, beyond=beyond)
        self.note_seen(set_back=True)

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

    @contextmanager
    def _temporary(self) -> Iterator[Path]:
        """Gives a folder for what does not fit into memory, this user's alone."""
        with durable.workspace(self.root) as folder:
            yield folder

    def _finish(self, progress: Progress) -> None:
        """Finishes what was cut off and must not be: a change of key, an erasure; one that is alive is waited for."""
        self._finish_rotation(progress)
        if (self.root / tombstones.PENDING).exists():
            from stedi import erasure

            erasure.erase(self.catalog, self.config, self.root, self.key(), (), progress=progress)

    def _finish_rotation(self, progress: Progress) -> None:
        """Finishes a change of key that was cut off; one that is alive is waited for."""
        if handover.left(self.root):
            from stedi import rotation

            self.key()  # confirms it
            with durable.commands(self.root, durable.ALL, lambda what: progress(what, None)):
                if not rotation.finish(self.catalog, self.root, progress):
                    raise CommitConflict(
                        f"{self.root}: a change of key came too late and was given up; nothing was changed: run this "
                        "again, then change the key again"
                    )

    def _finish_landings(self) -> None:
        """Finishes what a landing that died has left; one that is alive finishes its own."""
        if any((self.root / "pending").glob("*.json")):
            from stedi.errors import LakeBusy
            from stedi.landing import journal

            try:
                with durable.lock(self.root / "land.lock", wait=False):
                    journal.finish(self.catalog, self.root / "pending", self.key)
            except LakeBusy:
                return

    def _land_what_waits(self, key: Key) -> None:
        """Lands replayed withdrawals whose customers the lake has come to know by another way than a landing."""
        if (self.root / journal.WAITING).exists():
            from stedi.landing import withdrawal

            with durable.lock(self.root / "land.lock", wait=True):
                withdrawal.again(self.catalog, self.config, key, self.root)

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


def _found(path: str | os.PathLike[str]) -> tuple[Path, Config]:
    """Returns the folder of a lake and its settings.

    Raises:
        LakeError: There is no lake, or something of it leads elsewhere.
        ConfigError: Its settings are not what is known.
    """
    root = places.named(path)
    if not s3.is_remote(root) and root.is_dir():
        places.refuse_links(root)
    if not (root / "lake.toml").is_file():
        raise LakeError(
            f"{path}: expected a lake, found none; make one with `stedi --lake {path} init`, or land into it"
        )
    return root, settings.read(root / "lake.toml")


def milliseconds(moment: datetime) -> int:
    """Returns an instant as milliseconds of the epoch."""
    return round(moment.timestamp() * 1000)
