"""Seven commands in the life of a lake, each with the lake before it, so that each of their calls can fail."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from calls import Answer, Call, Fault, Server
from deliveries import customer, deliver, motion, step
from stedi.storage import config as settings

SCENES = ("init", "land", "build", "later land", "later build", "maintain", "erase")
"""A lake is created, landed into and built; more is landed and built; maintenance runs; a customer is erased."""


@dataclass(frozen=True, slots=True)
class Scene:
    """One command, run without faults.

    Attributes:
        name: Its name in messages.
        words: The command.
        start: The lake's folder before it; it may be empty.
        calls: The calls by which it changed the disk.
        before: Each table before it, as readers saw it.
        after: Each table after it.
        again: The commands that repair the lake after a fault.
        final: Each table after a run without faults and the build that it left due.
    """

    name: str
    words: tuple[str | Path, ...]
    start: Path
    calls: tuple[Call, ...]
    before: dict[str, Any]
    after: dict[str, Any]
    again: tuple[tuple[str | Path, ...], ...]
    final: dict[str, Any]

    @property
    def commits(self) -> list[int]:
        """The numbers, from 1, of the calls by which the catalog commits."""
        ended = ("unlink", "catalog.db-journal")
        return [place for place, call in enumerate(self.calls, start=1) if (call.name, call.path.name) == ended]


class Stage:
    """The fixed place of one lake, where scenes are played; it is fixed since Iceberg's paths are absolute."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watched = folder / "world"
        self.lake = self.watched / "lake"
        self.watched.mkdir()
        self.server = Server(folder, self.watched)
        first, second = _deliveries(folder)
        (folder / "nothing").mkdir()
        land, build, later = ("land", first), ("build",), ("land", second)
        self.scenes: dict[str, Scene] = {}
        at = folder / "nothing"
        maintain = ("maintain",)
        erase = ("erase", "P1@x.example", "--yes")
        commands = [
            (("init",), (land, build)),
            (land, (land, build)),
            (build, (build, maintain)),
            (later, (later, build)),
            (build, (build, maintain)),
            (maintain, (maintain, build)),
            (erase, (erase, build)),
        ]
        # rows of a run without faults, of the scene or of the build after it: `again` then changes none
        ends = {"init": "build", "land": "build", "later land": "later build"}
        for name, (words, again) in zip(SCENES, commands, strict=True):
            at = self._play(name, words, at, again)
        for name, end in ends.items():
            self.scenes[name] = replace(self.scenes[name], final=self.scenes[end].after)

    def _play(
        self, name: str, words: tuple[str | Path, ...], start: Path, again: tuple[tuple[str | Path, ...], ...]
    ) -> Path:
        """Plays a scene without faults, saves the resulting lake, and returns where."""
        before = self.set_up(start)
        done = self.server.run(self.lake, *words, fault=Fault())
        assert done.code == 0, done.said
        made, after = tuple(self.server.calls()), self.look()
        kept = self.folder / name
        shutil.copytree(self.watched, kept)
        if name == "init":
            # the next command removes leftovers at once instead of waiting for readers
            file = kept / "lake" / "lake.toml"
            settings.write(settings.changed(settings.read(file), grace_hours=0.0), file)
        self.scenes[name] = Scene(name, words, start, made, before, after, again, after)
        return kept

    def set_up(self, start: Path) -> dict[str, Any]:
        """Puts a lake at the fixed place and returns its tables."""
        shutil.rmtree(self.watched)
        shutil.copytree(start, self.watched)
        return self.look()

    def strike(self, scene: Scene, fault: Fault) -> Answer:
        """Plays a scene with a fault."""
        shutil.rmtree(self.watched)
        shutil.copytree(scene.start, self.watched)
        return self.server.run(self.lake, *scene.words, fault=fault)

    def set_right(self, scene: Scene) -> Iterator[str]:
        """Yields what a reader finds wrong after a fault, and what is wrong after the repairing commands."""
        seen = self.server.look(self.lake)
        if seen["error"]:
            yield f"readers cannot read: {seen['error']}"
        for name, found in seen["tables"].items():
            if found not in (scene.before.get(name, found), scene.after[name]):
                yield f"{name} is neither old nor new"
        changed = [name for name, found in scene.after.items() if found != scene.before.get(name)]
        if scene.name.endswith("build") and len({seen["tables"].get(n) == scene.after[n] for n in changed}) > 1:
            yield "some tables of the build are published, and others are not"
        for words in scene.again:
            done = self.server.run(self.lake, *words)
            if done.code:
                yield f"{words[0]} again: exit {done.code}: {done.said}"
                return
        found = self.server.look(self.lake)
        for name, rows in scene.final.items():
            if found["tables"].get(name) != rows:
                yield f"{name}: expected {rows}, found {found['tables'].get(name)}"
        strays = found["strays"] + (found["unused"] if ("maintain",) in scene.again else [])
        if strays:
            yield f"left behind: {strays}"

    def look(self) -> dict[str, Any]:
        """Returns each table as a reader sees it now."""
        tables: dict[str, Any] = self.server.look(self.lake)["tables"]
        return tables


def _deliveries(folder: Path) -> tuple[Path, Path]:
    """Two deliveries that change every table: all feeds, clean and dirty files, consents and withdrawals."""
    first, second = folder / "first", folder / "second"
    people = [f"p{n}@x.example" for n in range(4)]
    records = [customer(email, serialNumber=email[:2], birthDay="1990-02-03") for email in people]
    deliver(first, "customer", records)
    deliver(first, "accelerometer", [motion(email, at) for email in people for at in range(100, 120)])
    deliver(first, "step_trainer", [step(email[:2], at) for email in people for at in range(100, 120)])
    (first / "step_trainer" / "dirty.json").write_text(json.dumps([step("p1", 120), {"serialNumber": 7}]))
    deliver(second, "customer", [customer(people[0], ..., 200, serialNumber="p0"), customer("new@x.example", 60)])
    deliver(second, "accelerometer", [motion(email, at) for email in people[1:] for at in range(120, 130)])
    deliver(second, "step_trainer", [step(email[:2], at) for email in people for at in range(120, 130)])
    (second / "accelerometer" / "dirty.json").write_text(json.dumps([motion("new@x.example", 130), {"user": "q"}]))
    return first, second
