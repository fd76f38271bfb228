"""What the lake knows of its releases: who is in them, who may no longer be used, and what became of them."""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deliveries import customer, deliver, motion, step
from lakes import Slate
from stedi import Dataset, Lake, cli
from stedi.datasets import registry
from stedi.datasets.verify import verify
from stedi.erasure import releases
from stedi.errors import QueryRefused, UsageError
from stedi.landing import journal
from stedi.privacy import signatures, tombstones
from stedi.schema.tables import REGISTRY, ZONES
from stedi.storage import config as settings

PEOPLE = [f"p{number}@x.example" for number in range(8)]
MOMENTS = 4


def world(lake: Lake, inbox: Path) -> None:
    """Eight people of four moments each; the first two share a device, the last three share with the public."""
    land(lake, inbox, PEOPLE)
    lake.build()


def land(lake: Lake, inbox: Path, people: list[str], name: str = "delivered.json") -> None:
    number = {person: int(person[1 : person.index("@")]) for person in people}
    records = [
        customer(p, serialNumber=f"s{max(1, n)}", **({"shareWithPublicAsOfDate": 60} if 5 <= n <= 7 else {}))
        for p, n in number.items()
    ]
    moments = {person: [1000 * n + 10 * at for at in range(1, MOMENTS + 1)] for person, n in number.items()}
    deliver(inbox, "customer", records, name)
    deliver(inbox, "accelerometer", [motion(p, at) for p, listed in moments.items() for at in listed], name)
    deliver(
        inbox, "step_trainer", [step(f"s{max(1, number[p])}", at) for p, all_ in moments.items() for at in all_], name
    )
    lake.land(inbox)


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(world)


def run(lake: Lake, *words: str) -> int:
    return cli.main(["--lake", str(lake.root), *words])


