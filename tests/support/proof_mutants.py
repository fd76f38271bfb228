"""Tables with one fault each, written without the lake's commands, and the findings that the proof must report.

`People` is a lake in which every rule decides something. A mutant is a table's new content: a SELECT over the current
tables, committed as a build would, with valid checksums and copied lineage.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deliveries import DAWN, customer, deliver, motion, step
from lakes import KEY, build
from stedi.audit.proof import Proof
from stedi.engines.duckdb import DuckDB
from stedi.lake import Lake
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import COLUMNS, ZONES

NOW = 1_000
Findings = set[tuple[str, str]]
"""Check and table of each violation."""

_KEY = Key(bytes.fromhex(KEY))
NAMES = ("ada", "bob", "cyd", "dot", "eve", "fay", "gus", "hal")
IDS = {name: _KEY.customer_id(f"{name}@x.example") for name in NAMES} | {
    "other": Key(b"o" * 32).customer_id("ada@x.example")
}


def address(name: str) -> str:
    return f"{name}@x.example"


def deliver_people(folder: Path) -> None:
    """Writes the records: Ada, Bob, Dot, Eve and Fay agree; Cyd never did, Gus no longer does, Hal will."""

    def person(name: str, serial: str, consent: object = 50, **more: Any) -> dict[str, object]:
        about = {"customerName": f"{name} of the lake", "phone": f"+49 151 {name}", "birthDay": "1990-02-03", **more}
        return customer(address(name), consent, serialNumber=serial, **about)

    customers: list[dict[str, object]] = [
        person("ada", "dev-1", 60),
        person("ada", "dev-1", 60, update=90, phone="+49 old"),
        person("bob", "dev-2"),
        person("cyd", "dev-3", ...),
        person("dot", "dev-4"),
        person("eve", "dev-5"),
        person("fay", "dev-5"),
        person("gus", "dev-6"),
        person("gus", "dev-6", ..., update=101),
        person("hal", "dev-7", NOW + 1),
        {"email": "ivy@x.example"},
    ]
    moves = [motion(address(name), at) for name in ("ada", "bob", "cyd", "gus", "hal") for at in (100, 101, 103)]
    moves += [motion(address("bob"), 100, 2.0), motion(address("ada"), 100, -0.0), motion(address("ada"), 100, 0.0)]
    moves += [motion(address("ada"), 55), motion("stranger@x.example", 100)]
    moves += [motion(address("eve"), at) for at in (100, 102)] + [motion(address("fay"), 102)]
    steps = [step(f"dev-{n}", at) for n in (1, 2, 3, 6, 7) for at in (100, 101)]
    steps += [step("dev-1", 55), step("dev-1", 104), step("dev-4", 100), step("stray", 100)]
    steps += [step("dev-5", 100), step("dev-5", 102), step("dev-2", 101, 250)]
    deliver(folder, "customer", customers)
    deliver(folder, "accelerometer", [*moves, *moves[:2]])
    deliver(folder, "step_trainer", [*steps, *steps[:2], {"serialNumber": "dev-1"}])


def make(lake: Lake, inbox: Path) -> Lake:
    """Lands and builds the people into an empty lake."""
    deliver_people(inbox)
    lake.land(inbox)
    build(lake, NOW)
    return lake


@dataclass(frozen=True, slots=True)
class Mutant:
    """One wrong table.

    Attributes:
        table: The table.
        sql: Its content, as a SELECT over the current tables; `{name}` is a person's pseudonym.
        expected: Exactly what the proof must find; by default in this table.
        properties: Properties that its snapshot changes from the previous one; None removes a property.
    """

    table: str
    sql: str
    expected: tuple[str, ...]
    properties: Mapping[str, str | None] | None = None

    @property
    def findings(self) -> Findings:
        return {(check, self.table) for check in self.expected}


def commit(lake: Lake, mutant: Mutant) -> None:
    """Writes the mutant's content into the table, as a build would publish it."""
    table, catalog = mutant.table, lake.catalog
    states = catalog.tables()
    current = states[table].current
    assert current is not None
    with DuckDB(memory="200MB", threads=1, temporary=lake.root / "tmp" / "mutant") as engine:
        for name, state in states.items():
            engine.bind_files(name, catalog.files(state))
        folder = catalog.folder(table) / "data" / f"0000000000001-{secrets.token_hex(4)}"
        files = engine.write(table, mutant.sql.format(**IDS), folder)
    properties = {name: value for name, value in current.summary.items() if name.startswith("stedi.")}
    for name, value in (mutant.properties or {}).items():
        properties.pop(name, None)
        if value is not None:
            properties[name] = value
    leaving = [file.path for file in catalog.files(states[table])]
    staged = catalog.stage(table, files, leaving, properties, branch="mutant", base=current.id)
    catalog.publish(table, branch="mutant", staged=staged, base=current.id)


