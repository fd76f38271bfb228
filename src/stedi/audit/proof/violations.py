"""The violations: bad rows below landing, each counted once, under the first rule that it breaks.

Each counting function counts the violations of one table, with the relations of `expected`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from stedi.audit.proof.expected import normal
from stedi.engines import Engine
from stedi.engines.literals import quoted
from stedi.schema.tables import COLUMNS, DataFile

Counts = dict[str, int]
"""The number of violations, by the name of the check."""

CUSTOMERS = ("customers_trusted", "customers_curated")
OPTIONAL = frozenset({"customerName", "phone", "birthDay", "shareWithPublicAsOfDate", "shareWithFriendsAsOfDate"})
_INSTANTS = (
    "registrationDate",
    "lastUpdateDate",
    "shareWithResearchAsOfDate",
    "shareWithPublicAsOfDate",
    "shareWithFriendsAsOfDate",
)
_TEXTS = ("customerName", "email", "phone", "birthDay", "serialNumber")
_NAMING = ("customerName", "phone", "birthDay")
"""The columns besides the address that identify a person directly."""
_ADDRESS = re.compile(r"[^\t\n\f\r @]@[^\t\n\f\r @]+\.[^\t\n\f\r @]")
"""A text that has the form of an address in it, also beside other words."""
_PSEUDONYM = "[0-9a-f]{32}"


def tally(engine: Engine, name: str, sums: str = "") -> None:
    """Counts the rows of each `customer_id` of a table, and reads the table only once.

    Creates `rows_of_<table>`: customer_id; n: rows; filled: the number of values in columns that may not be null.

    Args:
        engine: A session with the table bound.
        name: The table.
        sums: The SQL of further columns, which are aggregates of the same rows.
    """
    further = f", {sums}" if sums else ""
    engine.materialize(
        f"rows_of_{name}",
        f"select customer_id, count(*) as n, {filled(name)} as filled{further} from {name} group by customer_id",
    )


def filled(name: str) -> str:
    """Returns the SQL of the number of values in those columns of a table that may not be null."""
    return " + ".join(f"count({quoted(c.name)})" for c in COLUMNS[name] if c.name not in OPTIONAL)


def people(engine: Engine, name: str, *, tallied: bool = False) -> Counts:
    """Counts the nulls, the rows with an unknown pseudonym, and the rows of customers without consent in one table.

    Args:
        engine: A session with `known`.
        name: The table.
        tallied: Whether `rows_of_<table>` exists already.
    """
    if not tallied:
        tally(engine, name)
    [(values, strangers, others)] = engine.rows(
        "select coalesce(sum(n * {} - filled), 0), coalesce(sum(n) filter (where r.customer_id is not null and "
        "k.person is null), 0), coalesce(sum(n) filter (where k.person is not null and not k.consents), 0) "
        "from {} as r left join known as k on r.customer_id = k.customer_id".format(
            sum(column.name not in OPTIONAL for column in COLUMNS[name]), f"rows_of_{name}"
        )
    )
    return {"nulls": int(values), "pseudonyms": int(strangers), "consent": int(others)}


def keys(engine: Engine) -> int:
    """Counts persons with several pseudonyms, and pseudonyms that several persons share."""
    [(several, shared)] = engine.rows(
        "select (select count(*) from (select person from persons group by person "
        "having count(distinct customer_id) > 1)), (select count(*) from (select customer_id from persons "
        "group by customer_id having count(distinct person) > 1))"
    )
    return int(several) + int(shared)


def compare(engine: Engine, name: str) -> None:
    """Creates `compared`: for each consenting customer, whether a table should have a row, and the rows that it has.

    Columns: person, wanted; found: the number of rows; other: the number of rows that differ from the current record.
    """
    differs = " or ".join(
        [
            *(f"t.{column} is distinct from c.{column}" for column in _TEXTS),
            *(f"epoch_us(t.{column}) is distinct from c.{column} * 1000" for column in _INSTANTS),
        ]
    )
    wanted = "r.person is not null" if name == "customers_curated" else "true"
    engine.materialize(
        "compared",
        f"select c.person, {wanted} as wanted, count(t.customer_id) as found, count(*) filter (where "
        f"t.customer_id is not null and ({differs})) as other from current as c left join curated as r "
        f"on c.person = r.person left join {name} as t on c.customer_id = t.customer_id where c.consents group by all",
    )


def customers(engine: Engine, name: str) -> Counts:
    """Counts customers with several rows, with a record that is not current, without readings, or without a row."""
    compare(engine, name)
    [(twice, other, idle, missing)] = engine.rows(
        "select coalesce(sum(found - 1) filter (where wanted and found > 1), 0), "
        "coalesce(sum(other) filter (where wanted), 0), coalesce(sum(found) filter (where not wanted), 0), "
        "count(*) filter (where wanted and found = 0) from compared"
    )
    counts = {"one row": int(twice), "current record": int(other), "conservation": int(missing)}
    return counts if name == CUSTOMERS[0] else {**counts, "curated": int(idle)}


def motions(engine: Engine) -> Counts:
    """Counts accelerometer readings that never landed, are too early, are duplicated, or are missing."""
    [(foreign, early, twice, missing)] = engine.rows(
        "select coalesce(sum(found) filter (where landed = 0), 0), "
        "coalesce(sum(found) filter (where landed > 0 and not in_time), 0), "
        "coalesce(sum(found - 1) filter (where landed > 0 and in_time and found > 1), 0), "
        "count(*) filter (where landed > 0 and in_time and found = 0) from motions"
    )
    return {
        "landed": int(foreign),
        "before consent": int(early),
        "distinct": int(twice),
        "conservation": int(missing),
    }


def steps(engine: Engine) -> Counts:
    """Counts step trainer readings that never landed, must be withheld, have another owner, or are otherwise wrong."""
    kinds = dict(
        engine.rows(
            # of a reading under several people the owner's row is right, and the others are wrong
            "select kind, sum(case when kind = 'distinct' or (kind = 'owner' and owner in (low, high)) then found - 1 "
            "else found end) from (select found, owner, low, high, "
            "case when landed = 0 then 'landed' when claimants > 1 and movers <> 1 then 'withheld' "
            "when low <> high or low is distinct from owner then 'owner' when not curated then 'curated' "
            "when not in_time then 'before consent' else 'distinct' end as kind from steps where found > 0) "
            "group by kind"
        )
    )
    [(missing,)] = engine.rows("select count(*) from steps where due and found = 0")
    names = ("landed", "withheld", "owner", "curated", "before consent", "distinct")
    return {**{name: int(kinds.get(name, 0)) for name in names}, "conservation": int(missing)}


def training(engine: Engine) -> Counts:
    """Counts training rows that mix two people, are too early, occur too often, or are missing.

    A row belongs to one person if the customer owns a landed step reading with this distance, and a landed
    accelerometer reading with these values, both at exactly this moment.
    """
    # only of rows that differ is it asked why
    engine.materialize(
        "unequal",
        "select person, moment, distance, x, y, z, sum(e) as wanted, sum(f) as found from (select s.person, "
        "s.moment, s.distance, m.x, m.y, m.z, 1 as e, 0 as f from due_steps as s join counted_motions as m "
        "on s.person = m.person and s.moment = m.moment where s.person in (select person from odd_training) union all "
        "select k.person, epoch_us(t.sensorReadingTime), t.distanceFromObject, t.x + 0, t.y + 0, t.z + 0, 0, 1 "
        "from machine_learning_curated as t join known as k on t.customer_id = k.customer_id and k.consents "
        "and k.person in (select person from odd_training) "
        "where t.sensorReadingTime is not null and t.distanceFromObject is not null and t.x is not null "
        "and t.y is not null and t.z is not null) group by all having wanted <> found",
    )
    engine.materialize(
        "stepped",
        "select distinct u.person, u.moment, u.distance from unequal as u join steps as s "
        "on u.person = s.owner and u.moment = s.moment and u.distance = s.distance where s.landed > 0",
    )
    engine.materialize(
        "moving",
        "select distinct u.person, u.moment, u.x, u.y, u.z from unequal as u join motions as m on u.person = m.person "
        "and u.moment = m.moment and u.x = m.x and u.y = m.y and u.z = m.z where m.landed > 0",
    )
    engine.materialize(
        "judged",
        "select u.wanted, u.found, s.person is not null as stepped, m.person is not null as moved from unequal as u "
        "left join stepped as s on u.person = s.person and u.moment = s.moment and u.distance = s.distance "
        "left join moving as m on u.person = m.person and u.moment = m.moment and u.x = m.x and u.y = m.y "
        "and u.z = m.z",
    )
    [(mixed, early, twice, missing)] = engine.rows(
        # in the order of rules: a row that mixes two people is not counted under another one as well
        "select coalesce(sum(found) filter (where not (stepped and moved)), 0), "
        "coalesce(sum(found) filter (where stepped and moved and wanted = 0), 0), "
        "coalesce(sum(found - wanted) filter (where found > wanted and wanted > 0), 0), "
        "coalesce(sum(wanted - found) filter (where found < wanted), 0) from judged"
    )
    return {
        "one person": int(mixed),
        "before consent": int(early),
        "distinct": int(twice),
        "conservation": int(missing),
    }


def search(engine: Engine, name: str, files: Iterable[DataFile]) -> None:
    """Creates `texts_in_<table>`: the texts in its files, with `normal`, and `addresses`: whether it looks like one.

    Args:
        engine: The session.
        name: The table.
        files: Its files; every text column in them is searched, even one that the schema does not have.
    """
    # every row has a pseudonym, which `people` judges; without it, few texts remain to be searched
    engine.text_values("texts", files, but=_PSEUDONYM)
    columns = {"normal": "varchar", "addresses": "boolean"}
    engine.map_rows(f"texts_in_{name}", "select field, value, n from texts", columns, _looked_at)


def identifiers(engine: Engine, name: str) -> int:
    """Counts rows of a searched table of readings in which a text is a landed identifier or looks like an address."""
    # this column holds serial numbers; a serial number there is right even if a customer typed the same text elsewhere
    spared = "field = 'serialNumber'" if name == "step_trainer_trusted" else "false"
    [(rows,)] = engine.rows(
        f"select coalesce(sum(n), 0) from texts_in_{name} where addresses or normal in (select normal from identifying "
        f"where not device) or (not ({spared}) and normal in (select normal from identifying where device))"
    )
    return int(rows)


def identifying(engine: Engine) -> None:
    """Creates `identifying`: the normal form of every landed address, name, phone number, birthday and serial number.

    `device` is true for serial numbers, even if the same text is something else as well.
    """
    of_people = [f"select {part} as text, false as device from customers_landing" for part in _NAMING]
    of_devices = [f"select serialNumber, true from {feed}" for feed in ("customers_landing", "step_trainer_landing")]
    every = " union all ".join([*of_people, *of_devices])
    each = f"select text, bool_or(device) as device from ({every}) where text is not null group by text"
    engine.map_rows("named", each, {"normal": "varchar"}, _named)
    engine.materialize(
        "identifying",
        # an empty text identifies nobody, and would be found in every row
        "select normal, bool_or(device) as device from (select normal, device from named union all "
        "select normal, false from addresses) where normal <> '' group by normal",
    )


def _looked_at(field: str, value: str, n: int) -> tuple[str, bool]:
    return normal(value), _ADDRESS.search(value) is not None


def _named(text: str, device: bool) -> tuple[str]:
    return (normal(text),)
