"""The report: page and JSON say how the lake is, the same for the same state, and nothing that they must not."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from deliveries import customer, deliver, motion, step
from lakes import KEY, LANDING
from stedi import cli
from stedi.audit import record
from stedi.cli.render import plain
from stedi.errors import LakeError, UsageError
from stedi.lake import Lake
from stedi.privacy import signatures
from stedi.report import content, evidence, gathering, page

READINGS = ("accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated")
HOSTILE = '<script>alert("1")</script>'
LONG = "=cmd|' /C calc'!A0 \u202e\u2066 " + "x" * 4000


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lake]:
    """A lake of thirty people, all but nine of whom agree, of file names and texts that nobody should have chosen."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        root = tmp_path_factory.mktemp("report")
        inbox = root / "inbox"
        people = [f"p{n}@x.example" for n in range(30)]
        deliver(
            inbox,
            "customer",
            [customer(p, serialNumber=f"s{n}", consent=50 if n > 8 else ...) for n, p in enumerate(people)],
        )
        moments = [(n, p, 1000 * n + 20 * at) for n, p in enumerate(people) for at in range(1, 13)]
        deliver(inbox, "accelerometer", [motion(p, at, x=at % 7) for n, p, at in moments if n != 29])
        deliver(inbox, "step_trainer", [step(f"s{n}", at) for n, _, at in moments if n not in (15, 16, 17, 18, 19)])
        deliver(inbox, "step_trainer", [{"serialNumber": 1}], f"{HOSTILE.replace('/', '')} jane@x.example.json")
        lake = Lake.create(root / "lake")
        lake.land(inbox)
        lake.build()
        lake.create_dataset("gait", recipient=HOSTILE)
        lake.note_dataset("gait@1", model="=cmd " + HOSTILE)
        yield lake


@pytest.fixture(scope="module")
def html(lake: Lake) -> str:
    return page.html(lake.report())


def test_the_funnel_goes_from_known_to_released(lake: Lake) -> None:
    funnel = [(stage.name, stage.people, stage.left_out) for stage in lake.report().funnel]
    assert funnel == [
        ("known", 30, None),
        ("consent to research", 21, 9),
        ("with readings", "not shown", "not shown"),
        ("in training data", 15, "not shown"),
        ("in releases", 15, 0),
    ]


