"""Measures the CPU seconds of each phase of landing and building, for one version or for two side by side.

Whole processes of `land`, `build` and `audit` on a generated landing folder, in turn -> the CPU time of each phase, by
the progress that commands report -> medians. The start is everything before the first phase: Python, imports, the
lake's files.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

COMMANDS = ("land", "build", "audit")
SCRIPT = """
import json, os, sys
command, root, *paths = sys.argv[1:]
marks = []
def mark(what, share):
    name = what.partition(",")[0].partition(":")[0].strip()
    if not marks or marks[-1][0] != name:
        marks.append((name, sum(os.times()[:4])))
from stedi.lake import Lake
lake = Lake.open_or_create(root)
if command == "land":
    lake.land(*paths, progress=mark)
elif command == "build":
    lake.build(full=True, progress=mark)
else:
    lake.prove(progress=mark)
mark("end", None)
print(json.dumps(marks))
"""
"""Runs one command and prints when each phase began, in CPU seconds of the process and its children."""


def run(pythons: Mapping[str, Path], landing: Path, out: Path, environment: Mapping[str, str], repeats: int) -> str:
    """Measures the phases, and returns a Markdown table of CPU seconds.

    Args:
        pythons: The interpreter of each version's environment, by the version's name in the table.
        landing: A generated landing folder.
        out: An empty folder.
        environment: The environment of every process.
        repeats: How many lakes each version makes, in turn.
    """
    found: dict[tuple[str, str], dict[str, list[float]]] = {}
    folders = [landing / feed for feed in ("customer", "accelerometer", "step_trainer")]
    for number in range(repeats):
        for version, python in pythons.items():
            for command in COMMANDS:
                words = [python, "-c", SCRIPT, command, out / f"{version}-{number}", *folders]
                done = subprocess.run(
                    list(map(str, words)), env={**os.environ, **environment}, capture_output=True, check=True
                )
                for phase, seconds in taken(json.loads(done.stdout)).items():
                    found.setdefault((command, phase), {}).setdefault(version, []).append(seconds)
    return table(found, list(pythons))


def taken(marks: Sequence[tuple[str, float]]) -> dict[str, float]:
    """Returns the time of each phase, from the starts; the last mark is the end, repeated phases are summed."""
    phases = {"start": marks[0][1]}
    for (name, began), (_, ended) in pairwise(marks):
        phases[name] = phases.get(name, 0.0) + ended - began
    return phases


def table(found: Mapping[tuple[str, str], Mapping[str, Sequence[float]]], versions: Sequence[str]) -> str:
    """Returns a Markdown table: one line per phase, and one for each whole command."""
    lines = [f"| command | phase | {' | '.join(f'{v}, CPU s' for v in versions)} |"]
    lines.append(f"| --- | --- |{' --: |' * len(versions)}")
    for command in COMMANDS:
        medians = {
            phase: [statistics.median(by[v]) if v in by else 0.0 for v in versions]
            for (of, phase), by in found.items()
            if of == command
        }
        for phase, seconds in {**medians, "**all**": [sum(c) for c in zip(*medians.values(), strict=True)]}.items():
            lines.append(f"| {command} | {phase} | {' | '.join(f'{s:.2f}' for s in seconds)} |")
    return "\n".join(lines)
