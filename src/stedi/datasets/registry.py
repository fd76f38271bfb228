"""The registry of releases: three tables of the zone `released`, created with the first release.

`releases` has a row for each release, `release_subjects` one for each of its subjects, `release_events` one for each
later event: a trained model, a recall, an erasure, its deletion. No table says who a subject is: that is worked out
from a person's mark (`subjects`). A release comes in by `publish`, in three steps that a killed command cannot leave
half done: a sealed note says what is to be named what, the folder gets its name, the tables their rows; whoever writes
next finishes what the note says.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, field
from stedi.context import Context
from stedi.context.progress import run_id
from stedi.datasets import folder
from stedi.datasets.manifest import Release, Split
from stedi.datasets.options import SPLITS, Options
from stedi.datasets.subjects import identifier
from stedi.engines.duckdb import DuckDB
from stedi.errors import UsageError
from stedi.privacy import addresses, state
from stedi.privacy.pseudonyms import Key
from stedi.schema.tables import REGISTRY, DataFile
from stedi.storage import durable, s3

NOTE = "releasing.json"
"""The file, in the lake's folder, from the moment that a release is decided until the tables know it."""
MODEL, RECALL, ERASED, REWRITTEN, DELETED = "model", "recall", "erased", "rewritten", "deleted"
LABELS, KNOWN = "labels", "known"
"""What can happen to a release, as `release_events` has it."""
_KIND = "release"
_LONGEST_NOTE = 500
"""Characters of a note on a release."""
_ADVICE = "nothing was written. Restore it from the lake's backup, or remove it, and make the release again"
_NAMED = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]{0,63})(@(?P<version>[1-9][0-9]{0,8}))?")


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered release.

    Attributes:
        name: The training set's name.
        version: Its version, from 1.
        path: Its folder; one outside the lake may no longer exist.
        purpose: `research` or `public`.
        recipient: Its recipient, in the words of its creator.
        subjects: People in it.
        rows: Rows in it.
        raw: Its manifest as it is now, the bytes of it.
        manifest_sha256: SHA-256 of the manifest as it was made: a recall says by it of which release it is.
        released_at: When it was made, by the clock, UTC.
        models: The models that were trained on it.
        recalls: When a recall of it was written, UTC.
        erased: The subjects that an erasure has taken out of it, and when, UTC.
        held: The data files that each of these had rows in, one a line; empty where that was not to be seen.
        deleted: Whether its folder was removed from the lake.
        labels: The file of labels that it was made with, on the machine that made it; empty without one, and where
            somebody's address stands in its path.
        known: The last batch of customers' records that its tables were built from; empty where readings from before
            consent count, and of a release of an older version.
    """

    name: str
    version: int
    path: Path
    purpose: str
    recipient: str
    subjects: int
    rows: int
    raw: bytes = field(repr=False)
    manifest_sha256: str
    released_at: datetime
    models: tuple[str, ...] = ()
    recalls: tuple[datetime, ...] = ()
    erased: Mapping[str, datetime] = field(default_factory=dict)
    held: Mapping[str, str] = field(default_factory=dict)
    deleted: bool = False
    labels: str = ""
    known: str = ""

    @property
    def release(self) -> str:
        """`NAME@VERSION`."""
        return f"{self.name}@{self.version}"

    @property
    def lake(self) -> str:
        """The id that the lake had when it was made: subjects have their ids under it."""
        return str(self.manifest["lake"])

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Its current manifest."""
        found: dict[str, Any] = json.loads(self.raw)
        return found


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a release.

    Attributes:
        release: `NAME@VERSION`.
        what: `MODEL`, `RECALL`, `ERASED`, `REWRITTEN`, `DELETED`, `LABELS` or `KNOWN`.
        subject: The affected subject, or None.
        text: Further text, or None.
        at: When, UTC.
    """

    release: str
    what: str
    subject: str | None
    text: str | None
    at: datetime


def exists(context: Context) -> bool:
    """Returns whether the lake has made a release, without reading a table."""
    return "releases" in context.catalog.listed()


def releases(context: Context) -> tuple[Entry, ...]:
    """Returns every registered release, including deleted ones, by name and version."""
    if not exists(context):
        return ()
    with session(context) as engine:
        return read(context, engine)


def read(context: Context, engine: DuckDB) -> tuple[Entry, ...]:
    """Returns every registered release, as `releases` does, from a session over the registry's tables."""
    rows = engine.rows(
        "select name, version, path, purpose, recipient, subjects, rows, manifest, manifest_sha256, "
        "epoch_ms(released_at) from releases order by name, version"
    )
    events = defaultdict(list)
    for release, what, subject, text, at in engine.rows(
        "select release, what, subject, text, epoch_ms(noted_at) from release_events "
        "order by noted_at, what, subject, text"
    ):
        events[release].append(Event(release, what, subject, text, _at(at)))
    return tuple(_entry(context.root, row, events[f"{row[0]}@{row[1]}"]) for row in rows)


