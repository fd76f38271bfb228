"""What Iceberg's own procedures for Spark do to a lake: why `maintain` and `erase` do not call them (decision 0013).

Each claim fails when a later Iceberg does otherwise; the decision is then to be taken anew.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

import sparks
from deliveries import customer, deliver, motion, step
from lakes import BELOW_LANDING, LANDING, Slate, contents
from stedi.catalog import checksums, snapshots
from stedi.catalog.orphans import unused
from stedi.engines.literals import quoted
from stedi.engines.spark import session
from stedi.errors import DamagedFile
from stedi.lake import Lake

pytestmark = [
    sparks.needs_spark,
    pytest.mark.usefixtures("spark"),
    # PySpark leaves the sockets of its answers to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
MOTIONS = "accelerometer_trusted"
ANA = "ana@x.example"


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("procedures"))


@pytest.fixture
def lake(slate: Slate) -> Lake:
    """A lake of two customers and two nights."""
    return slate.made(two_nights)


def two_nights(lake: Lake, inbox: Path) -> None:
    for night in range(2):
        people = [customer(ANA, update=100 + night), customer("bo@x.example", update=100 + night, serialNumber="s2")]
        folder, at = inbox / f"night{night}", 1_000 * (night + 1)
        deliver(folder, "customer", people)
        deliver(folder, "accelerometer", [motion(who, at + n) for who in (ANA, "bo@x.example") for n in range(50)])
        deliver(folder, "step_trainer", [step(serial, at + n) for serial in ("s1", "s2") for n in range(50)])
        lake.land(folder)
        lake.build()


def call(lake: Lake, procedure: str, table: str, *more: str) -> list[dict[str, Any]]:
    """Calls a procedure on a table of a lake and returns its answer."""
    arguments = ", ".join([f"table => 'stedi.stedi.{table}'", *more])
    return [row.asDict() for row in session(lake.root).sql(f"call stedi.system.{procedure}({arguments})").collect()]


def rewrite(lake: Lake, table: str) -> list[dict[str, Any]]:
    return call(lake, "rewrite_data_files", table, "options => map('rewrite-all', 'true')")


def reasons(lake: Lake) -> dict[str, str]:
    """What a build would do to each table, and why."""
    return {step.step.table: f"{step.step.action}: {step.step.reason}" for step in lake.plan().steps}


def complaints(lake: Lake) -> Counter[str]:
    """How much `audit --files` has to say of each table's checksums; it has nothing to say of anything else."""
    found = [check for check in lake.audit(files=True) if check.violations]
    assert {check.name for check in found} <= {"checksums"}
    return Counter({check.table: check.violations for check in found})


def aged(folder: Path) -> None:
    """Makes everything below a folder a month old."""
    then = time.time() - 30 * 86_400
    for path in folder.rglob("*"):
        os.utime(path, (then, then))


def test_a_landing_table_is_refused_by_whatever_reads_rows(lake: Lake) -> None:
    spark = session(lake.root)
    for table in LANDING:
        reserved = r"conflict with names reserved for Iceberg metadata columns: \[_file\]"
        with pytest.raises(Exception, match=reserved):
            rewrite(lake, table)
    with pytest.raises(Exception, match=reserved):
        spark.sql(f"delete from stedi.stedi.accelerometer_landing where user = '{ANA}'")


def test_rewriting_keeps_rows_and_loses_lineage_and_checksums(lake: Lake) -> None:
    before = contents(lake)
    assert rewrite(lake, MOTIONS)[0]["rewritten_data_files_count"] > 1
    assert contents(lake) == before
    state = lake.catalog.table(MOTIONS)
    assert state.current is not None
    assert state.current.operation == "replace"
    assert not [name for name in state.current.summary if name.startswith("stedi.")]
    assert complaints(lake)[MOTIONS] > 0
    # so all that is built from it is built anew, for nothing
    found = reasons(lake)
    assert found[MOTIONS] == "rebuild: another program has changed it"
    assert found["machine_learning_curated"].startswith("rebuild")
    lake.build()
    assert contents(lake) == before


def bounded(lake: Lake, table: str) -> set[str]:
    """The columns of which the manifests of a table's current snapshot tell bounds."""
    state = lake.catalog.table(table)
    assert state.current is not None
    listed = snapshots.manifests(table, state.current)
    files = [file for path in listed for file in snapshots.avro(table, path, lambda entry: entry["data_file"])]
    return {state.columns[bound["key"] - 1].name for file in files for bound in file["upper_bounds"] or ()}


