"""Privacy classes of columns: the contracts' classes, followed through the SQL to every table.

A column of a table below landing is as telling as the most telling column that its value was made from, in whatever
expression; what only filters, joins or orders rows is not in the value. Between an address and `customer_id` stands
the key: the pseudonym is an indirect identifier, not a direct one. SQLGlot resolves the names; the walk is here.
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
"""Columns that the engine adds to a view: made with the key, a number of this build alone, or a count."""

_OWN = {"_extra": PrivacyClass.DIRECT, "_file": PrivacyClass.OPERATIONAL}
"""Columns of a landing table beside the contract's; what is unknown may be anything."""

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
"""The class of each column of the tables that know releases; a subject's id tells people of one release apart."""

_BY_NAME = {
    **{field.name: field.privacy for contract in CONTRACTS.values() for field in contract.fields},
    "customer_id": PrivacyClass.INDIRECT,
}
"""The class of a column below landing in the package's own SELECTs: each carries landed fields under their names."""

CUSTOMERS = frozenset({"customers_trusted", "customers_curated"})
"""The tables below landing in which direct identifiers may stand (rule 7)."""
TRAINING = frozenset({"machine_learning_curated"})
"""The tables that models are trained on: of what tells who somebody is, the pseudonym alone may stand there."""

Origin = tuple[str, str]
"""Table and column, in lower case, that a value was made from; `PSEUDONYM` of a view of addresses is one, too."""


class ColumnLineage:
    """Where the values of a graph's columns come from.

    Args:
        graph: The SELECTs of the tables below landing.
    """

    def __init__(self, graph: Dag) -> None:
        self._graph = graph
        self._known: dict[str, dict[str, frozenset[Origin]]] = {}

    def origins(self, table: str) -> dict[str, frozenset[Origin]]:
        """Returns what each column of a table or view is made from in the landing zone, names in lower case.

        Raises:
            AuditFailed: Its SQL has a column that cannot be followed.
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
        """Returns the class of each column of a stored table, by its name as the table has it."""
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
        """Yields what the column at a place of a query's result is made from."""
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
            home = home.parent  # a subquery may name a column of the query around it
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
        raise KeyError(scope.expression.key)  # rows that come from a function have no columns to follow
    return scope.expression


def _names(scope: Scope) -> list[str]:
    return [name.lower() for name in _query(scope).named_selects]


CHECKED = "c370d59715195592"
"""What `fingerprint` says of the package's own SELECTs, which `tests/integration/test_classes.py` has followed.

So no build has to: importing SQLGlot and following columns takes a fifth of a second."""

_passed = {CHECKED}


def fingerprint(graph: Dag) -> str:
    """Returns 16 hex digits that change when any SELECT of a graph does."""
    all_of_them = " ".join(f"{table.name}={graph.fingerprint(table.name)}" for table in graph.tables())
    return hashlib.sha256(all_of_them.encode()).hexdigest()[:16]


def classes(graph: Dag, table: str) -> dict[str, PrivacyClass]:
    """Returns the class of each column of a stored table, by its name; of SELECTs that are known without SQLGlot."""
    if table in COLUMNS and table not in LANDED and fingerprint(graph) == CHECKED:
        return {column.name: _BY_NAME[column.name] for column in COLUMNS[table]}
    return ColumnLineage(graph).classes(table)


def check(graph: Dag) -> None:
    """Refuses SQL that would carry what tells who somebody is where it must not stand (rule 7).

    All of the graph is looked at whatever has changed of it: a column of one table may come from another's.

    Args:
        graph: The SELECTs of the tables below landing.

    Raises:
        AuditFailed: A direct identifier would reach a table other than the two customers tables, or a training table
            something that identifies beside the pseudonym; or a column cannot be followed.
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
    """Returns the class of a value made from these; of one made from nothing landed, operational."""
    found = {_class_of(origin) for origin in origins}
    return next((kind for kind in PrivacyClass if kind in found), PrivacyClass.OPERATIONAL)
