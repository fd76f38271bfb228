"""Receipts of erasures: what was removed and what was looked at, signed under the lake's key.

A receipt is a JSON document in the lake's folder `receipts`. It knows whom it is about by their mark, as tombstones do,
and which lake it is of: another lake's receipt holds in none but that one, whatever key both have.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from stedi.errors import UsageError
from stedi.privacy import state
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
_KIND = "receipt"


def signed(key: Key, lake_id: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a receipt of this content, of one lake."""
    bound = {**content, "lake": lake_id}
    return {**bound, "signature": state.digest(_KIND, lake_id, key, _plain(bound))}


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
    """Returns of some words of `not_reached` after how many days what they tell of is gone, where the stack says so."""
    return {word: STACK_DAYS[word] for word in words if word in STACK_DAYS}


def holds(receipt: Receipt, key: Key, lake_id: str) -> bool:
    """Says whether a receipt is what this lake has signed."""
    if receipt.get("lake") != lake_id:
        return False
    return _same(receipt, state.digest(_KIND, lake_id, key, _plain(_unsigned(receipt))))


def held_before(receipt: Receipt, key: Key) -> bool:
    """Says whether a receipt is what some lake with this key has signed before receipts were bound to a lake.

    A lake whose key is used with subkeys (`key.version` 2) has none of those.
    """
    if key.version != 1 or "lake" in receipt or not isinstance(receipt.get("people"), list):
        return False
    message = _plain(_unsigned(receipt))
    return any(_same(receipt, each.digest("receipt", message).hex()) for each in key.every())


def keep(root: Path, receipt: Receipt) -> Path:
    """Writes a receipt into a lake's folder, on disk when it returns, and returns its file."""
    path = root / RECEIPTS / f"{receipt['id']}.json"
    durable.folder(path.parent)
    durable.write(path, json.dumps(receipt, indent=2).encode() + b"\n")
    return path


def names(root: Path) -> set[str]:
    """Returns the names of a lake's receipts, which are their ids if they are what they seem."""
    return {path.stem for path in (root / RECEIPTS).glob("*.json")}


def listed(root: Path) -> list[Receipt]:
    """Returns a lake's receipts, oldest first; one that is none has nothing but its file's name for an id."""
    return [listed_as(root, name) for name in sorted(names(root))]


def listed_as(root: Path, name: str) -> Receipt:
    """Returns the receipt of a file in a lake's folder; it is that of the erasure whose id is the file's name."""
    found = _read(root / RECEIPTS / f"{name}.json")
    return found if found and found["id"] == name else {"id": name}


def find(root: Path, named: str) -> Receipt:
    """Returns a receipt by its id, or by the path of a file; what is no receipt has nothing that could hold.

    Raises:
        UsageError: There is none.
    """
    for path in (root / RECEIPTS / f"{named}.json", Path(named)):
        if path.is_file():
            return _read(path) or {"id": path.stem}
    raise UsageError(
        "expected a receipt's id or file, found neither; `stedi erase --list` lists them", argument="named"
    )


def _read(path: Path) -> dict[str, Any] | None:
    """Returns a receipt as far as its shape goes, or None for anything else."""
    try:
        found = state.parsed(state.bytes_of(path))
    except (ValueError, OSError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        return None
    people = found.get("people", [])
    return found if isinstance(people, list) and all(isinstance(mark, str) for mark in people) else None


def _unsigned(receipt: Receipt) -> dict[str, Any]:
    return {name: value for name, value in receipt.items() if name != "signature"}


def _plain(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _same(receipt: Receipt, signature: str) -> bool:
    found = receipt.get("signature")
    return isinstance(found, str) and hmac.compare_digest(found.encode("utf-8", "replace"), signature.encode())
