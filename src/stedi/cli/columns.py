"""Converts a column of Arrow to text or JSON, without a loop over rows where Arrow has a function.

All text formats have the same rules: ISO 8601 in UTC with at least milliseconds, numbers with every digit, base64 for
bytes, JSON for nested values. Nulls stay nulls in text and are `null` in JSON.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

from stedi.errors import QueryFailed, UsageError, printable

if TYPE_CHECKING:
    import pyarrow as pa

_FEW = 100
"""The number of values that Python converts faster than Arrow's functions are imported."""
_PLAIN_IN_JSON = bytes(set(range(0x20, 0x7F)) - set(b'"\\'))
"""The bytes that stand for themselves in a JSON string."""

_FOUR_DIGIT_YEARS = (-62_135_596_800_000, 253_402_300_799_999)
"""Epoch milliseconds of the first and last instants with a four-digit year."""


def base64_text(value: bytes) -> str:
    """Returns bytes in base64."""
    return base64.b64encode(value).decode()


def printable_text(value: bytes) -> str:
    """Returns bytes as ASCII, everything else and the backslash in hexadecimal escapes."""
    return "".join(chr(b) if 32 <= b < 127 and b != 92 else f"\\x{b:02x}" for b in value)


def as_text(column: pa.Array, name: str, binary: Callable[[bytes], str] = base64_text) -> pa.Array:
    """Returns a column as text, nulls kept.

    Args:
        column: Any Arrow array.
        name: The column's name, for errors.
        binary: What bytes become.

    Returns:
        An array of `large_string` of the same length.

    Raises:
        QueryFailed: The type has no text.
    """
    import pyarrow as pa

    types = pa.types
    column = _plain(column, name)
    kind = column.type
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return _times(column)
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return pa.array([None if v is None else binary(v) for v in column.to_pylist()], pa.large_string())
    if types.is_interval(kind) or types.is_duration(kind):
        return pa.array([None if v is None else _duration(v) for v in column.to_pylist()], pa.large_string())
    if types.is_nested(kind):
        return pa.array([None if v is None else _dumps(v, name) for v in _values(column, name)], pa.large_string())
    if len(column) <= _FEW and (types.is_integer(kind) or types.is_string(kind)):
        return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.large_string())
    return column.cast(pa.large_string())


def as_json(column: pa.Array, name: str) -> pa.Array:
    """Returns a column as JSON values, a null as `null`.

    Args:
        column: Any Arrow array.
        name: The column's name, for errors.

    Returns:
        An array of `large_string` of the same length, without nulls.

    Raises:
        QueryFailed: The type has no text.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    types = pa.types
    column = _plain(column, name)
    kind = column.type
    texts = as_text(column, name)
    if types.is_floating(kind):
        texts = pc.if_else(pc.is_finite(column), texts, pa.scalar(None, pa.large_string()))
    elif not (types.is_integer(kind) or types.is_decimal(kind) or types.is_boolean(kind) or types.is_nested(kind)):
        texts = _quoted(texts)
    return pc.fill_null(texts, "null")


def in_zone(reader: pa.RecordBatchReader, zone: str, *, text: bool) -> pa.RecordBatchReader:
    """Returns rows with instants in a time zone: as text with the offset, or as instants of that zone.

    Instants inside other values stay in UTC, marked as such.

    Args:
        reader: The rows.
        zone: An IANA name, as Europe/Berlin.
        text: Whether instants become text.

    Raises:
        UsageError: There is no such zone, or the machine has no time zones.
    """
    import pyarrow as pa

    try:
        pa.array([0], pa.timestamp("s", zone)).cast(pa.string())
    except pa.ArrowException:
        raise UsageError(
            f"--time-zone: expected a time zone known to this machine, such as Europe/Berlin or UTC, found "
            f"{printable(zone)}; nothing was written"
        ) from None
    instants = [pa.types.is_timestamp(field.type) and field.type.tz is not None for field in reader.schema]
    fields = [
        field.with_type(pa.large_string() if text else pa.timestamp(field.type.unit, zone)) if instant else field
        for field, instant in zip(reader.schema, instants, strict=True)
    ]
    schema = pa.schema(fields)

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in reader:
            columns = [
                _local(column, zone, text=text) if instant else column
                for column, instant in zip(batch.columns, instants, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def _local(column: pa.Array, zone: str, *, text: bool) -> pa.Array:
    import pyarrow as pa
    import pyarrow.compute as pc

    there = column.cast(pa.timestamp(column.type.unit, zone))
    if not text:
        return there
    # `%z` has no colon between hours and minutes, as ISO 8601's extended form has
    offset = pc.replace_substring_regex(pc.strftime(there, "%z"), r"(\d\d)$", r":\1").cast(pa.large_string())
    return join([_times(pc.local_timestamp(there)), offset])


def join(columns: Sequence[pa.Array | str]) -> pa.Array:
    """Returns texts concatenated row by row, null if one of them is; a plain `str` is used in every row."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = next(len(column) for column in columns if not isinstance(column, str))
    arrays = [
        pa.repeat(pa.scalar(column, pa.large_string()), rows) if isinstance(column, str) else column
        for column in columns
    ]
    return pc.binary_join_element_wise(*arrays, pa.scalar("", pa.large_string()))


