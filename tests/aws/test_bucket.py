"""A lake in a bucket is a lake: the same verbs, the same tables, the same promises, in Glue or another catalog."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from pyiceberg.utils.config import Config

import buckets
import forks
import lakes
import rest_catalog
import servers
from deliveries import customer, deliver, motion, step
from lakes import BELOW_LANDING, LANDING
from stedi import cli
from stedi.catalog import Catalog, remote
from stedi.catalog.manifests import sizes
from stedi.catalog.remote import Remote
from stedi.engines.duckdb import DuckDB
from stedi.erasure import deliveries as rewriting
from stedi.errors import DamagedFile, LakeBusy, LakeError
from stedi.lake import Lake
from stedi.landing import reader
from stedi.landing.deliveries import local
from stedi.landing.deliveries import remote as remote_deliveries
from stedi.privacy import receipts, secrets_manager
from stedi.query import visible
from stedi.storage import s3
from stedi.storage.s3 import S3Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ANA, BO, CY = "ana@test.example", "bo@test.example", "cy@test.example"


@pytest.fixture(params=["glue", "postgres", "rest"])
def catalog(
    request: pytest.FixtureRequest, aws: servers.Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[str]:
    """What the tables of a lake in a bucket are entered in."""
    kind = str(request.param)
    with ExitStack() as stack:
        if kind == "postgres":
            url = request.getfixturevalue("postgres")
            _emptied(url)
        elif kind == "rest":
            url = stack.enter_context(rest_catalog.running(tmp_path))
        if kind != "glue":
            monkeypatch.setenv("PYICEBERG_CATALOG__STEDI__TYPE", {"postgres": "sql"}.get(kind, kind))
            monkeypatch.setenv("PYICEBERG_CATALOG__STEDI__URI", url)
            # it was read when PyIceberg was imported
            monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
        yield kind


def _emptied(url: str) -> None:
    from sqlalchemy import create_engine, text

    engine = create_engine(url)
    with engine.begin() as connection:
        for table in ("iceberg_tables", "iceberg_namespace_properties"):
            connection.execute(text(f"drop table if exists {table}"))
    engine.dispose()


@pytest.fixture(scope="module")
def slate(s3_store: servers.Server, tmp_path_factory: pytest.TempPathFactory) -> buckets.Slate:
    return buckets.Slate(s3_store, tmp_path_factory.mktemp("worlds"))


@pytest.fixture
def bucket(aws: servers.Server, slate: buckets.Slate) -> str:
    """The name of an empty bucket."""
    return slate.emptied()


@pytest.fixture
def lake(bucket: str, slate: buckets.Slate) -> Lake:
    """A new lake in that bucket."""
    return slate.made(bucket)


@pytest.fixture
def built(bucket: str, slate: buckets.Slate) -> Lake:
    """A lake of two in that bucket, landed and built."""
    return slate.made(bucket, of_two)


def of_two(lake: Lake) -> None:
    with tempfile.TemporaryDirectory() as folder:
        lake.land(people(Path(folder) / "inbox", ANA, BO))
    lakes.build(lake)


def sent(folder: Path, prefix: str) -> str:
    """Copies a folder into a bucket, and returns where it is."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    s3.upload((path, s3.at(prefix) / str(path.relative_to(folder))) for path in files)
    return prefix


def people(folder: Path, *addresses: str) -> Path:
    """Some consenting customers with a device each, one reading of both kinds at three moments."""
    for n, address in enumerate(addresses):
        who = customer(address, serialNumber=device(address), customerName=f"Name of {address}")
        deliver(folder, "customer", [who], f"{n}.json")
        deliver(folder, "accelerometer", [motion(address, at) for at in (100, 101, 102)], f"{n}.json")
        deliver(folder, "step_trainer", [step(device(address), at) for at in (100, 101, 102)], f"{n}.json")
    return folder


def device(address: str) -> str:
    return f"device-of-{address.partition('@')[0]}"


def keys(prefix: str) -> set[str]:
    return {str(found.path) for found in s3.listing(s3.at(prefix))}


