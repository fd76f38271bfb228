"""The texts that Parquet files store: all that an engine reads, and all that no row has."""

from __future__ import annotations

from pathlib import Path
from random import Random, randrange
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from effort import tries
from fuzzing import assert_no_fault, fuzz, noticed
from stedi.engines import dictionaries, thrift

ROWS = 400
SOURCE = Path(dictionaries.__file__).with_suffix(".c")


def texts_of_rows(path: Path) -> dict[str, set[str]]:
    """The texts that an engine reads, by column."""
    with duckdb.connect(config={"threads": 1}) as connection:
        found = connection.execute(f"select * from read_parquet('{path}', hive_partitioning = false)")
        names = [name for name, *_ in found.description or ()]
        columns = zip(*found.fetchall(), strict=True)
    return {
        name: {value for value in values if isinstance(value, str)}
        for name, values in zip(names, columns, strict=False)
    }


def stored(path: Path) -> dictionaries.Stored:
    footer = dictionaries.footer(path)
    assert footer is not None
    return dictionaries.stored([footer])


def first_page(content: bytes) -> tuple[Any, Any, Any, int, int]:
    """The footer, the first chunk's metadata, its first page's header, and where header and page start."""
    fields, _ = thrift.read(content[-8 - int.from_bytes(content[-8:-4], "little") : -8])
    meta = fields[4][1][1][0][1][1][1][0][3][1]
    start = meta[9][1]
    head, body = thrift.read(content, start)
    return fields, meta, head, start, body


def texts(chance: Random) -> list[str | None]:
    kinds = chance.choice([1, 3, 40, 5_000])
    size = chance.choice([0, 4, 30])
    missing = chance.choice([0, 0, 0.2, 1])
    between = chance.choice(["", "", "\x1f", "é", "\n"])

    def one() -> str | None:
        text = f"{between}{chance.randrange(kinds):04}{'x' * chance.randrange(size + 1)}"
        return None if chance.random() < missing else text

    return [one() for _ in range(ROWS)]


def written(chance: Random, path: Path) -> None:
    """A file with texts, as one of several writers writes it."""
    fields, columns = [], []
    for name in "abc":
        values = texts(chance)
        columns.append(pa.array(values, pa.string()))
        fields.append(pa.field(name, pa.string(), None in values or chance.random() < 0.5))
    table = pa.Table.from_arrays([*columns, pa.array(range(ROWS))], schema=pa.schema([*fields, ("n", pa.int64())]))
    if chance.random() < 0.3:
        with duckdb.connect(config={"threads": 1}) as connection:
            connection.register("given", table)
            codec = chance.choice(["zstd", "uncompressed", "snappy"])
            version = chance.choice(["v1", "v1", "v2"])
            connection.execute(
                f"copy given to '{path}' (format parquet, compression {codec}, parquet_version {version}, "
                "row_group_size 2048)"
            )
        return
    options: dict[str, Any] = {"compression": chance.choice(["zstd", "zstd", "none", "snappy"])}
    if chance.random() < 0.3:
        options["dictionary_pagesize_limit"] = 200  # values after so many bytes are written as they are
    if chance.random() < 0.2:
        options["data_page_version"] = "2.0"
    if chance.random() < 0.2:
        options |= {"use_dictionary": ["a"], "column_encoding": {"b": "DELTA_BYTE_ARRAY", "c": "PLAIN"}}
    pq.write_table(
        table, path, row_group_size=chance.choice([50, 1_000]), data_page_size=chance.choice([64, 1 << 20]),
        write_batch_size=chance.choice([10, 1_000]), **options,
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(80))
def test_a_column_that_is_not_partial_has_no_text_in_a_row_that_was_not_found(tmp_path: Path, seed: int) -> None:
    path = tmp_path / "a.parquet"
    written(Random(seed), path)
    found = stored(path)
    for column, expected in texts_of_rows(path).items():
        if column != "n" and column not in found.partial:
            assert expected <= found.texts[column], f"seed {seed}, column {column}"


@pytest.mark.parametrize("writer", ["dictionary", "plain", "absent", "engine"])
def test_what_the_lakes_own_writers_write_is_read_without_an_engine(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "a.parquet"
    values = [None] * ROWS if writer == "absent" else [f"{n % 7}" for n in range(ROWS)]
    table = pa.table({"a": pa.array(values, pa.string())})
    if writer == "engine":
        with duckdb.connect() as connection:
            connection.register("given", table)
            connection.execute(f"copy given to '{path}' (format parquet, compression zstd)")
    else:
        pq.write_table(table, path, compression="zstd", use_dictionary=writer == "dictionary", store_schema=False)
    found = stored(path)
    assert not found.partial
    assert found.texts["a"] == set(filter(None, values))


def test_a_long_footer_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({f"c{n}": [f"text {n}"] for n in range(200)}), path, compression="zstd")
    assert int.from_bytes(path.read_bytes()[-8:-4], "little") > 2 * dictionaries._TAIL
    assert stored(path).texts == {f"c{n}": {f"text {n}"} for n in range(200)}


