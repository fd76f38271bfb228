"""PyIceberg's file access for a lake: files are written atomically, synced before they are named, and verified on read.

PyIceberg's own local files are not synced, so that a power cut could leave a catalog that points at nothing,
and importing them costs more than a small command may take.
"""

from __future__ import annotations

import io
from pathlib import Path

from pyiceberg.io import FileIO, InputFile, InputStream, OutputFile, OutputStream

from stedi.catalog import checksums
from stedi.catalog.checksums import Output
from stedi.storage import s3


class LakeFile(InputFile, OutputFile):
    """One file, to read or to write."""

    @property
    def path(self) -> Path:
        """The file's path."""
        return s3.at(self.location)

    def __len__(self) -> int:
        return self.path.stat().st_size

    def exists(self) -> bool:
        """Returns whether the file is there."""
        return self.path.is_file()

    def open(self, seekable: bool = True) -> InputStream:
        """Opens the file for reading.

        Raises:
            LakeError: It differs from what was written.
        """
        # read as a whole: a checksum covers the whole file, and no byte is used before it was compared
        return io.BytesIO(checksums.read(self.path))

    def create(self, overwrite: bool = False) -> OutputStream:
        """Opens the file for writing; it takes its name when it is closed without an error.

        Raises:
            FileExistsError: It exists and `overwrite` is False.
        """
        if not overwrite and self.path.is_file():
            raise FileExistsError(f"{self.location} exists")
        return Output(self.path)

    def to_input_file(self) -> InputFile:
        """Returns itself: one class serves both ways."""
        return self


class LakeFileIO(FileIO):
    """What PyIceberg asks of a file system."""

    def new_input(self, location: str) -> LakeFile:
        """Returns the file at a location, to read."""
        return LakeFile(location)

    def new_output(self, location: str) -> LakeFile:
        """Returns the file at a location, to write."""
        return LakeFile(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Removes a file.

        Raises:
            FileNotFoundError: It is not there.
        """
        s3.at(location if isinstance(location, str) else location.location).unlink()
