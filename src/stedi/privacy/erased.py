"""What is still known of customers who were erased: that they were, when, and how many of them claimed a device.

Withdrawals and explanations ask here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key


def erased_at(root: Path, key: Key, address: str) -> datetime | None:
    """Returns until when the customer of an address, in any spelling, is erased; None if they are not."""
    known = tombstones.read(root, key)
    at = known.people.get(tombstones.person(key, address)) if known else None
    return None if at is None else datetime.fromtimestamp(at / 1000, UTC)


def claimants(root: Path, key: Key, serial: str) -> int:
    """Returns how many erased customers claimed a serial number: their claims stand (rule 6), and they never move."""
    return tombstones.read(root, key).claimants(key, serial)
