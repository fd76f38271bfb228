"""The version hint: a file that names a table's current metadata file, for readers that open a table by its folder.

Only the catalog decides which file is current. So a commit removes the hint before it writes the new metadata file, and
writes the hint again at its end; the sync of the metadata file makes the removal durable. If the command is killed in
between, the table has no hint, and such a reader refuses it. With an outdated hint it would read rows of people who
have left. The next commit to the table writes the hint again.

Tables in a bucket have no hint: readers attach the catalog service instead.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

NAME = "version-hint.text"
"""The name of the hint file in the folder of the table's metadata."""
_ENDING = ".metadata.json"


def withdraw(metadata: Path) -> None:
    """Removes a table's hint; the removal is durable once the caller has synced the folder.

    Args:
        metadata: The folder of the table's metadata.
    """
    (metadata / NAME).unlink(missing_ok=True)


def write(current: Path) -> None:
    """Writes the name of the current metadata file; ignores disk errors, since the catalog has the name.

    Args:
        current: The metadata file that the catalog names.
    """
    # never write in place: a hard-linked copy of the lake would get this lake's hint
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
