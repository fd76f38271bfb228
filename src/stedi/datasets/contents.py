"""Reads a release's folder without a lake, and trusts nothing in it.

`open_manifest` reads `manifest.json` strictly; `Found` describes one data file by its own content.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi._frozen import dataclass
from stedi.datasets.manifest import File
from stedi.errors import AuditFailed
from stedi.privacy import state
from stedi.storage import durable

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "validation", "test")
SUBJECTS = "subjects.parquet"
_DATA = re.compile(r"data/(train|validation|test)-[0-9]{5,}-of-[0-9]{5,}\.parquet")
"""Where a file of data may lie; as this is all that a path may be, none leads out of the folder."""
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST = 1 << 28
"""The largest file of a release that is read whole, bytes: manifest and checksums of a million files."""
_MANIFEST: Mapping[str, type | tuple[type, ...]] = {
    "format": int,
    "name": str,
    "version": int,
    "release": str,
    "lake": str,
    "created": str,
    "purpose": str,
    "for": str,
    "options": dict,
    "subjects": int,
    "rows": int,
    "splits": dict,
    "account": list,
    "columns": list,
    "files": list,
    "public_key": str,
    "parent": (dict, type(None)),
}
"""The required keys of a manifest."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A well-formed manifest, whose content is not verified yet.

    Attributes:
        raw: Its bytes.
        plain: Its values.
        files: The files that it lists.
        splits: For each split, its subjects and rows.
    """

    raw: bytes
    plain: Mapping[str, Any]
    files: tuple[File, ...]
    splits: Mapping[str, tuple[int, int]]

    @property
    def release(self) -> str:
        """`NAME@VERSION`."""
        return str(self.plain["release"])

    @property
    def sha256(self) -> str:
        """Of its bytes, hex."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def origin(self) -> str:
        """SHA-256 of the manifest that the release had when it was made: a recall says by it of which one it is."""
        parent = self.plain["parent"]
        return str(parent["manifest_sha256"]) if parent else self.sha256


def content(path: Path) -> bytes:
    """Returns the bytes of a small file of a release.

    Raises:
        OSError: It is not there, is no regular file, or is larger than any such file.
    """
    # a link could show this reader another file than the next one
    if path.is_symlink():
        raise OSError("a link")
    return durable.content(path, _LARGEST)


def open_manifest(path: Path) -> Manifest:
    """Returns what a manifest says.

    Raises:
        AuditFailed: It is not there, or has not the form of one.
    """
    try:
        raw = content(path)
    except OSError:
        raise AuditFailed(f"{path.name}: expected the manifest of a release, found no such file") from None
    try:
        return parsed(raw)
    except ValueError as error:
        raise AuditFailed(f"{path.name}: expected the manifest of a release, found {error}") from None


def parsed(raw: bytes) -> Manifest:
    """Returns the content of a manifest's bytes.

    Raises:
        ValueError: They are not a well-formed manifest; the message says why.
    """
    plain = state.parsed(raw)
    if not isinstance(plain, dict):
        raise ValueError("no object")
    for name, kind in _MANIFEST.items():
        # to Python, true is an integer
        if name not in plain or not isinstance(plain[name], kind) or (kind is int and isinstance(plain[name], bool)):
            raise ValueError(f"no {name}, or another type of it")
    try:
        files = tuple(File(f["path"], _count(f["size"]), _count(f["rows"]), f["sha256"]) for f in plain["files"])
        splits = {
            name: (_count(plain["splits"][name]["subjects"]), _count(plain["splits"][name]["rows"])) for name in SPLITS
        }
        if plain["parent"]:
            _told(_SHA256.fullmatch(plain["parent"]["manifest_sha256"]))
        for listed in files:
            _told(_SHA256.fullmatch(listed.sha256) and (listed.path == SUBJECTS or _DATA.fullmatch(listed.path)))
        # a file that is listed twice could have two checksums, and a reader take either
        _told(len({listed.path for listed in files}) == len(files) and set(plain["splits"]) == set(SPLITS))
        _told(all(isinstance(c["name"], str) and isinstance(c["type"], str) for c in plain["columns"]))
        _told(all(isinstance(a["what"], str) and isinstance(a["rows"], int) for a in plain["account"]))
    except (KeyError, TypeError, AttributeError):
        raise ValueError("files, splits, columns or account of another form") from None
    return Manifest(raw, plain, files, splits)


def is_data(path: str) -> bool:
    """Returns whether a file of a release holds data."""
    return _DATA.fullmatch(path) is not None


