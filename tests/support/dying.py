"""Tasks that fail or die, for Spark executors, which import only this file of the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from stedi.errors import UnreadableFile
from stedi.landing import distribute

SOMEBODY = "somebody@x.example"


def dies_once(task: tuple[Path, Any]) -> Any:
    """Writes its part, then kills its process before it can report success; the second attempt succeeds."""
    mark, share = task
    done = distribute.write(share)
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return done
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it was killed")


def fails(task: str) -> str:
    """Fails with an expected error, or with an unexpected one that contains personal data."""
    raise {"foreseen": UnreadableFile("a.json: cannot be read")}.get(task, ValueError(f"{SOMEBODY} is no number"))
