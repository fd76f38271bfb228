"""The checks of staged rows before they are published: consent proof, no nulls, and the package's assertions.

A rebuilt table is checked as a whole. In a table that was changed in part, the checks cover what the change could have
broken: all rows of the affected customers, and all rows in the time span of rows added for others. The consent proof
shares no code and no SQL with what it checks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from stedi.engines import Columnar, Engine, Streaming, between
from stedi.engines.literals import literal, quoted
from stedi.errors import AuditFailed
from stedi.privacy.pseudonyms import Key
from stedi.schema import tables
from stedi.schema.tables import COLUMNS, REQUIRED, DataFile, Model
from stedi.transform import consent_check
from stedi.transform.incremental import MOMENTS
from stedi.transform.session import WITHIN, divided

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

    from stedi.engines.column_sums import ColumnSums

MOTIONS, _STEPS, _LEARNED = "accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"
_DISTINCT, _CONSERVED = "accelerometer_readings_are_distinct", "training_rows_are_conserved"
_SCOPED = frozenset({*MOMENTS, "customers_trusted", "customers_curated"})
"""Tables of which the assertions read only what a change could have broken."""
LARGE = 1_000_000
"""Rows of which the SQL costs more than importing what reads them in order."""


def prove_consent(
    engine: Engine,
    key: Key,
    now: int,
    *,
    since_consent: bool,
    new: Mapping[str, Sequence[DataFile]],
    kept: Mapping[str, Sequence[DataFile]],
    proven: Iterable[DataFile] | None,
    news: str,
    told: Callable[[], object] | None = None,
) -> str:
    """Raises AuditFailed if a staged row belongs to a customer who does not consent now.

    Args:
        engine: A session in which every table is bound as it would be published.
        key: The lake's pseudonym key.
        now: The start of the build, epoch milliseconds.
        since_consent: Whether readings from before consent are left out (rule 4).
        new: Each table's files that this build wrote.
        kept: Each table's other files.
        proven: The files of the published `customers_trusted`, if the proof builds on the proof of its build.
        news: A SELECT of `email`: the addresses whose customers may have changed their mind since the tables were
            built, so that the files that a table keeps have to be searched for them.
        told: Waits until another thread has found out who consents now, if one does; it is of no use with `proven`.

    Returns:
        A SELECT of `customer_id`: customers who are proved to have no row in any table; empty if none is known.
    """
    suspects = absent = ""
    named: frozenset[str] | None = None
    if proven is None and told:
        told()
    elif proven is None:
        consent_check.agree(engine, key, now)
    else:
        engine.bind_files("customers_trusted__proven", proven, table="customers_trusted")
        named = consent_check.agree(engine, key, now, "customers_trusted__proven", news)
        suspects = consent_check.among(engine, "proof__suspects", named)
        if suspects:
            # a suspect agrees only if their records say so now; what was proved of the others is not read again
            agreed = "select customer_id from proof__consents"
            absent = f"select customer_id from proof__suspects where customer_id not in ({agreed})"
    people: list[tuple[str, str]] = []
    for name, files in new.items():
        earliest = "null::bigint"
        if since_consent:
            # of a customers table the consent date that it shows, which must not be before the one that the proof finds
            earliest = f"epoch_ms(min({quoted(MOMENTS.get(name, 'shareWithResearchAsOfDate'))}))"
        sql = f"select customer_id, {earliest} as earliest from {{}} group by customer_id"
        if files:
            engine.bind_files(f"{name}__new", files, table=name)
            of = f"{name}__new"
            sums = None if since_consent or name not in MOMENTS else _sums(engine, of)
            if sums and sums.of_texts(f"{name}__people", of, ["customer_id"], [MOMENTS[name]]):
                of = f"{name}__people"
            people.append((name, sql.format(of)))
        if kept[name] and suspects and not consent_check.none_has(kept[name], named):
            engine.bind_files(f"{name}__kept", kept[name], table=name)
            people.append((name, sql.format(f"{name}__kept where customer_id in ({suspects})")))
    found = consent_check.violations(engine, [sql for _, sql in people], since_consent=since_consent)
    for (name, _), count in zip(people, found, strict=True):
        if count:
            raise AuditFailed(
                f"{name}: consent proof: expected no row of a customer who does not consent, "
                f"found rows of {count} such customers; nothing was published"
            )
    return absent


def check_nulls(staged: Mapping[str, Iterable[DataFile]]) -> None:
    """Raises AuditFailed if a column that may not be null is, in files that are new in a table."""
    for name, files in staged.items():
        for column in (column.name for column in COLUMNS[name] if column.name in REQUIRED[name]):
            # the writers have counted them: no row is read
            nulls = sum(file.nulls.get(column, 0) for file in files)
            if nulls:
                raise AuditFailed(f"{name}: {column}: expected no nulls, found {nulls}; nothing was published")


def check_assertions(
    engine: Engine,
    rebuilt: AbstractSet[str],
    changed: AbstractSet[str],
    files: Mapping[str, Sequence[DataFile]],
    *,
    absent: str = "",
    ordered: Callable[[], bool] | None = None,
) -> None:
    """Raises AuditFailed if an assertion about a staged table finds a violation.

    Args:
        engine: A session in which every table is bound as it would be published, and for each changed one
            `<table>__added` and `<table>__gone`.
        rebuilt: Tables that are new as a whole.
        changed: Tables that were changed in part.
        files: All files of each table.
        absent: As returned by `prove_consent`: no rows of these customers have to be looked for.
        ordered: Waits for `in_order` of the accelerometer readings, if another thread asks.
    """
    checks = {check.name: check for check in tables.assertions() if check.reads & (rebuilt | changed)}
    whole = {name: check.sql for name, check in checks.items() if check.reads & rebuilt}
    parts = {name: check.sql for name, check in checks.items() if name not in whole}
    sums = _sums(engine, MOTIONS)
    ordered = ordered or partial(in_order, files[MOTIONS])
    if _DISTINCT in whole and (sums or isinstance(engine, Streaming)) and ordered():
        del whole[_DISTINCT]
    if _CONSERVED in whole and sums and _conserved(sums, files[_LEARNED]):
        del whole[_CONSERVED]
    if parts:
        relations = _scoped(engine, changed, files, absent)
        parts = {
            name: tables.rebind(sql, relations)
            for name, sql in parts.items()
            # where no row can have been broken, an assertion would read nothing
            if relations or not checks[name].reads <= _SCOPED
        }
    # small tables at once, large ones one after the other: each may need all the memory
    alone = [{name: sql} for name in whole for sql in _divided(engine, checks[name], files)]
    # an engine of many machines has room for all, and asks them once
    for group in (parts, *alone) if isinstance(engine, Streaming) else ({**parts, **whole},):
        # a line break at the end: the text of an assertion may end with a comment
        counts = (f"select {literal(name)} as name, count(*) as found from ({sql}\n)" for name, sql in group.items())
        for name, found in (
            engine.rows(f"select * from ({' union all '.join(counts)}) where found > 0") if group else ()
        ):
            raise AuditFailed(f"{name}: expected no violations, found {found}; nothing was published")


def _divided(engine: Engine, check: Model, files: Mapping[str, Sequence[DataFile]]) -> list[str]:
    """Returns an assertion about whole tables, as several about a range of customers each if it joins large tables.

    Rows of these tables depend only on the same customer's rows: what holds of every customer holds of all.
    """
    if check.reads.isdisjoint(WITHIN):
        return [check.sql]
    of = max(sum(file.rows for file in files.get(name, ())) for name in check.reads)
    return [tables.rebind(check.sql, relations) for relations in divided(engine, sorted(check.reads), of)]


def _sums(engine: Engine, table: str) -> ColumnSums | None:
    """Returns the sums of a large table in C, if the engine takes longer and its files are here."""
    return engine.column_sums(table) if isinstance(engine, Columnar) and not isinstance(engine, Streaming) else None


def _conserved(sums: ColumnSums, training: Iterable[DataFile]) -> bool:
    """Returns whether there are as many training rows as steps joined with motions; false if it is unknown."""
    steps = (MOMENTS[_STEPS], "distanceFromObject")
    due = sums.joined_rows("customer_id", (_STEPS, steps), (MOTIONS, MOMENTS[MOTIONS]))
    return due == sum(file.rows for file in training)


def in_order(files: Sequence[DataFile]) -> bool:
    """Returns whether the order of a large table's readings shows that they are distinct; false for a small one."""
    if sum(file.rows for file in files) < LARGE:
        return False
    from stedi.engines import row_order

    return row_order.distinct(files)


