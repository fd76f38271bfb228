"""Access: what `stedi export` hands to one person, how it lies there, and what of others never gets in."""

from __future__ import annotations

import base64
import csv
import json
import re
import stat
import zipfile
from pathlib import Path

import pytest

import browser
from deliveries import customer, deliver, motion, step
from lakes import Slate
from stedi import Exported, Lake, cli
from stedi.errors import UsageError
from stedi.report import readme
from stedi.report.attribution import ANOTHER, Person
from stedi.schema.feeds import CONTRACTS

ANA, BO = "ana@x.example", "bo@x.example"
FILES = [
    *("README.html", "accelerometer.csv", "accelerometer.jsonl", "customer.json", "quarantine.jsonl", "releases.json"),
    *("sources.csv", "step_trainer.csv", "step_trainer.jsonl"),
]


def shared(lake: Lake, inbox: Path) -> None:
    """Ana and Bo share a device; Ana had another before Cy bought it; some records name others or cannot be used."""
    deliver(
        inbox,
        "customer",
        [
            customer(
                ANA, 40, 100, serialNumber="shared", customerName='<script>alert("1")</script>', phone="+1 555 010"
            ),
            customer(" ANA@x.example ", ..., 90, serialNumber="sold", friend={"email": BO, "phone": "+1 555 011"}),
            customer(BO, 50, 100, serialNumber="shared", customerName="Bo", phone="+1 555 011"),
            customer("cy@x.example", ..., 110, serialNumber="sold", customerName="Cy"),
        ],
    )
    deliver(
        inbox,
        "accelerometer",
        [
            {**motion(ANA, 101), "note": f"with {BO} and Ana@x.example"},
            {**motion("Ana@X.example", 102), "packed": base64.b64encode(f"see {BO} there".encode()).decode()},
            motion(ANA, 101),
            motion(BO, 102),
            motion(BO, 103),
        ],
    )
    deliver(inbox, "step_trainer", [step("shared", at, 240 + at) for at in (101, 102, 103, 104)])
    deliver(inbox, "step_trainer", [step("sold", at) for at in (101, 103)], "sold.json")
    envelope = {"data": [motion(ANA, 105), motion(BO, 106)], "next": "bo@x.example"}
    bad = {"user": BO, "timestamp": "noon", "x": 1, "y": 1, "z": 1, "note": f"after {ANA}"}
    mine = {"user": ANA, "timestamp": "noon", "x": 1, "y": 1, "z": 1, "note": f"before {BO}"}
    deliver(inbox, "accelerometer", [envelope, bad, mine], f"of {BO}.json")
    (inbox / "accelerometer" / "torn.json").write_text(f'{{"user": "{ANA}", "x": 1, "beside": "{BO}')
    lake.land(inbox)
    lake.build()


@pytest.fixture
def lake(slate: Slate) -> Lake:
    return slate.made(shared)


