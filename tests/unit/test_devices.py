"""The readings of shared devices that an erasure takes, and how many of them were withheld."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from stedi.engines.duckdb import DuckDB, task_session
from stedi.erasure.devices import Devices
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
        assert devices.withheld(Tombstones()) == 1, "bo and cy moved at once: the reading was withheld from both"
