"""Receipts of erasures: what was removed and what was searched, signed by the lake.

A receipt is a JSON document in the lake's folder `receipts` that carries its signature (`signatures.document`), so
checking it needs neither the lake nor its key. It identifies people by their marks, as tombstones do, and names its
lake: it is valid in no other lake, even one with the same key.

Receipts form a chain: each names the SHA-256 of the one before it (`previous`) and, where a lake was restored, of those
whose erasures it repeats (`replays`). Receipts of before have an HMAC under the lake's key for a signature and name
none; they go on holding, for whoever has the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from stedi.errors import LakeError, UsageError
from stedi.privacy import signatures, state
from stedi.privacy.pseudonyms import Key
from stedi.storage import durable

RECEIPTS = "receipts"
"""The folder of the receipts, in the lake's folder."""
Receipt = Mapping[str, Any]
"""A receipt's JSON document; `id` names it, `signature` is last."""

OUT_OF_REACH: Mapping[str, str] = {
    "backups": "backups",
    "handed_out": "results, exports and releases that have left the lake",
    "access_logs": "logs of accesses to the bucket",
    "athena_results": "results of Athena's queries",
    "query_history": "Athena's history of statements",
    "catalog_history": "older versions, statistics and tags of the catalog's entries",
}
"""What no erasure reaches, by the words of a receipt's `not_reached`. How long it stays is the place's own matter."""
STACK_DAYS: Mapping[str, int] = {"access_logs": 91, "athena_results": 8, "query_history": 45}
"""After how many days it is gone where the package's own stack is deployed, older versions included.

The first two are what `aws/data.yaml` has expire, a day later for older versions; the last is set by AWS.
"""
SEAL = ("lake", "public_key", "signature")
"""The fields by which a receipt is one lake's."""
SKEW = timedelta(minutes=1)
"""By how much the clocks of two machines may differ, and a clock that is set right may jump."""
_KIND = "receipt"


