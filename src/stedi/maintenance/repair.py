"""What an audit finds damaged is set right from what is whole, as far as the lake itself holds it.

The catalog's entries come from the notes beside the tables' files. Damage that only older snapshots use goes with
them. A damaged table below landing is made anew, empty, for the next build to fill. Landing tables, and those
that know releases, have nothing else in the lake that they could be made from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stedi.audit.integrity import UNRECORDED, Check, check_files
from stedi.catalog import Catalog, Snapshot, checksums, snapshots
from stedi.context.progress import Progress
from stedi.errors import LakeError
from stedi.schema.tables import ALL_ZONES

_UNIQUE = ("landing", "released")
"""The zones whose tables nothing else in the lake could be made into."""


@dataclass(frozen=True, slots=True)
class Repair:
    """What one `repair` did.

    Attributes:
        catalog: Tables whose entry in the catalog was set right.
        forgotten: Tables that have lost snapshots which used damaged files, and how many.
        renewed: Tables below landing that were made anew.
    """

    catalog: tuple[str, ...]
    forgotten: dict[str, int]
    renewed: tuple[str, ...]


def repair(
    catalog: Catalog, *, threads: int, progress: Progress, restored: Callable[[], None] = lambda: None
) -> Repair:
    """Sets right what the lake itself can set right; tables that are made anew are empty afterwards.

    The caller keeps landings and builds away.

    Args:
        catalog: The lake's tables.
        threads: How many files to read at once.
        progress: Told how far the work is.
        restored: Called when the catalog is right, before anything else is changed; what it raises ends the repair.

    Raises:
        LakeError: A landing table is damaged; no table was changed.
    """
    entries = catalog.restore()
    restored()
    broken = _broken(check_files(catalog, files=True, threads=threads, progress=progress))
    old = {name: _only_old(catalog, name, files) for name, files in broken.items()}
    renewed = tuple(name for name, snapshot_ids in old.items() if not snapshot_ids)
    lost = [name for name in renewed if ALL_ZONES[name] in _UNIQUE]
    if lost:
        raise LakeError(
            f"{', '.join(lost)}: expected whole files, since nothing in the lake can take their place, found what "
            "`stedi audit --files` names; restore the lake from its backup, or land into a new lake: see "
            "docs/operations.md on recovery"
        )
    for name, snapshot_ids in old.items():
        if snapshot_ids:
            catalog.expire(name, snapshot_ids)
    if renewed:
        catalog.renew(renewed)
    return Repair(entries, {name: len(ids) for name, ids in old.items() if ids}, renewed)


def _broken(checks: tuple[Check, ...]) -> dict[str, set[str]]:
    """Returns the damaged files of each table that has some, relative to the lake's folder.

    A file of a landing table that has no checksum is none: another program has tagged or changed the table, and there
    is nothing that it could be made anew from. The audit goes on naming it.
    """
    broken: dict[str, set[str]] = {}
    for check in checks:
        for violation in check.found if check.table in ALL_ZONES else ():
            if violation.found != UNRECORDED or ALL_ZONES[check.table] not in _UNIQUE:
                broken.setdefault(check.table, set()).add(violation.file)
    return broken


def _only_old(catalog: Catalog, name: str, damaged: set[str]) -> list[int]:
    """Returns the snapshots that use damaged files; none if the current one, or no snapshot, is among them."""
    root = catalog.root
    location = catalog.listed().get(name)
    if location is None or checksums.name_in(root, snapshots.local_path(location)) in damaged:
        return []
    state = snapshots.read_table(name, location)

    def spoilt(snapshot: Snapshot) -> bool:
        try:
            lists = snapshots.manifests(name, snapshot)
            files = [file.path for manifest in lists for file in snapshots.manifest(name, manifest)]
        except LakeError:
            return True
        used = map(snapshots.local_path, (snapshot.manifest_list, *lists, *files))
        return not damaged.isdisjoint(checksums.name_in(root, path) for path in used)

    found = [snapshot.id for snapshot in state.snapshots if spoilt(snapshot)]
    return [] if state.current is None or state.current.id in found else found
