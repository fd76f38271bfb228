"""Any series of changes: what the lake commits is what PyIceberg commits, but for ids, times and names of files.

The same series goes to two catalogs, one with the lake's own committer and one with PyIceberg's producers and updates
(`iceberg_commits`). After each change metadata, manifest lists and manifests are compared, headers and schemas too.
From the metadata before, and the updates that a catalog elsewhere is handed, PyIceberg makes what the lake has written.
In the end PyIceberg plans the files of every snapshot.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import fastavro
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.table.update import update_table_metadata

import quick
from effort import NIGHTLY
from iceberg_commits import IcebergCommitter, parsed
from stedi.catalog import Catalog, Erasing
from stedi.catalog.changes import TableChange
from stedi.catalog.local import Local
from stedi.catalog.snapshots import TableState, local_path
from stedi.errors import CommitConflict
from stedi.schema.tables import NAMESPACE, DataFile

TABLE = "accelerometer_landing"
KINDS = ("replace", "tag", "untag", "expire", "clear")
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}(-m[0-9]+)?")
_TIMES = ("timestamp-ms", "last-updated-ms")


class Side:
    """One of the two catalogs, and its snapshots by the order in which they were made."""

    def __init__(self, root: Path) -> None:
        self.catalog = Catalog(root)
        root.mkdir()
        self.catalog.create([TABLE])
        self.order: dict[int, str] = {}
        self.state()

    def state(self) -> TableState:
        state = self.catalog.table(TABLE)
        for snapshot in state.snapshots:
            self.order.setdefault(snapshot.id, f"snapshot {len(self.order)}")
        return state

    def file(self, number: int, rows: int) -> DataFile:
        path = self.catalog.folder(TABLE) / "data" / f"{number}.parquet"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(rows + 1))
        bounds = {"timestamp": (str(number), str(number + rows)), "x": ("-0.5", repr(rows / 3)), "user": ("a", "z")}
        return DataFile(str(path), rows, rows + 1, {"user": 0, "x": number % 3}, bounds if number % 4 else {})

    def plain(self, value: Any, key: str = "") -> Any:
        """A value without what differs from one side to the other."""
        if isinstance(value, Mapping):
            if value.get("element-id") == 136:  # PyIceberg writes these as `long`, against the specification
                value = {**value, "items": "int"}
            found = {name: self.plain(part, name) for name, part in value.items() if name not in ("doc", "table-uuid")}
            return {name: part for name, part in found.items() if part not in (None, [], {})}
        if isinstance(value, list):
            return [self.plain(part) for part in value]
        if isinstance(value, int) and value in self.order:
            return self.order[value]
        if isinstance(value, str):
            for snapshot, name in self.order.items():
                value = value.replace(str(snapshot), name)
            return _UUID.sub("uuid", value.replace(str(self.catalog.root), "root"))
        return 0 if key in _TIMES or key == "manifest_length" else value

    def everything(self) -> dict[str, Any]:
        """Metadata, and of each snapshot its list and manifests, with headers."""
        state = self.state()
        metadata = json.loads(Path(local_path(state.metadata[-1])).read_bytes())
        times = [entry["timestamp-ms"] for entry in metadata["snapshot-log"]]
        assert times == sorted(times)
        assert metadata["last-updated-ms"] >= max(times, default=0)
        shown: dict[str, Any] = {"metadata": self.plain(metadata)}
        for snapshot in state.snapshots:
            listed = avro(snapshot.manifest_list)
            for manifest in listed["records"]:
                assert manifest["manifest_length"] == os.path.getsize(local_path(manifest["manifest_path"]))
            each = [avro(manifest["manifest_path"]) for manifest in listed["records"]]
            for found in each:
                # PyIceberg keeps entries that stay in a set
                found["records"].sort(key=lambda entry: (entry["status"], entry["data_file"]["file_path"]))
            shown[self.order[snapshot.id]] = self.plain({"list": listed, "manifests": each})
        return shown


def avro(location: str) -> dict[str, Any]:
    with open(local_path(location), "rb") as stream:
        reader = fastavro.reader(stream)
        header = {**reader.metadata}
        header.pop("avro.schema")
        header["schema"] = json.loads(header.get("schema", "null"))
        return {"header": header, "schema": reader.writer_schema, "records": list(reader)}


class Series:
    """A random series of changes, made to both sides alike."""

    def __init__(self, random: Random, *sides: Side) -> None:
        self.random, self.sides = random, sides
        self.files = self.names = 0

    def step(self) -> str:
        """Makes one change and returns what it was."""
        kind = self.random.choice(
            [
                "append",
                "append",
                "stage",
                "stage",
                "stage",
                "replace",
                "erase",
                "erase",
                "tag",
                "untag",
                "expire",
                "clear",
            ]
        )
        seed = self.random.random()
        before = self.files, self.names
        done = []
        for side in self.sides:
            self.files, self.names = before
            done.append(getattr(self, f"_{kind}")(side, Random(seed)))
        assert done[0] == done[1], f"{kind}: {done}"
        return f"{kind}: {done[0]}"

    def _new(self, side: Side, random: Random, most: int = 3) -> list[DataFile]:
        found = [side.file(self.files + n, random.randrange(1, 9)) for n in range(random.randrange(most))]
        self.files += len(found)
        return found

    def _some(self, side: Side, random: Random, snapshot: int) -> list[str]:
        state = side.catalog.table(TABLE)
        files = side.catalog.files(state, state.snapshot(snapshot))
        return [file.path for file in files if random.random() < 0.4]

    @staticmethod
    def _head(side: Side) -> int:
        current = side.catalog.table(TABLE).current
        assert current is not None
        return current.id

    def _append(self, side: Side, random: Random) -> str:
        side.catalog.append(TABLE, self._new(side, random), {"stedi.batch": str(random.random())})
        return ""

    def _stage(self, side: Side, random: Random) -> str:
        base, self.names = self._head(side), self.names + 1
        branch, new, leaving = f"b{self.names}", self._new(side, random), self._some(side, random, base)
        staged = side.catalog.stage(TABLE, new, leaving, {"stedi.run": branch}, branch=branch, base=base)
        then = random.choice(["publish", "publish", "discard", "left", "outrun"])
        if then == "publish":
            side.catalog.publish(TABLE, branch=branch, staged=staged, base=base)
        elif then == "discard":
            side.catalog.discard(TABLE, branch)
        elif then == "outrun":
            side.catalog.append(TABLE, (), {"by": "another"})
            with pytest.raises(CommitConflict, match="main has moved"):
                side.catalog.publish(TABLE, branch=branch, staged=staged, base=base)
        return then

    def _replace(self, side: Side, random: Random) -> str:
        base = self._head(side)
        side.catalog.replace(
            TABLE, self._new(side, random), self._some(side, random, base), {"stedi.run": "m"}, base=base
        )
        return ""

    def _erase(self, side: Side, random: Random) -> str:
        state, base = side.catalog.table(TABLE), self._head(side)
        by_snapshot: dict[int, list[str]] = {}
        for name, head in sorted(state.pins.items()):
            by_snapshot.setdefault(head, []).append(name)
        chosen = [base, *(head for head in by_snapshot if head != base and random.random() < 0.5)]
        new = self._new(side, random)
        changes = [
            Erasing(
                head, tuple(new), tuple(self._some(side, random, head)), {"stedi.erasure": "e"},
                tuple(by_snapshot.get(head, ())),
            )
            for head in chosen
        ]  # fmt: skip
        side.catalog.erase(TABLE, changes, base=base)
        return str(len(changes))

    def _tag(self, side: Side, random: Random) -> str:
        self.names += 1
        snapshot = random.choice(side.catalog.table(TABLE).snapshots)
        side.catalog.tag(TABLE, f"t{self.names}", snapshot.id)
        with pytest.raises(CommitConflict):
            side.catalog.tag(TABLE, f"t{self.names}", snapshot.id)
        return ""

    def _untag(self, side: Side, random: Random) -> str:
        tags = side.catalog.table(TABLE).tags
        name = random.choice([*sorted(tags), "none"])
        if name in tags:
            side.catalog.untag(TABLE, name, tags[name])
        return name

    def _expire(self, side: Side, random: Random) -> str:
        state = side.catalog.table(TABLE)
        old = [s.id for s in state.snapshots if s != state.current and random.random() < 0.3]
        branches = [name for name in sorted(state.branches) if name != "main" and random.random() < 0.3]
        side.catalog.expire(TABLE, old, branches, base=random.choice([None, self._head(side)]))
        return f"{len(old)} {branches}"

    def _clear(self, side: Side, random: Random) -> str:
        state = side.catalog.table(TABLE)
        keeping = {state.tags[name] for name in sorted(state.tags) if random.random() < 0.7}
        side.catalog.clear(TABLE, keeping=keeping)
        return str(len(keeping))


@pytest.fixture(scope="module", autouse=True)
def on_memory() -> Iterator[None]:
    with quick.quickened():
        yield


def handed_over(patch: pytest.MonkeyPatch) -> None:
    """Has PyIceberg make of each table, by the updates that are committed, what the lake makes of it."""
    commit = Local.commit

    def both(self: Local, changes: Iterable[TableChange]) -> None:
        [change] = changes
        state, before = change.state, change.state.metadata[-1]
        base = TableMetadataUtil.parse_raw(Path(local_path(before)).read_text("utf-8"))
        for requirement in change.required:
            assert requirement["type"] != "assert-table-uuid" or requirement["uuid"] == str(base.table_uuid)
        made = update_table_metadata(base, parsed(list(change.updates)), metadata_location=before)
        commit(self, [change])
        location = self._pointers.location(state.name)
        assert location is not None
        ours = TableMetadataUtil.parse_raw(Path(local_path(location)).read_text("utf-8"))
        side = Side.__new__(Side)
        side.order, side.catalog = {}, Catalog(Path("/nowhere"))
        wanted, found = (json.loads(m.model_dump_json()) for m in (made, ours))
        if location == before:  # nothing to commit: the log of metadata stays as it is
            wanted["metadata-log"] = found["metadata-log"]
        assert side.plain(found) == side.plain(wanted)

    patch.setattr(Local, "commit", both)


@settings(max_examples=300 if NIGHTLY else 6, suppress_health_check=list(HealthCheck), print_blob=True)
@given(seed=st.integers(0, 2**32))
@pytest.mark.thorough
def test_any_series_of_changes_is_committed_as_pyiceberg_commits_it(seed: int) -> None:
    with quick.folder() as folder, pytest.MonkeyPatch.context() as patch:
        ours, theirs = Side(folder / "ours"), Side(folder / "theirs")
        theirs.catalog._committer = IcebergCommitter(theirs.catalog)  # type: ignore[assignment]
        handed_over(patch)
        series, told = Series(Random(seed), ours, theirs), []
        for _ in range(12):
            told.append(series.step())
            assert ours.everything() == theirs.everything(), told
        state = ours.state()
        seen = SqlCatalog("stedi", uri=f"sqlite:///{ours.catalog.path}").load_table((NAMESPACE, TABLE))
        for snapshot in state.snapshots:
            planned = seen.scan(snapshot_id=snapshot.id).plan_files()
            found = sorted((local_path(t.file.file_path), t.file.record_count) for t in planned)
            assert found == [(file.path, file.rows) for file in ours.catalog.files(state, snapshot)], told
            assert snapshot.total("records") == sum(rows for _, rows in found)
        quick.forget()
