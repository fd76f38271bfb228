"""Delivered bytes to UTF-8 as a stream: gzip and zstd by content; incomplete files and other data are refused.

`forms` recognises the form of the bytes. A stream that does not decode to its end, or to far more than it should,
raises `UnreadableFile` at that point; everything read before must then be discarded.
"""

from __future__ import annotations

import gzip
import io
import zlib
from typing import Any, BinaryIO, cast

from stedi.errors import UnreadableFile
from stedi.landing.reader import forms
from stedi.landing.reader.model import Limits

_NAMED = {".gz": "gzip", ".zst": "zstd"}
# One zstd block of four bytes decodes to 128 KiB: small pieces keep the memory of a bomb small.
_PIECE = {"gzip": 64 << 10, "zstd": 4 << 10}
_OUTPUT = 1 << 20
_WINDOW = 1 << 27
"""The largest window of zstd, which is memory while a file is read; zstd's own programs stop there, too."""
_FRAME_HEADER = 18
"""The longest start of a zstd frame in bytes: the magic number and a header of up to 14 (RFC 8878, 3.1.1)."""
_PADDING = b"\0 \t\r\n"


def decompressed(raw: BinaryIO, name: str, limits: Limits | None = None) -> BinaryIO:
    """Returns the text of a delivered file in UTF-8, decompressed and decoded while it is read.

    Args:
        raw: The file, from its start.
        name: Its name, for messages; `.gz` or `.zst` at its end promises that format, unless the file is empty.
        limits: `ratio` and `bomb_bytes` apply.

    Returns:
        A stream. Reading it raises `UnreadableFile` if the file does not decode to its end or is a bomb.

    Raises:
        UnreadableFile: If the file is named as if compressed but is not, or not in that way; if it is packed in another
            way, or twice; or if it is something else than text.
    """
    head = _read_exactly(raw, forms.HEAD)
    found = forms.packing(head)
    promised = next((form for ending, form in _NAMED.items() if name.lower().endswith(ending)), None)
    if promised and promised != found and head:
        what = found or forms.foreign(head) or "no compressed file"
        raise UnreadableFile(
            f"{name}: expected {promised} by its name, found {what}; rename or compress it, then land it again"
        )
    if not found:
        return _decoded(io.BufferedReader(_Joined(head, raw), 1 << 16), head, name)
    inflated = _Inflated(_Joined(head, raw), name, found, limits or Limits())
    head = inflated.head(forms.HEAD)
    if forms.packing(head):
        raise forms.refused(name, f"a file that was compressed twice, {found} and {forms.packing(head)}")
    return _decoded(io.BufferedReader(inflated, _OUTPUT), head, name)


def form(raw: BinaryIO, name: str) -> tuple[str, str]:
    """Returns the compression of a delivered file, `gzip`, `zstd` or nothing, and its encoding, for `writer`.

    Raises:
        UnreadableFile: As for `decompressed`.
    """
    head = _read_exactly(raw, forms.HEAD)
    found = forms.packing(head)
    if found:
        head = _Inflated(_Joined(head, raw), name, found, Limits()).head(forms.HEAD)
    return found, forms.encoding(head)


def _decoded(stream: BinaryIO, head: bytes, name: str) -> BinaryIO:
    encoding = forms.encoding(head)
    plain = encoding == "utf-8"
    if what := forms.foreign(head if plain else head.decode(encoding, "ignore").encode()):
        raise forms.refused(name, what)
    return stream if plain else io.BufferedReader(forms.Decoded(stream, name, encoding), 1 << 16)


class _Joined(io.RawIOBase):
    """A few bytes that were read ahead, then the rest of their stream."""

    def __init__(self, head: bytes, raw: BinaryIO) -> None:
        super().__init__()
        self._head = head
        self._raw: Any = raw  # every byte stream has `readinto`; the type does not show it

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._head[: len(buffer)]
        if not piece:
            return int(self._raw.readinto(buffer))
        self._head = self._head[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)


