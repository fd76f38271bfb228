"""Rows out: every form says the same, loses nothing and appears whole or not at all."""

from __future__ import annotations

import base64
import csv
import datetime as dt
import io
import json
import math
import os
import stat
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedi.cli import columns, formats, tables
from stedi.errors import QueryFailed, StediError, UsageError

INSTANT = dt.datetime(2022, 6, 18, 17, 47, 24, 102000, tzinfo=dt.UTC)


def reader(batch: int = 2, /, **columns: Any) -> pa.RecordBatchReader:
    arrays = {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    table = pa.table(arrays)
    return table.to_reader(batch)


def written(form: str, source: pa.RecordBatchReader, **options: Any) -> str:
    out = io.BytesIO()
    formats.write(source, form, out, **options)
    return out.getvalue().decode()


def rows_of_csv(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_is_a_header_line_then_rows_each_ended_by_crlf() -> None:
    assert written("csv", reader(a=[1, 2, 3], b=["x", "y", "z"])) == "a,b\r\n1,x\r\n2,y\r\n3,z\r\n"


def test_csv_tells_null_from_empty_text() -> None:
    assert written("csv", reader(a=[None, "", "x"], b=[1, 2, 3])) == 'a,b\r\n,1\r\n"",2\r\nx,3\r\n'


def test_csv_quotes_what_has_to_be_quoted_and_nothing_else() -> None:
    values = ["plain", 'say "hi"', "a,b", "two\nlines", "cr\rhere", " led", "é日"]
    text = written("csv", reader(v=values))
    assert [row[0] for row in rows_of_csv(text)] == ["v", *values]
    assert "\r\nplain\r\n" in text
    assert "\r\né日\r\n" in text
    assert '\r\n"say ""hi"""\r\n' in text


def test_csv_headers_are_fields_too() -> None:
    source = pa.table([pa.array([1]), pa.array([2])], names=["a,b", 'c"']).to_reader()
    assert rows_of_csv(written("csv", source))[0] == ["a,b", 'c"']


def test_an_empty_result_is_its_header() -> None:
    assert written("csv", reader(a=pa.array([], pa.int64()), b=pa.array([], pa.string()))) == "a,b\r\n"
    assert json.loads(written("json", reader(a=pa.array([], pa.int64())))) == []
    assert written("table", reader(a=pa.array([], pa.int64()))) == "a\n-\n(0 rows)\n"


@settings(max_examples=60)
@given(st.lists(st.tuples(st.text(), st.text(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=9))
def test_csv_and_json_give_back_every_text(rows: list[tuple[str, str, int]]) -> None:
    usable = [r for r in rows if not any("\ud800" <= c <= "\udfff" for c in r[0] + r[1])]
    if not usable:
        return
    a, b, n = (pa.array([row[i] for row in usable]) for i in range(3))
    text = written("csv", reader(a=a, b=b, n=n))
    assert rows_of_csv(text)[1:] == [[x, y, str(z)] for x, y, z in usable]
    objects = json.loads(written("json", reader(a=a, b=b, n=n)))
    assert [(o["a"], o["b"], o["n"]) for o in objects] == usable


def test_instants_are_iso_8601_with_milliseconds_and_z() -> None:
    assert (
        written("csv", reader(t=pa.array([INSTANT], pa.timestamp("us", "UTC")))) == "t\r\n2022-06-18T17:47:24.102Z\r\n"
    )


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (0, pa.timestamp("us", "UTC"), "1970-01-01T00:00:00.000Z"),
        (1, pa.timestamp("us", "UTC"), "1970-01-01T00:00:00.000001Z"),
        (1_500, pa.timestamp("us"), "1970-01-01T00:00:00.001500"),
        (-1_000, pa.timestamp("us", "UTC"), "1969-12-31T23:59:59.999Z"),
        (7, pa.timestamp("ms", "America/New_York"), "1970-01-01T00:00:00.007Z"),
        (1_000_000, pa.timestamp("ns"), "1970-01-01T00:00:00.001"),
        (1_001_000, pa.timestamp("ns"), "1970-01-01T00:00:00.001001"),
        (1, pa.timestamp("ns"), "1970-01-01T00:00:00.000000001"),
        (5, pa.timestamp("s"), "1970-01-01T00:00:05"),
        (2**63 - 1, pa.timestamp("us", "UTC"), "value out of range"),
        (2**31 - 1, pa.date32(), "value out of range"),
        (19_000, pa.date32(), "2022-01-08"),
        (36_000_000_000, pa.time64("us"), "10:00:00.000"),
    ],
)
def test_times_are_written_without_the_machines_zone_files(value: int, kind: pa.DataType, text: str) -> None:
    bits = {8: pa.int64(), 4: pa.int32()}[kind.bit_width // 8]
    column = pa.array([value, None], bits).view(kind)
    assert rows_of_csv(written("csv", reader(t=column, n=[1, 2]))) == [["t", "n"], [text, "1"], ["", "2"]]
    assert [o["t"] for o in json.loads(written("json", reader(t=column)))] == [text, None]


def test_integers_keep_every_digit_in_json() -> None:
    values = [9007199254740993, 2**63 - 1, -(2**63)]
    assert [o["n"] for o in json.loads(written("json", reader(n=values)))] == values
    big = Decimal(2**127 - 1)
    assert written("json", reader(n=pa.array([big], pa.decimal256(39, 0)))) == f'[\n{{"n":{2**127 - 1}}}\n]\n'


def test_nan_and_infinities_are_null_in_json() -> None:
    text = written("json", reader(x=[math.nan, math.inf, -math.inf, 0.1, -0.0, 1e20]))
    assert [o["x"] for o in json.loads(text)] == [None, None, None, 0.1, -0.0, 1e20]


def test_bytes_are_base64_in_csv_and_json_and_readable_in_a_table() -> None:
    raw = b'{"a":\x00\xff\\'
    encoded = base64.b64encode(raw).decode()
    assert json.loads(written("json", reader(r=[raw, None]))) == [{"r": encoded}, {"r": None}]
    assert rows_of_csv(written("csv", reader(r=[raw])))[1] == [encoded]
    assert '{"a":\\x00\\xff\\x5c' in written("table", reader(r=[raw]))


def test_json_is_one_object_a_line() -> None:
    text = written("json", reader(a=[1, 2, 3], b=["x", None, 'q"']))
    assert text == '[\n{"a":1,"b":"x"},\n{"a":2,"b":null},\n{"a":3,"b":"q\\""}\n]\n'


def test_json_names_two_columns_of_one_name_apart() -> None:
    table = pa.table([pa.array([1]), pa.array([2]), pa.array([3]), pa.array([4])], names=["a", "a", "a_2", "a"])
    assert json.loads(written("json", table.to_reader())) == [{"a": 1, "a_3": 2, "a_2": 3, "a_4": 4}]


NESTED = [
    {
        "d": Decimal("1.50"),
        "f": math.nan,
        "g": 0.5,
        "b": b"x",
        "t": INSTANT,
        "day": dt.date(2020, 1, 1),
        "none": None,
        "l": [[1], []],
        "yes": True,
        "s": 'q"',
        "i": pa.MonthDayNano([1, 2, -1_500_000_000]),
    }
]


def test_nested_values_are_json_in_every_form() -> None:
    wanted = {
        "d": 1.5,
        "f": None,
        "g": 0.5,
        "b": "eA==",
        "t": "2022-06-18T17:47:24.102Z",
        "day": "2020-01-01",
        "none": None,
        "l": [[1], []],
        "yes": True,
        "s": 'q"',
        "i": "P1M2DT-1.5S",
    }
    assert json.loads(written("json", reader(v=NESTED))) == [{"v": wanted}]
    assert json.loads(rows_of_csv(written("csv", reader(v=NESTED)))[1][0]) == wanted


def test_maps_and_missing_nested_values_are_json() -> None:
    column = pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64()))
    assert json.loads(written("json", reader(m=column))) == [{"m": [["a", 1]]}, {"m": None}]
    assert written("csv", reader(m=column, n=[1, 2])).endswith("\r\n,2\r\n")


def test_intervals_durations_and_enums_have_text() -> None:
    intervals = pa.array([pa.MonthDayNano([0, 0, 0]), pa.MonthDayNano([14, 0, 10**9])])
    assert [r[0] for r in rows_of_csv(written("csv", reader(i=intervals)))] == ["i", "PT0S", "P14MT1S"]
    lengths = pa.array([dt.timedelta(milliseconds=1500)])
    assert json.loads(written("json", reader(i=lengths))) == [{"i": "PT1.5S"}]
    words = pa.array(["a", "b", "a", None]).dictionary_encode()
    assert [o["w"] for o in json.loads(written("json", reader(w=words)))] == ["a", "b", "a", None]


def test_booleans_and_nulls_of_no_type() -> None:
    assert json.loads(written("json", reader(b=[True, False, None], n=pa.nulls(3)))) == [
        {"b": True, "n": None},
        {"b": False, "n": None},
        {"b": None, "n": None},
    ]


def test_a_type_without_text_is_refused_by_name() -> None:
    column = pa.ExtensionArray.from_storage(pa.opaque(pa.binary(), "bignum", "X"), pa.array([b"x"]))
    with pytest.raises(QueryFailed, match="Column v has the type"):
        written("csv", reader(v=column))


def test_a_date_beyond_the_calendar_inside_a_list_is_refused_without_its_value() -> None:
    column = pa.ListArray.from_arrays([0, 1], pa.array([2**31 - 1], pa.int32()).view(pa.date32()))
    with pytest.raises(QueryFailed, match="inside other values") as caught:
        written("json", reader(v=column))
    assert "2147483647" not in str(caught.value)


def test_a_table_aligns_numbers_right_and_text_left_and_counts_rows() -> None:
    text = written("table", reader(name=["ab", "c", None], n=[1, 22, 333], x=[1.5, None, 2.0]))
    assert text == "name    n     x\n----  ---  ----\nab      1   1.5\nc      22  NULL\nNULL  333     2\n(3 rows)\n"


def test_a_table_counts_columns_of_the_terminal() -> None:
    text = written("table", reader(a=["日本", "e\u0301", "abcd"], b=["x", "x", "x"]))
    assert text.splitlines()[2:5] == ["日本  x", "e\u0301     x", "abcd  x"]


def test_nothing_in_a_table_steers_the_terminal() -> None:
    nasty = "\x1b[31mred\x07\x9b2J\r\n\tend\u202eabc\U000e0001"
    text = written("table", pa.table({"h\x1b[0m": [nasty]}).to_reader())
    assert text.replace("\n", "").isprintable()
    assert "\\x1b[31mred\\x07\\x9b2J\\r\\n\\tend\\u202eabc\\U000e0001" in text
    assert "h\\x1b[0m" in text


def test_a_table_shows_the_first_rows_and_says_that_there_are_more() -> None:
    out = io.BytesIO()
    result = formats.write(reader(400, n=list(range(1001))), "table", out)
    assert result == formats.Written(1000, cut=True)
    assert (
        out.getvalue()
        .decode()
        .endswith("(the first 1,000 rows; there are more: use another --format or --output for all of them)\n")
    )
    assert formats.write(reader(400, n=list(range(1000))), "table", io.BytesIO()) == formats.Written(1000)
    assert formats.write(reader(400, n=list(range(1001))), "table", io.BytesIO(), limit=None) == formats.Written(1001)


def test_a_table_is_whole_where_nothing_says_how_wide_it_may_be() -> None:
    line = written("table", reader(a=["x" * 500, "日" * 500])).splitlines()
    assert line[2:4] == ["x" * 500, "日" * 500]
    rows = list(range(2_500))
    text = written("table", reader(400, n=rows, a=["y" * (n // 1_000) for n in rows]), limit=None).splitlines()
    assert text[2:-1] == [f"{n:>4}  {'y' * (n // 1_000)}".rstrip() for n in rows]
    assert text[-1] == "(2,500 rows)"


def test_a_table_cuts_texts_before_it_leaves_out_columns_and_says_which_it_did() -> None:
    columns = {"id": ["f" * 32], "at": [INSTANT], "distance": [201], "note": ["日" * 40], "x": [1]}
    for width, said in ((160, ""), (80, "long values are cut"), (50, "5 columns, 3 shown"), (20, "5 columns, 1 shown")):
        text = written("table", reader(**columns), width=width)
        assert max(map(tables.width_of, text.splitlines()[:3])) <= width
        assert said in text
        assert ("…" in text) == (width < 160)
        assert text.count("\n") == (5 if said else 4)


def test_a_listing_gives_up_its_spare_columns_first_and_keeps_the_end_of_a_path() -> None:
    rows = [("a" * 20, "landing/customer/2026-11-29/part-0001.json", 1, 2)]
    text = tables.table(rows, ("name", "file", "bytes", "rows"), width=50, spare=("bytes",))
    assert text.splitlines()[0].split() == ["name", "file", "rows"]
    assert text.splitlines()[2].split()[1].startswith("…")
    assert text.splitlines()[2].split()[1].endswith("0001.json")
    assert text.splitlines()[3] == "(4 columns, 3 shown: a wider terminal or --json shows all)"


def test_no_value_looks_other_than_the_texts_that_say_so() -> None:
    cells = [None, "null", "NULL", "'NULL'", ""]
    shown = written("table", reader(5, a=cells, b=list(range(5)))).splitlines()[2:7]
    assert [line[:8].strip() for line in shown] == ["NULL", "null", "'NULL'", "''NULL''", ""]
    assert written("markdown", reader(5, a=cells)).splitlines()[2:] == [
        *("| NULL |", "| null |", "| 'NULL' |", "| ''NULL'' |", "|  |"),
    ]


def test_vertical_gives_every_value_whole_a_line_a_field() -> None:
    text = written("vertical", reader(name=["ab", None], t=["x" * 30, "日本"]), width=20)
    assert text == (
        "-- row 1 --\nname  ab\nt     xxxxxxxxxxxxxx\n      xxxxxxxxxxxxxx\n      xx\n"
        "-- row 2 --\nname  NULL\nt     日本\n(2 rows)\n"
    )


def test_markdown_escapes_what_ends_a_cell() -> None:
    assert written("markdown", reader(n=[1], a=["x|y\\\n"])) == "| n | a |\n| ---: | --- |\n| 1 | x\\|y\\\\\\\\n |\n"


def test_arrow_holds_what_was_read(tmp_path: Path) -> None:
    table = pa.table({"a": [1, None], "b": [INSTANT, None], "c": [["x"], []]})
    formats.write(table.to_reader(1), "arrow", tmp_path / "rows.arrow")
    with pa.ipc.open_file(tmp_path / "rows.arrow") as found:
        assert found.read_all() == table


def test_columns_are_chosen_by_name_and_in_order() -> None:
    assert written("csv", formats.chosen(reader(a=[1], b=[2], C=[3]), "c, a")) == "C,a\r\n3,1\r\n"
    with pytest.raises(UsageError, match="expected some of a, b; found d"):
        formats.chosen(reader(a=[1], b=[2]), "a,d")


def test_instants_are_those_of_the_time_zone_that_is_asked_for() -> None:
    winter = dt.datetime(2022, 1, 18, 23, 0, 0, 1, tzinfo=dt.UTC)
    for form, first in (("csv", "2022-06-18T19:47:24.102+02:00"), ("table", "2022-06-18T19:47:24.102+02:00")):
        text = written(form, columns.in_zone(reader(a=[INSTANT, winter, None]), "Europe/Berlin", text=True))
        assert first in text
        assert "2022-01-19T00:00:00.000001+01:00" in text
    found = columns.in_zone(reader(a=[INSTANT]), "Asia/Kolkata", text=False).read_all()
    assert (found.schema.field("a").type.tz, found["a"][0].as_py()) == ("Asia/Kolkata", INSTANT)
    with pytest.raises(UsageError, match="expected a time zone"):
        columns.in_zone(reader(a=[INSTANT]), "Mars/Olympus", text=True)


def test_listings_have_thousands_separators_and_blank_nulls() -> None:
    text = formats.table([("a", 1234567, 1.5, True), (None, None, None, False)], ("name", "rows", "seconds", "new"))
    assert text.splitlines() == [
        "name       rows  seconds  new",
        "----  ---------  -------  ---",
        "a     1,234,567     1.50  yes",
        "                          no",
    ]
    assert formats.table([], ("a", "b")) == "a  b\n-  -"


def test_a_file_appears_whole_readable_by_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("old")
    assert formats.write(reader(a=[1, 2]), formats.Format.CSV, path) == formats.Written(2)
    assert path.read_bytes() == b"a\r\n1\r\n2\r\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["rows.csv"]


def test_a_query_that_fails_half_way_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text("old")

    def batches() -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"a": [1]})
        raise QueryFailed("enough")

    source = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), batches())
    with pytest.raises(QueryFailed, match="enough"):
        formats.write(source, "json", path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["rows.json"]


@pytest.mark.parametrize("name", ["nosuch/rows.csv", "."])
def test_a_place_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(StediError, match="cannot be written"):
        formats.write(reader(a=[1]), "csv", tmp_path / name)
    assert os.listdir(tmp_path) == []


def test_a_device_is_written_to_and_not_replaced() -> None:
    assert formats.write(reader(a=[1]), "csv", Path("/dev/null")) == formats.Written(1)
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)


def test_parquet_holds_the_same_rows_and_types(tmp_path: Path) -> None:
    table = pa.table({"t": pa.array([INSTANT, None], pa.timestamp("us", "UTC")), "n": [1, 2], "s": ["a", ""]})
    assert formats.write(table.to_reader(1), "parquet", str(tmp_path / "rows.parquet")) == formats.Written(2)
    assert pq.read_table(tmp_path / "rows.parquet").equals(table)


def test_parquet_gathers_small_batches_into_large_row_groups(tmp_path: Path) -> None:
    table = pa.table({"n": pa.array(range(300_000))})
    formats.write(table.to_reader(8_192), "parquet", tmp_path / "rows.parquet")
    assert pq.ParquetFile(tmp_path / "rows.parquet").num_row_groups <= 3


def test_parquet_names_two_columns_of_one_name_apart(tmp_path: Path) -> None:
    source = pa.table([pa.array([1]), pa.array([2])], names=["a", "a"]).to_reader()
    formats.write(source, "parquet", tmp_path / "rows.parquet")
    assert pq.read_table(tmp_path / "rows.parquet").column_names == ["a", "a_2"]


def test_parquet_is_refused_for_a_terminal_and_written_to_a_pipe() -> None:
    class Terminal(io.BytesIO):
        def isatty(self) -> bool:
            return True

    with pytest.raises(UsageError, match="terminal"):
        formats.write(reader(a=[1]), "parquet", Terminal())
    pipe = io.BytesIO()
    formats.write(reader(a=[1]), "parquet", pipe)
    assert pq.read_table(io.BytesIO(pipe.getvalue())).to_pylist() == [{"a": 1}]


def test_parquet_refuses_a_type_that_it_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(QueryFailed, match="Parquet"):
        formats.write(reader(i=pa.array([pa.MonthDayNano([1, 0, 0])])), "parquet", tmp_path / "x.parquet")
    assert os.listdir(tmp_path) == []


def test_the_form_follows_the_files_name() -> None:
    assert formats.format_of(Path("a/rows.CSV")) == "csv"
    assert formats.format_of("rows.json") == "json"
    assert formats.format_of("rows.parquet") == "parquet"
    assert formats.format_of(None) == "table"
    with pytest.raises(UsageError, match="expected a name that ends in"):
        formats.format_of("rows.txt")


class Terminal(io.BytesIO):
    def isatty(self) -> bool:
        return True


ODD = "".join(map(chr, (*range(0x20), *range(0x7F, 0xA1), 0xAD, 0x61C, *range(0x200B, 0x2010), *range(0x2028, 0x202F))))
ODD += "".join(map(chr, (*range(0x2060, 0x2070), 0x3164, 0xFEFF, 0xFE0F, 0xFFF9, 0xE000, 0xE0041)))
"""Characters of ASCII's and C1's control, direction, zero width, and what no font draws."""


@pytest.mark.parametrize("form", ["table", "csv", "json"])
@pytest.mark.parametrize("column", ["plain", "list", "struct", "name"])
def test_no_character_of_the_data_reaches_a_terminal_that_it_could_steer(form: str, column: str) -> None:
    for c in ODD:
        value = f"a{c}b"
        shaped = {"plain": value, "list": [value], "struct": {"x": value}, "name": "x"}[column]
        table = pa.table({value if column == "name" else "x": [shaped]})
        formats.write(table.to_reader(), form, to := Terminal())
        text = to.getvalue().decode().replace("\r\n", "\n")
        assert not set(text) & set(ODD) - {"\n"}, (hex(ord(c)), text)
        assert text.count("\n") == {"table": 4, "csv": 2, "json": 3}[form]
        if form == "json":
            assert list(json.loads(text)[0].values()) == [shaped] or column == "name"


def test_csv_for_a_file_or_a_pipe_is_exact() -> None:
    table = pa.table({"x": [ODD]})
    formats.write(table.to_reader(), "csv", to := io.BytesIO())
    [_, [found]] = csv.reader(io.StringIO(to.getvalue().decode().removesuffix("\r\n"), newline=""))
    assert found == ODD


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])
def test_csv_safe_for_spreadsheets_begins_formulas_with_an_apostrophe(start: str) -> None:
    texts = [f"{start}1+1", f"a{start}", "", None]
    table = pa.table({f"{start}h": texts, "n": [-1, 2, 3, 4], "l": [[start], [], [], []]})
    formats.write(table.to_reader(), "csv", to := io.BytesIO(), spreadsheet=True)
    [head, *rows] = csv.reader(io.StringIO(to.getvalue().decode(), newline=""))
    assert head == [f"'{start}h", "n", "l"]
    assert [row[0] for row in rows] == [f"'{start}1+1", f"a{start}", "", ""]
    assert [row[1] for row in rows] == ["-1", "2", "3", "4"]
    formats.write(table.to_reader(), "csv", exact := io.BytesIO())
    assert exact.getvalue().decode().startswith(start) or exact.getvalue().decode().startswith(f'"{start}')


@pytest.mark.parametrize("form", ["table", "json", "parquet"])
def test_only_csv_can_be_made_safe_for_spreadsheets(form: str) -> None:
    with pytest.raises(UsageError, match="expected --format csv"):
        formats.write(pa.table({"x": [1]}).to_reader(), form, io.BytesIO(), spreadsheet=True)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(UsageError, match="table, vertical, markdown, csv, json, jsonl, parquet, arrow"):
        written("xml", reader(a=[1]))
