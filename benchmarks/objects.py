"""Measures the cost of landing many files from S3, beside the same files from a folder.

The same readings in a thousand files, in a folder and in a bucket -> landed by whole processes, in turn, into a lake
in a folder and into one in a bucket -> the bucket is landed again, with nothing new in it.

The S3 server and the catalog run on the same machine, so network latency is not included.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

from tests.support import servers

from benchmarks import measure
from benchmarks.measure import Cost

FILES = 1_000
FOLDER, BUCKET = "a folder", "S3"


def run(stedi: Path, landing: Path, work: Path, key: Mapping[str, str], repeats: int) -> str:
    """Measures landings, and returns a Markdown table, or a note if there is no S3 server."""
    if servers.VERSITYGW is None:
        return f"Not measured: {servers.NO_VERSITYGW}."
    files, readings = split(landing / "accelerometer", work / "files" / "accelerometer")
    costs: dict[str, list[Cost]] = {}
    with ExitStack() as stack:
        for name in ("s3", "aws"):
            (work / name).mkdir()
        store = stack.enter_context(servers.versitygw(work / "s3"))
        aws = stack.enter_context(servers.moto(work / "aws"))
        environment = servers.environment(s3=store, aws=aws)
        os.environ.update(environment)
        inbox = f"s3://{servers.new_bucket()}/inbox/accelerometer"
        _upload(files, inbox)
        for repeat in range(repeats):
            for lake, source in ((FOLDER, FOLDER), (FOLDER, BUCKET), (BUCKET, FOLDER), (BUCKET, BUCKET)):
                servers.reset(aws)
                place: str | Path = f"s3://{servers.new_bucket()}/lake" if lake == BUCKET else work / f"lake-{repeat}"
                land = [stedi, "--lake", place, "land", inbox if source == BUCKET else files]
                with tempfile.TemporaryDirectory(dir=work) as scratch:
                    settings = {**key, **environment, "TMPDIR": scratch}
                    measure.run([stedi, "--lake", place, "init"], settings)
                    costs.setdefault(f"{source} into a lake in {lake}", []).append(measure.run(land, settings))
                    if source == BUCKET:
                        again = f"{source} into a lake in {lake}, nothing new"
                        costs.setdefault(again, []).append(measure.run(land, settings))
                print(f"  {source} into {lake} {repeat + 1}/{repeats}", file=sys.stderr)
                if lake == FOLDER:
                    shutil.rmtree(place)
    size = sum(path.stat().st_size for path in files.iterdir())
    lines = [
        f"{FILES:,} files, {readings:,} readings, {size / 1e6:,.0f} MB from:",
        "",
        "| | wall s | ± | CPU s | peak MB | files/s |",
        "| --- | --: | --: | --: | --: | --: |",
    ]
    for name, found in costs.items():
        walls = [cost.wall for cost in found]
        wall, cpu = statistics.median(walls), statistics.median(cost.cpu for cost in found)
        peak = max(cost.peak for cost in found)
        cells = (f"{wall:.2f}", f"{(max(walls) - min(walls)) / 2:.2f}", f"{cpu:.2f}", f"{peak / 1e6:,.0f}")
        lines.append(f"| {name} | {' | '.join(cells)} | {FILES / wall:,.0f} |")
    return "\n".join(lines)


def split(source: Path, target: Path) -> tuple[Path, int]:
    """Splits the lines of a folder's files into a thousand files; returns their folder and the number of lines."""
    target.mkdir(parents=True)
    lines = [line for path in sorted(source.iterdir()) for line in path.read_bytes().splitlines(keepends=True)]
    left = iter(lines)
    for number in range(FILES):
        share = len(lines) * (number + 1) // FILES - len(lines) * number // FILES
        (target / f"{number:04}.json").write_bytes(b"".join(islice(left, share)))
    return target, len(lines)


def _upload(folder: Path, place: str) -> None:
    from stedi.storage import s3

    s3.upload((path, s3.at(place) / path.name) for path in sorted(folder.iterdir()))
