"""Commits to the tables of a lake in a bucket: in the Glue Data Catalog, or another that PyIceberg supports.

PyIceberg's own configuration of a catalog named `stedi` says which (`PYICEBERG_CATALOG__STEDI__TYPE`, or
`.pyiceberg.yaml`); without one it is Glue, region, keys and endpoint as every AWS tool finds them. Reads go directly to
Glue, since importing PyIceberg takes longer than the answer.

A commit can be made and its answer lost. So an error is not believed before the table was looked at: what a commit
was to change tells whether it was made.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from stedi._frozen import dataclass
from stedi.catalog import configuration, metadata
from stedi.catalog.changes import TableChange
from stedi.catalog.metadata import Outrun
from stedi.catalog.snapshots import TableState, read_table
from stedi.catalog.sqlite import NAME
from stedi.errors import LakeError, MissingExtra
from stedi.schema.tables import ALL_ZONES, NAMESPACE
from stedi.storage import s3

if TYPE_CHECKING:
    from pyiceberg.catalog import Catalog
    from pyiceberg.table import Table

T = TypeVar("T")

NAMESPACES, TABLES = "catalog: namespaces", "catalog: tables of others"
ENTRIES = "catalog: entries of the lake's tables"
"""The places of a catalog in which other programs write, in words."""
_DEEPEST = 8
"""Levels of namespaces that are looked through."""
_VARIABLE = f"PYICEBERG_CATALOG__{NAME.upper()}__"


@dataclass(frozen=True, slots=True)
class OfOthers:
    """The content of a catalog that the lake has not written.

    Attributes:
        namespaces: Of each namespace its name, and its properties each with its value.
        tables: Of each table that is not the lake's namespace, name, what else the catalog says of it, and last its
            location, empty where that is not told.
        entries: What the catalog says of the lake's own tables beside their metadata.
        unseen: The places that could not be looked at.
    """

    namespaces: Sequence[tuple[str, ...]]
    tables: Sequence[tuple[str, ...]]
    entries: Sequence[str]
    unseen: tuple[str, ...]


class Remote:
    """The entries of one lake in such a catalog, and the commits to its tables.

    Args:
        root: The lake's prefix.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._loaded: Table

    def __str__(self) -> str:
        return f"database {NAMESPACE}"

    def listed(self) -> dict[str, str]:
        """Returns the location of each table's current metadata file, by the table's name.

        Raises:
            LakeError: The catalog cannot be reached, or its tables are another lake's.
        """
        with self._answering():
            found = self._of_glue() if self._glue is not None else self._of_any()
        for name, location in found.items():
            self._refuse_elsewhere(name, location)
        return {name: found[name] for name in ALL_ZONES if name in found}

    def location(self, table: str) -> str | None:
        """Returns the location of one table's current metadata file, or None if there is no such table.

        Raises:
            LakeError: The catalog cannot be reached, or the table is another lake's.
        """
        if table not in ALL_ZONES:
            return None
        with self._answering():
            found = self._one_of_glue(table) if self._glue is not None else self._one_of_any(table)
        if found is not None:
            self._refuse_elsewhere(table, found)
        return found

    def _refuse_elsewhere(self, table: str, location: str) -> None:
        """Refuses a table whose metadata file lies elsewhere than this lake puts it, be it further below its prefix."""
        # every lake's tables are in a database of one name: unchecked, a copy would change its original's tables
        if location.rpartition("/")[0] != f"{self._root}/{ALL_ZONES[table]}/{table}/metadata":
            raise LakeError(
                f"{self._root}: expected the tables of this lake in the catalog's database {NAMESPACE}, found "
                f"{table} of another lake: this is a copy, which cannot be used, or it has no catalog of its own; "
                "use the original lake, or configure a catalog for each lake"
            )

    def enter(self, locations: Mapping[str, str]) -> None:
        """Enters tables by the locations of their metadata files, those that are not there."""
        from pyiceberg.exceptions import TableAlreadyExistsError

        with self._answering():
            self._catalog.create_namespace_if_not_exists(NAMESPACE)
            for table, location in locations.items():
                try:
                    self._catalog.register_table((NAMESPACE, table), location)
                except TableAlreadyExistsError:
                    if self.listed().get(table) != location:  # or it was entered, and the answer lost
                        raise

    def drop(self, table: str) -> None:
        """Removes a table's entry, not its files."""
        with self._answering():
            self._catalog.drop_table((NAMESPACE, table))

    def of_others(self) -> OfOthers:
        """Returns the catalog's other content, as far as it may be read."""
        namespaces: list[tuple[str, ...]] = []
        tables: list[tuple[str, ...]] = []
        unseen: set[str] = set()

        def asked(place: str, question: Callable[[], T], otherwise: T) -> T:
            try:
                return question()
            except Exception:  # each catalog has its own errors
                unseen.add(place)
                return otherwise

        catalog, nothing = self._catalog, list[tuple[str, ...]]()
        levels = [asked(NAMESPACES, catalog.list_namespaces, nothing)]
        while levels[-1] and len(levels) < _DEEPEST:
            below = s3.each(lambda name: asked(NAMESPACES, lambda: catalog.list_namespaces(name), nothing), levels[-1])
            levels.append([name for above, names in below for name in names if len(name) > len(above)])
        known = {(NAMESPACE,), *(tuple(name) for level in levels for name in level)}
        none: dict[str, Any] = {}
        for name, about in s3.each(
            lambda name: asked(NAMESPACES, lambda: catalog.load_namespace_properties(name), none), sorted(known)
        ):
            namespaces += [(".".join(name), ""), *((str(key), str(value)) for key, value in about.items())]
        if unseen:  # nor can the tables of unlisted namespaces
            unseen.add(TABLES)
        entries, nobodys = list[str](), list[dict[str, Any]]()
        glue = self._glue or getattr(catalog, "glue", None)
        if glue is not None:
            described = s3.each(lambda name: asked(TABLES, lambda: _in_glue(glue, name[0]), nobodys), sorted(known))
            for table in (table for _, found in described for table in found):
                if table["DatabaseName"] == NAMESPACE and table["Name"] in ALL_ZONES:
                    entries += strings(table)
                else:
                    location = table.get("Parameters", {}).get("metadata_location", "")
                    tables.append((table["DatabaseName"], table["Name"], *strings(table), location))
            return OfOthers(namespaces, tables, entries, tuple(sorted(unseen)))
        listed = s3.each(lambda name: asked(TABLES, lambda: catalog.list_tables(name), nothing), sorted(known))
        theirs = [
            tuple(table)
            for _, names in listed
            for table in names
            if tuple(table[:-1]) != (NAMESPACE,) or table[-1] not in ALL_ZONES
        ]
        for table, location in s3.each(
            lambda table: asked(TABLES, lambda: catalog.load_table(table).metadata_location, ""), theirs
        ):
            tables.append((".".join(table[:-1]), table[-1], location))
        return OfOthers(namespaces, tables, entries, tuple(sorted(unseen)))

    def warm(self) -> None:
        """Imports what a commit needs."""
        _ = self._catalog

    def load(self, table: str) -> TableState:
        """Returns a table's current state, to change it."""
        with self._answering():
            found = self._catalog.load_table((NAMESPACE, table))
        self._refuse_elsewhere(table, found.metadata_location)
        # PyIceberg commits to the object that it loaded, with the requirements of that moment
        self._loaded = found
        return read_table(table, found.metadata_location)

    def commit(self, changes: Iterable[TableChange]) -> None:
        """Commits a change to one table from `load`.

        Args:
            changes: The change; these catalogs cannot commit several tables at once, and use their own clock.

        Raises:
            Outrun: Another program committed first, or a requirement does not hold.
            LakeError: The catalog cannot be reached.
        """
        from pyiceberg.exceptions import CommitFailedException, ValidationException
        from pyiceberg.table import CommitTableRequest

        [change] = changes
        name, updates = change.state.name, change.updates
        identifier = {"namespace": [NAMESPACE], "name": name}
        asked = CommitTableRequest.model_validate(
            {"identifier": identifier, "requirements": change.required, "updates": updates}
        )
        s3.prove()  # a suspended command must not continue after another has taken over
        try:
            self._catalog.commit_table(self._loaded, asked.requirements, asked.updates)
        except Exception as error:
            if _made(updates, self.load(name)):
                return
            if isinstance(error, CommitFailedException | ValidationException):
                raise Outrun from error
            with self._answering():
                raise

    def note(self) -> None:
        """Does nothing: this catalog is not a file that could be restored from yesterday."""

    @cached_property
    def _catalog(self) -> Catalog:
        properties = {"py-io-impl": "stedi.catalog.fileio.LakeFileIO"}
        try:
            if self._glue is not None:
                from pyiceberg.catalog.glue import GlueCatalog

                # a separate client would read boto's files again: 0.1 s
                return GlueCatalog(NAME, client=self._glue, **properties)
            from pyiceberg.catalog import load_catalog

            found = load_catalog(NAME, **properties)
        except ImportError as error:
            raise MissingExtra(
                f"the catalog of a lake in a bucket needs {error.name}, which is not installed: pip install "
                "'stedi[aws]'"
            ) from None
        if hasattr(found, "glue"):
            s3.steady(found.glue)
        return found

    @cached_property
    def _glue(self) -> Any:
        """The Glue client, or None where PyIceberg's configuration names a catalog."""
        if _configured():
            return None
        s3.client()  # raises an error that names it
        import boto3
        from botocore.config import Config

        return s3.steady(boto3.client("glue", config=Config(retries={"mode": "standard", "max_attempts": 8})))

    def _of_glue(self) -> dict[str, str]:
        listed = ((table["Name"], _named(table)) for table in _in_glue(self._glue, NAMESPACE))
        return {name: location for name, location in listed if location and name in ALL_ZONES}

    def _one_of_glue(self, table: str) -> str | None:
        try:
            return _named(self._glue.get_table(DatabaseName=NAMESPACE, Name=table)["Table"])
        except self._glue.exceptions.EntityNotFoundException:
            return None

    def _of_any(self) -> dict[str, str]:
        from pyiceberg.exceptions import NoSuchNamespaceError

        try:
            names = [name[-1] for name in self._catalog.list_tables(NAMESPACE) if name[-1] in ALL_ZONES]
        except NoSuchNamespaceError:
            return {}
        loaded = s3.each(lambda name: self._catalog.load_table((NAMESPACE, name)).metadata_location, names)
        return dict(loaded)

    def _one_of_any(self, table: str) -> str | None:
        from pyiceberg.exceptions import NoSuchTableError

        try:
            return self._catalog.load_table((NAMESPACE, table)).metadata_location
        except NoSuchTableError:
            return None

    @contextmanager
    def _answering(self) -> Iterator[None]:
        """Turns what the catalog refuses into one clear line."""
        from stedi.errors import StediError

        try:
            yield
        except StediError:
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.filename:  # an error about an object, from `s3`
                raise
            code = s3.error_code(error)
            raise LakeError(
                f"{self._root}: expected an answer from the catalog ({self}), found {code or type(error).__name__}; "
                "the tables are as before or as after the commit: check your access to it, and run the command "
                "again"
            ) from error


