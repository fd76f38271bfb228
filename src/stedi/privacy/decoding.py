"""Decodes bytes to all texts that they may be: UTF-8, UTF-16 and UTF-32 at any offset, and unpacked data.

Everything that the standard library can decompress is decompressed, within bounds, and its output is decoded again.
Data that cannot be decompressed are still searched as bytes. Values of tables and whole files are decoded in the same
way.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterator
from typing import BinaryIO, cast

MOST = 64 << 20
"""Bytes that one packed thing is unpacked to, at most."""
ENCODINGS = ("UTF-8", "UTF-16", "UTF-32")
"""The encodings in which bytes are read."""
PACKINGS = ("gzip", "zlib", "bzip2", "xz", "lzma", "zstd", "zip")
"""The compressed formats, also nested."""
READINGS = (
    "JSON escapes",
    "percent-encoding",
    "character references",
    "quoted-printable",
    "base64",
    "invisible characters",
)
"""The encodings in which a text is read in addition."""
LEVELS = 4
"""How many layers of packing are unpacked."""
_ESCAPE = re.compile(r"\\u([0-9a-fA-F]{4})")
_SKIPPABLE = bytes(range(0x50, 0x60))
"""First bytes of zstd's skippable frames, whose magic numbers are 0x184D2A50 to 0x184D2A5F in little-endian order."""
_MEMBERS = 10_000
"""The members of an archive that are read, at most; a megabyte of archive can list 20,000."""
_SIGN = re.compile(rb"@\0|\0@|[%=&\\]\0+[0-9A-Za-z#\\]|[\t\n\r -\xff](?:\0{3}[\t\n\r -\xff]){3}")
"""What every address in UTF-16 contains: its `@`, plain or encoded; and four Latin characters of UTF-32."""
# `P` of zip and 0x5D of lzma are among the skippable bytes; zlib has its method, 8, in the low four bits (RFC 1950)
_FIRST = frozenset(bytes([n]) for n in range(256) if n in b"\x1f\x28B\xfd\xfe\xff" or n in _SKIPPABLE or n & 15 == 8)
"""How bytes begin that may be packed, or have a byte order mark."""
_WIDE = (re.compile("(?:[\t\n\r -\xff]\0){4,}"), re.compile("(?:\0[\t\n\r -\xff]){4,}"))
"""Four or more Latin characters of UTF-16, little-endian and big-endian, in bytes read as Latin-1."""


def texts(raw: bytes, *, most: int = MOST, latin: bool = False) -> list[str]:
    """Returns bytes as text: first as UTF-8, then in other encodings, and decompressed.

    Args:
        raw: The bytes.
        most: Bytes to decompress from one stream, at most.
        latin: As in `plain`.
    """
    if raw[:1] not in _FIRST:  # most are plain
        return list(plain(raw, latin=latin)) if b"\0" in raw else [raw.decode("utf-8", "replace")]
    return [text for part in layers(raw, most=most) for text in plain(part, latin=latin)]


def unescaped(raw: bytes) -> str:
    """Returns bytes that need not be JSON as text, JSON's escapes of letters read."""
    text = _ESCAPE.sub(lambda code: chr(int(code[1], 16)), raw.decode("utf-8", "replace"))
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # escaped pairs are one letter


def layers(raw: bytes, *, most: int = MOST, levels: int = LEVELS) -> Iterator[bytes]:
    """Yields bytes, and what is packed in them, layer by layer."""
    yield raw
    if levels and (unpack := packing(raw[:6])):
        for part in unpack(raw, most):
            yield from layers(part, most=most, levels=levels - 1)


