"""Traces of customers in text and in files: the search that proves an erasure.

Everything that a lake holds is looked at: names of files and folders, their extended attributes, and what is in every
regular file, Parquet by its values, Avro, SQLite, packed and plain files by their content. Nothing else is opened. What
cannot be decoded (`privacy.decoding`) is named, searched as bytes, and the search goes on. Spelling does not hide
anybody (`privacy.tokens`), and a text counts where it stands alone: `ann@x.example` is not in `joann@x.example`.
"""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from stedi.engines.duckdb import DuckDB, task_session
from stedi.engines.literals import path_literal, quoted
from stedi.engines.workers import Workers
from stedi.privacy import decoding, tokens, tombstones
from stedi.privacy.pseudonyms import Key, normalise
from stedi.privacy.tokens import FEW, SHORT, Sought, addresses, folded, stands
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES
from stedi.storage import s3

_PIECE = 1 << 22
_OVERLAP = 4096
_PARTS = 8
"""Into so many parts texts are divided among which one mentions somebody."""
_LOOKS = 4
"""Tasks a worker: files differ in size, and whoever is ready takes the next."""
_MOST_KNOWN = 1 << 20
_MOST_UNPACKED = 1 << 32
"""Bytes that a file is unpacked to, at most; one that holds more is named."""
_NO_TEXT = re.compile(r"BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*|DATE|TIME.*|INTERVAL")
"""Types in which nothing of anybody can stand in the lake's own tables."""
_NO_NUMBER = re.compile(r"BOOLEAN|FLOAT|DOUBLE|DATE|TIME.*|INTERVAL")
"""Types in which it cannot in a table of somebody else, who may keep a phone number as a number."""
_OURS = frozenset({"feed", "reason", "batch", "sha256", "_file"})
"""Columns of the lake's own tables in which its own words stand, and nobody's."""
IDENTITIES = ("email", "user", "serialNumber")
"""Columns of the lake's own tables whose values are somebody's identity: whose, the whole value tells."""
_WORDS = frozenset(
    {*ALL_ZONES, *ALL_ZONES.values(), *(c.name for columns in ALL_COLUMNS.values() for c in columns)}
) | {
    *("parquet", "metadata", "snapshot", "manifest", "landing", "pending", "receipts", "tombstones", "erasing"),
    *("customer", "accelerometer", "step_trainer", "default", "string", "double", "binary", "timestamptz", "append"),
    *("overwrite", "replace", "delete", "catalog", "format-version", "schema", "table", "location", "checksums"),
}
"""Words of the lake's own files: a serial number may be called like one, and is not looked for among them."""


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What identifies some customers.

    Attributes:
        key: The lake's key.
        people: Their marks: an address is found by its mark, too, where nobody knows its text any more.
        names: Addresses in their normal form, and names and phone numbers that nobody else has; spelling is ignored.
        numbers: Serial numbers that nobody else claims, and pseudonyms; as they are.
        phones: The digits of those phone numbers.
        left: Marks of values of others that mention one of them and stay, since they are somebody's identity.
        foreign: Texts that other clients have written into the lake's catalog, and that stay.
    """

    key: Key
    people: Collection[str]
    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    phones: frozenset[str] = frozenset()
    left: frozenset[str] = frozenset()
    foreign: frozenset[str] = frozenset()
    _known: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)
    # of its own in each: `replace` with other numbers looks for others
    _sought: dict[bool, tuple[dict[str, list[str]], Sought, Sought]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    _named: list[frozenset[str] | None] = field(default_factory=list, repr=False, compare=False)

    def found(self, text: str, *, data: bool = True) -> bool:
        """Says whether a text, or what it reads decoded, holds one of them.

        Args:
            text: The text; of several values, one a line.
            data: Whether it is customers' data, not the lake's own words: those may hold short or common texts.
        """
        return any(self.says(reading, data=data) for reading in tokens.readings(text, controls=data))

    def says(self, text: str, *, data: bool = True) -> bool:
        """Says whether a text holds one of them as it is; the arguments are those of `found`."""
        plain = folded(text)
        texts, words, numbers = self._texts(data=data)
        for word in words.among(plain):
            if word in plain and any(name in plain and stands(plain, name) for name in texts[word]):
                return True
        for number in numbers.among(text):
            if number in text and (data or _tells(number)) and stands(text, number):
                return True
        if data and tokens.calls(text, self.phones):
            return True
        return bool(self._standing(plain))

    def _standing(self, plain: str, *, name: bool = False) -> Collection[str]:
        """Returns their addresses that stand in a folded text, were it a file's name."""
        named = self._addresses()
        if named is None:
            return [address for address in addresses(plain, name=name) if self.known(address)]
        # a part of a folded text is in its normal form: no other spelling of an address need be thought of
        if len(named) <= FEW and not any(address in plain for address in named):
            return ()
        found = named & addresses(plain, name=name)
        self._known.update(dict.fromkeys(found, True))
        return found

    def _texts(self, *, data: bool) -> tuple[dict[str, list[str]], Sought, Sought]:
        """Returns the names that are looked for as texts, by a word that all spellings of one have; words and numbers.

        A plain address is known by its mark wherever it stands.
        """
        if data not in self._sought:
            found: dict[str, list[str]] = {}
            for name in self.names:
                sign = "@" in name
                if (data or sign) and not (sign and tokens.is_plain(name) and name in addresses(name)):
                    parts = name.replace(",", " ").split()
                    word = max(parts, key=lambda part: (len(part), part), default=name)
                    found.setdefault(word, []).append(name)
            self._sought[data] = found, Sought(found), Sought(self.numbers)
        return self._sought[data]

    @property
    def latin(self) -> bool:
        """Whether all that is looked for among the lake's own words is Latin, addresses aside."""
        return "".join(self.numbers).isascii()

    def names_file(self, name: str, *, data: bool = True) -> bool:
        """Says whether a file's name holds one of them, be it after or before an underscore; `data` as in `found`."""
        return (
            any(number in name and _tells(number) and stands(name, number, name=True) for number in self.numbers)
            or any(self._standing(folded(reading), name=True) for reading in tokens.readings(name))
            or self.found(name, data=data)
        )

    def known(self, address: str) -> bool:
        """Says whether an address, in any spelling, is one of theirs."""
        if address in self._known:
            return self._known[address]
        named = self._addresses()
        if named is not None and normalise(address) not in named:
            return False
        found = self._known[address] = named is not None or tombstones.person(self.key, address) in self.people
        return found

    def owns(self, address: str) -> bool:
        """Says whether a record that gives an address as its customer's is one of theirs.

        Characters that nobody can see make no other address of it, unless it is a landed one, which is somebody else's.
        """
        if self.known(address):
            return True
        seen = tokens.visible(address)
        return seen is not address and self.known(seen) and not self.stays(address)

    def _addresses(self) -> frozenset[str] | None:
        """Returns everybody's address if all are among the names: to look one up takes less than to make its mark."""
        if not self._named:
            marks = {name: tombstones.person(self.key, name) for name in self.names}
            named = frozenset(name for name, mark in marks.items() if mark in self.people)
            self._named.append(named if {marks[name] for name in named}.issuperset(self.people) else None)
        return self._named[0]

    def names_any(self, text: str) -> bool:
        """Says whether one of their addresses stands in a text as it is."""
        return bool(self._standing(folded(text)))

    def who(self, text: str) -> frozenset[str]:
        """Returns the marks of those whose address stands in a text, or in what it reads decoded."""
        named = {address for reading in tokens.readings(text) for address in self._standing(folded(reading))}
        return frozenset(tombstones.person(self.key, address) for address in named)

    def met(self) -> frozenset[str]:
        """Returns the marks of those whose address stood in any text that was looked at in this process."""
        return frozenset(tombstones.person(self.key, address) for address, hit in self._known.items() if hit)

    def masked(self, text: str) -> str | None:
        """Returns a text of somebody else without what it says of them; None if it cannot be told apart."""
        plain = folded(text)
        parts = {part for part in self.names if part in plain and len(part) >= SHORT}
        parts |= {folded(number) for number in self.numbers if number in text and len(number) >= SHORT}
        parts |= set(self._standing(plain))
        kept = tokens.masked(text, parts)
        return None if self.found(kept) else kept

    def without_foreign(self, text: str) -> str:
        """Returns a text of the lake's catalog without what other clients have written there."""
        for part in sorted(self.foreign, key=len, reverse=True):
            for written in (part, json.dumps(part)[1:-1], json.dumps(part, ensure_ascii=False)[1:-1]):
                text = text.replace(written, "")
        return text

    def stays(self, value: str) -> bool:
        """Says whether a value of somebody else was left although it mentions one of them."""
        return bool(self.left) and left(self.key, value) in self.left


