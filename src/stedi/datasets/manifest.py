"""A release and its manifest: its origin, its content, and the checksums of its files.

`Release` is what verbs return; `document` is `manifest.json`. It contains no current time and no path of a machine, so
that the same state of a lake and the same options give the same bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from stedi._frozen import dataclass
from stedi.datasets.options import SPLITS, Options
from stedi.privacy import addresses

FORMAT = 1
"""The version of the folder's layout and of the manifest."""
NAME = "manifest.json"


@dataclass(frozen=True, slots=True)
class Split:
    """One split of a release.

    Attributes:
        subjects: People in it.
        rows: Rows of its files.
    """

    subjects: int
    rows: int


@dataclass(frozen=True, slots=True)
class File:
    """A file of a release.

    Attributes:
        path: Its place in the release's folder, such as `data/train-00000-of-00001.parquet`.
        bytes: Its size.
        rows: Its rows.
        sha256: Of its bytes, hex.
    """

    path: str
    bytes: int
    rows: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a training set, as written.

    Attributes:
        name: The training set.
        version: Counts from 1.
        path: The folder; empty if it is no longer known.
        subjects: People in it.
        rows: Rows: moments, or windows.
        splits: By name.
        account: The account of the readings, `(what, rows)`: first the trusted readings, then those left out by reason
            (negative), last the moments of the release.
        stale: Ids of the subjects who may no longer be used.
        options: The options of its creation.
        models: Models that were trained on it.
        manifest_sha256: Of `manifest.json`, hex.
        public_key: The key that signed it, PEM.
    """

    name: str
    version: int
    path: str
    subjects: int
    rows: int
    splits: Mapping[str, Split]
    account: Sequence[tuple[str, int]]
    options: Options
    stale: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    manifest_sha256: str = ""
    public_key: str = ""

    @property
    def release(self) -> str:
        """`NAME@VERSION`."""
        return f"{self.name}@{self.version}"


@dataclass(frozen=True, slots=True)
class Input:
    """A table that a release was made from.

    Attributes:
        table: Its name.
        snapshot: The snapshot's id.
        sql: Fingerprint of the SQL that built it; None of a landing table.
    """

    table: str
    snapshot: int
    sql: str | None


@dataclass(frozen=True, slots=True)
class Origin:
    """The origin of a release.

    Attributes:
        lake_id: The lake.
        public_key: The key that signs it, PEM.
        created: When its newest input snapshot was published, ISO 8601, UTC.
        consent_as_of: The instant for which consent was evaluated, ISO 8601, UTC.
        readings: The policy of consent, `all` or `since-consent`.
        inputs: The tables.
        software: The version of this software.
    """

    lake_id: str
    public_key: str
    created: str
    consent_as_of: str
    readings: str
    inputs: tuple[Input, ...]
    software: str


def columns(options: Options, labels: Sequence[str] = ()) -> list[dict[str, str]]:
    """Returns name, type, unit and meaning of each column of `data`, in order.

    Types are Parquet's as Arrow names them; of a column that is a list, `list<...>`.

    Args:
        options: The release's.
        labels: The columns that its file of labels gives.
    """
    absolute = options.time == "absolute"
    instant = ("timestamp[us, UTC]", "UTC") if absolute else ("int64", "ms")
    since = "instant" if absolute else "time since the subject's first moment"
    number = "list<double>" if options.vectors == "list" else "double"
    several = "; several vectors of one moment, in order of their values" if options.vectors == "list" else ""
    measured = [
        (
            "distance",
            "int64" if options.resample is None else "double",
            "as delivered",
            "distance of the object in front of the step trainer",
        ),
        *((axis, number, "as delivered", f"accelerometer, {axis} axis{several}") for axis in "xyz"),
    ]
    lag = ("dt_ms", "int32", "ms", "step trainer's clock less the accelerometer's: how old the vector is")
    if options.window is None:
        found = [
            ("subject", "string", "", "who, by an id of this release alone"),
            ("moment", *instant, f"{since}, of the step trainer's reading"),
            *measured,
            ("vectors", "int32", "count", "accelerometer vectors of that moment"),
            lag,
        ]
    else:
        listed = [(name, f"list<{kind}>", unit, what) for name, kind, unit, what in (*measured, lag)]
        found = [
            ("subject", "string", "", "who, by an id of this release alone"),
            ("window", "int32", "", "number of the window, from 0 by subject"),
            ("start", *instant, f"{since}, of the window's begin"),
            ("t_ms", "list<int32>", "ms", "time of each sample since the window's begin"),
            *listed,
        ]
        if options.resample is not None:
            found.append(("made_up", "list<boolean>", "", "whether a sample was interpolated, not measured"))
        if options.pad:
            found.append(("mask", "list<boolean>", "", "whether a place holds a sample; false where it was filled up"))
    spoken = {
        "label": (
            "string",
            "",
            "what the person did, by the file of labels, in most of the window"
            if options.window
            else "what the person did at that moment, by the file of labels",
        ),
        "events": ("list<int32>", "ms", "time of each labelled instant since the window's begin")
        if options.window
        else ("int32", "count", "labelled instants to which this moment is the nearest"),
    }
    found += [(name, *spoken[name]) for name in labels]
    return [{"name": name, "type": kind, "unit": unit, "description": what} for name, kind, unit, what in found]


def document(
    release: Release,
    origin: Origin,
    files: Sequence[File],
    *,
    labels: Mapping[str, Any] | None = None,
    columns: Sequence[Mapping[str, str]],
    parent: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the content of `manifest.json`.

    Args:
        release: The release; its path, and what the lake learns of it later, do not stand there.
        origin: What it was made from.
        files: Its files with rows.
        labels: The file of labels: its SHA-256, and what became of its rows.
        columns: What `columns` gives.
        parent: The release that it comes from and what was dropped, if it comes from a recall.
    """
    return {
        "format": FORMAT,
        "name": release.name,
        "version": release.version,
        "release": release.release,
        "lake": origin.lake_id,
        "public_key": origin.public_key,
        "created": origin.created,
        "consent_as_of": origin.consent_as_of,
        "policy": {"readings": origin.readings, "purpose": release.options.purpose},
        "software": {"name": "stedi", "version": origin.software},
        "purpose": release.options.purpose,
        "for": release.options.recipient,
        # the path of labels is one machine's, and can name a person: copies of the release get only the file's name
        "options": {**release.options.to_json(), "labels": shown_name(release.options.labels)},
        "labels": None if labels is None else dict(labels),
        # programs that read numbers as doubles round an id
        "inputs": [
            {"table": i.table, "snapshot": i.snapshot, "snapshot_id": str(i.snapshot), "sql": i.sql}
            for i in origin.inputs
        ],
        "subjects": release.subjects,
        "rows": release.rows,
        "splits": splits_json(release.splits),
        "account": account_json(release.account),
        "columns": list(columns),
        "files": [{"path": f.path, "size": f.bytes, "rows": f.rows, "sha256": f.sha256} for f in files],
        "parent": None if parent is None else dict(parent),
    }


def shown_name(labels: str | PurePath) -> str:
    """Returns what may be shown of a label file's path: its name, unless it contains an address."""
    name = PurePath(labels).name
    return f"labels{PurePath(name).suffix}" if addresses.mentions(name) else name


def splits_json(splits: Mapping[str, Split]) -> dict[str, dict[str, int]]:
    """Returns the splits as plain values."""
    return {name: {"subjects": splits[name].subjects, "rows": splits[name].rows} for name in SPLITS}


def account_json(account: Iterable[tuple[str, int]]) -> list[dict[str, str | int]]:
    """Returns an account as plain values."""
    return [{"what": what, "rows": rows} for what, rows in account]


def text(content: Mapping[str, Any]) -> bytes:
    """Returns the text of a JSON document: indented, with a newline at its end."""
    return (json.dumps(content, ensure_ascii=False, indent=2) + "\n").encode()


def sha256(path: Path) -> str:
    """Returns a file's SHA-256, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
