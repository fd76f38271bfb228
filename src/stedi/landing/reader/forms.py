"""The forms of delivered bytes, recognised by content and never by name: text, or something that is refused.

UTF-16 and UTF-32, recognised by their mark or the positions of zeros, become UTF-8 while they are read. Archives,
unsupported compression, tables of other programs and encrypted files are recognised by their first bytes. The rest is
judged by its share of text: bytes that no search could read must not enter quarantine.
"""

from __future__ import annotations

import base64
import codecs
import io
import re
import zlib
from contextlib import suppress
from typing import Any, BinaryIO

from stedi._frozen import dataclass
from stedi.errors import UnreadableFile

HEAD = 4096
"""Bytes of a file that are enough to recognise its form."""

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
SKIPPABLE = re.compile(rb"[\x50-\x5f]\x2a\x4d\x18")
"""What a frame begins with that holds no text: of zstd, and of LZ4."""

_SPACE = b" \t\r\n"
_STARTS: dict[str, tuple[bytes, ...]] = {
    "a gzip file": (GZIP,),
    "a zstd file": (ZSTD,),
    "a zip archive (Excel's and Word's files are such, too)": (b"PK\3\4", b"PK\5\6", b"PK\7\x08"),
    "a 7z archive": (b"7z\xbc\xaf\x27\x1c",),
    "a RAR archive": (b"Rar!\x1a\x07",),
    "a bzip2 file": tuple(b"BZh%c%s" % (level, b) for level in b"123456789" for b in (b"1AY&SY", b"\x17rE8P\x90")),
    "an xz file": (b"\xfd7zXZ\0",),
    "an lzip file": (b"LZIP",),
    "an lzop file": (b"\x89LZO\0\r\n",),
    "an LZ4 file": (b"\x04\x22\x4d\x18", b"\x02\x21\x4c\x18"),
    "a snappy file": (b"\xff\x06\0\0sNaPpY", b"\x82SNAPPY"),
    "a file of `compress` or `pack`": (b"\x1f\x9d", b"\x1f\x1e", b"\x1f\xa0"),
    "a zstd file of an old version": tuple(bytes([old]) + b"\xb5\x2f\xfd" for old in range(0x1E, 0x28)),
    "a zstd dictionary": (b"\x37\xa4\x30\xec",),
    "a cabinet archive": (b"MSCF",),
    "a cpio archive": (b"070701", b"070702", b"070707", b"\xc7\x71", b"\x71\xc7"),
    "an ar archive": (b"!<arch>\n",),
    "a Parquet file": (b"PAR1", b"PARE"),
    "an Avro file": (b"Obj\1",),
    "an ORC file": (b"ORC",),
    "an Arrow file": (b"ARROW1\0\0", b"FEA1", b"\xff\xff\xff\xff"),
    "a SQLite database": (b"SQLite format 3\0",),
    "an HDF5 file": (b"\x89HDF\r\n",),
    "a PDF file": (b"%PDF-",),
    "an Office document of old (Excel, Word)": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",),
    "an image": (b"\x89PNG\r\n", b"\xff\xd8\xff", b"GIF87a", b"GIF89a"),
    "a program": (b"\x7fELF", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe"),
    "a pickle of Python": tuple(bytes([0x80, version]) for version in range(2, 6)),
    "an enciphered file": (
        *(b"-----BEGIN PGP", b"-----BEGIN AGE", b"-----BEGIN CMS", b"-----BEGIN PKCS7", b"age-encryption.org/"),
        *(b"Salted__", b"U2FsdGVkX1", b"$ANSIBLE_VAULT", b"\x85\x01\x0c\x03", b"\x85\x02\x0c\x03"),
    ),
    "uuencoded text": (b"begin 6", b"begin 7", b"begin-base64 "),
    "text in UTF-7": (b"+/v8", b"+/v9", b"+/v+", b"+/v/", b"+AHs", b"+AFs"),
    "text in an encoding that is not read": (
        *(b"\x0e\xfe\xff", b"\xfb\xee\x28", b"\x84\x31\x95\x33", b"\xdd\x73\x66\x73", b"\xf7\x64\x4c"),
    ),
}
"""The first bytes of files that are not JSON, by form."""
_MARKS = (
    ("utf-32-le", codecs.BOM_UTF32_LE),  # before that of UTF-16, with which it begins
    ("utf-32-be", codecs.BOM_UTF32_BE),
    ("utf-16-le", codecs.BOM_UTF16_LE),
    ("utf-16-be", codecs.BOM_UTF16_BE),
)
_UNITS = (("utf-32-le", 4, 0), ("utf-32-be", 4, 3), ("utf-16-le", 2, 0), ("utf-16-be", 2, 1))
"""Of each encoding the bytes of a unit, and the place of its low byte."""
_FIRST = b'{["\t\r\n ,'
_PADDING = re.compile(rb"\0{8,}")
# as in `file`: controls that terminals use, and separators of text sequences, are text
_CONTROLS = bytes(byte for byte in (*range(32), 127) if byte not in (*range(7, 14), 27, *range(28, 32)))
_FEW = 8
"""So few controls or broken sequences prove nothing about a text."""
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{24,}={0,2}")
_HEX = re.compile(rb"(?:[0-9A-Fa-f]{2}){16,}")
_PLAIN = re.compile(rb"[\t\n\r -~]{32}")
_OVERLAP = 31
"""One less than `_PLAIN` matches, which may begin in one read and end in the next."""


def packing(head: bytes) -> str:
    """Returns the compression that a file's first bytes tell and that is read, `gzip` or `zstd`; else nothing."""
    if head.startswith(GZIP):
        return "gzip"
    return "zstd" if head.startswith(ZSTD) or SKIPPABLE.match(head) else ""


def encoding(head: bytes) -> str:
    """Returns the encoding of a text by its first bytes: `utf-8`, or UTF-16 or UTF-32 in either byte order.

    Without a mark, the zeros in a text that begins with ASCII, as JSON does, show its encoding (RFC 4627, section 3).
    """
    for name, mark in _MARKS:
        if head.startswith(mark):
            return name
    for name, width, place in _UNITS:
        first, second = head[place : 2 * width : width].ljust(2, b"\0")
        zeros = head[: 2 * width].count(0) == 2 * width - 2
        if zeros and first in _FIRST and 9 <= second < 127:
            return name
    return "utf-8"


def foreign(head: bytes) -> str | None:
    """Returns a file's form by its first bytes if it is certainly not JSON; None if it may be.

    Args:
        head: Its first `HEAD` bytes, or the whole file.
    """
    head = head.removeprefix(codecs.BOM_UTF8)
    for name, starts in _STARTS.items():
        if head.startswith(starts):
            return name
    if head[257:262] == b"ustar":
        return "a tar archive"
    if b"+AHs" in head and b"{" not in head:
        return "text in UTF-7"
    if _is_zlib(head):
        return "a zlib stream"
    if _is_lzma(head):
        return "an lzma file"
    start = head.lstrip(_SPACE + b"\0")[:1]
    if start in (b"", b"{", b"[", b'"'):
        return None  # if it continues as something else, the reader detects it there
    if (inner := _armoured(head)) is not None:
        return inner
    if is_legible(head):
        return None
    with suppress(UnicodeDecodeError):
        ebcdic = head.decode("cp500").lstrip()
        # `[` of the code pages 037 and 1047 reads as `¬` and `Ý` in 500
        if ebcdic[:1] in ("{", "[", "¬", "Ý") and ebcdic.count('"') > 1:
            return "text in EBCDIC"
    return "bytes that are no text (packed, enciphered, or of another program)"


def _is_zlib(head: bytes) -> bool:
    # RFC 1950: method 8, a window of 32 KiB at most, and two bytes that 31 divides
    if len(head) < 8 or head[0] & 0x0F != 8 or head[0] > 0x78 or (head[0] << 8 | head[1]) % 31:
        return False
    try:
        return bool(zlib.decompressobj().decompress(head, 64))
    except zlib.error:
        return False


def _is_lzma(head: bytes) -> bool:
    """Recognises an `.lzma` file, which has no magic number, by the fields of its header, as `xz` does."""
    if len(head) < 14 or head[0] >= 225:
        return False
    dictionary, size = int.from_bytes(head[1:5], "little"), int.from_bytes(head[5:13], "little")
    if dictionary < 4096 or (dictionary & (dictionary - 1) and (dictionary // 3) & (dictionary // 3 - 1)):
        return False
    return size == (1 << 64) - 1 or (0 < size < 1 << 38 and head[13] == 0)


def _armoured(head: bytes) -> str | None:
    """Returns the form of a text that encodes other bytes as letters, if these are JSON or compressed."""
    first, *lines = head.split() or [b""]
    if any(len(line) != len(first) for line in lines[:-1]):
        return None
    text = first + b"".join(lines)
    for pattern, name, decode in ((_HEX, "hexadecimal text", _unhex), (_BASE64, "base64 text", _unbase64)):
        if pattern.fullmatch(text):
            with suppress(ValueError):
                inner = decode(text)
                varied = sum(re.search(kind, text) is not None for kind in (rb"[A-Z]", rb"[a-z]", rb"[0-9]")) > 1
                if inner.lstrip()[:1] in (b"{", b"[") or packing(inner) or (varied and not is_legible(inner)):
                    return name
    return None


def _unhex(text: bytes) -> bytes:
    return bytes.fromhex(text[: len(text) // 2 * 2].decode()) if not text.isdigit() else b""


def _unbase64(text: bytes) -> bytes:
    return base64.b64decode(text[: len(text) // 4 * 4].translate(bytes.maketrans(b"-_", b"+/")))


def is_legible(raw: bytes) -> bool:
    """Returns whether bytes are mostly text, in any encoding beyond ASCII, so that a search can read them."""
    text = Legibility()
    text.add(raw)
    return text.holds


@dataclass(slots=True)
class Legibility:
    """Measures how much of some bytes is text.

    Runs of zeros are left in files that were extended but not written; they hide nothing.

    Attributes:
        size: Bytes, without such runs.
        controls: How many of them never occur in text.
        broken: How many sequences are not UTF-8.
    """

    size: int = 0
    controls: int = 0
    broken: int = 0

    def add(self, raw: bytes) -> None:
        """Adds more bytes; controls and white space alone are not text."""
        text = _PADDING.sub(b"", raw)
        visible = text.translate(None, _CONTROLS)
        if not visible.strip():
            return
        self.size += len(text)
        self.controls += len(text) - len(visible)
        if not text.isascii():
            # replacement characters that were delivered as such are not damage
            self.broken += text.decode("utf-8", "replace").count("\ufffd") - text.count(b"\xef\xbf\xbd")

    @property
    def holds(self) -> bool:
        """Whether they are text: at most one control in twenty, and one broken sequence in four bytes."""
        return (self.controls < _FEW or self.controls * 20 <= self.size) and (
            self.broken < _FEW or self.broken * 4 <= self.size
        )


class Decoded(io.RawIOBase):
    """A text in UTF-16 or UTF-32 as UTF-8; its mark stays, since readers skip it.

    Half a surrogate pair, or half a character at the end, becomes invalid UTF-8, so its record is refused.

    Args:
        stream: The text, from its start.
        name: Its file's name, for messages.
        encoding: As `encoding` tells it.
    """

    def __init__(self, stream: BinaryIO, name: str, encoding: str) -> None:
        super().__init__()
        self._stream, self._name, self._encoding = stream, name, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._output = memoryview(b"")
        self._tail = b""
        self._ended = False

    def readable(self) -> bool:
        """Returns True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Reads on."""
        while not self._output and not self._ended:
            self._output = memoryview(self._next())
        size = min(len(buffer), len(self._output))
        buffer[:size] = self._output[:size]
        self._output = self._output[size:]
        return size

    def _next(self) -> bytes:
        piece = self._stream.read(1 << 17)
        self._ended = not piece
        # 32 bytes of ASCII in a row are 16 rare characters of UTF-16: a second file was appended
        if _PLAIN.search(self._tail + piece):
            raise refused(self._name, f"{self._encoding.upper()} and another encoding in one file")
        self._tail = piece[-_OVERLAP:]
        half = b""
        try:
            text = self._decoder.decode(piece, self._ended)
        except UnicodeDecodeError:
            if not self._ended:
                raise refused(self._name, f"{self._encoding.upper()} that is damaged") from None
            text, half = "", b"\xff"
        if len(text) >= _FEW and len(text.encode("ascii", "ignore")) * 50 < len(text):
            # JSON has at least one ASCII character in fifty, in any language
            raise refused(self._name, f"{self._encoding.upper()} text that is not JSON")
        return text.encode("utf-8", "surrogatepass") + half


class Encoder:
    """Writes UTF-8 in another encoding, as `Decoded` would read it.

    Args:
        stream: Takes the bytes; closed with this.
        encoding: As `encoding` tells it.
    """

    def __init__(self, stream: BinaryIO, encoding: str) -> None:
        self._stream, self._encoding = stream, encoding
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogatepass")

    def write(self, text: bytes) -> int:
        """Writes some text.

        Raises:
            UnreadableFile: It is not text: it contains half a character.
        """
        try:
            decoded = self._decoder.decode(text)
        except UnicodeDecodeError:
            raise UnreadableFile(
                f"an incomplete character in {self._encoding.upper()} text cannot be rewritten; the file is unchanged"
            ) from None
        self._stream.write(decoded.encode(self._encoding, "surrogatepass"))
        return len(text)

    def close(self) -> None:
        """Closes what takes the bytes."""
        self._stream.close()

    def __enter__(self) -> Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        """Closes what takes the bytes."""
        self.close()


def refused(name: str, found: str) -> UnreadableFile:
    """Returns the error of a file that is something else than JSON."""
    return UnreadableFile(
        f"{name}: expected JSON, found {found}; the file was refused whole: deliver it as JSON text, plain or in gzip "
        "or zstd, and land it again"
    )
