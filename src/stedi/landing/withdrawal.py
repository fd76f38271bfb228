"""Withdrawals: a customer's current record landed again without consent, as if the website had delivered it.

Rule 2 does the rest: the withdrawal is the newest record, or as new as the newest but without consent. So the next
build removes the customer, and records delivered later count only if they are newer. One SELECT serves known and
unknown customers; for an unknown customer there are only an address and an update. Delivered records never lack a
required field; a withdrawal alone may, since it names no device that could be claimed (rule 6) and can never be
anybody's consenting record.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from stedi._frozen import dataclass, field
from stedi.catalog import Catalog
from stedi.context import Context
from stedi.context.progress import Progress, silent
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.landing import journal, rows
from stedi.landing.rows import LandedFile
from stedi.privacy import consent, state, tombstones
from stedi.privacy import journal as lasting
from stedi.privacy.pseudonyms import Key, normalise
from stedi.schema import tables
from stedi.schema.feeds import CUSTOMER
from stedi.schema.tables import DataFile
from stedi.storage import durable

NAME = "withdrawal"
"""What the ledger calls a batch of withdrawals in place of a file's name."""

SAME = 60_000
"""Milliseconds within which a repeated withdrawal counts as the same one. Later it is a new one: a consent given in
between may not have been delivered yet, and must not survive the last withdrawal."""


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """What one `withdraw` did.

    Attributes:
        customers: Named customers, each once whatever the spellings: landed + already + erased.
        landed: Landed records, one for each customer.
        unknown: Those of them whom the lake does not know; they override older records that arrive later.
        already: Customers who had withdrawn within the last minute.
        erased: Customers who were erased and did not come back: nothing is landed for them.
        stale: Releases that contain one of them, `NAME@VERSION`.
        strangers: The unknown addresses, in normal form.
        history_days: For so many days after the build that removes them, earlier published rows stay on disk, visible
            only to an officer with `as_published`.
        tags: Tags of tables that may contain them, which keep those rows until they are deleted.
    """

    customers: int
    landed: int
    unknown: int
    already: int
    erased: int
    stale: tuple[str, ...] = ()
    strangers: tuple[str, ...] = field(default=(), repr=False, compare=False)
    history_days: float = field(default=0.0, compare=False)
    tags: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class WithdrawalPreview:
    """The customers whom a withdrawal would affect.

    Attributes:
        customers: Customers asked for, each once under however many spellings.
        known: Those with a landed record.
        agreeing: Those of them who consent to research now.
        strangers: The addresses of the others, in normal form.
    """

    customers: int
    known: int
    agreeing: int
    strangers: tuple[str, ...] = field(repr=False)


def withdraw(
    context: Context,
    key: Key,
    wanted: Sequence[str],
    *,
    now: int | None = None,
    progress: Progress = silent,
) -> Withdrawal:
    """Lands a withdrawal for each customer who has not just withdrawn; the next build removes them.

    The caller holds the landing lock.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        wanted: Addresses in their normal form (rule 1), each once.
        now: When they withdraw, epoch milliseconds; the clock's time by default.
        progress: Called with the current step and its completed share.

    Raises:
        CommitConflict: Somebody outside this program keeps changing the landing tables.
    """
    if not wanted:
        return Withdrawal(0, 0, 0, 0, 0)
    catalog, root = context.catalog, context.root
    now = int(time.time() * 1000) if now is None else now
    with journal.Commit(catalog) as batch, DuckDB.of(context.config, batch.scratch) as engine:
        progress("write withdrawals", None)
        erased = [address for address in wanted if tombstones.erased_at(root, key, address) is not None]
        gone = _bind(engine, catalog, key, wanted, erased, now)
        strangers: list[str] = []
        [(landed, unknown)] = engine.rows("select count(*), count(*) filter (where not known) from withdrawn")
        if landed:
            said: dict[str, list[int]] = {}
            for address, at, met in engine.rows("select email, lastUpdateDate, known from withdrawn"):
                if not met:
                    strangers.append(address)
                said.setdefault(tombstones.person(key, address), []).append(at)
            progress("commit", None)
            appends = _write(engine, batch, landed)
            # first of all: a withdrawal that is in no delivery must survive the lake
            keep(context, key, batch.id, said)
            batch.commit(key, appends)
    already = len(wanted) - landed - gone
    return Withdrawal(len(wanted), landed, unknown, already, gone, strangers=tuple(sorted(strangers)))


def preview(context: Context, wanted: Sequence[str], now: int) -> WithdrawalPreview:
    """Returns the customers whom a withdrawal would affect; changes nothing.

    Args:
        context: The lake.
        wanted: Addresses in their normal form (rule 1), each once.
        now: The instant for which consent is evaluated, epoch milliseconds.
    """
    catalog = context.catalog
    met: list[consent.Record] = []
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        _bind_spelled(engine, catalog, wanted)
        met += engine.stream(
            "select email, lastUpdateDate, shareWithResearchAsOfDate "
            f"from {CUSTOMER.table} where email in (select address from spelled)"
        )
    there = {normalise(email) for email, *_ in met}
    strangers = tuple(address for address in wanted if address not in there)
    return WithdrawalPreview(len(wanted), len(there), len(consent.agreeing(met, now)), strangers)


