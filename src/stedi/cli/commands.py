"""The commands of the command line with their options.

A command is registered by one call of `command`: its name, the function that runs it, and what it does in a few words.
The actions of `stedi dataset` are in `datasets`; `parsing` has what all options share.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from stedi.cli import (
    aws,
    completion,
    datasets,
    dictionary,
    monitoring,
    operations,
    parsing,
    pipeline,
    privacy,
    reports,
    rights,
)
from stedi.cli.parsing import AddCommand

_EXACT = "take each address as it was delivered, plain or not; JSON's escapes name what cannot be typed"
"""The help of `--exact`, which several commands have."""


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of every command.

    Args:
        only: The command that a call names (`named`): the options of all others are left out. By default all are there.
    """
    common = parsing.Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--lake",
        metavar="PATH",
        type=parsing.lake,
        help="the lake's folder, or s3://BUCKET/PREFIX (default: $STEDI_LAKE, then ./lake)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    common.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        metavar="WHEN",
        help="auto (default: on a terminal, unless $NO_COLOR is set), always or never",
    )
    top = parsing.Parser(
        prog="stedi",
        description="A consent-aware data lake of step detection data.",
        parents=[common],
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"stedi {_version()}")
    command = parsing.commands(top, common, "command", only)
    for group in (_flow, _tables, _query, _rights, _erasure, _proofs, _care, _schemas):
        group(command)
    sub = command("aws", aws.status, "deploys the lake on AWS, runs it there, and removes it")
    _aws(parsing.commands(sub, common, "action"))
    sub = command("dataset", datasets.create, "creates and manages training sets")
    datasets.add(parsing.commands(sub, common, "action"))
    return top


def _flow(command: AddCommand) -> None:
    """Adds what moves data: deliveries, tables, files."""
    sub = command("demo", pipeline.demo, "makes sample data, lands and builds them, and shows the tables")
    sub.add_argument(
        "--customers", type=parsing.positive, default=200, help="number of synthetic customers (default: 200)"
    )
    sub.add_argument(
        "--readings", type=parsing.positive, default=20_000, help="number of synthetic readings (default: 20,000)"
    )
    sub.add_argument("--walkers", type=int, default=4, help="people who walk, with labelled steps (default: 4)")
    sub.add_argument("--seed", type=int, default=7, help="same seed, same data (default: 7)")

    sub = command("init", pipeline.init, "makes a lake: settings, catalog and key")
    sub.add_argument(
        "--readings",
        choices=("all", "since-consent"),
        default="all",
        help="which readings of a consenting customer are used (default: all)",
    )

    sub = command("land", pipeline.land, "lands new files from paths, folders or globs")
    sub.add_argument("paths", nargs="+", metavar="PATH", type=parsing.delivered, help="a file, a folder or a glob")
    sub.add_argument(
        "--feed",
        choices=("customer", "accelerometer", "step_trainer"),
        help="the feed of all files (default: from the folder or file name, then from the fields)",
    )

    _engine(sub, "where files are read and written: this machine (duckdb, default) or Spark's executors; same rows")
    sub.add_argument("--build", action="store_true", help="build at once")

    sub = command("build", pipeline.build, "builds what has changed")
    sub.add_argument("--dry-run", action="store_true", help="only show the plan and its reasons")
    sub.add_argument("--full", action="store_true", help="rebuild everything")
    _engine(sub, "what computes the tables (default: duckdb); same rows")
    sub.add_argument("--wait", action="store_true", help="wait for a running build instead of failing")

    sub = command("watch", monitoring.watch, "lands files as they stop growing, and builds, until it is stopped")
    sub.add_argument(
        "inbox", metavar="INBOX", type=parsing.delivered, help="the folder or s3:// prefix to which files are delivered"
    )
    sub.add_argument(
        "--every",
        metavar="TIME",
        type=parsing.interval,
        default=timedelta(seconds=2),
        help="the polling interval (default: 2s)",
    )

    sub = command("maintain", pipeline.maintain, "compacts small files, expires old snapshots, removes unused files")
    sub.add_argument("--dry-run", action="store_true", help="only show what would be done")
    _engine(sub, "where files are rewritten: this machine (duckdb, default) or Spark's executors")


