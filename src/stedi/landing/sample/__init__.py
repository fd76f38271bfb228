"""Synthetic landing data with a known answer.

A seed decides people, their stories and their readings. The files of the three feeds are streamed to disk. The answer,
the counts that the lake must produce from them, is added up while each person is generated; nothing is joined
afterwards. Bulk files are clean and newline-delimited, as the feeds deliver them; `dirty` adds every other file format
and fault; `walkers` adds people whose readings can train a step detector, with a file of labels.
"""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import BinaryIO, Literal, cast

from stedi._frozen import asdict, dataclass
from stedi.errors import UsageError
from stedi.landing.sample import dirt
from stedi.landing.sample.crowd import TABLES, Crowd
from stedi.landing.sample.readings import Feed

__all__ = ["LABELS", "Answer", "write"]

LABELS = "_labels.csv"
"""The file, next to the answer, that lists what each walker did and when; landing skips it."""
FILE_BYTES = 64_000_000
"""The most bytes of text in a bulk file."""

_STEMS = {"customer": "customers", "accelerometer": "accelerometer", "step_trainer": "step_trainer"}
"""The beginning of the names of each feed's files; the folder has the feed's name."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The counts that the lake must produce from the sample.

    Attributes:
        seen: Records by feed.
        accepted: Good records by feed.
        quarantined: Refused records by feed and reason.
        customers_trusted: Rows of the table if all readings of a consenting customer count.
        accelerometer_trusted: Likewise.
        customers_curated: Likewise.
        step_trainer_trusted: Likewise.
        machine_learning_curated: Likewise.
        since_consent: Rows of the same five tables if only readings from the consent on count.
        withheld: Distinct step trainer readings that belong to none, or to more than one, of a device's claimants.
        agreed: Customers whose current record consents to research.
        never_agreed: Customers without any record that consents.
        withdrew: The other customers.
        files: Files written, without `_answer.json` and `_labels.csv`.
        bytes: Their size on disk.
    """

    seen: Mapping[str, int]
    accepted: Mapping[str, int]
    quarantined: Mapping[str, Mapping[str, int]]
    customers_trusted: int
    accelerometer_trusted: int
    customers_curated: int
    step_trainer_trusted: int
    machine_learning_curated: int
    since_consent: Mapping[str, int]
    withheld: int
    agreed: int
    never_agreed: int
    withdrew: int
    files: int
    bytes: int

    def rows(self, readings: Literal["all", "since-consent"] = "all") -> dict[str, int]:
        """Returns the number of rows of each of the five tables under a policy for readings."""
        if readings == "since-consent":
            return dict(self.since_consent)
        return {table: getattr(self, table) for table in TABLES}


