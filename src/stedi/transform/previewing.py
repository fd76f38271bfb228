"""Previews a build: steps with the rows they would read and write, and which customers would enter and leave.

The privacy difference is exact: the customers are worked out by the same SELECT as in a build. Rows and bytes are
estimates from the sizes that the snapshots tell.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stedi._frozen import dataclass
from stedi.catalog import TableState
from stedi.context import Context
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import quoted
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import COLUMNS, Dag
from stedi.transform.incremental import IncrementalBuild
from stedi.transform.planning import Step
from stedi.transform.session import BuildSession

_WHO = "customers_trusted"


@dataclass(frozen=True, slots=True)
class Estimate:
    """The estimated cost of a step.

    Attributes:
        step: The step.
        rows_read: Rows of its inputs that it would read.
        bytes_read: Bytes of them.
        rows_written: Rows that it would write, at most.
        bytes_written: Bytes of them.
    """

    step: Step
    rows_read: int
    bytes_read: int
    rows_written: int
    bytes_written: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a build would do.

    Attributes:
        steps: Each table's step with its estimated cost, in build order.
        entering: Pseudonyms of the customers who would enter the tables below landing.
        leaving: Pseudonyms of those who would leave them.
        changing: Pseudonyms of those who would stay with another record.
    """

    steps: tuple[Estimate, ...]
    entering: tuple[str, ...]
    leaving: tuple[str, ...]
    changing: tuple[str, ...]


def preview(
    context: Context, key: Key, graph: Dag, states: Mapping[str, TableState], steps: Sequence[Step], now: int
) -> Plan:
    """Returns what a build of these steps would do; nothing in the lake is written.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        graph: The SQL tables.
        states: The catalog's tables now.
        steps: What was planned.
        now: The start of the build, epoch milliseconds.
    """
    entering: list[str] = []
    leaving: list[str] = []
    changing: list[str] = []
    step = next(step for step in steps if step.table == _WHO)
    if step.action != "none":
        with context.temporary() as folder, DuckDB.of(context.config, folder) as engine:
            _compare(BuildSession(engine, context, key, graph, states, now), step)
            for customer, was, comes in engine.rows(
                "select customer_id, bool_or(was), bool_or(comes) from ("
                "select customer_id, true as was, false as comes from gone union all "
                "select customer_id, false, true from come) group by customer_id order by customer_id"
            ):
                (changing if was and comes else entering if comes else leaving).append(customer)
    affected = len(entering) + len(leaving) + len(changing)
    customers = max(1, _total(states[_WHO], "records"))
    return Plan(
        tuple(_estimate(step, graph, states, min(1.0, affected / customers)) for step in steps),
        tuple(entering),
        tuple(leaving),
        tuple(changing),
    )


def _compare(session: BuildSession, step: Step) -> None:
    """Makes `gone`, the customers' rows that would leave, and `come`, those that would come."""
    engine, names = session.engine, ", ".join(quoted(column.name) for column in COLUMNS[_WHO])
    if step.action == "rebuild":
        engine.materialize("fresh", f"select {names} from ({session.whole(_WHO)})")
        stale = f"select {names} from {_WHO}"
    else:
        for read, increment in step.increments.items():
            session.look_back(read, increment)
        IncrementalBuild(session).work_out(_WHO, session.started(_WHO))
        engine.view("fresh", f"select * from {_WHO}__fresh")
        stale = f"select * from {_WHO}__stale"
    engine.materialize("gone", f"{stale} except select * from fresh")
    engine.materialize("come", f"select * from fresh except {stale}")


def _estimate(step: Step, graph: Dag, states: Mapping[str, TableState], share: float) -> Estimate:
    if step.action == "none":
        return Estimate(step, 0, 0, 0, 0)
    inputs = [states[read] for read in graph.inputs(step.table)]
    own = states[step.table]
    if step.action == "rebuild":
        read = [(_total(state, "records"), _total(state, "files-size")) for state in inputs]
        most = _total(own, "records") or max(rows for rows, _ in read)
    else:
        read = [(increment.rows, increment.bytes) for increment in step.increments.values()]
        again = round(share * _total(own, "records")) if step.action == "by-customer" else 0
        # each row of a table comes from at least one row of each input
        most = max(rows for rows, _ in read) + again
        read.append((again, round(again * _width(own))))
    width = _width(own) or max((_width(state) for state in inputs), default=0)
    return Estimate(step, sum(rows for rows, _ in read), sum(size for _, size in read), most, round(most * width))


def _total(state: TableState, what: str) -> int:
    return state.current.total(what) if state.current else 0


def _width(state: TableState) -> float:
    """Returns how many bytes a row of a table takes in its files."""
    rows = _total(state, "records")
    return _total(state, "files-size") / rows if rows else 0.0
