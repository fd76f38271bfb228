"""Explains one customer: consent and its history, rows by table, and rows left out with the reason.

The expected rows below landing are computed from the landed records alone, and compared with the published tables. For
each table of readings, every landed row is either published or left out for exactly one reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Literal

from stedi import transform as building
from stedi._frozen import dataclass
from stedi.audit.explain import subjects
from stedi.audit.proof import expected, violations
from stedi.audit.proof.as_of import BELOW, AsOf
from stedi.audit.proof.reconciliation import STEP_REASON, TRAINED, Reason
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.privacy import decoding
from stedi.privacy.pseudonyms import Key, normalise
from stedi.privacy.tombstones import erased_at
from stedi.schema.contracts import INSTANT_BEGIN
from stedi.schema.tables import ZONES

Consent = Literal["agrees", "agrees later", "does not agree", "unknown"]


@dataclass(frozen=True, slots=True)
class Landed:
    """One landed record of a customer: its consent and its file.

    Attributes:
        updated: When the customer or the website changed it.
        consent: The date of its consent to research, or None.
        file: The file that it came in; `withdrawal` if a command made it.
        landed_at: When it landed, UTC.
    """

    updated: datetime
    consent: datetime | None
    file: str
    landed_at: datetime | None


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Landed rows that are not in a table, for one reason.

    Attributes:
        table: The table that they are not in.
        reason: The reason.
        rows: The number of rows; 0 for `erased`, because erased rows can no longer be counted.
        shared_by: For readings of a shared serial number, the number of customers who claim it; else 0.
    """

    table: str
    reason: Reason
    rows: int
    shared_by: int = 0


