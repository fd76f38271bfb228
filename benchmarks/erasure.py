"""Measures withdrawals, erasures, audits and a new key, as shares of a full build of the same lake in the same run.

A lake of synthetic readings -> an audit -> a hundred customers withdraw -> one customer is erased, then a hundred at
once, whose rows are spread over every file -> a build, which then has nothing to do -> full builds -> a hundred others
are erased -> the key is replaced.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import increments
from benchmarks.increments import Bench, Line


def run(bench: Bench, out: Path, builds: int = 3) -> str:
    """Measures full builds, withdrawals and erasures, and returns a Markdown table."""
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
    # last, since each leaves a generation of files in the history, which an erasure goes through, too
    full = sorted((bench.stedi("build", "--full") for _ in range(builds)), key=lambda cost: cost.wall)[builds // 2]
    who = _named(out, bench, 100)
    lines.append(Line(f"100 others, {builds} full builds later", bench.stedi("erase", "--yes", "--file", who)))
    key = out / "new.key"
    lines.append(Line("`key rotate`, with its proof", bench.stedi("key", "rotate", "--yes", "--to", key)))
    key.unlink()
    lines.insert(0, Line("full build", full))
    return increments.table(lines, [])


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
