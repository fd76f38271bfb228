"""Replay: applies a journal to a lake that was restored from a backup or re-created.

Erasures are applied first, so that an erased person does not count as a customer; then withdrawals. Both name people
by mark, and the marks are matched with the lake's customers. Tables that were built before are built at the end.
Applying a journal twice changes nothing.

If no journal is left, erasures can be replayed from receipts kept elsewhere: a receipt has the people's marks and the
time.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from stedi import erasure
from stedi._frozen import dataclass, replace
from stedi.context import Context, milliseconds, seen
from stedi.context.progress import Progress, silent
from stedi.engines.duckdb import DuckDB
from stedi.erasure.report import Receipt
from stedi.errors import UsageError
from stedi.landing import journal as landings
from stedi.landing import withdrawal
from stedi.privacy import journal, key_change, receipts, tombstones
from stedi.privacy.journal import Entry
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.storage import durable

_WHOSE = (("customers_landing", "email", "registrationDate"), ("accelerometer_landing", "user", "timestamp"))
"""Landing tables, with the column that identifies a record's person and the column with its time."""


@dataclass(frozen=True, slots=True)
class Replay:
    """What one replay did.

    Attributes:
        entries: Entries of the journal: withdrawals and erasures.
        new: Entries that the lake's own journal did not have.
        withdrawals: Withdrawals that were landed.
        waiting: Withdrawals of customers whom the lake does not know yet; they are landed once it knows them.
        people: How many people the new erasures are about.
        receipts: The receipts of the erasures of this replay.
        complete: Whether the copies reach the last entry seen in this lake's journal. If not, some entries may still
            be undone, and the lake still counts as restored from an older state.
    """

    entries: int
    new: int
    withdrawals: int
    waiting: int
    people: int
    receipts: tuple[Receipt, ...]
    complete: bool = True


def replay(context: Context, key: Key, folder: Path, *, progress: Progress = silent) -> Replay:
    """Applies copies of a journal to a lake; the journal may be from another lake with the same key.

    They are read before anything is locked.

    Args:
        context: The lake.
        key: The lake's key.
        folder: The folder with the copies, or with receipts of erasures.
        progress: Called with the current step and its share of the work.

    Raises:
        UsageError: There are no copies, or they are from a lake whose marks differ.
        LakeError: An entry was not written by a lake with this key, or one is missing; nothing was changed.
    """
    root, config = context.root, context.config
    found: dict[str, Entry] = {}
    digests = set[str]()
    kept = {entry.id: entry for entry in (_entry(receipt, key) for receipt in receipts.elsewhere(folder, key))}
    for place in _places(context, key, folder, alone=not kept):
        for entry in journal.entries(place, key):
            digests.add(entry.digest)
            if entry.what != "reset":
                found.setdefault(entry.id, entry)
    # a journal's entry has the tombstones as well, of which a receipt tells only the people
    found = {**kept, **found}
    # before anything is written: under another version of the key the marks would match nobody
    other = next((entry for entry in found.values() if entry.version != key.version), None)
    if other is not None:
        raise UsageError(
            f"{folder}: expected entries of a lake with key.version {key.version}, found {other.version}: marks "
            f"differ; set key.version = {other.version} in lake.toml of a new lake, before anything has landed"
        )
    with context.mending(*durable.ALL, progress=progress):
        key_change.refuse_other(root, config.key_fingerprint)
        landings.finish(context)
        known = list(journal.entries(root / journal.FOLDER, key))
        # one that somebody else has put there must not erase anybody
        signed = (r for r in receipts.listed(root) if receipts.holds(r, key, config.lake_id))
        own = {receipt["id"]: _entry(receipt, key) for receipt in signed}
        own |= {entry.id: entry for entry in known if entry.what == "erasure"}
        # before records are looked at: by the tombstones one tells who is back
        _mend(context, key, own.values())
        was_older = context.older() is not None
        mine = {*own, *(entry.id for entry in known)}
        # what has ended here is not done again, though its receipt is gone: a customer may have come back since
        mine |= tombstones.read(root, key).ended.intersection(kept)
        new = [entry for entry in found.values() if entry.id not in mine]
        erased = [entry for entry in new if entry.what == "erasure"]
        people = {person for entry in erased for person in entry.content["receipt"]["people"]}
        back = _returned(context, key)
        # erased once, but an older table has brought their data back
        undone = [entry for entry in own.values() if not back.isdisjoint(entry.content["receipt"]["people"])]
        done = erasure.repeat(context, key, [*undone, *erased], people=people | back, progress=progress)
        for entry in [*own.values(), *found.values()]:
            if entry.what == "erasure":
                erasure.keep_receipt(context, key, entry.content["receipt"])
        withdrawn = [entry for entry in new if entry.what == "withdrawal"]
        # a restored lake has lost what its own journal still knows
        repeated = [entry for entry in known if entry.what == "withdrawal"] if was_older else []
        progress("land withdrawals again", None)
        said: dict[str, set[int]] = {}
        for entry in [*repeated, *withdrawn]:
            for person, instants in entry.content["people"].items():
                said.setdefault(person, set()).update(instants)
        landed, waiting = withdrawal.repeat(context, key, said)
        for entry in withdrawn:
            withdrawal.keep(context, key, entry.id, entry.content["people"])
        erasure.build_due(context, key, "duckdb", now=milliseconds(datetime.now(UTC)), progress=progress)
        # still under the locks: of what another command records later nothing here can tell
        last = context.last_seen()
        complete = not last or last in digests or last in {entry.digest for entry in known}
    return Replay(len(found), len(new), landed, waiting, len(people | back), tuple(map(Receipt.of, done)), complete)


