"""Delivered files without some customers: every other byte stays, in every shape and compression."""

from __future__ import annotations

import gzip
import io
import json
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import quick
from erasing import ANA, BO, DEVICE, SHARED, Stage, erase
from lakes import LANDING, conserved, customer, instant, motion, records, step
from stedi import reader
from stedi.erasure import inbox
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.traces import Traces

KEY = Key(bytes(32))
TRACES = Traces(KEY, {tombstones.person(KEY, ANA)}, frozenset({ANA}), frozenset({DEVICE}))
MOMENTS = frozenset({(SHARED, instant(104))})
THEIRS = [motion(ANA), customer(ANA.upper()), step(DEVICE), step(SHARED, 104)]
OTHERS = [motion(BO), customer(BO, customerName='a } " { b, [c]'), step("other"), step(SHARED, 105), step("other", 104)]

plain = st.tuples(st.sampled_from([*THEIRS, *OTHERS]), st.sampled_from([None, 2]), st.booleans()).map(
    lambda drawn: json.dumps(drawn[0], indent=drawn[1], ensure_ascii=drawn[2])
)
broken = st.sampled_from([f'{{"user": "{ANA}", }}', '{"user": "q", }', "7", '"text"', f'"{ANA}"'])
SHAPES: dict[str, tuple[str, str, str]] = {
    "lines": ("", "\n", "\n"),
    "lines, the last one open": ("", "\n", ""),
    "lines of Windows": ("", "\r\n", "\r\n"),
    "back to back": ("", "", ""),
    "with commas": ("", ",\n", ""),
    "an array": ("[", ", ", "]"),
    "an array of lines": ("[\n", ",\n", "\n]\n"),
    "arrays": ("[", "]\n[", "]"),
    "after a byte order mark": ("\ufeff", "\n", "\n"),
}
PACKED: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
UNPACKED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".zst": lambda raw: zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True).read(),
}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with quick.folder() as made:
        yield made


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as made, quick.quickened():
        yield Stage(made)


def framed(text: bytes) -> list[bytes]:
    """Returns each record of a text, as its bytes."""
    return [record.raw for record in reader.iter_values(io.BytesIO(text), reader.Limits())]


def theirs(raw: bytes) -> bool:
    try:
        return json.loads(raw) in THEIRS or json.loads(raw) == ANA
    except ValueError:
        return ANA.encode() in raw


def is_less(shorter: bytes, longer: bytes) -> bool:
    """Says whether a text is another with bytes left out."""
    rest = iter(longer)
    return all(byte in rest for byte in shorter)


@settings(max_examples=120, deadline=None)
@given(
    found=st.lists(st.one_of(plain, plain, broken), min_size=1, max_size=7),
    shape=st.sampled_from(sorted(SHAPES)),
    ending=st.sampled_from(sorted(PACKED)),
)
def test_the_others_records_stay_byte_for_byte(found: list[str], shape: str, ending: str, folder: Path) -> None:
    opening, between, closing = SHAPES[shape]
    text = (opening + between.join(found) + closing).encode()
    path = folder / f"accelerometer.json{ending}"
    path.write_bytes(PACKED[ending](text))
    path.chmod(0o640)
    before, whole = path.read_bytes(), framed(text)
    done, failed = inbox.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert not failed
    assert path.read_bytes() == before, "nothing takes a file's place before the ledger knows it"
    inbox.replace(done)
    after = UNPACKED[ending](path.read_bytes())
    assert framed(after) == [raw for raw in whole if not theirs(raw)]
    assert is_less(after.replace(b"\n", b""), text), "a line break is all that can be new"
    if not any(map(theirs, whole)):
        assert path.read_bytes() == before
    if shape.startswith("lines") and not any("\n" in one for one in found):
        kept = [one for one in found if not theirs(one.encode())]
        if kept:
            assert after == (opening + between.join(kept) + closing).encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert [entry.name for entry in folder.iterdir() if entry.name.startswith(".")] == []


def test_an_array_stays_an_array(folder: Path) -> None:
    mine, other = json.dumps(THEIRS[0]), json.dumps(OTHERS[0])
    path = folder / "accelerometer-array.json"
    for text, left in {
        f"[{mine}]": "[]",
        f"[{mine}, {other}]": f"[{other}]",
        f"[{other}, {mine}]": f"[{other}]",
        f"[{other}, {mine}, {mine}, {other}]": f"[{other}, {other}]",
        f"[\n  {mine},\n  {mine}\n]\n": "[\n  \n]\n",
    }.items():
        path.write_text(text)
        inbox.replace(inbox.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")[0])
        assert json.loads(path.read_text()) == json.loads(left)
    path.unlink()


def test_the_same_file_is_written_the_same_again(folder: Path) -> None:
    for ending, pack in PACKED.items():
        path = folder / f"step_trainer.json{ending}"
        path.write_bytes(pack("\n".join(map(json.dumps, [*THEIRS, *OTHERS])).encode()))
        first, second = (
            inbox.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")[0][0] for _ in range(2)
        )
        assert first == second
        inbox.discard([second])
        path.unlink()


def test_what_cannot_be_read_to_its_end_is_named_and_stays(folder: Path) -> None:
    path = folder / f"customer {ANA}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(THEIRS[1]).encode())[:-9])
    before = path.read_bytes()
    done, [failed] = inbox.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert done == []
    assert failed.name.startswith("customer-")
    assert ANA not in failed.name
    assert path.read_bytes() == before
    path.unlink()


def test_a_record_of_somebody_else_that_mentions_them_is_named_and_stays(folder: Path) -> None:
    path = folder / "customer.json"
    mine, other = json.dumps(THEIRS[1]), json.dumps({**OTHERS[1], "friend": ANA})
    path.write_text(f"{mine}\n{other}\n")
    done, [left] = inbox.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    inbox.replace(done)
    assert (path.read_text(), left.name) == (f"{other}\n", path.name)
    path.unlink()


def test_the_inbox_loses_them_and_landing_it_again_adds_nothing(stage: Stage) -> None:
    lake, delivered = stage.made()
    (delivered / "accelerometer" / "not landed.json").write_text(json.dumps(motion(ANA)) + json.dumps(motion(BO, 150)))
    receipt = erase(lake, ANA, delivered=[str(delivered)])
    texts = {path: path.read_text().lower().replace(f"jo{ANA}", "") for path in delivered.rglob("*.json")}
    assert not [path for path, text in texts.items() if ANA in text or DEVICE in text]
    assert not [path for path in delivered.rglob("*") if ANA in path.name.lower()]
    assert receipt["removed"]["delivered"]["left"] == []
    assert receipt["removed"]["delivered"]["records"] == 2 + 6 + 6 + 2 + 5 + 1
    before = {table: records(lake, table) for table in LANDING}
    landing = lake.land(delivered)
    assert [file.name for file in landing.files if not file.already_landed] == ["inbox/accelerometer/not landed.json"]
    assert landing.erased == 0
    before["accelerometer_landing"][(BO, 150, 1.0, 0.0, -1.0, None)] += 1
    assert {table: records(lake, table) for table in LANDING} == before
    conserved(lake)
