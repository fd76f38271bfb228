"""Training sets on the command line: `stedi dataset ACTION`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi.cli import terminal
from stedi.cli.pipeline import open_lake, wants_json
from stedi.errors import AuditFailed, many

if TYPE_CHECKING:
    from stedi.cli.parsing import AddCommand
    from stedi.datasets.creation import Preview
    from stedi.datasets.manifest import Release
    from stedi.datasets.recalls import Recall

_OPTIONS = {
    "match": "which accelerometer reading a step reading is paired with: exact (default), nearest or backward",
    "tolerance": "with nearest and backward, the greatest difference in time (default: 20ms)",
    "vectors": "what becomes of several vectors of one moment: mean (default) or list",
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


def add(action: AddCommand) -> None:
    """Adds the actions of `stedi dataset` to its parser."""
    sub = action("create", create, "builds what is due, then writes the next version of a training set")
    sub.add_argument("name", metavar="NAME", help="the training set: a-z, 0-9, '.', '_' and '-'")
    for name, text in _OPTIONS.items():
        sub.add_argument(f"--{name}", dest="recipient" if name == "for" else name.replace("-", "_"), help=text)
    sub.add_argument("--pad", action="store_true", default=None, help="fill windows up to the longest, with a mask")
    sub.add_argument(
        "--stratify", action="store_true", default=None, help="give each split about the same share of each label"
    )
    sub.add_argument("--dry-run", action="store_true", help="only show what it would contain, and what it is good for")
    # its own name: the lake's folder is no place for other commands' output, and is for this one's
    sub.add_argument(
        "--output", dest="folder", metavar="DIR", type=Path, help="default: releases/NAME/VERSION in the lake"
    )

    _add_others(action)


def _add_others(action: AddCommand) -> None:
    """Adds what looks after releases that there are."""
    place: dict[str, Any] = {"dest": "folder", "metavar": "DIR", "type": Path}
    version = "the release, NAME@VERSION; of a NAME alone the newest"

    sub = action("list", listed, "lists the lake's releases; with --stale exits 3 if it lists any")
    sub.add_argument("--stale", action="store_true", help="only releases with people who may no longer be used")

    sub = action("show", show, "shows a release: content, people who may no longer be used, models")
    sub.add_argument("name", metavar="NAME[@VERSION]", help=version)

    sub = action("note", note, "notes that a model was trained on a release")
    sub.add_argument("name", metavar="NAME@VERSION", help=version)
    sub.add_argument("--model", metavar="TEXT", required=True, help="the model, in one line")

    sub = action("diff", diff, "compares two releases: people, splits, rows and options")
    sub.add_argument("name", metavar="NAME[@VERSION]", help=version)
    sub.add_argument("other", metavar="NAME[@VERSION]", help=version)

    sub = action("delete", delete, "removes a release's folder from the lake; it can still be recalled")
    sub.add_argument("name", metavar="NAME@VERSION", help="the release")

    sub = action("refresh", refresh, "writes the next version under the options of the last, without those who left")
    sub.add_argument("name", metavar="NAME", help="the training set")
    sub.add_argument("--labels", metavar="FILE", help="the file of labels, if it has moved")
    sub.add_argument("--output", **place, help="default: releases/NAME/VERSION in the lake")

    sub = action("recall", recall, "writes the signed file that tells holders of a release whom to drop")
    sub.add_argument("name", metavar="NAME@VERSION", help=version)
    sub.add_argument("--output", dest="file", metavar="FILE", type=Path, help="default: stdout")

    sub = action("apply-recall", apply_recall, "drops the people of a recall from a copy of a release; needs no lake")
    sub.add_argument("folder", metavar="DIR", type=Path, help="the copy")
    sub.add_argument("file", metavar="FILE", type=Path, help="the recall")

    sub = action("verify", verify, "checks a release against its signature; needs neither lake nor key")
    sub.add_argument("folder", metavar="DIR", type=Path, help="the release")
    sub.add_argument("--public-key", metavar="FILE", type=Path, help="the key that must have signed it (PEM)")


def listed(options: argparse.Namespace) -> int:
    """Lists releases."""
    found = open_lake(options).datasets(stale=options.stale)
    if wants_json(options):
        short = [{k: v for k, v in release_json(r).items() if k not in ("account", "options")} for r in found]
        terminal.document({"releases": short})
    elif found:
        rows = [
            (r.release, r.subjects, r.rows, len(r.stale), r.options.purpose, r.options.recipient, r.path) for r in found
        ]
        terminal.table(("release", "subjects", "rows", "stale", "purpose", "for", "path"), rows)
    else:
        terminal.line("no release is stale" if options.stale else "no release; create one with `stedi dataset create`")
    return AuditFailed.exit_code if options.stale and found else 0


def show(options: argparse.Namespace) -> int:
    """Shows the content of a release."""
    release = open_lake(options).release(options.name)
    if wants_json(options):
        terminal.document(release_json(release))
        return 0
    lines = [release_text(release)]
    if release.models:
        lines += ["", *(f"model: {model}" for model in release.models)]
    if release.stale:
        lines += ["", stale_text({release.release: len(release.stale)})]
    terminal.line("\n".join(lines))
    return 0


def note(options: argparse.Namespace) -> int:
    """Notes a model."""
    lake = open_lake(options)
    with terminal.Progress() as progress:
        lake.note_dataset(options.name, model=options.model, progress=progress)
    return _told(options, lake.release(options.name), "noted")


def delete(options: argparse.Namespace) -> int:
    """Removes a release's folder."""
    with terminal.Progress() as progress:
        deleted = open_lake(options).delete_dataset(options.name, progress=progress)
    if os.path.lexists(deleted.path):
        terminal.say(f"{deleted.path}: outside the lake, and still there: remove it yourself")
    return _told(options, deleted, "deleted")


