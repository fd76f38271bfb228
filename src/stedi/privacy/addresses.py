"""Addresses of customers: one reader of lists and one validation for all commands.

`of_call` and `of_values` read texts with their places from arguments, files, stdin or Python values; `taken` accepts
those that are one plain address. Anything else is refused before any work starts. The message names its place but never
repeats an address. Nothing is guessed: an address in quotes, or two in a line, must be corrected by the user.
"""

from __future__ import annotations

import codecs
import errno
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote

from stedi.errors import UsageError
from stedi.privacy.pseudonyms import normalise
from stedi.schema.contracts import has_unseen
from stedi.storage import destinations

Given = tuple[str, str]
"""Where an address was given, such as `stdin, line 3`, and its text."""

LONGEST = 320
"""Characters of a plain address at most (RFC 5321, 4.5.3.1: 64 before its `@`, 255 after it)."""
_MOST_BYTES = 256 << 20
"""Bytes of a list, at most."""
_LONGEST_REFERENCE = 200
"""Characters of a request's name, at most."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # before UTF-16, whose little-endian mark begins this one
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_LINE_ENDS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

_ATOM = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'*+-/=?^_~.")
"""Of RFC 5322's atoms all but those that lists and tables divide columns with, or that quote: ` { | }"""
_AFTER = re.compile(r"[^\s@]@([^\s@]*)")
"""What stands behind an `@`, as far as a word goes."""
_VERSION = re.compile(r"v?[0-9]+(?:\.[0-9]+)*[.,;:)\]]*")
"""What stands there in `NAME@3` and `net@v1.2`, with the punctuation of a sentence."""
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
"""The start of a link, such as `mailto:`."""
_LABEL = re.compile(r"(?:e-?mail|mail|address|user|login|to|from|cc|bcc)\s*[:=]", re.IGNORECASE)
_ENCODED = re.compile(r"%[0-9A-Fa-f]{2}|&#?\w+;|=[0-9A-F]{2}=|\\u[0-9A-Fa-f]{4}|=\?[\w-]+\?")
"""Percent-encoding, character references, quoted-printable, JSON's escapes, or an encoded word of a mail header."""
_PHONE = re.compile(r"\+?[0-9 ().\/-]*[0-9][0-9 ().\/-]*")
_SERIAL = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}|[0-9A-Fa-f]{16,64}|[A-Z]{1,6}-?[0-9]{4,}")
"""A serial number: a UUID, hex digits, or letters before digits."""
_QUOTES = frozenset('"`\u00ab\u00bb\u2039\u203a\u201c\u201d\u201e\u201f\u300c\u300d\uff02')
_APOSTROPHES = "'\u2018\u2019\u201a\u201b\u02bc\uff07"
_BETWEEN = re.compile(r"[,;|/\s\uff0c\uff1b\u3001]")

_ESCAPE = re.compile(r'\\(?:u([0-9a-fA-F]{4})|(["\\/bfnrt])|(.?))', re.DOTALL)
_PLAIN = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}


def taken(given: Iterable[Given], *, exact: bool = False) -> tuple[str, ...]:
    """Returns the normal form of each address, each once, in the order in which they were given; else as `placed`."""
    return tuple(placed(given, exact=exact))


def reference(text: str, wanted: Iterable[str] = (), called: Iterable[tuple[str, str]] = ()) -> str:
    """Returns the name of a request, which receipts show in clear text: one line that identifies nobody.

    Args:
        text: The name; may be empty.
        wanted: The normal forms of the addresses that the request is about.
        called: Names and phone numbers of those people, empty where there is none.

    Raises:
        UsageError: It contains an address, or the name or phone number of one of them, or is not one line of at most
            200 characters; the message does not repeat it.
    """
    from stedi.privacy import tokens

    wrong = ""
    if len(text) > _LONGEST_REFERENCE or not text.isprintable():
        wrong = f"one line of {_LONGEST_REFERENCE} characters at most, found something else"
    else:
        # receipts last for years and may be shown to anybody: a name that was encoded counts, too
        read = [normalise(reading) for reading in tokens.readings(text)]
        if any("@" in each or "\uff20" in each or any(address in each for address in wanted) for each in read):
            wrong = "a name of the request that tells nobody's address, found an address or an @"
        elif any(_calls(text, name, phone) for name, phone in called):
            wrong = "a name of the request that tells nobody, found a name or a phone number of who it is about"
    if wrong:
        raise UsageError(f"expected {wrong}; nothing was done", argument="reference")
    return text


def _calls(text: str, name: str, phone: str) -> bool:
    """Returns whether a text contains somebody's name or phone number, in any spelling."""
    from stedi.privacy import phones, tokens

    named = tokens.folded(name).strip()
    if named and any(tokens.stands(tokens.folded(reading), named, name=True) for reading in tokens.readings(text)):
        return True
    return phones.calls(tokens.smoothed(text), phones.numbers(phone))


