"""The engine session of a build over pinned tables: views over whole tables, and inputs in earlier states.

What `incremental`, `previewing` and the build itself share. It reads; files are written by the build alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence

from stedi._frozen import dataclass
from stedi.catalog import TableState
from stedi.context import Context
from stedi.engines import Engine, Enumerating
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.schema.tables import CONSENT_FROM, Dag, DataFile, rebind
from stedi.transform.ahead import Ahead
from stedi.transform.planning import ERASED_CLAIMS, Increment

WITHIN = {"machine_learning_curated": ("accelerometer_trusted", "step_trainer_trusted")}
"""Tables in which a customer's rows depend only on that customer's rows of these tables."""
_WEARERS = "wearers"
_BY_SERIAL = {"shared_steps": "step_trainer_landing", "shared_readings": "shared_steps"}
"""Views in which the rows of a serial number depend only on that serial number's rows of another relation."""
_OF_ADDRESSES = ("people", _WEARERS)
"""Views to which the engine adds the customer of each address."""


class BuildSession:
    """What one build, or its preview, reads.

    Args:
        engine: The engine, without any table yet.
        context: The lake.
        key: The lake's pseudonym key.
        graph: The SQL tables.
        states: The tables' pinned states.
        now: The start of the build, epoch milliseconds.
    """

    def __init__(
        self, engine: Engine, context: Context, key: Key, graph: Dag, states: Mapping[str, TableState], now: int
    ) -> None:
        self.engine, self.graph = engine, graph
        self.parameters: dict[str, str | int] = {"build_started": now, "readings": context.config.readings}
        self._catalog, self._key, self._states = context.catalog, key, states
        self._root = context.root
        self._consent_dates: tuple[int | None, int | None] | None = None
        self._views: set[str] = set()
        self._read: dict[str, Callable[[], None]] = {}
        self._made: dict[str, Callable[[], None]] = {}
        self._looked_back: dict[str, tuple[int, list[int], list[str], bool]] = {}
        stored = {name for select in graph.tables() for name in (select.name, *graph.inputs(select.name))}
        for name in stored:
            # all of them now, so that a missing file is noticed before anything is computed
            engine.bind_files(name, self._catalog.files(states[name]))

    def read_ahead(self, table: str, ahead: Ahead) -> None:
        """Has the addresses in readings read for a table that is built as a whole: all other views are soon made."""
        if ahead.is_active and _WEARERS in self.graph.upstream(table) and _WEARERS not in self._read:
            sql = self.over(_WEARERS)
            self._read[_WEARERS] = ahead.begin(lambda engine: engine.materialize(f"{_WEARERS}__read", sql))

    def view_ahead(self, table: str, ahead: Ahead) -> None:
        """Has the views made that a table reads as a whole, before its turn; those of addresses are made at once."""
        under = self.graph.upstream(table)
        for view in _OF_ADDRESSES:
            if view in under:
                self.view(view)
        other = copy.copy(self)

        def make(engine: Engine) -> None:
            other.engine = engine
            for view in sorted(under):
                other.view(view)

        self._made[table] = ahead.begin(make)

    def started(self, table: str) -> int:
        """Returns the start of the build that a table was last built by, epoch milliseconds."""
        current = self._states[table].current
        assert current is not None, "a table that was never built is rebuilt"
        return int(current.summary["stedi.started"])

    def consent_dates(self) -> tuple[int | None, int | None]:
        """Returns the last consent date until the start of the build and the first after it, epoch milliseconds."""
        if self._consent_dates is None:
            now = self.parameters["build_started"]
            [self._consent_dates] = self.engine.rows(
                f"select max(since) filter (where since <= {now}), min(since) filter (where since > {now}) "
                f"from (select {CONSENT_FROM} as since from customers_landing)"
            )
        return self._consent_dates

    def look_back(
        self, read: str, increment: Increment, gained: Sequence[DataFile] = (), *, staged: bool = False
    ) -> None:
        """Makes the state of an input at a watermark readable as `__old`, and rows added since as `__added`.

        Args:
            read: The input.
            increment: Its changes since then.
            gained: Files that this build has added to it.
            staged: Whether this build has computed it; otherwise nobody has lost rows, and `__gone` is empty.
        """
        of = (increment.since.id, [s.id for s in increment.appended], [file.path for file in gained], staged)
        if self._looked_back.get(read) == of:  # for another table
            return
        self._looked_back[read] = of
        state = self._states[read]
        self.engine.bind_files(f"{read}__old", self._catalog.files(state, increment.since), table=read)
        self.engine.bind_files(f"{read}__added", (*self._catalog.added(state, increment.appended), *gained), table=read)
        if not staged:
            self.engine.view(f"{read}__gone", "select null::varchar as customer_id where false")

    def since(self, read: str) -> int:
        """Returns the snapshot after which the rows of an input's `__added` came."""
        return self._looked_back[read][0]

    def over(self, select: str, **relations: str) -> str:
        """Returns a SELECT of the graph over other relations, its parameters filled in."""
        return rebind(self.graph.selects[select].sql, relations, self.parameters)

    def whole(self, table: str) -> str:
        """Returns a table's SELECT over whole tables, the views that it reads made."""
        if table in self._made:
            self._made.pop(table)()
        for view in sorted(self.graph.upstream(table)):
            self.view(view)
        return self.over(table)

    def parts(self, table: str, of: int) -> list[str]:
        """Returns a table's SELECT over whole tables; of a large one several, each over some customers' rows.

        Args:
            table: The table.
            of: Rows of the largest table that it reads.
        """
        relations = divided(self.engine, WITHIN.get(table, ()), of if table in WITHIN else 0)
        if len(relations) == 1:
            return [self.whole(table)]
        customers = "select distinct customer_id from customers_trusted where customer_id is not null order by all"
        if isinstance(self.engine, Enumerating) and self.engine.enumerate("trusted_customer", customers):
            return [self._numbered(table, some) for some in relations]
        return [self.over(table, **some) for some in relations]

    def _numbered(self, table: str, relations: Mapping[str, str]) -> str:
        """Returns a table's SELECT over relations whose customers it joins as numbers: texts take thrice the memory.

        Rows of anybody who is not in `customers_trusted` find no others; the checks of the inputs report them.
        """
        for relation in relations.values():
            numbered = "* replace (try_cast(customer_id as trusted_customer) as customer_id)"
            self.engine.view(f"{relation}__numbered", f"select {numbered} from {relation}")
        sql = self.over(table, **{name: f"{relation}__numbered" for name, relation in relations.items()})
        return f"select * replace (customer_id::varchar as customer_id) from ({sql}\n)"

    def view(self, name: str) -> None:
        """Makes a view of the graph readable over whole tables, with those under it, once; a stored table is."""
        under = self.graph.upstream(name) | {name} if name in self.graph.selects else frozenset[str]()
        for view in self.graph.order():
            if view in under and view not in self._views and self.graph.selects[view].zone == "views":
                sql = self.over(view)
                if view in self._read:
                    self._read[view]()
                    sql = f"select address from {view}__read"
                if view in _BY_SERIAL and (parts := self._serial_parts()) > 1:
                    self._materialize_by_serial(view, parts)
                else:
                    self.materialize(view, sql)
                self._views.add(view)

    def _serial_parts(self) -> int:
        """Returns in how many parts readings of shared serial numbers are made distinct and joined."""
        current, at_once = self._states["step_trainer_landing"].current, self.engine.at_once
        # each part reads all serial numbers, and with smaller parts training rows would take as much memory
        return current.total("records") // (3 * at_once) + 1 if current and at_once else 1

    def _materialize_by_serial(self, view: str, parts: int) -> None:
        """Computes a view of shared serial numbers in parts, each with some of these: whole, it takes all memory."""
        read, made = _BY_SERIAL[view], [f"{view}__part_{number}" for number in range(parts)]
        for number, part in enumerate(made):
            some = f"{read}__of_{part}"
            self.engine.view(some, f"select * from {read} where hash(serialNumber) % {parts} = {number}")
            self.materialize(part, self.over(view, **{read: some}))
        self.engine.view(view, " union all ".join(f"select * from {part}" for part in made))

    def materialize(self, view: str, sql: str) -> None:
        """Computes a view of the graph once, under its own name or another that begins with it."""
        of = view.partition("__")[0]
        if of == ERASED_CLAIMS:
            self._keep_claims(view, sql)
        elif of in _OF_ADDRESSES:
            self.engine.pseudonymise(view, sql, self._key.customer_id)
        else:
            self.engine.materialize(view, sql)

    def _keep_claims(self, view: str, sql: str) -> None:
        """Computes which serial numbers erased customers claimed; reads nothing if nobody was erased."""
        known = tombstones.read(self._root, self._key)
        if known.claims:
            self.engine.map_rows(f"{view}__told", sql, {"claimants": "bigint"}, _Claimants(known, self._key))
            self.engine.materialize(view, f"select * from {view}__told where claimants > 0")
        else:
            self.engine.materialize(view, "select null::varchar as serialNumber, null::bigint as claimants where false")


