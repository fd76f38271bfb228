from __future__ import annotations

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stedi.cli import render
from stedi.landing import crawl as crawling
from stedi.landing.crawl import crawl, mask
from stedi.landing.crawl.profile import OTHER
from stedi.landing.crawl.report import FeedReport, Report
from stedi.landing.reader import Limits, Reject, read
from stedi.schema.contracts import Contract, Field, Kind, Reason
from stedi.schema.feeds import CONTRACTS

PUBLIC = Path(__file__).parents[3] / "shared/data/stedi-2023"

ADA = {
    "customerName": "Ada Quillfeather",
    "email": "Ada.Q@Mail.example",
    "serialNumber": "S-77341",
    "registrationDate": 1655564376361,
    "lastUpdateDate": 1655564376361,
}
READING = {"user": "ada@mail.example", "timestamp": 1655564376361, "x": 1.0, "y": -1, "z": 0.25}


def put(path: Path, *records: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "\n".join(record if isinstance(record, str) else json.dumps(record) for record in records)
    path.write_text(text, "utf-8")
    return path


def only(report: Report) -> FeedReport:
    (feed,) = report.feeds
    return feed


def fields(feed: FeedReport) -> Any:
    return {field.name: field for field in feed.fields}


def drifts(feed: FeedReport) -> dict[Any, Any]:
    return {(drift.field, drift.kind): (drift.records, drift.costs) for drift in feed.drift}


def test_records_as_the_contract_says_show_no_drift(tmp_path: Path) -> None:
    put(tmp_path / "accelerometer/1.json", READING, READING)
    put(tmp_path / "accelerometer/2.json", READING)
    feed = only(crawl([tmp_path]))
    assert (feed.feed, feed.known, feed.files, feed.seen, feed.sampled) == ("accelerometer", True, 2, 3, False)
    assert (feed.rejects, feed.drift, feed.proposal) == ({}, (), None)
    assert [field.name for field in feed.fields] == ["user", "timestamp", "x", "y", "z"]
    assert fields(feed)["user"].shapes == ("aaa@aaaa.aaaa",)
    assert fields(feed)["timestamp"].types == {"instant": 3}
    assert fields(feed)["timestamp"].years == (2022, 2022)
    assert fields(feed)["y"].types == {"integer": 3}
    assert fields(feed)["y"].bounds == (-1, -1)
    assert fields(feed)["z"].types == {"fraction": 3}
    assert fields(feed)["z"].missing == 0


def test_every_way_to_stray_from_the_contract_is_told(tmp_path: Path) -> None:
    put(
        tmp_path / "customers-1.json",
        ADA,
        {**ADA, "phone": None, "birthDay": 19000101, "shoeSize": 43},
        {**ADA, "EMAIL": "again"},
        {**{k: v for k, v in ADA.items() if k != "email"}, "eMail": "x"},
        {**ADA, "email": None},
        {**ADA, "email": "ada\u200b@mail.example", "customerName": "A\u200bda"},
        {**ADA, "serialNumber": 17},
        {**ADA, "serialNumber": "  "},
        {**ADA, "registrationDate": 0},
        {**ADA, "shareWithResearchAsOfDate": "yes"},
        {**ADA, "shareWithPublicAsOfDate": -1},
        '{"phone": "1", "phone": "2", "email": "a", "serialNumber": "b", '
        '"registrationDate": 1000000000001, "lastUpdateDate": 1000000000001}',
        '{"broken": }',
    )
    feed = only(crawl([tmp_path]))
    assert drifts(feed) == {
        ("shareWithFriendsAsOfDate", "missing_field"): (12, False),
        ("birthDay", "wrong_type"): (1, False),
        ("phone", "given_twice"): (1, False),
        ("shoeSize", "unknown_field"): (1, False),
        ("email", "given_twice"): (1, True),
        ("email", "missing_value"): (1, True),
        ("email", "spelling"): (2, False),
        ("email", "invisible_character"): (1, True),
        ("serialNumber", "wrong_type"): (1, True),
        ("serialNumber", "out_of_range"): (1, True),
        ("registrationDate", "out_of_range"): (1, True),
        ("shareWithResearchAsOfDate", "wrong_type"): (1, False),
        ("shareWithPublicAsOfDate", "out_of_range"): (1, False),
    }
    assert feed.seen == 13
    assert feed.records == 12
    assert feed.rejects == {
        Reason.DUPLICATE_KEY: 1,
        Reason.MISSING_REQUIRED: 1,
        Reason.WRONG_TYPE: 1,
        Reason.OUT_OF_RANGE: 2,
        Reason.INVISIBLE_CHARACTER: 1,
        Reason.MALFORMED: 1,
    }
    text = render.crawl(crawl([tmp_path]))
    assert "email: spelling, 2 records (kept): spelled EMAIL, eMail" in text
    assert "serialNumber: wrong type, 1 record (quarantined): expected text, found integer 1" in text
    assert "customer: 1 file, 13 records; 7 would be quarantined" in text


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [
        None,
        True,
        "",
        " ",
        "text",
        "te\u200bxt",
        0,
        -1,
        1,
        1655564376361,
        253402300800000,
        2**63,
        2**63 - 1,
        10**400,
        1.5,
        1e300,
        [],
        {},
    ]
)
NAMES = st.sampled_from(
    ["user", "USER", "timestamp", "timeStamp", "x", "y", "z", "X", "other", "ﬁeld", "\u017fer", "a b"]
)


