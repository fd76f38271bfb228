"""The record of the last audit, stored in the lake: when it ran, what it read, what it found. Counts only, no data.

Whether the audit is still valid depends on its snapshots, not on its time: an audit is about the snapshots that it
read. The file is sealed like the lake's other state files, so that write access to the folder is not enough to forge
one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from stedi._frozen import asdict, dataclass
from stedi._version import __version__
from stedi.catalog import TableState
from stedi.context import Context
from stedi.privacy import state

if TYPE_CHECKING:
    from stedi.audit.integrity import Check
    from stedi.audit.proof import Proof, Reconciliation
    from stedi.audit.risk import Risk

NAME = "audited.json"
"""The file, in the lake's folder."""
_KIND = "audit"
_ADVICE = "audit the lake again"


@dataclass(frozen=True, slots=True)
class Counted:
    """The number of violations that one check counted in one table.

    Attributes:
        name: The check.
        table: The table or other object that was checked.
        violations: The number of violations.
    """

    name: str
    table: str
    violations: int


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """The stored record of an audit.

    Attributes:
        at: When it began, UTC.
        version: The version of the software that made it.
        lake: The lake's id.
        snapshots: The audited snapshot of each table; 0 for a table without snapshots.
        files: Whether every file was read and compared with its SHA-256.
        proved: Whether the proof of consent ran; it does not run if files are damaged.
        checks: The counts of each check.
        accounts: The account of each table.
        due: Tables for which a build was due; they were judged by their recorded inputs.
        unseen: The number of customers whose address has an invisible character.
        risk: The risk of re-identification, if it was measured.
    """

    at: datetime
    version: str
    lake: str
    snapshots: Mapping[str, int]
    files: bool
    proved: bool
    checks: tuple[Counted, ...]
    accounts: tuple[Reconciliation, ...]
    due: tuple[str, ...]
    unseen: int
    risk: Risk | None

    @property
    def held(self) -> int:
        """The number of checks that hold."""
        return sum(not check.violations for check in self.checks)

    @property
    def violations(self) -> int:
        """The total number of violations."""
        return sum(check.violations for check in self.checks)

    @property
    def holds(self) -> bool:
        """Whether every check holds and the proof of consent ran."""
        return self.proved and not self.violations

    def moved(self, states: Mapping[str, TableState]) -> tuple[str, ...]:
        """Returns the tables whose rows have changed since the audit."""
        return tuple(name for name, found in states.items() if _moved(found, self.snapshots.get(name)))


@dataclass(frozen=True, slots=True)
class FullAudit:
    """The result of a full audit.

    Attributes:
        checks: The results of all checks on files and on the rules of consent.
        proof: The proof; None if files are damaged.
        record: The stored record.
    """

    checks: tuple[Check, ...]
    proof: Proof | None
    record: AuditRecord


def made(
    at: datetime,
    lake: str,
    states: Mapping[str, TableState],
    checks: tuple[Check, ...],
    proof: Proof | None,
    risk: Risk | None,
    *,
    files: bool,
) -> AuditRecord:
    """Returns the record of an audit.

    Args:
        at: When it began, UTC.
        lake: The lake's id.
        states: The state of each table when it began; empty if the catalog cannot be read.
        checks: The checks, including those of the proof.
        proof: The proof, if there was one.
        risk: The risk, if it was measured.
        files: Whether every file was read.
    """
    counted = tuple(Counted(check.name, check.table, check.violations) for check in checks)
    heads = {name: found.current.id if found.current else 0 for name, found in states.items()}
    accounts, due, unseen = (proof.accounts, proof.due, proof.unseen) if proof else ((), (), 0)
    return AuditRecord(at, __version__, lake, heads, files, proof is not None, counted, accounts, due, unseen, risk)


def keep(context: Context, record: AuditRecord) -> None:
    """Replaces the record of the last audit; a read-only lake keeps none."""
    content = {**asdict(record), "at": record.at.isoformat(), "snapshots": dict(record.snapshots)}
    with suppress(OSError):
        state.write(context.root / NAME, _KIND, record.lake, context.key(), content)


def last(context: Context) -> AuditRecord | None:
    """Returns the record of the last audit, or None if there is none.

    Raises:
        LakeError: It exists, but was not written by this lake.
    """
    try:
        found = state.read(context.root / NAME, _KIND, context.config.lake_id, context.key(), advice=_ADVICE)
        return _record(found)
    except FileNotFoundError:
        return None
    except (KeyError, TypeError, ValueError):  # another version wrote it
        raise state.refused(NAME, "the record of another version", _ADVICE) from None


def _record(found: Mapping[str, Any]) -> AuditRecord:
    from stedi.audit.proof import Reconciliation  # the proof is not imported where there is no record
    from stedi.audit.risk import Exposure, Risk

    risk = found["risk"]
    return AuditRecord(
        datetime.fromisoformat(found["at"]).astimezone(UTC),
        found["version"],
        found["lake"],
        found["snapshots"],
        found["files"],
        found["proved"],
        tuple(Counted(**check) for check in found["checks"]),
        tuple(
            Reconciliation(account["table"], tuple((what, rows) for what, rows in account["lines"]))
            for account in found["accounts"]
        ),
        tuple(found["due"]),
        found["unseen"],
        Risk(risk["customers"], risk["rows"], tuple(Exposure(**each) for each in risk["exposures"])) if risk else None,
    )


def _moved(found: TableState, looked_at: int | None) -> bool:
    """Returns whether a table's rows differ from those of a snapshot; compaction does not change rows."""
    if found.current is None:
        # a table that had rows and has none has changed
        return bool(looked_at)
    later = found.since(looked_at) if looked_at else None
    return later is None or not all(snapshot.keeps_rows for snapshot in later)
