"""The journal of a batch: the commits to come, on disk before the first of them.

One landing changes several tables, which no Iceberg catalog does atomically. The journal is written and synced first,
then applied. Applying it twice changes nothing, so a command that finds one finishes it. Since it decides which files
enter tables, it is sealed like a state file: a journal that this lake has not written is never applied.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from stedi._frozen import asdict
from stedi.catalog import Catalog
from stedi.context import Context
from stedi.context.progress import run_id
from stedi.errors import CommitConflict, LakeBusy, LakeError
from stedi.privacy import state
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import ZONES, DataFile
from stedi.storage import durable, s3

_BATCH = "stedi.batch"
_LEDGER = "landed_files"
_KIND = "landing"


class Superseded(CommitConflict):
    """A batch came too late: others have landed, or erased, since it was planned."""


Appends = Mapping[str, Sequence[DataFile]]
"""For each table, in the order of the commits, the files that it gains."""


class Commit:
    """One commit to the landing tables, from its first file on; a context that removes its temporary files.

    Data files that it has written are removed, too, unless its journal exists: from then on the journal decides.

    Args:
        catalog: The lake's tables.

    Attributes:
        id: The batch's id.
        planned: As returned by `base`.
        scratch: A folder on this machine for temporary files.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.id = run_id()
        self.planned = base(catalog)
        self.scratch = durable.scratch(catalog.root) / "landing" / self.id
        durable.private(self.scratch)
        self._catalog, self._pending = catalog, catalog.root / "pending"
        self._named = self._journalled = False
        self._written: list[Path] = []

    def __enter__(self) -> Commit:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not self._journalled and not place(self._pending, self.id).exists():
            for folder in self._written:
                durable.remove_tree(folder, never_named=not self._named)

    def folder(self, table: str, name: str = "") -> Path:
        """Returns a new folder among a table's data, by default the batch's own."""
        folder = self._catalog.folder(table) / "data" / (name or self.id)
        self._written.append(folder)
        return folder

    def commit(self, key: Key, appends: Appends, replaces: Appends | None = None) -> None:
        """Writes the journal of the written files, then commits them; see `write` and `apply`."""
        # before the journal is written: it may be on disk although the write failed
        self._named = True
        pending = write(self._pending, self.id, appends, replaces, key=key, base=self.planned)
        self._journalled = True  # from here on the journal decides, not this process
        apply(self._catalog, pending, key)

    def remove_strays(self, changes: Iterable[Sequence[DataFile]]) -> None:
        """Removes files of workers' attempts whose results never arrived."""
        used = {s3.at(file.path).parent for files in changes for file in files}
        for folder in self._written:
            for attempt in folder.iterdir():
                if attempt.is_dir() and attempt not in used:
                    durable.remove_tree(attempt)


def write(
    folder: Path,
    batch: str,
    appends: Appends,
    replaces: Mapping[str, Sequence[DataFile]] | None = None,
    *,
    key: Key,
    base: int | None = None,
) -> Path:
    """Writes a batch's journal; from now on the batch will land completely, even if this process dies.

    Args:
        folder: The folder of journals.
        batch: The batch's id.
        appends: The files, in their tables' folders, synced.
        replaces: For each table that only landings change, the files that replace all of its files.
        key: The lake's key, which seals the journal.
        base: As returned by `base` when the batch was planned.

    Returns:
        The journal, for `apply`.

    Raises:
        OSError: It cannot be written; there is no journal.
    """
    durable.folder(folder)
    path = place(folder, batch)
    changes = {"batch": batch, "appends": _plain(appends), "replaces": _plain(replaces or {}), "base": base}
    try:
        state.write(path, _KIND, state.lake_id(folder.parent), key, changes)
    except BaseException:
        # a journal that may not be on disk must not be finished later
        with suppress(LakeBusy):  # then the command that has the lock by now decides
            s3.prove()
            path.unlink(missing_ok=True)
        raise
    return path


def place(folder: Path, batch: str) -> Path:
    """Returns the path of an unfinished batch's journal."""
    return folder / f"{batch}.json"


def base(catalog: Catalog) -> int | None:
    """Returns the ledger's snapshot from which a batch is planned, 0 if it has none; None where no lock can be lost.

    In a bucket a process can be suspended for longer than its lease, and continue after others have landed the same
    files or erased a customer. So its plan is valid only while the ledger is unchanged: landings and erasures change
    it.
    """
    if catalog.remote is None:
        return None
    current = catalog.table(_LEDGER).current
    s3.prove()  # nobody else can have started by now
    return current.id if current else 0


def finish(context: Context) -> int:
    """Finishes the batches of processes that died, and returns their number.

    The caller holds the landing lock, so an existing journal, complete or not, belongs to no running process.

    Args:
        context: The lake; its key is needed if there is a journal.

    Raises:
        LakeError: This lake has not written one of them; it and those after it were not applied.
    """
    folder = context.root / "pending"
    # journals that were being written when their process died: nothing was decided
    for partial in folder.glob(".*.partial"):
        partial.unlink()
    journals = sorted(folder.glob("*.json")) if folder.is_dir() else []
    # in the order of their batches, which their names have
    for path in journals:
        try:
            apply(context.catalog, path, context.key())
        except Superseded:
            continue  # of a suspended process; its files will be landed again, or have been
    return len(journals)


