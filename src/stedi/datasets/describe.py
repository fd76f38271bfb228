"""What describes a release, made anew from its data after people have left it; the manifest says the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def describe(folder: Path, plain: dict[str, Any]) -> None:
    """Writes what describes a release's data, as far as the manifest says that there is such a thing."""
