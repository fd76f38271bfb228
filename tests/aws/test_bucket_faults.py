"""Every call by which commands on a lake in a bucket reach S3 and its catalog: throttled, refused, cut, answer lost,
and its caller killed.

What fails once is done all the same. What fails from there on ends the command with one clear line, each table as it
was or as it will be; when the network is back, running it again ends in the rows of an undisturbed run. By day a
sample of the calls is struck, by `make nightly` every one of them, the kinds of fault taking turns.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import os
import random
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest

import forks
import lakes
import quick
import servers
import wire
from buckets import Bucket, World
from effort import NIGHTLY
from s3_faults import KINDS, Call, Fault, Kind, Proxy, proxied
from stage import _deliveries
from stedi import cli
from stedi.catalog import Catalog, checksums
from stedi.catalog.snapshots import data_files, manifests
from stedi.engines.literals import quoted
from stedi.engines.table_files import scan
from stedi.landing import withdrawal
from stedi.schema.tables import COLUMNS
from stedi.storage import config as settings
from stedi.storage import s3
from stedi.storage.s3 import connection, leases, objects

SCENES = ("land", "build", "later land", "later build", "audit", "withdraw", "maintain", "erase")
SAMPLED = {
    "land": ("s3",),
    "later build": ("catalog",),
    "withdraw": ("catalog",),
    "maintain": ("s3",),
    "erase": ("s3",),
}
"""What is struck by day."""
STRUCK = SCENES if NIGHTLY else tuple(SAMPLED)
KILLED = [name for name in SCENES if name != "audit"] if NIGHTLY else ["later build", "erase"]
KILLS: tuple[Kind, ...] = ("error", "lost")
"""What a call comes to whose caller is killed: not done, or done and nobody there to be told."""
VOLATILE = {*lakes.VOLATILE, "sha256", "_file"}
"""Columns that differ from one landing of the same records to the next, in files of other bytes."""

Tables = dict[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Scene:
    """One command, undisturbed.

    Attributes:
        words: The command.
        start: The world before it.
        calls: How it called S3, and how it called the catalog.
        before: Each table before it.
        built: Each table between, where the command begins with a build of what is due.
        after: Each table after it.
        again: The commands that set things right after a fault.
        final: Each table after an undisturbed run and the build of what it left due.
    """

    words: tuple[str, ...]
    start: World
    calls: dict[str, tuple[Call, ...]]
    before: Tables
    built: Tables
    after: Tables
    again: tuple[tuple[str, ...], ...]
    final: Tables


class Stage:
    """One bucket and one database, where scenes are played, behind proxies."""

    def __init__(self, folder: Path, store: servers.Server, proxies: dict[str, Proxy]) -> None:
        self._proxies, self._bucket = proxies, Bucket(store, folder)
        self.place = self._bucket.place
        self.lake = s3.at(f"{self.place}/lake")
        for name, delivery in zip(("first", "second"), _deliveries(folder), strict=True):
            files = [path for path in delivery.rglob("*") if path.is_file()]
            s3.upload((path, s3.at(f"{self.place}/{name}") / path.relative_to(delivery)) for path in files)
        assert self.run("init")[0] == 0
        file = self.lake / "lake.toml"
        # so that the next command removes leftovers at once instead of waiting for readers
        settings.write(settings.changed(settings.read(file), grace_hours=0.0), file)
        land, later, build = ("land", f"{self.place}/first"), ("land", f"{self.place}/second"), ("build",)
        audit = ("audit", "--files")
        withdraw, maintain = ("withdraw", "p2@x.example", "--yes"), ("maintain",)
        erase = ("erase", "P1@x.example", "--yes", "--inbox", f"{self.place}/first")
        plays = {
            "land": (land, (land, build)),
            "build": (build, (build,)),
            "later land": (later, (later, build)),
            "later build": (build, (build, maintain) if NIGHTLY else (build,)),
            "audit": (audit, ()),
            # what a withdrawal that met an outage could not take back, maintenance removes
            "withdraw": (withdraw, (withdraw, build, maintain)),
            "maintain": (maintain, (maintain, build)),
            "erase": (erase, (erase, build)),
        }
        # rows of an undisturbed run, after which `again` changes none: of the scene itself, or of one that comes later
        ends = {"land": "build", "later land": "later build", "withdraw": "due", "maintain": "due"}
        tables: dict[str, Tables] = {}
        played: dict[str, Scene] = {}
        world, seen = self._bucket.kept("init"), self.look()
        for name, (words, again) in plays.items():
            if name == "audit" and name not in STRUCK:
                continue  # it changes nothing
            before = built = seen
            if name == "erase":  # which first builds what is due: the withdrawal
                assert self.run("build")[0] == 0
                built = tables["due"] = self.look()
                self.set_up(world)
            for proxy in self._proxies.values():
                proxy.calls = []
            code, said = self.run(*words)
            assert code == 0, said
            calls = {kind: tuple(proxy.calls) for kind, proxy in self._proxies.items()}
            seen = tables[name] = self.look()
            played[name] = Scene(words, world, calls, before, built, seen, again, seen)
            world = self._bucket.kept(name)
        self.scenes = {name: replace(played[name], final=tables[ends.get(name, name)]) for name in STRUCK}

    def run(self, *words: str) -> tuple[int, str]:
        """Runs a command; returns its exit code and what it said."""
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([*words, "--lake", str(self.lake)])
        return code, err.getvalue()

    def set_up(self, world: World) -> None:
        """Puts a world in its place."""
        # nobody has seen the lake further on than it is now
        shutil.rmtree(Path(os.environ["XDG_STATE_HOME"]) / "stedi", ignore_errors=True)
        self._bucket.put_back(world)

    def here(self, location: str) -> Path:
        """Returns the file in which the server keeps an object."""
        return self._bucket.path / s3.at(location).relative_to(s3.at(self.place))

    def look(self) -> Tables:
        """Returns each table as a reader sees it: rows as count and digest; all that its snapshots need is there."""
        catalog, tables = Catalog(self.lake), {}
        connection = duckdb.connect(config={"threads": 1})
        connection.execute("set TimeZone = 'UTC'")
        for name, state in catalog.tables().items():
            shown = ", ".join(
                f"epoch_ms({quoted(c.name)})" if c.type == "timestamptz" else f"{quoted(c.name)}::varchar"
                for c in COLUMNS[name]
                if c.name not in VOLATILE
            )
            for snapshot in (None, *state.snapshots):  # old tables, too
                files = data_files(name, snapshot or state.current)
                local = [replace(file, path=str(self.here(file.path))) for file in files]
                assert all(Path(file.path).stat().st_size == file.bytes for file in local)
                if snapshot is not None:
                    metadata = (snapshot.manifest_list, *manifests(name, snapshot))
                    assert all(self.here(path).is_file() for path in metadata)
                found = connection.execute(f"select {shown} from ({scan(local, COLUMNS[name])})").fetchall()
                if snapshot is None:
                    digest = hashlib.sha256("\n".join(sorted(map(repr, found))).encode()).hexdigest()
                    tables[name] = (len(found), digest)
        connection.close()
        return tables

    def strays(self, *, metadata: bool) -> list[str]:
        """Returns what lies about in the bucket that no snapshot uses, and no later command removes."""
        catalog, found = Catalog(self.lake), []
        for name, state in catalog.tables().items():
            used = {file.path for snapshot in state.snapshots for file in data_files(name, snapshot)}
            used |= set(state.metadata)
            for snapshot in state.snapshots:
                used |= {snapshot.manifest_list, *manifests(name, snapshot)}
            below = catalog.folder(name) if metadata else catalog.folder(name) / "data"
            found += [str(entry.path) for entry in s3.listing(below) if str(entry.path) not in used]
            found += [f"{name}@{branch}" for branch in state.branches if branch != "main"]
        found += [str(entry.path) for part in ("pending", "tmp") for entry in s3.listing(self.lake / part)]
        found += [upload["Key"] for upload in objects._uploads(s3.at(self.place), bool)]  # type: ignore[arg-type] # at() gives an S3Path here
        return found


@pytest.fixture(scope="module")
def bucket_stage() -> Iterator[tuple[Stage, dict[str, Proxy]]]:
    """The stage of every test here, with the proxies before S3 and before the catalog."""
    if servers.VERSITYGW is None:
        pytest.skip(servers.NO_VERSITYGW)
    from botocore.retries.standard import ExponentialBackoff

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=memory, ignore_cleanup_errors=True)))
        for name in ("s3", "aws", "worlds", "tmp"):
            (folder / name).mkdir()
        store = stack.enter_context(servers.versitygw(folder / "s3"))
        aws = stack.enter_context(servers.moto(folder / "aws"))
        proxies = {name: stack.enter_context(proxied(at.url)) for name, at in (("s3", store), ("catalog", aws))}
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in servers.environment(s3=store, aws=aws).items():
            patch.setenv(name, value)
        patch.setenv("AWS_ENDPOINT_URL_S3", proxies["s3"].url)
        patch.setenv("AWS_ENDPOINT_URL_GLUE", proxies["catalog"].url)
        patch.setattr(tempfile, "tempdir", str(folder / "tmp"))
        patch.setattr(ExponentialBackoff, "delay_amount", lambda *_: 0.001)
        for module in (connection, objects):
            patch.setattr(module, "pause", lambda attempt: 0.001)
        patch.setattr(withdrawal, "time", SimpleNamespace(time=lambda: 1_800_000_000.0))  # a withdrawal is dated
        statements = s3.engine_statements
        patch.setattr(s3, "engine_statements", lambda: [*statements(), "set http_retry_wait_ms = 1"])
        # a lock that could not be given back is nobody's at once
        if NIGHTLY:
            patch.setattr(leases, "_LEASE", -60.0)  # and each proof renews a lock, which faults strike, too
        else:
            held = leases._held
            patch.setattr(leases, "_held", lambda path: (found := held(path)) and (math.inf, found[1]))
        # metadata files keep their names and contents from one world to the next
        patch.setattr(checksums, "_read_object", lru_cache(maxsize=None)(checksums._read_object.__wrapped__))
        s3.client.cache_clear()
        stack.enter_context(quick.one_engine())
        stack.enter_context(wire.cheap())
        stack.enter_context(wire.few_clients())
        try:
            yield Stage(folder / "worlds", store, proxies), proxies
        finally:
            s3.client.cache_clear()


def faults(scene: Scene, name: str) -> Iterator[tuple[str, Fault]]:
    """Yields faults and whose calls they strike: of every call, or by day of one that changes something."""
    if NIGHTLY:
        for whose, calls in scene.calls.items():
            for number, call in enumerate(calls, start=1):
                kind, lasting = KINDS[number % len(KINDS)], number // len(KINDS) % 2
                yield whose, Fault(kind, number, None if lasting else number)
                if changes(call):
                    yield whose, Fault(kind, number, number if lasting else None)
        return
    for whose in SAMPLED[name]:
        turn = [(other, place) for other, places in SAMPLED.items() for place in places].index((name, whose))
        changing = [number for number, call in enumerate(scene.calls[whose], start=1) if changes(call)]
        number = random.Random(name).choice(changing)
        yield whose, Fault(KINDS[turn % len(KINDS)], number, None if turn % 2 else number)


def changes(call: Call) -> bool:
    return call.operation.startswith(("PUT", "POST", "DELETE", "AWSGlue.Update"))


def struck(stage: Stage, proxy: Proxy, scene: Scene, fault: Fault) -> Iterator[str]:
    """Strikes a scene; yields what is wrong with how it ended, with what readers see, and with what a rerun makes."""
    stage.set_up(scene.start)
    with proxy.failing(fault):
        code, said = stage.run(*scene.words)
    lines = [line for line in said.splitlines() if line.startswith("stedi: ")]
    seen = stage.look()
    if code == 0:
        if seen != scene.after:
            yield f"said that it had worked, and had not: {said}"
    elif fault.last is not None:
        yield f"one fault was not survived: exit {code}: {said}"
    elif code != 1 or len(lines) != 1:
        yield f"expected exit 1 and one line, found {code} and {said}"
    # nothing is damaged: S3 did not answer
    if any(word in said for word in ("@", "Traceback", "unforeseen", "on recovery", "stedi repair")):
        yield f"unclear: {said}"
    for name, found in seen.items():
        if found not in (scene.before[name], scene.built[name], scene.after[name]):
            yield f"{name} is neither old nor new"
    for words in scene.again:
        code, said = stage.run(*words)
        if code:
            yield f"{words[0]} again: exit {code}: {said}"
            return
    yield from ended(stage, scene, metadata=("maintain",) in scene.again)


def ended(stage: Stage, scene: Scene, *, metadata: bool) -> Iterator[str]:
    """Yields what differs from the end of a scene in which nothing failed."""
    at_last = stage.look()
    for name, rows in scene.final.items():
        if at_last.get(name) != rows:
            yield f"{name}: expected {rows}, found {at_last.get(name)}"
    left = stage.strays(metadata=metadata)
    if left:
        yield f"left behind: {left}"


@pytest.mark.parametrize("name", STRUCK)
def test_a_fault_at_any_call_to_a_bucket_or_its_catalog_loses_and_doubles_nothing(
    bucket_stage: tuple[Stage, dict[str, Proxy]], name: str
) -> None:
    stage, proxies = bucket_stage
    scene = stage.scenes[name]
    failures, tried = [], Counter[Kind]()
    for kind, calls in scene.calls.items():
        print(f"{name}: {len(calls)} calls to {kind}: {dict(Counter(call.operation for call in calls))}")
    for kind, fault in faults(scene, name):
        lasting = "" if fault.last else " and on"
        at = f"{fault.kind} at {fault.first}{lasting} of {kind}, {scene.calls[kind][fault.first - 1].operation}"
        failures += [f"{at}: {wrong}" for wrong in struck(stage, proxies[kind], scene, fault)]
        tried[fault.kind] += 1
    print(f"{name}: {sum(tried.values())} faults, {dict(tried)}; {len(failures)} failures")
    assert not failures, "\n".join(failures)


DYING = """
from types import SimpleNamespace
from stedi.landing import withdrawal
import sweep_mutants
sweep_mutants.apply()
withdrawal.time = SimpleNamespace(time=lambda: 1_800_000_000.0)
"""

pytestmark = pytest.mark.thorough


def killed(stage: Stage, proxy: Proxy, scene: Scene, kind: Kind, number: int) -> Iterator[str]:
    """Kills a scene's process at a call, before it is done or right after; yields what is wrong then."""
    stage.set_up(scene.start)
    born = threading.Event()
    child: list[forks.Fork] = []

    def kill(_: Call) -> bool:
        born.wait(10)
        child[0].kill()
        return True

    with proxy.failing(Fault(kind, number, number, kill)):
        child.append(forks.command([*scene.words, "--lake", str(stage.lake)], Path(os.devnull), DYING))
        born.set()
        with child[0]:
            try:
                code = child[0].wait(60)
            finally:
                child[0].kill()
    if code != -signal.SIGKILL:
        yield f"it was not killed: exit {code}"
    for name, found in stage.look().items():
        if found not in (scene.before[name], scene.built[name], scene.after[name]):
            yield f"{name} is neither old nor new"
    for words in dict.fromkeys((*scene.again, ("maintain",))):
        code, said = stage.run(*words)
        if code:
            yield f"{words[0]} again: exit {code}: {said}"
            return
    yield from ended(stage, scene, metadata=True)


@pytest.mark.parametrize("name", KILLED)
def test_a_command_that_is_killed_at_a_call_to_a_bucket_or_its_catalog_loses_and_doubles_nothing(
    bucket_stage: tuple[Stage, dict[str, Proxy]], name: str
) -> None:
    stage, proxies = bucket_stage
    scene = stage.scenes[name]
    moments: list[tuple[str, int]] = [
        (whose, number)
        for whose, calls in scene.calls.items()
        for number, call in enumerate(calls, start=1)
        if changes(call)
    ]
    every = [(at, kind) for at in moments for kind in KILLS]
    chosen = every if NIGHTLY else [random.Random(name).choice(every)]
    failures = [
        f"killed {'before' if kind == 'error' else 'after'} call {number} to {whose}, "
        f"{scene.calls[whose][number - 1].operation}: {wrong}"
        for (whose, number), kind in chosen
        for wrong in killed(stage, proxies[whose], scene, kind, number)
    ]
    print(
        f"{name}: killed {len(chosen)} times, of {len(moments)} calls that change something; {len(failures)} failures"
    )
    assert not failures, "\n".join(failures)
