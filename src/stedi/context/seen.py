"""The record of a lake's last known state: a file outside the lake that only ever moves forward.

A lake whose files are all in order can still be yesterday's: restored, or put back by somebody, with a withdrawal or an
erasure undone. That cannot be told from the lake. So each command that writes notes, in a folder beside the key, how
far the lake was: the version of each table's metadata, the last entry of its journal, and how much its tombstones bar.
A lake that is behind its mark is refused; one that is ahead was written from another machine, or by a command that was
killed, and the mark follows. The same folder keeps copies of the journal.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stedi._frozen import asdict, dataclass
from stedi.catalog import Catalog
from stedi.context import access
from stedi.errors import UsageError
from stedi.privacy import journal, receipts, state, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.storage import destinations, durable, s3

NAME = "seen.json"
"""The mark's file, in the folder outside the lake."""
_KIND = "seen"
_VERSION = re.compile(r"0*([0-9]+)-[^/]*\.metadata\.json$")
"""The version in the name of a metadata file, as of `00007-UUID.metadata.json`."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A state of a lake.

    Attributes:
        tables: For each table, the version of its metadata and the name of the metadata file.
        number: The number of the journal's last entry.
        digest: The SHA-256 of that entry.
        barred: The number of barred things in the tombstones, which grows with each erasure.
        access: Number and seal of the last line of the access log; a log that was cut short since is noticed by
            `audit`, and keeps nobody from writing.
        receipts: How many receipts of erasures there are; one that is gone is said, and keeps nobody from writing.
    """

    tables: Mapping[str, tuple[int, str]]
    number: int
    digest: str
    barred: int
    access: tuple[int, str] = (0, "")
    receipts: int = 0


def place(lake_id: str, path: str, key_place: str | None, environment: Mapping[str, str] | None = None) -> Path:
    """Returns the folder outside a lake with the record of its state and copies of its journal.

    Args:
        lake_id: The lake's id.
        path: The setting `journal.path`.
        key_place: The key's file, or None if the key comes from the environment or a secret.
        environment: By default the process's.

    Raises:
        UsageError: Nobody's home folder is known, or what names it is no absolute path.
    """
    found = os.environ if environment is None else environment
    if path:
        base = s3.at(path) if s3.is_remote(path) else destinations.expanded(path)
    elif key_place is not None:
        base = destinations.expanded(key_place).absolute().parent
    else:
        try:
            base = destinations.of_user("XDG_STATE_HOME", "~/.local/state", found) / "stedi"
        except UsageError as error:
            raise UsageError(
                f"the place of the record of a lake's last known state: {error}; set HOME, XDG_STATE_HOME or "
                "journal.path in lake.toml to the path of a folder from the root on"
            ) from error
    return base / f"{lake_id}.{journal.FOLDER}"


def now(catalog: Catalog, root: Path, key: Key, without: Collection[str] = ()) -> Seen:
    """Returns how far a lake is, but for some tables."""
    tables = {}
    for name, location in catalog.listed().items():
        version = _VERSION.search(location)
        if version and name not in without:
            tables[name] = (int(version[1]), location.rpartition("/")[2])
    return Seen(tables, *journal.head(root), _barred(root, key), access.head(root), len(receipts.names(root)))


def read(folder: Path, lake_id: str, key: Key) -> Seen | None:
    """Returns the record, or None; a damaged one counts as missing, since its writer has the key anyway.

    Without a record, the copies of the journal show the state of the journal.
    """
    try:
        plain = state.unsealed((folder / NAME).read_bytes(), NAME, _KIND, lake_id, key, advice="")
        return from_json(plain)
    except (FileNotFoundError, state.StateRefused):
        with suppress(OSError):
            number = journal.last(folder)
            return Seen({}, number, "", 0) if number else None
        return None


def write(folder: Path, lake_id: str, key: Key, mark: Seen) -> None:
    """Writes the mark, whole; a power cut may leave the one before it, which does no harm."""
    raw = state.sealed(_KIND, lake_id, key, asdict(mark))
    path = folder / NAME
    if s3.is_remote(folder):
        return s3.write(path, raw)
    durable.folder(folder, 0o700)
    # not `durable.replacing`: that waits for the disk, at the end of every command
    beside = folder / f".{NAME}.{os.urandom(8).hex()}.partial"
    try:
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600), "wb") as stream:
            stream.write(raw)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink(missing_ok=True)
        raise


def older(mark: Seen, found: Seen, root: Path, key: Key) -> tuple[str, str, str] | None:
    """Returns what in a lake is older than its record, with recorded and found values; None if nothing is.

    After a journal entry about a deliberate rollback, the state in that entry counts.
    """
    resets = []
    if found.number > mark.number:
        later = journal.entries(root / journal.FOLDER, key, mark.number)
        resets = [entry for entry in later if entry.what == "reset"]
    # on another machine: this one has not followed it yet
    if resets:
        mark = from_json(resets[-1].content)
    elif found.number < mark.number:
        return journal.FOLDER, f"entry {mark.number}", f"entry {found.number}"
    elif mark.digest and journal.digest(root, mark.number) != mark.digest:
        return journal.FOLDER, f"entry {mark.number}", "another of that number"
    for name, (version, file) in mark.tables.items():
        # a table that was made anew begins to count anew, which `Context.accept` records
        there, other = found.tables.get(name, (-1, ""))
        if there < version:
            return name, f"version {version}", f"version {there}" if other else "no such table"
        # two histories can be equally long: the lake was put back, and has been written since
        if there == version and other != file:
            return name, f"version {version}", "another of that number"
    if found.barred < mark.barred:
        return tombstones.NAME, "those of every erasure", "older ones"
    return None


def to_json(mark: Seen) -> dict[str, Any]:
    """Returns a mark as plain values."""
    return asdict(mark)


def from_json(plain: Mapping[str, Any]) -> Seen:
    """Returns a mark from what `to_json` gave."""
    tables = {str(name): (int(version), str(file)) for name, (version, file) in plain["tables"].items()}
    number, seal = plain.get("access", (0, ""))
    noted = (int(plain["number"]), str(plain["digest"]), int(plain["barred"]), (int(number), str(seal)))
    return Seen(tables, *noted, int(plain.get("receipts", 0)))


def _barred(root: Path, key: Key) -> int:
    known = tombstones.read(root, key)
    # for people and devices, the instants until which they are barred: the sum also grows when one is erased again
    return sum(known.people.values()) + sum(known.serials.values()) + len(known.moments) + len(known.records)
