"""The sample's small odd files: every format that a delivery can have, and every fault that a record can have.

Good lines are distributed over the formats: copies of bulk records, and records of a few people who are in no other
file. Faulty records are placed among good ones. Records that must be accepted or refused are counted when written.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from stedi._frozen import dataclass, field
from stedi.landing.sample.crowd import Crowd
from stedi.landing.sample.readings import Feed
from stedi.schema.contracts import Reason

_PEOPLE, _READINGS = 31, 1500
_NAMES = {"customer": "customers", "accelerometer": "accelerometer", "step_trainer": "step-trainer"}


@dataclass(slots=True)
class Soiled:
    """The contents of the odd files: good records by feed, and refused records by feed and reason."""

    folder: Path
    accepted: Counter[str] = field(default_factory=Counter)
    rejected: dict[str, Counter[str]] = field(default_factory=lambda: {feed: Counter() for feed in _NAMES})

    def put(self, feed: str, name: str, data: bytes, accepted: int, rejected: Iterable[Reason] = ()) -> None:
        """Writes one file under `folder` and counts its records."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        self.accepted[feed] += accepted
        self.rejected[feed].update(str(reason) for reason in rejected)


def soil(folder: Path, crowd: Crowd) -> Soiled:
    """Adds the odd files to a folder.

    Args:
        folder: Where the bulk files are.
        crowd: The people in the bulk files; the few people of the odd files are added to it.

    Returns:
        The contents of the odd files.
    """
    soiled = Soiled(folder)
    # records of the bulk files once more: no repeated delivery may change a table below landing
    copies = {feed: lines.kept for feed, lines in crowd.feeds.items()}
    texts: dict[str, list[bytes]] = {feed: [] for feed in copies}
    # what these people add goes into texts, not into bulk files
    crowd.feeds = {feed: Feed(texts[feed].append) for feed in copies}
    odd = _odd_consents(crowd)
    crowd.add(_PEOPLE, _READINGS)
    for feed, copied in copies.items():
        fresh = b"".join(texts[feed]).decode().split("\n")[:-1]
        lines = [line for pair in zip(fresh, copied, strict=False) for line in pair] + fresh[len(copied) :]
        _deliver(soiled, feed, lines)
        _refused(soiled, feed, lines)
    soiled.put("customer", "customer/customers-odd-consents.json", _lines(odd), len(odd))
    soiled.put("customer", "customer/empty.json", b"", 0)
    soiled.put("customer", "customer/blank.json", b" \r\n\t\n", 0)
    return soiled