def known(context: Context, wanted: Collection[str]) -> int:
    """Returns of how many of some customers, addresses in their normal form, there is a landed record."""
    catalog = context.catalog
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        _bind_spelled(engine, catalog, wanted)
        return len({normalise(address) for (address,) in engine.stream("select address from spelled")})


def keep(context: Context, key: Key, id_: str, said: Mapping[str, Collection[int]]) -> None:
    """Keeps withdrawals in the lake's journal.

    Args:
        context: The lake.
        key: The lake's key.
        id_: Their id.
        said: For each customer, by mark, the `lastUpdateDate` of each withdrawal, epoch milliseconds.
    """
    plain = {person: sorted(set(instants)) for person, instants in sorted(said.items())}
    lasting.append(context.root, key, context.config.lake_id, "withdrawal", id_, {"people": plain})


def repeat(context: Context, key: Key, said: Mapping[str, Collection[int]] | None = None) -> tuple[int, int]:
    """Lands withdrawals again, by mark, in a lake that was restored or re-created.

    A mark does not reveal a customer whom the lake does not know yet: such a withdrawal waits in the file `withdrawn`
    until a record of the customer lands. The caller holds the landing lock.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        said: As for `keep`, besides those that wait.

    Returns:
        How many were landed, and how many are waiting.
    """
    root, lake_id = context.root, context.config.lake_id
    wanted = {person: set(instants) for person, instants in _waiting(root, lake_id, key).items()}
    before = {person: sorted(instants) for person, instants in wanted.items()}
    for person, instants in (said or {}).items():
        wanted.setdefault(person, set()).update(instants)
    # an erasure has removed what was said before it; only later withdrawals are still due
    erased = tombstones.read(root, key).people
    wanted = {
        person: left
        for person, instants in wanted.items()
        if (left := {at for at in instants if at > erased.get(person, -1)})
    }
    landed = 0
    if wanted:
        with journal.Commit(context.catalog) as batch, DuckDB.of(context.config, batch.scratch) as engine:
            known = _bind_again(engine, context.catalog, key, wanted)
            [(landed,)] = engine.rows("select count(*) from withdrawn")
            if landed:
                batch.commit(key, _write(engine, batch, landed))
            wanted = {person: instants for person, instants in wanted.items() if person not in known}
    after = {person: sorted(instants) for person, instants in sorted(wanted.items())}
    # last: if this is cut off before, they are landed once more, which `landed_` finds out
    if after != before and after:
        state.write(root / lasting.WAITING, lasting.WAITING, lake_id, key, {"people": after})
    elif before and not after:
        durable.remove(root / lasting.WAITING)
    return landed, sum(map(len, after.values()))


def waits(root: Path) -> bool:
    """Returns whether withdrawals wait for a record of their customers."""
    return (root / lasting.WAITING).exists()


def _waiting(root: Path, lake_id: str, key: Key) -> Mapping[str, Collection[int]]:
    try:
        found = state.read(
            root / lasting.WAITING, lasting.WAITING, lake_id, key, advice="run `stedi erase --replay` once more"
        )
    except FileNotFoundError:
        return {}
    return {str(person): [int(at) for at in instants] for person, instants in found["people"].items()}


