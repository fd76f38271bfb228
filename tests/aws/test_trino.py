"""A Trino server, which is what Athena is made of, reads a lake in S3 by its Glue catalog and gives the rows that the
lake gives. S3 and Glue are the tests' servers; the rest is real.
"""

from __future__ import annotations

import base64
import datetime as dt
import os
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from test_aws_roles import template

import servers
import trino_server
from athena_sql import SAME
from stedi.aws import athena
from stedi.lake import Lake
from stedi.landing import sample
from trino_server import Ask

pytestmark = trino_server.needs_trino


@pytest.fixture
def ask(aws: servers.Server, tmp_path: Path) -> Iterator[Ask]:
    """A function that asks Trino, and returns its rows."""
    catalog = {
        "connector.name": "iceberg",
        "iceberg.catalog.type": "glue",
        "hive.metastore.glue.region": servers.REGION,
        "hive.metastore.glue.endpoint-url": aws.url,
        "hive.metastore.glue.aws-access-key": servers.ACCESS,
        "hive.metastore.glue.aws-secret-key": servers.SECRET,
        "fs.native-s3.enabled": "true",
        "s3.endpoint": os.environ["AWS_ENDPOINT_URL_S3"],
        "s3.region": servers.REGION,
        "s3.path-style-access": "true",
        "s3.aws-access-key": servers.ACCESS,
        "s3.aws-secret-key": servers.SECRET,
    }
    (tmp_path / "trino").mkdir()
    with trino_server.serving(
        tmp_path / "trino", "lake", "".join(f"{key}={value}\n" for key, value in catalog.items())
    ) as asked:
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
