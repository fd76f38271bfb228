"""Integrity checks of a lake's files: catalog -> metadata -> manifests -> data files -> checksums.

Each check covers one table and returns its findings, never a customer's data. Nothing here changes a lake. If a table
changes during its checks, they run again, so that only damage is reported.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from stedi._frozen import dataclass
from stedi.catalog import Catalog, TableState, checksums, snapshots
from stedi.catalog.manifests import missing, sizes
from stedi.catalog.pins import is_of_others, is_ours_but_for_pins
from stedi.context import Context, access
from stedi.context.progress import Progress, silent
from stedi.engines.workers import Threads, Workers
from stedi.errors import DamagedFile, LakeError
from stedi.schema.tables import ALL_ZONES, ZONES, DataFile
from stedi.storage import s3

_ATTEMPTS = 5
"""The most times that a table is checked if it changes meanwhile; one commit per second does not use up all of them."""

UNRECORDED = "no checksum"
"""The finding for a file of another program: without a checksum, nobody can tell whether its bytes have changed."""

_LOOKS = 8
"""Tasks for each worker; several, since files differ in size, and a free worker takes the next task."""


@dataclass(frozen=True, slots=True)
class Violation:
    """One finding of a check on files.

    Attributes:
        file: The file, relative to the lake's folder.
        expected: The recorded value.
        found: The value that was found.
    """

    file: str
    expected: str
    found: str


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check of one table.

    Attributes:
        name: `catalog`, `metadata`, `manifests`, `data files`, `checksums` or `newest`; or a check of `audit.proof`.
        table: The table; `catalog.db` or `lake` for checks of all tables.
        found: The violations, if the check is on files.
        rows: The number of violations, if the check counts rows.
    """

    name: str
    table: str
    found: tuple[Violation, ...] = ()
    rows: int = 0

    @property
    def violations(self) -> int:
        """The number of violations; 0 if the check holds."""
        return len(self.found) + self.rows


def check_files(
    catalog: Catalog,
    *,
    files: bool = False,
    threads: int | None = None,
    progress: Progress = silent,
    workers: Workers | None = None,
) -> tuple[Check, ...]:
    """Checks that every file of live snapshots is present and unchanged.

    Args:
        catalog: The lake's tables.
        files: Whether to read every file and compare its SHA-256, instead of only sizes and metadata.
        threads: The number of files to read at once, by default one per core.
        progress: Called with the current step and the share of it that is done.
        workers: The workers that read the files; threads of this process by default.

    Returns:
        The results of all checks, in the order of the tables. If the metadata of a table cannot be read, the files
        that it lists are not checked.
    """
    root = catalog.root
    whole = catalog.remote is not None or snapshots.whole(catalog.path)
    found = () if whole else (Violation(catalog.path.name, "a whole SQLite catalog", "damage"),)
    checks = [Check("catalog", str(catalog.remote or catalog.path.name), found)]
    known = set() if found else catalog.listed().keys() | ZONES.keys()
    # a damaged catalog names no table
    for name in () if found else ALL_ZONES:
        if name not in known and not checksums.published(catalog.folder(name)):
            continue  # the lake has no release yet
        for _ in range(_ATTEMPTS):
            before = catalog.listed().get(name)
            table = _Table(root, name, before, partial(progress, f"check {name}"))
            mine = table.checks(workers or Threads(threads or os.cpu_count() or 1), files=files)
            # what looks like damage can be a commit or an expiry in between
            if not any(check.found for check in mine) or catalog.listed().get(name) == before:
                break
        checks += mine
    return tuple(checks)


def newest(older: tuple[str, str, str] | None) -> Check:
    """Returns the check that a lake was not rolled back.

    Args:
        older: What is older than its recorded state: its name, the recorded value and the found value; None if nothing
            is older.
    """
    return Check("newest", "lake", (Violation(*older),) if older else ())


def logged(context: Context, mark: tuple[int, str]) -> Check:
    """Returns the check that the access log is complete, at least to where it was last seen (`Context.seen_access`)."""
    found = access.wrong(context.root, context.key(), context.config.lake_id, mark)
    return Check("access log", access.FOLDER, tuple(Violation(*each) for each in found))