def find(context: Context, named: str, *, deleted: bool = False) -> Entry:
    """Returns a release by `NAME@VERSION`, or the newest of a name.

    Args:
        context: The lake.
        named: Its name.
        deleted: Whether it may be a deleted one.

    Raises:
        UsageError: There is none of that name, or it was deleted.
    """
    match = _NAMED.fullmatch(named)
    every = releases(context) if match else ()
    version = int(match["version"]) if match and match["version"] else None
    found = [r for r in every if match and r.name == match["name"] and version in (None, r.version)]
    found = [release for release in found if deleted or not release.deleted]
    if not found:
        # what has another form may be an address
        which = named if match else "the release"
        raise UsageError(
            f"{which}: expected NAME or NAME@VERSION of a release of this lake, found none; `stedi dataset list` lists "
            "them"
        )
    return found[-1]


def shown(entry: Entry, stale: Iterable[str] = ()) -> Release:
    """Returns a release as the verbs return it.

    Args:
        entry: The release.
        stale: Its subjects who may no longer be used.
    """
    plain = entry.manifest
    return Release(
        entry.name,
        entry.version,
        str(entry.path),
        entry.subjects,
        entry.rows,
        {name: Split(found["subjects"], found["rows"]) for name, found in plain["splits"].items()},
        tuple((line["what"], line["rows"]) for line in plain["account"]),
        Options.from_json(plain["options"]),
        tuple(stale),
        entry.models,
        _digest(entry.raw),
        plain["public_key"],
    )


def splits_before(context: Context, key: Key, name: str, shares: Sequence[float]) -> Callable[[str], Where | None]:
    """Returns a lookup by mark: the first release of a name with the person, and their split in it.

    Args:
        context: The lake.
        key: The lake's key.
        name: The training set.
        shares: The shares of the splits; releases with other shares do not count.
    """
    found: list[tuple[int, Callable[[str], str], dict[str, tuple[str, int]]]] = []

    def known() -> Iterator[tuple[int, Callable[[str], str], dict[str, tuple[str, int]]]]:
        # read one by one, and only as long as somebody is not found: a training set may have many versions
        yield from found
        for entry in wanted[len(found) :]:
            found.append((entry.version, identifier(key, entry.lake, entry.release), subjects(context, entry.release)))
            yield found[-1]

    def before(mark: str) -> Where | None:
        for version, known_as, there in known():
            if (where := there.get(known_as(mark))) is not None:
                return version, SPLITS.index(where[0])
        return None

    wanted = [entry for entry in releases(context) if entry.name == name]
    # who asks for other shares wants other splits: those of before do not bind them
    wanted = [entry for entry in wanted if list(entry.manifest["options"]["split"]) == list(shares)]
    return before


Where = tuple[int, int]
"""A version, and the place of a split in `SPLITS`."""


def note(context: Context, entry: Entry, model: str) -> None:
    """Notes that a model was trained on a release; the caller holds the lock of builds.

    Raises:
        UsageError: The text is empty, or contains an address, which no erasure would find here.
    """
    if not model.strip() or not model.isprintable() or len(model) > _LONGEST_NOTE:
        raise UsageError(f"expected one line of up to {_LONGEST_NOTE} printable characters", argument="model")
    refuse_address("model", model)
    append(context, [Event(entry.release, MODEL, None, model, datetime.now(UTC))])


