"""Quarantined records of customers who consent: any of them may be a withdrawal that could not be read.

They are searched only after a landing that has quarantined customer records. An address is found in a record's bytes by
its field or its form, and compared with the customers who consent now. No address is returned or kept.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Collection, Iterator

from stedi._frozen import dataclass
from stedi.catalog import Catalog
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.privacy import addresses, consent, decoding
from stedi.privacy.pseudonyms import normalise
from stedi.schema.feeds import CUSTOMER

_FIELD = re.compile(r'"email"\s*:\s*"((?:[^"\\]|\\.)*)"', re.IGNORECASE | re.DOTALL)
_BETWEEN = re.compile(r"""[\s"'<>,;:()\[\]{}\\]""")


@dataclass(frozen=True, slots=True)
class Unread:
    """Quarantined records of one file that name customers who consent.

    Attributes:
        name: The file's name.
        sha256: Its content.
        records: How many there are.
        first: The handle of the first one, for `quarantine --show`.
    """

    name: str
    sha256: str
    records: int
    first: str


def unread(engine: DuckDB, catalog: Catalog, batches: list[str], now: int) -> tuple[Unread, ...]:
    """Returns, by file, the records of consenting customers that some batches have quarantined.

    Args:
        engine: A session.
        catalog: The lake's tables.
        batches: The ids of the batches.
        now: The instant for which consent is evaluated, epoch milliseconds.
    """
    engine.bind_files("quarantine", catalog.files(catalog.table("quarantine")))
    engine.bind_files(CUSTOMER.table, catalog.files(catalog.table(CUSTOMER.table)))
    # numbers instead of texts for each record: a delivery may be rejects from end to end
    customers: dict[str, int] = {}
    files: dict[tuple[str, str], int] = {}
    named = array("q")
    for name, sha256, offset, raw in engine.stream(
        f'select file, sha256, "offset", raw from quarantine where batch in ({", ".join(map(literal, batches))}) '
        # a record of another feed is no customer's word unless it has the field of one;
        # cast to text, a blob has its other bytes as `\xNN`, so that no encoding can fail here
        f"and (feed = {literal(CUSTOMER.feed)} or raw::blob::varchar ilike '%email%')"
    ):
        file = files.setdefault((name, sha256), len(files))
        for customer in set(_customers(bytes(raw))):
            named.extend((file, offset, customers.setdefault(customer, len(customers))))
    agreeing = {customers[customer] for customer in _agreeing(engine, customers.keys(), now)} if customers else set()
    found: dict[int, set[int]] = {}
    for file, offset, number in zip(named[::3], named[1::3], named[2::3], strict=True):
        if number in agreeing:
            found.setdefault(file, set()).add(offset)
    return tuple(
        Unread(name, sha256, len(found[file]), f"{sha256[:12]}:{min(found[file])}")
        for (name, sha256), file in sorted(files.items())
        if file in found
    )


def _customers(raw: bytes) -> Iterator[str]:
    """Yields the possible customers of a record, in the normal form of rule 1; its bytes need not be JSON."""
    text = decoding.unescaped(raw)
    yield from map(normalise, _FIELD.findall(text))
    at = text.find("@")
    while at >= 0:
        # bounded on both sides, so that text that was made to be slow is read in linear time
        before = _BETWEEN.split(text[max(0, at - addresses.LONGEST) : at])[-1]
        after = _BETWEEN.split(text[at + 1 : at + addresses.LONGEST], maxsplit=1)[0]
        yield normalise(f"{before}@{after}")
        at = text.find("@", at + 1)


def _agreeing(engine: DuckDB, wanted: Collection[str], now: int) -> set[str]:
    """Returns the consenting ones of some customers."""
    engine.insert_rows("unread__wanted", {"address": "varchar"}, ((address,) for address in wanted))
    # of plain ASCII the engine's own lower case is the normal form: few are left to be looked at here
    delivered = engine.stream(
        f"select distinct email from {CUSTOMER.table} where not regexp_full_match(email, '[ -~]*') "
        "or lower(trim(email)) in (select address from unread__wanted)"
    )
    spellings = [email for (email,) in delivered if normalise(email) in wanted]
    agreeing: set[str] = set()
    if spellings:
        engine.insert_rows("unread__spellings", {"email": "varchar"}, [(email,) for email in spellings])
        records = engine.stream(
            f"select email, lastUpdateDate, shareWithResearchAsOfDate from {CUSTOMER.table} "
            "where email in (select email from unread__spellings)"
        )
        agreeing.update(consent.agreeing(records, now))
    return agreeing
