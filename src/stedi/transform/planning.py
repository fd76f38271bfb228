"""The build plan: what to do to each table, from its recorded lineage; reads no rows.

Lineage in a table's published snapshot -> the increment of each input since then -> a step with its reason.
An increment of appends is followed at the price of what it brought; anything else that happened to an input, and
changed SQL, policy or key, means a rebuild. Watermarks are snapshots, never times.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

from stedi._frozen import dataclass, field
from stedi.catalog import Snapshot, TableState
from stedi.schema.tables import Dag
from stedi.storage.config import Config

Action = Literal["none", "append", "by-customer", "rebuild"]

_RECORDS_OF_PEOPLE = "customers_landing"
"""The input of which every new record may change rows in all tables below."""


CLAIMS = "stedi.claims"
"""The property of a snapshot that tells with which claims of erased customers it was built; absent if with none."""
ERASED_CLAIMS = "erased_claims"
"""The view of the serial numbers that erased customers claimed, of which no landed record tells."""


@dataclass(frozen=True, slots=True)
class Increment:
    """The change of one input since a table was built from it.

    Attributes:
        since: The snapshot that the table was built from.
        appended: The snapshots that added rows, oldest first.
    """

    since: Snapshot
    appended: tuple[Snapshot, ...]

    @property
    def rows(self) -> int:
        """Rows added."""
        return sum(int(snapshot.summary["added-records"]) for snapshot in self.appended)

    @property
    def bytes(self) -> int:
        """Size of the files added."""
        return sum(int(snapshot.summary["added-files-size"]) for snapshot in self.appended)


@dataclass(frozen=True, slots=True)
class Step:
    """What a build does, or would do, to one table, and why.

    Attributes:
        table: The table.
        action: `none`, `append`, `by-customer` (some customers' rows are removed and rewritten) or `rebuild`.
            A plan says what the inputs suggest; a build that finds no row to remove appends.
        reason: Why.
        increments: The change of each input, unless the table is rebuilt.
    """

    table: str
    action: Action
    reason: str
    increments: Mapping[str, Increment] = field(default_factory=dict, repr=False)


def policy(config: Config) -> str:
    """Returns what determines every table's rows besides SQL and inputs: consent policy and key."""
    return f"readings={config.readings} key={config.key_fingerprint}"


def knows_claims(table: str, graph: Dag) -> bool:
    """Returns whether the claims of erased customers decide rows of a table."""
    return ERASED_CLAIMS in graph.upstream(table)


def built_with(states: Mapping[str, TableState], claims: str, graph: Dag) -> tuple[str, ...]:
    """Returns the tables that such claims decide, and that were built with exactly these."""
    built = {table.name: current.summary for table in graph.tables() if (current := states[table.name].current)}
    return tuple(
        name
        for name, summary in built.items()
        if "stedi.run" in summary and knows_claims(name, graph) and summary.get(CLAIMS, "") == claims
    )


def plan(
    states: Mapping[str, TableState], config: Config, now: int, *, full: bool, graph: Dag, claims: str | None
) -> tuple[Step, ...]:
    """Returns what a build would do to each table, in build order; the arguments are those of `transform.plan`."""
    steps: dict[str, Step] = {}
    for table in graph.tables():
        steps[table.name] = (
            Step(table.name, "rebuild", "asked for")
            if full
            else _step(table.name, states, steps, config, now, graph, claims)
        )
    return tuple(steps.values())


def _step(
    name: str,
    states: Mapping[str, TableState],
    steps: Mapping[str, Step],
    config: Config,
    now: int,
    graph: Dag,
    claims: str | None,
) -> Step:
    current = states[name].current
    built = current.summary if current else {}
    if "stedi.run" not in built:
        # the snapshot that `init` makes has no parent
        foreign = current is not None and current.parent is not None
        return Step(name, "rebuild", "another program has changed it" if foreign else "first time")
    if built["stedi.sql"] != graph.fingerprint(name):
        return Step(name, "rebuild", "its SQL has changed")
    if built["stedi.policy"] != policy(config):
        return Step(name, "rebuild", "the consent policy or the key has changed")
    # one that was built before this was recorded knew of none, if the lake has none; of others nobody can tell
    if claims is not None and knows_claims(name, graph) and built.get(CLAIMS, "") != claims:
        return Step(name, "rebuild", "it was built with other claims of erased customers to devices")
    watermarks = json.loads(built["stedi.inputs"])
    increments: dict[str, Increment] = {}
    news: list[str] = []
    action: Action = "append"
    for read in graph.inputs(name):
        above = steps.get(read)
        if above is not None and above.action == "rebuild":
            return Step(name, "rebuild", f"{read} is rebuilt")
        increment = _increment(states[read], watermarks.get(read))
        if isinstance(increment, str):
            return Step(name, "rebuild", f"{read} {increment}")
        increments[read] = increment
        if increment.rows:
            news.append(f"{read} has {increment.rows:,} new row{'s' * (increment.rows > 1)}")
        elif above is not None and above.action != "none":
            news.append(f"{read} changes")
        if (increment.rows and read == _RECORDS_OF_PEOPLE) or (above is not None and above.action == "by-customer"):
            action = "by-customer"
    passed = _consent_passed(built, now)
    if passed:
        news.append(passed)
        action = "by-customer"
    if not news:
        return Step(name, "none", "nothing has changed", increments)
    return Step(name, action, "; ".join(news), increments)


def _increment(state: TableState, watermark: int | None) -> Increment | str:
    """Returns what has happened to an input since a snapshot of it, or why that cannot be followed."""
    since = None if watermark is None else state.snapshot(watermark)
    later = state.since(watermark) if since is not None else None
    if since is None or later is None:
        return "no longer has the snapshot that this was built from"
    # of an overwrite nobody can tell which rows are new: its files mix them with rows that stayed
    odd = next((snapshot.operation for snapshot in later if snapshot.operation not in ("append", "replace")), None)
    if odd:
        return f"has changed otherwise than by new rows ({odd})"
    appended = tuple(s for s in later if s.operation == "append" and int(s.summary.get("added-records", 0)))
    return Increment(since, appended)


def _consent_passed(built: Mapping[str, str], now: int) -> str:
    """Returns the consent date between the start of the last build and of this one, in words, or an empty text."""
    if int(built.get("stedi.next-consent-at", now + 1)) <= now:
        return "a consent date has come"
    if int(built.get("stedi.last-consent-at", now)) > now:
        return "the clock has gone back behind a consent date"
    return ""


def recalled(state: TableState, what: str) -> int:
    """Returns a count that a build has kept with a table, 0 before the first."""
    return int(state.current.summary.get(what, 0)) if state.current else 0


def rows(state: TableState) -> int:
    """Returns how many rows a table has."""
    return state.current.total("records") if state.current else 0