def placed(given: Iterable[Given], *, exact: bool = False) -> dict[str, str]:
    """Returns the normal form of each address, each once, with the place where it was given first.

    Args:
        given: Places and texts.
        exact: Take each as it was delivered, plain or not.

    Raises:
        UsageError: One is not a plain address; the message names only its place.
    """
    found: dict[str, str] = {}
    for place, text in given:
        wrong = _unreadable(text) if exact else complaint(text)
        if wrong:
            raise UsageError(f"{place}: expected one plain email address, {wrong}; nothing was done")
        # two spellings of one address are one customer (rule 1), reported at the first
        found.setdefault(normalise(text), place)
    return found


def of_call(
    words: Iterable[str], file: Path | None = None, *, exact: bool = False, stdin: BinaryIO | None = None
) -> Iterator[Given]:
    """Yields the texts of a command line: its words, the lines of stdin for `-`, and the lines of a file.

    Args:
        words: The words.
        file: A list, an address a line; `-` for stdin.
        exact: Resolve JSON's escapes in them.
        stdin: Its bytes, whatever the locale; by default the process's.

    Raises:
        UsageError: A list cannot be read, or is not text.
    """
    for given in _of_call(words, file, stdin):
        yield unescaped(given) if exact else given


def _of_call(words: Iterable[str], file: Path | None, stdin: BinaryIO | None) -> Iterator[Given]:
    for place, word in enumerate(words, start=1):
        if word == "-":
            yield from lines_of(_stdin(stdin), "stdin")
        else:
            yield f"argument {place}", word.rstrip("\r\n")  # a line of CSV that a shell cut out keeps its CR
    if file is not None and str(file) == "-":
        yield from lines_of(_stdin(stdin), "stdin")
    elif file is not None:
        try:
            with destinations.expanded(file).open("rb") as stream:
                # one byte more shows that there are too many; `lines_of` refuses them
                raw = stream.read(_MOST_BYTES + 1)
        except OSError as error:
            raise UsageError(
                f"--file: expected a readable list, found none ({error.strerror}); nothing was done"
            ) from error
        yield from lines_of(raw, "--file")


def _stdin(given: BinaryIO | None) -> bytes:
    """Returns everything on stdin, as bytes."""
    try:
        # Python has no stdin where the process was started without one
        if given is None and (sys.stdin is None or sys.stdin.closed):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        # a notebook or a test may have put a text stream without bytes in its place
        stream = given or getattr(sys.stdin, "buffer", None)
        if stream is not None:
            return bytes(stream.read(_MOST_BYTES + 1))
        return sys.stdin.read().encode("utf-8", "surrogateescape")
    except OSError as error:
        raise UsageError(f"stdin: expected a list, found none ({error.strerror}); nothing was done") from error


def of_values(*values: str | Iterable[str]) -> Iterator[Given]:
    """Yields what a call from Python gives: strings, and iterables of strings, in any mixture.

    Raises:
        UsageError: There is another type among them.
    """
    place = 0
    for value in values:
        for text in [value] if isinstance(value, str) else _each(value):
            place += 1
            if not isinstance(text, str):
                raise UsageError(f"address {place}: expected text, found {type(text).__name__}; nothing was done")
            yield f"address {place}", text


def lines_of(raw: bytes, where: str) -> Iterator[Given]:
    """Yields the lines of a list that are not blank: UTF-8, or by their mark UTF-16 or UTF-32, with any line ends.

    Args:
        raw: The list's bytes.
        where: The list's name, for the place of each line.

    Raises:
        UsageError: It is not such text; the message names the line.
    """
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{where}: expected at most {_MOST_BYTES >> 20} MiB, found more; nothing was done")
    encoding, start = next(((name, len(mark)) for mark, name in _MARKS if raw.startswith(mark)), ("utf-8", 0))
    # Latin text in UTF-16 is valid UTF-8, with a NUL beside each letter: every address in it would be unknown
    if encoding == "utf-8" and b"\0" in raw:
        raise UsageError(
            f"{where}: expected text in UTF-8, or UTF-16 that begins with a byte order mark, found NUL bytes (UTF-16 "
            "without a mark?); save the list as UTF-8; nothing was done"
        )
    try:
        text = raw[start:].decode(encoding)
    except UnicodeDecodeError as error:
        before = raw[start : start + error.start].decode(encoding, "replace")
        line = len(_LINE_ENDS.findall(before)) + 1
        raise UsageError(
            f"{where}, line {line}: expected {encoding[:6].upper().rstrip('-')} text, found other bytes; save the list "
            "as UTF-8; nothing was done"
        ) from None
    for number, line_text in enumerate(_LINE_ENDS.split(text), start=1):
        if line_text.strip():
            yield f"{where}, line {number}", line_text