def left(key: Key, value: str) -> str:
    """Returns the mark of a value of somebody else that stays although it mentions a customer who goes."""
    return tombstones.mark(key, "value of others", normalise(value))


def _tells(number: str) -> bool:
    return len(number) >= SHORT and number not in _WORDS


def of(records: Iterable[tuple[str | None, ...]], others: Callable[[str], bool]) -> frozenset[str]:
    """Returns the texts that identify customers, from their records, in their normal form.

    Args:
        records: Address, name, phone of each record.
        others: Says of a name, a phone, or an address that has no `@`, folded, whether anybody else has it.
    """
    found = set()
    for address, *rest in records:
        if address and ("@" in address or not others(normalise(address))):
            found.add(normalise(address))
        found |= {text for text in (folded(part).strip() for part in rest if part) if text and not others(text)}
    return frozenset(found)


@dataclass(slots=True)
class Search:
    """What a search has looked at, and where it found traces.

    Attributes:
        files: How many files of each kind were decoded.
        bytes: Their size.
        found: Where traces are: files relative to the folder, with the column of a table.
        foreign: Where they are in tables of others.
        undecoded: Files that are not what they begin like: they were searched as bytes.
        unopened: What is no regular file, or cannot be read: only its name was looked at.
    """

    files: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    found: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    undecoded: list[str] = field(default_factory=list)
    unopened: list[str] = field(default_factory=list)


