"""Engines run SELECTs over pinned inputs: one small protocol, so that a build does not know which one it has.

An engine writes Parquet files and answers questions; it never commits. `duckdb` is the embedded one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

from stedi.tables import DataFile


class Engine(Protocol):
    """What a build asks of an engine."""

    def bind(self, table: str, files: Iterable[DataFile]) -> None:
        """Makes a table, pinned to exactly these files, readable under its name from now on."""

    def write(self, table: str, sql: str, folder: Path) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT as the table's Parquet files into a new folder and returns them, on disk."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""

    def prepare(self, sql: str, parameters: Mapping[str, str | int]) -> str:
        """Returns a SELECT of the lake's dialect in the engine's own, with its parameters filled in."""
