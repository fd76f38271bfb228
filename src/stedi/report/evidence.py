"""The signed report of one audit, for a regulator: each promise in plain words with its checks.

It contains exactly the counts of `stedi audit --json`. The file is signed; anybody with the file and the lake's public
key can check it without the lake.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from datetime import datetime

from stedi._frozen import dataclass
from stedi.audit.proof import Reconciliation
from stedi.audit.record import AuditRecord, Counted
from stedi.audit.risk import Risk
from stedi.context.progress import instant
from stedi.privacy import receipts, signatures
from stedi.privacy.pseudonyms import Key

FORMAT = 1
"""The version of the report's JSON."""


@dataclass(frozen=True, slots=True)
class CheckLine:
    """The result of one check, over all its tables.

    Attributes:
        name: The check.
        tables: How many tables, or other things, it covers.
        held: For how many of them it holds.
        violations: How often it is violated.
    """

    name: str
    tables: int
    held: int
    violations: int


@dataclass(frozen=True, slots=True)
class Promise:
    """A promise of the lake, with its checks.

    Attributes:
        title: A few words.
        text: The explanation.
        holds: Whether it is kept; None if it was not checked.
        checks: The checks that prove it.
    """

    title: str
    text: str
    holds: bool | None
    checks: tuple[CheckLine, ...]


@dataclass(frozen=True, slots=True)
class AuditReport:
    """The report of one audit.

    Attributes:
        format: The version of this shape.
        lake: The lake's id.
        version: The software.
        at: When the audit began, UTC.
        holds: Whether every check holds and the rules of consent were proved.
        checks: How many checks were made.
        violations: How many violations were found.
        promises: What the lake promises, with the checks.
        accounts: Where every record went.
        risk: What the training table reveals, if it was measured.
        due: Tables for which a build was due; they were compared with what they were built from.
        unseen: Customers whose address contains an invisible character.
        not_reached: What the audit could not check, in words.
        public_key: Fingerprint of the key that signs the report.
    """

    format: int
    lake: str
    version: str
    at: datetime
    holds: bool
    checks: int
    violations: int
    promises: tuple[Promise, ...]
    accounts: tuple[Reconciliation, ...]
    risk: Risk | None
    due: tuple[str, ...]
    unseen: int
    not_reached: tuple[str, ...]
    public_key: str


PROMISES = (
    (
        "Only people who consent",
        "No row of a trusted or curated table belongs to somebody who does not consent to research. If the lake uses "
        "readings since consent only, none is older than its customer's consent. Each customer is in the customers "
        "tables once, with the current record.",
        ("consent", "before consent", "current record", "one row", "curated"),
    ),
    (
        "No row mixes two people",
        "Each reading belongs to the person whose phone or device took it. A reading of a shared device is used only "
        "if its owner is certain, and no training row pairs one person's step with another's motion.",
        ("one person", "owner", "withheld", "landed"),
    ),
    (
        "No direct identifiers in training data",
        "Tables of readings identify people by pseudonyms only, made with the lake's secret key. The training table "
        "contains no address, name, telephone number or serial number.",
        ("identifiers", "pseudonyms"),
    ),
    (
        "Every record is accounted for",
        "Every delivered record is landed, in quarantine, or belongs to somebody who was erased. Every row that should "
        "be in a table is there exactly once. Each table records what it was built from.",
        ("conservation", "distinct", "nulls", "watermarks"),
    ),
    (
        "Erased people stay erased",
        "The records of erasures are present and unchanged: receipts, and the tombstones that keep erased people out. "
        "The lake was not rolled back to a state before a withdrawal or an erasure.",
        ("erasures", "receipts", "newest"),
    ),
    (
        "Every access is logged",
        "Each time somebody was shown or given rows of people, a sealed line records who, when, in which role and of "
        "which tables. No line was changed or removed.",
        ("access log",),
    ),
    (
        "File integrity",
        "Every file of the tables is present, with its recorded size and counts; if every file was read, with the same "
        "bytes.",
        ("catalog", "metadata", "manifests", "data files", "checksums"),
    ),
)
"""The promises: title, explanation, and the names of the checks that prove each."""
_OTHERS = ("Other checks", "Checks that belong to no promise.")
"""What a later version checks, so that nothing that was found is left out."""


def of(record: AuditRecord, key: Key, *, remote: bool) -> AuditReport:
    """Returns the report of an audit.

    Args:
        record: What the audit found.
        key: The lake's key.
        remote: Whether the lake lies in a bucket.
    """
    known = {name for _, _, names in PROMISES for name in names}
    promises = [_promise(title, text, [c for c in record.checks if c.name in names]) for title, text, names in PROMISES]
    others = [check for check in record.checks if check.name not in known]
    if others:
        promises.append(_promise(*_OTHERS, others))
    return AuditReport(
        FORMAT,
        record.lake,
        record.version,
        record.at,
        record.holds,
        len(record.checks),
        record.violations,
        tuple(promises),
        record.accounts,
        record.risk,
        record.due,
        record.unseen,
        tuple(_not_reached(record, remote=remote)),
        signatures.fingerprint(signatures.public_key(key)),
    )


def signed(report: AuditReport, key: Key, name: str, raw: bytes) -> bytes:
    """Returns the signature of a report's file, which belongs beside it.

    Args:
        report: The report.
        key: The lake's key.
        name: The file's name, without its folder.
        raw: The file's bytes.
    """
    at = instant(report.at)
    said = {"lake": report.lake, "at": at, "holds": report.holds, "violations": report.violations}
    return signatures.sign(key, {name: hashlib.sha256(raw).hexdigest()}, signatures.AUDIT, said)


def _promise(title: str, text: str, checks: Iterable[Counted]) -> Promise:
    looked, held, violations = Counter[str](), Counter[str](), Counter[str]()
    for check in checks:
        looked[check.name] += 1
        held[check.name] += not check.violations
        violations[check.name] += check.violations
    lines = tuple(CheckLine(name, looked[name], held[name], violations[name]) for name in looked)
    return Promise(title, text, not violations.total() if looked else None, lines)


def _not_reached(record: AuditRecord, *, remote: bool) -> Iterable[str]:
    if not record.proved:
        yield "the rules of consent: files are damaged, and nothing can be proved about damaged files"
    if not record.files:
        yield "the bytes of the files: sizes and counts were compared, not every file's SHA-256"
    yield "delivered files outside the lake"
    for word in receipts.not_reached(lake=remote, inbox=False):
        yield receipts.OUT_OF_REACH[word]
