"""State files of a lake: JSON sealed under its key; anything else is refused.

State files control what happens: whom an erasure removes, which files are deleted, who is kept out. Write access to the
lake's folder must not be enough to control that. So the first line is an HMAC-SHA-256 under a subkey of the lake's
first key, over the kind of file, the lake's id and every byte that follows. A forged file, one of another lake under
the same key, one kind in the place of another, and one with a byte more or less are refused. A file cannot show that it
is an *older* one of the same lake: its reader compares it with other state of the lake.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stedi._regex import compile_possessive
from stedi.errors import LakeError
from stedi.privacy.pseudonyms import Key
from stedi.storage import config, durable, s3

_HEAD = b"stedi-state 1 "
"""How a sealed file begins; the number is that of the form."""
_DIGITS = 64
"""Hex digits of the seal behind it."""
_LABEL = "stedi/state/1"
_DEPTH = 32
"""The deepest nesting of a state file; the lake's own have 6 levels at most."""
_LARGEST = 1 << 30
"""The largest state file, bytes: tombstones of ten million moments are 350 MB."""
_TOKEN = compile_possessive(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.DOTALL)
"""A string, so that brackets in it do not count, or a bracket."""


class StateRefused(LakeError):
    """A state file was not written by this lake."""


def lake_id(root: Path) -> str:
    """Returns the id of the lake in a folder, from its settings."""
    return config.read(root / "lake.toml").lake_id


def write(path: Path, kind: str, lake_id: str, key: Key, content: Mapping[str, Any]) -> None:
    """Writes or replaces a state file; it is on disk when this returns.

    Args:
        path: The file.
        kind: Its purpose; it can be read for this purpose only.
        lake_id: The lake's id.
        key: The lake's key.
        content: Plain values.
    """
    durable.write(path, sealed(kind, lake_id, key, content))


def sealed(kind: str, lake_id: str, key: Key, content: Mapping[str, Any]) -> bytes:
    """Returns the bytes of a state file."""
    plain = json.dumps(content, allow_nan=False).encode() + b"\n"
    return _HEAD + digest(kind, lake_id, key, plain).encode() + b"\n" + plain


def read(path: Path, kind: str, lake_id: str, key: Key, *, advice: str) -> dict[str, Any]:
    """Returns the content of a state file.

    Args:
        path: The file.
        kind: The purpose that it must have.
        lake_id: The lake's id.
        key: The lake's key.
        advice: What to do if it is refused, for the message: a sentence without a full stop.

    Raises:
        FileNotFoundError: There is none.
        StateRefused: This lake has not written it.
    """
    return unsealed(bytes_of(path), path.name, kind, lake_id, key, advice=advice)


def bytes_of(path: Path) -> bytes:
    """Returns a file's bytes; empty if it is not a regular file (without waiting for it) or is too large.

    Raises:
        FileNotFoundError: There is none.
    """
    if s3.is_remote(path):
        return path.read_bytes()
    # asked before it is opened, since that alone can have effects, and again after it: it can be another by then
    if not stat.S_ISREG(path.stat().st_mode):
        return b""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as stream:
        found = os.fstat(stream.fileno())
        return stream.read() if stat.S_ISREG(found.st_mode) and found.st_size <= _LARGEST else b""


def unsealed(raw: bytes, name: str, kind: str, lake_id: str, key: Key, *, advice: str) -> dict[str, Any]:
    """Returns the content of a state file's bytes; arguments and errors as in `read`."""
    if not is_sealed(raw):
        raise refused(name, "a file without its seal", advice)
    line, _, plain = raw.partition(b"\n")
    if not hmac.compare_digest(line[len(_HEAD) :], digest(kind, lake_id, key, plain).encode()):
        raise refused(name, "another content", advice)
    try:
        found = _loaded(plain.decode())  # the lake's own writing, which may be long
    except ValueError as error:
        raise refused(name, str(error), advice) from None
    if not isinstance(found, dict):
        raise refused(name, f"JSON's {type(found).__name__}", advice)
    return found


def is_sealed(raw: bytes) -> bool:
    """Returns whether bytes begin like a sealed state file, valid or not."""
    return raw.startswith(_HEAD) and raw[len(_HEAD) + _DIGITS : len(_HEAD) + _DIGITS + 1] == b"\n"


def digest(kind: str, lake_id: str, key: Key, plain: bytes) -> str:
    """Returns the HMAC, hex, of some bytes as a kind of thing of one lake."""
    # with their lengths: "ab" + "c" and "a" + "bc" are not the same
    about = b"".join(len(part).to_bytes(4) + part for part in (kind.encode(), lake_id.encode()))
    return hmac.digest(key.derive(_LABEL), about + plain, "sha256").hex()


def refused(name: str, found: str, advice: str) -> StateRefused:
    """Returns the error for a state file that this lake has not written."""
    return StateRefused(
        f"{name}: expected the content that this lake has written under its key, found {found}; {advice}"
    )


def parsed(raw: bytes) -> Any:
    """Returns the value of a JSON text, read strictly.

    UTF-8 only; one value with nothing after it; no repeated name in an object; no NaN, no number beyond a double;
    nested no deeper than `_DEPTH`.

    Raises:
        ValueError: It is something else; the message says what, without quoting it.
    """
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("bytes that are not UTF-8") from None
    level = 0
    # counted first: how deep the parser itself can go depends on who calls it
    for match in _TOKEN.finditer(text) if text.count("[") + text.count("{") > _DEPTH else ():
        level += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if level > _DEPTH:
            raise ValueError(f"JSON nested deeper than {_DEPTH} levels")
    return _loaded(text)


def _loaded(text: str) -> Any:
    try:
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_constant, parse_float=_finite, parse_int=_integer
        )
    except json.JSONDecodeError:
        raise ValueError("something that is not JSON") from None
    except RecursionError:
        raise ValueError(f"JSON nested deeper than {_DEPTH} levels") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # readers differ in which of two members of one name counts: what is sealed or signed must mean one thing
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("JSON with a duplicate name")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError("JSON with an invalid number")


def _integer(digits: str) -> int:
    # to parse a number takes the square of its digits
    if len(digits) > 40:
        raise ValueError("JSON with a number out of range")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("JSON with a number out of range")
    return number
