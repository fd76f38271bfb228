"""Creates a release: its people, their readings, and its folder; or previews it."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stedi._frozen import dataclass, replace
from stedi._version import __version__
from stedi.catalog import TableState
from stedi.context import Context, milliseconds
from stedi.context.progress import Progress, instant, silent
from stedi.datasets import (
    data,
    describe,
    due,
    folder,
    labels,
    manifest,
    matching,
    proof,
    quality,
    registry,
    seal,
    splits,
    subjects,
)
from stedi.datasets.data import Member, Rows
from stedi.datasets.labels import LabelFile
from stedi.datasets.manifest import File, Input, Origin, Release, Split
from stedi.datasets.options import SPLITS, Options, refuse_name
from stedi.engines.duckdb import DuckDB
from stedi.errors import LakeError, UsageError
from stedi.privacy import addresses, signatures, tombstones
from stedi.privacy.pseudonyms import Key

_INPUTS = ("customers_landing", "customers_trusted", "accelerometer_trusted", "step_trainer_trusted")


def create(
    context: Context,
    name: str,
    options: Options,
    *,
    output: str | os.PathLike[str] | None = None,
    progress: Progress = silent,
) -> Release:
    """Writes the next version of a training set from the current tables; the caller has built what is due.

    Args:
        context: The lake; no other command may build or write releases meanwhile.
        name: The training set.
        options: How it is made.
        output: A folder that is not there yet; by default `releases/NAME/VERSION` in the lake.
        progress: Told what is being done and the share of it that is done.

    Returns:
        The release, as it lies in its folder.

    Raises:
        UsageError: The name is none, or something stands where the release is to lie.
        AuditFailed: Somebody would be in it who may not be, or in two splits; nothing was written.
    """
    refuse_name(name)
    registry.refuse_address("for", options.recipient)
    # before any work: one invalid row of labels is enough to refuse
    spoken = labels.read(options.labels) if options.labels else None
    key, config, tables = context.key(), context.config, context.catalog.tables()
    version = registry.next_version(context, name)
    place = folder.chosen(context.root, name, version, output)
    # before any work: it is refused if the public key in the lake is another
    public_key = signatures.publish(context.root, key)
    origin = _origin(config.lake_id, public_key, config.readings, {name: tables[name] for name in _INPUTS})
    known = _known(tables) if config.readings == "since-consent" else ""
    identifier = subjects.identifier(key, config.lake_id, f"{name}@{version}")
    with (
        context.temporary() as temporary,
        DuckDB.of(config, temporary) as engine,
        engine.beside() as second,
        folder.staged(place, partial(registry.publish, context, key, target=place, known=known)) as staged,
        ThreadPoolExecutor(1) as beside,  # while rows are matched or written one core or the other has nothing to do
    ):
        progress("find who is in it", 0.0)
        readings = data.bind(engine, context.catalog, tables)
        # it scans all readings, since no footer has the smallest value: meanwhile this thread looks for people
        exact = beside.submit(matching.exact, second)
        members = _members(context, engine, key, f"{name}@{version}", options, spoken)
        rows = Rows(engine, options, members, readings=readings, exact=exact.result())
        allowed = beside.submit(
            due.Allowed,
            second,
            context.catalog,
            key,
            identifier,
            now=milliseconds(datetime.now(UTC)),
            since_consent=config.readings == "since-consent",
        )
        warm = beside.submit(context.catalog.warm)
        beside.submit(data.warm)
        about_labels = rows.label(spoken, key.customer_id).to_json(spoken.sha256) if spoken is not None else None
        progress("match readings", 0.05)
        rows.match()
        quality_ = beside.submit(quality.measure, second, options)
        progress("write rows", 0.5)
        files, of_subject = rows.write(staged)
        # who has moments may still have no window: only those with rows are in the release
        present = [member for member in rows.members if member.subject in of_subject]
        engine.insert_rows(
            "subjects",
            {"subject": "varchar", "split": "varchar", "rows": "bigint"},
            ((m.subject, SPLITS[m.split], of_subject[m.subject]) for m in present),
        )
        path = staged / "subjects.parquet"
        engine.copy("select * from subjects order by subject", path)
        files.append(File(path.name, path.stat().st_size, len(present), manifest.sha256(path)))
        progress("prove", 0.9)
        # it reads the files that were written, not the relations that they were written from
        proof.prove(engine, allowed.result(), staged, files, options, spoken, release=f"{name}@{version}")
        account = tuple(rows.account())
        measured = quality.of_release(quality_.result(), of_subject, rows.within(), options)
        warm.result()
        release = _release(context, name, version, place, present, of_subject, account, options)
        document = manifest.document(release, origin, files, labels=about_labels, columns=rows.columns)
        describe.write(staged, document, measured)
        (staged / manifest.NAME).write_bytes(manifest.text(document))
        about = {"lake": config.lake_id, "at": origin.created, "release": release.release}
        # last in the folder: it covers every other file
        seal.sign(staged, key, about)
        digest = manifest.sha256(staged / manifest.NAME)
    where = str(Path(options.labels).absolute())
    # kept outside of the release, which others get; a path can name a person
    if options.labels and not addresses.mentions(where):
        # after the release: a crash in between costs only the path, and `refresh` asks for it
        registry.append(context, [registry.Event(release.release, registry.LABELS, None, where, datetime.now(UTC))])
    return replace(release, manifest_sha256=digest, public_key=origin.public_key)


def _release(
    context: Context,
    name: str,
    version: int,
    place: Path,
    present: Sequence[Member],
    of_subject: Mapping[str, int],
    account: tuple[tuple[str, int], ...],
    options: Options,
) -> Release:
    """Returns the release of the people who have rows, before it is signed; says which splits nobody is in.

    Args:
        context: The lake.
        name: The training set.
        version: Its version.
        place: Its folder.
        present: The people who have rows.
        of_subject: How many rows each subject has.
        account: The account of the readings, `(what, rows)`.
        options: How it is made.
    """
    people, rows = Counter(SPLITS[member.split] for member in present), Counter[str]()
    for member in present:
        rows[SPLITS[member.split]] += of_subject[member.subject]
    empty = [split for split, share in zip(SPLITS, options.split, strict=True) if share and not people[split]]
    if present and empty:
        context.say(
            f"{name}@{version}: nobody is in {' and '.join(empty)}: people are split, not rows, and there are "
            f"only {len(present):,}"
        )
    counts = {split: Split(people[split], rows[split]) for split in SPLITS}
    return Release(name, version, str(place), len(present), rows.total(), counts, account, options)


def next_options(context: Context, last: registry.Entry, labels_: str | os.PathLike[str] | None = None) -> Options:
    """Returns the options for the next version of a release; reports if its labels have changed.

    Args:
        context: The lake.
        last: The release.
        labels_: Its file of labels, if it has moved.

    Raises:
        UsageError: Its file of labels is missing; or one is given although the release has none.
    """
    options, about = registry.shown(last).options, last.manifest["labels"]
    if about is None:
        if labels_ is not None:
            raise UsageError(
                f"expected no file, since {last.release} was made without labels, found one; create a "
                "version with labels first",
                argument="labels",
            )
        return options
    file = Path(labels_ if labels_ is not None else last.labels)
    if labels_ is None and not file.is_file():
        where = f" at {file}" if last.labels else ""
        raise UsageError(
            f"expected the file of labels of {last.release}{where}, found none; name it: --labels FILE "
            f"(SHA-256 {about['sha256'][:16]}...)",
            argument="labels",
        )
    # said, not refused: corrected labels are a reason to make the next version
    if labels.read(file).sha256 != about["sha256"]:
        context.say(f"{last.name}: the labels differ from those of {last.release}: the file has changed")
    return replace(options, labels=str(file))


@dataclass(frozen=True, slots=True)
class Preview:
    """What `create` would give with the current tables.

    Attributes:
        release: `NAME@VERSION`.
        subjects: People with moments.
        splits: The people of each split, and their moments as rows, before windows are cut.
        account: The account of the readings, `(what, rows)`, down to the moments.
        verdict: What the sampling rate allows, in one sentence.
    """

    release: str
    subjects: int
    splits: Mapping[str, Split]
    account: tuple[tuple[str, int], ...]
    verdict: str


def preview(context: Context, name: str, options: Options) -> Preview:
    """Returns what `create` would write from the current tables; changes nothing.

    Args:
        context: The lake.
        name: The training set.
        options: Its options; labels are only read.

    Raises:
        UsageError: The name or the file of labels is invalid.
    """
    refuse_name(name)
    registry.refuse_address("for", options.recipient)
    spoken = labels.read(options.labels) if options.labels else None
    key, config, tables = context.key(), context.config, context.catalog.tables()
    release = f"{name}@{registry.next_version(context, name)}"
    _origin(config.lake_id, "", config.readings, {table: tables[table] for table in _INPUTS})
    with context.temporary() as temporary, DuckDB.of(config, temporary) as engine:
        readings = data.bind(engine, context.catalog, tables)
        members = _members(context, engine, key, release, options, spoken)
        rows = Rows(engine, options, members, readings=readings, exact=matching.exact(engine))
        rows.match()
        found = {
            SPLITS[place]: Split(people, moments)
            for place, people, moments in engine.rows(
                "select m.split, count(*), sum(p.moments)::bigint from present as p join members as m using (person) "
                "group by m.split"
            )
        }
        measured = quality.measure(engine, options)
        return Preview(
            release,
            len(measured.by_subject),
            {split: found.get(split, Split(0, 0)) for split in SPLITS},
            tuple(rows.account()),
            measured.verdict,
        )


def _origin(lake_id: str, public_key: str, readings: str, tables: Mapping[str, TableState]) -> Origin:
    """Returns the origin of a release.

    Raises:
        LakeError: A table was never built.
    """
    inputs, newest = [], 0
    for name, state in tables.items():
        if state.current is None:
            raise LakeError(f"{name}: expected built rows, found none; land deliveries first")
        inputs.append(Input(name, state.current.id, state.current.summary.get("stedi.sql")))
        # the time of the newest input, not of the clock: the same tables give the same bytes
        newest = max(newest, state.current.at_ms)
    built = tables["customers_trusted"].current
    assert built is not None
    return Origin(
        lake_id,
        public_key,
        instant(newest),
        instant(int(built.summary["stedi.started"])),
        readings,
        tuple(inputs),
        __version__,
    )


def _known(tables: Mapping[str, TableState]) -> str:
    """Returns the id of the last batch, or erasure, of the customers' records that the tables were built from."""
    built = tables["customers_trusted"].current
    read = json.loads(built.summary["stedi.inputs"]).get("customers_landing") if built else None
    # a landing may have ended since that build was planned
    history = iter(tables["customers_landing"].history())
    for snapshot in history:
        if snapshot.id == read:
            # compaction and the creation of a lake are no batch; batches follow each other, and their ids sort so
            for before in (snapshot, *history):
                if found := before.summary.get("stedi.batch") or before.summary.get("stedi.erasure"):
                    return found
    return ""


