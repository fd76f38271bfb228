"""Delivered bytes to text: gzip and zstd by content, as a stream, and nothing that is not whole.

A stream that does not decode to its end, or decodes to far more than it should, raises `UnreadableFile` where that
shows; what was read before must then be thrown away.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol

from stedi.errors import UnreadableFile
from stedi.reader.model import Limits

_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_NAMED = {".gz": "gzip", ".zst": "zstd"}
# One zstd block of four bytes decodes to 128 KiB: small pieces keep the memory of a bomb small.
_PIECE = {"gzip": 64 << 10, "zstd": 4 << 10}
_OUTPUT = 1 << 20
_ZSTD_WINDOW = 1 << 27


def decompressed(raw: BinaryIO, name: str, limits: Limits | None = None) -> BinaryIO:
    """Returns the text of a delivered file, decompressed while it is read if it is gzip or zstd by its content.

    Args:
        raw: The file, from its start.
        name: Its name, for messages; one that ends in `.gz` or `.zst` promises that format.
        limits: Of these `ratio` and `bomb_bytes` count.

    Returns:
        A stream. Reading it raises `UnreadableFile` if the file does not decode to its end or is a bomb.

    Raises:
        UnreadableFile: If the file is named as if compressed but is not, or not in that way.
    """
    head = _read_exactly(raw, len(_ZSTD))
    found = "gzip" if head.startswith(_GZIP) else "zstd" if head == _ZSTD else None
    promised = next((form for ending, form in _NAMED.items() if name.lower().endswith(ending)), None)
    if promised and promised != found:
        raise UnreadableFile(
            f"{name}: expected {promised} by its name, found {found or 'no compressed file'}; "
            "rename or compress it, then land it again"
        )
    if found is None:
        return io.BufferedReader(_Joined(head, raw), 1 << 16)
    return io.BufferedReader(_Inflated(head, raw, name, found, limits or Limits()), _OUTPUT)


class _Joined(io.RawIOBase):
    """A few bytes that were read ahead, then the rest of their stream."""

    def __init__(self, head: bytes, raw: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)]
        if piece:
            self._head = self._head[len(piece) :]
        else:
            piece = self._raw.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)


class _Decoder(Protocol):
    """What zlib's and zstandard's decompression objects have in common."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...


class _Inflated(io.RawIOBase):
    """Decompresses members or frames one after another."""

    def __init__(self, head: bytes, raw: BinaryIO, name: str, form: str, limits: Limits) -> None:
        super().__init__()
        self._raw = _Joined(head, raw)
        self._name = name
        self._form = form
        self._limits = limits
        self._read = self._written = 0
        self._input = b""
        self._output = memoryview(b"")
        self._begin: Callable[[], _Decoder] = _gzip_member if form == "gzip" else _zstd_frame
        self._decoder: Any = self._begin()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._output:
            if not self._advance():
                return 0
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def _advance(self) -> bool:
        """Decodes some more; False at the end of the file."""
        if self._decoder is None or self._decoder.eof:
            if not self._next():
                return False
        elif not self._input and not self._refill():
            raise self._unreadable("it ends before its compressed data end")
        self._decode()
        return True

    def _decode(self) -> None:
        decoder = self._decoder
        try:
            if self._form == "gzip":
                piece = decoder.decompress(self._input, _OUTPUT)
                self._input = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            else:
                piece = decoder.decompress(self._input)
                self._input = decoder.unused_data if decoder.eof else b""
        except Exception as error:
            # zstandard's error is not importable without importing zstandard, and the two share no base.
            if not isinstance(error, zlib.error) and type(error).__name__ != "ZstdError":
                raise
            raise self._unreadable(f"its {self._form} data are damaged") from None
        self._output = memoryview(piece)
        self._written += len(piece)
        limits = self._limits
        if self._written > limits.bomb_bytes and self._written > limits.ratio * self._read:
            raise self._unreadable(
                f"it decodes to more than {limits.ratio} times its size, beyond {limits.bomb_bytes:,} bytes"
            )

    def _next(self) -> bool:
        """Begins the next member or frame; zeros after the last member of gzip are padding."""
        while True:
            if self._form == "gzip":
                self._input = self._input.lstrip(b"\0")
            if self._input or not self._refill():
                break
        if not self._input:
            return False
        while len(self._input) < len(_ZSTD) and self._refill():
            pass
        if not self._input.startswith(_GZIP if self._form == "gzip" else _ZSTD):
            raise self._unreadable(f"something follows its {self._form} data")
        self._decoder = self._begin()
        return True

    def _refill(self) -> bool:
        piece = self._raw.read(_PIECE[self._form]) or b""
        self._read += len(piece)
        self._input += piece
        return bool(piece)

    def _unreadable(self, what: str) -> UnreadableFile:
        return UnreadableFile(f"{self._name}: {what}; the file was refused whole and may be landed again")


def _gzip_member() -> Any:
    return zlib.decompressobj(wbits=31)


def _zstd_frame() -> Any:
    import zstandard

    return zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW).decompressobj()


def _read_exactly(raw: BinaryIO, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := raw.read(size - len(found))):
        found += piece
    return found
