"""The benchmark's peers still do the whole job, and what it measures is what was taken."""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import pytest
from benchmarks import __main__ as bench
from benchmarks import increments, measure, objects, phases
from benchmarks.increments import Line
from benchmarks.measure import Cost

from stedi.landing import sample

TABLES = (
    *("customers_landing", "accelerometer_landing", "step_trainer_landing", "customers_trusted"),
    *("accelerometer_trusted", "customers_curated", "step_trainer_trusted", "machine_learning_curated"),
)


@pytest.mark.parametrize("script", ["bare_duckdb", "lazy_polars"])
def test_a_peer_writes_every_table(script: str, tmp_path: Path) -> None:
    sample.write(tmp_path / "inbox", customers=30, readings=1_000, seed=3, dirty=False)
    (tmp_path / "out").mkdir()
    cost = bench.peer(script)(tmp_path / "inbox", tmp_path / "out")
    assert cost.wall > 0
    for table in TABLES:
        [(rows,)] = duckdb.sql(f"select count(*) from '{tmp_path}/out/{table}.parquet'").fetchall()
        assert rows > 0, table


def test_phases_add_up_to_what_each_command_takes(tmp_path: Path) -> None:
    assert phases.taken([("read", 0.5), ("write", 1.5), ("read", 2.0), ("end", 2.25)]) == {
        "start": 0.5,
        "read": 1.25,
        "write": 0.5,
    }
    sample.write(tmp_path / "inbox", customers=30, readings=1_000, seed=3, dirty=False)
    lines = phases.run({"now": Path(sys.executable)}, tmp_path / "inbox", tmp_path / "out", bench.KEY, 1).splitlines()
    assert lines[0] == "| command | phase | now, CPU s |"
    cells = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]
    told = {(command, phase): float(seconds) for command, phase, seconds in cells}
    assert {("land", "commit"), ("build", "audit"), ("build", "rebuild machine_learning_curated")} <= told.keys()
    for command in phases.COMMANDS:
        parts = sum(seconds for (of, phase), seconds in told.items() if of == command and phase != "**all**")
        assert told[command, "**all**"] == pytest.approx(parts, abs=0.1)
        assert parts > 0.1


def test_a_process_is_measured_with_its_children() -> None:
    child = "b = bytearray(200_000_000); b[::4096] = b'x' * len(b[::4096]); sum(range(2_000_000))"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    cost = measure.run([sys.executable, "-c", parent])
    assert cost.peak > 200_000_000
    assert cost.cpu > 0.02


def test_a_process_that_fails_is_told_with_its_last_words() -> None:
    with pytest.raises(measure.Failed, match="no such thing"):
        measure.run([sys.executable, "-c", "raise SystemExit('no such thing')"])


def test_numbers_land_between_their_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("a\n<!-- bench x -->\nold\n<!-- /bench x -->\nb\n")
    bench.replace(page, "bench x", "new")
    bench.replace(page, "bench y", "nowhere")
    assert page.read_text() == "a\n<!-- bench x -->\nnew\n<!-- /bench x -->\nb\n"


def test_readings_are_spread_over_a_thousand_files_each_line_once(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    lines = [f"{number}\n" for number in range(2_500)]
    (tmp_path / "from/a.json").write_text("".join(lines[:1_500]))
    (tmp_path / "from/b.json").write_text("".join(lines[1_500:]))
    folder, readings = objects.split(tmp_path / "from", tmp_path / "to")
    files = sorted(folder.iterdir())
    assert (readings, len(files)) == (2_500, 1_000)
    assert "".join(file.read_text() for file in files) == "".join(lines)
    assert {len(file.read_text().splitlines()) for file in files} == {2, 3}


def test_a_share_is_the_median_of_the_shares_of_single_rounds() -> None:
    def lines(full: float, erased: float, *later: Line) -> list[Line]:
        return [Line("full", Cost(full / 2, full, 1_000_000)), Line("erased", Cost(erased, erased, 2_000_000)), *later]

    once = Line("nights later", Cost(6.0, 4.0, 3_000_000))
    # 0.9, 0.25 and 0.3 of a full build; the medians alone would give 2 / 8
    rounds = [lines(2.0, 1.8), lines(8.0, 2.0), lines(10.0, 3.0, once)]
    assert increments.table(rounds, []).splitlines()[2:] == [
        "| full | 4.00 | 8.00 | 1 | 1.00 | 1.000 |",
        "| erased | 2.00 | 2.00 | 2 | 0.60 | 0.300 |",
        "| nights later | 6.00 | 4.00 | 3 | 1.20 | 0.400 |",
    ]
