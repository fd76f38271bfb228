"""Compiles what is in C where there is a compiler; without one the package is the same, but slower.

It also adds the project's addresses to the metadata of a package that is built to be published.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any, ClassVar

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

SOURCES = tuple(
    map(
        Path("src/stedi").joinpath,
        (
            "landing/reader/scanner.c",
            "engines/distinct.c",
            "engines/pages.c",
            "engines/row_sums.c",
            "engines/thrift.c",
            "engines/dictionaries.c",
            "privacy/sought.c",
        ),
    )
)
FLAGS = ("-O3", "-fPIC", "-shared", "-Wall", "-Wextra")


class Native(BuildHookInterface):  # type: ignore[misc] # hatchling has no types
    """Runs before a wheel is built or the project is installed in place; see docs/decisions/0017-scanner.md."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the libraries to the wheel, which then is one platform's, and every Python's: ctypes calls them."""
        if os.environ.get("STEDI_PURE"):
            self.app.display_info("STEDI_PURE is set: nothing is compiled")
            return
        if not all(map(self._compiled, SOURCES)):
            self.app.display_info("no C compiler that works: landing and large builds take longer")
            return
        build_data["artifacts"] += [f"/{_library(source)}" for source in SOURCES]
        build_data["pure_python"] = False
        platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{platform}"

    def _compiled(self, name: Path) -> bool:
        source, library = Path(self.root, name), Path(self.root, _library(name))
        compiler = shlex.split(os.environ.get("CC", "")) or [shutil.which("cc") or "gcc"]
        mark = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
        made = library.with_suffix(f".{os.getpid()}.tmp")
        try:
            command = [*compiler, *FLAGS, f"-DSTEDI_SOURCE=0x{mark}ULL", "-o", str(made), str(source)]
            subprocess.run(command, check=True, capture_output=True)
            os.replace(made, library)  # whole, or as it was: a process may have it open
        except (OSError, subprocess.CalledProcessError):
            made.unlink(missing_ok=True)
            return False
        return True


class Addresses(MetadataHookInterface):  # type: ignore[misc] # hatchling has no types
    """Sets `[project.urls]` from STEDI_PROJECT_URL, the repository's page on its forge; without it there are none."""

    PAGES: ClassVar = {
        "Homepage": "",
        "Source": "",
        "Documentation": "/tree/{tag}/docs",
        "Changelog": "/blob/{tag}/CHANGELOG.md",
        "Issues": "/issues",
    }

    def update(self, metadata: dict[str, Any]) -> None:
        """Adds the addresses; the pages are those of this version's tag."""
        base = os.environ.get("STEDI_PROJECT_URL", "").rstrip("/")
        tag = f"v{metadata['version']}"
        metadata["urls"] = {label: base + path.format(tag=tag) for label, path in self.PAGES.items()} if base else {}


def _library(source: Path) -> Path:
    return source.with_name(f"lib{source.stem}.so")
