"""What is still known of customers who were erased: that they were, when, and how many of them claimed a device.

Withdrawals and explanations ask here. No command erases anybody yet, so the answer is always the same.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from stedi.privacy.pseudonyms import Key


def erased_at(root: Path, key: Key, address: str) -> datetime | None:
    """Returns when the customer of an address, in any spelling, was erased; None if they were not."""
    del root, key, address
    return None


def claimants(root: Path, key: Key, serial: str) -> int:
    """Returns how many erased customers claimed a serial number: their claims stand (rule 6), and they never move."""
    del root, key, serial
    return 0
