"""Commits to the tables of a lake in a folder: the next metadata file, then SQLite points to it.

Written without PyIceberg: importing it takes longer than a small command may.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stedi.catalog import checksums, hint, metadata
from stedi.catalog.changes import TableChange
from stedi.catalog.checksums import Output
from stedi.catalog.metadata import Outrun
from stedi.catalog.snapshots import TableState, local_path, read_metadata, read_table, uri
from stedi.catalog.sqlite import Pointers
from stedi.errors import LakeError

_VERSION = re.compile(r"(\d+)-[^/]*\.metadata\.json$")


class Local:
    """The tables of such a lake.

    Args:
        pointers: Where each table's current metadata file is.
    """

    def __init__(self, pointers: Pointers) -> None:
        self._pointers = pointers
        self._published: list[Path] = []

    def load(self, table: str) -> TableState:
        """Returns a table's current state; the last of `metadata` is the file that the catalog names.

        Raises:
            LakeError: There is none, or it cannot be read.
        """
        location = self._pointers.location(table)
        if location is None:
            raise LakeError(f"no table {table}: its entry in catalog.db is gone; run `stedi repair`")
        return read_table(table, location)

    def commit(self, changes: Iterable[TableChange]) -> None:
        """Commits changes to different tables from `load`, atomically for readers.

        `note` records beside the tables' files what was published.

        Args:
            changes: The changes; their requirements hold.

        Raises:
            Outrun: Another program committed first.
        """
        made = [(change.state, path) for change in changes if (path := _written(change)) is not None]
        # all metadata files are on disk by now: one transaction of SQLite moves all tables or none
        if not self._pointers.move((state.name, state.metadata[-1], uri(path)) for state, path in made):
            for _, path in made:
                path.unlink()
            raise Outrun
        self._published = [path for _, path in made]

    def note(self) -> None:
        """Records the last commit, once it is durable: a note must never be ahead of the catalog."""
        paths, self._published = self._published, []
        for path in paths:
            with suppress(OSError):  # the commit is made; the note only helps to see later that a catalog is old
                checksums.publish(path.parent.parent, f"{path.parent.name}/{path.name}")
            hint.write(path)

    def warm(self) -> None:
        """Imports what a commit needs."""
        import fastavro  # noqa: F401


def _written(change: TableChange) -> Path | None:
    """Writes the metadata file of a changed table, and returns it; None where nothing changes."""
    import uuid

    before = change.state.metadata[-1]
    base = read_metadata(before)
    made = metadata.changed(base, change.updates, location=before, at=change.at)
    if made == base:
        return None
    numbered = _VERSION.search(before)
    # a number, so that a restored older catalog is noticed; a UUID, so that racing commits never share a name
    path = Path(local_path(before)).with_name(
        f"{int(numbered[1]) + 1 if numbered else 0:05d}-{uuid.uuid4()}.metadata.json"
    )
    # before the metadata file, whose sync of the folder makes this durable, too
    hint.withdraw(path.parent)
    with Output(path) as stream:
        # half a character, which only an escape can write, stays one
        stream.write(json.dumps(made, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace"))
    return path
