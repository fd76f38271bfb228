"""Measures withdrawals, erasures, audits and a new key, as shares of a full build of the same lake in the same run.

A lake of synthetic readings -> an audit -> a hundred customers withdraw -> one customer is erased, then a hundred at
once, whose rows are spread over every file -> a build, which then has nothing to do -> a full build -> a hundred others
are erased -> the key is replaced.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from benchmarks import increments
from benchmarks.increments import Bench, Line, Round


def run(bench: Bench, out: Path, repeats: int) -> str:
    """Measures full builds, withdrawals and erasures in a new lake each round, and returns a Markdown table."""
    return increments.table([_once(bench, out) for _ in range(repeats)], [])


def _once(bench: Bench, out: Path) -> Round:
    bench.land_all()
    bench.stedi("build")
    lines = [Line("a build with nothing to do", bench.stedi("build")), Line("`audit`", bench.stedi("audit"))]
    who = _named(out, bench, 100)
    lines.append(Line("`withdraw` of 100 customers", bench.stedi("withdraw", "--yes", "--file", who)))
    lines.append(Line("the build that takes them out", bench.stedi("build")))
    for count in (1, 100):
        who = _named(out, bench, count)
        name = "one customer erased" if count == 1 else f"{count} customers erased at once"
        lines.append(Line(name, bench.stedi("erase", "--yes", "--file", who)))
    lines.append(Line("the build after that", bench.stedi("build")))
    # late, since it leaves a generation of files in the history, which an erasure goes through, too
    lines.insert(0, Line("full build", bench.stedi("build", "--full")))
    who = _named(out, bench, 100)
    lines.append(Line("100 others, after the full build", bench.stedi("erase", "--yes", "--file", who)))
    key = out / "new.key"
    lines.append(Line("`key rotate`, with its proof", bench.stedi("key", "rotate", "--yes", "--to", key)))
    key.unlink()
    shutil.rmtree(bench.lake)
    return lines


def _named(out: Path, bench: Bench, count: int) -> Path:
    path = out / "who.txt"
    path.write_text("".join(f"{address}\n" for address in _some(bench, count)), "utf-8")
    return path


def _some(bench: Bench, count: int) -> list[str]:
    """Returns the addresses of some customers, spread evenly over all customers."""
    from stedi.lake import Lake

    found = Lake.open(bench.lake).query(
        "select distinct email from customers_landing order by hash(email)", role="officer"
    )
    addresses: list[str] = found.arrow().column(0).to_pylist()
    return addresses[:: max(1, len(addresses) // count)][:count]
