"""Locations, and the paths of objects."""

from __future__ import annotations

import fnmatch
import hashlib
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path, PosixPath, PurePosixPath
from typing import IO, Any, BinaryIO, cast

from stedi.errors import LakeError, UsageError
from stedi.storage.s3.connection import answers, client

SCHEME = "s3://"
_OTHER = re.compile(r"(?!file:)[A-Za-z][A-Za-z0-9+.-]+://")


def is_remote(location: str | os.PathLike[str]) -> bool:
    """Returns whether a location, or a path that was made of one, is in a bucket."""
    # one slash, since a `Path` keeps no more; `s3a` is what Hadoop calls it
    return isinstance(location, S3Path) or str(location).startswith(("s3:/", "s3a:/"))


def at(location: str | os.PathLike[str]) -> Path:
    """Returns the path of a location: of an object for `s3://bucket/key`, of a file for anything else.

    Raises:
        LakeError: It names no bucket.
        UsageError: It is a URI of another kind.
    """
    if isinstance(location, S3Path):
        return location
    text = str(location)
    if not is_remote(text):
        if _OTHER.match(text):
            raise UsageError(f"{text}: expected a path on this machine or s3://BUCKET/PREFIX, found another URI")
        return Path(text.removeprefix("file://") if text.startswith("file://") else text.removeprefix("file:"))
    rest = text.partition(":")[2]
    # the scheme is the first part: parents and joins then work as those of a folder
    path = S3Path("s3:", *rest.strip("/").split("/"))
    if not path.bucket or rest.startswith("///"):
        raise LakeError(f"{text}: expected s3://BUCKET/PREFIX, found no bucket")
    return path


def is_outage(error: Exception, location: str | os.PathLike[str]) -> bool:
    """Returns whether an error tells of S3, of the way there or of who may use it, and nothing of the object."""
    return is_remote(location) and isinstance(error, OSError) and not isinstance(error, FileNotFoundError)


