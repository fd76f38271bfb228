"""The files that describe a release: `quality.json`, card and Croissant; written with it, and again after a recall."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi.datasets import card, contents, croissant, quality
from stedi.datasets.options import Options
from stedi.datasets.quality import Quality


def write(folder: Path, manifest: Mapping[str, Any], measured: Quality) -> None:
    """Writes the describing files of a release.

    Args:
        folder: The release's.
        manifest: The content of its `manifest.json`.
        measured: The quality of its readings.
    """
    (folder / quality.NAME).write_bytes(measured.text())
    (folder / card.NAME).write_text(card.text(manifest, measured), "utf-8")
    described = json.dumps(croissant.document(manifest, measured), ensure_ascii=False, indent=2)
    (folder / croissant.NAME).write_text(f"{described}\n", "utf-8")


def describe(before: Path, folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the describing files after people have left a release; everything about the others still holds.

    Args:
        before: The release with them.
        folder: The release without them, with its data files.
        manifest: What will stand in its `manifest.json`.
    """
    if not (before / quality.NAME).is_file():
        return
    left = {subject for subject, _, _ in contents.subjects(folder / contents.SUBJECTS)}
    people = [person for person in quality.read(before / quality.NAME) if person["subject"] in left]
    write(folder, manifest, quality.of_people(people, Options.from_json(manifest["options"])))
