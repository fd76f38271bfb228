"""The package's own SQL files, read where they lie."""

from __future__ import annotations

from pathlib import Path


def texts(folder: str) -> dict[str, str]:
    """Returns the text of each SQL file in a folder of `sql`, by its name without the ending."""
    here = Path(__file__).parent / "sql" / folder
    if not here.is_dir():  # in a wheel that nobody unpacked; else its readers would take a tenth of a small command
        from importlib import resources

        found = resources.files("stedi.schema") / "sql" / folder
        return {e.name.removesuffix(".sql"): e.read_text("utf-8") for e in found.iterdir() if e.name.endswith(".sql")}
    return {path.stem: path.read_text("utf-8") for path in here.iterdir() if path.suffix == ".sql"}