def signed(key: Key, lake_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a receipt of this content, of one lake; its fields are in the order of their names."""
    bound = _ordered({**content, "lake": lake_id})
    subjects = {f"{RECEIPTS}/{content['id']}": hashlib.sha256(_plain(bound)).hexdigest()}
    return _ordered(signatures.document(key, subjects, signatures.ERASURE, bound))


def rendered(receipt: Receipt) -> bytes:
    """Returns the bytes of a receipt's file."""
    return json.dumps(receipt, indent=2).encode() + b"\n"


def digest(receipt: Receipt) -> str:
    """Returns the SHA-256, hex, of a receipt's file."""
    return hashlib.sha256(rendered(receipt)).hexdigest()


def not_reached(*, lake: bool, inbox: bool) -> list[str]:
    """Returns the words of `OUT_OF_REACH` that apply to an erasure.

    Args:
        lake: Whether the lake lies in a bucket.
        inbox: Whether an inbox of the erasure does.
    """
    found = ["backups", "handed_out"]
    if lake or inbox:
        found.append("access_logs")
    return found + (["athena_results", "query_history", "catalog_history"] if lake else [])


def days(words: Iterable[str]) -> dict[str, int]:
    """Returns, for some words of `not_reached`, after how many days their data are gone, if the stack defines it."""
    return {word: STACK_DAYS[word] for word in words if word in STACK_DAYS}


def holds(receipt: Receipt, key: Key, lake_id: str) -> bool:
    """Returns whether this lake has signed a receipt."""
    if receipt.get("lake") != lake_id:
        return False
    # receipts of earlier versions are signed by an HMAC, which only the holder of the key can check
    if not is_public(receipt):
        return _same(receipt, state.digest(_KIND, lake_id, key, _plain(_unsigned(receipt))))
    try:
        check(receipt, signatures.public_key(key))
    except signatures.SignatureRefused:
        return False
    return True


def is_public(receipt: Receipt) -> bool:
    """Returns whether a receipt has a public signature, valid or not; receipts of earlier versions have none."""
    return isinstance(receipt.get("signature"), dict)


def check(receipt: Receipt, pem: str | None = None, *, name: str = "the receipt") -> signatures.Statement:
    """Returns the signed statement of a receipt; needs neither lake nor key.

    Args:
        receipt: The receipt, read strictly.
        pem: The public key that must have signed it; by default the one in the receipt.
        name: Its name in messages, such as its file.

    Raises:
        SignatureRefused: It is not valid.
    """
    statement = signatures.check_document(receipt, signatures.ERASURE, pem, name=name)
    bound = {part: value for part, value in _unsigned(receipt).items() if part != "public_key"}
    if statement.subjects != {f"{RECEIPTS}/{receipt.get('id')}": hashlib.sha256(_plain(bound)).hexdigest()}:
        raise signatures.SignatureRefused(f"{name}: expected the digest of the receipt, found another; do not use it")
    return statement


def held_before(receipt: Receipt, key: Key) -> bool:
    """Returns whether a lake with this key signed a receipt before receipts were bound to a lake.

    Lakes that use subkeys (`key.version` 2) have no such receipts.
    """
    if key.version != 1 or "lake" in receipt or not isinstance(receipt.get("people"), list):
        return False
    message = _plain(_unsigned(receipt))
    # signed by the key of their time, which may have been rotated since
    return any(_same(receipt, each.digest("receipt", message).hex()) for each in key.every())


def keep(root: Path, receipt: Receipt, *, new: bool = False) -> Path:
    """Writes a receipt into a lake's folder, on disk when it returns, and returns its file.

    Raises:
        FileExistsError: It must be `new`, and there is one of that id.
    """
    path = root / RECEIPTS / f"{receipt['id']}.json"
    durable.folder(path.parent)
    (durable.create if new else durable.write)(path, rendered(receipt))
    return path


def newest(receipts: Iterable[Receipt]) -> Receipt | None:
    """Returns the receipt that the next one follows: the last that no other names; None if there is none.

    Args:
        receipts: A lake's receipts, all valid.
    """
    every = list(receipts)
    named = {link for receipt in every for link in links(receipt)}
    # a lake that was restored, and went on, can have several
    ends = [receipt for receipt in every if named.isdisjoint(digests(receipt))]
    # a public signature first: every receipt without one is of an earlier version, whatever its clock said
    return max(ends, key=lambda receipt: (is_public(receipt), str(receipt.get("ended")), receipt["id"]), default=None)


def links(receipt: Receipt) -> tuple[str, ...]:
    """Returns the digests of the receipts that a receipt names: of the one before it, and of those that it repeats."""
    previous, again = receipt.get("previous"), receipt.get("replays")
    found = [previous, *(again.values() if isinstance(again, dict) else ())]
    return tuple(link for link in found if isinstance(link, str) and link)


def digests(receipt: Receipt) -> tuple[str, ...]:
    """Returns the digests by which others may name a receipt: its own, and those that it had before adoptions."""
    before = receipt.get("adopted_sha256")
    return (digest(receipt), *(before if isinstance(before, list) else ()))


def breaks(receipts: Sequence[Receipt], now: datetime | None = None) -> Iterator[tuple[str, str, str]]:
    """Yields where the chain of a lake's receipts is broken: a receipt's id, what was expected, and what was found.

    Breaks are: a missing or replaced receipt, one without a successor although newer ones exist, and a time before that
    of the previous receipt or in the future. A clock that ran back counts as corrected once a later receipt has a later
    time than both, since the chain itself gives the order.

    Args:
        receipts: Valid receipts, in any order.
        now: The clock's time; without it, no time is compared with it.
    """
    known = {name: receipt for receipt in receipts for name in digests(receipt)}
    followed, whole, right = set[str](), True, _latest(receipts, known)
    for receipt in sorted(receipts, key=lambda each: str(each["id"])):
        ended = _ended(receipt)
        for link in links(receipt):
            before = known.get(link)
            if before is None:
                whole = False
                yield receipt["id"], f"beside it the receipt that it follows, of SHA-256 {link}", "none"
                continue
            followed.add(before["id"])
            earlier = _ended(before)
            if ended and earlier and max(ended, right.get(receipt["id"], ended)) < earlier - SKEW:
                what = f"an end after {before['ended']}, when the receipt before it ended"
                yield receipt["id"], what, f"{receipt['ended']}: the clock ran back"
        if ended and now and ended > now + SKEW:
            what = f"an end that has been, by a clock at {now.isoformat(timespec='seconds')}"
            yield receipt["id"], what, f"{receipt['ended']}: the clock ran back"
    last = newest(receipts)
    # where one is missing, the one before it has no successor: that is said already
    for receipt in receipts if whole else ():
        if is_public(receipt) and receipt is not last and receipt["id"] not in followed:
            yield receipt["id"], "a receipt that follows it", "newer ones that do not"


def _latest(receipts: Sequence[Receipt], known: Mapping[str, Receipt]) -> dict[str, datetime]:
    """Returns the latest end of the receipts that follow each, by its id, directly or behind others."""
    found: dict[str, datetime] = {}
    # an instant spreads from a receipt to those before it only while it is later: so this ends, even in a loop of links
    waiting = [(receipt, ended) for receipt in receipts if (ended := _ended(receipt))]
    while waiting:
        receipt, ended = waiting.pop()
        for before in filter(None, map(known.get, links(receipt))):
            if before["id"] not in found or found[before["id"]] < ended:
                found[before["id"]] = ended
                waiting.append((before, ended))
    return found


def _ended(receipt: Receipt) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(receipt.get("ended")))
    except ValueError:
        return None
    return found if found.tzinfo else None