def _members(
    context: Context,
    engine: DuckDB,
    key: Key,
    release: str,
    options: Options,
    spoken: LabelFile | None,
) -> list[Member]:
    """Returns everybody who may be in a release, with their id and their split; `data.bind` has bound the tables."""
    built = context.catalog.table("customers_trusted").current
    assert built is not None, "`_origin` has refused a lake that was never built"
    started = int(built.summary["stedi.started"])
    where = "true"
    if options.purpose == "public":  # rule 3, of the other consent
        where = f"shareWithPublicAsOfDate between '2000-01-01'::timestamptz and instant({started})"
    # rule 4, of the other consent
    since = context.config.readings == "since-consent" and options.purpose == "public"
    people = engine.rows(
        "select customer_id, email, epoch_ms(shareWithPublicAsOfDate) from customers_trusted "
        f"where {where} order by customer_id"
    )
    marks = dict(zip((row[0] for row in people), tombstones.persons(key, (row[1] for row in people)), strict=True))
    tied = _tied(context, engine, key)
    amounts = None
    if options.stratify and spoken is not None:
        of_customer = labels.amounts(spoken, key.customer_id, _wearers(engine))
        amounts = {marks[customer]: found for customer, found in of_customer.items() if customer in marks}
    before = registry.splits_before(context, key, release.partition("@")[0], options.split)
    decided, moved = splits.decided(marks.values(), tied, splits.hasher(key), options.split, before, amounts)
    if moved:
        context.say(
            f"{release}: subjects who are in another split than in an earlier release: {len(moved):,}: they share a "
            "serial number with somebody who was in a release before them"
        )
    # another id in each release: two releases of one person cannot be joined by it
    identifier = subjects.identifier(key, context.config.lake_id, release)
    members = [
        Member(customer_id, identifier(marks[customer_id]), decided[marks[customer_id]], public if since else 0)
        for customer_id, _, public in people
    ]
    subjects.refuse_collision(member.subject for member in members)
    return members


