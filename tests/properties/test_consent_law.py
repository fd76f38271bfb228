"""Consent over time, against rules 1 to 3 said once more: at any moment, who agreed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import oracle
import worlds
from lakes import Slate, build, contents

DAY = 86_400_000
FIRST = worlds.BASE - worlds.BASE % DAY
NOW = FIRST + 6 * DAY + 5


def spread(record: Mapping[str, object]) -> dict[str, object]:
    """A record whose instants are as many days apart as a world's are milliseconds."""

    def later(value: object) -> object:
        return FIRST + (value - worlds.BASE) * DAY if type(value) is int and 0 < value - worlds.BASE < 100 else value

    return {name: later(value) for name, value in record.items()}


def agreed(said: Sequence[tuple[int, int | None]], moment: int, now: int) -> bool:
    """Whether one customer agreed at a moment, by their words up to `now`: when each was said, and the date in it.

    By the last word before the moment; or by the next one, if it says that the customer had agreed by then, and since
    the last. A word from the future refuses as of now.
    """
    heard: dict[int, int | None] = {}
    for update, since in said:
        at, since = (now, None) if update > now else (update, since)
        known = heard.get(at, since)
        heard[at] = None if known is None or since is None else max(known, since)
    last = max((at for at in heard if at <= moment), default=None)
    coming = min((at for at in heard if at > moment), default=None)
    by_last = last is not None and (since := heard[last]) is not None and since <= moment
    by_next = coming is not None and (since := heard[coming]) is not None and (last or 0) < since <= moment
    return by_last or by_next


@settings(max_examples=6, suppress_health_check=[HealthCheck.too_slow])
@given(world=worlds.worlds(people=10, readings=0), seed=st.integers(0, 2**32 - 1))
def test_consent_at_the_end_of_each_day_is_what_the_rules_say(
    world: dict[str, list[dict[str, object]]], seed: int, slate: Slate
) -> None:
    lake = slate.wiped()
    world = {feed: [spread(record) for record in delivered] for feed, delivered in world.items()}
    lake.land(*worlds.write_world(world, slate.inbox(), Random(seed)))
    build(lake, NOW)
    of: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for record in map(oracle._as_landed, world["customer"]):
        update, since = record["lastUpdateDate"], record[oracle.CONSENTS[0]]
        assert isinstance(update, int)
        assert since is None or isinstance(since, int)
        of[lake.key().customer_id(str(record["email"]))].append((update, since))

    found = lake.consent("day", now=datetime.fromtimestamp(NOW / 1000, UTC)).periods
    assert [period.start for period in found] == [
        datetime.fromtimestamp(NOW / 1000, UTC).date() - timedelta(days) for days in reversed(range(len(found)))
    ]
    before = 0
    for period in found:
        end = min(NOW, int(datetime(*period.start.timetuple()[:3], tzinfo=UTC).timestamp() * 1000) + DAY - 1)
        assert period.consenting == sum(agreed(said, end, NOW) for said in of.values()), (seed, period)
        assert period.consenting == before + period.joined - period.withdrew
        assert period.rejoined <= period.joined
        assert period.consenting <= period.known
        before = period.consenting
    assert before == sum(contents(lake)["customers_trusted"].values()), seed
    assert (found[-1].known if found else 0) == len(of)
