"""A command in a bucket that is stopped for longer than its lease commits nothing of what it has planned."""

from __future__ import annotations

import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import buckets
import draws
import forks
import oracle
import servers
import worlds
from deliveries import customer, deliver, motion
from effort import NIGHTLY
from lakes import LANDING, conserved, contents, records
from stedi.catalog import Catalog
from stedi.catalog.remote import Remote
from stedi.erasure import remove
from stedi.errors import CommitConflict, LakeBusy
from stedi.lake import Lake
from stedi.landing import journal
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import COLUMNS
from stedi.storage import config as settings
from stedi.storage import durable, s3
from stedi.storage.s3 import leases
from stopped import LEASE, Command
from truth import Truth

pytestmark = pytest.mark.thorough

NOW = 1_700_000_000_000
OWNER = {
    table: [column.name for column in COLUMNS[table]].index(name)
    for table, name in (("customers_landing", "email"), ("accelerometer_landing", "user"))
}
"""Which column tells whose a row is."""
ANA, BO = "ana@x.example", "bo@x.example"
_SHORT = "from stedi.storage.s3 import leases; leases._LEASE = 2.0"


@pytest.fixture(scope="module")
def slate(s3_store: servers.Server, tmp_path_factory: pytest.TempPathFactory) -> buckets.Slate:
    return buckets.Slate(s3_store, tmp_path_factory.mktemp("worlds"))


@pytest.fixture
def lake(aws: servers.Server, slate: buckets.Slate, monkeypatch: pytest.MonkeyPatch) -> Lake:
    monkeypatch.setattr(leases, "_LEASE", 2.0)
    monkeypatch.setattr(leases, "_BEAT", 3600.0)  # as if the process were stopped
    return slate.made(slate.emptied())


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    both = [customer(who, NOW, NOW, serialNumber=who, registrationDate=NOW) for who in (ANA, BO)]
    deliver(tmp_path / "inbox", "customer", both)
    deliver(tmp_path / "inbox", "accelerometer", [motion(who, NOW) for who in (ANA, BO)])
    return tmp_path / "inbox"


def elsewhere(lake: Lake, *words: str) -> None:
    """Runs a command as another machine would, when the lease has gone."""
    time.sleep(2.5)
    with tempfile.TemporaryDirectory() as scratch:
        log = Path(scratch) / "log"
        with forks.command(["--lake", str(lake.root), *words], log, _SHORT, TMPDIR=scratch) as done:
            try:
                assert done.wait(300) == 0, log.read_text()
            finally:
                done.kill()


def meanwhile(patch: pytest.MonkeyPatch, where: Any, name: str, happens: Callable[[], None]) -> None:
    """Has something happen right before a function is called for the first time."""
    real, done = getattr(where, name), list[bool]()

    def late(*given: Any, **named: Any) -> Any:
        if not done:
            done.append(True)
            happens()
        return real(*given, **named)

    patch.setattr(where, name, late)


STOPPED = {
    "before its journal": (journal, "write"),
    "before its first commit": (journal, "apply"),
    "within a commit": (Remote, "commit"),
}


_EVERY = [(where, told, other) for where in STOPPED for told in (True, False) for other in ("land", "erase")]
_FEW = [("before its journal", False, "land"), ("within a commit", False, "erase")]


@pytest.mark.parametrize(("where", "told", "other"), _EVERY if NIGHTLY else _FEW)
def test_a_landing_that_was_stopped_lands_nothing_twice_and_nobody_who_was_erased(
    lake: Lake, inbox: Path, where: str, told: bool, other: str
) -> None:
    """`told` says whether the command looks at its lease once more before it writes."""
    words = ("land", str(inbox)) if other == "land" else ("erase", ANA, "--yes", "--exact")
    if other == "erase":
        lake.land(deliver(inbox.parent / "before", "customer", [customer(ANA, NOW, NOW, registrationDate=NOW)]))
    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, *STOPPED[where], lambda: elsewhere(lake, *words))
        if not told:
            patch.setattr(s3, "prove", lambda: None)
        # what was decided the other command has finished: then it is no failure
        decided = suppress(LakeBusy) if where != "before its journal" else pytest.raises((LakeBusy, CommitConflict))
        with decided:
            lake.land(inbox)
    landed = lake.land(inbox)
    assert (landed.seen, landed.accepted) == ((4, 4) if other == "land" else (4, 2))
    for table in LANDING:
        found = records(lake, table)
        assert not found or max(found.values()) == 1, table
        assert other == "land" or not any(ANA in map(str, row) for row in found), table
    conserved(lake)
    lake.build()
    assert not any(check.violations for check in lake.prove().checks)


