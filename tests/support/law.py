"""The law of builds: for any landed records in any order, a build equals a full rebuild and the oracle.

A *run* is a list of steps in plain JSON, so that a run that broke the law can be kept as a case and replayed:

- `{"deliver": {feed: [record, ...]}}`: adds one file per feed to the files waiting to be landed
- `{"land": "all" | "each" | "first" | "last"}`: lands the waiting files together or one by one, or only one of them
- `{"withdraw": [address, ...], "at": instant}`: withdrawals by command
- `{"again": n}`: lands an already landed file again under another name
- `{"now": instant}`, `{"readings": policy}`: the clock, forwards or back; the consent policy
- `{"build": full}`, `{"maintain": true}`
- `{"erase": [address, ...]}`: erases customers, known or not; tables that were built before are then up to date, and an
  audit finds nothing, even if a build was due
- `{"erase": [address, ...], "killed": n}`: killed at the n-th file that it creates, moves or removes, then finished
- `{"backup": true}`: the lake's folder is copied, as a backup is
- `{"restore": "replay" | "accept", "again": again}`: the backup replaces the lake; then the journal is replayed, or the
  undone entries are accepted; files landed since the backup wait again, or are lost
- `{"copy": "copy" | "original"}`: the lake's folder is copied and the copy adopted; the run continues in one of them
- `{"tag": n}`: another program tags a table, and the lake tags the built tables; from then on each tag must return the
  same rows, except those of people erased later

`Law` plays steps and compares the lake with the oracle after each build. `Counts` records what the runs have met.
"""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from pyiceberg.catalog.sql import SqlCatalog

import deliveries
import kills
import lakes
import oracle
import quick
from stedi import erasure
from stedi.catalog.manifests import mentions
from stedi.errors import CopiedLake, LakeError
from stedi.lake import Lake
from stedi.privacy import journal, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.schema.feeds import CONTRACTS
from stedi.schema.roles import Readings
from stedi.schema.tables import NAMESPACE
from stedi.storage import durable
from stedi.transform import Build
from truth import Records, Truth
from worlds import FEEDS, NEIGHBOURS

Step = Mapping[str, Any]
Contents = Mapping[str, Counter[oracle.Row]]


class Broken(AssertionError):
    """A lake breaks the law."""


@dataclass(frozen=True, slots=True)
class Published:
    """What readers see after a build.

    Attributes:
        contents: Each table's rows as a multiset.
        withheld: How many readings are withheld.
        listed: The withheld readings, if requested.
    """

    contents: Contents
    withheld: int
    listed: Counter[oracle.Row] | None = None


class Subject(Protocol):
    """The subject of the law: a real lake, or a model that only computes what a lake would hold."""

    def land(self, files: Iterable[Records]) -> int:
        """Lands new files in one landing, and returns how many records of erased customers were dropped."""

    def withdraw(self, addresses: list[str], at: int) -> None:
        """Lands withdrawals by command."""

    def again(self, number: int) -> None:
        """Lands the content of an earlier file under another name."""

    def build(self, now: int, readings: Readings, *, full: bool) -> Published:
        """Builds, and returns the tables afterwards."""

    def idle(self, now: int) -> None:
        """Builds again, and fails unless that changes nothing."""

    def maintain(self) -> None:
        """Compacts, expires and removes."""

    def erase(self, addresses: list[str], now: int, killed: int = 0) -> bool:
        """Erases customers, killed at call `killed` if given; returns whether it was killed."""

    def back_up(self) -> None:
        """Keeps a backup."""

    def restore(self, how: str) -> None:
        """Replaces the lake with the backup, and replays the journal or accepts the undone entries."""

    def landed(self) -> Mapping[str, int]:
        """Returns how many records of each feed the landing tables hold."""

    def copy(self, goes_on: str) -> None:
        """Copies the lake, adopts the copy, and continues in the copy or in the original."""

    def untouched(self) -> None:
        """Fails if the lake that was not continued after a copy has changed."""

    def tag(self, number: int) -> None:
        """Tags a table as another program would."""