class S3Path(PosixPath):
    """A path in a bucket: `s3://bucket/key`. It reads, lists and removes like a file's; `durable` writes.

    What is not defined here would look on the local disk; asking for the file system's own name of it raises.
    """

    def __str__(self) -> str:
        return SCHEME + "/".join(self.parts[1:])

    def __repr__(self) -> str:
        return f"S3Path({str(self)!r})"

    def __fspath__(self) -> str:
        raise LakeError(f"{self}: expected a folder of this machine, found one in S3; this needs a lake in a folder")

    def __reduce__(self) -> tuple[Callable[[str], Path], tuple[str]]:
        return at, (str(self),)

    @property
    def bucket(self) -> str:
        """The bucket's name."""
        return self.parts[1] if len(self.parts) > 1 else ""

    @property
    def key(self) -> str:
        """The object's key, or a prefix of keys without the slash at its end."""
        return "/".join(self.parts[2:])

    @property
    def _prefix(self) -> str:
        return f"{self.key}/" if self.key else ""

    def relative_to(self, *other: Any, **options: Any) -> Path:  # type: ignore[override] # versions of Python differ
        """Returns what follows another path's parts, which is no location by itself: a plain path."""
        return Path(PurePosixPath(*self.parts).relative_to(PurePosixPath(*at(other[0]).parts), *other[1:], **options))

    def is_relative_to(self, *other: Any) -> bool:
        """Returns whether another path is this one or above it."""
        parts = at(other[0]).joinpath(*other[1:]).parts
        return self.parts[: len(parts)] == parts

    def is_absolute(self) -> bool:
        """Says that it is: it depends on no working folder."""
        return True

    def absolute(self) -> S3Path:
        """Returns itself."""
        return self

    def resolve(self, strict: bool = False) -> S3Path:
        """Returns itself: there are no links."""
        return self

    def is_file(self, *args: Any, **kwargs: Any) -> bool:
        """Returns whether there is an object of this key."""
        from stedi.storage.s3 import objects  # here and below, since that module imports this one

        return objects.head(self) is not None

    def is_dir(self, *args: Any, **kwargs: Any) -> bool:
        """Returns whether any object lies below."""
        with answers(self):
            found = client().list_objects_v2(Bucket=self.bucket, Prefix=self._prefix, MaxKeys=1)
        return bool(found.get("KeyCount"))

    def exists(self, *args: Any, **kwargs: Any) -> bool:
        """Returns whether there is an object of this key, or any below."""
        return self.is_file() or self.is_dir()

    def is_symlink(self) -> bool:
        """Says that it is none."""
        return False

    def stat(self, *args: Any, **kwargs: Any) -> os.stat_result:
        """Returns size and time of an object; owner and mode say nothing.

        Raises:
            FileNotFoundError: There is none.
        """
        from stedi.storage.s3 import objects

        found = objects.head(self)
        if found is None:
            raise FileNotFoundError(2, "no such object in S3", str(self))
        return _status(found["ContentLength"], found["LastModified"].timestamp(), found["ETag"])

    lstat = stat

    def read_bytes(self) -> bytes:
        """Returns an object's bytes.

        Raises:
            FileNotFoundError: There is none.
        """
        from stedi.storage.s3 import objects

        return objects.read(self)[0]

    def read_text(self, encoding: str | None = None, *args: Any, **kwargs: Any) -> str:
        """Returns an object's text."""
        return self.read_bytes().decode(encoding or "utf-8")

    def open(self, mode: str = "r", *args: Any, **kwargs: Any) -> IO[Any]:  # type: ignore[override] # versions of Python differ
        """Returns an object's bytes as a file that can be sought in: a copy without a name, gone when it is closed."""
        if mode != "rb":
            raise LakeError(f"{self}: expected an object of S3 to be read as bytes, found mode {mode}")
        import tempfile

        from stedi.storage.s3 import objects

        # readers of Parquet seek, a body of S3 only goes forward
        copy = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115 - the caller closes it
        try:
            with answers(self):
                client().download_fileobj(self.bucket, self.key, copy, Config=objects.transfer())
            copy.seek(0)
        except BaseException:
            copy.close()
            raise
        return copy

    def iterdir(self) -> Iterator[Path]:  # type: ignore[override] # versions of Python differ
        """Yields what lies directly below: objects, and prefixes that have some."""
        with answers(self):
            pages = (
                client()
                .get_paginator("list_objects_v2")
                .paginate(Bucket=self.bucket, Prefix=self._prefix, Delimiter="/")
            )
            for page in pages:
                for entry in page.get("Contents", ()):
                    # the object by which some consoles mark a folder
                    if entry["Key"] != self._prefix:
                        yield self / entry["Key"].removeprefix(self._prefix)
                for entry in page.get("CommonPrefixes", ()):
                    yield self / entry["Prefix"].removeprefix(self._prefix).rstrip("/")

    def glob(self, pattern: str, **kwargs: Any) -> Iterator[Path]:  # type: ignore[override] # versions of Python differ
        """Yields what lies directly below and has a name that a pattern matches."""
        return (path for path in self.iterdir() if fnmatch.fnmatchcase(path.name, pattern))

    def rglob(self, pattern: str, **kwargs: Any) -> Iterator[Path]:  # type: ignore[override] # versions of Python differ
        """Yields the objects below, at any depth, whose names a pattern matches."""
        from stedi.storage.s3 import objects

        return (found.path for found in objects.listing(self) if fnmatch.fnmatchcase(found.path.name, pattern))

    def unlink(self, missing_ok: bool = False) -> None:
        """Removes an object.

        Raises:
            FileNotFoundError: There is none, and that is not allowed.
            PermissionError: S3 refuses.
        """
        from stedi.storage.s3 import objects

        if not missing_ok and not self.is_file():
            raise FileNotFoundError(2, "no such object in S3", str(self))
        objects.remove([self])

    def mkdir(self, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> None:
        """Does nothing: a prefix is there when something has it."""

    def chmod(self, mode: int, **kwargs: Any) -> None:
        """Does nothing: who may read is the bucket's policy."""


def _status(size: int, modified: float, tag: str) -> os.stat_result:
    # times are whole seconds: what was written twice in one has another inode, so that nobody takes one for the other
    inode = int.from_bytes(hashlib.sha256(tag.encode()).digest()[:7])
    return os.stat_result((stat.S_IFREG | 0o600, inode, 0, 1, 0, 0, size, int(modified), int(modified), int(modified)))
