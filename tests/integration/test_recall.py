"""Recalls: whoever holds a copy of a release drops who has left, with neither lake nor key, and can prove it."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_registry import PEOPLE as CUSTOMERS
from test_registry import world

import releases
from deliveries import customer, deliver, motion, step
from lakes import Slate
from releases import KEY, OTHER, PEOPLE
from stedi import Dataset, Lake, cli
from stedi.datasets import contents, describe, quality, registry, seal
from stedi.datasets import drop as dropping
from stedi.datasets import recall as recalling
from stedi.datasets.options import Options
from stedi.datasets.recalls import RecallRefused
from stedi.datasets.verify import verify
from stedi.errors import AuditFailed, UsageError
from stedi.privacy import tombstones

SINCE = "2026-11-28T12:00:00.000Z"
FIRST, SECOND, TESTED = sorted(PEOPLE)[0], sorted(PEOPLE)[1], sorted(PEOPLE)[-1]


def recall(folder: Path, *people: str, **more: Any) -> Path:
    file = folder.parent / f"recall-{'-'.join(people)}.json"
    file.write_bytes(releases.recall(folder, dict.fromkeys(people, SINCE), **more))
    return file


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def people(folder: Path) -> set[str]:
    return {row[0] for row in releases.rows(folder / "subjects.parquet")}


def test_who_is_recalled_leaves_and_all_others_stay(copy: Path) -> None:
    before = {path.name: releases.rows(path) for path in (copy / "data").iterdir()}
    done = recalling.apply(copy, recall(copy, FIRST, TESTED))
    assert set(done.dropped) == {FIRST, TESTED}
    assert people(copy) == PEOPLE.keys() - {FIRST, TESTED}
    for path in (copy / "data").iterdir():
        assert releases.rows(path) == [row for row in before[path.name] if row[0] not in (FIRST, TESTED)]
    plain = json.loads((copy / "manifest.json").read_bytes())
    assert plain["parent"]["drop"] == [{"subject": s, "since": SINCE} for s in (FIRST, TESTED)]
    assert (plain["subjects"], plain["rows"]) == (8, 23)
    assert sum(line["rows"] for line in plain["account"][:-1]) == plain["account"][-1]["rows"] == 23
    found = verify(copy)
    assert found.holds, found.problems
    assert found.dropped == (FIRST, TESTED)


def test_a_split_may_lose_everybody(copy: Path) -> None:
    tested = sorted(subject for subject, (split, _) in PEOPLE.items() if split == "test")
    recalling.apply(copy, recall(copy, *tested))
    found = verify(copy)
    assert found.holds, found.problems
    assert releases.rows(copy / "data/test-00000-of-00001.parquet") == []


def test_how_rows_are_grouped_tells_nothing(tmp_path: Path) -> None:
    """The digest of values is the same over any row groups, encodings and offsets into what lies in memory."""
    texts, lists = [f"{n % 7}" * (n % 3) for n in range(99)], [[n / 8] * (n % 4) for n in range(99)]
    missing, told = [None if n % 5 else n for n in range(99)], [bool(n % 2) for n in range(99)]
    table = pa.table({"a": texts, "b": lists, "c": missing, "d": told})
    found = set()
    for size in (1, 7, 50, 1000):
        found.add(contents.digest(iter(table.to_batches(max_chunksize=size))))
        pq.write_table(table, tmp_path / "t.parquet", row_group_size=size, use_dictionary=size > 9)
        found.add(contents.digest(pq.ParquetFile(tmp_path / "t.parquet").iter_batches(size + 3)))
    assert len(found) == 1
    assert contents.digest(iter(table.slice(1).to_batches())) not in found


def test_files_that_hold_none_of_them_stay_to_the_byte(copy: Path) -> None:
    before = content(copy)
    recalling.apply(copy, recall(copy, TESTED))
    after = content(copy)
    same = {name for name in before if after.get(name) == before[name]}
    assert same == {name for name in before if name.startswith("data/") and "test" not in name}


def test_a_recall_that_was_applied_changes_nothing_more(copy: Path) -> None:
    file = recall(copy, FIRST)
    recalling.apply(copy, file)
    before = content(copy)
    assert recalling.apply(copy, file).dropped == ()
    assert content(copy) == before


def test_recalls_follow_each_other_and_the_chain_keeps_all_of_them(copy: Path, release: Path) -> None:
    first, both = recall(release, FIRST), recall(release, FIRST, SECOND)
    for file in (first, both):
        shutil.copy(file, copy.parent)
        recalling.apply(copy, file)
        assert verify(copy).holds
    assert {path.name for path in (copy / "chain").iterdir()} == {
        *("manifest.json", "SHA256SUMS", "manifest.sig", "recall-1.json", "recall-2.json")
    }
    assert people(copy) == PEOPLE.keys() - {FIRST, SECOND}
    assert (copy / "chain" / "manifest.sig").read_bytes() == (release / "manifest.sig").read_bytes()


def test_a_recall_applies_to_a_copy_from_after_an_erasure(copy: Path) -> None:
    """An erasure writes the lake's release again without the person and signs it: copies of that are recalled, too."""
    dropping.drop(copy, {FIRST: SINCE}, sign_again, describe.describe)
    recalling.apply(copy, recall(copy, FIRST, SECOND))
    found = verify(copy)
    assert found.holds, found.problems
    plain = json.loads((copy / "manifest.json").read_bytes())
    assert [line["rows"] for line in plain["account"]] == [35, -5, -6, 24]


