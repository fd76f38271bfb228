"""Loads the package's C libraries, and returns memory of other libraries to the system.

The package's libraries are next to their sources; a library built from another source is not used.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any


def library(source: Path, functions: Mapping[str, Sequence[Any]], *, brief: bool = False) -> ctypes.CDLL | None:
    """Returns a C source's library; None if it is missing or built from another source, or if `STEDI_PURE` is set.

    Args:
        source: The C source.
        functions: For each of its functions that is called, the C type of the result, or None, and of each argument.
        brief: Whether the functions keep the interpreter's lock: to take it back would take longer than they do.
    """
    if os.environ.get("STEDI_PURE"):
        return None
    try:
        found = (ctypes.PyDLL if brief else ctypes.CDLL)(str(source.with_name(f"lib{source.stem}.so")))
        # without it, ctypes takes a result for a C int and cuts it to 32 bits
        found.stedi_source.restype = ctypes.c_uint64
        mark = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        if found.stedi_source() != int(mark, 16):
            return None
    # there is none, it is for another platform, or it is too old to name its source
    except (OSError, AttributeError):
        return None
    for name, (result, *arguments) in functions.items():
        function = getattr(found, name)
        function.restype, function.argtypes = result, arguments
    return found


def release_memory() -> None:
    """Returns memory that Arrow and the C library have freed to the system; they keep it for each thread's next use.

    DuckDB has an allocator of its own, which cannot use it.
    """
    if arrow := sys.modules.get("pyarrow"):
        arrow.default_memory_pool().release_unused()
    with suppress(OSError, AttributeError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)
