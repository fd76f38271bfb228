"""Which data files each live snapshot of a table mentions, be it as there or as gone. Nothing here writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stedi.catalog.snapshots import DELETED, TableState, avro, local_path
from stedi.schema.tables import DataFile


@dataclass(frozen=True, slots=True)
class Mentions:
    """The data files of a table's live snapshots.

    Attributes:
        live: Every file that a live snapshot has, by path.
        by_snapshot: For each live snapshot the paths of all files that its manifests mention.
    """

    live: Mapping[str, DataFile]
    by_snapshot: Mapping[int, frozenset[str]]

    def of(self, paths: frozenset[str]) -> list[int]:
        """Returns the snapshots that mention one of some files."""
        return [snapshot for snapshot, mentioned in self.by_snapshot.items() if mentioned & paths]


def mentions(state: TableState) -> Mentions:
    """Reads every manifest of a table's live snapshots once.

    Raises:
        LakeError: One cannot be read.
    """
    live: dict[str, DataFile] = {}
    known: dict[str, frozenset[str]] = {}
    by_snapshot: dict[int, frozenset[str]] = {}
    for snapshot in state.snapshots:
        found: set[str] = set()
        for location in avro(state.name, snapshot.manifest_list, lambda entry: str(entry["manifest_path"])):
            if location not in known:
                entries = avro(state.name, location, _entry)
                live.update((file.path, file) for file, there in entries if there)
                known[location] = frozenset(file.path for file, _ in entries)
            found |= known[location]
        by_snapshot[snapshot.id] = frozenset(found)
    return Mentions(live, by_snapshot)


def _entry(entry: Any) -> tuple[DataFile, bool]:
    file = entry["data_file"]
    found = DataFile(local_path(file["file_path"]), int(file["record_count"]), int(file["file_size_in_bytes"]))
    return found, entry["status"] != DELETED