def _tables(command: AddCommand) -> None:
    """Adds what shows tables, and what is not in them."""
    command("tables", pipeline.tables, "lists tables with zone, rows, size and freshness")

    sub = command("history", pipeline.history, "lists a table's snapshots with what each was built from")
    sub.add_argument("table", metavar="TABLE")
    sub.add_argument("--verbose", action="store_true", help="also show the ids of snapshots and runs")

    sub = command("tag", operations.tag, "tags the current tables below landing, for --at, or lists the tags")
    sub.add_argument("name", nargs="?", metavar="NAME", help="the new tag; without one, tags are listed")
    sub.add_argument("--delete", metavar="NAME", help="delete a tag; maintenance removes what only the tag kept")

    sub = command("quarantine", pipeline.quarantine, "lists refused records by reason and file")
    choice = sub.add_mutually_exclusive_group()
    choice.add_argument("--records", action="store_true", help="list each record")
    choice.add_argument("--fields", action="store_true", help="count the wrong fields of the first 1,000 records")
    choice.add_argument("--show", metavar="FILE:OFFSET", help="print one record's raw bytes, escaped")
    choice.add_argument("--replay", action="store_true", help="land the records that the contracts accept now")
    choice.add_argument("--withheld", action="store_true", help="list the readings without a certain owner")

    command("roles", pipeline.roles, "prints which tables and columns each role sees in a query")


def _query(command: AddCommand) -> None:
    """Adds `query`."""
    sub = command("query", aws.query, "runs one read-only SELECT over the lake's tables")
    sub.add_argument("sql", metavar="SQL", help="the SELECT, or - to read it from stdin")
    sub.add_argument(
        "--format",
        choices=("table", "vertical", "markdown", "csv", "json", "jsonl", "parquet", "arrow"),
        help="default: table; json with --json; by the ending of --output",
    )
    sub.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="write to a file, atomically; compressed if its name ends in .gz or .zst",
    )
    sub.add_argument("--columns", metavar="NAME,...", help="write only these columns, in this order")
    sub.add_argument(
        "--time-zone", metavar="ZONE", help="write instants in this time zone, such as Europe/Berlin (default: UTC)"
    )
    sub.add_argument(
        "--at",
        metavar="TAG_SNAPSHOT_OR_TIME",
        help="read the tables as they were: a tag, a snapshot's id or an ISO 8601 time",
    )
    sub.add_argument(
        "--as-published",
        action="store_true",
        help="officer, with --at: also show rows of people who no longer consent",
    )
    sub.add_argument(
        "--role",
        choices=("scientist", "engineer", "officer"),
        help="query in this role; other columns are masked (default: query.role of the lake, else engineer)",
    )
    sub.add_argument(
        "--parameter",
        metavar="NAME=VALUE",
        action="append",
        help="the value of $NAME in the SELECT: a number, true, false or null, else a text; may be repeated",
    )
    sub.add_argument(
        "--safe-for-spreadsheets",
        action="store_true",
        help="csv: put an apostrophe before texts that a spreadsheet would evaluate",
    )
    sub.add_argument("--engine", choices=("duckdb", "athena"), default="duckdb", help="default: duckdb")
    sub.add_argument("--workgroup", metavar="NAME", help="Athena's workgroup (default: stedi-ROLE)")


