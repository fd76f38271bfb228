"""Crawl: infers the schema of delivered files and compares it with their contract.

The lake's own reader reads the files record by record into one profile per field (`profile`). The profiles become a
report (`report`); for files without a contract, the report proposes one that fits (`proposal`). Nothing is landed or
changed, and no value of a record is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import BinaryIO

from stedi.context.progress import Progress, silent
from stedi.errors import UnreadableFile, UsageError
from stedi.landing.crawl.profile import Profiles, mask
from stedi.landing.crawl.proposal import propose
from stedi.landing.crawl.report import Drift, FeedReport, FieldReport, Report
from stedi.landing.deliveries.local import Delivered, Skipped, fingerprint, open_regular, walk
from stedi.landing.reader import Limits, Reject, decompressed, infer_feed, iter_values
from stedi.schema.contracts import Contract
from stedi.schema.feeds import CONTRACTS
from stedi.storage import s3

__all__ = ["Drift", "FeedReport", "FieldReport", "Report", "crawl", "mask"]


def crawl(
    paths: Sequence[str | Path],
    sample: int | None = None,
    progress: Progress = silent,
) -> Report:
    """Reads delivered files and reports what they contain.

    Files of one feed are reported together. The feed is determined as in landing: by name, or by fields if no record
    has the fields of the feed in the name. Files of an unknown feed are grouped by folder.

    Args:
        paths: Files, folders and globs, see `deliveries.local.walk`.
        sample: How many records to read from each file; by default all.
        progress: Called with the current step.

    Returns:
        The feeds with a contract in the order of the contracts, then the others by name, and the skipped files.

    Raises:
        UsageError: A path is in S3.
    """
    for path in filter(s3.is_remote, paths):
        raise UsageError(f"{path}: expected files on this machine, found a place in S3; copy some of them here")
    groups: dict[str, _Group] = {}
    skipped: list[Skipped] = []
    items = list(walk(paths))
    for number, item in enumerate(items, start=1):
        progress(f"read files, {number:,} of {len(items):,}", None)
        if isinstance(item, Skipped):
            skipped.append(item)
            continue
        try:
            _read(item, groups, sample)
        except UnreadableFile as error:
            skipped.append(Skipped(item.name, str(error).removeprefix(f"{item.name}: "), failed=True))
    known = [groups.pop(feed) for feed in CONTRACTS if feed in groups]
    unknown = [groups[name] for name in sorted(groups)]
    return Report(tuple(group.report() for group in known + unknown), tuple(skipped))


class _Group:
    """The files of one feed, or the files of unknown feed in one folder."""

    def __init__(self, name: str, contract: Contract | None) -> None:
        self.name = name
        self.files = 0
        self.sampled = False
        self.profiles = Profiles(contract)

    def report(self) -> FeedReport:
        profiles = self.profiles
        known = profiles.contract is not None
        return FeedReport(
            feed=self.name,
            known=known,
            files=self.files,
            sampled=self.sampled,
            seen=profiles.records + profiles.others,
            records=profiles.records,
            rejects=dict(profiles.rejects.most_common()),
            fields=profiles.fields(),
            drift=profiles.drift(),
            proposal=None if known or not profiles.records else propose(self.name, profiles.fields(), profiles.records),
        )


def _read(item: Delivered, groups: dict[str, _Group], sample: int | None) -> None:
    seen = 0
    with open_regular(item.path, item.name) as source:
        before = fingerprint(source.fileno())

        def text() -> BinaryIO:
            source.seek(0)
            return decompressed(source, item.name)

        feed = infer_feed(text, item.feed)
        source.seek(0)
        name = feed or _lies_in(item.name)
        group = groups.setdefault(name, _Group(name, CONTRACTS.get(feed or "")))
        group.files += 1
        for value in iter_values(decompressed(source, item.name), Limits()):
            # asked once there is another record: a file of exactly so many was read to its end
            if seen == sample:
                group.sampled = True
                break
            seen += 1
            if isinstance(value, Reject):
                group.profiles.reject(value.reason)
            else:
                group.profiles.add(value.members)
        if fingerprint(source.fileno()) != before:
            raise UnreadableFile(f"{item.name}: it changed while it was read; only the part that was read is counted")


def _lies_in(name: str) -> str:
    """Returns the group of a file of unknown feed: its folder or, without one, its name without the number."""
    path = PurePath(name)
    if len(path.parts) > 1:
        return str(path.parent)
    return path.name.partition(".")[0].rstrip("0123456789-_") or path.name
