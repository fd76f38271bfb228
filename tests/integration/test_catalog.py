"""The catalog: append, stage, publish, discard; and what it reads, held against PyIceberg's own view."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, cast

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kills
from deliveries import customer, deliver, motion
from effort import NIGHTLY, tries
from lakes import Slate
from stedi.catalog import Catalog, checksums, snapshots
from stedi.catalog import manifests as entries
from stedi.engines.duckdb import DuckDB
from stedi.errors import CommitConflict, DamagedFile, LakeError
from stedi.lake import Lake
from stedi.schema.tables import ALL_ZONES, COLUMNS, NAMESPACE, ZONES, DataFile

TABLE = "accelerometer_trusted"


@pytest.fixture
def catalog(lake: Lake) -> Catalog:
    return lake.catalog


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    with DuckDB(memory="200MB", threads=2, temporary=tmp_path / "spill") as session:
        yield session


class Writer:
    """Writes rows as the table's files, each time into a new folder."""

    def __init__(self, engine: DuckDB, catalog: Catalog) -> None:
        self._engine, self._catalog, self._number = engine, catalog, 0

    def __call__(self, *people: str, table: str = TABLE) -> tuple[DataFile, ...]:
        self._number += 1
        rows = " union all ".join(
            f"select '{person}' as customer_id, instant({n + 1}) as \"timestamp\", {n}::double as x, "
            f"-1.5::double as y, null::double as z"
            for n, person in enumerate(people)
        )
        return self._engine.write(table, rows, self._catalog.folder(table) / "data" / f"w{self._number}")


@pytest.fixture
def write(engine: DuckDB, catalog: Catalog) -> Writer:
    return Writer(engine, catalog)


def people(engine: DuckDB, catalog: Catalog, snapshot: snapshots.Snapshot | None = None) -> list[str]:
    state = catalog.table(TABLE)
    engine.bind_files(TABLE, catalog.files(state, snapshot))
    return [row[0] for row in engine.rows(f"select customer_id from {TABLE} order by 1")]


def head(catalog: Catalog, table: str = TABLE) -> int:
    current = catalog.table(table).current
    assert current is not None
    return current.id


def theirs(catalog: Catalog, table: str = TABLE) -> Any:
    """The table as PyIceberg alone opens it: no class of this project is in the way."""
    from pyiceberg.catalog.sql import SqlCatalog

    return SqlCatalog("stedi", uri=f"sqlite:///{catalog.path}").load_table((NAMESPACE, table))


def manifests(location: str) -> Iterator[dict[str, Any]]:
    """Every entry of every manifest of a manifest list."""
    with open(location.removeprefix("file://"), "rb") as listed:
        for manifest in cast(list[dict[str, Any]], list(fastavro.reader(listed))):
            with open(manifest["manifest_path"].removeprefix("file://"), "rb") as stream:
                yield from cast(Iterator[dict[str, Any]], fastavro.reader(stream))


def test_a_new_lake_has_every_table_empty_in_the_folder_of_its_zone(catalog: Catalog, lake: Lake) -> None:
    states = catalog.tables()
    assert tuple(states) == tuple(ZONES)
    for name, state in states.items():
        assert state.columns == COLUMNS[name]
        assert state.location == f"file://{lake.root}/{ZONES[name]}/{name}"
        assert catalog.files(state) == ()
        assert state.current is not None
        assert state.current.total("records") == 0


def test_making_the_catalog_again_changes_nothing(catalog: Catalog) -> None:
    before = catalog.tables()
    catalog.create()
    assert catalog.tables() == before


def test_the_catalog_is_its_owners_alone(catalog: Catalog, lake: Lake) -> None:
    assert catalog.path.stat().st_mode & 0o077 == 0
    assert lake.root.stat().st_mode & 0o077 == 0


