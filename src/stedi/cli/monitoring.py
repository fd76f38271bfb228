"""The commands of daily operation: `status`, `runs`, `watch`, `doctor`, `migrate`.

As in `pipeline`, each calls one function, prints what it returned, and returns the exit code.
"""

from __future__ import annotations

import argparse
import os
from itertools import islice
from types import FrameType
from typing import TYPE_CHECKING

from stedi.cli import render, terminal
from stedi.cli.pipeline import open_lake, open_or_create, wants_json, where
from stedi.errors import AuditFailed, UsageError, many

if TYPE_CHECKING:
    from stedi.context.runs import Run
    from stedi.operations.status import Status


def status(options: argparse.Namespace) -> int:
    """Says how the lake is."""
    found = open_lake(options).status(max_age=options.max_age)
    if wants_json(options):
        terminal.document(status_json(found))
    else:
        terminal.line(_status_text(found), 11)
    return 0 if found.ok else AuditFailed.exit_code


def status_json(found: Status) -> dict[str, object]:
    """Returns how a lake is as `--json` prints it."""
    due = found.due
    return {
        "ok": found.ok,
        "late": list(found.late),
        "last": {command: run and run_json(run) for command, run in found.last.items()},
        "due": {
            "tables": [{"name": name, "reason": reason} for name, reason in due.tables.items()],
            "since": render.plain(due.since),
            "withdrawn": due.withdrawn,
            "agreed": due.agreed,
        },
        "unfinished": list(found.unfinished),
        "stale_releases": list(found.stale_releases),
        "overdue_snapshots": found.overdue,
        "disk": {"bytes": found.disk.bytes, "free": found.disk.free},
    }


def run_json(run: Run) -> dict[str, object]:
    """Returns a run as `--json` prints it."""
    error = {"type": run.kind, "message": run.error} if run.error else None
    return {
        "id": run.id,
        "command": run.command,
        "started": render.instant(run.started),
        "seconds": run.seconds,
        "outcome": run.outcome,
        "rows": run.rows,
        "error": error,
    }


def _status_text(found: Status) -> str:
    from stedi.operations.status import size

    lines = []
    for command, run in found.last.items():
        told = "never" if run is None else f"{_when(run)}  {run.outcome}" + _rows(run)
        lines.append(f"{command:<10} {told}")
    due = found.due
    if due.tables:
        since = f" since {render.moment(due.since)}" if due.since else ""
        customers = f"; customers: {due.withdrawn:,} leave, {due.agreed:,} enter" if due.withdrawn or due.agreed else ""
        lines.append(f"{'due':<10} a build of {many(len(due.tables), 'table')}{since}{customers}")
    else:
        lines.append(f"{'due':<10} nothing")
    free = "" if found.disk.free is None else f"; {size(found.disk.free)} free"
    lines.append(f"{'size':<10} {size(found.disk.bytes)} of tables{free}")
    lines += [f"{'late':<10} {line}" for line in found.late]
    lines.append(f"{'':<10} {'nothing is late or wrong' if found.ok else f'late or wrong: {len(found.late)}'}")
    return "\n".join(line.rstrip() for line in lines)


def _when(run: Run) -> str:
    return render.moment(run.started)


def _rows(run: Run) -> str:
    return "" if run.rows is None else f", {many(run.rows, 'row')}"


def runs(options: argparse.Namespace) -> int:
    """Lists what ran."""
    found = list(islice(open_lake(options).runs(), options.limit))
    if wants_json(options):
        terminal.document({"runs": [run_json(run) for run in found]})
        return 0
    rows = [
        (
            _when(run),
            run.command,
            "" if run.seconds is None else f"{run.seconds:.1f}",
            "" if run.rows is None else run.rows,
            run.outcome,
            run.error,
        )
        for run in found
    ]
    names = ("started", "command", "seconds", "rows", "outcome", "error")
    if terminal.width() is None:
        terminal.table(names, rows)
        return 0
    terminal.table(names[:-1], [row[:-1] for row in rows])
    for run in found:
        if run.error:  # whole, below: beside the rest a terminal has room for two words of it
            terminal.line(f"{_when(run)}  {run.command}: {run.error}", 22)
    return 0


def migrate(options: argparse.Namespace) -> int:
    """Brings a lake to the format of this version, or back."""
    with terminal.Progress() as progress:
        done = open_lake(options).migrate(dry_run=options.dry_run, back=options.back, progress=progress)
    if wants_json(options):
        terminal.document({"was": done.was, "now": done.now, "steps": list(done.steps), "backup": done.backup})
        return 0
    if not done.steps:
        terminal.line(f"nothing to do: the lake has format {done.now}, which is this version's")
        return 0
    would = "would become" if options.dry_run else "is now"
    same = f"format {done.now}, as before" + (": this would be done" if options.dry_run else "")
    terminal.line(same if done.was == done.now else f"format {done.was} {would} format {done.now}")
    for step in done.steps:
        terminal.line(f"  {step}")
    if done.backup and not options.back:
        terminal.line(f"the changed files are backed up in {done.backup}; `stedi migrate --back` restores them")
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Returns whether this machine can run a lake."""
    from stedi.operations import doctor

    findings = list(doctor.examine(where(options)))
    if options.what == "aws":
        from stedi.aws import doctor as cloud

        findings += cloud.examine(where(options))
    if wants_json(options):
        terminal.document({"ok": all(f.state != "wrong" for f in findings), "findings": render.plain(findings)})
    else:
        for found in findings:
            mark = {"ok": "ok", "wrong": "WRONG", "absent": "-"}[found.state]
            terminal.line(f"{mark:<6} {found.name:<16} {found.found}{f': {found.advice}' if found.advice else ''}", 24)
    return 1 if any(found.state == "wrong" for found in findings) else 0


def watch(options: argparse.Namespace) -> int:
    """Lands and builds what comes; the first signal ends it after the round under way, a second one at once."""
    import signal
    from threading import Event

    stop = Event()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    if os.path.exists(options.inbox) and not os.path.isdir(options.inbox):
        raise UsageError(
            f"{options.inbox}: expected a folder to watch, found something else; `stedi land` lands a single file"
        )
    lake = open_or_create(options)
    # after the lake is open: until then, the first signal ends the command as it does any other
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    counts = {"rounds": 0, "files": 0, "rows": 0, "failures": 0}
    terminal.say(f"watching {options.inbox}")
    for done in lake.watch(options.inbox, every=options.every, stop=stop):
        new = [file for file in done.landing.files if not file.already_landed] if done.landing else []
        rows = sum(table.rows_added for table in done.build.tables) if done.build else 0
        counts["rounds"] += 1
        counts["files"] += len(new)
        counts["rows"] += rows
        counts["failures"] += bool(done.error)
        for skipped in done.landing.skipped if done.landing else ():
            if skipped.failed:
                later = "; will be retried" if skipped.passing else ""
                terminal.say(f"stedi: {skipped.name}: {terminal.worded(skipped.why)}{later}")
        if done.error:
            terminal.say(f"stedi: failed, will be retried: {done.error}")
        else:
            records, refused = sum(file.accepted for file in new), sum(file.quarantined for file in new)
            quarantined = f", {refused:,} quarantined" if refused else ""
            landed = (
                f"{many(len(new), 'file')}, {many(records, 'record')} landed{quarantined}; " if done.landing else ""
            )
            terminal.say(f"{landed}{many(rows, 'row')} built in {done.seconds:.1f} s")
    if wants_json(options):
        terminal.document(counts)
    else:
        terminal.line(f"stopped: {many(counts['files'], 'file')} landed, {many(counts['rows'], 'row')} built")
    return 0
