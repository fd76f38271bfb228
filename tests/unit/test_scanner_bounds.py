"""The scanner touches no byte that is not its own, whatever the text: fuzzed under AddressSanitizer and UBSan."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

import stedi
from effort import tries

TESTS = Path(__file__).parent.parent
SCANNER = Path(stedi.__file__).parent / "reader/scanner.c"
CORPUS = sorted((TESTS / "data/scanner").iterdir())
TEXTS = tries(100_000, 100_000, 50_000_000)
FLAGS = ("-O1", "-g", "-Wall", "-Wextra", "-Werror", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


def fuzzer(folder: Path, scanner: str) -> Path:
    """Compiles the fuzzer with a scanner's source."""
    (folder / "scanner.c").write_text(scanner)
    made = folder / "fuzz"
    source = str(TESTS / "support/scanner_fuzz.c")
    command = ["cc", *FLAGS, "-DSTEDI_SOURCE=0ULL", f"-I{folder}", source, "-o", str(made), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode and "sanitize" in done.stderr + done.stdout:
        pytest.skip("the C compiler has no sanitizers")
    assert done.returncode == 0, done.stderr
    return made


def test_no_text_makes_the_scanner_leave_its_memory(tmp_path: Path) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    done = subprocess.run(
        [fuzzer(tmp_path, SCANNER.read_text()), str(seed), str(TEXTS), *CORPUS], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > TEXTS / 4, "texts too bad for any record to be taken"


@pytest.mark.parametrize(
    ("bound", "looser"),
    [
        ("SLACK = 64", "SLACK = 24"),
        ("if (end - p < 12) return MORE;", "if (end - p < 1) return MORE;"),
        ("|| column->room - column->used < value->size", ""),
        ("if (row == table->room) return FULL;", ""),
    ],
)
def test_a_scanner_without_one_of_its_bounds_is_noticed(tmp_path: Path, bound: str, looser: str) -> None:
    source = SCANNER.read_text()
    assert bound in source
    fuzz = fuzzer(tmp_path, source.replace(bound, looser))
    done = subprocess.run([fuzz, "1", "100000", *CORPUS], capture_output=True, text=True)
    assert done.returncode != 0
    assert "AddressSanitizer" in done.stderr or "runtime error" in done.stderr or "Assertion" in done.stderr
