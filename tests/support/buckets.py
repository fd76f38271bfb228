"""A bucket for tests, whose lakes are made once and then restored for each use.

The S3 server stores a bucket as a folder and metadata of objects as file attributes, so the folder can be copied. The
catalog's entries are in moto's Glue.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import servers
from lakes import unseen
from stedi.lake import Lake
from stedi.schema.tables import NAMESPACE
from stedi.storage import s3

_TOLD = ("Name", "Description", "Owner", "StorageDescriptor", "PartitionKeys", "TableType", "Parameters")


@dataclass(frozen=True, slots=True)
class World:
    """A copy of a bucket and of the catalog's entries at one time."""

    bucket: Path
    entries: tuple[dict[str, Any], ...]


class Bucket:
    """A bucket of the S3 server that the environment names, and the catalog entries of its lake.

    Args:
        store: That S3 server, where buckets are folders.
        folder: The folder for saved worlds.
    """

    def __init__(self, store: servers.Server, folder: Path) -> None:
        self._worlds = folder
        self.path = store.folder / servers.new_bucket()
        self._versions = store.folder.parent / "versions" / self.path.name

    @property
    def place(self) -> str:
        """Its URI, `s3://NAME`."""
        return f"s3://{self.path.name}"

    def kept(self, name: str) -> World:
        """Saves its current state under a name."""
        import boto3

        glue = boto3.client("glue")
        try:
            found = glue.get_tables(DatabaseName=NAMESPACE)["TableList"]
        except glue.exceptions.EntityNotFoundException:
            found = []
        shutil.copytree(self.path, self._worlds / name)
        entries = ({key: table[key] for key in _TOLD if key in table} for table in found)
        return World(self._worlds / name, tuple(entries))

    def put_back(self, world: World) -> None:
        """Restores a saved state."""
        import boto3

        self.refilled(world)
        glue, told = boto3.client("glue"), {entry["Name"]: entry for entry in world.entries}
        try:
            there = glue.get_tables(DatabaseName=NAMESPACE)["TableList"]
        except glue.exceptions.EntityNotFoundException:
            there = []
            glue.create_database(DatabaseInput={"Name": NAMESPACE})
        for table in there:
            if told.get(table["Name"], {}).get("Parameters") == table["Parameters"]:
                del told[table["Name"]]
            else:
                glue.delete_table(DatabaseName=NAMESPACE, Name=table["Name"])
        for entry in told.values():
            glue.create_table(DatabaseName=NAMESPACE, TableInput=entry)

    def refilled(self, world: World) -> None:
        """Restores its objects, without older versions."""
        shutil.rmtree(self._versions, ignore_errors=True)
        shutil.rmtree(self.path)
        shutil.copytree(world.bucket, self.path)


class Slate:
    """One bucket whose lake each test can set to a chosen state.

    Args:
        store: The S3 server that the environment names.
        folder: An empty folder for its use.
    """

    def __init__(self, store: servers.Server, folder: Path) -> None:
        self._store, self._folder = store, folder
        self._bucket: Bucket | None = None
        self._worlds: dict[str, World] = {}

    def emptied(self) -> str:
        """Empties the bucket and returns its name."""
        if not self._store.folder.parts:  # moto's S3 has none
            return servers.new_bucket()
        if self._bucket is None:
            self._bucket = Bucket(self._store, self._folder)
            self._worlds["empty"] = World(self._bucket.kept("empty").bucket, ())
        self._bucket.refilled(self._worlds["empty"])
        return self._bucket.path.name

    def made(self, bucket: str, make: Callable[[Lake], object] = lambda lake: None) -> Lake:
        """Returns the lake that a function makes of a new one; it runs once, then its result is restored."""
        name, root = f"{make.__module__}.{make.__qualname__}", f"s3://{bucket}/lake"
        if self._bucket is None:
            lake = Lake.create(root)
            make(lake)
            return lake
        if name not in self._worlds:
            make(Lake.create(root))
            self._worlds[name] = self._bucket.kept(name)
        else:
            self._bucket.put_back(self._worlds[name])
        return unseen(s3.at(root))
