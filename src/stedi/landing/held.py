"""Clean files that the engine reads directly: makes sure that it reads the bytes that were hashed.

Each file is kept open once it is known to be the inspected one, and the engine opens that descriptor: a file that is
moved into its place is never read. A change of content is detected, too, since the file's change time (`ctime`) is
compared after reading. Files beyond the limit of open files are copied and hashed while they are copied.
"""

from __future__ import annotations

import hashlib
import os
import resource
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from stedi.errors import LandingError, UnreadableFile
from stedi.landing.deliveries import local
from stedi.landing.inspect import Inspected

_DESCRIPTORS = next((folder for folder in ("/proc/self/fd", "/dev/fd") if os.path.isdir(folder)), None)
"""Where this process's open files have paths."""

_OTHERS = 256
"""Descriptors that are reserved for everything else."""

_BLOCK = 1 << 20


class Held:
    """The clean files of one batch; a context that closes them.

    Args:
        scratch: The folder for copies; the caller removes it.
    """

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._stack = ExitStack()
        self._open: list[tuple[Inspected, BinaryIO]] = []
        self._copies = 0
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self._most = (1 << 20 if soft == resource.RLIM_INFINITY else soft) - _OTHERS if _DESCRIPTORS else 0

    def __enter__(self) -> Held:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def take(self, file: Inspected) -> Path:
        """Returns the path by which the engine reads exactly the content of the first look.

        Raises:
            UnreadableFile: It cannot be read, or is not what the first look saw.
        """
        with ExitStack() as opened:
            stream = opened.enter_context(local.open_regular(file.delivered.path, file.delivered.name))
            if not local.fingerprint(stream.fileno()).like(file.fingerprint):
                raise _changed(file)
            if len(self._open) >= self._most:
                return self._copied(file, stream)
            # until here an error closes the file; from here on it stays open to the end of the batch
            self._stack.push(opened.pop_all())
        self._open.append((file, stream))
        return Path(f"{_DESCRIPTORS}/{stream.fileno()}")

    def unchanged(self) -> None:
        """Raises LandingError if a file has changed while it was held."""
        for file, stream in self._open:
            if not local.fingerprint(stream.fileno()).like(file.fingerprint):
                raise LandingError(
                    f"{file.delivered.name}: it changed while it was landed; nothing of its batch was landed: "
                    "land again when it is complete"
                )

    def _copied(self, file: Inspected, stream: BinaryIO) -> Path:
        self._copies += 1
        path = self._scratch / f"held-{self._copies}.json"
        digest = hashlib.sha256()
        try:
            with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as copy:
                while block := stream.read(_BLOCK):
                    digest.update(block)
                    copy.write(block)
        except OSError as error:
            raise LandingError(
                f"{file.delivered.name}: it cannot be copied to the lake's tmp/ ({error.strerror}); nothing of its "
                "batch was landed: free some space and land it again"
            ) from error
        if digest.hexdigest() != file.sha256:
            raise _changed(file)
        return path


def _changed(file: Inspected) -> UnreadableFile:
    return UnreadableFile(f"{file.delivered.name}: it changed while it was read; land it again when it is complete")
