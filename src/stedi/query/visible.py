"""What a query may see of a lake: the tables that its role may read, their columns, and whose rows are left out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from stedi.catalog import time_travel
from stedi.context import Context, milliseconds
from stedi.context.access import Note
from stedi.errors import QueryRefused, UsageError
from stedi.query.execution import QueryTable
from stedi.schema import classification
from stedi.schema.roles import GRANTS, Role
from stedi.schema.tables import DUCKDB_TYPES, graph


def refuse_as_published(role: Role, at: int | str | datetime | None) -> None:
    """Refuses a query of everything that was published, but by an officer and of an earlier state.

    Raises:
        UsageError: The role is another one, or no earlier state is asked for, which alone leaves anybody out.
    """
    if role != "officer":
        raise UsageError(f"expected the role officer, found {role}; nothing was run", argument="as_published")
    if at is None:
        raise UsageError("expected --at with a tag, snapshot or time, found none", argument="as_published")


def tables(
    context: Context,
    role: Role,
    names: frozenset[str],
    *,
    at: int | str | datetime | None = None,
    as_published: bool = False,
    places: bool = False,
    note: Note | None = None,
) -> list[QueryTable]:
    """Returns the named tables as a role sees them; unknown names are skipped.

    Args:
        context: The lake.
        role: Columns that it may not see are null.
        names: The tables.
        at: The state to read. Of an earlier one, rows of people who do not consent now are left out.
        as_published: Leave out nobody; `refuse_as_published` has judged it.
        places: Whether each row also has its file and its row number there.
        note: The entry of the access log, which is begun before any row can be read.

    Raises:
        KeyRefused: The lake's key is needed to know who consents now.
        UsageError: There is no such role, or a table has no live snapshot of that time.
        QueryRefused: The role may not query a table.
        LakeError: The access must be logged and cannot be.
    """
    if role not in GRANTS:
        raise UsageError(f"expected one of {', '.join(GRANTS)}, found {role!r}", argument="role")
    grant = GRANTS[role]
    states = [state for state in context.catalog.tables().values() if state.name in names]
    hidden = [state.name for state in states if state.name not in grant.tables]
    if hidden:
        raise QueryRefused(
            f"The role {role} may query {', '.join(sorted(grant.tables))}; found {', '.join(hidden)}. Nothing was run."
        )
    pinned = list(zip(states, time_travel.pinned(states, at), strict=True))
    without: Mapping[str, Mapping[str, int]] = {}
    if at is not None and not as_published:
        from stedi.query import withdrawn

        without = withdrawn.left_out(context, pinned, milliseconds(datetime.now(UTC)))
    if note is not None:
        note.tables = {state.name: snapshot.id if snapshot else None for state, snapshot in pinned}
        # written before a row is read
        note.begin()
    seen = []
    for state, snapshot in pinned:
        columns = tuple((column.name, DUCKDB_TYPES[column.type]) for column in state.columns)
        files = tuple(file.path for file in context.catalog.files(state, snapshot)) if snapshot else ()
        kinds = classification.classes(graph(), state.name) if grant.masked else {}
        masked = frozenset(name for name, kind in kinds.items() if kind in grant.masked)
        seen.append(QueryTable(state.name, files, columns, masked, places, without.get(state.name, {})))
    return seen
