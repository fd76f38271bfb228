"""A Trino server, which is what Athena is made of, reads a lake in S3 by its Glue catalog and gives the rows that the
lake gives. S3 and Glue are the tests' servers; the rest is real.

Trino is half a gigabyte and wants Java 24: it runs where STEDI_TRINO names a folder of `trino-server-core` with the
Iceberg plugin in `plugin/iceberg`, and STEDI_TRINO_JAVA a Java.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import time
import urllib.request
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from test_aws_roles import template

import servers
from athena_sql import SAME
from stedi import sample
from stedi.aws import athena
from stedi.lake import Lake

TRINO, JAVA = os.environ.get("STEDI_TRINO"), os.environ.get("STEDI_TRINO_JAVA", "java")
pytestmark = pytest.mark.skipif(TRINO is None, reason="no Trino: STEDI_TRINO names no server, see this file")

Ask = Callable[[str], list[list[Any]]]

OPTIONS = (
    *("-Xmx1500M", "-XX:+UseSerialGC", "-XX:+ExitOnOutOfMemoryError", "-Djdk.attach.allowAttachSelf=true"),
    *("--enable-native-access=ALL-UNNAMED", "--add-modules=jdk.incubator.vector"),
)


def configured(folder: Path, port: int, aws: servers.Server) -> list[str]:
    """Writes a server's settings, and returns the command that starts it."""
    home, where = Path(str(TRINO)), f"http://127.0.0.1:{port}"
    (folder / "catalog").mkdir()
    settings = {
        "coordinator": "true",
        "node-scheduler.include-coordinator": "true",
        "http-server.http.port": str(port),
        "node.internal-address": "127.0.0.1",
        "discovery.uri": where,
        "catalog.config-dir": str(folder / "catalog"),
        "plugin.dir": str(home / "plugin"),
        "query.max-memory": "500MB",
    }
    keys = (servers.ACCESS, servers.SECRET)
    catalog = {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "glue",
        "hive.metastore.glue.region": servers.REGION,
        "hive.metastore.glue.endpoint-url": aws.url,
        **dict(zip(("hive.metastore.glue.aws-access-key", "hive.metastore.glue.aws-secret-key"), keys, strict=True)),
        "fs.native-s3.enabled": "true",
        "s3.endpoint": os.environ["AWS_ENDPOINT_URL_S3"],
        "s3.region": servers.REGION,
        "s3.path-style-access": "true",
        **dict(zip(("s3.aws-access-key", "s3.aws-secret-key"), keys, strict=True)),
    }
    for path, entries in ((folder / "config.properties", settings), (folder / "catalog" / "lake.properties", catalog)):
        path.write_text("".join(f"{name}={value}\n" for name, value in entries.items()))
    node = ("-Dnode.environment=test", f"-Dnode.id={port}", f"-Dnode.data-dir={folder / 'data'}")
    paths = (f"-Dconfig={folder / 'config.properties'}", "-cp", str(home / "lib" / "*"))
    return [JAVA, *OPTIONS, *node, *paths, "io.trino.server.TrinoServer"]


@pytest.fixture
def ask(aws: servers.Server, tmp_path: Path) -> Iterator[Ask]:
    """A function that asks Trino, and returns its rows."""
    port = servers.free_port()
    headers = {
        "X-Trino-User": "tests",
        "X-Trino-Catalog": "lake",
        "X-Trino-Schema": "stedi",
        "X-Trino-Time-Zone": "UTC",
        "X-Trino-Client-Capabilities": "PARAMETRIC_DATETIME",
    }

    def asked(sql: str) -> list[list[Any]]:
        where = f"http://127.0.0.1:{port}/v1/statement"
        page = json.load(urllib.request.urlopen(urllib.request.Request(where, sql.encode(), headers)))
        rows: list[list[Any]] = []
        while True:
            rows += page.get("data", [])
            assert "error" not in page, f"{sql}\n{page['error']['message']}"
            if "nextUri" not in page:
                return rows
            page = json.load(urllib.request.urlopen(page["nextUri"]))

    def ready() -> bool:
        try:
            return bool(asked("select 1") == [[1]])
        except (OSError, AssertionError):
            return False

    with servers.running(configured(tmp_path, port, aws), port, tmp_path / "trino.log"):
        end = time.monotonic() + 120
        while not ready():
            assert time.monotonic() < end, (tmp_path / "trino.log").read_text("utf-8", "replace")[-2000:]
            time.sleep(0.5)
        yield asked


def plain(value: Any) -> Any:
    """Returns a value of either side in one form."""
    match value:
        case dt.datetime():
            return value.strftime("%Y-%m-%d %H:%M:%S.%f")
        case dt.date():
            return str(value)
        case float() | Decimal():
            return round(float(value), 9)
        case bytes():
            return base64.b64encode(value).decode()
        case str() if value.endswith(" UTC"):
            return value.removesuffix(" UTC")
        case list():
            return [plain(inner) for inner in value]
    return value


def test_trino_gives_the_rows_that_the_lake_gives(ask: Ask, bucket: str, tmp_path: Path) -> None:
    sample.write(tmp_path / "inbox", customers=40, readings=3_000, seed=5)
    lake = Lake.create(f"s3://{bucket}/lake")
    lake.land(tmp_path / "inbox")
    lake.build()
    tables = athena.visible("officer")
    for sql in [*SAME, *(f"select count(*) as n from {table}" for table in sorted(tables))]:
        here = [[plain(value) for value in row.values()] for row in lake.query(sql).arrow().to_pylist()]
        there = [[plain(value) for value in row] for row in ask(athena.translated(sql, tables))]
        assert there == here, sql
    sql = "select count(*) as n from customers_landing"
    current = lake.catalog.table("customers_landing").current
    assert current is not None
    then = lake.snapshots(sql, current.id)
    sample.write(tmp_path / "more", customers=3, readings=30, seed=6)
    lake.land(tmp_path / "more")
    was, now = (ask(athena.translated(sql, tables, at)) for at in (then, None))
    assert was == [[row["n"] for row in lake.query(sql, at=current.id).arrow().to_pylist()]]
    assert was[0][0] < now[0][0]
    for name, resource in template("lake").items():
        if resource["Type"] == "AWS::Athena::NamedQuery":
            found = ask(resource["Properties"]["QueryString"])
            assert found == [] if name == "ConsentQuery" else found
