"""The parser: every command of the command line with its options.

A command is registered by one call of `command` in `parser`: its name, the function that runs it, and what it does in
a few words. The actions of `stedi dataset` are in `datasets`.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn, cast

from stedi.cli import (
    aws,
    completion,
    datasets,
    dictionary,
    hooks,
    monitoring,
    operations,
    pipeline,
    privacy,
    reports,
    rights,
    terminal,
)
from stedi.errors import unnamed

AddCommand = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
"""Adds a command with its name, function and short description; returns its parser."""

_EXACT = "take each address as it was delivered, plain or not; JSON's escapes name what cannot be typed"
"""The help of `--exact`, which several commands have."""


def parser(only: str | None = None) -> argparse.ArgumentParser:
    """Returns the parser of every command.

    Args:
        only: The called command: the others are left out, since describing them takes longer than some commands run. If
            there is no such command, all are described.
    """
    common = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    common.add_argument(
        "--lake",
        metavar="PATH",
        type=_lake,
        help="the lake's folder, or s3://BUCKET/PREFIX (default: $STEDI_LAKE, then ./lake)",
    )
    common.add_argument("--json", action="store_true", help="print one JSON document on stdout")
    common.add_argument(
        "--color",
        choices=("auto", "always", "never"),
        metavar="WHEN",
        help="auto (default: on a terminal, unless $NO_COLOR is set), always or never",
    )
    top = _Parser(
        prog="stedi",
        description="A consent-aware data lake of step detection data.",
        parents=[common],
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"stedi {_version()}")
    command = _commands(top, common, "command", only)

    def engine(sub: argparse.ArgumentParser, text: str) -> None:
        sub.add_argument("--engine", choices=("duckdb", "spark"), default="duckdb", help=text)

    sub = command("demo", pipeline.demo, "makes sample data, lands and builds them, and shows the tables")
    sub.add_argument("--customers", type=_positive, default=200, help="number of synthetic customers (default: 200)")
    sub.add_argument(
        "--readings", type=_positive, default=20_000, help="number of synthetic readings (default: 20,000)"
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
    sub.add_argument("paths", nargs="+", metavar="PATH", type=monitoring.delivered, help="a file, a folder or a glob")
    sub.add_argument(
        "--feed",
        choices=("customer", "accelerometer", "step_trainer"),
        help="the feed of all files (default: from the folder or file name, then from the fields)",
    )

    engine(sub, "where files are read and written: this machine (duckdb, default) or Spark's executors; same rows")
    sub.add_argument("--build", action="store_true", help="build at once")

    sub = command("build", pipeline.build, "builds what has changed")
    sub.add_argument("--dry-run", action="store_true", help="only show the plan and its reasons")
    sub.add_argument("--full", action="store_true", help="rebuild everything")
    engine(sub, "what computes the tables (default: duckdb); same rows")
    sub.add_argument("--wait", action="store_true", help="wait for a running build instead of failing")

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
    engine(
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

    sub = command("key", operations.key, "shows the fingerprint of the pseudonym key, or changes the key")
    sub.add_argument(
        "action", choices=("show", "rotate"), metavar="ACTION", help="show or rotate; neither prints the key itself"
    )
    sub.add_argument("--to", metavar="FILE", type=Path, help="rotate: the new key's file, created if needed")
    sub.add_argument("--yes", action="store_true", help="rotate: do not ask")

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

    sub = command("log", operations.log, "lists who was shown rows of people: when, in which role, of which tables")
    sub.add_argument("--since", metavar="TIME", type=_time, help="only entries from this ISO 8601 time on, UTC")

    command("tables", pipeline.tables, "lists tables with zone, rows, size and freshness")

    sub = command("history", pipeline.history, "lists a table's snapshots with what each was built from")
    sub.add_argument("table", metavar="TABLE")
    sub.add_argument("--verbose", action="store_true", help="also show the ids of snapshots and runs")

    sub = command("tag", operations.tag, "tags the current tables below landing, for --at, or lists the tags")
    sub.add_argument("name", nargs="?", metavar="NAME", help="the new tag; without one, tags are listed")
    sub.add_argument("--delete", metavar="NAME", help="delete a tag; maintenance removes what only the tag kept")

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

    command("roles", pipeline.roles, "prints which tables and columns each role sees in a query")

    sub = command("quarantine", pipeline.quarantine, "lists refused records by reason and file")
    choice = sub.add_mutually_exclusive_group()
    choice.add_argument("--records", action="store_true", help="list each record")
    choice.add_argument("--fields", action="store_true", help="count the wrong fields of the first 1,000 records")
    choice.add_argument("--show", metavar="FILE:OFFSET", help="print one record's raw bytes, escaped")
    choice.add_argument("--replay", action="store_true", help="land the records that the contracts accept now")
    choice.add_argument("--withheld", action="store_true", help="list the readings without a certain owner")

    sub = command(
        "withdraw", rights.withdraw, "lands customers' withdrawals from research; the next build removes them"
    )
    sub.add_argument("addresses", nargs="*", metavar="EMAIL", help="an address in any spelling, or - to read stdin")
    sub.add_argument("--file", metavar="PATH", type=Path, help="read addresses from a file, one a line")
    sub.add_argument("--exact", action="store_true", help=_EXACT)
    sub.add_argument("--yes", action="store_true", help="do not ask")
    sub.add_argument("--build", action="store_true", help="build at once")
    sub.add_argument(
        "--dry-run", action="store_true", help="only show how many are known and consent, and which are unknown"
    )

    sub = command("consent", rights.consent, "counts known and consenting customers over time")
    sub.add_argument(
        "--by", choices=("day", "week", "month"), default="month", help="how long a period is, in UTC (default: month)"
    )
    sub.add_argument("--format", choices=("table", "csv", "json"), help="default: table; json with --json")

    sub = command("export", rights.export, "writes all data of customers, and of nobody else")
    sub.add_argument("addresses", nargs="*", metavar="EMAIL", help="an address in any spelling, or - to read stdin")
    sub.add_argument("--file", metavar="PATH", type=Path, help="read addresses from a file, one a line")
    sub.add_argument("--exact", action="store_true", help=_EXACT)
    sub.add_argument(
        "--output", metavar="DIR", type=Path, required=True, help="a new or empty folder outside of lakes and inboxes"
    )
    sub.add_argument("--zip", action="store_true", help="write one zip file instead")

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

    sub = command("maintain", pipeline.maintain, "compacts small files, expires old snapshots, removes unused files")
    sub.add_argument("--dry-run", action="store_true", help="only show what would be done")
    engine(sub, "where files are rewritten: this machine (duckdb, default) or Spark's executors")

    sub = command("erase", privacy.erase, "erases all data of customers, and keeps older data out")
    sub.add_argument("addresses", nargs="*", metavar="EMAIL", help="a customer's address; - reads them from stdin")
    sub.add_argument("--file", metavar="FILE", type=Path, help="read addresses from a file, one a line")
    sub.add_argument("--exact", action="store_true", help=_EXACT)
    sub.add_argument(
        "--inbox",
        metavar="PATH",
        type=monitoring.delivered,
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
    engine(sub, "where files are searched and rewritten: this machine (duckdb, default) or Spark's executors")

    sub = command("verify", privacy.verify, "checks what a lake has signed; needs neither lake nor key")
    sub.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="a receipt, report, recall or release, or a folder of them"
    )
    sub.add_argument("--public-key", metavar="FILE", type=Path, help="the key that must have signed it (PEM)")

    sub = command("crawl", pipeline.crawl, "infers the schema of files and shows where it differs from the contract")
    sub.add_argument("paths", nargs="+", metavar="PATH", type=monitoring.delivered, help="a file, a folder or a glob")
    sub.add_argument("--sample", type=_positive, metavar="N", help="read only the first N records of each file")

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

    monitoring.add(command)

    sub = command("completion", completion.completion, "prints a completion script for the shell")
    sub.add_argument("shell", choices=completion.SHELLS, metavar="SHELL", help="bash, zsh or fish")

    sub = command("aws", aws.status, "deploys the lake on AWS, runs it there, and removes it")
    _aws(_commands(sub, common, "action"))

    sub = command("dataset", datasets.create, "creates and manages training sets")
    datasets.add(_commands(sub, common, "action"))
    [described] = [action for action in top._actions if isinstance(action, argparse._SubParsersAction)]
    # no such command: all are described, so that the message can suggest one
    return top if only is None or described.choices else parser()


class _SkippedParser:
    """Takes the description of a command that the call does not name."""

    def __getattr__(self, name: str) -> Callable[..., _SkippedParser]:
        return lambda *_, **__: self


def _commands(
    parser: argparse.ArgumentParser, common: argparse.ArgumentParser, dest: str, only: str | None = None
) -> AddCommand:
    """Returns a function that adds a command, or an action, with its name, function and short description."""
    subparsers = parser.add_subparsers(dest=dest, metavar=dest.upper(), required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        if only not in (None, name):
            return cast(argparse.ArgumentParser, _SkippedParser())
        sub = subparsers.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[common], allow_abbrev=False
        )
        if name in hooks.COMMANDS:
            hooks.add(sub)
        sub.set_defaults(run=run, parser=sub)
        return sub

    return add


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
    sub.add_argument("--workers", type=_positive, metavar="N", help="workers of this run (default: the stack's)")
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
            f"--{name}", type=_positive, metavar="N", default=default, help=f"{text} (default: {default:,})"
        )
    sub = action("destroy", aws.destroy, "deletes the stack; the lake, its bucket and its keys stay")
    stack(sub)
    sub.add_argument("--data", action="store_true", help="delete the lake, its bucket and its keys as well")
    sub.add_argument("--yes", action="store_true", help="do not ask")


class _Parser(argparse.ArgumentParser):
    """A parser whose help explains commands, and whose messages suggest corrections."""

    _words: Sequence[str] = ()
    """The words that it was given to parse."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        # every option of the type `Path` is refused a URI, without a word at the option
        self.register("type", Path, _path)

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override] # typeshed's overloads
        """Returns the options that the words set, and the words that it does not know."""
        self._words = sys.argv[1:] if args is None else args
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override] # typeshed's overloads
        """Returns the options that the words set; an unknown word ends the process with a message and the usage."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            # the command's own parser, whose usage and options the message is about
            at_hand: _Parser = getattr(found, "parser", self)
            if not rest[0].startswith("-"):
                at_hand.error(f"expected no further argument, found {rest[0]!r}")
            option = rest[0].partition("=")[0]
            if option in at_hand._option_string_actions:
                at_hand.error(f"expected {option} after the command, found it before: `{at_hand.prog} {option} ...`")
            known = [*at_hand._option_string_actions, *self._option_string_actions]
            at_hand.error(f"no option {rest[0]}{_meant(option, known)}")
        return found

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is None or value in action.choices:
            return
        known = [str(choice) for choice in action.choices]
        if isinstance(action, argparse._SubParsersAction):
            known += ["help"] if self.prog == "stedi" else []
            # an option of a command stands before it, and its value was taken for the command
            early = [word.partition("=")[0] for word in self._words[: self._words.index(value)]]
            early = [option for option in early if option[:2] == "--" and option not in self._option_string_actions]
            if early:
                found = f"found {early[0]} before it: `{self.prog} {action.metavar} {early[0]} ...`"
                raise argparse.ArgumentError(None, f"expected options of a command after it, {found}")
            meant = _meant(str(value), known) or f"; `{self.prog} --help` lists them"
            raise argparse.ArgumentError(None, f"no {str(action.metavar).lower()} {value!r}{meant}")
        listed = ", ".join(known)
        raise argparse.ArgumentError(action, f"expected one of {listed}, found {value!r}{_meant(str(value), known)}")

    def error(self, message: str) -> NoReturn:
        """Ends the command with a message without addresses, whatever the words of the call."""
        if message.endswith(": expected one argument"):
            message += ", found none; write one that begins with a hyphen as --OPTION=VALUE"
        show = self.print_usage
        if message.endswith((": COMMAND", ": ACTION")):
            unknown = [word for word in self._words if word[:1] == "-" and word not in self._option_string_actions]
            if unknown:
                message = f"no option {unknown[0]}{_meant(unknown[0], self._option_string_actions)}"
            else:
                show, message = self.print_help, f"expected {'a command' if self.prog == 'stedi' else 'an action'}"
        message = message.replace("the following arguments are required: ", "expected ")
        show(sys.stderr)
        terminal.say(f"{self.prog}: {unnamed(message)}")
        sys.exit(2)

    def format_usage(self) -> str:
        """Returns the form of a call in one line; the help lists the options."""
        self.usage = " ".join(["%(prog)s [OPTION ...]", *(_place(action) for action in self._get_positional_actions())])
        return super().format_usage()

    def format_help(self) -> str:
        """Returns the help: of everything in groups, or of one command with why and examples."""
        from stedi.cli import guide

        self.format_usage()
        listed = [action for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        if not listed or self.prog != "stedi":
            return super().format_help() + guide.ending(self.prog.partition(" ")[2])
        helps = {choice.dest: choice.help or "" for choice in listed[0]._choices_actions}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        options = self._get_formatter()
        options.start_section("options")
        options.add_arguments([action for action in self._actions if action not in listed])
        options.end_section()
        ending = "`stedi help COMMAND` shows a command's options and examples.\n"
        return f"{formatter.format_help()}\n{guide.overview(helps)}\n{options.format_help()}\n{ending}"


def _place(action: argparse.Action) -> str:
    name = str(action.metavar)
    if isinstance(action, argparse._SubParsersAction):
        return f"{name} ..."
    return {"?": f"[{name}]", "*": f"[{name} ...]", "+": f"{name} [{name} ...]"}.get(str(action.nargs), name)


def _meant(word: str, known: Iterable[str]) -> str:
    """Returns the question whether a word that is like one of the known ones was meant; nothing if none is."""
    import difflib

    names = {name.lstrip("-"): name for name in known}  # two dashes make no two words alike
    near = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=0.6)
    return f"; did you mean `{names[near[0]]}`?" if near else ""


def _version() -> str:
    from stedi._version import __version__

    return __version__


def _path(text: str) -> Path:
    """Returns a path; of a URI `Path` would make a folder named `gs:`. Who takes none in S3 says so."""
    if _URI.match(text):
        raise argparse.ArgumentTypeError(f"expected a path on this machine, found the URI {text!r}")
    return Path(text)


_URI = re.compile(r"(?!s3:)[A-Za-z][A-Za-z0-9+.-]+://")


def _lake(text: str) -> str:
    """Returns a lake's place; an empty text would be the default lake, and is a variable that is not set."""
    if not text:
        raise argparse.ArgumentTypeError("expected a folder or s3://BUCKET/PREFIX, found nothing: is a variable unset?")
    return text


def _time(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected an ISO 8601 time such as 2026-11-30T12:00Z, found {text!r}"
        ) from None


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() and len(text) < 16 else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, of 15 digits at most, found {text!r}")
    return value


def named(words: Sequence[str]) -> str | None:
    """Returns the command that a call's words name, if only global options stand before it."""
    place = _place_of_command(words)
    return None if place is None else words[place]


def asked_for_help(words: Sequence[str]) -> list[str]:
    """Returns a call's words, with `help COMMAND` as `COMMAND --help`."""
    place = _place_of_command(words)
    if place is None or words[place] != "help":
        return list(words)
    return [*words[:place], *(word for word in words[place + 1 :] if word != "help"), "--help"]


def _place_of_command(words: Sequence[str]) -> int | None:
    place = 0
    while place < len(words):
        word = words[place]
        if word in ("--lake", "--color"):
            place += 1
        elif word != "--json" and not word.startswith(("--lake=", "--color=")):
            return None if word.startswith("-") else place
        place += 1
    return None