def named(folder: Path) -> set[str]:
    """Returns the paths of the files that unfinished batches say they will add to their tables, believed or not."""
    batches = [_read(path, None)[:3] for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return {file.path for _, *changes in batches for change in changes for files in change.values() for file in files}


def apply(catalog: Catalog, path: Path, key: Key) -> None:
    """Commits a journal, except what was committed before, and removes it.

    Raises:
        Superseded: The state from which the batch was planned has changed; nothing of it was committed, and journal and
            files are removed.
        CommitConflict: Other writers were first, more often than is retried; the journal stays, and the next landing or
            build finishes it.
        LakeError: This lake has not written it, or it names files outside their tables' data folders; nothing was
            changed.
    """
    states = catalog.tables()
    try:
        batch, appends, replaces, planned = _read(path, key)
    except FileNotFoundError:
        # the command that took over the lock has finished the batch, or found that it came too late
        if any(s.summary.get(_BATCH) == path.stem for s in states[_LEDGER].history()):
            return
        raise Superseded("Cannot land: another landing or an erasure came first. Run the command again.") from None
    _refuse_elsewhere(catalog, path.name, (appends, replaces))

    def committed(table: str) -> bool:
        # the batch's id in the table's own history says whether this commit was made
        return any(s.summary.get(_BATCH) == batch for s in states[table].history())

    if planned is not None and appends.get(_LEDGER) and not committed(_LEDGER):
        # first, since it decides: no table may contain anything of a batch that comes too late
        try:
            if catalog.append(_LEDGER, appends[_LEDGER], {_BATCH: batch}, once=_BATCH, base=planned) is None:
                return  # the command that took over the lock finishes the batch, or has done so
        except CommitConflict as error:
            changes = [*appends.values(), *replaces.values()]
            # a process that has lost the lock cannot know: the batch may have been finished and expired long ago
            with suppress(LakeBusy):
                s3.prove()
                path.unlink(missing_ok=True)
                s3.remove(s3.at(file.path) for files in changes for file in files)
            raise Superseded(str(error)) from error
    for table, files in appends.items():
        if files and not committed(table):
            catalog.append(table, files, {_BATCH: batch}, once=_BATCH)
    # after the appends: a record that moves is for a moment in both tables, never in none
    for table, files in replaces.items():
        before = states[table]
        if not committed(table) and before.current is not None:
            # all files of now: the journal holds what the whole table becomes
            leaving = [file.path for file in catalog.files(before)]
            # an earlier attempt may have died between staging and publishing
            catalog.discard(table, batch)
            staged = catalog.stage(table, files, leaving, {_BATCH: batch}, branch=batch, base=before.current.id)
            catalog.publish(table, branch=batch, staged=staged, base=before.current.id)
    durable.remove(path)


def _refuse_elsewhere(catalog: Catalog, name: str, changes: Sequence[Appends]) -> None:
    """Refuses a journal that adds a file from outside a table's data folder to the table."""
    for change in changes:
        for table, files in change.items():
            home = f"{durable.realpath(catalog.folder(table) / 'data')}/" if ZONES.get(table) == "landing" else None
            for file in files:
                if home is None or not durable.realpath(s3.at(file.path)).startswith(home):
                    raise LakeError(
                        f"pending/{name}: expected a landing's journal, found one that names a file outside its "
                        "table's folder; nothing was changed: see docs/operations.md on recovery"
                    )


def _read(path: Path, key: Key | None) -> tuple[str, Appends, Appends, int | None]:
    """Returns the batch, its added files, replaced files and base; without a key the seal is not checked."""
    try:
        content = _content(path, key)
        appends, replaces = (
            {table: _files(files) for table, files in content[part].items()} for part in ("appends", "replaces")
        )
        if content["batch"] != path.stem:
            raise ValueError("another batch's")
        return path.stem, appends, replaces, content.get("base")
    except (ValueError, KeyError, TypeError, AttributeError, state.StateRefused) as error:
        raise LakeError(
            f"pending/{path.name}: expected a landing's journal, sealed by this lake, found {type(error).__name__}; "
            "nothing of it was landed: see docs/operations.md on recovery"
        ) from error


def _content(path: Path, key: Key | None) -> dict[str, Any]:
    raw = state.bytes_of(path)
    digest, _, plain = raw.partition(b"\n")
    if state.is_sealed(raw):
        if key is not None:
            return state.unsealed(raw, path.name, _KIND, state.lake_id(path.parent.parent), key, advice="")
    elif key is not None and key.version != 1:
        raise ValueError("no seal")
    elif not hmac.compare_digest(digest, hashlib.sha256(plain).hexdigest().encode()):
        raise ValueError("its SHA-256 is another")  # a lake made before journals were sealed has left it
    found: dict[str, Any] = state.parsed(plain)
    return found


def _plain(changes: Mapping[str, Sequence[DataFile]]) -> dict[str, list[dict[str, object]]]:
    return {table: [asdict(file) for file in files] for table, files in changes.items()}


def _files(plain: Sequence[Mapping[str, Any]]) -> list[DataFile]:
    return [DataFile(**{**file, "bounds": {n: tuple(b) for n, b in file["bounds"].items()}}) for file in plain]
