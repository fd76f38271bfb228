"""Every call by which a key rotation changes the disk: struck there, the lake is the old key's or the new one's.

By day a sample of the calls is struck, by `make nightly` each of them, killed before it or torn, and errors in turn.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_every_call import FATES, LASTING, NAMES, ONCE

from calls import Call, Fault
from effort import NIGHTLY
from lakes import BELOW_LANDING
from stage import Stage
from stedi.lake import Lake
from stedi.privacy.pseudonyms import Key


class Change:
    """A key rotation on the stage, undisturbed and under faults."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.start = stage, stage.folder / "before the change"
        shutil.copytree(stage.folder / "maintain", self.start)
        old = (self.start / "keys" / "lake.key").read_text().strip()
        self.new = Key(b"n" * 32)
        next_key = self.start / "keys" / "next.key"
        next_key.write_text(f"{self.new.secret.hex()}\n{old}\n")
        next_key.chmod(0o600)
        self.words = ("key", "rotate", "--yes", "--to", stage.watched / "keys" / "next.key")
        self.before = stage.set_up(self.start)
        done = stage.server.run(stage.lake, *self.words, fault=Fault())
        assert done.code == 0, done.said
        self.calls: tuple[Call, ...] = tuple(stage.server.calls())
        self.after = stage.look()

    def struck(self, fault: Fault, ended: Counter[str]) -> Iterator[str]:
        """Strikes the change; yields what is wrong with how it ended, and with what the next build makes of it."""
        stage = self.stage
        shutil.rmtree(stage.watched)
        shutil.copytree(self.start, stage.watched)
        answer = stage.server.run(stage.lake, *self.words, fault=fault)
        if fault.error == 0 and answer.code != -9:
            yield f"exit {answer.code}: {answer.said}"
        if any(word in answer.said for word in ("@", "Traceback", "unforeseen", self.new.secret.hex())):
            yield f"unclear: {answer.said}"
        seen = stage.server.look(stage.lake)
        if seen["error"]:
            yield f"readers cannot read: {seen['error']}"
        for name, found in seen["tables"].items():
            if found not in (self.before[name], self.after[name]):
                yield f"{name} is neither old nor new"
        changed = Lake.open(stage.lake).config.key_fingerprint == self.new.fingerprint
        ended["new" if changed else "old"] += 1
        if answer.code == 0 and not changed:
            yield "said that it had worked, and had not"
        if changed:  # whoever changes the key by hand puts the new one in its place
            keys = stage.watched / "keys"
            shutil.copyfile(keys / "next.key", keys / "lake.key")
        done = stage.server.run(stage.lake, "build")
        if done.code:
            yield f"build: exit {done.code}: {done.said}"
        found = stage.server.look(stage.lake)
        if found["tables"] != (self.after if changed else self.before):
            yield "the tables are not all of one key"
        # an engine's file that lost its process before its name goes with `maintain`: nothing is in it
        if left := [path for path in found["strays"] if not Path(path).name.startswith("kept-")]:
            yield f"left behind: {left}"
        if changed and any(len(Lake.open(stage.lake).history(name)) != 1 for name in BELOW_LANDING):
            yield "snapshots under the old key are left"


@pytest.fixture(scope="module")
def change(stage: Stage, monkeypatch_module: pytest.MonkeyPatch) -> Change:
    monkeypatch_module.delenv("STEDI_KEY_FILE", raising=False)
    return Change(stage)


@pytest.fixture(scope="module")
def monkeypatch_module() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def faults(made: tuple[Call, ...]) -> Iterator[Fault]:
    if NIGHTLY:
        for place, call in enumerate(made, start=1):
            yield Fault("kill", place)
            if call.name == "write":
                yield Fault("tear", place)
            for fate in (ONCE[place % len(ONCE)], LASTING[place % len(LASTING)]):
                yield Fault(fate.fate, place, fate.error, fate.lasting)
        return
    chance = random.Random(len(made))
    kinds = {name: [n for n, call in enumerate(made, start=1) if call.name == name] for name in NAMES}
    places = {chance.choice(found) for found in kinds.values() if found}
    decided = [n for n, call in enumerate(made, start=1) if call.other.name == "rotation.json"]
    places |= {decided[0], decided[0] + 1, len(made)}
    for turn, place in enumerate(sorted(places)):
        fate = FATES[turn % len(FATES)]
        if fate.fate != "tear" or made[place - 1].name == "write":
            yield Fault(fate.fate, place, fate.error, fate.lasting)


@pytest.mark.thorough
def test_a_fault_at_any_call_leaves_the_lake_to_one_key(change: Change) -> None:
    failures, ended, tried = [], Counter[str](), 0
    for fault in faults(change.calls):
        at = f"{fault} at {fault.place}, {change.calls[fault.place - 1].kind}"
        failures += [f"{at}: {wrong}" for wrong in change.struck(fault, ended)]
        tried += 1
    print(f"key rotate: {len(change.calls)} calls, {tried} faults, {len(failures)} failures; ended {dict(ended)}")
    assert not failures, "\n".join(failures)
    assert ended.keys() == {"old", "new"}


def test_the_change_is_decided_once_and_every_table_before_it(change: Change) -> None:
    names = [(call.name, call.other.name or call.path.name) for call in change.calls]
    decided = names.index(("rename", "rotation.json"))
    settings = names.index(("rename", "lake.toml"))
    ended = names.index(("unlink", "rotation.json"))
    assert decided < settings < ended
    written = [n for n, call in enumerate(change.calls) if call.name == "write" and call.path.suffix == ".parquet"]
    assert max(written) < decided
    gone = [n for n, call in enumerate(change.calls) if call.name == "unlink" and call.path.suffix == ".parquet"]
    assert min(gone) > settings
    assert not [call.path for call in change.calls if Path("keys") in call.path.parents]