def _bind_again(engine: DuckDB, catalog: Catalog, key: Key, wanted: Mapping[str, Collection[int]]) -> set[str]:
    """Makes `withdrawn` from withdrawals by mark: each customer's record that was current at that time.

    Returns:
        The marks of the customers whom the lake knows.
    """
    selects = tables.graph().selects
    engine.bind_files(CUSTOMER.table, catalog.files(catalog.table(CUSTOMER.table)))
    engine.pseudonymise("people", selects["people"].sql, key.customer_id)
    marks: dict[str, str] = {}
    # a mark cannot be reversed: those of all landed addresses are compared with it
    for address, customer_id in engine.stream("select address, customer_id from people"):
        person = tombstones.person(key, address)
        if person in wanted:
            marks[customer_id] = person
    parts = []
    # one at a time and in order: a customer may have withdrawn, come back, and withdrawn again
    for turn in range(max((len(wanted[person]) for person in marks.values()), default=0)):
        said = [
            (customer_id, sorted(wanted[person])[turn])
            for customer_id, person in marks.items()
            if turn < len(wanted[person])
        ]
        engine.insert_rows(f"said_{turn}", {"customer_id": "varchar", "at": "bigint"}, said)
        of = f"{CUSTOMER.table} as c join people as p on c.email = p.address join said_{turn} as s using (customer_id)"
        # the record as it was then: what was delivered later must not be taken into it
        engine.materialize("records", f"select c.*, p.customer_id from {of} where c.lastUpdateDate <= s.at")
        current = tables.rebind(
            selects["current_customers"].sql, {CUSTOMER.table: "records"}, {"build_started": int(time.time() * 1000)}
        )
        engine.materialize(f"current_{turn}", current)
        # records that are there already are not landed twice
        engine.materialize(
            f"landed_{turn}",
            f"select distinct customer_id from {of} "
            "where c.lastUpdateDate = s.at and c.shareWithResearchAsOfDate is null",
        )
        parts.append(
            "select c.customerName, coalesce(c.email, (select min(address) from people as p "
            "where p.customer_id = s.customer_id)) as email, c.phone, c.birthDay, c.serialNumber, c.registrationDate, "
            "s.at as lastUpdateDate, null::bigint as shareWithResearchAsOfDate, c.shareWithPublicAsOfDate, "
            "c.shareWithFriendsAsOfDate, c.customer_id is not null as known "
            f"from said_{turn} as s left join current_{turn} as c using (customer_id) "
            f"where s.customer_id not in (select customer_id from landed_{turn})"
        )
    nobody = f"select *, true as known from (select * exclude (_extra, _file) from {CUSTOMER.table}) where false"
    engine.materialize("withdrawn", " union all by name ".join(parts) or nobody)
    return set(marks.values())


def _bind(engine: DuckDB, catalog: Catalog, key: Key, wanted: Sequence[str], erased: Sequence[str], now: int) -> int:
    """Makes `withdrawn`: the records to land, in the columns of `customers_landing`, and whether each is `known`.

    Returns:
        How many erased customers have no record, so that nothing is landed for them.
    """
    selects = tables.graph().selects
    _bind_spelled(engine, catalog, wanted)
    engine.pseudonymise("people", "select address from spelled", key.customer_id)
    engine.pseudonymise("asked", "select address from named", key.customer_id)
    engine.materialize(
        "records",
        f"select c.*, p.customer_id from {CUSTOMER.table} as c join people as p on c.email = p.address "
        "where p.customer_id in (select customer_id from asked)",
    )
    current = tables.rebind(selects["current_customers"].sql, {CUSTOMER.table: "records"}, {"build_started": now})
    engine.materialize("current_customers", current)
    # a record without consent and none newer: this withdrawal exists already (rule 2)
    engine.materialize(
        "settled",
        "select customer_id from records group by customer_id "
        "having max(lastUpdateDate) filter (where shareWithResearchAsOfDate is null) "
        f">= greatest(max(lastUpdateDate), {now - SAME})",
    )
    engine.materialize(
        "gone",
        f"select address from asked where address in ({', '.join(map(literal, erased)) or 'null'}) "
        "and customer_id not in (select customer_id from current_customers)",
    )
    engine.materialize(
        "withdrawn",
        "select c.customerName, coalesce(c.email, a.address) as email, c.phone, c.birthDay, c.serialNumber, "
        # no older than what it withdraws from, even if that is from the future
        f"c.registrationDate, greatest({now}::bigint, c.lastUpdateDate) as lastUpdateDate, "
        "null::bigint as shareWithResearchAsOfDate, c.shareWithPublicAsOfDate, c.shareWithFriendsAsOfDate, "
        "c.customer_id is not null as known "
        "from asked as a left join current_customers as c on a.customer_id = c.customer_id "
        "where a.customer_id not in (select customer_id from settled) and a.address not in (select address from gone)",
    )
    [(gone,)] = engine.rows("select count(*) from gone")
    return int(gone)


def _bind_spelled(engine: DuckDB, catalog: Catalog, wanted: Collection[str]) -> None:
    """Makes `named` of some addresses, and `spelled` of those under which records of these customers have landed."""
    engine.bind_files(CUSTOMER.table, catalog.files(catalog.table(CUSTOMER.table)))
    engine.insert_rows("named", {"address": "varchar"}, ((address,) for address in wanted))
    engine.spellings("spelled", f"select email as address from {CUSTOMER.table}", "select address from named")


def _write(engine: DuckDB, batch: journal.Commit, count: int) -> dict[str, tuple[DataFile, ...]]:
    """Writes the batch's Parquet files; the ledger comes last, so that it vouches for the rest."""
    # not a file's hash: a random number that stands for these records
    content = secrets.token_hex(32)
    file = LandedFile(NAME, CUSTOMER.feed, content, 0, count, count, 0, 0, already_landed=False)
    more = f"null::varchar as _extra, {literal(content)} as _file"
    selects = {
        CUSTOMER.table: f"select * exclude (known), {more} from withdrawn",
        "landed_files": rows.ledger([file], batch.id, int(time.time() * 1000)),
    }
    return {table: engine.write(table, sql, batch.folder(table)) for table, sql in selects.items()}
