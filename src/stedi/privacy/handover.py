"""The note of a change of key: one small file in the lake, from the moment that the change is decided to its end.

Before it is there, the lake is the old key's. From then on it is the new one's: whatever ends the process, the next
command publishes what was staged. `rotation` does the work; what reads or writes the lake only asks whether it is done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from stedi import config, durable
from stedi.errors import KeyRefused, LakeBusy, LakeError

NAME = "rotation.json"
"""The file's name, in the lake's folder."""
_PARTIAL = f".{NAME}.*.partial"


@dataclass(frozen=True, slots=True)
class Handover:
    """A change of key that is decided.

    Attributes:
        run: The branch of each table on which its rows stand under the new key.
        fingerprint: The new key's.
        key_file: Where the new key lies; empty for the usual place.
        base: The snapshot of each table that was published when its rows were staged.
        staged: The snapshot of each table that takes its place.
    """

    run: str
    fingerprint: str
    key_file: str
    base: Mapping[str, int]
    staged: Mapping[str, int]


def pending(root: Path) -> Handover | None:
    """Returns the change of key that is not at its end, if there is one.

    Raises:
        LakeError: The file is damaged.
    """
    try:
        digest, _, raw = (root / NAME).read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    try:
        if digest != _digest(raw):
            raise ValueError("its SHA-256 is another")
        return Handover(**json.loads(raw))
    except (ValueError, TypeError) as error:
        raise LakeError(
            f"{NAME}: expected the note of a change of key, found {type(error).__name__}; restore the lake from its "
            "backup, with the key of that time"
        ) from error


def write(root: Path, handover: Handover) -> None:
    """Decides a change of key, durably."""
    content = json.dumps(asdict(handover)).encode()
    try:
        durable.write(root / NAME, _digest(content) + b"\n" + content, durable.readable(root))
    except BaseException:
        (root / NAME).unlink(missing_ok=True)  # what is not on disk for certain must not be finished later
        raise


def end(root: Path) -> None:
    """Notes that a change of key is at its end."""
    durable.remove(root / NAME)


def left(root: Path) -> bool:
    """Says whether a change of key has left something to do: to finish it, or to remove what it had begun to write."""
    return (root / NAME).exists() or any(root.glob(_PARTIAL))


def sweep(root: Path) -> None:
    """Removes what a change of key that was killed had begun to write; the caller keeps others from changing it."""
    for partial in (*root.glob(_PARTIAL), *root.glob(".lake.toml.*.partial")):
        partial.unlink()


def refuse_unfinished(root: Path) -> None:
    """Raises LakeBusy while a change of key is decided and not at its end: tables may be of either key."""
    if (root / NAME).exists():
        raise LakeBusy(
            f"{root}: the key is being changed, or that was cut off; try again in a moment, or finish it with "
            "`stedi build`"
        )


def refuse_other(root: Path, fingerprint: str) -> None:
    """Refuses to go on with a key that is no longer the lake's; the caller keeps others from changing it.

    Args:
        root: The lake's folder.
        fingerprint: The key's, as the lake's settings had it when it was read.

    Raises:
        LakeBusy: A change of key is decided and not at its end.
        KeyRefused: The lake has another key by now.
    """
    refuse_unfinished(root)
    if config.read(root / "lake.toml").key_fingerprint != fingerprint:
        raise KeyRefused(f"{root}: the key was changed meanwhile; nothing was written: run this again")


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