def divided(engine: Engine, names: Iterable[str], of: int) -> list[dict[str, str]]:
    """Makes ranges of customers of some tables readable, each with no more rows than an engine joins at once.

    Args:
        engine: A session in which the tables are bound.
        names: The tables.
        of: Rows of the largest of them.

    Returns:
        For each range the relation that stands for each table; if there is only one range, it is of the tables
        themselves.
    """
    count = of // engine.at_once + 1 if engine.at_once else 1
    if count == 1:
        return [{}]
    # pseudonyms are evenly spread, and files in their order: a range reads little but its own rows
    bounds = [f"'{place * 0x10000 // count:04x}'" for place in range(1, count)]
    below = [*(f"customer_id < {bound}" for bound in bounds), "true"]
    above = ["true", *(f"customer_id >= {bound}" for bound in bounds)]
    ranges = []
    for number, within in enumerate(map(" and ".join, zip(above, below, strict=True))):
        relations = {name: f"{name}__part_{number}" for name in names}
        for name, some in relations.items():
            engine.view(some, f"select * from {name} where {within}")
        ranges.append(relations)
    return ranges


@dataclass(frozen=True, slots=True)
class _Claimants:
    """How many erased customers claimed a serial number; an engine may ask on another machine."""

    known: Tombstones
    key: Key

    def __call__(self, number: str) -> tuple[int]:
        return (self.known.claimants(self.key, number),)
