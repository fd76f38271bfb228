"""Replay: what a journal knows and a lake does not, after the lake was restored from a backup or made anew.

Erasures come first, so that nobody who was erased is taken for a customer; then withdrawals. Both are known by mark,
and find their customers among the lake's own. Tables that were built before are built at the end. Applying a journal
twice changes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from stedi import erasure
from stedi.context import Context, milliseconds, seen
from stedi.context.progress import Progress
from stedi.erasure.report import Receipt
from stedi.errors import UsageError
from stedi.landing import journal as landings
from stedi.landing import withdrawal
from stedi.privacy import journal, key_change
from stedi.privacy.journal import Entry
from stedi.privacy.pseudonyms import Key
from stedi.storage import durable


@dataclass(frozen=True, slots=True)
class Replay:
    """What one replay did.

    Attributes:
        entries: Entries of the journal: withdrawals and erasures.
        new: Those of them that the lake's own journal did not have.
        withdrawals: Withdrawals that were landed.
        waiting: Withdrawals whose customers the lake does not know yet: they are landed as soon as it does.
        people: People of the erasures that were new.
        receipts: The receipts of what was erased now.
    """

    entries: int
    new: int
    withdrawals: int
    waiting: int
    people: int
    receipts: tuple[Receipt, ...]


def replay(context: Context, key: Key, folder: Path, *, progress: Progress = lambda what, share: None) -> Replay:
    """Applies the copies of a journal, of this lake or of one with the same key, to a lake.

    Args:
        context: The lake.
        key: The lake's key.
        folder: Where the copies are.
        progress: Told how far the work is.

    Raises:
        UsageError: There are none, or the lake that wrote them makes other marks.
        LakeError: An entry is not what a lake with this key has written, or one is missing; nothing was changed.
    """
    found: dict[str, Entry] = {}
    for place in _places(context, key, folder):
        for entry in journal.entries(place, key):
            if entry.what != "reset":
                found.setdefault(entry.id, entry)
    other = next((entry for entry in found.values() if entry.version != key.version), None)
    if other is not None:
        raise UsageError(
            f"{folder}: expected entries of a lake with key.version {key.version}, found {other.version}: marks "
            f"differ; set key.version = {other.version} in lake.toml of a new lake, before anything has landed"
        )
    root, config = context.root, context.config
    with durable.commands(root, durable.ALL, lambda what: progress(what, None)):
        key_change.refuse_other(root, config.key_fingerprint)
        landings.finish(context.catalog, root / "pending", lambda: key)
        mine = {entry.id for entry in journal.entries(root / journal.FOLDER, key)}
        new = [entry for entry in found.values() if entry.id not in mine]
        erased = [entry for entry in new if entry.what == "erasure"]
        receipts = erasure.again(context, key, erased, progress=progress)
        withdrawn = [entry for entry in new if entry.what == "withdrawal"]
        progress("land withdrawals again", None)
        said: dict[str, set[int]] = {}
        for entry in withdrawn:
            for person, instants in entry.content["people"].items():
                said.setdefault(person, set()).update(instants)
        landed, waiting = withdrawal.again(context, key, said)
        for entry in withdrawn:
            withdrawal.keep(root, key, config.lake_id, entry.id, entry.content["people"])
        if receipts:  # of what the tables were built from, some is gone
            erasure.build_due(context, key, "duckdb", now=milliseconds(datetime.now(UTC)), progress=progress)
    people = {person for entry in erased for person in entry.content["receipt"]["people"]}
    return Replay(len(found), len(new), landed, waiting, len(people), tuple(map(Receipt.of, receipts)))


def _places(context: Context, key: Key, folder: Path) -> list[Path]:
    """Returns the folders of copies; none where the lake's own mark says that its journal never had an entry."""
    try:
        return journal.outside(folder)
    except UsageError:
        lake_id = context.config.lake_id
        marks = (seen.read(place, lake_id, key) for place in (folder, folder / f"{lake_id}.{journal.FOLDER}"))
        if any(mark is not None and not mark.number for mark in marks):
            return []
        raise
