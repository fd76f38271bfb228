"""What other Iceberg clients wrote of somebody who is erased: it stays, is told by place, and stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import quick
from erasing import ANA, CY, NOW, Stage, erase
from lakes import build, customer, deliver, rows
from stedi.cli import main
from stedi.lake import Lake
from stedi.tables import NAMESPACE


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


def _catalog(lake: Lake) -> Any:
    from pyiceberg.catalog.sql import SqlCatalog

    return SqlCatalog("stedi", uri=f"sqlite:///{lake.catalog.path}", warehouse=f"file://{lake.root}/others")


def _of_table(lake: Lake, text: str) -> None:
    with _catalog(lake).load_table((NAMESPACE, "customers_trusted")).transaction() as change:
        change.set_properties({"owner": text, text: "owner"})


def _of_snapshot(lake: Lake, text: str) -> None:
    table = _catalog(lake).load_table((NAMESPACE, "landed_files"))
    rows = table.scan().to_arrow().slice(0, 0)
    table.append(rows, snapshot_properties={"note": text})


def _of_namespace(lake: Lake, text: str) -> None:
    _catalog(lake).update_namespace_properties(NAMESPACE, updates={"note": text})


def _namespace(lake: Lake, text: str) -> None:
    _catalog(lake).create_namespace(text.replace(".", "_"), {"of": text})


def _table(lake: Lake, text: str) -> None:
    catalog = _catalog(lake)
    catalog.create_namespace("theirs")
    rows = pa.table({"who": [text, "nobody"]})
    catalog.create_table("theirs.people", rows.schema, properties={"of": text}).append(rows)


WRITTEN: dict[str, tuple[Callable[[Lake, str], None], str]] = {
    "a table's properties": (_of_table, "customers_trusted: table properties"),
    "a snapshot's properties": (_of_snapshot, "landed_files: snapshot properties"),
    "a namespace's properties": (_of_namespace, "catalog: namespaces"),
    "a namespace": (_namespace, "catalog: namespaces"),
    "a table": (_table, "files of tables of others"),
}


@pytest.mark.parametrize("text", [ANA, f'see "{ANA.upper()}", \u00e9'], ids=["alone", "mentioned"])
@pytest.mark.parametrize("what", WRITTEN)
def test_what_another_client_wrote_stays_and_is_told_by_place_and_the_lake_works(
    stage: Stage, what: str, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, folder = stage.made()
    write, place = WRITTEN[what]
    if write is _of_snapshot:  # or the erasure makes the snapshot go
        erase(lake, ANA)
    write(lake, text)
    receipt = erase(lake, ANA)
    assert receipt["clean"], receipt["scanned"]["found"]
    assert place in receipt["removed"]["foreign"], receipt["removed"]["foreign"]
    assert ANA not in json.dumps(receipt).lower()
    assert ANA not in {row[1] for row in rows(lake, "customers_landing")}
    lake.land(deliver(folder, "customer", [customer(CY, update=800)], "later.json"))
    build(lake, NOW)
    lake.maintain()
    # what others commit to the lake's own tables has no checksum, whatever it says
    unsummed = {"checksums"} if write is _of_snapshot else set()
    assert {check.name for check in lake.audit(files=True) if check.found} <= unsummed
    assert main(["--lake", str(lake.root), "erase", "--yes", ANA]) == 1
    told = "".join(capsys.readouterr())
    assert place in told
    assert ANA not in told.lower()


def test_a_table_of_others_that_claims_a_folder_of_the_lake_hides_nothing(stage: Stage) -> None:
    from stedi.erasure.foreign import _folder

    lake, _ = stage.made()
    for inside in ("", "landing", "landing/customers_landing", "landing/customers_landing/data/x", "tmp", "receipts"):
        assert _folder(lake.root, f"file://{lake.root / inside}/metadata/1.metadata.json") == []
    assert _folder(lake.root, f"file://{lake.root}/../elsewhere/metadata/1.metadata.json") == []
    assert _folder(lake.root, f"file://{lake.root}/others/t/metadata/1.metadata.json") == [Path(lake.root, "others/t")]
