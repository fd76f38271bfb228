"""The content of the report: frozen dataclasses, which are also its JSON.

`gathering` fills them from a lake. Instants are the lake's, never the clock's. Counts of people have passed
`disclosure`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Literal

from stedi._frozen import dataclass
from stedi.audit.consent_history import Period
from stedi.audit.proof import Reconciliation
from stedi.landing.quarantine import Fault
from stedi.report.disclosure import Figure
from stedi.report.earlier import Changes
from stedi.report.measurements import Measurements

FORMAT = 1
"""The version of the report's JSON."""

State = Literal["holds", "violated", "outdated", "none", "refused"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the lake keeps its promises, by the last audit.

    Attributes:
        state: `holds`; `violated`; `outdated`, if it held and tables have changed since; `none` without an audit;
            `refused`, if its record is not what this lake has written.
        at: When the audit began, UTC.
        checks: Checks made.
        held: Checks that hold.
        violations: Violations found.
        files: Whether it read every file.
        moved: Tables that have changed since.
        due: Tables of which it said that a build was due.
    """

    state: State
    at: datetime | None = None
    checks: int = 0
    held: int = 0
    violations: int = 0
    files: bool = False
    moved: tuple[str, ...] = ()
    due: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage of the funnel.

    Attributes:
        name: The stage.
        people: People who reach it.
        left_out: People of the previous stage who do not.
        reason: Why not.
    """

    name: str
    people: Figure
    left_out: Figure | None
    reason: str


@dataclass(frozen=True, slots=True)
class ColumnLine:
    """A column and its meaning.

    Attributes:
        name: Its name.
        type: Its type, in Iceberg's words.
        privacy: Its privacy class.
        text: Its meaning.
        unit: The unit of its values.
    """

    name: str
    type: str
    privacy: str
    text: str
    unit: str


@dataclass(frozen=True, slots=True)
class SnapshotLine:
    """A snapshot of a table; without counts for tables of people.

    Attributes:
        id: Its id.
        at: When readers first saw it, UTC.
        operation: The operation.
        rows: Rows of the table.
        inputs: What it was built from.
    """

    id: str
    at: datetime
    operation: str
    rows: int | None
    inputs: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TableEntry:
    """A table of the lake.

    Attributes:
        name: Its name.
        zone: Its zone.
        rows: Rows.
        bytes: Size of its data files; None where that would tell of few people.
        updated: When its rows were last changed, UTC.
        reads: Tables that it is made from.
        classes: Columns by what they tell about a person.
        columns: Its columns.
        sql: The SELECT that makes it; empty for a table of the landing zone.
        snapshots: Its newest snapshots.
        snapshots_total: How many there are.
    """

    name: str
    zone: str
    rows: Figure
    bytes: int | None
    updated: datetime | None
    reads: tuple[str, ...]
    classes: Mapping[str, int]
    columns: tuple[ColumnLine, ...]
    sql: str
    snapshots: tuple[SnapshotLine, ...]
    snapshots_total: int


@dataclass(frozen=True, slots=True)
class QuarantinedFile:
    """A delivered file with records that could not be taken.

    Attributes:
        file: Its name.
        feed: Its feed.
        reason: Why.
        records: How many.
    """

    file: str
    feed: str
    reason: str
    records: int


@dataclass(frozen=True, slots=True)
class QuarantineEntry:
    """The content of quarantine.

    Attributes:
        total: Records.
        by_reason: Records by reason.
        by_file: Records by file and reason, most first.
        by_file_total: How many such lines there are.
        fields: Which field was wrong, of the first records.
        fields_total: How many such lines there are.
        looked_at: Of how many records that is told.
    """

    total: int
    by_reason: Mapping[str, int]
    by_file: tuple[QuarantinedFile, ...]
    by_file_total: int
    fields: tuple[Fault, ...]
    fields_total: int
    looked_at: int


@dataclass(frozen=True, slots=True)
class LandedDay:
    """What was landed on one day.

    Attributes:
        day: The day, UTC.
        files: Delivered files.
        accepted: Landed readings, by feed; customer records are not shown, since a few may reveal a person.
        quarantined: Records that went to quarantine.
        erased: Records of erased customers that were dropped.
    """

    day: date
    files: int
    accepted: Mapping[str, int]
    quarantined: int
    erased: int


@dataclass(frozen=True, slots=True)
class ReleaseEntry:
    """A training set that was released.

    Attributes:
        release: `NAME@VERSION`.
        released_at: When it was created, UTC.
        purpose: `research` or `public`.
        recipient: Its recipient.
        subjects: People in it.
        rows: Rows in it.
        stale: People in it who may no longer be used.
        models: Models that were trained on it, the last ones.
        models_total: How many there are.
        recalls: When it was recalled, UTC, the last times.
        recalls_total: How often it was recalled.
        deleted: Whether its folder was removed.
    """

    release: str
    released_at: datetime
    purpose: str
    recipient: str
    subjects: Figure
    rows: int
    stale: Figure
    models: tuple[str, ...]
    models_total: int
    recalls: tuple[datetime, ...]
    recalls_total: int
    deleted: bool


@dataclass(frozen=True, slots=True)
class ReceiptEntry:
    """The receipt of an erasure.

    Attributes:
        id: Its id.
        ended: When the erasure ended, UTC.
        follows: The previous receipt, in words.
        clean: Whether the search found nothing.
        not_reached: What it could not reach, in words.
    """

    id: str
    ended: str
    follows: str
    clean: bool | None
    not_reached: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RoleLine:
    """What a role sees.

    Attributes:
        role: The role.
        tables: The tables that it sees, `all` for every one.
        masked: Columns that are null for it.
    """

    role: str
    tables: tuple[str, ...]
    masked: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RiskLine:
    """How many people are singled out by what is known of them.

    Attributes:
        known: What is known.
        resolution: With what precision.
        by_one: People whom one row singles out.
        by_all: People whom all their rows single out.
    """

    known: str
    resolution: str
    by_one: Figure
    by_all: Figure


@dataclass(frozen=True, slots=True)
class RiskEntry:
    """What the training table reveals, as measured by the last audit.

    Attributes:
        at: When, UTC.
        people: People in the table then.
        lines: By what is known.
    """

    at: datetime
    people: Figure
    lines: tuple[RiskLine, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """The report on a lake: what its page and its JSON say.

    Attributes:
        format: The version of this shape.
        lake: The lake's id.
        version: The software.
        as_of: When the lake last changed, UTC.
        state: A digest of everything below except `changes`: equal digests mean equal reports.
        min_count: The least count of people that is shown.
        verdict: Whether the promises hold.
        changes: What changed since an earlier report.
        records: Customer records landed, of which the funnel begins.
        superseded: Those that a later record of the same person has superseded.
        funnel: The people, from those known to those in releases.
        consent: Consent over time, the last periods.
        consent_total: How many periods can be shown.
        consent_until: The last month of those; later ones would tell of few people.
        withheld: Readings of shared devices that belong to nobody for certain.
        accounts: Where every reading went, by the last audit.
        tables: The tables.
        quarantine: What could not be taken.
        days: What was landed, by day.
        days_total: On how many days something was landed.
        measurements: What the readings are like, over a part of the people.
        releases: The newest releases.
        releases_total: How many there are.
        receipts: The newest receipts.
        receipts_total: How many there are.
        roles: Who sees what.
        risk: What the training table gives away, if that was measured.
        figures: The figures that a later report is compared with.
    """

    format: int
    lake: str
    version: str
    as_of: datetime | None
    state: str
    min_count: int
    verdict: Verdict
    changes: Changes | None
    records: int
    superseded: Figure
    funnel: tuple[Stage, ...]
    consent: tuple[Period, ...]
    consent_total: int
    consent_until: date | None
    withheld: int
    accounts: tuple[Reconciliation, ...]
    tables: tuple[TableEntry, ...]
    quarantine: QuarantineEntry
    days: tuple[LandedDay, ...]
    days_total: int
    measurements: Measurements
    releases: tuple[ReleaseEntry, ...]
    releases_total: int
    receipts: tuple[ReceiptEntry, ...]
    receipts_total: int
    roles: tuple[RoleLine, ...]
    risk: RiskEntry | None
    figures: Mapping[str, Figure]


def instant(at: datetime) -> str:
    """Returns an instant as ISO 8601 has it, to the second, UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