def test_the_same_state_gives_the_same_bytes(lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "page.html"
    command = ["--lake", str(lake.root), "report", "--output", str(target)]
    assert cli.main(command) == 0
    first = target.read_bytes()
    assert cli.main(command) == 0
    second = target.read_bytes()
    target.unlink()
    assert cli.main(command) == 0
    assert first == target.read_bytes()
    assert cli.main(command) == 0
    assert second == target.read_bytes()


def test_text_of_others_stays_text_short_and_without_addresses(html: str) -> None:
    found = html
    assert "<script" not in found
    assert "&lt;script&gt;" in found
    assert "x.example" not in found
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", gathering.text(LONG))
    assert gathering.text(LONG).endswith(f"({len(LONG):,} characters)")
    assert len(gathering.text(LONG)) < 160


def test_no_pseudonym_serial_number_or_address_is_on_the_page(lake: Lake, html: str) -> None:
    shown = html + json.dumps(plain(lake.report()))
    [ids, emails] = zip(
        *lake.query("select distinct customer_id, email from customers_trusted", role="officer").fetchall(), strict=True
    )
    assert not [value for value in (*ids, *emails) if value in shown]
    assert "s12" not in re.findall(r"\bs\d+\b", re.sub(r'class="[^"]*"', "", shown))


class _Elements(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_the_page_asks_for_nothing_and_runs_nothing(html: str) -> None:
    parser = _Elements()
    parser.feed(html)
    tags = {tag for tag, _ in parser.found}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "video", "audio", "use"}
    for _, attributes in parser.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")]
        assert str(attributes.get("href", "#")).startswith("#")
    [policy] = [a["content"] for tag, a in parser.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_every_picture_has_a_title_a_description_and_an_id_of_its_own(html: str) -> None:
    parser = _Elements()
    found = html
    parser.feed(found)
    ids = [a["id"] for _, a in parser.found if "id" in a]
    assert len(ids) == len(set(ids))
    pictures = [a for tag, a in parser.found if tag == "svg"]
    assert len(pictures) >= 6
    for picture in pictures:
        assert picture["role"] == "img"
        assert str(picture["aria-labelledby"]).split() == [f"{picture['id']}-t", f"{picture['id']}-d"]
        assert f'<title id="{picture["id"]}-t">' in found
        assert f'<desc id="{picture["id"]}-d">' in found


def test_the_verdict_is_that_of_the_last_audit(lake: Lake) -> None:
    lake.full_audit()
    found = lake.report().verdict
    assert (found.state, found.violations, found.held) == ("holds", 0, found.checks)
    lake.note_dataset("gait@1", model="another")
    found = lake.report().verdict
    assert (found.state, found.moved) == ("outdated", ("release_events",))


def test_a_forged_record_of_an_audit_counts_for_nothing(lake: Lake) -> None:
    lake.full_audit()
    path = lake.root / record.NAME
    before = path.read_bytes()
    path.write_bytes(before.replace(b'"violations": 0', b'"violations": 1', 1))
    try:
        assert lake.report().verdict.state == "refused"
        with pytest.raises(LakeError):
            record.last(lake.context)
    finally:
        path.write_bytes(before)


def test_a_report_changes_nothing_but_the_log_of_accesses(lake: Lake) -> None:
    from lakes import tree

    before, lines = tree(lake.root), len(lake.log())
    lake.report()
    assert tree(lake.root) == before
    assert [line.verb for line in lake.log()[lines:]] == ["report"]


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a JSON document, by where it stands."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for place, item in enumerate(value):
            yield from leaves(item, f"{path}[{place}]")
    else:
        yield path, value


def test_every_number_is_one_that_a_command_prints(lake: Lake, capsys: pytest.CaptureFixture[str]) -> None:
    def printed(*words: str) -> Any:
        capsys.readouterr()
        cli.main(["--lake", str(lake.root), "--json", *words])
        return json.loads(capsys.readouterr().out)

    def rows(sql: str) -> list[tuple[Any, ...]]:
        return lake.query(sql, role="officer").fetchall()

    audit = printed("audit", "--risk")
    tables = {table["name"]: table for table in printed("tables")["tables"]}
    [release] = printed("dataset", "list")["releases"]
    quarantined = printed("quarantine", "--records")
    report = printed("report")
    months = printed("consent")["periods"]
    parts = report["measurements"]
    expected: dict[str, Any] = {
        "records": tables["customers_landing"]["rows"],
        "superseded": tables["customers_landing"]["rows"] - months[-1]["known"],
        "withheld": rows("select 0")[0][0],
        "verdict.checks": len(audit["checks"]),
        "verdict.held": sum(not check["violations"] for check in audit["checks"]),
        "verdict.violations": sum(check["violations"] for check in audit["checks"]),
        "funnel[0].people": months[-1]["known"],
        "funnel[1].people": tables["customers_trusted"]["rows"],
        "funnel[1].left_out": months[-1]["known"] - tables["customers_trusted"]["rows"],
        "funnel[3].people": audit["risk"]["customers"],
        "funnel[4].people": release["subjects"],
        "funnel[4].left_out": audit["risk"]["customers"] - release["subjects"],
        "quarantine.total": quarantined["total"],
        "releases[0].subjects": release["subjects"],
        "releases[0].rows": release["rows"],
        "releases[0].stale": len(release["stale"]),
        "releases[0].recalls_total": 0,
        "releases[0].models_total": len(release["models"]),
        "risk.people": audit["risk"]["customers"],
        "measurements.readings": tables["accelerometer_trusted"]["rows"],
        "measurements.share": 1.0,
    }
    files = Counter((r["reason"], r["feed"], r["file"]) for r in quarantined["records"])
    expected["quarantine.by_file_total"] = len(files)
    for place, count in enumerate(sorted(files.values(), reverse=True)):
        expected[f"quarantine.by_file[{place}].records"] = count
    wrong = printed("quarantine", "--fields")
    assert report["quarantine"]["fields"] == wrong["fields"]
    expected |= {f"quarantine.fields[{n}].records": each["records"] for n, each in enumerate(wrong["fields"])}
    expected["quarantine.fields_total"] = len(wrong["fields"])
    expected["quarantine.looked_at"] = wrong["looked_at"]
    for reason, count in Counter(r["reason"] for r in quarantined["records"]).items():
        expected[f"quarantine.by_reason.{reason}"] = count
    for place, period in enumerate(report["consent"]):
        within = [month for month in months if period["start"] <= month["start"] <= period["last"]]
        for level in ("known", "consenting"):
            expected[f"consent[{place}].{level}"] = within[-1][level]
        for flow in ("joined", "rejoined", "withdrew", "erased"):
            expected[f"consent[{place}].{flow}"] = sum(month[flow] for month in within)
    for place, table in enumerate(report["tables"]):
        name, (_, shown) = table["name"], (0, printed("history", table["name"])["snapshots"])
        expected[f"tables[{place}].snapshots_total"] = len(shown)
        if isinstance(table["rows"], int):
            expected[f"tables[{place}].rows"] = tables[name]["rows"]
            expected[f"tables[{place}].bytes"] = tables[name]["bytes"]
        if name in (*LANDING[1:], "quarantine", "landed_files", "releases", *READINGS):
            for line, snapshot in enumerate(shown[:8]):
                total = int(snapshot["summary"]["total-records"])
                expected[f"tables[{place}].snapshots[{line}].rows"] = total
        for kind, count in table["classes"].items():
            expected[f"tables[{place}].classes.{kind}"] = sum(c["privacy"] == kind for c in table["columns"])
            assert count
    accounts = [a for a in audit["accounts"] if a["table"] not in ("customers_trusted", "customers_curated")]
    for place, account in enumerate(accounts):
        for line, found in enumerate(account["lines"]):
            expected[f"accounts[{place}].lines[{line}][1]"] = found["rows"]
    for place, line in enumerate(report["risk"]["lines"]):
        of = audit["risk"]["exposures"][place]
        for name, figure in (("by_one", of["singled_out_by_one_row"]), ("by_all", of["singled_out_by_all_rows"])):
            if isinstance(line[name], int):
                expected[f"risk.lines[{place}].{name}"] = figure
    [(day, count)] = rows("select landed_at::date, count(*) from landed_files group by 1")
    assert report["days"][0]["day"] == str(day)
    expected["days[0].files"] = count
    feeds = dict(rows("select feed, sum(accepted)::bigint from landed_files group by feed"))
    expected |= {f"days[0].accepted.{feed}": feeds[feed] for feed in ("accelerometer", "step_trainer")}
    expected |= {"days[0].quarantined": quarantined["total"], "days[0].erased": 0, "days_total": 1}
    for place, (_, motions, steps) in enumerate(rows(parts["days_sql"])):
        expected[f"measurements.days[{place}].accelerometer"] = motions
        expected[f"measurements.days[{place}].step_trainer"] = steps
    expected["measurements.days_total"] = len(rows(parts["days_sql"]))
    for place, histogram in enumerate(parts["histograms"]):
        bins = dict(rows(histogram["sql"]))
        for bar in range(len(histogram["bars"])):
            expected[f"measurements.histograms[{place}].bars[{bar}].count"] = bins.get(bar, 0)
    expected |= {"releases_total": 1, "receipts_total": 0, "consent_total": len(report["consent"])}
    settings = {"format", "min_count"}
    found = {
        path: value
        for path, value in leaves(report)
        if isinstance(value, int | float) and not isinstance(value, bool) and path not in settings
        if not path.startswith(("figures.", "measurements.signals", "columns"))
    }
    assert found == expected
    assert all(
        value in found.values() or value in (0, 1) for _, value in leaves(report["figures"]) if value != "not shown"
    )
    lengths = {
        row[0]
        for row in rows(
            'select round(avg(sqrt(x*x + y*y + z*z)), 3) from accelerometer_trusted group by customer_id, "timestamp"'
        )
    }
    distances = {row[0] for row in rows("select distinct distanceFromObject from step_trainer_trusted")}
    assert len(parts["signals"]) == 3
    for signal in parts["signals"]:
        assert {value for _, value in signal["motion"]} <= lengths
        assert {value for _, value in signal["step_trainer"]} <= distances


def test_no_two_counts_of_people_differ_by_a_few(lake: Lake) -> None:
    found = lake.report()
    figures = [stage.people for stage in found.funnel] + [
        found.measurements.people,
        *(r.subjects for r in found.releases),
    ]
    figures += [r.stale for r in found.releases] + [table.rows for table in found.tables if "customers_" in table.name][
        1:
    ]
    figures += [period.consenting for period in found.consent] + [period.known for period in found.consent]
    counts = {figure for figure in figures if isinstance(figure, int)}
    assert len(counts) > 3
    assert not [(one, other) for one in counts for other in counts if 0 < one - other < 5]
    assert not [count for count in counts if 0 < count < 5]


def test_the_longest_page_is_at_most_400_kb(lake: Lake) -> None:
    found = lake.report()
    bad = gathering.text("<&\"'" * 1000)
    moment, day = found.as_of, date(2026, 1, 1)
    assert moment is not None
    release = replace(found.releases[0], recipient=bad, models=(bad,) * 5, models_total=900, recalls=(moment,) * 5)
    receipt = content.ReceiptEntry(
        "1795920556943-86058872", "2026-11-29T02:49:17Z", "1795920556943-86058871", True, ("logs of accesses",) * 5
    )
    days = [day + timedelta(31 * n) for n in range(60)]
    longest = replace(
        found,
        releases=(release,) * gathering._MOST_RELEASES,
        receipts=(receipt,) * gathering._MOST_RECEIPTS,
        days=tuple(replace(found.days[0], day=each) for each in days),
        consent=tuple(replace(found.consent[0], last=each) for each in days),
        quarantine=replace(found.quarantine, by_file=(replace(found.quarantine.by_file[0], file=bad),) * 20),
        measurements=replace(
            found.measurements,
            days=tuple(replace(found.measurements.days[0], day=each) for each in days),
            signals=(replace(found.measurements.signals[0], motion=((123.456, 9.876),) * 240),) * 3,
        ),
        tables=tuple(replace(table, snapshots=(table.snapshots[0],) * 8) for table in found.tables),
    )
    assert len(page.html(longest).encode()) <= 400_000


class _Text(HTMLParser):
    """What a page says, without its style and its SQL."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []
        self._without = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._without = self._without or (tag if tag in ("style", "pre") else "")

    def handle_endtag(self, tag: str) -> None:
        self._without = "" if tag == self._without else self._without

    def handle_data(self, data: str) -> None:
        if not self._without:
            self.said.append(data)


def test_the_page_has_no_number_that_its_json_has_not(lake: Lake) -> None:
    lake.full_audit(risk=True)
    report = lake.report()
    parser = _Text()
    parser.feed(page.html(report))
    number = re.compile(r"\d(?:[\d,.]*\d)?")
    known = set(number.findall(report.state[:16]))  # the page cuts off what follows
    for path, value in leaves(json.loads(json.dumps(plain(report)))):
        known |= set(number.findall(f"{value:,} {value}" if isinstance(value, int) else str(value)))
        known |= set(number.findall(path))
        if path.endswith("bytes") and value is not None:
            known |= set(number.findall(f"{value / 1000:.1f} {value / 1e6:.1f} {value}"))
    pictures = {f"{len(report.tables):,}", *(f"{len(s.motion):,}" for s in report.measurements.signals)}
    pictures |= {f"{len(s.step_trainer):,}" for s in report.measurements.signals}
    pictures |= {f"{sum(b.count for b in h.bars):,}" for h in report.measurements.histograms}
    pictures |= {f"{sum(each.accepted.values()):,}" for each in report.days}
    pictures |= {f"{max(at for at, _ in (*s.motion, *s.step_trainer)):.1f}" for s in report.measurements.signals}
    pictures |= {str(len(found)) for found in (report.measurements.signals, report.days, report.measurements.days)}
    pictures |= {str(len(report.consent)), "256"}
    said = " ".join(parser.said)
    dates = re.compile(r"\d{4}-\d{2}(?:-\d{2}(?:[ T]\d{2}:\d{2}(?::\d{2})?Z)?)?")
    assert not set(number.findall(dates.sub("", said))) - known - pictures


def test_the_receipt_of_an_erasure_is_listed_and_a_lone_person_is_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STEDI_PSEUDONYM_KEY", KEY)
    lake = Lake.create(tmp_path / "lake")
    assert lake.report().funnel[0].people == 0
    deliver(tmp_path, "customer", [customer(f"{n}@x.example") for n in range(3)])
    lake.land(tmp_path / "customer")
    lake.build()
    [receipt] = lake.erase("1@x.example")
    found = lake.report()
    assert [stage.people for stage in found.funnel] == ["fewer than 5", "fewer than 5", 0, 0, 0]
    assert found.consent == ()
    assert [each.id for each in found.receipts] == [receipt.id]
    assert receipt.id in page.html(found)


def test_an_earlier_report_tells_what_changed_and_hides_how_few(lake: Lake, tmp_path: Path) -> None:
    before = lake.report()
    plainly = json.loads(json.dumps(plain(before)))
    plainly["state"] = "0" * 64
    plainly["figures"] |= {"people: known": 28, "people: consent to research": 11, "rows: quarantine": 0}
    file = tmp_path / "earlier.json"
    file.write_text(json.dumps(plainly))
    changes = lake.report(since=file).changes
    assert changes is not None
    told = {line.what: line.change for line in changes.lines}
    assert told["people: known"] == "fewer than 5"
    assert told["people: consent to research"] == 10
    assert told["rows: quarantine"] == 1
    assert told["rows: landed_files"] == 0
    assert told["releases"] == 0
    plainly["lake"] = "another"
    file.write_text(json.dumps(plainly))
    with pytest.raises(LakeError):
        lake.report(since=file)


def test_the_report_of_an_audit_has_each_check_once_and_is_signed(
    lake: Lake, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed: dict[str, Any] = {}
    for name in ("audit.json", "audit.html"):
        command = ["--lake", str(lake.root), "--json", "audit", "--risk", "--report", str(tmp_path / name)]
        assert cli.main(command) == 0
        printed = json.loads(capsys.readouterr().out)
        raw = (tmp_path / name).read_bytes()
        statement = signatures.check((tmp_path / f"{name}.sig").read_bytes(), signatures.public_key(lake.key()))
        assert statement.subjects == {name: hashlib.sha256(raw).hexdigest()}
        assert statement.predicate_type == signatures.AUDIT
        assert statement.predicate["lake"] == lake.config.lake_id
        assert re.fullmatch(r"[-0-9]+T[:0-9]+\.\d{3}Z", statement.predicate["at"])
    found = json.loads((tmp_path / "audit.json").read_bytes())
    assert found["accounts"] == [
        {"table": a["table"], "lines": [[line["what"], line["rows"]] for line in a["lines"]]}
        for a in printed["accounts"]
    ]
    assert found["checks"] == len(printed["checks"])
    named = Counter(check["name"] for check in printed["checks"])
    told = {check["name"]: check["tables"] for promise in found["promises"] for check in promise["checks"]}
    assert told == named
    assert [promise["title"] for promise in found["promises"]] == [title for title, _, _ in evidence.PROMISES]
    assert sum(len(promise["checks"]) for promise in found["promises"]) == len(named)
    assert "backups" in found["not_reached"]
    assert found["public_key"] in (tmp_path / "audit.html").read_text()


def test_the_report_of_an_audit_says_which_promise_is_broken(lake: Lake) -> None:
    done = lake.full_audit().record
    checks = tuple(replace(c, violations=3) if c.name == "one person" else c for c in done.checks)
    found = evidence.of(replace(done, checks=checks), lake.key(), remote=True)
    assert not found.holds
    assert [p.title for p in found.promises if not p.holds] == ["No row mixes two people"]
    assert "broken" in page.audit_html(found)
    assert any("log" in each for each in found.not_reached)


def test_what_is_no_report_is_not_compared_with(lake: Lake, tmp_path: Path) -> None:
    for number, raw in enumerate((b"", b"{}", b"[]", b"<html>", b'{"format": 1}', b"\xff")):
        file = tmp_path / f"{number}.html"
        file.write_bytes(raw)
        with pytest.raises(UsageError):
            lake.report(since=file)
