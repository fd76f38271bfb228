"""Tombstones: keep an erased customer's old data out, and reveal nothing about them without the key.

They are one state file in the lake, `tombstones`, absent until somebody is erased. It contains only marks: keyed hashes
with labels of their own, so a mark differs from the `customer_id` and cannot be linked to it without the key. It is
small, so each erasure rewrites it in one step; a table would have to be opened by every landing. It names every erasure
of the lake, so an older file with a valid seal can be told from the newest.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from stedi._frozen import dataclass, field, replace
from stedi.errors import LakeError
from stedi.privacy import receipts, state
from stedi.privacy.pseudonyms import Key, normalise
from stedi.privacy.receipts import RECEIPTS
from stedi.storage import s3

NAME = "tombstones"
"""The file's name, in the lake's folder."""
PENDING = "erasing.json"
"""The file, in the lake's folder, that an erasure keeps from its first step to its last."""
_KIND = "tombstones"
_ADVICE = (
    "nothing was read or written, since erased customers could come back. Run `stedi erase --replay` with the folder "
    "of the lake's journal, or restore the newest copy of the file: see docs/operations.md on recovery"
)

_STRING = re.compile(r'"((?:[^"\\]|\\.)*)"?', re.DOTALL)
"""A quoted string in a record that need not be JSON; its end may be missing."""
_INSTANT = re.compile(r'"(?:registrationDate|timestamp|sensorReadingTime)"\s*:\s*([0-9]{1,18})', re.IGNORECASE)
"""An instant in such a record; 18 digits fit 64 bits."""


def mark(key: Key, what: str, *parts: object) -> str:
    """Returns the mark of a thing in tombstones and receipts: HMAC-SHA-256, first 16 bytes, hex.

    Args:
        key: The lake's key.
        what: The kind of thing; marks of different kinds differ.
        parts: What identifies it among others of its kind.
    """
    # NUL divides the kind from the parts: marks of two kinds are never of one text
    text = "\0".join((what, *map(str, parts)))
    return _digester(key)(text.encode("utf-8", "surrogatepass"))[:16].hex()


@lru_cache(8)  # a search asks for the mark of each address that it meets
def _digester(key: Key) -> Callable[[bytes], bytes]:
    return _first(key).digester("tombstone")


def _first(key: Key) -> Key:
    """Returns the key of all marks: the lake's first, since new marks cannot be computed from old ones."""
    return key.every()[-1]


def person(key: Key, address: str) -> str:
    """Returns the mark of a customer: of their address in its normal form (rule 1 of consent)."""
    return mark(key, "person", normalise(address))


def persons(key: Key, addresses: Iterable[str]) -> Iterator[str]:
    """Yields the marks of many customers, as `person` makes them."""
    digest = _digester(key)
    for address in addresses:
        yield digest(b"person\0" + normalise(address).encode("utf-8", "surrogatepass"))[:16].hex()


def serial(key: Key, number: str) -> str:
    """Returns the mark of a serial number."""
    return mark(key, "serial number", number)


def moment(key: Key, number: str, at: int) -> str:
    """Returns the mark of a moment, epoch milliseconds, of a device that several customers claim."""
    return mark(key, "moment", number, at)


def record(key: Key, raw: bytes) -> str:
    """Returns the mark of a quarantined record's bytes."""
    # as Latin-1 any bytes are a text, also those that are not UTF-8
    return mark(key, "record", raw.decode("latin-1"))


