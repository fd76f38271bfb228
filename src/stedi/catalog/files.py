"""Local files for PyIceberg: written whole, on disk before they are named, and read as they were written.

PyIceberg's own local files are not synced, so that a power cut could leave a catalog that points at nothing,
and importing them costs more than a small command may take.
"""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from types import TracebackType

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from stedi import durable
from stedi.catalog import checksums
from stedi.catalog.snapshots import local_path


class _Output:
    """A file under a temporary name that takes its own name, and gets its checksum, once its bytes are on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._hash = hashlib.sha256()
        durable.folder(path.parent)
        self._stream = open(self._partial, "wb")  # noqa: SIM115 - closed by `close`

    def write(self, b: bytes) -> int:
        self._hash.update(b)
        return self._stream.write(b)

    def tell(self) -> int:
        return self._stream.tell()

    def close(self) -> None:
        if self._stream.closed:
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

    def __enter__(self) -> OutputStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self._abandon()

    def _abandon(self) -> None:
        self._partial.unlink(missing_ok=True)
        self._stream.close()


class LocalFile(InputFile, OutputFile):
    """One local file, to read or to write."""

    @property
    def path(self) -> Path:
        """The file's path."""
        return Path(local_path(self.location))

    def __len__(self) -> int:
        return self.path.stat().st_size

    def exists(self) -> bool:
        """Says whether the file is there."""
        return self.path.exists()

    def open(self, seekable: bool = True) -> InputStream:
        """Opens the file for reading.

        Raises:
            LakeError: It is not what was written.
        """
        return io.BytesIO(checksums.read(self.path))

    def create(self, overwrite: bool = False) -> OutputStream:
        """Opens the file for writing; it takes its name when it is closed without an error.

        Raises:
            FileExistsError: It exists and `overwrite` is False.
        """
        if not overwrite and self.path.exists():
            raise FileExistsError(f"{self.location} exists")
        return _Output(self.path)

    def to_input_file(self) -> InputFile:
        """Returns itself: one class serves both ways."""
        return self


class LocalFileIO(FileIO):
    """What PyIceberg asks of a file system."""

    def new_input(self, location: str) -> LocalFile:
        """Returns the file at a location, to read."""
        return LocalFile(location)

    def new_output(self, location: str) -> LocalFile:
        """Returns the file at a location, to write."""
        return LocalFile(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Removes a file.

        Raises:
            FileNotFoundError: It is not there.
        """
        Path(local_path(location if isinstance(location, str) else location.location)).unlink()
