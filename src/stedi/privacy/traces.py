"""Traces of customers in text and in files: the search that proves an erasure.

Everything that a lake holds is decoded, Parquet by its values, Avro, SQLite, compressed and plain files by their
content, and searched for what identifies somebody. Spelling does not hide them: case, Unicode's forms and JSON's
escapes are undone first. A text counts where it stands alone: `ann@x.example` is not in `joann@x.example`.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import sqlite3
import tempfile
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from stedi import durable, s3
from stedi.engines.duckdb import DuckDB
from stedi.engines.literals import path_literal, quoted
from stedi.privacy import tombstones
from stedi.privacy.pseudonyms import Key, normalise
from stedi.privacy.tombstones import addresses, unescaped
from stedi.workers import Workers

_SHORT = 6
"""Below so many characters a text counts only as a whole value or a whole quoted string: `s1` is everywhere."""
_PIECE = 1 << 22
_LOOKS = 4
"""Tasks a worker: files differ in size, and whoever is ready takes the next."""
_MEMORY = "600MB"
"""What the engine of a worker may take."""
_MOST_KNOWN = 1 << 20
_BEFORE = re.compile(r"[\w.+%-]$")
_AFTER = re.compile(r"[\w-]|\.(?!(?:jsonl?|ndjson|gz|zst|txt)\b)\w")
_WHOLE = '"\n'
_TEXTS = ("VARCHAR", "BLOB")
_OURS = frozenset({"feed", "reason", "batch", "sha256", "_file"})
"""Columns in which the lake's own words stand, and nobody's."""


@dataclass(frozen=True, slots=True)
class Traces:
    """What identifies some customers.

    Attributes:
        key: The lake's key.
        people: Their marks: an address is found by its mark, too, where nobody knows its text any more.
        names: Addresses in their normal form, and names and phone numbers that nobody else has; spelling is ignored.
        numbers: Serial numbers that nobody else claims, and pseudonyms; as they are.
    """

    key: Key
    people: Collection[str]
    names: frozenset[str] = frozenset()
    numbers: frozenset[str] = frozenset()
    _known: dict[str, bool] = field(default_factory=dict, repr=False, compare=False)

    def found(self, text: str, *, data: bool = True) -> bool:
        """Says whether a text holds one of them.

        Args:
            text: The text; of several values, one a line.
            data: Whether it is customers' data, not the lake's own words: those may hold short or common texts.
        """
        if "\\" in text:
            text = f"{text}\n{unescaped(text)}"
        plain = folded(text)
        if any(stands(plain, name) for name in self.names if name in plain and (data or "@" in name)):
            return True
        if any(stands(text, number) for number in self.numbers if number in text and (data or len(number) >= _SHORT)):
            return True
        return any(map(self.known, addresses(plain)))

    def names_file(self, name: str, *, data: bool = True) -> bool:
        """Says whether a file's name holds one of them, be it in the middle of a word; `data` as in `found`."""
        plain = folded(name)
        known = any(text in plain for text in self.names if "@" in text)
        return (
            known
            or any(number in name for number in self.numbers if len(number) >= _SHORT)
            or self.found(name, data=data)
        )

    def known(self, address: str) -> bool:
        """Says whether an address, in any spelling, is one of theirs."""
        if address not in self._known:
            self._known[address] = tombstones.person(self.key, address) in self.people
        return self._known[address]


def folded(text: str) -> str:
    """Returns a text as an address's normal form is written (rule 1 of consent), white space kept."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def stands(text: str, part: str) -> bool:
    """Says whether a part of a text stands alone there."""
    at = text.find(part)
    while at >= 0:
        end = at + len(part)
        if len(part) < _SHORT:
            before, after = text[:at].rstrip(" \t")[-1:], text[end:].lstrip(" \t")[:1]
            alone = (not before or before in _WHOLE) and (not after or after in _WHOLE)
        else:
            alone = not _BEFORE.search(text[max(0, at - 1) : at]) and not _AFTER.match(text, end)
        if alone:
            return True
        at = text.find(part, at + 1)
    return False


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
        found: The files that hold traces, relative to the folder.
    """

    files: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    found: list[str] = field(default_factory=list)


def search(
    root: Path,
    traces: Traces,
    engine: DuckDB,
    *,
    without: Collection[Path] = (),
    held: Collection[Path] = (),
    workers: Workers | None = None,
) -> Search:
    """Decodes every file below a folder and looks for traces in it.

    Args:
        root: The folder.
        traces: What to look for.
        engine: A session, for Parquet.
        without: Files that are left out.
        held: Folders that are left out: other processes work in them.
        workers: Who decodes the files, if it is not this process.
    """
    entries = [entry for entry in durable.entries(root, held) if entry.path not in without]
    done = Search(bytes=sum(entry.size for entry in entries))
    if workers is None:
        parts = [_searched(root, [entry.path for entry in entries], traces, engine)]
    else:
        count = min(len(entries), _LOOKS * workers.slots)
        entries.sort(key=lambda entry: (str(_table(root, entry.path)), entry.size))
        tasks = [_Part(root, tuple(entry.path for entry in entries[n::count]), traces) for n in range(count)]
        parts = workers.map(_search, tasks)
    for part in parts:
        done.found += part.found
        for kind, files in part.files.items():
            done.files[kind] = done.files.get(kind, 0) + files
    return done


@dataclass(frozen=True, slots=True)
class _Part:
    """Files in which one worker looks for traces."""

    root: Path
    paths: tuple[Path, ...]
    traces: Traces


