"""The expected content of a release, computed a second time for its proof: people, moments and labels.

People by the relations of the audit's proof, from addresses straight to subject ids; moments from the trusted
readings; labels from the rows of their file. Nothing here is shared with what chose the people, made the rows or
labelled them.
"""

from __future__ import annotations

from collections.abc import Callable

from stedi.audit.proof import as_of, expected
from stedi.catalog import Catalog
from stedi.datasets.labels import LabelFile
from stedi.datasets.options import Options
from stedi.engines.duckdb import DuckDB
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema.contracts import INSTANT_BEGIN


class Allowed:
    """The people who may be in a release: the relation `allowed` of a session, from the current landed records.

    Args:
        engine: The session.
        catalog: The lake's tables; what is landed by now counts.
        key: The lake's key.
        identifier: What gives the subject id of a person's mark.
        now: The clock, epoch milliseconds.
        since_consent: Whether readings from before consent are left out (rule 4).
    """

    def __init__(
        self,
        engine: DuckDB,
        catalog: Catalog,
        key: Key,
        identifier: Callable[[str], str],
        *,
        now: int,
        since_consent: bool,
    ) -> None:
        self._catalog, self._identifier = catalog, identifier
        self.key, self.now, self.since_consent = key, now, since_consent
        self._judge(engine)

    def renew(self, engine: DuckDB) -> None:
        """Decides again if more records have landed since."""
        # people are judged while rows are made; only a landing or withdrawal meanwhile makes that old
        if self._heads() != self._judged:
            self._judge(engine)

    def _heads(self) -> list[int | None]:
        names = ("customers_landing", "accelerometer_landing")
        states = (self._catalog.table(name).current for name in names)
        return [state.id if state else None for state in states]

    def _judge(self, engine: DuckDB) -> None:
        # before the tables are read: a landing in between is seen as a change, never missed
        self._judged = self._heads()
        states = self._catalog.tables()
        for name in ("customers_landing", "accelerometer_landing"):
            # every landed record, also those that no build has seen
            engine.bind_files(name, self._catalog.files(states[name]))
        expected.customers(engine, self.key, as_of.AsOf({}, self.now, self.since_consent))
        people = engine.rows("select person, min(address) from persons group by person")
        marks = tombstones.persons(self.key, (address for _, address in people))
        engine.insert_rows(
            "identified",
            {"person": "bigint", "subject": "varchar"},
            ((person, self._identifier(mark)) for (person, _), mark in zip(people, marks, strict=True)),
        )
        engine.materialize(
            "allowed",
            "select c.person, c.customer_id, c.consents, c.shareWithResearchAsOfDate as since, "
            "c.shareWithPublicAsOfDate as shared, coalesce(c.shareWithPublicAsOfDate between "
            f"{INSTANT_BEGIN} and {self.now}, false) as public, i.subject "
            "from current as c join identified as i on c.person = i.person",
        )


def moments(options: Options) -> str:
    """Returns the SELECT of the moments of the people in `compared`: person, customer_id, since.

    Gives person, ms, distance, dt, n (vectors) and their mean x, y, z with the `largest` of them, or lists of all. Two
    devices may give a person two of one instant; what is paired with them is the same.
    """
    whose = "join compared as c on r.customer_id = c.customer_id where"
    steps = (
        "select c.person, epoch_ms(r.sensorReadingTime) as ms, r.distanceFromObject as distance from "
        f"step_trainer_trusted as r {whose} epoch_ms(r.sensorReadingTime) >= c.since"
    )
    names = ["x", "y", "z", "n"]
    of = ", ".join(f"list(r.{axis} order by r.x, r.y, r.z) as {axis}" for axis in "xyz")
    if options.vectors == "mean":
        names.append("largest")
        of = "avg(r.x) as x, avg(r.y) as y, avg(r.z) as z, max(greatest(abs(r.x), abs(r.y), abs(r.z))) as largest"
    vectors = (
        f'select c.person, epoch_ms(r."timestamp") as ms, {of}, count(*) as n from accelerometer_trusted as r '
        f'{whose} epoch_ms(r."timestamp") >= c.since group by all'
    )
    if options.match == "exact":
        shown = ", ".join(f"v.{name}" for name in names)
        return f"select s.*, {shown}, 0 as dt from ({steps}) as s join ({vectors}) as v using (person, ms)"
    before = "asof left join v as b on s.person = b.person and s.ms >= b.ms"
    chosen = "b"
    if options.match == "nearest":
        before += " asof left join v as a on s.person = a.person and s.ms <= a.ms"
        chosen = "case when a.ms is null or s.ms - b.ms <= a.ms - s.ms then b else a end"
    shown = ", ".join(f"m.near.{name} as {name}" for name in names)
    return (
        f"with v as materialized ({vectors}), m as (select s.*, {chosen} as near from ({steps}) as s {before}) "
        f"select m.person, m.ms, m.distance, {shown}, m.ms - m.near.ms as dt from m "
        f"where abs(m.ms - m.near.ms) <= {options.tolerance}"
    )


