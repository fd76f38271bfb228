"""Privacy classes of columns: the contracts' classes, followed through the SQL to every table.

A column of a table below landing has the strictest class of the columns that its value is computed from, in any
expression. Columns that only filter, join or order rows are not part of the value. `customer_id` is computed from an
address with a secret key, so the pseudonym is an indirect identifier, not a direct one. SQLGlot resolves the names;
this module follows them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from stedi.errors import AuditFailed
from stedi.schema.contracts import PrivacyClass
from stedi.schema.feeds import CONTRACTS
from stedi.schema.tables import COLUMNS, REGISTRY, Dag

if TYPE_CHECKING:
    from sqlglot import exp
    from sqlglot.optimizer.scope import Scope

PSEUDONYM = "customer_id"
_BY_THE_ENGINE = {
    **dict.fromkeys(("people", "wearers"), (PSEUDONYM, "person")),
    "erased_claims": ("claimants",),
}
"""Columns that the engine adds to a view: a pseudonym made with the key, a number used in one build, or a count."""

_OWN = {"_extra": PrivacyClass.DIRECT, "_file": PrivacyClass.OPERATIONAL}
"""Columns of a landing table that are not in the contract; unknown fields may hold anything."""

LANDED: Mapping[str, Mapping[str, PrivacyClass]] = {
    **{
        contract.table: {**{field.name: field.privacy for field in contract.fields}, **_OWN}
        for contract in CONTRACTS.values()
    },
    "quarantine": {
        column.name: PrivacyClass.DIRECT if column.name == "raw" else PrivacyClass.OPERATIONAL
        for column in COLUMNS["quarantine"]
    },
    "landed_files": {column.name: PrivacyClass.OPERATIONAL for column in COLUMNS["landed_files"]},
}
"""The class of each column of the landing zone."""
REGISTERED: Mapping[str, Mapping[str, PrivacyClass]] = {
    table: {
        column.name: PrivacyClass.INDIRECT if column.name == "subject" else PrivacyClass.OPERATIONAL
        for column in columns
    }
    for table, columns in REGISTRY.items()
}
"""The class of each column of the release tables; a subject's id tells the people of one release apart."""

_BY_NAME = {
    **{field.name: field.privacy for contract in CONTRACTS.values() for field in contract.fields},
    "customer_id": PrivacyClass.INDIRECT,
}
"""The class of a column below landing in the package's own SELECTs, which keep the names of landed fields."""

CUSTOMERS = frozenset({"customers_trusted", "customers_curated"})
"""The tables below landing that may hold direct identifiers (rule 7)."""
TRAINING = frozenset({"machine_learning_curated"})
"""The tables that models are trained on: the only identifier that they may hold is the pseudonym."""

Origin = tuple[str, str]
"""Table and column, in lower case, from which a value was made; `PSEUDONYM` of a view of addresses is also one."""


class ColumnLineage:
    """Where the values of a graph's columns come from.

    Args:
        graph: The SELECTs of the tables below landing.
    """

    def __init__(self, graph: Dag) -> None:
        self._graph = graph
        self._known: dict[str, dict[str, frozenset[Origin]]] = {}

    def origins(self, table: str) -> dict[str, frozenset[Origin]]:
        """Returns for each column of a table or view the landed columns that it is made from, names in lower case.

        Raises:
            AuditFailed: Its SQL has a column that cannot be traced to its source.
        """
        name = table.lower()
        if name not in self._known:
            select = next((s for s in self._graph.selects.values() if s.name.lower() == name), None)
            if select is None:
                columns = next((found for known, found in COLUMNS.items() if known.lower() == name), ())
                self._known[name] = {
                    column.name.lower(): frozenset({(name, column.name.lower())}) for column in columns
                }
            else:
                found = self._followed(select.name, select.tree(), {read.lower() for read in select.reads})
                added = {column: frozenset({(name, column)}) for column in _BY_THE_ENGINE.get(name, ())}
                self._known[name] = {**found, **added}
        return self._known[name]

    def classes(self, table: str) -> dict[str, PrivacyClass]:
        """Returns the class of each column of a stored table, by the column's name in the table."""
        if table in LANDED or table in REGISTERED:
            return dict(LANDED.get(table) or REGISTERED[table])
        origins = self.origins(table)
        return {column.name: _strictest(origins[column.name.lower()]) for column in COLUMNS[table]}

    def _followed(self, table: str, tree: exp.Expr, reads: set[str]) -> dict[str, frozenset[Origin]]:
        from sqlglot.errors import SqlglotError
        from sqlglot.optimizer.qualify import qualify
        from sqlglot.optimizer.scope import build_scope

        schema: dict[str, object] = {read: dict.fromkeys(self.origins(read), "text") for read in reads}
        try:
            scope = build_scope(qualify(tree, dialect="duckdb", schema=schema, quote_identifiers=False))
            assert scope is not None, "a SELECT has a scope"
            return {name: frozenset(self._of_output(scope, place)) for place, name in enumerate(_names(scope))}
        except (SqlglotError, KeyError, ValueError) as error:
            raise AuditFailed(
                f"{table}: expected SQL in which every column can be traced to its source, found one that cannot "
                f"({type(error).__name__}); name each column by its table; nothing was published"
            ) from error

    def _of_output(self, scope: Scope, place: int) -> Iterator[Origin]:
        """Yields the origins of the column at a position of a query's result."""
        for part in scope.set_operation_scopes:
            yield from self._of_output(part, place)
        if not scope.set_operation_scopes:
            yield from self._of_expression(scope, _query(scope).selects[place])

    def _of_expression(self, scope: Scope, expression: exp.Expr) -> Iterator[Origin]:
        from sqlglot import exp

        inner = [
            (part, column) for query in scope.subquery_scopes for part in query.traverse() for column in part.columns
        ]
        homes = {id(column): part for part, column in inner}
        for column in expression.find_all(exp.Column):
            yield from self._of_column(homes.get(id(column), scope), column.table, column.name.lower())

    def _of_column(self, scope: Scope, table: str, column: str) -> Iterator[Origin]:
        from sqlglot.optimizer.scope import Scope

        home: Scope | None = scope
        while home is not None and table not in home.sources:
            home = home.parent  # a subquery may name a column of its outer query
        if home is None:
            raise KeyError(table)
        source = home.sources[table]
        if isinstance(source, Scope):
            yield from self._of_output(source, _names(source).index(column))
        else:
            yield from self.origins(source.name)[column]


