"""The commands of the data flow: `demo`, `init`, `land`, `build`, `tables`, `quarantine`, `maintain` and more.

Modules are imported by the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from stedi.cli import hooks, render, terminal
from stedi.errors import LandingError, UsageError, many

if TYPE_CHECKING:
    from stedi.catalog import Snapshot
    from stedi.lake import Lake
    from stedi.landing.batch import Landing, OddInstants
    from stedi.transform import Build
    from stedi.transform.previewing import Plan


def demo(options: argparse.Namespace) -> int:
    """Makes sample landing data, lands it, builds, and shows the zones."""
    import shutil
    import textwrap

    from stedi.datasets import quality
    from stedi.lake import Lake
    from stedi.landing import sample

    base = Path("build") / "demo"
    if getattr(options, "lake", None) is not None:
        raise UsageError(
            f"demo: expected no --lake, since it makes a new lake each time, in {base}/lake; found {options.lake}"
        )
    # these two and the key alone: `build/demo` may hold other things of the user's
    for name in ("inbox", "lake"):
        shutil.rmtree(base / name, ignore_errors=True)
    (base / "demo.key").unlink(missing_ok=True)
    with terminal.step("make sample data") as progress:
        sample.write(
            base / "inbox",
            customers=options.customers,
            readings=options.readings,
            walkers=options.walkers,
            seed=options.seed,
            progress=progress,
        )
        lake = Lake.create(base / "lake", key_file=base / "demo.key")
        landing = lake.land(base / "inbox", progress=progress)
        built = lake.build(progress=progress)
        rates = lake.query(quality.rates_sql("step_trainer_trusted", "customer_id", "sensorReadingTime")).arrow()
        sampling = quality.verdict(rates["rate"].to_pylist())
    if wants_json(options):
        terminal.document(
            {
                "sampling": sampling,
                "lake": str(base / "lake"),
                "land": _landing_json(landing),
                "build": render.plain(built),
                "tables": _tables_json(lake),
            }
        )
        return 0
    _show_tables(lake)
    terminal.line(
        f"\nlanded      {landing.accepted:,} of {many(landing.seen, 'record')}; {landing.quarantined:,} in quarantine"
    )
    left_out = built.customers - built.consenting
    share = f"{built.consenting:,} of {built.customers:,} customers consent to research"
    terminal.line(f"consent     {share}; {left_out:,} are left out")
    terminal.line(f"withheld    {many(built.withheld, 'reading')} of shared serial numbers")
    said, wide = f"sampling    {sampling}", min(terminal.width() or 80, 100)
    terminal.line("\n".join(textwrap.wrap(said, wide, subsequent_indent=" " * 12, break_on_hyphens=False)))
    terminal.raw(f"\nexport STEDI_LAKE={base}/lake  # then try:")
    terminal.raw(f"{_program()} query 'select * from machine_learning_curated limit 5'")
    if options.walkers:
        terminal.raw(f"{_program()} dataset create gait --match nearest --window 10s \\")
        terminal.raw(f"  --labels {base}/inbox/{sample.LABELS}")
    return 0


def _program() -> str:
    """Returns what to type for this program: its name, or the path by which it was called."""
    import shutil

    called = Path(sys.argv[0])
    return str(called) if called.name == "stedi" and not shutil.which("stedi") else "stedi"


def init(options: argparse.Namespace) -> int:
    """Makes a lake."""
    from stedi.lake import Lake
    from stedi.privacy import pseudonyms

    lake = Lake.create(where(options), readings=options.readings)
    file = lake.config.key_file or str(pseudonyms.default_file(lake.config.lake_id))
    place = pseudonyms.VARIABLE if pseudonyms.from_environment() else file
    if wants_json(options):
        terminal.document(
            {
                "lake": str(lake.root),
                "readings": lake.config.readings,
                "key": place,
                "fingerprint": lake.config.key_fingerprint,
            }
        )
    else:
        terminal.line(f"made {lake.root}\nkey  {place}\nBack up the key: without it the lake cannot be built again.")
    return 0


def _odd_lines(odd: Iterable[OddInstants]) -> Iterator[str]:
    """Yields a line for each field and unit; a thousand files of one sender give one line, and all in JSON."""
    alike: dict[tuple[str, str, bool], list[OddInstants]] = {}
    for one in odd:
        alike.setdefault((one.field, one.unit, one.quarantined), []).append(one)
    for (field, unit, quarantined), files in alike.items():
        records = sum(one.records for one in files)
        others = f" and {many(len(files) - 1, 'other file')}" if len(files) > 1 else ""
        have = f"{many(records, 'record')} probably {'has' if records == 1 else 'have'} it {unit}"
        became = "quarantined" if quarantined else "taken as absent"
        yield f"{files[0].name}{others}: {field}: expected epoch milliseconds; {have}; {became}"


def land(options: argparse.Namespace) -> int:
    """Lands new files, and builds at once on request."""
    _refuse_nothing(options)
    lake = open_or_create(options)
    built = None
    with terminal.Progress() as progress:
        landing = lake.land(*options.paths, feed=options.feed, engine=options.engine, progress=progress)
        if options.build:
            built = lake.build(wait=True, engine=options.engine, progress=progress)
    for skipped in landing.skipped:
        terminal.say(f"{'stedi: ' * skipped.failed}{skipped.name}: {terminal.worded(skipped.why)}")
    for feed, counts in landing.drift.items():
        for what, count in sorted(counts.items()):
            terminal.say(f"drift: {feed}: {what}: {many(count, 'record')}")
    for line in _odd_lines(landing.odd):
        terminal.say(line)
    for lost in landing.unread:
        terminal.say(
            f"{lost.name}: quarantined records of customers who consent: {lost.records:,}; each may be a withdrawal "
            f"that could not be read. See `stedi quarantine --show {lost.first}`; use `stedi withdraw` if it is one"
        )
    if wants_json(options):
        terminal.document({**_landing_json(landing), **({"build": render.plain(built)} if built else {})})
    else:
        terminal.line(render.landed(landing))
        if built:
            _show_build(built)
    return 1 if any(skipped.failed for skipped in landing.skipped) else 0


def _refuse_nothing(options: argparse.Namespace) -> None:
    """Refuses to create a lake for paths without files.

    Raises:
        LandingError: The lake does not exist, and none of the paths leads to anything; nothing was created.
    """
    import glob

    from stedi.storage import destinations, s3

    if s3.is_remote(where(options)) or any(map(s3.is_remote, options.paths)):
        return
    paths = [str(destinations.expanded(path)) for path in options.paths]
    if any(os.path.lexists(path) or (glob.has_magic(path) and glob.glob(path, recursive=True)) for path in paths):
        return
    if not (destinations.expanded(where(options)) / "lake.toml").is_file():
        named = ", ".join(options.paths[:3]) + (f" and {len(paths) - 3:,} more" if len(paths) > 3 else "")
        raise LandingError(f"{named}: expected a file, a folder or a glob, found nothing; no lake was made")


def _landing_json(landing: Landing) -> dict[str, object]:
    files = ({name: value for name, value in render.plain(file).items() if name != "size"} for file in landing.files)
    odd = [
        {
            "name": o.name,
            "field": o.field,
            "given": o.unit.name.lower(),
            "records": o.records,
            "quarantined": o.quarantined,
        }
        for o in landing.odd
    ]
    return {
        "files": list(files),
        "seen": landing.seen,
        "accepted": landing.accepted,
        "quarantined": landing.quarantined,
        "erased": landing.erased,
        "skipped": render.plain(landing.skipped),
        "drift": landing.drift,
        "odd_instants": odd,
        "perhaps_withdrawals": render.plain(landing.unread),
    }


def build(options: argparse.Namespace) -> int:
    """Builds what has changed, or shows what it would build."""
    if options.dry_run:
        _show_plan(open_lake(options).plan(full=options.full), as_json=wants_json(options))
        return 0
    lake = open_or_create(options)
    with terminal.Progress() as progress:
        built = lake.build(
            full=options.full,
            wait=options.wait,
            engine=options.engine,
            progress=progress,
        )
    if wants_json(options):
        terminal.document(render.plain(built))
    else:
        _show_build(built)
    return 0


def _show_build(built: Build) -> None:
    """Prints what a build has done."""
    if not built.run:
        terminal.line("nothing to do: every table is up to date")
        return
    terminal.table(
        ("table", "action", "why", "added", "removed", "rows", "seconds"),
        [(t.name, t.action, t.reason, t.rows_added, t.rows_removed, t.rows, round(t.seconds, 2)) for t in built.tables],
        ("seconds", "why"),
    )
    if built.withheld:
        terminal.line(
            f"withheld: {many(built.withheld, 'reading')} of shared serial numbers; list them with "
            "`stedi quarantine --withheld`"
        )
    say_stale(built.stale)


def say_stale(releases: Iterable[str]) -> None:
    """Names releases with people who may no longer be used."""
    for release in releases:
        terminal.say(
            f"{release} is stale: someone in it may no longer be used; see `stedi dataset show {release}`, then "
            "`stedi dataset refresh` and `stedi dataset recall`"
        )


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    """Prints what a build would do; the customers concerned are counted, and named by pseudonym in JSON alone."""
    customers = {"enter": plan.entering, "leave": plan.leaving, "change": plan.changing}
    sizes = ("rows_read", "bytes_read", "rows_written", "bytes_written")
    if as_json:
        listed = [
            {
                "name": e.step.table,
                "action": e.step.action,
                "reason": e.step.reason,
                **{size: getattr(e, size) for size in sizes},
            }
            for e in plan.steps
        ]
        terminal.document({"tables": listed, "customers": customers})
        return
    terminal.table(
        ("table", "action", "why", *(size.replace("_", " ") for size in sizes)),
        [(e.step.table, e.step.action, e.step.reason, *(getattr(e, size) for size in sizes)) for e in plan.steps],
        ("bytes written", "bytes read", "rows read"),
    )
    counts = ", ".join(f"{len(who):,} {what}" for what, who in customers.items())
    terminal.line(f"customers: {counts}")


def tables(options: argparse.Namespace) -> int:
    """Lists the tables."""
    lake = open_lake(options)
    if wants_json(options):
        terminal.document({"tables": _tables_json(lake)})
    else:
        _show_tables(lake)
    return 0


def _tables_json(lake: Lake) -> list[dict[str, object]]:
    return [{**render.plain(table), "snapshot": render.identified(table.snapshot)} for table in lake.tables()]


def _show_tables(lake: Lake) -> None:
    rows = [(t.zone, t.name, t.rows, t.bytes, render.moment(t.updated)) for t in lake.tables()]
    terminal.table(("zone", "table", "rows", "bytes", "updated"), rows, ("bytes", "zone"))


def history(options: argparse.Namespace) -> int:
    """Lists a table's snapshots."""
    lake = open_lake(options)
    snapshots = lake.history(options.table)
    if wants_json(options):
        listed = [
            {
                "id": str(s.id),
                "parent": render.identified(s.parent),
                "at": render.instant(s.at),
                "operation": s.operation,
                "inputs": {table: str(id_) for table, id_ in _inputs(s).items()},
                "summary": _summary(s),
            }
            for s in snapshots
        ]
        terminal.document({"table": options.table, "snapshots": listed})
        return 0
    tables = {table for s in snapshots for table in _inputs(s)}
    # a snapshot that has expired is in no history
    moments = {s.id: s.at for table in tables for s in lake.history(table)}
    rows: list[tuple[object, ...]] = []
    for s in snapshots:
        told = _sources(s, moments, verbose=options.verbose) or [""]
        rows.append((render.moment(s.at, exact=True), s.operation, s.total("records"), told[0]))
        rows += [("", "", None, source) for source in told[1:]]
    terminal.table(("at", "operation", "rows", "built from"), rows)
    return 0


