"""Training sets: what `dataset create` writes, of whom, and what it says of it."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

import lakes
from deliveries import customer, deliver, instant, motion, step
from lakes import Slate
from releases import changed
from stedi.datasets import creation, matching, splits
from stedi.datasets.manifest import Release
from stedi.datasets.options import SPLITS, Options
from stedi.datasets.subjects import identifier
from stedi.engines.duckdb import DuckDB
from stedi.errors import AuditFailed, UsageError
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema.roles import Readings

_KINDS = {
    "BIGINT": "int64", "INTEGER": "int32", "DOUBLE": "double", "VARCHAR": "string", "BOOLEAN": "boolean",
    "TIMESTAMP WITH TIME ZONE": "timestamp[us, UTC]",
}  # fmt: skip
KEY = Key(bytes.fromhex(lakes.KEY))


def rows(release: Release, columns: str = "*") -> list[dict[str, Any]]:
    """Every row of a release, with the split that it is in."""
    found = []
    for split in SPLITS:
        read = f"from read_parquet('{release.path}/data/{split}-*.parquet')"
        found += duckdb.sql(f"select '{split}' as split, {columns} {read}").to_arrow_table().to_pylist()
    return found


def files(folder: Path | str) -> dict[str, str]:
    """The SHA-256 of each file of a release, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(Path(folder).rglob("*"))
        if path.is_file()
    }


def split_of(email: str) -> int:
    return splits.place(splits.hasher(KEY)(tombstones.person(KEY, email)), Options().split)


def emails(split: int, count: int) -> list[str]:
    """Addresses of people who are put into a split when they are by themselves."""
    return [email for n in range(2000) if split_of(email := f"p{n}@x.example") == split][:count]


def people(inbox: Path, of: Iterable[tuple[str, str]], readings: int = 12, *, alike: bool = False, **more: Any) -> None:
    """Delivers consenting customers by address and serial number; `alike` gives all of them the same recording."""
    known = list(of)
    deliver(inbox, "customer", [customer(email, serialNumber=serial, **more) for email, serial in known])
    at = [1000 * n for n in range(1, readings + 1)]
    own = dict.fromkeys(known, 0) if alike else {who: 20 * n for n, who in enumerate(known)}
    motions = [motion(email, t, float(t % 7)) for email, _ in known for t in at]
    deliver(inbox, "accelerometer", motions)
    steps = [step(who[1], t, 200 + t % 11 + own[who]) for who in known for t in at]
    deliver(inbox, "step_trainer", steps)


@pytest.mark.parametrize(("readings", "moments", "subjects"), [("all", 14_460, 482), ("since-consent", 11_297, 464)])
def test_the_public_data_give_their_moments_of_those_who_consent(
    slate: Slate, public_data: Path, readings: Readings, moments: int, subjects: int
) -> None:
    lake = slate.wiped(readings)
    lake.land(public_data)
    release = lake.create_dataset("steps")
    assert (release.rows, release.subjects) == (moments, subjects)
    assert sum(split.rows for split in release.splits.values()) == moments
    assert sum(count for _, count in release.account[:-1]) == release.account[-1][1] == moments
    assert all(count < 0 for _, count in release.account[1:-1])


