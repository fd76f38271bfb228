"""Time travel: from a snapshot's id, a tag or a time to the snapshot that a query reads of each table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from stedi.catalog import Snapshot, TableState
from stedi.errors import UsageError

_EPOCH = datetime.fromtimestamp(0, UTC)


def pinned(states: Sequence[TableState], at: int | str | datetime | None) -> list[Snapshot | None]:
    """Returns the snapshot of each table at a tag, or at a snapshot's or a clock's time; by default the current ones.

    A snapshot's id belongs to one table; the others are read as the same build left them, else as they were when
    readers first saw that one: a build publishes its tables one after the other.

    Raises:
        UsageError: `at` names nothing, or a table has no snapshot that it names.
    """
    if at is None:
        return [state.current for state in states]
    if isinstance(at, str) and any(at in state.tags for state in states):
        return [_tagged(state, at) for state in states]
    # an id has 63 bits; `isdigit` alone takes digits that `int` does not
    if isinstance(at, int) or (isinstance(at, str) and at.isascii() and at.isdigit() and len(at) < 20):
        # what a build staged and did not publish is nobody's to read
        named = next((s for state in states for s in state.published() if s.id == int(at)), None)
        if named is None:
            where = ", ".join(state.name for state in states) or "no table"
            raise UsageError(
                f"expected a live snapshot of {where}, found none of the id {at}; see `stedi history TABLE`",
                argument="at",
            )
        run = named.summary.get("stedi.run")
        return [state.snapshot(named.id) or _of_run(state, run) or _as_of(state, named.at_ms) for state in states]
    moment = _moment(at)
    return [_as_of(state, moment) for state in states]


def _tagged(state: TableState, name: str) -> Snapshot:
    found = state.snapshot(state.tags.get(name))
    if found is None:
        raise UsageError(f"{state.name} has no tag of that name; see `stedi tag`", argument="at")
    return found


def _of_run(state: TableState, run: str | None) -> Snapshot | None:
    return next((s for s in state.published() if s.summary.get("stedi.run") == run), None) if run else None


def _as_of(state: TableState, moment: int) -> Snapshot:
    ids = [snapshot_id for when, snapshot_id in state.log if when <= moment]
    later = [state.snapshot(snapshot_id) for when, snapshot_id in state.log if when > moment]
    if not ids:
        raise UsageError(
            f"{state.name} has no snapshot of that time: it is younger, or its snapshots of then have expired; see "
            f"`stedi history {state.name}`",
            argument="at",
        )
    found = state.snapshot(ids[-1])
    # one that expired has left the log: what came after it has lost its parent
    if found is None or (later and (later[0] is None or state.snapshot(later[0].parent) is None)):
        raise UsageError(
            f"{state.name}: the snapshot of that time has expired; see `stedi history {state.name}`", argument="at"
        )
    return found


def _moment(at: str | datetime) -> int:
    try:
        time = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        raise UsageError(f"expected a tag, a snapshot id or an ISO 8601 time, found {at!r}", argument="at") from None
    # integers all the way: `timestamp()` is a float, which rounds milliseconds
    return ((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH) // timedelta(milliseconds=1)
