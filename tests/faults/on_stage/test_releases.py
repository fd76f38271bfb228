"""Every call by which `dataset create` changes the disk: the process is killed there, or the disk refuses.

Whatever happens, a release is whole, registered and holds, or is absent; the next command that writes removes what is
left, and the next release is made.
"""

from __future__ import annotations

import errno
import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from calls import Fault
from effort import NIGHTLY
from stage import Stage

CREATE = ("dataset", "create", "steps")
NAMES = ("write", "sync", "rename", "unlink", "mkdir")


def released(stage: Stage) -> list[str]:
    """What stands among the releases, hidden or not."""
    folder = stage.lake / "releases" / "steps"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def wrong(stage: Stage) -> Iterator[str]:
    """Yields what is wrong with the releases once the next command has written."""
    done = stage.server.run(stage.lake, "build")
    if done.code:
        yield f"build: exit {done.code}: {done.said}"
    there = released(stage)
    known = listed(stage)
    if there not in ([], ["1"]) or known != [f"steps@{version}" for version in there]:
        yield f"{there} stands there, {known} is known"
    for version in there:
        checked = stage.server.run(stage.lake, "dataset", "verify", stage.lake / "releases" / "steps" / version)
        if checked.code:
            yield f"verify: exit {checked.code}: {checked.said}"
    done = stage.server.run(stage.lake, *CREATE)
    if done.code or len(released(stage)) != len(there) + 1:
        yield f"create again: exit {done.code}: {done.said}: {released(stage)}"


def listed(stage: Stage) -> list[str]:
    """The releases that the lake knows."""
    answer = stage.server.run(stage.lake, "--json", "dataset", "list")
    return [release["release"] for release in json.loads(answer.out)["releases"]]


@pytest.mark.thorough
def test_a_release_that_is_cut_off_at_any_call_is_whole_and_registered_or_absent(stage: Stage) -> None:
    start = stage.folder / "build"
    shutil.rmtree(stage.watched)
    shutil.copytree(start, stage.watched)
    assert stage.server.run(stage.lake, *CREATE, fault=Fault()).code == 0
    made = tuple(stage.server.calls())
    chance = random.Random(len(made))
    kinds = {name: [n for n, call in enumerate(made, start=1) if call.name == name] for name in NAMES}
    places = range(1, len(made) + 1) if NIGHTLY else sorted(chance.choice(found) for found in kinds.values() if found)
    fates = (Fault("kill"), Fault("fail", 0, errno.ENOSPC), Fault("kill"), Fault("fail", 0, errno.EIO, lasting=True))
    failures: list[Any] = []
    for turn, place in enumerate(places):
        fate = fates[turn % len(fates)]
        fault = Fault(fate.fate, place, fate.error, fate.lasting)
        shutil.rmtree(stage.watched)
        shutil.copytree(start, stage.watched)
        answer = stage.server.run(stage.lake, *CREATE, fault=fault)
        if any(word in answer.said for word in ("@x.example", "Traceback", "unforeseen")):
            failures.append(f"{fault}: unclear: {answer.said}")
        failures += [f"{fault}, {made[place - 1].kind}: {what}" for what in wrong(stage)]
    print(f"{len(made)} calls, {dict(Counter(call.name for call in made))}; {len(places)} faults")
    assert not failures, "\n".join(failures)