def refuse_address(name: str, text: str) -> None:
    """Refuses a text for the registry that contains an address.

    Args:
        name: The argument that the text is.
        text: The text.

    Raises:
        UsageError: It contains one.
    """
    if addresses.mentions(text):
        raise UsageError("expected no email address, found what may be one; leave it out", argument=name)


def delete(context: Context, entry: Entry) -> None:
    """Removes a release's folder from the lake; the release and its subjects stay registered.

    The caller holds the lock of builds. A folder outside of the lake stays, unless it was moved there and a link in the
    lake leads to it.

    Raises:
        LakeError: A link leads to something else, or to nothing: nothing was changed; or data cannot be removed.
    """
    inside = entry.path.is_relative_to(context.root)
    found = entry.path
    if inside:
        found = folder.real(entry.path, entry.release, entry.manifest_sha256, deleted=entry.deleted)
    if not entry.deleted:
        # the event first: after a crash in between, a folder is left over; the other way round, a listed release lacks
        # its folder
        append(context, [Event(entry.release, DELETED, None, None, datetime.now(UTC))])
    if inside:
        folder.remove(entry.path, found, entry.release)


def subjects(context: Context, release: str) -> dict[str, tuple[str, int]]:
    """Returns split and rows of each subject of a release, `NAME@VERSION`."""
    with session(context) as engine:
        engine.insert_rows("wanted", {"release": "varchar"}, [(release,)])
        found = engine.rows(
            "select s.subject, s.split, s.rows from release_subjects as s inner join wanted using (release)"
        )
    return {subject: (split, rows) for subject, split, rows in found}


def next_version(context: Context, name: str) -> int:
    """Returns the version of the next release of a name; none is given twice, were it deleted."""
    # deleted ones count: their copies go on being recalled by that name and number
    return 1 + max((release.version for release in releases(context) if release.name == name), default=0)


def publish(context: Context, key: Key, staged: Path, target: Path, known: str = "") -> None:
    """Gives a release its name and has the tables know it; the caller holds the lock of builds.

    Args:
        context: The lake.
        key: The lake's key.
        staged: The whole release under another name, on disk, on the file system of the target.
        target: The folder that it is to be.
        known: As in `Entry`.
    """
    # the note of an interrupted release must not be replaced: it would never be registered
    if (context.root / NOTE).exists():
        finish(context, key)
    raw = (staged / "manifest.json").read_bytes()
    note = {"staged": str(staged), "target": str(target), "manifest": _digest(raw), "known": known}
    state.write(context.root / NOTE, _KIND, context.config.lake_id, key, note)
    finish(context, key)


def finish(context: Context, key: Key) -> None:
    """Finishes a release that was interrupted after its decision, and removes leftovers of others.

    The caller holds the lock of builds.
    """
    root = context.root
    try:
        note = state.read(root / NOTE, _KIND, context.config.lake_id, key, advice=_ADVICE)
    except FileNotFoundError:
        remove_abandoned(root)
        return
    staged, target = s3.at(note["staged"]), s3.at(note["target"])
    # otherwise the process that was killed has renamed it already
    if staged != target and staged.is_dir():
        durable.folder(target.parent)
        staged.rename(target)
        durable.sync(target.parent)
    try:
        raw = (target / "manifest.json").read_bytes()
    except OSError:
        raw = b""
    if _digest(raw) == note["manifest"]:  # otherwise somebody has removed it
        # a note of an older version has no `known`
        _register(context, target, raw, note.get("known", ""))
    # last: until then every step above is repeated, and each of them is done once only
    durable.remove(root / NOTE)
    remove_abandoned(root)


def remove_abandoned(root: Path) -> None:
    """Removes what commands that were killed have begun to write into the folder of releases."""
    if not s3.is_remote(root) and (root / folder.RELEASES).is_dir():
        for entry in os.scandir(root / folder.RELEASES):
            if entry.is_dir(follow_symlinks=False):
                folder.remove_abandoned(Path(entry.path))


def append(context: Context, events: Sequence[Event], once: str = "") -> None:
    """Records events of releases; the caller holds the lock of builds, or all locks.

    Args:
        context: The lake.
        events: The events.
        once: An id: events are recorded only once under it.
    """
    rows = [(event.release, event.what, event.subject, event.text, event.at) for event in events]
    _append(context, "release_events", rows, once or secrets.token_hex(8))


