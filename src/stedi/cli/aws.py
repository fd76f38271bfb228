"""The commands of `stedi aws`: the stack, its job, its cost; and queries on Athena."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from stedi.cli import pipeline, queries, render, terminal
from stedi.cli.pipeline import wants_json
from stedi.errors import UsageError, many

if TYPE_CHECKING:
    from stedi.aws.stacks import ChangeSet
    from stedi.schema.roles import Role


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
        terminal.document(render.plain(done))
    else:
        terminal.table(("output", "value"), sorted(done.outputs.items()))
    return 0


def status(options: argparse.Namespace) -> int:
    """Shows the stacks, what they hold, and the latest runs."""
    from stedi.aws import deploy, runs

    found = runs.status(options.stack, deploy.data_stack(options.stack))
    if wants_json(options):
        terminal.document(render.plain(found))
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
        terminal.document(render.plain(done))
    else:
        terminal.line(f"{done.state.lower()} after {done.seconds:,} s" + (f": {done.error}" if done.error else ""))
    return 0 if done.state == "SUCCEEDED" else 1


def destroy(options: argparse.Namespace) -> int:
    """Deletes the stack, and its data on request."""
    from stedi.aws import deploy

    kept = deploy.data_stack(options.stack)
    what = f"stack {options.stack}"
    if options.data:
        what += f" and stack {kept}: the lake, the inbox, every version of every object, and the keys, for good"
    if not options.yes and not _confirmed(f"delete {what}?"):
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


def cost(options: argparse.Namespace) -> int:
    """Shows what a lake of some size would cost on AWS."""
    from stedi.aws import cost

    given = {name: getattr(options, name) for name in ("customers", "readings", "files", "runs", "queries")}
    workload = cost.Workload(**given, retention_days=options.retention_days, inbox_days=options.inbox_days)
    found = cost.cost(workload)
    if wants_json(options):
        terminal.document({"workload": render.plain(workload), "cost": {**render.plain(found), "total": found.total}})
    else:
        head, *lines = cost.lines([workload])
        terminal.table(("each month", *head[1:]), lines)
        terminal.say("a model, from measured times and list prices of us-east-1: see docs/aws.md")
    return 0


def query(options: argparse.Namespace) -> int:
    """Runs one SELECT, here or on Athena."""
    if options.engine != "athena":
        return queries.query(options)
    if options.parameter:
        raise UsageError("--parameter: expected --engine duckdb, found athena, which takes no parameters")
    from stedi.aws import athena
    from stedi.cli import formats
    from stedi.context import places
    from stedi.storage import config

    terminal.conceal(word for word in (options.sql,) if word != "-")
    sql = terminal.stdin_text() if options.sql == "-" else options.sql
    # the lake's settings alone: a query on Athena opens neither its catalog nor its key
    role: Role = options.role or config.role(places.named(pipeline.where(options)) / "lake.toml")
    snapshots = {}
    if options.at:
        snapshots = pipeline.open_lake(options).snapshots(sql, options.at, role=role, as_published=options.as_published)
    result = athena.run(sql, role=role, workgroup=options.workgroup or f"stedi-{role}", snapshots=snapshots)
    bill = result.bill
    terminal.say(f"scanned {bill.bytes_scanned:,} bytes, ${bill.dollars:,.6f} at list price (query {bill.query})")
    if wants_json(options) and not options.format and not options.output:
        # one document: its cost, and the rows as `--format json` writes them
        head = json.dumps(render.plain(bill))[:-1]
        out = terminal.binary()
        out.write(f'{head}, "rows": '.encode())
        formats.write(result.reader(), "json", out)
        terminal.line("}")
        return 0
    as_json = wants_json(options) and not options.output
    form = options.format or ("json" if as_json else formats.format_of(options.output))
    queries.write_rows(result.reader(), form, options)
    return 0


def _agreed(proposed: ChangeSet, options: argparse.Namespace) -> bool:
    """Shows a change set and asks whether to go on."""
    what = "new" if proposed.new else "changed"
    terminal.say(f"stack {proposed.stack}: {what}, {many(len(proposed.changes), 'change')}")
    for change in proposed.changes:
        terminal.say(f"  {change}")
    return bool(options.yes) or _confirmed("go on?")


def _confirmed(question: str) -> bool:
    alone = f"{question} Expected --yes, or a terminal to ask; nothing was done"
    return terminal.confirmed(lambda: f"{question} [y/N]", alone=alone)


def _parameters(words: list[str]) -> dict[str, str]:
    found = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UsageError("--set: expected NAME=VALUE, found no equals sign")
        found[name] = value
    return found