def search_lake(
    root: Path,
    traces: Identifiers,
    engine: DuckDB,
    *,
    without: Collection[Path] = (),
    held: Collection[Path] = (),
    foreign: Collection[Path] = (),
    workers: Workers | None = None,
) -> Search:
    """Decodes every file below a folder and looks for traces in it.

    Args:
        root: The folder.
        traces: What to look for.
        engine: A session, for Parquet.
        without: Files that are left out.
        held: Folders that are left out: other processes work in them.
        foreign: Folders of tables of others.
        workers: Who decodes the files, if it is not this process.
    """
    entries, closed = _everything(root, held)
    entries = [entry for entry in entries if entry.path not in without]
    done = Search(bytes=sum(entry.size for entry in entries if entry.kind == "file"))
    done.unopened += [_told(root, path, traces) for path in closed]
    theirs = [entry for entry in entries if _is_foreign(entry, foreign)] if foreign else []
    entries = [entry for entry in entries if entry not in theirs] if theirs else entries
    if workers is None:
        parts = [_searched(root, entries, traces, engine)]
    else:
        count = min(len(entries), _LOOKS * workers.slots)
        entries.sort(key=lambda entry: (str(_table(root, entry.path)), entry.size))
        tasks = [_Part(root, tuple(entries[n::count]), traces) for n in range(count)]
        parts = list(workers.map(_search, tasks))
    if theirs:
        looked = _searched(root, theirs, traces, engine)
        looked.foreign, looked.found = looked.found, []
        parts.append(looked)
    for part in parts:
        done.foreign += part.foreign
        done.found += part.found
        done.undecoded += part.undecoded
        done.unopened += part.unopened
        for kind, files in part.files.items():
            done.files[kind] = done.files.get(kind, 0) + files
    return done


def _is_foreign(entry: _Entry, folders: Collection[Path]) -> bool:
    """Says whether something belongs to a table of others: its folder, what is in it, and folders that lead there."""
    if any(entry.path.is_relative_to(folder) for folder in folders):
        return True
    return entry.kind == "folder" and any(folder.is_relative_to(entry.path) for folder in folders)


def look(path: Path, traces: Identifiers, engine: DuckDB | None) -> Search:
    """Looks for traces in one delivered file: in what it holds, not in its name.

    Args:
        path: A regular file, or an object of S3.
        traces: What to look for.
        engine: A session, for Parquet; without it such a file counts as undecoded.
    """
    done = Search()
    kind = _kind(_Entry(path, "file", 0))
    if kind is None:
        done.unopened.append(path.name)
    elif kind != "parquet":
        _look(path.parent, path, kind, traces, done, data=True)
    elif engine is None:
        done.undecoded.append(path.name)
    else:
        _look_in_tables(path.parent, path.parent, [path], traces, engine, set(), done)
    return done


