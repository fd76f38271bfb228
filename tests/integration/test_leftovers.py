"""What a killed command leaves is gone after the next one; what is in use stays."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stedi.errors import UsageError
from stedi.lake import Lake
from stedi.storage import config


def killed(script: str, *arguments: str | Path) -> None:
    """Runs Python code that ends itself by SIGKILL."""
    done = subprocess.run([sys.executable, "-c", script, *map(str, arguments)], check=False, timeout=120)
    assert done.returncode == -9


def folders(lake: Lake) -> set[Path]:
    return {path for path in lake.root.glob("*/*/data/*") if path.is_dir()}


def test_a_killed_build_leaves_nothing_behind_once_the_next_has_run(lake: Lake, sample_inbox: Path) -> None:
    lake.land(sample_inbox / "customer", sample_inbox / "accelerometer", sample_inbox / "step_trainer")
    before = folders(lake)
    killed(
        "import os, signal, sys\nfrom stedi.lake import Lake\nfrom stedi.catalog import Catalog\n"
        "Catalog.publish_all = lambda self, changes, branch: self._publish_each(changes, branch)\n"
        "Catalog.publish = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Lake.open(sys.argv[1]).build()",
        lake.root,
    )
    strays = folders(lake) - before
    assert strays
    assert any(state.branches.keys() - {"main"} for state in lake.catalog.tables().values())
    built = lake.build()
    assert not strays & folders(lake)
    assert all(state.branches.keys() == {"main"} for state in lake.catalog.tables().values())
    assert [lake.catalog.table(table.name).current.total("records") for table in built.tables] == [  # type: ignore[union-attr]
        table.rows for table in built.tables
    ]


def test_a_landing_killed_before_its_journal_leaves_nothing_behind_once_the_next_has_run(
    lake: Lake, sample_inbox: Path
) -> None:
    lake.land(sample_inbox / "customer")
    before = folders(lake)
    killed(
        "import os, signal, sys\nfrom stedi.lake import Lake\nfrom stedi.landing import journal\n"
        "journal.write = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)\n"
        "Lake.open(sys.argv[1]).land(sys.argv[2])",
        lake.root,
        sample_inbox / "accelerometer",
    )
    strays = folders(lake) - before
    assert strays
    lake.land(sample_inbox / "step_trainer")
    assert not strays & folders(lake)
    assert before <= folders(lake)


def test_a_lake_whose_making_was_cut_off_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(config, "write", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            Lake.create(tmp_path / "lake")
    assert (tmp_path / "lake" / "catalog.db").exists()
    assert len(Lake.open_or_create(tmp_path / "lake").tables()) == 10
    with pytest.raises(UsageError, match="found a lake"):
        Lake.create(tmp_path / "lake")


def test_two_first_landings_at_once_make_one_lake(tmp_path: Path, sample_inbox: Path) -> None:
    script = "import sys\nfrom stedi.lake import Lake\nLake.open_or_create(sys.argv[1]).land(sys.argv[2])"
    command = [sys.executable, "-c", script, str(tmp_path / "lake")]
    feeds = ("accelerometer", "step_trainer")
    running = [subprocess.Popen([*command, str(sample_inbox / feed)], stderr=subprocess.PIPE) for feed in feeds]
    for process in running:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    rows = {table.name: table.rows for table in Lake.open(tmp_path / "lake").tables()}
    assert rows["accelerometer_landing"] > 0
    assert rows["step_trainer_landing"] > 0


def test_a_shared_lake_may_be_read_by_its_owners_group(lake: Lake, sample_inbox: Path) -> None:
    config.write(config.changed(lake.config, shared=True), lake.root / "lake.toml")
    before = os.umask(0o077)
    try:
        shared = Lake.open(lake.root)
        shared.land(sample_inbox / "customer")
    finally:
        os.umask(before)
    assert stat.S_IMODE(lake.root.stat().st_mode) == 0o750
    [newest] = list((lake.root / "landing/customers_landing/data").rglob("*.parquet"))[:1]
    assert stat.S_IMODE(newest.stat().st_mode) == 0o640
