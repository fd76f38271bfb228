"""Erasure: removes all data of some customers, keeps their tombstones, proves it by a search, and writes a receipt.

What is due is built first, where tables were built before: then every table below landing was built from what landing
holds, and loses the customers together with it. Two phases follow, *locate*, then *remove*. What the first has found is
kept in a file of marks (`pending`) before the second changes anything; from then on the erasure will end, whatever ends
this process: the next command that writes goes on with it. All other commands that write are held off by their own
locks from the first step to the last.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi import transform
from stedi._frozen import replace
from stedi._version import __version__
from stedi.catalog import Catalog
from stedi.context import Context, operator
from stedi.context.progress import Progress, instant, run_id, silent
from stedi.engines import Name
from stedi.engines.duckdb import DuckDB
from stedi.engines.workers import Workers
from stedi.erasure import foreign, pending, remove
from stedi.erasure.foreign import Foreign
from stedi.erasure.locate import SubjectRows
from stedi.erasure.pending import Found, Pending
from stedi.erasure.remove import Removal
from stedi.erasure.report import ErasurePreview
from stedi.erasure.search import search_lake
from stedi.errors import AuditFailed, LakeBusy, LakeError, StediError
from stedi.landing import journal
from stedi.landing.deliveries import remote
from stedi.privacy import decoding, receipts, signatures, tombstones
from stedi.privacy import journal as lasting
from stedi.privacy.journal import Entry
from stedi.privacy.pseudonyms import Key
from stedi.privacy.state import StateRefused
from stedi.privacy.tombstones import Tombstones
from stedi.schema import tables
from stedi.storage import config as settings
from stedi.storage import durable, s3
from stedi.transform.ahead import Ahead

if TYPE_CHECKING:
    from stedi.erasure.delivered_file import Rewritten

__all__ = ["Progress", "build_due", "erase", "preview"]

_ROWS_OF_A_THREAD = 50_000_000
"""Rows of a lake for each further thread of the engine: with fewer, they wait for each other longer than they save."""
_MANY_ROWS = 1_000_000
"""Rows of a lake in which a second thread counts, hashes and writes beside the first: with fewer, it saves no time."""
_MEMORY_FOR_TWO = 100_000_000
"""Bytes that the engine may take where two statements read files at once: mostly buffers, whatever the rows."""


def preview(context: Context, key: Key, addresses: Collection[str]) -> ErasurePreview:
    """Returns what an erasure would remove; changes nothing and takes no lock, so a command at work can change it."""
    catalog, root = context.catalog, context.root
    before = tombstones.read(root, key)
    wanted = Pending(run_id(_now(None)), _now(None), _marks(key, addresses))
    with _engine(context, wanted.run) as (engine, ahead):
        found, _ = _judged(SubjectRows(engine, catalog, key, wanted, ahead, addresses=addresses), catalog)
    files = {name: len(paths) for name, paths in found.tainted.items()}
    known = len(_known(root, before, wanted.people, found))
    rows, foreign_ = dict(found.rows), dict(found.foreign)
    return ErasurePreview(len(wanted.people), known, found.customers, rows, files, found.mentioned, foreign_)


def erase(
    context: Context,
    key: Key,
    addresses: Collection[str] = (),
    *,
    delivered: Sequence[str] = (),
    reference: str = "",
    recover: bool = False,
    now: int | None = None,
    progress: Progress = silent,
    workers: Workers | None = None,
    engine: Name = "duckdb",
) -> list[dict[str, Any]]:
    """Erases customers; first finishes an interrupted erasure, and builds what is due.

    The caller holds the locks of all commands that write.

    Args:
        context: The lake.
        key: The lake's key.
        addresses: The customers' addresses, in any spelling; none only finishes.
        delivered: Delivered files and folders to rewrite without them.
        reference: The operator's name for the request, for the receipt.
        recover: Whether to reconstruct an interrupted erasure from tombstones and receipts if its file cannot be
            trusted.
        now: When it begins, epoch milliseconds; the clock's by default.
        progress: Called with the current step and its completed share.
        workers: Who looks through files and rewrites them, if it is not this process.
        engine: What builds.

    Returns:
        The receipts: of the erasure that was finished, if there was one, and of this one.

    Raises:
        AuditFailed: Something in the lake still holds one of them; the message names where. The erasure has ended all
            the same, its receipt says so, and the lake works.
        StateRefused: What was cut off stands in a file that this lake has not written; nothing was changed.
        LakeError: The lake cannot be read, or lies elsewhere than its tables say; nothing was changed.
    """
    catalog, root, done = context.catalog, context.root, []
    left = _cut_off(catalog, root, key, recover=recover, alone=not addresses)
    # one file tells what is under way: the older erasure ends before another begins
    if left is not None:
        done.append(_Erasure(context, key, left, progress, workers, engine).finish())
    if addresses:
        places = tuple(str(s3.at(path).absolute()) for path in delivered)
        signatures.publish(root, key)  # refused before anything is removed
        if any(map(s3.is_remote, places)):
            s3.client()  # likewise, without boto3
        new = Pending(run_id(_now(None)), _now(now), _marks(key, addresses), places)
        new = replace(new, reference=reference, operator=operator.name())
        done.append(_Erasure(context, key, new, progress, workers, engine, addresses=addresses).finish())
    if addresses and (found := done[-1]["scanned"].get("found")):
        raise AuditFailed(
            f"{root}: expected no trace of the erased customers, found one in {_listed(found)}; the erasure has "
            f"ended, and receipt {done[-1]['id']} says so. Remove what was found, then run `stedi erase` for the "
            "same customers again"
        )
    return done


def build_due(context: Context, key: Key, engine: Name, *, now: int, progress: Progress) -> None:
    """Builds what is due if tables were built before; a failed build is reported and remains due.

    A table that was built from fewer landed rows could not be verified after landing loses somebody: the snapshots that
    it was built from are removed with them.

    Args:
        context: The lake; the caller holds the locks of all commands that write.
        key: The lake's key.
        engine: What builds.
        now: The start of the build, epoch milliseconds.
        progress: Called with the current step.

    Raises:
        LakeBusy: A lock was lost: nothing may be written any more.
    """
    states = context.catalog.tables()
    below = [states[table.name].current for table in tables.graph().tables()]
    if not any(current is not None and "stedi.run" in current.summary for current in below):
        return
    try:
        if (context.root / lasting.WAITING).exists():
            from stedi.landing import withdrawal

            withdrawal.repeat(context, key)
        transform.build(context, key, now=now, progress=progress, engine=engine)
    except LakeBusy:
        raise
    except StediError as error:
        context.say(f"the build that was due failed: {error}. Run `stedi build` afterwards")


def _cut_off(catalog: Catalog, root: Path, key: Key, *, recover: bool, alone: bool) -> Pending | None:
    """Returns the interrupted erasure, if there is one; `alone` if the command is only to finish it."""
    known = tombstones.read(root, key)
    refused: StateRefused | None = None
    try:
        left = pending.read(root, key)
    except StateRefused as error:
        if not recover:
            raise
        left, refused = None, error
    if left is not None or not recover:
        return left
    people = pending.unended(root, key, known)
    if people:
        again = Pending(run_id(_now(None)), _now(None), people, recovered=True, evidence=pending.evidence(catalog))
        return replace(again, operator=operator.name())
    if refused is not None:
        pending.remove(root)
        if alone:
            found = str(refused).removesuffix(f"; {pending.ADVICE}")
            raise LakeError(
                f"{found}; the file was moved aside. Nothing in the lake shows an interrupted erasure: repeat "
                "requests that are not in `stedi erase --list`"
            )
    return None


def repeat(
    context: Context,
    key: Key,
    erased: Sequence[Entry],
    *,
    people: Collection[str],
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Repeats the erasures in a journal's entries in a restored or re-created lake.

    No addresses are needed: the lake's customers are found by mark. The original receipts are kept beside the new one.
    The caller holds the locks of all commands that write.

    Args:
        context: The lake.
        key: The lake's key.
        erased: Entries of erasures that were undone or never done here; an interrupted erasure is finished in any case.
        people: The marks of the people to erase again.
        progress: Called with the current step and its completed share.

    Returns:
        The receipts of what was done now.
    """
    catalog, root = context.catalog, context.root
    left = _cut_off(catalog, root, key, recover=True, alone=False)
    done = [_Erasure(context, key, left, progress, None).finish()] if left else []
    if not erased:
        return done
    then: dict[str, Tombstones] = {}
    for entry in erased:
        then[entry.id] = replace(tombstones.from_json(entry.content["tombstones"]), erasures={}, ended=frozenset())
    receipts_then = [entry.content["receipt"] for entry in erased]
    # as of then: data that came after it are of a person who has come back
    began = min(datetime.fromisoformat(receipt["began"]) for receipt in receipts_then)
    known = tombstones.read(root, key)
    for stones in then.values():
        known = known | stones
    tombstones.write(root, key, known)
    own = {r["id"]: receipts.digest(r) for r in receipts_then if _is_own(r, key, context.config.lake_id)}
    new = Pending(run_id(_now(None)), round(began.timestamp() * 1000), tuple(sorted(people)))
    new = replace(new, operator=operator.name(), replays=own)
    theirs = reduce(or_, then.values())
    done.append(_Erasure(context, key, new, progress, None, then=theirs).finish())
    for entry in erased:
        _keep_entry_and_receipt(context, key, entry)
    return done


