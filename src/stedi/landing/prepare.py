"""From an inspected file to clean lines and rejects, in a process of its own where there are several.

`prepare` is a pure function of a file and a folder, so that any process, on any machine, can run it.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from stedi import delivery, reader
from stedi.errors import UnreadableFile
from stedi.landing.inspect import Inspected


@dataclass(frozen=True, slots=True)
class Prepared:
    """A file that the typed reader can take.

    Attributes:
        file: What the first look found.
        lines: Clean newline-delimited JSON: the delivered file itself, or a rewritten one.
        spelling: Under which name each field of the contract stands in `lines`.
        rejects: Newline-delimited JSON of the rejected records, raw bytes in base64; None if there are none.
        counts: Records seen, accepted, quarantined, and drift.
    """

    file: Inspected
    lines: Path
    spelling: Mapping[str, str]
    rejects: Path | None
    counts: reader.Counts


def as_it_lies(file: Inspected, records: int) -> Prepared:
    """Returns a clean file for the typed reader, untouched."""
    spelling = file.layout.spelling if file.layout else {}
    return Prepared(file, file.delivered.path, spelling, None, reader.Counts(records, records, 0, {}))


def prepare(file: Inspected, folder: Path) -> Prepared:
    """Rewrites a file that is not clean as it stands.

    Args:
        file: What the first look found.
        folder: A folder that does not exist yet, for the lines and the rejects.

    Raises:
        UnreadableFile: It does not decode to its end, or is not what the first look saw.
    """
    folder.mkdir(mode=0o700)
    lines, rejects = folder / "lines.json", folder / "rejects.json"
    name = file.delivered.name
    try:
        with (
            delivery.open_regular(file.delivered.path) as raw,
            open(lines, "wb") as out,
            open(rejects, "wb") as rejected,
        ):
            hashing = _Hashing(raw)

            def reject(record: reader.Reject) -> None:
                row = {
                    "offset": record.offset,
                    "line": record.line,
                    "reason": record.reason,
                    "raw": base64.b64encode(record.raw).decode("ascii"),
                    "raw_size": record.raw_size,
                }
                rejected.write(json.dumps(row).encode() + b"\n")

            stream = reader.decompressed(cast(BinaryIO, io.BufferedReader(hashing, 1 << 18)), name)
            counts, spelling = reader.read(stream, file.contract, out, reject)
            hashing.finish()
    except OSError as error:
        raise UnreadableFile(f"{name}: cannot be read ({error.strerror}); land it again when it can") from error
    if hashing.hexdigest() != file.sha256:
        raise UnreadableFile(f"{name}: it changed while it was read; land it again when it is complete")
    return Prepared(file, lines, spelling, rejects if counts.quarantined else None, counts)


class _Hashing(io.RawIOBase):
    """A stream that hashes what is read through it: what was rewritten is what was hashed."""

    def __init__(self, raw: BinaryIO) -> None:
        super().__init__()
        self._raw = raw
        self._digest = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        block = self._raw.read(len(buffer))
        buffer[: len(block)] = block
        self._digest.update(block)
        return len(block)

    def finish(self) -> None:
        """Reads whatever the record reader left, so that the hash covers the file."""
        while block := self._raw.read(1 << 18):
            self._digest.update(block)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()
