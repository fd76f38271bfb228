"""docs/readers.md is true: its Python runs as it stands, and other readers find the rows that a query finds."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import pytest

import lakes
import rest_catalog
import trino_server
from deliveries import customer, deliver, motion, step
from stedi import Lake

PAGE = (lakes.REPOSITORY / "docs" / "readers.md").read_text("utf-8")


def block(title: str, language: str = "python", number: int = 0) -> str:
    """Returns a block of a language under a title of the page, by default the first."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    assert found, title
    return str(found[number])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a lake in which one customer has three moments."""
    folder = tmp_path_factory.mktemp("readers")
    lake = Lake.create(folder / "lake")
    deliver(folder / "inbox", "customer", [customer()])
    deliver(folder / "inbox", "accelerometer", [motion(at=at) for at in (100, 200, 300)])
    deliver(folder / "inbox", "step_trainer", [step(at=at) for at in (100, 200, 300)])
    lake.land(folder / "inbox")
    lake.build()
    return folder


@pytest.fixture(autouse=True)
def _beside_the_lake(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)


def run(source: str, **names: Any) -> dict[str, Any]:
    exec(compile(source, "docs/readers.md", "exec"), names)  # the page's own text
    return names


def test_pyiceberg_finds_rows_meanings_and_lineage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(block("PyIceberg"))["rows"].num_rows == 3
    said = capsys.readouterr().out
    assert "pseudonym of the customer" in said
    assert "accelerometer_trusted" in said


def test_polars_finds_the_readings(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLARS_ICEBERG_PLANNER", "pyiceberg")  # else it warns that another package would be faster
    frame = run(block("Polars"))["frame"].collect()
    assert frame["x"].to_list() == [1.0, 1.0, 1.0]
    assert "shape: (1, 2)" in capsys.readouterr().out


def extended(con: duckdb.DuckDBPyConnection, names: tuple[str, ...] = ("avro", "iceberg")) -> duckdb.DuckDBPyConnection:
    """Loads what reads Iceberg from its packages: a machine of tests downloads no extension."""
    for name in names:
        module = pytest.importorskip(f"duckdb_extension_{name}")
        [path] = Path(str(module.__file__)).parent.glob(f"extensions/*/{name}.duckdb_extension")
        con.load_extension(str(path))
    return con


def test_duckdbs_extension_finds_the_current_rows(capsys: pytest.CaptureFixture[str]) -> None:
    for number in (0, 1):  # by the folder, and by the catalog
        source, count = re.subn(r'con\.sql\("(install|load) iceberg"\)\n', "", block("DuckDB", number=number))
        assert count == 2
        run(source.replace("con = duckdb.connect()", "con = extended(duckdb.connect())"), extended=extended)
        assert re.search(r"\b3 ", capsys.readouterr().out)


def test_duckdb_opens_a_folder_and_refuses_one_whose_commit_was_cut_off_rather_than_guess() -> None:
    con = extended(duckdb.connect())
    sql = "select count(*) from iceberg_scan('lake/curated/machine_learning_curated')"
    assert con.sql(sql).fetchall() == [(3,)]
    hint = Path("lake/curated/machine_learning_curated/metadata/version-hint.text")
    kept = hint.read_bytes()
    for left in (None, b""):  # as a kill, and as a power cut leaves it
        hint.unlink(missing_ok=True)
        if left is not None:
            hint.write_bytes(left)
        with pytest.raises(duckdb.Error):
            con.sql(sql).fetchall()
    hint.write_bytes(kept)


def test_duckdb_attaches_a_catalog_that_speaks_rest(folder: Path, tmp_path: Path) -> None:
    con = extended(duckdb.connect(), ("httpfs", "avro", "iceberg"))
    shutil.copy(folder / "lake" / "catalog.db", tmp_path / "rest.db")  # a REST catalog of these tables
    with closing(sqlite3.connect(tmp_path / "rest.db")) as entries, entries:
        entries.execute("update iceberg_tables set catalog_name = 'within'")
    with rest_catalog.running(tmp_path) as url:
        *_, attach, count = block("DuckDB", "sql").split(";")[:-1]
        con.sql(attach.replace("http://catalog.example:8181", url))
        assert con.sql(count).fetchall() == [(3,)]


def test_spark_is_started_with_the_jars_and_settings_of_the_lakes_own_engine() -> None:
    from stedi.engines.spark.session import ICEBERG, SQLITE, catalog_settings

    command = block("Spark", "sh")
    assert f"--packages {ICEBERG},{SQLITE} " in command
    shown = dict(re.findall(r"--conf spark\.sql\.catalog\.stedi\.?([\w.-]*)=(\S+)", command))
    wanted = catalog_settings("/data/lake")
    assert shown.pop("uri") == wanted["uri"].partition("?")[0]
    assert shown.items() <= wanted.items()


@trino_server.needs_trino
def test_trino_reads_a_folder_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    settings = block("Trino", "properties").replace("/data/lake", str(folder / "lake"))
    [statement] = re.findall(r"`(select .*?)`", PAGE.split("\n## Trino\n")[1])
    with trino_server.serving(tmp_path, "stedi", settings) as ask:
        assert ask(statement) == [[3]]
        told = {name: comment for name, _, _, comment in ask("describe stedi.stedi.machine_learning_curated")}
        assert "pseudonym of the customer" in told["customer_id"]
        with pytest.raises(AssertionError, match="Access Denied"):
            ask("delete from stedi.stedi.machine_learning_curated")