def sign_again(folder: Path) -> None:
    seal.sign(folder, KEY, {"lake": releases.LAKE, "at": releases.CREATED, "release": "steps@1"})


def changed(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def of(file: Path) -> None:
        plain = json.loads(file.read_bytes())
        change(plain)
        file.write_text(json.dumps(plain))

    return of


WRONG: dict[str, Callable[[Path], object]] = {
    "one more": changed(lambda r: r["drop"].append({"subject": SECOND, "since": SINCE})),
    "nobody": changed(lambda r: r["drop"].clear()),
    "another since": changed(lambda r: r["drop"][0].update(since="2020-01-01T00:00:00.000Z")),
    "another release": changed(lambda r: r.update(release="steps@2")),
    "another manifest": changed(lambda r: r.update(manifest_sha256="0" * 64)),
    "other files": changed(lambda r: r.update(files=[])),
    "other contents": changed(lambda r: r["contents"].update({r["files"][0]: "0" * 64})),
    "a field more": changed(lambda r: r.update(reason="withdrew")),
    "no signature": changed(lambda r: r.pop("signature")),
    "another signature": changed(lambda r: r["signature"]["signatures"][0].update(sig="AAAA")),
    "another key's name": changed(lambda r: r["signature"]["signatures"][0].update(keyid="0" * 64)),
    "no JSON": lambda file: os.truncate(file, 50),
    "nothing": lambda file: os.truncate(file, 0),
    "a list": lambda file: file.write_text("[]"),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_recall_that_its_lake_has_not_signed_is_refused(copy: Path, what: str) -> None:
    file = recall(copy, FIRST)
    WRONG[what](file)
    before = content(copy)
    with pytest.raises(AuditFailed):
        recalling.apply(copy, file)
    assert content(copy) == before


@pytest.mark.parametrize(
    "more", [{"key": OTHER}, {"release": "steps@2"}, {"manifest_sha256": "0" * 64}, {"lake": "f" * 16}]
)
def test_a_recall_of_another_release_or_lake_is_refused(copy: Path, more: dict[str, Any]) -> None:
    before = content(copy)
    with pytest.raises(AuditFailed):
        recalling.apply(copy, recall(copy, FIRST, **more))
    assert content(copy) == before


def test_a_copy_that_is_not_what_was_signed_is_refused(copy: Path) -> None:
    file = recall(copy, FIRST)
    (copy / "notes.txt").write_text("x")
    with pytest.raises(RecallRefused, match=r"found 1 problem, first notes\.txt"):
        recalling.apply(copy, file)


def test_there_must_be_a_copy_and_a_recall(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        recalling.apply(copy, tmp_path / "none.json")
    with pytest.raises(UsageError):
        recalling.apply(tmp_path / "none", recall(copy, FIRST))


def value(folder: Path) -> None:
    file = folder / "data/train-00000-of-00002.parquet"
    rows = releases.rows(file)
    releases.write(file, [(*rows[0][:-1], 99.0), *rows[1:]])
    again(folder)


def back(folder: Path) -> None:
    shutil.copy(folder.parent / "before" / "subjects.parquet", folder)
    for file in (folder.parent / "before" / "data").iterdir():
        shutil.copy(file, folder / "data")
    again(folder)


def another(folder: Path) -> None:
    file = folder / "data/train-00001-of-00002.parquet"
    rows = releases.rows(file)
    releases.write(file, rows[::-1])
    again(folder)


def manifest(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def of(folder: Path) -> None:
        again(folder, change)

    return of


def again(folder: Path, change: Callable[[dict[str, Any]], object] = lambda plain: None) -> None:
    """Covers a change of a copy as well as its holder can, who has no key."""
    plain = json.loads((folder / "manifest.json").read_bytes())
    for file in plain["files"]:
        path = folder / file["path"]
        file["sha256"], file["size"] = seal.digest(path), path.stat().st_size
        file["rows"] = pq.read_metadata(path).num_rows
    change(plain)
    (folder / "manifest.json").write_text(json.dumps(plain))
    (folder / "SHA256SUMS").write_bytes(seal.sums(folder))


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def moved(plain: dict[str, Any]) -> None:
    for line in plain["account"][-2:]:
        line["rows"] -= 1


def invented(plain: dict[str, Any]) -> None:
    plain["account"].insert(-1, {"what": "worn by nobody", "rows": 0})


def recall_file(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def of(folder: Path) -> None:
        changed(change)(folder / "chain" / "recall-1.json")
        again(folder)

    return of


def base(name: str) -> Callable[[Path], None]:
    def of(folder: Path) -> None:
        path = folder / "chain" / name
        path.write_bytes(path.read_bytes().replace(b"steps", b"stepS", 1)[:-1] + b" ")
        again(folder)

    return of


def unlink(name: str) -> Callable[[Path], None]:
    def of(folder: Path) -> None:
        (folder / "chain" / name).unlink()
        again(folder)

    return of


def quality_of(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def of(folder: Path) -> None:
        told = json.loads((folder / quality.NAME).read_bytes())
        change(told)
        shown = quality.Quality(told["verdict"], told["overall"], told["by_subject"])
        (folder / quality.NAME).write_bytes(shown.text())
        again(folder)

    return of


AFTER: dict[str, Callable[[Path], object]] = {
    "a value of what stayed": value,
    "who was dropped is back": back,
    "rows of a file that no recall concerns": another,
    "another parent": manifest(lambda m: m["parent"].update(drop=[])),
    "another purpose": manifest(lambda m: m.update(purpose="public")),
    "another key": manifest(lambda m: m.update({"public_key": releases.signatures.public_key(OTHER)})),
    "another account": manifest(lambda m: m["account"][0].update(rows=7)),
    "another number of recalled moments": manifest(moved),
    "a reason more in the account": manifest(invented),
    "another quality of somebody who stayed": quality_of(lambda q: q["by_subject"][0].update(SampleRate=50.0)),
    "somebody more": quality_of(lambda q: q["by_subject"].append({**q["by_subject"][0], "subject": FIRST})),
    "another verdict": quality_of(lambda q: q.update(verdict="fast enough to tell steps")),
    "another quality over all": quality_of(lambda q: q["overall"].update(NumTicks=1)),
    "a field more": manifest(lambda m: m.update(more=1)),
    "a field more without a value": manifest(lambda m: m.update(more=None)),
    "another recall": recall_file(lambda r: r["drop"].append({"subject": SECOND, "since": SINCE})),
    "no recall": unlink("recall-1.json"),
    "no signature": unlink("manifest.sig"),
    "another manifest in the chain": base("manifest.json"),
    "other checksums in the chain": base("SHA256SUMS"),
    "a file more in the chain": lambda f: ((f / "chain" / "x").write_text("x"), again(f)),
    "a file more that the checksums have": lambda f: ((f / "notes.txt").write_text("x"), again(f)),
    "a file gone that the checksums do not have": lambda f: ((f / "README.md").unlink(), again(f)),
    "a pipe in the place of data": lambda f: (again(f), pipe(f / "data/train-00000-of-00002.parquet")),
    "no chain": lambda f: (shutil.rmtree(f / "chain"), again(f)),
}  # fmt: skip


@pytest.mark.parametrize("what", AFTER)
def test_a_copy_that_does_not_follow_from_what_was_signed_is_named(copy: Path, release: Path, what: str) -> None:
    shutil.copytree(release, copy.parent / "before")
    recalling.apply(copy, recall(copy, FIRST))
    AFTER[what](copy)
    assert not verify(copy).holds


@pytest.mark.parametrize(
    "change",
    [
        manifest(lambda m: m.update(account=[])),
        quality_of(lambda q: q["by_subject"][0].update({quality.WITHIN: "3"})),
    ],
    ids=["no account", "a text for a number of moments"],
)
def test_a_forged_copy_of_interpolated_samples_is_named_too(tmp_path: Path, change: Callable[[Path], object]) -> None:
    options = Options.parse(window="10s", resample="50Hz").to_json()
    folder = releases.made(tmp_path / "copy", options=options)
    recalling.apply(folder, recall(folder, FIRST))
    change(folder)
    assert not verify(folder).holds


class Killed(BaseException):
    """The end of a process."""


def unable(one: Path, other: Path) -> None:
    """Stands for a file system, such as NFS, that cannot exchange two names."""
    raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), str(other))


@pytest.mark.parametrize("able", [True, False], ids=["exchanged", "renamed"])
def test_whatever_ends_the_process_a_copy_is_as_before_or_as_after(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, able: bool
) -> None:
    """Where two names cannot be exchanged it may be aside, too, until the next attempt."""
    before = content(release)
    if not able:
        monkeypatch.setattr(dropping, "exchange", unable)
    done = Path(shutil.copytree(release, tmp_path / "done"))
    recalling.apply(done, recall(done, FIRST))
    after = content(done)
    names = ["durable.sync", "exchange", "_subjects", "_rows", "_link", "_settle", "seal.digest", "shutil.rmtree"]
    names[1:2] = ["exchange"] if able else ["Path.rename"]
    seen = set()
    for name in names:
        for call in range(1, 40):
            copy = Path(shutil.copytree(release, tmp_path / f"{name}-{call}" / "copy"))
            file = recall(copy, FIRST)
            with monkeypatch.context() as patch:
                left = die_at(patch, name, call)
                with suppress(Killed):
                    recalling.apply(copy, file)
            found = content(copy)
            assert found in (before, after) or (not able and not found), (name, call)
            seen.add(found == after)
            recalling.apply(copy, file)
            assert content(copy) == after
            assert sorted(path.name for path in copy.parent.iterdir()) == ["copy", file.name]
            if left[0] >= 0:
                break
    assert seen == {True, False}


def die_at(patch: pytest.MonkeyPatch, name: str, call: int) -> list[int]:
    """Has a function of `drop` end the process at a call; returns a list whose number says whether it was called."""
    left = [call]
    home = dropping
    *path, last = name.split(".")
    for part in path:
        home = getattr(home, part)
    real = getattr(home, last)

    def function(*words: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            left[0] = -999
            raise Killed
        return real(*words, **named)

    patch.setattr(home, last, function)
    return left


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"window": "50ms", "stride": "20ms"},
        {"window": "25ms", "resample": "200Hz", "min_samples": 2},
        {"time": "absolute"},
    ],
)
@pytest.mark.sample(full=2)
def test_a_copy_after_a_recall_equals_the_refreshed_release(
    slate: Slate, tmp_path: Path, options: dict[str, Any]
) -> None:
    lake = slate.made(world)
    seed = random.randrange(1 << 30)
    print("seed", seed)
    gone = random.Random(seed).sample(CUSTOMERS, 3)
    copy = Path(shutil.copytree(lake.create_dataset("steps", **options).path, tmp_path / "copy"))
    lake.withdraw(gone[:2])
    lake.erase(gone[2])
    (tmp_path / "recall.json").write_bytes(lake.recall_dataset("steps@1").raw)
    recalling.apply(copy, tmp_path / "recall.json")
    fresh = Path(lake.refresh_dataset("steps").path)
    names = [f"{number}" for number in range(len(CUSTOMERS))]
    told = [renamed(lake, folder, release, names) for folder, release in ((copy, "steps@1"), (fresh, "steps@2"))]
    assert told[0] == told[1]
    plain = [json.loads((folder / "manifest.json").read_bytes()) for folder in (copy, fresh)]
    for name in ("subjects", "rows", "splits", "columns", "options", "purpose"):
        assert plain[0][name] == plain[1][name]
    found = verify(copy)
    assert found.holds, found.problems
    last = [of["account"][-1] for of in plain]
    assert last[0] == last[1]
    assert sum(line["rows"] for line in plain[0]["account"][:-1]) == last[0]["rows"]
    measured = [json.loads((folder / quality.NAME).read_bytes()) for folder in (copy, fresh)]
    assert measured[0]["overall"] == measured[1]["overall"]
    who = [named(lake, release, names) for release in ("steps@1", "steps@2")]
    people = [
        sorted(({**of, "subject": mine[of["subject"]]} for of in told["by_subject"]), key=lambda of: str(of["subject"]))
        for told, mine in zip(measured, who, strict=True)
    ]
    assert people[0] == people[1]


def test_an_erasure_ends_where_two_names_cannot_be_exchanged(slate: Slate, monkeypatch: pytest.MonkeyPatch) -> None:
    """It did not, and no command could write to the lake any more."""
    lake, real = slate.made(world), Path.rename
    place = Path(lake.create_dataset("steps").path)
    monkeypatch.setattr(dropping, "exchange", unable)

    def rename(path: Path, target: Path) -> Path:
        if target == place:
            raise Killed
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        with pytest.raises(Killed):
            lake.erase(CUSTOMERS[1])
    assert not place.exists()
    lake.erase(CUSTOMERS[2])
    found = verify(place)
    assert found.holds, found.problems
    assert len(people(place)) == len(CUSTOMERS) - 2
    assert [path.name for path in place.parent.iterdir()] == ["1"]


@pytest.mark.parametrize("stride", ["50ms", "20ms"])
def test_two_devices_may_give_a_person_two_moments_of_one_instant(slate: Slate, tmp_path: Path, stride: str) -> None:
    """A recall takes both off the account, each once, in however many windows they are."""

    def worn(lake: Lake, inbox: Path) -> None:
        people = [f"p{number}@x.example" for number in range(4)]
        deliver(inbox, "customer", [customer(p, serialNumber=f"{s}-{p}") for p in people for s in "ab"])
        deliver(inbox, "accelerometer", [motion(p, 10 * at) for p in people for at in range(1, 9)])
        steps = [step(f"{s}-{p}", 10 * at) for p in people for at in range(1, 9) for s in "ab"[: 1 + at % 2]]
        deliver(inbox, "step_trainer", steps)
        lake.land(inbox)
        lake.build()

    lake = slate.made(worn)
    release = lake.create_dataset("steps", window="50ms", stride=stride)
    assert release.account[-1][1] == 4 * 12
    copy = Path(shutil.copytree(release.path, tmp_path / "copy"))
    lake.withdraw("p1@x.example")
    (tmp_path / "recall.json").write_bytes(lake.recall_dataset("steps@1").raw)
    recalling.apply(copy, tmp_path / "recall.json")
    assert json.loads((copy / "manifest.json").read_bytes())["account"][-1]["rows"] == 3 * 12


def named(lake: Lake, release: str, names: list[str]) -> dict[str, str]:
    """Returns which customer each subject of a release is."""
    identifier = registry.identifier(lake.key(), lake.config.lake_id, release)
    return {identifier(tombstones.person(lake.key(), c)): name for c, name in zip(CUSTOMERS, names, strict=True)}


def renamed(lake: Lake, folder: Path, release: str, names: list[str]) -> list[Any]:
    """Returns subjects and rows of a release, each subject by the customer that it is."""
    who = named(lake, release, names)
    found: list[Any] = []
    for path in [folder / "subjects.parquet", *sorted((folder / "data").iterdir())]:
        found += [(path.name.split("-")[0], who[row[0]], repr(row[1:])) for row in releases.rows(path)]
    return sorted(found)


def test_the_commands_need_neither_lake_nor_key(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = recall(copy, FIRST)
    monkeypatch.setenv("HOME", "/dev/null/a")
    for name in ("STEDI_PSEUDONYM_KEY", "STEDI_KEY_FILE", "XDG_CONFIG_HOME", "STEDI_LAKE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    assert cli.main(["--json", "dataset", "apply-recall", str(copy), str(file)]) == 0
    assert json.loads(capsys.readouterr().out)["dropped"] == [FIRST]
    assert cli.main(["dataset", "verify", str(copy)]) == 0
    assert "1 subject recalled; holds" in capsys.readouterr().out
    WRONG["one more"](file)
    assert cli.main(["dataset", "apply-recall", str(copy), str(file)]) == 3


def test_a_dataset_applies_a_recall_and_is_read_anew(copy: Path) -> None:
    found = Dataset.open(copy)
    assert found.apply_recall(recall(copy, FIRST)).dropped == (FIRST,)
    assert FIRST not in found.arrow("train").column("subject").to_pylist()
    assert "27 moments, 9 subjects" in repr(found)
    assert found.verify().holds


@pytest.mark.parametrize("by", ["link", "."])
def test_whatever_names_a_copy_its_people_leave_the_folder_itself(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: str
) -> None:
    """By a link, the link was exchanged for a new copy, and the people stayed in the folder that it had led to."""
    (tmp_path / "links").mkdir()
    link, file = tmp_path / "links" / "copy", recall(copy, FIRST)
    link.symlink_to(copy)
    if by == ".":
        monkeypatch.chdir(copy)
    assert cli.main(["dataset", "apply-recall", str(link) if by == "link" else by, str(file)]) == 0
    assert "1 subject dropped" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert FIRST not in people(copy)
    assert verify(copy).dropped == (FIRST,)
    assert verify(link).holds
    assert os.path.samefile(link, copy)
    assert [path.name for path in link.parent.iterdir()] == [link.name]
    assert not list(copy.parent.glob(".*"))


def test_a_dataset_of_the_current_folder_is_read_anew(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    found = Dataset.open(".")
    assert found.apply_recall(recall(copy, FIRST)).dropped == (FIRST,)
    assert FIRST not in found.arrow("train").column("subject").to_pylist()


def test_an_erasure_takes_people_out_of_a_release_that_a_link_leads_to(slate: Slate, tmp_path: Path) -> None:
    """Only the link was replaced: whom the lake said it had erased stood on the other disk for ever."""
    lake = slate.made(world)
    place = Path(lake.create_dataset("steps").path)
    place.rename(tmp_path / "moved")
    place.symlink_to(tmp_path / "moved")
    before = people(place)
    lake.erase(CUSTOMERS[1])
    assert len(people(tmp_path / "moved")) == len(before) - 1
    assert verify(place).holds


def test_deleting_a_release_that_a_link_leads_to_deletes_its_data(slate: Slate, tmp_path: Path) -> None:
    """Only the link was removed, and the data stayed on the other disk, where nobody looks for them."""
    lake = slate.made(world)
    place, moved = Path(lake.create_dataset("steps").path), tmp_path / "disk" / "Steps [1]"
    moved.parent.mkdir()
    place.rename(moved)
    place.symlink_to(moved)
    (moved.parent / f".Steps [1].{'0' * 16}.partial").mkdir()  # of a command that was killed
    lake.delete_dataset("steps@1")
    assert list(moved.parent.iterdir()) == []
    assert not os.path.lexists(place)
    assert lake.datasets() == ()
    lake.delete_dataset("steps@1")


def test_a_link_to_something_else_than_the_release_is_refused_and_nothing_is_removed(
    slate: Slate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = slate.made(world)
    place, other = Path(lake.create_dataset("steps").path), Path(lake.create_dataset("other").path)
    words = ["--lake", str(lake.root), "dataset", "delete", "steps@1"]
    place.rename(tmp_path / "moved")
    for target, what in {other: "which holds something else", tmp_path / "gone": "where nothing is"}.items():
        place.symlink_to(target)
        assert cli.main(words) == 1
        assert f"found a link to {target}, {what}; nothing was removed" in capsys.readouterr().err
        assert verify(other).holds
        assert {release.release for release in lake.datasets()} == {"steps@1", "other@1"}
        place.unlink()
    place.symlink_to(tmp_path / "moved")
    assert cli.main(words) == 0
    assert not (tmp_path / "moved").exists()


@pytest.mark.parametrize("linked", [False, True])
def test_data_that_cannot_be_removed_are_named_and_a_second_attempt_removes_them(
    slate: Slate, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    lake = slate.made(world)
    place = Path(lake.create_dataset("steps").path)
    if linked:
        place.rename(tmp_path / "moved")
        place.symlink_to(tmp_path / "moved")
    words, parent = ["--lake", str(lake.root), "dataset", "delete", "steps@1"], place.resolve().parent
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        assert cli.main(words) == 1
    [left] = parent.glob(".*.partial")
    assert f"{left}: expected to remove the data of steps@1" in capsys.readouterr().err
    assert place.is_symlink() == linked
    assert cli.main(words) == 0
    assert not list(parent.glob(".*.partial"))
    assert not os.path.lexists(place)


def test_a_folder_that_cannot_be_renamed_is_named(
    slate: Slate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = slate.made(world)
    place = Path(lake.create_dataset("steps").path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", lambda *_: refuse())
        assert cli.main(["--lake", str(lake.root), "dataset", "delete", "steps@1"]) == 1
    said = capsys.readouterr().err
    assert f"{place}: expected to remove the data of steps@1" in said
    assert "(device or resource busy)" in said
    assert place.is_dir()
    assert cli.main(["--lake", str(lake.root), "dataset", "delete", "steps@1"]) == 0
    assert not place.exists()


def refuse() -> None:
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def test_a_release_outside_the_lake_stays_and_is_named(
    slate: Slate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = slate.made(world)
    lake.create_dataset("steps", output=tmp_path / "out")
    assert cli.main(["--lake", str(lake.root), "dataset", "delete", "steps@1"]) == 0
    assert f"{tmp_path / 'out'}: outside the lake, and still there" in capsys.readouterr().err
    assert verify(tmp_path / "out").holds


def test_a_recall_on_a_terminal_fits_it_and_elsewhere_is_the_signed_file(
    slate: Slate, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = slate.made(world)
    lake.create_dataset("steps")
    lake.withdraw(CUSTOMERS[2])
    words = ["--lake", str(lake.root), "dataset", "recall", "steps@1"]
    monkeypatch.setenv("COLUMNS", "60")
    assert cli.main(words) == 0
    piped = json.loads(capsys.readouterr().out)
    with monkeypatch.context() as patch:
        patch.setattr(type(sys.stdout), "isatty", lambda stream: True, raising=False)
        assert cli.main(words) == 0
        shown = capsys.readouterr()
        assert cli.main(["--json", *words]) == 0
    assert json.loads(capsys.readouterr().out)["drop"] == piped["drop"]
    assert max(map(len, shown.out.splitlines())) <= 60
    assert {entry["subject"] for entry in piped["drop"]} <= {*shown.out.split()}
    assert "--output FILE" in shown.err


def test_a_recall_that_cannot_be_written_is_not_noted_and_its_place_is_named(
    slate: Slate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message named a file of the program's own, and the registry had a recall that nobody could send."""
    lake = slate.made(world)
    lake.create_dataset("steps")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    for place, why in {
        "folder": "it is a folder",
        "none/recall.json": "there is no such folder",
        "loop": "links form a loop",
    }.items():
        told = tmp_path / place
        assert cli.main(["--lake", str(lake.root), "dataset", "recall", "steps@1", "--output", str(told)]) == 1
        assert f"{told}: cannot be written: {why}" in capsys.readouterr().err
    assert registry.find(lake.context, "steps@1").recalls == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "loop"]


def test_a_recall_tells_no_reason_and_no_address(
    slate: Slate, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lake = slate.made(world)
    lake.create_dataset("steps")
    lake.withdraw(CUSTOMERS[2])
    assert cli.main(["--lake", str(lake.root), "dataset", "recall", "steps@1"]) == 0
    shown = json.loads(capsys.readouterr().out)
    target = tmp_path / "recall.json"
    assert cli.main(["--lake", str(lake.root), "dataset", "recall", "steps@1", "--output", str(target)]) == 0
    found = json.loads(target.read_bytes())
    assert found["drop"] == shown["drop"]
    assert {*found} == {
        *("release", "manifest_sha256", "drop", "files", "contents", "lake", "at", "public_key", "signature")
    }
    assert (found["release"], [{*entry} for entry in found["drop"]]) == ("steps@1", [{"subject", "since"}])
    assert found["manifest_sha256"] == lake.release("steps@1").manifest_sha256
    assert "x.example" not in target.read_text()
    assert KEY.secret.hex() not in target.read_text()