def _inputs(snapshot: Snapshot) -> dict[str, int]:
    """Returns which snapshots of which tables a snapshot was built from."""
    found: dict[str, int] = json.loads(snapshot.summary.get("stedi.inputs", "{}"))
    return found


def _summary(snapshot: Snapshot) -> dict[str, str]:
    """Returns a snapshot's summary with ids as texts, as everywhere in JSON: programs may round long numbers."""
    ids = {"stedi.inputs": json.dumps({table: str(id_) for table, id_ in _inputs(snapshot).items()})}
    return {name: ids.get(name, value) for name, value in snapshot.summary.items()}


def _sources(snapshot: Snapshot, moments: Mapping[int, datetime], *, verbose: bool) -> list[str]:
    """Returns what a snapshot was built from, one line for each table; if verbose, with all ids."""
    found = []
    for table, id_ in _inputs(snapshot).items():
        at = moments.get(id_)
        when = "a snapshot that has expired" if at is None else f"{at:%H:%M}" if at.date() == snapshot.at.date() else ""
        found.append(f"{table} of {when or format(at, '%Y-%m-%d')}")
        if verbose:
            found.append(f"  snapshot {id_}")
    if "stedi.batch" in snapshot.summary:
        found.append("delivered files")
    if verbose:
        named = {"run": "stedi.run", "batch": "stedi.batch", "SQL": "stedi.sql"}
        found += [f"{what}: {snapshot.summary[name]}" for what, name in named.items() if name in snapshot.summary]
        found += [f"policy: {word}" for word in snapshot.summary.get("stedi.policy", "").split()]
        found.append(f"this snapshot: {snapshot.id}")
    return found