def _query(scope: Scope) -> exp.Query:
    from sqlglot import exp

    if not isinstance(scope.expression, exp.Query):
        raise KeyError(scope.expression.key)  # rows that come from a function have no columns to trace
    return scope.expression


def _names(scope: Scope) -> list[str]:
    return [name.lower() for name in _query(scope).named_selects]


CHECKED = "c370d59715195592"
"""The `fingerprint` of the package's own SELECTs, whose columns `tests/integration/test_classes.py` has traced.

So no build has to trace them: importing SQLGlot and tracing the columns takes a fifth of a second."""

_passed = {CHECKED}


def fingerprint(graph: Dag) -> str:
    """Returns 16 hex digits that change when any SELECT of a graph does."""
    all_of_them = " ".join(f"{table.name}={graph.fingerprint(table.name)}" for table in graph.tables())
    return hashlib.sha256(all_of_them.encode()).hexdigest()[:16]


def classes(graph: Dag, table: str) -> dict[str, PrivacyClass]:
    """Returns the class of each column of a stored table, by its name; the package's own SELECTs need no SQLGlot."""
    if table in COLUMNS and table not in LANDED and fingerprint(graph) == CHECKED:
        return {column.name: _BY_NAME[column.name] for column in COLUMNS[table]}
    return ColumnLineage(graph).classes(table)


def check(graph: Dag) -> None:
    """Refuses SQL that would put an identifier into a table that must not hold it (rule 7).

    The whole graph is checked, whichever part has changed: a column of one table may come from another table.

    Args:
        graph: The SELECTs of the tables below landing.

    Raises:
        AuditFailed: A direct identifier would reach a table other than the two customers tables, an identifier other
            than the pseudonym would reach a training table, or a column cannot be traced to its source.
    """
    if fingerprint(graph) in _passed:
        return
    lineage = ColumnLineage(graph)
    for table in (table.name for table in graph.tables()):
        if table in CUSTOMERS:
            continue
        followed = lineage.origins(table)
        for column in (column.name for column in COLUMNS[table]):
            origins = followed.get(column.lower(), frozenset())
            found = sorted(origin for origin in origins if not _may_stand(table, origin))
            if found:
                kind = _class_of(found[0])
                expected = "the pseudonym and readings alone" if table in TRAINING else "no direct identifier"
                raise AuditFailed(
                    f"{table}.{column}: expected {expected}, found its SQL to carry "
                    f"{', '.join('.'.join(origin) for origin in found)} ({kind}) there; nothing was published"
                )
    _passed.add(fingerprint(graph))


def _may_stand(table: str, origin: Origin) -> bool:
    kind = _class_of(origin)
    if table in TRAINING:
        pseudonym = origin[0] in _BY_THE_ENGINE and origin[1] == PSEUDONYM
        return pseudonym or kind in (PrivacyClass.SENSOR, PrivacyClass.OPERATIONAL)
    return kind is not PrivacyClass.DIRECT


def _class_of(origin: Origin) -> PrivacyClass:
    table, column = origin
    if table in _BY_THE_ENGINE:
        return PrivacyClass.INDIRECT
    known = {name.lower(): kind for name, kind in LANDED[table].items()}
    return known[column]


def _strictest(origins: Iterable[Origin]) -> PrivacyClass:
    """Returns the class of a value made from these origins; `OPERATIONAL` if there are none."""
    found = {_class_of(origin) for origin in origins}
    return next((kind for kind in PrivacyClass if kind in found), PrivacyClass.OPERATIONAL)