@dataclass(frozen=True, slots=True)
class InQuarantine:
    """A record in quarantine that holds the customer's address.

    Attributes:
        record: The record's name, as `quarantine --show` takes it.
        feed: Its feed.
        reason: The reason for which it was quarantined.
    """

    record: str
    feed: str
    reason: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One customer: consent, rows, and the reasons for rows left out; an unknown address has the same fields.

    Attributes:
        customer_id: The pseudonym.
        consent: The consent of the current record.
        since: The date of the consent, or of the update that withdrew it; None for an unknown address.
        erased: When the customer was erased; None if they were not.
        history: The customer's landed records in the order of rule 2, the current one first.
        rows: The customer's rows in each table now. For `step_trainer_landing`, rows of devices that the customer
            claims; for `landed_files`, rows of files that hold any of the customer's records.
        expected: The rows that each table below landing should have, computed from the landed records.
        left_out: Landed rows that are not in a table, by reason.
        quarantined: Records in quarantine that hold the address.
        build_due: Whether a build is due.
        differs: Tables that differ from `expected`: because a build is due, or because of a fault if none is due.
    """

    customer_id: str
    consent: Consent
    since: datetime | None
    erased: datetime | None
    history: tuple[Landed, ...]
    rows: Mapping[str, int]
    expected: Mapping[str, int]
    left_out: tuple[LeftOut, ...]
    quarantined: tuple[InQuarantine, ...]
    build_due: bool
    differs: tuple[str, ...]

    @property
    def known(self) -> bool:
        """Whether the lake holds anything under the address, or has erased it."""
        return bool(self.history or any(self.rows.values()) or self.quarantined or self.erased)


def explain(context: Context, key: Key, address: str, now: int) -> Explanation:
    """Explains one customer; changes nothing.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        address: The customer's address, in any spelling.
        now: The instant for which consent is evaluated, epoch milliseconds.
    """
    states, config, root = context.catalog.tables(), context.config, context.root
    customer_id, normal = key.customer_id(address), expected.normal(address)
    # by all that has landed, whether a build has seen it or not; the session binds the tables itself
    base = AsOf({}, now, config.readings == "since-consent")
    with subjects.session(context, states) as engine:
        subjects.work_out(context, engine, key, {normal: customer_id}, base)
        who = subjects.person(engine, customer_id)
        history = _history(engine, who)
        # no row at all if nothing of them has landed
        consents = engine.rows(f"select consents from known where person = {who}") == [(True,)]
        quarantined = tuple(_quarantined(engine, normal))
        left_out = list(_left_out(engine, who, len(history), consents=consents))
        wanted = _expected(engine, who, consents=consents)
        rows = {"quarantine": len(quarantined), **_landed_rows(engine, who), **_published(engine)}
        # the count alone does not tell an outdated record
        stale = {table for table in violations.CUSTOMERS if _is_other(engine, who, table)}
    erased = erased_at(root, key, address)
    left_out += [LeftOut("quarantine", Reason.QUARANTINED, len(quarantined))] * bool(quarantined)
    left_out += [LeftOut("customers_landing", Reason.ERASED, 0)] * (erased is not None)
    consent, since = _consent(history, consents=consents)
    return Explanation(
        customer_id=customer_id,
        consent=consent,
        since=since,
        erased=erased,
        history=history,
        rows={table: rows[table] for table in ZONES},
        expected=wanted,
        left_out=tuple(left_out),
        quarantined=quarantined,
        build_due=any(step.action != "none" for step in building.plan(states, config, now)),
        differs=tuple(name for name, count in wanted.items() if rows[name] != count or name in stale),
    )


def _history(engine: DuckDB, who: str) -> tuple[Landed, ...]:
    found = engine.rows(f"select updated, share, file, landed_at from history where person = {who} order by place")
    return tuple(Landed(_at(updated), _maybe(share), file, _maybe(at)) for updated, share, file, at in found)


def _consent(history: Sequence[Landed], *, consents: bool) -> tuple[Consent, datetime | None]:
    if not history:
        return "unknown", None
    current = history[0]
    if current.consent is None or current.consent < _at(INSTANT_BEGIN):
        return "does not agree", current.updated
    # a record from the future gives consent only when its update time is reached (rule 3)
    return ("agrees", current.consent) if consents else ("agrees later", max(current.consent, current.updated))


def _left_out(engine: DuckDB, who: str, records: int, *, consents: bool) -> Iterator[LeftOut]:
    """Yields the counts of landed rows that are in no table below landing, by table and reason."""
    [(landed, early, again, moved)] = engine.rows(
        'select (select count(*) from accelerometer_landing as a join persons as p on a."user" = p.address '
        f"where p.person = {who}), coalesce(sum(landed) filter (where not in_time), 0)::bigint, "
        "coalesce(sum(landed - 1) filter (where in_time and landed > 0), 0)::bigint, "
        f"count(*) filter (where in_time and landed > 0) from motions where person = {who}"
    )
    refused = Reason.NO_CONSENT if records else Reason.NO_RECORD
    [(idle,)] = engine.rows(f"select count(*) from steps where due and owner = {who} and not {TRAINED}")
    counts = [
        ("customers_trusted", Reason.SUPERSEDED, max(records - 1, 0)),
        ("customers_trusted", Reason.NO_CONSENT, int(records > 0 and not consents)),
        ("accelerometer_trusted", refused, 0 if consents else landed),
        ("accelerometer_trusted", Reason.BEFORE_CONSENT, early),
        ("accelerometer_trusted", Reason.DELIVERED_AGAIN, again),
        ("customers_curated", Reason.NO_READING, int(consents and not moved)),
    ]
    yield from (LeftOut(table, reason, rows) for table, reason, rows in counts if rows)
    # the owner is checked first: this customer's consent does not matter for readings of another customer
    # of a reading that is due only the repetitions are left out, of others every delivery
    for reason, shared_by, rows in engine.rows(
        f"select case when owner <> {who} then {literal(Reason.ANOTHERS)} else {STEP_REASON} end as reason, "
        f"case when owner is distinct from {who} then claimants else 0 end as shared_by, "
        f"sum(case when due and owner = {who} then landed - 1 else landed end)::bigint as n from steps "
        f"where landed > 0 and serial in (select serial from claims where person = {who}) "
        "group by all having n > 0 order by all"
    ):
        yield LeftOut("step_trainer_trusted", Reason(reason), rows, shared_by)
    if idle:
        yield LeftOut("machine_learning_curated", Reason.NOT_MOVED, idle)


def _expected(engine: DuckDB, who: str, *, consents: bool) -> dict[str, int]:
    counts = "in_time and landed > 0"
    [(moved, stepped, trained)] = engine.rows(
        f"select (select count(*) from motions where person = {who} and {counts}), "
        f"(select count(*) from steps where owner = {who} and due), (select count(*) from steps as s join motions as m "
        f"on s.owner = m.person and s.moment = m.moment where s.owner = {who} and s.due and m.in_time and m.landed > 0)"
    )
    return {
        "customers_trusted": int(consents),
        "accelerometer_trusted": moved,
        "customers_curated": int(moved > 0),
        "step_trainer_trusted": stepped,
        "machine_learning_curated": trained,
    }


def _landed_rows(engine: DuckDB, who: str) -> dict[str, int]:
    addresses = f"(select address from persons where person = {who})"
    theirs = {
        "customers_landing": f"email in {addresses}",
        "accelerometer_landing": f'"user" in {addresses}',
        "step_trainer_landing": "serialNumber in (select serialNumber from claimable)",
    }
    landed = " union all ".join(f"select '{name}' as feed, _file from {name} where {w}" for name, w in theirs.items())
    rows = dict.fromkeys((*theirs, "landed_files"), 0)
    rows |= engine.rows(
        f"with landed as ({landed}) select feed, count(*) from landed group by feed union all "
        "select 'landed_files', count(*) from landed_files where sha256 in (select _file from landed)"
    )
    return rows


def _published(engine: DuckDB) -> dict[str, int]:
    counts = (f"(select count(*) from {table})" for table in BELOW)
    return dict(zip(BELOW, engine.rows(f"select {', '.join(counts)}")[0], strict=True))


def _is_other(engine: DuckDB, who: str, table: str) -> bool:
    """Returns whether a customers table has a record other than the current one."""
    violations.compare(engine, table)
    return engine.rows(f"select other > 0 from compared where person = {who}") == [(True,)]


def _quarantined(engine: DuckDB, normal: str) -> Iterator[InQuarantine]:
    """Yields the records in quarantine whose bytes contain an address, as plain text or with JSON escapes."""
    # alone, not as a part of a longer address: somebody else's record would be listed
    whole = re.compile(rf"(?<![\w.+-]){re.escape(normal)}(?![\w-])(?!\.\w)")
    for sha256, offset, feed, reason, raw in engine.stream(
        'select sha256, "offset", feed, reason, raw from quarantine order by file, sha256, "offset"'
    ):
        if whole.search(normalise(decoding.unescaped(raw))):
            yield InQuarantine(f"{sha256[:12]}:{offset}", feed, reason)


def _at(instant: int) -> datetime:
    return datetime.fromtimestamp(instant / 1000, UTC)


def _maybe(instant: int | None) -> datetime | None:
    return None if instant is None else _at(instant)