@dataclass(frozen=True, slots=True)
class Tombstones:
    """What is kept out, by mark.

    Attributes:
        people: Of each erased customer the last instant, epoch milliseconds, whose data stay out: the erasure's, or a
            later one that their data had. What is registered or read after it is a new customer's.
        claims: Of each serial number that they claimed, who claimed it: the claims stand (rule 6 of consent).
        serials: Of each serial number that only erased customers claimed, the last instant whose readings stay out.
        moments: Moments of devices shared with others at which an erased customer moved: a reading of such a moment
            was theirs or may have been, and must never become another claimant's.
        records: Quarantined records that were removed.
        erasures: Of each erasure, by its id, whom it took: all that have begun to remove anything.
        ended: The ids of those that have ended. One whose receipt is gone is not taken for one that was interrupted.
    """

    people: Mapping[str, int] = field(default_factory=dict)
    claims: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    serials: Mapping[str, int] = field(default_factory=dict)
    moments: frozenset[str] = frozenset()
    records: frozenset[str] = frozenset()
    erasures: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ended: frozenset[str] = frozenset()

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
            {**self.erasures, **other.erasures},
            self.ended | other.ended,
        )

    def claimants(self, key: Key, number: str) -> int:
        """Returns how many erased customers claimed a serial number: their claims stand, and they never move."""
        return len(self.claims.get(serial(key, number), ())) if self.claims else 0

    def claims_digest(self, key: Key) -> str:
        """Returns by what a table tells which claims it was built with: a keyed hash of all of them, empty if none.

        It is made under the key of now, as pseudonyms are, since it stands in the tables' snapshots beside them.
        """
        if not self.claims:
            return ""
        text = "\n".join(f"{number} {' '.join(sorted(who))}" for number, who in sorted(self.claims.items()))
        return key.digest("claims", text.encode())[:16].hex()

    def bars(self, key: Key, raw: bytes) -> bool:
        """Returns whether a record that no contract accepts belongs to an erased customer, as far as is known.

        It does if the same bytes were removed before, if it is a reading of an erased moment, or if it names an erased
        address, or a serial number that only erased customers claimed, and has no instant after the erasure. If it
        names one owner by address, that decides, whoever else it mentions.
        """
        # their patterns take time to compile, and most commands judge no record
        from stedi.privacy import decoding, tokens

        if record(key, raw) in self.records:
            return True
        texts = decoding.texts(raw)
        instants = [int(digits) for digits in _INSTANT.findall("\n".join(texts))]
        # the record as it was delivered; the others are it decoded
        owner = tokens.owner(texts[0])
        if owner is not None:
            until = [self.people.get(person(key, name), 0) for name in (owner, tokens.visible(owner))]
        else:
            readings = [reading for text in texts for reading in tokens.readings(text)]
            named = {name for text in readings for name in (*tokens.addresses(text), *_strings(text))}
            named |= set(map(tokens.visible, named))
            if self.moments and any(self._moved(key, name, instants) for name in named):
                return True
            until = [self.people.get(person(key, name), 0) for name in named]
            until += [self.serials.get(serial(key, name), 0) for name in named]
        # without an instant it may be of any time: then it stays out
        last = max(until, default=0)
        return last > 0 and not (instants and min(instants) > last)

    def without_erased(self, key: Key, raw: bytes) -> bytes | None:
        """Returns a record that no contract accepts without mentions of erased customers.

        Returns:
            None if it is barred, or a mention cannot be removed.
        """
        from stedi.privacy import decoding, tokens

        if self.bars(key, raw):
            return None
        text = decoding.texts(raw)[0]
        owner = tokens.owner(text)
        if owner is None or person(key, owner) in self.people:
            return raw  # of nobody, or of somebody who has come back
        kept = tokens.restrung(text, lambda value: tokens.but(value, owner, lambda part: self.masked(key, part)))
        # a record whose owner reads differently after the change would be another customer's: it is barred instead
        return raw if kept == text else kept.encode("utf-8") if kept and tokens.owner(kept) == owner else None

    def masked(self, key: Key, text: str) -> str:
        """Returns a text without mentions of erased customers' addresses, unchanged if it has none."""
        from stedi.privacy import tokens

        found = {address for reading in tokens.readings(text) for address in self._named(key, reading)}
        if not found:
            return text
        kept = tokens.masked(text, map(tokens.folded, found))
        # what remains can be an address by itself, or in another reading
        still = any(self._named(key, reading) for reading in tokens.readings(kept))
        return tokens.ERASED if still else kept

    def mentions(self, key: Key, text: str) -> bool:
        """Returns whether a text, be it JSON, names an erased address or a serial number that only they claimed."""
        from stedi.privacy import tokens

        for reading in tokens.readings(text):
            if self._named(key, reading) or any(serial(key, name) in self.serials for name in _strings(reading)):
                return True
        return False

    def names_file(self, key: Key, name: str) -> bool:
        """Returns whether a file's name has an erased address in it."""
        from stedi.privacy import tokens

        return any(
            person(key, address) in self.people
            for reading in tokens.readings(name)
            for address in tokens.addresses(tokens.folded(reading), name=True)
        )

    def _named(self, key: Key, text: str) -> set[str]:
        if "@" not in text:
            return set()
        from stedi.privacy import tokens

        return {address for address in tokens.addresses(text) if person(key, address) in self.people}

    def _moved(self, key: Key, number: str, instants: Collection[int]) -> bool:
        known = bool(instants) and serial(key, number) in self.claims
        return known and any(moment(key, number, at) in self.moments for at in instants)


