"""What tests share: lakes of their own, sample deliveries, and the public data where it is at hand.

No test touches the home of whoever runs it: home, configuration folder and pseudonym key are the session's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lakes import KEY, REPOSITORY
from stedi import sample
from stedi.lake import Lake

PUBLIC_DATA = REPOSITORY.parent / "shared" / "data" / "stedi-2023"


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        for variable in [name for name in os.environ if name.startswith("STEDI_")]:
            patch.delenv(variable)
        patch.setenv("HOME", str(home))
        patch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
        patch.setenv("STEDI_PSEUDONYM_KEY", KEY)
        yield


@pytest.fixture(scope="session")
def repository() -> Path:
    """The project's folder."""
    return REPOSITORY


@pytest.fixture(scope="session")
def public_data() -> Path:
    """The public data set of 2023; it is not the project's to contain."""
    if not PUBLIC_DATA.is_dir():
        pytest.skip(f"the public data set is not at {PUBLIC_DATA}: it is licensed for non-commercial use only")
    return PUBLIC_DATA


@pytest.fixture(scope="session")
def sample_inbox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dirty sample, `answer.json` beside it; for reading only."""
    folder = tmp_path_factory.mktemp("sample")
    sample.write(folder, customers=20, readings=600, seed=11)
    return folder


@pytest.fixture
def new_lake(tmp_path: Path) -> Callable[..., Lake]:
    """Makes lakes: `new_lake()`, `new_lake("other", readings="since-consent")`."""

    def make(name: str = "lake", **options: str) -> Lake:
        return Lake.create(tmp_path / name, **options)  # type: ignore[arg-type] # tests pass wrong ones, too

    return make


@pytest.fixture
def lake(new_lake: Callable[..., Lake]) -> Lake:
    """A new, empty lake."""
    return new_lake()
