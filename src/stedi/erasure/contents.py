"""The content of a file as texts, plain and decoded: what an erasure searches, whatever the format of the file."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from stedi.erasure.identifiers import as_text
from stedi.privacy import decoding
from stedi.storage import s3

PIECE = 1 << 22
"""Characters that are searched at once."""
_OVERLAP = 4096
_MOST_KNOWN = 1 << 20
"""The most values of a file that are remembered, so that each is searched once."""
_MOST_UNPACKED = 1 << 32
"""The most bytes to decompress from a file; a larger one is reported as undecoded."""
_MAGIC = {
    b"PAR1": "parquet", b"Obj\x01": "avro", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip",
}  # fmt: skip


def kind(path: Path) -> str:
    """Returns the format of a regular file by its first bytes, or `other`.

    Raises:
        OSError: It cannot be read, or is not a regular file any more.
    """
    if s3.is_remote(path):
        head = s3.start(path, 16)
    else:
        with _opened(path) as stream:
            head = stream.read(16)
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    for magic, name in _MAGIC.items():
        if head.startswith(magic):
            return name
    return "other"


def _opened(path: Path) -> BinaryIO:
    """Opens a regular file; never blocks if something else, such as a FIFO, has replaced it."""
    if s3.is_remote(path):
        return path.open("rb")
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("no regular file any more")
    return os.fdopen(number, "rb")


class Undecoded(Exception):
    """A file is not in the format of its first bytes; its bytes were searched before this is raised."""


def texts(path: Path, kind: str, *, latin: bool = False) -> Iterator[str]:
    """Yields the content of a file, plain and decoded; `latin` as in `decoding.plain`.

    Raises:
        OSError: It cannot be read.
        Undecoded: It cannot be decoded to its end; the decodable part was yielded before.
    """
    if kind == "link":
        yield os.readlink(path)
        return
    with _opened(path) as base:
        # the bytes first: of a file that cannot be decoded they are searched all the same
        yield from _pieces(base, latin=latin)
        try:
            yield from _unpacked_streams(base, latin=latin)
            base.seek(0)
            head = base.read(6)
            if decoding.packing(head) and not decoding.opener(head):
                base.seek(0)
                content = base.read(decoding.MOST + 1)
                if len(content) > decoding.MOST:
                    raise Undecoded
                for layer in list(decoding.layers(content))[1:]:
                    yield from decoding.plain(layer, latin=latin)
            if kind == "avro":
                base.seek(0)
                yield from _together(_in_avro(base, latin=latin))
            elif kind == "sqlite":
                yield from _together(_in_sqlite(path))
        except Exception as error:
            raise Undecoded from error


def _unpacked_streams(base: BinaryIO, *, latin: bool) -> Iterator[str]:
    """Yields the decompressed layers of a file as text; errors of a damaged one are raised at the end."""
    chain: list[Callable[[BinaryIO], BinaryIO]] = []
    damage: Exception | None = None
    while len(chain) < decoding.LEVELS:
        opener = decoding.opener(_head(base, chain))
        if opener is None:
            break
        chain.append(opener)
        try:
            yield from _pieces(_layer(base, chain), latin=latin)
        except Exception as error:
            damage = error
    if chain:
        # inside may be what cannot be read as a stream, such as an archive
        content = next(decoding.start(_layer(base, chain), decoding.MOST), b"")
        for layer in list(decoding.layers(content))[1:]:
            yield from decoding.plain(layer, latin=latin)
    if damage is not None:
        raise damage


def _head(base: BinaryIO, chain: Iterable[Callable[[BinaryIO], BinaryIO]]) -> bytes:
    try:
        # as long as the longest mark, that of xz
        return next(decoding.pieces(_layer(base, chain), 6), b"")[:6]
    except Exception:
        return b""


def _layer(base: BinaryIO, chain: Iterable[Callable[[BinaryIO], BinaryIO]]) -> BinaryIO:
    base.seek(0)
    stream = base
    for opener in chain:
        stream = opener(stream)
    return stream


def _pieces(stream: BinaryIO, *, latin: bool) -> Iterator[str]:
    """Yields a stream as text, in pieces whose overlap is longer than any trace."""
    kept, size = b"", 0
    for piece in decoding.pieces(stream, PIECE):
        size += len(piece)
        if size > _MOST_UNPACKED:
            raise Undecoded
        yield from decoding.plain(kept + piece, latin=latin)
        kept = piece[-_OVERLAP:]


def _together(pieces: Iterable[str]) -> Iterator[str]:
    """Joins texts into fewer, longer ones; everything before damage is yielded before the error is raised."""
    held: list[str] = []
    size = 0
    try:
        for text in pieces:
            held.append(text)
            size += len(text)
            if size > PIECE:
                yield "\n\n".join(held)
                held, size = [], 0
    except Exception:
        yield "\n\n".join(held)
        raise
    yield "\n\n".join(held)


def _in_avro(stream: BinaryIO, *, latin: bool) -> Iterator[str]:
    import fastavro

    reader = fastavro.reader(stream)
    seen: set[str] = set()
    for record in chain([reader.metadata], reader):
        new = dict.fromkeys(text for text in _values(record, latin=latin) if text not in seen)  # names of fields recur
        if len(seen) < _MOST_KNOWN:
            seen.update(new)
        yield "\n".join(new)


def _in_sqlite(path: Path) -> Iterator[str]:
    """Yields the values of a database, one per line."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        # texts of other programs need not be UTF-8
        connection.text_factory = bytes
        for name, kind, sql in connection.execute("select name, type, sql from sqlite_master").fetchall():
            yield "\n".join(values(part) for part in (name, sql))
            if kind != b"table":
                continue
            table = name.decode("utf-8", "replace").replace('"', '""')
            for row in connection.execute(f'select * from "{table}"'):
                yield "\n".join(map(values, row))


def values(value: object) -> str:
    """Returns all values of a decoded record as a text, one per line."""
    return "\n".join(_values(value))


def _values(value: object, *, latin: bool = False) -> list[str]:
    """Returns all values of a decoded record as texts; `latin` as in `decoding.plain`."""
    found: list[str] = []
    _add_values((value,), found, latin=latin)
    return found


def _add_values(parts: Iterable[object], found: list[str], *, latin: bool) -> None:
    for part in parts:
        if isinstance(part, str):
            found.append(part)
        elif type(part) is int:  # as many as texts in Avro
            found.append(str(part))
        elif isinstance(part, dict):
            _add_values(chain.from_iterable(part.items()), found, latin=latin)
        elif isinstance(part, list | tuple):
            _add_values(part, found, latin=latin)
        else:
            found.append(as_text(part, latin=latin) if isinstance(part, bytes) else str(part))