def also(table: str, row: str) -> str:
    """The current table with some more rows."""
    names = ", ".join(f'"{column.name}"' for column in COLUMNS[table])
    return f"select {names} from {table} union all by name {row}"


TRUSTED, CURATED = "customers_trusted", "customers_curated"
MOTIONS, STEPS, ML = "accelerometer_trusted", "step_trainer_trusted", "machine_learning_curated"
_EVERY = {table: ", ".join(f'"{column.name}"' for column in COLUMNS[table]) for table in ZONES}


def _person(table: str, name: str) -> str:
    """A customer with the values of the landed record."""
    instants = ("registrationDate", "lastUpdateDate", "shareWithPublicAsOfDate", "shareWithFriendsAsOfDate")
    shown = ", ".join(f"instant({instant}) as {instant}" for instant in instants)
    return also(
        table,
        f"(select '{{{name}}}' as customer_id, customerName, email, phone, birthDay::date as birthDay, serialNumber, "
        f"{shown}, instant(coalesce(shareWithResearchAsOfDate, {DAWN + 50})) as shareWithResearchAsOfDate "
        f"from customers_landing where email = '{address(name)}' limit 1)",
    )


def _motion(name: str, at: int, x: str = "1.0") -> str:
    return also(
        MOTIONS,
        f"select '{{{name}}}' as customer_id, instant({DAWN + at}) as \"timestamp\", {x} as x, 0.0 as y, -1.0 as z",
    )


def _step(name: str, serial: str, at: int, distance: str = "246") -> str:
    return also(
        STEPS,
        f"select '{{{name}}}' as customer_id, instant({DAWN + at}) as sensorReadingTime, '{serial}' as serialNumber, "
        f"{distance}::bigint as distanceFromObject",
    )


def _pair(name: str, at: int, x: str = "1.0", distance: str = "246") -> str:
    return also(
        ML,
        f"select '{{{name}}}' as customer_id, instant({DAWN + at}) as sensorReadingTime, {distance}::bigint as "
        f"distanceFromObject, {x} as x, 0.0 as y, -1.0 as z",
    )


def _but(table: str, where: str) -> str:
    return f"select {_EVERY[table]} from {table} where not ({where})"


def _changed(table: str, **columns: str) -> str:
    shown = ", ".join(f'{value} as "{name}"' for name, value in columns.items())
    return f"select * replace ({shown}) from {table}"


