"""Mutants of the product, one fault each, visible after an I/O fault, a power cut or lost lease, or on an odd machine.

By day a sweep tests only a sample. `tests/faults/test_samples.py` checks that the samples detect these mutants: it runs
each with `MUTANT_OF_SWEEP` set to one, which every process of the sweep applies to itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

VARIABLE = "MUTANT_OF_SWEEP"
"""Names the mutant; it is not a variable of the product, since sweeps clear those."""


def apply() -> None:
    """Applies the mutant that the environment names, if any, to this process."""
    name = os.environ.get(VARIABLE)
    if name:
        MUTANTS[name]()


def _forgets_its_journal_first() -> None:
    """A landing removes its journal before it commits, which is the wrong order."""
    from stedi.landing import journal

    read = journal._read

    def read_and_removed(path: Path, key: Any) -> Any:
        found = read(path, key)
        if key is not None:
            path.unlink()
        return found

    journal._read = read_and_removed


def _syncs_no_folder() -> None:
    """File names, and files that engines have written, are not synced."""
    from stedi.storage import durable

    durable.sync = lambda path: None


def _syncs_no_metadata() -> None:
    """Iceberg metadata is not synced before a commit names it."""
    from stedi.catalog import checksums

    class Elsewhere:
        """The `os` module, but `fsync` does nothing."""

        def __getattr__(self, name: str) -> Any:
            return getattr(os, name)

        def fsync(self, descriptor: int) -> None:
            pass

    checksums.os = Elsewhere()  # type: ignore[assignment]


def _asks_once() -> None:
    """A request that S3 or the catalog did not answer is not retried."""
    from botocore.retries import standard

    standard.RetryQuotaChecker.acquire_retry_quota = lambda *_: None
    standard.MaxAttemptsChecker.is_retryable = lambda *_: False


def _leaves_what_nothing_uses() -> None:
    """Files left by a killed command and used by no snapshot stay."""
    from stedi.catalog import orphans
    from stedi.operations import maintenance

    maintenance.unused = orphans.unused = lambda *_, **__: ()


def _trusts_its_lease() -> None:
    """A command does not check whether it still has its lease."""
    from stedi.storage import s3
    from stedi.storage.s3 import leases

    s3.prove = leases.prove = lambda: None


def _writes_over_what_others_wrote() -> None:
    """Data written under a lock overwrite whatever was written there in the meantime."""
    from stedi.storage import s3
    from stedi.storage.s3 import leases

    def replace(path: Path, body: bytes) -> None:
        leases.prove()
        leases.write(path, body)

    s3.replace = leases.replace = replace


def _opens_no_streams() -> None:
    """Standard streams that are closed stay closed."""
    from stedi.cli import terminal

    terminal.open_streams = lambda: None


def _takes_settings_for_text() -> None:
    """A settings file that is not valid TOML causes an unexpected error."""
    import tomllib

    tomllib.TOMLDecodeError = UnicodeDecodeError  # type: ignore[assignment, misc]


def _finds_everybody_at_home() -> None:
    """A user without a home folder causes an unexpected error."""
    expanded = os.path.expanduser

    def home(path: Any) -> Any:
        found = expanded(path)
        if found == path and str(path).startswith("~"):
            raise RuntimeError("no home")
        return found

    os.path.expanduser = home


SWEEPS: dict[str, tuple[tuple[str, ...], tuple[Callable[[], None], ...]]] = {
    "every call": (
        ("tests/faults/on_stage/test_every_call.py",),
        (_forgets_its_journal_first,),
    ),
    "power": (
        ("tests/faults/on_stage/test_power_loss.py", "-k", "power_cut"),
        (_syncs_no_folder, _syncs_no_metadata),
    ),
    "faults of buckets": (
        ("tests/aws/test_bucket_faults.py", "-k", "a_fault_at_any"),
        (_asks_once,),
    ),
    "kills in buckets": (
        ("tests/aws/test_bucket_faults.py", "-k", "that_is_killed"),
        (_leaves_what_nothing_uses,),
    ),
    "lost leases": (
        ("tests/aws/test_lost_lease.py",),
        (_trusts_its_lease, _writes_over_what_others_wrote),
    ),
    "conditions": (
        ("tests/integration/test_conditions.py",),
        (_opens_no_streams, _takes_settings_for_text, _finds_everybody_at_home),
    ),
}
"""For each sweep, its tests as arguments of pytest, and the mutants that its sample must detect."""
MUTANTS = {mutant.__name__.strip("_"): mutant for _, mutants in SWEEPS.values() for mutant in mutants}
