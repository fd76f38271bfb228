"""The command `query`: one SELECT, and its rows written as the options say.

Athena's queries are written by the same function.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from stedi.cli import terminal
from stedi.cli.pipeline import open_lake, wants_json
from stedi.errors import UsageError, many, printable

if TYPE_CHECKING:
    import pyarrow as pa

    from stedi.cli.formats import Format
    from stedi.query import Result, Value
    from stedi.schema.roles import Role


def query(options: argparse.Namespace) -> int:
    """Runs one SELECT."""
    from stedi.cli import formats
    from stedi.query.result import few

    # a statement, or its parameters, can contain an address; until here it is in the list of processes
    terminal.conceal([*(word for word in (options.sql,) if word != "-"), *(options.parameter or ())])
    as_json = wants_json(options) and not options.output
    form = options.format or ("json" if as_json else formats.format_of(options.output))
    sql = terminal.stdin_text() if options.sql == "-" else options.sql
    parameters = given_parameters(options)
    lake = open_lake(options)
    role = options.role or lake.config.query_role
    with (
        terminal.step("query") as progress,
        lake.query(sql, parameters=parameters, at=options.at, role=role, as_published=options.as_published) as result,
    ):
        _report_left_out(result, role)
        altered = options.output or options.columns or options.time_zone or options.safe_for_spreadsheets
        counted = few(result) if form in formats.WITHOUT_ARROW and not altered else None
        if counted is None:
            write_rows(_shown_first(result.reader(), progress), form, options)
        else:
            rows, width, coloured = counted.rows(), terminal.width(), terminal.coloured(sys.stdout)
            progress.close()
            formats.write_few(counted.columns, rows, form, terminal.binary(), width=width, coloured=coloured)
            terminal.binary().flush()
    return 0


def _shown_first(reader: pa.RecordBatchReader, progress: terminal.Progress) -> pa.RecordBatchReader:
    """Returns the rows; ends the progress line once the first are there."""
    import pyarrow as pa

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            progress.close()
            yield batch
        progress.close()

    return pa.RecordBatchReader.from_batches(reader.schema, batches())


def write_rows(reader: pa.RecordBatchReader, form: Format | str, options: argparse.Namespace) -> None:
    """Writes the rows of a query with the columns, time zone and destination of its options."""
    from stedi.cli import columns, formats
    from stedi.storage import destinations

    if options.columns:
        reader = formats.chosen(reader, options.columns)
    if options.time_zone:
        reader = columns.in_zone(reader, options.time_zone, text=form not in formats.BINARY)
    to, limit, width = options.output or terminal.binary(), terminal.shown_rows(), terminal.width()
    written = formats.write(
        reader,
        form,
        to,
        limit=limit,
        width=width,
        spreadsheet=options.safe_for_spreadsheets,
        coloured=terminal.coloured(sys.stdout),
    )
    if options.output and Path(options.output).suffix.lower() in destinations.PACKED:
        # its number of lines is not visible without decompression
        first = "; the first line names the columns" if form == "csv" else ""
        terminal.say(f"{printable(str(options.output))}: {many(written.rows, 'row')}, compressed{first}")
    terminal.binary().flush()  # a reader that has gone is known here, before the exit code is


def _report_left_out(result: Result, role: Role) -> None:
    """Reports what an answer lacks: masked columns, and rows of people who may not be shown now."""
    if result.masked:
        columns: dict[str, list[str]] = {}
        for name in result.masked:
            table, _, column = name.partition(".")
            columns.setdefault(table, []).append(column)
        listed = "; ".join(f"{', '.join(names)} of {table}" for table, names in columns.items())
        terminal.say(f"null for the role {role}: {listed}")
    if result.left_out.rows:
        rows, people = result.left_out.rows, result.left_out.people
        terminal.say(
            f"left out: {rows:,} row{'s' * (rows != 1)} of {people:,} {'person' if people == 1 else 'people'} who "
            f"{'does' if people == 1 else 'do'} not agree to this use now"
        )


def given_parameters(options: argparse.Namespace) -> dict[str, Value] | None:
    """Returns the values of a statement's parameters: JSON's scalars are what they say, anything else is a text.

    Raises:
        UsageError: One is not named.
    """
    if not options.parameter:
        return None
    found: dict[str, Value] = {}
    for word in options.parameter:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise UsageError("--parameter: expected NAME=VALUE, found no equals sign, or no name before it")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = text if isinstance(value, dict | list) else value
    return found