_ADA = "customer_id = '{ada}'"
_SWAPPED = "case when x = 0 then 2.0 when x = 2 then 0.0 else x end"
"""Ada alone has a motion of 0.0, and Bob one of 2.0 at the same moment."""
MUTANTS: dict[str, Mutant] = {
    "a customer who never agreed is trusted": Mutant(TRUSTED, _person(TRUSTED, "cyd"), ("consent",)),
    "a customer who withdrew is trusted": Mutant(TRUSTED, _person(TRUSTED, "gus"), ("consent",)),
    "a customer who agrees from tomorrow is trusted": Mutant(TRUSTED, _person(TRUSTED, "hal"), ("consent",)),
    "a customer is missing": Mutant(TRUSTED, _but(TRUSTED, _ADA), ("conservation",)),
    "a customer stands twice": Mutant(
        TRUSTED, also(TRUSTED, f"select {_EVERY[TRUSTED]} from {TRUSTED} where {_ADA}"), ("one row",)
    ),
    "an old telephone number": Mutant(
        TRUSTED, _changed(TRUSTED, phone=f"if({_ADA}, '+49 old', phone)"), ("current record",)
    ),
    "a consent date a moment late": Mutant(
        TRUSTED,
        _changed(TRUSTED, shareWithResearchAsOfDate="shareWithResearchAsOfDate + interval 1 microsecond"),
        ("current record",),
    ),
    "a customer of another key": Mutant(
        TRUSTED,
        also(TRUSTED, f"select * replace ('{{other}}' as customer_id) from {TRUSTED} where {_ADA}"),
        ("pseudonyms",),
    ),
    "a customer without a pseudonym": Mutant(
        TRUSTED, also(TRUSTED, f"select * replace (null as customer_id) from {TRUSTED} where {_ADA}"), ("nulls",)
    ),
    "a customer without readings is curated": Mutant(CURATED, _person(CURATED, "dot"), ("curated",)),
    "a curated customer is missing": Mutant(CURATED, _but(CURATED, _ADA), ("conservation",)),
    "a curated customer never agreed": Mutant(CURATED, _person(CURATED, "cyd"), ("consent",)),
    "a curated customer's record is an old one": Mutant(
        CURATED, _changed(CURATED, phone=f"if({_ADA}, '+49 old', phone)"), ("current record",)
    ),
    "a motion of who never agreed": Mutant(MOTIONS, _motion("cyd", 100), ("consent",)),
    "a motion from before consent": Mutant(MOTIONS, _motion("ada", 55), ("before consent",)),
    "a motion that nobody delivered": Mutant(MOTIONS, _motion("ada", 100, "0.5"), ("landed",)),
    "a motion of somebody else": Mutant(MOTIONS, _motion("ada", 100, "2.0"), ("landed",)),
    "a motion stands twice": Mutant(MOTIONS, _motion("ada", 101), ("distinct",)),
    "a zero of either sign": Mutant(MOTIONS, _motion("ada", 100, "-0.0"), ("distinct",)),
    "a motion is missing": Mutant(MOTIONS, _but(MOTIONS, f"{_ADA} and x = 0"), ("conservation",)),
    "motions a microsecond late": Mutant(
        MOTIONS, _changed(MOTIONS, timestamp='"timestamp" + interval 1 microsecond'), ("landed", "conservation")
    ),
    "a motion under another key": Mutant(MOTIONS, _motion("other", 100), ("pseudonyms",)),
    "an address in place of a pseudonym": Mutant(
        MOTIONS, _motion("ada", 101).replace("{ada}", "Ada@X.example "), ("pseudonyms", "identifiers")
    ),
    "a motion without a direction": Mutant(MOTIONS, _motion("ada", 100, "null::double"), ("nulls",)),
    "a withheld step is guessed": Mutant(STEPS, _step("eve", "dev-5", 102), ("withheld",)),
    "a shared step is the other claimant's": Mutant(
        STEPS, _changed(STEPS, customer_id="if(serialNumber = 'dev-5', '{fay}', customer_id)"), ("owner",)
    ),
    "a step of nobody's device": Mutant(STEPS, _step("ada", "stray", 100), ("owner",)),
    "a step of who is not curated": Mutant(STEPS, _step("dot", "dev-4", 100), ("curated",)),
    "a step from before consent": Mutant(STEPS, _step("ada", "dev-1", 55), ("before consent",)),
    "a step that nobody delivered": Mutant(STEPS, _step("ada", "dev-1", 100, "299"), ("landed",)),
    "a step stands twice": Mutant(STEPS, _step("ada", "dev-1", 100), ("distinct",)),
    "a step is missing": Mutant(
        STEPS, _but(STEPS, f"{_ADA} and sensorReadingTime = instant({DAWN + 104})"), ("conservation",)
    ),
    "a step of who withdrew": Mutant(STEPS, _step("gus", "dev-6", 100), ("consent",)),
    "a telephone number among devices": Mutant(STEPS, _step("ada", "+49 151 BOB", 100), ("landed", "identifiers")),
    "one person's step with another's motion": Mutant(ML, _pair("ada", 100, "2.0"), ("one person",)),
    "another's step with one's own motion": Mutant(ML, _pair("ada", 101, distance="250"), ("one person",)),
    "a pair of no moment": Mutant(ML, _pair("ada", 104), ("one person",)),
    "a withheld step is trained on": Mutant(ML, _pair("eve", 102), ("one person",)),
    "a pair from before consent": Mutant(ML, _pair("ada", 55), ("before consent",)),
    "a pair stands twice": Mutant(ML, _pair("ada", 101), ("distinct",)),
    "a pair is missing": Mutant(
        ML, _but(ML, f"{_ADA} and sensorReadingTime = instant({DAWN + 101})"), ("conservation",)
    ),
    "a pair of who never agreed": Mutant(ML, _pair("cyd", 100), ("consent",)),
    "a pair without a distance": Mutant(ML, _pair("ada", 100, distance="null"), ("nulls",)),
    "a serial number in the training table": Mutant(
        ML, _pair("ada", 100).replace("{ada}", "dev-1"), ("pseudonyms", "identifiers")
    ),
    "a name in the training table": Mutant(
        ML, _pair("ada", 100).replace("{ada}", "BOB of the lake"), ("pseudonyms", "identifiers")
    ),
    "a file with more seen than counted": Mutant(
        "landed_files", _changed("landed_files", seen="seen + 1"), ("conservation",)
    ),
    "a landed record is gone": Mutant(
        "customers_landing", _but("customers_landing", "email = 'dot@x.example'"), ("conservation",)
    ),
    "a landed reading is of no file": Mutant(
        "step_trainer_landing",
        also("step_trainer_landing", "(select * replace ('ff' as _file) from step_trainer_landing limit 1)"),
        ("conservation",),
    ),
    "a quarantined record is gone": Mutant("quarantine", _but("quarantine", "feed = 'customer'"), ("conservation",)),
    "built from what never was": Mutant(
        MOTIONS,
        f"select * from {MOTIONS}",
        ("watermarks",),
        {"stedi.inputs": json.dumps({"accelerometer_landing": 1, "customers_trusted": 2})},
    ),
    "built by nobody": Mutant(
        ML,
        f"select * from {ML}",
        ("watermarks",),
        dict.fromkeys(("stedi.run", "stedi.inputs", "stedi.started", "stedi.policy", "stedi.sql")),
    ),
}


