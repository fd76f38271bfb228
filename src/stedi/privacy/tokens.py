"""Tokens: where an address, a name or a number stands in a text by itself, and what a text says once it is decoded.

Landing, erasure and the search that proves an erasure all use these rules. `o'brien@x.example` and `brien@x.example.au`
only contain `brien@x.example`; `Otto <brien@x.example>` mentions it. Nothing here knows a person, a key or a file.
"""

from __future__ import annotations

import binascii
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import compress, islice, product

from stedi._regex import compile_possessive
from stedi.privacy import decoding, latin
from stedi.privacy.addresses import complaint
from stedi.schema.contracts import unseen

ERASED = "[erased]"
"""What replaces a mention."""
SHORT = 6
"""Shorter texts count only as a whole value or a whole quoted string: `s1` is everywhere."""

_WHOLE = '"\n'
"""What may stand beside a short text: it is then a whole quoted string, or a whole line, such as a value of a column.
"""
_GLUE = ".+%-'\u2019"
"""Characters that join a letter or digit before them to an address: `o'brien`, not `'brien'`."""
_SOFT = re.compile(r"[&!#$*^~`|=/?{}]|[.+%'\u2019-]{2,}")
"""Characters that an address may contain but that more often stand beside one; and ellipses."""
_ENDINGS = "jsonl?|ndjson|csv|gz|zst|bz2|xz|zip|txt|log|bak|tmp|partial|avro|parquet"
"""Endings of file names, which are no part of an address before them: `brien@x.example.json`."""
_ENDING = re.compile(rf"\.(?:{_ENDINGS})\b")
_LAST_ENDINGS = re.compile(rf"(?:\.(?:{_ENDINGS}))+$")
_AFTER = re.compile(rf"(?!\.(?:{_ENDINGS})\b)[.-]*\w")
"""What continues an address or name beyond its end, so that it does not stand alone."""
_AFTER_IN_NAME = re.compile(rf"[^\W_]|\.(?!(?:{_ENDINGS})\b)[^\W\d_]")
"""The same in a file's name, where a hyphen, `_`, or a dot before a digit ends it."""
_UNSEEN = (
    r"\x7f-\xa0\xad\u034f\u1680\u17b4\u17b5\u180b-\u180f\u2000-\u200f\u2028-\u202f\u205f-\u206f\u3000\ufe00-\ufe0f\ufeff"
    r"\ufff0-\uffff\U000e0000-\U000e0fff"
)
"""White space and invisible characters beyond ASCII. All others can be part of an address; marks belong to letters."""
_SYMBOL = re.compile(r"[^\x00-\x7f\w]")
_TIED = re.compile(r"[.-]*+([^\x00-\x7f])")
_TIED_IN_NAME = re.compile(r"\.?([^\x00-\x7f])")
"""A character beyond ASCII behind a text: if it is a mark, it belongs to the last letter, and the text is another one.
"""
# classes name what they do not have: Python compiles ranges character by character, all of Unicode in 10 ms
_RUN = rf"[^\x00- \"(),:;<>@\[\\\]{_UNSEEN}]"
_DOMAIN = rf"[^\x00-,/:-@\[-\^`{{-~{_UNSEEN}]"
# the domain is only looked at, not taken: in `a@b@c`, it is also the part before the next `@`
_ADDRESS = re.compile(rf"(?<!{_RUN})({_RUN}++)(?=@({_DOMAIN}*+))")
_SIMPLE = compile_possessive(r"\w++(?:[.+%-]\w++)*+")
"""The part before an `@` that can be read in one way only, as most can."""
_CUT = re.compile(r"[_-]|\.(?=\d)")
"""Where an address in a file's name may end."""
_LONGEST = 320
"""Characters of an address on either side of its `@`, at most (RFC 5321, 4.5.3.1)."""

