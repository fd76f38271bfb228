"""Changes that other programs may make to a table's metadata: tags, and branches of their own.

Neither changes what the lake publishes, so neither is damage.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi.catalog import checksums
from stedi.catalog.snapshots import local_path
from stedi.storage import s3

_OF_PINS = ("refs", "snapshots", "last-updated-ms", "last-sequence-number", "metadata-log")
"""What of a table's metadata a new tag or branch changes."""


def is_of_others(summary: Mapping[str, str]) -> bool:
    """Returns whether another program made a snapshot: the lake's own snapshots name their run."""
    return not any(name.startswith("stedi.") for name in summary)


def is_ours_but_for_pins(folder: Path, metadata: str) -> bool:
    """Returns whether another program's metadata equal the lake's last ones except for tags and branches.

    Args:
        folder: The table's folder.
        metadata: The path of its metadata file.

    Raises:
        OSError: S3 does not answer.
    """
    try:
        now = json.loads(checksums.read(s3.at(metadata)))
        named = [local_path(str(entry["metadata-file"])) for entry in now.get("metadata-log", ())]
        published = checksums.published(folder)
        # the last published file is the nearest of ours; those of the log can be other programs' own
        for earlier in [*([str(folder / published)] if published else ()), *reversed(named)]:
            expected = checksums.expected(folder, [earlier]).get(earlier)
            if expected is not None and checksums.digest(earlier)[0] == expected:
                return _is_same_but_for_pins(now, json.loads(checksums.read(s3.at(earlier))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        if s3.is_outage(error, metadata):
            raise
    return False


def _is_same_but_for_pins(now: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    """Returns whether two metadata files of a table differ only in tags and in other programs' branches and snapshots.

    Args:
        now: The later one, as JSON.
        before: The earlier one.
    """
    here, there = ({name: _plain(value) for name, value in side.items()} for side in (now, before))
    # any other difference, be it a property or a column, is a change of the table and no pin
    if any(here.get(name) != there.get(name) for name in here.keys() | there.keys() if name not in _OF_PINS):
        return False
    if _plain(now["refs"].get("main")) != _plain(before["refs"].get("main")):
        return False
    kept = {snapshot["snapshot-id"]: _plain(snapshot) for snapshot in before["snapshots"]}
    found = {snapshot["snapshot-id"]: _plain(snapshot) for snapshot in now["snapshots"]}
    return all(found.get(snapshot_id) == snapshot for snapshot_id, snapshot in kept.items()) and all(
        is_of_others(snapshot.get("summary", {})) for snapshot_id, snapshot in found.items() if snapshot_id not in kept
    )


def _plain(value: Any) -> Any:
    """Returns a JSON value without empty values, which some programs write and others omit."""
    if isinstance(value, dict):
        plain = {name: _plain(part) for name, part in value.items()}
        return {name: part for name, part in plain.items() if part not in (None, [], {})} or None
    if isinstance(value, list):
        return [_plain(part) for part in value] or None
    return value
