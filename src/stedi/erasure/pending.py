"""The state file of an unfinished erasure, from which it can be finished after any interruption.

It names nobody: it contains marks of people, serial numbers, moments and records, and paths of files. Everything else,
such as names to search for, is read again from the customers' records, whose old files are removed last of all.

A file that this lake has not written is not trusted at all. Its content is then computed again from the tombstones,
which name every erasure and whether it has ended, and from the receipts, which only ended erasures have.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi._frozen import asdict, dataclass, field
from stedi.catalog import Catalog
from stedi.privacy import receipts, state, tombstones
from stedi.privacy.pseudonyms import Key
from stedi.privacy.tombstones import PENDING, Tombstones
from stedi.storage import durable, s3

_KIND = "erasure"
ADVICE = "nothing was changed. Run `stedi erase --resume`: it ends what the tombstones tell of, and puts this file away"
"""What to do if this lake has not written the file."""


@dataclass(frozen=True, slots=True)
class Found:
    """The result of the first phase.

    Attributes:
        rows: Rows of the customers in each table now.
        tainted: For each table, the files of live snapshots with data of the customers.
        counts: For each delivered file, by SHA-256, how many accepted and quarantined records of theirs there are.
        follows: For each table below landing, the inputs whose changes it contains completely.
        withheld: Withheld readings to remove.
        customers: The customers with landed records.
        mentioned: Rows of others whose unknown fields mention one of them.
        tombstones: The tombstones that will keep their data out.
        others: Of values of others that mention one of them and stay, how many there are, by table and column.
        left: Their marks, by which the search passes them over.
        shared: How many of their names, phone and serial numbers are not looked for since somebody else has them, too.
        known: The marks of those of whom the lake holds anything; of an erasure that an earlier version began, none.
        whole: Quarantined records that go though they tell of others, too, since nobody could be told apart in them:
            file and offset, without what tells of a customer.
        foreign: Of what other programs have written into the catalog and mentions one of them, how many texts there
            are in each place.
        held: Rows of the customers in each file; of an erasure that an earlier version began, none.
        claims: Of the tables that record claims of erased customers, those that were built with all of them.
    """

    rows: Mapping[str, int]
    tainted: Mapping[str, tuple[str, ...]]
    counts: Mapping[str, tuple[int, int]]
    follows: Mapping[str, tuple[str, ...]]
    withheld: int
    customers: int
    mentioned: int
    tombstones: Tombstones
    others: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    left: tuple[str, ...] = ()
    shared: int = 0
    known: tuple[str, ...] | None = None
    whole: tuple[str, ...] = ()
    foreign: Mapping[str, int] = field(default_factory=dict)
    held: Mapping[str, int] | None = None
    claims: tuple[str, ...] = ()

    def taints(self, table: str) -> frozenset[str]:
        """Returns the tainted files of a table."""
        return frozenset(self.tainted.get(table, ()))


@dataclass(frozen=True, slots=True)
class Pending:
    """A running erasure.

    Attributes:
        run: Its id.
        started: When it began, epoch milliseconds.
        people: The customers' marks.
        inbox: Delivered files and folders to rewrite.
        found: What the first phase has found, once it has ended.
        removed: What has been removed so far, for the receipt.
        scanned: What the search has covered, once it has found nothing.
        recovered: Whether its own file was lost, and all of this was worked out again: its inbox is not known.
        evidence: Files of the customers' records that nothing uses any more, where the first phase has to be done
            again after others have been.
        heads: The snapshot of each table that the first phase has looked at.
        reference: What whoever asked for it calls the request.
        operator: The user of the operating system who began it.
        replays: Of receipts whose erasures this one repeats in a lake that was restored, the digests, by id.
    """

    run: str
    started: int
    people: tuple[str, ...]
    inbox: tuple[str, ...] = ()
    found: Found | None = None
    removed: Mapping[str, Any] = field(default_factory=dict)
    scanned: Mapping[str, Any] | None = None
    recovered: bool = False
    evidence: tuple[str, ...] = ()
    heads: Mapping[str, int] = field(default_factory=dict)
    reference: str = ""
    operator: str = ""
    replays: Mapping[str, str] = field(default_factory=dict)


def write(root: Path, key: Key, pending: Pending) -> None:
    """Writes the state of an erasure; it is on disk when this returns."""
    plain = asdict(pending)
    if pending.found is not None:
        plain["found"]["tombstones"] = tombstones.to_json(pending.found.tombstones)
    state.write(root / PENDING, _KIND, state.lake_id(root), key, plain)


def read(root: Path, key: Key) -> Pending | None:
    """Returns the erasure that is under way or was cut off, if there is one.

    Raises:
        StateRefused: There is a file of that name which this lake has not written.
    """
    try:
        plain = state.read(root / PENDING, _KIND, state.lake_id(root), key, advice=ADVICE)
    except FileNotFoundError:
        return None
    try:
        found = plain.pop("found")
        if found is not None:
            found["tainted"] = {table: tuple(paths) for table, paths in found["tainted"].items()}
            found["counts"] = {sha256: tuple(counts) for sha256, counts in found["counts"].items()}
            found["follows"] = {table: tuple(inputs) for table, inputs in found["follows"].items()}
            # earlier versions wrote fewer fields, and what they began must end
            found["claims"] = tuple(found.get("claims", ()))
            found["left"] = tuple(found.get("left", ()))
            found["whole"] = tuple(found.get("whole", ()))
            found["known"] = tuple(found["known"]) if found.get("known") is not None else None
            found = Found(**{**found, "tombstones": tombstones.from_json(found["tombstones"])})
        lists = {name: tuple(plain[name]) for name in ("people", "inbox", "evidence")}
        return Pending(**{**plain, **lists}, found=found)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise state.refused(PENDING, f"one of another version ({type(error).__name__})", ADVICE) from error


def unended(root: Path, key: Key, known: Tombstones) -> tuple[str, ...]:
    """Returns the marks of the customers of an interrupted erasure: one that has neither ended nor a receipt.

    One that has ended is never done again, whatever became of its receipt: a customer may have come back since. For
    where its own file is not to be believed or not there. Erasures follow one another, so it is the last one. One
    that was begun by an earlier version is in no list of erasures: its file, which nothing vouches for, is asked for
    marks alone, and only those count that are tombstones already.

    Args:
        root: The lake's folder.
        key: The lake's key.
        known: The lake's tombstones.
    """
    last = max(known.erasures, default=None)
    if last is not None and last not in known.ended and last not in receipts.names(root):
        # ids begin with the time, so the greatest is the last
        return known.erasures[last]
    if key.version != 1 or tombstones.is_bound(root):
        return ()
    try:
        plain = state.parsed(state.bytes_of(root / PENDING))
        marks = plain["people"]
    except (OSError, ValueError, TypeError, KeyError):
        return ()
    if not isinstance(marks, list) or not all(isinstance(mark, str) and mark in known.people for mark in marks):
        return ()
    return tuple(sorted(set(marks)))


def evidence(catalog: Catalog) -> tuple[str, ...]:
    """Returns whole data files of the customers' records that are not current: an erasure may have replaced them."""
    name = "customers_landing"
    current = {durable.realpath(file.path) for file in catalog.files(catalog.table(name))}
    home = catalog.folder(name) / "data"
    found = (entry.path for entry in durable.walk(home) if entry.path.suffix == ".parquet")
    return tuple(str(path) for path in found if durable.realpath(path) not in current and _is_whole(path))


def _is_whole(path: Path) -> bool:
    """Returns whether a Parquet file is complete; one whose command died while writing is not."""
    if s3.is_remote(path):
        return True
    if path.is_symlink() or not path.is_file():
        return False
    with open(path, "rb") as stream:
        # a writer adds the footer, with this mark, when all rows are there
        stream.seek(max(0, path.stat().st_size - 4))
        return stream.read() == b"PAR1"


def remove(root: Path) -> None:
    """Ends an erasure."""
    durable.remove(root / PENDING)