def _is_own(receipt: receipts.Receipt, key: Key, lake_id: str) -> bool:
    """Returns whether a receipt of a journal is this lake's; another lake's stays in the journal alone."""
    return receipts.holds(receipt, key, lake_id) or receipts.held_before(receipt, key)


def keep_receipt(context: Context, key: Key, receipt: receipts.Receipt) -> bool:
    """Puts the receipt of an erasure that has ended back into the folder, if it is this lake's and gone from there.

    Returns:
        Whether it was.
    """
    ended = receipt["id"] in tombstones.read(context.root, key).ended
    there = receipt["id"] in receipts.names(context.root)
    if not ended or there or not _is_own(receipt, key, context.config.lake_id):
        return False
    receipts.keep(context.root, receipt)
    return True


def _keep_entry_and_receipt(context: Context, key: Key, entry: Entry) -> None:
    """Keeps the entry of an erasure that was done again, and its receipt if it is this lake's."""
    root, lake_id = context.root, context.config.lake_id
    receipt = entry.content["receipt"]
    if _is_own(receipt, key, lake_id):
        took = Tombstones(erasures={receipt["id"]: tuple(receipt["people"])}, ended=frozenset({receipt["id"]}))
        tombstones.write(root, key, tombstones.read(root, key) | took)
        receipts.keep(root, receipt)
    if not lasting.has(root, key, entry.id):
        lasting.append(root, key, lake_id, "erasure", entry.id, entry.content)