@contextmanager
def session(context: Context) -> Iterator[DuckDB]:
    """Gives an engine session over the registry's tables."""
    config = context.config
    with (
        context.temporary() as folder,
        DuckDB.of(config, folder) as engine,
    ):
        for name in REGISTRY:
            engine.bind_files(name, context.catalog.files(context.catalog.table(name)))
        yield engine


def _register(context: Context, target: Path, raw: bytes, known: str) -> None:
    """Writes a release's rows, the subjects first: a release that is listed is whole."""
    import pyarrow.parquet

    manifest = json.loads(raw)
    context.catalog.create(REGISTRY)
    release = f"{manifest['name']}@{manifest['version']}"
    inside = target.is_relative_to(context.root)
    # relative to the lake, which may be moved; a folder outside of it stays where it is
    path = str(target.relative_to(context.root)) if inside else str(target)
    source = io.BytesIO((target / "subjects.parquet").read_bytes())
    table = pyarrow.parquet.read_table(source, columns=["subject", "split", "rows"])
    people = zip(*(column.to_pylist() for column in table.columns), strict=True)
    _append(context, "release_subjects", [(release, *row) for row in people], release)
    if known:  # before the release is listed: without it, a time decides, which is less certain
        append(context, [Event(release, KNOWN, None, known, datetime.now(UTC))], f"{release} {KNOWN}")
    row = (
        release,
        manifest["name"],
        manifest["version"],
        path,
        manifest["purpose"],
        manifest["for"] or "",
        manifest["subjects"],
        manifest["rows"],
        raw.decode(),
        _digest(raw),
        datetime.now(UTC),
    )
    _append(context, "releases", [row], release)


def _append(context: Context, table: str, rows: Sequence[tuple[Any, ...]], once: str) -> None:
    catalog, config = context.catalog, context.config
    if not rows:
        return
    place = catalog.folder(table) / "data" / run_id()
    with (
        context.temporary() as temporary,
        DuckDB(memory=config.engine_memory, threads=1, temporary=temporary) as engine,
    ):
        types = {"string": "varchar", "long": "bigint", "timestamptz": "timestamp with time zone"}
        engine.insert_rows("arriving_rows", {c.name: types[c.type] for c in REGISTRY[table]}, rows)
        files: tuple[DataFile, ...] = engine.write(table, "select * from arriving_rows", place)
    if catalog.append(table, files, {"stedi.release": once}, once="stedi.release") is None:
        durable.remove_tree(place)  # the interrupted command had come this far


def _entry(root: Path, row: tuple[Any, ...], events: Iterable[Event]) -> Entry:
    name, version, path, purpose, recipient, people, rows, manifest, digest, at = row
    listed = list(events)
    told = (MODEL, REWRITTEN, LABELS, KNOWN)
    texts = {what: [event.text or "" for event in listed if event.what == what] for what in told}
    # an erasure has written it again since: the newest manifest counts, the digest is still that of the first
    raw = texts[REWRITTEN][-1] if texts[REWRITTEN] else manifest
    now = json.loads(raw) if texts[REWRITTEN] else {"subjects": people, "rows": rows}
    place = s3.at(path) if s3.is_remote(path) or Path(path).is_absolute() else root / path
    return Entry(
        name,
        version,
        place,
        purpose,
        recipient,
        now["subjects"],
        now["rows"],
        raw.encode(),
        digest,
        _at(at),
        # a model that was noted twice is one
        tuple(dict.fromkeys(texts[MODEL])),
        tuple(event.at for event in listed if event.what == RECALL),
        {str(event.subject): event.at for event in listed if event.what == ERASED},
        {str(event.subject): event.text or "" for event in listed if event.what == ERASED},
        any(event.what == DELETED for event in listed),
        texts[LABELS][-1] if texts[LABELS] else "",
        texts[KNOWN][-1] if texts[KNOWN] else "",
    )


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()


def _at(milliseconds_: int) -> datetime:
    return datetime.fromtimestamp(milliseconds_ / 1000, UTC)