def test_an_append_adds_rows_and_says_what_it_was_told(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    before = head(catalog)
    snapshot_id = catalog.append(TABLE, write("a", "b"), {"stedi.batch": "7"})
    current = catalog.table(TABLE).current
    assert current is not None
    assert (current.id, current.parent, current.operation) == (snapshot_id, before, "append")
    assert current.summary["stedi.batch"] == "7"
    assert current.total("records") == 2
    assert current.total("data-files") == len(catalog.files(catalog.table(TABLE)))
    catalog.append(TABLE, write("c"), {})
    assert people(engine, catalog) == ["a", "b", "c"]


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_each_file_of_an_append_gets_its_checksum_and_none_may_differ_from_what_was_written(
    catalog: Catalog, write: Writer, count: int
) -> None:
    files = [file for number in range(count) for file in write(f"{number}")]
    catalog.append(TABLE, files, {})
    folder = catalog.folder(TABLE)
    known = checksums.expected(folder, [file.path for file in files])
    assert known == {file.path: hashlib.sha256(Path(file.path).read_bytes()).hexdigest() for file in files}
    for cut in range(count):
        again = [file for number in range(count) for file in write(f"{number}")]
        os.truncate(again[cut].path, again[cut].bytes - 1)
        with pytest.raises(DamagedFile):
            catalog.append(TABLE, again, {})


def test_two_writers_append_beside_each_other(lake: Lake, engine: DuckDB, write: Writer) -> None:
    one, other = lake.catalog, Catalog(lake.root)
    first, second = write("a"), write("b")
    load, loaded = other._committer._load, [other._committer._load(TABLE)]
    one.append(TABLE, first, {})
    # it still sees the table of before, once
    other._committer._load = lambda table: loaded.pop() if loaded else load(table)  # type: ignore[method-assign]
    other.append(TABLE, second, {})
    assert people(engine, one) == ["a", "b"]


def test_what_is_staged_is_not_seen_until_it_is_published(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    catalog.append(TABLE, write("old"), {})
    base = head(catalog)
    leaving = [file.path for file in catalog.files(catalog.table(TABLE))]
    staged = catalog.stage(TABLE, write("new", "newer"), leaving, {"stedi.run": "r"}, branch="r", base=base)
    assert people(engine, catalog) == ["old"]
    assert theirs(catalog).scan().to_arrow()["customer_id"].to_pylist() == ["old"]
    assert catalog.table(TABLE).branches == {"main": base, "r": staged}
    assert people(engine, catalog, catalog.table(TABLE).snapshot(staged)) == ["new", "newer"]
    catalog.publish(TABLE, branch="r", staged=staged, base=base)
    assert people(engine, catalog) == ["new", "newer"]
    assert catalog.table(TABLE).branches == {"main": staged}
    assert [s.id for s in catalog.table(TABLE).history()][:2] == [staged, base]
    assert catalog.table(TABLE).log[-1][1] == staged


def test_the_times_at_which_main_moved_never_run_backwards(catalog: Catalog, write: Writer) -> None:
    for n in range(3):
        base = head(catalog)
        staged = catalog.stage(TABLE, write("a"), [], {}, branch=f"r{n}", base=base)
        catalog.append("quarantine", (), {})
        catalog.publish(TABLE, branch=f"r{n}", staged=staged, base=base)
    times = [at for at, _ in catalog.table(TABLE).log]
    assert times == sorted(times)


def test_all_rows_can_leave(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    catalog.append(TABLE, write("a"), {})
    catalog.append(TABLE, write("b"), {})
    base = head(catalog)
    leaving = [file.path for file in catalog.files(catalog.table(TABLE))]
    staged = catalog.stage(TABLE, (), leaving, {}, branch="r", base=base)
    catalog.publish(TABLE, branch="r", staged=staged, base=base)
    assert people(engine, catalog) == []
    assert catalog.table(TABLE).current.total("records") == 0  # type: ignore[union-attr]


def test_some_files_can_leave_and_the_others_stay(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    gone, stays = write("gone"), write("stays")
    catalog.append(TABLE, (*gone, *stays), {})
    base = head(catalog)
    staged = catalog.stage(TABLE, write("new"), [gone[0].path], {}, branch="r", base=base)
    catalog.publish(TABLE, branch="r", staged=staged, base=base)
    assert people(engine, catalog) == ["new", "stays"]
    assert sorted(theirs(catalog).scan().to_arrow()["customer_id"].to_pylist()) == ["new", "stays"]


def test_a_file_leaves_under_whatever_name_another_program_gave_it(
    catalog: Catalog, engine: DuckDB, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(entries, "uri", lambda path: f"file:{path}")  # as Hadoop writes it
        catalog.append(TABLE, (*write("gone"), *write("stays")), {})
    base = head(catalog)
    gone = next(file.path for file in catalog.files(catalog.table(TABLE)) if "/w1/" in file.path)
    staged = catalog.stage(TABLE, write("new"), [gone], {}, branch="r", base=base)
    catalog.publish(TABLE, branch="r", staged=staged, base=base)
    assert people(engine, catalog) == ["new", "stays"]


def test_a_table_that_is_rewritten_again_and_again_does_not_gather_manifests(catalog: Catalog, write: Writer) -> None:
    def rewrite(run: str) -> int:
        base = head(catalog)
        leaving = [file.path for file in catalog.files(catalog.table(TABLE))]
        staged = catalog.stage(TABLE, write(run), leaving, {}, branch=run, base=base)
        catalog.publish(TABLE, branch=run, staged=staged, base=base)
        return len(theirs(catalog).current_snapshot().manifests(theirs(catalog).io))

    catalog.append(TABLE, write("first"), {})
    # one for what is there, one for what has just left
    assert [rewrite(run) for run in "abcd"] == [2, 2, 2, 2]


def test_a_file_that_is_not_there_cannot_leave(catalog: Catalog, write: Writer) -> None:
    base = head(catalog)
    with pytest.raises(LakeError, match="its current snapshot lacks 1 file to remove"):
        catalog.stage(TABLE, write("a"), ["/nowhere.parquet"], {}, branch="r", base=base)
    assert catalog.table(TABLE).branches == {"main": base}


def test_nothing_is_lost_when_main_moves_between_stage_and_publish(
    catalog: Catalog, engine: DuckDB, write: Writer
) -> None:
    base = head(catalog)
    staged = catalog.stage(TABLE, write("staged"), [], {}, branch="r", base=base)
    other = catalog.append(TABLE, write("appended"), {})
    with pytest.raises(CommitConflict, match=f"expected snapshot {base}, found {other}") as conflict:
        catalog.publish(TABLE, branch="r", staged=staged, base=base)
    assert "build` again" in str(conflict.value)
    assert people(engine, catalog) == ["appended"]
    assert catalog.table(TABLE).branches == {"main": other, "r": staged}


def test_nothing_is_staged_from_what_is_no_longer_main(catalog: Catalog, write: Writer) -> None:
    base = head(catalog)
    other = catalog.append(TABLE, write("a"), {})
    with pytest.raises(CommitConflict, match=f"expected snapshot {base}, found {other}"):
        catalog.stage(TABLE, write("b"), [], {}, branch="r", base=base)
    assert catalog.table(TABLE).branches == {"main": other}


def test_a_branch_is_published_once(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    base = head(catalog)
    staged = catalog.stage(TABLE, write("a"), [], {}, branch="r", base=base)
    catalog.publish(TABLE, branch="r", staged=staged, base=base)
    with pytest.raises(CommitConflict):
        catalog.publish(TABLE, branch="r", staged=staged, base=base)
    assert people(engine, catalog) == ["a"]


def test_what_is_discarded_leaves_no_branch_and_no_snapshot(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    catalog.append(TABLE, write("old"), {})
    before = catalog.table(TABLE)
    staged = catalog.stage(TABLE, write("new"), [], {}, branch="r", base=head(catalog))
    catalog.discard(TABLE, "r")
    after = catalog.table(TABLE)
    assert after.branches == before.branches
    assert after.snapshots == before.snapshots
    assert after.log == before.log
    assert after.snapshot(staged) is None
    assert people(engine, catalog) == ["old"]
    catalog.discard(TABLE, "r")
    catalog.discard(TABLE, "never was")


def test_discarding_does_not_touch_what_was_published(catalog: Catalog, engine: DuckDB, write: Writer) -> None:
    base = head(catalog)
    staged = catalog.stage(TABLE, write("new"), [], {}, branch="r", base=base)
    catalog.publish(TABLE, branch="r", staged=staged, base=base)
    catalog.discard(TABLE, "r")
    assert people(engine, catalog) == ["new"]


def test_the_quick_reader_and_pyiceberg_see_the_same_files_in_every_snapshot(catalog: Catalog, write: Writer) -> None:
    first = write("a", "b")
    catalog.append(TABLE, first, {})
    catalog.append(TABLE, write("c"), {})
    for branch, leaving in (("r1", [first[0].path]), ("r2", [])):
        base = head(catalog)
        staged = catalog.stage(TABLE, write("d"), leaving, {}, branch=branch, base=base)
        catalog.publish(TABLE, branch=branch, staged=staged, base=base)
    catalog.stage(TABLE, write("e"), [], {}, branch="open", base=head(catalog))
    table, state = theirs(catalog), catalog.table(TABLE)
    assert [s.id for s in state.snapshots] == [s.snapshot_id for s in table.snapshots()]
    assert [s.parent for s in state.snapshots] == [s.parent_snapshot_id for s in table.snapshots()]
    assert list(state.log) == [(e.timestamp_ms, e.snapshot_id) for e in table.history()]
    for snapshot in state.snapshots:
        planned = table.scan(snapshot_id=snapshot.id).plan_files()
        expected = [(t.file.file_path.removeprefix("file://"), t.file.record_count) for t in planned]
        assert [(f.path, f.rows) for f in catalog.files(state, snapshot)] == sorted(expected)
        assert all(os.path.getsize(f.path) == f.bytes for f in catalog.files(state, snapshot))


def test_plain_pyiceberg_reads_every_column_type_as_it_was_written(catalog: Catalog, engine: DuckDB) -> None:
    at = datetime(2022, 6, 18, 15, 0, 0, 123000, UTC)
    quarantined = ("customer", "a.json", "ff", 2**63 - 1, None, "malformed", b"\x00\xff'", 3, "b", at)
    files = engine.write(
        "quarantine",
        "select 'customer' as feed, 'a.json' as file, 'ff' as sha256, 9223372036854775807 as \"offset\", "
        "null::bigint as line, 'malformed' as reason, '\\x00\\xFF'''::blob as raw, 3::bigint as raw_size, "
        "'b' as batch, "
        f"instant({int(at.timestamp() * 1000)}) as landed_at",
        catalog.folder("quarantine") / "data" / "w",
    )
    catalog.append("quarantine", files, {})
    [row] = theirs(catalog, "quarantine").scan().to_arrow().to_pylist()
    assert tuple(row.values()) == quarantined
    instants = ", ".join(
        f'instant({n}) as "{column.name}"'
        for n, column in enumerate(COLUMNS["customers_trusted"])
        if column.type == "timestamptz"
    )
    files = engine.write(
        "customers_trusted",
        "select 'ab' as customer_id, 'Ω' as customerName, 'e' as email, null::varchar as phone, "
        f"date '0001-01-01' as birthDay, '' as serialNumber, {instants}",
        catalog.folder("customers_trusted") / "data" / "w",
    )
    catalog.append("customers_trusted", files, {})
    [row] = theirs(catalog, "customers_trusted").scan().to_arrow().to_pylist()
    assert row["birthDay"] == date(1, 1, 1)
    assert row["registrationDate"] == datetime(1970, 1, 1, 0, 0, 0, 6000, UTC)
    assert (row["customerName"], row["phone"], row["serialNumber"]) == ("Ω", None, "")


def test_plain_pyiceberg_prunes_by_the_bounds_and_finds_every_row(
    catalog: Catalog, engine: DuckDB, write: Writer
) -> None:
    catalog.append(TABLE, write("a", "b", "c"), {})  # x is 0, 1, 2
    table = theirs(catalog)
    for least, found in ((-1, 3), (0, 3), (1, 2), (2, 1), (3, 0)):
        assert table.scan(row_filter=f"x >= {least}").to_arrow().num_rows == found
    assert table.scan(row_filter="z is null").to_arrow().num_rows == 3
    assert table.scan(row_filter="x is null").to_arrow().num_rows == 0
    assert table.scan(row_filter="customer_id = 'b'").to_arrow().num_rows == 1


def test_no_manifest_bounds_a_column_of_text(lake: Lake, sample_inbox: Path) -> None:
    lake.land(sample_inbox)
    lake.build()
    texts = 0
    for name, state in lake.catalog.tables().items():
        kinds = {place: column.type for place, column in enumerate(COLUMNS[name], start=1)}
        for snapshot in state.snapshots:
            for entry in manifests(snapshot.manifest_list):
                file = entry["data_file"]
                for bounds in ("lower_bounds", "upper_bounds"):
                    found = {bound["key"] for bound in file[bounds] or ()}
                    assert {kinds[place] for place in found} <= {"long", "double"}, name
                texts += sum(kind == "string" for kind in kinds.values())
    assert texts


def test_the_bounds_of_numbers_are_read_back_as_they_are_in_the_file(lake: Lake, sample_inbox: Path) -> None:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    lake.land(sample_inbox)
    checked = 0
    for name in ("customers_landing", "accelerometer_landing", "step_trainer_landing"):
        numbers = {column.name for column in COLUMNS[name] if column.type == "long"}
        for file in lake.catalog.files(lake.catalog.table(name)):
            values = pq.read_table(file.path, columns=sorted(numbers))
            held = {column for column in numbers if len(values[column].drop_null())}
            assert file.bounds.keys() == held, name
            for column, bounds in file.bounds.items():
                assert bounds == tuple(str(of(values[column]).as_py()) for of in (pc.min, pc.max)), (name, column)
                checked += 1
    assert checked >= 5


def test_no_address_stands_in_metadata_or_in_the_catalog(lake: Lake, sample_inbox: Path) -> None:
    lake.land(sample_inbox)
    lake.build()
    emails = lake.query("select distinct email from customers_landing").arrow()["email"].to_pylist()
    assert len(emails) > 10
    shown = [lake.catalog.path.read_bytes(), (lake.root / "lake.toml").read_bytes()]
    for path in lake.root.rglob("metadata/*"):
        if path.suffix == ".avro":
            with path.open("rb") as stream:
                shown.append(repr(list(fastavro.reader(stream))).encode())
        else:
            shown.append(path.read_bytes())
    everything = b"\n".join(shown)
    assert not [email for email in emails if email.strip().encode() in everything]


def rewritten(path: Path, content: bytes) -> None:
    """Writes a metadata file as another program would: nobody recorded a checksum."""
    path.write_bytes(content)
    path.parent.parent.joinpath("checksums").unlink(missing_ok=True)


def test_delete_files_of_another_engine_are_refused_with_the_way_out(catalog: Catalog, write: Writer) -> None:
    catalog.append(TABLE, write("a"), {})
    snapshot = catalog.table(TABLE).current
    assert snapshot is not None
    path = Path(snapshot.manifest_list.removeprefix("file://"))
    with path.open("rb") as stream:
        reader = fastavro.reader(stream)
        schema, entries = reader.writer_schema, cast(list[dict[str, Any]], list(reader))
    entries.append({**entries[0], "content": 1})
    with io.BytesIO() as stream:
        fastavro.writer(stream, schema, entries)
        rewritten(path, stream.getvalue())
    with pytest.raises(LakeError, match="expected data files only, found delete files") as refused:
        catalog.files(catalog.table(TABLE))
    assert "OPTIMIZE" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_in_another_format_are_refused(catalog: Catalog, write: Writer) -> None:
    catalog.append(TABLE, write("a"), {})
    snapshot = catalog.table(TABLE).current
    assert snapshot is not None
    with open(snapshot.manifest_list.removeprefix("file://"), "rb") as stream:
        path = Path(next(iter(fastavro.reader(stream)))["manifest_path"].removeprefix("file://"))  # type: ignore[index,call-overload]
    with path.open("rb") as stream:
        reader = fastavro.reader(stream)
        schema, entries = reader.writer_schema, cast(list[dict[str, Any]], list(reader))
    entries[0]["data_file"]["file_format"] = "ORC"
    with io.BytesIO() as stream:
        fastavro.writer(stream, schema, entries)
        rewritten(path, stream.getvalue())
    with pytest.raises(LakeError, match="expected Parquet files, found ORC"):
        catalog.files(catalog.table(TABLE))


def refused(work: Callable[[], object]) -> str:
    """The one line with which broken files are refused."""
    with pytest.raises(LakeError) as error:
        work()
    assert "\n" not in str(error.value)
    assert error.value.exit_code == 1
    return str(error.value)


def metadata(catalog: Catalog) -> Path:
    with sqlite3.connect(catalog.path) as connection:
        [(location,)] = connection.execute(
            "select metadata_location from iceberg_tables where table_name = ?", (TABLE,)
        ).fetchall()
    connection.close()
    return Path(location.removeprefix("file://"))


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"{}", b'{"format-version": 2}', b"\xff\x00", b'{"format-version": 2, "schemas": 1}'],
)
def test_broken_metadata_is_one_line_that_names_the_table(catalog: Catalog, content: bytes) -> None:
    rewritten(metadata(catalog), content)
    message = refused(catalog.tables)
    assert TABLE in message
    assert "expected Iceberg metadata of version 2" in message


@pytest.mark.parametrize("version", [1, 3, "2", None])
def test_metadata_of_another_version_is_refused(catalog: Catalog, version: object) -> None:
    path = metadata(catalog)
    content = json.loads(path.read_bytes())
    content["format-version"] = version
    rewritten(path, json.dumps(content).encode())
    assert "version 2" in refused(catalog.tables)


def test_missing_metadata_is_one_line(catalog: Catalog) -> None:
    metadata(catalog).unlink()
    assert "found no file" in refused(catalog.tables)


@pytest.mark.parametrize("content", [b"", b"no database at all, whatever its name says" * 100])
def test_a_broken_catalog_is_one_line(catalog: Catalog, content: bytes) -> None:
    catalog.path.write_bytes(content)
    assert "expected a SQLite catalog" in refused(catalog.tables)


def test_a_missing_catalog_is_one_line(catalog: Catalog) -> None:
    catalog.path.unlink()
    assert "stedi repair" in refused(catalog.tables)
    assert not catalog.path.exists()


def test_an_unknown_table_is_refused_with_the_known_ones(catalog: Catalog) -> None:
    assert "expected one of accelerometer_landing" in refused(lambda: catalog.table("people"))


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_to_a_manifest_is_refused_in_one_line_or_changes_nothing_that_is_read(
    catalog: Catalog, write: Writer, data: st.DataObject
) -> None:
    if not catalog.files(catalog.table(TABLE)):
        catalog.append(TABLE, write("a"), {})
    state = catalog.table(TABLE)
    assert state.current is not None
    path = Path(state.current.manifest_list.removeprefix("file://"))
    if data.draw(st.booleans()):
        with path.open("rb") as stream:
            path = Path(next(iter(fastavro.reader(stream)))["manifest_path"].removeprefix("file://"))  # type: ignore[index,call-overload]
    whole = path.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    cut = data.draw(st.booleans())
    try:
        path.write_bytes(whole[:at] if cut else whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        with suppress(LakeError):
            assert len(catalog.files(state)) <= 1
    finally:
        path.write_bytes(whole)


def test_a_missing_manifest_is_one_line(catalog: Catalog, write: Writer) -> None:
    catalog.append(TABLE, write("a"), {})
    state = catalog.table(TABLE)
    assert state.current is not None
    Path(state.current.manifest_list.removeprefix("file://")).unlink()
    assert "found no file" in refused(lambda: catalog.files(state))


def test_a_catalog_whose_writer_was_killed_in_a_commit_is_read_as_it_was_before(catalog: Catalog) -> None:
    before = catalog.tables()
    script = (
        "import os, signal, sqlite3, sys\n"
        "c = sqlite3.connect(sys.argv[1])\n"
        "c.execute('pragma cache_size = 1')\n"
        "c.execute(\"update iceberg_tables set metadata_location = metadata_location || 'torn'\")\n"
        "c.execute('create table filler as with recursive n(i) as (select 1 union all select i + 1 from n "
        "where i < 9999) select i, hex(randomblob(50)) from n')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, str(catalog.path)], check=False)
    assert ended.returncode == -signal.SIGKILL
    journal = catalog.path.with_name("catalog.db-journal")
    assert journal.stat().st_size, "the writer left nothing to roll back: the test tests nothing"
    assert catalog.tables() == before


def test_a_catalog_that_cannot_be_rolled_back_is_one_line(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, mode: str) -> list[tuple[str, str]]:
        error = sqlite3.OperationalError("attempt to write a readonly database")
        error.sqlite_errorname = "SQLITE_READONLY_ROLLBACK"
        raise error

    monkeypatch.setattr(snapshots, "_tables", fail)
    assert "readonly" in refused(catalog.tables)


def test_a_failed_write_of_metadata_leaves_no_part_of_it(
    catalog: Catalog, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, before = write("a"), catalog.table(TABLE)
    names = sorted(path.name for path in catalog.folder(TABLE).rglob("*"))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            catalog.append(TABLE, files, {})
    assert catalog.table(TABLE) == before
    assert sorted(path.name for path in catalog.folder(TABLE).rglob("*")) == names


def test_metadata_is_on_disk_before_the_catalog_names_it(
    catalog: Catalog, write: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, synced = write("a"), set[str]()
    fsync = os.fsync

    def seen(descriptor: int) -> None:
        synced.add(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", seen)
    catalog.append(TABLE, files, {})
    folder = catalog.folder(TABLE) / "metadata"
    parts = {path for path in synced if Path(path).parent == folder}
    assert len(parts) == 3, "the manifest, the manifest list and the metadata"
    assert str(folder) in synced


@pytest.mark.parametrize("name", ["a b", "100%20", "it's", "[1]", "é", "a*b", "x=5", ";drop", '"q"', "~"])
@pytest.mark.sample(full=5)
def test_a_lake_works_in_a_folder_of_any_name(
    new_lake: Callable[..., Lake], sample_inbox: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "1").mkdir()
    lake = new_lake(f"{name}/lake")
    shutil.copytree(sample_inbox / "customer", tmp_path / "in" / name / "customer")
    landed = lake.land(tmp_path / "in")
    assert not landed.skipped
    lake.build()
    rows = lake.query("select count(*) as n from customers_trusted").arrow()["n"].to_pylist()
    assert rows == [lake.catalog.table("customers_trusted").current.total("records")]  # type: ignore[union-attr]
    assert rows[0] > 0
    assert catalog_files_lie_in(lake)


def catalog_files_lie_in(lake: Lake) -> bool:
    files = [f for state in lake.catalog.tables().values() for f in lake.catalog.files(state)]
    return bool(files) and all(Path(f.path).is_relative_to(lake.root) and Path(f.path).is_file() for f in files)


@pytest.mark.parametrize("name", ["what?", "a#b", "back\\slash", "new\nline", "\x1b[2J"])
def test_a_lake_is_refused_where_no_location_can_name_it(
    new_lake: Callable[..., Lake], tmp_path: Path, name: str
) -> None:
    from stedi.errors import UsageError

    with pytest.raises(UsageError, match="expected a path without") as refused:
        new_lake(f"{name}/lake")
    assert str(refused.value).isprintable()
    assert not list(tmp_path.iterdir())


def hinted(root: Path) -> dict[str, str | None]:
    """What each table's hint names, None where there is none."""
    hints = {name: root / zone / name / "metadata" / "version-hint.text" for name, zone in ALL_ZONES.items()}
    return {name: path.read_text() if path.exists() else None for name, path in hints.items() if path.parent.exists()}


def current(root: Path) -> dict[str, str]:
    return {name: Path(at).name.removesuffix(".metadata.json") for name, at in Catalog(root).listed().items()}


def withdrawn(lake: Lake, inbox: Path) -> None:
    people = ["ann@x.example", "bo@x.example"]
    deliver(inbox, "customer", [customer(p, serialNumber=f"s{n}") for n, p in enumerate(people)])
    deliver(inbox, "accelerometer", [motion(p, 100) for p in people])
    lake.land(inbox)
    lake.build()
    lake.withdraw("bo@x.example")


def test_a_hint_names_the_current_metadata_or_is_not_there_wherever_a_build_is_killed(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Else a reader who opens a table by its folder would see rows of who has withdrawn."""
    slate = Slate(tmp_path_factory.mktemp("hints"))
    lake = slate.made(withdrawn)
    assert hinted(lake.root) == current(lake.root)
    lake.build()
    calls, chance = 90, random.Random(5)
    lost = 0
    for place in sorted(chance.sample(range(1, calls), tries(1, 3, calls - 1))):
        print(f"killed at {place}")
        lake = slate.made(withdrawn)
        if not kills.at(place, Lake.open(lake.root).build):
            break
        now = current(lake.root)
        found = hinted(lake.root)
        lost += sum(hint is None for hint in found.values())
        assert {name: hint for name, hint in found.items() if hint is not None}.items() <= now.items()
        Lake.open(lake.root).build(full=True)
        assert hinted(lake.root) == current(lake.root) or not found["customers_trusted"]
    assert lost or not NIGHTLY


def test_a_hint_in_a_copy_by_hard_links_stays_what_it_is(lake: Lake, tmp_path: Path) -> None:
    shutil.copytree(lake.root, tmp_path / "copy", copy_function=os.link)
    before = hinted(lake.root)
    Lake.adopt(tmp_path / "copy")
    deliver(tmp_path / "in", "customer", [customer()])
    assert hinted(lake.root) == before == current(lake.root)
    assert before != hinted(tmp_path / "copy") == current(tmp_path / "copy")
    adopted = hinted(tmp_path / "copy")
    lake.land(tmp_path / "in")
    assert hinted(tmp_path / "copy") == adopted
    assert before != hinted(lake.root) == current(lake.root)
    Lake.open(tmp_path / "copy").land(tmp_path / "in")
    Lake.open(tmp_path / "copy").erase("ann@x.example")
    assert hinted(tmp_path / "copy") == current(tmp_path / "copy")
