"""The commands by which a customer's rights are kept: withdrawal from research, and an account of what is there.

As in `commands`, each calls one function, prints what it returned, and returns the exit code. Addresses come as
arguments, from a file or from stdin; no message repeats one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator

from stedi import terminal
from stedi.commands import build_json, opened, wants_json
from stedi.errors import UsageError


def withdraw(options: argparse.Namespace) -> int:
    """Lands withdrawals, and builds at once where that is asked for."""
    from stedi.landing import withdrawal

    terminal.conceal(options.addresses)
    lake = opened(options)
    asked = withdrawal.addresses(_addresses(options))
    if not asked:
        raise UsageError("withdraw: expected an address, found none; name one, or give --file or -")
    if not options.yes:
        _confirm(f"withdraw {len(asked):,} customer{'s' * (len(asked) != 1)} from research?")
    progress = terminal.Progress()
    done = lake.withdraw(asked, progress=progress)
    built = lake.build(wait=True, progress=lambda line: progress(line, None)) if options.build else None
    progress.close()
    if wants_json(options):
        counts = {key: getattr(done, key) for key in ("customers", "landed", "unknown", "already", "erased")}
        terminal.document({**counts, "build": built and build_json(built)})
        return 0
    terminal.line(
        f"{done.customers:,} customers: {done.landed:,} withdrawals landed, {done.unknown:,} of them of customers that "
        f"the lake does not know yet; {done.already:,} had just withdrawn"
        + (f"; {done.erased:,} were erased, and are not taken in again" if done.erased else "")
    )
    if built is None:
        terminal.line("the next `stedi build` removes them from every table below landing")
    else:
        removed = {table.name: table.rows_removed - table.rows_added for table in built.tables}
        terminal.line("built: " + ", ".join(f"{count:,} rows fewer in {name}" for name, count in removed.items()))
    return 0


def explain(options: argparse.Namespace) -> int:
    """Explains a customer, or rows of a table."""
    from stedi import explain

    terminal.conceal(word for word in (options.address, options.where) if word)
    if (options.address is None) == (options.table is None) or (options.table is None) != (options.where is None):
        raise UsageError("explain: expected an address, or --table with --where")
    if options.table is not None:
        rows, more = opened(options).explain_rows(options.table, options.where)
        if wants_json(options):
            terminal.document(explain.rows_to_json(options.table, rows, more=more))
        else:
            terminal.line(explain.render_rows(rows, more=more))
        return 0
    asked = [options.address] if options.address != "-" else list(_lines(sys.stdin))
    if len(asked) != 1:
        raise UsageError(f"explain: expected one address, found {len(asked)}")
    found = opened(options).explain(asked[0])
    if wants_json(options):
        terminal.document(explain.to_json(found))
    else:
        terminal.line(explain.render(found))
    return 0


def _addresses(options: argparse.Namespace) -> Iterator[str]:
    """Yields what was given: the arguments, what stdin holds for `-`, and the file's lines."""
    for word in options.addresses:
        if word == "-":
            yield from _lines(sys.stdin)
        else:
            yield word
    if options.file is not None:
        try:
            with options.file.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
                yield from _lines(lines)
        except OSError as error:
            raise UsageError(f"--file {options.file}: cannot be read ({error.strerror}); nothing was done") from error


def _lines(lines: Iterable[str]) -> Iterator[str]:
    yield from (line for line in lines if line.strip())


def _confirm(question: str) -> None:
    """Asks whoever sits at the terminal.

    Raises:
        UsageError: The answer is not yes, or nobody is there to give one.
    """
    if not sys.stdin.isatty():
        raise UsageError("expected --yes where nobody can be asked; nothing was done")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was done")
