"""Lists delivered objects of S3, skips those that have landed, and copies the others to this machine.

The rules of `local` apply: a named object is taken whatever its name, a prefix delivers the objects below it as a
folder does, and a glob its matches (`**` means any folders). Inspected objects are remembered by key, ETag and size, so
that a prefix with many objects costs only its listing and the new ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import cast

from stedi._frozen import dataclass, replace
from stedi.catalog import Catalog
from stedi.context.progress import run_id
from stedi.engines.duckdb import DuckDB
from stedi.errors import UnreadableFile, printable_name
from stedi.landing import rows
from stedi.landing.deliveries import batches
from stedi.landing.deliveries.local import ARCHIVED, ARCHIVES, HIDDEN, Delivered, Skipped, feed_of, is_foreign
from stedi.landing.rows import LandedFile
from stedi.storage import durable, s3
from stedi.storage.s3 import Object, S3Path

FOLDER = "arrivals"
"""The folder of the lake that records inspected objects."""

_PARTS = 16
"""The most such files before they are merged."""
_BATCH_BYTES = 2 << 30
"""Bytes of objects that one commit holds, and so what their copies on this machine take."""
_AT_ONCE = 4096
"""SHA-256 sums that one statement asks for."""
_MAGIC = re.compile(r"[*?[]")


@dataclass(frozen=True, slots=True)
class Arrival:
    """One object of a delivery.

    Attributes:
        object: Its place and its listing.
        name: Its name for the caller, from the last part of the argument.
        feed: The feed from the call, its name or the nearest prefix, or None.
        said: Whether the call named it.
    """

    object: Object
    name: str
    feed: str | None
    said: bool = False

    @property
    def delivered(self) -> Delivered:
        """The object as a file that `copied` can have."""
        return Delivered(self.object.path, self.name, self.feed, self.object.tag, self.said)


def walk(paths: Iterable[Path], feed: str | None = None, avoid: Path | None = None) -> Iterator[Arrival | Skipped]:
    """Yields every object of locations in S3 once.

    Args:
        paths: Objects, prefixes and globs.
        feed: The feed of all of them, if the call names it.
        avoid: A prefix to leave out: the lake's own.
    """
    seen = set[S3Path]()
    for path in paths:
        place = cast(S3Path, path)
        found = False
        try:
            for arrival in _named(place, feed):
                found = True
                where = arrival.object.path if isinstance(arrival, Arrival) else None
                if where is None:
                    yield arrival
                elif avoid is not None and where.is_relative_to(avoid):
                    yield Skipped(arrival.name, "inside the lake's own prefix, which is not a delivery", failed=False)
                elif where not in seen:
                    seen.add(where)
                    yield arrival
        except OSError as error:
            yield Skipped(printable_name(str(place)), f"cannot be listed: {error.strerror}", failed=True, passing=True)
            continue
        if not found:
            yield Skipped(printable_name(str(place)), "no such object, and none below it", failed=True)


def _named(place: S3Path, feed: str | None) -> Iterator[Arrival | Skipped]:
    """Gives what one argument delivers."""
    parts = place.key.split("/") if place.key else []
    top, meant = searched(place)
    plain = len(top.parts) - 2
    for found in s3.listing(top):
        key = found.path.key
        if not meant(key):
            continue
        exact = key == place.key
        below = found.path.name if exact else key.removeprefix(f"{top.key}/" if top.key else "")
        *folders, base = below.split("/")
        name = printable_name(below if exact else f"{top.name or place.bucket}/{below}")
        if not exact and any(part.startswith(HIDDEN) for part in (*folders, base)):
            continue
        if base.lower().endswith(ARCHIVES):
            yield Skipped(name, ARCHIVED, failed=True)
        elif not exact and is_foreign(base):
            yield Skipped(name, "an object whose name does not end like JSON", failed=False)
        else:
            above = parts[: plain - 1] if exact else parts[:plain]
            yield Arrival(found, name, feed or feed_of(base, (*above, *folders)), feed is not None)


def searched(place: Path) -> tuple[S3Path, Callable[[str], bool]]:
    """Returns the prefix in which a location's objects are, and what tells whether it means a key of the prefix."""
    top = _plain_part(place)
    # as in a folder, what is there by this very name is no glob
    if top == place or place.exists():
        return cast(S3Path, place), lambda key: True
    parts = cast(S3Path, place).key.split("/")
    # repeated `**` mean what one does, and cost a search for each
    glob = [part for n, part in enumerate(parts) if part != "**" or parts[n - 1 : n] != ["**"]]
    return top, lambda key: _matches(glob, key.split("/"))


