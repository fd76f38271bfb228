"""The state file of a key rotation: present from the moment that the change is decided until it is complete.

Before the file exists, the lake uses the old key. From then on it uses the new one: if the process dies, the next
command publishes what was staged. `maintenance.key_rotation` does the work; everything else only checks whether it is
done.

The file names the place of the new key, so it is read before the key is known. It is acted on only if that key confirms
it: the key must have sealed the file and must succeed the key of the lake's settings.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from stedi._frozen import asdict, dataclass
from stedi.errors import KeyRefused, LakeBusy, LakeError
from stedi.privacy import state
from stedi.privacy.pseudonyms import Key
from stedi.storage import config, durable, s3

NAME = "rotation.json"
"""The file's name, in the lake's folder."""
_PARTIAL = f".{NAME}.*.partial"
"""Output of a write of it that was killed before its rename."""
_KIND = "change of key"
_ADVICE = "nothing was changed. Restore the lake from its backup, with the key of that time"


@dataclass(frozen=True, slots=True)
class PendingRotation:
    """A key rotation that is decided.

    Attributes:
        run: The branch of each table that has its rows under the new key.
        fingerprint: The new key's.
        key_file: Place of the new key; empty for the usual place.
        base: The snapshot of each table that was published when its rows were staged.
        staged: The snapshot of each table that replaces it.
    """

    run: str
    fingerprint: str
    key_file: str
    base: Mapping[str, int]
    staged: Mapping[str, int]


def pending(root: Path) -> PendingRotation | None:
    """Returns the incomplete key rotation, if there is one; it is not yet to be trusted.

    Raises:
        LakeError: The file is damaged.
    """
    try:
        raw = state.bytes_of(root / NAME)
    except FileNotFoundError:
        return None
    try:
        head, _, plain = raw.partition(b"\n")
        if not state.is_sealed(raw) and not hmac.compare_digest(head, hashlib.sha256(plain).hexdigest().encode()):
            raise ValueError("its SHA-256 is another")
        return PendingRotation(**state.parsed(plain))
    except (ValueError, TypeError) as error:
        raise LakeError(
            f"{NAME}: expected the note of a key rotation, found {type(error).__name__}; {_ADVICE}"
        ) from error


def confirm(root: Path, key: Key) -> None:
    """Refuses a key rotation that the holder of the lake's key has not decided.

    Args:
        root: The lake's folder.
        key: The key that the note names; or the one before, if the lake was opened before there was a note.

    Raises:
        KeyRefused: The lake has the note's key by now, and `key` is the one before it.
        LakeError: The key has not sealed the note, or does not follow the lake's.
    """
    try:
        raw = state.bytes_of(root / NAME)
    except FileNotFoundError:
        return
    # the settings name the old key until the tables are published, then the new one: it remembers both
    settled = config.read(root / "lake.toml").key_fingerprint
    if settled not in {each.fingerprint for each in key.every()}:
        decided = pending(root)
        # published since: a process that had the lake open has the key of before
        if decided is None or decided.fingerprint == settled:
            raise _changed(root)
        raise state.refused(NAME, "one that names a key which does not succeed the lake's key", _ADVICE)
    # lakes of version 1 wrote the note with a plain SHA-256: without a seal it is enough for them alone
    if state.is_sealed(raw) or key.version != 1:
        state.unsealed(raw, NAME, _KIND, state.lake_id(root), key, advice=_ADVICE)


def write(root: Path, key: Key, change: PendingRotation) -> None:
    """Decides a key rotation, durably; `key` is the new one."""
    try:
        state.write(root / NAME, _KIND, state.lake_id(root), key, asdict(change))
    except BaseException:
        # a note that may not be on disk must not be finished later
        with suppress(LakeBusy):  # then the command that has the locks by now decides
            s3.prove()
            (root / NAME).unlink(missing_ok=True)
        raise


def end(root: Path) -> None:
    """Notes that a key rotation is complete."""
    durable.remove(root / NAME)


def left(root: Path) -> bool:
    """Returns whether a key rotation must be finished, or its partial output removed."""
    return (root / NAME).exists() or any(root.glob(_PARTIAL))


def remove_leftovers(root: Path) -> None:
    """Removes what a key rotation that was killed had begun to write; the caller keeps others from changing it."""
    for partial in (*root.glob(_PARTIAL), *root.glob(".lake.toml.*.partial")):
        partial.unlink()


def refuse_unfinished(root: Path) -> None:
    """Raises LakeBusy while a key rotation is decided but incomplete: tables may use either key."""
    if (root / NAME).exists():
        raise LakeBusy(
            f"{root}: the key is being changed, or its rotation was interrupted; try again in a moment, or finish "
            "it with `stedi build`"
        )


def refuse_other(root: Path, fingerprint: str) -> None:
    """Refuses to go on with a key that is no longer the lake's; the caller keeps others from changing it.

    Args:
        root: The lake's folder.
        fingerprint: The key's, as the lake's settings had it when it was read.

    Raises:
        LakeBusy: A key rotation is decided and not complete.
        KeyRefused: The lake has another key by now.
    """
    refuse_unfinished(root)
    if config.read(root / "lake.toml").key_fingerprint != fingerprint:
        raise _changed(root)


def refuse_changed(root: Path, key: Key) -> None:
    """Raises KeyRefused if a lake that was opened before a key rotation is asked for its key after it.

    What the old key would find is not in the lake any more. While a rotation is decided but not complete, `confirm`
    says whether the key is the right one.
    """
    if not (root / NAME).exists() and config.read(root / "lake.toml").key_fingerprint != key.fingerprint:
        raise _changed(root)


def _changed(root: Path) -> KeyRefused:
    return KeyRefused(
        f"{root}: the key was changed meanwhile; nothing was written: run this again (in Python, open the lake again)"
    )