@settings(max_examples=150)
@given(st.lists(st.lists(st.tuples(NAMES, VALUES), max_size=7), max_size=4), st.booleans())
def test_what_would_be_quarantined_is_what_landing_quarantines(
    tmp_path_factory: pytest.TempPathFactory, records: Any, complete: Any
) -> None:
    base = [("user", "u"), ("timestamp", 1), ("x", 1), ("y", 1.5), ("z", 2)] if complete else []
    folder = tmp_path_factory.mktemp("crawl")
    texts = ["{" + ",".join(f"{json.dumps(k)}:{json.dumps(v)}" for k, v in base + record) + "}" for record in records]
    path = put(folder / "accelerometer.json", *texts)
    found: list[Reject] = []
    counts, _ = read(io.BytesIO(path.read_bytes()), CONTRACTS["accelerometer"], io.BytesIO(), found.append, Limits())
    feed = only(crawl([path]))
    reasons = {reason: sum(reject.reason is reason for reject in found) for reason in Reason}
    assert feed.rejects == {reason: count for reason, count in reasons.items() if count}
    assert feed.seen == counts.seen


def test_no_value_of_a_record_is_ever_shown(tmp_path: Path) -> None:
    secrets = [
        "Quillfeather",
        "quillfeather",
        "Ada",
        "77341",
        "1655564376361",
        "8015551212",
        "Ünal",
        "19770203",
        "4.5125",
    ]
    put(
        tmp_path / "customers.json",
        {**ADA, "phone": "8015551212", "birthDay": "19770203", "nickname": "Ünal", "quill feather": "Quillfeather"},
        {**ADA, "phone": 8015551212, "email": ["Quillfeather"], "address": {"street": "Quillfeather"}},
        '{"Quillfeather, Ada": "Quillfeather", "email": }',
        "Quillfeather",
    )
    put(tmp_path / "orders/1.json", {"total": 4.5125, "name": "Quillfeather", "Quillfeather@x.example": 1, "id": 77341})
    report = crawl([tmp_path])
    shown = render.crawl(report) + json.dumps(render.plain(report), ensure_ascii=False)
    assert [secret for secret in secrets if secret in shown] == []
    assert '"aaaa aaaa"' in render.crawl(report)
    assert "A" not in mask("ünal")
    assert mask("Ünal 12 – x@y.z") == "Aaaa 99 * a@a.a"


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("Ab.Cd@test.com", "Aa.Aa@aaaa.aaa"),
        ("8015551212", "9999"),
        ("50f7b4f3-7af5-4b07-a421-7b902c8d2b7c", "(uuid)"),
        ("", ""),
        ("\x1b[31m\n", "*[99a*"),
        ("日本", "aa"),
        ("a1" * 30, "a9" * 20 + "…"),
        ("a" * 1001, "aaaa…"),
        ("aaaaaaaa", "aaaa"),
    ],
)
def test_a_shape_tells_what_a_text_is_and_not_what_it_says(text: str, shape: Any) -> None:
    assert mask(text) == shape


