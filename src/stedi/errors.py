"""The exceptions of the lake, in one tree, with their exit codes.

    StediError                 exit 1
    ├── UsageError             exit 2   wrong usage or arguments
    │   ├── ConfigError                 lake.toml, environment or flags
    │   └── QueryRefused                SQL that the sandbox does not run
    ├── LakeError                       the lake's folder, catalog or tables
    │   ├── CopiedLake                  the lake was copied or moved, and not adopted
    │   ├── DamagedCatalog              the catalog's file is missing or is not one
    │   ├── DamagedFile                 a table's file is not what was written
    │   ├── KeyRefused                  the pseudonym key is missing or wrong
    │   ├── CommitConflict              another program has changed the table
    │   └── LakeBusy        exit 75     another command holds the lake
    ├── LandingError                    a delivery
    │   └── UnreadableFile              one file of it, refused whole
    ├── QueryFailed                     a query that ran and failed
    ├── CloudFailed                     AWS refused, or a stack, job or query there failed
    ├── MissingExtra                    an optional dependency that is not installed
    └── AuditFailed            exit 3   a proof failed: a table breaks a rule, a signature does not hold

A message says what, where, expected, found and the next step, and never holds a customer's data.
"""

from __future__ import annotations

import json
import re


class StediError(Exception):
    """The base class of all exceptions that the lake raises."""

    exit_code = 1


class UsageError(StediError):
    """The command line or an argument is wrong; nothing was done.

    Args:
        message: What is wrong.
        argument: The wrong argument, by its name in Python; the message begins with it.
    """

    exit_code = 2

    def __init__(self, message: str, *, argument: str = "") -> None:
        super().__init__(f"{argument}: {message}" if argument else message)
        self.argument = argument

    def on_command_line(self, option: str) -> str:
        """Returns the message with the command line's name of the argument instead of Python's."""
        return option + str(self).removeprefix(self.argument) if self.argument else str(self)


class ConfigError(UsageError):
    """A setting that is unknown, of the wrong type or out of range."""


class QueryRefused(UsageError):
    """A statement that the query sandbox does not run."""


class LakeError(StediError):
    """The lake's folder, catalog or tables are not as they should be."""


class CopiedLake(LakeError):
    """The lake's tables lie in another folder: it is a copy of the lake there, or was moved from there.

    Args:
        root: The lake's folder.
        home: The folder in which its tables lie.
        gone: Whether there is nothing any more.
    """

    def __init__(self, root: str, home: str, *, gone: bool = False) -> None:
        what = f"moved from {home}, where nothing is" if gone else f"copied from {home}, or moved from there"
        super().__init__(
            f"{root}: expected a lake whose tables lie in it, found one that was {what}; nothing was written: "
            f"make it a lake of its own with `stedi --lake {root} adopt`, which leaves every other folder alone"
        )
        self.home = home


class DamagedCatalog(LakeError):
    """The catalog's file is gone, or is no SQLite catalog."""


class DamagedFile(LakeError):
    """A file of a table is gone, cut, or not what was written.

    Args:
        table: The table.
        file: The file, so that it can be found in the table's folder.
        expected: What should be there.
        found: What is.
    """

    def __init__(self, table: str, file: str, expected: str, found: str) -> None:
        super().__init__(f"table {table}: {file}: expected {expected}, found {found}; run `stedi repair`")
        self.expected = expected
        self.found = found


class KeyRefused(LakeError):
    """The pseudonym key is missing, malformed, too widely readable, or not this lake's."""


class CommitConflict(LakeError):
    """A table has moved since it was read; the work can be done again."""


class LakeBusy(LakeError):
    """Another command holds the lake: the same call succeeds later. The code is that of sysexits.h, EX_TEMPFAIL."""

    exit_code = 75


class LandingError(StediError):
    """A delivery that cannot be landed."""


class UnreadableFile(LandingError):
    """One delivered file that is refused whole; the others land."""


class QueryFailed(StediError):
    """A query that was run and failed: time, memory, or a value in it."""


class CloudFailed(StediError):
    """AWS refused, or a stack, a job or a query there did not end well."""


class MissingExtra(StediError):
    """An optional dependency is not installed; the message names the extra."""


class AuditFailed(StediError):
    """A staged or published table breaks a rule; nothing was published."""

    exit_code = 3


IGNORED = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))))
)
"""Letters, marks and symbols that are not drawn: Unicode's Default_Ignorable_Code_Point, and the empty Braille cell."""


def printable(text: str, keep: str = "") -> str:
    """Returns a text that no terminal acts upon and in which nothing is hidden: all text for people goes through here.

    Escaped is what is not printable: control characters of ASCII and of C1, those of format (direction, zero width),
    white space but the space, lone surrogates, private and unassigned ones; and what no font draws.

    Args:
        text: Any text.
        keep: Characters that stay as they are, as the ends of lines in a text of several.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _drawn(c) or c in keep else _escaped(c) for c in text)


_ADDRESS = re.compile(r"""[^\s"'<>=,;:()\[\]/]+@[^\s"'<>=,;:()\[\]/]+\.[^\s"'<>=,;:()\[\]/]+""")


def unnamed(text: str) -> str:
    """Returns a message without the addresses that a call's own words may have put into it: messages are kept."""
    return _ADDRESS.sub("<address>", text)


def printable_name(name: str) -> str:
    """Returns a file's name as text that any terminal and any table takes: odd bytes and controls escaped."""
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return printable(text)


def json_text(text: str) -> str:
    """Returns a JSON document that means the same, with what `printable` escapes as JSON's own escapes."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _drawn(c) or c == "\n" else json.dumps(c)[1:-1] if c != "\x7f" else "\\u007f" for c in text)


def _drawn(c: str) -> bool:
    if not c.isprintable():
        return False
    if c.isascii():
        return True
    return c not in IGNORED


def _escaped(c: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(c)
    if named:
        return named
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
