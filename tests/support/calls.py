"""Runs the command line with every call that changes the disk counted, and injects a fault into one or all later ones.

`Server` keeps one warm process (`warm.py`) under the preloaded shim (`shim.c`), which forks a child for each command.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
_ENTRY = struct.Struct("16sQqIIIIII")
_RANDOM = re.compile(r"\d{13}-[0-9a-f]{8}|[0-9a-f]{8}-[0-9a-f-]{27}|\d{15,}|[0-9a-f]{16}")


def missing() -> str:
    """Returns why faults cannot be injected here; empty if they can."""
    if sys.platform != "linux":
        return "preloading between a program and its C library is tested on Linux only"
    if shutil.which("cc") is None:
        return "no C compiler: expected cc (Debian, Ubuntu: apt install gcc libc6-dev)"
    return ""


@dataclass(frozen=True, slots=True)
class Call:
    """One call that changes the disk.

    Attributes:
        name: `open`, `write`, `truncate`, `allocate`, `sync`, `rename`, `unlink`, `mkdir`, `rmdir` or `chmod`.
        path: The file or folder that it changes.
        other: The new name of a rename.
        inode: The file or folder.
        offset: Where a write begins; or the new length of a truncated or allocated file.
        made: Whether the file or folder is new.
        emptied: Whether an open cut the file to nothing.
        data: What was written.
        failed: Whether it failed and changed nothing.
    """

    name: str
    path: Path
    other: Path
    inode: int
    offset: int
    made: bool
    emptied: bool
    data: bytes = field(repr=False)
    failed: bool

    @property
    def kind(self) -> str:
        """The call and its path without the parts that differ between runs, to group similar calls."""
        return f"{self.name} {_RANDOM.sub('*', str(self.path))}"


def logged(log: Path) -> Iterator[Call]:
    """Yields the calls that a shim has logged, in the order in which they took effect."""
    content, at = log.read_bytes(), 0
    while at < len(content):
        name, inode, offset, made, emptied, path, other, size, failed = _ENTRY.unpack_from(content, at)
        texts = []
        at += _ENTRY.size
        for length in (path, other, size):
            texts.append(content[at : at + length])
            at += length
        yield Call(
            name.rstrip(b"\0").decode(), Path(os.fsdecode(texts[0])), Path(os.fsdecode(texts[1])),
            inode, offset, bool(made), bool(emptied), texts[2], bool(failed),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """The fault to inject into one call.

    Attributes:
        fate: `count` (no fault), `kill` before it or `killed` after it, `tear` (a write is cut in half, then killed),
            `fail`, or `lose` (it takes effect but reports failure).
        place: Which call, from 1.
        error: The errno of a failure.
        lasting: Whether every later call fails too.
    """

    fate: str = "count"
    place: int = 0
    error: int = 0
    lasting: bool = False

    def __str__(self) -> str:
        told = f"{errno.errorcode[self.error]} {'from here on' if self.lasting else 'once'}" if self.error else ""
        return f"{self.fate} {told}".strip()


_FATES = ("count", "kill", "killed", "tear", "fail", "lose")


@dataclass(frozen=True, slots=True)
class Answer:
    """How a command ended.

    Attributes:
        code: Exit code; negative for a signal.
        out: Its stdout.
        said: Its stderr.
        seconds: How long it took.
    """

    code: int
    out: str
    said: str
    seconds: float


class Server:
    """One warm process that runs commands, each in its own child process.

    Args:
        folder: A folder for the shim and for the children's output.
        watched: The folder below which calls are counted.
    """

    def __init__(self, folder: Path, watched: Path) -> None:
        shim = folder / "shim.so"
        build = ["cc", "-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", str(shim), str(HERE / "shim.c")]
        subprocess.run([*build, "-lpthread"], check=True)
        self.log = folder / "calls.log"
        self._folder, self._watched = folder, watched
        # one thread, so that each run makes the same calls in the same order
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("COVERAGE_", "STEDI_"))}
        environment |= {"LD_PRELOAD": str(shim), "STEDI_ENGINE_THREADS": "1"}
        environment |= {"STEDI_KEY_FILE": str(watched / "keys" / "lake.key")}
        self._process = subprocess.Popen(
            [sys.executable, str(HERE / "warm.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def close(self) -> None:
        """Ends the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(60) == 0
        assert self._process.stdout is not None
        self._process.stdout.close()

    def run(self, lake: Path, *words: str | Path, fault: Fault | None = None) -> Answer:
        """Runs one command on a lake, with a fault or without the shim."""
        struck = None if fault is None else {
            "action": _FATES.index(fault.fate), "place": fault.place, "errno": fault.error, "lasting": fault.lasting,
        }  # fmt: skip
        return self._ask(
            verb="run", words=["--lake", str(lake), *map(str, words)], fault=struck,
            folder=str(self._watched), log=str(self.log),
        )  # fmt: skip

    def look(self, lake: Path) -> dict[str, Any]:
        """Returns what a reader of a lake sees: `tables`, each with rows and digest, `strays`, and any `error`."""
        answer = self._ask(verb="look", lake=str(lake))
        if answer.code:
            return {"tables": {}, "strays": [], "unused": [], "error": answer.said or str(answer.code)}
        found: dict[str, Any] = json.loads(answer.out)
        return found

    def calls(self) -> list[Call]:
        """Returns the calls of the last command that ran under a fault."""
        return list(logged(self.log))

    def _ask(self, **request: Any) -> Answer:
        out, said = self._folder / "stdout", self._folder / "stderr"
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({**request, "stdout": str(out), "stderr": str(said)}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the warm process has ended with {self._process.wait(60)}: somebody has killed it?"
        answer = json.loads(line)
        return Answer(answer["code"], out.read_text(), said.read_text(), answer["seconds"])
