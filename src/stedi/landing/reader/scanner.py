"""Clean records to typed columns by `scanner.c`, if it is compiled; other records are added one by one.

`Columns` stores accepted records of one contract, up to one row group of Parquet. Arrow's arrays use its memory without
a copy.
"""

from __future__ import annotations

import ctypes
import secrets
import sys
from array import array
from ctypes import POINTER, Structure, byref, c_char_p, c_double, c_int32, c_int64, c_uint32, c_uint64, c_void_p
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stedi import _native
from stedi.landing.reader.model import RECORD_BYTES, Fitted
from stedi.schema.contracts import INSTANT_BEGIN, INSTANT_END, Contract, Kind, has_unseen

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 122_880
"""Records that columns hold: the rows of a row group."""

_SOURCE = Path(__file__).with_name("scanner.c")
_FIELDS, _WORDS = 16, 4
"""`FIELDS` and `WORDS` of the source, whose structures those below repeat member by member."""
_KINDS = {Kind.TEXT: 0, Kind.INSTANT: 1, Kind.NUMBER: 2, Kind.INTEGER: 3}
_TEXTS = 1 << 17
"""Distinct texts of a column: no fewer than rows."""
_TEXT_BYTES = 8 << 20
_FEWEST_SLOTS, _SLOTS = 1 << 10, 2 * _TEXTS
"""Slots of a column's hash table at first and at most, powers of four."""
_NONE = 2**32 - 1
_LETTERS = 0x800
"""Code points below this, at most two bytes of UTF-8: the scanner knows which of them an address may have."""


class Ended(IntEnum):
    """Why a scan ended."""

    MORE = 0
    """The block ends; its last record may go on behind it."""
    UNSURE = 1
    """What follows is left to the careful parser."""
    FULL = 2
    """There is no room for another row or text."""


class _Column(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("kind", "required", "address", "length")),
        *((name, c_uint64 * _WORDS) for name in ("name", "mask", "lead", "led")),
        *((name, c_int32) for name in ("led_by", "next")),
        *((name, c_void_p) for name in ("values", "valid", "slots", "ends", "bytes")),
        *((name, c_uint32) for name in ("mask_of_slots", "most_slots", "texts", "most_texts", "used", "room", "last")),
    ]


class _Value(Structure):
    _fields_ = [("text", c_char_p), ("whole", c_int64), ("real", c_double), ("size", c_uint32)]


class _Table(Structure):
    _fields_ = [
        *((name, c_int32) for name in ("fields", "file", "first")),
        *((name, c_int64) for name in ("rows", "room", "longest", "begin", "end")),
        ("seed", c_uint64),
        ("files", c_void_p),
        ("locale", c_void_p),
        ("seen", c_void_p),
        ("columns", _Column * _FIELDS),
    ]


@cache
def library() -> Any:
    """Returns the compiled scanner; None if there is none for this source, or if `STEDI_PURE` is set."""
    return _native.library(
        _SOURCE,
        {
            "stedi_scan": [c_int64, POINTER(_Table), c_char_p, c_int64, c_int64, POINTER(c_int32)],
            "stedi_lines": [c_int64, c_char_p, c_int64, c_int64],
            "stedi_add": [c_int32, POINTER(_Table), POINTER(_Value), c_uint32],
            "stedi_locale": [c_void_p],
        },
    )


def line_breaks(text: bytes, at: int, end: int) -> int:
    """Returns the number of line breaks between two places of a text."""
    found = library()
    return text.count(b"\n", at, end) if found is None else int(found.stedi_lines(text, at, min(end, len(text))))


@cache
def _locale() -> int | None:
    """Returns the C locale for parsing numbers; one for each process."""
    place: int | None = library().stedi_locale()
    return place