def _plain_part(place: Path) -> S3Path:
    """Returns the part of a location before the first wildcard in its key."""
    parts = place.parts
    plain = next((n for n, part in enumerate(parts) if n > 1 and _MAGIC.search(part)), len(parts))
    return S3Path(*parts[:plain])


def _matches(parts: Sequence[str], names: Sequence[str]) -> bool:
    """Returns whether a glob matches a key, or a folder above it; wildcards other than `**` stay within a folder."""
    if not parts:
        return True
    first, *rest = parts
    if first == "**":
        # at the end it matches what is in a folder, not an object of the folder's name
        return any(_matches(rest, names[n:]) for n in range(len(names))) if rest else bool(names)
    return bool(names) and fnmatchcase(names[0], first) and _matches(rest, names[1:])


class SeenObjects:
    """The objects of some locations that were inspected before.

    Args:
        root: The lake's folder.
    """

    def __init__(self, root: Path) -> None:
        self._folder = root / FOLDER
        self._parts = sorted(entry.path for entry in durable.walk(self._folder))
        self._seen: dict[str, tuple[str, int, str]] = {}
        for _, part in s3.each(lambda path: _read(path), self._parts):
            self._seen.update(part)

    def sha256(self, found: Object) -> str | None:
        """Returns the SHA-256 of an object that has not changed since its inspection."""
        tag, size, sha256 = self._seen.get(str(found.path), ("", 0, ""))
        return sha256 if (tag, size) == (found.tag, found.size) else None

    def note(
        self, looked_at: Iterable[tuple[Object, str]], listed: Iterable[Object], places: Sequence[Path] = ()
    ) -> None:
        """Records the SHA-256 of objects; when files are merged, objects that no longer exist are dropped.

        Args:
            looked_at: Objects and their SHA-256.
            listed: All objects that exist now in some locations.
            places: These locations.
        """
        new = {str(found.path): (found.tag, found.size, sha256) for found, sha256 in looked_at}
        if not new:
            return
        self._seen.update(new)
        old: list[Path] = []
        if len(self._parts) >= _PARTS:
            there = {str(found.path) for found in listed}
            asked = list(_asked(places))
            # of another prefix, and beside a glob, nothing was listed: what is noted of it holds until it is
            new = {
                path: seen
                for path, seen in self._seen.items()
                if path in there or not any(means(path) for means in asked)
            }
            old, self._parts = self._parts, []
        durable.folder(self._folder)
        part = self._folder / f"{run_id()}.json"
        durable.write(part, json.dumps(new).encode())
        self._parts.append(part)
        # after the merged file is there: a crash in between leaves entries twice, which say the same
        durable.remove_all(old)


def _asked(places: Iterable[Path]) -> Iterator[Callable[[str], bool]]:
    """Yields for each location what tells whether it means an object; nothing for those that cannot be listed."""
    for place in places:
        with suppress(OSError):
            yield partial(_means, *searched(place))


def _means(top: S3Path, meant: Callable[[str], bool], path: str) -> bool:
    return f"{path}/".startswith(f"{top}/") and meant(path.split("/", 3)[3])