class Law:
    """One run: plays steps against a subject, and after each build compares it with the oracle.

    Args:
        subject: The empty subject to check.
        key: The key of the subject's pseudonyms.
        now: The clock at the beginning.
    """

    def __init__(self, subject: Subject, key: Key, now: int) -> None:
        self.steps: list[Step] = []
        self.waiting: list[Records] = []
        self.truth = Truth(key.customer_id)
        self.met = self.truth.met
        self._subject, self._key = subject, key
        self.now = now
        self.readings: Readings = "all"
        self._before: Known | None = None
        self._fresh: list[Records] = []
        self._built: tuple[int, Readings] | None = None
        self._policy: Readings = "all"
        """From the last build, since the subject knows no other."""
        self._tables = self._tables_backed_up = False
        """Whether any build has written tables."""

    def play(self, step: Step) -> None:
        """Plays one step.

        Raises:
            Broken: A build's tables differ from the oracle's, or the next build was not a no-op.
        """
        self.steps.append(step)
        self.met["steps"] += 1
        match dict(step):
            case {"deliver": records}:
                self.waiting += [{feed: found} for feed, found in records.items() if found]
            case {"land": "each"}:
                while self.waiting:
                    self._land(1)
            case {"land": "last"}:
                self.waiting[:] = self.waiting[-1:] + self.waiting[:-1]
                self._land(1)
            case {"land": which}:
                self._land(1 if which == "first" else len(self.waiting))
            case {"withdraw": addresses, "at": at}:
                self._withdraw(addresses, at)
            case {"restore": how}:
                self._restore(how, again=step.get("again", False))
            case {"again": number}:
                if self.truth.files:
                    self._subject.again(number % len(self.truth.files))
                    self.met["a file landed again"] += 1
            case {"now": now}:
                self.now = now
            case {"readings": readings}:
                self.readings = readings
            case {"build": full}:
                self._build(full)
            case {"maintain": True}:
                self._subject.maintain()
                self.met["maintained"] += 1
            case {"erase": addresses}:
                self._erase(addresses, step.get("killed", 0))
            case {"backup": True}:
                self._subject.back_up()
                self.truth.back_up()
                self._tables_backed_up = self._tables
            case {"copy": goes_on}:
                self._subject.copy(goes_on)
                if goes_on == "copy":
                    self.truth.moves()
                self.met[f"went on in the {goes_on}"] += 1
            case {"tag": number}:
                self._subject.tag(number)
                self.met["a stranger tagged a table"] += 1
            case _:
                raise ValueError(step)

    def end(self) -> None:
        """Ends a run: checks the landing tables, and that the lake that was not continued has not changed."""
        self._look_at_landing()
        self._subject.untouched()

    def _look_at_landing(self) -> None:
        expected = {feed: len(records) for feed, records in self.truth.landed.items()}
        found = self._subject.landed()
        if found != expected:
            raise Broken(f"landing: expected {expected}, found {found}")

    def _erase(self, addresses: list[str], killed: int) -> None:
        landed, stones = self.truth.landed, self.truth.stones
        people = {self._key.customer_id(address) for address in addresses}
        known = {stones.who(record) for feed in ("customer", "accelerometer") for record in landed[feed]}
        self.met["a known customer erased"] += len(people & known)
        self.met["an unknown customer erased"] += len(people - known)
        self.met["a customer erased again"] += len(people & known & stones.people.keys())
        shared = len(stones.moments)
        self.truth.erase(people, self.now)
        self.met["a shared reading erased"] += len(stones.moments) > shared
        self.met["an erasure of an unbuilt lake"] += self._built != (self.now, self.readings)
        self.met["an erasure was killed"] += self._subject.erase(addresses, self.now, killed)
        self.met["of neighbours one was erased"] += self._neighbours(people, known)
        self._before, self._fresh = None, []
        if self._tables:
            self._subject.idle(self.now)
            if self.readings == self._policy:
                self._build(full=False)

    def _restore(self, how: str, *, again: bool) -> None:
        lost = self.truth.restore(how)
        if lost is None:
            return
        self._subject.restore(how)
        self._look_at_landing()
        self.met["a backup was restored, " + {"replay": "and replayed", "accept": "and accepted"}[how]] += 1
        self.met["what landed after a backup landed again"] += bool(again and lost)
        self.waiting[:0] = lost if again else []
        self._before, self._fresh, self._built = None, [], None
        self._tables = self._tables_backed_up or how == "accept"

    def _neighbours(self, people: set[str], known: set[str]) -> bool:
        """Whether, of people whose addresses contain each other, one is erased and another stays."""
        neighbours = {self._key.customer_id(spellings[0]) for spellings in NEIGHBOURS} & known
        return bool(neighbours & people) and bool(neighbours - people)

    def _land(self, count: int) -> None:
        files, self.waiting = self.waiting[:count], self.waiting[count:]
        if not files:
            return
        erased = self._subject.land(files)
        taken, barred = self.truth.land(files)
        self._fresh += [*files, *taken[len(files) :]]
        self.met["an erased customer's record came again"] += barred
        self._built = None
        if erased != barred:
            raise Broken(f"landing: expected {barred} records of erased customers to be dropped, found {erased}")

    def _withdraw(self, addresses: list[str], at: int) -> None:
        self._subject.withdraw(addresses, at)
        landed = self.truth.withdraw(addresses, at)
        self.met["withdrew by command"] += len(landed)
        self.met["withdrew by command again"] += len(addresses) - len(landed)
        for record in landed:
            self.met["withdrew by command, unknown until then"] += "serialNumber" not in record
            self._fresh.append({"customer": [record]})
            self._built = None

    def _build(self, full: bool) -> None:
        self._policy, self._tables = self.readings, True
        published = self._subject.build(self.now, self.readings, full=full)
        landed, claims = self.truth.landed, self.truth.stones.claimants()
        expected = oracle.tables(landed, self.now, self.readings, self._key.customer_id, claims)
        for table in oracle.TABLES:
            wanted, found = Counter(getattr(expected, table)), published.contents[table]
            if found != wanted:
                raise Broken(f"{table}: missing {_few(wanted - found)}, too many {_few(found - wanted)}")
        if published.withheld != len(expected.withheld):
            raise Broken(f"withheld: expected {len(expected.withheld)}, found {published.withheld}")
        if published.listed is not None and published.listed != Counter(expected.withheld):
            raise Broken(f"withheld: expected {expected.withheld}, found {list(published.listed.elements())}")
        self._subject.idle(self.now)
        known = Known(expected, self.now, self.readings, {feed: tuple(found) for feed, found in landed.items()})
        self.met.update(_met(self._before, known, self._fresh, full=full, key=self._key))
        self._before, self._fresh = known, []
        self._built = (self.now, self.readings)


