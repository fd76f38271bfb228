"""Writes recalls, and applies them to copies of a release.

`write` needs the lake. `apply` needs neither lake nor key: what proves the recall travels with the copy.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from stedi._frozen import dataclass, replace
from stedi.context import Context
from stedi.context.progress import instant
from stedi.datasets import chain, contents, describe, quality, recalls, registry, staleness
from stedi.datasets import drop as dropping
from stedi.datasets.recalls import Recall, RecallRefused
from stedi.datasets.registry import RECALL, Entry, Event
from stedi.datasets.seal import MANIFEST
from stedi.datasets.verify import verify
from stedi.errors import UsageError, many
from stedi.privacy.pseudonyms import Key


@dataclass(frozen=True, slots=True)
class Applied:
    """The result of applying a recall to a copy.

    Attributes:
        path: The copy.
        release: `NAME@VERSION`.
        dropped: Subjects that were dropped; empty if the recall had been applied before.
        subjects: People in it now.
        rows: Rows in it now.
        manifest_sha256: Of its manifest now, hex.
    """

    path: Path
    release: str
    dropped: tuple[str, ...]
    subjects: int
    rows: int
    manifest_sha256: str


def write(context: Context, key: Key, entry: Entry, now: int) -> Recall:
    """Returns the current recall of a release, with everybody who may no longer be used, and records it.

    The caller holds the lock of builds.

    Args:
        context: The lake.
        key: The lake's key.
        entry: The release.
        now: The instant, epoch milliseconds.
    """
    # a deleted release can be recalled, too: copies of it may be anywhere
    found = staleness.stale(context, key, now, [replace(entry, deleted=False)]).get(entry.release, {})
    drop = {subject: instant(since) for subject, since in found.items()}
    files, left = _held(entry, frozenset(drop), registry.subjects(context, entry.release))
    at = datetime.fromtimestamp(now / 1000, UTC)
    recall = Recall(entry.release, entry.manifest_sha256, drop, files, left, entry.lake, instant(at))
    registry.append(context, [Event(entry.release, RECALL, None, str(len(drop)), at)])
    return replace(recall, raw=recalls.signed(key, recall))


def apply(folder: Path, file: Path) -> Applied:
    """Drops the people of a recall from a copy of a release, atomically.

    Args:
        folder: The copy.
        file: The recall.

    Raises:
        UsageError: There is no such folder or file.
        RecallRefused: The recall is none, is not of this release or not signed by its lake, or the copy is not what
            was signed; nothing was changed.
    """
    try:
        raw = contents.content(file)
    except OSError:
        raise UsageError(f"{file}: expected a recall file, found none that can be read") from None
    dropping.restore(folder)
    # before anything is dropped: a chain must not start from a copy that somebody has changed
    found = verify(folder)
    # the folder itself from here on: as the current folder, `.` would go on being the old one, which is removed
    named, folder = folder, Path(os.path.realpath(folder))
    dropping.remove_abandoned(folder)
    if found.problems:
        first = found.problems[0]
        raise RecallRefused(
            f"{named}: expected the release as it was signed, found {many(len(found.problems), 'problem')}, "
            f"first {first.file}: {first.what}; nothing was changed: see `stedi dataset verify`"
        )
    manifest = contents.open_manifest(folder / MANIFEST)
    recall = recalls.read(raw, manifest.plain["public_key"])
    recalls.refuse_other(recall, manifest)
    went = dropping.drop(folder, recall.drop, partial(chain.keep, folder, recall=recall), describe.describe)
    now = contents.open_manifest(folder / MANIFEST)
    return Applied(named, now.release, went, now.plain["subjects"], now.plain["rows"], now.sha256)


def _held(
    entry: Entry, gone: frozenset[str], known: Mapping[str, tuple[str, int]]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Returns the data files with some subjects, each with the digest of the remaining rows.

    If the lake can no longer read the release, these are all files of their splits, without digests.
    """
    files: set[str] = set()
    # an erasure has taken them out of the files here: it noted which ones they were in, as copies still have them
    for subject in gone & entry.erased.keys():
        files.update(path for path in entry.held.get(subject, "").split("\n") if path)
    try:
        manifest = contents.open_manifest(entry.path / MANIFEST)
        readable = manifest.origin == entry.manifest_sha256
        here = [file.path for file in manifest.files if contents.is_data(file.path)] if readable else []
        files |= {path for path in here if not gone.isdisjoint(contents.counts(entry.path / path))}
        left = {}
        if here:
            left = {path: contents.digest(contents.without(entry.path / path, gone)) for path in sorted(files)}
            told = quality.read(entry.path / quality.NAME)
            left[quality.NAME] = quality.digest([person for person in told if person["subject"] not in gone])
    except Exception:  # what lies there now is no release of the lake's: PyArrow raises what it likes
        readable, left = False, {}
    # too many files are better than too few: a holder looks into each that is listed
    if not readable:
        splits = {known[subject][0] for subject in gone if subject in known}
        listed = (str(file["path"]) for file in entry.manifest["files"])
        files |= {path for path in listed if contents.is_data(path) and contents.split_of(path) in splits}
    return tuple(sorted(files)), left
