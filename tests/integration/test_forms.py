"""Encodings, packings, shapes and feeds: a file lands every record, or is refused whole and leaves nothing behind."""

from __future__ import annotations

import base64
import bz2
import codecs
import gzip
import io
import itertools
import json
import lzma
import random
import sqlite3
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pytest
import zstandard

from reader_files import SHAPES, Reading
from stedi import Lake
from stedi.errors import UnreadableFile
from stedi.landing import reader
from stedi.landing.reader import decompressed, forms
from stedi.schema.contracts import Reason
from stedi.schema.feeds import ACCELEROMETER

COUNT = 3


def records(feed: str, name: str) -> list[bytes]:
    """Records that only this file has, with text beyond ASCII."""
    found: list[dict[str, object]] = []
    for i in range(COUNT):
        who, at = f"{name}.{i}@forms.example", 1655564400000 + i
        found.append(
            {
                "customer": {
                    "customerName": f"Zoë 李 {i}", "email": who, "phone": "1", "birthDay": "1980-01-01",
                    "serialNumber": f"s-{name}-{i}", "registrationDate": at, "lastUpdateDate": at,
                    "shareWithResearchAsOfDate": at,
                },
                "accelerometer": {"user": who, "timestamp": at, "x": 1.0, "y": -0.5, "z": 0.0},
                "step_trainer": {"sensorReadingTime": at, "serialNumber": f"s-{name}-{i}", "distanceFromObject": 250},
            }[feed]
        )  # fmt: skip
    return [json.dumps(record, ensure_ascii=False).encode() for record in found]


ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "utf-8": bytes,
    "utf-8-marked": lambda text: codecs.BOM_UTF8 + text,
    "utf-16-le-marked": lambda text: codecs.BOM_UTF16_LE + text.decode().encode("utf-16-le"),
    "utf-16-be-marked": lambda text: codecs.BOM_UTF16_BE + text.decode().encode("utf-16-be"),
    "utf-32-le-marked": lambda text: codecs.BOM_UTF32_LE + text.decode().encode("utf-32-le"),
    "utf-32-be-marked": lambda text: codecs.BOM_UTF32_BE + text.decode().encode("utf-32-be"),
    **{
        name: lambda text, name=name: text.decode().encode(name)  # type: ignore[misc]
        for name in ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
    },
}


def zstd(data: bytes, **options: int) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(write_checksum=True, **options)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    return compressor.compress(data) + compressor.flush()


def skippable(data: bytes, number: int = 0) -> bytes:
    return bytes([0x50 + number]) + b"\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data