def plain(raw: bytes, *, latin: bool = False) -> Iterator[str]:
    """Yields bytes as text, as if they were UTF-8, and where they look like it UTF-16 and UTF-32 at any place.

    Args:
        raw: The bytes.
        latin: Whether nothing matters but addresses and longer texts of Latin letters. Bytes that show neither in
            UTF-16 or UTF-32, such as numbers in binary files, are not read so then.
    """
    yield raw.decode("utf-8", "replace")
    if b"\0" in raw:
        yield raw.replace(b"\0", b"").decode("utf-8", "replace")
        # Latin letters in UTF-16, set apart from what is no text before and behind them
        letters = raw.decode("latin-1")
        runs = [run.replace("\0", "") for wide in _WIDE for run in wide.findall(letters)]
        if latin and not runs and not _SIGN.search(raw):
            return
        yield "\n".join(runs)
        for encoding in ("utf-16-le", "utf-16-be"):
            for start in (0, 1):
                text = raw[start:].decode(encoding, "replace")
                yield text
                if "\0" in text:
                    yield text.replace("\0", "")  # UTF-32 is UTF-16 with a NUL before or after each character
    elif raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        yield raw.decode("utf-16", "replace")


def opener(head: bytes) -> Callable[[BinaryIO], BinaryIO] | None:
    """Returns what opens a compressed stream that begins like this, if it contains one stream."""
    # every open lake imports this module, and few decompress anything
    import bz2
    import gzip
    import lzma

    if head.startswith(b"\x1f\x8b"):
        return lambda stream: cast(BinaryIO, gzip.GzipFile(fileobj=stream))
    if head.startswith(b"\x28\xb5\x2f\xfd") or (head[1:4] == b"\x2a\x4d\x18" and head[:1] in _SKIPPABLE):
        # two defaults would leave data unsearched: the reader stops after the first frame, and refuses windows beyond
        # 128 MiB, which `zstd --long=31` makes
        import zstandard

        decoder = zstandard.ZstdDecompressor(max_window_size=1 << 31)
        return lambda stream: cast(BinaryIO, decoder.stream_reader(stream, read_across_frames=True, closefd=False))
    if head.startswith(b"BZh"):
        return lambda stream: cast(BinaryIO, bz2.BZ2File(stream))
    if head.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return lambda stream: cast(BinaryIO, lzma.LZMAFile(stream))
    return None


def packing(head: bytes) -> Callable[[bytes, int], Iterator[bytes]] | None:
    """Returns what unpacks bytes that begin like this; none if they are not packed."""
    if found := opener(head):
        return lambda raw, most: start(found(io.BytesIO(raw)), most)
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _unzip
    # a zlib stream has no magic number; its two first bytes are a multiple of 31, with a window of 32 KiB at most (RFC
    # 1950)
    if len(head) > 1 and head[0] & 0x0F == 8 and head[0] >> 4 < 8 and int.from_bytes(head[:2], "big") % 31 == 0:
        return _inflate
    return None


def pieces(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Yields a stream in pieces; everything before damage is yielded before the error is raised."""
    # `read` loses what it has decoded of a piece when the damage comes in the same piece; `read1` returns that first
    read = getattr(stream, "read1", stream.read)
    held = b""
    try:
        while piece := read(1 << 16):
            held += piece
            if len(held) >= size:
                yield held
                held = b""
    except Exception:
        if held:
            yield held
        raise
    if held:
        yield held


def start(stream: BinaryIO, most: int) -> Iterator[bytes]:
    """Yields what a stream gives until it is damaged or too much."""
    held, size = [], 0
    try:
        for piece in pieces(stream, 1 << 20):
            held.append(piece)
            size += len(piece)
            if size >= most:
                break
    except Exception:  # damaged: what came before it counts
        pass
    if held:
        yield b"".join(held)


def _inflate(raw: bytes, most: int) -> Iterator[bytes]:
    try:
        # unlike `zlib.decompress`, this gives what a stream without its end holds, and never more than asked for
        found = zlib.decompressobj().decompress(raw, most)
    except zlib.error:
        return
    if found:
        yield found


def _unzip(raw: bytes, most: int) -> Iterator[bytes]:
    """Yields the members of an archive, each after its name; one that cannot be read is skipped."""
    import zipfile

    try:
        archive = zipfile.ZipFile(io.BytesIO(raw))
    except Exception:
        return
    with archive:
        # names and comments can contain an address, too, also that of a member that cannot be read
        yield archive.comment
        for member in archive.infolist()[:_MEMBERS]:
            yield member.filename.encode("utf-8", "replace") + b"\n" + member.comment
            try:
                with archive.open(member) as stream:
                    yield from start(cast(BinaryIO, stream), most)
            except Exception:
                continue