def _rights(command: AddCommand) -> None:
    """Adds what people ask for: their data, their consent."""
    sub = command("explain", rights.explain, "explains why rows of a customer or table are where they are")
    sub.add_argument(
        "address", nargs="?", metavar="EMAIL", help="an address in any spelling, or - to read it from stdin"
    )
    sub.add_argument("--exact", action="store_true", help=_EXACT)
    sub.add_argument("--table", metavar="TABLE", help="explain rows of this table instead")
    sub.add_argument("--where", metavar="SQL", help="the condition that selects them")
    sub.add_argument(
        "--role",
        choices=("scientist", "engineer", "officer"),
        help="the role in which the condition is evaluated (default: query.role of the lake)",
    )

    sub = command(
        "withdraw", rights.withdraw, "lands customers' withdrawals from research; the next build removes them"
    )
    _addresses(sub)
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub.add_argument("--build", action="store_true", help="build at once")
    sub.add_argument(
        "--dry-run", action="store_true", help="only show how many are known and consent, and which are unknown"
    )

    sub = command("export", rights.export, "writes all data of customers, and of nobody else")
    _addresses(sub)
    sub.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="a new or empty folder outside of lakes and inboxes"
    )
    sub.add_argument("--zip", action="store_true", help="write one zip file instead")

    sub = command("consent", rights.consent, "counts known and consenting customers over time")
    sub.add_argument(
        "--by", choices=("day", "week", "month"), default="month", help="how long a period is, in UTC (default: month)"
    )
    sub.add_argument("--format", choices=("table", "csv", "json"), help="default: table; json with --json")


def _erasure(command: AddCommand) -> None:
    """Adds `erase`, and what checks its receipts."""
    sub = command("erase", privacy.erase, "erases all data of customers, and keeps older data out")
    _addresses(sub)
    sub.add_argument(
        "--inbox",
        metavar="PATH",
        type=parsing.delivered,
        action="append",
        help="also rewrite delivered files below this path without them",
    )
    sub.add_argument(
        "--reference", metavar="TEXT", help="your name for the request, stored in the receipt; no personal data"
    )
    sub.add_argument(
        "--letter", metavar="FILE", type=Path, help="write a letter to the person in plain words (.html or .txt)"
    )
    sub.add_argument("--yes", action="store_true", help="do not ask")
    choice = sub.add_mutually_exclusive_group()
    choice.add_argument("--dry-run", action="store_true", help="only show what would be removed")
    choice.add_argument("--resume", action="store_true", help="finish an interrupted erasure")
    choice.add_argument(
        "--replay",
        metavar="DIR",
        help="apply the journal or receipts in DIR to a lake that was restored or re-created",
    )
    choice.add_argument("--list", action="store_true", help="list the receipts")
    choice.add_argument("--verify", metavar="RECEIPT", help="check a receipt's signature, by its id or file")
    _engine(sub, "where files are searched and rewritten: this machine (duckdb, default) or Spark's executors")

    sub = command("verify", privacy.verify, "checks what a lake has signed; needs neither lake nor key")
    sub.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a receipt, report, recall or release, or a folder of them"
    )
    sub.add_argument("--public-key", metavar="FILE", type=Path, help="the key that must have signed it (PEM)")


def _proofs(command: AddCommand) -> None:
    """Adds what proves a lake, and what shows that to people."""
    sub = command(
        "audit", operations.audit, "proves the rules of consent over the tables, and that files are as written"
    )
    sub.add_argument("--files", action="store_true", help="read every file and compare its SHA-256")
    sub.add_argument(
        "--report",
        metavar="FILE",
        type=Path,
        help="write the findings as .html or .json, and their signature to FILE.sig",
    )
    sub.add_argument("--risk", action="store_true", help="measure how well the training table identifies people")
    _engine(
        sub,
        "where the proof runs and, with --files, files are read: this machine (duckdb, default) or Spark's executors",
    )

    sub = command("report", reports.report, "writes one page about the lake: consent, tables, releases, risk")
    sub.add_argument(
        "--output",
        metavar="FILE",
        type=Path,
        help="the page, or its content if the name ends in .json (default: report.html here)",
    )
    sub.add_argument(
        "--since",
        metavar="FILE",
        type=Path,
        help="an earlier report to compare with (default: the one that is overwritten)",
    )

    sub = command("log", operations.log, "lists who was shown rows of people: when, in which role, of which tables")
    sub.add_argument("--since", metavar="TIME", type=parsing.time, help="only entries from this ISO 8601 time on, UTC")


