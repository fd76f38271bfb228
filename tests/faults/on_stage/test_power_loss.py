"""The power fails at every moment of `land`, `build` and `maintain`: the lake is whole without what was not synced.

By day it fails at some moments, by `make nightly` at each that changes what is on disk for certain.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from calls import Call, Fault
from effort import NIGHTLY
from lakes import tree
from power import Disk, Keep, by_chance, names, nothing
from stage import SCENES, Scene, Stage


def replayed(stage: Stage, scene: Scene) -> Disk:
    """Plays a scene and returns the disk before it; the calls are the server's."""
    shutil.rmtree(stage.watched)
    shutil.copytree(scene.start, stage.watched)
    disk = Disk(stage.watched)
    assert stage.server.run(stage.lake, *scene.words, fault=Fault()).code == 0
    return disk


@pytest.mark.parametrize("name", SCENES)
def test_the_shim_sees_every_call_that_changes_the_disk(stage: Stage, name: str, tmp_path: Path) -> None:
    disk = replayed(stage, stage.scenes[name])
    for call in stage.server.calls():
        disk.do(call)
    disk.after_cut(tmp_path / "again", lambda node: True)
    again, real = (
        {path: digest for path, (digest, *_) in tree(folder).items()} for folder in (tmp_path / "again", stage.watched)
    )
    assert again == real


def cuts(disk: Disk, made: Sequence[Call]) -> Iterator[tuple[str, bool, Keep]]:
    """Does calls again, one by one, and yields where the power fails, whether all was done, and what it spares."""
    for place, call in enumerate(made, start=1):
        disk.do(call)
        at, done = f"{place} ({call.kind})", place == len(made)
        if done or (disk.changed and (NIGHTLY or place % 331 == 0)):
            disk.changed = False
            yield f"{at}, all lost that was not synced", done, nothing
        if place % (4 if NIGHTLY else 499) == 0:
            yield f"{at}, names kept", done, names
            yield f"{at}, kept by chance", done, by_chance(at)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.thorough
def test_a_power_cut_at_any_moment_leaves_whole_tables_and_the_next_run_completes(stage: Stage, name: str) -> None:
    scene = stage.scenes[name]
    failures, tried = [], 0
    disk = replayed(stage, scene)
    made = stage.server.calls()
    for at, done, keep in cuts(disk, made):
        tried += 1
        shutil.rmtree(stage.watched)
        disk.after_cut(stage.watched, keep)
        lost = ["it had said that it was done"] if done and stage.look() != scene.after else []
        failures += [f"after {at}: {wrong}" for wrong in (*lost, *stage.set_right(scene))]
    print(f"\n{name}: {len(made)} calls, {tried} power cuts, {len(failures)} failures")
    assert not failures, "\n".join(failures)
