"""Computes in plain Python what a lake must hold: records, tombstones, and the journal that outlives the lake.

This shares no code with `stedi`. It covers which records a landing accepts, the effect of withdrawals and erasures, and
what remains after the lake is replaced by a backup.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import oracle
from stones import Stones
from worlds import FEEDS

Records = Mapping[str, list[dict[str, object]]]


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the journal: withdrawals by command, or an erasure."""

    number: int
    withdrawn: Mapping[str, int] = field(default_factory=dict)
    """When each customer withdrew."""
    erased: frozenset[str] = frozenset()
    at: int = 0
    """When they were erased."""
    stones: Stones | None = None
    """The tombstones that bar their data from then on."""


@dataclass(slots=True)
class _Lake:
    """The content of the lake, and so of its backups."""

    stones: Stones
    landed: dict[str, list[dict[str, object]]] = field(default_factory=lambda: {feed: [] for feed in FEEDS})
    files: list[Records] = field(default_factory=list)
    journal: set[int] = field(default_factory=set)
    waiting: dict[str, set[int]] = field(default_factory=dict)
    """When customers withdrew, for those whom the lake does not know yet."""

    def copy(self) -> _Lake:
        landed = {feed: list(records) for feed, records in self.landed.items()}
        waiting = {person: set(at) for person, at in self.waiting.items()}
        return _Lake(self.stones.copy(), landed, list(self.files), set(self.journal), waiting)


class Truth:
    """What one lake must hold.

    Args:
        pseudonym: The customer id of an email address as delivered.
    """

    def __init__(self, pseudonym: Callable[[str], str]) -> None:
        self.pseudonym = pseudonym
        self.met = Counter[str]()
        self._lake = _Lake(Stones(pseudonym))
        self._outside: list[Entry] = []
        self._backup: _Lake | None = None
        self._numbers = 0

    @property
    def landed(self) -> dict[str, list[dict[str, object]]]:
        """The records of each feed."""
        return self._lake.landed

    @property
    def stones(self) -> Stones:
        """The tombstones."""
        return self._lake.stones

    @property
    def files(self) -> list[Records]:
        """The delivered files that the lake knows, in the order in which they landed."""
        return self._lake.files

    def land(self, files: Iterable[Records]) -> tuple[list[Records], int]:
        """Lands files; returns the accepted records, and how many records of erased people were dropped."""
        taken: list[Records] = []
        barred = 0
        for file in files:
            self._lake.files.append(file)
            stays = {feed: [r for r in found if not self.stones.bars(feed, r)] for feed, found in file.items()}
            for feed, found in file.items():
                self.landed[feed] += stays[feed]
                barred += len(found) - len(stays[feed])
            taken.append(stays)
        if any("customer" in file for file in taken):
            taken += self._withdraw_again({})
        return taken, barred

    def withdraw(self, addresses: Iterable[str], at: int) -> list[dict[str, object]]:
        """Withdraws customers by command; returns the records that this lands."""
        landed = []
        for address in addresses:
            record = oracle.withdrawal(self.landed["customer"], address, at, self.pseudonym)
            if record and "serialNumber" not in record and self.pseudonym(address) in self.stones.people:
                record = None  # barred records are not accepted again
            if record is not None:
                self.landed["customer"].append(record)
                landed.append(record)
        if landed:
            when = {self.pseudonym(str(record["email"])): int(str(record["lastUpdateDate"])) for record in landed}
            self._note(Entry(self._next(), withdrawn=when))
        return landed

    def erase(self, people: set[str], now: int) -> None:
        """Erases customers."""
        left = self.stones.erase(self.landed, people, now)
        self._lake.landed = {feed: [*records] for feed, records in left.items()}
        self._note(Entry(self._next(), erased=frozenset(people), at=now, stones=self.stones.copy()))

    def moves(self) -> None:
        """The lake continues as a separate copy, with its current journal and without its backups."""
        self._outside = [entry for entry in self._outside if entry.number in self._lake.journal]
        self._backup = None

    def back_up(self) -> None:
        """Keeps a backup of the current lake."""
        self._backup = self._lake.copy()

    def restore(self, how: str) -> list[Records] | None:
        """Replaces the lake with the backup, and replays the journal or accepts the undone entries.

        Returns:
            The files that landed since the backup, or None if there is no backup.
        """
        if self._backup is None:
            return None
        lost = self.files[len(self._backup.files) :]
        self._lake = self._backup.copy()
        if how == "replay":
            self._replay()
        else:
            self._withdraw_again({})  # done by the build at the end of a repair
        return lost

    def _replay(self) -> None:
        new = [entry for entry in self._outside if entry.number not in self._lake.journal]
        erased = [entry for entry in new if entry.stones is not None]
        if erased:
            for entry in erased:
                assert entry.stones is not None
                self.stones.join(entry.stones)
            people = frozenset[str]().union(*(entry.erased for entry in erased))
            known = {feed: [r for r in found if not self._barred(feed, r)] for feed, found in self.landed.items()}
            gone = sum(map(len, self.landed.values())) - sum(map(len, known.values()))
            left = self.stones.erase(known, set(people), min(entry.at for entry in erased))
            self._lake.landed = {feed: [*records] for feed, records in left.items()}
            self.met["an erasure was replayed"] += len(erased)
            self.met["a reading of the erased stood in a backup without them"] += gone
        said: dict[str, set[int]] = {}
        for entry in new:
            for person, at in entry.withdrawn.items():
                said.setdefault(person, set()).add(at)
        self.met["a withdrawal was replayed"] += sum(len(records["customer"]) for records in self._withdraw_again(said))
        self._lake.journal |= {entry.number for entry in new}

    def _barred(self, feed: str, record: Mapping[str, object]) -> bool:
        """Whether a device's reading is barred even if the lake does not know whose it was."""
        return feed == "step_trainer" and self.stones.bars(feed, record)

    def _withdraw_again(self, said: Mapping[str, set[int]]) -> list[Records]:
        wanted = {person: said.get(person, set()) | self._lake.waiting.get(person, set()) for person in said}
        wanted = {**self._lake.waiting, **wanted}
        for person in wanted:
            wanted[person] = {at for at in wanted[person] if at > self.stones.people.get(person, -1)}
        known = {self.pseudonym(str(record["email"])) for record in self.landed["customer"]}
        now = int(time.time() * 1000)
        landed = []
        for person in sorted(wanted.keys() & known):
            theirs = [r for r in self.landed["customer"] if self.pseudonym(str(r["email"])) == person]
            landed += [r for at in sorted(wanted[person]) if (r := oracle.withdrawal_again(theirs, at, now))]
        self.landed["customer"] += landed
        self._lake.waiting = {person: at for person, at in wanted.items() if at and person not in known}
        self.met["a replayed withdrawal waits"] += len(self._lake.waiting)
        return [{"customer": landed}] if landed else []

    def _note(self, entry: Entry) -> None:
        self._outside.append(entry)
        self._lake.journal.add(entry.number)

    def _next(self) -> int:
        self._numbers += 1
        return self._numbers
