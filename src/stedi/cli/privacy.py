"""The commands `erase` and `verify`: asks, erases, shows and checks receipts.

As in `pipeline`, it calls one function, prints what it returned, and returns the exit code.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.cli import render, terminal
from stedi.cli.pipeline import open_lake, wants_json
from stedi.cli.rights import asked
from stedi.errors import AuditFailed, StediError, UsageError, many
from stedi.schema.tables import ALL_ZONES

if TYPE_CHECKING:
    from stedi.lake import Lake
    from stedi.report.attestation import Attestation


def erase(options: argparse.Namespace) -> int:
    """Erases customers, shows what that would remove, or lists or verifies receipts."""
    terminal.conceal(options.addresses)
    lake = open_lake(options)
    if options.list:
        return _list(lake, as_json=wants_json(options))
    if options.verify:
        return _verify(lake, options.verify, options.letter, as_json=wants_json(options))
    if options.replay:
        return _replay(lake, options.replay, as_json=wants_json(options))
    places = asked(options)
    addresses = tuple(places)
    if not addresses and not options.resume:
        raise UsageError("erase: expected addresses as arguments, in --file or, for -, on stdin; found none")
    if options.dry_run:
        return _preview(lake, addresses, as_json=wants_json(options))
    from stedi.cli import letter

    # before anything is erased: afterwards, a wrong name would leave the person without a letter
    letter.refuse(options.letter, len(addresses))
    if options.reference:
        from stedi.privacy.addresses import reference

        reference(options.reference, addresses)  # refused before the question
    if addresses and not options.yes:
        _ask(lake, addresses)
    with terminal.Progress() as progress:
        done = lake.erase(
            *addresses,
            exact=True,
            inbox=options.inbox or (),
            reference=options.reference or "",
            engine=options.engine,
            progress=progress,
        )
    receipts = [receipt.document for receipt in done]
    written = options.letter is None or _write_letter(options.letter, receipts[-1])
    if wants_json(options):
        terminal.document(receipts[-1] if receipts else {"id": None})
    elif not receipts:
        terminal.line("nothing to finish: no erasure was interrupted")
    else:
        for receipt in receipts:
            _show(receipt)
    if addresses and receipts[-1]["unknown"]:
        _say_unknown(lake, places, receipts[-1])
    # in order of weight: a trace that is left, then a person who was not known, then what somebody must look at
    if any(not receipt["clean"] for receipt in receipts):
        return AuditFailed.exit_code
    if addresses and not receipts[-1]["known"]:
        return 1
    return 1 if not written or any(map(_needs_attention, receipts)) else 0


def _write_letter(path: Path, receipt: Mapping[str, Any]) -> bool:
    """Writes the letter for a receipt; reports failures, since the erasure is done anyway."""
    from stedi.cli import letter
    from stedi.privacy import signatures
    from stedi.storage import destinations

    signer = signatures.fingerprint(receipt["public_key"])
    try:
        with destinations.writing(path) as out:
            out.write(letter.rendered(receipt, signer, html=path.suffix.lower() == ".html"))
    except StediError as error:
        again = f"stedi erase --verify {receipt['id']} --letter FILE"
        terminal.say(f"{error}; the erasure is done: `{again}` writes the letter")
        return False
    terminal.say(f"{path}: the letter; the receipt {receipt['id']} goes with it")
    return True


def verify(options: argparse.Namespace) -> int:
    """Shows what was signed by which lake, and whether it holds; needs neither lake nor key."""
    from stedi.report import attestation

    with terminal.step("check signatures"):
        found = [each for path in options.paths for each in attestation.verify(path, options.public_key)]
    holds = all(each.holds for each in found)
    if wants_json(options):
        terminal.document({"holds": holds, "checked": [_attestation_json(each) for each in found]})
        return 0 if holds else AuditFailed.exit_code
    for each in found:
        for problem in each.problems:
            terminal.say(f"{each.path}: {problem}")
        signer = f"signed by {each.lake} ({each.public_key}) at {each.at}" if each.public_key else "not signed"
        name = f"{each.what} {each.name}".strip() or str(each.path)
        name += f" for request {each.reference}" if each.reference else ""
        terminal.line(f"{signer}: {name}; {'holds' if each.holds else 'does not hold'}")
    if options.public_key is None and any(each.public_key for each in found):
        terminal.say("the signer was not checked: compare the fingerprint, or pass the lake's key with --public-key")
    return 0 if holds else AuditFailed.exit_code


def _attestation_json(found: Attestation) -> dict[str, object]:
    names = ("what", "name", "lake", "public_key", "at", "reference", "holds")
    plain = {name: getattr(found, name) for name in names}
    return {"file": str(found.path), **plain, "problems": list(found.problems)}


def _needs_attention(receipt: Mapping[str, Any]) -> bool:
    """Returns whether somebody must look at what an erasure has left, or has removed from others."""
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
        f"not known to the lake: {shown}; check the spelling. Nothing was erased for these addresses; older data "
        "that are delivered later will stay out"
    )


def _ask(lake: Lake, addresses: Sequence[str]) -> None:
    """Asks on the terminal to confirm."""

    def question() -> str:
        count, known = len(addresses), lake.preview_erasure(*addresses, exact=True).known
        who = many(count, "customer")
        return f"Erase everything of {who} ({known:,} of {count:,} known)? This cannot be undone. Type yes:"

    alone = "erase: expected --yes or a terminal to ask, since it cannot be undone; found neither"
    if not terminal.confirmed(question, alone=alone, agreeing=("yes",)):
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
        texts = many(count, "mention")
        terminal.say(f"{place}: {texts} of them stay: another program wrote them and has to remove them")


def _show(receipt: Mapping[str, Any]) -> None:
    order = {name: place for place, name in enumerate(ALL_ZONES)}
    removed, scanned = receipt["removed"], receipt["scanned"]
    terminal.line(f"customers: {receipt['known']:,} of {receipt['asked']:,} known")
    terminal.table(
        ("table", "rows", "files", "snapshots"),
        # a receipt has them by name
        [
            (name, gone["rows"], gone["files"], gone["snapshots"])
            for name, gone in sorted(removed["tables"].items(), key=lambda item: order.get(item[0], len(order)))
        ],
    )
    for release in removed.get("releases", {}).get("rewritten", ()):
        terminal.line(f"{release}: written again without them; holders of a copy need `stedi dataset recall {release}`")
    for release in removed.get("releases", {}).get("out_of_reach", ()):
        terminal.line(
            f"{release}: outside the lake and out of reach; send its holders `stedi dataset recall {release}`"
        )
    if remade := sum(gone.get("remade", 0) for gone in removed["tables"].values()):
        told = f"{many(remade, 'snapshot')} were rewritten without the erased customers"
        terminal.line(f"tags and branches of others: {told}")
    delivered = removed.get("delivered")
    if delivered:
        terminal.line(f"delivered: {many(delivered['records'], 'record')} gone from {many(delivered['files'], 'file')}")
        for name in delivered["left"]:
            terminal.say(f"{name}: left as it is: {delivered.get('why', {}).get(name, 'look at it')}")
    else:
        terminal.line("delivered files were not searched: name their folders with --inbox")
    files = sum(scanned["files"].values())
    for name in removed.get("quarantined_whole", ()):
        terminal.say(
            f"{name}: gone from quarantine as a whole, though it tells of others: nobody in it can be told apart; "
            "land a file that holds the others alone"
        )
    for table, counts in removed.get("others", {}).items():
        for column, count in counts.items():
            values = many(count, "value")
            terminal.say(
                f"{table}: {values} of other people in {column} mention them and stay: they are those people's identity"
            )
    _say_foreign(removed.get("foreign", {}))
    for what in ("not_decoded", "not_opened"):
        for name in scanned.get(what, ()):
            terminal.say(f"{name}: {what.replace('_', ' ')}: its name was searched" + _BYTES[what])
    for name in scanned.get("found", ()):
        terminal.say(f"{name}: a trace is left in this file")
    clean = "no trace except in other programs' entries" if removed.get("foreign") else "no trace"
    traces = "traces left" if not receipt["clean"] else clean if receipt["known"] else "none of them known"
    terminal.line(f"searched {many(files, 'file')}, {many(scanned['bytes'], 'byte')}: {traces}")
    from stedi.privacy.receipts import OUT_OF_REACH

    days = receipt.get("not_reached_days", {})
    stay = {word: f" ({many(count, 'day')} where the AWS stack is deployed)" for word, count in days.items()}
    terminal.line("not reached: " + ", ".join(OUT_OF_REACH[w] + stay.get(w, "") for w in receipt["not_reached"]))
    terminal.line(f"receipt {receipt['id']}")


_BYTES = {"not_decoded": ", and its bytes", "not_opened": " alone"}


def _replay(lake: Lake, journal: str, *, as_json: bool) -> int:
    with terminal.Progress() as progress:
        done = lake.replay(journal, progress=progress)
    ids = [receipt.id for receipt in done.receipts]
    if as_json:
        counts = {name: getattr(done, name) for name in ("entries", "new", "withdrawals", "waiting", "people")}
        terminal.document({**counts, "receipts": ids, "complete": done.complete})
        return 0 if done.complete else 1
    terminal.line(
        f"{many(done.entries, 'entry', 'entries')}, {done.new:,} of them new to this lake: "
        f"{many(done.withdrawals, 'withdrawal')} landed, "
        f"{done.waiting:,} wait for a record of their customer, {many(done.people, 'person', 'people')} erased again"
    )
    for id_ in ids:
        terminal.line(f"receipt {id_}")
    if not done.complete:
        terminal.say(
            "this was incomplete: the lake's journal is known to be longer, so withdrawals or erasures may still "
            "be undone, and the lake still refuses writes; replay a newer copy, or run `stedi repair "
            "--accept-rollback`"
        )
        return 1
    terminal.line("now land the deliveries since then, and build")
    return 0


def _list(lake: Lake, *, as_json: bool) -> int:
    receipts = [receipt.document for receipt in lake.receipts()]
    if as_json:
        terminal.document({"receipts": receipts})
        return 0
    rows = [
        (
            receipt["id"],
            render.moment(datetime.fromisoformat(receipt["ended"])) if "ended" in receipt else "",
            len(receipt.get("people", ())),
            receipt.get("known", ""),
            receipt.get("version", ""),
        )
        for receipt in receipts
    ]
    terminal.table(("receipt", "ended", "people", "known", "version"), rows)
    return 0


def _verify(lake: Lake, named: str, path: Path | None, *, as_json: bool) -> int:
    from stedi.cli import letter

    found = lake.verify_receipt(named)
    receipt, holds = found.receipt.document, found.holds
    written = True
    if holds and path is not None:
        letter.refuse(path, len(receipt["people"]))
        if "public_key" not in receipt:
            raise UsageError(
                "expected a receipt with a public signature, found one of an earlier version", argument="letter"
            )
        written = _write_letter(path, receipt)
    if as_json:
        terminal.document({"id": receipt.get("id"), "holds": holds})
    else:
        word = "holds" if holds else "does not hold: it is not what this lake has signed"
        terminal.line(f"receipt {Path(str(receipt.get('id'))).name}: {word}")
    return (0 if written else 1) if holds else AuditFailed.exit_code
