"""Fast path of the proof: customers and devices whose published rows equal the expected ones by count and hash sums.

For each customer, and each device with one claimant, this counts the distinct expected rows and all published rows, and
sums two independent hashes of each whole row. If the count and both sums are equal, the rows are the same, each of them
once. All other customers and devices are left to `expected` and `violations`, which compare row by row. A hash has 64
bits and a sum 128: a wrong row stays hidden only if other rows produce both sums.

Creates `motion_sums`, `step_sums` and `odd_training`, and from them `curated`, `due_steps` and `counted_motions`. These
read the rows that count from the published tables if the sums agree, and from the landed tables otherwise. `due` has
`n`, the number of due steps; `partnered` has the number of due steps with a counted motion.
"""

from __future__ import annotations

from collections.abc import Sequence

from stedi.audit.proof import expected, violations
from stedi.audit.proof.as_of import AsOf
from stedi.audit.proof.expected import Claimants
from stedi.engines import Columnar, Engine
from stedi.engines.column_sums import ColumnSums, Joined
from stedi.schema.tables import COLUMNS

_MOTIONS, _STEPS, _LEARNED = "accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"
_CONSENTING = (
    "(select p.address, k.person, k.since from persons as p join known as k on p.person = k.person and k.consents)"
)
_ALWAYS = str(1 - (1 << 63))
"""A first moment that no reading is before, epoch microseconds."""
_MOTION = ("moment", "x", "y", "z")
_STEP = ("moment", "distance")
_TRAINING = ("moment", "distance", "x", "y", "z")
_DUE = (
    "select (select count(*) from steps where due) + (select coalesce(sum(found), 0)::bigint from step_sums "
    "where owner is not null) as n"
)
_PARTNERED = (
    "select count(*) as n from due_steps where (person, moment) in (select person, moment from counted_motions)"
)


def work_out(engine: Engine, base: AsOf, further: Claimants | None, *, training: bool) -> tuple[str, ...]:
    """Creates the relations of `expected` for readings, with single rows only where the sums do not agree.

    Args:
        engine: A session with the relations of `expected.customers`.
        base: The instant and the policy.
        further: Returns the number of further claimants of a serial number; None if the step trainer's tables are not
            judged.
        training: Whether the training table is judged.

    Returns:
        The tables that have been tallied (`violations.tally`).
    """
    _motions(engine, base)
    if further is None:
        return (_MOTIONS,)
    expected.devices(engine, further)
    _steps(engine, base)
    if not training:
        return (_MOTIONS, _STEPS)
    _training(engine, base)
    return (_MOTIONS, _STEPS, _LEARNED)


def _columnar(engine: Engine, table: str) -> ColumnSums | None:
    return engine.column_sums(table) if isinstance(engine, Columnar) else None


def _tally(engine: Engine, name: str, columns: Sequence[str]) -> None:
    """Reads a table once and computes for each customer the number of rows, the nulls, and the sums of the hashes."""
    one, other = engine.hashes(columns)
    violations.tally(engine, name, f"hash_sum({one}) as one, hash_sum({other}) as other")


def _distinct(engine: Engine, view: str, sql: str) -> None:
    """Counts the rows of each group (`who`) of a SELECT, and sums the hashes `one` and `other` of distinct rows.

    Creates who; landed: rows; timely: rows with hashes; counted: distinct ones; one, other.
    """
    engine.materialize(
        view,
        "select who, sum(n) as landed, coalesce(sum(n) filter (where one is not null), 0) as timely, "
        "count(one) as counted, hash_sum(one) as one, hash_sum(other) as other "
        # two rows with the same first hash would count as one: their customer is then compared row by row
        f"from (select who, one, max(other) as other, count(*) as n from ({sql}) group by who, one) group by who",
    )


def _motions(engine: Engine, base: AsOf) -> None:
    if not _motions_from_columns(engine, base):
        # `+ 0` makes 0 of -0: they are one reading, but not the same bits
        one, other = engine.hashes(_MOTION)
        in_time = f"moment >= since or not {base.since_consent}"
        _distinct(
            engine,
            "motions_landed",
            f"select person as who, case when {in_time} then {one} end as one, case when {in_time} then {other} end "
            'as other from (select p.person, p.since, a."timestamp" * 1000 as moment, a.x + 0 as x, a.y + 0 as y, '
            f'a.z + 0 as z from accelerometer_landing as a join {_CONSENTING} as p on a."user" = p.address)',
        )
        _tally(engine, _MOTIONS, ('epoch_us("timestamp")', "x + 0", "y + 0", "z + 0"))
    engine.materialize(
        # without any row both sums are null, and nothing equals nothing
        "motions_compared",
        "select k.person, coalesce(l.landed, 0) as landed, coalesce(l.timely, 0) as timely, coalesce(l.counted, 0) as "
        "counted, coalesce(f.n, 0) as found, coalesce(l.counted, 0) = coalesce(f.n, 0) and l.one is not "
        "distinct from f.one and l.other is not distinct from f.other as agrees from known as k left join "
        "motions_landed as l on k.person = l.who left join rows_of_accelerometer_trusted as f "
        "on k.customer_id = f.customer_id where k.consents",
    )
    # by what has landed, not by what is published
    engine.materialize("curated", "select person from motions_compared where counted > 0")
    engine.materialize("motion_sums", "select * from motions_compared where agrees")
    # only these are joined row by row
    engine.materialize("odd_motions", "select person from motions_compared where not agrees")
    expected.motions(engine, base, among="odd_motions")
    engine.view(
        "counted_motions",
        "select person, moment, x, y, z from motions where in_time and landed > 0 union all "
        # where the sums agree, the published rows are the expected ones, already distinct
        'select k.person, epoch_us(t."timestamp"), t.x + 0, t.y + 0, t.z + 0 from accelerometer_trusted as t '
        "join (select k.customer_id, k.person from known as k join motion_sums as s on k.person = s.person) as k "
        "on t.customer_id = k.customer_id",
    )


