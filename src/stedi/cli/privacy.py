"""The command that erases customers: asks, erases, and shows receipts.

As in `pipeline`, it calls one function, prints what it returned, and returns the exit code.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.cli import render, terminal
from stedi.cli.pipeline import opened, wants_json
from stedi.cli.rights import asked
from stedi.errors import AuditFailed, UsageError

if TYPE_CHECKING:
    from stedi.lake import Lake


def erase(options: argparse.Namespace) -> int:
    """Erases customers, shows what that would remove, or lists or verifies receipts."""
    terminal.conceal(options.addresses)
    lake = opened(options)
    if options.list:
        return _list(lake, as_json=wants_json(options))
    if options.verify:
        return _verify(lake, options.verify, as_json=wants_json(options))
    if options.replay:
        return _replay(lake, options.replay, as_json=wants_json(options))
    places = asked(options)
    addresses = tuple(places)
    if not addresses and not options.resume:
        raise UsageError("erase: expected addresses as arguments, in --file or, for -, on stdin; found none")
    if options.dry_run:
        return _preview(lake, addresses, as_json=wants_json(options))
    if addresses and not options.yes:
        _ask(lake, addresses)
    progress = terminal.Progress()
    done = lake.erase(*addresses, exact=True, inbox=options.inbox or (), engine=options.engine, progress=progress)
    receipts = [receipt.document for receipt in done]
    progress.close()
    if wants_json(options):
        terminal.document(receipts[-1] if receipts else {"id": None})
    elif not receipts:
        terminal.line("nothing to finish: no erasure was cut off")
    else:
        for receipt in receipts:
            _show(receipt)
    if addresses and receipts[-1]["unknown"]:
        _say_unknown(lake, places, receipts[-1])
    if any(not receipt["clean"] for receipt in receipts):
        return AuditFailed.exit_code
    if addresses and not receipts[-1]["known"]:
        return 1
    return 1 if any(map(_needs_somebody, receipts)) else 0


def _needs_somebody(receipt: Mapping[str, Any]) -> bool:
    """Says whether an erasure has left something, or taken something of others, that somebody has to look at."""
    removed = receipt["removed"]
    left = removed.get("delivered", {}).get("left")
    return bool(left or removed.get("quarantined_whole") or removed.get("foreign"))


def _say_unknown(lake: Lake, places: Mapping[str, str], receipt: Mapping[str, Any]) -> None:
    """Names the places of the addresses that the lake did not know, of which an erasure erased nothing."""
    from stedi.privacy import tombstones

    missing, key = set(receipt["unknown"]), lake.key()
    where = [place for address, place in places.items() if tombstones.person(key, address) in missing]
    shown = ", ".join(where[:5]) + (f" and {len(where) - 5:,} more" if len(where) > 5 else "")
    terminal.say(
        f"not known to the lake: {shown}; look at the spelling. Of such an address nothing was erased; what is "
        "delivered later from before now stays out"
    )


def _ask(lake: Lake, addresses: Sequence[str]) -> None:
    """Has whoever sits at the terminal confirm; nobody else can."""

    def question() -> str:
        count, known = len(addresses), lake.preview_erasure(*addresses, exact=True).known
        who = "1 customer" if count == 1 else f"{count:,} customers"
        return f"Erase everything of {who} ({known:,} of {count:,} known)? This cannot be undone. Type yes:"

    alone = "erase: expected --yes where nobody can be asked, since it cannot be undone; found none"
    if not terminal.agreed(question, alone=alone, agreeing=("yes",)):
        raise UsageError("erase: expected yes, found another answer; nothing was erased")


def _preview(lake: Lake, addresses: Sequence[str], *, as_json: bool) -> int:
    found = lake.preview_erasure(*addresses, exact=True)
    code = 0 if found.known or not addresses else 1
    if as_json:
        terminal.document(render.plain(found))
        return code
    terminal.table(("table", "rows", "files"), [(name, rows, found.files[name]) for name, rows in found.rows.items()])
    terminal.line(f"customers: {found.known:,} of {found.asked:,} known")
    _say_foreign(found.foreign)
    return code


def _say_foreign(places: Mapping[str, int]) -> None:
    """Names the places in the catalog in which other programs mention customers."""
    for place, count in places.items():
        texts = "1 mention" if count == 1 else f"{count:,} mentions"
        terminal.say(f"{place}: {texts} of them stay: another program wrote them, and has to take them back")


def _show(receipt: Mapping[str, Any]) -> None:
    removed, scanned = receipt["removed"], receipt["scanned"]
    terminal.line(f"customers: {receipt['known']:,} of {receipt['asked']:,} known")
    terminal.table(
        ("table", "rows", "files", "snapshots"),
        [(name, gone["rows"], gone["files"], gone["snapshots"]) for name, gone in removed["tables"].items()],
    )
    for release in removed.get("releases", {}).get("rewritten", ()):
        terminal.line(f"{release}: made anew without them; whoever has a copy needs `stedi dataset recall {release}`")
    for release in removed.get("releases", {}).get("out_of_reach", ()):
        terminal.line(f"{release}: lies outside of the lake, out of reach; `stedi dataset recall {release}` is for it")
    if remade := sum(gone.get("remade", 0) for gone in removed["tables"].values()):
        terminal.line(f"tags and branches of others: {remade:,} snapshots that they name were made anew without them")
    delivered = removed.get("delivered")
    if delivered:
        terminal.line(f"delivered: {delivered['records']:,} records gone from {delivered['files']:,} files")
        for name in delivered["left"]:
            terminal.say(f"{name}: left as it is: {delivered.get('why', {}).get(name, 'look at it')}")
    files = sum(scanned["files"].values())
    for name in removed.get("quarantined_whole", ()):
        terminal.say(
            f"{name}: gone from quarantine as a whole, though it tells of others: nobody in it can be told apart; "
            "land a file that holds the others alone"
        )
    for table, counts in removed.get("others", {}).items():
        for column, count in counts.items():
            values = "1 value" if count == 1 else f"{count:,} values"
            terminal.say(
                f"{table}: {values} of others in {column} mention them and stay: they are others' own identity"
            )
    _say_foreign(removed.get("foreign", {}))
    for what in ("not_decoded", "not_opened"):
        for name in scanned.get(what, ()):
            terminal.say(f"{name}: {what.replace('_', ' ')}: its name was searched" + _BYTES[what])
    for name in scanned.get("found", ()):
        terminal.say(f"{name}: a trace is left in it")
    clean = "no trace but what others wrote" if removed.get("foreign") else "no trace"
    traces = "traces left" if not receipt["clean"] else clean if receipt["known"] else "nobody of them known"
    terminal.line(f"searched {files:,} files, {scanned['bytes']:,} bytes: {traces}")
    from stedi.privacy.receipts import OUT_OF_REACH

    days = receipt.get("not_reached_days", {})
    stay = {word: f" ({count} days where our stack is deployed)" for word, count in days.items()}
    terminal.line("not reached: " + ", ".join(OUT_OF_REACH[w] + stay.get(w, "") for w in receipt["not_reached"]))
    terminal.line(f"receipt {receipt['id']}")


_BYTES = {"not_decoded": ", and its bytes", "not_opened": " alone"}


def _replay(lake: Lake, journal: str, *, as_json: bool) -> int:
    progress = terminal.Progress()
    done = lake.replay(journal, progress=progress)
    progress.close()
    ids = [receipt.id for receipt in done.receipts]
    if as_json:
        counts = {name: getattr(done, name) for name in ("entries", "new", "withdrawals", "waiting", "people")}
        terminal.document({**counts, "receipts": ids})
        return 0
    terminal.line(
        f"{done.entries:,} entries, {done.new:,} of them new to this lake: {done.withdrawals:,} withdrawals landed, "
        f"{done.waiting:,} wait for a record of their customer, {done.people:,} people erased again"
    )
    for id_ in ids:
        terminal.line(f"receipt {id_}")
    terminal.line("now land what was delivered since, and build")
    return 0


def _list(lake: Lake, *, as_json: bool) -> int:
    receipts = [receipt.document for receipt in lake.receipts()]
    if as_json:
        terminal.document({"receipts": receipts})
        return 0
    rows = [
        (
            receipt["id"],
            receipt.get("ended", ""),
            len(receipt.get("people", ())),
            receipt.get("known", ""),
            receipt.get("version", ""),
        )
        for receipt in receipts
    ]
    terminal.table(("receipt", "ended", "people", "known", "version"), rows)
    return 0


def _verify(lake: Lake, named: str, *, as_json: bool) -> int:
    found = lake.verify_receipt(named)
    receipt, holds = found.receipt.document, found.holds
    if as_json:
        terminal.document({"id": receipt.get("id"), "holds": holds})
    else:
        word = "holds" if holds else "does not hold: it is not what this lake has signed"
        terminal.line(f"receipt {Path(str(receipt.get('id'))).name}: {word}")
    return 0 if holds else AuditFailed.exit_code
