"""A landing by the scanner and one without it are the same landing: every row, reject and count, and nobody erased."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.conversions import from_bytes
from pyiceberg.types import BinaryType, DoubleType, LongType, StringType

from deliveries import customer, deliver, motion, step
from lakes import LANDING, conserved, rows
from stedi.lake import Lake
from stedi.landing import Landing, sample
from stedi.landing.reader import scanner
from stedi.schema.tables import COLUMNS, NAMESPACE

pytestmark = pytest.mark.skipif(
    scanner.library() is None, reason="the scanner is not compiled (`make`, with a C compiler)"
)

ANN, BOB = "ann@x.example", "Böb@x.example"


@pytest.fixture(scope="module")
def lands(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Lake, list[Landing]]]:
    """Two lakes in which the same was landed and the same customer erased, by the scanner and without it."""
    folder = tmp_path_factory.mktemp("scanned")
    sample.write(folder / "sample", customers=30, readings=2000, seed=11, dirty=True)
    deliver(folder / "first", "customer", [customer(ANN), customer(BOB, serialNumber="s2")])
    deliver(folder / "again", "customer", [customer(ANN, customerName="Ann A"), customer(BOB, phone=f"not {ANN}")])
    deliver(folder / "again", "accelerometer", [motion(ANN), motion(BOB), {**motion(BOB, 101), "of": ANN}])
    deliver(folder / "again", "step_trainer", [step(), step(serial="s2"), step(at=0)])
    found = {}
    for name in ("scanner", "typed reader"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("STEDI_PSEUDONYM_KEY", "5d" * 32)
            if name != "scanner":
                patch.setattr(scanner, "library", lambda: None)
            lake = Lake.create(folder / name)
            landed = [lake.land(folder / "sample"), lake.land(folder / "first")]
            lake.erase(ANN)
            landed.append(lake.land(folder / "again"))
            found[name] = lake, landed
    return found


def test_both_ways_land_the_same(lands: dict[str, tuple[Lake, list[Landing]]]) -> None:
    (scanned, by_scanner), (read, by_reader) = lands.values()
    conserved(scanned)
    for table in LANDING:
        assert rows(scanned, table) == rows(read, table), table
    for table in ("quarantine", "landed_files"):  # but for the batch, and when it landed
        one, other = (sorted(repr(row[:-2]) for row in rows(lake, table).elements()) for lake in (scanned, read))
        assert one == other, table
    for made, expected in zip(by_scanner, by_reader, strict=True):
        assert made.files == expected.files
        assert (made.drift, made.odd, made.skipped) == (expected.drift, expected.odd, expected.skipped)
    assert by_scanner[0].quarantined > 0
    assert by_scanner[2].erased == 4  # two of them readings of a device that nobody else claimed


@pytest.mark.parametrize("astray", [False, True])
def test_a_file_in_pieces_is_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, astray: bool) -> None:
    monkeypatch.setenv("STEDI_ENGINE_THREADS", "2")
    scan = importlib.import_module("stedi.landing.scan")
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", "5d" * 32)
    lines = [json.dumps(motion(ANN, at)) for at in range(100)]
    lines[7:90:9] = ['{"user": "cut'] * 10
    if astray:  # records in a record: a piece that began there would begin within it
        lines[50] = json.dumps({**motion(ANN, 50), "of": [motion(BOB, 50)] * 60})
    folder = tmp_path / "accelerometer"
    folder.mkdir()
    (folder / "a.json").write_text(("" if astray else "\n").join(lines))
    begun, discarded, found = [], [], []
    monkeypatch.setattr(scan, "_pieces", lambda file, pieces=scan._pieces: begun.append(pieces(file)) or begun[-1])
    monkeypatch.setattr(scan._Run, "discard", lambda run, discard=scan._Run.discard: discarded.append(discard(run)))
    for size in (1 << 30, 1000):
        monkeypatch.setattr(scan, "_PIECE", size)
        monkeypatch.setattr(scan, "_SHARE", 1000)
        lake = Lake.create(tmp_path / str(size))
        lake.land(folder)
        landed = (
            rows(lake, "accelerometer_landing"),
            *(sorted(repr(row[:-2]) for row in rows(lake, name).elements()) for name in ("quarantine", "landed_files")),
        )
        found.append(landed)
    assert found[0] == found[1]
    assert [len(pieces) > 3 for pieces in begun] == [False, True]
    assert len(found[0][1]) >= 10
    assert len(discarded) == astray


def test_no_page_of_a_file_holds_a_text_of_an_erased_customer(
    lands: dict[str, tuple[Lake, list[Landing]]],
) -> None:
    lake, _ = lands["scanner"]
    for table in LANDING:
        texts = [column.name for column in COLUMNS[table] if column.type == "string"]
        for file in lake.catalog.files(lake.catalog.table(table)):
            read = pq.read_table(file.path, read_dictionary=texts)
            for name in texts:
                held = {text for chunk in read.column(name).chunks for text in chunk.dictionary.to_pylist()}
                assert not {text for text in held if text and ANN in text}


def test_manifests_say_of_files_what_is_in_them(lands: dict[str, tuple[Lake, list[Landing]]]) -> None:
    for lake, _ in lands.values():
        for name in (*LANDING, "quarantine", "landed_files"):
            table = SqlCatalog("stedi", uri=f"sqlite:///{lake.catalog.path}").load_table((NAMESPACE, name))
            for file in (task.file for task in table.scan().plan_files()):
                read = pq.read_table(file.file_path.removeprefix("file://"))
                assert file.record_count == read.num_rows
                for field in table.schema().fields:
                    column, place = read.column(field.name), (name, field.name)
                    nulls = file.null_value_counts.get(field.field_id)
                    assert nulls in (None, column.null_count), place
                    for bounds, least in ((file.lower_bounds, pc.min(column)), (file.upper_bounds, pc.max(column))):
                        if isinstance(field.field_type, StringType | BinaryType):
                            assert field.field_id not in bounds, place
                        elif field.field_id in bounds and isinstance(field.field_type, LongType | DoubleType):
                            assert from_bytes(field.field_type, bounds[field.field_id]) == least.as_py(), place


def test_other_engines_find_the_rows_without_a_value(lands: dict[str, tuple[Lake, list[Landing]]]) -> None:
    for lake, _ in lands.values():
        for name in LANDING:
            table = SqlCatalog("stedi", uri=f"sqlite:///{lake.catalog.path}").load_table((NAMESPACE, name))
            whole = table.scan().to_arrow()
            for column in whole.column_names:
                without = table.scan(row_filter=f"{column} is null").to_arrow().num_rows
                assert without == whole.column(column).null_count, (name, column)