def strings(value: object) -> Iterator[str]:
    """Yields every text of nested values, names included."""
    match value:
        case dict():
            for key, part in value.items():
                yield str(key)
                yield from strings(part)
        case list():
            for part in value:
                yield from strings(part)
        case str():
            yield value


def _in_glue(client: Any, database: str) -> list[dict[str, Any]]:
    """Returns Glue's description of a database's tables: Iceberg, Hive or views."""
    pages = client.get_paginator("get_tables").paginate(DatabaseName=database)
    try:
        return [table for page in pages for table in page["TableList"]]
    except client.exceptions.EntityNotFoundException:
        return []


def _named(table: Mapping[str, Any]) -> str | None:
    """Returns the location of the metadata file that Glue's description of a table names, if it names one."""
    found: str | None = table.get("Parameters", {}).get("metadata_location")
    return found


def _configured() -> bool:
    """Returns whether PyIceberg's configuration may name a catalog of this name."""
    return any(name.upper().startswith(_VARIABLE) for name in os.environ) or any(
        (folder / configuration.FILE).is_file() for folder in configuration.folders()
    )


def _made(updates: metadata.Updates, state: TableState) -> bool:
    """Returns whether a table shows what updates, as the lake makes them, were to change."""
    known = {snapshot.id for snapshot in state.snapshots}
    refs = {**state.branches, **state.tags}
    published = {snapshot_id for _, snapshot_id in state.log}
    for update in updates:
        match update["action"]:
            case "add-snapshot":
                shown = update["snapshot"]["snapshot-id"] in known
            case "remove-snapshots":
                shown = known.isdisjoint(update["snapshot-ids"])
            case "remove-snapshot-ref":
                shown = update["ref-name"] not in refs
            case "add-schema" | "set-current-schema":
                return False  # which is tried again: then there is nothing left to do
            case _:  # others may have moved `main` since
                name, head = update["ref-name"], update["snapshot-id"]
                shown = refs.get(name) == head or (name == "main" and head in published)
        if not shown:
            return False
    return bool(updates)
