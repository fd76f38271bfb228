"""Metadata files as they are written: whole, on disk before they are named, with a line among the checksums."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from stedi.catalog import checksums
from stedi.storage import durable, s3


class Output:
    """A file under a temporary name that takes its own name, and gets its checksum, once its bytes are on disk.

    An object of a bucket needs no other name: it is there, with its checksum, when all of it is.
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
        checksums.record(folder.parent, [line], sync=self._path.name.endswith(".metadata.json"))

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
