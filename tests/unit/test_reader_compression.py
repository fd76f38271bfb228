"""Compressed deliveries: whole or not at all, and never more than the memory holds."""

from __future__ import annotations

import gzip
import io
import subprocess
import sys
from typing import Any

import pytest
import zstandard

from stedi.errors import UnreadableFile
from stedi.landing.reader import Limits, decompressed

TEXT = b'{"user":"a@x.org","timestamp":1000000000001}\n' * 5000


def inflate(data: bytes, name: str = "a.json", limits: Limits | None = None) -> bytes:
    return decompressed(io.BytesIO(data), name, limits).read()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=True).compress(data)


class Trickle(io.RawIOBase):
    """A stream that gives a byte or three at a time."""

    def __init__(self, data: bytes) -> None:
        super().__init__()
        self._data = io.BytesIO(data)

    def readinto(self, buffer: Any) -> int:
        return self._data.readinto(memoryview(buffer)[:3])


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstd])
def test_text_comes_out_whatever_it_is_packed_in_and_whatever_its_name(pack: object) -> None:
    packed = pack(TEXT)  # type: ignore[operator]
    assert inflate(packed) == TEXT
    assert inflate(packed, "customers") == TEXT
    assert decompressed(Trickle(packed), "a.json").read() == TEXT  # type: ignore[arg-type]
    stream = decompressed(io.BytesIO(packed), "a.json")
    assert stream.read(10) == TEXT[:10]
    assert stream.read(100_000) == TEXT[10:100_010]


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_parts_packed_one_behind_the_other_are_one_text(pack: object) -> None:
    assert inflate(pack(TEXT) + pack(b"") + pack(TEXT)) == TEXT * 2  # type: ignore[operator]
    many = b"".join(pack(b"%d\n" % i) for i in range(3000))  # type: ignore[operator]
    assert inflate(many) == b"".join(b"%d\n" % i for i in range(3000))


def test_zeros_behind_gzip_are_padding() -> None:
    assert inflate(gzip.compress(TEXT) + b"\0" * 200_000) == TEXT


@pytest.mark.parametrize("short", [b"", b"{", b"{}", b"{}\n"])
def test_short_plain_files_are_read(short: bytes) -> None:
    assert inflate(short) == short


@pytest.mark.parametrize("name", ["a.json.gz", "A.JSON.GZ", "a.zst"])
@pytest.mark.parametrize("content", [b"\n", b"{}", TEXT])
def test_a_name_that_promises_compression_must_keep_it(name: str, content: bytes) -> None:
    with pytest.raises(UnreadableFile, match=r"expected (gzip|zstd) by its name, found no compressed file"):
        inflate(content, name)


def test_a_name_that_promises_the_other_compression_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="expected gzip by its name, found zstd"):
        inflate(zstd(TEXT), "a.gz")
    with pytest.raises(UnreadableFile, match="expected zstd by its name, found gzip"):
        inflate(gzip.compress(TEXT), "a.zst")
    assert inflate(zstd(TEXT), "a.zst") == inflate(gzip.compress(TEXT), "a.gz") == TEXT


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_cut_anywhere_makes_the_file_unreadable(pack: object) -> None:
    packed = pack(TEXT)  # type: ignore[operator]
    for size in [*range(4, len(packed), 37), len(packed) - 1]:
        with pytest.raises(UnreadableFile, match=r"a.json: its compressed data are truncated"):
            inflate(packed[:size])


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_damage_makes_the_file_unreadable(pack: object) -> None:
    packed = bytearray(pack(TEXT))  # type: ignore[operator]
    packed[-6] ^= 0xFF
    with pytest.raises(UnreadableFile):
        inflate(bytes(packed))
    with pytest.raises(UnreadableFile, match=r"other data follow its (gzip|zstd) data"):
        inflate(pack(TEXT) + b"{}")  # type: ignore[operator]
    with pytest.raises(UnreadableFile, match="other data follow"):
        inflate(pack(TEXT) + b"\x1f")  # type: ignore[operator]


def test_errors_of_the_stream_itself_pass() -> None:
    class Broken(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            if self.tell() > 10:
                raise OSError("gone")
            return super().readinto(buffer)

    with pytest.raises(OSError, match="gone"):
        decompressed(Broken(gzip.compress(TEXT)[:11]), "a.json").read()


def test_a_bomb_is_refused_and_what_is_only_large_or_only_dense_is_not() -> None:
    zeros = bytes(1 << 20)
    for pack in (gzip.compress, zstd):
        with pytest.raises(UnreadableFile, match="more than 200 times its size"):
            inflate(pack(zeros), limits=Limits(bomb_bytes=1 << 19))
        assert inflate(pack(zeros), limits=Limits(bomb_bytes=1 << 20)) == zeros
        assert inflate(pack(TEXT), limits=Limits(bomb_bytes=10, ratio=1 << 20)) == TEXT


def test_a_zstd_frame_that_wants_too_large_a_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters(window_log=28)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    packed = compressor.compress(TEXT) + compressor.flush()
    with pytest.raises(UnreadableFile, match="window is 256 MiB, and 128 MiB are read"):
        inflate(packed)


_BOMB = """
import gzip, io, resource, sys, zstandard
from stedi.errors import UnreadableFile
from stedi.landing.reader import decompressed, read
from stedi.schema.feeds import ACCELEROMETER
if sys.argv[1] == "gzip":
    packed = gzip.compress(bytes(64 << 20)) * 32
else:
    packed = zstandard.ZstdCompressor().compress(bytes(64 << 20)) * 32
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    counts, _ = read(decompressed(io.BytesIO(packed), "bomb"), ACCELEROMETER, io.BytesIO(), lambda reject: None)
    print("read", counts)
except UnreadableFile as error:
    print("refused")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("form", ["gzip", "zstd"])
@pytest.mark.thorough
def test_gigabytes_of_zeros_are_refused_in_little_memory(form: str) -> None:
    run = subprocess.run([sys.executable, "-c", _BOMB, form], capture_output=True, text=True, check=True)
    outcome, grown = run.stdout.split()
    assert outcome == "refused"
    assert int(grown) < (300 if sys.platform == "linux" else 300 * 1024)
