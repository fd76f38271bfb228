"""The recorded inputs of each table, followed down to landing: the state by which its rows are judged.

A table is judged by the landing snapshots, the clock and the policy that its own snapshot records. So the proof holds
for a lake in which landings wait for a build, and for one whose build died while publishing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping

from stedi._frozen import dataclass
from stedi.catalog import Snapshot, TableState
from stedi.schema.tables import ZONES

FEEDS = ("customers_landing", "accelerometer_landing", "step_trainer_landing")
BELOW = tuple(name for name, zone in ZONES.items() if zone != "landing")


@dataclass(frozen=True, slots=True)
class AsOf:
    """The inputs from which rows below landing are made.

    Attributes:
        feeds: The snapshot of each landing table; a missing one counts as empty.
        started: The clock of rule 3, epoch milliseconds.
        since_consent: Whether rule 4 leaves out readings from before the consent date.
    """

    feeds: Mapping[str, int]
    started: int
    since_consent: bool


def built(state: TableState) -> bool:
    """Returns whether a build has written a table."""
    return state.current is not None and "stedi.inputs" in state.current.summary


def inputs(snapshot: Snapshot) -> dict[str, int]:
    """Returns the snapshot of each table from which, by its own record, a snapshot was built."""
    found: dict[str, int] = json.loads(snapshot.summary.get("stedi.inputs", "{}"))
    return found


def base(states: Mapping[str, TableState], name: str) -> AsOf:
    """Returns the inputs of a table, followed through the tables between it and landing.

    If it reads a landing table by two paths that were pinned at different times, the later snapshot counts: if the
    later snapshot had changed the table on the other path, that table would have been built again.
    """
    current = states[name].current
    assert current is not None, "asked of built tables alone"
    feeds: dict[str, int] = {}
    todo, seen = [current], set[int]()
    while todo:
        for read, snapshot_id in inputs(todo.pop()).items():
            if read in FEEDS:
                feeds[read] = _later(states[read], feeds.get(read), snapshot_id)
            elif read in states and snapshot_id not in seen:
                # tables have inputs in common; each is followed once
                seen.add(snapshot_id)
                found = states[read].snapshot(snapshot_id)
                todo += [found] if found else []
    return AsOf(feeds, *_policy(current))


def newest(states: Mapping[str, TableState], bases: Mapping[str, AsOf]) -> AsOf:
    """Returns the inputs of the last build: clock and customers of the table published first, the newest readings.

    The last build left out only tables that these inputs do not change. So all tables must be correct by these inputs,
    unless the build died between two publications.
    """
    first = bases[BELOW[0]] if BELOW[0] in bases else next(iter(bases.values()))
    feeds = dict(first.feeds)
    for other in bases.values():
        for read, snapshot_id in other.feeds.items():
            if read != FEEDS[0] or read not in feeds:
                feeds[read] = _later(states[read], feeds.get(read), snapshot_id)
    return AsOf(feeds, first.started, first.since_consent)


def watermarks(states: Mapping[str, TableState], name: str) -> int:
    """Counts the recorded inputs of a table that are missing, never existed, or no longer exist."""
    state = states[name]
    if not built(state):
        return 1 if state.current is not None and state.current.total("records") else 0
    assert state.current is not None
    needed = {"stedi.run", "stedi.started", "stedi.policy", "stedi.sql"} - state.current.summary.keys()
    recorded = inputs(state.current)
    # the content of a missing snapshot is unknown; readers have never seen one that is not on `main`
    lost = [read for read, id_ in recorded.items() if read not in states or states[read].since(id_) is None]
    return len(needed) + len(lost) + (not recorded)


def due(states: Mapping[str, TableState], now: int, policy: str) -> tuple[str, ...]:
    """Returns the tables that a build would check again: their inputs, a consent date or the policy have changed.

    Args:
        states: The tables now.
        now: The clock, epoch milliseconds.
        policy: The policy of the settings, as builds record it.
    """
    # not asked of `transform.planning`: the proof shares no code with the build
    found = []
    for name in BELOW:
        current = states[name].current
        if not built(states[name]) or current is None or current.summary.get("stedi.policy") != policy:
            found.append(name)
            continue
        passed = int(current.summary.get("stedi.next-consent-at", now + 1)) <= now
        back = int(current.summary.get("stedi.last-consent-at", now)) > now
        moved = any(_moved(states[read].since(id_)) for read, id_ in inputs(current).items() if read in states)
        above = any(read in found for read in inputs(current))
        if passed or back or moved or above:
            found.append(name)
    return tuple(found)


def settled(states: Mapping[str, TableState], pending: Iterable[str]) -> dict[str, Snapshot]:
    """Returns the newest snapshot of each landing table that does not come from an unfinished landing.

    Args:
        states: The tables.
        pending: Batches that may be committed to some of their tables but not to all.
    """
    batches = set(pending)
    found = {}
    for name, state in states.items():
        if ZONES.get(name) == "landing":
            # a landing is in all of its tables or, to the proof, in none
            history = (s for s in state.history() if s.summary.get("stedi.batch") not in batches)
            snapshot = next(history, None)
            if snapshot is not None:
                found[name] = snapshot
    return found


def _policy(snapshot: Snapshot) -> tuple[int, bool]:
    summary = snapshot.summary
    return int(summary.get("stedi.started", 0)), "readings=since-consent" in summary.get("stedi.policy", "").split()


def _later(state: TableState, one: int | None, other: int) -> int:
    """Returns the later one of two snapshots of a table; a snapshot that is no longer known counts as earlier."""
    places = {snapshot.id: -place for place, snapshot in enumerate(state.history())}
    # before every known one
    unknown = -len(places)
    return other if one is None or places.get(other, unknown) > places.get(one, unknown) else one


def _moved(later: tuple[Snapshot, ...] | None) -> bool:
    changes = ("added-records", "deleted-records")
    return later is None or any(
        int(s.summary.get(what, 0)) for s in later if s.operation != "replace" for what in changes
    )
