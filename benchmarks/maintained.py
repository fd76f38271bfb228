"""What small commits cost a reader, before and after `stedi maintain`, beside a table that was written at once.

    python -m benchmarks.maintained [--commits N] [--readings N] [--repeats N]

The same readings -> two lakes, one landed file by file, one at once -> whole `stedi query` processes, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks import measure

ROOT = Path(__file__).resolve().parent.parent
WORK = ROOT / "build/bench"
STEDI = Path(sys.executable).parent / "stedi"
KEY = {"STEDI_PSEUDONYM_KEY": "5d" * 32}
SQL = 'select "user", count(*), avg(x), max("timestamp") from accelerometer_landing group by 1 order by 1'

LAND = """
import sys
from pathlib import Path
from stedi.lake import Lake
lake = Lake.open_or_create(sys.argv[1])
for path in sorted(Path(sys.argv[2]).iterdir()):
    lake.land(path)
"""


def maintained(commits: int, readings: int, repeats: int) -> str:
    """Returns a Markdown table: seconds to read a lake of many small commits, and the ratio to one written at once.

    Args:
        commits: Commits of the many; each lands one file.
        readings: Accelerometer readings in all.
        repeats: Reads of each, of which the median counts.
    """
    work = WORK / "maintained"
    shutil.rmtree(work, ignore_errors=True)
    inbox = work / "inbox" / "accelerometer"
    inbox.mkdir(parents=True)
    share = readings // commits
    for commit in range(commits):
        lines = (
            json.dumps(
                {"user": f"p{n % 100}@made.example", "timestamp": commit * share + n + 1, "x": 0.5, "y": n, "z": -1}
            )
            for n in range(share)
        )
        (inbox / f"{commit:05d}.json").write_text("\n".join(lines) + "\n")
    many, once = work / "many", work / "once"
    measure.run([sys.executable, "-c", LAND, many, inbox], KEY)
    measure.run([STEDI, "--lake", once, "land", inbox], KEY)
    names = {"one commit": once, f"{commits:,} commits": many}
    walls = _read(names, repeats)
    cost = measure.run([STEDI, "--lake", many, "maintain"], KEY)
    after = "the same after `stedi maintain`"
    walls |= {name: wall for name, wall in _read({"one commit": once, after: many}, repeats).items() if name == after}
    base = walls["one commit"]
    lines = ["| | wall s | one commit = 1 |", "| --- | --: | --: |"]
    lines += [f"| {name} | {wall:.3f} | {wall / base:.2f} |" for name, wall in walls.items()]
    lines.append(f"| `stedi maintain` itself, peak {cost.peak / 1e6:,.0f} MB | {cost.wall:.2f} | |")
    if _rows(many) != _rows(once):
        raise SystemExit("the two lakes differ")
    shutil.rmtree(work)
    return "\n".join(lines)


def _read(lakes: dict[str, Path], repeats: int) -> dict[str, float]:
    walls: dict[str, list[float]] = {name: [] for name in lakes}
    for _ in range(repeats):
        for name, lake in lakes.items():
            walls[name].append(measure.run([STEDI, "--lake", lake, "query", SQL], KEY).wall)
    return {name: statistics.median(found) for name, found in walls.items()}


def _rows(lake: Path) -> bytes:
    command = [STEDI, "--lake", lake, "query", "--format", "csv", SQL]
    return subprocess.run(command, env={**os.environ, **KEY}, capture_output=True, check=True).stdout


def main() -> None:
    """Parses the words of the call and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.maintained", description=__doc__.splitlines()[0])
    parser.add_argument("--commits", type=int, default=1_000, help="small commits (1,000)")
    parser.add_argument("--readings", type=int, default=1_000_000, help="readings in all (1,000,000)")
    parser.add_argument("--repeats", type=int, default=9, help="reads of each (9)")
    options = parser.parse_args()
    print(maintained(options.commits, options.readings, options.repeats))


if __name__ == "__main__":
    main()