def quarantine(options: argparse.Namespace) -> int:
    """Lists, shows or lands again what could not be taken."""
    lake = open_lake(options)
    quarantine = lake.quarantine()
    if options.show:
        found = quarantine.raw(options.show)
        text = terminal.escaped(found.content)
        if wants_json(options):
            terminal.document({"raw": text, "size": found.size})
        else:
            terminal.raw(text)
            if found.size > len(found.content):
                terminal.say(f"the first {len(found.content):,} of {many(found.size, 'byte')}")
    elif options.replay:
        with terminal.Progress() as progress:
            done = quarantine.replay(progress=progress)
        if wants_json(options):
            terminal.document({"landed": done.landed, "total": done.staying})
        else:
            terminal.line(f"landed {many(done.landed, 'record')}; {done.staying:,} stay in quarantine")
    elif options.fields:
        faults, looked_at = quarantine.faults()
        if wants_json(options):
            terminal.document({"fields": render.plain(faults), "looked_at": looked_at, "total": quarantine.total()})
        else:
            terminal.table(
                ("feed", "field", "records", "expected", "found", "reason"),
                [(f.feed, f.field, f.records, f.expected, f.found or f.reason, f.reason) for f in faults],
                ("reason",),
            )
    elif options.withheld:
        with terminal.step("look for withheld readings"):
            rows = lake.withheld()
        if wants_json(options):
            names = ("sensorReadingTime", "serialNumber", "distanceFromObject", "matches")
            plain = [(render.instant(r.time), r.serial_number, r.distance, r.moved) for r in rows]
            terminal.document({"records": [dict(zip(names, row, strict=True)) for row in plain], "total": len(rows)})
        else:
            terminal.table(
                ("time", "serial number", "distance", "moved"),
                [(render.moment(r.time, exact=True), r.serial_number, r.distance, r.moved) for r in rows],
            )
            terminal.say("moved: how many claimants have an accelerometer reading at that time")
    elif wants_json(options):
        keys = ("feed", "file", "offset", "line", "reason")
        terminal.document(
            {
                "records": [{k: getattr(r, k) for k in keys} for r in quarantine.records()],
                "total": quarantine.total(),
            }
        )
    elif options.records:
        terminal.table(
            ("record", "feed", "file", "line", "reason", "bytes"),
            [(r.handle, r.feed, r.file, r.line, r.reason, r.size) for r in quarantine.records()],
            ("bytes", "feed"),
        )
    else:
        counts = quarantine.counts()
        terminal.table(("reason", "feed", "file", "records"), counts)
        if counts:
            terminal.say("`stedi quarantine --fields` shows which field was wrong, --records lists each record")
    return 0


