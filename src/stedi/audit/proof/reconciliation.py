"""Where every record went: from the delivered files to landing, and from landing to each table, by reason.

An account begins with the rows that there were and ends with those that there are; the lines between add up exactly,
for they come from the landed records and the end from the table itself. What they leave unexplained is a violation.
"""

from __future__ import annotations

from dataclasses import dataclass

from stedi.audit.proof.as_of import FEEDS
from stedi.engines import Engine


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """Where the rows of one table come from.

    Attributes:
        table: The table.
        lines: What, and how many rows of it: those that came first, what was left out (below 0) or added, and last
            those that the table has.
    """

    table: str
    lines: tuple[tuple[str, int], ...]

    @property
    def open(self) -> int:
        """Rows that the lines do not explain; 0 where the account comes out."""
        *parts, (_, rows) = self.lines
        return abs(sum(count for _, count in parts) - rows)


def files(engine: Engine) -> tuple[Reconciliation, dict[str, int]]:
    """Compares the ledger with the rows of landing and quarantine, file by file.

    Returns:
        The account of all records seen, and the violations of each table: files whose sums do not come out stand
        with the ledger, and rows too many or too few with the table that has them.
    """
    engine.keep(
        "ledger",
        "select sha256, sum(seen)::bigint as seen, sum(accepted)::bigint as accepted, "
        "sum(quarantined)::bigint as quarantined, sum(erased)::bigint as erased from landed_files group by sha256",
    )
    landed = " union all ".join(f"select '{feed}' as feed, _file as sha256 from {feed}" for feed in FEEDS)
    engine.keep("rows_landed", f"select feed, sha256, count(*) as n from ({landed}) group by all")
    [(wrong, *totals)] = engine.rows(
        "select count(*) filter (where seen <> accepted + quarantined + erased), coalesce(sum(seen), 0), "
        "coalesce(sum(quarantined), 0), coalesce(sum(erased), 0), coalesce(sum(accepted), 0) from ledger"
    )
    violations = {"landed_files": int(wrong)}
    # a content has one feed; what no file brought has none in the ledger
    fed = "(select sha256, max(feed) as feed from landed_files group by sha256)"
    tables = {"customer": FEEDS[0], "accelerometer": FEEDS[1], "step_trainer": FEEDS[2]}
    case = " ".join(f"when '{feed}' then '{table}'" for feed, table in tables.items())
    for table, off in engine.rows(
        f"select coalesce(r.feed, case f.feed {case} end) as feed, sum(abs(coalesce(r.n, 0) - coalesce(l.accepted, 0)))"
        f" from ledger as l join {fed} as f on l.sha256 = f.sha256 full join rows_landed as r on l.sha256 = r.sha256 "
        "group by 1"
    ):
        violations[table] = int(off)
    [(off,)] = engine.rows(
        "select coalesce(sum(abs(coalesce(q.n, 0) - coalesce(l.quarantined, 0))), 0) from ledger as l full join "
        "(select sha256, count(*) as n from quarantine group by sha256) as q on l.sha256 = q.sha256"
    )
    violations["quarantine"] = int(off)
    seen, quarantined, erased, accepted = map(int, totals)
    lines = (
        ("records in the delivered files", seen),
        ("in quarantine", -quarantined),
        ("of erased customers", -erased),
        ("records landed", accepted),
    )
    return Reconciliation("landed_files", lines), violations


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
                ("superseded by a later record", people - records),
                ("no consent", consenting - people),
                ("customers", _found(engine, "customers_trusted", "consents")),
            ),
        ),
        Reconciliation(
            "customers_curated",
            (
                ("customers_trusted", consenting),
                ("no accelerometer reading that counts", curated - consenting),
                ("customers", _found(engine, "customers_curated", "consents")),
            ),
        ),
    )


def motions(engine: Engine) -> Reconciliation:
    """Returns the account of `accelerometer_trusted`."""
    [(landed, strangers, refused)] = engine.rows(
        "select coalesce(sum(n), 0), coalesce(sum(n) filter (where not k.customer), 0), "
        "coalesce(sum(n) filter (where k.customer and not k.consents), 0) "
        'from (select "user" as address, count(*) as n from accelerometer_landing group by 1) as a '
        "join persons as p on a.address = p.address join known as k on p.person = k.person"
    )
    [(early, again, found)] = engine.rows(
        "select coalesce(sum(landed) filter (where not in_time), 0), "
        "coalesce(sum(landed - 1) filter (where in_time and landed > 0), 0), coalesce(sum(found), 0) from motions"
    )
    return Reconciliation(
        "accelerometer_trusted",
        (
            ("readings landed", int(landed)),
            ("no customer record", -int(strangers)),
            ("no consent", -int(refused)),
            ("before consent", -int(early)),
            ("delivered again", -int(again)),
            ("readings", int(found)),
        ),
    )


def steps(engine: Engine) -> Reconciliation:
    """Returns the account of `step_trainer_trusted`."""
    kinds = dict(
        engine.rows(
            "select case when claimants = 0 then 'no customer record' when claimants > 1 and movers <> 1 "
            "then 'withheld' when owner is null then 'of an erased customer' when not consents then 'no consent' "
            "when not curated then 'owner not curated' when not in_time then 'before consent' "
            "else 'delivered again' end as kind, sum(case when due then landed - 1 else landed end) "
            "from steps where landed > 0 group by kind"
        )
    )
    [(landed, found)] = engine.rows("select coalesce(sum(landed), 0), coalesce(sum(found), 0) from steps")
    reasons = (
        *("no customer record", "withheld", "of an erased customer", "no consent", "owner not curated"),
        *("before consent", "delivered again"),
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
    [(due,)] = engine.rows("select count(*) from steps where due")
    [(partnered,)] = engine.rows(
        "select count(*) from steps where due and "
        "(owner, moment) in (select person, moment from motions where in_time and landed > 0)"
    )
    found = _found(engine, "machine_learning_curated", "consents")
    [(wanted,)] = engine.rows(f"select {found} + coalesce(sum(wanted - found), 0) from unequal")
    return Reconciliation(
        "machine_learning_curated",
        (
            ("step_trainer_trusted", due),
            ("no accelerometer reading at that moment", partnered - due),
            ("further accelerometer readings at that moment", int(wanted) - partnered),
            ("training rows", found),
        ),
    )


def _found(engine: Engine, name: str, which: str) -> int:
    [(rows,)] = engine.rows(
        f"select count(*) from {name} as t join known as k on t.customer_id = k.customer_id where {which}"
    )
    return int(rows)
