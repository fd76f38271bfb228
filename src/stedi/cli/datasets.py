"""Training sets on the command line: `stedi dataset ACTION`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.cli import tables, terminal
from stedi.cli.pipeline import opened, wants_json

if TYPE_CHECKING:
    from stedi.datasets import Release

_OPTIONS = {
    "match": "which accelerometer reading a step reading is paired with: exact (default), nearest or backward",
    "tolerance": "with nearest and backward, the greatest difference in time (default: 20ms)",
    "vectors": "several vectors of one moment become their mean (default) or a list",
    "window": "cut windows of this length, such as 10s; without it, one row a moment",
    "stride": "from the start of a window to that of the next (default: the window's length)",
    "max-gap": "no window spans a longer gap between two samples (default: 5s)",
    "min-samples": "leave out windows of fewer samples (default: 2)",
    "resample": "interpolate to this rate, such as 50Hz, and mark what was made up (default: as measured)",
    "split": "shares of train, validation and test, by person (default: 80/10/10)",
    "labels": "a CSV, Parquet or JSON lines file of labels by customer and time",
    "time": "instants relative to the subject's first reading (default), or absolute",
    "purpose": "research (default), or public: only customers who also share with the public",
    "for": "for whom it is made, such as 'Gait lab, contract 12'",
}


def add(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Adds the actions of `stedi dataset` to its parser."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = actions.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", parents=[common], allow_abbrev=False
        )
        sub.set_defaults(run=run)
        return sub

    sub = action("create", create, "builds what is due, then writes the next version of a training set")
    sub.add_argument("name", metavar="NAME", help="the training set: a-z, 0-9, '.', '_' and '-'")
    for name, text in _OPTIONS.items():
        sub.add_argument(f"--{name}", dest="recipient" if name == "for" else name.replace("-", "_"), help=text)
    sub.add_argument("--pad", action="store_true", default=None, help="fill windows up to the longest, with a mask")
    sub.add_argument(
        "--stratify", action="store_true", default=None, help="give each split about the same share of each label"
    )
    # its own name: the lake's folder is no place for other commands' output, and is for this one's
    sub.add_argument(
        "--output", dest="folder", metavar="DIR", type=Path, help="default: releases/NAME/VERSION in the lake"
    )


def create(options: argparse.Namespace) -> int:
    """Writes the next version of a training set."""
    from stedi.datasets import Options

    words: dict[str, Any] = {
        name: getattr(options, name)
        for name in (*(o.replace("-", "_") for o in _OPTIONS if o != "for"), "recipient", "pad", "stratify")
    }
    if words["min_samples"] is not None:
        words["min_samples"] = _whole(words["min_samples"])
    chosen = Options.parse(**words)
    progress = terminal.Progress()
    release = opened(options).create_dataset(options.name, chosen, output=options.folder, progress=progress)
    progress.close()
    if wants_json(options):
        terminal.document(release_json(release))
    else:
        terminal.line(release_text(release))
    return 0


def release_json(release: Release) -> dict[str, object]:
    """Returns what scripts read of a release."""
    return {
        "name": release.name,
        "version": release.version,
        "release": release.release,
        "path": release.path,
        "subjects": release.subjects,
        "rows": release.rows,
        "splits": {name: {"subjects": s.subjects, "rows": s.rows} for name, s in release.splits.items()},
        "account": [{"what": what, "rows": rows} for what, rows in release.account],
        "stale": list(release.stale),
        "purpose": release.options.purpose,
        "for": release.options.recipient,
        "models": list(release.models),
        "options": release.options.to_json(),
        "manifest_sha256": release.manifest_sha256,
        "public_key": release.public_key,
    }


def release_text(release: Release) -> str:
    """Returns a release for people: where it is, its splits, and what became of the readings."""
    splits = [(name, split.subjects, split.rows) for name, split in release.splits.items()]
    return "\n".join(
        [
            f"{release.release}  {release.path}",
            "",
            tables.table([*splits, ("all", release.subjects, release.rows)], ("split", "subjects", "rows")),
            "",
            tables.table(release.account, ("account", "rows")),
        ]
    )


def _whole(text: str) -> object:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
