"""Exports: all data of some people, each in a folder, without data of anybody else.

The proof's relations decide who owns a row (`audit.explain.subjects`), `attribution` who owns a text, and `readme`
describes the result in plain words. Readings of a shared device are in it if rule 6 gives them to the person; the
withheld ones are counted. The engine writes the files, rows as they come, into a folder beside the one that was asked
for, which takes its name when all of it is there.
"""

from __future__ import annotations

import csv
import io
import json
import os
import secrets
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass
from stedi.audit.explain import subjects
from stedi.audit.proof import expected
from stedi.audit.proof.as_of import BELOW, AsOf
from stedi.catalog import TableState
from stedi.context import Context, places
from stedi.context.progress import Progress, instant, silent
from stedi.datasets import folder, registry
from stedi.datasets import subjects as release_subjects
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import literal, quoted
from stedi.errors import FORMULA, StediError, UsageError
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key
from stedi.report import readme
from stedi.report.attribution import Person
from stedi.schema.feeds import ACCELEROMETER, CUSTOMER, STEP_TRAINER
from stedi.schema.tables import FREE_TEXTS
from stedi.storage import destinations, durable, s3

_READINGS = {"accelerometer": ACCELEROMETER, "step_trainer": STEP_TRAINER}
_MANY = 200
"""Delivered files, the newest, that are looked for on the way to the output."""


@dataclass(frozen=True, slots=True)
class Exported:
    """The export of one person: the row count of each file.

    Attributes:
        known: Whether the lake has data of them.
        records: Customer records.
        accelerometer: Accelerometer readings.
        step_trainer: Step trainer readings.
        quarantined: Quarantined records that are theirs.
        withheld_shared: Step trainer readings of shared devices without a certain owner (rule 6): counted, never
            shown.
        releases: Releases that they are in.
        quarantined_mixed: Quarantined records that mix them with others and cannot be separated: counted, never shown.
    """

    known: bool
    records: int
    accelerometer: int
    step_trainer: int
    quarantined: int
    withheld_shared: int
    releases: int
    quarantined_mixed: int = 0


@dataclass(frozen=True, slots=True)
class Export:
    """The result of an export.

    Attributes:
        path: The folder, or the zip file.
        customers: The counts of each person, in the order of the request.
    """

    path: Path
    customers: tuple[Exported, ...]


def export(
    context: Context,
    key: Key,
    addresses: Sequence[str],
    output: str | os.PathLike[str],
    *,
    now: int,
    archive: bool = False,
    progress: Progress = silent,
) -> Export:
    """Writes all data of each person; does not change the lake.

    Args:
        context: The lake.
        key: The lake's pseudonym key.
        addresses: Their addresses in normal form (rule 1), each once.
        output: A new or empty folder. With several people each has a folder in it: `1`, `2`, ...
        now: The instant for which consent is evaluated, epoch milliseconds.
        archive: Write one zip file in place of the folder; `.zip` is added to its name if it lacks that.
        progress: Told whose turn it is and the share that is done.

    Raises:
        UsageError: Nobody is asked for, or something stands at the output, or it lies in a lake or among deliveries;
            nothing was written.
    """
    if not addresses:
        raise UsageError("expected an address, found none; nothing was written", argument="addresses")
    states = context.catalog.tables()
    target = _target(output, archive=archive)
    with subjects.session(context, states) as engine:
        _refuse_inbox(engine, target)
        ids = {expected.normal(address): key.customer_id(address) for address in addresses}
        base = AsOf({}, now, context.config.readings == "since-consent")
        progress("find", 0.0)
        subjects.work_out(context, engine, key, ids, base)
        people = [_Subject(context, engine, key, states, base, address) for address in addresses]
        _quarantined(engine, people)
        with _staged(target, archive=archive) as content:
            done = []
            for number, person in enumerate(people, start=1):
                progress(f"write person {number:,} of {len(people):,}", number / (len(people) + 1))
                own = content if len(people) == 1 else content / str(number)
                own.mkdir(0o700, exist_ok=True)
                done.append(person.write(own))
    return Export(target, tuple(done))


