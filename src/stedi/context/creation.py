"""Creates a lake: its folder, its key outside of it, its catalog, and last its settings."""

from __future__ import annotations

import os
import secrets
from fnmatch import fnmatch
from pathlib import Path

from stedi.catalog import Catalog
from stedi.context import places
from stedi.errors import KeyRefused, UsageError
from stedi.privacy import pseudonyms, secrets_manager, signatures
from stedi.privacy.pseudonyms import Key
from stedi.schema.roles import Readings
from stedi.storage import config as settings
from stedi.storage import copies, destinations, durable, s3
from stedi.storage.config import Config


def make(path: str | os.PathLike[str], readings: Readings, key_file: str | os.PathLike[str] | None) -> None:
    """Makes a lake.

    Args:
        path: A new or empty folder.
        readings: Which readings of a consenting customer are used (rule 4 of consent).
        key_file: Where the key is, or is to be made: a file, or `secretsmanager:NAME`; by default a file in the user's
            configuration folder.

    Raises:
        UsageError: The folder holds something else, or a lake, or its path cannot be a table's location.
        KeyRefused: No key can be made or read.
    """
    root = places.named(path)
    odd = next((c for c in str(root) if c in "?#\\" or not c.isprintable()), None)
    if odd:
        # Iceberg's readers take a table's location for a URI
        raise UsageError(
            f"{str(root)!r}: expected a path without {odd!r}, which a URI cannot hold; name another folder"
        )
    if root.exists() and not (root.is_dir() and all(_is_part_of_new_lake(entry.name) for entry in root.iterdir())):
        what = "a lake" if (root / "lake.toml").exists() else "something else"
        raise UsageError(f"{path}: expected an empty folder, found {what}; name another with --lake")
    above = next((part for part in root.parents if _is_lake(part)), None)
    if above is not None:
        # erasures of that lake search every file below it, and in a bucket remove older versions of all objects there
        raise UsageError(f"{path}: expected a place outside of any lake, found one in the lake {above}; name another")
    copies.unregister(root)
    durable.folder(root, 0o700)
    root.chmod(0o700)
    with durable.lock(root / "init.lock", wait=True):
        if (root / "lake.toml").exists():
            raise UsageError(f"{path}: expected an empty folder, found a lake that another command has just made")
        lake_id = secrets.token_hex(8)
        key, file = _first_key(lake_id, root, key_file)
        Catalog(root).create()
        signs_as = signatures.fingerprint(signatures.publish(root, key, creating=True))
        config = Config(lake_id, key.fingerprint, file, key.version, signs_as=signs_as)
        # the settings come last: a folder that has them is a whole lake
        settings.write(settings.changed(config, readings=readings), root / "lake.toml")
        for partial in root.glob(_PARTIAL_SETTINGS):
            partial.unlink()


def _is_lake(place: Path) -> bool:
    if s3.is_remote(place) and not getattr(place, "bucket", ""):
        return False
    try:
        return (place / "lake.toml").is_file()
    except PermissionError:  # without read access there is no key of this user
        return False


_PARTIAL_SETTINGS = ".lake.toml.*.partial"


def _is_part_of_new_lake(name: str) -> bool:
    """Returns whether a file may exist before a lake's settings: an interrupted creation is repeated."""
    files = ("catalog.db", "catalog.db-journal", "catalog.lock", "init.lock", _PARTIAL_SETTINGS)
    # a separate volume has lost+found from the start
    parts = (*files, "landing", "trusted", "curated", "keys", "lost+found")
    return any(fnmatch(name, part) for part in parts)


def _first_key(lake_id: str, root: Path, key_file: str | os.PathLike[str] | None) -> tuple[Key, str]:
    """Returns a new lake's key and the file to remember, if it is not the usual one."""
    key = pseudonyms.from_environment()
    if key is not None:
        return key, ""
    named = key_file or os.environ.get("STEDI_KEY_FILE")
    if named and secrets_manager.names(str(named)):
        place = str(named)
        return (secrets_manager.read(place) if secrets_manager.exists(place) else secrets_manager.make(place)), place
    if named:
        path = destinations.expanded(named).absolute()
        if path.resolve().is_relative_to(root.resolve()):
            raise KeyRefused(f"pseudonym key {path}: expected a path outside the lake, found one in it; name another")
        key = pseudonyms.from_file(path) if path.exists() else pseudonyms.make(path)
        # a service's credential is there only while it runs: whoever runs it says where it is
        return key, "" if pseudonyms.is_credential(path) else str(path)
    return pseudonyms.make(pseudonyms.default_file(lake_id)), ""
