"""The commands by which a customer's rights are kept: withdrawal from research, and an account of what is there.

As in `commands`, each calls one function, prints what it returned, and returns the exit code. Addresses come as
arguments, from a file or from stdin; no message repeats one.
"""

from __future__ import annotations

import argparse
import sys

from stedi import terminal
from stedi.commands import build_json, opened, wants_json
from stedi.errors import UsageError
from stedi.privacy import addresses


def withdraw(options: argparse.Namespace) -> int:
    """Lands withdrawals, and builds at once where that is asked for."""
    terminal.conceal(options.addresses)
    wanted = asked(options)
    if not wanted:
        raise UsageError("withdraw: expected an address, found none; name one, or give --file or -")
    lake = opened(options)
    if not options.yes:
        _confirm(f"withdraw {len(wanted):,} customer{'s' * (len(wanted) != 1)} from research?")
    progress = terminal.Progress()
    done = lake.withdraw(wanted, exact=True, progress=progress)
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
    given = addresses.of_call([options.address], exact=options.exact)
    wanted = addresses.taken(given, exact=options.exact)
    if len(wanted) != 1:
        raise UsageError(f"explain: expected one address, found {len(wanted):,}")
    found = opened(options).explain(wanted[0], exact=True)
    if wants_json(options):
        terminal.document(explain.to_json(found))
    else:
        terminal.line(explain.render(found))
    return 0


def asked(options: argparse.Namespace) -> tuple[str, ...]:
    """Returns whom a call means, each once: its words, `--file` and stdin, plain addresses unless `--exact`."""
    return addresses.taken(addresses.of_call(options.addresses, options.file, exact=options.exact), exact=options.exact)


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
