"""Any damage to a file that a live snapshot uses is found and named; what is whole is not accused."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deliveries import customer, deliver, motion, step
from effort import tries
from lakes import heads, rows, unseen
from stedi import cli
from stedi.audit.integrity import Check, check_files
from stedi.catalog import checksums, snapshots
from stedi.errors import DamagedFile, LakeError
from stedi.lake import Lake
from stedi.schema.tables import ZONES, DataFile

SEED = int(os.environ.get("STEDI_SEED", "20261124"))
FLIPS = tries(40, 100, 5_000)


class Damaged:
    """A lake that was landed into and built twice, put back to that by `restore`."""

    def __init__(self, folder: Path) -> None:
        self._kept = folder / "kept"
        self.lake = Lake.create(folder / "lake")
        for day, email in enumerate(("a@x.example", "b@x.example")):
            inbox, at = folder / str(day), 100 + day
            deliver(inbox, "customer", [customer(email, serialNumber=f"s{day}", update=at), {"email": email}])
            deliver(inbox, "accelerometer", [motion(email, at), motion(email, at, 2.0)])
            deliver(inbox, "step_trainer", [step(f"s{day}", at)])
            self.lake.land(inbox)
            self.lake.build()
        shutil.copytree(self.lake.root, self._kept)

    def restore(self, *files: Path) -> None:
        """Puts some files back to what they were, or all of them."""
        if not files:
            shutil.rmtree(self.lake.root)
            shutil.copytree(self._kept, self.lake.root)
            self.lake = unseen(self.lake.root)
        for file in files:
            shutil.copyfile(self._kept / file.relative_to(self.lake.root), file)

    def used(self) -> Iterator[tuple[str, str, Path]]:
        """Every file in use: its table, its kind and its path."""
        for name, location in snapshots.listed(self.lake.catalog.path).items():
            state = self.lake.catalog.table(name)
            yield name, "metadata", Path(snapshots.local_path(location))
            for snapshot in state.snapshots:
                yield name, "manifest list", Path(snapshots.local_path(snapshot.manifest_list))
                for manifest in snapshots.manifests(name, snapshot):
                    yield name, "manifest", Path(snapshots.local_path(manifest))
                yield from ((name, "data", Path(file.path)) for file in self.lake.catalog.files(state, snapshot))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Damaged:
    return Damaged(tmp_path_factory.mktemp("audit"))


@pytest.fixture
def damaged(built: Damaged) -> Iterator[Damaged]:
    yield built
    built.restore()


def accused(lake: Lake, *, files: bool = True) -> dict[str, set[tuple[str, str]]]:
    """For each check that found something, the tables and files that it names."""
    found: dict[str, set[tuple[str, str]]] = {}
    for check in lake.audit(files=files):
        for violation in check.found:
            found.setdefault(check.name, set()).add((check.table, violation.file))
    return found


def shown(lake: Lake, path: Path) -> str:
    return str(path.relative_to(lake.root))


def flip(path: Path, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_a_whole_lake_holds_in_every_table(built: Damaged) -> None:
    checks = built.lake.audit(files=True)
    assert not any(check.violations for check in checks)
    assert {(c.name, c.table) for c in checks} == {("catalog", "catalog.db"), ("newest", "lake")} | {
        (name, table) for name in ("catalog", "metadata", "manifests", "data files", "checksums") for table in ZONES
    }
    assert "checksums" not in {check.name for check in built.lake.audit()}


def test_an_operator_can_check_by_hand(built: Damaged) -> None:
    command = shutil.which("sha256sum")
    if command is None:
        pytest.skip("sha256sum is not installed here")
    for name in ZONES:
        folder = built.lake.catalog.folder(name)
        done = subprocess.run([command, "--check", "--strict", "checksums"], cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
        files = {f"{p.parent.relative_to(folder)}/{p.name}" for p in folder.rglob("*") if p.is_file()}
        # the hint is for other programs, and holds nothing that the lake reads
        files -= {"./checksums", "metadata/version-hint.text"}
        assert files == checksums.recorded(folder).keys(), "a line for every file, old ones too"


def test_any_flipped_bit_in_any_file_in_use_is_found_and_named(damaged: Damaged) -> None:
    chance = random.Random(SEED)
    lake, kinds = damaged.lake, dict[str, list[tuple[str, Path]]]()
    for table, kind, path in set(damaged.used()):
        kinds.setdefault(kind, []).append((table, path))
    assert set(kinds) == {"metadata", "manifest list", "manifest", "data"}
    for number in range(FLIPS):
        kind = list(kinds)[number % len(kinds)]
        table, path = chance.choice(sorted(kinds[kind]))
        bit = chance.randrange(path.stat().st_size * 8)
        flip(path, bit)
        found = accused(lake)
        said = f"seed {SEED}: bit {bit} of a {kind} of {table}: {found}"
        assert found["checksums"] == {(table, shown(lake, path))}, said
        assert {name for names in found.values() for name, _ in names} == {table}, said
        if kind != "data":
            with pytest.raises(DamagedFile, match=table):
                every_state(lake)
        damaged.restore(path)
    assert not accused(lake)


def every_state(lake: Lake) -> None:
    for name, state in lake.catalog.tables().items():
        for snapshot in state.snapshots:
            assert lake.catalog.files(state, snapshot) is not None, name


def test_any_flipped_bit_in_the_catalog_is_found_or_changes_nothing_that_is_read(damaged: Damaged) -> None:
    chance, lake = random.Random(SEED), damaged.lake
    before, path = lake.catalog.tables(), damaged.lake.catalog.path
    found = 0
    for _ in range(40):
        bit = chance.randrange(path.stat().st_size * 8)
        flip(path, bit)
        if accused(lake, files=False):
            found += 1
        else:
            assert lake.catalog.tables() == before, f"seed {SEED}: bit {bit}"
        damaged.restore(path)
    assert found


@pytest.mark.parametrize("kind", ["metadata", "manifest list", "manifest", "data"])
@pytest.mark.parametrize("how", ["cut", "emptied", "gone"])
def test_a_cut_or_missing_file_is_named_and_never_read_as_less(damaged: Damaged, kind: str, how: str) -> None:
    lake = damaged.lake
    table, path = next((t, p) for t, k, p in damaged.used() if k == kind and t == "accelerometer_landing")
    if how == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1 if how == "cut" else 0)
    assert (table, shown(lake, path)) in accused(lake)["checksums"]
    assert {name for names in accused(lake, files=False).values() for name, _ in names} == {table}
    with pytest.raises(LakeError, match=f"table {table}: .*expected .* found .*run `stedi repair`") as refused:
        every_state(lake)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["manifest list", "manifest"])
def test_a_file_that_decays_is_named_though_this_process_has_read_it(damaged: Damaged, kind: str) -> None:
    lake = damaged.lake
    table, path = next((t, p) for t, k, p in damaged.used() if k == kind and t == "accelerometer_landing")
    every_state(lake)
    status = path.stat()
    flip(path, 8 * status.st_size // 2)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert accused(lake, files=False) == {"manifests": {(table, shown(lake, path))}}


def test_two_files_that_changed_places_are_both_named(damaged: Damaged) -> None:
    lake = damaged.lake
    for kind in ("data", "manifest"):
        one, other = sorted({p for t, k, p in damaged.used() if k == kind and t == "accelerometer_landing"})[:2]
        aside = one.with_name("aside")
        one.rename(aside)
        other.rename(one)
        aside.rename(other)
        names = {("accelerometer_landing", shown(lake, path)) for path in (one, other)}
        assert accused(lake)["checksums"] == names
        damaged.restore(one, other)


def test_a_file_without_a_checksum_is_a_violation(damaged: Damaged) -> None:
    lake, folder = damaged.lake, damaged.lake.catalog.folder("customers_landing")
    [path, *_] = [p for t, k, p in damaged.used() if k == "data" and t == "customers_landing"]
    checksums.prune(folder, lambda name: name != str(path.relative_to(folder)))
    [check] = [check for check in lake.audit(files=True) if check.violations]
    assert (check.name, check.table) == ("checksums", "customers_landing")
    assert [violation.found for violation in check.found] == ["no checksum"]


def test_lines_of_files_that_are_gone_can_be_removed(damaged: Damaged) -> None:
    lake, folder = damaged.lake, damaged.lake.catalog.folder("customers_trusted")
    used = {checksums.name_in(folder, path) for table, _, path in damaged.used() if table == "customers_trusted"}
    published = checksums.published(folder)
    assert checksums.recorded(folder).keys() > used
    for name in checksums.recorded(folder).keys() - used:
        (folder / name).unlink()
    lake.catalog.prune("customers_trusted")
    assert checksums.recorded(folder).keys() == used
    assert checksums.published(folder) == published
    assert not accused(lake)
    assert (folder / "checksums").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("torn", [b"0" * 40, b"0" * 64 + b"  data/x", b"\0" * 100, b"# published metadata/99"])
def test_a_line_that_a_power_cut_has_torn_harms_no_other(damaged: Damaged, torn: bytes) -> None:
    lake, file = damaged.lake, damaged.lake.catalog.folder("landed_files") / "checksums"
    with file.open("ab") as stream:
        stream.write(torn)
    assert not accused(lake)
    lake.catalog.append("landed_files", (), {})
    assert not accused(lake)


def test_checksums_are_on_disk_before_the_catalog_points_at_their_files(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, synced, seen = damaged.lake, dict[str, str](), dict[str, str]()
    fsync, write = os.fsync, checksums.publish

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path.endswith("/checksums"):
            synced[path] = Path(path).read_text()

    def published(folder: Path, metadata: str) -> None:
        seen.update(synced)
        write(folder, metadata)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(checksums, "publish", published)
    lake.catalog.append("customers_landing", (), {})
    [(_, content)] = seen.items()
    [location] = [p for t, k, p in damaged.used() if (t, k) == ("customers_landing", "metadata")]
    assert content.endswith(f"{hashlib.sha256(location.read_bytes()).hexdigest()}  metadata/{location.name}\n")


def test_what_was_published_is_noted_only_once_no_power_cut_can_undo_it(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, order, fsync, publish = damaged.lake, list[str](), os.fsync, checksums.publish

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        order.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def published(folder: Path, metadata: str) -> None:
        order.append("note")
        publish(folder, metadata)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(checksums, "publish", published)
    lake.catalog.append("customers_landing", (), {})
    assert order[-2:] == [str(lake.root), "note"], "SQLite's journal is gone for good when its folder is synced"


def test_a_catalog_that_is_older_than_its_tables_is_named_and_refused(damaged: Damaged, tmp_path: Path) -> None:
    lake = damaged.lake
    shutil.copyfile(lake.catalog.path, tmp_path / "yesterday.db")
    deliver(tmp_path / "in", "step_trainer", [step("b@x.example", 999)])
    lake.land(tmp_path / "in")
    shutil.copyfile(tmp_path / "yesterday.db", lake.catalog.path)
    assert accused(lake, files=False) == {
        "catalog": {(table, "catalog.db") for table in ("step_trainer_landing", "landed_files")}
    }
    for work in (
        lake.tables,
        lake.build,
        lambda: lake.land(tmp_path / "in"),
        lambda: lake.query("from customers_trusted"),
    ):
        with pytest.raises(DamagedFile, match=r"catalog\.db: expected metadata/\d+-.* or later, found .* is older"):
            work()


def test_a_file_that_was_cut_before_its_commit_is_not_committed(damaged: Damaged) -> None:
    lake, before = damaged.lake, heads(damaged.lake)
    folder = lake.catalog.folder("landed_files") / "data" / "new"
    folder.mkdir()
    (folder / "0.parquet").write_bytes(b"PAR1")
    for file in ("0.parquet", "1.parquet"):
        with pytest.raises(DamagedFile, match=f"{file}: expected 5 bytes, found"):
            lake.catalog.append("landed_files", [DataFile(str(folder / file), 1, 5)], {})
    assert heads(lake) == before
    assert not accused(lake)


def test_totals_that_manifests_do_not_bear_out_are_refused(damaged: Damaged) -> None:
    """Other programs' commits have no checksum, so that the counts must tell."""
    lake = damaged.lake
    [path] = {p for t, k, p in damaged.used() if (t, k) == ("customers_landing", "metadata")}
    content = path.read_text()
    assert '"total-records":"2"' in content
    path.write_text(content.replace('"total-records":"2"', '"total-records":"3"'))
    (lake.catalog.folder("customers_landing") / "checksums").unlink()
    [(table, file), *_] = accused(lake, files=False)["manifests"]
    assert (table, file.startswith("landing/customers_landing/metadata/snap-")) == ("customers_landing", True)
    with pytest.raises(DamagedFile, match="expected records of 3 in all, found 2"):
        lake.build(full=True)


