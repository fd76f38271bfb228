"""The name of a table's current metadata file beside that file, for readers that open a table by its folder.

The catalog alone decides which file is current. So a commit removes the hint before it writes the new metadata file,
whose sync makes the removal durable, and writes it again at its end. If the command is killed in between, the table has
no hint, and such a reader refuses it. With an outdated hint it would read rows of people who have left. The next commit
to the table writes the hint again.

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
    """Removes a table's hint; the removal is durable once the caller has synced the folder.

    Args:
        metadata: The folder of the table's metadata.
    """
    (metadata / NAME).unlink(missing_ok=True)


def write(current: Path) -> None:
    """Writes which metadata file is current; does nothing if the disk refuses, since the catalog knows it.

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