def maintain(options: argparse.Namespace) -> int:
    """Compacts, expires and removes, or shows what it would."""
    with terminal.Progress() as progress:
        done = open_lake(options).maintain(dry_run=options.dry_run, engine=options.engine, progress=progress)
    if wants_json(options):
        terminal.document(render.maintenance_json(done))
    else:
        terminal.line(render.maintenance(done))
    return 0


def crawl(options: argparse.Namespace) -> int:
    """Infers schemas and shows drift."""
    from stedi.landing import crawl

    with terminal.step("read files") as progress:
        report = crawl.crawl(options.paths, sample=options.sample, progress=progress)
    if wants_json(options):
        terminal.document(render.plain(report))
    else:
        terminal.line(render.crawl(report))
    return 1 if report.failed else 0


def roles(options: argparse.Namespace) -> int:
    """Prints who sees which tables and columns."""
    import textwrap

    from stedi.schema.roles import visible

    found = visible()
    if wants_json(options):
        listed = [{"role": role, "tables": render.plain(tables)} for role, tables in found.items()]
        terminal.document({"roles": listed})
        return 0
    for role, tables in found.items():
        terminal.line(f"{role}: {len(tables)} table{'s' * (len(tables) != 1)}")
        for table in tables:
            terminal.line(f"  {table.zone}.{table.name}")
            for what, columns in (("sees", table.columns), ("null", table.masked)):
                lead = f"    {what}  "
                text = ", ".join(columns) or "nothing"
                if columns or what == "sees":
                    terminal.line(textwrap.fill(text, 80, initial_indent=lead, subsequent_indent=" " * len(lead)))
    return 0


