"""Rows out: a stream of Arrow batches becomes an aligned table, CSV, JSON, JSON lines or Parquet.

Batches are turned into text a column at a time and written as they come, so memory follows a batch and not the
result; only the table, which has to know its widths, holds the rows that it shows. A file appears whole or not at
all, readable by its owner alone.

CSV and JSON are put together here, for neither DuckDB's COPY nor Arrow's writer gives the same bytes: both write times
with a blank in place of T and end lines of CSV by LF, and DuckDB's JSON has NaN, which is none then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stedi.cli import tables
from stedi.cli.columns import as_json, as_text, data, join, printable_text
from stedi.cli.tables import table
from stedi.errors import QueryFailed, UsageError, printable
from stedi.storage import destinations

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SHOWN_ROWS", "Format", "Written", "format_of", "table", "write"]

SHOWN_ROWS = 1_000
"""Rows that a table shows if nothing else is said."""

_SLICE = 32_768
_ROW_GROUP = 122_880
_ROW_GROUP_BYTES = 128 << 20


class Format(StrEnum):
    """The forms in which rows are written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        rows: Rows written.
        cut: Whether there were more, which a table left out.
    """

    rows: int
    cut: bool = False


_ENDINGS = {
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
}


def format_of(path: Path | str | None) -> Format:
    """Returns the form that a file's name asks for; a table for no file.

    Raises:
        UsageError: Its ending says nothing: a table for people, cut or not, is of no use to who reads a file.
    """
    if path is None:
        return Format.TABLE
    form = _ENDINGS.get(Path(path).suffix.lower())
    if form is None:
        raise UsageError(
            f"--output {printable(str(path))}: expected a name that ends in {', '.join(_ENDINGS)}, found "
            "another; nothing was run: choose one, or say --format (a name in .gz or .zst is compressed then)"
        )
    return form


def write(
    reader: pa.RecordBatchReader,
    form: Format | str,
    to: BinaryIO | Path | str,
    *,
    limit: int | None = SHOWN_ROWS,
    mode: int = 0o600,
    spreadsheet: bool = False,
) -> Written:
    """Writes every row of `reader`, in order.

    CSV is RFC 4180: a header line, CRLF, a null as an empty field and an empty text as `""`. JSON is one array of
    objects, one a line; integers keep every digit, NaN and infinities are null, instants are ISO 8601 in UTC with Z,
    binary values are base64. Two columns of one name become `a` and `a_2` in JSON and Parquet.

    Args:
        reader: The rows; read to its end, or for a table to one row beyond `limit`.
        form: One of `Format`.
        to: An open binary stream, or the path of a file, which is replaced in one step when all rows are written; see
            `destinations`.
        limit: The most rows that a table on a stream shows; None for all. The other forms, and files, always hold
            every row.
        mode: The permissions of a file that is made.
        spreadsheet: Whether, in CSV, a text that a spreadsheet would take for a formula begins with an apostrophe.

    Returns:
        The number of rows written, and whether a table left some out.

    Raises:
        UsageError: Parquet for a terminal, or a form that does not exist.
        QueryFailed: A column's type cannot be written in this form.
        StediError: The file cannot be written.
    """
    try:
        form = Format(form)
    except ValueError:
        raise UsageError(f"Format: expected one of {', '.join(Format)}, found another word.") from None
    if spreadsheet and form is not Format.CSV:
        raise UsageError(f"--safe-for-spreadsheets: expected --format csv, found {form}; nothing was written")
    if isinstance(to, Path | str):
        with destinations.writing(Path(to), mode) as out:
            return _write(reader, form, out, None, spreadsheet=spreadsheet)
    if form is Format.PARQUET and to.isatty():
        raise UsageError("Parquet is not for a terminal. Name a file with --output, or choose table, csv or json.")
    return _write(reader, form, to, limit, spreadsheet=spreadsheet)


def _write(
    reader: pa.RecordBatchReader, form: Format, out: BinaryIO, limit: int | None, *, spreadsheet: bool
) -> Written:
    match form:
        case Format.TABLE:
            return _table(reader, out, limit)
        case Format.CSV:
            return _csv(reader, out, _Fields(spreadsheet, out.isatty()))
        case Format.JSON:
            return _json(reader, out)
        case Format.JSONL:
            return _json(reader, out, lines=True)
        case Format.PARQUET:
            return _parquet(reader, out)


def _slices(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        for start in range(0, batch.num_rows, _SLICE):
            yield batch.slice(start, _SLICE)


def _table(reader: pa.RecordBatchReader, out: BinaryIO, limit: int | None) -> Written:
    import pyarrow as pa

    rows: list[list[str]] = []
    cut = False
    for batch in _slices(reader):
        room = batch.num_rows if limit is None else limit - len(rows)
        cut = batch.num_rows > room
        shown = batch.slice(0, room)
        columns = [
            [_shown(value) for value in as_text(column, name, printable_text).to_pylist()]
            for column, name in zip(shown.columns, shown.schema.names, strict=True)
        ]
        rows.extend(list(row) for row in zip(*columns, strict=True))
        if cut:
            break
    types = pa.types
    numeric = [types.is_integer(f.type) or types.is_floating(f.type) or types.is_decimal(f.type) for f in reader.schema]
    count = f"{len(rows):,} row{'' if len(rows) == 1 else 's'}"
    if cut:
        count = f"the first {count}; there are more: csv, json and parquet hold every row"
    out.write(f"{tables.lay_out(reader.schema.names, rows, numeric)}\n({count})\n".encode())
    return Written(len(rows), cut)


def _shown(text: str | None) -> str:
    return "null" if text is None else printable(text[: 4 * tables.MAX_CELL])


@dataclass(frozen=True, slots=True)
class _Fields:
    """What becomes of texts before they are fields of CSV.

    Attributes:
        spreadsheet: What a spreadsheet would take for a formula begins with an apostrophe.
        shown: What a terminal would obey is escaped, as in a table; elsewhere CSV is data and exact.
    """

    spreadsheet: bool
    shown: bool

    def of(self, texts: pa.Array, kind: pa.DataType) -> pa.Array:
        """Returns a column's texts as they are to be written; numbers and times stay numbers and times."""
        import pyarrow as pa
        import pyarrow.compute as pc

        types = pa.types
        if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_temporal(kind):
            return texts
        if self.spreadsheet:
            texts = pc.replace_substring_regex(texts, _FORMULA, r"'\1")
        if self.shown:
            texts = pa.array([None if t is None else printable(t) for t in texts.to_pylist()], texts.type)
        return texts


