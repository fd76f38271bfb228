"""What is finished of the work of commands that were killed, before another one writes: `context.Recoveries`.

A key rotation and an erasure that were decided, a release whose folder is whole, the batches of a landing's journal.
Each of these may also belong to a command that is alive. Its locks are waited for, and then nothing is left to do.
"""

from __future__ import annotations

from contextlib import suppress

from stedi.context import Context
from stedi.context.progress import Progress
from stedi.errors import CommitConflict, LakeBusy
from stedi.privacy import key_change, tombstones
from stedi.storage import durable, s3


def finish_rotation(context: Context, progress: Progress) -> None:
    """Finishes a key rotation that was interrupted; one that is alive is waited for."""
    if key_change.left(context.root):
        from stedi.operations.maintenance import key_rotation

        context.key()  # confirms it
        with context.locked(*durable.ALL, progress=progress):
            if not key_rotation.finish(context, progress):
                raise CommitConflict(
                    f"{context.root}: a key rotation came too late and was given up; nothing was changed: run this "
                    "command again, then `stedi key rotate`"
                )


def finish_release(context: Context, progress: Progress) -> None:
    """Finishes a release that was interrupted once it was decided, and removes one that was not; none that is alive."""
    if (context.root / "releasing.json").exists():
        from stedi.datasets import registry

        with context.locked("build", progress=progress):
            registry.finish(context, context.key())
    elif not s3.is_remote(context.root) and any((context.root / "releases").glob("*/.*.partial")):
        from stedi.datasets import registry

        registry.remove_abandoned(context.root)


def finish_erasure(context: Context, progress: Progress) -> None:
    """Finishes an erasure that was interrupted; one that is alive is waited for."""
    if (context.root / tombstones.PENDING).exists():
        from stedi import erasure

        with context.writing(*durable.ALL, erasing=True, progress=progress):
            erasure.erase(context, context.key(), progress=progress)


def finish_landings(context: Context) -> None:
    """Finishes landings that were interrupted; the caller holds their lock."""
    from stedi.landing import journal

    journal.finish(context)


def finish_dead_landings(context: Context) -> None:
    """Finishes what a landing that died has left; one that is alive finishes its own."""
    if any((context.root / "pending").glob("*.json")):
        with suppress(LakeBusy), context.locked("land", wait=False):
            finish_landings(context)


def land_waiting_withdrawals(context: Context) -> None:
    """Lands replayed withdrawals whose customers the lake has come to know by another way than a landing."""
    from stedi.privacy.journal import WAITING

    if (context.root / WAITING).exists():
        from stedi.landing import withdrawal

        with context.locked("land"):
            withdrawal.repeat(context, context.key())