def refresh(options: argparse.Namespace) -> int:
    """Writes the next version."""
    lake = open_lake(options)
    with terminal.Progress() as progress:
        release = lake.refresh_dataset(options.name, labels=options.labels, output=options.folder, progress=progress)
    terminal.document(release_json(release)) if wants_json(options) else terminal.line(release_text(release))
    return 0


def diff(options: argparse.Namespace) -> int:
    """Compares two releases."""
    found = open_lake(options).diff_datasets(options.name, options.other)
    if wants_json(options):
        terminal.document(
            {
                "releases": [found.one, found.other],
                "subjects": {
                    "each": list(found.subjects),
                    "both": found.both,
                    "only": [found.only_one, found.only_other],
                },
                "moved": found.moved,
                "rows": list(found.rows),
                "splits": {name: list(rows) for name, rows in found.splits.items()},
                "options": {name: list(values) for name, values in found.options.items()},
            }
        )
        return 0
    rows = [
        ("subjects", *found.subjects),
        ("only in this release", found.only_one, found.only_other),
        ("rows", *found.rows),
        *((f"rows of {name}", *rows) for name, rows in found.splits.items()),
        *(
            (f"--{name.replace('_', '-')}", *(_value(name, each) for each in both))
            for name, both in found.options.items()
        ),
    ]
    terminal.table(("", found.one, found.other), rows)
    terminal.line(f"\n{found.both:,} people are in both, {found.moved:,} of them in different splits")
    return 0


def _value(name: str, value: Any) -> str:
    """Returns an option's value in the form in which the command line takes it."""
    if value is None or value == "":
        return "none"
    if name in ("tolerance", "window", "stride", "max_gap"):
        return f"{value / 1000:g}s" if value >= 1000 else f"{value}ms"
    if name == "resample":
        return f"{value:g}Hz"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "/".join(f"{share:g}" for share in value) if name == "split" else str(value)


def recall(options: argparse.Namespace) -> int:
    """Writes a recall."""
    from stedi.context import places
    from stedi.storage import destinations

    def written() -> Recall:
        with terminal.Progress() as progress:
            return open_lake(options).recall_dataset(options.name, progress=progress)

    if options.file is None:
        found = written()
        if wants_json(options) or terminal.width() is None:
            terminal.document(json.loads(found.raw))
        else:
            _show_recall(found)
        return 0
    places.refuse_into_lake(options.file)
    # its place first: the registry notes each recall, and one that nobody can have must not be noted
    with destinations.writing(options.file) as stream:
        found = written()
        stream.write(found.raw)
    if wants_json(options):
        terminal.document(json.loads(found.raw))
    else:
        terminal.line(
            f"{found.release}: {many(len(found.drop), 'subject')} to drop from {many(len(found.files), 'file')}"
        )
    return 0


def _show_recall(found: Recall) -> None:
    """Shows a recall to a person; its file, which is signed, goes to a pipe or to `--output`."""
    terminal.table(("subject", "since"), sorted(found.drop.items()))
    terminal.line("\nfiles that contain one of them:")
    for name in found.files:
        terminal.line(f"  {name}")
    terminal.say(f"the recall of {found.release} that holders need is written by --output FILE")


def apply_recall(options: argparse.Namespace) -> int:
    """Drops people from a copy."""
    from stedi.datasets import recall as recalls

    done = recalls.apply(options.folder, options.file)
    if wants_json(options):
        terminal.document(
            {
                "release": done.release,
                "path": str(done.path),
                "dropped": list(done.dropped),
                "subjects": done.subjects,
                "rows": done.rows,
                "manifest_sha256": done.manifest_sha256,
            }
        )
    else:
        what = (
            f"{many(len(done.dropped), 'subject')} dropped" if done.dropped else "nobody named by the recall is in it"
        )
        terminal.line(
            f"{done.release}  {done.path}: {what}; {many(done.subjects, 'subject')}, {many(done.rows, 'row')} are left"
        )
    return 0


