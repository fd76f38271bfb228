"""Every call by which `land`, `build` and `maintain` change the disk: the process is killed there, or the disk refuses.

Whatever happens, a reader sees each table as it was or as it will be, and what is run again ends in the rows of an
undisturbed run. By day a sample of the calls is struck, by `make nightly` every call: killed before it (which is after
the one before it, since nothing else changes the disk), torn, failing once and from there on, errors taking turns.
"""

from __future__ import annotations

import errno
import random
from collections import Counter
from collections.abc import Iterator

import pytest

from calls import Fault
from effort import NIGHTLY
from stage import SCENES, Scene, Stage

ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS)
ONCE = tuple(Fault(fate, 0, error) for error in ERRORS for fate in ("fail", "lose"))
LASTING = tuple(Fault("fail", 0, error, lasting=True) for error in ERRORS)
NAMES = ("open", "write", "sync", "rename", "unlink", "mkdir", "rmdir")
FATES = (Fault("kill"), Fault("killed"), Fault("tear"), *ONCE, *LASTING)


def faults(scene: Scene) -> Iterator[Fault]:
    """Yields faults of every call; by day one for each second kind of call, in turns, and the first and last commit."""
    made = scene.calls
    if NIGHTLY:
        turns = [(place, (ONCE[place % len(ONCE)], LASTING[place % len(LASTING)])) for place in range(1, len(made) + 1)]
        chosen = [(place, fate) for place, turn in turns for fate in (Fault("kill"), Fault("tear"), *turn)]
        chosen.append((len(made), Fault("killed")))
    else:
        chance = random.Random(len(made))
        kinds = {name: [n for n, call in enumerate(made, start=1) if call.name == name] for name in NAMES}
        these = list(kinds.values())[SCENES.index(scene.name) % 2 :: 2]
        places = {chance.choice(found) for found in these if found}
        if scene.name != "init":
            places |= {scene.commits[0], scene.commits[-1]}
        chosen = [(place, FATES[(turn + len(made)) % len(FATES)]) for turn, place in enumerate(sorted(places))]
    for place, fate in chosen:
        if fate.fate != "tear" or made[place - 1].name == "write":
            yield Fault(fate.fate, place, fate.error, fate.lasting)


def struck(stage: Stage, scene: Scene, fault: Fault, unharmed: Counter[str]) -> Iterator[str]:
    """Strikes a scene; yields what is wrong with how it ended, with what readers see, and with what a rerun makes."""
    answer = stage.strike(scene, fault)
    said = [line for line in answer.said.splitlines() if line.startswith("stedi: ")]
    if fault.error == 0:
        if answer.code != -9:
            yield f"exit {answer.code}: {answer.said}"
    elif answer.code == 0:
        # what failed was not needed for the work: it must have been done
        unharmed[f"{fault} at {scene.calls[fault.place - 1].kind}"] += 1
        if stage.look() != scene.after:
            yield f"said that it had worked, and had not: {answer.said}"
    elif answer.code != 1 or len(said) != 1:
        yield f"expected exit 1 and one line, found {answer.code} and {answer.said}"
    if any(word in answer.said for word in ("@", "Traceback", "unforeseen")):
        yield f"unclear: {answer.said}"
    yield from stage.set_right(scene)


@pytest.mark.parametrize("name", SCENES)
def test_a_fault_at_any_call_leaves_whole_tables_and_the_next_run_completes(stage: Stage, name: str) -> None:
    scene = stage.scenes[name]
    failures, unharmed, tried = [], Counter[str](), 0
    for fault in faults(scene):
        at = f"{fault} at {fault.place}, {scene.calls[fault.place - 1].kind}"
        failures += [f"{at}: {wrong}" for wrong in struck(stage, scene, fault, unharmed)]
        tried += 1
    print(f"{name}: {len(scene.calls)} calls: {dict(Counter(call.name for call in scene.calls))}")
    print(f"{name}: {tried} faults, {len(failures)} failures; done all the same: {dict(unharmed)}")
    assert not failures, "\n".join(failures)
