"""Tables as they were: from a snapshot's id or a time to the snapshot of each table that a query is to read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from stedi.catalog import Snapshot, TableState
from stedi.errors import UsageError


def pinned(states: Sequence[TableState], at: int | str | datetime | None) -> list[Snapshot | None]:
    """Returns the snapshot of each table at a snapshot's or a clock's time, by default the current ones.

    A snapshot's id belongs to one table; the others are read as the same build left them, else as they were when
    readers first saw that one: a build publishes its tables one after the other.
    """
    if at is None:
        return [state.current for state in states]
    if isinstance(at, int) or (isinstance(at, str) and at.isdigit()):
        # what a build staged and did not publish is nobody's to read
        named = next((s for state in states for s in state.published() if s.id == int(at)), None)
        if named is None:
            where = ", ".join(state.name for state in states) or "no table"
            raise UsageError(f"--at {at}: expected a live snapshot of {where}, found none; see `stedi history TABLE`")
        run = named.summary.get("stedi.run")
        return [state.snapshot(named.id) or _of_run(state, run) or _as_of(state, named.at) for state in states]
    moment = _moment(at)
    return [_as_of(state, moment) for state in states]


def _of_run(state: TableState, run: str | None) -> Snapshot | None:
    return next((s for s in state.published() if s.summary.get("stedi.run") == run), None) if run else None


def _as_of(state: TableState, moment: float) -> Snapshot:
    ids = [snapshot_id for when, snapshot_id in state.log if when <= moment]
    later = [state.snapshot(snapshot_id) for when, snapshot_id in state.log if when > moment]
    if not ids:
        raise UsageError(
            f"--at: {state.name} has no snapshot of that time: it is younger, or its snapshots of then have expired; "
            f"see `stedi history {state.name}`"
        )
    found = state.snapshot(ids[-1])
    # one that expired has left the log: what came after it has lost its parent
    if found is None or (later and (later[0] is None or state.snapshot(later[0].parent) is None)):
        raise UsageError(f"--at: {state.name}: the snapshot of that time has expired; see `stedi history {state.name}`")
    return found


def _moment(at: str | datetime) -> float:
    try:
        time = datetime.fromisoformat(at) if isinstance(at, str) else at
    except ValueError:
        raise UsageError(f"--at: expected a snapshot id or an ISO 8601 time, found {at!r}") from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp() * 1000
