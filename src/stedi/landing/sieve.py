"""What keeps erased customers out of a landing: records that their tombstones bar are dropped and counted.

Where there are no tombstones there is no sieve, and nothing is read twice. Where there are, the addresses and serial
numbers of a batch are told apart once each; records are looked at only if one of them is barred.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal
from stedi.landing import rows
from stedi.landing.prepare import Prepared
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones

_WHOSE = {
    "customers_landing": ("email", "registrationDate"),
    "accelerometer_landing": ("user", "timestamp"),
    "step_trainer_landing": ("serialNumber", "sensorReadingTime"),
}
"""Of each landing table the column that tells whose a record is, and the one that tells since when."""


_BARRED = {"name": "varchar", "moment": "bigint"}
"""What is barred, and until when."""


class Sieve:
    """The tombstones of one lake, for one landing.

    Args:
        key: The lake's key.
        known: The tombstones, some.
    """

    def __init__(self, key: Key, known: Tombstones) -> None:
        self._key, self._known = key, known
        self._conditions: dict[str, str] = {}

    @classmethod
    def of(cls, root: Path, key: Key) -> Sieve | None:
        """Returns the sieve of a lake, or None where nobody was erased.

        Raises:
            LakeError: The tombstones are damaged.
        """
        known = tombstones.read(root, key)
        return cls(key, known) if known else None

    def sift(self, engine: DuckDB, prepared: Sequence[Prepared]) -> list[Prepared]:
        """Returns a batch's files with their counts and rejects as they are without what is barred.

        `kept` then restricts the accepted records of this batch.
        """
        self._conditions.clear()
        dropped: dict[str, int] = {}
        for table in sorted({ready.file.contract.table for ready in prepared if ready.counts.accepted}):
            group = [ready for ready in prepared if ready.file.contract.table == table and ready.counts.accepted]
            sql = rows.accepted(table, group)
            self._bar(engine, table, sql)
            if table in self._conditions:
                counts = (
                    f"select _file::varchar, count(*) from ({sql}) as r where {self._conditions[table]} group by all"
                )
                dropped.update(engine.rows(counts))
        return [self._without(ready, dropped.get(ready.file.sha256, 0)) for ready in prepared]

    def kept(self, table: str, sql: str) -> str:
        """Returns a SELECT of accepted records without those that are barred."""
        condition = self._conditions.get(table)
        return f"select * from ({sql}) as r where not ({condition})" if condition else sql

    def _bar(self, engine: DuckDB, table: str, sql: str) -> None:
        """Makes the condition under which a table's records are barred, if any can be."""
        # named in full: a bare "user" within a subquery is who runs the engine, not the column
        column, moment = (f'r."{name}"' for name in _WHOSE[table])
        values = [value for (value,) in engine.rows(f"select distinct {column} from ({sql}) as r")]
        conditions = []
        if table == "step_trainer_landing":
            marks = {value: tombstones.serial(self._key, value) for value in values}
            until = {value: self._known.serials[mark] for value, mark in marks.items() if mark in self._known.serials}
            shared = [value for value, mark in marks.items() if mark in self._known.claims]
            if shared and self._known.moments:
                among = ", ".join(map(literal, shared))
                readings = f"select distinct {column}, {moment} from ({sql}) as r where {column} in ({among})"
                barred = [
                    (number, at)
                    for number, at in engine.stream(readings)
                    if tombstones.moment(self._key, number, at) in self._known.moments
                ]
                if barred:
                    engine.take("barred_moments", _BARRED, barred)
                    conditions.append(f"({column}, {moment}) in (select name, moment from barred_moments)")
        else:
            people = {value: tombstones.person(self._key, value) for value in values}
            until = {value: self._known.people[who] for value, who in people.items() if who in self._known.people}
        if until:
            engine.take(f"barred_{table}", _BARRED, until.items())
            conditions.append(
                f"coalesce({moment} <= (select max(moment) from barred_{table} where name = {column}), false)"
            )
        if conditions:
            self._conditions[table] = " or ".join(conditions)

    def _without(self, ready: Prepared, dropped: int) -> Prepared:
        rejects, barred = ready.rejects, 0
        if rejects is not None:
            lines = rejects.read_bytes().splitlines(keepends=True)
            kept = [
                line for line in lines if not self._known.bars(self._key, base64.b64decode(json.loads(line)["raw"]))
            ]
            barred = len(lines) - len(kept)
            if barred:
                rejects.write_bytes(b"".join(kept))
                rejects = rejects if kept else None
        counts = ready.counts
        less = replace(
            counts,
            accepted=counts.accepted - dropped,
            quarantined=counts.quarantined - barred,
            erased=dropped + barred,
        )
        return replace(ready, rejects=rejects, counts=less)
