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


_FREE = {"customers_landing": ("customerName", "phone", "birthDay")}
"""Of a landing table the columns of others in which a mention of an erased customer is masked."""
_BARRED = {"name": "varchar", "moment": "bigint"}
"""What is barred, and until when."""


class TombstoneFilter:
    """The tombstones of one lake, for one landing.

    Args:
        key: The lake's key.
        known: The tombstones, some.
    """

    def __init__(self, key: Key, known: Tombstones) -> None:
        self._key, self._known = key, known
        self._conditions: dict[str, str] = {}
        self._masks: dict[str, list[str]] = {}

    @classmethod
    def of(cls, root: Path, key: Key) -> TombstoneFilter | None:
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
        self._masks.clear()
        dropped: dict[str, int] = {}
        for table in sorted({ready.file.contract.table for ready in prepared if ready.counts.accepted}):
            group = [ready for ready in prepared if ready.file.contract.table == table and ready.counts.accepted]
            sql = rows.accepted(table, group)
            self._bar(engine, table, sql)
            self._mask(engine, table, sql, unknown=any(ready.rewritten for ready in group))
            if table in self._conditions:
                counts = (
                    f"select _file::varchar, count(*) from ({sql}) as r where {self._conditions[table]} group by all"
                )
                dropped.update(engine.rows(counts))
        return [self._without(ready, dropped.get(ready.file.sha256, 0)) for ready in prepared]

    def kept(self, table: str, sql: str) -> str:
        """Returns a SELECT of accepted records without those that are barred, and without mentions in the rest."""
        condition, masks = self._conditions.get(table), self._masks.get(table)
        if not condition and not masks:
            return sql
        columns = f"* replace ({', '.join(masks)})" if masks else "*"
        return f"select {columns} from ({sql}) as r where not ({condition or 'false'})"

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
                    engine.insert_rows("barred_moments", _BARRED, barred)
                    conditions.append(f"({column}, {moment}) in (select name, moment from barred_moments)")
        else:
            people = {value: tombstones.person(self._key, value) for value in values}
            until = {value: self._known.people[who] for value, who in people.items() if who in self._known.people}
        if until:
            engine.insert_rows(f"barred_{table}", _BARRED, until.items())
            conditions.append(
                f"coalesce({moment} <= (select max(moment) from barred_{table} where name = {column}), false)"
            )
        if conditions:
            self._conditions[table] = " or ".join(conditions)

    def _mask(self, engine: DuckDB, table: str, sql: str, *, unknown: bool) -> None:
        """Finds what a table's records say of erased customers; their identities stay, names and the like are masked.

        Args:
            engine: The session.
            table: The table.
            sql: The SELECT of its records.
            unknown: Whether they can have unknown fields.
        """
        known, key, masks = self._known, self._key, list[str]()
        for column in _FREE.get(table, ()):
            name = f'r."{column}"'
            values = engine.rows(f"select distinct {name} from ({sql}) as r where regexp_matches({name}, '[@%&=]')")
            told = [(value, kept) for (value,) in values if (kept := known.masked(key, value)) != value]
            if told:
                relation = f"masked_{column.lower()}"
                engine.insert_rows(relation, {"name": "varchar", "masked": "varchar"}, told)
                masked = f"(select m.masked from {relation} as m where m.name = {name})"
                masks.append(f'coalesce({masked}, {name}) as "{column}"')
        if unknown:
            extras = engine.stream(f"select distinct r._extra from ({sql}) as r where r._extra is not null")
            mentions = [(text,) for (text,) in extras if known.mentions(key, text)]
            if mentions:
                relation = f"mentions_{table}"
                engine.insert_rows(relation, {"name": "varchar"}, mentions)
                masks.append(
                    f"case when r._extra in (select name from {relation}) then null else r._extra end as _extra"
                )
        if masks:
            self._masks[table] = masks

    def _without(self, ready: Prepared, dropped: int) -> Prepared:
        rejects, barred = ready.rejects, 0
        if rejects is not None:
            lines = rejects.read_bytes().splitlines(keepends=True)
            kept = [line for line in map(self._reject, lines) if line is not None]
            barred = len(lines) - len(kept)
            if kept != lines:
                rejects.write_bytes(b"".join(kept))
                rejects = rejects if kept else None
        counts = ready.counts
        less = replace(
            counts,
            accepted=counts.accepted - dropped,
            quarantined=counts.quarantined - barred,
            erased=dropped + barred,
        )
        file, name = ready.file, ready.file.delivered.name
        if self._known.names_file(self._key, name):
            called = tombstones.masked_name(self._key, name)
            file = replace(file, delivered=replace(file.delivered, name=called))
        return replace(ready, file=file, rejects=rejects, counts=less)

    def _reject(self, line: bytes) -> bytes | None:
        """Returns a rejected record's line without mentions; None if the record is barred."""
        row = json.loads(line)
        raw = base64.b64decode(row["raw"])
        kept = self._known.sifted(self._key, raw)
        if kept is None or kept == raw:
            return None if kept is None else line
        whole = row["raw_size"] == len(raw)
        row |= {"raw": base64.b64encode(kept).decode(), "raw_size": len(kept) if whole else row["raw_size"]}
        return json.dumps(row).encode() + b"\n"
