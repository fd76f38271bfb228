"""The proof's relations, restricted to some customers and the people who share their devices.

Explanations and the proof compute the rules with the same queries, so that they cannot disagree. Neither shares a query
with the build. For people who share a device, the relations hold only what they claim and when they moved: nothing
here shows whether they consent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from stedi.audit.proof import expected
from stedi.audit.proof.as_of import BELOW, FEEDS, AsOf
from stedi.catalog import TableState
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, quoted
from stedi.privacy.pseudonyms import Key

FILES = (
    "(select sha256, arg_min(name, landed_at) as name, epoch_ms(min(landed_at)) as landed_at from landed_files "
    "group by sha256)"
)
"""Each landed file once, by its first name."""
FILE_NAME = "coalesce(f.name, 'a file that the ledger does not know')"
"""The SQL of the name of a file `f` of `FILES`."""


@contextmanager
def session(context: Context, states: Mapping[str, TableState]) -> Iterator[DuckDB]:
    """Yields an engine in which every table is readable, pinned to its current snapshot.

    The names of tables that hold customers' rows have the prefix `every_`: the names without it are for the relations
    that `work_out` creates.
    """
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        for name, state in states.items():
            named = f"every_{name}" if name in (*FEEDS, *BELOW) else name
            engine.bind_files(named, context.catalog.files(state), table=name)
        yield engine


def delivered(context: Context, wanted: Iterable[str]) -> frozenset[str]:
    """Returns the addresses among `wanted`, in normal form, under which a record or a reading has landed."""
    asked, states = frozenset(wanted), context.catalog.tables()
    with session(context, states) as engine:
        named = (
            *spelled(engine, "every_customers_landing", "email", asked),
            *spelled(engine, "every_accelerometer_landing", "user", asked),
        )
        return asked.intersection(map(expected.normal, named))


def called(context: Context, wanted: Iterable[str]) -> list[tuple[str, str]]:
    """Returns the names and phone numbers in the records of some addresses; a missing one is empty."""
    states = context.catalog.tables()
    with session(context, states) as engine:
        emails = listed(spelled(engine, "every_customers_landing", "email", wanted))
        return engine.rows(
            "select distinct coalesce(customerName, ''), coalesce(phone, '') from every_customers_landing "
            f"where email in ({emails})"
        )


def work_out(context: Context, engine: DuckDB, key: Key, customers: Mapping[str, str], base: AsOf) -> None:
    """Creates the relations of `expected` for some customers, their rows of the tables below landing, and `history`.

    `claims`, `motions`, `steps` and `customers_landing` also have rows of other people who share a device.
    `history` (person, updated, share, file, landed_at, place) has the current record first, in the order of rule 2.

    Args:
        context: The lake.
        engine: An engine from `session`.
        key: The lake's pseudonym key.
        customers: The pseudonyms of the customers, by the normal forms of their addresses.
        base: The instant and the policy.
    """
    emails = listed(spelled(engine, "every_customers_landing", "email", customers.keys()))
    engine.materialize(
        "claimable",
        f"select distinct serialNumber from every_customers_landing where email in ({emails}) "
        "and serialNumber is not null",
    )
    shared = "serialNumber in (select serialNumber from claimable)"
    ids = listed(customers.values())
    engine.materialize(
        "customers_landing", f"select * from every_customers_landing where email in ({emails}) or {shared}"
    )
    # with the other claimants of their devices: whose motion it was decides whose the reading is (rule 6)
    near = {expected.normal(email) for (email,) in engine.rows("select distinct email from customers_landing")}
    users = listed(spelled(engine, "every_accelerometer_landing", "user", near | customers.keys()))
    engine.materialize("accelerometer_landing", f'select * from every_accelerometer_landing where "user" in ({users})')
    engine.materialize("step_trainer_landing", f"select * from every_step_trainer_landing where {shared}")
    for name in BELOW:
        engine.view(name, f"select * from every_{name} where customer_id in ({ids})")
    # in this order: each reads what the ones before have made
    expected.customers(engine, key, base)
    expected.motions(engine, base)
    expected.devices(engine, context.further_claimants(key))
    expected.steps(engine, base)
    engine.materialize(
        "history",
        f"select p.person, c.lastUpdateDate as updated, c.shareWithResearchAsOfDate as share, {FILE_NAME} as file, "
        f"f.landed_at, row_number() over (partition by p.person order by {expected.rank(base)} desc) as place "
        f"from customers_landing as c join persons as p on c.email = p.address left join {FILES} as f "
        "on c._file = f.sha256",
    )


def person(engine: DuckDB, customer_id: str) -> str:
    """Returns the SQL of a customer's person number in the relations; null if nothing of the customer has landed."""
    found = engine.rows(f"select person from known where customer_id = {literal(customer_id)}")
    return str(found[0][0]) if found else "null"


def spelled(engine: DuckDB, table: str, column: str, wanted: Iterable[str]) -> list[str]:
    """Returns the spellings in a column of addresses whose normal form is one of `wanted`."""
    engine.insert_rows("asked", {"address": "varchar"}, ((address,) for address in wanted))
    engine.spellings("spelled", f"select distinct {quoted(column)} as address from {table}", "select * from asked")
    return sorted(address for (address,) in engine.stream("select address from spelled"))


def listed(texts: Iterable[str]) -> str:
    """Returns texts as the list inside an SQL IN; there may be no texts."""
    # `in ()` is no SQL; nothing equals null
    return ", ".join(map(literal, texts)) or "null"
