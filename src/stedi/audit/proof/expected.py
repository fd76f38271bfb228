"""The expected rows: rules 1 to 6 computed from the landed records. Customers, consent, owners of readings.

Everything is computed from the three landing tables by this module's own queries. Moments are epoch microseconds, so
that a row that is off by less than a millisecond is found. A `person` is a number that stands for a customer in this
session. Functions given to `map_rows`, and the values that they hold, may be sent to other machines.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, date, datetime

from stedi._frozen import dataclass
from stedi.audit.proof.as_of import AsOf
from stedi.engines import Engine
from stedi.privacy.pseudonyms import Key
from stedi.schema.contracts import has_unseen

Claimants = Callable[[str], int]
"""Returns the number of claimants of a serial number who are not customers of landing; they own no readings."""

_FIRST_INSTANT = int(datetime(2000, 1, 1, tzinfo=UTC).timestamp()) * 1000
"""Rule 3: a smaller number is no instant. Seconds in the place of milliseconds would be in 1970."""
_BIRTHDAY = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")

_RANKED = {
    "shareWithResearchAsOfDate": "0",
    "registrationDate": "0",
    "serialNumber": "''",
    "customerName": "''",
    "phone": "''",
    "birthDay": "''",
    "email": "''",
    "shareWithPublicAsOfDate": "0",
    "shareWithFriendsAsOfDate": "0",
}
"""Rule 2, after the last update and after "a refusal wins": the fields that decide, in this order, each with the value
that replaces a missing one and sorts lowest. The last three decide where the rule leaves a choice."""


def normal(address: str) -> str:
    """Returns the normal form of an address, the same for all spellings of one customer's address (rule 1)."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", address.strip()).casefold())


def born(text: str) -> date | None:
    """Returns the date of a birthday, or None if the text is not a date."""
    try:
        return date.fromisoformat(text) if _BIRTHDAY.fullmatch(text) else None
    except ValueError:
        return None


def customers(engine: Engine, key: Key, base: AsOf) -> None:
    """Computes rules 1 to 3 over the bound landing tables.

    Creates `senders` (address, n: accelerometer readings landed under it), `addresses` (with `normal`, its normal
    form), `persons` (address, person, customer_id, unseen), `known` (person, customer_id, consents, customer, since:
    one row for each person with a landed address) and `current` (the current record of each customer, as the tables
    below landing must have it).
    """
    engine.materialize("senders", 'select "user" as address, count(*) as n from accelerometer_landing group by "user"')
    engine.map_rows(
        "addresses",
        "select email as address from customers_landing union select address from senders",
        {"normal": "varchar", "customer_id": "varchar", "unseen": "boolean"},
        _Identity(key),
    )
    # numbered by the normal form, not by the pseudonym: `violations.keys` compares the two
    engine.materialize("persons", "select address, customer_id, unseen, number(normal) as person from addresses")
    engine.map_rows(
        "birthdays",
        # each text once: Python reads them, and many people share a birthday
        "select distinct birthDay as text from customers_landing where birthDay is not null",
        {"born": "date"},
        _born,
    )
    # what stood as the least value in the rank is null again
    shown = ", ".join(f"case when r.has_{name} then r.{name} end as {name}" for name in _RANKED if name != "birthDay")
    engine.materialize(
        "ranked",
        f"select p.person, max({rank(base)}) as r, count(*) as records "
        "from customers_landing as c join persons as p on c.email = p.address group by p.person",
    )
    engine.materialize(
        "current",
        f"select k.person, p.customer_id, k.records, not r.refuses as consents, r.updated as lastUpdateDate, {shown}, "
        "b.born as birthDay from ranked as k join (select distinct person, customer_id from persons) as p "
        "on k.person = p.person left join birthdays as b on case when r.has_birthDay then r.birthDay end = b.text",
    )
    engine.materialize(
        "known",
        "select p.person, p.customer_id, coalesce(c.consents, false) as consents, c.person is not null as customer, "
        "c.shareWithResearchAsOfDate * 1000 as since from (select distinct person, customer_id from persons) as p "
        "left join current as c on p.person = c.person",
    )


def rank(base: AsOf) -> str:
    """Returns the SQL of a value that is greatest for the current one of a customer's records `c` (rules 2 and 3)."""
    # a date of consent, or of a record, that is still to come is none yet
    in_force = f"c.shareWithResearchAsOfDate between {_FIRST_INSTANT} and {base.started}"
    agrees = f"coalesce({in_force} and not c.lastUpdateDate > {base.started}, false)"
    # structs compare field by field: the newest record, of equally new ones one that refuses, then any fixed order
    fields = [
        *("updated := c.lastUpdateDate", f"refuses := not {agrees}"),
        *(f"has_{n} := c.{n} is not null, {n} := coalesce(c.{n}, {least})" for n, least in _RANKED.items()),
    ]
    return f"struct_pack({', '.join(fields)})"


def unseen(engine: Engine) -> int:
    """Returns the number of customers whose address nobody can type: older versions landed such addresses."""
    [(people,)] = engine.rows(
        "select count(distinct p.person) from persons as p join current as c on p.person = c.person where p.unseen"
    )
    return int(people)


