"""The accounts: where every record went, from delivered files to landing and to each table, by reason.

An account begins with the input rows and ends with the rows of the table. The lines between are computed from the
landed records and must add up exactly to the last line, which is counted in the table itself. Any difference is a
violation.
"""

from __future__ import annotations

from enum import StrEnum

from stedi._frozen import dataclass
from stedi.audit.proof.as_of import FEEDS
from stedi.engines import Engine


class Reason(StrEnum):
    """Why a landed row is not in a table: a closed list that scripts may rely on."""

    SUPERSEDED = "superseded by a later record"
    NO_RECORD = "no customer record"
    NO_CONSENT = "no consent"
    BEFORE_CONSENT = "before consent"
    DELIVERED_AGAIN = "delivered again"
    """The same reading was delivered before."""
    WITHHELD = "withheld"
    """Several customers claim the serial number, and the owner of the reading is not certain."""
    OF_ERASED = "of an erased customer"
    NO_READING = "no accelerometer reading that counts"
    NOT_CURATED = "owner not curated"
    NOT_MOVED = "no accelerometer reading at that moment"
    ANOTHERS = "another's"
    """Several customers claim the serial number, and another of them moved at that moment."""
    QUARANTINED = "in quarantine"
    ERASED = "erased"


# of several reasons the first one counts, in the order of the rules
STEP_REASON = (
    f"case when claimants = 0 then '{Reason.NO_RECORD}' when claimants > 1 and movers <> 1 then '{Reason.WITHHELD}' "
    f"when owner is null then '{Reason.OF_ERASED}' when not consents then '{Reason.NO_CONSENT}' "
    f"when not curated then '{Reason.NOT_CURATED}' when not in_time then '{Reason.BEFORE_CONSENT}' "
    f"else '{Reason.DELIVERED_AGAIN}' end"
)
"""The SQL of the reason why a landed row of `steps` is not in the trusted table, or not a second time."""
TRAINED = "(owner, moment) in (select person, moment from motions where in_time and landed > 0)"
"""The SQL of whether a due row of `steps` makes a training row."""


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """The account of one table: input rows, rows left out by reason, resulting rows.

    Attributes:
        table: The table.
        lines: Pairs `(what, rows)`: first the input rows, then rows left out (negative) or added, last the rows of
            the table.
    """

    table: str
    lines: tuple[tuple[str, int], ...]

    @property
    def open(self) -> int:
        """The number of rows that the lines do not explain; 0 if the account balances."""
        *parts, (_, rows) = self.lines
        return abs(sum(count for _, count in parts) - rows)


def ledger(engine: Engine) -> None:
    """Creates `ledger` and `rows_landed`: what was recorded of each file, and its rows in each landing table.

    Also creates `rows_off` (feed, n: extra or missing rows) and `quarantine_off` (n).
    """
    engine.materialize(
        "ledger",
        "select sha256, max(feed) as feed, sum(seen)::bigint as seen, sum(accepted)::bigint as accepted, "
        "sum(quarantined)::bigint as quarantined, sum(erased)::bigint as erased from landed_files group by sha256",
    )
    # grouped before they are put together: else each row's group would have two texts
    counted = "select '{0}' as feed, _file as sha256, count(*) as n from {0} group by _file"
    engine.materialize("rows_landed", " union all ".join(map(counted.format, FEEDS)))
    # a file's content has one feed; rows that came from no file have no feed in the ledger
    tables = {"customer": FEEDS[0], "accelerometer": FEEDS[1], "step_trainer": FEEDS[2]}
    case = " ".join(f"when '{feed}' then '{table}'" for feed, table in tables.items())
    engine.materialize(
        "rows_off",
        f"select coalesce(r.feed, case l.feed {case} end) as feed, sum(abs(coalesce(r.n, 0) - "
        "coalesce(l.accepted, 0)))::bigint as n from ledger as l full join rows_landed as r on l.sha256 = r.sha256 "
        "group by 1",
    )
    engine.materialize(
        "quarantine_off",
        "select coalesce(sum(abs(coalesce(q.n, 0) - coalesce(l.quarantined, 0))), 0)::bigint as n from ledger as l "
        "full join (select sha256, count(*) as n from quarantine group by sha256) as q on l.sha256 = q.sha256",
    )


def files(engine: Engine) -> tuple[Reconciliation, dict[str, int]]:
    """Compares the ledger with the rows of landing and quarantine, file by file.

    Args:
        engine: A session with the relations of `ledger`.

    Returns:
        The account of all records seen, and the violations of each table: files whose sums do not match count for
        the ledger; extra or missing rows count for the table that they concern.
    """
    [(wrong, *totals)] = engine.rows(
        "select count(*) filter (where seen <> accepted + quarantined + erased), coalesce(sum(seen), 0), "
        "coalesce(sum(quarantined), 0), coalesce(sum(erased), 0), coalesce(sum(accepted), 0) from ledger"
    )
    off = dict(engine.rows("select feed, n from rows_off union all select 'quarantine', n from quarantine_off"))
    seen, quarantined, erased, accepted = map(int, totals)
    lines = (
        ("records in the delivered files", seen),
        (Reason.QUARANTINED, -quarantined),
        ("of erased customers", -erased),
        ("records landed", accepted),
    )
    return Reconciliation("landed_files", lines), {"landed_files": int(wrong), **off}