def moments_of(text: str, among: Collection[str]) -> set[tuple[str, int]]:
    """Returns each of some serial numbers with every instant in a record, valid or not."""
    if not any(number in text for number in among):
        return set()
    instants = {int(digits) for digits in _INSTANT.findall(text)}
    return {(number, at) for number in {*_strings(text)}.intersection(among) for at in instants}


def masked_name(key: Key, name: str) -> str:
    """Returns a replacement for a delivered file's name that must not be shown; its endings stay."""
    endings = "".join(part for part in Path(name).suffixes[-2:] if part in (".json", ".gz", ".zst", ".ndjson", ".txt"))
    return f"erased-{mark(key, 'file', name)[:12]}{endings}"


def _strings(text: str) -> list[str]:
    """Returns the quoted strings in a text."""
    from stedi.privacy.tokens import unescaped

    return [unescaped(name) for name in _STRING.findall(text)]


def any_of(root: Path) -> bool:
    """Returns whether a lake has tombstones, or should have; more cannot be known without the key."""
    return (root / NAME).exists() or bool(receipts.names(root))


def read(root: Path, key: Key) -> Tombstones:
    """Returns a lake's tombstones, none if nobody was erased.

    Raises:
        LakeError: They are missing although there are receipts, are older than a receipt, or were not written by this
            lake.
    """
    path = root / NAME
    try:
        found = path.stat()
    except FileNotFoundError:
        # receipts without tombstones: the file was removed, and everybody erased could come back
        if receipts.names(root):
            raise _damaged("the tombstones of the receipts", "no file") from None
        return Tombstones()
    # a new or removed receipt changes its folder's time; a bucket has no such time
    told = 0 if s3.is_remote(root) else _changed(root / RECEIPTS)
    return _read_once(path, key, found.st_ino, found.st_size, found.st_mtime_ns, told)


@lru_cache(maxsize=2)
def _read_once(path: Path, key: Key, inode: int, size: int, mtime_ns: int, told: int) -> Tombstones:
    """Reads a lake's tombstones once, however often a command asks."""
    # inode, size and times are only the key of the cache: a file that was replaced meanwhile is read again
    raw, root = state.bytes_of(path), path.parent
    lake_id = state.lake_id(root)
    # only lakes of version 1 have a form without a seal; from any other it is a forgery
    if key.version == 1 and not state.is_sealed(raw):
        return _of_before(root, key, lake_id, raw)
    found = from_json(state.unsealed(raw, NAME, _KIND, lake_id, key, advice=_ADVICE))
    # an older file under a valid seal would let everybody come back who was erased since
    for name in sorted(receipts.names(root) - found.erasures.keys()):
        if receipts.holds(receipts.listed_as(root, name), key, lake_id):
            raise _damaged(f"the newest, which name the erasure {name}", "older ones")
    return found


def _of_before(root: Path, key: Key, lake_id: str, raw: bytes) -> Tombstones:
    """Reads tombstones from before they were bound to a lake, with the erasures of the receipts.

    Raises:
        LakeError: They are not valid, are older than a receipt, or the lake has written newer ones.
    """
    signature, _, content = raw.partition(b"\n")
    if not hmac.compare_digest(signature, _signature(key, content)):
        raise _damaged("what this lake has written under its key", "another content")
    try:
        found = from_json(state.parsed(content))
    except ValueError as error:
        raise _damaged("tombstones", str(error)) from None
    erasures: dict[str, tuple[str, ...]] = {}
    for name in sorted(receipts.names(root)):
        receipt = receipts.listed_as(root, name)
        if receipts.holds(receipt, key, lake_id):
            raise _damaged(f"the newest, which name the erasure {name}", "older ones")
        if receipts.held_before(receipt, key):
            # this form names no erasures: that an older file lacks people whom a receipt names is the only sign of it
            if not found.people.keys() >= set(receipt["people"]):
                raise _damaged(f"the newest, with everybody whom the erasure {name} took", "older ones")
            erasures[name] = tuple(receipt["people"])
    return replace(found, erasures=erasures, ended=frozenset(erasures))