@pytest.fixture
def command(lake: Lake, tmp_path: Path) -> Iterator[Callable[..., Command]]:
    """Starts commands that stop themselves; what of them is left at the end is killed."""
    started: list[Command] = []

    def start(place: str, *words: str) -> Command:
        log = tmp_path / f"command-{len(started)}.log"
        started.append(Command(place, ["--lake", str(lake.root), *words], log))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.mark.parametrize("other", ["land", "erase"])
def test_a_process_that_sleeps_for_longer_than_its_lease_commits_nothing(
    lake: Lake, inbox: Path, command: Callable[..., Command], other: str
) -> None:
    if other == "erase":
        lake.land(deliver(inbox.parent / "before", "customer", [customer(ANA, NOW, NOW, registrationDate=NOW)]))
    sleeps = command("stedi.landing.journal:write", "land", str(inbox))
    assert sleeps.rests()
    time.sleep(LEASE + 0.5)
    lake.land(inbox) if other == "land" else lake.erase(ANA)
    before = {table: (lake.history(table), records(lake, table)) for table in LANDING}
    code, said = sleeps.ends()
    assert (code, "run it again" in said or "Run the command again" in said) == (75, True), said
    assert {table: (lake.history(table), records(lake, table)) for table in LANDING} == before
    conserved(lake)


@dataclass(frozen=True, slots=True)
class World:
    """What two commands can do in a lake: it knows some records, and others wait in an inbox.

    Attributes:
        before: The records that have landed.
        waiting: Those that wait.
        people: Who can be erased, or withdraw.
    """

    before: dict[str, list[dict[str, object]]]
    waiting: dict[str, list[dict[str, object]]]
    people: tuple[str, ...]

    @staticmethod
    def drawn(chance: random.Random) -> World:
        """Few people share few devices and moments; some are known, some wait, some do both."""
        lists = [
            {
                "customer": [draws.customer(chance) for _ in range(chance.randint(2, 4))],
                "accelerometer": [draws.motion(chance) for _ in range(chance.randint(2, 5))],
                "step_trainer": [draws.step(chance) for _ in range(chance.randint(2, 5))],
            }
            for _ in range(2)
        ]
        return World(lists[0], lists[1], tuple(chance.choice(spellings) for spellings in worlds.PEOPLE))

    def after(self, key: Key, names: Sequence[str], at: int) -> oracle.Tables:
        """The tables if the commands ran one after the other."""
        truth = Truth(key.customer_id)
        truth.land([self.before])
        for name in [*names, "land"]:
            what, _, number = name.partition(" ")
            if what == "erase":
                truth.erase({key.customer_id(self.people[int(number)])}, at)
            elif what == "withdraw":
                truth.withdraw([self.people[int(number)]], at)
            elif len(truth.files) == 1:
                truth.land([self.waiting])
        return oracle.tables(truth.landed, at, "all", key.customer_id, truth.stones.claimants())


@pytest.mark.parametrize("seed", range(40) if NIGHTLY else [1])
def test_two_commands_that_sleep_anywhere_leave_the_lake_as_one_after_the_other_would(
    lake: Lake, tmp_path: Path, command: Callable[..., Command], seed: int
) -> None:
    """Each stops before any of its requests, for longer than its lease; what has failed is run again, as it asks to."""
    chance = random.Random(f"lease {seed}")
    world = World.drawn(chance)
    for feed in worlds.FEEDS:
        deliver(tmp_path / "before", feed, world.before[feed])
        deliver(tmp_path / "inbox", feed, world.waiting[feed])
    lake.land(tmp_path / "before")
    verbs = {"land": ("land", str(tmp_path / "inbox")), "build": ("build",)}
    for number, who in enumerate(world.people):
        verbs[f"erase {number}"] = ("erase", who, "--yes", "--exact")
        verbs[f"withdraw {number}"] = ("withdraw", who, "--yes", "--exact")
    names = [chance.choice([*verbs, "land"]) for _ in range(2)]
    places = [chance.randrange(1, 40) for _ in range(2)]
    print(f"seed {seed}: {dict(enumerate(zip(names, places, strict=True)))}")
    running = []
    for name, place in zip(names, places, strict=True):
        running.append(command(str(place), *verbs[name]))
        if running[-1].rests():
            time.sleep(LEASE + 0.5)
    failed = []
    for one in chance.sample([0, 1], 2):
        code, said = running[one].ends()
        assert code in (0, 1, 75), said
        assert "nforeseen" not in said
        print(names[one], code, said)
        if code:
            failed.append(names[one])
    for name in failed:
        assert command("0", *verbs[name]).ends()[0] in (0, 1)  # 1: nobody known, or it was done
    lake.land(tmp_path / "inbox")
    conserved(lake)
    lake.build()
    assert not any(check.violations for check in lake.prove().checks)
    assert not any(check.found for check in lake.audit())
    now = int(time.time() * 1000)
    found = contents(lake)
    either = [world.after(lake.key(), order, now) for order in (names, names[::-1])]
    assert any(all(found[table] == Counter(getattr(one, table)) for table in oracle.TABLES) for one in either)
    erased = {lake.key().customer_id(world.people[int(name[6:])]) for name in names if name.startswith("erase")}
    for table in LANDING[:2]:
        people = {lake.key().customer_id(str(row[OWNER[table]])) for row in records(lake, table)}
        assert not people & erased, table


