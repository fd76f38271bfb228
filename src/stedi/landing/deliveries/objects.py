"""The objects of S3 that a landing is asked for: those that it knows by their listing alone, and copies of the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from stedi.catalog import Catalog
from stedi.engines.duckdb import DuckDB
from stedi.landing import rows
from stedi.landing.deliveries import remote
from stedi.landing.deliveries.local import Delivered, Skipped
from stedi.landing.deliveries.remote import Arrival, SeenObjects
from stedi.landing.rows import LandedFile

_AT_ONCE = 4096


class Objects:
    """The objects of one landing.

    Args:
        root: The lake's folder.
        found: What `arrivals.walk` gave.
    """

    def __init__(self, root: Path, found: Iterable[Arrival | Skipped]) -> None:
        listed = list(found)
        self.skipped = [item for item in listed if isinstance(item, Skipped)]
        self._arrivals = [item for item in listed if isinstance(item, Arrival)]
        self._known = SeenObjects(root) if self._arrivals else None
        self._all = [arrival.object for arrival in self._arrivals]

    def known(self, catalog: Catalog, session: Callable[[], DuckDB]) -> list[LandedFile]:
        """Returns what became of those that were landed before and are as they were; the others are left to be fetched.

        Args:
            catalog: The lake's tables.
            session: Makes an engine session, if one is needed.
        """
        assumed = {a: sha256 for a in self._arrivals if (sha256 := self._known and self._known.sha256(a.object))}
        if not assumed:
            return []
        ledger: dict[str, LandedFile] = {}
        with session() as engine:
            engine.bind_files("landed_files", catalog.files(catalog.table("landed_files")))
            wanted = sorted(set(assumed.values()))
            for first in range(0, len(wanted), _AT_ONCE):
                ledger |= rows.landed(engine, wanted[first : first + _AT_ONCE])
        # a note without an entry of the ledger is worth nothing
        # and of what was fruitless as one feed another may be meant now
        done = {
            arrival: file
            for arrival, sha256 in assumed.items()
            if (file := ledger.get(sha256)) and not (file.fruitless and arrival.feed != file.feed)
        }
        self._arrivals = [arrival for arrival in self._arrivals if arrival not in done]
        return [replace(file, name=arrival.name) for arrival, file in done.items()]

    def batches(self) -> Iterator[list[Arrival]]:
        """Yields the rest in groups."""
        return remote.batches(self._arrivals)

    def fetch(
        self, batch: Sequence[Arrival], folder: Path, done: Callable[[float], None]
    ) -> tuple[list[Delivered], list[Skipped]]:
        """Copies a group to this machine, and returns the copies and what could not be had."""
        found = [outcome for _, outcome in remote.fetch(batch, folder, done)]
        copies = [outcome for outcome in found if isinstance(outcome, Delivered)]
        return copies, [outcome for outcome in found if isinstance(outcome, Skipped)]

    def note(self, batch: Sequence[Arrival], landed: Iterable[LandedFile]) -> None:
        """Remembers which content the objects of a group have that has been landed."""
        contents: dict[str, set[str]] = {}
        for file in landed:
            contents.setdefault(file.name, set()).add(file.sha256)
        # two objects of different places can go by one name
        certain = {name: found for name, (found, *more) in contents.items() if not more}
        looked_at = [(a.object, certain[a.name]) for a in batch if a.name in certain]
        if self._known:
            self._known.note(looked_at, self._all)