def test_the_share_that_is_missing_counts_absent_fields_and_nulls_are_a_type(tmp_path: Path) -> None:
    put(tmp_path / "customer.json", {**ADA, "phone": "1"}, {**ADA, "phone": None}, ADA, ADA)
    phone = fields(only(crawl([tmp_path])))["phone"]
    assert (phone.present, phone.missing, phone.types) == (2, 2, {"text": 1, "null": 1})
    assert "50.0%" in render.crawl(crawl([tmp_path]))


def test_a_field_that_no_record_has_is_told(tmp_path: Path) -> None:
    put(tmp_path / "accelerometer.json", {**READING, "z": None}, {k: v for k, v in READING.items() if k not in "xz"})
    feed = only(crawl([tmp_path]))
    assert drifts(feed) == {("x", "missing_value"): (1, True), ("z", "missing_value"): (2, True)}
    put(tmp_path / "accelerometer.json", {k: v for k, v in READING.items() if k != "z"})
    assert drifts(only(crawl([tmp_path]))) == {("z", "missing_field"): (1, True)}


def test_the_feed_is_told_by_the_fields_where_no_name_tells_it(tmp_path: Path) -> None:
    put(tmp_path / "inbox/1.json", READING)
    (tmp_path / "inbox/2.json.gz").write_bytes(gzip.compress(json.dumps(ADA).encode()))
    report = crawl([tmp_path / "inbox"])
    assert [(feed.feed, feed.seen) for feed in report.feeds] == [("customer", 1), ("accelerometer", 1)]


def test_an_unknown_feed_gets_a_contract_that_its_records_meet(tmp_path: Path) -> None:
    put(
        tmp_path / "inbox/Heart Rate/landing/1.json",
        {"device": "a", "at": 1655564376361, "rate": 60, "level": 1, "note": "x", "worn": True, "when?": 1, "mix": 1},
        {"device": "b", "at": 1655564376362, "rate": 61, "level": 0.5, "note": None, "worn": False, "mix": "1"},
    )
    put(tmp_path / "inbox/Heart Rate/landing/2.json", {"device": "c", "at": 1655564376363, "rate": 2, "level": 3})
    feed = only(crawl([tmp_path / "inbox"]))
    assert (feed.feed, feed.known, feed.files, feed.drift) == ("inbox/Heart Rate/landing", False, 2, ())
    assert feed.proposal
    proposed = eval(feed.proposal, {"Contract": Contract, "Field": Field, "Kind": Kind})
    assert proposed == Contract(
        feed="heart_rate",
        table="heart_rate_landing",
        fields=(
            Field("device", Kind.TEXT),
            Field("at", Kind.INSTANT),
            Field("rate", Kind.INTEGER),
            Field("level", Kind.NUMBER),
            Field("note", Kind.TEXT, required=False),
        ),
    )
    assert "# worn: boolean 2; no kind takes it" in feed.proposal
    assert '# "aaaa?": integer 1; no kind takes it' in feed.proposal
    assert "# mix: integer 1, text 1; no kind takes it" in feed.proposal
    assert "a contract that fits:" in render.crawl(crawl([tmp_path / "inbox"]))


@pytest.mark.parametrize(
    ("name", "group", "feed"), [("orders-0001.json", "orders", "orders"), ("77.json", "77.json", "77_json")]
)
def test_a_file_without_a_folder_goes_by_its_name(tmp_path: Path, name: str, group: Any, feed: str | None) -> None:
    found = only(crawl([put(tmp_path / name, {"a": 1})]))
    assert found.feed == group
    assert f'feed="{feed}"' in (found.proposal or "")


def test_a_folder_whose_name_says_nothing_proposes_a_plain_name(tmp_path: Path) -> None:
    put(tmp_path / "inbox/1.json", {"a": 1})
    assert 'feed="feed"' in (only(crawl([tmp_path / "inbox"])).proposal or "")


def test_a_sample_reads_so_many_records_of_each_file(tmp_path: Path) -> None:
    put(tmp_path / "accelerometer/1.json", *[READING] * 5)
    put(tmp_path / "accelerometer/2.json", *[READING] * 3)
    told: list[str] = []
    feed = only(crawl([tmp_path], sample=3, progress=lambda what, share: told.append(what)))
    assert (feed.seen, feed.sampled) == (6, True)
    assert told == ["read files, 1 of 2", "read files, 2 of 2"]
    assert "6 records, sampled" in render.crawl(crawl([tmp_path], sample=3))
    assert not only(crawl([tmp_path / "accelerometer/2.json"], sample=3)).sampled