def ddl(options: argparse.Namespace) -> int:
    """Prints DDL."""
    from stedi.schema import ddl

    named, views = (options.location, options.inbox), options.views
    text = ddl.views(options.dialect, views) if views else ddl.ddl(options.dialect, *named)
    if wants_json(options):
        terminal.document({"dialect": options.dialect, "ddl": text})
    else:
        terminal.raw(text)
    return 0


def ndjson(options: argparse.Namespace) -> int:
    """Rewrites any JSON shape as one record a line."""
    from stedi.landing import ndjson
    from stedi.storage import destinations

    with terminal.step("rewrite files") as progress:
        summary = ndjson.rewrite(options.source, options.target, progress=progress, rejects=options.rejects)
    if any(path is not None and destinations.is_special(path) for path in (options.target, options.rejects)):
        terminal.say(render.rewritten(summary))  # stdout may be what the records went to
    elif wants_json(options):
        terminal.document(render.rewritten_json(summary))
    else:
        terminal.line(render.rewritten(summary))
    return 1 if summary.failed else 0


def where(options: argparse.Namespace) -> str:
    """Returns the place of a command's lake, as named."""
    return str(getattr(options, "lake", None) or os.environ.get("STEDI_LAKE") or "lake")


_LOOKS = frozenset(
    {
        *("tables", "history", "query", "quarantine", "explain", "consent", "roles", "log", "status", "runs", "doctor"),
        *("describe", "contract", "ddl", "crawl", "verify", "audit", "report", "export"),
    }
)
"""Commands that change nothing in a lake."""


def after_interrupt(options: argparse.Namespace) -> str:
    """Returns what is true after a command was interrupted, and what to do."""
    from stedi.privacy import key_change, tombstones
    from stedi.storage import destinations, s3

    if options.command in _LOOKS and not getattr(options, "replay", False):
        return "nothing in the lake was changed; output files are missing or unchanged"
    root = where(options)
    if not s3.is_remote(root):
        folder = destinations.expanded(root)
        if (folder / tombstones.PENDING).exists():
            return "the erasure is not complete: `stedi erase --resume` finishes it"
        if (folder / key_change.NAME).exists():
            return "the key rotation is not complete: `stedi build` finishes it"
    return "what was committed stays; run the same command again to continue"


def open_lake(options: argparse.Namespace) -> Lake:
    """Returns the lake that a command names."""
    from stedi.lake import Lake

    return _with_messages(Lake.open(where(options)))


def open_or_create(options: argparse.Namespace) -> Lake:
    """Returns the lake that a command names; a new one is announced, since nobody has asked for it explicitly."""
    from stedi.lake import Lake

    return _with_messages(Lake.open_or_create(where(options), made=_announce))


def _announce(lake: Lake) -> None:
    terminal.say(f"made a new lake, {lake.root}; its key is in {lake.context.key_place()}: back up the key")


def _with_messages(lake: Lake) -> Lake:
    """Has a lake say on stderr what should be known; returns it."""
    lake.context.say = terminal.say
    lake.context.observers += hooks.observers
    return lake


def wants_json(options: argparse.Namespace) -> bool:
    """Returns whether one JSON document is wanted on stdout."""
    return bool(getattr(options, "json", False))