@cache
def _seen() -> Any:
    """Returns which of the first code points need no check in an address: one bit each."""
    # between letters, since white space at the ends does not count
    bits = sum(1 << point for point in range(_LETTERS) if not has_unseen(f"a{chr(point)}a"))
    return ctypes.create_string_buffer(bits.to_bytes(_LETTERS // 8, "little"), _LETTERS // 8)


class Columns:
    """Accepted records of one contract.

    Args:
        contract: The contract; its fields' names are ASCII letters.
    """

    def __init__(self, contract: Contract) -> None:
        import pyarrow as pa

        self.contract = contract
        self._pa = pa
        self._table = _Table(
            fields=len(contract.fields), room=ROWS, begin=INSTANT_BEGIN, end=INSTANT_END,
            # whoever delivers files cannot know it, and so cannot make texts that collide
            seed=secrets.randbits(64), locale=_locale(),
            seen=ctypes.addressof(_seen()),
        )  # fmt: skip
        self._files = pa.allocate_buffer(4 * ROWS)
        self._table.files = self._files.address
        self._columns: list[dict[str, pa.Buffer]] = []
        self._extras: dict[int, str] = {}
        self._extra_size = 0
        self._sources: dict[str, int] = {}
        self._ended = c_int32()
        for place, field in enumerate(contract.fields):
            column = self._table.columns[place]
            name = field.name.lower().encode()
            # the scanner folds case by one bit, which is right for letters alone
            if not (name.isalpha() and len(name) <= 8 * _WORDS):
                raise ValueError(f"{field.name}: a name that the scanner cannot compare")
            column.kind, column.required, column.length = _KINDS[field.kind], field.required, len(name)
            column.address, column.next = field.names_customer, place + 1
            for word in range(_WORDS):
                part = name[8 * word : 8 * word + 8]
                column.name[word] = int.from_bytes(part.ljust(8, b"\0"), sys.byteorder)
                column.mask[word] = int.from_bytes((b"\xff" * len(part)).ljust(8, b"\0"), sys.byteorder)
            sizes = {"values": (4 if field.kind is Kind.TEXT else 8) * ROWS, "valid": (ROWS + 7) // 8}
            if field.kind is Kind.TEXT:
                sizes |= {"slots": 4 * _SLOTS, "ends": 4 * (_TEXTS + 1), "bytes": _TEXT_BYTES}
                column.mask_of_slots, column.most_slots = _FEWEST_SLOTS - 1, _SLOTS - 1
                column.most_texts, column.room = _TEXTS, _TEXT_BYTES
            buffers = {name: pa.allocate_buffer(size) for name, size in sizes.items()}
            for name_, buffer in buffers.items():
                setattr(column, name_, buffer.address)
            self._columns.append(buffers)
        self.clear()

    def __len__(self) -> int:
        return int(self._table.rows)

    def clear(self) -> None:
        """Removes all records; arrays over them become invalid, and the current file continues."""
        self._table.rows = 0
        self._sources = {file: 0 for file, place in self._sources.items() if place == self._table.file}
        self._table.file = 0
        self._extras.clear()
        self._extra_size = 0
        for column, buffers in zip(self._table.columns, self._columns, strict=False):
            ctypes.memset(column.valid, 0, buffers["valid"].size)
            if "slots" in buffers:
                ctypes.memset(column.slots, 0, 4 * (column.mask_of_slots + 1))
                ctypes.memset(column.ends, 0, 4)
                column.texts, column.used, column.last = 0, 0, _NONE

    def begin(self, file: str) -> None:
        """Has the records that come be a file's, which is known by this text."""
        # each once: with a text twice in a dictionary, PyArrow writes plain values and bytes of unused memory
        self._table.file = self._sources.setdefault(file, len(self._sources))

    def scan(self, block: bytes, at: int, end: int, longest: int = RECORD_BYTES) -> tuple[int, Ended]:
        """Adds consecutive clean records from a place of a block.

        Args:
            block: The text.
            at: The place: between two records.
            end: The end of the text or of the part to scan.
            longest: The longest accepted record, in bytes.

        Returns:
            The place behind the last added record, and why the scan ended.
        """
        # a record that does not fit into empty columns would be tried without end
        self._table.longest = min(longest, _TEXT_BYTES)
        behind = library().stedi_scan(byref(self._table), block, end, at, byref(self._ended))
        return behind, Ended(self._ended.value)

    def add(self, record: Fitted) -> bool:
        """Adds a record that the careful parser has taken; its texts need not be judged again in those that follow.

        Returns:
            Whether there was room for it.
        """
        extra = len(record.extra or "")
        # empty columns take a text of any size: the reader has bounded it
        if self._extra_size and self._extra_size + extra > _TEXT_BYTES:
            return False
        given = (_Value * _FIELDS)()
        there = 0
        for place, value in enumerate(record.values):
            if isinstance(value, str):
                given[place].text = text = value.encode()
                given[place].size = len(text)
            elif isinstance(value, float):
                given[place].real = value
            elif value is not None:
                given[place].whole = value
            there |= (value is not None) << place
        if library().stedi_add(byref(self._table), given, there) == Ended.FULL:
            return False
        if record.extra is not None:
            self._extras[len(self) - 1] = record.extra
            self._extra_size += extra
        return True

    def arrays(self) -> dict[str, Any]:
        """Returns the records by field, and `_extra` and `_file`: Arrow's arrays, good until `clear`.

        Texts are dictionaries; those of fields have no text that is in no record.
        """
        pa, rows = self._pa, self._table.rows
        made: dict[str, Any] = {}
        for place, field in enumerate(self.contract.fields):
            column, buffers = self._table.columns[place], self._columns[place]
            valid = None if field.required else buffers["valid"]
            if field.kind is Kind.TEXT:
                texts = pa.Array.from_buffers(pa.string(), column.texts, [None, buffers["ends"], buffers["bytes"]])
                places = pa.Array.from_buffers(pa.int32(), rows, [valid, buffers["values"]])
                # unchecked: the scanner has made the places itself
                made[field.name] = pa.DictionaryArray.from_arrays(places, texts, safe=False)
            else:
                kind = pa.float64() if field.kind is Kind.NUMBER else pa.int64()
                made[field.name] = pa.Array.from_buffers(kind, rows, [valid, buffers["values"]])
        made["_extra"] = self._extra()
        places = pa.Array.from_buffers(pa.int32(), rows, [None, self._files])
        made["_file"] = pa.DictionaryArray.from_arrays(places, pa.array(list(self._sources), pa.string()), safe=False)
        return made

    def _extra(self) -> Any:
        """Returns what was set aside from each record; usually nothing."""
        pa, rows = self._pa, len(self)
        if not self._extras:
            return pa.nulls(rows, pa.dictionary(pa.int32(), pa.string()))
        texts = {text: place for place, text in enumerate(dict.fromkeys(self._extras.values()))}
        places, valid = array("i", bytes(4 * rows)), bytearray((rows + 7) // 8)
        for row, text in self._extras.items():
            places[row] = texts[text]
            valid[row >> 3] |= 1 << (row & 7)
        buffers = [pa.py_buffer(valid), pa.py_buffer(places)]
        return pa.DictionaryArray.from_arrays(
            pa.Array.from_buffers(pa.int32(), rows, buffers), pa.array(list(texts), pa.string()), safe=False
        )