_FORMULA = "^([=+\\-@\t\r\n＝＋－＠])"
"""How a cell begins that spreadsheets compute, or make something else of; wide forms are taken for narrow ones."""


def _csv(reader: pa.RecordBatchReader, out: BinaryIO, fields: _Fields) -> Written:
    import pyarrow as pa
    import pyarrow.compute as pc

    header = fields.of(pa.array(reader.schema.names, pa.large_string()), pa.large_string())
    out.write(",".join(_csv_fields(header).to_pylist()).encode() + b"\r\n")
    rows = 0
    for batch in _slices(reader):
        parts: list[pa.Array | str] = []
        for column, name in zip(batch.columns, batch.schema.names, strict=True):
            parts += [pc.fill_null(_csv_fields(fields.of(as_text(column, name), column.type)), ""), ","]
        parts[-1] = "\r\n"
        out.write(data(join(parts)))
        rows += batch.num_rows
    return Written(rows)


def _csv_fields(texts: pa.Array) -> pa.Array:
    """Returns each text as a CSV field, quoted where it has to be."""
    import pyarrow.compute as pc

    plain = data(texts)
    if not any(mark in plain for mark in (b'"', b",", b"\r", b"\n")) and pc.min(pc.binary_length(texts)).as_py() != 0:
        return texts
    quoted = pc.match_substring_regex(texts, '^$|[",\r\n]')
    return pc.if_else(quoted, join(['"', pc.replace_substring(texts, '"', '""'), '"']), texts)


def _json(reader: pa.RecordBatchReader, out: BinaryIO, *, lines: bool = False) -> Written:
    names = _unique(reader.schema.names)
    rows = 0
    between = "\n{" if lines else ",\n{"
    out.write(b"" if lines else b"[")
    for batch in _slices(reader):
        parts: list[pa.Array | str] = []
        for column, name in zip(batch.columns, names, strict=True):
            opening = "," if parts else between
            parts += [f"{opening}{encode_basestring_ascii(name)}:", as_json(column, name)]
        text = data(join([*parts, "}"]))
        # Every object comes with what stands before it; the very first has no comma, and no line before it.
        out.write((text[1:] if rows == 0 and text else text).replace(b"\x7f", rb"\u007f"))
        rows += batch.num_rows
    if lines:
        out.write(b"\n" if rows else b"")
    else:
        out.write(b"\n]\n" if rows else b"]\n")
    return Written(rows)


def _parquet(reader: pa.RecordBatchReader, out: BinaryIO) -> Written:
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([f.with_name(n) for f, n in zip(reader.schema, _unique(reader.schema.names), strict=True)])
    rows = 0
    held: list[pa.RecordBatch] = []
    try:
        with pq.ParquetWriter(out, schema, compression="zstd", write_page_checksum=True) as writer:
            for batch in reader:
                held.append(pa.RecordBatch.from_arrays(batch.columns, schema=schema))
                rows += batch.num_rows
                if sum(b.num_rows for b in held) >= _ROW_GROUP or sum(b.nbytes for b in held) >= _ROW_GROUP_BYTES:
                    writer.write_table(pa.Table.from_batches(held, schema))
                    held.clear()
            if held:
                writer.write_table(pa.Table.from_batches(held, schema))
    except pa.ArrowNotImplementedError:
        raise QueryFailed(
            "A column has a type that Parquet does not know. Cast intervals and the like to text."
        ) from None
    return Written(rows)


def _unique(names: Sequence[str]) -> list[str]:
    """Returns the names with `_2`, `_3` after those that have been there before."""
    taken, found = set(names), list[str]()
    for name in names:
        unique, number = name, 1
        while unique in found or (number > 1 and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found
