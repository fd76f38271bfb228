"""Roles: for each the tables that it may query and the classes of columns that are masked.

One small table, from which `query --role` makes its views and other engines' grants can be made. A masked column is
null in its own type: a query keeps its shape and its types whoever runs it, nothing that looks like a value stands
there, and no filter or join can find out what was there. A role says what a query shows; it is no lock: who may read
the lake's folder may read the files.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from stedi.schema.contracts import PrivacyClass
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, graph

Readings = Literal["all", "since-consent"]
"""Which readings of a consenting customer are used: rule 4 of consent."""
Role = Literal["scientist", "engineer", "officer"]
"""Whose eyes a query has."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one role sees.

    Attributes:
        tables: The tables; any other is not there.
        masked: The classes of column that are null in them.
    """

    tables: frozenset[str]
    masked: frozenset[PrivacyClass]


GRANTS: dict[Role, Grant] = {
    # trains on what may be trained on, and knows of what releases there are, not who is in them; builds let nothing in
    # that would have to be masked
    "scientist": Grant(frozenset({"machine_learning_curated", "releases"}), frozenset()),
    # keeps the lake going: every row of every table, of nobody by name; raw bytes and unknown fields may hold names
    "engineer": Grant(frozenset(ALL_COLUMNS), frozenset({PrivacyClass.DIRECT})),
    # answers to customers and regulators
    "officer": Grant(frozenset(ALL_COLUMNS), frozenset()),
}
"""The grant of each role."""


@dataclass(frozen=True, slots=True)
class VisibleTable:
    """A table as a role sees it.

    Attributes:
        name: Its name.
        zone: Its zone.
        columns: The columns whose values it sees.
        masked: The columns that are null for it.
    """

    name: str
    zone: str
    columns: tuple[str, ...]
    masked: tuple[str, ...]


def visible() -> dict[Role, tuple[VisibleTable, ...]]:
    """Returns what each role sees, worked out from `GRANTS` and the classes of the columns."""
    from stedi.schema import classification

    kinds = {name: classification.classes(graph(), name) for name in ALL_COLUMNS}
    return {
        role: tuple(
            VisibleTable(
                name,
                zone,
                tuple(column for column, kind in kinds[name].items() if kind not in grant.masked),
                tuple(column for column, kind in kinds[name].items() if kind in grant.masked),
            )
            for name, zone in ALL_ZONES.items()
            if name in grant.tables
        )
        for role, grant in GRANTS.items()
    }
