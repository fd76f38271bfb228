"""Subjects: the people of a release by their marks, and their ids in it.

A person's mark is that of the tombstones: a keyed hash of the address under the lake's first key. A subject's id is
made from the mark and the release, so that no two releases can be joined, no table has to say who is who, and an
erased person is still found in the releases that they were in.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable

from stedi.errors import LakeError
from stedi.privacy.pseudonyms import Key

_LABEL = "stedi/subject/1"
_BLOCK = 64
"""Bytes of a block of SHA-256."""
_DIGITS = 16
"""Hex digits of a subject's id."""


def identifier(key: Key, lake_id: str, release: str) -> Callable[[str], str]:
    """Returns what gives the subject id of a person's mark in a release.

    Args:
        key: The lake's key; a change of it changes no id.
        lake_id: The lake's id.
        release: `NAME@VERSION`.
    """
    secret = key.derive(_LABEL).ljust(_BLOCK, b"\0")
    # HMAC (RFC 2104), both hashes begun once: a release may be asked for a million people, a registry for a thousand
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in secret) + f"{lake_id}\0{release}\0".encode()).copy
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in secret)).copy

    def of(mark: str) -> str:
        first, second = inner(), outer()
        first.update(mark.encode("ascii"))
        second.update(first.digest())
        return second.hexdigest()[:_DIGITS]

    return of


def refuse_collision(found: Iterable[str]) -> None:
    """Refuses ids of which two are the same: two people would be one.

    Raises:
        LakeError: There are such; of a million people that happens once in 37 million releases.
    """
    listed = list(found)
    if len(set(listed)) != len(listed):
        raise LakeError("the release: expected a different id for each subject, found two that are equal")
