"""What maintenance did to the tables, or would do: as values, as JSON, as lines for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from stedi import output


@dataclass(frozen=True, slots=True)
class Removed:
    """Files of one kind that were removed, or would be."""

    files: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance did to one table, or would do.

    Attributes:
        name: The table.
        files: Small data files that were rewritten.
        bytes: Their size.
        into: How many files they became.
        manifests: Manifests that became one; 0 if they stay.
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
        tables: What was done to each table, in the order in which data flow.
        temporary: What killed commands have left in `tmp/` and beside the settings.
    """

    run: str
    tables: tuple[Maintained, ...]
    temporary: Removed

    @property
    def freed(self) -> int:
        """Bytes of everything that was removed."""
        return sum(table.freed for table in self.tables) + self.temporary.bytes


def to_json(done: Maintenance) -> dict[str, object]:
    """Returns a run as what `--json` prints."""

    def plain(removed: Removed) -> dict[str, int]:
        return {"files": removed.files, "bytes": removed.bytes}

    return {
        "run": done.run,
        "tables": [
            {
                "name": table.name,
                "compacted": {"files": table.files, "bytes": table.bytes, "into": table.into},
                "manifests": table.manifests,
                "expired": list(table.expired),
                "removed": {kind: plain(removed) for kind, removed in table.removed.items()},
                "freed": table.freed,
            }
            for table in done.tables
        ],
        "temporary": plain(done.temporary),
        "freed": done.freed,
    }


def render(done: Maintenance) -> str:
    """Returns a run as a line a table, and what was freed in all."""
    kinds = ("data", "manifests", "metadata", "partial")
    rows = [
        (
            *(table.name, table.files, table.bytes, table.into, table.manifests, len(table.expired)),
            *(table.removed[kind].files if kind in table.removed else 0 for kind in kinds),
            table.freed,
        )
        for table in done.tables
    ]
    headers = ("table", "small files", "bytes", "into", "manifests merged", "expired", *kinds, "freed")
    freed = f"{'freed' if done.run else 'to free'}: {done.freed:,} bytes"
    left = f"temporary files: {done.temporary.files:,}, {done.temporary.bytes:,} bytes"
    return f"{output.table(rows, headers)}\n\n{freed} ({left})"
