"""Several processes at one lake: nothing acknowledged is lost, nothing comes twice, nobody waits forever."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deliveries import customer, deliver, motion, step
from effort import NIGHTLY
from lakes import BELOW_LANDING, LANDING, Slate, conserved, contents, records
from stedi.context.progress import Progress
from stedi.errors import LakeBusy, LakeError
from stedi.lake import Lake
from stedi.privacy import key_change, tombstones
from stedi.storage import durable

WRITERS, COMMITS = 8, 50 if NIGHTLY else 20

APPEND = """
import sys
from pathlib import Path
from stedi.catalog import Catalog

catalog, writer, commits = Catalog(Path(sys.argv[1])), sys.argv[2], int(sys.argv[3])
for n in range(commits):
    catalog.append("quarantine", (), {"stedi.batch": f"{writer}.{n}"})
    print(f"{writer}.{n}", flush=True)
"""


@pytest.fixture(scope="module")
def slate(tmp_path_factory: pytest.TempPathFactory) -> Slate:
    return Slate(tmp_path_factory.mktemp("together"))


def stedi(lake: Lake, *words: object) -> subprocess.Popen[str]:
    """Starts a command in a process of its own."""
    command = [sys.executable, "-m", "stedi.cli", "--lake", str(lake.root), *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def ended(*processes: subprocess.Popen[str]) -> list[tuple[int, str, str]]:
    """Waits for processes; returns each one's exit code, output and messages."""
    said = [process.communicate(timeout=900) for process in processes]
    return [(process.returncode, *texts) for process, texts in zip(processes, said, strict=True)]


def day(folder: Path, number: int, people: int = 40) -> Path:
    """Delivers what some customers did on one day, and returns the folder."""
    emails = [f"{n}.{number}@x.example" for n in range(people)]
    at = 100 + number
    deliver(folder, "customer", [*(customer(e, serialNumber=e, update=at) for e in emails), {"email": "bad"}])
    deliver(folder, "accelerometer", [motion(e, at + t) for e in emails for t in range(20)])
    deliver(folder, "step_trainer", [step(e, at + t) for e in emails for t in range(20)])
    return folder


@contextmanager
def running(lake: Lake) -> Iterator[None]:
    """Another build, as far as commands can tell."""
    with durable.lock(lake.root / "build.lock", wait=False):
        yield


