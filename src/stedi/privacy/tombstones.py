"""Tombstones: what keeps an erased customer's old data out, and tells nothing about them without the key.

One signed text file in the lake, `tombstones`, absent while nobody was erased. It holds marks only: keyed hashes under
labels of their own, so that a mark is no `customer_id` and cannot be linked to one without the key. Small enough to be
written anew with each erasure, in one step, rather than a table that every landing would have to open.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from stedi import durable
from stedi.errors import LakeBusy, LakeError
from stedi.privacy.pseudonyms import Key, normalise

NAME = "tombstones"
"""The file's name, in the lake's folder."""
PENDING = "erasing.json"
"""The file, in the lake's folder, that an erasure keeps from its first step to its last."""
RECEIPTS = "receipts"
"""The folder of the receipts, in the lake's folder."""

_BETWEEN = re.compile(r"""[\s"'<>{}\[\]()\\,;:|=/]""")
"""What ends an address in the middle of other text."""
_LONGEST = 320
"""Characters of an address on either side of its `@`, at most (RFC 5321, 4.5.3.1)."""
_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
_ESCAPE = re.compile(r'\\u([0-9a-fA-F]{4})|\\(["\\/bfnrt])')
_PLAIN = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_INSTANT = re.compile(r'"(?:registrationDate|timestamp|sensorReadingTime)"\s*:\s*([0-9]{1,18})', re.IGNORECASE)


def mark(key: Key, what: str, *parts: object) -> str:
    """Returns the keyed hash by which tombstones and receipts know a thing: HMAC-SHA-256, first 16 bytes, hex.

    Args:
        key: The lake's key.
        what: The kind of thing, which keeps marks of different kinds apart.
        parts: What tells it from others of its kind.
    """
    text = "\0".join(("stedi: tombstone", what, *map(str, parts)))
    return hmac.digest(_first(key).secret, text.encode("utf-8", "surrogatepass"), "sha256")[:16].hex()


def _first(key: Key) -> Key:
    """Returns the key under which marks are made: the lake's first, since marks cannot be made anew from marks."""
    return key.every()[-1]


def person(key: Key, address: str) -> str:
    """Returns the mark of a customer: of their address in its normal form (rule 1 of consent)."""
    return mark(key, "person", normalise(address))


def serial(key: Key, number: str) -> str:
    """Returns the mark of a serial number."""
    return mark(key, "serial number", number)


def moment(key: Key, number: str, at: int) -> str:
    """Returns the mark of a moment, epoch milliseconds, of a device that several customers claim."""
    return mark(key, "moment", number, at)


def record(key: Key, raw: bytes) -> str:
    """Returns the mark of a quarantined record's bytes."""
    return mark(key, "record", raw.decode("latin-1"))


@dataclass(frozen=True, slots=True)
class Tombstones:
    """What stays out, by mark.

    Attributes:
        people: Of each erased customer the last instant, epoch milliseconds, whose data stay out: the erasure's, or a
            later one that their data had. What is registered or read after it is a new customer's.
        claims: Of each serial number that they claimed, who claimed it: the claims stand (rule 6 of consent).
        serials: Of each serial number that only erased customers claimed, the last instant whose readings stay out.
        moments: Moments of devices shared with others at which an erased customer moved: a reading of such a moment
            was theirs or may have been, and must never become another claimant's.
        records: Quarantined records that were removed.
    """

    people: Mapping[str, int] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    serials: Mapping[str, int] = field(default_factory=dict)
    moments: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.people)

    def __or__(self, other: Tombstones) -> Tombstones:
        """Returns the tombstones of both; what is in both stays out until the later instant."""
        return Tombstones(
            _later(self.people, other.people),
            {
                number: tuple(sorted({*self.claims.get(number, ()), *other.claims.get(number, ())}))
                for number in self.claims.keys() | other.claims.keys()
            },
            _later(self.serials, other.serials),
            self.moments | other.moments,
            self.records | other.records,
        )

    def claimants(self, key: Key, number: str) -> int:
        """Returns how many erased customers claimed a serial number: their claims stand, and they never move."""
        return len(self.claims.get(serial(key, number), ())) if self.claims else 0

    def bars(self, key: Key, raw: bytes) -> bool:
        """Says whether a record that no contract accepts is an erased customer's, as far as that can be told.

        It is if its very bytes were removed before, or if it names an erased address, or a serial number that
        only erased customers claimed, and tells no instant after the erasure.
        """
        if record(key, raw) in self.records:
            return True
        text = unescaped(raw.decode("utf-8", "replace"))
        named = {*addresses(text), *_STRING.findall(raw.decode("utf-8", "replace"))}
        until = [self.people.get(person(key, unescaped(name)), 0) for name in named]
        until += [self.serials.get(serial(key, unescaped(name)), 0) for name in named]
        last = max(until, default=0)
        instants = [int(digits) for digits in _INSTANT.findall(text)]
        return last > 0 and not (instants and min(instants) > last)