def motions(engine: Engine, base: AsOf, *, among: str = "") -> None:
    """Joins the landed and the trusted accelerometer readings of consenting customers.

    Creates `motions` (person, moment, x, y, z, in_time: rule 4; landed, found: how often the reading is in landing and
    in the trusted table). Without `among` it also creates `curated`, the persons with a reading that counts.

    Args:
        engine: A session with the relations of `customers`.
        base: The instant and the policy.
        among: A relation of the persons whose readings are compared; all persons by default.
    """
    who = f"k.consents and k.person in (select person from {among})" if among else "k.consents"
    in_time = f"moment >= since or not {base.since_consent}"
    # readings that differ only in the sign of a zero are equal, and either may be published
    engine.materialize(
        "motions",
        f"select person, moment, x, y, z, {in_time} as in_time, sum(l)::integer as landed, sum(f)::integer as found "
        'from (select p.person, k.since, a."timestamp" * 1000 as moment, a.x + 0 as x, a.y + 0 as y, a.z + 0 as z, '
        '1 as l, 0 as f from accelerometer_landing as a join persons as p on a."user" = p.address '
        f"join known as k on p.person = k.person and {who} union all "
        'select k.person, k.since, epoch_us(t."timestamp"), t.x + 0, t.y + 0, t.z + 0, 0, 1 '
        f"from accelerometer_trusted as t join known as k on t.customer_id = k.customer_id and {who} "
        'where t."timestamp" is not null and t.x is not null and t.y is not null and t.z is not null) '
        "group by all",
    )
    if not among:
        engine.materialize("curated", "select distinct person from motions where in_time and landed > 0")


def devices(engine: Engine, further: Claimants) -> None:
    """Computes who claims which device (rule 6).

    Creates `devices` (serialNumber, serial, further), `claims` (serial, person) and `claimed` (serial, claimants, sole:
    the only claimant).
    """
    engine.map_rows(
        "serials",
        "select serialNumber from customers_landing where serialNumber is not null union select serialNumber from "
        "step_trainer_landing union select serialNumber from step_trainer_trusted where serialNumber is not null",
        {"further": "bigint"},
        _FurtherClaimants(further),
    )
    engine.materialize("devices", "select serialNumber, further, number(serialNumber) as serial from serials")
    engine.materialize(
        "claims",
        "select distinct d.serial, p.person from customers_landing as c join persons as p on c.email = p.address "
        "join devices as d on c.serialNumber = d.serialNumber",
    )
    engine.materialize(
        "claimed",
        # an erased claimant counts, and makes nobody the only one
        "select d.serial, count(c.person) + max(d.further) as claimants, "
        "case when count(c.person) = 1 and max(d.further) = 0 then min(c.person) end as sole "
        "from devices as d left join claims as c on d.serial = c.serial group by d.serial",
    )


def steps(engine: Engine, base: AsOf, *, among: str = "devices") -> None:
    """Joins the landed and the trusted step trainer readings, and computes the owner of each (rule 6).

    Creates `steps`: serial, moment, distance; landed, found: how often the reading is in landing and in the trusted
    table; low, high: the lowest and the highest person under whom it is found; claimants, movers, owner; consents,
    curated, in_time: of the owner; due: whether the rules put it into the trusted table.

    Args:
        engine: A session with the relations of `devices` and `curated`.
        base: The instant and the policy.
        among: A relation of the devices whose readings are compared, with the columns of `devices`.
    """
    engine.materialize(
        "delivered",
        "select serial, moment, distance, sum(l)::integer as landed, sum(f)::integer as found, min(person) as low, "
        # the same reading under two people has two ends here, and is one person's where both are equal
        "max(person) as high from (select d.serial, s.sensorReadingTime * 1000 as moment, s.distanceFromObject as "
        "distance, 1 as l, 0 as f, null as person from step_trainer_landing as s "
        f"join {among} as d on s.serialNumber = d.serialNumber "
        "union all select d.serial, epoch_us(t.sensorReadingTime), t.distanceFromObject, 0, 1, k.person "
        f"from step_trainer_trusted as t join {among} as d on t.serialNumber = d.serialNumber "
        "join known as k on t.customer_id = k.customer_id and k.consents "
        "where t.sensorReadingTime is not null and t.distanceFromObject is not null) group by all",
    )
    # who moved does not depend on consent
    engine.materialize(
        "moved",
        "select r.serial, r.moment, count(*) as movers, min(m.person) as mover from (select distinct d.serial, "
        "d.moment from delivered as d join claimed as c on d.serial = c.serial where c.claimants > 1) as r "
        "join claims as c on r.serial = c.serial "
        'join (select distinct p.person, a."timestamp" * 1000 as moment from accelerometer_landing as a '
        'join persons as p on a."user" = p.address where p.person in (select s.person from claims as s '
        "join claimed as d on s.serial = d.serial where d.claimants > 1)) as m "
        "on c.person = m.person and r.moment = m.moment group by r.serial, r.moment",
    )
    engine.materialize(
        "steps",
        "select s.*, s.curated and s.in_time and s.landed > 0 as due from (select d.*, c.claimants, "
        "coalesce(m.movers, 0) as movers, coalesce(k.consents, false) as consents, k.person as owner, "
        "coalesce(k.consents and k.curated, false) as curated, "
        f"coalesce(d.moment >= k.since, false) or not {base.since_consent} as in_time "
        "from delivered as d join claimed as c on d.serial = c.serial "
        "left join moved as m on d.serial = m.serial and d.moment = m.moment left join (select k.*, "
        "r.person is not null as curated from known as k left join curated as r on k.person = r.person) as k "
        "on k.person = case when c.claimants > 1 then case when m.movers = 1 then m.mover end else c.sole end) as s",
    )


@dataclass(frozen=True, slots=True)
class _Identity:
    """Maps an address to its normal form, its pseudonym, and whether it has an invisible character."""

    key: Key

    def __call__(self, address: str) -> tuple[str, str, bool]:
        return normal(address), self.key.customer_id(address), has_unseen(address)


@dataclass(frozen=True, slots=True)
class _FurtherClaimants:
    """Maps a serial number to the number of its further claimants."""

    claimants: Claimants

    def __call__(self, serial: str) -> tuple[int]:
        return (self.claimants(serial),)


def _born(text: str) -> tuple[date | None]:
    return (born(text),)