def document(lake: Lake, capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run(lake, "--json", *words) == code
    return json.loads(capsys.readouterr().out)


def subject(lake: Lake, person: str, release: str) -> str:
    entry = registry.find(lake.context, release, deleted=True)
    return registry.identifier(lake.key(), entry.lake, release)(tombstones.person(lake.key(), person))


def test_a_lake_without_releases_has_no_table_of_them(lake: Lake) -> None:
    assert {table.name for table in lake.tables()} == set(ZONES)
    assert not (lake.root / "released").exists()
    assert lake.datasets() == ()
    assert not [check for check in lake.audit(files=True) if check.violations]


def test_a_release_is_known_whole_and_holds(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    made = document(lake, capsys, "dataset", "create", "steps", "--for", "Gait lab, contract 12")
    assert document(lake, capsys, "dataset", "show", "steps@1") == made
    [listed] = document(lake, capsys, "dataset", "list")["releases"]
    assert listed == {name: value for name, value in made.items() if name not in ("account", "options")}
    assert (made["subjects"], made["rows"], made["for"], made["stale"]) == (8, 32, "Gait lab, contract 12", [])
    assert made["public_key"] == (lake.root / "keys" / "sign.pub").read_text()
    assert verify(Path(made["path"]), public_key=lake.root / "keys" / "sign.pub").holds
    assert {table.name for table in lake.tables()} == {*ZONES, *REGISTRY}


def other_key(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Returns the lake under another key, which remembers those before it."""
    every = f"{secrets.token_hex(32)} {os.environ['STEDI_PSEUDONYM_KEY']}"
    monkeypatch.setenv("STEDI_NEXT_PSEUDONYM_KEY", every)
    lake.rotate_key()
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", every)
    return Lake.open(lake.root)


def test_the_tables_of_releases_are_looked_after_like_all_others(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        lake.create_dataset("steps")
    before = [(release.release, release.manifest_sha256) for release in lake.datasets()]
    lake.maintain()
    lake = other_key(lake, monkeypatch)
    assert not [check for check in lake.audit(files=True) if check.violations]
    assert not [check for check in lake.prove().checks if check.violations]
    assert lake.repair().renewed == ()
    assert [(release.release, release.manifest_sha256) for release in lake.datasets()] == before


def test_nobody_sees_who_is_in_a_release_but_whoever_may(lake: Lake) -> None:
    lake.create_dataset("steps")
    assert lake.query("select release, rows from releases", role="scientist").arrow().to_pylist() == [
        {"release": "steps@1", "rows": 32}
    ]
    with pytest.raises(QueryRefused):
        lake.query("select * from release_subjects", role="scientist")
    found = lake.query("select * from release_subjects", role="officer").arrow().to_pylist()
    assert {row["subject"] for row in found} == {subject(lake, person, "steps@1") for person in PEOPLE}


def test_no_two_releases_can_be_joined(lake: Lake) -> None:
    for name in ("steps", "steps", "other"):
        lake.create_dataset(name)
    every = [row["subject"] for row in lake.query("from release_subjects", role="officer").arrow().to_pylist()]
    assert len(every) == len(set(every)) == 3 * len(PEOPLE)
    ids = {row["customer_id"] for row in lake.query("from customers_trusted", role="officer").arrow().to_pylist()}
    assert not ids & set(every)


def withdraw_by_command(lake: Lake, inbox: Path) -> None:
    lake.withdraw(PEOPLE[3])


def withdraw_by_feed(lake: Lake, inbox: Path) -> None:
    deliver(inbox, "customer", [customer(PEOPLE[3], ..., 200, serialNumber="s3")], "later.json")
    lake.land(inbox / "customer" / "later.json")


def end_in_a_build(lake: Lake, inbox: Path) -> None:
    withdraw_by_feed(lake, inbox)
    lake.build()


def erased(lake: Lake, inbox: Path) -> None:
    lake.erase(PEOPLE[3])


@pytest.mark.parametrize("leave", [withdraw_by_command, withdraw_by_feed, end_in_a_build, erased])
def test_a_release_is_stale_as_soon_as_somebody_of_it_may_no_longer_be_used(
    lake: Lake, inbox: Path, leave: Callable[[Lake, Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    lake.create_dataset("steps")
    assert document(lake, capsys, "dataset", "list", "--stale") == {"releases": []}
    theirs = subject(lake, PEOPLE[3], "steps@1")
    leave(lake, inbox)
    [found] = document(lake, capsys, "dataset", "list", "--stale", code=3)["releases"]
    assert (found["release"], found["stale"]) == ("steps@1", [theirs])
    lake.create_dataset("steps")
    assert [release.release for release in lake.datasets(stale=True)] == ["steps@1"]


def test_status_says_what_ends_a_stale_release_and_is_well_after_it(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.create_dataset("steps")
    lake.withdraw(PEOPLE[3])
    lake.build()
    [told] = document(lake, capsys, "status", code=3)["late"]
    commands = re.findall("`stedi ([^`]+)`", told)
    assert commands == ["dataset refresh steps", "dataset recall steps@1", "dataset delete steps@1"]
    for command in commands:
        assert run(lake, *command.split()) == 0
    assert document(lake, capsys, "status")["late"] == []


def test_the_options_of_two_releases_are_compared_as_the_command_line_takes_them(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.create_dataset("steps")
    near: dict[str, Any] = {"match": "nearest", "tolerance": "20ms", "window": "1.5s", "resample": "12.5Hz"}
    lake.create_dataset("steps", **near, split="60/20/20", pad=True)
    capsys.readouterr()
    assert run(lake, "dataset", "diff", "steps@1", "steps@2") == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split() for line in lines if line.startswith("--")]
    assert {name: values for name, *values in shown[1:]} == {
        "--match": ["exact", "nearest"],
        "--pad": ["no", "yes"],
        "--resample": ["none", "12.5Hz"],
        "--split": ["80/10/10", "60/20/20"],
        "--stride": ["none", "1.5s"],
        "--tolerance": ["0ms", "20ms"],
        "--window": ["none", "1.5s"],
    }


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["create", "x", "--window", "0s"], "--window: expected more than 0 ms, found 0"),
        (["create", "x", "--window", "2s", "--max-gap", "0s"], "--max-gap: expected more than 0 ms, found 0"),
        (["create", "x", "--labels", "none.csv"], "--labels: none.csv: cannot be read: No such file or directory"),
        (["create", "x", "--for", "a\tb"], "--for: expected 500 printable characters at most, on one line"),
        (["note", "steps@1", "--model", "a@x.example"], "--model: expected no email address, found what may be one"),
    ],
)
def test_a_refused_value_is_named_by_its_option(
    lake: Lake, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] == "note":
        lake.create_dataset("steps")
    capsys.readouterr()
    assert run(lake, "dataset", *words) == 2
    assert capsys.readouterr().err.startswith(f"stedi: {told}")


def test_who_agrees_again_makes_nothing_stale(lake: Lake, inbox: Path) -> None:
    lake.create_dataset("steps")
    withdraw_by_feed(lake, inbox)
    deliver(inbox, "customer", [customer(PEOPLE[3], 250, 300, serialNumber="s3")], "again.json")
    lake.land(inbox / "customer" / "again.json")
    assert lake.datasets(stale=True) == ()


def test_who_agrees_again_later_makes_stale_what_has_readings_from_before(slate: Slate) -> None:
    """Under `since-consent` (rule 4) such a release was called current, and no recall named them."""
    lake, inbox = slate.made(world, "since-consent"), slate.inbox()
    lake.create_dataset("steps")
    withdraw_by_feed(lake, inbox)
    other_spelling = f" {PEOPLE[3].upper()}"
    again = [
        customer(other_spelling, 3020, 300, serialNumber="s3"),
        # these say nothing new, or give more
        customer(PEOPLE[2], 50, 300, serialNumber="s2", customerName="P. Two"),
        customer(PEOPLE[4], 40, 300, serialNumber="s4"),
        customer("new@x.example", 90, 300, serialNumber="s99"),
    ]
    deliver(inbox, "customer", again, "again.json")
    lake.land(inbox / "customer" / "again.json")
    theirs = subject(lake, PEOPLE[3], "steps@1")
    [found] = lake.datasets(stale=True)
    assert (found.release, list(found.stale)) == ("steps@1", [theirs])
    assert list(lake.recall_dataset("steps@1").drop) == [theirs]
    assert lake.build().stale == ("steps@1",)
    made = lake.create_dataset("steps")
    assert (made.subjects, made.rows) == (7, 27)
    assert [(release.release, list(release.stale)) for release in lake.datasets(stale=True)] == [("steps@1", [theirs])]
    # whoever may use all readings again may use these, too
    settings.write(settings.changed(lake.config, readings="all"), lake.root / "lake.toml")
    assert Lake.open(lake.root).datasets(stale=True) == ()


@pytest.mark.parametrize("cut", [False, True])
def test_a_landing_that_begins_before_the_build_and_ends_after_the_release_is_not_known_to_it(
    slate: Slate, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """By its time it was: the release was called current, though it has readings from before the later consent."""
    lake, inbox = slate.made(world, "since-consent"), slate.inbox()
    land(lake, inbox, ["p9@x.example"], "other.json")  # so that there is something to build
    deliver(inbox, "customer", [customer(PEOPLE[3], 3020, 300, serialNumber="s3")], "again.json")
    real, begun = journal.Commit.commit, list[str]()

    def commit(self: journal.Commit, *arguments: Any) -> None:
        begun.append(self.id)
        Lake.open(lake.root).create_dataset("steps")
        real(self, *arguments)

    def killed(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch, suppress(MemoryError):
        if cut:  # when the release is decided
            patch.setattr(registry, "_register", killed)
        patch.setattr(journal.Commit, "commit", commit)
        lake.land(inbox / "customer" / "again.json")
    if cut:
        lake.note_dataset("steps@1", model="cnn")  # finishes the release
        lake.land(inbox / "customer" / "again.json")
    theirs = subject(lake, PEOPLE[3], "steps@1")
    assert "" < registry.find(lake.context, "steps@1").known < begun[0]
    assert [(r.release, list(r.stale)) for r in lake.datasets(stale=True)] == [("steps@1", [theirs])]
    assert lake.build().stale == ("steps@1",)
    # made from the later consent, and with nobody's readings from before: the same records are known to this one
    lake.create_dataset("steps")
    assert [r.release for r in lake.datasets(stale=True)] == ["steps@1"]
    lake.maintain()
    assert [r.release for r in lake.datasets(stale=True)] == ["steps@1"]


def test_an_erasure_and_compaction_leave_known_what_a_release_was_made_from(slate: Slate) -> None:
    lake, inbox = slate.made(world, "since-consent"), slate.inbox()
    withdraw_by_feed(lake, inbox)
    for number in range(12):  # files to compact
        deliver(inbox, "customer", [customer(PEOPLE[3], 3020, 300 + number, serialNumber="s3")], f"{number}.json")
        lake.land(inbox / "customer" / f"{number}.json")
    lake.erase(PEOPLE[5])
    lake.maintain()
    lake.create_dataset("steps")
    assert registry.find(lake.context, "steps@1").known
    assert lake.datasets(stale=True) == ()
    lake.erase(PEOPLE[6])
    deliver(inbox, "customer", [customer(PEOPLE[3], 3030, 400, serialNumber="s3")], "last.json")
    lake.land(inbox / "customer" / "last.json")
    [found] = lake.datasets(stale=True)
    assert subject(lake, PEOPLE[3], "steps@1") in found.stale


def test_under_since_consent_a_release_for_the_public_needs_the_later_of_both_dates(slate: Slate) -> None:
    lake, inbox = slate.made(world, "since-consent"), slate.inbox()
    lake.create_dataset("steps")
    assert lake.create_dataset("open", purpose="public").subjects == 3
    more = [customer(PEOPLE[6], 50, 300, serialNumber="s6", shareWithPublicAsOfDate=6020)]
    deliver(inbox, "customer", more, "again.json")
    lake.land(inbox / "customer" / "again.json")
    assert [(r.release, list(r.stale)) for r in lake.datasets(stale=True)] == [
        ("open@1", [subject(lake, PEOPLE[6], "open@1")])
    ]
    assert lake.build().stale == ("open@1",)


def test_who_came_back_after_an_erasure_is_in_new_releases_and_not_in_old_ones(slate: Slate, lake: Lake) -> None:
    lake.create_dataset("steps")
    lake.erase(PEOPLE[3])
    assert [release.release for release in lake.datasets(stale=True)] == ["steps@1"]
    lake.create_dataset("steps")
    assert [release.release for release in lake.datasets(stale=True)] == ["steps@1"]


def test_a_release_for_the_public_is_stale_when_somebody_no_longer_shares_with_it(lake: Lake, inbox: Path) -> None:
    lake.create_dataset("steps")
    public = lake.create_dataset("open", purpose="public")
    assert public.subjects == 3
    deliver(inbox, "customer", [customer(PEOPLE[6], 50, 200, serialNumber="s6")], "later.json")
    lake.land(inbox / "customer" / "later.json")
    assert [(r.release, list(r.stale)) for r in lake.datasets(stale=True)] == [
        ("open@1", [subject(lake, PEOPLE[6], "open@1")])
    ]
    assert lake.build().stale == ("open@1",)
    lake.withdraw(PEOPLE[7])
    assert {release.release for release in lake.datasets(stale=True)} == {"open@1", "steps@1"}


def test_build_withdraw_and_erase_name_the_releases(
    lake: Lake, inbox: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.create_dataset("steps")
    assert document(lake, capsys, "withdraw", "--yes", PEOPLE[2])["stale"] == ["steps@1"]
    assert document(lake, capsys, "withdraw", "--yes", "nobody@x.example")["stale"] == []
    assert document(lake, capsys, "build")["stale"] == ["steps@1"]
    assert document(lake, capsys, "build", "--full")["stale"] == []
    assert document(lake, capsys, "erase", "--yes", PEOPLE[3])["stale"] == ["steps@1"]
    assert run(lake, "withdraw", "--yes", PEOPLE[4]) == 0
    assert "steps@1 is stale" in capsys.readouterr().err
    assert run(lake, "build") == 0
    assert "steps@1 is stale" in capsys.readouterr().err


def test_a_refreshed_release_is_without_those_who_left_and_everybody_else_stays(lake: Lake) -> None:
    lake.create_dataset("steps", split="40/30/30")
    lake.withdraw(PEOPLE[2])
    fresh = lake.refresh_dataset("steps")
    assert (fresh.release, fresh.subjects, fresh.options.split) == ("steps@2", 7, (40.0, 30.0, 30.0))
    where = [registry.subjects(lake.context, release) for release in ("steps@1", "steps@2")]
    for person in PEOPLE:
        ids = [subject(lake, person, release) for release in ("steps@1", "steps@2")]
        if person == PEOPLE[2]:
            assert ids[1] not in where[1]
        else:
            assert where[0][ids[0]] == where[1][ids[1]]
    found = lake.diff_datasets("steps@1", "steps@2")
    assert (found.both, found.only_one, found.only_other, found.moved, found.options) == (7, 1, 0, 0, {})


def test_people_who_come_to_share_a_device_keep_the_split_of_who_was_there_first(lake: Lake, inbox: Path) -> None:
    lake.create_dataset("steps", split="40/30/30")
    before = registry.subjects(lake.context, "steps@1")
    split = {person: before[subject(lake, person, "steps@1")][0] for person in PEOPLE}
    one = PEOPLE[2]
    other = next(person for person in PEOPLE[3:] if split[person] != split[one])
    deliver(inbox, "customer", [customer(other, 50, 200, serialNumber="s2")], "tied.json")
    lake.land(inbox / "customer" / "tied.json")
    lake.refresh_dataset("steps")
    after = registry.subjects(lake.context, "steps@2")
    together = {after[subject(lake, person, "steps@2")][0] for person in (one, other)}
    assert len(together) == 1
    assert together <= {split[one], split[other]}
    for person in PEOPLE:
        if person not in (one, other):
            assert after[subject(lake, person, "steps@2")][0] == split[person]


def test_models_are_noted_and_a_deleted_version_is_not_given_again(
    lake: Lake, capsys: pytest.CaptureFixture[str]
) -> None:
    lake.create_dataset("steps")
    assert document(lake, capsys, "dataset", "note", "steps@1", "--model", "cnn 3")["models"] == ["cnn 3"]
    with pytest.raises(UsageError):
        lake.note_dataset("steps@1", model="two\nlines")
    with pytest.raises(UsageError):
        lake.note_dataset("steps@2", model="cnn")
    lake.delete_dataset("steps@1")
    assert lake.datasets() == ()
    assert not (lake.root / "releases" / "steps" / "1").exists()
    assert lake.create_dataset("steps").release == "steps@2"
    lake.withdraw(PEOPLE[2])
    assert set(lake.recall_dataset("steps@1").drop) == {subject(lake, PEOPLE[2], "steps@1")}


def test_a_release_is_read_by_its_name(lake: Lake) -> None:
    made = lake.create_dataset("steps", window="1s")
    found = lake.dataset("steps")
    assert isinstance(found, Dataset)
    assert (found.release, found.path) == ("steps@1", Path(made.path))
    assert "steps@1" in repr(found)
    lake.create_dataset("moments")
    assert lake.dataset("moments").numpy("train").X.shape[1:] == (4, 1)


def test_an_erasure_leaves_no_byte_of_the_person_in_a_release(lake: Lake) -> None:
    made = [Path(lake.create_dataset("steps").path), Path(lake.create_dataset("w", window="1s", time="absolute").path)]
    theirs = {subject(lake, PEOPLE[5], release) for release in ("steps@1", "w@1")}
    others = [rows_without(path, theirs) for path in made]
    [receipt] = lake.erase(PEOPLE[5])
    assert receipt.removed["releases"] == {"rewritten": ["steps@1", "w@1"], "out_of_reach": []}
    for path, rows in zip(made, others, strict=True):
        assert rows_without(path, set()) == rows
        assert verify(path).holds
        for file in path.rglob("*.parquet"):
            assert not any(each.encode() in file.read_bytes() for each in theirs)
    assert not [row for row in lake.query("from release_subjects", role="officer").arrow().to_pylist()
                if row["subject"] in theirs]  # fmt: skip
    assert {s for release in lake.datasets() for s in release.stale} == theirs
    assert {s for name in ("steps@1", "w@1") for s in lake.recall_dataset(name).drop} == theirs


def rows_without(path: Path, gone: set[str]) -> list[dict[str, Any]]:
    files = sorted((path / "data").glob("*.parquet"))
    return [
        row
        for file in files
        for row in pq.read_table(file, partitioning=None).to_pylist()
        if row["subject"] not in gone
    ]


def test_an_erasure_names_the_releases_that_it_does_not_reach(lake: Lake, tmp_path: Path) -> None:
    lake.create_dataset("steps", output=tmp_path / "handed-out")
    [receipt] = lake.erase(PEOPLE[5])
    assert receipt.removed["releases"] == {"rewritten": [], "out_of_reach": ["steps@1"]}
    assert lake.verify_receipt(receipt.id).holds
    assert len(pq.read_table(tmp_path / "handed-out" / "subjects.parquet")) == len(PEOPLE)
    assert lake.recall_dataset("steps@1").files


class Killed(BaseException):
    """The end of a process, as far as one can see who is in it."""


@pytest.mark.parametrize(
    "step",
    [
        (registry, "finish"), (registry, "_register"), (registry, "_append"), (registry.state, "write"),
        (registry.durable, "remove"),
    ],
)  # fmt: skip
def test_a_release_that_was_cut_off_is_whole_and_known_or_absent(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, step: tuple[Any, str]
) -> None:
    def die(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(*step, die)
        with pytest.raises(Killed):
            lake.create_dataset("steps")
    lake = Lake.open(lake.root)
    lake.build()
    folder = lake.root / "releases" / "steps"
    there = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    assert there in ([], ["1"])
    assert [release.release for release in lake.datasets()] == ["steps@1"] * len(there)
    if there:
        assert verify(folder / "1").holds
        assert len(registry.subjects(lake.context, "steps@1")) == len(PEOPLE)
    assert lake.create_dataset("steps").version == len(there) + 1
    assert not (lake.root / registry.NOTE).exists()
    assert not list(folder.glob(".*"))


@pytest.mark.parametrize("at", ["before", "noted", "dropped", "told"])
@pytest.mark.sample(full=2)
def test_an_erasure_that_was_cut_off_among_releases_ends_with_the_next_command(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, at: str
) -> None:
    path = Path(lake.create_dataset("steps").path)
    theirs = subject(lake, PEOPLE[5], "steps@1")
    real, calls = registry.append, [0]

    def die(*_: object, **__: object) -> None:
        raise Killed

    def append(*words: Any) -> None:
        calls[0] += 1
        if at == "before" or (at == "dropped" and calls[0] == 2):
            raise Killed
        real(*words)
        if at == "told" and calls[0] == 2:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(registry, "append", append)
        if at == "noted":
            patch.setattr(releases.drop, "drop", die)
        with pytest.raises(Killed):
            lake.erase(PEOPLE[5])
    lake = Lake.open(lake.root)
    lake.build()
    assert not [row for row in rows_without(path, set()) if row["subject"] == theirs]
    assert verify(path).holds
    assert list(lake.release("steps@1").stale) == [theirs]
    recall = lake.recall_dataset("steps@1")
    assert set(recall.drop) == {theirs}
    assert len(recall.files) == 1
    assert "releases" in lake.receipts()[-1].removed


def test_the_signing_key_is_that_of_the_lakes_first_key(lake: Lake) -> None:
    made = lake.create_dataset("steps")
    assert made.public_key == signatures.public_key(lake.key())


@pytest.mark.parametrize(("typed", "told"), [("steps@9", "steps@9"), ("p1@x.example", "the release")])
def test_a_release_that_is_not_there_is_named_and_what_may_be_an_address_is_not(
    lake: Lake, capsys: pytest.CaptureFixture[str], typed: str, told: str
) -> None:
    lake.create_dataset("steps")
    assert run(lake, "dataset", "diff", "steps@1", typed) == 2
    assert capsys.readouterr().err == (
        f"stedi: {told}: expected NAME or NAME@VERSION of a release of this lake, found none; `stedi dataset list` "
        "lists them\n"
    )
