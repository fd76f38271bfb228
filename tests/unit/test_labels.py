"""Labels are read strictly, tied to customers, and given to moments and windows by the stated rules."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deliveries import DAWN
from stedi.datasets import due, labels
from stedi.engines.duckdb import DuckDB
from stedi.errors import UsageError

ADDRESS = "Ann@x.example"
HEADER = "email,start,end,instant,label"


PEOPLE = {"a": 1, "b": 2}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDB]:
    with DuckDB(memory="200MB", threads=2, temporary=tmp_path_factory.mktemp("engine")) as opened:
        yield opened


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, "utf-8")
    return path


def pseudonym(address: str) -> str:
    return f"id of {address.strip().lower()}"


def loaded(
    engine: DuckDB, *rows: tuple[str, int, int | None, str], people: Mapping[str, int] = PEOPLE
) -> labels.Loaded:
    of_file = tuple(labels.Label("customer_id", who, start, end, label) for who, start, end, label in rows)
    return labels.load(engine, labels.LabelFile(of_file, ""), pseudonym, people, {})


def proved(engine: DuckDB, *rows: tuple[str, int, int | None, str]) -> labels.LabelFile:
    """Loads the same labels as the proof does."""
    of_file = labels.LabelFile(tuple(labels.Label("customer_id", *row) for row in rows), "")
    engine.insert_rows(
        "allowed", {"person": "integer", "customer_id": "varchar"}, [(n, who) for who, n in PEOPLE.items()]
    )
    engine.materialize("step_trainer_trusted", "select '' as serialNumber, '' as customer_id where false")
    due.labels(engine, of_file, pseudonym)
    return of_file


# --- reading ---


def test_the_same_labels_are_read_from_every_format(tmp_path: Path) -> None:
    spoken = datetime.fromtimestamp((DAWN + 5) / 1000, UTC)
    csv = written(tmp_path, f"{HEADER}\n{ADDRESS},{DAWN},{DAWN + 9},,walking\n{ADDRESS},,,{spoken.isoformat()},step\n")
    rows = [
        {"User": ADDRESS, "start": DAWN, "END": DAWN + 9, "label": "walking", "noise": [1]},
        {"email": ADDRESS, "instant": spoken.isoformat(), "label": " step "},
    ]
    lines = written(tmp_path, "".join(f"{json.dumps(row)}\n" for row in rows), "labels.jsonl")
    columns = {
        "email": [ADDRESS, ADDRESS],
        "start": pa.array([DAWN, None], pa.timestamp("ms", "UTC")),
        "end": pa.array([DAWN + 9, None], pa.timestamp("ms", "UTC")),
        "instant": pa.array([None, DAWN + 5], pa.timestamp("ms", "Europe/Berlin")),
        "label": ["walking", "step"],
    }
    pq.write_table(pa.table(columns), tmp_path / "labels.parquet")
    nanoseconds = {**columns, "instant": pa.array([None, (DAWN + 5) * 1_000_000 + 7], pa.timestamp("ns", "UTC"))}
    pq.write_table(pa.table(nanoseconds), tmp_path / "finer.parquet")
    expected = (
        labels.Label("email", ADDRESS, DAWN, DAWN + 9, "walking"),
        labels.Label("email", ADDRESS, DAWN + 5, None, "step"),
    )
    for path in (csv, lines, tmp_path / "labels.parquet", tmp_path / "finer.parquet"):
        assert labels.read(path).labels == expected
    assert len({labels.read(path).sha256 for path in (csv, lines)}) == 2


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        (f",{DAWN},{DAWN + 1},,walking", "expected one of email, customer_id and serialNumber, found none"),
        (f"{ADDRESS},{DAWN},,,walking", "expected start and end, or an instant, found start"),
        (f"{ADDRESS},,,,walking", "expected start and end, or an instant, found neither"),
        (f"{ADDRESS},{DAWN},{DAWN + 1},{DAWN},walking", "found start and end and instant"),
        (f"{ADDRESS},{DAWN},{DAWN},,walking", "expected the end after the start"),
        (f"{ADDRESS},{DAWN // 1000},{DAWN},,walking", "start: expected epoch milliseconds.*are these seconds?"),
        (f"{ADDRESS},,,2026-11-28T10:00:00,step", "instant: expected .* found a time without an offset"),
        (f"{ADDRESS},,,yesterday,step", "instant: expected .* found other text"),
        (f"{ADDRESS},,,{DAWN}.5,step", "instant: expected .* found other text"),
        (f"{ADDRESS},{DAWN},{DAWN + 1},,", "label: expected text, found none"),
        (f"{ADDRESS},{DAWN},{DAWN + 1},,with {ADDRESS}", "label: .* without '@'"),
        (f"{ADDRESS},{DAWN},{DAWN + 1},,{'x' * 101}", "label: expected up to 100 printable characters"),
        (f"{ADDRESS},{DAWN},{DAWN + 1}", "expected 5 values, found 3"),
        (f'{ADDRESS},{DAWN},{DAWN + 1},,"walking', "expected CSV"),
    ],
)
def test_a_bad_row_is_named_by_its_number_and_tells_nobodys_data(tmp_path: Path, row: str, complaint: str) -> None:
    path = written(tmp_path, f"{HEADER}\n{ADDRESS},,,{DAWN},step\n{row}\n")
    with pytest.raises(UsageError, match=complaint) as raised:
        labels.read(path)
    assert str(raised.value).startswith(("labels: labels.csv, row 2: ", "labels: labels.csv, line 3: "))
    for private in (ADDRESS, str(DAWN), "walking", "yesterday"):
        assert private not in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_parquet_time_without_a_zone_is_refused_and_not_guessed(tmp_path: Path) -> None:
    row = {"email": [ADDRESS], "instant": pa.array([DAWN * 1_000_000 + 1], pa.timestamp("ns")), "label": ["step"]}
    pq.write_table(pa.table(row), tmp_path / "labels.parquet")
    with pytest.raises(UsageError, match=r"row 1: instant: expected .* found a time without an offset"):
        labels.read(tmp_path / "labels.parquet")


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("labels.txt", b"", "expected a name that ends in .csv"),
        ("labels.csv", b"", "expected rows, found none"),
        ("labels.csv", HEADER.encode(), "expected rows, found none"),
        ("labels.csv", b"email\n\xff\n", "expected UTF-8"),
        ("labels.jsonl", b"[1]\n", "row 1: expected one JSON object a line"),
        ("labels.jsonl", b'{"a":\n', "row 1: expected one JSON object a line"),
        ("labels.jsonl", b"[" * 100_000, "row 1: expected one JSON object a line"),
        ("labels.jsonl", b'[{"a": 1}]', "row 1: expected one JSON object a line"),
        ("labels.parquet", b"PAR1", "expected a Parquet file"),
        ("missing.csv", None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_has_no_labels_is_refused(tmp_path: Path, name: str, content: bytes | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=complaint):
        labels.read(tmp_path / name)


@pytest.mark.parametrize("other", ["user", "email", "Email"])
@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_column_given_twice_is_refused(tmp_path: Path, ending: str, other: str) -> None:
    names, values = ["email", other, "instant", "label"], [ADDRESS, "else@x.example", DAWN, "step"]
    path = tmp_path / f"labels.{ending}"
    if ending == "csv":
        path.write_text(f"{','.join(names)}\n{','.join(map(str, values))}\n")
    elif ending == "jsonl":
        pairs = (f"{json.dumps(name)}: {json.dumps(value)}" for name, value in zip(names, values, strict=True))
        path.write_text(f"{{{', '.join(pairs)}}}\n")
    else:
        pq.write_table(pa.Table.from_arrays([pa.array([value]) for value in values], names), path)
    with pytest.raises(UsageError, match="row 1: expected email once, found it twice"):
        labels.read(path)


# --- whose they are ---


def test_a_person_is_named_by_address_pseudonym_or_device_and_strangers_are_counted(
    engine: DuckDB,
) -> None:
    rows = (
        labels.Label("email", " ANN@x.example", 10, None, "step"),
        labels.Label("customer_id", "b", 20, None, "step"),
        labels.Label("serialNumber", "one's", 30, None, "step"),
        labels.Label("serialNumber", "two's", 40, None, "step"),
        labels.Label("serialNumber", "nobody's", 50, None, "step"),
        labels.Label("email", "stranger@x.example", 60, None, "step"),
        labels.Label("email", "stranger@x.example", 70, 80, "walking"),
    )
    mine = pseudonym(ADDRESS)
    done = labels.load(
        engine, labels.LabelFile(rows, ""), pseudonym, {mine: 1, "b": 2}, {"one's": {mine}, "two's": {mine, "b"}}
    )
    assert (done.instants, done.spans, done.elsewhere, done.people_elsewhere, done.ambiguous) == (3, 0, 3, 2, 1)
    assert engine.rows(f"select person, ms from {labels.INSTANTS} order by all") == [(1, 10), (1, 30), (2, 20)]


def test_what_is_loaded_has_no_address_and_no_serial_number(engine: DuckDB) -> None:
    loaded(engine, ("a", 0, 10, "walking"))
    columns = {
        table: [column for column, *_ in engine.rows(f"describe {table}")] for table in (labels.SPANS, labels.INSTANTS)
    }
    assert columns == {
        labels.SPANS: ["person", "starts", "ends", "label"],
        labels.INSTANTS: ["person", "ms", "label"],
    }


def test_columns_follow_from_the_file_whoever_is_in_the_release(engine: DuckDB) -> None:
    rows = (("a", 0, 10, "walking"), ("a", 5, None, "step"))
    for people in ({"a": 1}, {"b": 2}, {}):
        assert loaded(engine, *rows, people=people).columns == ("label", "events")


# --- spans of one person ---


@pytest.mark.parametrize("seed", range(20))
def test_at_every_moment_the_span_that_started_last_holds(seed: int) -> None:
    rng = Random(seed)
    spans = [(start, start + rng.randint(1, 30), rng.choice("abc")) for start in (rng.randrange(60) for _ in range(12))]
    found = labels.disjoint(spans)
    assert all(before[1] <= after[0] for before, after in pairwise(found))
    for moment in range(100):
        assert [label for start, end, label in found if start <= moment < end] == held(spans, moment), seed


def held(spans: list[tuple[int, int, str]], moment: int) -> list[str]:
    over = [(-start, label) for start, end, label in spans if start <= moment < end]
    return [min(over)[1]] if over else []


# --- moments and windows, beside plain Python ---


def drawn(rng: Random, *, spans: bool, instants: bool) -> list[tuple[str, int, int | None, str]]:
    rows: list[tuple[str, int, int | None, str]] = []
    for who in "ab":
        if spans:
            rows += [(who, at, at + rng.randint(1, 25), rng.choice("xyz")) for at in rng.sample(range(100), 4)]
        if instants:
            rows += [(who, at, None, rng.choice("pq")) for at in rng.sample(range(100), 8)]
    return rows


KINDS = pytest.mark.parametrize(("spans", "instants"), [(True, True), (True, False), (False, True)])


@KINDS
@pytest.mark.parametrize("seed", range(4))
def test_moments_get_the_label_and_the_events_of_the_rule(
    engine: DuckDB, seed: int, spans: bool, instants: bool
) -> None:
    rng = Random(seed)
    rows = drawn(rng, spans=spans, instants=instants)
    done = loaded(engine, *rows)
    moments = {who: sorted(rng.sample(range(100), 12)) for who in PEOPLE}
    source = ((PEOPLE[who], time) for who, times in moments.items() for time in times)
    engine.insert_rows("moments", {"person": "integer", "ms": "bigint"}, source)
    sql = labels.of_moments("moments", done)
    assert [name for name, *_ in engine.rows(f"describe {sql}")] == ["person", "ms", *done.columns]
    expected = []
    for who, times in moments.items():
        nearest = [
            (min(times, key=lambda time: (abs(time - at), time)), label)
            for name, at, end, label in rows
            if name == who and end is None
        ]
        of_person = [(start, end, label) for name, start, end, label in rows if name == who and end is not None]
        for time in times:
            here = sorted(label for at, label in nearest if at == time)
            label = next(iter(held(of_person, time) if spans else here), None)
            expected.append((PEOPLE[who], time, label, *([len(here)] if instants else [])))
    assert sorted(engine.rows(sql), key=lambda row: row[:2]) == expected
    proof = due.labels_of_moments("moments", proved(engine, *rows))
    assert [row[: 4 if instants else 3] for row in engine.rows(f"{proof} order by all")] == expected


@KINDS
@pytest.mark.parametrize("seed", range(4))
def test_windows_get_the_label_that_covers_most_and_the_times_of_their_events(
    engine: DuckDB, seed: int, spans: bool, instants: bool
) -> None:
    rng = Random(seed)
    rows = drawn(rng, spans=spans, instants=instants)
    done = loaded(engine, *rows)
    windows = [(who, start, start + 20) for who in PEOPLE for start in range(0, 100, 10)]
    source = ((PEOPLE[who], start, end) for who, start, end in windows)
    engine.insert_rows("windows", {"person": "integer", "starts": "bigint", "ends": "bigint"}, source)
    sql = labels.of_windows("windows", done)
    assert [name for name, *_ in engine.rows(f"describe {sql}")] == ["person", "starts", "ends", *done.columns]
    expected = []
    for who, start, end in windows:
        of_person = [(at, to, label) for name, at, to, label in rows if name == who and to is not None]
        covered = [label for moment in range(start, end) for label in held(of_person, moment)]
        within = sorted((at, label) for name, at, to, label in rows if name == who and to is None and start <= at < end)
        over = covered if spans else [label for _, label in within]
        most = min(set(over), key=lambda label: (-over.count(label), label), default=None)
        if spans and most is not None and over.count(most) < 20 - len(covered):
            most = None
        expected.append((PEOPLE[who], start, end, most, *([[at - start for at, _ in within]] if instants else [])))
    assert sorted(engine.rows(sql)) == expected
    engine.view("begins", "select person, starts as ms from windows")
    proof = due.labels_of_windows("begins", 20, proved(engine, *rows))
    by_start = [(person, start, *rest) for person, start, _, *rest in expected]
    assert [row[: 4 if instants else 3] for row in engine.rows(f"{proof} order by all")] == by_start
