"""The consent proof: computes a second time who consents now.

Independent of the SQL under test on purpose: rules 1 to 4 of consent in plain Python over the landed customer
records, streamed; only the final set of pseudonyms is held. A record is `(email, lastUpdateDate,
shareWithResearchAsOfDate)`, instants in epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from stedi.privacy.pseudonyms import Key, normalise
from stedi.schema.contracts import INSTANT_BEGIN

Record = tuple[str, int, int | None]


def consenting(records: Iterable[Record], key: Key, now: int) -> dict[str, int]:
    """Returns since when each consenting customer agrees, by `customer_id`; see `agreeing`."""
    return {key.customer_id(customer): date for customer, date in agreeing(records, now).items()}


def agreeing(records: Iterable[Record], now: int) -> dict[str, int]:
    """Returns since when each consenting customer agrees.

    A customer consents exactly if, among the records with the greatest `lastUpdateDate`, there is none without
    consent: that is rule 2 as far as consent goes, said without sorting. A record from the future is without, whatever
    it says (rule 3).

    Args:
        records: Landed customer records, in any order.
        now: The start of the build, epoch milliseconds: what is dated later, date or record, is no consent yet.

    Returns:
        From an address in normal form (rule 1) to the consent date in force, epoch milliseconds.
    """
    latest: dict[str, int] = {}
    since: dict[str, int] = {}  # 0 for a customer whose latest records do not all agree
    for email, updated, share in records:
        customer = normalise(email)
        agreed = share if share is not None and updated <= now and INSTANT_BEGIN <= share <= now else 0
        before = latest.get(customer)
        if before is None or updated > before:
            latest[customer], since[customer] = updated, agreed
        elif updated == before:
            since[customer] = max(since[customer], agreed) if agreed and since[customer] else 0
    return {customer: date for customer, date in since.items() if date}
