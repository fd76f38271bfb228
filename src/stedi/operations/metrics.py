"""Metrics of a run and its lake in Prometheus' text format, for node_exporter's textfile collector.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/. Counts and times alone.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from stedi._frozen import dataclass
from stedi.catalog import TableState
from stedi.context import Context, milliseconds, runs
from stedi.errors import StediError
from stedi.schema import tables
from stedi.schema.tables import ALL_ZONES
from stedi.storage import durable, s3
from stedi.transform import planning

_HELP = {
    "stedi_run_success": "Whether the last run of the command ended well",
    "stedi_run_exit_code": "Exit code of the last run of the command",
    "stedi_run_timestamp_seconds": "When the last run of the command ended",
    "stedi_run_duration_seconds": "How long the last run of the command took",
    "stedi_run_rows": "Rows that the last run of the command wrote",
    "stedi_last_success_timestamp_seconds": "When a command last ended well, by the history of the lake",
    "stedi_table_rows": "Rows of a table",
    "stedi_table_bytes": "Size of the current files of a table",
    "stedi_table_updated_timestamp_seconds": "When a table last changed",
    "stedi_tables_due": "Tables that a build would change",
    "stedi_disk_free_bytes": "Bytes that are free where the lake lies",
    "stedi_lake_unknown": "Whether a part of the lake could not be read, so that its metrics are missing",
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        command: The command.
        code: Its exit code.
        seconds: How long it took.
        rows: Rows that it wrote; None where it counts none.
    """

    command: str
    code: int
    seconds: float
    rows: int | None


def write(path: Path, ended: Ended, context: Context | None) -> None:
    """Writes the metrics of a run and of its lake, and replaces earlier ones atomically.

    Args:
        path: The file; everybody may read it, since another user's collector does.
        ended: How the command ended.
        context: The lake; None where it could not be opened.

    Raises:
        OSError: It cannot be written.
    """
    durable.write(path, text(ended, context).encode(), 0o644)


def text(ended: Ended, context: Context | None) -> str:
    """Returns the metrics of a run, and of its lake."""
    lines: list[str] = []
    known: set[str] = set()
    samples = [*_of_run(ended), *(_of_lake(context) if context is not None else ())]
    for name in _HELP:  # the lines of one metric must be adjacent
        for found, labels, value in samples:
            if found == name:
                if name not in known:
                    known.add(name)
                    lines += [f"# HELP {name} {_HELP[name]}.", f"# TYPE {name} gauge"]
                told = ",".join(f'{label}="{text}"' for label, text in labels.items())
                # fifteen digits are those of a double: counts of bytes stay whole
                lines.append(f"{name}{{{told}}} {value:.15g}" if told else f"{name} {value:.15g}")
    return "\n".join(lines) + "\n"


Sample = tuple[str, Mapping[str, str], float]


def _of_run(ended: Ended) -> Iterator[Sample]:
    of = {"command": ended.command}
    yield "stedi_run_success", of, not ended.code
    yield "stedi_run_exit_code", of, ended.code
    yield "stedi_run_timestamp_seconds", of, datetime.now(UTC).timestamp()
    yield "stedi_run_duration_seconds", of, round(ended.seconds, 3)
    if ended.rows is not None:
        yield "stedi_run_rows", of, ended.rows


def _of_lake(context: Context) -> Iterator[Sample]:
    """Yields the metrics of each part of a lake that can be read; `stedi_lake_unknown` tells which parts cannot."""
    states = dict[str, TableState]()

    def found_tables() -> Iterator[Sample]:
        states.update(context.catalog.tables())
        yield from _of_tables(states)

    parts: dict[str, Callable[[], Iterator[Sample]]] = {
        "runs": lambda: _of_runs(context.root),
        "tables": found_tables,
        "due": lambda: _of_due(context, states or context.catalog.tables()),
        "disk": lambda: _of_disk(context.root),
    }
    for part, samples in parts.items():
        try:
            yield from list(samples())
            unknown = False
        except (StediError, OSError, KeyError):  # the run's own lines report the problem
            unknown = True
        yield "stedi_lake_unknown", {"part": part}, unknown


def _of_runs(root: Path) -> Iterator[Sample]:
    last: dict[str, float] = {}
    for run in runs.history(root):
        if run.outcome == "done" and run.command not in last and run.ended:
            last[run.command] = run.ended.timestamp()
    for command, at in sorted(last.items()):
        yield "stedi_last_success_timestamp_seconds", {"command": command}, at


def _of_tables(states: Mapping[str, TableState]) -> Iterator[Sample]:
    for name, state in states.items():
        of = {"table": name, "zone": ALL_ZONES[name]}
        current = state.current
        yield "stedi_table_rows", of, current.total("records") if current else 0
        yield "stedi_table_bytes", of, current.total("files-size") if current else 0
        if current:
            yield "stedi_table_updated_timestamp_seconds", of, current.at_ms / 1000


def _of_due(context: Context, states: Mapping[str, TableState]) -> Iterator[Sample]:
    """Yields how many tables a build would change; without the key nobody can tell after an erasure.

    Raises:
        KeyRefused: The key that the comparison with the claims of erased customers needs is missing.
    """
    claims = context.erased_claims()
    if claims is None:
        context.key()
    now = milliseconds(datetime.now(UTC))
    steps = planning.plan(states, context.config, now, full=False, graph=tables.graph(), claims=claims)
    yield "stedi_tables_due", {}, sum(step.action != "none" for step in steps)


def _of_disk(root: Path) -> Iterator[Sample]:
    if not s3.is_remote(root):
        yield "stedi_disk_free_bytes", {}, shutil.disk_usage(root).free
