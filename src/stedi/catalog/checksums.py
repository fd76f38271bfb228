"""The SHA-256 of every file of a table, in one text file for each table: `checksums`, in the format of `sha256sum -c`.

Metadata files are hashed when they are written, data files when a commit registers them; their lines are on disk before
the catalog points to the files. After a commit a comment names the metadata file that it published. A metadata file is
compared with its line whenever it is read; a data file, which may be large, when an audit asks.

In a bucket a file that grows would be a race, and each object has a place of its own for its SHA-256: what is said
here of lines holds for that. Objects that another writer made, Spark, have none there; their lines are in objects of
their own, one a commit, below `checksums`. The catalog, which is not the lake's own file, needs no comment.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stedi.errors import DamagedFile
from stedi.storage import durable, s3

NAME = "checksums"
"""The file's name, in the folder of its table; paths in it are relative to that folder."""

_LARGEST = 1 << 28
"""The largest file of metadata, bytes; one of ten thousand snapshots has ten million."""

_LINE = re.compile(rb"^([0-9a-f]{64})  (.+)$", re.MULTILINE)
_PUBLISHED = b"# published "


def digest(path: str | Path) -> tuple[str, int]:
    """Returns a file's SHA-256, hex, and its size in bytes."""
    if s3.is_remote(path):
        return s3.digest(s3.at(path))
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest(), stream.tell()


def name_in(folder: Path, path: str | Path) -> str:
    """Returns a file's path relative to its table's folder, with links of both resolved."""
    within = str(path).removeprefix(f"{folder}/")
    return (
        within
        if within != str(path) or s3.is_remote(folder)
        else os.path.relpath(os.path.realpath(path), os.path.realpath(folder))
    )


def record(folder: Path, files: Iterable[tuple[str, str]], *, sync: bool = False) -> None:
    """Adds lines to a table's checksums.

    Args:
        folder: The table's folder.
        files: Path relative to it and SHA-256 of each file.
        sync: Whether these and all earlier lines are on disk afterwards.
    """
    if s3.is_remote(folder):
        import uuid

        named = [f"{sha256}  {name}\n" for name, sha256 in files if sha256]
        if named:
            s3.write(folder / NAME / f"{uuid.uuid4()}", "".join(named).encode())
        return
    _append(folder, "".join(f"{sha256}  {name}\n" for name, sha256 in files).encode(), sync=sync)


def publish(folder: Path, metadata: str) -> None:
    """Notes that the catalog has pointed at a metadata file, which is named relative to the table's folder."""
    if s3.is_remote(folder):
        return
    _append(folder, _PUBLISHED + metadata.encode() + b"\n", sync=False)


