"""Finds or makes a separate environment with PySpark, or gives the reason why there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "4.1.1"
"""The version in AWS Glue 6.0."""


def python(folder: Path) -> tuple[Path | None, str]:
    """Returns a Python interpreter with PySpark, or None and the reason."""
    java = Path(os.environ["JAVA_HOME"], "bin/java") if "JAVA_HOME" in os.environ else shutil.which("java")
    if not java or subprocess.run([java, "-version"], capture_output=True, check=False).returncode:
        return None, "there is no Java"
    found = folder / "bin/python"
    if not (folder / f".pyspark-{VERSION}").exists():
        print(f"Installing PySpark {VERSION} into {folder}, about 450 MB", file=sys.stderr)
        commands: tuple[list[str | Path], ...] = (
            [sys.executable, "-m", "venv", "--clear", folder],
            [found, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"pyspark=={VERSION}"],
        )
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                return None, f"PySpark could not be installed: {done.stderr.strip().splitlines()[-1:]}"
        (folder / f".pyspark-{VERSION}").touch()
    return found, ""
