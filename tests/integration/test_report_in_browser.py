"""The pages as Chromium shows them: they ask for nothing, nothing complains, nothing is too wide, all is accessible."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from browser import AXE, CHROMIUM, Browser, browser
from deliveries import customer, deliver, motion, step
from lakes import KEY
from stedi import cli
from stedi.lake import Lake

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="needs Chromium: apt install chromium")
LONG = "\u202e=cmd|' /C calc'!A0 <script>alert(1)</script> <img src=x onerror=alert(1)> "
VIEWS = [(1000, False), (1000, True), (360, False), (360, True)]
"""Width in pixels, and whether it is dark."""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The report and the report of an audit, of a lake with names that nobody should have chosen."""
    root = tmp_path_factory.mktemp("pages")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        people = [f"p{n}@x.example" for n in range(8)]
        inbox = root / "inbox"
        deliver(inbox, "customer", [customer(p, serialNumber=f"s{n}") for n, p in enumerate(people)])
        moments = [(n, p, 1000 * n + 20 * at) for n, p in enumerate(people) for at in range(1, 15)]
        deliver(inbox, "accelerometer", [motion(p, at, x=at % 7) for _, p, at in moments])
        deliver(inbox, "step_trainer", [step(f"s{n}", at) for n, _, at in moments])
        deliver(inbox, "step_trainer", [{"serialNumber": 1}], LONG.replace("/", "") + "x" * 100)
        lake = Lake.create(root / "lake")
        lake.land(inbox)
        lake.build()
        lake.create_dataset("gait", recipient="<b>" + "y" * 400 + LONG[1:])
        lake.note_dataset("gait@1", model="z" * 400 + LONG[1:].strip())
        found = [root / "audit.html", root / "report.html"]
        command = ["--lake", str(lake.root)]
        assert cli.main([*command, "audit", "--risk", "--report", str(found[0])]) == 0
        assert cli.main([*command, "report", "--output", str(found[1])]) == 0
    return found


@pytest.mark.parametrize("place", [0, 1], ids=["audit", "report"])
@pytest.mark.parametrize(("width", "dark"), VIEWS)
def test_a_page_shows_itself_and_asks_for_nothing(
    tab: Browser, pages: list[Path], place: int, width: int, dark: bool
) -> None:
    seen = tab.show(pages[place], width=width, dark=dark)
    assert seen.messages == []
    assert seen.requests == [pages[place].as_uri()]
    opened = "document.querySelectorAll('details').forEach(each => each.open = true)"
    assert tab.run(f"{opened}; document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(13, 17, 23)" if dark else "rgb(255, 255, 255)"
    )


@pytest.mark.skipif(not AXE.is_file(), reason="needs build/tools/axe.min.js, which .ci/run fetches by npm")
@pytest.mark.parametrize("place", [0, 1], ids=["audit", "report"])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_error(tab: Browser, pages: list[Path], place: int, dark: bool) -> None:
    tab.show(pages[place], dark=dark)
    tab.run("document.querySelectorAll('details').forEach(each => each.open = true)")
    tab.run(AXE.read_text("utf-8") + "; 0")
    found = tab.run("axe.run(document).then(found => found.violations.map(each => [each.id, each.nodes[0].html]))")
    assert found == []