@dataclass(frozen=True, slots=True)
class _Entry:
    """Something in a folder.

    Attributes:
        path: Where it is.
        kind: `file`, `folder`, `link`, or what else it is.
        size: Its size in bytes.
    """

    path: Path
    kind: str
    size: int


_KINDS = {
    stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "device", stat.S_IFBLK: "device",
}  # fmt: skip


def _everything(root: Path, held: Collection[Path]) -> tuple[list[_Entry], list[Path]]:
    """Returns all that is below a folder, whatever it is, and the folders that cannot be read."""
    if s3.is_remote(root):
        there = [_Entry(found.path, "file", found.size) for found in s3.listing(root)]
        return [entry for entry in there if not any(entry.path.is_relative_to(folder) for folder in held)], []
    entries: list[_Entry] = []
    closed: list[Path] = []
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            names = sorted(os.listdir(folder))
        except FileNotFoundError:
            continue
        except OSError:
            closed.append(folder)
            continue
        for name in names:
            path = folder / name
            try:
                status = path.lstat()
            except OSError:
                continue  # it was removed meanwhile
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "other")
            if path in held:
                continue
            entries.append(_Entry(path, kind, status.st_size))
            if kind == "folder":
                folders.append(path)
    return entries, closed


@dataclass(frozen=True, slots=True)
class _Part:
    """Files in which one worker looks for traces."""

    root: Path
    entries: tuple[_Entry, ...]
    traces: Identifiers


def _search(part: _Part) -> Search:
    """Looks for traces in a part. Runs on a worker."""
    with task_session() as engine:
        return _searched(part.root, part.entries, part.traces, engine)


def _told(root: Path, path: Path, traces: Identifiers) -> str:
    """Returns what something in the lake is called where it is told of."""
    name = str(path.relative_to(root))
    return "a file named after them" if traces.names_file(name, data=False) else _shown(name)


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _searched(root: Path, entries: Iterable[_Entry], traces: Identifiers, engine: DuckDB) -> Search:
    """Looks for traces in some files."""
    done = Search()
    tables: dict[Path, list[Path]] = {}
    names: set[Path] = set()
    for entry in entries:
        path = entry.path
        name = str(path.relative_to(root)) if s3.is_remote(path) else path.name
        if traces.names_file(name, data=False) or any(traces.found(text, data=False) for text in _attributes(path)):
            names.add(path)
            done.found.append(_told(root, path, traces))
        if entry.kind == "folder":
            continue
        kind = _kind(entry)
        if kind is None:
            done.unopened.append(_told(root, path, traces))
            continue
        done.files[kind] = done.files.get(kind, 0) + 1
        if kind == "parquet":
            tables.setdefault(_table(root, path), []).append(path)
        elif path not in names:
            _look(root, path, kind, traces, done)
    clean: set[str] = set()
    for folder, files in tables.items():
        _look_in_tables(root, folder, files, traces, engine, clean, done)
    return done


def _look(root: Path, path: Path, kind: str, traces: Identifiers, done: Search, *, data: bool = False) -> None:
    """Looks for traces in a file that is no Parquet."""
    try:
        texts = _contents(path, kind, latin=not data and traces.latin)
        if traces.foreign and _is_catalogs(path.relative_to(root)):
            texts = map(traces.without_foreign, texts)
        if any(traces.found(text, data=data) for text in texts):
            told = _told(root, path, traces)
            columns = _columns(path, traces, data=data) if kind == "sqlite" else ()
            done.found += [f"{told} ({column})" for column in columns] or [told]
    except OSError:
        done.unopened.append(_told(root, path, traces))
    except _Undecoded:
        done.undecoded.append(_told(root, path, traces))


def _is_catalogs(path: Path) -> bool:
    """Says whether a file, relative to the lake's folder, is the catalog's or a table's metadata file."""
    parts = path.parts
    if len(parts) == 4 and ALL_ZONES.get(parts[1]) == parts[0]:
        return parts[2] == "metadata" and path.name.endswith(".metadata.json")
    return parts == ("catalog.db",)


