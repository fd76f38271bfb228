"""Runs the consent proof where the rows are: in this process, or on the executors that hold them.

In both cases `privacy.consent` decides who consents; nothing here is shared with the SQL whose rows are proved.

A proof either reads all landed records or builds on the previous one: the build that published `customers_trusted`
proved the consent of everybody in it. That still holds unless one of their records has landed since, or a date in one
has passed. Only the records of these customers, the suspects, are read again. `stedi audit` always proves everything.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.engines import Engine, Gathering, Streaming, dictionaries
from stedi.engines.literals import literal
from stedi.privacy import consent
from stedi.privacy.pseudonyms import Key, normalise
from stedi.schema.tables import CONSENT_FROM, DataFile
from stedi.storage import s3

FEW = 1000
"""Customers that a statement names one by one."""
_RECORDS = "select email, lastUpdateDate, shareWithResearchAsOfDate from customers_landing"
_CONSENTS = {"customer_id": "varchar", "since": "bigint"}


def news(engine: Engine, landed: str, low: int, high: int) -> str:
    """Returns a SELECT of `email`: the addresses of customers whose consent may have changed between two proofs.

    Args:
        engine: A session in which `customers_landing` is bound.
        landed: A relation of the records landed in between.
        low: The earlier start of the two builds, epoch milliseconds; the clock may have gone back.
        high: The later start.
    """
    dated = f"customers_landing where {CONSENT_FROM} > {low} and {CONSENT_FROM} <= {high}"
    # addresses are read only where a date has come or gone
    passed = engine.rows(f"select 1 from {dated} limit 1")
    return f"select email from {landed}" + (f" union all select email from {dated}" if passed else "")


def agree(engine: Engine, key: Key, now: int, proven: str = "", suspects: str = "") -> frozenset[str] | None:
    """Makes `proof__agreed`: `customer_id` and `since` of everybody who consents now; and `proof__suspects`.

    Args:
        engine: A session in which `customers_landing` is bound.
        key: The lake's pseudonym key.
        now: The start of the build, epoch milliseconds.
        proven: A relation of customers whose consent was proved before, as in `customers_trusted`; without it everybody
            is a suspect.
        suspects: As returned by `news`.

    Returns:
        The customers in `proof__suspects`, unless everybody is one or only other machines may learn who they are.
    """
    if not proven:
        _consents(engine, _RECORDS, key, now)
        engine.view("proof__agreed", "select customer_id, since from proof__consents")
        return None
    # a customer's records can stand under several spellings, and the newest of all decides
    everybody, spelled = "select email as address from customers_landing", "select address from proof__spellings"
    engine.spellings("proof__spellings", everybody, f"select email as address from ({suspects})")
    _consents(engine, f"{_RECORDS} where email in ({spelled})", key, now)
    named = _names(engine, spelled, key)
    engine.view(
        "proof__agreed",
        # who consented then consents now, unless suspected: nothing else ends consent
        "select customer_id, since from proof__consents union all "
        f"select customer_id, epoch_ms(shareWithResearchAsOfDate) as since from {proven} "
        "where customer_id not in (select customer_id from proof__suspects)",
    )
    return named


def violations(engine: Engine, people: Sequence[str], *, since_consent: bool) -> list[int]:
    """Counts staged customers who must not be in a table.

    Args:
        engine: A session in which `proof__agreed` was made.
        people: SELECTs of `customer_id`, once each, and `earliest`, their earliest reading or null.
        since_consent: Whether readings from before consent are left out (rule 4).

    Returns:
        A number for each.
    """
    if not people:
        return []
    early = "or p.earliest < c.since" if since_consent else ""
    # one statement for all tables: on Spark each would be a job of its own
    named = (f"select {place} as place, customer_id, earliest from ({sql})" for place, sql in enumerate(people))
    rows = engine.rows(
        f"select place, count(*) from ({' union all '.join(named)}) as p left join proof__agreed as c "
        f"on p.customer_id = c.customer_id where c.customer_id is null {early} group by place"
    )
    found = dict(rows)
    return [found.get(place, 0) for place in range(len(people))]


def among(engine: Engine, customers: str, known: Collection[str] | None = None) -> str:
    """Returns the list for `in (...)` of a relation's customers, who may be known; empty if there are none."""
    every = f"select customer_id from {customers}"
    if known is None:
        if not isinstance(engine, Streaming):  # this machine must not learn who they are
            return every if engine.rows(f"select 1 from {customers} limit 1") else ""
        known = [customer for (customer,) in engine.rows(f"{every} limit {FEW + 1}")]
    # listed by name, so that row groups without them are skipped
    return every if len(known) > FEW else ", ".join(map(literal, sorted(known)))


def none_has(files: Iterable[DataFile], suspects: Collection[str] | None) -> bool:
    """Returns whether no row of some files is a suspect's, as their dictionaries show; False if they do not.

    To look into all dictionaries costs less than to compare the rows of the few row groups whose bounds leave room for
    a suspect. They are read by other code than removes rows, and each of these files has been proved as a whole before.
    """
    paths = [file.path for file in files]
    if suspects is None or len(suspects) > FEW or any(map(s3.is_remote, paths)):
        return False
    return dictionaries.none_has(map(Path, paths), "customer_id", suspects)


def _consents(engine: Engine, records: str, key: Key, now: int) -> None:
    """Makes `proof__consents` of some records, which are all that their customers have."""
    if isinstance(engine, Streaming):
        consents = consent.consenting(engine.stream(records), key, now)
        return engine.insert_rows("proof__consents", _CONSENTS, consents.items())
    assert isinstance(engine, Gathering), "an engine streams its rows or gathers them"
    engine.map_rows("proof__records", records, {"customer": "varchar"}, _normal)
    # brought together by their normal form: all records of a customer are seen by one call
    return engine.map_groups(
        "proof__consents",
        "select customer, lastUpdateDate, shareWithResearchAsOfDate from proof__records",
        "customer",
        _CONSENTS,
        _Consenting(key, now),
    )


def _names(engine: Engine, addresses: str, key: Key) -> frozenset[str] | None:
    """Makes `proof__suspects`: the `customer_id` of each address; returns them if they are here."""
    if not isinstance(engine, Streaming):
        engine.map_rows("proof__suspects", addresses, {"customer_id": "varchar"}, _Named(key))
        return None
    named = frozenset(key.customer_id(address) for (address,) in engine.stream(addresses))
    engine.insert_rows("proof__suspects", {"customer_id": "varchar"}, ((customer,) for customer in named))
    return named


def _normal(email: str, updated: int, share: int | None) -> tuple[str]:
    return (normalise(email),)


@dataclass(frozen=True, slots=True)
class _Consenting:
    """The consenting customers among those whose records one call receives."""

    key: Key
    now: int

    def __call__(self, records: Iterator[tuple[Any, ...]]) -> Iterable[tuple[str, int]]:
        return consent.consenting(records, self.key, self.now).items()


@dataclass(frozen=True, slots=True)
class _Named:
    """The customer of an address."""

    key: Key

    def __call__(self, address: str) -> tuple[str]:
        return (self.key.customer_id(address),)