def vouches(root: Path, key: Key, lake_id: str, receipt: receipts.Receipt) -> bool:
    """Returns whether a receipt is this lake's; one from before receipts were bound to a lake must be in its folder.

    Raises:
        LakeError: That needs the tombstones, and they are not to be believed.
    """
    if receipts.holds(receipt, key, lake_id):
        return True
    return receipts.held_before(receipt, key) and read(root, key).erasures.get(receipt["id"]) == tuple(
        receipt["people"]
    )


def sealed(root: Path, key: Key) -> Tombstones:
    """Returns the tombstones that a lake has, be they older than its receipts; none where nothing is to be believed."""
    try:
        plain = state.read(root / NAME, _KIND, state.lake_id(root), key, advice=_ADVICE)
    except FileNotFoundError:
        return Tombstones()
    except state.StateRefused:
        try:
            return read(root, key)
        except LakeError:
            return Tombstones()
    return from_json(plain)


def is_bound(root: Path) -> bool:
    """Returns whether a lake has tombstones of the form that is bound to it; before there were others."""
    try:
        return state.is_sealed(state.bytes_of(root / NAME))
    except FileNotFoundError:
        return False


def write(root: Path, key: Key, tombstones: Tombstones) -> None:
    """Puts tombstones in the place of those that a lake has, on disk when it returns."""
    state.write(root / NAME, _KIND, state.lake_id(root), key, to_json(tombstones))


def reseal(root: Path, key: Key, was: str, lake_id: str) -> None:
    """Seals the tombstones of a lake for another id; those that have it already stay.

    Args:
        root: The lake's folder.
        key: The lake's key.
        was: The id for which they were sealed.
        lake_id: The id for which they are sealed from now on.

    Raises:
        LakeError: They were written by neither.
    """
    raw = state.bytes_of(root / NAME)
    try:
        bound = state.is_sealed(raw)
        found = state.unsealed(raw, NAME, _KIND, was, key, advice=_ADVICE) if bound else None
        known = _of_before(root, key, was, raw) if found is None else from_json(found)
    except state.StateRefused:
        # an adoption that was interrupted after this step is repeated, and finds them sealed for the new id
        state.unsealed(raw, NAME, _KIND, lake_id, key, advice=_ADVICE)
        return
    state.write(root / NAME, _KIND, lake_id, key, to_json(known))


def to_json(tombstones: Tombstones) -> dict[str, object]:
    """Returns tombstones as plain values."""
    return {
        "people": dict(sorted(tombstones.people.items())),
        "claims": {number: list(people) for number, people in sorted(tombstones.claims.items())},
        "serials": dict(sorted(tombstones.serials.items())),
        "moments": sorted(tombstones.moments),
        "records": sorted(tombstones.records),
        "erasures": {run: list(people) for run, people in sorted(tombstones.erasures.items())},
        "ended": sorted(tombstones.ended),
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
            # tombstones of earlier versions have neither of these two
            {str(run): tuple(who) for run, who in plain.get("erasures", {}).items()},
            frozenset(map(str, plain.get("ended", ()))),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged("tombstones", type(error).__name__) from error


def erased_at(root: Path, key: Key, address: str) -> datetime | None:
    """Returns until when the customer of an address, in any spelling, is erased; None if they are not."""
    at = read(root, key).people.get(person(key, address))
    return None if at is None else datetime.fromtimestamp(at / 1000, UTC)


def refuse_unfinished(root: Path) -> None:
    """Prevents changes to a lake in which an erasure was interrupted.

    The caller holds a lock that an erasure also needs, so no erasure is running.

    Raises:
        LakeError: There is one.
    """
    if (root / PENDING).exists():
        raise LakeError(f"{root}: an erasure was interrupted; run `stedi erase --resume`, then this again")


def _later(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one.keys() | other.keys()}


def _signature(key: Key, content: bytes) -> bytes:
    return _first(key).digest("tombstones", content).hex().encode()


def _damaged(expected: str, found: str) -> LakeError:
    return LakeError(f"{NAME}: expected {expected}, found {found}; {_ADVICE}")


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0