def write(
    path: str | Path,
    *,
    customers: int = 200,
    readings: int = 20_000,
    seed: int = 7,
    walkers: int = 0,
    dirty: bool = True,
    compress: bool = False,
    progress: Callable[[str, float | None], None] | None = None,
) -> Answer:
    """Writes sample landing data, and `_answer.json` next to it.

    The same arguments produce the same text on any machine and version of Python. `dirty` and `walkers` do not change
    the other bulk files.

    Args:
        path: The folder to fill; it must be empty or new. It gets `customer/`, `accelerometer/` and
            `step_trainer/`; with `dirty` also `more/` and one file outside of these folders.
        customers: People in the bulk files, at least 1.
        readings: The total of accelerometer and step trainer records in the bulk files, about 3 to 1.
        seed: Decides everything else.
        walkers: Additional people who walk, stand, sit, squat and handle the phone for two minutes each: 50
            accelerometer and 20 step trainer readings per second. `_labels.csv` has every activity's start and
            end, and every step's time.
        dirty: Whether to add small files in every other format, with faulty records and odd consents.
        compress: Whether bulk files are compressed with gzip.
        progress: Called with the step and the share of the bulk readings that is made, at each hundredth.

    Returns:
        The counts that the lake must produce from the data.

    Raises:
        UsageError: A number is out of range, or the folder is not empty.
    """
    if customers < 1 or readings < 0 or walkers < 0:
        numbers = f"{customers}, {readings} and {walkers}"
        raise UsageError(f"sample: expected customers >= 1, readings >= 0 and walkers >= 0, found {numbers}")
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"sample: {folder}: expected an empty or new folder; remove it or name another")
    files = {feed: _Files(folder / feed, stem, compress) for feed, stem in _STEMS.items()}
    feeds = {feed: Feed(file.write) for feed, file in files.items()}
    crowd = Crowd(feeds, seed, Random(seed))
    crowd.add(customers, readings, progress)
    for file in files.values():
        file.close()
    accepted = {feed: lines.seen for feed, lines in feeds.items()}
    quarantined: dict[str, dict[str, int]] = {feed: {} for feed in feeds}
    if dirty:
        soiled = dirt.soil(folder, crowd)
        accepted = {feed: count + soiled.accepted[feed] for feed, count in accepted.items()}
        quarantined = {feed: dict(sorted(soiled.rejected[feed].items())) for feed in feeds}
    if walkers:
        counts = _walk(folder, crowd, walkers, compress)
        accepted = {feed: count + counts[feed] for feed, count in accepted.items()}
    # before the answer is there, which is no delivery
    delivered = [file for file in folder.rglob("*") if file.is_file() and file.name != LABELS]
    answer = Answer(
        seen={feed: count + sum(quarantined[feed].values()) for feed, count in accepted.items()},
        accepted=accepted,
        quarantined=quarantined,
        **crowd.all,
        since_consent=crowd.since_consent,
        withheld=crowd.withheld,
        agreed=crowd.agreed,
        never_agreed=crowd.never_agreed,
        withdrew=crowd.withdrew,
        files=len(delivered),
        bytes=sum(file.stat().st_size for file in delivered),
    )
    (folder / "_answer.json").write_text(json.dumps(asdict(answer), indent=2) + "\n", encoding="utf-8")
    return answer


def _walk(folder: Path, crowd: Crowd, count: int, compress: bool) -> dict[str, int]:
    """Adds people who walk, in separate bulk files, and the file of labels; returns the number of records by feed."""
    files = {feed: _Files(folder / feed, f"{stem}-walkers", compress) for feed, stem in _STEMS.items()}
    crowd.feeds = {feed: Feed(file.write) for feed, file in files.items()}
    with (folder / LABELS).open("w", encoding="utf-8", newline="") as labels:
        rows = csv.writer(labels, lineterminator="\n")
        rows.writerow(("email", "start", "end", "instant", "label"))
        for address, what in crowd.add_walkers(count):
            span = (what.start, what.end, None) if what.end is not None else (None, None, what.start)
            rows.writerow((address, *span, what.label))
    for file in files.values():
        file.close()
    return {feed: lines.seen for feed, lines in crowd.feeds.items()}


class _Files:
    """Writes a feed's bulk files one after another, each up to `FILE_BYTES`; there is at least one file."""

    def __init__(self, folder: Path, stem: str, compress: bool) -> None:
        self._folder, self._stem, self._compress = folder, stem, compress
        self._number = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._file = self._next()

    def write(self, text: bytes) -> None:
        """Appends whole lines."""
        if self._written and self._written + len(text) > FILE_BYTES:
            self._file.close()
            self._file = self._next()
        self._file.write(text)
        self._written += len(text)

    def close(self) -> None:
        """Closes the last file."""
        self._file.close()

    def _next(self) -> BinaryIO:
        self._number += 1
        self._written = 0
        path = self._folder / f"{self._stem}-{self._number:04d}.json"
        if self._compress:
            # level 1 is quick; a time in the header would make equal samples differ
            return cast(BinaryIO, gzip.GzipFile(path.with_name(f"{path.name}.gz"), "wb", 1, mtime=0))
        return path.open("wb")