def _columns(path: Path, traces: Identifiers, *, data: bool) -> list[str]:
    """Returns the columns of a database in which there are traces, with their tables, unless these name somebody."""
    found: set[str] = set()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            for (name,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
                table = name.decode("utf-8", "replace")
                cursor = connection.execute(f"select * from {quoted(table)}")
                columns = [f"{table}.{column}" for column, *_ in cursor.description]
                for row in cursor:
                    for column, value in zip(columns, map(_unpacked, row), strict=True):
                        if column not in found and traces.found(traces.without_foreign(value), data=data):
                            found.add(column)
    except (sqlite3.Error, UnicodeDecodeError):
        pass  # the file is named all the same
    return sorted(_shown(column) for column in found if not traces.found(column))


def _table(root: Path, path: Path) -> Path:
    """Returns the folder whose Parquet files have the same columns as this one, as far as its place tells."""
    parts = path.relative_to(root).parts
    return root.joinpath(*parts[:2]) if len(parts) > 2 and parts[2] == "data" else path


def _attributes(path: Path) -> Iterator[str]:
    """Yields the extended attributes of a file or folder: their names and their values."""
    if s3.is_remote(path) or not hasattr(os, "listxattr"):
        return
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            yield name
            yield from decoding.texts(os.getxattr(path, name, follow_symlinks=False))
    except OSError:
        return  # there are none here, or nobody may read them


def _kind(entry: _Entry) -> str | None:
    """Returns what kind of file something is; None if it cannot be opened, or must not be."""
    if entry.kind == "link":
        return "link"
    if entry.kind != "file":
        return None
    try:
        if s3.is_remote(entry.path):
            head = s3.start(entry.path, 16)
        else:
            with _opened(entry.path) as stream:
                head = stream.read(16)
    except OSError:
        return None
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    return "other"


_MAGIC = {
    b"PAR1": "parquet", b"Obj\x01": "avro", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz", b"PK\x03\x04": "zip",
}  # fmt: skip


def _opened(path: Path) -> BinaryIO:
    """Returns a regular file, open; nothing else that has taken its place meanwhile makes anybody wait."""
    if s3.is_remote(path):
        return path.open("rb")
    number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY)
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise OSError("no regular file any more")
    return os.fdopen(number, "rb")


class _Undecoded(Exception):
    """A file is not what it begins like; its bytes were searched before this is raised."""


def _contents(path: Path, kind: str, *, latin: bool = False) -> Iterator[str]:
    """Yields what a file holds, as written and decoded; `latin` as in `decoding.plain`.

    Raises:
        OSError: It cannot be read.
        _Undecoded: It cannot be decoded to its end; what could be was yielded before.
    """
    if kind == "link":
        yield os.readlink(path)
        return
    with _opened(path) as base:
        yield from _pieces(base, latin=latin)
        try:
            yield from _unpacked_streams(base, latin=latin)
            base.seek(0)
            head = base.read(6)
            if decoding.packing(head) and not decoding.opener(head):
                base.seek(0)
                content = base.read(decoding.MOST + 1)
                if len(content) > decoding.MOST:
                    raise _Undecoded
                for layer in list(decoding.layers(content))[1:]:
                    yield from decoding.plain(layer, latin=latin)
            if kind == "avro":
                base.seek(0)
                yield from _together(_in_avro(base))
            elif kind == "sqlite":
                yield from _together(_in_sqlite(path))
        except Exception as error:
            raise _Undecoded from error


def _unpacked_streams(base: BinaryIO, *, latin: bool) -> Iterator[str]:
    """Yields what is packed in a file, layer by layer, as text; raises what a damaged one raises, at the end."""
    chain: list[Callable[[BinaryIO], BinaryIO]] = []
    damage: Exception | None = None
    while len(chain) < decoding.LEVELS:
        opener = decoding.opener(_head(base, chain))
        if opener is None:
            break
        chain.append(opener)
        try:
            yield from _pieces(_layer(base, chain), latin=latin)
        except Exception as error:
            damage = error
    if chain:
        content = next(decoding.start(_layer(base, chain), decoding.MOST), b"")
        for layer in list(decoding.layers(content))[1:]:
            yield from decoding.plain(layer, latin=latin)
    if damage is not None:
        raise damage


def _head(base: BinaryIO, chain: Iterable[Callable[[BinaryIO], BinaryIO]]) -> bytes:
    try:
        return next(decoding.pieces(_layer(base, chain), 6), b"")[:6]
    except Exception:
        return b""


