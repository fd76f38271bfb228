"""Measures landing the same records in other shapes, beside lines; by CPU time, since files differ in size."""

from __future__ import annotations

import gzip
import re
import shutil
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from benchmarks import measure


def _odd(text: bytes) -> bytes:
    lines = text.splitlines(keepends=True)
    lines[::1000] = [b'{"battery":97,' + line[1:] for line in lines[::1000]]
    return b"".join(lines)


def _pretty(text: bytes) -> bytes:
    return re.sub(rb"[{,]", rb"\g<0>\n  ", text).replace(b"}", b"\n}")


SHAPES: Mapping[str, Callable[[bytes], bytes]] = {
    "lines": bytes,
    "back to back": lambda text: text.replace(b"\n", b""),
    "an array": lambda text: b"[" + text.rstrip().replace(b"\n", b",") + b"]",
    "one odd record in a thousand": _odd,
    "pretty-printed": _pretty,
    "gzip": lambda text: gzip.compress(text, 6),
}


def run(stedi: Path, landing: Path, out: Path, key: Mapping[str, str], repeats: int) -> str:
    """Returns a Markdown table.

    Args:
        stedi: The command.
        landing: The delivered files, as lines; only accelerometer files are landed.
        out: A folder to work in.
        key: The environment that holds the lake's key.
        repeats: Runs of each; they take turns.
    """
    sizes = {}
    for name, shaped in SHAPES.items():
        folder = out / name / "accelerometer"
        folder.mkdir(parents=True)
        for file in (landing / "accelerometer").iterdir():
            (folder / file.name).with_suffix(".json.gz" if name == "gzip" else ".json").write_bytes(
                shaped(file.read_bytes())
            )
        sizes[name] = sum(file.stat().st_size for file in folder.iterdir())
    costs: dict[str, list[float]] = {name: [] for name in SHAPES}
    for repeat in range(repeats):
        for name, found in costs.items():
            shutil.rmtree(out / "lake", ignore_errors=True)
            found.append(measure.run([stedi, "--lake", out / "lake", "land", out / name], key).cpu)
            print(f"  {name} {repeat + 1}/{repeats}: {found[-1]:.2f} s of CPU", file=sys.stderr)
    medians = {name: statistics.median(found) for name, found in costs.items()}
    rows = ["| | MB | CPU s | CPU, lines = 1 |", "| --- | --: | --: | --: |"]
    for name, cpu in medians.items():
        rows.append(f"| {name} | {sizes[name] / 1e6:,.0f} | {cpu:.2f} | {cpu / medians['lines']:.2f} |")
    return "\n".join(rows)