class _Inflated(io.RawIOBase):
    """Decompresses members or frames one after another."""

    def __init__(self, raw: io.RawIOBase, name: str, form: str, limits: Limits) -> None:
        super().__init__()
        self._raw = raw
        self._name = name
        self._form = form
        self._limits = limits
        self._read = self._written = 0
        self._input = b""
        self._output = memoryview(b"")
        self._decoder: Any = None

    def head(self, size: int) -> bytes:
        """Returns the first bytes, as many as there are; they are read again."""
        held = b""
        while len(held) < size and self._fill():
            held += self._output
            self._output = memoryview(b"")
        self._output = memoryview(held)
        return held[:size]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._fill():
            return 0
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def _fill(self) -> bool:
        while not self._output:
            if not self._advance():
                return False
        return True

    def _advance(self) -> bool:
        """Decodes some more; False at the end of the file."""
        if self._decoder is None or self._decoder.eof:
            if not self._next():
                return False
        elif not self._input and not self._refill():
            raise self._unreadable("its compressed data are truncated")
        self._decode()
        return True

    def _decode(self) -> None:
        decoder = self._decoder
        try:
            if self._form == "gzip":
                # zlib bounds what comes out; zstandard has no bound, so little goes in (`_PIECE`)
                piece = decoder.decompress(self._input, _OUTPUT)
                self._input = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            else:
                piece = decoder.decompress(self._input)
                self._input = decoder.unused_data if decoder.eof else b""
        except Exception as error:
            if not _is_damage(error):
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
        """Begins the next member or frame; zeros and line breaks behind one are padding, frames without text go by."""
        while True:
            self._input = self._input.lstrip(_PADDING)
            if not self._input and self._refill():
                continue
            # a magic number, and the size that follows it in a frame without text
            self._ensure(8)
            if not self._input:
                return False
            if self._form == "gzip" or not forms.SKIPPABLE.match(self._input):
                break
            self._pass_over()
        if self._form != forms.packing(self._input):
            what = f": {found}" if (found := forms.foreign(self._input)) else ""
            raise self._unreadable(f"other data follow its {self._form} data{what}")
        # 31: the header and checksum of gzip alone, and the largest window
        self._decoder = zlib.decompressobj(wbits=31) if self._form == "gzip" else self._frame()
        return True

    def _pass_over(self) -> None:
        """Skips a zstd frame without text; `pzstd` writes one before each other frame."""
        if len(self._input) < 8:
            raise self._unreadable("its compressed data are truncated")
        left = 8 + int.from_bytes(self._input[4:8], "little")
        while left > len(self._input):
            left -= len(self._input)
            self._input = b""
            if not self._refill():
                raise self._unreadable("its compressed data are truncated")
        self._input = self._input[left:]

    def _frame(self) -> Any:
        """Returns the decoder of a frame of zstd, once it is known to take no more memory than it may."""
        import zstandard

        self._ensure(_FRAME_HEADER)
        try:
            header = zstandard.get_frame_parameters(self._input)
        except zstandard.ZstdError:
            if len(self._input) < _FRAME_HEADER:
                raise self._unreadable("its compressed data are truncated") from None
            raise self._unreadable("its zstd data are damaged") from None
        if header.window_size > _WINDOW:
            raise self._unreadable(
                f"its zstd window is {header.window_size >> 20:,} MiB, and {_WINDOW >> 20} MiB are read; compress it "
                "without --long, or with --long=27"
            )
        if header.dict_id:
            raise self._unreadable("its zstd data need a dictionary; compress it without one")
        return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()

    def _ensure(self, size: int) -> None:
        while len(self._input) < size and self._refill():
            pass

    def _refill(self) -> bool:
        piece = self._raw.read(_PIECE[self._form]) or b""
        self._read += len(piece)
        self._input += piece
        return bool(piece)

    def _unreadable(self, what: str) -> UnreadableFile:
        return UnreadableFile(f"{self._name}: {what}; the file was refused whole and may be landed again")


def _is_damage(error: Exception) -> bool:
    # zstandard's error is not importable without importing zstandard, and the two share no base
    return isinstance(error, zlib.error) or type(error).__name__ == "ZstdError"


def writer(out: BinaryIO, packed: str, encoding: str) -> BinaryIO:
    """Returns a writer of UTF-8 in a form from `form`; equal texts give equal bytes. Closing it leaves `out` open.

    Args:
        out: Takes the bytes.
        packed: `gzip`, `zstd` or nothing.
        encoding: As returned by `form`.
    """
    stream: Any = _Open(out)
    if packed == "gzip":
        # a name or time in the header would make equal texts differ
        stream = gzip.GzipFile(fileobj=out, mode="wb", filename="", mtime=0)
    elif packed == "zstd":
        import zstandard

        stream = zstandard.ZstdCompressor().stream_writer(out, closefd=False)
    return cast(BinaryIO, stream if encoding == "utf-8" else forms.Encoder(stream, encoding))


class _Open:
    """A stream that stays open when it is closed."""

    def __init__(self, out: BinaryIO) -> None:
        self.write = out.write

    def close(self) -> None:
        """Leaves the stream open."""

    def __enter__(self) -> _Open:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves the stream open."""


def _read_exactly(raw: BinaryIO, size: int) -> bytes:
    found = b""
    while len(found) < size and (piece := raw.read(size - len(found))):
        found += piece
    return found