def _layer(base: BinaryIO, chain: Iterable[Callable[[BinaryIO], BinaryIO]]) -> BinaryIO:
    base.seek(0)
    stream = base
    for opener in chain:
        stream = opener(stream)
    return stream


def _pieces(stream: BinaryIO, *, latin: bool) -> Iterator[str]:
    """Yields a stream as text, in pieces that overlap by more than anything that is looked for is long."""
    kept, size = b"", 0
    for piece in decoding.pieces(stream, _PIECE):
        size += len(piece)
        if size > _MOST_UNPACKED:
            raise _Undecoded
        yield from decoding.plain(kept + piece, latin=latin)
        kept = piece[-_OVERLAP:]


def _together(texts: Iterable[str]) -> Iterator[str]:
    """Yields texts in fewer and longer ones; what comes before damage is given before that is raised."""
    held: list[str] = []
    size = 0
    try:
        for text in texts:
            held.append(text)
            size += len(text)
            if size > _PIECE:
                yield "\n\n".join(held)
                held, size = [], 0
    except Exception:
        yield "\n\n".join(held)
        raise
    yield "\n\n".join(held)


def _in_avro(stream: BinaryIO) -> Iterator[str]:
    import fastavro

    reader = fastavro.reader(stream)
    yield _unpacked(reader.metadata)
    for record in reader:
        yield _unpacked(record)


def _in_sqlite(path: Path) -> Iterator[str]:
    """Yields what stands in a database, one value a line."""
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = bytes
        for name, kind, sql in connection.execute("select name, type, sql from sqlite_master").fetchall():
            yield "\n".join(_unpacked(part) for part in (name, sql))
            if kind != b"table":
                continue
            table = name.decode("utf-8", "replace").replace('"', '""')
            for row in connection.execute(f'select * from "{table}"'):
                yield "\n".join(map(_unpacked, row))


def _unpacked(value: object) -> str:
    """Returns everything in a decoded record, one value a line."""
    match value:
        case dict():
            return "\n".join(_unpacked(part) for pair in value.items() for part in pair)
        case list() | tuple():
            return "\n".join(map(_unpacked, value))
        case bytes():
            return as_text(value)
    return str(value)


def _look_in_tables(
    root: Path,
    folder: Path,
    files: list[Path],
    traces: Identifiers,
    engine: DuckDB,
    clean: set[str],
    done: Search,
) -> None:
    """Looks for traces in the Parquet files of one table, which may have different columns.

    Args:
        root: The lake's folder.
        folder: The table's.
        files: The files.
        traces: What to look for.
        engine: A session.
        clean: Texts that hold none, so that they are looked at once: most stand in several tables. Grows.
        done: Told what was found.
    """
    zone, table = (*folder.relative_to(root).parts, "", "")[:2]
    own = table if len(files) and folder not in files and ALL_ZONES.get(table) == zone else None
    try:
        found = _in_parquet(files, own, traces, engine, clean)
    except Exception:  # one is damaged, or has other columns
        found = {""}
    if not found:
        return
    for path in files:
        try:
            columns = _in_parquet([path], own, traces, engine, set())
        except Exception:
            done.undecoded.append(_told(root, path, traces))
            done.files["parquet"] -= 1
            done.files["damaged"] = done.files.get("damaged", 0) + 1
            _look(root, path, "damaged", traces, done)
            continue
        told = _told(root, path, traces)
        done.found += [f"{told} ({column})" if column else told for column in sorted(columns)]


def _in_parquet(files: list[Path], own: str | None, traces: Identifiers, engine: DuckDB, clean: set[str]) -> set[str]:
    """Returns the columns of some Parquet files of one table in which there are traces; no name for what is no column.

    Raises:
        LakeError: One cannot be read.
    """
    listed = ", ".join(path_literal(str(path)) for path in files)
    source = f"read_parquet([{listed}], hive_partitioning = false)"
    schemas = engine.rows(
        "select list({'name': name, 'type': type, 'logical': logical_type::varchar, 'in': num_children}) "
        f"from parquet_schema([{listed}]) group by file_name"
    )
    if len(files) > 1 and len({repr(sorted(map(repr, schema))) for (schema,) in schemas}) > 1:
        return {""}  # each is looked at by itself
    found: set[str] = set()
    names = "\n".join(str(part["name"]) for (schema,) in schemas[:1] for part in schema)
    pairs = engine.rows(f"select distinct key, value from parquet_kv_metadata([{listed}])")
    told = {bytes(part or b"") for pair in pairs for part in pair}
    if traces.found(names, data=False) or any(traces.found(as_text(part), data=False) for part in told):
        found.add("")
    known = {column.name for column in ALL_COLUMNS[own]} if own else set()
    for column, kind in engine.rows(f"select column_name, column_type from (describe select * from {source})"):
        ours = column in known
        if (ours and column in _OURS) or (_NO_TEXT if ours else _NO_NUMBER).fullmatch(kind):
            continue
        whose = column if ours and column in (*IDENTITIES, "raw") else None
        if any(_among(values, whose, traces) for values in chunks(engine, source, column, kind, clean)):
            found.add("" if traces.found(column, data=False) else column)
            clean.clear()  # it is among them
    return found


