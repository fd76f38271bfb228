"""Replay: applies a journal to a lake that was restored from a backup or re-created.

Erasures come first, so that nobody who was erased is taken for a customer; then withdrawals. Both are known by mark,
and find their customers among the lake's own. Tables that were built before are built at the end. Applying a journal
twice changes nothing.

Where no journal is left, receipts of erasures that were kept elsewhere do for these: they say whom, by mark, and when.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from stedi import erasure
from stedi.context import Context, milliseconds, seen
from stedi.context.progress import Progress
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
"""Of landing tables the columns that tell whose a record is, and since when."""


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
        complete: Whether the copies go as far as the journal of this lake was seen to go; if not, something may be
            undone still, and the lake stays one that was set back.
    """

    entries: int
    new: int
    withdrawals: int
    waiting: int
    people: int
    receipts: tuple[Receipt, ...]
    complete: bool = True


def replay(context: Context, key: Key, folder: Path, *, progress: Progress = lambda what, share: None) -> Replay:
    """Applies the copies of a journal, of this lake or of one with the same key, to a lake.

    Args:
        context: The lake.
        key: The lake's key.
        folder: Where the copies are, or receipts of erasures.
        progress: Told how far the work is.

    Raises:
        UsageError: There are none, or the lake that wrote them makes other marks.
        LakeError: An entry is not what a lake with this key has written, or one is missing; nothing was changed.
    """
    root, config = context.root, context.config
    found: dict[str, Entry] = {}
    digests = set[str]()
    kept = [_entry(receipt, key) for receipt in receipts.elsewhere(folder, key)]
    for place in _places(context, key, folder, alone=not kept):
        for entry in journal.entries(place, key):
            digests.add(entry.digest)
            if entry.what != "reset":
                found.setdefault(entry.id, entry)
    found = {**{entry.id: entry for entry in kept}, **found}
    other = next((entry for entry in found.values() if entry.version != key.version), None)
    if other is not None:
        raise UsageError(
            f"{folder}: expected entries of a lake with key.version {key.version}, found {other.version}: marks "
            f"differ; set key.version = {other.version} in lake.toml of a new lake, before anything has landed"
        )
    with durable.commands(root, durable.ALL, lambda what: progress(what, None)):
        key_change.refuse_other(root, config.key_fingerprint)
        landings.finish(context.catalog, root / "pending", lambda: key)
        known = list(journal.entries(root / journal.FOLDER, key))
        signed = (r for r in receipts.listed(root) if receipts.holds(r, key, config.lake_id))
        own = {receipt["id"]: _entry(receipt, key) for receipt in signed}
        own |= {entry.id: entry for entry in known if entry.what == "erasure"}
        _mend(context, key, own.values())
        was_older = context.older() is not None
        mine = {*own, *(entry.id for entry in known)}
        mine |= tombstones.read(root, key).ended.intersection(entry.id for entry in kept)
        new = [entry for entry in found.values() if entry.id not in mine]
        erased = [entry for entry in new if entry.what == "erasure"]
        people = {person for entry in erased for person in entry.content["receipt"]["people"]}
        back = _returned(context, key)
        undone = [entry for entry in own.values() if not back.isdisjoint(entry.content["receipt"]["people"])]
        done = erasure.again(context, key, [*undone, *erased], people=people | back, progress=progress)
        for entry in [*own.values(), *found.values()]:
            if entry.what == "erasure":
                erasure.keep_receipt(root, key, config.lake_id, entry.content["receipt"])
        withdrawn = [entry for entry in new if entry.what == "withdrawal"]
        repeated = [entry for entry in known if entry.what == "withdrawal"] if was_older else []
        progress("land withdrawals again", None)
        said: dict[str, set[int]] = {}
        for entry in [*repeated, *withdrawn]:
            for person, instants in entry.content["people"].items():
                said.setdefault(person, set()).update(instants)
        landed, waiting = withdrawal.again(context, key, said)
        for entry in withdrawn:
            withdrawal.keep(root, key, config.lake_id, entry.id, entry.content["people"])
        erasure.build_due(context, key, "duckdb", now=milliseconds(datetime.now(UTC)), progress=progress)
    last = context.last_seen()
    complete = not last or last in digests or last in {entry.digest for entry in known}
    return Replay(len(found), len(new), landed, waiting, len(people | back), tuple(map(Receipt.of, done)), complete)


def _places(context: Context, key: Key, folder: Path, *, alone: bool) -> list[Path]:
    """Returns the folders of copies; none where the lake's own mark says that its journal never had an entry.

    There need be none where the journal is not `alone`: receipts are there.
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
    """Returns the marks of the erased of whom landing holds what their tombstones bar: an older table brought it back.

    Such a lake has a journal that is newer than its tables, as where a backup was copied over it.
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
                    if first is not None and first <= known.people.get(mark, 0):
                        found.add(mark)
    return found


def _mend(context: Context, key: Key, own: Iterable[Entry]) -> None:
    """Puts back what the tombstones of a lake lack of the erasures in its journal and its receipts.

    So it is where their file is gone, or an older one is in its place: rows are gone, and could be landed again.
    """
    known = tombstones.sealed(context.root, key)
    mended = known
    for entry in own:
        receipt = entry.content["receipt"]
        theirs = tombstones.from_json(entry.content["tombstones"])
        if receipts.holds(receipt, key, context.config.lake_id):
            took = Tombstones(erasures={receipt["id"]: tuple(receipt["people"])}, ended=frozenset({receipt["id"]}))
        else:  # of a lake that was lost: its receipt is in the journal alone
            theirs, took = replace(theirs, erasures={}, ended=frozenset()), Tombstones()
        mended = mended | theirs | took
    if mended != known:
        tombstones.write(context.root, key, mended)


def _entry(receipt: receipts.Receipt, key: Key) -> Entry:
    """Returns what a receipt tells as the entry of a journal: whom it is about, and until when their data stay out."""
    began = round(datetime.fromisoformat(receipt["began"]).timestamp() * 1000)
    theirs = Tombstones(people=dict.fromkeys(receipt["people"], began))
    content = {"receipt": receipt, "tombstones": tombstones.to_json(theirs)}
    version = receipt.get("key_version", key.version)
    return Entry(0, receipt["id"], "erasure", content, str(receipt.get("lake", "")), version, "", "")
