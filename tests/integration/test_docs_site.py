"""The documentation's site: every page and link is there, and the reference has every command, column and class."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

import lakes
import stedi
from stedi.cli import commands
from stedi.schema.tables import ALL_COLUMNS

SCRIPT = lakes.REPOSITORY / "docs" / "site.py"
ZENSICAL = lakes.REPOSITORY / "build" / "docs" / "bin" / "zensical"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of the site."""
    spec = importlib.util.spec_from_file_location("docs_site", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("site") / "made"
    module.main(folder)
    return folder


def test_every_link_of_a_page_leads_to_a_page(site: Path) -> None:
    pages = sorted((site / "pages").rglob("*.md"))
    assert len(pages) > 35
    for page in pages:
        text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            assert re.match(r"https?:", target) or (page.parent / target).exists(), f"{page.name} links to {target}"


def test_every_page_is_in_the_navigation(site: Path) -> None:
    navigation = (site / "zensical.toml").read_text("utf-8")
    for page in (site / "pages").rglob("*.md"):
        assert f'"{page.relative_to(site / "pages")}"' in navigation, page.name


def test_the_reference_has_every_command_column_and_class(site: Path) -> None:
    reference = {path.stem: path.read_text("utf-8") for path in (site / "pages" / "reference").iterdir()}
    [actions] = [action for action in commands.parser()._actions if action.dest == "command"]
    for name, parser in dict(actions.choices or {}).items():
        section = reference["commands"].split(f"## stedi {name}\n")[1]
        assert all(option in section for action in parser._actions for option in action.option_strings[-1:]
                   if option not in ("--help", "--lake", "--json")), name  # fmt: skip
    for table, columns in ALL_COLUMNS.items():
        section = reference["tables"].split(f"## {table}\n")[1].split("\n## ")[0]
        assert all(f"| `{column.name}` |" in section for column in columns)
    assert re.findall(r"^## stedi\.(\w+)$", reference["python"], re.MULTILINE) == list(stedi.__all__)


def test_the_site_builds_without_a_warning(site: Path) -> None:
    if not ZENSICAL.exists():
        pytest.skip("zensical is not installed: make build/docs/.made")
    done = subprocess.run([ZENSICAL, "build", "--strict"], cwd=site, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "STEDI lake" in (site / "html" / "index.html").read_text("utf-8")