def test_what_cannot_be_read_is_named_and_the_others_are_crawled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "in/accelerometer.json", READING)
    put(tmp_path / "in/x.json.gz", "no gzip")
    os.mkfifo(tmp_path / "in/pipe")
    report = crawl([tmp_path / "in", tmp_path / "nothing"])
    assert [feed.feed for feed in report.feeds] == ["accelerometer"]
    assert {Path(item.name).name: item.failed for item in report.skipped} == {
        "pipe": False,
        "x.json.gz": True,
        "nothing": True,
    }
    assert report.failed
    assert "not read: in/x.json.gz: expected gzip" in render.crawl(report)


def test_a_file_that_grows_while_it_is_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "accelerometer.json", READING)
    real = crawling.iter_values

    def growing(stream: Any, limits: Any) -> Any:
        yield from real(stream, limits)
        with path.open("a") as writer:
            writer.write("{}")

    monkeypatch.setattr(crawling, "iter_values", growing)
    assert "changed while it was read" in crawl([path]).skipped[0].why


def test_an_empty_file_and_no_field_at_all_are_told_plainly(tmp_path: Path) -> None:
    put(tmp_path / "accelerometer.json")
    put(tmp_path / "things/x.json")
    put(tmp_path / "objects/x.json", {})
    text = render.crawl(crawl([tmp_path]))
    assert "accelerometer: 1 file, 0 records; 0 would be quarantined" in text
    assert "things (no contract): 1 file, 0 records; 0 would be quarantined" in text
    assert crawl([]).feeds == ()
    assert not crawl([]).failed
    assert render.crawl(crawl([])) == ""


def test_a_feed_of_endless_fields_shapes_and_spellings_stays_bounded(tmp_path: Path) -> None:
    names = [f"f{i}" for i in range(1200)]
    spellings = ["".join(c.upper() if i >> j & 1 else c for j, c in enumerate("field")) for i in range(32)]
    texts = ["".join("ab"[i >> j & 1] + "-"[: i >> j & 1] for j in range(12)) for i in range(2000)]
    records = [{name: 1} for name in names] + [{s: t} for s, t in zip(spellings * 70, texts, strict=False)]
    feed = only(crawl([put(tmp_path / "x.json", *reversed(records))]))
    found = fields(feed)
    assert len(found) == 501
    assert found[OTHER].present == 1 + 1200 - 500
    assert found[OTHER].spellings == {OTHER: found[OTHER].present}
    spelled = next(field for name, field in found.items() if name.lower() == "field")
    assert spelled.present == 2000
    assert len(spelled.spellings) == 10
    assert len(spelled.shapes) == 3


def test_the_json_of_a_report_holds_all_of_it(tmp_path: Path) -> None:
    put(tmp_path / "accelerometer.json", {**READING, "speed": 3}, "{")
    document = json.loads(json.dumps(render.plain(crawl([tmp_path / "accelerometer.json", tmp_path / "no"]))))
    (feed,) = document["feeds"]
    assert feed["feed"] == "accelerometer"
    assert feed["rejects"] == {"truncated": 1}
    assert feed["fields"][0]["types"] == {"text": 1}
    assert feed["drift"] == [
        {"kind": "unknown_field", "field": "speed", "records": 1, "costs": False, "found": "integer 1"}
    ]
    assert document["skipped"][0]["failed"] is True


@pytest.mark.skipif(not PUBLIC.is_dir(), reason="the public data set is not beside the project")
def test_the_public_data_is_as_the_contracts_say() -> None:
    report = crawl([PUBLIC], sample=2000)
    assert [(feed.feed, feed.files, feed.rejects, feed.drift) for feed in report.feeds] == [
        ("customer", 1, {}, ()),
        ("accelerometer", 9, {}, ()),
        ("step_trainer", 3, {}, ()),
    ]
    research = fields(report.feeds[0])["shareWithResearchAsOfDate"]
    assert (research.present, research.missing) == (482, 474)
    assert fields(report.feeds[2])["distanceFromObject"].bounds == (201, 300)
