"""Where a command writes for its caller: nothing but a file is replaced, and a file is whole or absent."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from stedi import Lake, cli
from stedi.cli import formats
from stedi.errors import StediError, UsageError
from stedi.storage import destinations
from stedi.storage.destinations import writing

STEDI = [sys.executable, "-m", "stedi"]


def write(path: Path, text: bytes = b"hello\n") -> None:
    with writing(path) as out:
        out.write(text)


def test_a_file_is_replaced_in_one_step_and_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("old")
    with pytest.raises(TypeError), writing(path) as out:
        out.write("half, and no bytes")  # type: ignore[call-overload]
    assert path.read_text() == "old"
    before = path.stat().st_ino
    write(path)
    assert path.read_text() == "hello\n"
    assert path.stat().st_ino != before
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize("letter", ["a", "é", "写", "𐍈"])
def test_a_name_may_be_as_long_as_the_disk_takes(letter: str, tmp_path: Path) -> None:
    path = tmp_path / (letter * (255 // len(letter.encode())))
    for text in (b"one", b"another"):
        write(path, text)
        assert path.read_bytes() == text
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("hops", [1, 2, 3])
@pytest.mark.parametrize("relative", [True, False])
def test_through_a_link_its_target_is_replaced_and_the_link_stays(
    tmp_path: Path, there: bool, hops: int, relative: bool
) -> None:
    target = tmp_path / "far" / "real.csv"
    target.parent.mkdir()
    if there:
        target.write_text("old")
    last = target
    for n in range(hops):
        link = tmp_path / f"link{n}"
        link.symlink_to(os.path.relpath(last, tmp_path) if relative else last)
        last = link
    write(last)
    assert last.is_symlink()
    assert target.read_text() == "hello\n"
    assert not target.is_symlink()


def test_links_in_a_circle_folders_and_places_that_are_not_there_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for place in ("a", ".", "nothing/a.csv"):
        with pytest.raises(StediError, match="cannot be written"):
            write(tmp_path / place)
    with pytest.raises(StediError, match="cannot be written"):
        write(Path("/dev/nothing-of-this-name"))


def test_a_pipe_is_written_to_and_stays_one(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo.csv"
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()))
    reader.start()
    write(fifo)
    reader.join()
    assert found == [b"hello\n"]
    assert stat.S_ISFIFO(fifo.stat().st_mode)


def test_devices_and_descriptors_are_written_to_in_place(tmp_path: Path) -> None:
    write(Path("/dev/null"))
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    with pytest.raises(StediError, match="No space left"):
        write(Path("/dev/full"), b"x" * 100_000)
    target = tmp_path / "appended"
    target.write_text("before\n")
    with target.open("ab") as out:
        for place in (
            f"/dev/fd/{out.fileno()}",
            f"/proc/self/fd/{out.fileno()}",
            f"/proc/{os.getpid()}/fd/{out.fileno()}",
        ):
            if Path(place).exists():
                write(Path(place))
        link = tmp_path / "link"
        link.symlink_to(f"/dev/fd/{out.fileno()}")
        write(link)
        assert destinations.is_special(link)
    lines = target.read_text().splitlines()
    assert lines[0] == "before"
    assert set(lines[1:]) == {"hello"}
    assert len(lines) >= 3
    assert not destinations.is_special(target)
    with pytest.raises(StediError, match="cannot be written"):
        write(Path("/dev/fd/987"))


def test_a_name_in_gz_or_zst_is_compressed(tmp_path: Path) -> None:
    write(tmp_path / "a.json.gz")
    write(tmp_path / "a.json.zst")
    assert gzip.decompress((tmp_path / "a.json.gz").read_bytes()) == b"hello\n"
    raw = (tmp_path / "a.json.zst").read_bytes()
    assert zstandard.ZstdDecompressor().decompressobj().decompress(raw) == b"hello\n"


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    write(Path("~/a.csv"))
    assert (tmp_path / "home" / "a.csv").read_text() == "hello\n"
    assert not (tmp_path / "~").exists()
    assert destinations.expanded("a~/b") == Path("a~/b")
    for home in ("", "here"):
        monkeypatch.setenv("HOME", home)
        with pytest.raises(UsageError, match=r"~/a: expected an absolute path in HOME, found an? "):
            destinations.expanded("~/a")
        assert destinations.expanded("a") == Path("a")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os.path, "expanduser", lambda text: text)
    with pytest.raises(UsageError, match="expected HOME to be set"):
        destinations.expanded("~/a")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with more rows than a table shows."""
    folder = tmp_path_factory.mktemp("full")
    text = "\n".join(
        json.dumps({"user": "ann@x.example", "timestamp": 1655564444000 + i, "x": 1, "y": 0, "z": 0})
        for i in range(2500)
    )
    (folder / "accelerometer.json").write_text(text)
    lake = Lake.create(folder / "lake")
    lake.land(folder / "accelerometer.json")
    return lake.root


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl", "ndjson", "parquet", "CSV"])
def test_a_file_holds_every_row(ending: str, full: Path, tmp_path: Path) -> None:
    file = tmp_path / f"rows.{ending}"
    assert cli.main(["--lake", str(full), "query", "select * from accelerometer_landing", "--output", str(file)]) == 0
    read: dict[str, Callable[[], list[Any]]] = {
        "csv": lambda: file.read_text().splitlines()[1:],
        "json": lambda: json.loads(file.read_text()),
        "jsonl": lambda: [json.loads(line) for line in file.read_text().splitlines()],
        "parquet": lambda: __import__("pyarrow.parquet").parquet.read_table(file).to_pylist(),
    }
    assert len(read[{"ndjson": "jsonl"}.get(ending, ending.lower())]()) == 2500