def customers(engine: Engine) -> tuple[Reconciliation, Reconciliation]:
    """Returns the accounts of the two customers tables."""
    [(records, people, consenting, curated)] = engine.rows(
        "select coalesce(sum(c.records), 0), count(*), count(*) filter (where c.consents), count(r.person) filter "
        "(where c.consents) from current as c left join curated as r on c.person = r.person"
    )
    records = int(records)
    return (
        Reconciliation(
            "customers_trusted",
            (
                ("records landed", records),
                (Reason.SUPERSEDED, people - records),
                (Reason.NO_CONSENT, consenting - people),
                ("customers", _found(engine, "customers_trusted", "consents")),
            ),
        ),
        Reconciliation(
            "customers_curated",
            (
                ("customers_trusted", consenting),
                (Reason.NO_READING, curated - consenting),
                ("customers", _found(engine, "customers_curated", "consents")),
            ),
        ),
    )


def motions(engine: Engine) -> Reconciliation:
    """Returns the account of `accelerometer_trusted`."""
    [(landed, strangers, refused)] = engine.rows(
        "select coalesce(sum(n), 0), coalesce(sum(n) filter (where not k.customer), 0), "
        "coalesce(sum(n) filter (where k.customer and not k.consents), 0) "
        "from senders as a join persons as p on a.address = p.address join known as k on p.person = k.person"
    )
    [(early, again, found)] = engine.rows(
        "select coalesce(sum(early), 0), coalesce(sum(again), 0), coalesce(sum(found), 0) from "
        "(select case when in_time then 0 else landed end as early, "
        "case when in_time and landed > 0 then landed - 1 else 0 end as again, found from motions "
        # where the sums agree, `found` is also how many distinct readings are in time
        "union all select landed - timely, timely - found, found from motion_sums)"
    )
    return Reconciliation(
        "accelerometer_trusted",
        (
            ("readings landed", int(landed)),
            (Reason.NO_RECORD, -int(strangers)),
            (Reason.NO_CONSENT, -int(refused)),
            (Reason.BEFORE_CONSENT, -int(early)),
            (Reason.DELIVERED_AGAIN, -int(again)),
            ("readings", int(found)),
        ),
    )


def steps(engine: Engine) -> Reconciliation:
    """Returns the account of `step_trainer_trusted`."""
    kinds = dict(
        engine.rows(
            f"select {STEP_REASON} as kind, sum(n) from (select claimants, movers, owner, consents, curated, in_time, "
            "case when due then landed - 1 else landed end as n from steps where landed > 0 union all "
            # a device whose sums agree stands twice: its readings from before consent, and its repetitions
            "select claimants, movers, owner, consents, curated, false, landed - timely from step_sums union all "
            "select claimants, movers, owner, consents, curated, true, timely - found from step_sums) group by kind"
        )
    )
    [(landed, found)] = engine.rows(
        "select coalesce(sum(landed), 0), coalesce(sum(found), 0) from (select landed, found from steps union all "
        "select landed, found from step_sums)"
    )
    reasons = (
        *(Reason.NO_RECORD, Reason.WITHHELD, Reason.OF_ERASED, Reason.NO_CONSENT, Reason.NOT_CURATED),
        *(Reason.BEFORE_CONSENT, Reason.DELIVERED_AGAIN),
    )
    return Reconciliation(
        "step_trainer_trusted",
        (
            ("readings landed", int(landed)),
            *((reason, -int(kinds.get(reason, 0))) for reason in reasons),
            ("readings", int(found)),
        ),
    )


def training(engine: Engine) -> Reconciliation:
    """Returns the account of `machine_learning_curated`."""
    [(due,)] = engine.rows("select n from due")
    [(partnered,)] = engine.rows("select n from partnered")
    [(found,)] = engine.rows(
        "select coalesce(sum(t.n), 0)::bigint from rows_of_machine_learning_curated as t join known as k "
        "on t.customer_id = k.customer_id where k.consents"
    )
    # the rows that differ tell how many there should be: all others are as wanted
    [(wanted,)] = engine.rows(f"select {found} + coalesce(sum(wanted - found), 0) from unequal")
    return Reconciliation(
        "machine_learning_curated",
        (
            ("step_trainer_trusted", due),
            (Reason.NOT_MOVED, partnered - due),
            ("further accelerometer readings at that moment", int(wanted) - partnered),
            ("training rows", found),
        ),
    )


def _found(engine: Engine, name: str, which: str) -> int:
    [(rows,)] = engine.rows(
        f"select count(*) from {name} as t join known as k on t.customer_id = k.customer_id where {which}"
    )
    return int(rows)