def data(texts: pa.Array) -> bytes:
    """Returns the texts back to back: the buffer in which Arrow keeps them."""
    offsets, values = texts.buffers()[1:]
    if values is None:
        return b""
    # a slice shares the buffers of the whole array: only its own part counts
    bounds = memoryview(offsets).cast("q")
    return bytes(memoryview(values)[bounds[texts.offset] : bounds[texts.offset + len(texts)]])


def _quoted(texts: pa.Array) -> pa.Array:
    """Returns texts as JSON strings."""
    import pyarrow as pa

    # one pass over all bytes tells that no text needs an escape, as in most columns
    if not data(texts).translate(None, _PLAIN_IN_JSON):
        return join(['"', texts, '"'])
    return pa.array([None if v is None else encode_basestring_ascii(v) for v in texts.to_pylist()], pa.large_string())


def _plain(column: pa.Array, name: str) -> pa.Array:
    """Returns a column without the wrappings that carry no meaning in text."""
    import pyarrow as pa

    if isinstance(column.type, pa.BaseExtensionType):
        raise QueryFailed(
            f"Column {printable(name)} has the type {column.type}, which cannot be written as text. Cast it."
        )
    if pa.types.is_dictionary(column.type):
        return column.dictionary_decode()
    return column


def _times(column: pa.Array) -> pa.Array:
    """Returns dates, times and instants in ISO 8601: at least milliseconds, Z for UTC."""
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    if zoned:
        # Arrow's values are UTC already; naming the zone would need the machine's zone files.
        column = column.cast(pa.int64()).cast(pa.timestamp(kind.unit))
    if pa.types.is_timestamp(kind) and kind.unit != "s":
        # Nearly every instant is in whole milliseconds of a four-digit year: no pattern is needed.
        with contextlib.suppress(pa.ArrowInvalid):
            whole = column.cast(pa.timestamp("ms"))
            span = pc.min_max(whole.cast(pa.int64())).as_py()
            if span["min"] is None or (span["min"] >= _FOUR_DIGIT_YEARS[0] and span["max"] <= _FOUR_DIGIT_YEARS[1]):
                texts = whole.cast(pa.large_string())
                return join([pc.utf8_replace_slice(texts, 10, 11, "T"), "Z" if zoned else ""])
    texts = column.cast(pa.large_string())
    if pa.types.is_date(kind):
        return pc.replace_substring_regex(texts, "^<(value out of range).*", r"\1")
    texts = pc.replace_substring_regex(texts, r"^(-?\d+-\d\d-\d\d) ", r"\1T")
    # as few digits as there are of three, six or nine: whole microseconds stay, nothing is rounded
    texts = pc.replace_substring_regex(texts, r"(:\d\d\.\d{3}(\d{3})??)(000)+$", r"\1")
    if zoned:
        texts = pc.replace_substring_regex(texts, r"(\d)$", r"\1Z")
    return pc.replace_substring_regex(texts, "^<(value out of range).*", r"\1")


def _duration(value: Any) -> str:
    """Returns an interval in ISO 8601, as in P1M2DT3.5S."""
    if hasattr(value, "months"):
        months, days, nanoseconds = value.months, value.days, value.nanoseconds
    else:
        months, days, nanoseconds = 0, 0, round(value.total_seconds() * 1e9)
    seconds, rest = divmod(abs(nanoseconds), 1_000_000_000)
    sign = "-" if nanoseconds < 0 else ""
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    time = f"T{sign}{seconds}{fraction}S" if nanoseconds else ""
    text = (f"{months}M" if months else "") + (f"{days}D" if days else "") + time
    return f"P{text}" if text else "PT0S"


def _values(column: pa.Array, name: str) -> list[Any]:
    import pyarrow as pa

    try:
        found: list[Any] = column.to_pylist(maps_as_pydicts=None)
    except (OverflowError, ValueError, pa.ArrowException):
        raise QueryFailed(
            f"Column {printable(name)} holds, inside other values, one that has no text: a date beyond the year 9999?"
            " Cast it to text."
        ) from None
    return found


def _dumps(value: Any, name: str) -> str:
    """Returns a nested value as JSON by the same rules as a flat one."""
    match value:
        case dict():
            return "{" + ",".join(f"{encode_basestring_ascii(k)}:{_dumps(v, name)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ",".join(_dumps(v, name) for v in value) + "]"
        # an interval is a tuple with names
        case tuple() if not hasattr(value, "months"):
            return "[" + ",".join(_dumps(v, name) for v in value) + "]"
        case None | bool() | int() | str():
            return json.dumps(value)
        case float():
            return repr(value) if value == value and abs(value) != float("inf") else "null"
        case bytes():
            return encode_basestring_ascii(base64_text(value))
    if hasattr(value, "months") or hasattr(value, "total_seconds"):
        return encode_basestring_ascii(_duration(value))
    if hasattr(value, "utcoffset"):
        return encode_basestring_ascii(_moment(value))
    return str(value) if hasattr(value, "as_tuple") else encode_basestring_ascii(str(value))


def _moment(value: Any) -> str:
    precise = "microseconds" if value.microsecond % 1000 else "milliseconds"
    text: str = value.replace(tzinfo=None).isoformat(timespec=precise)
    return text + ("Z" if value.tzinfo else "")
