"""docs/operations.md says how to recover from each kind of damage: its commands are run here as they stand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import LANDING, conserved, contents, records
from stedi.catalog import Catalog, checksums, snapshots
from stedi.errors import DamagedFile, LakeError
from stedi.lake import Lake
from stedi.storage import durable

BELOW = "A table below landing is damaged"
CATALOG = "The catalog is damaged, missing, or older than its tables"
BACKUP = "A landing table is damaged, and there is a backup"
NO_BACKUP = "A landing table is damaged, and there is no backup"
SET_BACK = "The lake was rolled back on purpose"
CHECKSUMS = "Checksums are damaged or missing"
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text("utf-8")


def recipe(title: str) -> str:
    """Returns the shell commands below a heading."""
    found = re.search(rf"^### {re.escape(title)}\n(?:(?!^###? ).)*?^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/operations.md has no commands for: {title}"
    return found[1]


class World:
    """A lake with a backup of yesterday, deliveries of yesterday and today, and what its tables should be."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inbox, self.backup = folder / "inbox", folder / "backup"
        self.lake = Lake.create(folder / "lake", key_file=folder / "lake.key")
        self.deliver(1)
        shutil.copytree(self.lake.root, self.backup)
        self.deliver(2)
        self.expected: dict[str, Any] = self.tables()
        self.whole = self.expected
        shutil.copytree(self.lake.root, folder / "kept")

    def deliver(self, day: int) -> None:
        emails = [f"{day}@x.example", f"{day}.withdrawn@x.example", f"{day}.erased@x.example"]
        customers = [customer(email, serialNumber=email) for email in emails]
        deliver(self.inbox, "customer", [*customers, {"email": emails[0]}], f"{day}.json")
        motions = [motion(email, at) for email in emails for at in (100, 101)]
        deliver(self.inbox, "accelerometer", motions, f"{day}.json")
        deliver(self.inbox, "step_trainer", [step(email) for email in emails], f"{day}.json")
        self.lake.land(self.inbox)
        self.lake.build()

    def lose_people(self) -> None:
        """Has a customer withdraw by command and erases another: no delivery and no backup tells of either."""
        self.lake.withdraw("1.withdrawn@x.example")
        self.lake.erase("1.erased@x.example")
        self.lake.build()
        self.expected = self.tables()

    def tables(self) -> dict[str, Any]:
        return contents(self.lake) | {name: records(self.lake, name) for name in LANDING}

    def restore(self) -> None:
        shutil.rmtree(self.lake.root)
        shutil.rmtree(self.folder / "lake.damaged", ignore_errors=True)
        shutil.copytree(self.folder / "kept", self.lake.root)
        self.lake = Lake.open(self.lake.root)
        self.expected = dict(self.whole)
        shutil.rmtree(self.lake.context.outside(), ignore_errors=True)
        self.lake.context.note_seen()

    def follow(self, title: str) -> None:
        """Runs what the page says for this kind of damage, as a person would."""
        bin_folder = Path(sys.executable).parent
        environment = {
            **os.environ,
            "PATH": f"{bin_folder}:{os.environ['PATH']}",
            "STEDI_LAKE": str(self.lake.root),
            "STEDI_KEY_FILE": str(self.folder / "lake.key"),
            "INBOX": str(self.inbox),
            "BACKUP": str(self.backup),
            "JOURNAL": str(self.lake.context.outside()),
        }
        command = ["sh", "-e", "-c", recipe(title)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, done.stderr
        self.lake = Lake.open(self.lake.root)

    def right(self) -> None:
        """Holds the lake to what it should be: rows, ledger and every byte."""
        assert self.tables() == self.expected
        conserved(self.lake)
        assert not [found for check in self.lake.audit(files=True) for found in check.found]

    def metadata(self, table: str) -> Path:
        return Path(snapshots.local_path(snapshots.listed(self.lake.catalog.path)[table]))

    def data(self, table: str) -> Path:
        return Path(self.lake.catalog.files(self.lake.catalog.table(table))[0].path)

    def manifests(self, table: str) -> list[Path]:
        current = self.lake.catalog.table(table).current
        assert current is not None
        return [Path(snapshots.local_path(path)) for path in snapshots.manifests(table, current)]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> World:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("STEDI_PSEUDONYM_KEY")
        return World(tmp_path_factory.mktemp("recovery"))


@pytest.fixture
def world(shared: World, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    monkeypatch.setenv("STEDI_KEY_FILE", str(shared.folder / "lake.key"))
    shared.restore()
    return shared


def spoil(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def test_a_lake_that_was_set_back_is_refused_until_that_is_accepted(world: World) -> None:
    world.lose_people()
    shutil.rmtree(world.lake.root)
    shutil.copytree(world.backup, world.lake.root)
    with pytest.raises(LakeError, match=r"was rolled back.*--replay"):
        Lake.open(world.lake.root).land(world.inbox)
    with pytest.raises(LakeError, match=r"was rolled back.*--accept-rollback"):
        Lake.open(world.lake.root).repair()
    world.follow(SET_BACK)
    world.lake.land(world.inbox)
    world.lake.build()
    assert not [found for check in world.lake.audit(files=True) for found in check.found]
    assert len(contents(world.lake)["customers_trusted"]) == 6, "who has withdrawn and who was erased, too"


def test_tables_below_landing_that_are_damaged_are_made_anew(world: World) -> None:
    spoil(world.data("customers_trusted"))
    world.data("accelerometer_trusted").unlink()
    spoil(world.manifests("customers_curated")[0])
    os.truncate(world.metadata("machine_learning_curated"), 100)
    with pytest.raises(DamagedFile, match="machine_learning_curated"):
        world.lake.tables()
    world.follow(BELOW)
    world.right()
    assert not world.lake.build().run


@pytest.mark.parametrize("when", ["its files are removed", "it is made"])
def test_a_repair_that_died_while_it_made_a_table_anew_is_run_again(
    world: World, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.truncate(world.metadata("customers_trusted"), 100)

    def die(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*(durable, "remove_tree", die) if when == "its files are removed" else (Catalog, "create", die))
        with pytest.raises(KeyboardInterrupt):
            world.lake.repair()
    lake = Lake.open(world.lake.root)
    with pytest.raises(LakeError, match=r"^table customers_trusted: .*run `stedi repair`$"):
        lake.build()
    assert any("run `stedi repair`" in late for late in lake.status().late)
    lake.repair()
    world.lake = Lake.open(lake.root)
    world.right()
    assert not world.lake.build().run


@pytest.mark.parametrize("what", ["metadata", "data"])
def test_what_this_user_may_not_read_is_not_repaired(world: World, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = (world.metadata if what == "metadata" else world.data)("customers_trusted")
    before = {path: path.read_bytes() for path in (world.lake.root / "trusted").rglob("*") if path.is_file()}
    # root may read everything, so the system's answers are made up
    access, stat, content, digest = os.access, os.stat, durable.content, checksums.digest

    def answer(real: Callable[..., Any], path: Any, *rest: Any, **named: Any) -> Any:
        if os.fspath(path) == str(closed):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *rest, **named)

    with monkeypatch.context() as patch:
        patch.setattr(os, "access", lambda path, mode: os.fspath(path) != str(closed) and access(path, mode))
        patch.setattr(os, "stat", partial(answer, stat))
        patch.setattr(durable, "content", partial(answer, content))
        patch.setattr(checksums, "digest", partial(answer, digest))
        with pytest.raises(
            LakeError, match=r"customers_trusted/.*give this user the right to read it; nothing was changed$"
        ):
            world.lake.repair()
        if what == "metadata":
            with pytest.raises(
                DamagedFile, match=r"one that this user may not read; give this user the right to read it$"
            ):
                world.lake.tables()
    assert {path: path.read_bytes() for path in before} == before
    world.right()


@pytest.mark.parametrize("how", ["yesterday", "garbage", "gone"])
def test_a_catalog_is_made_right_from_its_tables(world: World, how: str) -> None:
    path = world.lake.catalog.path
    if how == "yesterday":
        shutil.copyfile(world.backup / "catalog.db", path)
    elif how == "garbage":
        path.write_bytes(path.read_bytes()[:4096] + b"\0" * 8192)
    else:
        path.unlink()
    with pytest.raises(LakeError, match=r"catalog\.db"):
        world.lake.build()
    before = {file.relative_to(world.lake.root) for file in world.lake.root.rglob("*.parquet")}
    if how == "yesterday":
        world.follow(CATALOG)
    else:
        world.lake.repair()
        world.lake = Lake.open(world.lake.root)
    world.right()
    after = {file.relative_to(world.lake.root) for file in world.lake.root.rglob("*.parquet")}
    assert before == after, "nothing had to be made again"
    assert (world.lake.root / "damaged-catalog.db").exists() is (how == "garbage")


@pytest.mark.parametrize(
    ("damage", "recovery"),
    [
        (lambda world: spoil(world.data("accelerometer_landing")), ""),
        (lambda world: os.truncate(world.manifests("quarantine")[0], 10), BACKUP),
        (lambda world: world.metadata("landed_files").unlink(), NO_BACKUP),
    ],
    ids=["a data file", "a manifest", "its metadata"],
)
def test_a_landing_table_that_is_damaged_is_restored_or_landed_again(
    world: World, damage: Callable[[World], None], recovery: str
) -> None:
    world.lose_people()
    damage(world)
    files = [path for path in world.lake.root.rglob("*") if path.is_file() and path.parent.name != "runs"]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(LakeError, match=r"^\w+: expected intact files.*restore the lake from its backup"):
        world.lake.repair()
    assert {path: path.read_bytes() for path in before} == before, "it must not make things worse"
    if recovery:
        world.follow(recovery)
        world.right()


def test_damage_that_only_older_snapshots_use_goes_with_them(world: World) -> None:
    lake = world.lake
    for table in ("customers_landing", "customers_trusted"):
        oldest = lake.catalog.table(table).history()[-1]
        spoil(Path(snapshots.local_path(oldest.manifest_list)))
    heads = {name: state.current for name, state in lake.catalog.tables().items()}
    repaired = lake.repair()
    assert repaired.build is not None
    assert (dict(repaired.forgotten), repaired.renewed, repaired.build.run) == (
        {"customers_landing": 1, "customers_trusted": 1}, (), ""
    )  # fmt: skip
    assert {name: state.current and state.current.id for name, state in lake.catalog.tables().items()} == {
        name: head and head.id for name, head in heads.items()
    }
    world.right()


def test_checksums_can_be_written_anew_by_hand(world: World) -> None:
    (world.lake.catalog.folder("customers_landing") / "checksums").unlink()
    found = {v.found for check in world.lake.audit(files=True) for v in check.found}
    assert found == {"no checksum"}
    world.follow(CHECKSUMS)
    world.right()


def test_a_whole_lake_needs_no_repair(world: World) -> None:
    before = {name: state.current for name, state in world.lake.catalog.tables().items()}
    repaired = world.lake.repair()
    assert repaired.build is not None
    assert (repaired.catalog, repaired.forgotten, repaired.renewed, repaired.build.run) == ((), {}, (), "")
    assert {name: state.current for name, state in world.lake.catalog.tables().items()} == before


def test_every_recipe_of_the_page_is_followed_here() -> None:
    recovery = PAGE[PAGE.index("\n## Recovery") :]
    assert re.findall(r"^### (.+)$", recovery, re.MULTILINE) == [
        BELOW,
        CATALOG,
        BACKUP,
        NO_BACKUP,
        SET_BACK,
        CHECKSUMS,
    ]
