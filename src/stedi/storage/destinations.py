"""Output files of commands: written atomically where a file can be replaced, in place otherwise.

Devices, pipes and descriptors of this process (`/dev/stdout`, `/dev/fd/3`) are written in place; a link is followed,
and its target is replaced in its own folder. Only regular files are ever replaced.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, BinaryIO

from stedi.errors import StediError, UsageError, printable
from stedi.storage import durable, s3

PACKED = {".gz": "gzip", ".zst": "zstd", ".zstd": "zstd"}
"""Endings of names of compressed files, and their formats."""

_DESCRIPTORS = re.compile(r"(?:/proc/(self|thread-self|\d+)(?:/task/\d+)?/fd|/dev/fd)")
_MOST_LINKS = 40
"""Links after which Linux, too, gives up."""


def expanded(path: str | os.PathLike[str]) -> Path:
    """Returns a path with `~` and `~/...` expanded as a shell does; one in a bucket unchanged.

    Raises:
        UsageError: The home folder is unknown or no absolute path, or it is a URI of another kind than S3's or a
            file's.
    """
    if s3.is_remote(path) or "://" in os.fspath(path):
        return s3.at(path)
    text = os.fspath(path)
    if text != "~" and not text.startswith("~/"):
        return Path(text)
    if fault := home_fault():
        raise UsageError(f"{printable(text)}: {fault}; write the path in full")
    return Path(os.path.expanduser(text))


def home_fault() -> str:
    """Returns what is wrong with the home folder of `~`, or nothing: one that is relative is another in each folder."""
    home = os.path.expanduser("~")
    if home == "~":
        return "expected HOME to be set, found no home folder"
    named = os.environ.get("HOME", home)  # of an empty one Python makes the root folder
    if not os.path.isabs(named):
        return f"expected an absolute path in HOME, found {'a relative' if named else 'an empty'} one"
    return ""


def of_user(variable: str, default: str, environment: Mapping[str, str]) -> Path:
    """Returns a folder of the user, as in the XDG Base Directory Specification, by which a relative path is invalid.

    Args:
        variable: The variable that names it.
        default: The folder where the variable is not set, or is empty.
        environment: The variables.

    Raises:
        UsageError: It is no absolute path; the message does not say what to do.
    """
    named = environment.get(variable) or default
    fault = home_fault() if named.startswith("~") else ""
    if fault or not (found := expanded(named)).is_absolute():
        raise UsageError(fault or f"expected an absolute path in {variable}, found a relative one")
    return found


@contextmanager
def writing(path: Path, mode: int = 0o600) -> Iterator[BinaryIO]:
    """Yields a file to write; if the block succeeds, it replaces an existing file once complete and on disk.

    Args:
        path: Its name. One that ends in `.gz`, `.zst` or `.zstd` is written compressed.
        mode: The mode of a new file, by default readable by its owner only.

    Raises:
        StediError: It cannot be written: it is a folder, its folder is missing, or the disk refuses.
        BrokenPipeError: Its reader has closed it.
    """
    try:
        with _opened(expanded(path), mode) as stream, _packed(stream, path.name) as out:
            yield out
    # not a failure to write: the reader has closed the pipe, and the command ends with a code of its own
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StediError(
            f"{printable(str(path))}: cannot be written: {error.strerror or type(error).__name__}"
        ) from error


def is_special(path: Path) -> bool:
    """Returns whether a path leads to something that is written to in place: a device, a pipe, a descriptor."""
    try:
        place, descriptor = _followed(expanded(path))
    except OSError:
        return False  # `writing` says why it cannot be written
    return descriptor is not None or _is_odd(place)


@contextmanager
def _opened(path: Path, mode: int) -> Iterator[BinaryIO]:
    place, descriptor = _followed(path)
    if descriptor is not None:
        # it keeps the offset and append mode that its opener chose
        with os.fdopen(os.dup(descriptor), "wb") as stream:
            yield stream
        return
    if place.is_dir():
        raise IsADirectoryError(21, "it is a folder")
    if _is_odd(place):
        # a terminal that is opened must not become the one that controls this process
        with os.fdopen(os.open(place, os.O_WRONLY | os.O_NOCTTY), "wb") as stream:
            yield stream
        return
    # a misspelled device would become a file there
    if place.parent == Path("/dev"):
        raise OSError(2, "there is no such device")
    if not place.parent.is_dir():
        raise OSError(2, "there is no such folder")
    with durable.replacing(place, mode) as stream:
        yield stream


def _followed(path: Path) -> tuple[Path, int | None]:
    """Returns where links lead, and the descriptor if that is one of this process."""
    for _ in range(_MOST_LINKS):
        parent = Path(os.path.realpath(path.parent))
        folder = _DESCRIPTORS.fullmatch(str(parent))
        # one of another process is opened as any other file
        if folder and path.name.isdigit() and folder[1] in (None, "self", "thread-self", str(os.getpid())):
            return path, int(path.name)
        path = parent / path.name
        if not path.is_symlink():
            return path, None
        path = parent / os.readlink(path)
    raise OSError(40, "links form a loop")


def _is_odd(place: Path) -> bool:
    try:
        mode = place.stat().st_mode
    except FileNotFoundError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _packed(stream: BinaryIO, name: str) -> Any:
    form = next((form for ending, form in PACKED.items() if name.lower().endswith(ending)), "")
    if form == "gzip":
        import gzip

        return gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0)
    if form == "zstd":
        from zstandard import ZstdCompressor

        return ZstdCompressor(level=3).stream_writer(stream, closefd=False)
    return nullcontext(stream)
