"""The command line: parse, call one function, print.

Results go to stdout, messages and progress to stderr. Exit 0 done, 1 the work failed, 2 bad usage, 3 an audit found
a violation. With `--json` every command prints one JSON document on stdout, errors included. Modules are imported
by the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.errors import StediError

if TYPE_CHECKING:
    from stedi.build import Build
    from stedi.lake import Lake
    from stedi.landing import Landing

_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    options = parser().parse_args(arguments)
    os.umask(0o077)  # what the lake writes is its owner's alone
    try:
        signal.signal(signal.SIGTERM, _interrupt)
        code: int = options.run(options)
        sys.stdout.flush()
        return code
    except StediError as error:
        return _fail(options, str(error), error.exit_code, type(error).__name__)
    except KeyboardInterrupt:
        return _fail(
            options,
            "interrupted: what was committed stays; run the same command again to go on",
            _INTERRUPTED,
        )
    except BrokenPipeError:
        # whoever read our output has gone; Python must not complain again at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        return _fail(options, f"{where}{error.strerror or type(error).__name__}; nothing half-written is visible", 1)
    except Exception as error:
        if os.environ.get("STEDI_DEBUG"):
            raise
        # its text and traceback could hold a customer's data
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        return _fail(options, f"unforeseen {type(error).__name__} at {place}; set STEDI_DEBUG=1 to see all of it", 1)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of every command."""
    common = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument("--lake", metavar="PATH", help="the lake's folder (default: $STEDI_LAKE, then ./lake)")
    common.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    top = argparse.ArgumentParser(
        prog="stedi",
        description="A consent-aware data lake of step detection data.",
        parents=[common],
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"stedi {_version()}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[common], allow_abbrev=False
        )
        sub.set_defaults(run=run)
        return sub

    sub = command("demo", _demo, "makes sample landing data, lands it, builds, and shows the zones")
    sub.add_argument("--customers", type=_positive, default=200, help="customers to invent (default: 200)")
    sub.add_argument("--readings", type=_positive, default=20_000, help="readings to invent (default: 20,000)")
    sub.add_argument("--seed", type=int, default=7, help="same seed, same data (default: 7)")

    sub = command("init", _init, "makes a lake: settings, catalog and key")
    sub.add_argument(
        "--readings",
        choices=("all", "since-consent"),
        default="all",
        help="which readings of a consenting customer are used (default: all)",
    )

    sub = command("land", _land, "lands files, folders or globs: what is new of them")
    sub.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder or a glob")
    sub.add_argument(
        "--feed",
        choices=("customer", "accelerometer", "step_trainer"),
        help="the feed of all of them (default: told by folder or file name, then by the fields)",
    )

    sub = command("build", _build, "builds what has changed")
    sub.add_argument("--dry-run", action="store_true", help="only show what would be done, and why")
    sub.add_argument("--full", action="store_true", help="rebuild everything")

    command("tables", _tables, "lists tables with zone, rows, size and freshness")

    sub = command("history", _history, "lists a table's snapshots with what each was built from")
    sub.add_argument("table", metavar="TABLE")

    sub = command("query", _query, "runs one read-only SELECT over the lake's tables")
    sub.add_argument("sql", metavar="SQL", help="the SELECT, or - to read it from stdin")
    sub.add_argument(
        "--format",
        choices=("table", "csv", "json", "parquet"),
        help="default: table; json with --json; by the ending of --output",
    )
    sub.add_argument("--output", metavar="FILE", type=Path, help="write to a file, which is whole or absent")
    sub.add_argument(
        "--at",
        metavar="SNAPSHOT_OR_TIME",
        help="read the tables as they were: a snapshot's id or an ISO 8601 time",
    )

    sub = command("quarantine", _quarantine, "lists the records that could not be taken, by reason and file")
    choice = sub.add_mutually_exclusive_group()
    choice.add_argument("--records", action="store_true", help="list record by record")
    choice.add_argument("--show", metavar="FILE:OFFSET", help="print one record's raw bytes, escaped")
    choice.add_argument("--replay", action="store_true", help="land again what the contracts accept now")
    choice.add_argument("--withheld", action="store_true", help="list the readings that belong to nobody for certain")

    sub = command("crawl", _crawl, "infers each feed's schema from files and shows where it drifts from the contract")
    sub.add_argument("paths", nargs="+", metavar="PATH", help="a file, a folder or a glob")
    sub.add_argument("--sample", type=_positive, metavar="N", help="look at the first N records of each file")

    sub = command("ddl", _ddl, "prints the tables' DDL for Athena or Spark")
    sub.add_argument("--dialect", choices=("athena", "spark"), default="athena", help="default: athena")
    sub.add_argument(
        "--location",
        metavar="URI",
        default="s3://BUCKET/lake",
        help="where the lake lies (default: s3://BUCKET/lake)",
    )
    sub.add_argument(
        "--inbox",
        metavar="URI",
        default="s3://BUCKET/inbox",
        help="the landing prefix (default: s3://BUCKET/inbox)",
    )

    sub = command("ndjson", _ndjson, "rewrites any JSON shape as newline-delimited JSON")
    sub.add_argument("source", metavar="SRC", type=Path, help="a file or a folder")
    sub.add_argument("target", metavar="DST", type=Path, help="a file, or a folder that mirrors SRC")
    sub.add_argument("--rejects", metavar="FILE", type=Path, help="write what is no record there")
    return top