def test_a_lease_that_is_renewed_is_held(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "_LEASE", 4.0)  # S3 tells whole seconds, and this machine may be busy for some
    with durable.lock(lake.root / "x.lock", wait=False):
        for _ in range(2):
            time.sleep(2.2)
            s3.prove()
        assert durable.is_held(lake.root / "x.lock")


def test_a_commit_that_was_made_is_not_made_again(lake: Lake, inbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Catalog.append

    def twice(self: Catalog, *given: Any, **named: Any) -> Any:
        real(self, *given, **named)
        return real(self, *given, **named)

    monkeypatch.setattr(Catalog, "append", twice)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "_LEASE", 600.0)
        lake.land(inbox)
        lake.land(inbox)  # the first leaves the rest to whoever seems to have come first
    assert sum(records(lake, "customers_landing").values()) == 2
    conserved(lake)


@pytest.mark.parametrize("before", [None, b"one"], ids=["a new file", "a file"])
def test_a_file_is_written_only_over_what_it_was_under_the_lock(lake: Lake, before: bytes | None) -> None:
    path = lake.root / "state"
    if before:
        durable.write(path, before)
    with durable.lock(lake.root / "x.lock", wait=False):
        with pytest.MonkeyPatch.context() as patch:
            # stopped right after it has looked at its lease
            patch.setattr(leases, "prove", lambda: s3.write(path, b"another's"))
            with pytest.raises(LakeBusy):
                durable.write(path, b"late")
        assert path.read_bytes() == b"another's"
        durable.write(path, b"next")
    assert path.read_bytes() == b"next"


def test_a_file_that_was_removed_can_be_written_again_where_versions_are_kept(lake: Lake) -> None:
    s3.client().put_bucket_versioning(Bucket=lake.root.parts[1], VersioningConfiguration={"Status": "Enabled"})
    path = lake.root / "state"
    with durable.lock(lake.root / "x.lock", wait=False):
        for content in (b"one", b"two"):
            durable.write(path, content)
            assert path.read_bytes() == content
            durable.remove(path)


def late(patch: pytest.MonkeyPatch, part: str, happens: Callable[[], None]) -> None:
    """Has something happen when a file is about to be written, right after the command has looked at its lease."""
    real, done = leases.write, list[bool]()

    def write(path: Path, *given: Any, **named: Any) -> Any:
        if part in str(path) and not done:
            done.append(True)
            happens()
        return real(path, *given, **named)

    patch.setattr(leases, "write", write)


def whole(lake: Lake) -> None:
    """Makes sure that the lake works, and that every file that it names is there."""
    lake.build()
    assert not any(check.found for check in lake.audit())
    assert not any(check.violations for check in lake.prove().checks)
    conserved(lake)
    for table in LANDING:
        found = records(lake, table)
        assert not found or max(found.values()) == 1, table


@pytest.mark.sample(full=1)
@pytest.mark.parametrize("words", [("land", "known"), ("maintain",)], ids=["land", "maintain"])
def test_a_landing_does_not_commit_files_that_were_removed_while_it_was_stopped(
    lake: Lake, inbox: Path, words: tuple[str, ...]
) -> None:
    settings.write(settings.changed(lake.config, grace_hours=0.0), lake.root / "lake.toml")
    known = deliver(inbox.parent / "known", "customer", [customer("old@x.example", NOW, NOW, registrationDate=NOW)])
    lake = Lake.open(lake.root)
    lake.land(known)
    told = [str(known) if word == "known" else word for word in words]
    with pytest.MonkeyPatch.context() as patch:
        late(patch, "/pending/", lambda: elsewhere(lake, *told))
        with pytest.raises((LakeBusy, CommitConflict)):
            lake.land(inbox)
    lake.land(inbox)
    assert sum(records(lake, "customers_landing").values()) == 3
    whole(lake)


def test_an_erasure_that_others_have_finished_removes_nothing_of_theirs(lake: Lake, inbox: Path) -> None:
    lake.land(inbox)
    lake.build()
    with pytest.MonkeyPatch.context() as patch:
        meanwhile(patch, remove.Removal, "_lineage", lambda: elsewhere(lake, "erase", "--resume"))
        with pytest.raises((LakeBusy, CommitConflict)):
            lake.erase(ANA)
    assert not any(ANA in map(str, row) for table in LANDING for row in records(lake, table))
    assert sum(records(lake, "customers_landing").values()) == 1
    whole(lake)


