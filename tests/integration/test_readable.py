"""Who may read what a lake writes: its owner, or its group where the settings say so, and nobody else."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_isolation import STEDI, deliver, run

import deliveries as make
from lakes import KEY
from stedi.cli import main
from stedi.lake import Lake
from stedi.storage import config, durable

ANN = "ann@example.com"


def modes(folder: Path) -> dict[str, int]:
    return {str(path): stat.S_IMODE(path.lstat().st_mode) for path in [folder, *folder.rglob("*")]}


@pytest.mark.parametrize("mask", [0, 0o077])
def test_what_a_lake_writes_is_its_owners_alone_whatever_the_mask(mask: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    deliver(tmp_path / "in")
    before = os.umask(mask)
    try:
        lake = Lake.create(tmp_path / "lake")
        lake.land(tmp_path / "in")
        lake.build()
        lake.withdraw([ANN])
        lake.plan()
        lake.build()
        lake.erase("bob@example.com")
        lake.maintain()
    finally:
        assert os.umask(before) == mask, "the mask is the caller's"
    assert {path: oct(mode) for path, mode in modes(lake.root).items() if mode & 0o077} == {}
    assert all(mode & 0o700 == (0o700 if Path(path).is_dir() else 0o600) for path, mode in modes(lake.root).items())


@pytest.mark.parametrize("mask", [0, 0o077])
def test_what_a_shared_lake_writes_is_its_groups_to_read_whatever_the_mask(mask: int, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    deliver(tmp_path / "in")
    settings = Lake.create(tmp_path / "lake").root / "lake.toml"
    settings.write_text(settings.read_text().replace("shared = false", "shared = true"))
    lake = Lake.open(settings.parent)
    shutil.rmtree(lake.root / "runs")
    before = os.umask(mask)
    try:
        lake.land(tmp_path / "in")
        lake.build()
        lake.query("select 1 from customers_landing", role="officer").arrow()
        lake.maintain()
    finally:
        os.umask(before)
    found = {
        Path(path): mode for path, mode in modes(lake.root).items() if "/tmp" not in path.removeprefix(str(lake.root))
    }
    read = {path: mode for path, mode in found.items() if path.suffix != ".lock"}
    assert {path.name for path in read} >= {"access", "runs"}
    assert [str(path) for path, mode in read.items() if mode & 0o050 != (0o050 if path.is_dir() else 0o040)] == []
    assert not any(mode & 0o027 for mode in found.values())


class TestASharedLake:
    @pytest.fixture
    def shared(self) -> Iterator[Path]:
        if os.geteuid() != 0:
            pytest.skip("needs root: another user of the owner's group has to read")
        # below /tmp: every folder above must let others pass
        folder = Path("/tmp") / f"stedi-shared-{os.getpid()}"
        (folder / "in").mkdir(parents=True)
        folder.chmod(0o755)
        deliver(folder / "in")
        try:
            lake = Lake.create(folder / "lake")
            lake.land(folder / "in")
            text = (lake.root / "lake.toml").read_text()
            (lake.root / "lake.toml").write_text(text.replace("shared = false", "shared = true"))
            Lake.open(lake.root).build()
            yield lake.root
        finally:
            shutil.rmtree(folder)

    def reader(self, lake: Path, *words: str, group: int = 0) -> subprocess.CompletedProcess[str]:
        """Runs a command as somebody else, of the owner's group unless it says otherwise, without the key."""
        nobody = pwd.getpwnam("nobody").pw_uid
        script = (
            # the interpreter may lie where only the owner gets: what is needed of it is there before
            "import argparse, ctypes, encodings.idna, os, sys, duckdb, fastavro, pyarrow.compute, sqlite3, sqlglot\n"
            "import stedi.landing.quarantine, stedi.query, stedi.cli.formats, stedi.cli.operations, stedi.lake\n"
            "import stedi.audit.integrity, stedi.erasure, stedi.operations.maintenance, stedi.audit.explain\n"
            "import stedi.privacy.receipts, stedi.cli.letter, stedi.landing.batch, stedi.erasure.deliveries\n"
            "from stedi.cli import main\n"
            f"os.setgroups([]); os.setgid({group}); os.setuid({nobody})\n"
            "sys.exit(main(sys.argv[2:]) if sys.argv[1] == 'main' else not os.access(sys.executable, os.X_OK))"
        )
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "PYTHONDONTWRITEBYTECODE": "1"}
        return subprocess.run(
            [sys.executable, "-c", script, "main" if words else "probe", "--lake", str(lake), *words],
            env=environment, cwd="/", capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    def test_is_read_by_its_group_without_the_key(self, shared: Path) -> None:
        runs = self.reader(shared).returncode == 0
        query = ["query", "--role", "engineer", "--format", "csv", "select count(*) as n from customers_trusted"]
        for words in (["tables"], ["history", "customers_trusted"], ["quarantine"], *([query] if runs else [])):
            done = self.reader(shared, *words)
            assert done.returncode == 0, (words, done.stderr)
        assert "pseudonym key" in self.reader(shared, "audit").stderr, "what needs the key says so"
        # and what the owner writes from now on
        lake = Lake.open(shared)
        lake.withdraw([ANN])
        lake.build(full=True)
        assert self.reader(shared, "tables").returncode == 0
        assert not runs or self.reader(shared, *query).stdout.split() == ["n", "1"]
        files = [Path(file.path) for state in lake.catalog.tables().values() for file in lake.catalog.files(state)]
        assert files
        assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
        assert {
            stat.S_IMODE(folder.stat().st_mode) for path in files for folder in (path.parent, *path.parents[1:3])
        } == {0o750}

    def test_is_written_by_nobody_else_and_read_by_no_other_group(self, shared: Path) -> None:
        before = modes(shared)
        assert {path: oct(mode) for path, mode in before.items() if mode & 0o027} == {}
        done = self.reader(shared, "tables", group=65534)
        assert done.returncode == 1
        for words in (["land", "/tmp"], ["maintain"], ["erase", "--yes", ANN], ["build"]):
            done = self.reader(shared, *words)
            assert done.returncode == 1, words
            assert done.stderr.count("\n") == 1, done.stderr
            assert "unforeseen" not in done.stderr
        assert modes(shared) == before


def test_a_group_reader_alone_changes_no_mode(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    config.write(config.changed(lake.config, shared=True), lake.root / "lake.toml")
    Lake.open(lake.root)
    assert {stat.S_IMODE((lake.root / name).stat().st_mode) for name in ("lake.toml", "catalog.db")} == {0o640}
    assert stat.S_IMODE(lake.root.stat().st_mode) == 0o750
    assert {stat.S_IMODE(path.stat().st_mode) for path in lake.root.glob("*.lock")} <= {0o600}


def test_what_a_killed_dry_run_left_is_in_the_lake_and_goes_with_the_next(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    killed = (
        "import os, sys, stedi\n"
        "from pathlib import Path\n"
        "lake = stedi.Lake.open(sys.argv[1])\n"
        "with lake.context.temporary() as folder:\n"
        "    (folder / 'spilled').write_text('ann@example.com')\n"
        "    print(folder, flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = run([sys.executable, "-c", killed, lake.root], tmp_path)
    assert done.returncode == -signal.SIGKILL
    left = Path(done.stdout.strip())
    assert left.parent == lake.root / "tmp"
    assert (left / "spilled").exists()
    with durable.workspace(lake.root) as alive:
        assert not left.exists()
        with durable.workspace(lake.root):
            assert alive.exists(), "a command that is at work is left alone"
    assert list((lake.root / "tmp").iterdir()) == []


def test_what_a_killed_build_told_its_engine_is_private_and_goes_with_the_next_command(tmp_path: Path) -> None:
    """A file with the pseudonyms of all customers stayed, readable by everybody, until `maintain` a day later."""
    lake = Lake.create(tmp_path / "lake")
    make.deliver(tmp_path / "inbox", "customer", [make.customer(), make.customer("bo@x.example")])
    lake.land(tmp_path / "inbox")
    killed = (
        "import os, sys, stedi\n"
        "from stedi.engines.pseudonyms import Pseudonyms\n"
        "os.umask(0)\n"
        "Pseudonyms._number = lambda *_: os.kill(os.getpid(), 9)\n"
        "stedi.Lake.open(sys.argv[1]).build()\n"
    )
    done = run([sys.executable, "-c", killed, lake.root], tmp_path)
    assert done.returncode == -signal.SIGKILL
    [told] = (lake.root / "tmp").glob("*/told-*.csv")
    assert [stat.S_IMODE(path.stat().st_mode) for path in (told, told.parent)] == [0o600, 0o700]
    assert "@" not in told.read_text()
    lake.build()
    assert [path for path in (lake.root / "tmp").rglob("*") if path.is_file()] == []


def test_scratch_of_a_lake_that_is_only_read_is_the_readers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = Lake.create(tmp_path / "lake")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda *_: False)
    with durable.workspace(lake.root) as folder:
        assert folder.parent.parent == tmp_path
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "where", ["lake/catalog.db", "lake/new.csv", "lake/tmp/x.csv", "link/lake.toml", "lake/../lake/x"]
)
def test_no_caller_s_file_is_written_into_a_lake(
    where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = Lake.create(tmp_path / "lake")
    (tmp_path / "link").symlink_to(lake.root)
    (tmp_path / "x.json").write_text("{}")
    before = {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()}
    place = str(tmp_path / where)
    for words in (
        ["query", "select 1", "--format", "csv", "--output", place],
        ["ndjson", str(tmp_path / "x.json"), place],
        ["ndjson", str(tmp_path / "x.json"), str(tmp_path / "y.json"), "--rejects", place],
    ):
        assert main(["--lake", str(lake.root), *words]) == 2, words
        assert "expected a path outside of any lake" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in lake.root.rglob("*") if path.is_file()} == before
    assert main(["--lake", str(lake.root), "query", "select 1", "--output", str(tmp_path / "out.csv")]) == 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux lets a process hide its own words")
def test_a_statement_is_in_no_list_of_processes(tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    sql = "select count(*) from range(3000000000) where 'secret-ann@example.com' <> 'x'"
    environment = {**os.environ, "STEDI_PSEUDONYM_KEY": KEY}
    with subprocess.Popen(
        [STEDI, "--lake", str(lake.root), "query", sql], env=environment, stdout=subprocess.DEVNULL
    ) as process:
        try:
            end, seen = time.monotonic() + 30, 0
            while time.monotonic() < end and seen < 20 and process.poll() is None:
                children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
                for pid in [str(process.pid), *children] if children else []:
                    assert b"secret" not in Path(f"/proc/{pid}/cmdline").read_bytes()
                    seen += 1
                time.sleep(0.02)
        finally:
            process.kill()
    assert seen
