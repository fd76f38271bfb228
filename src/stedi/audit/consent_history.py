"""Consent over time: how many customers were known and consented at the end of each day, week or month.

Rules 1 to 3 are applied to every moment up to now, from the landed records alone. The order of arrival does not
matter, and withdrawals by command are records like any other. A record counts from its `lastUpdateDate` on. A record
with consent counts from its consent date, but does not override a later refusal. A record from the future takes
consent away as of now, and gives none. So the last period shows which customers a build would put into
`customers_trusted` now. Erased customers have no records: only `erased` counts them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Literal, get_args

from stedi._frozen import dataclass
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.errors import UsageError
from stedi.privacy import receipts
from stedi.schema.contracts import INSTANT_BEGIN
from stedi.schema.feeds import CUSTOMER

By = Literal["day", "week", "month"]
"""The length of a period; weeks begin on Monday (ISO 8601), everything in UTC."""


@dataclass(frozen=True, slots=True)
class Period:
    """One day, week or month; in a report, as many months as are needed so that no count of people is small.

    Attributes:
        start: Its first day, UTC.
        last: The first day of its last day, week or month: `start`, except in a report.
        known: Customers with a landed record at its end, or now for the last period.
        consenting: The known customers who consented to research at that time.
        joined: The number of consents given in it.
        rejoined: The number of those consents that came from a customer who had withdrawn before.
        withdrew: The number of withdrawals in it.
        erased: Known customers who were erased in it for the first time; no other count still includes them.
    """

    start: date
    last: date
    known: int
    consenting: int
    joined: int
    rejoined: int
    withdrew: int
    erased: int

    @property
    def quiet(self) -> bool:
        """Whether nobody joined, withdrew or was erased in it."""
        return not (self.joined or self.withdrew or self.erased)


@dataclass(frozen=True, slots=True)
class ConsentHistory:
    """Consent over time.

    Attributes:
        by: The length of the periods.
        now: The end of the last period, UTC.
        periods: All periods from the first event to now, oldest first; `consenting` equals the value of the previous
            period plus `joined` minus `withdrew`.
    """

    by: By
    now: datetime
    periods: tuple[Period, ...]


_WHO = "erased", "known", "joined", "rejoined", "withdrew"
_LAST = 9_223_372_036_854_775_807
"""The end of a consent that has not ended, as an instant."""


def history(context: Context, by: By, now: int) -> ConsentHistory:
    """Returns consent over time; needs no key and changes nothing.

    Args:
        context: The lake.
        by: The length of a period.
        now: The end of the history, epoch milliseconds.

    Raises:
        UsageError: `by` is not a known length.
    """
    if by not in get_args(By):
        raise UsageError(f"expected one of {', '.join(get_args(By))}, found {by!r}", argument="by")
    counts: dict[date, dict[str, int]] = defaultdict(lambda: dict.fromkeys(_WHO, 0))
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        engine.bind_files(CUSTOMER.table, context.catalog.files(context.catalog.table(CUSTOMER.table)))
        _agreements(engine, now)
        for what, day, count in engine.rows(_EVENTS.format(by=by, now=now)):
            counts[day][what] += count
    for at, count in _erasures(context.root, now):
        counts[_start(at.date(), by)]["erased"] += count
    moment = datetime.fromtimestamp(now / 1000, UTC)
    return ConsentHistory(by, moment, tuple(_periods(counts, by, moment.date())))


def _agreements(engine: DuckDB, now: int) -> None:
    """Creates `first_known` (customer, moment) and `agreements` (customer, turn, since, until), epoch milliseconds.

    An agreement is an unbroken period of consent; `turn` numbers the agreements of one customer.
    """
    engine.normal_forms("addresses", f"select email as address from {CUSTOMER.table}")
    # among records with the same update time, a refusal wins, else the latest date (rule 2); dates after now refuse
    agrees = f"c.lastUpdateDate <= {now} and c.shareWithResearchAsOfDate >= {INSTANT_BEGIN}"
    engine.materialize(
        "said",
        # a record from the future speaks as of now: it can only refuse, see `agrees`
        f"select a.normal as customer, least(c.lastUpdateDate, {now}) as moment, "
        f"case when bool_and(coalesce({agrees}, false)) then max(c.shareWithResearchAsOfDate) end as since, "
        f"least(min(c.registrationDate), min(c.lastUpdateDate), {now}) as registered "
        f"from {CUSTOMER.table} as c inner join addresses as a on c.email = a.address group by all",
    )
    engine.materialize(
        "agreements",
        "with following as (select customer, moment, since, lag(moment) over w as before, "
        f"coalesce(lead(moment) over w, {_LAST}) as until from said "
        "window w as (partition by customer order by moment)), "
        # a consent date before the last refusal or the last change had no effect at that time
        "each as (select customer, moment, until, "
        "case when before is null or since > before then since else moment end as since "
        "from following where since is not null), lasting as (select *, max(until) over w as reached "
        f"from each where since < until and since <= {now} "
        "window w as (partition by customer order by moment rows between unbounded preceding and 1 preceding)), "
        # a consent that begins when an earlier one still lasts, or ends, continues it
        "apart as (select *, sum(case when since <= reached then 0 else 1 end) over "
        "(partition by customer order by moment) as turn from lasting) "
        "select customer, turn, min(since) as since, max(until) as until from apart group by all",
    )
    engine.materialize(
        "first_known",
        "select customer, least(min(s.registered), min(a.since)) as moment "
        "from said as s left join agreements as a using (customer) group by customer",
    )


_EVENTS = """
select what, date_trunc('{by}', make_timestamp(moment * 1000))::date as start, count(*) from (
    select 'known' as what, moment from first_known
    union all select 'joined', since from agreements
    union all select 'rejoined', since from agreements where turn > 1
    union all select 'withdrew', until from agreements where until <= {now}
) group by all
"""


def _erasures(root: Path, now: int) -> Iterable[tuple[datetime, int]]:
    """Yields the end of each erasure, and the number of known people that it erased and no erasure before it."""
    found = []
    for receipt in receipts.listed(root):
        try:
            at = datetime.fromisoformat(receipt["ended"]).astimezone(UTC)
            found.append((at, {*map(str, receipt["people"])}.difference(receipt.get("unknown", ()))))
        except (KeyError, TypeError, ValueError):  # not a receipt: the audit reports it
            continue
    counted = set[str]()
    for at, marks in sorted(found, key=lambda each: each[0]):
        # a request that was repeated, and a journal that was replayed, name the same people again
        if at.timestamp() * 1000 <= now:
            yield at, len(marks - counted)
            counted |= marks


def _periods(counts: Mapping[date, Mapping[str, int]], by: By, today: date) -> Iterable[Period]:
    if not counts:
        return
    known = consenting = 0
    start, none = min(counts), dict.fromkeys(_WHO, 0)
    while start <= today:
        found = counts.get(start, none)
        known += found["known"]
        consenting += found["joined"] - found["withdrew"]
        more = (found[name] for name in ("joined", "rejoined", "withdrew", "erased"))
        yield Period(start, start, known, consenting, *more)
        # 31 days after the first of a month lie in the next one, whatever its length
        start = _start(start + timedelta({"day": 1, "week": 7, "month": 31}[by]), by)


def _start(day: date, by: By) -> date:
    if by == "week":
        return day - timedelta(day.weekday())
    return day.replace(day=1) if by == "month" else day
