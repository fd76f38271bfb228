"""Tags: names for one state of the tables below landing, which keep it from expiring.

It consists of an Iceberg tag of that name on each table. Maintenance keeps its snapshots, an erasure rewrites them
without the erased, and a key rotation removes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime

from stedi._frozen import dataclass
from stedi.catalog import Catalog, TableState
from stedi.catalog.snapshots import AS_OF
from stedi.context import Context
from stedi.errors import LakeError, UsageError
from stedi.schema.tables import ZONES

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
_TAGGED = tuple(name for name, zone in ZONES.items() if zone != "landing")


@dataclass(frozen=True, slots=True)
class Tag:
    """A tag: a name for one state of the tables below landing.

    Attributes:
        name: Its name.
        time: When the newest of its snapshots was published, UTC.
        snapshots: The snapshot of each table; a tag of another program may be on one table only.
    """

    name: str
    time: datetime
    snapshots: Mapping[str, int]


def refuse_name(name: str) -> None:
    """Refuses what is no name of a tag.

    Raises:
        UsageError: It is none.
    """
    # `main` is Iceberg's branch of the current snapshot
    if not _NAME.fullmatch(name) or name == "main":
        raise UsageError(
            "expected a letter, then up to 63 letters, digits, dots, underscores and hyphens, and not main, found "
            "something else; nothing was tagged",
            argument="name",
        )


def tag(context: Context, name: str) -> Tag:
    """Tags the current tables below landing; a table that has the tag already may keep it.

    Args:
        context: The lake; the caller keeps builds waiting.
        name: The name.

    Raises:
        UsageError: Something else has the name; nothing was changed.
        LakeError: The tables are not of one state: a build has not ended, or none was made.
    """
    catalog = context.catalog
    states = catalog.tables()
    taken = [state.name for state in states.values() if not _is_free(state, name)]
    if taken:
        raise UsageError(
            f"expected an unused name, found a tag or branch of that name on {', '.join(taken)}; choose another, or "
            f"delete the tag with `stedi tag --delete {name}`",
            argument="name",
        )
    for table, snapshot in _heads(states).items():
        if name not in states[table].tags:  # or the command was interrupted before
            catalog.tag(table, name, snapshot)
    return next(found for found in tags(catalog) if found.name == name)


def _is_free(state: TableState, name: str) -> bool:
    """Returns whether a table's current snapshot can be given a name, or has it already."""
    if name not in state.pins:
        return True
    return state.name in _TAGGED and state.current is not None and state.tags.get(name) == state.current.id


def _heads(states: Mapping[str, TableState]) -> dict[str, int]:
    """Returns the snapshot of each table to be tagged.

    Raises:
        LakeError: One was built from another state of its inputs than is published.
    """
    heads = {}
    for name in _TAGGED:
        current = states[name].current
        inputs = json.loads(current.summary.get("stedi.inputs", "null")) if current else None
        behind = inputs is None
        for read, watermark in (inputs or {}).items():
            later = states[read].since(watermark) if read in _TAGGED else ()
            # compaction commits snapshots that change no row: after one, a table is still up to date
            behind |= later is None or not all(snapshot.keeps_rows for snapshot in later)
        if behind or current is None:
            raise LakeError(
                f"{name}: expected a table that is up to date with its inputs, found one that is not; nothing was "
                "tagged: run `stedi build`"
            )
        heads[name] = current.id
    return heads


def tags(catalog: Catalog) -> tuple[Tag, ...]:
    """Returns every tag of a lake's tables, oldest first, including those of other programs."""
    found: dict[str, dict[str, int]] = {}
    times: dict[str, int] = {}
    for table, state in catalog.tables().items():
        for name, pinned in state.tags.items():
            snapshot = state.snapshot(pinned)
            if snapshot is not None:
                found.setdefault(name, {})[table] = pinned
                # an erasure writes the snapshots of tags again: `AS_OF` keeps the time of the state
                times[name] = max(times.get(name, 0), int(snapshot.summary.get(AS_OF, snapshot.at_ms)))
    names = sorted(found, key=lambda name: (times[name], name))
    return tuple(Tag(name, datetime.fromtimestamp(times[name] / 1000, UTC), found[name]) for name in names)


def untag(context: Context, name: str) -> Tag:
    """Deletes a tag; the next maintenance removes what only it has kept.

    Args:
        context: The lake; the caller keeps builds waiting.
        name: The name.

    Returns:
        The deleted tag.

    Raises:
        UsageError: There is no such tag.
    """
    for found in tags(context.catalog):
        if found.name == name:
            for table, snapshot in found.snapshots.items():
                context.catalog.untag(table, name, snapshot)
            return found
    raise UsageError("expected the name of an existing tag, found none of that name; see `stedi tag`", argument="name")


def ended_by_rotation(catalog: Catalog) -> tuple[str, ...]:
    """Returns the tags and branches of others that go with the pseudonyms of a key that another one follows."""
    states = catalog.tables()
    return tuple(sorted({name for table in _TAGGED for name in states[table].pins}))