def _care(command: AddCommand) -> None:
    """Adds what keeps a lake in order."""
    sub = command(
        "status",
        monitoring.status,
        "shows what ran last, what waits, and what is late or wrong; exits 3 if anything is",
    )
    sub.add_argument(
        "--max-age",
        metavar="TIME",
        type=parsing.duration,
        default=timedelta(hours=26),
        help="how long ago the last landing and build may be, as 90m, 26h or 8d (default: 26h)",
    )

    sub = command("runs", monitoring.runs, "lists runs, newest first: command, time, duration, rows, outcome")
    sub.add_argument(
        "--limit", type=parsing.positive, metavar="N", default=50, help="list at most N runs (default: 50)"
    )

    sub = command("doctor", monitoring.doctor, "checks whether this machine can run a lake, and says what to do if not")
    sub.add_argument("what", nargs="?", choices=("aws",), metavar="aws", help="also check the AWS account")

    sub = command(
        "repair", operations.repair, "repairs the damage that audit --files finds, as far as the lake's own data allow"
    )
    sub.add_argument(
        "--accept-rollback",
        action="store_true",
        help="accept a lake that was rolled back; withdrawals and erasures since then are lost",
    )

    sub = command("adopt", operations.adopt, "makes a copied or moved lake writable at its new place")
    sub.add_argument(
        "--new-id", action="store_true", help="give it a new id, since the original still exists elsewhere"
    )

    sub = command(
        "migrate", monitoring.migrate, "brings a lake of an earlier version to this version's format, with a backup"
    )
    choice = sub.add_mutually_exclusive_group()
    choice.add_argument("--dry-run", action="store_true", help="only show what would be done")
    choice.add_argument("--back", action="store_true", help="restore the files that the last migration changed")

    sub = command("key", operations.key, "shows the fingerprint of the pseudonym key, or changes the key")
    sub.add_argument(
        "action", choices=("show", "rotate"), metavar="ACTION", help="show or rotate; neither prints the key itself"
    )
    sub.add_argument("--to", metavar="FILE", type=Path, help="rotate: the new key's file, created if needed")
    sub.add_argument("--yes", action="store_true", help="rotate: do not ask")

    sub = command("completion", completion.completion, "prints a completion script for the shell")
    sub.add_argument("shell", choices=completion.SHELLS, metavar="SHELL", help="bash, zsh or fish")


def _schemas(command: AddCommand) -> None:
    """Adds what explains data, and rewrites them for other readers."""
    sub = command("crawl", pipeline.crawl, "infers the schema of files and shows where it differs from the contract")
    sub.add_argument("paths", nargs="+", metavar="PATH", type=parsing.delivered, help="a file, a folder or a glob")
    sub.add_argument("--sample", type=parsing.positive, metavar="N", help="read only the first N records of each file")

    sub = command("describe", dictionary.describe, "explains a table's rows and columns, with units")
    sub.add_argument("table", metavar="TABLE")

    sub = command("contract", dictionary.contract, "prints data contracts in the Open Data Contract Standard (YAML)")
    sub.add_argument("table", nargs="?", metavar="TABLE", help="one table (default: all, in one contract)")

    sub = command("ddl", pipeline.ddl, "prints the tables' DDL for Athena or Spark")
    sub.add_argument("--dialect", choices=("athena", "spark"), default="athena", help="default: athena")
    sub.add_argument(
        "--location",
        metavar="URI",
        default="s3://BUCKET/lake",
        help="the lake's location (default: s3://BUCKET/lake)",
    )
    sub.add_argument(
        "--inbox",
        metavar="URI",
        default="s3://BUCKET/inbox",
        help="the landing prefix (default: s3://BUCKET/inbox)",
    )
    sub.add_argument(
        "--views",
        choices=("scientist", "engineer", "officer"),
        help="print views for this role instead, other columns null",
    )

    sub = command("ndjson", pipeline.ndjson, "rewrites any JSON shape as newline-delimited JSON")
    sub.add_argument("source", metavar="SRC", type=Path, help="a file or a folder")
    sub.add_argument("target", metavar="DST", type=Path, help="a file, or a folder that mirrors SRC")
    sub.add_argument("--rejects", metavar="FILE", type=Path, help="write the text that is not a record to this file")


