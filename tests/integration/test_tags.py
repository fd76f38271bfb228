"""Tags: a state of the tables that has a name, keeps it, and answers without whoever was erased since."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.utils.config import Config

import kills
import quick
import rest_catalog
from deliveries import customer, deliver, motion
from effort import at_night
from erasing import ANA, BO, CY, NOW, Stage, dying, erase, looked_for
from lakes import BELOW_LANDING, LANDING, Row, build, heads, publish_each, rows, unseen
from pools import Pool
from stedi.catalog import Catalog
from stedi.cli import main
from stedi.errors import LakeError, UsageError
from stedi.lake import Lake
from stedi.schema.tables import NAMESPACE, ZONES

NEW = "new@test.example"
AT_ONCE: dict[str, Any] = {"keep_days": 0.0, "keep_snapshots": 1, "grace_hours": 0.0}


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with quick.folder() as folder, quick.quickened():
        yield Stage(folder)


def grow(lake: Lake, folder: Path, who: str = NEW) -> None:
    """Lands somebody else and builds, so that every table moves on."""
    lake.land(
        deliver(folder, "customer", [customer(who, 50, serialNumber=f"of-{who}")], f"{who}.json"),
        deliver(folder, "accelerometer", [motion(who, at) for at in (100, 101)], f"{who}.json"),
    )
    build(lake, NOW)


def pinned(lake: Lake, name: str) -> dict[str, Counter[Row]]:
    """Returns the rows of every table that has a tag or branch of a name, as that pins them."""
    found = {}
    for table, state in lake.catalog.tables().items():
        if name in state.pins:
            found[table] = rows(lake, table, replace(state, current=state.snapshot(state.pins[name])))
    return found


def theirs(lake: Lake, table: str) -> Any:
    """Returns a table as another Iceberg client opens it."""
    return SqlCatalog("stedi", uri=f"sqlite:///{lake.catalog.path}").load_table((NAMESPACE, table))


def others(found: dict[str, Counter[Row]], lake: Lake, *gone: str) -> dict[str, Counter[Row]]:
    """Returns the rows that are not those of some people, in tables that tell whose a row is."""
    who = {*gone, *map(str.upper, gone), *map(lake.key().customer_id, gone)}
    return {
        table: Counter({row: count for row, count in held.items() if row[place] not in who})
        for table, held in found.items()
        for place in [_whose(table)]
        if place is not None
    }


def _whose(table: str) -> int | None:
    return {"customers_landing": 1, "accelerometer_landing": 0}.get(table, 0 if ZONES[table] != "landing" else None)


def configured(lake: Lake, **settings: Any) -> Lake:
    lake.context.config = replace(lake.config, **settings)
    return lake


def test_a_tag_reads_the_tables_as_they_were(stage: Stage) -> None:
    lake, folder = stage.made()
    before = {table: rows(lake, table) for table in BELOW_LANDING}
    made = lake.tag("v1")
    assert made.snapshots == {table: lake.catalog.table(table).current.id for table in BELOW_LANDING}  # type: ignore[union-attr]
    grow(lake, folder)
    assert rows(lake, "customers_trusted") != before["customers_trusted"]
    assert pinned(lake, "v1") == before
    sql = "select count(*) as n from customers_trusted as c join machine_learning_curated as m using (customer_id)"
    then = lake.query(sql, at="v1").arrow().to_pylist()
    assert then == lake.query(sql, at=made.snapshots["customers_trusted"]).arrow().to_pylist()
    assert lake.tags() == (made,)
    assert made.time <= datetime.now(UTC)


def test_a_tag_is_of_one_state(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, folder = stage.made()
    lake.tag("before")
    publish_each(monkeypatch)
    with dying(Catalog, "publish", 3):
        grow(lake, folder)
    with pytest.raises(LakeError, match=r"that is up to date with its inputs.*run `stedi build`"):
        lake.tag("between")
    assert [tag.name for tag in lake.tags()] == ["before"]
    build(lake, NOW)
    lake.maintain()  # what is compacted has the same rows
    lake.tag("after")
    assert [tag.name for tag in lake.tags()] == ["before", "after"]


def test_an_unbuilt_lake_has_nothing_to_tag(stage: Stage) -> None:
    lake, _ = stage.empty()
    with pytest.raises(LakeError, match="nothing was tagged: run `stedi build`"):
        lake.tag("v1")


@pytest.mark.parametrize("name", ["", "7", "2026-11-28", "main", "a b", "v/1", "-v", "a" * 65, "e@x.example", "v\n"])
def test_a_name_that_is_none_is_refused_in_one_line(stage: Stage, name: str) -> None:
    lake = Lake.open(stage.root) if stage.root.exists() else stage.made()[0]
    with pytest.raises(UsageError, match=r"^name: expected a letter, then up to 63") as refused:
        lake.tag(name)
    assert "\n" not in str(refused.value)
    assert not name or name not in str(refused.value) or name in ("7", "main")


def test_a_name_that_something_else_has_is_refused_and_the_same_tag_twice_is_one(stage: Stage) -> None:
    lake, folder = stage.made()
    made = lake.tag("v1")
    assert lake.tag("v1") == made
    with theirs(lake, "quarantine").manage_snapshots() as manage:
        manage.create_tag(lake.catalog.table("quarantine").current.id, "taken")  # type: ignore[union-attr]
    with theirs(lake, "customers_trusted").manage_snapshots() as manage:
        manage.create_branch(made.snapshots["customers_trusted"], "theirs")
    grow(lake, folder)
    for name, table in (("v1", "customers_trusted"), ("taken", "quarantine"), ("theirs", "customers_trusted")):
        with pytest.raises(UsageError, match=f"found a tag or branch of that name on {table}"):
            lake.tag(name)
    assert lake.tags()[-1].snapshots == made.snapshots or made in lake.tags()


def test_a_tag_that_was_cut_off_is_finished_by_the_same_command(stage: Stage) -> None:
    lake, _ = stage.made()
    with dying(Catalog, "tag", 3):
        lake.tag("v1")
    assert len(lake.tags()[0].snapshots) == 2
    with pytest.raises(UsageError, match="at: machine_learning_curated has no tag of that name"):
        lake.query("select 1 from machine_learning_curated, customers_trusted", at="v1")
    assert list(lake.tag("v1").snapshots) == list(BELOW_LANDING)


@pytest.mark.parametrize("at", ["\u00b2", "\u2460", "7" * 5000])
def test_digits_that_are_no_number_of_a_snapshot_name_nothing(
    lake: Lake, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    assert main(["--lake", str(lake.root), "query", "--at", at, "select count(*) from customers_trusted"]) == 2
    assert "--at: expected a tag, a snapshot id or an ISO 8601 time" in capsys.readouterr().err


def test_the_command_tags_lists_and_deletes(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    lake, folder = stage.made()
    words = ["--lake", str(lake.root)]
    assert main([*words, "--json", "tag", "v1"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["name"], list(made["snapshots"])) == ("v1", list(BELOW_LANDING))
    assert datetime.fromisoformat(made["time"]) <= datetime.now(UTC)
    grow(lake, folder)
    assert main([*words, "--json", "tag"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tags": [made]}
    assert main([*words, "tag"]) == 0
    assert "machine_learning_curated" in capsys.readouterr().out
    sql = "select count(*) from accelerometer_trusted"
    counts = []
    for at in (["--at", "v1"], []):
        assert main([*words, "query", sql, "--format", "csv", *at]) == 0
        counts.append(int(capsys.readouterr().out.split()[1]))
    assert counts[0] == counts[1] - 2
    assert main([*words, "query", sql, "--at", "v2"]) == 2
    assert "--at: expected a tag, a snapshot id or an ISO 8601 time, found 'v2'" in capsys.readouterr().err
    assert main([*words, "tag", "--delete", "v1"]) == 0
    assert main([*words, "tag", "--delete", "v1"]) == 2
    assert "NAME: expected the name of an existing tag, found none of that name" in capsys.readouterr().err
    assert main([*words, "tag", "v2", "--delete", "v1"]) == 2
    assert lake.tags() == ()


def test_maintenance_keeps_what_tags_name_until_they_are_deleted(stage: Stage) -> None:
    lake, folder = stage.made()
    made = lake.tag("v1")
    with theirs(lake, "customers_landing").manage_snapshots() as manage:
        manage.create_tag(lake.catalog.table("customers_landing").current.id, "theirs")  # type: ignore[union-attr]
    before = {name: pinned(lake, name) for name in ("v1", "theirs")}
    grow(lake, folder)
    configured(lake, **AT_ONCE, target_size="1KB").maintain()
    assert {name: pinned(lake, name) for name in before} == before
    for name in before:
        lake.untag(name)
    lake.maintain()
    left = {snapshot.id for state in lake.catalog.tables().values() for snapshot in state.snapshots}
    assert left.isdisjoint(made.snapshots.values())
    assert not any(check.found for check in lake.audit(files=True))


def foreign(lake: Lake) -> None:
    """Has another client tag and branch tables, and add rows to a branch of its own."""
    for table in ("customers_landing", "customers_trusted", "accelerometer_trusted"):
        current = lake.catalog.table(table).current
        assert current is not None
        with theirs(lake, table).manage_snapshots() as manage:
            manage.create_tag(current.id, "theirs").create_branch(current.id, "experiment")
    table = theirs(lake, "accelerometer_trusted")
    table.append(table.scan().to_arrow().slice(0, 2), branch="experiment")


def test_what_other_clients_name_is_no_damage_and_repair_leaves_it(stage: Stage) -> None:
    lake, folder = stage.made()
    lake.tag("v1")
    foreign(lake)
    before = {name: pinned(lake, name) for name in ("theirs", "experiment", "v1")}
    for _ in range(2):
        assert [check for check in lake.audit(files=True) if check.found] == []
        repaired = lake.repair()
        assert repaired.build is not None
        assert (repaired.forgotten, repaired.renewed, repaired.tags, repaired.build.run) == ({}, (), (), "")
        assert {name: pinned(lake, name) for name in before} == before
        grow(lake, folder)  # and once more when the lake has committed upon what they did


def test_what_other_clients_name_stays_vouched_for_when_older_metadata_have_gone(stage: Stage) -> None:
    lake, _ = stage.made()
    for number in range(12):  # a metadata file names the ten before it
        with theirs(lake, "landed_files").manage_snapshots() as manage:
            manage.create_tag(lake.catalog.table("landed_files").current.id, f"t{number}")  # type: ignore[union-attr]
        if number % 5 == 4:
            configured(lake, **AT_ONCE).maintain()
    with theirs(lake, "machine_learning_curated").manage_snapshots() as manage:
        manage.create_tag(lake.catalog.table("machine_learning_curated").current.id, "theirs")  # type: ignore[union-attr]
    erase(lake, "nobody@test.example")  # removes older metadata, and nothing else of that table
    assert not any(check.found for check in lake.audit(files=True))


@pytest.mark.parametrize("what", ["a property", "main moved back", "rows on main"])
def test_what_other_clients_change_of_what_is_published_is_still_found(stage: Stage, what: str) -> None:
    lake, folder = stage.made()
    before = lake.catalog.table("customers_trusted").current
    assert before is not None
    grow(lake, folder)
    lake.tag("v1")
    kept = pinned(lake, "v1")
    table = theirs(lake, "customers_trusted")
    if what == "a property":
        with table.transaction() as change:
            change.set_properties({"owner": "them"})
    elif what == "rows on main":
        table.append(table.scan().to_arrow().slice(0, 1))
    else:
        with table.manage_snapshots() as manage:
            manage.set_current_snapshot(snapshot_id=before.id)
    found = [check.table for check in lake.audit(files=True) if check.found]
    assert found == ["customers_trusted"]
    repaired = lake.repair()
    assert repaired.renewed == ("customers_trusted",)
    assert pinned(lake, "v1") == kept, "the tag names what is whole"
    assert rows(lake, "customers_trusted") == kept["customers_trusted"]
    assert not any(check.found for check in lake.audit(files=True))


def test_repair_keeps_whole_tags_of_a_damaged_table_and_names_those_that_are_spoilt(stage: Stage) -> None:
    lake, folder = stage.made()
    lake.tag("whole")
    whole = pinned(lake, "whole")
    lake.withdraw([ANA])  # so that the files of before are no longer those of now
    build(lake, NOW + 1)
    lake.tag("spoilt")
    grow(lake, folder)
    now = {table: rows(lake, table) for table in BELOW_LANDING}
    state = lake.catalog.table("customers_trusted")
    kept = {file.path for file in lake.catalog.files(state, state.snapshot(state.tags["whole"]))}
    for file in lake.catalog.files(state, state.snapshot(state.tags["spoilt"])):
        assert file.path not in kept
        content = bytearray(Path(file.path).read_bytes())
        content[len(content) // 2] ^= 1
        Path(file.path).write_bytes(content)
    repaired = lake.repair()
    assert (repaired.renewed, repaired.tags) == (("customers_trusted",), ("spoilt",))
    assert pinned(lake, "whole") == whole
    assert "customers_trusted" not in lake.tags()[-1].snapshots or lake.tags()[-1].name == "whole"
    assert {table: rows(lake, table) for table in BELOW_LANDING} == now
    assert not any(check.found for check in lake.audit(files=True))


def test_another_key_asks_and_ends_the_tags_that_it_names(
    stage: Stage, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lake, _ = stage.made()
    lake.tag("v1")
    with theirs(lake, "customers_landing").manage_snapshots() as manage:
        manage.create_tag(lake.catalog.table("customers_landing").current.id, "landed")  # type: ignore[union-attr]
    words = ["--lake", str(lake.root), "key", "rotate", "--to", str(tmp_path / "next.key")]
    before = heads(lake)
    assert main(words) == 2
    said = capsys.readouterr().err
    assert "key rotate: expected --yes or a terminal to ask" in said
    assert said.count("\n") == 1
    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr("stedi.cli.terminal.confirmed", lambda question, **_: asked.append(question()))
        assert main(words) == 2
    assert "These tags and branches are removed, too: v1." in asked[0]
    assert (heads(lake), (tmp_path / "next.key").exists()) == (before, False)
    monkeypatch.delenv("STEDI_PSEUDONYM_KEY")
    key = tmp_path / "this.key"
    key.write_text("5a" * 32)
    key.chmod(0o600)
    monkeypatch.setenv("STEDI_KEY_FILE", str(key))
    capsys.readouterr()
    assert main([*words[:2], "--json", *words[2:], "--yes"]) == 0
    assert json.loads(capsys.readouterr().out)["tags"] == ["v1"]
    monkeypatch.setenv("STEDI_KEY_FILE", str(tmp_path / "next.key"))
    assert [tag.name for tag in Lake.open(lake.root).tags()] == ["landed"]


Known = dict[str, dict[str, Counter[Row]]]


class Tagged:
    """A lake with tags of three states, made once and put back for each use.

    `early` has Ana in files of then, `late` in files of now, `gone` nowhere since she withdrew; `theirs` is of another
    client, on every table of landing, and `experiment` a branch of theirs with rows of its own.
    """

    def __init__(self, stage: Stage) -> None:
        lake, folder = stage.made()
        lake.tag("early")
        for table in LANDING:
            current = lake.catalog.table(table).current
            assert current is not None
            with theirs(lake, table).manage_snapshots() as manage:
                manage.create_tag(current.id, "theirs")
        grow(lake, folder)
        configured(lake, target_size="1KB", grace_hours=0.0).maintain()
        lake.tag("late")
        table = theirs(lake, "accelerometer_trusted")
        with table.manage_snapshots() as manage:
            manage.create_branch(table.current_snapshot().snapshot_id, "experiment")
        table = theirs(lake, "accelerometer_trusted")
        table.append(table.scan().to_arrow(), branch="experiment")
        lake.withdraw([ANA])
        build(lake, NOW + 1)
        grow(lake, folder, "again@test.example")  # or a manifest would still tell of the files that she has left
        lake.tag("gone")
        self.known: Known = {n: pinned(lake, n) for n in ("early", "late", "gone", "theirs", "experiment")}
        self._stage, self._kept = stage, stage.root.parent / "tagged"
        shutil.copytree(lake.root, self._kept)

    def made(self) -> tuple[Lake, Path, Known]:
        """Returns the lake, its inbox, and what each name pins."""
        _, folder = self._stage.made()
        shutil.rmtree(self._stage.root)
        shutil.copytree(self._kept, self._stage.root)
        quick.forget()
        return unseen(self._stage.root), folder, self.known


@pytest.fixture(scope="module")
def tags(stage: Stage) -> Tagged:
    return Tagged(stage)


def hold(lake: Lake, before: Known, *gone: str) -> None:
    """Holds tags to answer as before, but for some people."""
    for name, known in before.items():
        found = pinned(lake, name)
        assert found.keys() == known.keys(), name
        assert others(found, lake) == others(known, lake, *gone), name


def test_after_an_erasure_every_tag_answers_without_the_erased_and_with_everybody_else(tags: Tagged) -> None:
    lake, _, before = tags.made()
    look = looked_for(lake, ANA)
    assert look().found
    kept = {tag.name: tag for tag in lake.tags()}
    receipt = erase(lake, ANA, now=NOW + 2)
    assert receipt["clean"], receipt["scanned"]["found"]
    assert not look().found
    hold(lake, before, ANA)
    after = {tag.name: tag for tag in lake.tags()}
    assert after["gone"] == kept["gone"], "what holds nobody erased keeps its snapshots"
    assert set(after["early"].snapshots.values()).isdisjoint(kept["early"].snapshots.values())
    assert {name: tag.time for name, tag in after.items()} == {name: tag.time for name, tag in kept.items()}
    assert not any(check.found for check in lake.audit(files=True))
    assert not build(lake, NOW + 2).run
    configured(lake, **AT_ONCE).maintain()
    hold(lake, before, ANA)
    # and once more, of others; a tag that nobody is left in still answers
    assert erase(lake, BO, CY, NEW, now=NOW + 3)["clean"]
    hold(lake, before, ANA, BO, CY, NEW)
    assert lake.query("select count(*) as n from machine_learning_curated", at="early").arrow().to_pylist() == [
        {"n": 0}
    ]


def test_what_is_written_anew_is_shared_by_the_snapshots_that_shared_it_before(stage: Stage) -> None:
    lake, folder = stage.made()
    lake.tag("one")
    with theirs(lake, "customers_trusted").manage_snapshots() as manage:
        manage.create_tag(lake.catalog.table("customers_trusted").current.id, "two")  # type: ignore[union-attr]
    grow(lake, folder)
    erase(lake, ANA)
    state = lake.catalog.table("customers_trusted")
    files = {
        name: {file.path for file in lake.catalog.files(state, state.snapshot(head))}
        for name, head in {**state.tags, "main": state.branches["main"]}.items()
    }
    assert state.tags["one"] == state.tags["two"]
    assert files["one"] < files["main"]


def test_workers_write_tagged_snapshots_anew_alike(tags: Tagged) -> None:
    lake, _, before = tags.made()
    assert erase(lake, ANA, now=NOW + 2, workers=Pool())["clean"]
    hold(lake, before, ANA)


@pytest.mark.parametrize(
    "place", [("erase", 1), ("erase", 4), ("erase", 9), ("expire", 1), ("expire", 7), ("vacuum", 1)]
)
@pytest.mark.sample(full=3)
def test_an_erasure_that_dies_among_tags_is_finished_by_the_next_command(tags: Tagged, place: tuple[str, int]) -> None:
    lake, _, before = tags.made()
    look = looked_for(lake, ANA)
    with dying(Catalog, *place, after=place[1] % 2 == 1):
        erase(lake, ANA, now=NOW + 2)
    lake.tag("after")  # finishes it
    assert lake.receipts()[-1].clean
    assert not look().found
    hold(lake, before, ANA)
    assert not any(check.found for check in lake.audit(files=True))


@pytest.mark.parametrize("number", [9, 60, 140, 230])
@pytest.mark.sample(full=2)
def test_an_erasure_that_is_killed_among_tags_is_finished_by_the_next_command(tags: Tagged, number: int) -> None:
    lake, _, before = tags.made()
    look = looked_for(lake, ANA)
    kills.at(number, lambda: erase(lake, ANA, now=NOW + 2))
    quick.forget()
    if (lake.root / "erasing.json").exists():
        lake.withdraw([BO])
    else:
        erase(lake, ANA, now=NOW + 2)
    assert not look().found
    hold(lake, before, ANA)


def test_what_another_client_names_in_the_last_moment_is_made_anew_too(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake, folder = stage.made()
    grow(lake, folder)
    oldest = lake.catalog.table("accelerometer_trusted").history()[1]
    real, calls = Catalog.erase, list[str]()

    def late(catalog: Catalog, table: str, *given: Any, **options: Any) -> None:
        real(catalog, table, *given, **options)
        if table == "accelerometer_trusted" and not calls:
            calls.append(table)
            with theirs(lake, table).manage_snapshots() as manage:
                manage.create_tag(oldest.id, "late")
            quick.forget()

    monkeypatch.setattr(Catalog, "erase", late)
    look = looked_for(lake, ANA)
    assert erase(lake, ANA)["clean"]
    assert not look().found
    assert calls
    assert sum(pinned(lake, "late")["accelerometer_trusted"].values()) == 8


def test_a_build_on_tagged_tables_equals_a_full_one_after_an_erasure(tags: Tagged) -> None:
    lake, folder, _ = tags.made()
    erase(lake, ANA, now=NOW + 2)
    grow(lake, folder, "later@test.example")
    found = {table: rows(lake, table) for table in BELOW_LANDING}
    build(lake, NOW + 2, full=True)
    assert {table: rows(lake, table) for table in BELOW_LANDING} == found


@pytest.mark.parametrize("kind", ["glue", pytest.param("rest", marks=at_night)])
@pytest.mark.thorough
def test_tags_of_a_lake_in_a_bucket_live_through_an_erasure(
    kind: str, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        if kind == "rest":
            monkeypatch.setenv("PYICEBERG_CATALOG__STEDI__TYPE", "rest")
            url = stack.enter_context(rest_catalog.running(tmp_path))
            monkeypatch.setenv("PYICEBERG_CATALOG__STEDI__URI", url)
            monkeypatch.setattr("pyiceberg.catalog._ENV_CONFIG", Config())
        _live_through_an_erasure(Lake.create(f"s3://{bucket}/lake"), tmp_path)


def _live_through_an_erasure(lake: Lake, folder: Path) -> None:
    people = [customer(who, 50, serialNumber=f"of-{who}") for who in (ANA, CY)]
    lake.land(
        deliver(folder, "customer", people),
        deliver(folder, "accelerometer", [motion(who, at) for who in (ANA, CY) for at in (100, 101)]),
    )
    lake.build()
    lake.tag("early")
    remote = lake.catalog.remote
    assert remote is not None
    table = remote._catalog.load_table((NAMESPACE, "customers_landing"))
    with table.manage_snapshots() as manage:
        manage.create_tag(table.metadata.current_snapshot_id or 0, "theirs")
    before = {name: pinned(lake, name) for name in ("early", "theirs")}
    assert [check for check in lake.audit(files=True) if check.found] == []
    lake.land(deliver(folder, "accelerometer", [motion(CY, 102)], "more.json"))
    lake.build()
    [receipt] = lake.erase(ANA)
    assert receipt.clean, receipt.scanned["found"]
    hold(lake, before, ANA)
    assert not any(check.found for check in lake.audit(files=True))
    lake.maintain()
    hold(lake, before, ANA)
