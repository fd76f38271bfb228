"""A file exchanged under the reader with its size and time put back: what lands is what was hashed, or nothing does."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
from collections import Counter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion
from lakes import Slate, conserved, records, rows
from stedi.errors import LandingError
from stedi.lake import Lake
from stedi.landing import held as holding
from stedi.landing import reader, writing
from stedi.landing.deliveries import local
from stedi.landing.reader import scanner

looking = import_module("stedi.landing.inspect")
ANA = "ana@x.example"
SHOWN = (json.dumps(customer(ANA, consent=...)) + " " * 42 + "\n").encode()
"""What is hashed: no consent. A blank after a record makes it one for the careful path."""
CLEAN = (json.dumps({**customer(ANA, consent=...), "customerName": "x" * 40}) + "\n").encode()
"""As long, and for the path that reads a file where it lies."""


def forged(length: int) -> bytes:
    """A consent as long as what it takes the place of, clean."""
    bare = json.dumps({**customer(ANA, consent=50), "customerName": ""}) + "\n"
    return bare.replace('""', json.dumps("y" * (length - len(bare)))).encode()


def in_place(path: Path) -> None:
    """Writes the consent over the file and puts its time back."""
    found = path.stat()
    path.write_bytes(forged(found.st_size))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def moved_over(path: Path) -> None:
    """Moves a file of the same size and time into its place."""
    found = path.stat()
    other = path.with_name("other.tmp")
    other.write_bytes(forged(found.st_size))
    os.utime(other, ns=(found.st_atime_ns, found.st_mtime_ns))
    other.replace(path)


def another_folder(path: Path) -> None:
    """Puts another folder in the folder's place: the file itself is not touched at all."""
    aside = path.parent.with_name("aside")
    path.parent.rename(aside)
    shutil.copytree(aside, path.parent)
    moved_over(path)


WAYS = (in_place, moved_over, another_folder)


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.wiped()


@pytest.fixture
def path(slate: Slate) -> Path:
    return deliver(slate.inbox(), "customer", [], "c.json")


def at(patch: pytest.MonkeyPatch, owner: object, name: str, exchange: Callable[[], None], *, after: bool) -> None:
    """Has a file exchanged once, right before a step or right after it."""
    real, done = getattr(owner, name), list[bool]()

    def step(*arguments: Any, **options: Any) -> Any:
        if not done and not after:
            done.append(True)
            exchange()
        found = real(*arguments, **options)
        if not done:
            done.append(True)
            exchange()
        return found

    patch.setattr(owner, name, step)


def landed_or_refused(lake: Lake, path: Path) -> str:
    """Lands a file, and returns why that was refused if it was."""
    try:
        return " ".join(f"{skipped.name}: {skipped.why}" for skipped in lake.land(path).skipped)
    except LandingError as error:
        return str(error)


BY_LINES = {
    "before the first look's hash": (looking, "_read", False),
    "before it is held": (writing, "as_it_lies", False),
    "after it is held": (writing, "as_it_lies", True),
    "before it is read": (writing, "_write", False),
    "after it is read": (writing, "_write", True),
}
"""Where there is no scanner."""
SCANNED = {
    "before the hash": (looking, "_read", False),
    "before it is scanned": (writing, "scan", False),
    "while it is opened": (reader, "decompressed", False),
    "before its text is read": (reader, "scan", False),
    "after its text is read": (reader, "scan", True),
    "after it is scanned": (writing, "scan", True),
}
MOMENTS = BY_LINES | SCANNED


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("descriptors", [True, False], ids=["held", "copied"])
@pytest.mark.parametrize("content", [CLEAN, SHOWN], ids=["clean", "careful"])
@pytest.mark.sample(full=20)
def test_consent_never_lands_under_the_hash_of_a_file_without_it(
    lake: Lake, path: Path, monkeypatch: pytest.MonkeyPatch,
    content: bytes, descriptors: bool, way: Callable[[Path], None], moment: str,
) -> None:  # fmt: skip
    path.write_bytes(content)
    if moment in BY_LINES:
        monkeypatch.setattr(scanner, "library", lambda: None)
    elif not descriptors:
        pytest.skip("the scanner copies nothing")
    if not descriptors:
        monkeypatch.setattr(holding, "_DESCRIPTORS", None)
    with monkeypatch.context() as patch:
        owner, name, after = MOMENTS[moment]
        at(patch, owner, name, lambda: way(path), after=after)
        refused = landed_or_refused(lake, path)
    if refused:
        assert "c.json" in refused
        assert "changed while it was" in refused
        assert records(lake, "customers_landing") == rows(lake, "landed_files") == Counter()
    honest = hashlib.sha256(content).hexdigest()
    for row in rows(lake, "customers_landing"):
        assert (row[7] is None) == (row[-1] == honest), "a consent under the hash of another file"
    conserved(lake)
    lake.land(path)
    conserved(lake)


def test_more_files_than_may_be_open_land_all_the_same(
    lake: Lake, slate: Slate, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = slate.inbox()
    for n in range(40):
        deliver(inbox, "accelerometer", [motion(ANA, 100 + n)], f"{n}.json")
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(scanner, "library", lambda: None)
    monkeypatch.setattr(holding, "_OTHERS", soft - 16)
    landed = lake.land(inbox)
    assert (landed.accepted, landed.skipped) == (40, ())
    conserved(lake)


def test_a_change_within_a_tick_of_the_clock_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"{}")
    with local.open_regular(path) as stream:
        before = local.settled(stream.fileno(), "a.json")
        path.write_bytes(b"[]")
        os.utime(path, ns=(before.mtime_ns, before.mtime_ns))
        after = local.fingerprint(stream.fileno())
    assert (after.size, after.mtime_ns, after.inode) == (before.size, before.mtime_ns, before.inode)
    assert after != before
    assert not after.like(before)