def unescaped(given: Given) -> Given:
    r"""Returns an address with JSON's escapes resolved, as between the quotes of a delivered record.

    So a user can type characters that a terminal cannot show: `\u200b`, `\u0000`. A backslash itself is `\\`.

    Raises:
        UsageError: A backslash does not begin a JSON escape.
    """
    place, text = given
    if "\\" not in text:
        return given
    if any(match[3] is not None for match in _ESCAPE.finditer(text)):
        raise UsageError(
            f"{place}: expected only JSON escapes, found another character after a backslash; nothing was done"
        )
    found = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _PLAIN.get(m[2], m[2]), text)
    return place, found.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def mentions(text: str) -> bool:
    """Returns whether a text, such as a note or a file's path, contains what may be somebody's address.

    `NAME@3` and `net@v1.2` are versions. Percent-encoding and full-width forms are read, too.
    """
    read = unicodedata.normalize("NFKC", unquote(text))
    return any(after and not _VERSION.fullmatch(after) for after in _AFTER.findall(read))


def complaint(text: str) -> str | None:
    """Returns why a text is not one plain address, or None if it is one.

    A plain address is what a person types: `local@domain`, with or without white space around it. Both sides may
    contain letters, marks and digits of any script; the part before the `@` also apostrophes and the like.

    Returns:
        `found ...` or `looks like ...`, without any of the text.
    """
    wrong = _unreadable(text)
    if wrong:
        return wrong
    # what rule 1 trims, except control characters other than the tab
    text = text.strip("\t" + "".join(c for c in text if unicodedata.category(c) == "Zs"))
    if any(unicodedata.category(c) == "Cc" and c != "\t" for c in text):
        return "found a control character in it"
    if has_unseen(text.replace("\t", " ")) and not any(unicodedata.category(c) == "Zs" and c != " " for c in text):
        return "found a character in it that nobody can see"
    if len(text) > LONGEST:
        return f"found more than {LONGEST} characters"
    return _shape(text)


def _shape(text: str) -> str | None:
    """Returns what a text of visible characters looks like, if it is no plain address."""
    signs = text.count("@") + text.count("\uff20")
    if signs != 1 or "@" not in text:
        return _without_sign(text) if signs == 0 else _with_signs(text, signs)
    if "<" in text or ">" in text:
        return "looks like a name with an address in angle brackets; give the address alone"
    if _LABEL.match(text) or _SCHEME.match(text):
        return "looks like a link or a label with an address; give the address alone"
    if text[0] in _APOSTROPHES or text[-1] in _APOSTROPHES or _QUOTES & set(text):
        return "looks like one in quotes; give it without them"
    if _ENCODED.search(text):
        return "looks like an encoded address; give it as it is typed"
    if text[-1] in ",;.:":
        return f"found {_NAMED[text[-1]]} at its end; give the address alone"
    if any(c.isspace() or c in ",;|" for c in text):
        return "looks like a row of a table, or a name with an address; give the address alone, one a line"
    if text[0] in "#*->=":
        return "looks like a comment or an item of a list; give the address alone"
    local, _, domain = text.partition("@")
    if not local or not domain:
        return "found nothing on one side of the @"
    if any(not _in_local(c) for c in local):
        return "found a character before the @ that no plain address has; exact=True takes it as delivered"
    labels = domain.split(".")
    if not all(labels):
        return "found a part of its domain that is empty"
    if any(not _in_domain(c) for c in domain.replace(".", "")):
        return "found a character after the @ that no domain has; exact=True takes it as delivered"
    return None


_NAMED = {",": "a comma", ";": "a semicolon", ".": "a full stop", ":": "a colon"}


_FIND = "an officer finds the address in customers_landing by `stedi query --role officer`"


def _without_sign(text: str) -> str:
    if _ENCODED.search(text):
        return "looks like an encoded address; give it as it is typed"
    if _PHONE.fullmatch(text):
        return f"looks like a phone number, which several people can have; {_FIND}"
    if _SERIAL.fullmatch(text):
        return f"looks like a serial number or an id; {_FIND}"
    if text.startswith("#"):
        return "looks like a comment"
    if any(c in ",;|\t" for c in text):
        return "looks like a row of a table"
    return f"found no @ in it: looks like a name, or the head of a column; {_FIND}"


def _with_signs(text: str, signs: int) -> str:
    if signs == 1:
        return "found an @ of another script"
    if _BETWEEN.search(text):
        return "looks like several addresses; give one a line"
    return f"found {signs} @"


def _in_local(character: str) -> bool:
    if character.isascii():
        return character in _ATOM
    return character in "\u2019\u02bc\u00b7" or unicodedata.category(character)[0] in "LMN"


def _in_domain(character: str) -> bool:
    return character in "-_\u00b7\u30fb" or unicodedata.category(character)[0] in "LMN"


def _unreadable(text: str) -> str | None:
    """Returns why no text of a lake can be meant, or None."""
    if any("\ud800" <= c <= "\udfff" for c in text):
        return "found one that is not UTF-8 text"
    if not text.strip():
        return "found a blank one"
    return None


def _each(values: Iterable[str]) -> Iterable[str]:
    # bytes are iterable, but their items are numbers
    if isinstance(values, bytes | bytearray) or not isinstance(values, Iterable):
        raise UsageError(
            f"addresses: expected text, or several in a list, found {type(values).__name__}; nothing was done"
        )
    return values