@pytest.mark.parametrize("size", [0, 7, 8, 12, 1 << 20])
def test_bytes_that_are_no_file_of_parquet_have_no_footer(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + size.to_bytes(4, "little") + b"PAR1")
    assert dictionaries.footer(path) is None
    path.write_bytes(bytes(size % 100))
    assert dictionaries.footer(path) is None


@pytest.mark.parametrize("change", ["version 2", "delta", "snappy", "nested", "many plain values"])
def test_a_column_that_is_stored_in_another_way_is_partial(tmp_path: Path, change: str) -> None:
    options: dict[str, Any] = {"compression": "zstd"}
    values: list[Any] = [f"{n}" for n in range(ROWS)]
    if change == "version 2":
        options["data_page_version"] = "2.0"
    elif change == "delta":
        options |= {"use_dictionary": False, "column_encoding": {"a": "DELTA_LENGTH_BYTE_ARRAY"}}
    elif change == "snappy":
        options["compression"] = "snappy"
    elif change == "nested":
        values = [[value] for value in values]
    else:
        values = [f"{n:04}{'x' * 3_000}" for n in range(ROWS)]
        options["use_dictionary"] = False
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": values}), path, **options)
    assert stored(path).partial == {"a"}


def test_one_row_group_that_is_not_read_makes_its_column_partial(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"a": ["x"] * 100 + [f"{n:04}" for n in range(300)]})
    # the values of the last row groups leave their dictionaries, and are plain values from then on
    pq.write_table(table, path, row_group_size=100, dictionary_pagesize_limit=200, data_page_size=64, compression=None)
    assert not stored(path).partial
    damaged = bytearray(path.read_bytes())
    place = damaged.rindex((4).to_bytes(4, "little") + b"0299")
    damaged[place : place + 4] = (1 << 20).to_bytes(4, "little")  # a length beyond the page
    path.write_bytes(damaged)
    assert stored(path).partial == {"a"}


def test_a_footer_that_leaves_out_pages_makes_their_column_partial(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    texts = [f"{n:04}" for n in range(ROWS)]
    pq.write_table(
        pa.table({"a": texts}), path, compression="zstd", use_dictionary=False, data_page_size=64, write_batch_size=10
    )
    content = path.read_bytes()
    fields, meta, head, start, body = first_page(content)
    meta[7] = thrift.I64, body + head[3][1] - start  # the chunk ends after its first page
    footer = thrift.write(fields)
    path.write_bytes(
        content[: -8 - int.from_bytes(content[-8:-4], "little")] + footer + len(footer).to_bytes(4, "little") + b"PAR1"
    )
    assert texts_of_rows(path)["a"] == set(texts), "an engine reads all pages"
    assert stored(path).partial == {"a"}


def test_texts_that_only_bounds_have_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["m"] * 9}), path, compression="zstd", store_schema=False)
    content = path.read_bytes()
    footer = content.rindex(b"m", 0, len(content) - 8)
    path.write_bytes(content[:footer] + b"z" + content[footer + 1 :])
    assert stored(path).texts["a"] >= {"m", "z"}