def _places(context: Context, key: Key, folder: Path, *, alone: bool) -> list[Path]:
    """Returns the folders of copies; none if the lake's own mark says that its journal never had an entry.

    Copies are required only if the journal is `alone`, that is, without receipts.
    """
    try:
        return journal.outside(folder)
    except UsageError:
        if not alone:
            return []
        lake_id = context.config.lake_id
        marks = (seen.read(place, lake_id, key) for place in (folder, folder / f"{lake_id}.{journal.FOLDER}"))
        if any(mark is not None and not mark.number for mark in marks):
            return []
        raise


def _returned(context: Context, key: Key) -> set[str]:
    """Returns the marks of erased people for whom landing holds barred records, brought back by an older table.

    Such a lake's journal is newer than its tables, for example because a backup was copied over the lake.
    """
    found, known = set[str](), tombstones.read(context.root, key)
    if not known:
        return found
    catalog = context.catalog
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        for table, whose, since in _WHOSE:
            engine.bind_files(table, catalog.files(catalog.table(table)))
            for batch in engine.batches(f'select "{whose}", min("{since}") from {table} group by all'):
                marks = tombstones.persons(key, (address for address, _ in batch))
                for mark, (_, first) in zip(marks, batch, strict=True):
                    # later data are of a person who has come back, and stay
                    if first is not None and first <= known.people.get(mark, 0):
                        found.add(mark)
    return found


def _mend(context: Context, key: Key, own: Iterable[Entry]) -> None:
    """Restores tombstones that the lake's journal and receipts contain but its tombstone file lacks.

    Tombstones are missing if their file was lost or replaced by an older one. Without them, erased rows could be landed
    again.
    """
    known = tombstones.sealed(context.root, key)
    mended = known
    for entry in own:
        receipt = entry.content["receipt"]
        theirs = tombstones.from_json(entry.content["tombstones"])
        if receipts.holds(receipt, key, context.config.lake_id):
            took = Tombstones(erasures={receipt["id"]: tuple(receipt["people"])}, ended=frozenset({receipt["id"]}))
        else:  # an erasure of a lake that was lost: only the journal has its receipt
            theirs, took = replace(theirs, erasures={}, ended=frozenset()), Tombstones()
        mended = mended | theirs | took
    if mended != known:
        tombstones.write(context.root, key, mended)


def _entry(receipt: receipts.Receipt, key: Key) -> Entry:
    """Returns a receipt as a journal entry: the people's marks, and until when their data stay out."""
    began = round(datetime.fromisoformat(receipt["began"]).timestamp() * 1000)
    theirs = Tombstones(people=dict.fromkeys(receipt["people"], began))
    content = {"receipt": receipt, "tombstones": tombstones.to_json(theirs)}
    version = receipt.get("key_version", key.version)
    return Entry(0, receipt["id"], "erasure", content, str(receipt.get("lake", "")), version, "", "")