def _scoped(
    engine: Engine, changed: AbstractSet[str], files: Mapping[str, Sequence[DataFile]], absent: str
) -> dict[str, str]:
    """Makes the rows that a change could have broken readable.

    Returns:
        The relation for each table; none if there are no such rows, as when customers only left.
    """
    affected = [
        f"select customer_id from {name}__{what}"
        for name in sorted(changed)
        # readings that were only added are found below, by their time
        for what in (("added", "gone") if name not in MOMENTS else ("gone",))
    ]
    others = f" where customer_id not in ({absent})" if absent else ""
    engine.materialize("audited__customers", f"select customer_id from ({' union '.join(affected)}){others}")
    among = consent_check.among(engine, "audited__customers")
    # whoever is audited whole is not found by time as well; if nobody is, no customer is read
    alone = " where customer_id not in (select customer_id from audited__customers)" if among else ""
    spans = [
        f"select min(epoch_ms({quoted(MOMENTS[name])})) as low, max(epoch_ms({quoted(MOMENTS[name])})) as high "
        f"from {name}__added{alone}"
        for name in sorted(changed & MOMENTS.keys())
    ]
    # no instant is before 2000: where no table of readings has changed, nothing is in the span
    [(low, high)] = engine.rows(f"select min(low), max(high) from ({' union all '.join(spans)})") if spans else [(0, 0)]
    if low is None and not among:
        return {}
    relations = {}
    for name, moment in MOMENTS.items():
        [instant] = (column for column in COLUMNS[name] if column.name == moment)
        within = "false" if low is None else between(instant, low, high)
        # which files can have such rows is asked for tables that are read more than once
        once = low is None or name == _LEARNED
        sql = f"select * from {name} where {within}" if once else engine.within(name, moment, low, high)
        if among:
            # to find the files reads one column; most hold none of the customers who have left
            # by the engine's own reading: what is checked here must not choose what is looked at
            theirs, every = f"{name}__theirs", "select customer_id from audited__customers"
            holding = engine.files_containing(
                f"{name}__audited_customers", files[name], "customer_id", every, table=name, by_rows=True
            )
            engine.bind_files(theirs, holding, table=name)
            # not within the span, or a row would count twice
            sql += f" union all select * from {theirs} where not ({within}) and customer_id in ({among})"
        relations[name] = f"{name}__audited"
        engine.view(relations[name], sql)
    owners = f"select customer_id from {relations['step_trainer_trusted']}"
    engine.materialize("audited__owners", f"select customer_id from audited__customers union {owners}")
    for name in sorted(_SCOPED - MOMENTS.keys()):
        relations[name] = f"{name}__audited"
        owned = "customer_id in (select customer_id from audited__owners)"
        engine.view(relations[name], f"select * from {name} where {owned}")
    return relations