_ESCAPE = re.compile(r'\\u([0-9a-fA-F]{4})|\\(["\\/bfnrt])')
_PLAIN = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_PAIR = re.compile("[\ud800-\udbff][\udc00-\udfff]")
_PERCENT = re.compile(r"(?:%[0-9a-fA-F]{2})+")
_ENTITY = re.compile(r"&(?:#\d{1,7}|#[xX][0-9a-fA-F]{1,6}|[a-zA-Z]{2,32});")
_PRINTABLE = re.compile(r"(?:=[0-9A-F]{2})+")
_SOFT_BREAK = re.compile(r"=\r?\n")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{16,}(?:\r?\n[A-Za-z0-9+/_-]{16,})*(?:\r?\n[A-Za-z0-9+/_-]+)?")
_HEX = b"0123456789abcdefABCDEF-\r\n"
"""The bytes of a run that is a checksum or an id rather than base64."""
_IDS = re.compile(r"[0-9a-fA-F \n-]+")
"""Texts that show no sign of an encoding: ids, dates and numbers, one a line."""
_PRINTED, _ASCII = bytes(range(32, 127)), bytes(range(128))
_BROKEN = re.compile(r'"[^"\s@]{0,320}(?:@[^"\s]{0,320})?\\(?:[tnr]|u00(?:09|0[aAdD]))[^"\s]{0,320}"')
"""A quoted string with an `@` that an escaped tab or line break divides: without the break it can be an address."""
_BREAK = re.compile(r"\\(?:[tnr]|u00(?:09|0[aAdD]))")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_WORD = compile_possessive(r"\w++(?:-\w++)*+")
FEW = 16
"""So many texts are faster looked for one by one than among all words of a text."""
_LEVELS = 3
"""How often decoded text is decoded again."""
_UNPACKED = 4 << 20
"""Bytes to decompress from base64, at most."""

_LIKE = {
    **dict.fromkeys("\u2018\u2019\u201b\u02bc\u02b9\u2032\uff07\u00b4`", "'"),
    **dict.fromkeys("\u00b7\u2022\u2219\uff0e", "."),
    **dict.fromkeys("\u2044\u2215\uff0f", "/"),
    "\uff08": "(", "\uff09": ")", "\uff0b": "+", "\u2212": "-",
}  # fmt: skip
"""What people write in place of ASCII characters in names and phone numbers."""


def folded(text: str) -> str:
    """Returns a text as an address's normal form is written (rule 1 of consent), white space kept."""
    if text.isascii():
        return text.lower()
    if (raw := latin.encoded(text)) is not None:
        return latin.folded(raw)
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())


def places(text: str, part: str, *, name: bool = False) -> Iterator[int]:
    """Yields where a part of a text stands alone in it.

    Args:
        text: The text.
        part: The part to find.
        name: Whether the text is a file name, in which `-`, `_` and a number after a dot separate words.
    """
    at = text.find(part)
    while at >= 0:
        if _alone(text, at, at + len(part), short=len(part) < SHORT, name=name):
            yield at
        at = text.find(part, at + 1)


def stands(text: str, part: str, *, name: bool = False) -> bool:
    """Returns whether a part of a text stands alone in it; arguments as for `places`."""
    return next(places(text, part, name=name), None) is not None


def _alone(text: str, at: int, end: int, *, short: bool, name: bool) -> bool:
    if short:
        # character by character: to strip what is before and after would copy the text for each place
        while at and text[at - 1] in " \t":
            at -= 1
        while end < len(text) and text[end] in " \t":
            end += 1
        before, after = text[at - 1 : at], text[end : end + 1]
        return (not before or before in _WHOLE) and (not after or after in _WHOLE)
    if (_AFTER_IN_NAME if name else _AFTER).match(text, end):
        return False
    if (tied := (_TIED_IN_NAME if name else _TIED).match(text, end)) and _mark(tied[1]):
        return False
    if at == 0:
        return True
    before = text[at - 1]
    if name and before in "_-":
        return True
    if _word(before):
        return False
    return not (before in _GLUE and at > 1 and _word(text[at - 2]))


def having(text: str, word: str, parts: Iterable[str]) -> set[str]:
    """Returns those of some texts that a text contains. All have a word: only its places are looked for."""
    begun: dict[int, list[str]] = {}
    for part in parts:
        begun.setdefault(part.index(word), []).append(part)
    groups = [(before, tuple(group)) for before, group in begun.items()]
    found: set[str] = set()
    at = text.find(word)
    while at >= 0:
        for before, group in groups:
            if at >= before and text.startswith(group, at - before):
                found.update(part for part in group if text.startswith(part, at - before))
        at = text.find(word, at + 1)
    return found


