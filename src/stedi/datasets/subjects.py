"""Who is in a release: people by their marks, and the ids under which a release knows them.

A person's mark is that of the tombstones: a keyed hash of the address under the lake's first key. A subject's id is
made from the mark and the release, so that no two releases can be joined, no table has to say who is who, and an
erased person is still found in the releases that they were in.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable

from stedi.errors import LakeError
from stedi.privacy.pseudonyms import Key

_LABEL = "stedi/subject/1"
_DIGITS = 16
"""Hex digits of a subject's id."""


def identifier(key: Key, lake_id: str, release: str) -> Callable[[str], str]:
    """Returns what gives the subject id of a person's mark in a release.

    Args:
        key: The lake's key; a change of it changes no id.
        lake_id: The lake's id.
        release: `NAME@VERSION`.
    """
    secret, before = key.derive(_LABEL), f"{lake_id}\0{release}\0".encode()
    return lambda mark: hmac.digest(secret, before + mark.encode("ascii"), "sha256").hex()[:_DIGITS]


def refuse_collision(found: Iterable[str]) -> None:
    """Refuses ids of which two are the same: two people would be one.

    Raises:
        LakeError: There are such; of a million people that happens once in 37 million releases.
    """
    listed = list(found)
    if len(set(listed)) != len(listed):
        raise LakeError("the release: expected an id of its own for each subject, found two that are the same")
