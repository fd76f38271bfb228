"""What a commit makes of a table's metadata, beyond what `test_commits_of_iceberg` compares with PyIceberg."""

from __future__ import annotations

from typing import Any

import pytest

from stedi.catalog import metadata

AGES = {"min-snapshots-to-keep": 3, "max-snapshot-age-ms": 7, "max-ref-age-ms": 9}


def table(**more: Any) -> dict[str, Any]:
    return {
        "format-version": 2,
        "table-uuid": "u",
        "last-updated-ms": 50,
        "last-sequence-number": 1,
        "current-snapshot-id": 1,
        "refs": {"main": {"snapshot-id": 1, "type": "branch", **AGES}, "theirs": {"snapshot-id": 1, "type": "tag"}},
        "snapshots": [{"snapshot-id": 1, "sequence-number": 1}],
        "snapshot-log": [{"snapshot-id": 1, "timestamp-ms": 90}],
        **more,
    }


def appended(base: dict[str, Any]) -> dict[str, Any]:
    snapshot = {"snapshot-id": 2, "parent-snapshot-id": 1, "sequence-number": 2}
    updates = [metadata.adding(snapshot), metadata.naming(base, "main", 2)]
    return metadata.changed(base, updates, location="first", at=metadata.after(base))


def test_what_other_programs_wrote_and_the_ages_of_a_branch_stay() -> None:
    theirs = {"next-row-id": 4, "encryption-keys": [{"key-id": "k"}], "properties": {"owner": "them"}}
    made = appended(table(**theirs))
    assert {name: made[name] for name in theirs} == theirs
    assert made["refs"]["main"] == {"snapshot-id": 2, "type": "branch", **AGES}
    assert made["refs"]["theirs"] == {"snapshot-id": 1, "type": "tag"}


def test_no_time_is_before_those_that_are_there_whatever_the_clock_says() -> None:
    made = appended(table())
    assert made["last-updated-ms"] == made["snapshot-log"][-1]["timestamp-ms"] == 91


def test_updates_that_change_nothing_are_no_commit() -> None:
    base = table()
    updates = [metadata.naming(base, "main", 1), metadata.unnaming("nobody"), metadata.dropping([])]
    assert metadata.changed(base, updates, location="first", at=metadata.after(base)) == base


@pytest.mark.parametrize(("most", "kept"), [("2", ["b", "c"]), ("0", ["c"]), (None, ["a", "b", "c"])])
def test_as_many_earlier_metadata_are_named_as_the_table_asks_for(most: str | None, kept: list[str]) -> None:
    base = table(properties={} if most is None else {"write.metadata.previous-versions-max": most})
    for location in "abc":
        base = metadata.changed(base, [metadata.naming(base, location, 1)], location=location, at=metadata.after(base))
    assert [entry["metadata-file"] for entry in base["metadata-log"]] == kept


def test_a_snapshot_goes_with_what_names_it_and_those_made_from_it_stay() -> None:
    base = appended(table(statistics=[{"snapshot-id": 1}]))
    made = metadata.changed(base, [metadata.dropping([1])], location="second", at=metadata.after(base))
    assert made["snapshots"] == [{"snapshot-id": 2, "sequence-number": 2}]
    assert set(made["refs"]) == {"main"}
    assert [entry["snapshot-id"] for entry in made["snapshot-log"]] == [2]
    assert made["statistics"] == []
    assert base["snapshots"][0]["snapshot-id"] == 1, "what was given stays as it was"
