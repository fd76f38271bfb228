"""The consent proof: computes a second time who consents now.

Independent of the SQL under test on purpose: rules 1 to 4 of consent in plain Python over a stream of the landed
customer records; only the final set of pseudonyms is kept. A record is `(email, lastUpdateDate,
shareWithResearchAsOfDate)`, instants in epoch milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable

from stedi.privacy.pseudonyms import Key, normalise
from stedi.schema.contracts import INSTANT_BEGIN

Record = tuple[str, int, int | None]


def consenting(records: Iterable[Record], key: Key, now: int) -> dict[str, int]:
    """Returns the consent date in force of each consenting customer, by `customer_id`; see `agreeing`."""
    return {key.customer_id(customer): date for customer, date in agreeing(records, now).items()}


def agreeing(records: Iterable[Record], now: int) -> dict[str, int]:
    """Returns since when each consenting customer agrees.

    A customer consents exactly if no record with the greatest `lastUpdateDate` is without consent: this is rule 2 for
    consent, without sorting. A record from the future counts as one without consent (rule 3).

    Args:
        records: Landed customer records, in any order.
        now: The start of the build, epoch milliseconds: later consent dates and later records give no consent.

    Returns:
        By address in normal form (rule 1), the consent date in force, epoch milliseconds.
    """
    latest: dict[str, int] = {}
    since: dict[str, int] = {}  # 0 for a customer whose latest records do not all give consent
    for email, updated, share in records:
        customer = normalise(email)
        # checked here again, not only when landing: a lake may be older than the contract, with a 0 or seconds for a
        # date
        agreed = share if share is not None and updated <= now and INSTANT_BEGIN <= share <= now else 0
        before = latest.get(customer)
        if before is None or updated > before:
            latest[customer], since[customer] = updated, agreed
        # a tie (rule 2): one record without consent decides; if all give it, the later date is in force
        elif updated == before:
            since[customer] = max(since[customer], agreed) if agreed and since[customer] else 0
    return {customer: date for customer, date in since.items() if date}