def _aws(action: AddCommand) -> None:
    """Adds the actions of `stedi aws`."""

    def stack(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--stack", metavar="NAME", default="stedi", help="the stack's name (default: stedi)")

    sub = action("deploy", aws.deploy, "creates or updates the stack: shows the changes and asks first")
    stack(sub)
    sub.add_argument("--wheel", metavar="FILE", type=Path, help="the project's wheel (default: the one in dist/)")
    sub.add_argument(
        "--set", metavar="NAME=VALUE", action="append", default=[], help="a parameter of the templates; may be repeated"
    )
    sub.add_argument("--yes", action="store_true", help="do not ask")
    stack(action("status", aws.status, "shows the stack, its resources, and the latest runs"))
    sub = action("run", aws.run, "starts the job and follows its log; fails if the job does")
    stack(sub)
    sub.add_argument("--workers", type=parsing.positive, metavar="N", help="workers of this run (default: the stack's)")
    sub = action("cost", aws.cost, "estimates what a lake costs on AWS each month")
    for name, default, text in (
        ("customers", 10_000, "customers"),
        ("readings", 650, "readings of each customer a day"),
        ("files", 1_000, "files delivered a day"),
        ("runs", 4, "runs of the job a day"),
        ("queries", 20, "queries a day over the whole training table"),
        ("retention-days", 730, "days that readings stay in the lake"),
        ("inbox-days", 400, "days that delivered files stay"),
    ):
        sub.add_argument(
            f"--{name}", type=parsing.positive, metavar="N", default=default, help=f"{text} (default: {default:,})"
        )
    sub = action("destroy", aws.destroy, "deletes the stack; the lake, its bucket and its keys stay")
    stack(sub)
    sub.add_argument("--data", action="store_true", help="delete the lake, its bucket and its keys as well")
    sub.add_argument("--yes", action="store_true", help="do not ask")


def _addresses(sub: argparse.ArgumentParser) -> None:
    """Adds the ways to name customers."""
    sub.add_argument("addresses", nargs="*", metavar="EMAIL", help="an address in any spelling, or - to read stdin")
    sub.add_argument("--file", metavar="PATH", type=Path, help="read addresses from a file, one a line")
    sub.add_argument("--exact", action="store_true", help=_EXACT)


def _engine(sub: argparse.ArgumentParser, text: str) -> None:
    """Adds the choice of what computes."""
    sub.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help=text)


def _version() -> str:
    from stedi._version import __version__

    return __version__


def named(words: Sequence[str]) -> str | None:
    """Returns the command that a call's words name.

    It is empty where the words ask for the help or the version, or end without a command, and None where something else
    stands before a command.
    """
    place = _place_of_command(words)
    if place == len(words):
        return ""
    word = words[place]
    if word.startswith("-"):
        return "" if word in ("-h", "--help", "--version") else None
    return word


def asked_for_help(words: Sequence[str]) -> list[str]:
    """Returns a call's words, with `help COMMAND` as `COMMAND --help`."""
    place = _place_of_command(words)
    if words[place : place + 1] != ["help"]:
        return list(words)
    return [*words[:place], *(word for word in words[place + 1 :] if word != "help"), "--help"]


def _place_of_command(words: Sequence[str]) -> int:
    """Returns the place of the first word that is no global option or its value; the number of words if all are."""
    place = 0
    while place < len(words):
        word = words[place]
        if word in ("--lake", "--color"):
            place += 1
        elif word != "--json" and not word.startswith(("--lake=", "--color=")):
            return place
        place += 1
    return len(words)