@dataclass(frozen=True, slots=True)
class Known:
    """What was known at a build, and its correct tables."""

    tables: oracle.Tables
    now: int
    readings: Readings
    landed: Mapping[str, tuple[dict[str, object], ...]]
    owners: Mapping[oracle.Row, object] = field(init=False)

    def __post_init__(self) -> None:
        owners = {row[1:]: row[0] for row in self.tables.step_trainer_trusted}
        object.__setattr__(self, "owners", owners)


class RealLake:
    """A lake on disk as a subject.

    Args:
        slate: The folder that is reset for it.
    """

    def __init__(self, slate: lakes.Slate) -> None:
        self.lake = slate.wiped()
        self._copies = slate.copies()
        self._backup = self._copies.parent / "backup"
        self._backed_up: tuple[object, int] = None, 0
        self._left: tuple[Path, Mapping[str, object]] | None = None
        self.lake.context.config = replace(self.lake.config, engine_threads=1)
        self._inbox = slate.inbox()
        self._files: list[Path] = []
        self._seen: set[str] = set()
        self._rows: dict[int, Counter[oracle.Row]] = {}
        self._tagged: dict[tuple[str, str], tuple[int, Counter[oracle.Row]]] = {}
        """For each table and tag, the number of erasures before the tag was made, and the rows at that time."""
        self._erased: list[set[str]] = []

    def land(self, files: Iterable[Records]) -> int:
        paths = [self._written(feed, found) for file in files for feed, found in file.items()]
        landing = self.lake.land(*paths)
        if landing.skipped or landing.quarantined or landing.seen != landing.accepted + landing.erased:
            raise Broken(f"landing: not every record was taken: {landing}")
        self._files += paths
        return landing.erased

    def withdraw(self, addresses: list[str], at: int) -> None:
        before = lakes.rows(self.lake, "customers_landing").total()
        done = self.lake.withdraw(addresses, now=datetime.fromtimestamp(at / 1000, UTC))
        if lakes.rows(self.lake, "customers_landing").total() != before + done.landed:
            raise Broken(f"withdraw: it counts other records than it landed: {done}")

    def again(self, number: int) -> None:
        path = self._files[number]
        copy = path.with_name(f"again-{len(list(path.parent.iterdir()))}-{path.name}")
        copy.write_bytes(path.read_bytes())
        before = lakes.heads(self.lake)
        self.lake.land(copy)
        if lakes.heads(self.lake) != before:
            raise Broken("landing: a file that was landed before changed a table")

    def build(self, now: int, readings: Readings, *, full: bool) -> Published:
        self.lake.context.config = replace(self.lake.config, readings=readings)
        built = self._build(now, full=full)
        contents = self._contents()
        if {table.name: table.rows for table in built.tables} != {n: c.total() for n, c in contents.items()}:
            raise Broken("the build counts other rows than its tables have")
        listed: Counter[oracle.Row] | None = None
        if full:  # it takes as long as a build
            listed = Counter(
                (round(r.time.timestamp() * 1000), r.serial_number, r.distance) for r in self.lake.withheld()
            )
        return Published(contents, built.withheld, listed)

    def _build(self, now: int, **options: Any) -> Build:
        return lakes.build(self.lake, now, **options)

    def idle(self, now: int) -> None:
        heads, files = lakes.heads(self.lake), _listing(self.lake.root)
        again = lakes.build(self.lake, now)
        if again.run or lakes.heads(self.lake) != heads:
            raise Broken(
                f"a second build had something to do: {[t.reason for t in again.tables if t.action != 'none']}"
            )
        if _listing(self.lake.root) != files:
            raise Broken("a second build had nothing to do and changed a file")

    def maintain(self) -> None:
        before = self._contents()
        everything: dict[str, Any] = {"keep_days": 0, "keep_snapshots": 1, "grace_hours": 0}
        known = {name: value for name, value in everything.items() if hasattr(self.lake.config, name)}
        self.lake.context.config = replace(self.lake.config, **known)
        self.lake.maintain()
        quick.forget()
        self._rows.clear()
        if self._contents() != before:
            raise Broken("maintain: a table has other rows than before")
        self._look_at_tags("maintain")

    def erase(self, addresses: list[str], now: int, killed: int = 0) -> bool:
        lake, died = self.lake, False

        def erase(*who: str) -> list[dict[str, Any]]:
            with lake.context.writing(*durable.ALL, erasing=True):
                return erasure.erase(lake.context, lake.key(), who, now=now)

        if killed:
            died = kills.at(killed, lambda: erase(*addresses))
            quick.forget()
        # the next command finishes an interrupted erasure; one that had not really begun is requested again
        begun = (lake.root / tombstones.PENDING).exists()
        receipts = [] if killed and not died else erase(*(() if begun else addresses))
        quick.forget()
        self._rows.clear()
        if receipts and not receipts[-1]["clean"]:
            raise Broken("erase: the receipt says that traces are left")
        if (lake.root / tombstones.PENDING).exists():
            raise Broken("erase: it has not ended")
        self._erased.append(set(map(lake.key().customer_id, addresses)))
        self._look_at_tags("erase")
        self._audited("erase")
        removed = receipts[-1]["removed"]["tables"] if receipts else {}
        if any(found["files"] for found in removed.values()):
            odd = [name for name, state in lake.catalog.tables().items() if mentions(state).gone()]
            if odd:
                raise Broken(f"erase: a manifest of {', '.join(odd)} still has the bounds of files that are gone")
        return died

    def back_up(self) -> None:
        shutil.rmtree(self._backup, ignore_errors=True)
        shutil.copytree(self.lake.root, self._backup, symlinks=True)
        self._backed_up = _state(self.lake), len(self._files)
        self._tagged_then = dict(self._tagged), len(self._erased)

    def restore(self, how: str) -> None:
        root = self.lake.root
        self.lake.context.note_seen()
        (before, count), after = self._backed_up, _state(self.lake)
        shutil.rmtree(root)
        shutil.copytree(self._backup, root, symlinks=True)
        quick.forget()
        self._rows.clear()
        del self._files[count:]
        lake = Lake.open(root)
        lake.context.config = replace(lake.config, engine_threads=1, **_settings_of(self.lake))
        if after != before:
            self._refused(lake)
        self.lake = lake
        self._tagged, erased = self._tagged_then
        if how == "accept":
            lake.repair(accept_rollback=True)
            del self._erased[erased:]
        else:
            self._replay(lake)
        quick.forget()
        self._look_at_tags("restore")
        self._audited("restore")

    def landed(self) -> Mapping[str, int]:
        self._look_at_tags("land")
        tables = {contract.feed: contract.table for contract in CONTRACTS.values()}
        return {feed: lakes.rows(self.lake, tables[feed]).total() for feed in FEEDS}

    def _replay(self, lake: Lake) -> None:
        lake.replay(lake.context.outside())
        if not all(receipt.clean for receipt in lake.receipts()):
            raise Broken("restore: a receipt of what was replayed says that traces are left")
        kept = lakes.heads(lake)
        if lake.replay(lake.context.outside()).new or lakes.heads(lake) != kept:
            raise Broken("restore: a second replay of the same journal had something to do")

    @staticmethod
    def _refused(lake: Lake) -> None:
        before = lakes.tree(lake.root)
        try:
            lake.withdraw(["somebody@test.example"])
        except LakeError as refused:
            if "--replay" not in str(refused):
                raise
        else:
            raise Broken("restore: a lake that was rolled back was written to")
        if lakes.tree(lake.root) != before:
            raise Broken("restore: what was refused in a lake that was rolled back has changed a file")

    def copy(self, goes_on: str) -> None:
        self.untouched()
        original, copy = self.lake, Lake.open(self.lake.root)
        place = self._copies / f"lake-{len(list(self._copies.iterdir()))}"
        shutil.copytree(original.root, place, symlinks=True)
        before = lakes.tree(place), lakes.tree(original.root)
        try:
            Lake.open(place).withdraw(["somebody@test.example"])
        except CopiedLake:
            pass
        else:
            raise Broken("copy: a copy that nobody has adopted was written to")
        if (lakes.tree(place), lakes.tree(original.root)) != before:
            raise Broken("copy: what was refused in a copy has changed a file")
        done = Lake.adopt(place)
        copy = Lake.open(place)
        copy.context.config = replace(copy.config, engine_threads=1, **_settings_of(original))
        if done.lake_id == original.config.lake_id or lakes.tree(original.root) != before[1]:
            raise Broken("copy: the copy that was adopted is not a lake of its own")
        if lakes.contents(copy) != lakes.contents(original):
            raise Broken("copy: the copy that was adopted has other rows")
        self.lake, other = (copy, original) if goes_on == "copy" else (original, copy)
        self._left = other.root, lakes.tree(other.root)
        quick.forget()
        self._rows.clear()

    def untouched(self) -> None:
        """Fails if the copy or the original that was not continued has changed."""
        if self._left is not None and lakes.tree(self._left[0]) != self._left[1]:
            raise Broken("copy: what happened in one of two lakes has changed the other")

    def tag(self, number: int) -> None:
        states = [state for state in self.lake.catalog.tables().values() if state.current is not None]
        if not states:
            return
        state = states[number % len(states)]
        assert state.current is not None
        theirs = SqlCatalog("stedi", uri=f"sqlite:///{self.lake.catalog.path}").load_table((NAMESPACE, state.name))
        name = f"theirs-{len(state.tags)}-{number}"
        with theirs.manage_snapshots() as manage:
            manage.create_tag(state.current.id, name)
        theirs.catalog.close()
        with suppress(LakeError):  # no table is built, or none since the last erasure
            self.lake.tag(f"own-{len(self.lake.tags())}")
        for table, found in self.lake.catalog.tables().items():
            for tag, snapshot_id in found.tags.items():
                if (table, tag) not in self._tagged:
                    rows = lakes.rows(self.lake, table, replace(found, current=found.snapshot(snapshot_id)))
                    self._tagged[table, tag] = len(self._erased), rows

    def _audited(self, when: str) -> None:
        found = [
            f"{check.violations} {check.name} in {check.table}"
            for check in (*self.lake.prove().checks, *self.lake.audit(files=True))
            if check.violations
        ]
        if found:
            raise Broken(f"{when}: an audit finds {', '.join(found)}")

    def _look_at_tags(self, when: str) -> None:
        states = self.lake.catalog.tables()
        for (table, tag), (erased, known) in self._tagged.items():
            state = states[table]
            if tag not in state.tags:
                raise Broken(f"{when}: {table} has lost its tag {tag}")
            found = lakes.rows(self.lake, table, replace(state, current=state.snapshot(state.tags[tag])))
            gone = set[str]().union(*self._erased[erased:])
            whose = _whose(table, self.lake.key())
            if whose is None:
                continue  # these rows do not identify anybody by themselves
            wanted = Counter({row: count for row, count in known.items() if whose(row) not in gone})
            if found != wanted:
                raise Broken(
                    f"{when}: {table} at {tag}: missing {_few(wanted - found)}, too many {_few(found - wanted)}"
                )

    def _written(self, feed: str, records: list[dict[str, object]]) -> Path:
        path = deliveries.deliver(self._inbox, feed, records, f"{len(self._seen)}.json")
        text = path.read_text("utf-8")
        while text in self._seen:  # a lake treats files with equal content as one file
            text += "\n"
        self._seen.add(text)
        path.write_text(text, "utf-8")
        return path

    def _contents(self) -> Contents:
        # snapshots are immutable, so their rows are read once
        found = {}
        for name, state in self.lake.catalog.tables().items():
            if name in lakes.BELOW_LANDING and state.current is not None:
                if state.current.id not in self._rows:
                    self._rows[state.current.id] = lakes.rows(self.lake, name, state)
                found[name] = self._rows[state.current.id]
        return found


