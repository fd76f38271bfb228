"""Orphan files: files of a table's folder that no snapshot of its metadata names.

Landings and builds write to their own folders beside a table's data before they commit; the next command of the same
kind removes what a killed one has left. The caller holds their lock, so a branch or folder unknown to all snapshots
belongs to no running command.

A reader holds no lock. It works with the metadata file that was current when it began, so what such a file names
counts as used until that file has been out of date for some time.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.catalog import Catalog
from stedi.catalog.snapshots import DELETED, RUN, Snapshot, TableState, avro, local_path, read_table
from stedi.errors import LakeError
from stedi.schema.tables import ALL_ZONES
from stedi.storage import durable, s3

_METADATA = re.compile(r"v?(\d+).*\.metadata\.json")
_RUNS = ("run", "batch", "maintained", "erasure")
"""The properties of a snapshot with the id of the run that wrote it."""


@dataclass(frozen=True, slots=True)
class Unused:
    """One file that nothing uses.

    Attributes:
        path: Its path.
        kind: `data`, `manifests` (and manifest lists), `metadata`, or `partial` for unfinished files.
        bytes: Its size.
    """

    path: Path
    kind: str
    bytes: int


def unused(
    state: TableState,
    folder: Path,
    *,
    before: float,
    seen: float,
    without: frozenset[int] = frozenset(),
    below: Iterable[Path] | None = None,
) -> tuple[Unused, ...]:
    """Returns the files of a table that no live snapshot uses.

    Args:
        state: The table now.
        folder: The table's folder.
        before: Only files that have not changed since this moment, in seconds since the epoch.
        seen: Files named by metadata that were current at this time or later are in use.
        without: Live snapshots that do not count, because they are about to expire.
        below: Folders of the table to look at, by default all.

    Raises:
        LakeError: The table's files lie elsewhere, or what its snapshots use cannot be told.
    """
    search = _Search(state, folder)
    for part in below if below is not None else (folder / "data", folder / "metadata"):
        search.add(part, before)
    roots = _roots(folder / "metadata", seen)
    # first what costs no reading; manifests are read only while something is left to explain
    search.keep((*state.metadata, *roots))
    search.keep_used([snapshot for snapshot in reversed(state.snapshots) if snapshot.id not in without], committed=True)
    if search.found:
        known = {snapshot.id for snapshot in state.snapshots}
        # nobody reads staged files that were never published
        past = {snapshot.id: snapshot for path in roots for snapshot in read_table(state.name, path).published()}
        search.keep_used([snapshot for id_, snapshot in past.items() if id_ not in known], committed=False)
    return tuple(sorted(search.found.values(), key=lambda file: file.path))


def abandoned_branches(state: TableState) -> set[str]:
    """Returns a table's staging branches; other branches belong to other programs."""
    return {branch for branch in state.branches if RUN.fullmatch(branch)}


def remove_abandoned(
    catalog: Catalog, tables: Iterable[str], grace: float, *, finish: Callable[[], object] = lambda: None
) -> None:
    """Drops staged branches that were never published, and data folders that no live snapshot uses.

    Args:
        catalog: The lake's tables.
        tables: Tables that are written only under the caller's lock.
        grace: Seconds for which a file stays after the last snapshot that used it has gone.
        finish: Finishes landings that were decided in the last moment before none can be any more.
    """
    states = catalog.tables()
    for name in tables:
        state = states[name]
        for branch in abandoned_branches(state):
            catalog.discard(name, branch)
        if abandoned_branches(state):
            state = catalog.table(name)
        folder = catalog.folder(name) / "data"
        known = {s.summary.get(f"stedi.{run}") for s in state.snapshots for run in _RUNS}
        entries = [(entry, RUN.match(entry.name)) for entry in folder.iterdir()] if folder.is_dir() else []
        strays = [entry for entry, run in entries if run is None or run[0] not in known]
        # in most lakes there are none, and then no manifest is read
        if strays:
            now = time.time()
            try:
                # `before=now`: whoever holds the locks knows that no younger run writes here, so age does not matter
                found = unused(state, catalog.folder(name), before=now, seen=now - grace, below=strays)
            except LakeError:
                continue  # damage hides which files are in use: remove nothing
            # in a bucket a suspended landing that has lost its lock could still commit these files
            if found and catalog.remote and ALL_ZONES[name] == "landing":
                catalog.fence(f"{int(now * 1000):013d}-{os.urandom(4).hex()}")
                finish()
                found = unused(catalog.table(name), catalog.folder(name), before=now, seen=now - grace, below=strays)
            gone = {file.path for file in found}
            for stray in strays:
                # all or nothing: of a folder of which something is used, `maintain` removes the rest
                if all(entry.path in gone for entry in durable.walk(s3.at(durable.realpath(stray)))):
                    durable.remove_tree(stray)


