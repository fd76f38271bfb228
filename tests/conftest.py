"""Shared fixtures: separate lakes, sample deliveries, and the public data if it is available.

No test uses the home folder of its user: the session has its own home, configuration folder and pseudonym key.
"""

from __future__ import annotations

import contextlib
import gc
import os
import secrets
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

import effort
import forks
import proof_mutants
import quick
import servers
import sparks
import sweep_mutants
import wire
from lakes import KEY, REPOSITORY, Slate, unseen
from stedi.lake import Lake
from stedi.landing import sample
from stedi.storage import s3

PUBLIC_DATA = REPOSITORY.parent / "shared" / "data" / "stedi-2023"

_MEMORY, _ROOM = Path("/dev/shm"), 6 << 30


def pytest_configure() -> None:
    """Puts the tests' folders into memory if there is room: on disk each commit of a lake waits for the disk."""
    settings.register_profile("busy", deadline=None)  # a machine that runs other tests, too, may be slow at any time
    settings.load_profile("busy")
    gc.disable()  # until the tests are collected: none of them goes
    with contextlib.suppress(OSError):
        if os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free >= _ROOM:
            os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))


def pytest_report_header() -> str:
    """Reports the level of the tests."""
    return f"STEDI_TESTS={effort.LEVEL}"


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Lets each process begin with another file of a folder: the first to rewrite a file's assertions saves the result.

    In the same order, all of them would rewrite the same file at the same time.
    """
    report = yield
    if isinstance(collector, pytest.Dir):
        process = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
        first = len(report.result) * process // int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
        report.result = [*report.result[first:], *report.result[:first]]
    return report


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests for CI or the night, and puts the longest first, so that all processes end about together.

    The order is the same in every process, whatever the order in which it found the files.
    """
    waiting = effort.left_out(items)
    config.hook.pytest_deselected(items=[item for item in items if item in waiting])
    items[:] = [item for item in items if item not in waiting]
    order = {folder: place for place, folder in enumerate(("spark", "faults", "properties", "aws", "integration"))}
    items.sort(key=lambda item: (order.get(_shared(item.nodeid).split("/")[1], len(order)), _file(item.nodeid)))


def pytest_collection_finish() -> None:
    """Exempts modules and thousands of tests from garbage collection: they live as long as the process."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000)  # as a command sets it
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Uses one process more than there are cores, since some tests wait for leases, servers or executors."""
    return (os.cpu_count() or 1) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Runs each file in one process, and all files that share a stage or Spark."""
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
        def _split_scope(self, nodeid: str) -> str:
            return _shared(nodeid)

    return Files(config, log)


_TOGETHER = ("tests/faults/on_stage", "tests/spark")
"""The folders whose tests share what takes ten seconds to make: a stage, or a running Spark."""


def _file(nodeid: str) -> str:
    return nodeid.split("::", 1)[0]


def _shared(nodeid: str) -> str:
    folder = _file(nodeid).rpartition("/")[0]
    return "tests/spark" if "[spark-" in nodeid else folder if folder in _TOGETHER else _file(nodeid)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Decides whether the test starts the lake's processes and engines as in production."""
    forks.OWN = item.get_closest_marker("own_processes") is not None
    quick.OWN = item.get_closest_marker("own_engine") is not None or item.nodeid.startswith("tests/unit/")
    os.environ[_THREADS] = "1"  # every core already runs tests
    if effort.NIGHTLY or quick.OWN or (item.nodeid.startswith("tests/properties/") and not effort.QUICK):
        del os.environ[_THREADS]


_THREADS = "STEDI_ENGINE_THREADS"


@pytest.fixture(scope="session", autouse=True)
def _one_engine() -> Iterator[None]:
    with quick.one_engine():
        yield


@pytest.fixture(scope="session", autouse=True)
def _forks(_own_home: None) -> Iterator[None]:
    with forks.forking():
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("STEDI_") and name != _THREADS]:
            patch.delenv(variable)
        patch.delenv("COLUMNS", raising=False)  # xdist's processes have this variable, as terminals do
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        patch.setenv("XDG_STATE_HOME", str(home / ".local" / "state"))
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        sweep_mutants.apply()
        patch.setenv("STEDI_QUERY_ROLE", "officer")  # tests read everything; tests of roles set their own role
        yield


