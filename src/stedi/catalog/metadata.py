"""A commit's changes to a table's metadata: Iceberg's updates and requirements, applied to its JSON.

Both are plain values in the form of Iceberg's REST protocol, so other catalogs accept them, too. It follows the Iceberg
table specification, version 2 (section "Table Metadata"). Unknown properties of other programs in metadata are kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Updates = Sequence[Mapping[str, Any]]
"""Changes, in order: `action` is the operation, the other keys are its arguments."""
Requirements = Sequence[Mapping[str, Any]]
"""Their requirements: `type` is the kind, the other keys are its arguments."""


class Outrun(Exception):
    """Another program has changed a table since it was loaded."""


_VERSIONS = "write.metadata.previous-versions-max"
_OF_A_REF = ("type", "snapshot-id", "min-snapshots-to-keep", "max-snapshot-age-ms", "max-ref-age-ms")


def adding(snapshot: Mapping[str, Any]) -> Mapping[str, Any]:
    """Adds a snapshot without a tag or branch."""
    return {"action": "add-snapshot", "snapshot": snapshot}


def naming(base: Mapping[str, Any], name: str, snapshot: int, kind: str = "branch") -> Mapping[str, Any]:
    """Points a tag or branch to a snapshot; an existing one keeps its kind and ages.

    Args:
        base: The metadata.
        name: Its name.
        snapshot: The snapshot's id.
        kind: The kind of a new one: `branch` or `tag`.
    """
    known = base.get("refs", {}).get(name, {"type": kind})
    return {"action": "set-snapshot-ref", "ref-name": name, **known, "snapshot-id": snapshot}


def unnaming(name: str) -> Mapping[str, Any]:
    """Drops a tag or branch, if it is there."""
    return {"action": "remove-snapshot-ref", "ref-name": name}


def dropping(snapshots: Iterable[int]) -> Mapping[str, Any]:
    """Drops snapshots that are there, and the tags and branches that name them."""
    return {"action": "remove-snapshots", "snapshot-ids": list(snapshots)}


def describing(base: Mapping[str, Any], comments: Mapping[str, str]) -> Updates:
    """Adds descriptions of columns to the current schema; no update if they are there already.

    Args:
        base: The metadata.
        comments: The descriptions, by column.
    """
    current = current_schema(base)
    fields = [
        {**field, "doc": comments[field["name"]]} if field["name"] in comments else field for field in current["fields"]
    ]
    if fields == current["fields"]:
        return ()
    number = 1 + max(schema["schema-id"] for schema in base["schemas"])
    return (
        {"action": "add-schema", "schema": {**current, "schema-id": number, "fields": fields}},
        {"action": "set-current-schema", "schema-id": number},
    )


def current_schema(base: Mapping[str, Any]) -> Mapping[str, Any]:
    """Returns the schema that metadata call the current one."""
    found: Mapping[str, Any] = next(s for s in base["schemas"] if s["schema-id"] == base["current-schema-id"])
    return found


def expecting(base: Mapping[str, Any], heads: Mapping[str, int | None]) -> Requirements:
    """Returns the requirements that the table is this one, and that tags and branches name these snapshots, or none."""
    of_refs = [{"type": "assert-ref-snapshot-id", "ref": name, "snapshot-id": head} for name, head in heads.items()]
    return [{"type": "assert-table-uuid", "uuid": base["table-uuid"]}, *of_refs]


def after(base: Mapping[str, Any]) -> int:
    """Returns the earliest time, epoch milliseconds, after all times in some metadata.

    Iceberg's readers refuse metadata whose times run backwards by more than a minute, and time travel would be
    ambiguous. So a commit is always later than the previous one, even if the clock is not.
    """
    logged = (int(entry["timestamp-ms"]) for entry in base.get("snapshot-log", ()))
    return 1 + max(int(base["last-updated-ms"]), *logged, 0)


def changed(base: Mapping[str, Any], updates: Updates, *, location: str, at: int) -> dict[str, Any]:
    """Returns metadata with updates applied; the same object if nothing changes.

    Args:
        base: The metadata, which are not modified.
        updates: The updates, in order.
        location: The metadata file of `base`.
        at: The time of the commit, epoch milliseconds, not before `after(base)`.
    """
    made = dict(base)
    for update in updates:
        _ACTIONS[update["action"]](made, update, at)
    # a commit that changes nothing makes no new metadata file
    if made == base:
        return made
    # 100 is Iceberg's default; at least one, since a slice of `-0` would keep all
    most = max(1, int(base.get("properties", {}).get(_VERSIONS, 100)))
    earlier = [*base.get("metadata-log", ()), {"metadata-file": location, "timestamp-ms": base["last-updated-ms"]}]
    return {**made, "last-updated-ms": at, "metadata-log": earlier[-most:]}


def _add(made: dict[str, Any], update: Mapping[str, Any], at: int) -> None:
    snapshot = update["snapshot"]
    made["snapshots"] = [*made.get("snapshots", ()), snapshot]
    made["last-sequence-number"] = snapshot["sequence-number"]


def _name(made: dict[str, Any], update: Mapping[str, Any], at: int) -> None:
    name, refs = update["ref-name"], made.get("refs", {})
    ref = {key: update[key] for key in _OF_A_REF if update.get(key) is not None}
    # so that repeating a commit makes no new metadata file
    if refs.get(name) == ref:
        return
    made["refs"] = {**refs, name: ref}
    if name == "main":
        made["current-snapshot-id"] = ref["snapshot-id"]
        entry = {"snapshot-id": ref["snapshot-id"], "timestamp-ms": at}
        made["snapshot-log"] = [*made.get("snapshot-log", ()), entry]


def _unname(made: dict[str, Any], update: Mapping[str, Any], at: int) -> None:
    name, refs = update["ref-name"], made.get("refs", {})
    if name in refs:
        made["refs"] = {other: ref for other, ref in refs.items() if other != name}
        if name == "main":
            made.pop("current-snapshot-id", None)


def _drop(made: dict[str, Any], update: Mapping[str, Any], at: int) -> None:
    gone = set(update["snapshot-ids"])
    for name, ref in made.get("refs", {}).items():
        if ref["snapshot-id"] in gone:
            _unname(made, unnaming(name), at)
    for log in ("snapshots", "snapshot-log", "statistics", "partition-statistics"):
        if log in made:
            made[log] = [entry for entry in made[log] if entry["snapshot-id"] not in gone]
    made["snapshots"] = [
        # no snapshot names a parent that is gone; time travel sees from it that history has a gap
        {key: value for key, value in snapshot.items() if key != "parent-snapshot-id" or value not in gone}
        for snapshot in made.get("snapshots", ())
    ]


def _add_schema(made: dict[str, Any], update: Mapping[str, Any], at: int) -> None:
    made["schemas"] = [*made["schemas"], update["schema"]]


def _set_schema(made: dict[str, Any], update: Mapping[str, Any], at: int) -> None:
    made["current-schema-id"] = update["schema-id"]


_ACTIONS = {
    "add-schema": _add_schema,
    "set-current-schema": _set_schema,
    "add-snapshot": _add,
    "set-snapshot-ref": _name,
    "remove-snapshot-ref": _unname,
    "remove-snapshots": _drop,
}
