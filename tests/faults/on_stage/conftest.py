"""The stage on which the commands of this folder meet faults, made once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import calls
from stage import Stage


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    """The stage of every test here, in memory if there is a place for it."""
    why = calls.missing()
    if why:
        pytest.skip(why)
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="stedi-", dir=memory, ignore_cleanup_errors=True) as folder:
        made = Stage(Path(folder))
        yield made
        made.server.close()