def _demo(options: argparse.Namespace) -> int:
    import shutil

    from stedi import sample
    from stedi.lake import Lake

    base = Path("build") / "demo"
    progress = _Progress()
    for name in ("inbox", "lake"):
        shutil.rmtree(base / name, ignore_errors=True)
    (base / "demo.key").unlink(missing_ok=True)
    progress("make sample data", None)
    sample.write(base / "inbox", customers=options.customers, readings=options.readings, seed=options.seed)
    os.environ.setdefault("STEDI_KEY_FILE", str((base / "demo.key").absolute()))
    lake = Lake.create(base / "lake")
    landing = lake.land(base / "inbox", progress=progress)
    built = lake.build(progress=lambda line: progress(line, None))
    progress.close()
    if _wants_json(options):
        _print_json(
            {
                "lake": str(base / "lake"),
                "land": _landing_json(landing),
                "build": _build_json(built),
                **_tables_json(lake),
            }
        )
        return 0
    _print(_tables_text(lake))
    _print(f"\nlanded      {landing.accepted:,} of {landing.seen:,} records; {landing.quarantined:,} in quarantine")
    left_out = built.customers - built.consenting
    agree = f"{built.consenting:,} of {built.customers:,} customers agree to research"
    _print(f"consent     {agree}; {left_out:,} are left out")
    _print(f"withheld    {built.withheld:,} readings of shared serial numbers")
    _print(
        f"\ntry: STEDI_KEY_FILE={base}/demo.key stedi --lake {base}/lake query 'select * from "
        "machine_learning_curated limit 5'"
    )
    return 0


def _init(options: argparse.Namespace) -> int:
    from stedi.lake import Lake
    from stedi.privacy import pseudonyms

    lake = Lake.create(_where(options), readings=options.readings)
    file = lake.config.key_file or str(pseudonyms.default_file(lake.config.lake_id))
    where = pseudonyms.VARIABLE if pseudonyms.from_environment() else file
    if _wants_json(options):
        _print_json(
            {
                "lake": str(lake.root),
                "readings": lake.config.readings,
                "key": where,
                "fingerprint": lake.config.key_fingerprint,
            }
        )
    else:
        _print(f"made {lake.root}\nkey  {where}\nBack the key up: without it the lake cannot be built again.")
    return 0


def _land(options: argparse.Namespace) -> int:
    from stedi.lake import Lake

    progress = _Progress()
    landing = Lake.open_or_create(_where(options)).land(*options.paths, feed=options.feed, progress=progress)
    progress.close()
    for skipped in landing.skipped:
        _say(f"{skipped.name}: {skipped.why}")
    for feed, counts in landing.drift.items():
        for what, count in sorted(counts.items()):
            _say(f"drift: {feed}: {what}: {count:,} records")
    if _wants_json(options):
        _print_json(_landing_json(landing))
    else:
        again = sum(file.already_landed for file in landing.files)
        _print(
            f"{len(landing.files):,} files, {again:,} of them landed before: {landing.seen:,} records "
            f"seen, {landing.accepted:,} "
            f"accepted, {landing.quarantined:,} quarantined, {landing.erased:,} erased"
        )
    return 1 if any(skipped.failed for skipped in landing.skipped) else 0


