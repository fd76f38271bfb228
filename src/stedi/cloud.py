"""The commands of `stedi aws`: the stack on AWS, its job, what it costs."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from stedi import terminal
from stedi.commands import wants_json
from stedi.errors import UsageError

if TYPE_CHECKING:
    from stedi.aws.stacks import ChangeSet


def deploy(options: argparse.Namespace) -> int:
    """Shows what would change on AWS, asks, and changes it."""
    from stedi.aws import deploy

    done = deploy.deploy(
        lambda proposed: _agreed(proposed, options),
        terminal.say,
        stack=options.stack,
        wheel=options.wheel,
        parameters=_parameters(options.set),
    )
    if wants_json(options):
        terminal.document(asdict(done))
    else:
        terminal.table(("output", "value"), sorted(done.outputs.items()))
    return 0


def status(options: argparse.Namespace) -> int:
    """Shows the stacks, what they hold, and the latest runs."""
    from stedi.aws import deploy, runs

    found = runs.status(options.stack, deploy.data_stack(options.stack))
    if wants_json(options):
        terminal.document(asdict(found))
        return 0
    terminal.table(("stack", "state"), sorted(found.stacks.items()))
    terminal.line("")
    terminal.table(("output", "value"), sorted(found.outputs.items()))
    if found.runs:
        terminal.line("")
        rows = [(run.started, run.state, run.seconds, run.dpu_seconds, run.error) for run in found.runs]
        terminal.table(("started", "run ended", "seconds", "DPU seconds", "error"), rows)
    return 0


def run(options: argparse.Namespace) -> int:
    """Runs the job and follows its log."""
    from stedi.aws import runs

    done = runs.run(options.stack, terminal.say, workers=options.workers)
    if wants_json(options):
        terminal.document(asdict(done))
    else:
        terminal.line(f"{done.state.lower()} after {done.seconds:,} s" + (f": {done.error}" if done.error else ""))
    return 0 if done.state == "SUCCEEDED" else 1


def destroy(options: argparse.Namespace) -> int:
    """Takes the stack away, and its data if told so."""
    from stedi.aws import deploy

    kept = deploy.data_stack(options.stack)
    what = f"stack {options.stack}"
    if options.data:
        what += f" and stack {kept}: the lake, the inbox, every version of every object, and the keys, for good"
    if not options.yes and not _yes(f"delete {what}?"):
        terminal.say("nothing was deleted")
        return 1
    done = deploy.destroy(terminal.say, stack=options.stack, data=options.data)
    if wants_json(options):
        terminal.document(done)
    else:
        gone = done["deleted"]
        assert isinstance(gone, list)
        terminal.line(f"deleted {', '.join(gone) or 'nothing'}" + ("" if options.data else f"; {kept} is kept"))
    return 0


def _agreed(proposed: ChangeSet, options: argparse.Namespace) -> bool:
    """Shows a change set and asks whether to go on."""
    terminal.say(f"stack {proposed.stack}: {'new' if proposed.new else 'changed'}, {len(proposed.changes)} changes")
    for change in proposed.changes:
        terminal.say(f"  {change}")
    return bool(options.yes) or _yes("go on?")


def _yes(question: str) -> bool:
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Expected --yes, or a terminal to ask; nothing was done")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _parameters(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError("--set: expected NAME=VALUE, found no equals sign")
        found[name] = value
    return found
