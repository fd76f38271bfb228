"""Receipts of erasures: what was removed and what was looked at, signed under the lake's key.

A receipt is a JSON document in the lake's folder `receipts`. It knows whom it is about by their mark, as tombstones do.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi import durable
from stedi.errors import UsageError
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import RECEIPTS

Receipt = Mapping[str, Any]
"""A receipt's JSON document; `id` names it, `signature` is last."""


def signed(key: Key, content: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a receipt of this content."""
    return {**content, "signature": _signature(key, content)}


def holds(key: Key, receipt: Receipt) -> bool:
    """Says whether a receipt is what a lake with this key, or one that it has followed, has signed."""
    content = {name: value for name, value in receipt.items() if name != "signature"}
    return any(hmac.compare_digest(str(receipt.get("signature")), _signature(each, content)) for each in key.every())


def keep(root: Path, receipt: Receipt) -> Path:
    """Writes a receipt into a lake's folder, on disk when it returns, and returns its file."""
    path = root / RECEIPTS / f"{receipt['id']}.json"
    durable.folder(path.parent)
    durable.write(path, json.dumps(receipt, indent=2).encode() + b"\n")
    return path


def listed(root: Path) -> list[Receipt]:
    """Returns a lake's receipts, oldest first; one that is no JSON has nothing but its id."""
    return [_read(path) or {"id": path.stem} for path in sorted((root / RECEIPTS).glob("*.json"))]


def find(root: Path, named: str) -> Receipt:
    """Returns a receipt by its id, or by the path of a file; what is no receipt has nothing that could hold.

    Raises:
        UsageError: There is none.
    """
    for path in (root / RECEIPTS / f"{named}.json", Path(named)):
        if path.is_file():
            return _read(path) or {"id": path.stem}
    raise UsageError("--verify: expected a receipt's id or file, found neither; `stedi erase --list` lists them")


def _read(path: Path) -> Receipt | None:
    try:
        found = json.loads(path.read_bytes())
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _signature(key: Key, content: Mapping[str, Any]) -> str:
    plain = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return hmac.digest(key.secret, b"stedi: receipt\0" + plain, "sha256").hex()
