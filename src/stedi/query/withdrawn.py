"""Time travel without people who do not consent now: which rows a query with `at` leaves out.

Published snapshots are kept for a while, with rows of people who have withdrawn since. Current consent is computed from
the landed records (rules 1 to 3 of consent), including those that no build has seen, so that a withdrawal counts at
once. A row below landing knows its customer by the pseudonym under the lake's key, since another key leaves no older
snapshot; one that nobody's record gives now is somebody's who was erased.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from stedi.catalog import Snapshot, TableState
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import path_literal, quoted
from stedi.privacy import consent
from stedi.schema.feeds import CUSTOMER
from stedi.schema.tables import ALL_COLUMNS, DataFile
from stedi.storage.config import Config

PERSON = "customer_id"
"""The column that identifies a row's customer, in tables below landing only."""


def concerns(table: str) -> bool:
    """Returns whether the rows of a table are of people who consented when it was built."""
    return any(column.name == PERSON for column in ALL_COLUMNS[table])


def left_out(
    context: Context, pinned: Iterable[tuple[TableState, Snapshot | None]], now: int
) -> dict[str, dict[str, int]]:
    """Returns the customers whose rows must be left out of earlier states of tables, with their row counts, by table.

    Args:
        context: The lake.
        pinned: Tables, each with the snapshot that is read; those of the landing zone are skipped.
        now: The instant for which consent is evaluated, epoch milliseconds.

    Raises:
        KeyRefused: The lake's key, which is needed to identify a row's customer, is missing.
    """
    below = [(state, snapshot) for state, snapshot in pinned if snapshot is not None and concerns(state.name)]
    if not below:
        return {}
    catalog, key, found = context.catalog, context.key(), {}
    with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
        # the records of now, whatever moment the query asks for
        engine.bind_files(CUSTOMER.table, catalog.files(catalog.table(CUSTOMER.table)))
        # of each spelling the last records alone: the last ones of each customer are among them
        records = engine.stream(
            f"select distinct email, lastUpdateDate, shareWithResearchAsOfDate from {CUSTOMER.table} "
            "qualify lastUpdateDate = max(lastUpdateDate) over (partition by email)"
        )
        consents = consent.consenting(records, key, now)
        for state, snapshot in below:
            engine.bind_files("as_it_was", catalog.files(state, snapshot), table=state.name)
            first = f"epoch_ms(min({_read_at(context.config, state.name)}))"
            counted = engine.stream(f"select {PERSON}, count(*), {first} from as_it_was group by {PERSON}")
            found[state.name] = {
                person: count
                for person, count, at in counted
                if person not in consents or (at is not None and at < consents[person])
            }
    return found


def _read_at(config: Config, table: str) -> str:
    """Returns the SQL of the instant of a table's reading that must not be from before consent (rule 4), or of null."""
    times = {"timestamp", "sensorReadingTime"} & {column.name for column in ALL_COLUMNS[table]}
    return quoted(times.pop()) if times and config.readings == "since-consent" else "null::timestamptz"


def taken_out(
    config: Config, scratch: Path, table: str, older: Iterable[DataFile], agreeing: Iterable[DataFile]
) -> dict[str, frozenset[str]]:
    """Returns, by file, the customers whose rows a build has removed since.

    Args:
        config: The lake's settings.
        scratch: A folder for what does not fit into memory.
        table: The table.
        older: Files that the table no longer has.
        agreeing: The current files of `customers_trusted`.
    """
    paths = ", ".join(path_literal(file.path) for file in older)
    if not paths:
        return {}
    read = f"read_parquet([{paths}], filename = true, hive_partitioning = false)"
    with DuckDB.of(config, scratch) as engine:
        engine.bind_files("customers_trusted", agreeing)
        found: dict[str, set[str]] = {}
        for path, person in engine.stream(
            f"select distinct filename, {PERSON} from {read} as r left join (select {PERSON}, "
            f"shareWithResearchAsOfDate as since from customers_trusted) as c using ({PERSON}) "
            # whoever has left the table that all others follow, or has readings from before consent, not whoever has
            # lost this file's rows: those may lie elsewhere
            f"where c.since is null or {_read_at(config, table)} < c.since"
        ):
            found.setdefault(path, set()).add(person)
    return {path: frozenset(people) for path, people in found.items()}
