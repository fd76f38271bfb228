"""The command `report`, and the signed report of `audit`.

A page replaces the last one atomically, and is compared with it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stedi.cli import render, terminal
from stedi.cli.pipeline import open_lake, wants_json
from stedi.errors import UsageError, json_text, printable_name

if TYPE_CHECKING:
    from stedi.audit.record import FullAudit
    from stedi.lake import Lake
    from stedi.report.content import Report

_PAGE = Path("report.html")
_ENDINGS = (".html", ".htm", ".json")


def report(options: argparse.Namespace) -> int:
    """Writes the report's page or content, and shows its path and verdict."""
    from stedi.storage import destinations

    target = options.output or (None if wants_json(options) else _PAGE)
    refuse_name(target, "output")
    # before the report is gathered: the file may turn out to be something else
    since = options.since or _last(target, named=options.output is not None)
    with terminal.step("gather the report"):
        found = open_lake(options).report(since=since)
    if target is not None:
        with destinations.writing(target) as stream:
            stream.write(_bytes(found, target))
    if wants_json(options):
        terminal.document(render.plain(found))
    elif target is not None:
        from stedi.report import page

        verdict = page.WORDS[found.verdict.state]
        terminal.line(f"{printable_name(str(target))}: {verdict}")
    return 0


def refuse_name(target: Path | None, argument: str = "report") -> None:
    """Refuses a file name with an unknown ending."""
    if target is not None and target.suffix.lower() not in _ENDINGS:
        raise UsageError(
            f"expected a name that ends in .html or .json, found {printable_name(target.name)}", argument=argument
        )


def write_audit(lake: Lake, done: FullAudit, target: Path) -> None:
    """Writes the report of an audit, and beside it its signature."""
    from stedi.privacy import signatures
    from stedi.report import evidence, page
    from stedi.storage import destinations, s3

    key = lake.key()
    found = evidence.of(done.record, key, remote=s3.is_remote(lake.root))
    raw = _document(found) if target.suffix.lower() == ".json" else page.audit_html(found).encode()
    with destinations.writing(target) as stream:
        stream.write(raw)
    with destinations.writing(target.with_name(target.name + signatures.SUFFIX)) as stream:
        stream.write(evidence.signed(found, key, target.name, raw))
    terminal.say(f"{printable_name(str(target))} and its signature are written")


def _last(target: Path | None, *, named: bool) -> Path | None:
    """Returns the report that will be replaced, if there is one.

    Raises:
        UsageError: The file is something else.
    """
    if target is None or not target.is_file():
        return None
    from stedi.report import earlier

    try:
        earlier.read(target)
    except UsageError:
        # the user has named it: it may be replaced whatever it is
        if named:
            return None
        raise UsageError(
            f"expected a report to overwrite, found another file called {target}; name one with --output",
            argument="output",
        ) from None
    return target


def _bytes(found: Report, target: Path) -> bytes:
    if target.suffix.lower() == ".json":
        return _document(found)
    from stedi.report import page

    return page.html(found).encode()


def _document(found: object) -> bytes:
    return f"{json_text(json.dumps(render.plain(found), ensure_ascii=False, indent=1))}\n".encode()
