"""Mentions of erased customers in what other Iceberg clients wrote into the catalog; these stay.

The lake does not change properties of tables, snapshots and namespaces, or whole tables, that other programs wrote:
mentions in them are counted and reported by place. They are counted before anything is removed and again at the search,
so that mentions which the erasure itself removed are not reported.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from stedi._frozen import dataclass, replace
from stedi.catalog import Catalog
from stedi.catalog.remote import ENTRIES, NAMESPACES, TABLES, OfOthers, strings
from stedi.catalog.snapshots import local_path
from stedi.erasure import identifiers
from stedi.erasure.identifiers import Identifiers
from stedi.errors import LakeError
from stedi.schema.tables import ALL_ZONES, NAMESPACE
from stedi.storage import durable, s3

_NAMED = {"properties": "table properties", "snapshots": "snapshot properties"}


@dataclass(frozen=True, slots=True)
class Foreign:
    """Mentions in other programs' data, which stay.

    Attributes:
        texts: The texts themselves; they are never stored.
        places: How many there are in each place.
        folders: Folders of other programs' tables below the lake's.
        unseen: Places that cannot be read: a role may see only this lake's part of a catalog.
    """

    texts: frozenset[str]
    places: Mapping[str, int]
    folders: tuple[Path, ...]
    unseen: tuple[str, ...] = ()


def reread(catalog: Catalog, traces: Identifiers, judged: Foreign) -> Foreign:
    """Returns the same after the removal; an erasure completes even if the catalog can no longer be read.

    Args:
        catalog: The lake's tables.
        traces: What identifies the customers.
        judged: What it was before.
    """
    try:
        return read(catalog, traces)
    # by now everything is removed: the erasure ends, and its receipt says what was not looked at again
    except (LakeError, OSError, ValueError, sqlite3.Error):
        return replace(judged, unseen=("catalog",))


def read(catalog: Catalog, traces: Identifiers) -> Foreign:
    """Returns what of others in a lake's catalog mentions customers.

    Raises:
        LakeError: The catalog or a table's metadata cannot be read.
    """
    listed: list[tuple[str, str]] = []
    for name, state in catalog.tables().items():
        described = json.loads(s3.at(local_path(state.metadata[-1])).read_bytes())
        for part, value in described.items():
            place = f"{name}: {_NAMED.get(part, 'its description')}"
            listed += [(place, text) for text in strings(value)]
    folders: list[Path] = []
    others = _entries(catalog.path) if catalog.remote is None else catalog.remote.of_others()
    listed += [(NAMESPACES, text) for entry in others.namespaces for text in entry]
    found = _mentioning(listed, traces)
    told = {text for _, text in found}  # Glue repeats a table's properties
    listed = [(ENTRIES, text) for text in others.entries if text not in told]
    for *named, location in others.tables:
        listed += [(TABLES, text) for text in (*named, location)]
        folders += _folder(catalog.root, location)
    found |= _mentioning(listed, traces)
    places = Counter(place for place, _ in found)
    return Foreign(frozenset(text for _, text in found), dict(sorted(places.items())), tuple(folders), others.unseen)


def _mentioning(listed: Sequence[tuple[str, str]], traces: Identifiers) -> set[tuple[str, str]]:
    """Returns those of some places and texts whose text mentions customers."""
    texts = [text for _, text in listed]
    return {listed[at] for at in identifiers.telling(texts, lambda text: traces.found(text, data=False))}


def _entries(path: Path) -> OfOthers:
    """Returns properties of namespaces, and namespace, name and location of tables that are not the lake's own."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as connection:
        connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
        namespaces = connection.execute(
            "select namespace, property_key, property_value from iceberg_namespace_properties"
        ).fetchall()
        own = ", ".join("?" for _ in ALL_ZONES)
        tables = connection.execute(
            "select table_namespace, table_name, coalesce(metadata_location, '') from iceberg_tables "
            f"where not (table_namespace = ? and table_name in ({own}))",
            (NAMESPACE, *ALL_ZONES),
        ).fetchall()
    return OfOthers([tuple(map(str, row)) for row in namespaces], [tuple(map(str, row)) for row in tables], (), ())


def _folder(root: Path, location: str) -> list[Path]:
    """Returns the folder of a table of others below a lake's; none that holds anything of the lake."""
    path = local_path(location)
    if not location or s3.is_remote(root) != s3.is_remote(path) or ("://" in path and not s3.is_remote(path)):
        return []
    home, folder = durable.realpath(root), durable.realpath(s3.at(path).parent.parent)
    if not folder.startswith(f"{home}/"):
        return []
    inside = folder.removeprefix(f"{home}/")
    first, _, rest = inside.partition("/")
    table = rest.partition("/")[0]
    # what lies in a table's own folder is searched as the lake's, whoever says that it is theirs
    if first in ALL_ZONES.values() and (not table or ALL_ZONES.get(table) == first):
        return []
    return [] if first in _OWN else [root / inside]


_OWN = frozenset({"tmp", "pending", "receipts", "journal", "workers", "access", "runs", "backups"})
"""Folders of the lake without tables of other programs."""
