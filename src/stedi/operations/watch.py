"""Watch: polls an inbox, lands the files that have stopped growing, and builds, in near real time on one machine.

    look -> files that nothing has written to for a second, and that this watch has not landed as they are
    land -> these alone; of a bucket, whose objects are whole as soon as they are there, what is new below the prefix
    build -> what they, a withdrawal or a consent date have made due

Whatever fails is told and tried again later, at growing intervals; nothing but being stopped ends it. So is a file that
this machine or the bucket could not read; one that is refused for what it holds waits until it changes. A file that
goes on growing after it was landed is another content, and lands again: the tables below landing hold each reading
once.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING

from stedi._frozen import dataclass, replace
from stedi.context import Context, runs
from stedi.errors import StediError
from stedi.landing.deliveries import local
from stedi.storage import s3

if TYPE_CHECKING:
    from stedi.landing.batch import Landing
    from stedi.transform import Build

SETTLED = 1.0
"""Seconds without a write after which a file counts as whole."""
_LONGEST = 60.0
"""Seconds between two attempts, at most."""

Signature = tuple[int, int, int, int | str]
"""Size, times of the last write and of the last change, and inode of a file; an object's tag in place of the inode.

Whoever makes a refused file readable changes neither its size nor the time of the last write."""


@dataclass(frozen=True, slots=True)
class Round:
    """The result of one round of a watch that did something.

    Attributes:
        landing: What was landed; None if no file was ready, or landing failed. Of files that are tried again and again,
            only what is new.
        build: What was built; None if nothing was due, or the build failed.
        seconds: How long it took.
        error: The error, without values; empty if there was none. It will be retried.
    """

    landing: Landing | None
    build: Build | None
    seconds: float
    error: str = ""


class Inbox:
    """The files of a folder, or the objects below a prefix, that are ready to be landed.

    Args:
        folder: The folder.
        lake: The lake's folder, from which nothing is taken.
    """

    def __init__(self, folder: Path, lake: Path) -> None:
        self._folder, self._remote = folder, s3.is_remote(folder)
        self._lake = lake if s3.is_remote(lake) == self._remote else None
        self._landed: dict[Path, Signature] = {}
        self._seen: dict[Path, tuple[Signature, float]] = {}
        self._names: dict[Path, str] = {}
        self._again: dict[Path, tuple[int, float]] = {}
        """Files that could not be read: how often they were tried, and when they are tried next."""
        self._told: dict[str, str] = {}
        """By name, why each path was skipped last, as it was told."""

    def ready(self) -> tuple[dict[Path, Signature], bool]:
        """Returns the files that have stopped growing and are not landed, and whether others still grow.

        Raises:
            StediError: The inbox is missing or cannot be read.
        """
        # how long a file has stood still is told by a clock that never goes back; the wall clock only spares old files
        # the wait
        there, now, moment = dict(self._objects() if self._remote else self._files()), time.time(), time.monotonic()
        due = {path for path, (_, at) in self._again.items() if moment >= at}
        new = {
            path: signature for path, signature in there.items() if self._landed.get(path) != signature or path in due
        }
        seen = {}
        for path, signature in new.items():
            before = self._seen.get(path)
            seen[path] = before if before and before[0] == signature else (signature, moment)
        self._seen = seen
        self._landed = {path: signature for path, signature in self._landed.items() if path in there}
        self._again = {path: tried for path, tried in self._again.items() if path in there}
        settled = {
            path: signature
            for path, (signature, since) in seen.items()
            if self._remote or moment - since >= SETTLED or now - signature[1] / 1e9 >= SETTLED
        }
        return settled, len(settled) < len(new)

    def _files(self) -> Iterator[tuple[Path, Signature]]:
        try:
            os.listdir(self._folder)  # a missing inbox is not an empty one
        except OSError as error:
            raise StediError(f"{self._folder}: the inbox cannot be read: {error.strerror}") from error
        self._names = {}
        for item in local.walk([self._folder], avoid=self._lake):
            if isinstance(item, local.Delivered):
                try:
                    found = os.stat(item.path)
                except OSError:  # it has just gone
                    continue
                self._names[item.path] = item.name
                yield item.path, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino)

    def _objects(self) -> Iterator[tuple[Path, Signature]]:
        for found in s3.listing(self._folder):
            if self._lake is None or not found.path.is_relative_to(self._lake):
                written = round(found.modified * 1e9)
                yield found.path, (found.size, written, written, found.tag)

    def landed(self, files: Mapping[Path, Signature], again: Collection[Path] = (), pause: float = 0.0) -> None:
        """Records files that were landed or refused in their current state.

        Args:
            files: The files.
            again: Those that are tried again although they do not change.
            pause: The seconds until then; each time twice as many.
        """
        self._landed |= files
        for path in files:
            times = self._again.pop(path, (0, 0.0))[0] + 1
            if path in again:
                self._again[path] = times, time.monotonic() + _later(pause, times)

    def undecided(self, files: Collection[Path], landing: Landing) -> set[Path]:
        """Returns those of some files that a landing has neither landed nor refused for what they hold."""
        if self._remote:  # any of them: what has landed costs its listing alone
            return set(files) if any(skipped.passing for skipped in landing.skipped) else set()
        decided = {file.name for file in landing.files} | {item.name for item in landing.skipped if not item.passing}
        return {path for path in files if self._names.get(path) not in decided}

    def news(self, files: Collection[Path], landing: Landing) -> Landing | None:
        """Returns a landing of some files without refusals that it repeats, or None if it brings nothing else."""
        tried = all(path in self._again for path in files)
        known = [self._told.get(item.name) == item.why and (item.passing or tried) for item in landing.skipped]
        skipped = tuple(item for item, told in zip(landing.skipped, known, strict=True) if not told)
        for file in landing.files:
            self._told.pop(file.name, None)
        told = {item.name: item.why for item in landing.skipped if item.failed}
        # as long as something is tried again; a name that nothing waits for need not be remembered for months
        self._told = {**self._told, **told} if self._again else told
        if tried and not any(item.failed for item in skipped) and all(file.already_landed for file in landing.files):
            return None
        return replace(landing, skipped=skipped)


def warm(context: Context) -> None:
    """Loads what the first landing and build of a process need, so that they are as fast as later ones.

    A lake that cannot be read is no failure here: its first round says so.
    """
    from stedi.engines.duckdb import DuckDB
    from stedi.transform import stage  # noqa: F401 - that is the work

    catalog = context.catalog
    with suppress(StediError, OSError), context.temporary() as spill, DuckDB.of(context.config, spill) as engine:
        catalog.warm()
        for state in catalog.tables().values():
            if files := catalog.files(state):
                engine.bind_files(state.name, files)
                engine.rows(f"select count(*) from {state.name}")


def watch(
    inbox: Inbox,
    *,
    land: Callable[[Callable[[Path], bool]], Landing],
    build: Callable[[], Build],
    due: Callable[[], bool],
    every: timedelta,
    stop: Event,
) -> Iterator[Round]:
    """Lands and builds new files until it is stopped; yields each round that did something or failed.

    Args:
        inbox: The folder of new files.
        land: Lands the given files of the inbox.
        build: Builds.
        due: Returns whether a build has something to do.
        every: The time between two looks.
        stop: Ends it when the round that is under way is done.
    """
    failures = 0
    pause = every.total_seconds()
    while not stop.is_set():
        began = time.monotonic()
        landing, built, error, growing = None, None, "", False
        try:
            ready, growing = inbox.ready()
            if ready:
                # these alone: a file that comes or grows meanwhile waits for the next look
                done = land(ready.__contains__)
                landing = inbox.news(ready, done)
                # only when they are: after an error they are ready again
                inbox.landed(ready, inbox.undecided(ready, done), pause)
            if due():
                built = build()
        except Exception as caught:  # any error: tomorrow's files must land
            failures += 1
            error = runs.described(caught)[1]
        else:
            failures = 0
        if landing or built or error:
            yield Round(landing, built, time.monotonic() - began, error)
        wait = _later(pause, failures) if failures else min(pause, SETTLED / 2) if growing else pause
        stop.wait(max(0.0, wait - (0.0 if failures or growing else time.monotonic() - began)))


def _later(pause: float, times: int) -> float:
    """Returns the seconds until the next attempt after some that failed."""
    # a bounded exponent: no double holds 2**1024, and at a minute an attempt that many fail in a day
    return min(_LONGEST, pause * 2.0 ** min(times, 16))
