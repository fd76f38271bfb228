"""The verbs over real executors of Spark: the same lake as on one machine, and each file once, whoever is killed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dying
import sparks
from effort import at_night
from erasing import ANA, Stage
from lakes import LANDING, conserved, contents, rows
from stedi import landing
from stedi.engines.workers import Executors
from stedi.errors import LakeError, UnreadableFile
from stedi.lake import Lake
from stedi.schema.tables import ZONES

pytestmark = [
    # PySpark leaves the sockets of its answers to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def executors(spark: Any) -> Executors:
    """The executors of the session that all tests share."""
    spark.sparkContext.addPyFile(dying.__file__)
    return Executors(spark)


def same_landing(one: Lake, other: Lake) -> None:
    for table in LANDING:
        assert rows(one, table) == rows(other, table)
    for lake in (one, other):
        conserved(lake)
    assert {row[:8] for row in rows(one, "quarantine")} == {row[:8] for row in rows(other, "quarantine")}


def test_executors_land_what_one_machine_lands(
    executors: Executors, new_lake: Callable[..., Lake], sample_inbox: Path
) -> None:
    alone, spread = new_lake("alone"), new_lake("spread")
    one = alone.land(sample_inbox)
    many = spread.land(sample_inbox, engine="spark")
    assert (many.seen, many.accepted, many.quarantined, many.drift) == (
        one.seen, one.accepted, one.quarantined, one.drift,
    )  # fmt: skip
    assert one.quarantined > 0
    same_landing(spread, alone)
    again = spread.land(sample_inbox, engine="spark")
    assert again.files
    assert all(file.already_landed for file in again.files)
    same_landing(spread, alone)


class _Dying(Executors):
    """Executors whose every first attempt to write a share is killed after it has written."""

    def __init__(self, spark: Any, marks: Path) -> None:
        super().__init__(spark)
        self.marks = marks

    def map(self, work: Any, tasks: Any, done: Any = lambda share: None) -> Any:
        if work.__name__ != "write":
            return super().map(work, tasks, done)
        return super().map(dying.dies_once, [(self.marks / str(task.number), task) for task in tasks], done)


def test_a_task_whose_executor_is_killed_is_done_again_and_doubles_nothing(
    executors: Executors, new_lake: Callable[..., Lake], sample_inbox: Path, tmp_path: Path
) -> None:
    alone, spread = new_lake("alone"), new_lake("spread")
    alone.land(sample_inbox)
    marks = tmp_path / "marks"
    marks.mkdir()
    landing.land(spread.context, spread.key(), [sample_inbox], workers=_Dying(executors.spark, marks))
    assert list(marks.iterdir()), "tasks were killed"
    same_landing(spread, alone)
    used = {f.path for state in spread.catalog.tables().values() for f in spread.catalog.files(state)}
    assert {str(path) for path in (spread.root / "landing").rglob("*.parquet")} == used


def test_failures_of_tasks_arrive_as_one_clear_line(executors: Executors) -> None:
    with pytest.raises(UnreadableFile, match=r"a\.json: cannot be read"):
        executors.map(dying.fails, ["foreseen"])
    with pytest.raises(LakeError, match=r"unforeseen ValueError at dying\.py:") as failed:
        executors.map(dying.fails, ["other"])
    assert dying.SOMEBODY not in str(failed.value)


def test_an_erasure_maintenance_and_audit_on_executors(
    executors: Executors, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stage = Stage(tmp_path_factory.mktemp("spark-erase"))
    lake, _ = stage.made()
    [alone] = lake.erase(ANA)
    expected = {name: rows(lake, name) for name in ZONES}
    lake, _ = stage.made()
    [spread] = lake.erase(ANA, engine="spark")
    assert spread.removed == alone.removed
    for name in ZONES:
        if name not in ("landed_files", "quarantine"):
            assert rows(lake, name) == expected[name]
    before = contents(lake)
    lake.maintain(engine="spark")
    assert contents(lake) == before
    assert lake.audit(files=True, engine="spark") == lake.audit(files=True)
    assert not any(check.violations for check in lake.audit(files=True))


_LAND_AND_BUILD = """
from stedi.lake import Lake
lake = Lake.open(sys.argv[1])
landed = lake.land(sys.argv[2], engine="spark")
lake.audit(files=True, engine="spark")
lake.build(engine="spark")
executors = spark._jsc.sc().getExecutorMemoryStatus().size() - 1
print(landed.seen, landed.accepted, landed.quarantined, executors)
"""


@at_night
@sparks.needs_spark
def test_executors_that_are_other_processes_land_and_build_what_one_machine_does(
    new_lake: Callable[..., Lake], sample_inbox: Path
) -> None:
    alone, spread = new_lake("alone"), new_lake("spread")
    one = alone.land(sample_inbox)
    alone.build()
    words = (spread.root, sample_inbox)
    [said] = sparks.program(_LAND_AND_BUILD, *words, master="local-cluster[2,1,1024]", partitions=2)
    assert said.split() == [str(n) for n in (one.seen, one.accepted, one.quarantined, 2)]
    same_landing(spread, alone)
    assert contents(spread) == contents(alone)
    assert not list(spread.root.rglob("*.crc"))
