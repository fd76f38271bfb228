"""The journal of a batch: the commits to come, on disk before the first of them.

One landing changes several tables, which no Iceberg catalog promises to do in one step. The journal is written and
synced first and applied after; applying it twice changes nothing, so a command that finds one finishes it. It says
which files come into tables, so it is sealed as a state file: what this lake has not written is finished by nobody.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from stedi.catalog import Catalog
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
    """One commit to the landing tables, from its first file on; a context that removes what is needed only on the way.

    What it has written among the tables' data goes, too, unless its journal is there: that decides from then on.

    Args:
        catalog: The lake's tables.

    Attributes:
        id: The batch's id.
        planned: What `base` gave.
        scratch: A folder of this machine for what is needed on the way.
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
        """Journals what is written, then commits it; see `write` and `apply`."""
        self._named = True
        pending = write(self._pending, self.id, appends, replaces, key=key, base=self.planned)
        self._journalled = True  # from here on the journal decides, not this process
        apply(self._catalog, pending, key)

    def remove_strays(self, changes: Iterable[Sequence[DataFile]]) -> None:
        """Removes what attempts of workers have written whose answers never came."""
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
    """Writes a batch's journal; from now on the batch will be in all its tables, whatever ends this process.

    Args:
        folder: Where journals lie.
        batch: The batch's id.
        appends: The files, in their tables' folders, synced.
        replaces: For each table that only landings change, the files that take the place of all it has.
        key: The lake's key, which seals the journal.
        base: What `base` gave when the batch was planned.

    Returns:
        The journal, for `apply`.

    Raises:
        OSError: It cannot be written; there is none.
    """
    durable.folder(folder)
    path = place(folder, batch)
    changes = {"batch": batch, "appends": _plain(appends), "replaces": _plain(replaces or {}), "base": base}
    try:
        state.write(path, _KIND, state.lake_id(folder.parent), key, changes)
    except BaseException:
        # what is not on disk for certain must not be finished later
        with suppress(LakeBusy):  # then whoever has the lock by now decides
            s3.prove()
            path.unlink(missing_ok=True)
        raise
    return path


def place(folder: Path, batch: str) -> Path:
    """Returns where a batch's journal lies while it is not finished."""
    return folder / f"{batch}.json"


def base(catalog: Catalog) -> int | None:
    """Returns the ledger's snapshot from which a batch is planned, 0 if it has none; None where no lock can be lost.

    In a bucket a process can be stopped for longer than its lease, and go on when others have landed the same files or
    erased a customer. So its plan holds only as long as the ledger is what it was: landings move it, erasures, too.
    """
    if catalog.remote is None:
        return None
    current = catalog.table(_LEDGER).current
    s3.prove()  # as of now nobody else can have begun
    return current.id if current else 0


def finish(catalog: Catalog, folder: Path, key: Callable[[], Key]) -> int:
    """Finishes the batches that a process which died has left, and returns how many there were.

    The caller holds the landing lock: a journal that is there now, whole or in part, belongs to nobody alive.

    Args:
        catalog: The lake's tables.
        folder: Where journals lie, in the lake's folder.
        key: Gives the lake's key; asked where there is a journal.

    Raises:
        LakeError: One is not what this lake has written; it and those after it were not applied.
    """
    for partial in folder.glob(".*.partial"):
        partial.unlink()
    journals = sorted(folder.glob("*.json")) if folder.is_dir() else []
    for path in journals:
        try:
            apply(catalog, path, key())
        except Superseded:
            continue  # of a process that was stopped; what it would have landed is landed again, or was
    return len(journals)


def named(folder: Path) -> set[str]:
    """Returns the paths of the files that unfinished batches say they will add to their tables, believed or not."""
    batches = [_read(path, None)[:3] for path in sorted(folder.glob("*.json"))] if folder.is_dir() else []
    return {file.path for _, *changes in batches for change in changes for files in change.values() for file in files}


def apply(catalog: Catalog, path: Path, key: Key) -> None:
    """Commits what a journal says, leaving out what was committed before, and removes it.

    Raises:
        Superseded: What the batch was planned from is no longer so; nothing of it was committed, and journal and files
            are gone.
        CommitConflict: Other writers came first, more often than is retried; the journal stays, and the next
            landing or build finishes it.
        LakeError: It is not what this lake has written, or names files elsewhere than among their tables' data;
            nothing was changed.
    """
    states = catalog.tables()
    try:
        batch, appends, replaces, planned = _read(path, key)
    except FileNotFoundError:
        # whoever took the lock over has finished the batch, or has found that it came too late
        if any(s.summary.get(_BATCH) == path.stem for s in states[_LEDGER].history()):
            return
        raise Superseded("Cannot land: another landing or an erasure came first. Run the command again.") from None
    _refuse_elsewhere(catalog, path.name, (appends, replaces))

    def committed(table: str) -> bool:
        # the batch's id in the table's own history says whether this commit was made
        return any(s.summary.get(_BATCH) == batch for s in states[table].history())

    if planned is not None and appends.get(_LEDGER) and not committed(_LEDGER):
        # first, since it decides: nothing of a batch that comes too late may stand in any table
        try:
            if catalog.append(_LEDGER, appends[_LEDGER], {_BATCH: batch}, once=_BATCH, base=planned) is None:
                return  # whoever took the lock over finishes the batch, or has
        except CommitConflict as error:
            changes = [*appends.values(), *replaces.values()]
            # whoever has lost the lock cannot tell: the batch may have been finished, and forgotten, long ago
            with suppress(LakeBusy):
                s3.prove()
                path.unlink(missing_ok=True)
                s3.remove(s3.at(file.path) for files in changes for file in files)
            raise Superseded(str(error)) from error
    for table, files in appends.items():
        if files and not committed(table):
            catalog.append(table, files, {_BATCH: batch}, once=_BATCH)
    for table, files in replaces.items():
        before = states[table]
        if not committed(table) and before.current is not None:
            leaving = [file.path for file in catalog.files(before)]
            catalog.discard(table, batch)
            staged = catalog.stage(table, files, leaving, {_BATCH: batch}, branch=batch, base=before.current.id)
            catalog.publish(table, branch=batch, staged=staged, base=before.current.id)
    durable.remove(path)


def _refuse_elsewhere(catalog: Catalog, name: str, changes: Sequence[Appends]) -> None:
    """Refuses a journal by which a file would come into a table that does not lie among that table's data."""
    for change in changes:
        for table, files in change.items():
            home = f"{durable.real(catalog.folder(table) / 'data')}/" if ZONES.get(table) == "landing" else None
            for file in files:
                if home is None or not durable.real(s3.at(file.path)).startswith(home):
                    raise LakeError(
                        f"pending/{name}: expected a landing's journal, found one that names a file outside its "
                        "table's folder; nothing was changed: see docs/operations.md on recovery"
                    )


def _read(path: Path, key: Key | None) -> tuple[str, Appends, Appends, int | None]:
    """Returns the batch, what its tables gain, what is replaced, and its base; without a key nothing is proved."""
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
            return state.opened(raw, path.name, _KIND, state.lake_id(path.parent.parent), key, advice="")
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