def test_versions_count_up_and_nothing_is_written_where_something_stands(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    people(inbox, [("a@x.example", "s1")])
    lake.land(inbox)
    assert [lake.create_dataset("steps").release for _ in range(2)] == ["steps@1", "steps@2"]
    for there in (inbox, lake.root / "landing" / "new", lake.root / "releases" / "steps" / "1"):
        with pytest.raises(UsageError, match="expected"):
            lake.create_dataset("steps", output=there)
    assert not list(lake.root.rglob("*.partial"))


@pytest.mark.parametrize("options", [{}, {"window": "10s"}], ids=["moments", "windows"])
def test_a_folder_named_like_a_column_of_partitions_is_a_folder(
    slate: Slate, inbox: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    """Readers of Parquet take `split=9` in a path for a column's value, and it replaces the column of that name."""
    lake, home = slate.wiped(), tmp_path / "split=9" / "subject=x" / "x=1"
    people(inbox, [(f"{n}@x.example", f"s{n}") for n in range(9)])
    lake.land(inbox)
    home.mkdir(parents=True)
    release = lake.create_dataset("steps", output=home / "rows=2", **options)
    opened = lake.dataset(release.release)
    assert opened.verify().holds
    subjects, rows = opened.subjects().to_pylist(), opened.arrow("train").to_pylist()
    assert {row["subject"] for row in rows} == {who["subject"] for who in subjects if who["split"] == "train"}


@pytest.mark.thorough
def test_the_same_state_and_options_give_the_same_bytes(slate: Slate, sample_inbox: Path, tmp_path: Path) -> None:
    lake = slate.wiped()
    lake.land(sample_inbox)
    lake.build()
    kept = tmp_path / "kept"
    shutil.copytree(lake.root, kept, symlinks=True)
    every: list[dict[str, Any]] = [
        {}, {"window": "10s", "stride": "5s"}, {"match": "nearest", "tolerance": "2s", "vectors": "list"}
    ]  # fmt: skip
    for words in every:
        found = []
        for threads in (1, 4):
            shutil.rmtree(lake.root)
            shutil.copytree(kept, lake.root, symlinks=True)
            again = lakes.unseen(lake.root)
            again.context.config = replace(again.config, engine_threads=threads)
            found.append(files(again.create_dataset("steps", **words).path))
        assert found[0] == found[1]
        assert len(found[0]) >= 10


def test_nobody_stands_in_two_splits_and_who_shares_a_device_stays_together(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    train, test = emails(0, 3), emails(2, 2)
    # the first of train and of test have a serial number in common, by a third who does not consent
    deliver(
        inbox,
        "customer",
        [
            customer(train[1], serialNumber="s-train"),
            customer("between@x.example", consent=..., update=90, serialNumber="s-train"),
            customer("between@x.example", consent=..., update=91, serialNumber="s-test"),
        ],
        "ties.json",
    )
    people(inbox, [(email, f"s-{email}") for email in (*train, *test)])
    deliver(inbox, "customer", [customer(test[0], update=80, serialNumber="s-test")], "more.json")
    lake.land(inbox)
    release = lake.create_dataset("steps")
    found = rows(release, "subject")
    of_split = {split: {row["subject"] for row in found if row["split"] == split} for split in SPLITS}
    assert sum(map(len, of_split.values())) == len(set.union(*of_split.values())) == 5
    tied = [train[1], test[0], "between@x.example"]
    together = min(tied, key=lambda email: splits.hasher(KEY)(tombstones.person(KEY, email)))
    expected = dict.fromkeys(SPLITS, 0)
    for email in (*train, *test):
        expected[SPLITS[split_of(together if email in tied else email)]] += 1
    assert {split: len(subjects) for split, subjects in of_split.items()} == expected


def test_no_two_releases_can_be_joined_by_subject(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    people(inbox, [(f"p{n}@x.example", f"s{n}") for n in range(6)])
    lake.land(inbox)
    subjects = [{row["subject"] for row in rows(lake.create_dataset(name), "subject")} for name in ("a", "a", "b")]
    assert len(set.union(*subjects)) == 18
    said = "".join(
        path.read_bytes().decode("latin-1") for path in (lake.root / "releases").rglob("*") if path.is_file()
    )
    assert "x.example" not in said
    customers = lake.query("select customer_id from customers_trusted").arrow().to_pylist()
    assert not [row for row in customers if row["customer_id"] in said]


@pytest.mark.parametrize("window", [None, "10s"])
def test_a_withdrawal_that_no_build_has_seen_stops_a_release(slate: Slate, inbox: Path, window: str | None) -> None:
    lake = slate.wiped()
    people(inbox, [(f"p{n}@x.example", f"s{n}") for n in range(3)])
    lake.land(inbox)
    lake.build()
    lake.withdraw("p1@x.example")
    with pytest.raises(AuditFailed, match="found others: 1"):
        creation.create(lake.context, "steps", Options.parse(window=window))
    assert not list((lake.root / "releases").glob("*/*"))
    assert lake.create_dataset("steps", window=window).subjects == 2


def test_readings_from_before_consent_stop_a_release(
    slate: Slate, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = slate.wiped("since-consent")
    people(inbox, [("a@x.example", "s1")], consent=5000, update=5000)
    lake.land(inbox)
    assert lake.create_dataset("steps").rows == 8
    deliver(inbox, "customer", [customer("a@x.example", 7000, 7000)], "later.json")
    lake.land(inbox)
    with pytest.raises(AuditFailed, match="found subjects with earlier ones: 1"):
        creation.create(lake.context, "steps", Options())


@pytest.mark.parametrize("window", [None, "10s"])
def test_a_reading_of_somebody_else_stops_a_release(
    slate: Slate, inbox: Path, monkeypatch: pytest.MonkeyPatch, window: str | None
) -> None:
    lake = slate.wiped()
    people(inbox, [("a@x.example", "s1"), ("b@x.example", "s2")])
    deliver(inbox, "step_trainer", [step("s2", 1000 * n, 900 + n) for n in range(1, 13)], "other.json")
    lake.land(inbox)
    # by the instant alone, as every public solution of this task does it
    mixed = matching.moments(Options()).replace("on s.person = v.person and s.ms = v.ms", "on s.ms = v.ms")
    mixed = mixed.replace("select s.person", "select v.person", 1)
    monkeypatch.setattr(matching, "moments", lambda *_, **__: mixed)
    with pytest.raises(AuditFailed, match="own step trainer readings"):
        lake.create_dataset("steps", window=window)


def test_a_shared_device_in_two_splits_stops_a_release(
    slate: Slate, inbox: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake = slate.wiped()
    [one], [other] = emails(0, 1), emails(1, 1)
    people(inbox, [(one, "s1"), (other, "s2")])
    deliver(inbox, "customer", [customer(other, update=60, serialNumber="s1")], "more.json")
    # of what both claim, a reading is whose motion was at its moment: each has some alone
    deliver(inbox, "accelerometer", [motion(one, 50_000), motion(other, 60_000)], "more.json")
    deliver(inbox, "step_trainer", [step("s1", 50_000), step("s1", 60_000)], "more.json")
    lake.land(inbox)
    assert lake.create_dataset("steps").subjects == 2
    monkeypatch.setattr(splits, "groups", lambda devices: {})
    monkeypatch.setattr(creation.registry, "splits_before", lambda *_: lambda mark: None)
    with pytest.raises(AuditFailed, match="share a serial number"):
        lake.create_dataset("others")


def test_a_recording_that_was_delivered_for_two_people_stops_a_release(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    [one], [other] = emails(0, 1), emails(1, 1)
    people(inbox, [(one, "s1"), (other, "s2")], 5, alike=True)
    lake.land(inbox)
    windows: dict[str, Any] = {"window": "6s"}
    for words, said in ((windows, "with equal values"), ({}, "found runs of 5 equal moments: 1; the same")):
        with pytest.raises(AuditFailed, match=said):
            lake.create_dataset("steps", **words)
        assert not list((lake.root / "releases").glob("*/*"))


def test_a_few_equal_moments_of_two_people_are_chance(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    [one], [other] = emails(0, 1), emails(1, 1)
    people(inbox, [(one, "s1"), (other, "s2")], 4, alike=True)
    lake.land(inbox)
    assert lake.create_dataset("steps").rows == 8


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        ({}, "moment distance x y z vectors dt_ms"),
        ({"match": "nearest", "tolerance": "200ms", "vectors": "list", "time": "absolute"}, "distance x y z dt_ms"),
        ({"match": "backward", "tolerance": "200ms", "window": "4s", "pad": True}, "t_ms start distance x y z dt_ms"),
        ({"window": "4s", "stride": "2s", "resample": "5Hz"}, "t_ms distance x y z dt_ms made_up"),
        ({"window": "4s"}, "subject start t_ms distance x"),
    ],
    ids=["moments", "lists", "padded", "resampled", "ragged"],
)
def test_one_changed_value_of_what_was_written_stops_a_release(
    slate: Slate, inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any], columns: str
) -> None:
    lake, rng = slate.wiped(), random.Random(15)
    who = [(f"p{n}@x.example", f"s{n}") for n in range(3)]
    people(inbox, who)
    more = [motion(email, 1000 * n + rng.choice((0, 70)), rng.random()) for email, _ in who for n in range(1, 13)]
    deliver(inbox, "accelerometer", more, "more.json")
    lake.land(inbox)
    prove = creation.proof.prove
    caught = []

    def proved(
        engine: DuckDB, allowed: creation.proof.Allowed, folder: Path, files: Any, *rest: Any, **more: Any
    ) -> None:
        for column in columns.split():
            copy = Path(shutil.copytree(folder, tmp_path / column))
            changed(max(copy.glob("data/*.parquet"), key=os.path.getsize), column, rng)
            with pytest.raises(AuditFailed, match=r"own step trainer readings|filled up|subjects.parquet"):
                prove(engine, allowed, copy, files, *rest, **more)
            caught.append(column)
        prove(engine, allowed, folder, files, *rest, **more)

    monkeypatch.setattr(creation.proof, "prove", proved)
    assert lake.create_dataset("steps", **words).subjects == 3
    assert caught == columns.split()


def test_the_public_get_only_those_who_share_with_the_public(slate: Slate, inbox: Path) -> None:
    for readings, count in (("all", 12), ("since-consent", 8)):
        lake = slate.wiped(readings)  # type: ignore[arg-type]
        people(inbox, [("a@x.example", "s1")])
        shares: dict[str, Any] = {"shareWithPublicAsOfDate": instant(5000), "serialNumber": "s2"}
        future: dict[str, Any] = {"shareWithPublicAsOfDate": 250_000_000_000_000, "serialNumber": "s3"}
        deliver(
            inbox,
            "customer",
            [customer("b@x.example", **shares), customer("c@x.example", **future)],
            "public.json",
        )
        for serial, email in (("s2", "b@x.example"), ("s3", "c@x.example")):
            at = [1000 * n for n in range(1, 13)]
            deliver(inbox, "accelerometer", [motion(email, t) for t in at], f"{serial}.json")
            deliver(inbox, "step_trainer", [step(serial, t) for t in at], f"{serial}.json")
        lake.land(inbox)
        release = lake.create_dataset("steps", purpose="public")
        assert (release.subjects, release.rows) == (1, count)
        assert sum(rows for _, rows in release.account[:-1]) == count
        assert lake.create_dataset("steps").subjects == 3


def test_times_are_relative_unless_they_are_asked_for(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    people(inbox, [("a@x.example", "s1")])
    lake.land(inbox)
    assert [row["moment"] for row in rows(lake.create_dataset("steps"))] == [1000 * n for n in range(12)]
    absolute = rows(lake.create_dataset("steps", time="absolute"))
    assert [round(row["moment"].timestamp() * 1000) for row in absolute] == [instant(1000 * n) for n in range(1, 13)]
    windows = rows(lake.create_dataset("steps", window="4s"))
    assert [(row["window"], row["start"], row["t_ms"]) for row in windows] == [
        (n, 4000 * n, [0, 1000, 2000, 3000]) for n in range(3)
    ]


def test_the_manifest_tells_what_is_in_the_folder(slate: Slate, sample_inbox: Path) -> None:
    lake = slate.wiped()
    lake.land(sample_inbox)
    for words in ({}, {"window": "10s", "pad": True}, {"window": "10s", "resample": "2Hz"}, {"vectors": "list"}):
        release = lake.create_dataset("steps", **words)
        folder = Path(release.path)
        plain = json.loads((folder / "manifest.json").read_bytes())
        assert plain["release"] == release.release
        assert plain["created"] <= plain["consent_as_of"] or plain["created"]
        listed = (line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines())
        sums = {name: digest for digest, name in listed}
        found = files(folder)
        assert sums == {name: found[name] for name in found if name not in ("SHA256SUMS", "manifest.sig")}
        for file in plain["files"]:
            assert (file["sha256"], file["size"]) == (found[file["path"]], (folder / file["path"]).stat().st_size)
        read = f"read_parquet('{folder}/data/*.parquet')"
        described = duckdb.sql(f"describe select * from {read}").fetchall()
        assert [row[0] for row in described] == [column["name"] for column in plain["columns"]]
        kinds = {column["name"]: column["type"] for column in plain["columns"]}
        for name, kind, *_ in described:
            assert _KINDS[re.sub(r"\[\]", "", kind)] == re.sub(r"list<|>", "", kinds[name])
            assert kind.count("[]") == kinds[name].count("list<")
        counts = duckdb.sql(f"select subject, count(*) from {read} group by subject").fetchall()
        kept = duckdb.sql(f"select subject, rows from '{folder}/subjects.parquet'").fetchall()
        assert sorted(counts) == sorted(kept)
        assert sum(count for _, count in counts) == release.rows == plain["rows"]


RELEASES = lakes.REPOSITORY / "build" / "releases" / "bin" / "python"
_HUGGING_FACE = """
import json, sys
from datasets import load_dataset
found = load_dataset("parquet", data_dir=sys.argv[1])
named = load_dataset(sys.argv[1])
print(json.dumps([{name: (len(split), split.column_names) for name, split in of.items()} for of in (found, named)]))
"""


@pytest.mark.parametrize("words", [{}, {"window": "10s"}], ids=["moments", "windows"])
def test_everybody_reads_a_release_as_it_lies(
    slate: Slate, sample_inbox: Path, tmp_path: Path, words: dict[str, Any]
) -> None:
    lake = slate.wiped()
    lake.land(sample_inbox)
    release = lake.create_dataset("steps", **words)
    expected = {name: split.rows for name, split in release.splits.items()}
    names = [column["name"] for column in json.loads((Path(release.path) / "manifest.json").read_bytes())["columns"]]
    for split, count in expected.items():
        read = f"{release.path}/data/{split}-*.parquet"
        pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
        frames = [pandas.read_parquet(path) for path in sorted(Path(release.path).glob(f"data/{split}-*.parquet"))]
        assert sum(map(len, frames)) == polars.read_parquet(read).height == count
        assert list(frames[0].columns) == polars.read_parquet(read).columns == names
        assert duckdb.sql(f"select count(*) from '{read}'").fetchall() == [(count,)]
    if not RELEASES.exists():
        pytest.skip(f"Hugging Face's datasets are not at {RELEASES}")
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path), "HOME": str(tmp_path)}
    run = subprocess.run(
        [RELEASES, "-c", _HUGGING_FACE, release.path], capture_output=True, text=True, env={**os.environ, **offline}
    )
    assert run.returncode == 0, run.stderr[-2000:]
    for found in json.loads(run.stdout.splitlines()[-1]):
        assert {name: rows for name, (rows, _) in found.items()} == expected
        assert all(columns == names for _, columns in found.values())


def test_stratified_splits_have_their_share_of_each_label_and_nobody_moves(slate: Slate, inbox: Path) -> None:
    lake = slate.wiped()
    everybody = [f"p{n}@x.example" for n in range(30)]
    labels = inbox.parent / "labels.csv"
    span = f"{instant(1000)},{instant(12_000)}"
    spans = [f"{email},{span},{'rare' if n % 3 else 'common'}\n" for n, email in enumerate(everybody)]
    labels.write_text("email,start,end,label\n" + "".join(spans))
    found = []
    for count in (20, 30):
        people(inbox, [(email, f"s-{email}") for email in everybody[:count]], 3)
        lake.land(inbox)
        release = lake.create_dataset("steps", labels=str(labels), stratify=True, split="60/20/20")
        subject = identifier(KEY, lake.config.lake_id, release.release)
        read = f"from '{release.path}/subjects.parquet'"
        of = dict(duckdb.sql(f"select subject, split {read}").fetchall())
        found.append({email: of[subject(tombstones.person(KEY, email))] for email in everybody[:count]})
        for kind in (0, 1):
            of_kind = [split for n, split in enumerate(found[-1].values()) if bool(n % 3) == bool(kind)]
            assert [of_kind.count(split) / len(of_kind) for split in SPLITS] == pytest.approx([0.6, 0.2, 0.2], abs=0.1)
    assert {email: found[1][email] for email in found[0]} == found[0]
