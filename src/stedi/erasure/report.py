"""Results of erasures: previews, receipts, and checks of receipts."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self

from stedi._frozen import dataclass, field


@dataclass(frozen=True, slots=True)
class Receipt:
    """The receipt of one erasure; `Lake.verify_receipt` checks its signature.

    Attributes:
        id: The id of the erasure's run.
        began: When the erasure began, UTC; None if the receipt does not contain it.
        ended: When it ended, UTC; None likewise.
        people: The marks of the erased people: keyed hashes, as in tombstones.
        asked: How many addresses were given.
        known: How many of them the lake knew.
        unknown: The marks of the others.
        clean: Whether the search over every file found no trace of them.
        not_reached: Copies that no erasure reaches, such as `backups`, by the words of `docs/privacy.md`.
        removed: What was removed, by `tables`, `delivered`, `releases` and more.
        scanned: What was searched, by `files`, `bytes` and more.
        document: The JSON document, as it was signed.
    """

    id: str
    began: datetime | None
    ended: datetime | None
    people: tuple[str, ...] = field(repr=False)
    asked: int
    known: int
    unknown: tuple[str, ...] = field(repr=False)
    clean: bool
    not_reached: tuple[str, ...]
    removed: Mapping[str, Any] = field(repr=False)
    scanned: Mapping[str, Any] = field(repr=False)
    document: Mapping[str, Any] = field(repr=False)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """Returns a document's receipt; from other documents, as much as can be read."""
        return cls(
            str(document.get("id", "")),
            _instant(document.get("began")),
            _instant(document.get("ended")),
            _texts(document.get("people")),
            _whole(document.get("asked")),
            _whole(document.get("known")),
            _texts(document.get("unknown")),
            document.get("clean") is True,
            _texts(document.get("not_reached")),
            _mapping(document.get("removed")),
            _mapping(document.get("scanned")),
            document,
        )


@dataclass(frozen=True, slots=True)
class ReceiptCheck:
    """Whether a receipt is what its lake has signed.

    Attributes:
        receipt: The receipt.
        holds: Whether this lake has signed it as it is.
    """

    receipt: Receipt
    holds: bool


@dataclass(frozen=True, slots=True)
class ErasurePreview:
    """What an erasure would remove.

    Attributes:
        asked: How many addresses were given.
        known: For how many of them the lake has any data.
        customers: For how many it has landed records.
        rows: Their rows, by table.
        files: The number of data files with these rows, by table.
        mentioned: Rows of others that name one of them.
        foreign: Mentions in texts of other programs in the catalog, by place; these stay.
    """

    asked: int
    known: int
    customers: int
    rows: Mapping[str, int]
    files: Mapping[str, int]
    mentioned: int
    foreign: Mapping[str, int]


def _instant(value: object) -> datetime | None:
    try:
        return datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _texts(value: object) -> tuple[str, ...]:
    return tuple(text for text in value if isinstance(text, str)) if isinstance(value, list | tuple) else ()


def _whole(value: object) -> int:
    # true is an integer, too
    return value if type(value) is int else 0


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
