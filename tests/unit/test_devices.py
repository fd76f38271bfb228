"""The readings of shared devices that an erasure takes, and how many of them were withheld."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pyarrow.parquet as pq
import pytest
from test_pages import table_of

from stedi.engines import selection
from stedi.engines.duckdb import DuckDB, task_session
from stedi.erasure.devices import OWN, SUBJECT_STEPS, Devices
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.schema.tables import ALL_COLUMNS, DUCKDB_TYPES

KEY = Key(b"k" * 32)
ANN, BO, CY = (f"{name}@x.example" for name in ("ann", "bo", "cy"))
THEN = 5
"""The instant at which all of them moved."""


def landed(engine: DuckDB, folder: Path, table: str, rows: Iterable[Mapping[str, object]]) -> dict[str, bool]:
    """Makes a landing table of some rows readable; returns its only file, which is current."""
    columns = {column.name: DUCKDB_TYPES[column.type] for column in ALL_COLUMNS[table]}
    path = folder / f"{table}.parquet"
    engine.insert_rows("rows", columns, [tuple(map(row.get, columns)) for row in rows])
    engine.copy("select * from rows", path)
    engine.view(table, f"select * from read_parquet('{path}')")
    return {str(path): True}


def test_withheld_readings_are_counted_of_devices_that_only_tombstones_name(tmp_path: Path) -> None:
    persons = {address: tombstones.person(KEY, address) for address in (ANN, BO, CY)}
    shared = tombstones.serial(KEY, "shared")
    known = Tombstones(claims={shared: (persons[ANN],)}, moments=frozenset({tombstones.moment(KEY, "shared", THEN)}))
    claims = {ANN: "own", BO: "shared", CY: "shared"}
    records = [{"email": address, "serialNumber": number, "registrationDate": 1} for address, number in claims.items()]
    motions = [{"user": address, "timestamp": THEN, "_file": "f"} for address in (BO, CY)]
    steps = [{"serialNumber": "shared", "sensorReadingTime": THEN, "distanceFromObject": 1, "_file": "f"}]
    with task_session() as engine:
        landed(engine, tmp_path, "customers_landing", records)
        engine.view("records", "select * from customers_landing")
        live = {
            "accelerometer_landing": landed(engine, tmp_path, "accelerometer_landing", motions),
            "step_trainer_landing": landed(engine, tmp_path, "step_trainer_landing", steps),
        }
        columns = {"address": "varchar", "person": "varchar"}
        engine.insert_rows("who", columns, persons.items())
        engine.insert_rows("erased_addresses", columns, [(ANN, persons[ANN])])
        devices = Devices(engine, KEY, live)
        devices.of_records([persons[ANN]], 10, then=known)
        assert engine.rows("select * from erased_moments") == [("shared", THEN)]
        assert devices.withheld() == 1, "bo and cy moved at once: the reading was withheld from both"


def delivered(
    engine: DuckDB, folder: Path, table: str, files: Iterable[tuple[Iterable[Mapping[str, object]], bool]], group: int
) -> dict[str, bool]:
    """Makes a landing table of files as a landing writes them readable; returns each with whether it is current."""
    columns, live = ALL_COLUMNS[table], dict[str, bool]()
    for number, (rows, now) in enumerate(files):
        values = [
            [row.get(column.name, 0.5 if column.type == "double" else None) for row in rows] for column in columns
        ]
        path = folder / f"{table}-{number}.parquet"
        whole = table_of(table, values, [column.name == "_extra" for column in columns])
        pq.write_table(whole, path, compression="zstd", store_schema=False, row_group_size=group)
        live[str(path)] = now
    paths = [path for path, now in live.items() if now]
    engine.view(table, f"select * from read_parquet({paths})")
    return live


@pytest.mark.parametrize("seed", range(40))
def test_readings_are_counted_where_their_instants_decide_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What is found is the same as when the engine reads all rows with their instants."""
    chance, started = Random(seed), 6
    names = [f"{name}@x.example" for name in "abcdef"]
    persons = {address: tombstones.person(KEY, address) for address in names}
    erased = names[: chance.choice([1, 3, 3, 5])]
    numbers = [f"device {n}" for n in range(chance.choice([4, 8]))]
    claims = [(address, number) for address in names for number in chance.sample(numbers, chance.choice([1, 1, 2]))]
    past = {tombstones.serial(KEY, n): ("somebody erased",) for n in chance.sample(numbers, chance.choice([0, 0, 1]))}
    records = [{"email": address, "serialNumber": number, "registrationDate": 1} for address, number in claims]
    # the last instant is after the erasure
    instants = range(1, chance.choice([started, started + 2]))

    def readings(column: str, whose: list[str], at: str) -> list[tuple[list[dict[str, object]], bool]]:
        return [
            (
                [
                    {column: chance.choice(whose), at: chance.choice(instants), "_file": chance.choice("fg")}
                    | {"distanceFromObject": chance.choice([1, 2])}
                    for _ in range(60)
                ],
                now,
            )
            for now in (True, True, False)
        ]

    with task_session() as engine:
        landed(engine, tmp_path, "customers_landing", records)
        engine.view("records", "select * from customers_landing")
        motions, steps = readings("user", names, "timestamp"), readings("serialNumber", numbers, "sensorReadingTime")
        group = chance.choice([20, 1_000])
        live = {
            "accelerometer_landing": delivered(engine, tmp_path, "accelerometer_landing", motions, group),
            "step_trainer_landing": delivered(engine, tmp_path, "step_trainer_landing", steps, group),
        }
        columns = {"address": "varchar", "person": "varchar"}
        engine.insert_rows("who", columns, persons.items())
        engine.insert_rows("erased_addresses", columns, [(address, persons[address]) for address in erased])

        def found() -> tuple[Any, ...]:
            devices = Devices(engine, KEY, live, Tombstones(claims=past))
            stones = devices.of_records([persons[address] for address in erased], started)
            counts = [
                engine.rows(f"select filename, _file, sum(n) from {relation} where {theirs} group by all order by all")
                for relation, theirs in zip(OWN.values(), ("true", SUBJECT_STEPS), strict=True)
            ]
            moments = engine.rows("select * from erased_moments order by all")
            return stones, counts, moments, devices.withheld()

        counted = found()
        if selection.library() is not None:
            assert engine.rows("select 1 from own_motions_packed limit 1"), "the files were read without the engine"
        monkeypatch.setattr(selection, "library", lambda: None)
        assert counted == found()
        assert not engine.rows("select 1 from own_motions_packed")
