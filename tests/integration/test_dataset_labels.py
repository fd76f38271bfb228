"""Releases with labels, and what describes a release: card, quality and Croissant, of walkers whose steps are known."""

from __future__ import annotations

import csv
import json
import os
import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

import quick
from lakes import REPOSITORY
from releases import changed
from stedi import cli, datasets
from stedi.datasets import describe, drop, quality
from stedi.datasets.manifest import Release
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, UsageError, many
from stedi.lake import Lake
from stedi.landing import sample

CROISSANT = REPOSITORY / "build" / "releases" / "bin" / "python"
NEAR: dict[str, Any] = {"match": "nearest", "tolerance": "20ms"}
WINDOWS: dict[str, Any] = {**NEAR, "window": "10s", "stride": "5s"}


@pytest.fixture(scope="module")
def lake() -> Iterator[Lake]:
    with quick.folder() as folder, quick.quickened():
        sample.write(folder / "in", customers=12, readings=500, seed=4, walkers=3)
        made = Lake.create(folder / "lake")
        made.land(folder / "in")
        yield made


@pytest.fixture(scope="module")
def labels(lake: Lake) -> Path:
    return lake.root.parent / "in" / sample.LABELS


@pytest.fixture(scope="module")
def moments(lake: Lake, labels: Path) -> Release:
    return lake.create_dataset("gait", **NEAR, labels=str(labels))


@pytest.fixture(scope="module")
def windows(lake: Lake, labels: Path) -> Release:
    return lake.create_dataset("windows", **WINDOWS, labels=str(labels))


def rows(release: Release, sql: str) -> list[tuple[Any, ...]]:
    return duckdb.sql(sql.format(f"'{release.path}/data/*.parquet'")).fetchall()


def steps(labels: Path) -> Counter[str]:
    with labels.open(encoding="utf-8", newline="") as file:
        return Counter(row["email"] for row in csv.DictReader(file) if row["instant"])


def test_every_step_falls_to_one_moment_of_the_person_who_took_it(moments: Release, labels: Path) -> None:
    found = rows(moments, "select sum(events) as n from {} group by subject having n > 0 order by n")
    assert [count for (count,) in found] == sorted(steps(labels).values())


def test_steps_are_taken_where_the_label_says_walking(moments: Release) -> None:
    [(walking, all_of)] = rows(moments, "select sum(events) filter (label = 'walking'), sum(events) from {}")
    assert walking > 0.97 * all_of  # a span's last step may be nearer to the first moment after it
    assert {label for (label,) in rows(moments, "select distinct label from {}")} > {None, "walking", "standing"}


def test_a_window_has_the_times_of_its_steps(windows: Release) -> None:
    [(before, after, most)] = rows(
        windows,
        "select min(list_min(events)), max(list_max(events)), max(len(events)) filter (label = 'walking') from {}",
    )
    assert before >= 0
    assert after < 10_000
    assert 14 < most < 25  # a cadence of 91 to 138 steps a minute, for ten seconds


@pytest.mark.parametrize("words", [NEAR, WINDOWS], ids=["moments", "windows"])
def test_one_changed_label_stops_a_release(
    lake: Lake, labels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any]
) -> None:
    prove, rng = datasets.proof.prove, random.Random(15)
    caught = []

    def proved(engine: DuckDB, allowed: datasets.due.Allowed, folder: Path, *rest: Any, **more: Any) -> None:
        for column in ("label", "events"):
            copy = Path(shutil.copytree(folder, tmp_path / column))
            changed(max(copy.glob("data/*.parquet"), key=os.path.getsize), column, rng)
            with pytest.raises(AuditFailed, match="own labels, found rows with others: 1;"):
                prove(engine, allowed, copy, *rest, **more)
            caught.append(column)
        prove(engine, allowed, folder, *rest, **more)

    monkeypatch.setattr(datasets.proof, "prove", proved)
    lake.create_dataset("changed", **words, labels=str(labels))
    assert caught == ["label", "events"]