def words(text: str) -> list[str]:
    """Returns the words of a text: letters, digits and `_`; a hyphen joins two."""
    return _WORD.findall(text)


def _word(character: str) -> bool:
    return character.isalnum() or character == "_" or _mark(character)


def _mark(character: str) -> bool:
    """Returns whether a character is a part of the letter before it: an accent, a vowel's sign, a point."""
    return not character.isascii() and unicodedata.category(character)[0] == "M" and not unseen(character)


def _symbols(run: str) -> Iterator[int]:
    """Yields the positions of characters beyond ASCII that are neither letters nor marks: quotes, full stops, emoji."""
    if not run.isascii():
        yield from (match.start() for match in _SYMBOL.finditer(run) if not _mark(match[0]))


def addresses(text: str, *, name: bool = False) -> set[str]:
    """Returns everything in a text that may be an address and stands alone; arguments as for `places`."""
    found: set[str] = set()
    simple: dict[str, bool] = {}  # many addresses have few domains
    for run, domain in set(_ADDRESS.findall(text)) if "@" in text else ():
        if domain not in simple:
            simple[domain] = (
                not name
                and len(domain) <= _LONGEST
                and domain[-1:].isalpha()
                and not _ENDING.search(domain)
                and (domain.isascii() or next(_symbols(domain), None) is None)
            )
        if simple[domain] and len(run) <= _LONGEST and _SIMPLE.fullmatch(run):
            found.add(f"{run}@{domain}")
        else:
            # both sides are cut to what an address can have: their combinations grow with the product of their lengths
            pairs = product(_locals(run[-_LONGEST:], name=name), _domains(domain[:_LONGEST], name=name))
            found.update(f"{local}@{part}" for local, part in pairs)
    return found


def _locals(run: str, *, name: bool) -> set[str]:
    # an apostrophe or hyphen can begin an address or stand before one: both readings are returned
    found = {run, run.lstrip(_GLUE)}
    cuts = {match.end() for match in _SOFT.finditer(run)} if _SOFT.search(run) else set()
    cuts |= {place + 1 for place in _symbols(run) if run[place] not in _GLUE}
    if name:
        cuts |= {place + 1 for place, character in enumerate(run) if character in "_-"}
    found.update(run[cut:].lstrip(_GLUE) for cut in cuts)
    found.update(run[cut:] for cut in cuts)
    return found - {""}


def _domains(run: str, *, name: bool) -> set[str]:
    found: set[str] = set()
    for end in (*_symbols(run), len(run)):
        plain = run[:end].rstrip(".-")
        found |= {plain, _LAST_ENDINGS.sub("", plain)}
        if ending := _ENDING.search(plain):
            found.add(plain[: ending.start()])
        if name:
            found.update(plain[: match.start()] for match in _CUT.finditer(plain))
    return found - {""}


def unescaped(text: str) -> str:
    """Returns a text with all JSON escapes resolved; it need not be valid JSON."""
    if "\\" not in text:
        return text
    # two escapes can be the halves of one character
    found = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _PLAIN.get(m[2], m[2]), text)
    return _PAIR.sub(lambda m: m[0].encode("utf-16", "surrogatepass").decode("utf-16"), found)


def readings(text: str, levels: int = _LEVELS, *, controls: bool = True) -> Iterator[str]:
    """Yields a text as it is, and in each decoding of which it shows a sign.

    Decodings are JSON escapes (also of JSON within JSON), percent-encoding, character references, quoted-printable and
    base64; invisible characters are removed.

    Args:
        text: The text.
        levels: How often decoded text is decoded again.
        controls: Whether control characters are invisible. In binary files they are lengths between two values.
    """
    yield text
    if _IDS.fullmatch(text):
        return
    if "\\" in text and "@" in text:
        for joined in (_BREAK.sub("", match[0]) for match in _BROKEN.finditer(text) if "@" in match[0]):
            yield joined
            if (seen := visible(unescaped(joined))) != joined:
                yield seen
    # collected from every decoding: base64 can stand in percent-encoding, and the other way round
    packed = set(_packed(text))
    for _ in range(levels):
        before = text
        for decode in (unescaped, _unquoted, _dereferenced):
            decoded = decode(text)
            if decoded is not text and decoded != text:
                text = decoded
                yield text
        if text == before:
            break
        packed.update(_packed(text))
    last = [text]
    if "=" in text and _PRINTABLE.search(text):
        last.append(_PRINTABLE.sub(lambda m: _from_hex(m[0].replace("=", "")), _SOFT_BREAK.sub("", text)))
        yield last[1]
    for text in last:
        seen = visible(text, but="\t\n\r", controls=controls)
        if seen is not text:
            yield seen
    if levels > 1:
        for raw in packed:
            yield from readings(raw, levels - 1, controls=controls)


