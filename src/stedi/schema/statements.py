"""Reads the package's own SQL files."""

from __future__ import annotations

from pathlib import Path


def texts(folder: str) -> dict[str, str]:
    """Returns the text of each SQL file in a folder of `sql`, by its name without the suffix."""
    here = Path(__file__).parent / "sql" / folder
    if not here.is_dir():  # in a zipped wheel; elsewhere importing `resources` would take 10% of a small command's time
        from importlib import resources

        found = resources.files("stedi.schema") / "sql" / folder
        return {e.name.removesuffix(".sql"): e.read_text("utf-8") for e in found.iterdir() if e.name.endswith(".sql")}
    return {path.stem: path.read_text("utf-8") for path in here.iterdir() if path.suffix == ".sql"}