class _Erasure:
    """One erasure, from wherever it is to its end."""

    def __init__(
        self,
        context: Context,
        key: Key,
        wanted: Pending,
        progress: Progress,
        workers: Workers | None,
        builds: Name | None = None,
        then: Tombstones | None = None,
        addresses: Collection[str] = (),
    ) -> None:
        self._context, self._key, self._then, self._builds = context, key, then, builds
        self._addresses = addresses
        self._catalog, self._config, self._root = context.catalog, context.config, context.root
        self._pending, self._progress, self._workers = wanted, progress, workers

    def finish(self) -> dict[str, Any]:
        """Does all that is left to do and returns the receipt."""
        if self._pending.scanned is None:
            self._settle()
            with _engine(self._context, self._pending.run) as (engine, ahead):
                self._locate_and_remove(engine, ahead)
        found = self._found
        current = {file.path for file in self._catalog.files(self._catalog.table("customers_landing"))}
        remove.remove(self._catalog, found.taints("customers_landing") - current)
        self._remove_versions()
        receipt = self._signed()
        # in this order: the entry contains the receipt, and the file of what is under way goes last, so that all is
        # repeated
        self._append_to_journal(receipt)
        known = tombstones.read(self._root, self._key)
        tombstones.write(self._root, self._key, known | Tombstones(ended=frozenset({receipt["id"]})))
        pending.remove(self._root)
        return receipt

    def _is_overtaken(self) -> bool:
        """Returns whether others have changed tables since the first phase, and the second has not begun.

        So it is where the file of an erasure was written by a process that was stopped right before, for longer than
        its lease: then the first phase is done again.
        """
        if self._pending.found is None or not self._pending.heads:
            return False
        heads = {name: state.current for name, state in self._catalog.tables().items() if state.current}
        begun = any(head.summary.get(remove.ERASURE) == self._pending.run for head in heads.values())
        return not begun and any(heads[name].id != head for name, head in self._pending.heads.items())

    def _append_to_journal(self, receipt: dict[str, Any]) -> None:
        """Keeps in the journal what must be known of the erasure even if the lake is lost."""
        if not lasting.has(self._root, self._key, receipt["id"]):  # or it was cut off right here
            content = {"receipt": receipt, "tombstones": tombstones.to_json(self._found.tombstones)}
            lasting.append(self._root, self._key, self._config.lake_id, "erasure", receipt["id"], content)

    def _settle(self) -> None:
        """Repairs the lake as far as possible before the search."""
        # landings that were planned before this have not read the new tombstones: they must start again
        self._catalog.fence(self._pending.run)
        if s3.is_remote(self._root):  # one of the last moment, if there is any
            journal.finish(self._context)
        if self._is_overtaken():
            self._pending = replace(self._pending, found=None, heads={})
        if self._builds and self._pending.found is None and not self._pending.recovered:
            build_due(self._context, self._key, self._builds, now=self._pending.started, progress=self._progress)

    def _locate_and_remove(self, engine: DuckDB, ahead: Ahead) -> None:
        catalog, root, key = self._catalog, self._root, self._key
        self._progress("locate", None)
        # a bucket needs PyIceberg, which is imported while DuckDB works
        with ThreadPoolExecutor(1) as beside:
            warm = beside.submit(catalog.warm)
            before = tombstones.read(root, key)
            subject_rows = SubjectRows(
                engine, catalog, key, self._pending, ahead, self._workers, before, self._then, self._addresses
            )
            found, judged = self._pending.found, None
            if found is None:
                found, judged = _judged(subject_rows, catalog)
            took = Tombstones(erasures={self._pending.run: self._pending.people})
            found = replace(found, tombstones=found.tombstones | took)
            warm.result()
        if self._pending.found is None:
            found = replace(found, known=_known(root, before, self._pending.people, found))
            heads = {name: state.current.id for name, state in subject_rows.states.items() if state.current}
            self._keep(found=found, heads=heads)  # from here on it will happen
        known = before | found.tombstones
        # before anything is removed: after a crash a landing must not take the same records again
        tombstones.write(root, key, known)
        rewritten: list[Rewritten] = []
        count, records, why = 0, 0, dict[str, str]()
        if self._pending.inbox:
            from stedi.erasure import deliveries  # with the reader of deliveries, which takes time to import

            self._progress("rewrite delivered files", None)
            moments = frozenset(engine.rows("select serialNumber, moment from erased_moments"))
            inbox, temporary = self._pending.inbox, durable.scratch(root) / self._pending.run
            # only beside the old files: these are replaced when the ledger knows the new contents
            rewritten, kept = deliveries.rewrite(inbox, subject_rows.traces, moments, root, temporary, engine)
            if found.known is not None:
                # somebody with data in delivered files only, not landed yet
                found = replace(found, known=tuple(sorted({*found.known, *subject_rows.traces.met()})))
                self._keep(found=found)
        self._progress("rewrite releases", None)
        in_releases: dict[str, list[str]] = {}
        if "releases" in subject_rows.states:
            from stedi.erasure import releases  # most lakes have none, and what describes them takes time to import

            context = Context(root, self._config)
            in_releases = releases.remove_people(
                context, key, self._pending.run, self._pending.people, self._pending.started
            )
        memory = self._config.engine_memory
        claims = known.claims_digest(key)
        work = Removal(engine, catalog, subject_rows, self._pending, found, self._workers, memory, claims, ahead)
        removed = {}
        # in the order of the data flow: a table's lineage names the new snapshots of its inputs
        names = list(catalog.tables())
        for number, name in enumerate(names):
            self._progress(f"remove from {name}, {number + 1} of {len(names)}", number / len(names))
            removed[name] = work.table(name, rewritten if name == "landed_files" else ())
        if self._pending.inbox:
            # after the ledger, or the next landing would take the new contents for new deliveries
            replaced, more = deliveries.replace(rewritten)
            count, records = len(replaced), sum(file.records for file in replaced)
            why = {file.name: file.why for file in sorted((*more, *kept), key=lambda file: file.name)}
        current = {file.path for file in catalog.files(catalog.table("customers_landing"))}
        evidence = found.taints("customers_landing") - current
        self._progress("remove what nothing uses", None)
        remove.remove_orphans(catalog, evidence)
        remote.remove_seen(root)
        # deleted rows stay in the pages of the catalog's file
        catalog.vacuum()
        held = remove.clear(root, keeping=self._pending.run)
        gone: dict[str, Any] = {
            "tables": removed,
            "mentions": found.mentioned,
            "quarantined_whole": list(found.whole),
            "others": {table: dict(counts) for table, counts in found.others.items()},
        }
        if any(in_releases.values()):
            gone["releases"] = in_releases
        if self._pending.recovered:
            why["the inbox"] = "it is no longer known which inbox was meant: name it again"
        if self._pending.inbox or why:
            gone["delivered"] = {"files": count, "records": records, "left": list(why), "why": why}
        self._progress("search every file", None)
        # queries that run keep what they have read until they end
        mine = {*held, durable.scratch(root) / self._pending.run}
        left = {s3.at(path) for path in evidence}
        # texts of other programs are not stored: a resumed erasure has only their counts
        judged = judged or Foreign(frozenset(), found.foreign, ())
        others = foreign.reread(catalog, subject_rows.traces, judged)
        traces = subject_rows.traces
        if others.texts:  # a copy would prepare anew what it looks for
            traces = replace(traces, foreign=others.texts)
        looked = search_lake(
            root,
            traces,
            engine,
            without=left,
            held=mine,
            foreign=others.folders,
            workers=self._workers,
        )
        if others.places or looked.foreign:
            gone["foreign"] = {**others.places}
            if looked.foreign:
                gone["foreign"]["files of tables of others"] = len(looked.foreign)
        self._keep(
            removed=gone,
            scanned={
                "files": dict(sorted(looked.files.items())),
                "bytes": looked.bytes,
                "queries": len(held),
                "read_as": [*decoding.ENCODINGS, *decoding.PACKINGS, *decoding.READINGS],
                "not_looked_for": found.shared,
                "not_decoded": sorted(looked.undecoded),
                "not_opened": sorted({*looked.unopened, *others.unseen}),
                "found": sorted(set(looked.found)),
            },
        )

    def _remove_versions(self) -> None:
        """Removes older versions and unfinished uploads from buckets."""
        places = [s3.at(place) for place in (str(self._root), *self._pending.inbox) if s3.is_remote(place)]
        if places:
            self._progress("remove older versions", None)
            count = s3.remove_versions(places[0]) if s3.is_remote(self._root) else 0
            for place in places[1:] if s3.is_remote(self._root) else places:
                try:
                    # of a glob only what it names: the prefix that is searched may be others' bucket
                    count += s3.remove_versions(*remote.searched(place))
                # of an inbox; those of the lake itself must go, or the erasure has not ended
                except OSError:
                    self._leave(str(place), "its older versions cannot be removed")
            self._keep(scanned={**(self._pending.scanned or {}), "versions": count})

    def _leave(self, name: str, why: str) -> None:
        """Adds to the files that are left in the inbox."""
        removed = dict(self._pending.removed)
        delivered = dict(removed.get("delivered") or {"files": 0, "records": 0, "left": [], "why": {}})
        delivered["left"] = sorted({*delivered["left"], name})
        delivered["why"] = {**delivered.get("why", {}), name: why}
        self._keep(removed={**removed, "delivered": delivered})

    @property
    def _found(self) -> Found:
        assert self._pending.found is not None, "the first phase has ended"
        return self._pending.found

    def _keep(self, **changes: Any) -> None:
        self._pending = replace(self._pending, **changes)
        pending.write(self._root, self._key, self._pending)

    def _signed(self) -> dict[str, Any]:
        """Returns the receipt, on disk. There is only one: a command that finishes another's erasure finds it."""
        there = self._already()
        if there is not None:
            return there
        made = self._receipt()
        try:
            receipts.keep(self._root, made, new=True)
        except FileExistsError:  # of another machine that has finished this erasure in the meantime, or of nobody
            there = self._already()
            if there is not None:
                return there
            receipts.keep(self._root, made)
        return made

    def _already(self) -> dict[str, Any] | None:
        """Returns the receipt of this erasure that is there and holds."""
        there = receipts.listed_as(self._root, self._pending.run)
        return dict(there) if receipts.holds(there, self._key, self._config.lake_id) else None

    def _previous(self) -> str:
        """Returns the digest of the previous receipt, empty for the first; receipts of other lakes are skipped."""
        every = [receipt for receipt in receipts.listed(self._root) if receipt["id"] != self._pending.run]
        while (last := receipts.newest(every)) is not None:
            if tombstones.vouches(self._root, self._key, self._config.lake_id, last):
                return receipts.digest(last)
            every.remove(last)
        return ""

    def _recalls(self, stale: Collection[str]) -> list[dict[str, str]]:
        if not stale:
            return []
        from stedi.erasure import releases

        return releases.recalls(Context(self._root, self._config), stale)

    def _receipt(self) -> dict[str, Any]:
        done = self._pending
        known = set(done.people if self._found.known is None else self._found.known)
        stale = sorted({name for names in (done.removed or {}).get("releases", {}).values() for name in names})
        beyond = receipts.not_reached(lake=s3.is_remote(self._root), inbox=any(map(s3.is_remote, done.inbox)))
        return receipts.signed(
            self._key,
            self._config.lake_id,
            {
                "id": done.run,
                "people": list(done.people),
                "asked": len(done.people),
                "known": len(known),
                "unknown": sorted(set(done.people) - known),
                "began": instant(done.started),
                "ended": instant(_now(None)),
                "removed": done.removed,
                "scanned": done.scanned,
                "not_reached": beyond,
                "not_reached_days": receipts.days(beyond),
                "clean": not (done.scanned or {}).get("found"),
                **({"stale": stale} if stale else {}),
                "recalls": self._recalls(stale),
                "version": __version__,
                "reference": done.reference,
                "operator": done.operator,
                "key_version": self._key.version,
                "previous": self._previous(),
                **({"replays": dict(done.replays)} if done.replays else {}),
            },
        )


