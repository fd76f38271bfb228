"""Leases: objects of S3 that serve as locks."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

from stedi.errors import LakeBusy
from stedi.storage.s3.connection import answers, client
from stedi.storage.s3.objects import create, head, read, remove, write
from stedi.storage.s3.paths import S3Path

if TYPE_CHECKING:
    from threading import Thread

_LEASE = 90.0
"""Seconds after which a lock that was not renewed is free."""
_BEAT = 15.0
"""Seconds between two renewals."""
_POLL = (0.02, 0.5)
"""Seconds between two polls of a held lock, at first and at last."""
_FREE = "free"


class Lease:
    """A lock that is an object: its creator holds it, renews it, and releases it by writing that it is free.

    A lock that has not been renewed for a minute and a half can be taken. It is never deleted: with versioning, some
    servers do not treat a deleted object as absent. Ages use only S3's clock. A holder that was suspended for longer
    detects the loss at its next renewal, or before its next write, which calls `prove`.
    """

    def __init__(self, path: Path) -> None:
        import threading

        self._path = cast(S3Path, path)
        self._tag = ""
        self._renewed = 0.0
        self._lost = False
        self._one = threading.Lock()
        self._ended = threading.Event()
        self._beats: Thread | None = None

    def take(self) -> bool:
        """Returns whether the lock is held now."""
        from threading import Thread

        try:
            self._renewed = _clock()
            # of two who find it old one writes first, and the tag of the other no longer matches
            held = _held(self._path)
            if held is None:
                self._tag = self._put(IfNoneMatch="*")
            elif held[0] < _LEASE:
                return False
            else:
                self._tag = self._put(IfMatch=held[1])
        except (FileExistsError, FileNotFoundError):
            return False
        self._beats = Thread(target=self._beat, daemon=True)
        self._beats.start()
        _HELD.add(self)
        return True

    def release(self) -> None:
        """Gives the lock back, if it is still held."""
        _HELD.discard(self)
        self._ended.set()
        if self._beats is not None:
            self._beats.join()
        with suppress(OSError), answers(self._path):  # the next one waits for its age, no longer
            client().put_object(
                Bucket=self._path.bucket, Key=self._path.key, Body=b"", Metadata={"state": _FREE}, IfMatch=self._tag
            )

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            try:
                if not self._renew():
                    return  # now held by somebody else
            except OSError:
                continue

    def _renew(self) -> bool:
        """Returns whether the lock is still held, and is for a while from now."""
        with self._one:
            began = _clock()
            try:
                if not self._lost:
                    self._tag = self._put(IfMatch=self._tag)
                    # when it was asked, not when it was answered: for S3 the lease may be that old
                    self._renewed = began
            except (FileExistsError, FileNotFoundError):
                self._lost = True
            return not self._lost

    def prove(self) -> None:
        """Makes sure that nobody can have taken over the lock until now.

        Raises:
            LakeBusy: Somebody may have taken it.
        """
        # half a lease leaves time for the write that follows the proof
        if not self._lost and _clock() - self._renewed < _LEASE / 2:
            return
        if not self._renew():
            raise LakeBusy(
                f"{self._path.parent}: expected to still hold {self._path.name}, found that another command holds "
                "it: this one was paused, or disconnected from S3, for too long; nothing more was committed: run "
                "it again"
            )

    def _put(self, **condition: str) -> str:
        body = json.dumps({"holder": os.urandom(8).hex(), "process": os.getpid()}).encode()
        with answers(self._path):
            try:
                done = client().put_object(Bucket=self._path.bucket, Key=self._path.key, Body=body, **condition)
            except Exception:
                # refused, or done with a lost answer: the object shows its holder
                with suppress(OSError):
                    found, about = read(self._path)
                    if found == body:
                        return str(about["ETag"])
                raise
        return str(done["ETag"])


class Heartbeat:
    """An object that shows others that a process is alive: the process rewrites it until it ends.

    `is_held` works on it as on a lock. It blocks nobody, and a failure to rewrite it has no effect.

    Args:
        path: The object, which does not exist yet.
        body: Its content.
    """

    def __init__(self, path: Path, body: bytes) -> None:
        import threading

        self._path, self._body = cast(S3Path, path), body
        self._ended = threading.Event()
        create(self._path, body)
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()

    def _beat(self) -> None:
        while not self._ended.wait(_BEAT):
            with suppress(OSError):
                write(self._path, self._body)

    def end(self) -> None:
        """Lets it grow old."""
        self._ended.set()
        self._beats.join()


_HELD: set[Lease] = set()
"""The locks that this process holds."""


def prove() -> None:
    """Makes sure that this process still holds all its locks, so that its next write is not too late.

    Raises:
        LakeBusy: It has lost one.
    """
    for lease in tuple(_HELD):
        lease.prove()


def replace(path: Path, body: bytes) -> None:
    """Writes an object atomically; while this process holds locks, only over the state that it has seen under them.

    A process can be suspended between the proof and the write. So the write is conditional: nobody may have written the
    object since before the proof.

    Raises:
        LakeBusy: It has lost a lock, or somebody else has written the object.
    """
    target = cast(S3Path, path)
    if not _HELD:
        return write(target, body)
    before = head(target)
    prove()
    try:
        write(target, body, **({"IfMatch": before["ETag"]} if before else {"IfNoneMatch": "*"}))
    except (FileExistsError, FileNotFoundError) as error:
        found = head(target)
        if found is None and before is None:  # some servers do not treat a deleted object as absent
            prove()
            return write(target, body)
        # or the first request was done and its answer lost
        if found is None or read(target)[0] != body:
            raise LakeBusy(
                f"{target}: expected the version that this command has read, found that another command has "
                "replaced it: this one was paused, or disconnected from S3, for too long; nothing more was "
                "committed: run it again"
            ) from error


def discard(path: Path) -> None:
    """Removes an object, if it is there; while this process holds locks, only as it was under them.

    A process can be stopped between the proof and the request, and the object be another's by then: so the request
    names the content that is meant.

    Raises:
        LakeBusy: It has lost a lock, or somebody else has written the object.
    """
    target = cast(S3Path, path)
    if not _HELD:
        return remove([target])
    before = head(target)
    prove()
    if before is None:
        return None
    try:
        with answers(target):
            client().delete_object(Bucket=target.bucket, Key=target.key, IfMatch=before["ETag"])
    except FileNotFoundError:
        return None
    except FileExistsError as error:
        # or the first request was done and its answer lost
        if head(target) is not None:
            raise LakeBusy(
                f"{target}: expected the version that this command has read, found that another command has "
                "replaced it: this one was paused, or disconnected from S3, for too long; nothing was removed: run "
                "it again"
            ) from error
    except OSError as error:
        if "NotImplemented" not in str(error):
            raise
        prove()  # a server without conditional removal
        remove([target])


def _clock() -> float:
    """Returns seconds of a clock that also runs while the machine sleeps, if there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def _held(path: S3Path) -> tuple[float, str] | None:
    """Returns the age of a lock in seconds, by S3's clock, and its tag; None if there is none.

    A released lock has the greatest age.
    """
    from email.utils import parsedate_to_datetime

    found = head(path)
    if found is None:
        return None
    if found.get("Metadata", {}).get("state") == _FREE:
        return float("inf"), found["ETag"]
    now = parsedate_to_datetime(found["ResponseMetadata"]["HTTPHeaders"]["date"])
    return (now - found["LastModified"]).total_seconds(), found["ETag"]


def is_held(path: Path) -> bool:
    """Returns whether a running process holds a lock."""
    found = _held(cast(S3Path, path))
    return found is not None and found[0] < _LEASE


@contextmanager
def lock(path: Path, *, wait: bool | float, waiting: Callable[[], None] | None, advice: str) -> Iterator[None]:
    """Holds a lock during a block.

    Raises:
        LakeBusy: Somebody else holds it and `wait` is False, or has held it for longer than that.
    """
    lease = Lease(path)
    end = None if wait is True else time.monotonic() + float(wait)
    told, pause = False, _POLL[0]
    while not lease.take():
        if not wait or (end is not None and time.monotonic() > end):
            raise LakeBusy(f"{path.parent}: another {path.stem} is running; {advice}")
        if waiting is not None and not told:
            waiting()
            told = True
        time.sleep(pause)
        pause = min(_POLL[1], 2 * pause)
    try:
        yield
    finally:
        lease.release()
