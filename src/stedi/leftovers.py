"""What a killed command has left in the tables' folders, removed by the next command of its kind.

A landing and a build each write a folder of their own beside a table's data before they commit. The caller holds
their lock: a branch or a folder that no snapshot knows belongs to nobody alive.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from stedi.catalog import Catalog
from stedi.catalog.snapshots import data_files
from stedi.errors import LakeError


def sweep(catalog: Catalog, tables: Iterable[str]) -> None:
    """Drops staged branches that were never published, and data folders that no live snapshot uses.

    Args:
        catalog: The lake's tables.
        tables: The tables that only commands under the caller's lock write.
    """
    states = catalog.tables()
    for name in tables:
        state = states[name]
        for branch in state.branches.keys() - {"main"}:
            catalog.discard(name, branch)
        if state.branches.keys() - {"main"}:
            state = catalog.table(name)
        folder = catalog.folder(name) / "data"
        known = {s.summary.get(key) for s in state.snapshots for key in ("stedi.run", "stedi.batch")}
        strays = [entry for entry in folder.iterdir() if entry.name not in known] if folder.is_dir() else []
        if strays:
            try:
                used = {Path(file.path).parent for s in state.snapshots for file in data_files(name, s)}
            except LakeError:
                continue  # damage hides what is in use: nothing goes
            for stray in strays:
                if stray not in used:
                    shutil.rmtree(stray, ignore_errors=True)