def names(root: Path) -> set[str]:
    """Returns the names of a lake's receipts, which are their ids if they are what they seem."""
    return {path.stem for path in (root / RECEIPTS).glob("*.json")}


def listed(root: Path) -> list[Receipt]:
    """Returns a lake's receipts, oldest first; a file that is not a receipt has only an id, its name."""
    return [listed_as(root, name) for name in sorted(names(root))]


def listed_as(root: Path, name: str) -> Receipt:
    """Returns the receipt of a file in a lake's folder; it is that of the erasure whose id is the file's name."""
    found = _read(root / RECEIPTS / f"{name}.json")
    # under another name it would count for an erasure that it does not describe
    return found if found and found["id"] == name else {"id": name}


def elsewhere(folder: Path, key: Key) -> list[Receipt]:
    """Returns the receipts that a folder outside holds, or its folder `receipts`, of lakes with a key.

    Raises:
        LakeError: One is not what a lake with this key has signed.
    """
    found: list[Receipt] = []
    for path in sorted([*folder.glob("*.json"), *(folder / RECEIPTS).glob("*.json")]):
        receipt = _read(path)
        # a folder of the user's choice may hold any other JSON
        if receipt is None or not {"people", "began", "signature"} <= receipt.keys():
            continue
        if not holds(receipt, key, str(receipt.get("lake"))) and not held_before(receipt, key):
            raise LakeError(f"{path}: expected a receipt that a lake with this key has signed, found another content")
        found.append(receipt)
    return found


def find(root: Path, named: str) -> Receipt:
    """Returns a receipt by its id, or by the path of a file; one that cannot be parsed is never valid.

    Raises:
        UsageError: There is none.
    """
    for path in (root / RECEIPTS / f"{named}.json", Path(named)):
        if path.is_file():
            return _read(path) or {"id": path.stem}
    raise UsageError(
        "expected the id or file of a receipt, found neither; `stedi erase --list` lists them", argument="named"
    )


def _read(path: Path) -> dict[str, Any] | None:
    """Returns what has the shape of a receipt, or None."""
    try:
        return parsed(state.bytes_of(path))
    except OSError:
        return None


def parsed(raw: bytes) -> dict[str, Any] | None:
    """Returns a receipt's bytes as a receipt, as far as its shape goes, or None for anything else.

    A publicly signed receipt must have exactly the expected bytes: the same content in another form is refused.
    """
    try:
        found = state.parsed(raw)
    except ValueError:
        return None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        return None
    people = found.get("people", [])
    if not isinstance(people, list) or not all(isinstance(mark, str) for mark in people):
        return None
    if not is_public(found):
        return found
    return found if rendered(_ordered(found)) == raw else None


def _unsigned(receipt: Receipt) -> dict[str, Any]:
    return {name: value for name, value in receipt.items() if name != "signature"}


def _ordered(receipt: Receipt) -> dict[str, Any]:
    """Returns a receipt with all fields in the order of their names, its signature last."""
    # through JSON: objects within it are ordered, too, and tuples become lists, so that it equals what a reader parses
    found: dict[str, Any] = json.loads(json.dumps(receipt, allow_nan=False, sort_keys=True))
    return {**_unsigned(found), **({"signature": found["signature"]} if "signature" in found else {})}


def _plain(content: Mapping[str, Any]) -> bytes:
    # signatures are over these bytes: another form of them would invalidate every receipt there is
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _same(receipt: Receipt, signature: str) -> bool:
    found = receipt.get("signature")
    return isinstance(found, str) and hmac.compare_digest(found.encode("utf-8", "replace"), signature.encode())
