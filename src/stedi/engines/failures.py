"""DuckDB's errors as the lake's: what failed, without values of a customer, and the next step."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from stedi.errors import LakeError
from stedi.storage import s3

_MEMORY = (
    "the engine needs more memory or disk than it may take: raise engine.memory in lake.toml, or free disk "
    "space; nothing was published"
)
_NOTHING = "nothing was published"


@contextmanager
def failures() -> Iterator[None]:
    """Turns DuckDB's errors into one clear line; their own texts can hold values of a customer."""
    import duckdb

    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise LakeError(_MEMORY) from error
    except duckdb.InterruptException as error:
        raise KeyboardInterrupt from error
    except RuntimeError as error:
        # DuckDB's error after a signal handler raised during a statement
        if "interrupted" in str(error).lower():
            raise KeyboardInterrupt from error
        raise
    except duckdb.IOException as error:
        s3.prove()  # another command may have taken over the lock and removed the file: report that
        cause = next(
            (text for text in ("No space left on device", "Permission denied") if text in str(error)), "I/O error"
        )
        raise LakeError(_unreadable(cause)) from error
    except OSError as error:
        # DuckDB's errors for a failure while Arrow's batches are read or written
        if "INTERRUPT" in str(error):
            raise KeyboardInterrupt from error
        s3.prove()
        cause = os.strerror(error.errno) if error.errno else "I/O error"
        raise LakeError(_MEMORY if "Out of Memory" in str(error) else _unreadable(cause)) from error
    except duckdb.Error as error:
        raise LakeError(f"the engine refused a statement ({type(error).__name__}); nothing was published") from error


def _unreadable(cause: str) -> str:
    """Returns what says why a file cannot be read or written, and what helps where the disk is full."""
    full = "; free some space for the lake and for temporary files" if cause.startswith("No space") else ""
    return f"the engine cannot read or write a file: {cause}; {_NOTHING}{full}"