class _Table:
    """One table in the state that the catalog had at one moment."""

    def __init__(self, root: Path, name: str, location: str | None, progress: Callable[[float | None], None]) -> None:
        self._root, self._name, self._location, self._progress = root, name, location, progress
        self._folder = root / ALL_ZONES[name] / name
        self._location_path = ""
        self._used: dict[str, int | None] = {}  # path of each file in use -> its size from the manifest, if known
        self._theirs: set[str] = set()  # files used only by other programs' snapshots that are not on `main`

    def checks(self, workers: Workers, *, files: bool) -> list[Check]:
        """Returns the result of each check."""
        name, location = self._name, self._location
        newest = checksums.published(self._folder)
        if location is None:
            return [Check("catalog", name, (Violation("catalog.db", f"a table {name}", "none"),))]
        old = [Violation("catalog.db", f"{newest} or later", Path(location).name)]
        checks = [Check("catalog", name, tuple(old if snapshots.behind(location, newest) else ()))]
        # nothing tells the size of metadata, but their checksums tell more
        self._used[snapshots.local_path(location)] = None
        self._location_path = snapshots.local_path(location)
        try:
            state = snapshots.read_table(name, location)
        except LakeError as error:
            checks.append(Check("metadata", name, (self._refused(location, error),)))
        else:
            lost = [Violation(self._shown(location), "a current snapshot", "none")] if state.current is None else []
            checks.append(Check("metadata", name, tuple(lost)))
            checks.append(Check("manifests", name, tuple(self._manifests(state))))
            checks.append(Check("data files", name, tuple(self._sizes())))
        if files:
            checks.append(Check("checksums", name, tuple(self._checksums(workers))))
        return checks

    def _manifests(self, state: TableState) -> Iterator[Violation]:
        """Yields manifests that cannot be read, and snapshots whose totals differ from those of their manifests."""
        read: dict[str, tuple[DataFile, ...]] = {}
        ours: set[str] = set()
        main = {*(snapshot_id for _, snapshot_id in state.log), *(snapshot.id for snapshot in state.history())}
        for snapshot in state.snapshots:
            used = self._theirs if snapshot.id not in main and is_of_others(snapshot.summary) else ours
            used.add(snapshots.local_path(snapshot.manifest_list))
            self._used[snapshots.local_path(snapshot.manifest_list)] = None
            try:
                locations = snapshots.manifests(state.name, snapshot)
            except LakeError as error:
                yield self._refused(snapshot.manifest_list, error)
                continue
            whole = True
            for location in locations:
                if snapshots.local_path(location) not in self._used:
                    self._used[snapshots.local_path(location)] = None
                    try:
                        read[location] = snapshots.manifest(state.name, location)
                    except LakeError as error:
                        yield self._refused(location, error)
                whole = whole and location in read
            files = [file for location in locations for file in read.get(location, ())]
            self._used.update((file.path, file.bytes) for file in files)
            used.update(map(snapshots.local_path, locations), (file.path for file in files))
            # without a manifest the totals differ by its files, which is no finding of its own
            for what, found in snapshots.totals(files).items() if whole else ():
                if snapshot.summary.get(f"total-{what}", str(found)) != str(found):
                    total = f"{what} of {snapshot.total(what)} in snapshot {snapshot.id}"
                    yield Violation(self._shown(snapshot.manifest_list), total, str(found))
        # a file that a snapshot of the lake uses as well must have its checksum
        self._theirs -= ours

    def _sizes(self) -> Iterator[Violation]:
        known = sizes(self._used)
        for path, expected in self._used.items():
            found = known[path]
            if expected is not None and found != expected:
                yield Violation(
                    self._shown(path), f"{expected} bytes", missing(path) if found is None else f"{found} bytes"
                )

    def _checksums(self, workers: Workers) -> Iterator[Violation]:
        """Yields files in use whose bytes have changed or that have no checksum."""
        recorded = checksums.expected(self._folder, self._used)
        paths = tuple(self._used)
        # every so many-th file: neighbours in the list are of one kind, and so of one size
        count = min(len(paths), _LOOKS * workers.slots)
        parts = workers.map(_digests, [paths[number::count] for number in range(count)], self._progress)
        found_of = {path: found for part in parts for path, found in part}
        for path in paths:
            expected, found = recorded.get(path), found_of[path]
            if expected is None:
                # other programs write no checksums, and may add tags and branches
                if path in self._theirs or (path == self._location_path and is_ours_but_for_pins(self._folder, path)):
                    continue
                yield Violation(self._shown(path), f"a line in {checksums.NAME}", UNRECORDED)
            elif found != expected:
                what = f"SHA-256 {found}" if found else missing(path)
                yield Violation(self._shown(path), f"SHA-256 {expected}", what)

    def _refused(self, location: str, error: LakeError) -> Violation:
        """Returns a reader's error about a file as a violation."""
        if isinstance(error, DamagedFile):
            return Violation(self._shown(location), error.expected, error.found)
        return Violation(self._shown(location), "what the lake itself writes", str(error))

    def _shown(self, location: str) -> str:
        return checksums.name_in(self._root, snapshots.local_path(location))


def _digests(paths: Sequence[str]) -> list[tuple[str, str]]:
    """Returns the SHA-256 of each file, or an empty text if the file is missing. Runs on a worker."""
    found = []
    for path in paths:
        try:
            found.append((path, checksums.digest(path)[0]))
        except OSError as error:
            if s3.is_outage(error, path):
                raise
            found.append((path, ""))
    return found
