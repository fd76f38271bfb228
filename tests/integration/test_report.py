"""The report: page and JSON say how the lake is, the same for the same state, and nothing that they must not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lakes import KEY, customer, deliver, motion, step
from stedi import cli
from stedi.audit import record
from stedi.cli.render import plain
from stedi.errors import LakeError, UsageError
from stedi.lake import Lake
from stedi.report import content, page

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
        moments = [(n, p, 1000 * n + 20 * at) for n, p in enumerate(people) for at in range(12)]
        deliver(inbox, "accelerometer", [motion(p, at, x=at % 7) for n, p, at in moments if n != 29])
        deliver(inbox, "step_trainer", [step(f"s{n}", at) for n, _, at in moments if n not in (15, 16, 17, 18, 19)])
        deliver(inbox, "step_trainer", [{"serialNumber": 1}], f"{HOSTILE.replace('/', '')} jane@x.example.json")
        lake = Lake.create(root / "lake")
        lake.land(inbox)
        lake.build()
        lake.create_dataset("gait", recipient=HOSTILE)
        lake.note_dataset("gait@1", model="=cmd " + HOSTILE)
        yield lake


def html(lake: Lake) -> str:
    return page.html(lake.report())


def test_the_funnel_goes_from_known_to_released(lake: Lake) -> None:
    funnel = [(stage.name, stage.people, stage.left_out) for stage in lake.report().funnel]
    assert funnel == [
        ("known", 30, None),
        ("agree to research", 21, 9),
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


def test_text_of_others_stays_text_short_and_without_addresses(lake: Lake) -> None:
    found = html(lake)
    assert "<script" not in found
    assert "&lt;script&gt;" in found
    assert "x.example" not in found
    assert not re.search("[\u202a-\u202e\u2066-\u2069]", content.text(LONG))
    assert content.text(LONG).endswith(f"({len(LONG):,} characters)")
    assert len(content.text(LONG)) < 160


def test_no_pseudonym_serial_number_or_address_is_on_the_page(lake: Lake) -> None:
    shown = html(lake) + json.dumps(plain(lake.report()))
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


def test_the_page_asks_for_nothing_and_runs_nothing(lake: Lake) -> None:
    parser = _Elements()
    parser.feed(html(lake))
    tags = {tag for tag, _ in parser.found}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "video", "audio", "use"}
    for _, attributes in parser.found:
        assert not [name for name in attributes if name.startswith("on") or name in ("style", "src")]
        assert str(attributes.get("href", "#")).startswith("#")
    [policy] = [a["content"] for tag, a in parser.found if a.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'; style-src 'sha256-")


def test_every_picture_has_a_title_a_description_and_an_id_of_its_own(lake: Lake) -> None:
    parser = _Elements()
    found = html(lake)
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
            record.last(lake.root, lake.key(), lake.config.lake_id)
    finally:
        path.write_bytes(before)


def test_a_report_changes_nothing(lake: Lake) -> None:
    from lakes import tree

    before = tree(lake.root)
    lake.report()
    assert tree(lake.root) == before


def test_what_is_no_report_is_not_compared_with(lake: Lake, tmp_path: Path) -> None:
    for number, raw in enumerate((b"", b"{}", b"[]", b"<html>", b'{"format": 1}', b"\xff")):
        file = tmp_path / f"{number}.html"
        file.write_bytes(raw)
        with pytest.raises(UsageError):
            lake.report(since=file)
