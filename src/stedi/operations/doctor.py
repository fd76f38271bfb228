"""The doctor: checks whether this machine can run a lake, and says what to do about each problem.

Each check is independent, so that one failure hides no other, and a broken lake can be examined. Nothing is changed.
"""

from __future__ import annotations

import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from stedi._frozen import dataclass
from stedi._version import __version__
from stedi.context import Context, places, runs
from stedi.errors import KeyRefused, LakeError, MissingExtra, StediError, many
from stedi.operations.status import size
from stedi.storage import durable, s3
from stedi.storage.config import FORMAT

State = Literal["ok", "wrong", "absent"]
"""`absent` is what only some commands need."""

_OLDEST = (3, 11)
_NEEDED = ("duckdb", "pyarrow", "pyiceberg", "fastavro", "sqlglot", "cryptography")
_EXTRAS = {"aws": "boto3", "spark": "pyspark", "readers": "pandas"}
"""Of each extra the package by which it is known to be there."""
_LOCKS = ("init", "land", "build", "maintain", "catalog", "access")
_LEAST = 1 << 30
"""Bytes below which a disk is nearly full."""
_BUILT = datetime(2026, 1, 1, tzinfo=UTC)
"""No clock that is right is before this."""
_MEMORY = ("tmpfs", "ramfs")
"""File systems that lie in memory."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        name: The checked thing.
        state: Whether it is in order.
        found: What was found.
        advice: What to do; empty if nothing is needed.
    """

    name: str
    state: State
    found: str
    advice: str = ""


def examine(path: str | os.PathLike[str]) -> Iterator[Finding]:
    """Yields the findings about this machine, and about a lake on it.

    Args:
        path: The lake's folder, or prefix in S3; it need not exist.
    """
    yield from _software()
    context = None
    try:
        context = Context.open(path)
    except MissingExtra as error:
        yield Finding("lake", "wrong", str(error), "install the extra")
    except (StediError, OSError) as error:
        text = str(error) if isinstance(error, StediError) else f"{path}: {error.strerror}"
        missing = isinstance(error, LakeError) and not (places.named(path) / "lake.toml").exists()
        yield Finding("lake", "absent" if missing else "wrong", text)
    if context is not None:
        yield from _lake(context)
    root = context.root if context is not None else _above(path)
    if not s3.is_remote(root):
        yield from _place(root)
    yield _clock(context)
    yield from _spark()


def _software() -> Iterator[Finding]:
    version = platform.python_version()
    if sys.version_info >= _OLDEST:
        yield Finding("python", "ok", f"{version}, {sys.executable}")
    else:
        yield Finding("python", "wrong", version, f"install Python {'.'.join(map(str, _OLDEST))} or later")
    yield Finding("stedi", "ok", __version__)
    missing = [name for name in _NEEDED if _version(name) is None]
    if missing:
        yield Finding(
            "packages", "wrong", f"not installed: {', '.join(missing)}", "pip install --force-reinstall stedi"
        )
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {_version(name)}" for name in _NEEDED))
    yield Finding("sqlite", "ok", sqlite3.sqlite_version)
    for extra, package in _EXTRAS.items():
        found = _version(package)
        if found is None:
            yield Finding(f"extra {extra}", "absent", f"{package} is not installed", f"pip install 'stedi[{extra}]'")
        else:
            yield Finding(f"extra {extra}", "ok", f"{package} {found}")


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _lake(context: Context) -> Iterator[Finding]:
    found = context.config.format
    advice = "run `stedi migrate`" if found < FORMAT else ""
    yield Finding("lake", "ok", f"{context.root}, id {context.config.lake_id}, format {found}", advice)
    try:
        # each part by itself: without its key, or with a damaged catalog, everything else is still told
        context.key()
        yield Finding("key", "ok", f"{context.key_place()}, fingerprint {context.config.key_fingerprint}")
    except KeyRefused as error:
        yield Finding("key", "wrong", *_said(error))
    except (StediError, OSError) as error:
        yield Finding("key", "wrong", _text(error), "name the lake's key in STEDI_KEY_FILE")
    try:
        states = context.catalog.tables()
        rows = sum(state.current.total("records") for state in states.values() if state.current)
        yield Finding("catalog", "ok", f"{many(len(states), 'table')}, {many(rows, 'row')}")
    except (StediError, OSError) as error:
        yield Finding("catalog", "wrong", *_said(error))
    try:
        context.refuse_copied()
        context.refuse_older()
    except (StediError, OSError) as error:
        yield Finding("history", "wrong", _text(error))
    yield from _locks(context.root)


def _said(error: BaseException) -> tuple[str, str]:
    """Returns the problem and the advice in an error's text."""
    found, _, advice = _text(error).partition("; ")
    return found, advice


def _text(error: BaseException) -> str:
    return str(error) if isinstance(error, StediError) else getattr(error, "strerror", None) or type(error).__name__


