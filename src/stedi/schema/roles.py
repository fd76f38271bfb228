"""Roles: the tables that each role may query, and the classes of columns that are masked for it.

`query --role` makes its views from this small table; grants in other engines can be made from it, too. A masked column
is null in its own type. So a query returns the same columns and types for every role, no replacement can be mistaken
for a value, and no filter or join can reveal the masked values. A role limits what a query shows; it is not access
control: anybody who can read the lake's folder can read the files.
"""

from __future__ import annotations

from typing import Literal

from stedi._frozen import dataclass
from stedi.schema.contracts import PrivacyClass
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES, graph

Readings = Literal["all", "since-consent"]
"""Which readings of a consenting customer are used: rule 4 of consent."""
Role = Literal["scientist", "engineer", "officer"]
"""The role with which a query runs."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one role sees.

    Attributes:
        tables: The tables that it can query; other tables do not exist for it.
        masked: The classes of columns that are null in these tables.
    """

    tables: frozenset[str]
    masked: frozenset[PrivacyClass]


GRANTS: dict[Role, Grant] = {
    # sees the training table and the list of releases, but not the people in them; builds keep out of the training
    # table everything that would have to be masked
    "scientist": Grant(frozenset({"machine_learning_curated", "releases"}), frozenset()),
    # operates the lake: sees every row of every table without direct identifiers; raw bytes and unknown fields count
    # as such because they may hold names
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
    """Returns what each role sees, computed from `GRANTS` and the classes of the columns."""
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
