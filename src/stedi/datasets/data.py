"""The rows of a release: moments or windows of its people, in a fixed order, in files of a fixed size.

`Rows` is one session over the trusted tables. It numbers people in the order of the release: by split, then by subject
id, so that the order of rows reveals nothing about identities. Moments are worked out some customers at a time, kept,
and written a file at a time, so that memory follows neither the readings nor the people.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stedi._frozen import dataclass
from stedi.catalog import Catalog, TableState
from stedi.datasets import labels, matching, windows
from stedi.datasets.labels import LabelFile, Loaded
from stedi.datasets.manifest import File, columns, sha256
from stedi.datasets.options import SPLITS, Options
from stedi.datasets.windows import Assembly
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import path_literal

if TYPE_CHECKING:
    import pyarrow as pa

MOMENTS = 1_000_000
"""Moments of a file, and of one subject more at most."""
_AT_ONCE = 4_000_000
"""Readings of the larger table that are matched at once."""
_READINGS = ("step_trainer_trusted", "accelerometer_trusted")


@dataclass(frozen=True, slots=True)
class Member:
    """A person who may be in a release.

    Attributes:
        customer_id: Their pseudonym in the lake's tables now.
        subject: Their id in the release.
        split: The position of their split in `SPLITS`.
        since: Start of their usable readings, epoch milliseconds; 0 for all readings.
    """

    customer_id: str
    subject: str
    split: int
    since: int = 0


def warm() -> None:
    """Imports the modules that write windows, which takes as long as pairing a million readings."""
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401


def bind(engine: DuckDB, catalog: Catalog, tables: Mapping[str, TableState]) -> int:
    """Makes the tables of a release readable in a session.

    Args:
        engine: A session without any table yet.
        catalog: The lake's tables.
        tables: The state of each of these tables.

    Returns:
        The number of readings in the larger table of readings.
    """
    files = {name: catalog.files(state) for name, state in tables.items()}
    for name, listed in files.items():
        engine.bind_files(name, listed)
    return max(sum(file.rows for file in files[name]) for name in _READINGS)


class Rows:
    """The trusted readings that enter a release, in one session.

    Args:
        engine: A session after `bind`.
        options: The release's.
        members: The people who may be in it.
        readings: As returned by `bind`.
        exact: As returned by `matching.exact`.
    """

    def __init__(
        self, engine: DuckDB, options: Options, members: Iterable[Member], *, readings: int, exact: bool
    ) -> None:
        self._engine, self._options = engine, options
        self._readings, self._exact = readings, exact
        self._assembly: Assembly | None = None
        self._labels: Loaded | None = None
        self._within: dict[int, int] = {}
        self.members = sorted(members, key=lambda member: (member.split, member.subject))
        engine.insert_rows(
            "members",
            {
                "person": "integer",
                "customer_id": "varchar",
                "subject": "varchar",
                "split": "utinyint",
                "since": "bigint",
            },
            ((at, m.customer_id, m.subject, m.split, m.since) for at, m in enumerate(self.members)),
        )

    @property
    def columns(self) -> list[dict[str, str]]:
        """Name, type, unit and meaning of each column."""
        return columns(self._options, () if self._labels is None else self._labels.columns)

    def label(self, file: LabelFile, customer_id: Callable[[str], str]) -> Loaded:
        """Takes labels for rows written from now on; returns their outcome.

        Args:
            file: The labels.
            customer_id: The pseudonym of an address.
        """
        devices: dict[str, list[str]] = {}
        if any(label.named == "serialNumber" for label in file.labels):
            self._engine.insert_rows(
                "spoken", {"serial": "varchar"}, sorted({(label.person,) for label in file.labels})
            )
            devices = dict(
                self._engine.rows(
                    "select serialNumber, list(distinct customer_id) from step_trainer_trusted where serialNumber in "
                    "(select serial from spoken) group by serialNumber"
                )
            )
        people = {member.customer_id: at for at, member in enumerate(self.members)}
        self._labels = labels.load(self._engine, file, customer_id, people, devices)
        return self._labels

    def match(self) -> None:
        """Works out the moments of all members: `moments`, and of each person in it `present` with their number."""
        engine = self._engine
        # pseudonyms are hex digits of a hash: equal ranges of their first four hold about equally many people
        parts = self._readings // _AT_ONCE + 1
        bounds = [f"'{place * 0x10000 // parts:04x}'" for place in range(1, parts)]
        for part, (above, below) in enumerate(zip(["''", *bounds], [*bounds, "'g'"], strict=True)):
            within = f"m.customer_id >= {above} and m.customer_id < {below}"
            engine.view(
                "steps",
                "select m.person, epoch_ms(r.sensorReadingTime) as ms, r.serialNumber as serial, "
                "r.distanceFromObject as distance from step_trainer_trusted as r join members as m "
                f"on r.customer_id = m.customer_id where r.customer_id >= {above} and r.customer_id < {below} "
                f"and {within} and epoch_ms(r.sensorReadingTime) >= m.since",
            )
            engine.view(
                "vectors",
                'select m.person, epoch_ms(r."timestamp") as ms, r.x, r.y, r.z from accelerometer_trusted as r '
                "join members as m on r.customer_id = m.customer_id where "
                f"r.customer_id >= {above} and r.customer_id < {below} and {within} "
                'and epoch_ms(r."timestamp") >= m.since',
            )
            found = matching.moments(self._options, exact=self._exact)
            if part:
                engine.run(f"insert into moments {found}")
            else:
                engine.materialize("moments", found)
        engine.materialize(
            "present", "select person, min(ms) as first, count(*) as moments from moments group by person"
        )

    def account(self) -> list[tuple[str, int]]:
        """Returns what became of the trusted readings; for `write`'s return to be the last."""
        [(trusted, members, usable)] = self._engine.rows(
            "select count(*), count(m.person), count(*) filter (where epoch_ms(r.sensorReadingTime) >= m.since) "
            "from step_trainer_trusted as r left join members as m on r.customer_id = m.customer_id"
        )
        [(moments,)] = self._engine.rows("select count(*) from moments")
        unmatched = {
            "exact": "no accelerometer reading at the same moment",
            "nearest": f"no accelerometer reading within {self._options.tolerance} ms",
            "backward": f"no accelerometer reading within {self._options.tolerance} ms before",
        }[self._options.match]
        lines = [
            ("customers who do not share with the public", members - trusted),
            ("before the customer shared with the public", usable - members),
            (unmatched, moments - usable),
        ]
        inside = moments
        if self._assembly is not None:
            inside, between = self._inside(self._assembly)
            lines += [
                ("between two windows", -between),
                (f"windows of fewer than {self._options.min_samples} samples", inside + between - moments),
            ]
        last = "moments in the release" if self._assembly is None else "moments in windows of the release"
        return [
            ("readings of step_trainer_trusted", trusted),
            *((what, rows) for what, rows in lines if rows),
            (last, inside),
        ]

    def within(self) -> dict[str, int]:
        """Returns how many moments of each subject its windows were made from, where their samples do not tell.

        To be called when the account is known.
        """
        if self._options.resample is None:
            return {}
        return {self.members[person].subject: count for person, count in self._within.items()}

    def _inside(self, assembly: Assembly) -> tuple[int, int]:
        """Returns how many moments are in a window, and how many are between windows."""
        import pyarrow as pa

        options = self._options
        assert options.window is not None
        assert options.stride is not None
        # interpolated samples are no moments, and overlapping windows share some: these have to be counted apart
        if options.resample is None and options.stride >= options.window:
            inside = assembly.samples  # each moment in one window at most
        elif not assembly.kept:
            inside = 0
        else:
            self._engine.connection.register("kept", pa.concat_tables(assembly.kept))
            # the last window that begins before a moment: in however many windows it is, it counts once
            self._within = dict(
                self._engine.rows(
                    "select m.person, count(*) from moments as m asof join kept as w on m.person = w.person and "
                    f"m.ms >= w.start where m.ms <= w.until and m.ms < w.start + {options.window} group by m.person"
                )
            )
            self._engine.connection.unregister("kept")
            inside = sum(self._within.values())
        if options.stride <= options.window:
            return inside, 0
        [(between,)] = self._engine.rows(
            "select count(*) from moments as m asof join segments as g on m.person = g.person and m.ms >= g.begun "
            f"where (m.ms - g.begun) % {options.stride} >= {options.window}"
        )
        return inside, between

    def write(self, folder: Path) -> tuple[list[File], dict[str, int]]:
        """Writes the data files of all splits.

        Args:
            folder: The release's folder.

        Returns:
            The files, and the rows of each subject.
        """
        (folder / "data").mkdir(0o700)
        of_person = dict(self._engine.rows("select person, moments from present"))
        if self._options.window is not None:
            self._engine.materialize("segments", windows.segments(self._options))
            pad = (
                self._engine.rows(windows.longest(self._options, 0, len(self.members)))[0][0]
                if self._options.pad
                else 0
            )
            self._assembly = Assembly(self._options, pad or 0)
        files: list[File] = []
        rows: dict[str, int] = {}
        for place, split in enumerate(SPLITS):
            people = [at for at, member in enumerate(self.members) if member.split == place and at in of_person]
            ranges = _ranges(people, of_person)
            for number, (first, last) in enumerate(ranges):
                name = f"data/{split}-{number:05d}-of-{len(ranges):05d}.parquet"
                if self._assembly is None:
                    self._engine.copy(self._select(first, last), folder / name)
                else:
                    self._write_windows(self._assembly, first, last, folder / name)
                # a folder named like `split=1` above the release would replace the column of that name, without an
                # error
                read = f"read_parquet([{path_literal(str(folder / name))}], hive_partitioning = false)"
                counts = self._engine.rows(f"select subject, count(*) from {read} group by subject")
                rows.update(counts)
                total = sum(count for _, count in counts)
                files.append(File(name, os.path.getsize(folder / name), total, sha256(folder / name)))
        return files, rows

    def _write_windows(self, assembly: Assembly, first: int, last: int, file: Path) -> None:
        """Writes the windows of the people from one number to another."""
        import pyarrow as pa
        import pyarrow.compute as pc
        import pyarrow.parquet as pq

        schema = pa.schema([(column["name"], _arrow(column["type"])) for column in self.columns])
        begins = dict(self._engine.rows(f"select person, first from present where person between {first} and {last}"))
        within = range(first, last + 1) if first >= 0 else range(0)
        subjects = pa.array([self.members[person].subject for person in within], pa.string())
        firsts = pa.array([begins.get(person) for person in within], pa.int64())
        batches = self._engine.arrow(windows.samples(self._options, first, last))
        with pq.ParquetWriter(file, schema, compression="zstd", compression_level=1) as writer:
            for table in assembly.rows(batches):
                at = pc.subtract(table["person"], first)
                start = table["start"]
                if self._options.time == "relative":
                    start = pc.subtract(start, firsts.take(at))
                else:
                    start = pc.multiply(start, 1000).cast(schema.field("start").type)
                made = {"subject": subjects.take(at), "start": start, **self._labelled(table)}
                arrays = [made[name] if name in made else table[name] for name in schema.names]
                writer.write_table(pa.table(arrays, names=schema.names).cast(schema), row_group_size=table.num_rows)

    def _labelled(self, table: pa.Table) -> dict[str, pa.ChunkedArray]:
        """Returns the columns of labels of windows, which are in the order of person and start."""
        if self._labels is None:
            return {}
        cuts = f"(select person, start as starts, start + {self._options.window} as ends from cut)"
        sql = f"select * from ({labels.of_windows(cuts, self._labels)}) order by person, starts"
        found = self._engine.over("cut", table.select(["person", "start"]), sql)
        return {name: found[name] for name in self._labels.columns}

    def _select(self, first: int, last: int) -> str:
        """Returns the SELECT of the rows of the people from one number to another."""
        instant = "make_timestamptz(m.ms * 1000)" if self._options.time == "absolute" else "m.ms - p.first"
        within = f"person between {first} and {last}"
        source, more = "moments", ""
        if self._labels is not None:
            source = f"({labels.of_moments(f'(select * from moments where {within})', self._labels)})"
            more = "".join(f", m.{name}" for name in self._labels.columns)
        return (
            f"select b.subject, {instant} as moment, m.distance, m.x, m.y, m.z, m.vectors, m.dt_ms{more} "
            f"from {source} as m join present as p on m.person = p.person join members as b on m.person = b.person "
            # by every column: moments of one instant have an order, too, however the engine has read them
            f"where m.{within} order by m.person, m.ms, m.distance, m.dt_ms, m.vectors, m.x, m.y, m.z"
        )


def _ranges(people: Sequence[int], moments: dict[int, int]) -> list[tuple[int, int]]:
    """Returns the first and last person of each file; an empty split has one empty file."""
    found: list[tuple[int, int]] = []
    first, held = None, 0
    for person in people:
        first = person if first is None else first
        # a file ends with a whole person: dropping someone rewrites one file, and a proof reads their rows from one
        held += moments[person]
        if held >= MOMENTS:
            found.append((first, person))
            first, held = None, 0
    if first is not None:
        found.append((first, people[-1]))
    # no person has the number -1: the range selects nothing, and the split has a file that readers find
    return found or [(-1, -1)]


def _arrow(kind: str) -> pa.DataType:
    """Returns the Arrow type that a manifest names."""
    import pyarrow as pa

    if kind.startswith("list<"):
        return pa.list_(_arrow(kind[len("list<") : -1]))
    if kind == "timestamp[us, UTC]":
        return pa.timestamp("us", "UTC")
    return pa.type_for_alias(kind)
