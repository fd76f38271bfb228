"""Envelopes: a JSON value with records of several people, from which the records of some are cut out.

An interface answers `{"data": [...]}`, a queue wraps its messages, a table is exported as `{"Items": [...]}`. For
landing this is one object that is not a record. An erasure must not remove the other people in it, so the value is
traversed. Objects that name an erased person as their owner are removed, objects of others stay, and an object without
an owner is removed if it mentions erased people and nobody else. All other bytes stay. JSON inside a JSON string is
traversed, too, and so is a value with a missing end.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Sequence

from stedi._frozen import dataclass, field, replace
from stedi._regex import compile_possessive

Member = tuple[str, object]
"""Name and value of an object's member; the value is None unless it is a text or a number."""
Verdict = Callable[[Sequence[Member]], bool | None]
"""Decides by an object's members whether it belongs to an erased person or to somebody else; None if unknown."""
Tells = Callable[[str], bool]
"""Says something of a text."""

# possessive quantifiers: a missing quote or an unknown character costs one pass, never a search for other matches
_TOKEN = compile_possessive(r'([ \t\r\n]*+)("(?:[^"\\]|\\.)*+"|[{}\[\]:,]|[^ \t\r\n{}\[\]:,"]+)', re.DOTALL)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))", re.DOTALL)
_PLAIN = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_DEEPEST = 200
"""The greatest depth at which objects are told apart."""
_NESTED = 4
"""How often JSON within a string is looked into."""


@dataclass(frozen=True, slots=True)
class Cut:
    """What to cut from an envelope.

    Attributes:
        spans: Start and end of each range of bytes to remove, in order, without overlap.
        objects: How many objects and values are removed.
        clean: Whether the rest no longer mentions the erased people.
    """

    spans: tuple[tuple[int, int], ...]
    objects: int
    clean: bool

    def of(self, raw: bytes) -> bytes:
        """Returns what stays of the bytes that were looked at."""
        kept, at = [], 0
        for start, end in self.spans:
            kept.append(raw[at:start])
            at = end
        return b"".join([*kept, raw[at:]])


def cut(raw: bytes, verdict: Verdict, may: Tells, tells: Tells, strangers: Tells) -> Cut | None:
    """Returns what to cut from a JSON value so that the records of others in it stay.

    Args:
        raw: The value, UTF-8; its end may be missing.
        verdict: Decides who owns an object.
        may: Whether a text may contain something of an erased person and must be examined.
        tells: Whether a text mentions an erased person.
        strangers: Whether a text contains the address of anybody else.

    Returns:
        An empty cut if all of it belongs to others or cannot be told apart. None if it is not a JSON object or array,
        or mentions only erased people: then it is removed as a whole.
    """
    # one character a byte: positions in the text are positions in the bytes, and bytes that are not UTF-8 stay as they
    # are
    text = raw.decode("latin-1")
    root = _parsed(text)
    if root is None or root.kind not in "{[":
        return None
    walk = _Walk(verdict, may, tells, strangers)
    if walk.goes(_Text(text), root):
        return None
    found = Cut(_merged(walk.spans), walk.objects, clean=False)
    kept = found.of(raw)
    # a cut that breaks the value is wrong somewhere: to remove too much is safe, to keep a mention is not
    if is_json(raw) and not is_json(kept):
        return None
    return replace(found, clean=not tells(kept.decode("utf-8", "replace")))


@dataclass(slots=True)
class _Node:
    """A value in a text.

    Attributes:
        kind: `{`, `[`, `"`, or `0` for any other value.
        start: Where it starts.
        end: Where it ends.
        items: The members of an object or the elements of an array: name, place of the name or element, value.
    """

    kind: str
    start: int
    end: int
    items: list[tuple[str, int, _Node]] = field(default_factory=list)


