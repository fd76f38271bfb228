"""Output formats: a stream of Arrow batches as a table, a list of fields, Markdown, CSV, JSON, Parquet or Arrow IPC.

Batches are converted to text by column and written one by one, so memory depends on a batch and not on the result; a
table takes its widths from its first rows. Only a table for a terminal shows less than all, and says so. A file appears
whole or not at all, readable by its owner alone.

CSV and JSON are put together here, for neither DuckDB's COPY nor Arrow's writer gives the same bytes: both write times
with a blank in place of T and end lines of CSV by LF, and DuckDB's JSON has NaN, which is none then.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from json.encoder import encode_basestring_ascii
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from stedi._frozen import dataclass
from stedi.cli import tables
from stedi.cli.columns import as_json, as_text, data, join, printable_text
from stedi.cli.tables import table
from stedi.errors import FORMULA, QueryFailed, UsageError, printable
from stedi.storage import destinations

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SHOWN_ROWS", "Format", "Written", "format_of", "table", "write"]

SHOWN_ROWS = 1_000
"""Rows that a table shows on a terminal, and those that say how wide its columns are elsewhere."""

_SLICE = 32_768
"""Rows that are converted to text at once."""
_ROW_GROUP = 122_880
"""Rows of a row group of Parquet: DuckDB's own size, of which one thread reads one."""
_ROW_GROUP_BYTES = 128 << 20
"""Or so many bytes, so that wide rows do not fill the memory."""


class Format(StrEnum):
    """The forms in which rows are written."""

    TABLE = "table"
    VERTICAL = "vertical"
    MARKDOWN = "markdown"
    CSV = "csv"
    JSON = "json"
    JSONL = "jsonl"
    PARQUET = "parquet"
    ARROW = "arrow"


@dataclass(frozen=True, slots=True)
class Written:
    """The outcome of a write.

    Attributes:
        rows: Rows written.
        cut: Whether a table has left out further rows.
    """

    rows: int
    cut: bool = False


_ENDINGS = {
    ".md": Format.MARKDOWN,
    ".csv": Format.CSV,
    ".json": Format.JSON,
    ".jsonl": Format.JSONL,
    ".ndjson": Format.JSONL,
    ".parquet": Format.PARQUET,
    ".arrow": Format.ARROW,
    ".feather": Format.ARROW,
}
WITHOUT_ARROW = (Format.TABLE, Format.JSON, Format.JSONL)
"""Forms in which `write_few` writes."""
BINARY = (Format.PARQUET, Format.ARROW)
"""Forms that hold values rather than text."""


def format_of(path: Path | str | None) -> Format:
    """Returns the format from a file's name, compressed or not; a table without a file, or for a device or pipe.

    Raises:
        UsageError: Its ending is unknown: a table for people is of no use in a file.
    """
    if path is None or destinations.is_special(Path(path)):
        return Format.TABLE
    name = Path(path)
    if name.suffix.lower() in destinations.PACKED:
        name = name.with_suffix("")
    form = _ENDINGS.get(name.suffix.lower())
    if form is None:
        raise UsageError(
            f"--output {printable(str(path))}: expected a name that ends in {', '.join(_ENDINGS)}, or in one of them "
            f"and {', '.join(destinations.PACKED)}; found another; nothing was run: choose one, or say --format"
        )
    _refuse_packed(path, form)
    return form


def _refuse_packed(path: Path | str, form: Format) -> None:
    if form in BINARY and Path(path).suffix.lower() in destinations.PACKED:
        raise UsageError(
            f"--output {printable(str(path))}: expected a name without {Path(path).suffix}, since {form} compresses "
            "its own columns; nothing was written"
        )


def chosen(reader: pa.RecordBatchReader, columns: str) -> pa.RecordBatchReader:
    """Returns rows with only some columns, in the order of a comma-separated list.

    Raises:
        UsageError: There is none of that name; nothing was read.
    """
    import pyarrow as pa

    names = reader.schema.names
    # reversed, so that of two columns of one name the first is meant
    folded = {name.casefold(): i for i, name in reversed(list(enumerate(names)))}
    wanted = [word.strip() for word in columns.split(",")]
    for word in wanted:
        if word.casefold() not in folded:
            listed = printable(", ".join(names))
            raise UsageError(f"--columns: expected some of {listed}; found {printable(word) or 'nothing'}")
    places = [folded[word.casefold()] for word in wanted]
    schema = pa.schema([reader.schema.field(i) for i in places])
    batches = (pa.RecordBatch.from_arrays([batch.column(i) for i in places], schema=schema) for batch in reader)
    return pa.RecordBatchReader.from_batches(schema, batches)


