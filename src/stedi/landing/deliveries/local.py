"""Walks the paths of a call to the regular files of a delivery.

`walk` takes files, folders and globs and yields each regular file once, with its name and the feed from its name or
folder, and a `Skipped` for each skipped path that somebody may miss. It opens nothing, so nothing can block it, and
follows no link out of the named paths. `open_regular` opens its files.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import time
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO

from stedi._frozen import dataclass, field
from stedi.errors import UnreadableFile, UsageError, printable_name
from stedi.schema.feeds import ACCELEROMETER, CONTRACTS, CUSTOMER, STEP_TRAINER
from stedi.storage import destinations

FOREIGN = (
    *(".avro", ".bak", ".crc", ".csv", ".db", ".feather", ".gif", ".htm", ".html", ".ipynb", ".jpeg", ".jpg"),
    *(".lock", ".md", ".orc", ".parquet", ".part", ".partial", ".pdf", ".png", ".py", ".pyc", ".rst", ".sh"),
    *(".sql", ".sqlite", ".svg", ".swp", ".tmp", ".toml", ".tsv", ".xls", ".xlsx", ".xml", ".yaml", ".yml"),
)
"""Endings, also before `.gz` and `.zst`, of files that a folder or a glob does not deliver."""

ARCHIVES = (".7z", ".br", ".bz2", ".lz4", ".rar", ".tar", ".tar.gz", ".tar.zst", ".tgz", ".xz", ".zip")
"""Endings of files that may hold records but are not unpacked; passing one over is a failure."""

ARCHIVED = "an archive or an unsupported compression: unpack it, or use gzip or zstd"

NOTHING = ("a folder without files to land", "matches no file to land")
"""Why a folder and a glob are failures that have nothing to land: nothing is wrong with any file."""

HIDDEN = (".", "_")
"""What a name begins with that no folder delivers and no wildcard matches."""

_FEED_NAMES = (
    # another lower-case letter makes another word: `customership` is none, `customersLanding` is
    (re.compile(r"(?i:customers?)(?![a-z])"), CUSTOMER.feed),
    (re.compile(r"accelerometer", re.IGNORECASE), ACCELEROMETER.feed),
    (re.compile(r"step[-_ ]?trainer", re.IGNORECASE), STEP_TRAINER.feed),
)

# Linux stamps a file with the time of its last clock tick, which is at most 10 ms old
_TICK_NS, _COARSE_NS = 12_000_000, 2_000_000_000
"""The resolution of file times: of most file systems, and of those with whole seconds."""

_PATIENCE = 5
"""How often a file that has just changed is looked at again."""

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISLNK, "a link"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@dataclass(frozen=True, slots=True)
class Delivered:
    """One regular file of a delivery.

    Attributes:
        path: The path to open; never a link.
        name: Its name for the caller: the path from the parent of the argument that led to it, printable.
        feed: The feed from the call, the file's name or the nearest folder, or None.
        tag: For an object of S3, the ETag of its content.
        said: Whether the call itself named the feed: then the file's fields do not overrule it.
    """

    path: Path
    name: str
    feed: str | None
    tag: str = ""
    said: bool = False


@dataclass(frozen=True, slots=True)
class Skipped:
    """A path that was skipped.

    Attributes:
        name: As in `Delivered`.
        why: The reason, one line.
        failed: Whether this is a failure (a named file cannot be read), or only a note.
        passing: Whether it may be readable later although it does not change: the system could not read it.
    """

    name: str
    why: str
    failed: bool
    passing: bool = False


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """Shows whether a file is still the same, with the same content, as when it was opened.

    A writer can restore size and `mtime_ns`; only the system sets `ctime_ns`, the time of the last change.
    """

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int

    def like(self, other: Fingerprint) -> bool:
        """Returns whether it is still the one, on whatever machine: two may number the same device differently."""
        here = self.device != other.device or self.inode == other.inode
        times = (self.mtime_ns, self.ctime_ns) == (other.mtime_ns, other.ctime_ns)
        return here and times and self.size == other.size


def walk(
    paths: Sequence[str | Path], feed: str | None = None, avoid: Path | None = None
) -> Iterator[Delivered | Skipped]:
    """Yields every file of the paths once, in the order of the paths and by name within a folder.

    A file that is named is taken, also through a link and whatever it is called. A folder delivers the
    regular files below it, but for names that begin with a dot or an underscore, `FOREIGN` endings, and links
    that lead elsewhere. `ARCHIVES` are refused either way. A path that does not exist and holds `*`, `?` or
    `[` is a glob (`**` means any folders); its matches count as a folder's files do. An argument that
    delivers nothing is a failed `Skipped`.

    Args:
        paths: Files, folders and globs.
        feed: The feed of all of them; by default each file's name tells it, else the nearest folder's.
        avoid: A folder nothing is taken from: the lake's own.

    Raises:
        UsageError: There is no such feed.
    """
    if feed is not None and feed not in CONTRACTS:
        raise UsageError(f"feed: expected one of {', '.join(CONTRACTS)}, found {feed!r}")
    journey = _Journey(feed, None if avoid is None else os.path.realpath(avoid))
    for path in paths:
        text = os.fspath(path)
        # all others stay unchanged: `Path` would take an empty one for the current folder
        yield from journey.argument(os.fspath(destinations.expanded(text)) if text.startswith("~") else text)


def feed_of(name: str, folders: Sequence[str] = ()) -> str | None:
    """Returns the feed from a file's name, else from the nearest folder that has one, else None.

    Args:
        name: The file's name.
        folders: The names of its folders, outermost first.
    """
    for part in (name, *reversed(folders)):
        for pattern, feed in _FEED_NAMES:
            if pattern.match(part):
                return feed
    return None


def open_regular(path: Path, name: str | None = None) -> BinaryIO:
    """Returns a regular file, open for reading; anything else is closed without waiting for it.

    Args:
        path: The file.
        name: Its name in messages, by default its path.

    Raises:
        UnreadableFile: It is missing, may not be read, or is not a regular file (a link is not).
    """
    name = name or printable_name(os.fspath(path))
    try:
        # since the walk it may have become a FIFO, which blocks, a link out of the delivery, or a terminal
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    except (OSError, ValueError) as error:
        raise UnreadableFile(f"{name}: cannot be opened: {_why(error)}", passing=isinstance(error, OSError)) from None
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        raise UnreadableFile(f"{name}: expected a regular file, found {_kind(mode)}")
    return os.fdopen(number, "rb")


def fingerprint(number: int) -> Fingerprint:
    """Returns an open file's fingerprint; another one after reading it means that the file has changed."""
    found = os.fstat(number)
    return Fingerprint(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def settled(number: int, name: str) -> Fingerprint:
    """Returns an open file's fingerprint once its change time is in the past.

    File times have a resolution of milliseconds: a second change within one tick would not be detected.

    Args:
        number: The file's descriptor.
        name: Its name in messages.

    Raises:
        UnreadableFile: It keeps changing.
    """
    for _ in range(_PATIENCE):
        found = fingerprint(number)
        tick = _COARSE_NS if found.ctime_ns % 1_000_000_000 == 0 else _TICK_NS
        age = time.time_ns() - found.ctime_ns
        # a time ahead of this clock is of another machine: waiting for it could take any time
        if not 0 <= age < tick:
            return found
        time.sleep((tick - age) / 1e9)
    raise UnreadableFile(f"{name}: it is still being written; land it again when it is complete")


@dataclass(slots=True)
class _Root:
    """One argument on its way: the folder that nothing may lead out of, and how names start below it."""

    path: str
    name: str
    folders: tuple[str, ...]
    found: int = 0
    links: list[str] = field(default_factory=list)


class _Journey:
    """One walk; it remembers files and folders so that each counts once."""

    def __init__(self, feed: str | None, avoid: str | None) -> None:
        self.feed = feed
        self.avoid = avoid
        self.seen: set[tuple[int, int]] = set()
        self.passed: set[tuple[int, int]] = set()

    def argument(self, argument: str) -> Iterator[Delivered | Skipped]:
        name = os.path.basename(os.path.abspath(argument)) if argument else ""
        # Only folders that the call itself names can tell a feed: not, say, a home directory's name.
        typed = _parts(argument) if _parts(argument)[-1:] == [name] else [name]
        why, passing = None, False
        try:
            found = os.stat(argument)
        except FileNotFoundError:
            if not os.path.lexists(argument) and glob.has_magic(argument):
                yield from self._glob(argument)
                return
            why = "a link to nothing" if os.path.lexists(argument) else "there is no such file or folder"
        except (OSError, ValueError) as error:
            why, passing = f"cannot be read: {_why(error)}", isinstance(error, OSError)
        else:
            # a link that the call names is followed here, once: `open_regular` follows none
            real = os.path.realpath(argument)
            if self._avoided(real):
                why = "inside the lake's own folder, which is not a delivery"
            elif stat.S_ISREG(found.st_mode):
                root = _Root(os.path.dirname(real), "", tuple(typed[:-1]))
                yield from self._file(root, real, name, found)
            elif stat.S_ISDIR(found.st_mode):
                root = _Root(real, name, tuple(typed))
                yield from self._below(root, real)
                yield from self._linked(root)
                why = None if root.found else NOTHING[0]
            else:
                why = f"expected a file or a folder, found {_kind(found.st_mode)}"
        if why is not None:
            yield Skipped(printable_name(argument), why, True, passing)

    def _glob(self, pattern: str) -> Iterator[Delivered | Skipped]:
        # `**` repeated means what one does, but each would search all folders again
        parts = [part for i, part in enumerate(_parts(pattern)) if part != "**" or _parts(pattern)[i - 1 : i] != ["**"]]
        plain = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        start = os.path.join(os.sep if pattern.startswith(os.sep) else "", *parts[:plain]) or os.curdir
        path = os.path.realpath(start)
        root = _Root(path, os.path.basename(os.path.abspath(start)), tuple(parts[:plain]) or (os.path.basename(path),))
        for match in _matches(path, parts[plain:]):
            yield from self._below(root, match)
        yield from self._linked(root)
        if not root.found:
            yield Skipped(printable_name(pattern), NOTHING[1], failed=True)

    def _below(self, root: _Root, top: str) -> Iterator[Delivered | Skipped]:
        """Yields a path and everything below it; without recursion, since folders may be very deep."""
        pending = [top]
        while pending:
            path = pending.pop()
            try:
                found = os.lstat(path)
                new = _key(found) not in self.seen
                below = sorted(os.listdir(path), reverse=True) if new and stat.S_ISDIR(found.st_mode) else []
            except OSError as error:
                root.found += 1
                yield Skipped(self._name(root, path), f"cannot be read: {_why(error)}", failed=True, passing=True)
                continue
            if self._avoided(path):
                yield Skipped(self._name(root, path), "the lake's own folder, which is not a delivery", failed=False)
            elif stat.S_ISDIR(found.st_mode):
                # a folder that another argument has delivered already is not an empty one
                root.found += not new
                self.seen.add(_key(found))
                pending += [os.path.join(path, name) for name in below if not name.startswith(HIDDEN)]
            elif stat.S_ISREG(found.st_mode) and not is_foreign(path):
                yield from self._file(root, path, os.path.relpath(path, root.path), found)
            elif _key(found) not in self.passed:
                self.passed.add(_key(found))
                if stat.S_ISLNK(found.st_mode):
                    root.links.append(path)
                    continue
                why = "a file whose name does not end like JSON"
                if not stat.S_ISREG(found.st_mode):
                    why = f"expected a file or a folder, found {_kind(found.st_mode)}"
                yield Skipped(self._name(root, path), why, failed=False)

    def _linked(self, root: _Root) -> Iterator[Delivered | Skipped]:
        """Handles links last, so that a file that is also reached directly has its own name and feed."""
        for path in root.links:
            real = os.path.realpath(path)
            why = None
            try:
                found = os.stat(path)
            except OSError as error:
                loop = not isinstance(error, FileNotFoundError)
                why = f"a link that cannot be followed: {_why(error)}" if loop else "a link to nothing"
            else:
                if not _within(real, root.path):
                    why = "a link that leads out of the named folder"
                elif self._avoided(real):
                    why = "a link into the lake's own folder, which is not a delivery"
                elif stat.S_ISDIR(found.st_mode):
                    why = "a link to a folder, which is not followed"
                elif not stat.S_ISREG(found.st_mode):
                    why = f"a link to {_kind(found.st_mode)}"
            if why is not None:
                yield Skipped(self._name(root, path), why, failed=False)
            elif not is_foreign(path):
                yield from self._file(root, real, os.path.relpath(path, root.path), found)

    def _file(self, root: _Root, path: str, relative: str, found: os.stat_result) -> Iterator[Delivered | Skipped]:
        root.found += 1
        if _key(found) in self.seen:
            return
        self.seen.add(_key(found))
        name = printable_name(os.path.join(root.name, relative))
        if relative.lower().endswith(ARCHIVES):
            yield Skipped(name, ARCHIVED, failed=True)
            return
        *folders, base = relative.split(os.sep)
        feed = self.feed or feed_of(base, (*root.folders, *folders))
        yield Delivered(Path(path), name, feed, said=self.feed is not None)

    def _name(self, root: _Root, path: str) -> str:
        return printable_name(os.path.normpath(os.path.join(root.name, os.path.relpath(path, root.path))))

    def _avoided(self, path: str) -> bool:
        return self.avoid is not None and _within(path, self.avoid)


def _matches(folder: str, parts: Sequence[str]) -> Iterator[str]:
    """Gives what a pattern's parts match below a folder, by name; unlike `glob`, follows no link."""
    if not parts or parts == ["**"]:
        yield folder
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        pending = [folder]
        while pending:
            current = pending.pop()
            yield from _matches(current, rest)
            below = [entry.path for entry in _entries(current, "*") if entry.is_dir(follow_symlinks=False)]
            pending += reversed(below)
        return
    for entry in _entries(folder, part):
        if not rest or entry.is_dir(follow_symlinks=False):
            yield from _matches(entry.path, rest)


def _entries(folder: str, pattern: str) -> list[os.DirEntry[str]]:
    try:
        found = list(os.scandir(folder))
    except OSError:
        return []
    # as in a shell: `.*` asks for hidden names
    hidden = tuple(mark for mark in HIDDEN if not pattern.startswith(mark))
    matching = [entry for entry in found if fnmatchcase(entry.name, pattern) and not entry.name.startswith(hidden)]
    return sorted(matching, key=lambda entry: entry.name)


def is_foreign(name: str) -> bool:
    """Returns whether a name has one of the endings `FOREIGN`."""
    return name.lower().removesuffix(".gz").removesuffix(".zst").endswith(FOREIGN)


def _parts(path: str) -> list[str]:
    return [part for part in path.split(os.sep) if part not in ("", os.curdir)]


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _key(found: os.stat_result) -> tuple[int, int]:
    # so hard links of one file, and arguments that overlap, count once
    return found.st_dev, found.st_ino


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "something unknown")


def _why(error: OSError | ValueError) -> str:
    return (error.strerror or "input/output error").lower() if isinstance(error, OSError) else "not a valid path"
