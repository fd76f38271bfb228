"""The sample is what it says: the same bytes for a seed, every story and shape, and an answer that is right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import pytest
import zstandard

import oracle
from stedi.errors import UsageError
from stedi.landing import reader, sample
from stedi.landing.deliveries import local
from stedi.landing.sample import people, readings
from stedi.schema.contracts import Reason
from stedi.schema.feeds import CONTRACTS

NOW = 1_750_000_000_000
FEEDS = tuple(CONTRACTS)


def _count(reasons: Counter[str], reject: reader.Reject) -> None:
    reasons[str(reject.reason)] += 1


def pseudonym(email: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", email.strip()).casefold())


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, sample.Answer]:
    folder = tmp_path_factory.mktemp("sample") / "dirty"
    return folder, sample.write(folder, customers=60, readings=2_000, seed=5)


def text_of(path: Path) -> str:
    data = path.read_bytes()
    if data.startswith(b"\x1f\x8b"):
        data = gzip.decompress(data)
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return data.decode("utf-8-sig", errors="surrogateescape")


def loose_records(text: str) -> Iterator[dict[str, object]]:
    """Whatever stands between separators, by the standard library; a name given twice has no value."""
    names = {field.name.lower(): field.name for contract in CONTRACTS.values() for field in contract.fields}

    def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
        spelled = [(names.get(name.lower(), name), value) for name, value in pairs]
        counts = Counter(name for name, _ in spelled)
        return {name: value for name, value in spelled if counts[name] == 1}

    decoder, place = json.JSONDecoder(object_pairs_hook=once), 0
    while (start := re.compile(r"[\s,\[\]]*").match(text, place)) and start.end() < len(text):
        record, place = decoder.raw_decode(text, start.end())
        yield record


def good_records(folder: Path) -> dict[str, list[dict[str, object]]]:
    """Every record that must be accepted, told apart by where the sample puts good and faulty ones."""
    world: dict[str, list[dict[str, object]]] = {feed: [] for feed in FEEDS}
    for path in sorted(folder.rglob("*-*.json*")):
        feed = feed_of(path)
        text = text_of(path)
        if path.stem.endswith("-faults"):
            text = "\n".join(text.split("\n")[::2])
        if path.stem.endswith("-cut"):
            text = text[: text.rindex("\n")]
        if path.stem.endswith("-strays"):
            text = json.dumps([record for record in json.loads(text) if isinstance(record, dict)])
        world[feed] += loose_records(text)
    world["accelerometer"] += loose_records(text_of(folder / "unsorted.json"))
    return world


def feed_of(path: Path) -> str:
    return {"c": "customer", "a": "accelerometer", "s": "step_trainer"}[path.name[0]]


def test_a_seed_gives_the_same_bytes_for_ever(tmp_path: Path) -> None:
    sample.write(tmp_path / "s", customers=40, readings=1_000, seed=11, dirty=False)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted((tmp_path / "s").rglob("*-0001.json"))))
    assert digest.hexdigest() == "12d051dac1447abb50ec866c63e808c33e42c895bc7eaeea78e0b664dc1132b5"


def test_dirt_changes_no_bulk_file_and_another_seed_changes_all(tmp_path: Path) -> None:
    names = (
        "customer/customers-0001.json",
        "accelerometer/accelerometer-0001.json",
        "step_trainer/step_trainer-0001.json",
    )
    for name, seed, with_dirt in (("clean", 1, False), ("dirty", 1, True), ("other", 2, False)):
        sample.write(tmp_path / name, customers=20, readings=500, seed=seed, dirty=with_dirt)
    for name in names:
        clean, soiled, other = ((tmp_path / kind / name).read_bytes() for kind in ("clean", "dirty", "other"))
        assert clean == soiled != other


def test_the_answer_is_written_beside_the_data(dirty: tuple[Path, sample.Answer]) -> None:
    folder, answer = dirty
    assert json.loads((folder / "_answer.json").read_text()) == asdict(answer)
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "_answer.json"]
    assert answer.files == len(files)
    assert answer.bytes == sum(file.stat().st_size for file in files)
    for feed in FEEDS:
        assert answer.seen[feed] == answer.accepted[feed] + sum(answer.quarantined[feed].values())
    assert answer.rows() == {table: getattr(answer, table) for table in oracle.TABLES}
    assert answer.rows("since-consent") == answer.since_consent


def test_the_answer_to_the_dirty_sample_is_what_the_oracle_finds(dirty: tuple[Path, sample.Answer]) -> None:
    folder, answer = dirty
    world = good_records(folder)
    assert {feed: len(records) for feed, records in world.items()} == answer.accepted
    for policy in ("all", "since-consent"):
        found = oracle.tables(world, NOW, policy, pseudonym)
        assert found.counts() == answer.rows(policy)
        assert len(found.withheld) == answer.withheld
    persons: dict[str, list[dict[str, object]]] = {}
    for record in world["customer"]:
        persons.setdefault(pseudonym(str(record["email"])), []).append(record)
    agreeing = set(oracle_people(found))
    once = {person for person, records in persons.items() if any(agrees(record) for record in records)}
    assert len(agreeing) == answer.agreed
    assert len(once - agreeing) == answer.withdrew
    assert len(persons.keys() - once) == answer.never_agreed


def oracle_people(found: oracle.Tables) -> list[object]:
    return [row[0] for row in found.customers_trusted]


def agrees(record: dict[str, object]) -> bool:
    consent = record.get("shareWithResearchAsOfDate")
    return type(consent) is int and 946_684_800_000 <= consent <= NOW


def test_the_reader_takes_and_refuses_what_the_answer_says(dirty: tuple[Path, sample.Answer]) -> None:
    folder, answer = dirty
    accepted: Counter[str] = Counter()
    refused: dict[str, Counter[str]] = {feed: Counter() for feed in FEEDS}
    for found in local.walk([folder]):
        assert isinstance(found, local.Delivered)
        if found.path.name == "_answer.json":
            continue
        with found.path.open("rb") as raw, (folder.parent / "out").open("wb") as out:
            feed = reader.infer_feed(partial(io.BytesIO, found.path.read_bytes()), found.feed)
            assert feed is not None
            assert (found.feed is None) == (found.path.name == "unsorted.json")
            reasons = refused[feed]
            counts, _ = reader.read(
                reader.decompressed(raw, found.path.name),
                CONTRACTS[feed],
                out,
                partial(_count, reasons),
            )
            accepted[feed] += counts.accepted
        lines = (folder.parent / "out").read_bytes().splitlines()
        assert len(lines) == counts.accepted, found.name
        assert all(isinstance(json.loads(line), dict) for line in lines)
    assert {feed: dict(sorted(reasons.items())) for feed, reasons in refused.items()} == answer.quarantined
    assert accepted == answer.accepted


def test_every_reason_for_refusal_occurs_in_every_feed(dirty: tuple[Path, sample.Answer]) -> None:
    answer = dirty[1]
    delivered = set(Reason) - {Reason.INVISIBLE_CHARACTER}  # only addresses can have one
    assert set(answer.quarantined["customer"]) == delivered
    for feed in FEEDS:
        assert set(answer.quarantined[feed]) >= delivered - {Reason.TOO_LARGE}


def test_bulk_lines_look_as_the_feeds_deliver_them(tmp_path: Path) -> None:
    sample.write(tmp_path / "s", customers=60, readings=3_000, dirty=False)
    moment = r"16[0-9]{11}"
    patterns = {
        "accelerometer": rf'{{"user":"[^"]+","timestamp":{moment},"x":(-1|0|1)\.0,"y":(-1|0|1)\.0,"z":(-1|0|1)\.0}}',
        "step_trainer": rf'{{"sensorReadingTime":{moment},"serialNumber":"[0-9a-f-]+","distanceFromObject":[23]..}}',
        "customer": r'\{("[A-Za-z]+": ("[^"]*"|[0-9]+)(, |\}$))+',
    }
    for feed, pattern in patterns.items():
        for file in (tmp_path / "s" / feed).iterdir():
            for line in file.read_text("utf-8").splitlines():
                assert re.fullmatch(pattern, line), line
                if feed == "customer":
                    assert json.dumps(json.loads(line), ensure_ascii=False) == line


def test_the_sample_has_the_troubles_of_the_real_feeds(tmp_path: Path) -> None:
    answer = sample.write(tmp_path / "s", customers=200, readings=20_000, dirty=False)
    world = oracle.read_clean(tmp_path / "s")
    motions = [tuple(record.values()) for record in world["accelerometer"]]
    steps = [tuple(record.values()) for record in world["step_trainer"]]
    assert len(motions) + len(steps) == 20_000
    assert 2 < len(motions) / len(steps) < 4
    for rows in (motions, steps):
        assert 0.03 < 1 - len(set(rows)) / len(rows) < 0.15
        assert rows != sorted(rows)
    emails = {str(record["email"]) for record in world["customer"]}
    assert len({pseudonym(email) for email in emails}) == 200 < len(emails)
    serials = {record["serialNumber"] for record in world["customer"]}
    assert {serial for _, serial, _ in steps} - serials
    assert {pseudonym(str(user)) for user, *_ in motions} - {pseudonym(email) for email in emails}
    assert answer.customers_curated < answer.customers_trusted
    assert 0.4 < answer.agreed / 200 < 0.6
    before = 1 - answer.since_consent["accelerometer_trusted"] / answer.accelerometer_trusted
    assert 0.1 < before < 0.35
    assert answer.withheld > 50
    by_moment: dict[object, set[str]] = {}
    for user, time, *_ in motions:
        by_moment.setdefault(time, set()).add(pseudonym(str(user)))
    assert sum(len(users) > 1 for users in by_moment.values()) > 20


def test_every_story_is_told_among_the_first_hundred_people() -> None:
    told = {story for plan in people.plans(100) for story in plan.stories}
    assert told == set(people.STORIES)
    assert {plan.kind for plan in people.plans(100)} == {"solo", "shared", "resold", "stranger"}
    assert {plan.motion for plan in people.plans(100)} == {"both", "phone", "device", "none"}


@pytest.mark.parametrize(("customers", "count"), [(1, 0), (1, 5_000), (2, 17), (8, 100), (33, 999)])
def test_exactly_so_many_customers_and_readings_are_made(tmp_path: Path, customers: int, count: int) -> None:
    answer = sample.write(tmp_path / "s", customers=customers, readings=count, dirty=False)
    assert answer.agreed + answer.never_agreed + answer.withdrew == customers
    assert answer.accepted["accelerometer"] + answer.accepted["step_trainer"] == count
    world = oracle.read_clean(tmp_path / "s")
    assert {feed: len(records) for feed, records in world.items()} == answer.accepted
    for policy in ("all", "since-consent"):
        assert oracle.tables(world, NOW, policy, pseudonym).counts() == answer.rows(policy)


def test_large_feeds_are_split_and_small_pools_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sample, "FILE_BYTES", 50_000)
    monkeypatch.setattr(readings, "_POOL", 64)
    answer = sample.write(tmp_path / "s", customers=12, readings=9_000, dirty=False)
    sizes = [file.stat().st_size for file in (tmp_path / "s" / "accelerometer").iterdir()]
    assert len(sizes) > 5
    assert max(sizes) <= 50_000
    world = oracle.read_clean(tmp_path / "s")
    assert oracle.tables(world, NOW, "since-consent", pseudonym).counts() == answer.since_consent


def test_compressed_bulk_files_hold_the_same_lines(tmp_path: Path) -> None:
    plain = sample.write(tmp_path / "plain", customers=9, readings=300, dirty=False)
    packed = sample.write(tmp_path / "packed", customers=9, readings=300, dirty=False, compress=True)
    assert packed.rows() == plain.rows()
    assert packed.bytes < plain.bytes
    for file in (tmp_path / "plain").rglob("*-0001.json"):
        assert gzip.decompress(Path(f"{file}.gz".replace("plain", "packed")).read_bytes()) == file.read_bytes()


def test_progress_ends_at_all_readings(tmp_path: Path) -> None:
    told: list[float | None] = []
    sample.write(
        tmp_path / "s", customers=300, readings=3_000, dirty=False, progress=lambda what, share: told.append(share)
    )
    assert len(told) > 2
    assert told == sorted(share for share in told if share is not None)
    assert told[-1] == 1


def test_progress_also_moves_where_few_people_have_many_readings(tmp_path: Path) -> None:
    told: list[float | None] = []
    sample.write(
        tmp_path / "s", customers=50, readings=3_000, dirty=False, progress=lambda what, share: told.append(share)
    )
    assert 10 < len(told) <= 101


def test_people_have_names_of_their_own_whatever_the_case() -> None:
    names = {"".join(people.name(number, 3)).casefold() for number in range(70_000)}
    assert len(names) == 70_000
    assert people.name(5, 3) != people.name(5 + (1 << 20), 3)


@pytest.mark.parametrize(("customers", "count"), [(0, 10), (-1, 10), (1, -1)])
def test_impossible_numbers_are_refused(tmp_path: Path, customers: int, count: int) -> None:
    with pytest.raises(UsageError, match="expected customers >= 1"):
        sample.write(tmp_path / "s", customers=customers, readings=count)
    assert not (tmp_path / "s").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    for path in (tmp_path, tmp_path / "mine"):
        with pytest.raises(UsageError, match="empty or new folder"):
            sample.write(path)
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