def halves(data: bytes, pack: Callable[[bytes], bytes]) -> bytes:
    return pack(data[: len(data) // 2]) + pack(data[len(data) // 2 :])


READ: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "gzip-members": lambda data: gzip.compress(b"") + halves(data, gzip.compress) + gzip.compress(b""),
    "gzip-newline": lambda data: gzip.compress(data) + b"\r\n",
    "gzip-zeros": lambda data: gzip.compress(data) + bytes(512),
    "gzip-padded-members": lambda data: halves(data, lambda part: gzip.compress(part) + b"\0\n"),
    "zstd": zstd,
    "zstd-frames": lambda data: halves(data, zstd),
    "zstd-pzstd": lambda data: halves(
        data, lambda part: (lambda frame: skippable(len(frame).to_bytes(4, "little")) + frame)(zstd(part))
    ),
    "zstd-skippable-around": lambda data: skippable(b"x" * 9000, 15) + zstd(data) + skippable(b""),
    "zstd-long": lambda data: zstd(data, window_log=27, enable_ldm=1),
    "zstd-newline": lambda data: zstd(data) + b"\n",
}
"""What is read, whatever encoding is in it."""


def _zip(data: bytes, name: str = "a.json") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return out.getvalue()


def _tar(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo("a.json")
        entry.size = len(data)
        archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def _table(data: bytes) -> pa.Table:
    return pa.table({"text": [data.decode("utf-8", "replace")]})


def _parquet(data: bytes) -> bytes:
    import pyarrow.parquet as pq

    out = io.BytesIO()
    pq.write_table(_table(data), out, compression="none")
    return out.getvalue()


def _orc(data: bytes) -> bytes:
    from pyarrow import orc

    out = io.BytesIO()
    orc.write_table(_table(data), out)
    return out.getvalue()


def _arrow(data: bytes) -> bytes:
    out = io.BytesIO()
    with pa.ipc.new_file(out, _table(data).schema) as writer:
        writer.write_table(_table(data))
    return out.getvalue()


def _avro(data: bytes) -> bytes:
    out = io.BytesIO()
    schema = {"type": "record", "name": "r", "fields": [{"name": "text", "type": "bytes"}]}
    fastavro.writer(out, schema, [{"text": data}])
    return out.getvalue()


def _sqlite(data: bytes) -> bytes:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("create table t (text blob)")
        connection.execute("insert into t values (?)", (data,))
        connection.commit()
        return connection.serialize()


def _snappy_framed(data: bytes) -> bytes:
    body = bytes(4) + data
    return b"\xff\x06\0\0sNaPpY" + b"\x01" + len(body).to_bytes(3, "little") + body


def _enciphered(data: bytes) -> bytes:
    generator = random.Random(data)
    return bytes(byte ^ generator.randrange(256) for byte in data)


def _bson(data: bytes) -> bytes:
    found = b""
    for line in data.splitlines() or [data]:
        text = line + b"\0"
        body = b"\x02text\0" + len(text).to_bytes(4, "little") + text + b"\x10n\0" + bytes([1, 0, 0, 0]) * 3 + b"\0"
        found += (len(body) + 4).to_bytes(4, "little") + body
    return found


def _compress(name: str) -> Callable[[bytes], bytes]:
    return lambda data: pa.compress(data, codec=name, asbytes=True)


REFUSED: dict[str, Callable[[bytes], bytes]] = {
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zlib": zlib.compress,
    "zlib-best": lambda data: zlib.compress(data, 9),
    "deflate": lambda data: zlib.compress(data)[2:-4],
    "zip": _zip,
    "zip-stored": lambda data: (lambda out: (zipfile.ZipFile(out, "w").writestr("a", data), out.getvalue())[1])(
        io.BytesIO()
    ),
    "xlsx": lambda data: _zip(data, "xl/workbook.xml"),
    "7z": lambda data: b"7z\xbc\xaf\x27\x1c\0\4" + lzma.compress(data),
    "rar": lambda data: b"Rar!\x1a\x07\x01\0" + zlib.compress(data)[2:],
    "lz4": _compress("lz4"),
    "lz4-skippable": lambda data: skippable(b"x") + pa.compress(data, codec="lz4", asbytes=True),
    "brotli": _compress("brotli"),
    "snappy-framed": _snappy_framed,
    "snappy-framed-compressed": lambda data: b"\xff\x06\0\0sNaPpY\0" + pa.compress(data, codec="snappy", asbytes=True),
    "tar": _tar,
    "parquet": _parquet,
    "orc": _orc,
    "arrow": _arrow,
    "avro": _avro,
    "sqlite": _sqlite,
    "bson": _bson,
    "pdf": lambda data: b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + data,
    "excel-of-old": lambda data: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + data,
    "enciphered": _enciphered,
    "enciphered-after-a-brace": lambda data: b"{" + _enciphered(data),
    "pgp": lambda data: b"-----BEGIN PGP MESSAGE-----\n\n" + base64.encodebytes(_enciphered(data)) + b"-----END",
    "base64": base64.b64encode,
    "base64-lines": base64.encodebytes,
    "base64-gzip": lambda data: base64.b64encode(gzip.compress(data)),
    "hexadecimal": lambda data: data.hex().encode(),
    "gzip-in-gzip": lambda data: gzip.compress(gzip.compress(data)),
    "zstd-in-gzip": lambda data: gzip.compress(zstd(data)),
    "gzip-in-zstd": lambda data: zstd(gzip.compress(data)),
    "zip-in-gzip": lambda data: gzip.compress(_zip(data)),
    "bzip2-in-zstd": lambda data: zstd(bz2.compress(data)),
    "parquet-in-gzip": lambda data: gzip.compress(_parquet(data)),
    "enciphered-in-gzip": lambda data: gzip.compress(_enciphered(data)),
    "gzip-cut": lambda data: gzip.compress(data)[:-9],
    "zstd-cut": lambda data: zstd(data)[:-3],
    "zstd-skippable-cut": lambda data: zstd(data) + skippable(b"xyz")[:-1],
    "gzip-then-text": lambda data: gzip.compress(data) + data,
    "gzip-then-zstd": lambda data: gzip.compress(data) + zstd(data),
    "text-then-gzip": lambda data: data + b"\n" + gzip.compress(data * 3),
    "text-then-enciphered": lambda data: data + b"\n" + _enciphered(data * 3),
    "zstd-window": lambda data: zstd(data, window_log=31 if len(data) > 0 else 27),
}
"""What is refused, whatever is in it."""

CHANGED: dict[str, Callable[[bytes], bytes]] = {
    "utf-7": lambda text: b"+AHsAIg-" + text.decode().encode("utf-7"),
    "utf-7-plain": lambda text: text.decode().replace("{", "+AHs-").encode(),
    "ebcdic": lambda text: text.decode("ascii", "ignore").encode("cp500"),
    "utf-8-then-utf-16": lambda text: text + b"\n" + text.decode().encode("utf-16-le"),
    "utf-8-then-marked-utf-16": lambda text: text + b"\n" + text.decode().encode("utf-16"),
    "utf-16-then-utf-8": lambda text: text.decode().encode("utf-16") + text,
    "utf-16-then-odd-utf-8": lambda text: text.decode().encode("utf-16") + b"\n" + text,
    "utf-16-and-noise": lambda text: codecs.BOM_UTF16_LE + _enciphered(text),
}
"""Encodings that are not read, or two in one file."""


@cache
def every() -> dict[str, tuple[str, bytes, bool]]:
    """Each file by its name: its feed, its bytes, and whether it is to be read."""
    found: dict[str, tuple[str, bytes, bool]] = {}
    feeds = itertools.cycle(("customer", "accelerometer", "step_trainer"))
    shapes = itertools.cycle(SHAPES)

    def add(what: str, make: Callable[[bytes], bytes], good: bool) -> None:
        # every form comes with three shapes and every feed, so that all three meet
        for _ in range(3):
            feed, shape = next(feeds), next(shapes)
            name = f"f{len(found)}"
            text = shape(records(feed, name))
            found[f"{feed}-{name}-{what}"] = (feed, make(text), good)
        next(shapes)

    for encoding, encode in ENCODINGS.items():
        for packing, pack in READ.items():
            add(f"{encoding}-{packing}", lambda text, e=encode, p=pack: p(e(text)), True)  # type: ignore[misc]
    for packing, pack in REFUSED.items():
        for encoding in ("utf-8", "utf-16-le-marked"):
            encode = ENCODINGS[encoding]
            if encoding != "utf-8" and packing in ("bson", "text-then-gzip", "text-then-enciphered"):
                continue
            add(f"{encoding}-{packing}", lambda text, e=encode, p=pack: p(e(text)), False)  # type: ignore[misc]
    for what, make in CHANGED.items():
        add(what, make, False)
    return found


def read(data: bytes, name: str = "a.json") -> Reading:
    """Reads bytes as `land` does, but for the contract."""
    return Reading(decompressed(io.BytesIO(data), name).read(), ACCELEROMETER)


@pytest.fixture(scope="module")
def landed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Lake, dict[str, tuple[int, int, int]], dict[str, str]]:
    """A lake into which every file was landed under names that say nothing of their form."""
    folder = tmp_path_factory.mktemp("forms")
    names = {}
    for n, (what, (feed, data, _)) in enumerate(every().items()):
        path = folder / "in" / f"{feed}-{n}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        names[f"in/{path.name}"] = what
    lake = Lake.create(folder / "lake")
    done = lake.land(folder / "in")
    return (
        lake,
        {names[file.name]: (file.seen, file.accepted, file.quarantined) for file in done.files},
        {names[skipped.name]: skipped.why for skipped in done.skipped if skipped.failed},
    )


def test_every_file_lands_all_its_records_or_is_refused_by_its_name(
    landed: tuple[Lake, dict[str, tuple[int, int, int]], dict[str, str]],
) -> None:
    _, files, refused = landed
    assert len(every()) > 500
    assert not files.keys() & refused.keys()
    assert files.keys() | refused.keys() == every().keys()
    for what, (_, _, good) in every().items():
        if good:
            assert files.get(what) == (COUNT, COUNT, 0), (what, refused.get(what))
        else:
            assert what in refused, (what, files.get(what))


def test_no_byte_of_a_refused_file_is_in_the_lake(
    landed: tuple[Lake, dict[str, tuple[int, int, int]], dict[str, str]],
) -> None:
    lake, files, refused = landed
    assert lake.quarantine().total() == 0
    with lake.query("select count(*) n from landed_files", role="officer") as result:
        assert result.arrow().to_pylist() == [{"n": len(files)}]
    numbers = {what.split("-")[1] for what in refused}
    for sql in (
        "select email from customers_landing",
        'select "user" from accelerometer_landing',
        "select serialNumber from step_trainer_landing",
    ):
        with lake.query(sql, role="officer") as result:
            values = [row[0].as_py() for row in zip(*result.arrow().columns, strict=True)]
        assert values
        assert not {value.removeprefix("s-").replace("-", ".").split(".")[0] for value in values} & numbers
    assert not list((lake.root / "tmp").rglob("*.json"))


def test_what_was_refused_says_what_it_is(
    landed: tuple[Lake, dict[str, tuple[int, int, int]], dict[str, str]],
) -> None:
    _, _, refused = landed
    for part, said in {
        "utf-8-zip": "expected JSON, found a zip archive",
        "utf-8-7z": "found a 7z archive",
        "utf-8-rar": "found a RAR archive",
        "utf-8-xz": "found an xz file",
        "utf-8-lzma": "found an lzma file",
        "utf-8-zlib": "found a zlib stream",
        "utf-8-bzip2": "found a bzip2 file",
        "utf-8-lz4": "found an LZ4 file",
        "utf-8-snappy-framed": "found a snappy file",
        "utf-8-parquet": "found a Parquet file",
        "utf-8-avro": "found an Avro file",
        "utf-8-orc": "found an ORC file",
        "utf-8-sqlite": "found a SQLite database",
        "utf-8-pdf": "found a PDF file",
        "utf-8-excel-of-old": "found an Office document",
        "utf-8-tar": "found a tar archive",
        "utf-8-pgp": "found an enciphered file",
        "utf-8-enciphered": "found bytes that are no text",
        "utf-8-base64": "found base64 text",
        "utf-8-hexadecimal": "found hexadecimal text",
        "utf-8-gzip-in-gzip": "compressed twice, gzip and gzip",
        "utf-8-zstd-in-gzip": "compressed twice, gzip and zstd",
        "utf-8-zip-in-gzip": "found a zip archive",
        "utf-8-zstd-window": "its zstd window is 2,048 MiB, and 128 MiB are read",
        "utf-7": "found text in UTF-7",
        "ebcdic": "found text in EBCDIC",
        "utf-16-then-utf-8": "UTF-16-LE and another encoding in one file",
    }.items():
        whys = [why for what, why in refused.items() if what.split("-", 2)[2] == part]
        assert whys, part
        assert all(said in why for why in whys), (part, whys)


def test_a_refused_file_lands_once_it_is_unpacked(tmp_path: Path, lake: Lake) -> None:
    text = b"\n".join(records("accelerometer", "later"))
    path = tmp_path / "accelerometer.json"
    path.write_bytes(bz2.compress(text))
    assert [skipped.failed for skipped in lake.land(path).skipped] == [True]
    path.write_bytes(text)
    assert lake.land(path).accepted == COUNT
    path.write_bytes(bz2.compress(text))
    assert [skipped.failed for skipped in lake.land(path).skipped] == [True]


@pytest.mark.parametrize("name", ["customer.json.gz", "customer.json.zst", "customer.json"])
def test_an_empty_file_is_an_empty_delivery_whatever_its_name(name: str, tmp_path: Path, lake: Lake) -> None:
    (tmp_path / name).write_bytes(b"")
    done = lake.land(tmp_path / name)
    assert [(file.seen, file.accepted) for file in done.files] == [(0, 0)]
    assert not done.skipped


def test_bytes_of_another_encoding_in_a_json_text_cost_their_records_alone(tmp_path: Path, lake: Lake) -> None:
    for n, encoding in enumerate(("latin-1", "cp1251", "shift-jis", "gb18030")):
        names = {"latin-1": "Zoë Müller", "cp1251": "Иван Петров", "shift-jis": "山田太郎", "gb18030": "王小明"}
        good = records("customer", f"e{n}")
        bad = good[0].replace("Zoë 李 0".encode(), names[encoding].encode(encoding))
        path = tmp_path / f"customer-{n}.json"
        path.write_bytes(b"\n".join([good[1], bad, good[2]]))
        [file] = lake.land(path).files
        assert (file.accepted, file.quarantined) == (2, 1), encoding


@pytest.mark.parametrize("between", [b"\0", b"\x1e", b"\x0c", b"\x1a", b"\0" * 4096, b"\x1b[0m", b"\x85"])
def test_controls_between_records_cost_no_file(between: bytes, tmp_path: Path, lake: Lake) -> None:
    found = records("accelerometer", "c")
    path = tmp_path / "accelerometer.json"
    path.write_bytes(between.join([*found, b""]))
    [file] = lake.land(path).files
    assert file.accepted == COUNT


def test_a_record_that_was_cut_and_filled_with_zeros_is_quarantined(tmp_path: Path, lake: Lake) -> None:
    found = records("accelerometer", "cut")
    path = tmp_path / "accelerometer.json"
    path.write_bytes(found[0] + b"\n" + found[1][:40] + bytes(4096) + b"\n" + found[2])
    [file] = lake.land(path).files
    assert (file.accepted, file.quarantined) == (2, 1)


@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if "utf-8" not in name])
def test_places_in_a_decoded_file_are_those_of_its_text_in_utf_8(encoding: str) -> None:
    found = records("accelerometer", "é")
    text = found[0] + b"\n" + b'{"user": oops}' + b"\n" + found[1]
    one, other = read(ENCODINGS[encoding](text)), Reading(text, ACCELEROMETER)
    mark = len(codecs.BOM_UTF8) if encoding.endswith("marked") else 0
    assert [(r.offset - mark, r.line, r.raw) for r in one.rejects] == [(r.offset, r.line, r.raw) for r in other.rejects]
    assert one.values == other.values


