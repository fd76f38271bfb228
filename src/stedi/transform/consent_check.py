"""The consent proof where the rows are: streamed past this process, or spread over those that hold them.

Either way it is `privacy.consent` that says who agrees; nothing here is shared with the SQL whose rows are proven.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from stedi.engines import Engine, Gathering, Streaming
from stedi.engines.literals import literal
from stedi.privacy import consent
from stedi.privacy.pseudonyms import Key, normalise

FEW = 1000
"""Customers that a statement names one by one."""


class Proof(Protocol):
    """Who agrees now, to be held against rows that are staged."""

    def violations(self, people: Sequence[str]) -> Iterable[int]:
        """Counts customers who are staged and must not be.

        Args:
            people: SELECTs of `customer_id`, once each, and `earliest`, their earliest reading or null.

        Returns:
            A number for each.
        """

    def suspects(self) -> Iterator[str]:
        """Yields, as parts that stand in `in (...)`, the customers who may have changed their mind."""


def proof(engine: Engine, records: str, news: str, key: Key, now: int, *, since_consent: bool) -> Proof:
    """Returns who agrees now.

    Args:
        engine: A session in which every table is bound as it would be published.
        records: A SELECT of all landed customer records: address, last update, consent date.
        news: A SELECT of the addresses whose customers may have changed their mind.
        key: The lake's pseudonym key.
        now: The start of the build, epoch milliseconds.
        since_consent: Whether readings from before consent are left out (rule 4).
    """
    if isinstance(engine, Streaming):
        consents = consent.consenting(engine.stream(records), key, now)
        suspects = {key.customer_id(address) for (address,) in engine.stream(news)}
        return _Streamed(engine, consents, suspects, since_consent)
    assert isinstance(engine, Gathering), "an engine streams its rows or gathers them"
    engine.map_rows("proof__records", records, {"customer": "varchar"}, _normal)
    # brought together by their normal form: all records of a customer are seen by one call
    engine.map_groups(
        "proof__consents",
        "select customer, lastUpdateDate, shareWithResearchAsOfDate from proof__records",
        "customer",
        {"customer_id": "varchar", "since": "bigint"},
        _Consenting(key, now),
    )
    engine.map_rows("proof__news", f"select email from ({news})", {"customer_id": "varchar"}, _Named(key))
    return _Spread(engine, since_consent)


class _Streamed:
    """A proof in this process."""

    def __init__(self, engine: Streaming, consents: dict[str, int], suspects: set[str], since_consent: bool) -> None:
        self._engine, self._consents = engine, consents
        self._suspects, self._since_consent = suspects, since_consent

    def violations(self, people: Sequence[str]) -> Iterable[int]:
        for sql in people:
            rows = ((customer, earliest) for customer, earliest in self._engine.stream(sql))
            yield consent.violations(rows, self._consents, since_consent=self._since_consent)

    def suspects(self) -> Iterator[str]:
        return some(self._suspects)


class _Spread:
    """A proof on an engine's executors."""

    def __init__(self, engine: Engine, since_consent: bool) -> None:
        self._engine, self._since_consent = engine, since_consent

    def violations(self, people: Sequence[str]) -> Iterable[int]:
        early = "or p.earliest < c.since" if self._since_consent else ""
        counts = (
            f"select {place} as place, count(*) as found from ({sql}) as p left join proof__consents as c "
            f"on p.customer_id = c.customer_id where c.customer_id is null {early}"
            for place, sql in enumerate(people)
        )
        rows = self._engine.rows(" union all ".join(counts)) if people else ()
        return [int(found) for _, found in sorted(rows)]

    def suspects(self) -> Iterator[str]:
        yield "select customer_id from proof__news"


def some(values: Iterable[str]) -> Iterator[str]:
    """Yields values as lists of literals of bounded length."""
    ordered = sorted(values)
    for start in range(0, len(ordered), FEW):
        yield ", ".join(map(literal, ordered[start : start + FEW]))


def _normal(email: str, updated: int, share: int | None) -> tuple[str]:
    return (normalise(email),)


@dataclass(frozen=True, slots=True)
class _Consenting:
    """Who agrees, of the customers whose records come to one call."""

    key: Key
    now: int

    def __call__(self, records: Iterator[tuple[Any, ...]]) -> Iterable[tuple[str, int]]:
        return consent.consenting(records, self.key, self.now).items()


@dataclass(frozen=True, slots=True)
class _Named:
    """Who an address is."""

    key: Key

    def __call__(self, address: str) -> tuple[str]:
        return (self.key.customer_id(address),)