def _among(values: list[str], column: str | None, traces: Identifiers) -> bool:
    """Says whether a trace is among the values of a column; whose an identity is, the whole value tells."""
    text = "\n".join(values)
    if column == "serialNumber" and not traces.numbers.isdisjoint(values):
        return True
    if not (mentions(text, traces) if column == "serialNumber" else traces.found(text)):
        return False
    return any(is_trace(value, column, traces) for value in values)


def is_trace(value: str, column: str | None, traces: Identifiers) -> bool:
    """Says whether a value is one of the customers', or says something of them that should have gone.

    Args:
        value: The value.
        column: Its column, if that is an identity, or a quarantined record's `raw`.
        traces: What identifies the customers.
    """
    if column == "serialNumber":
        return value in traces.numbers or (mentions(value, traces) and not traces.stays(value))
    if column == "raw" and (owner := tokens.owner(value)) is not None and not traces.owns(owner):
        return traces.found(tokens.beside(value, owner)) or (names_another(owner, traces) and not traces.stays(owner))
    if column in IDENTITIES and tokens.is_plain(value):
        return traces.known(value)
    return traces.found(value) and not traces.stays(value)


def names_another(address: str, traces: Identifiers) -> bool:
    """Says whether an address of somebody else is none that is plain, and mentions one of the customers."""
    return not tokens.is_plain(tokens.visible(address)) and mentions(address, traces)


def mentions(value: str, traces: Identifiers) -> bool:
    """Says whether a text mentions one of the customers' addresses."""
    return any(traces.names_any(reading) for reading in tokens.readings(value) if "@" in reading)


def mentioning(values: Sequence[str], traces: Identifiers) -> Iterator[str]:
    """Yields those of some texts that mention one of the customers' addresses; many are looked at together at first."""
    # an empty line between: what is encoded in one does not run on into the next
    if values and mentions("\n\n".join(values), traces):
        if len(values) == 1:
            yield values[0]
            return
        size = -(-len(values) // _PARTS)
        for start in range(0, len(values), size):
            yield from mentioning(values[start : start + size], traces)


def chunks(
    engine: DuckDB, source: str, column: str, kind: str = "VARCHAR", known: set[str] | None = None
) -> Iterator[list[str]]:
    """Yields the different values of a column as texts, many at a time.

    Args:
        engine: A session.
        source: What to read, for a FROM.
        column: The column.
        kind: Its type, DuckDB's; what is neither text nor a blob is looked at as JSON.
        known: Values that are left out; those that are yielded are added, as long as they are not too many.
    """
    plain = kind in ("VARCHAR", "BLOB")
    read = quoted(column) if plain else f"to_json({quoted(column)})::varchar"
    held: list[str] = []
    size = 0
    sql = f"select distinct {read} from {source} where {quoted(column)} is not null"
    parts: Iterable[list[str]]
    if kind == "BLOB":
        parts = ([as_text(value)] for (value,) in engine.stream(sql))  # may be large once it is unpacked
    else:
        parts = ([value for (value,) in rows] for rows in engine.batches(sql))
    for values in parts:
        if known is not None and kind != "BLOB":
            values = [value for value in values if value not in known]
            if len(known) < _MOST_KNOWN:
                known.update(values)
        held += values
        size += sum(map(len, values))
        if size > _PIECE:
            yield held
            held, size = [], 0
    yield held


def as_text(value: str | bytes) -> str:
    """Returns a value as text; a blob in all encodings that it may be in, and unpacked."""
    return value if isinstance(value, str) else "\n".join(decoding.texts(bytes(value), most=_PIECE))