@pytest.mark.parametrize("size", [1, 2, 3, 5, 4095, 4096, 4097, 1 << 20])
@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_decoding_does_not_depend_on_how_the_bytes_come(encoding: str, size: int) -> None:
    class Trickle(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            super().__init__()
            self._data = io.BytesIO(data)

        def readinto(self, buffer: Any) -> int:
            return self._data.readinto(memoryview(buffer)[:size])

    text = '{"user":"😀é李\U0010ffff"}\n' * (20 if size < 9 else 9000)
    stream = decompressed(Trickle(text.encode(encoding)), "a.json")  # type: ignore[arg-type]
    assert stream.read() == text.encode()


def test_half_a_pair_and_half_a_character_cost_their_record_alone() -> None:
    good = '{"user":"u@x.org","timestamp":1655564444000,"x":1,"y":1,"z":1}'
    bad = good.replace("u@x", "\ud83d@x")
    text = "\n".join([good, bad, good]).encode("utf-16-le", "surrogatepass")
    found = read(text)
    assert (found.counts.accepted, found.reasons) == (2, [Reason.BAD_ENCODING])
    cut = read(text[:-1])
    assert cut.counts.accepted == 1
    assert read(good.encode("utf-16-le") + b"\n").counts.accepted == 1
    assert len(read(good.encode("utf-16-le") + b"\n").reasons) == 1


def test_a_text_in_utf_32_that_is_damaged_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="UTF-32-LE that is damaged"):
        read('{"user":1}\n'.encode("utf-32-le") * 50 + b"\xff\xff\xff\x7f")