class _Subject:
    """One person, in a session with the relations of `subjects.work_out`."""

    def __init__(
        self,
        context: Context,
        engine: DuckDB,
        key: Key,
        states: Mapping[str, TableState],
        base: AsOf,
        address: str,
    ) -> None:
        self._context, self._engine, self._key, self._states, self._base = context, engine, key, states, base
        self.customer_id = key.customer_id(address)
        self.erased = tombstones.erased_at(context.root, key, address)
        self._mark = tombstones.person(key, address)
        self._who = subjects.person(engine, self.customer_id)
        sole = engine.rows(
            "select d.serialNumber from devices as d inner join claimed as c on d.serial = c.serial "
            f"where c.sole = {self._who} and c.claimants = 1"
        )
        # only texts beyond ASCII can have invisible characters
        alike = engine.rows(
            "select distinct email from every_customers_landing where email is not null and "
            f"not regexp_full_match(email, '[ -~]*') and email not in (select address from persons where "
            f"person = {self._who})"
        )
        normal = expected.normal(address)
        self.theirs = Person(normal, [number for (number,) in sole], [email for (email,) in alike])
        self.found: list[dict[str, Any]] = []
        """Their parts of quarantined records, as in `quarantine.jsonl`."""
        self.mixed = 0

    def write(self, own: Path) -> Exported:
        """Writes the files of this person into an empty folder."""
        engine = self._engine
        self._bind()
        names = self._sources(own / "sources.csv")
        records = self._records(names)
        counts = {feed: self._readings(feed, own) for feed in _READINGS}
        with _text(own / "quarantine.jsonl") as stream:
            for found in self.found:
                # its number stands for it, in `sources.csv`
                content = found.pop("sha256")
                stream.write(json.dumps({**found, "source": names[content][0]}, ensure_ascii=False) + "\n")
        releases = self._releases()
        _document(own / "releases.json", {"releases": releases})
        # rule 6: several claimants, and not exactly one of them moved
        [(withheld,)] = engine.rows(
            "select coalesce(sum(landed), 0)::bigint from steps where landed > 0 and claimants > 1 and movers <> 1 "
            f"and serial in (select serial from claims where person = {self._who})"
        )
        done = Exported(
            bool(records or any(counts.values()) or self.found or self.mixed or releases),
            len(records),
            counts["accelerometer"],
            counts["step_trainer"],
            len(self.found),
            int(withheld),
            len(releases),
            self.mixed,
        )
        told = self._told(done, records)
        _document(own / "customer.json", told)
        with _text(own / "README.html") as stream:
            stream.write(readme.page(told, releases, sources=len(names)))
        return done

    def _bind(self) -> None:
        """Makes `theirs_FEED`, the person's landed rows, and `shown_texts`, the text of their unknown fields."""
        engine, who = self._engine, self._who
        engine.view(
            "theirs_customer",
            "select c.* from customers_landing as c inner join persons as p on c.email = p.address "
            f"where p.person = {who}",
        )
        engine.materialize(
            "theirs_accelerometer",
            'select a.* from accelerometer_landing as a inner join persons as p on a."user" = p.address '
            f"where p.person = {who}",
        )
        engine.materialize(
            "theirs_step_trainer",
            "select s.* from step_trainer_landing as s inner join devices as d on s.serialNumber = d.serialNumber "
            f"inner join (select distinct serial, moment, distance from steps where owner = {who} and landed > 0) as o "
            "on d.serial = o.serial and s.sensorReadingTime * 1000 = o.moment and s.distanceFromObject = o.distance",
        )
        extras = " union ".join(f"select _extra from theirs_{feed} where _extra is not null" for feed in _READINGS)
        # each text once: rows of one device often have the same unknown fields
        shown = ((text, self.theirs.shown(text)) for (text,) in engine.stream(extras))
        changed = [(text, kept) for text, kept in shown if kept != text]
        engine.insert_rows("shown_texts", {"text": "varchar", "shown": "varchar"}, changed)

    def _sources(self, file: Path) -> dict[str, tuple[int, str]]:
        """Writes the list of files with their data, and returns number and name of each by its SHA-256."""
        feeds = ("customer", *_READINGS)
        landed = " union all ".join(
            f"select _file as sha256, count(*) as n from theirs_{f} group by all" for f in feeds
        )
        held: dict[str, list[int]] = {}
        for content, count in self._engine.rows(landed):
            held.setdefault(content, [0, 0])[0] += count
        for found in self.found:
            held.setdefault(found["sha256"], [0, 0])[1] += 1
        self._engine.insert_rows("held", {"sha256": "varchar"}, [(content,) for content in held])
        rows = self._engine.rows(
            f"select h.sha256, {subjects.FILE_NAME}, f.landed_at from held as h left join {subjects.FILES} as f "
            "on h.sha256 = f.sha256 order by f.landed_at, 2, 1"
        )
        names: dict[str, tuple[int, str]] = {}
        with _text(file) as stream:
            out = csv.writer(stream)
            out.writerow(("source", "name", "sha256", "landed_at", "records", "quarantined"))
            for number, (content, name, at) in enumerate(rows, start=1):
                names[content] = number, self.theirs.shown_name(name)
                row = (number, _unformed(names[content][1]), content, _time(at), *held[content])
                out.writerow(row)
        self._engine.insert_rows(
            "sources", {"sha256": "varchar", "number": "bigint"}, [(c, number) for c, (number, _) in names.items()]
        )
        return names

    def _records(self, names: Mapping[str, tuple[int, str]]) -> list[dict[str, Any]]:
        """Returns their landed customer records, the current one first (rule 2)."""
        fields = [field.name for field in CUSTOMER.fields]
        listed = ", ".join(f"c.{quoted(name)}" for name in fields)
        rows = self._engine.rows(
            f"select c._extra, c._file, f.landed_at, {listed} from theirs_customer as c "
            f"left join {subjects.FILES} as f on c._file = f.sha256 "
            f"order by {expected.rank(self._base)} desc, f.landed_at, c._extra"
        )
        found = []
        for extra, content, at, *values in rows:
            record: dict[str, Any] = dict(zip(fields, values, strict=True))
            # a customer can have typed anything into these, such as somebody else's address
            for name in FREE_TEXTS[CUSTOMER.table]:
                record[name] = record[name] and self.theirs.shown(record[name])
            record["unknown_fields"] = None if extra is None else _value(self.theirs.shown(extra))
            found.append({**record, "source": names[content][0], "landed_at": _time(at)})
        return found

    def _readings(self, feed: str, own: Path) -> int:
        """Writes their readings of a feed in both forms, in the order of time, and returns how many there are."""
        contract = _READINGS[feed]
        [instant] = [field.name for field in contract.fields if field.name in ("timestamp", "sensorReadingTime")]
        moment = f"make_timestamp(r.{quoted(instant)} * 1000)"
        time = f"strftime({moment}, '%Y-%m-%dT%H:%M:%S.') || lpad((r.{quoted(instant)} % 1000)::varchar, 3, '0') || 'Z'"
        texts = {field.name for field in contract.fields if field.kind == "text"}

        def columns(*, plain: bool) -> str:
            named = {name: f"r.{quoted(name)}" for name in (field.name for field in contract.fields)}
            extra = "coalesce(s.shown, r._extra)"
            if plain:
                named |= {name: _safe(named[name]) for name in texts}
            every = {
                **named,
                "time": time,
                "unknown_fields": extra if plain else f"{extra}::json",
                "source": "f.number",
            }
            return ", ".join(f"{sql} as {quoted(name)}" for name, sql in every.items())

        of = (
            f"from theirs_{feed} as r left join shown_texts as s on r._extra = s.text "
            f"left join sources as f on r._file = f.sha256 order by r.{quoted(instant)}"
        )
        forms = {"jsonl": ("format json", False), "csv": ("format csv, header true, delimiter ','", True)}
        count = 0
        engine = self._engine
        engine.run("set preserve_insertion_order = true")
        try:
            for ending, (form, plain) in forms.items():
                file = literal(str(own / f"{feed}.{ending}"))
                [(count,)] = engine.rows(f"copy (select {columns(plain=plain)} {of}) to {file} ({form})")
        finally:
            engine.run("set preserve_insertion_order = false")
        return int(count)

    def _releases(self) -> list[dict[str, Any]]:
        """Returns the releases that they are in, deleted ones too: copies may have left the lake."""
        if "releases" not in self._states:
            return []
        entries = registry.releases(self._context)
        ids = [(e.release, release_subjects.identifier(self._key, e.lake, e.release)(self._mark)) for e in entries]
        self._engine.insert_rows("asked_releases", {"release": "varchar", "subject": "varchar"}, ids)
        rows = self._engine.rows(
            "select s.release, s.subject, s.split, s.rows from release_subjects as s "
            "inner join asked_releases as a on s.release = a.release and s.subject = a.subject"
        )
        theirs = {release: (subject, split, count) for release, subject, split, count in rows}
        found = []
        for entry in entries:
            if entry.release in theirs:
                subject, split, count = theirs[entry.release]
                found.append(
                    {
                        "release": entry.release,
                        "purpose": entry.purpose,
                        "for": self.theirs.shown(entry.recipient) or None,
                        "released_at": _time(entry.released_at),
                        "subject": subject,
                        "split": split,
                        "rows": count,
                        "models": [self.theirs.shown(model) for model in entry.models],
                        "deleted": entry.deleted,
                    }
                )
        return found

    def _told(self, done: Exported, records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Returns what `customer.json` says."""
        counts = ", ".join(
            f"(select count(*) from every_{name} where customer_id = {literal(self.customer_id)})" for name in BELOW
        )
        consents = self._engine.rows(f"select consents from known where person = {self._who}") == [(True,)]
        current = records[0] if records else {}
        return {
            "known": done.known,
            "lake": self._context.config.lake_id,
            "as_of": _time(self._base.started),
            "address": self.theirs.address,
            "customer_id": self.customer_id,
            "erased": self.erased and _time(round(self.erased.timestamp() * 1000)),
            "consent": {
                "research": consents,
                "research_since": current.get("shareWithResearchAsOfDate"),
                "public_since": current.get("shareWithPublicAsOfDate"),
                "friends_since": current.get("shareWithFriendsAsOfDate"),
            },
            "records": list(records),
            "rows": {
                "accelerometer": done.accelerometer,
                "step_trainer": done.step_trainer,
                "quarantined": done.quarantined,
                "quarantined_mixed": done.quarantined_mixed,
                "withheld_shared": done.withheld_shared,
            },
            "tables": dict(zip(BELOW, self._engine.rows(f"select {counts}")[0], strict=True)),
        }


def _quarantined(engine: DuckDB, people: Sequence[_Subject]) -> None:
    """Gives each person their parts of quarantined records."""
    for sha256, feed, file, offset, line, reason, at, raw in engine.stream(
        'select sha256, feed, file, "offset", line, reason, epoch_ms(landed_at), raw from quarantine '
        'order by landed_at, file, "offset"'
    ):
        content = bytes(raw or b"")
        for person in people:
            part = person.theirs.part(content)
            if part is None:
                person.mixed += 1
            elif part:
                person.found.append(
                    {
                        "sha256": sha256,
                        "feed": feed,
                        "file": person.theirs.shown_name(file),
                        "offset": offset,
                        "line": line,
                        "reason": reason,
                        "landed_at": _time(at),
                        "whole": part == content,
                        "record": part.decode("utf-8", "backslashreplace"),
                    }
                )


def _target(output: str | os.PathLike[str], *, archive: bool) -> Path:
    """Returns the place of the export.

    Raises:
        UsageError: It exists, or is in a bucket or a lake.
    """
    if s3.is_remote(output):
        raise UsageError(
            "expected a folder on this machine, found one in a bucket; nothing was written", argument="output"
        )
    target = Path(os.path.abspath(destinations.expanded(output)))
    if archive and target.suffix.lower() != ".zip":
        target = target.with_name(f"{target.name}.zip")
    # an erasure does not look for exports: in a lake, one would keep what it removes
    places.refuse_into_lake(target)
    if not target.parent.is_dir():
        raise UsageError(
            f"{target}: expected an existing parent folder, found none; nothing was written: create {target.parent}",
            argument="output",
        )
    if os.path.lexists(target) and (archive or not _is_empty(target)):
        raise UsageError(
            f"{target}: expected {'a new file' if archive else 'a new or empty folder'}, found something else; "
            "nothing was written: name another",
            argument="output",
        )
    return target


def _is_empty(place: Path) -> bool:
    try:
        return not place.is_symlink() and place.is_dir() and not os.listdir(place)
    except OSError:
        return False


def _refuse_inbox(engine: DuckDB, target: Path) -> None:
    """Refuses a place among delivered files: the next landing would land the export.

    Raises:
        UsageError: A parent folder has a file with the name and size of a landed one.
    """
    landed = engine.rows(
        "select name, max(size) from landed_files where size > 0 group by name order by max(landed_at) desc "
        f"limit {_MANY}"
    )
    for above in target.parents:
        for name, size in landed:
            parts = Path(name.lstrip("/")).parts
            # names begin with the landed folder: files beside that folder are in no inbox
            if any(_size(above.joinpath(*parts[start:])) == size for start in range(1, len(parts))):
                raise UsageError(
                    f"{target}: expected a path outside of every inbox, found delivered files below {above}: a "
                    "landing would read the export as a delivery; nothing was written: name another",
                    argument="output",
                )


def _size(file: Path) -> int | None:
    try:
        return file.stat().st_size if file.is_file() else None
    except OSError:
        return None


@contextmanager
def _staged(target: Path, *, archive: bool) -> Iterator[Path]:
    """Yields an empty folder that becomes the target if the block succeeds."""
    try:
        folder.remove_abandoned(target.parent, "export")  # leftovers of killed exports
        beside = target.with_name(f".export.{secrets.token_hex(8)}.partial")
        beside.mkdir(0o700)
        held = durable.hold(beside)
        try:
            content, packed = beside / "content", beside / "packed.zip"
            content.mkdir(0o700)
            yield content
            for entry in (*sorted(content.rglob("*")), content):
                entry.chmod(0o700 if entry.is_dir() else 0o600)
                durable.sync(entry)
            if archive:
                _pack(content, packed)
                os.link(packed, target)  # unlike a rename it takes the place of nothing
            else:
                os.rename(content, target)  # an empty folder gives way, another one does not
            durable.sync(target.parent)
        finally:
            durable.remove_tree(beside, never_named=True)
            os.close(held)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise StediError(f"{target}: cannot be written: {why}; nothing was written") from error


def _pack(content: Path, file: Path) -> None:
    with (
        open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in sorted(content.rglob("*")):
            if entry.is_file():
                packed.write(entry, entry.relative_to(content))
    durable.sync(file)


@contextmanager
def _text(file: Path) -> Iterator[io.TextIOBase]:
    with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8", newline="") as stream:
        yield stream


def _document(file: Path, content: Mapping[str, Any]) -> None:
    with _text(file) as stream:
        stream.write(json.dumps(content, ensure_ascii=False, indent=2) + "\n")


def _safe(column: str) -> str:
    """Returns the SQL of a text that no spreadsheet computes."""
    begins = literal(f"^[{FORMULA}]")
    return f"case when regexp_matches({column}, {begins}) then '''' || {column} else {column} end"


def _unformed(text: str) -> str:
    return f"'{text}" if text and text[0] in FORMULA else text


def _value(text: str) -> Any:
    """Returns the JSON value of a text, or the text itself."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _time(at: datetime | int | None) -> str | None:
    return None if at is None else instant(at)
