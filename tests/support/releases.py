"""Releases made without a lake, for tests that need neither a lake nor its key."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from stedi.datasets import contents, describe, quality, recalls, seal
from stedi.datasets.options import Options
from stedi.datasets.recalls import Recall
from stedi.privacy import signatures
from stedi.privacy.pseudonyms import Key

KEY, OTHER = Key(bytes(range(32))), Key(bytes(range(1, 33)))
LAKE, CREATED = "0123456789abcdef", "2026-11-28T00:00:00.000Z"
SPLITS = ("train", "validation", "test")
PEOPLE: dict[str, tuple[str, int]] = {
    **{f"{number:016x}": ("train", 3) for number in range(6)},
    **{f"{number:016x}": ("validation", 2) for number in range(6, 8)},
    **{f"{number:016x}": ("test", 4) for number in range(8, 10)},
}
"""The split and the number of rows of each subject."""
COLUMNS = [("subject", "string"), ("moment", "int64"), ("distance", "int64"), ("x", "double")]


def made(folder: Path, people: Mapping[str, tuple[str, int]] = PEOPLE, *, files: int = 2, **manifest: Any) -> Path:
    """Returns a folder with a release of these people, `train` in several files, signed by `KEY`."""
    (folder / "data").mkdir(parents=True)
    for split in SPLITS:
        theirs = [subject for subject, (where, _) in sorted(people.items()) if where == split]
        parts = [theirs[at::files] for at in range(files)] if split == "train" else [theirs]
        for number, part in enumerate(parts):
            rows = [(subject, at, 200 + at, at / 8) for subject in part for at in range(people[subject][1])]
            write(folder / f"data/{split}-{number:05d}-of-{len(parts):05d}.parquet", rows)
    subjects(folder, [(subject, *found) for subject, found in sorted(people.items())])
    total = sum(rows for _, rows in people.values())
    counts = {s: [rows for where, rows in people.values() if where == s] for s in SPLITS}
    plain = {
        "format": 1,
        "name": "steps",
        "version": 1,
        "release": "steps@1",
        "lake": LAKE,
        "public_key": signatures.public_key(KEY),
        "created": CREATED,
        "purpose": "research",
        "for": "",
        "options": Options().to_json(),
        "consent_as_of": CREATED,
        "policy": {"readings": "all", "purpose": "research"},
        "software": {"name": "stedi", "version": "0.1.0"},
        "inputs": [{"table": "step_trainer_trusted", "snapshot": 1, "sql": "0" * 16}],
        "subjects": len(people),
        "rows": total,
        "splits": {s: {"subjects": len(rows), "rows": sum(rows)} for s, rows in counts.items()},
        "account": [
            {"what": "readings of step_trainer_trusted", "rows": total + 5},
            {"what": "no accelerometer reading at the same moment", "rows": -5},
            {"what": "moments in the release", "rows": total},
        ],
        "columns": [{"name": name, "type": kind, "unit": "", "description": ""} for name, kind in COLUMNS],
        "files": [],
        "parent": None,
        **manifest,
    }
    (folder / "manifest.json").write_text(json.dumps(plain))
    told = [_told(subject, split, count) for subject, (split, count) in sorted(people.items())]
    describe.write(folder, plain, quality.of_people(told, Options()))
    resealed(folder)
    return folder


def _told(subject: str, split: str, ticks: int) -> dict[str, Any]:
    """Returns the entry of `quality.json` for a person measured ten times a second."""
    return {
        "subject": subject,
        "split": split,
        "NumTicks": ticks,
        "SampleRate": 10.0,
        "interval_ms": {"p05": 100, "median": 100, "p95": 100},
        "NumInterrupts": 0,
        "longest_gap_s": 0.1,
        "missed_share": 0.0,
        "WearTime(days)": ticks / 864_000,
        "span_s": ticks / 10,
        "readings": ticks,
        "matched_share": 1.0,
        "vectors_per_moment": 1.0,
        "dt_ms_histogram": {"0": ticks},
        "constant_channels": [],
    }


def write(path: Path, rows: list[tuple[Any, ...]], columns: list[tuple[str, str]] = COLUMNS) -> None:
    """Writes a data file."""
    kinds = {"string": pa.string(), "int64": pa.int64(), "double": pa.float64(), "float": pa.float32()}
    fields = [(name, kinds[kind]) for name, kind in columns]
    listed = [dict(zip([name for name, _ in columns], row, strict=True)) for row in rows]
    pq.write_table(pa.Table.from_pylist(listed, pa.schema(fields)), path, store_schema=False)


def rows(path: Path) -> list[tuple[Any, ...]]:
    """Returns the rows of a Parquet file."""
    return [tuple(row.values()) for row in pq.read_table(path, partitioning=None).to_pylist()]


def subjects(folder: Path, people: list[tuple[Any, ...]]) -> None:
    """Writes `subjects.parquet`."""
    write(folder / "subjects.parquet", people, [("subject", "string"), ("split", "string"), ("rows", "int64")])


def resealed(folder: Path, change: Callable[[dict[str, Any]], object] = lambda plain: None, key: Key = KEY) -> None:
    """Lists the current files in the manifest, changes it, and signs it with the lake's key: a validly signed lie."""
    plain = json.loads((folder / "manifest.json").read_bytes())
    names = [*sorted(f"data/{path.name}" for path in (folder / "data").glob("*.parquet")), contents.SUBJECTS]
    plain["files"] = [
        {
            "path": name,
            "size": (folder / name).stat().st_size,
            "rows": pq.read_metadata(folder / name).num_rows,
            "sha256": seal.digest(folder / name),
        }
        for name in names
        if (folder / name).is_file()
    ]
    change(plain)
    (folder / "manifest.json").write_text(json.dumps(plain))
    seal.sign(folder, key, {"lake": plain["lake"], "at": plain["created"], "release": plain["release"]})


def recall(folder: Path, drop: Mapping[str, str], key: Key = KEY, **more: Any) -> bytes:
    """Returns a recall of a release as its lake would write it, with some changes."""
    manifest = contents.open_manifest(folder / "manifest.json")
    gone = frozenset(drop)
    data = [file.path for file in manifest.files if contents.is_data(file.path)]
    files = [path for path in data if not gone.isdisjoint(contents.counts(folder / path))]
    left = {path: contents.digest(contents.without(folder / path, gone)) for path in files}
    told = quality.read(folder / quality.NAME)
    left[quality.NAME] = quality.digest([person for person in told if person["subject"] not in gone])
    said: dict[str, Any] = {
        "release": manifest.release,
        "manifest_sha256": manifest.origin,
        "drop": dict(drop),
        "files": tuple(files),
        "contents": left,
        "lake": LAKE,
        "at": CREATED,
    }
    return recalls.signed(key, Recall(**{**said, **more}))


def changed(path: Path, column: str, rng: random.Random) -> None:
    """Changes one value in a column of a data file, inside its lists if any; swaps two values for subjects."""
    table = pq.read_table(path, partitioning=None)
    values = table[column].to_pylist()
    at = rng.choice([n for n, value in enumerate(values) if value not in (None, [])])
    place, last = values, at
    while isinstance(place[last], list):
        place, last = place[last], rng.randrange(len(place[last]))
    was = place[last]
    if isinstance(was, str):
        other = rng.choice([value for value in values if value not in (None, was)])
        if column == "subject":
            places = {was: other, other: was}
            values = [places.get(value, value) for value in values]
        else:
            values[at] = other
    else:
        place[last] = not was if isinstance(was, bool) else was + 1 if isinstance(was, int) else was + 1e-6
    field = table.schema.field(column)
    pq.write_table(table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type)), path)