def visible(text: str, *, but: str = "", controls: bool = True) -> str:
    """Returns a text without invisible characters, the same object if it has none.

    Args:
        text: The text.
        but: Characters that stay.
        controls: Whether control characters are removed, too.
    """
    if text.isascii() and (not controls or text.isprintable()):
        return text
    hides = _hides if controls else _hides_apart
    if (raw := latin.encoded(text)) is not None:
        kept = raw.translate(None, latin.having(hides).translate(None, but.encode()))
        return text if len(kept) == len(raw) else kept.decode("latin-1")
    # as bytes, of which those of other characters are left: half of an escaped pair is one, too
    raw = text.encode("utf-8", "surrogatepass").translate(None, _PRINTED if controls else _ASCII)
    hidden = "".join(c for c in set(raw.decode("utf-8", "surrogatepass")) if c not in but and hides(c))
    return re.sub(f"[{re.escape(hidden)}]+", "", text) if hidden else text


@lru_cache(1 << 12)
def _hides(character: str) -> bool:
    return unseen(character) or (character.isspace() and character != " ")


def _hides_apart(character: str) -> bool:
    """Returns the same for what is no control character."""
    return _hides(character) and unicodedata.category(character) != "Cc"


def _unquoted(text: str) -> str:
    return _PERCENT.sub(lambda m: _from_hex(m[0].replace("%", "")), text) if "%" in text else text


def _from_hex(digits: str) -> str:
    return bytes.fromhex(digits).decode("utf-8", "replace")


def _dereferenced(text: str) -> str:
    if "&" not in text or not _ENTITY.search(text):
        return text
    from html import unescape

    return _ENTITY.sub(lambda m: unescape(m[0]), text)


def _packed(text: str) -> Iterator[str]:
    """Yields base64 in a text that decodes to text, directly or after decompression."""
    runs = list(set(_BASE64.findall(text)))
    # what is left of each without hexadecimal digits: most runs are checksums and ids
    others = "\0".join(runs).encode().translate(None, _HEX).split(b"\0")
    for run in compress(runs, others):
        lines = run.split()
        whole = [run] if len(lines) == 1 else [*lines, "".join(lines)]
        # wrapped base64 is one value, or each line is
        for line in whole:
            if len(line) >= 16 and line.encode().translate(None, _HEX) and (decoded := _from_base64(line)):
                yield decoded


@lru_cache(1 << 12)  # the same names stand in many files
def _from_base64(run: str) -> str:
    plain = run.replace("-", "+").replace("_", "/")
    # no base64 has one character more than a multiple of four: the last one stands behind it
    plain = plain[: len(plain) - 1] if len(plain) % 4 == 1 else plain
    try:
        raw = binascii.a2b_base64(plain + "=" * (-len(plain) % 4))
    except (binascii.Error, ValueError):
        return ""
    # Latin letters in UTF-16, whose bytes are valid UTF-8, too
    if b"\0" in raw and not decoding.packing(raw[:6]):
        return raw.replace(b"\0", b"").decode("utf-8", "replace")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        inner = islice(decoding.layers(raw, most=_UNPACKED), 1, None)  # nothing, unless it begins like compressed data
        return "\n".join(found for part in inner for found in decoding.plain(part))
    return text if all(c.isprintable() or c.isspace() or unicodedata.category(c) == "Cf" for c in text[:64]) else ""