def _judged(subject_rows: SubjectRows, catalog: Catalog) -> tuple[Found, Foreign]:
    """Returns the result of the first phase, and texts of other programs in the catalog."""
    found = subject_rows.found()
    others = foreign.read(catalog, subject_rows.traces)
    return replace(found, foreign=others.places), others


@contextmanager
def _engine(context: Context, run: str) -> Iterator[tuple[DuckDB, Ahead]]:
    """Yields the session of an erasure and what a second thread does, if the settings allow one and rows are many."""
    temporary, config = durable.scratch(context.root) / run, context.config
    rows = sum(state.current.total("records") for state in context.catalog.tables().values() if state.current)
    threads, memory = min(config.threads, 1 + rows // _ROWS_OF_A_THREAD), settings.size(config.engine_memory) or 0
    several = config.threads > 1 and rows >= _MANY_ROWS and memory >= _MEMORY_FOR_TWO
    try:
        with (
            DuckDB(memory=config.engine_memory, threads=threads, temporary=temporary) as engine,
            Ahead(engine, worthwhile=several) as ahead,
        ):
            yield engine, ahead
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _known(root: Path, before: Tombstones, people: Collection[str], found: Found) -> tuple[str, ...]:
    """Returns the marks of the people known to the lake: it has data of them, or has erased such data before.

    A tombstone alone does not show this: unknown addresses of requests have one, too.
    """
    erased, never = set(before.people), set()
    met = set(found.known or ())
    for receipt in receipts.listed(root):
        # receipts of earlier versions do not tell who was unknown
        missing = receipt.get("unknown")
        unmet = {mark for mark in missing if isinstance(mark, str)} if isinstance(missing, list) else set()
        never |= unmet
        met |= erased & (set(receipt.get("people", ())) - unmet)
    return tuple(sorted(set(people) & (met | (erased - never))))


def _marks(key: Key, addresses: Collection[str]) -> tuple[str, ...]:
    return tuple(sorted({tombstones.person(key, address) for address in addresses}))


def _now(given: int | None) -> int:
    return int(time.time() * 1000) if given is None else given


def _listed(files: Sequence[str]) -> str:
    shown = ", ".join(files[:5])
    return shown if len(files) <= 5 else f"{shown} and {len(files) - 5} more"
