"""What is still known of customers who were erased: that they were, when, and how many of them claimed a device.

Withdrawals, explanations and the proof ask here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key


def erased_at(root: Path, key: Key, address: str) -> datetime | None:
    """Returns until when what is dated of the customer of an address, in any spelling, stays out; None if all may come.

    That is when they were erased, or later, if their data were dated ahead.
    """
    until = tombstones.read(root, key).until(key, address)
    return datetime.fromtimestamp(until / 1000, UTC) if until else None


def claimants(root: Path, key: Key, serial: str) -> int:
    """Returns how many erased customers claimed a serial number: their claims stand (rule 6), and they never move."""
    return tombstones.read(root, key).claimants(key, serial)