def _read(path: Path) -> dict[str, tuple[str, int, str]]:
    try:
        return {key: (tag, size, sha256) for key, (tag, size, sha256) in json.loads(path.read_bytes()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # an unrecorded object is only inspected again


def remove_seen(root: Path) -> None:
    """Drops all records: keys can contain names of people, and files may have changed."""
    durable.remove_all([entry.path for entry in durable.walk(root / FOLDER)])


def copied(delivered: Delivered, path: Path) -> Delivered:
    """Copies a delivered object to this machine and returns the copy; a local file is returned itself.

    Args:
        delivered: The object.
        path: A file that does not exist yet.

    Raises:
        UnreadableFile: It cannot be read, or has changed since it was listed.
    """
    if not s3.is_remote(delivered.path):
        return delivered
    try:
        s3.download(delivered.path, path, tag=delivered.tag)
    except FileExistsError:
        raise UnreadableFile(
            f"{delivered.name}: it changed while it was read; land it again when it is complete"
        ) from None
    except OSError as error:
        raise UnreadableFile(
            f"{delivered.name}: cannot be read ({error.strerror}); land it again when it is readable", passing=True
        ) from error
    return replace(delivered, path=path)


def fetch(
    arrivals: Sequence[Arrival], folder: Path, done: Callable[[float], None] = lambda share: None
) -> Iterator[Delivered | Skipped]:
    """Copies objects into a local folder, several at a time, and yields each copy, or why there is none.

    Args:
        arrivals: The objects.
        folder: A folder that does not exist yet.
        done: Called with the completed share of their bytes.
    """
    folder.mkdir(mode=0o700, parents=True)
    total, here = sum(arrival.object.size for arrival in arrivals) or 1, 0

    def copy(numbered: tuple[int, Arrival]) -> Delivered | Skipped:
        nonlocal here
        number, arrival = numbered
        try:
            found = copied(arrival.delivered, folder / str(number))
        except UnreadableFile as error:
            return Skipped(arrival.name, str(error).removeprefix(f"{arrival.name}: "), True, error.passing)
        here += arrival.object.size
        done(here / total)
        return found

    for _, outcome in s3.each(copy, enumerate(arrivals)):
        yield outcome


class Objects:
    """The objects of one landing.

    Args:
        root: The lake's folder.
        places: Objects, prefixes and globs.
        feed: As for `walk`.
        avoid: As for `walk`.
    """

    def __init__(self, root: Path, places: Sequence[Path], feed: str | None = None, avoid: Path | None = None) -> None:
        listed = list(walk(places, feed, avoid))
        self._places = places
        self.skipped = [item for item in listed if isinstance(item, Skipped)]
        self._arrivals = [item for item in listed if isinstance(item, Arrival)]
        self._known = SeenObjects(root) if self._arrivals else None
        self._all = [arrival.object for arrival in self._arrivals]

    def known(self, catalog: Catalog, session: Callable[[], DuckDB]) -> list[LandedFile]:
        """Returns the outcome of unchanged objects that landed before; the others must be fetched.

        Args:
            catalog: The lake's tables.
            session: Makes an engine session, if one is needed.
        """
        assumed = {a: sha256 for a in self._arrivals if (sha256 := self._known and self._known.sha256(a.object))}
        if not assumed:
            return []
        ledger: dict[str, LandedFile] = {}
        with session() as engine:
            engine.bind_files("landed_files", catalog.files(catalog.table("landed_files")))
            wanted = sorted(set(assumed.values()))
            for first in range(0, len(wanted), _AT_ONCE):
                ledger |= rows.landed(engine, wanted[first : first + _AT_ONCE])
        # a note without an entry of the ledger is worth nothing
        # and an object without accepted records may be meant as another feed now
        done = {
            arrival: file
            for arrival, sha256 in assumed.items()
            if (file := ledger.get(sha256)) and not (file.fruitless and arrival.feed != file.feed)
        }
        self._arrivals = [arrival for arrival in self._arrivals if arrival not in done]
        return [replace(file, name=arrival.name) for arrival, file in done.items()]

    def batches(self) -> Iterator[list[Arrival]]:
        """Yields the rest in groups."""
        return batches(self._arrivals, lambda arrival: arrival.object.size, _BATCH_BYTES)

    def note(self, batch: Sequence[Arrival], landed: Iterable[LandedFile]) -> None:
        """Remembers which content the objects of a group have that has been landed."""
        contents: dict[str, set[str]] = {}
        for file in landed:
            contents.setdefault(file.name, set()).add(file.sha256)
        # two objects of different places can go by one name
        certain = {name: found for name, (found, *more) in contents.items() if not more}
        looked_at = [(a.object, certain[a.name]) for a in batch if a.name in certain]
        if self._known:
            self._known.note(looked_at, self._all, self._places)