class _Text:
    """A text with one character for each byte, and the position of its bytes in the outermost text."""

    def __init__(self, text: str, places: tuple[list[int], list[int], list[bool]] | None = None) -> None:
        self.text = text
        self._places = places

    def place(self, at: int) -> int:
        """Returns the place in the outermost text of a place in this one."""
        if self._places is None:
            return at
        inner, outer, plain = self._places
        n = bisect_right(inner, at) - 1
        return outer[n] + (at - inner[n] if plain[n] else 0)

    def of(self, node: _Node) -> str:
        """Returns a value's text, as characters."""
        return _characters(self.text[node.start : node.end])

    def inside(self, node: _Node) -> _Text:
        """Returns the content of a string as a text."""
        inner, outer, plain, parts = list[int](), list[int](), list[bool](), list[str]()
        size, at = 0, node.start + 1
        # a string whose end was cut off has no closing quote
        end = node.end - 1 if self.text[node.end - 1] == '"' and node.end - node.start > 1 else node.end

        def add(part: str, place: int, *, as_is: bool) -> None:
            nonlocal size
            inner.append(size)
            outer.append(self.place(place))
            plain.append(as_is and self._places is None)
            parts.append(part)
            size += len(part)

        for match in _ESCAPE.finditer(self.text, at, end):
            self._add_plain(add, at, match.start())
            said = chr(int(match[1], 16)) if match[1] else _PLAIN.get(match[2], match[2])
            add(
                said.encode("utf-8", "surrogatepass").decode("latin-1") if match[1] else said,
                match.start(),
                as_is=False,
            )
            at = match.end()
        self._add_plain(add, at, end)
        inner.append(size)
        outer.append(self.place(end))
        plain.append(False)
        return _Text("".join(parts), (inner, outer, plain))

    def _add_plain(self, add: Callable[..., None], start: int, end: int) -> None:
        if self._places is None:
            if start < end:
                add(self.text[start:end], start, as_is=True)
            return
        for at in range(start, end):  # each may stand anywhere further out
            # an escaped letter as its UTF-8 bytes, one character each: like the text around it
            add(self.text[at], at, as_is=False)


class _Walk:
    """One walk over a value; `spans` are those of the outermost text."""

    def __init__(self, verdict: Verdict, may: Tells, tells: Tells, strangers: Tells) -> None:
        self._verdict, self._may, self._tells, self._strangers = verdict, may, tells, strangers
        self.spans: list[tuple[int, int]] = []
        self.objects = 0

    def goes(self, text: _Text, node: _Node, level: int = 0) -> bool:
        """Returns whether a value is removed as a whole; if not, notes which parts are."""
        said = text.of(node)
        # most of an envelope is about others: its parts are examined only where they may contain something
        if not self._may(said):
            return False
        if node.kind == "{":
            whose = self._verdict(_members(text, node))
            return self._object_goes(text, node, level, said) if whose is None else whose
        if node.kind == "[":
            self._cut(text, node, level)
            return False
        inner = _json_in(text, node, level)
        if inner is not None:
            return self.goes(*inner, level + 1)
        return self._tells(said) and not self._strangers(said)

    def _object_goes(self, text: _Text, node: _Node, level: int, said: str) -> bool:
        """Does the same for an object without a known owner."""
        theirs, others, records = self._inside(text, node, level)
        others = others or self._strangers(said)
        # nobody else is in it: it is one record, and a mention in any part of it makes all of it theirs
        if not (others or records):
            return theirs or self._tells(said)
        before = len(self.spans), self.objects
        if self._cut(text, node, level):
            return self._discard_notes(before)
        if not others and any(
            self._own(text, value, level) and self._tells(text.of(value)) for *_, value in node.items
        ):
            return self._discard_notes(before)  # one person's record, with lists in it
        return False

    def _own(self, text: _Text, value: _Node, level: int) -> bool:
        """Returns whether a member's value contains no other values."""
        return value.kind not in "{[" and _json_in(text, value, level) is None

    def _discard_notes(self, before: tuple[int, int]) -> bool:
        """Discards the notes on a value, since all of it is removed."""
        del self.spans[before[0] :]
        self.objects = before[1]
        return True

    def _inside(self, text: _Text, node: _Node, level: int) -> tuple[bool, bool, bool]:
        """Returns what an object contains: objects of erased people, objects of others, arrays with either."""
        theirs = others = records = False
        pending = [(text, node, level)]
        while pending:
            where, value, depth = pending.pop()
            inner = _json_in(where, value, depth)
            if inner is not None:
                pending.append((*inner, depth + 1))
            elif value.kind == "{" and value is not node:
                whose = self._verdict(_members(where, value))
                theirs, others = theirs or whose is True, others or whose is False
            elif value.kind == "[":
                records = records or any(
                    (e.kind in "{[" or _json_in(where, e, depth)) and self._may(where.of(e)) for _, _, e in value.items
                )
            pending += [(where, each, depth) for _, _, each in value.items]
        return theirs, others, records

    def _cut(self, text: _Text, node: _Node, level: int) -> bool:
        """Notes which items of an object or an array are removed, and returns whether all are."""
        gone = []
        for name, _, value in node.items:
            # a scalar beside records belongs to the envelope; the check of the rest decides about it
            own = node.kind == "{" and self._own(text, value, level)
            named = node.kind == "{" and not own and self._tells(json.dumps(name, ensure_ascii=False))
            gone.append(not own and (named or self.goes(text, value, level)))
        self.objects += sum(gone)
        kept = False
        for n, (_, start, value) in enumerate(node.items):
            if not gone[n]:
                kept = True
            # with the comma before it; if nothing before it stays, with the comma behind it
            elif kept:
                self._note(text, node.items[n - 1][2].end, value.end)
            else:
                following = node.items[n + 1][1] if n + 1 < len(node.items) else value.end
                self._note(text, start, following)
        return not kept

    def _note(self, text: _Text, start: int, end: int) -> None:
        self.spans.append((text.place(start), text.place(end)))


