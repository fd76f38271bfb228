"""A lake works with what lies in its own folder: not behind links, not in its original's, not where a stranger says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, cast

import pytest
from test_isolation import STEDI, deliver

from lakes import KEY
from stedi.cli import main
from stedi.context import places
from stedi.errors import CopiedLake, DamagedFile, LakeError
from stedi.lake import Lake
from stedi.operations.maintenance.adoption import Adoption
from stedi.privacy import receipts
from stedi.schema.tables import ZONES
from stedi.storage import config, copies, durable

ANN, BOB = "ann@example.com", "bob@example.com"


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake in which BOB was erased, the deliveries beside it; for copying only."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "in").mkdir()
    deliver(folder / "in")
    lake = Lake.create(folder / "lake")
    lake.land(folder / "in")
    lake.build()
    lake.erase(BOB)
    return folder / "lake"


@pytest.fixture
def lake(once: Path, tmp_path: Path) -> Path:
    """Such a lake, at a place of its own."""
    shutil.copytree(once, tmp_path / "lake")
    Lake.adopt(tmp_path / "lake")
    return tmp_path / "lake"


def state(folder: Path) -> dict[str, str]:
    """Returns what is in a folder, locks aside: of each file a digest, of each link where it leads."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file() and path.suffix != ".lock":
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


READ = (
    ["tables"],
    ["history", "customers_landing"],
    ["query", "select count(*) from customers_landing"],
    ["query", "--format", "csv", "select * from machine_learning_curated order by all"],
    ["query", "--role", "engineer", "--format", "csv", "select * from customers_landing order by all"],
    ["build", "--dry-run"],
    ["audit"],
    ["audit", "--files", "--risk"],
    ["key", "show"],
    ["explain", ANN],
    ["consent"],
    ["explain", "--table", "customers_trusted", "--where", "true"],
    ["quarantine"],
    ["quarantine", "--records"],
    ["quarantine", "--withheld"],
    ["erase", "--list"],
)
"""Commands that write nothing."""
SOME = (["tables"], ["query", "--format", "csv", "from customers_landing select *"], ["audit", "--files"])
"""A few of them, which read every kind of file."""


def writing(delivered: Path) -> Iterator[list[str]]:
    yield from (["land", str(delivered)], ["build"], ["build", "--full"], ["repair"], ["maintain"])
    yield from (["maintain", "--dry-run"], ["erase", "--yes", ANN], ["erase", "--resume"], ["erase", "--dry-run", ANN])
    yield from (
        ["withdraw", "--yes", ANN],
        ["erase", "--replay", str(delivered)],
        ["quarantine", "--replay"],
        ["tag", "v1"],
        ["key", "rotate", "--yes"],
    )


def commands(delivered: Path) -> Iterator[list[str]]:
    yield from READ
    yield from writing(delivered)


