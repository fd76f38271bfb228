"""Erasure, maintenance and audits over many workers end as on one machine, with the same proofs after."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from erasing import ANA, Stage
from lakes import conserved, contents, heads, rows
from pools import Pool
from stedi import erasure
from stedi.audit import integrity
from stedi.engines.workers import Executors
from stedi.errors import AuditFailed, DamagedFile, LakeError
from stedi.lake import Lake
from stedi.operations import maintenance
from stedi.schema.tables import ZONES
from stedi.storage import durable


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Stage:
    return Stage(tmp_path_factory.mktemp("workers"))


def erase(lake: Lake, workers: Pool | None) -> dict[str, object]:
    with lake.context.writing(*durable.ALL, erasing=True):
        [receipt] = erasure.erase(lake.context, lake.key(), [ANA], workers=workers)
    return receipt


@pytest.mark.parametrize("lost", [0, 1])
def test_an_erasure_over_workers_removes_what_one_machine_removes(stage: Stage, lost: int) -> None:
    lake, _ = stage.made()
    alone = erase(lake, None)
    expected = {name: rows(lake, name) for name in ZONES}
    lake, _ = stage.made()
    pool = Pool(lost=lost)
    spread = erase(lake, pool)
    assert pool.tasks > len(ZONES)
    assert spread["removed"] == alone["removed"]
    # files are as many as workers made of them; what was decoded is everything that there is
    assert spread["scanned"]["bytes"] > 0  # type: ignore[index] # the receipt is plain JSON
    found = {name: rows(lake, name) for name in ZONES}
    for name in ZONES:
        if name not in ("landed_files", "quarantine"):  # which say when
            assert found[name] == expected[name]
    conserved(lake)
    assert not any(check.violations for check in lake.prove().checks)
    assert not any(check.violations for check in lake.audit(files=True))


def test_the_search_after_an_erasure_finds_what_one_worker_finds(stage: Stage) -> None:
    lake, _ = stage.made()
    (lake.root / "trusted" / "left.txt").write_text(f"to {ANA}\n")
    with pytest.raises(AuditFailed, match=r"trusted/left\.txt"):
        erase(lake, Pool())
    (lake.root / "trusted" / "left.txt").unlink()
    receipt = erase(lake, Pool())  # it has ended, all the same: this is another
    assert receipt["clean"]


def small_files(lake: Lake) -> int:
    return sum(len(lake.catalog.files(state)) for state in lake.catalog.tables().values())


def test_maintenance_over_workers_makes_few_files_of_many(new_lake: Callable[..., Lake], sample_inbox: Path) -> None:
    lake = new_lake()
    for feed in ("customer", "accelerometer", "step_trainer"):
        for path in sorted(sample_inbox.rglob("*")):
            if path.is_file() and feed in str(path.parent):
                lake.land(path, feed=feed)
        lake.build()
    before, landed = contents(lake), rows(lake, "accelerometer_landing")
    count = small_files(lake)
    done = maintenance.maintain(lake.context, workers=Pool(lost=1))
    assert sum(table.files for table in done.tables) > 4
    assert small_files(lake) < count
    assert (contents(lake), rows(lake, "accelerometer_landing")) == (before, landed)
    conserved(lake)
    assert not any(check.violations for check in lake.audit(files=True))
    assert not lake.build().run, "what was rewritten is not taken for a change"


def test_a_damaged_small_file_is_not_written_anew(lake: Lake, sample_inbox: Path) -> None:
    for path in sorted((sample_inbox / "accelerometer").iterdir())[:4]:
        lake.land(path, feed="accelerometer")
    [file, *_] = lake.catalog.files(lake.catalog.table("accelerometer_landing"))
    path = Path(file.path)
    os.chmod(path, 0o600)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    before = heads(lake)
    with pytest.raises((DamagedFile, LakeError), match="accelerometer_landing"):
        maintenance.maintain(lake.context, workers=Pool())
    assert heads(lake) == before


def test_an_audit_over_workers_reads_every_file(lake: Lake, sample_inbox: Path) -> None:
    lake.land(sample_inbox)
    assert integrity.check_files(lake.catalog, files=True, workers=Pool()) == integrity.check_files(
        lake.catalog, files=True
    )
    [file, *_] = lake.catalog.files(lake.catalog.table("customers_landing"))
    content = bytearray(Path(file.path).read_bytes())
    content[40] ^= 1
    Path(file.path).write_bytes(content)
    checks = integrity.check_files(lake.catalog, files=True, workers=Pool())
    assert [check.table for check in checks if check.found] == ["customers_landing"]
    assert checks == integrity.check_files(lake.catalog, files=True)


class _Refusing:
    """A Spark whose executors fail, and say why at length."""

    defaultParallelism = 2  # noqa: N815 - Spark's name

    def __init__(self, text: str) -> None:
        self.text = text
        self.sparkContext = self

    def __getattr__(self, name: str) -> Callable[..., object]:
        if name == "parallelize":
            raise RuntimeError(self.text)
        return lambda *_, **__: self

    def getJobIdsForGroup(self, group: str) -> list[int]:  # noqa: N802 - Spark's name
        return []


def test_what_executors_say_of_data_reaches_nobody() -> None:
    spark = _Refusing(f"PythonException: unforeseen KeyError at x.py:3\n  {ANA}")
    with pytest.raises(LakeError) as failed:
        Executors(spark).map(len, ["a"])
    assert "unforeseen KeyError at x.py:3" in str(failed.value)
    assert ANA not in str(failed.value)
    spark = _Refusing(f"something about {ANA}")
    with pytest.raises(LakeError) as failed:
        Executors(spark).map(len, ["a"])
    assert ANA not in str(failed.value)
