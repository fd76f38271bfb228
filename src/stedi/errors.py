"""Every error the lake raises on purpose, one tree.

    StediError                 exit 1
    ├── UsageError             exit 2   the call's words are off
    │   ├── ConfigError                 lake.toml, environment or flags
    │   └── QueryRefused                SQL that the sandbox does not run
    ├── LakeError                       the lake's folder, catalog or tables
    │   ├── CopiedLake                  the lake was copied or moved, and not adopted
    │   ├── DamagedCatalog              the catalog's file is gone, or is none
    │   ├── DamagedFile                 a table's file is not what was written
    │   ├── KeyRefused                  no pseudonym key, or another one
    │   ├── CommitConflict              somebody else has moved the table
    │   └── LakeBusy                    another command holds the lake
    ├── LandingError                    a delivery
    │   └── UnreadableFile              one file of it, refused whole
    ├── QueryFailed                     a query that ran and failed
    ├── CloudFailed                     AWS refused, or a stack, job or query there did not end well
    ├── MissingExtra                    an optional dependency that is not installed
    └── AuditFailed            exit 3   a table breaks a rule; nothing was published

A message says what, where, expected, found and the next step, and never holds a customer's data.
"""

from __future__ import annotations


class StediError(Exception):
    """Anything that goes wrong in a way the lake foresees."""

    exit_code = 1


class UsageError(StediError):
    """The call's words are off; nothing was done."""

    exit_code = 2


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
        super().__init__(
            f"table {table}: {file}: expected {expected}, found {found}; see docs/operations.md on recovery"
        )
        self.expected = expected
        self.found = found


class KeyRefused(LakeError):
    """The pseudonym key is missing, malformed, too widely readable, or not this lake's."""


class CommitConflict(LakeError):
    """A table has moved since it was read; the work can be done again."""


class LakeBusy(LakeError):
    """Another command holds the lake."""


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
