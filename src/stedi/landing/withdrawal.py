"""Withdrawals: a customer's current record landed again without consent, as if the website had delivered it.

Rule 2 does the rest: the withdrawal is the newest record, or of the same update as the newest and without consent, so
the next build takes the customer out, and whatever is delivered later counts only if it is newer. One SELECT serves
customers that the lake knows and others: of somebody unknown there is an address and an update, and every other
field is absent. Delivered records never lack a required field; a withdrawal alone may, since it names no device
that could be claimed (rule 6) and can never be anybody's consenting record.
"""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from stedi import durable, tables
from stedi.catalog import Catalog
from stedi.config import Config
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.landing import journal, rows
from stedi.landing.rows import LandedFile
from stedi.privacy import tombstones
from stedi.privacy.erased import erased_at
from stedi.privacy.pseudonyms import Key, normalise
from stedi.records import CUSTOMER
from stedi.tables import DataFile

NAME = "withdrawal"
"""What the ledger calls a batch of withdrawals in place of a file's name."""

SAME = 60_000
"""Milliseconds within which a withdrawal that is said again is the same one. Later it is a new one: a consent given in
between may not have been delivered yet, and must not outlive the last word."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What one `withdraw` did.

    Attributes:
        customers: Customers asked for, each once under however many spellings: landed + already + erased.
        landed: Records landed, one a customer.
        unknown: Those of them of whom nothing else is known; they hold against older records that arrive later.
        already: Customers whose last word, as landed, was the same and not a minute old.
        erased: Customers who were erased and did not come back: nothing of them is taken in again.
    """

    customers: int
    landed: int
    unknown: int
    already: int
    erased: int


def withdraw(
    catalog: Catalog,
    config: Config,
    key: Key,
    root: Path,
    wanted: Sequence[str],
    *,
    now: int | None = None,
    progress: Callable[[str, float | None], None] = lambda what, share: None,
) -> Withdrawal:
    """Lands a withdrawal of each customer who has not just withdrawn anyway; the next build takes them out.

    Args:
        catalog: The lake's tables.
        config: The lake's settings.
        key: The lake's pseudonym key.
        root: The lake's folder.
        wanted: Addresses in their normal form (rule 1), each once.
        now: When they withdraw, epoch milliseconds; the clock's time by default.
        progress: Told how far the work is.

    Raises:
        CommitConflict: Somebody outside this program keeps changing the landing tables.
    """
    if not wanted:
        return Withdrawal(0, 0, 0, 0, 0)
    with durable.lock(root / "land.lock", wait=True, waiting=lambda: progress("waiting for a landing", None)):
        tombstones.refuse_unfinished(root)
        journal.finish(catalog, root / "pending")
        now = int(time.time() * 1000) if now is None else now
        batch = f"{int(time.time() * 1000):013d}-{secrets.token_hex(4)}"
        folder = durable.scratch(root) / "landing" / batch
        durable.private(folder)
        journalled = False
        try:
            with DuckDB(memory=config.engine_memory, threads=config.threads, temporary=folder) as engine:
                progress("write withdrawals", None)
                erased = [address for address in wanted if erased_at(root, key, address) is not None]
                gone = _bind(engine, catalog, key, wanted, erased, now)
                [(landed, unknown)] = engine.rows("select count(*), count(*) filter (where not known) from withdrawn")
                if landed:
                    appends = _write(engine, catalog, batch, landed)
                    progress("commit", None)
                    pending = journal.write(root / "pending", batch, appends)
                    journalled = True  # from here on the journal decides, not this process
                    journal.apply(catalog, pending)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            if not journalled and not journal.place(root / "pending", batch).exists():
                for table in (CUSTOMER.table, "landed_files"):
                    durable.remove_tree(catalog.folder(table) / "data" / batch)
    return Withdrawal(len(wanted), landed, unknown, len(wanted) - landed - gone, gone)


def known(catalog: Catalog, config: Config, wanted: Collection[str], temporary: Path) -> int:
    """Returns of how many of some customers, addresses in their normal form, there is a landed record."""
    with DuckDB(memory=config.engine_memory, threads=config.threads, temporary=temporary) as engine:
        engine.bind(CUSTOMER.table, catalog.files(catalog.table(CUSTOMER.table)))
        landed = engine.stream(f"select distinct email from {CUSTOMER.table}")
        return len(set(wanted).intersection(normalise(address) for (address,) in landed))


def _bind(engine: DuckDB, catalog: Catalog, key: Key, wanted: Sequence[str], erased: Sequence[str], now: int) -> int:
    """Makes `withdrawn`: the records to land, in the columns of `customers_landing`, and whether each is `known`.

    Returns:
        How many of the erased have no record: of them nothing is to be landed.
    """
    selects = tables.graph().selects
    engine.bind(CUSTOMER.table, catalog.files(catalog.table(CUSTOMER.table)))
    engine.pseudonymise("people", selects["people"].sql, key.customer_id)
    asked = f"select unnest([{', '.join(map(literal, wanted))}]) as address"
    engine.pseudonymise("asked", asked, key.customer_id)
    engine.keep(
        "records",
        f"select c.*, p.customer_id from {CUSTOMER.table} as c join people as p on c.email = p.address "
        "where p.customer_id in (select customer_id from asked)",
    )
    current = tables.over(selects["current_customers"].sql, {CUSTOMER.table: "records"}, {"build_started": now})
    engine.keep("current_customers", current)
    # a record without consent that nothing newer follows: the same was said already (rule 2)
    engine.keep(
        "settled",
        "select customer_id from records group by customer_id "
        "having max(lastUpdateDate) filter (where shareWithResearchAsOfDate is null) "
        f">= greatest(max(lastUpdateDate), {now - SAME})",
    )
    engine.keep(
        "gone",
        f"select address from asked where address in ({', '.join(map(literal, erased)) or 'null'}) "
        "and customer_id not in (select customer_id from current_customers)",
    )
    engine.keep(
        "withdrawn",
        "select c.customerName, coalesce(c.email, a.address) as email, c.phone, c.birthDay, c.serialNumber, "
        f"c.registrationDate, greatest({now}::bigint, c.lastUpdateDate) as lastUpdateDate, "
        "null::bigint as shareWithResearchAsOfDate, c.shareWithPublicAsOfDate, c.shareWithFriendsAsOfDate, "
        "c.customer_id is not null as known "
        "from asked as a left join current_customers as c on a.customer_id = c.customer_id "
        "where a.customer_id not in (select customer_id from settled) and a.address not in (select address from gone)",
    )
    [(gone,)] = engine.rows("select count(*) from gone")
    return int(gone)


def _write(engine: DuckDB, catalog: Catalog, batch: str, count: int) -> dict[str, tuple[DataFile, ...]]:
    """Writes the batch's Parquet files; the ledger comes last, so that it vouches for the rest."""
    # of no file's content: a number that stands for these records, and tells nothing about them
    content = secrets.token_hex(32)
    file = LandedFile(NAME, CUSTOMER.feed, content, 0, count, count, 0, 0, already_landed=False)
    more = f"null::varchar as _extra, {literal(content)} as _file"
    selects = {
        CUSTOMER.table: f"select * exclude (known), {more} from withdrawn",
        "landed_files": rows.ledger([file], batch, int(time.time() * 1000)),
    }
    return {table: engine.write(table, sql, catalog.folder(table) / "data" / batch) for table, sql in selects.items()}
