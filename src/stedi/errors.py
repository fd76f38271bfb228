"""The exceptions of the lake, in one tree, with their exit codes.

    StediError                 exit 1
    ├── UsageError             exit 2   wrong usage or arguments
    │   ├── ConfigError                 lake.toml, environment or flags
    │   └── QueryRefused                SQL that the sandbox does not run
    ├── LakeError                       the lake's folder, catalog or tables
    │   ├── CopiedLake                  the lake was copied or moved, and not adopted
    │   ├── DamagedCatalog              the catalog's file is missing or is not a SQLite catalog
    │   ├── DamagedFile                 a table's file is missing or was changed
    │   ├── KeyRefused                  the pseudonym key is missing or wrong
    │   ├── CommitConflict              another program has changed the table
    │   └── LakeBusy        exit 75     another command holds the lake
    ├── LandingError                    a delivery
    │   └── UnreadableFile              one file of a delivery, refused as a whole
    ├── QueryFailed                     a query that ran and failed
    ├── CloudFailed                     AWS refused, or a stack, job or query there failed
    ├── MissingExtra                    an optional dependency that is not installed
    └── AuditFailed            exit 3   a proof failed: a table breaks a rule, a signature does not hold

A message says what is wrong and where, what was expected, what was found, and the next step. It never holds a
customer's data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager


class StediError(Exception):
    """The base class of all exceptions that the lake raises."""

    exit_code = 1


class UsageError(StediError):
    """The command line or an argument is wrong; nothing was done.

    Args:
        message: What is wrong.
        argument: The wrong argument's name in Python; the message begins with it.
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
    """Something is wrong with the lake's folder, catalog or tables."""


class CopiedLake(LakeError):
    """The lake's tables are in another folder: the lake is a copy of the lake there, or was moved from there.

    Args:
        root: The lake's folder.
        home: The folder in which its tables are.
        gone: Whether `home` no longer exists.
    """

    def __init__(self, root: str, home: str, *, gone: bool = False) -> None:
        what = f"moved from {home}, where nothing is" if gone else f"copied from {home}, or moved from there"
        super().__init__(
            f"{root}: expected a lake whose tables lie in it, found one that was {what}; nothing was written: "
            f"make it a lake of its own with `stedi --lake {root} adopt`, which leaves every other folder alone"
        )
        self.home = home


class DamagedCatalog(LakeError):
    """The catalog's file is missing or is not a SQLite catalog."""


FORBIDDEN = "one that this user may not read"
"""What `DamagedFile` has found where a file may be whole: no repair helps, and none may replace the file."""


class DamagedFile(LakeError):
    """A file of a table is missing, truncated or changed, or this user may not read it.

    Args:
        table: The table.
        file: The file, named so that it can be found in the table's folder.
        expected: What was expected there.
        found: What was found.
    """

    def __init__(self, table: str, file: str, expected: str, found: str) -> None:
        advice = "give this user the right to read it" if found == FORBIDDEN else "run `stedi repair`"
        super().__init__(f"table {table}: {file}: expected {expected}, found {found}; {advice}")
        self.expected = expected
        self.found = found


class KeyRefused(LakeError):
    """The pseudonym key is missing, malformed, too widely readable, or not this lake's."""


class CommitConflict(LakeError):
    """Another program has changed a table since it was read; the operation can be repeated."""


class LakeBusy(LakeError):
    """Another command holds the lake; try again later. The exit code is EX_TEMPFAIL of sysexits.h."""

    exit_code = 75


class LandingError(StediError):
    """A delivery that cannot be landed."""


class UnreadableFile(LandingError):
    """One delivered file that is refused as a whole; the other files land.

    Args:
        message: What is wrong.
        passing: Whether this machine or the store could not read it, which may pass while the file stays as it is.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        super().__init__(message)
        self.passing = passing


class QueryFailed(StediError):
    """A query that ran and failed: it took too much time or memory, or a value caused an error."""


class CloudFailed(StediError):
    """AWS refused a request, or a stack, a job or a query there failed."""


class MissingExtra(StediError):
    """An optional dependency is not installed; the message names the extra."""


@contextmanager
def needing(package: str, extra: str, what: str = "this") -> Iterator[None]:
    """Names the extra to install if an import within the block fails.

    Args:
        package: The package.
        extra: The extra of `stedi` that it comes with.
        what: What needs it.

    Raises:
        MissingExtra: The package is not installed.
    """
    try:
        yield
    except ImportError:
        raise MissingExtra(f"{what} needs {package}, which is not installed: pip install 'stedi[{extra}]'") from None


class AuditFailed(StediError):
    """A staged or published table breaks a rule; nothing was published."""

    exit_code = 3


IGNORED = frozenset(
    "\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2065\u2800\u3164\uffa0"
    + "".join(map(chr, (*range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9), *range(0xE0000, 0xE1000))))
)
"""Letters, marks and symbols that fonts do not draw: Unicode's Default_Ignorable_Code_Point and the blank Braille
pattern."""


FORMULA = "=+@\t\r\n\uff1d\uff0b\uff0d\uff20-"
"""First characters of cells that spreadsheets compute or convert, for a class of a pattern; wide forms count as narrow
ones."""


def printable(text: str, keep: str = "") -> str:
    """Returns a text without terminal control sequences and hidden characters; all text for people passes through here.

    It escapes everything that is not printable: control characters of ASCII and C1, format characters (direction, zero
    width), white space except the plain space, lone surrogates, private and unassigned characters. It also escapes
    characters that no font draws.

    Args:
        text: Any text.
        keep: Characters that are not escaped, such as line ends in a text of several lines.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if _drawn(c) or c in keep else _escaped(c) for c in text)


_ADDRESS = re.compile(r"""[^\s"'<>=,;:()\[\]/]+@[^\s"'<>=,;:()\[\]/]+\.[^\s"'<>=,;:()\[\]/]+""")
"""What looks like an address in a message; the punctuation around it stays."""


def unnamed(text: str) -> str:
    """Returns a message without e-mail addresses, which a caller's input may contain: messages are stored."""
    return _ADDRESS.sub("<address>", text)


def printable_name(name: str) -> str:
    """Returns a file's name as text that is safe in any terminal and table: invalid bytes and controls are escaped."""
    # Python has the bytes of a name that are not UTF-8 as surrogates
    text = name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return printable(text)


def many(count: int, noun: str, plural: str = "") -> str:
    """Returns a count with its noun, in the plural unless it is one; the plural has an s if none is given."""
    return f"{count:,} {noun if count == 1 else plural or f'{noun}s'}"


def json_text(text: str) -> str:
    """Returns an equivalent JSON document in which characters that `printable` escapes are written as JSON escapes."""
    if text.isascii() and text.isprintable():
        return text
    # `json.dumps` leaves DEL as it is
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