def test_the_form_of_a_file_can_be_written_again() -> None:
    text = b"\n".join(records("customer", "form"))
    for what, make in (*ENCODINGS.items(), *((n, READ[n]) for n in ("gzip", "zstd"))):
        data = make(text)
        out = io.BytesIO()
        with reader.writer(out, *reader.form(io.BytesIO(data), "a")) as stream:
            whole = decompressed(io.BytesIO(data), "a").read()
            for at in range(0, len(whole), 7):
                stream.write(whole[at : at + 7])
        assert decompressed(io.BytesIO(out.getvalue()), "a").read() == whole
        if "utf" in what:
            assert out.getvalue() == data, what
    with pytest.raises(UnreadableFile, match="an incomplete character"):
        reader.writer(io.BytesIO(), "", "utf-16-le").write(b"\xff")


@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("encoding", [name for name in ENCODINGS if "utf-8" not in name])
@pytest.mark.sample(full=10)
def test_an_erasure_rewrites_a_delivery_in_its_own_form(encoding: str, packing: str, tmp_path: Path) -> None:
    found = records("customer", "er")

    def make(text: bytes) -> bytes:
        return READ[packing](ENCODINGS[encoding](text))

    path = tmp_path / "in" / "customer.json"
    path.parent.mkdir()
    path.write_bytes(make(b"\n".join(found)))
    lake = Lake.create(tmp_path / "lake")
    lake.land(path)
    lake.erase("er.1@forms.example", inbox=[path.parent])
    whole = decompressed(io.BytesIO(path.read_bytes()), "a").read()
    assert whole.removeprefix(codecs.BOM_UTF8) == b"\n".join([found[0], found[2]])
    assert reader.form(io.BytesIO(path.read_bytes()), "a") == reader.form(io.BytesIO(make(found[0])), "a")
    assert whole.startswith(codecs.BOM_UTF8) == encoding.endswith("marked")


@pytest.mark.parametrize("size", [16, 60, 300, 5000, 200_000])
def test_noise_is_never_taken_for_text(size: int) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    generator = random.Random(seed)
    for _ in range(20):
        noise = generator.randbytes(size)
        for data in (noise, b"{" + noise, b'{"user":"' + noise, gzip.compress(noise)):
            try:
                rejects = read(data).rejects
            except UnreadableFile:
                continue
            text = reader.Legibility()
            for reject in rejects:
                text.add(reject.raw)
            assert not text.holds or size < 100, data[:40]


def test_text_in_any_alphabet_is_text() -> None:
    for text in ("hello", "Привет мир", "你好世界", "😀" * 50, "a\tb\x1b[1mc", "", "\0" * 100, "x" * 5000):
        assert forms.is_legible(text.encode())
        assert forms.foreign(text.encode()) is None, text[:5]
    assert not forms.is_legible("hello world".encode("utf-16-le"))