def _parsed(text: str) -> _Node | None:
    """Returns the value of a text as far as it can be parsed, or None if it is not JSON."""
    root: _Node | None = None
    open_: list[_Node] = []
    name: tuple[str, int] | None = None
    expected = "value"
    at = 0

    def take(node: _Node) -> None:
        nonlocal root, expected, name
        if not open_:
            root = node
        elif open_[-1].kind == "{":
            assert name is not None
            open_[-1].items.append((*name, node))
            name = None
        else:
            open_[-1].items.append(("", node.start, node))
        expected = "more"

    while match := _TOKEN.match(text, at):
        token, start = match[2], match.start(2)
        at = match.end()
        if root is not None and not open_:
            return None
        if token in "{[" and expected in ("value", "value or end"):
            node = _Node(token, start, len(text))
            take(node)
            open_.append(node)
            expected = "name or end" if token == "{" else "value or end"
            if len(open_) > _DEEPEST:
                return None
        elif token in "}]":
            ends = {"{": ("name or end", "more"), "[": ("value or end", "more")}
            if not open_ or (open_[-1].kind == "{") != (token == "}") or expected not in ends[open_[-1].kind]:
                return None
            open_.pop().end = at
            expected = "more"
        elif token == "," and expected == "more" and open_:
            expected = "name" if open_[-1].kind == "{" else "value"
        elif token == ":" and expected == "colon":
            expected = "value"
        elif token[0] == '"' and expected in ("name", "name or end"):
            name, expected = (_said(token), start), "colon"
        elif token not in ",:" and expected in ("value", "value or end"):
            take(_Node('"' if token[0] == '"' else "0", start, at))
        else:
            return None
    rest = text[at:].lstrip(" \t\r\n")
    if rest:
        # the end was cut off within a string
        if rest[0] != '"' or not open_:
            return None
        if expected in ("value", "value or end"):
            take(_Node('"', len(text) - len(rest), len(text)))
    return root


def _json_in(text: _Text, node: _Node, level: int) -> tuple[_Text, _Node] | None:
    """Returns the object or array that a string holds as JSON, if it does."""
    if node.kind != '"' or level >= _NESTED or node.end - node.start < 4:
        return None
    # most strings are not JSON: the bracket that would begin it may be escaped, as `u007b` or `u005b` behind a
    # backslash
    if not text.text[node.start + 1 : node.end].lstrip(" \\nrt\t").startswith(("{", "[", "u007", "u005")):
        return None
    inner = text.inside(node)
    root = _parsed(inner.text)
    return None if root is None or root.kind not in "{[" else (inner, root)


def _members(text: _Text, node: _Node) -> list[Member]:
    return [(name, _value(text, value)) for name, _, value in node.items]


def _value(text: _Text, node: _Node) -> object:
    if node.kind == '"':
        return _said(text.text[node.start : node.end])
    if node.kind == "0":
        digits = text.text[node.start : node.end]
        return int(digits) if digits.lstrip("-").isdecimal() and len(digits) < 20 else None
    return None


def _said(token: str) -> str:
    try:
        found = json.loads(_characters(token), strict=False)
    except ValueError:
        return _characters(token)
    return found if isinstance(found, str) else ""


def _characters(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _merged(spans: list[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)


def is_json(raw: bytes) -> bool:
    """Returns whether bytes are one JSON value."""
    try:
        json.loads(raw)
    except (ValueError, RecursionError):
        return False
    return True