def recorded(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of each file of a table that has one, by path relative to its folder.

    A line that a power cut has torn counts as none.
    """
    if s3.is_remote(folder):
        listed = [found.path for found in s3.listing(folder / NAME)]
        return {name: sha256 for _, lines in s3.each(_lines, listed) for name, sha256 in lines.items()}
    return {name.decode("utf-8", "replace"): sha256.decode() for sha256, name in _LINE.findall(_content(folder))}


def expected(folder: Path, paths: Iterable[str]) -> dict[str, str]:
    """Returns the SHA-256 of those of some files of a table that have one, by path."""
    lines = recorded(folder)
    if s3.is_remote(folder):
        found = s3.each(s3.recorded, [s3.at(path) for path in paths])
        told = {str(path): sha256 or lines.get(name_in(folder, str(path)), "") for path, sha256 in found}
        return {path: sha256 for path, sha256 in told.items() if sha256}
    named = {path: name_in(folder, path) for path in paths}
    return {path: lines[name] for path, name in named.items() if name in lines}


def check(folder: Path, paths: Iterable[str]) -> None:
    """Compares files of a table with their checksums; files of other programs have none.

    Raises:
        OSError: One cannot be read.
        DamagedFile: One differs from what was written.
    """
    listed = list(paths)
    known = expected(folder, listed)
    for path in listed:
        found, _ = digest(path)
        if known.get(path, found) != found:
            raise DamagedFile(folder.name, name_in(folder, path), f"SHA-256 {known[path]}", f"SHA-256 {found}")


def published(folder: Path) -> str | None:
    """Returns the metadata file that the catalog was last pointed at, relative to the table's folder, if known."""
    _, found, rest = (b"\n" + _content(folder)).rpartition(b"\n" + _PUBLISHED)
    name, ended, _ = rest.partition(b"\n")
    return name.decode("utf-8", "replace") if found and ended else None


def prune(folder: Path, stays: Callable[[str], bool]) -> None:
    """Removes the lines of removed files, durably. The caller keeps others from committing.

    Args:
        folder: The table's folder.
        stays: Returns whether the line of a path, relative to the folder, stays.
    """
    if s3.is_remote(folder):
        gone = [found.path for found in s3.listing(folder / NAME) if not any(map(stays, _lines(found.path)))]
        s3.remove(gone)
        return
    lines = [f"{sha256}  {name}\n" for name, sha256 in recorded(folder).items() if stays(name)]
    # without it a restored, older catalog would not be noticed
    last = published(folder)
    comment = [f"{_PUBLISHED.decode()}{last}\n"] if last else []
    durable.write(folder / NAME, "".join(lines + comment).encode(), durable.readable(folder))


def read(path: Path) -> bytes:
    """Returns the content of a metadata file, if it is unchanged.

    Args:
        path: A file in the folder `metadata` of its table.

    Raises:
        OSError: It cannot be read.
        DamagedFile: Its SHA-256 is not the recorded one.
    """
    if s3.is_remote(path):
        return _read_object(path)
    return _vouched(path, durable.content(path, _LARGEST), vouched(path))


def _lines(path: Path) -> dict[str, str]:
    return {name.decode("utf-8", "replace"): sha256.decode() for sha256, name in _LINE.findall(path.read_bytes())}


@lru_cache(maxsize=64)
def _read_object(path: Path) -> bytes:
    """Reads a metadata file of a bucket, cached: files are never rewritten, and each read is a request."""
    return _vouched(path, *s3.content(path))


def _vouched(path: Path, content: bytes, sha256: str | None) -> bytes:
    if sha256 is not None:
        found = hashlib.sha256(content).hexdigest()
        if found != sha256:
            table, file = path.parent.parent.name, f"{path.parent.name}/{path.name}"
            raise DamagedFile(table, file, f"SHA-256 {sha256}", f"SHA-256 {found}")
    return content


def vouched(path: Path) -> str | None:
    """Returns the recorded SHA-256 of a metadata file, or None: other programs' commits have none."""
    content = _content(path.parent.parent)
    at = content.rfind(f"  {path.parent.name}/{path.name}\n".encode())
    # a search for the name, not a parse of every line: each metadata file that is read asks for its sum
    found = content[max(0, at - 64) : at]
    return found.decode() if re.fullmatch(rb"[0-9a-f]{64}", found) else None


def _content(folder: Path) -> bytes:
    if s3.is_remote(folder):
        return b""
    path = folder / NAME
    try:
        found = path.stat()
        return _read_once(path, found.st_ino, found.st_size, found.st_mtime_ns)
    except FileNotFoundError:
        return b""


@lru_cache(maxsize=16)
def _read_once(path: Path, inode: int, size: int, mtime_ns: int) -> bytes:
    """Reads a table's checksums, once for all the manifests of a table of many commits."""
    return path.read_bytes()


def _append(folder: Path, lines: bytes, *, sync: bool) -> None:
    path = folder / NAME
    new = not path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        if new:
            os.fchmod(descriptor, durable.readable(folder))
        size = os.fstat(descriptor).st_size
        if size and os.pread(descriptor, 1, size - 1) != b"\n":
            lines = b"\n" + lines  # the last writer's line was torn
        # in one call: with O_APPEND lines of two processes do not mix
        written = os.write(descriptor, lines)
        if written != len(lines):
            raise OSError(28, "No space left on device", str(path))
        if sync:
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    # the name of a new file must be on disk, too, or a power cut takes all its lines
    if new:
        durable.sync(folder)


class Output:
    """A file under a temporary name that takes its own name, and gets its checksum, once its bytes are on disk.

    An object in a bucket needs no temporary name: it appears complete, with its checksum.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._hash = hashlib.sha256()
        self._stream: BinaryIO
        if s3.is_remote(path):
            self._stream = io.BytesIO()
            return
        durable.folder(path.parent)
        # a link planted under the temporary name must not send the bytes elsewhere
        descriptor = os.open(self._partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        self._stream = open(descriptor, "wb")  # noqa: SIM115 - closed by `close`
        os.fchmod(descriptor, durable.readable(path.parent))

    def write(self, b: bytes) -> int:
        """Adds bytes."""
        self._hash.update(b)
        return self._stream.write(b)

    def tell(self) -> int:
        """Returns how many bytes there are."""
        return self._stream.tell()

    def close(self) -> None:
        """Gives the file its name, once, and its checksum."""
        if self._stream.closed:
            return
        if isinstance(self._stream, io.BytesIO):
            content = self._stream.getvalue()
            self._stream.close()
            s3.write(self._path, content)
            return
        try:
            self._stream.flush()
            os.fsync(self._stream.fileno())
            self._stream.close()
            os.replace(self._partial, self._path)
        except BaseException:
            self._abandon()
            raise
        folder = self._path.parent
        durable.sync(folder)
        line = (f"{folder.name}/{self._path.name}", self._hash.hexdigest())
        # the table's metadata is the last file of a commit: its sync covers the lines of the others
        record(folder.parent, [line], sync=self._path.name.endswith(".metadata.json"))

    def __enter__(self) -> Output:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        if not s3.is_remote(self._path):
            self._partial.unlink(missing_ok=True)
        self._stream.close()
