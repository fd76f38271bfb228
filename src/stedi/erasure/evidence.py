"""Checks that a lake's tombstones, receipts and unfinished erasure are its own and consistent; read-only."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from stedi.audit.integrity import Check, Violation
from stedi.context import Context
from stedi.erasure import pending
from stedi.errors import LakeError
from stedi.privacy import receipts, tombstones
from stedi.privacy.pseudonyms import Key

_NAME = "erasures"


def check(context: Context) -> Check | None:
    """Returns what is wrong with a lake's records of erasures; None if there has been no erasure.

    Raises:
        KeyRefused: The lake's key is missing.
    """
    root, key = context.root, context.key()
    kept = (root / tombstones.NAME, root / tombstones.PENDING)
    if not receipts.names(root) and not any(path.exists() for path in kept):
        return None
    return Check(_NAME, tombstones.NAME, tuple(_violations(root, key, context.config.lake_id)))


def _violations(root: Path, key: Key, lake_id: str) -> Iterator[Violation]:
    under_way = None
    try:
        left = pending.read(root, key)
        under_way = left.run if left else None
    except LakeError:
        yield Violation(tombstones.PENDING, "an erasure that this lake has begun", "another content")
    try:
        known = tombstones.read(root, key)
    except LakeError as error:
        expected, _, found = str(error).removeprefix(f"{tombstones.NAME}: expected ").partition(", found ")
        yield Violation(tombstones.NAME, expected, found.partition(";")[0])
        return
    there, own = receipts.names(root), list[receipts.Receipt]()
    for name in sorted(there):
        file, receipt = f"{receipts.RECEIPTS}/{name}.json", receipts.listed_as(root, name)
        if not tombstones.vouches(root, key, lake_id, receipt):
            yield Violation(file, "a receipt that this lake has signed", "another content")
        elif not known.people.keys() >= set(receipt["people"]):
            yield Violation(file, "everybody in it among the tombstones", "somebody who is not")
        else:
            own.append(receipt)
    # among those that hold: one forged receipt would break the chain anywhere
    for name, expected, found in receipts.breaks(own, datetime.now(UTC)):
        yield Violation(f"{receipts.RECEIPTS}/{name}.json", expected, found)
    # each erasure leaves a receipt at its end
    for run in sorted(known.erasures.keys() - there - {under_way}):
        yield Violation(f"{receipts.RECEIPTS}/{run}.json", "the receipt of an erasure", "no file")