@pytest.fixture(autouse=True)
def _own_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives each test its own record of seen lake states: tests that share a lake restore it in between."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "seen" / secrets.token_hex(8)))
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The public data set of 2023; the project may not include it."""
    if not PUBLIC_DATA.is_dir():
        pytest.skip(f"the public data set is not at {PUBLIC_DATA}: it is licensed for non-commercial use only")
    return PUBLIC_DATA


@pytest.fixture(scope="session")
def sample_inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dirty sample, with `answer.json` beside it; read-only."""
    folder = tmp_path_factory.mktemp("sample")
    sample.write(folder, customers=20, readings=600, seed=11)
    return folder


@pytest.fixture
def new_lake(tmp_path: Path) -> Callable[..., Lake]:
    """Makes lakes: `new_lake()`, `new_lake("other", readings="since-consent")`."""

    def make(name: str = "lake", **options: str) -> Lake:
        return Lake.create(tmp_path / name, **options)  # type: ignore[arg-type] # tests also pass wrong options

    return make


@pytest.fixture
def lake(new_lake: Callable[..., Lake]) -> Lake:
    """A new, empty lake."""
    return new_lake()


@pytest.fixture(scope="module")
def slate() -> Iterator[Slate]:
    """A lake for a module's tests: reset in milliseconds, fast, and in memory if the machine has such a place."""
    with quick.folder() as folder, quick.quickened():
        yield Slate(folder)


@pytest.fixture
def inbox(slate: Slate) -> Path:
    """An empty folder beside that lake."""
    return slate.inbox()


@pytest.fixture(scope="session")
def spark_events(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which Spark logs its events."""
    return tmp_path_factory.mktemp("events")


@pytest.fixture(scope="session")
def spark(request: pytest.FixtureRequest, spark_events: Path) -> Iterator[Any]:
    """A running Spark, which can also reach the tests' S3 server if there is one."""
    if sparks.NO_SPARK:
        pytest.skip(sparks.NO_SPARK)
    reaches: Mapping[str, str] = {}
    if servers.VERSITYGW and sparks.JARS_OF_S3:
        store, moto = (request.getfixturevalue(name) for name in ("s3_server", "moto_server"))
        reaches = servers.environment(s3=store, aws=moto)
    with sparks.started(spark_events, reaches) as session:
        yield session


@pytest.fixture(params=sparks.ENGINES)
def engine_name(request: pytest.FixtureRequest) -> str:
    """The name of each engine in turn; for Spark, Spark is running."""
    if request.param == "spark":
        request.getfixturevalue("spark")
    return str(request.param)


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """AWS in memory: Glue, Athena, IAM, CloudFormation, Secrets Manager, and an S3."""
    with servers.moto(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[servers.Server]:
    """A real S3 server."""
    if servers.VERSITYGW is None:
        pytest.skip(servers.NO_VERSITYGW)
    with servers.versitygw(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a PostgreSQL database for a catalog; tests share its content."""
    if servers.POSTGRES is None:
        pytest.skip(servers.NO_POSTGRES)
    with servers.postgres() as url:
        yield url


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The lake of the people, and a copy of it as built."""
    folder = tmp_path_factory.mktemp("people")
    lake = proof_mutants.make(Lake.create(folder / "lake", readings="since-consent"), folder / "inbox")
    shutil.copytree(lake.root, folder / "kept")
    return lake.root, folder / "kept"


@pytest.fixture
def people(kept: tuple[Path, Path]) -> Lake:
    root, copy = kept
    shutil.rmtree(root)
    shutil.copytree(copy, root)
    return unseen(root)


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every value that executors send to this process."""
    return sparks.collecting(monkeypatch)


@pytest.fixture(scope="session")
def s3_store(request: pytest.FixtureRequest, moto_server: servers.Server) -> servers.Server:
    """An S3 server: a real one if there is one, or moto's."""
    return request.getfixturevalue("s3_server") if servers.VERSITYGW else moto_server


@pytest.fixture
def aws(
    moto_server: servers.Server, s3_store: servers.Server, monkeypatch: pytest.MonkeyPatch
) -> Iterator[servers.Server]:
    """An empty AWS: S3 is a real server if there is one, everything else is moto's."""
    servers.reset(moto_server)
    for name, value in servers.environment(s3=s3_store, aws=moto_server).items():
        monkeypatch.setenv(name, value)
    s3.client.cache_clear()
    with quick.one_engine(), wire.cheap(), wire.few_clients():
        yield moto_server
    s3.client.cache_clear()


@pytest.fixture
def bucket(aws: servers.Server) -> str:
    """The name of a new bucket of that AWS."""
    return servers.new_bucket()


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed release made without a lake; read-only."""
    import releases

    return releases.made(tmp_path_factory.mktemp("release") / "steps")


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    """A copy of that release, as it was handed out."""
    return Path(shutil.copytree(release, tmp_path / "copy"))