def _deliver(soiled: Soiled, feed: str, lines: Sequence[str]) -> None:
    """Distributes lines over all formats, including files whose feed is known from their name or their fields."""
    shares = [list(lines[number :: len(_SHAPES)]) for number in range(len(_SHAPES))]
    for (shape, (suffix, encode)), share in zip(_SHAPES.items(), shares, strict=True):
        name = f"{feed}/{_NAMES[feed]}-{shape}{suffix}"
        if shape == "named":
            name = f"more/{_NAMES[feed]}-0001{suffix}"
            if feed == "accelerometer":
                name = f"unsorted{suffix}"
        soiled.put(feed, name, encode(share), len(share))
    whole, cut = lines[:3], lines[3]
    tail = _lines(whole) + cut[: len(cut) * 2 // 3].encode()
    soiled.put(feed, f"{feed}/{_NAMES[feed]}-cut.json", tail, 3, [Reason.TRUNCATED])


def _lines(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _pretty(lines: Sequence[str]) -> bytes:
    return "\n".join(json.dumps(json.loads(line), indent=2) for line in lines).encode()


def _pretty_array(lines: Sequence[str]) -> bytes:
    return json.dumps([json.loads(line) for line in lines], indent=4, ensure_ascii=False).encode()


def _members(lines: Sequence[str]) -> bytes:
    half = len(lines) // 2
    return gzip.compress(_lines(lines[:half]), mtime=0) + gzip.compress(",".join(lines[half:]).encode(), mtime=0)


def _zstd(lines: Sequence[str]) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(level=3).compress(_lines(lines))


def _mixed(lines: Sequence[str]) -> bytes:
    """Encodes lines in one file with all separators and layouts, one after another."""
    encoders = (_lines, _joined(""), _joined(", \n"), _pretty, _array, _crlf, _pretty_array, _joined("\t"))
    parts = [encoder(lines[number :: len(encoders)]) for number, encoder in enumerate(encoders)]
    return b"\n".join(part for part in parts if part)


def _escaped(lines: Sequence[str]) -> bytes:
    r"""Encodes names and texts with escapes: `"\u0075ser"` is `"user"`."""
    spelled = []
    for line in lines:
        fields = (f"{_escape(name)} : {_escape(value)}" for name, value in json.loads(line).items())
        spelled.append("{ " + " , ".join(fields) + " }")
    return _lines(spelled)


def _escape(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    return f'"\\u{ord(value[0]):04X}' + json.dumps(value[1:])[1:] if value else '""'


def _respelled(lines: Sequence[str]) -> bytes:
    """Encodes records with names in another case, another order, extra fields and numbers in another notation."""
    spelled = []
    for line in lines:
        record = dict(reversed(json.loads(line).items()))
        record = {name[0].upper() + name[1:] if name != "timestamp" else "timeStamp": v for name, v in record.items()}
        text = json.dumps({"firmware": {"version": [1, 4.0], "name": "}{"}, **record})
        spelled.append(text.replace(": 1.0", ": 1").replace(": -1.0", ": -1e0").replace(": 0.0", ": -0.000"))
    return _lines(spelled)


def _joined(separator: str) -> Callable[[Sequence[str]], bytes]:
    return lambda lines: separator.join(lines).encode()


def _array(lines: Sequence[str]) -> bytes:
    return f"[{','.join(lines)}]".encode()


def _crlf(lines: Sequence[str]) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode()


_SHAPES: dict[str, tuple[str, Callable[[Sequence[str]], bytes]]] = {
    "lines": (".json", _joined("\n")),
    "named": (".json", _lines),
    "bom": (".json", lambda lines: b"\xef\xbb\xbf" + _lines(lines)),
    "crlf": (".json", _crlf),
    "back-to-back": (".json", _joined("")),
    "commas": (".json", _joined(",")),
    "comma-lines": (".json", _joined(",\n")),
    "array": (".json", _array),
    "array-lines": (".json", lambda lines: b"[\n" + ",\n".join(lines).encode() + b"\n]\n"),
    "pretty": (".json", _pretty),
    "pretty-array": (".json", _pretty_array),
    "gzip": (".json.gz", lambda lines: gzip.compress(_lines(lines), mtime=0)),
    "gzip-members": (".json.gz", _members),
    "zstd": (".json.zst", _zstd),
    "unnamed-zstd": (".json", _zstd),
    "mixed": (".json", _mixed),
    "escaped": (".json", _escaped),
    "respelled": (".json", _respelled),
}
"""The file suffix of each format, and the function that encodes lines in it."""

_INSTANT = "1655564400000"
_ODD_CONSENTS = (
    *('"yes"', f'"{_INSTANT}"', "true", "false", "null", "0", _INSTANT[:-3], f"{_INSTANT}.5", f"{_INSTANT}.0"),
    *("1.655e12", f"[{_INSTANT}]", "{}", '""', "253402300800000", "9223372036854775808", "1e400"),
    f'{_INSTANT}, "shareWithResearchAsOfDate": {_INSTANT}',
    f'null, "shareWithResearchAsOfDate": {_INSTANT}',
    f'{_INSTANT}, "sharewithresearchasofdate": {_INSTANT}',
    f'{_INSTANT}, "\\u0073hareWithResearchAsOfDate": {_INSTANT}',
)
"""Values delivered as a consent that are not valid: of a wrong type, out of range, or given twice."""
_ODD_STORIES = ("never", "late", "withdrew")


def _odd_consents(crowd: Crowd) -> list[str]:
    """Generates people whose records without consent have an invalid one instead; some have more odd fields."""
    lines = []
    for number, odd in enumerate(_ODD_CONSENTS):
        for record in crowd.add_one(_ODD_STORIES[number % len(_ODD_STORIES)], 8):
            more = {"phone": 5550100, "birthDay": True, "customerName": None} if number % 5 == 0 else {}
            line = json.dumps({**record, **more}, ensure_ascii=False)
            if "shareWithResearchAsOfDate" not in record:
                line = f'{line[:-1]}, "shareWithResearchAsOfDate": {odd}}}'
            lines.append(line)
    return lines


_GOOD = {
    "customer": '{"email": "Re.Fused@test.example", "serialNumber": "refused-1", '
    f'"registrationDate": {_INSTANT}, "lastUpdateDate": {_INSTANT}}}',
    "accelerometer": f'{{"user":"Re.Fused@test.example","timestamp":{_INSTANT},"x":1.0,"y":0.0,"z":-1.0}}',
    "step_trainer": f'{{"sensorReadingTime":{_INSTANT},"serialNumber":"refused-1","distanceFromObject":246}}',
}
"""A good record of each feed, into which the faults are put; only its faulty copies are delivered."""
_TEXT = {"customer": "email", "accelerometer": "user", "step_trainer": "serialNumber"}
_TIME = {"customer": "lastUpdateDate", "accelerometer": "timestamp", "step_trainer": "sensorReadingTime"}


def _refused(soiled: Soiled, feed: str, lines: Sequence[str]) -> None:
    """Writes faulty records, each next to a good one: on separate lines, and in an array."""
    faults = list(_faults(feed))[: len(lines)]
    good = [line.encode() for line in lines[: len(faults)]]
    text = b"".join(b"%b\n%b\n" % (line, fault) for line, (fault, _) in zip(good, faults, strict=True))
    name = f"{feed}/{_NAMES[feed]}-faults.json"
    soiled.put(feed, name, text + good[0] + b"\n", len(good) + 1, [reason for _, reason in faults])
    strays = ("42", '"text"', "null", f"[{_GOOD[feed]}]", "true", "-0.5e3")
    mixed = [part for pair in zip(strays, lines, strict=False) for part in pair]
    name = f"{feed}/{_NAMES[feed]}-strays.json"
    soiled.put(feed, name, _array(mixed), len(strays), [Reason.NOT_AN_OBJECT] * len(strays))


def _faults(feed: str) -> Iterable[tuple[bytes, Reason]]:
    """Yields records that must be refused, and the reason for each."""
    good, text, time = _GOOD[feed], _TEXT[feed], _TIME[feed]
    body = good[1:-1]

    def timed(value: str) -> bytes:
        return good.replace(_INSTANT, value).encode()

    def named(value: bytes) -> bytes:
        return json.dumps({**json.loads(good), text: "@"}).encode().replace(b'"@"', value)

    yield from ((fault.encode(), Reason.MALFORMED) for fault in (f"{{{body},}}", f"{{{body} 7}}", f"{{'a':1,{body}}}"))
    yield from ((timed(value), Reason.MALFORMED) for value in ("", "01", "NaN", "0x10", "+1"))
    yield b"Re-delivery follows", Reason.MALFORMED
    yield good[: len(good) * 3 // 4].encode(), Reason.TRUNCATED
    yield good[: good.index(":") + 4].encode(), Reason.TRUNCATED
    escaped = f"\\u{ord(time[0]):04x}{time[1:]}"
    for again in (time, escaped, time.upper(), text):
        value = '"again"' if again == text else _INSTANT
        yield f'{{"{again}": {value}, {body}}}'.encode(), Reason.DUPLICATE_KEY
    for field_name in json.loads(good):
        yield _without(good, field_name), Reason.MISSING_REQUIRED
        yield json.dumps({**json.loads(good), field_name: None}).encode(), Reason.MISSING_REQUIRED
        yield json.dumps({**json.loads(good), field_name: True}).encode(), Reason.WRONG_TYPE
    yield b"{}", Reason.MISSING_REQUIRED
    yield from ((timed(v), Reason.WRONG_TYPE) for v in (f'"{_INSTANT}"', f"{_INSTANT}.5", "1.6e12", "[1]", "{}"))
    yield named(b"5"), Reason.WRONG_TYPE
    instants = (_INSTANT[:-3], "-1655564400000", "253402300800000", "9223372036854775808", "9" * 400)
    yield from ((timed(value), Reason.OUT_OF_RANGE) for value in instants)
    yield from ((named(value), Reason.OUT_OF_RANGE) for value in (b'""', b'" \\t"'))
    if feed == "accelerometer":
        yield good.replace('"x":1.0', '"x":1e400').encode(), Reason.OUT_OF_RANGE
        yield good.replace('"x":1.0', '"x":"1.0"').encode(), Reason.WRONG_TYPE
    if feed == "step_trainer":
        yield good.replace("246", "246.0").encode(), Reason.WRONG_TYPE
        yield good.replace("246", "9223372036854775808").encode(), Reason.OUT_OF_RANGE
    for opening, closing in (("[", "]"), ('{"a":[', "]}")):
        yield f'{{{body}, "deep": {opening * 100}{closing * 100}}}'.encode(), Reason.TOO_DEEP
    if feed == "customer":
        # beyond the 1 MiB that a record may have
        yield f'{{{body}, "note": "{"x" * 1_100_000}"}}'.encode(), Reason.TOO_LARGE
    # no UTF-8 at all, an overlong form, a surrogate; as escapes half a pair, and a pair in the wrong order
    for bad in (b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\\ud83d", b"\\ude00\\ud83d"):
        yield named(b'"a%b@test.example"' % bad), Reason.BAD_ENCODING


def _without(line: str, name: str) -> bytes:
    return json.dumps({key: value for key, value in json.loads(line).items() if key != name}).encode()