def _landing_json(landing: Landing) -> dict[str, object]:
    keys = ("name", "feed", "sha256", "seen", "accepted", "quarantined", "erased", "already_landed")
    return {
        "files": [{key: getattr(file, key) for key in keys} for file in landing.files],
        "seen": landing.seen,
        "accepted": landing.accepted,
        "quarantined": landing.quarantined,
        "erased": landing.erased,
        "skipped": [{"name": s.name, "why": s.why, "failed": s.failed} for s in landing.skipped],
        "drift": landing.drift,
    }


def _build(options: argparse.Namespace) -> int:
    from stedi.lake import Lake

    lake = Lake.open_or_create(_where(options))
    if options.dry_run:
        steps = lake.plan(full=options.full)
        if _wants_json(options):
            _print_json({"tables": [{"name": s.table, "action": s.action, "reason": s.reason} for s in steps]})
        else:
            _print_table(("table", "action", "reason"), [(s.table, s.action, s.reason) for s in steps])
        return 0
    progress = _Progress()
    built = lake.build(full=options.full, progress=lambda line: progress(line, None))
    progress.close()
    if _wants_json(options):
        _print_json(_build_json(built))
    elif not built.run:
        _print("nothing to do: every table is up to date")
    else:
        _print_table(
            ("table", "action", "reason", "added", "removed", "rows", "seconds"),
            [
                (t.name, t.action, t.reason, t.rows_added, t.rows_removed, t.rows, round(t.seconds, 2))
                for t in built.tables
            ],
        )
        if built.withheld:
            _print(
                f"withheld: {built.withheld:,} readings of shared serial numbers; list them with "
                "`stedi quarantine --withheld`"
            )
    return 0


def _build_json(built: Build) -> dict[str, object]:
    keys = ("name", "action", "reason", "rows_added", "rows_removed", "rows", "seconds")
    return {
        "run": built.run,
        "tables": [{key: getattr(table, key) for key in keys} for table in built.tables],
        "withheld": built.withheld,
        "customers": built.customers,
        "consenting": built.consenting,
    }


def _tables(options: argparse.Namespace) -> int:
    lake = _open(options)
    if _wants_json(options):
        _print_json(_tables_json(lake))
    else:
        _print(_tables_text(lake))
    return 0


def _tables_json(lake: Lake) -> dict[str, object]:
    return {
        "tables": [
            {
                "name": t.name,
                "zone": t.zone,
                "rows": t.rows,
                "bytes": t.bytes,
                "snapshot": t.snapshot,
                "updated": t.updated and t.updated.isoformat().replace("+00:00", "Z"),
            }
            for t in lake.tables()
        ]
    }


def _tables_text(lake: Lake) -> str:
    from stedi import output

    rows = [
        (t.zone, t.name, t.rows, t.bytes, t.updated.strftime("%Y-%m-%d %H:%M:%SZ") if t.updated else "")
        for t in lake.tables()
    ]
    return output.table(rows, ("zone", "table", "rows", "bytes", "updated"))