def restrung(text: str, change: Callable[[str], str | None]) -> str | None:
    """Returns JSON with its strings changed and everything else unchanged.

    Args:
        text: The JSON.
        change: Returns the replacement of a string, or the string itself; None if there can be none.

    Returns:
        None if one of the strings cannot be changed.
    """
    kept, end = [], 0
    for match in _STRING.finditer(text):
        # a line break within a string is not JSON, but occurs in records that no contract accepts
        value = json.loads(match[0], strict=False)
        changed = change(value)
        if changed is None:
            return None
        if changed != value:
            kept += [text[end : match.start()], json.dumps(changed, ensure_ascii=False)]
            end = match.end()
    return "".join([*kept, text[end:]])


def but(text: str, owner: str, change: Callable[[str], str | None]) -> str | None:
    """Returns a text changed everywhere except in its owner's address; None if a part cannot be changed."""
    parts = [change(part) for part in text.split(owner)]
    kept = [part for part in parts if part is not None]
    return owner.join(kept) if len(kept) == len(parts) else None


def smoothed(text: str) -> str:
    """Returns a text with its names and phone numbers as they are typed: plain digits, spaces, dashes, apostrophes.

    Line breaks stay. Do not search addresses in it: two that differ in an apostrophe may belong to two people.
    """
    if not text.isascii():
        if (raw := latin.encoded(text)) is not None:
            text = raw.translate(latin.table(_typed)).decode("latin-1")
        else:
            for character in set(text):
                if (like := _typed(character)) != character:
                    text = text.replace(character, like)
    text = text.replace("\t", " ")
    while "  " in text:
        text = text.replace("  ", " ")
    return text


@lru_cache(1 << 12)
def _typed(character: str) -> str:
    """Returns the ASCII character that a character stands for in a name or phone number, or itself."""
    if character.isascii():
        return character
    kind = unicodedata.category(character)
    if kind == "Nd":
        return str(unicodedata.decimal(character))
    return {"Zs": " ", "Pd": "-"}.get(kind) or _LIKE.get(character, character)


def spellings(name: str) -> set[str]:
    """Returns the spellings of a case-folded name: as it is, and with the last word first."""
    words = name.split()
    found = {name, " ".join(words)}
    if len(words) > 1:
        rest = " ".join(words[:-1])
        found |= {f"{words[-1]}, {rest}", f"{words[-1]},{rest}", f"{words[-1]} {rest}"}
        if "," in words[0] and words[0].endswith(","):
            found.add(f"{' '.join(words[1:])} {words[0][:-1]}")
    return found - {""}


def owner(text: str) -> str | None:
    """Returns the owner that a record names: the only address in its `email` or `user`, as delivered; None without one.

    An address that is not plain, such as `Otto <brien@x.example>`, is a separate customer, as in landing.

    Args:
        text: One JSON object; anything else has no owner.
    """
    try:
        # pairs, not a dict: a record with two owners has none; an object within it is a list of pairs, too, and no text
        pairs = json.loads(text, object_pairs_hook=lambda members: members)
    except (ValueError, RecursionError):
        return None
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        return None
    named = [value for name, value in pairs if name.lower() in ("email", "user")]
    return named[0] if len(named) == 1 and isinstance(named[0], str) and "@" in named[0] else None


def beside(text: str, owner: str) -> str:
    """Returns JSON without its owner's address, wherever it occurs."""
    return restrung(text, lambda value: value.replace(owner, ERASED)) or ""


def is_plain(address: str) -> bool:
    """Returns whether a text is one address and nothing beside it: `local@domain`, as one person types it."""
    return complaint(address) is None


def masked(text: str, parts: Iterable[str], by: str = ERASED) -> str:
    """Returns a text with each stand-alone occurrence of some case-folded parts replaced by a word.

    A text whose length changes by case-folding has no usable positions and is replaced as a whole.
    """
    # places are those of the folded text
    plain = folded(text)
    spans = sorted({(at, at + len(part)) for part in parts for at in places(plain, part)})
    if not spans:
        return text
    if len(plain) != len(text):
        return by
    kept, end = [], 0
    for start, stop in spans:
        if start >= end:
            kept += [text[end:start], by]
        end = max(end, stop)
    return "".join([*kept, text[end:]])