HIDING: dict[str, Mutant] = {
    "two people's motions change places": Mutant(MOTIONS, _changed(MOTIONS, x=_SWAPPED), ("landed", "conservation")),
    "two axes of a motion change places": Mutant(
        MOTIONS, _changed(MOTIONS, x="if(x = 0, z, x)", z="if(x = 0, x, z)"), ("landed", "conservation")
    ),
    "a motion stands in another's place": Mutant(
        MOTIONS,
        _motion("ada", 101).replace(f"from {MOTIONS} ", f"from {MOTIONS} where not ({_ADA} and x = 0) "),
        ("distinct", "conservation"),
    ),
    "two devices' steps change places": Mutant(
        STEPS,
        _changed(
            STEPS,
            distanceFromObject=f"case when distanceFromObject = 250 then 246 when sensorReadingTime = "
            f"instant({DAWN + 104}) then 250 else distanceFromObject end",
        ),
        ("landed", "distinct", "conservation"),
    ),
    "two people's pairs change places": Mutant(ML, _changed(ML, x=_SWAPPED), ("one person", "conservation")),
    "a pair stands in another's place": Mutant(
        ML,
        _pair("ada", 101).replace(f"from {ML} ", f"from {ML} where not ({_ADA} and x = 0) "),
        ("distinct", "conservation"),
    ),
}
"""Mutants that keep the counts, the sums over each column, and sums of hashes that ignore positions."""


def findings(found: Proof) -> Findings:
    """Returns the violated checks, each with its table."""
    return {(check.name, check.table) for check in found.checks if check.violations}