def _whose(table: str, key: Key) -> Callable[[oracle.Row], str] | None:
    """Returns a function from a table's row to its person's pseudonym; None if rows have no person."""
    if table in lakes.BELOW_LANDING:
        return lambda row: str(row[0])
    place = {"customers_landing": 1, "accelerometer_landing": 0}.get(table)
    return None if place is None else lambda row: key.customer_id(str(row[place]))


def _state(lake: Lake) -> object:
    """Returns a state that changes whenever something is written to a lake."""
    return lakes.heads(lake), journal.head(lake.root)


def _settings_of(lake: Lake) -> dict[str, Any]:
    """Returns the settings that a run has changed only in memory."""
    return {name: getattr(lake.config, name) for name in ("readings", "keep_days", "keep_snapshots", "grace_hours")}


def replay(steps: Iterable[Step], subject: Subject, key: Key, now: int) -> Law:
    """Plays all steps of a case."""
    law = Law(subject, key, now)
    for step in steps:
        law.play(step)
    return law


def smallest(
    steps: list[Step], error: Exception, subject: Callable[[], Subject], key: Key, now: int
) -> tuple[list[Step], Exception]:
    """Shrinks a failed run: removes every step that the same failure does not need."""
    size = len(steps) // 2
    while size:
        start, before = 0, len(steps)
        while start < len(steps):
            fewer = [*steps[:start], *steps[start + size :]]
            try:
                replay(fewer, subject(), key, now).end()
            except type(error) as found:
                steps, error = fewer, found
            except Exception:
                start += size  # it fails in another way
            else:
                start += size
        size = size if size == 1 and len(steps) < before else size // 2
    return steps, error