@pytest.mark.parametrize(
    "name", ["rows", "rows.txt", "rows.xlsx", "rows.tsv", "rows.gz", "rows.txt.gz", "csv", "rows.table", "rows.zst"]
)
def test_an_ending_that_says_nothing_is_refused_and_the_known_ones_named(
    name: str, full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--lake", str(full), "query", "select * from accelerometer_landing", "--output", str(tmp_path / name)]
    assert cli.main(words) == 2
    assert (
        ".csv, .json, .jsonl, .ndjson, .parquet, .arrow, .feather, or in one of them and .gz" in capsys.readouterr().err
    )
    assert not (tmp_path / name).exists()
    assert cli.main([*words, "--format", "table"]) == 0
    content = (tmp_path / name).read_bytes()
    text = gzip.decompress(content) if name.endswith(".gz") else content
    assert name.endswith(".zst") or text.count(b"ann@x.example") == 2500 or b"NULL" in text


def test_a_table_that_goes_to_a_file_is_not_cut_either(full: Path, tmp_path: Path) -> None:
    words = [*STEDI, "--lake", str(full), "query", "select timestamp from accelerometer_landing"]
    with (tmp_path / "rows.txt").open("wb") as out:
        subprocess.run(words, stdout=out, check=True)
    assert "(2,500 rows)" in (tmp_path / "rows.txt").read_text()
    piped = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert piped == (tmp_path / "rows.txt").read_text()
    shown = subprocess.run([*words, "--output", "/dev/stdout"], capture_output=True, text=True, check=True).stdout
    assert shown == piped


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.json.gz", "rows.jsonl.zst", "ROWS.CSV.ZSTD"])
def test_a_file_is_compressed_by_the_end_of_its_name(
    name: str, full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--lake", str(full), "query", "select x, y from accelerometer_landing", "--output", str(tmp_path / name)]
    assert cli.main(words) == 0
    content = (tmp_path / name).read_bytes()
    raw = (
        gzip.decompress(content) if name.endswith("gz") else zstandard.ZstdDecompressor().stream_reader(content).read()
    )
    assert f"{name}: 2,500 rows, compressed" in capsys.readouterr().err
    assert raw.count(b"\n") == {"jsonl": 2500, "json": 2502, "csv": 2501}[name.lower().split(".")[1]]


@pytest.mark.parametrize("name", ["rows.parquet.gz", "rows.arrow.zst"])
def test_what_compresses_its_own_columns_is_not_compressed_again(
    name: str, full: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["--lake", str(full), "query", "select 1", "--output", str(tmp_path / name)]) == 2
    assert "expected a name without" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_ndjson_refuses_the_ending_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a":1}{"a":2}')
    assert cli.main(["ndjson", str(tmp_path / "a.json"), str(tmp_path / "b.parquet")]) == 2
    assert not (tmp_path / "b.parquet").exists()


def test_ndjson_writes_to_stdout_and_tells_of_it_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a":1}{"a":2}')
    done = subprocess.run([*STEDI, "ndjson", str(tmp_path / "a.json"), "/dev/stdout"], capture_output=True, check=True)
    assert done.stdout == b'{"a":1}\n{"a":2}\n'
    assert b"2 records" in done.stderr


def test_the_forms_of_files_are_those_that_the_command_offers() -> None:
    assert set(formats.Format) == {
        *("table", "vertical", "markdown", "csv", "json", "jsonl", "parquet", "arrow"),
    }


def test_every_path_of_a_call_takes_a_tilde_for_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    (home / "in").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY", raising=False)
    monkeypatch.setenv("STEDI_JOURNAL", str(home / "journal"))
    (home / "list").write_text("Ann@x.example\n")
    record = {"email": "ann@x.example", "serialNumber": "s", "registrationDate": 1655564400000,
              "lastUpdateDate": 1655564400000, "shareWithResearchAsOfDate": 1655564400000}  # fmt: skip
    (home / "in" / "customer-1.json").write_text(json.dumps(record) + "\n")
    for words in (
        ["init"],
        ["land", "~/in"],
        ["withdraw", "--yes", "--file", "~/list"],
        ["crawl", "~/in"],
        ["ndjson", "~/in/customer-1.json", "~/out.json", "--rejects", "~/rejects"],
        ["query", "select 1", "--output", "~/out.csv"],
        ["key", "rotate", "--yes", "--to", "~/next.key"],
        ["erase", "--yes", "--file", "~/list", "--inbox", "~/in"],
        ["erase", "--replay", "~/journal"],
    ):
        assert cli.main(["--lake", "~/lake", *words]) == 0, (words, capsys.readouterr().err)
    assert (home / "next.key").is_file()
    assert "Ann@x" not in (home / "in" / "customer-1.json").read_text()
    assert "ann@x" not in (home / "in" / "customer-1.json").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home"]


def test_links_in_a_loop_are_named_and_lead_to_nothing_special(tmp_path: Path) -> None:
    loop = tmp_path / "loop"
    loop.symlink_to("loop")
    assert not destinations.is_special(loop)
    with pytest.raises(StediError, match=r"loop: cannot be written: links form a loop$"), destinations.writing(loop):
        pass
