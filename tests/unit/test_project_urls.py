"""A package has the project's addresses where it is built to be published, and none elsewhere."""

from __future__ import annotations

import pytest
import yaml
from hatchling.metadata.core import ProjectMetadata
from hatchling.plugin.manager import PluginManager

import stedi
from lakes import REPOSITORY


def addresses() -> dict[str, str]:
    """The addresses that a package built now would have."""
    return ProjectMetadata(str(REPOSITORY), PluginManager()).core.urls


def test_a_package_that_is_built_for_oneself_has_no_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STEDI_PROJECT_URL", raising=False)
    assert addresses() == {}
    monkeypatch.setenv("STEDI_PROJECT_URL", "")
    assert addresses() == {}


@pytest.mark.parametrize("slash", ["", "/"])
def test_a_package_that_is_published_has_those_of_its_repository_at_its_version(
    monkeypatch: pytest.MonkeyPatch, slash: str
) -> None:
    page = "https://forge.example/team/stedi"
    monkeypatch.setenv("STEDI_PROJECT_URL", page + slash)
    assert addresses() == {
        "Homepage": page,
        "Source": page,
        "Documentation": f"{page}/tree/v{stedi.__version__}/docs",
        "Changelog": f"{page}/blob/v{stedi.__version__}/CHANGELOG.md",
        "Issues": f"{page}/issues",
    }


def test_the_pages_that_the_addresses_name_are_in_the_repository() -> None:
    assert (REPOSITORY / "docs" / "index.md").is_file()
    assert (REPOSITORY / "CHANGELOG.md").is_file()


def test_the_release_workflow_takes_the_address_from_its_forge() -> None:
    text = (REPOSITORY / ".github" / "workflows" / "release.yml").read_text("utf-8")
    [job] = yaml.safe_load(text)["jobs"].values()
    assert job["env"] == {"STEDI_PROJECT_URL": "${{ github.server_url }}/${{ github.repository }}"}
    assert "://" not in text
