"""The seal of a release: `SHA256SUMS` of every file in it, and `manifest.sig`, the lake's signature.

The signature covers manifest and checksums; the checksums cover all other files. Only `sign` needs a lake.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stedi.privacy import signatures
from stedi.privacy.pseudonyms import Key

MANIFEST, SUMS, SIGNATURE = "manifest.json", "SHA256SUMS", "manifest.sig"
"""The files of a release that prove the others."""
CHAIN = "chain"
"""The folder with a release's origin, after a recall."""
PREDICATE = signatures.RELEASE
"""The type of a release's signature."""
_CHUNK = 1 << 20


def digest(path: Path) -> str:
    """Returns the SHA-256 of a file, hex."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as stream:
        while chunk := stream.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def digests(folder: Path, names: list[str]) -> dict[str, str]:
    """Returns the SHA-256, hex, of files of a folder, several at once: hashing leaves the interpreter free."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as readers:
        return dict(zip(names, readers.map(lambda name: digest(folder / name), names), strict=True))


def names(folder: Path) -> Iterator[str]:
    """Yields the files below a folder, relative to it with `/`, in no order."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from (f"{entry.name}/{name}" for name in names(Path(entry.path)))
            else:
                yield entry.name


def sums(folder: Path) -> bytes:
    """Returns the content of `SHA256SUMS`, as for `sha256sum -c`: every file except itself and the signature."""
    listed = sorted(set(names(folder)) - {SUMS, SIGNATURE})
    return "".join(f"{found}  {name}\n" for name, found in digests(folder, listed).items()).encode()


def sign(folder: Path, key: Key, predicate: dict[str, Any]) -> None:
    """Writes checksums and signature of a release that is otherwise complete.

    Args:
        folder: The release.
        key: The lake's key.
        predicate: What the signature says of it besides the public key: `lake`, the lake's id, `at`, the release's
            time, ISO 8601, and `release`, `NAME@VERSION`. The same release has the same signature.
    """
    content = sums(folder)
    (folder / SUMS).write_bytes(content)
    subjects = {MANIFEST: digest(folder / MANIFEST), SUMS: hashlib.sha256(content).hexdigest()}
    (folder / SIGNATURE).write_bytes(signatures.sign(key, subjects, PREDICATE, predicate))
