"""Incremental builds: the table's own SQL over restricted inputs computes the change.

Increments of the inputs -> who and what is affected -> the very same SELECT, reading only that -> rows to add, and
customers whose rows are removed and computed again. For rows of readings this is the algebra of a join: the added rows
of one input with the others as they are now, and the added rows of the other with the first as it was. Nothing here
writes a file. A relation `T__old` is table T as it was at the watermark, `T__added` what it has gained since, `T__gone`
the customers who have lost rows since, `T__fresh` and `T__insert` rows recomputed.
"""

from __future__ import annotations

from collections.abc import Callable

from stedi.engines import Streaming
from stedi.engines.literals import quoted
from stedi.schema.tables import COLUMNS, CONSENT_FROM, DUCKDB_TYPES
from stedi.transform.session import BuildSession

MOMENTS = {
    "accelerometer_trusted": "timestamp",
    "step_trainer_trusted": "sensorReadingTime",
    "machine_learning_curated": "sensorReadingTime",
}
"""The column with the time of a reading, for each table of readings below landing."""

MANY = 1.0
"""New readings for each record of a customer that are many: most customers have some of them."""
_STREAMED = 1_000_000
"""Readings that are made distinct, sorted and written at once; of more, each step takes all the memory."""
_NO_SHARED = (
    "select null::bigint as sensorReadingTime, null::varchar as serialNumber, null::bigint as distanceFromObject, "
    "null::bigint as matches, customer_id, person from people__claiming where false"
)
"""What `shared_readings` is where no reading is shared: Spark and DuckDB answer it without reading anything."""
_Span = tuple[int, int]
"""From when to when, epoch milliseconds."""
_EVER, _NEVER = (-(1 << 62), 1 << 62), (0, -1)
_SHARED = "serialNumber in (select serialNumber from claims__now where claimants > 1)"