def said(lake: Path, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns what a command that succeeds prints."""
    assert main(["--lake", str(lake), *words]) == 0, (words, capsys.readouterr().err)
    return capsys.readouterr().out


def hard_linked(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=os.link)


WAYS: dict[str, Callable[[Path, Path], object]] = {"copied": shutil.copytree, "hard-linked": hard_linked}


class TestACopy:
    @pytest.mark.parametrize("way", WAYS)
    def test_is_refused_by_every_command_that_writes_and_its_original_is_untouched(
        self, lake: Path, tmp_path: Path, way: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        WAYS[way](lake, tmp_path / "copy")
        before, copied = state(lake), state(tmp_path / "copy")
        for words in writing(tmp_path):
            assert main(["--lake", str(tmp_path / "copy"), *words]) == 1, words
            assert f"stedi --lake {tmp_path}/copy adopt" in capsys.readouterr().err, words
            assert (state(lake), state(tmp_path / "copy")) == (before, copied), words

    @pytest.mark.parametrize("original", ["there", "changed", "gone", "damaged"])
    @pytest.mark.parametrize("way", WAYS)
    @pytest.mark.sample(full=4)
    def test_is_read_as_it_lies_whatever_became_of_its_original(
        self, lake: Path, tmp_path: Path, way: str, original: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if original in ("changed", "damaged") and way == "hard-linked":
            pytest.skip("the catalog and the checksums, which are written in place, are the same files")
        copy = tmp_path / "copy"
        commands = READ if (way, original) == ("copied", "gone") else SOME
        expected = [said(lake, words, capsys) for words in commands]
        WAYS[way](lake, copy)
        if original == "changed":
            assert main(["--lake", str(lake), "erase", "--yes", ANN]) == 0
            assert main(["--lake", str(lake), "maintain"]) == 0
            shutil.rmtree(Lake.open(lake).context.outside())  # else the copy is known to be older, and an audit says so
        elif original == "gone":
            shutil.rmtree(lake)
        elif original == "damaged":
            for path in [path for path in lake.rglob("*") if path.is_file()]:
                path.write_bytes(b"")
        before = state(copy), state(lake)
        capsys.readouterr()
        assert [said(copy, words, capsys).replace(str(copy), str(lake)) for words in commands] == expected
        assert (state(copy), state(lake)) == before

    def test_of_hard_links_whose_original_went_on_is_refused_and_left_as_it_was(
        self, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hard_linked(lake, tmp_path / "copy")
        Lake.open(lake).erase(ANN)
        before = state(lake), state(tmp_path / "copy")
        for words in SOME:
            assert main(["--lake", str(tmp_path / "copy"), *words]) in (1, 3)
            assert "unforeseen" not in capsys.readouterr().err
        assert (state(lake), state(tmp_path / "copy")) == before

    def test_and_its_original_are_read_by_one_process_each_its_own(self, lake: Path, tmp_path: Path) -> None:
        shutil.copytree(lake, tmp_path / "copy")
        one, other = Lake.open(lake), Lake.open(tmp_path / "copy")
        for opened in (one, other, one):
            paths = [f.path for t in opened.catalog.tables().values() for f in opened.catalog.files(t)]
            assert paths
            assert all(path.startswith(f"{opened.root}/") for path in paths)
        one.erase(ANN)
        counts = [
            each.query("select count(*) n from customers_landing").arrow()["n"].to_pylist() for each in (one, other)
        ]
        assert counts[0][0] < counts[1][0]

    def test_is_written_by_no_verb_and_no_commit_until_it_is_opened_anew(self, lake: Path, tmp_path: Path) -> None:
        copy = tmp_path / "copy"
        shutil.copytree(lake, copy)
        stale = Lake.open(copy)
        before = state(copy)
        with pytest.raises(CopiedLake):
            stale.catalog.append("customers_landing", (), {})
        with pytest.raises(CopiedLake), durable.lock(copy / "land.lock", wait=False):
            pass
        assert (state(copy), list(copy.glob("*.lock"))) == (before, list(copy.glob("*.lock")))
        Lake.adopt(copy)
        with pytest.raises(CopiedLake):
            stale.build()
        assert Lake.open(copy).build().tables

    def test_that_lies_in_its_original_is_read_and_adopted(self, lake: Path, tmp_path: Path) -> None:
        shutil.copytree(lake, tmp_path / "copy")
        (tmp_path / "copy").rename(lake / "backup")
        copy = Lake.open(lake / "backup")
        assert [check for check in copy.audit(files=True) if check.violations] == []
        Lake.adopt(lake / "backup")
        assert [check for check in Lake.open(lake / "backup").audit(files=True) if check.violations] == []

    def test_of_which_every_path_leads_out_is_refused(self, lake: Path, tmp_path: Path) -> None:
        shutil.copytree(lake, tmp_path / "copy")
        path = Path(Lake.open(tmp_path / "copy").catalog.listed()["customers_landing"].removeprefix("file://"))
        path.write_text(path.read_text().replace(str(lake), "/etc"))
        (path.parent.parent / "checksums").unlink()
        with pytest.raises(DamagedFile, match="customers_landing"):
            Lake.open(tmp_path / "copy").query("select count(*) from customers_landing")

    def test_of_hard_links_with_a_commit_under_way_changes_nothing_in_its_original(
        self, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """SQLite's journal of that commit would undo it in the file that both share."""
        opened = sqlite3.connect(lake / "catalog.db", isolation_level=None)
        with closing(opened):
            opened.execute("pragma cache_size = 1")
            opened.execute("begin immediate")
            opened.execute("create table more as with recursive n(x) as (select 1 union all select x + 1 from n "
                           "limit 5000) select x, hex(randomblob(50)) y from n")  # fmt: skip
            assert (lake / "catalog.db-journal").stat().st_size > 0
            hard_linked(lake, tmp_path / "copy")
            opened.execute("commit")
        before = state(lake)
        main(["--lake", str(tmp_path / "copy"), "tables"])
        assert "stedi --lake" in capsys.readouterr().err or state(lake) == before
        assert state(lake) == before
        assert main(["--lake", str(lake), "tables"]) == 0

    @pytest.mark.parametrize("way", WAYS)
    def test_is_a_lake_of_its_own_once_it_is_adopted(self, lake: Path, tmp_path: Path, way: str) -> None:
        copy, more = tmp_path / "copy", tmp_path / "more"
        WAYS[way](lake, copy)
        before = state(lake)
        done = Lake.adopt(copy)
        assert (done.root, done.home, done.was) == (copy, lake, Lake.open(lake).config.lake_id)
        assert done.lake_id != done.was
        adopted = Lake.open(copy)
        assert [check for check in adopted.audit(files=True) if check.violations] == []
        assert {table.name: table.rows for table in adopted.tables()} == {
            t.name: t.rows for t in Lake.open(lake).tables()
        }
        assert {table.action for table in adopted.build().tables} == {"none"}
        more.mkdir()
        (more / "customer.json").write_text(
            json.dumps({"email": BOB, "serialNumber": "s1", "registrationDate": 1_700_000_000_000,
                        "lastUpdateDate": 1_700_000_000_000})
        )  # fmt: skip
        assert adopted.land(more).erased == 1, "tombstones came along"
        adopted.maintain()
        adopted.erase(ANN)
        assert str(lake) not in subprocess.run(["grep", "-rl", str(lake), copy], capture_output=True, text=True).stdout
        assert state(lake) == before
        assert Lake.open(lake).query("select count(*) n from customers_landing").arrow()["n"].to_pylist() == [1]

    def test_has_receipts_that_hold_there_and_those_of_its_original_do_not(self, lake: Path, tmp_path: Path) -> None:
        shutil.copytree(lake, tmp_path / "copy")
        Lake.adopt(tmp_path / "copy")
        one, other = Lake.open(lake), Lake.open(tmp_path / "copy")
        for mine, others in ((one, other), (other, one)):
            [receipt] = receipts.listed(mine.root)
            assert receipts.holds(receipt, mine.key(), mine.config.lake_id)
            assert not receipts.holds(receipt, mine.key(), others.config.lake_id)

    def test_finds_its_key_by_its_new_id(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, once: Path) -> None:
        monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
        Lake.create(tmp_path / "own")
        shutil.copytree(tmp_path / "own", tmp_path / "copy")
        done = Lake.adopt(tmp_path / "copy")
        assert done.key == str(tmp_path / done.key)
        assert Lake.open(tmp_path / "copy").key() == Lake.open(tmp_path / "own").key()

    def test_adopts_nothing_twice(self, lake: Path) -> None:
        before = state(lake)
        done = Lake.adopt(lake)
        assert (done.home, done.was) == (lake, done.lake_id)
        changed = state(lake).items() ^ before.items()
        assert all(name.startswith("runs/") for name, _ in changed), "that it was asked for is noted"

    def test_is_adopted_once_by_two_at_once(self, lake: Path, tmp_path: Path) -> None:
        copied, waits, others = shutil.copytree(lake, tmp_path / "copy"), threading.Event(), list[Future[Adoption]]()

        def begun(what: str, share: float | None) -> None:
            if not others:
                others.append(beside.submit(Lake.adopt, copied, progress=lambda what, share: waits.set()))
                assert waits.wait(60), "the second waits for the first"

        with ThreadPoolExecutor(1) as beside:
            first = Lake.adopt(copied, progress=begun)
            second = others[0].result()
        assert (second.home, second.lake_id) == (copied, first.lake_id)
        assert [check for check in Lake.open(copied).audit(files=True) if check.violations] == []

    def test_in_which_an_erasure_was_cut_off_is_not_adopted(self, lake: Path, tmp_path: Path) -> None:
        shutil.copytree(lake, tmp_path / "copy")
        (tmp_path / "copy" / "erasing.json").write_text("{}")
        with pytest.raises(LakeError, match="found an erasure that was"):
            Lake.adopt(tmp_path / "copy")

    def test_that_lacks_a_file_is_not_adopted(self, lake: Path, tmp_path: Path) -> None:
        shutil.copytree(lake, tmp_path / "copy")
        [*_, file] = sorted((tmp_path / "copy/landing/customers_landing/data").rglob("*.parquet"))
        file.unlink()
        with pytest.raises(LakeError, match="customers_landing"):
            Lake.adopt(tmp_path / "copy")
        with pytest.raises(DamagedFile, match="customers_landing"):
            Lake.open(tmp_path / "copy").query("select email from customers_landing")

    @pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # a death closes nothing
    @pytest.mark.thorough
    def test_whose_adoption_is_cut_off_anywhere_is_adopted_by_the_next(self, lake: Path, tmp_path: Path) -> None:
        before, copy, number, ended = state(lake), tmp_path / "copy", 0, False
        while not ended:
            number += 1 if number < 3 else 23
            shutil.rmtree(copy, ignore_errors=True)
            hard_linked(lake, copy)
            ended = died_at(number, copy)
            done = Lake.adopt(copy)
            adopted = Lake.open(copy)
            assert not (copy / copies.NOTE).exists()
            assert [check for check in adopted.audit(files=True) if check.violations] == [], number
            assert receipts.holds(receipts.listed(copy)[0], adopted.key(), done.lake_id), number
            assert {table.action for table in adopted.build().tables} == {"none"}, number
            assert state(lake) == before, number
        assert number > 40


class Died(BaseException):
    pass


def died_at(number: int, copy: Path) -> bool:
    """Adopts a copy until the call that changes a name for the n-th time; says whether there were fewer."""
    left = [number]

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def calling(*given: Any, **named: Any) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Died
            return call(*given, **named)

        return calling

    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "fsync"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with suppress(Died):
            Lake.adopt(copy)
            return True
    return False


class TestAMovedLake:
    def test_keeps_its_id_and_goes_on(self, lake: Path, tmp_path: Path) -> None:
        was = Lake.open(lake).config.lake_id
        lake.rename(tmp_path / "moved")
        with pytest.raises(CopiedLake, match="where nothing is"):
            Lake.open(tmp_path / "moved").build()
        assert Lake.adopt(tmp_path / "moved").lake_id == was
        assert Lake.open(tmp_path / "moved").build().tables

    def test_gets_another_id_if_told_that_it_lives_elsewhere(self, lake: Path, tmp_path: Path) -> None:
        was = Lake.open(lake).config.lake_id
        lake.rename(tmp_path / "moved")
        assert main(["--lake", str(tmp_path / "moved"), "adopt", "--new-id"]) == 0
        assert Lake.open(tmp_path / "moved").config.lake_id != was

    def test_keeps_its_id_where_another_lake_stands_in_its_place(self, lake: Path, tmp_path: Path) -> None:
        was = Lake.open(lake).config.lake_id
        lake.rename(tmp_path / "moved")
        Lake.create(lake)
        before = state(lake)
        assert Lake.adopt(tmp_path / "moved").lake_id == was
        assert state(lake) == before


@pytest.mark.parametrize("spelling", ["//{0}", "{0}/", "{0}/.", "{0}/../lake", "{1}/link", "lake", "~/lake", "link/"])
@pytest.mark.sample(full=4)
def test_a_lake_is_the_same_by_every_path_to_it(
    spelling: str, lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(lake)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    path = spelling.format(lake, tmp_path)
    assert Lake.open(path).root == lake
    assert Lake.open(Path(path)).root == lake
    assert main(["--lake", path, "erase", "--yes", ANN]) == 0
    assert main(["--lake", path, "audit", "--files"]) == 0
    assert not (tmp_path / "~").exists()


def test_a_lake_that_was_made_through_a_link_is_one_with_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    made = Lake.create(tmp_path / "link" / "lake")
    assert made.root == tmp_path / "real" / "lake"
    assert all(str(tmp_path / "real") in location for location in made.catalog.listed().values())


def test_no_lake_is_made_within_another_one(lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = sorted(lake.rglob("*"))
    for inner in ("inner", "landing/inner", "a/b/c"):
        assert main(["--lake", str(lake / inner), "init"]) == 2
        assert f"expected a place outside of any lake, found one in the lake {lake}" in capsys.readouterr().err
    assert sorted(lake.rglob("*")) == before


def test_a_lake_whose_folder_became_a_link_to_it_goes_on(lake: Path, tmp_path: Path) -> None:
    lake.rename(tmp_path / "disk")
    lake.symlink_to(tmp_path / "disk")
    for path in (lake, tmp_path / "disk"):
        assert Lake.open(path).root == lake
        assert main(["--lake", str(path), "maintain"]) == 0
    assert main(["--lake", str(tmp_path / "disk"), "erase", "--yes", ANN]) == 0


@pytest.mark.parametrize("path", ["~nobody-of-that-name/lake", "a\0b"])
def test_a_path_that_is_none_is_refused_in_one_sentence(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--lake", path, "tables"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


OWN = ("tmp", "pending", "receipts", "landing", "trusted", "curated", "landing/customers_landing")
INNER = ("curated/machine_learning_curated/data", "trusted/customers_trusted/metadata")
FILES = ("lake.toml", "catalog.db", "tombstones", "land.lock", "build.lock", "maintain.lock", "catalog.lock")


def precious(folder: Path) -> Path:
    """Returns a folder of somebody's own, with names that a lake could take for its own making."""
    for name in (
        "thesis.txt",
        "query-abcdefgh/x",
        "1700000000000-0123abcd/f.parquet",
        "new-0123456789abcdef/a.parquet",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
        os.utime(folder / name, (1, 1))
    return folder


@pytest.mark.parametrize("name", [*OWN, *INNER, *FILES])
def test_nothing_of_a_lake_that_is_a_link_is_followed(
    name: str, lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    home, path = precious(tmp_path / "home"), lake / name
    if path.is_dir():
        path.rename(tmp_path / "aside")
        path.symlink_to(home)
    else:
        (tmp_path / "aside").write_bytes(path.read_bytes() if path.exists() else b"")
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "aside")
    before = state(tmp_path)
    for words in commands(tmp_path):
        assert main(["--lake", str(lake), *words]) == 1, words
        assert f"{path}: expected a" in capsys.readouterr().err, words
    assert state(tmp_path) == before


def settings_of(lake: Path, **other: str) -> str:
    text = (lake / "lake.toml").read_text()
    return text.replace("[key]\n", "[key]\n" + "".join(f"{key} = {value}\n" for key, value in other.items()))


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def listening(path: Path) -> None:
    path.unlink()
    here = os.getcwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)
    os.chdir(here)


def device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def huge(path: Path) -> None:
    with path.open("r+b") as stream:
        stream.truncate(1 << 40)


def toml(text: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(path.read_text() + text)


def keyed(place: str) -> Callable[[Path], object]:
    return lambda path: path.write_text(settings_of(path.parent, file=json.dumps(place)))


SETTINGS: dict[str, Callable[[Path], object]] = {
    "FIFO": fifo,
    "socket": listening,
    "device": device,
    "huge": huge,
    "deep list": toml("x = " + "[" * 30_000),
    "deep table": toml("[" + "a." * 30_000 + "a]\n"),
    "deep inline": toml("x = " + "{a=" * 15_000),
    "key is a device": keyed("/dev/zero"),
    "key is a folder": keyed("/"),
    "key is a terminal": keyed("/dev/tty"),
}


def catalog(*statements: str) -> Callable[[Path], object]:
    def change(path: Path) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    return change


def located(location: str) -> Callable[[Path], object]:
    return catalog(f"update iceberg_tables set metadata_location = '{location}' where table_name = 'quarantine'")


ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n) select"
COLUMNS = "catalog_name, table_namespace, table_name, metadata_location"

CATALOGS: dict[str, Callable[[Path], object]] = {
    "FIFO": fifo,
    "socket": listening,
    "device": device,
    "endless view": catalog(
        "alter table iceberg_tables rename to t",
        f"create view iceberg_tables as {ENDLESS} 'stedi' catalog_name, 'stedi' table_namespace, x table_name, "
        "'file:///' metadata_location, '' previous_metadata_location from n",
    ),
    "endless trigger": catalog(
        f"create trigger more after update on iceberg_tables begin insert into iceberg_tables ({COLUMNS}) "
        f"{ENDLESS} 'a', 'b', x, 'd' from n; end"
    ),
    "many rows": catalog(
        "insert into iceberg_tables with recursive n(x) as (select 1 union all select x + 1 from n limit 50000) "
        "select 'stedi', 'stedi', 'a' || x, '/dev/zero', '', 'TABLE' from n"
    ),
    "a long value": located("file:///" + "a" * (2 << 20)),
    "a number": catalog("update iceberg_tables set metadata_location = 7 where table_name = 'quarantine'"),
    "over http": located("http://127.0.0.1:9/landing/quarantine/metadata/1.metadata.json"),
    "a device": located("/dev/zero"),
    "a device as a file": located("file:///dev/zero"),
    "another folder": located("file:///etc/landing/quarantine/metadata/1.metadata.json"),
    "another folder of its own": located("file:///etc/quarantine.metadata.json"),
    "a relative path": located("landing/quarantine/metadata/1.metadata.json"),
    "a bucket": located("s3://bucket/landing/quarantine/metadata/1.metadata.json"),
}


BOUNDED = """
import resource, runpy, sys
resource.setrlimit(resource.RLIMIT_DATA, (2 << 30,) * 2)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name='__main__')
"""


def bounded(lake: Path, words: list[str], key: str | None = KEY) -> str:
    """Runs a command, which fails in one line and soon, and returns what it says."""
    environment = {name: value for name, value in os.environ.items() if name != "STEDI_PSEUDONYM_KEY"}
    if key is not None:
        environment["STEDI_PSEUDONYM_KEY"] = key
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED, STEDI, "--lake", str(lake), *words],
        env=environment, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip
    assert done.returncode in (1, 2), (words, done)
    assert done.stderr.count("\n") == 1, (words, done.stderr)
    assert "unforeseen" not in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr) < 2000
    assert time.monotonic() - started < 20
    return done.stderr


@pytest.mark.parametrize("kind", SETTINGS)
@pytest.mark.sample(full=5)
@pytest.mark.thorough
def test_settings_of_a_stranger_are_refused_soon(kind: str, lake: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    deliver(tmp_path / "in")
    SETTINGS[kind](lake / "lake.toml")
    for words in (["land", str(tmp_path / "in")], ["build"]):
        bounded(lake, words, None if "key" in kind else KEY)


@pytest.mark.parametrize("kind", CATALOGS)
@pytest.mark.sample(full=6)
def test_a_catalog_of_a_stranger_is_refused_soon(kind: str, lake: Path, tmp_path: Path) -> None:
    CATALOGS[kind](lake / "catalog.db")
    words = ["query", "select count(*) from quarantine"]
    if kind == "many rows":
        assert main(["--lake", str(lake), *words]) == 0, "tables that are not the lake's are nothing to it"
        return
    said = bounded(lake, words)
    assert "expected" in said
    bounded(lake, ["adopt"])


def rewritten(lake: Path, table: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes a table's metadata and what vouches for it, as somebody could who may write there."""
    path = Path(Lake.open(lake).catalog.listed()[table].removeprefix("file://"))
    described = json.loads(path.read_text())
    change(described)
    path.write_text(json.dumps(described))
    (lake / ZONES[table] / table / "checksums").unlink()


def foreign_list(described: dict[str, Any]) -> None:
    for snapshot in described["snapshots"]:
        snapshot["manifest-list"] = "file:///etc/passwd"


def climbing(described: dict[str, Any]) -> None:
    for snapshot in described["snapshots"]:
        folder, _, name = snapshot["manifest-list"].rpartition("/")
        snapshot["manifest-list"] = f"{folder}/../../../../../../../../../../etc/{name}"


@pytest.mark.parametrize("change", [foreign_list, climbing, lambda d: d.update(location="file:///etc")])
def test_metadata_that_name_files_elsewhere_are_refused(change: Callable[[dict[str, Any]], None], lake: Path) -> None:
    rewritten(lake, "customers_landing", change)
    for words in (["query", "select count(*) from customers_landing"], ["build"], ["maintain", "--dry-run"]):
        assert "customers_landing" in bounded(lake, words)


@pytest.mark.parametrize("target", ["elsewhere", "a link"])
def test_a_query_reads_no_file_that_a_manifest_names_elsewhere(target: str, lake: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.parquet"
    opened = Lake.open(lake)
    [file] = opened.catalog.files(opened.catalog.table("customers_landing"))
    secret.write_bytes(Path(file.path).read_bytes())
    if target == "a link":
        Path(file.path).unlink()
        Path(file.path).symlink_to(secret)
    else:
        import fastavro

        for path in (lake / "landing/customers_landing/metadata").glob("*-m0.avro"):
            with path.open("rb") as stream:
                reader = fastavro.reader(stream)
                records, about = cast(list[dict[str, Any]], list(reader)), reader.metadata
            for record in records:
                record["data_file"]["file_path"] = f"file://{secret}"
            with path.open("wb") as out:
                fastavro.writer(out, json.loads(about["avro.schema"]), records, metadata={})
        (lake / "landing/customers_landing/checksums").unlink()
    assert "customers_landing" in bounded(lake, ["query", "select email from customers_landing"])


def test_what_leads_into_a_lake_is_told_by_the_disk(lake: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(lake)
    (tmp_path / "file").symlink_to(lake / "lake.toml")
    into = [
        "lake",
        "lake/catalog.db",
        "lake/new.csv",
        "lake/a/b/c",
        "link/x",
        "file",
        "lake/../lake/x",
        "out/../link/y",
    ]
    for path in into:
        assert places.inside(lake, tmp_path / path), path
    for path in ("lake.csv", "lake-2/x", "out.csv", "lake/../x", "new/lake/x"):
        assert not places.inside(lake, tmp_path / path), path


def test_a_lake_of_before_stays_as_its_tables_spell_it(tmp_path: Path, once: Path) -> None:
    """Lakes were made by whatever path was given; their tables name it."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    shutil.copytree(once, tmp_path / "real" / "lake")
    Lake.adopt(tmp_path / "real" / "lake")
    spelled, real = tmp_path / "link" / "lake", tmp_path / "real" / "lake"
    rows = Lake.open(real).catalog.listed()
    assert places.spelled(real, {name: row.replace(str(real), str(spelled)) for name, row in rows.items()}) == spelled
    assert config.read(real / "lake.toml").lake_id
