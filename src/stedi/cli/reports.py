"""Pages that people keep: `stedi report`.

A page is written over the last one, whole or not at all; what the last one said is what the new one is compared with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from stedi.cli import render, terminal
from stedi.cli.pipeline import opened, wants_json
from stedi.errors import UsageError, json_text, printable_name
from stedi.storage import destinations

if TYPE_CHECKING:
    from stedi.report.content import Report

_PAGE = Path("report.html")


def report(options: argparse.Namespace) -> int:
    """Writes the report's page or content, and says where it is and what the verdict is."""
    target = options.output or (None if wants_json(options) else _PAGE)
    if target is not None and target.suffix.lower() not in (".html", ".htm", ".json"):
        raise UsageError(
            f"expected a name that ends in .html or .json, found {printable_name(target.name)}", argument="output"
        )
    found = opened(options).report(since=options.since or _last(target, named=options.output is not None))
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


def _last(target: Path | None, *, named: bool) -> Path | None:
    """Returns the report that is written over, if there is one.

    Raises:
        UsageError: Something else is there, and nobody has said that it may be written over.
    """
    if target is None or not target.is_file():
        return None
    from stedi.report import earlier

    try:
        earlier.read(target)
    except UsageError:
        if named:
            return None
        raise UsageError(
            f"expected a report to write over, found another file by the name {target}; name one with --output",
            argument="output",
        ) from None
    return target


def _bytes(found: Report, target: Path) -> bytes:
    if target.suffix.lower() == ".json":
        plain = json.dumps(render.plain(found), ensure_ascii=False, indent=1)
        return f"{json_text(plain)}\n".encode()
    from stedi.report import page

    return page.html(found).encode()
