"""Starts child processes of Python without the caller's environment, folder and path.

A program that is started as `python -m` or `python -c` has the folder that it is started in first on its path, and
what lies in an inbox or a lake can be called `json.py`. So a child runs isolated (`-I`: no `PYTHON*` variables, no
folder of the user's, no current folder), in a folder that is named, and looks for modules in absolute folders alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

_COVERAGE = ("COVERAGE_PROCESS_START", "COVERAGE_PROCESS_CONFIG")
_PASSED = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", *_COVERAGE)
"""The variables of the caller's environment that a child gets: paths of libraries, and settings of coverage."""


def folders() -> list[str]:
    """Returns where a child looks for modules: the caller's path, without the current folder, and this package's own.

    Entries that are not absolute depend on a current folder: they are left out, too.
    """
    try:
        here = os.path.realpath(os.curdir)
    except OSError:  # it is gone
        here = ""
    own = str(Path(__file__).parents[2])
    found = [entry for entry in sys.path if os.path.isabs(entry) and os.path.realpath(entry) != here]
    return found if own in found else [*found, own]


def environment(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Returns the environment of a child, without keys, settings and home folder.

    Args:
        folder: Its home folder, also for temporary files.
    """
    kept = {name: os.environ[name] for name in _PASSED if name in os.environ}
    return kept | {"HOME": os.fspath(folder), "TMPDIR": os.fspath(folder), "LC_ALL": "C.UTF-8"}


def start(
    words: Sequence[str], folder: str | os.PathLike[str], *, errors: IO[bytes] | None = None, alone: bool = False
) -> subprocess.Popen[bytes]:
    """Starts Python, isolated, with pipes to its stdin and from its stdout.

    Args:
        words: The arguments after the interpreter's options: a file, or `-c` and statements; no secrets, since every
            user can read them.
        folder: The folder it is started in.
        errors: Where its stderr goes, by default to the caller's.
        alone: Whether it is out of reach of signals that a terminal sends to the caller.
    """
    env = environment(folder)
    # `site` is for coverage only: every entry of the path is named, and what a `.pth` file imports takes long
    options = ["-I", "-W", "ignore"] if env.keys() & set(_COVERAGE) else ["-I", "-S", "-W", "ignore"]
    return subprocess.Popen(
        [sys.executable, *options, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        cwd=folder,
        env=env,
        start_new_session=alone,
    )