def test_a_withdrawal_follows_whatever_the_procedures_have_done(lake: Lake) -> None:
    for table in BELOW_LANDING:
        rewrite(lake, table)
    assert bounded(lake, "customers_trusted") == set()
    assert bounded(lake, MOTIONS) <= {"x", "y", "z"}
    call(lake, "rewrite_manifests", "accelerometer_landing")
    lake.withdraw(ANA)
    lake.build()
    assert {table: len(rows) for table, rows in contents(lake).items()} == {
        "customers_trusted": 1, MOTIONS: 100, "customers_curated": 1, "step_trainer_trusted": 100,
        "machine_learning_curated": 100,
    }  # fmt: skip
    assert not any(check.violations for check in lake.prove().checks)


def changed_silently(path: Path) -> None:
    """Turns one bit of a data file over, so that DuckDB reads it without complaint and finds other values."""
    sound = path.read_bytes()

    def read() -> list[Any]:
        columns = ", ".join(quoted(name) for name in ("x", "y", "z"))
        return duckdb.sql(f"select {columns}, epoch_ms(\"timestamp\") from read_parquet('{path}')").fetchall()

    rows = read()
    for at in range(4, len(sound)):
        path.write_bytes(sound[:at] + bytes([sound[at] ^ 1]) + sound[at + 1 :])
        try:
            if read() != rows:
                return
        except duckdb.Error:
            pass
    pytest.fail("no bit changes a value")


def test_a_damaged_file_is_rewritten_as_if_it_were_right(lake: Lake) -> None:
    before = contents(lake)[MOTIONS]
    changed_silently(Path(lake.catalog.files(lake.catalog.table(MOTIONS))[0].path))
    with pytest.raises(DamagedFile, match="expected SHA-256"):
        checksums.check(lake.catalog.folder(MOTIONS), [f.path for f in lake.catalog.files(lake.catalog.table(MOTIONS))])
    rewrite(lake, MOTIONS)
    assert contents(lake)[MOTIONS] != before


def test_snapshots_expire_with_their_files_at_once_and_with_those_a_build_needs(lake: Lake, tmp_path: Path) -> None:
    landing = "accelerometer_landing"
    deliver(tmp_path / "due", "accelerometer", [motion(ANA, 9_000)])
    lake.land(tmp_path / "due")
    assert "append: accelerometer_landing has 1 new row" in reasons(lake)[MOTIONS]
    before = lake.catalog.table(landing)
    reading = before.history()[1]  # a query that began before that landing
    call(lake, "expire_snapshots", landing, "older_than => timestamp '2200-01-01 00:00:00'", "retain_last => 1")
    assert len(lake.catalog.table(landing).snapshots) == 1
    assert not Path(snapshots.local_path(reading.manifest_list)).exists()
    with pytest.raises(DamagedFile):
        lake.catalog.files(before, reading)
    assert complaints(lake) == {landing: 1}
    assert reasons(lake)[MOTIONS] == f"rebuild: {landing} no longer has the snapshot that this was built from"


def test_checksums_and_what_a_landing_has_journalled_are_taken_for_orphans(lake: Lake) -> None:
    folder = lake.catalog.folder("landed_files")
    staged = folder / "data" / "1795000000000-deadbeef" / "data_0.parquet"
    staged.parent.mkdir()
    staged.write_bytes(b"what a journal names and no snapshot yet")
    unfinished = folder / "data" / ".data_1.parquet.partial"
    unfinished.write_bytes(b"what a killed command has left")
    now = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    with pytest.raises(Exception, match="interval less than 24 hours"):
        call(lake, "remove_orphan_files", "landed_files", f"older_than => timestamp '{now}'")
    aged(lake.root)
    orphans = {row["orphan_file_location"] for row in call(lake, "remove_orphan_files", "landed_files")}
    assert orphans == {f"file:{folder / checksums.NAME}", f"file:{staged}"}
    assert unfinished.exists()
    assert complaints(lake)["landed_files"] > 0
    found = unused(lake.catalog.table("landed_files"), folder, before=time.time(), seen=time.time())
    assert [file.path for file in found] == [unfinished]


def test_deleted_by_spark_an_address_stays_in_a_file_and_in_the_log_and_is_back_after_a_build(
    lake: Lake, spark_events: Path
) -> None:
    table = "customers_trusted"
    session(lake.root).sql(f"delete from stedi.stedi.{table} where email = '{ANA}'").collect()
    assert len(contents(lake)[table]) == 1
    kept = [path for path in lake.catalog.folder(table).rglob("*.parquet") if ANA.encode() in path.read_bytes()]
    assert kept
    assert any(ANA in path.read_text(errors="replace") for path in spark_events.iterdir())
    lake.build()
    assert len(contents(lake)[table]) == 2
