"""Delivered files for the reader's tests: records, shapes, and DuckDB's reading of the reader's lines."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from stedi.landing import reader
from stedi.landing.reader import Counts, Limits, Reject
from stedi.schema.contracts import Contract, Kind

TYPES = {Kind.TEXT: "VARCHAR", Kind.INSTANT: "BIGINT", Kind.NUMBER: "DOUBLE", Kind.INTEGER: "BIGINT"}


class Reading:
    """The results of reading one file."""

    def __init__(self, data: bytes, contract: Contract, limits: Limits | None = None, *, careful: bool = False) -> None:
        out = io.BytesIO()
        self.data = data
        self.contract = contract
        self.rejects: list[Reject] = []
        self.counts: Counts
        self.counts, self.spelling = reader.read(
            io.BytesIO(data), contract, out, self.rejects.append, limits, careful=careful
        )
        self.text = out.getvalue()
        self.lines = [json.loads(line) for line in self.text.splitlines()]

    @property
    def reasons(self) -> list[str]:
        return [str(reject.reason) for reject in self.rejects]

    @property
    def raws(self) -> list[bytes]:
        return [reject.raw for reject in self.rejects]

    @property
    def values(self) -> list[dict[str, Any]]:
        """The accepted records by the contract's names, independent of spelling, and `_extra`."""
        names = {spelled: name for name, spelled in self.spelling.items()} | {"_extra": "_extra"}
        numbers = {field.name for field in self.contract.fields if field.kind is Kind.NUMBER}
        return [
            {names[n]: float(v) if names[n] in numbers else v for n, v in line.items() if n in names}
            for line in self.lines
        ]

    def check(self) -> None:
        """Asserts what must hold for every reading."""
        assert self.counts.seen == self.counts.accepted + self.counts.quarantined
        assert self.counts.accepted == len(self.lines)
        assert self.counts.quarantined == len(self.rejects)
        end = 0
        for reject in self.rejects:
            assert reject.offset >= end
            end = reject.offset + reject.raw_size
            assert reject.raw == self.data[reject.offset : end][: len(reject.raw)]
            assert reject.line == 1 + self.data.count(b"\n", 0, reject.offset)


def duckdb_rows(text: bytes, contract: Contract, spelling: dict[str, str], folder: Path) -> list[tuple[Any, ...]]:
    """Returns the rows that DuckDB's typed reader gives for lines, with the options of the landing module."""
    import duckdb

    path = folder / "lines.json"
    path.write_bytes(text)
    columns = {spelling[field.name]: TYPES[field.kind] for field in contract.fields} | {"_extra": "VARCHAR"}
    with duckdb.connect() as connection:
        return connection.execute(
            "select * from read_json(?, format='newline_delimited', columns="
            + json.dumps(columns).replace('"', "'")
            + ")",
            [str(path)],
        ).fetchall()


def lines(records: list[bytes]) -> bytes:
    return b"".join(record + b"\n" for record in records)


def crlf(records: list[bytes]) -> bytes:
    return b"".join(record + b"\r\n" for record in records)


def back_to_back(records: list[bytes]) -> bytes:
    return b"".join(records)


def spaced(records: list[bytes]) -> bytes:
    return b"  ".join(records)


def commas(records: list[bytes]) -> bytes:
    return b",\n".join(records)


def array(records: list[bytes]) -> bytes:
    return b"[" + b",".join(records) + b"]"


def array_lines(records: list[bytes]) -> bytes:
    return b"[\n" + b",\n".join(records) + b"\n]\n"


def bom(records: list[bytes]) -> bytes:
    return b"\xef\xbb\xbf" + lines(records)


def pretty(records: list[bytes]) -> bytes:
    return b"\n".join(_pretty(record) for record in records)


def pretty_array(records: list[bytes]) -> bytes:
    return b"[" + b",\r\n".join(_pretty(record).replace(b"\n", b"\r\n") for record in records) + b"\r\n]"


def _pretty(record: bytes) -> bytes:
    # Add line breaks only outside JSON strings: after the brackets of the record itself.
    return b"{\n  " + record[1:-1] + b"\n}" if record[:1] == b"{" and record[-1:] == b"}" else record


SHAPES = (lines, crlf, back_to_back, spaced, commas, array, array_lines, bom, pretty, pretty_array)
