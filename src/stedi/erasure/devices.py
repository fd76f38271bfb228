"""The devices of some customers, and the readings to erase with them: their own, and those of shared devices.

Each large landing table is read once for the few rows to erase; all later queries read these rows. Most of them are
only counted: instants decide which readings leave only for shared devices.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import path_literal, quoted
from stedi.engines.selection import MOST_TEXTS, Selection
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.schema.tables import COLUMNS

OWN = {"accelerometer_landing": "own_motions", "step_trainer_landing": "own_steps"}
"""For each landing table of readings, the relation of its rows that belong to the customers: `n` rows each."""
SUBJECT_STEPS = (
    "(serialNumber in (select serialNumber from erased_serials) or "
    "(serialNumber, sensorReadingTime) in (select serialNumber, moment from erased_moments))"
)
"""The condition under which a step reading belongs to a customer."""
_TOLD_BY = ("user", "timestamp", "serialNumber", "sensorReadingTime", "distanceFromObject", "_file")
"""Columns of readings that determine whose they are and which delivered file they come from."""
_TOGETHER = 1 << 12
"""Rows of one customer whose integers are passed to the engine as one text."""


class Devices:
    """Creates the relations of the customers' devices and readings, in an engine session.

    `erased_serials` holds the serial numbers that only they claim, `erased_moments` the times at which one of them
    moved, for shared devices. The relations of `OWN` hold rows of all live files; `now` is false for rows of older
    snapshots. Rows without an instant are only counted: no instant of theirs is after the erasure, and only they claim
    the device, or of motions, no device of the customer is shared. These relations exist only if the devices were found
    by the landed records.

    Args:
        engine: The session, in which landing, `records`, `who` and `erased_addresses` are readable.
        key: The lake's key.
        live: For each table of `OWN`, its existing files and whether each is current.
        before: The lake's tombstones: people erased before still count as claimants, and as never moving.
    """

    def __init__(
        self, engine: DuckDB, key: Key, live: Mapping[str, Mapping[str, bool]], before: Tombstones | None = None
    ) -> None:
        self._engine, self._key, self._live, self._before = engine, key, live, before or Tombstones()

    def of_records(
        self,
        people: Collection[str],
        started: int,
        *,
        known: Tombstones | None = None,
        then: Tombstones | None = None,
    ) -> Tombstones:
        """Finds the devices by the landed records, and returns the tombstones of the customers.

        Args:
            people: The customers' marks.
            started: When the erasure began, epoch milliseconds.
            known: Tombstones of the same customers, if some of their rows may already be removed.
            then: Tombstones of erasures that are repeated; the result includes them.
        """
        engine, key = self._engine, self._key
        theirs = "in (select address from erased_addresses)"
        claimed = "is not null"
        if then is None:  # tombstones may name devices that none of them claims here
            claimed = f"in (select serialNumber from records where email {theirs})"
        engine.materialize(
            "claimed",
            f"select distinct r.serialNumber, w.person, w.address {theirs} as erased "
            f"from records as r inner join who as w on r.email = w.address where r.serialNumber {claimed}",
        )
        engine.materialize(
            "erased_serials", "select serialNumber from claimed group by serialNumber having bool_and(erased)"
        )
        self._shared()
        self._motions(started, all_near=then is None)
        engine.materialize(
            "erased_motions",
            'select e.person, m."timestamp" as moment from own_motions as m '
            # motions of older snapshots decide nothing any more
            'inner join erased_addresses as e on m."user" = e.address where m.now and m."timestamp" is not null',
        )
        engine.materialize(
            "erased_moments",
            "select distinct c.serialNumber, m.moment from erased_motions as m "
            "inner join claimed as c on m.person = c.person "
            "where c.serialNumber not in (select serialNumber from erased_serials)",
        )
        moments = engine.stream("select serialNumber, moment from erased_moments")
        marks = frozenset(tombstones.moment(key, number, at) for number, at in moments)
        if known is not None:
            # of an erasure that is begun anew: part of its rows may be gone already
            self._moments_known(known)
        if then is not None:
            self._moments_barred(then)
        # of shared devices only what was read at these moments leaves: the rest is somebody else's, or withheld
        among = "select serialNumber from erased_serials union select serialNumber from erased_moments"
        several = "select serialNumber from shared_serials union select serialNumber from erased_moments"
        self._keep("step_trainer_landing", "serialNumber", among, several, started, SUBJECT_STEPS)
        return Tombstones(self._until(people, started), self._claims(), self._last_read(started), marks) | (
            then or Tombstones()
        )

    def of_tombstones(self, known: Tombstones) -> None:
        """Finds the devices by the marks of tombstones, since the landed records may already be removed."""
        engine, key = self._engine, self._key
        numbers = engine.rows(
            "select serialNumber from records where serialNumber is not null union "
            "select serialNumber from step_trainer_landing"
        )
        # a mark cannot be turned back: every number is hashed
        marks = {number: tombstones.serial(key, number) for (number,) in numbers}
        alone = [(n,) for n, mark in marks.items() if mark in known.serials]
        engine.insert_rows("erased_serials", {"serialNumber": "varchar"}, alone)
        shared = [(n,) for n, mark in marks.items() if mark in known.claims and mark not in known.serials]
        engine.insert_rows("shared_serials", {"serialNumber": "varchar"}, shared)
        readings = engine.stream(
            "select distinct serialNumber, sensorReadingTime from step_trainer_landing "
            "where serialNumber in (select serialNumber from shared_serials)"
        )
        rows = [(n, at) for n, at in readings if tombstones.moment(key, n, at) in known.moments]
        engine.insert_rows("erased_moments", {"serialNumber": "varchar", "moment": "bigint"}, rows)

    def withheld(self) -> int:
        """Returns how many withheld readings are erased, both of devices that only they claim and of shared devices."""
        return self._withheld_of_all() + self._withheld_of_some()

    def _until(self, people: Collection[str], started: int) -> dict[str, int]:
        """Returns until when each customer's data stay out.

        A device whose clock runs ahead dates its data after the erasure; these must not come back either.
        """
        until = dict.fromkeys(people, started)
        for person, last in self._engine.rows(
            "select person, max(moment) from ("
            "select e.person, c.registrationDate as moment from customers_landing as c "
            "inner join erased_addresses as e on c.email = e.address union all "
            "select person, moment from erased_motions) group by person"
        ):
            # a person with only withdrawals has no instant
            until[person] = max(started, last or 0)
        return until

    def _claims(self) -> dict[str, tuple[str, ...]]:
        claims: dict[str, set[str]] = {}
        for number, person in self._engine.rows("select serialNumber, person from claimed where erased"):
            claims.setdefault(tombstones.serial(self._key, number), set()).add(person)
        return {number: tuple(sorted(who)) for number, who in claims.items()}

    def _last_read(self, started: int) -> dict[str, int]:
        last_read = self._engine.rows(
            "select e.serialNumber, max(s.sensorReadingTime) from erased_serials as e "
            "left join own_steps as s on e.serialNumber = s.serialNumber and s.now group by all"
        )
        return {tombstones.serial(self._key, number): max(started, last or 0) for number, last in last_read}

    def _shared(self) -> None:
        """Creates the relation of the customers' devices that several claim, or claimed before they were erased."""
        claims = self._engine.rows(
            "select serialNumber, count(*) from claimed group by serialNumber having bool_or(erased)"
        )
        shared = [(n,) for n, count in claims if count + self._before.claimants(self._key, n) > 1]
        self._engine.insert_rows("shared_serials", {"serialNumber": "varchar"}, shared)

    def _motions(self, started: int, *, all_near: bool) -> None:
        """Creates the relation of the customers' motions.

        If not more others than customers claim one of their devices, it creates `near_motions`, too: the current
        motions of these others. Of more, only the few at the customers' moments are read, later.

        Args:
            started: When the erasure began, epoch milliseconds.
            all_near: Whether these others are all whose motions count: tombstones may name further devices.
        """
        owners = "select address from erased_addresses"
        near = "select address from near_addresses"
        self._engine.materialize(
            "near_addresses",
            "select address from who where person in (select person from claimed where not erased "
            "and serialNumber in (select serialNumber from claimed where erased))",
        )
        [(few,)] = self._engine.rows(f"select (select count(*) from ({near})) <= (select count(*) from ({owners}))")
        self._few_near = all_near and bool(few)
        theirs = f'"user" in ({owners})'
        several = (
            "select address from erased_addresses where person in (select person from claimed "
            "where serialNumber in (select serialNumber from shared_serials))"
        )
        if not self._few_near:
            self._keep("accelerometer_landing", "user", owners, several, started)
            return
        rows = self._keep(
            "accelerometer_landing", "user", f"{owners} union {near}", f"{several} union {near}", started, theirs
        )
        self._engine.materialize("near_motions", f'select "user", "timestamp" from ({rows}) where now and not {theirs}')

    def _keep(self, name: str, key: str, wanted: str, read: str, after: int, condition: str = "true") -> str:
        """Creates the relation of a table's rows that have one of some texts in a column and match a condition.

        Args:
            name: The table.
            key: The column.
            wanted: A SELECT of the texts.
            read: A SELECT of those whose rows are needed with their instants.
            after: The instant, epoch milliseconds, after which instants are needed of all rows.
            condition: A further condition.

        Returns:
            The SELECT of these rows whether or not they match the condition.
        """
        kept = [column for column in COLUMNS[name] if column.name in _TOLD_BY]
        integers = [column.name for column in kept if column.type == "long"]
        found = self._engine.rows(f"select text, text in ({read}) from ({wanted}) as w(text) limit {MOST_TEXTS + 1}")
        selection = Selection(
            *(name, key, [text for text, _ in found], "_file", integers),
            read=[text for text, needed in found if needed],
            after=after,
        )
        left: dict[bool, list[str]] = {True: [], False: []}

        def rows() -> Iterator[tuple[str, ...]]:
            for path, now in sorted(self._live[name].items()):
                found = selection.rows(path)
                if found is None:
                    left[now].append(path)
                    continue
                for told, count in found.counted.items():
                    yield (*told, *("" for _ in integers), path, str(now), str(count))
                for told, values in found.read.items():
                    for start in range(0, len(values[0]), _TOGETHER):
                        packed = (" ".join(map(str, each[start : start + _TOGETHER])) for each in values)
                        yield (*told, *packed, path, str(now), "1")

        packed = f"{OWN[name]}_packed"
        columns = (key, "_file", *integers, "filename", "now", "n")
        self._engine.insert_rows(packed, dict.fromkeys(columns, "varchar"), rows())
        unpacked = {c: f"nullif(unnest(string_split({quoted(c)}, ' ')), '')::bigint" for c in integers}
        unpacked |= {"now": "now::boolean", "n": "n::bigint"}
        names = [*(column.name for column in kept), "filename", "now", "n"]
        parts = [f"select {', '.join(f'{unpacked.get(c, quoted(c))} as {quoted(c)}' for c in names)} from {packed}"]
        told = ", ".join(quoted(column.name) for column in kept)
        for now, files in left.items():
            if files:
                parts.append(
                    f"select {told}, filename, {now} as now, 1 as n from {read_files(sorted(files))} "
                    f"where {quoted(key)} in ({wanted})"
                )
        sql = " union all ".join(parts)
        self._engine.materialize(OWN[name], f"select * from ({sql}) where {condition}")
        return sql

    def _moments_known(self, known: Tombstones) -> None:
        """Adds moments that tombstones already contain: the motions that showed them may already be removed."""
        readings = self._engine.stream(
            "select distinct serialNumber, sensorReadingTime from step_trainer_landing "
            "where serialNumber in (select serialNumber from claimed where erased) "
            "and serialNumber not in (select serialNumber from erased_serials)"
        )
        self._add_moments({(n, at) for n, at in readings if tombstones.moment(self._key, n, at) in known.moments})

    def _moments_barred(self, then: Tombstones) -> None:
        """Adds the readings that tombstones bar to `erased_moments`: nothing else may show whose they were."""
        engine, key = self._engine, self._key
        numbers = engine.rows("select distinct serialNumber from step_trainer_landing")
        marks = {number: tombstones.serial(key, number) for (number,) in numbers}
        claimed = {number: mark for number, mark in marks.items() if mark in then.claims}
        engine.insert_rows("claimed_then", {"serialNumber": "varchar"}, [(number,) for number in claimed])
        readings = engine.stream(
            "select distinct serialNumber, sensorReadingTime from step_trainer_landing "
            "where serialNumber in (select serialNumber from claimed_then)"
        )
        self._add_moments(
            {
                (number, at)
                for number, at in readings
                if at <= then.serials.get(claimed[number], -1) or tombstones.moment(key, number, at) in then.moments
            }
        )

    def _add_moments(self, more: set[tuple[str, int]]) -> None:
        more.update(self._engine.rows("select serialNumber, moment from erased_moments"))
        self._engine.insert_rows("erased_moments", {"serialNumber": "varchar", "moment": "bigint"}, sorted(more))

    def _withheld_of_all(self) -> int:
        """Returns how many withheld readings are erased, for serial numbers that nobody else claims."""
        # with a single claimant nothing was withheld
        shared = "select serialNumber from erased_serials intersect select serialNumber from shared_serials"
        if not self._engine.rows(f"{shared} limit 1"):
            return 0
        [(count,)] = self._engine.rows(
            "select count(*) from (select distinct serialNumber, sensorReadingTime, distanceFromObject "
            f"from own_steps where now and serialNumber in ({shared})) as s "
            "left join (select c.serialNumber, m.moment, count(distinct c.person) as movers from claimed as c "
            "inner join erased_motions as m on c.person = m.person group by all) as m "
            "on s.serialNumber = m.serialNumber and s.sensorReadingTime = m.moment where coalesce(m.movers, 0) <> 1"
        )
        return int(count)

    def _withheld_of_some(self) -> int:
        """Returns how many withheld readings are erased, for serial numbers that others claim too."""
        # without such a moment no reading of a shared device leaves
        if not self._engine.rows("select 1 from erased_moments limit 1"):
            return 0
        # read others' motions at these moments only: for a device that everybody claims, all motions would be kept
        motions = "accelerometer_landing"
        if self._few_near:
            motions = '(select "user", "timestamp" from own_motions where now union all from near_motions)'
        self._engine.materialize(
            "motions_then",
            'select distinct w.person, a."timestamp" as moment from (select "user", "timestamp" from '
            f'{motions} where "timestamp" in (select moment from erased_moments)) as a '
            'inner join who as w on a."user" = w.address',
        )
        [(count,)] = self._engine.rows(
            "select count(*) from (select distinct s.serialNumber, s.sensorReadingTime, s.distanceFromObject "
            "from (select * from own_steps where now) as s inner join (select m.serialNumber, m.moment "
            "from erased_moments as m inner join motions_then as a on m.moment = a.moment "
            "inner join claimed as c on m.serialNumber = c.serialNumber and a.person = c.person "
            "group by m.serialNumber, m.moment having count(distinct c.person) > 1) as several "
            "on s.serialNumber = several.serialNumber and s.sensorReadingTime = several.moment)"
        )
        return int(count)


def read_files(paths: Iterable[str]) -> str:
    """Returns the relation of some Parquet files, with a column for the file that each row is in."""
    listed = ", ".join(map(path_literal, paths))
    return f"read_parquet([{listed}], filename = true, hive_partitioning = false)"