def lines(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def test_a_person_gets_what_is_theirs_by_the_rules_and_others_nothing(lake: Lake, tmp_path: Path) -> None:
    done = lake.export("Ana@x.example ", output=tmp_path / "out")
    assert done.path == tmp_path / "out"
    [found] = done.customers
    assert found == Exported(
        known=True, records=2, accelerometer=3, step_trainer=2, quarantined=2, withheld_shared=3, releases=0,
        quarantined_mixed=1,
    )  # fmt: skip
    assert sorted(path.name for path in done.path.iterdir()) == FILES
    told = json.loads((done.path / "customer.json").read_text())
    assert [record["serialNumber"] for record in told["records"]] == ["shared", "sold"], "the current one first"
    assert told["records"][1]["unknown_fields"] == {"friend": ANOTHER}
    assert told["tables"]["accelerometer_trusted"] == 2
    steps = lines(done.path / "step_trainer.jsonl")
    assert [(row["serialNumber"], row["distanceFromObject"]) for row in steps] == [("shared", 341), ("sold", 246)]
    motions = lines(done.path / "accelerometer.jsonl")
    assert [row["unknown_fields"] for row in motions if row["unknown_fields"]] == [
        {"note": f"with {ANOTHER} and Ana@x.example"},
        {"packed": ANOTHER},
    ]
    kept = [(row["whole"], json.loads(str(row["record"]))) for row in lines(done.path / "quarantine.jsonl")]
    assert sorted(row.get("note", "") for _, row in kept) == ["", f"before {ANOTHER}"]
    assert not any(whole for whole, _ in kept), "one is cut out, in the other a mention is masked"
    texts = {path.name: path.read_text("utf-8").casefold() for path in done.path.iterdir()}
    assert not [
        name for name, text in texts.items() if BO in text or "555 011" in text or "cy" in re.findall(r"\w+", text)
    ]


def test_each_row_says_which_file_it_came_from(lake: Lake, tmp_path: Path) -> None:
    lake.export(ANA, output=tmp_path / "out")
    with (tmp_path / "out" / "sources.csv").open(newline="") as stream:
        sources = {row["source"]: row for row in csv.DictReader(stream)}
    named = [json.loads((tmp_path / "out" / "customer.json").read_text())["records"]]
    named += [lines(tmp_path / "out" / f"{feed}.jsonl") for feed in ("accelerometer", "step_trainer", "quarantine")]
    used = {str(row["source"]) for rows in named for row in rows}
    assert used == sources.keys()
    assert sum(int(row["records"]) for row in sources.values()) == 2 + 3 + 2
    assert sum(int(row["quarantined"]) for row in sources.values()) == 2
    assert any(ANOTHER in row["name"] for row in sources.values()), "a file that is called after Bo"


def test_only_its_owner_may_read_it_and_no_name_tells_anybody(lake: Lake, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir(0o755)
    (tmp_path / "deep" / ".export.0123456789abcdef.partial").mkdir()  # a command that was killed
    lake.export(ANA, BO, "nobody@x.example", output=tmp_path / "deep" / "out")
    every = [tmp_path / "deep" / "out", *(tmp_path / "deep" / "out").rglob("*")]
    assert {stat.S_IMODE(path.stat().st_mode) for path in every} == {0o700, 0o600}
    assert all(path.is_dir() == (stat.S_IMODE(path.stat().st_mode) == 0o700) for path in every)
    folders = sorted(path.relative_to(tmp_path).as_posix() for path in every if path.is_dir())
    assert folders == ["deep/out", "deep/out/1", "deep/out/2", "deep/out/3"]
    assert not [path.name for path in (tmp_path / "deep").iterdir() if path.name != "out"], "nothing is left beside it"


def test_of_somebody_unknown_the_files_say_that_there_is_nothing(lake: Lake, tmp_path: Path) -> None:
    [found] = lake.export("nobody@x.example", output=tmp_path / "out").customers
    assert found == Exported(False, 0, 0, 0, 0, 0, 0)
    assert "None. The lake has no record" in (tmp_path / "out" / "README.html").read_text()
    assert (tmp_path / "out" / "accelerometer.csv").read_text().startswith("user,timestamp,x,y,z,time")


def test_who_was_erased_is_told_so_and_nothing_else(lake: Lake, tmp_path: Path) -> None:
    lake.erase(ANA)
    [found] = lake.export(ANA, output=tmp_path / "out").customers
    assert not found.known
    assert "Your data were erased on" in (tmp_path / "out" / "README.html").read_text()
    [bo] = lake.export(BO, output=tmp_path / "bo").customers
    assert (bo.step_trainer, bo.withheld_shared) == (1, 1), (
        "an erased customer claims the device still, and does not move"
    )


def test_releases_that_somebody_is_in_are_listed(lake: Lake, tmp_path: Path) -> None:
    lake.create_dataset("gait")
    [found] = lake.export(ANA, output=tmp_path / "out").customers
    [release] = json.loads((tmp_path / "out" / "releases.json").read_text())["releases"]
    assert found.releases == 1
    assert (release["release"], release["purpose"], release["rows"]) == ("gait@1", "research", 2)
    assert "gait@1" in (tmp_path / "out" / "README.html").read_text()
    assert lake.export("cy@x.example", output=tmp_path / "cy").customers[0].releases == 0


def test_a_zip_file_holds_the_same_files(lake: Lake, tmp_path: Path) -> None:
    done = lake.export(ANA, output=tmp_path / "out", archive=True)
    assert done.path == tmp_path / "out.zip"
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o600
    with zipfile.ZipFile(done.path) as packed:
        assert sorted(packed.namelist()) == FILES
        assert packed.testzip() is None
    assert [path.name for path in tmp_path.iterdir()] == ["out.zip"]
    with pytest.raises(UsageError, match="expected a new file, found something else"):
        lake.export(ANA, output=tmp_path / "out", archive=True)


def test_an_export_lies_where_nobody_takes_it_for_something_else(lake: Lake, slate: Slate, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "empty").mkdir()
    inbox = lake.root.parent / "inbox"
    places: dict[str | Path, str] = {
        tmp_path / "full": "a new or empty folder, found something else",
        tmp_path / "link": "a new or empty folder, found something else",
        lake.root / "out": "outside of any lake",
        inbox / "out": "outside of every inbox",
        inbox / "customer" / "out": "outside of every inbox",
        tmp_path / "no" / "out": "an existing parent folder",
        "/dev/null/a": "an existing parent folder",
        "s3://bucket/out": "on this machine",
    }
    for place, why in places.items():
        before = sorted(inbox.rglob("*")), sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError, match=why):
            lake.export(ANA, output=place)
        assert (sorted(inbox.rglob("*")), sorted(tmp_path.rglob("*"))) == before
    assert lake.export(ANA, output=tmp_path / "empty").customers[0].known
    assert lake.export(ANA, output=slate.copies() / "beside the inbox").customers[0].known


def test_an_export_that_fails_leaves_nothing(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stedi.report.readme.page", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        lake.export(ANA, output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_the_page_asks_for_nothing_and_takes_names_for_text(lake: Lake, tmp_path: Path) -> None:
    lake.export(ANA, output=tmp_path / "out")
    page = (tmp_path / "out" / "README.html").read_text("utf-8")
    assert "default-src 'none'" in page
    assert "&lt;script&gt;" in page
    assert "<script" not in page
    assert not re.search(r"(?:src|href|url)\s*[=(]", page)
    assert '<html lang="en">' in page
    assert "a step trainer that other customers have named as\ntheirs, too" in page


@pytest.mark.parametrize("begin", ["=", "\uff1d", "\n="])
def test_no_spreadsheet_computes_what_somebody_is_called(slate: Slate, tmp_path: Path, begin: str) -> None:
    """Full-width signs count as the plain ones, and so does a line break before one."""
    lake, inbox, serial = slate.wiped(), slate.inbox(), f"{begin}cmd|' /C calc'!A0"
    deliver(inbox, "customer", [customer(serialNumber=serial)])
    deliver(inbox, "step_trainer", [step(serial, 100)])
    lake.land(inbox)
    lake.export("a@x.example", output=tmp_path / "out")
    with (tmp_path / "out" / "step_trainer.csv").open(newline="") as stream:
        assert next(csv.DictReader(stream))["serialNumber"] == f"'{serial}"
    [row] = lines(tmp_path / "out" / "step_trainer.jsonl")
    assert row["serialNumber"] == serial


def test_the_command_prints_counts_alone(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", ANA, "nobody@x.example", "--output", str(tmp_path / "out")]
    assert cli.main(["--lake", str(lake.root), "--json", *words]) == 0
    out, err = capsys.readouterr()
    [ana, nobody] = json.loads(out)["customers"]
    assert ana == {
        "known": True, "records": 2, "accelerometer": 3, "step_trainer": 2, "quarantined": 2, "withheld_shared": 3,
        "releases": 0, "quarantined_mixed": 1,
    }  # fmt: skip
    assert not nobody["known"]
    assert "not known to the lake: argument 2" in err
    assert "@" not in out + err
    words = ["export", "nobody@x.example", "--output", str(tmp_path / "none"), "--zip"]
    assert cli.main(["--lake", str(lake.root), *words]) == 1
    assert f"written: {tmp_path}/none.zip" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("raw", "part"),
    [
        ('{"user": "ANA@x.example", "x": 1}', '{"user": "ANA@x.example", "x": 1}'),
        ('{"user": "bo@x.example", "x": "ana@x.example"}', ""),
        ('{"user": "joana@x.example"}', ""),
        ('{"rows": [{"user": "bo@x.example"}, {"user": "ana@x.example"}]}', '{"user": "ana@x.example"}'),
        ('{"to": "ana@x.example", "rows": [{"user": "ana@x.example"}]}', None),
        ('{"body": "{\\"user\\": \\"ana@x.example\\"}", "from": "bo@x.example"}', '{"user": "ana@x.example"}'),
        ("ana@x.example,1\nbo@x.example,2", None),
        ('{"user": "ana@x.example", "x"', '{"user": "ana@x.example", "x"'),
        ('{"serialNumber": "sole", "distance', '{"serialNumber": "sole", "distance'),
        ('{"serialNumber": "sole", "d": null}', '{"serialNumber": "sole", "d": null}'),
        ('{"user": "ana@x.example", "of": {"email": "bo", "age": 7}}',
         f'{{"user": "ana@x.example", "of": "{ANOTHER}"}}'),
        ('{"user": "ana@x.example", "m": "bo\\u0040x.example"}', f'{{"user": "ana@x.example", "m": "{ANOTHER}"}}'),
        ('{"email": "ana@x.example", "user": "bo@x.example"}', None),
        ("[" * 100_000 + '"ana@x.example"', None),
    ],
)  # fmt: skip
def test_of_a_quarantined_record_somebody_gets_what_is_theirs(raw: str, part: str | None) -> None:
    found = Person(ANA, ["sole"]).part(raw.encode())
    if part is None and raw.startswith('{"to"'):
        assert found == raw.encode(), "nobody else is in it"
    else:
        assert (None if found is None else found.decode()) == part


@pytest.mark.skipif(not browser.CHROMIUM, reason="needs Chromium")
def test_the_page_fits_a_phone_and_a_browser_finds_nothing_to_say(slate: Slate, tmp_path: Path) -> None:
    lake, inbox = slate.wiped(), slate.inbox()
    name = "<img src=x onerror=alert(1)> =cmd \u202egnp " + "\u05d0x" * 2000
    deliver(inbox, "customer", [customer(customerName=name, serialNumber="<b>1", phone="=1+1")])
    deliver(inbox, "accelerometer", [motion("a@x.example", 100)])
    lake.land(inbox)
    lake.export("a@x.example", output=tmp_path / "out")
    page = tmp_path / "out" / "README.html"
    with browser.browser(tmp_path) as tab:
        for dark in (False, True):
            seen = tab.show(page, width=360, dark=dark)
            assert not seen.messages
            assert seen.requests == [page.as_uri()]
            assert tab.run("document.documentElement.scrollWidth") <= 360
        assert "<img src=x onerror=alert(1)> =cmd" in tab.run("document.body.innerText")
        ground, text = tab.run("['backgroundColor', 'color'].map(name => getComputedStyle(document.body)[name])")
        assert (ground, text) == ("rgb(20, 23, 26)", "rgb(232, 234, 237)"), "the style is let in by its hash"


@pytest.mark.parametrize("feed", CONTRACTS)
def test_the_page_explains_each_field_of_a_feed(feed: str) -> None:
    explained = {
        name
        for file, columns in readme._COLUMNS.items()
        if file.startswith(feed)
        for names, *_ in columns
        for name in names.split(", ")
    }
    assert {field.name for field in CONTRACTS[feed].fields} <= explained
