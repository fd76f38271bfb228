"""Delivered files without some customers: every other byte stays, in every shape and compression."""

from __future__ import annotations

import base64
import bz2
import errno
import gzip
import io
import json
import lzma
import os
import shutil
import socket
import stat
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

import quick
from deliveries import customer, deliver, instant, motion, step
from erasing import ANA, BO, DEVICE, SHARED, Stage, erase, looked_for
from lakes import LANDING, conserved, records, rows
from stedi.cli import main
from stedi.erasure import delivered_file, deliveries
from stedi.erasure.identifiers import Identifiers
from stedi.erasure.search import look
from stedi.landing import reader
from stedi.landing.deliveries import local
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key

KEY = Key(bytes(32))
TRACES = Identifiers(KEY, {tombstones.person(KEY, ANA)}, frozenset({ANA}), frozenset({DEVICE}))
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


@settings(max_examples=120)
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
    done, failed = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert not failed
    assert path.read_bytes() == before, "nothing takes a file's place before the ledger knows it"
    deliveries.replace(done)
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
        deliveries.replace(deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")[0])
        assert json.loads(path.read_text()) == json.loads(left)
    path.unlink()


def test_the_same_file_is_written_the_same_again(folder: Path) -> None:
    for ending, pack in PACKED.items():
        path = folder / f"step_trainer.json{ending}"
        path.write_bytes(pack("\n".join(map(json.dumps, [*THEIRS, *OTHERS])).encode()))
        first, second = (
            deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")[0][0] for _ in range(2)
        )
        assert first == second
        deliveries.discard([second])
        path.unlink()


def test_what_cannot_be_read_to_its_end_is_named_and_stays(folder: Path) -> None:
    path = folder / f"customer {ANA}.json.gz"
    path.write_bytes(gzip.compress(json.dumps(THEIRS[1]).encode())[:-9])
    before = path.read_bytes()
    done, [failed] = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert done == []
    assert failed.name.startswith("customer-")
    assert ANA not in failed.name
    assert path.read_bytes() == before
    path.unlink()


def test_a_record_of_somebody_else_that_mentions_them_is_named_and_stays(folder: Path) -> None:
    path = folder / "customer.json"
    mine, other = json.dumps(THEIRS[1]), json.dumps({**OTHERS[1], "friend": ANA})
    path.write_text(f"{mine}\n{other}\n")
    done, [left] = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    deliveries.replace(done)
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


PACKINGS: dict[str, Callable[[bytes], bytes]] = {
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "gzip in gzip": lambda raw: gzip.compress(gzip.compress(raw)),
    "zip": lambda raw: zipped(raw),
    "UTF-16": lambda raw: raw.decode().encode("utf-16"),
    "UTF-16 without a mark": lambda raw: raw.decode().encode("utf-16-be"),
    "UTF-32": lambda raw: raw.decode().encode("utf-32"),
    "gzip that is cut": lambda raw: gzip.compress(raw)[:-9],
    "7z": lambda raw: b"7z\xbc\xaf\x27\x1c" + bytes(64),
    "base64": lambda raw: base64.b64encode(raw),
    "CSV": lambda raw: b"email;name\n" + ANA.encode() + b";Ana\n",
    "plain": bytes,
}


def zipped(raw: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("customer.json", raw)
    return held.getvalue()


@pytest.mark.parametrize("name", ["customer.json", "customer.csv", ".customer.json", "_customer", "customer.json.bz2"])
@pytest.mark.parametrize("packing", PACKINGS)
def test_every_file_is_rid_of_them_or_named(folder: Path, packing: str, name: str) -> None:
    place = folder / "inbox"
    place.mkdir()
    mine, other = json.dumps(THEIRS[1]), json.dumps(OTHERS[1])
    (place / name).write_bytes(PACKINGS[packing](f"{mine}\n{other}\n".encode()))
    (place / "other.json").write_text(other)
    before = (place / name).read_bytes()
    done, left = deliveries.rewrite([str(place)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    replaced, more = deliveries.replace(done)
    assert not more
    if replaced:
        after = (place / name).read_bytes()
        assert after != before
        assert not look(place / name, TRACES, None).found
        assert left == []
    else:
        assert [file.name for file in left] == [f"inbox/{name}"]
        assert (place / name).read_bytes() == before
    assert (place / "other.json").read_text() == other
    shutil.rmtree(place)


@pytest.mark.parametrize(
    "record",
    [
        f'{{"email": "{BO}", "note": "a friend of {ANA}"}}',
        f'{{"email": "{ANA}", "email": "{BO}"}}',
        f'{{"email": "Otto <{ANA}>"}}',
        f"{ANA};{BO}",
        f'{{"by": "{ANA}", "records": [{{"email": "{BO}"}}]}}',
    ],
)
def test_what_only_mentions_them_is_named_and_stays(folder: Path, record: str) -> None:
    path = folder / "customer.json"
    path.write_text(f"{record}\n{json.dumps(OTHERS[1])}\n")
    before = path.read_text()
    done, [left] = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    deliveries.replace(done)
    assert (left.name, left.why) == ("customer.json", deliveries.MENTIONED)
    assert path.read_text() == before
    path.unlink()


def test_a_record_with_both_of_their_spellings_goes(folder: Path) -> None:
    path = folder / "customer.json"
    path.write_text(f'{{"email": "{ANA}", "Email": "{ANA.upper()}"}}\n{json.dumps(OTHERS[1])}\n')
    done, left = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    deliveries.replace(done)
    assert left == []
    assert path.read_text() == f"{json.dumps(OTHERS[1])}\n"
    path.unlink()


@pytest.mark.parametrize("ending", sorted(PACKED))
@pytest.mark.parametrize("many", [1, 400])
def test_an_envelope_loses_them_alone(folder: Path, ending: str, many: int) -> None:
    path = folder / f"customer.json{ending}"
    found = [*OTHERS[:2] * many, THEIRS[1], OTHERS[2], THEIRS[0]]
    path.write_bytes(PACKED[ending](json.dumps({"page": 1, "records": found}).encode()))
    done, left = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    replaced, _ = deliveries.replace(done)
    assert left == []
    assert [file.records for file in replaced] == [2]
    kept = [one for one in found if one not in THEIRS]
    assert UNPACKED[ending](path.read_bytes()) == json.dumps({"page": 1, "records": kept}).encode()
    path.unlink()


def test_names_of_folders_and_links_that_tell_of_them_are_told_masked(folder: Path) -> None:
    place = folder / "inbox"
    (place / ANA).mkdir(parents=True)
    (place / ANA / "customer.json").write_text(json.dumps(OTHERS[1]))
    (place / f"{ANA}.json").symlink_to("nowhere")
    done, left = deliveries.rewrite([str(place)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert done == []
    assert len(left) == 2
    assert not [file for file in left if ANA in file.name]
    assert {file.why for file in left} == {deliveries.NAMED}
    shutil.rmtree(place)


def test_a_file_whose_name_is_as_long_as_names_may_be_is_rewritten(folder: Path) -> None:
    path = folder / ("accelerometer" + "\u6f22" * 79 + ".json")
    assert len(os.fsencode(path.name)) == 255
    path.write_text(json.dumps(THEIRS[0]))
    done, left = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert (left, deliveries.replace(done)) == ([], (done, []))
    assert path.read_bytes() == b""
    assert [entry for entry in folder.iterdir() if entry.name.endswith(".erasing")] == []
    path.unlink()


def test_nothing_but_regular_files_is_opened(folder: Path) -> None:
    place = folder / "inbox"
    place.mkdir()
    os.mkfifo(place / "customer.json")
    os.mkfifo(place / ".hidden")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(place / "socket"))
        (place / "zero.json").symlink_to("/dev/zero")
        (place / "accelerometer.json").write_text(json.dumps(THEIRS[0]))
        done, left = deliveries.rewrite([str(place)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    deliveries.replace(done)
    assert left == []
    assert [file.known_as for file in done] == ["inbox/accelerometer.json"]
    assert (place / "accelerometer.json").read_bytes() == b""
    shutil.rmtree(place)


def test_a_file_that_changes_meanwhile_stays_and_is_named(folder: Path) -> None:
    path = folder / "customer.json"
    path.write_text(json.dumps(THEIRS[1]))
    done, _ = deliveries.rewrite([str(path)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    path.write_text(json.dumps(OTHERS[1]))
    assert deliveries.replace(done) == ([], [deliveries.LeftFile("customer.json", deliveries.MOVED)])
    assert path.read_text() == json.dumps(OTHERS[1])
    assert [entry.name for entry in folder.iterdir() if entry.name.endswith(".erasing")] == []
    path.unlink()


REFUSALS: dict[str, tuple[object, str, OSError]] = {
    "a disk that is full": (delivered_file, "_write", OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))),
    "a file that cannot be replaced": (os, "replace", PermissionError(errno.EPERM, os.strerror(errno.EPERM))),
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_an_inbox_that_cannot_be_written_does_not_stop_the_lake(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refusal: str
) -> None:
    lake, delivered = stage.made()
    owner, name, error = REFUSALS[refusal]
    real = getattr(owner, name)

    def refused(*arguments: Any, **options: Any) -> Any:
        if any(str(argument).endswith(".erasing") for argument in arguments):
            raise error
        return real(*arguments, **options)

    search = looked_for(lake, ANA)
    monkeypatch.setattr(owner, name, refused)
    words = ["--lake", str(lake.root), "erase", "--yes", "--inbox", str(delivered), ANA]
    assert main(words) == 1
    said = capsys.readouterr()
    assert f"cannot be rewritten: {str(error.strerror).lower()}" in said.err
    assert "inbox/accelerometer/delivered.json: left as it is" in said.err
    assert ANA not in (said.err + said.out).lower()
    [receipt] = lake.receipts()
    assert "inbox/accelerometer/delivered.json" in receipt.removed["delivered"]["left"]
    assert receipt.removed["delivered"]["files"] == 0
    monkeypatch.undo()
    assert not (lake.root / tombstones.PENDING).exists()
    assert search().found == []
    assert [path for path in delivered.rglob("*") if path.name.endswith(".erasing")] == []
    assert all(file.already_landed for file in lake.land(delivered).files)
    conserved(lake)


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_inbox_is_named(folder: Path) -> None:
    place = folder / "inbox"
    place.mkdir()
    (place / "customer.json").write_text(json.dumps(THEIRS[1]))
    place.chmod(0o500)
    done, [left] = deliveries.rewrite([str(place)], TRACES, MOMENTS, folder / "lake", folder / "tmp")
    assert (done, left.name) == ([], "inbox/customer.json")
    place.chmod(0o700)
    shutil.rmtree(place)


def test_an_inbox_that_has_vanished_does_not_stop_the_lake(stage: Stage) -> None:
    lake, delivered = stage.made()
    shutil.rmtree(delivered)
    receipt = erase(lake, ANA, delivered=[str(delivered)])
    assert receipt["removed"]["delivered"]["left"] == [str(delivered)]
    assert looked_for(lake, BO)().found
    lake.build()


def test_an_inbox_without_files_leaves_nothing_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    named = [str(tmp_path / "in"), str(tmp_path / "in" / "*.json")]
    assert [item.why for item in local.walk(named) if isinstance(item, local.Skipped)] == list(local.NOTHING)
    assert deliveries.rewrite(named, TRACES, MOMENTS, tmp_path / "lake", tmp_path / "tmp") == ([], [])


def test_quarantined_envelopes_lose_them_alone(stage: Stage) -> None:
    lake, folder = stage.empty()
    lake.land(deliver(folder, "customer", [customer(ANA), customer(BO)]))
    deliver(folder, "customer", [{"records": [customer(BO), customer(ANA), customer("cy@test.example")]}], "one.json")
    text = json.dumps({"data": [customer(BO, customerName="B" * 200)] * 200 + [customer(ANA)] * 3 + [customer(BO)]})
    (folder / "customer" / "two.json").write_text(text)
    lake.land(folder)
    assert len(rows(lake, "quarantine")) == 2
    receipt = erase(lake, ANA, delivered=[str(folder)])
    raws = [bytes(row[6]).decode() for row in rows(lake, "quarantine")]
    assert len(raws) == 2
    assert not [raw for raw in raws if ANA in raw]
    assert {"records": [customer(BO), customer("cy@test.example")]} in [
        json.loads(raw) for raw in raws if len(raw) < 999
    ]
    assert receipt["removed"]["delivered"]["left"] == []
    assert len(json.loads((folder / "customer" / "two.json").read_text())["data"]) == 201
    assert looked_for(lake, BO)().found
    conserved(lake)


def test_what_cannot_be_told_apart_in_quarantine_goes_and_is_named(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, folder = stage.empty()
    lake.land(deliver(folder, "customer", [customer(ANA), customer(BO)]))
    alone = folder / "customer" / "alone.json"
    alone.write_text(f"\n{ANA} has written\n")
    (folder / "customer" / "both.json").write_text(f"\nof {ANA} and {BO}\n")
    (folder / "customer" / f"for {ANA}.json").write_text(f"[{ANA}, {BO}]\n")
    lake.land(folder)
    assert len(rows(lake, "quarantine")) == 3
    assert main(["--lake", str(lake.root), "erase", "--yes", ANA]) == 1
    said = capsys.readouterr().err
    [receipt] = lake.receipts()
    named = receipt.removed["quarantined_whole"]
    assert len(named) == 2
    assert sorted("both.json:" in name for name in named) == [False, True]
    assert sorted("erased-" in name for name in named) == [False, True]
    assert not [name for name in named if ANA in name]
    assert all(f"{name}: gone from quarantine as a whole" in said for name in named)
    assert not rows(lake, "quarantine")
    conserved(lake)