def test_eight_writers_of_many_commits_lose_nothing(slate: Slate) -> None:
    lake = slate.wiped()
    arguments = [sys.executable, "-c", APPEND, str(lake.root)]
    started = time.monotonic()
    writers = [
        subprocess.Popen([*arguments, str(n), str(COMMITS)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for n in range(WRITERS)
    ]
    said = ended(*writers)
    print(f"{WRITERS} writers x {COMMITS} commits: {time.monotonic() - started:.1f} s")
    assert [code for code, _, _ in said] == [0] * WRITERS, said[0][2]
    acknowledged = [line for _, out, _ in said for line in out.splitlines()]
    state = lake.catalog.table("quarantine")
    committed = [s.summary["stedi.batch"] for s in state.history() if "stedi.batch" in s.summary]
    assert sorted(committed) == sorted(acknowledged)
    assert len(set(committed)) == WRITERS * COMMITS
    assert [when for when, _ in state.log] == sorted({when for when, _ in state.log})
    assert not any(check.found for check in lake.audit(files=True))


def test_landings_beside_each_other_land_each_file_once(slate: Slate, tmp_path: Path) -> None:
    lake = slate.wiped()
    both, one, other = (day(tmp_path / str(n), n) for n in range(3))
    said = ended(stedi(lake, "land", both, one), stedi(lake, "land", other, both))
    assert [code for code, _, _ in said] == [0, 0], said
    assert [records(lake, table).total() for table in LANDING] == [120, 2400, 2400]
    assert max(records(lake, "customers_landing").values()) == 1
    conserved(lake)


def test_a_landing_beside_builds_is_in_the_tables_after_the_next(slate: Slate, tmp_path: Path) -> None:
    lake = slate.wiped()
    lake.land(day(tmp_path / "0", 0))
    build = ("build", "--wait")
    said = ended(stedi(lake, *build), stedi(lake, "land", day(tmp_path / "1", 1)), stedi(lake, *build))
    assert [code for code, _, _ in said] == [0, 0, 0], said
    lake.build()
    found = contents(lake)
    assert [found[name].total() for name in BELOW_LANDING] == [80, 1600, 80, 1600, 1600]
    lake.build(full=True)
    assert contents(lake) == found
    conserved(lake)


def test_a_build_that_finds_another_says_so_and_leaves(slate: Slate, tmp_path: Path) -> None:
    lake = slate.wiped()
    lake.land(day(tmp_path / "0", 0, people=1))
    with running(lake):
        [(code, out, err)] = ended(stedi(lake, "build"))
        assert (code, out) == (75, "")
        assert err == (
            f"stedi: {lake.root}: another build is running; wait for it with --wait, or run this again when it has "
            "ended\n"
        )
        with pytest.raises(LakeBusy, match="another build is running"):
            lake.build()
    assert not any(contents(lake).values())


def test_a_build_that_may_wait_waits_and_then_builds(slate: Slate, tmp_path: Path) -> None:
    lake = slate.wiped()
    lake.land(day(tmp_path / "0", 0, people=1))
    with running(lake):
        waiting = stedi(lake, "build", "--wait")
        assert waiting.stderr is not None
        assert waiting.stderr.readline() == "waiting for another build\n"
        assert not any(contents(lake).values())
    [(code, _, err)] = ended(waiting)
    assert code == 0, err
    assert contents(lake)["machine_learning_curated"].total() == 20


def test_builds_at_once_build_once(slate: Slate, tmp_path: Path) -> None:
    lake = slate.wiped()
    lake.land(day(tmp_path / "0", 0))
    said = ended(*(stedi(lake, "build", "--wait", "--json") for _ in range(2)))
    assert [code for code, _, _ in said] == [0, 0], said
    runs = [json.loads(out)["run"] for _, out, _ in said]
    assert sorted(map(bool, runs)) == [False, True], "the second finds nothing to do"
    assert [rows.total() for rows in contents(lake).values()] == [40, 800, 40, 800, 800]
    assert all(state.branches.keys() == {"main"} for state in lake.catalog.tables().values())


@pytest.mark.parametrize("begun", [tombstones.PENDING, key_change.NAME])
@pytest.mark.parametrize(
    ("holder", "work"),
    [
        ("land", lambda lake, told: lake.land(progress=told)),
        ("land", lambda lake, told: lake.withdraw("0@x.example", progress=told)),
        ("land", lambda lake, told: lake.quarantine().replay(progress=told)),
        ("build", lambda lake, told: lake.tag("v1", progress=told)),
        ("build", lambda lake, told: lake.note_dataset("steps@1", model="cnn", progress=told)),
        ("build", lambda lake, told: lake.delete_dataset("steps@1", progress=told)),
        ("build", lambda lake, told: lake.recall_dataset("steps@1", progress=told)),
        ("build", lambda lake, told: lake.build(wait=True, progress=told)),
        ("maintain", lambda lake, told: lake.maintain(progress=told)),
        ("maintain", lambda lake, told: lake.migrate(progress=told)),
    ],
    ids=["land", "withdraw", "replay", "tag", "note", "delete", "recall", "build", "maintain", "migrate"],
)
def test_a_command_is_refused_by_what_was_cut_off_while_it_waited(
    slate: Slate, begun: str, holder: str, work: Callable[[Lake, Progress], object]
) -> None:
    lake, waits = slate.wiped(), threading.Event()
    with ThreadPoolExecutor(1) as beside:
        with durable.lock(lake.root / f"{holder}.lock", wait=False):
            waiting = beside.submit(work, lake, lambda what, share: waits.set())
            assert waits.wait(60)
            (lake.root / begun).touch()
        with pytest.raises(LakeError, match="interrupted"):
            waiting.result()


def test_repair_leaves_a_lake_at_work_alone(slate: Slate) -> None:
    lake = slate.wiped()
    for name in ("land", "build"):
        with durable.lock(lake.root / f"{name}.lock", wait=False), pytest.raises(LakeBusy, match=f"another {name}"):
            lake.repair()


def test_a_writer_that_is_killed_in_a_commit_holds_up_nobody(slate: Slate) -> None:
    lake = slate.wiped()
    script = APPEND.replace("import sys\n", "import os, sys\n") + "os.kill(os.getpid(), 9)\n"
    script = script.replace(
        "catalog, writer",
        "from stedi.catalog import checksums\nchecksums.publish = lambda *_: os.kill(os.getpid(), 9)\ncatalog, writer",
    )
    done = subprocess.run([sys.executable, "-c", script, str(lake.root), "0", "1"], check=False, timeout=60)
    assert done.returncode == -9
    assert "stedi.batch" in lake.catalog.table("quarantine").current.summary, "it died after its commit"  # type: ignore[union-attr]
    lake.catalog.append("quarantine", (), {})
    assert not any(check.found for check in lake.audit(files=True))
    assert os.path.exists(lake.root / "catalog.lock")
