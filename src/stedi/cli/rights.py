"""The commands for a customer's rights: `withdraw`, `explain`, `export`, `consent`.

As in `pipeline`, each calls one function, prints what it returned, and returns the exit code. Addresses come as
arguments, from a file or from stdin; no message repeats one.
"""

from __future__ import annotations

import argparse
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from stedi.cli import render, terminal
from stedi.cli.pipeline import open_lake, say_stale, wants_json
from stedi.errors import UsageError, many

if TYPE_CHECKING:
    from stedi.lake import Lake


def withdraw(options: argparse.Namespace) -> int:
    """Lands withdrawals, and builds at once where that is asked for."""
    terminal.conceal(options.addresses)
    wanted = asked(options)
    if not wanted:
        raise UsageError("withdraw: expected an address, found none; name one, or give --file or -")
    lake = open_lake(options)
    if options.dry_run:
        return _preview(lake, wanted, as_json=wants_json(options))
    if not options.yes:
        _confirm(lake, wanted)
    built = None
    with terminal.Progress() as progress:
        done = lake.withdraw(wanted, exact=True, progress=progress)
        if options.build:
            built = lake.build(wait=True, progress=progress)
    if wants_json(options):
        counts = {key: getattr(done, key) for key in ("customers", "landed", "unknown", "already", "erased")}
        kept = {"history_days": done.history_days, "tags": list(done.tags)}
        terminal.document({**kept, **counts, "stale": list(done.stale), "build": render.plain(built)})
        return 0
    said = [f"{many(done.customers, 'customer')}: {many(done.landed, 'withdrawal')} landed"]
    said += [f"{done.unknown:,} of them for customers unknown to the lake"] if done.unknown else []
    said += [f"{done.already:,} withdrawn within the last minute already"] if done.already else []
    said += [f"{done.erased:,} erased, for whom nothing was landed"] if done.erased else []
    terminal.line("; ".join(said))
    landed = bool(done.landed or done.already)  # for who was erased, there is nothing to remove
    if built is None and landed:
        terminal.line("the next `stedi build` removes them from every table below landing")
    elif built is not None:
        removed = {table.name: table.rows_removed - table.rows_added for table in built.tables}
        terminal.line("built: " + ", ".join(f"{many(count, 'row')} fewer in {name}" for name, count in removed.items()))
    if done.strangers:
        terminal.say(
            f"not known to the lake: {_places(wanted, done.strangers)}; check the spelling. These withdrawals are "
            "kept, and override older records that arrive later"
        )
    if landed:
        after = "after that build" if built is None else "from now on"
        terminal.line(
            "earlier snapshots hide their rows, except from an officer with --as-published; `stedi maintain` "
            f"removes these snapshots {done.history_days:g} {'day' if done.history_days == 1 else 'days'} {after}"
            + (f", except those with the tags {', '.join(done.tags)}: see `stedi tag --delete`" if done.tags else "")
        )
    say_stale(done.stale)
    return 0


def explain(options: argparse.Namespace) -> int:
    """Explains a customer, or rows of a table."""
    from stedi.privacy import addresses

    terminal.conceal(word for word in (options.address, options.where) if word)
    if (options.address is None) == (options.table is None) or (options.table is None) != (options.where is None):
        raise UsageError("explain: expected an address, or --table with --where")
    if options.table is not None:
        with terminal.step("explain rows"):
            shown = open_lake(options).explain_rows(options.table, options.where, role=options.role)
        if wants_json(options):
            terminal.document(render.plain(shown))
        else:
            terminal.line(render.explained_rows(shown))
        return 0
    given = addresses.of_call([options.address], exact=options.exact)
    wanted = addresses.taken(given, exact=options.exact)
    if len(wanted) != 1:
        raise UsageError(f"explain: expected one address, found {len(wanted):,}")
    with terminal.step("look for the customer"):
        found = open_lake(options).explain(wanted[0], exact=True)
    if wants_json(options):
        terminal.document(render.explanation_json(found))
    else:
        terminal.line(render.explanation(found))
    return 0


