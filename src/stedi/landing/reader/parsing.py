"""Strict JSON: one value's text to its value, or the reason why not.

The standard library's C scanner does the work; what it takes beyond RFC 8259 (NaN, lone surrogates, a name twice, any
depth) is refused or kept visible here. Objects come out as tuples of members, so that nothing given twice is lost.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from json.decoder import scanstring  # type: ignore[attr-defined] # typeshed lacks it
from typing import Any, cast

from stedi._frozen import dataclass
from stedi._regex import compile_possessive
from stedi.landing.reader.model import Huge, Limits
from stedi.schema.contracts import Reason

Scan = Callable[[str, int], tuple[Any, int]]

MARGIN = 16
"""No token but a string or a number is as long."""

_LONGEST_INTEGER = 400
"""Digits beyond which an integer is `Huge`: a double ends at 309, and converting thousands takes long."""
_HUGE = Huge()
_SPACE = re.compile(r"[ \t\r\n]*+")
_LONE_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_BRACKET = compile_possessive(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True, slots=True)
class Parsed:
    """A JSON value; objects are tuples of members, arrays lists."""

    value: object


def _no_constant(name: str) -> object:
    raise json.JSONDecodeError(name, "", 0)


def _integer(digits: str) -> object:
    return int(digits) if len(digits) <= _LONGEST_INTEGER else _HUGE


def _scanner(parse_int: Callable[[str], object] | None) -> Scan:
    decoder: Any = json.JSONDecoder(object_pairs_hook=tuple, parse_constant=_no_constant, parse_int=parse_int)
    return cast(Scan, decoder.scan_once)


_quick = _scanner(None)
_patient = _scanner(_integer)


def scan(text: str, start: int) -> tuple[Any, int] | None:
    """Reads one value that starts at `start`.

    Returns:
        The value and where it ends; None if no value starts there, or it does not end within `text`, or it is
        nested more deeply than the interpreter recurses (which is beyond every `Limits.depth`).
    """
    found = scan_or_fail(text, start)
    return found if type(found) is tuple else None


def scan_or_fail(text: str, start: int) -> tuple[Any, int] | int:
    """Reads one value that starts at `start`, or returns how far the text is JSON.

    Returns:
        The value and its end; or a place after which, beyond `MARGIN` characters, nothing affects the failure.
    """
    try:
        return _quick(text, start)
        # caught first: a `JSONDecodeError` is a `ValueError`, too
    except (json.JSONDecodeError, StopIteration, RecursionError) as error:
        return _place(error, text, start)
    except ValueError:
        # More digits than the interpreter turns into an integer: still JSON.
        try:
            return _patient(text, start)
        except (json.JSONDecodeError, StopIteration, RecursionError) as error:
            return _place(error, text, start)


def _place(error: Exception, text: str, start: int) -> int:
    if isinstance(error, StopIteration):
        # raised where no value can begin, with that place
        return int(error.value)
    if isinstance(error, json.JSONDecodeError):
        # its place is where the string begins, but more text might end the string
        return len(text) if error.msg.startswith("Unterminated") else error.pos
    return start


def depth(raw: bytes, enough: int) -> int:
    """Returns how deeply brackets nest in `raw` outside of strings, or `enough + 1` as soon as they go beyond it."""
    # so few brackets cannot nest more deeply, wherever they are
    if raw.count(b"{") + raw.count(b"[") <= enough:
        return enough
    level = deepest = 0
    for match in _BRACKET.finditer(raw):
        byte = raw[match.start()]
        if byte in b"{[":
            level += 1
            deepest = max(deepest, level)
            if level > enough:
                break
        elif byte in b"}]":
            level -= 1
    return deepest


def has_lone_surrogate(text: str, value: object) -> bool:
    """Returns whether a string of `value` contains a lone surrogate; `text` is its JSON."""
    if not _LONE_SURROGATE.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False, default=repr).encode()
    except UnicodeEncodeError:
        return True
    return False


def parse_value(text: bytes, limits: Limits | None = None) -> Parsed | Reason:
    """Reads a whole text as one JSON value, strictly by RFC 8259; white space around it is allowed, a BOM is not.

    Args:
        text: The bytes of the text.
        limits: Of these `record_bytes` and `depth` count.

    Returns:
        The value, or the reason: `too_large`, `bad_encoding` (not UTF-8, or a surrogate without its other half),
        `too_deep`, `malformed`, in this order.
    """
    limits = limits or Limits()
    if len(text) > limits.record_bytes:
        return Reason.TOO_LARGE
    try:
        decoded = text.decode()
    except UnicodeDecodeError:
        return Reason.BAD_ENCODING
    if depth(text, limits.depth) > limits.depth:
        return Reason.TOO_DEEP
    found = scan(decoded, _space(decoded, 0))
    if found is None or _space(decoded, found[1]) != len(decoded):
        return Reason.MALFORMED
    if has_lone_surrogate(decoded, found[0]):
        return Reason.BAD_ENCODING
    return Parsed(found[0])


def member_texts(text: str) -> list[tuple[str, str]]:
    """Cuts a valid object's text into its members.

    Args:
        text: One JSON object, known to be valid, without anything around it.

    Returns:
        Each member's name and value as delivered, escapes and all, without line breaks.
    """
    members = []
    at = _space(text, 1)
    while text[at] != "}":
        name_end = scanstring(text, at + 1)[1]
        value_start = _space(text, _space(text, name_end) + 1)
        found = scan(text, value_start)
        if found is None:
            raise ValueError("member_texts takes valid objects only")
        value = text[value_start : found[1]].replace("\r", "").replace("\n", "")
        members.append((text[at:name_end], value))
        at = _space(text, found[1])
        if text[at] == ",":
            at = _space(text, at + 1)
    return members


def is_object(value: object) -> bool:
    """Returns whether a parsed value is an object."""
    return type(value) is tuple


def _space(text: str, start: int) -> int:
    match = _SPACE.match(text, start)
    return match.end() if match else start
