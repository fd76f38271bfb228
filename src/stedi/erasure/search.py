"""Traces of customers in files: the search that proves an erasure.

The search covers everything in a lake: names of files and folders, their extended attributes, and the content of every
regular file: values and dictionaries of Parquet, values of Avro and SQLite, and compressed and plain files. Nothing
else is opened. Files that cannot be decoded (`privacy.decoding`) are named and searched as bytes. `identifiers` defines
what a trace is.
"""

from __future__ import annotations

import os
import re
import sqlite3
import stat
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import closing
from itertools import chain
from pathlib import Path

from stedi._frozen import dataclass, field
from stedi.engines import dictionaries
from stedi.engines.dictionaries import Footer, Known
from stedi.engines.duckdb import DuckDB, task_session
from stedi.engines.literals import path_literal, quoted
from stedi.engines.workers import Workers
from stedi.erasure import contents
from stedi.erasure.identifiers import IDENTITIES, Identifiers, as_text, divided, is_trace, mentions, telling
from stedi.privacy import decoding
from stedi.schema.tables import ALL_COLUMNS, ALL_ZONES
from stedi.storage import s3

_LOOKS = 4
"""Tasks for each worker: files differ in size, and a free worker takes the next task."""
_Group = dict[Path, Footer | None]
"""Parquet files of one schema, with their footers if they lie on this machine and can be read without an engine."""
_Clean = dict[str | None, Known]
"""Texts known to have no traces, by the column whose rule they were judged by: a serial number may be like a name."""
_NO_TEXT = re.compile(r"BOOLEAN|U?(TINY|SMALL|BIG|HUGE)?INT(EGER)?|FLOAT|DOUBLE|DECIMAL.*|DATE|TIME.*|INTERVAL")
"""Types that never contain personal data in the lake's own tables."""
_NO_NUMBER = re.compile(r"BOOLEAN|FLOAT|DOUBLE|DATE|TIME.*|INTERVAL")
"""Types that never contain personal data in other programs' tables, which may store a phone number as a number."""
_OURS = frozenset({"feed", "reason", "batch", "sha256", "_file"})
"""Columns of the lake's own tables that contain only values that the lake generates."""


@dataclass(slots=True)
class Search:
    """What a search covered, and where it found traces.

    Attributes:
        files: How many files of each kind were decoded.
        bytes: Their size.
        found: Places with traces: files relative to the folder, and for tables the column.
        foreign: Places with traces in tables of other programs.
        undecoded: Files that could not be decoded as the format of their first bytes; they were searched as bytes.
        unopened: Entries that are not regular files or cannot be read; only their names were searched.
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
    """Decodes and searches every file below a folder.

    Args:
        root: The folder.
        traces: What to look for.
        engine: A session, for Parquet.
        without: Files that are left out.
        held: Folders that are left out because other processes use them.
        foreign: Folders of other programs' tables.
        workers: The workers that decode the files; by default this process.
    """
    entries, closed = _everything(root, held)
    # files that the last step removes; `bytes` must not count them
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
        # neighbours are alike: every so many-th gives each task some of each table and size
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
    """Returns whether an entry is another program's table folder, is inside one, or is a parent folder of one."""
    if any(entry.path.is_relative_to(folder) for folder in folders):
        return True
    return entry.kind == "folder" and any(folder.is_relative_to(entry.path) for folder in folders)


def look(path: Path, traces: Identifiers, engine: DuckDB | None) -> Search:
    """Searches the content of one delivered file, not its name.

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
        _look_in_tables(path.parent, path.parent, [path], traces, engine, {}, done)
    return done


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of a folder.

    Attributes:
        path: Where it is.
        kind: `file`, `folder`, `link`, or another kind.
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
    """Returns everything below a folder, and the folders that cannot be read."""
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
                continue  # it was removed in the meantime
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
    """Returns an entry's name for messages, without personal data."""
    name = str(path.relative_to(root))
    return "a file named after them" if traces.names_file(name, data=False) else _shown(name)


def _shown(name: str) -> str:
    return name.encode("utf-8", "backslashreplace").decode()


def _searched(root: Path, entries: Iterable[_Entry], traces: Identifiers, engine: DuckDB) -> Search:
    """Looks for traces in some files."""
    done = Search()
    tables: dict[Path, list[Path]] = {}
    names: set[Path] = set()
    entries = list(entries)
    listed = [str(entry.path.relative_to(root)) if s3.is_remote(entry.path) else entry.path.name for entry in entries]
    named = set(telling(listed, lambda text: traces.names_file(text, data=False)))
    for place, entry in enumerate(entries):
        path = entry.path
        if place in named or any(traces.found(text, data=False) for text in _attributes(path)):
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
    clean: _Clean = {}
    for folder, files in tables.items():
        _look_in_tables(root, folder, files, traces, engine, clean, done)
    return done


