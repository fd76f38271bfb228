"""Repair: restores what an audit finds damaged, as far as the lake's own data allow.

The catalog's entries come from the notes beside the tables' files. Older snapshots with damaged files are dropped. A
damaged table below landing is recreated empty, for the next build to fill, and keeps what whole tags name. Landing
tables, and those that know releases, have nothing else in the lake that they could be made from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from stedi._frozen import dataclass
from stedi.audit.integrity import UNRECORDED, Check, check_files
from stedi.catalog import Catalog, Snapshot, checksums, snapshots
from stedi.context import Context
from stedi.context.progress import Progress
from stedi.errors import FORBIDDEN, LakeError
from stedi.schema.tables import ALL_ZONES

if TYPE_CHECKING:
    from stedi.transform import Build

_UNIQUE = ("landing", "released")
"""The zones whose tables cannot be rebuilt from other data of the lake."""


@dataclass(frozen=True, slots=True)
class Repair:
    """The result of a repair.

    Attributes:
        catalog: Tables whose catalog entry was repaired.
        forgotten: Tables that lost snapshots with damaged files, and how many.
        renewed: Tables below landing that were rebuilt; snapshots of intact tags stay.
        tags: Removed tags, and other programs' branches, which named damaged files.
        build: The build that followed.
    """

    catalog: tuple[str, ...]
    forgotten: dict[str, int]
    renewed: tuple[str, ...]
    tags: tuple[str, ...] = ()
    build: Build | None = None


def repair(context: Context, *, progress: Progress, restored: Callable[[], None] = lambda: None) -> Repair:
    """Repairs what can be repaired from the lake itself; recreated tables are empty afterwards.

    The caller holds the locks of landings and builds.

    Args:
        context: The lake.
        progress: Called with the current step and its completed share.
        restored: Called when the catalog is right, before anything else is changed; what it raises ends the repair.

    Raises:
        LakeError: A landing table is damaged, or this user may not read a file; no table was changed.
    """
    catalog = context.catalog
    # the catalog first: whether a file is damaged or unused depends on which metadata are current
    entries = catalog.restore()
    restored()
    checks = check_files(catalog, files=True, threads=context.config.threads, progress=progress)
    closed = [violation.file for check in checks for violation in check.found if violation.found == FORBIDDEN]
    if closed:
        raise LakeError(
            f"{context.root / closed[0]}: expected a file that this user may read, found {FORBIDDEN}"
            f"{f', as {len(closed) - 1:,} more' if closed[1:] else ''}: it may be whole; give this user the right to "
            "read it; nothing was changed"
        )
    broken = _broken(checks)
    found = {name: _Damage(catalog, name, files) for name, files in broken.items()}
    lost = [name for name, damage in found.items() if damage.is_current and ALL_ZONES[name] in _UNIQUE]
    if lost:
        raise LakeError(
            f"{', '.join(lost)}: expected intact files, found the damage that `stedi audit --files` lists, which "
            "cannot be repaired from the lake itself; restore the lake from its backup, or land into a new lake: "
            "see docs/operations.md on recovery"
        )
    for name, damage in found.items():
        if not damage.is_current:
            catalog.expire(name, damage.spoilt)
        elif damage.whole:
            catalog.clear(name, keeping=damage.whole)
    renewed = tuple(name for name, damage in found.items() if damage.is_current)
    # what whole tags name has been kept above; only tables without any are made anew
    nothing = [name for name in renewed if not found[name].whole]
    if nothing:
        context.forget(nothing)  # their versions count anew: killed from here on, this can be run again
        catalog.renew(nothing)
    forgotten = {name: len(damage.spoilt) for name, damage in found.items() if not damage.is_current}
    return Repair(entries, forgotten, renewed, tuple(sorted({pin for damage in found.values() for pin in damage.pins})))


def _broken(checks: tuple[Check, ...]) -> dict[str, dict[str, str]]:
    """Returns the damaged files of each table, relative to the lake's folder, with the kind of each.

    A file of a landing table that has no checksum is none: another program has changed the table, and there is nothing
    that it could be made anew from. The audit goes on naming it.
    """
    broken: dict[str, dict[str, str]] = {}
    for check in checks:
        for violation in check.found if check.table in ALL_ZONES else ():
            if violation.found != UNRECORDED or ALL_ZONES[check.table] not in _UNIQUE:
                broken.setdefault(check.table, {}).setdefault(violation.file, violation.found)
    return broken


class _Damage:
    """The consequences of damaged files for a table.

    Args:
        catalog: The lake's tables.
        name: The table.
        damaged: Its damaged files, with the kind of each.

    Attributes:
        is_current: Whether readers of the table need one of them, so that it has to be rebuilt.
        spoilt: The snapshots that use one.
        whole: Snapshots that do not, and that tags or branches of others name.
        pins: Names of those tags and branches whose snapshots are spoilt.
    """

    def __init__(self, catalog: Catalog, name: str, damaged: Mapping[str, str]) -> None:
        # what cannot be read further down counts as damaged for every reader
        self.is_current, self.spoilt, self.whole, self.pins = True, list[int](), set[int](), set[str]()
        self._name, self._root, self._damaged = name, catalog.root, damaged
        location = catalog.listed().get(name)
        what = None if location is None else damaged.get(self._shown(location))
        if location is None or what not in (None, UNRECORDED):
            return
        try:
            state = snapshots.read_table(name, location)
        except LakeError:
            return
        self.spoilt = [snapshot.id for snapshot in state.snapshots if self._is_spoilt(snapshot)]
        # damage that no snapshot accounts for may concern all of them
        self.is_current = (
            what is not None or state.current is None or state.current.id in self.spoilt or not self.spoilt
        )
        self.whole = set(state.pins.values()).difference(self.spoilt)
        self.pins = {pin for pin, snapshot in state.pins.items() if snapshot in self.spoilt}

    def _is_spoilt(self, snapshot: Snapshot) -> bool:
        try:
            lists = snapshots.manifests(self._name, snapshot)
            files = [file.path for manifest in lists for file in snapshots.manifest(self._name, manifest)]
        except LakeError:
            return True
        return not self._damaged.keys().isdisjoint(map(self._shown, (snapshot.manifest_list, *lists, *files)))

    def _shown(self, location: str) -> str:
        return checksums.name_in(self._root, snapshots.local_path(location))