class IncrementalBuild:
    """The changes of one build, table after table.

    Args:
        session: A session in which every stored table is readable, tables changed by this build in their new state.
    """

    def __init__(self, session: BuildSession) -> None:
        self._session, self._engine = session, session.engine
        self.customers = 0
        """How many customers are new, once `customers_trusted` is worked out."""
        self.withheld = 0
        """By how much the number of withheld readings has changed, once `step_trainer_trusted` is worked out."""
        self._worn_since: int | None = None
        """The watermark of the added readings whose wearers are known."""
        self._recognised_since: int | None = None
        """The watermark of those whose wearers were recognised, with everybody who has a record."""
        self._by_table: dict[str, Callable[[int], bool]] = {
            "customers_trusted": self._customers_trusted,
            "accelerometer_trusted": self._accelerometer_trusted,
            "customers_curated": self._customers_curated,
            "step_trainer_trusted": self._step_trainer_trusted,
            "machine_learning_curated": self._machine_learning_curated,
        }

    def work_out(self, table: str, started: int) -> bool:
        """Makes `<table>__insert`, the rows to add, and `<table>__affected`, the customers whose rows are removed.

        The relations `__old`, `__added` and `__gone` of its inputs must exist.

        Args:
            table: The table.
            started: The start of its last build, epoch milliseconds.

        Returns:
            Whether there may be rows to add.
        """
        return self._by_table[table](started)

    def _customers_trusted(self, started: int) -> bool:
        engine, low, high = self._engine, *sorted((started, int(self._session.parameters["build_started"])))
        addresses = "select email as address from customers_landing__added"
        # a consent date that the clock has passed, in either direction, changes a row that no new record touches
        last, upcoming = self._session.consent_dates()
        if (last is not None and last > low) or (upcoming is not None and upcoming <= high):
            dated = f"{CONSENT_FROM} > {low} and {CONSENT_FROM} <= {high}"
            addresses += f" union all select email from customers_landing where {dated}"
        self._of_customers(addresses, "scope")
        engine.materialize("customers_trusted__scope", "select distinct customer_id from people__scope")
        # the view of current records runs over all records of these customers, old ones too: the newest decides
        among = {"customers_landing": "customers_landing__scope", "people": "people__scope"}
        engine.materialize("current_customers__scope", self._session.over("current_customers", **among))
        gains = self._compare(
            "customers_trusted", self._session.over("customers_trusted", current_customers="current_customers__scope")
        )
        # new customers have only added records
        counted = (
            f"select p.customer_id, {n} as n from {records} as c inner join people__scope as p on c.email = p.address"
            # each record adds one and each added one takes it away: nothing is left of a customer without older records
            for records, n in (("customers_landing__scope", 1), ("customers_landing__added", -1))
        )
        [(self.customers,)] = engine.rows(
            f"select count(*) from (select customer_id from ({' union all '.join(counted)}) "
            "group by customer_id having sum(n) = 0)"
        )
        return gains

    def _accelerometer_trusted(self, started: int) -> bool:
        engine, scope = self._engine, "accelerometer_landing__added"
        self._recognise("accelerometer_landing__added")
        # a customer who only got another name has the same readings as before
        self._turned("customers_trusted", "accelerometer_trusted__affected")
        recomputed = "customers_trusted where customer_id in (select customer_id from accelerometer_trusted__affected)"
        if self._any(recomputed):
            # new consent may admit readings of any age under any spelling; for all others only new readings matter
            everybody = 'select distinct "user" as address from accelerometer_landing'
            engine.spellings("addresses__recomputed", everybody, f"select email as address from {recomputed}")
            scope = "accelerometer_landing__scope"
            among = "(select address from addresses__recomputed)"
            engine.view(
                scope,
                f'select * from accelerometer_landing where "user" in {among} union all '
                f'select * from accelerometer_landing__added where "user" not in {among}',
            )
        # of others' readings none is trusted
        wearers = "recognised__known" if self._are_recognised(scope) else self._wearers(scope)
        fresh = self._session.over("accelerometer_trusted", accelerometer_landing=scope, wearers=wearers)
        return self._add_new("accelerometer_trusted", fresh, f'select "timestamp" as moment from {scope}')

    def _customers_curated(self, started: int) -> bool:
        engine, name, motions = self._engine, "customers_curated", "accelerometer_trusted__added"
        turned = ("customers_trusted__added", "customers_trusted__gone", "accelerometer_trusted__gone")
        if any(self._any(relation) for relation in turned):
            everybody = (f"select customer_id from {relation}" for relation in (*turned, motions))
            engine.materialize(f"{name}__scope", " union ".join(everybody))
            people, motions = "customers_trusted__scope_curated", "accelerometer_trusted__scope"
            scope = f"customer_id in (select customer_id from {name}__scope)"
            engine.materialize(people, f"select * from customers_trusted where {scope}")
            # only of those who are trusted: a withdrawal then reads no reading
            scope = f"customer_id in (select customer_id from {people})"
            engine.view(motions, f"select customer_id from accelerometer_trusted where {scope}")
        else:
            # no record has changed, and customers with new readings only gain rows
            engine.view(f"{name}__scope", "select null::varchar as customer_id where false")
            engine.materialize(
                f"{name}__known",
                f"select customer_id from {name} where customer_id in (select customer_id from {motions})",
            )
            people, scope = (
                "customers_trusted__scope_curated",
                f"customer_id not in (select customer_id from {name}__known)",
            )
            engine.view(people, f"select * from customers_trusted where {scope}")
        return self._compare(name, self._session.over(name, customers_trusted=people, accelerometer_trusted=motions))

    def _step_trainer_trusted(self, started: int) -> bool:
        engine = self._engine
        self._recognise("step_trainer_landing__added")
        self._turned("customers_curated", "owners__turned")
        serials = (
            "select serialNumber from customers_landing__added union all "
            "select serialNumber from step_trainer_landing__added"
        )
        # late motion: readings landed before it may get an owner, or a second one, at its moments
        earlier = self._within(
            "step_trainer_landing__old", "sensorReadingTime", self._span("accelerometer_landing__added", '"timestamp"')
        )
        late = self._any(f"({earlier})")
        if late:
            moved = '(select "timestamp" from accelerometer_landing__added)'
            serials += f" union all select serialNumber from ({earlier}) where sensorReadingTime in {moved}"
        self._claims(serials)
        # a further claim withholds readings of any age (rule 6): all of such a device are judged again
        if self._any("customers_landing__added"):
            engine.materialize(
                "serials__claimed",
                "select distinct serialNumber from (select serialNumber, customer_id from claims__now "
                "except select serialNumber, customer_id from claims__old)",
            )
        else:
            engine.view("serials__claimed", "select null::varchar as serialNumber where false")
        moments = f"select serialNumber, sensorReadingTime as moment from step_trainer_landing__added where {_SHARED}"
        if late:
            # new motion decides readings of the devices that its wearer shares, at that moment; of other devices a
            # reading is its owner's or nobody's, whatever has moved
            wearers = self._wearers("accelerometer_landing__added")
            moments += (
                ' union all select c.serialNumber, a."timestamp" from accelerometer_landing__added as a '
                f'inner join {wearers} as w on a."user" = w.address '
                "inner join claims__now as c on w.person = c.person and c.claimants > 1"
            )
        engine.materialize("moments__touched", f"select distinct serialNumber, moment from ({moments})")
        touched = self._span("moments__touched", "moment")
        at_moments = "(serialNumber, sensorReadingTime) in (select serialNumber, moment from moments__touched)"
        self._shared("touched", at_moments, touched)
        known = self._within("step_trainer_trusted", "sensorReadingTime", touched)
        engine.materialize(
            # rows may leave of owners who turned, of newly claimed devices, and where another moved
            "step_trainer_trusted__affected",
            "select customer_id from owners__turned union select customer_id from claims__now "
            "where serialNumber in (select serialNumber from serials__claimed) union "
            # among the owners of published readings, whoever no longer owns a reading, or is no longer alone with it
            f"select t.customer_id from ({known}) as t "
            "inner join shared_readings__touched as r on t.serialNumber = r.serialNumber "
            "and t.sensorReadingTime = instant(r.sensorReadingTime) and t.distanceFromObject = r.distanceFromObject "
            "where r.matches <> 1 or r.customer_id <> t.customer_id",
        )
        affected = "customers_curated where customer_id in (select customer_id from step_trainer_trusted__affected)"
        if self._any(affected):
            self._of_customers(f"select email as address from {affected}", "affected")
            # whoever is recomputed is so with all their devices, and these with all their claimants
            self._claims(
                "select serialNumber from serials__affected union select serialNumber from customers_landing__affected",
                "serials__reached",
            )
        engine.materialize(
            "serials__recomputed",
            "select serialNumber from serials__claimed union select serialNumber from claims__now "
            f"where customer_id in (select customer_id from {affected})",
        )
        # of other devices only what happened at a moment that something new touches is judged
        among = "serialNumber in (select serialNumber from serials__recomputed)"
        recomputed = self._any("serials__recomputed")
        scope, shared, span = "select * from step_trainer_landing__added", at_moments, touched
        if recomputed:
            scope = f"select * from step_trainer_landing where {among} union all {scope} where not ({among})"
            shared, span = f"({among} or {at_moments}) and {_SHARED}", _EVER
            self._shared("scope", shared, span)
        else:
            engine.view("shared_readings__scope", "select * from shared_readings__touched")
        # the same readings as they were judged at the watermark, for the difference of the counts below
        self._shared("before", shared, span, old=True)
        engine.view("step_trainer_landing__scope", scope)
        fresh = self._session.over(
            "step_trainer_trusted",
            step_trainer_landing="step_trainer_landing__scope",
            shared_readings="shared_readings__scope",
            claims="claims__now",
            # of whom only the curated are read
            people="people__claiming" if self._recognised_since is None else "recognised__known",
        )
        read = ("step_trainer_landing__scope", "shared_readings__scope")
        moments = " union all ".join(f"select sensorReadingTime as moment from {relation}" for relation in read)
        gains = self._add_new("step_trainer_trusted", fresh, moments)
        # both counts are over the same readings, so their difference is that of the whole
        [(now,)] = engine.rows("select count(*) from shared_readings__scope where matches <> 1")
        [(before,)] = engine.rows("select count(*) from shared_readings__before where matches <> 1")
        self.withheld = now - before
        return gains

    def _machine_learning_curated(self, started: int) -> bool:
        engine = self._engine
        name, steps, motions = "machine_learning_curated", "step_trainer_trusted", "accelerometer_trusted"
        engine.materialize(
            f"{name}__affected", f"select customer_id from {steps}__gone union select customer_id from {motions}__gone"
        )
        among = f"(select customer_id from {name}__affected)"
        for table in (steps, motions):
            engine.view(f"{table}__recomputed", f"select * from {table} where customer_id in {among}")
            engine.view(f"{table}__gained", f"select * from {table}__added where customer_id not in {among}")
        # old steps with old motions are published already: a pair needs something new on one side
        # of new steps all motions are wanted, of new motions only old steps: new with new would come twice
        at_steps = self._span(f"{steps}__gained", "epoch_ms(sensorReadingTime)")
        at_motions = self._span(f"{motions}__gained", 'epoch_ms("timestamp")')
        now, before = (
            self._within(relation, moment, span)
            for relation, moment, span in (
                (motions, "timestamp", at_steps),
                (f"{steps}__old", "sensorReadingTime", at_motions),
            )
        )
        engine.view(f"{motions}__now", f"{now} and customer_id not in {among}")
        engine.view(f"{steps}__before", f"{before} and customer_id not in {among}")
        # an empty relation yields no row: do not join it with a large one; nobody but the curated has steps (rule 6)
        pairs = [
            pair
            for pair, needed in (
                (("recomputed", "recomputed"), [f"customers_curated where customer_id in {among}"]),
                (("gained", "now"), [f"{steps}__gained"]),
                (("before", "gained"), [f"{motions}__gained", f"{steps}__before"]),
            )
            if all(map(self._any, needed))
        ]
        parts = [
            self._session.over(name, **{steps: f"{steps}__{of_steps}", motions: f"{motions}__{of_motions}"})
            for of_steps, of_motions in pairs
        ]
        names = ", ".join(f"null::{DUCKDB_TYPES[column.type]} as {quoted(column.name)}" for column in COLUMNS[name])
        engine.view(
            f"{name}__insert", " union all ".join(f"({part})" for part in (*parts, f"select {names} where false"))
        )
        return bool(pairs)

    def _of_customers(self, addresses: str, what: str) -> None:
        """Makes all records of the customers of some addresses readable, and their `people`.

        Args:
            addresses: A SELECT of `address`.
            what: The suffix of both relations' names.
        """
        engine, records = self._engine, f"customers_landing__{what}"
        engine.spellings(f"addresses__{what}", "select email as address from customers_landing", addresses)
        engine.materialize(
            records, f"select * from customers_landing where email in (select address from addresses__{what})"
        )
        self._session.materialize(f"people__{what}", self._session.over("people", customers_landing=records))

    def _claims(self, serials: str, name: str = "serials__affected") -> None:
        """Computes who claims some devices, now and at the watermark.

        Args:
            serials: A SELECT of `serialNumber`.
            name: The name of the stored result.
        """
        engine, session, records = self._engine, self._session, "customers_landing__claiming"
        engine.materialize(name, f"select distinct serialNumber from ({serials}) where serialNumber is not null")
        # the records as they were and those landed since: one scan for both states
        parts = (
            f"select email, serialNumber, {old} as old from customers_landing__{state} "
            f"where serialNumber in (select serialNumber from {name})"
            for state, old in (("old", "true"), ("added", "false"))
        )
        engine.materialize(records, " union all ".join(parts))
        if self._recognised_since is None:
            session.materialize("people__claiming", session.over("people", customers_landing=records))
        else:
            engine.view("people__claiming", "select * from recognised__all")
        session.materialize("erased_claims__claiming", session.over("erased_claims", customers_landing=records))
        views = {"people": "people__claiming", "erased_claims": "erased_claims__claiming"}
        engine.materialize("claims__now", session.over("claims", customers_landing=records, **views))
        if self._any("customers_landing__added"):
            engine.view(f"{records}__old", f"select email, serialNumber from {records} where old")
            engine.materialize("claims__old", session.over("claims", customers_landing=f"{records}__old", **views))
        else:
            engine.view("claims__old", "select * from claims__now")

    def _any(self, relation: str) -> bool:
        return bool(self._engine.rows(f"select 1 from {relation} limit 1"))

    def _recognise(self, readings: str) -> None:
        """Prepares for many new readings, which are of most customers: none but those trusted needs a pseudonym.

        All others only have to be told apart, and from these.
        """
        engine = self._engine
        if isinstance(engine, Streaming):
            [(new, records)] = engine.rows(
                f"select (select count(*) from {readings}), (select count(*) from customers_landing)"
            )
            if new > MANY * records:
                users = 'select "user" as address from accelerometer_landing__added'
                if engine.recognise(
                    f"select email as address from customers_landing union all {users}",
                    "select email as address, customer_id from customers_trusted",
                ):
                    self._recognised_since = self._session.since("accelerometer_landing")

    def _are_recognised(self, motions: str) -> bool:
        """Returns whether the wearers of some readings are among those whom `_recognise` has recognised."""
        since = self._session.since("accelerometer_landing")
        return motions == "accelerometer_landing__added" and self._recognised_since == since

    def _wearers(self, motions: str) -> str:
        """Computes the wearers of some readings, and returns their name; those of added ones once for all tables."""
        # the watermark is part of what is known: tables can be built from different snapshots
        view, since = f"wearers__{motions.partition('__')[2]}", self._session.since("accelerometer_landing")
        if self._are_recognised(motions):
            return "recognised__all"
        if motions != "accelerometer_landing__added" or since != self._worn_since:
            self._session.materialize(view, self._session.over("wearers", accelerometer_landing=motions))
        if motions == "accelerometer_landing__added":
            self._worn_since = since
        return view

    def _turned(self, customers: str, relation: str) -> None:
        """Finds customers whose readings a changed customers table adds, removes, or (rule 4) cuts at another time."""
        if not self._any(f"{customers}__added"):
            # whoever lost the only row that a customers table has of them is in it no more
            return self._engine.materialize(relation, f"select customer_id from {customers}__gone")
        changed = f"(select customer_id from {customers}__added union select customer_id from {customers}__gone)"
        since = "shareWithResearchAsOfDate" if self._session.parameters["readings"] != "all" else "true"
        was, now = (
            f"(select customer_id, {since} as since from {state} where customer_id in {changed})"
            for state in (f"{customers}__old", customers)
        )
        return self._engine.materialize(
            relation,
            "select coalesce(was.customer_id, n.customer_id) as customer_id "
            f"from {was} as was full outer join {now} as n on was.customer_id = n.customer_id "
            # under `all` the date decides nothing, so `since` is the same for everybody
            "where was.customer_id is null or n.customer_id is null or was.since <> n.since",
        )

    def _shared(self, suffix: str, where: str, span: _Span, *, old: bool = False) -> None:
        """Computes who owns some readings of shared serial numbers, now or at the watermark.

        Args:
            suffix: The end of the result's name.
            where: A condition of the step trainer readings.
            span: When they were taken; if at any time, there may be any number of them: their motions are read twice
                then, not stored.
            old: Whether as of the watermark.
        """
        engine, state = self._engine, "__old" if old else ""
        if span == _NEVER:
            return engine.view(f"shared_readings__{suffix}", _NO_SHARED)
        claims = "claims__old" if old else "claims__now"
        steps, motions = f"step_trainer_landing__shared_{suffix}", f"accelerometer_landing__shared_{suffix}"
        # stored first: in most builds there are none, and then no motion is read
        read = self._within(f"step_trainer_landing{state}", "sensorReadingTime", span)
        engine.materialize(steps, f"{read} and {where}")
        if not self._any(steps):
            return engine.view(f"shared_readings__{suffix}", _NO_SHARED)
        near = self._within(f"accelerometer_landing{state}", "timestamp", self._span(steps, "sensorReadingTime"))
        (engine.view if span == _EVER else engine.materialize)(
            motions,
            f'select "user", "timestamp" from ({near}) where "timestamp" in (select sensorReadingTime from {steps})',
        )
        read_by = {
            "shared_claims": {"claims": claims},
            "shared_steps": {"step_trainer_landing": steps},
            "shared_motions": {"accelerometer_landing": motions, "wearers": self._wearers(motions)},
        }
        under = {view: f"{view}__{suffix}" for view in read_by}
        for view, relations in read_by.items():
            engine.view(under[view], self._session.over(view, **under, **relations))
        sharing = f"select * from people__claiming where person in (select person from {under['shared_claims']})"
        engine.view("people__sharing", sharing)
        return engine.materialize(
            f"shared_readings__{suffix}", self._session.over("shared_readings", **under, people="people__sharing")
        )

    def _compare(self, table: str, fresh: str) -> bool:
        """Marks the customers in scope whose row differs as changed; returns whether any has a row now."""
        engine = self._engine
        names = ", ".join(quoted(column.name) for column in COLUMNS[table])
        engine.materialize(f"{table}__fresh", f"select {names} from ({fresh})")
        engine.materialize(
            f"{table}__stale",
            f"select {names} from {table} where customer_id in (select customer_id from {table}__scope)",
        )
        engine.materialize(
            f"{table}__affected",
            f"select customer_id from (select * from {table}__stale except select * from {table}__fresh)",
        )
        # a row that stays the same is neither removed nor written: its file is not touched
        engine.view(f"{table}__insert", f"select * from {table}__fresh except select * from {table}__stale")
        return self._any(f"{table}__fresh")

    def _add_new(self, table: str, fresh: str, moments: str) -> bool:
        """Marks as new all rows of affected customers, and rows of others that the table does not have yet.

        Args:
            table: The table.
            fresh: The SELECT of the recomputed rows.
            moments: A SELECT of `moment`, epoch milliseconds: when the readings that it reads were taken.

        Returns:
            Whether there may be such rows.
        """
        engine, moment = self._engine, MOMENTS[table]
        names = ", ".join(quoted(column.name) for column in COLUMNS[table])
        [(read,)] = engine.rows(f"select count(*) from ({moments})")
        if not read:
            # as when customers only left: to compute rows of no reading would ask after every file of the table
            engine.view(f"{table}__insert", f"select {names} from {table} where false")
            return False
        nobody = not self._any(f"{table}__affected")
        near = self._within(table, moment, self._span(f"({moments})", "moment"))
        if nobody and read <= _STREAMED and not self._any(f"({near})"):
            # nothing is known of their time yet, as when readings arrive in its order: rows are written as computed
            engine.view(f"{table}__insert", f"select {names} from ({fresh})")
            return True
        engine.materialize(f"{table}__fresh", f"select {names} from ({fresh})")
        if not self._any(f"{table}__fresh"):
            engine.view(f"{table}__insert", f"select * from {table}__fresh")
            return False
        if nobody:
            near = self._within(table, moment, self._span(f"{table}__fresh", f"epoch_ms({quoted(moment)})"))
            known = f"select {names} from ({near})"
            engine.view(f"{table}__insert", f"select * from {table}__fresh except {known}")
            return True
        others = f"customer_id not in (select customer_id from {table}__affected)"
        engine.view(f"{table}__others", f"select * from {table}__fresh where {others}")
        near = self._within(table, moment, self._span(f"{table}__others", f"epoch_ms({quoted(moment)})"))
        engine.view(
            f"{table}__insert",
            f"select * from {table}__fresh where not ({others}) union all "
            f"(select * from {table}__others except select {names} from ({near}))",
        )
        return True

    def _span(self, relation: str, moment: str) -> _Span:
        """Returns from when to when a relation has rows; `moment` is its column or expression, epoch milliseconds."""
        [(low, high)] = self._engine.rows(f"select min({moment}), max({moment}) from {relation}")
        return _NEVER if low is None else (low, high)

    def _within(self, relation: str, column: str, span: _Span) -> str:
        """Returns the SELECT of a relation's rows of a span, so that files outside it are not read."""
        if span in (_EVER, _NEVER):
            return f"select * from {relation} where {'true' if span == _EVER else 'false'}"
        return self._engine.within(relation, column, *span)