def verify(options: argparse.Namespace) -> int:
    """Verifies a release."""
    from stedi.datasets import verify as verification

    with terminal.step("check the release"):
        found = verification.verify(options.folder, public_key=options.public_key)
    if wants_json(options):
        terminal.document(
            {
                "holds": found.holds,
                "release": found.release,
                "lake": found.lake,
                "public_key": found.public_key,
                "created": found.created,
                "dropped": list(found.dropped),
                "files": found.files,
                "bytes": found.bytes,
                "problems": [{"file": problem.file, "what": problem.what} for problem in found.problems],
            }
        )
    else:
        for problem in found.problems:
            terminal.line(f"{problem.file}: {problem.what}")
        signer = f"signed by {found.lake} ({found.public_key}) at {found.created}" if found.public_key else "not signed"
        less = f", {many(len(found.dropped), 'subject')} recalled" if found.dropped else ""
        end = "holds" if found.holds else f"does not hold: {many(len(found.problems), 'problem')}"
        terminal.line(f"{signer}: {found.release or 'no release'}{less}; {end}")
    return 0 if found.holds else AuditFailed.exit_code


def stale_text(stale: Mapping[str, int]) -> str:
    """Returns the message about releases with people who may no longer be used, with their numbers."""
    return "\n".join(
        f"{release} is stale: {count:,} of its subjects may no longer be used; `stedi dataset refresh "
        f"{release.partition('@')[0]}` makes the next version, `stedi dataset recall {release}` writes the recall "
        "for its holders"
        for release, count in stale.items()
    )


def _told(options: argparse.Namespace, release: Release, what: str) -> int:
    if wants_json(options):
        terminal.document(release_json(release))
    else:
        terminal.line(f"{release.release}: {what}")
    return 0


def create(options: argparse.Namespace) -> int:
    """Writes the next version of a training set."""
    from stedi.datasets.options import Options
    from stedi.datasets.quality import verdict_of as verdict

    words: dict[str, Any] = {
        name: getattr(options, name)
        for name in (*(o.replace("-", "_") for o in _OPTIONS if o != "for"), "recipient", "pad", "stratify")
    }
    # anything else stays a text: `Options.parse` refuses it, and names the option
    if words["min_samples"] is not None:
        words["min_samples"] = _whole(words["min_samples"])
    chosen = Options.parse(**words)
    if options.dry_run:
        return _preview(options, open_lake(options).preview_dataset(options.name, chosen))
    with terminal.Progress() as progress:
        release = open_lake(options).create_dataset(options.name, chosen, output=options.folder, progress=progress)
    if options.labels:
        terminal.say(_labels_text(release))
    if wants_json(options):
        terminal.document(release_json(release))
    else:
        terminal.line(f"{release_text(release)}\n\n{verdict(Path(release.path))}")
    return 0


def _labels_text(release: Release) -> str:
    """Returns the outcome of the label file as text."""
    from stedi.datasets.dataset import Dataset

    found = Dataset.open(release.path).manifest["labels"]
    left = [
        f"{many(found[name], 'row')} {why}"
        for name, why in (
            (
                "elsewhere",
                f"of {many(found['people_elsewhere'], 'person who is', 'people who are')} not in it left out",
            ),
            ("ambiguous", "under a serial number of several people left out"),
        )
        if found[name]
    ]
    return "; ".join([f"labels: {many(found['spans'], 'span')} and {many(found['instants'], 'instant')} joined", *left])


def _preview(options: argparse.Namespace, found: Preview) -> int:
    """Shows the preview of a release."""
    if wants_json(options):
        terminal.document(
            {
                "release": found.release,
                "subjects": found.subjects,
                "splits": {
                    name: {"subjects": split.subjects, "moments": split.rows} for name, split in found.splits.items()
                },
                "account": [{"what": what, "rows": rows} for what, rows in found.account],
                "verdict": found.verdict,
            }
        )
        return 0
    splits = [(name, split.subjects, split.rows) for name, split in found.splits.items()]
    terminal.line(
        "\n".join(
            [
                f"{found.release} would be, of the tables as they are:",
                "",
                terminal.tabled(("split", "subjects", "moments"), splits),
                "",
                terminal.tabled(("account", "rows"), found.account),
                "",
                found.verdict,
            ]
        )
    )
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
            terminal.tabled(("split", "subjects", "rows"), [*splits, ("all", release.subjects, release.rows)]),
            "",
            terminal.tabled(("account", "rows"), release.account),
        ]
    )


def _whole(text: str) -> object:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else text