def _motions_from_columns(engine: Engine, base: AsOf) -> bool:
    sums, columns = _columnar(engine, "accelerometer_landing"), ("timestamp", "x", "y", "z")
    since = "p.since" if base.since_consent else _ALWAYS
    groups = (
        f"select p.address, p.person, {since}, s.n from senders as s join {_CONSENTING} as p on s.address = p.address"
    )
    return (
        sums is not None
        and sums.of_distinct("motions_landed", "accelerometer_landing", "user", columns, groups)
        and sums.of_texts("motions_summed", _MOTIONS, ["customer_id"], columns)
        and _tallied(engine, _MOTIONS, "motions_summed")
    )


def _tallied(engine: Engine, name: str, summed: str) -> bool:
    """Does what `_tally` does, from the sums of a table that has no nulls."""
    filled = sum(column.name not in violations.OPTIONAL for column in COLUMNS[name])
    engine.materialize(
        f"rows_of_{name}",
        f"select customer_id, sum(landed)::bigint as n, {filled} * sum(landed)::bigint as filled, sum(one) as one, "
        f"sum(other) as other from {summed} group by customer_id",
    )
    return True


def _steps(engine: Engine, base: AsOf) -> None:
    engine.materialize(
        "owners",
        "select d.serialNumber, d.serial, c.claimants, k.person as owner, k.customer_id, k.since, "
        "coalesce(k.consents, false) as consents, coalesce(k.consents and r.person is not null, false) as curated "
        "from devices as d join claimed as c on d.serial = c.serial left join known as k on c.sole = k.person "
        "left join curated as r on c.sole = r.person",
    )
    if not _steps_from_columns(engine, base):
        one, other = engine.hashes(_STEP)
        due = f"curated and claimants = 1 and (moment >= since or not {base.since_consent})"
        _distinct(
            engine,
            "steps_landed",
            f"select serial as who, case when {due} then {one} end as one, case when {due} then {other} end as other "
            "from (select o.*, s.sensorReadingTime * 1000 as moment, s.distanceFromObject as distance "
            "from step_trainer_landing as s join owners as o on s.serialNumber = o.serialNumber "
            "where o.claimants <= 1)",
        )
        one, other = engine.hashes(("epoch_us(sensorReadingTime)", "distanceFromObject"))
        engine.materialize(
            "steps_summed",
            f"select serialNumber, customer_id, count(*) as landed, {violations.filled(_STEPS)} as filled, "
            f"hash_sum({one}) as one, hash_sum({other}) as other from {_STEPS} group by serialNumber, customer_id",
        )
        engine.materialize(
            f"rows_of_{_STEPS}",
            "select customer_id, sum(landed)::bigint as n, sum(filled)::bigint as filled from steps_summed "
            "group by customer_id",
        )
    engine.materialize(
        # the sums are of a device; whom its rows name is told by the lowest and the highest of them
        "steps_found",
        "select o.serial, f.* from (select serialNumber, sum(landed)::bigint as found, sum(one) as one, sum(other) as "
        "other, coalesce(sum(landed) filter (where customer_id is not null), 0) as named, min(customer_id) as low, "
        "max(customer_id) as high from steps_summed group by serialNumber) as f join owners as o "
        "on f.serialNumber = o.serialNumber",
    )
    engine.materialize(
        "steps_compared",
        "select o.*, coalesce(l.landed, 0) as landed, coalesce(l.timely, 0) as timely, coalesce(l.counted, 0) as "
        "counted, coalesce(f.found, 0) as found, o.claimants <= 1 and coalesce(l.counted, 0) = coalesce(f.found, 0) "
        "and l.one is not distinct from f.one and l.other is not distinct from f.other and (f.found is null or "
        "(f.named = f.found and f.low = o.customer_id and f.high = o.customer_id)) as agrees from owners as o "
        "left join steps_landed as l on o.serial = l.who left join steps_found as f on o.serial = f.serial",
    )
    # a device that several claim never agrees: of each of its readings, who moved decides (rule 6)
    engine.materialize("step_sums", "select *, 0 as movers from steps_compared where agrees")
    engine.materialize("odd_devices", "select * from devices where serial not in (select serial from step_sums)")
    expected.steps(engine, base, among="odd_devices")
    engine.view("due", _DUE)
    engine.view(
        "due_steps",
        "select owner as person, moment, distance from steps where due union all "
        "select s.owner, epoch_us(t.sensorReadingTime), t.distanceFromObject from step_trainer_trusted as t "
        "join step_sums as s on t.serialNumber = s.serialNumber",
    )