def _look(root: Path, path: Path, kind: str, traces: Identifiers, done: Search, *, data: bool = False) -> None:
    """Looks for traces in a file that is not Parquet."""
    try:
        texts = contents.texts(path, kind, latin=not data and traces.latin)
        # anywhere else the same text is a trace
        if traces.foreign and _is_catalogs(path.relative_to(root)):
            texts = map(traces.without_foreign, texts)
        if any(traces.found(text, data=data) for text in texts):
            told = _told(root, path, traces)
            columns = _columns(path, traces, data=data) if kind == "sqlite" else ()
            done.found += [f"{told} ({column})" for column in columns] or [told]
    except OSError:
        done.unopened.append(_told(root, path, traces))
    except contents.Undecoded:
        done.undecoded.append(_told(root, path, traces))


def _is_catalogs(path: Path) -> bool:
    """Returns whether a file, relative to the lake's folder, is the catalog's or a table's metadata file."""
    parts = path.parts
    if len(parts) == 4 and ALL_ZONES.get(parts[1]) == parts[0]:
        return parts[2] == "metadata" and path.name.endswith(".metadata.json")
    return parts == ("catalog.db",)


def _columns(path: Path, traces: Identifiers, *, data: bool) -> list[str]:
    """Returns the columns of a database that have traces, as TABLE.COLUMN, unless the name itself is a trace."""
    found: set[str] = set()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            connection.text_factory = bytes
            for (name,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
                table = name.decode("utf-8", "replace")
                cursor = connection.execute(f"select * from {quoted(table)}")
                columns = [f"{table}.{column}" for column, *_ in cursor.description]
                for row in cursor:
                    for column, value in zip(columns, map(contents.values, row), strict=True):
                        if column not in found and traces.found(traces.without_foreign(value), data=data):
                            found.add(column)
    except (sqlite3.Error, UnicodeDecodeError):
        pass  # the file itself is still reported
    return sorted(_shown(column) for column in found if not traces.found(column))


def _table(root: Path, path: Path) -> Path:
    """Returns the folder whose Parquet files should have the same columns as this one, judging by its path."""
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
        return  # the file system has none, or they may not be read


def _kind(entry: _Entry) -> str | None:
    """Returns the kind of a file; None if it cannot or must not be opened."""
    if entry.kind == "link":
        return "link"
    if entry.kind != "file":
        return None
    try:
        return contents.kind(entry.path)
    except OSError:
        return None


def _look_in_tables(
    root: Path,
    folder: Path,
    files: list[Path],
    traces: Identifiers,
    engine: DuckDB,
    clean: _Clean,
    done: Search,
) -> None:
    """Searches the Parquet files of one table, which may have different columns.

    Args:
        root: The lake's folder.
        folder: The table's.
        files: The files.
        traces: What to look for.
        engine: A session.
        clean: Texts known to have no traces. Most are in several tables, but each is searched once. It is extended.
        done: The result, to which findings are added.
    """
    zone, table = (*folder.relative_to(root).parts, "", "")[:2]
    own = table if len(files) and folder not in files and ALL_ZONES.get(table) == zone else None
    for group in _alike(files, engine):
        try:
            found = _in_parquet(group, own, traces, engine, clean)
        except Exception:  # one of the files is damaged
            found = {""}
            clean.clear()  # it may have texts that were read, but not searched
        if found:
            _search_each_file(root, group, own, traces, engine, done)


def _search_each_file(
    root: Path, group: _Group, own: str | None, traces: Identifiers, engine: DuckDB, done: Search
) -> None:
    """Finds which of some Parquet files have traces; a damaged file is searched as bytes."""
    for path, footer in group.items():
        try:
            # a text of several columns is found in each of them
            columns = _in_parquet({path: footer}, own, traces, engine, None)
        except Exception:
            done.undecoded.append(_told(root, path, traces))
            done.files["parquet"] -= 1
            done.files["damaged"] = done.files.get("damaged", 0) + 1
            _look(root, path, "damaged", traces, done)
            continue
        told = _told(root, path, traces)
        done.found += [f"{told} ({column})" if column else told for column in sorted(columns)]


def _alike(files: list[Path], engine: DuckDB) -> list[_Group]:
    """Groups Parquet files by schema: DuckDB and Arrow describe the same columns differently."""
    groups: dict[object, _Group] = {}
    others: dict[str, Footer | None] = {}
    for path in files:
        footer = None if s3.is_remote(path) else dictionaries.footer(path)
        if footer is not None and footer.columns is not None:
            groups.setdefault(footer.columns, {})[path] = footer
        else:
            others[str(path)] = footer
    if others:
        listed = ", ".join(map(path_literal, others))
        try:
            for name, schema in engine.rows(
                "select file_name, list({'name': name, 'type': type, 'logical': logical_type::varchar, "
                f"'in': num_children}}) from parquet_schema([{listed}]) group by file_name order by file_name"
            ):
                groups.setdefault(repr(sorted(map(repr, schema))), {})[s3.at(name)] = others[name]
        except Exception:  # one of the files is damaged
            groups |= {name: {s3.at(name): footer} for name, footer in others.items()}
    return list(groups.values())


def _in_parquet(group: _Group, own: str | None, traces: Identifiers, engine: DuckDB, clean: _Clean | None) -> set[str]:
    """Returns the columns with traces in Parquet files of one schema; an empty name means outside of columns.

    Raises:
        LakeError: One cannot be read.
    """
    listed = ", ".join(path_literal(str(path)) for path in group)
    source = f"read_parquet([{listed}], hive_partitioning = false)"
    found: set[str] = set()
    footers = [footer for footer in group.values() if footer is not None]
    flat = footers[0].columns if footers else None
    if flat is not None:
        columns = flat
        names = {name for footer in footers for name in footer.names}
        told = {part for footer in footers for part in footer.told}
    else:
        names = {str(name) for (name,) in engine.rows(f"select distinct name from parquet_schema([{listed}])")}
        pairs = engine.rows(f"select distinct key, value from parquet_kv_metadata([{listed}])")
        told = {bytes(part or b"") for pair in pairs for part in pair}
        described = engine.rows(f"select column_name, column_type from (describe select * from {source})")
        columns = tuple((name, kind) for name, kind in described)
    if traces.found("\n\n".join(names), data=False) or any(traces.found(as_text(part), data=False) for part in told):
        found.add("")
    ours = {column.name for column in ALL_COLUMNS[own]} if own else set()
    whose = {name: name if name in ours and name in (*IDENTITIES, "raw") else None for name, _ in columns}
    without = {
        name
        for name, kind in columns
        if (name in ours and name in _OURS) or (_NO_TEXT if name in ours else _NO_NUMBER).fullmatch(kind)
    }
    # nothing else may be known: what is read and not judged would never be judged
    known = {name: _known(clean, whose[name]) for name, _ in columns if name not in without}
    stored = dictionaries.stored(footers, known, without)
    for column, kind in columns:
        if column in without:
            continue
        parts: Iterable[Collection[str]] = ()
        if flat is None or kind != "VARCHAR" or column in stored.partial:
            parts = chunks(engine, source, column, kind, known[column])
        texts = list(stored.texts.pop(column, ()))
        if any(_among(values, whose[column], traces) for values in chain(parts, _pieces(texts))):
            found.add("" if traces.found(column, data=False) else column)
    # the engine calls one of two columns otherwise if their names differ only in case
    if any(_among(list(texts), None, traces) for texts in stored.texts.values()):
        found.add("")
    if found and clean is not None:
        clean.clear()  # the trace is among these texts
    return found


def _known(clean: _Clean | None, column: str | None) -> Known:
    """Returns the texts that are known by the rule of a column; none if each column is judged by itself."""
    return Known() if clean is None else clean.setdefault("email" if column == "user" else column, Known())


def _pieces(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for end, length in enumerate(map(len, texts), start=1):
        size += length
        if size > contents.PIECE:
            yield texts[start:end]
            start, size = end, 0
    if start < len(texts):
        yield texts[start:]


def _among(values: Collection[str], column: str | None, traces: Identifiers) -> bool:
    """Returns whether a column's values contain a trace; in identity columns the whole value counts."""
    if column in ("email", "user"):
        plain, values = divided(values)
        if traces.knows_any(plain):
            return True
    text = "\n\n".join(values)  # an empty line between, so that encoded text does not continue in the next
    if column == "serialNumber" and not traces.numbers.isdisjoint(values):
        return True
    if not (mentions(text, traces) if column == "serialNumber" else traces.found(text)):
        return False
    return any(is_trace(value, column, traces) for value in values)


def chunks(
    engine: DuckDB, source: str, column: str, kind: str = "VARCHAR", known: Known | None = None
) -> Iterator[list[str]]:
    """Yields the distinct values of a column as texts, many at a time.

    Args:
        engine: A session.
        source: What to read, for a FROM.
        column: The column.
        kind: Its DuckDB type; values other than text and blobs are searched as JSON.
        known: Texts to skip; yielded values become part of them.
    """
    plain = kind in ("VARCHAR", "BLOB")
    read = quoted(column) if plain else f"to_json({quoted(column)})::varchar"
    held: list[str] = []
    size = 0
    sql = f"select distinct {read} from {source} where {quoted(column)} is not null"
    parts: Iterable[Collection[str]]
    if kind == "BLOB":
        parts = ([as_text(value)] for (value,) in engine.stream(sql))  # a blob may be large once decompressed
    else:
        parts = ([value for (value,) in rows] for rows in engine.batches(sql))
    for values in parts:
        if known is not None and kind != "BLOB":
            values = known.among(values)
        held += values
        size += sum(map(len, values))
        if size > contents.PIECE:
            yield held
            held, size = [], 0
    yield held
