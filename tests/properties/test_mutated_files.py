"""Files that were damaged anyhow: each is read or refused, no record is lost or counted twice, none leaves a trace."""

from __future__ import annotations

import bz2
import codecs
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from effort import NIGHTLY
from lakes import conserved, rows
from reader_files import SHAPES, Reading
from stedi import Lake
from stedi.errors import UnreadableFile
from stedi.landing.reader import decompressed
from stedi.schema.feeds import CONTRACTS

GONE = "gone@x.example"
AT = 1655564400000

ENCODINGS: tuple[Callable[[bytes], bytes], ...] = (
    bytes,
    lambda text: codecs.BOM_UTF8 + text,
    lambda text: text.decode().encode("utf-16"),
    lambda text: text.decode().encode("utf-16-be"),
    lambda text: text.decode().encode("utf-32"),
)
PACKINGS: tuple[Callable[[bytes], bytes], ...] = (
    bytes,
    lambda data: gzip.compress(data, mtime=0),
    lambda data: gzip.compress(data[: len(data) // 2], mtime=0) + gzip.compress(data[len(data) // 2 :], mtime=0),
    lambda data: zstandard.ZstdCompressor(write_checksum=True).compress(data),
    lambda data: b"\x50\x2a\x4d\x18\2\0\0\0ab" + zstandard.ZstdCompressor().compress(data),
    bz2.compress,
    zlib.compress,
)
TOKENS = (b"", b"\0", b"\n", b"{", b"}", b"[", b"]", b'"', b"\\", b",", b":", b"\xff", b"\xfe\xff", b"\xd8\0", b"null",
          b'"\\ud800"', b"[" * 140, b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"1e999", b"\xc3", b"\xef\xbb\xbf")  # fmt: skip


def record(feed: str, i: int) -> bytes:
    who = GONE if i % 3 == 2 else f"zoë{i}@x.example"
    plain: dict[str, object] = {
        "customer": {"customerName": "Zoë 李", "email": who, "serialNumber": f"s{i}", "registrationDate": AT,
                     "lastUpdateDate": AT + i, "shareWithResearchAsOfDate": AT},
        "accelerometer": {"user": who, "timestamp": AT + i, "x": 1.0, "y": -0.5, "z": 0.0},
        "step_trainer": {"sensorReadingTime": AT + i, "serialNumber": f"s{i}", "distanceFromObject": 250},
    }[feed]  # fmt: skip
    return json.dumps(plain, ensure_ascii=False).encode()


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, bytes]:
    """Returns a feed and a file of its: in any shape, encoding and packing, with damage before and after packing."""

    def hurt(data: bytes) -> bytes:
        for _ in range(draw(st.sampled_from((0, 0, 1, 2)))):
            start = draw(st.integers(0, len(data)))
            stop = min(len(data), start + draw(st.sampled_from((0, 0, 1, 1, 2, 17, 1000))))
            middle = draw(st.one_of(st.sampled_from(TOKENS), st.binary(max_size=4), st.just(data[start:stop] * 2)))
            data = data[:start] + middle + data[stop:]
        return data[: draw(st.integers(0, len(data)))] if draw(st.integers(0, 9)) == 0 else data

    feed = draw(st.sampled_from(tuple(CONTRACTS)))
    text = draw(st.sampled_from(SHAPES))([record(feed, i) for i in range(draw(st.sampled_from((5, 3, 2, 1, 0))))])
    if draw(st.booleans()):
        text = hurt(text).decode("utf-8", "replace").encode()
    return feed, hurt(draw(st.sampled_from(PACKINGS))(hurt(draw(st.sampled_from(ENCODINGS))(text))))


def few(examples: int) -> Callable[..., object]:
    return settings(
        max_examples=examples * (50 if NIGHTLY else 1),
        derandomize=not NIGHTLY,
        suppress_health_check=list(HealthCheck),
    )


@few(300)
@given(file=damaged())
def test_a_damaged_file_is_read_whole_or_refused(file: tuple[str, bytes]) -> None:
    feed, data = file
    try:
        text = decompressed(io.BytesIO(data), "a.json").read()
        read = Reading(text, CONTRACTS[feed])
    except UnreadableFile:
        return
    read.check()


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake in which somebody was erased."""
    made = Lake.create(tmp_path_factory.mktemp("mutated") / "lake")
    made.erase(GONE)
    return made


@few(3)
@given(files=st.lists(damaged(), min_size=30, max_size=60))
def test_no_record_of_damaged_files_is_lost_and_a_refused_file_leaves_nothing(
    files: list[tuple[str, bytes]], lake: Lake, tmp_path_factory: pytest.TempPathFactory
) -> None:
    inbox = tmp_path_factory.mktemp("in")
    paths = [inbox / f"{feed}-{n}.json" for n, (feed, _) in enumerate(files)]
    for path, (_, data) in zip(paths, files, strict=True):
        path.write_bytes(data)
    before = {row[0] for row in rows(lake, "landed_files")}
    done = lake.land(inbox)
    names = {f"{inbox.name}/{path.name}": path for path in paths}
    read = {names[file.name] for file in done.files}
    refused = {names[skipped.name] for skipped in done.skipped}
    assert (read | refused, read & refused) == (set(paths), set())
    for file in done.files:
        assert file.seen == file.accepted + file.quarantined + file.erased
    conserved(lake)
    known = {row[0] for row in rows(lake, "landed_files")}
    assert known - before <= {_sha256(path) for path in read}
    assert not {_sha256(path) for path in refused} & known
    again = lake.land(inbox)
    assert {names[skipped.name] for skipped in again.skipped} == refused
    assert all(file.already_landed or not file.seen for file in again.files)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
