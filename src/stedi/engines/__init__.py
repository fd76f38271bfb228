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

    def bind(self, name: str, files: Iterable[DataFile], *, table: str = "") -> None:
        """Makes exactly these files of a table readable under a name from now on, by default the table's own."""

    def view(self, name: str, sql: str) -> None:
        """Gives a SELECT a name for this session; it is computed anew wherever it is read."""

    def keep(self, view: str, sql: str) -> None:
        """Computes a SELECT once and gives the result a name for this session."""

    def holding(self, files: Iterable[DataFile], column: str, values: str) -> tuple[DataFile, ...]:
        """Returns those of some files that have a row whose column is among the values of a SELECT."""

    def write(self, table: str, sql: str, folder: Path) -> tuple[DataFile, ...]:
        """Writes the rows of a SELECT as the table's Parquet files into a new folder and returns them, on disk."""

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Returns the rows of a SELECT that is known to be small."""

    def prepare(self, sql: str, parameters: Mapping[str, str | int], relations: Mapping[str, str] | None = None) -> str:
        """Returns a SELECT of the lake's dialect in the engine's own, parameters filled in, over other relations."""