def split_of(path: str) -> str:
    """Returns the split of a data file."""
    return path.removeprefix("data/").split("-")[0]


def columns(path: Path) -> list[tuple[str, str]]:
    """Returns name and type of each column of a Parquet file, in the manifest's words."""
    import pyarrow.parquet as pq

    return [(field.name, kind(field.type)) for field in pq.read_schema(path)]


def kind(found: pa.DataType) -> str:
    """Returns a type in the manifest's words."""
    import pyarrow as pa

    # Parquet has no large lists or strings: whether a file reads back as such depends on the Arrow schema of its writer
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return f"list<{kind(found.value_type)}>"
    if pa.types.is_timestamp(found) and found.tz:
        return f"timestamp[{found.unit}, {found.tz}]"
    names = {"large_string": "string", "bool": "boolean"}
    return names.get(str(found), str(found))


def counts(path: Path) -> dict[str, int]:
    """Returns how many rows of each subject a data file has; of its columns that one alone is read."""
    import pyarrow.parquet as pq

    found: dict[str, int] = {}
    # as a dictionary, the text of a subject is decoded once for all of its rows
    with pq.ParquetFile(path, read_dictionary=["subject"]) as file:
        for batch in file.iter_batches(1 << 20, columns=["subject"]):
            for pair in batch.column(0).value_counts():
                subject = pair["values"].as_py()
                found[subject] = found.get(subject, 0) + pair["counts"].as_py()
    return found


def subjects(path: Path) -> list[tuple[str, str, int]]:
    """Returns subject, split and rows of each row of `subjects.parquet`."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, partitioning=None)
    return list(zip(*(table.column(name).to_pylist() for name in ("subject", "split", "rows")), strict=True))


def without(path: Path, dropped: frozenset[str]) -> Iterator[pa.RecordBatch]:
    """Yields the rows of a data file in their order, except those of some subjects."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1 << 16):
            yield filtered(batch, dropped)


def filtered(rows: Any, dropped: frozenset[str]) -> Any:
    """Returns rows, an Arrow table or batch, without those of some subjects."""
    import pyarrow as pa
    import pyarrow.compute as pc

    gone = pa.array(sorted(dropped), pa.string())
    return rows.filter(pc.invert(pc.is_in(rows.column("subject").cast(pa.string()), value_set=gone)))


def digest(batches: Iterator[pa.RecordBatch]) -> str:
    """Returns the SHA-256, hex, of rows as values, independent of the file's encoding and row groups.

    Of each column the digests of its values, one after the other, and of which are missing: numbers as they lie in
    memory, little-endian; of texts and lists the lengths, and by themselves what is in them.
    """
    found: dict[str, Any] = {}
    for batch in batches:
        if not batch.num_rows:  # whether a file without rows has a batch is its writer's matter
            continue
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            for part, values in _parts(name, column):
                found.setdefault(part, hashlib.sha256()).update(values)
    whole = hashlib.sha256()
    for part, into in found.items():
        whole.update(f"{part}\0{into.hexdigest()}\n".encode())
    return whole.hexdigest()


def _parts(name: str, column: pa.Array) -> Iterator[tuple[str, Any]]:
    """Yields the parts of which a column has its digests, by name: bytes, or what lies in memory like them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    def numbers(values: pa.Array) -> Any:
        width, data = values.type.bit_width // 8, values.buffers()[1]
        return memoryview(data)[values.offset * width : (values.offset + len(values)) * width] if data else b""

    # which of a file's columns are dictionaries is its writer's matter, too
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    yield f"{name}#valid", numbers(column.is_valid().cast(pa.int8()))
    if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        yield f"{name}#length", numbers(pc.fill_null(pc.list_value_length(column).cast(pa.int64()), 0))
        yield from _parts(f"{name}[]", column.flatten())
    elif pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = pc.fill_null(column.cast(pa.large_string()), "")
        # "ab", "c" and "a", "bc" have the same bytes one after the other
        yield f"{name}#length", numbers(pc.binary_length(column).cast(pa.int64()))
        _, places, data = column.buffers()
        if len(column) and data:
            ends = memoryview(places).cast("b").cast("q")
            yield name, memoryview(data)[ends[column.offset] : ends[column.offset + len(column)]]
        else:
            yield name, b""
    else:
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        elif pa.types.is_timestamp(column.type):
            column = column.cast(pa.int64())
        yield name, numbers(pc.fill_null(column, 0))


def _count(value: object) -> int:
    _told(type(value) is int and value >= 0)
    assert isinstance(value, int)
    return value


def _told(holds: object) -> None:
    if not holds:
        raise TypeError
