"""Erasure in training sets: releases in the lake lose the erased customers, those handed out are named.

The registry keeps only the ids of erased customers in each release, so that recalls name them; a release's folder is
rewritten without them (`datasets.drop`) and signed again. Each step can be repeated: the members of a release are noted
before its folder changes, and the registry's rows about them are removed last, with those of the other tables.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from functools import partial

from stedi.context import Context
from stedi.context.progress import instant
from stedi.datasets import contents, describe, drop, registry, seal, staleness, subjects
from stedi.datasets.registry import ERASED, REWRITTEN, Entry, Event
from stedi.datasets.seal import MANIFEST
from stedi.privacy.pseudonyms import Key


def remove_people(context: Context, key: Key, run: str, people: Collection[str], started: int) -> dict[str, list[str]]:
    """Removes erased customers from the releases of a lake; the caller holds the locks of all commands that write.

    Args:
        context: The lake.
        key: The lake's key.
        run: The erasure.
        people: The customers' marks.
        started: When it began, epoch milliseconds.

    Returns:
        The releases with one of them: those `rewritten`, and those `out_of_reach`, which are outside the lake.
    """
    found: dict[str, list[str]] = {"rewritten": [], "out_of_reach": []}
    if not registry.exists(context):
        return found
    registry.remove_abandoned(context.root)
    at = datetime.fromtimestamp(started / 1000, UTC)
    holding = staleness.holding(context, key, dict.fromkeys(people, started))
    for entry in registry.releases(context):
        done = at in entry.erased.values()  # by this erasure, before it was cut off
        if entry.release not in holding and not done:
            continue
        identifier = subjects.identifier(key, entry.lake, entry.release)
        theirs = {identifier(mark) for mark in people}
        known = theirs & holding.get(entry.release, {}).keys()
        if entry.path.is_relative_to(context.root):
            drop.restore(entry.path)
        # a folder elsewhere was handed out: it is its holder's to rewrite, by a recall
        inside = entry.path.is_relative_to(context.root) and (entry.path / MANIFEST).is_file()
        held = _held(entry, known) if inside else {}
        news = sorted(known - entry.erased.keys())
        events = [Event(entry.release, ERASED, who, held.get(who), at) for who in news]
        # before the folder changes: afterwards nobody could tell which files held them
        registry.append(context, events, f"{run} {entry.release} {ERASED}")
        if inside:
            about = {"lake": entry.lake, "at": entry.manifest["created"], "release": entry.release}
            sign = partial(seal.sign, key=key, predicate=about)
            drop.drop(entry.path, dict.fromkeys(theirs, instant(at)), sign, describe.describe)
            raw = (entry.path / MANIFEST).read_bytes()
            # equal if there was nothing to drop, or an earlier attempt has recorded it
            if raw != entry.raw:
                again = Event(entry.release, REWRITTEN, None, raw.decode(), datetime.now(UTC))
                registry.append(context, [again], f"{run} {entry.release} {REWRITTEN}")
        if news or done:
            found["rewritten" if inside else "out_of_reach"].append(entry.release)
    return found


def recalls(context: Context, names: Collection[str]) -> list[dict[str, str]]:
    """Returns the recipients of some releases, and the command that tells them which subjects to drop."""
    return [
        {
            "release": entry.release,
            "for": entry.manifest["for"] or "",
            "recall": f"stedi dataset recall {entry.release}",
        }
        for entry in (registry.releases(context) if names else ())
        if entry.release in names
    ]


def _held(entry: Entry, known: Collection[str]) -> dict[str, str]:
    """Returns the data files that hold some subjects, by subject, one a line."""
    found: dict[str, list[str]] = {}
    for file in contents.open_manifest(entry.path / MANIFEST).files:
        if contents.is_data(file.path):
            for subject in contents.counts(entry.path / file.path).keys() & set(known):
                found.setdefault(subject, []).append(file.path)
    return {subject: "\n".join(paths) for subject, paths in found.items()}
