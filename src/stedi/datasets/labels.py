"""Labels from a file: read and checked row by row, joined to customers, and given to moments and windows.

A row names a person (`email` or `user`, `customer_id`, or `serialNumber`), a time (`start` and `end`, or one `instant`)
and a `label`. Spans become the column `label`; instants, such as steps, become a count (rows) or a list of times
(windows) in a column `events`. Times are compared with the moments of the release as they are: no clock is corrected.

Addresses and serial numbers end here: what is loaded for the release has the lake's `customer_id` and nothing else.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi._frozen import dataclass
from stedi.datasets.manifest import shown_name
from stedi.errors import UsageError, many, printable_name
from stedi.schema.contracts import INSTANT_BEGIN, INSTANT_END

if TYPE_CHECKING:
    import pyarrow as pa

    from stedi.engines.duckdb import DuckDB

SPANS, INSTANTS = "label_spans", "label_instants"
"""What `load` makes: `person, starts, ends, label`, no two of a person overlapping, and `person, ms, label`; times are
epoch milliseconds."""
LONGEST = 100
"""Characters of a label."""
_PEOPLE = {
    **dict.fromkeys(("email", "user"), "email"),
    **dict.fromkeys(("customer_id", "customerid"), "customer_id"),
    **dict.fromkeys(("serialnumber", "serial_number"), "serialNumber"),
}
_FORMATS = {
    ".csv": "CSV",
    ".parquet": "Parquet",
    ".jsonl": "JSON lines",
    ".ndjson": "JSON lines",
    ".json": "JSON lines",
}


Row = Sequence[tuple[str, object]]
"""Name and value of each field of a row, in pairs: a name that occurs twice is refused, and must not be lost before."""


@dataclass(frozen=True, slots=True)
class Label:
    """One row: `person` is the value of the column `named`; `end` is None for an instant. Epoch milliseconds."""

    named: str
    person: str
    start: int
    end: int | None
    label: str


@dataclass(frozen=True, slots=True)
class LabelFile:
    """A file of labels, read and checked.

    Attributes:
        labels: Its rows.
        sha256: Of its bytes, hex: the manifest says by it which file was used.
    """

    labels: tuple[Label, ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """What became of a file's rows.

    Attributes:
        columns: The columns that a release gets, whoever is in it: `label`, and `events` where the file has instants.
        whole: Whether the file has spans; `label` is made of them, and of instants only where it has none.
        spans: Rows with start and end that belong to people of the release.
        instants: Rows with one instant that belong to people of the release.
        elsewhere: Rows of people who are not in the release.
        people_elsewhere: How many people these are.
        ambiguous: Rows under a serial number that several people have used: they are left out, never guessed.
    """

    columns: tuple[str, ...]
    whole: bool
    spans: int
    instants: int
    elsewhere: int
    people_elsewhere: int
    ambiguous: int

    def to_json(self, sha256: str) -> dict[str, Any]:
        """Returns the manifest's entry about the file."""
        counts = {name: getattr(self, name) for name, kind in type(self).__annotations__.items() if kind == "int"}
        return {"sha256": sha256, "columns": list(self.columns), **counts}


def read(path: str | Path) -> LabelFile:
    """Returns a file's labels, if every row is valid.

    Args:
        path: CSV with a header, Parquet, or JSON lines, told by the end of its name. Instants are epoch milliseconds or
            ISO 8601 with an offset from UTC. Columns that are not named above are skipped.

    Raises:
        UsageError: The file cannot be read, or a row is no label; the row is named by its number, never by its values.
    """
    file = Path(path)
    name = printable_name(shown_name(path))
    if file.suffix.lower() not in _FORMATS:
        raise _refused(f"{name}: expected a name that ends in {', '.join(_FORMATS)}")
    try:
        with file.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        rows = {".csv": _csv, ".parquet": _parquet}.get(file.suffix.lower(), _json)(file, name)
        labels = tuple(_label(row, f"{name}, row {number}") for number, row in rows)
    except OSError as error:
        raise _refused(f"{name}: cannot be read: {error.strerror or type(error).__name__}") from None
    except UnicodeDecodeError as error:
        raise _refused(f"{name}: expected UTF-8, found other bytes at byte {error.start}") from None
    if not labels:
        raise _refused(f"{name}: expected rows, found none")
    return LabelFile(labels, digest)


