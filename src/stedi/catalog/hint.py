"""The name of a table's current metadata file beside that file, for readers that open a table by its folder.

The catalog alone decides which file is current. So the hint is taken away before a commit, and the sync of the new
metadata file makes that last; it is written again when the commit is made. A command that is killed in between leaves
a table without a hint, which such a reader refuses, rather than one that leads to rows of people who have left. The
next commit to the table writes it again.

A bucket has none: its catalog is a service that readers attach.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAME = "version-hint.text"
"""Its name, in the folder of the table's metadata."""
_ENDING = ".metadata.json"


def withdraw(metadata: Path) -> None:
    """Takes a table's hint away; who then writes a file beside it, and syncs the folder, has that last.

    Args:
        metadata: The folder of the table's metadata.
    """
    (metadata / NAME).unlink(missing_ok=True)


def write(current: Path) -> None:
    """Says which metadata file is current, if the disk lets it: a reader who finds no hint asks the catalog.

    Args:
        current: The metadata file that the catalog names.
    """
    # never in place: a copy of the lake by hard links would read another lake's hint
    fresh = current.with_name(f".{NAME}.partial")
    with suppress(OSError):
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            os.fchmod(descriptor, current.stat().st_mode & 0o777)
            os.write(descriptor, current.name.removesuffix(_ENDING).encode())
        finally:
            os.close(descriptor)
        os.replace(fresh, current.with_name(NAME))