def test_an_erasure_that_is_decided_late_looks_again(lake: Lake, inbox: Path) -> None:
    lake.land(inbox)
    more = deliver(inbox.parent / "more", "customer", [customer(ANA, NOW, NOW + 1, registrationDate=NOW)])
    with pytest.MonkeyPatch.context() as patch:
        late(patch, "erasing.json", lambda: elsewhere(lake, "land", str(more)))
        with pytest.raises(LakeBusy):
            lake.erase(ANA)
    assert (lake.root / "erasing.json").is_file()
    lake.land(inbox)  # which finishes it first
    assert not any(ANA in map(str, row) for table in LANDING for row in records(lake, table))
    assert sum(records(lake, "customers_landing").values()) == 1
    whole(lake)


@pytest.mark.parametrize(
    "words",
    [("land", "more"), ("build",), ("maintain",)] if NIGHTLY else [("land", "more")],
    ids=lambda words: words[0],
)
def test_a_change_of_key_that_is_decided_late_is_finished_or_given_up(
    bucket: str, inbox: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """Another machine has worked meanwhile, which discards what was staged and does not know of the change."""
    monkeypatch.setattr(leases, "_LEASE", 2.0)
    monkeypatch.setattr(leases, "_BEAT", 3600.0)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    lake = Lake.create(f"s3://{bucket}/lake", key_file=inbox.parent / "first.key")
    lake.land(inbox)
    lake.build()
    old, before = lake.key(), contents(lake)
    more = deliver(inbox.parent / "more", "accelerometer", [motion(BO, NOW + 1)])
    told = [str(more) if word == "more" else word for word in words]
    with pytest.MonkeyPatch.context() as patch:
        late(patch, "rotation.json", lambda: elsewhere(lake, *told))
        with pytest.raises((LakeBusy, CommitConflict)):
            lake.rotate_key(inbox.parent / "second.key")
    for _ in range(3):  # what was decided another command finishes, or gives up and says so
        with suppress(CommitConflict):
            Lake.open(lake.root).build()
            break
        time.sleep(0.1)
    assert not (lake.root / "rotation.json").exists()
    found = Lake.open(lake.root)
    assert found.key() == old or old in found.key().every()
    for table, rows in contents(found).items():
        expected = before[table].total() + (words[0] == "land" and table in ("accelerometer_trusted",))
        assert rows.total() == expected, table
    whole(found)
    found.rotate_key(inbox.parent / "third.key")
    whole(found)


def test_a_command_that_has_lost_its_lease_removes_nothing(lake: Lake) -> None:
    paths = [lake.root / "folder" / name for name in ("one", "two")]
    for path in paths:
        durable.write(path, b"theirs")
    removals: list[Callable[[], None]] = [
        lambda: durable.remove(paths[0]), lambda: durable.remove_all(paths),
        lambda: durable.remove_tree(paths[0].parent),
    ]  # fmt: skip
    with durable.lock(lake.root / "x.lock", wait=False):
        # until another has taken it over for certain: a server's clock may be seconds behind on a busy machine
        with durable.lock(lake.root / "x.lock", wait=60):
            pass
        for removal in removals:
            with suppress(LakeBusy):
                removal()
            assert [path.read_bytes() for path in paths] == [b"theirs"] * 2


def test_a_file_is_removed_only_as_it_was_under_the_lock(lake: Lake) -> None:
    path = lake.root / "state"
    durable.write(path, b"one")
    with durable.lock(lake.root / "x.lock", wait=False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(leases, "prove", lambda: s3.write(path, b"another's"))
            with pytest.raises(LakeBusy):
                durable.remove(path)
        assert path.read_bytes() == b"another's"
        durable.remove(path)
        assert not path.exists()
        durable.remove(path)


def test_no_two_attempts_of_an_erasure_share_a_folder(
    new_lake: Callable[..., Lake], inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that has lost its locks clears away or overwrites nothing that who took over has committed."""
    lake, folders = new_lake(), list[Path]()
    lake.land(inbox)

    class Dies(BaseException):
        pass

    def written(self: remove.Removal, *given: Any) -> Any:
        folders.append(given[3])
        raise Dies

    with monkeypatch.context() as patch:
        patch.setattr(remove.Removal, "_rewritten", written)
        for addresses in ((ANA,), ()):
            with pytest.raises(Dies):
                lake.erase(*addresses)
    assert len({*folders}) == len(folders) == 2
    assert lake.erase()[0].clean
    whole(lake)
