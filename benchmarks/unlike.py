"""Rewrites a generated landing folder as data unlike the sample: the same records, delivered in another way.

The fields of a record are in another order, addresses are three times as long, the records of all customers are
interleaved, and each file is half the size of the one before it.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import duckdb

FILES = 12
LONGER = "a.host.of.a.domain.of.a.rather.long.name."
FEEDS = {
    "customer": (r'\{(.*)"email": "([^"]*)@([^"]*)", (.*)\}', rf'{{\1\4, "email": "\2@{LONGER}\3"}}'),
    "accelerometer": (
        r'\{"user":"(.*)@(.*)","timestamp":(.*),"x":(.*),"y":(.*),"z":(.*)\}',
        rf'{{"z":\6,"y":\5,"user":"\1@{LONGER}\2","x":\4,"timestamp":\3}}',
    ),
    "step_trainer": (
        r'\{"sensorReadingTime":(.*),"serialNumber":(.*),"distanceFromObject":(.*)\}',
        r'{"distanceFromObject":\3,"sensorReadingTime":\1,"serialNumber":\2}',
    ),
}
"""For each feed a pattern of the sample's lines, and what replaces it."""


def made(landing: Path) -> Path:
    """Returns the rewritten folder, beside the given one; that of an earlier run is used again."""
    folder = landing.with_name(f"{landing.name}-unlike")
    if (folder / "_answer.json").exists():
        return folder
    print(f"Rewriting {landing} as {folder}", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    text = "format csv, header false, delimiter '\x01', quote '', escape ''"
    with duckdb.connect(str(folder / "lines.duckdb"), config={"memory_limit": "3GB"}) as connection:
        connection.execute("set enable_progress_bar = false")
        for feed, (pattern, replacement) in FEEDS.items():
            (folder / feed).mkdir()
            connection.execute(
                "create or replace table lines as select row_number() over (order by hash(line)) as place, "
                f"regexp_replace(line, '{pattern}', '{replacement}') as line from read_csv('{landing}/{feed}/*.json', "
                "columns = {line: 'VARCHAR'}, header = false, auto_detect = false, delim = '\x01', quote = '', "
                "escape = '')"
            )
            [(rest,)] = connection.execute("select count(*) from lines").fetchall()
            for number in range(FILES):
                upper, rest = rest, rest // 2 if number + 1 < FILES else 0
                connection.execute(
                    f"copy (select line from lines where place > {rest} and place <= {upper}) "
                    f"to '{folder}/{feed}/{feed}-{number:04}.json' ({text})"
                )
    (folder / "lines.duckdb").unlink()
    shutil.copy(landing / "_answer.json", folder)
    return folder