def _locks(root: Path) -> Iterator[Finding]:
    """Yields the held locks and their holders; a held lock is no fault."""
    held = []
    for name in _LOCKS:
        path = root / f"{name}.lock"
        with suppress(OSError, StediError):
            if durable.is_held(path):
                held.append(f"{name}{_holder(path)}")
    yield Finding("locks", "ok", f"held: {', '.join(held)}" if held else "none is held")


def _holder(path: Path) -> str:
    """Returns the holder of a lock, in words, if the system knows it."""
    if s3.is_remote(path):
        return ""
    with suppress(OSError, ValueError, IndexError):
        inode = path.stat().st_ino
        # Linux alone has it: number, kind, mode, right, process, then device and inode by colons
        for line in Path("/proc/locks").read_text("ascii").splitlines():
            fields = line.split()
            if fields[1] == "FLOCK" and int(fields[5].rpartition(":")[2]) == inode:
                name = Path(f"/proc/{fields[4]}/comm").read_text("utf-8", "replace").strip()
                return f" by process {fields[4]} ({name})"
    return ""


def _above(path: str | os.PathLike[str]) -> Path:
    """Returns the existing part of the path in which a lake would be created."""
    root = places.named(path)
    while not s3.is_remote(root) and not root.exists():
        root = root.parent
    return root


def _place(root: Path) -> Iterator[Finding]:
    try:
        usage = shutil.disk_usage(root)
    except OSError as error:
        yield Finding("disk", "wrong", f"{root}: {error.strerror}", "mount the disk")
        return
    told = f"{size(usage.free)} of {size(usage.total)} free at {root}"
    low = usage.free < _LEAST
    yield Finding("disk", "wrong" if low else "ok", told, "free some, or run `stedi maintain`" if low else "")
    temporary = Path(tempfile.gettempdir())
    yield Finding("temporary", "ok", f"{size(shutil.disk_usage(temporary).free)} free at {temporary}")
    kind = _file_system(root)
    if not os.access(root, os.W_OK):
        yield Finding("file system", "wrong", f"{kind}; {root} cannot be written", "give this user the right to write")
    elif not _locks_files(root):
        yield Finding("file system", "wrong", f"{kind} locks no files", "start lockd, or move the lake to a local disk")
    else:
        lost = "; what lies there is gone at the next start" if kind in _MEMORY else ""
        yield Finding("file system", "ok", f"{kind}, locks files{lost}")


def _file_system(root: Path) -> str:
    """Returns the kind of the file system, if the system knows it."""
    best, kind = "", "unknown kind"
    with suppress(OSError):
        for line in Path("/proc/mounts").read_text("utf-8", "replace").splitlines():
            _, where, name, *_ = line.split()
            # a space in a path is written as an octal escape there
            where = where.replace("\\040", " ")
            # of two mounts at one place, the later one covers the other
            if (root == Path(where) or root.is_relative_to(where)) and len(where) >= len(best):
                best, kind = where, name
    return kind


def _locks_files(root: Path) -> bool:
    try:
        os.close(durable.hold(root))
    # another command has locked it: so it can be locked
    except BlockingIOError:
        return True
    except (OSError, StediError):
        return False
    return True


def _clock(context: Context | None) -> Finding:
    now = datetime.now(UTC)
    told = f"{now:%Y-%m-%d %H:%M:%S}Z"
    latest = None
    if context is not None:
        with suppress(StediError, OSError):
            latest = next(runs.history(context.root), None)
    if now < _BUILT:
        return Finding("clock", "wrong", told, "set the clock: consent is judged by it")
    if latest is not None and latest.started > now:
        return Finding(
            "clock", "wrong", f"{told}, before the last run, {latest.started:%Y-%m-%d %H:%M:%S}Z", "set the clock"
        )
    return Finding("clock", "ok", told)


def _spark() -> Iterator[Finding]:
    """Yields what `--engine spark` needs."""
    from stedi.engines.spark.session import ICEBERG, SQLITE, jars

    home = os.environ.get("JAVA_HOME")
    java = str(Path(home, "bin/java")) if home and Path(home, "bin/java").is_file() else shutil.which("java")
    if java:
        yield Finding("java", "ok", java)
    else:
        yield Finding("java", "absent", "none found", "for --engine spark: install Java 17, or set JAVA_HOME")
    try:
        found = jars(ICEBERG, SQLITE)
    except (MissingExtra, RuntimeError) as error:
        yield Finding("jars", "wrong", str(error), "set STEDI_SPARK_JARS to jars that are there")
        return
    if found:
        yield Finding("jars", "ok", ", ".join(path.name for path in found))
    else:
        fetch = " and ".join(f"`mvn dependency:get -Dartifact={artifact}`" for artifact in (ICEBERG, SQLITE))
        yield Finding("jars", "absent", "Iceberg's jars were not found", f"for --engine spark: {fetch}")
