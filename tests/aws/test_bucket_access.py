"""The access log of a lake in a bucket: an object a line, one chain."""

from __future__ import annotations

from pathlib import Path

from deliveries import customer, deliver
from stedi.context import access
from stedi.lake import Lake
from stedi.storage import s3


def test_a_bucket_keeps_an_object_a_line_and_an_audit_notices_one_that_is_gone(bucket: str, tmp_path: Path) -> None:
    lake = Lake.create(f"s3://{bucket}/lake")
    deliver(tmp_path, "customer", [customer()])
    lake.land(tmp_path)
    for n in range(3):
        assert lake.query("select count(*) as n from customers_landing").fetchall() == [(1,)]
        assert len(lake.log()) == n + 1
    assert [(line.number, line.verb, line.rows, line.ended) for line in lake.log()] == [
        (n, "query", 1, "done") for n in (1, 2, 3)
    ]
    key, lake_id = lake.key(), lake.config.lake_id
    assert not list(access.wrong(lake.root, key, lake_id))
    [day] = access._days(lake.root)
    s3.remove([sorted(day.iterdir())[1]])
    assert [found for _, _, found in access.wrong(lake.root, key, lake_id)] == ["line 3"]
