"""The proof: every rule of consent computed a second time and compared with the published tables.

The proof shares nothing with the code and the SQL that built the tables: landed records go in, counts of violations
come out. Either engine runs it. On one machine it stays within the memory limit of the settings; on a cluster the
rows stay on the workers.

`as_of` finds the inputs of each table. `expected` computes the expected rows from the landed records. `agreement` finds
the customers and devices whose rows need no comparison, because count and sums are equal. `violations` counts wrong
rows. `reconciliation` accounts for every record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from stedi._frozen import dataclass
from stedi.audit.integrity import Check
from stedi.audit.proof import agreement, as_of, expected, reconciliation, violations
from stedi.audit.proof.as_of import BELOW, FEEDS, AsOf
from stedi.audit.proof.expected import Claimants
from stedi.audit.proof.reconciliation import Reconciliation
from stedi.catalog import Catalog, TableState
from stedi.context.progress import Progress, silent
from stedi.engines import Engine
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import ZONES

__all__ = ["Claimants", "Progress", "Proof", "Reconciliation", "prove"]


_OF_STEPS = {"step_trainer_trusted", "machine_learning_curated"}
"""Tables whose checks also need the step trainer's readings."""
_READINGS = tuple(name for name in BELOW if name not in violations.CUSTOMERS)


@dataclass(frozen=True, slots=True)
class Proof:
    """The result of the proof of consent.

    Attributes:
        checks: Each check of each table with its number of violations.
        accounts: The account of each table; a table that no build has written has none.
        due: Tables for which a build is due; they were judged by their recorded inputs.
        unseen: The number of customers whose address has an invisible character, so that only `--exact` can name them.
    """

    checks: tuple[Check, ...]
    accounts: tuple[Reconciliation, ...]
    due: tuple[str, ...]
    unseen: int = 0


def prove(
    catalog: Catalog,
    key: Key,
    engine: Engine,
    *,
    now: int,
    policy: str,
    states: Mapping[str, TableState] | None = None,
    pending: Iterable[str] = (),
    further_claimants: Claimants = lambda serial: 0,
    progress: Progress = silent,
) -> Proof:
    """Counts the violations of the rules of consent in the published tables; changes nothing.

    Args:
        catalog: The lake's tables.
        key: The lake's pseudonym key.
        engine: A session that has no tables yet.
        now: The clock, epoch milliseconds; it only decides which tables are due.
        policy: The policy of the settings, as builds record it.
        states: The tables, by default as they are published now.
        pending: Landings that may be committed to some of their tables but not to all; they are ignored.
        further_claimants: Returns the number of further claimants of a serial number, who never move (rule 6).
        progress: Called with the current step and the share of the work that is done.
    """
    states = states or catalog.tables()
    work = _Work(catalog, key, states, engine, further_claimants)
    progress("prove landing", 0.0)
    counts = {("watermarks", name): as_of.watermarks(states, name) for name in BELOW}
    work.ledger(pending)
    ready = [name for name in BELOW if as_of.built(states[name])]
    found: tuple[Reconciliation, ...] = ()
    if ready:
        of_each = {name: as_of.base(states, name) for name in ready}
        last = as_of.newest(states, of_each)
        judged, found = work.judge(last, ready, progress)
        odd = {name for (_, name), broken in judged.items() if broken}
        for name in sorted(odd, key=BELOW.index):
            # after a build that died while publishing, a table may be correct only by its own recorded inputs
            if of_each[name] != last:
                own, mine = work.judge(of_each[name], [name], progress)
                judged.update(own)
                found = tuple(next(m for m in mine if m.table == a.table) if a.table == name else a for a in found)
        counts.update(judged)
    ledger, broken = reconciliation.files(engine)
    counts.update({("conservation", table): rows for table, rows in broken.items()})
    order = list(ZONES)
    checks = tuple(
        Check(check, name, rows=rows)
        for (check, name), rows in sorted(counts.items(), key=lambda item: order.index(item[0][1]))
    )
    return Proof(checks, (ledger, *found), as_of.due(states, now, policy), work.unseen)


class _Work:
    """One run of the proof: a session over pinned tables."""

    def __init__(
        self, catalog: Catalog, key: Key, states: Mapping[str, TableState], engine: Engine, further_claimants: Claimants
    ) -> None:
        self._catalog, self._key, self._states, self._engine = catalog, key, states, engine
        self._further_claimants = further_claimants
        self.unseen = 0

    def ledger(self, pending: Iterable[str]) -> None:
        """Compares files with landed rows, as of the last complete landing; `reconciliation.files` counts."""
        settled = as_of.settled(self._states, pending)
        for name, zone in ZONES.items():
            if zone == "landing":
                files = self._catalog.files(self._states[name], settled[name]) if name in settled else ()
                self._engine.bind_files(name, files)
        reconciliation.ledger(self._engine)

    def judge(
        self, base: AsOf, tables: Sequence[str], progress: Progress
    ) -> tuple[dict[tuple[str, str], int], tuple[Reconciliation, ...]]:
        """Counts the violations in some tables and accounts for their rows, all by the inputs of one `AsOf`."""
        engine = self._engine
        self._bind(base)
        work: dict[str, Callable[[], violations.Counts]] = {
            "customers_trusted": lambda: violations.customers(engine, "customers_trusted"),
            "accelerometer_trusted": lambda: violations.motions(engine),
            "customers_curated": lambda: violations.customers(engine, "customers_curated"),
            "step_trainer_trusted": lambda: violations.steps(engine),
            "machine_learning_curated": lambda: violations.training(engine),
        }
        progress("prove customers", 0.05)
        expected.customers(engine, self._key, base)
        violations.identifying(engine)
        # an engine can do this beside what follows, which is one step after the other
        for name in _READINGS:
            if name in tables:
                violations.search(engine, name, self._catalog.files(self._states[name]))
        progress("prove readings", 0.1)
        with_steps = not _OF_STEPS.isdisjoint(tables)
        further = self._further_claimants if with_steps else None
        tallied = agreement.work_out(engine, base, further, training="machine_learning_curated" in tables)
        self.unseen = max(self.unseen, expected.unseen(engine))
        counts: dict[tuple[str, str], int] = {}
        for name in tables:
            progress(f"prove {name}", 0.6 + 0.08 * BELOW.index(name))
            of_table = violations.people(engine, name, tallied=name in tallied) | work[name]()
            if name in _READINGS:
                of_table["identifiers"] = violations.identifiers(engine, name)
            # once for all tables: persons and pseudonyms are the same for each
            if name == "customers_trusted":
                of_table["pseudonyms"] += violations.keys(engine)
            counts.update({(check, name): rows for check, rows in of_table.items()})
        made = [*reconciliation.customers(engine), reconciliation.motions(engine)]
        made += [reconciliation.steps(engine)] if with_steps else []
        made += [reconciliation.training(engine)] if "machine_learning_curated" in tables else []
        wanted = sorted((a for a in made if a.table in tables), key=lambda a: BELOW.index(a.table))
        for account in wanted:
            # rows that break another rule also leave an account open, and are already counted under that rule
            if not any(rows for (_, table), rows in counts.items() if table == account.table):
                counts["conservation", account.table] = account.open
        return counts, tuple(wanted)

    def _bind(self, base: AsOf) -> None:
        for name in FEEDS:
            # not what `ledger` has bound: files are judged as they landed, tables as they were built
            snapshot = self._states[name].snapshot(base.feeds.get(name))
            self._engine.bind_files(name, self._catalog.files(self._states[name], snapshot) if snapshot else ())
        for name in BELOW:
            self._engine.bind_files(name, self._catalog.files(self._states[name]))
