"""The journal of a lake: withdrawals by command and erasures, which no delivery contains, copied outside the lake.

No delivered file contains withdrawals by command, and an old backup lacks them and the tombstones of later erasures. So
each is an entry of the journal: a small state file in the lake's folder `journal`, sealed under the lake's key and
chained to the entry before it. Every command that writes copies new entries to a folder outside the lake
(`context.seen`), from where `replay` can apply them to a restored or a new lake. Entries identify people by their
marks, as tombstones do.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, cast, get_args

from stedi._frozen import dataclass
from stedi.errors import CommitConflict, LakeError, UsageError
from stedi.privacy import state
from stedi.privacy.pseudonyms import Key
from stedi.storage import durable, s3

FOLDER = "journal"
"""The folder of the entries, in the lake's folder."""
WAITING = "withdrawn"
"""The file, in the lake's folder, of replayed withdrawals whose customers the lake does not know yet; by mark."""
_KIND = "journal"
_NAME = re.compile(r"([0-9]{8})(?:-[0-9a-f]{16})?\.json")
"""The name of an entry's file; a copy outside the lake has the start of its SHA-256 behind the number."""
_ADVICE = "restore the journal from a copy of it: see docs/operations.md on recovery"

What = Literal["withdrawal", "erasure", "reset"]
"""The kinds of entries: withdrawals by command, an erasure, or a deliberate rollback of the lake."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a journal.

    Attributes:
        number: Its place, from 1.
        id: Id of the batch of withdrawals or of the receipt; a replayed entry keeps it.
        what: What it is about.
        content: Of a `withdrawal` the mark of each customer and the `lastUpdateDate` of the withdrawal, epoch
            milliseconds; of an `erasure` its `receipt` and the `tombstones` that it made; of a `reset` the state of
            the lake from which `seen` counts on.
        lake: The id of the lake that wrote it.
        version: How that lake uses its key (`key.version`), and so makes its marks.
        previous: SHA-256 of the entry before it, hex; empty for the first.
        digest: SHA-256 of this one.
    """

    number: int
    id: str
    what: What
    content: Mapping[str, Any]
    lake: str
    version: int
    previous: str
    digest: str


def head(root: Path) -> tuple[int, str]:
    """Returns number and SHA-256 of the last entry of a lake's journal; 0 and an empty text if there is none."""
    numbers = [number for number, _ in _files(root / FOLDER)]
    return (max(numbers), digest(root, max(numbers))) if numbers else (0, "")


def digest(root: Path, number: int) -> str:
    """Returns the SHA-256 of one entry of a lake's journal, empty if there is none."""
    try:
        return hashlib.sha256(_place(root, number).read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def append(
    root: Path, key: Key, lake: str, what: What, id_: str, content: Mapping[str, Any], *, beyond: int = 0
) -> Entry:
    """Appends an entry, on disk when it returns; the caller holds the landing lock.

    Args:
        root: The lake's folder.
        key: The lake's key.
        lake: The lake's id.
        what: What it is about.
        id_: Names that.
        content: As in `Entry`.
        beyond: The entry's number must also be greater than this.

    Raises:
        CommitConflict: Another process took over the lock and wrote first.
    """
    last_one, previous = head(root)
    number = max(last_one, beyond) + 1
    plain = {
        "number": number,
        "id": id_,
        "what": what,
        "lake": lake,
        "version": key.version,
        "previous": previous,
        "content": content,
    }
    raw = state.sealed(_KIND, lake, key, plain)
    path = _place(root, number)
    durable.folder(path.parent, 0o700)
    try:
        # by a write that fails if the file is there: a lost lock must not overwrite an entry
        durable.create(path, raw)
    except FileExistsError:
        raise CommitConflict(
            f"Cannot append to {FOLDER}/{path.name}: another command came first. Run the command again."
        ) from None
    return _entry(raw, path.name, key)


def has(root: Path, key: Key, id_: str) -> bool:
    """Returns whether a lake's journal has an entry of an id."""
    return any(entry.id == id_ for entry in entries(root / FOLDER, key))


def entries(folder: Path, key: Key, after: int = 0) -> Iterator[Entry]:
    """Yields the entries of a journal, or of copies of it, in order.

    A copy can hold several entries of one number: those that a lake wrote before it was rolled back, and those after.

    Args:
        folder: The folder.
        key: The key of the lakes that wrote them.
        after: Only those with a greater number.

    Raises:
        LakeError: One is not what a lake with this key has written, or the one before it is missing.
    """
    known = {""}
    # several entries can have one number: each must follow one of those read before it
    for number, path in sorted(_files(folder)):
        if number <= after:
            known.clear()  # earlier entries are not read
            continue
        entry = _entry(path.read_bytes(), path.name, key)
        if entry.number != number:
            raise LakeError(f"{path}: expected entry {number}, found entry {entry.number}; {_ADVICE}")
        if known and entry.previous not in known:
            raise LakeError(f"{path}: expected the preceding entry in the same folder, found none; {_ADVICE}")
        known.add(entry.digest)
        yield entry


def outside(folder: Path) -> list[Path]:
    """Returns the folders of journal copies at or in a folder, one for each lake.

    Raises:
        UsageError: There is none.
    """
    found = [folder] if any(_files(folder)) else []
    found = found or [path for path in sorted(folder.glob(f"*.{FOLDER}")) if any(_files(path))]
    if not found:
        raise UsageError(
            f"{folder}: expected a copy of a journal (00000001-....json) or receipts, found neither; name the "
            "folder that holds them: see docs/operations.md on the journal"
        )
    return found


def copy(root: Path, target: Path, after: int) -> None:
    """Copies a lake's entries into a folder outside, those with a greater number than `after` that it lacks."""
    new = [(number, path) for number, path in sorted(_files(root / FOLDER)) if number > after]
    there = {path.name for _, path in _files(target)} if new else set[str]()
    # in order: a copy that is interrupted lacks only the newest entries, and the next command goes on there
    for number, path in new:
        raw = path.read_bytes()
        # a lake that was rolled back writes the same number again, and its copy must not replace the first
        name = f"{number:08d}-{hashlib.sha256(raw).hexdigest()[:16]}.json"
        if name not in there:
            durable.folder(target, 0o700)
            durable.write(target / name, raw)


def last(folder: Path) -> int:
    """Returns the greatest number of the entries in a folder, 0 if there are none."""
    return max((number for number, _ in _files(folder)), default=0)


def _place(root: Path, number: int) -> Path:
    return root / FOLDER / f"{number:08d}.json"


def _files(folder: Path) -> list[tuple[int, Path]]:
    if not s3.is_remote(folder) and not folder.is_dir():
        return []
    found = [(_NAME.fullmatch(path.name), path) for path in folder.glob("*.json")]
    return [(int(match[1]), path) for match, path in found if match]


def _entry(raw: bytes, name: str, key: Key) -> Entry:
    # the lake's id is inside the seal, too: read here first, trusted only if the seal is valid for it
    try:
        lake = str(state.parsed(raw.partition(b"\n")[2])["lake"])
    except (ValueError, KeyError, TypeError):
        raise state.refused(name, "something that is not an entry of a journal", _ADVICE) from None
    plain = state.unsealed(raw, name, _KIND, lake, key, advice=_ADVICE)
    what = plain["what"]
    if what not in get_args(What):
        raise state.refused(name, "an entry of a later version of stedi", _ADVICE)
    return Entry(
        int(plain["number"]),
        str(plain["id"]),
        cast(What, what),
        plain["content"],
        lake,
        int(plain["version"]),
        str(plain["previous"]),
        hashlib.sha256(raw).hexdigest(),
    )
