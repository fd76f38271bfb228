"""Tasks that fail or die, for executors of Spark: they import this file and nothing of the tests besides."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from stedi.errors import UnreadableFile
from stedi.landing import distribute

SOMEBODY = "somebody@x.example"


def dies_once(task: tuple[Path, Any]) -> Any:
    """Writes a share, and dies with its process before it can say so; the second attempt lives."""
    mark, share = task
    done = distribute.write(share)
    try:
        mark.touch(exist_ok=False)
    except FileExistsError:
        return done
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("it was killed")


def fails(task: str) -> str:
    """Fails in a way that is foreseen, or in one that is not and names somebody."""
    raise {"foreseen": UnreadableFile("a.json: cannot be read")}.get(task, ValueError(f"{SOMEBODY} is no number"))