def read_case(path: Path) -> list[Step]:
    """Returns the steps of a case: one JSON document per line."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def write_case(path: Path, steps: Iterable[Step]) -> None:
    """Writes steps as a case, to be read by `read_case` and by a person."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(step, ensure_ascii=False) + "\n" for step in steps), "utf-8")


def _met(before: Known | None, after: Known, fresh: list[Records], *, full: bool, key: Key) -> Iterable[str]:
    """Yields the events between two builds that an incremental build could handle wrongly."""
    yield "rebuilt in full" if full else "built"
    if before is None:
        return
    was, now = before.tables, after.tables
    entered = {row[0] for row in now.customers_trusted} - {row[0] for row in was.customers_trusted}
    left = {row[0] for row in was.customers_trusted} - {row[0] for row in now.customers_trusted}
    known = {key.customer_id(str(record["email"])) for record in before.landed["customer"]}
    yield from ("agreed again or later" for _ in entered & known)
    yield from ("withdrew" for _ in left)
    if not fresh and before.readings == after.readings and was != now:
        yield "the clock alone changed rows, " + ("forwards" if after.now > before.now else "backwards")
    if before.readings != after.readings and was != now:
        yield "the policy changed rows"
    changed = set(now.customers_trusted) - set(was.customers_trusted)
    yield from ("a current record changed and consents" for row in changed if row[0] not in entered)
    withheld, now_withheld = set(was.withheld), set(now.withheld)
    yield from ("a withheld reading was decided" for row in withheld - now_withheld if row in after.owners)
    yield from ("an owned reading became undecided" for row in now_withheld - withheld if row in before.owners)
    yield from (
        "a reading changed hands" for row, owner in after.owners.items() if before.owners.get(row, owner) != owner
    )
    shared_before, shared = _shared(before, key), _shared(after, key)
    yield from ("a serial number became shared" for _ in shared - shared_before)
    new: dict[str, list[dict[str, object]]] = {feed: [] for feed in FEEDS}
    for file in fresh:
        for feed, records in file.items():
            new[feed] += records
            yield from ("a record twice in one file" for r in range(1, len(records)) if records[r] in records[:r])
    for feed in ("accelerometer", "step_trainer"):
        yield from ("a reading delivered again" for record in new[feed] if record in before.landed[feed])
    newest: dict[str, object] = {}
    for record in before.landed["customer"]:
        person = key.customer_id(str(record["email"]))
        newest[person] = max(int(str(newest.get(person, 0))), int(str(record["lastUpdateDate"])))
    for record in new["customer"]:
        person, update = key.customer_id(str(record["email"])), int(str(record["lastUpdateDate"]))
        if person in newest:
            behind, level = update < int(str(newest[person])), update == newest[person]
            if behind or level:
                yield "a superseded record came late" if behind else "a record of the same update came"
        elif any(key.customer_id(str(motion["user"])) == person for motion in before.landed["accelerometer"]):
            yield "readings came before their customer"
    moved = {(key.customer_id(str(r["user"])), r["timestamp"]) for r in before.landed["accelerometer"]}
    stepped = {(r["sensorReadingTime"], r["distanceFromObject"]) for r in before.landed["step_trainer"]}
    for row in set(now.machine_learning_curated) - set(was.machine_learning_curated):
        if (row[:2] in moved) != (row[1:3] in stepped):
            yield "a step found its motion later" if row[1:3] in stepped else "a motion found its step later"


def _shared(known: Known, key: Key) -> set[object]:
    claims = {
        (record["serialNumber"], key.customer_id(str(record["email"])))
        for record in known.landed["customer"]
        if record.get("serialNumber")
    }
    return {serial for serial, count in Counter(serial for serial, _ in claims).items() if count > 1}


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    """Returns name, size and time of everything below a folder."""
    found, todo = [], [str(folder)]
    while todo:
        with os.scandir(todo.pop()) as entries:
            for entry in entries:
                status = entry.stat(follow_symlinks=False)
                found.append((entry.path, status.st_size, status.st_mtime_ns))
                if entry.is_dir(follow_symlinks=False):
                    todo.append(entry.path)
    return sorted(found)


def _few(rows: Counter[oracle.Row]) -> str:
    shown = [f"{row} x {count}" for row, count in rows.most_common(3)]
    return f"{rows.total()}: {', '.join(shown)}" if shown else "none"