def addresses(text: str) -> set[str]:
    """Returns what can be an address in a text."""
    found = set()
    at = text.find("@")
    while at >= 0:
        before = _BETWEEN.split(text[max(0, at - _LONGEST) : at])[-1]
        after = _BETWEEN.split(text[at + 1 : at + 1 + _LONGEST], maxsplit=1)[0]
        found.add(f"{before}@{after}")
        at = text.find("@", at + 1)
    return found


def unescaped(text: str) -> str:
    """Returns JSON's text with its escapes resolved, wherever they stand; no valid JSON is needed."""
    if "\\" not in text:
        return text
    found = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _PLAIN.get(m[2], m[2]), text)
    return _PAIR.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), found)


def read(root: Path, key: Key) -> Tombstones:
    """Returns a lake's tombstones, none if nobody was erased.

    Raises:
        LakeError: They are gone although there are receipts, or are not what was written under this key.
    """
    path = root / NAME
    try:
        found = path.stat()
    except FileNotFoundError:
        if any((root / RECEIPTS).glob("*.json")):
            raise _damaged("the tombstones of the receipts", "no file") from None
        return Tombstones()
    return _read_once(path, key, found.st_ino, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=2)
def _read_once(path: Path, key: Key, inode: int, size: int, mtime_ns: int) -> Tombstones:
    """Reads a lake's tombstones once, however often a command asks."""
    signature, _, content = path.read_bytes().partition(b"\n")
    if not hmac.compare_digest(signature, _signature(key, content)):
        raise _damaged("what was written under this lake's key", "another content")
    return from_json(json.loads(content))


def write(root: Path, key: Key, tombstones: Tombstones) -> None:
    """Puts tombstones in the place of those that a lake has, on disk when it returns."""
    content = json.dumps(to_json(tombstones), indent=0).encode()
    durable.write(root / NAME, _signature(key, content) + b"\n" + content)


def to_json(tombstones: Tombstones) -> dict[str, object]:
    """Returns tombstones as plain values."""
    return {
        "people": dict(sorted(tombstones.people.items())),
        "claims": {number: list(people) for number, people in sorted(tombstones.claims.items())},
        "serials": dict(sorted(tombstones.serials.items())),
        "moments": sorted(tombstones.moments),
        "records": sorted(tombstones.records),
    }


def from_json(plain: Mapping[str, Any]) -> Tombstones:
    """Returns tombstones from what `to_json` gave.

    Raises:
        LakeError: It is something else.
    """
    try:
        return Tombstones(
            {str(who): int(at) for who, at in plain["people"].items()},
            {str(number): tuple(who) for number, who in plain["claims"].items()},
            {str(number): int(at) for number, at in plain["serials"].items()},
            frozenset(plain["moments"]),
            frozenset(plain["records"]),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged("tombstones", type(error).__name__) from error


def refuse_unfinished(root: Path) -> None:
    """Keeps a command from changing a lake in which an erasure was cut off.

    The caller holds a lock that an erasure holds, too: one that is alive is not in its way.

    Raises:
        LakeBusy: There is one.
    """
    if (root / PENDING).exists():
        raise LakeBusy(f"{root}: an erasure was cut off; run `stedi erase --resume`, then this again")


def _later(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one.keys() | other.keys()}


def _signature(key: Key, content: bytes) -> bytes:
    return hmac.digest(_first(key).secret, b"stedi: tombstones\0" + content, "sha256").hex().encode()


def _damaged(expected: str, found: str) -> LakeError:
    return LakeError(
        f"{NAME}: expected {expected}, found {found}; nothing was read or written, since erased customers could come "
        "back. Restore the file from the newest backup: see docs/operations.md on recovery"
    )
