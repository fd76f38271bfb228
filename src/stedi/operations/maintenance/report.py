"""Results of maintenance, per table."""

from __future__ import annotations

from collections.abc import Mapping

from stedi._frozen import dataclass


@dataclass(frozen=True, slots=True)
class Removed:
    """Files of one kind that were removed, or would be.

    Attributes:
        files: How many.
        bytes: Their size.
    """

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance did, or would do, to one table.

    Attributes:
        name: The table.
        files: Small data files that were rewritten.
        bytes: Their size.
        into: The number of files written from them.
        manifests: Manifests that were merged into one; 0 if none were.
        expired: Ids of the snapshots that expired, and of those that a killed command had staged.
        removed: What was removed of each kind: `data`, `manifests`, `metadata`, `partial`.
    """

    name: str
    files: int
    bytes: int
    into: int
    manifests: int
    expired: tuple[int, ...]
    removed: Mapping[str, Removed]

    @property
    def freed(self) -> int:
        """Bytes of everything that was removed."""
        return sum(removed.bytes for removed in self.removed.values())


@dataclass(frozen=True, slots=True)
class Maintenance:
    """One run of `maintain`.

    Attributes:
        run: The run's id; empty for a dry run.
        tables: What was done to each table, in the order of the data flow.
        temporary: Files that killed commands have left in `tmp/` and beside the settings.
        accesses: Lines of the access log that were removed because of their age.
    """

    run: str
    tables: tuple[Maintained, ...]
    temporary: Removed
    accesses: int = 0

    @property
    def freed(self) -> int:
        """Bytes of everything that was removed."""
        return sum(table.freed for table in self.tables) + self.temporary.bytes
