"""docs/aws.md is true: every command of it runs, in order, against moto; its tables are those of the code."""

from __future__ import annotations

import json
import os
import re
import shlex
import urllib.request
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from test_aws_stack import BUCKET, cloud, cloud_server, wheel  # noqa: F401 - fixtures

import servers
from lakes import REPOSITORY
from stedi import cli
from stedi.aws import cost
from stedi.landing import sample
from stedi.storage.s3 import client

PAGE = (REPOSITORY / "docs" / "aws.md").read_text("utf-8")


def commands() -> list[str]:
    """Returns the lines of the page's shell blocks."""
    return [
        line
        for block in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]


@pytest.mark.thorough
def test_every_command_runs_in_order(
    cloud: servers.Server,  # noqa: F811
    wheel: Path,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Athena is moto's, which answers what it is told; and the job is moto's, which succeeds without doing anything."""
    for name in [name for name in os.environ if name.startswith("STEDI_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / wheel.name).write_bytes(wheel.read_bytes())
    inbox = tmp_path / "delivered"
    sample.write(inbox, customers=20, readings=300, seed=3)
    ran = []
    for line in commands():
        words = shlex.split(line, comments=True)
        match words:
            case []:
                continue
            case ["make", "wheel"]:
                continue  # has a test of its own; here the wheel lies in dist/ already
            case ["export", assignment]:
                name, _, value = assignment.partition("=")
                monkeypatch.setenv(name, value)
                continue
            case ["stedi", "query", "--engine", "athena", *_]:
                _answers(cloud, "5")
            case ["stedi", "land", *_]:
                for path in inbox.rglob("*"):
                    if path.is_file() and not path.name.startswith("_"):
                        key = f"inbox/{path.relative_to(inbox)}"
                        client().put_object(Bucket=BUCKET, Key=key, Body=path.read_bytes())
        assert words.pop(0) == "stedi"
        capfd.readouterr()
        code = cli.main(words)
        out, said = capfd.readouterr()
        assert code == 0, f"{line}\n{out}\n{said}"
        ran.append(line)
        if words[0] == "query" and "--role" in words:
            assert re.search(r"^ *[1-9]\d*$", out, re.MULTILINE), "there are training rows"
        if words[:2] == ["aws", "destroy"]:
            assert "stedi-data is kept" in out
    assert len(ran) > 12


def _answers(cloud: servers.Server, count: str) -> None:  # noqa: F811
    """Tells moto's Athena what to answer next."""
    rows = [{"Data": [{"VarCharValue": text}]} for text in ("n", count)]
    body = json.dumps(
        {"results": [{"rows": rows, "column_info": [{"Name": "n", "Type": "bigint"}]}], "region": servers.REGION}
    )
    where = f"{cloud.url}/moto-api/static/athena/query-results"
    urllib.request.urlopen(urllib.request.Request(where, body.encode(), {"Content-Type": "application/json"})).close()


def test_the_table_of_costs_is_what_the_model_says() -> None:
    [found] = re.findall(r"<!-- cost -->\n(.*?)\n<!-- /cost -->", PAGE, re.DOTALL)
    (_, *heads), *lines = cost.lines()
    bold = [[f"**{cell}**" for cell in line] if "together" in line[0] else line for line in lines]
    rows = [["", *heads], ["---", *["--:"] * len(heads)], *bold]
    assert found == "\n".join(f"| {' | '.join(row)} |" for row in rows)


def test_the_page_names_what_the_model_takes() -> None:
    text, measured = " ".join(PAGE.split()), cost.MEASURED
    for value in (
        measured.json_bytes,
        measured.lake_bytes,
        measured.training_rows,
        measured.training_bytes,
        51.31,
        4.45,
    ):
        assert f"{value}" in text


@pytest.mark.parametrize(
    "larger", [{"customers": 20_000}, {"readings": 1_300}, {"retention_days": 1_460}, {"queries": 40}]
)
def test_what_is_twice_as_much_costs_more_and_at_most_twice(larger: dict[str, int]) -> None:
    less, more = (cost.cost(cost.Workload(**{"customers": 10_000, **given})).total for given in ({}, larger))
    assert less < more <= 2.01 * less


def test_a_run_lasts_about_an_hour_at_most_however_much_there_is() -> None:
    for customers in (1, 10_000, 10_000_000, 300_000_000):
        assert cost.cost(cost.Workload(customers)).run_minutes < 64


@pytest.mark.parametrize(("row", "rate"), [("PySpark", "core_seconds")])
def test_the_measured_times_are_those_of_the_benchmarks(row: str, rate: str) -> None:
    """Machines differ from run to run; a figure that is another by half is not the one that was taken."""
    page = (REPOSITORY / "docs" / "benchmarks.md").read_text("utf-8")
    [block] = re.findall(r"<!-- bench 13M -->\n(.*?)<!-- /bench 13M -->", page, re.DOTALL)
    cells = next(line.split("|") for line in block.splitlines() if line.startswith(f"| {row} |"))
    measured = float(cells[2]) * 2 / 13_000_000
    assert 0.5 < getattr(cost.MEASURED, rate) / measured < 1.5


def test_the_picture_is_there_and_says_what_it_shows() -> None:
    assert "](aws.svg)" in PAGE
    tree = ET.parse(REPOSITORY / "docs" / "aws.svg").getroot()
    texts = {element.tag.rpartition("}")[2]: element.text for element in tree}
    assert texts["title"]
    assert texts["desc"]
