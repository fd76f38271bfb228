from __future__ import annotations

import gzip
import io
import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from stedi.cli import render
from stedi.errors import StediError, UnreadableFile, UsageError
from stedi.landing import ndjson
from stedi.landing.ndjson import lines, rewrite
from stedi.landing.reader import Limits, Reject
from stedi.schema.contracts import Reason

RECORDS = [
    {"user": "a}{b@test.example", "timestamp": 9007199254740993, "x": 1.10, "nested": {"deep": [1, {"a": None}]}},
    {"user": 'quote " and \\ and \n', "timestamp": 1000000000002, "unknown": True},
    {},
    {"user": "ü", "x": -0.0},
]
LINES = [json.dumps(record).encode() for record in RECORDS]
PRETTY = [json.dumps(record, indent=2).encode() for record in RECORDS]

SHAPES = {
    "lines": b"\n".join(LINES) + b"\n",
    "lines without the last break": b"\n".join(LINES),
    "blank lines": b"\n\n".join(LINES),
    "CRLF": b"\r\n".join(LINES),
    "back to back": b"".join(LINES),
    "back to back with space": b"  ".join(LINES),
    "commas": b",\n".join(LINES),
    "commas at the end": b",".join(LINES) + b",",
    "array": b"[" + b",".join(LINES) + b"]",
    "arrays": b"[" + LINES[0] + b"]\n[" + b",".join(LINES[1:]) + b"]",
    "pretty array": json.dumps(RECORDS, indent=4).encode(),
    "pretty": b"\n".join(PRETTY),
    "pretty, CRLF": b"\r\n".join(PRETTY).replace(b"\n", b"\r\n").replace(b"\r\r", b"\r"),
    "byte order mark": b"\xef\xbb\xbf" + b"\n".join(LINES),
    "mixed": b"[" + LINES[0] + b"," + PRETTY[1] + b"]" + LINES[2] + b"\n" + LINES[3],
    "gzip": gzip.compress(b"".join(LINES)),
    "gzip members": gzip.compress(LINES[0] + LINES[1]) + gzip.compress(LINES[2] + LINES[3]),
    "zstd": zstandard.compress(b"\n".join(LINES)),
}


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_becomes_one_record_a_line(tmp_path: Path, shape: Any) -> None:
    source = put(tmp_path / "in", SHAPES[shape])
    summary = rewrite(source, tmp_path / "out.json")
    found = (tmp_path / "out.json").read_bytes().split(b"\n")
    assert found.pop() == b""
    assert [json.loads(line) for line in found] == RECORDS
    assert (summary.written, summary.rejected, summary.failed) == (4, 0, False)
    assert source.read_bytes() == SHAPES[shape]