def write(
    reader: pa.RecordBatchReader,
    form: Format | str,
    to: BinaryIO | Path | str,
    *,
    limit: int | None = SHOWN_ROWS,
    width: int | None = None,
    mode: int = 0o600,
    spreadsheet: bool = False,
    coloured: bool = False,
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
        width: The widest line of a table or a list of fields on a stream, in columns of a terminal; None for any.
        mode: The permissions of a file that is made.
        coloured: Whether a table on a stream has faces that a terminal shows.
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
        raise UsageError(f"--format: expected one of {', '.join(Format)}, found something else") from None
    if spreadsheet and form is not Format.CSV:
        raise UsageError(f"--safe-for-spreadsheets: expected --format csv, found {form}; nothing was written")
    if isinstance(to, Path | str):
        _refuse_packed(to, form)
        with destinations.writing(Path(to), mode) as out:
            return _write(reader, form, out, None, None, spreadsheet=spreadsheet)
    if form in BINARY and to.isatty():
        raise UsageError(
            f"{form.title()} cannot be shown on a terminal. Name a file with --output, or choose table, csv or json."
        )
    if coloured and form is Format.TABLE:
        return _table(reader, to, limit, width, style=tables.styled)
    return _write(reader, form, to, limit, width, spreadsheet=spreadsheet)


def write_few(
    columns: Sequence[tuple[str, str]],
    rows: Sequence[Sequence[int | None]],
    form: Format | str,
    out: BinaryIO,
    *,
    width: int | None = None,
    coloured: bool = False,
) -> None:
    """Writes few rows of whole numbers and truth values as `write` does, without Arrow.

    Args:
        columns: Name and DuckDB type of each column.
        rows: A value for each column.
        form: One of `WITHOUT_ARROW`.
        out: An open binary stream.
        width: As for `write`.
        coloured: As for `write`.
    """
    names = [name for name, _ in columns]
    if form != Format.TABLE:
        named = [f"{encode_basestring_ascii(name)}:" for name in _unique(names)]
        objects = [
            "{" + ",".join(name + json.dumps(value) for name, value in zip(named, row, strict=True)) + "}"
            for row in rows
        ]
        if form == Format.JSONL:
            text = "".join(f"{line}\n" for line in objects)
        else:
            text = "[\n" + ",\n".join(objects) + "\n]\n" if objects else "[]\n"
        out.write(text.encode())
        return
    texts = [[_shown(None if value is None else json.dumps(value), None) for value in row] for row in rows]
    laid = tables.lay_out(names, texts, [kind != "BOOLEAN" for _, kind in columns], width=width)
    style = tables.styled if coloured else str
    out.write(f"{style(laid.text)}\n".encode())
    _end_table(out, laid, style, f"{len(rows):,} row{'' if len(rows) == 1 else 's'}")


def _write(
    reader: pa.RecordBatchReader,
    form: Format,
    out: BinaryIO,
    limit: int | None,
    width: int | None,
    *,
    spreadsheet: bool,
) -> Written:
    match form:
        case Format.TABLE:
            return _table(reader, out, limit, width)
        case Format.VERTICAL:
            return _vertical(reader, out, width)
        case Format.MARKDOWN:
            return _markdown(reader, out)
        case Format.CSV:
            return _csv(reader, out, _Fields(spreadsheet, out.isatty()))
        case Format.JSON:
            return _json(reader, out)
        case Format.JSONL:
            return _json(reader, out, lines=True)
        case Format.PARQUET:
            return _parquet(reader, out)
        case Format.ARROW:
            return _arrow(reader, out)


def _slices(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        for start in range(0, batch.num_rows, _SLICE):
            yield batch.slice(start, _SLICE)


def _table(
    reader: pa.RecordBatchReader,
    out: BinaryIO,
    limit: int | None,
    width: int | None,
    style: Callable[[str], str] = str,
) -> Written:
    numeric = _numeric(reader.schema)
    # no more of a long text can be shown, and escaping the rest takes time
    most = None if width is None else 4 * width
    held: list[list[str]] = []
    laid: tables.Laid | None = None
    rows, cut = 0, False
    for batch in _slices(reader):
        texts = _texts(batch if limit is None else batch.slice(0, limit - rows), most)
        rows += len(texts)
        cut = limit is not None and batch.num_rows > len(texts)
        if laid is not None:
            out.write(f"{style(tables.further(texts, numeric, laid.widths))}\n".encode())
            continue
        held += texts
        if cut:
            break
        # a file or pipe gets every row, and the widths of its columns from the first ones
        if limit is None and len(held) >= SHOWN_ROWS:
            laid = tables.lay_out(reader.schema.names, held, numeric, width=width)
            out.write(f"{style(laid.text)}\n".encode())
            held.clear()
    if laid is None:
        laid = tables.lay_out(reader.schema.names, held, numeric, width=width)
        out.write(f"{style(laid.text)}\n".encode())
    count = f"{rows:,} row{'' if rows == 1 else 's'}"
    if cut:
        count = f"the first {count}; there are more: use another --format or --output for all of them"
    _end_table(out, laid, style, count)
    return Written(rows, cut)


def _end_table(out: BinaryIO, laid: tables.Laid, style: Callable[[str], str], count: str) -> None:
    out.write(f"{style(f'({count})')}\n".encode())
    if left := laid.missing("`--format vertical` or `--columns` shows the rest"):
        out.write(f"{style(f'({left})')}\n".encode())


def _numeric(schema: pa.Schema) -> list[bool]:
    import pyarrow as pa

    types = pa.types
    return [types.is_integer(f.type) or types.is_floating(f.type) or types.is_decimal(f.type) for f in schema]


def _texts(batch: pa.RecordBatch, most: int | None = None) -> list[list[str]]:
    """Returns rows as texts for people, each of at most so many characters."""
    columns = [
        [_shown(value, most) for value in as_text(column, name, printable_text).to_pylist()]
        for column, name in zip(batch.columns, batch.schema.names, strict=True)
    ]
    return [list(row) for row in zip(*columns, strict=True)]


def _shown(text: str | None, most: int | None) -> str:
    if text is None:
        return NULL
    # quoted as often as need be: no text looks like a missing value
    return f"'{text}'" if text.strip("'") == NULL else printable(text[:most])


NULL = "NULL"
"""How a missing value is shown; a text of these letters is quoted."""


def _vertical(reader: pa.RecordBatchReader, out: BinaryIO, width: int | None) -> Written:
    """Writes one line for each field; long values continue below."""
    names = [printable(name) for name in reader.schema.names]
    wide = max((tables.width_of(name) for name in names), default=0)
    room = None if width is None else max(1, width - wide - 2)
    rows = 0
    for batch in _slices(reader):
        lines = []
        for row in _texts(batch):
            rows += 1
            lines.append(f"-- row {rows:,} --")
            for name, text in zip(names, row, strict=True):
                lead = name + " " * (wide - tables.width_of(name))
                for part in [text] if room is None else tables.pieces(text, room):
                    lines.append(f"{lead}  {part}".rstrip())
                    lead = " " * wide
        if lines:
            out.write(("\n".join(lines) + "\n").encode())
    out.write(f"({rows:,} row{'' if rows == 1 else 's'})\n".encode())
    return Written(rows)


def _markdown(reader: pa.RecordBatchReader, out: BinaryIO) -> Written:
    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("\\", "\\\\").replace("|", "\\|") for cell in cells) + " |\n"

    marks = ["---:" if right else "---" for right in _numeric(reader.schema)]
    out.write((line([printable(name) for name in reader.schema.names]) + line(marks)).encode())
    rows = 0
    for batch in _slices(reader):
        out.write("".join(map(line, _texts(batch))).encode())
        rows += batch.num_rows
    return Written(rows)


def _arrow(reader: pa.RecordBatchReader, out: BinaryIO) -> Written:
    """Writes a file of Arrow IPC, also known as Feather."""
    import pyarrow as pa

    rows = 0
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(pa.PythonFile(out, "w"), reader.schema, options=options) as writer:
        for batch in reader:
            writer.write_batch(batch)
            rows += batch.num_rows
    return Written(rows)


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
        """Returns a column's texts as written; numbers and times stay numbers and times."""
        import pyarrow as pa
        import pyarrow.compute as pc

        types = pa.types
        if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_temporal(kind):
            return texts
        if self.spreadsheet:
            texts = pc.replace_substring_regex(texts, f"^([{FORMULA}])", r"'\1")
        if self.shown:
            texts = pa.array([None if t is None else printable(t) for t in texts.to_pylist()], texts.type)
        return texts


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
        # Every object is written with its separator; the first has none.
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
            "A column has a type that Parquet does not have, such as an interval. Cast it to text."
        ) from None
    return Written(rows)


def _unique(names: Sequence[str]) -> list[str]:
    """Returns the names with `_2`, `_3` after those that have been there before."""
    taken, found = set(names), list[str]()
    for name in names:
        unique, number = name, 1
        # a name that is made up must not be one that comes later
        while unique in found or (number > 1 and unique in taken):
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found
