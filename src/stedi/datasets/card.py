"""The dataset card, `README.md`: Hugging Face's front matter, then a description of the release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stedi.datasets.options import SPLITS
from stedi.datasets.quality import Quality
from stedi.errors import many

NAME = "README.md"
_SIZES = (("1K", 1_000), ("10K", 10_000), ("100K", 100_000), ("1M", 1_000_000), ("10M", 10_000_000))


def text(manifest: Mapping[str, Any], quality: Quality) -> str:
    """Returns the card of a release.

    Args:
        manifest: The content of its `manifest.json`.
        quality: The quality of its readings.
    """
    parts = [
        _front_matter(manifest),
        f"# {manifest['release']}\n\n{_what(manifest)}{_since(manifest)}",
        f"## From whom\n\n{_consent(manifest)}",
        f"## Splits\n\n{_splits(manifest)}",
        f"## Columns\n\n{_columns(manifest)}",
        *([f"## Labels\n\n{_labels(manifest)}"] if manifest.get("labels") else []),
        f"## Account\n\n{_account(manifest)}",
        f"## Quality\n\n{_quality(manifest, quality)}",
        f"## Limits\n\n{_limits(manifest)}",
        f"## How to read it\n\n{_reading()}",
        f"## When somebody withdraws\n\n{_recall(manifest)}",
    ]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def _front_matter(manifest: Mapping[str, Any]) -> str:
    rows = manifest["rows"]
    bounds = [("0", 0), *_SIZES]
    size = next(
        (
            "n<1K" if low == "0" else f"{low}<n<{high}"
            for (low, _), (high, most) in zip(bounds, _SIZES, strict=False)
            if rows < most
        ),
        "n>10M",
    )
    files = "\n".join(
        f"      - split: {split}\n        path: data/{split}-*.parquet"
        for split in SPLITS
        if manifest["splits"][split]["rows"]
    )
    configs = f"configs:\n  - config_name: default\n    data_files:\n{files}\n" if files else ""
    return (
        f'---\npretty_name: "{manifest["release"]}"\nlicense: other\nlicense_name: by-agreement\n'
        f"size_categories:\n  - {size}\ntags:\n  - time-series\n  - accelerometer\n  - step-detection\n"
        f"{configs}---"
    )


def _what(manifest: Mapping[str, Any]) -> str:
    options = manifest["options"]
    match = {
        "exact": "of the very same millisecond",
        "nearest": f"nearest in time, {options['tolerance']} ms away at most",
        "backward": f"last before it, {options['tolerance']} ms away at most",
    }[options["match"]]
    unit = "moment: a reading of the step trainer"
    if options["window"]:
        unit = (
            f"window of {options['window'] / 1000:g} s, one every {options['stride'] / 1000:g} s, with lists of samples"
        )
    made_up = (
        f" Samples were interpolated to {options['resample']:g} Hz; `made_up` marks them."
        if options["resample"]
        else ""
    )
    made_for = f" Made for: {manifest['for']}." if manifest["for"] else ""
    return (
        "Readings of STEDI step trainers (the distance of the object in front of the sensor) with those of the same "
        f"person's phone (accelerometer x, y, z). A row is one {unit}. The two are paired within one person: the "
        f"accelerometer reading {match}.{made_up}\n\nPurpose: {manifest['purpose']}.{made_for} Made by "
        f"{manifest['software']['name']} {manifest['software']['version']} from the lake `{manifest['lake']}` as it "
        f"was at {manifest['created']}."
    )


def left(manifest: Mapping[str, Any]) -> int:
    """Returns how many people were recalled or erased from a release since it was made."""
    return len((manifest.get("parent") or {}).get("drop", ()))


def _since(manifest: Mapping[str, Any]) -> str:
    """Returns what the counts of a release leave out since people were taken out of it."""
    gone = left(manifest)
    if not gone:
        return ""
    who = many(gone, "person who was in it has", "people who were in it have")
    return (
        f"\n\n**Recalled.** Since it was made, {who} been taken out, because their data may no longer be used. All "
        "counts below are of those who are left, unless they say otherwise. Models trained on it before have seen the "
        "others."
    )


def _consent(manifest: Mapping[str, Any]) -> str:
    public = " and to share with the public" if manifest["purpose"] == "public" else ""
    readings = {
        "all": "all of their readings",
        "since-consent": "their readings from the day of their consent on",
    }[manifest["policy"]["readings"]]
    return (
        f"{many(manifest['subjects'], 'customer')} of STEDI whose current record, at {manifest['consent_as_of']}, "
        f"agrees to research{public}; {readings}. Nobody else's data are in it: that was proved over the files as they "
        "were written. The legal basis is that consent; it can be withdrawn at any time.\n\nPeople stand under ids of "
        "this release alone. No address, name or serial number is in it, and only the lake can tell who is who. That "
        "is pseudonymous, not anonymous."
    )


def _splits(manifest: Mapping[str, Any]) -> str:
    lines = ["| split | people | rows |", "| --- | --: | --: |"]
    for split in SPLITS:
        of = manifest["splits"][split]
        lines.append(f"| {split} | {of['subjects']:,} | {of['rows']:,} |")
    return (
        "\n".join(lines)
        + "\n\nBy person: nobody stands in two splits, nor do people who share a device. A keyed hash decides, "
        "so nobody moves from one release to the next."
    )


def _columns(manifest: Mapping[str, Any]) -> str:
    lines = ["| column | type | unit | meaning |", "| --- | --- | --- | --- |"]
    lines += [f"| `{c['name']}` | {c['type']} | {c['unit']} | {c['description']} |" for c in manifest["columns"]]
    return "\n".join(lines)


def _labels(manifest: Mapping[str, Any]) -> str:
    labels = manifest["labels"]
    # nobody but the lake can tell which of them were of people who have left
    made = " when it was made, those who have left since among them" if left(manifest) else ""
    return (
        f"A file of labels (SHA-256 `{labels['sha256']}`) gave them, joined by person and time: "
        f"{many(labels['spans'], 'span')} and {many(labels['instants'], 'instant')} of people who could be in this "
        f"release{made}. Left out: {many(labels['elsewhere'], 'row')} of {many(labels['people_elsewhere'], 'other')}, "
        f"and {many(labels['ambiguous'], 'row')} under a serial number that several people have used. "
        "The clock of the labels was not corrected."
    )


def _account(manifest: Mapping[str, Any]) -> str:
    lines = ["| what | rows |", "| --- | --: |"]
    lines += [f"| {line['what']} | {line['rows']:,} |" for line in manifest["account"]]
    return "\n".join(lines)


def _quality(manifest: Mapping[str, Any], quality: Quality) -> str:
    overall = quality.overall
    lines = [f"**{quality.verdict[0].upper()}{quality.verdict[1:]}.**"]
    rate, gap, missed = overall["SampleRate"], overall["longest_gap_s"], overall["missed_share"]
    if rate:
        lines.append(
            f"- Sampling rate: {rate['median']:g} a second at the median of people, from {rate['min']:g} to "
            f"{rate['max']:g}."
        )
    if missed:
        lines.append(f"- Missed samples: {missed['median']:.1%} at the median of people, {missed['max']:.1%} at most.")
    if gap:
        lines.append(
            f"- Gaps: {overall['NumInterrupts']:,} longer than {manifest['options']['max_gap'] / 1000:g} s; "
            f"the longest {gap['max']:g} s."
        )
    if overall["matched_share"] is not None:
        lines.append(f"- Of the step trainer's readings {overall['matched_share']:.1%} found an accelerometer reading.")
    for axis, people in overall["constant_channels"].items():
        lines.append(f"- `{axis}` never changes for {many(people, 'person', 'people')}.")
    lines.append("\n`quality.json` has these and more for each person.")
    return "\n".join([lines[0], "", *lines[1:]])


def _limits(manifest: Mapping[str, Any]) -> str:
    lines = [
        "- Units are those of the devices; the deliveries do not name them.",
        "- The two devices have clocks of their own. Their offset and drift are not corrected.",
        "- Exact times and gaits re-identify people. Do not join this with other data about them.",
    ]
    if not manifest["options"]["labels"]:
        lines.append("- There is no label: no column says that a step was taken.")
    if manifest["options"]["time"] == "absolute":
        lines.append("- Times are absolute, as was asked for: they re-identify people all the more.")
    return "\n".join(lines)


def _reading() -> str:
    return """```python
import pathlib, pandas
train = pandas.read_parquet(sorted(pathlib.Path("data").glob("train-*.parquet")))

import polars
train = polars.read_parquet("data/train-*.parquet")

import duckdb
train = duckdb.sql("select * from 'data/train-*.parquet'")

from datasets import load_dataset
splits = load_dataset("parquet", data_dir=".")

import stedi
train = stedi.Dataset.open(".").arrow("train")
```"""


def _recall(manifest: Mapping[str, Any]) -> str:
    release = manifest["release"]
    return (
        f"The lake then writes a signed list of the ids to drop, `stedi dataset recall {release}`. Apply it to this "
        "folder with `stedi dataset apply-recall DIR FILE`, which needs neither lake nor key, and train again. "
        "`stedi dataset verify DIR` checks bytes, counts, splits and the signature."
    )