def labels(engine: DuckDB, spoken: LabelFile, customer_id: Callable[[str], str]) -> None:
    """Makes the relations of the labels of those in `allowed`.

    `instants_due` has person, ms, label; `spans_due` has person, starts, ends, label, no two of a person overlapping.

    Args:
        engine: The session of `Allowed`; `step_trainer_trusted` is bound.
        spoken: The rows of the file.
        customer_id: The pseudonym of an address.
    """
    named = {"email": customer_id}
    engine.insert_rows(
        "labels_read",
        {"serial": "boolean", "who": "varchar", "starts": "bigint", "ends": "bigint", "label": "varchar"},
        (
            (row.named == "serialNumber", named.get(row.named, str)(row.person), row.start, row.end, row.label)
            for row in spoken.labels
        ),
    )
    engine.materialize(
        "labels_of",
        "select a.person, l.starts, l.ends, l.label from labels_read as l left join (select serialNumber, "
        "min(customer_id) as customer_id from step_trainer_trusted where serialNumber in (select who from "
        "labels_read where serial) group by serialNumber having count(distinct customer_id) = 1) as d "
        "on l.serial and l.who = d.serialNumber join allowed as a on "
        "a.customer_id = case when l.serial then d.customer_id else l.who end",
    )
    engine.materialize("instants_due", "select distinct person, starts as ms, label from labels_of where ends is null")
    # between two bounds the same spans hold: of these the one that started last, of these the first as text
    engine.materialize(
        "spans_due",
        "select p.person, p.starts, p.ends, first(l.label order by l.starts desc, l.label) as label from (select "
        "person, bound as starts, lead(bound) over (partition by person order by bound) as ends from (select distinct "
        "person, unnest([starts, ends]) as bound from labels_of where ends is not null)) as p join labels_of as l "
        "on p.person = l.person and l.starts <= p.starts and l.ends >= p.ends group by p.person, p.starts, p.ends",
    )


def labels_of_moments(source: str, spoken: LabelFile) -> str:
    """Returns the SELECT of what labels moments must have: person, ms, label, events.

    Args:
        source: A relation with `person` and `ms`.
        spoken: The labels; an instant belongs to the moment that is nearest, the earlier one of two.
    """
    once = f"select distinct person, ms from {source}"
    # a moment has what lies after the middle between the one before and it, up to the middle between it and the next
    near = (
        "select m.person, m.ms, count(*) as events, min(i.label) as label from instants_due as i asof join (select "
        # both sides doubled, so that the middle of two instants stays an integer; the first moment takes all before it
        f"person, ms, coalesce(lag(ms) over (partition by person order by ms) + ms, -1) as middle from ({once})) as m "
        "on i.person = m.person and 2 * i.ms > m.middle group by m.person, m.ms"
    )
    spanned = any(row.end is not None for row in spoken.labels)
    # the span that began last may have ended before the moment
    label = "case when m.ms < s.ends then s.label end" if spanned else "i.label"
    return (
        f"select m.person, m.ms, {label} as label, coalesce(i.events, 0) as events from ({once}) as m asof left join "
        f"spans_due as s on m.person = s.person and m.ms >= s.starts left join ({near}) as i on m.person = i.person "
        "and m.ms = i.ms"
    )


def labels_of_windows(source: str, window: int, spoken: LabelFile) -> str:
    """Returns the SELECT of what labels windows must have: person, ms (their start), label, events.

    Args:
        source: A relation with `person` and `ms`.
        window: Their length, milliseconds.
        spoken: The labels; of windows that which holds longest, if it holds longer than none does.
    """
    once = f"select distinct person, ms from {source}"
    instants = f"({once}) as w join instants_due as i on w.person = i.person and i.ms - w.ms between 0 and {window - 1}"
    lasts = f"least(s.ends, w.ms + {window}) - greatest(s.starts, w.ms)"
    if any(row.end is not None for row in spoken.labels):
        held = (
            f"select w.person, w.ms, s.label, sum({lasts}) as held from ({once}) as w join spans_due as s on "
            f"w.person = s.person and {lasts} > 0 group by all"
        )
        enough = f"max(held) >= {window} - sum(held)"
    else:
        held, enough = f"select w.person, w.ms, i.label, count(*) as held from {instants} group by all", "true"
    chosen = (
        f"select person, ms, case when {enough} then first(label order by held desc, label) end as label from ({held}) "
        "group by person, ms"
    )
    events = f"select w.person, w.ms, list((i.ms - w.ms)::integer order by i.ms) as events from {instants} group by all"
    return (
        f"select w.person, w.ms, l.label, coalesce(e.events, []) as events from ({once}) as w "
        f"left join ({chosen}) as l using (person, ms) left join ({events}) as e using (person, ms)"
    )
