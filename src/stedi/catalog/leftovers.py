"""What a killed command has left in the tables' folders, removed by the next command of its kind.

A landing and a build each write a folder of their own beside a table's data before they commit. The caller holds
their lock: a branch or a folder that no snapshot knows belongs to nobody alive.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable

from stedi.catalog import Catalog, TableState
from stedi.catalog.orphans import unused
from stedi.errors import LakeError
from stedi.schema.tables import ALL_ZONES
from stedi.storage import durable, s3

_RUN = re.compile(r"\d{13}-[0-9a-f]{8}")
"""The id of a build, a landing or a maintenance, and how the names of its folders begin."""


_RUNS = ("run", "batch", "maintained", "erasure")
"""The properties of a snapshot that tell which of them wrote it."""


def abandoned_branches(state: TableState) -> set[str]:
    """Returns a table's branches that builds and landings have staged to; others are somebody's own."""
    return {branch for branch in state.branches if _RUN.fullmatch(branch)}


def remove_abandoned(
    catalog: Catalog, tables: Iterable[str], grace: float, *, finish: Callable[[], object] = lambda: None
) -> None:
    """Drops staged branches that were never published, and data folders that no live snapshot uses.

    Args:
        catalog: The lake's tables.
        tables: The tables that only commands under the caller's lock write.
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
        entries = [(entry, _RUN.match(entry.name)) for entry in folder.iterdir()] if folder.is_dir() else []
        strays = [entry for entry, run in entries if run is None or run[0] not in known]
        if strays:
            now = time.time()
            try:
                found = unused(state, catalog.folder(name), before=now, seen=now - grace, below=strays)
            except LakeError:
                continue  # damage hides what is in use: nothing goes
            if found and catalog.remote and ALL_ZONES[name] == "landing":
                catalog.fence(f"{int(now * 1000):013d}-{secrets.token_hex(4)}")
                finish()
                found = unused(catalog.table(name), catalog.folder(name), before=now, seen=now - grace, below=strays)
            gone = {file.path for file in found}
            for stray in strays:
                if all(entry.path in gone for entry in durable.entries(s3.at(durable.real(stray)))):
                    durable.remove_tree(stray)