def _search(part: _Part) -> Search:
    """Looks for traces in a part. Runs on a worker."""
    with (
        tempfile.TemporaryDirectory(prefix="stedi-") as scratch,
        DuckDB(memory=_MEMORY, threads=1, temporary=Path(scratch, "spill")) as engine,
    ):
        return _searched(part.root, part.paths, part.traces, engine)


def _searched(root: Path, paths: Iterable[Path], traces: Traces, engine: DuckDB) -> Search:
    """Looks for traces in some files."""
    done = Search()
    tables: dict[Path, list[Path]] = {}

    def told(path: Path) -> str:
        name = str(path.relative_to(root))
        return "a file named after them" if traces.names_file(name, data=False) else name

    for path in paths:
        kind = _kind(path)
        done.files[kind] = done.files.get(kind, 0) + 1
        if kind == "parquet":
            tables.setdefault(_table(root, path), []).append(path)
        if traces.names_file(str(path.relative_to(root)), data=False) or (
            kind != "parquet" and any(traces.found(text, data=False) for text in _texts(path, kind))
        ):
            done.found.append(told(path))
    clean: set[str] = set()
    for files in tables.values():
        if _in_parquet(files, traces, engine, clean):
            done.found += [told(path) for path in files if _in_parquet([path], traces, engine, set())]
    return done


def _table(root: Path, path: Path) -> Path:
    """Returns the folder whose Parquet files have the same columns as this one, as far as its place tells."""
    parts = path.relative_to(root).parts
    return root.joinpath(*parts[:2]) if len(parts) > 2 and parts[2] == "data" else path


def _kind(path: Path) -> str:
    if path.is_symlink():
        return "link"
    if s3.is_remote(path):
        head = s3.start(path, 16)
    else:
        with open(path, "rb") as stream:
            head = stream.read(16)
    known = {b"PAR1": "parquet", b"Obj\x01": "avro", b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
    if head.startswith(b"SQLite format 3\0"):
        return "sqlite"
    return next((kind for magic, kind in known.items() if head.startswith(magic)), "other")


def _texts(path: Path, kind: str) -> Iterator[str]:
    """Yields what a file holds, as written and decoded; what does not decode is searched as it is."""
    if kind == "link":
        yield os.readlink(path)
        return
    yield from _pieces(path.read_bytes())
    with suppress(Exception):  # damaged: its bytes were searched all the same
        if kind == "avro":
            import fastavro

            with path.open("rb") as stream:
                reader = fastavro.reader(stream)
                yield json.dumps(reader.metadata)
                for record in reader:
                    yield _unpacked(record)
        elif kind == "sqlite":
            with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
                yield from connection.iterdump()
        elif kind == "gzip":
            with path.open("rb") as stream, gzip.open(stream) as decoded:
                yield from _pieces(decoded.read())
        elif kind == "zstd":
            import zstandard

            with path.open("rb") as stream:
                yield from _pieces(zstandard.ZstdDecompressor().stream_reader(stream, read_across_frames=True).read())


def _unpacked(value: object) -> str:
    """Returns everything in a decoded record, one value a line."""
    match value:
        case dict():
            return "\n".join(_unpacked(part) for pair in value.items() for part in pair)
        case list():
            return "\n".join(map(_unpacked, value))
        case bytes():
            return value.decode("utf-8", "replace")
    return str(value)


def _pieces(raw: bytes) -> Iterator[str]:
    """Yields bytes as text, also as if they were UTF-16, in pieces that overlap."""
    for encoding in ("utf-8", "utf-16-le", "utf-16-be") if b"\0" in raw[:_PIECE] else ("utf-8",):
        for start in range(0, len(raw) or 1, _PIECE):
            yield raw[max(0, start - 4096) : start + _PIECE].decode(encoding, "replace")


def _in_parquet(files: Iterable[Path], traces: Traces, engine: DuckDB, clean: set[str]) -> bool:
    """Says whether a text or a blob in some Parquet files of one table holds a trace.

    Args:
        files: The files.
        traces: What to look for.
        engine: A session.
        clean: Texts that hold none, so that they are looked at once: most stand in several tables. Grows.
    """
    source = f"read_parquet([{', '.join(path_literal(str(path)) for path in files)}], hive_partitioning = false)"
    columns = engine.rows(f"select column_name, column_type from (describe select * from {source})")
    texts = [name for name, kind in columns if kind in _TEXTS and name not in _OURS]
    found = any(traces.found(text) for name in texts for text in values(engine, source, name, clean))
    if found:
        clean.clear()  # it is among them
    return found


def values(engine: DuckDB, source: str, column: str, known: set[str] | None = None) -> Iterator[str]:
    """Yields the different values of a column of texts or blobs, many at a time, one a line.

    Args:
        engine: A session.
        source: What to read, for a FROM.
        column: The column.
        known: Values that are left out; those that are yielded are added, as long as they are not too many.
    """
    held: list[str] = []
    size = 0
    for (value,) in engine.stream(f"select distinct {quoted(column)} from {source} where {quoted(column)} is not null"):
        if known is not None:
            if value in known:
                continue
            if len(known) < _MOST_KNOWN and isinstance(value, str):
                known.add(value)
        held.append(as_text(value))
        size += len(held[-1])
        if size > _PIECE:
            yield "\n".join(held)
            held, size = [], 0
    yield "\n".join(held)


def as_text(value: str | bytes) -> str:
    """Returns a value as text; a blob that is compressed, decompressed, too."""
    if isinstance(value, str):
        return value
    raw = bytes(value)
    if raw.startswith(b"\x1f\x8b"):
        with suppress(Exception):
            raw += b"\n" + gzip.GzipFile(fileobj=io.BytesIO(raw)).read(_PIECE)
    return raw.decode("utf-8", "replace")