def test_a_lake_in_a_bucket_has_the_rows_of_one_in_a_folder(
    catalog: str, bucket: str, new_lake: Callable[..., Lake], sample_inbox: Path
) -> None:
    here, there = new_lake(), Lake.create(f"s3://{bucket}/deep/lake")
    for lake in (here, there):
        landing = lake.land(sample_inbox)
        assert (landing.seen, landing.skipped) == (here.land(sample_inbox).seen, landing.skipped)
        lakes.build(lake)
    assert lakes.contents(there) == lakes.contents(here)
    assert any(lakes.contents(there).values())
    assert {name: lakes.records(there, name) for name in LANDING} == {
        name: lakes.records(here, name) for name in LANDING
    }
    assert lakes.rows(there, "quarantine").total() == lakes.rows(here, "quarantine").total() > 0
    lakes.conserved(there)
    again = Lake.open(f"s3://{bucket}/deep/lake")
    assert [change.action for change in lakes.build(again).tables] == ["none"] * len(BELOW_LANDING)
    count = again.query("select count(*) as n from machine_learning_curated").arrow().to_pylist()
    assert count == [{"n": lakes.rows(here, "machine_learning_curated").total()}]
    assert not any(check.violations for check in again.prove().checks)
    assert not any(check.found for check in again.audit(files=True))