class _Search:
    """Files of one table for which no use has been found yet."""

    def __init__(self, state: TableState, folder: Path) -> None:
        self.found: dict[str, Unused] = {}
        self._table, self._folder = state.name, durable.realpath(folder)
        self._real = cache(durable.realpath)
        location = durable.realpath(local_path(state.location))
        if location != self._folder:
            self._refuse(location)

    def add(self, part: Path, before: float) -> None:
        """Adds the files below a folder of the table that have not changed since a moment."""
        for entry in durable.walk(s3.at(durable.realpath(part))):
            path = str(entry.path)
            kind = _kind(entry.path.name, data=path.startswith(f"{self._folder}/data/"))
            # in the folder of metadata, what has no name like the lake's own is somebody else's, and stays
            if kind and entry.modified <= before:
                self.found[path] = Unused(entry.path, kind, entry.size)

    def keep(self, locations: Iterable[str]) -> None:
        """Marks files as used.

        Raises:
            LakeError: One of them is in another folder, so its name does not identify it.
        """
        for location in locations:
            folder, name = os.path.split(local_path(location))
            # two spellings of a folder are one: a name alone does not say whether a file is in use
            real = self._real(folder)
            if not real.startswith(self._folder + os.sep):
                self._refuse(real)
            self.found.pop(os.path.join(real, name), None)

    def keep_used(self, snapshots: list[Snapshot], *, committed: bool) -> None:
        """Marks files of snapshots as used; reads only as many manifests as needed.

        Args:
            snapshots: The snapshots, those with most of the files first.
            committed: Whether all of them were; a commit that failed may have left a name without a file.
        """
        self.keep(snapshot.manifest_list for snapshot in snapshots)
        manifests = set[str]()
        for snapshot in snapshots:
            # newest first, the first snapshots explain nearly every file, and the rest need not be read
            if not any(file.kind in ("data", "manifests") for file in self.found.values()):
                return
            try:
                listed = avro(self._table, snapshot.manifest_list, lambda entry: str(entry["manifest_path"]))
                for manifest in set(listed) - manifests:
                    self.keep([manifest])
                    self.keep(filter(None, avro(self._table, manifest, _live)))
                manifests.update(listed)
            except LakeError:
                if committed:
                    raise

    def _refuse(self, elsewhere: str) -> None:
        raise LakeError(
            f"table {self._table}: expected its files in {self._folder}, found one in {elsewhere}: the lake was "
            "copied or moved, or another engine wrote there; nothing was removed. See docs/operations.md on "
            "recovery"
        )


def _kind(name: str, *, data: bool) -> str | None:
    if name.endswith(".partial"):
        return "partial"
    if data:
        return "data"
    return "manifests" if name.endswith(".avro") else "metadata" if _METADATA.fullmatch(name) else None


def _roots(folder: Path, seen: float) -> list[str]:
    """Returns the metadata files that were current at a time or later, and perhaps some that never were.

    Each commit writes a file whose name begins with the number after its predecessor's. So the predecessor of the
    oldest that is younger than the moment is what was current then.
    """
    if seen == float("inf"):  # nothing is younger: an erasure lists hundreds of files only once
        return []
    found = [
        (entry, int(match[1])) for entry in durable.walk(folder) if (match := _METADATA.fullmatch(entry.path.name))
    ]
    young = [version for entry, version in found if entry.modified > seen]
    return [str(entry.path) for entry, version in found if young and version >= min(young) - 1]


def _live(entry: Any) -> str:
    """Returns the location of a manifest entry's file, data or deletes, or an empty text if it has left."""
    return "" if entry["status"] == DELETED else str(entry["data_file"]["file_path"])