def amounts(
    file: LabelFile, customer_id: Callable[[str], str], wearers: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Returns how much of each label each customer has, by `customer_id`: milliseconds, or a count if all are instants.

    Args:
        file: The labels.
        customer_id: The pseudonym of an address.
        wearers: The customer of each serial number that only one customer has used.
    """
    spans = any(label.end is not None for label in file.labels)
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for label in file.labels:
        if spans and label.end is None:
            continue
        customer: str | None = label.person
        if label.named == "email":
            customer = customer_id(label.person)
        elif label.named == "serialNumber":
            customer = wearers.get(label.person)
        if customer is not None:
            found[customer][label.label] += 1 if label.end is None else label.end - label.start
    return {customer: dict(of) for customer, of in found.items()}


def load(
    engine: DuckDB,
    file: LabelFile,
    customer_id: Callable[[str], str],
    people: Mapping[str, int],
    devices: Mapping[str, Collection[str]],
) -> Loaded:
    """Makes the relations `SPANS` and `INSTANTS` of a session: the labels of people of the release.

    Args:
        engine: The session that computes the release.
        file: As returned by `read`.
        customer_id: The pseudonym of an address.
        people: The `customer_id` of everybody in the release, and the number by which the session knows them.
        devices: Of each serial number those customers whose readings it made.
    """
    spans: dict[int, list[tuple[int, int, str]]] = defaultdict(list)
    instants: list[tuple[int, int, str]] = []
    elsewhere: Counter[tuple[str, str]] = Counter()
    counts: Counter[str] = Counter()
    for row in file.labels:
        if row.named == "serialNumber":
            owners = devices.get(row.person, ())
            if len(owners) > 1:
                # of two wearers of one device nobody can say whose step it was
                counts["ambiguous"] += 1
                continue
            who = next(iter(owners), None)
        else:
            who = customer_id(row.person) if row.named == "email" else row.person
        if who is None or who not in people:
            # counted by person without keeping the address: an unknown one by its value, a known one by the pseudonym
            elsewhere["" if who is None else who, row.person if who is None else ""] += 1
        elif row.end is None:
            instants.append((people[who], row.start, row.label))
            counts["instants"] += 1
        else:
            spans[people[who]].append((row.start, row.end, row.label))
            counts["spans"] += 1
    flat = ((person, *span) for person in sorted(spans) for span in disjoint(spans[person]))
    engine.insert_rows(SPANS, {"person": "integer", "starts": "bigint", "ends": "bigint", "label": "varchar"}, flat)
    # a set: an instant that is delivered twice is one event
    engine.insert_rows(INSTANTS, {"person": "integer", "ms": "bigint", "label": "varchar"}, sorted(set(instants)))
    return Loaded(
        # by the file, not by who is in it: two releases with the same file have the same columns
        columns=("label", "events") if any(row.end is None for row in file.labels) else ("label",),
        whole=any(row.end is not None for row in file.labels),
        spans=counts["spans"],
        instants=counts["instants"],
        elsewhere=elsewhere.total(),
        people_elsewhere=len(elsewhere),
        ambiguous=counts["ambiguous"],
    )


def of_moments(source: str, loaded: Loaded) -> str:
    """Returns a SELECT of all columns of a relation of moments, and those of `loaded`.

    `label` is the label of the span in which the moment lies (the start belongs to it, the end does not). `events`
    counts the instants to which this moment of the person is the nearest, the earlier one of two. Where the file has
    no spans, `label` is the label of such an instant, the first in text order.

    Args:
        source: A relation with `person` and `ms`, epoch milliseconds.
        loaded: What `load` gave.
    """
    spanned = (
        f"select m.*, case when m.ms < s.ends then s.label end as label from {source} m "
        f"asof left join {SPANS} s on m.person = s.person and m.ms >= s.starts"
    )
    if "events" not in loaded.columns:
        return spanned
    times = f"(select distinct person, ms from {source})"
    near = f"""
        select person, nearest as ms, count(*)::integer as events, min(label) as label from (
            select i.person, i.label,
                case when b.ms is null or a.ms - i.ms < i.ms - b.ms then a.ms else b.ms end as nearest
            from {INSTANTS} i
            asof left join {times} b on i.person = b.person and i.ms >= b.ms
            asof left join {times} a on i.person = a.person and i.ms < a.ms
        ) group by all"""
    label = "m.label" if loaded.whole else "n.label"
    return (
        f"select m.* exclude (label), {label} as label, coalesce(n.events, 0)::integer as events "
        f"from ({spanned}) m left join ({near}) n on m.person = n.person and m.ms = n.ms"
    )


def of_windows(source: str, loaded: Loaded) -> str:
    """Returns a SELECT of all columns of a relation of windows, and those of `loaded`.

    `label` is the label that covers most of the window's time, the first in text order of two that cover as much; null
    if the time without any label is longer. `events` is the list of the instants in the window (the start
    belongs to it, the end does not) in milliseconds since its start. Where the file has no spans, `label` is the most
    frequent label of these instants.

    Args:
        source: A relation with `person`, `starts` and `ends`, epoch milliseconds, no two alike.
        loaded: What `load` gave.
    """
    key, windows = "person, starts, ends", f"(select person, starts, ends from {source})"
    within = (
        f"select w.*, i.ms, i.label from {windows} w join {INSTANTS} i "
        "on w.person = i.person and i.ms >= w.starts and i.ms < w.ends"
    )
    events = f"select {key}, list((ms - starts)::integer order by ms) as events from ({within}) group by all"
    weighed = f"select {key}, label, count(*) as weight from ({within}) group by all"
    if loaded.whole:
        weighed = (
            "select w.*, s.label, sum(least(w.ends, s.ends) - greatest(w.starts, s.starts)) as weight "
            f"from {windows} w join {SPANS} s on w.person = s.person and s.starts < w.ends and s.ends > w.starts "
            "group by all"
        )
    enough = "max(weight) >= any_value(ends - starts) - sum(weight)" if loaded.whole else "true"
    placed = f"select *, row_number() over (partition by {key} order by label) as place from ({weighed})"
    # of two labels with equal weight, the first in text order has the greater `-place`
    most = f"case when {enough} then arg_max(label, (weight, -place)) end"
    chosen = f"select {key}, {most} as label from ({placed}) group by all"
    labelled = f"select w.*, l.label from {source} w left join ({chosen}) l using ({key})"
    if "events" not in loaded.columns:
        return labelled
    return (
        f"select w.*, coalesce(e.events, []::integer[]) as events from ({labelled}) w "
        f"left join ({events}) e using ({key})"
    )


def disjoint(spans: Iterable[tuple[int, int, str]]) -> list[tuple[int, int, str]]:
    """Returns spans of one person of which no two overlap, in order.

    Of several at once that holds which started last, and of these the first in text order; where it ends, the one
    around it holds again.
    """
    found: list[tuple[int, int, str]] = []
    ordered = sorted(spans, key=lambda span: (span[0], span[2]))
    bounds = sorted({bound for start, end, _ in ordered for bound in (start, end)})
    held: list[tuple[int, int, str]] = []
    place = 0
    # between two bounds that follow each other, the same spans hold all the time
    for start, end in pairwise(bounds):
        while place < len(ordered) and ordered[place][0] <= start:
            held.append(ordered[place])
            place += 1
        held = [span for span in held if span[1] > start]
        if held:
            latest = max(span[0] for span in held)
            label = min(span[2] for span in held if span[0] == latest)
            if found and found[-1][1] == start and found[-1][2] == label:
                found[-1] = (found[-1][0], end, label)
            else:
                found.append((start, end, label))
    return found


def _csv(path: Path, name: str) -> Iterator[tuple[int, Row]]:
    # spreadsheets write a byte order mark before the header; without `newline`, a line end within quotes is kept as it
    # is
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = next(reader, [])
            for number, values in enumerate(reader, 1):
                if values:
                    if len(values) != len(header):
                        raise _refused(
                            f"{name}, row {number}: expected {many(len(header), 'value')}, found {len(values)}"
                        )
                    yield number, list(zip(header, values, strict=True))
        except csv.Error as error:
            raise _refused(f"{name}, line {reader.line_num}: expected CSV: {error}") from None


def _parquet(path: Path, name: str) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            # others may hold anything, also types that have no Python value
            columns = [column for column in file.schema_arrow.names if _known(column)]
            number = 0
            for batch in file.iter_batches(65_536, columns=columns):
                names = batch.schema.names
                for values in zip(*(_milliseconds(column).to_pylist() for column in batch.columns), strict=True):
                    number += 1
                    yield number, list(zip(names, values, strict=True))
    except pa.ArrowException:
        raise _refused(f"{name}: expected a Parquet file, found something else or a damaged one") from None


def _milliseconds(column: pa.Array) -> pa.Array:
    """Returns a column whose instants of a zone are epoch milliseconds; nanoseconds would have no Python value."""
    import pyarrow as pa

    if not pa.types.is_timestamp(column.type):
        return column
    whole = column.cast(pa.timestamp("ms", column.type.tz), safe=False)
    return whole.cast(pa.int64()) if column.type.tz else whole


def _json(path: Path, name: str) -> Iterator[tuple[int, Row]]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if line.isspace():
                continue
            try:
                row = json.loads(line, object_pairs_hook=tuple)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, tuple):
                raise _refused(f"{name}, row {number}: expected one JSON object a line, found something else")
            yield number, row


def _known(column: str) -> str | None:
    """The name that a column has here, or None."""
    folded = column.strip().lower()
    return _PEOPLE.get(folded) or (folded if folded in ("start", "end", "instant", "label") else None)


def _refused(what: str) -> UsageError:
    return UsageError(what, argument="labels")


def _label(row: Row, where: str) -> Label:
    """Returns a row's label, or the error in it without its values."""
    given: dict[str, Any] = {}
    for column, value in row:
        name = _known(column)
        if name is None or value is None or (isinstance(value, str) and not value.strip()):
            continue
        if name in given:
            raise _refused(f"{where}: expected {name} once, found it twice")
        given[name] = value
    named = [name for name in ("email", "customer_id", "serialNumber") if name in given]
    if len(named) != 1:
        raise _refused(
            f"{where}: expected one of email, customer_id and serialNumber, found {' and '.join(named) or 'none'}"
        )
    [who] = named
    if not isinstance(given[who], str):
        raise _refused(f"{where}: {who}: expected text, found {type(given[who]).__name__}")
    times = {name: _instant(given[name], f"{where}: {name}") for name in ("start", "end", "instant") if name in given}
    if set(times) not in ({"instant"}, {"start", "end"}):
        raise _refused(f"{where}: expected start and end, or an instant, found {' and '.join(times) or 'neither'}")
    if "end" in times and times["end"] <= times["start"]:
        raise _refused(f"{where}: expected the end after the start, found it at or before the start")
    label = given.get("label")
    if not isinstance(label, str):
        raise _refused(f"{where}: label: expected text, found {'none' if label is None else type(label).__name__}")
    label = label.strip()
    if len(label) > LONGEST or not label.isprintable() or "@" in label:
        raise _refused(
            f"{where}: label: expected up to {LONGEST} printable characters without '@', so that it is no address"
        )
    # an address is trimmed where it becomes a pseudonym (rule 1)
    person = given[who] if who == "email" else given[who].strip()
    return Label(who, person, times.get("start", times.get("instant", 0)), times.get("end"), label)


def _instant(value: object, where: str) -> int:
    """Returns epoch milliseconds."""
    expected = f"{where}: expected epoch milliseconds, or ISO 8601 with an offset from UTC"
    found: int
    if isinstance(value, bool):
        raise _refused(f"{expected}, found a boolean")
    if isinstance(value, int):
        found = value
    elif isinstance(value, str) and value.strip().lstrip("-").isascii() and value.strip().lstrip("-").isdigit():
        # 30 digits are out of range in any case, and Python refuses to parse thousands of them with another error
        found = int(value.strip()[:30])
    elif isinstance(value, str | datetime):
        try:
            moment = value if isinstance(value, datetime) else datetime.fromisoformat(value.strip())
        except ValueError:
            raise _refused(f"{expected}, found other text") from None
        if moment.tzinfo is None:
            raise _refused(f"{expected}, found a time without an offset")
        found = round(moment.timestamp() * 1000)
    else:
        raise _refused(f"{expected}, found {type(value).__name__}")
    if not INSTANT_BEGIN <= found < INSTANT_END:
        raise _refused(f"{expected}, from the year 2000 on, found one out of range; are these seconds?")
    return found
