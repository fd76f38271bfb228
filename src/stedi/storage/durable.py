"""Durable storage: atomic files, synced before anything names them, and locks that end with their process.

Everything that a lake writes outside of tables is written here, without knowledge of its content. A lake's folder may
be a prefix of a bucket (`s3`): the same then holds for its objects.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import stat
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Literal

from stedi._frozen import dataclass
from stedi.errors import LakeBusy, LakeError
from stedi.storage import copies, s3

Command = Literal["maintain", "build", "land"]
ALL: tuple[Command, ...] = ("maintain", "build", "land")
"""The commands that write, in the order in which their locks are taken."""

LATER = "try again when it has ended"
"""What to do where a command is running that is not waited for."""

_AT_ONCE = 1_000
"""Objects that are removed before the locks are looked at again."""


def sync(path: Path) -> None:
    """Puts a file's bytes, or a folder's names, on disk; an object is there when its write returns."""
    if s3.is_remote(path):
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content(path: Path, most: int) -> bytes:
    """Returns the bytes of a regular file, or of an object; nothing else is waited for or read without end.

    Args:
        path: The file.
        most: The bytes that it may have.

    Raises:
        FileNotFoundError: It is not there.
        OSError: It is no regular file, is larger, or cannot be read.
    """
    if s3.is_remote(path):
        return path.read_bytes()
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as stream:
        found = os.fstat(stream.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "expected a regular file, found none", str(path))
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"expected {most:,} bytes at most, found {found.st_size:,}", str(path))
        return stream.read(found.st_size)  # a buffer of `most` bytes would be made for any file


def folder(path: Path, mode: int | None = None) -> None:
    """Creates a folder and its missing parents, and syncs their entries.

    Args:
        path: The folder.
        mode: The mode of new folders, regardless of the umask; by default for the owner, and for the group if it may
            enter the parent.
    """
    if s3.is_remote(path) or path.is_dir():
        return
    folder(path.parent, mode)
    try:
        # private until `chmod` says who may enter: what `mkdir` grants depends on the umask
        path.mkdir(0o700)
    except FileExistsError:  # another command has just made it
        return
    # the setgid bit hands the group of the parent on
    above = path.parent.stat().st_mode
    path.chmod((mode if mode is not None else 0o700 | above & 0o050) | above & stat.S_ISGID)
    sync(path.parent)


def private(path: Path) -> None:
    """Creates a folder and its missing parents for its owner only; it need not survive a power cut."""
    if path.is_dir():
        return
    private(path.parent)
    path.mkdir(0o700, exist_ok=True)


def readable(folder: Path) -> int:
    """Returns the mode of a file in a folder of a lake: its owner reads it, and the group that may read the folder."""
    return 0o600 if s3.is_remote(folder) else 0o600 | folder.stat().st_mode & 0o040


def settle(paths: Iterable[Path]) -> None:
    """Gives files and folders that were made under some umask the mode that those of a lake have."""
    for path in paths:
        if not s3.is_remote(path):
            mode = readable(path.parent)
            # who may read a folder may enter it
            path.chmod(mode | mode >> 2 & 0o110 if path.is_dir() else mode)


def share(root: Path) -> None:
    """Makes a lake readable for its owner's group, once; does nothing unless this user is the owner.

    Temporary files of commands and locks stay private to the owner.
    """
    found = root.stat()
    if found.st_uid != os.geteuid() or found.st_mode & 0o050 == 0o050:
        return
    for where, folders, names in os.walk(root):
        folders[:] = [name for name in folders if Path(where, name) != root / "tmp"]
        for name in (*folders, *names):
            path = Path(where, name)
            mode = path.lstat().st_mode
            if stat.S_ISDIR(mode):
                path.chmod(stat.S_IMODE(mode) | 0o050)
            elif stat.S_ISREG(mode) and path.suffix != ".lock":
                path.chmod(stat.S_IMODE(mode) | 0o040)
    root.chmod(stat.S_IMODE(found.st_mode) | 0o050)  # last, so that nobody sees a partly shared lake


@contextmanager
def replacing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yields a file to write; if the block succeeds, it gets its name once complete and on disk.

    Args:
        path: Its name; an existing file is replaced.
        mode: Its mode, by default readable by its owner only.
    """
    if s3.is_remote(path):
        content = io.BytesIO()
        yield content
        return s3.replace(path, content.getvalue())
    # file systems count bytes, 255 for a name: 50 characters have at most 200
    beside = path.with_name(f".{path.name[:50]}.{os.urandom(8).hex()}.partial")
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as stream:
            os.fchmod(stream.fileno(), mode)  # regardless of the umask
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        # what has the name is whole at any moment; that it is the new one is sure once the folder is synced
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Writes a file, by default readable by its owner alone, that takes its name when it is whole and on disk."""
    with replacing(path, mode) as stream:
        stream.write(content)


def create(path: Path, content: bytes) -> None:
    """Writes a new file as `write` does; in a bucket one of several writers at most.

    Args:
        path: The file. In a folder the caller holds a lock that keeps other writers from making it.
        content: Its bytes.

    Raises:
        FileExistsError: It is there already.
    """
    if s3.is_remote(path):
        s3.prove()
        s3.create(path, content)
        return
    if path.exists():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
    write(path, content)


def remove(path: Path) -> None:
    """Removes a file, if it exists, and syncs its folder.

    Raises:
        LakeBusy: In a bucket: this process has lost a lock, or somebody else has written the object.
    """
    if s3.is_remote(path):
        s3.discard(path)
    else:
        path.unlink(missing_ok=True)
        sync(path.parent)


def remove_all(paths: Iterable[Path]) -> None:
    """Removes those of some files that exist.

    Raises:
        LakeBusy: This process has lost a lock; the remaining files stay.
    """
    listed = list(paths)
    there = [path for path in listed if s3.is_remote(path)]
    for start in range(0, max(1, len(there)), _AT_ONCE):
        s3.prove()
        s3.remove(there[start : start + _AT_ONCE])
    for path in listed:
        if not s3.is_remote(path):
            path.unlink(missing_ok=True)


def remove_tree(folder: Path, *, never_named: bool = False) -> None:
    """Removes a folder and its content as far as possible; `maintain` removes the rest.

    In a bucket nothing is removed after a lock is lost: unused objects may be in use by then.

    Args:
        folder: The folder.
        never_named: Whether only this process has ever known its content: then it is removed in any case.
    """
    if s3.is_remote(folder):
        with suppress(OSError, LakeBusy):
            if not never_named:
                s3.prove()
            s3.remove_tree(folder)
    elif folder.is_dir() and not folder.is_symlink():  # `rmtree` opens its argument, and would wait for a pipe
        _remove_tree(folder)


def _remove_tree(folder: Path) -> None:
    """Removes a folder as far as possible."""
    import shutil  # takes 6 ms, and most commands remove no folder

    shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """A file below a folder, at the time of its listing.

    Attributes:
        path: Where it is.
        size: Its size in bytes.
        modified: When it was last written, seconds since the epoch.
    """

    path: Path
    size: int
    modified: float


def walk(folder: Path, without: Collection[Path] = ()) -> Iterator[ListedFile]:
    """Yields every file below a folder, folder by folder and by name; files removed during the walk are skipped.

    Args:
        folder: The folder; it may be missing.
        without: Folders in it that are skipped.
    """
    if s3.is_remote(folder):
        for found in s3.listing(folder):
            if not any(found.path.is_relative_to(held) for held in without):
                yield ListedFile(found.path, found.size, found.modified)
        return
    for where, folders, names in os.walk(folder):
        home = Path(where)
        folders[:] = sorted(name for name in folders if not without or home / name not in without)
        for name in sorted(names):
            path = home / name
            with suppress(FileNotFoundError):
                status = os.lstat(path)
                yield ListedFile(path, status.st_size, status.st_mtime)


def realpath(path: str | Path) -> str:
    """Returns the unique path of a file, with links resolved."""
    return str(path) if s3.is_remote(path) else os.path.realpath(path)


def scratch(root: Path) -> Path:
    """Returns the folder for temporary files of commands on a lake: its folder `tmp`.

    A lake in a bucket, a read-only lake or a copy uses a private folder on this machine instead, the same for every
    command.

    Raises:
        LakeError: Somebody else owns that folder.
    """
    if not s3.is_remote(root) and not copies.known(root):
        here = root / "tmp"
        with suppress(OSError):
            here.mkdir(mode=0o700)
        if os.access(here, os.W_OK | os.X_OK):
            return here
    import tempfile

    name = f"stedi-{os.getuid()}-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}"
    path = Path(tempfile.gettempdir()) / name
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    status = path.lstat()
    # its name can be guessed, and the folder above is everybody's: anybody may have made it first
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or stat.S_IMODE(status.st_mode) & 0o077:
        raise LakeError(f"{path}: expected a private folder (mode 0700), found another; remove it, or set TMPDIR")
    return path


@contextmanager
def workspace(root: Path) -> Iterator[Path]:
    """Yields a folder for spilled data, removed after the block; removes leftovers of killed commands first."""
    import tempfile

    home = scratch(root)
    above = os.open(home, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(above, fcntl.LOCK_EX)  # until it is locked it must not look like a leftover
        remove_abandoned(home)
        path = Path(tempfile.mkdtemp(prefix="work-", dir=home))
        held = hold(path)
    finally:
        os.close(above)
    try:
        yield path
    finally:
        _remove_tree(path)
        os.close(held)


def remove_abandoned(home: Path) -> None:
    """Removes the folders in a scratch folder in which a command of this user worked that is no longer alive."""
    for entry in home.glob("work-*"):
        if entry.is_dir() and not entry.is_symlink() and not is_held(entry):
            _remove_tree(entry)


@contextmanager
def lock(
    path: Path,
    *,
    wait: bool | float,
    waiting: Callable[[], None] | None = None,
    advice: str = LATER,
) -> Iterator[None]:
    """Holds an exclusive lock on a file for the length of a block; it ends with the process, however that ends.

    Args:
        path: The lock's file; made if it is not there, never removed.
        wait: Whether to wait for another holder, or for how many seconds.
        waiting: Called once before waiting.
        advice: What to do where the lock is held and `wait` is False, for the message.

    Raises:
        CopiedLake: It is in a folder that is a copy, into which nothing is written.
        LakeBusy: Another process holds it and `wait` is False, or it has held it for longer than that.
    """
    copies.refuse(path.parent)
    if s3.is_remote(path):
        with s3.lock(path, wait=wait, waiting=waiting, advice=advice):
            yield
        return
    # the file stays: were it removed, one process could hold it and another a new one of its name
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    try:
        try:
            _flock(descriptor, path, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise LakeBusy(f"{path.parent}: another {path.stem} is running; {advice}") from None
            if waiting is not None:
                waiting()
            if wait is True:
                _flock(descriptor, path, fcntl.LOCK_EX)
            else:
                _queue(descriptor, path, wait)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def commands(
    root: Path, names: Collection[Command], waiting: Callable[[str], None], *, wait: bool = True, advice: str = LATER
) -> Iterator[None]:
    """Keeps some commands from running on a lake during a block.

    Args:
        root: The lake's folder.
        names: The commands; their locks are taken in the order of `ALL`, whatever theirs.
        waiting: Called with each running command that is waited for.
        wait: Whether to wait for running ones.
        advice: As for `lock`.

    Raises:
        LakeBusy: One is running and `wait` is False.
    """
    with ExitStack() as stack:
        for name in [name for name in ALL if name in names]:
            told = partial(waiting, f"waiting for another {'landing' if name == 'land' else name}")
            stack.enter_context(lock(root / f"{name}.lock", wait=wait, waiting=told, advice=advice))
        yield


def _flock(descriptor: int, path: Path, operation: int) -> None:
    """Takes a lock.

    Raises:
        BlockingIOError: It is held.
        LakeError: The file system has no locks.
    """
    try:
        fcntl.flock(descriptor, operation)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL):
            raise
        raise LakeError(
            f"{path}: expected a file system with file locks, found none ({error.strerror}); nothing was done: on "
            "NFS start lockd, or move the lake to a local disk or a bucket"
        ) from error


def _queue(descriptor: int, path: Path, seconds: float) -> None:
    """Waits for a lock that is held only for moments; one held for long belongs to a suspended process."""
    end = time.monotonic() + seconds
    while True:
        try:
            # `flock` has no timeout
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > end:
                raise LakeBusy(
                    f"{path}: expected it to be free within moments, found it held for {seconds:g} seconds by a "
                    "process that may be stopped; nothing more was committed: end or resume that process, then run "
                    "this again"
                ) from None
            time.sleep(0.005)


def hold(folder: Path) -> int:
    """Holds a folder that is this process's own until the descriptor is closed, which it is when the process ends.

    Returns:
        The descriptor.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    _flock(descriptor, folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def is_held(path: Path) -> bool:
    """Returns whether a process that is alive holds a folder, or a lock's file."""
    if s3.is_remote(path):
        return s3.is_held(path)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        # shared: two processes that ask at once must not take each other for a holder
        _flock(descriptor, path, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