def test_one_table_is_looked_up_without_the_others(catalog: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake.create(f"s3://{bucket}/lake")
    with monkeypatch.context() as patch:
        patch.setattr(Remote, "listed", lambda self: pytest.fail("it asked for every table"))
        assert lake.catalog.table("landed_files").name == "landed_files"
    Remote(lake.root).drop("quarantine")
    for name in ("quarantine", "nobodys"):
        with pytest.raises(LakeError, match=f"no table {name}: expected one of .*landed_files"):
            lake.catalog.table(name)
    with pytest.raises(LakeError, match="of another lake"):
        Catalog(s3.at(f"s3://{bucket}/other")).table("landed_files")


def test_it_follows_what_changes_and_maintenance_loses_nothing(built: Lake, tmp_path: Path) -> None:
    lake = built
    lake.land(people(tmp_path / "two", CY))
    lake.withdraw(BO)
    later = lakes.build(lake)
    assert {change.action for change in later.tables} <= {"append", "by-customer"}
    assert lakes.rows(lake, "machine_learning_curated").total() == 6
    before = lakes.contents(lake)
    config = lake.config
    lake.context.config = type(config)(
        **{**{name: getattr(config, name) for name in config.__slots__}, "grace_hours": 0.0, "keep_days": 0.0,
           "keep_snapshots": 1}
    )  # fmt: skip
    done = lake.maintain()
    assert sum(removed.files for table in done.tables for removed in table.removed.values()) > 0
    assert lakes.contents(lake) == before
    there = keys(str(lake.root))
    assert {file.path for name in before for file in lake.catalog.files(lake.catalog.table(name))} <= there
    assert not any(check.found for check in lake.audit(files=True))
    lakes.build(lake, full=True)
    assert lakes.contents(lake) == before


def test_what_is_named_in_s3_lands_once_and_what_is_known_is_not_fetched(
    lake: Lake, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = sent(people(tmp_path / "inbox", ANA), f"s3://{bucket}/inbox")
    first = lake.land(inbox)
    assert [file.name for file in first.files] == [
        f"inbox/{feed}/0.json" for feed in ("accelerometer", "customer", "step_trainer")
    ]
    fetched: list[str] = []
    download = s3.download
    monkeypatch.setattr(s3, "download", lambda path, *a, **k: (fetched.append(path.name), download(path, *a, **k)))
    sent(people(tmp_path / "more", BO, CY), f"s3://{bucket}/inbox/later")
    second = lake.land(inbox)
    assert len(fetched) == 6, "only what is new is fetched"
    assert {(file.name, file.already_landed) for file in second.files if "later" not in file.name} == {
        (file.name, True) for file in first.files
    }
    assert second.accepted == first.accepted + 14
    assert [file.sha256 for file in lake.land(f"{inbox}/customer/*.json").files] == [first.files[1].sha256]
    assert lake.land(f"s3://{bucket}/**/1.json").accepted == 7
    assert lake.land(f"{inbox}/customer/0.json").files[0].already_landed
    lakes.conserved(lake)
    remote_deliveries.remove_seen(lake.root)
    fetched.clear()
    assert all(file.already_landed for file in lake.land(inbox).files)
    assert len(fetched) == 9, "what is not remembered is looked at"


def test_what_is_known_of_one_prefix_stays_known_when_others_land(
    lake: Lake, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_deliveries, "_PARTS", 1)
    one = sent(people(tmp_path / "one", ANA), f"s3://{bucket}/one")
    lake.land(one)
    for name, who in (("two", BO), ("three", CY)):
        lake.land(sent(people(tmp_path / name, who), f"s3://{bucket}/{name}"))
    s3.remove([s3.at(f"{one}/customer/0.json")])
    lake.land(sent(people(tmp_path / "one", BO, CY), f"s3://{bucket}/one/later"))
    with monkeypatch.context() as patch:
        patch.setattr(s3, "download", lambda path, *_, **__: pytest.fail(f"{path} was fetched again"))
        assert len(lake.land(one, f"s3://{bucket}/two", f"s3://{bucket}/three").files) == 14
    s3.remove([s3.at(f"s3://{bucket}/two/customer/0.json")])
    sent(people(tmp_path / "last", "di@test.example"), f"{one}/last")
    lake.land(one)
    sent(people(tmp_path / "more", "ed@test.example"), f"s3://{bucket}/two/more")
    lake.land(f"s3://{bucket}/two/**/0.json")
    known = {name for name in remote_deliveries.SeenObjects(lake.root)._seen if name.endswith("/customer/0.json")}
    there = ("one/later", "one/last", "two/more", "three")
    assert known == {f"s3://{bucket}/{folder}/customer/0.json" for folder in there}, "what is gone is forgotten"


def test_a_glob_in_a_bucket_matches_what_it_matches_in_a_folder(bucket: str, tmp_path: Path) -> None:
    inbox = (tmp_path / "inbox").resolve()
    for name in ("a/1.json", "a/b/2.json", "a.1.json", "ab1.json", "c/.4.json", "[a]/5.json"):
        path = inbox / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    there = sent(inbox, f"s3://{bucket}/inbox")
    one = ("*", "a?1.json", "a[!x]1.json", "a[.]1.json", "*/*.json", "[[]a]/*", "x*")
    for pattern in (*one, "**", "**/b/*", "**/**/2.json", "a/**", "a.1.json/**"):
        here = {item.path for item in local.walk([inbox / pattern]) if isinstance(item, local.Delivered)}
        found = remote_deliveries.walk([s3.at(f"{there}/{pattern}")])
        keys = {item.object.path.key for item in found if isinstance(item, remote_deliveries.Arrival)}
        assert keys == {str(path.relative_to(inbox.parent)) for path in here}, pattern
    for literal in ("[a]/5.json", "[a]"):
        named = [item.name for item in local.walk([inbox / literal]) if isinstance(item, local.Delivered)]
        arrived = remote_deliveries.walk([s3.at(f"{there}/{literal}")])
        assert [item.name for item in arrived] == named, "what is there by this very name is no glob"


def test_what_was_landed_as_the_wrong_feed_lands_when_the_right_one_is_said(
    lake: Lake, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deliver(tmp_path / "inbox", "accelerometer", [motion(), motion(at=101)], "customer-1.json")
    inbox = sent(tmp_path / "inbox", f"s3://{bucket}/inbox")
    with monkeypatch.context() as patch:
        patch.setattr(reader, "infer_feed", lambda text, named=None: named)
        assert lake.land(inbox).quarantined == 2
    for _ in range(2):
        landed = lake.land(inbox, feed="accelerometer")
        assert (landed.accepted, landed.quarantined) == (2, 0)
        assert not lakes.rows(lake, "quarantine")
        lakes.conserved(lake)


def test_a_lake_in_a_folder_lands_from_s3(bucket: str, new_lake: Callable[..., Lake], tmp_path: Path) -> None:
    lake = new_lake()
    assert lake.land(sent(people(tmp_path / "inbox", ANA), f"s3://{bucket}/inbox")).accepted == 7


def test_what_cannot_be_landed_from_s3_is_named(lake: Lake, bucket: str, tmp_path: Path) -> None:
    folder = people(tmp_path / "inbox", ANA)
    for name in ("notes.txt.zip", "picture.png", "_hidden.json", "customer/cut.json.gz"):
        (folder / name).write_bytes(b"x")
    landing = lake.land(sent(folder, f"s3://{bucket}/inbox"), f"s3://{bucket}/nothing", f"{lake.root}/lake.toml")
    assert landing.accepted == 7
    failed = {skipped.name: skipped.failed for skipped in landing.skipped}
    assert failed == {
        "inbox/notes.txt.zip": True,
        "inbox/picture.png": False,
        f"s3://{bucket}/nothing": True,
        "lake.toml": False,
        "inbox/customer/cut.json.gz": True,
    }


def test_an_object_that_changes_while_it_is_read_does_not_land(
    lake: Lake, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = sent(people(tmp_path / "inbox", ANA), f"s3://{bucket}/inbox")
    listing = s3.listing

    def then_changed(folder: Path) -> Iterator[s3.Object]:
        for found in list(listing(folder)):
            if found.path.name == "0.json" and "customer" in str(found.path):
                s3.write(found.path, b'{"another": 1}')
            yield found

    monkeypatch.setattr(s3, "listing", then_changed)
    landing = lake.land(inbox)
    assert landing.accepted == 6
    [skipped] = landing.skipped
    assert skipped.failed
    assert "it changed while it was read" in skipped.why


def test_an_erasure_in_a_glob_leaves_what_the_glob_does_not_name(lake: Lake, bucket: str, tmp_path: Path) -> None:
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    inbox = sent(people(tmp_path / "inbox", ANA, BO), f"s3://{bucket}/inbox")
    theirs = S3Path("s3:", bucket, "others", "report.json")
    for text in (b"first", b"second"):
        s3.write(theirs, text)
    s3.client().create_multipart_upload(Bucket=bucket, Key="others/large.json")
    lake.land(inbox)
    [receipt] = lake.erase(ANA, inbox=[f"s3://{bucket}/in*"])
    assert receipt.removed["delivered"]["records"] == 7
    listed = s3.client().list_object_versions(Bucket=bucket)["Versions"]
    assert len([entry for entry in listed if entry["Key"] == theirs.key]) == 2
    assert not [entry for entry in listed if entry["Key"].startswith("inbox/") and not entry["IsLatest"]]
    assert s3.client().list_multipart_uploads(Bucket=bucket)["Uploads"]


def test_who_is_erased_is_in_no_object_and_no_older_version(lake: Lake, bucket: str, tmp_path: Path) -> None:
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    inbox = sent(people(tmp_path / "inbox", ANA, BO), f"s3://{bucket}/inbox")
    lake.land(inbox)
    lakes.build(lake)
    upload = s3.client().create_multipart_upload(Bucket=bucket, Key="inbox/customer/broken.json")
    s3.client().upload_part(
        Bucket=bucket, Key="inbox/customer/broken.json", PartNumber=1, UploadId=upload["UploadId"],
        Body=json.dumps(customer(ANA)).encode(),
    )  # fmt: skip
    assert ANA.encode() in everything(bucket)
    before = lakes.contents(lake)
    [receipt] = lake.erase(ANA, inbox=[inbox])
    assert receipt.scanned["versions"] > 0
    assert receipt.removed["delivered"]["records"] == 7
    assert set(receipt.not_reached) == receipts.OUT_OF_REACH.keys()
    assert receipt.document["not_reached_days"] == receipts.STACK_DAYS
    found = everything(bucket)
    assert ANA.encode() not in found
    assert device(ANA).encode() not in found
    assert BO.encode() in found
    assert not s3.client().list_multipart_uploads(Bucket=bucket).get("Uploads")
    theirs = lake.key().customer_id(ANA)
    assert lakes.contents(lake) == {
        name: lakes.Counter({row: n for row, n in rows.items() if theirs not in row}) for name, rows in before.items()
    }
    assert lake.land(inbox).erased == 0, "what was rewritten is known"
    assert lake.land(people(tmp_path / "inbox", ANA)).erased == 7
    lakes.build(lake)
    assert not any(check.violations for check in lake.prove().checks)
    assert not any(check.found for check in lake.audit(files=True))


def test_an_inbox_in_a_bucket_is_rewritten_by_command_and_what_cannot_be_is_named(
    lake: Lake, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.client().put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    both = [customer(who, serialNumber=device(who)) for who in (ANA, BO)]
    folder = tmp_path / "inbox" / "customer"
    folder.mkdir(parents=True)
    written = {
        "list.json": json.dumps(both).encode(),
        "lines.json.gz": gzip.compress("\n".join(map(json.dumps, both)).encode()),
        "envelope.json": json.dumps({"records": both}).encode(),
        f"of {ANA}.json": json.dumps(both[1]).encode(),
        "kept.json": json.dumps([*both, both[1]]).encode(),
        "moved.json": json.dumps([both[1], *both]).encode(),
    }
    for name, content in written.items():
        (folder / name).write_bytes(content)
    inbox = sent(tmp_path / "inbox", f"s3://{bucket}/inbox")
    lake.land(inbox)
    real, replaced = s3.client(), rewriting.replace

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def put_object(self, **asked: Any) -> Any:
            if asked["Key"].endswith("kept.json"):
                raise ClientError(
                    {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}, "Put"
                )
            return real.put_object(**asked)

    def late(files: Any) -> Any:
        s3.write(s3.at(f"{inbox}/customer/moved.json"), b"newer")
        return replaced(files)

    words = ["--lake", str(lake.root), "--json", "erase", ANA, "--inbox", inbox, "--yes"]
    with monkeypatch.context() as patch:
        patch.setattr("stedi.storage.s3.objects.client", Refusing)
        patch.setattr(rewriting, "replace", late)
        assert cli.main(words) == 1
    receipt = json.loads(capsys.readouterr().out)
    left = receipt["removed"]["delivered"]["why"]
    assert {name.rpartition("/")[2] for name in left} == {"kept.json", "moved.json"}
    assert "refused" in left["inbox/customer/kept.json"]
    assert s3.at(f"{inbox}/customer/moved.json").read_bytes() == b"newer", "nobody's delivery is written over"
    told = everything(bucket)
    assert told.count(ANA.encode()) == written["kept.json"].count(ANA.encode())
    assert not any(ANA in key for key in keys(inbox))
    assert json.loads(s3.at(f"{inbox}/customer/list.json").read_bytes()) == both[1:]
    assert gzip.decompress(s3.at(f"{inbox}/customer/lines.json.gz").read_bytes()) == json.dumps(both[1]).encode()
    assert json.loads(s3.at(f"{inbox}/customer/envelope.json").read_bytes()) == {"records": both[1:]}
    assert cli.main(words) == 0
    assert ANA.encode() not in everything(bucket)
    assert json.loads(s3.at(f"{inbox}/customer/kept.json").read_bytes()) == both[1:] * 2


def everything(bucket: str, below: str = "") -> bytes:
    """Returns every version of every object of a bucket, Parquet and Avro decoded far enough to see texts."""
    import io

    import fastavro
    import pyarrow.parquet as pq

    client, found = s3.client(), b""
    listed = client.list_object_versions(Bucket=bucket, Prefix=below)
    assert not listed.get("IsTruncated")
    for version in listed.get("Versions", ()):
        body = client.get_object(Bucket=bucket, Key=version["Key"], VersionId=version["VersionId"])["Body"].read()
        found += version["Key"].encode() + body
        if body.startswith(b"PAR1"):
            found += json.dumps(pq.read_table(io.BytesIO(body)).to_pylist(), default=str).encode()
        elif body.startswith(b"Obj"):
            found += json.dumps(list(fastavro.reader(io.BytesIO(body))), default=str).encode()
    return found


def test_a_delete_that_is_refused_fails_the_erasure_which_then_ends_when_it_may(
    built: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, real = built, s3.client()

    class Refusing:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def delete_objects(self, **asked: Any) -> dict[str, Any]:
            denied = [o for o in asked["Delete"]["Objects"] if "/data/" in o["Key"]]
            return {"Errors": [{"Key": o["Key"], "Code": "AccessDenied", "Message": ""} for o in denied]}

    with monkeypatch.context() as patch:
        patch.setattr("stedi.storage.s3.objects.client", Refusing)
        with pytest.raises(PermissionError, match=r"S3 refused to delete 1 object \(AccessDenied\)"):
            lake.erase(ANA)
    [receipt] = lake.erase()
    assert receipt.clean
    assert ANA.encode() not in everything(lake.root.parts[1])


def test_a_commit_whose_answer_is_lost_is_made_once(
    catalog: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.create(f"s3://{bucket}/lake")
    assert isinstance(lake.catalog.remote, Remote)
    within, lost = lake.catalog.remote._catalog, 0
    commit = within.commit_table

    def losing(*asked: Any) -> Any:
        nonlocal lost
        commit(*asked)
        lost += 1
        raise ConnectionError("the answer never came")

    monkeypatch.setattr(within, "commit_table", losing)
    assert lake.land(people(tmp_path / "inbox", ANA, BO)).accepted == 14
    lakes.build(lake)
    assert lost >= 4 + 2 * len(BELOW_LANDING), "every commit of a landing and a build lost its answer"
    assert lakes.rows(lake, "customers_landing").total() == 2
    assert lakes.rows(lake, "machine_learning_curated").total() == 6
    lakes.conserved(lake)


def test_a_commit_that_was_refused_is_a_conflict_and_changes_nothing(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(people(tmp_path / "inbox", ANA))
    assert lake.catalog.remote is not None

    def failing(*asked: Any) -> Any:
        raise ValueError("nobody there")

    with monkeypatch.context() as patch:
        patch.setattr(lake.catalog.remote._catalog, "commit_table", failing)
        with pytest.raises(LakeError, match="expected an answer from the catalog"):
            lakes.build(lake)
    assert lakes.rows(lake, "customers_trusted").total() == 0
    lakes.build(lake)
    assert lakes.rows(lake, "machine_learning_curated").total() == 3


def test_the_catalog_of_another_lake_is_refused(lake: Lake, bucket: str) -> None:
    with pytest.raises(LakeError, match=r"expected the tables of this lake .*, found \w+ of another lake"):
        Lake.create(f"s3://{bucket}/other")


_STRAIGHT = """import io, json, sys
from stedi.query import sandbox, scans
told = json.load(sys.stdin)
for sql in told.pop("each"):
    out = io.BytesIO()
    try:
        sandbox.execute({**told, "sql": sql}, out)
    except scans.Failure:
        print("refused", file=sys.stderr)
    else:
        print("answered", file=sys.stderr)
    sys.stdout.buffer.write(out.getvalue())
"""

pytestmark = pytest.mark.thorough


def test_a_roles_query_has_masked_copies_and_its_process_cannot_open_the_bucket(
    built: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = built
    private = [ANA, BO, f"Name of {ANA}", servers.SECRET]
    for table in ("customers_landing", "accelerometer_landing", "customers_trusted"):
        sql = f"select * from {table}"
        assert cli.main(["--lake", str(lake.root), "--json", "query", sql, "--role", "engineer"]) == 0
        said = capsys.readouterr()
        assert json.loads(said.out)
        assert not [word for word in private if word in said.out + said.err]
    assert len(lake.query(sql, role="officer").arrow()) == len(lake.query(sql, role="engineer").arrow())
    # as if the judge let everything through: straight to the engine, beside a table that may be seen whole or not
    for tables in ({"customers_landing"}, {"customers_landing", "landed_files"}):
        relations = visible.tables(lake.context, "engineer", frozenset(tables))
        hidden = next(file for relation in relations if relation.masked for file in relation.files)
        given = [{**asdict(r), "masked": sorted(r.masked), "wanted": None} for r in relations]
        told = {"relations": given, "reach": s3.engine_statements(), "memory": 200_000_000, "spill": 1_000_000}
        told |= {"threads": 1, "temporary": str(tmp_path), "seconds": 60.0}
        attempts = {
            f"from read_parquet('{hidden}')": False, f"from read_blob('{hidden}')": False, f"from '{hidden}'": False,
            f"from glob('s3://{lake.root.parts[1]}/**')": False, 'select * from "masked customers_landing"': True,
            f"from read_text('{lake.root}/lake.toml')": False, "from customers_landing": True,
            "from duckdb_secrets()": True,
        }  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", _STRAIGHT], input=json.dumps(told | {"each": [*attempts]}).encode(),
            capture_output=True, env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)}, check=False,
        )  # fmt: skip
        assert [line == b"answered" for line in done.stderr.splitlines()] == [*attempts.values()], done.stderr
        assert not [word for word in private if word.encode() in done.stdout + done.stderr]


@pytest.mark.parametrize("place", ["copy", "lake/copy", ""], ids=["beside", "below", "above"])
def test_a_copy_in_a_bucket_changes_nothing_and_says_what_to_do(
    lake: Lake,
    bucket: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    place: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox = people(tmp_path / "inbox", ANA)
    lake.land(inbox)
    for found in [found for found in s3.listing(lake.root) if found.path.suffix != ".lock"]:
        target = "/".join(filter(None, (bucket, place, str(found.path.relative_to(lake.root)))))
        s3.write(s3.at(f"s3://{target}"), found.path.read_bytes())
    copy = "/".join(filter(None, (f"s3://{bucket}", place)))
    before = everything(bucket, below="lake/landing/"), {name: lake.history(name) for name in LANDING}
    more = str(people(tmp_path / "more", BO))
    commands = [
        ["land", more], ["build"], ["withdraw", ANA, "--yes"], ["erase", ANA, "--yes"], ["maintain"], ["audit"],
        ["tables"], ["quarantine", "--replay"], ["repair"], ["erase", "--resume"],
    ]  # fmt: skip
    for elsewhere in (False, True):
        if elsewhere:
            with monkeypatch.context() as patch:
                patch.setattr(Remote, "listed", lambda self: {})
                capsys.readouterr()
                assert cli.main(["--lake", copy, "land", more]) == 1
                assert (
                    "expected the lake's tables in the catalog's database stedi, found none" in capsys.readouterr().err
                )
            continue
        for words in commands:
            assert cli.main(["--lake", copy, *words]) == 1, words
            said = capsys.readouterr().err
            assert "of another lake: this is a copy" in said, (words, said)
            assert ANA not in said
    assert cli.main(["--lake", copy, "adopt"]) == 1
    assert "Make a new lake with its own catalog" in capsys.readouterr().err
    assert (everything(bucket, below="lake/landing/"), {name: lake.history(name) for name in LANDING}) == before
    assert all(file.already_landed for file in lake.land(inbox).files)


def test_no_lake_is_made_below_another(lake: Lake, bucket: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = keys(f"s3://{bucket}")
    for place in ("inner", "landing/customers_landing/inner"):
        assert cli.main(["--lake", f"{lake.root}/{place}", "init"]) == 2
        assert f"found one in the lake {lake.root}" in capsys.readouterr().err
    assert keys(f"s3://{bucket}") == before


def test_a_flipped_bit_is_named_and_never_read(lake: Lake, tmp_path: Path) -> None:
    lake.land(people(tmp_path / "inbox", ANA))
    state = lake.catalog.table("customers_landing")
    [file] = lake.catalog.files(state)
    flip(s3.at(file.path))
    [violation] = [v for check in lake.audit(files=True) for v in check.found]
    assert violation.found.startswith("SHA-256")
    flip(s3.at(state.metadata[-1]))
    from stedi.catalog import checksums

    checksums._read_object.cache_clear()
    with pytest.raises(DamagedFile, match="expected SHA-256"):
        lake.tables()
    s3.remove([s3.at(file.path)])
    assert sizes([file.path]) == {file.path: None}


def flip(path: Path) -> None:
    """Changes one byte of an object, and leaves what it says of itself."""
    assert isinstance(path, S3Path)
    body, sha256 = s3.content(path)
    changed = bytes([body[0], body[1], body[2], body[3], body[4] ^ 1]) + body[5:]
    s3.client().put_object(Bucket=path.bucket, Key=path.key, Body=changed, Metadata={s3.SUM: sha256})


def test_landings_of_several_processes_lose_and_double_nothing(lake: Lake, tmp_path: Path) -> None:
    addresses = [f"{n}@test.example" for n in range(3)]
    folders = [people(tmp_path / address, address) for address in addresses]
    with ExitStack() as stack:
        words = ["--lake", str(lake.root), "land"]
        landings = []
        for folder in folders:
            log = tmp_path / f"{folder.name}.log"
            landings.append(stack.enter_context(forks.command([*words, str(folder)], log)))
            stack.callback(landings[-1].kill)
        assert [landing.wait(120) for landing in landings] == [0, 0, 0]
    lakes.conserved(lake)
    assert lakes.rows(lake, "customers_landing").total() == 3
    assert lakes.rows(lake, "accelerometer_landing").total() == 9


def test_a_build_that_finds_another_running_leaves(lake: Lake) -> None:
    with s3.lock(lake.root / "build.lock", wait=False, waiting=None, advice="wait"), pytest.raises(LakeBusy):
        lake.build()
    lake.build()


def test_the_key_may_lie_in_secrets_manager(bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    secrets_manager._client.cache_clear()
    lake = Lake.create(f"s3://{bucket}/lake", key_file="secretsmanager:stedi/key")
    assert lake.config.key_file == "secretsmanager:stedi/key"
    lake.land(people(tmp_path / "inbox", ANA))
    lakes.build(lake)
    before = lake.key()
    done = lake.rotate_key("secretsmanager:stedi/next")
    assert (done.before, done.after) == (before.fingerprint, lake.key().fingerprint)
    assert Lake.open(lake.root).key().every() == (*lake.key().every(),)
    assert lakes.rows(lake, "machine_learning_curated").total() == 3
    secrets_manager._client.cache_clear()


@pytest.mark.parametrize("location", ["s3://", "s3:///prefix"])
def test_a_location_without_a_bucket_is_refused_in_a_line(location: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--lake", location, "tables"]) == 1
    assert "expected s3://BUCKET/PREFIX, found no bucket" in capsys.readouterr().err


def test_what_is_needed_on_the_way_lies_on_this_machine_its_owners_alone_and_goes(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    from stedi.storage import durable

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    lake.land(people(tmp_path / "inbox", ANA))
    lakes.build(lake)
    lake.erase(ANA)
    scratch = durable.scratch(lake.root)
    assert scratch.stat().st_mode & 0o077 == 0
    assert [path for path in scratch.rglob("*") if path.is_file()] == []
    scratch.chmod(0o755)
    with pytest.raises(LakeError, match="expected a private folder"):
        durable.scratch(lake.root)


def test_no_extra_is_asked_for_where_everything_lies_in_folders() -> None:
    assert not s3.is_remote("lake")
    assert not s3.is_remote(Path("s3/lake"))
    assert remote._configured() is any(name.startswith(remote._VARIABLE) for name in os.environ)


def test_a_session_asks_for_its_keys_again_before_a_roles_have_passed(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.land(people(tmp_path / "inbox", ANA))
    asked: list[int] = []
    statements = s3.engine_statements
    monkeypatch.setattr(s3, "engine_statements", lambda: (asked.append(1), statements())[1])
    with DuckDB(memory="200MB", threads=1, temporary=tmp_path / "spill") as engine:
        assert engine.rows("select 1") == [(1,)]
        assert not asked, "a session that reads no object needs no keys"
        engine.bind_files("landed_files", lake.catalog.files(lake.catalog.table("landed_files")))
        assert engine.rows("select count(*) from landed_files") == [(3,)]
        assert len(asked) == 1
        monkeypatch.setattr(engine, "_keys_until", 0.0)
        assert engine.rows("select count(*) from landed_files") == [(3,)]
        assert len(asked) == 2


def test_a_lake_in_a_bucket_knows_its_releases(built: Lake, tmp_path: Path) -> None:
    from stedi.datasets import recall
    from stedi.datasets.verify import verify
    from stedi.errors import UsageError

    lake = built
    with pytest.raises(UsageError, match="--output"):
        lake.create_dataset("steps")
    copy = Path(lake.create_dataset("steps", output=tmp_path / "release").path)
    lake.withdraw(ANA)
    [found] = lake.datasets(stale=True)
    assert (found.release, len(found.stale)) == ("steps@1", 1)
    (tmp_path / "recall.json").write_bytes(lake.recall_dataset("steps@1").raw)
    assert recall.apply(copy, tmp_path / "recall.json").dropped == found.stale
    assert verify(copy).holds
    [receipt] = lake.erase(BO)
    assert receipt.removed["releases"] == {"rewritten": [], "out_of_reach": ["steps@1"]}
    assert not [check for check in lake.audit() if check.violations]