def _wearers(engine: DuckDB) -> dict[str, str]:
    """Returns the customer of each serial number that only one customer has used."""
    return dict(
        engine.rows(
            "select serialNumber, min(customer_id) from step_trainer_trusted group by serialNumber "
            "having count(distinct customer_id) = 1"
        )
    )


def _tied(context: Context, engine: DuckDB, key: Key) -> dict[str, str]:
    """Returns who shares devices with whom, among everybody known to the lake or erased from it."""
    rows = engine.rows(
        "select serialNumber, list(distinct email) from customers_landing where serialNumber is not null "
        "group by serialNumber having count(distinct email) > 1 order by serialNumber"
    )
    found: list[list[str]] = []
    for _, emails in rows:
        # two spellings of one address are one person
        found.append(sorted(set(tombstones.persons(key, emails))))
    erased = tombstones.read(context.root, key)
    if erased.claims:
        of_serial = {mark: list(people) for mark, people in erased.claims.items()}
        for serial, emails in engine.stream(
            "select serialNumber, list(distinct email) from customers_landing where serialNumber is not null "
            "group by serialNumber"
        ):
            # who shared a device with somebody erased goes into one split with them, and with each other
            claimed = of_serial.get(tombstones.serial(key, serial))
            if claimed is not None:
                claimed += sorted(set(tombstones.persons(key, emails)))
        found += of_serial.values()
    return splits.groups(group for group in found if len(group) > 1)