def test_damage_in_old_snapshots_stops_no_landing(damaged: Damaged, tmp_path: Path) -> None:
    lake = damaged.lake
    old = lake.catalog.table("step_trainer_landing").history()[-1]
    Path(snapshots.local_path(old.manifest_list)).unlink()
    stray = lake.catalog.folder("step_trainer_landing") / "data" / "stray"
    stray.mkdir()
    (stray / "0.parquet").write_bytes(b"PAR1")
    deliver(tmp_path / "in", "step_trainer", [step("b@x.example", 999)])
    lake.land(tmp_path / "in")
    assert rows(lake, "step_trainer_landing").total() == 3
    assert stray.is_dir(), "damage hides whether it is in use"


def test_a_table_that_moves_while_it_is_looked_at_is_looked_at_again(
    damaged: Damaged, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, recorded, moved = damaged.lake, checksums.recorded, list[Path]()

    def moves(folder: Path) -> dict[str, str]:
        if folder in moved:
            return recorded(folder)
        moved.append(folder)
        lake.catalog.append(folder.name, (), {})
        return {}

    monkeypatch.setattr(checksums, "recorded", moves)
    assert not any(check.found for check in check_files(lake.catalog, files=True))
    assert len(moved) == len(ZONES)


def test_the_command_decides_by_exit_code_and_says_what_was_found(
    damaged: Damaged, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--lake", str(damaged.lake.root), "audit", "--files"]
    assert cli.main(words) == 0
    assert re.search(r"(?m)^(\d+) of \1 checks hold; 0 violations$", capsys.readouterr().out)
    [path] = {p for t, k, p in damaged.used() if (t, k) == ("customers_curated", "metadata")}
    os.truncate(path, 0)
    assert cli.main(words) == 3
    out = capsys.readouterr().out
    name = shown(damaged.lake, path)
    assert f"metadata: customers_curated: {name}: expected SHA-256 " in out
    assert "the rules of consent were not proved because files are damaged" in out
    assert cli.main([*words, "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["holds"], document["proved"]) == (False, False)
    [check] = [c for c in document["checks"] if c["violations"] and c["name"] == "checksums"]
    assert {key: check[key] for key in ("table", "violations")} == {"table": "customers_curated", "violations": 1}
    assert check["found"][0]["file"] == name
    assert all(
        isinstance(Check(c["name"], c["table"], ()), Check) and "found" not in c
        for c in document["checks"]
        if not c["violations"]
    )
