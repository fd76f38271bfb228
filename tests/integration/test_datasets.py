"""Training sets: what `dataset create` writes, of whom, and what it says of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lakes import Slate
from stedi import Lake
from stedi.schema.roles import Readings


@pytest.mark.parametrize(("readings", "moments", "people"), [("all", 14_460, 482), ("since-consent", 11_297, 464)])
def test_the_public_data_give_their_moments_of_those_who_consent(
    slate: Slate, public_data: Path, readings: Readings, moments: int, people: int
) -> None:
    lake = slate.wiped(readings)
    lake.land(public_data)
    release = lake.create_dataset("steps")
    assert (release.rows, release.subjects) == (moments, people)
    assert sum(split.rows for split in release.splits.values()) == moments
    assert sum(rows for _, rows in release.account[:-1]) == release.account[-1][1] == moments


def test_versions_count_up_and_a_folder_is_never_written_into(lake: Lake, sample_inbox: Path) -> None:
    lake.land(sample_inbox)
    assert [lake.create_dataset("steps").release for _ in range(2)] == ["steps@1", "steps@2"]
