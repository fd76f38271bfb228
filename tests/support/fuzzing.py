"""Compiles a C library with AddressSanitizer and UBSan, and runs a program of this folder that calls it at random."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

FLAGS = ("-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")


def fuzz(
    folder: Path, library: Path, count: int, *files: Path, mutant: tuple[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Returns what `<library>_fuzz.c` says; skips the test if it cannot be compiled here.

    Args:
        folder: A folder for the program.
        library: The source of the library.
        count: How many inputs are tried.
        files: Further inputs.
        mutant: A text of the source, and the one that replaces it; the inputs are always the same then.
    """
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    source, made = library.read_text(), folder / "fuzz"
    if mutant:
        assert mutant[0] in source
        source = source.replace(*mutant)
    (folder / library.name).write_text(source)
    program = str(Path(__file__).with_name(f"{library.stem}_fuzz.c"))
    command = ["cc", *FLAGS, "-DSTEDI_SOURCE=0ULL", f"-I{folder}", program, "-o", str(made), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "sanitize" in done.stderr + done.stdout:
        pytest.skip("the C compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    seed = 1 if mutant else random.randrange(1 << 32)
    print(f"seed {seed}")
    return subprocess.run([made, str(seed), str(count), *files], capture_output=True, text=True)


def assert_no_fault(folder: Path, library: Path, count: int, least: float, *files: Path) -> None:
    """Asserts that `fuzz` finds no fault, and that more than `least` of the inputs were good."""
    done = fuzz(folder, library, count, *files)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > least, "too few inputs were good: the others end before most of the code"


def noticed(done: subprocess.CompletedProcess[str]) -> bool:
    """Returns whether the program found a fault."""
    return done.returncode != 0 and any(
        kind in done.stderr for kind in ("AddressSanitizer", "runtime error", "Assertion")
    )
