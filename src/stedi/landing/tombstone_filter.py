"""The tombstone filter: drops and counts records of erased customers in a landing.

Without tombstones there is no filter. With tombstones, each address and serial number of a row group is looked up once;
records are examined only if one of them is barred.
"""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from stedi._frozen import replace
from stedi.landing.prepare import Prepared
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import Tombstones
from stedi.schema.tables import FREE_TEXTS

if TYPE_CHECKING:
    import pyarrow as pa

_WHOSE = {
    "customers_landing": ("email", "registrationDate"),
    "accelerometer_landing": ("user", "timestamp"),
    "step_trainer_landing": ("serialNumber", "sensorReadingTime"),
}
"""For each landing table, the column with the owner of a record and the one with its time."""

_MENTION = re.compile("[@%&=]")
"""What every text with an address contains, plain or as in a URL or HTML."""


class TombstoneFilter:
    """The tombstones of one lake, for one landing.

    Args:
        key: The lake's key.
        known: The tombstones, some.
    """

    def __init__(self, key: Key, known: Tombstones) -> None:
        self._key, self._known = key, known

    @classmethod
    def of(cls, root: Path, key: Key) -> TombstoneFilter | None:
        """Returns the filter of a lake, or None if nobody was erased.

        Raises:
            LakeError: The tombstones are damaged.
        """
        known = tombstones.read(root, key)
        return cls(key, known) if known else None

    def rows(self, table: str, rows: pa.Table) -> tuple[pa.Table, Counter[str]]:
        """Returns accepted records without those that are barred, and without mentions in the rest.

        Args:
            table: The landing table.
            rows: The records; texts are dictionaries, and each column is of one chunk.

        Returns:
            The records that stay, no text of another in a dictionary; and how many do not, by `_file`.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        column, moment = _WHOSE[table]
        whose, at = (rows.column(name).chunk(0) for name in (column, moment))
        # a few names for thousands of rows: marks are keyed hashes, the dear part
        names = whose.dictionary.to_pylist()
        until = self._until(table, names)
        last = pa.array([until.get(name) for name in names], pa.int64()).take(whose.indices)
        # null where nobody of that name is erased
        barred = pc.fill_null(pc.less_equal(at, last), False)
        if table == "step_trainer_landing" and (shared := self._shared(names)):
            readings = list(zip(whose.to_pylist(), at.to_pylist(), strict=True))
            moved = set(self._moved({reading for reading in readings if reading[0] in shared}))
            barred = pc.or_(barred, pa.array([reading in moved for reading in readings], pa.bool_()))
        changed: dict[str, dict[str, str | None]] = {
            name: dict(self._masked(rows.column(name).chunk(0).dictionary.to_pylist()))
            for name in FREE_TEXTS.get(table, ())
        }
        # a text of unknown fields that mentions somebody goes whole: nobody knows what else it says of them
        changed["_extra"] = dict.fromkeys(self._mentions(rows.column("_extra").chunk(0).dictionary.to_pylist()))
        if not pc.any(barred).as_py() and not any(changed.values()):
            return rows, Counter()
        dropped = Counter(rows.column("_file").chunk(0).filter(barred).to_pylist())
        kept = rows.filter(pc.invert(barred))
        for place, name in enumerate(kept.column_names):
            if pa.types.is_dictionary(kept.schema.field(name).type):
                # copied, or the pages would contain texts of removed records
                texts = kept.column(name).cast(pa.string()).combine_chunks()
                if masks := changed.get(name):
                    texts = pa.array([masks.get(text, text) for text in texts.to_pylist()], pa.string())
                kept = kept.set_column(place, kept.schema.field(name), texts.dictionary_encode())
        return kept, dropped

    def without(self, ready: Prepared, dropped: int) -> Prepared:
        """Returns a file with its counts and rejects without barred records.

        Args:
            ready: The file.
            dropped: How many of its accepted records are barred.
        """
        rejects, barred = ready.rejects, 0
        if rejects is not None:
            # line by line: a delivery of another feed or format may be rejects from end to end
            beside = rejects.with_suffix(".kept")
            with open(rejects, "rb") as lines, open(beside, "wb") as out:
                for line in lines:
                    kept = self._reject(line)
                    out.write(kept or b"")
                    barred += kept is None
            beside.replace(rejects)
            rejects = rejects if barred < ready.counts.quarantined else None
        # seen = accepted + quarantined + erased must go on to hold
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

    def _until(self, table: str, values: Iterable[str]) -> dict[str, int]:
        """Returns the barred ones of some addresses or serial numbers, and until when they are barred."""
        steps = table == "step_trainer_landing"
        mark, known = (tombstones.serial, self._known.serials) if steps else (tombstones.person, self._known.people)
        marks = {value: mark(self._key, value) for value in values}
        return {value: known[found] for value, found in marks.items() if found in known}

    def _shared(self, numbers: Iterable[str]) -> set[str]:
        """Returns those of some serial numbers of which single moments may be barred."""
        claims = self._known.claims if self._known.moments else {}
        return {number for number in numbers if tombstones.serial(self._key, number) in claims} if claims else set()

    def _moved(self, readings: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
        """Returns those of some readings, by serial number and moment, that are barred."""
        moments = self._known.moments
        return [found for found in readings if tombstones.moment(self._key, *found) in moments]

    def _masked(self, values: Iterable[str]) -> dict[str, str]:
        """Returns those of some texts that mention an erased customer, and what stays of each."""
        free = {value for value in values if _MENTION.search(value)}
        return {value: kept for value in free if (kept := self._known.masked(self._key, value)) != value}

    def _mentions(self, texts: Iterable[str]) -> list[str]:
        """Returns those of some texts of unknown fields that mention an erased customer."""
        return [text for text in texts if self._known.mentions(self._key, text)]

    def _reject(self, line: bytes) -> bytes | None:
        """Returns a rejected record's line without mentions; None if the record is barred."""
        row = json.loads(line)
        raw = base64.b64decode(row["raw"])
        kept = self._known.without_erased(self._key, raw)
        if kept is None or kept == raw:
            return None if kept is None else line
        whole = row["raw_size"] == len(raw)
        row |= {"raw": base64.b64encode(kept).decode(), "raw_size": len(kept) if whole else row["raw_size"]}
        return json.dumps(row).encode() + b"\n"