def test_clean_lines_stay_byte_for_byte(tmp_path: Path) -> None:
    source = put(tmp_path / "in", SHAPES["lines"])
    rewrite(source, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == SHAPES["lines"]


def test_the_text_of_numbers_and_strings_stays_as_delivered(tmp_path: Path) -> None:
    record = rb'{"a": 1.10, "b":1E400,"c":-0, "d" : 123456789012345678901234567890, "e":"\u00e9\/", "a": 2, "A": {}}'
    source = put(tmp_path / "in", b"[" + record + b"\n,\r\n" + record.replace(b", ", b",\n  ") + b"]")
    rewrite(source, tmp_path / "out")
    first, second = (tmp_path / "out").read_bytes().splitlines()
    assert first == record
    assert second == record.replace(b", ", b",  ")


def test_an_empty_file_gives_an_empty_file(tmp_path: Path) -> None:
    summary = rewrite(put(tmp_path / "in", b""), tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b""
    assert render.rewritten(summary) == "0 records of 1 file written"


def test_what_is_no_record_is_counted_by_reason_and_kept_if_asked_for(tmp_path: Path) -> None:
    text = b'{"a":1}\n{"a":}\n7\n{"a":"\xff"}\n{"a":2}\n{"a":3'
    source = put(tmp_path / "in.json", text)
    summary = rewrite(source, tmp_path / "out", rejects=tmp_path / "rejects.json")
    assert (tmp_path / "out").read_bytes() == b'{"a":1}\n{"a":2}\n'
    (file,) = summary.files
    expected = {Reason.MALFORMED: 1, Reason.NOT_AN_OBJECT: 1, Reason.BAD_ENCODING: 1, Reason.TRUNCATED: 1}
    assert (file.name, file.seen, file.written, file.rejects) == ("in.json", 6, 2, expected)
    rejects = [json.loads(line) for line in (tmp_path / "rejects.json").read_text().splitlines()]
    assert [(r["file"], r["offset"], r["line"], r["reason"]) for r in rejects] == [
        ("in.json", 8, 2, "malformed"),
        ("in.json", 15, 3, "not_an_object"),
        ("in.json", 17, 4, "bad_encoding"),
        ("in.json", 35, 6, "truncated"),
    ]
    assert rejects[0]["raw"] == '{"a":}'
    assert rejects[2]["raw_base64"] == "eyJhIjoi/yJ9"
    assert "in.json: 1 x malformed" in render.rewritten(summary)
    assert render.rewritten(summary).endswith("2 records of 1 file written; 4 set aside as no record")


@pytest.mark.parametrize(
    ("name", "opened"),
    [
        ("out.json.gz", gzip.decompress),
        ("OUT.ZST", lambda data: zstandard.ZstdDecompressor().stream_reader(data).read()),
    ],
)
def test_the_targets_name_tells_its_compression(tmp_path: Path, name: str, opened: Any) -> None:
    rewrite(put(tmp_path / "in", b"".join(LINES)), tmp_path / name)
    assert opened((tmp_path / name).read_bytes()) == SHAPES["lines"]


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = put(tmp_path / "in", b"".join(LINES))
    for folder in ("a", "b"):
        rewrite(source, tmp_path / folder / "out.gz")
    assert (tmp_path / "a/out.gz").read_bytes() == (tmp_path / "b/out.gz").read_bytes()


def test_a_folder_is_mirrored_and_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    source = tmp_path / "inbox"
    put(source / "customer/x.json", LINES[0] + LINES[1])
    put(source / "steps/y.json.gz", gzip.compress(LINES[2]))
    put(source / "steps/not-gzip.gz", LINES[2])
    put(source / "steps/cut.gz", gzip.compress(LINES[0])[:-9])
    put(source / "notes.md", b"hello")
    os.mkfifo(source / "pipe")
    told: list[str] = []
    summary = rewrite(source, tmp_path / "out", progress=lambda what, share: told.append(what))
    written = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {"customer/x.json", "steps/y.json.gz"}
    assert (tmp_path / "out/customer/x.json").read_bytes() == LINES[0] + b"\n" + LINES[1] + b"\n"
    assert gzip.decompress((tmp_path / "out/steps/y.json.gz").read_bytes()) == LINES[2] + b"\n"
    assert {item.name: item.failed for item in summary.skipped} == {
        "inbox/steps/not-gzip.gz": True,
        "inbox/steps/cut.gz": True,
        "inbox/notes.md": False,
        "inbox/pipe": False,
    }
    assert summary.failed
    assert summary.written == 3
    assert told == [f"rewrite files, {number} of 6" for number in range(1, 7)]
    assert "inbox/steps/not-gzip.gz: expected gzip" in render.rewritten(summary)
    document = json.loads(json.dumps(render.rewritten_json(summary)))
    assert (document["written"], document["rejected"], len(document["skipped"])) == (3, 0, 4)
    assert document["files"][0]["name"] == "inbox/customer/x.json"
    assert rewrite(source, tmp_path / "out") == summary


def test_a_file_goes_into_a_folder_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    rewrite(put(tmp_path / "in.json", LINES[0]), tmp_path / "out")
    assert (tmp_path / "out/in.json").read_bytes() == LINES[0] + b"\n"


def test_the_source_is_never_written_to(tmp_path: Path) -> None:
    source = put(tmp_path / "inbox/x.json", LINES[0])
    os.link(source, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(source)
    (tmp_path / "folder").symlink_to(tmp_path / "inbox")
    for src, dst in [
        (source, source),
        (source, tmp_path / "hard"),
        (source, tmp_path / "soft"),
        (source, tmp_path / "inbox"),
        (tmp_path / "inbox", tmp_path / "inbox"),
        (tmp_path / "inbox", tmp_path / "folder"),
        (tmp_path / "inbox", tmp_path / "inbox/out"),
        (tmp_path / "inbox", tmp_path / "folder/out/deeper"),
        (tmp_path / "inbox", tmp_path),
        (tmp_path / "inbox", tmp_path / "inbox/../inbox/new"),
    ]:
        with pytest.raises(UsageError, match="expected a path apart from the source"):
            rewrite(src, dst)
    with pytest.raises(UsageError, match="expected a path apart from the source"):
        rewrite(tmp_path / "inbox", tmp_path / "out", rejects=tmp_path / "inbox/rejects")
    (tmp_path / "out").mkdir()
    (tmp_path / "inbox/sub").mkdir()
    put(tmp_path / "inbox/sub/y.json", LINES[1])
    (tmp_path / "out/sub").symlink_to(tmp_path / "inbox/sub")
    with pytest.raises(UsageError, match=r"found a place inside the source"):
        rewrite(tmp_path / "inbox", tmp_path / "out")
    assert source.read_bytes() == LINES[0]
    assert (tmp_path / "inbox/sub/y.json").read_bytes() == LINES[1]
    assert sorted(path.name for path in (tmp_path / "inbox").iterdir()) == ["sub", "x.json"]


def test_a_target_that_is_no_file_is_refused(tmp_path: Path) -> None:
    source = put(tmp_path / "in", LINES[0])
    (tmp_path / "folder").mkdir()
    with pytest.raises(UsageError, match="another file for the rejects"):
        rewrite(source, tmp_path / "out", rejects=tmp_path / "out")
    with pytest.raises(UsageError, match="found a folder"):
        rewrite(source, tmp_path / "out", rejects=tmp_path / "folder")
    put(tmp_path / "inbox/deep/a.json", b'{"a":1}')
    with pytest.raises(UsageError, match="another file for the rejects"):
        rewrite(tmp_path / "inbox", tmp_path / "mirror", rejects=tmp_path / "mirror/deep/a.json")
    assert not (tmp_path / "mirror").exists()
    put(tmp_path / "plain", b"")
    with pytest.raises(StediError, match="cannot be created: File exists"):
        rewrite(source, tmp_path / "plain/out")


def test_what_cannot_be_read_leaves_no_target_and_no_trace(tmp_path: Path) -> None:
    source = put(tmp_path / "cut.gz", gzip.compress(b"".join(LINES) * 100)[:-9])
    target = put(tmp_path / "out/out.json", b"earlier")
    with pytest.raises(UnreadableFile, match=r"cut\.gz: .*"):
        rewrite(source, target)
    assert target.read_bytes() == b"earlier"
    assert os.listdir(target.parent) == ["out.json"]
    with pytest.raises(UnreadableFile, match="there is no such file"):
        rewrite(tmp_path / "nothing", target)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UnreadableFile, match="found a FIFO"):
        rewrite(tmp_path / "pipe", target)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path / "in.json", LINES[0])
    real = ndjson.lines

    def growing(stream: Any, out: Any, reject: Any) -> Any:
        written = real(stream, out, reject)
        with source.open("ab") as writer:
            writer.write(LINES[1])
        return written

    monkeypatch.setattr(ndjson, "lines", growing)
    with pytest.raises(UnreadableFile, match=r"in\.json: changed while it was read"):
        rewrite(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(sys.platform == "darwin", reason="file names are UTF-8 there")
def test_names_that_print_the_same_do_not_overwrite_each_other(tmp_path: Path) -> None:
    put(tmp_path / "inbox/a\\xff.json", LINES[0])
    put(tmp_path / "inbox" / os.fsdecode(b"a\xff.json"), LINES[1])
    summary = rewrite(tmp_path / "inbox", tmp_path / "out")
    assert summary.failed
    assert len(summary.files) == 1
    assert "looks the same when printed" in summary.skipped[0].why


def test_what_is_written_is_its_owners_alone(tmp_path: Path) -> None:
    put(tmp_path / "inbox/deep/x.json", LINES[0] + b"7")
    rewrite(tmp_path / "inbox", tmp_path / "out", rejects=tmp_path / "rejects")
    for path, mode in [("out", 0o700), ("out/deep", 0o700), ("out/deep/x.json", 0o600), ("rejects", 0o600)]:
        assert stat.S_IMODE((tmp_path / path).stat().st_mode) == mode, path


def rewritten(text: bytes, careful: bool, block_bytes: int = 1 << 20) -> tuple[bytes, int, list[Reject]]:
    out = io.BytesIO()
    rejects: list[Reject] = []
    written = lines(io.BytesIO(text), out, rejects.append, Limits(block_bytes=block_bytes), careful=careful)
    return out.getvalue(), written, rejects


READING = '{"user":"a@b.example","timestamp":1655564455341,"x":1.0,"y":-1.0,"z":0.0}'
PIECES = st.sampled_from(
    [
        *(READING * 3, READING, READING.replace(",", ", ").replace(":", ": "), READING.replace(",", ",\r\n ")),
        *(READING.replace("user", "USER"), READING.replace("a@", "}{ü@"), READING.replace("1.0", "1e0")),
        *(
            READING.replace("}", ',"more":1}'),
            READING.replace('"z"', '"y"'),
            READING[:-4],
            "7",
            "{}",
            '{"x":}',
            "[",
            "]",
        ),
        *('{"sensorReadingTime":1655564455341,"serialNumber":"s","distanceFromObject":246}', '"text"', "\x01", "nul"),
    ]
)
BETWEEN = st.sampled_from(["\n", "", " ", ",", ",\n", "\r\n", "\n\n", "\r", "\ufeff", "\t\n"])


@settings(max_examples=200)
@given(st.lists(st.tuples(PIECES, BETWEEN, st.integers(1, 4))), st.sampled_from([16, 100, 300, 1 << 20]))
def test_the_short_cut_gives_what_the_careful_path_gives(parts: Any, block_bytes: Any) -> None:
    text = "".join((piece + between) * times for piece, between, times in parts).encode("utf-8")
    assert rewritten(text, careful=False, block_bytes=block_bytes) == rewritten(text, careful=True)


@pytest.mark.parametrize("between", ["\n", "", ",", ",\r\n", "\r\n", " \n", "\n\n", "\r"])
@pytest.mark.parametrize("record", [READING, READING.replace(",", ", ").replace(":", ": ")])
def test_the_short_cut_over_large_blocks_gives_what_the_careful_path_gives(record: Any, between: Any) -> None:
    spoiled = '{"user":"a\\u0041", "timestamp":1000000000001}' + between + "{bad}" + between
    text = ((record + between) * 3000 + spoiled + (record + between) * 3000).encode("utf-8")
    assert rewritten(text, careful=False) == rewritten(text, careful=True)
    assert rewritten(text, careful=False)[1] == 6001
    text = ((record + between) * 3000).encode("utf-8")
    assert rewritten(text, careful=False) == rewritten(text, careful=True)


objects = st.dictionaries(
    st.text(max_size=5),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
        max_leaves=5,
    ),
    max_size=4,
)


@settings(max_examples=60)
@given(st.lists(st.tuples(objects, st.sampled_from(["\n", "", " ", ",", ",\n", "\r\n"]), st.booleans(), st.booleans())))
def test_any_objects_in_any_shape_come_back_one_a_line(tmp_path_factory: pytest.TempPathFactory, parts: Any) -> None:
    folder = tmp_path_factory.mktemp("ndjson")
    text = "".join(
        json.dumps(record, ensure_ascii=escaped, indent=1 if pretty else None) + between
        for record, between, pretty, escaped in parts
    )
    summary = rewrite(put(folder / "in", text.encode("utf-8")), folder / "out")
    found = (folder / "out").read_bytes().split(b"\n")[:-1]
    assert [json.loads(line) for line in found] == [record for record, *_ in parts]
    assert summary.rejected == 0