def consent(options: argparse.Namespace) -> int:
    """Counts known and consenting customers over time."""
    found = open_lake(options).consent(options.by)
    headers = ("start", "known", "consenting", "joined", "rejoined", "withdrew", "erased")
    if wants_json(options) or options.format == "json":
        periods = [{name: render.plain(getattr(period, name)) for name in headers} for period in found.periods]
        terminal.document({"by": found.by, "now": render.instant(found.now), "periods": periods})
        return 0
    rows = [tuple(getattr(period, name) for name in headers) for period in found.periods]
    if options.format == "csv":
        lines = [headers, *rows]
        terminal.binary().write("".join(",".join(map(str, line)) + "\r\n" for line in lines).encode())
        return 0
    # people look for changes: a period without any equals the one before it
    shown = [row for row, period in zip(rows[:-1], found.periods, strict=False) if not period.quiet] + rows[-1:]
    terminal.table(headers, shown)
    if len(shown) < len(rows):
        terminal.say(f"{many(len(rows) - len(shown), 'period')} without changes left out; --format csv shows all")
    return 0


def export(options: argparse.Namespace) -> int:
    """Writes all data of customers into a folder or a zip file."""
    terminal.conceal(options.addresses)
    wanted = asked(options)
    if not wanted:
        raise UsageError("export: expected an address, found none; name one, or give --file or -")
    with terminal.Progress() as progress:
        done = open_lake(options).export(
            wanted, output=options.output, archive=options.zip, exact=True, progress=progress
        )
    if wants_json(options):
        terminal.document({"customers": render.plain(done.customers)})
    else:
        headers = ("records", "accelerometer", "step_trainer", "quarantined", "withheld_shared", "releases")
        rows = [(number, *(getattr(c, name) for name in headers)) for number, c in enumerate(done.customers, start=1)]
        terminal.table(("person", *headers), rows)
        terminal.line(f"written: {done.path}")
    unknown = [address for address, c in zip(wanted, done.customers, strict=True) if not c.known]
    if unknown:
        shown = _places(wanted, unknown)
        terminal.say(
            f"not known to the lake: {shown}; check the spelling. The files for these addresses say that there is "
            "nothing"
        )
    return 1 if len(unknown) == len(wanted) else 0


def asked(options: argparse.Namespace) -> dict[str, str]:
    """Returns the addresses of a call with their places: words, `--file`, stdin; plain ones unless `--exact`."""
    from stedi.privacy import addresses

    return addresses.placed(
        addresses.of_call(options.addresses, options.file, exact=options.exact), exact=options.exact
    )


def _preview(lake: Lake, wanted: Mapping[str, str], *, as_json: bool) -> int:
    """Shows the customers whom a withdrawal would affect."""
    found = lake.preview_withdrawal(wanted, exact=True)
    if as_json:
        counts = {name: getattr(found, name) for name in ("customers", "known", "agreeing")}
        terminal.document({**counts, "unknown": [wanted[address] for address in found.strangers]})
        return 0
    terminal.line(f"customers: {found.known:,} of {found.customers:,} known, {found.agreeing:,} of them consent now")
    if found.strangers:
        terminal.line(f"not known to the lake: {_places(wanted, found.strangers)}; check the spelling")
    return 0


def _places(wanted: Mapping[str, str], some: Collection[str]) -> str:
    """Returns the places of some addresses of a call, the first ones if there are many."""
    places = [place for address, place in wanted.items() if address in some]
    return ", ".join(places[:5]) + (f" and {len(places) - 5:,} more" if len(places) > 5 else "")


def _confirm(lake: Lake, wanted: Mapping[str, str]) -> None:
    """Asks on the terminal, with the number of known customers and the places of the others.

    Raises:
        UsageError: The answer is not yes, or nobody can answer.
    """

    def question() -> str:
        who = many(len(wanted), "customer")
        found = lake.preview_withdrawal(wanted, exact=True)
        known = f"{found.known:,} of {len(wanted):,} known"
        if found.strangers:
            known += f"; not known: {_places(wanted, found.strangers)}"
        return f"withdraw {who} from research ({known})? [y/N]"

    if not terminal.confirmed(question, alone="expected --yes or a terminal to ask, found neither; nothing was done"):
        raise UsageError("nothing was done")