@pytest.mark.parametrize("nested", [b"\x19", b"\x1c", b"\x19\x1c"])  # lists, structures, and both in turn
def test_a_footer_of_one_thing_within_another_is_not_read_to_its_end(tmp_path: Path, nested: bytes) -> None:
    """It would exhaust the stack, and the erasure would end with an error each time."""
    path = tmp_path / "a.parquet"
    footer = nested * 5_000
    path.write_bytes(b"PAR1" + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert dictionaries.footer(path) is None


def damaged_at(chance: Random, content: bytes, places: int) -> bytearray:
    """Returns a file with other bytes in so many places, none of them in its first four bytes."""
    damaged = bytearray(content)
    for _ in range(places):
        damaged[chance.randrange(4, len(damaged))] = chance.randrange(256)
    return damaged


@pytest.mark.parametrize("seed", range(6))
def test_no_damage_raises_or_hides_a_text_that_an_engine_reads(tmp_path: Path, seed: int) -> None:
    chance = Random(seed)
    path = tmp_path / "a.parquet"
    written(chance, path)
    content = path.read_bytes()
    for _ in range(60):
        damaged = damaged_at(chance, content, chance.choice([1, 1, 3]))
        path.write_bytes(damaged[: chance.choice([len(damaged), len(damaged), chance.randrange(len(damaged))])])
        footer = dictionaries.footer(path)
        if footer is None or footer.columns is None:
            continue
        found = dictionaries.stored([footer])
        try:
            expected = texts_of_rows(path)
        except (duckdb.Error, UnicodeDecodeError):
            continue
        for column, kind in footer.columns:
            if kind == "VARCHAR" and column not in found.partial and column in expected:
                assert expected[column] <= found.texts[column], f"seed {seed}, column {column}"


@pytest.mark.skipif(thrift.library() is None, reason="no compiler")
@pytest.mark.parametrize("seed", range(12))
def test_without_the_libraries_the_same_texts_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    chance = Random(seed)
    path = tmp_path / "a.parquet"
    written(chance, path)
    content = path.read_bytes()
    for number in range(30):
        path.write_bytes(damaged_at(chance, content, chance.choice([1, 1, 3]) if number else 0))
        footer = dictionaries.footer(path)
        if footer is None:
            continue
        compiled = dictionaries.stored([footer])
        with monkeypatch.context() as patch:
            patch.setattr(thrift, "page_headers", lambda chunk: None)
            patch.setattr(dictionaries, "library", lambda: None)
            plain = dictionaries.stored([footer])
        assert (compiled.texts, compiled.partial) == (plain.texts, plain.partial), f"seed {seed}, file {number}"


def test_a_page_in_two_frames_makes_its_column_partial(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"a": ["ab", "cd"]}), path, compression=None, use_dictionary=False, write_statistics=False)
    content = path.read_bytes()
    fields, meta, head, start, body = first_page(content)
    page = content[body : body + head[3][1]]
    pack = zstandard.ZstdCompressor(write_content_size=False).compress
    frames = pack(page[:-6]) + pack(page[-6:])  # the second has the last text
    chunk = thrift.write({**head, 3: (thrift.I32, len(frames))}) + frames
    meta[4], meta[7] = (thrift.I32, 6), (thrift.I64, len(chunk))
    footer = thrift.write(fields)
    path.write_bytes(content[:start] + chunk + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert texts_of_rows(path)["a"] == {"ab", "cd"}, "an engine reads all frames"
    assert stored(path).partial == {"a"}


def in_plain(values: list[bytes]) -> bytes:
    return b"".join(len(value).to_bytes(4, "little") + value for value in values)


def pages_of_texts(chance: Random) -> list[tuple[bytes, set[str], bool]]:
    """Plain values, the texts in them, and whether they are whole; many are in several."""
    letters = [b"a", b"", b"\x1f", b"\0", "\u00e9".encode(), b"\xc3", b"\xff", b"x" * 300]
    some = letters if chance.random() < 0.5 else [b"a", b"b"]
    made = []
    for _ in range(chance.randrange(1, 5)):
        values = [b"".join(chance.choices(some, k=chance.randrange(6))) for _ in range(chance.randrange(9))]
        page, whole = in_plain(values), True
        if values and chance.random() < 0.2:
            whole = False
            if values[-1] and chance.random() < 0.5:
                page, values[-1] = page[:-1], values[-1][:-1]
            else:
                page += b"a"
        made.append((page, {value.decode("utf-8", "replace") for value in values}, whole))
    return made


@pytest.mark.parametrize("compiled", [True, False])
def test_each_text_is_returned_when_it_is_first_met(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(dictionaries, "library", lambda: None)
    elif dictionaries.library() is None:
        pytest.skip("no compiler")
    seed = randrange(1 << 32)
    print(f"seed {seed}")
    chance = Random(seed)
    for _ in range(tries(500, 2_000, 100_000)):
        known, met = dictionaries.Known(), set[str]()
        for page, texts, whole in pages_of_texts(chance):
            found, ended = known.new(page)
            assert ended == whole, f"seed {seed}"
            assert texts - met <= set(found) <= texts, f"seed {seed}"
            met |= texts
        assert {"another"} <= set(known.among([*met, "another"])) <= {*met, "another"}, f"seed {seed}"


@pytest.mark.parametrize("compiled", [True, False])
def test_what_was_met_is_not_returned_again(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(dictionaries, "library", lambda: None)
    known = dictionaries.Known()
    texts = [f"{n}".encode() for n in range(20_000)]  # the table of the library grows several times
    assert len(known.new(in_plain(texts))[0]) == len(texts)
    assert not known.new(in_plain(texts[::-1]))[0]
    assert not known.among([text.decode() for text in texts])
    assert set(known.new(in_plain([*texts, b"new"]))[0]) == {"new"}
    assert set(known.among(["new", "\u00e9", "0"])) == {"\u00e9"}
    assert not known.new(in_plain(["\u00e9".encode()]))[0]


@pytest.mark.parametrize("compiled", [True, False])
def test_what_is_too_much_to_remember_is_returned_each_time(monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    if not compiled:
        monkeypatch.setattr(dictionaries, "library", lambda: None)
    monkeypatch.setattr(dictionaries, "_MOST_KNOWN", 10)
    known = dictionaries.Known()
    for number in range(40):
        assert known.new(in_plain([b"%d" % number]))[0]
    assert known.new(in_plain([b"39"]))[0], "it is not remembered, and must be searched each time"
    assert not known.new(in_plain([b"3"]))[0]


@pytest.mark.skipif(dictionaries.library() is None, reason="no compiler")
def test_texts_whose_hashes_collide_are_told_apart() -> None:
    """The hash is not secret: somebody can write texts that share all slots."""
    every = (1 << 64) - 1

    def colliding(number: int) -> bytes:
        hashed = (16 ^ (number << 32 | 12)) * 0x9E3779B97F4A7C15 & every  # 16 bytes: a length, 12, and so many bytes
        return number.to_bytes(4, "little") + (hashed ^ hashed >> 32 ^ 0xC0FFEE).to_bytes(8, "little")

    texts = [text for text in map(colliding, range(6_000)) if b"\x1f" not in text]
    known = dictionaries.Known()
    found, again = (known.new(in_plain(texts))[0] for _ in range(2))
    assert set(found) == {text.decode("utf-8", "replace") for text in texts}
    assert 5_000 < len(again) < len(texts), "most find no slot, and are returned each time"


def test_no_page_makes_the_library_leave_its_memory(tmp_path: Path) -> None:
    count = tries(5_000, 20_000, 3_000_000)
    assert_no_fault(tmp_path, SOURCE, count, count / 3)


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("size - at < LENGTH", "size - at < 1"),
        ("end > size || ", "end > size + 1 || "),
        (" || memchr(bytes + at + LENGTH, separator, (size_t)(end - at - LENGTH))", " || separator == 30"),
        ("(i64)length[1] << 8", "0"),
        # a text is taken for another one, or for one that was there before
        ("known->texts + at, text, (size_t)size)", "known->texts + at, text, (size_t)size / 9)"),
        ("if (slot && *slot) continue;", "if (slot && *slot && at) continue;"),
        ("if (slot) remember", "if (0) remember"),
        ("known->size += size;", ""),
        # more is remembered than there is memory for
        ("if (size > known->room - known->size) {", "if (size > known->room + LENGTH - known->size) {"),
        ("known->slots + ((hash + probe) & mask)", "known->slots + (hash & mask) + probe"),
        ("known->count >= known->most || ", ""),
        ("size > known->most_bytes - known->size", "0"),
        ("while (slots[at]) at = (at + 1) & mask;", "while (slots[at]) at++;"),
    ],
)
def test_a_library_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    assert noticed(fuzz(tmp_path, SOURCE, 6_000, mutant=(bound, looser)))


@pytest.mark.parametrize("seed", range(tries(10, 40, 400)))
def test_a_file_is_known_to_have_none_of_some_texts_only_if_no_row_has_one(seed: int, tmp_path: Path) -> None:
    chance, path = Random(seed), tmp_path / "a.parquet"
    written(chance, path)
    for column, had in texts_of_rows(path).items():
        some = chance.sample(sorted(had), min(len(had), 2))
        for text in some:
            assert not dictionaries.none_has([path], column, {text, "nobody"}), f"seed {seed}"
        if dictionaries.none_has([path], column, {"nobody", "zz"}):
            assert not had & {"nobody", "zz"}, f"seed {seed}"


def test_none_of_some_texts_is_known_of_dictionaries_but_not_of_what_is_damaged_or_missing(tmp_path: Path) -> None:
    one, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for path, names in ((one, ["bo", "dee"]), (other, ["eve", "guy"])):
        pq.write_table(pa.table({"a": [*names] * 9, "b": ["x"] * 18, "n": range(18)}), path, compression="zstd")
    # one between the bounds of a file, one outside those of every file
    assert dictionaries.none_has([one, other], "a", {"cy", "ana"})
    assert dictionaries.none_has([one, other], "a", ())
    for text in ("bo", "dee", "eve", "guy"):
        assert not dictionaries.none_has([one, other], "a", {"cy", text}), text
    for column in ("n", "c"):
        assert not dictionaries.none_has([one, other], column, {"cy"}), column
    content = other.read_bytes()
    for damaged in (content[:40], content[:-9], b""):
        other.write_bytes(damaged)
        assert not dictionaries.none_has([one, other], "a", {"cy"})
    assert not dictionaries.none_has([one, tmp_path / "missing"], "a", {"cy"})
