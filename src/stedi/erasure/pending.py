"""What an erasure under way keeps in the lake until it has ended, so that it can be finished after any interruption.

It names nobody: people, serial numbers, moments and records stand in it by mark, files by path. What else is needed,
such as names to look for, is read again from the customers' records, whose old files are the very last to go.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stedi import durable
from stedi.errors import LakeError
from stedi.privacy import tombstones
from stedi.privacy.tombstones import PENDING, Tombstones


@dataclass(frozen=True, slots=True)
class Found:
    """What the first phase has found.

    Attributes:
        rows: Rows of the customers in each table now.
        tainted: Of each table the files of live snapshots that hold something of the customers.
        counts: For each delivered file, by SHA-256, how many accepted and quarantined records of theirs there are.
        follows: Of each table below landing the inputs of which it has every change.
        withheld: Withheld readings that go.
        customers: Of the customers, those who have landed records.
        mentioned: Rows of others whose unknown fields mention one of them.
        tombstones: What will keep their data out.
    """

    rows: Mapping[str, int]
    tainted: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, tuple[int, int]]
    follows: Mapping[str, tuple[str, ...]]
    withheld: int
    customers: int
    mentioned: int
    tombstones: Tombstones

    def taints(self, table: str) -> frozenset[str]:
        """Returns the tainted files of a table."""
        return frozenset(self.tainted.get(table, ()))


@dataclass(frozen=True, slots=True)
class Pending:
    """An erasure under way.

    Attributes:
        run: Its id.
        started: When it began, epoch milliseconds.
        people: The customers' marks.
        inbox: Delivered files and folders to rewrite.
        found: What the first phase has found, once it has ended.
        removed: What has gone so far, for the receipt.
        scanned: What the search has looked at, once it has found nothing.
    """

    run: str
    started: int
    people: tuple[str, ...]
    inbox: tuple[str, ...] = ()
    found: Found | None = None
    removed: Mapping[str, Any] = field(default_factory=dict)
    scanned: Mapping[str, Any] | None = None


def write(root: Path, pending: Pending) -> None:
    """Keeps what is known of an erasure, on disk when it returns."""
    plain = asdict(pending)
    if pending.found is not None:
        plain["found"]["tombstones"] = tombstones.to_json(pending.found.tombstones)
    durable.write(root / PENDING, json.dumps(plain).encode())


def read(root: Path) -> Pending | None:
    """Returns the erasure that is under way or was cut off, if there is one.

    Raises:
        LakeError: Its file is damaged.
    """
    path = root / PENDING
    if not path.exists():
        return None
    try:
        plain = json.loads(path.read_bytes())
        found = plain.pop("found")
        if found is not None:
            found["tainted"] = {table: tuple(paths) for table, paths in found["tainted"].items()}
            found["counts"] = {sha256: tuple(counts) for sha256, counts in found["counts"].items()}
            found["follows"] = {table: tuple(inputs) for table, inputs in found["follows"].items()}
            found = Found(**{**found, "tombstones": tombstones.from_json(found["tombstones"])})
        lists = {name: tuple(plain[name]) for name in ("people", "inbox")}
        return Pending(**{**plain, **lists}, found=found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LakeError(
            f"{PENDING}: expected an erasure under way, found {type(error).__name__}; remove the file, then run "
            "`stedi erase` for the same customers again"
        ) from error


def remove(root: Path) -> None:
    """Ends an erasure."""
    durable.remove(root / PENDING)