def _steps_from_columns(engine: Engine, base: AsOf) -> bool:
    sums, landing = _columnar(engine, "step_trainer_landing"), "step_trainer_landing"
    since = "o.since" if base.since_consent else _ALWAYS
    groups = (
        f"select o.serialNumber, o.serial, case when o.curated and o.claimants = 1 then {since} end, s.n from "
        "(select serialNumber, count(*) as n from step_trainer_landing group by serialNumber) as s "
        "join owners as o on s.serialNumber = o.serialNumber where o.claimants <= 1"
    )
    columns = ("sensorReadingTime", "distanceFromObject")
    return (
        sums is not None
        and sums.of_distinct("steps_landed", landing, "serialNumber", columns, groups)
        and sums.of_texts("steps_summed", _STEPS, ["customer_id", "serialNumber"], columns)
        and _tallied(engine, _STEPS, "steps_summed")
    )


def _training(engine: Engine, base: AsOf) -> None:
    if not _training_from_columns(engine):
        one, other = engine.hashes(_TRAINING)
        moment = ("epoch_us(sensorReadingTime)", "distanceFromObject")
        _tally(engine, _LEARNED, (*moment, "x + 0", "y + 0", "z + 0"))
        # a step without a motion is one row of the left join, so one join gives both counts
        engine.materialize(
            "training_wanted",
            "select person, count(one) as n, hash_sum(one) as one, hash_sum(other) as other, "
            "count(*) - count(one) as alone from "
            f"(select s.person, case when m.moved is not null then {one} end as one, case when m.moved is not null "
            f"then {other} end as other from (select person, moment, distance from due_steps) as s left join (select "
            "person as mover, moment as moved, x, y, z from counted_motions) as m on s.person = m.mover "
            "and s.moment = m.moved) group by person",
        )
    engine.materialize(
        "odd_training",
        "select coalesce(w.person, f.person) as person from (select * from training_wanted where n > 0) as w "
        "full outer join (select k.person, f.* from rows_of_machine_learning_curated as f join known as k "
        "on f.customer_id = k.customer_id and k.consents) as f on w.person = f.person "
        "where w.n is distinct from f.n or w.one is distinct from f.one or w.other is distinct from f.other",
    )
    engine.view(
        "partnered",
        "select n - (select coalesce(sum(alone), 0)::bigint from training_wanted) as n from due",
    )
    if not engine.rows("select 1 from odd_training limit 1"):
        return
    engine.view("partnered", _PARTNERED)
    # to find what is wrong with their training rows, compare all readings that they delivered
    for sums_of, person in (("motion_sums", "person"), ("step_sums", "owner")):
        engine.materialize(
            sums_of,
            f"select * from {sums_of} where {person} is null or {person} not in (select person from odd_training)",
        )
    engine.materialize(
        "odd_motions", "select person from motions_compared where person not in (select person from motion_sums)"
    )
    engine.materialize("odd_devices", "select * from devices where serial not in (select serial from step_sums)")
    expected.motions(engine, base, among="odd_motions")
    expected.steps(engine, base, among="odd_devices")


def _training_from_columns(engine: Engine) -> bool:
    sums, axes = _columnar(engine, _MOTIONS), ("x", "y", "z")
    steps = Joined(
        _STEPS,
        "serialNumber",
        ("sensorReadingTime", "distanceFromObject"),
        "select serialNumber, owner, found from step_sums where owner is not null and found > 0",
        "select owner as person, moment, distance from steps where due",
    )
    motions = Joined(
        _MOTIONS,
        "customer_id",
        ("timestamp", *axes),
        "select k.customer_id, k.person, s.found from known as k join motion_sums as s on k.person = s.person",
        "select person, moment, x, y, z from motions where in_time and landed > 0",
    )
    found = (
        sums is not None
        and sums.of_join("training_joined", steps, motions)
        and sums.of_texts("training_summed", _LEARNED, ["customer_id"], (*steps.columns, *axes))
        and _tallied(engine, _LEARNED, "training_summed")
    )
    if found:
        engine.materialize(
            "training_wanted",
            "select who as person, counted as n, one, other, landed - timely as alone from training_joined",
        )
    return found