def _history(options: argparse.Namespace) -> int:
    from datetime import UTC, datetime

    snapshots = _open(options).history(options.table)
    if _wants_json(options):
        _print_json(
            {
                "table": options.table,
                "snapshots": [
                    {
                        "id": s.id,
                        "parent": s.parent,
                        "at": datetime.fromtimestamp(s.at / 1000, UTC).isoformat().replace("+00:00", "Z"),
                        "operation": s.operation,
                        "summary": dict(s.summary),
                    }
                    for s in snapshots
                ],
            }
        )
        return 0
    _print_table(
        ("snapshot", "at", "operation", "rows", "run or batch", "sql", "policy", "built from"),
        [
            (
                str(s.id),
                datetime.fromtimestamp(s.at / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ"),
                s.operation,
                s.total("records"),
                s.summary.get("stedi.run", s.summary.get("stedi.batch", "")),
                s.summary.get("stedi.sql", ""),
                s.summary.get("stedi.policy", ""),
                s.summary.get("stedi.inputs", ""),
            )
            for s in snapshots
        ],
    )
    return 0


def _query(options: argparse.Namespace) -> int:
    from stedi import output

    sql = sys.stdin.read() if options.sql == "-" else options.sql
    form = options.format or ("json" if _wants_json(options) else output.format_of(options.output))
    with _open(options).query(sql, at=options.at) as result:
        output.write(result.reader(), form, options.output or sys.stdout.buffer)
    return 0


def _quarantine(options: argparse.Namespace) -> int:
    lake = _open(options)
    quarantine = lake.quarantine()
    if options.show:
        raw, size = quarantine.raw(options.show)
        text = _escaped(raw)
        if _wants_json(options):
            _print_json({"raw": text, "size": size})
        else:
            _print(text)
            if size > len(raw):
                _say(f"the first {len(raw):,} of {size:,} bytes")
    elif options.replay:
        landed, stay = quarantine.replay()
        if _wants_json(options):
            _print_json({"landed": landed, "total": stay})
        else:
            _print(f"landed {landed:,} records; {stay:,} stay in quarantine")
    elif options.withheld:
        rows = lake.withheld()
        if _wants_json(options):
            names = ("sensorReadingTime", "serialNumber", "distanceFromObject", "matches")
            plain = [(at.isoformat().replace("+00:00", "Z"), *rest) for at, *rest in rows]
            _print_json({"records": [dict(zip(names, row, strict=True)) for row in plain], "total": len(rows)})
        else:
            _print_table(
                ("time", "serial number", "distance", "claimants who moved"),
                [(str(at), *rest) for at, *rest in rows],
            )
    elif _wants_json(options):
        keys = ("feed", "file", "offset", "line", "reason")
        _print_json(
            {
                "records": [{k: getattr(r, k) for k in keys} for r in quarantine.records()],
                "total": quarantine.total(),
            }
        )
    elif options.records:
        _print_table(
            ("record", "feed", "file", "line", "reason", "bytes"),
            [(r.handle, r.feed, r.file, r.line, r.reason, r.size) for r in quarantine.records()],
        )
    else:
        _print_table(("reason", "feed", "file", "records"), quarantine.counts())
    return 0


def _crawl(options: argparse.Namespace) -> int:
    from stedi import crawl

    report = crawl.crawl(options.paths, sample=options.sample)
    if _wants_json(options):
        _print_json(crawl.to_json(report))
    else:
        _print(crawl.render(report))
    return 1 if report.failed else 0


def _ddl(options: argparse.Namespace) -> int:
    from stedi import ddl

    text = ddl.ddl(options.dialect, options.location, options.inbox)
    if _wants_json(options):
        _print_json({"dialect": options.dialect, "ddl": text})
    else:
        _print(text)
    return 0


def _ndjson(options: argparse.Namespace) -> int:
    from stedi import ndjson

    summary = ndjson.rewrite(options.source, options.target, rejects=options.rejects)
    if _wants_json(options):
        _print_json(ndjson.to_json(summary))
    else:
        _print(ndjson.render(summary))
    return 1 if summary.failed else 0


def _where(options: argparse.Namespace) -> str:
    return str(getattr(options, "lake", None) or os.environ.get("STEDI_LAKE") or "lake")


def _open(options: argparse.Namespace) -> Lake:
    from stedi.lake import Lake

    return Lake.open(_where(options))


def _wants_json(options: argparse.Namespace) -> bool:
    return bool(getattr(options, "json", False))


def _version() -> str:
    from stedi import __version__

    return __version__


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, found {text!r}")
    return value


def _escaped(raw: bytes) -> str:
    """Returns bytes as text that no terminal acts upon."""
    text = raw.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c == " " else c.encode("unicode_escape").decode("ascii") for c in text)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _fail(options: argparse.Namespace, message: str, code: int, kind: str = "") -> int:
    _say(f"stedi: {message}")
    if _wants_json(options):
        _print_json({"error": {"type": kind, "message": message, "exit": code}})
    return code


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_table(headers: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    from stedi import output

    _print(output.table(rows, headers))


def _print_json(document: object) -> None:
    json.dump(document, sys.stdout, ensure_ascii=False)
    sys.stdout.write("\n")


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")


class _Progress:
    """What is being done, on stderr: a bar on a terminal, a line a stage otherwise."""

    def __init__(self) -> None:
        self._terminal = sys.stderr.isatty()
        self._shown = ""

    def __call__(self, what: str, share: float | None) -> None:
        if self._terminal:
            filled = "" if share is None else f" [{'#' * int(30 * share):30}] {share:4.0%}"
            sys.stderr.write(f"\r\x1b[K{what}{filled}")
            sys.stderr.flush()
        elif what != self._shown:
            _say(what)
        self._shown = what

    def close(self) -> None:
        if self._terminal and self._shown:
            sys.stderr.write("\r\x1b[K")


if __name__ == "__main__":
    sys.exit(main())