def test_no_address_and_no_path_reaches_a_release(moments: Release, windows: Release, labels: Path) -> None:
    private = [address.encode() for address in steps(labels)] + [str(labels.parent).encode()]
    for release in (moments, windows):
        for path in Path(release.path).rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert not [secret for secret in private if secret in content or secret.lower() in content], path.name


def test_the_manifest_says_which_file_was_used_and_what_became_of_it(moments: Release, labels: Path) -> None:
    manifest = json.loads((Path(moments.path) / "manifest.json").read_text("utf-8"))
    assert manifest["options"]["labels"] == sample.LABELS
    assert manifest["labels"]["instants"] == steps(labels).total()
    assert manifest["labels"]["people_elsewhere"] == 0
    assert [column["name"] for column in manifest["columns"]][-2:] == ["label", "events"]


def test_the_command_says_what_became_of_the_labels(
    lake: Lake, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "some.csv"
    lines = labels.read_text("utf-8").splitlines()
    instants = sum(",,1" in line for line in lines[1:5])
    file.write_text("\n".join([*lines[:5], "stranger@x.example,,,1656170867468,step", ""]), "utf-8")
    words = ["dataset", "create", "few", "--match", "nearest", "--labels", str(file)]
    assert cli.main(["--lake", str(lake.root), *words]) == 0
    said = capsys.readouterr()
    joined = f"labels: {4 - instants} spans and {instants} instants joined"
    assert f"{joined}; 1 row of 1 person who is not in it left out" in said.err
    assert "samples a second" in said.out
    file.write_text(f"{lines[0]}\n{lines[1]}\n{lines[2]} by@x.example\n", "utf-8")
    assert cli.main(["--lake", str(lake.root), *words]) == 2
    said = capsys.readouterr()
    assert "some.csv, row 2: label: expected" in said.err
    assert "x.example" not in said.err


def test_a_refreshed_release_has_labels_again(lake: Lake, moments: Release) -> None:
    again = lake.refresh_dataset("gait")
    count = "select count(*), sum(events), count(label) from {}"
    assert rows(again, count) == rows(moments, count)


# --- what describes a release ---


def test_a_file_of_labels_that_has_moved_is_named_and_another_content_is_said(
    lake: Lake, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = tmp_path / "first.csv"
    shutil.copy(labels, first)
    made = lake.create_dataset("moved", **NEAR, labels=str(first))
    moved = first.rename(tmp_path / "second.csv")
    with pytest.raises(UsageError, match=rf"labels: expected the file of labels of moved@1 at {first}, found none"):
        lake.refresh_dataset("moved")
    capsys.readouterr()
    again = lake.refresh_dataset("moved", labels=moved)
    assert again.rows == made.rows
    assert "another content" not in capsys.readouterr().err
    moved.write_text(moved.read_text("utf-8").replace("walking", "strolling"), "utf-8")
    words = ["--lake", str(lake.root), "dataset", "refresh", "moved", "--labels", str(moved)]
    assert cli.main(words) == 0
    assert "moved: the labels differ from those of moved@2" in capsys.readouterr().err
    lake.create_dataset("plain", **NEAR)
    with pytest.raises(UsageError, match="expected no file, since plain@1 was made without labels"):
        lake.refresh_dataset("plain", labels=moved)


def test_an_address_in_a_path_or_a_note_stays_out_of_the_registry_and_an_erasure_finds_none(tmp_path: Path) -> None:
    sample.write(tmp_path / "in", customers=3, readings=60, seed=4, walkers=2, dirty=False)
    lake = Lake.create(tmp_path / "lake")
    lake.land(tmp_path / "in")
    source = tmp_path / "in" / sample.LABELS
    with source.open(encoding="utf-8", newline="") as file:
        who = next(csv.DictReader(file))["email"]
    for folder, name in ((f"of {who}", "labels.csv"), ("plain", f"{who.replace('@', '%40')}.csv")):
        (tmp_path / folder).mkdir()
        shutil.copy(source, tmp_path / folder / name)
        release = lake.create_dataset("gait", **NEAR, labels=str(tmp_path / folder / name))
        assert json.loads((Path(release.path) / "manifest.json").read_bytes())["options"]["labels"] == "labels.csv"
        with pytest.raises(UsageError, match="expected the file of labels of gait"):
            lake.refresh_dataset("gait")
    with pytest.raises(UsageError, match="for: expected no email address"):
        lake.create_dataset("gait", **NEAR, recipient=f"lab of {who}")
    with pytest.raises(UsageError, match="model: expected no email address"):
        lake.note_dataset("gait@1", model=f"net by {who}")
    with pytest.raises(UsageError, match="name: expected a letter"):
        lake.tag(who)
    lake.note_dataset("gait@1", model="net@v1.2, on gait@1")
    (lake.root / "releases").rename(tmp_path / "handed out")  # what the registry says is left
    assert [receipt.clean for receipt in lake.erase(who)] == [True]


def test_the_card_says_what_the_readings_allow_and_hugging_face_finds_the_splits(windows: Release) -> None:
    card = (Path(windows.path) / "README.md").read_text("utf-8")
    _, front, text = card.split("---\n", 2)
    told = json.loads((Path(windows.path) / "quality.json").read_text("utf-8"))
    assert f"{told['verdict'][1:]}." in text
    for split, found in windows.splits.items():
        assert (f"split: {split}\n        path: data/{split}-*.parquet" in front) == (found.rows > 0)
        assert f"| {split} | {found.subjects:,} | {found.rows:,} |" in text
    manifest = json.loads((Path(windows.path) / "manifest.json").read_text("utf-8"))
    for column in manifest["columns"]:
        assert f"| `{column['name']}` |" in text
    for what, count in windows.account:
        assert f"| {what} | {count:,} |" in text


def test_walkers_are_fast_enough_and_the_others_are_not(moments: Release) -> None:
    told = json.loads((Path(moments.path) / "quality.json").read_text("utf-8"))
    rates = [person["SampleRate"] for person in told["by_subject"] if person["SampleRate"] is not None]
    assert sum(rate > 15 for rate in rates) == 3
    assert told["verdict"].endswith("no step detector can be trained on these")
    assert len(told["by_subject"]) == moments.subjects


def test_who_leaves_a_copy_leaves_what_describes_it(moments: Release, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(moments.path, copy)
    before = json.loads((copy / "quality.json").read_text("utf-8"))
    gone = next(person["subject"] for person in before["by_subject"] if person["SampleRate"] > 15)
    drop.drop(copy, {gone: "2026-01-01T00:00:00Z"}, lambda folder: None, describe.describe)
    after = json.loads((copy / "quality.json").read_text("utf-8"))
    assert after["by_subject"] == [person for person in before["by_subject"] if person["subject"] != gone]
    [left] = [person for person in before["by_subject"] if person["subject"] == gone]
    assert after["overall"]["NumTicks"] == before["overall"]["NumTicks"] - left["NumTicks"]
    for name in ("quality.json", "README.md", "croissant.json"):
        assert gone not in (copy / name).read_text("utf-8")
    assert f"{moments.subjects - 1:,} customers of STEDI" in (copy / "README.md").read_text("utf-8")


def test_what_describes_a_recalled_copy_says_so_and_counts_those_who_are_left(
    moments: Release, windows: Release, tmp_path: Path
) -> None:
    for release in (moments, windows):
        copy = tmp_path / release.name
        shutil.copytree(release.path, copy)
        said = [(copy / name).read_text("utf-8") for name in ("README.md", "croissant.json")]
        assert not any("recalled" in text.lower() for text in said[:1])
        assert "recalled or erased from it" not in said[1]
        subjects = pq.read_table(copy / "subjects.parquet").to_pylist()
        for number, gone in enumerate(subjects[:2], start=1):
            drop.drop(copy, {gone["subject"]: "2026-01-01T00:00:00Z"}, lambda folder: None, describe.describe)
            left, now = subjects[number:], json.loads((copy / "manifest.json").read_text("utf-8"))
            card = (copy / "README.md").read_text("utf-8")
            who = "1 person who was in it has" if number == 1 else "2 people who were in it have"
            assert f"**Recalled.** Since it was made, {who} been taken out" in card
            assert f"{many(len(left), 'customer')} of STEDI" in card
            assert "when it was made, those who have left since among them" in card
            for split in ("train", "validation", "test"):
                there = [row["rows"] for row in left if row["split"] == split]
                assert f"| {split} | {len(there):,} | {sum(there):,} |" in card
            assert f"| recalled or erased since | {now['account'][-2]['rows']:,} |" in card
            assert card.count(f"| {now['account'][-1]['rows']:,} |\n\n## Quality") == 1
            told = json.loads((copy / "croissant.json").read_text("utf-8"))
            assert many(len(left), "person", "people") in told["description"]
            assert told["description"].endswith(
                f"Since it was made, {many(number, 'person was', 'people were')} recalled or erased from it."
            )
            sizes = {path.relative_to(copy).as_posix(): f"{path.stat().st_size} B" for path in copy.rglob("*.parquet")}
            listed = {f["@id"]: f["contentSize"] for f in told["distribution"] if f["@type"] == "cr:FileObject"}
            assert listed == sizes


def test_a_dry_run_says_what_it_would_be_and_changes_nothing(
    lake: Lake, moments: Release, windows: Release, labels: Path
) -> None:
    before = [release.release for release in lake.datasets()]
    found = lake.preview_dataset("windows", **WINDOWS, labels=str(labels))
    assert found.release == "windows@2"
    assert found.subjects == sum(split.subjects for split in found.splits.values()) >= windows.subjects
    assert sum(rows for _, rows in found.account[:-1]) == found.account[-1][1]
    told = json.loads((Path(moments.path) / "quality.json").read_text("utf-8"))
    assert lake.preview_dataset("gait", **NEAR).verdict == told["verdict"]
    told = json.loads((Path(windows.path) / "quality.json").read_text("utf-8"))
    assert len(told["by_subject"]) == windows.subjects, "of nobody else a release tells"
    assert [release.release for release in lake.datasets()] == before


def test_the_walkers_alone_are_fast_enough_to_tell_steps(lake: Lake) -> None:
    """The rates that the demo speaks of are those of the releases."""
    rates = lake.query(quality.rates_sql("step_trainer_trusted", "customer_id", "sensorReadingTime")).arrow()["rate"]
    fast = [rate for rate in rates.to_pylist() if rate > quality.TOO_SLOW]
    assert len(fast) == 3
    assert quality.verdict(fast).endswith("fast enough to tell steps")


def test_no_step_detector_can_be_trained_on_the_public_data(public_data: Path, tmp_path: Path) -> None:
    lake = Lake.create(tmp_path / "lake")
    lake.land(public_data)
    lake.build()
    said = lake.preview_dataset("steps").verdict
    release = lake.create_dataset("steps")
    told = json.loads((Path(release.path) / "quality.json").read_text("utf-8"))
    assert said == told["verdict"]
    assert said == (
        "0.3 samples a second: a 2 s window holds 1 sample; a step takes half a second: no step detector can be "
        "trained on this"
    )
    assert told["overall"]["NumTicks"] == 14_460


def test_mlcroissant_finds_no_error_and_reads_the_rows(moments: Release, windows: Release, tmp_path: Path) -> None:
    if not CROISSANT.is_file():
        pytest.skip("mlcroissant is in no environment at build/releases")
    script = (
        "import itertools, json, sys, mlcroissant\n"
        "for name in sys.argv[1:]:\n"
        "    found = mlcroissant.Dataset(name)\n"
        "    assert not found.metadata.ctx.issues.errors, found.metadata.ctx.issues.report()\n"
        "    assert not found.metadata.ctx.issues.warnings, found.metadata.ctx.issues.report()\n"
        "    [row] = itertools.islice(found.records('train'), 1)\n"
        "    print(json.dumps(sorted(row)))\n"
    )
    names = [f"{release.path}/croissant.json" for release in (moments, windows)]
    done = subprocess.run(
        [CROISSANT, "-c", script, *names],
        env={"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = map(json.loads, done.stdout.splitlines())
    assert "train/label" in first
    assert "train/t_ms" in second
