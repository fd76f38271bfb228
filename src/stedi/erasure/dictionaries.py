"""Reads the values in the dictionaries and bounds of Parquet files, including values that no row has.

An engine returns only the values of rows. A dictionary, or the bounds in a footer, can hold other values. Code that
removes rows without decoding them must also remove these values, as `engines.pages` does. This module checks that, and
shares only the Thrift protocol with `engines.parquet`, the reader of `engines.pages`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from stedi.engines import thrift
from stedi.engines.thrift import Struct

_TEXT = 6
_UNPACKED, _ZSTD = 0, 6
_HEADER = 1 << 12
"""Bytes to read for the header of a dictionary page."""
_MOST = 1 << 28
_DAMAGED = (thrift.Unreadable, ArithmeticError, LookupError, TypeError, ValueError)
"""The exceptions that parsing a damaged or hostile footer can raise."""


def stored(paths: Iterable[Path]) -> dict[str, set[str]]:
    """Returns the texts in dictionaries and bounds of files, by column; unreadable files are skipped.

    Args:
        paths: Parquet files on this machine.
    """
    found: dict[str, set[bytes]] = {}
    for path in paths:
        # the engine reports damaged files, and they are searched as bytes
        with suppress(OSError, *_DAMAGED), path.open("rb") as file:
            _add_texts(file, found)
    return {column: {value.decode("utf-8", "replace") for value in values} for column, values in found.items()}


def _add_texts(stream: BinaryIO, found: dict[str, set[bytes]]) -> None:
    end = stream.seek(0, os.SEEK_END)
    stream.seek(end - 8)
    size = int.from_bytes(stream.read(4), "little")
    stream.seek(end - 8 - size)
    footer, _ = thrift.read(stream.read(size))
    for group in footer[4][1][1]:
        for chunk in group[1][1][1]:
            meta: Struct = chunk[3][1]
            if meta[1][1] != _TEXT:
                continue
            values = found.setdefault(meta[3][1][1][0].decode(), set())
            bounds: Struct = meta[12][1] if 12 in meta else {}
            values.update(bounds[number][1] for number in (1, 2, 5, 6) if number in bounds)
            if 11 in meta and meta[4][1] in (_UNPACKED, _ZSTD):
                _add_entries(_dictionary(stream, meta[11][1], meta[4][1]), values)


def _dictionary(stream: BinaryIO, at: int, codec: int) -> bytes:
    """Returns the decompressed content of the dictionary page at an offset."""
    import zstandard

    stream.seek(at)
    begin = stream.read(_HEADER)
    header, behind = thrift.read(begin)
    unpacked, packed = header[2][1], header[3][1]
    if header[1][1] != 2 or not (0 <= packed <= _MOST and 0 <= unpacked <= _MOST):
        raise ValueError
    page = begin[behind : behind + packed]
    page += stream.read(packed - len(page))
    try:
        return zstandard.ZstdDecompressor().decompress(page, max_output_size=unpacked) if codec == _ZSTD else page
    except zstandard.ZstdError as error:
        raise ValueError from error


def _add_entries(page: bytes, values: set[bytes]) -> None:
    """Adds all texts in the bytes of a dictionary, whatever count its header states."""
    at = 4
    while at <= len(page):
        end = at + int.from_bytes(page[at - 4 : at], "little")
        values.add(page[at:end])
        at = end + 4
