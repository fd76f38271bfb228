"""What other Iceberg clients wrote of somebody who is erased: it stays, is told by place, and stops nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyiceberg.utils.config import Config

import quick
import rest_catalog
from deliveries import customer, deliver
from effort import at_night
from erasing import ANA, CY, NOW, Stage, erase
from lakes import build, rows
from stedi.cli import main
from stedi.erasure import foreign
from stedi.errors import LakeError
from stedi.lake import Lake
from stedi.schema.tables import NAMESPACE


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
@pytest.mark.sample(full=5)
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


def test_what_others_wrote_is_judged_before_anything_goes_and_no_catalog_stops_an_erasure_after_that(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake, _ = stage.made()
    _of_namespace(lake, ANA)
    assert lake.preview_erasure(ANA).foreign == {"catalog: namespaces": 1}
    assert main(["--lake", str(lake.root), "erase", "--dry-run", ANA]) == 0
    assert "catalog: namespaces: 1 mention of them stay" in capsys.readouterr().err
    before, read = rows(lake, "customers_landing"), foreign.read
    for fails_at in (1, 2):
        calls: list[int] = []

        def failing(*given: Any, calls: list[int] = calls, at: int = fails_at) -> foreign.Foreign:
            calls.append(1)
            if len(calls) == at:
                raise LakeError("the catalog is gone")
            return read(*given)

        with monkeypatch.context() as patch:
            patch.setattr(foreign, "read", failing)
            if fails_at == 1:
                with pytest.raises(LakeError, match="the catalog is gone"):
                    erase(lake, ANA)
                assert not (lake.root / "erasing.json").exists()
                assert rows(lake, "customers_landing") == before
            else:
                receipt = erase(lake, ANA)
    assert receipt["removed"]["foreign"]["catalog: namespaces"] == 1
    assert "catalog" in receipt["scanned"]["not_opened"]
    assert not (lake.root / "erasing.json").exists()
    build(lake, NOW)


@pytest.fixture(params=["glue", pytest.param("rest", marks=at_night)])
def remote(
    request: pytest.FixtureRequest, bucket: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Lake]:
    """A lake in a bucket, with a catalog that others write to."""
    with ExitStack() as stack:
        if request.param == "rest":
            monkeypatch.setenv("PYICEBERG_CATALOG__STEDI__TYPE", "rest")
            url = stack.enter_context(rest_catalog.running(tmp_path))
            monkeypatch.setenv("PYICEBERG_CATALOG__STEDI__URI", url)
            monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
        yield Lake.create(f"s3://{bucket}/lake")


@pytest.mark.thorough
def test_what_others_wrote_in_a_catalog_in_the_cloud_is_told_by_place(
    remote: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = remote
    lake.land(deliver(tmp_path / "inbox", "customer", [customer(ANA), customer(CY)]))
    assert lake.catalog.remote is not None
    catalog = lake.catalog.remote._catalog
    catalog.create_namespace("theirs", {"comment": f"ask {ANA}"})
    location = lake.catalog.listed()["landed_files"]
    for name in (ANA, "plain"):
        catalog.register_table(("theirs", name), location)
    with catalog.load_table((NAMESPACE, "customers_landing")).transaction() as change:
        change.set_properties({"owner": ANA})
    wanted = {"catalog: namespaces": 1, "catalog: tables of others": 1, "customers_landing: table properties": 1}
    assert lake.preview_erasure(ANA).foreign == wanted
    assert main(["--lake", str(lake.root), "--json", "erase", "--yes", ANA]) == 1
    receipt = json.loads(capsys.readouterr().out)
    assert receipt["clean"], receipt["scanned"]["found"]
    assert receipt["removed"]["foreign"] == wanted
    assert receipt["scanned"]["not_opened"] == []
    assert ANA not in json.dumps(receipt)

    listed = catalog.list_tables

    def refused(*asked: object) -> Any:
        if asked == (NAMESPACE,):  # as the lake asks for its own
            return listed(NAMESPACE)
        raise PermissionError("not yours")

    with monkeypatch.context() as patch:  # a role that may see its own tables alone
        patch.setattr(catalog, "list_namespaces", refused)
        patch.setattr(catalog, "list_tables", refused)
        monkeypatch.setattr(type(lake.catalog.remote), "_catalog", catalog)
        [again] = lake.erase(CY)
    assert again.clean
    assert again.scanned["not_opened"] == ["catalog: namespaces", "catalog: tables of others"]
    lake.build()


def _described(table: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Returns what Glue says of a table, with changes, as it takes it."""
    taken = ("Name", "Description", "Owner", "StorageDescriptor", "TableType", "Parameters")
    return {name: value for name, value in {**table, **changes}.items() if name in taken}


@pytest.mark.parametrize("remote", ["glue"], indirect=True)
@pytest.mark.thorough
def test_what_glue_alone_says_of_tables_is_looked_at(remote: Lake, tmp_path: Path) -> None:
    """Descriptions, parameters and comments of columns, of the lake's tables and of tables that are not Iceberg's."""
    lake = remote
    lake.land(deliver(tmp_path / "inbox", "customer", [customer(ANA), customer(CY)]))
    assert lake.catalog.remote is not None
    glue = lake.catalog.remote._glue
    table = glue.get_table(DatabaseName=NAMESPACE, Name="customers_trusted")["Table"]
    changed = _described(table, Description=f"ask {ANA}", Parameters={**table["Parameters"], "steward": ANA})
    changed["StorageDescriptor"]["Columns"][0]["Comment"] = f"as {ANA} has it"
    glue.update_table(DatabaseName=NAMESPACE, TableInput=changed)
    glue.create_database(DatabaseInput={"Name": "theirs"})
    hive = {"Name": "people", "StorageDescriptor": {"Columns": [{"Name": "who", "Type": "string", "Comment": ANA}]}}
    glue.create_table(DatabaseName="theirs", TableInput=hive)
    view = {"Name": "one", "TableType": "VIRTUAL_VIEW", "ViewOriginalText": f"select 1 where who = '{ANA}'"}
    glue.create_table(DatabaseName="theirs", TableInput=view)
    wanted = {"catalog: entries of the lake's tables": 3, "catalog: tables of others": 2}
    assert lake.preview_erasure(ANA).foreign == wanted
    [receipt] = lake.erase(ANA)
    assert (receipt.clean, receipt.removed["foreign"], receipt.scanned["not_opened"]) == (True, wanted, [])
    lake.build()
    again = glue.get_table(DatabaseName=NAMESPACE, Name="customers_trusted")["Table"]
    assert again["Parameters"]["steward"] == ANA  # it is theirs to change
